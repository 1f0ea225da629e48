//! Reads the tables of contents of a backup and decides what of them is restored, before anything is touched. Reads the bucket, asks the server.

use holdfast_crds::Reason;

use super::decide::{Decision, Tolerance, decide};
use super::dump::CUSTOM;
use super::rights;
use super::server::Server;
use super::target::{Backup, Fit};
use crate::archive::pgdump::contents::{ContentsEntry, ContentsReader};
use crate::engine::ArtifactSource;
use crate::store::manifest::ArtifactEntry;
use crate::task::Failure;

/// What is known of a database's archive before it is restored. Of a Plain backup nothing is.
#[derive(Debug, Default)]
pub(super) struct Foreseen {
    /// Its table of contents, without the statements.
    pub entries: Vec<ContentsEntry>,
    /// What becomes of it.
    pub decision: Decision,
}

/// Decides for each database. With `roles_to_come` the roles of the backup's globals count as there, since they are made first.
pub(super) async fn foresee(
    server: &Server,
    backup: &Backup<'_>,
    fit: &Fit,
    tolerance: Tolerance,
    roles_to_come: bool,
    source: &mut impl ArtifactSource,
) -> Result<Vec<Foreseen>, Failure> {
    let mut all = Vec::with_capacity(backup.databases.len());
    let places = fit.places.iter().zip(&fit.owners);
    for (wanted, (place, owner)) in backup.databases.iter().zip(places) {
        if wanted.entry.format != CUSTOM {
            all.push(Foreseen::default());
            continue;
        }
        let mut entries = contents(wanted.entry, source).await?;
        let mut rights = rights::of(server, fit, wanted, place, owner.as_deref()).await?;
        if roles_to_come && backup.globals.is_some() && server.facts.create_role {
            for role in &wanted.entry.roles {
                rights.roles.entry(role.clone()).or_insert(true);
            }
        }
        let decision = decide(&entries, &rights);
        if let Some(refusal) = decision.refusal(&rights.user, tolerance) {
            let touched = if backup.globals.is_some() && !roles_to_come {
                "roles were made, no database was touched"
            } else {
                "nothing was touched"
            };
            return Err(Failure::new(
                Reason::SourceRefused,
                format!("{}: {touched}: {refusal}", server.place(Some(&wanted.database))),
            ));
        }
        for entry in &mut entries {
            entry.definition = String::new();
            entry.dependencies = Vec::new();
        }
        all.push(Foreseen { entries, decision });
    }
    Ok(all)
}

async fn contents(entry: &ArtifactEntry, source: &mut impl ArtifactSource) -> Result<Vec<ContentsEntry>, Failure> {
    let (reader, handle) =
        ContentsReader::new(format!("backup of database {}", entry.database.as_deref().unwrap_or(&entry.name)));
    let untouched =
        |failure: Failure| Failure::new(failure.reason, format!("{}; nothing was touched", failure.message));
    source.read_beginning(entry, Box::new(reader)).await.map_err(untouched)?;
    handle.entries().map_err(untouched)?.ok_or_else(|| {
        Failure::new(
            Reason::SourceIncomplete,
            format!("{}: it ends inside its table of contents; nothing was touched", entry.key),
        )
    })
}

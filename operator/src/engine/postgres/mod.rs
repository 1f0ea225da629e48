//! PostgreSQL. Talks to the server through its own tools; docs/postgres.md tells users what that means.

mod clients;
mod connection;
mod database;
mod decide;
mod dump;
mod foresee;
mod globals;
mod grants;
mod pour;
mod present;
mod prove;
mod restore;
mod rights;
mod roles;
mod server;
mod side;
mod swap;
mod target;
mod trouble;
mod verify;

use std::collections::BTreeSet;
use std::path::Path;

use holdfast_crds::{OnExisting, OnUnrestorable, PostgresDatabases, PostgresSource};

use super::{ArtifactSink, ArtifactSource, Dumped, Restored};
use crate::store::manifest::Manifest;
use crate::task::{Failure, Mounts, PostgresTarget};
pub use clients::BASE_ENV;
use connection::Login;
use decide::Tolerance;
use restore::Order;
use server::{MAINTENANCE, Server};
use target::Backup;

/// Dumps the databases of a source.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn dump(
    source: &PostgresSource,
    mounts: &Mounts,
    scratch: &Path,
    sink: &mut impl ArtifactSink,
) -> Result<Dumped, Failure> {
    let login = Login::prepare(&source.host, source.port, &source.tls, mounts, scratch)?;
    let through: Vec<&str> = match source.selection() {
        PostgresDatabases::Named(names) => names.first().map(String::as_str).into_iter().collect(),
        PostgresDatabases::All => MAINTENANCE.to_vec(),
    };
    let server = Server::connect(login, &through).await?;
    dump::dump(source, &server, sink).await
}

/// The source with those of its databases that are there; none where it names databases and none of them is.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn existing(
    source: &PostgresSource,
    mounts: &Mounts,
    scratch: &Path,
) -> Result<Option<PostgresSource>, Failure> {
    let PostgresDatabases::Named(names) = source.selection() else { return Ok(Some(source.clone())) };
    let login = Login::prepare(&source.host, source.port, &source.tls, mounts, scratch)?;
    let through: Vec<&str> = MAINTENANCE.into_iter().chain(names.iter().map(String::as_str)).collect();
    let server = Server::connect(login, &through).await?;
    let there = target::databases(&server).await?;
    let databases: Vec<String> = names.iter().filter(|name| there.contains(*name)).cloned().collect();
    Ok((!databases.is_empty()).then(|| PostgresSource { database: None, databases: Some(databases), ..source.clone() }))
}

/// The databases that a restore would make or replace.
///
/// # Errors
/// Where the backup does not fit the target.
pub fn databases(target: &PostgresTarget, manifest: &Manifest) -> Result<BTreeSet<String>, Failure> {
    Ok(Backup::of(manifest, target)?.databases.into_iter().map(|wanted| wanted.database).collect())
}

/// Checks a target without touching it.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn check_target(
    target: &PostgresTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
    scratch: &Path,
) -> Result<(), Failure> {
    let backup = Backup::of(manifest, target)?;
    let server = reach(target, mounts, &backup, scratch).await?;
    target::assess(&server, &backup, manifest, on_existing).await.map(|_| ())
}

/// Restores into a target.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn restore(
    target: &PostgresTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
    scratch: &Path,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    let backup = Backup::of(manifest, target)?;
    let server = reach(target, mounts, &backup, scratch).await?;
    let order = Order { backup: &backup, manifest, on_existing, tolerance: tolerance(target) };
    restore::restore(&server, &order, source).await
}

/// Decides which entries of the archives can be restored, without touching the target. What would come back otherwise than it was.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn check_contents(
    target: &PostgresTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
    scratch: &Path,
    source: &mut impl ArtifactSource,
) -> Result<Vec<String>, Failure> {
    let backup = Backup::of(manifest, target)?;
    let server = reach(target, mounts, &backup, scratch).await?;
    let fit = target::assess(&server, &backup, manifest, on_existing).await?;
    let foreseen = foresee::foresee(&server, &backup, &fit, tolerance(target), true, source).await?;
    Ok(foreseen.iter().flat_map(|foreseen| foreseen.decision.notes(&server.login.user)).collect())
}

fn tolerance(target: &PostgresTarget) -> Tolerance {
    match target.on_unrestorable {
        None => Tolerance::Descriptions,
        Some(OnUnrestorable::Report) => Tolerance::AllButRows,
        Some(OnUnrestorable::Fail) => Tolerance::Nothing,
    }
}

/// Proves that all artifacts of a backup are whole dumps.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn prove(manifest: &Manifest, source: &mut impl ArtifactSource) -> Result<(), Failure> {
    prove::prove(manifest, source).await
}

/// A target's server, through a database that every server has, or else through one of those to restore.
async fn reach(
    target: &PostgresTarget,
    mounts: &Mounts,
    backup: &Backup<'_>,
    scratch: &Path,
) -> Result<Server, Failure> {
    let login = Login::prepare(&target.host, target.port, &target.tls, mounts, scratch)?;
    let wanted = backup.databases.iter().map(|wanted| wanted.database.as_str());
    let through: Vec<&str> = MAINTENANCE.into_iter().chain(wanted).collect();
    Server::connect(login, &through).await
}

//! The end of a restore: what was filled is counted and gets its indexes, users and roles come back, and all of it takes its place. Talks to
//! the server.

use std::fmt::Write;

use bson::Bson;
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_crds::Reason;

use super::{Run, Wanted};
use crate::archive::mongodump::VIEW;
use crate::engine::mongodb::batch::OTHER_FIELDS;
use crate::engine::mongodb::connection::Deployment;
use crate::engine::mongodb::target::Standing;
use crate::engine::mongodb::users::Merge;
use crate::engine::mongodb::{merge, swap};
use crate::task::Failure;

/// Collections that get their indexes at once.
const INDEXED_AT_ONCE: usize = 2;

impl Run<'_> {
    /// What is to be done about users and roles.
    async fn users(&self) -> Result<Option<Merge>, Failure> {
        if !self.backup.users_and_roles {
            return Ok(None);
        }
        let goes = |wanted: &Wanted| (wanted.namespace.database.clone(), wanted.database.clone());
        let databases = self.wanted.iter().flatten().map(goes).collect();
        let identity = || Bson::from(bson::Uuid::new());
        let wanted = self.held.wanted(&databases, self.backup.is_all(), identity)?;
        Box::pin(merge::plan(self.deployment, wanted, self.wish.on_existing)).await.map(Some)
    }

    /// Whether the server left empty timestamps as they are, where it could not be asked to.
    async fn prove_timestamps(&self) -> Result<(), Failure> {
        let mut told = Vec::new();
        for ((place, field), documents) in &self.emptied {
            let Some(wanted) = self.wanted.get(*place).and_then(Option::as_ref) else { continue };
            let found = swap::count_empty(self.deployment, &wanted.database, &wanted.into, field).await?;
            // A capped collection may have let go of some.
            let kept =
                found.is_some_and(|found| if wanted.metadata.capped() { found > 0 } else { found == *documents });
            if !kept {
                let replaced = documents - found.unwrap_or(0).min(*documents);
                let documents = if replaced == 1 { "document" } else { "documents" };
                let field = if field == OTHER_FIELDS { "other fields".to_owned() } else { format!("field {field}") };
                let name = wanted.namespace.full_name();
                told.push(format!(
                    "of {name} the server replaced Timestamp(0, 0) in {field} of {replaced} {documents} by the time"
                ));
            }
        }
        if told.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Reason::RestoreFailed,
            format!(
                "{}: {}: it does not know bypassEmptyTsReplacement: restore into a newer release of it, which does",
                self.deployment.place(""),
                told.join("; ")
            ),
        ))
    }

    /// Indexes, counts, and everything into its place; the number of documents.
    pub(super) async fn finish(&mut self) -> Result<u64, Failure> {
        let deployment = self.deployment;
        let merge = self.users().await?;
        self.prove_timestamps().await?;
        let counted: Vec<u64> = stream::iter(self.wanted.iter().enumerate())
            .map(|(place, wanted)| {
                let inserted = self.account.inserted(place);
                async move { complete(deployment, wanted.as_ref(), inserted).await }
            })
            .buffered(INDEXED_AT_ONCE)
            .try_collect()
            .await?;
        // Before the collections: with a right that is missing here all of the data is still as it was.
        if let Some(merge) = &merge {
            Box::pin(merge::carry_out(deployment, merge)).await?;
        }
        let users = merge.as_ref().filter(|merge| !merge.is_empty()).map(Merge::in_words);
        self.merged = merge;
        let mut unrenamed = Vec::new();
        let mut placed = 0_usize;
        let after = |mut failure: Failure, placed: usize| {
            if let Some(users) = &users {
                let _ = write!(failure.message, "; before that: {users}");
            }
            if placed > 0 {
                let _ = write!(failure.message, "; in their places before that: {placed} collections");
            }
            failure
        };
        for wanted in self.wanted.iter().flatten().filter(|wanted| wanted.beside) {
            if !place(deployment, wanted).await.map_err(|failure| after(failure, placed))? {
                unrenamed.push(wanted);
                continue;
            }
            placed += 1;
            let name = (wanted.database.clone(), wanted.into.clone());
            self.made.retain(|made| *made != name);
        }
        // What has to be copied comes last: a copy can fail where a name could not.
        for wanted in unrenamed {
            let name = (wanted.database.clone(), wanted.into.clone());
            // From here on what is beside the place may be all that there is.
            self.made.retain(|made| *made != name);
            let keeps = self.keeps_timestamps;
            swap::copy_into_place(deployment, &name.0, &name.1, &wanted.collection, &wanted.metadata, keeps)
                .await
                .map_err(|failure| after(failure, placed))?;
            placed += 1;
        }
        self.made.clear();
        for wanted in self.wanted.iter().flatten().filter(|wanted| wanted.namespace.kind == VIEW) {
            if wanted.standing.is_some() {
                swap::drop_collection(deployment, &wanted.database, &wanted.collection).await?;
            }
            swap::create(deployment, &wanted.database, &wanted.collection, &wanted.collection, &wanted.metadata)
                .await?;
        }
        Ok(counted.iter().sum())
    }
}

/// Counts a filled collection and makes its indexes.
async fn complete(deployment: &Deployment, wanted: Option<&Wanted>, inserted: u64) -> Result<u64, Failure> {
    let Some(wanted) = wanted.filter(|wanted| wanted.namespace.kind != VIEW) else { return Ok(0) };
    let (database, collection) = (wanted.database.as_str(), wanted.collection.as_str());
    // Counted before there are indexes: one that lets documents expire may take some at once. A capped collection may have let go of its oldest documents, as it should.
    if !wanted.metadata.capped() {
        let counted = swap::count(deployment, database, &wanted.into).await?;
        if counted != inserted {
            return Err(Failure::new(
                Reason::RestoreFailed,
                format!(
                    "{}: {collection} has {counted} documents and the backup {inserted}",
                    deployment.place(database)
                ),
            ));
        }
    }
    // Indexes of a time-series collection are its own, not of what it is stored in.
    let indexed = if wanted.beside { &wanted.into } else { &wanted.collection };
    swap::index(deployment, database, collection, indexed, &wanted.metadata).await?;
    Ok(inserted)
}

/// Whether the server could put it into its place.
async fn place(deployment: &Deployment, wanted: &Wanted) -> Result<bool, Failure> {
    let (database, collection) = (wanted.database.as_str(), wanted.collection.as_str());
    if matches!(wanted.standing, Some(Standing::View | Standing::TimeSeries)) {
        // Neither can be replaced by a rename.
        swap::drop_collection(deployment, database, collection).await?;
    }
    swap::into_place(deployment, database, &wanted.into, collection, wanted.standing.is_some()).await
}

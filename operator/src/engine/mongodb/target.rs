//! What a backup holds, where it goes, and whether it may. Talks to the server; touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, doc};
use holdfast_crds::{OnExisting, Reason};

use super::catalogue::{self, OWN_DATABASES};
use super::connection::Deployment;
use super::dump::{ARCHIVE, LISTS};
use super::json::{COLLECTION, LINES, SUMMARY};
use super::merge;
use super::pattern::Choice;
use crate::archive::mongodump::{Namespace, TIME_SERIES, VIEW};
use crate::engine;
use crate::store::manifest::{ArtifactEntry, MAX_ITEM_COUNTS, Manifest};
use crate::task::{CollectionFilter, Failure, MongodbTarget};

/// A backup, as its manifest tells.
#[derive(Clone, Debug)]
pub(super) struct Backup<'a> {
    /// What it is stored as.
    pub stored: Stored<'a>,
    /// Whether users and roles are wanted.
    pub users_and_roles: bool,
    /// The one database it goes into, where that is not where it came from.
    database: Option<&'a str>,
    choice: Choice<'a>,
    /// What the safety backup holds, where one was made of a part only.
    safety: Option<&'a CollectionFilter>,
    indexes: Choice<'a>,
}

/// What a backup is stored as.
#[derive(Clone, Debug)]
pub(super) enum Stored<'a> {
    /// One archive.
    Archive(&'a ArtifactEntry),
    /// A summary, and lines of JSON a collection.
    Json {
        /// The summary.
        summary: &'a ArtifactEntry,
        /// The files, by their names.
        files: BTreeMap<&'a str, &'a ArtifactEntry>,
    },
}

impl<'a> Backup<'a> {
    /// Reads a manifest.
    pub fn of(manifest: &'a Manifest, target: &'a MongodbTarget) -> Result<Self, Failure> {
        let mut archive = None;
        let mut summary = None;
        let mut files = BTreeMap::new();
        for entry in &manifest.artifacts {
            match entry.format.as_str() {
                ARCHIVE => archive = Some(entry),
                SUMMARY => summary = Some(entry),
                LINES => {
                    files.insert(entry.name.as_str(), entry);
                }
                format => {
                    return Err(invalid(format!(
                        "the backup's artifact {} has the format {format}, which this version of Holdfast does not restore",
                        entry.name
                    )));
                }
            }
        }
        let stored = match (archive, summary) {
            (Some(archive), None) if files.is_empty() => Stored::Archive(archive),
            (None, Some(summary)) => Stored::Json { summary, files },
            _ => return Err(invalid("the backup holds neither one archive nor a summary with its files".to_owned())),
        };
        let backup = Self {
            stored,
            users_and_roles: target.include_users_and_roles,
            database: target.database.as_deref(),
            choice: Choice { include: &target.include_collections, exclude: &target.exclude_collections },
            safety: target.safety.as_ref(),
            indexes: Choice { include: &[], exclude: &target.exclude_indexes },
        };
        if backup.users_and_roles && !backup.may_hold_users() {
            return Err(without_users());
        }
        if let Some(database) = backup.database {
            let known = backup.known();
            let databases: BTreeSet<&str> = known.iter().map(|(database, _)| *database).collect();
            one_database(&databases, database)?;
        }
        Ok(backup)
    }

    /// Databases and collections that the manifest names. It names the first thousands only, and of JSON no views.
    pub fn known(&self) -> Vec<(&'a str, &'a str)> {
        match &self.stored {
            Stored::Archive(entry) => entry
                .item_counts
                .iter()
                .filter_map(|item| item.name.split_once('.'))
                .filter(|(database, collection)| is_restorable(database, collection))
                .collect(),
            Stored::Json { files, .. } => files
                .values()
                .filter_map(|entry| Some((entry.database.as_deref()?, entry.properties.get(COLLECTION)?.as_str())))
                .collect(),
        }
    }

    /// Whether there may be more collections than the manifest names.
    fn names_not_all(&self) -> bool {
        matches!(&self.stored, Stored::Archive(entry) if entry.item_counts.len() >= MAX_ITEM_COUNTS)
    }

    /// Where a namespace goes; none where it is not wanted.
    pub fn goes(&self, database: &str, collection: &str) -> Option<(String, String)> {
        let wanted = is_restorable(database, collection) && self.choice.takes(database, collection);
        wanted.then(|| (self.database.unwrap_or(database).to_owned(), collection.to_owned()))
    }

    /// Whether an index of a collection is wanted.
    pub fn takes_index(&self, collection: &str, index: &str) -> bool {
        self.indexes.takes(collection, index)
    }

    /// Whether everything is wanted, and goes where it came from.
    pub fn is_all(&self) -> bool {
        self.database.is_none() && self.choice.takes_all()
    }

    /// Whether there can be users and roles in it, as far as the manifest tells.
    fn may_hold_users(&self) -> bool {
        let Stored::Archive(entry) = &self.stored else { return false };
        let list = |name: &str| {
            let (database, collection) = name.split_once('.').unwrap_or_default();
            Namespace { database: database.into(), collection: collection.into(), ..Namespace::default() }.list()
        };
        entry.properties.contains_key(LISTS) || entry.item_counts.iter().any(|item| list(&item.name).is_some())
    }

    /// Checks again with all that the backup really holds.
    pub fn confirm(&self, namespaces: &[Namespace]) -> Result<(), Failure> {
        if self.users_and_roles && !namespaces.iter().any(|namespace| namespace.list().is_some()) {
            return Err(without_users());
        }
        let restorable = namespaces.iter().filter(|n| is_restorable(&n.database, &n.collection));
        let databases: BTreeSet<&str> = restorable.map(|n| n.database.as_str()).collect();
        match self.database {
            Some(database) => one_database(&databases, database),
            None => Ok(()),
        }
    }
}

/// What two backups would both put into one deployment. Of more collections than manifests name, no two of one database are taken for
/// different ones.
pub(super) fn common(one: &Backup<'_>, other: &Backup<'_>) -> Option<String> {
    let goes = |backup: &Backup<'_>| -> BTreeSet<(String, String)> {
        backup.known().iter().filter_map(|(database, collection)| backup.goes(database, collection)).collect()
    };
    let (ours, theirs) = (goes(one), goes(other));
    if let Some((database, collection)) = ours.intersection(&theirs).next() {
        return Some(format!("collection {collection} of database {database}"));
    }
    let databases = |places: &BTreeSet<(String, String)>| -> BTreeSet<String> {
        places.iter().map(|(database, _)| database.clone()).collect()
    };
    let both: Option<String> = databases(&ours).intersection(&databases(&theirs)).next().cloned();
    both.filter(|_| one.names_not_all() || other.names_not_all()).map(|database| format!("database {database}"))
}

fn without_users() -> Failure {
    invalid(
        "the backup holds no users and roles: leave includeUsersAndRoles out of into (a policy saves them where its source says \
         includeUsersAndRoles: true)"
            .to_owned(),
    )
}

fn one_database(databases: &BTreeSet<&str>, into: &str) -> Result<(), Failure> {
    if databases.len() <= 1 {
        return Ok(());
    }
    let names: Vec<&str> = databases.iter().copied().take(5).collect();
    Err(invalid(format!(
        "into names the one database {into}, and the backup holds {} databases ({}…): leave database out, and each goes where it came from",
        databases.len(),
        names.join(", ")
    )))
}

/// Whether a namespace is data, and none of the server's own lists.
pub(super) fn is_restorable(database: &str, collection: &str) -> bool {
    !database.is_empty() && !OWN_DATABASES.contains(&database) && !collection.starts_with('$')
}

/// What stands in the place of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A collection without documents.
    Empty,
    /// A collection with documents.
    Filled,
    /// A view.
    View,
    /// A time-series collection.
    TimeSeries,
}

/// What stands in the places that a restore needs, by database and collection. With [`OnExisting::Fail`] there may be no data.
pub(super) async fn standing(
    deployment: &Deployment,
    backup: &Backup<'_>,
    wanted: &BTreeSet<(String, String)>,
    on_existing: OnExisting,
) -> Result<BTreeMap<(String, String), Standing>, Failure> {
    let mut found = BTreeMap::new();
    let databases: BTreeSet<&str> = wanted.iter().map(|(database, _)| database.as_str()).collect();
    for database in databases {
        for listed in catalogue::listed(deployment, database, Reason::SourceRefused).await? {
            let place = (database.to_owned(), listed.name.clone());
            if !wanted.contains(&place) {
                continue;
            }
            let standing = match listed.kind.as_str() {
                VIEW => Standing::View,
                TIME_SERIES => Standing::TimeSeries,
                _ if holds_documents(deployment, database, &listed.name).await? => Standing::Filled,
                _ => Standing::Empty,
            };
            found.insert(place, standing);
        }
    }
    let taken: Vec<&(String, String)> =
        found.iter().filter(|(_, standing)| **standing != Standing::Empty).map(|(place, _)| place).collect();
    match (on_existing, taken.first()) {
        (OnExisting::Fail, Some((database, collection))) => {
            let more = match taken.len() {
                1 => "it".to_owned(),
                several => format!("{several} of the backup's collections"),
            };
            Err(engine::not_empty(
                &format!(
                    "{}: collection {collection} is there already ({more} would be replaced)",
                    deployment.place(database)
                ),
                "use onExisting: Replace, or name another database in into",
            ))
        }
        _ => confirm_saved(deployment, backup, &found).map(|()| found),
    }
}

async fn holds_documents(deployment: &Deployment, database: &str, collection: &str) -> Result<bool, Failure> {
    let handle = deployment.client.database(database).collection::<Document>(collection);
    let found = handle.find_one(doc! {}).projection(doc! {"_id": 1}).await;
    found.map(|one| one.is_some()).map_err(|error| deployment.failure(database, Reason::SourceRefused, &error))
}

/// Looks at a target and decides whether the restore may begin.
pub(super) async fn assess(
    deployment: &Deployment,
    backup: &Backup<'_>,
    on_existing: OnExisting,
) -> Result<(), Failure> {
    writable(deployment).await?;
    if backup.users_and_roles {
        Box::pin(merge::kept(deployment)).await?;
    }
    let known = backup.known();
    let wanted: BTreeSet<(String, String)> =
        known.iter().filter_map(|(database, collection)| backup.goes(database, collection)).collect();
    if wanted.is_empty() && !known.is_empty() {
        return Err(invalid(format!(
            "{}: includeCollections and excludeCollections leave nothing of the backup to restore",
            deployment.place("")
        )));
    }
    standing(deployment, backup, &wanted, on_existing).await.map(drop)
}

/// What is replaced is in the safety backup, though the patterns of the policy's source have changed since the backup.
fn confirm_saved(
    deployment: &Deployment,
    backup: &Backup<'_>,
    found: &BTreeMap<(String, String), Standing>,
) -> Result<(), Failure> {
    let Some(safety) = backup.safety else { return Ok(()) };
    let safe = Choice { include: &safety.include, exclude: &safety.exclude };
    let lost = found
        .iter()
        .find(|((database, collection), standing)| **standing != Standing::Empty && !safe.takes(database, collection));
    match lost {
        None => Ok(()),
        Some(((database, collection), _)) => Err(invalid(format!(
            "{}: collection {collection} would be replaced and is not in the safety backup: includeCollections or excludeCollections of the \
             policy's source are others than when the backup was made; nothing was touched: write them as they were, or set safetyBackup: false if \
             what is replaced may be lost",
            deployment.place(database)
        ))),
    }
}

async fn writable(deployment: &Deployment) -> Result<(), Failure> {
    let hello = deployment.ask("admin", doc! {"hello": 1}, Reason::SourceUnreachable).await?;
    if hello.get_bool("isWritablePrimary").unwrap_or(true) {
        return Ok(());
    }
    Err(Failure::new(
        Reason::SourceRefused,
        format!(
            "{}: it is no primary: connect to the primary, or name the replica set in the connection string",
            deployment.place("")
        ),
    ))
}

fn invalid(message: String) -> Failure {
    Failure::new(Reason::InvalidConfiguration, message)
}

//! Restores: collections are filled and counted beside their places, and put into them when all of the backup was found whole. Talks to
//! the server.
//!
//! Why beside: a stream is known to be whole only at its end, and by then most of it has been inserted. A renamed collection takes the
//! place of another in one step. Time-series collections cannot be renamed: where a backup has any it is read twice, once to be checked.

mod finish;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use bson::RawBsonRef;
use holdfast_crds::{OnExisting, Reason};
use tokio::sync::mpsc;

use super::batch::{Batch, Batcher, Destination, Emptied, Event};
use super::catalogue::in_words;
use super::connection::Deployment;
use super::insert::{self, Account, Inserters};
use super::json::{LinesInspector, SummaryInspector, read_summary};
use super::metadata::Metadata;
use super::pour::{ArchivePour, LinesPour};
use super::swap;
use super::target::{self, Backup, Standing, Stored};
use super::users::{Held, Merge};
use crate::archive::mongodump::{ArchiveInspector, List, Namespace, TIME_SERIES, VIEW};
use crate::engine::{ArtifactSource, Restored};
use crate::store::manifest::ArtifactEntry;
use crate::task::Failure;

/// Events that wait.
const WAITING: usize = 1;

/// How a backup is to be restored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// What becomes of what is there.
    pub on_existing: OnExisting,
    /// Whether the collections' validation is passed by.
    pub bypass_validation: bool,
}

/// Restores all of a backup that is wanted.
pub(super) async fn restore(
    deployment: &Deployment,
    backup: &Backup<'_>,
    wish: Wish,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    target::assess(deployment, backup, wish.on_existing).await?;
    let mut run = Run {
        deployment,
        backup,
        wish,
        id: format!("{:08x}", fastrand::u32(..)),
        wanted: Vec::new(),
        lists: Vec::new(),
        held: Held::default(),
        merged: None,
        account: Account::new(0),
        made: Vec::new(),
        left_out: 0,
        keeps_timestamps: false,
        emptied: Emptied::new(),
    };
    let mut restored = Restored::default();
    let result = match &backup.stored {
        Stored::Archive(entry) => run.archive(entry, source, &mut restored).await,
        Stored::Json { summary, files } => run.json(summary, files, source, &mut restored).await,
    };
    let finished = match result {
        Ok(()) => run.finish().await,
        Err(failure) => Err(failure),
    };
    match finished {
        Ok(documents) => {
            let kinds = run.wanted.iter().flatten().map(|wanted| wanted.namespace.kind.as_str());
            restored.items = i64::try_from(documents).unwrap_or(i64::MAX);
            let databases: BTreeSet<&str> =
                run.wanted.iter().flatten().map(|wanted| wanted.database.as_str()).collect();
            restored.message = format!(
                "{}, {documents} document{} restored into {} on {}",
                in_words(kinds),
                if documents == 1 { "" } else { "s" },
                databases.into_iter().collect::<Vec<_>>().join(", "),
                deployment.address
            );
            if let Some(merged) = &run.merged {
                let _ = write!(restored.message, "; {}", merged.in_words());
            }
            if run.lists.iter().flatten().count() > 0 && !backup.users_and_roles {
                restored
                    .message
                    .push_str("; users and roles were left out (includeUsersAndRoles in into brings them back)");
            }
            restored.message.push_str(&changes(run.wanted.iter().flatten()));
            if run.left_out > 0 {
                restored.message.push_str("; the server's own databases were left out");
            }
            Ok(restored)
        }
        Err(mut failure) => {
            run.clean_up(&mut failure).await;
            Err(failure)
        }
    }
}

/// So many changed indexes are named.
const MOST_CHANGES: usize = 8;

/// Indexes that are not as they were, in words.
fn changes<'a>(wanted: impl Iterator<Item = &'a Wanted>) -> String {
    let all: Vec<String> = wanted.flat_map(|wanted| wanted.metadata.changes(&wanted.collection)).collect();
    let mut words = String::new();
    for change in all.iter().take(MOST_CHANGES) {
        let _ = write!(words, "; {change}");
    }
    if all.len() > MOST_CHANGES {
        let _ = write!(words, "; and {} indexes more", all.len() - MOST_CHANGES);
    }
    words
}

/// A collection or view that is restored.
struct Wanted {
    namespace: Namespace,
    metadata: Metadata,
    database: String,
    collection: String,
    /// Where documents are inserted.
    into: String,
    /// Whether that is a collection beside the place.
    beside: bool,
    standing: Option<Standing>,
}

struct Run<'a> {
    deployment: &'a Deployment,
    backup: &'a Backup<'a>,
    wish: Wish,
    id: String,
    /// By place in the backup; none: not wanted.
    wanted: Vec<Option<Wanted>>,
    /// By place in the backup: which list of users and roles it is.
    lists: Vec<Option<List>>,
    held: Held,
    /// What was done about users and roles.
    merged: Option<Merge>,
    account: Account,
    /// Collections that have been made and are not in place yet.
    made: Vec<(String, String)>,
    left_out: usize,
    /// Whether the server takes the request to leave empty timestamps as they are.
    keeps_timestamps: bool,
    /// What it may have replaced where it does not.
    emptied: Emptied,
}

impl Run<'_> {
    async fn archive(
        &mut self,
        entry: &ArtifactEntry,
        source: &mut impl ArtifactSource,
        restored: &mut Restored,
    ) -> Result<(), Failure> {
        let what = format!("backup {}", entry.name);
        if entry.properties.contains_key("timeSeries") {
            source.fetch(entry, Box::new(std::io::sink()), Box::new(ArchiveInspector::new(what.clone()))).await?;
        }
        let (events, received) = mpsc::channel(WAITING);
        let pour = ArchivePour::new(what.clone(), Batcher::new(events));
        let fetching = source.fetch(entry, Box::new(pour), Box::new(ArchiveInspector::new(what)));
        // Both end when one of them does: the one closes the channel, the other finds it closed.
        let (fetched, taken) = tokio::join!(fetching, self.take(received));
        let (bytes, inspection) = told(fetched, taken)?;
        restored.bytes += bytes;
        let counts = inspection.items.into_iter().map(|item| (item.name, item.count)).collect();
        self.compare(&counts)
    }

    async fn json(
        &mut self,
        summary: &ArtifactEntry,
        files: &BTreeMap<&str, &ArtifactEntry>,
        source: &mut impl ArtifactSource,
        restored: &mut Restored,
    ) -> Result<(), Failure> {
        let kept = Kept::default();
        let (bytes, _) = source.fetch(summary, Box::new(kept.clone()), Box::new(SummaryInspector::default())).await?;
        restored.bytes += bytes;
        let summary = read_summary(&kept.take())?;
        let namespaces: Vec<Namespace> = summary
            .collections
            .iter()
            .map(|entry| Namespace {
                database: entry.database.clone(),
                collection: entry.collection.clone(),
                metadata: entry.metadata.clone(),
                kind: entry.kind.clone(),
            })
            .collect();
        let lines = |namespace: &Namespace| {
            Box::new(LinesInspector::new(format!("backup of {}", namespace.full_name()), namespace.full_name()))
        };
        let file = |place: usize| -> Result<Option<&ArtifactEntry>, Failure> {
            let Some(name) = summary.collections.get(place).and_then(|entry| entry.file.as_deref()) else {
                return Ok(None);
            };
            let missing =
                || Failure::new(Reason::SourceIncomplete, format!("the backup's {name} is not in its manifest"));
            files.get(name).copied().map(Some).ok_or_else(missing)
        };
        // What cannot be put into place in one step is checked before.
        for (place, namespace) in namespaces.iter().enumerate() {
            let wanted = self.backup.goes(&namespace.database, &namespace.collection).is_some();
            if let (true, TIME_SERIES, Some(entry)) = (wanted, namespace.kind.as_str(), file(place)?) {
                source.fetch(entry, Box::new(std::io::sink()), lines(namespace)).await?;
            }
        }
        let destinations = self.prepare(&namespaces, false).await?;
        let mut counts = BTreeMap::new();
        for (place, namespace) in namespaces.iter().enumerate() {
            let (Some(entry), Some(Some(_))) = (file(place)?, destinations.get(place)) else { continue };
            let (events, received) = mpsc::channel(WAITING);
            let mut batcher = Batcher::new(events);
            batcher.begin(destinations.clone());
            let fetching = source.fetch(entry, Box::new(LinesPour::new(place, batcher)), lines(namespace));
            let (fetched, taken) = tokio::join!(fetching, self.take(received));
            let (bytes, inspection) = told(fetched, taken)?;
            restored.bytes += bytes;
            counts.extend(inspection.items.into_iter().map(|item| (item.name, item.count)));
        }
        self.compare(&counts)
    }

    /// Takes what comes out of the backup until it is whole.
    async fn take(&mut self, mut events: mpsc::Receiver<Event>) -> Result<(), Failure> {
        let mut inserters: Option<Inserters> = None;
        let mut whole = false;
        while let Some(event) = events.recv().await {
            match event {
                Event::Namespaces(namespaces, answer) => {
                    let destinations = self.prepare(&namespaces, true).await?;
                    let _ = answer.send(destinations);
                }
                Event::Batch(batch) if self.lists.get(batch.place).is_some_and(Option::is_some) => {
                    self.hold(&batch)?;
                }
                Event::Batch(batch) => {
                    let ordered =
                        self.wanted.get(batch.place).is_some_and(|w| w.as_ref().is_some_and(|w| w.metadata.capped()));
                    let inserters = inserters.get_or_insert_with(|| {
                        let database = |w: &Option<Wanted>| w.as_ref().map(|w| w.database.clone()).unwrap_or_default();
                        Inserters::start(self.deployment, self.wanted.iter().map(database).collect(), &self.account)
                    });
                    if !inserters.take(batch, ordered).await? {
                        break;
                    }
                }
                Event::Whole(emptied) => {
                    self.emptied.extend(emptied);
                    whole = true;
                }
            }
        }
        drop(events);
        if let Some(inserters) = inserters {
            inserters.finish().await?;
        }
        if whole {
            return Ok(());
        }
        // The other side knows why.
        Err(Failure::new(Reason::SourceIncomplete, BROKE_OFF))
    }

    /// Keeps users and roles for the end.
    fn hold(&mut self, batch: &Batch) -> Result<(), Failure> {
        let Some(list) = self.lists.get(batch.place).copied().flatten() else { return Ok(()) };
        let broken = |error: bson::error::Error| {
            Failure::new(Reason::SourceIncomplete, format!("users and roles of the backup cannot be read: {error}"))
        };
        for document in batch.command.get_array("documents").into_iter().flatten() {
            if let RawBsonRef::Document(document) = document.map_err(broken)? {
                self.held.take(list, document)?;
            }
        }
        Ok(())
    }

    /// Makes the collections that documents go into.
    async fn prepare(&mut self, namespaces: &[Namespace], raw: bool) -> Result<Vec<Option<Destination>>, Failure> {
        self.backup.confirm(namespaces)?;
        let mut places = BTreeSet::new();
        for namespace in namespaces {
            let goes = self.backup.goes(&namespace.database, &namespace.collection);
            self.lists.push(namespace.list());
            if namespace.list().is_some() {
                self.held.begin(namespace);
                self.wanted.push(None);
                continue;
            }
            if goes.is_none() && !target::is_restorable(&namespace.database, &namespace.collection) {
                self.left_out += 1;
            }
            let Some((database, collection)) = goes.clone() else {
                self.wanted.push(None);
                continue;
            };
            let mut metadata = Metadata::read(&namespace.metadata).map_err(|why| {
                Failure::new(
                    Reason::SourceIncomplete,
                    format!("the backup's options and indexes of {} cannot be read: {why}", namespace.full_name()),
                )
            })?;
            metadata.choose(|index| self.backup.takes_index(&namespace.collection, index));
            let beside = namespace.kind != TIME_SERIES && namespace.kind != VIEW;
            let into = match namespace.kind.as_str() {
                TIME_SERIES if raw => namespace.data_collection(),
                TIME_SERIES | VIEW => collection.clone(),
                _ => swap::beside(&self.id, self.wanted.len()),
            };
            places.extend(goes);
            let namespace = namespace.clone();
            self.wanted.push(Some(Wanted { namespace, metadata, database, collection, into, beside, standing: None }));
        }
        if places.is_empty() {
            return Err(Failure::new(Reason::InvalidConfiguration, "nothing of the backup is to be restored"));
        }
        self.account = Account::new(namespaces.len());
        let standing = target::standing(self.deployment, &places, self.wish.on_existing).await?;
        for database in places.iter().map(|(database, _)| database).collect::<BTreeSet<_>>() {
            swap::drop_leftovers(self.deployment, database).await?;
        }
        // What may be refused comes before what cannot be taken back.
        for (place, wanted) in self.wanted.iter().enumerate() {
            let Some(wanted) = wanted.as_ref().filter(|wanted| wanted.namespace.kind == VIEW) else { continue };
            let name = swap::beside(&self.id, place);
            self.made.push((wanted.database.clone(), name.clone()));
            swap::try_view(self.deployment, &wanted.database, &wanted.collection, &name, &wanted.metadata).await?;
            self.made.pop();
        }
        if let Some(wanted) = self.wanted.iter().flatten().find(|wanted| wanted.namespace.kind != VIEW) {
            self.keeps_timestamps = insert::keeps_timestamps(self.deployment, &wanted.database, &wanted.into).await?;
        }
        for wanted in self.wanted.iter_mut().flatten() {
            wanted.standing = standing.get(&(wanted.database.clone(), wanted.collection.clone())).copied();
            let (database, collection) = (wanted.database.as_str(), wanted.collection.as_str());
            let name = match wanted.namespace.kind.as_str() {
                VIEW => continue,
                TIME_SERIES => {
                    if wanted.standing.is_some() {
                        swap::drop_collection(self.deployment, database, collection).await?;
                    }
                    collection
                }
                _ => wanted.into.as_str(),
            };
            self.made.push((database.to_owned(), name.to_owned()));
            swap::create(self.deployment, database, collection, name, &wanted.metadata).await?;
        }
        let destination = |wanted: &Wanted| Destination {
            collection: wanted.into.clone(),
            ordered: wanted.metadata.capped(),
            bypass_validation: self.wish.bypass_validation,
            keeps_timestamps: self.keeps_timestamps,
        };
        // Users and roles are gathered in the same way, and go nowhere for now.
        let held =
            Destination { collection: String::new(), ordered: true, bypass_validation: false, keeps_timestamps: true };
        let with_users = self.backup.users_and_roles;
        let of = |(wanted, list): (&Option<Wanted>, &Option<List>)| match list {
            Some(_) => with_users.then(|| held.clone()),
            None => wanted.as_ref().filter(|w| w.namespace.kind != VIEW).map(destination),
        };
        Ok(self.wanted.iter().zip(&self.lists).map(of).collect())
    }

    /// Whether all documents of the backup were taken.
    fn compare(&self, counts: &BTreeMap<String, i64>) -> Result<(), Failure> {
        let refused = self.account.refused();
        let mut told = Vec::new();
        for (place, wanted) in self.wanted.iter().enumerate() {
            let Some(wanted) = wanted else { continue };
            if let Some(refused) = refused.get(&place) {
                told.push(format!("of {} {}", wanted.namespace.full_name(), refused.in_words()));
                continue;
            }
            let expected = counts.get(&wanted.namespace.full_name()).copied().unwrap_or_default();
            let inserted = self.account.inserted(place);
            if i64::try_from(inserted) != Ok(expected) {
                told.push(format!(
                    "of {} {inserted} documents were inserted and the backup has {expected}",
                    wanted.collection
                ));
            }
        }
        if told.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Reason::RestoreFailed, format!("mongodb at {}: {}", self.deployment.address, told.join("; "))))
    }

    /// Removes what is not in its place.
    async fn clean_up(&self, failure: &mut Failure) {
        for (database, name) in &self.made {
            if swap::drop_collection(self.deployment, database, name).await.is_err() {
                let _ = write!(failure.message, "; the unfinished collection {database}.{name} could not be dropped");
            }
        }
    }
}

/// Said by the one who inserts where the stream ends before its end.
const BROKE_OFF: &str = "the backup's stream broke off";

/// What one of the two sides of a stream knows: the inserting side's word counts, unless it only saw the stream stop.
fn told<T>(fetched: Result<T, Failure>, taken: Result<(), Failure>) -> Result<T, Failure> {
    match (fetched, taken) {
        (Ok(fetched), Ok(())) => Ok(fetched),
        (Err(failure), Ok(())) => Err(failure),
        (Err(failure), Err(taken)) if taken.message == BROKE_OFF => Err(failure),
        (_, Err(taken)) => Err(taken),
    }
}

/// Keeps the little that is written to it.
#[derive(Clone, Default)]
pub(super) struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Kept {
    /// All of it.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl std::io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.len() + bytes.len() > super::json::MAX_SUMMARY_BYTES {
            return Err(std::io::Error::other("the summary is too large for one"));
        }
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

//! Dumps: collections on their way into the sink. Talks to the server.

use std::sync::Arc;

use holdfast_crds::{MongodbFormat, MongodbSource, Reason};
use tokio::sync::mpsc;
use tracing::warn;

use super::catalogue::{self, Collection};
use super::connection::Deployment;
use super::json;
use super::merge;
use super::pattern::Choice;
use super::read::{self, AT_ONCE, Piece, Reading, Stopped};
use super::stream::{Archived, PieceStream};
use crate::archive::mongodump::{ArchiveInspector, Header, Namespace, TIME_SERIES};
use crate::engine::{ArtifactMetadata, ArtifactSink, Dumped};
use crate::task::Failure;

/// Format of an artifact in mongodump's archive format.
pub(super) const ARCHIVE: &str = "mongodump-archive";
/// Property of an archive with users and roles in it.
pub(super) const LISTS: &str = "usersAndRoles";
/// The tool that wrote it.
pub(super) const TOOL: &str = concat!("holdfast ", env!("CARGO_PKG_VERSION"));
/// Since this version a server has no collections of buckets that could be read.
const NO_BUCKETS_SINCE: (u32, u32) = (8, 3);
/// Batches that wait to be stored.
const WAITING: usize = 4;

/// What is dumped.
pub(super) struct Subject<'a> {
    /// From here.
    pub deployment: &'a Deployment,
    /// The one database; absent: all.
    pub database: Option<&'a str>,
    /// Collections and views, in the order of the archive.
    pub collections: Arc<[Collection]>,
}

/// Whether there is any collection in what a source names.
pub(super) async fn holds_any(source: &MongodbSource, deployment: &Deployment) -> Result<bool, Failure> {
    let choice = Choice { include: &source.include_collections, exclude: &source.exclude_collections };
    let databases = catalogue::databases(deployment, source.database.as_deref()).await?;
    Ok(!catalogue::collections(deployment, &databases, &choice).await?.is_empty())
}

/// Dumps what a source names.
pub(super) async fn dump(
    source: &MongodbSource,
    deployment: &Deployment,
    sink: &mut impl ArtifactSink,
) -> Result<Dumped, Failure> {
    let choice = Choice { include: &source.include_collections, exclude: &source.exclude_collections };
    let database = source.database.as_deref();
    let databases = catalogue::databases(deployment, database).await?;
    let collections = catalogue::collections(deployment, &databases, &choice).await?;
    if collections.is_empty() {
        return Err(nothing(deployment, database, &databases, &choice));
    }
    let mut subject = Subject { deployment, database, collections: collections.into() };
    if source.include_users_and_roles {
        subject.collections = Box::pin(with_lists(source, &subject)).await?;
    }
    if source.format == MongodbFormat::Archive {
        readable(&subject)?;
    }
    let snapshot = read::snapshot(deployment, &subject.collections).await;
    let mut reading = snapshot.map_or(Reading::Live, Reading::Snapshot);
    let mut stored = store(&subject, source.format, reading, sink).await;
    if let Err(Stopped::SnapshotLost(failure)) = &stored {
        warn!("the snapshot was lost, and the dump begins again without one: {failure}");
        reading = Reading::Live;
        stored = store(&subject, source.format, reading, sink).await;
    }
    stored.map_err(|stopped| match stopped {
        Stopped::Failed(failure) | Stopped::SnapshotLost(failure) => failure,
    })?;
    Ok(Dumped {
        server_version: deployment.version.clone(),
        tool_version: TOOL.to_owned(),
        consistency: consistency(reading, &subject.collections).to_owned(),
    })
}

/// The collections of a source, after the lists of its users and roles.
async fn with_lists(source: &MongodbSource, subject: &Subject<'_>) -> Result<Arc<[Collection]>, Failure> {
    if source.format != MongodbFormat::Archive {
        let message = format!(
            "{}: only an archive can hold users and roles: set format: Archive, or leave includeUsersAndRoles out",
            subject.deployment.place(subject.database.unwrap_or_default())
        );
        return Err(Failure::new(Reason::InvalidConfiguration, message));
    }
    let mut all = merge::lists(subject.deployment, subject.database).await?;
    all.extend_from_slice(&subject.collections);
    Ok(all.into())
}

/// `snapshot` where all collections were read as they were at one instant, else `fuzzy`. Capped ones cannot be.
pub(super) fn consistency(reading: Reading, collections: &[Collection]) -> &'static str {
    match reading {
        Reading::Snapshot(_) if !collections.iter().any(|collection| collection.capped) => "snapshot",
        _ => "fuzzy",
    }
}

async fn store(
    subject: &Subject<'_>,
    format: MongodbFormat,
    reading: Reading,
    sink: &mut impl ArtifactSink,
) -> Result<(), Stopped> {
    match format {
        MongodbFormat::Archive => archive(subject, reading, sink).await,
        MongodbFormat::Json => json::store(subject, reading, sink).await,
    }
}

/// A dump of nothing is no backup.
fn nothing(deployment: &Deployment, database: Option<&str>, databases: &[String], choice: &Choice<'_>) -> Failure {
    let message = match (database, choice.takes_all()) {
        (Some(database), true) => format!(
            "{}: there is no collection in it: check the name of the database, and that the user may list its collections",
            deployment.place(database)
        ),
        (None, true) => format!(
            "{}: there is no collection in any of its {} databases (admin, config and local aside)",
            deployment.place(""),
            databases.len()
        ),
        (database, false) => format!(
            "{}: includeCollections and excludeCollections leave nothing to save: correct their patterns",
            deployment.place(database.unwrap_or_default())
        ),
    };
    Failure::new(Reason::SourceRefused, message)
}

/// What this version cannot read must not be missing in silence.
fn readable(subject: &Subject<'_>) -> Result<(), Failure> {
    let mut numbers = subject.deployment.version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let time_series = subject.collections.iter().find(|c| c.namespace.kind == TIME_SERIES);
    match time_series {
        Some(collection) if version >= NO_BUCKETS_SINCE => Err(Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "{}: {} is a time-series collection, which mongodump's format cannot hold of MongoDB {}: use format: Json, or exclude it",
                subject.deployment.place(&collection.namespace.database),
                collection.namespace.collection,
                subject.deployment.version
            ),
        )),
        _ => Ok(()),
    }
}

async fn archive(subject: &Subject<'_>, reading: Reading, sink: &mut impl ArtifactSink) -> Result<(), Stopped> {
    let header = Header {
        concurrent_collections: i32::try_from(AT_ONCE).unwrap_or(1),
        server_version: subject.deployment.version.clone(),
        tool_version: TOOL.to_owned(),
    };
    let namespaces: Vec<Namespace> = subject.collections.iter().map(|c| c.namespace.clone()).collect();
    let (form, beginning) = Archived::begin(&header, &namespaces);
    let (sender, receiver) = mpsc::channel::<Piece>(WAITING);
    let stream = PieceStream::new(receiver, form, beginning);
    let what = format!("dump of {}", subject.deployment.place(subject.database.unwrap_or_default()));
    let mut metadata = ArtifactMetadata {
        database: subject.database.map(str::to_owned),
        format: ARCHIVE.to_owned(),
        ..ArtifactMetadata::default()
    };
    if namespaces.iter().any(|namespace| namespace.kind == TIME_SERIES) {
        metadata.properties.insert("timeSeries".to_owned(), "true".to_owned());
    }
    if namespaces.iter().any(|namespace| namespace.list().is_some()) {
        metadata.properties.insert(LISTS.to_owned(), "true".to_owned());
    }
    let name = format!("{}.archive", subject.database.unwrap_or("databases"));
    let storing = sink.store(&name, Box::new(stream), Box::new(ArchiveInspector::new(what)), metadata);
    let reading = read::read(subject.deployment, &subject.collections, reading, true, sender);
    both(storing, reading).await.map(|_| ())
}

/// Stores and reads side by side. Where reading fails its word counts: the store only sees a stream that stops.
pub(super) async fn both<T>(
    storing: impl Future<Output = Result<T, Failure>>,
    reading: impl Future<Output = Result<(), Stopped>>,
) -> Result<T, Stopped> {
    let (mut storing, mut reading) = (std::pin::pin!(storing), std::pin::pin!(reading));
    tokio::select! {
        stored = &mut storing => match stored {
            // Stored to its end, so it was read to its end, or else reading says why not.
            Ok(stored) => reading.await.map(|()| stored),
            // A stream that stops is told by both at about the same time.
            Err(failure) if failure.reason == Reason::SourceIncomplete => {
                reading.await?;
                Err(Stopped::Failed(failure))
            }
            Err(failure) => Err(Stopped::Failed(failure)),
        },
        read = &mut reading => {
            // Its sender goes with it, and so the store's stream ends.
            read?;
            storing.await.map_err(Stopped::Failed)
        }
    }
}

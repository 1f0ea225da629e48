//! Engines: how a source is dumped and brought back, one file each. They talk to databases and tools; where the bytes go is the worker's.
//!
//! An engine is cancelled by dropping its future: its tools are killed with their handles (`process`). It knows neither S3 nor Kubernetes.

mod apart;
pub mod config;
pub mod mongodb;
pub mod postgres;
pub mod redis;
pub mod volume;

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_crds::{Engine, OnExisting, Reason, Source};

use crate::store::manifest::{ArtifactEntry, ItemCount, Manifest};
use crate::task::{Failure, Mounts, RestoreTarget, Target};

pub use apart::{Chosen, confirm_apart};

/// Looks at a stream as it passes: counts what is in it and proves that it is whole.
pub trait Inspect: Send {
    /// The next bytes of the stream, in order.
    ///
    /// # Errors
    /// As soon as the stream is seen not to be what it should ([`Reason::SourceIncomplete`]).
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure>;

    /// The stream has ended.
    ///
    /// # Errors
    /// Where it ended before its own end marker ([`Reason::SourceIncomplete`]).
    fn finish(&mut self) -> Result<Inspection, Failure>;
}

/// What a stream held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Tables, collections, keyspaces or files with the count of their rows, documents, keys or bytes. Complete, in stream order.
    pub items: Vec<ItemCount>,
    /// How many items there are, where they are too many to be named one by one. Absent: as many as `items`.
    pub total: Option<i64>,
    /// What else the stream tells of itself. The sink adds it to the `properties` of the manifest's entry.
    pub properties: BTreeMap<String, String>,
}

/// Where an engine puts its streams: the worker compresses, hashes and uploads them.
pub trait ArtifactSink: Send {
    /// Stores one stream to its end as the artifact `name` (`shop.pgdump`: without the attempt, the compression's or encryption's
    /// ending, which the sink adds). The stream is read on a blocking thread, in large pieces. `metadata` goes into the manifest's
    /// entry. The object is complete when this returns; it counts only once the manifest names it.
    fn store(
        &mut self,
        name: &str,
        stream: Box<dyn Read + Send>,
        inspect: Box<dyn Inspect>,
        metadata: ArtifactMetadata,
    ) -> impl Future<Output = Result<Inspection, Failure>> + Send;

    /// The source is at work and has just said so, though no byte of it has come yet: to the idle watch this is a byte.
    fn alive(&mut self) {}
}

/// A sink that takes two streams at once, for an engine whose second artifact grows with the first.
pub trait PairSink: ArtifactSink {
    /// Stores two streams side by side, each as [`ArtifactSink::store`] does. A stream may wait for the other one to be read.
    fn store_pair(
        &mut self,
        first: NewArtifact,
        second: NewArtifact,
    ) -> impl Future<Output = Result<(Inspection, Inspection), Failure>> + Send;
}

/// A stream to store, with what [`ArtifactSink::store`] takes.
pub struct NewArtifact {
    /// Its name, without the attempt and the endings.
    pub name: String,
    /// Its bytes.
    pub stream: Box<dyn BufRead + Send>,
    /// What looks at them.
    pub inspect: Box<dyn Inspect>,
    /// What goes into the manifest.
    pub metadata: ArtifactMetadata,
}

/// What an engine says of an artifact, for the manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArtifactMetadata {
    /// Name of the database, where the artifact is one.
    pub database: Option<String>,
    /// Format: `pgdump-custom`, `sql`, `sql-globals`, …
    pub format: String,
    /// Roles that own something in it or were granted something on it.
    pub roles: Vec<String>,
    /// Extensions installed in the database.
    pub extensions: Vec<String>,
    /// What else a restore needs to know, by the engine's own names: encoding, locale, owner, …
    pub properties: BTreeMap<String, String>,
}

/// Where an engine gets its streams from: the worker downloads, checks and decompresses them.
pub trait ArtifactSource: Send {
    /// Writes the plain bytes of an artifact to `sink`, on a blocking thread, and closes it. The last bytes (at least one, at most a few
    /// MiB) are held back until size and SHA-256 of everything stored have been found right, so that a tool that needs the end of its
    /// input to commit never commits a damaged stream; on a mismatch `sink` is dropped without them and the error is
    /// [`Reason::ChecksumMismatch`]. Returns the number of plain bytes.
    fn fetch(
        &mut self,
        artifact: &ArtifactEntry,
        sink: Box<dyn Write + Send>,
        inspect: Box<dyn Inspect>,
    ) -> impl Future<Output = Result<(u64, Inspection), Failure>> + Send;

    /// Writes the plain bytes of an artifact to `sink` from the first on, until it takes no more, which is no failure here. They count for
    /// nothing until [`ArtifactSource::fetch`] has found the whole to be what was stored.
    fn read_beginning(
        &mut self,
        artifact: &ArtifactEntry,
        sink: Box<dyn Write + Send>,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        async move {
            let enough = Arc::new(AtomicBool::new(false));
            let sink = Beginning { sink, enough: enough.clone() };
            let fetched = self.fetch(artifact, Box::new(sink), Box::new(Unseen)).await;
            if enough.load(Ordering::Acquire) { Ok(()) } else { fetched.map(drop) }
        }
    }
}

/// A sink that tells whether it has had enough.
struct Beginning {
    sink: Box<dyn Write + Send>,
    enough: Arc<AtomicBool>,
}

impl Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.sink.write(bytes).inspect_err(|_| self.enough.store(true, Ordering::Release))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.sink.flush()
    }
}

/// Looks at nothing.
struct Unseen;

impl Inspect for Unseen {
    fn feed(&mut self, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        Ok(Inspection::default())
    }
}

/// What an engine knows after a dump, for the manifest and the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dumped {
    /// Version of the server.
    pub server_version: String,
    /// Tool with its version, such as `pg_dump 18.1`.
    pub tool_version: String,
    /// `snapshot` or `fuzzy`.
    pub consistency: String,
}

/// What an engine has restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Tables, documents, keys or files.
    pub items: i64,
    /// Plain bytes.
    pub bytes: u64,
    /// What was restored and what could not be kept, in one line.
    pub message: String,
}

/// Dumps a source, every artifact of it, into `sink`.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn dump(
    source: &Source,
    mounts: &Mounts,
    scratch: &Path,
    sink: &mut impl PairSink,
) -> Result<Dumped, Failure> {
    let dumped = match source.engine() {
        Some(Engine::Postgres(postgres)) => postgres::dump(postgres, mounts, scratch, sink).await,
        Some(Engine::Mongodb(mongodb)) => mongodb::dump(mongodb, mounts, sink).await,
        Some(Engine::Redis(redis)) => redis::dump(redis, mounts, sink).await,
        Some(Engine::Volume(volume)) => volume::dump(volume, mounts, sink).await,
        Some(Engine::Config(config)) => config::dump(config, mounts, sink).await,
        None => Err(unknown(&source.name)),
    };
    dumped.map_err(|failure| mounts.named_in(failure))
}

/// What there is to save of a source that may not be there, or in part: it is about to be restored into. None: nothing.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn existing(source: &Source, mounts: &Mounts, scratch: &Path) -> Result<Option<Source>, Failure> {
    let existing = match source.engine() {
        Some(Engine::Postgres(postgres)) => postgres::existing(postgres, mounts, scratch)
            .await
            .map(|found| found.map(|postgres| Source { postgres: Some(postgres), ..source.clone() })),
        Some(Engine::Mongodb(mongodb)) => {
            mongodb::holds_any(mongodb, mounts).await.map(|any| any.then(|| source.clone()))
        }
        _ => Ok(Some(source.clone())),
    };
    existing.map_err(|failure| mounts.named_in(failure))
}

/// Checks a target without touching it: reachable, allowed, versions compatible, and empty where `on_existing` says so.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn check_target(
    target: &RestoreTarget,
    manifest: &Manifest,
    on_existing: OnExisting,
    scratch: &Path,
) -> Result<(), Failure> {
    let fit = match &target.server {
        Target::Postgres(server) => {
            postgres::check_target(server, &target.mounts, manifest, on_existing, scratch).await
        }
        Target::Mongodb(server) => mongodb::check_target(server, &target.mounts, manifest, on_existing).await,
        Target::Redis(server) => redis::check_target(server, &target.mounts, manifest, on_existing).await,
        Target::Volume(claim) => volume::check_target(claim, &target.mounts, manifest, on_existing).await,
        Target::Config(claim) => config::check_target(claim, &target.mounts, manifest, on_existing).await,
    };
    fit.map_err(|failure| target.mounts.named_in(failure))
}

/// Looks into the artifacts of a manifest for what a target that [`check_target`] found fit does not take, without touching it. What would be
/// restored otherwise than it was, in words.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn check_contents(
    target: &RestoreTarget,
    manifest: &Manifest,
    on_existing: OnExisting,
    scratch: &Path,
    source: &mut impl ArtifactSource,
) -> Result<Vec<String>, Failure> {
    match &target.server {
        Target::Postgres(server) => {
            postgres::check_contents(server, &target.mounts, manifest, on_existing, scratch, source)
                .await
                .map_err(|failure| target.mounts.named_in(failure))
        }
        _ => Ok(Vec::new()),
    }
}

/// Restores all artifacts of a manifest into a target that [`check_target`] found fit, the only one of its request.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn restore(
    target: &RestoreTarget,
    manifest: &Manifest,
    on_existing: OnExisting,
    scratch: &Path,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    restore_beside(&[], target, manifest, on_existing, scratch, source).await
}

/// As [`restore`], of one source of a request. `all`: whatever it restores, which [`confirm_apart`] found to be apart.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn restore_beside(
    all: &[Chosen<'_>],
    target: &RestoreTarget,
    manifest: &Manifest,
    on_existing: OnExisting,
    scratch: &Path,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    let restored = match &target.server {
        Target::Postgres(server) => {
            postgres::restore(server, &target.mounts, manifest, on_existing, scratch, source).await
        }
        Target::Mongodb(server) => mongodb::restore(server, &target.mounts, manifest, on_existing, source).await,
        Target::Redis(server) => redis::restore(server, &target.mounts, manifest, on_existing, source).await,
        Target::Volume(claim) => {
            let beside = apart::beside(target, all);
            volume::restore(claim, &target.mounts, manifest, on_existing, &beside, source).await
        }
        Target::Config(claim) => config::restore(claim, &target.mounts, manifest, on_existing, source).await,
    };
    restored.map_err(|failure| target.mounts.named_in(failure))
}

/// Between what a target holds and what to do about it.
const UNTOUCHED: &str = "; nothing was touched: ";

/// The failure of a target that must be empty and is not.
pub(crate) fn not_empty(holds: &str, advice: &str) -> Failure {
    Failure::new(Reason::TargetNotEmpty, format!("{holds}{UNTOUCHED}{advice}"))
}

/// What a target holds that was found not to be empty, without what to do about it.
pub fn what_it_holds(failure: &Failure) -> &str {
    failure.message.split(UNTOUCHED).next().unwrap_or_default()
}

/// Reads all artifacts of a manifest to their ends and proves of each that it is a whole one of its format: what a restore asks of them,
/// without a target.
///
/// # Errors
/// The reason, with one line a person can act on; [`Reason::InvalidConfiguration`] for what only a later version knows.
pub async fn prove(manifest: &Manifest, source: &mut impl ArtifactSource) -> Result<(), Failure> {
    if manifest.artifacts.is_empty() {
        return Ok(());
    }
    match manifest.engine.as_str() {
        "postgres" => postgres::prove(manifest, source).await,
        "mongodb" => mongodb::prove(manifest, source).await,
        "redis" => redis::prove(manifest, source).await,
        "volume" | "config" => volume::prove(manifest, source).await,
        other => Err(Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "its engine is {other}, which this version of Holdfast does not know: use the version that stored it"
            ),
        )),
    }
}

fn unknown(source: &str) -> Failure {
    Failure::new(Reason::InvalidConfiguration, format!("source {source}: names no engine this version knows"))
}

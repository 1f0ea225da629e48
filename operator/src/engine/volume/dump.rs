//! A volume into two artifacts: the archive and the list of what is in it. Talks to the file system.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;

use holdfast_crds::{OnUnreadable, Reason, VolumeSource};
use tracing::warn;

use super::ahead::{READERS, Shared, read_batches};
use super::stream::{IndexProof, TarProof, streams};
use super::walk::{Scope, Walk};
use super::{EXCLUDE, INCLUDE, INDEX_FORMAT, INDEX_NAME, TAR_FORMAT, TAR_NAME};
use crate::engine::{ArtifactMetadata, Dumped, NewArtifact, PairSink};
use crate::task::{Failure, Globs};

/// Batches that are known and not yet stored.
const BATCHES_AHEAD: usize = 64;

/// What of a volume is saved, and how.
pub(crate) struct Selection<'a> {
    /// Globs of what to save; empty: everything.
    pub(crate) include: &'a [String],
    /// Globs of what to leave out.
    pub(crate) exclude: &'a [String],
    /// What to do about files that cannot be read.
    pub(crate) on_unreadable: OnUnreadable,
    /// Whether there may be nothing to save.
    pub(crate) allow_empty: bool,
}

impl<'a> From<&'a VolumeSource> for Selection<'a> {
    fn from(source: &'a VolumeSource) -> Self {
        Self {
            include: &source.include,
            exclude: &source.exclude,
            on_unreadable: source.on_unreadable,
            allow_empty: source.allow_empty,
        }
    }
}

pub(super) async fn dump(selection: Selection<'_>, root: &Path, sink: &mut impl PairSink) -> Result<Dumped, Failure> {
    let scope = Scope {
        root: Arc::new(open_root(root)?),
        include: Globs::new(INCLUDE, selection.include)?,
        exclude: Globs::new(EXCLUDE, selection.exclude)?,
    };
    let shared = Arc::new(Shared::new(selection.on_unreadable));
    let (slots, slots_out) = sync_channel(BATCHES_AHEAD);
    let (batches, batches_out) = sync_channel(BATCHES_AHEAD);
    let walk = Walk::new(scope, shared.clone(), slots, batches);
    let batches_out = Arc::new(Mutex::new(batches_out));
    // They end when the streams are dropped, whoever drops them.
    spawn("walk", move || walk.run())?;
    for _ in 0..READERS {
        let (batches_out, shared) = (batches_out.clone(), shared.clone());
        spawn("read", move || read_batches(&batches_out, &shared))?;
    }
    let (tar, index) = streams(slots_out, shared.clone(), selection.allow_empty);
    let of = |format: &str| ArtifactMetadata { format: format.to_owned(), ..ArtifactMetadata::default() };
    let list = |globs: &[String]| {
        let failed =
            |e| Failure::new(Reason::InvalidConfiguration, format!("include and exclude cannot be written: {e}"));
        serde_json::to_string(globs).map_err(failed)
    };
    // A restore replaces what was saved, and nothing beside it.
    let saved = [(INCLUDE.to_owned(), list(selection.include)?), (EXCLUDE.to_owned(), list(selection.exclude)?)].into();
    let stored = sink
        .store_pair(
            NewArtifact {
                name: TAR_NAME.to_owned(),
                stream: Box::new(tar),
                inspect: Box::new(TarProof::new(shared.clone())),
                metadata: ArtifactMetadata { properties: saved, ..of(TAR_FORMAT) },
            },
            NewArtifact {
                name: INDEX_NAME.to_owned(),
                stream: Box::new(index),
                inspect: Box::new(IndexProof::new(shared.clone())),
                metadata: of(INDEX_FORMAT),
            },
        )
        .await;
    if let Err(failure) = stored {
        // What the readers met is the cause; that the streams broke off is its effect.
        return Err(shared.failure().unwrap_or(failure));
    }
    let census = &shared.census;
    for (what, tally) in [
        ("changed while they were read", &census.changed),
        ("were gone before they could be read", &census.vanished),
        ("could not be read and were left out", &census.unreadable),
        ("are sockets and were left out", &census.sockets),
        ("have no place in a tar and were left out", &census.unwritable),
    ] {
        if tally.count() > 0 {
            warn!("files that {what}: {}", tally.in_words());
        }
    }
    Ok(Dumped {
        server_version: String::new(),
        tool_version: format!("holdfast {}", env!("CARGO_PKG_VERSION")),
        consistency: "fuzzy".to_owned(),
    })
}

/// The folder where the kubelet mounted the volume.
pub(super) fn open_root(root: &Path) -> Result<OwnedFd, Failure> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).map_err(|e| {
        let why = format!("the volume's root cannot be opened: {}; set runAs to its owner", super::ahead::words(e));
        Failure::new(Reason::SourceRefused, why)
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().name(format!("volume-{name}")).stack_size(512 * 1024);
    thread.spawn(work).map(drop).map_err(|e| Failure::new(Reason::DumpFailed, format!("no thread can be started: {e}")))
}

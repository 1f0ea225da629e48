//! Volumes: the files of a claim as a tar and a list of what is in it. Talks to the file system; docs/volume.md tells users what that means.

mod ahead;
mod apart;
mod beneath;
mod census;
mod dump;
mod expect;
mod extract;
mod extraction;
mod facts;
mod links;
mod merge;
mod names;
mod place;
mod prove;
mod restore;
mod scope;
mod stage;
mod stream;
mod swap;
mod walk;
mod writers;

use std::path::Path;

use holdfast_crds::{OnExisting, Reason, VolumeSource};

use super::{ArtifactSource, Dumped, PairSink, Restored};
use crate::store::manifest::Manifest;
use crate::task::{Failure, Mounts, VolumeTarget};
use place::Owners;

pub use apart::{Going, confirm_apart};

/// Names and formats of the two artifacts.
const TAR_NAME: &str = "volume.tar";
pub(super) const TAR_FORMAT: &str = "tar";
pub(super) const INDEX_NAME: &str = "index.jsonl";
pub(super) const INDEX_FORMAT: &str = "file-index";

/// Properties of the archive that say what was saved: globs, as a list in JSON.
const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";

/// Dumps a volume.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn dump(source: &VolumeSource, mounts: &Mounts, sink: &mut impl PairSink) -> Result<Dumped, Failure> {
    dump::dump(source.into(), root(mounts)?, sink).await
}

/// Checks a target without touching it.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn check_target(
    target: &VolumeTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
) -> Result<(), Failure> {
    restore::check_target(target, root(mounts)?, manifest, on_existing).await
}

/// Restores into a target. `beside`: the other sources of the same request that go into the same claim, which [`confirm_apart`] has found to
/// have nothing in common with this one.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn restore(
    target: &VolumeTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
    beside: &[Going<'_>],
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    restore::restore(target, root(mounts)?, manifest, on_existing, Owners::Kept, beside, source).await
}

/// Undoes the swap of a restore that was cut off, and removes what it had built. Whether there was one.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn settle(mounts: &Mounts) -> Result<bool, Failure> {
    restore::settle(root(mounts)?).await
}

/// Proves that a backup is the whole of what its list of entries says.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn prove(manifest: &Manifest, source: &mut impl ArtifactSource) -> Result<(), Failure> {
    prove::prove(manifest, source).await
}

/// Restores files that belong to nobody: whoever writes them owns them.
///
/// # Errors
/// The reason, with one line a person can act on.
pub(super) async fn restore_files(
    target: &VolumeTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    restore::restore(target, root(mounts)?, manifest, on_existing, Owners::Dropped, &[], source).await
}

fn root(mounts: &Mounts) -> Result<&Path, Failure> {
    let missing = || Failure::new(Reason::InvalidConfiguration, "the task does not say where the volume is mounted");
    mounts.data.as_deref().ok_or_else(missing)
}

//! PostgreSQL. Talks to the server through its own tools.

use std::path::Path;

use holdfast_crds::{OnExisting, PostgresSource, Reason};

use super::{ArtifactSink, ArtifactSource, Dumped, Restored};
use crate::store::manifest::Manifest;
use crate::task::{Failure, Mounts, PostgresTarget};

/// Dumps the databases of a source.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn dump(_: &PostgresSource, _: &Mounts, _: &Path, _: &mut impl ArtifactSink) -> Result<Dumped, Failure> {
    Err(Failure::new(Reason::InvalidConfiguration, "not there yet"))
}

/// Checks a target without touching it.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn check_target(
    _: &PostgresTarget,
    _: &Mounts,
    _: &Manifest,
    _: OnExisting,
    _: &Path,
) -> Result<(), Failure> {
    Err(Failure::new(Reason::InvalidConfiguration, "not there yet"))
}

/// Restores into a target.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn restore(
    _: &PostgresTarget,
    _: &Mounts,
    _: &Manifest,
    _: OnExisting,
    _: &Path,
    _: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    Err(Failure::new(Reason::InvalidConfiguration, "not there yet"))
}

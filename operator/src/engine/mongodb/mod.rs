//! MongoDB, through the official driver. Talks to the server; docs/mongodb.md tells users what that means.

mod batch;
mod catalogue;
mod connection;
mod dump;
mod insert;
mod json;
mod legacy;
mod merge;
mod metadata;
mod pattern;
mod pour;
mod prove;
mod read;
mod restore;
mod stream;
mod swap;
mod target;
mod trouble;
mod users;

use holdfast_crds::{MongodbSource, OnExisting};

use super::{ArtifactSink, ArtifactSource, Dumped, Restored};
use crate::store::manifest::Manifest;
use crate::task::{Failure, MongodbTarget, Mounts};
use connection::{Deployment, Place};
use target::Backup;

/// Dumps the collections of a source.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn dump(source: &MongodbSource, mounts: &Mounts, sink: &mut impl ArtifactSink) -> Result<Dumped, Failure> {
    let place = Place { host: source.host.as_deref(), port: source.port, tls: source.tls.as_ref() };
    let deployment = Deployment::reach(&place, mounts).await?;
    dump::dump(source, &deployment, sink).await
}

/// Whether there is any collection in what a source names.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn holds_any(source: &MongodbSource, mounts: &Mounts) -> Result<bool, Failure> {
    let place = Place { host: source.host.as_deref(), port: source.port, tls: source.tls.as_ref() };
    dump::holds_any(source, &Deployment::reach(&place, mounts).await?).await
}

/// The hosts of a target, as its connection string or its fields say.
///
/// # Errors
/// Where the connection string cannot be read.
pub async fn hosts(target: &MongodbTarget, mounts: &Mounts) -> Result<Vec<(String, i32)>, Failure> {
    connection::hosts(&place(target), mounts).await
}

/// What two restores into one deployment would both replace, in words.
///
/// # Errors
/// Where a backup does not fit its target.
pub fn common(
    one: &MongodbTarget,
    of_one: &Manifest,
    other: &MongodbTarget,
    of_other: &Manifest,
) -> Result<Option<String>, Failure> {
    Ok(target::common(&Backup::of(of_one, one)?, &Backup::of(of_other, other)?))
}

/// Checks a target without touching it.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn check_target(
    target: &MongodbTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
) -> Result<(), Failure> {
    let backup = Backup::of(manifest, target)?;
    let deployment = reach(target, mounts).await?;
    target::assess(&deployment, &backup, on_existing).await
}

/// Restores into a target.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn restore(
    target: &MongodbTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    let backup = Backup::of(manifest, target)?;
    let deployment = reach(target, mounts).await?;
    let wish = restore::Wish { on_existing, bypass_validation: target.bypass_validation };
    restore::restore(&deployment, &backup, wish, source).await
}

/// Proves that all artifacts of a backup are whole dumps.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn prove(manifest: &Manifest, source: &mut impl ArtifactSource) -> Result<(), Failure> {
    prove::prove(manifest, source).await
}

async fn reach(target: &MongodbTarget, mounts: &Mounts) -> Result<Deployment, Failure> {
    Deployment::reach(&place(target), mounts).await
}

fn place(target: &MongodbTarget) -> Place<'_> {
    Place { host: target.host.as_deref(), port: target.port, tls: target.tls.as_ref() }
}

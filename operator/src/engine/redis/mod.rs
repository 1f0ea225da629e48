//! Redis and Valkey. Talks to the server over its own protocols; docs/redis.md tells users what that means.

mod dump;
mod facts;
mod keys;
mod link;
mod modules;
mod promotion;
mod replica;
mod resp;
mod restore;
mod server;
mod serving;
mod settle;
mod slots;
mod survey;
mod target;
mod tls;
mod transfer;
mod trouble;

use holdfast_crds::{OnExisting, RedisSource};

use super::{ArtifactSink, ArtifactSource, Dumped, Restored};
use crate::archive::rdb::RdbReader;
use crate::store::manifest::Manifest;
use crate::task::{Failure, Mounts, RedisTarget};
use link::Login;
use server::Server;
use target::Backup;

/// Dumps a server, or all primaries of a cluster.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn dump(source: &RedisSource, mounts: &Mounts, sink: &mut impl ArtifactSink) -> Result<Dumped, Failure> {
    let login = Login::prepare(&source.host, source.port, &source.tls, mounts)?;
    dump::dump(&login, sink).await
}

/// Checks a target without touching it.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn check_target(
    target: &RedisTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
) -> Result<(), Failure> {
    let backup = Backup::of(manifest, target)?;
    let mut server = Server::connect(&Login::prepare(&target.host, target.port, &target.tls, mounts)?).await?;
    target::assess(&mut server, &backup, on_existing).await.map(|_| ())
}

/// Restores into a target.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn restore(
    target: &RedisTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    let backup = Backup::of(manifest, target)?;
    let login = Login::prepare(&target.host, target.port, &target.tls, mounts)?;
    restore::restore(&login, &backup, on_existing, source).await
}

/// Proves that all artifacts of a backup are whole RDBs.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn prove(manifest: &Manifest, source: &mut impl ArtifactSource) -> Result<(), Failure> {
    for entry in Backup::of(manifest, &RedisTarget::default())?.artifacts {
        let reader = RdbReader::new(format!("backup {}", entry.key));
        source.fetch(entry, Box::new(std::io::sink()), Box::new(reader)).await?;
    }
    Ok(())
}

//! PostgreSQL. Talks to the server through its own tools; docs/postgres.md tells users what that means.

#[allow(dead_code, reason = "the restore that uses it comes next")]
mod clients;
mod connection;
#[allow(dead_code, reason = "the restore that uses it comes next")]
mod database;
mod dump;
#[allow(dead_code, reason = "the restore that uses it comes next")]
mod server;
mod trouble;

use std::path::Path;

use holdfast_crds::{OnExisting, PostgresDatabases, PostgresSource, Reason};

use super::{ArtifactSink, ArtifactSource, Dumped, Restored};
use crate::store::manifest::Manifest;
use crate::task::{Failure, Mounts, PostgresTarget};
pub use clients::BASE_ENV;
use connection::Login;
use server::Server;

/// Dumps the databases of a source.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn dump(
    source: &PostgresSource,
    mounts: &Mounts,
    scratch: &Path,
    sink: &mut impl ArtifactSink,
) -> Result<Dumped, Failure> {
    let login = Login::prepare(&source.host, source.port, &source.tls, mounts, scratch)?;
    let first = match source.selection() {
        PostgresDatabases::Named(names) => names.first().map(String::as_str),
        PostgresDatabases::All => None,
    };
    let server = Server::connect(login, first).await?;
    dump::dump(source, &server, sink).await
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

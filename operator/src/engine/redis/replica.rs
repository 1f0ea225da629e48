//! Restores by replication: the target is the worker's replica for as long as it takes. Talks to the target.
//!
//! A target that stores first what its primary sends (`repl-diskless-load disabled`, the default) keeps its data until it has the whole
//! backup, whose last bytes it gets only once all were found right. For any other the backup is read to its end before it begins.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_crds::Reason;

use super::facts::Facts;
use super::link::Hangup;
use super::promotion::Promotion;
use super::resp::Reply;
use super::server::Server;
use super::serving::{Sending, Serving};
use super::settle;
use super::target::{Assessed, Backup};
use crate::archive::rdb::{RdbReader, transient};
use crate::engine::{ArtifactSource, Restored};
use crate::task::Failure;

/// How long a target may take to come: Redis tries once a second.
const CONTACT_LIMIT: Duration = Duration::from_secs(15);
/// How often a target is asked whether it has loaded.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How often in a row a target must say that it neither receives nor loads before it is believed.
const STRIKES: u32 = 10;

/// What came of it.
pub(super) enum Tried {
    /// It is restored.
    Done(Restored),
    /// It cannot be done so; nothing was touched.
    NotPossible(String),
}

/// Restores a whole server.
pub(super) async fn restore(
    server: &mut Server,
    backup: &Backup<'_>,
    assessed: &Assessed,
    source: &mut impl ArtifactSource,
) -> Result<Tried, Failure> {
    let place = server.place();
    let Some(entry) = backup.artifacts.first() else { return Ok(Tried::NotPossible("there is no backup".to_owned())) };
    let reader = || Box::new(RdbReader::new(format!("backup {}", entry.key)));
    if !assessed.stores_first {
        source.fetch(entry, Box::new(std::io::sink()), reader()).await?;
    }
    let facts = server.facts().await?;
    let own = server.with(|link| {
        let own = link.own_address();
        own.map_err(|error| Failure::new(Reason::SourceUnreachable, format!("{}: {error}", link.place())))
    });
    let serving = Serving::listen(own.await?).await?;
    let address = serving.address;
    let promotion = Promotion::of(&server.login);
    let asked =
        server.with(move |link| link.call(&["REPLICAOF", &address.ip().to_string(), &address.port().to_string()]));
    match asked.await {
        Ok(Reply::Error(words)) => {
            promotion.forget();
            return Ok(Tried::NotPossible(format!("it refuses REPLICAOF ({words})")));
        }
        Ok(_) => {}
        Err(failure) => {
            promotion.perform(server).await?;
            return Err(failure);
        }
    }
    let identity = facts.text("master_replid").to_owned();
    let contact = tokio::time::timeout(CONTACT_LIMIT, serving.target(&identity, entry.source_bytes)).await;
    let stream = match contact {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) => {
            promotion.perform(server).await?;
            return Ok(Tried::NotPossible(why));
        }
        Err(_) => {
            promotion.perform(server).await?;
            return Ok(Tried::NotPossible(format!("it did not reach the worker at {address}")));
        }
    };
    let restored = pour(server, &stream, entry, reader(), source).await;
    let compared = match &restored {
        Ok(_) => compare(server, backup).await,
        Err(_) => Ok(0),
    };
    // Its role comes first, whatever else went wrong.
    let promoted = promotion.perform(server).await;
    let (bytes, transient, keys) = match (restored, promoted) {
        (Err(failure), Err(left)) => {
            return Err(Failure::new(failure.reason, format!("{}; {}", failure.message, left.message)));
        }
        (restored, promoted) => {
            let (bytes, transient) = restored?;
            promoted?;
            (bytes, transient, compared?)
        }
    };
    // A replica holds more than its memory may be; a primary does not, and lets go of what has expired.
    let now = settle::calm(server).await?;
    let evicted = now.evicted().saturating_sub(facts.evicted());
    let found = now.keyspace();
    // Others may write to it again.
    let found =
        backup.keys.iter().map(|(number, keys)| (*number, *found.get(number).unwrap_or(&0).min(keys))).collect();
    if evicted > 0 {
        // Else whoever takes keys away by now does what it is there for: all of them were there.
        settle::kept(&place, &backup.keys, &transient, &found, evicted)?;
    }
    // What stores first has its dump in place already.
    settle::persist(server, !assessed.stores_first).await?;
    let databases = backup.keys.len();
    Ok(Tried::Done(Restored {
        items: i64::try_from(keys).unwrap_or(i64::MAX),
        bytes,
        message: format!("{place}: {keys} keys in {databases} databases, by replication"),
    }))
}

/// Sends the backup and waits until the target has loaded it; how many bytes it had, and how many keys of each database may go by themselves.
async fn pour(
    server: &mut Server,
    stream: &TcpStream,
    entry: &crate::store::manifest::ArtifactEntry,
    reader: Box<RdbReader>,
    source: &mut impl ArtifactSource,
) -> Result<(u64, BTreeMap<u64, u64>), Failure> {
    let place = server.place();
    let hangup = Hangup::of(stream);
    let broke = Arc::new(AtomicBool::new(false));
    let sending = Sending::new(stream, broke.clone())
        .map_err(|error| Failure::new(Reason::RestoreFailed, format!("{place}: {error}")))?;
    let (bytes, inspection) = source.fetch(entry, Box::new(sending), reader).await.map_err(|failure| {
        if broke.load(Ordering::Acquire) {
            Failure::new(
                Reason::RestoreFailed,
                format!("{place}: it stopped receiving: look in its log (is its disk full, or its folder not writable?); it kept its data"),
            )
        } else {
            failure
        }
    })?;
    let mut strikes = 0;
    loop {
        let facts = patient(server).await?;
        if !facts.is_replica() {
            return Err(Failure::new(
                Reason::RestoreFailed,
                format!(
                    "{place}: it is no replica any more: it was restarted, or somebody promoted it, before it had loaded"
                ),
            ));
        }
        if facts.text("master_link_status") == "up" && !facts.is("loading") {
            hangup.keep();
            return Ok((bytes, transient(&inspection.properties)));
        }
        let busy = facts.is("master_sync_in_progress") || facts.is("loading");
        strikes = if busy { 0 } else { strikes + 1 };
        if strikes == STRIKES {
            return Err(Failure::new(
                Reason::RestoreFailed,
                format!("{place}: it received the backup and did not load it: look in its log"),
            ));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// What a target says of itself, over a new connection where the old one broke.
async fn patient(server: &mut Server) -> Result<Facts, Failure> {
    if let Ok(facts) = server.facts().await {
        return Ok(facts);
    }
    *server = Server::connect(&server.login).await?;
    server.facts().await
}

/// Counts the keys while the target is still a replica, and so deletes none of those that have expired.
async fn compare(server: &mut Server, backup: &Backup<'_>) -> Result<u64, Failure> {
    let found = server.facts().await?.keyspace();
    settle::compare(&server.place(), &backup.keys, &BTreeMap::new(), &found)?;
    Ok(found.values().sum())
}

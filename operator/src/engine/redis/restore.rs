//! Restores: by replication where that can be, key by key elsewhere. Talks to the target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_crds::{OnExisting, Reason};
use tracing::{info, warn};

use super::facts::Shard;
use super::keys::{Counts, KeyWriter, Pour};
use super::link::Login;
use super::replica::{self, Tried};
use super::server::Server;
use super::settle;
use super::slots::{SERVED, Served};
use super::survey::{Seen, Survey, Surveyor};
use super::target::{self, Backup, Way};
use crate::archive::rdb::RdbReader;
use crate::engine::{ArtifactSource, Restored};
use crate::task::Failure;

/// What a server takes as one argument where its setting is not known.
const LONGEST_ARGUMENT: u64 = 512 << 20;

/// Restores a backup into a server or a cluster.
pub(super) async fn restore(
    login: &Login,
    backup: &Backup<'_>,
    on_existing: OnExisting,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    let mut server = Server::connect(login).await?;
    let assessed = target::assess(&mut server, backup, on_existing).await?;
    if assessed.abandoned {
        info!("{}: it was left a replica of a worker that is gone, and is made a primary again", server.place());
        server.with(|link| link.must(&["REPLICAOF", "NO", "ONE"], Reason::RestoreFailed)).await?;
    }
    let why = match &assessed.way {
        Way::Keys(why) => why.clone(),
        Way::Replication => match replica::restore(&mut server, backup, &assessed, source).await? {
            Tried::Done(restored) => return Ok(restored),
            Tried::NotPossible(why) => {
                target::may_write(&mut server, backup, on_existing).await?;
                why
            }
        },
    };
    info!("{}: key by key, since {why}", server.place());
    by_key(&mut server, assessed.shards.as_deref(), backup, on_existing, &why, source).await
}

async fn by_key(
    server: &mut Server,
    shards: Option<&[Shard]>,
    backup: &Backup<'_>,
    on_existing: OnExisting,
    why: &str,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    let place = server.place();
    let longest = server.setting("proto-max-bulk-len").await?;
    let longest = longest.and_then(|bytes| bytes.parse().ok()).unwrap_or(LONGEST_ARGUMENT);
    // Everything is proved before anything is touched: what is cut out of a stream cannot be taken back.
    let (mut surveys, mut left_out) = (Vec::new(), BTreeSet::new());
    for entry in &backup.artifacts {
        let survey = Arc::new(Mutex::new(Survey::default()));
        let reader = RdbReader::visited(format!("backup {}", entry.key), Surveyor::new(survey.clone()));
        source.fetch(entry, Box::new(std::io::sink()), Box::new(reader)).await?;
        let mut survey = std::mem::take(&mut *survey.lock().unwrap_or_else(PoisonError::into_inner));
        left_out.append(&mut survey.left_out);
        if survey.longest > longest {
            return Err(Failure::new(
                Reason::InvalidConfiguration,
                format!(
                    "{place}: the value of {:?} has {} bytes, and the server takes {longest} (proto-max-bulk-len); nothing was touched: raise it, for here it goes key by key, since {why}",
                    survey.longest_key, survey.longest
                ),
            ));
        }
        surveys.push(survey);
    }

    if !left_out.is_empty() {
        warn!("{place}: it goes key by key, since {why}{}", left_behind(&left_out));
    }
    let mut servers = Vec::new();
    match shards {
        None => servers.push(Server::connect(&server.login).await?),
        Some(shards) => {
            for shard in shards {
                servers.push(Server::connect(&server.login.at(shard.address.clone())).await?);
            }
        }
    }
    let mut evicted = 0;
    for server in &mut servers {
        evicted += server.facts().await?.evicted();
    }
    if on_existing == OnExisting::Replace {
        for server in &mut servers {
            wipe(server, backup.database).await?;
        }
    }
    let replace = on_existing == OnExisting::Replace;
    let mut links = Vec::new();
    for server in servers {
        links.push(server.into_link()?);
    }
    let hangups: Vec<_> = links.iter().map(super::link::Link::hangup).collect();
    let pour = Arc::new(Mutex::new(Pour::new(links, shards, backup.database, replace)));
    let mut bytes = 0;
    for (entry, survey) in backup.artifacts.iter().zip(surveys) {
        let failed = Arc::new(Mutex::new(None));
        let belonging = entry.properties.get(SERVED).and_then(|slots| Served::read(slots));
        let what = format!("backup {}", entry.key);
        let writer = KeyWriter::new(&what, pour.clone(), survey.long, belonging, failed.clone());
        let fetched = source.fetch(entry, Box::new(writer), Box::new(Seen)).await;
        let refused = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (fetched, _) = fetched.map_err(|failure| {
            let failure = refused.unwrap_or(failure);
            Failure::new(failure.reason, format!("{}; what was restored up to there is in the target", failure.message))
        })?;
        bytes += fetched;
    }
    let counts = pour.lock().unwrap_or_else(PoisonError::into_inner).counts().clone();
    drop(hangups);
    finish(server, shards, backup, &counts, evicted).await?;
    let keys: u64 = counts.sent.values().sum();
    let expired = if counts.expired > 0 { format!(", {} more had expired", counts.expired) } else { String::new() };
    Ok(Restored {
        items: i64::try_from(keys).unwrap_or(i64::MAX),
        bytes,
        message: format!(
            "{place}: {keys} keys in {} databases{expired}; key by key, since {why}{}{}",
            counts.sent.len(),
            astray(counts.strays),
            left_behind(&left_out)
        ),
    })
}

/// Keys that were in another primary than that of their slot.
fn astray(strays: u64) -> String {
    match strays {
        0 => String::new(),
        1 => "; 1 key left out, of a slot that another primary served (left over from a slot that moved)".to_owned(),
        several => {
            format!("; {several} keys left out, of slots that another primary served (left over from slots that moved)")
        }
    }
}

/// What did not come along.
fn left_behind(left_out: &BTreeSet<String>) -> String {
    if left_out.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = left_out.iter().map(String::as_str).collect();
    format!("; left out, since it belongs to no key and comes back by replication only: {}", names.join(", "))
}

/// Empties what is replaced.
async fn wipe(server: &mut Server, database: Option<u64>) -> Result<(), Failure> {
    let functions = database.is_none() && server.facts().await?.version().0 >= 7;
    server
        .with(move |link| {
            // What may be forbidden comes first.
            if functions {
                link.must(&["FUNCTION", "FLUSH"], Reason::RestoreFailed)?;
            }
            match database {
                None => link.must(&["FLUSHALL", "ASYNC"], Reason::RestoreFailed)?,
                Some(number) => {
                    link.must(&["SELECT", &number.to_string()], Reason::RestoreFailed)?;
                    link.must(&["FLUSHDB", "ASYNC"], Reason::RestoreFailed)?;
                    link.must(&["SELECT", "0"], Reason::RestoreFailed)?
                }
            };
            Ok(())
        })
        .await
}

/// Counts what is there, and sees that it stays there.
async fn finish(
    server: &mut Server,
    shards: Option<&[Shard]>,
    backup: &Backup<'_>,
    counts: &Counts,
    evicted_before: u64,
) -> Result<(), Failure> {
    let mut nodes = Vec::new();
    match shards {
        None => nodes.push(Server::connect(&server.login).await?),
        Some(shards) => {
            for shard in shards {
                nodes.push(Server::connect(&server.login.at(shard.address.clone())).await?);
            }
        }
    }
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    let mut evicted = 0;
    for node in &mut nodes {
        let facts = settle::calm(node).await?;
        evicted += facts.evicted();
        for (number, keys) in facts.keyspace() {
            if backup.database.is_none_or(|database| database == number) {
                *found.entry(number).or_default() += keys;
            }
        }
    }
    let evicted = evicted.saturating_sub(evicted_before);
    settle::kept(&server.place(), &counts.sent, &counts.expiring, &found, evicted)?;
    for node in &mut nodes {
        settle::persist(node, true).await?;
    }
    Ok(())
}

//! What a target is and whether a backup fits it, found out without touching it. Talks to the server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::time::Duration;

use holdfast_crds::{OnExisting, Reason};

use super::dump::{HELD, RDB};
use super::facts::{self, Facts, Shard};
use super::resp::Reply;
use super::server::{Server, permitted};
use super::{modules, slots, trouble};
use crate::engine;
use crate::store::manifest::{ArtifactEntry, Manifest};
use crate::task::{Failure, RedisTarget};

/// Ports at which a worker serves a backup. A target that is a replica of one of these, where nobody listens, was left so by a worker
/// that was killed.
pub(super) const SERVING_PORTS: RangeInclusive<u16> = 46379..=46878;
/// How long a primary that should not be there may take to answer.
const KNOCK_LIMIT: Duration = Duration::from_secs(3);
/// A key that nobody has: it is asked for what is refused anyway.
const PROBE_KEY: &str = "holdfast:probe";

/// What is to be restored.
#[derive(Debug)]
pub(super) struct Backup<'a> {
    /// Its RDBs: one, or one for each primary of a cluster.
    pub artifacts: Vec<&'a ArtifactEntry>,
    /// Keys of each database, as they were saved.
    pub keys: BTreeMap<u64, u64>,
    /// The one database all keys go into, where the request names one.
    pub database: Option<u64>,
    version: u32,
    /// How many libraries of functions there are.
    pub functions: u64,
    /// Modules that the server had loaded.
    modules: BTreeSet<String>,
    /// Types of modules that keys are of.
    module_types: BTreeSet<String>,
    /// Types of modules that have data which belongs to no key.
    module_data: BTreeSet<String>,
    /// Memory that the values took.
    dataset: u64,
    /// The same with what the server keeps for each key; none where the backup does not tell.
    held: Option<u64>,
    /// What was saved: `Redis 8.6`.
    servers: BTreeSet<String>,
}

impl<'a> Backup<'a> {
    /// Reads the manifest.
    pub fn of(manifest: &'a Manifest, target: &RedisTarget) -> Result<Self, Failure> {
        let invalid = |why: String| Failure::new(Reason::InvalidConfiguration, why);
        let mut backup = Self {
            artifacts: Vec::new(),
            keys: BTreeMap::new(),
            database: target.database.and_then(|number| u64::try_from(number).ok()),
            version: 0,
            functions: 0,
            modules: BTreeSet::new(),
            module_types: BTreeSet::new(),
            module_data: BTreeSet::new(),
            dataset: 0,
            held: Some(0),
            servers: BTreeSet::new(),
        };
        for entry in &manifest.artifacts {
            if entry.format != RDB {
                return Err(invalid(format!(
                    "{}: its format is {}, which this version of Holdfast does not restore into Redis",
                    entry.key, entry.format
                )));
            }
            let number = |name: &str| entry.properties.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            backup.version = backup.version.max(u32::try_from(number("rdbVersion")).unwrap_or(u32::MAX));
            backup.functions = backup.functions.max(number("functionLibraries"));
            backup.dataset += number("usedMemory");
            let held = entry.properties.get(HELD).and_then(|text| text.parse::<u64>().ok());
            backup.held = backup.held.zip(held).map(|(all, one)| all + one);
            backup.servers.extend(entry.properties.get("server").map(|server| line_of(server)));
            let names = |name: &str| {
                let names = entry.properties.get(name).into_iter().flat_map(|names| names.split(','));
                names.map(str::to_owned).collect::<Vec<_>>()
            };
            backup.modules.extend(names("modules"));
            backup.module_types.extend(names("moduleTypes"));
            backup.module_data.extend(names("moduleData"));
            for item in &entry.item_counts {
                let database = item.name.strip_prefix("db").and_then(|number| number.parse().ok());
                let database =
                    database.ok_or_else(|| invalid(format!("{}: {} is no database", entry.key, item.name)))?;
                *backup.keys.entry(database).or_default() += u64::try_from(item.count).unwrap_or(0);
            }
            backup.artifacts.push(entry);
        }
        if backup.artifacts.is_empty() {
            return Err(invalid("the backup holds nothing".to_owned()));
        }
        if backup.database.is_some() && backup.keys.len() > 1 {
            let names: Vec<String> = backup.keys.keys().map(u64::to_string).collect();
            return Err(invalid(format!(
                "into.redis.database puts everything into one database, and the backup holds keys of {}: leave it out",
                names.join(", ")
            )));
        }
        Ok(backup)
    }

    /// How much memory a server needs at least to hold it. What it keeps for each key is known from a server of its own line only.
    fn needed(&self, facts: &Facts) -> u64 {
        match self.held {
            Some(held) if self.servers == BTreeSet::from([line_of(&facts.server())]) => held + facts.idle_memory(),
            _ => self.dataset,
        }
    }

    /// The databases that will hold keys, with how many.
    pub fn expected(&self) -> BTreeMap<u64, u64> {
        match self.database {
            Some(number) => BTreeMap::from([(number, self.keys.values().sum())]),
            None => self.keys.clone(),
        }
    }
}

/// How to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The target becomes a replica of the worker for as long as it takes.
    Replication,
    /// One `RESTORE` a key, since (why not the other way).
    Keys(String),
}

/// What was found out.
pub(super) struct Assessed {
    /// How to restore.
    pub way: Way,
    /// It was left a replica of a worker that is gone.
    pub abandoned: bool,
    /// Primaries of its cluster.
    pub shards: Option<Vec<Shard>>,
    /// It first stores on its disk what a primary sends, and keeps its data until all is there.
    pub stores_first: bool,
}

/// Looks at a target.
pub(super) async fn assess(
    server: &mut Server,
    backup: &Backup<'_>,
    on_existing: OnExisting,
) -> Result<Assessed, Failure> {
    let place = server.place();
    let facts = server.facts().await?;
    if facts.is_cluster() {
        return cluster(server, backup, on_existing).await;
    }
    ready(&place, &facts)?;
    let abandoned = facts.is_replica() && is_abandoned(&facts).await?;
    if facts.is_replica() && !abandoned {
        return Err(Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "{place}: this is a replica, and what is restored comes from its primary: name {}:{} as into.redis.host and port",
                facts.text("master_host"),
                facts.text("master_port")
            ),
        ));
    }
    fits(server, &facts, backup, &backup.expected()).await?;
    if on_existing == OnExisting::Fail {
        empty(server, &facts, backup).await?;
    }
    let diskless = server.setting("repl-diskless-load").await?;
    let way = way(server, backup, diskless.as_deref()).await?;
    // A replica refuses everything; it is made a primary first.
    if matches!(way, Way::Keys(_)) && !abandoned {
        may_write(server, backup, on_existing).await?;
    }
    Ok(Assessed { way, abandoned, shards: None, stores_first: diskless.as_deref() == Some("disabled") })
}

/// Looks at a cluster.
async fn cluster(server: &mut Server, backup: &Backup<'_>, on_existing: OnExisting) -> Result<Assessed, Failure> {
    let expected = backup.expected();
    if let Some(database) = expected.keys().find(|number| **number != 0) {
        return Err(Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "{}: a cluster has database 0 only, and the keys would go into database {database}: write into.redis.database: 0 if the backup has just this one",
                server.place()
            ),
        ));
    }
    let shards = server.shards().await?;
    let count: u32 = shards.iter().flat_map(|s| &s.ranges).map(|(first, last)| u32::from(last - first) + 1).sum();
    if count != u32::from(facts::SLOTS) {
        return Err(Failure::new(
            Reason::SourceUnreachable,
            format!(
                "{}: only {count} of {} slots of the cluster are served: mend it first",
                server.place(),
                facts::SLOTS
            ),
        ));
    }
    let mut nodes = Vec::new();
    for shard in &shards {
        let mut primary = Server::connect(&server.login.at(shard.address.clone())).await?;
        let facts = primary.facts().await?;
        ready(&primary.place(), &facts)?;
        // Who may not ask finds it out from the answers to the first keys.
        nodes.push(primary.node().await.unwrap_or_default());
        // Each has its part of the keys; how much memory that takes is not known beforehand.
        fits(&mut primary, &facts, backup, &BTreeMap::new()).await?;
        if on_existing == OnExisting::Fail {
            empty(&mut primary, &facts, backup).await?;
        }
        may_write(&mut primary, backup, on_existing).await?;
    }
    if let Some(open) = slots::open(&shards, &nodes) {
        return Err(Failure::new(
            Reason::SourceUnreachable,
            format!(
                "{}: keys of it move between primaries, which would refuse some of those that come: open slots: {open}: wait until they are \
                 closed, or close what an interrupted move has left open with redis-cli --cluster fix",
                server.place()
            ),
        ));
    }
    let way = Way::Keys("it is a cluster".to_owned());
    Ok(Assessed { way, abandoned: false, shards: Some(shards), stores_first: false })
}

fn ready(place: &str, facts: &Facts) -> Result<(), Failure> {
    if facts.is("loading") {
        let why = "it is loading its data: wait until it has done so";
        return Err(Failure::new(Reason::SourceUnreachable, format!("{place}: {why}")));
    }
    Ok(())
}

/// Whether a replica's primary was a worker that is gone.
async fn is_abandoned(facts: &Facts) -> Result<bool, Failure> {
    let port = u16::try_from(facts.number("master_port")).unwrap_or(0);
    if !SERVING_PORTS.contains(&port) || facts.text("master_link_status") != "down" {
        return Ok(false);
    }
    let host = facts.text("master_host").to_owned();
    let knock = move || {
        let mut addresses = (host.as_str(), port).to_socket_addrs().into_iter().flatten();
        addresses.any(|address| TcpStream::connect_timeout(&address, KNOCK_LIMIT).is_ok())
    };
    tokio::task::spawn_blocking(knock).await.map(|answers| !answers).map_err(|error| super::server::panicked(&error))
}

/// Whether a server can hold a backup. What it could not, it would find out only after its own data is gone.
async fn fits(
    server: &mut Server,
    facts: &Facts,
    backup: &Backup<'_>,
    expected: &BTreeMap<u64, u64>,
) -> Result<(), Failure> {
    let place = server.place();
    let invalid = |why: String| Failure::new(Reason::InvalidConfiguration, format!("{place}: {why}"));
    let own = own_version(server, facts).await?;
    if !facts::reads(own, backup.version) {
        return Err(invalid(format!(
            "it is {}, which reads RDB up to version {own}, and the backup has version {}: restore into a server as new as the one that was saved",
            facts.server(),
            backup.version
        )));
    }
    if let Some(last) = expected.keys().next_back().map(u64::to_string) {
        let selected = server.with({
            let last = last.clone();
            move |link| {
                let reply = link.call(&["SELECT", &last])?;
                link.must(&["SELECT", "0"], Reason::RestoreFailed)?;
                Ok(reply)
            }
        });
        if let Reply::Error(words) = selected.await? {
            return Err(invalid(format!(
                "it has no database {last}, which the keys would go into ({words}): raise `databases`"
            )));
        }
    }
    match server.modules().await? {
        Some(loaded) => {
            let missing = modules::missing(&backup.module_types, &backup.modules, &loaded);
            if !missing.is_empty() {
                let missing = missing.join(", ");
                return Err(invalid(format!("the backup holds values of modules, and it has not loaded {missing}")));
            }
        }
        // It would be emptied before it refused them.
        None if !backup.module_types.is_empty() => {
            let message =
                "the backup holds values of modules, and the user may not ask which it has loaded: grant +module|list";
            return Err(Failure::new(Reason::SourceRefused, format!("{place}: {message}")));
        }
        None => {}
    }
    let limit = facts.number("maxmemory");
    let needed = backup.needed(facts);
    if !expected.is_empty() && limit > 0 && needed > limit {
        return Err(Failure::new(
            Reason::NoSpace,
            format!(
                "{place}: the keys take about {needed} bytes of memory, as they did where they were saved, and maxmemory is {limit}: raise it \
                 to more than that"
            ),
        ));
    }
    Ok(())
}

/// Name, major and minor number of a server: versions of one line keep their keys in the same way.
fn line_of(server: &str) -> String {
    server.rsplit_once('.').map_or(server, |(line, _)| line).to_owned()
}

/// The version of RDB that a server writes, which is the newest it reads.
async fn own_version(server: &mut Server, facts: &Facts) -> Result<u32, Failure> {
    let by_table = facts.rdb_version();
    server
        .with(move |link| {
            // Every such payload ends with the version and a checksum of eight bytes; this one needs no key.
            Ok(match link.call(&["FUNCTION", "DUMP"])? {
                Reply::Bulk(Some(payload)) if payload.len() >= 10 => {
                    let footer = &payload[payload.len() - 10..];
                    u32::from(u16::from_le_bytes([footer[0], footer[1]]))
                }
                _ => by_table,
            })
        })
        .await
}

/// Nothing may be there that would be replaced.
async fn empty(server: &mut Server, facts: &Facts, backup: &Backup<'_>) -> Result<(), Failure> {
    let place = server.place();
    let found: Vec<String> = facts
        .keyspace()
        .into_iter()
        .filter(|(number, _)| backup.database.is_none_or(|database| database == *number))
        .map(|(number, keys)| format!("{keys} keys in database {number}"))
        .collect();
    let not_empty = |what: String| {
        engine::not_empty(
            &format!("{place}: it holds {what}"),
            "empty it, restore elsewhere, or write onExisting: Replace",
        )
    };
    if !found.is_empty() {
        return Err(not_empty(found.join(", ")));
    }
    if backup.database.is_none() && facts.version().0 >= 7 {
        let libraries = server.with(|link| Ok(link.call(&["FUNCTION", "LIST"])?.elements().len())).await?;
        if libraries > 0 {
            return Err(not_empty(format!("{libraries} libraries of functions")));
        }
    }
    Ok(())
}

/// By replication where that can be, since it takes the server's own loader and leaves its files right.
async fn way(server: &mut Server, backup: &Backup<'_>, diskless: Option<&str>) -> Result<Way, Failure> {
    let keys = |why: &str| Ok(Way::Keys(why.to_owned()));
    if backup.database.is_some() {
        return keys("the keys go into a single database");
    }
    if backup.artifacts.len() > 1 {
        return keys("the backup is that of a cluster");
    }
    if server.is_encrypted() {
        return keys("the connection is encrypted, and the worker serves a backup without encryption only");
    }
    if server.setting("tls-replication").await?.as_deref() == Some("yes") {
        return keys("it wants TLS for replication (tls-replication)");
    }
    // A server without the module ends where its loader comes to its data.
    match server.modules().await? {
        Some(loaded) => {
            let missing = modules::missing(&backup.module_data, &backup.modules, &loaded);
            if !missing.is_empty() {
                return keys(&format!("no key needs the module that it has not loaded ({})", missing.join(", ")));
            }
        }
        None if !backup.module_data.is_empty() => {
            return keys(
                "the backup holds data of modules, and nobody may ask it which it has loaded (grant +module|list)",
            );
        }
        None => {}
    }
    let save = server.setting("save").await?;
    let append = server.setting("appendonly").await?;
    if (save.as_deref(), append.as_deref(), diskless) == (Some(""), Some("no"), Some("disabled")) {
        return keys("it keeps nothing on its disk, and replication would leave a file there");
    }
    let watched = server
        .with(|link| {
            let clients = link.call(&["CLIENT", "LIST", "TYPE", "PUBSUB"])?.text().unwrap_or_default();
            Ok(clients.contains("name=sentinel-"))
        })
        .await?;
    if watched {
        return keys("Sentinel watches it, and would take it for a failed primary");
    }
    // Refused in any case: for the port, which is none, or else because it is not for us.
    let reply = server.with(|link| link.call(&["REPLICAOF", "127.0.0.1", "none"])).await?;
    match &reply {
        Reply::Error(words) if permitted(&reply) && (words.contains("integer") || words.contains("port")) => {
            Ok(Way::Replication)
        }
        Reply::Error(words) => keys(&format!("REPLICAOF is not for this user here ({words})")),
        _ => keys("REPLICAOF does not answer as it should"),
    }
}

/// Whether the commands that write are allowed: each is asked for something that it refuses once it is allowed.
pub(super) async fn may_write(
    server: &mut Server,
    backup: &Backup<'_>,
    on_existing: OnExisting,
) -> Result<(), Failure> {
    let functions = backup.functions > 0 && backup.database.is_none();
    let flush = match (on_existing, backup.database) {
        (OnExisting::Fail, _) => None,
        (OnExisting::Replace, None) => Some("FLUSHALL"),
        (OnExisting::Replace, Some(_)) => Some("FLUSHDB"),
    };
    server
        .with(move |link| {
            let mut probes: Vec<Vec<&str>> = vec![vec!["RESTORE", PROBE_KEY, "0", "none"]];
            probes.extend(flush.map(|command| vec![command, "NOTHING"]));
            if functions {
                probes.push(vec!["FUNCTION", "RESTORE", "none"]);
            }
            for probe in probes {
                let reply = link.call(&probe)?;
                if let Reply::Error(words) = &reply
                    && (trouble::is_forbidden(words) || words.starts_with("READONLY"))
                {
                    return Err(link.refused(probe[0], &reply, Reason::SourceRefused));
                }
            }
            Ok(())
        })
        .await
}

#[cfg(test)]
mod tests {
    use crate::store::manifest::ItemCount;

    use super::*;

    fn entry(counts: &[(&str, i64)]) -> ArtifactEntry {
        ArtifactEntry {
            format: RDB.into(),
            item_counts: counts.iter().map(|(name, count)| ItemCount { name: (*name).into(), count: *count }).collect(),
            properties: [("rdbVersion".to_owned(), "10".to_owned())].into(),
            ..ArtifactEntry::default()
        }
    }

    fn manifest(artifacts: Vec<ArtifactEntry>) -> Manifest {
        let mut manifest = Manifest::parse(
            br#"{"formatVersion":1,"runId":"r","clusterUid":"c","namespace":"n","policy":"p","policyUid":"u","source":"s","engine":"redis",
            "runSources":["s"],"slot":"2026-11-21T02:00:00Z","startTime":"2026-11-21T02:00:00Z","endTime":"2026-11-21T02:00:00Z",
            "artifacts":[],"items":0,"consistency":"snapshot","serverVersion":"","toolVersion":"","holdfastVersion":""}"#,
        )
        .unwrap();
        manifest.artifacts = artifacts;
        manifest
    }

    #[test]
    fn keys_of_several_databases_do_not_go_into_one() {
        let several = manifest(vec![entry(&[("db0", 3), ("db7", 4)])]);
        let into = |database| RedisTarget { database, ..RedisTarget::default() };
        let failure = Backup::of(&several, &into(Some(1))).unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfiguration);
        assert!(failure.message.contains("keys of 0, 7"), "{}", failure.message);
        let backup = Backup::of(&several, &into(None)).unwrap();
        assert_eq!(backup.expected(), BTreeMap::from([(0, 3), (7, 4)]));
    }

    #[test]
    fn keys_of_a_cluster_are_put_together() {
        let cluster = manifest(vec![entry(&[("db0", 3)]), entry(&[("db0", 5)])]);
        let into = RedisTarget { database: Some(2), ..RedisTarget::default() };
        assert_eq!(Backup::of(&cluster, &into).unwrap().expected(), BTreeMap::from([(2, 8)]));
        let other = manifest(vec![ArtifactEntry { format: "sql".into(), ..entry(&[]) }]);
        assert_eq!(Backup::of(&other, &into).unwrap_err().reason, Reason::InvalidConfiguration);
    }
}

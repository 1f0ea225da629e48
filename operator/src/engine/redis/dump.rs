//! Dumps: a full synchronisation, as a replica asks for one. Talks to the server.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_crds::Reason;
use tracing::warn;

use super::facts::{Facts, Shard};
use super::link::{Address, Link, Login};
use super::resp::Reply;
use super::server::Server;
use super::slots::{self, Node, PrimaryReader};
use super::transfer::{End, Transfer};
use super::trouble;
use crate::archive::rdb::{NEWEST_VALKEY, RdbReader};
use crate::engine::{ArtifactMetadata, ArtifactSink, Dumped, Inspect};
use crate::task::Failure;

/// Format of an artifact.
pub(super) const RDB: &str = "rdb";
/// Property: memory that the keys took, with what the server keeps for each of them.
pub(super) const HELD: &str = "heldMemory";
/// A server that saves says so once a second; one that says nothing for this long is not there any more.
const SILENCE_LIMIT: Duration = Duration::from_mins(2);
/// How long slots whose keys move are waited for. Whoever moves many at once has changed the cluster by then anyhow.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How often they are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Dumps a server, or every primary of a cluster.
pub(super) async fn dump(login: &Login, sink: &mut impl ArtifactSink) -> Result<Dumped, Failure> {
    let mut server = Server::connect(login).await?;
    let facts = server.facts().await?;
    ready(&server.place(), &facts)?;
    let mut consistency = "snapshot";
    if facts.is_cluster() {
        let before = resting(login, sink).await?;
        for shard in &before.shards {
            let login = login.at(shard.address.clone());
            let mut primary = Server::connect(&login).await?;
            let facts = primary.facts().await?;
            ready(&primary.place(), &facts)?;
            one(primary, &facts, format!("{}.rdb", name_of(&shard.address)), Some(&shard.ranges), sink).await?;
        }
        at_rest(&server.place(), &before, &Layout::of(login).await?)?;
        if before.shards.len() > 1 {
            consistency = "fuzzy";
        }
    } else {
        one(server, &facts, "dump.rdb".to_owned(), None, sink).await?;
    }
    Ok(Dumped {
        server_version: facts.server(),
        tool_version: format!("holdfast {}", env!("CARGO_PKG_VERSION")),
        consistency: consistency.to_owned(),
    })
}

/// `10.0.0.7-6379`: no part of a key in the bucket may hold a colon that came from an address.
fn name_of(address: &Address) -> String {
    format!("{}-{}", address.host.replace(':', "."), address.port)
}

fn ready(place: &str, facts: &Facts) -> Result<(), Failure> {
    if facts.is("loading") {
        return Err(Failure::new(
            Reason::SourceUnreachable,
            format!("{place}: it is loading its data: wait until it has done so"),
        ));
    }
    Ok(())
}

/// Who serves what in a cluster.
struct Layout {
    shards: Vec<Shard>,
    /// What each of the primaries says of itself.
    nodes: Vec<Node>,
}

impl Layout {
    /// As it is now.
    async fn of(login: &Login) -> Result<Self, Failure> {
        let shards = Server::connect(login).await?.shards().await?;
        let mut nodes = Vec::new();
        for shard in &shards {
            nodes.push(Server::connect(&login.at(shard.address.clone())).await?.node().await?);
        }
        Ok(Self { shards, nodes })
    }

    fn open(&self) -> Option<String> {
        slots::open(&self.shards, &self.nodes)
    }
}

/// The cluster once no slot of it is open: of an open one the keys are in two primaries, and move while one after the other is saved.
async fn resting(login: &Login, sink: &mut impl ArtifactSink) -> Result<Layout, Failure> {
    let start = Instant::now();
    loop {
        let layout = Layout::of(login).await?;
        let Some(open) = layout.open() else { return Ok(layout) };
        if start.elapsed() > OPEN_LIMIT {
            return Err(Failure::new(
                Reason::SourceIncomplete,
                format!(
                    "redis at {}: keys move between primaries, and {} seconds later they still do: open slots: {open}: save the cluster when \
                     it is at rest, or close what an interrupted move has left open with redis-cli --cluster fix",
                    login.address,
                    OPEN_LIMIT.as_secs()
                ),
            ));
        }
        sink.alive();
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A slot that moved while one primary after the other was saved may be in two of them, or in none, and so may each key of an open one.
fn at_rest(place: &str, before: &Layout, after: &Layout) -> Result<(), Failure> {
    let why = if let Some(open) = after.open() {
        format!("keys began to move between primaries while the cluster was saved: open slots: {open}")
    } else if before.shards != after.shards || before.nodes != after.nodes {
        "slots moved or a primary changed while the cluster was saved".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::new(Reason::SourceIncomplete, format!("{place}: {why}: save it when it is at rest")))
}

/// Dumps one server; of a cluster one that serves these slots.
async fn one(
    mut server: Server,
    facts: &Facts,
    name: String,
    ranges: Option<&[(u16, u16)]>,
    sink: &mut impl ArtifactSink,
) -> Result<(), Failure> {
    let place = server.place();
    let mut properties = BTreeMap::from([
        ("server".to_owned(), facts.server()),
        ("node".to_owned(), server.login.address.to_string()),
        ("role".to_owned(), if facts.is_replica() { "replica" } else { "primary" }.to_owned()),
        ("mode".to_owned(), if ranges.is_some() { "cluster" } else { "standalone" }.to_owned()),
        ("usedMemory".to_owned(), facts.text("used_memory_dataset").to_owned()),
    ]);
    if let Some(held) = facts.held() {
        properties.insert(HELD.to_owned(), held.to_string());
    }
    if let Some(ranges) = ranges {
        properties.insert(slots::SERVED.to_owned(), slots::write(ranges));
    }
    if let Some(modules) = server.modules().await?.filter(|modules| !modules.is_empty()) {
        properties.insert("modules".to_owned(), modules.into_iter().collect::<Vec<_>>().join(","));
    }
    let login = server.login.clone();
    // What a Valkey saves to its disk is of its own version, and only what it sends without is of the version that was asked for.
    let saved = saves(&mut server).await? && !facts.is_newer_valkey();
    let mut asked = Asked { saved, version: facts.is_valkey() };
    let mut end = end_of_transfer(&mut server, asked, sink).await;
    if asked.saved
        && let Err(Unsent { failure, .. }) = &end
        && failure.reason == Reason::DumpFailed
    {
        // Its disk failed it. It may send without.
        warn!("{}", failure.message);
        server = Server::connect(&login).await?;
        asked.saved = false;
        end = end_of_transfer(&mut server, asked, sink).await;
    }
    let end = match end {
        Ok(end) => end,
        Err(Unsent { failure, broke_off: true }) => return Err(explained(&login, failure).await),
        Err(Unsent { failure, .. }) => return Err(failure),
    };
    let link = server.into_link()?;
    let hangup = link.hangup();
    let whole = Arc::new(AtomicBool::new(false));
    let stream = Told { stream: Transfer::new(link, end, whole.clone()), place: place.clone() };
    let inspect: Box<dyn Inspect> = match ranges {
        Some(ranges) => Box::new(PrimaryReader::new(format!("dump of {place}"), ranges)),
        None => Box::new(RdbReader::new(format!("dump of {place}"))),
    };
    let metadata = ArtifactMetadata { format: RDB.to_owned(), properties, ..ArtifactMetadata::default() };
    let stored = sink.store(&name, Box::new(stream), inspect, metadata).await;
    // The link of a replica ends with the transfer: nothing that is written later is wanted.
    drop(hangup);
    match stored {
        Ok(inspection) if whole.load(Ordering::Acquire) => {
            if let Some(strays) = inspection.properties.get(slots::STRAYS) {
                warn!(
                    "{place}: it holds {strays} keys of slots that other primaries serve, left over from slots that moved: no restore brings \
                     them back"
                );
            }
            Ok(())
        }
        Ok(_) => Err(Failure::new(Reason::DumpFailed, format!("{place}: the transfer was not read to its end"))),
        Err(failure) if failure.reason == Reason::SourceIncomplete => Err(explained(&login, failure).await),
        Err(failure) => Err(failure),
    }
}

/// Which transfer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// A save to its disk, sent when it is done: it begins at once, and its memory is not held up by our network. Otherwise as the server is
    /// set to: maybe without its disk, after having waited for more replicas.
    saved: bool,
    /// RDB of a version that is read here. A Valkey that is not told of one sends the oldest it can, which cannot hold everything.
    version: bool,
}

/// Why a transfer did not begin.
struct Unsent {
    failure: Failure,
    /// The connection ended without a word.
    broke_off: bool,
}

/// A server that saves to its disk by itself can do so now; one that does not may have no disk to speak of.
async fn saves(server: &mut Server) -> Result<bool, Failure> {
    Ok(server.setting("save").await?.is_some_and(|save| !save.is_empty()))
}

/// Asks for a transfer and waits until it begins.
async fn end_of_transfer(server: &mut Server, asked: Asked, sink: &mut impl ArtifactSink) -> Result<End, Unsent> {
    let refused = |failure| Unsent { failure, broke_off: false };
    server.with(move |link| ask(link, asked)).await.map_err(refused)?;
    loop {
        let said = server.with(Link::line).await.map_err(|failure| Unsent {
            failure: Failure::new(Reason::DumpFailed, format!("{}; it ended while the server saved", failure.message)),
            broke_off: true,
        })?;
        let told = server.with(move |link| announced(link, &said)).await.map_err(refused)?;
        if let Some(end) = told {
            return Ok(end);
        }
        // It saves, and has said so.
        sink.alive();
    }
}

/// Asks for a full synchronisation.
fn ask(link: &mut Link, asked: Asked) -> Result<(), Failure> {
    // Older servers do not know each of these, and do without. `rdb-only` spares the server the buffer for what is written meanwhile.
    let options = [
        (!asked.saved, ["capa", "eof"]),
        (true, ["capa", "psync2"]),
        (true, ["rdb-only", "1"]),
        (asked.version, ["version", NEWEST_VALKEY]),
    ];
    for (_, option) in options.iter().filter(|(wanted, _)| *wanted) {
        let reply = link.call(&["REPLCONF", option[0], option[1]])?;
        if let Reply::Error(words) = &reply
            && (trouble::is_forbidden(words) || words.starts_with("NOAUTH"))
        {
            return Err(link.refused("REPLCONF", &reply, Reason::SourceRefused));
        }
    }
    let mut out = Vec::new();
    super::resp::command(&mut out, &[b"PSYNC", b"?", b"-1"]);
    link.send(&out)?;
    link.set_answer_limit(SILENCE_LIMIT)?;
    loop {
        let said = String::from_utf8_lossy(&link.line()?).into_owned();
        if said.starts_with("+FULLRESYNC ") {
            return Ok(());
        }
        if !said.is_empty() {
            let words = said.strip_prefix('-').unwrap_or(&said).to_owned();
            return Err(link.refused("PSYNC", &Reply::Error(words), Reason::DumpFailed));
        }
    }
}

/// What a line before the transfer says; none where it only says that the server saves.
fn announced(link: &Link, text: &[u8]) -> Result<Option<End>, Failure> {
    End::parse(text).map_err(|words| {
        let words = words.strip_prefix('-').unwrap_or(&words).to_owned();
        link.refused("PSYNC", &Reply::Error(words), Reason::DumpFailed)
    })
}

/// A transfer that broke off: what the server knows of it, and otherwise what is likely.
async fn explained(login: &Login, failure: Failure) -> Failure {
    let facts = match Server::connect(login).await {
        Ok(mut server) => server.facts().await.ok(),
        Err(_) => None,
    };
    trouble::broke_off(&failure, facts.as_ref())
}

/// A transfer whose errors name the server.
struct Told<R> {
    stream: R,
    place: String,
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let words = format!("{}: the server sent nothing for {} seconds", self.place, SILENCE_LIMIT.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, words)
            }
            kind => io::Error::new(kind, format!("{}: {error}", self.place)),
        })
    }
}

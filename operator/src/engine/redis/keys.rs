//! Restores key by key: values cut out of the RDB, `RESTORE` for each, many under way at once. Talks to the target on a blocking thread.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_crds::Reason;

use super::facts::{self, Shard};
use super::link::Link;
use super::resp::{self, Reply};
use super::slots::Served;
use super::survey::{HELD_BYTES, Long};
use crate::archive::rdb::{Entry, FOOTER_BYTES, KEEP_LIMIT, Payload, RdbReader, Visit};
use crate::engine::Inspect;
use crate::task::Failure;

/// So many commands are sent before the answers to those before them are waited for.
const BATCH: usize = 512;
/// Or so many bytes.
const BATCH_BYTES: usize = 256 << 10;

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Keys sent, by the database they went into.
    pub sent: BTreeMap<u64, u64>,
    /// Those of them that expire, or all of whose fields do.
    pub expiring: BTreeMap<u64, u64>,
    /// Keys that had expired, and were not sent.
    pub expired: u64,
    /// Keys of slots that the primary they were in did not serve, which were not sent.
    pub strays: u64,
}

/// The connections that keys go to, and what has been sent over them so far.
pub(super) struct Pour {
    pipes: Vec<Pipe>,
    /// Which of them serves a slot; empty: there is one for all.
    slots: Vec<u16>,
    /// The one database that all keys go into.
    database: Option<u64>,
    replace: bool,
    functions: bool,
    counts: Counts,
}

impl Pour {
    /// Over these connections: one to a server, or one to each primary of a cluster.
    pub fn new(links: Vec<Link>, shards: Option<&[Shard]>, database: Option<u64>, replace: bool) -> Self {
        let mut slots = Vec::new();
        if let Some(shards) = shards {
            slots.resize(usize::from(facts::SLOTS), 0);
            for (shard, place) in shards.iter().zip(0..) {
                for (first, last) in &shard.ranges {
                    slots[usize::from(*first)..=usize::from(*last)].fill(place);
                }
            }
        }
        let pipes = links.into_iter().map(Pipe::new).collect();
        Self { pipes, slots, database, replace, functions: database.is_none(), counts: Counts::default() }
    }

    /// What has been sent.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn pipe(&mut self, key: &[u8]) -> &mut Pipe {
        let place = self.slots.get(usize::from(facts::slot(key))).copied().unwrap_or(0);
        &mut self.pipes[usize::from(place)]
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.pipes.iter_mut().try_for_each(Pipe::finish)
    }
}

/// One connection.
struct Pipe {
    link: Link,
    out: Vec<u8>,
    /// What the answers that are still to come are about.
    waiting: VecDeque<String>,
    /// How many of them were sent already.
    sent: usize,
    database: u64,
}

impl Pipe {
    fn new(link: Link) -> Self {
        Self { link, out: Vec::new(), waiting: VecDeque::new(), sent: 0, database: 0 }
    }

    fn select(&mut self, database: u64) -> Result<(), Failure> {
        if self.database != database {
            self.database = database;
            resp::command(&mut self.out, &[b"SELECT", database.to_string().as_bytes()]);
            self.queued(format!("SELECT {database}"))?;
        }
        Ok(())
    }

    /// A command is complete.
    fn queued(&mut self, about: String) -> Result<(), Failure> {
        self.waiting.push_back(about);
        if self.out.len() >= BATCH_BYTES || self.waiting.len() - self.sent >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what is queued, and waits for the answers to what was sent before it.
    fn flush(&mut self) -> Result<(), Failure> {
        self.link.send(&self.out)?;
        self.out.clear();
        if self.out.capacity() > 4 * BATCH_BYTES {
            self.out.shrink_to(BATCH_BYTES);
        }
        for _ in 0..self.sent {
            self.answer()?;
        }
        self.sent = self.waiting.len();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.flush()?;
        while !self.waiting.is_empty() {
            self.answer()?;
        }
        self.sent = 0;
        Ok(())
    }

    fn answer(&mut self) -> Result<(), Failure> {
        let about = self.waiting.pop_front().unwrap_or_default();
        match self.link.reply()? {
            reply @ Reply::Error(_) => Err(self.link.refused(&about, &reply, Reason::RestoreFailed)),
            _ => Ok(()),
        }
    }
}

/// Sends the keys of one RDB. It is written to, and flushed at the end.
pub(super) struct KeyWriter {
    reader: RdbReader<Sender>,
    /// Where the failure goes: an [`io::Error`] has no reason.
    failed: Arc<Mutex<Option<Failure>>>,
}

impl KeyWriter {
    /// Into `pour`; `long` as a survey of the same stream found. Of a primary's dump only keys of the slots that it served.
    pub fn new(
        what: &str,
        pour: Arc<Mutex<Pour>>,
        long: Vec<Long>,
        served: Option<Served>,
        failed: Arc<Mutex<Option<Failure>>>,
    ) -> Self {
        let sender = Sender {
            pour,
            long: long.into(),
            served,
            ordinal: 0,
            version: 0,
            entry: Entry::default(),
            key: Vec::new(),
            metadata: Vec::new(),
            held: Vec::new(),
            state: State::Passed,
        };
        Self { reader: RdbReader::visited(what, sender), failed }
    }

    fn noted(&self, failure: Failure) -> io::Error {
        let words = failure.message.clone();
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        io::Error::other(words)
    }
}

impl Write for KeyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reader.feed(bytes).map_err(|failure| self.noted(failure)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let pour = self.reader.visitor().pour.clone();
        let ended = self.reader.finish().and_then(|_| pour.lock().unwrap_or_else(PoisonError::into_inner).finish());
        ended.map_err(|failure| self.noted(failure))
    }
}

/// What becomes of the value that is under way.
enum State {
    /// It is not wanted.
    Passed,
    /// It is held until its end, for this database.
    Held(u64),
    /// It goes on as it comes: so many bytes of it are still to come.
    Streamed(Box<Payload>, u64),
}

/// Sends each key as it is found.
struct Sender {
    pour: Arc<Mutex<Pour>>,
    long: VecDeque<Long>,
    served: Option<Served>,
    ordinal: u64,
    version: u32,
    entry: Entry,
    key: Vec<u8>,
    /// What modules keep beside the key: the beginning of its payload.
    metadata: Vec<u8>,
    held: Vec<u8>,
    state: State,
}

impl Sender {
    /// The command up to its payload, of this length.
    fn head(&self, out: &mut Vec<u8>, length: u64, replace: bool) {
        let lifetime = self.entry.expires.unwrap_or(0).to_string();
        resp::header(out, b'*', 4 + self.options(replace).len());
        resp::bulk(out, b"RESTORE");
        resp::bulk(out, &self.key);
        resp::bulk(out, lifetime.as_bytes());
        resp::header(out, b'$', usize::try_from(length).unwrap_or(usize::MAX));
    }

    /// What comes behind the payload.
    fn tail(&self, out: &mut Vec<u8>, replace: bool) {
        out.extend_from_slice(b"\r\n");
        for option in self.options(replace) {
            resp::bulk(out, option.as_bytes());
        }
    }

    fn options(&self, replace: bool) -> Vec<String> {
        let mut options = Vec::new();
        if replace {
            options.push("REPLACE".to_owned());
        }
        if self.entry.expires.is_some() {
            options.push("ABSTTL".to_owned());
        }
        if let Some(idle) = self.entry.idle {
            options.extend(["IDLETIME".to_owned(), idle.to_string()]);
        } else if let Some(frequency) = self.entry.frequency {
            options.extend(["FREQ".to_owned(), frequency.to_string()]);
        }
        options
    }

    fn about(&self) -> String {
        format!("RESTORE {:?}", String::from_utf8_lossy(&self.key[..self.key.len().min(64)]))
    }
}

impl Visit for Sender {
    const KEEPS: bool = true;

    fn version(&mut self, version: u32) {
        self.version = version;
    }

    fn function(&mut self, library: &[u8]) -> Result<(), Failure> {
        let mut pour = self.pour.lock().unwrap_or_else(PoisonError::into_inner);
        if !pour.functions {
            return Ok(());
        }
        let payload = Payload::of_functions([library], self.version);
        for pipe in &mut pour.pipes {
            resp::command(&mut pipe.out, &[b"FUNCTION", b"RESTORE", &payload, b"REPLACE"]);
            pipe.queued("FUNCTION RESTORE".to_owned())?;
        }
        Ok(())
    }

    fn metadata(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.metadata.len() + bytes.len() > KEEP_LIMIT {
            return Err(another_backup());
        }
        self.metadata.extend_from_slice(bytes);
        Ok(())
    }

    fn begin(&mut self, entry: &Entry, key: &[u8]) -> Result<(), Failure> {
        let metadata = std::mem::take(&mut self.metadata);
        let mut pour = self.pour.lock().unwrap_or_else(PoisonError::into_inner);
        self.entry = *entry;
        let long = self.long.pop_front_if(|long| long.ordinal == self.ordinal);
        self.ordinal += 1;
        self.state = State::Passed;
        if self.served.as_ref().is_some_and(|served| !served.holds(key)) {
            pour.counts.strays += 1;
            return Ok(());
        }
        let lapses = long.and_then(|long| long.lapses);
        if is_over(entry.expires) || is_over(lapses) {
            pour.counts.expired += 1;
            return Ok(());
        }
        self.key.clear();
        self.key.extend_from_slice(key);
        let database = pour.database.unwrap_or(entry.database);
        self.held.clear();
        self.held.extend_from_slice(&metadata);
        self.held.push(entry.kind);
        self.state = match long {
            None => State::Held(database),
            Some(Long { length, .. }) => {
                pour.counts.add(database, entry.expires.or(lapses).is_some());
                let replace = pour.replace;
                let pipe = pour.pipe(key);
                pipe.select(database)?;
                self.head(&mut pipe.out, length, replace);
                pipe.out.extend_from_slice(&self.held);
                pipe.flush()?;
                let mut payload = Box::<Payload>::default();
                payload.feed(&self.held);
                let left = length.checked_sub(self.held.len() as u64 + FOOTER_BYTES).ok_or_else(another_backup)?;
                State::Streamed(payload, left)
            }
        };
        Ok(())
    }

    fn value(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.state {
            State::Passed => Ok(()),
            State::Held(_) => {
                if self.held.len() as u64 + bytes.len() as u64 > HELD_BYTES {
                    return Err(another_backup());
                }
                self.held.extend_from_slice(bytes);
                Ok(())
            }
            State::Streamed(payload, left) => {
                payload.feed(bytes);
                *left = left.checked_sub(bytes.len() as u64).ok_or_else(another_backup)?;
                self.pour.lock().unwrap_or_else(PoisonError::into_inner).pipe(&self.key).link.send(bytes)
            }
        }
    }

    fn end(&mut self, lapses: Option<i64>) -> Result<(), Failure> {
        let state = std::mem::replace(&mut self.state, State::Passed);
        let mut pour = self.pour.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Held(database) = state {
            if is_over(lapses) {
                pour.counts.expired += 1;
                return Ok(());
            }
            pour.counts.add(database, self.entry.expires.or(lapses).is_some());
        }
        let replace = pour.replace;
        let pipe = pour.pipe(&self.key);
        let payload = match state {
            State::Passed => return Ok(()),
            State::Held(database) => {
                pipe.select(database)?;
                let mut payload = Payload::new();
                payload.feed(&self.held);
                self.head(&mut pipe.out, self.held.len() as u64 + FOOTER_BYTES, replace);
                pipe.out.extend_from_slice(&self.held);
                payload
            }
            State::Streamed(payload, _) => *payload,
        };
        pipe.out.extend_from_slice(&payload.footer(self.version));
        self.tail(&mut pipe.out, replace);
        if self.held.capacity() > 4 * BATCH_BYTES {
            self.held = Vec::new();
        }
        pipe.queued(self.about())
    }
}

impl Counts {
    fn add(&mut self, database: u64, expires: bool) {
        *self.sent.entry(database).or_default() += 1;
        if expires {
            *self.expiring.entry(database).or_default() += 1;
        }
    }
}

/// Whether something has expired.
fn is_over(expires: Option<i64>) -> bool {
    expires.is_some_and(|at| at <= now())
}

/// What was surveyed is not what comes.
fn another_backup() -> Failure {
    Failure::new(Reason::ChecksumMismatch, "the backup is another one than a moment ago: a value has another length")
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

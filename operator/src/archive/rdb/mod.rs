//! Reader of Redis' and Valkey's RDB, as a stream: proves that it is whole, counts its keys and cuts its values out. Pure.
//!
//! The stream is followed through the grammar of each value, but nothing of a value is kept: memory does not grow with it. What a value
//! means is left to the server, which gets the very bytes another server wrote.

mod element;
mod fields;
mod grammar;
mod lzf;
mod payload;
mod visit;

use std::collections::{BTreeMap, BTreeSet};

use crc_fast::{CrcAlgorithm, Digest};
use holdfast_crds::Reason;

use crate::engine::{Inspect, Inspection};
use crate::store::manifest::ItemCount;
use crate::task::Failure;
use element::{Head, metadata_class, module_type};
use fields::Fields;
use grammar::{Flavour, Op};
pub use payload::{FOOTER_BYTES, Payload};
pub use visit::{Entry, Visit};

/// The newest version of Redis' own that is read.
pub const NEWEST_REDIS: u32 = 13;
/// The oldest version that is read: the first with a checksum is 5, and 6 is that of Redis 2.6.
const OLDEST: u32 = 6;
/// The only version of Valkey's own that is read: that of Valkey 9.0 and 9.1.
pub const VALKEY: u32 = 80;
/// The newest Valkey whose RDB is read. A Valkey from 9 on asks a replica for its version, and writes what such a version reads.
pub const NEWEST_VALKEY: &str = "9.1.0";
/// Facts on the server that wrote it. They hold no data, and no server needs them for the keys.
const FACTS: [&[u8]; 11] = [
    b"redis-ver",
    b"valkey-ver",
    b"redis-bits",
    b"ctime",
    b"used-mem",
    b"aof-base",
    b"aof-preamble",
    b"repl-stream-db",
    b"repl-id",
    b"repl-offset",
    // A script of a server before 7: scripts are no part of a backup.
    b"lua",
];
/// So many names of fields that are not known are told.
const MOST_FIELDS: usize = 16;
/// The longest key or library of functions where they are kept.
pub const KEEP_LIMIT: usize = 16 << 20;
/// The longest listpack of fields that expire that is looked into. Servers make them no longer unless they are told to.
const LIST_LIMIT: usize = 1 << 20;
/// How much is kept where only the beginning matters.
const SOME_LIMIT: usize = 256;
/// More bytes than any element has before its payload.
const LONGEST_HEAD: usize = 320;
/// How deep repetitions nest: pending entries of consumers of groups of a stream, and a module's data.
const DEEPEST: usize = 8;

/// Property: keys that expire, by database, such as `db0=2,db3=1`.
const EXPIRES: &str = "expires";
/// Property: keys that do not, and are hashes all of whose fields do, in the same way.
const LAPSES: &str = "lapses";

/// How many keys of each database may go by themselves, as the properties of an inspection tell.
pub fn transient(properties: &BTreeMap<String, String>) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for list in [EXPIRES, LAPSES].iter().filter_map(|name| properties.get(*name)) {
        for (database, count) in list.split(',').filter_map(|one| one.strip_prefix("db")?.split_once('=')) {
            if let (Ok(database), Ok(count)) = (database.parse::<u64>(), count.parse::<u64>()) {
                *counts.entry(database).or_default() += count;
            }
        }
    }
    counts
}

/// Keys of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keyspace {
    /// All.
    pub keys: u64,
    /// Those that expire.
    pub expires: u64,
    /// Hashes all of whose fields expire, which take the key with them.
    pub lapses: u64,
}

/// Reads an RDB as it passes.
pub struct RdbReader<V = ()> {
    what: String,
    visitor: V,
    place: Place,
    flavour: Flavour,
    version: u32,
    crc: Digest,
    checksum: Option<bool>,
    /// The beginning of an element whose rest has not come yet.
    carry: Vec<u8>,
    /// Bytes taken so far.
    offset: u64,
    /// Payload of an element that is still to come.
    skip: u64,
    keeping: Option<Keeping>,
    stack: Vec<Frame>,
    texts: Vec<Vec<u8>>,
    number: u64,
    entry: Entry,
    databases: BTreeMap<u64, Keyspace>,
    functions: u64,
    server: Option<String>,
    module_types: BTreeMap<String, u64>,
    /// Types of modules whose data belongs to no key.
    module_data: BTreeSet<String>,
    /// Expiries of the fields of the hash that is under way.
    hash: Fields,
    /// When the last field of the value that has ended expires; none where not all do.
    lapses: Option<i64>,
    /// Metadata has come, and the key that it is beside has not.
    before_key: bool,
    /// Names of fields that are not known.
    fields: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Magic,
    /// Before an opcode or a type.
    Mark,
    /// Inside of what follows an opcode.
    Record(u8),
    /// Inside of metadata of the key that comes next.
    Metadata,
    Key,
    Value,
    Checksum,
    End,
}

/// A string that is kept while it comes.
struct Keeping {
    text: Vec<u8>,
    limit: usize,
    /// Its length before it was compressed.
    plain: Option<u64>,
}

/// A sequence of elements, and how often it still repeats.
struct Frame {
    ops: &'static [Op],
    at: usize,
    left: u64,
}

impl RdbReader {
    /// A reader that proves and counts; `what` begins its messages, such as `dump of cache:6379`.
    pub fn new(what: impl Into<String>) -> Self {
        Self::visited(what, ())
    }
}

impl<V: Visit> RdbReader<V> {
    /// A reader that tells a visitor of everything it finds.
    pub fn visited(what: impl Into<String>, visitor: V) -> Self {
        Self {
            what: what.into(),
            visitor,
            place: Place::Magic,
            flavour: Flavour::Redis,
            version: 0,
            crc: Digest::new(CrcAlgorithm::Crc64Redis),
            checksum: None,
            carry: Vec::new(),
            offset: 0,
            skip: 0,
            keeping: None,
            stack: Vec::with_capacity(DEEPEST),
            texts: Vec::new(),
            number: 0,
            entry: Entry::default(),
            databases: BTreeMap::new(),
            functions: 0,
            server: None,
            module_types: BTreeMap::new(),
            module_data: BTreeSet::new(),
            hash: Fields::default(),
            lapses: None,
            before_key: false,
            fields: BTreeSet::new(),
        }
    }

    /// The visitor.
    pub fn visitor(&mut self) -> &mut V {
        &mut self.visitor
    }

    /// Keys found so far, by database.
    pub fn databases(&self) -> &BTreeMap<u64, Keyspace> {
        &self.databases
    }

    /// Which format it is, for messages.
    fn format(&self) -> String {
        format!("version {} of {}", self.version, self.flavour.name())
    }

    fn broken(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(Reason::SourceIncomplete, format!("{}: {why} (at byte {})", self.what, self.offset))
    }

    /// Takes as many whole elements as there are; returns how many bytes they had.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let (begin, mut at) = (self.offset, 0);
        // Where the bytes of the value or metadata that is under way begin.
        let mut under_way = matches!(self.place, Place::Value | Place::Metadata).then_some(0);
        let mut summed = 0;
        while at < bytes.len() {
            let before = self.place;
            let Some(taken) = self.element(&bytes[at..])? else { break };
            at += taken;
            self.offset = begin + at as u64;
            // An element may end more than one thing, such as the last string of a hash.
            while self.skip == 0 && self.keeping.is_none() && self.ends()? {}
            match (before, self.place) {
                (Place::Checksum, _) => summed = at,
                (_, Place::Checksum) => {
                    self.crc.update(&bytes[summed..at]);
                    summed = at;
                }
                (Place::Value, Place::Value) | (Place::Metadata, Place::Metadata) => {}
                (Place::Value, _) => {
                    if let Some(from) = under_way.take() {
                        self.visitor.value(&bytes[from..at])?;
                    }
                    self.visitor.end(self.lapses)?;
                }
                (Place::Metadata, _) => {
                    if let Some(from) = under_way.take() {
                        self.visitor.metadata(&bytes[from..at])?;
                    }
                }
                (_, Place::Value) => under_way = Some(at),
                // With its opcode.
                (_, Place::Metadata) => under_way = Some(at - taken),
                _ => {}
            }
        }
        match under_way {
            Some(from) if self.place == Place::Metadata => self.visitor.metadata(&bytes[from..at])?,
            Some(from) => self.visitor.value(&bytes[from..at])?,
            None => {}
        }
        if self.place != Place::End && self.place != Place::Checksum {
            self.crc.update(&bytes[summed..at]);
        }
        Ok(at)
    }

    /// Takes one element; none where its beginning is not all there.
    fn element(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        if self.skip > 0 {
            let taken = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.keep(&bytes[..taken]);
            self.skip -= taken as u64;
            if self.skip == 0 {
                self.kept()?;
            }
            return Ok(Some(taken));
        }
        match self.place {
            Place::Magic => self.magic(bytes),
            Place::Mark => self.mark(bytes[0]).map(|()| Some(1)),
            Place::Record(_) | Place::Metadata | Place::Key | Place::Value => self.op(bytes),
            Place::Checksum => self.checksum(bytes),
            Place::End => Err(self.broken("something follows its end")),
        }
    }

    fn magic(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let Some(magic) = bytes.get(..9) else { return Ok(None) };
        let digits = match magic {
            [b'R', b'E', b'D', b'I', b'S', digits @ ..] => digits,
            [b'V', b'A', b'L', b'K', b'E', b'Y', digits @ ..] => {
                self.flavour = Flavour::Valkey;
                digits
            }
            _ => return Err(self.broken("it is no RDB: it begins neither with REDIS nor with VALKEY")),
        };
        let version = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        self.version = version.ok_or_else(|| self.broken("it is no RDB: it does not tell its version"))?;
        let known = match self.flavour {
            Flavour::Redis => OLDEST..=NEWEST_REDIS,
            Flavour::Valkey => VALKEY..=VALKEY,
        };
        if !known.contains(&self.version) {
            return Err(Failure::new(
                Reason::InvalidConfiguration,
                format!(
                    "{}: its RDB has version {} of {}, and this version of Holdfast reads {OLDEST} to {NEWEST_REDIS} (Redis up to 8.6, Valkey up to 8) and {VALKEY} (Valkey 9.0 and 9.1): use a release of Holdfast that reads it; until then save a copy of the server's own dump.rdb",
                    self.what,
                    self.version,
                    self.flavour.name()
                ),
            ));
        }
        self.visitor.version(self.version);
        self.place = Place::Mark;
        Ok(Some(9))
    }

    /// Takes an opcode or a type.
    fn mark(&mut self, mark: u8) -> Result<(), Failure> {
        self.texts.clear();
        let opcode = grammar::of_opcode(mark, self.flavour, self.version);
        if std::mem::take(&mut self.before_key) && opcode.is_some() {
            return Err(
                self.broken(format_args!("metadata of a key stands before the opcode {mark}, and not before a key"))
            );
        }
        if mark == grammar::EOF {
            self.place = Place::Checksum;
            return Ok(());
        }
        if let Some(ops) = opcode {
            let metadata = mark == grammar::METADATA && self.flavour == Flavour::Redis;
            self.place = if metadata { Place::Metadata } else { Place::Record(mark) };
            return self.push(ops, 1);
        }
        if grammar::of_type(mark, self.flavour, self.version).is_none() {
            return Err(match mark {
                6 | 246 => {
                    self.broken("it was written by a release candidate of Redis, whose format was never released")
                }
                _ => self.broken(format_args!(
                    "a byte {mark} is neither a type nor an opcode of {}: it is damaged, or another program than Redis or Valkey wrote it",
                    self.format()
                )),
            });
        }
        self.entry.kind = mark;
        self.hash = Fields::default();
        self.place = Place::Key;
        self.push(if V::KEEPS { &[Op::Keep] } else { &[Op::Text] }, 1)
    }

    fn push(&mut self, ops: &'static [Op], times: u64) -> Result<(), Failure> {
        if self.stack.len() >= DEEPEST {
            return Err(self.broken("it nests deeper than it can"));
        }
        self.stack.push(Frame { ops, at: 0, left: times });
        Ok(())
    }

    /// Takes the next element of what is under way.
    fn op(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let Some(frame) = self.stack.last_mut() else { return Err(self.broken("nothing is expected")) };
        let op = frame.ops[frame.at];
        frame.at += 1;
        let taken = self.one(op, bytes)?;
        if taken.is_none()
            && let Some(frame) = self.stack.last_mut()
        {
            frame.at -= 1;
        }
        Ok(taken)
    }

    fn one(&mut self, op: Op, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        match op {
            Op::Length => Ok(self.length(bytes)?.map(|(taken, _)| taken)),
            Op::Number => {
                let Some((taken, number)) = self.length(bytes)? else { return Ok(None) };
                self.number = number;
                Ok(Some(taken))
            }
            Op::Raw(length) => {
                self.skip = u64::from(length);
                Ok(Some(0))
            }
            Op::Little(length) => {
                let Some(little) = bytes.get(..usize::from(length)) else { return Ok(None) };
                self.number = little.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
                Ok(Some(little.len()))
            }
            Op::FieldBase => {
                let Some(base) = bytes.first_chunk() else { return Ok(None) };
                self.hash.begin(i64::from_le_bytes(*base));
                Ok(Some(base.len()))
            }
            Op::FieldTtl => {
                let Some((taken, ttl)) = self.length(bytes)? else { return Ok(None) };
                self.hash.relative(ttl);
                Ok(Some(taken))
            }
            Op::FieldExpiry => {
                let Some(at) = bytes.first_chunk() else { return Ok(None) };
                self.hash.absolute(i64::from_le_bytes(*at));
                Ok(Some(at.len()))
            }
            Op::FieldList => self.keep_text(bytes, LIST_LIMIT),
            Op::TextualDouble => {
                // Above that: not a number, and the infinities.
                self.skip = if bytes[0] <= 252 { u64::from(bytes[0]) } else { 0 };
                Ok(Some(1))
            }
            Op::Many(ops) => {
                let Some((taken, times)) = self.length(bytes)? else { return Ok(None) };
                if times > 0 {
                    self.push(ops, times)?;
                }
                Ok(Some(taken))
            }
            Op::Text => {
                let Some((taken, head)) = self.head(bytes)? else { return Ok(None) };
                match head {
                    Head::Plain(length) | Head::Lzf(length, _) => self.skip = length,
                    Head::Integer(_) => {}
                }
                Ok(Some(taken))
            }
            Op::Keep => self.keep_text(bytes, KEEP_LIMIT),
            Op::KeepSome => self.keep_text(bytes, SOME_LIMIT),
            Op::ModuleType => {
                let Some((taken, id)) = self.length(bytes)? else { return Ok(None) };
                let name = module_type(id);
                if self.place == Place::Record(grammar::MODULE_AUX) {
                    self.texts.push(name.clone().into_bytes());
                    self.module_data.insert(name);
                } else {
                    *self.module_types.entry(name).or_default() += 1;
                }
                Ok(Some(taken))
            }
            Op::MetadataClass => {
                let Some(packed) = bytes.first_chunk() else { return Ok(None) };
                let (name, may_be_left_out) = metadata_class(u32::from_le_bytes(*packed));
                if !may_be_left_out {
                    *self.module_types.entry(name).or_default() += 1;
                }
                Ok(Some(packed.len()))
            }
            Op::ModuleData => {
                let Some((taken, mark)) = self.length(bytes)? else { return Ok(None) };
                if mark != 0 {
                    let ops = grammar::of_module(mark)
                        .ok_or_else(|| self.broken(format_args!("a module's data holds a mark {mark}")))?;
                    // Once more, behind what this mark announces.
                    if let Some(frame) = self.stack.last_mut() {
                        frame.at -= 1;
                    }
                    self.push(ops, 1)?;
                }
                Ok(Some(taken))
            }
        }
    }

    /// A length, or another number written as one.
    fn length(&self, bytes: &[u8]) -> Result<Option<(usize, u64)>, Failure> {
        element::length(bytes).map_err(|why| self.broken(why))
    }

    /// The beginning of a string.
    fn head(&self, bytes: &[u8]) -> Result<Option<(usize, Head)>, Failure> {
        element::head(bytes).map_err(|why| self.broken(why))
    }

    fn keep_text(&mut self, bytes: &[u8], limit: usize) -> Result<Option<usize>, Failure> {
        let Some((taken, head)) = self.head(bytes)? else { return Ok(None) };
        let (length, plain) = match head {
            Head::Integer(number) => {
                self.texts.push(number.to_string().into_bytes());
                return Ok(Some(taken));
            }
            Head::Plain(length) => (length, None),
            Head::Lzf(length, plain) => (length, Some(plain)),
        };
        let too_long = length.max(plain.unwrap_or(0)) > limit as u64;
        if limit == KEEP_LIMIT && too_long && V::KEEPS && !V::PASSES_LONG {
            return Err(Failure::new(
                Reason::InvalidConfiguration,
                format!(
                    "{}: a key or a library of functions has {} bytes, and {KEEP_LIMIT} is the most that is restored key by key (at byte {})",
                    self.what,
                    plain.unwrap_or(length),
                    self.offset
                ),
            ));
        }
        self.skip = length;
        // What is not kept is empty.
        let limit = match limit {
            KEEP_LIMIT if too_long || !V::KEEPS => 0,
            LIST_LIMIT if too_long => 0,
            limit => limit,
        };
        self.keeping = Some(Keeping { text: Vec::new(), limit, plain });
        if length == 0 {
            self.kept()?;
        }
        Ok(Some(taken))
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(keeping) = &mut self.keeping {
            let room = keeping.limit.saturating_sub(keeping.text.len());
            keeping.text.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
    }

    /// A string that is kept has come to its end.
    fn kept(&mut self) -> Result<(), Failure> {
        let Some(Keeping { text, limit, plain }) = self.keeping.take() else { return Ok(()) };
        let text = match plain {
            None => text,
            // What is long is not needed where only the beginning matters, or nothing at all.
            Some(_) if limit == 0 || limit == SOME_LIMIT => Vec::new(),
            Some(plain) => usize::try_from(plain)
                .ok()
                .and_then(|plain| lzf::decompress(&text, plain))
                .ok_or_else(|| self.broken("a compressed string cannot be decompressed"))?,
        };
        self.texts.push(text);
        Ok(())
    }

    /// Whether a sequence, and maybe with it what it belongs to, has just ended.
    fn ends(&mut self) -> Result<bool, Failure> {
        let Some(frame) = self.stack.last_mut() else { return Ok(false) };
        if frame.at < frame.ops.len() {
            return Ok(false);
        }
        if frame.left > 1 {
            frame.left -= 1;
            frame.at = 0;
            return Ok(false);
        }
        self.stack.pop();
        if !self.stack.is_empty() {
            return Ok(true);
        }
        match self.place {
            Place::Record(opcode) => self.record(opcode)?,
            Place::Metadata => {
                self.before_key = true;
                self.place = Place::Mark;
            }
            Place::Key => {
                let key = self.texts.pop();
                if V::KEEPS {
                    self.visitor.begin(&self.entry, key.as_deref().unwrap_or_default())?;
                }
                let ops = grammar::of_type(self.entry.kind, self.flavour, self.version)
                    .ok_or_else(|| self.broken("the type of a value is not known"))?;
                self.place = Place::Value;
                self.push(ops, 1)?;
            }
            Place::Value => {
                if matches!(self.entry.kind, 23 | 25) && self.flavour == Flavour::Redis {
                    self.hash.list(self.texts.pop().as_deref().unwrap_or_default());
                }
                self.lapses = self.hash.lapse();
                let keyspace = self.databases.entry(self.entry.database).or_default();
                keyspace.keys += 1;
                keyspace.expires += u64::from(self.entry.expires.is_some());
                keyspace.lapses += u64::from(self.lapses.is_some() && self.entry.expires.is_none());
                self.entry = Entry { database: self.entry.database, ..Entry::default() };
                self.place = Place::Mark;
            }
            Place::Magic | Place::Mark | Place::Checksum | Place::End => {}
        }
        Ok(false)
    }

    /// What follows an opcode has come to its end.
    fn record(&mut self, opcode: u8) -> Result<(), Failure> {
        self.place = Place::Mark;
        match opcode {
            grammar::SELECT => self.entry.database = self.number,
            grammar::EXPIRY_MILLIS => self.entry.expires = Some(self.number.cast_signed()),
            grammar::EXPIRY_SECONDS => {
                // Four bytes, signed.
                let seconds = i32::try_from(self.number.cast_signed() << 32 >> 32).unwrap_or(i32::MAX);
                self.entry.expires = Some(i64::from(seconds) * 1000);
            }
            grammar::IDLE => self.entry.idle = Some(self.number),
            grammar::FREQUENCY => self.entry.frequency = u8::try_from(self.number).ok(),
            grammar::FUNCTION => {
                self.functions += 1;
                let library = self.texts.pop().unwrap_or_default();
                if V::KEEPS {
                    self.visitor.function(&library)?;
                }
            }
            grammar::AUX => {
                let [name, value] = &self.texts[..] else { return Ok(()) };
                if matches!(&name[..], b"redis-ver" | b"valkey-ver") {
                    self.server = Some(String::from_utf8_lossy(value).into_owned());
                } else if !FACTS.contains(&&name[..]) {
                    let name = String::from_utf8_lossy(name).into_owned();
                    if self.fields.len() < MOST_FIELDS {
                        self.fields.insert(name.clone());
                    }
                    self.visitor.besides(format!("the field {name:?}"))?;
                }
            }
            grammar::MODULE_AUX => {
                let name = self.texts.pop().unwrap_or_default();
                self.visitor.besides(format!("data of the module type {}", String::from_utf8_lossy(&name)))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn checksum(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let Some(stated) = bytes.first_chunk() else { return Ok(None) };
        let (stated, found) = (u64::from_le_bytes(*stated), self.crc.finalize());
        if stated != 0 && stated != found {
            return Err(
                self.broken(format_args!("its checksum is {found:016x} and it states {stated:016x}: it is damaged"))
            );
        }
        self.checksum = Some(stated != 0);
        self.place = Place::End;
        Ok(Some(8))
    }

    fn keys(&self) -> u64 {
        self.databases.values().map(|keyspace| keyspace.keys).sum()
    }
}

impl<V: Visit> Inspect for RdbReader<V> {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if self.carry.is_empty() {
                let taken = self.take(bytes)?;
                bytes = &bytes[taken..];
                if bytes.len() > LONGEST_HEAD {
                    return Err(self.broken("an element has no end"));
                }
                self.carry.extend_from_slice(bytes);
                return Ok(());
            }
            let old = self.carry.len();
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(&bytes[..bytes.len().min(LONGEST_HEAD)]);
            let taken = self.take(&carry)?;
            if taken >= old {
                bytes = &bytes[taken - old..];
            } else {
                bytes = &bytes[carry.len() - old..];
                carry.drain(..taken);
                self.carry = carry;
                if self.carry.len() > LONGEST_HEAD {
                    return Err(self.broken("an element has no end"));
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        let Some(checksum) = self.checksum else {
            let place = match self.place {
                Place::Magic => "before its beginning".to_owned(),
                Place::Checksum => "inside its checksum".to_owned(),
                _ => format!("behind {} keys, inside database {}", self.keys(), self.entry.database),
            };
            return Err(self.broken(format_args!("it is cut off: it ends {place}")));
        };
        let items = self.databases.iter().map(|(number, keyspace)| ItemCount {
            name: format!("db{number}"),
            count: i64::try_from(keyspace.keys).unwrap_or(i64::MAX),
        });
        let items: Vec<ItemCount> = items.collect();
        let total = Some(items.iter().map(|item| item.count).sum());
        let mut properties = BTreeMap::from([
            ("rdbVersion".to_owned(), self.version.to_string()),
            ("checksum".to_owned(), if checksum { "crc64" } else { "off" }.to_owned()),
            ("functionLibraries".to_owned(), self.functions.to_string()),
        ]);
        if let Some(server) = &self.server {
            properties.insert("serverVersion".to_owned(), server.clone());
        }
        let counted = |of: fn(&Keyspace) -> u64| -> Vec<String> {
            let counts = self.databases.iter().map(|(number, keyspace)| (number, of(keyspace)));
            counts.filter(|(_, count)| *count > 0).map(|(number, count)| format!("db{number}={count}")).collect()
        };
        for (name, counts) in [(EXPIRES, counted(|k| k.expires)), (LAPSES, counted(|k| k.lapses))] {
            if !counts.is_empty() {
                properties.insert(name.to_owned(), counts.join(","));
            }
        }
        if !self.fields.is_empty() {
            let fields: Vec<&str> = self.fields.iter().map(String::as_str).collect();
            properties.insert("unknownFields".to_owned(), fields.join(","));
        }
        if !self.module_types.is_empty() {
            let types: Vec<&str> = self.module_types.keys().map(String::as_str).collect();
            properties.insert("moduleTypes".to_owned(), types.join(","));
        }
        if !self.module_data.is_empty() {
            let types: Vec<&str> = self.module_data.iter().map(String::as_str).collect();
            properties.insert("moduleData".to_owned(), types.join(","));
        }
        Ok(Inspection { items, total, properties })
    }
}

#[cfg(test)]
mod tests;

//! Reader of pg_dump's custom format (archive versions 1.12 to 1.16, pg_dump 10 to 18), uncompressed, as a stream. Pure.
//!
//! The format is defined by PostgreSQL's `pg_backup_archiver.c` and `pg_backup_custom.c`: a header, a table of contents whose entries say
//! whether they have data, then one block for each of these in the same order. A block is a run of chunks (length, bytes) that ends with
//! a length of zero. Nothing marks the end of the stream: it is whole when the last entry with data has had its block.

use std::collections::BTreeMap;

use holdfast_crds::Reason;

use super::table_name::TableName;
use crate::engine::{Inspect, Inspection};
use crate::store::manifest::ItemCount;
use crate::task::Failure;

/// Archive versions this reader knows, as (major, minor).
const KNOWN_VERSIONS: std::ops::RangeInclusive<(u8, u8)> = (1, 12)..=(1, 16);
/// An integer: a sign, then four bytes, the least significant first.
const INT: usize = 5;
/// The magic with three bytes of version, sizes of integers and offsets, and the format.
const PROLOGUE: usize = 11;
/// Longest name kept; the server's own limit is 63 bytes.
const NAME_LIMIT: usize = 4096;
/// The same of what the entry is called.
const TAG_LIMIT: usize = 64 << 10;
/// Most bytes of COPY statements that are kept: of a hundred thousand tables there are less.
const STATEMENTS_LIMIT: usize = 16 << 20;
/// Longest text that can be in an archive: no value of the server is longer.
const TEXT_LIMIT: usize = 1 << 30;
/// Most tables with data that are counted: it bounds the memory.
const TABLE_LIMIT: usize = 4_000_000;
/// What COPY text ends with in an archive: the end-of-data line and two empty ones.
const COPY_END: &[u8; 5] = b"\\.\n\n\n";

/// Looks at an archive as it passes: counts the rows of each table and proves that it is whole.
pub struct PgDumpReader {
    what: String,
    state: State,
    fixed: [u8; 16],
    have: usize,
    text: Vec<u8>,
    offset: u64,
    version: (u8, u8),
    offset_size: usize,
    properties: BTreeMap<String, String>,
    entries_left: u64,
    entry: Entry,
    data: Vec<Data>,
    next: usize,
    block: Block,
    large_objects: u64,
    /// How many more bytes of COPY statements are kept.
    room: usize,
    /// Where it is asked for: every entry of the table of contents.
    contents: Option<contents::Kept>,
}

/// A stretch of an archive as it passes.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// Anything but rows, as it stands in the stream.
    Frame(&'a [u8]),
    /// How many entries the table of contents has, as a whole integer: a frame.
    EntryCount(&'a [u8]),
    /// An entry begins, with its number, as a whole integer: a frame.
    EntryId(&'a [u8]),
    /// The length of one of an entry's texts, as a whole integer: a frame.
    Length(Field, &'a [u8]),
    /// A stretch of it: a frame.
    Text(&'a [u8]),
    /// An entry has passed.
    EndOfEntry,
    /// Rows of a table follow: the statement that reads them from the client, and the server's name of their encoding, where known.
    Table { copy: Option<&'a str>, encoding: Option<&'a str> },
    /// Rows as COPY text, without the lengths of their chunks; the last five bytes of a table's are [`COPY_END`].
    Rows(&'a [u8]),
    /// A table's rows have passed, and so has the length of zero that says so, which was no frame.
    EndOfRows,
}

/// What comes next in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Prologue,
    Compression,
    Created(u8),
    TextLength(Field),
    Text(Field, usize),
    EntryCount,
    DumpId,
    HadDumper,
    Section,
    RelKind,
    Offset,
    BlockType,
    BlockId,
    LargeObject,
    ChunkLength,
    Chunk(usize),
}

/// A text of the header or of an entry, in the order of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    DatabaseName,
    ServerVersion,
    DumpVersion,
    TableOid,
    Oid,
    Tag,
    Description,
    Definition,
    DropStatement,
    CopyStatement,
    Namespace,
    Tablespace,
    AccessMethod,
    Owner,
    WithOids,
    Dependency,
}

#[derive(Default)]
struct Entry {
    id: i64,
    has_data: bool,
    tag: String,
    description: String,
    namespace: String,
    copy: Option<Box<str>>,
    definition: String,
    /// The definition is longer than what is kept of it.
    cut: bool,
    owner: String,
    dependencies: Vec<i64>,
}

struct Data {
    id: i64,
    kind: Kind,
    copy: Option<Box<str>>,
    rows: u64,
}

enum Kind {
    Table(TableName),
    LargeObjects,
    Other(String),
}

#[derive(Default)]
struct Block {
    large_objects: bool,
    copy: bool,
    newlines: u64,
    /// The last eight bytes, the newest in the lowest place.
    tail: u64,
}

impl PgDumpReader {
    /// A reader for the start of a stream; `what` begins its messages, such as `dump of database shop`.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state: State::Prologue,
            fixed: [0; 16],
            have: 0,
            text: Vec::new(),
            offset: 0,
            version: (0, 0),
            offset_size: 8,
            properties: BTreeMap::new(),
            entries_left: 0,
            entry: Entry::default(),
            data: Vec::new(),
            next: 0,
            block: Block::default(),
            large_objects: 0,
            room: 0,
            contents: None,
        }
    }

    /// A reader that also tells by which statement a table's rows are read.
    fn with_statements(what: impl Into<String>) -> Self {
        Self { room: STATEMENTS_LIMIT, ..Self::new(what) }
    }

    fn broken(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(Reason::SourceIncomplete, format!("{}: {why} (at byte {})", self.what, self.offset))
    }

    /// How many bytes the next fixed-size field has.
    fn need(&self) -> usize {
        match self.state {
            State::Prologue => PROLOGUE,
            State::Compression if self.version >= (1, 15) => 1,
            State::Offset => 1 + self.offset_size,
            State::BlockType => 1,
            _ => INT,
        }
    }

    fn int(&self, bytes: &[u8]) -> Result<i64, Failure> {
        let [sign, a, b, c, d] = *bytes else { return Err(self.broken("an integer of another size")) };
        let value = i64::from(u32::from_le_bytes([a, b, c, d]));
        match sign {
            0 => Ok(value),
            1 => Ok(-value),
            _ => Err(self.broken("it is damaged: an integer has no sign")),
        }
    }

    /// Takes one fixed-size field.
    fn step(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.state = match self.state {
            State::Prologue => return self.prologue(bytes),
            State::Compression => {
                let compression = if self.version >= (1, 15) { i64::from(bytes[0]) } else { self.int(bytes)? };
                if compression != 0 {
                    return Err(
                        self.broken("it is compressed by pg_dump, and only uncompressed archives can be checked")
                    );
                }
                State::Created(0)
            }
            State::Created(index) => {
                self.int(bytes)?;
                if index < 6 { State::Created(index + 1) } else { State::TextLength(Field::DatabaseName) }
            }
            State::TextLength(field) => return self.text_length(field, bytes),
            State::EntryCount => {
                let count = self.int(bytes)?;
                self.entries_left =
                    u64::try_from(count).map_err(|_| self.broken("its table of contents has a negative length"))?;
                self.properties.insert("tocEntries".to_owned(), count.to_string());
                if count == 0 { State::BlockType } else { State::DumpId }
            }
            State::DumpId => {
                let id = self.int(bytes)?;
                if id <= 0 {
                    return Err(self.broken(format_args!("it is damaged: an entry has the number {id}")));
                }
                self.entry = Entry { id, ..Entry::default() };
                State::HadDumper
            }
            State::HadDumper => {
                self.entry.has_data = match self.int(bytes)? {
                    0 => false,
                    1 => true,
                    other => return Err(self.broken(format_args!("it is damaged: {other} where 0 or 1 belongs"))),
                };
                State::TextLength(Field::TableOid)
            }
            State::Section => {
                let section = self.int(bytes)?;
                if !(1..=4).contains(&section) {
                    return Err(self.broken(format_args!("it is damaged: there is no section {section}")));
                }
                State::TextLength(Field::Definition)
            }
            State::RelKind => {
                self.int(bytes)?;
                State::TextLength(Field::Owner)
            }
            State::Offset => return self.end_entry(bytes[0]),
            State::BlockType => return self.block_type(bytes[0]),
            State::BlockId => return self.block_id(bytes),
            State::LargeObject => {
                if self.int(bytes)? == 0 {
                    self.next += 1;
                    State::BlockType
                } else {
                    self.large_objects += 1;
                    State::ChunkLength
                }
            }
            State::ChunkLength => return self.chunk_length(bytes),
            // Not of a fixed size: `feed` takes them.
            State::Text(..) | State::Chunk(_) => self.state,
        };
        Ok(())
    }

    fn prologue(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let [b'P', b'G', b'D', b'M', b'P', major, minor, revision, int_size, offset_size, format] = *bytes else {
            return Err(self.broken("it is no archive of pg_dump's custom format"));
        };
        self.version = (major, minor);
        if !KNOWN_VERSIONS.contains(&self.version) {
            return Err(
                self.broken(format_args!("archive version {major}.{minor} is not known to this version of Holdfast"))
            );
        }
        if int_size != 4 || !matches!(offset_size, 4 | 8) || format != 1 {
            return Err(self.broken("it is no archive of pg_dump's custom format, or damaged in its first bytes"));
        }
        self.offset_size = usize::from(offset_size);
        self.properties.insert("archiveVersion".to_owned(), format!("{major}.{minor}.{revision}"));
        self.state = State::Compression;
        Ok(())
    }

    /// Whether a text is kept, and not only passed over.
    fn keeps(&self, field: Field) -> bool {
        match field {
            Field::DatabaseName | Field::ServerVersion | Field::DumpVersion | Field::Description => true,
            Field::Tag | Field::Namespace => self.entry.has_data || self.contents.is_some(),
            Field::Owner | Field::Dependency => self.contents.is_some(),
            Field::Definition => self.entry.description == "ENCODING" || self.definition_limit() > 0,
            Field::CopyStatement => self.room > 0 && self.entry.has_data,
            _ => false,
        }
    }

    /// How much is kept of the definition of an entry, where the table of contents is asked for.
    fn definition_limit(&self) -> usize {
        self.contents.as_ref().map_or(0, |kept| kept.definition_limit(&self.entry.description, &self.entry.tag))
    }

    fn text_length(&mut self, field: Field, bytes: &[u8]) -> Result<(), Failure> {
        let length = self.int(bytes)?;
        self.text.clear();
        if length < 0 {
            self.end_text(field, true);
            return Ok(());
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if field == Field::CopyStatement && length > self.room {
            self.room = 0;
        }
        let is_name = match field {
            Field::CopyStatement => false,
            Field::Definition => self.entry.description == "ENCODING",
            _ => self.keeps(field),
        };
        // A function's has its arguments.
        let name_limit = if field == Field::Tag { TAG_LIMIT } else { NAME_LIMIT };
        if field == Field::Definition {
            self.entry.cut = length > self.definition_limit();
        }
        if length > TEXT_LIMIT || (length > name_limit && is_name) {
            return Err(self.broken(format_args!("it is damaged: a text of {length} bytes")));
        }
        if length == 0 {
            self.end_text(field, false);
            return Ok(());
        }
        self.state = State::Text(field, length);
        Ok(())
    }

    fn end_text(&mut self, field: Field, absent: bool) {
        let text = String::from_utf8_lossy(&self.text).into_owned();
        self.text.clear();
        self.state = match field {
            Field::DatabaseName => {
                self.properties.insert("archiveDatabase".to_owned(), text);
                State::TextLength(Field::ServerVersion)
            }
            Field::ServerVersion => {
                self.properties.insert("archiveServerVersion".to_owned(), text);
                State::TextLength(Field::DumpVersion)
            }
            Field::DumpVersion => {
                self.properties.insert("archiveDumpVersion".to_owned(), text);
                State::EntryCount
            }
            Field::TableOid => State::TextLength(Field::Oid),
            Field::Oid => State::TextLength(Field::Tag),
            Field::Tag => {
                self.entry.tag = text;
                State::TextLength(Field::Description)
            }
            Field::Description => {
                self.entry.description = text;
                State::Section
            }
            Field::Definition => {
                if self.entry.description == "ENCODING"
                    && let Some(encoding) = text.split('\'').nth(1)
                {
                    self.properties.insert("archiveEncoding".to_owned(), encoding.to_owned());
                }
                if let Some(kept) = &mut self.contents {
                    let mut text = text;
                    if matches!(self.entry.description.as_str(), "FUNCTION" | "PROCEDURE")
                        && let Some(body) = text.find("\n    AS ")
                    {
                        text.truncate(body);
                    }
                    kept.take(text.len());
                    self.entry.definition = text;
                }
                State::TextLength(Field::DropStatement)
            }
            Field::DropStatement => State::TextLength(Field::CopyStatement),
            Field::CopyStatement => {
                self.room = self.room.saturating_sub(text.len());
                self.entry.copy = (!text.is_empty()).then(|| text.into_boxed_str());
                State::TextLength(Field::Namespace)
            }
            Field::Namespace => {
                self.entry.namespace = text;
                State::TextLength(Field::Tablespace)
            }
            Field::Tablespace if self.version >= (1, 14) => State::TextLength(Field::AccessMethod),
            Field::AccessMethod if self.version >= (1, 16) => State::RelKind,
            Field::Tablespace | Field::AccessMethod => State::TextLength(Field::Owner),
            Field::Owner => {
                self.entry.owner = text;
                State::TextLength(Field::WithOids)
            }
            Field::Dependency if absent => State::Offset,
            Field::WithOids => State::TextLength(Field::Dependency),
            Field::Dependency => {
                self.entry.dependencies.extend(text.parse::<i64>());
                State::TextLength(Field::Dependency)
            }
        };
    }

    fn end_entry(&mut self, disposition: u8) -> Result<(), Failure> {
        // 1: has data, place not known; 2: has data, place known; 3: has none.
        let expected = if self.entry.has_data { 1..=2 } else { 3..=3 };
        if !expected.contains(&disposition) {
            return Err(self.broken("it is damaged: an entry contradicts itself on whether it has data"));
        }
        let entry = std::mem::take(&mut self.entry);
        if let Some(kept) = &mut self.contents {
            kept.push(&entry);
        }
        if entry.has_data {
            if self.data.len() >= TABLE_LIMIT {
                return Err(self.broken(format_args!("more than {TABLE_LIMIT} tables")));
            }
            let kind = match entry.description.as_str() {
                "TABLE DATA" => Kind::Table(TableName::new(entry.namespace, entry.tag)),
                "BLOBS" => Kind::LargeObjects,
                _ => Kind::Other(format!("{} {}", entry.description, entry.tag)),
            };
            self.data.push(Data { id: entry.id, kind, copy: entry.copy, rows: 0 });
        }
        self.entries_left -= 1;
        self.state = if self.entries_left == 0 { State::BlockType } else { State::DumpId };
        Ok(())
    }

    fn block_type(&mut self, block_type: u8) -> Result<(), Failure> {
        let Some(data) = self.data.get(self.next) else {
            return Err(self.broken("there is something after its end"));
        };
        let large_objects = matches!(data.kind, Kind::LargeObjects);
        let expected = if large_objects { 3 } else { 1 };
        if block_type != expected {
            return Err(self.broken(format_args!("it is damaged before {}", data.kind)));
        }
        self.block = Block {
            large_objects,
            copy: matches!(data.kind, Kind::Table(_)),
            tail: u64::from(b'\n'),
            ..Block::default()
        };
        self.state = State::BlockId;
        Ok(())
    }

    fn block_id(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let id = self.int(bytes)?;
        if self.data.get(self.next).is_none_or(|data| data.id != id) {
            return Err(self.broken(format_args!("it is damaged: the data of entry {id} is not where it belongs")));
        }
        self.state = if self.block.large_objects { State::LargeObject } else { State::ChunkLength };
        Ok(())
    }

    fn chunk_length(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let length = self.int(bytes)?;
        if length < 0 {
            return Err(self.broken("it is damaged: a piece of data has a negative length"));
        }
        self.state = if length > 0 {
            State::Chunk(usize::try_from(length).unwrap_or(usize::MAX))
        } else if self.block.large_objects {
            State::LargeObject
        } else {
            self.end_block()?;
            State::BlockType
        };
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), Failure> {
        let index = self.next;
        if self.block.copy {
            let end = COPY_END.iter().fold(u64::from(b'\n'), |tail, byte| tail << 8 | u64::from(*byte));
            if self.block.tail & 0xffff_ffff_ffff != end {
                let name = self.data.get(index).map(|data| data.kind.to_string()).unwrap_or_default();
                return Err(self.broken(format_args!("the rows of {name} do not end with their end marker")));
            }
        }
        let rows = self.block.newlines.saturating_sub(3);
        if let Some(data) = self.data.get_mut(index) {
            data.rows = rows;
        }
        self.next += 1;
        Ok(())
    }

    /// Takes chunks of rows for as long as whole fields are at hand: the hot loop, which sees every byte.
    fn rows<'a>(&mut self, left: usize, bytes: &'a [u8], visit: &mut impl FnMut(Part<'_>)) -> &'a [u8] {
        let (now, mut rest) = bytes.split_at(left.min(bytes.len()));
        let copy = self.block.copy;
        self.block.see(now);
        visit(if copy { Part::Rows(now) } else { Part::Frame(now) });
        if now.len() < left {
            self.state = State::Chunk(left - now.len());
            self.offset += now.len() as u64;
            return rest;
        }
        self.state = State::ChunkLength;
        // An old pg_dump writes each row as a chunk of its own: whole ones are taken without a change of state.
        while let Some((&[0, a, b, c, d], more)) = rest.split_first_chunk::<INT>() {
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            let Some((chunk, more)) = more.split_at_checked(length).filter(|_| length > 0) else { break };
            self.block.see(chunk);
            visit(if copy { Part::Rows(chunk) } else { Part::Frame(&rest[..INT + length]) });
            rest = more;
        }
        self.offset += (bytes.len() - rest.len()) as u64;
        rest
    }
}

impl Block {
    fn see(&mut self, bytes: &[u8]) {
        if !self.copy {
            return;
        }
        self.newlines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        if let Some(last) = bytes.last_chunk() {
            self.tail = u64::from_be_bytes(*last);
        } else {
            self.tail = bytes.iter().fold(self.tail, |tail, byte| tail << 8 | u64::from(*byte));
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table(name) => write!(f, "{name}"),
            Self::LargeObjects => f.write_str("the large objects"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl PgDumpReader {
    /// Reads on and shows each stretch of the archive to `visit`, in order.
    fn walk(&mut self, mut bytes: &[u8], visit: &mut impl FnMut(Part<'_>)) -> Result<(), Failure> {
        while !bytes.is_empty() {
            match self.state {
                State::Chunk(left) => bytes = self.rows(left, bytes, visit),
                State::Text(field, left) => {
                    let (now, rest) = bytes.split_at(left.min(bytes.len()));
                    if self.keeps(field) {
                        let limit = match field {
                            Field::Definition if self.entry.description != "ENCODING" => self.definition_limit(),
                            _ => usize::MAX,
                        };
                        let room = limit.saturating_sub(self.text.len());
                        self.text.extend_from_slice(&now[..room.min(now.len())]);
                    }
                    visit(Part::Text(now));
                    self.offset += now.len() as u64;
                    bytes = rest;
                    if now.len() == left {
                        self.end_text(field, false);
                    } else {
                        self.state = State::Text(field, left - now.len());
                    }
                }
                before => {
                    let need = self.need();
                    let (now, rest) = bytes.split_at((need - self.have).min(bytes.len()));
                    self.fixed[self.have..self.have + now.len()].copy_from_slice(now);
                    self.have += now.len();
                    self.offset += now.len() as u64;
                    bytes = rest;
                    let of_rows = before == State::ChunkLength && self.block.copy;
                    let whole = matches!(before, State::EntryCount | State::DumpId | State::TextLength(_));
                    if !of_rows && !whole {
                        visit(Part::Frame(now));
                    }
                    if self.have == need {
                        self.have = 0;
                        let fixed = self.fixed;
                        let bytes = &fixed[..need];
                        match before {
                            State::EntryCount => visit(Part::EntryCount(bytes)),
                            State::DumpId => visit(Part::EntryId(bytes)),
                            State::TextLength(field) => visit(Part::Length(field, bytes)),
                            _ => {}
                        }
                        self.step(bytes)?;
                        if before == State::Offset {
                            visit(Part::EndOfEntry);
                        }
                        if of_rows && self.state == State::BlockType {
                            visit(Part::EndOfRows);
                        } else if before == State::BlockId
                            && let Some(Data { kind: Kind::Table(_), copy, .. }) = self.data.get(self.next)
                        {
                            let encoding = self.properties.get("archiveEncoding").map(String::as_str);
                            visit(Part::Table { copy: copy.as_deref(), encoding });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Inspect for PgDumpReader {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.walk(bytes, &mut |_| ())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        if self.state != State::BlockType || self.have > 0 {
            let place = match self.state {
                State::BlockId | State::LargeObject | State::ChunkLength | State::Chunk(_) => {
                    self.data.get(self.next).map_or_else(String::new, |data| format!("the data of {}", data.kind))
                }
                State::Prologue | State::Compression | State::Created(_) => "its header".to_owned(),
                _ => "its table of contents".to_owned(),
            };
            return Err(self.broken(format_args!("it is cut off: it ends inside {place}")));
        }
        if let Some(missing) = self.data.get(self.next) {
            return Err(self.broken(format_args!("it is cut off: it ends before the data of {}", missing.kind)));
        }
        let items = self.data.drain(..).filter_map(|data| match data.kind {
            Kind::Table(name) => {
                Some(ItemCount { name: name.to_string(), count: i64::try_from(data.rows).unwrap_or(i64::MAX) })
            }
            _ => None,
        });
        let items = items.collect();
        let mut properties = std::mem::take(&mut self.properties);
        properties.insert("largeObjects".to_owned(), self.large_objects.to_string());
        Ok(Inspection { items, properties, ..Inspection::default() })
    }
}

pub mod contents;
pub mod lanes;
pub mod rewrite;

#[cfg(test)]
mod tests;

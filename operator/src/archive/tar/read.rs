//! The strict reader: fed by bytes, it gives entries and their contents, and refuses what it does not understand in full. Pure.
//!
//! It reads what this version writes and what GNU tar writes as `--format=pax` or `--format=gnu`. Memory is bounded by
//! [`MAX_PAX_BYTES`] and [`super::MAX_EXTENTS`], whatever a header claims.

use super::pax;
use super::sparse::{Extent, MapReader, data_bytes};
use super::{BLOCK, Entry, Error, HOLES_AS_ZEROS, Kind, MAX_NAME_BYTES, MAX_PAX_BYTES, Mtime, padding, printable};

/// What comes next in an archive.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A member begins. For a file its data and [`Event::FileEnd`] follow.
    Entry(Box<Entry>),
    /// Bytes of the file, at this place of it. Holes are left out.
    Data {
        /// Where in the file.
        offset: u64,
        /// What stands there; never empty.
        bytes: &'a [u8],
    },
    /// The file is over.
    FileEnd,
}

/// Reads an archive as its bytes come. After an error it must not be fed again.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// Bytes taken so far.
    offset: u64,
    block: Vec<u8>,
    globals: Attributes,
    pending: Attributes,
}

#[derive(Debug)]
enum State {
    /// A header, or the first block of the end.
    Header,
    /// What an `x`, `g`, `L` or `K` header announces.
    Words { kind: u8, size: u64, words: Vec<u8> },
    /// The map of a sparse file whose header announced this many bytes.
    Map { entry: Box<Entry>, reader: MapReader, stored: u64 },
    /// Data of a file: what is left of it, extent by extent.
    Data { extents: Vec<Extent>, next: usize, within: u64, padding: usize },
    /// Zeros, and then another state.
    Zeros { left: usize, then: Then },
    /// The second block of the end is missing yet.
    HalfEnded,
    /// Nothing but zeros may follow.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Header,
    FileEnd,
}

/// What extended headers say of the next member, or of all.
#[derive(Clone, Debug, Default)]
struct Attributes {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    mtime: Option<Mtime>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_major: Option<u64>,
    sparse_minor: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    holes_as_zeros: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// At the beginning of an archive.
    pub fn new() -> Self {
        Self {
            state: State::Header,
            offset: 0,
            block: Vec::with_capacity(BLOCK),
            globals: Attributes::default(),
            pending: Attributes::default(),
        }
    }

    /// Takes from the front of `input` up to the next event. None: all of `input` was taken and more is needed.
    ///
    /// # Errors
    /// Where the stream is seen to be damaged, or to hold what this reader does not know.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        loop {
            match self.step(input) {
                Ok(Step::Event(event)) => return Ok(Some(event)),
                Ok(Step::Again) => {}
                Ok(Step::NeedsMore) => return Ok(None),
                Err(why) => return Err(Error::Damaged { offset: self.offset, why }),
            }
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// Where it ended before the archive did.
    pub fn finish(&self) -> Result<(), Error> {
        match &self.state {
            State::Ended => Ok(()),
            _ => Err(Error::Cut { offset: self.offset }),
        }
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, String> {
        match &mut self.state {
            State::Header => self.header(input),
            State::Words { kind, size, words } => {
                let missing = usize::try_from(*size).map_err(|e| e.to_string())? - words.len();
                let taken = take(input, missing, &mut self.offset);
                words.extend_from_slice(taken);
                if taken.len() < missing {
                    return Ok(Step::NeedsMore);
                }
                let (kind, words, left) = (*kind, std::mem::take(words), padding(*size));
                self.state = State::Zeros { left, then: Then::Header };
                self.words(kind, &words)?;
                Ok(Step::Again)
            }
            State::Map { entry, reader, stored } => {
                let mut over = false;
                while !over {
                    let &[byte] = take(input, 1, &mut self.offset) else { return Ok(Step::NeedsMore) };
                    over = reader.feed(byte)?;
                }
                let size = match entry.kind {
                    Kind::File { size, .. } => size,
                    _ => 0,
                };
                let reader = std::mem::replace(reader, MapReader::new(0));
                let (map_bytes, extents) = reader.finish();
                if map_bytes.checked_add(data_bytes(&extents)) != Some(*stored) {
                    return Err("a sparse file has more or less data than its map says".to_owned());
                }
                let mut entry = std::mem::take(entry);
                entry.kind = Kind::File { size, data: Some(extents.clone()) };
                let padding = padding(*stored);
                self.state = State::Data { extents, next: 0, within: 0, padding };
                Ok(Step::Event(Event::Entry(entry)))
            }
            State::Data { extents, next, within, padding } => {
                let Some(extent) = extents.get(*next) else {
                    self.state = State::Zeros { left: *padding, then: Then::FileEnd };
                    return Ok(Step::Again);
                };
                let left = usize::try_from(extent.length - *within).unwrap_or(usize::MAX);
                let offset = extent.offset + *within;
                let bytes = take(input, left, &mut self.offset);
                *within += bytes.len() as u64;
                if *within == extent.length {
                    (*next, *within) = (*next + 1, 0);
                }
                Ok(if bytes.is_empty() { Step::NeedsMore } else { Step::Event(Event::Data { offset, bytes }) })
            }
            State::Zeros { left, then } => {
                let taken = take(input, *left, &mut self.offset);
                if taken.iter().any(|b| *b != 0) {
                    return Err("there is something where only zeros may stand, behind a content".to_owned());
                }
                *left -= taken.len();
                if *left > 0 {
                    return Ok(Step::NeedsMore);
                }
                let then = *then;
                self.state = State::Header;
                Ok(if then == Then::FileEnd { Step::Event(Event::FileEnd) } else { Step::Again })
            }
            State::HalfEnded => {
                if !self.block(input) {
                    return Ok(Step::NeedsMore);
                }
                if self.block.iter().any(|b| *b != 0) {
                    return Err("one block of zeros stands alone, where an archive ends with two".to_owned());
                }
                self.block.clear();
                self.state = State::Ended;
                Ok(Step::Again)
            }
            State::Ended => {
                let rest = take(input, usize::MAX, &mut self.offset);
                if rest.iter().any(|b| *b != 0) {
                    return Err("there is something behind the end of the archive".to_owned());
                }
                Ok(Step::NeedsMore)
            }
        }
    }

    /// Fills the block that is being read; true once it is whole.
    fn block(&mut self, input: &mut &[u8]) -> bool {
        let taken = take(input, BLOCK - self.block.len(), &mut self.offset);
        self.block.extend_from_slice(taken);
        self.block.len() == BLOCK
    }

    fn header<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, String> {
        if !self.block(input) {
            return Ok(Step::NeedsMore);
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        if block.iter().all(|b| *b == 0) {
            if self.pending.is_some() {
                return Err("an extended header belongs to no member".to_owned());
            }
            self.state = State::HalfEnded;
            return Ok(Step::Again);
        }
        confirm(&block)?;
        let kind = block[156];
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            let size = number(&block[124..136])?;
            let limit = if matches!(kind, b'x' | b'g') { MAX_PAX_BYTES } else { MAX_NAME_BYTES as u64 };
            if size > limit {
                return Err(format!("an extended header claims {size} bytes, and more than {limit} are not taken"));
            }
            self.state = State::Words { kind, size, words: Vec::new() };
            return Ok(Step::Again);
        }
        let (entry, stored) = self.entry(&block)?;
        let entry = Box::new(entry);
        match &entry.kind {
            Kind::File { size, data: Some(_) } => {
                let reader = MapReader::new(*size);
                self.state = State::Map { entry, reader, stored };
                Ok(Step::Again)
            }
            Kind::File { size, .. } => {
                let extents = if *size == 0 { Vec::new() } else { vec![Extent { offset: 0, length: *size }] };
                self.state = State::Data { extents, next: 0, within: 0, padding: padding(*size) };
                Ok(Step::Event(Event::Entry(entry)))
            }
            _ => Ok(Step::Event(Event::Entry(entry))),
        }
    }

    /// The member that a header tells of, and the bytes that follow it.
    fn entry(&mut self, block: &[u8]) -> Result<(Entry, u64), String> {
        let said = std::mem::take(&mut self.pending).over(&self.globals);
        let is_sparse = match (said.sparse_major, said.sparse_minor) {
            (None, None) => false,
            (Some(1), Some(0)) => true,
            _ => return Err("a sparse file in another format than GNU's 1.0".to_owned()),
        };
        let plain_name = || {
            let (prefix, name) = (text(&block[345..500]), text(&block[..100]));
            // GNU's own format has times where the prefix stands.
            if prefix.is_empty() || &block[257..263] != b"ustar\0" { name } else { [&prefix[..], b"/", &name].concat() }
        };
        let mut path = match (&said.sparse_name, &said.path) {
            (Some(name), _) if is_sparse => name.clone(),
            (_, Some(path)) => path.clone(),
            _ => plain_name(),
        };
        let names_folder = path.ends_with(b"/");
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        let link = said.link.clone().unwrap_or_else(|| text(&block[157..257]));
        for name in [&path, &link] {
            if name.contains(&0) {
                return Err(format!("a name holds a NUL: {}", printable(name)));
            }
        }
        if path.is_empty() {
            return Err("a member has no name".to_owned());
        }
        let stored = match said.size {
            Some(size) => size,
            None => number(&block[124..136])?,
        };
        let kind = match block[156] {
            b'0' | 0 | b'7' if names_folder => Kind::Folder,
            b'0' | 0 | b'7' if is_sparse => {
                let size = said.sparse_size.ok_or("a sparse file does not say how large it is")?;
                Kind::File { size, data: Some(Vec::new()) }
            }
            b'0' | 0 | b'7' => Kind::File { size: stored, data: None },
            b'1' | b'2' if link.is_empty() => return Err(format!("{} links to nothing", printable(&path))),
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            device @ (b'3' | b'4') => Kind::Device {
                block: device == b'4',
                major: u32::try_from(number(&block[329..337])?).map_err(|_| "a device number is too large")?,
                minor: u32::try_from(number(&block[337..345])?).map_err(|_| "a device number is too large")?,
            },
            other => {
                return Err(format!("{}: a member of unknown type {:?}", printable(&path), char::from(other)));
            }
        };
        if stored != 0 && !matches!(kind, Kind::File { .. }) {
            return Err(format!("{}: a {} with a content", printable(&path), kind.word()));
        }
        let user = said.user.clone().unwrap_or_else(|| text(&block[265..297]));
        let group = said.group.clone().unwrap_or_else(|| text(&block[297..329]));
        let entry = Entry {
            path,
            holes_as_zeros: said.holes_as_zeros && matches!(kind, Kind::File { data: None, .. }),
            kind,
            mode: u32::try_from(number(&block[100..108])? & 0o7777).unwrap_or(0),
            uid: said.uid.map_or_else(|| number(&block[108..116]), Ok)?,
            gid: said.gid.map_or_else(|| number(&block[116..124]), Ok)?,
            user,
            group,
            mtime: said.mtime.map_or_else(|| seconds(&block[136..148]), Ok)?,
            xattrs: said.xattrs,
        };
        Ok((entry, stored))
    }

    /// What an extended header says.
    fn words(&mut self, kind: u8, words: &[u8]) -> Result<(), String> {
        match kind {
            b'L' => self.pending.path = Some(text(words)),
            b'K' => self.pending.link = Some(text(words)),
            b'g' => self.globals.read(words)?,
            _ => self.pending.read(words)?,
        }
        Ok(())
    }
}

enum Step<'a> {
    Event(Event<'a>),
    Again,
    NeedsMore,
}

impl Attributes {
    fn read(&mut self, records: &[u8]) -> Result<(), String> {
        for (keyword, value) in pax::parse(records)? {
            let decimal = || {
                std::str::from_utf8(value)
                    .ok()
                    .filter(|v| v.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|v| v.parse::<u64>().ok())
                    .ok_or_else(|| format!("the record {} is no number", printable(keyword)))
            };
            let name = || Some(value.to_vec()).filter(|v| !v.is_empty());
            match keyword {
                b"path" => self.path = name(),
                b"linkpath" => self.link = name(),
                b"uname" => self.user = name(),
                b"gname" => self.group = name(),
                b"uid" => self.uid = Some(decimal()?),
                b"gid" => self.gid = Some(decimal()?),
                b"size" => self.size = Some(decimal()?),
                b"mtime" => self.mtime = Some(fraction(value).ok_or("the record mtime is no time")?),
                b"GNU.sparse.major" => self.sparse_major = Some(decimal()?),
                b"GNU.sparse.minor" => self.sparse_minor = Some(decimal()?),
                b"GNU.sparse.name" => self.sparse_name = name(),
                b"GNU.sparse.realsize" => self.sparse_size = Some(decimal()?),
                b"comment" => self.holes_as_zeros = value == HOLES_AS_ZEROS,
                b"GNU.sparse.map" | b"GNU.sparse.numblocks" | b"GNU.sparse.offset" => {
                    return Err("a sparse file in another format than GNU's 1.0".to_owned());
                }
                // Any other keyword is one that a reader may leave alone: atime, ctime, hdrcharset (names are bytes here).
                _ => {
                    if let Some(name) = keyword.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.retain(|(n, _)| n != name);
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }

    fn is_some(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.mtime.is_some()
            || !self.xattrs.is_empty()
    }

    /// These, and what is said of all members where these say nothing.
    fn over(self, all: &Self) -> Self {
        Self {
            path: self.path.or_else(|| all.path.clone()),
            link: self.link.or_else(|| all.link.clone()),
            user: self.user.or_else(|| all.user.clone()),
            group: self.group.or_else(|| all.group.clone()),
            uid: self.uid.or(all.uid),
            gid: self.gid.or(all.gid),
            size: self.size.or(all.size),
            mtime: self.mtime.or(all.mtime),
            xattrs: if self.xattrs.is_empty() { all.xattrs.clone() } else { self.xattrs },
            sparse_major: self.sparse_major,
            sparse_minor: self.sparse_minor,
            sparse_name: self.sparse_name,
            sparse_size: self.sparse_size,
            holes_as_zeros: self.holes_as_zeros,
        }
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize, offset: &mut u64) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    *offset += taken.len() as u64;
    taken
}

/// The checksum of a header, counted over unsigned bytes as the standard has it, and its magic.
fn confirm(block: &[u8]) -> Result<(), String> {
    let said = number(&block[148..156])?;
    // The field of the checksum itself counts as eight spaces.
    let sum: u64 = block[..148].iter().chain(b"        ").chain(&block[156..]).map(|b| u64::from(*b)).sum();
    if said != sum {
        return Err("the checksum of a header is wrong".to_owned());
    }
    match &block[257..265] {
        b"ustar\x0000" | b"ustar  \0" => Ok(()),
        _ => Err("a header that is not of ustar".to_owned()),
    }
}

fn text(field: &[u8]) -> Vec<u8> {
    field.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

/// Octal digits between spaces and NULs, or GNU's binary form for what is too large for them.
fn number(field: &[u8]) -> Result<u64, String> {
    let wrong = || "a number in a header is none".to_owned();
    if field[0] & 0x80 != 0 {
        if field[0] != 0x80 {
            return Err(wrong());
        }
        return field[1..].iter().try_fold(0_u64, |n, b| Some(n.checked_mul(256)? | u64::from(*b))).ok_or_else(wrong);
    }
    let from = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let field = &field[from..];
    let to = field.iter().position(|b| !matches!(b, b'0'..=b'7')).unwrap_or(field.len());
    if field[to..].iter().any(|b| !matches!(b, b' ' | 0)) {
        return Err(wrong());
    }
    field[..to].iter().try_fold(0_u64, |n, b| n.checked_mul(8)?.checked_add(u64::from(b - b'0'))).ok_or_else(wrong)
}

/// Seconds of a plain header: in GNU's binary form they may be negative.
fn seconds(field: &[u8]) -> Result<Mtime, String> {
    let seconds = if field[0] == 0xff {
        let bytes = field[field.len() - 8..].try_into().map_err(|_| "a time in a header is none")?;
        i64::from_be_bytes(bytes)
    } else {
        i64::try_from(number(field)?).map_err(|_| "a time in a header is too large")?
    };
    Ok(Mtime { seconds, nanos: 0 })
}

/// `[-]seconds[.fraction]`, rounded down to nanoseconds.
fn fraction(value: &[u8]) -> Option<Mtime> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || ![whole, part].iter().all(|t| t.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = part.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    let finer = part.bytes().skip(9).any(|b| b != b'0');
    if !negative {
        return Some(Mtime { seconds, nanos });
    }
    let back = i64::from(nanos) + i64::from(finer);
    let (seconds, nanos) = if back == 0 { (-seconds, 0) } else { (-seconds - 1, 1_000_000_000 - back) };
    Some(Mtime { seconds, nanos: u32::try_from(nanos).ok()? })
}

//! The list of a volume's entries that is stored beside its tar: one JSON object a line, in the order of the tar. Pure.
//!
//! ```json
//! {"path":"photos/a.jpg","type":"file","size":4096,"mode":"0644","mtime":"1700000000.25","uid":1000,"gid":1000,"sha256":"…"}
//! ```
//! A line is a function of the tar's member and its content, so that a restore makes the lines anew from what it wrote and compares.
//! Names are escaped as [`printable`](super::tar::printable) does. `target` stands in links, `xattrs` (a SHA-256 over names and
//! values) where there are extended attributes. `sha256` is that of the content as a program reads it; with `"sha256Of":"data"` the
//! holes of a sparse file are left out, because it has more than [`HASHED_HOLES_LIMIT`] bytes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::tar::{Entry, Kind, printable};
use crate::hex::hex;

/// A sparse file larger than this is hashed without its holes: zeros by the terabyte would take hours.
pub const HASHED_HOLES_LIMIT: u64 = 16 << 30;

/// A line longer than this is none.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// What a line says, for readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its name, escaped; `.` is the root.
    pub path: String,
    /// `file`, `folder`, `symlink`, `hardlink`, `fifo` or `device`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes of a file, holes included; 0 for everything else.
    pub size: u64,
    /// Bytes that it takes, where it has holes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<u64>,
    /// Four octal digits.
    pub mode: String,
    /// Seconds since 1970, with a fraction.
    pub mtime: String,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// What a link points to, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// SHA-256 of names and values of the extended attributes, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xattrs: Option<String>,
    /// SHA-256 of a file's content, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// `data`, where the holes are not hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_of: Option<String>,
}

impl Line {
    /// The line of a member, with the SHA-256 of its content where it is a file.
    pub fn of(entry: &Entry, sha256: Option<[u8; 32]>) -> Self {
        let (size, data) = match &entry.kind {
            Kind::File { size, data } => (*size, data.as_ref().map(|d| d.iter().map(|e| e.length).sum())),
            _ => (0, None),
        };
        Self {
            path: if entry.path.is_empty() { ".".to_owned() } else { printable(&entry.path) },
            kind: entry.kind.word().to_owned(),
            size,
            data,
            mode: format!("{:04o}", entry.mode & 0o7777),
            mtime: entry.mtime.to_string(),
            uid: entry.uid,
            gid: entry.gid,
            target: match &entry.kind {
                Kind::Symlink(target) | Kind::HardLink(target) => Some(printable(target)),
                _ => None,
            },
            xattrs: (!entry.xattrs.is_empty()).then(|| hex(&attributes_hash(entry))),
            sha256: sha256.map(|hash| hex(&hash)),
            sha256_of: (data.is_some() && !hashes_holes(&entry.kind)).then(|| "data".to_owned()),
        }
    }

    /// The line as it is stored, its end included.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings and numbers can always be written.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a line, without its end.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| e.to_string())
    }

    /// The name as bytes; the root's is empty.
    ///
    /// # Errors
    /// Where it is not escaped as it should be.
    pub fn path_bytes(&self) -> Result<Vec<u8>, String> {
        if self.path == "." { Ok(Vec::new()) } else { unescape(&self.path) }
    }

    /// The target of a link as bytes.
    ///
    /// # Errors
    /// Where it is not escaped as it should be.
    pub fn target_bytes(&self) -> Result<Option<Vec<u8>>, String> {
        self.target.as_deref().map(unescape).transpose()
    }
}

/// Whether the holes of this file are part of its SHA-256.
pub fn hashes_holes(kind: &Kind) -> bool {
    matches!(kind, Kind::File { size, .. } if *size <= HASHED_HOLES_LIMIT)
}

/// Hashes a file's content as it comes, extent by extent.
#[derive(Clone, Debug)]
pub struct ContentHash {
    sha256: Sha256,
    with_holes: bool,
    size: u64,
    at: u64,
}

impl ContentHash {
    /// Of a member.
    pub fn new(kind: &Kind) -> Self {
        let size = match kind {
            Kind::File { size, .. } => *size,
            _ => 0,
        };
        Self { sha256: Sha256::new(), with_holes: hashes_holes(kind), size, at: 0 }
    }

    /// The bytes at this place of the file. What lies between the last ones and these is a hole.
    pub fn update(&mut self, offset: u64, bytes: &[u8]) {
        self.hole_to(offset);
        self.sha256.update(bytes);
        self.at = offset + bytes.len() as u64;
    }

    /// The hash, at the end of the file.
    pub fn finish(mut self) -> [u8; 32] {
        self.hole_to(self.size);
        self.sha256.finalize().into()
    }

    fn hole_to(&mut self, offset: u64) {
        const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
        while self.with_holes && self.at < offset {
            let length = (offset - self.at).min(ZEROS.len() as u64);
            self.sha256.update(&ZEROS[..usize::try_from(length).unwrap_or(ZEROS.len())]);
            self.at += length;
        }
    }
}

/// Sixty-four bits that tell one line from another.
pub fn fingerprint(line: &[u8]) -> u64 {
    let hash: [u8; 32] = Sha256::digest(line).into();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(first)
}

fn attributes_hash(entry: &Entry) -> [u8; 32] {
    let mut xattrs: Vec<&(Vec<u8>, Vec<u8>)> = entry.xattrs.iter().collect();
    xattrs.sort();
    let mut sha256 = Sha256::new();
    for (name, value) in xattrs {
        sha256.update((name.len() as u64).to_le_bytes());
        sha256.update(name);
        sha256.update((value.len() as u64).to_le_bytes());
        sha256.update(value);
    }
    sha256.finalize().into()
}

/// The bytes that [`printable`] made this text of.
///
/// # Errors
/// Where it made no such text.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("{text:?} is no escaped name");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        match rest.next().ok_or_else(wrong)? {
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let mut digit = || rest.next().and_then(|d| char::from(*d).to_digit(16)).ok_or_else(wrong);
                let value = digit()? * 16 + digit()?;
                bytes.push(u8::try_from(value).map_err(|_| wrong())?);
            }
            _ => return Err(wrong()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tar::{BLOCK, END, Event, Extent, Mtime, Reader, header};
    use super::*;

    /// The lines that a tar gives, if it can be read.
    fn lines(tar: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let (mut reader, mut lines) = (Reader::new(), Vec::new());
        let mut open: Option<(Entry, ContentHash)> = None;
        let mut input = tar;
        while let Some(event) = reader.next(&mut input).map_err(|e| e.to_string())? {
            match event {
                Event::Entry(entry) if matches!(entry.kind, Kind::File { .. }) => {
                    let hash = ContentHash::new(&entry.kind);
                    open = Some((*entry, hash));
                }
                Event::Entry(entry) => lines.push(Line::of(&entry, None).to_bytes()),
                Event::Data { offset, bytes } => open.as_mut().unwrap().1.update(offset, bytes),
                Event::FileEnd => {
                    let (entry, hash) = open.take().unwrap();
                    lines.push(Line::of(&entry, Some(hash.finish())).to_bytes());
                }
            }
        }
        reader.finish().map_err(|e| e.to_string())?;
        Ok(lines)
    }

    type Members = Vec<(Entry, Vec<u8>)>;

    fn members(tar: &[u8]) -> Members {
        let (mut reader, mut members, mut input) = (Reader::new(), Members::new(), tar);
        while let Some(event) = reader.next(&mut input).unwrap() {
            match event {
                Event::Entry(entry) => members.push((*entry, Vec::new())),
                Event::Data { bytes, .. } => members.last_mut().unwrap().1.extend_from_slice(bytes),
                Event::FileEnd => {}
            }
        }
        members
    }

    fn tar() -> Vec<u8> {
        let base = Entry {
            mode: 0o640,
            uid: 1000,
            gid: 3_000_000,
            mtime: Mtime { seconds: 1_700_000_000, nanos: 5 },
            ..Entry::default()
        };
        let sparse = Kind::File { size: 9000, data: Some(vec![Extent { offset: 4096, length: 512 }]) };
        let xattrs = vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), vec![0, 255])];
        let members = [
            (Entry { path: b".".to_vec(), ..base.clone() }, vec![]),
            (
                Entry { path: b"a/\xff".to_vec(), kind: Kind::File { size: 700, data: None }, xattrs, ..base.clone() },
                vec![3; 700],
            ),
            (Entry { path: b"n".repeat(200), kind: sparse, ..base.clone() }, vec![7; 512]),
            (Entry { path: b"l".to_vec(), kind: Kind::Symlink(b"t".repeat(150)), ..base.clone() }, vec![]),
            (Entry { path: b"h".to_vec(), kind: Kind::HardLink(b"a/\xff".to_vec()), ..base }, vec![]),
        ];
        let mut bytes = Vec::new();
        for (entry, content) in members {
            header(&entry, &mut bytes).unwrap();
            bytes.extend_from_slice(&content);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.extend_from_slice(&END);
        bytes
    }

    #[test]
    fn a_flipped_bit_in_any_byte_is_found_by_the_reader_or_by_the_list_or_changes_nothing() {
        let tar = tar();
        let (expected, whole) = (lines(&tar).unwrap(), members(&tar));
        let mut found = 0;
        for at in 0..tar.len() {
            let mut damaged = tar.clone();
            damaged[at] ^= 1 << (at * 5 % 8);
            if lines(&damaged).is_ok_and(|lines| lines == expected) {
                assert_eq!(members(&damaged), whole, "byte {at}");
            } else {
                found += 1;
            }
        }
        // What changes nothing is a space for a zero, or a record that repeats what the header says.
        assert!(found > tar.len() * 95 / 100, "{found} of {}", tar.len());
    }

    #[test]
    fn a_tar_that_is_cut_off_anywhere_is_found() {
        let tar = tar();
        assert!((0..tar.len()).all(|length| lines(&tar[..length]).is_err()));
    }

    #[test]
    fn holes_are_hashed_as_the_zeros_they_are_read_as() {
        let kind = Kind::File { size: 100_000, data: Some(vec![Extent { offset: 40_000, length: 512 }]) };
        let mut hash = ContentHash::new(&kind);
        hash.update(40_000, &[1; 512]);
        let mut plain = vec![0; 100_000];
        plain[40_000..40_512].fill(1);
        assert_eq!(hash.finish(), <[u8; 32]>::from(Sha256::digest(&plain)));

        let huge = Kind::File { size: 1 << 50, data: Some(vec![Extent { offset: 1 << 49, length: 512 }]) };
        let mut hash = ContentHash::new(&huge);
        hash.update(1 << 49, &[1; 512]);
        assert_eq!(hash.finish(), <[u8; 32]>::from(Sha256::digest([1; 512])));
        let entry = Entry { path: b"huge".to_vec(), kind: huge, ..Entry::default() };
        assert_eq!(Line::of(&entry, Some([0; 32])).sha256_of.as_deref(), Some("data"));
    }

    #[test]
    fn a_line_reads_as_documented() {
        let entry = Entry {
            path: b"photos/\xff.jpg".to_vec(),
            kind: Kind::File { size: 3, data: None },
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            mtime: Mtime { seconds: 1_700_000_000, nanos: 250_000_000 },
            ..Entry::default()
        };
        let line = String::from_utf8(Line::of(&entry, Some([0xab; 32])).to_bytes()).unwrap();
        let hash = "ab".repeat(32);
        assert_eq!(
            line,
            format!(
                r#"{{"path":"photos/\\xff.jpg","type":"file","size":3,"mode":"0644","mtime":"1700000000.25","uid":1000,"gid":1000,"sha256":"{hash}"}}{}"#,
                "\n"
            )
        );
    }

    proptest! {
        #[test]
        fn names_come_back_as_they_were(name in prop::collection::vec(any::<u8>(), 1..40)) {
            let entry = Entry { path: name.clone(), kind: Kind::Symlink(name.clone()), ..Entry::default() };
            let bytes = Line::of(&entry, None).to_bytes();
            let line = Line::parse(bytes.strip_suffix(b"\n").unwrap()).unwrap();
            let expected = if name == b"." { Vec::new() } else { name.clone() };
            prop_assert_eq!(line.path_bytes().unwrap(), expected);
            prop_assert_eq!(line.target_bytes().unwrap(), Some(name));
        }

        #[test]
        fn no_bytes_make_a_line_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,40}") {
            let _ = Line::parse(&bytes);
            let _ = unescape(&text);
        }
    }
}

//! What a restore must come to: the list of entries of the backup, boiled down to a few bytes an entry. Pure.

use crate::task::Globs;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::archive::file_index::{Line, MAX_LINE_BYTES, fingerprint};

/// At most this many fingerprints are kept; of more entries several share one. 8 MiB.
const MAX_FINGERPRINTS: u64 = 1 << 20;

/// What must come out of the archive.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Sums of the fingerprints of as many entries as share one; what is restored is subtracted.
    open: Vec<AtomicU64>,
    /// Entries that share a fingerprint.
    group: u64,
    /// All entries.
    pub(super) entries: u64,
    /// Entries that are meant.
    pub(super) chosen: u64,
    /// Bytes that the files meant take, holes left out.
    pub(super) bytes: u64,
    /// First names of files whose content only a further, chosen name needs, with that name.
    pub(super) lent: HashMap<Vec<u8>, Vec<u8>>,
}

impl Expected {
    /// The entry of this number has been restored, with this line to show for it. False: that is another one than the list has.
    pub(super) fn tick(&self, number: u64, line: &[u8]) -> bool {
        let Some(open) = self.place(number) else { return false };
        let fingerprint = fingerprint(line);
        let before = open.fetch_sub(fingerprint, Ordering::Relaxed);
        self.group > 1 || before == fingerprint
    }

    /// Whether every entry of the list has been restored as it is listed; else about where not.
    pub(super) fn confirm(&self, restored: u64) -> Result<(), String> {
        if restored != self.entries {
            return Err(format!("{restored} entries were in the archive and {} are listed", self.entries));
        }
        match self.open.iter().position(|sum| sum.load(Ordering::Relaxed) != 0) {
            None => Ok(()),
            Some(at) => {
                let first = at as u64 * self.group + 1;
                Err(format!("among entries {first} to {} one is not as it is listed", first + self.group - 1))
            }
        }
    }

    fn place(&self, number: u64) -> Option<&AtomicU64> {
        self.open.get(usize::try_from(number / self.group.max(1)).ok()?)
    }
}

/// Takes a list of entries as it is fetched, line by line.
pub(super) struct Listed<T> {
    line: Vec<u8>,
    take: T,
}

/// What becomes of the lines of a list.
pub(super) trait Take: Send {
    /// The next line, with its end.
    ///
    /// # Errors
    /// Where it is none.
    fn line(&mut self, with_end: &[u8]) -> Result<(), String>;

    /// That was the last one.
    fn end(&mut self);
}

/// Boils a list down. What it gathered is worth something only once the fetch has succeeded.
pub(super) struct Boiled {
    chosen: Option<Globs>,
    expected: Expected,
    result: Arc<Mutex<Option<Expected>>>,
}

impl Boiled {
    /// For a list of about this many entries, of which the chosen ones are meant. The result is there after the last byte.
    pub(super) fn new(entries: u64, chosen: Option<Globs>, result: Arc<Mutex<Option<Expected>>>) -> Self {
        let expected = Expected { group: entries.div_ceil(MAX_FINGERPRINTS).max(1), ..Expected::default() };
        Self { chosen, expected, result }
    }
}

impl Take for Boiled {
    fn line(&mut self, with_end: &[u8]) -> Result<(), String> {
        let expected = &mut self.expected;
        let number = expected.entries;
        expected.entries += 1;
        if number.is_multiple_of(expected.group) {
            expected.open.push(AtomicU64::new(0));
        }
        if let Some(open) = expected.place(number) {
            open.fetch_add(fingerprint(with_end), Ordering::Relaxed);
        }
        let line = Line::parse(with_end.strip_suffix(b"\n").unwrap_or(with_end))?;
        let path = line.path_bytes()?;
        if let Some(globs) = &self.chosen {
            if path.is_empty() || globs.matching_part(&path).is_none() {
                return Ok(());
            }
            if let Some(target) = line.target_bytes()?.filter(|_| line.kind == "hardlink")
                && globs.matching_part(&target).is_none()
            {
                expected.bytes += if expected.lent.contains_key(&target) { 0 } else { line.size };
                expected.lent.entry(target).or_insert(path);
            }
        }
        expected.chosen += 1;
        expected.bytes += line.data.unwrap_or(line.size);
        Ok(())
    }

    fn end(&mut self) {
        let expected = std::mem::take(&mut self.expected);
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(expected);
    }
}

impl<T> Listed<T> {
    pub(super) fn new(take: T) -> Self {
        Self { line: Vec::new(), take }
    }
}

impl<T: Take> Write for Listed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            self.line.extend_from_slice(&rest[..=at]);
            rest = &rest[at + 1..];
            self.take.line(&self.line).map_err(io::Error::other)?;
            self.line.clear();
        }
        self.line.extend_from_slice(rest);
        if self.line.len() > MAX_LINE_BYTES {
            return Err(io::Error::other("the list of entries has a line without an end"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            return Err(io::Error::other("the list of entries breaks off within a line"));
        }
        self.take.end();
        Ok(())
    }
}

//! Changes an archive's table of contents as it passes: leaves entries out, takes their owners away, writes their statements anew. Pure.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Field, INT, Part, PgDumpReader};

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is left out. Only for an entry without data.
    LeaveOut,
    /// It belongs to whoever restores it, or its statements are others.
    Rewrite {
        /// Without its owner.
        drop_owner: bool,
        /// Its statements instead of those in the archive.
        definition: Option<String>,
    },
}

/// Passes an archive on with the changes, by the numbers of the entries.
pub struct Rewriter<W> {
    reader: PgDumpReader,
    inner: W,
    change: Changing,
    /// Bytes of the stream before the next ones.
    offset: u64,
}

struct Changing {
    changes: BTreeMap<i64, Change>,
    /// What has been made of the archive's bytes and not been passed on.
    bytes: Vec<u8>,
    /// What becomes of the entry that passes.
    now: Option<Change>,
    /// A text of the entry is replaced: what comes of it falls away.
    replaced: bool,
    /// How many entries are still to come, once that is known.
    left: Option<u64>,
    /// Bytes of the stream that have been taken.
    taken: u64,
}

impl<W: Write> Rewriter<W> {
    /// For the start of an archive.
    pub fn new(inner: W, changes: BTreeMap<i64, Change>) -> Self {
        let change = Changing { changes, bytes: Vec::new(), now: None, replaced: false, left: None, taken: 0 };
        Self { reader: PgDumpReader::new("archive"), inner, change, offset: 0 }
    }
}

impl<W: Write> Write for Rewriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { reader, inner, change, offset } = self;
        if change.left == Some(0) {
            return inner.write(bytes);
        }
        let walked = reader.walk(bytes, &mut |part| change.take(part));
        walked.map_err(|failure| io::Error::other(failure.message))?;
        inner.write_all(&change.bytes)?;
        change.bytes.clear();
        if change.left == Some(0) {
            if !change.changes.is_empty() {
                return Err(io::Error::other("its table of contents is not the one that was read before"));
            }
            // From here on nothing is changed.
            let within = usize::try_from(change.taken.saturating_sub(*offset)).unwrap_or(usize::MAX);
            inner.write_all(bytes.get(within..).unwrap_or_default())?;
        }
        *offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Changing {
    fn take(&mut self, part: Part<'_>) {
        if self.left == Some(0) {
            return;
        }
        match part {
            Part::EntryCount(bytes) => {
                let count = number(bytes);
                let left_out = self.changes.values().filter(|change| **change == Change::LeaveOut).count();
                let kept = count.saturating_sub(i64::try_from(left_out).unwrap_or(i64::MAX));
                self.bytes.extend_from_slice(&integer(kept));
                self.taken += bytes.len() as u64;
                self.left = Some(u64::try_from(count).unwrap_or_default());
            }
            Part::EntryId(bytes) => {
                self.now = self.changes.remove(&number(bytes));
                self.pass(bytes);
            }
            Part::Length(field, bytes) => {
                let text = match (&self.now, field) {
                    (Some(Change::Rewrite { drop_owner: true, .. }), Field::Owner) => Some(""),
                    (Some(Change::Rewrite { definition: Some(text), .. }), Field::Definition) => Some(text.as_str()),
                    _ => None,
                };
                self.replaced = text.is_some();
                match text {
                    Some(text) => {
                        self.bytes.extend_from_slice(&integer(i64::try_from(text.len()).unwrap_or(i64::MAX)));
                        self.bytes.extend_from_slice(text.as_bytes());
                        self.taken += bytes.len() as u64;
                    }
                    None => self.pass(bytes),
                }
            }
            Part::Text(bytes) if self.replaced => self.taken += bytes.len() as u64,
            Part::Frame(bytes) | Part::Text(bytes) => self.pass(bytes),
            Part::EndOfEntry => {
                self.now = None;
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
            Part::Table { .. } | Part::Rows(_) | Part::EndOfRows => {}
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.taken += bytes.len() as u64;
        if self.now != Some(Change::LeaveOut) {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

fn number(bytes: &[u8]) -> i64 {
    let [sign, a, b, c, d] = *bytes else { return 0 };
    let value = i64::from(u32::from_le_bytes([a, b, c, d]));
    if sign == 0 { value } else { -value }
}

fn integer(value: i64) -> [u8; INT] {
    let [a, b, c, d] = u32::try_from(value.unsigned_abs()).unwrap_or(u32::MAX).to_le_bytes();
    [u8::from(value < 0), a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::super::contents::ContentsReader;
    use super::super::tests::{Writer, sample, schema};
    use super::*;
    use crate::engine::Inspect;

    fn rewritten(archive: &[u8], size: usize, changes: &[(i64, Change)]) -> io::Result<Vec<u8>> {
        let mut passed = Vec::new();
        let mut rewriter = Rewriter::new(&mut passed, changes.iter().cloned().collect());
        for piece in archive.chunks(size) {
            rewriter.write_all(piece)?;
        }
        drop(rewriter);
        Ok(passed)
    }

    #[test]
    fn what_is_not_to_change_passes_as_it_is_and_the_rest_is_a_whole_archive() {
        for minor in 12..=16 {
            let entries = || {
                let mut entries = sample();
                entries.push(schema(4000, "ACL", "TABLE orders"));
                entries.push(schema(4001, "COMMENT", "EXTENSION x"));
                entries
            };
            let archive = Writer::archive(minor, &entries());
            for size in [1, 3, 64, 1 << 20] {
                assert_eq!(rewritten(&archive, size, &[]).unwrap(), archive);
                let other = Change::Rewrite { drop_owner: true, definition: Some("GRANT;\n".to_owned()) };
                let changes = [(4001, Change::LeaveOut), (3200, Change::LeaveOut), (4000, other)];
                let anew = rewritten(&archive, size, &changes).unwrap();
                let mut reader = PgDumpReader::new("changed");
                reader.feed(&anew).unwrap();
                let found = reader.finish().unwrap();
                assert_eq!(found.properties["tocEntries"], "7");
                assert_eq!(found.items.len(), 3);
                let (mut contents, handle) = ContentsReader::new("changed");
                contents.write_all(&anew).unwrap_err();
                let entries = handle.entries().unwrap().unwrap();
                assert!(entries.iter().all(|entry| ![4001, 3200].contains(&entry.id)));
                let acl = entries.iter().find(|entry| entry.id == 4000).unwrap();
                assert_eq!((acl.owner.as_str(), acl.definition.as_str()), ("", "GRANT;\n"));
                assert_eq!(entries[1].owner, "owner");
            }
        }
    }

    #[test]
    fn an_archive_with_another_table_of_contents_is_not_passed_on() {
        let archive = Writer::archive(15, &sample());
        rewritten(&archive, 100, &[(77, Change::LeaveOut)]).unwrap_err();
    }
}

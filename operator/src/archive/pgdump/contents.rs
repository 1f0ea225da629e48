//! Reads an archive's table of contents, from the beginning of its stream. Pure.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Entry, PgDumpReader, State};
use crate::task::Failure;

/// Most bytes of definitions that are kept of a whole table of contents: what a restore decides by is short.
const DEFINITIONS_LIMIT: usize = 32 << 20;
/// Most of one definition. A longer one is kept in part.
const DEFINITION_LIMIT: usize = 64 << 10;
/// Of a function only the beginning is kept: its language stands before its body.
const FUNCTION_LIMIT: usize = 4 << 10;

/// One entry of a table of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContentsEntry {
    /// Its number, by which other entries name it.
    pub id: i64,
    /// What it is, in pg_dump's word: `TABLE`, `POLICY`, `DEFAULT ACL`.
    pub kind: String,
    /// Its name, as pg_dump writes it there: of a policy `table policy`, of a comment `EXTENSION name`.
    pub tag: String,
    /// Its schema; empty: it is in none.
    pub schema: String,
    /// Its owner; empty: it has none.
    pub owner: String,
    /// The statements that make it, of the kinds that a restore decides by; maybe only their beginning.
    pub definition: String,
    /// Only a part of the definition is kept.
    pub cut: bool,
    /// Numbers of what it needs. Not all of them are entries.
    pub dependencies: Vec<i64>,
    /// It has rows or other data.
    pub has_data: bool,
}

/// What has been kept of a table of contents.
pub(super) struct Kept {
    entries: Vec<ContentsEntry>,
    room: usize,
}

impl Kept {
    /// How many bytes of the definition of an entry of this kind are kept.
    pub(super) fn definition_limit(&self, kind: &str, tag: &str) -> usize {
        let limit = match kind {
            "FUNCTION" | "PROCEDURE" => FUNCTION_LIMIT,
            "COMMENT" if tag.starts_with("EXTENSION ") => DEFINITION_LIMIT,
            "ACL"
            | "DEFAULT ACL"
            | "POLICY"
            | "USER MAPPING"
            | "EVENT TRIGGER"
            | "PUBLICATION"
            | "PUBLICATION TABLES IN SCHEMA"
            | "SUBSCRIPTION"
            | "SECURITY LABEL"
            | "TYPE"
            | "SHELL TYPE"
            | "CAST"
            | "EXTENSION"
            | "ACCESS METHOD"
            | "OPERATOR CLASS"
            | "OPERATOR FAMILY"
            | "FOREIGN DATA WRAPPER"
            | "PROCEDURAL LANGUAGE"
            | "TEXT SEARCH PARSER"
            | "TEXT SEARCH TEMPLATE" => DEFINITION_LIMIT,
            _ => 0,
        };
        limit.min(self.room)
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.room = self.room.saturating_sub(bytes);
    }

    pub(super) fn push(&mut self, entry: &Entry) {
        self.entries.push(ContentsEntry {
            id: entry.id,
            kind: entry.description.clone(),
            tag: entry.tag.clone(),
            schema: entry.namespace.clone(),
            owner: entry.owner.clone(),
            definition: entry.definition.clone(),
            cut: entry.cut,
            dependencies: entry.dependencies.clone(),
            has_data: entry.has_data,
        });
    }
}

/// Takes the beginning of an archive, and no more once it has the table of contents.
pub struct ContentsReader {
    reader: PgDumpReader,
    found: Arc<Mutex<Found>>,
}

/// What a [`ContentsReader`] has found, for whoever has given it away.
#[derive(Clone, Default)]
pub struct ContentsHandle(Arc<Mutex<Found>>);

#[derive(Default)]
enum Found {
    #[default]
    Nothing,
    Whole(Vec<ContentsEntry>),
    Broken(Failure),
}

impl ContentsReader {
    /// A reader for the start of a stream; `what` begins its messages.
    pub fn new(what: impl Into<String>) -> (Self, ContentsHandle) {
        let mut reader = PgDumpReader::new(what);
        reader.contents = Some(Kept { entries: Vec::new(), room: DEFINITIONS_LIMIT });
        let handle = ContentsHandle::default();
        (Self { reader, found: handle.0.clone() }, handle)
    }
}

impl ContentsHandle {
    /// The entries, in the order of the archive; none where the stream ended before.
    ///
    /// # Errors
    /// What came is no archive, or damaged.
    pub fn entries(&self) -> Result<Option<Vec<ContentsEntry>>, Failure> {
        match std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            Found::Nothing => Ok(None),
            Found::Whole(entries) => Ok(Some(entries)),
            Found::Broken(failure) => Err(failure),
        }
    }
}

impl Write for ContentsReader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let enough = || io::Error::from(io::ErrorKind::BrokenPipe);
        let tell = |found| *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        // In pieces, so that little is read of what follows.
        for piece in bytes.chunks(4096) {
            if let Err(failure) = self.reader.walk(piece, &mut |_| ()) {
                tell(Found::Broken(failure));
                return Err(enough());
            }
            if matches!(
                self.reader.state,
                State::BlockType | State::BlockId | State::LargeObject | State::ChunkLength | State::Chunk(_)
            ) {
                tell(Found::Whole(self.reader.contents.take().map(|kept| kept.entries).unwrap_or_default()));
                return Err(enough());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Writer, sample};
    use super::*;

    #[test]
    fn a_table_of_contents_is_read_however_it_comes_and_nothing_is_taken_after_it() {
        for minor in 12..=16 {
            let archive = Writer::archive(minor, &sample());
            for size in [1, 7, 100_000] {
                let (mut reader, handle) = ContentsReader::new("dump");
                let stopped = archive.chunks(size).any(|piece| reader.write(piece).is_err());
                assert!(stopped, "it has taken everything");
                let entries = handle.entries().unwrap().unwrap();
                let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
                assert_eq!(
                    kinds,
                    ["ENCODING", "TABLE", "TABLE DATA", "TABLE DATA", "TABLE DATA", "BLOBS", "FK CONSTRAINT"]
                );
                assert_eq!(
                    entries[2],
                    ContentsEntry {
                        id: 3333,
                        kind: "TABLE DATA".into(),
                        tag: "orders".into(),
                        schema: "public".into(),
                        owner: "owner".into(),
                        definition: String::new(),
                        cut: false,
                        dependencies: vec![204],
                        has_data: true,
                    }
                );
            }
        }
    }

    #[test]
    fn what_is_cut_or_no_archive_is_told() {
        let (mut reader, handle) = ContentsReader::new("dump");
        reader.write_all(&Writer::archive(15, &sample())[..100]).unwrap();
        assert_eq!(handle.entries().unwrap(), None);
        let (mut reader, handle) = ContentsReader::new("dump");
        reader.write_all(b"-- PostgreSQL database dump").unwrap_err();
        assert!(handle.entries().unwrap_err().message.contains("no archive"));
    }
}

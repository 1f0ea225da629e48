//! Archives written here, of every known version, cut, split and damaged.

use proptest::prelude::*;

use super::*;
use crate::archive::table_name::quote_identifier;

/// Writes archives as pg_dump does.
pub(super) struct Writer {
    minor: u8,
    bytes: Vec<u8>,
}

pub(super) struct Entry {
    id: i32,
    description: &'static str,
    tag: String,
    data: Option<Vec<Vec<u8>>>,
}

impl Writer {
    fn int(&mut self, value: i64) {
        self.bytes.push(u8::from(value < 0));
        self.bytes.extend_from_slice(&u32::try_from(value.abs()).unwrap().to_le_bytes());
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            None => self.int(-1),
            Some(text) => {
                self.int(i64::try_from(text.len()).unwrap());
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
    }

    pub(super) fn archive(minor: u8, entries: &[Entry]) -> Vec<u8> {
        let mut w = Self { minor, bytes: b"PGDMP".to_vec() };
        w.bytes.extend_from_slice(&[1, minor, 0, 4, 8, 1]);
        if minor >= 15 {
            w.bytes.push(0);
        } else {
            w.int(0);
        }
        for part in [12, 30, 9, 21, 10, 126, 0] {
            w.int(part);
        }
        w.text(Some("shop"));
        w.text(Some("15.18"));
        w.text(Some("15.18"));
        w.int(i64::try_from(entries.len()).unwrap());
        for entry in entries {
            w.entry(entry);
        }
        for entry in entries {
            w.block(entry);
        }
        w.bytes
    }

    fn entry(&mut self, entry: &Entry) {
        self.int(i64::from(entry.id));
        self.int(i64::from(entry.data.is_some()));
        self.text(Some("0"));
        self.text(Some("16400"));
        self.text(Some(&entry.tag));
        self.text(Some(entry.description));
        self.int(3);
        let definition = if entry.description == "ENCODING" { "SET client_encoding = 'UTF8';\n" } else { "" };
        self.text(Some(definition));
        self.text(None);
        let copy = format!("COPY public.{} (a, \"B, c) FROM\") FROM stdin;\n", quote_identifier(&entry.tag));
        self.text((entry.description == "TABLE DATA").then_some(&copy));
        self.text(Some("public"));
        self.text(None);
        if self.minor >= 14 {
            self.text(Some("heap"));
        }
        if self.minor >= 16 {
            self.int(i64::from(b'r'));
        }
        self.text(Some("owner"));
        self.text(Some("false"));
        self.text(Some("204"));
        self.text(None);
        self.bytes.push(if entry.data.is_some() { 1 } else { 3 });
        self.bytes.extend_from_slice(&[0; 8]);
    }

    fn block(&mut self, entry: &Entry) {
        let Some(data) = &entry.data else { return };
        if entry.description == "BLOBS" {
            self.bytes.push(3);
            self.int(i64::from(entry.id));
            for (oid, object) in data.iter().enumerate() {
                // An object number above 2^31 is written as a negative one.
                self.int(if oid == 0 { -5 } else { 16_400 + i64::try_from(oid).unwrap() });
                if !object.is_empty() {
                    self.chunk(object);
                }
                self.int(0);
            }
        } else {
            self.bytes.push(1);
            self.int(i64::from(entry.id));
            for chunk in data {
                self.chunk(chunk);
            }
            self.chunk(b"\\.\n\n\n");
        }
        self.int(0);
    }

    fn chunk(&mut self, bytes: &[u8]) {
        self.int(i64::try_from(bytes.len()).unwrap());
        self.bytes.extend_from_slice(bytes);
    }
}

pub(super) fn schema(id: i32, description: &'static str, tag: &str) -> Entry {
    Entry { id, description, tag: tag.to_owned(), data: None }
}

pub(super) fn table(id: i32, tag: &str, chunks: &[&[u8]]) -> Entry {
    let data = Some(chunks.iter().map(|chunk| chunk.to_vec()).collect());
    Entry { id, description: "TABLE DATA", tag: tag.to_owned(), data }
}

pub(super) fn sample() -> Vec<Entry> {
    vec![
        schema(3001, "ENCODING", "ENCODING"),
        schema(215, "TABLE", "orders"),
        table(3333, "orders", &[b"1\ta\\nb\n", b"2\t\\\\.\n", b"3\tc\n4\td\n"]),
        table(3334, "empty", &[]),
        table(3335, "no columns", &[b"\n", b"\n"]),
        Entry {
            id: 3340,
            description: "BLOBS",
            tag: "BLOBS".to_owned(),
            data: Some(vec![b"\\.\n\n\n".to_vec(), Vec::new(), b"three".to_vec()]),
        },
        schema(3200, "FK CONSTRAINT", "orders orders_fk"),
    ]
}

fn read(pieces: &[&[u8]]) -> Result<Inspection, Failure> {
    let mut reader = PgDumpReader::new("dump of database shop");
    for piece in pieces {
        reader.feed(piece)?;
    }
    reader.finish()
}

#[test]
fn counts_what_is_in_archives_of_all_known_versions() {
    for minor in 12..=16 {
        let found = read(&[&Writer::archive(minor, &sample())]).unwrap();
        let counts: Vec<_> = found.items.iter().map(|item| (item.name.as_str(), item.count)).collect();
        assert_eq!(counts, [("public.orders", 4), ("public.empty", 0), ("public.\"no columns\"", 2)]);
        assert_eq!(found.properties["largeObjects"], "3");
        assert_eq!(found.properties["tocEntries"], "7");
        assert_eq!(found.properties["archiveVersion"], format!("1.{minor}.0"));
        assert_eq!(found.properties["archiveDumpVersion"], "15.18");
        assert_eq!(found.properties["archiveEncoding"], "UTF8");
    }
}

#[test]
fn an_archive_cut_anywhere_is_found() {
    for minor in 12..=16 {
        let bytes = Writer::archive(minor, &sample());
        for end in 0..bytes.len() {
            let failure = read(&[&bytes[..end]]).unwrap_err();
            assert_eq!(failure.reason, Reason::SourceIncomplete, "{end}: {failure}");
        }
    }
}

#[test]
fn what_is_lost_or_added_in_the_middle_is_found() {
    let bytes = Writer::archive(14, &sample());
    let whole = read(&[&bytes]).unwrap();
    for at in 0..bytes.len() {
        let lost = [&bytes[..at], &bytes[at + 1..]];
        assert!(read(&lost).is_err() || bytes[at] != b'\n', "byte {at} is lost and nobody saw it");
    }
    assert!(read(&[&bytes, b"\x01"]).unwrap_err().message.contains("after its end"));
    assert_eq!(read(&[&bytes, b""]).unwrap(), whole);
}

#[test]
fn blocks_in_another_order_or_twice_are_found() {
    let mut entries = sample();
    entries[3].id = 3333;
    let mut bytes = Writer::archive(14, &entries);
    // The second block says it is entry 3333, as its table of contents does: legal. Then let the block alone say so.
    assert!(read(&[&bytes]).is_ok());
    bytes = Writer::archive(14, &sample());
    let block = bytes.windows(6).rposition(|w| w == [1, 0, 0x06, 0x0d, 0, 0]).unwrap();
    bytes[block + 2] = 0x05;
    assert!(read(&[&bytes]).unwrap_err().message.contains("not where it belongs"));
}

#[test]
fn rows_without_their_end_marker_are_found() {
    let mut bytes = Writer::archive(14, &sample());
    let marker = bytes.windows(5).position(|w| w == b"\\.\n\n\n").unwrap();
    bytes[marker] = b'/';
    let message = read(&[&bytes]).unwrap_err().message;
    assert!(message.contains("the rows of public.orders do not end"), "{message}");
}

#[test]
fn what_this_version_cannot_read_is_refused_by_name() {
    let good = Writer::archive(14, &sample());
    let mut newer = good.clone();
    newer[6] = 17;
    assert!(read(&[&newer]).unwrap_err().message.contains("archive version 1.17 is not known"));
    let mut compressed = good.clone();
    compressed[12] = 6;
    assert!(read(&[&compressed]).unwrap_err().message.contains("compressed"));
    assert!(read(&[b"--\n-- PostgreSQL database dump\n"]).unwrap_err().message.contains("no archive"));
    assert!(read(&[]).unwrap_err().message.contains("ends inside its header"));
}

#[test]
fn a_length_nobody_could_have_written_reserves_no_memory() {
    let mut w = Writer { minor: 14, bytes: Writer::archive(14, &[]) };
    w.bytes.truncate(w.bytes.len() - 5);
    w.int(i64::from(u32::MAX / 2));
    w.int(1);
    w.int(1);
    w.text(Some("0"));
    w.text(Some("0"));
    w.int(i64::from(u32::MAX));
    assert!(read(&[&w.bytes]).unwrap_err().message.contains("a text of 4294967295 bytes"));
}

proptest! {
    #[test]
    fn borders_of_pieces_change_nothing(minor in 12u8..=16, mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let bytes = Writer::archive(minor, &sample());
        let mut ends: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len())).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        let mut start = 0;
        let pieces: Vec<&[u8]> = ends.iter().map(|end| &bytes[std::mem::replace(&mut start, *end)..*end]).collect();
        prop_assert_eq!(read(&pieces).unwrap(), read(&[&bytes]).unwrap());
    }

    #[test]
    fn damage_never_panics(minor in 12u8..=16, damage in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6), size in 1usize..64) {
        let mut bytes = Writer::archive(minor, &sample());
        for (at, bit) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        let _ = read(&pieces);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut archive = Writer::archive(14, &sample());
        archive.truncate(60);
        archive.extend(&bytes);
        prop_assert!(read(&[&archive]).is_err());
    }

    #[test]
    fn rows_are_counted_however_they_are_chunked(rows in prop::collection::vec("[a-z\\\\\t.]{0,12}", 0..50), size in 1usize..40) {
        // Every backslash of a value is doubled in COPY text.
        let text: String = rows.iter().map(|row| row.replace('\\', "\\\\") + "\n").collect();
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let bytes = Writer::archive(15, &[table(1, "t", &chunks)]);
        prop_assert_eq!(read(&[&bytes]).unwrap().items[0].count, i64::try_from(rows.len()).unwrap());
    }
}

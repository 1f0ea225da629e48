//! Archives are split and put together again, and nothing is lost, doubled or torn.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::archive::pgdump::tests::{Entry, Writer, sample, schema, table};
use crate::engine::Inspect;

/// Small enough that a few rows are a large table.
const SIZES: (usize, usize) = (200, 64);

/// Takes every row offered for which `takes` says so, in turns.
struct Recorder<'a> {
    takes: &'a [bool],
    offers: usize,
    archive: Vec<u8>,
    /// What went aside, by the statement that reads it.
    aside: BTreeMap<String, Vec<u8>>,
    /// Whether something went aside that is not settled.
    open: Option<Table>,
}

impl<'a> Recorder<'a> {
    fn new(takes: &'a [bool]) -> Self {
        Self { takes, offers: 0, archive: Vec::new(), aside: BTreeMap::new(), open: None }
    }
}

impl Lanes for &mut Recorder<'_> {
    fn archive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.archive.extend_from_slice(bytes);
        Ok(())
    }

    fn aside(&mut self, table: &Table, rows: &mut Vec<u8>) -> io::Result<()> {
        assert!(self.open.as_ref().is_none_or(|open| open == table), "another table is not settled");
        let begun = taken_apart(&self.archive).tables.pop().unwrap();
        assert_eq!(begun.copy, table.copy);
        assert!(begun.text.len() >= SIZES.0, "only {} bytes of the table are in the archive", begun.text.len());
        assert_eq!(rows.last(), Some(&b'\n'));
        self.offers += 1;
        if self.takes[self.offers % self.takes.len()] {
            self.open = Some(table.clone());
            self.aside.entry(table.copy.clone()).or_default().append(rows);
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        assert!(!taken_apart(&self.archive).tables.pop().unwrap().ended, "the table has ended before it is settled");
        self.open = None;
        Ok(())
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Apart {
    frames: Vec<u8>,
    tables: Vec<Rows>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Rows {
    copy: String,
    text: Vec<u8>,
    ended: bool,
}

fn taken_apart(archive: &[u8]) -> Apart {
    let mut apart = Apart::default();
    let mut reader = PgDumpReader::with_statements("archive");
    let mut visit = |part: Part<'_>| match part {
        Part::Frame(bytes)
        | Part::EntryCount(bytes)
        | Part::EntryId(bytes)
        | Part::Length(_, bytes)
        | Part::Text(bytes) => apart.frames.extend_from_slice(bytes),
        Part::Table { copy, .. } => {
            apart.tables.push(Rows { copy: copy.unwrap_or_default().to_owned(), ..Rows::default() });
        }
        Part::Rows(bytes) => apart.tables.last_mut().unwrap().text.extend_from_slice(bytes),
        Part::EndOfEntry => {}
        Part::EndOfRows => apart.tables.last_mut().unwrap().ended = true,
    };
    reader.walk(archive, &mut visit).unwrap();
    apart
}

/// Rows without the end marker, sorted.
fn sorted(rows: &[u8], more: &[u8]) -> Vec<Vec<u8>> {
    let rows = rows.strip_suffix(COPY_END).unwrap();
    let mut lines: Vec<Vec<u8>> = rows.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    lines.extend(more.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec));
    lines.sort_unstable();
    lines
}

fn split<'a>(archive: &[u8], size: usize, takes: &'a [bool]) -> Recorder<'a> {
    let mut recorder = Recorder::new(takes);
    let mut splitter = Splitter::with_sizes(&mut recorder, SIZES);
    for piece in archive.chunks(size) {
        splitter.write_all(piece).unwrap();
    }
    splitter.flush().unwrap();
    drop(splitter);
    recorder
}

/// What both lanes got is what was in the archive.
fn check(archive: &[u8], size: usize, takes: &[bool]) -> Recorder<'static> {
    let recorder = split(archive, size, takes);
    assert_eq!(recorder.open, None, "what went aside last is not settled");
    let mut reader = PgDumpReader::new("archive");
    reader.feed(&recorder.archive).unwrap();
    reader.finish().unwrap();
    let (before, after) = (taken_apart(archive), taken_apart(&recorder.archive));
    assert_eq!(before.frames, after.frames);
    assert_eq!(before.tables.len(), after.tables.len());
    for (whole, rest) in before.tables.iter().zip(&after.tables) {
        let aside = recorder.aside.get(&whole.copy).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(sorted(&whole.text, b""), sorted(&rest.text, aside), "{}", whole.copy);
        assert_eq!(whole.ended, rest.ended);
    }
    Recorder { takes: &[], ..recorder }
}

fn large(rows: usize) -> Entry {
    let text = (0..rows).fold(String::new(), |text, i| text + &format!("{i}\tvalue {i} \\\\.\n"));
    table(7, "large", &[text.as_bytes()])
}

#[test]
fn half_of_a_large_table_goes_aside_and_small_ones_stay() {
    let mut entries = sample();
    entries.push(large(1000));
    for minor in 12..=16 {
        let found = check(&Writer::archive(minor, &entries), 100, &[true, false]);
        let tables: Vec<_> = found.aside.iter().map(|(copy, rows)| (copy.as_str(), rows.len() > 5000)).collect();
        assert_eq!(tables, [("COPY public.large (a, \"B, c) FROM\") FROM stdin;\n", true)]);
    }
}

#[test]
fn a_lane_that_takes_nothing_changes_nothing() {
    let archive = Writer::archive(14, &[schema(3001, "ENCODING", "ENCODING"), large(1000)]);
    let found = check(&archive, 100, &[false]);
    assert!(found.offers > 100);
    assert!(found.aside.is_empty());
}

#[test]
fn rows_of_an_unknown_encoding_or_statement_stay() {
    let archive = Writer::archive(14, &[large(1000)]);
    assert_eq!(check(&archive, 1000, &[true]).offers, 0);
    for copy in [
        "COPY public.t FROM stdin;\n",
        "COPY t (a) FROM stdin;\n",
        "COPY public.t () FROM stdin;\n",
        "COPY public.t (a) FROM stdin;",
        "COPY public.t (a) FROM stdin;\n\\! id\n",
        "COPY public.t (a) FROM PROGRAM 'id';\n",
        "COPY public.t (a, (SELECT 1)) FROM stdin;\n",
        "COPY public.t (a\u{fffd}) FROM stdin;\n",
        "\\! id\n",
    ] {
        assert_eq!(copy_statement(copy), None, "{copy}");
    }
    let odd = "COPY \"we\"\"ird\".\"a\\! id\n:x\" (\"b, c) FROM stdin\", \"order\") FROM stdin;\n";
    assert_eq!(copy_statement(odd).as_deref(), Some(odd));
    assert_eq!(Table::new(odd, "UTF8'; \\! id"), None);
}

#[test]
fn what_psql_would_take_for_the_end_of_the_rows_stays() {
    let bad = format!("{}\\.\n\\! id\n{}", "1\tgood\n".repeat(200), "2\tgood\n".repeat(200));
    let archive = Writer::archive(14, &[schema(3001, "ENCODING", "ENCODING"), table(7, "bad", &[bad.as_bytes()])]);
    let found = check(&archive, 100, &[true]);
    let aside = found.aside.values().next().unwrap();
    assert!(aside.len() > 1000 && !aside.contains(&b'\\'));
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_or_torn(
        tables in prop::collection::vec(prop::collection::vec("[a-z\t]{0,40}(\\\\\\\\[.n]){0,3}|[a-z]{60,300}", 0..60), 1..4),
        chunk in 1usize..300,
        size in 1usize..500,
        takes in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let mut entries = vec![schema(3001, "ENCODING", "ENCODING")];
        for (id, rows) in (1..).zip(&tables) {
            let text = rows.iter().fold(String::new(), |text, row| text + row + "\n");
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(chunk).collect();
            entries.push(table(id, &format!("t{id}"), &chunks));
        }
        check(&Writer::archive(15, &entries), size, &takes);
    }
}

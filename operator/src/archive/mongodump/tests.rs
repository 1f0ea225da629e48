//! An archive of the stock tool, archives written here, cut, split and damaged.

use std::collections::BTreeMap;

use bson::{RawDocument, rawdoc};
use holdfast_crds::Reason;
use proptest::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::*;
use crate::archive::extjson::write_document;
use crate::engine::Inspect;
use crate::task::Failure;

const FORUM: &[u8] = include_bytes!("../../../tests/fixtures/mongodump/forum.archive");
const EXPECTED: &str = include_str!("../../../tests/fixtures/mongodump/forum.expected.json");

/// Keeps all that an archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    header: Header,
    namespaces: Vec<Namespace>,
    documents: Vec<Vec<Vec<u8>>>,
    ended: Vec<usize>,
}

impl Contents for Kept {
    fn prelude(&mut self, header: &Header, namespaces: &[Namespace]) -> Result<(), Failure> {
        self.header = header.clone();
        self.namespaces = namespaces.to_vec();
        self.documents = vec![Vec::new(); namespaces.len()];
        Ok(())
    }

    fn documents(&mut self, namespace: usize, mut documents: &[u8], count: u64) -> Result<(), Failure> {
        assert!(!self.ended.contains(&namespace));
        for _ in 0..count {
            let length = u32::from_le_bytes(*documents.first_chunk().unwrap()) as usize;
            let (document, rest) = documents.split_at(length);
            self.documents[namespace].push(document.to_vec());
            documents = rest;
        }
        assert!(documents.is_empty());
        Ok(())
    }

    fn end(&mut self, namespace: usize) -> Result<(), Failure> {
        self.ended.push(namespace);
        Ok(())
    }
}

impl Kept {
    fn named(&self, name: &str) -> (&Namespace, &[Vec<u8>]) {
        let place = self.namespaces.iter().position(|namespace| namespace.collection == name).unwrap();
        (&self.namespaces[place], &self.documents[place])
    }
}

fn read_in_pieces(archive: &[u8], pieces: usize) -> Result<Kept, Failure> {
    let mut reader = ArchiveReader::new("test");
    let mut kept = Kept::default();
    for piece in archive.chunks(pieces.max(1)) {
        reader.feed(piece, &mut kept)?;
    }
    reader.finish()?;
    Ok(kept)
}

fn read(archive: &[u8]) -> Result<Kept, Failure> {
    read_in_pieces(archive, 65_536)
}

/// Writes what was kept, each time `turn` documents of a namespace before the next one's.
fn write(kept: &Kept, turn: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ArchiveWriter::begin(&kept.header, &kept.namespaces, &mut out);
    let mut left: Vec<&[Vec<u8>]> = kept.documents.iter().map(Vec::as_slice).collect();
    let mut open: Vec<usize> = (0..left.len()).collect();
    while !open.is_empty() {
        open.retain(|&namespace| {
            let (now, later) =
                left[namespace].split_at(turn.clamp(1, left[namespace].len().max(1)).min(left[namespace].len()));
            left[namespace] = later;
            if !now.is_empty() {
                writer.documents(namespace, now.iter().map(Vec::as_slice), &mut out);
            }
            if later.is_empty() {
                writer.end(namespace, &mut out);
            }
            !later.is_empty()
        });
    }
    out
}

/// JSON with a space after each comma and colon, as the fixture's makers wrote it.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// SHA-256 of the documents as canonical extended JSON: keys sorted, one a line, lines sorted.
fn fingerprint(documents: &[Vec<u8>]) -> String {
    let mut lines: Vec<Vec<u8>> = documents
        .iter()
        .map(|document| {
            let mut json = String::new();
            write_document(document, &mut json).unwrap();
            let sorted: serde_json::Value = serde_json::from_str(&json).unwrap();
            let mut line = Vec::new();
            sorted.serialize(&mut serde_json::Serializer::with_formatter(&mut line, Spaced)).unwrap();
            line.push(b'\n');
            line
        })
        .collect();
    lines.sort();
    let digest: [u8; 32] = Sha256::digest(lines.concat()).into();
    digest.map(|byte| format!("{byte:02x}")).concat()
}

#[test]
fn the_stock_tools_archive_reads_to_what_was_dumped() {
    let kept = read(FORUM).unwrap();
    let expected: BTreeMap<String, serde_json::Value> = serde_json::from_str(EXPECTED).unwrap();
    assert_eq!(kept.namespaces.len(), expected.len());
    assert_eq!(kept.ended.len(), expected.len());
    for (name, expected) in expected {
        let (namespace, documents) = kept.named(&name);
        assert_eq!(namespace.database, "forum");
        assert_eq!(documents.len(), usize::try_from(expected["documents"].as_u64().unwrap()).unwrap());
        assert_eq!(fingerprint(documents), expected["sha256OfSortedCanonicalExtendedJsonLines"], "{name}");
        let metadata: serde_json::Value = serde_json::from_str(&namespace.metadata).unwrap();
        let indexes = metadata["indexes"].as_array().unwrap();
        let mut names: Vec<&str> = indexes.iter().map(|index| index["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(serde_json::json!(names), expected["indexes"]);
    }
}

#[test]
fn what_is_written_from_the_stock_tools_archive_is_that_archive_to_the_byte() {
    // The stock tool dumped one collection after the other in this order.
    let kept = read(FORUM).unwrap();
    let mut out = Vec::new();
    let mut writer = ArchiveWriter::begin(&kept.header, &kept.namespaces, &mut out);
    for &namespace in &kept.ended {
        for document in &kept.documents[namespace] {
            writer.documents(namespace, [document.as_slice()], &mut out);
        }
        writer.end(namespace, &mut out);
    }
    assert!(out == FORUM);
}

#[test]
fn interleaved_archives_read_back_equal() {
    let kept = read(FORUM).unwrap();
    for turn in [1, 7, 100, 5000] {
        let archive = write(&kept, turn);
        let again = read(&archive).unwrap();
        assert_eq!((&again.header, &again.namespaces), (&kept.header, &kept.namespaces));
        assert!(again.documents == kept.documents, "{turn}");
    }
}

#[test]
fn the_inspector_counts_and_tells_versions() {
    let mut inspector = ArchiveInspector::new("test");
    inspector.feed(FORUM).unwrap();
    let inspection = inspector.finish().unwrap();
    let counts: Vec<(&str, i64)> = inspection.items.iter().map(|item| (item.name.as_str(), item.count)).collect();
    assert_eq!(counts, [("forum.empty", 0), ("forum.posts", 3000), ("forum.types", 1), ("forum.users", 1200)]);
    assert_eq!(inspection.properties["archiveServerVersion"], "7.0.77");
}

/// A small archive with everything in it: interleaved, an empty collection, a view, a time-series collection.
fn small() -> Kept {
    let namespace = |collection: &str, kind: &str| Namespace {
        database: "d".into(),
        collection: collection.into(),
        metadata: r#"{"indexes":[]}"#.into(),
        kind: kind.into(),
    };
    let documents = |count: i32, text: &str| -> Vec<Vec<u8>> {
        (0..count).map(|n| rawdoc! {"_id": n, "t": text}.into_bytes()).collect()
    };
    Kept {
        header: Header { concurrent_collections: 4, server_version: "7.0.1".into(), tool_version: "holdfast".into() },
        namespaces: vec![
            namespace("a", "collection"),
            namespace("b", "collection"),
            namespace("empty", ""),
            namespace("v", VIEW),
            namespace("weather", TIME_SERIES),
        ],
        documents: vec![documents(3, "x"), documents(2, ""), vec![], vec![], documents(2, "bucket")],
        ended: vec![],
    }
}

/// CRC-64/XZ, bit by bit.
fn crc64(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xC96C_5795_D787_0F42 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn users_and_roles_are_lists_and_no_documents_of_the_backup() {
    // What `mongodump --db forum --dumpDbUsersAndRoles --archive` writes, put together from the description of the format.
    let users = rawdoc! {"_id": "forum.app", "user": "app", "db": "forum", "credentials": {}, "roles": []};
    let version = rawdoc! {"_id": "authSchema", "currentVersion": 5};
    let post = rawdoc! {"_id": 1, "text": "hello"};
    let body: [(&str, &str, &str, &[&bson::RawDocumentBuf]); 4] = [
        ("$admin.system.users", "", "", &[&users]),
        ("$admin.system.roles", "", "", &[]),
        ("$admin.system.version", "", "", &[&version, &version]),
        ("posts", r#"{"indexes":[],"collectionName":"posts","type":"collection"}"#, "collection", &[&post]),
    ];
    let mut archive = MAGIC.to_vec();
    let header =
        rawdoc! {"concurrent_collections": 4, "version": "0.1", "server_version": "7.0.77", "tool_version": "100.9.4"};
    archive.extend_from_slice(header.as_bytes());
    for (collection, metadata, kind, _) in body.iter().rev() {
        let named = rawdoc! {"db": "forum", "collection": *collection, "metadata": *metadata, "size": 0, "type": *kind};
        archive.extend_from_slice(named.as_bytes());
    }
    archive.extend_from_slice(&TERMINATOR);
    for (collection, _, _, documents) in body {
        let bytes: Vec<u8> = documents.iter().flat_map(|document| document.as_bytes().to_vec()).collect();
        let head = |end: bool, crc: i64| rawdoc! {"db": "forum", "collection": collection, "EOF": end, "CRC": crc};
        archive.extend_from_slice(head(false, 0).as_bytes());
        archive.extend_from_slice(&bytes);
        archive.extend_from_slice(&TERMINATOR);
        archive.extend_from_slice(head(true, crc64(&bytes).cast_signed()).as_bytes());
        archive.extend_from_slice(&TERMINATOR);
    }
    let kept = read(&archive).unwrap();
    assert_eq!(kept.named("$admin.system.users").1, [users.as_bytes()]);
    let lists: Vec<Option<List>> = kept.namespaces.iter().map(Namespace::list).collect();
    assert_eq!(lists, [None, Some(List::Version), Some(List::Roles), Some(List::Users)]);
    let mut inspector = ArchiveInspector::new("test");
    inspector.feed(&archive).unwrap();
    let inspection = inspector.finish().unwrap();
    assert_eq!(inspection.total, Some(1));
    let counts: Vec<i64> = inspection.items.iter().map(|item| item.count).collect();
    assert_eq!(counts, [1, 2, 0, 1]);
    // Collections of users' own of such names are data.
    let of = |database: &str, collection: &str| {
        Namespace { database: database.into(), collection: collection.into(), ..Namespace::default() }.list()
    };
    assert_eq!((of("admin", "system.users"), of("shop", "system.users")), (Some(List::Users), None));
    assert_eq!((of("admin", "users"), of("shop", "$admin.system.roles")), (None, Some(List::Roles)));
}

#[test]
fn views_and_time_series_have_their_places() {
    let archive = write(&small(), 1);
    let name = b"system.buckets.weather";
    assert!(archive.windows(name.len()).any(|window| window == name));
    let kept = read(&archive).unwrap();
    assert_eq!(kept.named("weather").1.len(), 2);
    assert_eq!(kept.ended.len(), 5);
}

#[test]
fn an_archive_that_is_cut_anywhere_is_not_whole() {
    let archive = write(&small(), 1);
    for end in 0..archive.len() {
        let failure = read_in_pieces(&archive[..end], 7).unwrap_err();
        assert_eq!(failure.reason, Reason::SourceIncomplete);
        assert!(failure.message.starts_with("test: "), "{failure}");
    }
    assert!(read_in_pieces(&archive, 1).is_ok());
}

#[test]
fn something_after_the_end_is_found() {
    let mut archive = write(&small(), 1);
    let end = archive.len();
    for more in [&b"\0"[..], &TERMINATOR, &MAGIC, &[5, 0, 0, 0, 0]] {
        archive.truncate(end);
        archive.extend_from_slice(more);
        assert!(read(&archive).is_err(), "{more:?}");
    }
}

/// The bytes of the prelude that are values nothing else depends on: a change of them is not found here.
fn unprotected(archive: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = MAGIC.len();
    while archive[at..at + 4] != TERMINATOR {
        let length = u32::from_le_bytes(*archive[at..].first_chunk().unwrap()) as usize;
        let document = RawDocument::from_bytes(&archive[at..at + length]).unwrap();
        for element in document.iter_elements() {
            let element = element.unwrap();
            let (key, end) = (element.key().as_str(), element.value().unwrap());
            if matches!(
                key,
                "concurrent_collections" | "server_version" | "tool_version" | "metadata" | "size" | "type"
            ) {
                // The value is where its own bytes are; texts begin after their length and end before their zero.
                let value = match end {
                    bson::RawBsonRef::String(text) => text.as_bytes().to_vec(),
                    bson::RawBsonRef::Int32(number) => number.to_le_bytes().to_vec(),
                    _ => unreachable!(),
                };
                let place = memchr::memmem::find(&archive[at..], format!("{key}\0").as_bytes()).unwrap();
                let start = at
                    + place
                    + key.len()
                    + 1
                    + if value.len() == 4 && key.ends_with("ns") || key == "size" { 0 } else { 4 };
                assert_eq!(archive[start..start + value.len()], value, "{key}");
                ranges.push(start..start + value.len());
            }
        }
        at += length;
    }
    ranges
}

#[test]
fn each_flipped_bit_is_found_or_changes_no_document() {
    let archive = write(&small(), 1);
    let whole = read(&archive).unwrap();
    let free = unprotected(&archive);
    let mut passed = 0;
    for at in 0..archive.len() {
        for bit in 0..8 {
            let mut flipped = archive.clone();
            flipped[at] ^= 1 << bit;
            match read(&flipped) {
                Err(failure) => assert_eq!(failure.reason, Reason::SourceIncomplete),
                Ok(kept) => {
                    passed += 1;
                    assert!(free.iter().any(|range| range.contains(&at)), "byte {at}, bit {bit}");
                    assert_eq!(kept.documents, whole.documents);
                }
            }
        }
    }
    assert!(passed > 0);
}

#[test]
fn a_claimed_length_gets_no_memory_before_its_bytes() {
    let mut archive = write(&small(), 1);
    let prelude = memchr::memmem::find(&archive, &TERMINATOR).unwrap() + 4;
    let header = u32::from_le_bytes(*archive[prelude..].first_chunk().unwrap()) as usize;
    archive.truncate(prelude + header);
    let claim = u32::try_from(MAX_DOCUMENT_BYTES).unwrap();
    archive.extend_from_slice(&claim.to_le_bytes());
    let mut reader = ArchiveReader::new("test");
    reader.feed(&archive, &mut Ignored).unwrap();
    reader.feed(&[1; 1000], &mut Ignored).unwrap();
    assert!(reader.room() <= 65_536);
    for beyond in [claim + 1, 0, 4, 0x7fff_ffff, 0xffff_fffe] {
        archive.truncate(prelude + header);
        archive.extend_from_slice(&beyond.to_le_bytes());
        let failure = read(&archive).unwrap_err();
        assert!(failure.message.contains("is damaged: a document of"), "{failure}");
    }
}

#[test]
fn the_largest_document_passes() {
    let mut kept = small();
    let text = "x".repeat(MAX_DOCUMENT_BYTES - 24);
    let large = rawdoc! {"_id": 1, "t": text}.into_bytes();
    assert!((MAX_DOCUMENT_BYTES - 8..=MAX_DOCUMENT_BYTES).contains(&large.len()), "{}", large.len());
    kept.documents[1] = vec![large];
    assert_eq!(read_in_pieces(&write(&kept, 1), 1 << 20).unwrap().documents, kept.documents);
}

#[test]
fn other_versions_and_other_things_are_refused() {
    let archive = write(&small(), 1);
    let at = memchr::memmem::find(&archive, b"0.1").unwrap();
    let mut other = archive.clone();
    other[at + 2] = b'2';
    assert!(read(&other).unwrap_err().message.contains("archive version 0.2 is not known"));
    assert!(read(b"PGDMP and so on").unwrap_err().message.contains("it is no archive of mongodump"));
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same(size in 1_usize..200, turn in 1_usize..4) {
        let archive = write(&small(), turn);
        prop_assert_eq!(read_in_pieces(&archive, size).unwrap(), read(&archive).unwrap());
    }

    #[test]
    fn random_damage_never_panics_and_never_changes_documents(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        size in 1_usize..500,
    ) {
        let archive = write(&small(), 1);
        let whole = read(&archive).unwrap();
        let mut damaged = archive.clone();
        for (at, byte) in &changes {
            let at = at.index(damaged.len());
            damaged[at] = *byte;
        }
        if let Ok(kept) = read_in_pieces(&damaged, size) {
            prop_assert_eq!(kept.documents, whole.documents);
        }
    }

    #[test]
    fn cut_and_spliced_archives_are_not_whole(
        cut in any::<prop::sample::Index>(),
        gap in 1_usize..300,
    ) {
        let archive = write(&small(), 1);
        let at = cut.index(archive.len());
        let mut spliced = archive[..at].to_vec();
        spliced.extend_from_slice(&archive[(at + gap).min(archive.len())..]);
        // Only what the prelude says can be shorter unseen, since nothing in it is summed up.
        if let Ok(kept) = read(&spliced) {
            prop_assert_eq!(kept.documents, read(&archive).unwrap().documents);
        }
    }

    #[test]
    fn noise_is_no_archive(noise in proptest::collection::vec(any::<u8>(), 0..2000), prefix in 0_usize..700) {
        let archive = write(&small(), 1);
        let mut bytes = archive[..prefix.min(archive.len() - 1)].to_vec();
        bytes.extend_from_slice(&noise);
        prop_assert!(read(&bytes).is_err());
    }
}

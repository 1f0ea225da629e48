use proptest::prelude::*;

use super::*;

fn file(path: &[u8], size: u64) -> Entry {
    Entry { path: path.to_vec(), kind: Kind::File { size, data: None }, mode: 0o644, ..Entry::default() }
}

/// An archive of entries with their contents (of sparse files: their data).
pub(crate) fn archive(members: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (entry, content) in members {
        let begin = bytes.len();
        header(entry, &mut bytes).unwrap();
        assert_eq!((bytes.len() - begin) % BLOCK, 0);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.extend_from_slice(&END);
    bytes
}

type Members = Vec<(Entry, Vec<u8>)>;

/// Reads an archive that comes in pieces of this size.
fn read(bytes: &[u8], piece: usize) -> Result<Members, Error> {
    let mut reader = Reader::new();
    let mut members: Members = Vec::new();
    for mut input in bytes.chunks(piece.max(1)) {
        while let Some(event) = reader.next(&mut input)? {
            match event {
                Event::Entry(entry) => members.push((*entry, Vec::new())),
                Event::Data { bytes, .. } => members.last_mut().unwrap().1.extend_from_slice(bytes),
                Event::FileEnd => {}
            }
        }
        assert!(input.is_empty());
    }
    reader.finish()?;
    Ok(members)
}

fn arb_name() -> impl Strategy<Value = Vec<u8>> {
    let component = prop_oneof![
        4 => "[a-z.é ]{1,12}".prop_map(String::into_bytes),
        1 => prop::collection::vec((1_u8..=255).prop_filter("no slash", |b| *b != b'/'), 1..30),
        1 => "[a-z]{80,200}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(component, 1..5).prop_map(|parts| parts.join(&b'/'))
}

fn arb_kind() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let content = prop::collection::vec(any::<u8>(), 0..2000);
    let extents = prop::collection::vec((1_u64..5000, 1_u64..4), 0..40);
    prop_oneof![
        3 => content.prop_map(|c| (Kind::File { size: c.len() as u64, data: None }, c)),
        1 => (extents, 0_u64..9000, any::<u8>()).prop_map(|(gaps, tail, byte)| {
            let (mut at, mut data) = (0, Vec::new());
            for (gap, blocks) in gaps {
                let length = blocks * 512;
                data.push(Extent { offset: at + gap, length });
                at += gap + length;
            }
            let content = vec![byte; usize::try_from(data.iter().map(|e| e.length).sum::<u64>()).unwrap()];
            (Kind::File { size: at + tail, data: Some(data) }, content)
        }),
        1 => Just((Kind::Folder, vec![])),
        1 => arb_name().prop_map(|t| (Kind::Symlink(t), vec![])),
        1 => arb_name().prop_map(|t| (Kind::HardLink(t), vec![])),
        1 => Just((Kind::Fifo, vec![])),
        1 => (any::<bool>(), 0_u32..5000, 0_u32..5000).prop_map(|(block, major, minor)| (Kind::Device { block, major, minor }, vec![])),
    ]
}

fn arb_member() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let id = prop_oneof![3 => 0_u64..70_000, 1 => any::<u32>().prop_map(u64::from)];
    let xattrs =
        prop::collection::btree_map("[a-z]{1,6}\\.[a-zA-Z=]{1,9}", prop::collection::vec(any::<u8>(), 0..300), 0..3);
    let times = (
        prop_oneof![4 => 0_i64..5_000_000_000, 1 => any::<i32>().prop_map(i64::from), 1 => -1_i64 << 40..1 << 40],
        0_u32..1_000_000_000,
    );
    (arb_name(), arb_kind(), 0_u32..0o10000, (id.clone(), id), times, xattrs, "[a-zé]{0,40}", any::<bool>()).prop_map(
        |(path, (kind, content), mode, (uid, gid), (seconds, nanos), xattrs, user, holes)| {
            let xattrs = xattrs.into_iter().map(|(n, v)| (n.replace('=', "-").into_bytes(), v)).collect();
            let entry = Entry {
                path,
                holes_as_zeros: holes && matches!(kind, Kind::File { data: None, .. }),
                kind,
                mode,
                uid,
                gid,
                user: user.into_bytes(),
                group: b"wheel".to_vec(),
                mtime: Mtime { seconds, nanos },
                xattrs,
            };
            (entry, content)
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(members in prop::collection::vec(arb_member(), 0..6), piece in 1_usize..3000) {
        prop_assert_eq!(read(&archive(&members), piece).unwrap(), members);
    }

    #[test]
    fn an_archive_that_is_cut_off_is_never_whole(members in prop::collection::vec(arb_member(), 0..4), cut in any::<prop::sample::Index>()) {
        let bytes = archive(&members);
        let cut = cut.index(bytes.len());
        prop_assert!(read(&bytes[..cut], 700).is_err());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), piece in 1_usize..600) {
        let _ = read(&bytes, piece);
    }

    #[test]
    fn mutated_archives_never_panic_and_never_take_more_memory_than_they_may(
        members in prop::collection::vec(arb_member(), 1..4),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..12),
    ) {
        let mut bytes = archive(&members);
        for (at, value, reseal) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = value;
            if reseal {
                // A header with a checksum that fits gets further into the reader.
                let begin = at / BLOCK * BLOCK;
                let block = &mut bytes[begin..begin + BLOCK];
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Ok(read) = read(&bytes, 4096) {
            prop_assert!(read.iter().all(|(e, _)| !e.path.contains(&0) && e.path.len() <= MAX_NAME_BYTES.max(1 << 20)));
        }
    }
}

#[test]
fn times_before_1970_are_written_as_pax_counts_them() {
    let text = |seconds, nanos| Mtime { seconds, nanos }.to_string();
    assert_eq!(text(0, 0), "0");
    assert_eq!(text(1, 500_000_000), "1.5");
    assert_eq!(text(-1, 500_000_000), "-0.5");
    assert_eq!(text(-2, 750_000_000), "-1.25");
    assert_eq!(text(-3, 0), "-3");
    assert_eq!(text(0, 1), "0.000000001");
}

#[test]
fn names_for_people_are_told_apart() {
    assert_eq!(printable(b"a/\xc3\xa9"), "a/é");
    assert_eq!(printable(b"a\nb\xff\\"), "a\\x0ab\\xff\\\\");
}

#[test]
fn sizes_and_owners_beyond_the_plain_header_are_kept() {
    let mut big = file(b"big", 9 << 40);
    (big.uid, big.gid) = (4_294_967_294, 3_000_000);
    let mut bytes = Vec::new();
    header(&big, &mut bytes).unwrap();
    let mut reader = Reader::new();
    let mut input = bytes.as_slice();
    assert_eq!(reader.next(&mut input).unwrap(), Some(Event::Entry(Box::new(big))));
}

#[test]
fn a_header_that_claims_gigabytes_of_records_is_refused_before_any_memory_is_taken() {
    let mut bytes = Vec::new();
    let mut entry = file(b"a", 0);
    entry.xattrs = vec![(b"user.a".to_vec(), vec![1; 10])];
    header(&entry, &mut bytes).unwrap();
    bytes[124..136].copy_from_slice(b"77777777777\0");
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..BLOCK].iter().map(|b| u32::from(*b)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let error = read(&bytes, 512).unwrap_err();
    assert!(error.to_string().contains("8589934591 bytes"), "{error}");
}

#[test]
fn what_the_format_has_no_place_for_is_refused() {
    let refused = |entry: &Entry| header(entry, &mut Vec::new()).unwrap_err().to_string();
    assert!(refused(&file(b"a\0b", 0)).contains("NUL"));
    assert!(refused(&file(b"", 0)).contains("no name"));
    let mut entry = file(b"a", 0);
    entry.xattrs = vec![(b"user.a=b".to_vec(), vec![])];
    assert!(refused(&entry).contains("equals"));
    entry.xattrs = vec![(b"user.a".to_vec(), vec![0; 2 << 20])];
    assert!(refused(&entry).contains("larger"));
    let hole = |data| Entry { kind: Kind::File { size: 10, data: Some(data) }, ..file(b"a", 0) };
    assert!(refused(&hole(vec![Extent { offset: 5, length: 6 }])).contains("extents"));
    assert!(refused(&hole(vec![Extent { offset: 5, length: 2 }])).contains("whole blocks"));
    assert!(refused(&hole(vec![Extent { offset: 5, length: 5 }, Extent { offset: 6, length: 1 }])).contains("extents"));
}

#[test]
fn an_archive_must_end_with_two_blocks_and_nothing_behind() {
    assert_eq!(read(&END, 100).unwrap(), vec![]);
    assert!(matches!(read(&END[..BLOCK], 100), Err(Error::Cut { .. })));
    assert!(matches!(read(&[], 100), Err(Error::Cut { .. })));
    assert!(read(&[END.as_slice(), &[0; 9000]].concat(), 100).is_ok());
    assert!(
        read(&[END.as_slice(), &[0; 9000], b"x"].concat(), 100).unwrap_err().to_string().contains("behind the end")
    );
    let lone = [&[0; BLOCK], archive(&[(file(b"a", 0), vec![])]).as_slice()].concat();
    assert!(read(&lone, 100).unwrap_err().to_string().contains("stands alone"));
}

//! RDBs that servers wrote and RDBs put together by hand: whole, cut, damaged, and without a checksum.

use proptest::prelude::*;

use super::*;

/// Written by `SAVE` of these servers: every type in its encodings, in databases 0 and 3; in database 0 also what only newer versions have
/// (fields that expire; from Redis 8.6 on producers of streams and metadata of keys). With how many keys database 0 holds.
const CAPTURED: [(&str, &[u8], u64); 5] = [
    ("7.0.15", include_bytes!("fixtures/redis-7.0.rdb"), 25),
    ("8.0.2", include_bytes!("fixtures/redis-8.0.rdb"), 27),
    ("8.6.3", include_bytes!("fixtures/redis-8.6.rdb"), 32),
    ("8.1.1", include_bytes!("fixtures/valkey-8.1.rdb"), 25),
    ("9.1.2", include_bytes!("fixtures/valkey-9.1.rdb"), 27),
];

fn read(bytes: &[u8], piece: usize) -> Result<Inspection, Failure> {
    let mut reader = RdbReader::new("dump");
    for piece in bytes.chunks(piece) {
        reader.feed(piece)?;
    }
    reader.finish()
}

/// Collects all there is.
#[derive(Default)]
struct Collect {
    version: u32,
    functions: Vec<Vec<u8>>,
    keys: Vec<(Entry, Vec<u8>, Vec<u8>)>,
    /// By the place of their keys.
    metadata: BTreeMap<usize, Vec<u8>>,
    besides: Vec<String>,
    /// Of hashes all of whose fields expire, by their keys.
    lapses: BTreeMap<String, i64>,
    ended: usize,
}

impl Visit for Collect {
    const KEEPS: bool = true;

    fn version(&mut self, version: u32) {
        self.version = version;
    }

    fn function(&mut self, library: &[u8]) -> Result<(), Failure> {
        self.functions.push(library.to_vec());
        Ok(())
    }

    fn metadata(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        assert_eq!(self.ended, self.keys.len(), "between two values");
        self.metadata.entry(self.keys.len()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn besides(&mut self, what: String) -> Result<(), Failure> {
        self.besides.push(what);
        Ok(())
    }

    fn begin(&mut self, entry: &Entry, key: &[u8]) -> Result<(), Failure> {
        assert_eq!(self.ended, self.keys.len(), "one value after the other");
        self.keys.push((*entry, key.to_vec(), Vec::new()));
        Ok(())
    }

    fn value(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.keys.last_mut().unwrap().2.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, lapses: Option<i64>) -> Result<(), Failure> {
        if let (Some(at), Some((_, key, _))) = (lapses, self.keys.last()) {
            self.lapses.insert(String::from_utf8_lossy(key).into_owned(), at);
        }
        self.ended += 1;
        Ok(())
    }
}

fn collect(bytes: &[u8], piece: usize) -> Collect {
    let mut reader = RdbReader::visited("dump", Collect::default());
    for piece in bytes.chunks(piece) {
        reader.feed(piece).unwrap();
    }
    reader.finish().unwrap();
    std::mem::take(reader.visitor())
}

/// Puts an RDB together.
struct Rdb(Vec<u8>);

impl Rdb {
    fn new(magic: &str) -> Self {
        Self(magic.as_bytes().to_vec())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// With a length of six bits.
    fn text(self, text: &str) -> Self {
        self.raw(&[u8::try_from(text.len()).unwrap()]).raw(text.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(255);
        let mut crc = Digest::new(CrcAlgorithm::Crc64Redis);
        crc.update(&self.0);
        self.0.extend_from_slice(&crc.finalize().to_le_bytes());
        self.0
    }
}

#[test]
fn what_servers_wrote_is_counted_by_database() {
    for (server, bytes, keys) in CAPTURED {
        let inspection = read(bytes, usize::MAX).unwrap();
        let keys = i64::try_from(keys).unwrap();
        let counts: Vec<(&str, i64)> = inspection.items.iter().map(|item| (item.name.as_str(), item.count)).collect();
        assert_eq!(counts, [("db0", keys), ("db3", 25)], "{server}");
        assert_eq!(inspection.properties["serverVersion"], server);
        assert_eq!(inspection.properties["checksum"], "crc64");
        assert_eq!(inspection.properties["functionLibraries"], "1");
        let expires = if server == "8.6.3" { 2 } else { 1 };
        assert_eq!(inspection.properties["expires"], format!("db0={expires},db3=1"));
        assert_eq!(
            inspection.properties.get("moduleTypes").map(String::as_str),
            (server == "8.6.3").then_some("META-hold")
        );
        for piece in [1, 2, 7, 64, 4096] {
            assert_eq!(read(bytes, piece).unwrap(), inspection, "{server} in pieces of {piece}");
        }
    }
}

#[test]
fn what_is_cut_off_at_any_byte_is_not_whole() {
    for (server, bytes, _) in CAPTURED {
        let mut reader = RdbReader::new("dump of cache:6379");
        for (at, byte) in bytes.iter().enumerate() {
            let failure = reader.finish().unwrap_err();
            assert_eq!(failure.reason, Reason::SourceIncomplete, "{server} cut at {at}");
            assert!(failure.message.contains("dump of cache:6379: it is cut off"), "{}", failure.message);
            reader.feed(&[*byte]).unwrap();
        }
        reader.finish().unwrap();
        assert_eq!(reader.feed(b"\n").unwrap_err().reason, Reason::SourceIncomplete, "something follows");
    }
}

#[test]
fn a_bit_flipped_anywhere_is_found() {
    let small = Rdb::new("REDIS0011")
        .raw(&[250])
        .text("redis-ver")
        .text("7.2.0")
        .raw(&[254, 0, 251, 2, 1, 252])
        .raw(&4_102_444_800_000_u64.to_le_bytes())
        .raw(&[0])
        .text("key")
        .text("value")
        .raw(&[4])
        .text("hash")
        .raw(&[2])
        .text("f")
        .raw(&[0xc0, 7])
        .text("g")
        .raw(&[0xc1, 7, 7])
        .end();
    assert_eq!(read(&small, 3).unwrap().items, [ItemCount { name: "db0".into(), count: 2 }]);
    for bit in 0..small.len() * 8 {
        let mut damaged = small.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let failure = read(&damaged, 5).unwrap_err();
        assert!(
            matches!(failure.reason, Reason::SourceIncomplete | Reason::InvalidConfiguration),
            "bit {bit}: {failure:?}"
        );
    }
}

#[test]
fn keys_come_with_what_was_said_of_them_and_the_bytes_of_their_values() {
    for (server, bytes, count) in CAPTURED {
        let found = collect(bytes, usize::MAX);
        assert_eq!(found.functions.len(), 1, "{server}");
        assert!(String::from_utf8_lossy(&found.functions[0]).contains("redis.register_function('myfunc'"));
        let find = |database: u64, key: &str| {
            let found = found.keys.iter().find(|(e, k, _)| e.database == database && k == key.as_bytes());
            found.unwrap_or_else(|| panic!("{server}: no {key} in {database}"))
        };
        assert_eq!(find(3, "plain").2, b"\x05value");
        assert_eq!(find(0, "int16").2, b"\xc1\xb8\x0b");
        assert_eq!(find(0, "42").2, b"\x0dnumber-as-key", "a key that is written as a number");
        assert_eq!(find(0, "expiring").0.expires, Some(4_102_444_800_000));
        assert_eq!(find(0, "plain").0.expires, None);
        assert_eq!(find(0, &"longkey".repeat(40)).2, b"\x01x", "a key that is compressed");
        assert_eq!(find(0, "set:int").2[..2], [0x18, 4], "an intset");
        assert_eq!(found.keys.iter().filter(|(entry, ..)| entry.database == 0).count() as u64, count);
        for piece in [1, 3, 100] {
            let pieces = collect(bytes, piece);
            assert_eq!(pieces.keys, found.keys, "{server} in pieces of {piece}");
            assert_eq!(pieces.functions, found.functions);
        }
    }
}

#[test]
fn metadata_of_keys_is_told_before_them_as_their_payload_has_it() {
    let (_, bytes, _) = CAPTURED[2];
    let whole = collect(bytes, usize::MAX);
    let beside = |key: &str| {
        let at = whole.keys.iter().position(|(_, found, _)| found == key.as_bytes()).unwrap();
        whole.metadata.get(&at).map(Vec::as_slice)
    };
    // What `DUMP` of the server begins with: one class, its name and version, a number, a string, and the end.
    assert_eq!(beside("meta:plain"), Some(&b"\xf3\x01\x18\x5d\x89\x86\x02\x40\x4d\x05\x08of a key\x00"[..]));
    assert_eq!(beside("meta:hash"), Some(&b"\xf3\x01\x18\x5d\x89\x86\x02\x03\x05\x08of a key\x00"[..]));
    assert_eq!(beside("plain"), None);
    assert_eq!(whole.metadata.len(), 3);
    for piece in [1, 3, 11, 100] {
        assert_eq!(collect(bytes, piece).metadata, whole.metadata, "in pieces of {piece}");
    }
}

#[test]
fn what_belongs_to_no_key_is_told() {
    let rdb =
        Rdb::new("REDIS0013").raw(&[250]).text("redis-ver").text("8.6.3").raw(&[250]).text("mvcc-tstamp").text("7");
    let rdb = rdb.raw(&[247, 0x81]).raw(&[0; 8]).raw(&[2, 1, 0]).raw(&[254, 0, 0]).text("key").text("value");
    let bytes = rdb.end();
    let found = collect(&bytes, 1);
    assert_eq!(found.besides, ["the field \"mvcc-tstamp\"", "data of the module type AAAAAAAAA"]);
    assert_eq!(read(&bytes, 3).unwrap().properties["unknownFields"], "mvcc-tstamp");
}

#[test]
fn a_value_with_its_footer_is_what_dump_gives() {
    // `SET mykey 10`, `DUMP mykey`, as the documentation of the command shows it for version 10.
    let mut payload = Payload::new();
    payload.feed(b"\x00\xc0\n");
    assert_eq!(payload.footer(10), *b"\n\x00n\x9fWE\x0e\xaec\xbb");
}

#[test]
fn the_types_of_older_and_newer_versions_are_followed() {
    let rdb = Rdb::new("REDIS0006").raw(&[254, 1]);
    // zipmap, ziplists, sorted set with scores as text (2.5, -inf), list and set of strings, expiry in seconds.
    let rdb =
        rdb.raw(&[9]).text("zipmap").text("\0\0").raw(&[10]).text("list").text("x").raw(&[12]).text("z").text("x");
    let rdb = rdb.raw(&[13]).text("h").text("x").raw(&[3]).text("zset").raw(&[2]).text("a").text("2.5").text("b");
    let rdb = rdb.raw(&[255, 1]).text("l").raw(&[1]).text("e").raw(&[253]).raw(&(-2_i32).to_le_bytes());
    let rdb = rdb.raw(&[2]).text("s").raw(&[1]).raw(&[0x41, 0x00]).raw(&[b'm'; 256]);
    let found = collect(&rdb.end(), 2);
    let keys: Vec<String> = found.keys.iter().map(|(_, key, _)| String::from_utf8(key.clone()).unwrap()).collect();
    assert_eq!(keys, ["zipmap", "list", "z", "h", "zset", "l", "s"]);
    assert_eq!(found.keys[6].0.expires, Some(-2000));
    assert_eq!(found.keys[6].0.database, 1);

    // Streams of each version with a group, a pending entry and a consumer.
    let id = [0_u8; 16];
    let stream = |kind: u8, rdb: Rdb| {
        let (counts, extra): (&[u8], &[u8]) = if kind == 15 { (&[], &[]) } else { (&[1, 1, 0, 0, 2], &[1]) };
        let rdb = rdb.raw(&[kind]).text("stream").raw(&[1]).text("0123456789abcdef").text("listpack").raw(&[1, 1, 1]);
        let rdb = rdb.raw(counts).raw(&[1]).text("group").raw(&[1, 1]).raw(extra).raw(&[1]).raw(&id).raw(&[0; 8]);
        let rdb = rdb.raw(&[3, 1]).text("consumer").raw(&[0; 8]).raw(if kind == 21 { &[0; 8] } else { &[] });
        rdb.raw(&[1]).raw(&id)
    };
    let rdb = stream(21, stream(19, stream(15, Rdb::new("REDIS0011").raw(&[254, 0]))));
    let rdb = rdb.raw(&[249, 200]).raw(&[248, 0x41, 0x2c]).raw(&[18]).text("q").raw(&[2, 1]).text("plain").raw(&[2]);
    let found = collect(&rdb.text("packed").end(), 1);
    assert_eq!(found.keys.len(), 4);
    assert_eq!((found.keys[3].0.frequency, found.keys[3].0.idle), (Some(200), Some(300)));

    // Fields that expire: of Redis, before and after its release, and of Valkey.
    let ttl = 4_102_444_800_000_u64.to_le_bytes();
    let rdb = Rdb::new("REDIS0012").raw(&[254, 0, 244, 5, 1, 0, 22]).text("h22").raw(&[1, 9]).text("f").text("v");
    let rdb = rdb.raw(&[23]).text("h23").text("x").raw(&[24]).text("h24").raw(&ttl).raw(&[1, 0]).text("f").text("v");
    let found = collect(&rdb.raw(&[25]).text("h25").raw(&ttl).text("x").end(), 9);
    assert_eq!(found.keys.len(), 4);
    let rdb = Rdb::new("VALKEY080").raw(&[243]).text("job").raw(&[1, 0, 9]).raw(&[254, 0, 22]).text("h").raw(&[1]);
    assert_eq!(collect(&rdb.text("f").text("v").raw(&ttl).end(), 4).version, 80);
}

#[test]
fn data_of_modules_is_passed_by_its_marks() {
    // `ReJSON-RL`, version 3.
    let id = "ReJSON-RL".bytes().fold(0_u64, |all, c| {
        let characters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        all << 6 | characters.iter().position(|known| *known == c).unwrap() as u64
    }) << 10
        | 3;
    let module = |rdb: Rdb| rdb.raw(&[0x81]).raw(&id.to_be_bytes());
    let data = |rdb: Rdb| {
        rdb.raw(&[1, 5, 2, 0x80, 0, 0, 0, 9, 3]).raw(&[0; 4]).raw(&[4]).raw(&[0; 8]).raw(&[5]).text("text").raw(&[0])
    };
    let rdb = data(module(Rdb::new("REDIS0010").raw(&[247])).raw(&[2, 1]));
    let rdb = data(module(rdb.raw(&[254, 0, 7]).text("doc"))).raw(&[0]).text("next").text("value");
    let bytes = rdb.end();
    for piece in [1, 4, 1000] {
        let inspection = read(&bytes, piece).unwrap();
        assert_eq!(inspection.items, [ItemCount { name: "db0".into(), count: 2 }]);
        assert_eq!(inspection.properties["moduleTypes"], "ReJSON-RL");
    }
}

#[test]
fn a_checksum_turned_off_is_told() {
    let mut bytes = Rdb::new("REDIS0009").raw(&[254, 0, 0]).text("key").text("value").end();
    let at = bytes.len() - 8;
    bytes[at..].fill(0);
    assert_eq!(read(&bytes, 6).unwrap().properties["checksum"], "off");
}

#[test]
fn what_is_not_known_is_refused_with_words() {
    let table: [(Vec<u8>, Reason, &str); 13] = [
        (b"PGDMP\x01\x0e\0\0".to_vec(), Reason::SourceIncomplete, "it is no RDB"),
        (b"REDIS00x1".to_vec(), Reason::SourceIncomplete, "does not tell its version"),
        (
            b"REDIS0014".to_vec(),
            Reason::InvalidConfiguration,
            "version 14 of Redis, and this version of Holdfast reads 6 to 13",
        ),
        (b"REDIS0080".to_vec(), Reason::InvalidConfiguration, "version 80 of Redis"),
        (b"VALKEY081".to_vec(), Reason::InvalidConfiguration, "version 81 of Valkey"),
        (b"VALKEY013".to_vec(), Reason::InvalidConfiguration, "use a release of Holdfast that reads it"),
        (
            b"REDIS0012\x08".to_vec(),
            Reason::SourceIncomplete,
            "a byte 8 is neither a type nor an opcode of version 12 of Redis",
        ),
        // What is new in version 13 is no part of 12, and what is Redis' is not Valkey's.
        (
            b"REDIS0012\xf3".to_vec(),
            Reason::SourceIncomplete,
            "a byte 243 is neither a type nor an opcode of version 12",
        ),
        (
            b"REDIS0012\x1a".to_vec(),
            Reason::SourceIncomplete,
            "a byte 26 is neither a type nor an opcode of version 12",
        ),
        (
            b"VALKEY080\x1a".to_vec(),
            Reason::SourceIncomplete,
            "a byte 26 is neither a type nor an opcode of version 80 of Valkey",
        ),
        (b"REDIS0013\xf3\x00\xff".to_vec(), Reason::SourceIncomplete, "metadata of a key stands before the opcode 255"),
        (b"REDIS0010\x06".to_vec(), Reason::SourceIncomplete, "release candidate"),
        (b"REDIS0012\xfe\x82".to_vec(), Reason::SourceIncomplete, "a byte 130 begins no length"),
    ];
    for (bytes, reason, words) in table {
        let mut reader = RdbReader::new("dump");
        let failure = reader.feed(&bytes).unwrap_err();
        assert_eq!(failure.reason, reason, "{failure:?}");
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[test]
fn a_value_of_any_size_takes_no_memory() {
    let size = 300_u32 << 20;
    let mut reader = RdbReader::new("dump");
    let rdb = Rdb::new("REDIS0010").raw(&[254, 0, 0]).text("big").raw(&[0x80]).raw(&size.to_be_bytes());
    reader.feed(&rdb.0).unwrap();
    let piece = vec![7; 1 << 20];
    for _ in 0..300 {
        reader.feed(&piece).unwrap();
        assert!(reader.carry.capacity() + reader.texts.capacity() < 4096);
    }
    reader.feed(&[0]).unwrap();
    assert_eq!(reader.keys(), 1);
}

#[test]
fn a_key_too_long_to_be_kept_is_refused_only_where_it_is_kept() {
    let length = u32::try_from(KEEP_LIMIT + 1).unwrap();
    let rdb = Rdb::new("REDIS0010").raw(&[254, 0, 0, 0x80]).raw(&length.to_be_bytes()).0;
    RdbReader::new("dump").feed(&rdb).unwrap();
    let failure = RdbReader::visited("dump", Collect::default()).feed(&rdb).unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(300), ..ProptestConfig::default() })]

    #[test]
    fn however_it_is_split_it_reads_the_same(which in 0..CAPTURED.len(), cuts in prop::collection::vec(1_usize..5000, 1..40)) {
        let bytes = CAPTURED[which].1;
        let mut reader = RdbReader::new("dump");
        let mut rest = bytes;
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            reader.feed(piece).unwrap();
            rest = behind;
        }
        reader.feed(rest).unwrap();
        prop_assert_eq!(reader.finish().unwrap(), read(bytes, usize::MAX).unwrap());
    }

    #[test]
    fn a_bit_flipped_in_what_servers_wrote_is_found(which in 0..CAPTURED.len(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = CAPTURED[which].1.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(read(&bytes, 1000).is_err());
    }

    #[test]
    fn a_piece_left_out_or_put_in_twice_is_found(which in 0..CAPTURED.len(), from in any::<prop::sample::Index>(), length in 1_usize..600, twice: bool) {
        let bytes = CAPTURED[which].1;
        let from = from.index(bytes.len());
        let to = (from + length).min(bytes.len());
        let changed = if twice {
            [&bytes[..to], &bytes[from..]].concat()
        } else {
            [&bytes[..from], &bytes[to..]].concat()
        };
        prop_assert!(read(&changed, 777).is_err());
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), piece in 1_usize..100) {
        let _ = read(&[b"REDIS0013", &bytes[..]].concat(), piece);
        let _ = read(&[b"VALKEY080", &bytes[..]].concat(), piece);
    }
}

/// What the fuzz target does, by chance: many damages at once, with the checksum turned off so that the grammar alone must hold.
#[test]
fn random_mutations_neither_panic_nor_take_memory() {
    let mut random = fastrand::Rng::with_seed(0x5eed);
    for round in 0..1500 {
        let mut bytes = CAPTURED[round % CAPTURED.len()].1.to_vec();
        let end = bytes.len();
        bytes[end - 8..].fill(0);
        for _ in 0..random.usize(1..12) {
            let at = random.usize(9..bytes.len());
            match random.u8(0..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, random.u8(..)),
                _ => bytes[at] = [0x81, 0x80, 0xc3, 0xff, 7, 15, 0][random.usize(0..7)],
            }
            if bytes.len() <= 9 {
                break;
            }
        }
        let mut reader = RdbReader::visited("dump", Collect::default());
        let piece = random.usize(1..4096);
        let _ = bytes.chunks(piece).try_for_each(|piece| reader.feed(piece)).and_then(|()| reader.finish());
        assert!(reader.carry.capacity() < 4 * LONGEST_HEAD + 4096);
    }
}

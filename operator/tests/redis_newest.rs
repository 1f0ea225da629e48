//! The newest Redis and Valkey: what is new in them is saved and comes back, by replication and key by key.

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/cut.rs"]
mod cut;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/redis.rs"]
mod redis;

use std::path::Path;

use cut::Way;
use holdfast::engine::{check_target, dump, prove, restore};
use holdfast::store::manifest::Manifest;
use holdfast::task::Failure;
use holdfast_crds::{OnExisting, Reason, RedisSource, Source};
use memory::{MemorySink, MemorySource};
use redis::{NEWEST, Redis, RedisSecretFiles, fill};

/// Where fields of hashes expire, in milliseconds.
const LATE: &str = "4102444800000";

struct Saved {
    manifest: Manifest,
    source: MemorySource,
}

async fn save(source: RedisSource) -> Result<Saved, Failure> {
    let source = Source { name: "cache".into(), redis: Some(source), ..Source::default() };
    let mut sink = MemorySink::default();
    let dumped = dump(&source, &RedisSecretFiles::none().mounts, Path::new("/nonexistent"), &mut sink).await?;
    let mut manifest = sink.manifest(&dumped.tool_version, &dumped.server_version);
    manifest.engine = "redis".into();
    Ok(Saved { manifest, source: sink.into_source() })
}

impl Saved {
    fn property(&self, name: &str) -> &str {
        self.manifest.artifacts[0].properties.get(name).map_or("", String::as_str)
    }

    /// What the worker does: check, then restore. What it says of it.
    async fn restore_into(&mut self, redis: &Redis) -> Result<String, Failure> {
        let (target, scratch) = (redis.target(&RedisSecretFiles::none()), Path::new("/nonexistent"));
        check_target(&target, &self.manifest, OnExisting::Replace, scratch).await?;
        restore(&target, &self.manifest, OnExisting::Replace, scratch, &mut self.source).await.map(|done| done.message)
    }
}

/// Everything that older servers have as well, and hashes whose fields expire, small and large.
fn fill_with_expiring_fields(redis: &Redis) {
    fill(redis);
    redis.run(&["HSET", "hash:expiring", "late", "v", "never", "v"]);
    redis.run(&["HPEXPIREAT", "hash:expiring", LATE, "FIELDS", "1", "late"]);
    let mut client = redis.client();
    let many = (0..2000).flat_map(|at| [format!("field-{at}"), "v".to_owned()]);
    client.run_all(&[["HSET", "hash:expiring:big"].map(str::to_owned).into_iter().chain(many).collect()]);
    client.run(&["HPEXPIREAT", "hash:expiring:big", LATE, "FIELDS", "2", "field-7", "field-8"]);
}

/// When fields of the hashes expire.
fn expiries(redis: &Redis) -> Vec<i64> {
    let mut client = redis.client();
    let mut ask = |key: &str, fields: [&str; 2]| -> Vec<i64> {
        let answer = client.run(&["HPEXPIRETIME", key, "FIELDS", "2", fields[0], fields[1]]);
        answer.elements().iter().map(redis::Answer::number).collect()
    };
    [ask("hash:expiring", ["late", "never"]), ask("hash:expiring:big", ["field-8", "field-9"])].concat()
}

#[tokio::test]
async fn hashes_whose_fields_expire_come_back_in_each_way() {
    for program in NEWEST {
        for save_setting in ["save 3600 1", "save \"\""] {
            let redis = Redis::newest(program, &[save_setting]);
            fill_with_expiring_fields(&redis);
            let (before, expire) = (redis.content(), expiries(&redis));
            let late: i64 = LATE.parse().unwrap();
            assert_eq!(expire, [late, -1, late, -1]);
            let mut saved = save(redis.source()).await.unwrap();
            let version = if program == "valkey-server" { "80" } else { "13" };
            assert_eq!(saved.property("rdbVersion"), version, "{program}");
            assert_eq!(saved.property("unknownFields"), "", "{program}");
            prove(&saved.manifest, &mut saved.source).await.unwrap();

            for (settings, way) in
                [(&["repl-diskless-load swapdb"][..], "by replication"), (&["save \"\""][..], "key by key")]
            {
                let mut target = Redis::newest(program, settings);
                target.run(&["SET", "old", "key"]);
                let message = saved.restore_into(&target).await.unwrap();
                assert!(message.contains(way) && !message.contains("left out"), "{message}");
                assert_eq!(target.content(), before, "{program}, {way}");
                assert_eq!(expiries(&target), expire, "{program}, {way}");
                if way == "by replication" {
                    target.crash_and_restart();
                    assert_eq!(target.content(), before, "{program}, after a crash");
                }
            }
        }
    }
}

/// Waits until a hash has gone with the last of its fields.
fn lapse(redis: &Redis, key: &str) {
    redis::until("the fields' expiry", || redis.run(&["EXISTS", key]).number() == 0);
}

#[tokio::test]
async fn hashes_whose_fields_have_all_expired_count_as_expired() {
    for program in NEWEST {
        let redis = Redis::newest(program, &["save \"\""]);
        // They expire with their last field: 50,000 small ones, one of another encoding, one that is sent as it comes; and some that stay.
        let mut client = redis.client();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        client.run(&["SET", "stays", "v"]);
        client.run_all(&(0..50_000).map(|at| words(&format!("HSET small:{at} a 1 b 2"))).collect::<Vec<_>>());
        let fields: Vec<String> = (0..1000).map(|at| format!("field-{at}")).collect();
        let long = "v".repeat(8000);
        for (key, value) in [("large", "v"), ("huge", long.as_str())] {
            let mut command = words(&format!("HSET {key}"));
            command.extend(fields.iter().flat_map(|field| [field.clone(), value.to_owned()]));
            client.run_all(&[command]);
        }
        client.run_all(&["HSET part a 1 b 2", "HSET late a 1 b 2", "HSET key a 1"].map(words));
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 20_000;
        let (soon, later) = (at.to_string(), (at + 500).to_string());
        let mut commands = vec![words(&format!("HPEXPIREAT part {soon} FIELDS 1 a"))];
        commands.push(words(&format!("HPEXPIREAT late {LATE} FIELDS 1 b")));
        commands.push(words(&format!("HPEXPIREAT late {soon} FIELDS 1 a")));
        for key in ["large", "huge"] {
            let mut command = words(&format!("HPEXPIREAT {key} {soon} FIELDS 1000"));
            command.extend(fields.clone());
            commands.push(command);
        }
        commands.extend((0..50_000).flat_map(|small| {
            [("a", &soon), ("b", &later)]
                .map(|(field, at)| words(&format!("HPEXPIREAT small:{small} {at} FIELDS 1 {field}")))
        }));
        client.run_all(&commands);
        assert_eq!(redis.run(&["DBSIZE"]).number(), 50_006, "{program}: it took too long");
        let mut saved = save(redis.source()).await.unwrap();
        assert_eq!(saved.property("lapses"), "db0=50003", "{program}");
        lapse(&redis, "small:49999");

        // Fewer than were saved, and each one accounted for.
        let target = Redis::newest(program, &["save \"\""]);
        let message = saved.restore_into(&target).await.unwrap();
        assert!(message.contains("4 keys in 1 databases, 50002 more had expired; key by key"), "{program}: {message}");
        assert_eq!(target.run(&["HGETALL", "late"]).elements().len(), 2, "{program}");
        assert_eq!(target.run(&["HGET", "part", "b"]).text(), "2", "{program}");
        assert_eq!(target.run(&["DBSIZE"]).number(), 4, "{program}");
        // By replication they are loaded, and go at once.
        let target = Redis::newest(program, &[]);
        let message = saved.restore_into(&target).await.unwrap();
        assert!(message.contains("50006 keys in 1 databases, by replication"), "{program}: {message}");
        lapse(&target, "small:49999");
        assert_eq!(target.run(&["GET", "stays"]).text(), "v", "{program}");
    }
}

#[tokio::test]
async fn producers_of_streams_and_metadata_of_keys_come_back_in_each_way() {
    let folder = tempfile::tempdir().unwrap();
    let module = Redis::metadata_module(folder.path());
    let redis = Redis::newest("redis-server", &[&module]);
    fill(&redis);
    let tell =
        |redis: &Redis, sale: &str| redis.run(&["XADD", "sales", "IDMP", "till-7", sale, "*", "sum", "10"]).text();
    // Producers are remembered for a day.
    redis.run(&["XADD", "sales", "1-1", "sum", "0"]);
    redis.run(&["XCFGSET", "sales", "IDMP-DURATION", "86400", "IDMP-MAXSIZE", "5000"]);
    let (first, second) = (tell(&redis, "sale-1"), tell(&redis, "sale-2"));
    assert_eq!(tell(&redis, "sale-1"), first, "it is told twice and written once");
    // Values that are held on their way, one that is sent as it comes (`huge`), and one that expires.
    let metadata = [("plain", "77"), ("huge", "123456789012"), ("expires:late", "3")];
    for (key, number) in metadata {
        redis.run(&["KEYMETA.SET", key, number]);
    }
    let before = redis.content();
    let mut saved = save(redis.source()).await.unwrap();
    assert_eq!(saved.property("moduleTypes"), "META-hold");

    for (settings, way) in [(&[][..], "by replication"), (&["save \"\""][..], "key by key")] {
        let target = Redis::newest("redis-server", &[&[module.as_str()][..], settings].concat());
        let message = saved.restore_into(&target).await.unwrap();
        assert!(message.contains(way) && !message.contains("left out"), "{message}");
        assert_eq!(target.content(), before, "{way}");
        for (key, number) in metadata {
            assert_eq!(target.run(&["KEYMETA.GET", key]).text(), number, "{way}: {key}");
        }
        assert_eq!(target.run(&["KEYMETA.GET", "empty"]).number(), -1, "{way}");
        assert_eq!([tell(&target, "sale-1"), tell(&target, "sale-2")], [first.clone(), second.clone()], "{way}");
        assert_eq!(target.run(&["XLEN", "sales"]).number(), 3, "{way}");
    }

    let without = Redis::newest("redis-server", &[]);
    without.run(&["SET", "mine", "value"]);
    let failure = saved.restore_into(&without).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure:?}");
    assert!(failure.message.contains("keymeta"), "{}", failure.message);
    assert_eq!(without.run(&["GET", "mine"]).text(), "value");
}

#[tokio::test]
async fn a_backup_of_one_is_refused_by_the_other_before_it_is_touched() {
    for (from, into, versions) in [
        (NEWEST[0], NEWEST[1], ["up to version 80", "version 13"]),
        (NEWEST[1], NEWEST[0], ["up to version 13", "version 80"]),
    ] {
        let (redis, target) = (Redis::newest(from, &[]), Redis::newest(into, &[]));
        redis.run(&["SET", "key", "value"]);
        target.run(&["SET", "mine", "value"]);
        let failure = save(redis.source()).await.unwrap().restore_into(&target).await.unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure:?}");
        for words in versions {
            assert!(failure.message.contains(words), "{}", failure.message);
        }
        assert_eq!(target.run(&["GET", "mine"]).text(), "value");
    }
}

/// A server that sends without its disk writes an older version for a replica that says it is older, which has no such hashes, and breaks off.
#[tokio::test]
async fn a_transfer_that_valkey_breaks_off_is_told_with_its_likely_cause() {
    let redis = Redis::newest("valkey-server", &["save \"\""]);
    redis.run(&["HSET", "hash", "late", "v"]);
    redis.run(&["HPEXPIREAT", "hash", LATE, "FIELDS", "1", "late"]);
    let way = Way::changing(redis.port, "9.1.0", "8.1.0");
    let source = RedisSource { port: way.port.into(), ..redis.source() };
    let failure = save(source).await.err().unwrap();
    assert!(redis.log().contains("Can't store key"), "{}", redis.log());
    assert!(matches!(failure.reason, Reason::DumpFailed | Reason::SourceIncomplete), "{failure:?}");
    for words in ["log: where that says \"Can't store key\"", "Valkey 9.1"] {
        assert!(failure.message.contains(words), "{}", failure.message);
    }
    save(redis.source()).await.unwrap();
}

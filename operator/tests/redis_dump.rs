//! Dumps of real servers: whole or refused, by both ways of transfer, and nothing is written on the server.

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/cut.rs"]
mod cut;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/redis.rs"]
mod redis;
#[path = "support/relay.rs"]
mod relay;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use cut::Way;
use holdfast::engine::{Dumped, dump};
use holdfast::task::Failure;
use holdfast_crds::{ConfigMapKey, Reason, RedisSource, Source, TlsMode, TlsSpec};
use memory::MemorySink;
use redis::{Redis, RedisSecretFiles, fill, until};

async fn dump_of(source: RedisSource, secret: &RedisSecretFiles, sink: &mut MemorySink) -> Result<Dumped, Failure> {
    let source = Source { name: "cache".into(), redis: Some(source), ..Source::default() };
    dump(&source, &secret.mounts, std::path::Path::new("/nonexistent"), sink).await
}

#[tokio::test]
async fn every_key_of_every_database_is_counted() {
    // It saves to its disk, as it does by itself, and sends that; or it sends while it saves; or its disk is all it is set to.
    let table = [("save 3600 1", "yes", false), ("save \"\"", "yes", true), ("save \"\"", "no", false)];
    for (save, diskless, sent_directly) in table {
        let redis = Redis::start(&[save, &format!("repl-diskless-sync {diskless}")]);
        fill(&redis);
        let before = redis.content();
        let mut sink = MemorySink::default();
        let dumped = dump_of(redis.source(), &RedisSecretFiles::none(), &mut sink).await.unwrap();
        let stored = sink.artifact("dump.rdb");
        let counts: BTreeMap<String, i64> = sink.counts("dump.rdb");
        let keys =
            |database: &str| i64::try_from(before.keys().filter(|key| key.starts_with(database)).count()).unwrap();
        assert_eq!(counts, BTreeMap::from([("db0".into(), keys("0/")), ("db5".into(), keys("5/"))]));
        assert_eq!(stored.entry.properties["checksum"], "crc64");
        assert_eq!(stored.entry.properties["functionLibraries"], "1");
        assert_eq!(stored.entry.properties["role"], "primary");
        assert_eq!(stored.entry.format, "rdb");
        assert_eq!(dumped.consistency, "snapshot");
        let name = if redis.info("server_name") == "valkey" { "Valkey" } else { "Redis" };
        assert!(dumped.server_version.starts_with(name), "{}", dumped.server_version);
        assert!(dumped.tool_version.starts_with("holdfast "));
        // Valkey 9 sends without its disk to those who want no more than the dump, whatever it is told.
        let sent = redis.log().contains("with target: replicas");
        assert!(sent == sent_directly || dumped.server_version.starts_with("Valkey 9"), "{}", redis.log());
        assert_eq!(redis.content(), before, "nothing was changed");
        until("the end of the replica's link", || redis.info("connected_slaves") == "0");
    }
}

#[tokio::test]
async fn the_artifact_is_a_dump_that_the_server_itself_starts_from() {
    let mut redis = Redis::start(&["appendonly no"]);
    fill(&redis);
    let before = redis.content();
    let mut sink = MemorySink::default();
    dump_of(redis.source(), &RedisSecretFiles::none(), &mut sink).await.unwrap();
    let checked = redis.data().join("checked.rdb");
    fs::write(&checked, &sink.artifact("dump.rdb").bytes).unwrap();
    // The stock tool knows the versions up to its own server's.
    if std::env::var_os("HOLDFAST_TEST_REDIS_SERVER").is_none() {
        let output = Command::new("redis-check-rdb").arg(&checked).output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(words.contains("RDB looks OK"), "{words}");
    }
    redis.run(&["FLUSHALL"]);
    redis.kill();
    fs::rename(&checked, redis.data().join("dump.rdb")).unwrap();
    redis.crash_and_restart();
    assert_eq!(redis.content(), before);
}

#[tokio::test]
async fn a_server_is_reached_by_its_address_of_ipv6_with_and_without_brackets() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let Some(port) = relay::by_ipv6(u16::try_from(redis.source().port).unwrap()) else {
        return eprintln!("this machine has no IPv6");
    };
    for host in ["::1", "[::1]"] {
        let source = RedisSource { host: host.into(), port: port.into(), ..redis.source() };
        let dumped = dump_of(source, &RedisSecretFiles::none(), &mut MemorySink::default()).await;
        assert!(dumped.is_ok(), "{host}: {:?}", dumped.err());
    }
}

#[tokio::test]
async fn an_empty_server_is_a_backup_too() {
    let redis = Redis::start(&[]);
    let mut sink = MemorySink::default();
    dump_of(redis.source(), &RedisSecretFiles::none(), &mut sink).await.unwrap();
    assert_eq!(sink.artifact("dump.rdb").entry.items, 0);
}

#[tokio::test]
async fn a_replica_is_saved_like_a_primary() {
    let primary = Redis::start(&[]);
    primary.run(&["SET", "key", "value"]);
    let replica = Redis::start(&[&format!("replicaof 127.0.0.1 {}", primary.port)]);
    until("the replica's synchronisation", || replica.info("master_link_status") == "up");
    let mut sink = MemorySink::default();
    dump_of(replica.source(), &RedisSecretFiles::none(), &mut sink).await.unwrap();
    assert_eq!(sink.artifact("dump.rdb").entry.properties["role"], "replica");
    assert_eq!(sink.counts("dump.rdb"), BTreeMap::from([("db0".into(), 1)]));
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let redis = Redis::with_password(&[], "s3cret pass".replace(' ', "-").as_str());
    let mut client = redis.client();
    client.run(&["ACL", "SETUSER", "backup", "on", ">pw", "-@all", "+psync", "+replconf", "+ping", "+info"]);
    client.run(&["ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@read", "+info", "+replconf"]);
    client.run(&["ACL", "SETUSER", "blind", "on", ">pw", "-@all", "+ping"]);
    client.run(&["SET", "key", "value"]);
    let table = [
        (RedisSecretFiles::none(), Err("NOAUTH")),
        (RedisSecretFiles::of(None, "wrong"), Err("WRONGPASS")),
        (RedisSecretFiles::of(Some("nobody"), "s3cret-pass"), Err("WRONGPASS")),
        (RedisSecretFiles::of(Some("weak"), "pw"), Err("NOPERM")),
        (RedisSecretFiles::of(Some("blind"), "pw"), Err("NOPERM")),
        (RedisSecretFiles::of(None, "s3cret-pass"), Ok(())),
        (RedisSecretFiles::of(Some("backup"), "pw"), Ok(())),
    ];
    for (secret, expected) in table {
        let mut sink = MemorySink::default();
        let saved = dump_of(redis.source(), &secret, &mut sink).await;
        match expected {
            Ok(()) => assert!(saved.is_ok(), "{saved:?}"),
            Err(words) => {
                let failure = saved.unwrap_err();
                assert_eq!(failure.reason, Reason::SourceRefused, "{failure:?}");
                assert!(failure.message.contains(words), "{}", failure.message);
                assert!(!failure.message.contains("s3cret"), "{}", failure.message);
                assert!(sink.stored.is_empty());
            }
        }
    }
    // A password that the server does not ask for does no harm.
    let open = Redis::start(&[]);
    dump_of(open.source(), &RedisSecretFiles::of(None, "any"), &mut MemorySink::default()).await.unwrap();
}

#[tokio::test]
async fn what_is_no_redis_or_not_there_is_told_so() {
    let redis = Redis::start(&[]);
    let (secret, mut sink) = (RedisSecretFiles::none(), MemorySink::default());
    let nobody = RedisSource { port: 1, ..redis.source() };
    let failure = dump_of(nobody, &secret, &mut sink).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceUnreachable);
    assert!(failure.message.contains("127.0.0.1:1"), "{}", failure.message);
    let nowhere = RedisSource { host: "no-such-host.invalid".into(), ..redis.source() };
    assert_eq!(dump_of(nowhere, &secret, &mut sink).await.unwrap_err().reason, Reason::SourceUnreachable);
}

#[tokio::test]
async fn a_connection_cut_anywhere_makes_no_backup() {
    for diskless in ["no", "yes"] {
        let redis = Redis::start(&["save \"\"", &format!("repl-diskless-sync {diskless}")]);
        fill(&redis);
        for bytes in [1, 500, 9_000, 400_000] {
            let way = Way::to(redis.port);
            way.cut_after(bytes);
            let mut sink = MemorySink::default();
            let source = RedisSource { port: way.port.into(), ..redis.source() };
            let failure = dump_of(source, &RedisSecretFiles::none(), &mut sink).await.unwrap_err();
            assert!(
                matches!(failure.reason, Reason::SourceUnreachable | Reason::SourceIncomplete | Reason::DumpFailed),
                "{failure:?}"
            );
            assert!(way.is_cut());
            assert!(sink.stored.is_empty(), "cut after {bytes} bytes");
        }
    }
}

#[tokio::test]
async fn a_server_whose_disk_fails_sends_without_or_is_told_so() {
    for diskless in ["yes", "no"] {
        let redis = Redis::start(&[&format!("repl-diskless-sync {diskless}")]);
        redis.run(&["SET", "key", "value"]);
        // It saves into its folder first, where nothing can be written any more.
        fs::remove_dir_all(redis.data()).unwrap();
        let mut sink = MemorySink::default();
        let saved = dump_of(redis.source(), &RedisSecretFiles::none(), &mut sink).await;
        assert!(redis.log().contains("Failed opening"), "{}", redis.log());
        if redis.log().contains("with target: replicas") {
            saved.unwrap();
            assert_eq!(sink.counts("dump.rdb"), BTreeMap::from([("db0".into(), 1)]));
            continue;
        }
        assert_eq!(diskless, "no");
        let failure = saved.unwrap_err();
        assert_eq!(failure.reason, Reason::DumpFailed, "{failure:?}");
        assert!(failure.message.contains("log"), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_dropped_dump_leaves_no_replica_behind() {
    let redis = Redis::start(&["save \"\"", "repl-diskless-sync yes", "repl-diskless-sync-delay 600"]);
    redis.run(&["SET", "key", "value"]);
    let (source, secret) = (redis.source(), RedisSecretFiles::none());
    let mut sink = MemorySink::default();
    let seen = async {
        while redis.info("connected_slaves") != "1" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = dump_of(source, &secret, &mut sink) => unreachable!("it waits for ten minutes"),
        () = seen => {}
    }
    until("the end of the replica's link", || redis.info("connected_slaves") == "0");
}

#[tokio::test]
async fn encryption_is_as_the_policy_says() {
    let redis = Redis::encrypted(&[]);
    let with = |host: &str, mode, ca: Option<&std::path::Path>| {
        let mut secret = RedisSecretFiles::none();
        secret.mounts.ca = ca.map(Into::into);
        let ca_bundle = ca.map(|_| ConfigMapKey { config_map: "ca".into(), key: "ca.crt".into() });
        (RedisSource { host: host.into(), tls: TlsSpec { mode, ca_bundle }, ..redis.source() }, secret)
    };
    let authority = redis.authority();
    let other = Redis::encrypted(&[]);
    let strangers = other.authority();
    let table = [
        (with("localhost", TlsMode::Prefer, None), None),
        (with("localhost", TlsMode::Require, None), None),
        (with("127.0.0.1", TlsMode::Require, None), None),
        (with("127.0.0.1", TlsMode::VerifyCa, Some(&authority)), None),
        (with("localhost", TlsMode::VerifyFull, Some(&authority)), None),
        (with("127.0.0.1", TlsMode::VerifyFull, Some(&authority)), Some(Reason::SourceRefused)),
        (with("localhost", TlsMode::VerifyCa, Some(&strangers)), Some(Reason::SourceRefused)),
        (with("localhost", TlsMode::VerifyFull, None), Some(Reason::SourceRefused)),
        (with("localhost", TlsMode::Disable, None), Some(Reason::SourceUnreachable)),
    ];
    for ((source, secret), expected) in table {
        let mode = source.tls.mode;
        let saved = dump_of(source, &secret, &mut MemorySink::default()).await;
        assert_eq!(saved.as_ref().err().map(|failure| failure.reason), expected, "{mode:?}: {saved:?}");
    }
    // A server without encryption: preferred is not required.
    let plain = Redis::start(&[]);
    let tls = |mode| RedisSource { tls: TlsSpec { mode, ca_bundle: None }, ..plain.source() };
    let none = RedisSecretFiles::none();
    dump_of(tls(TlsMode::Prefer), &none, &mut MemorySink::default()).await.unwrap();
}

//! Restores into real servers: what comes back is what was saved, settings and roles are as before, and a target is never left worse.

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/cut.rs"]
mod cut;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/redis.rs"]
mod redis;

use std::path::Path;

use cut::Way;
use holdfast::engine::{Restored, check_target, dump, restore};
use holdfast::store::manifest::Manifest;
use holdfast::task::{Failure, RestoreTarget, Target};
use holdfast_crds::{OnExisting, Reason, RedisSource, Source, TlsMode};
use memory::{MemorySink, MemorySource, Spoil};
use redis::{Redis, RedisSecretFiles, fill, until};

/// A backup in memory.
struct Saved {
    manifest: Manifest,
    source: MemorySource,
}

async fn save(source: RedisSource, secret: &RedisSecretFiles) -> Saved {
    let source = Source { name: "cache".into(), redis: Some(source), ..Source::default() };
    let mut sink = MemorySink::default();
    let dumped = dump(&source, &secret.mounts, Path::new("/nonexistent"), &mut sink).await.unwrap();
    Saved { manifest: sink.manifest(&dumped.tool_version, &dumped.server_version), source: sink.into_source() }
}

async fn save_open(redis: &Redis) -> Saved {
    save(redis.source(), &RedisSecretFiles::none()).await
}

impl Saved {
    /// What the worker does: check, then restore.
    async fn restore(&mut self, target: &RestoreTarget, on_existing: OnExisting) -> Result<Restored, Failure> {
        let scratch = Path::new("/nonexistent");
        check_target(target, &self.manifest, on_existing, scratch).await?;
        restore(target, &self.manifest, on_existing, scratch, &mut self.source).await
    }

    async fn restore_into(&mut self, redis: &Redis, on_existing: OnExisting) -> Result<Restored, Failure> {
        self.restore(&redis.target(&RedisSecretFiles::none()), on_existing).await
    }
}

/// Settings that make a server choose the way by keys: it keeps nothing on its disk.
const FORGETFUL: [&str; 1] = ["save \"\""];

#[tokio::test]
async fn a_server_comes_back_by_replication_with_its_settings_as_they_were() {
    let redis = Redis::start(&["masterauth something", "replica-priority 7"]);
    fill(&redis);
    let before = redis.content();
    let functions = redis.run(&["FUNCTION", "LIST", "WITHCODE"]);
    let mut saved = save_open(&redis).await;

    // In place: some keys changed, some gone, some new.
    redis.run(&["SET", "plain", "changed"]);
    redis.run(&["DEL", "stream", "huge"]);
    redis.run(&["SET", "new", "key"]);
    redis.run(&["FUNCTION", "FLUSH"]);
    let settings = redis.all_settings();
    let failure = saved.restore_into(&redis, OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TargetNotEmpty);
    assert_eq!(redis.run(&["GET", "plain"]).text(), "changed", "nothing was touched");
    let restored = saved.restore_into(&redis, OnExisting::Replace).await.unwrap();
    assert!(restored.message.contains("by replication"), "{}", restored.message);
    assert_eq!(restored.items, i64::try_from(before.len()).unwrap());
    assert_eq!(redis.content(), before);
    assert_eq!(redis.run(&["FUNCTION", "LIST", "WITHCODE"]), functions);
    assert_eq!(redis.all_settings(), settings);
    assert_eq!(redis.info("role"), "master");
    assert_eq!(redis.run(&["SET", "plain", "written"]).text(), "OK", "it takes writes again");

    // Elsewhere.
    let other = Redis::start(&[]);
    saved.restore_into(&other, OnExisting::Fail).await.unwrap();
    assert_eq!(other.content(), before);
}

#[tokio::test]
async fn what_was_restored_is_there_after_a_crash() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let before = redis.content();
    let mut saved = save_open(&redis).await;
    // By replication into an append-only file, into an RDB, and without a disk in between; key by key likewise.
    let by_key = "rename-command REPLICAOF \"\"";
    let load = "repl-diskless-load swapdb";
    for settings in [&["appendonly yes"][..], &[], &[load], &["appendonly yes", by_key], &[by_key]] {
        let mut target = Redis::start(settings);
        target.run(&["SET", "old", "key"]);
        let restored = saved.restore_into(&target, OnExisting::Replace).await.unwrap();
        let keys = settings.contains(&by_key);
        assert_eq!(restored.message.contains("key by key"), keys, "{settings:?}: {}", restored.message);
        assert_eq!(target.content(), before, "{settings:?}");
        assert_eq!(target.info("aof_enabled"), if settings.contains(&"appendonly yes") { "1" } else { "0" });
        if settings == ["appendonly yes", by_key] {
            // The append-only file is written every second.
            until("the append-only file's writing", || {
                target.info("aof_buffer_length") == "0" && target.info("aof_pending_bio_fsync") == "0"
            });
        }
        target.crash_and_restart();
        assert_eq!(target.content(), before, "{settings:?}, after a crash");
        assert_eq!(target.info("role"), "master");
    }
}

#[tokio::test]
async fn a_server_comes_back_key_by_key() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let before = redis.content();
    let functions = redis.run(&["FUNCTION", "LIST", "WITHCODE"]);
    let mut saved = save_open(&redis).await;
    let target = Redis::start(&FORGETFUL);
    target.run(&["SET", "old", "key"]);
    assert_eq!(saved.restore_into(&target, OnExisting::Fail).await.unwrap_err().reason, Reason::TargetNotEmpty);
    let restored = saved.restore_into(&target, OnExisting::Replace).await.unwrap();
    assert!(restored.message.contains("key by key, since it keeps nothing on its disk"), "{}", restored.message);
    assert_eq!(restored.items, i64::try_from(before.len()).unwrap());
    assert_eq!(target.content(), before);
    assert_eq!(target.run(&["FUNCTION", "LIST", "WITHCODE"]), functions);
    assert!(!target.data().join("dump.rdb").exists());

    // Into an empty one, without what it may not do.
    let guarded = Redis::with_password(&FORGETFUL, "admin");
    let rights = ["on", ">pw", "~*", "-@all", "+restore", "+info", "+select", "+function"];
    guarded.run(&[&["ACL", "SETUSER", "restorer"][..], &rights].concat());
    let secret = RedisSecretFiles::of(Some("restorer"), "pw");
    saved.restore(&guarded.target(&secret), OnExisting::Fail).await.unwrap();
    assert_eq!(guarded.content(), before);
    let failure = saved.restore(&guarded.target(&secret), OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "it may not empty it: {failure:?}");
    assert_eq!(guarded.content(), before, "nothing was touched");
}

#[tokio::test]
async fn keys_go_into_another_database() {
    let redis = Redis::start(&[]);
    redis.client().run_all(&(0..100).map(|n| vec!["SET".into(), format!("key:{n}"), "v".into()]).collect::<Vec<_>>());
    let library = "#!lua name=tests\nredis.register_function('echo', function(keys, args) return args[1] end)";
    redis.run(&["FUNCTION", "LOAD", library]);
    let mut saved = save_open(&redis).await;
    redis.run(&["DEL", "key:7"]);
    let none = RedisSecretFiles::none();
    let restored = saved.restore(&redis.target_database(&none, Some(9)), OnExisting::Fail).await.unwrap();
    assert_eq!(restored.items, 100);
    let content = redis.content();
    assert_eq!(content.keys().filter(|key| key.starts_with("9/")).count(), 100);
    assert_eq!(content.keys().filter(|key| key.starts_with("0/")).count(), 99, "the others stay as they are");
    let again = saved.restore(&redis.target_database(&none, Some(9)), OnExisting::Fail).await.unwrap_err();
    assert_eq!(again.reason, Reason::TargetNotEmpty);
    let mut client = redis.client();
    client.run(&["SELECT", "9"]);
    client.run(&["SET", "new", "key"]);
    saved.restore(&redis.target_database(&none, Some(9)), OnExisting::Replace).await.unwrap();
    assert_eq!(client.run(&["DBSIZE"]).number(), 100);
    assert_eq!(redis.run(&["DBSIZE"]).number(), 99);
    let beyond = saved.restore(&redis.target_database(&none, Some(16)), OnExisting::Fail).await.unwrap_err();
    assert_eq!(beyond.reason, Reason::InvalidConfiguration);
    assert!(beyond.message.contains("no database 16"), "{}", beyond.message);
    // Keys of several databases do not fit into one.
    client.run(&["SELECT", "3"]);
    client.run(&["SET", "k", "v"]);
    let mut several = save_open(&redis).await;
    let failure = several.restore(&redis.target_database(&none, Some(1)), OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration);
}

#[tokio::test]
async fn keys_that_have_expired_meanwhile_do_not_come_back() {
    let redis = Redis::start(&[]);
    redis.run(&["SET", "stays", "v"]);
    redis.run(&["SET", "soon", "v", "PX", "1500"]);
    // It is saved with the key, whatever the server would do about it.
    let mut saved = save_open(&redis).await;
    until("the key's expiry", || redis.run(&["EXISTS", "soon"]).number() == 0);
    for (settings, keys) in [(&[][..], 2), (&FORGETFUL[..], 1)] {
        let target = Redis::start(settings);
        let restored = saved.restore_into(&target, OnExisting::Fail).await.unwrap();
        // By replication it is loaded, and expires at once.
        assert_eq!(restored.items, keys, "{}", restored.message);
        assert_eq!(target.run(&["EXISTS", "soon"]).number(), 0);
        assert_eq!(target.run(&["EXISTS", "stays"]).number(), 1);
    }
}

#[tokio::test]
async fn a_damaged_backup_touches_nothing() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let mut saved = save_open(&redis).await;
    let whole = saved.source.stored[0].bytes.clone();
    let load = ["repl-diskless-load on-empty-db"];
    for settings in [&[][..], &load, &FORGETFUL] {
        let target = Redis::start(settings);
        fill(&target);
        target.run(&["SET", "mine", "value"]);
        let (before, configured) = (target.content(), target.all_settings());
        let unharmed = |what: &str| {
            assert_eq!(target.info("role"), "master", "{settings:?}: {what}");
            assert_eq!(target.content(), before, "{settings:?}: {what}");
            assert_eq!(target.all_settings(), configured, "{settings:?}: {what}");
        };
        for spoil in [Spoil::Checksum, Spoil::CutAt(100), Spoil::CutAt(whole.len() / 2)] {
            saved.source.spoil = Some(spoil);
            let failure = saved.restore_into(&target, OnExisting::Replace).await.unwrap_err();
            assert!(matches!(failure.reason, Reason::ChecksumMismatch | Reason::StoreUnreachable), "{failure:?}");
            unharmed(&format!("{spoil:?}"));
        }
        saved.source.spoil = None;
        // What the store finds right, and is no whole RDB.
        let mut flipped = whole.clone();
        flipped[whole.len() / 3] ^= 4;
        for damaged in [whole[..whole.len() - 9].to_vec(), flipped] {
            saved.source.stored[0].bytes = damaged;
            let failure = saved.restore_into(&target, OnExisting::Replace).await.unwrap_err();
            assert_eq!(failure.reason, Reason::SourceIncomplete, "{failure:?}");
            unharmed("damaged");
        }
        saved.source.stored[0].bytes.clone_from(&whole);
    }
}

#[tokio::test]
async fn a_restore_that_is_dropped_leaves_a_primary() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let mut saved = save_open(&redis).await;
    let target = Redis::start(&[]);
    target.run(&["SET", "mine", "value"]);
    let before = target.content();
    // It stops in the middle for as long as it likes.
    let (stuck, is_stuck) = std::sync::mpsc::channel::<()>();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    saved.source.spoil = Some(Spoil::CutAt(saved.source.stored[0].bytes.len() / 2));
    saved.source.before_end = Some(std::sync::Arc::new(move || {
        stuck.send(()).unwrap();
        let _ = released.lock().unwrap().recv();
    }));
    let half_way = async {
        tokio::task::spawn_blocking(move || is_stuck.recv()).await.unwrap().unwrap();
        assert_eq!(target.info("role"), "slave");
    };
    tokio::select! {
        _ = saved.restore_into(&target, OnExisting::Replace) => unreachable!("it is stuck"),
        () = half_way => {}
    }
    assert_eq!(target.info("role"), "master");
    assert_eq!(target.content(), before);
    drop(release);
}

#[tokio::test]
async fn a_target_whose_worker_was_killed_is_mended_by_the_next_restore() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let before = redis.content();
    let mut saved = save_open(&redis).await;
    for settings in [&[][..], &FORGETFUL] {
        let target = Redis::start(settings);
        target.run(&["SET", "mine", "value"]);
        // A port of a worker's, where nobody listens.
        target.run(&["REPLICAOF", "127.0.0.1", "46878"]);
        until("the replica's trying", || target.info("master_link_status") == "down");
        let restored = saved.restore_into(&target, OnExisting::Replace).await.unwrap();
        assert_eq!(restored.items, i64::try_from(before.len()).unwrap());
        assert_eq!(target.info("role"), "master");
        assert_eq!(target.content(), before);
    }
}

#[tokio::test]
async fn a_replica_is_left_alone_and_its_primary_named() {
    let redis = Redis::start(&[]);
    redis.run(&["SET", "key", "value"]);
    let mut saved = save_open(&redis).await;
    let replica = Redis::start(&[&format!("replicaof 127.0.0.1 {}", redis.port)]);
    until("the replica's synchronisation", || replica.info("master_link_status") == "up");
    let failure = saved.restore_into(&replica, OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration);
    assert!(failure.message.contains(&format!("127.0.0.1:{}", redis.port)), "{}", failure.message);
    assert_eq!(replica.info("role"), "slave");

    // A primary's replicas follow it.
    redis.run(&["SET", "key", "changed"]);
    saved.restore_into(&redis, OnExisting::Replace).await.unwrap();
    until("the replica's following", || {
        replica.info("master_link_status") == "up" && replica.run(&["GET", "key"]).text() == "value"
    });
}

#[tokio::test]
async fn a_target_that_cannot_hold_it_is_told_so_before_it_is_touched() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let mut saved = save_open(&redis).await;
    let few = Redis::start(&["databases 2"]);
    few.run(&["SET", "mine", "value"]);
    let failure = saved.restore_into(&few, OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure:?}");
    assert!(failure.message.contains("no database 5"), "{}", failure.message);
    let small = Redis::start(&["maxmemory 3mb"]);
    let failure = saved.restore_into(&small, OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoSpace, "{failure:?}");
    // Values longer than one argument may be.
    let short = Redis::start(&["save \"\"", "proto-max-bulk-len 1mb"]);
    short.run(&["SET", "mine", "value"]);
    let failure = saved.restore_into(&short, OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure:?}");
    assert!(failure.message.contains("huge") && failure.message.contains("proto-max-bulk-len"), "{}", failure.message);
    // A backup of a version that no server reads yet.
    saved.manifest.artifacts[0].properties.insert("rdbVersion".into(), "99".into());
    let failure = saved.restore_into(&few, OnExisting::Replace).await.unwrap_err();
    assert!(failure.message.contains("version 99"), "{}", failure.message);
    assert_eq!(few.run(&["GET", "mine"]).text(), "value");
    assert_eq!(short.run(&["GET", "mine"]).text(), "value");
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_is_no_success() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let before = redis.content();
    let mut saved = save_open(&redis).await;
    let none = RedisSecretFiles::none();
    let at = |port: u16| {
        let mut target = redis.target(&none);
        let Target::Redis(server) = &mut target.server else { unreachable!() };
        server.port = port.into();
        target
    };
    // Key by key: some of it is there, and it says so.
    let target = Redis::start(&FORGETFUL);
    for bytes in [2_000_000, 6_000_000] {
        let way = Way::to(target.port);
        way.cut_after(bytes);
        let failure = saved.restore(&at(way.port), OnExisting::Replace).await.unwrap_err();
        assert!(way.is_cut());
        assert_eq!(failure.reason, Reason::SourceUnreachable, "{failure:?}");
        assert!(failure.message.contains("what was restored up to there"), "{}", failure.message);
    }
    // By replication: the target comes to the worker by itself, so it is its own end that is cut, by a crash.
    let mut target = Redis::start(&[]);
    target.run(&["SET", "mine", "value"]);
    target.run(&["SAVE"]);
    let port = target.port;
    saved.source.spoil = Some(Spoil::CutAt(saved.source.stored[0].bytes.len() / 2));
    let shared = std::sync::Arc::new(std::sync::Mutex::new(target));
    let victim = shared.clone();
    saved.source.before_end = Some(std::sync::Arc::new(move || victim.lock().unwrap().kill()));
    let failure = saved.restore(&at(port), OnExisting::Replace).await.unwrap_err();
    assert_ne!(failure.reason, Reason::Completed);
    saved.source.before_end = None;
    target = std::sync::Arc::into_inner(shared).unwrap().into_inner().unwrap();
    target.crash_and_restart();
    assert_eq!(target.info("role"), "master");
    assert_eq!(target.run(&["GET", "mine"]).text(), "value");
    saved.source.spoil = None;
    saved.restore_into(&target, OnExisting::Replace).await.unwrap();
    assert_eq!(target.content(), before);
}

#[tokio::test]
async fn a_target_that_cannot_write_its_disk_keeps_its_data() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let mut saved = save_open(&redis).await;
    let target = Redis::start(&[]);
    target.run(&["SET", "mine", "value"]);
    std::fs::remove_dir_all(target.data()).unwrap();
    let failure = saved.restore_into(&target, OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::RestoreFailed, "{failure:?}");
    assert!(failure.message.contains("its disk") || failure.message.contains("log"), "{}", failure.message);
    assert_eq!(target.info("role"), "master");
    assert_eq!(target.run(&["GET", "mine"]).text(), "value");
}

#[tokio::test]
async fn an_encrypted_target_gets_its_keys_over_the_encrypted_connection() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let mut saved = save_open(&redis).await;
    let target = Redis::encrypted(&[]);
    let secret = RedisSecretFiles::none();
    let mut to = target.target(&secret);
    let Target::Redis(server) = &mut to.server else { unreachable!() };
    server.host = "localhost".into();
    server.tls.mode = TlsMode::VerifyFull;
    to.mounts.ca = Some(target.authority());
    let restored = saved.restore(&to, OnExisting::Fail).await.unwrap();
    assert!(restored.message.contains("the connection is encrypted"), "{}", restored.message);
    let failure = saved.restore(&to, OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TargetNotEmpty);
    // The same keys, by saving it once more.
    let source = RedisSource { host: "localhost".into(), tls: server_tls(&to), ..target.source() };
    let mut files = RedisSecretFiles::none();
    files.mounts.ca = Some(target.authority());
    let mut again = save(source, &files).await;
    let plain = Redis::start(&[]);
    again.restore_into(&plain, OnExisting::Fail).await.unwrap();
    assert_eq!(plain.content(), redis.content());
}

fn server_tls(target: &RestoreTarget) -> holdfast_crds::TlsSpec {
    let Target::Redis(server) = &target.server else { unreachable!() };
    server.tls.clone()
}

/// Three primaries that share the slots.
fn cluster() -> Vec<Redis> {
    let nodes: Vec<Redis> =
        (0..3).map(|_| Redis::start(&["cluster-enabled yes", "cluster-node-timeout 5000"])).collect();
    for (node, range) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        node.run(&["CLUSTER", "ADDSLOTSRANGE", range.0, range.1]);
        node.run(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]);
    }
    until("the cluster's coming together", || {
        nodes.iter().all(|node| {
            let info = node.run(&["CLUSTER", "INFO"]).text();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    });
    nodes
}

fn content_of(nodes: &[Redis]) -> std::collections::BTreeMap<String, String> {
    nodes.iter().flat_map(Redis::content).collect()
}

#[tokio::test]
async fn a_cluster_is_saved_by_its_primaries_and_comes_back_by_its_slots() {
    let nodes = cluster();
    let alone = Redis::start(&[]);
    // A single server's keys go to the primaries of their slots.
    let mut client = alone.client();
    client.run_all(&(0..2000).map(|n| vec!["SET".into(), format!("key:{n}"), format!("{n}")]).collect::<Vec<_>>());
    client.run(&["HSET", "{tag}hash", "f", "v"]);
    client.run(&["SET", "{tag}expires", "v", "PXAT", "4102444800123"]);
    let library = "#!lua name=tests\nredis.register_function('echo', function(keys, args) return args[1] end)";
    client.run(&["FUNCTION", "LOAD", library]);
    let mut saved = save_open(&alone).await;
    let restored = saved.restore_into(&nodes[1], OnExisting::Fail).await.unwrap();
    assert_eq!(restored.items, 2002);
    assert!(restored.message.contains("it is a cluster"), "{}", restored.message);
    assert_eq!(content_of(&nodes), alone.content());
    for node in &nodes {
        assert!(node.run(&["DBSIZE"]).number() > 100);
        assert_eq!(node.run(&["FUNCTION", "LIST"]).elements().len(), 1);
    }

    // The cluster itself: one artifact a primary.
    let mut whole = save_open(&nodes[2]).await;
    let mut names: Vec<String> = whole.manifest.artifacts.iter().map(|entry| entry.name.clone()).collect();
    let mut expected: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1-{}.rdb", node.port)).collect();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    let before = content_of(&nodes);
    assert_eq!(whole.restore_into(&nodes[0], OnExisting::Fail).await.unwrap_err().reason, Reason::TargetNotEmpty);
    nodes[0].run(&["FLUSHALL"]);
    whole.restore_into(&nodes[0], OnExisting::Replace).await.unwrap();
    assert_eq!(content_of(&nodes), before);
    // And into a single server.
    let other = Redis::start(&[]);
    let restored = whole.restore_into(&other, OnExisting::Fail).await.unwrap();
    assert!(restored.message.contains("the backup is that of a cluster"), "{}", restored.message);
    assert_eq!(other.content(), before);
    // Keys of other databases have no place in a cluster.
    client.run(&["SELECT", "1"]);
    client.run(&["SET", "k", "v"]);
    let failure = save_open(&alone).await.restore_into(&nodes[0], OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure:?}");
    assert_eq!(content_of(&nodes), before);
}

#[tokio::test]
async fn a_user_with_just_the_rights_that_the_docs_name_restores_by_replication() {
    let redis = Redis::start(&[]);
    fill(&redis);
    let before = redis.content();
    let mut saved = save_open(&redis).await;
    let target = Redis::with_password(&["masterauth other", "masteruser someone"], "admin");
    target.run(&["SET", "mine", "value"]);
    let rights = ["+replicaof", "+config|get", "+client|list", "+info", "+select", "+function"];
    target.run(&[&["ACL", "SETUSER", "restorer", "on", ">pw", "-@all"][..], &rights].concat());
    let secret = RedisSecretFiles::of(Some("restorer"), "pw");
    let settings = target.all_settings();
    let restored = saved.restore(&target.target(&secret), OnExisting::Replace).await.unwrap();
    assert!(restored.message.contains("by replication"), "{}", restored.message);
    assert_eq!(target.content(), before);
    assert_eq!(target.all_settings(), settings);
}

#[tokio::test]
async fn what_a_target_may_not_is_done_key_by_key_or_refused() {
    let redis = Redis::start(&[]);
    redis.run(&["SET", "key", "value"]);
    let mut saved = save_open(&redis).await;
    // It wants TLS for replication, Sentinel watches it, or it has the command switched off.
    let wants_tls = Redis::start(&["tls-replication yes"]);
    let watched = Redis::start(&[]);
    let mut sentinel = watched.client();
    sentinel.run(&["CLIENT", "SETNAME", "sentinel-0123abcd-pubsub"]);
    sentinel.run(&["SUBSCRIBE", "__sentinel__:hello"]);
    let switched_off = Redis::start(&["rename-command REPLICAOF \"\""]);
    for (target, why) in [
        (&wants_tls, "tls-replication"),
        (&watched, "Sentinel watches"),
        (&switched_off, "REPLICAOF is not for this user"),
    ] {
        let restored = saved.restore_into(target, OnExisting::Fail).await.unwrap();
        assert!(restored.message.contains(why), "{}", restored.message);
        assert_eq!(target.run(&["GET", "key"]).text(), "value");
        assert_eq!(target.info("role"), "master");
    }
    // Who may not ask for settings finds it out from the target itself.
    wants_tls.run(&["FLUSHALL"]);
    wants_tls.run(&["ACL", "SETUSER", "unasking", "on", ">pw", "~*", "+@all", "-config"]);
    let secret = RedisSecretFiles::of(Some("unasking"), "pw");
    let restored = saved.restore(&wants_tls.target(&secret), OnExisting::Fail).await.unwrap();
    assert!(restored.message.contains("it wants TLS for replication"), "{}", restored.message);
    assert_eq!(wants_tls.info("role"), "master");
    assert_eq!(wants_tls.run(&["GET", "key"]).text(), "value");

    let target = Redis::with_password(&[], "admin");
    target.run(&["SET", "mine", "value"]);
    target.run(&["ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+info", "+select"]);
    let secret = RedisSecretFiles::of(Some("reader"), "pw");
    let failure = saved.restore(&target.target(&secret), OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure:?}");
    assert_eq!(target.run(&["GET", "mine"]).text(), "value");
}

#[tokio::test]
async fn what_belongs_to_no_key_is_named_where_it_goes_key_by_key() {
    let redis = Redis::start(&[]);
    redis.run(&["SET", "key", "value"]);
    let mut saved = save_open(&redis).await;
    // A field behind the magic and its version, as another program writes one, and no checksum.
    let bytes = &mut saved.source.stored[0].bytes;
    bytes.splice(9..9, *b"\xfa\x0bmvcc-tstamp\x017");
    let end = bytes.len() - 8;
    bytes[end..].fill(0);
    let target = Redis::start(&FORGETFUL);
    let restored = saved.restore_into(&target, OnExisting::Fail).await.unwrap();
    assert!(restored.message.contains("left out, since it belongs to no key"), "{}", restored.message);
    assert!(restored.message.ends_with("the field \"mvcc-tstamp\""), "{}", restored.message);
    assert_eq!(target.run(&["GET", "key"]).text(), "value");
}

/// Small keys, for each of which a server keeps more than for its value.
fn fill_with_small_keys(redis: &Redis, count: usize, expire: &str) {
    let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    redis.client().run_all(&(0..count).map(|n| words(format!("SET key:{n} v{expire}"))).collect::<Vec<_>>());
}

#[tokio::test]
async fn keys_that_the_target_evicts_are_no_success() {
    let redis = Redis::start(&[]);
    fill_with_small_keys(&redis, 40_000, " PXAT 4102444800000");
    let number = |name: &str| redis.info(name).parse::<u64>().unwrap();
    // Its values fit, and what the server keeps for each key does not.
    let limit = format!("maxmemory {}", number("used_memory_dataset").midpoint(number("used_memory")));
    let mut saved = save_open(&redis).await;
    for way in ["save 3600 1", FORGETFUL[0]] {
        for policy in ["allkeys-lru", "volatile-lru"] {
            let target = Redis::start(&[way, &limit, &format!("maxmemory-policy {policy}")]);
            target.run(&["SET", "mine", "value"]);
            let failure = saved.restore_into(&target, OnExisting::Replace).await.unwrap_err();
            assert_eq!(failure.reason, Reason::NoSpace, "{way}, {policy}: {failure:?}");
            assert!(failure.message.contains("raise it to more"), "{}", failure.message);
            assert_eq!(target.run(&["GET", "mine"]).text(), "value", "nothing was touched");

            // A backup that does not tell how much memory is needed: it is found out at the end, though all of the keys expire some day.
            let told = saved.manifest.artifacts[0].properties.remove("heldMemory").unwrap();
            let failure = saved.restore_into(&target, OnExisting::Replace).await.unwrap_err();
            saved.manifest.artifacts[0].properties.insert("heldMemory".into(), told);
            assert_eq!(failure.reason, Reason::NoSpace, "{way}, {policy}: {failure:?}");
            assert!(failure.message.contains("evicted"), "{}", failure.message);
            assert_eq!(target.info("role"), "master");
        }
    }
    // A target that has the memory takes it.
    let limit = format!("maxmemory {}", number("used_memory") + (1 << 20));
    let target = Redis::start(&[&limit, "maxmemory-policy allkeys-lru"]);
    saved.restore_into(&target, OnExisting::Fail).await.unwrap();
    assert_eq!(target.run(&["DBSIZE"]).number(), 40_000);
}

/// A key of a slot, and the slot.
fn key_of(node: &Redis, begins: &str, range: std::ops::RangeInclusive<i64>) -> (String, String) {
    let slot = |key: &str| node.run(&["CLUSTER", "KEYSLOT", key]).number();
    let key = (0..100_000).map(|n| format!("{begins}:{n}")).find(|key| range.contains(&slot(key))).unwrap();
    let slot = slot(&key).to_string();
    (key, slot)
}

/// Begins to move a slot between primaries, as whoever reshards a cluster does.
fn open_slot(from: &Redis, to: &Redis, slot: &str) {
    let (id, other) = (from.run(&["CLUSTER", "MYID"]).text(), to.run(&["CLUSTER", "MYID"]).text());
    assert_eq!(to.run(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &id]).text(), "OK");
    assert_eq!(from.run(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &other]).text(), "OK");
}

fn close_slot(nodes: &[Redis], slot: &str) {
    for node in nodes {
        node.run(&["CLUSTER", "SETSLOT", slot, "STABLE"]);
    }
}

async fn try_to_save(redis: &Redis, sink: &mut MemorySink) -> Result<(), Failure> {
    let source = Source { name: "cache".into(), redis: Some(redis.source()), ..Source::default() };
    dump(&source, &RedisSecretFiles::none().mounts, Path::new("/nonexistent"), sink).await.map(drop)
}

#[tokio::test]
async fn a_key_that_moves_while_a_cluster_is_saved_is_not_lost_unsaid() {
    let nodes = std::sync::Arc::new(cluster());
    // The first primary is saved first; meanwhile a key comes to it from the second one, whose slot it stays.
    let (key, slot) = key_of(&nodes[1], "moves", 5461..=10922);
    nodes[1].run(&["SET", &key, "value"]);
    open_slot(&nodes[1], &nodes[0], &slot);
    let mut sink = MemorySink::default();
    let failure = try_to_save(&nodes[2], &mut sink).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceIncomplete, "{failure:?}");
    assert!(failure.message.contains(&format!("open slots: {slot} (importing, at")), "{}", failure.message);
    assert!(sink.stored.is_empty(), "it was seen beforehand");
    let failure = saved_elsewhere().await.restore_into(&nodes[0], OnExisting::Replace).await.unwrap_err();
    assert!(failure.message.contains(&slot), "a target is found out likewise: {failure:?}");

    // It is waited for.
    let closing = nodes.clone();
    let (opened, early) = (slot.clone(), std::time::Instant::now());
    let closer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        close_slot(&closing, &opened);
    });
    let mut sink = MemorySink::default();
    try_to_save(&nodes[2], &mut sink).await.unwrap();
    closer.join().unwrap();
    assert!(early.elapsed().as_secs() >= 2);
    assert_eq!(sink.stored.len(), 3);

    // It begins while the first one is saved.
    let (moving, moved, of) = (nodes.clone(), key.clone(), slot.clone());
    let hook = Box::new(move |bytes| {
        if bytes == 0 {
            open_slot(&moving[1], &moving[0], &of);
            let port = moving[0].port.to_string();
            assert_eq!(moving[1].run(&["MIGRATE", "127.0.0.1", &port, &moved, "0", "5000"]).text(), "OK");
        }
    });
    let mut sink = MemorySink { hook: Some(hook), ..MemorySink::default() };
    let failure = try_to_save(&nodes[2], &mut sink).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceIncomplete, "{failure:?}");
    assert!(failure.message.contains(&slot), "{}", failure.message);
    let holds = |stored: &memory::Stored| memchr::memmem::find(&stored.bytes, key.as_bytes()).is_some();
    assert!(!sink.stored.iter().any(holds), "the key is in none of them");
}

/// A backup of a single server.
async fn saved_elsewhere() -> Saved {
    let alone = Redis::start(&[]);
    alone.run(&["SET", "key", "value"]);
    save_open(&alone).await
}

#[tokio::test]
async fn of_a_primary_only_keys_of_its_slots_come_back() {
    let nodes = cluster();
    // Both are the second primary's; what the first one has of them is left over from a slot that moved.
    let (both, slot) = key_of(&nodes[1], "both", 5461..=10922);
    let (alone, other) = key_of(&nodes[1], "alone", 5461..=10922);
    nodes[1].run(&["SET", &both, "right"]);
    nodes[0].run(&["SET", &key_of(&nodes[0], "own", 0..=5460).0, "value"]);
    let before = content_of(&nodes);
    let mut first = nodes[0].client();
    for (key, slot) in [(&both, &slot), (&alone, &other)] {
        nodes[0].run(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &nodes[1].run(&["CLUSTER", "MYID"]).text()]);
        first.run(&["ASKING"]);
        assert_eq!(first.run(&["SET", key, "left over"]).text(), "OK");
        nodes[0].run(&["CLUSTER", "SETSLOT", slot, "STABLE"]);
    }
    let mut saved = save_open(&nodes[2]).await;
    let strays: Vec<Option<&str>> =
        saved.manifest.artifacts.iter().map(|entry| entry.properties.get("strays").map(String::as_str)).collect();
    assert_eq!(strays, [Some("2"), None, None]);

    let single = Redis::start(&[]);
    let restored = saved.restore_into(&single, OnExisting::Fail).await.unwrap();
    assert_eq!(restored.items, 2);
    assert!(restored.message.contains("2 keys left out, of slots that another primary served"), "{}", restored.message);
    assert_eq!(single.content(), before);
    saved.restore_into(&nodes[1], OnExisting::Replace).await.unwrap();
    assert_eq!(content_of(&nodes), before);
}

#[tokio::test]
async fn a_module_that_no_key_needs_is_not_asked_for() {
    let redis = Redis::start(&[]);
    redis.run(&["SET", "key", "value"]);
    let mut saved = save_open(&redis).await;
    // Data of a search module, such as Redis 8 writes with every dump, and no checksum.
    let entry = &mut saved.source.stored[0];
    let id = "ft_index0".bytes().fold(0_u64, |all, c| {
        let characters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        all << 6 | characters.iter().position(|known| *known == c).unwrap() as u64
    }) << 10;
    entry.bytes.splice(9..9, [&[0xf7, 0x81][..], &id.to_be_bytes(), &[2, 1, 0]].concat());
    let end = entry.bytes.len() - 8;
    entry.bytes[end..].fill(0);
    // As a dump of it tells.
    let mut reader = holdfast::archive::rdb::RdbReader::new("dump");
    holdfast::engine::Inspect::feed(&mut reader, &entry.bytes).unwrap();
    let properties = holdfast::engine::Inspect::finish(&mut reader).unwrap().properties;
    let manifest = &mut saved.manifest.artifacts[0].properties;
    manifest.extend(properties);
    manifest.insert("modules".into(), "ReJSON,bf,search,timeseries,vectorset".into());
    // By replication the server would end.
    let target = Redis::start(&[]);
    target.run(&["SET", "mine", "value"]);
    let restored = saved.restore_into(&target, OnExisting::Replace).await.unwrap();
    assert!(
        restored.message.contains("key by key, since no key needs the module that it has not loaded"),
        "{restored:?}"
    );
    assert!(restored.message.ends_with("data of the module type ft_index0"), "{}", restored.message);
    assert_eq!(target.run(&["GET", "key"]).text(), "value");
    // Where a key needs one, it and no other is asked for.
    let manifest = &mut saved.manifest.artifacts[0].properties;
    manifest.insert("moduleTypes".into(), "TSDB-TYPE".into());
    let failure = saved.restore_into(&target, OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure:?}");
    assert!(failure.message.ends_with("it has not loaded timeseries for TSDB-TYPE"), "{}", failure.message);
}

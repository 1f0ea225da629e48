//! Database servers with troubles of their own, in the middle of a backup or of a restore: they restart, and their disks are full. No false
//! success, and a target is afterwards what it was.
//!
//! Full disks need root, for a file system of the server's own; elsewhere these tests say that they are skipped.

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/forum.rs"]
mod forum;
#[path = "support/mongodb.rs"]
mod mongo;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bson::{Document, doc};
use forum::{assert_same, contents};
use holdfast::engine::{Dumped, Restored, check_target, dump, restore};
use holdfast::store::manifest::Manifest;
use holdfast::task::{Failure, MongodbTarget, Mounts, RestoreTarget, Target};
use holdfast_crds::{MongodbSource, OnExisting, PostgresSource, Reason, Source};
use postgres::{Cluster, MemorySink, MemorySource, Spoil};
use redis::{Redis, RedisSecretFiles};

/// A backup in memory.
struct Saved {
    manifest: Manifest,
    source: MemorySource,
}

/// What a worker does: reads a source.
async fn save(source: &Source, mounts: &Mounts, scratch: &Path, sink: &mut MemorySink) -> Result<Dumped, Failure> {
    let dumped = dump(source, mounts, scratch, sink).await;
    assert!(dumped.is_ok() || sink.stored.is_empty(), "half a dump counts as one");
    dumped
}

fn saved(dumped: &Dumped, sink: MemorySink) -> Saved {
    Saved { manifest: sink.manifest(&dumped.tool_version, &dumped.server_version), source: sink.into_source() }
}

impl Saved {
    /// What a worker does: checks, then restores over what is there.
    async fn restore(&mut self, target: &RestoreTarget, scratch: &Path) -> Result<Restored, Failure> {
        check_target(target, &self.manifest, OnExisting::Replace, scratch).await?;
        restore(target, &self.manifest, OnExisting::Replace, scratch, &mut self.source).await
    }

    /// Something happens when this many bytes are still to come, and then all of them come.
    fn when_left(&mut self, bytes: usize, what: impl Fn() + Send + Sync + 'static) {
        self.source.spoil = Some(Spoil::PauseAt(bytes));
        self.source.before_end = Some(Arc::new(what));
    }

    fn heal(&mut self) {
        self.source.spoil = None;
        self.source.before_end = None;
    }
}

/// Acts once, when this many bytes of a dump have come.
fn when_read(sink: &mut MemorySink, bytes: usize, mut what: impl FnMut() + Send + 'static) {
    let mut done = false;
    sink.hook = Some(Box::new(move |read| {
        if read > bytes && !std::mem::replace(&mut done, true) {
            what();
        }
    }));
}

/// Whether a full disk can be had.
#[allow(clippy::explicit_write)]
fn small_disks(test: &str) -> bool {
    let possible = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    if !possible {
        // Past what the test runner keeps to itself of tests that pass.
        writeln!(std::io::stderr(), "SKIPPED: {test}: it needs root, for a disk of its own").unwrap();
    }
    possible
}

const NOWHERE: &str = "/nonexistent";

// Postgres

async fn save_postgres(cluster: &Cluster, database: &str, sink: &mut MemorySink) -> Result<Dumped, Failure> {
    let secret = postgres::Secret::superuser();
    let source = PostgresSource { database: Some(database.into()), ..cluster.source() };
    let source = Source { name: "db".into(), postgres: Some(source), ..Source::default() };
    save(&source, &secret.mounts, &secret.scratch(), sink).await
}

async fn restore_postgres(saved: &mut Saved, cluster: &Cluster, database: &str) -> Result<Restored, Failure> {
    let secret = postgres::Secret::superuser();
    let restored = saved.restore(&cluster.target(&secret.mounts, Some(database)), &secret.scratch()).await;
    assert_eq!(secret.leftovers(), Vec::<String>::new());
    restored
}

/// A table of this many MiB.
fn fill_postgres(cluster: &Cluster, database: &str, mebibytes: usize) {
    cluster.create_database(database);
    let rows = mebibytes * 1000;
    cluster.sql(
        database,
        &format!("CREATE TABLE big (i int PRIMARY KEY, t text); INSERT INTO big SELECT i, repeat('x', 1000) FROM generate_series(1, {rows}) i"),
    );
}

#[tokio::test]
async fn a_postgres_server_that_restarts_makes_no_dump_and_keeps_what_a_restore_would_have_replaced() {
    let cluster = Arc::new(Cluster::start());
    fill_postgres(&cluster, "shop", 20);
    let mut sink = MemorySink::default();
    let restarting = cluster.clone();
    when_read(&mut sink, 1_000_000, move || restarting.restart());
    let failure = save_postgres(&cluster, "shop", &mut sink).await.unwrap_err();
    assert!(matches!(failure.reason, Reason::DumpFailed | Reason::SourceUnreachable), "{failure}");

    let mut sink = MemorySink::default();
    let dumped = save_postgres(&cluster, "shop", &mut sink).await.unwrap();
    let mut saved = saved(&dumped, sink);
    cluster
        .sql("shop", "CREATE TABLE precious (i int); INSERT INTO precious VALUES (42); DELETE FROM big WHERE i > 10");
    let before = cluster.fingerprint("shop");
    let restarting = cluster.clone();
    saved.when_left(5_000_000, move || restarting.restart());
    let failure = restore_postgres(&mut saved, &cluster, "shop").await.unwrap_err();
    assert!(matches!(failure.reason, Reason::RestoreFailed | Reason::SourceUnreachable), "{failure}");
    assert!(failure.message.contains("the database is as it was before"), "{failure}");
    assert_eq!(cluster.fingerprint("shop"), before);
    // Once more, and nothing of the first try is left.
    saved.heal();
    restore_postgres(&mut saved, &cluster, "shop").await.unwrap();
    assert_eq!(cluster.sql("shop", "SELECT count(*) FROM big"), "20000");
    assert_eq!(cluster.databases().iter().filter(|name| name.contains("holdfast")).count(), 0);
}

#[tokio::test]
async fn a_postgres_server_whose_disk_is_full_says_so_and_keeps_the_old_database() {
    if !small_disks("a full disk under Postgres") {
        return;
    }
    let source = Cluster::shared();
    fill_postgres(&source, "spacious", 60);
    let mut sink = MemorySink::default();
    let dumped = save_postgres(&source, "spacious", &mut sink).await.unwrap();
    let mut saved = saved(&dumped, sink);
    // What it writes ahead does not fill the disk: where a server cannot write that it does not say so, it ends.
    let target = Cluster::start_with(&["wal_level=minimal", "max_wal_senders=0"], Some(400));
    target.create_database("spacious");
    target.sql("spacious", "CREATE TABLE precious (i int); INSERT INTO precious VALUES (42); CHECKPOINT");
    let before = target.fingerprint("spacious");
    target.disk().leave(30 << 20);
    let failure = restore_postgres(&mut saved, &target, "spacious").await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoSpace, "{failure}");
    assert!(failure.message.contains("make room on the server's disk"), "{failure}");
    assert!(failure.message.ends_with("; the database is as it was before"), "{failure}");
    assert_eq!(target.fingerprint("spacious"), before);
    assert_eq!(target.databases().iter().filter(|name| name.contains("holdfast")).count(), 0);
    target.disk().make_room();
    restore_postgres(&mut saved, &target, "spacious").await.unwrap();
    assert_eq!(target.sql("spacious", "SELECT count(*) FROM big"), "60000");
}

// Redis

async fn save_redis(redis: &Redis, sink: &mut MemorySink) -> Result<Dumped, Failure> {
    let source = Source { name: "cache".into(), redis: Some(redis.source()), ..Source::default() };
    save(&source, &RedisSecretFiles::none().mounts, Path::new(NOWHERE), sink).await
}

async fn restore_redis(saved: &mut Saved, target: &RestoreTarget) -> Result<Restored, Failure> {
    saved.restore(target, Path::new(NOWHERE)).await
}

/// This many MiB in a few keys.
fn fill_redis(redis: &Redis, mebibytes: usize) {
    let mut client = redis.client();
    for key in 0..mebibytes {
        // No two bytes in a row are alike, so that the dump is as large.
        let value: Vec<u8> =
            (0..1_usize << 20).map(|at| u8::try_from((at * 31 + at / 256 + key) % 251).unwrap()).collect();
        client.run_bytes(&[b"SET", format!("key{key}").as_bytes(), &value]);
    }
}

#[tokio::test]
async fn a_redis_server_that_restarts_makes_no_dump_and_keeps_what_a_restore_would_have_replaced() {
    let redis = Redis::start(&["rdbcompression no"]);
    fill_redis(&redis, 30);
    redis.run(&["SAVE"]);
    let before = redis.content();
    let shared = Arc::new(Mutex::new(redis));
    let restarting = shared.clone();
    let mut sink = MemorySink::default();
    when_read(&mut sink, 1_000_000, move || restarting.lock().unwrap().crash_and_restart());
    let source = shared.lock().unwrap().source();
    let source = Source { name: "cache".into(), redis: Some(source), ..Source::default() };
    let mounts = RedisSecretFiles::none().mounts.clone();
    let failure = save(&source, &mounts, Path::new(NOWHERE), &mut sink).await.unwrap_err();
    drop(sink);
    assert!(matches!(failure.reason, Reason::SourceUnreachable | Reason::SourceIncomplete), "{failure}");
    let redis = Arc::into_inner(shared).unwrap().into_inner().unwrap();
    assert_eq!(redis.content(), before);

    let mut sink = MemorySink::default();
    let dumped = save_redis(&redis, &mut sink).await.unwrap();
    let mut saved = saved(&dumped, sink);
    let target = Redis::start(&["rdbcompression no"]);
    target.run(&["SET", "mine", "value"]);
    target.run(&["SAVE"]);
    let (old, settings) = (target.content(), target.all_settings());
    let to = target.target(&RedisSecretFiles::none());
    let shared = Arc::new(Mutex::new(target));
    let restarting = shared.clone();
    saved.when_left(10_000_000, move || restarting.lock().unwrap().crash_and_restart());
    let failure = restore_redis(&mut saved, &to).await.unwrap_err();
    assert!(matches!(failure.reason, Reason::RestoreFailed | Reason::SourceUnreachable), "{failure}");
    saved.heal();
    let target = Arc::into_inner(shared).unwrap().into_inner().unwrap();
    assert_eq!(target.info("role"), "master");
    assert_eq!(target.content(), old);
    assert_eq!(target.all_settings(), settings);
    restore_redis(&mut saved, &to).await.unwrap();
    assert_eq!(target.content(), before);
}

#[tokio::test]
async fn a_redis_server_whose_disk_is_full_keeps_its_data_and_its_role() {
    if !small_disks("a full disk under Redis") {
        return;
    }
    let redis = Redis::start(&["rdbcompression no"]);
    fill_redis(&redis, 30);
    let before = redis.content();
    let mut sink = MemorySink::default();
    let dumped = save_redis(&redis, &mut sink).await.unwrap();
    let mut saved = saved(&dumped, sink);
    let target = Redis::on_disk(&["rdbcompression no"], 64);
    target.run(&["SET", "mine", "value"]);
    target.run(&["SAVE"]);
    let (old, settings) = (target.content(), target.all_settings());
    target.disk().leave(12 << 20);
    let to = target.target(&RedisSecretFiles::none());
    let failure = restore_redis(&mut saved, &to).await.unwrap_err();
    // A server that takes a dump as a replica does not say why it stopped: only its log does.
    assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
    assert!(failure.message.contains("is its disk full") && failure.message.contains("it kept its data"), "{failure}");
    assert_eq!(target.info("role"), "master");
    assert_eq!(target.content(), old);
    assert_eq!(target.all_settings(), settings);
    target.disk().make_room();
    restore_redis(&mut saved, &to).await.unwrap();
    assert_eq!(target.content(), before);

    // Key by key, since it saves nothing to its disk but what it is told.
    let target = Redis::on_disk(&["save \"\"", "appendonly yes", "repl-diskless-load swapdb"], 64);
    target.run(&["SET", "mine", "value"]);
    target.disk().leave(12 << 20);
    let to = target.target_database(&RedisSecretFiles::none(), Some(3));
    let failure = restore_redis(&mut saved, &to).await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoSpace, "{failure}");
    assert!(failure.message.contains("what was restored up to there is in the target"), "{failure}");
    assert_eq!(target.run(&["GET", "mine"]).text(), "value");
}

// MongoDB

async fn save_mongodb(server: &mongo::Server, database: &str, sink: &mut MemorySink) -> Result<Dumped, Failure> {
    let source = MongodbSource { database: Some(database.into()), ..MongodbSource::default() };
    let source = Source { name: "chat".into(), mongodb: Some(source), ..Source::default() };
    let uri = format!("{}?serverSelectionTimeoutMS=2000", server.uri());
    save(&source, &forum::Secret::of(&uri).mounts, Path::new(NOWHERE), sink).await
}

async fn restore_mongodb(saved: &mut Saved, server: &mongo::Server) -> Result<Restored, Failure> {
    let secret = forum::Secret::of(&format!("{}?serverSelectionTimeoutMS=2000", server.uri()));
    let server = Target::Mongodb(MongodbTarget::default());
    let target = RestoreTarget { source: "chat".into(), mounts: secret.mounts.clone(), server };
    saved.restore(&target, &PathBuf::from(NOWHERE)).await
}

/// A collection of this many MiB.
async fn fill_mongodb(server: &mongo::Server, database: &str, mebibytes: usize) {
    let client = forum::client(&server.uri()).await;
    let many: Vec<Document> = (0..1000).map(|_| doc! {"text": "x".repeat(1000)}).collect();
    for _ in 0..mebibytes {
        client.database(database).collection::<Document>("many").insert_many(&many).await.unwrap();
    }
}

#[tokio::test]
async fn a_mongodb_server_that_restarts_makes_no_dump_and_keeps_what_a_restore_would_have_replaced() {
    let server = Arc::new(mongo::Server::start());
    fill_mongodb(&server, "forum", 20).await;
    let mut sink = MemorySink::default();
    let restarting = server.clone();
    when_read(&mut sink, 1_000_000, move || {
        restarting.kill();
        restarting.start_again();
    });
    let failure = save_mongodb(&server, "forum", &mut sink).await.unwrap_err();
    assert!(matches!(failure.reason, Reason::DumpFailed | Reason::SourceUnreachable), "{failure}");

    let mut sink = MemorySink::default();
    let dumped = save_mongodb(&server, "forum", &mut sink).await.unwrap();
    let mut saved = saved(&dumped, sink);
    let client = forum::client(&server.uri()).await;
    client.database("forum").collection::<Document>("precious").insert_one(doc! {"_id": 42}).await.unwrap();
    let before = contents(&client, "forum").await;
    let restarting = server.clone();
    saved.when_left(5_000_000, move || {
        restarting.kill();
        restarting.start_again();
    });
    let failure = restore_mongodb(&mut saved, &server).await.unwrap_err();
    assert!(matches!(failure.reason, Reason::RestoreFailed | Reason::SourceUnreachable), "{failure}");
    let client = forum::client(&server.uri()).await;
    let mut found = contents(&client, "forum").await;
    found.retain(|name, _| !name.starts_with("holdfast_"));
    assert_same(&found, &before);
    saved.heal();
    restore_mongodb(&mut saved, &server).await.unwrap();
    assert_same(&contents(&client, "forum").await, &before);
}

#[tokio::test]
async fn a_mongodb_server_whose_disk_is_full_says_so_and_keeps_the_old_collections() {
    if !small_disks("a full disk under MongoDB") {
        return;
    }
    let source = mongo::Server::start();
    fill_mongodb(&source, "forum", 60).await;
    let mut sink = MemorySink::default();
    let dumped = save_mongodb(&source, "forum", &mut sink).await.unwrap();
    drop(source);
    let mut saved = saved(&dumped, sink);
    let target = mongo::Server::on_disk(600);
    let client = forum::client(&target.uri()).await;
    client.database("forum").collection::<Document>("many").insert_one(doc! {"_id": "precious"}).await.unwrap();
    let before = contents(&client, "forum").await;
    target.disk().leave(40 << 20);
    let failure = restore_mongodb(&mut saved, &target).await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoSpace, "{failure}");
    assert!(failure.message.contains("make room on the server's disk"), "{failure}");
    target.disk().make_room();
    assert_same(&contents(&client, "forum").await, &before);
    restore_mongodb(&mut saved, &target).await.unwrap();
    let found = contents(&client, "forum").await;
    assert_eq!((found.len(), found["many"].documents.len()), (1, 60_000));
}

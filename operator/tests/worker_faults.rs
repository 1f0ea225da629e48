//! Every engine, backed up and restored while the store fails in every way: nothing false is said, nothing good is lost, nothing is
//! half restored. With the program as a Job runs it, real servers, and a proxy that fails in front of a real S3 server.
//!
//! `HOLDFAST_FAULT_ROUNDS` says how often each way of failing meets each engine (default 1), `HOLDFAST_FAULT_SEED` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "it is all tests")]

#[path = "support/forum.rs"]
mod forum;
#[path = "support/job.rs"]
mod job;
#[path = "support/mongodb.rs"]
mod mongodb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/redis.rs"]
mod redis;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/volume.rs"]
mod volume;

use std::sync::Arc;

use holdfast::task::{
    BackupTask, Mounts, Outcome, Report, RestoreTarget, Select, StoreTask, Target, Task, VolumeTarget,
};
use holdfast_crds::{MongodbSource, OnExisting, Reason, RedisSource, Source, VolumeSource};
use job::{folder, run, run_id, scope};
use proxy::{Fate, Proxy};
use s3::{Server, TestBucket};

/// How the store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// 500 now and then.
    Error500,
    /// 503 with the code `SlowDown` now and then.
    SlowDown,
    /// 429 now and then.
    TooMany,
    /// The connection is reset before the request arrives, now and then.
    Reset,
    /// What was asked for is done and the answer is lost, now and then.
    LostAnswer,
    /// Of an answer only the beginning comes, now and then.
    Truncated,
    /// The bytes of an object come with one of them changed, always.
    FlippedBits,
    /// Listings are empty, always.
    EmptyListings,
    /// From somewhere in the middle on the key is refused.
    Refused,
    /// From somewhere in the middle on nothing answers but 500.
    Down,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::Error500,
        Self::SlowDown,
        Self::TooMany,
        Self::Reset,
        Self::LostAnswer,
        Self::Truncated,
        Self::FlippedBits,
        Self::EmptyListings,
        Self::Refused,
        Self::Down,
    ];

    /// Whether it passes, so that tries that follow each other come through.
    fn passes(self) -> bool {
        !matches!(self, Self::FlippedBits | Self::EmptyListings | Self::Refused | Self::Down)
    }

    /// What becomes of a request, after so many others.
    fn fate(self, line: &str, before: usize, seed: u64) -> Fate {
        let now_and_then = fastrand::Rng::with_seed(seed ^ (before as u64 * 0x9e37_79b9)).u8(..4) == 0;
        let middle = usize::try_from(seed % 12).unwrap();
        let listing = line.starts_with("GET") && line.contains("list-type=2");
        let object = line.starts_with("GET") && !line.contains('?');
        match self {
            Self::Error500 if now_and_then => Fate::Answer("500 Internal Server Error", String::new()),
            Self::SlowDown if now_and_then => Fate::Answer("503 Slow Down", error("SlowDown")),
            Self::TooMany if now_and_then => Fate::Answer("429 Too Many Requests", error("TooManyRequests")),
            Self::Reset if now_and_then => Fate::Answer("", String::new()),
            Self::LostAnswer if now_and_then => Fate::CutAfter(0),
            Self::Truncated if now_and_then => Fate::CutAfter(400),
            Self::FlippedBits if object => Fate::Alter(Box::new(move |mut answer| {
                let body = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                if answer.len() > body {
                    let at = body + usize::try_from(seed).unwrap_or(0) % (answer.len() - body);
                    answer[at] ^= 1;
                }
                answer
            })),
            Self::EmptyListings if listing => Fate::Answer("200 OK", EMPTY.into()),
            Self::Refused if before >= middle => Fate::Answer("403 Forbidden", error("AccessDenied")),
            Self::Down if before >= middle => Fate::Answer("500 Internal Server Error", String::new()),
            _ => Fate::Pass,
        }
    }
}

const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><IsTruncated>false</IsTruncated>\
                     <KeyCount>0</KeyCount></ListBucketResult>";

fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>no</Message></Error>")
}

/// A source with content, a place to restore it to, and a way to compare them.
trait Subject {
    fn name(&self) -> &'static str;
    fn source(&self) -> Source;
    fn mounts(&self) -> Mounts;
    fn target(&self) -> RestoreTarget;
    /// What is to be seen in the source.
    async fn before(&self) -> String;
    /// What is to be seen in the target.
    async fn after(&self) -> String;
    /// Makes the target empty.
    async fn clear(&self);
    /// What an empty target looks like.
    async fn nothing(&self) -> String;
}

struct Postgres {
    cluster: Arc<postgres::Cluster>,
    secret: postgres::Secret,
    database: String,
}

impl Postgres {
    fn new() -> Self {
        let (cluster, database) = (postgres::Cluster::shared(), format!("faults_{}", std::process::id()));
        cluster.create_database(&database);
        cluster.sql(&database, "create table t (id int primary key, v text); insert into t select i, md5(i::text) from generate_series(1, 5000) i");
        Self { cluster, secret: postgres::Secret::superuser(), database }
    }

    fn copy(&self) -> String {
        format!("{}_copy", self.database)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        for database in [self.copy(), self.database.clone()] {
            self.cluster.sql("postgres", &format!("drop database if exists {database} with (force)"));
        }
    }
}

impl Subject for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }
    fn source(&self) -> Source {
        let postgres = holdfast_crds::PostgresSource { database: Some(self.database.clone()), ..self.cluster.source() };
        Source { name: "db".into(), postgres: Some(postgres), ..Source::default() }
    }
    fn mounts(&self) -> Mounts {
        self.secret.mounts.clone()
    }
    fn target(&self) -> RestoreTarget {
        self.cluster.target(&self.secret.mounts, Some(&self.copy()))
    }
    async fn before(&self) -> String {
        self.cluster.fingerprint(&self.database)
    }
    async fn after(&self) -> String {
        let there = self.cluster.has_database(&self.copy());
        if there { self.cluster.fingerprint(&self.copy()) } else { String::new() }
    }
    async fn clear(&self) {
        self.cluster.sql("postgres", &format!("drop database if exists {} with (force)", self.copy()));
    }
    async fn nothing(&self) -> String {
        String::new()
    }
}

struct Redis {
    from: redis::Redis,
    to: redis::Redis,
    secret: redis::RedisSecretFiles,
}

impl Redis {
    fn new() -> Self {
        let (from, to) = (redis::Redis::start(&[]), redis::Redis::start(&[]));
        redis::fill(&from);
        Self { from, to, secret: redis::RedisSecretFiles::none() }
    }
}

impl Subject for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }
    fn source(&self) -> Source {
        let redis = RedisSource { ..self.from.source() };
        Source { name: "db".into(), redis: Some(redis), ..Source::default() }
    }
    fn mounts(&self) -> Mounts {
        Mounts::default()
    }
    fn target(&self) -> RestoreTarget {
        RestoreTarget { source: "db".into(), ..self.to.target(&self.secret) }
    }
    async fn before(&self) -> String {
        format!("{:?}", self.from.content())
    }
    async fn after(&self) -> String {
        format!("{:?}", self.to.content())
    }
    async fn clear(&self) {
        self.to.run(&["FLUSHALL"]);
        self.to.run(&["FUNCTION", "FLUSH"]);
    }
    async fn nothing(&self) -> String {
        self.clear().await;
        self.after().await
    }
}

struct Mongodb {
    server: Arc<mongodb::Server>,
    secret: forum::Secret,
    database: String,
}

impl Mongodb {
    async fn new() -> Self {
        let server = mongodb::Server::shared();
        let database = format!("faults_{}", std::process::id());
        forum::fill(&forum::client(&server.uri()).await, &database).await;
        Self { secret: forum::Secret::of(&server.uri()), server, database }
    }

    fn copy(&self) -> String {
        format!("{}_copy", self.database)
    }

    async fn contents(&self, database: &str) -> String {
        format!("{:?}", forum::contents(&forum::client(&self.server.uri()).await, database).await)
    }
}

impl Subject for Mongodb {
    fn name(&self) -> &'static str {
        "mongodb"
    }
    fn source(&self) -> Source {
        let mongodb = MongodbSource { database: Some(self.database.clone()), ..MongodbSource::default() };
        Source { name: "db".into(), mongodb: Some(mongodb), ..Source::default() }
    }
    fn mounts(&self) -> Mounts {
        self.secret.mounts.clone()
    }
    fn target(&self) -> RestoreTarget {
        let target = holdfast::task::MongodbTarget { database: Some(self.copy()), ..Default::default() };
        RestoreTarget { source: "db".into(), mounts: self.mounts(), server: Target::Mongodb(target) }
    }
    async fn before(&self) -> String {
        self.contents(&self.database).await
    }
    async fn after(&self) -> String {
        self.contents(&self.copy()).await
    }
    async fn clear(&self) {
        forum::client(&self.server.uri()).await.database(&self.copy()).drop().await.unwrap();
    }
    async fn nothing(&self) -> String {
        self.contents("faults_of_nobody").await
    }
}

struct Volume {
    from: tempfile::TempDir,
    to: tempfile::TempDir,
}

impl Volume {
    fn new() -> Self {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let large = vec![b'x'; 300_000];
        volume::write(from.path(), &[("a/one", b"1"), ("a/b/two", &large), ("three", b"")]);
        Self { from, to }
    }
}

impl Subject for Volume {
    fn name(&self) -> &'static str {
        "volume"
    }
    fn source(&self) -> Source {
        let volume = VolumeSource { claim_name: "uploads".into(), ..volume::source() };
        Source { name: "db".into(), volume: Some(volume), ..Source::default() }
    }
    fn mounts(&self) -> Mounts {
        volume::mounts(self.from.path())
    }
    fn target(&self) -> RestoreTarget {
        let target = VolumeTarget { ..volume::target() };
        RestoreTarget { source: "db".into(), mounts: volume::mounts(self.to.path()), server: Target::Volume(target) }
    }
    async fn before(&self) -> String {
        format!("{:?}", volume::inside(self.from.path()))
    }
    async fn after(&self) -> String {
        format!("{:?}", volume::inside(self.to.path()))
    }
    async fn clear(&self) {
        for entry in std::fs::read_dir(self.to.path()).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
    }
    async fn nothing(&self) -> String {
        "{}".to_owned()
    }
}

fn backup(subject: &impl Subject, store: StoreTask, day: u32) -> BackupTask {
    BackupTask {
        store,
        scope: scope(),
        backup: format!("nightly-202611{day:02}-020000"),
        run_id: run_id(day),
        slot: format!("2026-11-{day:02}T02:00:00Z").parse().unwrap(),
        run_sources: vec!["db".into()],
        source: subject.source(),
        safety_for: None,
        mounts: subject.mounts(),
        level: 3,
        timeout_seconds: 120,
        idle_timeout_seconds: 60,
    }
}

fn restore(subject: &impl Subject, store: StoreTask, day: u32) -> Task {
    Task::Restore(Box::new(job::restore(store, Select::RunId(run_id(day)), subject.target(), OnExisting::Fail)))
}

/// What came of all of it.
#[derive(Default)]
struct Tally {
    runs: u32,
    completed: u32,
    passing: u32,
    came_through: u32,
}

impl Tally {
    fn count(&mut self, fault: Fault, report: &Report) {
        let completed = report.reason == Reason::Completed;
        self.runs += 1;
        self.completed += u32::from(completed);
        if fault.passes() {
            self.passing += 1;
            self.came_through += u32::from(completed);
        }
    }
}

async fn suffer(subject: &impl Subject, seed: u64, rounds: u32) {
    let test = Server::shared().await.bucket().await;
    let (before, nothing) = (subject.before().await, subject.nothing().await);
    assert_ne!(before, nothing);
    let good = run(&Task::Backup(Box::new(backup(subject, test.store(), 1)))).await;
    assert_eq!(good.reason, Reason::Completed, "{}", good.message);
    let mut tally = Tally::default();
    let mut day = 1;
    for round in 0..rounds {
        for fault in Fault::ALL {
            day = day % 27 + 2;
            let seed = seed.wrapping_add(u64::from(round) * 1000 + u64::from(day));
            let what = format!("{} under {fault:?}, HOLDFAST_FAULT_SEED={seed}", subject.name());
            let failing = Proxy::start(test.server.port(), move |line, n| fault.fate(line, n, seed));

            let report = run(&Task::Backup(Box::new(backup(subject, test.store_at(failing.endpoint()), day)))).await;
            tally.count(fault, &report);
            backed_up((&what, fault), subject, &test, &report, day, &before).await;

            // The good one is still there, and comes back whole or not at all.
            let failing = Proxy::start(test.server.port(), move |line, n| fault.fate(line, n, seed >> 3));
            let report = run(&restore(subject, test.store_at(failing.endpoint()), 1)).await;
            tally.count(fault, &report);
            let there = subject.after().await;
            if report.reason == Reason::Completed {
                assert_eq!(there, before, "{what}: restored, and not what was saved");
            } else {
                assert!(there == nothing, "{what}: {} ({}), and the target was touched", report.reason, report.message);
                assert!(!report.message.is_empty(), "{what}");
            }
            subject.clear().await;
        }
    }
    let Tally { runs, completed, passing, came_through } = tally;
    println!(
        "{}: {runs} runs, {completed} completed; {came_through} of {passing} with faults that pass",
        subject.name()
    );
    assert!(came_through * 100 >= passing * 90, "{}: only {came_through} of {passing} came through", subject.name());
    assert!(runs > completed, "{}: nothing ever failed", subject.name());
}

/// What a backup says is so.
async fn backed_up(
    (what, fault): (&str, Fault),
    subject: &impl Subject,
    test: &TestBucket,
    report: &Report,
    day: u32,
    before: &str,
) {
    let run_folder = folder(&test.store()).run(&run_id(day));
    let manifest = run_folder.source("db").manifest();
    let there = test.keys().await.contains(&manifest);
    let said = report.reason == Reason::Completed;
    // A store that is gone for good between the manifest and its reading back: nobody can say so or take it out. It must be whole then.
    let unsaid = matches!(fault, Fault::Refused | Fault::Down) && there && !said;
    assert_eq!(there, said || unsaid, "{what}: {} ({}), and a manifest: {there}", report.reason, report.message);
    if there {
        assert!(unsaid || matches!(&report.outcome, Some(Outcome::Backup(_))), "{what}: {report:?}");
        let restored = run(&restore(subject, test.store(), day)).await;
        assert_eq!(restored.reason, Reason::Completed, "{what}: {}", restored.message);
        assert_eq!(subject.after().await, before, "{what}: said Completed, and comes back as something else");
        subject.clear().await;
    }
}

fn settings() -> (u64, u32) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("HOLDFAST_FAULT_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    (seed, u32::try_from(number("HOLDFAST_FAULT_ROUNDS").unwrap_or(1)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_comes_through_a_failing_store_or_says_that_it_does_not() {
    let (seed, rounds) = settings();
    suffer(&Postgres::new(), seed, rounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_through_a_failing_store_or_says_that_it_does_not() {
    let (seed, rounds) = settings();
    suffer(&Redis::new(), seed, rounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_comes_through_a_failing_store_or_says_that_it_does_not() {
    let (seed, rounds) = settings();
    let subject = Mongodb::new().await;
    suffer(&subject, seed, rounds).await;
    subject.clear().await;
    forum::client(&subject.server.uri()).await.database(&subject.database).drop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_comes_through_a_failing_store_or_says_that_it_does_not() {
    let (seed, rounds) = settings();
    suffer(&Volume::new(), seed, rounds).await;
}

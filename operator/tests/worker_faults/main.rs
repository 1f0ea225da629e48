//! Every engine, backed up, restored and deleted while the store fails in every way: nothing false is said, nothing good is lost, nothing
//! is half restored, and once the store is well again all is as if it had never failed. With the program as a Job runs it, real servers,
//! and a proxy that fails in front of a real S3 server.
//!
//! `HOLDFAST_FAULT_ROUNDS` says how often each way of failing meets each engine; where it is not set each meets one or two of them, once.
//! `HOLDFAST_FAULT_SEED` says where to begin (default 1) and repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "it is all tests")]

mod fault;
#[path = "../support/forum.rs"]
mod forum;
#[path = "../support/job.rs"]
mod job;
#[path = "../support/mongodb.rs"]
mod mongodb;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/redis.rs"]
mod redis;
#[path = "../support/s3.rs"]
mod s3;
mod subject;
#[path = "../support/volume.rs"]
mod volume;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fault::Fault;
use holdfast::store::manifest::Manifest;
use holdfast::task::{BackupTask, DeleteTask, Outcome, Report, Select, StoreTask, Task};
use holdfast_crds::{OnExisting, Reason};
use job::{folder, run, run_id, scope};
use proxy::{Fate, Proxy};
use s3::{Server, TestBucket};
use subject::{Config, Mongodb, Postgres, Redis, Subject, Volume};

/// Sources of one engine that are tried side by side: a worker mostly waits.
const LANES: usize = 5;
/// Where no rounds are asked for an engine meets every so many-th fault.
const PARTS: usize = 3;
/// The run that is there before anything fails.
const GOOD: u32 = 1;

/// What one engine goes through.
struct Course {
    engine: &'static str,
    /// Each with its seed.
    cases: Vec<(Fault, u64)>,
    rounds: u64,
    seed: u64,
    /// Faults that have met a request.
    failed: Arc<Mutex<BTreeSet<String>>>,
    tally: Mutex<Tally>,
    begun: Instant,
}

impl Course {
    /// `part`: which of the faults it meets where no rounds are asked for.
    fn of(engine: &'static str, part: usize) -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
        let (seed, rounds) = (number("HOLDFAST_FAULT_SEED").unwrap_or(1), number("HOLDFAST_FAULT_ROUNDS"));
        let seeds = (0..rounds.unwrap_or(1)).map(|round| seed.wrapping_add(round));
        let met = |at: usize| rounds.is_some() || (at + part).is_multiple_of(PARTS);
        let cases = seeds.flat_map(|seed| {
            let faults = Fault::ALL.into_iter().enumerate().filter(move |(at, _)| met(*at));
            // No two alike in what is left to chance.
            let of_engine = engine.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
            faults.map(move |(at, fault)| (fault, fastrand::Rng::with_seed(of_engine ^ ((at as u64) << 32)).u64(..)))
        });
        let cases = cases.collect();
        Self {
            engine,
            cases,
            rounds: rounds.unwrap_or(1),
            seed,
            failed: Arc::default(),
            tally: Mutex::default(),
            begun: Instant::now(),
        }
    }

    fn count(&self, fault: Fault, reason: Reason) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let completed = u32::from(reason == Reason::Completed);
        tally.runs += 1;
        tally.completed += completed;
        if fault.passes() {
            tally.passing += 1;
            tally.came_through += completed;
        }
    }

    fn equal(&self) {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).equal += 1;
    }

    /// Tells what came of it, and of all engines so far.
    fn end(self) {
        static ALL: Mutex<(u32, Tally)> = Mutex::new((0, Tally::NONE));
        let tally = self.tally.into_inner().unwrap();
        let failed = self.failed.lock().unwrap().clone();
        // Only what is larger than a part has an upload to complete, which is two of them; the others meet each engine sooner or later.
        let tried: BTreeSet<String> = self.cases.iter().map(|(fault, _)| format!("{fault:?}")).collect();
        let idle: BTreeSet<&String> = tried.iter().filter(|fault| !failed.contains(*fault)).collect();
        let kinds = failed.len();
        let seconds = self.begun.elapsed().as_secs();
        let Self { engine, rounds, seed, .. } = self;
        println!("figure: {engine}: {kinds} kinds of faults met, {rounds} seeds from {seed} on: {tally}; {seconds} s");
        let (engines, sum) = {
            let mut all = ALL.lock().unwrap();
            all.0 += 1;
            all.1.add(&tally);
            *all
        };
        println!("figure: so far {engines} engines: {sum}");
        let Tally { runs, completed, passing, came_through, .. } = tally;
        assert!(came_through * 100 >= passing * 97, "{engine}: only {came_through} of {passing} came through");
        assert!(runs > completed, "{engine}: nothing ever failed");
        // Each round leaves it to chance which request a fault waits for, and whether there is one.
        let most = if rounds < 3 { (tried.len() / 3).max(5) } else { 2 };
        assert!(idle.len() <= most, "{engine}: these have met no request: {idle:?}");
    }
}

/// What came of all of it. What was said and is not so, and what is lost, ends the test at once.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    runs: u32,
    completed: u32,
    equal: u32,
    passing: u32,
    came_through: u32,
}

impl Tally {
    const NONE: Self = Self { runs: 0, completed: 0, equal: 0, passing: 0, came_through: 0 };

    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.completed += other.completed;
        self.equal += other.equal;
        self.passing += other.passing;
        self.came_through += other.came_through;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, completed, equal, passing, came_through } = self;
        write!(
            f,
            "{runs} runs against a failing store, {completed} Completed ({came_through} of {passing} where the fault passes); \
             {equal} restored and compared, all equal; 0 said falsely, 0 lost"
        )
    }
}

fn backup(subject: &impl Subject, store: StoreTask, day: u32) -> Task {
    let task = job::backup_on(day, store, subject.source(), subject.mounts());
    Task::Backup(Box::new(BackupTask { idle_timeout_seconds: 90, ..task }))
}

fn restore(subject: &impl Subject, store: StoreTask, day: u32) -> Task {
    Task::Restore(Box::new(job::restore(store, Select::RunId(run_id(day)), subject.target(), OnExisting::Fail)))
}

fn delete(store: StoreTask, day: u32) -> Task {
    Task::Delete(DeleteTask { store, scope: scope(), run_id: run_id(day) })
}

/// One source, and the faults that it meets.
struct Scene<'a, S> {
    course: &'a Course,
    subject: S,
    test: TestBucket,
    before: String,
    nothing: String,
}

impl<'a, S: Subject> Scene<'a, S> {
    async fn new(course: &'a Course, subject: S) -> Self {
        let test = Server::shared().await.bucket().await;
        let (before, nothing) = (subject.before().await, subject.nothing().await);
        assert_ne!(before, nothing);
        let good = run(&backup(&subject, test.store(), GOOD)).await;
        assert_eq!(good.reason, Reason::Completed, "{}", good.message);
        Self { course, subject, test, before, nothing }
    }

    /// Runs a task against a store that fails.
    async fn failing(&self, fault: Fault, seed: u64, task: impl FnOnce(StoreTask) -> Task) -> Report {
        let failed = self.course.failed.clone();
        let proxy = Proxy::start(self.test.server.port(), move |line, n| {
            let fate = fault.fate(line, n, seed);
            if !matches!(fate, Fate::Pass) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("{fault:?}"));
            }
            fate
        });
        let store = StoreTask { patience: fault.patience(), ..self.test.store_at(proxy.endpoint()) };
        let report = run(&task(store)).await;
        assert!(!report.message.is_empty(), "{fault:?}: {report:?}");
        self.course.count(fault, report.reason);
        report
    }

    async fn meet(&self, fault: Fault, seed: u64, day: u32) {
        let what = format!("{} under {fault:?} of HOLDFAST_FAULT_SEED={}", self.course.engine, self.course.seed);
        let backed_up = self.failing(fault, seed, |store| backup(&self.subject, store, day)).await;
        self.confirm_backup(&what, fault, &backed_up, day).await;
        self.confirm_what_comes_next(&what, day).await;

        let restored = self.failing(fault, seed >> 3, |store| restore(&self.subject, store, GOOD)).await;
        self.confirm_restore(&what, &restored).await;

        let before = self.test.keys().await;
        let deleted = self.failing(fault, seed >> 5, |store| delete(store, day)).await;
        self.confirm_deletion(&what, &deleted, &before, day).await;
    }

    /// What is said is so, and what is not said is not there.
    async fn confirm_backup(&self, what: &str, fault: Fault, report: &Report, day: u32) {
        let said = report.reason == Reason::Completed;
        let there = self.test.keys().await.contains(&self.manifest_key(day));
        // A store that is gone between the manifest and its reading back, or gives back something else: nobody can say so or take it out.
        // It must be whole then, which the next attempt shows.
        let gone = fault.is_for_good() || fault.lies_to_readers() || report.reason == Reason::StoreUnreachable;
        let unsaid = gone && there && !said;
        assert_eq!(there, said || unsaid, "{what}: {} ({}), and a manifest: {there}", report.reason, report.message);
        assert!(!said || matches!(&report.outcome, Some(Outcome::Backup(_))), "{what}: {report:?}");
    }

    /// The store is well again, and the next attempt ends where a run without faults would have.
    async fn confirm_what_comes_next(&self, what: &str, day: u32) {
        let again = run(&backup(&self.subject, self.test.store(), day)).await;
        assert_eq!(again.reason, Reason::Completed, "{what}, and then again: {}", again.message);
        let (twin, made) = (self.manifest(GOOD).await, self.manifest(day).await);
        assert_eq!(made.artifacts.len(), twin.artifacts.len(), "{what}");
        for (made, twin) in made.artifacts.iter().zip(&twin.artifacts) {
            assert_eq!(
                (&made.name, &made.format, made.items, &made.item_counts),
                (&twin.name, &twin.format, twin.items, &twin.item_counts),
                "{what}"
            );
            assert_eq!(self.test.get(&made.key).await.len() as u64, made.stored_bytes, "{what}: {}", made.key);
        }
        let restored = run(&restore(&self.subject, self.test.store(), day)).await;
        assert_eq!(restored.reason, Reason::Completed, "{what}: said Completed, and cannot be restored: {restored:?}");
        assert!(self.subject.after().await == self.before, "{what}: said Completed, and comes back as something else");
        self.course.equal();
        self.subject.clear().await;
    }

    /// The good one comes back whole or not at all.
    async fn confirm_restore(&self, what: &str, report: &Report) {
        let there = self.subject.after().await;
        if report.reason == Reason::Completed {
            assert!(there == self.before, "{what}: restored, and not what was saved");
            self.course.equal();
        } else {
            let (reason, message) = (report.reason, &report.message);
            assert!(there == self.nothing, "{what}: {reason} ({message}), and the target was touched");
        }
        self.subject.clear().await;
    }

    /// All of a run goes, or it is a run still, or none any more; no other is touched.
    async fn confirm_deletion(&self, what: &str, report: &Report, before: &[String], day: u32) {
        let (mine, after) = (format!("/{}/", run_id(day)), self.test.keys().await);
        let gone: Vec<&String> = before.iter().filter(|key| !after.contains(key)).collect();
        assert!(gone.iter().all(|key| key.contains(&mine)), "{what}: others were deleted: {gone:?}");
        let manifest = self.manifest_key(day);
        if after.contains(&manifest) {
            assert!(gone.is_empty(), "{what}: a run that is there lacks {gone:?}");
            // What is not listed, or lies, cannot be deleted; what says so must not say that it was.
            let told = report.reason == Reason::Completed && !report.message.contains("nothing of it is in the bucket");
            assert!(!told, "{what}: {}", report.message);
        }
        let again = run(&delete(self.test.store(), day)).await;
        assert_eq!(again.reason, Reason::Completed, "{what}: {}", again.message);
        assert!(!self.test.keys().await.contains(&manifest), "{what}");
    }

    fn manifest_key(&self, day: u32) -> String {
        folder(&self.test.store()).run(&run_id(day)).source("db").manifest()
    }

    async fn manifest(&self, day: u32) -> Manifest {
        Manifest::parse(&self.test.get(&self.manifest_key(day)).await).unwrap()
    }
}

/// One lane of the course.
async fn suffer<S: Subject>(course: &Course, lane: usize, subject: S) {
    let scene = Scene::new(course, subject).await;
    for (at, (fault, seed)) in course.cases.iter().enumerate().filter(|(at, _)| at % LANES == lane) {
        let day = 2 + u32::try_from(at % 27).unwrap();
        scene.meet(*fault, *seed, day).await;
    }
    // After all of that the good one is as good as ever.
    let restored = run(&restore(&scene.subject, scene.test.store(), GOOD)).await;
    assert_eq!(restored.reason, Reason::Completed, "{}: lost: {}", course.engine, restored.message);
    assert!(scene.subject.after().await == scene.before, "{}: lost", course.engine);
    scene.subject.clear().await;
    scene.subject.close().await;
}

/// All lanes of an engine.
async fn all<S: Subject>(course: Course, subject: impl AsyncFn(usize) -> S) {
    let (course_of, subject) = (&course, &subject);
    let lanes = (0..LANES).map(|lane| async move { suffer(course_of, lane, subject(lane).await).await });
    let limit = Duration::from_mins(5) * u32::try_from(course.rounds).unwrap();
    tokio::time::timeout(limit, futures::future::join_all(lanes)).await.expect("it does not end");
    course.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_comes_through_a_failing_store_or_says_that_it_does_not() {
    all(Course::of("postgres", 0), async |lane| Postgres::new(lane)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_comes_through_a_failing_store_or_says_that_it_does_not() {
    all(Course::of("mongodb", 1), async |lane| Mongodb::new(lane).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_through_a_failing_store_or_says_that_it_does_not() {
    all(Course::of("redis", 2), async |_| Redis::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_comes_through_a_failing_store_or_says_that_it_does_not() {
    all(Course::of("volume", 0), async |_| Volume::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn config_comes_through_a_failing_store_or_says_that_it_does_not() {
    all(Course::of("config", 1), async |_| Config::new()).await;
}

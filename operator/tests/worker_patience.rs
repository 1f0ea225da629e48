//! A store that is away for a while, asks for time, or refuses now and then; and one whose clock is another. With the program as a Job runs
//! it, and a proxy in front of a real S3 server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/volume.rs"]
mod volume;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast::store::client::Bucket;
use holdfast::task::{BackupTask, RestoreTarget, Select, StorePatience, StoreTask, Target, Task};
use holdfast_crds::{OnExisting, Reason, Source};
use job::{run, run_id};
use proxy::{Fate, Proxy};
use s3::{Server, TestBucket};

fn backup(store: StoreTask, from: &Path, day: u32) -> Task {
    let task = job::backup_on(
        day,
        store,
        Source { name: "db".into(), volume: Some(volume::source()), ..Source::default() },
        volume::mounts(from),
    );
    Task::Backup(Box::new(BackupTask { level: 0, idle_timeout_seconds: 90, ..task }))
}

fn restore(store: StoreTask, to: &Path, day: u32) -> Task {
    let server = Target::Volume(volume::target());
    let target = RestoreTarget { source: "db".into(), mounts: volume::mounts(to), server };
    Task::Restore(Box::new(job::restore(store, Select::RunId(run_id(day)), target, OnExisting::Fail)))
}

/// The store goes away once a request fits, and comes back after so long: seconds.
fn away(test: &TestBucket, seconds: u64, from: fn(&str) -> bool) -> (Proxy, Arc<AtomicUsize>) {
    let refused = Arc::new(AtomicUsize::new(0));
    let (count, gone) = (refused.clone(), Mutex::new(None));
    let proxy = Proxy::start(test.server.port(), move |line, _| {
        let mut gone = gone.lock().unwrap();
        if gone.is_none() && !from(line) {
            return Fate::Pass;
        }
        let since: Instant = *gone.get_or_insert_with(Instant::now);
        if since.elapsed() > Duration::from_secs(seconds) {
            return Fate::Pass;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Fate::Answer("", String::new())
    });
    (proxy, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_a_while_in_the_middle_costs_neither_a_backup_nor_a_restore() {
    let (from, to) = (volume::large(), tempfile::tempdir().unwrap());
    let test = Server::shared().await.bucket().await;
    let report = run(&backup(test.store(), from.path(), 1)).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);

    // Longer than a second attempt of the Job would wait before it begins.
    let (uploading, refused_uploads) = away(&test, 16, |line| line.starts_with("PUT") && line.contains("partNumber=2"));
    let (downloading, refused_downloads) = away(&test, 16, |line| line.starts_with("GET") && line.contains(".tar"));
    let (saved, restored) = (
        backup(test.store_at(uploading.endpoint()), from.path(), 2),
        restore(test.store_at(downloading.endpoint()), to.path(), 1),
    );
    let (saved, restored) = tokio::join!(run(&saved), run(&restored));
    assert_eq!(saved.reason, Reason::Completed, "{}", saved.message);
    assert_eq!(restored.reason, Reason::Completed, "{}", restored.message);
    assert!(refused_uploads.load(Ordering::Relaxed) > 3 && refused_downloads.load(Ordering::Relaxed) > 3);
    assert!(volume::inside(to.path()) == volume::inside(from.path()));

    let again = tempfile::tempdir().unwrap();
    let report = run(&restore(test.store(), again.path(), 2)).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert!(volume::inside(again.path()) == volume::inside(from.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_connections_and_never_answers_ends_a_backup_in_time() {
    let from = volume::large();
    let test = Server::shared().await.bucket().await;
    // The kernel takes connections, and nobody ever reads from them.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    // That of all workers lets a request stand still for 20 s, and half of it before the first answer.
    let patience = StorePatience { still_seconds: 8, ..StorePatience::default() };
    let never = |protocol: &str| StoreTask { patience, ..test.store_at(format!("{protocol}://127.0.0.1:{port}")) };
    let start = Instant::now();
    let (plain, tls) = (backup(never("http"), from.path(), 1), backup(never("https"), from.path(), 2));
    let (plain, tls) = tokio::join!(run(&plain), run(&tls));
    // Once to find out, and once to take back what may be there.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    for report in [plain, tls] {
        assert_eq!(report.reason, Reason::StoreUnreachable, "{}", report.message);
        assert!(report.message.contains("main") && report.message.contains(&test.name), "{}", report.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_falls_silent_in_the_middle_ends_a_backup_and_leaves_no_manifest() {
    let from = volume::large();
    let test = Server::shared().await.bucket().await;
    let silent = AtomicBool::new(false);
    let proxy = Proxy::start(test.server.port(), move |line, _| {
        let begins = line.starts_with("PUT") && line.contains("partNumber=2");
        if silent.fetch_or(begins, Ordering::Relaxed) || begins { Fate::Hang } else { Fate::Pass }
    });
    // That of all workers takes a minute for it.
    let patience = StorePatience { answered_seconds: 5, still_seconds: 2, ..StorePatience::default() };
    let store = StoreTask { patience, ..test.store_at(proxy.endpoint()) };
    let start = Instant::now();
    let report = run(&backup(store, from.path(), 1)).await;
    assert_eq!(report.reason, Reason::StoreUnreachable, "{}", report.message);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let keys = test.keys().await;
    assert!(!keys.iter().any(|key| key.ends_with("manifest.json")), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_three_of_ten_requests_all_the_time_costs_nothing_but_time() {
    let (from, to) = (volume::large(), tempfile::tempdir().unwrap());
    let test = Server::shared().await.bucket().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let busy = Proxy::start(test.server.port(), move |_, n| match n % 10 {
        1 | 4 | 7 => {
            count.fetch_add(1, Ordering::Relaxed);
            Fate::Answer("503 Slow Down", "<Error><Code>SlowDown</Code><Message>slower</Message></Error>".into())
        }
        _ => Fate::Pass,
    });
    let saved = run(&backup(test.store_at(busy.endpoint()), from.path(), 1)).await;
    assert_eq!(saved.reason, Reason::Completed, "{}", saved.message);
    let restored = run(&restore(test.store_at(busy.endpoint()), to.path(), 1)).await;
    assert_eq!(restored.reason, Reason::Completed, "{}", restored.message);
    assert!(refused.load(Ordering::Relaxed) > 4);
    assert!(volume::inside(to.path()) == volume::inside(from.path()));
}

/// When each request came.
type Times = Arc<Mutex<Vec<Instant>>>;

/// Answers so many requests with a status, maybe with headers after it, and lets the others pass.
async fn asks(test: &TestBucket, status: &'static str, times_told: usize) -> (Proxy, Bucket, Times) {
    let times = Times::default();
    let seen = times.clone();
    let proxy = Proxy::start(test.server.port(), move |_, n| {
        seen.lock().unwrap().push(Instant::now());
        if n < times_told { Fate::Answer(status, "<Error><Code>SlowDown</Code></Error>".into()) } else { Fate::Pass }
    });
    let bucket = Bucket::open(&test.store_at(proxy.endpoint())).await.unwrap();
    (proxy, bucket, times)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_says_when_to_come_again_is_left_alone_until_then() {
    let test = Server::shared().await.bucket().await;
    for status in ["503 Slow Down\r\nRetry-After: 4", "429 Too Many Requests\r\nRetry-After: 4"] {
        let (_proxy, bucket, times) = asks(&test, status, 1).await;
        assert_eq!(bucket.put("prod/a", Bytes::from_static(b"x")).await, Ok(()));
        let times = times.lock().unwrap();
        let pause = times[1] - times[0];
        // By itself it would have come again within 200 ms, and given up after 3 s.
        assert!(times.len() == 2 && pause >= Duration::from_secs(4), "{status}: {pause:?}");
    }
    let (_proxy, bucket, times) = asks(&test, "503 Slow Down\r\nRetry-After: 600", usize::MAX).await;
    let failure = bucket.put("prod/a", Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!((failure.reason, times.lock().unwrap().len()), (Reason::StoreUnreachable, 1), "{failure}");
    assert!(failure.message.contains("asks to be asked again after 600 s"), "{failure}");
}

const SKEWED: &str = "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>";

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_apart_are_told_by_what_each_says_and_a_try_by_the_stores_clock_comes_first() {
    let test = Server::shared().await.bucket().await;
    let refusing = Proxy::start(test.server.port(), |_, _| {
        Fate::Answer("403 Forbidden\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT", SKEWED.into())
    });
    let from = volume::large();
    let store = test.store_at(refusing.endpoint());
    for task in [job::probe(store.clone()), backup(store, from.path(), 1)] {
        let report = run(&task).await;
        assert_eq!(report.reason, Reason::ClockSkew, "{}", report.message);
        let told = ["the store's clock says 2026-01-01T00:00:00Z", "this node's 202", "RequestTimeTooSkewed"];
        assert!(told.iter().all(|words| report.message.contains(words)), "{}", report.message);
    }
    assert_eq!(test.keys().await, Vec::<String>::new());

    let counted = Arc::new(AtomicUsize::new(0));
    let count = counted.clone();
    let once = Proxy::start(test.server.port(), move |_, n| {
        count.fetch_add(1, Ordering::Relaxed);
        match n {
            0 => Fate::Answer("403 Forbidden", SKEWED.into()),
            _ => Fate::Pass,
        }
    });
    let bucket = Bucket::open(&test.store_at(once.endpoint())).await.unwrap();
    assert_eq!(bucket.put("prod/a", Bytes::from_static(b"x")).await, Ok(()));
    assert_eq!(counted.load(Ordering::Relaxed), 2);
}

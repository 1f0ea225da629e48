//! What deletions that broke off left in the bucket, by the program as a Job runs it, against a real S3 server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/runs.rs"]
mod runs;
#[path = "support/s3.rs"]
mod s3;

use std::time::{Duration, Instant};

use holdfast::store::keys::PolicyFolder;
use holdfast::task::{DeleteTask, Outcome, Report, RetainTask, Scope, StoreTask, Task};
use holdfast_crds::{Reason, RetentionSpec};
use job::{folder, run, run_id, scope};
use proxy::{Fate, Proxy, with_body};
use runs::put_run;
use s3::{Server, TestBucket};

fn retain(store: StoreTask, grace_seconds: i64) -> RetainTask {
    RetainTask {
        store,
        scope: scope(),
        retention: RetentionSpec { keep_last: Some(10), ..RetentionSpec::default() },
        time_zone: "UTC".into(),
        known: Vec::new(),
        protected: vec![run_id(3)],
        writers: None,
        limit: 100,
        grace_seconds,
    }
}

fn debris(report: &Report) -> usize {
    match &report.outcome {
        Some(Outcome::Retain(retained)) => retained.debris,
        _ => panic!("{report:?}"),
    }
}

/// A complete run that the store dates later than anything that is in the bucket.
async fn put_newest(test: &TestBucket, day: u32) {
    let bucket = test.open().await;
    let newest = async || bucket.list("").await.unwrap().into_iter().filter_map(|object| object.modified).max();
    let before = newest().await;
    let start = Instant::now();
    while newest().await <= before {
        assert!(start.elapsed() < Duration::from_secs(30), "the store's clock stands still");
        put_run(test, &scope(), &run_id(day), "db", &["db"]).await;
    }
}

/// The listing without any manifest of a run.
fn without_manifest(xml: &str, run_id: &str) -> String {
    let is_hidden = |entry: &&str| entry.contains(&format!("{run_id}/")) && entry.contains("manifest.json");
    let (hidden, kept): (Vec<&str>, Vec<&str>) = xml.split_inclusive("</Contents>").partition(is_hidden);
    // What comes before the first entry goes with it.
    let lost: String = hidden.iter().map(|entry| entry.split("<Contents>").next().unwrap()).collect();
    let text = format!("{lost}{}", kept.concat());
    let (start, rest) = text.split_once("<KeyCount>").unwrap();
    let (count, rest) = rest.split_once('<').unwrap();
    let count = count.parse::<usize>().unwrap() - hidden.len();
    format!("{start}<KeyCount>{count}<{rest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deletion_that_broke_off_left_goes_later_and_nothing_beside_it() {
    let test = Server::shared().await.bucket().await;
    for day in [1, 2] {
        put_run(&test, &scope(), &run_id(day), "db", &["db"]).await;
    }
    let source = |scope: &Scope, day| PolicyFolder::new(&test.store().s3, scope).run(&run_id(day)).source("db");
    let artifact = |scope: &Scope, day| source(scope, day).artifact("shop.pgdump", "abc123", 3, false);
    let neighbour = Scope { policy: "nightly2".into(), ..scope() };
    for decoy in [
        // Under way; another policy's; put there by people; of a run that has a manifest.
        artifact(&scope(), 3),
        artifact(&neighbour, 4),
        format!("{}by-hand.txt", source(&scope(), 1).prefix()),
        format!("{}notes/shop-abc123.pgdump", source(&scope(), 1).prefix()),
        format!("{}{}/shop-abc123.pgdump", folder(&test.store()).prefix(), run_id(1)),
        source(&scope(), 2).artifact("shop.pgdump", "fffff1", 3, false),
    ] {
        test.put(&decoy, "decoy").await;
    }

    let broken = Proxy::start(test.server.port(), |line, _| {
        if line.starts_with("DELETE") && !line.contains("manifest.json") {
            Fate::Answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>".into())
        } else {
            Fate::Pass
        }
    });
    let delete = DeleteTask { store: test.store_at(broken.endpoint()), scope: scope(), run_id: run_id(1) };
    let report = run(&Task::Delete(delete)).await;
    assert_eq!(report.reason, Reason::StoreRefused, "{}", report.message);
    let left = artifact(&scope(), 1);
    let keys = test.keys().await;
    assert!(keys.contains(&left) && !keys.contains(&source(&scope(), 1).manifest()), "half of it is gone: {keys:?}");
    put_newest(&test, 20).await;

    // Young; or where another cluster writes, too; or where the listing hides a manifest: nothing goes.
    let all = test.keys().await;
    let report = run(&Task::Retain(retain(test.store(), 3600))).await;
    assert_eq!((report.reason, debris(&report)), (Reason::Completed, 0), "{}", report.message);
    let stranger = Scope { cluster_uid: "other".into(), ..scope() };
    put_run(&test, &stranger, &run_id(19), "db", &["db"]).await;
    let report = run(&Task::Retain(retain(test.store(), 0))).await;
    assert_eq!((report.reason, debris(&report)), (Reason::Completed, 0), "{}", report.message);
    for key in [source(&stranger, 19).manifest(), artifact(&stranger, 19)] {
        test.server.client().delete_object().bucket(&test.name).key(key).send().await.unwrap();
    }
    let hiding = Proxy::start(test.server.port(), |line, _| {
        if line.contains("list-type=2") {
            Fate::Alter(Box::new(|answer| with_body(&answer, |xml| without_manifest(&xml, &run_id(2)))))
        } else {
            Fate::Pass
        }
    });
    let report = run(&Task::Retain(retain(test.store_at(hiding.endpoint()), 0))).await;
    assert_eq!(report.reason, Reason::ListIncomplete, "{}", report.message);
    assert_eq!(test.keys().await, all);

    let report = run(&Task::Retain(retain(test.store(), 0))).await;
    assert_eq!((report.reason, debris(&report)), (Reason::Completed, 1), "{}", report.message);
    let expected: Vec<String> = all.into_iter().filter(|key| *key != left).collect();
    assert_eq!(test.keys().await, expected);
    let again = run(&Task::Retain(retain(test.store(), 0))).await;
    assert_eq!((debris(&again), test.keys().await), (0, expected));
}

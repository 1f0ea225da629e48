//! What is saved before a restore replaces it: never chosen by itself, never in another run's way, against a real S3 server and a real
//! PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/s3.rs"]
mod s3;

use holdfast::store::keys::slot_of_run;
use holdfast::store::manifest::Manifest;
use holdfast::task::{BackupTask, Outcome, RestoreTask, RetainTask, Select, Task};
use holdfast_crds::{OnExisting, PostgresSource, Reason, RetentionSpec};
use job::{backup, folder, run, run_id, scope};
use postgres::{Cluster, Secret};
use s3::{Server, TestBucket};

/// The task of another day's run; a safety run where it is for a request.
fn of_day(task: &BackupTask, day: u32, safety_for: Option<&str>) -> BackupTask {
    let run_id = run_id(day);
    let slot = slot_of_run(&run_id).unwrap();
    BackupTask { run_id, slot, safety_for: safety_for.map(str::to_owned), ..task.clone() }
}

async fn stored(task: &BackupTask) {
    let report = run(&Task::Backup(Box::new(task.clone()))).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
}

async fn manifest(test: &TestBucket, day: u32) -> Manifest {
    let key = folder(&test.store()).run(&run_id(day)).source("db").manifest();
    Manifest::parse(&test.get(&key).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_restored_by_its_name_and_takes_no_other_runs_place() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    cluster.create_database("undone");
    cluster.sql("undone", "create table t (id int primary key); insert into t select generate_series(1, 10)");
    let task = backup(test.store(), &cluster, &secret, "undone");
    stored(&of_day(&task, 1, None)).await;
    cluster.sql("undone", "insert into t values (11)");
    stored(&of_day(&task, 2, Some("undo"))).await;
    assert_eq!(manifest(&test, 2).await.safety_for.as_deref(), Some("undo"));
    cluster.sql("undone", "delete from t");

    let restore = |select| {
        Task::Restore(Box::new(job::restore(
            test.store(),
            select,
            cluster.target(&secret.mounts, Some("undone")),
            OnExisting::Replace,
        )))
    };
    for (select, rows) in [(Select::At(None), "10"), (Select::RunId(run_id(2)), "11")] {
        let report = run(&restore(select)).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
        assert_eq!(cluster.sql("undone", "select count(*) from t").trim(), rows);
    }

    // The rule keeps one run. It is not the safety run, which is newer, and that stays too.
    let before = test.keys().await;
    let retain = RetainTask {
        store: test.store(),
        scope: scope(),
        retention: RetentionSpec { keep_last: Some(1), ..RetentionSpec::default() },
        time_zone: "UTC".into(),
        known: vec![],
        protected: vec![],
        writers: None,
        limit: 100,
        grace_seconds: 0,
    };
    let report = run(&Task::Retain(retain.clone())).await;
    assert!(matches!(&report.outcome, Some(Outcome::Retain(r)) if r.deleted.is_empty() && r.kept == 1), "{report:?}");
    assert_eq!(test.keys().await, before);
    stored(&of_day(&task, 3, None)).await;
    let report = run(&Task::Retain(retain)).await;
    assert!(matches!(&report.outcome, Some(Outcome::Retain(r)) if r.deleted == [run_id(1)]), "{report:?}");
    // Though it is older than a complete run by more than the grace, nothing of it is debris either.
    let kept = test.keys().await;
    let of_safety: Vec<&String> = before.iter().filter(|key| key.contains(&run_id(2))).collect();
    assert!(of_safety.len() == 2 && of_safety.iter().all(|key| kept.contains(key)), "{kept:?}");
    cluster.sql("postgres", "drop database undone with (force)");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_nothing_yet_nothing_is_saved_and_that_is_no_failure() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    let task = backup(test.store(), &cluster, &secret, "not_made_yet");
    let report = run(&Task::Backup(Box::new(of_day(&task, 1, None)))).await;
    assert_eq!(report.reason, Reason::SourceRefused, "a backup of nothing is a failure: {}", report.message);
    stored(&of_day(&task, 2, Some("undo"))).await;
    assert_eq!((manifest(&test, 2).await.artifacts, manifest(&test, 2).await.items), (vec![], 0));

    // Of several databases, those that are there.
    cluster.create_database("made");
    cluster.sql("made", "create table t (id int)");
    let mut several = of_day(&task, 3, Some("undo"));
    let names = vec!["made".to_owned(), "not_made_yet".to_owned()];
    several.source.postgres =
        Some(PostgresSource { database: None, databases: Some(names), ..several.source.postgres.unwrap() });
    stored(&several).await;
    let databases: Vec<_> = manifest(&test, 3).await.artifacts.into_iter().filter_map(|a| a.database).collect();
    assert_eq!(databases, ["made"]);

    // To undo a restore into nothing is to drop it, and nobody but a person does that.
    let request = RestoreTask {
        store: test.store(),
        scope: scope(),
        request: "undo".into(),
        request_uid: job::request_uid(),
        select: Select::RunId(run_id(2)),
        cluster: None,
        sources: None,
        targets: vec![cluster.target(&secret.mounts, None)],
        on_existing: OnExisting::Replace,
        dry_run: false,
        claims_to_make: vec![],
        timeout_seconds: 120,
        idle_timeout_seconds: 60,
    };
    let report = run(&Task::Restore(Box::new(request))).await;
    assert_eq!(report.reason, Reason::InvalidConfiguration, "{}", report.message);
    assert!(report.message.contains("there was nothing"), "{}", report.message);
    cluster.sql("postgres", "drop database made with (force)");
}

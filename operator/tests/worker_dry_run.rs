//! A dry run tells of every source what a restore would do or what stands in its way, and changes nothing: against a real S3 server and a
//! real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/s3.rs"]
mod s3;

use std::path::PathBuf;

use holdfast::task::{
    BackupTask, Outcome, Report, RestoreTarget, RestoreTask, RestoredSource, Select, StoreTask, Target, Task,
    VolumeTarget,
};
use holdfast_crds::{OnExisting, Reason};
use job::{backup, folder, run, run_id, scope};
use postgres::{Cluster, Secret};
use s3::Server;

fn request(store: StoreTask, uid: &str, on_existing: OnExisting, targets: Vec<RestoreTarget>) -> RestoreTask {
    RestoreTask {
        store,
        scope: scope(),
        request: "look".into(),
        request_uid: uid.into(),
        select: Select::RunId(run_id(21)),
        cluster: None,
        sources: Some(vec!["first".into(), "second".into()]),
        targets,
        on_existing,
        dry_run: true,
        claims_to_make: vec![],
        timeout_seconds: 120,
        idle_timeout_seconds: 60,
    }
}

fn sources(report: &Report) -> Vec<RestoredSource> {
    match &report.outcome {
        Some(Outcome::Restore(restored)) => restored.sources.clone(),
        _ => panic!("{report:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_source_is_looked_at_and_nothing_is_changed() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    let mut artifacts = Vec::new();
    for (source, database) in [("first", "looked_at"), ("second", "not_there")] {
        cluster.create_database(database);
        cluster.sql(database, "create table t (id int primary key); insert into t select generate_series(1, 10)");
        let task = backup(test.store(), &cluster, &secret, database);
        let mut from = task.source.clone();
        from.name = source.into();
        let task = BackupTask { source: from, run_sources: vec!["first".into(), "second".into()], ..task };
        let report = run(&Task::Backup(Box::new(task.clone()))).await;
        let Some(Outcome::Backup(saved)) = report.outcome else { panic!("{report:?}") };
        artifacts.push(saved.key);
    }
    cluster.sql("postgres", "drop database not_there");
    cluster.sql("looked_at", "insert into t values (11)");
    let target = |source: &str, database: &str| RestoreTarget {
        source: source.into(),
        ..cluster.target(&secret.mounts, Some(database))
    };
    let both = vec![target("first", "looked_at"), target("second", "not_there")];
    let before = (test.keys().await, cluster.databases(), cluster.fingerprint("looked_at"));
    let now = async || (test.keys().await, cluster.databases(), cluster.fingerprint("looked_at"));

    // Nothing stands in the way.
    let uid = job::request_uid();
    let replace = request(test.store(), &uid, OnExisting::Replace, both.clone());
    let report = run(&Task::Restore(Box::new(replace.clone()))).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert!(report.message.starts_with("dry run: nothing was changed and nothing stands in the way"));
    let told = sources(&report);
    assert!(told[0].message.contains("database looked_at") && told[0].message.contains("would replace what is there"));
    assert!(told[1].message.contains("database not_there") && told[1].message.contains("holds no data"), "{told:?}");
    assert!(told.iter().all(|s| s.message.contains(&run_id(21)) && (s.items, s.restored_bytes) == (0, 0)));
    assert_eq!(now().await, before);

    // The first one's target holds data, and the second one's artifact is cut: both are told.
    let whole = test.get(&artifacts[1]).await;
    test.put(&artifacts[1], whole.slice(..whole.len() / 2)).await;
    let fail = request(test.store(), &uid, OnExisting::Fail, both.clone());
    let report = run(&Task::Restore(Box::new(fail))).await;
    let reasons = || sources(&report).iter().map(|s| s.reason).collect::<Vec<_>>();
    assert_eq!(reasons(), [Reason::TargetNotEmpty, Reason::ChecksumMismatch], "{}", report.message);
    assert_eq!(report.reason, Reason::TargetNotEmpty);
    assert!(report.message.contains("2 of 2 sources cannot be restored"), "{}", report.message);

    // Of one source, what is wrong with the backup and what is wrong with the target.
    let nobody = Secret::of("nobody", "knows");
    let stranger = RestoreTarget { mounts: nobody.mounts.clone(), ..target("second", "not_there") };
    let report = run(&Task::Restore(Box::new(request(
        test.store(),
        &uid,
        OnExisting::Replace,
        vec![target("first", "looked_at"), stranger],
    ))))
    .await;
    let told = sources(&report);
    assert_eq!((told[0].reason, told[1].reason), (Reason::Completed, Reason::ChecksumMismatch), "{told:?}");
    assert!(told[1].message.contains("and SourceRefused:"), "{}", told[1].message);
    test.put(&artifacts[1], whole).await;
    assert_eq!(now().await, before);

    // It was no execution: the request of the same UID may still be carried out.
    let report = run(&Task::Restore(Box::new(RestoreTask { dry_run: false, ..replace }))).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert_eq!(cluster.sql("looked_at", "select count(*) from t").trim(), "10");
    for database in ["looked_at", "not_there"] {
        cluster.sql("postgres", &format!("drop database {database} with (force)"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_would_be_made_is_not_looked_into() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    // A volume's backup, as far as a dry run reads it.
    cluster.create_database("as_volume");
    let task = backup(test.store(), &cluster, &secret, "as_volume");
    assert_eq!(run(&Task::Backup(Box::new(task.clone()))).await.reason, Reason::Completed);
    assert!(test.keys().await.contains(&folder(&task.store).run(&run_id(21)).source("db").manifest()));
    let volume = VolumeTarget { claim_name: "copy".into(), ..VolumeTarget::default() };
    let target = |data: Option<PathBuf>| RestoreTarget {
        source: "db".into(),
        mounts: holdfast::task::Mounts { data, ..holdfast::task::Mounts::default() },
        server: Target::Volume(volume.clone()),
    };
    let look = |target, claims_to_make: Vec<String>| {
        let request = request(test.store(), &job::request_uid(), OnExisting::Fail, vec![target]);
        Task::Restore(Box::new(RestoreTask { sources: None, claims_to_make, ..request }))
    };
    let report = run(&look(target(None), vec!["copy".into()])).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert!(report.message.contains("claim copy, which is not there and would be made"), "{}", report.message);
    // One that is there is looked into, and this is no backup of a volume.
    let folder = tempfile::tempdir().unwrap();
    let report = run(&look(target(Some(folder.path().into())), vec![])).await;
    assert_eq!(report.reason, Reason::InvalidConfiguration, "{}", report.message);
    cluster.sql("postgres", "drop database as_volume with (force)");
}

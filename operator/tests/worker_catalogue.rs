//! What a bucket holds of several clusters, told and brought back, by the program as a Job runs it. Against a real S3 server and PostgreSQL.

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

use holdfast::task::{
    BackupTask, CatalogueReport, CatalogueTask, Outcome, Report, RestoreTask, Scope, Select, StorePatience, StoreTask,
    Task,
};
use holdfast_crds::{OnExisting, Reason};
use job::{backup, folder, run, run_id, scope};
use postgres::{Cluster, Secret};
use proxy::{Fate, Proxy};
use runs::put_run;
use s3::Server;

fn catalogue(store: StoreTask) -> CatalogueTask {
    CatalogueTask { store, scope: scope(), known: Vec::new(), expected: Vec::new(), own: false, limit: 50 }
}

fn told(report: &Report) -> &CatalogueReport {
    match &report.outcome {
        Some(Outcome::Catalogue(catalogue)) => catalogue,
        _ => panic!("{report:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn complete_runs_without_a_backup_are_told_and_nothing_is_written() {
    let test = Server::shared().await.bucket().await;
    let other = Scope { cluster_uid: "other".into(), policy_uid: "theirs".into(), ..scope() };
    let before_it = Scope { policy_uid: "before".into(), ..scope() };
    let neighbour = Scope { policy: "nightly2".into(), ..scope() };
    for source in ["db", "files"] {
        put_run(&test, &before_it, &run_id(1), source, &["db", "files"]).await;
    }
    put_run(&test, &other, &run_id(2), "db", &["db"]).await;
    put_run(&test, &before_it, &run_id(3), "db", &["db"]).await;
    // Its own, whose Backup somebody has deleted since.
    put_run(&test, &scope(), &run_id(10), "db", &["db"]).await;
    put_run(&test, &neighbour, &run_id(9), "db", &["db"]).await;
    // Not restore points: one known, one partial, one cut, one without a manifest, one whose manifest is none.
    put_run(&test, &before_it, &run_id(4), "db", &["db"]).await;
    put_run(&test, &before_it, &run_id(5), "db", &["db", "files"]).await;
    put_run(&test, &before_it, &run_id(6), "db", &["db"]).await;
    let of = |day| folder(&test.store()).run(&run_id(day)).source("db");
    test.put(&of(6).artifact("shop.pgdump", "abc123", 3, false), "cut").await;
    test.put(&of(7).artifact("shop.pgdump", "abc123", 3, false), "content").await;
    test.put(&of(8).manifest(), "{\"formatVersion\": 1").await;
    let before = test.keys().await;

    let mut task = catalogue(StoreTask { read_only: true, ..test.store() });
    task.known = vec![run_id(4)];
    let report = run(&Task::Catalogue(task.clone())).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    let runs = &told(&report).runs;
    assert_eq!(runs.iter().map(|r| r.run_id.clone()).collect::<Vec<_>>(), [run_id(3), run_id(2), run_id(1)]);
    assert_eq!(runs.iter().map(|r| r.cluster.as_str()).collect::<Vec<_>>(), ["cluster", "other", "cluster"]);
    assert_eq!((runs[2].sources.join(" ").as_str(), runs[2].stored_bytes, runs[2].items), ("db files", 14, 2));
    for words in ["other", &run_id(6), &run_id(8)] {
        assert!(report.message.contains(words), "{words}: {}", report.message);
    }
    task.limit = 1;
    let report = run(&Task::Catalogue(task)).await;
    assert_eq!((told(&report).runs.len(), told(&report).more), (1, 2));
    // What the policy itself made is told to whoever asks for the newest.
    let task = CatalogueTask { own: true, ..catalogue(test.store()) };
    let report = run(&Task::Catalogue(task)).await;
    assert_eq!(told(&report).runs[0].run_id, run_id(10));
    assert_eq!(test.keys().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_told_and_what_the_listing_merely_lacks_is_not() {
    let test = Server::shared().await.bucket().await;
    for day in [1, 2, 3, 5] {
        put_run(&test, &scope(), &run_id(day), "db", &["db"]).await;
    }
    put_run(&test, &scope(), &run_id(6), "db", &["db", "files"]).await;
    // Of one its object is gone, of one a manifest, one is in doubt, of one there is nothing at all.
    let bucket = test.open().await;
    let of = |day| folder(&test.store()).run(&run_id(day)).source("db");
    bucket.delete(&of(3).artifact("shop.pgdump", "abc123", 3, false)).await.unwrap();
    test.put(&of(5).manifest(), "{\"formatVersion\": 1").await;
    let expected: Vec<String> = [8, 6, 5, 3, 2, 1].map(|day| format!("{}/db", run_id(day))).into();
    let task = CatalogueTask { expected: expected.clone(), ..catalogue(StoreTask { read_only: true, ..test.store() }) };
    let judged = |report: &Report| {
        let days = |spans: &[holdfast::task::Span]| -> Vec<u32> {
            (1..10).filter(|day| spans.iter().any(|span| span.has(&run_id(*day)))).collect()
        };
        (days(&told(report).there), days(&told(report).gone))
    };
    let report = run(&Task::Catalogue(task.clone())).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    let (there, gone) = judged(&report);
    assert_eq!(there, [1, 2]);
    assert!([3, 6, 8].iter().all(|day| gone.contains(day)) && !gone.contains(&5), "{gone:?}");
    assert!(
        report.message.starts_with(&format!(
            "3 runs that have a Backup are not there any more, the newest of them {}",
            run_id(8)
        )),
        "{}",
        report.message
    );

    // Whatever stands before the store and says 404 by itself says nothing about the object.
    let page = Proxy::start(test.server.port(), move |request, _| {
        if request.contains("manifest.json") && !request.contains("list-type") && request.contains(&run_id(8)) {
            return Fate::Answer("404 Not Found", "<html>no such page</html>".into());
        }
        Fate::Pass
    });
    let patience = StorePatience { answered_seconds: 1, ..StorePatience::default() };
    let behind = |proxy: &Proxy| CatalogueTask {
        store: StoreTask { patience, ..test.store_at(proxy.endpoint()) },
        ..task.clone()
    };
    let (_, gone) = judged(&run(&Task::Catalogue(behind(&page))).await);
    assert!(gone.contains(&3) && !gone.contains(&8), "{gone:?}");

    // A listing that is empty by mistake makes nothing be gone.
    let empty = "<?xml version=\"1.0\"?><ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>";
    let short = Proxy::start(test.server.port(), move |request, _| {
        if request.contains("list-type=2") { Fate::Answer("200 OK", empty.into()) } else { Fate::Pass }
    });
    let task = CatalogueTask { expected: vec![format!("{}/db", run_id(1))], ..behind(&short) };
    let report = run(&Task::Catalogue(task)).await;
    assert_eq!(report.reason, Reason::ListIncomplete, "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_there_is_answered_with_those_that_are() {
    let test = Server::shared().await.bucket().await;
    let ask = |namespace: &str, policy: &str| {
        let task = RestoreTask {
            store: StoreTask { read_only: true, ..test.store() },
            scope: Scope { namespace: namespace.into(), policy: policy.into(), ..scope() },
            request: "undo".into(),
            request_uid: "uid".into(),
            select: Select::At(None),
            cluster: None,
            sources: None,
            targets: vec![],
            on_existing: OnExisting::Fail,
            dry_run: false,
            claims_to_make: vec![],
            timeout_seconds: 120,
            idle_timeout_seconds: 60,
        };
        async move {
            let report = run(&Task::Restore(Box::new(task))).await;
            assert_eq!(report.reason, Reason::NoMatchingBackup, "{}", report.message);
            report.message
        }
    };
    let told = ask("shop", "nightly").await;
    assert!(told.contains("below this prefix is nothing at all (prefix prod of bucket "), "{told}");
    assert!(told.ends_with("correct spec.s3.bucket or spec.s3.prefix of BackupStore main"), "{told}");
    for policy in ["hourly", "nightly"] {
        put_run(&test, &Scope { policy: policy.into(), ..scope() }, &run_id(1), "db", &["db"]).await;
    }
    test.put("prod/shop/.restores/another.json", "{}").await;
    test.put("prod/.holdfast/canary-000000", "canary").await;
    let message = ask("shop", "nightl").await;
    assert!(message.ends_with("this namespace has the policies hourly, nightly"), "{message}");
    let message = ask("sho", "nightly").await;
    assert!(
        message.ends_with("nothing is there of this namespace; below this prefix are the namespaces shop"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_clusters_wrote_to_one_folder_none_is_restored_by_guess() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    let mut runs = Vec::new();
    for (day, uid) in [(21, "cluster"), (22, "other")] {
        let database = format!("shared_{uid}");
        cluster.create_database(&database);
        cluster.sql(&database, &format!("create table t as select '{uid}' as made_by"));
        let task = BackupTask {
            scope: Scope { cluster_uid: uid.into(), ..scope() },
            run_id: run_id(day),
            slot: format!("2026-11-{day}T02:00:00Z").parse().unwrap(),
            ..backup(test.store(), &cluster, &secret, &database)
        };
        let report = run(&Task::Backup(Box::new(task))).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
        runs.push((uid, run_id(day), database));
    }
    let restore = |select, cluster_uid: Option<&str>| {
        Task::Restore(Box::new(RestoreTask {
            request_uid: "uid".into(),
            cluster: cluster_uid.map(str::to_owned),
            ..job::restore(
                StoreTask { read_only: true, ..test.store() },
                select,
                cluster.target(&secret.mounts, Some("shared_back")),
                OnExisting::Replace,
            )
        }))
    };
    let before_the_other = Select::At(Some("2026-11-21T12:00:00Z".parse().unwrap()));
    for select in [Select::At(None), before_the_other] {
        let report = run(&restore(select, None)).await;
        assert_eq!(report.reason, Reason::NoMatchingBackup, "{}", report.message);
        for words in ["from.store.cluster", "from.store.runId", "other has 1", "cluster (this one) has 1", &run_id(21)]
        {
            assert!(report.message.contains(words), "{words}: {}", report.message);
        }
        assert_eq!(
            cluster.sql("postgres", "select count(*) from pg_database where datname = 'shared_back'").trim(),
            "0"
        );
    }
    for (uid, id, _) in &runs {
        for task in [restore(Select::At(None), Some(uid)), restore(Select::RunId(id.clone()), None)] {
            let report = run(&task).await;
            assert_eq!(report.reason, Reason::Completed, "{}", report.message);
            assert_eq!(cluster.sql("shared_back", "select made_by from t").trim(), *uid);
        }
    }
    let report = run(&restore(Select::RunId(run_id(22)), Some("cluster"))).await;
    assert_eq!(report.reason, Reason::NoMatchingBackup, "{}", report.message);
    for database in runs.iter().map(|(_, _, database)| database.as_str()).chain(["shared_back"]) {
        cluster.sql("postgres", &format!("drop database {database} with (force)"));
    }
}

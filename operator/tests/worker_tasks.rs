//! Whole tasks, by the program as a Job runs it, against a real S3 server and a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]
#![allow(clippy::items_after_statements, reason = "a stream that only one test needs stands in that test")]
#![allow(clippy::match_bool, clippy::similar_names, reason = "what a proxy does with a request reads best as a table")]

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

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast::store::keys::namespace_folder;
use holdfast::task::{
    BackupTask, DeleteTask, KnownRun, Outcome, ProbeTask, Report, RetainReport, RetainTask, Scope, Select,
    StorePatience, StoreTask, Task,
};
use holdfast::task::{Writer, Writers};
use holdfast_crds::{OnExisting, Reason, RetentionSpec};
use job::{Job, backup, folder, probe, run, run_id, scope};
use postgres::{Cluster, Secret};
use proxy::{Fate, Proxy, with_body};
use runs::put_run;
use s3::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_why_a_store_is_not_fit() {
    let test = Server::shared().await.bucket().await;
    assert_eq!(run(&probe(test.store())).await.reason, Reason::Completed);
    assert_eq!(test.keys().await, Vec::<String>::new(), "the canary is gone");

    // Whether anything of the namespace is there is told beside it, and known only where it can be seen.
    let is_empty = |report: Report| {
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
        let Some(Outcome::Probe(told)) = report.outcome else { panic!("{report:?}") };
        told.empty_at.is_some()
    };
    test.put(&format!("{}x", namespace_folder(&test.store().s3, "shopping")), "of another namespace").await;
    for read_only in [false, true] {
        assert!(is_empty(run(&probe(StoreTask { read_only, ..test.store() })).await));
    }
    let hidden = Proxy::start(test.server.port(), |request, _| {
        if request.contains("list-type=2") && request.contains("shop%2F") {
            return Fate::Answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>".into());
        }
        Fate::Pass
    });
    assert!(!is_empty(run(&probe(test.store_at(hidden.endpoint()))).await));
    put_run(&test, &scope(), &run_id(1), "db", &["db"]).await;
    assert!(!is_empty(run(&probe(test.store())).await));
    assert!(is_empty(
        run(&Task::Probe(ProbeTask { store: test.store(), namespace: "sho".into(), newest: vec![] })).await
    ));

    let mut missing = test.store();
    missing.s3.bucket = "there-is-none".into();
    assert_eq!(run(&probe(missing.clone())).await.reason, Reason::BucketNotFound);
    missing.read_only = true;
    assert_eq!(run(&probe(missing)).await.reason, Reason::BucketNotFound);
    test.write_credentials(s3::KEY_ID, "wrong");
    assert_eq!(run(&probe(test.store())).await.reason, Reason::CredentialsRejected);
    test.write_credentials(s3::KEY_ID, s3::SECRET);

    let silent = Proxy::start(test.server.port(), |_, _| Fate::Answer("503 Service Unavailable", String::new()));
    let report = run(&probe(test.store_at(silent.endpoint()))).await;
    assert_eq!(report.reason, Reason::Unreachable);
    assert!(report.message.contains("503"), "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_stored_once_whatever_uid_its_backup_has_now() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    cluster.create_database("slot_once");
    cluster.sql("slot_once", "create table t as select 1 as day");
    let first = BackupTask { once: true, ..backup(test.store(), &cluster, &secret, "slot_once") };
    let of =
        |run_id: &str, task: &BackupTask| Task::Backup(Box::new(BackupTask { run_id: run_id.into(), ..task.clone() }));
    let stored = |report: &Report| {
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
        let Some(Outcome::Backup(stored)) = report.outcome.clone() else { panic!("{report:?}") };
        stored
    };
    let saved = stored(&run(&of(&first.run_id, &first)).await);
    assert_eq!(saved.run_id, None);
    let keys = test.keys().await;
    cluster.sql("slot_once", "update t set day = 2");

    // It came back without its status, with another UID, and so with another folder.
    let slot = first.run_id.split('-').next().unwrap();
    let second_life = format!("{slot}-bbbbbb");
    let again = stored(&run(&of(&second_life, &first)).await);
    assert_eq!((again.run_id.as_deref(), &again.key), (Some(first.run_id.as_str()), &saved.key));
    assert_eq!(test.keys().await, keys, "nothing was stored");

    // Where only a part of it is there, nothing is added to it.
    let both = BackupTask { run_sources: vec!["db".into(), "files".into()], ..first.clone() };
    let other = BackupTask { slot: "2026-11-23T02:00:00Z".parse().unwrap(), ..both };
    let partial = "20261123T020000Z-aaaaaa";
    stored(&run(&of(partial, &other)).await);
    let keys = test.keys().await;
    let report = run(&of("20261123T020000Z-bbbbbb", &other)).await;
    assert_eq!(report.reason, Reason::SlotPassed, "{}", report.message);
    assert!(report.message.contains(partial), "{}", report.message);
    assert_eq!(test.keys().await, keys);

    // Another Backup of the same second, one that was made by hand, and another cluster's run are none of its business.
    for (n, task) in [
        BackupTask { backup: "another".into(), ..first.clone() },
        BackupTask { once: false, ..first.clone() },
        BackupTask { scope: Scope { cluster_uid: "other".into(), ..scope() }, ..first.clone() },
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(stored(&run(&of(&format!("{slot}-cccc0{n}"), task)).await).run_id, None, "{n}");
    }
    cluster.sql("postgres", "drop database slot_once with (force)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_which_of_the_newest_runs_are_gone() {
    let test = Server::shared().await.bucket().await;
    put_run(&test, &scope(), &run_id(1), "db", &["db"]).await;
    let newest: Vec<String> = ["nightly", "hourly"].map(|policy| format!("{policy}/{}/db", run_id(1))).into();
    let probe = |store| Task::Probe(ProbeTask { store, namespace: "shop".into(), newest: newest.clone() });
    let missing = |report: Report| {
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
        let Some(Outcome::Probe(told)) = report.outcome else { panic!("{report:?}") };
        told.missing
    };
    assert_eq!(missing(run(&probe(test.store())).await), [format!("hourly/{}", run_id(1))]);
    // A store that answers with errors, or something before it that says 404, makes nothing be missing.
    for answer in
        [("404 Not Found", "<html>no such page</html>"), ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>")]
    {
        let proxy = Proxy::start(test.server.port(), move |request, _| {
            if request.contains("manifest.json") { Fate::Answer(answer.0, answer.1.into()) } else { Fate::Pass }
        });
        let patience = StorePatience { answered_seconds: 1, ..StorePatience::default() };
        let store = StoreTask { patience, ..test.store_at(proxy.endpoint()) };
        assert_eq!(missing(run(&probe(store)).await), [""; 0], "{}", answer.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_saved_and_comes_back_under_another_name() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    cluster.create_database("saved");
    cluster.sql("saved", "create table t (id int primary key, v text); insert into t select i, md5(i::text) from generate_series(1, 50000) i");
    let task = backup(test.store(), &cluster, &secret, "saved");
    let report = run(&Task::Backup(Box::new(task.clone()))).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    let Some(Outcome::Backup(saved)) = &report.outcome else { panic!("{report:?}") };
    assert_eq!(saved.items, 1);
    let keys = test.keys().await;
    let manifest = folder(&task.store).run(&task.run_id).source("db").manifest();
    assert_eq!(keys, [manifest.clone(), saved.key.clone()]);
    assert_eq!(test.get(&saved.key).await.len(), usize::try_from(saved.stored_bytes).unwrap());
    let text = String::from_utf8(test.get(&manifest).await.to_vec()).unwrap();
    assert!(!text.contains(s3::SECRET) && !text.contains("credentials"), "{text}");

    // A second attempt, by another Pod, finds it done.
    let again = run(&Task::Backup(Box::new(task.clone()))).await;
    assert_eq!(again.outcome, report.outcome);
    assert_eq!(test.keys().await, keys);

    let restore = |select, on_existing, database: &str| {
        Task::Restore(Box::new(job::restore(
            test.store(),
            select,
            cluster.target(&secret.mounts, Some(database)),
            on_existing,
        )))
    };
    let report = run(&restore(Select::At(None), OnExisting::Fail, "back")).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert_eq!(cluster.fingerprint("back"), cluster.fingerprint("saved"));
    let Some(Outcome::Restore(restored)) = &report.outcome else { panic!("{report:?}") };
    assert_eq!((restored.run_id.as_str(), restored.sources.len()), (task.run_id.as_str(), 1));

    // Where the target holds data, or the backup is not whole, nothing of it is touched.
    cluster.sql("back", "delete from t where id > 10");
    let report = run(&restore(Select::At(None), OnExisting::Fail, "back")).await;
    assert_eq!(report.reason, Reason::TargetNotEmpty, "{}", report.message);
    let object = test.get(&saved.key).await;
    let mut flipped = object.to_vec();
    flipped[object.len() / 2] ^= 1;
    for (damaged, reason) in [(flipped, Reason::ChecksumMismatch), (object[..100].to_vec(), Reason::ChecksumMismatch)] {
        test.put(&saved.key, damaged).await;
        let report = run(&restore(Select::RunId(task.run_id.clone()), OnExisting::Replace, "back")).await;
        assert_eq!(report.reason, reason, "{}", report.message);
        assert_eq!(cluster.sql("back", "select count(*) from t").trim(), "10");
    }

    let report =
        run(&restore(Select::At(Some("2026-11-21T01:59:59Z".parse().unwrap())), OnExisting::Replace, "back")).await;
    assert_eq!(report.reason, Reason::NoMatchingBackup);
    assert!(report.message.contains(&task.run_id), "{}", report.message);
    for database in ["saved", "back"] {
        cluster.sql("postgres", &format!("drop database {database} with (force)"));
    }
}

/// A database whose dump waits for a lock that the test holds until the returned session is dropped.
fn locked(cluster: &Cluster, database: &str) -> std::process::Child {
    cluster.create_database(database);
    cluster.sql(database, "create table t (id int); insert into t values (1)");
    let mut session = Command::new(format!("{}/psql", postgres::bin()))
        .env("PGPASSWORD", postgres::PASSWORD)
        .args(["-X", "-q", "-h", "127.0.0.1", "-p", &cluster.port.to_string(), "-U", "postgres", "-d", database])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lock = "begin; lock table t in access exclusive mode; select 1;\n";
    std::io::Write::write_all(session.stdin.as_mut().unwrap(), lock.as_bytes()).unwrap();
    postgres::until("the lock", || {
        cluster
            .sql(
                database,
                "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and relation = 't'::regclass",
            )
            .trim()
            == "1"
    });
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_waits_too_long_or_is_told_to_end_says_so_and_leaves_nothing() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    let mut session = locked(&cluster, "locked");
    let task = backup(test.store(), &cluster, &secret, "locked");
    let stalled = BackupTask { idle_timeout_seconds: 2, ..task.clone() };
    let late = BackupTask { timeout_seconds: 3, ..task.clone() };
    for (task, reason) in [(stalled, Reason::Stalled), (late, Reason::DeadlineExceeded)] {
        let report = run(&Task::Backup(Box::new(task))).await;
        assert_eq!(report.reason, reason, "{}", report.message);
    }
    let job = Job::start(&Task::Backup(Box::new(task)));
    postgres::until("the dump", || {
        cluster.sql("locked", "select count(*) from pg_locks where not granted and relation = 't'::regclass").trim()
            != "0"
    });
    let told = Instant::now();
    job.terminate();
    assert_eq!(job.report().await.reason, Reason::PodLost);
    assert!(told.elapsed() < Duration::from_secs(20));
    postgres::until("the end of every dump", || {
        cluster.sql("locked", "select count(*) from pg_locks where not granted and relation = 't'::regclass").trim()
            == "0"
    });
    assert_eq!((test.keys().await, test.open_uploads().await), (vec![], vec![]));
    let _ = session.kill();
    let _ = session.wait();
    cluster.sql("postgres", "drop database locked with (force)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_answer_is_lost_counts_and_one_that_cannot_be_written_leaves_nothing() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    cluster.create_database("commit");
    cluster.sql("commit", "create table t (id int)");
    let is_commit = |line: &str| line.starts_with("PUT") && line.contains("manifest.json");

    let refusing = Proxy::start(test.server.port(), move |line, _| match is_commit(line) {
        true => Fate::Answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>".into()),
        false => Fate::Pass,
    });
    let task = backup(test.store_at(refusing.endpoint()), &cluster, &secret, "commit");
    let report = run(&Task::Backup(Box::new(task))).await;
    assert_eq!(report.reason, Reason::StoreRefused, "{}", report.message);
    assert_eq!((test.keys().await, test.open_uploads().await), (vec![], vec![]));

    let losing = Proxy::start(test.server.port(), move |line, _| match is_commit(line) {
        true => Fate::Alter(Box::new(|_| b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec())),
        false => Fate::Pass,
    });
    let task = backup(test.store_at(losing.endpoint()), &cluster, &secret, "commit");
    let report = run(&Task::Backup(Box::new(task))).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert_eq!(test.keys().await.len(), 2);
    cluster.sql("postgres", "drop database commit with (force)");
}

fn retain(store: StoreTask) -> RetainTask {
    RetainTask {
        store,
        scope: scope(),
        retention: RetentionSpec { keep_last: Some(2), ..RetentionSpec::default() },
        time_zone: "UTC".into(),
        known: Vec::new(),
        protected: Vec::new(),
        writers: None,
        limit: 100,
        grace_seconds: 3600,
    }
}

fn retained(report: &Report) -> &RetainReport {
    match &report.outcome {
        Some(Outcome::Retain(retained)) => retained,
        _ => panic!("{report:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_nothing_where_two_living_clusters_have_one_identity() {
    let test = Server::shared().await.bucket().await;
    let writer = |id: &str, since: &str| Writer { id: id.into(), since: since.parse().unwrap() };
    for day in 1..=4 {
        put_run(&test, &scope(), &run_id(day), "db", &["db"]).await;
    }
    let written_by = async |day: u32, by: &Writer| {
        let key = folder(&test.store()).run(&run_id(day)).source("db").manifest();
        let mut manifest: serde_json::Value = serde_json::from_slice(&test.get(&key).await).unwrap();
        manifest["writer"] = serde_json::to_value(by).unwrap();
        test.put(&key, serde_json::to_vec(&manifest).unwrap()).await;
    };
    // The original leads since the first; a copy of its etcd, beside it, since the third, and both remember the original.
    let (original, copy) = (writer("a1", "2026-11-01T00:00:00Z"), writer("b1", "2026-11-03T00:00:00Z"));
    written_by(2, &Writer { since: "2026-11-02T02:00:01Z".parse().unwrap(), ..original.clone() }).await;
    written_by(3, &Writer { since: "2026-11-03T02:00:01Z".parse().unwrap(), ..original.clone() }).await;
    written_by(4, &Writer { since: "2026-11-04T02:00:01Z".parse().unwrap(), ..copy.clone() }).await;
    let of = |leader: &Writer, accepted: Vec<String>| {
        let writers = Writers { leader: leader.clone(), before: vec![original.clone()], others: vec![], accepted };
        Task::Retain(RetainTask { writers: Some(writers), ..retain(test.store()) })
    };
    let before = test.keys().await;
    for (leader, other) in [(&original, &copy), (&copy, &original)] {
        let report = run(&of(leader, vec![])).await;
        assert_eq!(report.reason, Reason::AnotherWriter, "{}", report.message);
        assert!(report.message.contains("accept-writers") && report.message.contains(&other.id), "{}", report.message);
        assert_eq!(retained(&report).other_writers.iter().map(|w| &w.id).collect::<Vec<_>>(), [&other.id]);
        assert_eq!(test.keys().await, before);
    }
    let report = run(&of(&copy, vec!["a1".into()])).await;
    assert_eq!((report.reason, retained(&report).deleted.len()), (Reason::Completed, 2), "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_nothing_while_the_clocks_are_apart() {
    let test = Server::shared().await.bucket().await;
    for day in 1..=5 {
        put_run(&test, &scope(), &run_id(day), "db", &["db"]).await;
    }
    let before = test.keys().await;
    for (apart, reason) in [(-6, Reason::ClockSkew), (6, Reason::ClockSkew), (-4, Reason::Completed)] {
        let skewed = Proxy::start(test.server.port(), move |_, _| {
            Fate::Alter(Box::new(move |answer| dated(&answer, jiff::SignedDuration::from_mins(apart))))
        });
        let report = run(&Task::Retain(retain(test.store_at(skewed.endpoint())))).await;
        assert_eq!(report.reason, reason, "{}", report.message);
        if reason == Reason::ClockSkew {
            let clocks = ["the store's clock says 20", "this node's 20", "nothing was deleted"];
            assert!(clocks.iter().all(|words| report.message.contains(words)), "{}", report.message);
            assert_eq!(test.keys().await, before);
        }
    }
    assert!(test.keys().await.len() < before.len());
}

/// An answer with another date.
fn dated(answer: &[u8], later: jiff::SignedDuration) -> Vec<u8> {
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let date = (jiff::Timestamp::now() + later).strftime("%a, %d %b %Y %H:%M:%S GMT");
    let mut dated = Vec::new();
    for line in String::from_utf8_lossy(&answer[..head]).lines() {
        let line = if line.starts_with("Date:") { format!("Date: {date}") } else { line.to_owned() };
        dated.extend_from_slice(line.as_bytes());
        dated.extend_from_slice(b"\r\n");
    }
    assert!(dated.windows(6).any(|w| w == b"\nDate:"), "the server's answer has no date");
    dated.extend_from_slice(&answer[head + 2..]);
    dated
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_what_is_due_and_nothing_beside_it() {
    let test = Server::shared().await.bucket().await;
    let neighbour = Scope { policy: "nightly2".into(), ..scope() };
    let other_cluster = Scope { cluster_uid: "other".into(), ..scope() };
    let earlier_policy = Scope { policy_uid: "before".into(), ..scope() };
    for day in 1..=5 {
        put_run(&test, &scope(), &run_id(day), "db", &["db"]).await;
        put_run(&test, &neighbour, &run_id(day), "db", &["db"]).await;
    }
    put_run(&test, &other_cluster, "20261001T020000Z-000001", "db", &["db"]).await;
    put_run(&test, &earlier_policy, "20261001T020000Z-000002", "db", &["db"]).await;
    // Under way: data and no manifest; and strangers' objects in and beside the folder.
    for decoy in [
        format!("prod/shop/nightly/{}/db/shop-fffffff.pgdump.zst", run_id(1)),
        "prod/shop/nightly/20261101T030000Z-aaaaaa/db/shop-abc123.pgdump.zst".into(),
        "prod/shop/nightly/readme.txt".into(),
        "prod/shop/nightly-manifest.json".into(),
        "shop/nightly/20261101T020000Z-3f9a1c/db/manifest.json".into(),
    ] {
        test.put(&decoy, "decoy").await;
    }
    let before = test.keys().await;
    let mut task = retain(test.store());
    task.limit = 2;
    task.protected = vec![run_id(2)];
    let report = run(&Task::Retain(task.clone())).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    let earlier = "20261001T020000Z-000002".to_owned();
    assert_eq!(
        retained(&report).deleted,
        [earlier.clone(), run_id(1)],
        "the oldest first, also of a policy of that name before"
    );
    let report = run(&Task::Retain(task.clone())).await;
    assert_eq!(retained(&report).deleted, [run_id(3)], "the protected one not");
    task.protected.clear();
    let report = run(&Task::Retain(task.clone())).await;
    assert_eq!((&retained(&report).deleted, retained(&report).kept), (&vec![run_id(2)], 2));

    let gone: Vec<String> = [earlier, run_id(1), run_id(2), run_id(3)]
        .iter()
        .flat_map(|id| {
            let source = folder(&task.store).run(id).source("db");
            [source.manifest(), source.artifact("shop.pgdump", "abc123", 3, false)]
        })
        .collect();
    let expected: Vec<String> = before.into_iter().filter(|key| !gone.contains(key)).collect();
    assert_eq!(test.keys().await, expected);

    let report = run(&Task::Retain(task)).await;
    assert_eq!(retained(&report).deleted, Vec::<String>::new(), "a second pass finds nothing");
    assert_eq!(test.keys().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_other_hands_deleted_pushes_out_none_that_is_there() {
    let test = Server::shared().await.bucket().await;
    for day in 1..=2 {
        put_run(&test, &scope(), &run_id(day), "db", &["db"]).await;
    }
    let mut task = retain(test.store());
    task.retention.keep_last = Some(1);
    task.known = (1..=3)
        .map(|day| KnownRun {
            run_id: run_id(day),
            sources: vec!["db".into()],
            suspicious: false,
            imported: false,
            damaged: false,
        })
        .collect();
    let report = run(&Task::Retain(task)).await;
    assert_eq!((&retained(&report).deleted, retained(&report).kept), (&vec![run_id(1)], 1), "{}", report.message);
    assert!(test.keys().await.iter().all(|key| key.contains(&run_id(2))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_to_be_damaged_holds_up_nothing_and_pushes_out_nothing() {
    let test = Server::shared().await.bucket().await;
    for day in 1..=4 {
        put_run(&test, &scope(), &run_id(day), "db", &["db"]).await;
    }
    // The newest one's object is cut, as a verification found.
    let cut = folder(&test.store()).run(&run_id(4)).source("db").artifact("shop.pgdump", "abc123", 3, false);
    test.put(&cut, "cut").await;
    let known = |day: u32, damaged| KnownRun {
        run_id: run_id(day),
        sources: vec!["db".into()],
        suspicious: false,
        imported: false,
        damaged,
    };
    let mut task = retain(test.store());
    task.retention.keep_last = Some(2);
    task.known = (1..=4).map(|day| known(day, day == 4)).collect();
    let report = run(&Task::Retain(task.clone())).await;
    assert_eq!(retained(&report).deleted, [run_id(1)], "two that are whole, and the damaged one: {}", report.message);
    // Where none that stays is known to be whole, nothing goes.
    task.retention.keep_last = Some(1);
    task.known = (2..=4).map(|day| known(day, true)).collect();
    let before = test.keys().await;
    let report = run(&Task::Retain(task)).await;
    assert_eq!(report.reason, Reason::ListIncomplete, "{}", report.message);
    assert_eq!(test.keys().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_doubt_nothing_is_deleted() {
    let server = Server::shared().await;
    let filled = || async {
        let test = server.bucket().await;
        for day in 1..=5 {
            put_run(&test, &scope(), &run_id(day), "db", &["db"]).await;
        }
        test
    };
    let mut cases = Vec::new();

    let test = filled().await;
    test.put(&folder(&test.store()).run(&run_id(4)).source("db").manifest(), "{\"formatVersion\": 1").await;
    cases.push(("a manifest that is cut", retain(test.store()), test, None));

    let test = filled().await;
    test.put(&folder(&test.store()).run(&run_id(9)).source("db").manifest(), "{\"formatVersion\": 9}").await;
    cases.push(("a manifest of a later version", retain(test.store()), test, None));

    let test = filled().await;
    test.put(&folder(&test.store()).run(&run_id(5)).source("db").artifact("shop.pgdump", "abc123", 3, false), "cut")
        .await;
    cases.push(("the newest one is not whole", retain(test.store()), test, None));

    // A listing that leaves out the newest run, which the cluster knows.
    let test = filled().await;
    let proxy = Proxy::start(test.server.port(), |line, _| match line.contains("list-type=2") {
        true => Fate::Alter(Box::new(|answer| {
            with_body(&answer, |xml| {
                let kept: String = xml
                    .split_inclusive("</Contents>")
                    .filter(|entry| !entry.contains(&format!("{}/", run_id(5))) || !entry.contains("<Contents>"))
                    .collect();
                kept.replace("<KeyCount>10", "<KeyCount>8")
            })
        })),
        false => Fate::Pass,
    });
    let mut task = retain(test.store_at(proxy.endpoint()));
    task.known = vec![KnownRun {
        run_id: run_id(5),
        sources: vec!["db".into()],
        suspicious: false,
        imported: false,
        damaged: false,
    }];
    cases.push(("a listing without a run that is known", task, test, Some(proxy)));

    let test = filled().await;
    let proxy = Proxy::start(test.server.port(), |line, _| match line.contains("list-type=2") {
        true => Fate::Alter(Box::new(|answer| {
            with_body(&answer, |xml| xml.replace("<IsTruncated>false", "<IsTruncated>true"))
        })),
        false => Fate::Pass,
    });
    cases.push(("a listing that is cut", retain(test.store_at(proxy.endpoint())), test, Some(proxy)));

    for (what, task, test, _proxy) in cases {
        let before = test.keys().await;
        let report = run(&Task::Retain(task)).await;
        assert_eq!(report.reason, Reason::ListIncomplete, "{what}: {}", report.message);
        assert_eq!(test.keys().await, before, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_is_deleted_by_its_exact_keys_and_never_a_strangers() {
    let test = Server::shared().await.bucket().await;
    let stranger = Scope { cluster_uid: "other".into(), ..scope() };
    for day in 1..=2 {
        put_run(&test, &scope(), &run_id(day), "db", &["db", "files"]).await;
        put_run(&test, &scope(), &run_id(day), "files", &["db", "files"]).await;
    }
    put_run(&test, &stranger, &run_id(3), "db", &["db"]).await;
    let before = test.keys().await;
    let delete = |day| Task::Delete(DeleteTask { store: test.store(), scope: scope(), run_id: run_id(day) });
    for _ in 0..2 {
        assert_eq!(run(&delete(1)).await.reason, Reason::Completed);
        let rest: Vec<String> = before.iter().filter(|k| !k.contains(&run_id(1))).cloned().collect();
        assert_eq!(test.keys().await, rest);
    }
    // Its policy is gone, or another one has its name by now.
    put_run(&test, &scope(), &run_id(4), "db", &["db"]).await;
    let orphan = Scope { policy_uid: String::new(), ..scope() };
    let task = DeleteTask { store: test.store(), scope: orphan, run_id: run_id(4) };
    assert_eq!(run(&Task::Delete(task)).await.reason, Reason::Completed);
    assert!(!test.keys().await.iter().any(|key| key.contains(&run_id(4))));

    let rest = test.keys().await;
    let report = run(&delete(3)).await;
    assert!(report.message.contains("left alone"), "{}", report.message);
    assert_eq!(test.keys().await, rest, "another cluster's");
    let mut read_only = test.store();
    read_only.read_only = true;
    let task = DeleteTask { store: read_only, scope: scope(), run_id: run_id(2) };
    assert_eq!(run(&Task::Delete(task)).await.reason, Reason::StoreReadOnly);
    assert_eq!(test.keys().await, rest);
}

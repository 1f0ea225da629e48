//! A RestoreRequest is carried out once, as the bucket says, whatever the cluster remembers: against a real S3 server and a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/wait.rs"]
mod wait;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use holdfast::task::{BackupTask, DeleteTask, RestoreTask, RetainTask, Select, StoreTask, Task};
use holdfast_crds::{OnExisting, Reason, RetentionSpec};
use job::{Job, backup, markers, run, scope};
use postgres::{Cluster, Secret};
use proxy::{Fate, Proxy};
use s3::{Server, TestBucket};

/// A database that is saved, and the request that replaces it by what was saved.
struct Scene {
    cluster: Arc<Cluster>,
    secret: Secret,
    test: TestBucket,
    saved: BackupTask,
    database: &'static str,
}

impl Scene {
    async fn new(database: &'static str) -> Self {
        let (cluster, secret) = (Cluster::shared(), Secret::superuser());
        let test = Server::shared().await.bucket().await;
        cluster.create_database(database);
        cluster.sql(database, "create table t (id int primary key); insert into t select generate_series(1, 10)");
        let saved = backup(test.store(), &cluster, &secret, database);
        let report = run(&Task::Backup(Box::new(saved.clone()))).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
        Self { cluster, secret, test, saved, database }
    }

    fn request(&self, store: StoreTask, uid: &str) -> Task {
        Task::Restore(Box::new(RestoreTask {
            request_uid: uid.into(),
            ..job::restore(
                store,
                Select::At(None),
                self.cluster.target(&self.secret.mounts, Some(self.database)),
                OnExisting::Replace,
            )
        }))
    }

    /// Keys of what says that the request is carried out.
    async fn markers(&self, uid: &str) -> Vec<String> {
        self.test.keys().await.into_iter().filter(|key| key.starts_with(&markers(uid))).collect()
    }

    fn rows(&self) -> String {
        self.cluster.sql(self.database, "select count(*) from t").trim().to_owned()
    }

    /// What people write after a restore.
    fn write(&self) {
        self.cluster.sql(self.database, "insert into t select generate_series(11, 15)");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.cluster.sql("postgres", &format!("drop database {} with (force)", self.database));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_cluster_has_forgotten_does_not_run_again() {
    let scene = Scene::new("forgotten").await;
    let uid = job::request_uid();
    let request = scene.request(scene.test.store(), &uid);
    assert_eq!(run(&request).await.reason, Reason::Completed);
    let first = scene.markers(&uid).await;
    let [marker] = first.as_slice() else { panic!("{first:?}") };
    let told: serde_json::Value = serde_json::from_slice(&scene.test.get(marker).await).unwrap();
    for (field, value) in [("request", "undo"), ("requestUid", &uid), ("runId", &scene.saved.run_id)] {
        assert_eq!(told[field], value, "{told}");
    }

    scene.write();
    let reader = StoreTask { read_only: true, ..scene.test.store() };
    for store in [scene.test.store(), reader.clone()] {
        let again = run(&scene.request(store, &uid)).await;
        assert_eq!(again.reason, Reason::AlreadyRun, "{}", again.message);
        assert!(again.message.contains(marker) && again.message.contains("nothing was touched"));
        assert_eq!(scene.rows(), "15", "what was written since is there");
    }

    // It goes with no run: not by retention, not by a deletion.
    let retain = RetainTask {
        store: scene.test.store(),
        scope: scope(),
        retention: RetentionSpec { keep_last: Some(1), ..RetentionSpec::default() },
        time_zone: "UTC".into(),
        known: vec![],
        protected: vec![],
        writers: None,
        limit: 100,
        grace_seconds: 0,
    };
    assert_eq!(run(&Task::Retain(retain)).await.reason, Reason::Completed);
    let before = scene.test.keys().await;
    assert!(before.contains(marker));

    // Another request is another execution. A read-only store takes nothing down.
    assert_eq!(run(&scene.request(reader, &job::request_uid())).await.reason, Reason::Completed);
    assert_eq!((scene.rows().as_str(), scene.test.keys().await), ("10", before));

    let delete = DeleteTask { store: scene.test.store(), scope: scope(), run_id: scene.saved.run_id.clone() };
    assert_eq!(run(&Task::Delete(delete)).await.reason, Reason::Completed);
    assert_eq!(scene.test.keys().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_refused_before_it_touches_anything_was_not_carried_out() {
    let scene = Scene::new("refused").await;
    let uid = job::request_uid();
    let Task::Restore(mut request) = scene.request(scene.test.store(), &uid) else { unreachable!() };
    request.on_existing = OnExisting::Fail;
    assert_eq!(run(&Task::Restore(request)).await.reason, Reason::TargetNotEmpty);
    assert_eq!(scene.markers(&uid).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_whose_answer_is_lost_is_ones_own() {
    let scene = Scene::new("lost_answer").await;
    let uid = job::request_uid();
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = puts.clone();
    let losing = Proxy::start(scene.test.server.port(), move |line, _| {
        if line.starts_with("PUT") && line.contains("/.restores/") && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return Fate::CutAfter(0);
        }
        Fate::Pass
    });
    scene.write();
    let report = run(&scene.request(scene.test.store_at(losing.endpoint()), &uid)).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert_eq!((scene.rows().as_str(), puts.load(Ordering::SeqCst)), ("10", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_version_has_taken_down_counts() {
    let scene = Scene::new("older").await;
    let uid = job::request_uid();
    scene.test.put(&format!("{}json", markers(&uid)), "{\"formatVersion\": 1}").await;
    scene.write();
    let report = run(&scene.request(scene.test.store(), &uid)).await;
    assert_eq!((report.reason, scene.rows().as_str()), (Reason::AlreadyRun, "15"), "{}", report.message);
}

fn is_marker(line: &str) -> bool {
    line.starts_with("PUT") && line.contains("/.restores/")
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_second_finds_the_first_whatever_the_store_makes_of_conditions() {
    let scene = Scene::new("second").await;
    let uid = job::request_uid();
    // It looked before the first one had written, and writes when that one is done.
    let (arrived, may_go) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicBool::new(false)));
    let (seen, open) = (arrived.clone(), may_go.clone());
    let late = Proxy::start(scene.test.server.port(), move |line, _| {
        if is_marker(line) {
            line.clone_into(&mut seen.lock().unwrap());
            wait::until("the first one's end", || open.load(Ordering::SeqCst));
        }
        Fate::Pass
    });
    let second = Job::start(&scene.request(scene.test.store_at(late.endpoint()), &uid));
    wait::until("the second one's marker", || !arrived.lock().unwrap().is_empty());
    assert_eq!(run(&scene.request(scene.test.store(), &uid)).await.reason, Reason::Completed);
    let first = scene.markers(&uid).await;
    scene.write();
    // Where conditions are ignored, whatever has the name that it writes is as good as not there.
    let asked = arrived.lock().unwrap().clone();
    if first.iter().any(|key| asked.contains(&format!("{key}?")) || asked.contains(&format!("{key} "))) {
        scene.test.open().await.delete(&first[0]).await.unwrap();
    }
    may_go.store(true, Ordering::SeqCst);
    let report = second.report().await;
    assert_eq!(report.reason, Reason::AlreadyRun, "{}", report.message);
    assert!(report.message.contains(&first[0]), "{}", report.message);
    assert_eq!((scene.rows().as_str(), scene.markers(&uid).await), ("15", first), "it has withdrawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_come_at_once_one_restores() {
    let scene = Scene::new("at_once").await;
    let uid = job::request_uid();
    // Both have looked before either writes.
    let both = Barrier::new(2);
    let together = Proxy::start(scene.test.server.port(), move |line, _| {
        if is_marker(line) {
            both.wait();
        }
        Fate::Pass
    });
    let request = scene.request(scene.test.store_at(together.endpoint()), &uid);
    let (one, other) = (Job::start(&request), Job::start(&request));
    let (one, other) = tokio::join!(one.report(), other.report());
    let mut reasons = [one.reason, other.reason];
    reasons.sort();
    assert_eq!(reasons, [Reason::Completed, Reason::AlreadyRun], "{} {}", one.message, other.message);
    assert_eq!(scene.markers(&uid).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_it_stops_the_restore() {
    let scene = Scene::new("refusing").await;
    scene.write();
    let refusing = Proxy::start(scene.test.server.port(), move |line, _| {
        if is_marker(line) {
            return Fate::Answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>".into());
        }
        Fate::Pass
    });
    let report = run(&scene.request(scene.test.store_at(refusing.endpoint()), &job::request_uid())).await;
    assert_eq!(report.reason, Reason::StoreRefused, "{}", report.message);
    assert!(report.message.contains("nothing was touched"), "{}", report.message);
    assert_eq!(scene.rows(), "15");
}

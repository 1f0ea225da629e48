//! Workers as Jobs run them: the program with a task in its environment.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holdfast::store::keys::PolicyFolder;
use holdfast::task::{
    BackupTask, Mounts, ProbeTask, Report, RestoreTarget, RestoreTask, Scope, Select, StoreTask, Task,
};
use holdfast_crds::{OnExisting, Source};

use crate::postgres::{self, Cluster, Secret};
use crate::s3;

/// A password that is wrong wherever it is given, and as secret as a right one.
pub const WRONG: &str = "wr0ngs3cret";

/// The probe of a store that holds nothing yet.
pub fn probe(store: StoreTask) -> Task {
    Task::Probe(ProbeTask { store, namespace: "shop".into(), newest: vec![] })
}

/// A worker that runs, or has ended.
pub struct Job {
    pub child: std::process::Child,
    folder: tempfile::TempDir,
}

impl Job {
    pub fn start(task: &Task) -> Self {
        Self::start_with(task, &[])
    }

    /// With more variables in its environment, as a `jobTemplate` has them.
    pub fn start_with(task: &Task, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["worker", task.subcommand(), "--report"])
            .arg(folder.path().join("report"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TMPDIR", folder.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(task.to_environment())
            .envs(variables.iter().copied())
            .env("HOLDFAST_POD_NAME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// Asks it to end, as the kubelet does.
    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Its report, once it has ended with the exit code that goes with it and left nothing behind in its scratch folder.
    pub async fn report(mut self) -> Report {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < Duration::from_mins(3), "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let log = self.log();
        let text = std::fs::read_to_string(self.folder.path().join("report")).unwrap_or_else(|e| panic!("{e}: {log}"));
        let report = Report::from_termination_message(&text).unwrap();
        assert_eq!(status.code(), report.reason.exit_code().map(i32::from), "{text} {log}");
        let mut left: Vec<_> = std::fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["log", "report"]);
        for secret in [s3::SECRET, postgres::PASSWORD, WRONG] {
            assert!(!log.contains(secret) && !text.contains(secret), "{log}");
        }
        report
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn run(task: &Task) -> Report {
    Job::start(task).report().await
}

pub fn scope() -> Scope {
    Scope {
        cluster_uid: "cluster".into(),
        namespace: "shop".into(),
        policy: "nightly".into(),
        policy_uid: "uid".into(),
    }
}

pub fn folder(store: &StoreTask) -> PolicyFolder {
    PolicyFolder::new(&store.s3, &scope())
}

pub fn run_id(day: u32) -> String {
    format!("202611{day:02}T020000Z-3f9a1c")
}

/// A RestoreRequest's UID that no other has.
pub fn request_uid() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What the keys begin with where the bucket says that a RestoreRequest was carried out.
pub fn markers(request_uid: &str) -> String {
    format!("prod/shop/.restores/{request_uid}.")
}

pub fn backup(store: StoreTask, cluster: &Cluster, secret: &Secret, database: &str) -> BackupTask {
    let source = Source {
        name: "db".into(),
        postgres: Some(holdfast_crds::PostgresSource { database: Some(database.into()), ..cluster.source() }),
        ..Source::default()
    };
    backup_on(21, store, source, secret.mounts.clone())
}

/// A backup of the source `db` in the run of this day of November.
pub fn backup_on(day: u32, store: StoreTask, source: Source, mounts: Mounts) -> BackupTask {
    BackupTask {
        store,
        scope: scope(),
        backup: format!("nightly-202611{day:02}-020000"),
        run_id: run_id(day),
        slot: format!("2026-11-{day:02}T02:00:00Z").parse().unwrap(),
        once: false,
        writer: None,
        run_sources: vec!["db".into()],
        source,
        safety_for: None,
        mounts,
        level: 3,
        timeout_seconds: 120,
        idle_timeout_seconds: 60,
    }
}

/// A restore of all of a run into one target, asked for by a request of its own.
pub fn restore(store: StoreTask, select: Select, target: RestoreTarget, on_existing: OnExisting) -> RestoreTask {
    RestoreTask {
        store,
        scope: scope(),
        request: "undo".into(),
        request_uid: request_uid(),
        select,
        cluster: None,
        sources: None,
        targets: vec![target],
        on_existing,
        dry_run: false,
        claims_to_make: vec![],
        timeout_seconds: 120,
        idle_timeout_seconds: 60,
    }
}

//! The kubelet and the workers: Jobs that finish, fail, are lost or die between two writes; and the bucket that they write to. Pure.

use std::collections::{BTreeMap, BTreeSet};

use holdfast::plan::observed::{ContainerEnd, JobEnd, ObservedPod};
use holdfast::plan::retention::{Run, decide};
use holdfast::plan::schedule::time_zone;
use holdfast::task::{
    BackupReport, BackupTask, CatalogueReport, Outcome, ProbeReport, Report, RestoreReport, RestoreTask,
    RestoredSource, RetainReport, RetainTask, Select, Task, VerifyTask,
};
use holdfast_crds::Reason;
use jiff::{SignedDuration, Timestamp};

use crate::cluster::{Cluster, NAMESPACE, Work};

/// Runs by policy and folder.
#[derive(Default)]
pub struct Bucket {
    pub runs: BTreeMap<(String, String), Stored>,
    /// Folders of runs in which something was changed behind the product's back.
    pub damaged: BTreeSet<String>,
    /// By the UID of a RestoreRequest: the Job that carried it out.
    pub executed: BTreeMap<String, String>,
}

/// What is there of a run.
#[derive(Clone, Debug)]
pub struct Stored {
    pub slot: Timestamp,
    pub run_sources: BTreeSet<String>,
    /// Sources with a manifest.
    pub sources: BTreeSet<String>,
}

impl Stored {
    pub fn is_complete(&self) -> bool {
        self.run_sources.is_subset(&self.sources)
    }
}

const ATTEMPTS: usize = 3;

/// Something happens to one of the Jobs.
pub fn step(cluster: &mut Cluster) {
    let open: Vec<String> = cluster.work.values().filter(|w| w.job.end.is_none()).map(|w| w.job.name.clone()).collect();
    if open.is_empty() {
        return;
    }
    let name = open[cluster.rng.usize(..open.len())].clone();
    move_on(cluster, &name);
}

/// All Jobs end, well where they can.
pub fn finish_all(cluster: &mut Cluster) {
    for _ in 0..8 {
        let open: Vec<String> =
            cluster.work.values().filter(|w| w.job.end.is_none()).map(|w| w.job.name.clone()).collect();
        for name in open {
            move_on(cluster, &name);
        }
    }
}

fn move_on(cluster: &mut Cluster, name: &str) {
    let Some(mut work) = cluster.work.get(name).cloned() else { return };
    let running = work.pods.iter().position(|p| p.phase == "Running");
    if running.is_some_and(|pod| work.pods[pod].ended.is_some()) {
        // Its worker has ended, and a container that somebody has injected goes on for ever.
        return;
    }
    let Some(pod) = running else {
        if cluster.faulty && cluster.chance(15) {
            // No node yet.
            return;
        }
        let number = work.pods.len();
        work.pods.push(a_pod(cluster, &work, number));
        return cluster.put_work(work);
    };
    let die = cluster.faulty && cluster.chance(15);
    if die && cluster.chance(50) {
        // Before anything was written.
        return lost(cluster, work, pod);
    }
    let report = match work.task.clone() {
        Task::Probe(_) if cluster.store_is_up => {
            let empty_at = cluster.bucket.runs.is_empty().then_some(cluster.now);
            Report::completed("", Some(Outcome::Probe(ProbeReport { empty_at, ..ProbeReport::default() })))
        }
        Task::Backup(task) if cluster.store_is_up => back_up(cluster, &task),
        Task::Retain(task) if cluster.store_is_up => retain(cluster, &task, die),
        Task::Delete(task) if cluster.store_is_up => {
            cluster.bucket.runs.remove(&(task.scope.policy.clone(), task.run_id.clone()));
            Report::completed("", None)
        }
        // What is there was made by this very policy: its Backup is there, or was deleted on purpose.
        Task::Catalogue(_) if cluster.store_is_up => {
            Report::completed("", Some(Outcome::Catalogue(CatalogueReport::default())))
        }
        Task::Restore(task) => restore(cluster, &task, &work.job.uid),
        Task::Verify(task) if cluster.store_is_up => verify(cluster, &task),
        _ => Report { reason: Reason::StoreUnreachable, message: "no route".into(), outcome: None },
    };
    if die {
        // After everything was written, before it could be told.
        return lost(cluster, work, pod);
    }
    ended(cluster, work, pod, Some(&report));
}

fn a_pod(cluster: &mut Cluster, work: &Work, number: usize) -> ObservedPod {
    ObservedPod {
        namespace: NAMESPACE.into(),
        name: format!("{}-{number}", work.job.name),
        job_uid: work.job.uid.clone(),
        created: cluster.now,
        others: if cluster.chance(20) { vec!["a-proxy".into()] } else { vec![] },
        phase: "Running".into(),
        started: true,
        ..ObservedPod::default()
    }
}

/// The Pod is gone with its node, or was killed: it left no word.
fn lost(cluster: &mut Cluster, work: Work, pod: usize) {
    ended(cluster, work, pod, None);
}

fn ended(cluster: &mut Cluster, mut work: Work, pod: usize, report: Option<&Report>) {
    let reason = report.map_or(Reason::PodLost, |r| r.reason);
    let exit_code = reason.exit_code().map_or(137, i32::from);
    let message = report.map(|r| serde_json::to_string(r).unwrap()).unwrap_or_default();
    let ended = &mut work.pods[pod];
    ended.phase = if exit_code == 0 { "Succeeded".into() } else { "Failed".into() };
    ended.ended = Some(ContainerEnd { exit_code, reason: String::new(), message, at: Some(cluster.now) });
    if !ended.others.is_empty() {
        // It goes on for ever, or fails by itself.
        let fails = exit_code == 0 && cluster.chance(20);
        ended.phase = if fails { "Failed".into() } else { "Running".into() };
        if fails {
            work.job.failed_pods += 1;
        }
        if fails && work.job.retries == 0 {
            let reason = "BackoffLimitExceeded".into();
            work.job.end = Some(JobEnd { completed: false, at: cluster.now, reason, message: String::new() });
        }
        return cluster.put_work(work);
    }
    let once = matches!(work.task, Task::Restore(_) | Task::Probe(_));
    let finally = once || Reason::FINAL_EXIT_CODES.contains(&exit_code) || work.pods.len() >= ATTEMPTS;
    if exit_code == 0 || finally {
        work.job.end = Some(JobEnd {
            completed: exit_code == 0,
            at: cluster.now,
            reason: if exit_code == 0 { "CompletionsReached" } else { "BackoffLimitExceeded" }.into(),
            message: String::new(),
        });
    } else {
        work.job.failed_pods += 1;
    }
    cluster.put_work(work);
}

fn back_up(cluster: &mut Cluster, task: &BackupTask) -> Report {
    if cluster.faulty && cluster.chance(15) {
        let reason = [Reason::SourceRefused, Reason::DumpFailed, Reason::SourceIncomplete][cluster.rng.usize(..3)];
        return Report { reason, message: "its words".into(), outcome: None };
    }
    let key = (task.scope.policy.clone(), task.run_id.clone());
    let run_sources: BTreeSet<String> = task.run_sources.iter().cloned().collect();
    let stored = cluster.bucket.runs.entry(key).or_insert_with(|| Stored {
        slot: task.slot,
        run_sources,
        sources: BTreeSet::new(),
    });
    stored.sources.insert(task.source.name.clone());
    // Now and then somebody has emptied the source.
    let source_bytes = if cluster.rng.u8(..10) == 0 { 10 } else { 1000 };
    let report = BackupReport { key: "k".into(), stored_bytes: 1, source_bytes, items: 1, ..BackupReport::default() };
    Report::completed("", Some(Outcome::Backup(report)))
}

/// As `worker/retain.rs` does it, on this bucket. `dies`: after some of the deletions.
fn retain(cluster: &mut Cluster, task: &RetainTask, dies: bool) -> Report {
    let policy = &task.scope.policy;
    let suspicious = |run_id: &str| task.known.iter().any(|k| k.suspicious && k.run_id == run_id);
    let as_run = |run_id: &str, slot, run_sources: &BTreeSet<String>, sources: &BTreeSet<String>| Run {
        slot,
        run_id: run_id.to_owned(),
        run_sources: run_sources.clone(),
        sources: sources.clone(),
        protected: task.protected.iter().any(|p| p == run_id),
        stored: None,
        suspicious: suspicious(run_id),
        foreign: false,
        damaged: task.known.iter().any(|k| k.damaged && k.run_id == run_id),
    };
    let there: Vec<Run> = cluster
        .bucket
        .runs
        .iter()
        .filter(|((of, _), _)| of == policy)
        .map(|((_, run_id), stored)| as_run(run_id, stored.slot, &stored.run_sources, &stored.sources))
        .collect();
    let gone = task.known.iter().filter(|k| !there.iter().any(|r| r.run_id == k.run_id)).map(|known| {
        let sources: BTreeSet<String> = known.sources.iter().cloned().collect();
        as_run(&known.run_id, holdfast::store::keys::slot_of_run(&known.run_id).unwrap(), &sources, &sources)
    });
    let runs: Vec<Run> = there.iter().cloned().chain(gone).collect();
    let zone = time_zone(&task.time_zone).unwrap();
    let verdicts = decide(&runs, &task.retention, &zone, SignedDuration::from_secs(task.grace_seconds));
    let mut report = RetainReport::default();
    for verdict in verdicts.iter().rev().filter(|v| !v.keep).take(task.limit) {
        let key = (policy.clone(), verdict.run_id.clone());
        if cluster.bucket.runs.contains_key(&key) {
            cluster.tally.retention_deletes(&there, &verdict.run_id);
            cluster.bucket.runs.remove(&key);
            if dies && cluster.rng.bool() {
                break;
            }
        }
        report.deleted.push(verdict.run_id.clone());
    }
    Report::completed("", Some(Outcome::Retain(report)))
}

/// As `worker/verify.rs` does it: what is damaged is told, and what is gone.
fn verify(cluster: &mut Cluster, task: &VerifyTask) -> Report {
    if cluster.faulty && cluster.chance(10) {
        return Report { reason: Reason::KeyMissing, message: "its words".into(), outcome: None };
    }
    let there = cluster.bucket.runs.get(&(task.scope.policy.clone(), task.run_id.clone()));
    let reason = match there {
        None => Reason::NoMatchingBackup,
        Some(stored) if !stored.is_complete() || cluster.bucket.damaged.contains(&task.run_id) => {
            Reason::ChecksumMismatch
        }
        Some(_) => Reason::Completed,
    };
    Report { reason, message: String::new(), outcome: None }
}

fn restore(cluster: &mut Cluster, task: &RestoreTask, job_uid: &str) -> Report {
    let executed = cluster.bucket.executed.entry(task.request_uid.clone()).or_insert_with(|| job_uid.to_owned());
    if executed != job_uid {
        return Report { reason: Reason::InvalidConfiguration, message: "it was carried out".into(), outcome: None };
    }
    cluster.tally.restored(&task.request_uid);
    let Select::RunId(run_id) = &task.select else { panic!("the controller had Backups to choose from: {task:?}") };
    let key = (task.scope.policy.clone(), run_id.clone());
    let whole = cluster.bucket.runs.get(&key).is_some_and(Stored::is_complete);
    if !whole {
        return Report { reason: Reason::NoMatchingBackup, message: "it is gone".into(), outcome: None };
    }
    if cluster.faulty && cluster.chance(20) {
        return Report { reason: Reason::TargetNotEmpty, message: "its words".into(), outcome: None };
    }
    let sources = task.sources.iter().flatten().map(|source| RestoredSource {
        source: source.clone(),
        reason: Reason::Completed,
        items: 1,
        restored_bytes: 1,
        message: String::new(),
    });
    let outcome = RestoreReport { run_id: run_id.clone(), sources: sources.collect() };
    Report::completed("", Some(Outcome::Restore(outcome)))
}

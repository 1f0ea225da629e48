//! What must hold at every step, and what must hold at the end. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use holdfast::plan::names::{SLOT_ANNOTATION, VERIFY_ANNOTATION, label_value};
use holdfast::plan::retention::Run;
use holdfast::plan::verify::request;
use holdfast_crds::{Backup, BackupPhase, BackupStatus, ConditionType, RestoreRequest, RestoreRequestStatus, is_true};
use kube::ResourceExt;

use crate::cluster::{Cluster, Work};
use crate::worker::{Bucket, Stored};

/// What happened so far.
#[derive(Default)]
pub struct Tally {
    made: BTreeMap<String, u32>,
    /// Runs that retention deleted.
    gone: BTreeSet<String>,
    slots: BTreeMap<(String, String), u32>,
    restored: BTreeMap<String, u32>,
    completed: u64,
    failed: u64,
    restores: u64,
    deleted: u64,
    suspicious: u64,
    verified: u64,
    damaged: u64,
    refused: u64,
    lives: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.restores += other.restores;
        self.deleted += other.deleted;
        self.suspicious += other.suspicious;
        self.verified += other.verified;
        self.damaged += other.damaged;
        self.refused += other.refused;
        self.lives += 1;
    }

    pub fn saw_enough(&self) -> bool {
        let seen =
            [self.completed, self.failed, self.restores, self.deleted, self.suspicious, self.verified, self.refused];
        seen.iter().all(|n| *n >= self.lives / 2) && self.damaged >= self.lives / 20
    }

    /// The API server refused a write of the controller.
    pub fn refused(&mut self) {
        self.refused += 1;
    }

    /// One Job a source and run, one a restore, whatever happens. The others may be repeated.
    pub fn job_made(&mut self, work: &Work) {
        if matches!(work.job.task.as_str(), "backup" | "restore") {
            let made = self.made.entry(work.job.name.clone()).or_default();
            *made += 1;
            assert!(*made == 1, "Job {} was made {made} times", work.job.name);
        }
    }

    /// A Job that somebody deletes before it is written down may be made anew: the work is left to do. A restore's, too: the marker in
    /// the bucket keeps it from being carried out twice.
    pub fn forgive(&mut self, work: &Work) {
        self.made.remove(&work.job.name);
    }

    pub fn scheduled(&mut self, backup: &Backup) {
        let slot = backup.annotations()[SLOT_ANNOTATION].clone();
        let made = self.slots.entry((backup.spec.policy_ref.name.clone(), slot)).or_default();
        *made += 1;
        assert!(*made == 1, "the slot of {} was run {made} times", backup.name_any());
    }

    /// A Backup that is deleted before the policy's cursor is written down is as if it had never been.
    pub fn backup_deleted(&mut self, backup: &Backup) {
        if let Some(slot) = backup.annotations().get(SLOT_ANNOTATION) {
            self.slots.remove(&(backup.spec.policy_ref.name.clone(), slot.clone()));
        }
    }

    pub fn restored(&mut self, request_uid: &str) {
        let times = self.restored.entry(request_uid.to_owned()).or_default();
        *times += 1;
        assert!(*times == 1, "a RestoreRequest was carried out {times} times");
    }

    pub fn backup_changes(&mut self, before: &Backup, after: &BackupStatus, bucket: &Bucket) {
        let phase = before.status.as_ref().map(|s| s.phase).unwrap_or_default();
        assert!(
            !phase.is_terminal() || phase == after.phase,
            "{}: {phase:?} became {:?}",
            before.name_any(),
            after.phase
        );
        assert!(phase <= after.phase, "{}: {phase:?} became {:?}", before.name_any(), after.phase);
        assert_eq!(is_true(&after.conditions, ConditionType::Finished), after.phase.is_terminal());
        if phase.is_terminal() {
            self.verification_changes(before, after, bucket);
        }
        if phase.is_terminal() || !after.phase.is_terminal() {
            return;
        }
        if after.phase == BackupPhase::Failed {
            self.failed += 1;
            let told =
                after.conditions.iter().any(|c| c.type_ == "Complete" && c.status == "False" && !c.message.is_empty());
            return assert!(told, "{} failed and does not say why", before.name_any());
        }
        self.completed += 1;
        self.suspicious += u64::from(after.conditions.iter().any(|c| c.reason == "Suspicious"));
        let key = (before.spec.policy_ref.name.clone(), after.run_id.clone().unwrap());
        // A newer run may have completed meanwhile, and retention been applied after that one.
        let whole = self.gone.contains(&key.1) || bucket.runs.get(&key).is_some_and(Stored::is_complete);
        assert!(whole, "{} says Completed and the bucket has {:?}", before.name_any(), bucket.runs.get(&key));
    }

    /// What is said to be damaged is, and what is said to be whole was there; what could not be found out changes neither.
    fn verification_changes(&mut self, before: &Backup, after: &BackupStatus, bucket: &Bucket) {
        let said = |status: Option<&BackupStatus>| {
            let conditions = status.map(|s| s.conditions.clone()).unwrap_or_default();
            conditions.into_iter().find(|c| c.type_ == "Verified").map(|c| c.status)
        };
        let time = |status: Option<&BackupStatus>| status?.verification.as_ref()?.last_verified_time.clone();
        let (old, new) = (before.status.as_ref(), Some(after));
        if time(old) == time(new) {
            let still = said(old) == said(new) || said(new).as_deref() == Some("Unknown");
            assert!(still && !(said(old).as_deref() == Some("False") && said(new).as_deref() != Some("False")));
            return;
        }
        let run_id = after.run_id.clone().unwrap();
        let stored = bucket.runs.get(&(before.spec.policy_ref.name.clone(), run_id.clone()));
        let harmed = bucket.damaged.contains(&run_id) || !stored.is_some_and(Stored::is_complete);
        match said(new).as_deref() {
            Some("True") => self.verified += 1,
            Some("False") => {
                self.damaged += 1;
                assert!(harmed, "{} is said to be damaged, and is whole", before.name_any());
            }
            other => panic!("{}: verified, and {other:?}", before.name_any()),
        }
    }

    pub fn restore_changes(&mut self, before: &RestoreRequest, after: &RestoreRequestStatus) {
        let phase = before.status.as_ref().map(|s| s.phase).unwrap_or_default();
        assert!(phase <= after.phase && (!phase.is_terminal() || phase == after.phase), "{phase:?} {:?}", after.phase);
        assert_eq!(is_true(&after.conditions, ConditionType::Finished), after.phase.is_terminal());
        if after.phase == BackupPhase::Completed && !phase.is_terminal() {
            self.restores += 1;
            let done = self.restored.contains_key(before.metadata.uid.as_deref().unwrap());
            assert!(done, "{} says Completed and nothing was restored", before.name_any());
        }
    }

    /// Of each source the newest complete run stays, and the newest that is not suspicious; nothing goes that is protected.
    pub fn retention_deletes(&mut self, there: &[Run], run_id: &str) {
        self.deleted += 1;
        self.gone.insert(run_id.to_owned());
        let going = there.iter().find(|r| r.run_id == run_id).unwrap();
        assert!(!going.protected, "{run_id} was protected and is deleted");
        if !going.is_complete() {
            return;
        }
        let newer = |r: &&Run| r.is_complete() && (r.slot, &r.run_id) > (going.slot, &going.run_id);
        for source in &going.run_sources {
            let with: Vec<&Run> = there.iter().filter(newer).filter(|r| r.run_sources.contains(source)).collect();
            assert!(!with.is_empty(), "{run_id} is the newest with {source} and is deleted");
            let plausible = going.suspicious || with.iter().any(|r| !r.suspicious);
            assert!(plausible, "{run_id} is the newest plausible one with {source} and is deleted");
            let whole = going.damaged || with.iter().any(|r| !r.damaged);
            assert!(whole, "{run_id} is the newest one with {source} that is not damaged and is deleted");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lives: {} backups completed ({} suspicious) and {} failed, {} restores, {} runs deleted by retention, {} found whole and {} damaged, {} writes refused",
            self.lives,
            self.completed,
            self.suspicious,
            self.failed,
            self.restores,
            self.deleted,
            self.verified,
            self.damaged,
            self.refused
        )
    }
}

/// At every step.
pub fn check(cluster: &Cluster) {
    // The store takes one run at a time. One more is started where the watch has not told of the first; it lags by hours here.
    let running: Vec<&str> = cluster
        .backups
        .live
        .values()
        .filter(|b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Running))
        .filter_map(|b| b.metadata.name.as_deref())
        .collect();
    let most = if cluster.faulty { 3 } else { 1 + cluster.left_running };
    assert!(running.len() <= most, "{running:?} are under way, and the store takes one at a time");
}

/// Once nothing is left to do.
pub fn check_rest(cluster: &Cluster) {
    let open: Vec<String> = cluster
        .backups
        .live
        .values()
        .filter(|b| !b.status.as_ref().is_some_and(|s| s.phase.is_terminal()))
        .map(|b| format!("{} {:?}", b.name_any(), b.status))
        .chain(
            cluster
                .restores
                .live
                .values()
                .filter(|r| !r.status.as_ref().is_some_and(|s| s.phase.is_terminal()))
                .map(|r| format!("{} {:?}", r.name_any(), r.status)),
        )
        .collect();
    assert!(open.is_empty(), "these are never over: {open:#?}");
    let jobs: Vec<&Work> = cluster.work.values().filter(|w| w.job.end.is_none()).collect();
    assert!(
        jobs.is_empty(),
        "Jobs that run for nobody: {:?}",
        jobs.iter().map(|w| (&w.job, &w.pods)).collect::<Vec<_>>()
    );

    // Nothing is refused any more, and nobody says so.
    let said = cluster.stores.live.values().flat_map(|s| s.status.iter().flat_map(|s| &s.conditions));
    let said = said.chain(cluster.policies.live.values().flat_map(|p| p.status.iter().flat_map(|s| &s.conditions)));
    let stale: Vec<_> = said.filter(|c| c.message.contains("the API server refused")).collect();
    assert!(stale.is_empty(), "{stale:#?}");

    // Every backup that the cluster shows can be restored.
    for backup in cluster.backups.live.values() {
        let status = backup.status.clone().unwrap_or_default();
        if status.phase == BackupPhase::Completed && backup.metadata.deletion_timestamp.is_none() {
            let key = (backup.spec.policy_ref.name.clone(), status.run_id.clone().unwrap());
            let whole = cluster.bucket.runs.get(&key).is_some_and(Stored::is_complete);
            assert!(whole, "{} is shown and its run {} is gone", backup.name_any(), key.1);
            // Whoever asked for a verification got one, and the truth.
            assert_eq!(request(backup), None, "{} was never verified: {status:#?}", backup.name_any());
            let told = status.conditions.iter().find(|c| c.type_ == "Verified").map(|c| c.status.as_str());
            let asked = backup.annotations().contains_key(VERIFY_ANNOTATION);
            let truth = if cluster.bucket.damaged.contains(&key.1) { "False" } else { "True" };
            assert!(!asked || told == Some(truth), "{}: {told:?} is not {truth}", backup.name_any());
        }
    }
    // Nothing that is due to be verified waits, and no policy says so.
    for policy in cluster.policies.live.values() {
        let waiting = policy.status.as_ref().and_then(|s| s.verification.as_ref()?.waiting.as_ref());
        assert_eq!(waiting, None, "{}", policy.name_any());
    }
    // And of each policy something can be.
    let policies: BTreeSet<&String> = cluster.policies.live.keys().collect();
    for policy in policies {
        let completed = cluster.backups.live.values().any(|b| {
            label_value(&b.spec.policy_ref.name) == **policy
                && b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Completed)
        });
        assert!(completed, "{policy} has no backup at the end: {:#?}", cluster.summary());
    }
}

//! What the cache knows around an object, where that takes more than looking it up. Reads only.

use std::sync::Arc;

use holdfast_crds::{Backup, BackupPhase, BackupPolicy, RestoreRequest};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::controller::cache::{World, in_namespace, of_owner, of_policy};
use crate::plan::backup::Holds;
use crate::plan::names::label_value;
use crate::plan::observed::{ObservedJob, created};
use crate::plan::restore::{Clearing, is_safety, wants_a_look};
use crate::plan::verify;

/// The Backups of a policy, but for those that were made before a restore: the policy's figures and its retention do not know them.
pub(super) fn restore_points(world: &World, namespace: &str, policy: &str) -> Vec<Arc<Backup>> {
    let mut backups = world.backups.of(&of_policy(namespace, policy));
    backups.retain(|backup| !is_safety(backup));
    backups
}

/// The Jobs of a policy's Backups that do this.
pub(super) fn jobs_of(world: &World, namespace: &str, policy: &str, task: &str) -> Vec<ObservedJob> {
    let jobs = world.jobs.of(&of_policy(namespace, &label_value(policy)));
    let is_its_own = |job: &&Arc<ObservedJob>| {
        let owner = job.owner.as_ref().and_then(|o| world.backups.get(namespace, &o.name));
        job.task == task && owner.is_some_and(|b| b.spec.policy_ref.name == policy)
    };
    jobs.iter().filter(is_its_own).map(|job| (**job).clone()).collect()
}

/// Whether a Pod of this Job has not ended, also where the Job is gone.
pub(super) fn has_pods(world: &World, job_uid: &str) -> bool {
    world.pods.of(&of_owner(job_uid)).iter().any(|pod| pod.ended.is_none())
}

/// A workload of this request that another one has stopped and not brought back: its number of replicas is not its own.
pub(super) fn held_workload(world: &World, namespace: &str, request: &RestoreRequest) -> Option<String> {
    let others = world.restores.of(&in_namespace(namespace));
    let others = others.iter().filter(|other| other.metadata.uid != request.metadata.uid);
    others
        .flat_map(|other| {
            other.status.iter().flat_map(|s| &s.scaled_down).map(|w| (other.name_any(), w.clone())).collect::<Vec<_>>()
        })
        .find(|(_, w)| {
            w.outcome.is_none() && request.spec.scale_down.iter().any(|t| (t.kind, &t.name) == (w.kind, &w.name))
        })
        .map(|(other, w)| format!("{} {} is scaled down by RestoreRequest {other}", w.kind, w.name))
}

/// Runs of a policy that restores and verifications which are not over read from.
pub(super) fn holds(world: &World, namespace: &str, policy: &str) -> Holds {
    let mut holds = Holds::default();
    for restore in world.restores.of(&in_namespace(namespace)) {
        if restore.status.as_ref().is_some_and(|s| s.phase.is_terminal()) {
            continue;
        }
        // One that is being deleted gets no Job any more, whatever keeps it.
        let has_job = || !world.jobs.of(&of_owner(&restore.uid().unwrap_or_default())).is_empty();
        if restore.metadata.deletion_timestamp.is_some() && !has_job() {
            continue;
        }
        match run_of(world, namespace, policy, &restore) {
            Held::Run(run_id) => holds.run_ids.push(run_id),
            Held::Unknown => holds.unknown = true,
            Held::Nothing => {}
        }
    }
    // What a verification reads would look damaged if it went meanwhile.
    for job in jobs_of(world, namespace, policy, verify::VERIFY).iter().filter(|job| job.end.is_none()) {
        let backup = job.owner.as_ref().and_then(|o| world.backups.get(namespace, &o.name));
        holds.run_ids.extend(backup.and_then(|b| b.status.as_ref().and_then(|s| s.run_id.clone())));
    }
    holds
}

fn run_of(world: &World, namespace: &str, policy: &str, restore: &RestoreRequest) -> Held {
    let from = &restore.spec.from;
    let concerns = match (&from.backup, &from.policy, &from.store) {
        (Some(name), _, _) => world.backups.get(namespace, name).is_some_and(|b| b.spec.policy_ref.name == policy),
        (_, Some(from), _) => from.name == policy,
        (_, _, Some(from)) => from.policy == policy,
        _ => false,
    };
    if !concerns {
        return Held::Nothing;
    }
    let written = restore.status.as_ref().and_then(|s| s.run_id.clone());
    let named = from.store.as_ref().and_then(|s| s.run_id.clone());
    let backup = from.backup.as_ref().and_then(|name| world.backups.get(namespace, name));
    let saved = backup.and_then(|b| b.status.as_ref().and_then(|s| s.run_id.clone()));
    written.or(named).or(saved).map_or(Held::Unknown, Held::Run)
}

/// When those restores were made that are about to choose a Backup of a policy, or name one whose data was not found.
pub(super) fn asking(world: &World, namespace: &str, policy: &str) -> Vec<Timestamp> {
    let restores = world.restores.of(&in_namespace(namespace));
    let asks = |restore: &&Arc<RestoreRequest>| match (&restore.spec.from.backup, &restore.spec.from.policy) {
        (Some(name), _) => {
            world.backups.get(namespace, name).is_some_and(|b| b.spec.policy_ref.name == policy && wants_a_look(&b))
        }
        (_, Some(from)) => from.name == policy,
        _ => false,
    };
    let waits = |restore: &&Arc<RestoreRequest>| {
        restore.metadata.deletion_timestamp.is_none()
            && restore.status.as_ref().is_none_or(|s| s.phase == BackupPhase::Pending)
    };
    restores.iter().filter(waits).filter(asks).map(|r| created(&r.metadata)).collect()
}

/// What deletes runs of a policy at this moment, or has deleted some whose Backups are still there: nothing is read meanwhile. `asked` are
/// Jobs that the cache may not have yet.
pub(super) fn clearing(world: &World, namespace: &str, policy: &str, asked: Vec<ObservedJob>) -> Option<Clearing> {
    let cached = world.jobs.of(&of_policy(namespace, &label_value(policy)));
    let cached = cached.iter().map(|job| (**job).clone());
    let jobs = cached.chain(asked).filter(|job| matches!(job.task.as_str(), "retain" | "delete"));
    let backups = world.backups.of(&of_policy(namespace, policy));
    let has_failed = |job: &ObservedJob| job.end.as_ref().is_some_and(|end| !end.completed);
    let clears =
        |job: &ObservedJob| is_at_work(world, job) || (!has_failed(job) && is_unrecorded(world, job, &backups));
    let first = jobs.filter(clears).min_by_key(|job| job.created)?;
    let what = if first.task == "retain" { "the retention of" } else { "the deletion of a backup of" };
    let words =
        format!("it waits for {what} BackupPolicy {policy} (Job {}): nothing is read while it deletes", first.name);
    Some(Clearing { since: first.created, words })
}

fn run_id_of(backup: &Backup) -> Option<&String> {
    backup.status.as_ref()?.run_id.as_ref()
}

/// Whether retention has to wait: another retain Job of the policy is under way, or what it deleted is not recorded yet; or the bucket is being
/// read for the policy, or what was found in it is not recorded yet.
pub(super) fn retention_waits(world: &World, policy: &BackupPolicy, backup: &Backup, siblings: &[Arc<Backup>]) -> bool {
    let namespace = policy.namespace().unwrap_or_default();
    let is_others = |job: &ObservedJob| job.owner.as_ref().map(|o| &o.uid) != backup.metadata.uid.as_ref();
    let jobs = world.jobs.of(&of_policy(&namespace, &label_value(&policy.name_any())));
    let mut retains = jobs.iter().filter(|job| job.task == "retain" && is_others(job));
    let readings = world.jobs.of(&of_owner(&policy.uid().unwrap_or_default()));
    retains.any(|job| is_at_work(world, job) || is_unrecorded(world, job, siblings))
        || readings.iter().any(|job| !job.deleting && job.end.as_ref().is_none_or(|end| end.completed))
}

/// Whether the worker of a Job has not ended. A container that others inject may keep the Job for longer.
fn is_at_work(world: &World, job: &ObservedJob) -> bool {
    job.end.is_none() && !world.pods.of(&of_owner(&job.uid)).iter().any(|pod| pod.outlives_its_worker())
}

/// Whether a Job has deleted runs of which these Backups still tell.
fn is_unrecorded(world: &World, job: &ObservedJob, backups: &[Arc<Backup>]) -> bool {
    let pods = world.pods.of(&of_owner(&job.uid));
    let retained = pods.iter().filter_map(|pod| pod.retained());
    let deleted: Vec<String> = retained.flat_map(|retained| retained.deleted).collect();
    backups.iter().any(|b| run_id_of(b).is_some_and(|run_id| deleted.contains(run_id)))
}

enum Held {
    Run(String),
    Unknown,
    Nothing,
}

#[cfg(test)]
mod tests {
    use holdfast_crds::{BackupStatus, RestoreRequestStatus};

    use super::*;
    use crate::plan::fixture::{at, backup_with, completed, ended_pod, job, meta, policy};
    use crate::plan::observed::{ObservedPod, Owner};
    use crate::task::{Outcome, Report, RetainReport};

    fn of_task(name: &str, task: &str) -> ObservedJob {
        let owner = Some(Owner { kind: "Backup".into(), name: "one".into(), uid: "uid-of-one".into() });
        ObservedJob { task: task.into(), owner, ..job(name) }
    }

    #[test]
    fn what_deletes_is_told_from_its_first_moment_until_it_is_written_down() {
        let world = World::default();
        let status =
            BackupStatus { phase: BackupPhase::Completed, run_id: Some("r1".into()), ..BackupStatus::default() };
        world.backups.put(backup_with("one", 1, status));
        let look = |asked| clearing(&world, "shop", "shop", asked).map(|c| c.since);
        assert_eq!(look(vec![]), None);
        for task in ["backup", "catalogue", verify::VERIFY] {
            world.jobs.put(of_task("other", task));
        }
        assert_eq!(look(vec![]), None);
        assert_eq!(look(vec![of_task("new", "retain")]), Some(at(100)), "the cache has not heard of it");
        for task in ["retain", "delete"] {
            world.jobs.put(of_task("it", task));
            assert_eq!(look(vec![]), Some(at(100)), "{task}");
            world.jobs.put(completed(of_task("it", task)));
            assert_eq!(look(vec![]), None, "{task}");
        }
        // What it deleted has its Backup still: whoever chose that would find nothing.
        world.jobs.put(completed(of_task("it", "retain")));
        let report = RetainReport { deleted: vec!["r1".into()], ..RetainReport::default() };
        let mut pod = ended_pod("p", 0, &Report::completed("", Some(Outcome::Retain(report))).to_termination_message());
        pod.job_uid = "uid-of-it".into();
        world.pods.put(pod);
        assert_eq!(look(vec![]), Some(at(100)));
        world.backups.remove(&crate::controller::cache::Key::new("shop", "one"));
        assert_eq!(look(vec![]), None);
    }

    #[test]
    fn retention_waits_for_another_one_until_its_worker_has_ended_and_for_a_reading_until_it_is_recorded() {
        let world = World::default();
        let mut two = backup_with("two", 1, BackupStatus { run_id: Some("r2".into()), ..BackupStatus::default() });
        two.metadata.uid = Some("uid-of-two".into());
        let one =
            Arc::new(backup_with("one", 1, BackupStatus { run_id: Some("r1".into()), ..BackupStatus::default() }));
        let waits = || retention_waits(&world, &policy(), &two, &[Arc::clone(&one)]);
        assert!(!waits());
        world.jobs.put(of_task("retain", "retain"));
        assert!(waits());
        // A container that others inject keeps the Job; what the worker did is known.
        let pod = |deleted: &str| {
            let report = RetainReport { deleted: vec![deleted.into()], ..RetainReport::default() };
            let words = Report::completed("", Some(Outcome::Retain(report))).to_termination_message();
            ObservedPod { phase: "Running".into(), job_uid: "uid-of-retain".into(), ..ended_pod("p", 0, &words) }
        };
        world.pods.put(pod("r1"));
        assert!(waits(), "its Backup is still there");
        world.pods.put(pod("r0"));
        assert!(!waits());

        let owner = Some(Owner { kind: "BackupPolicy".into(), name: "shop".into(), uid: "policy-uid".into() });
        let reading = ObservedJob { owner, ..of_task("reading", "catalogue") };
        world.jobs.put(reading.clone());
        assert!(waits());
        world.jobs.put(completed(reading.clone()));
        assert!(waits(), "what it found has no Backup yet");
        world.jobs.put(ObservedJob { deleting: true, ..completed(reading.clone()) });
        assert!(!waits());
        world.jobs.put(crate::plan::fixture::failed(reading));
        assert!(!waits(), "a bucket that cannot be read holds up nothing for ever");
    }

    #[test]
    fn restores_that_choose_ask_and_those_that_have_chosen_do_not() {
        let world = World::default();
        let mut status = BackupStatus { phase: BackupPhase::Completed, ..BackupStatus::default() };
        world.backups.put(backup_with("whole", 1, status.clone()));
        status.run_id = Some("r1".into());
        let gone = backup_with("gone", 1, status);
        let status = crate::plan::location::gone(&gone, "s3://b", "it is not there", at(5));
        world.backups.put(Backup { status, ..gone });
        let ask = |from: serde_json::Value, phase| {
            let spec = serde_json::from_value(serde_json::json!({ "from": from })).unwrap();
            let status = Some(RestoreRequestStatus { phase, ..RestoreRequestStatus::default() });
            world.restores.put(RestoreRequest { metadata: meta("r", "uid-of-r", 7), spec, status });
            asking(&world, "shop", "shop")
        };
        let policy = |name: &str| serde_json::json!({"policy": {"name": name}});
        assert_eq!(ask(policy("shop"), BackupPhase::Pending), [at(7)]);
        assert_eq!(ask(policy("other"), BackupPhase::Pending), []);
        assert_eq!(ask(policy("shop"), BackupPhase::Running), []);
        assert_eq!(ask(serde_json::json!({"backup": "whole"}), BackupPhase::Pending), []);
        assert_eq!(ask(serde_json::json!({"backup": "gone"}), BackupPhase::Pending), [at(7)]);
        assert_eq!(ask(serde_json::json!({"store": {"name": "main", "policy": "shop"}}), BackupPhase::Pending), []);
    }

    #[test]
    fn a_restore_that_is_being_deleted_holds_on_to_nothing_once_its_job_is_gone() {
        let world = World::default();
        let spec = serde_json::from_value(serde_json::json!({"from": {"policy": {"name": "shop"}}})).unwrap();
        let status = Some(RestoreRequestStatus { phase: BackupPhase::Running, ..RestoreRequestStatus::default() });
        let mut request = RestoreRequest { metadata: meta("undo", "uid-of-undo", 1), spec, status };
        world.restores.put(request.clone());
        assert!(holds(&world, "shop", "shop").unknown);
        request.metadata.deletion_timestamp = request.metadata.creation_timestamp.clone();
        world.restores.put(request);
        assert!(!holds(&world, "shop", "shop").unknown);
        let owner = Some(Owner { kind: "RestoreRequest".into(), name: "undo".into(), uid: "uid-of-undo".into() });
        world.jobs.put(ObservedJob { owner, ..job("j") });
        assert!(holds(&world, "shop", "shop").unknown, "its Pod may still read");
    }
}

//! What the cache knows around an object, where that takes more than looking it up. Reads only.

use std::sync::Arc;

use holdfast_crds::{Backup, RestoreRequest};
use kube::ResourceExt;

use crate::controller::cache::{World, in_namespace, of_owner, of_policy};
use crate::plan::backup::Holds;
use crate::plan::names::label_value;
use crate::plan::observed::{ObservedJob, ObservedPod};
use crate::plan::restore::is_safety;
use crate::plan::verify;
use crate::task::{Outcome, Report};

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

/// Whether another retain Job of the policy is under way, or what it deleted is not recorded yet.
pub(super) fn is_retaining(world: &World, namespace: &str, backup: &Backup, siblings: &[Arc<Backup>]) -> bool {
    let policy = label_value(&backup.spec.policy_ref.name);
    world.jobs.of(&of_policy(namespace, &policy)).iter().filter(|job| job.task == "retain").any(|job| {
        let owner = job.owner.as_ref().map(|o| o.uid.as_str()).unwrap_or_default();
        if Some(owner) == backup.metadata.uid.as_deref() {
            return false;
        }
        if job.end.is_none() {
            return true;
        }
        let deleted = world.pods.of(&of_owner(&job.uid)).iter().flat_map(|p| deleted_by(p)).collect::<Vec<_>>();
        siblings
            .iter()
            .any(|s| s.status.as_ref().and_then(|s| s.run_id.as_ref()).is_some_and(|run_id| deleted.contains(run_id)))
    })
}

enum Held {
    Run(String),
    Unknown,
    Nothing,
}

fn deleted_by(pod: &ObservedPod) -> Vec<String> {
    let report = pod.ended.as_ref().and_then(|end| Report::from_termination_message(&end.message));
    match report.and_then(|r| r.outcome) {
        Some(Outcome::Retain(retained)) => retained.deleted,
        _ => Vec::new(),
    }
}

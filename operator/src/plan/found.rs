//! Backups that are in the bucket and not in the cluster: a policy's folder is read once, and what is complete in it becomes Backups. Pure.
//!
//! A Backup cannot be created with its status, so what the status will say travels in an annotation: whoever looks at the Backup next
//! writes it down. Such a Backup never starts a run, and never deletes what it stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_crds::{
    ArtifactStatus, Backup, BackupPhase, BackupPolicy, BackupPolicyStatus, BackupSpec, BackupStatus, BackupStore,
    CatalogueStatus, ConditionType, DeletionPolicy, LocalRef, Reason,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};

use super::action::{Action, Event, Plan};
use super::backup::{TURN_SECONDS, reachable, slot_of};
use super::job::{self, Install};
use super::names::{
    CLUSTER_LABEL, FOUND_ANNOTATION, FOUND_LABEL, MANAGED_BY, MANAGED_BY_LABEL, POLICY_LABEL, SLOT_ANNOTATION,
    found_backup_name, label_value, run_id,
};
use super::observed::Attempt;
use super::policy::ObservedPolicy;
use super::status::{after, duration_text, find, with_condition};
use super::verdict::{Patience, Verdict, judge};
use crate::store::keys::slot_of_run;
use crate::task::{CatalogueReport, Failure, FoundRun, Outcome, Report};

/// At most this many Backups are made of what is found, the newest.
pub const FOUND_LIMIT: usize = 50;
/// A bucket that could not be read is read again after this many seconds.
pub const AGAIN_SECONDS: i64 = 300;

/// What the status of a Backup says that was found in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    run_id: String,
    store: String,
    cluster: String,
    sources: Vec<String>,
    start_time: Timestamp,
    completion_time: Timestamp,
    stored_bytes: i64,
    source_bytes: i64,
    items: i64,
}

/// Whether a Backup was found in the bucket.
pub fn is_found(backup: &Backup) -> bool {
    backup.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(FOUND_ANNOTATION))
}

/// Whether a Backup was found in the bucket and made by another cluster, to which its data belongs.
pub fn is_foreign(backup: &Backup) -> bool {
    backup.metadata.labels.as_ref().is_some_and(|l| l.contains_key(CLUSTER_LABEL))
}

/// What a Backup's annotation says, where it was found in the bucket.
///
/// # Errors
/// Where that cannot be read, or where the Backup promises to delete what it does not own.
pub fn read(backup: &Backup) -> Option<Result<Found, Failure>> {
    let invalid = |why: String| Failure::new(Reason::InvalidConfiguration, why);
    let text = backup.metadata.annotations.as_ref()?.get(FOUND_ANNOTATION)?;
    if backup.spec.deletion_policy == DeletionPolicy::Delete {
        let message = format!(
            "a Backup with the annotation {FOUND_ANNOTATION} stands for what was found in the bucket and never deletes it: leave out deletionPolicy"
        );
        return Some(Err(invalid(message)));
    }
    let found: Result<Found, _> = serde_json::from_str(text);
    Some(match found {
        Ok(found) if slot_of_run(&found.run_id).is_some() => Ok(found),
        Ok(found) => Err(invalid(format!("annotation {FOUND_ANNOTATION}: {} is no run", found.run_id))),
        Err(error) => Err(invalid(format!("annotation {FOUND_ANNOTATION}: {error}"))),
    })
}

/// Writes down what was found, once.
pub fn record(plan: &mut Plan<BackupStatus>, backup: &Backup, found: Result<Found, Failure>, now: Timestamp) {
    if plan.status.phase.is_terminal() {
        return;
    }
    let (value, reason, message) = match found {
        Ok(found) => {
            let made_by = if is_foreign(backup) {
                format!("; cluster {} made it, its data is never deleted from here", found.cluster)
            } else {
                String::new()
            };
            let message =
                format!("found in the bucket: {} items, {} bytes stored{made_by}", found.items, found.stored_bytes);
            fill(&mut plan.status, found);
            (true, Reason::Completed, message)
        }
        Err(failure) => {
            plan.status.phase = BackupPhase::Failed;
            plan.events.push(Event::warning(failure.reason, "Backup", failure.message.clone()));
            (false, failure.reason, failure.message)
        }
    };
    let generation = backup.metadata.generation;
    plan.status.observed_generation = generation;
    plan.status.conditions =
        with_condition(&plan.status.conditions, ConditionType::Complete, Some(value), reason, message, generation, now);
}

fn fill(status: &mut BackupStatus, found: Found) {
    let artifact = |source| ArtifactStatus { source, phase: BackupPhase::Completed, ..ArtifactStatus::default() };
    status.phase = BackupPhase::Completed;
    status.run_id = Some(found.run_id);
    status.store = Some(found.store);
    status.start_time = Some(Time(found.start_time));
    status.completion_time = Some(Time(found.completion_time));
    status.duration = Some(duration_text(found.start_time, found.completion_time));
    status.stored_bytes = Some(found.stored_bytes);
    status.source_bytes = Some(found.source_bytes);
    status.items = Some(found.items);
    status.artifacts = found.sources.into_iter().map(artifact).collect();
}

/// Why a restore from a policy finds no backup: for now because the bucket may hold some that the cluster has not been told of yet, where
/// that is so. Stores, policies and restores may be applied all at once.
pub fn unless_awaited(policy: &BackupPolicy, backups: &[Arc<Backup>], failure: Failure) -> Failure {
    let status = policy.status.clone().unwrap_or_default();
    let found: Vec<&Arc<Backup>> = backups.iter().filter(|b| is_found(b)).collect();
    let is_over = |b: &Backup| b.status.as_ref().is_some_and(|s| s.phase.is_terminal());
    let awaited = match &status.catalogue {
        None => !is_bad_input(&status),
        Some(told) => (told.found > 0 && found.is_empty()) || found.iter().any(|b| !is_over(b)),
    };
    if !awaited || failure.reason != Reason::NoMatchingBackup {
        return failure;
    }
    let message = format!("{}; the bucket has not been read yet for those of earlier times", failure.message);
    Failure::new(Reason::StoreNotReady, message)
}

/// Has the bucket read when a policy comes to a place, and makes Backups of what is found there. A read-only store is read, too.
pub fn plan_found(
    plan: &mut Plan<BackupPolicyStatus>,
    install: &Install,
    policy: &BackupPolicy,
    observed: &ObservedPolicy,
    now: Timestamp,
) {
    let Some(store) = readable(policy, &plan.status, observed.store.as_deref()) else { return };
    let place = place_of(store);
    let name = job::catalogue_name(policy, &place);
    let is_read = is_read(&plan.status, &place);
    let stale = observed.catalogues.iter().filter(|a| (is_read || a.job.name != name) && !a.job.deleting);
    plan.actions.extend(stale.map(|a| Action::delete_job(&a.job)));
    if is_read {
        return;
    }
    let Some(attempt) = observed.catalogues.iter().find(|a| a.job.name == name) else {
        if was_empty(policy, &plan.status, store, &place) {
            plan.status.catalogue = Some(CatalogueStatus { place, found: 0, more: 0 });
            return;
        }
        if observed.catalogue_waits {
            return plan.check_at(after(now, TURN_SECONDS));
        }
        let known = runs_with_a_backup(observed).into_iter().collect();
        let job = job::catalogue(install, policy, store, &place, known, FOUND_LIMIT);
        return plan.actions.push(Action::CreateJob(Box::new(job)));
    };
    match judge(attempt, Reason::StoreUnreachable, Patience::RUN, now) {
        Verdict::Running => {}
        Verdict::Waiting { check_at, .. } => plan.check_at(check_at),
        Verdict::Completed(Some(Report { message, outcome: Some(Outcome::Catalogue(report)), .. })) => {
            take_in(plan, install, policy, observed, (place, report), &message);
        }
        Verdict::Completed(_) => again(plan, attempt, "its result is lost", now),
        Verdict::Failed(failure, _) => again(plan, attempt, &failure.to_string(), now),
    }
}

/// Whether a policy's bucket is still to be read, or is being read.
pub fn is_unread(policy: &BackupPolicy, store: Option<&BackupStore>) -> bool {
    let none = BackupPolicyStatus::default();
    let status = policy.status.as_ref().unwrap_or(&none);
    readable(policy, status, store).is_some_and(|store| {
        let place = place_of(store);
        !is_read(status, &place) && !was_empty(policy, status, store, &place)
    })
}

/// Whether the store's probe has seen already that nothing is there to be found. That holds for a policy that was there by then and has
/// named this store from its beginning: what was stored since in a place that it comes back to, or comes to later, is found by reading alone.
fn was_empty(policy: &BackupPolicy, status: &BackupPolicyStatus, store: &BackupStore, place: &str) -> bool {
    let Some(empty) = store.status.as_ref().and_then(|s| s.empty.as_ref()) else { return false };
    let Some(made) = policy.metadata.creation_timestamp.as_ref() else { return false };
    let is_first = policy.metadata.generation == Some(1) && status.catalogue.is_none();
    // The API server tells whole seconds, and cuts off what is over.
    is_first && empty.place == place && empty.time.0 >= after(made.0, 1)
}

fn is_read(status: &BackupPolicyStatus, place: &str) -> bool {
    status.catalogue.as_ref().is_some_and(|c| c.place == place)
}

/// The store of a policy, where it can be read from.
fn readable<'a>(
    policy: &BackupPolicy,
    status: &BackupPolicyStatus,
    store: Option<&'a BackupStore>,
) -> Option<&'a BackupStore> {
    let store = store.filter(|_| policy.metadata.deletion_timestamp.is_none())?;
    reachable(&policy.spec.store_ref.name, store).ok().filter(|_| !is_bad_input(status))
}

/// Whether the policy itself asks for something that cannot be: such a one starts nothing at all.
fn is_bad_input(status: &BackupPolicyStatus) -> bool {
    let bad = [Reason::InvalidConfiguration, Reason::InvalidSchedule, Reason::NeverFires, Reason::UnknownTimeZone];
    let ready = find(&status.conditions, ConditionType::Ready).filter(|c| c.status == "False");
    ready.is_some_and(|c| bad.iter().any(|reason| c.reason == reason.to_string()))
}

fn take_in(
    plan: &mut Plan<BackupPolicyStatus>,
    install: &Install,
    policy: &BackupPolicy,
    observed: &ObservedPolicy,
    (place, report): (String, CatalogueReport),
    message: &str,
) {
    // What began after the Job did may be in the bucket by now, and has its Backup.
    let known = runs_with_a_backup(observed);
    let backups: Vec<Backup> = report
        .runs
        .iter()
        .filter(|run| !known.contains(&run.run_id))
        .filter_map(|run| backup_of(install, policy, run))
        .collect();
    if !report.runs.is_empty() {
        plan.events.push(Event::normal("BackupsFound", "Catalogue", message));
    }
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    plan.status.catalogue = Some(CatalogueStatus { place, found: number(backups.len()), more: number(report.more) });
    plan.actions.extend(backups.into_iter().map(|backup| Action::CreateBackup(Box::new(backup))));
}

/// Tries again after a while: the Job goes, and whoever looks next creates it anew.
fn again(plan: &mut Plan<BackupPolicyStatus>, attempt: &Attempt, why: &str, now: Timestamp) {
    if attempt.job.deleting {
        return;
    }
    let at = after(attempt.ended_at().unwrap_or(attempt.job.created), AGAIN_SECONDS);
    if now < at {
        return plan.check_at(at);
    }
    let note = format!("the bucket could not be read for backups of earlier times, and is read again: {why}");
    plan.events.push(Event::warning("CatalogueUnread", "Catalogue", note));
    plan.actions.push(Action::delete_job(&attempt.job));
}

/// Runs that Backups of the policy stand for: those that wrote it down, and those that will.
fn runs_with_a_backup(observed: &ObservedPolicy) -> BTreeSet<String> {
    let of = |backup: &Backup| {
        let written = backup.status.as_ref().and_then(|s| s.run_id.clone());
        let found = read(backup).and_then(Result::ok).map(|found| found.run_id);
        let uid = backup.metadata.uid.as_deref().unwrap_or_default();
        written.or(found).unwrap_or_else(|| run_id(slot_of(backup), uid))
    };
    observed.backups.iter().map(|backup| of(backup)).collect()
}

/// The Backup of a run that was found; none where it is no run.
fn backup_of(install: &Install, policy: &BackupPolicy, run: &FoundRun) -> Option<Backup> {
    let slot = slot_of_run(&run.run_id)?;
    let policy_name = policy.metadata.name.clone().unwrap_or_default();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let found = Found {
        run_id: run.run_id.clone(),
        store: policy.spec.store_ref.name.clone(),
        cluster: run.cluster.clone(),
        sources: run.sources.clone(),
        start_time: run.start,
        completion_time: run.end,
        stored_bytes: number(run.stored_bytes),
        source_bytes: number(run.source_bytes),
        items: number(run.items),
    };
    let mut labels = BTreeMap::from([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (POLICY_LABEL.to_owned(), label_value(&policy_name)),
        (FOUND_LABEL.to_owned(), "true".to_owned()),
    ]);
    if run.cluster != install.cluster_uid {
        labels.insert(CLUSTER_LABEL.to_owned(), label_value(&run.cluster));
    }
    let annotations = BTreeMap::from([
        (SLOT_ANNOTATION.to_owned(), slot.to_string()),
        (FOUND_ANNOTATION.to_owned(), serde_json::to_string(&found).ok()?),
    ]);
    Some(Backup {
        metadata: ObjectMeta {
            name: Some(found_backup_name(&policy_name, slot, &run.run_id)),
            namespace: policy.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: BackupSpec {
            policy_ref: LocalRef { name: policy_name },
            sources: None,
            deletion_policy: DeletionPolicy::Retain,
        },
        status: None,
    })
}

/// Where a store keeps things, whatever its credentials are.
pub fn place_of(store: &BackupStore) -> String {
    let s3 = &store.spec.s3;
    let at = s3.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
    let prefix = if s3.prefix().is_empty() { String::new() } else { format!("/{}", s3.prefix()) };
    format!("s3://{}{prefix}{at}", s3.bucket)
}

#[cfg(test)]
mod tests;

//! Backups that are in the bucket and not in the cluster: a policy's folder is read once, and what is complete in it becomes Backups. Pure.
//!
//! A Backup cannot be created with its status, so what the status will say travels in an annotation: whoever looks at the Backup next
//! writes it down. Such a Backup never starts a run, and never deletes what it stands for.

mod adopted;
mod asked;
mod judged;

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
use asked::{Asked, asked};

/// At most this many Backups are made of what is found, the newest.
pub const FOUND_LIMIT: usize = 50;
/// The Backup of a run that was found is waited for this many seconds.
const TOLD_SECONDS: i64 = 600;
/// A bucket that could not be read is read again after this many seconds.
pub const AGAIN_SECONDS: i64 = 300;

/// What the status of a Backup says that was found in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    run_id: String,
    store: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
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
        || backup.status.as_ref().is_some_and(|s| s.cluster.is_some())
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
    status.location = found.location;
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

/// Whether the bucket was read to its end for runs of a policy after this instant; none where it is not read at all for now.
pub fn is_read_since(policy: &BackupPolicy, store: Option<&BackupStore>, since: Timestamp) -> Option<bool> {
    let none = BackupPolicyStatus::default();
    let status = policy.status.as_ref().unwrap_or(&none);
    let place = place_of(readable(policy, status, store)?);
    let read = status.catalogue.as_ref().filter(|c| c.place == place);
    Some(read.is_some_and(|c| c.own_time.as_ref().is_some_and(|t| t.0 > since) && !goes_on(c)))
}

/// Whether a reading left runs out, and the next one will tell them: what it told is known by then.
fn goes_on(read: &CatalogueStatus) -> bool {
    read.more > 0 && read.found > 0
}

/// Whether the bucket was read for a policy after this instant, and all that was found has its Backup; none where it is not read at all for
/// now, because the store cannot be.
pub fn is_fresh(
    policy: &BackupPolicy,
    store: Option<&BackupStore>,
    backups: &[Arc<Backup>],
    since: Timestamp,
    now: Timestamp,
) -> Option<bool> {
    let none = BackupPolicyStatus::default();
    let status = policy.status.as_ref().unwrap_or(&none);
    let place = place_of(readable(policy, status, store)?);
    let Some(read) = status.catalogue.as_ref().filter(|c| c.place == place) else { return Some(false) };
    let Some(time) = read.own_time.as_ref().map(|t| t.0).filter(|time| *time > since) else { return Some(false) };
    let is_over = |b: &Backup| b.status.as_ref().is_some_and(|s| s.phase.is_terminal());
    let is_told = |run: &String| backups.iter().any(|b| b.status.as_ref().and_then(|s| s.run_id.as_ref()) == Some(run));
    // Somebody may have deleted it again.
    let newest = read.newest.as_ref().filter(|_| now < after(time, TOLD_SECONDS));
    Some(newest.is_none_or(is_told) && backups.iter().filter(|b| is_found(b)).all(|b| is_over(b)))
}

/// Has the bucket read when a policy comes to a place, and makes Backups of what is found there. A read-only store is read, too.
pub fn plan_found(
    plan: &mut Plan<BackupPolicyStatus>,
    install: &Install,
    policy: &BackupPolicy,
    observed: &ObservedPolicy,
    now: Timestamp,
) {
    if observed.refused.catalogue.is_some() {
        // The policy says so.
        return;
    }
    let Some(store) = readable(policy, &plan.status, observed.store.as_deref()) else { return };
    let place = place_of(store);
    let asked = asked(policy, &plan.status, observed, store, now);
    let (is_read, what) = reading(&plan.status, &place, &asked);
    let name = job::catalogue_name(policy, &what);
    if let Some(next) = asked.next {
        plan.check_at(next);
    }
    let stale = observed.catalogues.iter().filter(|a| (is_read || a.job.name != name) && !a.job.deleting);
    plan.actions.extend(stale.map(|a| Action::delete_job(&a.job)));
    if is_read {
        return;
    }
    let Some(attempt) = observed.catalogues.iter().find(|a| a.job.name == name) else {
        if was_empty(policy, &plan.status, store, &place) {
            let time = store.status.as_ref().and_then(|s| s.empty.as_ref()).map(|empty| empty.time.clone());
            plan.status.catalogue =
                Some(CatalogueStatus { place, time: time.clone(), own_time: time, ..CatalogueStatus::default() });
            return;
        }
        // What retention deletes meanwhile would be told as if it were there, or missed.
        if observed.catalogue_waits || observed.retains.iter().any(|a| a.ended_at().is_none()) {
            return plan.check_at(after(now, TURN_SECONDS));
        }
        if let Some(since) = asked.at().filter(|since| now < after(*since, 2)) {
            // The API server tells whole seconds: one that is made now could not be told from one that was made before.
            return plan.check_at(after(since, 2));
        }
        let judges_from = asked.since.and_then(|since| judged::judges_from(observed, store, since));
        if let Some(from) = judges_from.filter(|from| now < *from) {
            // Else what ended just before would be judged an hour later.
            return plan.check_at(from);
        }
        let known = runs_with_a_backup(observed).into_iter().collect();
        let own = asked.own_since.is_some();
        let reading = job::Reading { what, known, expected: judged::expected(observed, store), own };
        let job = job::catalogue(install, policy, store, reading, FOUND_LIMIT);
        return plan.actions.push(Action::CreateJob(Box::new(job)));
    };
    match judge(attempt, Reason::StoreUnreachable, Patience::RUN, now) {
        Verdict::Running => {}
        Verdict::Waiting { check_at, .. } => plan.check_at(check_at),
        Verdict::Completed(Some(Report { message, outcome: Some(Outcome::Catalogue(report)), .. })) => {
            let began = attempt.job.created;
            if observed.retains.iter().any(|a| a.ended_at().is_none_or(|end| end >= began)) {
                let again = (!attempt.job.deleting).then(|| Action::delete_job(&attempt.job));
                return plan.actions.extend(again);
            }
            judged::judge(plan, observed, store, &report, (began, now));
            take_in(plan, install, policy, observed, (place, report, began, asked.own_since.is_some()), &message);
        }
        Verdict::Completed(_) => again(plan, attempt, "its result is lost", now),
        Verdict::Failed(failure, _) => again(plan, attempt, &failure.to_string(), now),
    }
}

/// Whether the last reading of a place will do, and what tells the next one from those before it. What the next one tells, and after which
/// it comes, is in its name: one that was begun with another question is not taken for it.
fn reading(status: &BackupPolicyStatus, place: &str, asked: &Asked) -> (bool, String) {
    let own = if asked.own_since.is_some() { " own" } else { "" };
    match status.catalogue.as_ref().filter(|c| c.place == place) {
        None => (false, format!("{place}{own}")),
        Some(read) => {
            let last = read.time.as_ref().map_or(0, |t| t.0.as_second());
            (asked.is_done(read), format!("{place}{own} after {last}"))
        }
    }
}

/// Whether a policy's bucket is to be read once more, and nobody waits for that: only then it is worth finding out whether there is room.
pub fn wants_room(policy: &BackupPolicy, observed: &ObservedPolicy, now: Timestamp) -> bool {
    let none = BackupPolicyStatus::default();
    let status = policy.status.as_ref().unwrap_or(&none);
    readable(policy, status, observed.store.as_deref()).is_some_and(|store| {
        let place = place_of(store);
        let asked = asked(policy, status, observed, store, now);
        let (is_done, what) = reading(status, &place, &asked);
        let name = job::catalogue_name(policy, &what);
        let is_under_way = observed.catalogues.iter().any(|a| a.job.name == name);
        is_read(status, &place) && !is_done && !asked.urgent && !is_under_way
    })
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
    (place, report, began, own): (String, CatalogueReport, Timestamp, bool),
    message: &str,
) {
    // What began after the Job did may be in the bucket by now, and has its Backup.
    let known = runs_with_a_backup(observed);
    let unknown: Vec<&FoundRun> = report.runs.iter().filter(|run| !known.contains(&run.run_id)).collect();
    let adopted = adopted::adopt(plan, install, policy, observed, &unknown, &place);
    let backups: Vec<Backup> = unknown
        .into_iter()
        .filter(|run| !adopted.contains(&run.run_id))
        .filter_map(|run| backup_of(install, policy, run, &place))
        .collect();
    if !report.runs.is_empty() {
        plan.events.push(Event::normal("BackupsFound", "Catalogue", message));
    }
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let before = plan.status.catalogue.take().filter(|c| c.place == place);
    plan.status.catalogue = Some(CatalogueStatus {
        place,
        time: Some(Time(began)),
        own_time: if own { Some(Time(began)) } else { before.and_then(|c| c.own_time) },
        newest: report.runs.first().filter(|_| !backups.is_empty()).map(|run| run.run_id.clone()),
        found: number(backups.len() + adopted.len()),
        more: number(report.more),
    });
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

/// What a status says of a run that was found in a place.
fn found_in(policy: &BackupPolicy, run: &FoundRun, place: &str) -> Found {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Found {
        run_id: run.run_id.clone(),
        store: policy.spec.store_ref.name.clone(),
        location: Some(place.to_owned()),
        cluster: run.cluster.clone(),
        sources: run.sources.clone(),
        start_time: run.start,
        completion_time: run.end,
        stored_bytes: number(run.stored_bytes),
        source_bytes: number(run.source_bytes),
        items: number(run.items),
    }
}

/// The Backup of a run that was found; none where it is no run.
fn backup_of(install: &Install, policy: &BackupPolicy, run: &FoundRun, place: &str) -> Option<Backup> {
    let slot = slot_of_run(&run.run_id)?;
    let policy_name = policy.metadata.name.clone().unwrap_or_default();
    let found = found_in(policy, run, place);
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
    store.spec.s3.place()
}

#[cfg(test)]
mod tests;

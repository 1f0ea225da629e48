//! A Backup of which the API server refuses something: it waits and says so, for as long as its slot may be late, and then it fails. Pure.

use holdfast_crds::{ArtifactStatus, Backup, BackupPhase, BackupPolicy, BackupStatus, ConditionType, DeletionPolicy};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{GRACE_SECONDS, ObservedBackup, deletion, end, slot_of};
use crate::plan::action::{Event, Plan};
use crate::plan::found::is_found;
use crate::plan::names::SCHEDULED_LABEL;
use crate::plan::refused::{Refusal, refused, say};
use crate::plan::status::after;
use crate::task::Failure;

/// Says what was refused. `planned`: the status that the refused plan would have led to.
pub fn refuse(
    backup: &Backup,
    policy: Option<&BackupPolicy>,
    planned: Option<&BackupStatus>,
    refusal: &Refusal,
    now: Timestamp,
) -> Plan<BackupStatus> {
    let mut plan = Plan::keep(backup.status.clone().unwrap_or_default());
    let failure = &refusal.failure;
    if backup.metadata.deletion_timestamp.is_some() {
        if backup.spec.deletion_policy == DeletionPolicy::Delete {
            deletion::blocked(&mut plan, backup, failure, now);
        }
        return plan;
    }
    let generation = backup.metadata.generation;
    match plan.status.phase {
        BackupPhase::Pending => {
            if let Some(planned) = planned.filter(|planned| refusal.began && planned.run_id.is_some()) {
                // What its other Jobs store is found by this, whatever becomes of the Backup.
                plan.status.run_id.clone_from(&planned.run_id);
                plan.status.store.clone_from(&planned.store);
            }
            let until = may_wait_until(backup, policy);
            // Jobs that are there are to be stopped with it: that is for who has looked at them.
            if now >= until && !refusal.began {
                give_up(&mut plan, backup, &ObservedBackup::default(), failure, now);
                return plan;
            }
            plan.check_at(until);
            plan.status.observed_generation = generation;
            let message = format!("{}; it is tried again until {until}", failure.message);
            let told = Failure::new(failure.reason, message);
            if say(&mut plan.status.conditions, ConditionType::Complete, Some(false), &told, generation, now) {
                plan.events.push(Event::warning(failure.reason, "Backup", told.message));
            }
        }
        BackupPhase::Running => {
            if say(&mut plan.status.conditions, ConditionType::Complete, None, failure, generation, now) {
                plan.events.push(Event::warning(failure.reason, "Backup", failure.message.clone()));
            }
        }
        BackupPhase::Completed if refusal.task.as_deref() == Some("retain") => {
            let conditions = &mut plan.status.conditions;
            // The event is that of the policy, which tells it too.
            say(conditions, ConditionType::RetentionApplied, Some(false), failure, generation, now);
        }
        BackupPhase::Completed | BackupPhase::Failed => {}
    }
    plan
}

/// Until when a Backup that is refused is tried again: as late as its slot may be.
pub(super) fn may_wait_until(backup: &Backup, policy: Option<&BackupPolicy>) -> Timestamp {
    let late = policy.map_or(GRACE_SECONDS, |policy| policy.spec.starting_deadline_seconds);
    after(slot_of(backup), late.max(GRACE_SECONDS))
}

/// Whether a Backup that was refused is over; if so it ends with the API server's words.
pub(super) fn is_over(
    plan: &mut Plan<BackupStatus>,
    backup: &Backup,
    observed: &ObservedBackup,
    now: Timestamp,
) -> bool {
    let Some(failure) = refused(&plan.status) else { return false };
    let until = may_wait_until(backup, observed.policy.as_deref());
    let successor = observed.siblings.iter().filter(|other| replaces(other, backup)).max_by_key(|b| slot_of(b));
    let failure = match successor.filter(|_| plan.status.run_id.is_none()) {
        Some(successor) => {
            let words = failure.message.split("; it is tried again until").next().unwrap_or_default();
            let name = successor.metadata.name.as_deref().unwrap_or_default();
            Failure::new(failure.reason, format!("{words}; Backup {name}, of the next slot, takes its place"))
        }
        None if now >= until => failure,
        None => {
            plan.check_at(until);
            return false;
        }
    };
    give_up(plan, backup, observed, &failure, now);
    true
}

/// Whether a Backup is of a later slot of the same schedule: of those that are refused the newest alone goes on waiting.
fn replaces(other: &Backup, backup: &Backup) -> bool {
    is_scheduled(other)
        && is_scheduled(backup)
        && other.metadata.deletion_timestamp.is_none()
        && !is_found(other)
        && slot_of(other) > slot_of(backup)
}

/// Whether a Backup was made for a slot.
pub fn is_scheduled(backup: &Backup) -> bool {
    backup.metadata.labels.as_ref().is_some_and(|l| l.contains_key(SCHEDULED_LABEL))
}

/// Ends a Backup that never started as a whole. Those of its Jobs that are there are stopped by who looks next.
fn give_up(
    plan: &mut Plan<BackupStatus>,
    backup: &Backup,
    observed: &ObservedBackup,
    failure: &Failure,
    now: Timestamp,
) {
    let began = observed.jobs.iter().filter(|a| a.job.task == "backup");
    plan.status.artifacts = began
        .map(|a| ArtifactStatus {
            source: a.job.source.clone(),
            phase: BackupPhase::Failed,
            reason: Some(failure.reason),
            message: Some(failure.message.clone()),
            ..ArtifactStatus::default()
        })
        .collect();
    plan.status.queue_position = None;
    plan.status.start_time = Some(Time(now));
    let failure =
        Failure::new(failure.reason, failure.message.replace("; it is tried again until", "; it was tried until"));
    end(plan, backup, observed, Err(failure), now, now);
}

#[cfg(test)]
mod tests;

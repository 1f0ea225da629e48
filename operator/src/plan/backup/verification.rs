//! What became of a backup's verifications, and their Jobs deleted in time. Pure.
//!
//! Three ends are told apart: it was read to its end and is whole, it is damaged, or neither could be found out. The last never makes a
//! damaged backup whole again, nor one that was whole damaged: the store that does not answer today says nothing about the bytes in it.

use holdfast_crds::{Backup, BackupStatus, ConditionType, Reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{COMPLETED_JOB_SECONDS, FAILED_JOB_SECONDS, ObservedBackup};
use crate::plan::action::{Action, Event, Plan};
use crate::plan::job;
use crate::plan::observed::Attempt;
use crate::plan::status::{after, find, with_condition};
use crate::plan::verdict::{Patience, Verdict, judge};
use crate::plan::verify::{VERIFY, asked_by_hand, is_recorded, request};
use crate::task::Failure;

/// Writes down what the verifications of a completed backup found.
pub(super) fn follow(plan: &mut Plan<BackupStatus>, backup: &Backup, observed: &ObservedBackup, now: Timestamp) {
    let mut attempts: Vec<&Attempt> = observed.jobs.iter().filter(|a| a.job.task == VERIFY).collect();
    attempts.sort_by_key(|a| (a.job.created, &a.job.name));
    for attempt in attempts {
        // What is only about to be written could be lost together with the Job.
        if is_recorded(&attempt.job, backup.status.as_ref()) {
            tidy(plan, attempt, now);
            continue;
        }
        if attempt.job.deleting && attempt.ended_at().is_none() {
            continue;
        }
        match judge(attempt, Reason::StoreUnreachable, Patience::RUN, now) {
            Verdict::Running => {}
            Verdict::Waiting { check_at, .. } => plan.check_at(check_at),
            Verdict::Completed(report) => {
                let message = report.map(|r| r.message).filter(|m| !m.is_empty());
                let message = message.unwrap_or_else(|| "it was read to its end and is as it was stored".to_owned());
                record(plan, backup, attempt, Ok(message), now);
            }
            Verdict::Failed(failure, _) => record(plan, backup, attempt, Err(failure), now),
        }
    }
}

fn tidy(plan: &mut Plan<BackupStatus>, attempt: &Attempt, now: Timestamp) {
    if attempt.job.deleting {
        return;
    }
    let kept = attempt
        .job
        .end
        .as_ref()
        .map(|end| after(end.at, if end.completed { COMPLETED_JOB_SECONDS } else { FAILED_JOB_SECONDS }));
    match kept {
        Some(until) if now < until => plan.check_at(until),
        Some(_) => plan.actions.push(Action::delete_job(&attempt.job)),
        // One that was given up must not start later.
        None => plan.stop(attempt, now),
    }
}

fn record(
    plan: &mut Plan<BackupStatus>,
    backup: &Backup,
    attempt: &Attempt,
    result: Result<String, Failure>,
    now: Timestamp,
) {
    let ended = attempt.ended_at().unwrap_or(now);
    let at = plan.status.verification.get_or_insert_default();
    at.last_attempt_time = Some(Time(ended));
    at.job = Some(attempt.job.name.clone());
    (at.reason, at.message) = (None, None);
    if let Some(text) = request(backup)
        && job::verify_name(backup, &asked_by_hand(&text)) == attempt.job.name
    {
        at.request = Some(text);
    }
    let known = find(&plan.status.conditions, ConditionType::Verified).map(|c| c.status.as_str());
    let (value, reason, message) = match result {
        Ok(message) => {
            at.last_verified_time = Some(Time(ended));
            plan.events.push(Event::normal(Reason::Verified, "Verify", message.clone()));
            (Some(true), Reason::Verified, message)
        }
        Err(failure) if failure.reason.is_damage() => {
            at.last_verified_time = Some(Time(ended));
            plan.events.push(Event::warning(failure.reason, "Verify", failure.message.clone()));
            (Some(false), failure.reason, failure.message)
        }
        Err(failure) => {
            (at.reason, at.message) = (Some(failure.reason), Some(failure.message.clone()));
            let note = format!("it could not be verified: {}", failure.message);
            plan.events.push(Event::warning(failure.reason, "Verify", note));
            // What once could be opened and no longer can is not known to be good; a store that is away says nothing new.
            let is_locked = matches!(failure.reason, Reason::KeyMissing | Reason::InvalidConfiguration);
            if known == Some("False") || (known == Some("True") && !is_locked) {
                return;
            }
            (None, failure.reason, failure.message)
        }
    };
    let generation = backup.metadata.generation;
    plan.status.conditions =
        with_condition(&plan.status.conditions, ConditionType::Verified, value, reason, message, generation, now);
}

#[cfg(test)]
mod tests;

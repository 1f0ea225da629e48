//! A RestoreRequest of which the API server refuses something, and how long it may wait for whatever it needs before its Job. Pure.

use holdfast_crds::{BackupPhase, ConditionType, Reason, RestoreRequest, RestoreRequestStatus};
use jiff::Timestamp;

use super::{GRACE_SECONDS, ObservedRestore, end};
use crate::plan::action::{Event, Plan};
use crate::plan::observed::created;
use crate::plan::refused::say;
use crate::plan::status::{after, find, reason_of};
use crate::task::Failure;

/// Says what was refused.
pub fn refuse(request: &RestoreRequest, failure: &Failure, now: Timestamp) -> Plan<RestoreRequestStatus> {
    let mut plan = Plan::keep(request.status.clone().unwrap_or_default());
    let generation = request.metadata.generation;
    let phase = plan.status.phase;
    if phase.is_terminal() || request.metadata.deletion_timestamp.is_some() {
        if plan.status.scaled_down.iter().all(|w| w.outcome.is_some()) {
            return plan;
        }
        let words = format!("workloads of scaleDown are not brought back yet: {}", failure.message);
        let told = Failure::new(failure.reason, words);
        if say(&mut plan.status.conditions, ConditionType::BroughtBack, Some(false), &told, generation, now) {
            plan.events.push(Event::warning("NotBroughtBack", "Restore", told.message));
        }
        return plan;
    }
    let until = may_wait_until(request, None);
    let has_job = plan.status.job_uid.is_some();
    if now >= until && phase == BackupPhase::Pending {
        plan.status.start_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        too_late(&mut plan, request, Some(failure), now);
        return plan;
    }
    if !has_job {
        plan.check_at(until);
    }
    plan.status.observed_generation = generation;
    // Once it is under way it is not known how it ends.
    let value = (phase == BackupPhase::Pending).then_some(false);
    let told = Failure::new(failure.reason, format!("it waits: {}", failure.message));
    if say(&mut plan.status.conditions, ConditionType::Complete, value, &told, generation, now) {
        plan.events.push(Event::warning(told.reason, "Restore", told.message));
    }
    plan
}

/// Until when a request may be without a Job: for `timeoutSeconds` from its creation. What its safety backup takes has a limit of its own,
/// that of the policy: the time counts anew from when that is complete. The Job has the same time once more, for the restore itself.
pub(super) fn may_wait_until(request: &RestoreRequest, saved: Option<Timestamp>) -> Timestamp {
    let seconds = request.spec.timeout_seconds.max(GRACE_SECONDS);
    let begun = created(&request.metadata);
    after(saved.map_or(begun, |saved| saved.max(begun)), seconds)
}

/// When the safety backup was complete; none where there is none, or not yet. `Err`: it is under way.
pub(super) fn saved(observed: &ObservedRestore) -> Result<Option<Timestamp>, ()> {
    let Some(status) = observed.safety.as_ref().and_then(|backup| backup.status.as_ref()) else { return Ok(None) };
    match status.phase {
        BackupPhase::Running => Err(()),
        _ => Ok(status.completion_time.as_ref().map(|t| t.0)),
    }
}

/// Ends a request that has waited too long for its Job.
pub(super) fn too_late(
    plan: &mut Plan<RestoreRequestStatus>,
    request: &RestoreRequest,
    failure: Option<&Failure>,
    now: Timestamp,
) {
    let said = find(&plan.status.conditions, ConditionType::Complete);
    let reason = said.and_then(reason_of);
    let reason = failure.map(|f| f.reason).or(reason.filter(|r| *r != Reason::InProgress));
    let words = failure.map(|f| f.message.clone()).or_else(|| said.map(|c| c.message.clone())).unwrap_or_default();
    let words = words.strip_prefix("it waits: ").unwrap_or(&words);
    let message = format!(
        "it could not begin within timeoutSeconds ({} s), and nothing was touched: {words}. Put that right and create another request",
        request.spec.timeout_seconds
    );
    plan.actions.clear();
    end(plan, request, Err((Failure::new(reason.unwrap_or(Reason::DeadlineExceeded), message), None)), now, now);
}

#[cfg(test)]
mod tests;

//! Workloads that are stopped while their data is restored, and brought back whatever becomes of the restore. Pure.
//!
//! The number of replicas is in the status before anything is scaled, and a finalizer keeps the request until it is given back: whoever
//! comes after a controller that died knows what to do. What somebody else has scaled meanwhile is left as it is.

use holdfast_crds::{ConditionType, Reason, RestoreRequest, RestoreRequestStatus, ScaledWorkload, WorkloadKind};
use jiff::Timestamp;

use super::{ObservedRestore, complete_is, settle};
use crate::plan::action::{Action, Event, Plan, Target};
use crate::plan::job::Install;
use crate::plan::names::SCALE_FINALIZER;
use crate::plan::observed::Attempt;
use crate::plan::refused::say;
use crate::plan::status::after;
use crate::task::Failure;

/// Pods that have not gone this many seconds after the restore started end it.
pub const DOWN_SECONDS: i64 = 300;
/// Workloads are not watched: they are looked at again after this many seconds.
pub(super) const LOOK_SECONDS: i64 = 2;
/// A request that is being deleted goes after this many seconds, even if its workloads could not be brought back.
pub(super) const CANCEL_SECONDS: i64 = 300;
/// A Pod of a lost node never ends: the workloads come back this many seconds after the restore ended, whatever is left of its Pod.
const POD_SECONDS: i64 = 90;
/// At most this many Pods are named.
const NAMED: usize = 3;

/// A workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedWorkload {
    /// Deployment or StatefulSet.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: String,
    /// How many replicas it is to have.
    pub replicas: i32,
    /// Its Pods that have not ended.
    pub pods: Vec<String>,
    /// Its version.
    pub resource_version: Option<String>,
}

/// The workloads to stop, each with the replicas it has now. A dry run stops none, and is told if one is not there.
///
/// # Errors
/// [`Reason::InvalidConfiguration`] for one that is not there; [`Reason::InProgress`] while another restore has stopped one.
pub(super) fn record(request: &RestoreRequest, observed: &ObservedRestore) -> Result<Vec<ScaledWorkload>, Failure> {
    let mut recorded = Vec::new();
    for target in &request.spec.scale_down {
        let Some(found) = find(observed, target.kind, &target.name) else {
            let message = format!(
                "scaleDown names {} {}, which is not there in this namespace; nothing was touched",
                target.kind, target.name
            );
            return Err(Failure::new(Reason::InvalidConfiguration, message));
        };
        let (kind, name) = (target.kind, target.name.clone());
        recorded.push(ScaledWorkload { kind, name, replicas: found.replicas, outcome: None });
    }
    if let Some(held) = &observed.held {
        return Err(Failure::new(Reason::InProgress, format!("it waits: {held}")));
    }
    if request.spec.dry_run {
        recorded.clear();
    }
    Ok(recorded)
}

/// Whether the request stays until its workloads are brought back.
pub(super) fn is_kept(request: &RestoreRequest) -> bool {
    request.metadata.finalizers.iter().flatten().any(|f| f == SCALE_FINALIZER)
}

/// Makes it stay.
pub(super) fn keep(request: &RestoreRequest) -> Action {
    let mut finalizers = request.metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(SCALE_FINALIZER.to_owned());
    Action::SetRestoreFinalizers(Target::version(&request.metadata), finalizers)
}

/// Whether all workloads are down, to their last Pod; if not, they are scaled down and waited for.
///
/// # Errors
/// [`Reason::InvalidConfiguration`] for one that is gone; [`Reason::DeadlineExceeded`] for Pods that do not go.
pub(super) fn down(
    plan: &mut Plan<RestoreRequestStatus>,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    now: Timestamp,
) -> Result<bool, Failure> {
    let mut waits = Vec::new();
    for recorded in &plan.status.scaled_down {
        let words = format!("{} {}", recorded.kind, recorded.name);
        let Some(found) = find(observed, recorded.kind, &recorded.name) else {
            let message = format!("{words} of scaleDown is gone; nothing was touched");
            return Err(Failure::new(Reason::InvalidConfiguration, message));
        };
        if found.replicas != 0 {
            plan.actions.push(scale(request, found, 0));
            waits.push(format!("{words} is scaled down"));
        } else if !found.pods.is_empty() {
            let named = found.pods.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = found.pods.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            waits.push(format!("{words} is scaled down and has the Pods {named}{more} still"));
        }
    }
    if waits.is_empty() {
        return Ok(true);
    }
    let waits = waits.join("; ");
    let since = plan.status.start_time.as_ref().map_or(now, |t| t.0);
    if now >= after(since, DOWN_SECONDS) {
        plan.actions.clear();
        let message = format!(
            "{waits}: not gone within {DOWN_SECONDS} s, or started anew by somebody else (a GitOps tool?); nothing was touched"
        );
        return Err(Failure::new(Reason::DeadlineExceeded, message));
    }
    plan.check_at(after(now, LOOK_SECONDS));
    complete_is(plan, request, None, Reason::InProgress, &format!("it waits: {waits}"), now);
    Ok(false)
}

/// Gives the workloads of a request that is over back what they had, then lets the request go when it is deleted.
pub(super) fn bring_back(
    plan: &mut Plan<RestoreRequestStatus>,
    install: &Install,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    now: Timestamp,
) {
    let written = request.status.iter().flat_map(|s| &s.scaled_down);
    if written.clone().all(|w| w.outcome.is_some()) {
        if is_kept(request) {
            plan.actions.push(release(request));
        }
        return;
    }
    let over = plan.status.completion_time.as_ref().map_or(now, |t| t.0);
    if observed.pods_left && now < after(over, POD_SECONDS) {
        // It may still write.
        return plan.check_at(after(now, LOOK_SECONDS));
    }
    settle_and_give_back(plan, install, request, observed, now);
}

/// Nothing starts on a volume that is half swapped.
fn settle_and_give_back(
    plan: &mut Plan<RestoreRequestStatus>,
    install: &Install,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    now: Timestamp,
) {
    match settle::progress(plan, install, request, observed, now) {
        settle::Progress::Done => give_back(plan, request, observed),
        settle::Progress::Waits(why) => {
            plan.check_at(after(now, LOOK_SECONDS));
            not_back(plan, request, &Failure::new(Reason::InProgress, why), now);
        }
        settle::Progress::Not(failure) => leave(plan, request, &failure, now),
    }
}

/// Leaves the workloads stopped: what they would start on may be half old and half new.
fn leave(plan: &mut Plan<RestoreRequestStatus>, request: &RestoreRequest, failure: &Failure, now: Timestamp) {
    for recorded in plan.status.scaled_down.iter_mut().filter(|w| w.outcome.is_none()) {
        let outcome = format!(
            "left at 0 replicas, it had {}: a volume may be half swapped, and that could not be undone: {}. Restore into it with onExisting: Replace, which undoes it first, then scale it",
            recorded.replicas, failure.message
        );
        let note = format!("{} {}: {outcome}", recorded.kind, recorded.name);
        plan.events.push(Event::warning("NotBroughtBack", "Restore", note));
        recorded.outcome = Some(outcome);
    }
    let words = format!("workloads of scaleDown were left at 0 replicas: {}", failure.message);
    not_back(plan, request, &Failure::new(failure.reason, words), now);
}

fn not_back(plan: &mut Plan<RestoreRequestStatus>, request: &RestoreRequest, failure: &Failure, now: Timestamp) {
    let generation = request.metadata.generation;
    say(&mut plan.status.conditions, ConditionType::BroughtBack, Some(false), failure, generation, now);
}

/// A request that is being deleted: its Job first, then the workloads, then the finalizer.
pub(super) fn cancel(
    plan: &mut Plan<RestoreRequestStatus>,
    install: &Install,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    now: Timestamp,
) {
    if !is_kept(request) {
        return;
    }
    let deleted = request.metadata.deletion_timestamp.as_ref().map_or(now, |t| t.0);
    let written = request.status.iter().flat_map(|s| &s.scaled_down);
    let left: Vec<String> =
        written.filter(|w| w.outcome.is_none()).map(|w| format!("{} {} ({})", w.kind, w.name, w.replicas)).collect();
    if observed.namespace_terminating || left.is_empty() {
        return plan.actions.push(release(request));
    }
    if now >= after(deleted, CANCEL_SECONDS) {
        let note = format!("these workloads could not be brought back, scale them yourself: {}", left.join(", "));
        plan.events.push(Event::warning("NotBroughtBack", "Restore", note));
        return plan.actions.push(release(request));
    }
    plan.check_at(after(now, LOOK_SECONDS));
    let goes_on = |attempt: &&Attempt| attempt.job.end.is_none() && !settle::is_to_be_made(observed);
    if let Some(attempt) = observed.job.as_ref().filter(goes_on) {
        // By it the Job's Pods are found once the Job is gone.
        plan.status.job_uid = Some(attempt.job.uid.clone());
        if !attempt.job.deleting {
            plan.actions.push(Action::delete_job(&attempt.job));
        }
        return;
    }
    if observed.pods_left && now < after(deleted, POD_SECONDS) {
        return;
    }
    settle_and_give_back(plan, install, request, observed, now);
}

fn give_back(plan: &mut Plan<RestoreRequestStatus>, request: &RestoreRequest, observed: &ObservedRestore) {
    for recorded in plan.status.scaled_down.iter_mut().filter(|w| w.outcome.is_none()) {
        let words = format!("{} {}", recorded.kind, recorded.name);
        let (warns, outcome) = match find(observed, recorded.kind, &recorded.name) {
            None => (true, "it is gone".to_owned()),
            Some(found) if found.replicas == recorded.replicas => {
                (false, format!("it has {} replicas again", recorded.replicas))
            }
            Some(found) if found.replicas == 0 => {
                plan.actions.push(scale(request, found, recorded.replicas));
                (false, format!("it has {} replicas again", recorded.replicas))
            }
            Some(found) => {
                let had = recorded.replicas;
                (true, format!("left at {} replicas, to which somebody has scaled it; it had {had}", found.replicas))
            }
        };
        let note = format!("{words}: {outcome}");
        plan.events.push(if warns {
            Event::warning("NotBroughtBack", "Restore", note)
        } else {
            Event::normal("BroughtBack", "Restore", note)
        });
        recorded.outcome = Some(outcome);
    }
    plan.status.conditions.retain(|c| c.type_ != ConditionType::BroughtBack.as_str());
}

fn release(request: &RestoreRequest) -> Action {
    let rest = request.metadata.finalizers.iter().flatten().filter(|f| *f != SCALE_FINALIZER).cloned().collect();
    Action::SetRestoreFinalizers(Target::version(&request.metadata), rest)
}

fn scale(request: &RestoreRequest, workload: &ObservedWorkload, replicas: i32) -> Action {
    let target = Target {
        namespace: request.metadata.namespace.clone().unwrap_or_default(),
        name: workload.name.clone(),
        uid: String::new(),
        resource_version: workload.resource_version.clone(),
    };
    Action::Scale(workload.kind, target, replicas)
}

fn find<'a>(observed: &'a ObservedRestore, kind: WorkloadKind, name: &str) -> Option<&'a ObservedWorkload> {
    observed.workloads.iter().find(|w| w.kind == kind && w.name == name)
}

#[cfg(test)]
mod tests;

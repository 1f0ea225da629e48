//! Volumes that a restore has left half swapped: undone by a Job of their own before the workloads that use them come back. Pure.

use holdfast_crds::{BackupPhase, ConditionType, Reason, RestoreRequest, RestoreRequestStatus};
use jiff::Timestamp;

use super::ObservedRestore;
use crate::plan::action::{Action, Plan};
use crate::plan::job::{self, Install};
use crate::plan::status::{find, reason_of};
use crate::plan::verdict::{Patience, Verdict, judge};
use crate::task::Failure;

/// Whether the volumes of a request that is over are as they should be.
pub(super) enum Progress {
    /// They are.
    Done,
    /// It is being seen to.
    Waits(&'static str),
    /// They may not be, and nothing more is done about it.
    Not(Failure),
}

const WAITS: &str = "workloads of scaleDown come back once a swap that was cut off is undone in their volumes";

/// Whether a worker that ended with this reason was ended by somebody else, wherever it was.
pub(super) fn is_cut_off(reason: Reason) -> bool {
    matches!(reason, Reason::PodLost | Reason::OOMKilled | Reason::DeadlineExceeded | Reason::Stalled)
}

/// Whether a swap may have been begun and not ended. A worker that tells what it restored has touched something; one that was cut off tells
/// nothing, and where nobody says why either, the reason is [`Reason::RestoreFailed`].
pub fn may_be_half_done(request: &RestoreRequest, status: &RestoreRequestStatus) -> bool {
    let reason = find(&status.conditions, ConditionType::Complete).and_then(reason_of);
    let cut_off = reason.is_some_and(|reason| is_cut_off(reason) || reason == Reason::RestoreFailed);
    status.phase == BackupPhase::Failed
        && status.job_uid.is_some()
        && !request.spec.dry_run
        && (cut_off || status.items.is_some())
        && status.scaled_down.iter().any(|workload| workload.outcome.is_none())
}

/// Whether the Job that undoes it is still to be made, for which that of the restore must be there.
pub(super) fn is_to_be_made(observed: &ObservedRestore) -> bool {
    observed.settle.is_none() && observed.cut_off.as_deref().is_some_and(job::settles)
}

/// Has them seen to.
pub(super) fn progress(
    plan: &mut Plan<RestoreRequestStatus>,
    install: &Install,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    now: Timestamp,
) -> Progress {
    if !may_be_half_done(request, &plan.status) {
        return Progress::Done;
    }
    let Some(attempt) = &observed.settle else {
        // Without a volume in the restore there is nothing to see to, and without its Job nobody knows where.
        let Some(job) = observed.cut_off.as_deref().and_then(|restore| job::settle(install, request, restore)) else {
            return Progress::Done;
        };
        plan.actions.push(Action::CreateJob(Box::new(job)));
        return Progress::Waits(WAITS);
    };
    let verdict = judge(attempt, Reason::RestoreFailed, Patience::RUN, now);
    let is_over = matches!(verdict, Verdict::Completed(_) | Verdict::Failed(..));
    if is_over && attempt.job.end.is_none() && !attempt.job.deleting {
        // It must not begin, or be tried again, once the workloads may be back.
        plan.actions.push(Action::delete_job(&attempt.job));
    }
    match verdict {
        Verdict::Running => Progress::Waits(WAITS),
        Verdict::Waiting { check_at, .. } => {
            plan.check_at(check_at);
            Progress::Waits(WAITS)
        }
        Verdict::Completed(_) => Progress::Done,
        Verdict::Failed(failure, _) => Progress::Not(failure),
    }
}

//! After a run: retention, and its Jobs deleted in time. Pure.

use holdfast_crds::{Backup, BackupPhase, BackupStatus, ConditionType, Reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{ObservedBackup, slot_of, stop_decided, told, usable, verification};
use crate::plan::action::{Action, Plan, Target};
use crate::plan::found::{is_foreign, is_found};
use crate::plan::job::{self, Install};
use crate::plan::location;
use crate::plan::names::run_id;
use crate::plan::plausibility;
use crate::plan::refused::as_refusal;
use crate::plan::status::{after, with_condition};
use crate::plan::verdict::{Patience, Verdict, judge};
use crate::plan::verify::{VERIFY, is_damaged};
use crate::task::{KnownRun, Outcome, Report};

/// The Jobs of a completed run are kept for this many seconds.
pub const COMPLETED_JOB_SECONDS: i64 = 3600;
/// The Jobs of a failed run are kept for this many seconds, so that their logs can be read.
pub const FAILED_JOB_SECONDS: i64 = 24 * 3600;

/// What is said of a retention whose worker left no word.
pub const RETENTION_APPLIED: &str = "retention was applied";
const RETAIN_AGAIN_SECONDS: i64 = 15;

/// What is left to do once a run is over.
pub(super) fn tidy(
    plan: &mut Plan<BackupStatus>,
    install: &Install,
    backup: &Backup,
    observed: &ObservedBackup,
    now: Timestamp,
) {
    stop_decided(plan, backup, observed, now);
    let Some(over) = plan.status.completion_time.as_ref().map(|t| t.0) else { return };
    let completed = plan.status.phase == BackupPhase::Completed;
    let expiry = after(over, if completed { COMPLETED_JOB_SECONDS } else { FAILED_JOB_SECONDS });
    if completed {
        told::accept(plan, backup, now);
        retain(plan, install, backup, observed, now, expiry);
        verification::follow(plan, backup, observed, now);
    }
    // What a retention did is read while its Job is there; a container that keeps that Job is not waited for.
    let retains = observed.jobs.iter().filter(|a| a.job.name == job::retain_name(backup));
    retains.filter(|a| a.ended_at().is_some()).for_each(|attempt| plan.stop(attempt, now));
    let stopped =
        |name: &str| plan.actions.iter().any(|a| matches!(a, Action::DeleteJob(target) if target.name == name));
    let ours = observed.jobs.iter().filter(|a| a.job.task != VERIFY);
    let left: Vec<_> = ours.filter(|a| !a.job.deleting && !stopped(&a.job.name)).collect();
    if left.is_empty() {
        return;
    }
    if now < expiry {
        plan.check_at(expiry);
    } else {
        plan.actions.extend(left.iter().filter(|a| a.job.end.is_some()).map(|a| Action::delete_job(&a.job)));
    }
}

fn retain(
    plan: &mut Plan<BackupStatus>,
    install: &Install,
    backup: &Backup,
    observed: &ObservedBackup,
    now: Timestamp,
    expiry: Timestamp,
) {
    let name = job::retain_name(backup);
    let is_retention = |c: &Condition| c.type_ == ConditionType::RetentionApplied.as_str();
    let not_refused = |plan: &mut Plan<BackupStatus>| {
        plan.status.conditions.retain(|c| !is_retention(c) || as_refusal(c).is_none());
    };
    if let Some(attempt) = observed.jobs.iter().find(|a| a.job.name == name) {
        not_refused(plan);
        // A retain that failed is told on the policy.
        let verdict = judge(attempt, Reason::StoreUnreachable, Patience::RUN, now);
        if let Verdict::Completed(Some(Report { outcome: Some(Outcome::Retain(retained)), .. })) = &verdict {
            plan.actions.extend(gone(backup, observed, &retained.deleted));
        }
        // A Job that another container keeps goes before its time: that it was there is remembered.
        if attempt.job.end.is_none() {
            remember(plan, backup, verdict, now);
        }
        return;
    }
    if plan.status.conditions.iter().any(|c| is_retention(c) && as_refusal(c).is_none()) {
        return;
    }
    let (Some(policy), Some(store)) = (observed.policy.as_deref(), observed.store.as_deref()) else { return };
    let Some(retention) = policy.spec.retention.as_ref().filter(|_| now < expiry) else { return };
    if store.spec.append_only {
        // The policy says that it is off.
        return not_refused(plan);
    }
    if observed.siblings.iter().any(|s| is_newer(s, backup)) {
        // The rules are the policy's: applied after the newest run they are applied to all.
        return not_refused(plan);
    }
    if location::confirm("it", plan.status.location.as_deref(), store).is_err() {
        // What is there now is another place, with other runs.
        return;
    }
    if usable(&policy.spec.store_ref.name, Some(store)).is_err() || observed.retention_waits || observed.holds.unknown {
        return plan.check_at(after(now, RETAIN_AGAIN_SECONDS));
    }
    let runs = runs(backup, observed);
    not_refused(plan);
    plan.actions.push(Action::CreateJob(Box::new(job::retain(install, backup, policy, store, retention, runs))));
}

/// Writes down how the retention after a run ended.
fn remember(plan: &mut Plan<BackupStatus>, backup: &Backup, verdict: Verdict, now: Timestamp) {
    let Some((value, reason, message)) = verdict.into_condition(RETENTION_APPLIED) else { return };
    let (type_, generation) = (ConditionType::RetentionApplied, backup.metadata.generation);
    plan.status.conditions =
        with_condition(&plan.status.conditions, type_, Some(value), reason, message, generation, now);
}

/// Whether another run completed later. What was found in the bucket starts no retention, so it does not stand for a later run.
fn is_newer(other: &Backup, than: &Backup) -> bool {
    if is_found(other) {
        return false;
    }
    let ended = |b: &Backup| {
        let status = b.status.as_ref().filter(|s| s.phase == BackupPhase::Completed);
        status.and_then(|s| s.completion_time.as_ref()).map(|t| (t.0, b.metadata.name.clone()))
    };
    ended(other) > ended(than)
}

/// The runs that the bucket must hold, and those that must not be touched.
fn runs(backup: &Backup, observed: &ObservedBackup) -> (Vec<KnownRun>, Vec<String>) {
    let (store, place) = backup.status.as_ref().map(|s| (s.store.clone(), s.location.clone())).unwrap_or_default();
    let is_here = |status: &BackupStatus| {
        status.store == store && place.as_deref().is_none_or(|place| location::is_at(status, place))
    };
    let mut known = Vec::new();
    let mut protected = observed.holds.run_ids.clone();
    for sibling in &observed.siblings {
        let status = sibling.status.clone().unwrap_or_default();
        let Some(run_id) = status.run_id.clone().or_else(|| planned(sibling, status.phase)) else { continue };
        match status.phase {
            // What another cluster stored, that one may delete.
            BackupPhase::Completed if is_foreign(sibling) => {}
            BackupPhase::Completed if sibling.metadata.deletion_timestamp.is_none() && is_here(&status) => {
                let sources = status.artifacts.iter().map(|a| a.source.clone()).collect();
                let suspicious = plausibility::is_suspicious(&status) && !plausibility::is_accepted(sibling);
                let imported = is_found(sibling);
                known.push(KnownRun { run_id, sources, suspicious, imported, damaged: is_damaged(&status) });
            }
            BackupPhase::Pending | BackupPhase::Running => protected.push(run_id),
            _ => {}
        }
    }
    protected.sort_unstable();
    protected.dedup();
    (known, protected)
}

/// The run of a Backup that has not started yet, as far as is known: it may be under way by the time that retention is.
fn planned(backup: &Backup, phase: BackupPhase) -> Option<String> {
    let uid = backup.metadata.uid.as_deref()?;
    (phase == BackupPhase::Pending).then(|| run_id(slot_of(backup), uid))
}

/// The Backup objects of runs whose data is gone: of this policy, with exactly that run, and over.
fn gone<'a>(
    backup: &'a Backup,
    observed: &'a ObservedBackup,
    deleted: &'a [String],
) -> impl Iterator<Item = Action> + 'a {
    observed
        .siblings
        .iter()
        .filter(|s| s.spec.policy_ref == backup.spec.policy_ref && s.metadata.namespace == backup.metadata.namespace)
        .filter(|s| s.metadata.deletion_timestamp.is_none() && !is_foreign(s))
        .filter(|s| {
            s.status.as_ref().is_some_and(|status| {
                status.phase.is_terminal() && status.run_id.as_ref().is_some_and(|id| deleted.contains(id))
            })
        })
        .map(|s| Action::DeleteBackup(Target::version(&s.metadata)))
}

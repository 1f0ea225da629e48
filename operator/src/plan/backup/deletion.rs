//! A Backup that is being deleted: where its `deletionPolicy` is Delete its data goes first, then the finalizer. Pure.

use holdfast_crds::{Backup, BackupStatus, ConditionType, Reason};
use jiff::Timestamp;

use super::{ObservedBackup, reachable};
use crate::plan::action::{Action, Event, Plan, Target};
use crate::plan::job::{self, Install};
use crate::plan::location;
use crate::plan::names::FINALIZER;
use crate::plan::refused::say;
use crate::plan::status::after;
use crate::plan::verdict::{Patience, Verdict, judge};
use crate::task::Failure;

/// A deletion that failed, or cannot be tried, is tried again after this many seconds.
pub(super) const AGAIN_SECONDS: i64 = 300;

const BLOCKED_SECONDS: i64 = 60;

pub(super) fn delete(
    plan: &mut Plan<BackupStatus>,
    install: &Install,
    backup: &Backup,
    observed: &ObservedBackup,
    now: Timestamp,
) {
    let finalizers = backup.metadata.finalizers.clone().unwrap_or_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        return;
    }
    let release = || {
        let rest = finalizers.iter().filter(|f| *f != FINALIZER).cloned().collect();
        Action::SetFinalizers(Target::version(&backup.metadata), rest)
    };
    let run_id = plan.status.run_id.clone();
    if observed.namespace_terminating {
        plan.events.push(Event::warning(
            "DataKept",
            "Delete",
            "the namespace is going away: the data stays in the bucket",
        ));
        return plan.actions.push(release());
    }
    let name = job::delete_name(backup);
    let others: Vec<_> = observed.jobs.iter().filter(|a| a.job.name != name && a.job.end.is_none()).collect();
    if !others.is_empty() {
        // A worker that still writes would leave behind what it writes last. Each change of a Job brings us back here.
        plan.actions.extend(others.iter().filter(|a| !a.job.deleting).map(|a| Action::delete_job(&a.job)));
        return;
    }
    let Some(run_id) = run_id else {
        return plan.actions.push(release());
    };
    let Some(attempt) = observed.jobs.iter().find(|a| a.job.name == name) else {
        if observed.holds.unknown || observed.holds.run_ids.contains(&run_id) {
            let note =
                format!("the data of run {run_id} is not deleted yet: a restore or a verification may be reading it");
            plan.events.push(Event::normal("DataInUse", "Delete", note));
            return plan.check_at(after(now, BLOCKED_SECONDS));
        }
        match store(backup, observed) {
            Ok(store) => {
                let policy = observed.policy.as_deref();
                let job = job::delete(install, backup, policy, store, &run_id);
                plan.actions.push(Action::CreateJob(Box::new(job)));
            }
            Err(failure) => {
                blocked(plan, backup, &failure, now);
                plan.check_at(after(now, BLOCKED_SECONDS));
            }
        }
        return;
    };
    match judge(attempt, Reason::StoreUnreachable, Patience::RUN, now) {
        Verdict::Completed(report) => {
            let told = report.map(|report| report.message).filter(|message| !message.is_empty());
            let note = told.unwrap_or_else(|| format!("the data of run {run_id} is deleted"));
            plan.events.push(Event::normal("DataDeleted", "Delete", note));
            plan.actions.push(release());
        }
        Verdict::Running => {}
        Verdict::Waiting { check_at, .. } => plan.check_at(check_at),
        Verdict::Failed(failure, _) => {
            let again = after(attempt.ended_at().unwrap_or(attempt.job.created), AGAIN_SECONDS);
            if attempt.job.deleting {
                return;
            }
            if again <= now {
                return plan.actions.push(Action::delete_job(&attempt.job));
            }
            blocked(plan, backup, &failure, now);
            plan.check_at(again);
        }
    }
}

/// Says why the data cannot be deleted: the object stays until it is, and nobody would know what for.
pub(super) fn blocked(plan: &mut Plan<BackupStatus>, backup: &Backup, failure: &Failure, now: Timestamp) {
    let run = plan.status.run_id.as_ref().map(|run_id| format!(" of run {run_id}")).unwrap_or_default();
    let told = Failure::new(failure.reason, format!("the data{run} is not deleted yet: {}", failure.message));
    let generation = backup.metadata.generation;
    if say(&mut plan.status.conditions, ConditionType::DataDeleted, Some(false), &told, generation, now) {
        plan.events.push(Event::warning(told.reason, "Delete", told.message));
    }
}

fn store<'a>(backup: &Backup, observed: &'a ObservedBackup) -> Result<&'a holdfast_crds::BackupStore, Failure> {
    let name = backup.status.as_ref().and_then(|s| s.store.as_deref()).unwrap_or_default();
    let Some(store) = observed.store.as_deref() else {
        let message = format!(
            "BackupStore {name} is not there; create it again, or remove the finalizer {FINALIZER} to keep the data"
        );
        return Err(Failure::new(Reason::StoreNotFound, message));
    };
    let status = backup.status.as_ref();
    let what = "its data";
    location::confirm(what, status.and_then(|s| s.location.as_deref()), store).map_err(|failure| {
        let message = format!(
            "{}; nothing was deleted: let BackupStore {name} point there for the deletion, or remove the finalizer {FINALIZER} to keep the data",
            failure.message
        );
        Failure::new(failure.reason, message)
    })?;
    if store.spec.read_only {
        let message = format!("BackupStore {name} is read-only; remove the finalizer {FINALIZER} to keep the data");
        return Err(Failure::new(Reason::StoreReadOnly, message));
    }
    if store.spec.append_only {
        let message = format!(
            "BackupStore {name} is append-only (spec.appendOnly), so nothing is deleted from it; remove the finalizer {FINALIZER} to keep the data"
        );
        return Err(Failure::new(Reason::StoreAppendOnly, message));
    }
    reachable(name, store)
}

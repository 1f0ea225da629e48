//! What to do about a RestoreRequest: find the restore point and the targets, then one Job, at most once ever. Pure.
//!
//! The order of writes is what keeps it to one execution: the status says Running and names the Job, then the Job is created, then the
//! status takes down its UID. A Job that is named but not there is created only while no UID was taken down.

mod aftermath;
mod choice;
mod claims;
mod look;
mod overlap;
mod refused;
mod safety;
mod scale;
mod settle;
mod target;

use std::sync::Arc;

use holdfast_crds::{
    Backup, BackupPhase, BackupPolicy, BackupStore, ConditionType, Reason, RestoreRequest, RestoreRequestStatus,
    RestoreSourceStatus,
};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::{Action, Event, Plan, Target};
use super::backup::{not_there, reachable, store_grace};
use super::found::unless_awaited;
use super::job::{self, Ground, Install};
use super::location;
use super::observed::{Attempt, created};
use super::status::{after, duration_text, with_condition};
use super::verdict::{Patience, Verdict, judge};
use crate::task::{Failure, Outcome, Report, RestoreTask, Scope, Select};

pub use choice::{Choice, choose};
pub use claims::claims;
pub use look::wants_a_look;
pub use refused::refuse;
pub use safety::{as_saved, is_safety};
pub use scale::ObservedWorkload;
pub use settle::may_be_half_done;
use target::targets;

/// What a restore needs may be this many seconds late: it waits as Pending, then it fails.
pub const GRACE_SECONDS: i64 = 60;
/// A Backup that is not there is waited for this many seconds.
pub const BACKUP_GRACE_SECONDS: i64 = 15;

/// What the messages of a dry run begin with.
const DRY_RUN: &str = "dry run";

const IDLE_TIMEOUT_SECONDS: i64 = 300;

/// Whoever makes a Job that deletes runs may have heard so many seconds late that a restore has begun.
const HEARD_SECONDS: i64 = 10;

/// What is known around a RestoreRequest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedRestore {
    /// The Backup it names, or all Backups of the policy it names.
    pub backups: Vec<Arc<Backup>>,
    /// The policy of the chosen restore point, if it still exists.
    pub policy: Option<Arc<BackupPolicy>>,
    /// The store that the restore point is in.
    pub store: Option<Arc<BackupStore>>,
    /// The store that the policy writes to. Only needed while nothing is chosen.
    pub policy_store: Option<Arc<BackupStore>>,
    /// What is known around the claims that it writes into. Only needed while it has no Job.
    pub ground: Ground,
    /// The safety backup that the status names, if it is there. Not needed once the request has a Job.
    pub safety: Option<Arc<Backup>>,
    /// The workloads to stop or to bring back, as far as they are there.
    pub workloads: Vec<ObservedWorkload>,
    /// A workload that another request has stopped, in words.
    pub held: Option<String>,
    /// Whether a Pod of its Job has not ended yet. Only needed once the request is over or being deleted.
    pub pods_left: bool,
    /// Whether the namespace is going away: nothing in it needs to be brought back.
    pub namespace_terminating: bool,
    /// What deletes runs of the policy at this moment. Only needed while nothing was touched.
    pub clearing: Option<Clearing>,
    /// Its Job, as the API server has it where it is missing from the cache.
    pub job: Option<Attempt>,
    /// The whole of that Job, where it may have left something half done and nobody has seen to it yet.
    pub cut_off: Option<Box<Job>>,
    /// The Job that undoes what it has left half done.
    pub settle: Option<Attempt>,
}

/// A Job that deletes runs of a policy, or has deleted some whose Backups are still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clearing {
    /// When it was made. One that is made after a restore has begun spares what that reads.
    pub since: Timestamp,
    /// What it is, in one line.
    pub words: String,
}

/// Decides about a RestoreRequest.
pub fn plan_restore(
    install: &Install,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    now: Timestamp,
) -> Plan<RestoreRequestStatus> {
    let mut plan = Plan::keep(request.status.clone().unwrap_or_default());
    if request.metadata.deletion_timestamp.is_some() {
        scale::cancel(&mut plan, install, request, observed, now);
        return plan;
    }
    match (plan.status.phase, plan.status.job_uid.clone()) {
        (BackupPhase::Pending, _) => start(&mut plan, install, request, observed, now),
        (BackupPhase::Running, None) => create(&mut plan, install, request, observed, now),
        (BackupPhase::Running, Some(uid)) => follow(&mut plan, request, observed, &uid, now),
        (BackupPhase::Completed | BackupPhase::Failed, _) => {
            // A Pod that never started must not start later. A Job that ended stays as long as the request does.
            // Nor must one go on for ever that another container keeps.
            if let Some(attempt) = observed.job.as_ref().filter(|_| !settle::is_to_be_made(observed)) {
                plan.stop(attempt, now);
            }
            if let Some(backup) = observed.safety.as_deref().filter(|backup| safety::has_not_started(backup)) {
                // It would be made for nothing.
                plan.actions.push(Action::DeleteBackup(Target::version(&backup.metadata)));
            }
            scale::bring_back(&mut plan, install, request, observed, now);
        }
    }
    plan
}

fn start(
    plan: &mut Plan<RestoreRequestStatus>,
    install: &Install,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    now: Timestamp,
) {
    let dry_run = if request.spec.dry_run { " (dry run)" } else { "" };
    plan.status.from = Some(format!("{}{dry_run}", choice::in_one_line(&request.spec.from)));
    if let Some(failure) = look::awaited(request, observed, now) {
        return wait(plan, request, observed, failure, now);
    }
    let choice = match choose(request, &observed.backups) {
        Ok(choice) => choice,
        Err(failure) => {
            let policy = observed.policy.as_deref().filter(|_| request.spec.from.policy.is_some());
            let failure = policy.map_or(failure.clone(), |policy| unless_awaited(policy, &observed.backups, failure));
            return wait(plan, request, observed, failure, now);
        }
    };
    let prepared = match prepare(install, request, observed, &choice) {
        Ok(prepared) => prepared,
        Err(failure) => return wait(plan, request, observed, failure, now),
    };
    if let Some(clearing) = &observed.clearing {
        return wait(plan, request, observed, Failure::new(Reason::InProgress, clearing.words.clone()), now);
    }
    let scaled_down = match scale::record(request, observed) {
        Ok(recorded) => recorded,
        Err(failure) => return wait(plan, request, observed, failure, now),
    };
    if !scaled_down.is_empty() && !scale::is_kept(request) {
        plan.status = request.status.clone().unwrap_or_default();
        return plan.actions.push(scale::keep(request));
    }
    let names = prepared.task.sources.clone().unwrap_or_default();
    if let (false, Some(store)) = (scaled_down.is_empty(), observed.store.as_deref()) {
        // What would be refused later is refused before anything is stopped for it.
        let job = prepared.job(install, request, store, observed);
        plan.actions.push(Action::TryJob(Box::new(job)));
    }
    let to_save = prepared.to_save;
    let status = &mut plan.status;
    status.scaled_down = scaled_down;
    status.phase = BackupPhase::Running;
    status.job = Some(job::restore_name(request));
    status.start_time = Some(Time(now));
    status.safety_backup = (!to_save.is_empty()).then(|| safety::name(request));
    status.backup.clone_from(&choice.backup);
    if let Select::RunId(run_id) = &choice.select {
        status.run_id = Some(run_id.clone());
    }
    status.sources = names
        .into_iter()
        .map(|source| RestoreSourceStatus { source, phase: BackupPhase::Running, ..RestoreSourceStatus::default() })
        .collect();
    let from = plan.status.from.clone().unwrap_or_default();
    plan.events.push(Event::normal("Started", "Restore", format!("restore from {from} started")));
    complete_is(plan, request, None, Reason::InProgress, under_way(request), now);
}

/// The status says Running, and no Job has been seen.
fn create(
    plan: &mut Plan<RestoreRequestStatus>,
    install: &Install,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    now: Timestamp,
) {
    if let Some(attempt) = &observed.job {
        plan.status.job_uid = Some(attempt.job.uid.clone());
        return;
    }
    let saved = refused::saved(observed);
    if let Ok(saved) = saved {
        let until = refused::may_wait_until(request, saved);
        if now >= until {
            return refused::too_late(plan, request, None, now);
        }
        plan.check_at(until);
    }
    let begun = plan.status.start_time.as_ref().map_or(now, |t| t.0);
    if let Some(clearing) = observed.clearing.as_ref().filter(|c| c.since <= after(begun, HEARD_SECONDS)) {
        plan.check_at(after(now, scale::LOOK_SECONDS));
        return complete_is(plan, request, None, Reason::InProgress, &clearing.words, now);
    }
    let prepared = choose(request, &observed.backups).and_then(|choice| prepare(install, request, observed, &choice));
    let prepared = match (prepared, observed.store.as_deref()) {
        (Ok(prepared), Some(store)) => (prepared, store),
        (Err(failure), _) if is_of_the_store(failure.reason) => {
            // One probe that fails is no reason to lose what was saved and stopped for it.
            let words = format!("it waits: {}", failure.message);
            return complete_is(plan, request, None, failure.reason, &words, now);
        }
        (Err(failure), _) => return end(plan, request, Err((failure, None)), now, now),
        (Ok(_), None) => return,
    };
    let (prepared, store) = prepared;
    match scale::down(plan, request, observed, now) {
        Ok(true) => {}
        Ok(false) => return,
        Err(failure) => return end(plan, request, Err((failure, None)), now, now),
    }
    if prepared.to_save.is_empty() && observed.safety.is_none() {
        plan.status.safety_backup = None;
    }
    if plan.status.safety_backup.is_some() {
        let Some(backup) = observed.safety.as_deref() else {
            let backup = safety::backup(request, &prepared.task.scope.policy, prepared.to_save);
            return plan.actions.push(Action::CreateBackup(Box::new(backup)));
        };
        match safety::progress(backup) {
            Ok(safety::Progress::Done) => {}
            Ok(safety::Progress::Waits(reason, words)) => {
                return complete_is(plan, request, None, reason, &words, now);
            }
            Err(failure) => return end(plan, request, Err((failure, None)), now, now),
        }
    }
    plan.actions.extend(prepared.make.iter().map(|claim| Action::CreateClaim(Box::new(claim.clone()))));
    let job = prepared.job(install, request, store, observed);
    plan.actions.push(Action::CreateJob(Box::new(job)));
}

/// Whether a store that cannot be used now may be usable again.
fn is_of_the_store(reason: Reason) -> bool {
    reason.is_refusal()
        || matches!(
            reason,
            Reason::StoreNotFound
                | Reason::StoreNotReady
                | Reason::StoreUnreachable
                | Reason::StoreRefused
                | Reason::ClockSkew
                | Reason::SecretNotFound
                | Reason::ConfigMapNotFound
        )
}

fn follow(
    plan: &mut Plan<RestoreRequestStatus>,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    uid: &str,
    now: Timestamp,
) {
    let attempt = observed.job.as_ref().filter(|a| a.job.uid == uid && (a.ended_at().is_some() || !a.job.deleting));
    let Some(attempt) = attempt else {
        let name = plan.status.job.clone().unwrap_or_default();
        let message = format!(
            "Job {name} is gone and left no result: look at the target before you restore again with another RestoreRequest"
        );
        return end(plan, request, Err((Failure::new(Reason::JobVanished, message), None)), now, now);
    };
    let at = attempt.ended_at().unwrap_or(now);
    match judge(attempt, Reason::RestoreFailed, Patience::RUN, now) {
        Verdict::Running => complete_is(plan, request, None, Reason::InProgress, under_way(request), now),
        Verdict::Waiting { why, check_at } => {
            plan.check_at(check_at);
            if let Some(why) = why {
                complete_is(plan, request, None, why.reason, &format!("it waits: {}", why.message), now);
            }
        }
        Verdict::Completed(report) => end(plan, request, Ok(report), at, now),
        Verdict::Failed(failure, report) => {
            let failure = aftermath::told(request, &plan.status, &attempt.job, failure, report.as_ref());
            end(plan, request, Err((failure, report)), at, now);
        }
    }
}

/// A restore that can begin.
struct Prepared {
    task: RestoreTask,
    mounts: Vec<job::SourceMount>,
    seat: Option<job::Seat>,
    /// Claims to make before.
    make: Vec<PersistentVolumeClaim>,
    /// Sources to save before.
    to_save: Vec<String>,
}

impl Prepared {
    fn job(&self, install: &Install, request: &RestoreRequest, store: &BackupStore, observed: &ObservedRestore) -> Job {
        let policy = observed.policy.as_deref();
        job::restore(install, request, store, policy, self.task.clone(), self.mounts.clone(), self.seat.clone())
    }
}

fn prepare(
    install: &Install,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    choice: &Choice,
) -> Result<Prepared, Failure> {
    let policy = observed.policy.as_deref();
    let (sources, mut targets, mut mounts) = targets(request, choice, policy)?;
    let store = observed.store.as_deref().ok_or_else(|| not_there(&choice.store))?;
    if let Some(backup) = &choice.backup {
        location::confirm(&format!("the data of Backup {backup}"), choice.location.as_deref(), store)
            .map_err(|failure| location::with_advice(&failure))?;
    }
    reachable(&choice.store, store)?;
    let mut make = claims::to_make(request, &targets, &observed.ground);
    let mut claims_to_make = Vec::new();
    if request.spec.dry_run {
        claims_to_make.extend(std::mem::take(&mut make).into_iter().filter_map(|claim| claim.metadata.name));
        claims::unmount(&mut targets, &mut mounts, &claims_to_make);
    }
    let to_save = if safety::is_wanted(request) {
        safety::sources(request, policy, &targets, &observed.ground)?
    } else {
        Vec::new()
    };
    if let Some(policy) = policy {
        safety::tell(policy, &to_save, &mut targets);
    }
    if let Some(policy) = policy.filter(|_| !to_save.is_empty())
        && policy.spec.store_ref.name == choice.store
        && store.spec.read_only
    {
        let message = format!(
            "BackupStore {} is read-only, so what is there cannot be saved before it is replaced: set safetyBackup: false if it may be lost",
            choice.store
        );
        return Err(Failure::new(Reason::StoreReadOnly, message));
    }
    let users = claims::users(request, policy, &targets);
    let seat = job::seat(&mounts, &users, claims::purpose(&targets), &observed.ground)?;
    let task = RestoreTask {
        store: job::store_task_with_identity(store),
        scope: Scope {
            cluster_uid: install.cluster_uid.clone(),
            namespace: request.metadata.namespace.clone().unwrap_or_default(),
            policy: choice.policy.clone(),
            policy_uid: policy.and_then(|p| p.metadata.uid.clone()).unwrap_or_default(),
        },
        request: request.metadata.name.clone().unwrap_or_default(),
        request_uid: request.metadata.uid.clone().unwrap_or_default(),
        select: choice.select.clone(),
        cluster: choice.cluster.clone(),
        sources,
        targets,
        on_existing: request.spec.on_existing,
        dry_run: request.spec.dry_run,
        claims_to_make,
        timeout_seconds: request.spec.timeout_seconds,
        idle_timeout_seconds: policy.map_or(IDLE_TIMEOUT_SECONDS, |p| p.spec.idle_timeout_seconds),
    };
    Ok(Prepared { task, mounts, seat, make, to_save })
}

fn wait(
    plan: &mut Plan<RestoreRequestStatus>,
    request: &RestoreRequest,
    observed: &ObservedRestore,
    failure: Failure,
    now: Timestamp,
) {
    let until = match failure.reason {
        // It ends by itself.
        Reason::InProgress => {
            plan.check_at(after(now, scale::LOOK_SECONDS));
            refused::may_wait_until(request, None)
        }
        reason if reason.is_refusal() => refused::may_wait_until(request, None),
        Reason::NoMatchingBackup
        | Reason::InvalidConfiguration
        | Reason::StoreReadOnly
        | Reason::DataMissing
        | Reason::DataElsewhere => now,
        Reason::BackupNotFound => after(created(&request.metadata), BACKUP_GRACE_SECONDS),
        Reason::StoreNotReady => after(created(&request.metadata), store_grace(observed.store.as_deref())),
        _ => after(created(&request.metadata), GRACE_SECONDS),
    };
    let until = until.min(refused::may_wait_until(request, None));
    if until <= now {
        plan.status.start_time = Some(Time(now));
        return end(plan, request, Err((failure, None)), now, now);
    }
    plan.check_at(until);
    complete_is(plan, request, Some(false), failure.reason, &failure.message, now);
}

type Ended = Result<Option<Report>, (Failure, Option<Report>)>;

fn end(plan: &mut Plan<RestoreRequestStatus>, request: &RestoreRequest, result: Ended, at: Timestamp, now: Timestamp) {
    let (failure, report) = match result {
        Ok(report) => (None, report),
        Err((failure, report)) => (Some(failure), report),
    };
    let message = report.as_ref().map(|r| r.message.clone()).filter(|m| !m.is_empty());
    record(&mut plan.status, report, failure.as_ref());
    if request.spec.dry_run {
        forget_counts(&mut plan.status);
    }
    let status = &mut plan.status;
    let start = status.start_time.as_ref().map_or(at, |t| t.0);
    let at = at.max(start);
    status.completion_time = Some(Time(at));
    status.duration = Some(duration_text(start, at));
    let took = duration_text(start, at);
    plan.next_check = None;
    if let Some(failure) = failure {
        plan.status.phase = BackupPhase::Failed;
        let failure = if request.spec.dry_run && !failure.message.starts_with(DRY_RUN) {
            Failure::new(failure.reason, format!("{DRY_RUN}: {}", failure.message))
        } else {
            failure
        };
        plan.events.push(Event::warning(failure.reason, "Restore", failure.message.clone()));
        complete_is(plan, request, Some(false), failure.reason, &failure.message, now);
    } else {
        plan.status.phase = BackupPhase::Completed;
        let message = message.unwrap_or_else(|| match plan.status.items {
            _ if request.spec.dry_run => {
                format!("{DRY_RUN}: nothing was changed and nothing stands in the way; its Pod is gone, and with it what it found")
            }
            Some(items) => format!("{items} items restored in {took}"),
            None => format!("everything is restored, in {took}"),
        });
        let message = match &plan.status.safety_backup {
            Some(backup) => format!("{message}; what was there before is in Backup {backup}"),
            None => message,
        };
        plan.events.push(Event::normal(Reason::Completed, "Restore", message.clone()));
        complete_is(plan, request, Some(true), Reason::Completed, &message, now);
    }
}

/// A dry run restored nothing: no figure may look as if it had.
fn forget_counts(status: &mut RestoreRequestStatus) {
    status.items = None;
    for source in &mut status.sources {
        source.items = None;
        source.restored_bytes = None;
    }
}

fn under_way(request: &RestoreRequest) -> &'static str {
    if request.spec.dry_run { "a dry run is under way: nothing is changed" } else { "it is running" }
}

/// Takes down what the worker says of each source.
fn record(status: &mut RestoreRequestStatus, report: Option<Report>, failure: Option<&Failure>) {
    if let Some(Outcome::Restore(restored)) = report.and_then(|r| r.outcome) {
        if !restored.run_id.is_empty() {
            status.run_id = Some(restored.run_id);
        }
        for source in restored.sources {
            let completed = source.reason == Reason::Completed;
            let entry = RestoreSourceStatus {
                source: source.source,
                phase: if completed { BackupPhase::Completed } else { BackupPhase::Failed },
                reason: (!completed).then_some(source.reason),
                items: Some(source.items),
                restored_bytes: Some(source.restored_bytes),
                message: (!source.message.is_empty()).then_some(source.message),
            };
            status.sources.retain(|s| s.source != entry.source);
            status.sources.push(entry);
        }
        status.items = Some(status.sources.iter().filter_map(|s| s.items).fold(0, i64::saturating_add));
    }
    for source in status.sources.iter_mut().filter(|s| !s.phase.is_terminal()) {
        match failure {
            None => source.phase = BackupPhase::Completed,
            Some(failure) => {
                source.phase = BackupPhase::Failed;
                source.reason = Some(failure.reason);
                source.message = Some(failure.message.clone());
            }
        }
    }
}

fn complete_is(
    plan: &mut Plan<RestoreRequestStatus>,
    request: &RestoreRequest,
    status: Option<bool>,
    reason: Reason,
    message: &str,
    now: Timestamp,
) {
    let generation = request.metadata.generation;
    plan.status.observed_generation = generation;
    plan.status.conditions =
        with_condition(&plan.status.conditions, ConditionType::Complete, status, reason, message, generation, now);
}

#[cfg(test)]
mod tests;

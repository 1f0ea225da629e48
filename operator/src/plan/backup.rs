//! What to do about a Backup: one Job a source, then what their workers report. Completed and Failed never change again. Pure.

mod deletion;
mod ended;
mod put_back;
mod refused;
mod told;
mod verification;

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_crds::{
    ArtifactStatus, Backup, BackupPhase, BackupPolicy, BackupStatus, BackupStore, ConditionType, DeletionPolicy,
    JobTemplate, Reason, Source, is_true,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::{Action, Event, Plan, Target};
use super::found;
use super::job::{self, Ground, Install, Run};
use super::location;
use super::names::{FINALIZER, SLOT_ANNOTATION, run_id};
use super::observed::{Attempt, ObservedJob, created};
use super::restore::is_safety;
use super::status::{after, duration_text, find, reason_of, with_condition};
use super::turn::Wait;
use super::verdict::{Patience, Verdict, judge};
use crate::task::{Failure, Globs, Outcome, PROBE_SECONDS, Report};

pub use ended::{COMPLETED_JOB_SECONDS, FAILED_JOB_SECONDS, RETENTION_APPLIED};
pub use put_back::is_put_back;
pub use refused::{is_scheduled, refuse};

/// What a run needs may be this many seconds late: it waits as Pending, then it fails.
pub const GRACE_SECONDS: i64 = 60;
/// A store that is not ready, and is probed again, may take this long.
pub const PROBING_GRACE_SECONDS: i64 = 110;

/// Whose turn it is is looked at again after this many seconds, if nothing is heard before.
pub const TURN_SECONDS: i64 = 30;

/// What is known around a Backup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedBackup {
    /// Its policy.
    pub policy: Option<Arc<BackupPolicy>>,
    /// The store it went to, or its policy's.
    pub store: Option<Arc<BackupStore>>,
    /// The Jobs it owns, as the API server has them where one is missing from the cache.
    pub jobs: Vec<Attempt>,
    /// Why it is not its turn yet, if it is not. Only needed while it is Pending.
    pub turn: Option<Wait>,
    /// All Backups of its policy, itself among them. Only needed while it is Running or was refused, and once it is Completed and its
    /// policy has a retention.
    pub siblings: Vec<Arc<Backup>>,
    /// What restores hold on to. Only needed for retention.
    pub holds: Holds,
    /// Whether another run's retain Job of the policy, or a Job that reads its bucket, is not over, or its result not recorded. Only needed
    /// for retention.
    pub retention_waits: bool,
    /// What is known around the claims that its Jobs mount. Only needed while it is Pending.
    pub ground: Ground,
    /// Whether the namespace is going away: nothing can be created in it any more.
    pub namespace_terminating: bool,
}

/// Runs that restores and verifications which are not over read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// These.
    pub run_ids: Vec<String>,
    /// And it is not known yet which others.
    pub unknown: bool,
}

/// Decides about a Backup.
pub fn plan_backup(
    install: &Install,
    backup: &Backup,
    observed: &ObservedBackup,
    now: Timestamp,
) -> Plan<BackupStatus> {
    let before = backup.status.clone().unwrap_or_default();
    let mut plan = Plan::keep(before);
    if backup.metadata.deletion_timestamp.is_some() {
        deletion::delete(&mut plan, install, backup, observed, now);
        return plan;
    }
    if let Some(found) = found::read(backup) {
        found::record(&mut plan, backup, found, now);
        if plan.status.phase == BackupPhase::Completed {
            verification::follow(&mut plan, backup, observed, now);
            location::follow(&mut plan, backup, observed.store.as_deref(), now);
        }
        return plan;
    }
    let finalizers = backup.metadata.finalizers.clone().unwrap_or_default();
    if backup.spec.deletion_policy == DeletionPolicy::Delete && !finalizers.iter().any(|f| f == FINALIZER) {
        let finalizers = finalizers.into_iter().chain([FINALIZER.to_owned()]).collect();
        plan.actions.push(Action::SetFinalizers(Target::version(&backup.metadata), finalizers));
        return plan;
    }
    match plan.status.phase {
        BackupPhase::Pending if put_back::is_put_back(backup, observed.policy.as_deref()) => {
            put_back::look(&mut plan, backup, observed, now);
        }
        BackupPhase::Pending => start(&mut plan, install, backup, observed, now),
        BackupPhase::Running => follow(&mut plan, backup, observed, now),
        BackupPhase::Completed | BackupPhase::Failed => {
            location::follow(&mut plan, backup, observed.store.as_deref(), now);
            ended::tidy(&mut plan, install, backup, observed, now);
        }
    }
    plan
}

/// The instant a Backup stands for: its slot, or when it was made by hand.
pub fn slot_of(backup: &Backup) -> Timestamp {
    let slot = backup.metadata.annotations.as_ref().and_then(|a| a.get(SLOT_ANNOTATION));
    slot.and_then(|s| s.parse().ok()).unwrap_or_else(|| created(&backup.metadata))
}

/// Whether a policy can run with this store, and if not why.
///
/// # Errors
/// The reason, in the store's own words where it has some.
pub fn usable<'a>(name: &str, store: Option<&'a BackupStore>) -> Result<&'a BackupStore, Failure> {
    let store = store.ok_or_else(|| not_there(name))?;
    if store.spec.read_only {
        return Err(Failure::new(
            Reason::StoreReadOnly,
            format!(
                "BackupStore {name} is read-only, so no backup can go there: name another in spec.storeRef, or set readOnly: false"
            ),
        ));
    }
    reachable(name, store)
}

/// There is no store of this name.
pub fn not_there(name: &str) -> Failure {
    Failure::new(Reason::StoreNotFound, format!("BackupStore {name} is not there: create it in this namespace"))
}

/// There is no policy of this name.
fn no_policy(name: &str) -> Failure {
    Failure::new(Reason::PolicyNotFound, format!("BackupPolicy {name} is not there: create it in this namespace"))
}

/// Whether a store has been proved, and if not why.
///
/// # Errors
/// The reason, in the store's own words where it has some.
pub fn reachable<'a>(name: &str, store: &'a BackupStore) -> Result<&'a BackupStore, Failure> {
    let conditions = store.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let ready = find(conditions, ConditionType::Ready);
    if is_true(conditions, ConditionType::Ready)
        && ready.is_some_and(|c| c.observed_generation == store.metadata.generation)
    {
        return Ok(store);
    }
    let Some(ready) = ready.filter(|c| c.status == "False") else {
        let said = ready.map(|c| format!(": {}", c.message)).unwrap_or_default();
        return Err(Failure::new(Reason::StoreNotReady, format!("BackupStore {name} is being proved{said}")));
    };
    let reason = match reason_of(ready) {
        Some(Reason::BucketNotFound | Reason::CredentialsRejected | Reason::StoreRefused) => Reason::StoreRefused,
        Some(Reason::Unreachable) => Reason::StoreUnreachable,
        Some(reason @ (Reason::ClockSkew | Reason::SecretNotFound | Reason::ConfigMapNotFound)) => reason,
        Some(reason) if reason.is_refusal() => reason,
        _ => Reason::StoreNotReady,
    };
    Err(Failure::new(reason, format!("BackupStore {name} is not ready ({}): {}", ready.reason, ready.message)))
}

/// For how many seconds a store that is not ready is waited for. While it is being proved for the first time its probe may wait for a node.
pub fn store_grace(store: Option<&BackupStore>) -> i64 {
    let conditions = store.and_then(|s| s.status.as_ref()).map(|s| s.conditions.as_slice()).unwrap_or_default();
    let found_wanting = find(conditions, ConditionType::Ready).is_some_and(|c| c.status == "False");
    if found_wanting {
        return PROBING_GRACE_SECONDS;
    }
    JobTemplate::START_DEADLINE_SECONDS.saturating_add(PROBE_SECONDS).saturating_add(GRACE_SECONDS)
}

fn start(plan: &mut Plan<BackupStatus>, install: &Install, backup: &Backup, observed: &ObservedBackup, now: Timestamp) {
    if refused::is_over(plan, backup, observed, now) {
        return;
    }
    let (policy, store, sources) = match resolve(backup, observed) {
        Ok(found) => found,
        Err(failure) => return wait(plan, backup, observed, &failure, now),
    };
    if let Some(Wait { position, why }) = &observed.turn {
        plan.status.queue_position = Some(*position);
        plan.check_at(after(now, TURN_SECONDS));
        if crate::plan::refused::refused(&plan.status).is_some() {
            // What was refused stays said: by it the others in the queue know that this one holds up nobody.
            return;
        }
        return complete_is(plan, backup, None, Reason::Queued, &format!("it waits for its turn: {why}"), now);
    }
    let uid = backup.metadata.uid.as_deref().unwrap_or_default();
    let slot = slot_of(backup);
    let run_id = run_id(slot, uid);
    let names: Vec<String> = sources.iter().map(|s| s.name.clone()).collect();
    let run = Run { backup, policy, store, run_id: &run_id, slot, begun: now, sources: &names };
    let jobs = sources.iter().map(|source| job::backup(install, run, source, &observed.ground));
    plan.actions.extend(jobs.map(|job| Action::CreateJob(Box::new(job))));
    plan.events.push(Event::normal("Started", "Backup", format!("run {run_id} of {} started", names.join(", "))));
    plan.status.phase = BackupPhase::Running;
    plan.status.queue_position = None;
    plan.status.store.clone_from(&store.metadata.name);
    plan.status.location = Some(store.spec.s3.place());
    plan.status.start_time = Some(Time(now));
    plan.status.run_id = Some(run_id);
    plan.status.artifacts = names
        .into_iter()
        .map(|source| ArtifactStatus { source, phase: BackupPhase::Running, ..ArtifactStatus::default() })
        .collect();
    complete_is(plan, backup, None, Reason::InProgress, "it is running", now);
}

type Resolved<'a> = (&'a BackupPolicy, &'a BackupStore, Vec<&'a Source>);

fn resolve<'a>(backup: &Backup, observed: &'a ObservedBackup) -> Result<Resolved<'a>, Failure> {
    let name = &backup.spec.policy_ref.name;
    let policy = observed.policy.as_deref().ok_or_else(|| no_policy(name))?;
    let wanted = backup.spec.sources.as_deref();
    let names = || policy.spec.sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = wanted.into_iter().flatten().find(|w| policy.spec.sources.iter().all(|s| s.name != **w)) {
        let message = format!("BackupPolicy {name} has no source {unknown}; it has {}", names());
        return Err(Failure::new(Reason::InvalidConfiguration, message));
    }
    let sources: Vec<&Source> =
        policy.spec.sources.iter().filter(|s| wanted.is_none_or(|w| w.contains(&s.name))).collect();
    if let Some(source) = sources.iter().find(|s| s.engine().is_none()) {
        let message = format!("source {} of BackupPolicy {name} names no engine that this version knows", source.name);
        return Err(Failure::new(Reason::InvalidConfiguration, message));
    }
    let store = usable(&policy.spec.store_ref.name, observed.store.as_deref())?;
    sources.iter().try_for_each(|source| readable(source).and_then(|()| kept_secret(source, store)))?;
    Ok((policy, store, sources))
}

/// Whether the globs of a source can be read: what admission cannot see of them a worker would find out at night.
///
/// # Errors
/// [`Reason::InvalidConfiguration`], with source, field and glob.
pub fn readable(source: &Source) -> Result<(), Failure> {
    let Some(volume) = &source.volume else { return Ok(()) };
    for (field, globs) in [("include", &volume.include), ("exclude", &volume.exclude)] {
        Globs::check(field, globs)
            .map_err(|f| Failure::new(f.reason, format!("source {}: volume.{}", source.name, f.message)))?;
    }
    Ok(())
}

/// Whether what a source holds may go to a store: Secrets and hashes of passwords only where they are encrypted, or where the policy says
/// that it knows.
///
/// # Errors
/// [`Reason::InvalidConfiguration`], with what to write.
pub fn kept_secret(source: &Source, store: &BackupStore) -> Result<(), Failure> {
    if store.spec.encryption.is_some() {
        return Ok(());
    }
    let config = source.config.as_ref().filter(|c| !c.secrets.is_empty() && !c.allow_unencrypted);
    let mongodb = source.mongodb.as_ref().filter(|m| m.include_users_and_roles && !m.allow_unencrypted);
    let (what, instead) = match (config, mongodb) {
        (Some(config), _) => (
            format!("could read the Secrets {}", config.secrets.join(", ")),
            "leave them out, or set config.allowUnencrypted: true",
        ),
        (_, Some(_)) => (
            "could read hashes of passwords".to_owned(),
            "leave out mongodb.includeUsersAndRoles, or set mongodb.allowUnencrypted: true",
        ),
        (None, None) => return Ok(()),
    };
    let store = store.metadata.name.as_deref().unwrap_or_default();
    let message = format!(
        "source {}: BackupStore {store} does not encrypt, so whoever reads the bucket {what}: {instead}",
        source.name
    );
    Err(Failure::new(Reason::InvalidConfiguration, message))
}

/// The names of the claims that a Backup reads, to be looked up.
pub fn claims(backup: &Backup, policy: &BackupPolicy) -> BTreeSet<String> {
    let wanted = |source: &&Source| backup.spec.sources.as_ref().is_none_or(|names| names.contains(&source.name));
    let volumes = policy.spec.sources.iter().filter(wanted).filter_map(|source| source.volume.as_ref());
    volumes.map(|volume| volume.claim_name.clone()).collect()
}

fn wait(plan: &mut Plan<BackupStatus>, backup: &Backup, observed: &ObservedBackup, failure: &Failure, now: Timestamp) {
    plan.status.queue_position = None;
    let until = match failure.reason {
        // What proves its store is refused: it is in the same case.
        reason if reason.is_refusal() => refused::may_wait_until(backup, observed.policy.as_deref()),
        Reason::StoreNotReady => after(created(&backup.metadata), store_grace(observed.store.as_deref())),
        _ => after(created(&backup.metadata), GRACE_SECONDS),
    };
    let parked = parked_until(backup, observed, failure);
    let until = parked.map_or(until, |parked| parked.max(until));
    if now < until {
        plan.check_at(until);
        let message = match parked {
            Some(parked) => format!("{}; it runs as soon as the store is back, until {parked}", failure.message),
            None => failure.message.clone(),
        };
        complete_is(plan, backup, Some(false), failure.reason, &message, now);
        return;
    }
    plan.status.start_time = Some(Time(now));
    end(plan, backup, observed, Err(failure.clone()), now, now);
}

/// A run of the schedule whose store is down waits for it for as long as its slot may be late: a store that is away for an hour costs
/// nobody a backup. Whoever asks for one by hand wants to hear of it.
fn parked_until(backup: &Backup, observed: &ObservedBackup, failure: &Failure) -> Option<Timestamp> {
    let scheduled = refused::is_scheduled(backup);
    let down = matches!(failure.reason, Reason::StoreUnreachable | Reason::StoreNotReady);
    let policy = observed.policy.as_deref().filter(|_| scheduled && down)?;
    Some(after(slot_of(backup), policy.spec.starting_deadline_seconds))
}

fn follow(plan: &mut Plan<BackupStatus>, backup: &Backup, observed: &ObservedBackup, now: Timestamp) {
    let mut waits: Option<Failure> = None;
    let mut before = None;
    let mut artifacts = std::mem::take(&mut plan.status.artifacts);
    for artifact in artifacts.iter_mut().filter(|a| !a.phase.is_terminal()) {
        let name = job::backup_name(backup, &artifact.source);
        let attempt = observed.jobs.iter().find(|a| a.job.name == name);
        let Some(attempt) = attempt.filter(|a| a.ended_at().is_some() || !a.job.deleting) else {
            let message = format!("Job {name} is gone and left no result: was it deleted?");
            fail(artifact, &Failure::new(Reason::JobVanished, message));
            continue;
        };
        match judge(attempt, Reason::DumpFailed, Patience::RUN, now) {
            Verdict::Running => {}
            Verdict::Waiting { why, check_at } => {
                plan.check_at(check_at);
                let source = &artifact.source;
                waits = waits.or(why.map(|w| Failure::new(w.reason, format!("source {source} waits: {}", w.message))));
            }
            Verdict::Completed(report) => before = complete(artifact, report).or(before),
            Verdict::Failed(failure, _) => fail(artifact, &failure),
        }
    }
    plan.status.artifacts = artifacts;
    if before.is_some() {
        plan.status.run_id = before;
    }
    stop_decided(plan, backup, observed, now);
    if plan.status.artifacts.iter().all(|a| a.phase.is_terminal()) {
        let ended = observed.jobs.iter().filter_map(Attempt::ended_at).max();
        let has_ended = |name: &str| observed.jobs.iter().any(|a| a.job.name == name && a.ended_at().is_some());
        let given_up = plan
            .status
            .artifacts
            .iter()
            .any(|a| a.reason.is_some() && !has_ended(&job::backup_name(backup, &a.source)));
        let ended = if given_up { now } else { ended.unwrap_or(now) };
        let result = plan.status.artifacts.iter().find(|a| a.phase == BackupPhase::Failed).map_or(Ok(()), |a| {
            let message = a.message.clone().unwrap_or_default();
            let reason = a.reason.unwrap_or(Reason::DumpFailed);
            Err(Failure::new(reason, format!("source {}: {message}", a.source)))
        });
        end(plan, backup, observed, result, ended, now);
        if plan.status.phase == BackupPhase::Completed {
            told::consistent_is(plan, backup, now);
            told::plausible_is(plan, backup, observed, now);
        }
        return;
    }
    match waits {
        Some(why) => complete_is(plan, backup, None, why.reason, &why.message, now),
        None => complete_is(plan, backup, None, Reason::InProgress, "it is running", now),
    }
}

/// Ends Jobs that are still there although what became of their source is *written* down: a Pod must not start later, and one that another
/// container keeps must not go on for ever.
fn stop_decided(plan: &mut Plan<BackupStatus>, backup: &Backup, observed: &ObservedBackup, now: Timestamp) {
    let Some(written) = &backup.status else { return };
    let ended = written.artifacts.iter().filter(|a| a.phase.is_terminal());
    let decided: Vec<String> = ended.map(|a| job::backup_name(backup, &a.source)).collect();
    // One that was refused as a whole may have Jobs that it does not list.
    let is_decided =
        |job: &ObservedJob| decided.contains(&job.name) || (written.phase.is_terminal() && job.task == "backup");
    for attempt in observed.jobs.iter().filter(|a| is_decided(&a.job)) {
        plan.stop(attempt, now);
    }
}

/// Returns the run that the source was stored in before, where that is another one.
fn complete(artifact: &mut ArtifactStatus, report: Option<Report>) -> Option<String> {
    artifact.phase = BackupPhase::Completed;
    let mut before = None;
    if let Some(Outcome::Backup(stored)) = report.and_then(|r| r.outcome) {
        before = stored.run_id;
        let text = |text: String| (!text.is_empty()).then_some(text);
        artifact.key = text(stored.key);
        artifact.stored_bytes = Some(stored.stored_bytes);
        artifact.source_bytes = Some(stored.source_bytes);
        artifact.sha256 = text(stored.sha256);
        artifact.items = Some(stored.items);
        artifact.server_version = text(stored.server_version);
        artifact.tool_version = text(stored.tool_version);
        artifact.encrypted = Some(stored.encrypted);
        artifact.consistency = text(stored.consistency);
    }
    before
}

fn fail(artifact: &mut ArtifactStatus, failure: &Failure) {
    artifact.phase = BackupPhase::Failed;
    artifact.reason = Some(failure.reason);
    artifact.message = Some(failure.message.clone());
}

fn end(
    plan: &mut Plan<BackupStatus>,
    backup: &Backup,
    observed: &ObservedBackup,
    result: Result<(), Failure>,
    at: Timestamp,
    now: Timestamp,
) {
    let sum = |of: fn(&ArtifactStatus) -> Option<i64>| {
        let known: Vec<i64> = plan.status.artifacts.iter().filter_map(of).collect();
        (!known.is_empty()).then(|| known.iter().fold(0i64, |sum, n| sum.saturating_add(*n)))
    };
    let (stored, from_source, items) = (sum(|a| a.stored_bytes), sum(|a| a.source_bytes), sum(|a| a.items));
    let status = &mut plan.status;
    let start = status.start_time.as_ref().map_or(at, |t| t.0);
    let at = at.max(start);
    status.stored_bytes = stored;
    status.source_bytes = from_source;
    status.items = items;
    status.completion_time = Some(Time(at));
    status.duration = Some(duration_text(start, at));
    plan.next_check = None;
    match result {
        Ok(()) => {
            plan.status.phase = BackupPhase::Completed;
            let took = plan.status.duration.clone().unwrap_or_default();
            let message = match plan.status.stored_bytes {
                Some(bytes) => format!("{} items, {bytes} bytes stored in {took}", plan.status.items.unwrap_or(0)),
                None => format!("everything is stored, in {took}"),
            };
            plan.events.push(Event::normal(Reason::Completed, "Backup", message.clone()));
            complete_is(plan, backup, Some(true), Reason::Completed, &message, now);
        }
        Err(failure) => {
            plan.status.phase = BackupPhase::Failed;
            plan.events.push(Event::warning(failure.reason, "Backup", failure.message.clone()));
            // Whoever looks after a policy looks at the policy. What a restore saves first is told by the restore.
            if let Some(policy) = observed.policy.as_deref().filter(|_| !is_safety(backup)) {
                let name = backup.metadata.name.as_deref().unwrap_or_default();
                let note = format!("Backup {name} failed: {}", failure.message);
                plan.events
                    .push(Event::warning(failure.reason, "Backup", note).about(Target::object(&policy.metadata)));
            }
            complete_is(plan, backup, Some(false), failure.reason, &failure.message, now);
        }
    }
}

fn complete_is(
    plan: &mut Plan<BackupStatus>,
    backup: &Backup,
    status: Option<bool>,
    reason: Reason,
    message: &str,
    now: Timestamp,
) {
    let generation = backup.metadata.generation;
    plan.status.observed_generation = generation;
    plan.status.conditions =
        with_condition(&plan.status.conditions, ConditionType::Complete, status, reason, message, generation, now);
}

#[cfg(test)]
mod tests;

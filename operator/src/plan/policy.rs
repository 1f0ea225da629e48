//! What to do about a BackupPolicy: start a run when a slot is due, say how its backups are, and let old failures go. Pure.

mod catch_up;
mod protection;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_crds::{
    Backup, BackupCounts, BackupPhase, BackupPolicy, BackupPolicyStatus, BackupSpec, BackupStatus, BackupStore,
    ConditionType, DeletionPolicy, LastBackup, LocalRef, Reason,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};

use super::action::{Action, Event, Plan, Target};
use super::backup::{RETENTION_APPLIED, is_put_back, is_scheduled, kept_secret, readable, slot_of, usable};
use super::found::{is_foreign, is_found};
use super::location::{is_elsewhere, is_missing, is_there};
use super::names::{
    MANAGED_BY, MANAGED_BY_LABEL, POLICY_LABEL, SCHEDULED_LABEL, SLOT_ANNOTATION, label_value, scheduled_backup_name,
};
use super::observed::{Attempt, ObservedJob, created};
use super::refused::{PolicyRefusals, as_refusal, refused, say};
use super::restore::is_safety;
use super::schedule::{Schedule, SoFar, due};
use super::status::{after, find, reason_of, with_condition};
use super::trial;
use super::verdict::{Patience, judge};
use crate::task::Failure;

pub use protection::is_of_all_sources;

/// This many failed scheduled Backups of a policy are kept, the newest.
pub const FAILED_KEPT: usize = 10;

/// What is known around a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedPolicy {
    /// Its store.
    pub store: Option<Arc<BackupStore>>,
    /// Its Backups.
    pub backups: Vec<Arc<Backup>>,
    /// The retain Jobs after its runs.
    pub retains: Vec<Attempt>,
    /// The Jobs that read what the bucket holds of it.
    pub catalogues: Vec<Attempt>,
    /// Whether it is not its turn yet to have the bucket read, or that was done and the cache has not heard of it. Only needed where the
    /// cache has it that it is still to be done.
    pub catalogue_waits: bool,
    /// When those began to ask that choose among its Backups, and want to know first whether the bucket holds others.
    pub asking: Vec<Timestamp>,
    /// The Jobs that verify its Backups.
    pub verifications: Vec<ObservedJob>,
    /// The stores that its Backups went to, by name.
    pub stores: BTreeMap<String, Arc<BackupStore>>,
    /// Why there is no room for the verification that [`wants_room`](super::verify::wants_room), if there is none. Only needed where one
    /// does: to find it out is to look at everything that is under way.
    pub crowded: Option<String>,
    /// Why the API server would refuse the Jobs of a run, if it would.
    pub trial: Option<Failure>,
    /// What the API server refused at this very attempt.
    pub refused: PolicyRefusals,
}

/// Decides about a policy.
pub fn plan_policy(policy: &BackupPolicy, observed: &ObservedPolicy, now: Timestamp) -> Plan<BackupPolicyStatus> {
    let before = policy.status.clone().unwrap_or_default();
    let mut plan = Plan::keep(before);
    if policy.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let schedule =
        Schedule::of(&policy.spec, &seed(policy)).map_err(|error| Failure::new(error.reason(), error.to_string()));
    let store = usable(&policy.spec.store_ref.name, observed.store.as_deref());
    let backups = Backups::of(observed, policy);

    match &schedule {
        Ok(schedule) => {
            let can_run = store.is_ok() && observed.refused.backup.is_none();
            slots(&mut plan, policy, schedule.as_ref(), can_run, &backups, now);
            if let Ok(store) = &store
                && plan.actions.is_empty()
                && !policy.spec.suspend
            {
                catch_up::plan(&mut plan, policy, store, &backups, now);
            }
        }
        Err(_) => plan.status.next_scheduled_time = None,
    }
    summary(&mut plan, policy, &backups, now);
    retention(&mut plan, policy, observed, now);
    let secrets = store
        .as_ref()
        .ok()
        .and_then(|store| policy.spec.sources.iter().find_map(|source| kept_secret(source, store).err()));
    let verify = super::verify::schedule_of(policy).err();
    let globs = policy.spec.sources.iter().find_map(|source| readable(source).err());
    if observed.trial.is_some() {
        plan.check_at(after(now, trial::AGAIN_SECONDS));
    }
    let spec = schedule.err().or(verify).or(globs).or_else(|| observed.trial.clone());
    let PolicyRefusals { backup, catalogue, .. } = observed.refused.clone();
    let obstacle = spec.or_else(|| store.err()).or(secrets);
    let obstacle = obstacle.or(backup).or_else(|| backups.trouble()).or(catalogue);
    ready(&mut plan, policy, obstacle.as_ref(), now);
    protection::protected(&mut plan, policy, &backups, obstacle.as_ref(), now);
    plan.actions.extend(backups.old_failures());
    plan.status.observed_generation = policy.metadata.generation;
    plan
}

/// The seed of a policy's `H`: the same for ever, and different for each policy.
pub fn seed(policy: &BackupPolicy) -> String {
    let meta = &policy.metadata;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}/{}", part(&meta.namespace), part(&meta.name), part(&meta.uid))
}

fn slots(
    plan: &mut Plan<BackupPolicyStatus>,
    policy: &BackupPolicy,
    schedule: Option<&Schedule>,
    can_run: bool,
    backups: &Backups<'_>,
    now: Timestamp,
) {
    let so_far = SoFar {
        created: created(&policy.metadata),
        cursor: plan.status.last_scheduled_time.as_ref().map(|t| t.0),
        in_force: plan.status.schedule.clone(),
        edited: None,
    };
    let due = due(&policy.spec, schedule, &so_far, now);
    plan.status.schedule = Some(due.in_force.clone());
    let mut cursor = due.cursor;
    let mut decided = due.run.is_some() || due.missed.is_some();
    if let Some(slot) = due.run {
        let name = scheduled_backup_name(policy.metadata.name.as_deref().unwrap_or_default(), slot);
        if backups.has(&name) {
            // It was made, and the cursor could not be written.
        } else if let Some(running) = backups.running() {
            let note = format!("skipped the slot of {slot}: {running} is not over yet");
            plan.events.push(Event::warning(Reason::PreviousRunning, "Schedule", note));
        } else if let Some(waiting) = backups.waiting() {
            let note = format!("skipped the slot of {slot}: {waiting} has not started yet, and makes up for it");
            plan.events.push(Event::normal("MissedSlots", "Schedule", note));
        } else if can_run {
            plan.actions.push(Action::CreateBackup(Box::new(scheduled(policy, name, slot))));
        } else {
            // It stays due for as long as its deadline lasts.
            cursor = due.cursor_without_run;
            decided = false;
            plan.check_at(after(slot, policy.spec.starting_deadline_seconds + 1));
        }
    }
    if decided {
        plan.events.extend(due.missed.map(|missed| Event::warning("MissedSlots", "Schedule", missed.to_string())));
    }
    // A suspended policy lets slots pass: its cursor need not follow, resuming counts from then. An earlier cursor takes the place of
    // one that was written under a wrong clock, or no slot would come until that day.
    let moves = so_far.cursor.map_or(cursor > so_far.created, |before| before != cursor);
    if decided || (!policy.spec.suspend && moves) {
        plan.status.last_scheduled_time = Some(Time(cursor));
    }
    plan.status.next_scheduled_time = due.next.map(Time);
    if let Some(next) = due.next {
        plan.check_at(next);
    }
}

fn scheduled(policy: &BackupPolicy, name: String, slot: Timestamp) -> Backup {
    let policy_name = policy.metadata.name.clone().unwrap_or_default();
    Backup {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: policy.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([
                (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
                (POLICY_LABEL.to_owned(), label_value(&policy_name)),
                (SCHEDULED_LABEL.to_owned(), "true".to_owned()),
            ])),
            annotations: Some(BTreeMap::from([(SLOT_ANNOTATION.to_owned(), slot.to_string())])),
            // No owner: a restore point outlives the policy that made it.
            ..ObjectMeta::default()
        },
        spec: BackupSpec {
            policy_ref: LocalRef { name: policy_name },
            sources: None,
            deletion_policy: DeletionPolicy::Retain,
        },
        status: None,
    }
}

fn summary(plan: &mut Plan<BackupPolicyStatus>, policy: &BackupPolicy, backups: &Backups<'_>, now: Timestamp) {
    let count = |phase| i32::try_from(backups.all.iter().filter(|b| b.phase == phase).count()).unwrap_or(i32::MAX);
    let completed = || backups.all.iter().filter(|b| is_there(&b.status));
    let lacking = |is: fn(&BackupStatus) -> bool| {
        i32::try_from(backups.all.iter().filter(|b| is(&b.status)).count()).unwrap_or(i32::MAX)
    };
    let status = &mut plan.status;
    status.backups = Some(BackupCounts {
        complete: i32::try_from(completed().count()).unwrap_or(i32::MAX),
        failed: count(BackupPhase::Failed),
        missing: lacking(is_missing),
        elsewhere: lacking(is_elsewhere),
    });
    status.stored_bytes = Some(completed().filter_map(|b| b.status.stored_bytes).fold(0i64, i64::saturating_add));
    status.last_backup = backups
        .all
        .iter()
        .find(|b| !is_safety(b.backup))
        .map(|b| LastBackup { name: b.name.to_owned(), phase: b.phase });
    let newest_success = completed()
        .filter(|b| !is_safety(b.backup))
        .filter_map(|b| b.status.completion_time.as_ref())
        .map(|t| t.0)
        .max();
    let known = status.last_successful_time.as_ref().map(|t| t.0);
    status.last_successful_time = newest_success.max(known).map(Time);
    let ended = backups.ended();
    let failures = ended.iter().take_while(|b| b.phase == BackupPhase::Failed).count();
    status.consecutive_failures = Some(i32::try_from(failures).unwrap_or(i32::MAX));
    protection::sum_up(status, policy, backups);

    plausible(&mut status.conditions, &ended, policy, now);

    let (value, reason, message) = match ended.first() {
        Some(last) if is_missing(&last.status) => (Some(false), Reason::DataMissing, last.failure().message),
        Some(last) if last.phase == BackupPhase::Completed => {
            (Some(true), Reason::Completed, format!("{} is complete", last.name))
        }
        Some(last) => {
            let failure = last.failure();
            (Some(false), failure.reason, format!("{} failed: {}", last.name, failure.message))
        }
        None if find(&status.conditions, ConditionType::LastBackupSucceeded).is_some() => return,
        None => (None, Reason::NoBackupYet, "no run has ended yet".to_owned()),
    };
    status.conditions = with_condition(
        &status.conditions,
        ConditionType::LastBackupSucceeded,
        value,
        reason,
        message,
        policy.metadata.generation,
        now,
    );
}

/// What the newest complete backup says of its own size.
fn plausible(conditions: &mut Vec<Condition>, ended: &[&Entry<'_>], policy: &BackupPolicy, now: Timestamp) {
    let newest = ended.iter().find(|b| is_there(&b.status));
    let told = newest.and_then(|b| Some((b.name, find(&b.status.conditions, ConditionType::Plausible)?)));
    let Some((name, said)) = told else {
        return conditions.retain(|c| c.type_ != ConditionType::Plausible.as_str());
    };
    let reason = reason_of(said).unwrap_or(Reason::Suspicious);
    let (value, message) = (said.status == "True", format!("{name}: {}", said.message));
    let generation = policy.metadata.generation;
    *conditions = with_condition(conditions, ConditionType::Plausible, Some(value), reason, message, generation, now);
}

fn retention(plan: &mut Plan<BackupPolicyStatus>, policy: &BackupPolicy, observed: &ObservedPolicy, now: Timestamp) {
    if policy.spec.retention.is_none() {
        plan.status.conditions.retain(|c| c.type_ != ConditionType::RetentionApplied.as_str());
        return;
    }
    if let Some(store) = observed.store.as_deref().filter(|store| store.spec.append_only) {
        return retention_is_off(plan, policy, store, now);
    }
    let is_off = |c: &Condition| {
        c.type_ == ConditionType::RetentionApplied.as_str() && reason_of(c) == Some(Reason::StoreAppendOnly)
    };
    plan.status.conditions.retain(|c| !is_off(c));
    if refused_retention(plan, policy, observed, now) {
        return;
    }
    let ended = observed.retains.iter().filter_map(|a| a.ended_at().map(|at| (at, a)));
    let Some((_, last)) = ended.max_by_key(|(at, a)| (*at, a.job.name.clone())) else { return };
    let verdict = judge(last, Reason::StoreUnreachable, Patience::RUN, now);
    let Some((value, reason, message)) = verdict.into_condition(RETENTION_APPLIED) else { return };
    let conditions = &mut plan.status.conditions;
    let before = find(conditions, ConditionType::RetentionApplied);
    if !value && before.is_none_or(|b| b.message != message) {
        plan.events.push(Event::warning(reason, "Retain", format!("retention was not applied: {message}")));
    }
    let generation = policy.metadata.generation;
    *conditions =
        with_condition(conditions, ConditionType::RetentionApplied, Some(value), reason, message, generation, now);
}

/// Says that nothing is deleted, whatever the policy's rules are.
fn retention_is_off(plan: &mut Plan<BackupPolicyStatus>, policy: &BackupPolicy, store: &BackupStore, now: Timestamp) {
    let message = format!(
        "retention is off: BackupStore {} is append-only (spec.appendOnly), so nothing is deleted from it; remove spec.retention, and let a lifecycle rule of the bucket delete what is old",
        store.metadata.name.as_deref().unwrap_or_default()
    );
    let failure = Failure::new(Reason::StoreAppendOnly, message);
    let conditions = &mut plan.status.conditions;
    let generation = policy.metadata.generation;
    if say(conditions, ConditionType::RetentionApplied, Some(false), &failure, generation, now) {
        plan.events.push(Event::warning(failure.reason, "Retain", failure.message));
    }
}

/// Whether retention could not even start after the newest complete run, as that one says; then the policy says so too.
fn refused_retention(
    plan: &mut Plan<BackupPolicyStatus>,
    policy: &BackupPolicy,
    observed: &ObservedPolicy,
    now: Timestamp,
) -> bool {
    let complete = observed.backups.iter().filter(|b| !is_found(b));
    let complete = complete.filter_map(|b| b.status.as_ref()).filter(|s| s.phase == BackupPhase::Completed);
    let newest = complete.max_by_key(|s| s.completion_time.as_ref().map(|t| t.0));
    let said = newest.and_then(|s| find(&s.conditions, ConditionType::RetentionApplied)).and_then(as_refusal);
    let Some(failure) = said else { return false };
    let generation = policy.metadata.generation;
    let conditions = &mut plan.status.conditions;
    if say(conditions, ConditionType::RetentionApplied, Some(false), &failure, generation, now) {
        let note = format!("retention was not applied: {}", failure.message);
        plan.events.push(Event::warning(failure.reason, "Retain", note));
    }
    true
}

/// Says what keeps the controller from looking at a policy, or from writing for it.
pub fn refuse(policy: &BackupPolicy, failure: &Failure, now: Timestamp) -> Plan<BackupPolicyStatus> {
    let mut plan = Plan::keep(policy.status.clone().unwrap_or_default());
    if policy.metadata.deletion_timestamp.is_none() {
        ready(&mut plan, policy, Some(failure), now);
    }
    plan
}

fn ready(plan: &mut Plan<BackupPolicyStatus>, policy: &BackupPolicy, obstacle: Option<&Failure>, now: Timestamp) {
    if let Some(failure) = obstacle.filter(|failure| failure.reason.is_refusal()) {
        let generation = policy.metadata.generation;
        if say(&mut plan.status.conditions, ConditionType::Ready, Some(false), failure, generation, now) {
            plan.events.push(Event::warning(failure.reason, "Validate", failure.message.clone()));
        }
        return;
    }
    let before = find(&plan.status.conditions, ConditionType::Ready).cloned();
    let (value, reason, message) = match obstacle {
        Some(failure) => (false, failure.reason, failure.message.clone()),
        None if policy.spec.suspend => (true, Reason::Suspended, "suspended: only backups made by hand run".to_owned()),
        None => (true, Reason::Ready, "it can run".to_owned()),
    };
    let is_new = before.is_none_or(|b| b.reason != reason.to_string() || (b.status == "True") != value);
    // A store that is being proved is nothing to look at yet.
    if is_new && reason != Reason::StoreNotReady {
        plan.events.push(if value {
            Event::normal(reason, "Validate", message.clone())
        } else {
            Event::warning(reason, "Validate", message.clone())
        });
    }
    plan.status.conditions = with_condition(
        &plan.status.conditions,
        ConditionType::Ready,
        Some(value),
        reason,
        message,
        policy.metadata.generation,
        now,
    );
}

/// The Backups of a policy, newest slot first.
struct Backups<'a> {
    policy: Option<&'a BackupPolicy>,
    all: Vec<Entry<'a>>,
}

struct Entry<'a> {
    name: &'a str,
    backup: &'a Backup,
    status: BackupStatus,
    phase: BackupPhase,
    slot: Timestamp,
}

impl<'a> Backups<'a> {
    fn of(observed: &'a ObservedPolicy, policy: &'a BackupPolicy) -> Self {
        // What another cluster stored protects nobody here: it may be of another database, and that cluster may delete it at any time.
        let own = observed.backups.iter().filter(|backup| !is_foreign(backup));
        let mut all: Vec<Entry<'a>> = own
            .map(|backup| {
                let status = backup.status.clone().unwrap_or_default();
                let name = backup.metadata.name.as_deref().unwrap_or_default();
                Entry { name, phase: status.phase, status, slot: slot_of(backup), backup }
            })
            .collect();
        all.sort_by_key(|b| Reverse((b.slot, b.name)));
        Self { policy: Some(policy), all }
    }

    fn has(&self, name: &str) -> bool {
        self.all.iter().any(|b| b.name == name)
    }

    /// Those that are not over. One that was found in the bucket is over before its status says so, and of one that is being deleted
    /// nothing more comes.
    fn open(&self) -> impl Iterator<Item = &Entry<'a>> {
        let never_runs = |b: &Entry<'_>| is_found(b.backup) || is_put_back(b.backup, self.policy);
        let open = self.all.iter().filter(move |b| !b.phase.is_terminal() && !never_runs(b));
        open.filter(|b| b.backup.metadata.deletion_timestamp.is_none())
    }

    fn not_over(&self) -> Option<&'a str> {
        self.open().next().map(|b| b.name)
    }

    /// One that has a Job.
    fn running(&self) -> Option<&'a str> {
        self.open().find(|b| b.has_started()).map(|b| b.name)
    }

    /// One of the schedule that waits for its turn or for its store: when it starts it saves what a later slot would have. One that the
    /// API server refuses does not stand for later slots: each of them says what became of it.
    fn waiting(&self) -> Option<&'a str> {
        let waits = |b: &&Entry<'_>| !b.has_started() && refused(&b.status).is_none();
        self.open().filter(waits).find(|b| is_scheduled(b.backup)).map(|b| b.name)
    }

    /// The policy's own runs that are over, the last to end first. What a restore saved before it replaced it says nothing of them.
    fn ended(&self) -> Vec<&Entry<'a>> {
        // What came back without its status and was not to be found never ran.
        let is_run = |b: &&Entry<'_>| {
            !is_safety(b.backup) && (b.phase != BackupPhase::Failed || b.failure().reason != Reason::SlotPassed)
        };
        let mut ended: Vec<_> = self.all.iter().filter(|b| b.phase.is_terminal()).filter(is_run).collect();
        ended.sort_by_key(|b| Reverse((b.status.completion_time.as_ref().map(|t| t.0), b.slot)));
        ended
    }

    /// What kept the last run from even starting: until another one gets further, the policy is not ready.
    fn trouble(&self) -> Option<Failure> {
        if let Some((waiting, failure)) = self.open().find_map(|b| Some((b.name, refused(&b.status)?))) {
            return Some(Failure::new(failure.reason, format!("{waiting} cannot start: {}", failure.message)));
        }
        let ended = self.ended();
        let last = ended.first().filter(|b| b.phase == BackupPhase::Failed)?;
        let failure = last.failure();
        let never_started =
            failure.reason.is_never_started() || (failure.reason.is_refusal() && self.running().is_none());
        never_started.then(|| Failure::new(failure.reason, format!("{} did not start: {}", last.name, failure.message)))
    }

    fn old_failures(&self) -> impl Iterator<Item = Action> {
        self.all
            .iter()
            .filter(|b| b.phase == BackupPhase::Failed && b.backup.metadata.deletion_timestamp.is_none())
            .filter(|b| is_scheduled(b.backup))
            .skip(FAILED_KEPT)
            .map(|b| Action::DeleteBackup(Target::version(&b.backup.metadata)))
    }
}

impl Entry<'_> {
    /// Whether it is under way, be it that the rest of its Jobs is refused.
    fn has_started(&self) -> bool {
        self.phase == BackupPhase::Running || self.status.run_id.is_some()
    }

    fn failure(&self) -> Failure {
        let complete = find(&self.status.conditions, ConditionType::Complete);
        let reason = complete.and_then(reason_of).unwrap_or(Reason::DumpFailed);
        Failure::new(reason, complete.map(|c| c.message.clone()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;

//! Which stored backup of a policy is read through next, and how all of them have fared. Pure.
//!
//! At each time of `spec.verify.schedule` up to `maxBackups` backups are due: the newest complete one, and then those that were stored or
//! tried the longest time ago, so that each has its turn. Which ones is decided then, and they are read one after the other: one that
//! was tried since that time, as its own status says, is done. A Backup is asked for by hand with an annotation, which goes first.

mod next;

use holdfast_crds::{
    Backup, BackupPolicy, BackupPolicySpec, BackupPolicyStatus, BackupStatus, BackupStore, ConditionType, Reason,
    VerificationWait,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::{Action, Event, Plan};
use super::backup::slot_of;
use super::found::is_foreign;
use super::job::{self, Install};
use super::location::is_there;
use super::names::VERIFY_ANNOTATION;
use super::observed::{ObservedJob, created};
use super::policy::{ObservedPolicy, seed};
use super::refused::say;
use super::restore::is_safety;
use super::schedule::{Schedule, SoFar, due};
use super::status::{after, find, reason_of, with_condition};
use crate::task::Failure;
use next::{Due, next};

/// Value of the task label of Jobs that verify.
pub const VERIFY: &str = "verify";

/// Whether there is room is looked at again after this many seconds, if nothing is heard before.
const ROOM_SECONDS: i64 = 30;
/// What the annotation says counts up to so many characters.
const REQUEST_LENGTH: usize = 63;
/// However late a time of the schedule is noticed, it counts: a verification is none the worse for it.
const ANY_LATENESS: i64 = 10 * 366 * 86_400;
/// At most this many damaged backups are named.
const NAMED: usize = 5;

/// Whether a verification found a backup damaged.
pub fn is_damaged(status: &BackupStatus) -> bool {
    find(&status.conditions, ConditionType::Verified).is_some_and(|c| c.status == "False")
}

/// What somebody asks for who wants this Backup verified, where that was not carried out yet.
pub fn request(backup: &Backup) -> Option<String> {
    let text = backup.metadata.annotations.as_ref()?.get(VERIFY_ANNOTATION)?;
    let text: String = text.trim().chars().take(REQUEST_LENGTH).collect();
    let done = backup.status.as_ref().and_then(|s| s.verification.as_ref()?.request.as_ref());
    (!text.is_empty() && done != Some(&text)).then_some(text)
}

/// What a verification is told apart by: who asked for it. No time looks like an annotation.
pub fn asked_by_hand(request: &str) -> String {
    format!("annotation {request}")
}

/// Whether what became of a Job is written on its Backup.
pub fn is_recorded(job: &ObservedJob, status: Option<&BackupStatus>) -> bool {
    let Some(verification) = status.and_then(|s| s.verification.as_ref()) else { return false };
    let last = verification.last_attempt_time.as_ref().map(|t| t.0);
    verification.job.as_ref() == Some(&job.name) || job.end.as_ref().is_some_and(|end| last >= Some(end.at))
}

/// The schedule of a policy's verifications; none where it has none.
///
/// # Errors
/// Where it cannot be read or never comes due.
pub fn schedule_of(policy: &BackupPolicy) -> Result<Option<Schedule>, Failure> {
    let Some(verify) = &policy.spec.verify else { return Ok(None) };
    let seed = format!("{}/verify", seed(policy));
    Schedule::parse(&verify.schedule, &policy.spec.time_zone, &seed).map(Some).map_err(|error| {
        Failure::new(error.reason(), error.to_string().replacen("spec.schedule", "spec.verify.schedule", 1))
    })
}

/// The store that a verification would read from now, if one is due and nothing else is in its way: only then it is worth finding out
/// whether there is room for it.
pub fn wants_room<'a>(policy: &BackupPolicy, observed: &'a ObservedPolicy, now: Timestamp) -> Option<&'a BackupStore> {
    if policy.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut plan = Plan::keep(policy.status.clone().unwrap_or_default());
    times(&mut plan, policy, observed, now);
    next(plan.status.verification.as_ref(), policy, observed)?.store.ok()
}

/// Starts the next verification that is due, and says how the policy's backups have fared.
pub fn plan_verify(
    plan: &mut Plan<BackupPolicyStatus>,
    install: &Install,
    policy: &BackupPolicy,
    observed: &ObservedPolicy,
    now: Timestamp,
) {
    if policy.metadata.deletion_timestamp.is_some() {
        return;
    }
    times(plan, policy, observed, now);
    let mut due = next(plan.status.verification.as_ref(), policy, observed);
    if let Some(due) = due.as_mut().filter(|due| due.store.is_ok())
        && let Some(why) = &observed.crowded
    {
        plan.check_at(after(now, ROOM_SECONDS));
        due.queue(why);
    }
    if let Some(due) = due.as_mut().filter(|due| due.store.is_ok())
        && let Some(failure) = &observed.refused.verification
    {
        due.store = Err(failure.clone());
    }
    sum_up(plan, policy, observed, due.as_ref().and_then(Due::waiting), now);
    if let Some(Due { backup, asked, store: Ok(store) }) = due {
        plan.actions.push(Action::CreateJob(Box::new(job::verify(install, backup, policy, store, &asked))));
    }
}

/// Moves the cursor of the schedule, and at each of its times says which Backups are due.
fn times(plan: &mut Plan<BackupPolicyStatus>, policy: &BackupPolicy, observed: &ObservedPolicy, now: Timestamp) {
    let Some(verify) = &policy.spec.verify else {
        plan.status.verification = None;
        return;
    };
    let at = plan.status.verification.get_or_insert_default();
    let Ok(schedule) = schedule_of(policy) else {
        at.next_scheduled_time = None;
        return;
    };
    let spec = BackupPolicySpec {
        schedule: Some(verify.schedule.clone()),
        run_on_create: false,
        starting_deadline_seconds: ANY_LATENESS,
        ..policy.spec.clone()
    };
    // What begins to be verified is edited, too: nothing is made up for that was before.
    let so_far = SoFar {
        created: created(&policy.metadata),
        cursor: at.decided_until.as_ref().map(|t| t.0),
        in_force: Some(at.schedule.clone().unwrap_or_default()),
        edited: None,
    };
    let due = due(&spec, schedule.as_ref(), &so_far, now);
    // Suspended times pass without a word, and resuming counts from then.
    let moves = !policy.spec.suspend || so_far.in_force.as_ref() != Some(&due.in_force);
    if moves {
        at.decided_until = Some(Time(due.cursor));
        at.schedule = Some(due.in_force);
    }
    if let Some(slot) = due.run {
        at.last_scheduled_time = Some(Time(slot));
        at.backups = due_at(observed, usize::try_from(verify.max_backups).unwrap_or(1));
    }
    at.next_scheduled_time = due.next.map(Time);
    if let Some(next) = due.next {
        plan.check_at(next);
    }
}

/// The newest complete Backup, and then those that were stored or tried the longest time ago.
fn due_at(observed: &ObservedPolicy, most: usize) -> Vec<String> {
    let mut own: Vec<&Backup> = own(observed).collect();
    let newest = own.iter().map(|b| (slot_of(b), b.metadata.name.clone())).max();
    // What was just stored was looked at then: it does not push out what lies there for months.
    own.sort_by_key(|b| {
        let place = (slot_of(b), b.metadata.name.clone());
        (Some(&place) != newest.as_ref(), last_attempt(b).max(stored(b)), place)
    });
    own.into_iter().take(most).filter_map(|b| b.metadata.name.clone()).collect()
}

/// The complete Backups that this cluster made.
fn own(observed: &ObservedPolicy) -> impl Iterator<Item = &Backup> {
    let all = observed.backups.iter().map(std::convert::AsRef::as_ref);
    all.filter(|b| is_complete(b) && !is_foreign(b))
}

/// One whose data is gone or in another place is not read: what is not there is not damaged.
fn is_complete(backup: &Backup) -> bool {
    backup.metadata.deletion_timestamp.is_none() && !is_safety(backup) && backup.status.as_ref().is_some_and(is_there)
}

fn run_of(backup: &Backup) -> Option<&String> {
    backup.status.as_ref()?.run_id.as_ref()
}

fn last_attempt(backup: &Backup) -> Option<Timestamp> {
    Some(backup.status.as_ref()?.verification.as_ref()?.last_attempt_time.as_ref()?.0)
}

fn stored(backup: &Backup) -> Option<Timestamp> {
    Some(backup.status.as_ref()?.completion_time.as_ref()?.0)
}

/// Counts and the condition, from what the Backups say, and what the next verification waits for.
fn sum_up(
    plan: &mut Plan<BackupPolicyStatus>,
    policy: &BackupPolicy,
    observed: &ObservedPolicy,
    waiting: Option<VerificationWait>,
    now: Timestamp,
) {
    let mut own: Vec<&Backup> = own(observed).collect();
    own.sort_by_key(|b| std::cmp::Reverse((slot_of(b), b.metadata.name.clone())));
    let verified = |b: &Backup| {
        let status = b.status.as_ref()?;
        find(&status.conditions, ConditionType::Verified).cloned()
    };
    let having = |value: &str| -> Vec<&Backup> {
        own.iter().copied().filter(|b| verified(b).is_some_and(|c| c.status == value)).collect()
    };
    let (whole, damaged) = (having("True"), having("False"));
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let not_yet = match &waiting {
        Some(wait) => format!("no backup was verified yet; {}: {}", wait.backup, wait.message),
        None => "no backup was verified yet".to_owned(),
    };
    let has_verified = |b: &&Backup| b.status.as_ref().is_some_and(|s| s.verification.is_some());
    if policy.spec.verify.is_some() || waiting.is_some() || own.iter().any(has_verified) {
        let at = plan.status.verification.get_or_insert_default();
        (at.whole, at.damaged) = (number(whole.len()), number(damaged.len()));
        at.unknown = number(own.len() - whole.len() - damaged.len());
        // It is no condition: what was found is as true while the next one waits.
        at.waiting = waiting;
    }
    let last = own.iter().filter_map(|b| b.status.as_ref()?.verification.as_ref()?.last_verified_time.as_ref());
    let known = plan.status.last_verification_time.as_ref().map(|t| t.0);
    plan.status.last_verification_time = last.map(|t| t.0).max().max(known).map(Time);

    let name = |b: &Backup| b.metadata.name.clone().unwrap_or_default();
    let latest = own.iter().copied().max_by_key(|b| last_attempt(b));
    let undone = latest.and_then(|b| {
        let verification = b.status.as_ref()?.verification.as_ref()?;
        Some((name(b), verification.reason?, verification.message.clone()?))
    });
    let total = own.len();
    let (value, reason, message) = if let Some(first) = damaged.first() {
        let said = verified(first);
        let reason = said.as_ref().and_then(reason_of);
        let named: Vec<String> = damaged.iter().take(NAMED).map(|b| name(b)).collect();
        let more = if damaged.len() > NAMED { format!(" and {} more", damaged.len() - NAMED) } else { String::new() };
        let message = format!(
            "{} of {total} complete backups are damaged: {}{more}. {}: {}",
            damaged.len(),
            named.join(", "),
            name(first),
            said.map(|c| c.message).unwrap_or_default()
        );
        (Some(false), reason.unwrap_or(Reason::ChecksumMismatch), message)
    } else if let Some(wait) =
        plan.status.verification.iter().find_map(|at| at.waiting.as_ref()).filter(|wait| wait.reason.is_refusal())
    {
        (None, wait.reason, format!("the next verification, of {}, cannot start: {}", wait.backup, wait.message))
    } else if let Some((name, reason, why)) = undone {
        (None, reason, format!("the last verification, of {name}, could not be done: {why}"))
    } else if let Some(newest) = whole.first() {
        let message = format!(
            "{} of {total} complete backups were read to their ends and are whole, the newest of them {}",
            whole.len(),
            name(newest)
        );
        (Some(true), Reason::Verified, message)
    } else if policy.spec.verify.is_some() {
        (None, Reason::NotVerifiedYet, not_yet)
    } else {
        return plan.status.conditions.retain(|c| c.type_ != ConditionType::Verified.as_str());
    };
    let before = find(&plan.status.conditions, ConditionType::Verified).map(|c| c.status.clone());
    match (before.as_deref(), value) {
        (before, Some(false)) if before != Some("False") => {
            plan.events.push(Event::warning(reason, "Verify", message.clone()));
        }
        (Some("False"), Some(true)) => plan.events.push(Event::normal(reason, "Verify", message.clone())),
        (_, None) if reason.is_refusal() => {
            let failure = Failure::new(reason, message);
            let generation = policy.metadata.generation;
            if say(&mut plan.status.conditions, ConditionType::Verified, None, &failure, generation, now) {
                plan.events.push(Event::warning(reason, "Verify", failure.message));
            }
            return;
        }
        _ => {}
    }
    let generation = policy.metadata.generation;
    plan.status.conditions =
        with_condition(&plan.status.conditions, ConditionType::Verified, value, reason, message, generation, now);
}

#[cfg(test)]
mod tests;

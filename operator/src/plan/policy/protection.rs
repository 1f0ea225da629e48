//! How far back and how well a policy's complete backups protect: the instants that can be restored, growth, and `maxAge`. Pure.

use holdfast_crds::{
    Backup, BackupPhase, BackupPolicy, BackupPolicyStatus, ConditionType, MaxAge, Reason, RecoveryWindow,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Backups, Entry};
use crate::plan::action::{Event, Plan};
use crate::plan::location::{is_elsewhere, is_missing, is_there};
use crate::plan::observed::created;
use crate::plan::plausibility::is_suspicious;
use crate::plan::restore::is_safety;
use crate::plan::status::{after, find, with_condition};
use crate::plan::verify::is_damaged;
use crate::task::Failure;

/// Growth is that of the backups of this many days.
const GROWTH_DAYS: i64 = 30;
const DAY: i128 = 86_400;

/// Whether a Backup is complete and has exactly the sources that the policy saves now: only such are compared with each other.
pub fn is_of_all_sources(backup: &Backup, policy: &BackupPolicy) -> bool {
    let wanted = &policy.spec.sources;
    is_complete(backup)
        && !is_safety(backup)
        && sources(backup).count() == wanted.len()
        && wanted.iter().all(|w| sources(backup).any(|s| s == w.name))
}

/// Sets what can be restored and how it grows.
pub(super) fn sum_up(status: &mut BackupPolicyStatus, policy: &BackupPolicy, backups: &Backups<'_>) {
    let mut slots = backups.all.iter().filter(|b| counts(b.backup)).map(|b| b.slot);
    let newest = slots.next();
    let oldest = slots.next_back().or(newest);
    status.recovery_window = oldest.zip(newest).map(|(from, to)| RecoveryWindow { from: Time(from), to: Time(to) });
    status.recovery_point = weakest(policy, backups).ok().map(|w| Time(w.instant));
    let sizes = backups.all.iter().filter(|b| counts(b.backup) && is_of_all_sources(b.backup, policy));
    status.growth_bytes_per_day =
        growth(&sizes.filter_map(|b| Some((b.slot, b.status.stored_bytes?))).collect::<Vec<_>>());
}

/// Says whether what can be restored is younger than `maxAge`, and looks again when it no longer will be.
pub(super) fn protected(
    plan: &mut Plan<BackupPolicyStatus>,
    policy: &BackupPolicy,
    backups: &Backups<'_>,
    obstacle: Option<&Failure>,
    now: Timestamp,
) {
    let Some(text) = &policy.spec.max_age else {
        plan.status.conditions.retain(|c| c.type_ != ConditionType::Protected.as_str());
        return;
    };
    let (value, reason, message) = match text.parse::<MaxAge>() {
        Err(error) => (None, Reason::InvalidConfiguration, format!("spec.maxAge: {error}")),
        Ok(max_age) => match weakest(policy, backups) {
            Err(source) => {
                let why = why_none(plan, policy, backups, obstacle);
                (
                    Some(false),
                    Reason::NoBackupYet,
                    format!(
                        "source {source} is in no backup yet that is complete and plausible{}: {why}",
                        renamed(policy, backups)
                    ),
                )
            }
            Ok(weakest) => {
                let until = after(weakest.instant, max_age.seconds);
                if now < until {
                    plan.check_at(until);
                    let message = format!(
                        "each source is in a complete and plausible backup of {} or later; maxAge ({text}) is reached at {until}",
                        weakest.instant
                    );
                    (Some(true), Reason::Protected, message)
                } else {
                    let why = why_none(plan, policy, backups, obstacle);
                    let message = format!(
                        "the newest complete and plausible backup with source {} is {}, of {}: older than maxAge ({text}) since {until}: {why}",
                        weakest.source, weakest.backup, weakest.instant
                    );
                    (Some(false), Reason::BackupTooOld, message)
                }
            }
        },
    };
    let conditions = &mut plan.status.conditions;
    match (find(conditions, ConditionType::Protected).map(|c| c.status.as_str()), value) {
        (Some("True"), Some(false)) => plan.events.push(Event::warning(reason, "Protect", message.clone())),
        (Some("False"), Some(true)) => plan.events.push(Event::normal(reason, "Protect", message.clone())),
        _ => {}
    }
    let generation = policy.metadata.generation;
    *conditions = with_condition(conditions, ConditionType::Protected, value, reason, message, generation, now);
}

/// Of the newest complete backups of each source, the oldest.
struct Weakest<'a> {
    source: &'a str,
    backup: &'a str,
    instant: Timestamp,
}

/// The source that is worst off; as an error one that is in no complete backup.
fn weakest<'a>(policy: &'a BackupPolicy, backups: &Backups<'a>) -> Result<Weakest<'a>, &'a str> {
    let mut weakest: Option<Weakest<'a>> = None;
    for source in policy.spec.sources.iter().map(|s| s.name.as_str()) {
        let having = backups.all.iter().filter(|b| counts(b.backup) && sources(b.backup).any(|s| s == source));
        let newest = having.max_by_key(|b| instant(b)).ok_or(source)?;
        let instant = instant(newest);
        if weakest.as_ref().is_none_or(|w| instant < w.instant) {
            weakest = Some(Weakest { source, backup: newest.name, instant });
        }
    }
    weakest.ok_or("")
}

/// Of sources that backups hold and the policy does not have any more: one that was renamed is a new one.
fn renamed(policy: &BackupPolicy, backups: &Backups<'_>) -> String {
    let newest = backups.all.iter().find(|b| counts(b.backup));
    let held = newest.into_iter().flat_map(|b| sources(b.backup));
    let gone: Vec<&str> = held.filter(|name| policy.spec.sources.iter().all(|s| s.name != **name)).collect();
    match newest.filter(|_| !gone.is_empty()) {
        Some(newest) => format!(
            " (Backup {} holds {}, which the policy does not have any more: a source with another name counts as a new one)",
            newest.name,
            gone.join(", ")
        ),
        None => String::new(),
    }
}

/// The slot, but never later than the API server's own clock was: a slot of a wrong clock would stay young for years.
fn instant(entry: &Entry<'_>) -> Timestamp {
    entry.slot.min(created(&entry.backup.metadata))
}

/// Whether a Backup is one to rely on, as `from.policy` would. Suspicious and damaged ones, and those of what a restore replaced (which
/// somebody wanted to be rid of), can be restored by their names alone.
fn counts(backup: &Backup) -> bool {
    is_complete(backup)
        && !is_safety(backup)
        && !backup.status.as_ref().is_some_and(|s| is_suspicious(s) || is_damaged(s))
}

fn is_complete(backup: &Backup) -> bool {
    backup.metadata.deletion_timestamp.is_none() && backup.status.as_ref().is_some_and(is_there)
}

/// Names of what is in it: a list map in the schema, so each is there once.
fn sources(backup: &Backup) -> impl Iterator<Item = &str> {
    backup.status.iter().flat_map(|s| &s.artifacts).map(|a| a.source.as_str())
}

/// Why there is no newer backup, as far as that can be told, with what to do about it.
fn why_none(
    plan: &Plan<BackupPolicyStatus>,
    policy: &BackupPolicy,
    backups: &Backups<'_>,
    obstacle: Option<&Failure>,
) -> String {
    if let Some(failure) = obstacle {
        return failure.message.clone();
    }
    if let Some(name) = backups.not_over() {
        let waiting = backups.all.iter().find(|b| b.name == name && b.phase == BackupPhase::Pending);
        return match waiting.and_then(|b| find(&b.status.conditions, ConditionType::Complete)) {
            Some(said) => format!("{name} is not under way yet: {}", said.message),
            None => format!("{name} is under way"),
        };
    }
    if let Some(last) = backups.ended().first() {
        if last.phase == BackupPhase::Failed {
            return format!("{} failed: {}", last.name, last.failure().message);
        }
        if is_missing(&last.status) || is_elsewhere(&last.status) {
            let why = find(&last.status.conditions, ConditionType::Complete).map(|c| c.message.clone());
            return format!("{}: {}", last.name, why.unwrap_or_default());
        }
        if is_damaged(&last.status) {
            let why = find(&last.status.conditions, ConditionType::Verified).map(|c| c.message.clone());
            return format!("{} is damaged: {}", last.name, why.unwrap_or_default());
        }
        if is_suspicious(&last.status) {
            let why = find(&last.status.conditions, ConditionType::Plausible).map(|c| c.message.clone());
            return format!("{} is suspicious: {}", last.name, why.unwrap_or_default());
        }
    }
    if policy.spec.suspend {
        return "the policy is suspended: set spec.suspend to false, or create a Backup".to_owned();
    }
    match &plan.status.next_scheduled_time {
        Some(next) => format!("the next run is due at {}; to have one now create a Backup", next.0),
        None => "the policy has no schedule: create a Backup, or set spec.schedule".to_owned(),
    }
}

/// Bytes a day, by least squares over the points of the last [`GROWTH_DAYS`]; none where they span less than a day.
fn growth(sizes: &[(Timestamp, i64)]) -> Option<i64> {
    let newest = sizes.iter().map(|(slot, _)| *slot).max()?;
    let oldest_counted = newest.checked_sub(SignedDuration::from_hours(24 * GROWTH_DAYS)).ok()?;
    // Seconds before the newest: small numbers, so that no product below comes near the end of i128.
    let points: Vec<(i128, i128)> = sizes
        .iter()
        .filter(|(slot, _)| *slot >= oldest_counted)
        .map(|(slot, bytes)| (i128::from(slot.duration_since(newest).as_secs()), i128::from(*bytes)))
        .collect();
    if points.iter().all(|(x, _)| -x < DAY) {
        return None;
    }
    let n = i128::try_from(points.len()).ok()?;
    let sum = |of: fn(&(i128, i128)) -> i128| points.iter().map(of).sum::<i128>();
    let (x, y, xy, xx) = (sum(|p| p.0), sum(|p| p.1), sum(|p| p.0 * p.1), sum(|p| p.0 * p.0));
    let slope = (n * xy - x * y).saturating_mul(DAY) / (n * xx - x * x);
    Some(i64::try_from(slope).unwrap_or(if slope > 0 { i64::MAX } else { i64::MIN }))
}

#[cfg(test)]
mod tests;

//! What a completed backup says of itself beside that: whether it is of one instant, and whether it is too small. Pure.

use holdfast_crds::{Backup, BackupStatus, ConditionType, Reason};
use jiff::Timestamp;

use super::ObservedBackup;
use crate::plan::action::{Event, Plan};
use crate::plan::names::ACCEPTED_ANNOTATION;
use crate::plan::plausibility::{history, is_accepted, is_suspicious, suspicion};
use crate::plan::status::with_condition;

/// What an engine says of a source that is all of one instant, and of one that may have changed meanwhile.
const SNAPSHOT: &str = "snapshot";
const FUZZY: &str = "fuzzy";

/// Says whether each source is as it was at one instant. Nothing is said where a source does not tell.
pub(super) fn consistent_is(plan: &mut Plan<BackupStatus>, backup: &Backup, now: Timestamp) {
    let told = |wanted: &str| -> Vec<&str> {
        let artifacts = plan.status.artifacts.iter();
        artifacts.filter(|a| a.consistency.as_deref() == Some(wanted)).map(|a| a.source.as_str()).collect()
    };
    let (fuzzy, snapshots) = (told(FUZZY), told(SNAPSHOT));
    let (value, reason, message) = if !fuzzy.is_empty() {
        (false, Reason::Fuzzy, format!("read while it may have changed: {}", fuzzy.join(", ")))
    } else if snapshots.len() == plan.status.artifacts.len() {
        (true, Reason::Snapshot, "each source is as it was at one instant".to_owned())
    } else {
        return;
    };
    say(plan, backup, ConditionType::Consistent, value, reason, &message, now);
}

/// Says whether it is as large as the backups before it let expect. Nothing is said where the policy does not want to know.
pub(super) fn plausible_is(plan: &mut Plan<BackupStatus>, backup: &Backup, observed: &ObservedBackup, now: Timestamp) {
    let Some(policy) = observed.policy.as_deref() else { return };
    let rule = &policy.spec.plausibility;
    if rule.minimum_percent <= 0 {
        return;
    }
    let before = history(backup, &observed.siblings);
    let Some(found) = suspicion(rule, &plan.status.artifacts, &before) else {
        let message = "as large as the backups before it let expect";
        return say(plan, backup, ConditionType::Plausible, true, Reason::Plausible, message, now);
    };
    let name = backup.metadata.name.as_deref().unwrap_or_default();
    let message = format!(
        "{found}: look whether the source is the right one and whole; if it is, kubectl annotate backup {name} {ACCEPTED_ANNOTATION}=true"
    );
    plan.events.push(Event::warning(Reason::Suspicious, "Backup", message.clone()));
    say(plan, backup, ConditionType::Plausible, false, Reason::Suspicious, &message, now);
}

/// Takes down that somebody has accepted a suspicious backup.
pub(super) fn accept(plan: &mut Plan<BackupStatus>, backup: &Backup, now: Timestamp) {
    if is_suspicious(&plan.status) && is_accepted(backup) {
        let message =
            format!("accepted by the annotation {ACCEPTED_ANNOTATION}: later backups are compared with this one");
        plan.events.push(Event::normal(Reason::Accepted, "Backup", message.clone()));
        say(plan, backup, ConditionType::Plausible, true, Reason::Accepted, &message, now);
    }
}

fn say(
    plan: &mut Plan<BackupStatus>,
    backup: &Backup,
    type_: ConditionType,
    value: bool,
    reason: Reason,
    message: &str,
    now: Timestamp,
) {
    let generation = backup.metadata.generation;
    plan.status.conditions =
        with_condition(&plan.status.conditions, type_, Some(value), reason, message, generation, now);
}

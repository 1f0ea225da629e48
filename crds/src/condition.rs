//! Conditions: built, and merged so that `lastTransitionTime` moves only when the status flips. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::Reason;

/// The condition types that Holdfast writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// A store or a policy can be used.
    Ready,
    /// A store's backups are encrypted by Holdfast.
    Encrypted,
    /// A policy's newest ended backup is complete.
    LastBackupSucceeded,
    /// A policy's retention was applied after its newest complete backup. On a Backup: how it ended
    /// after it, where it was refused or where another container kept its Job.
    RetentionApplied,
    /// Each source of a policy is in a complete backup that is not older than `maxAge`.
    Protected,
    /// A backup or a restore did all of what it was for.
    Complete,
    /// A backup or a restore is over, however it ended: what `kubectl wait` can wait for.
    Finished,
    /// Each source of a backup is as it was at one instant.
    Consistent,
    /// A backup, or a policy's newest one, is as large as those before it let expect.
    Plausible,
    /// A backup was read to its end and is as it was stored; of a policy's backups none is damaged.
    Verified,
    /// The data of a Backup that is being deleted could be deleted. There only while it could not.
    DataDeleted,
    /// The workloads of `scaleDown` have their replicas again. There only while that could not be done.
    BroughtBack,
}

impl ConditionType {
    /// The type as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Encrypted => "Encrypted",
            Self::LastBackupSucceeded => "LastBackupSucceeded",
            Self::RetentionApplied => "RetentionApplied",
            Self::Protected => "Protected",
            Self::Complete => "Complete",
            Self::Finished => "Finished",
            Self::Consistent => "Consistent",
            Self::Plausible => "Plausible",
            Self::Verified => "Verified",
            Self::DataDeleted => "DataDeleted",
            Self::BroughtBack => "BroughtBack",
        }
    }
}

/// A condition as of `now`. Its message is cut at 1 KiB, so that a status stays small whatever a server says.
pub fn condition(
    type_: ConditionType,
    status: Option<bool>,
    reason: Reason,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let mut message = message.into();
    if message.len() > 1024 {
        let end = (0..=1021).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    Condition {
        type_: type_.as_str().to_owned(),
        status: match status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
        .to_owned(),
        reason: reason.to_string(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    }
}

/// `new` in place of the conditions of the same type in `old`, which keep their transition time where the status is the same.
pub fn merge_conditions(old: &[Condition], new: Vec<Condition>) -> Vec<Condition> {
    let mut merged: Vec<Condition> = old.iter().filter(|o| !new.iter().any(|n| n.type_ == o.type_)).cloned().collect();
    for mut condition in new {
        if let Some(before) = old.iter().find(|o| o.type_ == condition.type_ && o.status == condition.status) {
            condition.last_transition_time = before.last_transition_time.clone();
        }
        merged.push(condition);
    }
    merged.sort_by(|a, b| a.type_.cmp(&b.type_));
    merged
}

/// Whether the condition is there and True.
pub fn is_true(conditions: &[Condition], type_: ConditionType) -> bool {
    conditions.iter().any(|c| c.type_ == type_.as_str() && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_transition_time_moves_only_when_the_status_flips() {
        let first = condition(ConditionType::Ready, Some(false), Reason::Probing, "", Some(1), at(10));
        let same = condition(ConditionType::Ready, Some(false), Reason::Unreachable, "no answer", Some(2), at(20));
        let merged = merge_conditions(&[first], vec![same]);
        assert_eq!(merged[0].last_transition_time, Time(at(10)));
        assert_eq!(merged[0].reason, "Unreachable");
        let flipped = condition(ConditionType::Ready, Some(true), Reason::Probed, "", Some(2), at(30));
        assert_eq!(merge_conditions(&merged, vec![flipped])[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = condition(ConditionType::Ready, None, Reason::Probing, "ö".repeat(2000), None, at(1));
        assert!(long.message.len() <= 1024 && long.message.ends_with('…'));
    }
}

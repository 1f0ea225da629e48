//! What the API server refuses, or has not done for long: an observation like any other, said on the object that it is about. Pure.
//!
//! Nothing is remembered beside what the status says: an attempt that is made again is refused again, and says the same.

use holdfast_crds::{BackupPhase, BackupStatus, ConditionType, Reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::status::{find, reason_of, with_condition};
use crate::task::Failure;

/// What the API server did not do for an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, in its own words.
    pub failure: Failure,
    /// What the Job was to do: the value of its task label. None where it was no Job.
    pub task: Option<String>,
    /// Whether Jobs of the same run are there already.
    pub began: bool,
}

/// What could not be done for a policy at the last attempt, each in the API server's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRefusals {
    /// Creating a Backup for its slot, or deleting an old one.
    pub backup: Option<Failure>,
    /// Reading its bucket for backups of earlier times.
    pub catalogue: Option<Failure>,
    /// Starting a verification.
    pub verification: Option<Failure>,
}

impl PolicyRefusals {
    /// Whether there is any.
    pub fn is_any(&self) -> bool {
        self.backup.is_some() || self.catalogue.is_some() || self.verification.is_some()
    }
}

/// Why a Backup has not started, where that is because the API server refused it at the last attempt.
pub fn refused(status: &BackupStatus) -> Option<Failure> {
    let pending = status.phase == BackupPhase::Pending;
    find(&status.conditions, ConditionType::Complete).filter(|_| pending).and_then(as_refusal)
}

/// The refusal that a condition tells of, if it does.
pub fn as_refusal(condition: &Condition) -> Option<Failure> {
    let reason: Reason = reason_of(condition)?;
    reason.is_refusal().then(|| Failure::new(reason, condition.message.clone()))
}

/// Sets a condition to what was refused. Returns whether that is news: the same words with other figures in them are not, and are not
/// written anew, or a quota that others use would be a write for each of their Pods.
pub fn say(
    conditions: &mut Vec<Condition>,
    type_: ConditionType,
    value: Option<bool>,
    failure: &Failure,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let merged = with_condition(conditions, type_, value, failure.reason, failure.message.clone(), generation, now);
    let same = match (find(conditions, type_), find(&merged, type_)) {
        (Some(before), Some(said)) => {
            (&before.status, &before.reason, before.observed_generation)
                == (&said.status, &said.reason, said.observed_generation)
                && without_figures(&before.message) == without_figures(&said.message)
        }
        _ => false,
    };
    if !same {
        *conditions = merged;
    }
    !same
}

fn without_figures(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::at;

    #[test]
    fn the_same_words_with_other_figures_are_no_news() {
        let mut conditions = Vec::new();
        let mut tell = |reason, words: &str, generation| {
            let failure = Failure::new(reason, words);
            say(&mut conditions, ConditionType::Complete, Some(false), &failure, Some(generation), at(generation))
        };
        assert!(tell(Reason::QuotaExceeded, "used: limits.cpu=3, limited: 4", 1));
        assert!(!tell(Reason::QuotaExceeded, "used: limits.cpu=12, limited: 4", 1));
        assert!(tell(Reason::QuotaExceeded, "used: limits.cpu=12, limited: 4", 2), "of another spec");
        assert!(tell(Reason::QuotaExceeded, "used: count/jobs.batch=0, limited: 0", 2));
        assert!(tell(Reason::JobRefused, "used: count/jobs.batch=0, limited: 0", 2));
    }
}

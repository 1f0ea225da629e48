//! What a status says in one word and one line: the worst of its conditions, whichever there are; and that a run is over. Pure.

use holdfast_crds::{
    BackupPhase, BackupPolicyStatus, BackupStatus, BackupStoreStatus, ConditionType, Reason, RestoreRequestStatus,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::status::{find, with_condition};

/// What is worse when it is False comes first: that it cannot run at all, that what was stored is lost, that the last run failed, and
/// then what is known of the backups that there are. One of another type comes before the last two of these.
const WORST_FIRST: [&str; 7] =
    ["Ready", "Complete", "LastBackupSucceeded", "Protected", "Verified", "Plausible", "RetentionApplied"];
/// Where a type that is not listed has its place.
const OTHERS: usize = 5;

/// They tell how something is, and neither of their values is wrong.
const NEUTRAL: [&str; 3] = ["Encrypted", "Consistent", "Finished"];

/// The conditions that say how the whole is.
const OF_THE_WHOLE: [&str; 2] = ["Ready", "Complete"];

/// Their messages begin with the backup that they are about, or say by themselves what is wrong.
const PLAIN: [&str; 6] = ["Ready", "Complete", "LastBackupSucceeded", "Protected", "Verified", "Plausible"];

/// A status that can be told in one line.
pub trait Summarize {
    /// Sets the reason and the message to those of the worst condition and, of what runs once, `Finished` when it is over.
    fn summarize(&mut self, now: Timestamp);
}

impl Summarize for BackupStoreStatus {
    fn summarize(&mut self, _: Timestamp) {
        (self.reason, self.message) = in_one_line(&self.conditions);
    }
}

impl Summarize for BackupPolicyStatus {
    fn summarize(&mut self, _: Timestamp) {
        (self.reason, self.message) = in_one_line(&self.conditions);
    }
}

impl Summarize for BackupStatus {
    fn summarize(&mut self, now: Timestamp) {
        finish(&mut self.conditions, self.phase, now);
        (self.reason, self.message) = in_one_line(&self.conditions);
    }
}

impl Summarize for RestoreRequestStatus {
    fn summarize(&mut self, now: Timestamp) {
        finish(&mut self.conditions, self.phase, now);
        (self.reason, self.message) = in_one_line(&self.conditions);
    }
}

/// Says that it is over, once: who waits for `Complete` alone waits for ever for one that failed.
fn finish(conditions: &mut Vec<Condition>, phase: BackupPhase, now: Timestamp) {
    let (reason, message) = match phase {
        BackupPhase::Completed => (Reason::Completed, "it has completed"),
        BackupPhase::Failed => (Reason::Failed, "it has failed: the condition Complete says why"),
        BackupPhase::Pending | BackupPhase::Running => return,
    };
    if find(conditions, ConditionType::Finished).is_none() {
        let generation = find(conditions, ConditionType::Complete).and_then(|c| c.observed_generation);
        *conditions = with_condition(conditions, ConditionType::Finished, Some(true), reason, message, generation, now);
    }
}

fn in_one_line(conditions: &[Condition]) -> (Option<String>, Option<String>) {
    let Some(worst) = worst(conditions) else { return (None, None) };
    let is_plain = worst.status != "False" || PLAIN.contains(&worst.type_.as_str());
    let message = if is_plain { worst.message.clone() } else { format!("{} is False: {}", worst.type_, worst.message) };
    (Some(worst.reason.clone()), Some(message))
}

/// The worst of what is False; else what is said of the whole where that is not True yet; else what could not be found out; else what is
/// said of the whole.
fn worst(conditions: &[Condition]) -> Option<&Condition> {
    let rank = |c: &Condition| {
        let listed = WORST_FIRST.iter().position(|type_| *type_ == c.type_);
        listed.map_or((OTHERS, 0), |place| (place, 1))
    };
    let judging = || conditions.iter().filter(|c| !NEUTRAL.contains(&c.type_.as_str()));
    let is_false = judging().filter(|c| c.status == "False").min_by_key(|c| (rank(c), c.type_.clone()));
    let whole = conditions.iter().find(|c| OF_THE_WHOLE.contains(&c.type_.as_str()));
    let unsettled = whole.filter(|c| c.status != "True");
    // That there was nothing to look at yet is nothing wrong.
    let nothing_yet = [Reason::NoBackupYet, Reason::NotVerifiedYet].map(|reason| reason.to_string());
    let unknown = judging()
        .filter(|c| c.status == "Unknown" && !nothing_yet.contains(&c.reason))
        .min_by_key(|c| (rank(c), c.type_.clone()));
    is_false.or(unsettled).or(unknown).or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::at;

    fn is(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: format!("why {reason}"),
            observed_generation: Some(1),
            last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)),
        }
    }

    #[test]
    fn the_worst_condition_is_told_and_one_that_nobody_has_heard_of_too() {
        let ready = || is("Ready", "True", "Ready");
        let table: Vec<(&str, Vec<Condition>, &str)> = vec![
            ("nothing is wrong", vec![ready(), is("LastBackupSucceeded", "True", "Completed")], "Ready"),
            ("nothing has run", vec![ready(), is("LastBackupSucceeded", "Unknown", "NoBackupYet")], "Ready"),
            ("what does not judge", vec![ready(), is("Encrypted", "False", "NotConfigured")], "Ready"),
            (
                "the only run failed",
                vec![
                    ready(),
                    is("Protected", "False", "NoBackupYet"),
                    is("LastBackupSucceeded", "False", "SourceRefused"),
                ],
                "SourceRefused",
            ),
            (
                "it cannot run, and the last one failed",
                vec![is("LastBackupSucceeded", "False", "DumpFailed"), is("Ready", "False", "StoreNotReady")],
                "StoreNotReady",
            ),
            ("too old", vec![ready(), is("Protected", "False", "BackupTooOld")], "BackupTooOld"),
            (
                "damaged and small",
                vec![ready(), is("Plausible", "False", "Suspicious"), is("Verified", "False", "ChecksumMismatch")],
                "ChecksumMismatch",
            ),
            ("a type of tomorrow", vec![ready(), is("RestoreProven", "False", "TooSlow")], "TooSlow"),
            (
                "a type of tomorrow beside a small backup",
                vec![ready(), is("Plausible", "False", "Suspicious"), is("Admitted", "False", "JobRefused")],
                "JobRefused",
            ),
            ("what could not be found out", vec![ready(), is("Verified", "Unknown", "KeyMissing")], "KeyMissing"),
            ("not verified yet", vec![ready(), is("Verified", "Unknown", "NotVerifiedYet")], "Ready"),
            ("a probe", vec![is("Ready", "Unknown", "Probing"), is("Encrypted", "True", "Configured")], "Probing"),
            ("under way", vec![is("Complete", "Unknown", "InProgress")], "InProgress"),
            (
                "complete and read while it changed",
                vec![
                    is("Complete", "True", "Completed"),
                    is("Consistent", "False", "Fuzzy"),
                    is("Finished", "True", "Completed"),
                ],
                "Completed",
            ),
            (
                "complete and small",
                vec![is("Complete", "True", "Completed"), is("Plausible", "False", "Suspicious")],
                "Suspicious",
            ),
            (
                "gone from the bucket",
                vec![is("Complete", "False", "DataMissing"), is("Verified", "False", "NoMatchingBackup")],
                "DataMissing",
            ),
        ];
        for (what, mut conditions, reason) in table {
            for _ in 0..2 {
                let mut status = BackupPolicyStatus { conditions: conditions.clone(), ..BackupPolicyStatus::default() };
                status.summarize(at(9));
                assert_eq!(status.reason.as_deref(), Some(reason), "{what}");
                let message = status.message.unwrap();
                assert!(message.ends_with(&format!("why {reason}")), "{what}: {message}");
                conditions.reverse();
            }
        }
    }

    #[test]
    fn a_condition_whose_words_do_not_say_what_they_are_about_is_told_with_its_type() {
        let conditions = vec![is("Ready", "True", "Ready"), is("RetentionApplied", "False", "StoreRefused")];
        let mut status = BackupPolicyStatus { conditions, ..BackupPolicyStatus::default() };
        status.summarize(at(9));
        assert_eq!(status.message.as_deref(), Some("RetentionApplied is False: why StoreRefused"));
        let mut nothing = BackupPolicyStatus::default();
        nothing.summarize(at(9));
        assert_eq!((nothing.reason, nothing.message), (None, None));
    }

    #[test]
    fn what_is_over_is_finished_however_it_ended_and_stays_so() {
        for (phase, complete, reason) in [
            (BackupPhase::Pending, "False", None),
            (BackupPhase::Running, "Unknown", None),
            (BackupPhase::Completed, "True", Some("Completed")),
            (BackupPhase::Failed, "False", Some("Failed")),
        ] {
            let conditions = vec![is("Complete", complete, "x")];
            let mut backup = BackupStatus { phase, conditions: conditions.clone(), ..BackupStatus::default() };
            let mut restore = RestoreRequestStatus { phase, conditions, ..RestoreRequestStatus::default() };
            backup.summarize(at(9));
            restore.summarize(at(9));
            for conditions in [&backup.conditions, &restore.conditions] {
                let finished = find(conditions, ConditionType::Finished);
                assert_eq!(finished.map(|c| (c.status.as_str(), c.reason.as_str())), reason.map(|r| ("True", r)));
                assert!(finished.is_none_or(|c| c.observed_generation == Some(1)));
            }
            let before = (backup.clone(), restore.clone());
            backup.summarize(at(99));
            restore.summarize(at(99));
            assert_eq!(before, (backup, restore), "nothing is written for it later");
        }
    }
}

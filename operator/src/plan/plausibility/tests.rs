//! Histories of sizes and what is made of them. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;
use crate::plan::fixture::{at, backup_with};

const RULE: PlausibilitySpec = PlausibilitySpec { minimum_percent: 50 };

fn artifact(source: &str, bytes: i64, items: i64) -> ArtifactStatus {
    ArtifactStatus { source: source.into(), source_bytes: Some(bytes), items: Some(items), ..ArtifactStatus::default() }
}

fn plausible_is(value: bool, reason: Reason) -> Vec<Condition> {
    vec![holdfast_crds::condition(ConditionType::Plausible, Some(value), reason, "", None, at(0))]
}

fn past(second: i64, bytes: i64, conditions: Vec<Condition>) -> Arc<Backup> {
    let artifacts = vec![artifact("db", bytes, 3)];
    let status = BackupStatus { phase: BackupPhase::Completed, artifacts, conditions, ..BackupStatus::default() };
    Arc::new(backup_with(&format!("b{second}"), second, status))
}

fn verdict(bytes: i64, siblings: &[Arc<Backup>]) -> Option<String> {
    let this = backup_with("this", 1000, BackupStatus::default());
    suspicion(&RULE, &[artifact("db", bytes, 3)], &history(&this, siblings))
}

#[test]
fn less_than_half_of_the_median_of_the_last_five_is_suspicious() {
    let siblings: Vec<_> = [9, 9, 100, 80, 120, 110, 90].iter().zip(1..).map(|(b, s)| past(s, *b, vec![])).collect();
    assert_eq!(
        verdict(50, &siblings),
        None,
        "the median of the last five is 100, the two before them are not looked at"
    );
    let found = verdict(49, &siblings).unwrap();
    assert_eq!(
        found,
        "source db has 49 bytes before compression, less than 50 % of 100, the median of the 5 backups before"
    );
    assert_eq!(verdict(1, &[]), None, "the first one is compared with nothing");
    assert!(verdict(49, &[past(1, 100, vec![])]).unwrap().ends_with("the median of the backup before"));
}

#[test]
fn what_failed_or_came_later_or_is_suspicious_itself_is_compared_with_nothing() {
    let mut failed = (*past(5, 1, vec![])).clone();
    failed.status.as_mut().unwrap().phase = BackupPhase::Failed;
    let suspicious = || plausible_is(false, Reason::Suspicious);
    let mut siblings =
        vec![past(1, 100, plausible_is(true, Reason::Plausible)), Arc::new(failed), past(2000, 1, vec![])];
    siblings.extend((10..30).map(|s| past(s, 1, suspicious())));
    assert!(verdict(40, &siblings).is_some(), "ninety-one small ones in a row are not what is expected");
}

#[test]
fn an_accepted_one_is_where_the_comparison_begins_anew() {
    let accepted = past(5, 10, plausible_is(true, Reason::Accepted));
    let siblings = [past(1, 100, vec![]), past(2, 100, vec![]), past(3, 100, vec![]), accepted];
    assert_eq!(verdict(9, &siblings), None);
    assert!(verdict(4, &siblings).is_some());
}

#[test]
fn empty_is_suspicious_unless_it_was_so_before() {
    let empty = || artifact("db", 30, 0);
    assert_eq!(suspicion(&RULE, &[empty()], &[]).unwrap(), "source db is empty");
    let status = |items| BackupStatus { artifacts: vec![artifact("db", 30, items)], ..BackupStatus::default() };
    assert!(suspicion(&RULE, &[empty()], &[&status(3)]).is_some());
    assert_eq!(suspicion(&RULE, &[empty()], &[&status(0), &status(3)]), None);
    assert_eq!(suspicion(&PlausibilitySpec { minimum_percent: 0 }, &[empty()], &[]), None);
}

#[test]
fn each_source_is_compared_with_itself() {
    let before =
        BackupStatus { artifacts: vec![artifact("db", 1000, 3), artifact("cache", 10, 3)], ..BackupStatus::default() };
    let now = [artifact("db", 1000, 3), artifact("cache", 4, 3), artifact("new", 1, 1)];
    let found = suspicion(&RULE, &now, &[&before]).unwrap();
    assert!(
        found.starts_with("source cache has 4 bytes") && !found.contains("db") && !found.contains("new"),
        "{found}"
    );
}

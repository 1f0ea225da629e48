//! What a policy says of its protection, table by table. Pure.

use std::sync::Arc;

use holdfast_crds::{ArtifactStatus, BackupStatus, condition};

use super::*;
use crate::plan::fixture::{at, backup_with, policy, ready_store, source};
use crate::plan::policy::{ObservedPolicy, plan_policy};

const HOUR: i64 = 3600;

fn observed(backups: &[Backup]) -> ObservedPolicy {
    let backups = backups.iter().cloned().map(Arc::new).collect();
    ObservedPolicy { store: Some(Arc::new(ready_store())), backups, ..ObservedPolicy::default() }
}

/// A complete backup of these sources, of this size.
fn complete(name: &str, slot: i64, sources: &[&str], bytes: i64) -> Backup {
    let artifact = |source: &&str| ArtifactStatus {
        source: (*source).into(),
        phase: BackupPhase::Completed,
        ..ArtifactStatus::default()
    };
    let status = BackupStatus {
        phase: BackupPhase::Completed,
        completion_time: Some(Time(at(slot + 60))),
        stored_bytes: Some(bytes),
        artifacts: sources.iter().map(artifact).collect(),
        ..BackupStatus::default()
    };
    backup_with(name, slot, status)
}

fn failed(name: &str, slot: i64, message: &str) -> Backup {
    let status = BackupStatus {
        phase: BackupPhase::Failed,
        completion_time: Some(Time(at(slot + 60))),
        conditions: vec![condition(
            ConditionType::Complete,
            Some(false),
            Reason::SourceRefused,
            message,
            None,
            at(slot),
        )],
        ..BackupStatus::default()
    };
    backup_with(name, slot, status)
}

/// The fixture's policy, nightly at two, with a day and two hours.
fn promising() -> BackupPolicy {
    let mut policy = policy();
    policy.spec.max_age = Some("26h".into());
    policy
}

fn told(policy: &BackupPolicy, backups: &[Backup], now: i64) -> (String, String, String) {
    let plan = plan_policy(policy, &observed(backups), at(now));
    let c = find(&plan.status.conditions, ConditionType::Protected).cloned().unwrap();
    (c.status, c.reason, c.message)
}

#[test]
fn the_condition_flips_by_itself_when_the_newest_backup_grows_too_old() {
    let good = [complete("a", 2 * HOUR, &["db"], 1)];
    let mut policy = promising();
    policy.spec.schedule = None;
    let plan = plan_policy(&policy, &observed(&good), at(3 * HOUR));
    let protected = find(&plan.status.conditions, ConditionType::Protected).unwrap();
    assert_eq!((protected.status.as_str(), protected.reason.as_str()), ("True", "Protected"));
    assert_eq!(plan.next_check, Some(at(28 * HOUR)), "it looks again at the very instant");
    policy.status = Some(plan.status);
    for now in [4 * HOUR, 28 * HOUR - 1] {
        let plan = plan_policy(&policy, &observed(&good), at(now));
        assert_eq!(Some(&plan.status), policy.status.as_ref(), "nothing is written before");
        assert!(plan.events.is_empty());
    }
    let plan = plan_policy(&policy, &observed(&good), at(28 * HOUR));
    let protected = find(&plan.status.conditions, ConditionType::Protected).unwrap();
    assert_eq!((protected.status.as_str(), protected.reason.as_str()), ("False", "BackupTooOld"));
    assert_eq!(protected.last_transition_time, Time(at(28 * HOUR)));
    assert_eq!(
        plan.events.iter().map(|e| (e.warning, e.reason.as_str())).collect::<Vec<_>>(),
        [(true, "BackupTooOld")]
    );
    policy.status = Some(plan.status);
    let later = plan_policy(&policy, &observed(&good), at(300 * HOUR));
    assert_eq!(Some(&later.status), policy.status.as_ref(), "nor while it stays so");
    assert!(later.events.is_empty());
    // A new backup, and all is well again.
    let better = [good[0].clone(), complete("b", 300 * HOUR, &["db"], 1)];
    let plan = plan_policy(&policy, &observed(&better), at(301 * HOUR));
    assert_eq!(plan.events.iter().map(|e| (e.warning, e.reason.as_str())).collect::<Vec<_>>(), [(false, "Protected")]);
}

#[test]
fn without_a_max_age_nothing_is_promised() {
    let mut policy = promising();
    policy.status = Some(plan_policy(&policy, &observed(&[]), at(HOUR)).status);
    policy.spec.max_age = None;
    let plan = plan_policy(&policy, &observed(&[]), at(2 * HOUR));
    assert!(find(&plan.status.conditions, ConditionType::Protected).is_none());
    policy.spec.max_age = Some("a day".into());
    let (status, reason, message) = told(&policy, &[], HOUR);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "InvalidConfiguration"));
    assert!(message.contains("spec.maxAge") && message.contains("26h"), "{message}");
}

#[test]
fn what_is_not_protected_says_why_there_is_no_newer_backup() {
    let old = complete("old", HOUR, &["db"], 1);
    let late = 50 * HOUR;
    let suspended = |mut policy: BackupPolicy| {
        policy.spec.suspend = true;
        policy
    };
    let by_hand = |mut policy: BackupPolicy| {
        policy.spec.schedule = None;
        policy
    };
    let broken = |mut policy: BackupPolicy| {
        policy.spec.schedule = Some("every day".into());
        policy
    };
    let running = backup_with("now", late - 5, BackupStatus { phase: BackupPhase::Running, ..BackupStatus::default() });
    let words = condition(ConditionType::Complete, None, Reason::Queued, "3 runs are before it", None, at(1));
    let queued = backup_with("next", late - 5, BackupStatus { conditions: vec![words], ..BackupStatus::default() });
    let table: [(BackupPolicy, Vec<Backup>, &str, &[&str]); 8] = [
        (promising(), vec![old.clone(), queued], "BackupTooOld", &["next is not under way yet: 3 runs are before it"]),
        (promising(), vec![], "NoBackupYet", &["source db", "next run is due at"]),
        (by_hand(promising()), vec![], "NoBackupYet", &["no schedule", "create a Backup"]),
        (
            by_hand(promising()),
            vec![old.clone()],
            "BackupTooOld",
            &["old, of 1970-01-01T01:00:00Z", "since 1970-01-02T03:00:00Z"],
        ),
        (
            promising(),
            vec![old.clone(), failed("bad", 40 * HOUR, "no such user: ann")],
            "BackupTooOld",
            &["bad failed: no such user: ann"],
        ),
        (suspended(promising()), vec![old.clone()], "BackupTooOld", &["set spec.suspend to false"]),
        (broken(promising()), vec![old.clone()], "BackupTooOld", &["spec.schedule"]),
        (promising(), vec![old, running], "BackupTooOld", &["now is under way"]),
    ];
    for (policy, backups, wanted, words) in table {
        let (status, reason, message) = told(&policy, &backups, late);
        assert_eq!((status.as_str(), reason.as_str()), ("False", wanted), "{message}");
        for word in words {
            assert!(message.contains(word), "{word} is not in {message}");
        }
    }
}

#[test]
fn each_source_must_be_in_a_young_backup() {
    let mut policy = promising();
    policy.spec.schedule = None;
    policy.spec.sources = vec![source("db"), source("reports")];
    let both = complete("both", HOUR, &["db", "reports"], 1);
    let one = complete("one", 30 * HOUR, &["db"], 1);
    let (status, reason, message) = told(&policy, &[both.clone(), one.clone()], 31 * HOUR);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "BackupTooOld"));
    assert!(message.contains("source reports is both"), "{message}");
    let other = complete("other", 20 * HOUR, &["reports"], 1);
    let backups = [both.clone(), one.clone(), other];
    assert_eq!(told(&policy, &backups, 31 * HOUR).0, "True");
    let status = plan_policy(&policy, &observed(&backups), at(31 * HOUR)).status;
    assert_eq!(status.recovery_point, Some(Time(at(20 * HOUR))));
    // A source that was added is in no backup yet.
    policy.spec.sources.push(source("new"));
    let (status, reason, message) = told(&policy, &backups, 31 * HOUR);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NoBackupYet"));
    assert!(message.starts_with("source new is in no backup yet that is complete and plausible"), "{message}");
}

#[test]
fn a_suspicious_backup_protects_nothing_until_it_is_accepted() {
    let with = |reason: Reason, value: bool| {
        let mut emptied = complete("emptied", 40 * HOUR, &["db"], 1);
        emptied.status.as_mut().unwrap().conditions =
            vec![condition(ConditionType::Plausible, Some(value), reason, "source db is empty", None, at(1))];
        vec![complete("old", HOUR, &["db"], 1000), emptied]
    };
    let backups = with(Reason::Suspicious, false);
    let (status, reason, message) = told(&promising(), &backups, 50 * HOUR);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "BackupTooOld"));
    assert!(
        message.contains("source db is old") && message.contains("emptied is suspicious: source db is empty"),
        "{message}"
    );
    let status = plan_policy(&promising(), &observed(&backups), at(50 * HOUR)).status;
    assert_eq!(status.recovery_window.map(|w| w.to), Some(Time(at(HOUR))));
    assert_eq!(status.growth_bytes_per_day, None, "nor is it a measure of growth");
    assert_eq!(told(&promising(), &with(Reason::Accepted, true), 50 * HOUR).0, "True");
}

#[test]
fn a_damaged_backup_protects_nothing() {
    let with = |value| {
        let mut newest = complete("newest", 40 * HOUR, &["db"], 1000);
        newest.status.as_mut().unwrap().conditions =
            vec![condition(ConditionType::Verified, value, Reason::ChecksumMismatch, "a bit is wrong", None, at(1))];
        vec![complete("old", HOUR, &["db"], 1000), newest]
    };
    let (status, reason, message) = told(&promising(), &with(Some(false)), 50 * HOUR);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "BackupTooOld"));
    assert!(message.contains("source db is old") && message.contains("newest is damaged: a bit is wrong"), "{message}");
    let status = plan_policy(&promising(), &observed(&with(Some(false))), at(50 * HOUR)).status;
    assert_eq!(status.recovery_window.map(|w| w.to), Some(Time(at(HOUR))));
    for fine in [Some(true), None] {
        assert_eq!(told(&promising(), &with(fine), 50 * HOUR).0, "True");
    }
}

#[test]
fn what_a_restore_saved_before_it_replaced_it_protects_nothing_and_is_no_success() {
    let mut safety = complete("safety", 40 * HOUR, &["db"], 1);
    safety.metadata.labels = Some([(crate::plan::names::SAFETY_LABEL.to_owned(), "undo".to_owned())].into());
    let backups = [complete("old", HOUR, &["db"], 1000), failed("bad", 30 * HOUR, "no such user: ann"), safety];
    let (status, reason, message) = told(&promising(), &backups, 50 * HOUR);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "BackupTooOld"));
    assert!(message.contains("source db is old") && message.contains("bad failed"), "{message}");
    let status = plan_policy(&promising(), &observed(&backups), at(50 * HOUR)).status;
    assert_eq!(status.recovery_window.map(|w| w.to), Some(Time(at(HOUR))));
    assert_eq!(status.consecutive_failures, Some(1));
    assert_eq!(status.last_successful_time, Some(Time(at(HOUR + 60))));
    assert_eq!(status.last_backup.map(|b| b.name), Some("bad".to_owned()));
    assert_eq!(status.backups.map(|b| b.complete), Some(2), "it is there, and takes its place in the bucket");
    assert!(!is_of_all_sources(&backups[2], &promising()), "nor is it compared with");
}

#[test]
fn a_slot_of_a_wrong_clock_does_not_protect_for_years() {
    let mut far = complete("far", HOUR, &["db"], 1);
    let annotations = [(crate::plan::names::SLOT_ANNOTATION.to_owned(), at(900_000 * HOUR).to_string())];
    far.metadata.annotations = Some(annotations.into());
    assert_eq!(told(&promising(), &[far.clone()], 2 * HOUR).0, "True");
    assert_eq!(told(&promising(), &[far], 60 * HOUR).0, "False");
}

#[test]
fn the_recovery_window_is_that_of_complete_backups_that_stay() {
    let window = |backups: &[Backup]| {
        let status = plan_policy(&policy(), &observed(backups), at(100 * HOUR)).status;
        status.recovery_window.map(|w| (w.from.0, w.to.0))
    };
    assert_eq!(window(&[failed("f", 1, "no")]), None);
    assert_eq!(window(&[complete("a", 5, &["db"], 1)]), Some((at(5), at(5))));
    let mut going = complete("going", 1, &["db"], 1);
    going.metadata.deletion_timestamp = Some(Time(at(90)));
    let backups = [
        going,
        complete("b", 7, &["db"], 1),
        complete("a", 5, &["db"], 1),
        complete("c", 9, &["db"], 1),
        failed("f", 11, "no"),
    ];
    assert_eq!(window(&backups), Some((at(5), at(9))));
}

#[test]
fn growth_is_the_slope_of_the_sizes_of_the_last_thirty_days() {
    type Sizes<'a> = &'a [(i64, i64)];
    let day = 24 * HOUR;
    let of = |sizes: &[(i64, i64)]| growth(&sizes.iter().map(|(slot, bytes)| (at(*slot), *bytes)).collect::<Vec<_>>());
    let table: [(Sizes<'_>, Option<i64>); 8] = [
        (&[], None),
        (&[(0, 5)], None),
        (&[(0, 5), (day - 1, 10)], None),
        (&[(0, 5), (day, 105)], Some(100)),
        (&[(3 * day, 400), (0, 100), (day, 200), (2 * day, 300)], Some(100)),
        (&[(0, 900), (2 * day, 100)], Some(-400)),
        // One that stands out moves the line, and does not become it.
        (&[(0, 100), (day, 100), (2 * day, 100), (3 * day, 100), (4 * day, 200)], Some(20)),
        // What is older than 30 days does not count.
        (&[(0, 1_000_000), (40 * day, 100), (42 * day, 120)], Some(10)),
    ];
    for (sizes, wanted) in table {
        assert_eq!(of(sizes), wanted, "{sizes:?}");
    }
    let vast: Vec<(i64, i64)> = (0..10_000).map(|i| (i * 250, if i % 2 == 0 { i64::MAX } else { 0 })).collect();
    assert!(of(&vast).is_some(), "no size is too large");
}

#[test]
fn only_backups_of_all_sources_count_for_growth() {
    let day = 24 * HOUR;
    let mut policy = policy();
    policy.spec.sources = vec![source("db"), source("reports")];
    let backups = [
        complete("a", day, &["db", "reports"], 1000),
        complete("b", 2 * day, &["db", "reports"], 1010),
        complete("by-hand", 3 * day, &["db"], 1),
    ];
    let status = plan_policy(&policy, &observed(&backups), at(4 * day)).status;
    assert_eq!(status.growth_bytes_per_day, Some(10));
    assert_eq!(status.stored_bytes, Some(2011));
}

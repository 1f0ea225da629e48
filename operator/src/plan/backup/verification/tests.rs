use std::sync::Arc;

use holdfast_crds::{BackupPhase, condition};

use super::*;
use crate::plan::backup::plan_backup;
use crate::plan::fixture::{
    at, attempt, backup_with, completed, ended_pod, failed, install, job as a_job, pending_pod, policy, ready_store,
};
use crate::plan::names::VERIFY_ANNOTATION;
use crate::plan::observed::{JobEnd, ObservedJob};
use crate::plan::verify::is_damaged;

fn complete() -> Backup {
    let status = BackupStatus {
        phase: BackupPhase::Completed,
        run_id: Some("r1".into()),
        store: Some("main".into()),
        completion_time: Some(Time(at(200))),
        ..BackupStatus::default()
    };
    backup_with("b", 100, status)
}

fn known(value: Option<bool>) -> Backup {
    let mut backup = complete();
    let told = condition(ConditionType::Verified, value, Reason::Verified, "before", Some(1), at(300));
    backup.status.as_mut().unwrap().conditions.push(told);
    backup
}

fn verify_job(name: &str) -> ObservedJob {
    ObservedJob { task: VERIFY.into(), created: at(400), ..a_job(name) }
}

fn word(reason: Reason) -> Attempt {
    let code = i32::from(reason.exit_code().unwrap());
    let text = format!(r#"{{"reason":"{reason}","message":"its words"}}"#);
    let job = if code == 0 { completed(verify_job("v")) } else { failed(verify_job("v")) };
    attempt(job, vec![ended_pod("p", code, &text)])
}

fn follow(backup: &Backup, attempt: Attempt, now: i64) -> Plan<BackupStatus> {
    let observed = ObservedBackup {
        policy: Some(Arc::new(policy())),
        store: Some(Arc::new(ready_store())),
        jobs: vec![attempt],
        ..ObservedBackup::default()
    };
    plan_backup(&install(), backup, &observed, at(now))
}

fn verified(plan: &Plan<BackupStatus>) -> Option<(&str, &str)> {
    find(&plan.status.conditions, ConditionType::Verified).map(|c| (c.status.as_str(), c.reason.as_str()))
}

#[test]
fn a_whole_one_says_so_with_the_time() {
    let plan = follow(&complete(), word(Reason::Completed), 600);
    assert_eq!(verified(&plan), Some(("True", "Verified")));
    let told = plan.status.verification.unwrap();
    assert_eq!((told.last_verified_time, told.last_attempt_time), (Some(Time(at(500))), Some(Time(at(500)))));
    assert_eq!((told.job.as_deref(), told.reason), (Some("v"), None));
    assert!(plan.events.iter().any(|e| !e.warning && e.reason == "Verified" && e.note == "its words"));
}

#[test]
fn damage_is_told_whatever_was_known_before() {
    for reason in [Reason::ChecksumMismatch, Reason::SourceIncomplete] {
        for before in [complete(), known(Some(true)), known(None)] {
            let plan = follow(&before, word(reason), 600);
            assert_eq!(verified(&plan), Some(("False", reason.to_string().as_str())));
            assert!(
                is_damaged(&plan.status) && plan.status.verification.as_ref().unwrap().last_verified_time.is_some()
            );
            assert!(plan.events.iter().any(|e| e.warning && e.reason == reason.to_string()));
        }
    }
    assert_eq!(verified(&follow(&known(Some(false)), word(Reason::Completed), 600)), Some(("True", "Verified")));
}

#[test]
fn what_could_not_be_found_out_is_no_damage_and_heals_none() {
    // What is nowhere is not damaged: the bucket is read for it, and that says whether it is gone.
    let unfound = [
        Reason::StoreUnreachable,
        Reason::StoreRefused,
        Reason::DeadlineExceeded,
        Reason::Stalled,
        Reason::NoMatchingBackup,
    ];
    let locked = [Reason::KeyMissing, Reason::InvalidConfiguration];
    for reason in unfound.into_iter().chain(locked) {
        let word_of = reason.to_string();
        let plan = follow(&complete(), word(reason), 600);
        assert_eq!(verified(&plan), Some(("Unknown", word_of.as_str())));
        let told = plan.status.verification.clone().unwrap();
        assert_eq!((told.last_verified_time, told.reason), (None, Some(reason)));
        assert!(told.message.unwrap().contains("its words") && told.last_attempt_time.is_some());
        assert!(plan.events.iter().any(|e| e.warning && e.note.starts_with("it could not be verified")));

        let plan = follow(&known(Some(false)), word(reason), 600);
        assert_eq!(verified(&plan), Some(("False", "Verified")), "{reason}");
        // Nobody knows any more whether what cannot be opened is good; the bytes in a store that is away are what they were.
        let plan = follow(&known(Some(true)), word(reason), 600);
        let expected = if locked.contains(&reason) { "Unknown" } else { "True" };
        assert_eq!(verified(&plan).unwrap().0, expected, "{reason}");
    }
}

#[test]
fn one_whose_pod_never_starts_is_given_up_and_taken_away() {
    let waiting = attempt(verify_job("v"), vec![pending_pod("p", 400)]);
    let plan = follow(&complete(), waiting.clone(), 420);
    assert_eq!((verified(&plan), plan.next_check.is_some()), (None, true));
    let given_up = follow(&complete(), waiting.clone(), 400 + 200);
    assert_eq!(verified(&given_up), Some(("Unknown", "PodNotStarted")));
    assert!(given_up.actions.is_empty(), "not before it is written down");
    let written = Backup { status: Some(given_up.status), ..complete() };
    let after = follow(&written, waiting, 700);
    assert!(matches!(after.actions.as_slice(), [Action::DeleteJob(target)] if target.name == "v"), "{after:?}");
    assert!(after.events.is_empty(), "it is told once");
}

#[test]
fn jobs_stay_for_their_logs_and_not_longer_however_old_the_backup_is() {
    let month = 30 * 86_400;
    let ended = |completed, at_second| {
        let end = JobEnd { completed, at: at(at_second), reason: String::new(), message: String::new() };
        let report = if completed { ended_pod("p", 0, r#"{"reason":"Completed"}"#) } else { ended_pod("p", 17, "") };
        attempt(ObservedJob { end: Some(end), ..verify_job("v") }, vec![report])
    };
    for (whole, seconds) in [(true, COMPLETED_JOB_SECONDS), (false, FAILED_JOB_SECONDS)] {
        let attempt = ended(whole, month);
        let first = follow(&complete(), attempt.clone(), month + 10);
        assert!(first.actions.is_empty() && verified(&first).is_some());
        let written = Backup { status: Some(first.status), ..complete() };
        let kept = follow(&written, attempt.clone(), month + seconds - 1);
        assert!(kept.actions.is_empty() && kept.next_check == Some(at(month + seconds)), "{kept:?}");
        let gone = follow(&written, attempt, month + seconds);
        assert!(matches!(gone.actions.as_slice(), [Action::DeleteJob(_)]));
        assert_eq!(gone.status, written.status.clone().unwrap());
    }
    // However late it is looked at, what it found is written down before it goes.
    let late = follow(&complete(), ended(true, month), 2 * month);
    assert!(late.actions.is_empty() && verified(&late).is_some());
}

#[test]
fn a_request_is_done_when_the_verification_that_it_asked_for_is() {
    let mut backup = complete();
    backup.metadata.annotations.get_or_insert_default().insert(VERIFY_ANNOTATION.to_owned(), "monday".to_owned());
    let asked = job::verify_name(&backup, &asked_by_hand("monday"));
    let of = |name: &str| {
        let mut attempt = word(Reason::Completed);
        attempt.job.name = name.to_owned();
        follow(&backup, attempt, 600).status.verification.unwrap().request
    };
    assert_eq!(of(&asked).as_deref(), Some("monday"));
    assert_eq!(of("one-of-the-schedule"), None);
}

#[test]
fn what_was_found_in_the_bucket_is_verified_too() {
    let mut backup = complete();
    let annotations = backup.metadata.annotations.get_or_insert_default();
    annotations.insert(crate::plan::names::FOUND_ANNOTATION.to_owned(), "{}".to_owned());
    assert_eq!(verified(&follow(&backup, word(Reason::ChecksumMismatch), 600)).unwrap().0, "False");
}

//! What becomes of Backups that the API server refuses. Pure.

use std::sync::Arc;

use holdfast_crds::{BackupPhase, ConditionType, Reason, RetentionSpec};

use super::*;
use crate::plan::action::Action;
use crate::plan::backup::plan_backup;
use crate::plan::fixture::{
    at, attempt, backup, backup_with, completed, install, job as a_job, policy, ready_store, source, unready_store,
};
use crate::plan::job;
use crate::plan::names::SLOT_ANNOTATION;
use crate::plan::observed::{Attempt, ObservedJob};
use crate::plan::status::find;
use crate::plan::turn::Wait;

const WORDS: &str = "the API server refused to create Job shop/b: exceeded quota: none";

fn observed() -> ObservedBackup {
    ObservedBackup {
        policy: Some(Arc::new(policy())),
        store: Some(Arc::new(ready_store())),
        ..ObservedBackup::default()
    }
}

fn quota(began: bool) -> Refusal {
    Refusal { failure: Failure::new(Reason::QuotaExceeded, WORDS), task: Some("backup".into()), began }
}

/// One that was refused at this time.
fn refused_at(backup: &Backup, observed: &ObservedBackup, now: i64, began: bool) -> (Backup, Plan<BackupStatus>) {
    let planned = plan_backup(&install(), backup, observed, at(now));
    assert!(!planned.actions.is_empty(), "it is tried: {:?}", planned.status);
    let plan = refuse(backup, observed.policy.as_deref(), Some(&planned.status), &quota(began), at(now));
    (Backup { status: Some(plan.status.clone()), ..backup.clone() }, plan)
}

fn scheduled(name: &str, slot: i64) -> Backup {
    let mut backup = backup(name, slot + 1);
    backup.metadata.labels = Some([(SCHEDULED_LABEL.to_owned(), "true".to_owned())].into());
    backup.metadata.annotations = Some([(SLOT_ANNOTATION.to_owned(), at(slot).to_string())].into());
    backup
}

fn complete_of(status: &BackupStatus) -> (String, String, String) {
    let told = find(&status.conditions, ConditionType::Complete).unwrap();
    (told.status.clone(), told.reason.clone(), told.message.clone())
}

#[test]
fn a_refusal_is_said_once_in_the_servers_words_and_tried_again_until_the_deadline() {
    for new in [backup("b", 1000), scheduled("b", 1000)] {
        let (waiting, plan) = refused_at(&new, &observed(), 1001, false);
        let (value, reason, message) = complete_of(&plan.status);
        assert_eq!(
            (plan.status.phase, value.as_str(), reason.as_str()),
            (BackupPhase::Pending, "False", "QuotaExceeded")
        );
        assert_eq!(message, format!("{WORDS}; it is tried again until 1970-01-01T01:16:40Z"));
        assert_eq!((plan.events.len(), plan.next_check), (1, Some(at(4600))));
        assert_eq!((&plan.status.run_id, &plan.status.start_time), (&None, &None), "nothing of it has started");

        let (_, again) = refused_at(&waiting, &observed(), 2000, false);
        assert_eq!(
            (Some(&again.status), again.events.len()),
            (waiting.status.as_ref(), 0),
            "nothing new, nothing written"
        );

        // The quota is lifted.
        let plan = plan_backup(&install(), &waiting, &observed(), at(3000));
        assert_eq!((plan.status.phase, plan.actions.len()), (BackupPhase::Running, 1));

        let plan = plan_backup(&install(), &waiting, &observed(), at(4600));
        assert_eq!((plan.status.phase, plan.actions.len(), plan.events.len()), (BackupPhase::Failed, 0, 2));
        let (_, reason, message) = complete_of(&plan.status);
        assert_eq!(reason, "QuotaExceeded");
        assert!(message.starts_with(WORDS) && message.contains("it was tried until"), "{message}");
        let late = refuse(&waiting, Some(&policy()), None, &quota(false), at(4600));
        assert_eq!(late.status.phase, BackupPhase::Failed, "also where nothing around it can be looked at");
    }
}

#[test]
fn of_a_schedule_the_newest_goes_on_waiting_and_the_older_ones_fail() {
    let (older, _) = refused_at(&scheduled("older", 1000), &observed(), 1001, false);
    let with =
        |siblings: Vec<Backup>| ObservedBackup { siblings: siblings.into_iter().map(Arc::new).collect(), ..observed() };
    let plan = plan_backup(&install(), &older, &with(vec![older.clone(), scheduled("newer", 1600)]), at(1601));
    assert_eq!(plan.status.phase, BackupPhase::Failed);
    let (_, reason, message) = complete_of(&plan.status);
    assert_eq!(
        (reason.as_str(), message),
        ("QuotaExceeded", format!("{WORDS}; Backup newer, of the next slot, takes its place"))
    );
    // One by hand takes nobody's place, and neither does an earlier one, nor one that is going.
    let mut going = scheduled("going", 1600);
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    for other in [backup("by-hand", 1600), scheduled("before", 400), going] {
        let plan = plan_backup(&install(), &older, &with(vec![older.clone(), other]), at(1601));
        assert_eq!(plan.status.phase, BackupPhase::Running, "{:?}", plan.status);
    }
}

#[test]
fn a_run_of_which_a_part_was_created_goes_on_with_it_and_is_stopped_with_it() {
    let mut policy = policy();
    policy.spec.sources = vec![source("db"), source("cache")];
    let observed = ObservedBackup { policy: Some(Arc::new(policy)), ..observed() };
    let (waiting, plan) = refused_at(&backup("b", 1000), &observed, 1001, true);
    assert_eq!((plan.status.phase, plan.status.store.as_deref()), (BackupPhase::Pending, Some("main")));
    assert!(plan.status.run_id.is_some(), "its data can be found and deleted");
    let name = job::backup_name(&waiting, "db");
    let db = attempt(ObservedJob { name, source: "db".into(), ..a_job("x") }, vec![]);
    let with_db = ObservedBackup { jobs: vec![db], ..observed.clone() };
    let plan = plan_backup(&install(), &waiting, &with_db, at(1100));
    assert_eq!(
        (plan.status.phase, &plan.status.run_id),
        (BackupPhase::Running, &waiting.status.as_ref().unwrap().run_id)
    );

    let (kept, late) = refused_at(&waiting, &with_db, 4599, true);
    assert_eq!(late.status.phase, BackupPhase::Pending);
    let over = plan_backup(&install(), &kept, &with_db, at(4600));
    assert_eq!((over.status.phase, over.status.artifacts.len()), (BackupPhase::Failed, 1));
    let over = Backup { status: Some(over.status), ..kept };
    let plan = plan_backup(&install(), &over, &with_db, at(4601));
    assert!(matches!(&plan.actions[..], [Action::DeleteJob(_)]), "{:?}", plan.actions);
}

#[test]
fn what_was_refused_stays_said_while_it_waits_for_its_turn() {
    let (waiting, _) = refused_at(&backup("b", 1000), &observed(), 1001, false);
    let turn = Some(Wait { position: 3, why: "20 of at most 20 runs are under way".into() });
    let plan = plan_backup(&install(), &waiting, &ObservedBackup { turn, ..observed() }, at(1100));
    assert_eq!(plan.status.queue_position, Some(3));
    assert!(refused(&plan.status).is_some() && plan.actions.is_empty());
}

#[test]
fn a_backup_whose_store_cannot_be_proved_for_the_same_reason_waits_as_long() {
    let store = unready_store(Reason::QuotaExceeded, WORDS);
    let observed = ObservedBackup { store: Some(Arc::new(store)), ..observed() };
    let plan = plan_backup(&install(), &backup("b", 1000), &observed, at(1000 + GRACE_SECONDS));
    assert_eq!((plan.status.phase, complete_of(&plan.status).1.as_str()), (BackupPhase::Pending, "QuotaExceeded"));
    let plan = plan_backup(&install(), &backup("b", 1000), &observed, at(4600));
    assert_eq!(plan.status.phase, BackupPhase::Failed);
}

#[test]
fn retention_that_is_refused_is_said_until_its_job_is_there() {
    let mut policy = policy();
    policy.spec.retention = Some(RetentionSpec { keep_last: Some(3), ..RetentionSpec::default() });
    let status = BackupStatus {
        phase: BackupPhase::Completed,
        run_id: Some("r".into()),
        store: Some("main".into()),
        completion_time: Some(Time(at(2000))),
        ..BackupStatus::default()
    };
    let done = backup_with("b", 1000, status);
    let observed =
        ObservedBackup { policy: Some(Arc::new(policy)), siblings: vec![Arc::new(done.clone())], ..observed() };
    let planned = plan_backup(&install(), &done, &observed, at(2001));
    assert!(matches!(&planned.actions[..], [Action::CreateJob(_)]));
    let refusal = Refusal { task: Some("retain".into()), ..quota(false) };
    let plan = refuse(&done, observed.policy.as_deref(), Some(&planned.status), &refusal, at(2001));
    let said =
        |status: &BackupStatus| find(&status.conditions, ConditionType::RetentionApplied).map(|c| c.reason.clone());
    assert_eq!(said(&plan.status).as_deref(), Some("QuotaExceeded"));
    assert_eq!(plan.status.phase, BackupPhase::Completed);
    let said_so = Backup { status: Some(plan.status), ..done };
    let lifted = plan_backup(&install(), &said_so, &observed, at(2100));
    assert_eq!((said(&lifted.status), lifted.actions.len()), (None, 1));
}

#[test]
fn a_backup_that_cannot_be_deleted_says_why_once() {
    let status = BackupStatus {
        phase: BackupPhase::Running,
        run_id: Some("r".into()),
        store: Some("main".into()),
        ..BackupStatus::default()
    };
    let mut going = backup_with("b", 1000, status);
    going.spec.deletion_policy = DeletionPolicy::Delete;
    going.metadata.finalizers = Some(vec![crate::plan::names::FINALIZER.to_owned()]);
    going.metadata.deletion_timestamp = Some(Time(at(1500)));
    let told = |plan: &Plan<BackupStatus>| {
        find(&plan.status.conditions, ConditionType::DataDeleted)
            .map(|c| (c.reason.clone(), c.message.clone()))
            .unwrap()
    };
    let gone = ObservedBackup { store: None, ..observed() };
    let plan = plan_backup(&install(), &going, &gone, at(1501));
    assert_eq!((told(&plan).0.as_str(), plan.events.len()), ("StoreNotFound", 1));
    let said = Backup { status: Some(plan.status), ..going.clone() };
    let again = plan_backup(&install(), &said, &gone, at(1600));
    assert_eq!((Some(&again.status), again.events.len()), (said.status.as_ref(), 0));

    let refusal = Refusal { task: Some("delete".into()), ..quota(false) };
    let plan = refuse(&going, None, None, &refusal, at(1501));
    assert_eq!((told(&plan).0.as_str(), plan.events.len()), ("QuotaExceeded", 1));
    assert!(told(&plan).1.contains("run r is not deleted yet") && told(&plan).1.contains("exceeded quota"));
    let ended: Attempt = attempt(ObservedJob { name: job::delete_name(&going), ..completed(a_job("x")) }, vec![]);
    let done = plan_backup(&install(), &going, &ObservedBackup { jobs: vec![ended], ..observed() }, at(1700));
    assert!(matches!(&done.actions[..], [Action::SetFinalizers(..)]), "{:?}", done.actions);
}

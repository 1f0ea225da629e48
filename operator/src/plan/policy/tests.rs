//! The table of what a policy does. Pure.

use holdfast_crds::RetentionSpec;

use super::*;
use crate::plan::fixture::{
    at, attempt, backup, backup_with, completed, ended_pod, failed, job as a_job, policy, ready_store, unready_store,
};
use crate::plan::names::CATCH_UP_ANNOTATION;

/// 1970-01-02 02:00 UTC: the slot of the fixture's policy.
const SLOT: i64 = 86_400 + 7200;

fn observed(backups: Vec<Backup>) -> ObservedPolicy {
    ObservedPolicy {
        store: Some(Arc::new(ready_store())),
        backups: backups.into_iter().map(Arc::new).collect(),
        ..ObservedPolicy::default()
    }
}

/// A policy whose slots up to `SLOT` minus a day are decided.
fn settled() -> BackupPolicy {
    let mut policy = policy();
    policy.status = Some(plan_policy(&policy, &observed(vec![]), at(SLOT - 86_000)).status);
    policy.status.as_mut().unwrap().last_scheduled_time = Some(Time(at(SLOT - 86_400)));
    policy
}

fn ended(name: &str, slot: i64, phase: BackupPhase, reason: Reason) -> Backup {
    let value = phase == BackupPhase::Completed;
    let complete =
        holdfast_crds::condition(ConditionType::Complete, Some(value), reason, "its words", None, at(slot + 60));
    let status = BackupStatus {
        phase,
        completion_time: Some(Time(at(slot + 60))),
        stored_bytes: value.then_some(100),
        conditions: vec![complete],
        ..BackupStatus::default()
    };
    let mut backup = backup_with(name, slot, status);
    backup.metadata.labels = Some(BTreeMap::from([(SCHEDULED_LABEL.to_owned(), "true".to_owned())]));
    backup
}

fn created_backups(plan: &Plan<BackupPolicyStatus>) -> Vec<&str> {
    plan.actions
        .iter()
        .filter_map(|a| match a {
            Action::CreateBackup(b) => b.metadata.name.as_deref(),
            _ => None,
        })
        .collect()
}

fn state(plan: &Plan<BackupPolicyStatus>, type_: ConditionType) -> (String, String) {
    find(&plan.status.conditions, type_).map(|c| (c.status.clone(), c.reason.clone())).unwrap_or_default()
}

fn reasons(plan: &Plan<BackupPolicyStatus>) -> Vec<&str> {
    plan.events.iter().map(|e| e.reason.as_str()).collect()
}

#[test]
fn a_slot_makes_one_backup() {
    let before = plan_policy(&settled(), &observed(vec![]), at(SLOT - 1));
    assert!(before.actions.is_empty());
    assert_eq!(before.next_check, Some(at(SLOT)));
    let plan = plan_policy(&settled(), &observed(vec![]), at(SLOT));
    assert_eq!(created_backups(&plan), ["shop-19700102-020000"]);
    assert_eq!(plan.status.last_scheduled_time, Some(Time(at(SLOT))));
    assert_eq!(plan.status.next_scheduled_time, Some(Time(at(SLOT + 86_400))));
    assert_eq!(plan.next_check, Some(at(SLOT + 86_400)));
    let Action::CreateBackup(made) = &plan.actions[0] else { panic!() };
    assert_eq!(slot_of(made), at(SLOT));
    assert!(made.metadata.owner_references.is_none(), "a restore point outlives its policy");
    // The Backup was created and the cursor was not written.
    let again = plan_policy(&settled(), &observed(vec![backup("shop-19700102-020000", SLOT)]), at(SLOT + 1));
    assert!(again.actions.is_empty() && again.events.is_empty());
    assert_eq!(again.status.last_scheduled_time, Some(Time(at(SLOT))));
}

#[test]
fn a_policy_that_rests_writes_nothing() {
    let mut policy = settled();
    policy.status = Some(plan_policy(&policy, &observed(vec![]), at(SLOT - 5000)).status);
    for now in [SLOT - 4000, SLOT - 3000, SLOT - 1] {
        let plan = plan_policy(&policy, &observed(vec![]), at(now));
        assert_eq!(Some(&plan.status), policy.status.as_ref());
        assert!(plan.actions.is_empty() && plan.events.is_empty());
    }
    policy.spec.suspend = true;
    policy.status = Some(plan_policy(&policy, &observed(vec![]), at(SLOT - 10)).status);
    let plan = plan_policy(&policy, &observed(vec![]), at(SLOT + 500_000));
    assert_eq!(Some(&plan.status), policy.status.as_ref(), "nor does one that is suspended");
    assert!(plan.actions.is_empty());
}

fn of_schedule(name: &str, slot: i64, status: BackupStatus) -> Backup {
    let mut backup = backup_with(name, slot, status);
    backup.metadata.labels = Some(BTreeMap::from([(SCHEDULED_LABEL.to_owned(), "true".to_owned())]));
    backup
}

fn refused_status() -> BackupStatus {
    let failure = Failure::new(Reason::QuotaExceeded, "the API server refused it: exceeded quota");
    let mut status = BackupStatus::default();
    say(&mut status.conditions, ConditionType::Complete, Some(false), &failure, Some(1), at(SLOT));
    status
}

#[test]
fn a_slot_passes_for_a_run_that_has_started_and_for_no_other() {
    let with_phase = |phase| BackupStatus { phase, ..BackupStatus::default() };
    let running = || with_phase(BackupPhase::Running);
    let mut going = backup_with("going", SLOT - 30, running());
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    let partly = BackupStatus { run_id: Some("r".into()), ..refused_status() };
    let pending = || with_phase(BackupPhase::Pending);
    let table = [
        (backup_with("running", SLOT - 30, running()), false, &["PreviousRunning"][..]),
        (backup_with("partly", SLOT - 30, partly), false, &["PreviousRunning", "QuotaExceeded"]),
        // Made by hand, and without its store or its turn.
        (backup("by-hand", SLOT - 30), true, &[]),
        // It saves what this slot would have, once it starts.
        (of_schedule("queued", SLOT - 600, pending()), false, &["MissedSlots"]),
        (of_schedule("refused", SLOT - 600, refused_status()), true, &["QuotaExceeded"]),
        (going, true, &[]),
    ];
    for (there, runs, told) in table {
        let name = there.metadata.name.clone().unwrap();
        let plan = plan_policy(&settled(), &observed(vec![there]), at(SLOT));
        assert_eq!(!created_backups(&plan).is_empty(), runs, "{name}");
        assert_eq!(reasons(&plan), told, "{name}");
        assert_eq!(plan.status.last_scheduled_time, Some(Time(at(SLOT))), "{name}");
    }
}

#[test]
fn what_is_refused_for_a_policy_is_said_on_it_and_the_slot_stays_due() {
    let words = |n: i64| {
        Failure::new(Reason::RequestRefused, format!("the API server refused to create Backup shop/b{n}: denied"))
    };
    let refused = |n| PolicyRefusals { backup: Some(words(n)), ..PolicyRefusals::default() };
    let with = |refused| ObservedPolicy { refused, ..observed(vec![]) };
    let plan = plan_policy(&settled(), &with(refused(1)), at(SLOT));
    assert_eq!(state(&plan, ConditionType::Ready), ("False".into(), "RequestRefused".into()));
    assert_eq!(reasons(&plan), ["RequestRefused"]);
    assert_eq!(plan.status.last_scheduled_time, Some(Time(at(SLOT - 86_400))), "it is not decided");
    let mut said = settled();
    said.status = Some(plan.status);
    assert!(plan_policy(&said, &with(refused(2)), at(SLOT + 60)).events.is_empty());
    let lifted = plan_policy(&said, &with(PolicyRefusals::default()), at(SLOT + 120));
    assert_eq!(created_backups(&lifted), ["shop-19700102-020000"]);
    assert_eq!(state(&lifted, ConditionType::Ready).0, "True");
    let late = plan_policy(&said, &with(refused(3)), at(SLOT + 3601));
    assert_eq!((created_backups(&late).len(), reasons(&late)), (0, vec!["MissedSlots"]));

    let catalogue = PolicyRefusals { catalogue: Some(words(1)), ..PolicyRefusals::default() };
    let plan = plan_policy(&settled(), &with(catalogue), at(SLOT));
    assert_eq!(state(&plan, ConditionType::Ready), ("False".into(), "RequestRefused".into()));
    assert_eq!(created_backups(&plan).len(), 1, "it holds up no slot");
    let plan = refuse(&settled(), &words(1), at(SLOT));
    assert_eq!(state(&plan, ConditionType::Ready), ("False".into(), "RequestRefused".into()));
}

#[test]
fn a_policy_whose_run_is_refused_says_so_until_one_gets_further() {
    let ready = |backups| {
        let plan = plan_policy(&settled(), &observed(backups), at(SLOT - 100));
        let ready = find(&plan.status.conditions, ConditionType::Ready).unwrap().clone();
        (ready.reason, ready.message)
    };
    let waiting = of_schedule("waiting", SLOT - 600, refused_status());
    let (reason, message) = ready(vec![waiting]);
    assert_eq!(reason, "QuotaExceeded");
    assert_eq!(message, "waiting cannot start: the API server refused it: exceeded quota");
    let failed = || ended("failed", SLOT - 900, BackupPhase::Failed, Reason::QuotaExceeded);
    assert_eq!(ready(vec![failed()]).0, "QuotaExceeded");
    let running = BackupStatus { phase: BackupPhase::Running, ..BackupStatus::default() };
    assert_eq!(ready(vec![failed(), of_schedule("next", SLOT - 600, running)]).0, "Ready", "it is put right");
}

#[test]
fn retention_that_could_not_start_is_told_by_the_newest_complete_run() {
    let mut policy = settled();
    policy.spec.retention = Some(RetentionSpec { keep_last: Some(3), ..RetentionSpec::default() });
    let refused = |name, slot| {
        let mut backup = ended(name, slot, BackupPhase::Completed, Reason::Completed);
        let failure = Failure::new(Reason::JobRefused, "the API server refused to create Job shop/r: denied");
        let conditions = &mut backup.status.as_mut().unwrap().conditions;
        say(conditions, ConditionType::RetentionApplied, Some(false), &failure, Some(1), at(slot));
        backup
    };
    let plan = plan_policy(&policy, &observed(vec![refused("new", SLOT - 900)]), at(SLOT - 1));
    assert_eq!(state(&plan, ConditionType::RetentionApplied), ("False".into(), "JobRefused".into()));
    assert_eq!(reasons(&plan).iter().filter(|r| **r == "JobRefused").count(), 1);
    let newer = ended("newer", SLOT - 600, BackupPhase::Completed, Reason::Completed);
    let plan = plan_policy(&policy, &observed(vec![refused("old", SLOT - 900), newer]), at(SLOT - 1));
    assert_eq!(state(&plan, ConditionType::RetentionApplied).0, "", "a later run says nothing of it");
}

#[test]
fn without_its_store_a_slot_waits_for_as_long_as_its_deadline_lasts() {
    let down = |now| {
        let store = Some(Arc::new(unready_store(Reason::Unreachable, "no route")));
        plan_policy(&settled(), &ObservedPolicy { store, ..observed(vec![]) }, at(now))
    };
    let plan = down(SLOT + 10);
    assert!(created_backups(&plan).is_empty());
    assert_eq!(state(&plan, ConditionType::Ready), ("False".into(), "StoreUnreachable".into()));
    assert_eq!(plan.status.last_scheduled_time, Some(Time(at(SLOT - 86_400))), "the cursor stays");
    let mut policy = settled();
    policy.status = Some(plan.status);
    let later = plan_policy(&policy, &observed(vec![]), at(SLOT + 3000));
    assert_eq!(created_backups(&later).len(), 1, "it is made up for by itself");
    let too_late = down(SLOT + 3601);
    assert_eq!(too_late.status.last_scheduled_time, Some(Time(at(SLOT))));
    assert!(reasons(&too_late).contains(&"MissedSlots"));
}

#[test]
fn a_cursor_of_a_wrong_clock_does_not_hold_slots_back() {
    let mut policy = settled();
    policy.status.as_mut().unwrap().last_scheduled_time = Some(Time(at(SLOT + 300_000_000)));
    let corrected = plan_policy(&policy, &observed(vec![]), at(SLOT - 100));
    assert!(corrected.actions.is_empty());
    assert_eq!(corrected.status.last_scheduled_time, Some(Time(at(SLOT - 100))));
    assert_eq!(corrected.status.next_scheduled_time, Some(Time(at(SLOT))));
    policy.status = Some(corrected.status);
    assert_eq!(created_backups(&plan_policy(&policy, &observed(vec![]), at(SLOT + 1))).len(), 1);
}

#[test]
fn bad_input_is_a_condition() {
    let with = |change: fn(&mut BackupPolicy)| {
        let mut policy = settled();
        change(&mut policy);
        policy
    };
    let table = [
        (with(|p| p.spec.schedule = Some("every day".into())), "InvalidSchedule"),
        (with(|p| p.spec.schedule = Some("0 0 31 2 *".into())), "NeverFires"),
        (with(|p| p.spec.time_zone = "Mars/Olympus".into()), "UnknownTimeZone"),
    ];
    for (policy, reason) in table {
        let plan = plan_policy(&policy, &observed(vec![]), at(SLOT));
        assert_eq!(state(&plan, ConditionType::Ready), ("False".into(), reason.into()));
        assert!(plan.actions.is_empty());
        assert_eq!(plan.events.len(), 1);
        let mut told = policy.clone();
        told.status = Some(plan.status);
        assert!(plan_policy(&told, &observed(vec![]), at(SLOT + 1)).events.is_empty(), "it is told once");
    }
    let missing = plan_policy(&settled(), &ObservedPolicy { store: None, ..observed(vec![]) }, at(SLOT - 9));
    assert_eq!(state(&missing, ConditionType::Ready).1, "StoreNotFound");
}

#[test]
fn what_the_api_server_would_refuse_and_globs_that_cannot_be_read_make_a_policy_not_ready() {
    let words = "the API server refuses the Job of source db: spec.template.labels: Invalid value";
    let refused = Failure::new(Reason::InvalidConfiguration, words);
    let plan = plan_policy(&settled(), &ObservedPolicy { trial: Some(refused), ..observed(vec![]) }, at(SLOT - 100));
    assert_eq!(state(&plan, ConditionType::Ready), ("False".into(), "InvalidConfiguration".into()));
    let ready = find(&plan.status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains(words), "{}", ready.message);
    assert_eq!(plan.next_check, Some(at(SLOT - 100 + 60)), "it is asked again");

    for glob in ["[z-a]", "{photos"] {
        let mut policy = settled();
        let volume =
            holdfast_crds::VolumeSource { exclude: vec![glob.into()], ..holdfast_crds::VolumeSource::default() };
        policy.spec.sources.push(holdfast_crds::Source {
            name: "uploads".into(),
            volume: Some(volume),
            ..holdfast_crds::Source::default()
        });
        let plan = plan_policy(&policy, &observed(vec![]), at(SLOT - 100));
        assert_eq!(state(&plan, ConditionType::Ready), ("False".into(), "InvalidConfiguration".into()));
        let ready = find(&plan.status.conditions, ConditionType::Ready).unwrap();
        assert!(
            ready.message.contains("source uploads: volume.exclude") && ready.message.contains(glob),
            "{}",
            ready.message
        );
    }
}

#[test]
fn run_on_create_runs_once() {
    let mut policy = policy();
    policy.spec.run_on_create = true;
    policy.spec.schedule = None;
    policy.metadata.creation_timestamp = Some(Time(at(1000)));
    let plan = plan_policy(&policy, &observed(vec![]), at(1003));
    assert_eq!(created_backups(&plan), ["shop-19700101-001640"]);
    policy.status = Some(plan.status);
    for now in [1004, 2000, 99_999] {
        assert!(created_backups(&plan_policy(&policy, &observed(vec![]), at(now))).is_empty());
    }
}

#[test]
fn the_status_sums_up_the_backups() {
    let backups = vec![
        ended("a", 100, BackupPhase::Completed, Reason::Completed),
        ended("b", 200, BackupPhase::Completed, Reason::Completed),
        ended("c", 300, BackupPhase::Failed, Reason::SourceRefused),
        ended("d", 400, BackupPhase::Failed, Reason::SourceRefused),
        backup("e", 500),
    ];
    let plan = plan_policy(&settled(), &observed(backups), at(1000));
    let status = &plan.status;
    assert_eq!(status.backups, Some(BackupCounts { complete: 2, failed: 2, ..BackupCounts::default() }));
    assert_eq!(status.stored_bytes, Some(200));
    assert_eq!(status.consecutive_failures, Some(2));
    assert_eq!(status.last_successful_time, Some(Time(at(260))));
    assert_eq!(status.last_backup.as_ref().map(|b| b.name.as_str()), Some("e"));
    assert_eq!(state(&plan, ConditionType::LastBackupSucceeded), ("False".into(), "SourceRefused".into()));
    assert_eq!(
        state(&plan, ConditionType::Ready).0,
        "True",
        "a run that failed at its source does not make a policy unready"
    );
    let empty = plan_policy(&settled(), &observed(vec![]), at(1000));
    assert_eq!(state(&empty, ConditionType::LastBackupSucceeded), ("Unknown".into(), "NoBackupYet".into()));
}

#[test]
fn a_run_that_could_not_start_makes_the_policy_unready_until_one_gets_further() {
    let stuck = ended("a", 100, BackupPhase::Failed, Reason::SecretNotFound);
    let plan = plan_policy(&settled(), &observed(vec![stuck.clone()]), at(SLOT));
    assert_eq!(state(&plan, ConditionType::Ready), ("False".into(), "SecretNotFound".into()));
    assert_eq!(created_backups(&plan).len(), 1, "the next slot runs all the same");
    let further = ended("b", 200, BackupPhase::Failed, Reason::SourceRefused);
    let plan = plan_policy(&settled(), &observed(vec![stuck, further]), at(1000));
    assert_eq!(state(&plan, ConditionType::Ready).0, "True");
}

#[test]
fn the_newest_ten_scheduled_failures_are_kept() {
    let mut backups: Vec<Backup> =
        (0..13).map(|i| ended(&format!("f{i:02}"), 100 * i, BackupPhase::Failed, Reason::DumpFailed)).collect();
    backups.push(ended("good", 5, BackupPhase::Completed, Reason::Completed));
    let mut by_hand = ended("by-hand", 1, BackupPhase::Failed, Reason::DumpFailed);
    by_hand.metadata.labels = None;
    backups.push(by_hand);
    let plan = plan_policy(&settled(), &observed(backups), at(5000));
    let mut gone: Vec<_> = plan
        .actions
        .iter()
        .map(|a| match a {
            Action::DeleteBackup(target) => target.name.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    gone.sort_unstable();
    assert_eq!(gone, ["f00", "f01", "f02"]);
}

#[test]
fn a_retention_that_failed_is_told_on_the_policy() {
    let mut policy = settled();
    policy.spec.retention = Some(RetentionSpec { keep_last: Some(3), ..RetentionSpec::default() });
    let pod = ended_pod("p", 14, r#"{"reason":"ListIncomplete","message":"run r1 is not listed"}"#);
    let broken = ObservedPolicy { retains: vec![attempt(failed(a_job("r")), vec![pod])], ..observed(vec![]) };
    let plan = plan_policy(&policy, &broken, at(1000));
    assert_eq!(state(&plan, ConditionType::RetentionApplied), ("False".into(), "ListIncomplete".into()));
    assert_eq!(state(&plan, ConditionType::Ready).0, "True");
    assert!(reasons(&plan).contains(&"ListIncomplete"));
    policy.status = Some(plan.status);
    assert!(plan_policy(&policy, &broken, at(1001)).events.is_empty());
    let fine = ObservedPolicy { retains: vec![attempt(completed(a_job("r")), vec![])], ..observed(vec![]) };
    let plan = plan_policy(&policy, &fine, at(1002));
    assert_eq!(state(&plan, ConditionType::RetentionApplied), ("True".into(), "Completed".into()));
}

#[test]
fn a_policy_with_a_retention_says_that_an_append_only_store_takes_none() {
    let mut policy = settled();
    policy.spec.retention = Some(RetentionSpec { keep_last: Some(3), ..RetentionSpec::default() });
    let mut store = ready_store();
    store.spec.append_only = true;
    let append_only = ObservedPolicy { store: Some(Arc::new(store)), ..observed(vec![]) };
    let plan = plan_policy(&policy, &append_only, at(1000));
    assert_eq!(state(&plan, ConditionType::RetentionApplied), ("False".into(), "StoreAppendOnly".into()));
    assert_eq!(state(&plan, ConditionType::Ready).0, "True", "backups go there all the same");
    assert!(reasons(&plan).contains(&"StoreAppendOnly"));
    policy.status = Some(plan.status);
    assert!(plan_policy(&policy, &append_only, at(1001)).events.is_empty());
    let plan = plan_policy(&policy, &observed(vec![]), at(1002));
    assert_eq!(state(&plan, ConditionType::RetentionApplied).0, "", "it may delete again, and has not yet");
    policy.spec.retention = None;
    let plan = plan_policy(&policy, &append_only, at(1003));
    assert_eq!(state(&plan, ConditionType::RetentionApplied).0, "", "nothing is asked for that is not done");
}

#[test]
fn any_policy_of_any_name_makes_a_backup_of_its_own() {
    let mut policy = settled();
    policy.metadata.name = Some("x".repeat(253));
    let plan = plan_policy(&policy, &observed(vec![]), at(SLOT));
    assert_eq!(created_backups(&plan)[0].len(), 253);
}

fn probed_at(second: i64) -> Arc<BackupStore> {
    let mut store = ready_store();
    store.status.as_mut().unwrap().last_probe_time = Some(Time(at(second)));
    Arc::new(store)
}

/// A scheduled run of the slot that failed a minute after it.
fn failed_run(reason: Reason) -> Backup {
    let mut backup = ended("shop-19700102-020000", SLOT, BackupPhase::Failed, reason);
    backup.metadata.annotations = Some([(SLOT_ANNOTATION.to_owned(), at(SLOT).to_string())].into());
    backup
}

#[test]
fn a_run_that_failed_for_its_store_is_made_up_for_once_when_the_store_is_back() {
    let decide = |backups: Vec<Backup>, probed: i64, now: i64| {
        let mut policy = settled();
        policy.status.as_mut().unwrap().last_scheduled_time = Some(Time(at(SLOT)));
        let observed = ObservedPolicy { store: Some(probed_at(probed)), ..observed(backups) };
        let plan = plan_policy(&policy, &observed, at(now));
        created_backups(&plan).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let down = || failed_run(Reason::StoreUnreachable);
    assert_eq!(
        decide(vec![down()], SLOT + 59, SLOT + 100),
        Vec::<String>::new(),
        "the store has not been heard of since"
    );
    assert_eq!(decide(vec![down()], SLOT + 90, SLOT + 100), ["shop-19700102-020100"]);
    assert_eq!(decide(vec![down()], SLOT + 90, SLOT + 3600), Vec::<String>::new(), "the slot is too late");
    assert_eq!(decide(vec![failed_run(Reason::DumpFailed)], SLOT + 90, SLOT + 100), Vec::<String>::new());
    let mut made_up = failed_run(Reason::StoreUnreachable);
    made_up.metadata.annotations.as_mut().unwrap().insert(CATCH_UP_ANNOTATION.to_owned(), "earlier".to_owned());
    assert_eq!(decide(vec![made_up], SLOT + 90, SLOT + 100), Vec::<String>::new(), "once");
    let running = backup("shop-19700102-020100", SLOT + 60);
    assert_eq!(decide(vec![down(), running], SLOT + 90, SLOT + 100), Vec::<String>::new(), "it is there already");
}

/// A run of these sources that failed, each for its reason; none: complete.
fn failed_sources(reasons: &[Option<Reason>]) -> Backup {
    let first = reasons.iter().flatten().next().copied().unwrap();
    let mut backup = failed_run(first);
    let artifact = |reason: &Option<Reason>| holdfast_crds::ArtifactStatus {
        phase: if reason.is_some() { BackupPhase::Failed } else { BackupPhase::Completed },
        reason: *reason,
        ..holdfast_crds::ArtifactStatus::default()
    };
    backup.status.as_mut().unwrap().artifacts = reasons.iter().map(artifact).collect();
    backup
}

#[test]
fn a_run_whose_pods_never_started_is_made_up_for_once() {
    let plan = |backups: Vec<Backup>, now: i64| {
        let mut policy = settled();
        policy.status.as_mut().unwrap().last_scheduled_time = Some(Time(at(SLOT)));
        plan_policy(&policy, &observed(backups), at(now))
    };
    let decide = |backups: Vec<Backup>, now: i64| {
        created_backups(&plan(backups, now)).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let none = Vec::<String>::new();
    let again = ["shop-19700102-020100".to_owned()];
    // It ended a minute after its slot.
    let when = SLOT + 60 + catch_up::AGAIN_SECONDS;
    for reason in [
        Reason::PodUnschedulable,
        Reason::PodNotStarted,
        Reason::ImagePullFailed,
        Reason::SecretNotFound,
        Reason::ConfigMapNotFound,
        Reason::ClaimNotFound,
    ] {
        let never = || failed_sources(&[Some(reason)]);
        let soon = plan(vec![never()], when - 1);
        assert_eq!((created_backups(&soon).len(), soon.next_check), (0, Some(at(when))), "{reason}");
        assert_eq!(decide(vec![never()], when), again, "{reason}");
        assert_eq!(decide(vec![never()], SLOT + 3600), none, "the slot is too late");
        let mut made_up = never();
        made_up.metadata.annotations.as_mut().unwrap().insert(CATCH_UP_ANNOTATION.to_owned(), "earlier".to_owned());
        assert_eq!(decide(vec![made_up], when), none, "once");
        let mut by_hand = never();
        by_hand.metadata.labels = None;
        assert_eq!(decide(vec![by_hand], when), none, "whoever asked for it was told");
    }
    let unschedulable = Some(Reason::PodUnschedulable);
    assert_eq!(decide(vec![failed_sources(&[unschedulable, None])], when), again, "the other source is complete");
    let tried = failed_sources(&[unschedulable, Some(Reason::DumpFailed)]);
    assert_eq!(decide(vec![tried], when), none, "a Pod of it started, and failed by itself");
}

#[test]
fn a_policy_says_what_its_newest_complete_backup_says_of_its_size() {
    let with = |value: bool, reason: Reason| {
        let mut backup = ended("one", SLOT - 90_000, BackupPhase::Completed, Reason::Completed);
        let said = holdfast_crds::condition(ConditionType::Plausible, Some(value), reason, "too small", None, at(0));
        backup.status.as_mut().unwrap().conditions.push(said);
        let later = ended("two", SLOT - 80_000, BackupPhase::Failed, Reason::DumpFailed);
        plan_policy(&settled(), &observed(vec![backup, later]), at(SLOT - 1))
    };
    assert_eq!(
        state(&with(false, Reason::Suspicious), ConditionType::Plausible),
        ("False".into(), "Suspicious".into())
    );
    assert_eq!(state(&with(true, Reason::Plausible), ConditionType::Plausible), ("True".into(), "Plausible".into()));
    let silent = plan_policy(&settled(), &observed(vec![]), at(SLOT - 1));
    assert_eq!(state(&silent, ConditionType::Plausible), (String::new(), String::new()));
}

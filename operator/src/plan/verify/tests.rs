use std::sync::Arc;

use holdfast_crds::{ArtifactStatus, BackupPhase, VerificationStatus, VerifySpec, condition};

use super::*;
use crate::plan::fixture::{
    at, attempt, backup_with, completed, ended_pod, install, job as a_job, policy, ready_store, unready_store,
};
use crate::plan::observed::Owner;
use crate::plan::refused::PolicyRefusals;
use crate::task::{Outcome, Report, RetainReport, Task};

const DAY: i64 = 86_400;

/// A policy that verifies two backups at each midnight, and has decided about everything up to now.
fn verifying() -> BackupPolicy {
    let mut policy = policy();
    policy.spec.verify = Some(VerifySpec { schedule: "@daily".into(), max_backups: 2 });
    policy
}

/// A complete backup of a day, tried on another.
fn kept(name: &str, day: i64, tried: Option<i64>) -> Backup {
    let status = BackupStatus {
        phase: BackupPhase::Completed,
        run_id: Some(format!("run-of-{name}")),
        store: Some("main".into()),
        completion_time: Some(Time(at(day * DAY + 60))),
        artifacts: vec![ArtifactStatus { source: "db".into(), ..ArtifactStatus::default() }],
        verification: tried.map(|day| VerificationStatus {
            last_attempt_time: Some(Time(at(day * DAY + 600))),
            last_verified_time: Some(Time(at(day * DAY + 600))),
            ..VerificationStatus::default()
        }),
        conditions: vec![],
        ..BackupStatus::default()
    };
    backup_with(name, day * DAY, status)
}

fn said(mut backup: Backup, value: Option<bool>, reason: Reason) -> Backup {
    let status = backup.status.as_mut().unwrap();
    status.conditions.push(condition(ConditionType::Verified, value, reason, "its words", Some(1), at(0)));
    backup
}

fn asking(mut backup: Backup, text: &str) -> Backup {
    backup.metadata.annotations.get_or_insert_default().insert(VERIFY_ANNOTATION.to_owned(), text.to_owned());
    backup
}

fn observed(backups: Vec<Backup>) -> ObservedPolicy {
    ObservedPolicy {
        store: Some(Arc::new(ready_store())),
        backups: backups.into_iter().map(Arc::new).collect(),
        stores: [("main".to_owned(), Arc::new(ready_store()))].into(),
        ..ObservedPolicy::default()
    }
}

fn plan(policy: &BackupPolicy, observed: &ObservedPolicy, now: i64) -> Plan<BackupPolicyStatus> {
    let mut plan = Plan::keep(policy.status.clone().unwrap_or_default());
    plan_verify(&mut plan, &install(), policy, observed, at(now));
    plan
}

/// The policy after the schedule's time of a day was noticed, when there were these backups.
fn due_on(day: i64, backups: &[Backup]) -> BackupPolicy {
    let mut policy = verifying();
    for now in [(day - 1) * DAY + 1, day * DAY + 1] {
        policy.status = Some(plan(&policy, &observed(backups.to_vec()), now).status);
    }
    let at_work = policy.status.as_ref().unwrap().verification.clone().unwrap();
    assert_eq!(at_work.last_scheduled_time, Some(Time(at(day * DAY))));
    policy
}

/// The run that a plan starts to verify.
fn started(plan: &Plan<BackupPolicyStatus>) -> Option<String> {
    let job = match plan.actions.as_slice() {
        [] => return None,
        [Action::CreateJob(job)] => job,
        other => panic!("{other:?}"),
    };
    let env = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0].env.clone().unwrap();
    let Task::Verify(task) = serde_json::from_str(env[0].value.as_ref().unwrap()).unwrap() else { panic!("{env:?}") };
    assert_eq!(task.sources, ["db"]);
    Some(task.run_id)
}

fn of(job: &str, backup: &Backup) -> ObservedJob {
    let owner = Owner {
        kind: "Backup".into(),
        name: backup.metadata.name.clone().unwrap(),
        uid: backup.metadata.uid.clone().unwrap(),
    };
    ObservedJob { task: VERIFY.into(), owner: Some(owner), ..a_job(job) }
}

#[test]
fn the_newest_goes_first_and_then_those_that_waited_longest_up_to_the_number() {
    let now = 20 * DAY + 1000;
    // Stored on 1, 5, 10 and 19; the first was looked at on 9, so the second waits longest.
    let mut backups = vec![kept("a", 1, Some(9)), kept("b", 5, None), kept("c", 10, None), kept("d", 19, None)];
    let policy = due_on(20, &backups);
    assert_eq!(started(&plan(&policy, &observed(backups.clone()), now)).unwrap(), "run-of-d");
    backups[3] = kept("d", 19, Some(20));
    assert_eq!(started(&plan(&policy, &observed(backups.clone()), now)).unwrap(), "run-of-b");
    backups[1] = kept("b", 5, Some(20));
    assert_eq!(started(&plan(&policy, &observed(backups.clone()), now)), None, "two are enough for a day");
    // What comes later that day, or takes the place of what retention deletes, is for another day.
    let moved_on = vec![kept("c", 10, None), kept("later", 20, None)];
    assert_eq!(started(&plan(&policy, &observed(moved_on), now)), None);
    // Each has its turn: after as many days as it takes none is older than that.
    let mut policy = policy;
    for day in 21..24 {
        policy.status = Some(plan(&policy, &observed(backups.clone()), day * DAY + 1).status);
        while let Some(run) = started(&plan(&policy, &observed(backups.clone()), day * DAY + 1000)) {
            let name = run.strip_prefix("run-of-").unwrap();
            let place = backups.iter().position(|b| b.metadata.name.as_deref() == Some(name)).unwrap();
            backups[place] = kept(name, [1, 5, 10, 19][place], Some(day));
        }
    }
    let tried = |b: &Backup| last_attempt(b).unwrap().as_second() / DAY;
    assert_eq!(backups.iter().map(tried).collect::<Vec<_>>(), [21, 23, 22, 23]);
}

#[test]
fn nothing_is_made_up_for_that_was_before_and_a_late_look_still_counts() {
    let backups = vec![kept("a", 1, None)];
    let first = plan(&verifying(), &observed(backups.clone()), 20 * DAY + 1000);
    assert_eq!(started(&first), None, "its time has not come since it was asked for");
    let verification = first.status.verification.clone().unwrap();
    assert_eq!(verification.next_scheduled_time, Some(Time(at(21 * DAY))));
    assert_eq!(first.next_check, Some(at(21 * DAY)));
    let policy = BackupPolicy { status: Some(first.status), ..verifying() };
    let late = plan(&policy, &observed(backups.clone()), 23 * DAY + 5000);
    assert_eq!(late.status.verification.as_ref().unwrap().last_scheduled_time, Some(Time(at(23 * DAY))));
    assert_eq!(started(&late).unwrap(), "run-of-a");
    // An edited schedule counts from the edit.
    let mut edited = BackupPolicy { status: Some(late.status), ..verifying() };
    edited.spec.verify = Some(VerifySpec { schedule: "0 3 * * *".into(), max_backups: 2 });
    let after = plan(&edited, &observed(vec![kept("a", 1, Some(23))]), 24 * DAY + 7200);
    assert_eq!(started(&after), None);
    assert_eq!(after.status.verification.unwrap().next_scheduled_time, Some(Time(at(24 * DAY + 3 * 3600))));
}

#[test]
fn a_suspended_policy_verifies_what_is_asked_for_by_hand_alone() {
    let backups = vec![kept("a", 1, None), kept("b", 2, None)];
    let mut policy = due_on(20, &backups);
    policy.spec.suspend = true;
    let suspended = plan(&policy, &observed(backups), 21 * DAY);
    assert_eq!(started(&suspended), None);
    assert_eq!(suspended.status.verification.unwrap().next_scheduled_time, None);
    let backups = vec![asking(kept("a", 1, None), "now"), kept("b", 2, None)];
    assert_eq!(started(&plan(&policy, &observed(backups.clone()), 21 * DAY)).unwrap(), "run-of-a");
    // And so does one that has no schedule at all.
    policy.spec.verify = None;
    assert_eq!(started(&plan(&policy, &observed(backups), 21 * DAY)).unwrap(), "run-of-a");
}

#[test]
fn what_an_annotation_asked_for_is_done_once_for_each_text() {
    let policy = policy();
    let done = |text: &str, request: Option<&str>| {
        let mut backup = asking(kept("a", 1, Some(2)), text);
        backup.status.as_mut().unwrap().verification.as_mut().unwrap().request = request.map(str::to_owned);
        started(&plan(&policy, &observed(vec![backup]), 5 * DAY)).is_some()
    };
    assert!(done("monday", None) && done("tuesday", Some("monday")));
    assert!(!done("monday", Some("monday")) && !done("  ", None));
    let long = "x".repeat(5000);
    assert!(done(&long, None) && !done(&long, Some(&long[..REQUEST_LENGTH])), "a status stays small");
}

#[test]
fn one_is_read_after_the_other_and_none_while_retention_deletes() {
    let backups = vec![kept("a", 1, None), kept("b", 2, None)];
    let policy = due_on(20, &backups);
    let next = |verifications: Vec<ObservedJob>, retains| {
        let seen = ObservedPolicy { retains, verifications, ..observed(backups.clone()) };
        started(&plan(&policy, &seen, 20 * DAY + 1000))
    };
    assert_eq!(next(vec![], vec![]).unwrap(), "run-of-b");
    assert_eq!(next(vec![of("j", &backups[0])], vec![]), None, "under way");
    assert_eq!(next(vec![completed(of("j", &backups[0]))], vec![]), None, "its Backup does not know yet");
    let gone = ObservedJob { deleting: true, ..of("j", &backups[0]) };
    assert!(next(vec![gone], vec![]).is_some(), "somebody has deleted it");
    let left_over = of("j", &kept("c", 3, None));
    assert_eq!(next(vec![left_over.clone()], vec![]), None, "under way, though its Backup is gone");
    assert!(next(vec![completed(left_over.clone())], vec![]).is_some(), "nobody will hear what it found");
    let orphan = ObservedJob { owner: None, ..completed(left_over) };
    assert!(next(vec![orphan], vec![]).is_some(), "its Backup was deleted without it");
    assert_eq!(next(vec![], vec![attempt(a_job("r"), vec![])]), None);
    // What it deleted is not looked for, though its Backup is still there.
    let report = RetainReport { deleted: vec!["run-of-b".into()], ..RetainReport::default() };
    let report = Report::completed("", Some(Outcome::Retain(report))).to_termination_message();
    let retained = attempt(completed(a_job("r")), vec![ended_pod("p", 0, &report)]);
    assert_eq!(next(vec![], vec![retained]).unwrap(), "run-of-a");
}

#[test]
fn it_waits_for_its_store_and_for_room_in_it() {
    let backups = || vec![kept("a", 1, None)];
    let policy = due_on(20, &backups());
    let down = unready_store(Reason::Unreachable, "no answer");
    let away = ObservedPolicy { stores: [("main".to_owned(), Arc::new(down))].into(), ..observed(backups()) };
    assert_eq!(started(&plan(&policy, &away, 20 * DAY + 1000)), None);
    let crowded = Some("four of four".to_owned());
    let full = plan(&policy, &ObservedPolicy { crowded, ..observed(backups()) }, 20 * DAY + 1000);
    assert_eq!((started(&full), full.next_check), (None, Some(at(20 * DAY + 1000 + ROOM_SECONDS))));
    // It stays due.
    assert!(started(&plan(&policy, &observed(backups()), 20 * DAY + 9000)).is_some());
}

/// What a policy's next verification waits for: the Backup, the reason and the line.
fn waiting(plan: &Plan<BackupPolicyStatus>) -> Option<(String, Reason, String)> {
    let wait = plan.status.verification.as_ref()?.waiting.clone()?;
    Some((wait.backup, wait.reason, wait.message))
}

#[test]
fn what_the_next_one_waits_for_is_in_the_status_and_written_once() {
    let backups = vec![kept("a", 1, None), kept("b", 2, None)];
    let policy = due_on(20, &backups);
    let stores = |store: Option<BackupStore>| store.map(|s| ("main".to_owned(), Arc::new(s))).into_iter().collect();
    let seen = || observed(backups.clone());
    let down = unready_store(Reason::Unreachable, "no answer");
    let of_b = || of("j", &backups[1]);
    let full = "2 of at most 2 runs write to BackupStore main (spec.maxConcurrentRuns)";
    let queued = |why: &str| format!("it waits for its turn: {why}");
    let table = [
        (ObservedPolicy { crowded: Some(full.into()), ..seen() }, ("b", Reason::Queued, queued(full))),
        (
            ObservedPolicy { verifications: vec![of_b()], ..seen() },
            ("a", Reason::Queued, queued("Backup b of the same policy is being verified")),
        ),
        (
            ObservedPolicy { retains: vec![attempt(a_job("r"), vec![])], ..seen() },
            ("b", Reason::Queued, queued("the retention of the same policy is being applied")),
        ),
        (
            ObservedPolicy { stores: stores(Some(down)), crowded: Some(full.into()), ..seen() },
            ("b", Reason::StoreUnreachable, "BackupStore main is not ready (Unreachable): no answer".into()),
        ),
        (
            ObservedPolicy { stores: stores(None), ..seen() },
            ("b", Reason::StoreNotFound, "BackupStore main is not there: create it in this namespace".into()),
        ),
    ];
    for (there, (backup, reason, message)) in table {
        let first = plan(&policy, &there, 20 * DAY + 1000);
        assert_eq!((started(&first), waiting(&first)), (None, Some((backup.to_owned(), reason, message.clone()))));
        let told = find(&first.status.conditions, ConditionType::Verified).unwrap();
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("Unknown", "NotVerifiedYet"));
        assert_eq!(told.message, format!("no backup was verified yet; {backup}: {message}"));
        // It is as true an hour later.
        let waits = BackupPolicy { status: Some(first.status.clone()), ..policy.clone() };
        let later = plan(&waits, &there, 20 * DAY + 4600);
        assert_eq!((&later.status, later.events.len()), (&first.status, 0));
        // And over when nothing is in the way.
        let begins = plan(&waits, &seen(), 20 * DAY + 4700);
        assert_eq!((started(&begins).as_deref(), waiting(&begins)), (Some("run-of-b"), None));
    }
    let last =
        ObservedPolicy { verifications: vec![of_b()], ..observed(vec![kept("a", 1, Some(20)), kept("b", 2, None)]) };
    assert_eq!(waiting(&plan(&policy, &last, 20 * DAY + 1000)), None, "one that is under way does not wait");
}

#[test]
fn one_that_waits_changes_nothing_of_what_was_found() {
    let good = said(kept("a", 1, Some(5)), Some(true), Reason::Verified);
    let bad = said(kept("b", 2, Some(6)), Some(false), Reason::ChecksumMismatch);
    for (backups, status) in [(vec![good.clone()], "True"), (vec![good, bad], "False")] {
        let policy = due_on(20, &backups);
        let crowded = Some("full".to_owned());
        let waits = plan(&policy, &ObservedPolicy { crowded, ..observed(backups.clone()) }, 20 * DAY + 1000);
        let begins = plan(&policy, &observed(backups), 20 * DAY + 1000);
        assert!(waiting(&waits).is_some() && waiting(&begins).is_none());
        assert_eq!(find(&waits.status.conditions, ConditionType::Verified).unwrap().status, status);
        assert_eq!(waits.status.conditions, begins.status.conditions);
    }
}

#[test]
fn what_was_asked_for_by_hand_says_what_it_waits_for_without_a_schedule_too() {
    let backups = vec![asking(kept("a", 1, None), "now"), kept("b", 2, None), kept("c", 3, None)];
    let crowded = Some("full".to_owned());
    let waits = plan(&policy(), &ObservedPolicy { crowded, ..observed(backups.clone()) }, 5 * DAY);
    let told = ("a".to_owned(), Reason::Queued, "it waits for its turn: full".to_owned());
    assert_eq!((started(&waits), waiting(&waits)), (None, Some(told)));
    assert_eq!(waits.status.verification.as_ref().unwrap().unknown, 3);
    let policy = BackupPolicy { status: Some(waits.status), ..policy() };
    let begins = plan(&policy, &observed(backups), 5 * DAY);
    assert_eq!((started(&begins).as_deref(), begins.status.verification), (Some("run-of-a"), None));
    // What can be read goes before what cannot, also where the latter was asked for.
    let mut elsewhere = asking(kept("d", 4, None), "now");
    elsewhere.status.as_mut().unwrap().store = Some("gone".into());
    let both = vec![elsewhere, asking(kept("a", 1, None), "now")];
    assert_eq!(started(&plan(&policy, &observed(both), 5 * DAY)).unwrap(), "run-of-a");
}

#[test]
fn whether_there_is_room_is_asked_only_where_one_would_start() {
    let asks = |policy: &BackupPolicy, seen: &ObservedPolicy, now: i64| {
        let wants = wants_room(policy, seen, at(now)).map(|store| store.metadata.name.clone().unwrap());
        // What does not ask takes no notice of the answer, and what asks does what it says.
        let full = ObservedPolicy { crowded: Some("four of four".into()), ..seen.clone() };
        let (free, full) = (plan(policy, seen, now), plan(policy, &full, now));
        assert_eq!((started(&free).is_some(), started(&full)), (wants.is_some(), None));
        assert!(wants.is_some() || free == full);
        wants
    };
    let backups = vec![kept("a", 1, None), kept("b", 2, None)];
    let policy = due_on(20, &backups);
    assert_eq!(asks(&policy, &observed(backups.clone()), 20 * DAY + 1000).unwrap(), "main");
    // At the very moment that it comes due, too.
    assert_eq!(asks(&policy, &observed(backups.clone()), 21 * DAY).unwrap(), "main");
    let asked = vec![asking(kept("a", 1, Some(20)), "now"), kept("b", 2, Some(20))];
    assert_eq!(asks(&policy, &observed(asked), 20 * DAY + 1000).unwrap(), "main");

    let read = vec![kept("a", 1, Some(20)), kept("b", 2, Some(20))];
    assert_eq!(asks(&policy, &observed(read), 20 * DAY + 1000), None, "nothing is due");
    let open = ObservedPolicy { verifications: vec![of("j", &backups[0])], ..observed(backups.clone()) };
    assert_eq!(asks(&policy, &open, 20 * DAY + 1000), None, "one is under way");
    let retains = vec![attempt(a_job("r"), vec![])];
    let retaining = ObservedPolicy { retains, ..observed(backups.clone()) };
    assert_eq!(asks(&policy, &retaining, 20 * DAY + 1000), None, "retention deletes");
    let down = [("main".to_owned(), Arc::new(unready_store(Reason::Unreachable, "no answer")))].into();
    let away = ObservedPolicy { stores: down, ..observed(backups.clone()) };
    assert_eq!(asks(&policy, &away, 20 * DAY + 1000), None, "its store is away");
    let suspended = BackupPolicy { spec: BackupPolicySpec { suspend: true, ..policy.spec.clone() }, ..policy.clone() };
    assert_eq!(asks(&suspended, &observed(backups.clone()), 20 * DAY + 1000), None, "it is suspended");
    assert_eq!(asks(&super::tests::policy(), &observed(backups), 20 * DAY + 1000), None, "it verifies nothing");
}

#[test]
fn what_is_not_a_backup_of_its_own_is_left_alone() {
    let mut foreign = kept("theirs", 19, None);
    let labels = foreign.metadata.labels.get_or_insert_default();
    labels.insert(crate::plan::names::CLUSTER_LABEL.to_owned(), "another".to_owned());
    let mut failed = kept("failed", 18, None);
    failed.status.as_mut().unwrap().phase = BackupPhase::Failed;
    let mut going = kept("going", 17, None);
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    let there = vec![foreign, failed, going];
    let policy = due_on(20, &there);
    let seen = observed(there);
    let nothing = plan(&policy, &seen, 20 * DAY + 1000);
    assert_eq!(started(&nothing), None);
    assert_eq!(nothing.status.verification.unwrap().unknown, 0);
    let mut policy = due_on(20, &[kept("a", 1, None)]);
    assert!(started(&plan(&policy, &observed(vec![kept("a", 1, None)]), 20 * DAY + 1000)).is_some());
    policy.metadata.deletion_timestamp = policy.metadata.creation_timestamp.clone();
    assert_eq!(started(&plan(&policy, &observed(vec![kept("a", 1, None)]), 20 * DAY + 1000)), None);
}

#[test]
fn the_condition_says_how_all_of_them_have_fared() {
    let verified = |backups: Vec<Backup>| {
        let plan = plan(&due_on(20, &[]), &observed(backups), 20 * DAY + 1000);
        let told = find(&plan.status.conditions, ConditionType::Verified).cloned().unwrap();
        let counts = plan.status.verification.clone().unwrap();
        (told.status, told.reason, told.message, [counts.whole, counts.damaged, counts.unknown], plan)
    };
    let (status, reason, ..) = verified(vec![kept("a", 1, None)]);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "NotVerifiedYet"));

    let good = said(kept("good", 1, Some(15)), Some(true), Reason::Verified);
    let (status, _, message, counts, plan) = verified(vec![good.clone(), kept("new", 19, None)]);
    assert_eq!((status.as_str(), counts), ("True", [1, 0, 1]));
    assert!(message.contains("1 of 2 complete backups") && message.contains("good"), "{message}");
    assert_eq!(plan.status.last_verification_time, Some(Time(at(15 * DAY + 600))));

    // Whether it cannot be found out is another thing than damage.
    let mut locked = said(kept("locked", 2, Some(16)), None, Reason::KeyMissing);
    let verification = locked.status.as_mut().unwrap().verification.as_mut().unwrap();
    (verification.reason, verification.message) = (Some(Reason::KeyMissing), Some("no key fits".into()));
    let (status, reason, message, counts, _) = verified(vec![good.clone(), locked.clone()]);
    assert_eq!((status.as_str(), reason.as_str(), counts), ("Unknown", "KeyMissing", [1, 0, 1]));
    assert!(message.contains("locked, could not be done: no key fits"), "{message}");

    let bad = said(kept("bad", 3, Some(14)), Some(false), Reason::ChecksumMismatch);
    let (status, reason, message, counts, plan) = verified(vec![good, locked, bad]);
    assert_eq!((status.as_str(), reason.as_str(), counts), ("False", "ChecksumMismatch", [1, 1, 1]));
    assert!(message.contains("1 of 3 complete backups are damaged: bad") && message.contains("its words"));
    assert!(plan.events.iter().any(|e| e.warning && e.reason == "ChecksumMismatch"), "{:?}", plan.events);
    let known = BackupPolicy { status: Some(plan.status.clone()), ..due_on(20, &[]) };
    let bad = said(kept("bad", 3, Some(14)), Some(false), Reason::ChecksumMismatch);
    assert!(super::tests::plan(&known, &observed(vec![bad]), 20 * DAY + 2000).events.is_empty(), "it is told once");
}

#[test]
fn a_policy_that_never_verified_anything_says_nothing_of_it() {
    let quiet = plan(&policy(), &observed(vec![kept("a", 1, None)]), 20 * DAY);
    assert_eq!((quiet.status.verification, quiet.status.conditions.len()), (None, 0));
    // One that did still shows what it knows.
    let good = said(kept("a", 1, Some(5)), Some(true), Reason::Verified);
    let shown = plan(&policy(), &observed(vec![good]), 20 * DAY);
    assert_eq!(shown.status.verification.unwrap().whole, 1);
}

#[test]
fn a_schedule_that_cannot_be_read_is_named_by_its_field() {
    let mut policy = verifying();
    policy.spec.verify = Some(VerifySpec { schedule: "@sometimes".into(), max_backups: 2 });
    let error = schedule_of(&policy).unwrap_err();
    assert_eq!(error.reason, Reason::InvalidSchedule);
    assert!(error.message.starts_with("spec.verify.schedule "), "{}", error.message);
    assert!(plan(&policy, &observed(vec![kept("a", 1, None)]), 20 * DAY).actions.is_empty());
    // Its H is not that of the backups, or each verification would begin with a backup.
    let spread = |text: &str| {
        let mut policy = verifying();
        policy.spec.schedule = Some(text.into());
        policy.spec.verify = Some(VerifySpec { schedule: text.into(), max_backups: 2 });
        let backups = Schedule::of(&policy.spec, &seed(&policy)).unwrap().unwrap();
        (backups.next_after(at(0)), schedule_of(&policy).unwrap().unwrap().next_after(at(0)))
    };
    let (backup, verification) = spread("H H * * *");
    assert_ne!(backup, verification);
}

#[test]
fn a_verification_whose_job_is_refused_waits_and_says_why_once() {
    let backups = [kept("a", 1, None)];
    let mut policy = due_on(3, &backups);
    let refused = |words: &str| {
        let verification = Some(Failure::new(Reason::JobRefused, words));
        let refused = PolicyRefusals { verification, ..PolicyRefusals::default() };
        ObservedPolicy { refused, ..observed(backups.to_vec()) }
    };
    let words = "the API server refused to create Job shop/v1: denied";
    let said = plan(&policy, &refused(words), 3 * DAY + 10);
    assert_eq!((started(&said), said.events.len()), (None, 1));
    let waiting = said.status.verification.as_ref().unwrap().waiting.clone().unwrap();
    assert_eq!((waiting.backup.as_str(), waiting.reason), ("a", Reason::JobRefused));
    let verified = find(&said.status.conditions, ConditionType::Verified).unwrap();
    assert_eq!((verified.status.as_str(), verified.reason.as_str()), ("Unknown", "JobRefused"));
    assert!(verified.message.ends_with(words), "{}", verified.message);
    policy.status = Some(said.status);
    assert!(plan(&policy, &refused(words), 3 * DAY + 70).events.is_empty());
    let lifted = plan(&policy, &observed(backups.to_vec()), 3 * DAY + 100);
    assert_eq!(started(&lifted).as_deref(), Some("run-of-a"));
    let harmed = [said_damaged(kept("a", 1, None))];
    let damaged =
        plan(&policy, &ObservedPolicy { refused: refused(words).refused, ..observed(harmed.to_vec()) }, 3 * DAY + 100);
    assert_eq!(
        find(&damaged.status.conditions, ConditionType::Verified).unwrap().status,
        "False",
        "damage is told first"
    );
}

fn said_damaged(backup: Backup) -> Backup {
    said(backup, Some(false), Reason::ChecksumMismatch)
}

#[test]
fn what_ended_on_a_backup_that_is_being_deleted_is_in_nobodys_way() {
    let backups = [kept("a", 1, None), kept("b", 2, None)];
    let policy = due_on(3, &backups);
    let ended = completed(of("v", &backups[0]));
    let mut going = backups[0].clone();
    let with = |going: &Backup| {
        let all = vec![going.clone(), backups[1].clone()];
        plan(&policy, &ObservedPolicy { verifications: vec![ended.clone()], ..observed(all) }, 3 * DAY + 10)
    };
    assert_eq!(started(&with(&going)), None, "what it found is to be written down first");
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    assert_eq!(started(&with(&going)).as_deref(), Some("run-of-b"));
}

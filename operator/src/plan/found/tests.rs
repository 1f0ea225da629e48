//! The table of what becomes of what is in the bucket. Pure.

use holdfast_crds::EmptyStatus;

use super::*;
use crate::plan::backup::{ObservedBackup, plan_backup};
use crate::plan::fixture::{
    at, attempt, backup, backup_with, completed, ended_pod, failed, install, job as a_job, policy, ready_store, store,
};
use crate::plan::observed::ObservedJob;
use crate::plan::policy::plan_policy;

const OWN: &str = "c1";
const OTHER: &str = "7f1f1a0c-5f0b-4d3e-9a51-0c2f9d7e1b6a";

fn observed(backups: Vec<Backup>, catalogues: Vec<Attempt>) -> ObservedPolicy {
    ObservedPolicy {
        store: Some(Arc::new(ready_store())),
        backups: backups.into_iter().map(Arc::new).collect(),
        catalogues,
        ..ObservedPolicy::default()
    }
}

fn look(policy: &BackupPolicy, observed: &ObservedPolicy, now: i64) -> Plan<BackupPolicyStatus> {
    let mut plan = Plan::keep(policy.status.clone().unwrap_or_default());
    plan_found(&mut plan, &install(), policy, observed, at(now));
    plan
}

fn found_run(day: u32, cluster: &str) -> FoundRun {
    FoundRun {
        run_id: format!("202611{day:02}T020000Z-3f9a1c"),
        cluster: cluster.into(),
        sources: vec!["chat".into(), "db".into()],
        start: "2026-11-21T02:00:01Z".parse().unwrap(),
        end: "2026-11-21T02:01:13Z".parse().unwrap(),
        stored_bytes: 10,
        source_bytes: 100,
        items: 3,
    }
}

fn reading(job: ObservedJob, report: Option<&Report>) -> Attempt {
    let name = job::catalogue_name(&policy(), &place_of(&store()));
    let pods = report.map(|r| ended_pod("p", 0, &r.to_termination_message())).into_iter().collect();
    attempt(ObservedJob { name, task: "catalogue".into(), ..job }, pods)
}

fn told(runs: Vec<FoundRun>) -> Attempt {
    let report = Report::completed(
        "told",
        Some(Outcome::Catalogue(CatalogueReport { runs, more: 2, ..CatalogueReport::default() })),
    );
    reading(completed(a_job("j")), Some(&report))
}

fn created(plan: &Plan<BackupPolicyStatus>) -> Vec<Backup> {
    let backup = |a: &Action| match a {
        Action::CreateBackup(backup) => Some((**backup).clone()),
        _ => None,
    };
    plan.actions.iter().filter_map(backup).collect()
}

/// As the API server would have it.
fn stored(backup: Backup) -> Backup {
    let uid = format!("uid-of-{}", backup.metadata.name.as_deref().unwrap());
    let meta =
        ObjectMeta { uid: Some(uid), resource_version: Some("1".into()), generation: Some(1), ..backup.metadata };
    Backup { metadata: meta, ..backup }
}

#[test]
fn a_place_is_read_once_and_only_when_the_store_is_proved() {
    let unproved = ObservedPolicy { store: Some(Arc::new(store())), ..ObservedPolicy::default() };
    assert_eq!(look(&policy(), &unproved, 0).actions, []);
    let mut read_only = ready_store();
    read_only.spec.read_only = true;
    for store in [ready_store(), read_only] {
        let ready = ObservedPolicy { store: Some(Arc::new(store)), ..observed(vec![], vec![]) };
        assert!(matches!(&look(&policy(), &ready, 0).actions[..], [Action::CreateJob(_)]));
    }
    let running = observed(vec![], vec![reading(a_job("j"), None)]);
    assert_eq!(look(&policy(), &running, 150).actions, [], "one at a time");
    let waits = look(&policy(), &ObservedPolicy { catalogue_waits: true, ..observed(vec![], vec![]) }, 0);
    assert_eq!((waits.actions.len(), waits.next_check), (0, Some(at(TURN_SECONDS))), "it waits for its turn");

    let done = observed(vec![], vec![told(vec![])]);
    let mut policy = policy();
    policy.status = Some(look(&policy, &done, 500).status);
    assert!(matches!(&look(&policy, &done, 501).actions[..], [Action::DeleteJob(_)]));
    assert_eq!(look(&policy, &observed(vec![], vec![]), 502).actions, []);
    let mut elsewhere = ready_store();
    elsewhere.spec.s3.prefix = Some("other".into());
    let elsewhere = ObservedPolicy { store: Some(Arc::new(elsewhere)), ..observed(vec![], vec![]) };
    assert!(matches!(&look(&policy, &elsewhere, 503).actions[..], [Action::CreateJob(_)]));
    let mut unreadable = policy.clone();
    unreadable.spec.schedule = Some("whenever".into());
    unreadable.status = Some(plan_policy(&unreadable, &elsewhere, at(503)).status);
    assert_eq!(look(&unreadable, &elsewhere, 503).actions, [], "bad input starts nothing");
    policy.metadata.deletion_timestamp = Some(Time(at(504)));
    assert_eq!(look(&policy, &elsewhere, 504).actions, []);
}

#[test]
fn what_the_probe_has_seen_to_be_empty_is_not_read_again() {
    let seen = |place: &str, second| {
        let mut store = ready_store();
        let empty = EmptyStatus { place: place.to_owned(), time: Time(at(second)) };
        store.status.as_mut().unwrap().empty = Some(empty);
        ObservedPolicy { store: Some(Arc::new(store)), ..observed(vec![], vec![]) }
    };
    let place = place_of(&store());
    let policy = policy();
    let plan = look(&policy, &seen(&place, 1), 10);
    assert_eq!(plan.actions, []);
    let told = plan.status.catalogue.unwrap();
    assert_eq!((told.place.as_str(), told.found, told.more), (place.as_str(), 0, 0));
    assert!(!is_unread(&policy, seen(&place, 1).store.as_deref()));

    let is_read = |policy: &BackupPolicy, observed: &ObservedPolicy| {
        let plan = look(policy, observed, 10);
        assert!(
            is_unread(policy, observed.store.as_deref())
                && plan.status.catalogue == policy.status.clone().unwrap_or_default().catalogue
        );
        matches!(&plan.actions[..], [Action::CreateJob(_)])
    };
    assert!(is_read(&policy, &seen(&place, 0)), "the policy may have come within the same second, after the listing");
    assert!(is_read(&policy, &seen("s3://backups/elsewhere", 1)), "another place");
    let mut changed = policy.clone();
    changed.metadata.generation = Some(2);
    assert!(is_read(&changed, &seen(&place, 1)), "it may have named another store when this one was listed");
    let mut back = policy.clone();
    let left = CatalogueStatus { place: "s3://backups/elsewhere".into(), ..CatalogueStatus::default() };
    back.status = Some(BackupPolicyStatus { catalogue: Some(left), ..BackupPolicyStatus::default() });
    assert!(is_read(&back, &seen(&place, 1)), "the store was another place in between");
    let running = ObservedPolicy { catalogues: vec![reading(a_job("j"), None)], ..seen(&place, 1) };
    let plan = look(&policy, &running, 150);
    assert!(plan.actions.is_empty() && plan.status.catalogue.is_none(), "what is being read says more");
}

#[test]
fn what_is_found_becomes_backups_that_are_complete_and_start_nothing() {
    let plan = look(&policy(), &observed(vec![], vec![told(vec![found_run(21, OTHER), found_run(20, OWN)])]), 500);
    assert_eq!(plan.status.catalogue.as_ref().map(|c| (c.found, c.more)), Some((2, 2)));
    let backups: Vec<Backup> = created(&plan).into_iter().map(stored).collect();
    assert_eq!(backups.iter().map(is_foreign).collect::<Vec<_>>(), [true, false]);
    for backup in &backups {
        assert!(is_found(backup) && backup.spec.deletion_policy == DeletionPolicy::Retain);
        let everything = ObservedBackup {
            policy: Some(Arc::new(policy())),
            store: Some(Arc::new(ready_store())),
            ..ObservedBackup::default()
        };
        let seen = plan_backup(&install(), backup, &everything, at(501));
        assert_eq!((seen.actions.len(), seen.events.len()), (0, 0), "no Job, no finalizer");
        let status = &seen.status;
        assert_eq!(status.phase, BackupPhase::Completed);
        assert_eq!(status.store.as_deref(), Some("main"));
        assert_eq!(status.duration.as_deref(), Some("1m12s"));
        assert_eq!((status.stored_bytes, status.source_bytes, status.items), (Some(10), Some(100), Some(3)));
        assert_eq!(status.artifacts.iter().map(|a| a.source.as_str()).collect::<Vec<_>>(), ["chat", "db"]);
        let complete = find(&status.conditions, ConditionType::Complete).unwrap();
        assert_eq!(complete.message.contains(OTHER), is_foreign(backup), "{}", complete.message);
        let again = Backup { status: Some(seen.status.clone()), ..backup.clone() };
        assert_eq!(plan_backup(&install(), &again, &everything, at(502)), Plan::keep(seen.status));
    }
    assert_eq!(slot_of(&backups[0]), "2026-11-21T02:00:00Z".parse().unwrap());
}

#[test]
fn a_run_that_has_its_backup_gets_no_other_one_however_far_it_is() {
    let slot: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
    let in_flight = |status: Option<BackupStatus>| {
        let mut backup = backup("b", 0);
        backup.metadata.annotations = Some(BTreeMap::from([(SLOT_ANNOTATION.to_owned(), slot.to_string())]));
        Backup { status, ..backup }
    };
    let id = run_id(slot, "uid-of-b");
    let run = FoundRun { run_id: id.clone(), ..found_run(21, OWN) };
    let running = BackupStatus { phase: BackupPhase::Running, run_id: Some(id), ..BackupStatus::default() };
    let mut deleted = in_flight(Some(running.clone()));
    deleted.metadata.deletion_timestamp = Some(Time(at(400)));
    let found = stored(created(&look(&policy(), &observed(vec![], vec![told(vec![run.clone()])]), 500)).remove(0));
    for there in [in_flight(None), in_flight(Some(running)), deleted, found] {
        let plan = look(&policy(), &observed(vec![there.clone()], vec![told(vec![run.clone()])]), 500);
        assert_eq!(created(&plan), [], "{there:?}");
        let asked = look(&policy(), &observed(vec![there], vec![]), 500);
        let [Action::CreateJob(job)] = &asked.actions[..] else { panic!("{asked:?}") };
        let env = job.spec.clone().unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
        assert!(env[0].value.as_ref().unwrap().contains(&run.run_id), "it need not be told");
    }
}

#[test]
fn a_bucket_that_cannot_be_read_is_read_again_later() {
    for lost in [reading(failed(a_job("j")), None), reading(completed(a_job("j")), None)] {
        let observed = observed(vec![], vec![lost]);
        let waits = look(&policy(), &observed, 501);
        assert_eq!((waits.actions.len(), waits.next_check), (0, Some(at(500 + AGAIN_SECONDS))));
        assert_eq!(waits.status.catalogue, None);
        let plan = look(&policy(), &observed, 500 + AGAIN_SECONDS);
        assert!(matches!(&plan.actions[..], [Action::DeleteJob(_)]) && plan.events.len() == 1);
    }
}

#[test]
fn what_cannot_be_read_or_promises_to_delete_fails_and_never_runs() {
    let of = |text: &str, deletion_policy| {
        let mut backup = backup("b", 0);
        backup.metadata.annotations = Some(BTreeMap::from([(FOUND_ANNOTATION.to_owned(), text.to_owned())]));
        backup.spec.deletion_policy = deletion_policy;
        backup
    };
    let plan = look(&policy(), &observed(vec![], vec![told(vec![found_run(21, OWN)])]), 500);
    let good = created(&plan)[0].metadata.annotations.clone().unwrap()[FOUND_ANNOTATION].clone();
    let no_run = good.replace("20261121T020000Z-3f9a1c", "../other/20261121T020000Z-3f9a1c");
    for backup in [
        of(&good, DeletionPolicy::Delete),
        of(&no_run, DeletionPolicy::Retain),
        of("{}", DeletionPolicy::Retain),
        of("", DeletionPolicy::Retain),
    ] {
        let everything = ObservedBackup {
            policy: Some(Arc::new(policy())),
            store: Some(Arc::new(ready_store())),
            ..ObservedBackup::default()
        };
        let plan = plan_backup(&install(), &backup, &everything, at(501));
        assert_eq!(plan.status.phase, BackupPhase::Failed);
        assert_eq!(plan.actions, []);
        assert_eq!(find(&plan.status.conditions, ConditionType::Complete).unwrap().reason, "InvalidConfiguration");
    }
}

#[test]
fn found_backups_hold_up_no_slot() {
    let plan = look(&policy(), &observed(vec![], vec![told(vec![found_run(21, OTHER)])]), 500);
    let pending = stored(created(&plan).remove(0));
    let mut due = policy();
    due.status = Some(BackupPolicyStatus {
        last_scheduled_time: Some(Time(at(86_400 * 20 + 7200))),
        ..plan_policy(&policy(), &observed(vec![], vec![]), at(86_400 * 20 + 8000)).status
    });
    let plan = plan_policy(&due, &observed(vec![pending], vec![]), at(86_400 * 21 + 7201));
    assert!(matches!(&plan.actions[..], [Action::CreateBackup(_)]), "{plan:?}");
}

#[test]
fn another_clusters_backups_count_as_none_of_the_policys() {
    let runs = vec![found_run(21, OTHER), found_run(20, OWN)];
    let backups: Vec<Backup> = created(&look(&policy(), &observed(vec![], vec![told(runs)]), 500))
        .into_iter()
        .map(|backup| {
            let backup = stored(backup);
            let status = plan_backup(&install(), &backup, &ObservedBackup::default(), at(501)).status;
            Backup { status: Some(status), ..backup }
        })
        .collect();
    let status = plan_policy(&policy(), &observed(backups.clone(), vec![]), at(502)).status;
    assert_eq!(status.backups.map(|b| b.complete), Some(1));
    assert_eq!(status.last_backup.map(|b| b.name), backups[1].metadata.name);
    assert_eq!(status.stored_bytes, Some(10));
}

#[test]
fn from_a_policy_comes_its_own_clusters_newest_and_anothers_only_where_there_is_none() {
    use crate::plan::restore::choose;
    let table = [
        (vec![found_run(21, OTHER), found_run(20, OWN)], "20261120T020000Z-3f9a1c"),
        (vec![found_run(21, OTHER), found_run(20, OTHER)], "20261121T020000Z-3f9a1c"),
    ];
    for (runs, expected) in table {
        let backups: Vec<Arc<Backup>> = created(&look(&policy(), &observed(vec![], vec![told(runs)]), 500))
            .into_iter()
            .map(|backup| {
                let backup = stored(backup);
                let status = plan_backup(&install(), &backup, &ObservedBackup::default(), at(501)).status;
                Arc::new(Backup { status: Some(status), ..backup })
            })
            .collect();
        let request: holdfast_crds::RestoreRequest = serde_json::from_value(serde_json::json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "RestoreRequest", "metadata": {"name": "r"},
            "spec": {"from": {"policy": {"name": "shop"}}},
        }))
        .unwrap();
        let chosen = choose(&request, &backups).unwrap();
        assert_eq!(chosen.select, crate::task::Select::RunId(expected.into()));
    }
}

#[test]
fn a_restore_from_a_policy_waits_until_the_bucket_has_been_read() {
    use crate::plan::restore::{ObservedRestore, plan_restore};
    let mut request: holdfast_crds::RestoreRequest = serde_json::from_value(serde_json::json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "RestoreRequest", "metadata": {"name": "r"},
        "spec": {"from": {"policy": {"name": "shop"}}},
    }))
    .unwrap();
    request.metadata = crate::plan::fixture::meta("r", "uid-of-r", 500);
    let ask = |policy: &BackupPolicy, backups: Vec<Arc<Backup>>, now| {
        let store = Some(Arc::new(ready_store()));
        let observed = ObservedRestore {
            backups,
            policy: Some(Arc::new(policy.clone())),
            policy_store: store.clone(),
            store,
            ..ObservedRestore::default()
        };
        plan_restore(&install(), &request, &observed, at(now)).status
    };
    let mut policy = policy();
    assert_eq!(ask(&policy, vec![], 501).phase, BackupPhase::Pending, "the bucket has not been read");
    assert_eq!(ask(&policy, vec![], 14_000).phase, BackupPhase::Pending, "it is waited for");
    assert_eq!(ask(&policy, vec![], 500 + 14_400).phase, BackupPhase::Failed, "as long as the request may take");
    let asks = |runs| ObservedPolicy { asking: vec![at(500)], ..observed(vec![], vec![told_own(runs, 600)]) };
    let run = FoundRun { sources: vec!["db".into()], ..found_run(21, OTHER) };
    let plan = look(&policy, &asks(vec![run]), 602);
    let found = stored(created(&plan).remove(0));
    policy.status = Some(plan.status);
    assert_eq!(ask(&policy, vec![], 603).phase, BackupPhase::Pending, "its Backup is on its way");
    assert_eq!(ask(&policy, vec![Arc::new(found.clone())], 604).phase, BackupPhase::Pending, "or is not complete yet");
    let status = plan_backup(&install(), &found, &ObservedBackup::default(), at(605)).status;
    let found = Backup { status: Some(status), ..found };
    assert_eq!(ask(&policy, vec![Arc::new(found)], 606).phase, BackupPhase::Running);

    policy.status = None;
    policy.status = Some(look(&policy, &asks(vec![]), 602).status);
    assert_eq!(ask(&policy, vec![], 603).phase, BackupPhase::Failed, "nothing was found");
}

/// A reading that told the policy's own runs, too.
fn told_own(runs: Vec<FoundRun>, began: i64) -> Attempt {
    let mut attempt = told(runs);
    attempt.job.name = job::catalogue_name(&policy(), &format!("{} own", place_of(&store())));
    attempt.job.created = at(began);
    attempt
}

#[test]
fn a_restore_that_chooses_has_the_bucket_read_for_its_own_forgotten_runs_once_and_in_its_turn() {
    let mut read = policy();
    let place = place_of(&store());
    let time = Some(Time(at(400)));
    let catalogue = CatalogueStatus { place, time: time.clone(), own_time: time, ..CatalogueStatus::default() };
    read.status = Some(BackupPolicyStatus { catalogue: Some(catalogue), ..BackupPolicyStatus::default() });
    let asks = |catalogues| ObservedPolicy { asking: vec![at(500)], ..observed(vec![], catalogues) };
    assert_eq!(look(&read, &observed(vec![], vec![]), 502).actions, [], "nobody asks");
    let early = look(&read, &asks(vec![]), 501);
    assert_eq!((early.actions.len(), early.next_check), (0, Some(at(502))), "it could not be told from an earlier one");
    let plan = look(&read, &asks(vec![]), 502);
    let [Action::CreateJob(made)] = &plan.actions[..] else { panic!("{plan:?}") };
    let env = made.spec.clone().unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    assert!(env[0].value.as_ref().unwrap().contains("\"own\":true"));
    assert!(!wants_room(&read, &asks(vec![]), at(502)), "somebody waits for it");
    let mut answer = told_own(vec![found_run(21, OWN)], 502);
    answer.job.name = made.metadata.name.clone().unwrap();
    let plan = look(&read, &asks(vec![answer.clone()]), 510);
    assert_eq!(created(&plan).len(), 1);
    let told = plan.status.catalogue.clone().unwrap();
    assert_eq!((told.own_time, told.newest.as_deref()), (Some(Time(at(502))), Some("20261121T020000Z-3f9a1c")));
    read.status = Some(plan.status);
    assert!(matches!(&look(&read, &asks(vec![answer]), 511).actions[..], [Action::DeleteJob(_)]));
    assert_eq!(look(&read, &asks(vec![]), 512).actions, []);
}

#[test]
fn nothing_is_read_while_retention_deletes_and_what_was_is_read_again() {
    let retaining = |end: Option<i64>| {
        let mut job = if end.is_some() { completed(a_job("r")) } else { a_job("r") };
        if let (Some(end), Some(at_end)) = (end, job.end.as_mut()) {
            at_end.at = at(end);
        }
        attempt(job, vec![])
    };
    let waits = look(&policy(), &ObservedPolicy { retains: vec![retaining(None)], ..observed(vec![], vec![]) }, 150);
    assert_eq!((waits.actions.len(), waits.next_check), (0, Some(at(150 + TURN_SECONDS))));
    let read = |end| {
        let retains = vec![retaining(end)];
        look(&policy(), &ObservedPolicy { retains, ..observed(vec![], vec![told(vec![found_run(21, OWN)])]) }, 500)
    };
    for end in [None, Some(100), Some(300)] {
        let plan = read(end);
        assert!(matches!(&plan.actions[..], [Action::DeleteJob(_)]) && plan.status.catalogue.is_none(), "{end:?}");
    }
    assert_eq!(created(&read(Some(99))).len(), 1, "it was over before the reading began");
}

/// A complete Backup of the policy that was made by its schedule.
fn complete(day: u32) -> Backup {
    let slot: Timestamp = format!("2026-11-{day:02}T02:00:00Z").parse().unwrap();
    let mut backup = backup(&format!("shop-{day}"), slot.as_second());
    backup.metadata.annotations = Some(BTreeMap::from([(SLOT_ANNOTATION.to_owned(), slot.to_string())]));
    let artifact = ArtifactStatus { source: "db".into(), phase: BackupPhase::Completed, ..ArtifactStatus::default() };
    backup.status = Some(BackupStatus {
        phase: BackupPhase::Completed,
        run_id: Some(format!("202611{day:02}T020000Z-3f9a1c")),
        store: Some("main".into()),
        location: Some(place_of(&store())),
        completion_time: Some(Time(after(slot, 60))),
        artifacts: vec![artifact],
        conditions: with_condition(&[], ConditionType::Complete, Some(true), Reason::Completed, "", Some(1), slot),
        ..BackupStatus::default()
    });
    backup
}

fn judgement(there: &[u32], gone: &[u32]) -> CatalogueReport {
    let span = |day: &u32| {
        let run = format!("202611{day:02}T020000Z-3f9a1c");
        crate::task::Span { from: run.clone(), to: run }
    };
    CatalogueReport {
        there: there.iter().map(span).collect(),
        gone: gone.iter().map(span).collect(),
        ..CatalogueReport::default()
    }
}

/// The only reading that the plan wants, with this answer.
fn answered(plan: &Plan<BackupPolicyStatus>, report: CatalogueReport, began: Timestamp) -> Attempt {
    let [Action::CreateJob(made)] = &plan.actions[..] else { panic!("{plan:?}") };
    let report = Report::completed("told", Some(Outcome::Catalogue(report)));
    let pods = vec![ended_pod("p", 0, &report.to_termination_message())];
    let job = ObservedJob { name: made.metadata.name.clone().unwrap(), created: began, ..completed(a_job("j")) };
    attempt(job, pods)
}

fn reported(plan: &Plan<BackupPolicyStatus>) -> Vec<Backup> {
    let of = |a: &Action| match a {
        Action::ReportBackup(backup) => Some((**backup).clone()),
        _ => None,
    };
    plan.actions.iter().filter_map(of).collect()
}

#[test]
fn backups_whose_data_is_gone_count_for_nothing_until_it_is_back() {
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let place = place_of(&store());
    let mut policy = policy();
    policy.spec.max_age = Some("2d".into());
    let read = Some(Time(noon));
    let catalogue = CatalogueStatus { place: place.clone(), time: read, ..CatalogueStatus::default() };
    policy.status = Some(BackupPolicyStatus { catalogue: Some(catalogue), ..BackupPolicyStatus::default() });
    let backups = vec![complete(21), complete(22)];
    let with_store = |change: &dyn Fn(&mut holdfast_crds::BackupStoreStatus), backups: Vec<Backup>, catalogues| {
        let mut store = ready_store();
        change(store.status.as_mut().unwrap());
        ObservedPolicy { store: Some(Arc::new(store)), ..observed(backups, catalogues) }
    };
    let of = |policy: &BackupPolicy, observed: &ObservedPolicy, now: Timestamp| look(policy, observed, now.as_second());
    let healthy = plan_policy(&policy, &observed(backups.clone(), vec![]), noon).status;
    assert_eq!(healthy.backups.map(|b| (b.complete, b.missing)), Some((2, 0)));
    assert!(holdfast_crds::is_true(&healthy.conditions, ConditionType::Protected));

    // A probe misses the newest run, or sees that nothing is there at all; a verification finds nothing; a retention misses some.
    let later = after(noon, 100);
    let missing = holdfast_crds::MissingStatus {
        place: place.clone(),
        time: Time(later),
        runs: vec!["shop/20261122T020000Z-3f9a1c".into()],
    };
    let probed = |s: &mut holdfast_crds::BackupStoreStatus| s.missing = Some(missing.clone());
    let emptied = |s: &mut holdfast_crds::BackupStoreStatus| {
        s.empty = Some(EmptyStatus { place: place.clone(), time: Time(later) });
    };
    let mut unfound = backups.clone();
    unfound[0].status.as_mut().unwrap().verification = Some(holdfast_crds::VerificationStatus {
        reason: Some(Reason::NoMatchingBackup),
        last_attempt_time: Some(Time(later)),
        ..holdfast_crds::VerificationStatus::default()
    });
    let missed = crate::task::RetainReport { missing: 1, ..Default::default() };
    let missed = Report::completed("", Some(Outcome::Retain(missed))).to_termination_message();
    let mut retain = attempt(completed(a_job("r")), vec![ended_pod("p", 0, &missed)]);
    retain.job.end.as_mut().unwrap().at = later;
    let suspicions = [
        with_store(&probed, backups.clone(), vec![]),
        with_store(&emptied, backups.clone(), vec![]),
        observed(unfound, vec![]),
        ObservedPolicy { retains: vec![retain], ..observed(backups.clone(), vec![]) },
    ];
    let now = after(noon, 200);
    for seen in &suspicions {
        assert!(wants_room(&policy, seen, now));
        assert!(matches!(&of(&policy, seen, now).actions[..], [Action::CreateJob(_)]), "{seen:?}");
    }
    let elsewhere = holdfast_crds::MissingStatus { place: "s3://old".into(), ..missing.clone() };
    let other = holdfast_crds::MissingStatus { runs: vec!["other/20261122T020000Z-3f9a1c".into()], ..missing.clone() };
    for unrelated in [elsewhere, other] {
        let told = |s: &mut holdfast_crds::BackupStoreStatus| s.missing = Some(unrelated.clone());
        assert_eq!(of(&policy, &with_store(&told, backups.clone(), vec![]), now).actions, []);
    }

    // The listing decides: of what it lacks the Backup says so, and the policy counts without it.
    let asked = of(&policy, &suspicions[0], now);
    let answer = answered(&asked, judgement(&[21], &[22]), now);
    let told = of(&policy, &with_store(&probed, backups.clone(), vec![answer.clone()]), after(now, 9));
    let [lost] = &reported(&told)[..] else { panic!("{told:?}") };
    assert_eq!(lost.metadata.name.as_deref(), Some("shop-22"));
    assert!(told.events.iter().any(|e| e.reason == "DataMissing" && e.note.contains("shop-22")), "{:?}", told.events);
    // One that ended as the reading began may have ended after it, by another clock.
    for (ago, is_judged) in [(5, false), (30, true)] {
        let mut young = complete(22);
        young.status.as_mut().unwrap().completion_time = Some(Time(after(now, -ago)));
        let told = of(&policy, &with_store(&probed, vec![complete(21), young], vec![answer.clone()]), after(now, 9));
        assert_eq!(reported(&told).len(), usize::from(is_judged), "{ago} s");
    }
    let backups = vec![complete(21), lost.clone()];
    policy.status = Some(told.status);
    assert!(of(&policy, &with_store(&probed, backups.clone(), vec![]), after(now, 10)).actions.is_empty(), "once");
    let status = plan_policy(&policy, &observed(backups.clone(), vec![]), after(now, 10)).status;
    assert_eq!(status.backups.map(|b| (b.complete, b.missing)), Some((1, 1)));
    assert_eq!(status.recovery_window.map(|w| w.to.0.to_string()).as_deref(), Some("2026-11-21T02:00:00Z"));
    let succeeded = find(&status.conditions, ConditionType::LastBackupSucceeded).unwrap();
    assert_eq!((succeeded.status.as_str(), succeeded.reason.as_str()), ("False", "DataMissing"));
    // All of it gone: there is no backup at all.
    let answer = answered(&asked, judgement(&[], &[21, 22]), now);
    let fresh = vec![complete(21), complete(22)];
    let before = BackupPolicy { status: Some(healthy), ..policy.clone() };
    let before = BackupPolicy {
        status: Some(BackupPolicyStatus {
            catalogue: asked.status.catalogue.clone(),
            ..before.status.clone().unwrap()
        }),
        ..before
    };
    let told = of(&before, &with_store(&probed, fresh, vec![answer]), after(now, 9));
    let status = plan_policy(&before, &observed(reported(&told), vec![]), after(now, 10)).status;
    let protected = find(&status.conditions, ConditionType::Protected).unwrap();
    assert_eq!((protected.status.as_str(), status.backups.map(|b| b.complete)), ("False", Some(0)));
    assert!(protected.message.contains("any more"), "{}", protected.message);

    // It is looked for each hour, and counts again once it is back.
    let waits = of(&policy, &observed(backups.clone(), vec![]), after(now, 60));
    assert_eq!((waits.actions.len(), waits.next_check), (0, Some(after(now, 3600))));
    let due = after(now, 3600);
    let again = of(&policy, &observed(backups.clone(), vec![]), due);
    let answer = answered(&again, judgement(&[21, 22], &[]), due);
    let told = of(&policy, &observed(backups, vec![answer]), after(due, 9));
    let [back] = &reported(&told)[..] else { panic!("{told:?}") };
    let status = plan_policy(&policy, &observed(vec![complete(21), back.clone()], vec![]), after(due, 10)).status;
    assert_eq!(status.backups.map(|b| (b.complete, b.missing)), Some((2, 0)));
}

#[test]
fn what_ended_just_before_it_was_missed_is_judged_too_because_the_reading_waits_until_it_can() {
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let place = place_of(&store());
    let mut policy = policy();
    let catalogue = CatalogueStatus { place: place.clone(), time: Some(Time(noon)), ..CatalogueStatus::default() };
    policy.status = Some(BackupPolicyStatus { catalogue: Some(catalogue), ..BackupPolicyStatus::default() });
    let probed = after(noon, 100);
    let mut store = ready_store();
    store.status.as_mut().unwrap().missing = Some(holdfast_crds::MissingStatus {
        place,
        time: Time(probed),
        runs: vec!["shop/20261122T020000Z-3f9a1c".into()],
    });
    let mut young = complete(22);
    young.status.as_mut().unwrap().completion_time = Some(Time(after(probed, -3)));
    let seen = ObservedPolicy { store: Some(Arc::new(store)), ..observed(vec![complete(21), young], vec![]) };
    let at = |now: Timestamp| look(&policy, &seen, now.as_second());

    let waiting = at(after(probed, 4));
    assert_eq!((&waiting.actions[..], waiting.next_check), (&[][..], Some(after(probed, 8))));
    let asked = at(after(probed, 8));
    let answer = answered(&asked, judgement(&[], &[21, 22]), after(probed, 8));
    let judged = ObservedPolicy { catalogues: vec![answer], ..seen };
    assert_eq!(reported(&look(&policy, &judged, after(probed, 12).as_second())).len(), 2);
}

#[test]
fn a_store_that_was_moved_with_its_data_has_its_backups_there_and_one_without_says_where_they_are() {
    let mut moved = ready_store();
    moved.spec.s3.bucket = "archive".into();
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let mut policy = policy();
    policy.spec.max_age = Some("2d".into());
    let catalogue = CatalogueStatus { place: place_of(&store()), time: Some(Time(noon)), ..CatalogueStatus::default() };
    policy.status = Some(BackupPolicyStatus { catalogue: Some(catalogue), ..BackupPolicyStatus::default() });
    let seen = |backups: Vec<Backup>, catalogues| ObservedPolicy {
        store: Some(Arc::new(moved.clone())),
        ..observed(backups, catalogues)
    };
    let told_by_itself = |backup: &Backup| {
        let observed = ObservedBackup { store: Some(Arc::new(moved.clone())), ..ObservedBackup::default() };
        Backup { status: Some(plan_backup(&install(), backup, &observed, after(noon, 50)).status), ..backup.clone() }
    };
    let elsewhere: Vec<Backup> = [complete(21), complete(22)].iter().map(told_by_itself).collect();
    let status = plan_policy(&policy, &seen(elsewhere.clone(), vec![]), after(noon, 60)).status;
    assert_eq!(status.backups.map(|b| (b.complete, b.missing, b.elsewhere)), Some((0, 0, 2)));
    assert!(!holdfast_crds::is_true(&status.conditions, ConditionType::Protected));
    // The new place is read. What is not there was never there: it is elsewhere still, and not gone.
    let now = after(noon, 100);
    let asked = look(&policy, &seen(elsewhere.clone(), vec![]), now.as_second());
    let answer = answered(&asked, judgement(&[22], &[21]), now);
    let told = look(&policy, &seen(elsewhere, vec![answer]), after(now, 9).as_second());
    let [back] = &reported(&told)[..] else { panic!("{told:?}") };
    assert_eq!(back.metadata.name.as_deref(), Some("shop-22"));
    assert_eq!(back.status.as_ref().unwrap().location, Some(place_of(&moved)));
    assert!(crate::plan::location::is_there(&told_by_itself(back).status.unwrap()));
}

#[test]
fn what_another_cluster_stored_is_neither_missed_nor_deleted_by_retention() {
    let status = |run_id: &str, ended: i64| BackupStatus {
        phase: BackupPhase::Completed,
        run_id: Some(run_id.into()),
        store: Some("main".into()),
        completion_time: Some(Time(at(ended))),
        ..BackupStatus::default()
    };
    let done = backup_with("done", 1000, status("r1", 1100));
    let plan = look(&policy(), &observed(vec![], vec![told(vec![found_run(21, OTHER), found_run(20, OWN)])]), 500);
    let mut siblings: Vec<Backup> = created(&plan).into_iter().map(stored).collect();
    for sibling in &mut siblings {
        sibling.status = Some(plan_backup(&install(), sibling, &ObservedBackup::default(), at(501)).status);
    }
    let mut policy = policy();
    policy.spec.retention = Some(holdfast_crds::RetentionSpec { keep_last: Some(1), ..Default::default() });
    let mut observed = ObservedBackup {
        policy: Some(Arc::new(policy)),
        store: Some(Arc::new(ready_store())),
        siblings: siblings.iter().cloned().chain([done.clone()]).map(Arc::new).collect(),
        ..ObservedBackup::default()
    };
    let plan = plan_backup(&install(), &done, &observed, at(1101));
    let [Action::CreateJob(job)] = &plan.actions[..] else { panic!("it is the newest that ran here: {plan:?}") };
    let task = job.spec.clone().unwrap().template.spec.unwrap().containers[0].env.clone().unwrap()[0].value.clone();
    let task = task.unwrap();
    assert!(task.contains("20261120T020000Z") && !task.contains("20261121T020000Z"), "{task}");

    let gone = crate::task::RetainReport {
        deleted: vec!["20261121T020000Z-3f9a1c".into(), "20261120T020000Z-3f9a1c".into()],
        ..Default::default()
    };
    let report = Report::completed("", Some(Outcome::Retain(gone)));
    let pod = ended_pod("p", 0, &report.to_termination_message());
    observed.jobs = vec![attempt(ObservedJob { name: job::retain_name(&done), ..completed(a_job("j")) }, vec![pod])];
    let plan = plan_backup(&install(), &done, &observed, at(1200));
    let [Action::DeleteBackup(target)] = &plan.actions[..] else { panic!("{plan:?}") };
    assert!(target.name.contains("20261120"), "{target:?}");
}

#[test]
fn backups_that_came_back_without_their_status_become_what_the_bucket_has_of_their_slots() {
    let put_back = |day: u32| {
        let mut backup = Backup { status: None, ..complete(day) };
        backup.metadata.creation_timestamp = Some(Time("2026-12-24T12:00:00Z".parse().unwrap()));
        backup.metadata.uid = Some(format!("uid-of-its-second-life-{day}"));
        backup
    };
    let now: Timestamp = "2026-12-24T12:00:10Z".parse().unwrap();
    let seen = |backups: Vec<Backup>, catalogues| observed(backups, catalogues);
    let asked = look(&policy(), &seen(vec![put_back(21), put_back(22)], vec![]), now.as_second());
    let [Action::CreateJob(job)] = &asked.actions[..] else { panic!("{asked:?}") };
    let env = job.spec.clone().unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    assert!(env[0].value.as_ref().unwrap().contains("\"own\":true"), "its own runs are told");
    // Two of one slot: the one of today would be the wrong one. One of another cluster is no slot's of this one where this one has one.
    let twice = FoundRun { run_id: "20261121T020000Z-aaaaaa".into(), start: now, ..found_run(21, OWN) };
    let theirs = FoundRun { run_id: "20261121T020000Z-bbbbbb".into(), ..found_run(21, OTHER) };
    let runs = vec![twice, theirs, found_run(21, OWN), found_run(20, OWN)];
    let answer = answered(&asked, CatalogueReport { runs, ..CatalogueReport::default() }, now);
    let told = look(&policy(), &seen(vec![put_back(21), put_back(22)], vec![answer]), after(now, 9).as_second());
    let [back] = &reported(&told)[..] else { panic!("{told:?}") };
    let status = back.status.clone().unwrap();
    assert_eq!((back.metadata.name.as_deref(), status.phase), (Some("shop-21"), BackupPhase::Completed));
    assert_eq!(status.run_id.as_deref(), Some("20261121T020000Z-3f9a1c"), "the one that began when its slot was");
    assert_eq!((status.location, status.items, is_foreign(back)), (Some(place_of(&store())), Some(3), false));
    assert_eq!(created(&told).len(), 3, "what else is there has a Backup of its own");
    // The other one is nowhere.
    let mut read = policy();
    read.status = Some(told.status);
    let observed = ObservedBackup {
        policy: Some(Arc::new(read)),
        store: Some(Arc::new(ready_store())),
        ..ObservedBackup::default()
    };
    let plan = plan_backup(&install(), &put_back(22), &observed, after(now, 10));
    assert_eq!((plan.status.phase, plan.actions.len()), (BackupPhase::Failed, 0));
    assert_eq!(find(&plan.status.conditions, ConditionType::Complete).unwrap().reason, "SlotPassed");

    // Of a migration: what another cluster made stays that cluster's.
    let theirs = FoundRun { run_id: "20261122T020000Z-bbbbbb".into(), ..found_run(22, OTHER) };
    let asked = look(&policy(), &seen(vec![put_back(22)], vec![]), now.as_second());
    let answer = answered(&asked, CatalogueReport { runs: vec![theirs], ..CatalogueReport::default() }, now);
    let told = look(&policy(), &seen(vec![put_back(22)], vec![answer]), after(now, 9).as_second());
    assert!(is_foreign(&reported(&told)[0]));
}

#[test]
fn what_came_back_holds_up_no_slot_and_is_no_failure_of_a_run() {
    let mut lost = complete(1);
    lost.metadata.labels = Some(BTreeMap::from([(crate::plan::names::SCHEDULED_LABEL.to_owned(), "true".to_owned())]));
    lost.metadata.creation_timestamp = Some(Time("2026-11-22T01:00:00Z".parse().unwrap()));
    let pending = Backup { status: None, ..lost.clone() };
    let mut due = policy();
    due.status = Some(BackupPolicyStatus {
        last_scheduled_time: Some(Time("2026-11-21T02:00:00Z".parse().unwrap())),
        ..plan_policy(&policy(), &observed(vec![], vec![]), "2026-11-21T02:00:01Z".parse().unwrap()).status
    });
    let slot = "2026-11-22T02:00:01Z".parse().unwrap();
    let plan = plan_policy(&due, &observed(vec![pending], vec![]), slot);
    assert!(plan.actions.iter().any(|a| matches!(a, Action::CreateBackup(_))), "{plan:?}");
    let status = lost.status.as_mut().unwrap();
    status.phase = BackupPhase::Failed;
    status.completion_time = Some(Time(slot));
    status.conditions = with_condition(&[], ConditionType::Complete, Some(false), Reason::SlotPassed, "", None, slot);
    let status = plan_policy(&due, &observed(vec![complete(20), lost], vec![]), slot).status;
    assert_eq!(status.consecutive_failures, Some(0));
    assert!(holdfast_crds::is_true(&status.conditions, ConditionType::LastBackupSucceeded));
}

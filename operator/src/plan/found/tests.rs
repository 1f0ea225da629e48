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
    let report = Report::completed("told", Some(Outcome::Catalogue(CatalogueReport { runs, more: 2 })));
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
    let left = CatalogueStatus { place: "s3://backups/elsewhere".into(), found: 0, more: 0 };
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
        let observed =
            ObservedRestore { backups, policy: Some(Arc::new(policy.clone())), store, ..ObservedRestore::default() };
        plan_restore(&install(), &request, &observed, at(now)).status
    };
    let mut policy = policy();
    assert_eq!(ask(&policy, vec![], 501).phase, BackupPhase::Pending, "the bucket has not been read");
    assert_eq!(ask(&policy, vec![], 1309).phase, BackupPhase::Pending, "what reads it may wait for a node");
    assert_eq!(ask(&policy, vec![], 1310).phase, BackupPhase::Failed, "and is not going to be");
    let run = FoundRun { sources: vec!["db".into()], ..found_run(21, OTHER) };
    let plan = look(&policy, &observed(vec![], vec![told(vec![run])]), 502);
    let found = stored(created(&plan).remove(0));
    policy.status = Some(plan.status);
    assert_eq!(ask(&policy, vec![], 503).phase, BackupPhase::Pending, "its Backup is on its way");
    assert_eq!(ask(&policy, vec![Arc::new(found.clone())], 504).phase, BackupPhase::Pending, "or is not complete yet");
    let status = plan_backup(&install(), &found, &ObservedBackup::default(), at(505)).status;
    let found = Backup { status: Some(status), ..found };
    assert_eq!(ask(&policy, vec![Arc::new(found)], 506).phase, BackupPhase::Running);

    policy.status = None;
    policy.status = Some(look(&policy, &observed(vec![], vec![told(vec![])]), 502).status);
    assert_eq!(ask(&policy, vec![], 503).phase, BackupPhase::Failed, "nothing was found");
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

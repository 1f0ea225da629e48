//! The table of what a Backup does. Pure.

use holdfast_crds::{LocalRef, RetentionSpec};

use super::*;
use crate::plan::fixture::{
    at, attempt, backup, backup_with, completed, ended_pod, failed, install, job as a_job, pending_pod, policy,
    ready_store, running_pod, source, store, unready_store,
};
use crate::plan::names::{SCHEDULED_LABEL, job_name};
use crate::plan::observed::{ObservedJob, ObservedPod, Words};
use crate::task::RetainReport;

const STORED: &str = r#"{"reason":"Completed","outcome":{"backup":{"key":"prod/shop/shop/r/db/shop.pgdump.zst","storedBytes":10,
    "sourceBytes":100,"sha256":"ab","items":3,"serverVersion":"16.4","toolVersion":"pg_dump 18.1"}}}"#;

fn observed() -> ObservedBackup {
    ObservedBackup {
        policy: Some(Arc::new(policy())),
        store: Some(Arc::new(ready_store())),
        ..ObservedBackup::default()
    }
}

fn two_sources() -> ObservedBackup {
    let mut policy = policy();
    policy.spec.sources = vec![source("db"), source("cache")];
    ObservedBackup { policy: Some(Arc::new(policy)), ..observed() }
}

fn complete_of(status: &BackupStatus) -> (String, String) {
    find(&status.conditions, ConditionType::Complete).map(|c| (c.reason.clone(), c.message.clone())).unwrap_or_default()
}

fn created(plan: &Plan<BackupStatus>) -> Vec<String> {
    plan.actions
        .iter()
        .filter_map(|a| match a {
            Action::CreateJob(job) => job.metadata.name.clone(),
            _ => None,
        })
        .collect()
}

fn deleted_jobs(plan: &Plan<BackupStatus>) -> Vec<&str> {
    plan.actions
        .iter()
        .filter_map(|a| match a {
            Action::DeleteJob(target) => Some(target.name.as_str()),
            _ => None,
        })
        .collect()
}

/// A Backup that runs, as the plan itself left it.
fn running(observed: &ObservedBackup) -> Backup {
    let mut backup = backup("b", 1000);
    backup.status = Some(plan_backup(&install(), &backup, observed, at(1000)).status);
    backup
}

fn of_source(backup: &Backup, source: &str, job: ObservedJob, pods: Vec<ObservedPod>) -> Attempt {
    let name = job::backup_name(backup, source);
    attempt(ObservedJob { uid: format!("uid-{source}"), name, source: source.into(), ..job }, pods)
}

fn config(secrets: &[&str], allow_unencrypted: bool) -> Source {
    let config = holdfast_crds::ConfigSource {
        config_maps: vec!["shop-env".into()],
        secrets: secrets.iter().map(|s| (*s).to_owned()).collect(),
        allow_unencrypted,
    };
    Source { name: "config".into(), config: Some(config), ..Source::default() }
}

fn users(include_users_and_roles: bool, allow_unencrypted: bool) -> Source {
    let mongodb = holdfast_crds::MongodbSource {
        host: Some("mongo".into()),
        include_users_and_roles,
        allow_unencrypted,
        ..holdfast_crds::MongodbSource::default()
    };
    Source { name: "chat".into(), mongodb: Some(mongodb), ..Source::default() }
}

#[test]
fn secrets_go_to_a_store_that_does_not_encrypt_only_where_the_policy_says_that_it_knows() {
    for (source, runs) in [
        (config(&[], false), true),
        (config(&["key"], true), true),
        (config(&["key"], false), false),
        (users(false, false), true),
        (users(true, true), true),
        (users(true, false), false),
    ] {
        let mut policy = policy();
        policy.spec.sources = vec![source];
        let observed = ObservedBackup { policy: Some(Arc::new(policy.clone())), ..observed() };
        let plan = plan_backup(&install(), &backup("b", 1000), &observed, at(1000 + GRACE_SECONDS));
        assert_eq!(created(&plan).len(), usize::from(runs));
        let of_policy = crate::plan::policy::ObservedPolicy {
            store: Some(Arc::new(ready_store())),
            ..crate::plan::policy::ObservedPolicy::default()
        };
        let status = crate::plan::policy::plan_policy(&policy, &of_policy, at(1000)).status;
        let ready = find(&status.conditions, ConditionType::Ready).unwrap();
        if runs {
            assert_eq!(ready.status, "True");
        } else {
            assert_eq!(plan.status.phase, BackupPhase::Failed);
            assert_eq!(complete_of(&plan.status).0, "InvalidConfiguration");
            assert!(complete_of(&plan.status).1.contains("allowUnencrypted"));
            assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "InvalidConfiguration"));
        }
    }
}

#[test]
fn a_volume_is_read_by_a_pod_on_the_node_that_has_it() {
    let volume = holdfast_crds::VolumeSource { claim_name: "uploads".into(), ..holdfast_crds::VolumeSource::default() };
    let mut policy = policy();
    policy.spec.sources = vec![Source { name: "files".into(), volume: Some(volume), ..Source::default() }];
    let holder = Some(job::Holder { node: "n2".into(), tolerations: vec![] });
    let ground = Ground {
        enforced: job::Enforced::Restricted,
        claims: [("uploads".to_owned(), job::ObservedClaim { holder })].into(),
    };
    assert_eq!(claims(&backup("b", 1000), &policy).into_iter().collect::<Vec<_>>(), ["uploads"]);
    let observed = ObservedBackup { policy: Some(Arc::new(policy)), ground, ..observed() };
    let plan = plan_backup(&install(), &backup("b", 1000), &observed, at(1001));
    let [Action::CreateJob(job)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let affinity = serde_json::to_string(&pod.affinity).unwrap();
    assert!(
        affinity.contains(r#""matchFields":[{"key":"metadata.name","operator":"In","values":["n2"]}]"#),
        "{affinity}"
    );
    let context = pod.security_context.as_ref().unwrap();
    assert_eq!((context.run_as_user, context.run_as_non_root, context.fs_group), (Some(65532), Some(true), None));
    let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
    assert!(mounts.iter().any(|m| m.mount_path == "/holdfast/sources/files/data" && m.read_only == Some(true)));
}

#[test]
fn a_backup_becomes_one_job_a_source() {
    let plan = plan_backup(&install(), &backup("b", 1000), &two_sources(), at(1001));
    assert_eq!(created(&plan).len(), 2);
    assert_eq!(plan.status.phase, BackupPhase::Running);
    assert_eq!(plan.status.run_id.as_deref().map(|r| &r[..17]), Some("19700101T001640Z-"));
    assert_eq!(plan.status.store.as_deref(), Some("main"));
    assert_eq!(plan.events.len(), 1);
    let mut one = backup("b", 1000);
    one.spec.sources = Some(vec!["cache".into()]);
    let plan = plan_backup(&install(), &one, &two_sources(), at(1001));
    assert_eq!(created(&plan).len(), 1);
    assert_eq!(plan.status.artifacts[0].source, "cache");
}

#[test]
fn what_is_missing_is_waited_for_and_then_it_fails() {
    let refused = |reason, words: &str| Some(Arc::new(unready_store(reason, words)));
    let mut unknown = backup("b", 1000);
    unknown.spec.sources = Some(vec!["nope".into()]);
    let mut read_only = ready_store();
    read_only.spec.read_only = true;
    let fine = || backup("b", 1000);
    let table = [
        (fine(), ObservedBackup { policy: None, ..observed() }, "PolicyNotFound", "shop"),
        (fine(), ObservedBackup { store: None, ..observed() }, "StoreNotFound", "main"),
        (fine(), ObservedBackup { store: Some(Arc::new(read_only)), ..observed() }, "StoreReadOnly", "main"),
        (
            fine(),
            ObservedBackup { store: refused(Reason::BucketNotFound, "no bucket x"), ..observed() },
            "StoreRefused",
            "no bucket x",
        ),
        (
            fine(),
            ObservedBackup { store: refused(Reason::CredentialsRejected, "403"), ..observed() },
            "StoreRefused",
            "403",
        ),
        (
            fine(),
            ObservedBackup { store: refused(Reason::Unreachable, "no route"), ..observed() },
            "StoreUnreachable",
            "no route",
        ),
        (
            fine(),
            ObservedBackup { store: refused(Reason::ClockSkew, "the store's clock"), ..observed() },
            "ClockSkew",
            "the store's clock",
        ),
        (
            fine(),
            ObservedBackup { store: refused(Reason::SecretNotFound, "secret s"), ..observed() },
            "SecretNotFound",
            "secret s",
        ),
        (unknown, observed(), "InvalidConfiguration", "has no source nope; it has db"),
    ];
    for (backup, observed, reason, words) in table {
        let early = plan_backup(&install(), &backup, &observed, at(1059));
        assert_eq!(early.status.phase, BackupPhase::Pending, "{reason}");
        assert_eq!(complete_of(&early.status).0, reason);
        assert_eq!(early.next_check, Some(at(1060)));
        assert!(early.actions.is_empty());
        let late = plan_backup(&install(), &backup, &observed, at(1060));
        assert_eq!(late.status.phase, BackupPhase::Failed, "{reason}");
        let (found, message) = complete_of(&late.status);
        assert_eq!(found, reason);
        assert!(message.contains(words), "{message}");
        // About the Backup, and about its policy where there is one.
        assert_eq!(late.events.len(), 1 + usize::from(observed.policy.is_some()));
        assert!(late.actions.is_empty());
    }
    let proving = ObservedBackup { store: Some(Arc::new(store())), ..observed() };
    let plan = plan_backup(&install(), &backup("b", 1000), &proving, at(1100));
    assert_eq!(plan.status.phase, BackupPhase::Pending, "a first proof may take longer");
    let phase_at = |now| plan_backup(&install(), &backup("b", 1000), &proving, at(now)).status.phase;
    assert_eq!(phase_at(1000 + 809), BackupPhase::Pending, "its probe may wait for a node for ten minutes");
    assert_eq!(phase_at(1000 + 810), BackupPhase::Failed);
    let wanting = ObservedBackup { store: refused(Reason::PodUnschedulable, "no node"), ..observed() };
    let failed = plan_backup(&install(), &backup("b", 1000), &wanting, at(1110));
    assert_eq!(failed.status.phase, BackupPhase::Failed, "one that was found wanting is no such");
}

#[test]
fn a_source_that_was_read_while_it_may_have_changed_is_named() {
    let consistent = |consistency: &str| {
        let backup = running(&observed());
        let stored = STORED.replace("\"items\":3", &format!("\"items\":3,\"consistency\":\"{consistency}\""));
        let done = of_source(&backup, "db", completed(a_job("j")), vec![ended_pod("p", 0, &stored)]);
        let plan = plan_backup(&install(), &backup, &ObservedBackup { jobs: vec![done], ..observed() }, at(1200));
        assert_eq!(plan.status.phase, BackupPhase::Completed);
        find(&plan.status.conditions, ConditionType::Consistent).map(|c| (c.status.clone(), c.message.clone()))
    };
    let fuzzy = consistent("fuzzy").unwrap();
    assert!(fuzzy.0 == "False" && fuzzy.1.ends_with(": db"), "{fuzzy:?}");
    assert_eq!(consistent("snapshot").unwrap().0, "True");
    assert_eq!(consistent(""), None, "an older worker does not tell");
}

#[test]
fn what_the_worker_stored_is_written_down() {
    let backup = running(&observed());
    let done = of_source(&backup, "db", completed(a_job("j")), vec![ended_pod("p", 0, STORED)]);
    let plan = plan_backup(&install(), &backup, &ObservedBackup { jobs: vec![done], ..observed() }, at(1200));
    let status = &plan.status;
    assert_eq!(status.phase, BackupPhase::Completed);
    assert_eq!((status.stored_bytes, status.source_bytes, status.items), (Some(10), Some(100), Some(3)));
    assert_eq!(status.artifacts[0].server_version.as_deref(), Some("16.4"));
    assert_eq!(status.artifacts[0].key.as_deref(), Some("prod/shop/shop/r/db/shop.pgdump.zst"));
    assert_eq!(complete_of(status).0, "Completed");
    assert!(plan.actions.is_empty());
}

type State = fn(&Backup, &str) -> Option<Attempt>;

#[test]
fn a_run_ends_as_its_sources_do() {
    let gone = |_: &Backup, _: &str| None;
    let done = |b: &Backup, s: &str| Some(of_source(b, s, completed(a_job("j")), vec![]));
    let broken = |b: &Backup, s: &str| {
        let pod = ended_pod("p", 12, r#"{"reason":"SourceRefused","message":"no such role"}"#);
        Some(of_source(b, s, failed(a_job("j")), vec![pod]))
    };
    let busy = |b: &Backup, s: &str| Some(of_source(b, s, a_job("j"), vec![running_pod("p")]));
    let table: [(State, State, BackupPhase, &str, &str); 6] = [
        (done, done, BackupPhase::Completed, "Completed", ""),
        (done, busy, BackupPhase::Running, "InProgress", ""),
        (broken, busy, BackupPhase::Running, "InProgress", ""),
        (done, broken, BackupPhase::Failed, "SourceRefused", "source cache: no such role"),
        (broken, gone, BackupPhase::Failed, "SourceRefused", "source db: no such role"),
        (done, gone, BackupPhase::Failed, "JobVanished", "source cache:"),
    ];
    for (db, cache, phase, reason, words) in table {
        let backup = running(&two_sources());
        let jobs = [db(&backup, "db"), cache(&backup, "cache")].into_iter().flatten().collect();
        let plan = plan_backup(&install(), &backup, &ObservedBackup { jobs, ..two_sources() }, at(1200));
        assert_eq!(plan.status.phase, phase, "{reason}");
        let (found, message) = complete_of(&plan.status);
        assert_eq!(found, reason);
        assert!(message.contains(words), "{message}");
        let of_policy = usize::from(phase == BackupPhase::Failed);
        assert_eq!(plan.events.len(), usize::from(phase.is_terminal()) + of_policy);
    }
}

#[test]
fn a_pod_that_cannot_start_ends_the_run_and_its_job_goes_once_that_is_written() {
    let mut backup = running(&observed());
    let mut stuck = of_source(&backup, "db", a_job("j"), vec![pending_pod("p", 1001)]);
    stuck.events = vec![Words { reason: "FailedMount".into(), message: "secret \"postgres\" not found".into() }];
    let observed = ObservedBackup { jobs: vec![stuck], ..observed() };
    let waiting = plan_backup(&install(), &backup, &observed, at(1030));
    assert_eq!(waiting.status.phase, BackupPhase::Running);
    assert_eq!(complete_of(&waiting.status).0, "SecretNotFound", "what it waits for is said at once");
    let plan = plan_backup(&install(), &backup, &observed, at(1091));
    assert_eq!(plan.status.phase, BackupPhase::Failed);
    assert_eq!(complete_of(&plan.status).0, "SecretNotFound");
    assert!(deleted_jobs(&plan).is_empty(), "a crash now must not make it JobVanished");
    backup.status = Some(plan.status);
    let after = plan_backup(&install(), &backup, &observed, at(1092));
    assert_eq!(deleted_jobs(&after).len(), 1);
    assert_eq!(Some(&after.status), backup.status.as_ref());
}

#[test]
fn a_source_whose_node_is_silent_ends_the_run_when_that_is_known_and_its_job_goes() {
    let mut backup = running(&two_sources());
    let silent = ObservedPod { ends_by: Some(at(1230)), node: "node-1".into(), ..running_pod("p") };
    let jobs = vec![
        of_source(&backup, "db", completed(a_job("j")), vec![]),
        of_source(&backup, "cache", a_job("j"), vec![silent]),
    ];
    let observed = ObservedBackup { jobs, ..two_sources() };
    let waiting = plan_backup(&install(), &backup, &observed, at(1231));
    assert_eq!(waiting.status.phase, BackupPhase::Running);
    assert_eq!((complete_of(&waiting.status).0.as_str(), waiting.next_check), ("PodLost", Some(at(1290))));
    let plan = plan_backup(&install(), &backup, &observed, at(1290));
    assert_eq!((plan.status.phase, complete_of(&plan.status).0.as_str()), (BackupPhase::Failed, "PodLost"));
    assert_eq!(plan.status.completion_time, Some(Time(at(1290))), "not when the other source was done");
    backup.status = Some(plan.status);
    let given_up = job::backup_name(&backup, "cache");
    assert_eq!(deleted_jobs(&plan_backup(&install(), &backup, &observed, at(1291))), [given_up]);
}

#[test]
fn a_run_that_fails_is_told_about_its_policy_too_once_and_a_safety_backup_is_not() {
    let about = |plan: &Plan<BackupStatus>| {
        let events = plan.events.iter().filter_map(|e| Some((e.policy.as_ref()?.uid.clone(), e.note.clone())));
        events.collect::<Vec<_>>()
    };
    let observed = observed();
    let backup = running(&observed);
    let refused = ended_pod("p", 12, r#"{"reason":"SourceRefused","message":"no such role"}"#);
    let jobs = vec![of_source(&backup, "db", failed(a_job("x")), vec![refused])];
    let end = ObservedBackup { jobs, ..observed };
    let plan = plan_backup(&install(), &backup, &end, at(2000));
    let told = vec![("policy-uid".to_owned(), "Backup b failed: source db: no such role".to_owned())];
    assert_eq!(about(&plan), told);
    let over = backup_with("b", 1000, plan.status);
    assert!(plan_backup(&install(), &over, &end, at(2001)).events.is_empty(), "it is told once");
    let mut safety = backup;
    safety.metadata.labels =
        Some([(crate::plan::names::SAFETY_LABEL.to_owned(), "undo".to_owned())].into_iter().collect());
    assert!(is_safety(&safety));
    let plan = plan_backup(&install(), &safety, &end, at(2000));
    assert_eq!((plan.status.phase, about(&plan)), (BackupPhase::Failed, vec![]));
}

#[test]
fn a_terminal_phase_never_changes() {
    let policies = [None, Some(Arc::new(policy()))];
    for phase in [BackupPhase::Completed, BackupPhase::Failed] {
        for policy in &policies {
            let status = BackupStatus { phase, completion_time: Some(Time(at(1100))), ..BackupStatus::default() };
            let backup = backup_with("b", 1000, status.clone());
            let broken = of_source(&backup, "db", failed(a_job("j")), vec![]);
            let observed = ObservedBackup { policy: policy.clone(), jobs: vec![broken], ..observed() };
            for now in [1100, 2000, 999_999] {
                assert_eq!(plan_backup(&install(), &backup, &observed, at(now)).status, status);
            }
        }
    }
}

#[test]
fn jobs_of_ended_runs_are_kept_for_a_while() {
    for (phase, kept) in [(BackupPhase::Completed, COMPLETED_JOB_SECONDS), (BackupPhase::Failed, FAILED_JOB_SECONDS)] {
        let status = BackupStatus { phase, completion_time: Some(Time(at(1100))), ..BackupStatus::default() };
        let backup = backup_with("b", 1000, status);
        let done = of_source(&backup, "db", completed(a_job("j")), vec![]);
        let observed = ObservedBackup { jobs: vec![done], ..observed() };
        let before = plan_backup(&install(), &backup, &observed, at(1100 + kept - 1));
        assert!(before.actions.is_empty());
        assert_eq!(before.next_check, Some(at(1100 + kept)));
        assert_eq!(deleted_jobs(&plan_backup(&install(), &backup, &observed, at(1100 + kept))).len(), 1);
    }
}

fn with_retention() -> Arc<BackupPolicy> {
    let mut policy = policy();
    policy.spec.retention = Some(RetentionSpec { keep_last: Some(1), ..RetentionSpec::default() });
    Arc::new(policy)
}

fn run(name: &str, phase: BackupPhase, run_id: &str) -> Backup {
    let status = BackupStatus {
        phase,
        run_id: Some(run_id.into()),
        store: Some("main".into()),
        completion_time: phase.is_terminal().then(|| Time(at(1100))),
        artifacts: vec![ArtifactStatus { source: "db".into(), ..ArtifactStatus::default() }],
        ..BackupStatus::default()
    };
    backup_with(name, 1000, status)
}

fn retain_task(plan: &Plan<BackupStatus>) -> Option<crate::task::RetainTask> {
    plan.actions.iter().find_map(|a| {
        let Action::CreateJob(job) = a else { return None };
        let env = job.spec.as_ref()?.template.spec.as_ref()?.containers[0].env.as_ref()?;
        match serde_json::from_str(env[0].value.as_ref()?).ok()? {
            crate::task::Task::Retain(task) => Some(task),
            _ => None,
        }
    })
}

#[test]
fn retention_follows_a_completed_run_and_knows_what_must_be_there() {
    let mut done = run("new", BackupPhase::Completed, "r3");
    done.status.as_mut().unwrap().completion_time = Some(Time(at(1101)));
    let mut elsewhere = run("elsewhere", BackupPhase::Completed, "r0");
    elsewhere.status.as_mut().unwrap().store = Some("other".into());
    let siblings = [
        done.clone(),
        run("old", BackupPhase::Completed, "r1"),
        run("broken", BackupPhase::Failed, "r2"),
        run("busy", BackupPhase::Running, "r4"),
        backup("next", 1102),
        elsewhere,
    ];
    let observed = ObservedBackup {
        policy: Some(with_retention()),
        siblings: siblings.into_iter().map(Arc::new).collect(),
        holds: Holds { run_ids: vec!["r1".into()], unknown: false },
        ..observed()
    };
    let task = retain_task(&plan_backup(&install(), &done, &observed, at(1102))).unwrap();
    assert_eq!(task.known.iter().map(|k| k.run_id.as_str()).collect::<Vec<_>>(), ["r3", "r1"]);
    let planned = crate::plan::names::run_id(at(1102), "uid-of-next");
    assert_eq!(task.protected, [planned.as_str(), "r1", "r4"], "one that may start meanwhile is not touched either");
    assert_eq!(task.grace_seconds, 14_400 + 86_400);

    let none =
        |observed: &ObservedBackup, now| retain_task(&plan_backup(&install(), &done, observed, at(now))).is_none();
    assert!(
        none(&ObservedBackup { policy: Some(Arc::new(policy())), ..observed.clone() }, 1102),
        "no retention, no Job"
    );
    assert!(none(&ObservedBackup { retention_waits: true, ..observed.clone() }, 1102), "one at a time");
    let unknown = Holds { run_ids: vec![], unknown: true };
    assert!(none(&ObservedBackup { holds: unknown, ..observed.clone() }, 1102), "a restore may read any run");
    assert!(none(&observed, 1101 + COMPLETED_JOB_SECONDS), "an old run starts nothing any more");
    let mut newest = run("newest", BackupPhase::Completed, "r5");
    newest.status.as_mut().unwrap().completion_time = Some(Time(at(1102)));
    let mut newer = observed.clone();
    newer.siblings.push(Arc::new(newest));
    assert!(none(&newer, 1103), "the newest run's retention is enough");
    let broken = run("broken", BackupPhase::Failed, "r2");
    assert!(
        retain_task(&plan_backup(&install(), &broken, &observed, at(1101))).is_none(),
        "a failed run deletes nothing"
    );
}

#[test]
fn backups_whose_data_retention_deleted_go_and_no_others() {
    let done = run("new", BackupPhase::Completed, "r3");
    let mut foreign = run("foreign", BackupPhase::Completed, "r1");
    foreign.spec.policy_ref = LocalRef { name: "another".into() };
    let siblings = [
        done.clone(),
        run("old", BackupPhase::Completed, "r1"),
        run("partial", BackupPhase::Failed, "r2"),
        run("busy", BackupPhase::Running, "r1"),
        run("longer", BackupPhase::Completed, "r11"),
        foreign,
    ];
    let report = Report::completed(
        "",
        Some(Outcome::Retain(RetainReport {
            deleted: vec!["r1".into(), "r2".into()],
            kept: 1,
            ..RetainReport::default()
        })),
    );
    let pod = ended_pod("p", 0, &report.to_termination_message());
    let retained = attempt(ObservedJob { name: job::retain_name(&done), ..completed(a_job("j")) }, vec![pod]);
    let observed = ObservedBackup {
        policy: Some(with_retention()),
        siblings: siblings.into_iter().map(Arc::new).collect(),
        jobs: vec![retained],
        ..observed()
    };
    let plan = plan_backup(&install(), &done, &observed, at(1200));
    let deleted: Vec<_> = plan
        .actions
        .iter()
        .map(|a| match a {
            Action::DeleteBackup(target) => {
                assert!(target.resource_version.is_some());
                target.name.as_str()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(deleted, ["old", "partial"]);
}

fn deleting(run_id: Option<&str>) -> Backup {
    let mut backup = run("b", BackupPhase::Completed, "r1");
    backup.status.as_mut().unwrap().run_id = run_id.map(str::to_owned);
    backup.spec.deletion_policy = DeletionPolicy::Delete;
    backup.metadata.finalizers = Some(vec!["other".into(), FINALIZER.into()]);
    backup.metadata.deletion_timestamp = Some(Time(at(2000)));
    backup
}

#[test]
fn data_goes_before_the_finalizer_does() {
    let rest = Action::SetFinalizers(Target::version(&deleting(None).metadata), vec!["other".into()]);
    let go =
        |backup: &Backup, observed: &ObservedBackup, now| plan_backup(&install(), backup, observed, at(now)).actions;
    let name = job_name("b", "uid-of-b", "delete");
    let delete_job = |job: ObservedJob| attempt(ObservedJob { name: name.clone(), ..job }, vec![]);
    let with = |jobs: Vec<Attempt>| ObservedBackup { jobs, ..observed() };

    let backup = deleting(Some("r1"));
    assert!(
        matches!(&go(&backup, &observed(), 2001)[..], [Action::CreateJob(j)] if j.metadata.name.as_ref() == Some(&name))
    );
    assert!(go(&backup, &with(vec![delete_job(a_job("j"))]), 150).is_empty());
    assert_eq!(go(&backup, &with(vec![delete_job(completed(a_job("j")))]), 2001), std::slice::from_ref(&rest));
    assert!(go(&backup, &with(vec![delete_job(failed(a_job("j")))]), 501).is_empty());
    assert!(matches!(
        &go(&backup, &with(vec![delete_job(failed(a_job("j")))]), 500 + deletion::AGAIN_SECONDS)[..],
        [Action::DeleteJob(_)]
    ));
    assert!(
        matches!(&go(&backup, &with(vec![attempt(a_job("busy"), vec![])]), 2001)[..], [Action::DeleteJob(t)] if t.name == "busy"),
        "a worker that still writes is stopped first"
    );
    assert_eq!(go(&deleting(None), &observed(), 2001), std::slice::from_ref(&rest), "nothing was stored");
    assert_eq!(go(&backup, &ObservedBackup { namespace_terminating: true, ..observed() }, 2001), [rest]);
    let lost = plan_backup(&install(), &backup, &ObservedBackup { store: None, ..observed() }, at(2001));
    assert!(lost.actions.is_empty() && lost.next_check.is_some() && lost.events.len() == 1);
}

#[test]
fn the_finalizer_is_there_before_anything_is_stored() {
    let mut backup = backup("b", 1000);
    backup.spec.deletion_policy = DeletionPolicy::Delete;
    let plan = plan_backup(&install(), &backup, &observed(), at(1001));
    assert!(matches!(&plan.actions[..], [Action::SetFinalizers(_, f)] if f[..] == [FINALIZER.to_owned()]));
    assert_eq!(plan.status, BackupStatus::default());
    backup.metadata.finalizers = Some(vec![FINALIZER.into()]);
    assert_eq!(created(&plan_backup(&install(), &backup, &observed(), at(1001))).len(), 1);
}

#[test]
fn a_crash_between_any_two_writes_doubles_nothing() {
    // The Jobs were created and the status was not written: the same Jobs are asked for again.
    let first = plan_backup(&install(), &backup("b", 1000), &two_sources(), at(1001));
    let second = plan_backup(&install(), &backup("b", 1000), &two_sources(), at(1009));
    assert_eq!(first.actions, second.actions);
}

#[test]
fn a_run_whose_turn_it_is_not_waits_and_says_where_it_stands() {
    let wait = Wait { position: 3, why: "10 of at most 10 runs are under way".into() };
    let waiting = ObservedBackup { turn: Some(wait), ..observed() };
    let plan = plan_backup(&install(), &backup("b", 1000), &waiting, at(1000 + 5 * GRACE_SECONDS));
    assert!(plan.actions.is_empty(), "however long it takes it does not fail");
    assert_eq!((plan.status.phase, plan.status.queue_position), (BackupPhase::Pending, Some(3)));
    let why = "it waits for its turn: 10 of at most 10 runs are under way".to_owned();
    assert_eq!(complete_of(&plan.status), ("Queued".into(), why));
    assert!(plan.next_check.is_some());

    let mut backup = backup("b", 1000);
    backup.status = Some(plan.status);
    let plan = plan_backup(&install(), &backup, &observed(), at(2000));
    assert_eq!((plan.status.phase, plan.status.queue_position, created(&plan).len()), (BackupPhase::Running, None, 1));
}

#[test]
fn a_scheduled_run_waits_for_its_store_as_long_as_its_slot_may_be_late_and_one_by_hand_does_not() {
    let mut scheduled = backup("b", 1000);
    scheduled.metadata.labels = Some([(SCHEDULED_LABEL.to_owned(), "true".to_owned())].into());
    let down = |reason| ObservedBackup { store: Some(Arc::new(unready_store(reason, "no route"))), ..observed() };
    let at_minute = |backup: &Backup, reason, minute: i64| {
        plan_backup(&install(), backup, &down(reason), at(1000 + 60 * minute)).status.phase
    };
    assert_eq!(at_minute(&scheduled, Reason::Unreachable, 59), BackupPhase::Pending);
    assert_eq!(at_minute(&scheduled, Reason::Unreachable, 60), BackupPhase::Failed);
    assert_eq!(
        at_minute(&scheduled, Reason::CredentialsRejected, 2),
        BackupPhase::Failed,
        "this does not pass by itself"
    );
    assert_eq!(at_minute(&backup("by-hand", 1000), Reason::Unreachable, 2), BackupPhase::Failed);
    let parked = plan_backup(&install(), &scheduled, &down(Reason::Unreachable), at(1100));
    assert!(complete_of(&parked.status).1.contains("as soon as the store is back, until 1970-01-01T01:16:40Z"));
    scheduled.status = Some(parked.status);
    assert_eq!(plan_backup(&install(), &scheduled, &observed(), at(1200)).status.phase, BackupPhase::Running);
}

/// A sibling of [`running`] that completed before it, with this many bytes.
fn before(name: &str, bytes: i64) -> Arc<Backup> {
    let artifact = ArtifactStatus { source: "db".into(), source_bytes: Some(bytes), ..ArtifactStatus::default() };
    let status = BackupStatus { phase: BackupPhase::Completed, artifacts: vec![artifact], ..BackupStatus::default() };
    Arc::new(backup_with(name, 500, status))
}

#[test]
fn a_backup_that_is_far_too_small_is_complete_and_suspicious_until_somebody_accepts_it() {
    let ends = |bytes: i64, percent: i32| {
        let mut policy = policy();
        policy.spec.plausibility.minimum_percent = percent;
        let base = ObservedBackup { policy: Some(Arc::new(policy)), ..observed() };
        let backup = running(&base);
        let job = completed(a_job("x"));
        let jobs = vec![of_source(&backup, "db", job, vec![ended_pod("p", 0, STORED)])];
        let observed = ObservedBackup { jobs, siblings: vec![before("monday", bytes)], ..base };
        let plan = plan_backup(&install(), &backup, &observed, at(1600));
        assert_eq!(plan.status.phase, BackupPhase::Completed);
        (backup, observed, plan)
    };
    let plausible = |status: &BackupStatus| {
        find(&status.conditions, ConditionType::Plausible).map(|c| (c.status.clone(), c.reason.clone()))
    };
    assert_eq!(plausible(&ends(200, 50).2.status), Some(("True".into(), "Plausible".into())));
    assert_eq!(plausible(&ends(201, 0).2.status), None);
    let (mut backup, observed, plan) = ends(201, 50);
    assert_eq!(plausible(&plan.status), Some(("False".into(), "Suspicious".into())));
    let warned: Vec<_> = plan.events.iter().filter(|e| e.warning).collect();
    assert_eq!(warned.len(), 1);
    assert!(
        warned[0].note.contains("source db has 100 bytes") && warned[0].note.contains("kubectl annotate backup b ")
    );

    backup.status = Some(plan.status);
    let again = plan_backup(&install(), &backup, &observed, at(1700));
    assert_eq!(Some(&again.status), backup.status.as_ref(), "it is said once");
    backup.metadata.annotations =
        Some([(crate::plan::names::ACCEPTED_ANNOTATION.to_owned(), "true".to_owned())].into());
    let accepted = plan_backup(&install(), &backup, &observed, at(1700));
    assert_eq!(plausible(&accepted.status), Some(("True".into(), "Accepted".into())));
}

#[test]
fn retention_is_told_which_runs_are_suspicious() {
    let suspicious = || {
        let mut backup = run("small", BackupPhase::Completed, "r1");
        let said = holdfast_crds::condition(ConditionType::Plausible, Some(false), Reason::Suspicious, "", None, at(0));
        backup.status.as_mut().unwrap().conditions.push(said);
        backup
    };
    let mut accepted = suspicious();
    accepted.metadata.annotations =
        Some([(crate::plan::names::ACCEPTED_ANNOTATION.to_owned(), "true".to_owned())].into());
    for (backup, expected) in [(suspicious(), true), (accepted, false), (run("b", BackupPhase::Completed, "r1"), false)]
    {
        let observed =
            ObservedBackup { policy: Some(with_retention()), siblings: vec![Arc::new(backup.clone())], ..observed() };
        let plan = plan_backup(&install(), &backup, &observed, at(1600));
        let known = retain_task(&plan).unwrap().known;
        assert_eq!(known.iter().map(|k| k.suspicious).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn retention_is_told_which_runs_are_damaged() {
    for (value, expected) in [(Some(false), true), (Some(true), false), (None, false)] {
        let mut backup = run("b", BackupPhase::Completed, "r1");
        let reason = Reason::ChecksumMismatch;
        let said = holdfast_crds::condition(ConditionType::Verified, value, reason, "", None, at(0));
        backup.status.as_mut().unwrap().conditions.push(said);
        let observed =
            ObservedBackup { policy: Some(with_retention()), siblings: vec![Arc::new(backup.clone())], ..observed() };
        let plan = plan_backup(&install(), &backup, &observed, at(1600));
        let known = retain_task(&plan).unwrap().known;
        assert_eq!(known.iter().map(|k| k.damaged).collect::<Vec<_>>(), [expected]);
    }
}

/// A Pod whose worker has ended at 1600, and in which an injected container goes on.
fn kept_pod(exit_code: i32, report: &str) -> ObservedPod {
    let mut pod =
        ObservedPod { phase: "Running".into(), others: vec!["a-proxy".into()], ..ended_pod("p", exit_code, report) };
    pod.ended.as_mut().unwrap().at = Some(at(1600));
    pod
}

#[test]
fn a_run_ends_with_its_worker_and_its_pod_is_ended_once_that_is_written_down() {
    let refused = r#"{"reason":"SourceRefused","message":"no such role"}"#;
    for (pod, phase) in [
        (kept_pod(0, STORED), BackupPhase::Completed),
        (kept_pod(12, refused), BackupPhase::Failed),
        (ObservedPod { phase: "Failed".into(), ..kept_pod(0, STORED) }, BackupPhase::Completed),
    ] {
        let mut backup = running(&observed());
        let name = job::backup_name(&backup, "db");
        let goes_on = pod.phase == "Running";
        let jobs = vec![attempt(ObservedJob { name: name.clone(), ..a_job("x") }, vec![pod])];
        let kept = ObservedBackup { jobs, ..observed() };
        let plan = plan_backup(&install(), &backup, &kept, at(1601));
        assert_eq!(plan.status.phase, phase, "{:?}", plan.status.conditions);
        assert_eq!(plan.status.completion_time, Some(Time(at(1600))));
        assert!(deleted_jobs(&plan).is_empty(), "its result is not written down yet");

        backup.status = Some(plan.status);
        let soon = plan_backup(&install(), &backup, &kept, at(1610));
        if goes_on {
            assert!(deleted_jobs(&soon).is_empty(), "a native sidecar ends by itself");
            assert_eq!(soon.next_check, Some(at(1660)));
        } else {
            assert_eq!(deleted_jobs(&soon), [name.as_str()], "no other Pod is needed");
        }
        let later = plan_backup(&install(), &backup, &kept, at(1660));
        assert_eq!(deleted_jobs(&later), [name.as_str()]);
    }
}

#[test]
fn data_that_is_being_read_is_not_deleted_yet() {
    let backup = deleting(Some("r1"));
    for (run_ids, unknown, waits) in [(vec!["r1"], false, true), (vec!["r2"], false, false), (vec![], true, true)] {
        let holds = Holds { run_ids: run_ids.into_iter().map(str::to_owned).collect(), unknown };
        let plan = plan_backup(&install(), &backup, &ObservedBackup { holds, ..observed() }, at(2001));
        assert_eq!((plan.actions.is_empty(), plan.next_check.is_some()), (waits, waits));
    }
}

#[test]
fn a_retention_whose_pod_is_kept_counts_and_its_job_is_deleted() {
    let mut policy = policy();
    policy.spec.retention = Some(RetentionSpec { keep_last: Some(1), ..RetentionSpec::default() });
    let kept = |jobs| ObservedBackup { policy: Some(Arc::new(policy.clone())), jobs, ..observed() };
    let complete = BackupStatus {
        phase: BackupPhase::Completed,
        run_id: Some("r".into()),
        completion_time: Some(Time(at(1590))),
        ..BackupStatus::default()
    };
    let backup = backup_with("b", 100, complete);
    let name = job::retain_name(&backup);
    let job = ObservedJob { name: name.clone(), task: "retain".into(), ..a_job("x") };
    let retained = r#"{"reason":"Completed","outcome":{"retain":{"deleted":[],"kept":1}}}"#;
    let jobs = vec![attempt(job, vec![kept_pod(0, retained)])];
    let told = plan_backup(&install(), &backup, &kept(jobs.clone()), at(1610));
    assert!(deleted_jobs(&told).is_empty());
    assert_eq!(deleted_jobs(&plan_backup(&install(), &backup, &kept(jobs), at(1660))), [name.as_str()]);
    assert!(retain_task(&plan_backup(&install(), &backup, &kept(vec![]), at(1661))).is_some());
    let backup = Backup { status: Some(told.status), ..backup };
    assert_eq!(retain_task(&plan_backup(&install(), &backup, &kept(vec![]), at(1661))), None, "it was applied already");
}

#[test]
fn a_job_whose_pod_has_ended_is_left_to_end_so_that_its_log_is_kept() {
    for (end, pod_phase, exit_code) in [(BackupPhase::Completed, "Succeeded", 0), (BackupPhase::Failed, "Failed", 12)] {
        let status = BackupStatus { phase: end, completion_time: Some(Time(at(1600))), ..BackupStatus::default() };
        let backup = backup_with("b", 100, status);
        let name = job::backup_name(&backup, "db");
        let pod = ObservedPod { phase: pod_phase.into(), ..kept_pod(exit_code, STORED) };
        let jobs = vec![attempt(ObservedJob { name: name.clone(), ..a_job("x") }, vec![pod])];
        let left = ObservedBackup { jobs, ..observed() };
        assert!(deleted_jobs(&plan_backup(&install(), &backup, &left, at(1630))).is_empty(), "{pod_phase}");
        assert_eq!(deleted_jobs(&plan_backup(&install(), &backup, &left, at(1660))), [name.as_str()]);
    }
}

#[test]
fn a_job_whose_pod_would_be_made_anew_is_deleted_at_once() {
    let status =
        BackupStatus { phase: BackupPhase::Failed, completion_time: Some(Time(at(1600))), ..BackupStatus::default() };
    let backup = backup_with("b", 100, status);
    let name = job::backup_name(&backup, "db");
    // Killed for its memory, failed in a way that may pass, and failed by another container although it had completed.
    for exit_code in [137, 11, 0] {
        let pod = ObservedPod { phase: "Failed".into(), ..kept_pod(exit_code, STORED) };
        let jobs = vec![attempt(ObservedJob { name: name.clone(), ..a_job("x") }, vec![pod])];
        let left = ObservedBackup { jobs, ..observed() };
        let plan = plan_backup(&install(), &backup, &left, at(1601));
        assert_eq!(deleted_jobs(&plan), [name.as_str()], "{exit_code}");
    }
}

#[test]
fn a_run_writes_down_the_place_that_it_is_stored_in() {
    let place = ready_store().spec.s3.place();
    assert_eq!(running(&observed()).status.unwrap().location, Some(place));
}

/// What another place holds.
fn moved_store() -> Arc<BackupStore> {
    let mut store = ready_store();
    store.spec.s3.prefix = Some("other".into());
    Arc::new(store)
}

#[test]
fn nothing_is_deleted_in_another_place_and_nobody_is_told_that_it_was() {
    let mut backup = deleting(Some("r1"));
    backup.status.as_mut().unwrap().location = Some(ready_store().spec.s3.place());
    let moved = ObservedBackup { store: Some(moved_store()), ..observed() };
    let plan = plan_backup(&install(), &backup, &moved, at(2001));
    assert_eq!((plan.actions.len(), plan.next_check.is_some()), (0, true));
    let [event] = &plan.events[..] else { panic!("{:?}", plan.events) };
    assert!(event.warning && event.reason == "DataElsewhere", "{event:?}");
    for words in [&ready_store().spec.s3.place(), &moved_store().spec.s3.place(), "nothing was deleted", FINALIZER] {
        assert!(event.note.contains(words), "{words}: {}", event.note);
    }
    assert!(matches!(&plan_backup(&install(), &backup, &observed(), at(2001)).actions[..], [Action::CreateJob(_)]));
}

#[test]
fn retention_counts_and_judges_nothing_that_is_in_another_place() {
    let here = |name: &str, run_id: &str, location: &str| {
        let mut backup = run(name, BackupPhase::Completed, run_id);
        backup.status.as_mut().unwrap().location = Some(location.into());
        backup
    };
    let place = ready_store().spec.s3.place();
    let mut done = here("new", "r3", &place);
    done.status.as_mut().unwrap().completion_time = Some(Time(at(1101)));
    let siblings = [done.clone(), here("old", "r1", &place), here("far", "r0", "s3://old")];
    let observed = ObservedBackup {
        policy: Some(with_retention()),
        siblings: siblings.into_iter().map(Arc::new).collect(),
        ..observed()
    };
    let task = retain_task(&plan_backup(&install(), &done, &observed, at(1102))).unwrap();
    assert_eq!(task.known.iter().map(|k| k.run_id.as_str()).collect::<Vec<_>>(), ["r3", "r1"]);
    let moved = ObservedBackup { store: Some(moved_store()), ..observed };
    let plan = plan_backup(&install(), &done, &moved, at(1102));
    assert_eq!((retain_task(&plan), complete_of(&plan.status).0.as_str()), (None, "DataElsewhere"));
}

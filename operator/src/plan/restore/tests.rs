//! The table of what a RestoreRequest does. Pure.

use holdfast_crds::{
    ArtifactStatus, BackupPolicyStatus, BackupStatus, CatalogueStatus, OnExisting, PasswordSecret, PostgresInto,
    RestoreFrom, RestoreFromPolicy, RestoreFromStore, RestoreInto, RestoreRequestSpec,
};

use super::*;
use crate::plan::fixture::{
    at, attempt, backup_with, completed, ended_pod, failed, install, job as a_job, meta, pending_pod, policy,
    ready_store, running_pod, unready_store,
};
use crate::plan::observed::{ObservedJob, Words};
use crate::plan::status::find;
use crate::task::{RestoreReport, RestoredSource, Target as Server, Task};

pub(super) fn request(from: RestoreFrom) -> RestoreRequest {
    RestoreRequest {
        metadata: meta("undo", "rr-uid", 5000),
        spec: RestoreRequestSpec {
            from,
            sources: None,
            into: vec![],
            on_existing: OnExisting::Fail,
            dry_run: false,
            timeout_seconds: 600,
            safety_backup: None,
            scale_down: vec![],
            job_template: None,
        },
        status: None,
    }
}

pub(super) fn from_backup(name: &str) -> RestoreFrom {
    RestoreFrom { backup: Some(name.into()), ..RestoreFrom::default() }
}

fn from_policy(at_second: Option<i64>) -> RestoreFrom {
    let policy = RestoreFromPolicy { name: "shop".into(), at: at_second.map(|s| Time(at(s))) };
    RestoreFrom { policy: Some(policy), ..RestoreFrom::default() }
}

fn from_store() -> RestoreFrom {
    let store = RestoreFromStore { name: "main".into(), policy: "shop".into(), at: None, run_id: None, cluster: None };
    RestoreFrom { store: Some(store), ..RestoreFrom::default() }
}

fn saved(name: &str, created: i64, phase: BackupPhase) -> Arc<Backup> {
    let status = BackupStatus {
        phase,
        run_id: Some(format!("run-of-{name}")),
        store: Some("main".into()),
        artifacts: vec![ArtifactStatus { source: "db".into(), ..ArtifactStatus::default() }],
        ..BackupStatus::default()
    };
    Arc::new(backup_with(name, created, status))
}

/// A policy whose bucket was read after the request was made.
pub(super) fn read_policy() -> BackupPolicy {
    let time = Some(Time(at(5001)));
    let catalogue = CatalogueStatus {
        place: ready_store().spec.s3.place(),
        time: time.clone(),
        own_time: time,
        ..CatalogueStatus::default()
    };
    let status = BackupPolicyStatus { catalogue: Some(catalogue), ..BackupPolicyStatus::default() };
    BackupPolicy { status: Some(status), ..policy() }
}

pub(super) fn observed() -> ObservedRestore {
    ObservedRestore {
        ground: Ground::default(),
        backups: vec![saved("one", 1000, BackupPhase::Completed), saved("two", 2000, BackupPhase::Completed)],
        policy: Some(Arc::new(read_policy())),
        store: Some(Arc::new(ready_store())),
        policy_store: Some(Arc::new(ready_store())),
        clearing: None,
        safety: None,
        workloads: vec![],
        held: None,
        pods_left: false,
        namespace_terminating: false,
        job: None,
        cut_off: None,
        settle: None,
    }
}

/// What is known where the policy saves a volume, too.
pub(super) fn with_volume(claims: &[&str]) -> ObservedRestore {
    let mut policy = policy();
    let volume = holdfast_crds::VolumeSource { claim_name: "uploads".into(), ..holdfast_crds::VolumeSource::default() };
    policy.spec.sources =
        vec![holdfast_crds::Source { name: "db".into(), volume: Some(volume), ..holdfast_crds::Source::default() }];
    let there = claims.iter().map(|name| ((*name).to_owned(), job::ObservedClaim::default())).collect();
    let ground = Ground { enforced: job::Enforced::Privileged, claims: there };
    ObservedRestore { policy: Some(Arc::new(policy)), ground, ..observed() }
}

fn into_claim(create: bool) -> Vec<RestoreInto> {
    let template = holdfast_crds::ClaimTemplate { size: "1Gi".into(), ..holdfast_crds::ClaimTemplate::default() };
    let volume = holdfast_crds::VolumeInto {
        claim_name: Some("copy".into()),
        create: create.then_some(template),
        ..holdfast_crds::VolumeInto::default()
    };
    vec![RestoreInto { source: "db".into(), volume: Some(volume), ..RestoreInto::default() }]
}

fn running_into_claim(create: bool) -> RestoreRequest {
    let mut request = request(from_backup("two"));
    request.spec.into = into_claim(create);
    let plan = plan_restore(&install(), &request, &with_volume(&[]), at(5001));
    assert_eq!((plan.status.phase, plan.actions.len()), (BackupPhase::Running, 0));
    request.status = Some(plan.status);
    request
}

#[test]
fn a_claim_is_made_before_the_job_that_writes_into_it_unless_it_is_there() {
    let request = running_into_claim(true);
    let plan = plan_restore(&install(), &request, &with_volume(&[]), at(5002));
    let [Action::CreateClaim(claim), Action::CreateJob(job)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    assert_eq!(claim.metadata.name.as_deref(), Some("copy"));
    assert_eq!(claim.metadata.owner_references, None);
    let spec = claim.spec.clone().unwrap();
    assert_eq!(spec.access_modes.unwrap(), ["ReadWriteOnce"]);
    assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, "1Gi");
    let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let context = pod.security_context.as_ref().unwrap();
    assert_eq!((context.run_as_user, context.fs_group), (Some(0), None));
    let add = pod.containers[0].security_context.as_ref().unwrap().capabilities.as_ref().unwrap().add.clone().unwrap();
    assert_eq!(add, ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]);
    // Without a group of the kubelet's, everyone in the Pod must be able to read what is mounted.
    let modes = pod.volumes.iter().flatten().filter_map(|v| v.projected.as_ref()?.default_mode);
    assert_eq!(modes.collect::<Vec<_>>(), [0o444]);

    for (create, there) in [(true, &["copy"][..]), (false, &[])] {
        let plan = plan_restore(&install(), &running_into_claim(create), &with_volume(there), at(5002));
        assert!(matches!(&plan.actions[..], [Action::CreateJob(_)]), "{:?}", plan.actions);
    }
}

#[test]
fn a_claim_that_cannot_be_made_ends_the_request_at_its_deadline_in_the_servers_words() {
    let request = running_into_claim(true);
    let failure = Failure::new(
        Reason::RequestRefused,
        "the API server refused to create PersistentVolumeClaim shop/copy: denied",
    );
    let refused = RestoreRequest { status: Some(refuse(&request, &failure, at(5100)).status), ..request };
    let plan = plan_restore(&install(), &refused, &with_volume(&[]), at(5600));
    assert!(plan.actions.is_empty());
    assert_eq!(plan.status.phase, BackupPhase::Failed);
    assert_eq!(complete_of(&plan).0, "RequestRefused");
    assert!(complete_of(&plan).1.contains("PersistentVolumeClaim shop/copy: denied"));
}

fn into(host: Option<&str>, secret: Option<&str>, database: Option<&str>) -> Vec<RestoreInto> {
    let postgres = PostgresInto {
        host: host.map(str::to_owned),
        credentials_secret: secret.map(|name| PasswordSecret {
            name: name.into(),
            username_key: "username".into(),
            password_key: "password".into(),
        }),
        database: database.map(str::to_owned),
        ..PostgresInto::default()
    };
    vec![RestoreInto { source: "db".into(), postgres: Some(postgres), ..RestoreInto::default() }]
}

pub(super) fn complete_of(plan: &Plan<RestoreRequestStatus>) -> (String, String) {
    let complete = find(&plan.status.conditions, ConditionType::Complete);
    complete.map(|c| (c.reason.clone(), c.message.clone())).unwrap_or_default()
}

/// A request as the plan left it after its first look.
fn running(from: RestoreFrom) -> RestoreRequest {
    let mut request = request(from);
    let plan = plan_restore(&install(), &request, &observed(), at(5001));
    assert!(plan.actions.is_empty(), "the status says Running before there is a Job");
    assert_eq!(plan.status.phase, BackupPhase::Running);
    request.status = Some(plan.status);
    request
}

pub(super) fn created(plan: &Plan<RestoreRequestStatus>) -> Option<RestoreTask> {
    plan.actions.iter().find_map(|a| {
        let Action::CreateJob(job) = a else { return None };
        let pod = job.spec.as_ref()?.template.spec.as_ref()?;
        match serde_json::from_str(pod.containers[0].env.as_ref()?[0].value.as_ref()?).ok()? {
            Task::Restore(task) => Some(*task),
            _ => None,
        }
    })
}

pub(super) fn its(
    request: &RestoreRequest,
    job: ObservedJob,
    pods: Vec<crate::plan::observed::ObservedPod>,
) -> Attempt {
    attempt(ObservedJob { name: job::restore_name(request), uid: "job-uid".into(), ..job }, pods)
}

#[test]
fn one_execution_ever_whatever_the_controller_lives_through() {
    // Running is written, then the Job is made, then its UID is written; each step is repeated until the next one is seen.
    let mut request = running(from_backup("one"));
    for _ in 0..2 {
        let task = created(&plan_restore(&install(), &request, &observed(), at(5002))).unwrap();
        assert_eq!(task.select, Select::RunId("run-of-one".into()));
    }
    let there = ObservedRestore { job: Some(its(&request, a_job("j"), vec![])), ..observed() };
    let seen = plan_restore(&install(), &request, &there, at(5003));
    assert!(seen.actions.is_empty());
    assert_eq!(seen.status.job_uid.as_deref(), Some("job-uid"));
    request.status = Some(seen.status);
    // From now on a Job that is not there is never made again.
    let gone = plan_restore(&install(), &request, &observed(), at(5004));
    assert!(gone.actions.is_empty());
    assert_eq!((gone.status.phase, complete_of(&gone).0.as_str()), (BackupPhase::Failed, "JobVanished"));
    let mut other = its(&request, a_job("j"), vec![]);
    other.job.uid = "another".into();
    let replaced = ObservedRestore { job: Some(other), ..observed() };
    assert_eq!(complete_of(&plan_restore(&install(), &request, &replaced, at(5004))).0, "JobVanished");
    request.status = Some(gone.status);
    let after = plan_restore(&install(), &request, &observed(), at(9999));
    assert!(after.actions.is_empty() && after.events.is_empty());
    assert_eq!(Some(after.status), request.status);
}

#[test]
fn what_was_chosen_stays_chosen() {
    let request = running(from_policy(None));
    assert_eq!(request.status.as_ref().unwrap().backup.as_deref(), Some("two"));
    let mut newer = observed();
    newer.backups.push(saved("three", 3000, BackupPhase::Completed));
    let task = created(&plan_restore(&install(), &request, &newer, at(5002))).unwrap();
    assert_eq!(task.select, Select::RunId("run-of-two".into()));
}

#[test]
fn restore_points_are_found_by_name_and_by_time() {
    let choose = |from, backups: &[Arc<Backup>]| choose(&request(from), backups);
    let all = [
        saved("one", 1000, BackupPhase::Completed),
        saved("two", 2000, BackupPhase::Completed),
        saved("broken", 2500, BackupPhase::Failed),
        saved("busy", 2600, BackupPhase::Running),
    ];
    let name = |choice: Result<Choice, Failure>| choice.unwrap().backup.unwrap();
    assert_eq!(name(choose(from_backup("one"), &all)), "one");
    assert_eq!(name(choose(from_policy(None), &all)), "two");
    assert_eq!(name(choose(from_policy(Some(2000)), &all)), "two");
    assert_eq!(name(choose(from_policy(Some(1999)), &all)), "one");
    let table = [
        (from_backup("none"), Reason::BackupNotFound, "none"),
        (from_backup("broken"), Reason::NoMatchingBackup, "failed"),
        (from_backup("busy"), Reason::InProgress, "not over"),
        (
            from_policy(Some(999)),
            Reason::NoMatchingBackup,
            "there are two (1970-01-01T00:33:20Z), one (1970-01-01T00:16:40Z)",
        ),
    ];
    for (from, reason, words) in table {
        let failure = choose(from, &all).unwrap_err();
        assert_eq!(failure.reason, reason);
        assert!(failure.message.contains(words), "{}", failure.message);
    }
    let many: Vec<_> = (0..500).map(|i| saved(&format!("b{i}"), 1000 + i, BackupPhase::Completed)).collect();
    let failure = choose(from_policy(Some(1)), &many).unwrap_err();
    assert!(failure.message.len() < 1000 && failure.message.contains("490 older ones"), "{}", failure.message);
}

#[test]
fn a_target_is_the_policys_overlaid_by_into() {
    let mut overlaid = running(from_backup("one"));
    overlaid.spec.into = into(None, None, Some("shop_copy"));
    let task = created(&plan_restore(&install(), &overlaid, &observed(), at(5002))).unwrap();
    let Server::Postgres(server) = &task.targets[0].server else { panic!("{:?}", task.targets) };
    assert_eq!(
        (server.host.as_str(), server.port, server.database.as_deref()),
        ("db.shop.svc", 5432, Some("shop_copy"))
    );

    let orphaned = ObservedRestore { policy: None, ..observed() };
    let mut full = running(from_backup("one"));
    full.spec.into = into(Some("new.shop.svc"), Some("new"), None);
    let task = created(&plan_restore(&install(), &full, &orphaned, at(5002))).unwrap();
    let Server::Postgres(server) = &task.targets[0].server else { panic!("{:?}", task.targets) };
    assert_eq!((server.host.as_str(), server.database.as_deref()), ("new.shop.svc", None));

    let mut straight = request(from_store());
    straight.spec.into = into(Some("new.shop.svc"), Some("new"), None);
    straight.status = Some(plan_restore(&install(), &straight, &orphaned, at(5001)).status);
    let task = created(&plan_restore(&install(), &straight, &orphaned, at(5002))).unwrap();
    assert_eq!((task.select, task.sources, task.targets.len()), (Select::At(None), None, 1));
}

#[test]
fn what_is_missing_is_told_with_what_to_write() {
    let orphaned = || ObservedRestore { policy: None, ..observed() };
    let with = |from, sources: Option<&str>, into: Vec<RestoreInto>| {
        let mut request = request(from);
        request.spec.sources = sources.map(|s| vec![s.to_owned()]);
        request.spec.into = into;
        request
    };
    let table = [
        (
            with(from_backup("one"), None, vec![]),
            orphaned(),
            "into: [{source: db, postgres: {host: …, credentialsSecret",
        ),
        (with(from_backup("one"), None, into(Some("h"), None, None)), orphaned(), "credentialsSecret"),
        (with(from_store(), None, vec![]), orphaned(), "BackupPolicy shop is not there"),
        (with(from_backup("one"), Some("chat"), vec![]), observed(), "holds no source chat; it holds db"),
    ];
    for (request, observed, words) in table {
        let plan = plan_restore(&install(), &request, &observed, at(5001));
        let (reason, message) = complete_of(&plan);
        assert_eq!((plan.status.phase, reason.as_str()), (BackupPhase::Failed, "InvalidConfiguration"), "{message}");
        assert!(message.contains(words), "{message}");
        assert!(plan.actions.is_empty());
    }
}

#[test]
fn what_may_be_on_its_way_is_waited_for() {
    let down = ObservedRestore { store: Some(Arc::new(unready_store(Reason::Unreachable, "no route"))), ..observed() };
    let table = [
        (from_backup("none"), observed(), BACKUP_GRACE_SECONDS, "BackupNotFound"),
        (from_backup("one"), down, GRACE_SECONDS, "StoreUnreachable"),
        (from_backup("one"), ObservedRestore { store: None, ..observed() }, GRACE_SECONDS, "StoreNotFound"),
    ];
    for (from, observed, grace, reason) in table {
        let early = plan_restore(&install(), &request(from.clone()), &observed, at(5000 + grace - 1));
        assert_eq!((early.status.phase, complete_of(&early).0.as_str()), (BackupPhase::Pending, reason));
        assert_eq!(early.next_check, Some(at(5000 + grace)));
        let late = plan_restore(&install(), &request(from), &observed, at(5000 + grace));
        assert_eq!((late.status.phase, complete_of(&late).0.as_str()), (BackupPhase::Failed, reason));
    }
    let busy = ObservedRestore { backups: vec![saved("busy", 1, BackupPhase::Running)], ..observed() };
    for (now, phase) in [(5599, BackupPhase::Pending), (5600, BackupPhase::Failed)] {
        let plan = plan_restore(&install(), &request(from_backup("busy")), &busy, at(now));
        assert_eq!(plan.status.phase, phase, "a run ends by itself, and is waited for until the request's deadline");
    }
}

fn started() -> RestoreRequest {
    let mut request = running(from_backup("one"));
    request.status.as_mut().unwrap().job_uid = Some("job-uid".into());
    request
}

#[test]
fn what_the_worker_says_is_written_down() {
    let report = |reason, source: Reason| Report {
        reason,
        message: "2 tables restored".into(),
        outcome: Some(Outcome::Restore(RestoreReport {
            run_id: "run-of-one".into(),
            sources: vec![RestoredSource {
                source: "db".into(),
                reason: source,
                items: 2,
                restored_bytes: 70,
                message: "owner bob is missing".into(),
            }],
        })),
    };
    let request = started();
    let told = ended_pod("p", 0, &report(Reason::Completed, Reason::Completed).to_termination_message());
    let done =
        ObservedRestore { job: Some(its(&request, completed(a_job("j")), vec![told])), ..ObservedRestore::default() };
    let plan = plan_restore(&install(), &request, &done, at(6000));
    assert_eq!(plan.status.phase, BackupPhase::Completed);
    assert_eq!((plan.status.items, plan.status.sources[0].restored_bytes), (Some(2), Some(70)));
    assert_eq!(plan.status.sources[0].message.as_deref(), Some("owner bob is missing"));
    assert!(plan.status.duration.is_some() && plan.actions.is_empty());

    let told = ended_pod("p", 13, &report(Reason::RestoreFailed, Reason::RestoreFailed).to_termination_message());
    let broken =
        ObservedRestore { job: Some(its(&request, failed(a_job("j")), vec![told])), ..ObservedRestore::default() };
    let plan = plan_restore(&install(), &request, &broken, at(6000));
    assert_eq!((plan.status.phase, complete_of(&plan).0.as_str()), (BackupPhase::Failed, "RestoreFailed"));
    assert_eq!(plan.status.sources[0].reason, Some(Reason::RestoreFailed));

    let silent =
        ObservedRestore { job: Some(its(&request, completed(a_job("j")), vec![])), ..ObservedRestore::default() };
    let plan = plan_restore(&install(), &request, &silent, at(6000));
    assert_eq!((plan.status.phase, plan.status.sources[0].phase), (BackupPhase::Completed, BackupPhase::Completed));
    let busy =
        ObservedRestore { job: Some(its(&request, a_job("j"), vec![running_pod("p")])), ..ObservedRestore::default() };
    assert_eq!(plan_restore(&install(), &request, &busy, at(99_999)).status.phase, BackupPhase::Running);
}

#[test]
fn a_pod_that_never_started_never_starts_later() {
    let mut request = started();
    let mut stuck = its(&request, a_job("j"), vec![pending_pod("p", 5010)]);
    stuck.events = vec![Words { reason: "FailedMount".into(), message: "secret \"new\" not found".into() }];
    let observed = ObservedRestore { job: Some(stuck), ..ObservedRestore::default() };
    let plan = plan_restore(&install(), &request, &observed, at(5100));
    assert_eq!((plan.status.phase, complete_of(&plan).0.as_str()), (BackupPhase::Failed, "SecretNotFound"));
    assert!(plan.actions.is_empty(), "first it is written, then the Job goes");
    request.status = Some(plan.status);
    let plan = plan_restore(&install(), &request, &observed, at(5101));
    assert!(matches!(&plan.actions[..], [Action::DeleteJob(_)]));
    let ended = ObservedRestore { job: Some(its(&request, failed(a_job("j")), vec![])), ..ObservedRestore::default() };
    assert!(plan_restore(&install(), &request, &ended, at(9999)).actions.is_empty(), "a Job that ended stays");
}

/// A request as its first look left it, only to look.
fn dry_run(into: Vec<RestoreInto>, observed: &ObservedRestore) -> RestoreRequest {
    let mut request = request(from_backup("two"));
    request.spec.dry_run = true;
    request.spec.into = into;
    request.status = Some(plan_restore(&install(), &request, observed, at(5001)).status);
    request
}

#[test]
fn a_dry_run_makes_no_claim_and_mounts_none_that_is_not_there() {
    for there in [&["copy"][..], &[]] {
        let observed = with_volume(there);
        let request = dry_run(into_claim(true), &observed);
        assert_eq!(request.status.as_ref().unwrap().from.as_deref(), Some("backup/two (dry run)"));
        let plan = plan_restore(&install(), &request, &observed, at(5002));
        let [Action::CreateJob(job)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
        let task = created(&plan).unwrap();
        let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let claims: Vec<&str> = pod
            .volumes
            .iter()
            .flatten()
            .filter_map(|v| v.persistent_volume_claim.as_ref())
            .map(|c| c.claim_name.as_str())
            .collect();
        assert!(task.dry_run);
        assert_eq!(claims, there);
        assert_eq!(task.claims_to_make.is_empty(), !there.is_empty());
        assert_eq!(task.targets[0].mounts.data.is_some(), !there.is_empty());
    }
}

#[test]
fn a_dry_run_is_never_taken_for_a_restore() {
    let mut request = dry_run(vec![], &observed());
    request.status.as_mut().unwrap().job_uid = Some("job-uid".into());
    let report = Report {
        reason: Reason::Completed,
        message: "dry run: nothing was changed and nothing stands in the way; db: would restore 2 items".into(),
        outcome: Some(Outcome::Restore(RestoreReport {
            run_id: "run-of-two".into(),
            sources: vec![RestoredSource {
                source: "db".into(),
                reason: Reason::Completed,
                items: 0,
                restored_bytes: 0,
                message: "would restore 2 items".into(),
            }],
        })),
    };
    for pods in [vec![ended_pod("p", 0, &report.to_termination_message())], vec![]] {
        let job = its(&request, completed(a_job("j")), pods);
        let done = ObservedRestore { job: Some(job), ..ObservedRestore::default() };
        let plan = plan_restore(&install(), &request, &done, at(6000));
        let (reason, message) = complete_of(&plan);
        assert_eq!((plan.status.phase, reason.as_str()), (BackupPhase::Completed, "Completed"));
        assert!(message.starts_with("dry run: nothing was changed"), "{message}");
        let source = &plan.status.sources[0];
        assert_eq!((plan.status.items, source.items, source.restored_bytes), (None, None, None));
    }
    let failed = ObservedRestore { job: Some(its(&request, failed(a_job("j")), vec![])), ..ObservedRestore::default() };
    let plan = plan_restore(&install(), &request, &failed, at(6000));
    assert!(complete_of(&plan).1.starts_with("dry run: "), "{}", complete_of(&plan).1);
}

#[test]
fn the_newest_that_is_suspicious_is_passed_over_unless_it_is_named() {
    let mut small = (*saved("two", 2000, BackupPhase::Completed)).clone();
    let said = holdfast_crds::condition(ConditionType::Plausible, Some(false), Reason::Suspicious, "", None, at(0));
    small.status.as_mut().unwrap().conditions.push(said);
    let backups = [saved("one", 1000, BackupPhase::Completed), Arc::new(small)];
    let chosen = |from, backups: &[Arc<Backup>]| choose(&request(from), backups).map(|c| c.backup.unwrap());
    assert_eq!(chosen(from_policy(None), &backups).unwrap(), "one");
    assert_eq!(chosen(from_backup("two"), &backups).unwrap(), "two");
    let failure = chosen(from_policy(None), &backups[1..]).unwrap_err();
    assert!(failure.message.contains("two (1970-01-01T00:33:20Z, suspicious)"), "{}", failure.message);
}

#[test]
fn the_newest_that_is_damaged_is_passed_over_unless_it_is_named() {
    let verified = |value| {
        let mut backup = (*saved("two", 2000, BackupPhase::Completed)).clone();
        let said = holdfast_crds::condition(ConditionType::Verified, value, Reason::ChecksumMismatch, "", None, at(0));
        backup.status.as_mut().unwrap().conditions.push(said);
        Arc::new(backup)
    };
    let chosen = |from, backups: &[Arc<Backup>]| choose(&request(from), backups).map(|c| c.backup.unwrap());
    let of = |value| [saved("one", 1000, BackupPhase::Completed), verified(value)];
    assert_eq!(chosen(from_policy(None), &of(Some(false))).unwrap(), "one");
    assert_eq!(chosen(from_backup("two"), &of(Some(false))).unwrap(), "two");
    for fine in [Some(true), None] {
        assert_eq!(chosen(from_policy(None), &of(fine)).unwrap(), "two", "what is not known to be damaged counts");
    }
    let failure = chosen(from_policy(None), &of(Some(false))[1..]).unwrap_err();
    assert!(failure.message.contains("two (1970-01-01T00:33:20Z, damaged)"), "{}", failure.message);
}

/// A request that replaces, as its first look left it.
fn replacing(observed: &ObservedRestore) -> RestoreRequest {
    let mut request = request(from_backup("one"));
    request.spec.on_existing = OnExisting::Replace;
    let plan = plan_restore(&install(), &request, observed, at(5001));
    assert_eq!((plan.status.phase, plan.actions.len()), (BackupPhase::Running, 0), "{:?}", complete_of(&plan));
    request.status = Some(plan.status);
    request
}

/// The safety backup of a request, as its plan made it, in a later phase.
fn safety_backup(request: &RestoreRequest, phase: BackupPhase) -> Arc<Backup> {
    let reason = if phase == BackupPhase::Failed { Reason::SourceUnreachable } else { Reason::InProgress };
    let complete = holdfast_crds::condition(ConditionType::Complete, None, reason, "its words", Some(1), at(5500));
    let mut backup = safety::backup(request, "shop", vec!["db".into()]);
    backup.status = Some(BackupStatus {
        phase,
        run_id: Some("run-of-safety".into()),
        store: Some("main".into()),
        completion_time: phase.is_terminal().then(|| Time(at(5500))),
        conditions: vec![complete],
        ..BackupStatus::default()
    });
    Arc::new(backup)
}

#[test]
fn what_is_there_is_saved_before_it_is_replaced() {
    let request = replacing(&observed());
    let name = request.status.as_ref().unwrap().safety_backup.clone().unwrap();
    // The status names it, then it is made, again and again until it is seen.
    for _ in 0..2 {
        let plan = plan_restore(&install(), &request, &observed(), at(5002));
        let [Action::CreateBackup(made)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
        assert_eq!(made.metadata.name.as_ref(), Some(&name));
        assert_eq!((made.spec.policy_ref.name.as_str(), made.spec.sources.clone()), ("shop", Some(vec!["db".into()])));
        assert_eq!(made.spec.deletion_policy, holdfast_crds::DeletionPolicy::Delete);
        assert!(is_safety(made) && made.metadata.owner_references.is_none());
    }
    let with = |phase| ObservedRestore { safety: Some(safety_backup(&request, phase)), ..observed() };
    for (phase, now) in [(BackupPhase::Pending, 5599), (BackupPhase::Running, 99_999)] {
        let plan = plan_restore(&install(), &request, &with(phase), at(now));
        assert!(plan.actions.is_empty(), "it waits for as long as that runs");
        assert!(complete_of(&plan).1.contains(&name) && complete_of(&plan).1.contains("its words"));
        assert_eq!(plan.status.phase, BackupPhase::Running);
    }
    let saved = plan_restore(&install(), &request, &with(BackupPhase::Completed), at(5501));
    assert!(created(&saved).is_some());
    assert_eq!(saved.status.safety_backup, Some(name.clone()));

    let failed = plan_restore(&install(), &request, &with(BackupPhase::Failed), at(5501));
    let (reason, message) = complete_of(&failed);
    assert!(failed.actions.is_empty(), "nothing is touched");
    assert_eq!((failed.status.phase, reason.as_str()), (BackupPhase::Failed, "SourceUnreachable"));
    assert!(message.contains("nothing was touched: its words") && message.contains("safetyBackup: false"), "{message}");

    let mut deleted = (*safety_backup(&request, BackupPhase::Completed)).clone();
    deleted.metadata.deletion_timestamp = Some(Time(at(5501)));
    let deleted = ObservedRestore { safety: Some(Arc::new(deleted)), ..observed() };
    assert_eq!(plan_restore(&install(), &request, &deleted, at(5502)).status.phase, BackupPhase::Failed);

    // Whoever reads the result reads how to undo it.
    let mut ended = request.clone();
    ended.status.as_mut().unwrap().job_uid = Some("job-uid".into());
    let job = its(&ended, completed(a_job("j")), vec![]);
    let done = ObservedRestore { job: Some(job), ..ObservedRestore::default() };
    assert!(complete_of(&plan_restore(&install(), &ended, &done, at(6000))).1.contains(&format!("in Backup {name}")));
}

#[test]
fn only_what_is_replaced_is_saved_and_only_if_that_is_wanted() {
    let table: [fn(&mut RestoreRequestSpec); 3] =
        [|s| s.on_existing = OnExisting::Fail, |s| s.dry_run = true, |s| s.safety_backup = Some(false)];
    for change in table {
        let mut request = request(from_backup("one"));
        request.spec.on_existing = OnExisting::Replace;
        change(&mut request.spec);
        let status = plan_restore(&install(), &request, &observed(), at(5001)).status;
        assert_eq!((status.phase, status.safety_backup), (BackupPhase::Running, None));
    }
    // A claim that is not there holds nothing.
    assert!(replacing(&with_volume(&["uploads"])).status.unwrap().safety_backup.is_some());
    let none = replacing(&with_volume(&[]));
    assert_eq!(none.status.as_ref().unwrap().safety_backup, None);
    assert!(created(&plan_restore(&install(), &none, &with_volume(&[]), at(5002))).is_some());
    // It went after it had been found: there is nothing to save any more.
    let gone = replacing(&with_volume(&["uploads"]));
    let plan = plan_restore(&install(), &gone, &with_volume(&[]), at(5002));
    assert!(created(&plan).is_some() && plan.status.safety_backup.is_none());
}

/// A policy of a MongoDB server, with or without its users.
fn of_mongodb(include_users_and_roles: bool) -> ObservedRestore {
    let mut policy = policy();
    let mongodb = holdfast_crds::MongodbSource {
        host: Some("mongo".into()),
        include_users_and_roles,
        allow_unencrypted: true,
        ..holdfast_crds::MongodbSource::default()
    };
    policy.spec.sources[0] =
        holdfast_crds::Source { name: "db".into(), mongodb: Some(mongodb), ..holdfast_crds::Source::default() };
    ObservedRestore { policy: Some(Arc::new(policy)), ..observed() }
}

fn into_with_users() -> Vec<RestoreInto> {
    let mongodb = holdfast_crds::MongodbInto { include_users_and_roles: true, ..holdfast_crds::MongodbInto::default() };
    vec![RestoreInto { source: "db".into(), mongodb: Some(mongodb), ..RestoreInto::default() }]
}

#[test]
fn users_are_replaced_where_the_safety_backup_has_them() {
    let mut request = request(from_backup("one"));
    request.spec.on_existing = OnExisting::Replace;
    request.spec.into = into_with_users();
    let plan = plan_restore(&install(), &request, &of_mongodb(true), at(5001));
    assert!(plan.status.safety_backup.is_some(), "{:?}", complete_of(&plan));
}

#[test]
fn what_cannot_be_saved_is_not_replaced_unless_that_is_said() {
    let mut read_only = ready_store();
    read_only.spec.read_only = true;
    let read_only = ObservedRestore { store: Some(Arc::new(read_only)), ..observed() };
    let orphaned = ObservedRestore { policy: None, ..observed() };
    let table = [
        (into(None, None, Some("copy")), observed(), "InvalidConfiguration"),
        (into(Some("new.shop.svc"), Some("new"), None), orphaned, "InvalidConfiguration"),
        (into_claim(false), with_volume(&["copy"]), "InvalidConfiguration"),
        (vec![], read_only, "StoreReadOnly"),
        (into_with_users(), of_mongodb(false), "InvalidConfiguration"),
    ];
    for (into, observed, reason) in table {
        let mut request = request(from_backup("one"));
        request.spec.on_existing = OnExisting::Replace;
        request.spec.into = into;
        let plan = plan_restore(&install(), &request, &observed, at(5001));
        assert_eq!((plan.status.phase, complete_of(&plan).0.as_str()), (BackupPhase::Failed, reason));
        assert!(complete_of(&plan).1.contains("safetyBackup: false"), "{}", complete_of(&plan).1);
        request.spec.safety_backup = Some(false);
        assert_eq!(plan_restore(&install(), &request, &observed, at(5001)).status.phase, BackupPhase::Running);
    }
}

#[test]
fn a_safety_backup_is_restored_only_by_its_name() {
    let request = replacing(&observed());
    let mut safety = (*safety_backup(&request, BackupPhase::Completed)).clone();
    safety.metadata.creation_timestamp = Some(Time(at(9000)));
    let name = safety.metadata.name.clone().unwrap();
    let all = [saved("one", 1000, BackupPhase::Completed), Arc::new(safety)];
    let chosen = |from| choose(&super::tests::request(from), &all).unwrap().backup.unwrap();
    assert_eq!(chosen(from_policy(None)), "one", "the newest may be what is to be undone");
    assert_eq!(chosen(from_backup(&name)), name);
}

#[test]
fn a_safety_backup_saves_all_that_is_replaced_and_deletes_nothing() {
    let mut policy = policy();
    policy.spec.retention = Some(holdfast_crds::RetentionSpec::default());
    policy.spec.sources[0].postgres.as_mut().unwrap().exclude_tables = vec!["audit.*".into()];
    let volume = holdfast_crds::VolumeSource {
        claim_name: "uploads".into(),
        exclude: vec!["cache/**".into()],
        ..holdfast_crds::VolumeSource::default()
    };
    policy.spec.sources.push(holdfast_crds::Source {
        name: "files".into(),
        volume: Some(volume),
        ..holdfast_crds::Source::default()
    });
    let saved = as_saved(&policy);
    assert_eq!((saved.spec.retention, saved.spec.plausibility.minimum_percent), (None, 0));
    assert!(saved.spec.sources[0].postgres.as_ref().unwrap().exclude_tables.is_empty());
    let volume = saved.spec.sources[1].volume.as_ref().unwrap();
    assert!(volume.exclude == ["cache/**"] && volume.allow_empty && volume.claim_name == "uploads");
    assert_eq!(saved.metadata, policy.metadata);
}

#[test]
fn sources_that_surely_go_into_one_place_are_refused_before_anything_is_stopped_or_saved() {
    let source = |name: &str, redis: bool| holdfast_crds::Source {
        name: name.into(),
        redis: redis.then(|| holdfast_crds::RedisSource {
            host: "cache".into(),
            port: 6379,
            ..holdfast_crds::RedisSource::default()
        }),
        postgres: (!redis).then(|| policy().spec.sources[0].postgres.clone().unwrap()),
        ..holdfast_crds::Source::default()
    };
    let into_redis = |name: &str, host: Option<&str>, database| RestoreInto {
        source: name.into(),
        redis: Some(holdfast_crds::RedisInto {
            host: host.map(str::to_owned),
            database,
            ..holdfast_crds::RedisInto::default()
        }),
        ..RestoreInto::default()
    };
    let into_database = |name: &str, database: &str| RestoreInto {
        source: name.into(),
        postgres: Some(PostgresInto { database: Some(database.into()), ..PostgresInto::default() }),
        ..RestoreInto::default()
    };
    let into_files = |name: &str, claim: &str| RestoreInto {
        source: name.into(),
        config: Some(holdfast_crds::ConfigInto { claim_name: claim.into(), ..holdfast_crds::ConfigInto::default() }),
        ..RestoreInto::default()
    };
    let config = |name: &str| holdfast_crds::Source {
        name: name.into(),
        config: Some(holdfast_crds::ConfigSource::default()),
        ..holdfast_crds::Source::default()
    };
    let keys = || vec![source("one", true), source("two", true)];
    let databases = || vec![source("one", false), source("two", false)];
    let files = || vec![config("one"), config("two")];
    let table: [(Vec<holdfast_crds::Source>, Vec<RestoreInto>, Option<&str>); 6] = [
        (keys(), vec![], Some("redis at cache:6379")),
        (keys(), vec![into_redis("two", Some("cache.ns.svc"), None)], Some("redis at cache:6379")),
        (keys(), vec![into_redis("one", None, Some(1)), into_redis("two", None, Some(2))], None),
        (databases(), vec![into_database("one", "x"), into_database("two", "x")], Some("database x at ")),
        (databases(), vec![into_database("one", "x"), into_database("two", "y")], None),
        (files(), vec![into_files("one", "here"), into_files("two", "here")], Some("claim here")),
    ];
    for (sources, into, place) in table {
        let mut policy = read_policy();
        policy.spec.sources = sources;
        let mut request = request(from_backup("one"));
        request.metadata.namespace = Some("ns".into());
        request.spec.sources = Some(vec!["one".into(), "two".into()]);
        request.spec.into = into;
        let mut backup = (*saved("one", 1000, BackupPhase::Completed)).clone();
        backup.status.as_mut().unwrap().artifacts =
            ["one", "two"].map(|source| ArtifactStatus { source: source.into(), ..ArtifactStatus::default() }).to_vec();
        let known = ObservedRestore {
            policy: Some(Arc::new(policy)),
            backups: vec![Arc::new(backup)],
            ground: Ground {
                enforced: job::Enforced::Privileged,
                claims: [("here".to_owned(), job::ObservedClaim::default())].into(),
            },
            ..observed()
        };
        let plan = plan_restore(&install(), &request, &known, at(5001));
        match place {
            None => assert_eq!(plan.status.phase, BackupPhase::Running, "{:?}", complete_of(&plan)),
            Some(place) => {
                let (reason, message) = complete_of(&plan);
                assert_eq!((plan.status.phase, reason.as_str()), (BackupPhase::Failed, "InvalidConfiguration"));
                let words = ["sources one and two", place, "nothing was touched"];
                assert!(words.iter().all(|word| message.contains(word)), "{message}");
            }
        }
    }
}

#[test]
fn the_worker_is_told_what_a_source_saves_and_what_of_it_the_safety_backup_holds() {
    let mut known = with_volume(&["uploads"]);
    let mut policy = (*known.policy.clone().unwrap()).clone();
    policy.status = read_policy().status;
    policy.spec.sources[0].volume.as_mut().unwrap().include = vec!["photos/**".into()];
    known.policy = Some(Arc::new(policy));
    let saves = crate::task::PathFilter { include: vec!["photos/**".into()], exclude: vec![] };
    for (on_existing, safety) in [(OnExisting::Fail, None), (OnExisting::Replace, Some(saves.clone()))] {
        let mut request = request(from_backup("two"));
        request.spec.on_existing = on_existing;
        let choice = choose(&request, &known.backups).unwrap();
        let task = prepare(&install(), &request, &known, &choice).unwrap().task;
        let Server::Volume(volume) = &task.targets[0].server else { panic!("{task:?}") };
        assert_eq!((&volume.saves, &volume.safety), (&Some(saves.clone()), &safety));
    }
}

#[test]
fn of_one_database_each_source_saves_its_own_collections_before_they_are_replaced() {
    let source = |name: &str, database: &str, include: &str| holdfast_crds::Source {
        name: name.into(),
        mongodb: Some(holdfast_crds::MongodbSource {
            host: Some("chat".into()),
            database: Some(database.into()),
            include_collections: vec![include.into()],
            ..holdfast_crds::MongodbSource::default()
        }),
        ..holdfast_crds::Source::default()
    };
    let mut policy = policy();
    policy.spec.sources = vec![source("a", "one", "users"), source("b", "one", "posts"), source("c", "two", "x")];
    let saved = as_saved(&policy);
    let include: Vec<_> =
        saved.spec.sources.iter().map(|s| s.mongodb.as_ref().unwrap().include_collections.clone()).collect();
    assert_eq!(include, [vec!["users".to_owned()], vec!["posts".to_owned()], vec![]]);
}

#[test]
fn a_restore_ends_with_its_worker_and_its_pod_is_ended_once_that_is_written_down() {
    let report = r#"{"reason":"Completed","message":"3 items","outcome":{"restore":{"sources":[]}}}"#;
    for (exit_code, report, phase) in [
        (0, report, BackupPhase::Completed),
        (11, r#"{"reason":"SourceUnreachable","message":"no route"}"#, BackupPhase::Failed),
    ] {
        let mut request = running(from_backup("one"));
        request.status.as_mut().unwrap().job_uid = Some("job-uid".into());
        let mut pod = ended_pod("p", exit_code, report);
        pod.phase = "Running".into();
        pod.ended.as_mut().unwrap().at = Some(at(6000));
        let once = ObservedJob { retries: 0, ..a_job("j") };
        let kept = ObservedRestore { job: Some(its(&request, once, vec![pod])), ..observed() };
        let plan = plan_restore(&install(), &request, &kept, at(6001));
        assert_eq!((plan.status.phase, plan.status.completion_time.clone()), (phase, Some(Time(at(6000)))));
        assert!(plan.actions.is_empty(), "its result is not written down yet");
        request.status = Some(plan.status);
        let soon = plan_restore(&install(), &request, &kept, at(6010));
        assert!(soon.actions.is_empty() && soon.next_check == Some(at(6060)), "a native sidecar ends by itself");
        let later = plan_restore(&install(), &request, &kept, at(6060));
        assert!(matches!(&later.actions[..], [Action::DeleteJob(target)] if target.uid == "job-uid"));
    }
}

#[test]
fn a_restore_that_was_cut_off_says_so_of_its_target_by_engine() {
    let mut request = running(from_backup("one"));
    request.status.as_mut().unwrap().job_uid = Some("job-uid".into());
    let job = ObservedJob { sources: vec![("db".into(), "postgres".into())], ..failed(a_job("j")) };
    let word = Some(Words { reason: "Evicted".into(), message: "the node was low on memory".into() });
    let pod = crate::plan::observed::ObservedPod { word, ..ended_pod("p", 137, "") };
    let cut = ObservedRestore { job: Some(its(&request, job, vec![pod])), ..observed() };
    let (reason, message) = complete_of(&plan_restore(&install(), &request, &cut, at(6001)));
    assert_eq!(reason, "PodLost");
    assert!(message.contains("low on memory") && message.contains("…_holdfast_…"), "{message}");
}

#[test]
fn nothing_is_read_while_runs_are_deleted_and_what_is_made_later_is_not_waited_for() {
    let made = |since| ObservedRestore {
        clearing: Some(Clearing { since: at(since), words: "it waits for the retention".into() }),
        ..observed()
    };
    for from in [from_backup("one"), from_policy(None), from_store()] {
        let mut waits = request(from.clone());
        waits.spec.into = into(Some("else.shop.svc"), Some("other"), Some("copy"));
        let plan = plan_restore(&install(), &waits, &made(4000), at(5001));
        assert_eq!((plan.status.phase, plan.actions.len()), (BackupPhase::Pending, 0));
        assert_eq!(complete_of(&plan), ("InProgress".into(), "it waits for the retention".into()));
        assert!(plan.next_check.is_some());
    }
    // The watch of Jobs lagged: it had begun, and nothing was touched yet.
    let begun = running(from_backup("one"));
    let plan = plan_restore(&install(), &begun, &made(5000), at(5002));
    assert_eq!((created(&plan).is_none(), complete_of(&plan).0.as_str()), (true, "InProgress"));
    // Whoever deletes later has heard of it.
    assert!(created(&plan_restore(&install(), &begun, &made(5001 + HEARD_SECONDS + 1), at(5020))).is_some());
}

#[test]
fn before_the_newest_is_chosen_the_bucket_is_read_for_what_the_cluster_has_forgotten() {
    let with = |catalogue: Option<CatalogueStatus>, backups: Vec<Arc<Backup>>| {
        let status = BackupPolicyStatus { catalogue, ..BackupPolicyStatus::default() };
        let policy = Some(Arc::new(BackupPolicy { status: Some(status), ..policy() }));
        ObservedRestore { backups, policy, ..observed() }
    };
    let place = ready_store().spec.s3.place();
    let read = |own: i64, newest: Option<&str>| {
        let time = Some(Time(at(own)));
        let newest = newest.map(str::to_owned);
        Some(CatalogueStatus { place: place.clone(), time: time.clone(), own_time: time, newest, found: 1, more: 0 })
    };
    let all = || observed().backups;
    let look = |from: RestoreFrom, dry_run, seen: &ObservedRestore, now| {
        let mut request = request(from);
        request.spec.dry_run = dry_run;
        let plan = plan_restore(&install(), &request, seen, at(now));
        (plan.status.phase, plan.status.backup.clone(), complete_of(&plan))
    };
    let unread = [
        with(None, all()),
        with(read(5000, None), all()),
        with(Some(CatalogueStatus { place: "s3://elsewhere".into(), ..read(5001, None).unwrap() }), all()),
        with(Some(CatalogueStatus { own_time: None, ..read(5001, None).unwrap() }), all()),
        with(read(5001, Some("run-of-three")), all()),
    ];
    for seen in &unread {
        for dry_run in [false, true] {
            let (phase, _, (reason, message)) = look(from_policy(None), dry_run, seen, 5002);
            assert_eq!((phase, reason.as_str()), (BackupPhase::Pending, "InProgress"), "{message}");
            assert!(message.contains("the bucket is read first"), "{message}");
        }
        assert_eq!(look(from_backup("one"), false, seen, 5002).0, BackupPhase::Running, "it was named");
    }
    // It is not waited for beyond the request's own deadline, and no older one is taken instead.
    let (phase, _, (reason, message)) = look(from_policy(None), false, &unread[0], 5600);
    assert_eq!((phase, reason.as_str()), (BackupPhase::Failed, "StoreNotReady"));
    assert!(message.contains("from.store"), "{message}");

    let mut found = (*saved("three", 3000, BackupPhase::Completed)).clone();
    let told = [all(), vec![Arc::new(found.clone())]].concat();
    let chosen = look(from_policy(None), false, &with(read(5001, Some("run-of-three")), told), 5002);
    assert_eq!(chosen.1.as_deref(), Some("three"));
    // One that was made of what was found, and has not written it down yet.
    found.metadata.annotations =
        Some(std::collections::BTreeMap::from([(crate::plan::names::FOUND_ANNOTATION.to_owned(), "{}".to_owned())]));
    found.status = None;
    let told = [all(), vec![Arc::new(found)]].concat();
    assert_eq!(look(from_policy(None), false, &with(read(5001, None), told), 5002).0, BackupPhase::Pending);
}

/// A completed Backup that says of its data where it is, or that it is gone.
fn lacking(name: &str, created: i64, location: &str, missing: bool) -> Arc<Backup> {
    let mut backup = (*saved(name, created, BackupPhase::Completed)).clone();
    backup.status.as_mut().unwrap().location = Some(location.to_owned());
    if missing {
        backup.status = crate::plan::location::gone(&backup, location, "it is not there", at(created + 1));
    }
    Arc::new(backup)
}

#[test]
fn data_that_is_gone_is_passed_over_and_data_that_is_elsewhere_is_told_with_both_places() {
    let place = ready_store().spec.s3.place();
    let look = |from: RestoreFrom, newest: Arc<Backup>| {
        let backups = vec![saved("one", 1000, BackupPhase::Completed), newest];
        let backups = if from.backup.is_some() { backups[1..].to_vec() } else { backups };
        let plan = plan_restore(&install(), &request(from), &ObservedRestore { backups, ..observed() }, at(5002));
        (plan.status.backup.clone(), complete_of(&plan))
    };
    let gone = lacking("three", 3000, &place, true);
    assert_eq!(look(from_policy(None), gone.clone()).0.as_deref(), Some("one"));
    let (_, (reason, message)) = look(from_backup("three"), gone);
    assert_eq!(reason, "DataMissing");
    assert!(message.contains(&place), "{message}");
    let moved = lacking("three", 3000, "s3://old/prod", false);
    for from in [from_backup("three"), from_policy(None)] {
        let (backup, (reason, message)) = look(from, moved.clone());
        assert_eq!((backup, reason.as_str()), (None, "DataElsewhere"), "an older one is not taken instead");
        for words in ["s3://old/prod", &place, "BackupStore main", "from.store"] {
            assert!(message.contains(words), "{words}: {message}");
        }
    }
}

//! What becomes of restores that the API server refuses, and of what they wait for. Pure.

use std::sync::Arc;

use holdfast_crds::{BackupPhase, BackupStatus, OnExisting, Reason, ScaleTarget, WorkloadKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::tests::{complete_of, from_backup, observed, request};
use super::*;
use crate::plan::action::Action;
use crate::plan::fixture::{at, backup_with, install, unready_store};
use crate::plan::names::SCALE_FINALIZER;
use crate::plan::restore::{ObservedWorkload, plan_restore, safety};

fn words() -> Failure {
    Failure::new(Reason::QuotaExceeded, "the API server refused to create Job shop/undo: exceeded quota: none")
}

fn with(request: &RestoreRequest, plan: Plan<RestoreRequestStatus>) -> RestoreRequest {
    RestoreRequest { status: Some(plan.status), ..request.clone() }
}

fn stopping() -> (RestoreRequest, ObservedRestore) {
    let mut request = request(from_backup("one"));
    request.spec.scale_down = vec![ScaleTarget { kind: WorkloadKind::Deployment, name: "api".into() }];
    request.metadata.finalizers = Some(vec![SCALE_FINALIZER.into()]);
    (request, running(3))
}

fn running(replicas: i32) -> ObservedRestore {
    let api = ObservedWorkload {
        kind: WorkloadKind::Deployment,
        name: "api".into(),
        replicas,
        pods: vec![],
        resource_version: Some("7".into()),
    };
    ObservedRestore { workloads: vec![api], ..observed() }
}

#[test]
fn a_job_that_is_refused_is_said_and_tried_until_the_deadline_of_the_request() {
    let request = request(from_backup("one"));
    let started = with(&request, plan_restore(&install(), &request, &observed(), at(5001)));
    let plan = refuse(&started, &words(), at(5002));
    assert_eq!(complete_of(&plan).0, "QuotaExceeded");
    assert!(complete_of(&plan).1.contains("exceeded quota: none"), "{:?}", complete_of(&plan));
    assert_eq!((plan.status.phase, plan.events.len()), (BackupPhase::Running, 1));
    let waiting = with(&started, plan);
    let again = refuse(&waiting, &words(), at(5100));
    assert_eq!((Some(&again.status), again.events.len()), (waiting.status.as_ref(), 0));

    let lifted = plan_restore(&install(), &waiting, &observed(), at(5200));
    assert!(matches!(&lifted.actions[..], [Action::CreateJob(_)]), "{:?}", lifted.actions);
    let late = plan_restore(&install(), &waiting, &observed(), at(5600));
    assert_eq!((late.status.phase, late.actions.len()), (BackupPhase::Failed, 0));
    let (reason, message) = complete_of(&late);
    assert_eq!(reason, "QuotaExceeded");
    assert!(message.contains("timeoutSeconds (600 s)") && message.contains("exceeded quota: none"), "{message}");
}

#[test]
fn nothing_is_stopped_for_a_job_that_would_be_refused() {
    let (request, there) = stopping();
    let plan = plan_restore(&install(), &request, &there, at(5001));
    let [Action::TryJob(tried)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    let started = with(&request, plan.clone());
    let after_that = plan_restore(&install(), &started, &running(0), at(5002));
    let [Action::CreateJob(job)] = &after_that.actions[..] else { panic!("{:?}", after_that.actions) };
    assert_eq!(tried, job, "it is the very Job");

    let plan = refuse(&request, &words(), at(5001));
    assert_eq!((plan.status.phase, complete_of(&plan).0.as_str()), (BackupPhase::Pending, "QuotaExceeded"));
    assert!(plan.status.scaled_down.is_empty());
    let waiting = with(&request, plan);
    let late = refuse(&waiting, &words(), at(5600));
    assert_eq!((late.status.phase, complete_of(&late).0.as_str()), (BackupPhase::Failed, "QuotaExceeded"));
}

#[test]
fn workloads_come_back_when_the_job_is_refused_after_they_were_stopped() {
    let (request, there) = stopping();
    let started = with(&request, plan_restore(&install(), &request, &there, at(5001)));
    let waiting = with(&started, refuse(&started, &words(), at(5010)));
    let failed = with(&waiting, plan_restore(&install(), &waiting, &running(0), at(5600)));
    assert_eq!(failed.status.as_ref().unwrap().phase, BackupPhase::Failed);
    let back = plan_restore(&install(), &failed, &running(0), at(5601));
    assert!(matches!(&back.actions[..], [Action::Scale(_, _, 3)]), "{:?}", back.actions);

    // That is refused, too.
    let denied =
        Failure::new(Reason::RequestRefused, "the API server refused to scale Deployment shop/api to 3: denied");
    let plan = refuse(&failed, &denied, at(5602));
    let said = find(&plan.status.conditions, ConditionType::BroughtBack).unwrap();
    assert!(said.message.contains("denied") && plan.events.len() == 1, "{said:?}");
    assert_eq!(plan.status.phase, BackupPhase::Failed);
    let told = with(&failed, plan);
    assert!(refuse(&told, &denied, at(5700)).events.is_empty());
    let back = plan_restore(&install(), &told, &running(0), at(5701));
    assert!(find(&back.status.conditions, ConditionType::BroughtBack).is_none(), "{:?}", back.status);
}

#[test]
fn every_wait_before_the_job_ends_by_the_deadline() {
    let (request, there) = stopping();
    let started = with(&request, plan_restore(&install(), &request, &there, at(5001)));
    // For Pods that do not go there is a limit of its own.
    let mut pods = running(0);
    pods.workloads[0].pods = vec!["api-a".into()];
    let mut held = there.clone();
    held.held = Some("Deployment api is scaled down by RestoreRequest other".into());
    let mut down = running(0);
    down.store = Some(Arc::new(unready_store(Reason::Unreachable, "no answer")));
    let mut gone = running(0);
    gone.store = None;
    for (request, observed) in [(&request, held), (&started, down), (&started, gone), (&started, pods)] {
        let early = plan_restore(&install(), request, &observed, at(5200));
        assert_ne!(early.status.phase, BackupPhase::Failed, "{:?}", complete_of(&early));
        let late = plan_restore(&install(), request, &observed, at(5600));
        assert_eq!(late.status.phase, BackupPhase::Failed, "{:?}", complete_of(&late));
    }
}

#[test]
fn a_store_that_fails_a_probe_is_waited_for() {
    let request = request(from_backup("one"));
    let started = with(&request, plan_restore(&install(), &request, &observed(), at(5001)));
    let away = ObservedRestore { store: Some(Arc::new(unready_store(Reason::Unreachable, "no answer"))), ..observed() };
    let plan = plan_restore(&install(), &started, &away, at(5300));
    assert_eq!((plan.status.phase, complete_of(&plan).0.as_str()), (BackupPhase::Running, "StoreUnreachable"));
    let waiting = with(&started, plan);
    let back = plan_restore(&install(), &waiting, &observed(), at(5400));
    assert!(matches!(&back.actions[..], [Action::CreateJob(_)]), "{:?}", back.actions);
    let late = plan_restore(&install(), &waiting, &away, at(5600));
    assert_eq!((late.status.phase, complete_of(&late).0.as_str()), (BackupPhase::Failed, "StoreUnreachable"));
}

#[test]
fn a_safety_backup_has_its_own_time_and_one_that_never_starts_goes_with_the_request() {
    let mut request = request(from_backup("one"));
    request.spec.on_existing = OnExisting::Replace;
    let started = with(&request, plan_restore(&install(), &request, &observed(), at(5001)));
    let safety = |phase, completed: Option<i64>| {
        let status = BackupStatus { phase, completion_time: completed.map(|s| Time(at(s))), ..BackupStatus::default() };
        let backup = backup_with(&safety::name(&request), 5002, status);
        ObservedRestore { safety: Some(Arc::new(backup)), ..observed() }
    };
    let phase = |observed: &ObservedRestore, now| plan_restore(&install(), &started, observed, at(now)).status.phase;
    assert_eq!(phase(&safety(BackupPhase::Running, None), 9000), BackupPhase::Running, "hours are not lost");
    let done = safety(BackupPhase::Completed, Some(9000));
    assert_eq!(phase(&done, 9599), BackupPhase::Running);
    assert_eq!(phase(&done, 9600), BackupPhase::Failed);
    let waiting = safety(BackupPhase::Pending, None);
    assert_eq!(phase(&waiting, 5599), BackupPhase::Running);
    let failed = with(&started, plan_restore(&install(), &started, &waiting, at(5600)));
    assert_eq!(failed.status.as_ref().unwrap().phase, BackupPhase::Failed);
    let plan = plan_restore(&install(), &failed, &waiting, at(5601));
    assert!(matches!(&plan.actions[..], [Action::DeleteBackup(_)]), "{:?}", plan.actions);
    let plan = plan_restore(&install(), &failed, &done, at(9001));
    assert!(plan.actions.is_empty(), "what was saved stays");
}

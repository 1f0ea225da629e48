//! What becomes of workloads around a restore. Pure.

use holdfast_crds::{BackupPhase, ScaleTarget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::tests::{complete_of, created, from_backup, its, observed, request, with_volume};
use super::*;
use crate::plan::fixture::{at, completed, failed, install, job as a_job};
use crate::plan::restore::plan_restore;

fn target(kind: WorkloadKind, name: &str) -> ScaleTarget {
    ScaleTarget { kind, name: name.into() }
}

fn asked() -> RestoreRequest {
    let mut request = request(from_backup("one"));
    request.spec.scale_down =
        vec![target(WorkloadKind::Deployment, "api"), target(WorkloadKind::StatefulSet, "worker")];
    request
}

/// The two workloads with these replicas; the first one with these Pods.
fn there(api: i32, worker: i32, pods: &[&str]) -> ObservedRestore {
    let workload = |kind, name: &str, replicas, pods: &[&str]| ObservedWorkload {
        kind,
        name: name.into(),
        replicas,
        pods: pods.iter().map(ToString::to_string).collect(),
        resource_version: Some(format!("rv-of-{name}")),
    };
    let workloads = vec![
        workload(WorkloadKind::Deployment, "api", api, pods),
        workload(WorkloadKind::StatefulSet, "worker", worker, &[]),
    ];
    ObservedRestore { workloads, ..observed() }
}

fn kept() -> RestoreRequest {
    let mut request = asked();
    request.metadata.finalizers = Some(vec!["other".into(), SCALE_FINALIZER.into()]);
    request
}

/// A request that has taken down three replicas and one.
fn recorded() -> RestoreRequest {
    let mut request = kept();
    let plan = plan_restore(&install(), &request, &there(3, 1, &["api-a"]), at(5001));
    assert!(matches!(&plan.actions[..], [Action::TryJob(_)]), "{:?}", complete_of(&plan));
    assert_eq!(plan.status.phase, BackupPhase::Running);
    request.status = Some(plan.status);
    request
}

fn scales(plan: &Plan<RestoreRequestStatus>) -> Vec<(&str, i32)> {
    let scales = plan.actions.iter().filter_map(|action| match action {
        Action::Scale(_, target, replicas) => {
            assert_eq!(target.resource_version, Some(format!("rv-of-{}", target.name)));
            Some((target.name.as_str(), *replicas))
        }
        _ => None,
    });
    scales.collect()
}

fn release_of(plan: &Plan<RestoreRequestStatus>) -> Option<&[String]> {
    plan.actions.iter().find_map(|a| match a {
        Action::SetRestoreFinalizers(_, rest) => Some(rest.as_slice()),
        _ => None,
    })
}

#[test]
fn replicas_are_written_down_before_anything_is_scaled() {
    let first = plan_restore(&install(), &asked(), &there(3, 1, &[]), at(5001));
    assert!(matches!(&first.actions[..], [Action::SetRestoreFinalizers(_, f)] if f[..] == [SCALE_FINALIZER]));
    assert_eq!(first.status, RestoreRequestStatus::default(), "nothing is begun before the finalizer is there");

    let request = recorded();
    let written = &request.status.as_ref().unwrap().scaled_down;
    assert_eq!(written.iter().map(|w| (w.name.as_str(), w.replicas)).collect::<Vec<_>>(), [("api", 3), ("worker", 1)]);
    // Asked for until it is so, also by a controller that comes after; the Pods are waited for.
    let both = plan_restore(&install(), &request, &there(3, 1, &["api-a"]), at(5002));
    assert_eq!(scales(&both), [("api", 0), ("worker", 0)]);
    let one = plan_restore(&install(), &request, &there(0, 1, &["api-a"]), at(5003));
    assert_eq!(scales(&one), [("worker", 0)]);
    let waits = plan_restore(&install(), &request, &there(0, 0, &["api-a", "api-b"]), at(5004));
    assert!(waits.actions.is_empty() && waits.next_check == Some(at(5004 + LOOK_SECONDS)));
    assert!(complete_of(&waits).1.contains("Deployment api is scaled down and has the Pods api-a, api-b still"));
    let down = plan_restore(&install(), &request, &there(0, 0, &[]), at(5005));
    assert!(created(&down).is_some() && scales(&down).is_empty());
    assert_eq!(down.status.scaled_down, *written, "what it had stays written");
}

#[test]
fn what_is_there_is_saved_once_the_workloads_are_down() {
    let mut request = kept();
    request.spec.on_existing = holdfast_crds::OnExisting::Replace;
    request.status = Some(plan_restore(&install(), &request, &there(3, 1, &[]), at(5001)).status);
    let plan = plan_restore(&install(), &request, &there(3, 1, &[]), at(5002));
    assert!(plan.actions.iter().all(|a| matches!(a, Action::Scale(..))), "nothing is written after it was saved");
    let plan = plan_restore(&install(), &request, &there(0, 0, &[]), at(5003));
    assert!(matches!(&plan.actions[..], [Action::CreateBackup(_)]));
}

#[test]
fn pods_that_do_not_go_and_workloads_that_are_gone_end_it_before_anything_is_touched() {
    let gone = ObservedRestore { workloads: vec![], ..observed() };
    let table = [
        (there(0, 0, &["api-a"]), "DeadlineExceeded", "has the Pods api-a still"),
        (there(2, 0, &[]), "DeadlineExceeded", "started anew by somebody else"),
        (gone, "InvalidConfiguration", "Deployment api of scaleDown is gone"),
    ];
    for (observed, reason, words) in table {
        let plan = plan_restore(&install(), &recorded(), &observed, at(5001 + DOWN_SECONDS));
        let (told, message) = complete_of(&plan);
        assert_eq!((plan.status.phase, told.as_str()), (BackupPhase::Failed, reason));
        assert!(message.contains(words) && message.contains("nothing was touched"), "{message}");
        assert!(plan.actions.is_empty(), "the end is written first, then they are brought back");
    }
}

/// A request that has ended in this way, as its status says.
fn ended(completes: bool) -> RestoreRequest {
    let mut request = recorded();
    request.status.as_mut().unwrap().job_uid = Some("job-uid".into());
    let job = if completes { completed(a_job("j")) } else { failed(a_job("j")) };
    let job = its(&request, job, vec![]);
    let plan = plan_restore(&install(), &request, &ObservedRestore { job: Some(job), ..observed() }, at(6000));
    assert!(plan.status.phase.is_terminal() && plan.actions.is_empty());
    assert!(plan.status.scaled_down.iter().all(|w| w.outcome.is_none()));
    request.status = Some(plan.status);
    request
}

#[test]
fn whatever_the_end_they_get_back_what_they_had() {
    for completes in [true, false] {
        let mut request = ended(completes);
        let busy = ObservedRestore { pods_left: true, ..there(0, 0, &[]) };
        let wait = plan_restore(&install(), &request, &busy, at(5011));
        assert!(wait.actions.is_empty() && wait.next_check.is_some(), "a worker may still write");
        assert_eq!(
            scales(&plan_restore(&install(), &request, &busy, at(9999))).len(),
            2,
            "a lost node is not waited for"
        );

        let plan = plan_restore(&install(), &request, &there(0, 0, &[]), at(5011));
        assert_eq!(scales(&plan), [("api", 3), ("worker", 1)]);
        assert_eq!(release_of(&plan), None, "the outcome is written before the finalizer goes");
        // It died after scaling, before it could write: they have what they had.
        let again = plan_restore(&install(), &request, &there(3, 1, &[]), at(5012));
        assert!(again.actions.is_empty());
        assert_eq!(again.status, plan.status);
        request.status = Some(plan.status);
        let done = plan_restore(&install(), &request, &observed(), at(5013));
        assert_eq!(release_of(&done), Some(&["other".to_owned()][..]));
        assert_eq!(done.status.phase, request.status.as_ref().unwrap().phase);
    }
}

#[test]
fn what_somebody_else_has_scaled_is_left_alone_and_told() {
    let mut observed = there(5, 0, &[]);
    observed.workloads.pop();
    let plan = plan_restore(&install(), &ended(true), &observed, at(6001));
    assert!(plan.actions.is_empty());
    let outcomes: Vec<_> = plan.status.scaled_down.iter().filter_map(|w| w.outcome.as_deref()).collect();
    assert_eq!(outcomes, ["left at 5 replicas, to which somebody has scaled it; it had 3", "it is gone"]);
    assert!(plan.events.len() == 2 && plan.events.iter().all(|e| e.warning));
}

#[test]
fn a_request_that_is_deleted_stops_its_job_and_brings_them_back_before_it_goes() {
    let mut request = recorded();
    request.metadata.deletion_timestamp = Some(Time(at(5500)));
    let go = |request: &RestoreRequest, observed: &ObservedRestore, now| {
        plan_restore(&install(), request, observed, at(now))
    };
    // The Job was made and its UID not written yet.
    let job = || Some(its(&request, a_job("j"), vec![]));
    let running = ObservedRestore { job: job(), ..there(0, 0, &[]) };
    let plan = go(&request, &running, 5501);
    assert!(matches!(&plan.actions[..], [Action::DeleteJob(_)]), "{:?}", plan.actions);
    assert_eq!(plan.status.job_uid.as_deref(), Some("job-uid"), "by it its Pods are found");
    let mut ends = running.clone();
    ends.job.as_mut().unwrap().job.deleting = true;
    assert!(go(&request, &ends, 5502).actions.is_empty());
    let pods = ObservedRestore { pods_left: true, ..there(0, 0, &[]) };
    assert!(go(&request, &pods, 5503).actions.is_empty(), "the worker may still write");
    let plan = go(&request, &there(0, 0, &[]), 5504);
    assert_eq!(scales(&plan), [("api", 3), ("worker", 1)]);
    let mut told = request.clone();
    told.status = Some(plan.status);
    assert_eq!(release_of(&go(&told, &observed(), 5505)), Some(&["other".to_owned()][..]));

    // It never hangs: not where nothing can be scaled any more, and not in a namespace that goes.
    let late = go(&request, &running, 5500 + CANCEL_SECONDS);
    assert!(release_of(&late).is_some() && late.actions.len() == 1);
    assert!(late.events[0].note.contains("Deployment api (3), StatefulSet worker (1)"), "{:?}", late.events);
    let terminating = ObservedRestore { namespace_terminating: true, ..running.clone() };
    assert!(release_of(&go(&request, &terminating, 5501)).is_some());
    let mut fresh = kept();
    fresh.metadata.deletion_timestamp = Some(Time(at(5500)));
    assert!(release_of(&go(&fresh, &observed(), 5501)).is_some(), "nothing was stopped");
    let mut ordinary = asked();
    ordinary.metadata.deletion_timestamp = Some(Time(at(5500)));
    assert!(go(&ordinary, &observed(), 5501).actions.is_empty());
}

#[test]
fn nothing_is_begun_where_a_workload_is_missing_or_stopped_by_another_restore_and_a_dry_run_stops_none() {
    let plan = plan_restore(&install(), &kept(), &observed(), at(5001));
    assert_eq!((plan.status.phase, complete_of(&plan).0.as_str()), (BackupPhase::Failed, "InvalidConfiguration"));
    assert!(plan.status.scaled_down.is_empty());

    let held = Some("Deployment api is scaled down by RestoreRequest first".to_owned());
    let plan = plan_restore(&install(), &kept(), &ObservedRestore { held, ..there(0, 1, &[]) }, at(5599));
    assert_eq!((plan.status.phase, complete_of(&plan).0.as_str()), (BackupPhase::Pending, "InProgress"));
    assert!(plan.next_check.is_some() && plan.status.scaled_down.is_empty());

    let mut look = asked();
    look.spec.dry_run = true;
    let missing = plan_restore(&install(), &look, &observed(), at(5001));
    assert_eq!(complete_of(&missing).0, "InvalidConfiguration");
    let plan = plan_restore(&install(), &look, &there(3, 1, &["api-a"]), at(5001));
    assert!(plan.status.scaled_down.is_empty() && plan.actions.is_empty());
    look.status = Some(plan.status);
    let plan = plan_restore(&install(), &look, &there(3, 1, &["api-a"]), at(5002));
    assert!(created(&plan).is_some_and(|task| task.dry_run) && plan.actions.len() == 1);
}

/// A request with a volume whose restore was cut off, and its Job.
fn cut_off() -> (RestoreRequest, k8s_openapi::api::batch::v1::Job) {
    let with_claim = |observed: ObservedRestore| {
        let of_volume = with_volume(&["uploads"]);
        let mut policy = (*of_volume.policy.unwrap()).clone();
        policy.status = observed.policy.as_ref().unwrap().status.clone();
        ObservedRestore { policy: Some(policy.into()), ground: of_volume.ground, ..observed }
    };
    let mut request = kept();
    request.status = Some(plan_restore(&install(), &request, &with_claim(there(3, 1, &[])), at(5001)).status);
    let plan = plan_restore(&install(), &request, &with_claim(there(0, 0, &[])), at(5002));
    let [Action::CreateJob(job)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    let mut over = Plan::keep(plan.status.clone());
    over.status.phase = BackupPhase::Failed;
    over.status.job_uid = Some("job-uid".into());
    over.status.completion_time = Some(Time(at(5600)));
    complete_is(&mut over, &request, Some(false), Reason::PodLost, "Pod p was lost", at(5600));
    request.status = Some(over.status);
    (request, (**job).clone())
}

#[test]
fn workloads_come_back_once_a_swap_that_was_cut_off_is_undone_and_never_on_one_that_is_not() {
    let (mut request, mut restore) = cut_off();
    // As the API server gives it back.
    let of_pod = restore.spec.as_mut().unwrap().template.metadata.as_mut().unwrap().labels.as_mut().unwrap();
    of_pod.insert("batch.kubernetes.io/controller-uid".into(), "job-uid".into());
    of_pod.insert("controller-uid".into(), "job-uid".into());
    let down = || ObservedRestore { cut_off: Some(Box::new(restore.clone())), ..there(0, 0, &[]) };

    let plan = plan_restore(&install(), &request, &down(), at(5601));
    let [Action::CreateJob(job)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    let (of_job, pod) = (job.metadata.labels.clone().unwrap(), &job.spec.as_ref().unwrap().template);
    assert_eq!(of_job["holdfast.dev/task"], "settle");
    assert!(!pod.metadata.as_ref().unwrap().labels.as_ref().unwrap().keys().any(|key| key.contains("controller-uid")));
    assert_ne!(job.metadata.name, restore.metadata.name);
    assert_eq!(job.metadata.owner_references, restore.metadata.owner_references);
    let (before, worker) = (restore.spec.as_ref().unwrap().template.spec.clone().unwrap(), pod.spec.clone().unwrap());
    assert_eq!((&worker.volumes, &worker.security_context), (&before.volumes, &before.security_context));
    assert_eq!(worker.containers[0].volume_mounts, before.containers[0].volume_mounts);
    assert_eq!(worker.containers[0].args.as_ref().unwrap()[..], ["worker", "settle"]);
    let variables = worker.containers[0].env.clone().unwrap();
    let task = crate::task::Task::from_environment(|name| variables.iter().find(|e| e.name == name)?.value.clone());
    let Ok(crate::task::Task::Settle(task)) = task else { panic!("{task:?}") };
    assert_eq!(task.targets.iter().filter_map(|t| t.server.claim_name()).collect::<Vec<_>>(), ["uploads"]);
    assert!(crate::plan::status::find(&plan.status.conditions, ConditionType::BroughtBack).is_some());
    request.status = Some(plan.status);

    let name = job.metadata.name.clone().unwrap();
    let seen = |attempt| ObservedRestore { settle: Some(attempt), ..there(0, 0, &[]) };
    let of = |job: crate::plan::observed::ObservedJob| crate::plan::observed::ObservedJob { name: name.clone(), ..job };
    let running = crate::plan::fixture::attempt(of(a_job("s")), vec![crate::plan::fixture::running_pod("p")]);
    let plan = plan_restore(&install(), &request, &seen(running), at(5602));
    assert!(scales(&plan).is_empty() && plan.next_check.is_some(), "{:?}", plan.actions);

    let done = crate::plan::fixture::attempt(completed(of(a_job("s"))), vec![]);
    let plan = plan_restore(&install(), &request, &seen(done), at(5604));
    assert_eq!(scales(&plan), [("api", 3), ("worker", 1)]);
    assert!(crate::plan::status::find(&plan.status.conditions, ConditionType::BroughtBack).is_none());

    let undone = crate::plan::fixture::attempt(failed(of(a_job("s"))), vec![]);
    let plan = plan_restore(&install(), &request, &seen(undone), at(5604));
    assert!(scales(&plan).is_empty(), "{:?}", plan.actions);
    let outcomes: Vec<_> = plan.status.scaled_down.iter().filter_map(|w| w.outcome.as_deref()).collect();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes[0].contains("left at 0 replicas, it had 3") && plan.events.len() == 2, "{outcomes:?}");
}

#[test]
fn workloads_come_back_at_once_where_no_volume_can_be_half_swapped() {
    let (request, restore) = cut_off();
    let down = |cut_off| ObservedRestore { cut_off, ..there(0, 0, &[]) };
    // Its Job is gone, and with it what is known of its claims; or nothing was touched; or it was no volume.
    assert_eq!(scales(&plan_restore(&install(), &request, &down(None), at(5601))).len(), 2);
    let mut untouched = request.clone();
    let mut over = Plan::keep(request.status.clone().unwrap());
    complete_is(&mut over, &request, Some(false), Reason::TargetNotEmpty, "it holds data", at(5600));
    untouched.status = Some(over.status);
    let plan = plan_restore(&install(), &untouched, &down(Some(Box::new(restore))), at(5601));
    assert_eq!(scales(&plan).len(), 2);
    let mut of_database = recorded();
    let job = plan_restore(&install(), &of_database, &there(0, 0, &[]), at(5002)).actions;
    let [Action::CreateJob(job)] = &job[..] else { panic!("{job:?}") };
    of_database.status = request.status.clone();
    let plan = plan_restore(&install(), &of_database, &down(Some(job.clone())), at(5601));
    assert_eq!(scales(&plan).len(), 2);
}

#[test]
fn the_job_of_a_restore_that_was_cut_off_stays_until_what_undoes_it_is_made_of_it() {
    let (request, restore) = cut_off();
    // Its node is silent: the Pod may still write, and the Job has not ended.
    let lost = crate::plan::fixture::attempt(a_job("r"), vec![crate::plan::fixture::running_pod("p")]);
    let silent =
        ObservedRestore { cut_off: Some(Box::new(restore)), job: Some(lost), pods_left: true, ..there(0, 0, &[]) };
    let plan = plan_restore(&install(), &request, &silent, at(5601));
    assert_eq!((&plan.actions[..], plan.next_check.is_some()), (&[][..], true));
    let plan = plan_restore(&install(), &request, &ObservedRestore { pods_left: false, ..silent }, at(5700));
    let [Action::CreateJob(settle)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    assert_eq!(settle.metadata.labels.as_ref().unwrap()["holdfast.dev/task"], "settle");
    let worker = &settle.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0];
    assert_eq!(worker.image.as_ref(), Some(&install().image), "today's image knows the task");
}

#[test]
fn what_undoes_a_swap_and_is_given_up_never_begins_later() {
    let (request, _) = cut_off();
    // Its Pod was killed, and would be made anew beneath what runs by then.
    let mut settle = crate::plan::fixture::attempt(
        crate::plan::observed::ObservedJob { failed_pods: 2, retries: 2, ..a_job("s") },
        vec![crate::plan::fixture::ended_pod("p", 10, r#"{"reason":"InvalidConfiguration","message":"no"}"#)],
    );
    settle.pods[0].phase = "Running".into();
    let seen = ObservedRestore { settle: Some(settle), ..there(0, 0, &[]) };
    let plan = plan_restore(&install(), &request, &seen, at(5604));
    assert!(plan.actions.iter().any(|a| matches!(a, Action::DeleteJob(_))), "{:?}", plan.actions);
    assert!(plan.status.scaled_down.iter().all(|w| w.outcome.is_some()), "{:?}", plan.status.scaled_down);
}

#[test]
fn a_worker_that_ended_without_a_word_may_have_left_a_swap_half_done() {
    let (request, restore) = cut_off();
    for reason in [Reason::PodLost, Reason::RestoreFailed, Reason::Stalled] {
        let mut over = Plan::keep(request.status.clone().unwrap());
        complete_is(&mut over, &request, Some(false), reason, "exit code 255", at(5600));
        let request = RestoreRequest { status: Some(over.status), ..request.clone() };
        let seen = ObservedRestore { cut_off: Some(Box::new(restore.clone())), ..there(0, 0, &[]) };
        let plan = plan_restore(&install(), &request, &seen, at(5601));
        assert!(matches!(&plan.actions[..], [Action::CreateJob(_)]), "{reason}: {:?}", plan.actions);
    }
}

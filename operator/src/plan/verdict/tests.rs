//! Tables of Jobs and Pods with what became of them. Pure.

use super::*;
use crate::plan::fixture::{at, attempt, ended_pod, job, pending_pod, running_pod};
use crate::plan::observed::{JobEnd, Words};

const FALLBACK: Reason = Reason::DumpFailed;

fn failed_job(reason: &str) -> crate::plan::observed::ObservedJob {
    let end = JobEnd { completed: false, at: at(500), reason: reason.into(), message: "the Job's words".into() };
    crate::plan::observed::ObservedJob { end: Some(end), ..job("j") }
}

fn reason(verdict: &Verdict) -> Option<Reason> {
    match verdict {
        Verdict::Failed(failure, _) => Some(failure.reason),
        _ => None,
    }
}

#[test]
fn a_job_that_ended_is_judged_by_its_last_pods_report() {
    let report = r#"{"reason":"SourceRefused","message":"db: no such role"}"#;
    let table = [
        (vec![ended_pod("a", 12, report)], Some(Reason::SourceRefused)),
        (
            vec![ended_pod("a", 11, r#"{"reason":"SourceUnreachable"}"#), ended_pod("b", 12, report)],
            Some(Reason::SourceRefused),
        ),
        (vec![ended_pod("a", 18, "garbage")], Some(Reason::NoSpace)),
        (vec![ended_pod("a", 13, "")], Some(Reason::DumpFailed)),
        (vec![ended_pod("a", 101, "thread main panicked")], Some(Reason::DumpFailed)),
        (vec![], Some(Reason::PodLost)),
    ];
    for (pods, expected) in table {
        let verdict = judge(&attempt(failed_job("BackoffLimitExceeded"), pods), FALLBACK, Patience::RUN, at(600));
        assert_eq!(reason(&verdict), expected);
    }
    let late = judge(&attempt(failed_job("DeadlineExceeded"), vec![]), FALLBACK, Patience::RUN, at(600));
    assert_eq!(reason(&late), Some(Reason::DeadlineExceeded));
}

#[test]
fn what_did_not_end_in_time_says_which_job_and_what_to_do() {
    let told = |task: &str| {
        let job = crate::plan::observed::ObservedJob { task: task.into(), ..failed_job("DeadlineExceeded") };
        match judge(&attempt(job, vec![]), FALLBACK, Patience::RUN, at(600)) {
            Verdict::Failed(failure, _) => failure.message,
            other => panic!("{other:?}"),
        }
    };
    for task in ["backup", "restore", "verify"] {
        let message = told(task);
        assert!(
            message.starts_with("Job j did not end in time (the Job's words): raise spec.timeoutSeconds"),
            "{message}"
        );
    }
    assert!(!told("retain").contains("timeoutSeconds"), "no policy sets how long these may take");
}

#[test]
fn a_completed_job_whose_pod_is_gone_is_completed() {
    let end = JobEnd { completed: true, at: at(9), reason: String::new(), message: String::new() };
    let done = crate::plan::observed::ObservedJob { end: Some(end), ..job("j") };
    assert_eq!(judge(&attempt(done.clone(), vec![]), FALLBACK, Patience::RUN, at(10)), Verdict::Completed(None));
    let told = attempt(done, vec![ended_pod("a", 0, r#"{"reason":"Completed"}"#)]);
    assert!(matches!(judge(&told, FALLBACK, Patience::RUN, at(10)), Verdict::Completed(Some(_))));
}

fn told(reason: &str, message: &str) -> Vec<Words> {
    vec![Words { reason: reason.into(), message: message.into() }]
}

/// What becomes of a Job with this Pod at this time.
fn judged(pod: ObservedPod, events: &[Words], patience: Patience, now: i64) -> Verdict {
    let attempt = Attempt { events: events.to_vec(), ..attempt(job("j"), vec![pod]) };
    judge(&attempt, FALLBACK, patience, at(now))
}

#[allow(clippy::needless_pass_by_value, reason = "each is made for this")]
fn waits_until(pod: ObservedPod, events: &[Words], patience: Patience) -> i64 {
    let ends = |now| matches!(judged(pod.clone(), events, patience, now), Verdict::Failed(..));
    (100..2000).find(|now| ends(*now)).unwrap_or(i64::MAX)
}

#[test]
fn a_pod_gets_its_time_to_start_and_no_more() {
    let pod = || pending_pod("a", 100);
    let missing = told("FailedMount", "secret \"x\" not found");
    let first = judged(pod(), &[], Patience::RUN, 101);
    assert!(matches!(first, Verdict::Waiting { why: None, check_at } if check_at == at(110)));
    let last = judged(pod(), &missing, Patience::RUN, 189);
    assert!(matches!(last, Verdict::Waiting { why: Some(_), check_at } if check_at == at(190)));
    assert_eq!(reason(&judged(pod(), &missing, Patience::RUN, 190)), Some(Reason::SecretNotFound));
    assert_eq!(reason(&judged(pod(), &[], Patience::RUN, 190)), Some(Reason::PodNotStarted));
    assert_eq!(reason(&judged(pod(), &missing, Patience::PROBE, 112)), Some(Reason::SecretNotFound));
    assert_eq!(reason(&judged(pod(), &[], Patience::PROBE, 112)), None);
    assert_eq!(judged(running_pod("a"), &[], Patience::RUN, 9999), Verdict::Running);
}

#[test]
fn what_is_on_its_way_is_waited_for_until_the_start_deadline_by_probes_too() {
    let pod = || pending_pod("a", 100);
    let full = || ObservedPod {
        unschedulable: told("Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.").pop(),
        ..pod()
    };
    let creating = || ObservedPod { waiting: told("ContainerCreating", "").pop(), node: "n".into(), ..pod() };
    let bound_late = || ObservedPod { scheduled: Some(at(400)), ..creating() };
    let missing = told("FailedMount", "secret \"x\" not found");
    let busy = "Multi-Attach error for volume \"pvc-1\" Volume is already used by pod(s) api-0";
    let behind =
        "MountVolume.SetUp failed for volume \"c\" : failed to sync secret cache: timed out waiting for the condition";
    let table = [
        (full(), vec![], 700, 700),
        (full(), told("NotTriggerScaleUp", "pod didn't trigger scale-up"), 700, 700),
        (creating(), told("Pulling", "Pulling image \"holdfast\""), 700, 700),
        (creating(), told("FailedAttachVolume", busy), 700, 700),
        (creating(), told("FailedMount", behind), 700, 700),
        (creating(), vec![], 190, 190),
        (creating(), missing.clone(), 190, 112),
        // A node that came up after five minutes has as much time to start the Pod as any other, until the start deadline.
        (bound_late(), vec![], 490, 490),
        (bound_late(), missing.clone(), 490, 412),
        (ObservedPod { scheduled: Some(at(650)), ..creating() }, missing, 700, 662),
    ];
    for (pod, events, of_a_run, of_a_probe) in table {
        assert_eq!(waits_until(pod.clone(), &events, Patience::RUN), of_a_run, "{pod:?} {events:?}");
        assert_eq!(waits_until(pod.clone(), &events, Patience::PROBE), of_a_probe, "{pod:?} {events:?}");
    }
    let waits = judged(full(), &told("TriggeredScaleUp", "pool 0->1"), Patience::PROBE, 110);
    assert!(
        matches!(&waits, Verdict::Waiting { why: Some(why), check_at } if *check_at == at(120) && why.message.contains("pool 0->1")),
        "{waits:?}"
    );
    match judged(full(), &[], Patience::RUN, 700) {
        Verdict::Failed(why, None) => {
            let told = ["within 600s: Unschedulable: 0/1", "jobTemplate.startDeadlineSeconds"];
            assert!(told.iter().all(|words| why.message.contains(words)), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_start_deadline_is_that_of_the_job() {
    for (seconds, ends) in [(10, 110), (30, 130), (1200, 1300)] {
        let unschedulable = told("Unschedulable", "0/1 nodes are available").pop();
        let job = crate::plan::observed::ObservedJob { start_deadline_seconds: Some(seconds), ..job("j") };
        let attempt = attempt(job, vec![ObservedPod { unschedulable, ..pending_pod("a", 100) }]);
        let judged = |now| judge(&attempt, FALLBACK, Patience::RUN, at(now));
        assert!(matches!(judged(ends - 1), Verdict::Waiting { .. }));
        assert_eq!(reason(&judged(ends)), Some(Reason::PodUnschedulable));
    }
}

#[test]
fn a_pod_that_was_bound_and_never_heard_of_names_its_node() {
    let bound = attempt(job("j"), vec![ObservedPod { node: "node-1".into(), ..pending_pod("a", 100) }]);
    match judge(&bound, FALLBACK, Patience::RUN, at(190)) {
        Verdict::Failed(why, None) => {
            assert_eq!(why.reason, Reason::PodNotStarted);
            assert!(why.message.contains("within 90s: it is on node node-1"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_that_was_killed_for_its_memory_is_not_tried_again() {
    let killed = |exit_code, message: &str| {
        let mut pod = ended_pod("a", exit_code, message);
        pod.ended.as_mut().unwrap().reason = "OOMKilled".into();
        pod.ended.as_mut().unwrap().at = Some(at(200));
        pod
    };
    let tool = r#"{"reason":"DumpFailed","message":"pg_dump was ended by SIGKILL"}"#;
    for pod in [killed(137, ""), killed(13, tool)] {
        let tried_again = crate::plan::observed::ObservedJob { failed_pods: 1, ..job("j") };
        let under_way = attempt(tried_again, vec![pod.clone()]);
        let soon = judge(&under_way, FALLBACK, Patience::RUN, at(202));
        assert!(matches!(soon, Verdict::Waiting { why: None, check_at } if check_at == at(203)), "{soon:?}");
        for verdict in [
            judge(&under_way, FALLBACK, Patience::RUN, at(203)),
            judge(&attempt(failed_job("BackoffLimitExceeded"), vec![pod]), FALLBACK, Patience::RUN, at(600)),
        ] {
            assert_eq!(reason(&verdict), Some(Reason::OOMKilled));
        }
    }
    match judge(&attempt(job("j"), vec![killed(13, tool)]), FALLBACK, Patience::RUN, at(300)) {
        Verdict::Failed(why, Some(_)) => {
            assert!(why.message.ends_with("it reported: pg_dump was ended by SIGKILL"));
        }
        other => panic!("{other:?}"),
    }
    // What the worker says is nothing that a killed tool brings about; what a Pod after it does counts instead.
    let refused = killed(12, r#"{"reason":"SourceRefused","message":"no such role"}"#);
    assert_eq!(judge(&attempt(job("j"), vec![refused]), FALLBACK, Patience::RUN, at(300)), Verdict::Running);
    let next = ObservedPod { created: at(400), ..running_pod("b") };
    assert_eq!(
        judge(&attempt(job("j"), vec![killed(137, ""), next]), FALLBACK, Patience::RUN, at(500)),
        Verdict::Running
    );
}

#[test]
fn a_pod_whose_node_does_not_confirm_its_end_is_lost_a_minute_after_its_time() {
    let words = Words { reason: "DeletionByTaintManager".into(), message: "Taint manager: deleting".into() };
    let judged = |pod: &ObservedPod, now| {
        let pod = ObservedPod { node: "node-1".into(), ends_by: Some(at(230)), ..pod.clone() };
        judge(&attempt(job("j"), vec![pod]), FALLBACK, Patience::RUN, at(now))
    };
    let tainted = ObservedPod { disrupted: Some(words), ..running_pod("a") };
    let ending = judged(&tainted, 229);
    assert!(matches!(ending, Verdict::Waiting { why: None, check_at } if check_at == at(230)), "{ending:?}");
    let late = judged(&tainted, 230);
    assert!(
        matches!(&late, Verdict::Waiting { why: Some(why), check_at } if *check_at == at(290) && why.reason == Reason::PodLost),
        "{late:?}"
    );
    match judged(&tainted, 290) {
        Verdict::Failed(why, None) => {
            let told = ["DeletionByTaintManager: Taint manager: deleting", "node node-1 does not confirm"];
            assert!(why.reason == Reason::PodLost && told.iter().all(|words| why.message.contains(words)), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reason(&judged(&running_pod("a"), 290)), Some(Reason::PodLost), "deleted by hand on a dead node");
    // One that has ended is only to be replaced, and one that never started has a limit of its own.
    assert_eq!(judged(&ended_pod("a", 143, ""), 9999), Verdict::Running);
    assert_eq!(reason(&judged(&pending_pod("a", 100), 190)), Some(Reason::PodNotStarted));
}

#[test]
fn a_job_that_waits_before_its_next_try_is_running() {
    let again = crate::plan::observed::ObservedJob { failed_pods: 1, ..job("j") };
    assert_eq!(judge(&attempt(again, vec![]), FALLBACK, Patience::RUN, at(9999)), Verdict::Running);
}

/// A Pod whose worker ended at 600, and in which another container goes on or has failed.
fn kept_pod(exit_code: i32, report: &str, phase: &str) -> ObservedPod {
    let mut pod =
        ObservedPod { phase: phase.into(), others: vec!["a-proxy".into()], ..ended_pod("a", exit_code, report) };
    pod.ended.as_mut().unwrap().at = Some(at(600));
    pod
}

#[test]
fn when_the_worker_has_ended_the_run_has_ended_whatever_else_is_in_the_pod() {
    let done = r#"{"reason":"Completed","message":"its words"}"#;
    let completed =
        |verdict: Verdict| matches!(verdict, Verdict::Completed(Some(report)) if report.message == "its words");
    for phase in ["Running", "Failed"] {
        let kept = kept_pod(0, done, phase);
        assert!(completed(judged(kept.clone(), &[], Patience::RUN, 600)), "{phase}");
        // The Job may have ended for that container's sake, or at its deadline.
        for reason in ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy"] {
            let over = attempt(failed_job(reason), vec![kept.clone()]);
            assert!(completed(judge(&over, FALLBACK, Patience::RUN, at(600))), "{phase} {reason}");
        }
        let again = attempt(job("j"), vec![kept, ObservedPod { created: at(700), ..running_pod("b") }]);
        assert!(completed(judge(&again, FALLBACK, Patience::RUN, at(700))), "a Pod after it has nothing to do");
    }
    let left_no_word = kept_pod(0, "", "Running");
    assert_eq!(judged(left_no_word, &[], Patience::RUN, 600), Verdict::Completed(None));
    assert_eq!(judged(ended_pod("a", 0, done), &[], Patience::RUN, 600), Verdict::Running, "its Job says so at once");
}

#[test]
fn a_worker_that_failed_beside_a_container_that_goes_on_is_not_waited_for_until_the_deadline() {
    let refused = r#"{"reason":"SourceRefused","message":"no such role"}"#;
    let away = r#"{"reason":"SourceUnreachable","message":"no route"}"#;
    let of = |pod: ObservedPod, now| judged(pod, &[], Patience::RUN, now);
    assert_eq!(reason(&of(kept_pod(12, refused, "Running"), 600)), Some(Reason::SourceRefused), "it is final");
    let waits = of(kept_pod(11, away, "Running"), 601);
    assert!(
        matches!(waits, Verdict::Waiting { why: None, check_at } if check_at == at(660)),
        "a native sidecar: {waits:?}"
    );
    match of(kept_pod(11, away, "Running"), 660) {
        Verdict::Failed(failure, Some(_)) => {
            let told = ["no route", "was not tried again", "a-proxy", "native sidecar"];
            assert!(
                failure.reason == Reason::SourceUnreachable && told.iter().all(|w| failure.message.contains(w)),
                "{failure}"
            );
        }
        other => panic!("{other:?}"),
    }
    let once = crate::plan::observed::ObservedJob { retries: 0, ..job("j") };
    let of_a_restore = judge(&attempt(once, vec![kept_pod(11, away, "Running")]), FALLBACK, Patience::RUN, at(601));
    assert!(matches!(of_a_restore, Verdict::Failed(f, _) if f.message == "no route"));
    assert_eq!(of(kept_pod(11, away, "Failed"), 700), Verdict::Running, "the Job makes another Pod");
}

#[test]
fn an_init_container_that_fails_is_told_as_what_kept_the_pod_from_starting() {
    let waiting =
        Words { reason: INIT_FAILED.into(), message: "init container proxy-init ended with exit code 1: Error".into() };
    let pod = ObservedPod { phase: "Failed".into(), waiting: Some(waiting), ..pending_pod("a", 100) };
    match judge(&attempt(failed_job("BackoffLimitExceeded"), vec![pod]), FALLBACK, Patience::RUN, at(600)) {
        Verdict::Failed(failure, None) => {
            assert_eq!(failure.reason, Reason::PodNotStarted);
            assert!(failure.message.contains("proxy-init ended with exit code 1"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
}

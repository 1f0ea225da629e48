//! What became of a Job: under way, completed or failed, and why. Pure.

use holdfast_crds::Reason;
use jiff::Timestamp;

use super::observed::{Attempt, ObservedPod};
use super::pod::{
    out_of_memory, unconfirmed, volume_on_its_way, why_behind, why_lost, why_not_created, why_not_started,
};
use super::status::after;
use crate::task::{Failure, Report};

/// What the platform tells about a Pod is looked up once it is this many seconds late: a Pod that starts well costs nothing.
pub const LATE_SECONDS: i64 = 10;

/// A volume may take this many seconds to be made and attached.
pub const VOLUME_SECONDS: i64 = 600;

/// A Pod that is being taken away counts as lost once it is this many seconds over its time: the kubelet of its node does not answer.
pub const UNCONFIRMED_SECONDS: i64 = 60;

/// A Job may take this many seconds to end because of a Pod that ended. Another Pod is made after ten at the earliest.
const JOB_SECONDS: i64 = 3;

/// How long a Pod may take to start, in seconds since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// When the platform says what is missing.
    pub when_told: i64,
    /// When it says nothing.
    pub when_silent: i64,
    /// When a volume of it is being made, attached or mounted, which takes some storage minutes.
    pub for_a_volume: i64,
}

impl Patience {
    /// For runs: what is missing may still be on its way.
    pub const RUN: Self = Self { when_told: 90, when_silent: 90, for_a_volume: VOLUME_SECONDS };
    /// For probes: they are repeated anyway, and their result is what tells the user what is missing.
    pub const PROBE: Self = Self { when_told: 12, when_silent: 90, for_a_volume: 90 };
}

/// What became of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is under way.
    Running,
    /// Its Pod has not started yet. What it waits for, if the platform says so, and when to look again.
    Waiting {
        /// What it waits for.
        why: Option<Failure>,
        /// When to look again.
        check_at: Timestamp,
    },
    /// It completed. What its worker reported, if its Pod is still there to tell.
    Completed(Option<Report>),
    /// It failed, or will never start. The worker's report is there if it left one.
    Failed(Failure, Option<Report>),
}

/// Judges a Job. `fallback` is the reason where a worker failed and left no word.
pub fn judge(attempt: &Attempt, fallback: Reason, patience: Patience, now: Timestamp) -> Verdict {
    match &attempt.job.end {
        Some(end) if end.completed => Verdict::Completed(
            attempt
                .pods
                .iter()
                .filter_map(report_of)
                .find(|(_, report)| report.reason == Reason::Completed)
                .map(|(_, report)| report),
        ),
        Some(end) if end.reason == "DeadlineExceeded" => {
            let advice = match attempt.job.task.as_str() {
                "backup" | "restore" | "verify" => "raise spec.timeoutSeconds, or see in its log what takes so long",
                _ => "see in its log what takes so long",
            };
            let said = end.message.trim_end_matches('.');
            let message = format!("Job {} did not end in time ({said}): {advice}", attempt.job.name);
            Verdict::Failed(Failure::new(Reason::DeadlineExceeded, message), None)
        }
        Some(end) => failed(attempt, fallback, &end.message),
        None => under_way(attempt, patience, now),
    }
}

fn under_way(attempt: &Attempt, patience: Patience, now: Timestamp) -> Verdict {
    if let Some(verdict) = attempt.newest_pod().and_then(|pod| beyond_hope(pod, now)) {
        return verdict;
    }
    let Some(since) = attempt.waits_since() else { return Verdict::Running };
    let pod = attempt.newest_pod();
    let why = match pod {
        Some(pod) => why_not_started(pod, &attempt.events),
        None => why_not_created(&attempt.events),
    };
    // Before that nothing was looked up.
    let is_late = now >= after(since, LATE_SECONDS);
    let volume = pod.filter(|_| is_late).and_then(|pod| volume_on_its_way(pod, &attempt.events));
    let limit = match (&volume, &why) {
        (Some(_), _) => patience.for_a_volume,
        (None, Some(_)) => patience.when_told,
        (None, None) => patience.when_silent,
    };
    let why = volume.or(why).or_else(|| why_behind(&attempt.events));
    if now < after(since, limit) {
        let late = after(since, LATE_SECONDS);
        let told = after(since, patience.when_told);
        let check_at = [late, told, after(since, limit)].into_iter().find(|t| *t > now).unwrap_or(after(now, 1));
        // What the platform tells may change while nothing else does: look again now and then.
        return Verdict::Waiting { why, check_at: check_at.min(after(now, LATE_SECONDS)).max(late) };
    }
    let who =
        pod.map_or_else(|| format!("Job {} got no Pod", attempt.job.name), |p| format!("Pod {} did not start", p.name));
    let waited = now.duration_since(since).as_secs();
    let why = why.unwrap_or_else(|| {
        let words = match pod.filter(|pod| !pod.node.is_empty()) {
            Some(pod) => {
                format!("it is on node {0}, whose kubelet does not say why: see kubectl describe node {0}", pod.node)
            }
            None => "the platform does not say why: see kubectl get events and the quotas of the namespace".to_owned(),
        };
        Failure::new(Reason::PodNotStarted, words)
    });
    Verdict::Failed(Failure::new(why.reason, format!("{who} within {waited}s: {}", why.message)), None)
}

/// A Job that the platform would go on with, and that has nothing to hope for: the next Pod would be killed for its memory as well, and none is
/// made beside one whose end nobody confirms.
fn beyond_hope(pod: &ObservedPod, now: Timestamp) -> Option<Verdict> {
    if let Some((failure, report)) = killed_for_memory(pod) {
        // The Job of a last try ends by itself.
        let check_at = after(pod.ended.as_ref().and_then(|end| end.at).unwrap_or(pod.created), JOB_SECONDS);
        return Some(if now < check_at {
            Verdict::Waiting { why: None, check_at }
        } else {
            Verdict::Failed(failure, report)
        });
    }
    let (until, failure) = (pod.ends_by?, unconfirmed(pod)?);
    let given_up = after(until, UNCONFIRMED_SECONDS);
    Some(if now < until {
        Verdict::Waiting { why: None, check_at: until }
    } else if now < given_up {
        Verdict::Waiting { why: Some(failure), check_at: given_up }
    } else {
        Verdict::Failed(failure, None)
    })
}

/// What is said of a Pod whose worker, or a tool of it, was killed for its memory. A worker that reports what no such kill brings about is
/// believed.
fn killed_for_memory(pod: &ObservedPod) -> Option<(Failure, Option<Report>)> {
    let failure = out_of_memory(pod)?;
    let Some((_, report)) = report_of(pod) else { return Some((failure, None)) };
    let of_a_tool = [Reason::DumpFailed, Reason::RestoreFailed, Reason::SourceIncomplete];
    of_a_tool.contains(&report.reason).then(|| {
        let message = format!("{}; it reported: {}", failure.message, report.message);
        (Failure::new(failure.reason, message), Some(report))
    })
}

fn failed(attempt: &Attempt, fallback: Reason, job_says: &str) -> Verdict {
    let mut pods: Vec<&ObservedPod> = attempt.pods.iter().collect();
    pods.sort_by_key(|p| (p.ended.as_ref().and_then(|e| e.at), p.created));
    let Some(last) = pods.last() else {
        let message = format!(
            "Job {} failed and its Pod is gone, deleted by hand or with its node: {job_says}",
            attempt.job.name
        );
        return Verdict::Failed(Failure::new(Reason::PodLost, message), None);
    };
    if let Some((failure, report)) = killed_for_memory(last) {
        return Verdict::Failed(failure, report);
    }
    if let Some((_, report)) = report_of(last) {
        return Verdict::Failed(Failure::new(report.reason, report.message.clone()), Some(report));
    }
    if let Some(failure) = why_lost(last) {
        return Verdict::Failed(failure, None);
    }
    let failure = match &last.ended {
        Some(end) => {
            let reason = reason_of_exit_code(end.exit_code, fallback);
            let said = end
                .message
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("nothing (its log may say more)");
            let said: String = said.chars().take(300).collect();
            Failure::new(
                reason,
                format!(
                    "the worker in Pod {} ended with exit code {}, and all it left is: {said}",
                    last.name, end.exit_code
                ),
            )
        }
        None => Failure::new(Reason::PodLost, format!("Pod {} failed and left no result: {job_says}", last.name)),
    };
    Verdict::Failed(failure, None)
}

fn report_of(pod: &ObservedPod) -> Option<(i32, Report)> {
    let end = pod.ended.as_ref()?;
    Some((end.exit_code, Report::from_termination_message(&end.message)?))
}

fn reason_of_exit_code(code: i32, fallback: Reason) -> Reason {
    if fallback.exit_code().map(i32::from) == Some(code) {
        return fallback;
    }
    Reason::OF_WORKERS
        .into_iter()
        .find(|r| *r != Reason::Completed && r.exit_code().map(i32::from) == Some(code))
        .unwrap_or(fallback)
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_pod_gets_its_time_to_start_and_no_more() {
        let words = vec![Words { reason: "FailedMount".into(), message: "secret \"x\" not found".into() }];
        let waiting = |now, patience, events: &[Words]| {
            let mut attempt = attempt(job("j"), vec![pending_pod("a", 100)]);
            attempt.events = events.to_vec();
            judge(&attempt, FALLBACK, patience, at(now))
        };
        assert!(
            matches!(waiting(101, Patience::RUN, &[]), Verdict::Waiting { why: None, check_at } if check_at == at(110))
        );
        assert!(
            matches!(waiting(189, Patience::RUN, &words), Verdict::Waiting { why: Some(_), check_at } if check_at == at(190))
        );
        assert_eq!(reason(&waiting(190, Patience::RUN, &words)), Some(Reason::SecretNotFound));
        assert_eq!(reason(&waiting(190, Patience::RUN, &[])), Some(Reason::PodNotStarted));
        assert_eq!(reason(&waiting(112, Patience::PROBE, &words)), Some(Reason::SecretNotFound));
        assert_eq!(reason(&waiting(112, Patience::PROBE, &[])), None);
        let running = attempt(job("j"), vec![running_pod("a")]);
        assert_eq!(judge(&running, FALLBACK, Patience::RUN, at(9999)), Verdict::Running);
    }

    #[test]
    fn a_volume_that_is_on_its_way_gets_minutes_and_is_told_from_the_first_look_on() {
        let judged = |now, claims: &[&str], word: &str, message: &str| {
            let claims = claims.iter().map(|c| (*c).to_owned()).collect();
            let creating = Some(Words { reason: "ContainerCreating".into(), message: String::new() });
            let pod = ObservedPod { claims, waiting: creating, ..pending_pod("a", 100) };
            let mut attempt = attempt(job("j"), vec![pod]);
            attempt.events = vec![Words { reason: word.into(), message: message.into() }];
            judge(&attempt, FALLBACK, Patience::RUN, at(now))
        };
        let busy = "Multi-Attach error for volume \"pvc-1\" Volume is already used by pod(s) api-0";
        let waits = judged(110, &["uploads"], "FailedAttachVolume", busy);
        assert!(
            matches!(&waits, Verdict::Waiting { why: Some(why), .. } if why.message.contains("already used by pod(s) api-0")),
            "{waits:?}"
        );
        assert!(matches!(judged(699, &["uploads"], "FailedAttachVolume", busy), Verdict::Waiting { .. }));
        match judged(700, &["uploads"], "FailedAttachVolume", busy) {
            Verdict::Failed(why, None) => {
                assert!(why.message.contains("within 600s: FailedAttachVolume: Multi-Attach"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(reason(&judged(190, &[], "FailedAttachVolume", busy)), Some(Reason::PodNotStarted));
        let never = "MountVolume.SetUp failed for volume \"store-credentials\" : secret \"s3\" not found";
        assert_eq!(reason(&judged(190, &["uploads"], "FailedMount", never)), Some(Reason::SecretNotFound));
    }

    #[test]
    fn a_kubelet_that_is_behind_gets_its_time_and_is_quoted_when_that_is_over() {
        let said = "MountVolume.SetUp failed for volume \"c\" : failed to sync secret cache: timed out waiting for the condition";
        let events = vec![Words { reason: "FailedMount".into(), message: said.into() }];
        let waits = Attempt { events, ..attempt(job("j"), vec![pending_pod("a", 100)]) };
        match judge(&waits, FALLBACK, Patience::PROBE, at(189)) {
            Verdict::Waiting { why: Some(why), .. } => assert!(why.message.contains(said), "{why}"),
            other => panic!("{other:?}"),
        }
        match judge(&waits, FALLBACK, Patience::PROBE, at(190)) {
            Verdict::Failed(why, None) => {
                assert_eq!(why.reason, Reason::PodNotStarted);
                assert!(why.message.contains(said), "{why}");
            }
            other => panic!("{other:?}"),
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
}

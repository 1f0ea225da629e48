//! What became of a Job: under way, completed or failed, and why. Pure.

use holdfast_crds::Reason;
use jiff::Timestamp;

use super::lost::{out_of_memory, unconfirmed, why_lost};
use super::observed::{Attempt, INIT_FAILED, OTHERS_SECONDS, ObservedPod};
use super::start::{Obstacle, obstacle, why_not_created};
use super::status::after;
use crate::task::{Failure, Report};

/// What the platform tells about a Pod is looked up once it is this many seconds late: a Pod that starts well costs nothing.
pub const LATE_SECONDS: i64 = 10;

/// A Pod that is being taken away counts as lost once it is this many seconds over its time: the kubelet of its node does not answer.
pub const UNCONFIRMED_SECONDS: i64 = 60;

/// A Job may take this many seconds to end because of a Pod that ended. Another Pod is made after ten at the earliest.
const JOB_SECONDS: i64 = 3;

/// For how many seconds a Pod that does not start is waited for where nothing is on its way: since it has its node, or was made where it has
/// none. What is on its way is waited for as long as the Job's start deadline says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// When the platform says what is missing.
    pub when_missing: i64,
    /// When it says nothing.
    pub when_silent: i64,
}

impl Patience {
    /// For runs: somebody may be about to create what is missing.
    pub const RUN: Self = Self { when_missing: 90, when_silent: 90 };
    /// For probes: they are repeated anyway, and their result is what tells the user what is missing.
    pub const PROBE: Self = Self { when_missing: 12, when_silent: 90 };
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

impl Verdict {
    /// Value, reason and message of a condition; none while the Job is under way. `completed` is said where its worker left no word.
    pub fn into_condition(self, completed: &str) -> Option<(bool, Reason, String)> {
        match self {
            Self::Completed(report) => {
                let message = report.map(|r| r.message).filter(|m| !m.is_empty());
                Some((true, Reason::Completed, message.unwrap_or_else(|| completed.to_owned())))
            }
            Self::Failed(failure, _) => Some((false, failure.reason, failure.message)),
            Self::Running | Self::Waiting { .. } => None,
        }
    }
}

/// Judges a Job. `fallback` is the reason where a worker failed and left no word.
pub fn judge(attempt: &Attempt, fallback: Reason, patience: Patience, now: Timestamp) -> Verdict {
    match &attempt.job.end {
        Some(end) if end.completed => Verdict::Completed(report_of_success(attempt)),
        // Another container failed, or outlived the Job's deadline.
        Some(_) if attempt.pods.iter().any(has_completed) => Verdict::Completed(report_of_success(attempt)),
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
        None => under_way(attempt, fallback, patience, now),
    }
}

/// Whether the worker in a Pod did all of what it was for.
fn has_completed(pod: &ObservedPod) -> bool {
    pod.ended.as_ref().is_some_and(|end| end.exit_code == 0)
}

fn report_of_success(attempt: &Attempt) -> Option<Report> {
    attempt
        .pods
        .iter()
        .filter_map(report_of)
        .map(|(_, report)| report)
        .find(|report| report.reason == Reason::Completed)
}

fn under_way(attempt: &Attempt, fallback: Reason, patience: Patience, now: Timestamp) -> Verdict {
    if attempt.pods.iter().any(|pod| has_completed(pod) && pod.outlives_its_worker()) {
        return Verdict::Completed(report_of_success(attempt));
    }
    let newest = attempt.newest_pod();
    if let Some(verdict) = newest.and_then(|pod| beyond_hope(pod, now)) {
        return verdict;
    }
    if let Some(verdict) = newest.and_then(|pod| kept_by_others(attempt, pod, fallback, now)) {
        return verdict;
    }
    let Some(since) = attempt.waits_since() else { return Verdict::Running };
    let late = after(since, LATE_SECONDS);
    let found = match newest {
        Some(pod) => obstacle(&attempt.job, pod, (now >= late).then_some(attempt.events.as_slice())),
        None => why_not_created(&attempt.events),
    };
    let deadline = after(since, attempt.job.start_deadline_seconds());
    // A node that comes up late has its time to start the Pod all the same.
    let found_a_node = newest.and_then(|pod| pod.scheduled).map_or(since, |scheduled| scheduled.max(since));
    let limit = match &found {
        Some(Obstacle::OnItsWay(_)) => deadline,
        Some(Obstacle::Missing(_)) => deadline.min(after(found_a_node, patience.when_missing)),
        None => deadline.min(after(found_a_node, patience.when_silent)),
    };
    let in_vain = matches!(found, Some(Obstacle::OnItsWay(_)));
    let why = found.map(Obstacle::failure);
    if now < limit {
        // What the platform tells may change while nothing else does: look again now and then.
        let next = if now < late { late } else { after(now, LATE_SECONDS) };
        return Verdict::Waiting { why, check_at: limit.min(next) };
    }
    Verdict::Failed(never_started(attempt, why, in_vain, now.duration_since(since).as_secs()), None)
}

/// What is said of a Pod that was given up before it started. `in_vain`: what it waited for was on its way.
fn never_started(attempt: &Attempt, why: Option<Failure>, in_vain: bool, waited: i64) -> Failure {
    let pod = attempt.newest_pod();
    let who =
        pod.map_or_else(|| format!("Job {} got no Pod", attempt.job.name), |p| format!("Pod {} did not start", p.name));
    let why = why.unwrap_or_else(|| {
        let words = match pod.filter(|pod| !pod.node.is_empty()) {
            Some(pod) => {
                format!("it is on node {0}, whose kubelet does not say why: see kubectl describe node {0}", pod.node)
            }
            None => "the platform does not say why: see kubectl get events and the quotas of the namespace".to_owned(),
        };
        Failure::new(Reason::PodNotStarted, words)
    });
    let longer = if in_vain { "; raise jobTemplate.startDeadlineSeconds where this takes longer" } else { "" };
    Failure::new(why.reason, format!("{who} within {waited}s: {}{longer}", why.message))
}

/// A worker that failed in a Pod which another container keeps alive: the platform makes no other Pod, and the controller may not delete one.
/// So it is as if it had been tried for the last time.
fn kept_by_others(attempt: &Attempt, pod: &ObservedPod, fallback: Reason, now: Timestamp) -> Option<Verdict> {
    let end = pod.ended.as_ref().filter(|_| pod.outlives_its_worker())?;
    let job = &attempt.job;
    let is_last = Reason::FINAL_EXIT_CODES.contains(&end.exit_code) || job.failed_pods >= job.retries;
    let by_itself = after(end.at.unwrap_or(pod.created), OTHERS_SECONDS);
    if !is_last && now < by_itself {
        return Some(Verdict::Waiting { why: None, check_at: by_itself });
    }
    let verdict = of_its_last_pod(pod, fallback, "its Job did not end");
    Some(match verdict {
        Verdict::Failed(failure, report) if !is_last => {
            let others = if pod.others.is_empty() { "another container".to_owned() } else { pod.others.join(", ") };
            let message = format!(
                "{}; it was not tried again, because {others} in its Pod goes on: keep what injects it away from these Pods (jobTemplate.labels and \
                 .annotations), or let it inject a native sidecar",
                failure.message
            );
            Verdict::Failed(Failure::new(failure.reason, message), report)
        }
        verdict => verdict,
    })
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
    of_its_last_pod(last, fallback, job_says)
}

fn of_its_last_pod(last: &ObservedPod, fallback: Reason, job_says: &str) -> Verdict {
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
        None => match last.waiting.as_ref().filter(|words| words.reason == INIT_FAILED) {
            Some(words) => {
                Failure::new(Reason::PodNotStarted, format!("Pod {} did not start: {}", last.name, words.message))
            }
            None => Failure::new(Reason::PodLost, format!("Pod {} failed and left no result: {job_says}", last.name)),
        },
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
mod tests;

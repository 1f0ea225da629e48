//! Why a Pod was lost: evicted, deleted, killed for its memory, or gone with its node. Pure.

use holdfast_crds::Reason;

use super::observed::ObservedPod;
use super::start::{RAISE, RUNTIME_OOM, limit, sentence};
use crate::task::Failure;

/// Why a Pod ended without a report of its worker.
pub fn why_lost(pod: &ObservedPod) -> Option<Failure> {
    if let Some(failure) = out_of_memory(pod) {
        return Some(failure);
    }
    if let Some(end) = pod.ended.as_ref().filter(|end| is_start_problem(&end.reason)) {
        let message = format!("Pod {} did not start: {}: {}", pod.name, end.reason, end.message.trim());
        return Some(Failure::new(Reason::PodNotStarted, message));
    }
    let words = pod.disrupted.as_ref().or(pod.word.as_ref());
    if let Some(words) = words {
        return Some(Failure::new(Reason::PodLost, format!("Pod {} was lost: {}", pod.name, sentence(words))));
    }
    pod.ends_by.map(|_| {
        Failure::new(
            Reason::PodLost,
            format!("Pod {} was deleted before its worker ended, by hand or by a drain of its node", pod.name),
        )
    })
}

/// Says so of a Pod whose worker, or a tool of it, was killed for its memory.
pub fn out_of_memory(pod: &ObservedPod) -> Option<Failure> {
    let end = pod.ended.as_ref().filter(|end| end.exit_code != 0)?;
    let killed = end.reason == "OOMKilled" || (is_start_problem(&end.reason) && end.message.contains(RUNTIME_OOM));
    killed.then(|| {
        let message = format!(
            "Pod {}: the worker was killed for its memory ({}, exit code {}): {RAISE}",
            pod.name,
            limit(pod),
            end.exit_code
        );
        Failure::new(Reason::OOMKilled, message)
    })
}

/// Says so of a Pod that is being taken away and whose node does not confirm that it has ended.
pub fn unconfirmed(pod: &ObservedPod) -> Option<Failure> {
    let failure = why_lost(pod).filter(|_| pod.started && pod.ended.is_none())?;
    let message = format!(
        "{}; node {} does not confirm that it has ended, so its worker may still be at work there",
        failure.message, pod.node
    );
    Some(Failure::new(failure.reason, message))
}

/// Words of the kubelet for a container that the container runtime could not start, and that will not be tried again.
fn is_start_problem(reason: &str) -> bool {
    matches!(reason, "StartError" | "ContainerCannotRun")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::plan::observed::{ContainerEnd, Words};

    fn pod() -> ObservedPod {
        ObservedPod { name: "p".into(), phase: "Pending".into(), ..ObservedPod::default() }
    }

    fn words(reason: &str, message: &str) -> Words {
        Words { reason: reason.into(), message: message.into() }
    }

    fn ended(exit_code: i32, reason: &str, message: &str) -> ObservedPod {
        let end = ContainerEnd { exit_code, reason: reason.into(), message: message.into(), ..Default::default() };
        ObservedPod { ended: Some(end), memory_limit: Some("24Mi".into()), ..pod() }
    }

    #[test]
    fn a_lost_pod_is_told_from_a_failed_one() {
        let table = [
            (ended(137, "OOMKilled", ""), Some(Reason::OOMKilled)),
            (
                ObservedPod { word: Some(words("Evicted", "The node was low on memory")), ..pod() },
                Some(Reason::PodLost),
            ),
            (
                ObservedPod { disrupted: Some(words("DeletionByTaintManager", "")), ..ended(143, "Error", "") },
                Some(Reason::PodLost),
            ),
            (ObservedPod { ends_by: Some(Timestamp::UNIX_EPOCH), ..pod() }, Some(Reason::PodLost)),
            (ended(128, "StartError", "exec: not found"), Some(Reason::PodNotStarted)),
            (ended(1, "Error", ""), None),
        ];
        for (pod, reason) in table {
            assert_eq!(why_lost(&pod).map(|f| f.reason), reason, "{pod:?}");
        }
    }

    #[test]
    fn who_was_killed_for_memory_is_told_the_limit() {
        for pod in [
            ended(137, "OOMKilled", ""),
            // A tool was killed, and the worker outlived it.
            ended(13, "OOMKilled", "{}"),
            ended(128, "StartError", "container init was OOM-killed (memory limit too low?)"),
        ] {
            let told = out_of_memory(&pod).unwrap();
            assert_eq!(told.reason, Reason::OOMKilled);
            assert!(told.message.contains("limit 24Mi") && told.message.contains("limits.memory"), "{told}");
        }
        assert_eq!(out_of_memory(&ended(137, "Error", "")), None);
        assert_eq!(out_of_memory(&ended(0, "OOMKilled", "")), None);
    }
}

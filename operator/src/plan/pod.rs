//! Why a Pod does not start or was lost, in the platform's own words. Pure.

use holdfast_crds::Reason;

use super::observed::{ObservedPod, Words};
use crate::task::Failure;

/// Why a Pod has not started, from its status and from what kubelet and scheduler tell about it (newest first).
/// None where neither says anything.
pub fn why_not_started(pod: &ObservedPod, events: &[Words]) -> Option<Failure> {
    if let Some(words) = &pod.unschedulable {
        let missing_claim = words.message.contains("persistentvolumeclaim") && words.message.contains("not found");
        let reason = if missing_claim { Reason::ClaimNotFound } else { Reason::PodUnschedulable };
        return Some(failure(reason, words));
    }
    if let Some(words) = pod.waiting.as_ref().filter(|w| is_pull_problem(&w.reason)) {
        return Some(failure(Reason::ImagePullFailed, words));
    }
    if let Some(failure) = events.iter().find_map(missing_volume) {
        return Some(failure);
    }
    if let Some(words) = pod.waiting.as_ref().filter(|w| is_config_problem(&w.reason)) {
        return Some(missing_object(words).unwrap_or_else(|| failure(Reason::PodNotStarted, words)));
    }
    events.iter().find(|w| w.reason.starts_with("Failed")).map(|words| failure(Reason::PodNotStarted, words))
}

/// Why a Job has no Pod, from what the Job controller tells about it.
pub fn why_not_created(events: &[Words]) -> Option<Failure> {
    events.iter().find(|w| w.reason == "FailedCreate").map(|words| failure(Reason::PodNotStarted, words))
}

/// Why a Pod ended without a report of its worker.
pub fn why_lost(pod: &ObservedPod) -> Option<Failure> {
    if let Some(end) = pod.ended.as_ref().filter(|e| e.reason == "OOMKilled") {
        return Some(Failure::new(
            Reason::OOMKilled,
            format!(
                "Pod {}: the worker was killed for its memory (exit code {}): raise spec.jobTemplate.resources.limits.memory of the BackupPolicy",
                pod.name, end.exit_code
            ),
        ));
    }
    let words = pod.disrupted.as_ref().or(pod.word.as_ref());
    if let Some(words) = words {
        return Some(Failure::new(Reason::PodLost, format!("Pod {} was lost: {}", pod.name, sentence(words))));
    }
    pod.deleting.then(|| {
        Failure::new(
            Reason::PodLost,
            format!("Pod {} was deleted before its worker ended, by hand or by a drain of its node", pod.name),
        )
    })
}

fn is_pull_problem(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed"
    )
}

fn is_config_problem(reason: &str) -> bool {
    matches!(reason, "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" | "StartError")
}

fn missing_volume(words: &Words) -> Option<Failure> {
    if words.reason == "FailedMount" || words.reason == "FailedAttachVolume" { missing_object(words) } else { None }
}

fn missing_object(words: &Words) -> Option<Failure> {
    let text = words.message.to_ascii_lowercase();
    let missing = text.contains("not found") || text.contains("non-existent");
    let reason = if !missing {
        return None;
    } else if text.contains("configmap") || text.contains("config key") {
        Reason::ConfigMapNotFound
    } else if text.contains("secret") {
        Reason::SecretNotFound
    } else if text.contains("persistentvolumeclaim") {
        Reason::ClaimNotFound
    } else {
        return None;
    };
    Some(failure(reason, words))
}

fn failure(reason: Reason, words: &Words) -> Failure {
    Failure::new(reason, sentence(words))
}

fn sentence(words: &Words) -> String {
    match (words.reason.as_str(), words.message.trim()) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::plan::observed::ContainerEnd;

    fn pod() -> ObservedPod {
        ObservedPod {
            namespace: "shop".into(),
            name: "p".into(),
            job_uid: "j".into(),
            created: Timestamp::UNIX_EPOCH,
            deleting: false,
            phase: "Pending".into(),
            word: None,
            unschedulable: None,
            disrupted: None,
            waiting: None,
            started: false,
            ended: None,
        }
    }

    fn words(reason: &str, message: &str) -> Words {
        Words { reason: reason.into(), message: message.into() }
    }

    #[test]
    fn a_pod_that_does_not_start_is_told_in_the_platforms_words() {
        let creating = Some(words("ContainerCreating", ""));
        let table = [
            (
                ObservedPod {
                    unschedulable: Some(words("Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.")),
                    ..pod()
                },
                vec![],
                Some(Reason::PodUnschedulable),
                "Insufficient cpu",
            ),
            (
                ObservedPod {
                    unschedulable: Some(words("Unschedulable", "persistentvolumeclaim \"uploads\" not found")),
                    ..pod()
                },
                vec![],
                Some(Reason::ClaimNotFound),
                "\"uploads\" not found",
            ),
            (
                ObservedPod { waiting: Some(words("ImagePullBackOff", "Back-off pulling image \"x:y\"")), ..pod() },
                vec![],
                Some(Reason::ImagePullFailed),
                "x:y",
            ),
            (
                ObservedPod { waiting: creating.clone(), ..pod() },
                vec![words(
                    "FailedMount",
                    "MountVolume.SetUp failed for volume \"store-credentials\" : secret \"s3-credentials\" not found",
                )],
                Some(Reason::SecretNotFound),
                "secret \"s3-credentials\" not found",
            ),
            (
                ObservedPod { waiting: creating.clone(), ..pod() },
                vec![words(
                    "FailedMount",
                    "MountVolume.SetUp failed for volume \"source-0-credentials\" : references non-existent secret key: password",
                )],
                Some(Reason::SecretNotFound),
                "password",
            ),
            (
                ObservedPod { waiting: creating.clone(), ..pod() },
                vec![words(
                    "FailedMount",
                    "MountVolume.SetUp failed for volume \"store-ca\" : configmap \"s3-ca\" not found",
                )],
                Some(Reason::ConfigMapNotFound),
                "s3-ca",
            ),
            (
                ObservedPod { waiting: creating.clone(), ..pod() },
                vec![words(
                    "FailedMount",
                    "MountVolume.SetUp failed for volume \"store-ca\" : configmap references non-existent config key: ca.crt",
                )],
                Some(Reason::ConfigMapNotFound),
                "ca.crt",
            ),
            (
                ObservedPod { waiting: creating.clone(), ..pod() },
                vec![words("FailedCreatePodSandBox", "Failed to create pod sandbox: no network")],
                Some(Reason::PodNotStarted),
                "no network",
            ),
            (
                ObservedPod { waiting: Some(words("CreateContainerConfigError", "secret \"x\" not found")), ..pod() },
                vec![],
                Some(Reason::SecretNotFound),
                "\"x\"",
            ),
            (ObservedPod { waiting: creating, ..pod() }, vec![words("Pulling", "Pulling image")], None, ""),
        ];
        for (pod, events, reason, text) in table {
            let why = why_not_started(&pod, &events);
            assert_eq!(why.as_ref().map(|f| f.reason), reason, "{pod:?}");
            assert!(why.is_none_or(|f| f.message.contains(text)), "{text}");
        }
    }

    #[test]
    fn a_lost_pod_is_told_from_a_failed_one() {
        let end =
            |exit_code, reason: &str| Some(ContainerEnd { exit_code, reason: reason.into(), ..Default::default() });
        let table = [
            (ObservedPod { ended: end(137, "OOMKilled"), ..pod() }, Some(Reason::OOMKilled)),
            (
                ObservedPod { word: Some(words("Evicted", "The node was low on memory")), ..pod() },
                Some(Reason::PodLost),
            ),
            (
                ObservedPod { disrupted: Some(words("DeletionByTaintManager", "")), ended: end(143, "Error"), ..pod() },
                Some(Reason::PodLost),
            ),
            (ObservedPod { deleting: true, ..pod() }, Some(Reason::PodLost)),
            (ObservedPod { ended: end(1, "Error"), ..pod() }, None),
        ];
        for (pod, reason) in table {
            assert_eq!(why_lost(&pod).map(|f| f.reason), reason, "{pod:?}");
        }
    }
}

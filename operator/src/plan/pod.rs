//! Why a Pod does not start or was lost, in the platform's own words. Pure.

use holdfast_crds::Reason;

use super::observed::{ObservedPod, Words};
use crate::task::Failure;

/// Words of the container runtime for a limit that does not even let it start a container.
const RUNTIME_OOM: &str = "OOM-killed";
const RUN_AS: &str = ": set runAs to the owner of the volume's files (volume.runAs of the source, into[].volume.runAs of a restore), or label the namespace pod-security.kubernetes.io/enforce with restricted, then it is read as user 65532, or with baseline, then as root";
const RAISE: &str = "raise spec.jobTemplate.resources.limits.memory of the BackupPolicy";

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
    events.iter().find(|w| w.reason.starts_with("Failed") && !is_behind(w)).map(|words| {
        if words.message.contains(RUNTIME_OOM) {
            let message =
                format!("nothing starts with so little memory ({}): {}: {RAISE}", limit(pod), sentence(words));
            return Failure::new(Reason::OOMKilled, message);
        }
        failure(Reason::PodNotStarted, words)
    })
}

/// What the kubelet says while it has not heard yet of a Secret or ConfigMap that may well be there: no reason to give up early, and the words
/// for who waited in vain.
pub fn why_behind(events: &[Words]) -> Option<Failure> {
    events.iter().find(|w| is_behind(w)).map(|words| failure(Reason::PodNotStarted, words))
}

/// What is known of a volume of the Pod that is being made, attached or mounted, in the platform's words; none where the Pod waits for
/// something else, or for what will never be.
pub fn volume_on_its_way(pod: &ObservedPod, events: &[Words]) -> Option<Failure> {
    let never = |w: &Words| missing_volume(w).is_some() || is_missing(&w.message) || w.reason == "FailedBinding";
    if pod.claims.is_empty() || events.iter().any(|w| is_about_volumes(&w.reason) && never(w)) {
        return None;
    }
    let told = events.iter().find(|w| is_about_volumes(&w.reason));
    if let Some(words) = &pod.unschedulable {
        let unbound = ["unbound immediate PersistentVolumeClaims", "binding volumes"];
        return unbound.iter().any(|text| words.message.contains(text)).then(|| match told {
            Some(more) => Failure::new(Reason::PodUnschedulable, format!("{}; {}", sentence(words), sentence(more))),
            None => failure(Reason::PodUnschedulable, words),
        });
    }
    // The kubelet mounts all volumes before it does anything else for a Pod.
    let is_creating = pod.waiting.as_ref().is_some_and(|w| w.reason == "ContainerCreating");
    if (pod.waiting.is_some() && !is_creating) || events.iter().any(|w| !is_before_the_image(&w.reason)) {
        return None;
    }
    match told {
        Some(words) => Some(failure(Reason::PodNotStarted, words)),
        None => is_creating.then(|| {
            let message = format!("ContainerCreating: claim {} is being attached or mounted", pod.claims.join(", "));
            Failure::new(Reason::PodNotStarted, message)
        }),
    }
}

/// What attaching and mounting are told as, on the Pod, and making a volume, on the claim.
fn is_about_volumes(reason: &str) -> bool {
    matches!(
        reason,
        "FailedAttachVolume"
            | "SuccessfulAttachVolume"
            | "FailedMount"
            | "FailedMapVolume"
            | "WaitForFirstConsumer"
            | "WaitForPodScheduled"
            | "ExternalProvisioning"
            | "Provisioning"
            | "ProvisioningFailed"
            | "ProvisioningSucceeded"
            | "FailedBinding"
    )
}

fn is_before_the_image(reason: &str) -> bool {
    is_about_volumes(reason)
        || matches!(reason, "Scheduled" | "FailedScheduling" | "TriggeredScaleUp" | "NotTriggerScaleUp")
}

/// Why a Job has no Pod, from what the Job controller tells about it.
pub fn why_not_created(events: &[Words]) -> Option<Failure> {
    events.iter().find(|w| w.reason == "FailedCreate").map(|words| {
        let mut failure = failure(Reason::PodNotStarted, words);
        if refuses_root(&words.message) {
            failure.message.push_str(RUN_AS);
        }
        failure
    })
}

/// Whether Pod Security refuses a Pod that runs as root, as those do that mount a claim in a namespace whose label takes root or that has
/// none. A cluster may enforce more than a label says.
fn refuses_root(words: &str) -> bool {
    words.contains("violates PodSecurity") && (words.contains("runAsNonRoot") || words.contains("runAsUser=0"))
}

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

fn limit(pod: &ObservedPod) -> String {
    pod.memory_limit.as_deref().map_or_else(|| "no limit".to_owned(), |limit| format!("limit {limit}"))
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

/// Whether the kubelet has not heard yet of a Secret or ConfigMap that may well be there. A busy one says so of Pods that start seconds
/// later.
fn is_behind(words: &Words) -> bool {
    words.message.contains("failed to sync") && words.message.contains("timed out waiting for the condition")
}

/// Words of the kubelet for a container that the container runtime could not start, and that will not be tried again.
fn is_start_problem(reason: &str) -> bool {
    matches!(reason, "StartError" | "ContainerCannotRun")
}

fn missing_volume(words: &Words) -> Option<Failure> {
    if words.reason == "FailedMount" || words.reason == "FailedAttachVolume" { missing_object(words) } else { None }
}

fn missing_object(words: &Words) -> Option<Failure> {
    let text = words.message.to_ascii_lowercase();
    let reason = if !is_missing(&text) {
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

fn is_missing(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("not found") || text.contains("non-existent")
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
            ends_by: None,
            node: String::new(),
            phase: "Pending".into(),
            word: None,
            unschedulable: None,
            disrupted: None,
            waiting: None,
            started: false,
            ended: None,
            claims: vec![],
            memory_limit: None,
        }
    }

    fn words(reason: &str, message: &str) -> Words {
        Words { reason: reason.into(), message: message.into() }
    }

    #[test]
    fn who_refuses_root_is_told_with_what_to_set() {
        let told = |message: &str| why_not_created(&[words("FailedCreate", message)]).unwrap().message;
        let root = r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities (container "worker" must not include "DAC_OVERRIDE" in securityContext.capabilities.add), runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0)"#;
        let message = told(root);
        assert!(
            message.contains(root) && message.contains("set runAs to the owner of the volume's files"),
            "{message}"
        );
        for other in
            [r#"pods "x" is forbidden: exceeded quota: q"#, r#"violates PodSecurity "baseline:latest": host ports"#]
        {
            assert!(!told(other).contains("runAs"), "{other}");
        }
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
                ObservedPod { waiting: creating.clone(), memory_limit: Some("1Mi".into()), ..pod() },
                vec![words("FailedCreatePodSandBox", "container init was OOM-killed (memory limit too low?)")],
                Some(Reason::OOMKilled),
                "limit 1Mi",
            ),
            (
                ObservedPod { waiting: creating.clone(), ..pod() },
                vec![words(
                    "FailedMount",
                    "MountVolume.SetUp failed for volume \"store-credentials\" : failed to sync secret cache: timed out waiting for the condition",
                )],
                None,
                "",
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
    fn a_volume_on_its_way_is_told_from_one_that_will_never_come() {
        let with_claim = || ObservedPod { claims: vec!["uploads".into()], ..pod() };
        let creating = || ObservedPod { waiting: Some(words("ContainerCreating", "")), ..with_claim() };
        let unbound = || ObservedPod {
            unschedulable: Some(words(
                "Unschedulable",
                "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            )),
            ..with_claim()
        };
        let external = words("ExternalProvisioning", "claim uploads: waiting for a volume to be created");
        let no_class = words("ProvisioningFailed", "claim uploads: storageclass.storage.k8s.io \"fast\" not found");
        let no_volumes = words("FailedBinding", "claim uploads: no persistent volumes available for this claim");
        let no_secret = words("FailedMount", "MountVolume.SetUp failed for volume \"c\" : secret \"s3\" not found");
        let timeout = words("ProvisioningFailed", "claim uploads: rpc error: code = DeadlineExceeded");
        let attaching = words("FailedAttachVolume", "AttachVolume.Attach failed for volume \"pvc-1\" : timed out");
        let scheduled = words("Scheduled", "Successfully assigned shop/p to node-1");
        let table = [
            (unbound(), vec![external.clone()], Some("waiting for a volume to be created")),
            (unbound(), vec![], Some("unbound immediate")),
            (unbound(), vec![no_class.clone()], None),
            (unbound(), vec![no_volumes], None),
            (with_claim(), vec![external.clone()], Some("ExternalProvisioning: claim uploads: waiting")),
            (with_claim(), vec![timeout, external.clone()], Some("DeadlineExceeded")),
            (with_claim(), vec![no_class], None),
            (with_claim(), vec![], None),
            (creating(), vec![attaching.clone(), scheduled.clone()], Some("AttachVolume.Attach failed")),
            (creating(), vec![scheduled.clone()], Some("claim uploads is being attached or mounted")),
            (creating(), vec![no_secret, attaching.clone()], None),
            (creating(), vec![words("Pulling", "Pulling image"), scheduled], None),
            (creating(), vec![words("FailedCreatePodSandBox", "no network")], None),
            (ObservedPod { claims: vec![], ..creating() }, vec![attaching.clone()], None),
            (ObservedPod { waiting: Some(words("ImagePullBackOff", "")), ..with_claim() }, vec![attaching], None),
            (
                ObservedPod { unschedulable: Some(words("Unschedulable", "Insufficient cpu")), ..with_claim() },
                vec![external],
                None,
            ),
        ];
        for (pod, events, expected) in table {
            let told = volume_on_its_way(&pod, &events);
            assert_eq!(told.is_some(), expected.is_some(), "{pod:?} {events:?}");
            assert!(told.iter().all(|t| t.message.contains(expected.unwrap())), "{told:?}");
        }
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

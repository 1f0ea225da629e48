//! What a Pod waits for that has not started: something on its way, or something that only a person can bring. Pure.

mod advice;
mod object;

use holdfast_crds::Reason;

use super::observed::{INIT_FAILED, INITIALIZING, ObservedJob, ObservedPod, Words};
use crate::task::Failure;

/// Words of the container runtime for a limit that does not even let it start a container.
pub(super) const RUNTIME_OOM: &str = "OOM-killed";
const RUN_AS: &str = ": set runAs to the owner of the volume's files (volume.runAs of the source, into[].volume.runAs of a restore), or label the namespace pod-security.kubernetes.io/enforce with restricted, then it is read as user 65532, or with baseline, then as root";
pub(super) const RAISE: &str = "raise spec.jobTemplate.resources.limits.memory of the BackupPolicy";

/// What a Pod waits for, in the platform's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Something that scheduler, autoscaler, storage or kubelet may bring by themselves: it is worth the whole start deadline.
    OnItsWay(Failure),
    /// Something that waiting does not bring.
    Missing(Failure),
}

impl Obstacle {
    /// What it is.
    pub fn failure(self) -> Failure {
        match self {
            Self::OnItsWay(failure) | Self::Missing(failure) => failure,
        }
    }
}

/// What a Pod waits for, from its status and from what is told about it and its claims, newest first (none: that was not looked up yet). None
/// where nobody says anything.
pub fn obstacle(job: &ObservedJob, pod: &ObservedPod, events: Option<&[Words]>) -> Option<Obstacle> {
    let is_late = events.is_some();
    let events = events.unwrap_or_default();
    if let Some(words) = &pod.unschedulable {
        return Some(without_a_node(job, pod, words, events));
    }
    if let Some(words) = pod.waiting.as_ref().filter(|w| is_pull_problem(&w.reason)) {
        return Some(Obstacle::Missing(failure(Reason::ImagePullFailed, words)));
    }
    let events = still_true(events);
    if let Some(failure) = events.iter().find_map(|words| missing_volume(job, pod, words)) {
        return Some(Obstacle::Missing(failure));
    }
    if let Some(words) = pod.waiting.as_ref().filter(|w| is_config_problem(&w.reason)) {
        return Some(Obstacle::Missing(object::missing(job, pod, words).unwrap_or_else(|| not_started(words))));
    }
    if let Some(words) = pod.waiting.as_ref().filter(|w| w.reason == INITIALIZING && !w.message.is_empty()) {
        return Some(Obstacle::OnItsWay(not_started(words)));
    }
    if let Some(words) = events.iter().find(|w| w.message.contains(RUNTIME_OOM)) {
        let message = format!("nothing starts with so little memory ({}): {}: {RAISE}", limit(pod), sentence(words));
        return Some(Obstacle::Missing(Failure::new(Reason::OOMKilled, message)));
    }
    if let Some(never) = events.iter().find(|w| is_never(w)) {
        return Some(Obstacle::Missing(not_started(never)));
    }
    let mut of_the_node = events.iter().filter(|w| is_of_the_node(w));
    let told = of_the_node.clone().find(|w| !is_vague(w)).or_else(|| of_the_node.next());
    if let Some(newest) = told {
        return Some(Obstacle::OnItsWay(not_started(newest)));
    }
    // The kubelet mounts all volumes before it does anything else for a Pod.
    let is_creating = pod.waiting.as_ref().is_some_and(|w| w.reason == "ContainerCreating");
    (is_late && is_creating && !pod.claims.is_empty()).then(|| {
        let message = format!("ContainerCreating: claim {} is being attached or mounted", pod.claims.join(", "));
        Obstacle::OnItsWay(Failure::new(Reason::PodNotStarted, message))
    })
}

/// What a Job waits for that has no Pod, from what the Job controller tells about it. A quota may have room again at any moment.
pub fn why_not_created(events: &[Words]) -> Option<Obstacle> {
    events.iter().find(|w| w.reason == "FailedCreate").map(|words| {
        let mut failure = not_started(words);
        if refuses_root(&words.message) {
            failure.message.push_str(RUN_AS);
        }
        let full = words.message.contains("exceeded quota");
        if full { Obstacle::OnItsWay(failure) } else { Obstacle::Missing(failure) }
    })
}

/// Whether Pod Security refuses a Pod that runs as root, as those do that mount a claim in a namespace whose label takes root or that has
/// none. A cluster may enforce more than a label says.
fn refuses_root(words: &str) -> bool {
    words.contains("violates PodSecurity") && (words.contains("runAsNonRoot") || words.contains("runAsUser=0"))
}

/// No node has been found: the scheduler's words, and what autoscaler or storage say beside them.
fn without_a_node(job: &ObservedJob, pod: &ObservedPod, words: &Words, events: &[Words]) -> Obstacle {
    if let Some(failure) = object::missing(job, pod, words).filter(|f| f.reason == Reason::ClaimNotFound) {
        return Obstacle::Missing(failure);
    }
    let waits_for_a_volume =
        ["unbound immediate PersistentVolumeClaims", "binding volumes"].iter().any(|text| words.message.contains(text));
    let told = if waits_for_a_volume {
        events.iter().find(|w| is_about_volumes(&w.reason))
    } else {
        events.iter().find(|w| is_of_an_autoscaler(w))
    };
    let mut said = failure(Reason::PodUnschedulable, words);
    if let Some(more) = told {
        said.message = format!("{}; {}", said.message, sentence(more));
    }
    let has_none = waits_for_a_volume && !pod.claims.is_empty() && events.iter().any(is_never);
    let never = has_none || words.message.contains("bound to non-existent");
    if never { Obstacle::Missing(said) } else { Obstacle::OnItsWay(said) }
}

/// Events of what is over say nothing any more: the kubelet pulls the image once all volumes are there, and a node has been found by then.
fn still_true(events: &[Words]) -> Vec<&Words> {
    let beyond = events.iter().position(|w| matches!(w.reason.as_str(), "Pulling" | "Pulled" | "Created"));
    let until = beyond.map_or(events.len(), |at| at + 1);
    events[..until].iter().filter(|w| !is_before_the_node(w)).collect()
}

fn is_before_the_node(words: &Words) -> bool {
    matches!(words.reason.as_str(), "Scheduled" | "FailedScheduling") || is_of_an_autoscaler(words)
}

/// What cluster-autoscaler and Karpenter say about a Pod that has no node.
fn is_of_an_autoscaler(words: &Words) -> bool {
    matches!(words.reason.as_str(), "TriggeredScaleUp" | "NotTriggerScaleUp" | "Nominated")
        || (words.reason == "FailedScheduling" && words.message.starts_with("Failed to schedule pod"))
}

/// Whether a kubelet, or what attaches and makes volumes for it, is at work on a Pod, or tells why it tries again.
fn is_of_the_node(words: &Words) -> bool {
    is_about_volumes(&words.reason)
        || words.reason.starts_with("Failed")
        || matches!(words.reason.as_str(), "Pulling" | "Pulled" | "Created" | "NetworkNotReady" | "SandboxChanged")
}

/// What the kubelet says every two minutes while volumes are missing, and which of them; what keeps each of them is told beside it.
fn is_vague(words: &Words) -> bool {
    words.message.starts_with("Unable to attach or mount volumes")
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

/// Whether storage says that a volume will not come by itself.
fn is_never(words: &Words) -> bool {
    words.reason == "FailedBinding" || (is_about_volumes(&words.reason) && is_missing(&words.message))
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
    matches!(
        reason,
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" | "StartError" | INIT_FAILED
    )
}

fn missing_volume(job: &ObservedJob, pod: &ObservedPod, words: &Words) -> Option<Failure> {
    let is_mounted = words.reason == "FailedMount" || words.reason == "FailedAttachVolume";
    if is_mounted { object::missing(job, pod, words) } else { None }
}

fn is_missing(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("not found") || text.contains("non-existent")
}

pub(super) fn limit(pod: &ObservedPod) -> String {
    pod.memory_limit.as_deref().map_or_else(|| "no limit".to_owned(), |limit| format!("limit {limit}"))
}

fn not_started(words: &Words) -> Failure {
    failure(Reason::PodNotStarted, words)
}

fn failure(reason: Reason, words: &Words) -> Failure {
    Failure::new(reason, advised(reason, words))
}

/// What the platform says, and what to do about it.
fn advised(reason: Reason, words: &Words) -> String {
    let said = sentence(words);
    match advice::advice(reason, &said) {
        Some(advice) => format!("{}; {advice}", said.trim_end_matches('.')),
        None => said,
    }
}

/// What the platform says, as one sentence.
pub(super) fn sentence(words: &Words) -> String {
    match (words.reason.as_str(), words.message.trim()) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod tests;

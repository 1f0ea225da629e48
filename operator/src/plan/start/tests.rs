//! Tables of what the platform says about a Pod that does not start. Pure.

use super::*;

fn pod() -> ObservedPod {
    ObservedPod { name: "p".into(), phase: "Pending".into(), ..ObservedPod::default() }
}

/// The Job of a backup.
fn job() -> ObservedJob {
    ObservedJob { sources: vec![("db".into(), "postgres".into())], ..crate::plan::fixture::job("j") }
}

pub(super) fn words(reason: &str, message: &str) -> Words {
    Words { reason: reason.into(), message: message.into() }
}

#[test]
#[allow(clippy::too_many_lines, reason = "it is one table")]
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
            Some(Reason::PodNotStarted),
            "failed to sync secret cache",
        ),
        (
            ObservedPod { waiting: Some(words("CreateContainerConfigError", "secret \"x\" not found")), ..pod() },
            vec![],
            Some(Reason::SecretNotFound),
            "\"x\"",
        ),
        (
            ObservedPod { waiting: creating.clone(), ..pod() },
            vec![words("Pulling", "Pulling image")],
            Some(Reason::PodNotStarted),
            "Pulling image",
        ),
        (ObservedPod { waiting: creating, ..pod() }, vec![words("Scheduled", "Successfully assigned")], None, ""),
    ];
    for (pod, events, reason, text) in table {
        let why = obstacle(&job(), &pod, Some(&events)).map(Obstacle::failure);
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
        (unbound(), vec![external.clone()], true, "waiting for a volume to be created"),
        (unbound(), vec![], true, "unbound immediate"),
        (unbound(), vec![no_class.clone()], false, "\"fast\" not found"),
        (unbound(), vec![no_volumes], false, "no persistent volumes available"),
        (with_claim(), vec![external.clone()], true, "ExternalProvisioning: claim uploads: waiting"),
        (with_claim(), vec![timeout, external.clone()], true, "DeadlineExceeded"),
        (with_claim(), vec![no_class], false, "\"fast\" not found"),
        (creating(), vec![attaching.clone(), scheduled.clone()], true, "AttachVolume.Attach failed"),
        (creating(), vec![scheduled.clone()], true, "claim uploads is being attached or mounted"),
        (creating(), vec![no_secret, attaching.clone()], false, "\"s3\" not found"),
        (creating(), vec![words("Pulling", "Pulling image"), attaching, scheduled], true, "Pulling image"),
        (
            ObservedPod { unschedulable: Some(words("Unschedulable", "Insufficient cpu")), ..with_claim() },
            vec![external],
            true,
            "Insufficient cpu",
        ),
    ];
    for (pod, events, on_its_way, text) in table {
        is(&pod, &events, on_its_way, text);
    }
    assert_eq!(obstacle(&job(), &with_claim(), Some(&[])), None);
    assert_eq!(obstacle(&job(), &creating(), None), None, "that is what every Pod with a claim says at first");
}

#[test]
fn what_may_come_by_itself_is_told_from_what_waiting_does_not_bring() {
    let creating = || ObservedPod { waiting: Some(words("ContainerCreating", "")), ..pod() };
    let waits = |reason: &str, message: &str| ObservedPod { waiting: Some(words(reason, message)), ..pod() };
    let full = || ObservedPod {
        unschedulable: Some(words("Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")),
        ..pod()
    };
    let no_claim = "0/1 nodes are available: persistentvolumeclaim \"upload\" not found. not found";
    let pulled = words("Pulled", "Successfully pulled image");
    let table = [
        (full(), vec![], true, "Insufficient cpu"),
        (
            full(),
            vec![words("TriggeredScaleUp", "pod triggered scale-up: [{pool 0->1 (max: 3)}]")],
            true,
            "or add a node; TriggeredScaleUp: pod triggered scale-up",
        ),
        (
            full(),
            vec![words("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached")],
            true,
            "max node group size reached",
        ),
        (
            full(),
            vec![words("Nominated", "Pod should schedule on: nodeclaim/default-7x"), words("FailedScheduling", "0/3")],
            true,
            "nodeclaim/default-7x",
        ),
        (
            full(),
            vec![words("FailedScheduling", "Failed to schedule pod, incompatible with nodepool \"default\"")],
            true,
            "incompatible with nodepool",
        ),
        (ObservedPod { unschedulable: Some(words("Unschedulable", no_claim)), ..pod() }, vec![], false, "upload"),
        (creating(), vec![words("Pulling", "Pulling image \"big\"")], true, "Pulling image"),
        (creating(), vec![pulled.clone(), words("FailedMount", "secret \"x\" not found")], true, "Successfully pulled"),
        (creating(), vec![words("NetworkNotReady", "network is not ready: cni plugin not initialized")], true, "cni"),
        (creating(), vec![words("FailedCreatePodSandBox", "failed to setup network for sandbox")], true, "sandbox"),
        (creating(), vec![words("FailedMount", "secret \"x\" not found"), words("Scheduled", "")], false, "\"x\""),
        (waits("ErrImageNeverPull", "Container image \"x\" is not present"), vec![], false, "not present"),
        (waits("InvalidImageName", "couldn't parse image name"), vec![], false, "couldn't parse"),
        (waits("ErrImagePull", "manifest unknown"), vec![words("Pulling", "")], false, "manifest unknown"),
        (
            waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
            vec![],
            false,
            "runAsNonRoot",
        ),
        (waits(INITIALIZING, "init container proxy is running"), vec![], true, "proxy is running"),
        (waits(INIT_FAILED, "init container proxy ended with exit code 1: Error"), vec![], false, "exit code 1"),
    ];
    for (pod, events, on_its_way, text) in table {
        is(&pod, &events, on_its_way, text);
    }
    // Once there is a node, what scheduler and autoscaler said before is over.
    let late = ObservedPod { node: "node-1".into(), ..creating() };
    let before = ["Scheduled", "TriggeredScaleUp", "FailedScheduling"].map(|reason| words(reason, "0/3 nodes"));
    assert_eq!(obstacle(&job(), &late, Some(&before)), None);
}

#[test]
fn a_quota_that_is_full_may_have_room_again_and_a_refusal_stays() {
    let quota = "Error creating: pods \"p-\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2";
    let must = "Error creating: pods \"p-\" is forbidden: failed quota: small: must specify limits.cpu for: worker";
    let told = |message: &str| why_not_created(&[words("FailedCreate", message)]);
    assert!(matches!(told(quota), Some(Obstacle::OnItsWay(f)) if f.message.contains("exceeded quota: small")));
    assert!(matches!(told(must), Some(Obstacle::Missing(f)) if f.message.contains("limits.cpu")));
    assert_eq!(why_not_created(&[words("SuccessfulCreate", "")]), None);
}

#[track_caller]
fn is(pod: &ObservedPod, events: &[Words], on_its_way: bool, text: &str) {
    let found = obstacle(&job(), pod, Some(events)).unwrap_or_else(|| panic!("{pod:?} {events:?}"));
    assert_eq!(matches!(found, Obstacle::OnItsWay(_)), on_its_way, "{pod:?} {events:?} {found:?}");
    let failure = found.failure();
    assert!(failure.message.contains(text), "{text} in {failure}");
}

#[test]
fn who_refuses_root_is_told_with_what_to_set() {
    let told = |message: &str| why_not_created(&[words("FailedCreate", message)]).unwrap().failure().message;
    let root = r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities (container "worker" must not include "DAC_OVERRIDE" in securityContext.capabilities.add), runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0)"#;
    let message = told(root);
    assert!(message.contains(root) && message.contains("set runAs to the owner of the volume's files"), "{message}");
    for other in
        [r#"pods "x" is forbidden: exceeded quota: q"#, r#"violates PodSecurity "baseline:latest": host ports"#]
    {
        assert!(!told(other).contains("runAs"), "{other}");
    }
}

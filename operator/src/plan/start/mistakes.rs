//! What users and platforms get wrong, in the words of scheduler, kubelet and API server (Kubernetes 1.34 to 1.37), and what is told: which
//! object, which key, which field, and what to do. Pure.

use super::tests::words;
use super::*;
use crate::plan::fixture;
use crate::plan::observed::ObservedVolume;

fn job(task: &str) -> ObservedJob {
    let sources = [("db", "postgres"), ("chat", "mongodb"), ("uploads", "volume"), ("env", "config")];
    ObservedJob {
        task: task.into(),
        sources: sources.map(|(source, engine)| (source.to_owned(), engine.to_owned())).into(),
        ..fixture::job("j")
    }
}

fn volume(name: &str, kind: &str, object: &str, keys: &[(&str, &str)], source: Option<&str>) -> ObservedVolume {
    ObservedVolume {
        name: name.into(),
        kind: kind.into(),
        object: object.into(),
        keys: keys.iter().map(|(key, file)| ((*key).to_owned(), (*file).to_owned())).collect(),
        source: source.map(str::to_owned),
    }
}

/// A Pod that mounts one of everything.
fn pod() -> ObservedPod {
    let credentials = [("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"), ("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY")];
    let volumes = vec![
        volume("store-credentials", "Secret", "s3", &credentials, None),
        volume("store-ca", "ConfigMap", "s3-ca", &[("ca.pem", "ca.crt")], None),
        volume("store-identity", "Secret", "age", &[("key.txt", "identity")], None),
        volume(
            "source-0-credentials",
            "Secret",
            "postgres",
            &[("user", "username"), ("passwort", "password")],
            Some("db"),
        ),
        volume("source-0-ca", "ConfigMap", "pg-ca", &[("ca.pem", "ca.crt")], Some("db")),
        volume("source-1-uri", "Secret", "link", &[("url", "uri")], Some("chat")),
        volume("source-2-data", "PersistentVolumeClaim", "upload", &[], Some("uploads")),
        volume("source-3-configmaps-0", "ConfigMap", "env", &[], Some("env")),
        volume("source-3-secrets-0", "Secret", "tokens", &[], Some("env")),
    ];
    ObservedPod { name: "p".into(), phase: "Pending".into(), volumes, ..ObservedPod::default() }
}

fn mounting(volume: &str, said: &str) -> (ObservedPod, Vec<Words>) {
    let waiting = Some(words("ContainerCreating", ""));
    let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {said}");
    let late = "Unable to attach or mount volumes: unmounted volumes=[x], unattached volumes=[], failed to process volumes=[]: context deadline exceeded";
    (ObservedPod { waiting, ..pod() }, vec![words("FailedMount", late), words("FailedMount", &message)])
}

fn waiting(reason: &str, message: &str) -> (ObservedPod, Vec<Words>) {
    (ObservedPod { waiting: Some(words(reason, message)), ..pod() }, vec![])
}

fn unschedulable(message: &str) -> (ObservedPod, Vec<Words>) {
    (ObservedPod { unschedulable: Some(words("Unschedulable", message)), ..pod() }, vec![])
}

fn saying(reason: &str, message: &str) -> (ObservedPod, Vec<Words>) {
    (ObservedPod { waiting: Some(words("ContainerCreating", "")), ..pod() }, vec![words(reason, message)])
}

#[test]
#[allow(clippy::too_many_lines, clippy::large_stack_arrays, reason = "it is one table")]
fn what_a_pod_misses_is_told_with_object_key_field_and_what_to_do() {
    let preempt = " preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    let table = [
        (
            mounting("store-credentials", "secret \"s3\" not found"),
            Reason::SecretNotFound,
            "Secret s3 is not there (spec.s3.credentialsSecret of the BackupStore): create it",
        ),
        (
            mounting("store-credentials", "references non-existent secret key: AWS_ACCESS_KEY_ID"),
            Reason::SecretNotFound,
            "Secret s3 has no key AWS_ACCESS_KEY_ID (spec.s3.credentialsSecret of the BackupStore): add it",
        ),
        // A kubelet that has not heard of the Pod's objects yet.
        (
            mounting("store-credentials", "object \"shop\"/\"s3\" not registered"),
            Reason::PodNotStarted,
            "not registered",
        ),
        (
            mounting("store-ca", "configmap \"s3-ca\" not found"),
            Reason::ConfigMapNotFound,
            "ConfigMap s3-ca is not there (spec.s3.caBundle of the BackupStore)",
        ),
        (
            mounting("store-ca", "configmap references non-existent config key: ca.pem"),
            Reason::ConfigMapNotFound,
            "ConfigMap s3-ca has no key ca.pem (spec.s3.caBundle.key of the BackupStore)",
        ),
        (
            mounting("store-identity", "references non-existent secret key: key.txt"),
            Reason::SecretNotFound,
            "Secret age has no key key.txt (spec.encryption.identitySecret.key of the BackupStore)",
        ),
        (
            mounting("source-0-credentials", "secret \"postgres\" not found"),
            Reason::SecretNotFound,
            "Secret postgres is not there (spec.sources[db].postgres.credentialsSecret of BackupPolicy shop): create it",
        ),
        (
            mounting("source-0-credentials", "references non-existent secret key: passwort"),
            Reason::SecretNotFound,
            "Secret postgres has no key passwort (spec.sources[db].postgres.credentialsSecret.passwordKey of BackupPolicy shop): add it, or name the key",
        ),
        (
            mounting("source-0-credentials", "references non-existent secret key: user"),
            Reason::SecretNotFound,
            "credentialsSecret.usernameKey of BackupPolicy shop",
        ),
        (
            mounting("source-0-ca", "configmap references non-existent config key: ca.pem"),
            Reason::ConfigMapNotFound,
            "ConfigMap pg-ca has no key ca.pem (spec.sources[db].postgres.tls.caBundle.key of BackupPolicy shop)",
        ),
        (
            mounting("source-1-uri", "references non-existent secret key: url"),
            Reason::SecretNotFound,
            "Secret link has no key url (spec.sources[chat].mongodb.uriSecret.key of BackupPolicy shop)",
        ),
        (
            mounting("source-3-configmaps-0", "configmap \"env\" not found"),
            Reason::ConfigMapNotFound,
            "ConfigMap env is not there (spec.sources[env].config.configMaps of BackupPolicy shop)",
        ),
        (
            mounting("source-3-secrets-0", "secret \"tokens\" not found"),
            Reason::SecretNotFound,
            "Secret tokens is not there (spec.sources[env].config.secrets of BackupPolicy shop)",
        ),
        // Before 1.35 and since: the scheduler says it twice.
        (
            unschedulable("persistentvolumeclaim \"upload\" not found"),
            Reason::ClaimNotFound,
            "PersistentVolumeClaim upload is not there (spec.sources[uploads].volume.claimName of BackupPolicy shop): create it",
        ),
        (
            unschedulable("0/1 nodes are available: persistentvolumeclaim \"upload\" not found. not found"),
            Reason::ClaimNotFound,
            "PersistentVolumeClaim upload is not there (spec.sources[uploads].volume.claimName of BackupPolicy shop): create it",
        ),
        (
            unschedulable("0/1 nodes are available: persistentvolumeclaim \"upload\" is being deleted. not found"),
            Reason::PodUnschedulable,
            "wait until the claim is gone and create it anew",
        ),
        (
            unschedulable(
                "0/1 nodes are available: persistentvolumeclaim \"upload\" bound to non-existent persistentvolume \"pv-1\".",
            ),
            Reason::PodUnschedulable,
            "the claim has lost its volume",
        ),
        (
            unschedulable("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"),
            Reason::PodUnschedulable,
            "kubectl describe pvc",
        ),
        (
            unschedulable(&format!(
                "0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity.{preempt}"
            )),
            Reason::PodUnschedulable,
            "on a node or in a zone that the Pod may not use",
        ),
        (
            unschedulable(&format!("0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory.{preempt}")),
            Reason::PodUnschedulable,
            "lower jobTemplate.resources.requests",
        ),
        (
            unschedulable(&format!(
                "0/3 nodes are available: 1 node(s) had untolerated taint {{dedicated: batch}}, 2 Insufficient cpu.{preempt}"
            )),
            Reason::PodUnschedulable,
            "jobTemplate.tolerations",
        ),
        (
            unschedulable(&format!("0/3 nodes are available: 3 node(s) had untolerated taint(s).{preempt}")),
            Reason::PodUnschedulable,
            "jobTemplate.tolerations",
        ),
        (
            unschedulable(&format!(
                "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.{preempt}"
            )),
            Reason::PodUnschedulable,
            "jobTemplate.nodeSelector or .affinity",
        ),
        (
            unschedulable(
                "0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already \
             in-use by another pod.",
            ),
            Reason::PodUnschedulable,
            "end that Pod",
        ),
        (
            unschedulable("0/1 nodes are available: 1 node(s) were unschedulable."),
            Reason::PodUnschedulable,
            "kubectl uncordon",
        ),
        (
            unschedulable("0/1 nodes are available: 1 Too many pods."),
            Reason::PodUnschedulable,
            "as many Pods as they can",
        ),
        (unschedulable("no nodes available to schedule pods"), Reason::PodUnschedulable, "the cluster has no node"),
        (
            waiting("InvalidImageName", "Failed to apply default image tag \"Holdfast:x\": couldn't parse image name"),
            Reason::ImagePullFailed,
            "correct image.repository and image.tag of the chart",
        ),
        (
            waiting("ErrImageNeverPull", "Container image \"x:y\" is not present with pull policy of Never"),
            Reason::ImagePullFailed,
            "load the image on the node",
        ),
        (
            waiting(
                "ImagePullBackOff",
                "Back-off pulling image \"r.example/x:y\": ErrImagePull: rpc error: code = NotFound desc = failed to pull and \
             unpack image \"r.example/x:y\": failed to resolve reference \"r.example/x:y\": r.example/x:y: not found",
            ),
            Reason::ImagePullFailed,
            "correct image.repository and image.tag of the chart",
        ),
        (
            waiting(
                "ErrImagePull",
                "failed to pull and unpack image \"r.example/x:y\": failed to authorize: failed to fetch anonymous token: \
             unexpected status from GET request to https://r.example/token: 401 Unauthorized",
            ),
            Reason::ImagePullFailed,
            "image.pullSecrets",
        ),
        (
            waiting("ErrImagePull", "pull access denied, repository does not exist or may require authorization"),
            Reason::ImagePullFailed,
            "image.pullSecrets",
        ),
        (
            waiting("ErrImagePull", "dial tcp: lookup registry.invalid on 10.96.0.10:53: no such host"),
            Reason::ImagePullFailed,
            "DNS",
        ),
        (
            waiting(
                "ErrImagePull",
                "429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit",
            ),
            Reason::ImagePullFailed,
            "use a mirror",
        ),
        (
            waiting(
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root (pod: \"p_shop(1)\", container: worker)",
            ),
            Reason::PodNotStarted,
            "jobTemplate.securityContext",
        ),
        (
            saying(
                "FailedCreatePodSandBox",
                "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox",
            ),
            Reason::PodNotStarted,
            "look at its CNI plugin",
        ),
        (
            saying("NetworkNotReady", "network is not ready: container runtime network not ready: NetworkReady=false"),
            Reason::PodNotStarted,
            "look at its CNI plugin",
        ),
        (
            saying(
                "FailedAttachVolume",
                "Multi-Attach error for volume \"pvc-1\" Volume is already used by pod(s) api-0",
            ),
            Reason::PodNotStarted,
            "end the Pod that uses it",
        ),
    ];
    for ((pod, events), reason, told) in table {
        let failure = obstacle(&job("backup"), &pod, Some(&events)).unwrap_or_else(|| panic!("{told}")).failure();
        assert_eq!(failure.reason, reason, "{failure}");
        assert!(failure.message.contains(told), "{told}\n in {failure}");
        assert!(failure.message.len() < 700, "a condition has room for 1 KiB: {failure}");
    }
}

#[test]
fn a_restore_names_the_field_of_the_request_and_that_of_the_policy() {
    let (pod, events) = mounting("source-0-credentials", "references non-existent secret key: passwort");
    let told = obstacle(&job("restore"), &pod, Some(&events)).unwrap().failure().message;
    let fields = "(spec.into[db].postgres.credentialsSecret.passwordKey of the RestoreRequest, or spec.sources[db].postgres.credentialsSecret.passwordKey \
                  of BackupPolicy shop)";
    assert!(told.contains(fields), "{told}");
}

#[test]
fn why_a_job_got_no_pod_is_told_with_what_to_do() {
    let table = [
        (
            "pods \"j-x\" is forbidden: exceeded quota: small, requested: limits.cpu=1, used: limits.cpu=2, limited: limits.cpu=2",
            "is used up",
        ),
        (
            "pods \"j-x\" is forbidden: failed quota: small: must specify limits.cpu for: worker",
            "set it in jobTemplate.resources",
        ),
        (
            "pods \"j-x\" is forbidden: maximum memory usage per Container is 256Mi, but limit is 512Mi",
            "a LimitRange of the namespace",
        ),
        (
            "pods \"j-x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true",
            "pod-security.kubernetes.io/enforce",
        ),
        ("pods \"j-x\" is forbidden: no PriorityClass with name low was found", "jobTemplate.priorityClassName"),
        (
            "pods \"j-x\" is forbidden: error looking up service account shop/irsa: serviceaccount \"irsa\" not found",
            "spec.s3.serviceAccountName of the BackupStore",
        ),
        (
            "admission webhook \"validate.kyverno.svc-fail\" denied the request: labels are missing",
            "ask who runs that webhook",
        ),
        (
            "pods \"j-x\" is forbidden: ValidatingAdmissionPolicy 'no' with binding 'no' denied request: no",
            "ask who made that policy",
        ),
    ];
    for (said, told) in table {
        let events = [words("FailedCreate", &format!("Error creating: {said}"))];
        let failure = why_not_created(&events).unwrap().failure();
        assert!(failure.message.contains(said) && failure.message.contains(told), "{failure}");
        assert_eq!(failure.reason, Reason::PodNotStarted);
    }
}

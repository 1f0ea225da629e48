//! What to do about what the platform says of a Pod that does not start. Pure.

use holdfast_crds::Reason;

/// By words of scheduler, kubelet, container runtime and API server (Kubernetes 1.32 to 1.37), the first that is found counts.
const ADVICE: [(&str, &str); 27] = [
    // The scheduler, in the Pod's condition PodScheduled.
    ("is being deleted", "wait until the claim is gone and create it anew, or name another one"),
    ("bound to non-existent persistentvolume", "the claim has lost its volume: name another claim"),
    (
        "volume node affinity conflict",
        "the claim's volume is on a node or in a zone that the Pod may not use: see jobTemplate.nodeSelector and .affinity",
    ),
    (
        "didn't match PersistentVolume's node affinity",
        "the claim's volume is on a node or in a zone that the Pod may not use: see jobTemplate.nodeSelector and .affinity",
    ),
    (
        "had no available volume zone",
        "the claim's volume is on a node or in a zone that the Pod may not use: see jobTemplate.nodeSelector and .affinity",
    ),
    (
        "ReadWriteOncePod access mode already in-use",
        "another Pod has the claim, and this access mode lets one in: end that Pod",
    ),
    ("did not have enough free storage", "the nodes have no room for the claim's volume"),
    ("unbound immediate PersistentVolumeClaims", "look at the claim and its storage class: kubectl describe pvc"),
    ("didn't find available persistent volumes to bind", "no volume fits the claim: look at its storage class"),
    ("exceed max volume count", "the nodes have as many volumes as they can: add one, or let others end"),
    ("untolerated taint", "jobTemplate.tolerations lets it onto such nodes"),
    (
        "didn't match Pod's node affinity/selector",
        "no node has what jobTemplate.nodeSelector or .affinity ask for, or it is not the node that has the claim",
    ),
    ("Insufficient ", "lower jobTemplate.resources.requests, or add a node"),
    ("Too many pods", "the nodes have as many Pods as they can: add one, or let others end"),
    ("were unschedulable", "the nodes are cordoned: kubectl uncordon"),
    ("no nodes available to schedule pods", "the cluster has no node"),
    // The Job controller, in the event FailedCreate.
    (
        "exceeded quota",
        "the ResourceQuota of the namespace is used up: raise it, or ask for less in jobTemplate.resources",
    ),
    (
        "must specify",
        "the ResourceQuota of the namespace wants that of each container: set it in jobTemplate.resources",
    ),
    ("usage per Container is", "a LimitRange of the namespace says otherwise: fit jobTemplate.resources to it"),
    ("violates PodSecurity", "the namespace's label pod-security.kubernetes.io/enforce forbids this Pod"),
    ("no PriorityClass with name", "create it, or correct jobTemplate.priorityClassName"),
    (
        "error looking up service account",
        "create it in this namespace, or correct spec.s3.serviceAccountName of the BackupStore",
    ),
    ("admission webhook", "ask who runs that webhook"),
    ("ValidatingAdmissionPolicy", "ask who made that policy"),
    // The kubelet, about the container.
    ("runAsNonRoot", "the image has to run as a user other than root: see jobTemplate.securityContext"),
    ("network", "the node's network is not ready or not right: look at its CNI plugin"),
    ("Multi-Attach error", "another node has the volume: end the Pod that uses it, or let this one run there"),
];

/// The same, about an image that cannot be pulled.
const ADVICE_ON_IMAGES: [(&str, &str); 9] = [
    ("couldn't parse image name", "correct image.repository and image.tag of the chart"),
    (
        "is not present with pull policy of Never",
        "load the image on the node, or set image.pullPolicy of the chart to IfNotPresent",
    ),
    ("toomanyrequests", "the registry limits how often it may be asked: use a mirror, or a pull Secret"),
    (
        "nauthorized",
        "the registry wants a pull Secret: image.pullSecrets of the chart names those that have to be in each policy's namespace",
    ),
    (
        "denied",
        "no such image, or the registry wants a pull Secret (image.pullSecrets of the chart, in each policy's namespace)",
    ),
    ("no such host", "the node cannot find the registry: correct image.repository of the chart, or the node's DNS"),
    (
        "connection refused",
        "the registry does not answer: correct image.repository of the chart, or look at the registry",
    ),
    ("i/o timeout", "the node does not reach the registry: look at its network"),
    ("", "correct image.repository and image.tag of the chart, or see whether the node reaches the registry"),
];

/// What to do; none where the words are not known.
pub(super) fn advice(reason: Reason, words: &str) -> Option<&'static str> {
    let known: &[_] = if reason == Reason::ImagePullFailed { &ADVICE_ON_IMAGES } else { &ADVICE };
    known.iter().find(|(known, _)| words.contains(known)).map(|(_, advice)| *advice)
}

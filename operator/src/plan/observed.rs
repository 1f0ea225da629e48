//! Jobs and Pods as the planner sees them: the few facts that decisions rest on, small enough to keep thousands of them. Pure.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names::{POLICY_LABEL, SOURCE_LABEL, TASK_LABEL};

/// The object that a Job belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name, in the Job's namespace.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedJob {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its controller.
    pub owner: Option<Owner>,
    /// What it does: the value of its task label.
    pub task: String,
    /// Value of its source label.
    pub source: String,
    /// Value of its policy label.
    pub policy: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// How many of its Pods have failed.
    pub failed_pods: i32,
    /// How it ended, if it has.
    pub end: Option<JobEnd>,
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// Whether it completed.
    pub completed: bool,
    /// When.
    pub at: Timestamp,
    /// The Job controller's word, such as `BackoffLimitExceeded`.
    pub reason: String,
    /// The Job controller's sentence.
    pub message: String,
}

/// A Pod of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// UID of its Job.
    pub job_uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// Until when it has to have ended, if it is being deleted.
    pub ends_by: Option<Timestamp>,
    /// The node that it is on, once it is on one.
    pub node: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// The platform's word for the Pod as a whole, such as `Evicted`, and its sentence.
    pub word: Option<Words>,
    /// Why no node was found for it.
    pub unschedulable: Option<Words>,
    /// Why the platform is taking it away.
    pub disrupted: Option<Words>,
    /// Why its container has not started.
    pub waiting: Option<Words>,
    /// Whether its container has started.
    pub started: bool,
    /// How its container ended.
    pub ended: Option<ContainerEnd>,
    /// The claims that it mounts.
    pub claims: Vec<String>,
    /// How much memory its container may take, as its spec says it.
    pub memory_limit: Option<String>,
}

/// What the platform says: one word and one sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerEnd {
    /// Its exit code.
    pub exit_code: i32,
    /// The kubelet's word, such as `OOMKilled`.
    pub reason: String,
    /// Its termination message.
    pub message: String,
    /// When.
    pub at: Option<Timestamp>,
}

/// A Job with everything known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The Job.
    pub job: ObservedJob,
    /// Its Pods that are still there.
    pub pods: Vec<ObservedPod>,
    /// What the platform tells about its newest Pod, or about the Job where it has none, newest first, and then about claims of the Pod
    /// that have no volume yet. Looked up only while that is late.
    pub events: Vec<Words>,
}

impl Attempt {
    /// The Pod that was made last.
    pub fn newest_pod(&self) -> Option<&ObservedPod> {
        self.pods.iter().max_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)))
    }

    /// Since when the Job has been waiting for a Pod to start; none if one has, or if the Job has ended.
    pub fn waits_since(&self) -> Option<Timestamp> {
        if self.job.end.is_some() || self.job.deleting {
            return None;
        }
        match self.newest_pod() {
            Some(pod) if pod.started || pod.phase == "Failed" || pod.phase == "Succeeded" => None,
            Some(pod) => Some(pod.created),
            None if self.job.failed_pods > 0 => None,
            None => Some(self.job.created),
        }
    }
}

impl From<&Job> for ObservedJob {
    fn from(job: &Job) -> Self {
        let status = job.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let end = conditions
            .iter()
            .find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))
            .map(|condition| JobEnd {
                completed: condition.type_ == "Complete",
                at: condition.last_transition_time.as_ref().map_or_else(|| created(&job.metadata), |t| t.0),
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            });
        Self {
            namespace: job.metadata.namespace.clone().unwrap_or_default(),
            name: job.metadata.name.clone().unwrap_or_default(),
            uid: job.metadata.uid.clone().unwrap_or_default(),
            owner: controller_of(&job.metadata),
            task: label(&job.metadata, TASK_LABEL),
            source: label(&job.metadata, SOURCE_LABEL),
            policy: label(&job.metadata, POLICY_LABEL),
            created: created(&job.metadata),
            deleting: job.metadata.deletion_timestamp.is_some(),
            failed_pods: status.and_then(|s| s.failed).unwrap_or(0),
            end,
        }
    }
}

impl From<&Pod> for ObservedPod {
    fn from(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let says = |type_: &str, value: &str| {
            conditions.iter().find(|c| c.type_ == type_ && c.status == value).map(|c| Words {
                reason: c.reason.clone().unwrap_or_default(),
                message: c.message.clone().unwrap_or_default(),
            })
        };
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let container = pod.spec.iter().find_map(|spec| spec.containers.first());
        let limits = container.and_then(|container| container.resources.as_ref()?.limits.as_ref());
        let state: ContainerState =
            status.container_statuses.unwrap_or_default().into_iter().next().and_then(|c| c.state).unwrap_or_default();
        let words = |reason: Option<String>, message: Option<String>| {
            reason.filter(|r| !r.is_empty()).map(|reason| Words { reason, message: message.unwrap_or_default() })
        };
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            job_uid: controller_of(&pod.metadata).map(|o| o.uid).unwrap_or_default(),
            created: created(&pod.metadata),
            // The API server adds the time that the Pod is given to the moment of its deletion.
            ends_by: pod.metadata.deletion_timestamp.as_ref().map(|t| t.0),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            phase: status.phase.unwrap_or_default(),
            word: words(status.reason, status.message),
            unschedulable: says("PodScheduled", "False"),
            disrupted: says("DisruptionTarget", "True"),
            started: state.running.is_some() || state.terminated.is_some(),
            waiting: state.waiting.and_then(|w| words(w.reason, w.message)),
            ended: state.terminated.map(|t| ContainerEnd {
                exit_code: t.exit_code,
                reason: t.reason.unwrap_or_default(),
                message: t.message.unwrap_or_default(),
                at: t.finished_at.map(|t| t.0),
            }),
            claims: volumes.filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone())).collect(),
            memory_limit: limits.and_then(|limits| limits.get("memory")).map(|quantity| quantity.0.clone()),
        }
    }
}

/// When an object was made; the beginning of time for one that does not say.
pub fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

fn controller_of(meta: &ObjectMeta) -> Option<Owner> {
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    Some(Owner { kind: owner.kind.clone(), name: owner.name.clone(), uid: owner.uid.clone() })
}

fn label(meta: &ObjectMeta, name: &str) -> String {
    meta.labels.as_ref().and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
}

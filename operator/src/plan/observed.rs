//! Jobs and Pods as the planner sees them: the few facts that decisions rest on, small enough to keep thousands of them. Pure.

mod read;

use holdfast_crds::{JobTemplate, Reason};
use jiff::Timestamp;

use super::status::after;
use crate::task::{Outcome, Report, RetainReport};
pub use read::created;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// How many times a Pod that failed is replaced.
    pub retries: i32,
    /// The sources that it saves or restores, with their engines.
    pub sources: Vec<(String, String)>,
    /// How many seconds a Pod of it may take to start, where the Job says so.
    pub start_deadline_seconds: Option<i64>,
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

impl ObservedJob {
    /// How many seconds a Pod of it may take to start.
    pub fn start_deadline_seconds(&self) -> i64 {
        self.start_deadline_seconds.unwrap_or(JobTemplate::START_DEADLINE_SECONDS)
    }
}

/// A Pod of a Job. What is said of its container is said of the worker's, whatever else runs in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Since when it has been bound to its node.
    pub scheduled: Option<Timestamp>,
    /// Why the platform is taking it away.
    pub disrupted: Option<Words>,
    /// Why its container has not started, or which other container is in its way.
    pub waiting: Option<Words>,
    /// Whether its container has started.
    pub started: bool,
    /// How its container ended.
    pub ended: Option<ContainerEnd>,
    /// Names of its other containers, which are not ours: a mesh's proxy, an agent.
    pub others: Vec<String>,
    /// The claims that it mounts.
    pub claims: Vec<String>,
    /// The objects that it mounts.
    pub volumes: Vec<ObservedVolume>,
    /// How much memory its container may take, as its spec says it.
    pub memory_limit: Option<String>,
}

/// A Pod whose worker has ended may take this many seconds to end by itself: the kubelet then ends a native sidecar, and gives it its time. Any other
/// container goes on for ever.
pub const OTHERS_SECONDS: i64 = 60;
/// What [`ObservedPod::waiting`] says while an init container, which is not ours, is at work.
pub const INITIALIZING: &str = "PodInitializing";
/// What it says once one has failed: the worker's container never starts.
pub const INIT_FAILED: &str = "InitContainerFailed";

/// What [`ObservedVolume::kind`] says.
pub const SECRET: &str = "Secret";
/// What [`ObservedVolume::kind`] says.
pub const CONFIG_MAP: &str = "ConfigMap";
/// What [`ObservedVolume::kind`] says.
pub const CLAIM: &str = "PersistentVolumeClaim";

/// A Secret or ConfigMap that a Pod mounts, or a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedVolume {
    /// The volume's name, which says what it is for.
    pub name: String,
    /// `Secret`, `ConfigMap` or `PersistentVolumeClaim`.
    pub kind: String,
    /// The object's name.
    pub object: String,
    /// The keys that have to be in it, and the files that they become.
    pub keys: Vec<(String, String)>,
    /// The source that it is for.
    pub source: Option<String>,
}

impl ObservedPod {
    /// Whether its worker has ended and the Pod does not say so: another container goes on, or has failed by itself.
    pub fn outlives_its_worker(&self) -> bool {
        let completed = self.ended.as_ref().is_some_and(|end| end.exit_code == 0);
        self.ended.is_some() && (self.phase == "Running" || (self.phase == "Failed" && completed))
    }

    /// What its worker reports of a retention, if it does.
    pub fn retained(&self) -> Option<RetainReport> {
        match Report::from_termination_message(&self.ended.as_ref()?.message)?.outcome? {
            Outcome::Retain(retained) => Some(retained),
            _ => None,
        }
    }
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

    /// When the work of the Job ended: with the Job, or before it with its worker, where another container keeps the Pod or fails it.
    pub fn ended_at(&self) -> Option<Timestamp> {
        let of_job = self.job.end.as_ref().map(|end| end.at);
        of_job.or_else(|| {
            self.pods.iter().filter(|pod| pod.outlives_its_worker()).filter_map(|pod| pod.ended.as_ref()?.at).max()
        })
    }

    /// Until when a Job that has not ended, and whose worker has, is left to end by itself: then nothing but another container keeps it. A Pod
    /// that failed is made anew unless its worker's exit code ends the Job, so such a Job is not left: one that was killed for its memory
    /// would be killed once more.
    pub fn ends_itself_until(&self) -> Option<Timestamp> {
        let is_final = |end: &ContainerEnd| Reason::FINAL_EXIT_CODES.contains(&end.exit_code);
        let of = |pod: &ObservedPod| pod.ended.as_ref().filter(|end| pod.phase != "Failed" || is_final(end))?.at;
        let ended = self.pods.iter().filter_map(of);
        ended.max().map(|at| after(at, OTHERS_SECONDS))
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

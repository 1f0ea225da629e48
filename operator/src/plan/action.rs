//! What a decision consists of: actions as complete, comparable values, the status to report, and when to look again. Pure.

use holdfast_crds::{Backup, WorkloadKind};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::observed::{Attempt, ObservedJob};

/// What is to be done about one object. Carried out in this order: the actions, the status, the events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan<S> {
    /// Writes to other objects, in order; the first that fails ends the attempt.
    pub actions: Vec<Action>,
    /// The object's status as it should be. Written only where it differs, and only over the very version that was looked at.
    pub status: S,
    /// Published once the status is written, so that a transition is told once.
    pub events: Vec<Event>,
    /// When to look again even if nothing happens.
    pub next_check: Option<Timestamp>,
}

impl<S> Plan<S> {
    /// A plan that leaves everything as it is.
    pub fn keep(status: S) -> Self {
        Self { actions: Vec::new(), status, events: Vec::new(), next_check: None }
    }

    /// Deletes a Job that has not ended, once it cannot be expected to end by itself any more.
    pub fn stop(&mut self, attempt: &Attempt, now: Timestamp) {
        if attempt.job.end.is_some() || attempt.job.deleting {
            return;
        }
        match attempt.ends_itself_until() {
            Some(until) if now < until => self.check_at(until),
            _ => self.actions.push(Action::delete_job(&attempt.job)),
        }
    }

    /// Looks again at `at`, or before if the plan already says so.
    pub fn check_at(&mut self, at: Timestamp) {
        self.next_check = Some(self.next_check.map_or(at, |before| before.min(at)));
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create this Backup. One of the same name that saves the same policy is as good.
    CreateBackup(Box<Backup>),
    /// Let this be the status of this very version of a Backup.
    ReportBackup(Box<Backup>),
    /// Create this Job. One of the same name with the same owner is as good.
    CreateJob(Box<Job>),
    /// Ask whether this Job would be taken, and create nothing.
    TryJob(Box<Job>),
    /// Create this claim. One of the same name is left as it is.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Delete this very Job and its Pods.
    DeleteJob(Target),
    /// Delete this very version of a Backup.
    DeleteBackup(Target),
    /// Let these be the finalizers of this very version of a Backup.
    SetFinalizers(Target, Vec<String>),
    /// Let these be the finalizers of this very version of a RestoreRequest.
    SetRestoreFinalizers(Target, Vec<String>),
    /// Let this very version of a workload have this many replicas.
    Scale(WorkloadKind, Target, i32),
}

impl Action {
    /// Deletes this very Job, as it was observed.
    pub fn delete_job(job: &ObservedJob) -> Self {
        Self::DeleteJob(Target {
            namespace: job.namespace.clone(),
            name: job.name.clone(),
            uid: job.uid.clone(),
            resource_version: None,
        })
    }
}

/// One very object: the write is refused if it is not that one any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its version, where the write depends on that too.
    pub resource_version: Option<String>,
}

impl Target {
    /// The object, whatever its version.
    pub fn object(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: None,
        }
    }

    /// The object in this version alone.
    pub fn version(meta: &ObjectMeta) -> Self {
        Self { resource_version: meta.resource_version.clone(), ..Self::object(meta) }
    }
}

/// Something worth telling, about the object the plan is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether somebody should look at it.
    pub warning: bool,
    /// Why, in one word.
    pub reason: String,
    /// What was done, in one word.
    pub action: &'static str,
    /// One line for a person.
    pub note: String,
    /// The BackupPolicy that it is about, where that is not the object the plan is for.
    pub policy: Option<Target>,
}

impl Event {
    /// Something went as it should.
    pub fn normal(reason: impl std::fmt::Display, action: &'static str, note: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.to_string(), action, note: note.into(), policy: None }
    }

    /// Somebody should look at this.
    pub fn warning(reason: impl std::fmt::Display, action: &'static str, note: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.to_string(), action, note: note.into(), policy: None }
    }

    /// The same, about a policy: what happened to one of its runs.
    #[must_use]
    pub fn about(self, policy: Target) -> Self {
        Self { policy: Some(policy), ..self }
    }
}

//! The only writer. Talks to the Kubernetes API: carries out what a plan says, and makes no choice.
//!
//! Each write is refused by the API server unless the object is the very one, in the very version, that the plan was made for; what
//! is created has a name that the plan's object alone gives. So a stale cache or a late second leader doubles and destroys nothing.

use std::fmt::Debug;
use std::time::Duration;

use holdfast_crds::{Backup, BackupPolicy, Reason, RestoreRequest, WorkloadKind};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::leadership::Leadership;
use crate::plan::action::{Action, Event, Target};
use crate::task::Failure;

/// The name under which statuses are written.
pub const FIELD_MANAGER: &str = "holdfast";

/// With it a request that was begun while the lease was held is over before it can be another one's.
const REQUEST: Duration = Duration::from_secs(5);

/// Why something could not be written or looked up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another controller leads.
    #[error("not leading any more: {step} was not tried")]
    NotLeading {
        /// What was not tried.
        step: String,
    },
    /// The object has changed since it was looked at.
    #[error("cannot {step}: the object has changed meanwhile")]
    Changed {
        /// What was tried.
        step: String,
    },
    /// Something of another owner has the name.
    #[error("cannot {step}: there is one of that name which belongs to somebody else")]
    NameTaken {
        /// What was tried.
        step: String,
    },
    /// Nothing can be created in the namespace any more.
    #[error("cannot {step}: the namespace is going away")]
    NamespaceTerminating {
        /// What was tried.
        step: String,
    },
    /// The API server refused.
    #[error("cannot {step}: {source}")]
    Api {
        /// What was tried.
        step: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("cannot {step}: no answer within {}s", REQUEST.as_secs())]
    NoAnswer {
        /// What was tried.
        step: String,
    },
}

impl Error {
    /// What is to be said of it on the object. A refusal is said at once: it is the API server's decision on that very object, and lasts
    /// until somebody changes something. What may pass by itself is said once it has lasted; that somebody else was faster, or leads, is
    /// nothing to say.
    pub fn as_failure(&self, lasts: bool) -> Option<Failure> {
        let (step, source) = match self {
            Self::Api { step, source } => (step, source),
            Self::NameTaken { step } => {
                let message =
                    format!("cannot {step}: there is one of that name which belongs to somebody else; remove it");
                return Some(Failure::new(Self::reason(step, ""), message));
            }
            Self::NoAnswer { .. } => return lasts.then(|| Failure::new(Reason::RequestFailed, self.to_string())),
            Self::NotLeading { .. } | Self::Changed { .. } | Self::NamespaceTerminating { .. } => return None,
        };
        match &**source {
            kube::Error::Api(status) if is_refusal(status.code) => {
                let message = format!("the API server refused to {step}: {}", status.message);
                Some(Failure::new(Self::reason(step, &status.message), message))
            }
            kube::Error::Api(status) => {
                let message = format!("the API server does not {step}, and says: {}", status.message);
                lasts.then(|| Failure::new(Reason::RequestFailed, message))
            }
            _ => lasts.then(|| Failure::new(Reason::RequestFailed, self.to_string())),
        }
    }

    fn reason(step: &str, words: &str) -> Reason {
        if words.contains("exceeded quota") {
            Reason::QuotaExceeded
        } else if step.starts_with(CREATE_JOB) {
            Reason::JobRefused
        } else {
            Reason::RequestRefused
        }
    }
}

const CREATE_JOB: &str = "create Job";

/// Whether an answer is a decision on what was asked for. Not 401, which is about the controller's own token; nor what may pass by itself.
pub fn is_refusal(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 408 | 409 | 410 | 425 | 429)
}

/// Writes to the cluster.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    recorder: Recorder,
    leadership: Leadership,
}

impl Writer {
    /// A writer that writes while it leads.
    pub fn new(client: Client, recorder: Recorder, leadership: Leadership) -> Self {
        Self { client, recorder, leadership }
    }

    /// Carries out one action.
    ///
    /// # Errors
    /// Why it is not done.
    pub async fn apply(&self, action: &Action) -> Result<(), Error> {
        match action {
            Action::CreateBackup(backup) => self.create_backup(backup).await,
            Action::ReportBackup(backup) => self.report(&**backup, &backup.status).await,
            Action::CreateJob(job) => self.create_job(job, false).await,
            Action::TryJob(job) => self.create_job(job, true).await,
            Action::CreateClaim(claim) => self.create_claim(claim).await,
            Action::DeleteJob(target) => self.delete::<Job>(target, "Job").await,
            Action::DeleteBackup(target) => self.delete::<Backup>(target, "Backup").await,
            Action::SetFinalizers(target, finalizers) => self.set_finalizers::<Backup>(target, finalizers).await,
            Action::SetRestoreFinalizers(target, finalizers) => {
                self.set_finalizers::<RestoreRequest>(target, finalizers).await
            }
            Action::Scale(WorkloadKind::Deployment, target, replicas) => {
                self.scale::<Deployment>(target, *replicas).await
            }
            Action::Scale(WorkloadKind::StatefulSet, target, replicas) => {
                self.scale::<StatefulSet>(target, *replicas).await
            }
        }
    }

    /// Writes the status of an object, over the version that was looked at.
    ///
    /// # Errors
    /// [`Error::Changed`] where that is not the newest version.
    pub async fn report<K, S>(&self, object: &K, status: &S) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        S: Serialize,
    {
        let name = object.name_any();
        let namespace = object.namespace().unwrap_or_default();
        let step = format!("write the status of {} {namespace}/{name}", K::kind(&()));
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name, "namespace": namespace, "uid": object.uid(), "resourceVersion": object.resource_version()},
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match self.send(&step, api.patch_status(&name, &params, &Patch::Apply(&body))).await {
            Ok(_) => Ok(()),
            // It went meanwhile: there is nothing left to report on.
            Err(Error::Api { source, .. }) if is_not_found(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Publishes events about an object, or about a policy and related to the object. One that cannot be published is logged.
    pub async fn publish(&self, about: &ObjectReference, events: &[Event]) {
        for event in events {
            let policy = event.policy.as_ref().map(policy_ref);
            let event = KubeEvent {
                type_: if event.warning { EventType::Warning } else { EventType::Normal },
                reason: event.reason.clone(),
                note: Some(cut(&event.note, 1000)),
                action: event.action.to_owned(),
                secondary: policy.as_ref().map(|_| about.clone()),
            };
            let about = policy.as_ref().unwrap_or(about);
            let step = format!("publish event {} about {}", event.reason, about.name.as_deref().unwrap_or_default());
            if let Err(error) = self.send(&step, self.recorder.publish(&event, about)).await {
                tracing::warn!(%error, "an event is lost");
            }
        }
    }

    async fn create_backup(&self, backup: &Backup) -> Result<(), Error> {
        let name = backup.name_any();
        let namespace = backup.namespace().unwrap_or_default();
        let step = format!("create Backup {namespace}/{name}");
        let api: Api<Backup> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.send(&step, api.create(&params, backup)).await {
            Ok(_) => Ok(()),
            Err(error) if is_already_exists(&error) => {
                let there = self.send(&step, api.get(&name)).await?;
                let same = there.spec.policy_ref == backup.spec.policy_ref;
                if same { Ok(()) } else { Err(Error::NameTaken { step }) }
            }
            Err(error) => Err(error),
        }
    }

    /// `dry_run`: the API server decides on it, and makes none.
    async fn create_job(&self, job: &Job, dry_run: bool) -> Result<(), Error> {
        let name = job.name_any();
        let namespace = job.namespace().unwrap_or_default();
        let step = format!("{CREATE_JOB} {namespace}/{name}");
        let api: Api<Job> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run };
        match self.send(&step, api.create(&params, job)).await {
            Ok(_) => Ok(()),
            Err(error) if is_already_exists(&error) => {
                let there = self.send(&step, api.get(&name)).await?;
                if is_of_the_same(&there, job) { Ok(()) } else { Err(Error::NameTaken { step }) }
            }
            // A quota is asked before anybody looks whether the Job is there, and it may be the very Job that has used it up.
            Err(error) if !dry_run && error.as_failure(false).is_some() => match self.send(&step, api.get(&name)).await
            {
                Ok(there) if is_of_the_same(&there, job) => Ok(()),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn create_claim(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let namespace = claim.namespace().unwrap_or_default();
        let step = format!("create PersistentVolumeClaim {namespace}/{}", claim.name_any());
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.send(&step, api.create(&params, claim)).await {
            Err(error) if !is_already_exists(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete<K>(&self, target: &Target, kind: &str) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let step = format!("delete {kind} {}/{}", target.namespace, target.name);
        let api: Api<K> = Api::namespaced(self.client.clone(), &target.namespace);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: Some(target.uid.clone()),
                resource_version: target.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        match self.send(&step, api.delete(&target.name, &params)).await {
            Ok(_) => Ok(()),
            Err(Error::Api { source, .. }) if is_not_found(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Through the subresource: the right to scale is not the right to change what runs. It is refused where the workload was written to
    /// since it was looked at.
    async fn scale<K>(&self, target: &Target, replicas: i32) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let step = format!("scale {} {}/{} to {replicas}", K::kind(&()), target.namespace, target.name);
        let api: Api<K> = Api::namespaced(self.client.clone(), &target.namespace);
        let body = json!({"metadata": {"resourceVersion": target.resource_version}, "spec": {"replicas": replicas}});
        match self.send(&step, api.patch_scale(&target.name, &PatchParams::default(), &Patch::Merge(&body))).await {
            Ok(_) => Ok(()),
            Err(Error::Api { source, .. }) if is_not_found(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn set_finalizers<K>(&self, target: &Target, finalizers: &[String]) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let step = format!("set the finalizers of {} {}/{}", K::kind(&()), target.namespace, target.name);
        let api: Api<K> = Api::namespaced(self.client.clone(), &target.namespace);
        let body = json!({
            "metadata": {"uid": target.uid, "resourceVersion": target.resource_version, "finalizers": finalizers},
        });
        match self.send(&step, api.patch(&target.name, &PatchParams::default(), &Patch::Merge(&body))).await {
            Ok(_) => Ok(()),
            Err(Error::Api { source, .. }) if is_not_found(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn send<T>(&self, step: &str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
        if !self.leadership.is_held() {
            return Err(Error::NotLeading { step: step.to_owned() });
        }
        within(step, request).await
    }
}

/// One request to the API server, in bounded time and with its error told.
///
/// # Errors
/// Why it failed.
pub async fn within<T>(step: &str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    let step = step.to_owned();
    match tokio::time::timeout(REQUEST, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Err(Error::Changed { step }),
        Ok(Err(kube::Error::Api(status))) if is_terminating(&status) => Err(Error::NamespaceTerminating { step }),
        Ok(Err(source)) => Err(Error::Api { step, source: Box::new(source) }),
        Err(_) => Err(Error::NoAnswer { step }),
    }
}

fn policy_ref(policy: &Target) -> ObjectReference {
    ObjectReference {
        api_version: Some(BackupPolicy::api_version(&()).into_owned()),
        kind: Some(BackupPolicy::kind(&()).into_owned()),
        namespace: Some(policy.namespace.clone()),
        name: Some(policy.name.clone()),
        uid: Some(policy.uid.clone()),
        ..ObjectReference::default()
    }
}

fn is_terminating(status: &kube::core::Status) -> bool {
    status.code == 403
        && status.details.iter().flat_map(|d| &d.causes).any(|cause| cause.reason == "NamespaceTerminating")
}

fn is_of_the_same(there: &Job, job: &Job) -> bool {
    let owners = |job: &Job| job.owner_references().iter().map(|o| o.uid.clone()).collect::<Vec<_>>();
    owners(there) == owners(job)
}

fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api { source, .. } if matches!(&**source, kube::Error::Api(s) if s.is_already_exists()))
}

/// Whether there is no such object.
pub(super) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

fn cut(text: &str, length: usize) -> String {
    text.chars().take(length).collect()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(step: &str, code: u16, reason: &str, message: &str) -> Error {
        let status = Status { code, ..Status::failure(message, reason) };
        Error::Api { step: step.to_owned(), source: Box::new(kube::Error::Api(status.boxed())) }
    }

    #[test]
    fn a_refusal_is_said_at_once_and_what_may_pass_once_it_lasts() {
        let quota = r#"jobs.batch "b" is forbidden: exceeded quota: none, requested: count/jobs.batch=1, used: count/jobs.batch=0, limited: count/jobs.batch=0"#;
        let table = [
            (403, "Forbidden", quota, Some(Reason::QuotaExceeded)),
            (403, "Forbidden", "denied by policy", Some(Reason::JobRefused)),
            (400, "BadRequest", "no such field", Some(Reason::JobRefused)),
            (404, "NotFound", "namespaces \"shop\" not found", Some(Reason::JobRefused)),
            (405, "MethodNotAllowed", "", Some(Reason::JobRefused)),
            (413, "RequestEntityTooLarge", "", Some(Reason::JobRefused)),
            (422, "Invalid", "metadata.labels: Invalid value", Some(Reason::JobRefused)),
            (401, "Unauthorized", "", None),
            (429, "TooManyRequests", "", None),
            (500, "InternalError", "failed calling webhook", None),
            (503, "ServiceUnavailable", "", None),
        ];
        for (code, reason, message, expected) in table {
            let error = answered("create Job shop/b", code, reason, message);
            let told = error.as_failure(false);
            assert_eq!(told.as_ref().map(|f| f.reason), expected, "{code}");
            assert!(told.is_none_or(|f| f.message.ends_with(message)), "{code}");
            let lasting = error.as_failure(true).unwrap();
            assert_eq!(lasting.reason, expected.unwrap_or(Reason::RequestFailed), "{code}");
        }
        let claim = answered("create PersistentVolumeClaim shop/data", 403, "Forbidden", "denied");
        assert_eq!(claim.as_failure(false).unwrap().reason, Reason::RequestRefused);
        let step = || "create Job shop/b".to_owned();
        assert_eq!(Error::NameTaken { step: step() }.as_failure(false).unwrap().reason, Reason::JobRefused);
        assert_eq!(Error::NoAnswer { step: step() }.as_failure(false), None);
        assert_eq!(Error::NoAnswer { step: step() }.as_failure(true).unwrap().reason, Reason::RequestFailed);
        for passing in [
            Error::Changed { step: step() },
            Error::NotLeading { step: step() },
            Error::NamespaceTerminating { step: step() },
        ] {
            assert_eq!(passing.as_failure(true), None, "{passing}");
        }
    }
}

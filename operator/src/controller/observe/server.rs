//! What the API server has at this moment, where a watch may lag behind or nothing is watched. Reads only.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_crds::{Backup, BackupPolicy, ScaleTarget, WorkloadKind};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event as CoreEvent, Namespace, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::controller::apply::{Error, is_not_found, is_refusal, within};
use crate::plan::job::{self, ENFORCE_LABEL, Ground};
use crate::plan::names::{POLICY_LABEL, TASK_LABEL, label_value};
use crate::plan::observed::{Attempt, ObservedJob, ObservedPod, Words};
use crate::plan::restore::ObservedWorkload;
use crate::plan::trial;
use crate::task::Failure;

/// Asks the API server.
#[derive(Clone)]
pub(super) struct Server {
    client: Client,
}

impl Server {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// A workload with its replicas and its Pods; none where it is not there.
    pub(super) async fn workload(
        &self,
        namespace: &str,
        target: &ScaleTarget,
        with_pods: bool,
    ) -> Result<Option<ObservedWorkload>, Error> {
        let name = &target.name;
        let step = format!("look up the scale of {} {namespace}/{name}", target.kind);
        let answer = match target.kind {
            WorkloadKind::Deployment => {
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
                within(&step, api.get_scale(name)).await
            }
            WorkloadKind::StatefulSet => {
                let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
                within(&step, api.get_scale(name)).await
            }
        };
        let scale = match answer {
            Ok(scale) => scale,
            Err(Error::Api { source, .. }) if is_not_found(&source) => return Ok(None),
            Err(error) => return Err(error),
        };
        let selector = scale.status.as_ref().and_then(|s| s.selector.clone()).filter(|s| !s.is_empty());
        let mut pods = Vec::new();
        if let Some(selector) = selector.filter(|_| with_pods) {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let running =
                ListParams::default().labels(&selector).fields("status.phase!=Succeeded,status.phase!=Failed");
            let found =
                within(&format!("list the Pods of {} {namespace}/{name}", target.kind), api.list(&running)).await?;
            pods = found.items.iter().map(ResourceExt::name_any).collect();
        }
        Ok(Some(ObservedWorkload {
            kind: target.kind,
            name: name.clone(),
            replicas: scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0),
            pods,
            resource_version: scale.metadata.resource_version,
        }))
    }

    /// What is known around claims, as the API server has it at this moment: nothing of it is watched, and it is looked up only for a Job
    /// that mounts claims and is about to be made.
    pub(super) async fn ground(&self, namespace: &str, names: &BTreeSet<String>) -> Result<Ground, Error> {
        if names.is_empty() {
            return Ok(Ground::default());
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let found = within(&format!("look up namespace {namespace}"), namespaces.get(namespace)).await?;
        let label = found.labels().get(ENFORCE_LABEL).cloned();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let mut claims = Vec::new();
        for name in names {
            let step = format!("look up PersistentVolumeClaim {namespace}/{name}");
            claims.extend(within(&step, api.get_opt(name)).await?);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let running = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        let pods = within(&format!("list the Pods of namespace {namespace}"), api.list(&running)).await?;
        Ok(Ground::of(label.as_deref(), &claims, &pods.items))
    }

    /// A policy, as the API server has it at this moment.
    pub(super) async fn policy(&self, namespace: &str, name: &str) -> Result<Option<Arc<BackupPolicy>>, Error> {
        let api: Api<BackupPolicy> = Api::namespaced(self.client.clone(), namespace);
        let found = within(&format!("look up BackupPolicy {namespace}/{name}"), api.get_opt(name)).await?;
        Ok(found.map(Arc::new))
    }

    /// A Backup, as the API server has it at this moment.
    pub(super) async fn backup(&self, namespace: &str, name: &str) -> Result<Option<Arc<Backup>>, Error> {
        let api: Api<Backup> = Api::namespaced(self.client.clone(), namespace);
        let found = within(&format!("look up Backup {namespace}/{name}"), api.get_opt(name)).await?;
        Ok(found.map(Arc::new))
    }

    /// A Job by name, as the API server has it at this moment, if it belongs to the owner.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub(super) async fn job(&self, namespace: &str, name: &str, owner_uid: &str) -> Result<Option<ObservedJob>, Error> {
        Ok(self.whole_job(namespace, name, owner_uid).await?.as_ref().map(ObservedJob::from))
    }

    /// As [`Self::job`], with all that its spec says.
    pub(super) async fn whole_job(&self, namespace: &str, name: &str, owner_uid: &str) -> Result<Option<Job>, Error> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let found = within(&format!("look up Job {namespace}/{name}"), api.get_opt(name)).await?;
        let is_its = |job: &Job| ObservedJob::from(job).owner.is_some_and(|owner| owner.uid == owner_uid);
        Ok(found.filter(is_its))
    }

    /// The Jobs that delete runs of a policy, as the API server has them at this moment.
    pub(super) async fn clearing(&self, namespace: &str, policy: &str) -> Result<Vec<ObservedJob>, Error> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let labels = format!("{TASK_LABEL} in (retain, delete),{POLICY_LABEL}={}", label_value(policy));
        let step = format!("list the Jobs of namespace {namespace} that delete runs of BackupPolicy {policy}");
        let found = within(&step, api.list(&ListParams::default().labels(&labels))).await?;
        Ok(found.items.iter().map(ObservedJob::from).collect())
    }

    /// What kubelet, scheduler or Job controller tell, and then what those tell that make volumes, each newest first.
    pub(super) async fn words_about(&self, attempt: &Attempt) -> Result<Vec<Words>, Error> {
        let namespace = &attempt.job.namespace;
        let pod = attempt.newest_pod();
        let (kind, name) = pod.map_or(("Job", attempt.job.name.as_str()), |pod| ("Pod", pod.name.as_str()));
        let mut words = self.events_of(namespace, kind, name).await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        for claim in pod.into_iter().flat_map(|pod| &pod.claims) {
            let step = format!("look up PersistentVolumeClaim {namespace}/{claim}");
            let found = within(&step, claims.get_opt(claim)).await?;
            if found.and_then(|c| c.status?.phase).is_some_and(|phase| phase == "Pending") {
                let told = self.events_of(namespace, "PersistentVolumeClaim", claim).await?;
                words.extend(told.into_iter().map(|w| Words { message: format!("claim {claim}: {}", w.message), ..w }));
            }
        }
        Ok(words)
    }

    async fn events_of(&self, namespace: &str, kind: &str, name: &str) -> Result<Vec<Words>, Error> {
        let api: Api<CoreEvent> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().fields(&format!("involvedObject.kind={kind},involvedObject.name={name}"));
        let found = within(&format!("list the events of {kind} {namespace}/{name}"), api.list(&params)).await?;
        let mut events = found.items;
        events.sort_by_key(|event| std::cmp::Reverse(last_seen(event)));
        Ok(events
            .into_iter()
            .map(|e| Words { reason: e.reason.unwrap_or_default(), message: e.message.unwrap_or_default() })
            .collect())
    }

    /// Why the API server would refuse the Jobs of a policy, by asking for Jobs that are never made. None: it takes them; an error: it could not
    /// be found out.
    pub(super) async fn refusal(&self, jobs: &[(String, Job)]) -> Result<Option<Failure>, Error> {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        for (source, job) in jobs {
            let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
            let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
            let step = format!("ask about the Job of source {source} in namespace {namespace}");
            match within(&step, api.create(&params, job)).await {
                Ok(_) | Err(Error::NamespaceTerminating { .. }) => {}
                Err(Error::Api { step, source: error }) => match &*error {
                    kube::Error::Api(status) => match trial::refusal(source, status.code, &status.message) {
                        Some(failure) => return Ok(Some(failure)),
                        None if is_refusal(status.code) => {}
                        None => return Err(Error::Api { step, source: error }),
                    },
                    _ => return Err(Error::Api { step, source: error }),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether nothing can be created in the namespace any more, found out by asking for a Job that is never made.
    pub(super) async fn is_terminating(&self, namespace: &str) -> Result<bool, Error> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let step = format!("see whether namespace {namespace} is going away");
        match within(&step, api.create(&params, &job::never_run(namespace))).await {
            Err(Error::NamespaceTerminating { .. }) => Ok(true),
            Err(error @ Error::NoAnswer { .. }) => Err(error),
            // Whatever else it says, it does not say that.
            _ => Ok(false),
        }
    }

    /// The Pods of a Job.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub(super) async fn pods_of(&self, job: &ObservedJob) -> Result<Vec<ObservedPod>, Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &job.namespace);
        let params = ListParams::default().labels(&format!("batch.kubernetes.io/controller-uid={}", job.uid));
        let found = within(&format!("list the Pods of Job {}/{}", job.namespace, job.name), api.list(&params)).await?;
        Ok(found.items.iter().map(ObservedPod::from).collect())
    }
}

fn last_seen(event: &CoreEvent) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    let last = event.last_timestamp.as_ref().map(|t| t.0);
    series.max(last).max(event.event_time.as_ref().map(|t| t.0))
}

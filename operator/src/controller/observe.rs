//! What is known around an object. Reads only: the cache, and the API server where the cache may lag and the answer decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_crds::{
    Backup, BackupPhase, BackupPolicy, BackupStore, Reason, RestoreRequest, ScaleTarget, WorkloadKind,
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event as CoreEvent, Namespace, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};

use super::apply::{Error, is_not_found, within};
use super::cache::{World, in_namespace, of_owner, of_policy, of_store};
use super::line;
use crate::plan::backup::{Holds, ObservedBackup};
use crate::plan::found::{is_found, is_unread};
use crate::plan::job::{self, ENFORCE_LABEL, Ground};
use crate::plan::names::{FINALIZER, SCALE_FINALIZER, SCHEDULED_LABEL, label_value};
use crate::plan::observed::{Attempt, ObservedJob, ObservedPod, Words};
use crate::plan::policy::ObservedPolicy;
use crate::plan::restore::{ObservedRestore, ObservedWorkload, as_saved, choose, is_safety};
use crate::plan::status::after;
use crate::plan::store::ObservedStore;
use crate::plan::verdict::LATE_SECONDS;
use crate::plan::verify;

/// Reads the cluster.
#[derive(Clone)]
pub struct Observer {
    client: Client,
    world: Arc<World>,
    limit: Option<usize>,
}

impl Observer {
    /// An observer. `limit`: how many runs there may be at a time; none: any number.
    pub fn new(client: Client, world: Arc<World>, limit: Option<usize>) -> Self {
        Self { client, world, limit }
    }

    /// What is known around a store.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub async fn store(&self, store: &BackupStore, now: Timestamp) -> Result<ObservedStore, Error> {
        let namespace = store.namespace().unwrap_or_default();
        let probes = self.attempts(&namespace, store.metadata.uid.as_deref(), &[], now).await?;
        let since = store.status.as_ref().and_then(|s| s.last_probe_time.as_ref()).map(|t| t.0);
        let policies = self.world.policies.of(&of_store(&namespace, &store.name_any()));
        let suspected = policies.iter().filter_map(|policy| {
            let failed = policy.status.as_ref()?.last_backup.as_ref().filter(|b| b.phase == BackupPhase::Failed)?;
            let backup = self.world.backups.get(&namespace, &failed.name)?;
            let status = backup.status.as_ref()?;
            let blamed = status
                .artifacts
                .iter()
                .any(|a| matches!(a.reason, Some(Reason::StoreUnreachable | Reason::StoreRefused | Reason::ClockSkew)));
            status.completion_time.as_ref().map(|t| t.0).filter(|t| blamed && since.is_some_and(|s| *t > s))
        });
        Ok(ObservedStore { probes, suspected: suspected.max() })
    }

    /// What is known around a Backup.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub async fn backup(&self, backup: &Backup, now: Timestamp) -> Result<ObservedBackup, Error> {
        let namespace = backup.namespace().unwrap_or_default();
        let status = backup.status.clone().unwrap_or_default();
        let mut policy = self.world.policies.get(&namespace, &backup.spec.policy_ref.name);
        let pending = status.phase == BackupPhase::Pending;
        let turn = if pending { line::turn_of(&self.world, backup, self.limit) } else { None };
        // Nothing is asked of the API server for one that waits: there may be hundreds of them.
        let starts = pending && turn.is_none();
        let by_hand = !backup.labels().contains_key(SCHEDULED_LABEL) && !is_found(backup);
        if starts && by_hand {
            // Whoever edits a policy and then asks for a backup means the policy as edited: the watch of policies may lag behind.
            policy = self.policy_now(&namespace, &backup.spec.policy_ref.name).await?;
        }
        if is_safety(backup) {
            policy = policy.map(|policy| Arc::new(as_saved(&policy)));
        }
        let store = status.store.clone().or_else(|| policy.as_ref().map(|p| p.spec.store_ref.name.clone()));
        let store = store.and_then(|name| self.world.stores.get(&namespace, &name));
        // Jobs that must be there: were one believed gone because the cache lags, a good run would fail.
        let needed: Vec<String> = if status.phase == BackupPhase::Running {
            let open = status.artifacts.iter().filter(|a| !a.phase.is_terminal());
            open.map(|a| job::backup_name(backup, &a.source)).collect()
        } else {
            Vec::new()
        };
        let ground = match policy.as_deref().filter(|_| starts) {
            Some(policy) => self.ground(&namespace, &crate::plan::backup::claims(backup, policy)).await?,
            None => Ground::default(),
        };
        let jobs = self.attempts(&namespace, backup.metadata.uid.as_deref(), &needed, now).await?;
        let mut observed = ObservedBackup { policy, store, jobs, turn, ground, ..ObservedBackup::default() };
        let deleting = backup.metadata.deletion_timestamp.is_some();
        if deleting && backup.finalizers().iter().any(|f| f == FINALIZER) {
            observed.namespace_terminating = self.is_terminating(&namespace).await?;
        }
        let retention = observed.policy.as_ref().is_some_and(|p| p.spec.retention.is_some());
        let retained = observed.jobs.iter().any(|a| a.job.name == job::retain_name(backup));
        let fresh = status
            .completion_time
            .as_ref()
            .is_some_and(|t| now < after(t.0, crate::plan::backup::COMPLETED_JOB_SECONDS));
        if !deleting && status.phase == BackupPhase::Completed && ((retention && fresh) || retained) {
            let policy = &backup.spec.policy_ref.name;
            observed.siblings = self.restore_points(&namespace, policy);
            observed.holds = self.holds(&namespace, policy);
            observed.retaining = self.is_retaining(&namespace, backup, &observed.siblings);
        }
        if status.phase == BackupPhase::Running {
            observed.siblings = self.restore_points(&namespace, &backup.spec.policy_ref.name);
        }
        Ok(observed)
    }

    /// What is known around a RestoreRequest.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub async fn restore(&self, request: &RestoreRequest, now: Timestamp) -> Result<ObservedRestore, Error> {
        let namespace = request.namespace().unwrap_or_default();
        let status = request.status.clone().unwrap_or_default();
        let mut observed = ObservedRestore::default();
        // One execution, ever: whether there is a Job is asked of the API server, not of the cache.
        if status.phase != BackupPhase::Pending {
            let uid = request.metadata.uid.as_deref().unwrap_or_default();
            let name = job::restore_name(request);
            let cached =
                self.world.jobs.get(&namespace, &name).filter(|j| j.owner.as_ref().is_some_and(|o| o.uid == uid));
            let job = match cached {
                Some(job) => Some((*job).clone()),
                None if status.phase.is_terminal() => None,
                None => self.job_now(&namespace, &name, uid).await?,
            };
            if let Some(job) = job {
                observed.job = Some(self.attempt(job, now).await?);
            }
        }
        let deleting = request.metadata.deletion_timestamp.is_some();
        let pending: Vec<ScaleTarget> = if deleting || status.phase.is_terminal() {
            observed.pods_left = status.job_uid.as_deref().is_some_and(|uid| self.has_pods(uid));
            let stopped = status.scaled_down.iter().filter(|w| w.outcome.is_none());
            stopped.map(|w| ScaleTarget { kind: w.kind, name: w.name.clone() }).collect()
        } else if status.job_uid.is_none() {
            request.spec.scale_down.clone()
        } else {
            Vec::new()
        };
        for target in &pending {
            observed.workloads.extend(self.workload(&namespace, target, !deleting).await?);
        }
        if deleting && request.finalizers().iter().any(|f| f == SCALE_FINALIZER) {
            observed.namespace_terminating = self.is_terminating(&namespace).await?;
        }
        if deleting || status.phase.is_terminal() || status.job_uid.is_some() {
            return Ok(observed);
        }
        observed.held = self.held_workload(&namespace, request);
        let from = &request.spec.from;
        observed.backups = match (&from.backup, &from.policy) {
            (Some(name), _) => self.world.backups.get(&namespace, name).into_iter().collect(),
            (_, Some(policy)) => self.world.backups.of(&of_policy(&namespace, &policy.name)),
            _ => Vec::new(),
        };
        if let Some(policy) = &from.policy {
            observed.policy = self.world.policies.get(&namespace, &policy.name);
        }
        if let Ok(choice) = choose(request, &observed.backups) {
            observed.policy = self.world.policies.get(&namespace, &choice.policy);
            observed.store = self.world.stores.get(&namespace, &choice.store);
        }
        let safety = status.safety_backup.as_ref();
        observed.safety = safety.and_then(|name| self.world.backups.get(&namespace, name));
        let claims = crate::plan::restore::claims(request, observed.policy.as_deref());
        observed.ground = self.ground(&namespace, &claims).await?;
        Ok(observed)
    }

    /// A workload with its replicas and its Pods; none where it is not there.
    async fn workload(
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

    /// Whether a Pod of this Job has not ended, also where the Job is gone.
    fn has_pods(&self, job_uid: &str) -> bool {
        self.world.pods.of(&of_owner(job_uid)).iter().any(|pod| pod.ended.is_none())
    }

    /// A workload of this request that another one has stopped and not brought back: its number of replicas is not its own.
    fn held_workload(&self, namespace: &str, request: &RestoreRequest) -> Option<String> {
        let others = self.world.restores.of(&in_namespace(namespace));
        let others = others.iter().filter(|other| other.metadata.uid != request.metadata.uid);
        others
            .flat_map(|other| {
                other
                    .status
                    .iter()
                    .flat_map(|s| &s.scaled_down)
                    .map(|w| (other.name_any(), w.clone()))
                    .collect::<Vec<_>>()
            })
            .find(|(_, w)| {
                w.outcome.is_none() && request.spec.scale_down.iter().any(|t| (t.kind, &t.name) == (w.kind, &w.name))
            })
            .map(|(other, w)| format!("{} {} is scaled down by RestoreRequest {other}", w.kind, w.name))
    }

    /// What is known around a policy.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub async fn policy(&self, policy: &BackupPolicy, now: Timestamp) -> Result<ObservedPolicy, Error> {
        let namespace = policy.namespace().unwrap_or_default();
        let backups = self.restore_points(&namespace, &policy.name_any());
        let names: BTreeSet<String> =
            backups.iter().filter_map(|b| b.status.as_ref().and_then(|s| s.store.clone())).collect();
        let stores: BTreeMap<String, Arc<BackupStore>> = names
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.world.stores.get(&namespace, &name)?)))
            .collect();
        let store = self.world.stores.get(&namespace, &policy.spec.store_ref.name);
        let catalogues = self.attempts(&namespace, policy.metadata.uid.as_deref(), &[], now).await?;
        let asks = catalogues.is_empty() && is_unread(policy, store.as_deref());
        let catalogue_waits = asks
            && (line::catalogue_waits(&self.world, policy, self.limit)
                || !self.is_unread_now(policy, store.as_deref()).await?);
        let mut observed = ObservedPolicy {
            catalogue_waits,
            backups,
            retains: self.retains(policy, now).await?,
            catalogues,
            verifications: self.jobs_of(&namespace, &policy.name_any(), verify::VERIFY),
            store,
            stores,
            crowded: None,
        };
        observed.crowded =
            verify::wants_room(policy, &observed, now).and_then(|store| line::crowded(&self.world, store, self.limit));
        Ok(observed)
    }

    /// The Backups of a policy, but for those that were made before a restore: the policy's figures and its retention do not know them.
    fn restore_points(&self, namespace: &str, policy: &str) -> Vec<Arc<Backup>> {
        let mut backups = self.world.backups.of(&of_policy(namespace, policy));
        backups.retain(|backup| !is_safety(backup));
        backups
    }

    /// The retain Jobs of a policy.
    ///
    /// # Errors
    /// Where the API server does not answer.
    async fn retains(&self, policy: &BackupPolicy, now: Timestamp) -> Result<Vec<Attempt>, Error> {
        let namespace = policy.namespace().unwrap_or_default();
        let name = policy.name_any();
        let mut attempts = Vec::new();
        for job in self.jobs_of(&namespace, &name, "retain") {
            attempts.push(self.attempt(job, now).await?);
        }
        Ok(attempts)
    }

    /// The Jobs of a policy's Backups that do this.
    fn jobs_of(&self, namespace: &str, policy: &str, task: &str) -> Vec<ObservedJob> {
        let jobs = self.world.jobs.of(&of_policy(namespace, &label_value(policy)));
        let is_its_own = |job: &&Arc<ObservedJob>| {
            let owner = job.owner.as_ref().and_then(|o| self.world.backups.get(namespace, &o.name));
            job.task == task && owner.is_some_and(|b| b.spec.policy_ref.name == policy)
        };
        jobs.iter().filter(is_its_own).map(|job| (**job).clone()).collect()
    }

    /// What is known around claims, as the API server has it at this moment: nothing of it is watched, and it is looked up only for a Job
    /// that mounts claims and is about to be made.
    async fn ground(&self, namespace: &str, names: &BTreeSet<String>) -> Result<Ground, Error> {
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
    async fn policy_now(&self, namespace: &str, name: &str) -> Result<Option<Arc<BackupPolicy>>, Error> {
        let api: Api<BackupPolicy> = Api::namespaced(self.client.clone(), namespace);
        let found = within(&format!("look up BackupPolicy {namespace}/{name}"), api.get_opt(name)).await?;
        Ok(found.map(Arc::new))
    }

    /// Whether the API server, too, has it that a policy's bucket is still to be read: the watch of policies may lag behind that of Jobs,
    /// where the one that read it is gone already.
    async fn is_unread_now(&self, policy: &BackupPolicy, store: Option<&BackupStore>) -> Result<bool, Error> {
        let now = self.policy_now(&policy.namespace().unwrap_or_default(), &policy.name_any()).await?;
        Ok(now.is_some_and(|now| now.metadata.uid == policy.metadata.uid && is_unread(&now, store)))
    }

    /// A Job by name, as the API server has it at this moment, if it belongs to the owner.
    ///
    /// # Errors
    /// Where the API server does not answer.
    async fn job_now(&self, namespace: &str, name: &str, owner_uid: &str) -> Result<Option<ObservedJob>, Error> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let found = within(&format!("look up Job {namespace}/{name}"), api.get_opt(name)).await?;
        let job = found.as_ref().map(ObservedJob::from);
        Ok(job.filter(|j| j.owner.as_ref().is_some_and(|o| o.uid == owner_uid)))
    }

    /// A Job with everything known of it.
    ///
    /// # Errors
    /// Where the API server does not answer.
    async fn attempt(&self, job: ObservedJob, now: Timestamp) -> Result<Attempt, Error> {
        let mut pods: Vec<ObservedPod> =
            self.world.pods.of(&of_owner(&job.uid)).iter().map(|p| (**p).clone()).collect();
        // The Job has ended but its Pod's last words are not here: the watch of Pods may lag behind that of Jobs.
        if job.end.is_some() && !pods.iter().any(|p| p.ended.is_some()) {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &job.namespace);
            let params = ListParams::default().labels(&format!("batch.kubernetes.io/controller-uid={}", job.uid));
            let found =
                within(&format!("list the Pods of Job {}/{}", job.namespace, job.name), api.list(&params)).await?;
            pods = found.items.iter().map(ObservedPod::from).collect();
        }
        let mut attempt = Attempt { job, pods, events: Vec::new() };
        if attempt.waits_since().is_some_and(|since| now >= after(since, LATE_SECONDS)) {
            attempt.events = self.words_about(&attempt).await?;
        }
        Ok(attempt)
    }

    async fn attempts(
        &self,
        namespace: &str,
        owner: Option<&str>,
        needed: &[String],
        now: Timestamp,
    ) -> Result<Vec<Attempt>, Error> {
        let Some(owner) = owner else { return Ok(Vec::new()) };
        let mut jobs: Vec<ObservedJob> = self.world.jobs.of(&of_owner(owner)).iter().map(|j| (**j).clone()).collect();
        for name in needed {
            if !jobs.iter().any(|j| j.name == *name) {
                jobs.extend(self.job_now(namespace, name, owner).await?);
            }
        }
        let mut attempts = Vec::with_capacity(jobs.len());
        for job in jobs {
            attempts.push(self.attempt(job, now).await?);
        }
        Ok(attempts)
    }

    /// What kubelet, scheduler or Job controller tell, and then what those tell that make volumes, each newest first.
    async fn words_about(&self, attempt: &Attempt) -> Result<Vec<Words>, Error> {
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

    /// Whether nothing can be created in the namespace any more, found out by asking for a Job that is never made.
    async fn is_terminating(&self, namespace: &str) -> Result<bool, Error> {
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

    /// Runs of a policy that restores and verifications which are not over read from.
    fn holds(&self, namespace: &str, policy: &str) -> Holds {
        let mut holds = Holds::default();
        for restore in self.world.restores.of(&in_namespace(namespace)) {
            if restore.status.as_ref().is_some_and(|s| s.phase.is_terminal()) {
                continue;
            }
            match self.run_of(namespace, policy, &restore) {
                Held::Run(run_id) => holds.run_ids.push(run_id),
                Held::Unknown => holds.unknown = true,
                Held::Nothing => {}
            }
        }
        // What a verification reads would look damaged if it went meanwhile.
        for job in self.jobs_of(namespace, policy, verify::VERIFY).iter().filter(|job| job.end.is_none()) {
            let backup = job.owner.as_ref().and_then(|o| self.world.backups.get(namespace, &o.name));
            holds.run_ids.extend(backup.and_then(|b| b.status.as_ref().and_then(|s| s.run_id.clone())));
        }
        holds
    }

    fn run_of(&self, namespace: &str, policy: &str, restore: &RestoreRequest) -> Held {
        let from = &restore.spec.from;
        let concerns = match (&from.backup, &from.policy, &from.store) {
            (Some(name), _, _) => {
                self.world.backups.get(namespace, name).is_some_and(|b| b.spec.policy_ref.name == policy)
            }
            (_, Some(from), _) => from.name == policy,
            (_, _, Some(from)) => from.policy == policy,
            _ => false,
        };
        if !concerns {
            return Held::Nothing;
        }
        let written = restore.status.as_ref().and_then(|s| s.run_id.clone());
        let named = from.store.as_ref().and_then(|s| s.run_id.clone());
        let backup = from.backup.as_ref().and_then(|name| self.world.backups.get(namespace, name));
        let saved = backup.and_then(|b| b.status.as_ref().and_then(|s| s.run_id.clone()));
        written.or(named).or(saved).map_or(Held::Unknown, Held::Run)
    }

    /// Whether another retain Job of the policy is under way, or what it deleted is not recorded yet.
    fn is_retaining(&self, namespace: &str, backup: &Backup, siblings: &[Arc<Backup>]) -> bool {
        let policy = label_value(&backup.spec.policy_ref.name);
        self.world.jobs.of(&of_policy(namespace, &policy)).iter().filter(|job| job.task == "retain").any(|job| {
            let owner = job.owner.as_ref().map(|o| o.uid.as_str()).unwrap_or_default();
            if Some(owner) == backup.metadata.uid.as_deref() {
                return false;
            }
            if job.end.is_none() {
                return true;
            }
            let deleted =
                self.world.pods.of(&of_owner(&job.uid)).iter().flat_map(|p| deleted_by(p)).collect::<Vec<_>>();
            siblings.iter().any(|s| {
                s.status.as_ref().and_then(|s| s.run_id.as_ref()).is_some_and(|run_id| deleted.contains(run_id))
            })
        })
    }
}

enum Held {
    Run(String),
    Unknown,
    Nothing,
}

fn deleted_by(pod: &ObservedPod) -> Vec<String> {
    use crate::task::{Outcome, Report};
    let report = pod.ended.as_ref().and_then(|end| Report::from_termination_message(&end.message));
    match report.and_then(|r| r.outcome) {
        Some(Outcome::Retain(retained)) => retained.deleted,
        _ => Vec::new(),
    }
}

fn last_seen(event: &CoreEvent) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    let last = event.last_timestamp.as_ref().map(|t| t.0);
    series.max(last).max(event.event_time.as_ref().map(|t| t.0))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::Router;
    use axum::routing::get;
    use holdfast_crds::{BackupPolicyStatus, CatalogueStatus};
    use kube::{Config, Resource};

    use super::*;
    use crate::plan::fixture::{policy, ready_store};
    use crate::plan::found::place_of;

    /// An API server that has this one policy.
    async fn api_server(policy: &BackupPolicy) -> Client {
        let path = BackupPolicy::url_path(&(), policy.namespace().as_deref());
        let answer = serde_json::to_string(policy).unwrap();
        let router = Router::new().route(&format!("{path}/{}", policy.name_any()), get(async move || answer));
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Client::try_from(Config::new(url.parse().unwrap())).unwrap()
    }

    #[tokio::test]
    async fn a_bucket_is_not_read_again_because_the_watch_of_policies_lags_behind_that_of_jobs() {
        let (unread, store) = (policy(), ready_store());
        let mut read = unread.clone();
        let catalogue = CatalogueStatus { place: place_of(&store), ..CatalogueStatus::default() };
        read.status = Some(BackupPolicyStatus { catalogue: Some(catalogue), ..BackupPolicyStatus::default() });
        for (api_server_has, waits) in [(&unread, false), (&read, true)] {
            let world = Arc::new(World::default());
            world.stores.put(store.clone());
            world.policies.put(unread.clone());
            let reader = Observer::new(api_server(api_server_has).await, world, None);
            let observed = reader.policy(&unread, Timestamp::now()).await.unwrap();
            assert_eq!(observed.catalogue_waits, waits);
        }
    }
}

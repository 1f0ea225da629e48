//! Keeps the cache up to date and says what is to be looked at. Talks to the Kubernetes API: lists and watches, one stream a kind.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use holdfast_crds::{Backup, BackupPhase, BackupPolicy, BackupStore, Reason, RestoreRequest};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::watcher::{self, Event as Seen};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::cache::{Cached, Key, Kind, World, in_namespace, of_policy, of_store, with_uid};
use super::line;
use super::queue::{Queue, Request, Subject};
use crate::plan::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::plan::observed::{ObservedJob, ObservedPod};

/// Small pages keep the peak of a first listing low.
const PAGE: u32 = 200;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object that cannot be read as its kind.
#[derive(Debug)]
pub struct Unreadable {
    /// The object.
    pub object: ObjectReference,
    /// Why not.
    pub error: String,
}

/// What the watches feed.
#[derive(Clone)]
pub struct Sinks {
    /// The cache.
    pub world: Arc<World>,
    /// What is to be looked at.
    pub queue: Arc<Queue>,
    /// How many runs there may be at a time; none: any number.
    pub limit: Option<usize>,
    /// Objects that cannot be read.
    pub unreadable: mpsc::UnboundedSender<Unreadable>,
    /// The name of each watch that has listed everything.
    pub listed: mpsc::UnboundedSender<String>,
}

/// Watches all kinds in these namespaces (none: in all), for ever. Returns how many watches there are.
pub fn spawn(client: &Client, namespaces: &[String], sinks: &Sinks) -> usize {
    let scopes: Vec<Option<String>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() };
    for scope in &scopes {
        let start = Start { client, scope: scope.as_deref(), sinks };
        start.kind::<BackupStore, _>(None, |w| &w.stores, slim::<BackupStore>, store_changed);
        start.kind::<BackupPolicy, _>(None, |w| &w.policies, slim::<BackupPolicy>, policy_changed);
        start.kind::<Backup, _>(None, |w| &w.backups, slim::<Backup>, backup_changed);
        start.kind::<RestoreRequest, _>(None, |w| &w.restores, slim::<RestoreRequest>, restore_changed);
        let ours = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
        start.kind::<Job, _>(Some(&ours), |w| &w.jobs, |job| ObservedJob::from(&job), job_changed);
        start.kind::<Pod, _>(Some(&ours), |w| &w.pods, |pod| ObservedPod::from(&pod), pod_changed);
    }
    scopes.len() * 6
}

struct Start<'a> {
    client: &'a Client,
    scope: Option<&'a str>,
    sinks: &'a Sinks,
}

impl Start<'_> {
    fn kind<K, V>(
        &self,
        labels: Option<&str>,
        of: fn(&World) -> &Kind<V>,
        read: fn(K) -> V,
        changed: fn(&Sinks, &V) -> Vec<Request>,
    ) where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
        V: Cached,
    {
        let api: Api<DeserializeGuard<K>> = match self.scope {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut config = watcher::Config::default().page_size(PAGE);
        config.label_selector = labels.map(str::to_owned);
        let scope = self.scope.map(str::to_owned);
        tokio::spawn(follow(api, config, scope, self.sinks.clone(), of, read, changed));
    }
}

async fn follow<K, V>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    scope: Option<String>,
    sinks: Sinks,
    of: fn(&World) -> &Kind<V>,
    read: fn(K) -> V,
    changed: fn(&Sinks, &V) -> Vec<Request>,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    V: Cached,
{
    let mut stream = watch(api, config).default_backoff().boxed();
    let mut seen = HashSet::new();
    let wake = |object: &V| changed(&sinks, object).into_iter().for_each(|request| sinks.queue.now(request));
    let take_in = |object: DeserializeGuard<K>| match object.0 {
        Ok(object) => wake(&of(&sinks.world).put(read(object))),
        Err(invalid) => {
            let key = Key::new(
                invalid.metadata.namespace.clone().unwrap_or_default(),
                invalid.metadata.name.clone().unwrap_or_default(),
            );
            of(&sinks.world).remove(&key);
            let object = ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: invalid.metadata.name,
                namespace: invalid.metadata.namespace,
                uid: invalid.metadata.uid,
                ..ObjectReference::default()
            };
            // The receiver lives as long as the program.
            let _ = sinks.unreadable.send(Unreadable { object, error: invalid.error });
        }
    };
    while let Some(event) = stream.next().await {
        match event {
            Ok(Seen::Init) => seen.clear(),
            Ok(Seen::InitApply(object)) => {
                seen.insert(Key::new(object.namespace().unwrap_or_default(), object.name_any()));
                take_in(object);
            }
            Ok(Seen::InitDone) => {
                for gone in of(&sinks.world).keep(scope.as_deref(), &seen) {
                    wake(&gone);
                }
                seen = HashSet::new();
                let _ = sinks.listed.send(format!("{} in {scope:?}", K::kind(&())));
            }
            Ok(Seen::Apply(object)) => take_in(object),
            Ok(Seen::Delete(object)) => {
                let key = Key::new(object.namespace().unwrap_or_default(), object.name_any());
                if let Some(gone) = of(&sinks.world).remove(&key) {
                    wake(&gone);
                }
            }
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "a watch was interrupted"),
        }
    }
}

/// Leaves out what nobody reads.
pub fn slim<K: ResourceExt>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = &mut object.meta_mut().annotations {
        annotations.remove(LAST_APPLIED);
    }
    object
}

fn request(subject: Subject, key: Key) -> Request {
    Request { subject, key }
}

fn store_changed(Sinks { world, .. }: &Sinks, store: &BackupStore) -> Vec<Request> {
    let key = store.key();
    let policies = world.policies.of(&of_store(&key.namespace, &key.name));
    let mut requests: Vec<Request> = policies.iter().flat_map(|policy| around_policy(world, policy)).collect();
    requests.extend(waiting_restores(world, &key.namespace));
    requests.push(request(Subject::Store, key));
    requests
}

fn policy_changed(Sinks { world, .. }: &Sinks, policy: &BackupPolicy) -> Vec<Request> {
    around_policy(world, policy)
}

fn around_policy(world: &World, policy: &BackupPolicy) -> Vec<Request> {
    let key = policy.key();
    let backups = world.backups.of(&of_policy(&key.namespace, &key.name));
    let mut requests: Vec<Request> =
        backups.iter().filter(|b| !phase(b).is_terminal()).map(|b| request(Subject::Backup, b.key())).collect();
    requests.extend(waiting_restores(world, &key.namespace));
    requests.push(request(Subject::Policy, key));
    requests
}

fn backup_changed(Sinks { world, limit, .. }: &Sinks, backup: &Backup) -> Vec<Request> {
    let key = backup.key();
    let mut requests = vec![request(Subject::Backup, key.clone())];
    requests.push(request(Subject::Policy, Key::new(&key.namespace, &backup.spec.policy_ref.name)));
    requests.extend(waiting_restores(world, &key.namespace));
    if phase(backup).is_terminal() || backup.metadata.deletion_timestamp.is_some() {
        // There may be room for the next one.
        requests.extend(line::next(world, *limit).into_iter().map(|key| request(Subject::Backup, key)));
    }
    let artifacts = backup.status.as_ref().map(|s| s.artifacts.as_slice()).unwrap_or_default();
    if artifacts.iter().any(|a| matches!(a.reason, Some(Reason::StoreUnreachable | Reason::StoreRefused)))
        && let Some(store) = backup.status.as_ref().and_then(|s| s.store.clone())
    {
        requests.push(request(Subject::Store, Key::new(key.namespace, store)));
    }
    requests
}

fn restore_changed(_: &Sinks, restore: &RestoreRequest) -> Vec<Request> {
    vec![request(Subject::Restore, restore.key())]
}

fn job_changed(_: &Sinks, job: &ObservedJob) -> Vec<Request> {
    owner_of(job)
}

fn owner_of(job: &ObservedJob) -> Vec<Request> {
    let Some(owner) = &job.owner else { return Vec::new() };
    let subject = match owner.kind.as_str() {
        "Backup" => Subject::Backup,
        "BackupPolicy" => Subject::Policy,
        "BackupStore" => Subject::Store,
        "RestoreRequest" => Subject::Restore,
        _ => return Vec::new(),
    };
    let mut requests = vec![request(subject, Key::new(&job.namespace, &owner.name))];
    // What became of a retain Job is told on the policy; its name is a label, and where that is too long the resync finds it.
    if job.task == "retain" {
        requests.push(request(Subject::Policy, Key::new(&job.namespace, &job.policy)));
    }
    requests
}

fn pod_changed(Sinks { world, .. }: &Sinks, pod: &ObservedPod) -> Vec<Request> {
    world.jobs.of(&with_uid(&pod.job_uid)).iter().flat_map(|job| owner_of(job)).collect()
}

/// Restores that have no Job yet may be waiting for anything in their namespace.
fn waiting_restores(world: &World, namespace: &str) -> Vec<Request> {
    let restores = world.restores.of(&in_namespace(namespace));
    let waiting =
        restores.iter().filter(|r| r.status.as_ref().is_none_or(|s| !s.phase.is_terminal() && s.job_uid.is_none()));
    waiting.map(|r| request(Subject::Restore, r.key())).collect()
}

fn phase(backup: &Backup) -> BackupPhase {
    backup.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

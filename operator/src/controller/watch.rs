//! Keeps the cache up to date and says what is to be looked at. Talks to the Kubernetes API: lists and watches, one stream a kind.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use holdfast_crds::{Backup, BackupPhase, BackupPolicy, BackupStore, RestoreRequest};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::watcher::{self, Event as Seen};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::cache::{Cached, Key, Kind, World, in_namespace, is_under_way, of_policy, of_store, with_uid};
use super::line;
use super::metrics::Counters;
use super::observe::suspicion;
use super::queue::{Queue, Request, Subject};
use super::repeats::Repeats;
use super::scopes::Heard;
use crate::plan::location::is_due;
use crate::plan::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::plan::observed::{ObservedJob, ObservedPod};
use crate::plan::refused::refused;
use crate::plan::suspicion::{may_blame, may_blame_in_passing};
use crate::plan::verify::VERIFY;

/// Small pages keep the peak of a first listing low.
const PAGE: u32 = 200;

/// Everything is listed anew this long after a watch could not begin where the last one ended.
const AFTER_GONE: Duration = Duration::from_secs(1);

/// A watch that could not begin and has told nothing since for so long has begun: it is tried again every half minute at the most.
const QUIET: Duration = Duration::from_secs(90);
/// A list that has had no answer for so long holds up nobody any more.
const UNANSWERED: Duration = Duration::from_mins(1);

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
    /// What each watch tells of itself: that it has listed everything, or that it cannot.
    pub heard: mpsc::UnboundedSender<Heard>,
    /// Which watches are lost, for whoever asks.
    pub counters: Arc<Counters>,
}

/// The kinds that are watched.
pub const KINDS: [&str; 6] = ["BackupStore", "BackupPolicy", "Backup", "RestoreRequest", "Job", "Pod"];

/// Watches all kinds in these namespaces (none: all), for ever.
pub fn spawn(client: &Client, scopes: &[Option<String>], sinks: &Sinks) {
    for scope in scopes {
        let start = Start { client, scope: scope.as_deref(), sinks };
        start.kind(
            None,
            Watched { of: |w| &w.stores, read: slim::<BackupStore>, changed: store_changed, frees: |_, _| false },
        );
        start.kind(
            None,
            Watched { of: |w| &w.policies, read: slim::<BackupPolicy>, changed: policy_changed, frees: |_, _| false },
        );
        start.kind(
            None,
            Watched {
                of: |w| &w.backups,
                read: slim_backup,
                changed: backup_changed,
                frees: |before, now| frees(before, now, backup_has_a_place),
            },
        );
        start.kind(
            None,
            Watched {
                of: |w| &w.restores,
                read: slim::<RestoreRequest>,
                changed: restore_changed,
                frees: |before, now| frees(before, now, is_under_way),
            },
        );
        let ours = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
        start.kind(
            Some(&ours),
            Watched {
                of: |w| &w.jobs,
                read: |job: Job| ObservedJob::from(&job),
                changed: job_changed,
                frees: |before, now| frees(before, now, is_reading),
            },
        );
        start.kind(
            Some(&ours),
            Watched {
                of: |w| &w.pods,
                read: |pod: Pod| ObservedPod::from(&pod),
                changed: pod_changed,
                frees: |_, _| false,
            },
        );
    }
}

/// How a kind is watched.
struct Watched<K, V> {
    /// Where it is cached.
    of: fn(&World) -> &Kind<V>,
    /// What is cached of it.
    read: fn(K) -> V,
    /// What is to be looked at when one has changed.
    changed: fn(&Sinks, &V) -> Vec<Request>,
    /// Whether there is room for what waits for its turn, by how it was and how it is; none where it is gone.
    frees: fn(&V, Option<&V>) -> bool,
}

struct Start<'a> {
    client: &'a Client,
    scope: Option<&'a str>,
    sinks: &'a Sinks,
}

impl Start<'_> {
    fn kind<K, V>(&self, labels: Option<&str>, watched: Watched<K, V>)
    where
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
        tokio::spawn(follow(api, config, scope, self.sinks.clone(), watched));
    }
}

async fn follow<K, V>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    scope: Option<String>,
    sinks: Sinks,
    Watched { of, read, changed, frees }: Watched<K, V>,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    V: Cached,
{
    let begin = || watch(api.clone(), config.clone()).default_backoff().boxed();
    let mut stream = begin();
    let mut seen = HashSet::new();
    let mut voice = Voice::new(K::kind(&()).as_ref(), scope.as_deref(), &sinks);
    let wake = |object: &V, freed: bool| {
        let next = if freed { line::next(&sinks.world, sinks.limit) } else { Vec::new() };
        changed(&sinks, object).into_iter().chain(next).for_each(|request| sinks.queue.now(request));
    };
    let take_in = |object: DeserializeGuard<K>| match object.0 {
        Ok(object) => {
            let (now, before) = of(&sinks.world).put(read(object));
            wake(&now, before.is_some_and(|before| frees(&before, Some(&now))));
        }
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
    loop {
        // A watch that begins again where it was says nothing until something changes.
        let event = if voice.is_failing() {
            let Ok(event) = tokio::time::timeout(QUIET, stream.next()).await else {
                voice.recovered();
                continue;
            };
            event
        } else {
            stream.next().await
        };
        let Some(event) = event else { return };
        match event {
            Ok(Seen::Init) => seen.clear(),
            Ok(Seen::InitApply(object)) => {
                seen.insert(Key::new(object.namespace().unwrap_or_default(), object.name_any()));
                take_in(object);
            }
            Ok(Seen::InitDone) => {
                for gone in of(&sinks.world).keep(scope.as_deref(), &seen) {
                    wake(&gone, frees(&gone, None));
                }
                seen = HashSet::new();
                voice.listed();
            }
            Ok(Seen::Apply(object)) => {
                voice.recovered();
                take_in(object);
            }
            Ok(Seen::Delete(object)) => {
                voice.recovered();
                let key = Key::new(object.namespace().unwrap_or_default(), object.name_any());
                if let Some(gone) = of(&sinks.world).remove(&key) {
                    wake(&gone, frees(&gone, None));
                }
            }
            Err(error) => {
                voice.failed(&error);
                if is_gone(&error) {
                    // It would be begun at the same version for ever.
                    tokio::time::sleep(AFTER_GONE).await;
                    stream = begin();
                }
            }
        }
    }
}

/// What a watch tells of itself: in the log, in a metric, and to whoever waits for everything to be listed.
struct Voice<'a> {
    kind: String,
    scope: Option<&'a str>,
    sinks: &'a Sinks,
    has_listed: bool,
    failing_since: Option<Instant>,
    repeats: Repeats<()>,
}

impl<'a> Voice<'a> {
    fn new(kind: &str, scope: Option<&'a str>, sinks: &'a Sinks) -> Self {
        sinks.counters.watching(kind, scope, false);
        Self {
            kind: kind.to_owned(),
            scope,
            sinks,
            has_listed: false,
            failing_since: None,
            repeats: Repeats::default(),
        }
    }

    fn is_failing(&self) -> bool {
        self.failing_since.is_some() && self.has_listed
    }

    fn listed(&mut self) {
        self.has_listed = true;
        self.recovered();
        self.tell(true);
    }

    fn recovered(&mut self) {
        if self.has_listed {
            self.failing_since = None;
            self.repeats.over(&());
            self.sinks.counters.watching(&self.kind, self.scope, true);
        }
    }

    fn failed(&mut self, error: &watcher::Error) {
        let (kind, namespace) = (&self.kind, self.scope.unwrap_or("all"));
        if let Some(times) = self.repeats.times((), error.to_string()) {
            tracing::warn!(kind, namespace, %error, times, "a watch was interrupted, and is begun again");
        }
        let now = Instant::now();
        // A stream that breaks off is begun again, and a version that is too old is listed anew: only who may not begin is lost.
        let cannot_begin = matches!(error, watcher::Error::InitialListFailed(_) | watcher::Error::WatchStartFailed(_))
            && !is_gone(error);
        if !cannot_begin {
            return;
        }
        let since = *self.failing_since.get_or_insert(now);
        self.sinks.counters.watching(&self.kind, self.scope, false);
        if is_refused(error) || now.duration_since(since) >= UNANSWERED {
            self.tell(false);
        }
    }

    fn tell(&self, listed: bool) {
        let heard = Heard { scope: self.scope.map(str::to_owned), kind: self.kind.clone(), listed };
        // The receiver lives as long as the program.
        let _ = self.sinks.heard.send(heard);
    }
}

/// Whether the API server has decided that this may not be listed, or that there is no such thing.
fn is_refused(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(source) | watcher::Error::WatchStartFailed(source)) = error else {
        return false;
    };
    matches!(source, kube::Error::Api(status) if matches!(status.code, 403 | 404))
}

/// Whether a watch was refused because the version it should begin at is too old.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// Leaves out what nobody reads.
pub fn slim<K: ResourceExt>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = &mut object.meta_mut().annotations {
        annotations.remove(LAST_APPLIED);
    }
    object
}

/// The same of Backups, of which there are many: a list that was read from JSON has room for four.
fn slim_backup(backup: Backup) -> Backup {
    let mut backup = slim(backup);
    if let Some(status) = &mut backup.status {
        status.artifacts.shrink_to_fit();
        status.conditions.shrink_to_fit();
    }
    backup
}

fn request(subject: Subject, key: Key) -> Request {
    Request { subject, key }
}

fn store_changed(Sinks { world, .. }: &Sinks, store: &BackupStore) -> Vec<Request> {
    let key = store.key();
    let policies = world.policies.of(&of_store(&key.namespace, &key.name));
    let mut requests: Vec<Request> = policies.iter().flat_map(|policy| around_policy(world, policy)).collect();
    let backups = policies.iter().flat_map(|p| world.backups.of(&of_policy(&key.namespace, &p.name_any())));
    let moved =
        backups.filter(|b| b.status.as_ref().is_some_and(|s| s.store.as_ref() == Some(&key.name)) && is_due(b, store));
    requests.extend(moved.map(|b| request(Subject::Backup, b.key())));
    requests.extend(waiting_restores(world, &key.namespace));
    requests.push(request(Subject::Store, key));
    requests
}

fn policy_changed(Sinks { world, .. }: &Sinks, policy: &BackupPolicy) -> Vec<Request> {
    let mut requests = around_policy(world, policy);
    requests.extend(waiting_restores(world, &policy.key().namespace));
    requests
}

/// A policy and those of its Backups that are not over.
fn around_policy(world: &World, policy: &BackupPolicy) -> Vec<Request> {
    let key = policy.key();
    let backups = world.backups.of(&of_policy(&key.namespace, &key.name));
    let mut requests: Vec<Request> =
        backups.iter().filter(|b| !phase(b).is_terminal()).map(|b| request(Subject::Backup, b.key())).collect();
    requests.push(request(Subject::Policy, key));
    requests
}

fn backup_changed(Sinks { world, .. }: &Sinks, backup: &Backup) -> Vec<Request> {
    let key = backup.key();
    let mut requests = vec![request(Subject::Backup, key.clone())];
    requests.push(request(Subject::Policy, Key::new(&key.namespace, &backup.spec.policy_ref.name)));
    requests.extend(waiting_restores(world, &key.namespace));
    if may_blame(backup)
        && let Some(store) = backup.status.as_ref().and_then(|s| s.store.clone())
    {
        requests.push(request(Subject::Store, Key::new(key.namespace, store)));
    }
    requests
}

fn restore_changed(Sinks { world, .. }: &Sinks, restore: &RestoreRequest) -> Vec<Request> {
    let key = restore.key();
    let from = &restore.spec.from;
    // Before it chooses its policy's bucket is read.
    let waits = restore.status.as_ref().is_none_or(|s| s.phase == BackupPhase::Pending);
    let backup = from.backup.as_ref().and_then(|name| world.backups.get(&key.namespace, name));
    let policy = from.policy.as_ref().map(|p| p.name.clone()).or(backup.map(|b| b.spec.policy_ref.name.clone()));
    let policy = policy.filter(|_| waits).map(|name| request(Subject::Policy, Key::new(&key.namespace, name)));
    let failed = restore.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Failed);
    let store = if failed { suspicion::store_read_by(world, restore) } else { None };
    let store = store.map(|name| request(Subject::Store, Key::new(&key.namespace, name)));
    policy.into_iter().chain(store).chain([request(Subject::Restore, key)]).collect()
}

fn job_changed(Sinks { world, .. }: &Sinks, job: &ObservedJob) -> Vec<Request> {
    let mut requests = owner_of(job);
    // What deletes runs is waited for.
    if matches!(job.task.as_str(), "retain" | "delete") && job.end.is_some() {
        requests.extend(waiting_restores(world, &job.namespace));
    }
    if may_blame_in_passing(job)
        && let Some(store) = suspicion::store_of_job(world, job)
    {
        requests.push(request(Subject::Store, Key::new(&job.namespace, store)));
    }
    requests
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
    // What became of these Jobs is told on the policy; its name is a label, and where that is too long the resync finds it.
    if job.task == "retain" || job.task == VERIFY {
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

/// Whether there is room now: it had a place, and has none any more.
fn frees<V>(before: &V, now: Option<&V>, has_a_place: fn(&V) -> bool) -> bool {
    has_a_place(before) && !now.is_some_and(has_a_place)
}

fn backup_has_a_place(backup: &Backup) -> bool {
    let is_refused = || backup.status.as_ref().is_some_and(|s| refused(s).is_some());
    !phase(backup).is_terminal() && backup.metadata.deletion_timestamp.is_none() && !is_refused()
}

fn is_reading(job: &ObservedJob) -> bool {
    job.task == "catalogue" && job.end.is_none()
}

fn phase(backup: &Backup) -> BackupPhase {
    backup.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use holdfast_crds::{ArtifactStatus, BackupStatus, Reason};
    use serde_json::json;

    use super::*;
    use crate::plan::fixture::{at, backup, backup_with, completed, failed, job, policy};
    use crate::plan::observed::Owner;

    #[test]
    fn only_what_gave_up_its_place_makes_the_next_ones_be_looked_at() {
        let of = |phase| backup_with("b", 1, BackupStatus { phase, ..BackupStatus::default() });
        let running = of(BackupPhase::Running);
        let done = of(BackupPhase::Completed);
        let mut deleted = running.clone();
        deleted.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(9)));
        let table = [
            (&running, Some(&done), true),
            (&running, Some(&deleted), true),
            (&running, None, true),
            (&running, Some(&running), false),
            (&done, Some(&done), false),
            (&done, None, false),
            (&deleted, Some(&done), false),
        ];
        for (before, now, expected) in table {
            assert_eq!(frees(before, now, backup_has_a_place), expected, "{before:?} {now:?}");
        }
        assert!(frees(&backup("b", 1), None, backup_has_a_place), "one that waits leaves its place to others, too");
        let reading = || ObservedJob { task: "catalogue".into(), ..job("j") };
        assert!(frees(&reading(), Some(&completed(reading())), is_reading));
        assert!(!frees(&job("j"), Some(&completed(job("j"))), is_reading));
    }

    #[test]
    fn what_failed_on_its_store_has_the_store_looked_at() {
        let (unreadable, _unreadable) = mpsc::unbounded_channel();
        let (heard, _lists) = mpsc::unbounded_channel();
        let sinks = Sinks {
            world: Arc::default(),
            queue: Arc::default(),
            limit: None,
            unreadable,
            heard,
            counters: Arc::default(),
        };
        let of_store = |requests: Vec<Request>| {
            let stores = requests.into_iter().filter(|r| r.subject == Subject::Store);
            stores.map(|r| r.key.name).collect::<Vec<_>>()
        };
        let artifact = |reason| ArtifactStatus { source: "db".into(), reason, ..ArtifactStatus::default() };
        let run = |phase, reason| BackupStatus {
            phase,
            store: Some("main".into()),
            artifacts: vec![artifact(reason)],
            ..BackupStatus::default()
        };
        let failed_run = backup_with("b", 1, run(BackupPhase::Failed, Some(Reason::StoreRefused)));
        let good_run = backup_with("g", 1, run(BackupPhase::Completed, None));
        sinks.world.backups.put(failed_run.clone());
        sinks.world.backups.put(good_run.clone());
        sinks.world.policies.put(policy());
        assert_eq!(of_store(backup_changed(&sinks, &failed_run)), ["main"]);
        assert!(of_store(backup_changed(&sinks, &good_run)).is_empty());

        let restore = |from: serde_json::Value, phase: &str| -> RestoreRequest {
            serde_json::from_value(json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "RestoreRequest",
                "metadata": {"name": "r", "namespace": "shop"}, "spec": {"from": from}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        let from_store = json!({"store": {"name": "old", "policy": "shop"}});
        for (from, phase, stores) in [
            (from_store.clone(), "Failed", vec!["old"]),
            (from_store, "Completed", vec![]),
            (json!({"backup": "g"}), "Failed", vec!["main"]),
            (json!({"backup": "of nobody"}), "Failed", vec![]),
        ] {
            assert_eq!(of_store(restore_changed(&sinks, &restore(from, phase))), stores);
        }

        let of_task = |task: &str, kind: &str, owner: &str| ObservedJob {
            task: task.into(),
            owner: Some(Owner { kind: kind.into(), name: owner.into(), uid: String::new() }),
            ..failed(job("j"))
        };
        for (job, stores) in [
            (of_task("retain", "Backup", "g"), vec!["main"]),
            (of_task("delete", "Backup", "g"), vec!["main"]),
            (of_task("catalogue", "BackupPolicy", "shop"), vec!["main"]),
            (of_task("delete", "Backup", "of nobody"), vec![]),
            (ObservedJob { end: None, ..of_task("retain", "Backup", "g") }, vec![]),
            (completed(of_task("retain", "Backup", "g")), vec![]),
        ] {
            assert_eq!(of_store(job_changed(&sinks, &job)), stores, "{job:?}");
        }
    }

    /// A client of an API server that answers like this, with a code and a body. `answer` is told whether a watch is asked for.
    async fn client_of<A>(answer: impl Fn(bool) -> A + Clone + Send + Sync + 'static) -> Client
    where
        A: Future<Output = (u16, serde_json::Value)> + Send + 'static,
    {
        rustls::crypto::ring::default_provider().install_default().ok();
        let answer = move |uri: axum::http::Uri| {
            let answer = answer(uri.query().unwrap_or_default().contains("watch=true"));
            async move {
                let (code, body) = answer.await;
                let head = [(axum::http::header::CONTENT_TYPE, "application/json")];
                (axum::http::StatusCode::from_u16(code).unwrap(), head, body.to_string())
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    fn refusal(code: u16, reason: &str, message: &str) -> (u16, serde_json::Value) {
        (code, json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": message}))
    }

    fn list(version: usize, items: &[Backup]) -> (u16, serde_json::Value) {
        let version = json!({"resourceVersion": version.to_string()});
        let kind = "BackupList";
        (200, json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": kind, "metadata": version, "items": items}))
    }

    /// An API server whose first list is empty, and that lets no watch begin.
    async fn without_watches() -> Client {
        let lists = Arc::new(AtomicUsize::new(0));
        client_of(move |is_watch| {
            let lists = lists.clone();
            async move {
                if is_watch {
                    return refusal(410, "Expired", "too old");
                }
                let number = lists.fetch_add(1, Ordering::SeqCst);
                let items: Vec<Backup> = (0..number).map(|n| backup(&format!("b{n}"), 1)).collect();
                list(number, &items)
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_watch_that_may_not_begin_where_the_last_one_ended_lists_everything_anew() {
        let client = without_watches().await;
        let world = Arc::new(World::default());
        let (unreadable, _unreadable) = mpsc::unbounded_channel();
        let (heard, mut lists) = mpsc::unbounded_channel();
        let sinks = Sinks {
            world: world.clone(),
            queue: Arc::default(),
            limit: None,
            unreadable,
            heard,
            counters: Arc::default(),
        };
        let start = Start { client: &client, scope: Some("shop"), sinks: &sinks };
        let watched = Watched { of: |w| &w.backups, read: slim_backup, changed: backup_changed, frees: |_, _| false };
        start.kind(None, watched);
        for _ in 0..2 {
            tokio::time::timeout(Duration::from_secs(30), lists.recv()).await.unwrap();
        }
        assert!(world.backups.get("shop", "b0").is_some());
    }

    /// An API server that lets Backups be listed from the third time on.
    async fn without_rights_at_first() -> Client {
        let lists = Arc::new(AtomicUsize::new(0));
        client_of(move |is_watch| {
            let lists = lists.clone();
            async move {
                if is_watch {
                    return std::future::pending().await;
                }
                if lists.fetch_add(1, Ordering::SeqCst) < 2 {
                    return refusal(403, "Forbidden", "no rights");
                }
                list(1, &[backup("b", 1)])
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_namespace_that_may_not_be_listed_is_told_and_begins_once_it_may() {
        let client = without_rights_at_first().await;
        let world = Arc::new(World::default());
        let counters = Arc::new(Counters::default());
        let (unreadable, _unreadable) = mpsc::unbounded_channel();
        let (heard, mut told) = mpsc::unbounded_channel();
        let sinks = Sinks {
            world: world.clone(),
            queue: Arc::default(),
            limit: None,
            unreadable,
            heard,
            counters: counters.clone(),
        };
        let start = Start { client: &client, scope: Some("shop"), sinks: &sinks };
        let watched = Watched { of: |w| &w.backups, read: slim_backup, changed: backup_changed, frees: |_, _| false };
        start.kind(None, watched);
        let figure = |value: u8| {
            let text = super::super::metrics::render(None, &counters).unwrap();
            text.contains(&format!("holdfast_watch_up{{namespace=\"shop\",kind=\"Backup\"}} {value}\n"))
        };
        let mut next = async || tokio::time::timeout(Duration::from_secs(30), told.recv()).await.unwrap().unwrap();
        let lost = Heard { scope: Some("shop".into()), kind: "Backup".into(), listed: false };
        assert_eq!(next().await, lost);
        assert!(figure(0));
        while next().await == lost {}
        assert!(figure(1));
        assert!(world.backups.get("shop", "b").is_some());
    }
}

//! What is known around an object. Reads only: the cache, and the API server where the cache may lag and the answer decides.

mod known;
mod server;
pub(super) mod suspicion;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_crds::{Backup, BackupPhase, BackupPolicy, BackupStore, RestoreRequest, ScaleTarget};
use jiff::Timestamp;
use kube::{Client, ResourceExt};

use super::apply::Error;
use super::cache::{World, of_owner, of_policy, of_store};
use super::line;
use crate::plan::backup::{ObservedBackup, is_scheduled};
use crate::plan::found::{is_found, is_unread, wants_room};
use crate::plan::job::{self, Ground, Install};
use crate::plan::names::{FINALIZER, SCALE_FINALIZER};
use crate::plan::observed::{Attempt, ObservedJob, ObservedPod};
use crate::plan::policy::ObservedPolicy;
use crate::plan::refused::{PolicyRefusals, refused};
use crate::plan::restore::{ObservedRestore, as_saved, choose, is_safety, may_be_half_done, wants_a_look};
use crate::plan::status::after;
use crate::plan::store::{ObservedStore, newest_run};
use crate::plan::trial::{self, Answer, Question};
use crate::plan::verdict::LATE_SECONDS;
use crate::plan::verify;
use crate::task::Failure;
use server::Server;

/// So long at most the API server is asked whether it would take the Jobs of a policy, however many there are and whoever it asks in turn.
const TRIAL: Duration = Duration::from_secs(5);

/// Reads the cluster.
#[derive(Clone)]
pub struct Observer {
    server: Server,
    world: Arc<World>,
    install: Install,
    limit: Option<usize>,
    /// What the API server said of the Jobs of each policy, by its UID: it is asked once for each version of the specs.
    trials: Arc<Mutex<HashMap<String, Answer>>>,
}

impl Observer {
    /// An observer. `limit`: how many runs there may be at a time; none: any number.
    pub fn new(client: Client, world: Arc<World>, install: Install, limit: Option<usize>) -> Self {
        Self { server: Server::new(client), world, install, limit, trials: Arc::default() }
    }

    /// What is known around a store.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub async fn store(&self, store: &BackupStore, now: Timestamp) -> Result<ObservedStore, Error> {
        let namespace = store.namespace().unwrap_or_default();
        let probes = self.attempts(&namespace, store.metadata.uid.as_deref(), &[], now).await?;
        let suspected = self.suspected(store, now).await?;
        let policies = self.world.policies.of(&of_store(&namespace, &store.name_any()));
        let newest = policies.iter().filter_map(|policy| {
            let name = policy.name_any();
            newest_run(&name, &self.world.backups.of(&of_policy(&namespace, &name)), store)
        });
        Ok(ObservedStore { suspected, newest: newest.collect(), probes })
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
        let by_hand = !is_scheduled(backup) && !is_found(backup);
        if starts && by_hand {
            // Whoever edits a policy and then asks for a backup means the policy as edited: the watch of policies may lag behind.
            policy = self.server.policy(&namespace, &backup.spec.policy_ref.name).await?;
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
            Some(policy) => self.server.ground(&namespace, &crate::plan::backup::claims(backup, policy)).await?,
            None => Ground::default(),
        };
        let jobs = self.attempts(&namespace, backup.metadata.uid.as_deref(), &needed, now).await?;
        let mut observed = ObservedBackup { policy, store, jobs, turn, ground, ..ObservedBackup::default() };
        let deleting = backup.metadata.deletion_timestamp.is_some();
        if deleting && backup.finalizers().iter().any(|f| f == FINALIZER) {
            observed.namespace_terminating = self.server.is_terminating(&namespace).await?;
            observed.holds = known::holds(&self.world, &namespace, &backup.spec.policy_ref.name);
        }
        let retention = observed.policy.as_ref().is_some_and(|p| p.spec.retention.is_some());
        let retained = observed.jobs.iter().any(|a| a.job.name == job::retain_name(backup));
        let fresh = status
            .completion_time
            .as_ref()
            .is_some_and(|t| now < after(t.0, crate::plan::backup::COMPLETED_JOB_SECONDS));
        if !deleting && status.phase == BackupPhase::Completed && ((retention && fresh) || retained) {
            let policy = &backup.spec.policy_ref.name;
            observed.siblings = known::restore_points(&self.world, &namespace, policy);
            observed.holds = known::holds(&self.world, &namespace, policy);
            observed.retention_waits = observed
                .policy
                .as_deref()
                .is_some_and(|policy| known::retention_waits(&self.world, policy, backup, &observed.siblings));
        }
        if status.phase == BackupPhase::Running || refused(&status).is_some() {
            observed.siblings = known::restore_points(&self.world, &namespace, &backup.spec.policy_ref.name);
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
                None => self.server.job(&namespace, &name, uid).await?,
            };
            if let Some(job) = job {
                observed.job = Some(self.attempt(job, now).await?);
            }
        }
        if may_be_half_done(request, &status) {
            let uid = request.metadata.uid.as_deref().unwrap_or_default();
            if let Some(job) = self.server.job(&namespace, &job::settle_name(request), uid).await? {
                observed.settle = Some(self.attempt(job, now).await?);
            } else {
                let restore = self.server.whole_job(&namespace, &job::restore_name(request), uid).await?;
                observed.cut_off = restore.map(Box::new);
            }
        }
        let deleting = request.metadata.deletion_timestamp.is_some();
        let pending: Vec<ScaleTarget> = if deleting || status.phase.is_terminal() {
            observed.pods_left = status.job_uid.as_deref().is_some_and(|uid| known::has_pods(&self.world, uid));
            let stopped = status.scaled_down.iter().filter(|w| w.outcome.is_none());
            stopped.map(|w| ScaleTarget { kind: w.kind, name: w.name.clone() }).collect()
        } else if status.job_uid.is_none() {
            request.spec.scale_down.clone()
        } else {
            Vec::new()
        };
        for target in &pending {
            observed.workloads.extend(self.server.workload(&namespace, target, !deleting).await?);
        }
        if deleting && request.finalizers().iter().any(|f| f == SCALE_FINALIZER) {
            observed.namespace_terminating = self.server.is_terminating(&namespace).await?;
        }
        let safety = status.safety_backup.as_ref().filter(|_| status.job_uid.is_none());
        observed.safety = safety.and_then(|name| self.world.backups.get(&namespace, name));
        if deleting || status.phase.is_terminal() || status.job_uid.is_some() {
            return Ok(observed);
        }
        observed.held = known::held_workload(&self.world, &namespace, request);
        let from = &request.spec.from;
        observed.backups = match (&from.backup, &from.policy) {
            (Some(name), _) => self.world.backups.get(&namespace, name).into_iter().collect(),
            (_, Some(policy)) => self.world.backups.of(&of_policy(&namespace, &policy.name)),
            _ => Vec::new(),
        };
        let named = observed.backups.first().filter(|b| from.backup.is_some() && wants_a_look(b)).cloned();
        if named.is_some()
            && let Some(name) = &from.backup
        {
            // What the last look found may be written on it already: the watch of Backups may lag behind that of policies.
            observed.backups = self.server.backup(&namespace, name).await?.into_iter().collect();
        }
        let policy = from.policy.as_ref().map(|p| &p.name).or(named.as_ref().map(|b| &b.spec.policy_ref.name));
        if let Some(policy) = policy.cloned() {
            observed.policy = self.world.policies.get(&namespace, &policy);
            let store = observed.policy.as_ref().map(|p| p.spec.store_ref.name.clone());
            observed.policy_store = store.and_then(|name| self.world.stores.get(&namespace, &name));
        }
        if let Ok(choice) = choose(request, &observed.backups) {
            observed.policy = self.world.policies.get(&namespace, &choice.policy);
            observed.store = self.world.stores.get(&namespace, &choice.store);
            // It has begun: the watch of Jobs may lag behind that of requests.
            let asked = if status.phase == BackupPhase::Running {
                self.server.clearing(&namespace, &choice.policy).await?
            } else {
                Vec::new()
            };
            observed.clearing = known::clearing(&self.world, &namespace, &choice.policy, asked);
        }
        let claims = crate::plan::restore::claims(request, observed.policy.as_deref());
        observed.ground = self.server.ground(&namespace, &claims).await?;
        Ok(observed)
    }

    /// What is known around a policy.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub async fn policy(&self, policy: &BackupPolicy, now: Timestamp) -> Result<ObservedPolicy, Error> {
        let namespace = policy.namespace().unwrap_or_default();
        let backups = known::restore_points(&self.world, &namespace, &policy.name_any());
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
            asking: known::asking(&self.world, &namespace, &policy.name_any()),
            catalogue_waits,
            backups,
            retains: self.retains(policy, now).await?,
            catalogues,
            verifications: known::jobs_of(&self.world, &namespace, &policy.name_any(), verify::VERIFY),
            trial: self.refusal(policy, store.as_deref(), now).await,
            store,
            stores,
            crowded: None,
            refused: PolicyRefusals::default(),
        };
        if wants_room(policy, &observed, now) {
            observed.catalogue_waits = line::catalogue_waits(&self.world, policy, self.limit);
        }
        observed.crowded =
            verify::wants_room(policy, &observed, now).and_then(|store| line::crowded(&self.world, store, self.limit));
        Ok(observed)
    }

    /// Why the API server would refuse the Jobs of a policy, if it would. What cannot be found out in time is left to a later look: a run finds
    /// it out as well.
    async fn refusal(&self, policy: &BackupPolicy, store: Option<&BackupStore>, now: Timestamp) -> Option<Failure> {
        let (store, uid) = (store?, policy.metadata.uid.clone()?);
        let question = Question::of(policy, store);
        let known = |trials: &HashMap<String, Answer>| trials.get(&uid).filter(|a| a.answers(&question, now)).cloned();
        if let Some(answer) = known(&self.trials.lock().unwrap_or_else(PoisonError::into_inner)) {
            return answer.refused;
        }
        let jobs = trial::jobs(&self.install, policy, store);
        let answer = match tokio::time::timeout(TRIAL, self.server.refusal(&jobs)).await {
            Ok(Ok(refused)) => question.answered(refused, now),
            Ok(Err(error)) => {
                tracing::debug!(policy = policy.name_any(), %error, "whether its Jobs would be refused cannot be found out now");
                question.unanswered(now)
            }
            Err(_) => {
                tracing::debug!(
                    policy = policy.name_any(),
                    "whether its Jobs would be refused takes too long to find out"
                );
                question.unanswered(now)
            }
        };
        let mut trials = self.trials.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of policies that are gone go with the first of another.
        if trials.len() > 2 * self.world.policies.total() + 16 {
            trials.clear();
        }
        let refused = answer.refused.clone();
        trials.insert(uid, answer);
        refused
    }

    /// The retain Jobs of a policy.
    ///
    /// # Errors
    /// Where the API server does not answer.
    async fn retains(&self, policy: &BackupPolicy, now: Timestamp) -> Result<Vec<Attempt>, Error> {
        let namespace = policy.namespace().unwrap_or_default();
        let name = policy.name_any();
        let mut attempts = Vec::new();
        for job in known::jobs_of(&self.world, &namespace, &name, "retain") {
            attempts.push(self.attempt(job, now).await?);
        }
        Ok(attempts)
    }

    /// Whether the API server, too, has it that a policy's bucket is still to be read: the watch of policies may lag behind that of Jobs,
    /// where the one that read it is gone already.
    async fn is_unread_now(&self, policy: &BackupPolicy, store: Option<&BackupStore>) -> Result<bool, Error> {
        let now = self.server.policy(&policy.namespace().unwrap_or_default(), &policy.name_any()).await?;
        Ok(now.is_some_and(|now| now.metadata.uid == policy.metadata.uid && is_unread(&now, store)))
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
            pods = self.server.pods_of(&job).await?;
        }
        let mut attempt = Attempt { job, pods, events: Vec::new() };
        if attempt.waits_since().is_some_and(|since| now >= after(since, LATE_SECONDS)) {
            attempt.events = self.server.words_about(&attempt).await?;
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
                jobs.extend(self.server.job(namespace, name, owner).await?);
            }
        }
        let mut attempts = Vec::with_capacity(jobs.len());
        for job in jobs {
            attempts.push(self.attempt(job, now).await?);
        }
        Ok(attempts)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::atomic::AtomicU16;
    use std::sync::atomic::Ordering::SeqCst;

    use axum::Router;
    use axum::http::{StatusCode, Uri};
    use axum::routing::{get, post};
    use holdfast_crds::{ArtifactStatus, BackupPolicyStatus, BackupStatus, CatalogueStatus, Reason};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::{Config, Resource};

    use super::*;
    use crate::plan::fixture::{at, backup_with, ended_pod, failed, install, job, policy, ready_store, source};
    use crate::plan::found::place_of;
    use crate::plan::observed::Owner;

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
            let reader = Observer::new(api_server(api_server_has).await, world, install(), None);
            let observed = reader.policy(&unread, Timestamp::now()).await.unwrap();
            assert_eq!(observed.catalogue_waits, waits);
        }
    }

    #[tokio::test]
    async fn the_api_server_is_asked_about_a_policys_jobs_once_for_each_change_and_its_words_are_told() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (taken, code) = (asked.clone(), Arc::new(AtomicU16::new(422)));
        let answers = code.clone();
        let router = Router::new().route(
            "/apis/batch/v1/namespaces/shop/jobs",
            post(async move |uri: Uri, body: String| {
                taken.lock().unwrap().push(uri.query().unwrap_or_default().to_owned());
                let code = answers.load(SeqCst);
                if code == 201 {
                    return (StatusCode::CREATED, body);
                }
                let status = serde_json::json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Told", "code": code,
                    "message": "spec.template.labels: Invalid value: \"a b\"",
                });
                (StatusCode::from_u16(code).unwrap(), status.to_string())
            }),
        );
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        // The client's own repetitions are not counted.
        let mut config = Config::new(url.parse().unwrap());
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let (mut policy, store) = (policy(), ready_store());
        let observer = Observer::new(client, Arc::new(World::default()), install(), None);
        let now = Timestamp::from_second(1000).unwrap();

        let failure = observer.refusal(&policy, Some(&store), now).await.unwrap();
        assert!(failure.message.contains("source db: spec.template.labels: Invalid value"), "{failure}");
        assert_eq!(observer.refusal(&policy, Some(&store), now).await, Some(failure));
        assert!(asked.lock().unwrap().iter().all(|query| query.contains("dryRun=All")));
        assert_eq!(asked.lock().unwrap().len(), 1, "once");

        // Put right; and then nobody is asked again, whatever time goes by.
        code.store(201, SeqCst);
        policy.metadata.generation = Some(2);
        for later in [1001, 2000, 90_000] {
            let now = Timestamp::from_second(later).unwrap();
            assert_eq!(observer.refusal(&policy, Some(&store), now).await, None);
        }
        assert_eq!(asked.lock().unwrap().len(), 2);

        // What says nothing of the Job is no answer for ever, and is not asked for at each look either.
        for (generation, no_answer) in [(3, 500), (4, 503), (5, 429), (6, 408), (7, 401)] {
            code.store(no_answer, SeqCst);
            policy.metadata.generation = Some(generation);
            let before = asked.lock().unwrap().len();
            for (later, times) in [(1000, 1), (1059, 1), (1060, 2)] {
                let now = Timestamp::from_second(later).unwrap();
                assert_eq!(observer.refusal(&policy, Some(&store), now).await, None);
                assert_eq!(asked.lock().unwrap().len() - before, times, "{no_answer} at {later}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_is_not_held_up_by_webhooks_that_take_long_to_say_whether_they_take_its_jobs() {
        let router = Router::new()
            .route("/apis/batch/v1/namespaces/shop/jobs", post(async || std::future::pending::<StatusCode>().await));
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        let observer = Observer::new(client, Arc::new(World::default()), install(), None);
        let mut policy = policy();
        policy.spec.sources = (0..32).map(|i| source(&format!("db-{i}"))).collect();
        let began = tokio::time::Instant::now();
        assert_eq!(observer.refusal(&policy, Some(&ready_store()), at(1000)).await, None);
        assert!(began.elapsed() <= TRIAL + Duration::from_secs(1), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_store_is_suspected_as_soon_as_a_failure_is_written_whatever_its_policy_says_by_then() {
        let world = Arc::new(World::default());
        let observer = Observer::new(api_server(&policy()).await, world.clone(), install(), None);
        let store = ready_store();
        world.stores.put(store.clone());
        // The policy's status, which comes later, does not know of the run.
        world.policies.put(policy());
        let suspected = async || observer.store(&store, at(900)).await.unwrap().suspected;
        assert_eq!(suspected().await, None);
        let failed_at = |second, store: &str| {
            let artifact =
                ArtifactStatus { source: "db".into(), reason: Some(Reason::StoreRefused), ..ArtifactStatus::default() };
            BackupStatus {
                phase: BackupPhase::Failed,
                store: Some(store.into()),
                completion_time: Some(Time(at(second))),
                artifacts: vec![artifact],
                ..BackupStatus::default()
            }
        };
        world.backups.put(backup_with("elsewhere", 1, failed_at(800, "other")));
        world.backups.put(backup_with("before-the-probe", 1, failed_at(-1, "main")));
        assert_eq!(suspected().await, None);
        world.backups.put(backup_with("b", 1, failed_at(60, "main")));
        assert_eq!(suspected().await, Some(at(60)));

        // A Job of a Backup that completed: what retention met is told by its Pod alone.
        let done = BackupStatus { phase: BackupPhase::Completed, ..failed_at(10, "main") };
        let done = backup_with("done", 1, BackupStatus { artifacts: vec![], ..done });
        let owner = Owner { kind: "Backup".into(), name: "done".into(), uid: "uid-of-done".into() };
        let retain = ObservedJob { task: "retain".into(), owner: Some(owner), ..failed(job("retain")) };
        let words = r#"{"reason":"StoreUnreachable","message":"no route"}"#;
        world.backups.put(done);
        world.pods.put(ObservedPod { job_uid: retain.uid.clone(), ..ended_pod("p", 15, words) });
        world.jobs.put(retain);
        assert_eq!(suspected().await, Some(at(500)));

        let request = serde_json::json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "RestoreRequest", "metadata": {"name": "r", "namespace": "shop"},
            "spec": {"from": {"backup": "done"}},
            "status": {"phase": "Failed", "job": "restore-r", "completionTime": at(700), "conditions": [
                {"type": "Complete", "status": "False", "reason": "StoreRefused", "message": "denied", "lastTransitionTime": at(700)},
            ]},
        });
        world.restores.put(serde_json::from_value(request).unwrap());
        assert_eq!(suspected().await, Some(at(700)));
    }
}

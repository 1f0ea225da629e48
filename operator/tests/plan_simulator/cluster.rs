//! The API server, and the watches that tell the controller of it: late, each kind at its own pace. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

use fastrand::Rng;
use holdfast::controller::cache::{Cached, Key, Kind, World};
use holdfast::plan::observed::{ObservedJob, ObservedPod};
use holdfast::task::Task;
use holdfast_crds::{Backup, BackupPolicy, BackupStore, RestoreRequest};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

use crate::oracle::Tally;
use crate::worker::Bucket;

pub const NAMESPACE: &str = "shop";

/// A Job with its Pods and what it is to do.
#[derive(Clone)]
pub struct Work {
    pub job: ObservedJob,
    pub task: Task,
    pub pods: Vec<ObservedPod>,
}

/// Objects of one kind, and what the watch has not told yet.
pub struct Objects<K> {
    pub live: BTreeMap<String, K>,
    untold: VecDeque<(Key, Option<K>)>,
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self { live: BTreeMap::new(), untold: VecDeque::new() }
    }
}

impl<K: Cached + Clone + Debug> Objects<K> {
    pub fn put(&mut self, name: &str, object: K) {
        self.untold.push_back((Key::new(NAMESPACE, name), Some(object.clone())));
        self.live.insert(name.to_owned(), object);
    }

    pub fn remove(&mut self, name: &str) {
        if self.live.remove(name).is_some() {
            self.untold.push_back((Key::new(NAMESPACE, name), None));
        }
    }

    fn hear(&mut self, kind: &Kind<K>, most: usize) {
        for (key, object) in self.untold.drain(..most.min(self.untold.len())) {
            match object {
                Some(object) => drop(kind.put(object)),
                None => drop(kind.remove(&key)),
            }
        }
    }
}

pub struct Cluster {
    pub now: Timestamp,
    pub rng: Rng,
    /// Whether the controller's writes and looks fail now and then.
    pub faulty: bool,
    /// Whether the store answers.
    pub store_is_up: bool,
    /// What the API server refuses: after so many Jobs of one look, all Jobs.
    pub refuses_jobs_after: Option<usize>,
    /// Whether the API server refuses Backups.
    pub refuses_backups: bool,
    pub stores: Objects<BackupStore>,
    pub policies: Objects<BackupPolicy>,
    pub backups: Objects<Backup>,
    pub restores: Objects<RestoreRequest>,
    pub jobs: Objects<ObservedJob>,
    pub pods: Objects<ObservedPod>,
    pub work: BTreeMap<String, Work>,
    /// What the controller has been told.
    pub world: World,
    pub bucket: Bucket,
    pub tally: Tally,
    /// How many runs more than there may be were under way when the faults ended.
    pub left_running: usize,
    /// Writes of the controller that took effect.
    pub writes: u64,
    versions: u64,
    /// Seconds since all watches had told everything.
    silence: i64,
}

impl Cluster {
    pub fn new(seed: u64) -> Self {
        Self {
            now: "2026-11-21T00:00:07Z".parse().unwrap(),
            rng: Rng::with_seed(seed),
            faulty: true,
            store_is_up: true,
            refuses_jobs_after: None,
            refuses_backups: false,
            stores: Objects::default(),
            policies: Objects::default(),
            backups: Objects::default(),
            restores: Objects::default(),
            jobs: Objects::default(),
            pods: Objects::default(),
            work: BTreeMap::new(),
            world: World::default(),
            bucket: Bucket::default(),
            tally: Tally::default(),
            left_running: 0,
            writes: 0,
            versions: 0,
            silence: 0,
        }
    }

    pub fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    /// Metadata as the API server fills it in.
    pub fn created(&mut self, meta: ObjectMeta) -> ObjectMeta {
        let version = self.next_version();
        ObjectMeta {
            namespace: Some(NAMESPACE.into()),
            uid: Some(format!("uid-{version}")),
            generation: Some(1),
            resource_version: Some(version),
            creation_timestamp: Some(Time(whole_seconds(self.now))),
            ..meta
        }
    }

    pub fn next_version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }

    pub fn create_job(&mut self, job: &Job) {
        let job = Job { metadata: self.created(job.metadata.clone()), ..job.clone() };
        let container = &job.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0];
        let variable =
            |name: &str| container.env.iter().flatten().find(|e| e.name == name).and_then(|e| e.value.clone());
        let task = Task::from_environment(variable).unwrap();
        let work = Work { job: ObservedJob::from(&job), task, pods: vec![] };
        self.tally.job_made(&work);
        self.put_work(work);
    }

    pub fn put_work(&mut self, work: Work) {
        let name = work.job.name.clone();
        self.jobs.put(&name, work.job.clone());
        for pod in &work.pods {
            if self.pods.live.get(&pod.name) != Some(pod) {
                self.pods.put(&pod.name.clone(), pod.clone());
            }
        }
        self.work.insert(name, work);
    }

    pub fn remove_job(&mut self, name: &str) {
        if let Some(work) = self.work.remove(name) {
            self.jobs.remove(name);
            for pod in work.pods {
                self.pods.remove(&pod.name);
            }
        }
    }

    /// What belongs to an object goes with it.
    pub fn collect_garbage(&mut self, owner_uid: &str) {
        let orphans: Vec<String> = self
            .work
            .values()
            .filter(|w| w.job.owner.as_ref().is_some_and(|o| o.uid == owner_uid))
            .map(|w| w.job.name.clone())
            .collect();
        for name in orphans {
            // The watch may not have told yet that its owner is gone: it is made once more and goes the same way.
            self.tally.forgive(&self.work[&name]);
            self.remove_job(&name);
        }
    }

    /// What was made for an object that had gone by then goes, too: the garbage collector looks for its owner and finds none.
    pub fn collect_orphans(&mut self) {
        let owners: Vec<String> = self.work.values().filter_map(|w| Some(w.job.owner.as_ref()?.uid.clone())).collect();
        let lives = |uid: &str| {
            let is_it = |meta: &ObjectMeta| meta.uid.as_deref() == Some(uid);
            self.stores.live.values().any(|o| is_it(&o.metadata))
                || self.policies.live.values().any(|o| is_it(&o.metadata))
                || self.backups.live.values().any(|o| is_it(&o.metadata))
                || self.restores.live.values().any(|o| is_it(&o.metadata))
        };
        let gone: Vec<String> = owners.into_iter().filter(|uid| !lives(uid)).collect();
        for uid in gone {
            self.collect_garbage(&uid);
        }
    }

    /// One of the watches tells a little.
    pub fn hear(&mut self) {
        let most = self.rng.usize(1..6);
        match self.rng.u8(..6) {
            0 => self.stores.hear(&self.world.stores, most),
            1 => self.policies.hear(&self.world.policies, most),
            2 => self.backups.hear(&self.world.backups, most),
            3 => self.restores.hear(&self.world.restores, most),
            4 => self.jobs.hear(&self.world.jobs, most),
            _ => self.pods.hear(&self.world.pods, most),
        }
    }

    pub fn hear_all(&mut self) {
        self.silence = 0;
        self.stores.hear(&self.world.stores, usize::MAX);
        self.policies.hear(&self.world.policies, usize::MAX);
        self.backups.hear(&self.world.backups, usize::MAX);
        self.restores.hear(&self.world.restores, usize::MAX);
        self.jobs.hear(&self.world.jobs, usize::MAX);
        self.pods.hear(&self.world.pods, usize::MAX);
    }

    pub fn pass_time(&mut self) {
        let seconds = match self.rng.u8(..10) {
            0..=5 => self.rng.i64(1..30),
            6..=8 => self.rng.i64(30..300),
            _ => self.rng.i64(300..20_000),
        };
        // A watch is opened anew every five minutes, whatever became of it.
        self.silence += seconds;
        if self.silence > 300 {
            self.hear_all();
        }
        self.now += SignedDuration::from_secs(seconds);
    }

    pub fn summary(&self) -> Vec<String> {
        let backups = self.backups.live.values().map(|b| {
            let status = b.status.clone().unwrap_or_default();
            format!("Backup {} {:?} {:?}", b.name_any(), status.phase, status.conditions)
        });
        let restores = self.restores.live.values().map(|r| format!("RestoreRequest {} {:?}", r.name_any(), r.status));
        let jobs = self.work.values().map(|w| format!("Job {:?} {:?}", w.job, w.pods));
        std::iter::once(self.now.to_string()).chain(backups).chain(restores).chain(jobs).collect()
    }
}

/// The API server keeps whole seconds.
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap()
}

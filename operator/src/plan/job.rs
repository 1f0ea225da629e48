//! Every Job that Holdfast runs, built from the objects it serves. Pure.
//!
//! Pods pass Pod Security `restricted`: no root, no privilege, nothing writable but a small scratch in memory, no API token. Secrets and
//! certificates are files that the kubelet mounts; the task names the folders, never what is in them.

mod levels;
mod metadata;
mod mount;
mod nodes;
mod seat;
mod template;

use std::path::PathBuf;

use holdfast_crds::{
    Backup, BackupPolicy, BackupStore, JobTemplate, RestoreRequest, RetentionSpec, RunAs, SecretKey, Source,
};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use super::names::{
    BACKUP_LABEL, POLICY_LABEL, RESTORE_LABEL, SAFETY_LABEL, SLOT_ANNOTATION, SOURCE_LABEL, STORE_LABEL, job_name,
    what_to,
};
use super::writer::writers;
use crate::task::{
    BackupTask, CatalogueTask, DeleteTask, KnownRun, PROBE_SECONDS, ProbeTask, RestoreTarget, RestoreTask, RetainTask,
    Scope, SettleTask, StorePatience, StoreTask, Task, VerifyTask, Writer,
};
pub use mount::{Credentials, Data, SourceMount, source_of};
pub use seat::{ENFORCE_LABEL, Enforced, Ground, Holder, ObservedClaim, Seat, Use, seat};
pub use template::never_run;
use template::{Purpose, build};

/// A Job outlives its Pod's start deadline and the worker's own by this many seconds, so that the worker ends first, and cleanly.
pub const DEADLINE_MARGIN_SECONDS: i64 = 30;

/// At most this many bytes of known runs travel in a task, the newest first: an environment variable holds 128 KiB.
const MAX_KNOWN_BYTES: usize = 64 * 1024;

/// At most this many runs are deleted by one retain Job: their names fit into a termination message.
pub const RETAIN_LIMIT: usize = 100;

const HOUSEKEEPING_SECONDS: i64 = 3600;
const STORE_CREDENTIALS: &str = "/holdfast/store/credentials";
const STORE_CA: &str = "/holdfast/store/ca";
const STORE_IDENTITY: &str = "/holdfast/store/identity";
const IDENTITY_FILE: &str = "identity";
const CA_FILE: &str = "ca.crt";

/// What all Jobs of an installation share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Install {
    /// UID of the cluster: that of its `kube-system` namespace.
    pub cluster_uid: String,
    /// The workers' image: the controller's own.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Names of Secrets, in the policies' namespaces, to pull the image with.
    pub image_pull_secrets: Vec<String>,
    /// The architectures that the image is built for, as nodes say theirs. Empty: any.
    pub architectures: Vec<String>,
    /// What all Jobs are like, where no store, policy or request says otherwise.
    pub template: JobTemplate,
    /// Whether the platform chooses user and group of every Pod where nobody says them, as OpenShift does.
    pub leave_ids_out: bool,
    /// The controller that leads, as it is told from others of the same cluster.
    pub writer: Option<Writer>,
}

/// The Job that proves a store. `what` tells one probe from the next; `newest` are the runs that should be there.
pub fn probe(install: &Install, store: &BackupStore, what: &str, newest: &[String]) -> Job {
    build(
        install,
        &Purpose {
            owner: owner(store),
            namespace: namespace(&store.metadata),
            what,
            labels: vec![(STORE_LABEL, name(&store.metadata))],
            task: Task::Probe(ProbeTask {
                store: StoreTask { patience: StorePatience::of_probe(), ..store_task(store) },
                namespace: namespace(&store.metadata),
                newest: newest.to_vec(),
            }),
            store,
            mounts: vec![],
            seat: None,
            templates: [None, None],
            retries: 0,
            timeout: PROBE_SECONDS,
        },
    )
}

/// What a run is, as all its Jobs know it.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its Backup.
    pub backup: &'a Backup,
    /// The policy it saves.
    pub policy: &'a BackupPolicy,
    /// The store it goes to.
    pub store: &'a BackupStore,
    /// Its folder in the bucket.
    pub run_id: &'a str,
    /// The instant it stands for.
    pub slot: Timestamp,
    /// When it is begun.
    pub begun: Timestamp,
    /// Names of all its sources.
    pub sources: &'a [String],
}

/// The name of the Job that saves a source.
pub fn backup_name(backup: &Backup, source: &str) -> String {
    job_name(&name(&backup.metadata), &uid(&backup.metadata), &format!("s-{source}"))
}

/// The Job that saves one source of a run.
pub fn backup(install: &Install, run: Run<'_>, source: &Source, ground: &Ground) -> Job {
    let mount = SourceMount::of(source);
    let user: Vec<RunAs> = source.volume.iter().filter_map(|v| v.run_as).collect();
    // A single source cannot want two users.
    let seat = seat(std::slice::from_ref(&mount), &user, Use::Read, ground).ok().flatten();
    let spec = &run.policy.spec;
    let task = BackupTask {
        store: store_task(run.store),
        scope: scope(install, run.policy),
        backup: name(&run.backup.metadata),
        run_id: run.run_id.to_owned(),
        slot: run.slot,
        once: run.backup.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(SLOT_ANNOTATION)),
        writer: install.writer.as_ref().map(|writer| Writer { id: writer.id.clone(), since: run.begun }),
        run_sources: run.sources.to_vec(),
        source: source.clone(),
        safety_for: run.backup.metadata.labels.as_ref().and_then(|labels| labels.get(SAFETY_LABEL).cloned()),
        mounts: mount.paths(),
        level: spec.compression.level,
        timeout_seconds: spec.timeout_seconds,
        idle_timeout_seconds: spec.idle_timeout_seconds,
    };
    build(
        install,
        &Purpose {
            owner: owner(run.backup),
            namespace: namespace(&run.backup.metadata),
            what: &format!("s-{}", source.name),
            labels: vec![
                (POLICY_LABEL, name(&run.policy.metadata)),
                (BACKUP_LABEL, name(&run.backup.metadata)),
                (SOURCE_LABEL, source.name.clone()),
            ],
            task: Task::Backup(Box::new(task)),
            store: run.store,
            mounts: vec![mount],
            seat,
            templates: [spec.job_template.as_ref(), None],
            retries: 2,
            timeout: spec.timeout_seconds,
        },
    )
}

/// The name of the Job that applies retention after a run.
pub fn retain_name(backup: &Backup) -> String {
    job_name(&name(&backup.metadata), &uid(&backup.metadata), "retain")
}

/// The Job that applies a policy's retention after a run of it completed.
pub fn retain(
    install: &Install,
    backup: &Backup,
    policy: &BackupPolicy,
    store: &BackupStore,
    retention: &RetentionSpec,
    runs: (Vec<KnownRun>, Vec<String>),
) -> Job {
    let (mut known, protected) = runs;
    known.sort_unstable_by(|a, b| b.run_id.cmp(&a.run_id));
    let mut bytes = 0;
    known.retain(|run| {
        bytes += run.run_id.len() + run.sources.iter().map(|s| s.len() + 3).sum::<usize>() + 32;
        bytes <= MAX_KNOWN_BYTES
    });
    let task = RetainTask {
        store: store_task(store),
        scope: scope(install, policy),
        retention: retention.clone(),
        time_zone: policy.spec.time_zone.clone(),
        known,
        protected,
        limit: RETAIN_LIMIT,
        writers: writers(install.writer.as_ref(), policy),
        grace_seconds: policy.spec.timeout_seconds.saturating_add(86_400),
    };
    build(
        install,
        &Purpose {
            owner: owner(backup),
            namespace: namespace(&backup.metadata),
            what: "retain",
            labels: vec![(POLICY_LABEL, name(&policy.metadata)), (BACKUP_LABEL, name(&backup.metadata))],
            task: Task::Retain(task),
            store,
            mounts: vec![],
            seat: None,
            templates: [policy.spec.job_template.as_ref(), None],
            retries: 2,
            timeout: HOUSEKEEPING_SECONDS,
        },
    )
}

/// The name of the Job that deletes a run's data.
pub fn delete_name(backup: &Backup) -> String {
    job_name(&name(&backup.metadata), &uid(&backup.metadata), "delete")
}

/// The Job that deletes the data of a run.
pub fn delete(
    install: &Install,
    backup: &Backup,
    policy: Option<&BackupPolicy>,
    store: &BackupStore,
    run_id: &str,
) -> Job {
    let task = DeleteTask {
        store: store_task(store),
        scope: Scope {
            cluster_uid: install.cluster_uid.clone(),
            namespace: namespace(&backup.metadata),
            policy: backup.spec.policy_ref.name.clone(),
            policy_uid: policy.map(|p| uid(&p.metadata)).unwrap_or_default(),
        },
        run_id: run_id.to_owned(),
    };
    build(
        install,
        &Purpose {
            owner: owner(backup),
            namespace: namespace(&backup.metadata),
            what: "delete",
            labels: vec![(POLICY_LABEL, backup.spec.policy_ref.name.clone()), (BACKUP_LABEL, name(&backup.metadata))],
            task: Task::Delete(task),
            store,
            mounts: vec![],
            seat: None,
            templates: [policy.and_then(|p| p.spec.job_template.as_ref()), None],
            retries: 2,
            timeout: HOUSEKEEPING_SECONDS,
        },
    )
}

/// The name of the Job that verifies a run, by what asked for it.
pub fn verify_name(backup: &Backup, asked: &str) -> String {
    job_name(&name(&backup.metadata), &uid(&backup.metadata), &what_to("verify", asked))
}

/// The Job that reads a run to its end. It is tried twice: what is found damaged is looked at once more.
pub fn verify(install: &Install, backup: &Backup, policy: &BackupPolicy, store: &BackupStore, asked: &str) -> Job {
    let status = backup.status.clone().unwrap_or_default();
    let spec = &policy.spec;
    let task = VerifyTask {
        store: store_task_with_identity(store),
        scope: scope(install, policy),
        run_id: status.run_id.unwrap_or_default(),
        sources: status.artifacts.into_iter().map(|a| a.source).collect(),
        timeout_seconds: spec.timeout_seconds,
        idle_timeout_seconds: spec.idle_timeout_seconds,
    };
    build(
        install,
        &Purpose {
            owner: owner(backup),
            namespace: namespace(&backup.metadata),
            what: &what_to("verify", asked),
            labels: vec![(POLICY_LABEL, name(&policy.metadata)), (BACKUP_LABEL, name(&backup.metadata))],
            task: Task::Verify(task),
            store,
            mounts: vec![],
            seat: None,
            templates: [spec.job_template.as_ref(), None],
            retries: 1,
            timeout: spec.timeout_seconds,
        },
    )
}

/// The name of a Job that reads what a policy has in a place, by what tells it from others.
pub fn catalogue_name(policy: &BackupPolicy, what: &str) -> String {
    job_name(&name(&policy.metadata), &uid(&policy.metadata), &what_to("catalogue", what))
}

/// What a Job that reads a bucket for a policy is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What tells it from other readings of the policy: its place, and which of several.
    pub what: String,
    /// Runs that need not be told.
    pub known: Vec<String>,
    /// Runs of which it is told whether they are there, `<runId>/<source>`.
    pub expected: Vec<String>,
    /// Whether runs that the policy itself made are told.
    pub own: bool,
}

/// The Job that reads what a policy has in a place of a store.
pub fn catalogue(install: &Install, policy: &BackupPolicy, store: &BackupStore, reading: Reading, limit: usize) -> Job {
    let Reading { what, mut known, mut expected, own } = reading;
    for list in [&mut known, &mut expected] {
        list.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = 0;
        list.retain(|run| {
            bytes += run.len() + 3;
            bytes <= MAX_KNOWN_BYTES / 2
        });
    }
    let task = CatalogueTask { store: store_task(store), scope: scope(install, policy), known, expected, own, limit };
    build(
        install,
        &Purpose {
            owner: owner(policy),
            namespace: namespace(&policy.metadata),
            what: &what_to("catalogue", &what),
            labels: vec![(POLICY_LABEL, name(&policy.metadata))],
            task: Task::Catalogue(task),
            store,
            mounts: vec![],
            seat: None,
            templates: [policy.spec.job_template.as_ref(), None],
            retries: 2,
            timeout: HOUSEKEEPING_SECONDS,
        },
    )
}

/// The name of the Job of a RestoreRequest: the only one it ever has.
pub fn restore_name(request: &RestoreRequest) -> String {
    job_name(&name(&request.metadata), &uid(&request.metadata), "restore")
}

/// The Job of a RestoreRequest. It is tried once: a second try would touch the target again.
pub fn restore(
    install: &Install,
    request: &RestoreRequest,
    store: &BackupStore,
    policy: Option<&BackupPolicy>,
    task: RestoreTask,
    mounts: Vec<SourceMount>,
    seat: Option<Seat>,
) -> Job {
    build(
        install,
        &Purpose {
            owner: owner(request),
            namespace: namespace(&request.metadata),
            what: "restore",
            labels: vec![(POLICY_LABEL, task.scope.policy.clone()), (RESTORE_LABEL, name(&request.metadata))],
            task: Task::Restore(Box::new(task)),
            store,
            mounts,
            seat,
            templates: [policy.and_then(|p| p.spec.job_template.as_ref()), request.spec.job_template.as_ref()],
            retries: 0,
            timeout: request.spec.timeout_seconds,
        },
    )
}

/// The name of the Job that undoes what a restore has left half done.
pub fn settle_name(request: &RestoreRequest) -> String {
    job_name(&name(&request.metadata), &uid(&request.metadata), "settle")
}

/// The Job that undoes what a restore has left half done in volumes: in the place of that one, as whom it ran, with what it mounted. None where it
/// wrote into none.
pub fn settle(install: &Install, request: &RestoreRequest, restore: &Job) -> Option<Job> {
    let task = Task::Settle(settle_task(restore)?);
    template::in_the_place_of(install, restore, settle_name(request), &task, 2, HOUSEKEEPING_SECONDS)
}

/// Whether there is such a Job to make.
pub fn settles(restore: &Job) -> bool {
    settle_task(restore).is_some()
}

fn settle_task(restore: &Job) -> Option<SettleTask> {
    let Some(Task::Restore(task)) = template::task_of(restore) else { return None };
    let RestoreTask { store, targets, sources, .. } = *task;
    let is_restored = |source: &String| sources.as_ref().is_none_or(|sources| sources.contains(source));
    let targets: Vec<RestoreTarget> = targets
        .into_iter()
        .filter(|target| target.server.claim_name().is_some() && is_restored(&target.source))
        .collect();
    (!targets.is_empty()).then_some(SettleTask { store, targets })
}

/// A store as a worker sees it.
pub fn store_task(store: &BackupStore) -> StoreTask {
    let s3 = &store.spec.s3;
    StoreTask {
        name: name(&store.metadata),
        s3: s3.clone(),
        read_only: store.spec.read_only,
        append_only: store.spec.append_only,
        credentials: s3.credentials_secret.as_ref().map(|_| PathBuf::from(STORE_CREDENTIALS)),
        ca: s3.ca_bundle.as_ref().map(|_| PathBuf::from(format!("{STORE_CA}/{CA_FILE}"))),
        recipients: store.spec.encryption.as_ref().map(|e| e.recipients.clone()).unwrap_or_default(),
        identity: None,
        identity_secret: None,
        patience: StorePatience::default(),
    }
}

/// A store as a restore and a verification see it: the only Jobs that have private keys.
pub fn store_task_with_identity(store: &BackupStore) -> StoreTask {
    StoreTask {
        patience: StorePatience::of_restore(),
        identity: identity_secret(store).map(|_| PathBuf::from(format!("{STORE_IDENTITY}/{IDENTITY_FILE}"))),
        identity_secret: identity_secret(store).map(|s| format!("Secret {} (key {})", s.name, s.key)),
        ..store_task(store)
    }
}

fn identity_secret(store: &BackupStore) -> Option<&SecretKey> {
    store.spec.encryption.as_ref()?.identity_secret.as_ref()
}

fn scope(install: &Install, policy: &BackupPolicy) -> Scope {
    Scope {
        cluster_uid: install.cluster_uid.clone(),
        namespace: namespace(&policy.metadata),
        policy: name(&policy.metadata),
        policy_uid: uid(&policy.metadata),
    }
}

fn owner<K: Resource<DynamicType = ()>>(object: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: name(object.meta()),
        uid: uid(object.meta()),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn name(meta: &ObjectMeta) -> String {
    meta.name.clone().unwrap_or_default()
}

fn namespace(meta: &ObjectMeta) -> String {
    meta.namespace.clone().unwrap_or_default()
}

fn uid(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests;

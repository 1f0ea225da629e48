//! Every Job that Holdfast runs, built from the objects it serves. Pure.
//!
//! Pods pass Pod Security `restricted`: no root, no privilege, nothing writable but a small scratch in memory, no API token. Secrets and
//! certificates are files that the kubelet mounts; the task names the folders, never what is in them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use holdfast_crds::{
    Backup, BackupPolicy, BackupStore, ConfigMapKey, JobTemplate, PasswordSecret, Reason, RestoreRequest, RetentionSpec,
    Source,
};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, KeyToPath,
    LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecretProjection, SecurityContext, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use super::names::{
    APP_LABEL, BACKUP_LABEL, MANAGED_BY, MANAGED_BY_LABEL, POLICY_LABEL, RESTORE_LABEL, SOURCE_LABEL, STORE_LABEL,
    TASK_LABEL, WORKER_APP, job_name, label_value,
};
use crate::task::{
    BackupTask, DeleteTask, KnownRun, Mounts, POD_NAME_ENV, ProbeTask, RestoreTask, RetainTask, Scope, StoreTask, TASK_ENV, Task,
};

/// A Job outlives the worker's own deadline by this many seconds: its Pod's start deadline and a clean end fit in.
pub const DEADLINE_MARGIN_SECONDS: i64 = 120;

/// At most this many bytes of known runs travel in a task, the newest first: an environment variable holds 128 KiB.
const MAX_KNOWN_BYTES: usize = 64 * 1024;

/// At most this many runs are deleted by one retain Job: their names fit into a termination message.
pub const RETAIN_LIMIT: usize = 100;

const CONTAINER: &str = "worker";
const USER: i64 = 65532;
const PROBE_DEADLINE_SECONDS: i64 = 180;
const HOUSEKEEPING_DEADLINE_SECONDS: i64 = 3600;
const SCRATCH: &str = "/tmp";
const STORE_CREDENTIALS: &str = "/holdfast/store/credentials";
const STORE_CA: &str = "/holdfast/store/ca";
const CA_FILE: &str = "ca.crt";

/// What all Jobs of an installation share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Install {
    /// UID of the cluster: that of its `kube-system` namespace.
    pub cluster_uid: String,
    /// The workers' image: the controller's own.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Names of Secrets, in the policies' namespaces, to pull the image with.
    pub image_pull_secrets: Vec<String>,
}

/// The Job that proves a store. `what` tells one probe from the next.
pub fn probe(install: &Install, store: &BackupStore, what: &str) -> Job {
    build(
        install,
        &Purpose {
            owner: owner(store),
            namespace: namespace(&store.metadata),
            what,
            labels: vec![(STORE_LABEL, name(&store.metadata))],
            task: Task::Probe(ProbeTask { store: store_task(store) }),
            store,
            mounts: vec![],
            template: None,
            retries: 0,
            deadline: PROBE_DEADLINE_SECONDS,
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
    /// Names of all its sources.
    pub sources: &'a [String],
}

/// The name of the Job that saves a source.
pub fn backup_name(backup: &Backup, source: &str) -> String {
    job_name(&name(&backup.metadata), &uid(&backup.metadata), &format!("s-{source}"))
}

/// The Job that saves one source of a run.
pub fn backup(install: &Install, run: Run<'_>, source: &Source) -> Job {
    let mount = source.postgres.as_ref().map(|p| SourceMount {
        source: source.name.clone(),
        credentials: p.credentials_secret.clone(),
        ca: p.tls.ca_bundle.clone(),
    });
    let spec = &run.policy.spec;
    let task = BackupTask {
        store: store_task(run.store),
        scope: scope(install, run.policy),
        backup: name(&run.backup.metadata),
        run_id: run.run_id.to_owned(),
        slot: run.slot,
        run_sources: run.sources.to_vec(),
        source: source.clone(),
        mounts: mount.as_ref().map(SourceMount::paths).unwrap_or_default(),
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
            mounts: mount.into_iter().collect(),
            template: spec.job_template.as_ref(),
            retries: 2,
            deadline: spec.timeout_seconds.saturating_add(DEADLINE_MARGIN_SECONDS),
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
            template: policy.spec.job_template.as_ref(),
            retries: 2,
            deadline: HOUSEKEEPING_DEADLINE_SECONDS,
        },
    )
}

/// The name of the Job that deletes a run's data.
pub fn delete_name(backup: &Backup) -> String {
    job_name(&name(&backup.metadata), &uid(&backup.metadata), "delete")
}

/// The Job that deletes the data of a run.
pub fn delete(install: &Install, backup: &Backup, policy: Option<&BackupPolicy>, store: &BackupStore, run_id: &str) -> Job {
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
            labels: vec![
                (POLICY_LABEL, backup.spec.policy_ref.name.clone()),
                (BACKUP_LABEL, name(&backup.metadata)),
            ],
            task: Task::Delete(task),
            store,
            mounts: vec![],
            template: policy.and_then(|p| p.spec.job_template.as_ref()),
            retries: 2,
            deadline: HOUSEKEEPING_DEADLINE_SECONDS,
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
    template: Option<&JobTemplate>,
    task: RestoreTask,
    mounts: Vec<SourceMount>,
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
            template,
            retries: 0,
            deadline: request.spec.timeout_seconds.saturating_add(DEADLINE_MARGIN_SECONDS),
        },
    )
}

/// A Job that the API server is asked about but never makes: it tells whether anything can be created in a namespace.
pub fn never_run(namespace: &str) -> Job {
    let container = Container { name: CONTAINER.to_owned(), image: Some("none".to_owned()), ..Container::default() };
    Job {
        metadata: ObjectMeta {
            generate_name: Some("holdfast-never-run-".to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            suspend: Some(true),
            template: PodTemplateSpec {
                metadata: None,
                spec: Some(PodSpec {
                    containers: vec![container],
                    restart_policy: Some("Never".to_owned()),
                    ..PodSpec::default()
                }),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// What a source or a target needs mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceMount {
    /// Name of the source.
    pub source: String,
    /// Its user's name and password.
    pub credentials: PasswordSecret,
    /// Certificates to trust.
    pub ca: Option<ConfigMapKey>,
}

impl SourceMount {
    /// Where the worker finds it.
    pub fn paths(&self) -> Mounts {
        let folder = format!("/holdfast/sources/{}", self.source);
        Mounts {
            credentials: Some(PathBuf::from(format!("{folder}/credentials"))),
            ca: self.ca.as_ref().map(|_| PathBuf::from(format!("{folder}/ca/{CA_FILE}"))),
        }
    }
}

/// A store as a worker sees it.
pub fn store_task(store: &BackupStore) -> StoreTask {
    let s3 = &store.spec.s3;
    StoreTask {
        name: name(&store.metadata),
        s3: s3.clone(),
        read_only: store.spec.read_only,
        credentials: s3.credentials_secret.as_ref().map(|_| PathBuf::from(STORE_CREDENTIALS)),
        ca: s3.ca_bundle.as_ref().map(|_| PathBuf::from(format!("{STORE_CA}/{CA_FILE}"))),
    }
}

struct Purpose<'a> {
    owner: OwnerReference,
    namespace: String,
    what: &'a str,
    labels: Vec<(&'static str, String)>,
    task: Task,
    store: &'a BackupStore,
    mounts: Vec<SourceMount>,
    template: Option<&'a JobTemplate>,
    retries: i32,
    deadline: i64,
}

fn build(install: &Install, purpose: &Purpose<'_>) -> Job {
    let mut labels: BTreeMap<String, String> =
        purpose.labels.iter().map(|(key, value)| ((*key).to_owned(), label_value(value))).collect();
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels.insert(APP_LABEL.to_owned(), WORKER_APP.to_owned());
    labels.insert(TASK_LABEL.to_owned(), purpose.task.subcommand().to_owned());
    let template = purpose.template.cloned().unwrap_or_default();
    let mut pod_labels = template.labels.clone();
    pod_labels.extend(labels.clone());

    Job {
        metadata: ObjectMeta {
            name: Some(job_name(&purpose.owner.name, &purpose.owner.uid, purpose.what)),
            namespace: Some(purpose.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![purpose.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            active_deadline_seconds: Some(purpose.deadline),
            backoff_limit: Some(purpose.retries),
            // A Job that is tried once must not go on after a disruption either: that would be a second try.
            pod_failure_policy: (purpose.retries > 0).then(pod_failure_policy),
            pod_replacement_policy: Some("Failed".to_owned()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels),
                    annotations: (!template.annotations.is_empty()).then(|| template.annotations.clone()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(install, purpose, template)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn pod(install: &Install, purpose: &Purpose<'_>, template: JobTemplate) -> PodSpec {
    let (volumes, mounts) = volumes(purpose).into_iter().unzip();
    PodSpec {
        affinity: template.affinity,
        automount_service_account_token: Some(false),
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(install.image.clone()),
            image_pull_policy: Some(install.image_pull_policy.clone()),
            args: Some(vec!["worker".to_owned(), purpose.task.subcommand().to_owned()]),
            env: Some(environment(&purpose.task)),
            resources: Some(template.resources.unwrap_or_else(default_resources)),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
                read_only_root_filesystem: Some(true),
                ..SecurityContext::default()
            }),
            termination_message_policy: Some("File".to_owned()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }],
        enable_service_links: Some(false),
        image_pull_secrets: (!install.image_pull_secrets.is_empty()).then(|| {
            install.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()
        }),
        node_selector: (!template.node_selector.is_empty()).then_some(template.node_selector),
        priority_class_name: template.priority_class_name,
        restart_policy: Some("Never".to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        service_account_name: purpose.store.spec.s3.service_account_name.clone(),
        termination_grace_period_seconds: Some(30),
        tolerations: (!template.tolerations.is_empty()).then_some(template.tolerations),
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn environment(task: &Task) -> Vec<EnvVar> {
    let variable = |name: &str, value: Option<String>, value_from: Option<EnvVarSource>| EnvVar {
        name: name.to_owned(),
        value,
        value_from,
    };
    let pod_name = EnvVarSource {
        field_ref: Some(ObjectFieldSelector { field_path: "metadata.name".to_owned(), api_version: Some("v1".to_owned()) }),
        ..EnvVarSource::default()
    };
    vec![
        variable(TASK_ENV, Some(serde_json::to_string(task).unwrap_or_default()), None),
        variable(POD_NAME_ENV, None, Some(pod_name)),
    ]
}

fn volumes(purpose: &Purpose<'_>) -> Vec<(Volume, VolumeMount)> {
    let s3 = &purpose.store.spec.s3;
    let mut volumes = vec![(
        Volume {
            name: "scratch".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity("16Mi".to_owned())),
            }),
            ..Volume::default()
        },
        VolumeMount { name: "scratch".to_owned(), mount_path: SCRATCH.to_owned(), ..VolumeMount::default() },
    )];
    if let Some(secret) = &s3.credentials_secret {
        let required = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|key| (key, key));
        let optional = [("AWS_SESSION_TOKEN", "AWS_SESSION_TOKEN")];
        let parts = vec![keys_of_secret(secret, &required, false), keys_of_secret(secret, &optional, true)];
        volumes.push(secret_volume("store-credentials".to_owned(), parts, STORE_CREDENTIALS.to_owned()));
    }
    if let Some(ca) = &s3.ca_bundle {
        volumes.push(ca_volume("store-ca".to_owned(), ca, STORE_CA.to_owned()));
    }
    for (index, mount) in purpose.mounts.iter().enumerate() {
        let folder = format!("/holdfast/sources/{}", mount.source);
        let secret = &mount.credentials;
        let keys = [(secret.username_key.as_str(), "username"), (secret.password_key.as_str(), "password")];
        volumes.push(secret_volume(
            format!("source-{index}-credentials"),
            vec![keys_of_secret(&secret.name, &keys, false)],
            format!("{folder}/credentials"),
        ));
        if let Some(ca) = &mount.ca {
            volumes.push(ca_volume(format!("source-{index}-ca"), ca, format!("{folder}/ca")));
        }
    }
    volumes
}

fn keys_of_secret(secret: &str, keys: &[(&str, &str)], optional: bool) -> VolumeProjection {
    let items = keys.iter().map(|(key, path)| KeyToPath { key: (*key).to_owned(), path: (*path).to_owned(), mode: None });
    VolumeProjection {
        secret: Some(SecretProjection {
            name: secret.to_owned(),
            items: Some(items.collect()),
            optional: optional.then_some(true),
        }),
        ..VolumeProjection::default()
    }
}

fn secret_volume(name: String, sources: Vec<VolumeProjection>, path: String) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: name.clone(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources) }),
        ..Volume::default()
    };
    (volume, read_only(name, path))
}

fn ca_volume(name: String, ca: &ConfigMapKey, path: String) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: name.clone(),
        config_map: Some(ConfigMapVolumeSource {
            name: ca.config_map.clone(),
            items: Some(vec![KeyToPath { key: ca.key.clone(), path: CA_FILE.to_owned(), mode: None }]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    (volume, read_only(name, path))
}

fn read_only(name: String, mount_path: String) -> VolumeMount {
    VolumeMount { name, mount_path, read_only: Some(true), ..VolumeMount::default() }
}

fn pod_failure_policy() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(CONTAINER.to_owned()),
                    operator: "In".to_owned(),
                    values: Reason::FINAL_EXIT_CODES.to_vec(),
                }),
                on_pod_conditions: None,
            },
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: "True".to_owned(),
                }]),
            },
        ],
    }
}

fn default_resources() -> ResourceRequirements {
    let quantities = |entries: &[(&str, &str)]| {
        Some(entries.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect())
    };
    ResourceRequirements {
        requests: quantities(&[("cpu", "100m"), ("memory", "128Mi")]),
        limits: quantities(&[("memory", "512Mi")]),
        claims: None,
    }
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

//! The one shape that all Jobs have. Pure.

use std::collections::BTreeMap;

use holdfast_crds::{BackupStore, EnvironmentVariable, JobSecurityContext, JobTemplate, LocalRef, Reason};
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, LocalObjectReference, ObjectFieldSelector,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::levels::{merged, united};
use super::metadata;
use super::mount::{SourceMount, ca_volume, keys_of_secret, secret_volume};
use super::seat::{Seat, USER};
use super::{
    DEADLINE_MARGIN_SECONDS, IDENTITY_FILE, Install, STORE_CA, STORE_CREDENTIALS, STORE_IDENTITY, identity_secret,
    nodes,
};
use crate::plan::names::{
    APP_LABEL, MANAGED_BY, MANAGED_BY_LABEL, SOURCES_ANNOTATION, START_DEADLINE_ANNOTATION, TASK_LABEL, WORKER_APP,
    WORKER_CONTAINER, job_name, label_value,
};
use crate::task::{POD_NAME_ENV, TASK_ENV, Target, Task};

const SCRATCH: &str = "/tmp";

/// What a Job is for.
pub(super) struct Purpose<'a> {
    pub(super) owner: OwnerReference,
    pub(super) namespace: String,
    pub(super) what: &'a str,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) task: Task,
    pub(super) store: &'a BackupStore,
    pub(super) mounts: Vec<SourceMount>,
    /// As whom and where it runs, where that is not as all do.
    pub(super) seat: Option<Seat>,
    /// Over what the chart and the store say.
    pub(super) templates: [Option<&'a JobTemplate>; 2],
    pub(super) retries: i32,
    /// For how many seconds it may work, once it has started.
    pub(super) timeout: i64,
}

/// The Job for a purpose.
pub(super) fn build(install: &Install, purpose: &Purpose<'_>) -> Job {
    let mut labels: BTreeMap<String, String> =
        purpose.labels.iter().map(|(key, value)| ((*key).to_owned(), label_value(value))).collect();
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels.insert(APP_LABEL.to_owned(), WORKER_APP.to_owned());
    labels.insert(TASK_LABEL.to_owned(), purpose.task.subcommand().to_owned());
    let [policy, request] = purpose.templates;
    let template = merged([Some(&install.template), purpose.store.spec.job_template.as_ref(), policy, request]);
    let start_deadline = template.start_deadline_seconds();
    let pod_labels: BTreeMap<String, String> = metadata::labels(&template).into_iter().chain(labels.clone()).collect();
    let labels: BTreeMap<String, String> = template.labels.clone().into_iter().chain(labels).collect();

    Job {
        metadata: ObjectMeta {
            name: Some(job_name(&purpose.owner.name, &purpose.owner.uid, purpose.what)),
            namespace: Some(purpose.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations(&purpose.task, start_deadline)),
            owner_references: Some(vec![purpose.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            // It counts from the Job's beginning: what a Pod takes to start is not taken from the time that it has to work.
            active_deadline_seconds: Some(
                purpose.timeout.saturating_add(start_deadline).saturating_add(DEADLINE_MARGIN_SECONDS),
            ),
            backoff_limit: Some(purpose.retries),
            // A Job that is tried once must not go on after a disruption either: that would be a second try.
            pod_failure_policy: (purpose.retries > 0).then(pod_failure_policy),
            pod_replacement_policy: Some("Failed".to_owned()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels),
                    annotations: Some(metadata::annotations(&template)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(install, purpose, template)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// What whoever judges the Job has to know of it, whatever becomes of the objects that it was made from.
fn annotations(task: &Task, start_deadline: i64) -> BTreeMap<String, String> {
    let engine = |target: &Target| match target {
        Target::Postgres(_) => "postgres",
        Target::Mongodb(_) => "mongodb",
        Target::Redis(_) => "redis",
        Target::Volume(_) => "volume",
        Target::Config(_) => "config",
    };
    let sources: Vec<String> = match task {
        Task::Backup(task) => {
            task.source.engine().map(|e| format!("{}={}", task.source.name, e.kind())).into_iter().collect()
        }
        Task::Restore(task) => {
            let wanted = task.targets.iter().filter(|t| task.sources.as_ref().is_none_or(|s| s.contains(&t.source)));
            wanted.map(|t| format!("{}={}", t.source, engine(&t.server))).collect()
        }
        _ => Vec::new(),
    };
    let start_deadline = [(START_DEADLINE_ANNOTATION.to_owned(), start_deadline.to_string())];
    let sources = (!sources.is_empty()).then(|| (SOURCES_ANNOTATION.to_owned(), sources.join(",")));
    start_deadline.into_iter().chain(sources).collect()
}

fn pod(install: &Install, purpose: &Purpose<'_>, template: JobTemplate) -> PodSpec {
    let (mut volumes, mounts): (Vec<Volume>, Vec<VolumeMount>) = volumes(purpose).into_iter().unzip();
    if purpose.seat.is_some() || install.leave_ids_out {
        // There may be no group that the kubelet could give the Secrets to.
        for projected in volumes.iter_mut().filter_map(|v| v.projected.as_mut()) {
            projected.default_mode = Some(0o444);
        }
    }
    let said = template.security_context.unwrap_or_default();
    let seat = purpose.seat.clone().map(|seat| seat.shaped(&said, install.leave_ids_out));
    let context = SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    };
    let tolerations = match &seat {
        Some(seat) => seat.tolerations(template.tolerations),
        None => template.tolerations,
    };
    let affinity = nodes::affinity(template.affinity, &install.architectures);
    let of_install = install.image_pull_secrets.iter().map(|name| LocalRef { name: name.clone() }).collect();
    let pull_secrets = united(of_install, template.image_pull_secrets);
    PodSpec {
        affinity: match &seat {
            Some(seat) => seat.affinity(affinity),
            None => affinity,
        },
        automount_service_account_token: Some(false),
        containers: vec![Container {
            name: WORKER_CONTAINER.to_owned(),
            image: Some(install.image.clone()),
            image_pull_policy: Some(install.image_pull_policy.clone()),
            args: Some(vec!["worker".to_owned(), purpose.task.subcommand().to_owned()]),
            env: Some(environment(&purpose.task, template.env)),
            resources: Some(template.resources.unwrap_or_else(default_resources)),
            security_context: Some(match &seat {
                Some(seat) => seat.of_container(context),
                None => context,
            }),
            termination_message_policy: Some("File".to_owned()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }],
        dns_config: template.dns_config,
        enable_service_links: Some(false),
        image_pull_secrets: (!pull_secrets.is_empty())
            .then(|| pull_secrets.into_iter().map(|secret| LocalObjectReference { name: secret.name }).collect()),
        node_selector: Some(nodes::selector(template.node_selector)),
        priority_class_name: template.priority_class_name,
        restart_policy: Some("Never".to_owned()),
        security_context: Some(of_pod(seat.as_ref(), &said, install.leave_ids_out)),
        service_account_name: purpose.store.spec.s3.service_account_name.clone(),
        termination_grace_period_seconds: Some(30),
        tolerations: (!tolerations.is_empty()).then_some(tolerations),
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

/// As whom a Pod runs. Without a seat: a user that owns nothing, with a group that the kubelet gives the mounted Secrets to.
fn of_pod(seat: Option<&Seat>, said: &JobSecurityContext, leave_ids_out: bool) -> PodSecurityContext {
    let own = (!leave_ids_out).then_some(USER);
    let context = seat.map_or_else(
        || PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: said.run_as_user.or(own),
            run_as_group: said.run_as_group.or(own),
            fs_group: own,
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        },
        Seat::of_pod,
    );
    PodSecurityContext {
        fs_group: said.fs_group.or(context.fs_group),
        se_linux_options: said.se_linux_options.clone(),
        ..context
    }
}

/// The task, the Pod's name, and what the template says.
fn environment(task: &Task, said: Vec<EnvironmentVariable>) -> Vec<EnvVar> {
    let variable = |name: String, value: String| EnvVar { name, value: Some(value), value_from: None };
    let pod_name = EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            field_path: "metadata.name".to_owned(),
            api_version: Some("v1".to_owned()),
        }),
        ..EnvVarSource::default()
    };
    let pod_name = EnvVar { name: POD_NAME_ENV.to_owned(), value: None, value_from: Some(pod_name) };
    let task = task.to_environment().into_iter().map(|(name, value)| variable(name, value));
    task.chain([pod_name]).chain(said.into_iter().map(|said| variable(said.name, said.value))).collect()
}

/// Another Job in the place of one that was: with its Pod's shape and all that it mounts, for another task and with today's image, which knows
/// the task.
pub(super) fn in_the_place_of(
    install: &Install,
    before: &Job,
    name: String,
    task: &Task,
    retries: i32,
    timeout: i64,
) -> Option<Job> {
    let given = |labels: Option<BTreeMap<String, String>>| -> BTreeMap<String, String> {
        let mut labels = labels.unwrap_or_default();
        // The API server's own.
        labels.retain(|key, _| {
            !key.starts_with("batch.kubernetes.io/") && !["controller-uid", "job-name"].contains(&key.as_str())
        });
        labels.insert(TASK_LABEL.to_owned(), task.subcommand().to_owned());
        labels
    };
    let annotation = |key: &str| before.metadata.annotations.as_ref()?.get(key).cloned();
    let start_deadline = annotation(START_DEADLINE_ANNOTATION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(JobTemplate::START_DEADLINE_SECONDS);
    let mut template = before.spec.as_ref()?.template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels = Some(given(metadata.labels.take()));
    let container = template.spec.as_mut()?.containers.iter_mut().find(|c| c.name == WORKER_CONTAINER)?;
    container.image = Some(install.image.clone());
    container.image_pull_policy = Some(install.image_pull_policy.clone());
    container.args = Some(vec!["worker".to_owned(), task.subcommand().to_owned()]);
    let said = container.env.take().unwrap_or_default().into_iter().filter(|e| !is_of_a_task(&e.name));
    let of_task = task.to_environment().into_iter();
    let of_task = of_task.map(|(name, value)| EnvVar { name, value: Some(value), value_from: None });
    container.env = Some(of_task.chain(said).collect());
    Some(Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: before.metadata.namespace.clone(),
            labels: Some(given(before.metadata.labels.clone())),
            annotations: Some(annotations(task, start_deadline)),
            owner_references: before.metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            active_deadline_seconds: Some(
                timeout.saturating_add(start_deadline).saturating_add(DEADLINE_MARGIN_SECONDS),
            ),
            backoff_limit: Some(retries),
            pod_failure_policy: (retries > 0).then(pod_failure_policy),
            pod_replacement_policy: Some("Failed".to_owned()),
            template,
            ..JobSpec::default()
        }),
        status: None,
    })
}

/// The task that a Job carries.
pub(super) fn task_of(job: &Job) -> Option<Task> {
    let containers = &job.spec.as_ref()?.template.spec.as_ref()?.containers;
    let variables = containers.iter().find(|c| c.name == WORKER_CONTAINER)?.env.as_ref()?;
    let get = |name: &str| variables.iter().find(|e| e.name == name).and_then(|e| e.value.clone());
    Task::from_environment(get).ok()
}

/// Whether a variable carries a task, or a part of one.
fn is_of_a_task(name: &str) -> bool {
    name.strip_prefix(TASK_ENV).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
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
    if let (Task::Restore(_) | Task::Verify(_), Some(identity)) = (&purpose.task, identity_secret(purpose.store)) {
        let keys = keys_of_secret(&identity.name, &[(&identity.key, IDENTITY_FILE)], false);
        volumes.push(secret_volume("store-identity".to_owned(), vec![keys], STORE_IDENTITY.to_owned()));
    }
    for (index, mount) in purpose.mounts.iter().enumerate() {
        volumes.extend(mount.volumes(index));
    }
    volumes
}

fn pod_failure_policy() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(WORKER_CONTAINER.to_owned()),
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

/// A Job that the API server is asked about but never makes: it tells whether anything can be created in a namespace.
pub fn never_run(namespace: &str) -> Job {
    let container =
        Container { name: WORKER_CONTAINER.to_owned(), image: Some("none".to_owned()), ..Container::default() };
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

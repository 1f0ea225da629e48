//! Jobs and Pods as the API server has them, read for the planner. Pure.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, KeyToPath, Pod, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    CLAIM, CONFIG_MAP, ContainerEnd, INIT_FAILED, INITIALIZING, JobEnd, ObservedJob, ObservedPod, ObservedVolume,
    Owner, SECRET, Words,
};
use crate::plan::job::source_of;
use crate::plan::names::{
    POLICY_LABEL, SOURCE_LABEL, SOURCES_ANNOTATION, START_DEADLINE_ANNOTATION, TASK_LABEL, WORKER_CONTAINER,
};

impl From<&Job> for ObservedJob {
    fn from(job: &Job) -> Self {
        let status = job.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let end = conditions
            .iter()
            .find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))
            .map(|condition| JobEnd {
                completed: condition.type_ == "Complete",
                at: condition.last_transition_time.as_ref().map_or_else(|| created(&job.metadata), |t| t.0),
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            });
        Self {
            namespace: job.metadata.namespace.clone().unwrap_or_default(),
            name: job.metadata.name.clone().unwrap_or_default(),
            uid: job.metadata.uid.clone().unwrap_or_default(),
            owner: controller_of(&job.metadata),
            task: label(&job.metadata, TASK_LABEL),
            source: label(&job.metadata, SOURCE_LABEL),
            policy: label(&job.metadata, POLICY_LABEL),
            created: created(&job.metadata),
            deleting: job.metadata.deletion_timestamp.is_some(),
            failed_pods: status.and_then(|s| s.failed).unwrap_or(0),
            retries: job.spec.as_ref().and_then(|spec| spec.backoff_limit).unwrap_or(0),
            sources: annotation(&job.metadata, SOURCES_ANNOTATION).map(|text| sources(text)).unwrap_or_default(),
            start_deadline_seconds: annotation(&job.metadata, START_DEADLINE_ANNOTATION).and_then(|s| s.parse().ok()),
            end,
        }
    }
}

impl From<&Pod> for ObservedPod {
    fn from(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let says = |type_: &str, value: &str| {
            conditions.iter().find(|c| c.type_ == type_ && c.status == value).map(|c| Words {
                reason: c.reason.clone().unwrap_or_default(),
                message: c.message.clone().unwrap_or_default(),
            })
        };
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let container = pod
            .spec
            .iter()
            .find_map(|spec| spec.containers.iter().find(|container| container.name == WORKER_CONTAINER));
        let mounts = container.and_then(|container| container.volume_mounts.as_deref()).unwrap_or_default();
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let volumes: Vec<ObservedVolume> = volumes.flat_map(|volume| objects(volume, mounts)).collect();
        let limits = container.and_then(|container| container.resources.as_ref()?.limits.as_ref());
        let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "True");
        let worker = status.container_statuses.iter().flatten().find(|container| container.name == WORKER_CONTAINER);
        let state = worker.and_then(|container| container.state.clone()).unwrap_or_default();
        let before = in_the_way(status.init_container_statuses.as_deref().unwrap_or_default());
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            job_uid: controller_of(&pod.metadata).map(|o| o.uid).unwrap_or_default(),
            created: created(&pod.metadata),
            // The API server adds the time that the Pod is given to the moment of its deletion.
            ends_by: pod.metadata.deletion_timestamp.as_ref().map(|t| t.0),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            phase: status.phase.unwrap_or_default(),
            word: words(status.reason, status.message),
            unschedulable: says("PodScheduled", "False"),
            scheduled: scheduled.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0),
            disrupted: says("DisruptionTarget", "True"),
            started: state.running.is_some() || state.terminated.is_some(),
            waiting: state
                .waiting
                .and_then(|w| words(w.reason, w.message))
                .map(|words| if words.reason == INITIALIZING { before.unwrap_or(words) } else { words }),
            ended: state.terminated.map(|t| ContainerEnd {
                exit_code: t.exit_code,
                reason: t.reason.unwrap_or_default(),
                message: t.message.unwrap_or_default(),
                at: t.finished_at.map(|t| t.0),
            }),
            others: containers
                .map(|container| container.name.clone())
                .filter(|name| name != WORKER_CONTAINER)
                .collect(),
            claims: volumes.iter().filter(|v| v.kind == CLAIM).map(|v| v.object.clone()).collect(),
            volumes,
            memory_limit: limits.and_then(|limits| limits.get("memory")).map(|quantity| quantity.0.clone()),
        }
    }
}

/// What the init containers, none of which is ours, are in the way with: the first of them that has not done its part.
fn in_the_way(init_containers: &[ContainerStatus]) -> Option<Words> {
    init_containers.iter().find_map(|container| {
        let name = &container.name;
        let state = container.state.as_ref()?;
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.clone().filter(|reason| reason != INITIALIZING)?;
            let said = waiting.message.clone().unwrap_or_default();
            return Some(Words { reason, message: format!("init container {name}: {said}") });
        }
        if let Some(ended) = state.terminated.as_ref().filter(|ended| ended.exit_code != 0) {
            let said = ended.message.as_deref().or(ended.reason.as_deref()).unwrap_or_default();
            let message = format!("init container {name} ended with exit code {}: {said}", ended.exit_code);
            return Some(Words { reason: INIT_FAILED.to_owned(), message });
        }
        let runs = state.running.is_some() && container.started != Some(true);
        runs.then(|| Words { reason: INITIALIZING.to_owned(), message: format!("init container {name} is running") })
    })
}

/// The objects that a volume shows, but for those that need not be there.
fn objects(volume: &Volume, mounts: &[VolumeMount]) -> Vec<ObservedVolume> {
    let path = mounts.iter().find(|mount| mount.name == volume.name).map(|mount| mount.mount_path.as_str());
    let source = path.and_then(source_of).map(str::to_owned);
    let of = |kind: &str, object: &str, items: Option<&Vec<KeyToPath>>| ObservedVolume {
        name: volume.name.clone(),
        kind: kind.to_owned(),
        object: object.to_owned(),
        keys: items.into_iter().flatten().map(|item| (item.key.clone(), item.path.clone())).collect(),
        source: source.clone(),
    };
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let secrets = projected.clone().filter_map(|part| part.secret.as_ref()).filter(|s| s.optional != Some(true));
    let maps = projected.filter_map(|part| part.config_map.as_ref()).filter(|m| m.optional != Some(true));
    secrets
        .map(|secret| of(SECRET, &secret.name, secret.items.as_ref()))
        .chain(maps.map(|map| of(CONFIG_MAP, &map.name, map.items.as_ref())))
        .chain(volume.config_map.iter().map(|map| of(CONFIG_MAP, &map.name, map.items.as_ref())))
        .chain(volume.persistent_volume_claim.iter().map(|claim| of(CLAIM, &claim.claim_name, None)))
        .collect()
}

fn words(reason: Option<String>, message: Option<String>) -> Option<Words> {
    reason.filter(|r| !r.is_empty()).map(|reason| Words { reason, message: message.unwrap_or_default() })
}

/// When an object was made; the beginning of time for one that does not say.
pub fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

fn controller_of(meta: &ObjectMeta) -> Option<Owner> {
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    Some(Owner { kind: owner.kind.clone(), name: owner.name.clone(), uid: owner.uid.clone() })
}

fn label(meta: &ObjectMeta, name: &str) -> String {
    meta.labels.as_ref().and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
}

fn sources(text: &str) -> Vec<(String, String)> {
    text.split(',').filter_map(|one| one.split_once('=')).map(|(s, e)| (s.to_owned(), e.to_owned())).collect()
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    meta.annotations.as_ref()?.get(name)
}

#[cfg(test)]
mod tests;

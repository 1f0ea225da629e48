//! `RestoreRequest`: bring one restore point back, once. Pure data.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::object_name;

use crate::{BackupPhase, ConfigInto, JobTemplate, MongodbInto, PostgresInto, Reason, RedisInto, VolumeInto};

/// Bring one restore point back, once.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "RestoreRequest",
    namespaced,
    status = "RestoreRequestStatus",
    shortname = "rr",
    category = "holdfast",
    derive = "PartialEq",
    doc = "RestoreRequest brings one restore point back, at most once. To repeat it, create another one.",
    printcolumn(name = "From", type_ = "string", json_path = ".status.from"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Items", type_ = "integer", json_path = ".status.items"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Dry-Run", type_ = "boolean", json_path = ".spec.dryRun", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message(
    "the spec of a RestoreRequest never changes and it never runs twice: create another RestoreRequest"
).reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new(
    "!has(self.sources) || !has(self.into) || self.into.all(i, i.source in self.sources)"
).message("into names a source that is not restored: every into[].source must be one of sources"))]
#[x_kube(validation = Rule::new(
    "!has(self.safetyBackup) || !self.safetyBackup || self.onExisting == 'Replace'"
).message("safetyBackup saves what onExisting: Replace replaces: without Replace there is nothing to save, leave it out"))]
#[x_kube(validation = Rule::new(
    "self.onExisting != 'Replace' || (has(self.safetyBackup) && !self.safetyBackup) || (has(self.dryRun) && self.dryRun) || !has(self.into) || self.into.all(i, !has(i.config) && !(has(i.volume) && has(i.volume.claimName)) && !(has(i.postgres) && (has(i.postgres.host) || has(i.postgres.port) || has(i.postgres.database))) && !(has(i.mongodb) && (has(i.mongodb.uriSecret) || has(i.mongodb.host) || has(i.mongodb.port) || has(i.mongodb.database))) && !(has(i.redis) && (has(i.redis.host) || has(i.redis.port) || has(i.redis.database))))"
).message(
    "no safety backup can be made of a target that is not the policy's own: set safetyBackup: false if what onExisting: Replace replaces there may be lost"
))]
pub struct RestoreRequestSpec {
    /// The restore point: exactly one of `backup`, `policy` and `store`.
    pub from: RestoreFrom,
    /// Only these sources. Absent: all sources of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 40)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("size(self) > 0").message(
        "must name at least one source; to restore all sources leave sources out"
    ))]
    pub sources: Option<Vec<String>>,
    /// By source: where it goes if not where it came from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["source"]))]
    pub into: Vec<RestoreInto>,
    /// What to do with a target that holds data already.
    #[serde(default)]
    pub on_existing: OnExisting,
    /// Before `onExisting: Replace` replaces anything, what is there is saved, as a Backup that `status.safetyBackup` names and that is never
    /// chosen or deleted by itself: to undo the restore, restore that Backup. If it cannot be made nothing is touched. Absent: true with
    /// `Replace`. It saves the places the policy names; a request that restores into another place must set it to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_backup: Option<bool>,
    /// Only look: a Job checks what a restore checks before it touches anything, and `status.sources` says what would be restored into what,
    /// or what stands in the way. Neither the target nor the bucket is written to, and no claim is made.
    #[serde(default)]
    pub dry_run: bool,
    /// A restore that takes longer than this many seconds fails.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub timeout_seconds: i64,
    /// Workloads to stop before anything is touched, and to bring back to the same number of replicas whatever becomes of the restore. A dry
    /// run leaves them alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub scale_down: Vec<ScaleTarget>,
    /// Where and how the Job of this request runs, over what the policy, the store and the chart say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_template: Option<JobTemplate>,
}

/// Which restore point: exactly one of the fields.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(has(self.backup) ? 1 : 0) + (has(self.policy) ? 1 : 0) + (has(self.store) ? 1 : 0) == 1"
).message("set exactly one of backup: <name of a Backup>, policy: {name: …} and store: {name: …, policy: …}"))]
pub struct RestoreFrom {
    /// Name of a Backup in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub backup: Option<String>,
    /// The newest complete backup of a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RestoreFromPolicy>,
    /// Straight from the bucket: neither a Backup nor a BackupPolicy object is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<RestoreFromStore>,
}

/// The newest complete backup of a policy, at or before an instant. One that is suspicious (its condition Plausible is False) or damaged (its
/// condition Verified is False) is passed over: to restore that one name it with `backup`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreFromPolicy {
    /// Name of a BackupPolicy in this namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub name: String,
    /// Take the newest complete backup at or before this instant. Absent: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// A restore point found in the bucket.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.at) && has(self.runId))").message(
    "set at or runId, not both: runId names one run, at the newest complete one at or before an instant"
))]
pub struct RestoreFromStore {
    /// Name of a BackupStore in this namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub name: String,
    /// Name that the policy had whose backup is wanted: the folder below `<prefix>/<namespace>/`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message(
        "must be the name of a policy: lower-case letters, digits, dots and hyphens"
    ))]
    pub policy: String,
    /// Take the newest complete backup at or before this instant. Absent: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Take this run, such as `20261121T020000Z-3f9a1c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$')").message(
        "must be the folder of a run in the bucket, such as 20261121T020000Z-3f9a1c"
    ))]
    pub run_id: Option<String>,
    /// Only backups of this cluster: the UID of its namespace `kube-system`. Needed where several clusters have written to the same
    /// folder and `runId` is not set: the restore then fails and lists the clusters with their newest runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9A-Za-z]([0-9A-Za-z-]*[0-9A-Za-z])?$')").message(
        "must be the UID of a cluster's namespace kube-system, such as 7f1f1a0c-5f0b-4d3e-9a51-0c2f9d7e1b6a"
    ))]
    pub cluster: Option<String>,
}

/// Where one source goes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(has(self.postgres) ? 1 : 0) + (has(self.mongodb) ? 1 : 0) + (has(self.redis) ? 1 : 0) + (has(self.volume) ? 1 : 0) + (has(self.config) ? 1 : 0) == 1"
).message("needs exactly one engine, that of the source: write for example postgres: {database: …}"))]
pub struct RestoreInto {
    /// Name of the source.
    #[schemars(length(min = 1, max = 40))]
    pub source: String,
    /// Into this Postgres server or database; what is left out is as in the policy's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresInto>,
    /// Into this MongoDB deployment or database; what is left out is as in the policy's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mongodb: Option<MongodbInto>,
    /// Into this Redis server or database; what is left out is as in the policy's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisInto>,
    /// Into this claim; what is left out is as in the policy's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeInto>,
    /// As files into this claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigInto>,
}

/// What to do with a target that holds data already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExisting {
    /// A target that holds data is an error, and nothing is touched. The default.
    #[default]
    Fail,
    /// The target is replaced by the restored data, once that is complete.
    Replace,
}

/// A workload to stop while its data is restored.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTarget {
    /// Deployment or StatefulSet.
    pub kind: WorkloadKind,
    /// Name of the workload, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub name: String,
}

/// What can be scaled, of the API group `apps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// A Deployment.
    #[default]
    Deployment,
    /// A StatefulSet.
    StatefulSet,
}

impl std::fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// A workload that is stopped while its data is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaledWorkload {
    /// Deployment or StatefulSet.
    pub kind: WorkloadKind,
    /// Name of the workload.
    pub name: String,
    /// How many replicas it had, and gets back.
    pub replicas: i32,
    /// Once the restore is over: what became of it, in one line. Absent: it is to be brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// What is known of a restore.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreRequestStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Running, Completed or Failed; the last two never change.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf || (oldSelf != 'Completed' && oldSelf != 'Failed')").message(
        "Completed and Failed are final: the phase never changes again"
    ).reason(Reason::FieldValueForbidden))]
    pub phase: BackupPhase,
    /// The restore point in one line, such as `backup/shop-20261121-020000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The run that is restored: its folder in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The Backup that is restored, where there is such an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// The Backup of what was there before, made because of `onExisting: Replace`. Restore it to undo this restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_backup: Option<String>,
    /// The workloads of `spec.scaleDown`, with the number of replicas that each had. Written before any of them is scaled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub scaled_down: Vec<ScaledWorkload>,
    /// The Job that restores: the only one there ever is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// UID of that Job, once it was seen to exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_uid: Option<String>,
    /// When the restore started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// From start to end, such as `1m12s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Tables, documents, keys or files restored, of all sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<i64>,
    /// One entry a source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["source"]))]
    pub sources: Vec<RestoreSourceStatus>,
    /// `Complete`: everything asked for is back. While it is False its reason says why. `Finished`: it is over, with the reason Completed or
    /// Failed; while it is not there is no such condition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What the worst of the conditions says, in one word: what is wrong where something is, else the state of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What was restored of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSourceStatus {
    /// Name of the source.
    pub source: String,
    /// Pending, Running, Completed or Failed.
    #[serde(default)]
    pub phase: BackupPhase,
    /// Of a failure: why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Tables, documents, keys or files restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<i64>,
    /// Bytes restored, before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_bytes: Option<i64>,
    /// What was restored or why it was not, in one line a person can act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

fn default_timeout() -> i64 {
    14_400
}

//! `Backup`: one restore point. Pure data.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{LocalRef, Reason, VerificationStatus};

/// One restore point: all sources of a policy at one instant.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "Backup",
    namespaced,
    status = "BackupStatus",
    shortname = "bk",
    category = "holdfast",
    derive = "PartialEq",
    doc = "Backup is one restore point: the sources of a policy at one instant. The operator makes one a slot; one made by hand runs at once.",
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.policyRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.storedBytes"),
    printcolumn(name = "Items", type_ = "integer", json_path = ".status.items"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Verified\")].status",
        priority = 1
    ),
    printcolumn(name = "Run", type_ = "string", json_path = ".status.runId", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message(
    "the spec of a Backup never changes: create another Backup"
).reason(Reason::FieldValueForbidden))]
pub struct BackupSpec {
    /// The BackupPolicy in this namespace whose sources are saved.
    pub policy_ref: LocalRef,
    /// Only these sources of the policy. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 40)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("size(self) > 0").message(
        "must name at least one source; to save all sources of the policy leave sources out"
    ))]
    pub sources: Option<Vec<String>>,
    /// What becomes of the data in the bucket when this object is deleted by hand.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What becomes of the data when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The data stays in the bucket. The default.
    #[default]
    Retain,
    /// The data is deleted from the bucket too.
    Delete,
}

/// How far a run is. Completed and Failed are terminal and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// Accepted, not started yet.
    #[default]
    Pending,
    /// Its Jobs exist.
    Running,
    /// It did all of what it was for.
    Completed,
    /// It did not, and its reason says why.
    Failed,
}

impl BackupPhase {
    /// Whether the phase never changes again.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// What is known of a backup.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Running, Completed or Failed; the last two never change.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf || (oldSelf != 'Completed' && oldSelf != 'Failed')").message(
        "Completed and Failed are final: the phase never changes again"
    ).reason(Reason::FieldValueForbidden))]
    pub phase: BackupPhase,
    /// The run's folder in the bucket, below the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The BackupStore that the run writes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The place that its data is in, such as `s3://backups/prod at https://s3.example.com`: what the BackupStore said when the run
    /// started, or where it was seen last. Where the BackupStore says another one now, nothing is read or deleted there for this Backup.
    /// Absent: an older version made it; it is taken to be where the BackupStore says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// UID of the cluster that made the run, where that is another one: the data belongs to that cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Its place among the runs that wait for their turn, 1 for the next one; beyond 10 rounded up. Absent: it does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i32>,
    /// When the run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// From start to end, such as `1m12s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Bytes in the bucket, of all artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// Bytes before compression, of all artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_bytes: Option<i64>,
    /// Tables, documents, keys or files, of all artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<i64>,
    /// One entry a source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["source"]))]
    pub artifacts: Vec<ArtifactStatus>,
    /// When it was last verified: read to its end, to prove that it can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationStatus>,
    /// `Complete`: the backup can be restored. While it is False its reason says why; of a Completed one that its data is gone
    /// (DataMissing) or in another place than the BackupStore says (DataElsewhere), until it is seen there again. `Finished`:
    /// it is over, with the reason Completed or Failed; while it is not there is no such condition. `Consistent`: each source is as it was at one
    /// instant; while it is False its message names those that are not. `Plausible`: it is as large as the
    /// backups before it let expect; while it is False (Suspicious) its message says what is too small. `Verified`: it was read to its
    /// end and is as it was stored; False: it is damaged; Unknown: that could not be found out. `RetentionApplied`: how retention
    /// ended after it; there only where it was refused, or where another container kept its Job. `DataDeleted`, while it is being
    /// deleted and False: why its data is still there.
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

/// What a run stored of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactStatus {
    /// Name of the source.
    pub source: String,
    /// Pending, Running, Completed or Failed.
    #[serde(default)]
    pub phase: BackupPhase,
    /// Of a failure: why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The object in the bucket; of a source with several artifacts, its manifest, which names them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Bytes in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// Bytes before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_bytes: Option<i64>,
    /// SHA-256 of the object `key` names, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Tables, documents, keys or files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<i64>,
    /// Version of the server that was dumped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Tool that dumped it, with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_version: Option<String>,
    /// Whether the artifact is encrypted by Holdfast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// `snapshot`: all of it is of one instant; `fuzzy`: it was read while it may have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
    /// Of a failure: one line a person can act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

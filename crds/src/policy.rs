//! `BackupPolicy`: what to save, when, where, how long to keep it. Pure data.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BackupPhase, JobTemplate, LocalRef, PolicyVerification, RetentionSpec, Source, VerifySpec};

/// What to save, when, where, and how long to keep it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "BackupPolicy",
    namespaced,
    status = "BackupPolicyStatus",
    shortname = "bpol",
    category = "holdfast",
    derive = "PartialEq",
    doc = "BackupPolicy says what to save, when, where, and how long to keep it.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(
        name = "Protected",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Protected\")].status"
    ),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Failures", type_ = "integer", json_path = ".status.consecutiveFailures"),
    printcolumn(name = "Last success", type_ = "date", json_path = ".status.lastSuccessfulTime"),
    printcolumn(name = "Backups", type_ = "integer", json_path = ".status.backups.complete"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.storedBytes"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduledTime", priority = 1),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Verified\")].status",
        priority = 1
    ),
    printcolumn(name = "Oldest", type_ = "date", json_path = ".status.recoveryWindow.from", priority = 1),
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.storeRef.name", priority = 1),
    printcolumn(name = "Last backup", type_ = "string", json_path = ".status.lastBackup.name", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicySpec {
    /// The BackupStore in this namespace that the backups go to.
    pub store_ref: LocalRef,
    /// When to run: five cron fields (`0 2 * * *`), `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, `@every 5m`, and `H` in a
    /// field for a value that is stable for this policy and spread over all of them. Absent: on demand only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub schedule: Option<String>,
    /// Time zone of `schedule`, by its IANA name, such as `Asia/Jakarta`.
    #[serde(default = "default_time_zone")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// Start no scheduled run. Running ones finish, backups made by hand still run, and missed slots are not made up for.
    #[serde(default)]
    pub suspend: bool,
    /// Start one run as soon as the policy is there, beside the schedule.
    #[serde(default)]
    pub run_on_create: bool,
    /// A slot that was missed by more than this many seconds is skipped, and said so; of the newer ones one catch-up run is made.
    #[serde(default = "default_starting_deadline")]
    #[schemars(range(min = 10, max = 31_536_000))]
    pub starting_deadline_seconds: i64,
    /// A run that takes longer than this many seconds fails.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub timeout_seconds: i64,
    /// A dump that moves no byte for this many seconds fails.
    #[serde(default = "default_idle_timeout")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub idle_timeout_seconds: i64,
    /// What to save: 1 to 32 sources with unique names.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = Rule::new("size(self) > 0").message(
        "needs at least one source, such as {name: db, postgres: {host: …, database: …, credentialsSecret: {name: …}}}"
    ))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, a.name == b.name))").message(
        "each source needs a name of its own: two of them have the same"
    ))]
    pub sources: Vec<Source>,
    /// How artifacts are compressed.
    #[serde(default)]
    pub compression: CompressionSpec,
    /// How old what can be restored may be: a number and `m` (minutes), `h`, `d` or `w`, such as `26h` for a nightly backup with two hours
    /// to run. While each source is in a complete backup whose slot is younger than this, the condition `Protected` is True; suspicious
    /// and damaged backups do not count. Absent: nothing is promised, and there is no such condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,4}[mhdw]$')").message(
        "must be a number and a unit of m (minutes), h, d or w, such as 90m, 26h or 8d"
    ))]
    pub max_age: Option<String>,
    /// When a backup is too small to be believed.
    #[serde(default)]
    pub plausibility: PlausibilitySpec,
    /// When stored backups are read through to prove that they can be restored. Absent: only those that the annotation
    /// `holdfast.dev/verify` of a Backup asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
    /// Which backups stay. Absent: all of them, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
    /// Where and how the Jobs of this policy run, over what the store and the chart say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_template: Option<JobTemplate>,
}

/// Compression of artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompressionSpec {
    /// zstd level, 1 (fastest) to 19 (smallest); 0 turns compression off.
    #[serde(default = "default_level")]
    #[schemars(range(min = 0, max = 19))]
    pub level: i32,
}

impl Default for CompressionSpec {
    fn default() -> Self {
        Self { level: default_level() }
    }
}

/// When a backup is too small to be believed. One that is stays and can be restored, but its condition Plausible is False, an event says
/// so, `from.policy` passes it over for the one before it, and retention keeps the newest backup that is plausible beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlausibilitySpec {
    /// A source that is smaller, before compression, than this percentage of the median of its last five plausible backups is
    /// suspicious; so is one that is empty. 0 turns it off. To accept a backup that is smaller for a reason, and compare the next ones
    /// with it, annotate it: `kubectl annotate backup <name> holdfast.dev/accepted=true`.
    #[serde(default = "default_minimum_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub minimum_percent: i32,
}

impl Default for PlausibilitySpec {
    fn default() -> Self {
        Self { minimum_percent: default_minimum_percent() }
    }
}

/// What is known of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the policy can run. `LastBackupSucceeded`: its newest ended backup is complete. `RetentionApplied`: retention was applied
    /// after its newest complete backup. `Protected`, with `spec.maxAge` alone: each source is in a complete backup that is young enough.
    /// `Plausible`: its newest complete backup is as large as those before it let expect. `Verified`: of its complete backups that were
    /// verified none is damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What the worst of the conditions says, in one word: what is wrong where something is, else the state of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The newest slot that was decided on: run, caught up or skipped. The cursor of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scheduled_time: Option<Time>,
    /// The schedule with its time zone that `lastScheduledTime` was decided under. An edited one counts from the time of the edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The next slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_scheduled_time: Option<Time>,
    /// When the newest complete backup ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// The newest backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// How many backups there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<BackupCounts>,
    /// The oldest and the newest instant that can be restored. Absent while there is no complete backup. Suspicious and damaged
    /// ones do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_window: Option<RecoveryWindow>,
    /// The instant that each source can be brought back to, or a later one: of the newest complete backup of each source of the spec, the
    /// slot of the oldest. Absent while a source is in none; suspicious and damaged ones do not count.
    /// `spec.maxAge` is about the age of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<Time>,
    /// Bytes in the bucket of all complete backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// By how many bytes a day a backup of all sources grows in the bucket; negative where it shrinks. It is the slope of the straight line
    /// that fits size over slot best (least squares), of the complete backups that have exactly the sources of the spec, are neither
    /// suspicious nor damaged and at most 30 days older than the newest of them. Absent where these span less than a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_bytes_per_day: Option<i64>,
    /// How many backups have failed since the last complete one, of those that are still there: the newest ten of the schedule stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<i32>,
    /// When one of its backups was last read to its end, whatever was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verification_time: Option<Time>,
    /// Where it is with its verifications, and how its complete backups fared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<PolicyVerification>,
    /// What was in the bucket when the policy came to its store: complete runs without a Backup became Backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<CatalogueStatus>,
    /// The controllers of this cluster that began runs of the policy, the last sixteen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writers: Vec<WriterStatus>,
    /// Controllers that began runs under the identity of this cluster and are none of it: another cluster was made from a snapshot of the same etcd.
    /// While runs of theirs are in the bucket retention deletes nothing. The annotation `holdfast.dev/accept-writers`, with their IDs, says that they are
    /// gone for good and that their runs are this policy's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_writers: Vec<WriterStatus>,
}

/// A controller that began runs of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriterStatus {
    /// Its ID: random, taken when it began to lead, and written into the manifests of its runs.
    pub id: String,
    /// When it began to lead; of another one when it began the run that it was found by.
    pub since: Time,
}

/// What was found in a place of the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueStatus {
    /// The place: bucket, prefix and service. Another store or another place is read anew.
    pub place: String,
    /// When it was read last. It is read again when a restore is about to choose from it, when something in it is missing, and when Backups
    /// come back without their status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// When it was last read for runs of this very policy, too, that have no Backup any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_time: Option<Time>,
    /// The newest run that a Backup was made of then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// How many Backups were made of what was found.
    pub found: i32,
    /// How many older complete runs are there beside them.
    pub more: i32,
}

/// From the slot of the oldest complete backup to that of the newest. What can be restored are the backups in it, not every instant
/// between them: `from.policy.at` takes the newest one at or before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryWindow {
    /// Slot of the oldest complete backup: no earlier instant can be restored.
    pub from: Time,
    /// Slot of the newest complete backup.
    pub to: Time,
}

/// A backup in one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// Name of the Backup.
    pub name: String,
    /// Its phase.
    pub phase: BackupPhase,
}

/// Backups of a policy, counted by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupCounts {
    /// Backups in phase Completed whose data is where it should be, as far as is known.
    pub complete: i32,
    /// Backups in phase Failed.
    pub failed: i32,
    /// Backups in phase Completed whose data is gone from the bucket (DataMissing).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing: i32,
    /// Backups in phase Completed whose data is in another place than their BackupStore says now (DataElsewhere).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub elsewhere: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

fn default_time_zone() -> String {
    "UTC".to_owned()
}

fn default_starting_deadline() -> i64 {
    3600
}

fn default_timeout() -> i64 {
    14_400
}

fn default_idle_timeout() -> i64 {
    300
}

fn default_minimum_percent() -> i32 {
    50
}

fn default_level() -> i32 {
    3
}

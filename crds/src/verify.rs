//! `spec.verify` of a policy and what verifications say: when stored backups are read through, and what was found. Pure data.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Reason;

/// When stored backups are read through, to prove that they can be restored: every object is downloaded to its last byte, its SHA-256
/// compared, and it is decrypted, decompressed and taken apart as a restore would, without a target. Reading costs what the store asks
/// for downloads.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifySpec {
    /// When to verify, in the language of `spec.schedule` and in `spec.timeZone`, such as `@weekly` or `H H * * 6`. While the policy is
    /// suspended nothing is verified by it.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^ *(@.+|[^ @]+( +[^ ]+){4}) *$')").message(
        "must be five cron fields such as 0 4 * * 6, or one of @hourly, @daily, @weekly, @monthly, @yearly and @every 12h"
    ))]
    pub schedule: String,
    /// How many backups are verified at each time of the schedule: the newest complete one, and of the others those that were verified
    /// the longest time ago, so that each has its turn. Those of one policy are read one after the other.
    #[serde(default = "default_max_backups")]
    #[schemars(range(min = 1, max = 100))]
    pub max_backups: i32,
}

/// What is known of a backup's verifications; what was found says its condition `Verified`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationStatus {
    /// When it was last read to its end, whatever was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_time: Option<Time>,
    /// When a verification last ended, also one that could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt_time: Option<Time>,
    /// Why the last one could not be done, in one word. Absent: it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why the last one could not be done, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The Job of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// What the annotation `holdfast.dev/verify` said when it was last carried out: any other text there asks for another verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Where a policy is with its verifications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVerification {
    /// The schedule with its time zone that was decided under. An edited one counts from the time of the edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Up to here it has been decided when to verify. The cursor of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_until: Option<Time>,
    /// The last time of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scheduled_time: Option<Time>,
    /// The Backups that were due then, in the order in which they are read. One that was tried since is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<String>,
    /// The next time of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_scheduled_time: Option<Time>,
    /// The verification that is due and waits, and for what. Absent: none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<VerificationWait>,
    /// Complete backups that were read to their ends and are whole.
    pub whole: i32,
    /// Complete backups that are damaged.
    pub damaged: i32,
    /// Complete backups of which neither is known.
    pub unknown: i32,
}

/// A verification that is due and has not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationWait {
    /// The Backup that is to be read.
    pub backup: String,
    /// What it waits for, in one word: `Queued` for its turn, while runs, restores, another verification or the policy's retention are
    /// under way; else why its store cannot be read from.
    pub reason: Reason,
    /// What it waits for, in one line.
    pub message: String,
}

fn default_max_backups() -> i32 {
    3
}

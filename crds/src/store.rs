//! `BackupStore`: one place in S3-compatible storage. Pure data.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::names::{data_key, object_name};
use crate::{ConfigMapKey, JobTemplate};

/// One place in S3-compatible storage where backups are kept, and the credentials to reach it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "BackupStore",
    namespaced,
    status = "BackupStoreStatus",
    shortname = "bstore",
    category = "holdfast",
    derive = "PartialEq",
    doc = "BackupStore is one place in S3-compatible storage, proved by a short Job that writes, reads, lists and deletes a canary object.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Bucket", type_ = "string", json_path = ".spec.s3.bucket"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".spec.s3.prefix"),
    printcolumn(name = "Probed", type_ = "date", json_path = ".status.lastProbeTime"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.s3.endpoint", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct BackupStoreSpec {
    /// Where in S3-compatible storage the backups live.
    pub s3: S3Spec,
    /// Client-side encryption with age. Absent: backups are stored as they are, and the condition Encrypted says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// At most this many runs write to this store at the same time; the others wait for their turn, the earliest slot first. Absent: as
    /// many as the installation allows (`maxConcurrentRuns` of the chart).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_concurrent_runs: Option<i32>,
    /// Only restore from this store: nothing in it is ever written or deleted. For disaster recovery.
    #[serde(default)]
    pub read_only: bool,
    /// The credentials may write and may not delete: nothing in this store is ever deleted. The probe leaves its canary object there, the
    /// retention of policies is off, and they say so, and a Backup with `deletionPolicy: Delete` waits and says what for. What is old goes by
    /// a lifecycle rule of the bucket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub append_only: bool,
    /// Where and how all Jobs that work with this store run, its probe among them; over what the chart says. A policy and a request can say
    /// otherwise for their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_template: Option<JobTemplate>,
}

/// A bucket of an S3-compatible service and how to reach it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Spec {
    /// Name of the bucket. It must exist: Holdfast never creates one.
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$')").message(
        "must be the name of an S3 bucket: 3 to 63 lower-case letters, digits, dots and hyphens, without a path (put the path into prefix)"
    ))]
    pub bucket: String,
    /// Path in the bucket below which everything is stored: objects live under `<prefix>/<namespace>/<policy>/…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self == '' || (self.matches('^[A-Za-z0-9._=@-]+(/[A-Za-z0-9._=@-]+)*$') && !self.split('/').exists(s, s == '.' || s == '..'))").message(
        "must be a path without a slash at its ends, of letters, digits and . _ = @ -, such as prod or backups/prod"
    ))]
    pub prefix: Option<String>,
    /// URL of the service, such as `http://s3.storage.svc:8333`. Absent: Amazon S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("isURL(self) && (url(self).getScheme() == 'http' || url(self).getScheme() == 'https')").message(
        "must be a URL with its scheme, such as https://s3.example.com or http://s3.storage.svc:8333"
    ))]
    pub endpoint: Option<String>,
    /// Region of the bucket. S3-compatible services mostly accept the default.
    #[serde(default = "default_region")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')").message(
        "must be the name of a region: letters, digits and hyphens, such as eu-central-1"
    ))]
    pub region: String,
    /// Address the bucket in the path (`endpoint/bucket`) rather than in the host name. Default: true when `endpoint` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// Name of a Secret in this namespace with the keys `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and optionally
    /// `AWS_SESSION_TOKEN`. Absent: the ambient identity of the Jobs (see `serviceAccountName`). Only the kubelet reads it;
    /// a rotated Secret is picked up by running Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub credentials_secret: Option<String>,
    /// Certificates (PEM) to trust instead of the public ones, for a service with a certificate of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<ConfigMapKey>,
    /// ServiceAccount in this namespace that the Jobs run as, for workload identity. Absent: Jobs mount no token at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub service_account_name: Option<String>,
    /// How the service encrypts what it stores, for a bucket whose policy demands that each request says so. Absent: as the bucket is set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<ServerSideEncryption>,
    /// Storage class of everything that is stored, such as `STANDARD_IA`. Absent: the service's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9_.-]*$') && !(self in ['GLACIER', 'DEEP_ARCHIVE'])").message(
        "must be the name of a storage class whose objects can be read at once, such as STANDARD_IA or GLACIER_IR: not GLACIER, not DEEP_ARCHIVE"
    ))]
    pub storage_class: Option<String>,
    /// Tags of every object that is stored; Amazon's services ask for the right `s3:PutObjectTagging` then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bound_tags)]
    #[x_kube(validation = Rule::new("self.all(k, size(k) >= 1 && size(k) <= 128 && self[k].matches('^[A-Za-z0-9 +=._:/@-]*$'))").message(
        "the value of a tag is made of letters, digits, spaces and + - = . _ : / @, and its key has 1 to 128 characters"
    ))]
    pub tags: BTreeMap<String, String>,
}

/// Encryption by the service.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.kms) != has(self.aes256)").message("set exactly one of kms: {keyId: …} and aes256: {}"))]
pub struct ServerSideEncryption {
    /// With a key of the service's key management (SSE-KMS). The credentials need `kms:GenerateDataKey` and `kms:Decrypt` on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<KmsEncryption>,
    /// With keys that the service keeps itself (SSE-S3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aes256: Option<Aes256Encryption>,
}

/// A key of the service's key management.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KmsEncryption {
    /// ID, ARN or alias of the key. Absent: the one that the service uses for the account or the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9:/_.-]+$')").message(
        "must be the ID, the ARN or the alias of a key, such as arn:aws:kms:eu-central-1:111122223333:key/1234abcd-…"
    ))]
    pub key_id: Option<String>,
}

/// Keys that the service keeps itself: there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Aes256Encryption {}

impl S3Spec {
    /// Whether the bucket is addressed in the path: as set, else true for every service but Amazon's own.
    pub fn uses_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }

    /// Where it keeps things, whatever its credentials are: `s3://bucket/prefix at endpoint`.
    pub fn place(&self) -> String {
        let at = self.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        let prefix = if self.prefix().is_empty() { String::new() } else { format!("/{}", self.prefix()) };
        format!("s3://{}{prefix}{at}", self.bucket)
    }

    /// The prefix without slashes at its ends; empty when there is none.
    pub fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or_default().trim_matches('/')
    }
}

/// Client-side encryption of everything that is stored.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionSpec {
    /// Public keys of age (`age1…`, as `age-keygen -y` prints them) that backups are encrypted to: each of their owners can decrypt.
    /// A backup needs nothing else. To rotate, replace the key here and keep the old identity in `identitySecret`.
    #[schemars(length(min = 1, max = 16), inner(length(max = 2048)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("!self.exists(r, r.startsWith('age1pq1') || r.startsWith('age1tag'))").message(
        "hybrid post-quantum recipients (age1pq1…) and those in hardware (age1tag…) are not accepted in this version: nothing in a Job could decrypt them again"
    ))]
    #[x_kube(validation = Rule::new("self.all(r, r.matches('^age1[02-9ac-hj-np-z]{58}$'))").message(
        "every recipient must be a public key of age: age1 and 58 more characters, as age-keygen -y prints it"
    ))]
    pub recipients: Vec<String>,
    /// Secret with the private keys (`AGE-SECRET-KEY-1…`, one a line): mounted into the Jobs of restores and
    /// verifications alone. Backups do not need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_secret: Option<SecretKey>,
}

/// One key of a Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = data_key())]
    pub key: String,
}

/// What is known of a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStoreStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (reasons: Probing, Probed, CredentialsRejected, BucketNotFound, Unreachable, ClockSkew, SecretNotFound, …) and `Encrypted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What the worst of the conditions says, in one word: what is wrong where something is, else the state of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the last probe ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// The newest run or restore that failed on the store and that a probe has looked into since: when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_suspected_time: Option<Time>,
    /// How many probes in a row told nothing of the store, because their Pods were lost or never started. `Ready` stays as it was until
    /// three did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_probes: Option<i32>,
    /// That the last probe found nothing of this namespace in the bucket. A policy that was there by then has no backups of earlier times
    /// to look for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty: Option<EmptyStatus>,
    /// The newest runs of policies that the last probe did not find in the bucket. Absent: it found all that it looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingStatus>,
}

/// Runs that should be in the bucket and are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissingStatus {
    /// The place: bucket, prefix and service.
    pub place: String,
    /// When the probe that looked for them was started.
    pub time: Time,
    /// The runs: policy and folder, such as `shop/20261121T020000Z-3f9a1c`, the first thirty of them.
    pub runs: Vec<String>,
}

/// Where and when nothing of a namespace was in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmptyStatus {
    /// The place: bucket, prefix and service.
    pub place: String,
    /// When it was listed.
    pub time: Time,
}

/// Bounds of S3, which the rule needs too: the API server weighs it by the largest value that it may see.
fn bound_tags(schema: &mut Schema) {
    schema.insert("maxProperties".to_owned(), json!(10));
    if let Some(value) = schema.get_mut("additionalProperties").and_then(serde_json::Value::as_object_mut) {
        value.insert("maxLength".to_owned(), json!(256));
    }
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

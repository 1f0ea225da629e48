//! The contract between the controller and a worker: the task in, the report out. Pure.
//!
//! The controller writes the task as JSON into environment variables of the Job's container, [`TASK_ENV`] first. It names files and folders
//! where the kubelet mounts Secrets and ConfigMaps, never what is in them. The worker answers with its exit code and a [`Report`] in the
//! Pod's termination message.

mod environment;
mod failure;
mod globs;
mod patience;
mod report;
mod server;
mod writer;

use std::path::PathBuf;

use holdfast_crds::{OnExisting, OnUnrestorable, RetentionSpec, S3Spec, Source, TlsSpec};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use environment::MOST_IN_A_VARIABLE;
pub use failure::Failure;
pub use globs::Globs;
pub use patience::StorePatience;
pub use report::{
    BackupReport, CatalogueReport, FoundRun, Outcome, ProbeReport, Report, RestoreReport, RestoredSource, RetainReport,
    Span, TERMINATION_MESSAGE_LIMIT, VerifyReport,
};
pub use server::server_key;
pub use writer::{Writer, Writers};

/// Environment variable that carries the task, as JSON, or the first part of it.
pub const TASK_ENV: &str = "HOLDFAST_TASK";
/// Environment variable with the Pod's name, by the downward API: it makes the names of an attempt its own.
pub const POD_NAME_ENV: &str = "HOLDFAST_POD_NAME";
/// Where the kubelet reads the termination message.
pub const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// A host as libraries take it: an address of IPv6 without the brackets that it has in a URL.
pub fn bare_host(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// A host as it is written before a colon and a port.
pub fn host_before_port(host: &str) -> String {
    let bare = bare_host(host);
    if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() }
}

/// For how many seconds a probe may take: it is to tell soon.
pub const PROBE_SECONDS: i64 = 150;

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
#[allow(clippy::large_enum_variant, reason = "there is one of them at a time")]
pub enum Task {
    /// Prove a store: write, read, list and delete a canary object (a read-only store: list).
    Probe(ProbeTask),
    /// Save one source of a run.
    Backup(Box<BackupTask>),
    /// Apply a policy's retention to the bucket.
    Retain(RetainTask),
    /// Delete the data of one run.
    Delete(DeleteTask),
    /// Tell which complete runs of a policy are in the bucket.
    Catalogue(CatalogueTask),
    /// Bring one restore point back.
    Restore(Box<RestoreTask>),
    /// Read one run to its end and prove that it can be restored.
    Verify(VerifyTask),
    /// Undo what a restore that was cut off has left half done in volumes.
    Settle(SettleTask),
}

impl Task {
    /// The worker's subcommand for this task.
    pub fn subcommand(&self) -> &'static str {
        match self {
            Self::Probe(_) => "probe",
            Self::Backup(_) => "backup",
            Self::Retain(_) => "retain",
            Self::Delete(_) => "delete",
            Self::Catalogue(_) => "catalogue",
            Self::Restore(_) => "restore",
            Self::Verify(_) => "verify",
            Self::Settle(_) => "settle",
        }
    }
}

/// A store as a worker sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreTask {
    /// Name of the BackupStore, for messages.
    pub name: String,
    /// Where the bucket is.
    pub s3: S3Spec,
    /// Never write or delete.
    #[serde(default)]
    pub read_only: bool,
    /// Never delete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub append_only: bool,
    /// Folder with the files `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and maybe `AWS_SESSION_TOKEN`, read anew when they change.
    /// Absent: the ambient identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// File with the certificates (PEM) to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Public keys that backups are encrypted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// File with the private keys. Only a restore and a verification have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// What they come from, for messages: `Secret age (key identity)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_secret: Option<String>,
    /// How long the store is waited for.
    #[serde(default, skip_serializing_if = "StorePatience::is_default")]
    pub patience: StorePatience,
}

/// Whose backups: `<prefix>/<namespace>/<policy>/` in the bucket, and who owns them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// UID of the cluster: that of its `kube-system` namespace.
    pub cluster_uid: String,
    /// Namespace of the policy.
    pub namespace: String,
    /// Name of the policy.
    pub policy: String,
    /// UID of the policy; empty where a restore needs no policy object.
    #[serde(default)]
    pub policy_uid: String,
}

/// Where the kubelet put what a source or a target needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mounts {
    /// Folder with the file `password` and, where the source has a user's name, `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// File with the connection string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<PathBuf>,
    /// File with the certificates (PEM) to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Folder with the files to save or to write: a claim's root, or `configmaps/<name>/<key>` and `secrets/<name>/<key>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// What credentials or connection string come from, for messages: `Secret postgres (keys username and password)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// What the certificates come from, for messages: `ConfigMap authorities (key ca.crt)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
}

/// How engines write of the Secret whose name they are not told.
pub const THE_SECRET: &str = "the Secret";
/// How engines write of the certificates to trust.
pub const CA_BUNDLE: &str = "tls.caBundle";

impl Mounts {
    /// A failure of an engine with the names of the objects that it writes of.
    #[must_use]
    pub fn named_in(&self, failure: Failure) -> Failure {
        let mut message = failure.message;
        if let Some(secret) = &self.secret {
            message = message.replace(THE_SECRET, secret);
        }
        if let Some(authorities) = &self.authorities {
            message = message.replace(CA_BUNDLE, &format!("{CA_BUNDLE}, {authorities}"));
        }
        Failure::new(failure.reason, message)
    }
}

/// Prove a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeTask {
    /// The store to prove.
    pub store: StoreTask,
    /// The store's namespace: it is told whether anything of it is in the bucket.
    pub namespace: String,
    /// Runs that should be there, the newest of each policy: `<policy>/<runId>/<source>`. It is told which of them are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub newest: Vec<String>,
}

/// Save one source of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTask {
    /// Where to.
    pub store: StoreTask,
    /// Whose.
    pub scope: Scope,
    /// Name of the Backup.
    pub backup: String,
    /// The run's folder.
    pub run_id: String,
    /// The instant the run stands for.
    pub slot: Timestamp,
    /// Whether the schedule gave it this instant: then no second run of the same Backup is stored for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// The controller that began the run, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<Writer>,
    /// Names of all sources of the run, so that a listing alone tells a complete run from a partial one.
    pub run_sources: Vec<String>,
    /// What to save.
    pub source: Source,
    /// The RestoreRequest that is about to replace what is saved. Where there is nothing yet, nothing is saved, and that is no failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_for: Option<String>,
    /// Its Secrets and certificates.
    pub mounts: Mounts,
    /// zstd level; 0 = off.
    pub level: i32,
    /// Seconds after which the worker gives up (DeadlineExceeded).
    pub timeout_seconds: i64,
    /// Seconds without a moved byte after which the worker gives up (Stalled).
    pub idle_timeout_seconds: i64,
}

/// Apply retention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetainTask {
    /// Where.
    pub store: StoreTask,
    /// Whose.
    pub scope: Scope,
    /// The rules.
    pub retention: RetentionSpec,
    /// Time zone in which days, weeks, months and years are counted.
    pub time_zone: String,
    /// Runs that the cluster knows to be complete: where the listing lacks one that is there, it is in doubt and nothing is deleted.
    pub known: Vec<KnownRun>,
    /// Runs that are under way or that a restore reads from: never deleted.
    pub protected: Vec<String>,
    /// How many runs to delete at the most, oldest first; the rest is for the next time.
    pub limit: usize,
    /// Who may have begun the policy's runs. Where anybody else has, nothing is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writers: Option<Writers>,
    /// A partial run goes only when it is older than the newest complete one by more than this many seconds: the policy's
    /// `timeoutSeconds` and a day.
    #[serde(default = "default_grace_seconds")]
    pub grace_seconds: i64,
}

/// A run that the cluster knows to be complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownRun {
    /// Its folder.
    pub run_id: String,
    /// Names of its sources.
    pub sources: Vec<String>,
    /// Whether it is too small to be believed: retention keeps the newest one that is not beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspicious: bool,
    /// Whether its Backup was made of what was found in the bucket: this cluster need not have made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
    /// Whether a verification found it damaged: it takes no whole run's place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
}

/// The longest timeout a policy can have, and a day.
fn default_grace_seconds() -> i64 {
    2_592_000 + 86_400
}

/// Delete the data of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteTask {
    /// Where.
    pub store: StoreTask,
    /// Whose.
    pub scope: Scope,
    /// Which.
    pub run_id: String,
}

/// Tell which complete runs of a policy are in the bucket. Nothing is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueTask {
    /// Where.
    pub store: StoreTask,
    /// Whose.
    pub scope: Scope,
    /// Runs that need not be told.
    pub known: Vec<String>,
    /// Of the known runs those that should be there, `<runId>/<source>` with one of their sources, the newest first: it is told of each
    /// whether it is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// Whether runs that this very policy made are told, too. Else each of them has its Backup, or had one that somebody deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// How many to tell at the most, newest first. Fewer are told where they do not fit into a termination message.
    pub limit: usize,
}

/// Read one run to its end and prove that it can be restored. Nothing is written, and there is no target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyTask {
    /// Where.
    pub store: StoreTask,
    /// Whose.
    pub scope: Scope,
    /// Which.
    pub run_id: String,
    /// Names of all its sources.
    pub sources: Vec<String>,
    /// Seconds after which the worker gives up (DeadlineExceeded).
    pub timeout_seconds: i64,
    /// Seconds without a moved byte after which the worker gives up (Stalled).
    pub idle_timeout_seconds: i64,
}

/// Which run of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Select {
    /// This one.
    RunId(String),
    /// The newest complete one at or before this instant; null: the newest.
    At(Option<Timestamp>),
}

/// Bring one restore point back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTask {
    /// Where from.
    pub store: StoreTask,
    /// Whose.
    pub scope: Scope,
    /// Name of the RestoreRequest.
    pub request: String,
    /// UID of the RestoreRequest.
    pub request_uid: String,
    /// Which run.
    pub select: Select,
    /// UID of the cluster that made it, where the request says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Which sources; absent: all of the run, each of which needs an entry in `targets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
    /// Where each source goes.
    pub targets: Vec<RestoreTarget>,
    /// What to do with a target that holds data.
    pub on_existing: OnExisting,
    /// Only look, and report what would be done or what stands in the way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Of a dry run: claims that are not there and that the restore would make. Their targets have nothing mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims_to_make: Vec<String>,
    /// Seconds after which the worker gives up (DeadlineExceeded).
    pub timeout_seconds: i64,
    /// Seconds without a moved byte after which the worker gives up (Stalled).
    pub idle_timeout_seconds: i64,
}

/// Undo what a restore that was cut off has left half done in volumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleTask {
    /// Where the restore read from.
    pub store: StoreTask,
    /// The claims that it wrote into.
    pub targets: Vec<RestoreTarget>,
}

/// Where one source goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTarget {
    /// Name of the source.
    pub source: String,
    /// Its Secrets and certificates.
    pub mounts: Mounts,
    /// The server.
    pub server: Target,
}

/// A target, by engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// A Postgres server.
    Postgres(PostgresTarget),
    /// A MongoDB deployment.
    Mongodb(MongodbTarget),
    /// A Redis server.
    Redis(RedisTarget),
    /// A claim.
    Volume(VolumeTarget),
    /// A claim that configuration is written into, as files.
    Config(ConfigTarget),
}

impl Target {
    /// The claim, where it is one.
    pub fn claim_name(&self) -> Option<&str> {
        match self {
            Self::Volume(volume) => Some(&volume.claim_name),
            Self::Config(config) => Some(&config.claim_name),
            Self::Postgres(_) | Self::Mongodb(_) | Self::Redis(_) => None,
        }
    }
}

/// A Postgres server to restore into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresTarget {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: i32,
    /// Database, where it is not the one that was saved. Only for a source with a single database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Encryption of the connection.
    #[serde(default)]
    pub tls: TlsSpec,
    /// What happens to what the role may not bring back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unrestorable: Option<OnUnrestorable>,
}

/// A MongoDB deployment to restore into. Where the mounts hold a connection string, that says host and port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MongodbTarget {
    /// Host name or address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Database, where it is not the one that was saved. Only for a source with a single database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Patterns of collections to restore; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_collections: Vec<String>,
    /// Patterns of collections to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_collections: Vec<String>,
    /// Patterns of indexes to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_indexes: Vec<String>,
    /// Pass by the validation of the collections.
    #[serde(default)]
    pub bypass_validation: bool,
    /// Bring back users and roles.
    #[serde(default)]
    pub include_users_and_roles: bool,
    /// What the safety backup holds, where one was made of a part only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<CollectionFilter>,
    /// Encryption of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// Which collections are meant, as a policy's source writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectionFilter {
    /// Patterns of those that are; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Patterns of those that are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// A Redis server to restore into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisTarget {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: i32,
    /// Number of the database, where it is not the one that was saved. Only for a source with keys in a single database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<i32>,
    /// Encryption of the connection.
    #[serde(default)]
    pub tls: TlsSpec,
}

/// A claim to restore into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeTarget {
    /// Name of the claim, for messages.
    pub claim_name: String,
    /// Only these paths; empty: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Whether setuid, setgid and capabilities of files come back too.
    #[serde(default)]
    pub keep_privileges: bool,
    /// What the policy's source saves by now, for a backup whose manifest does not tell what it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saves: Option<PathFilter>,
    /// What of the claim the safety backup holds, where one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<PathFilter>,
}

/// Which paths of a volume are meant, as a policy's source writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathFilter {
    /// Globs of what is meant; empty: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Globs of what is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

impl PathFilter {
    /// Whether everything is meant.
    pub fn takes_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// A claim to write configuration into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigTarget {
    /// Name of the claim, for messages.
    pub claim_name: String,
}

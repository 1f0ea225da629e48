//! The API of Holdfast: four kinds in the group `holdfast.dev`, their rules, their words. Acts on nothing.

// Every printed column repeats `type_` and `json_path`: the lint does not see that each belongs to a column of its own.
#![allow(clippy::duplicated_attributes)]

mod backup;
mod condition;
mod generate;
mod job_template;
mod max_age;
mod names;
mod policy;
mod reason;
mod restore;
mod retention;
mod source;
mod store;
mod verify;

pub use backup::{ArtifactStatus, Backup, BackupPhase, BackupSpec, BackupStatus, DeletionPolicy};
pub use condition::{ConditionType, condition, is_true, merge_conditions};
pub use generate::{all, to_yaml};
pub use job_template::{EnvironmentVariable, JobSecurityContext, JobTemplate, problem_of_variable};
pub use max_age::MaxAge;
pub use policy::{
    BackupCounts, BackupPolicy, BackupPolicySpec, BackupPolicyStatus, CatalogueStatus, CompressionSpec, LastBackup,
    PlausibilitySpec, RecoveryWindow, WriterStatus,
};
pub use reason::{Reason, Retry};
pub use restore::{
    OnExisting, RestoreFrom, RestoreFromPolicy, RestoreFromStore, RestoreInto, RestoreRequest, RestoreRequestSpec,
    RestoreRequestStatus, RestoreSourceStatus, ScaleTarget, ScaledWorkload, WorkloadKind,
};
pub use retention::{KeepWithin, RetentionSpec};
pub use source::{
    AccessMode, ClaimTemplate, ConfigInto, ConfigSource, Engine, MongodbFormat, MongodbInto, MongodbSource,
    OnUnreadable, OnUnrestorable, PasswordSecret, PostgresDatabases, PostgresFormat, PostgresInto, PostgresSource,
    RedisInto, RedisSecret, RedisSource, RunAs, Source, TlsMode, TlsSpec, VolumeInto, VolumeSource,
};
pub use store::{
    Aes256Encryption, BackupStore, BackupStoreSpec, BackupStoreStatus, EmptyStatus, EncryptionSpec, KmsEncryption,
    MissingStatus, S3Spec, SecretKey, ServerSideEncryption,
};
pub use verify::{PolicyVerification, VerificationStatus, VerificationWait, VerifySpec};

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The API group of all kinds.
pub const GROUP: &str = "holdfast.dev";
/// The API version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// The name of an object in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Name of the object, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = names::object_name())]
    pub name: String,
}

/// One key of a ConfigMap in the same namespace, which holds PEM certificates.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of the ConfigMap, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = names::object_name())]
    pub config_map: String,
    /// Key in the ConfigMap, for example `ca.crt`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = names::data_key())]
    pub key: String,
}

//! Sources: what a policy saves, one file an engine. Pure data.

mod config;
mod mongodb;
mod postgres;
mod redis;
mod volume;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{data_key, object_name};

use crate::ConfigMapKey;
pub use config::{ConfigInto, ConfigSource};
pub use mongodb::{MongodbFormat, MongodbInto, MongodbSource};
pub use postgres::{OnUnrestorable, PostgresDatabases, PostgresFormat, PostgresInto, PostgresSource};
pub use redis::{RedisInto, RedisSecret, RedisSource};
pub use volume::{AccessMode, ClaimTemplate, OnUnreadable, RunAs, VolumeInto, VolumeSource};

/// One thing to save. It has a name, unique in its policy, and exactly one engine.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(has(self.postgres) ? 1 : 0) + (has(self.mongodb) ? 1 : 0) + (has(self.redis) ? 1 : 0) + (has(self.volume) ? 1 : 0) + (has(self.config) ? 1 : 0) == 1"
).message(
    "a source needs exactly one engine, one of postgres, mongodb, redis, volume and config: write for example postgres: {host: …, database: …, credentialsSecret: {name: …}}"
))]
pub struct Source {
    /// Name of the source: a folder in the bucket, and what `sources` and `into` of other objects refer to. It should never change.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message(
        "must be lower-case letters, digits and hyphens, such as db"
    ))]
    pub name: String,
    /// A PostgreSQL server, dumped with pg_dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSource>,
    /// A MongoDB deployment, read over its wire protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mongodb: Option<MongodbSource>,
    /// A Redis or Valkey server, read as a replica reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisSource>,
    /// A volume of files: a PersistentVolumeClaim, as a tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSource>,
    /// ConfigMaps and Secrets of the application, as a tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigSource>,
}

/// The engine of a source, as one value to match on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Engine<'a> {
    /// PostgreSQL, by pg_dump and pg_restore.
    Postgres(&'a PostgresSource),
    /// MongoDB, over its wire protocol.
    Mongodb(&'a MongodbSource),
    /// Redis, over the replication protocol.
    Redis(&'a RedisSource),
    /// A claim, as a tar.
    Volume(&'a VolumeSource),
    /// ConfigMaps and Secrets, as a tar.
    Config(&'a ConfigSource),
}

impl Engine<'_> {
    /// The engine's name as manifests, metrics and messages write it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Mongodb(_) => "mongodb",
            Self::Redis(_) => "redis",
            Self::Volume(_) => "volume",
            Self::Config(_) => "config",
        }
    }
}

impl Source {
    /// The engine, or none where the object came past admission without one.
    pub fn engine(&self) -> Option<Engine<'_>> {
        let postgres = self.postgres.as_ref().map(Engine::Postgres);
        postgres
            .or_else(|| self.mongodb.as_ref().map(Engine::Mongodb))
            .or_else(|| self.redis.as_ref().map(Engine::Redis))
            .or_else(|| self.volume.as_ref().map(Engine::Volume))
            .or_else(|| self.config.as_ref().map(Engine::Config))
    }
}

/// A Secret with a user's name and password.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSecret {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub name: String,
    /// Key that holds the user's name.
    #[serde(default = "default_username_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = data_key())]
    pub username_key: String,
    /// Key that holds the password.
    #[serde(default = "default_password_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = data_key())]
    pub password_key: String,
}

/// Encryption of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// How much the connection is protected.
    #[serde(default)]
    pub mode: TlsMode,
    /// Certificates (PEM) to trust for VerifyCa and VerifyFull. Absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<ConfigMapKey>,
}

/// How much a connection is protected, in libpq's terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server offers it. The default.
    #[default]
    Prefer,
    /// Encrypted, whoever the server is.
    Require,
    /// Encrypted, with a certificate of a trusted authority.
    VerifyCa,
    /// Encrypted, with a certificate of a trusted authority for this very host name.
    VerifyFull,
}

fn default_username_key() -> String {
    "username".to_owned()
}

fn default_password_key() -> String {
    "password".to_owned()
}

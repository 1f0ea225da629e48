//! Redis as a source and as a target. Pure data.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::names::{data_key, host, object_name};

use super::TlsSpec;

/// A Redis or Valkey server.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisSource {
    /// Host name or address of the server.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = host())]
    pub host: String,
    /// Port of the server.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Secret in this namespace with the password, and the user's name where it is not `default`. Absent: no authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<RedisSecret>,
    /// Whether and how the connection is encrypted.
    #[serde(default)]
    pub tls: TlsSpec,
}

/// Where a Redis source is restored to: every field that is set overrides the source's own.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisInto {
    /// Host name or address of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = host())]
    pub host: Option<String>,
    /// Port of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Secret in this namespace with the password, and the user's name where it is not `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<RedisSecret>,
    /// Number of the database to restore into. Only for a backup that holds keys in a single database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub database: Option<i32>,
    /// Whether and how the connection is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// A Secret with a password and, where there is one, a user's name.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisSecret {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub name: String,
    /// Key that holds the user's name. Absent: the user `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = data_key())]
    pub username_key: Option<String>,
    /// Key that holds the password.
    #[serde(default = "super::default_password_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = data_key())]
    pub password_key: String,
}

fn default_port() -> i32 {
    6379
}

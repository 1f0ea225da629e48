//! MongoDB as a source and as a target. Pure data.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::host;

use super::{PasswordSecret, TlsSpec};
use crate::SecretKey;

/// A MongoDB deployment and what of it to save.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.uriSecret) != has(self.host)").message(
    "set exactly one of uriSecret: {name: …, key: …} and host: … (with credentialsSecret: {name: …} where the server asks for a password)"
))]
#[x_kube(validation = Rule::new("!has(self.uriSecret) || !(has(self.port) || has(self.credentialsSecret))").message(
    "port and credentialsSecret go with host: a connection string says them itself"
))]
#[x_kube(validation = Rule::new("!has(self.tls) || has(self.tls.mode) && self.tls.mode in ['Disable', 'Require', 'VerifyFull']").message(
    "MongoDB's connections are encrypted or not: set tls.mode to Disable, Require or VerifyFull"
))]
#[x_kube(validation = Rule::new("!(has(self.includeUsersAndRoles) && self.includeUsersAndRoles) || !has(self.format) || self.format == 'Archive'").message(
    "only an archive can hold users and roles: set format: Archive, or leave includeUsersAndRoles out"
))]
pub struct MongodbSource {
    /// Secret in this namespace with a connection string (`mongodb://` or `mongodb+srv://`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri_secret: Option<SecretKey>,
    /// Host name or address of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = host())]
    pub host: Option<String>,
    /// Port of the server. Absent: 27017.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Secret in this namespace with the user's name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<PasswordSecret>,
    /// The one database to save. Absent: all but admin, config and local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,
    /// Patterns of collections to save, such as `orders_*`. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)))]
    pub include_collections: Vec<String>,
    /// Patterns of collections to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)))]
    pub exclude_collections: Vec<String>,
    /// Format of the artifact.
    #[serde(default)]
    pub format: MongodbFormat,
    /// Also save users and roles, with the hashes of their passwords: those that were made in `database`, or without one all of the deployment.
    /// A restore brings them back where its `into` says so too. Needs `format: Archive`, and a store that encrypts or `allowUnencrypted`.
    #[serde(default)]
    pub include_users_and_roles: bool,
    /// Store hashes of passwords although the store does not encrypt: whoever can read the bucket can try to guess the passwords.
    #[serde(default)]
    pub allow_unencrypted: bool,
    /// Whether and how the connection is encrypted: Disable, Require or VerifyFull. Absent: as the connection string says; with `host` it is
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// Where a MongoDB source is restored to: every field that is set overrides the source's own.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.uriSecret) && has(self.host))").message("set uriSecret or host, not both"))]
#[x_kube(validation = Rule::new("!has(self.tls) || has(self.tls.mode) && self.tls.mode in ['Disable', 'Require', 'VerifyFull']").message(
    "MongoDB's connections are encrypted or not: set tls.mode to Disable, Require or VerifyFull"
))]
pub struct MongodbInto {
    /// Secret in this namespace with a connection string (`mongodb://` or `mongodb+srv://`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri_secret: Option<SecretKey>,
    /// Host name or address of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = host())]
    pub host: Option<String>,
    /// Port of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Secret in this namespace with the user's name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<PasswordSecret>,
    /// Database to restore into. Only for a backup of a single database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,
    /// Patterns of collections to restore. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)))]
    pub include_collections: Vec<String>,
    /// Patterns of collections to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)))]
    pub exclude_collections: Vec<String>,
    /// Patterns of indexes to leave out, of their names or of `collection.index`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)))]
    pub exclude_indexes: Vec<String>,
    /// Insert documents that the validation of their own collection refuses. Without it such a document makes the restore fail.
    #[serde(default)]
    pub bypass_validation: bool,
    /// Also bring back the users and roles that the backup holds, with their passwords: those of the databases that are restored. One that is
    /// there already and is another: with `onExisting: Fail` nothing is touched, with `Replace` it becomes what it was. All others stay as they
    /// are, and so does the user who restores.
    #[serde(default)]
    pub include_users_and_roles: bool,
    /// Whether and how the connection is encrypted: Disable, Require or VerifyFull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// Format of a MongoDB artifact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MongodbFormat {
    /// mongodump's archive format (`.archive`), for `mongorestore --archive`. The default.
    #[default]
    Archive,
    /// One file of canonical extended JSON a collection, one document a line, and a summary.
    Json,
}

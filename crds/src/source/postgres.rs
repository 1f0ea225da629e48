//! PostgreSQL as a source and as a target. Pure data.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{host, table_patterns};

use super::{PasswordSecret, TlsSpec};

/// A PostgreSQL server and which of its databases to save.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(has(self.database) ? 1 : 0) + (has(self.databases) ? 1 : 0) + (has(self.allDatabases) && self.allDatabases ? 1 : 0) == 1"
).message("set exactly one of database: shop, databases: [shop, audit] and allDatabases: true"))]
#[x_kube(validation = Rule::new("!has(self.databases) || size(self.databases) > 0").message(
    "databases must name at least one database; for all of them write allDatabases: true"
))]
pub struct PostgresSource {
    /// Host name or address of the server.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = host())]
    pub host: String,
    /// Port of the server.
    #[serde(default = "default_postgres_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The one database to save.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,
    /// The databases to save, one artifact each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub databases: Option<Vec<String>>,
    /// Save every database of the server that accepts connections and is no template, one artifact each.
    #[serde(default)]
    pub all_databases: bool,
    /// Secret in this namespace with the user's name and password.
    pub credentials_secret: PasswordSecret,
    /// Format of the artifact.
    #[serde(default)]
    pub format: PostgresFormat,
    /// Also save roles (without their passwords) and tablespaces, as an artifact of its own.
    #[serde(default)]
    pub include_globals: bool,
    /// Patterns of tables to leave out, as pg_dump's `--exclude-table` takes them, such as `audit.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = table_patterns())]
    pub exclude_tables: Vec<String>,
    /// Whether and how the connection is encrypted.
    #[serde(default)]
    pub tls: TlsSpec,
}

/// Which databases of a server, as one value to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresDatabases<'a> {
    /// These, at least one.
    Named(&'a [String]),
    /// Every database that accepts connections and is no template.
    All,
}

impl PostgresSource {
    /// Which databases to save.
    pub fn selection(&self) -> PostgresDatabases<'_> {
        match (&self.database, &self.databases) {
            (Some(one), _) => PostgresDatabases::Named(std::slice::from_ref(one)),
            (None, Some(several)) => PostgresDatabases::Named(several),
            (None, None) => PostgresDatabases::All,
        }
    }
}

/// Where a Postgres source is restored to: every field that is set overrides the source's own.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresInto {
    /// Host name or address of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = host())]
    pub host: Option<String>,
    /// Port of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Database to restore into; created if it is missing. Only for a backup of a single database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,
    /// Secret in this namespace with the user's name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<PasswordSecret>,
    /// Whether and how the connection is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// What happens to entries of the backup that the restoring role may not bring back, or that name roles which the target lacks: Report
    /// leaves them out and says so with the statement that is missing, Fail touches nothing. Absent: Report for what only describes
    /// (comments, owners, grants), Fail for what carries meaning (policies, event triggers, publications). What holds rows is never left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unrestorable: Option<OnUnrestorable>,
}

/// What happens to what the restoring role may not bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnUnrestorable {
    /// It is left out and reported.
    Report,
    /// The restore fails before anything is touched.
    Fail,
}

/// Format of a Postgres artifact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PostgresFormat {
    /// pg_dump's custom format (`.pgdump`), for pg_restore. The default: it is checked piece by piece while it streams.
    #[default]
    Custom,
    /// SQL statements (`.sql`), for psql.
    Plain,
}

fn default_postgres_port() -> i32 {
    5432
}

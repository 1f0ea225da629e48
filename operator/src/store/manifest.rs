//! `manifest.json`: the commit of a source of a run. Pure. Its fields are stated in docs/bucket.md.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_crds::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::task::{Failure, Writer};

/// The `formatVersion` this version writes. A manifest with a greater one is refused, never guessed at.
pub const FORMAT_VERSION: u32 = 1;

/// A manifest larger than this is none.
pub const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// At most this many per-item counts are kept in a manifest; the totals are always exact.
pub const MAX_ITEM_COUNTS: usize = 10_000;

/// What was stored of one source of a run. Unknown fields are kept when read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this format.
    pub format_version: u32,
    /// The run's folder.
    pub run_id: String,
    /// UID of the cluster's `kube-system` namespace.
    pub cluster_uid: String,
    /// Namespace of the policy.
    pub namespace: String,
    /// Name of the policy.
    pub policy: String,
    /// UID of the policy.
    pub policy_uid: String,
    /// Name of the source.
    pub source: String,
    /// Engine of the source.
    pub engine: String,
    /// Names of all sources of the run.
    pub run_sources: Vec<String>,
    /// The instant the run stands for.
    pub slot: Timestamp,
    /// When this source's dump began.
    pub start_time: Timestamp,
    /// When everything but this manifest was stored.
    pub end_time: Timestamp,
    /// What was stored.
    pub artifacts: Vec<ArtifactEntry>,
    /// Tables, documents, keys or files, of all artifacts.
    pub items: i64,
    /// `snapshot`: all of one instant; `fuzzy`: not so.
    pub consistency: String,
    /// Version of the server.
    pub server_version: String,
    /// Tool with its version.
    pub tool_version: String,
    /// Version of Holdfast that wrote it.
    pub holdfast_version: String,
    /// The controller that began the run, and when. Older versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<Writer>,
    /// Name of the Backup that the run was made for. Older versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// The RestoreRequest that replaced what is in here. Such a run is a restore point only for who names it, and no rule of retention sees
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_for: Option<String>,
    /// Of an encrypted backup: the hash of this manifest, encrypted ([`crate::store::encryption`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Where it is none, or one of a later format: [`Reason::InvalidConfiguration`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let invalid = |why: String| Failure::new(Reason::InvalidConfiguration, why);
        let version: Version = serde_json::from_slice(bytes).map_err(|e| invalid(format!("not a manifest: {e}")))?;
        if version.format_version > FORMAT_VERSION {
            return Err(invalid(format!(
                "a manifest of format {}, and this version of Holdfast knows {FORMAT_VERSION}: use the version that wrote it",
                version.format_version
            )));
        }
        serde_json::from_slice(bytes).map_err(|e| invalid(format!("not a manifest: {e}")))
    }

    /// Whether this is a manifest of a later version's format, which says nothing about its being whole.
    pub fn is_of_later_format(bytes: &[u8]) -> bool {
        serde_json::from_slice::<Version>(bytes).is_ok_and(|v| v.format_version > FORMAT_VERSION)
    }

    /// The manifest as it is stored: JSON for people, too.
    ///
    /// # Errors
    /// Where it is larger than [`MAX_MANIFEST_BYTES`]: [`Reason::InvalidConfiguration`].
    pub fn to_bytes(&self) -> Result<Bytes, Failure> {
        let invalid = |why: String| Failure::new(Reason::InvalidConfiguration, why);
        let mut json =
            serde_json::to_vec_pretty(self).map_err(|e| invalid(format!("the manifest cannot be written: {e}")))?;
        json.push(b'\n');
        if json.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(invalid(format!("the manifest would have {} bytes: split the source", json.len())));
        }
        Ok(Bytes::from(json))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    format_version: u32,
}

/// One object of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactEntry {
    /// Its key in the bucket.
    pub key: String,
    /// Its name without attempt and endings, such as `shop.pgdump`.
    pub name: String,
    /// `pgdump-custom`, `sql`, `sql-globals`, …
    pub format: String,
    /// The database it holds, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Size of the object.
    pub stored_bytes: u64,
    /// Size of what is in it.
    pub source_bytes: u64,
    /// SHA-256 of the object, hex.
    pub stored_sha256: String,
    /// `zstd` or `none`.
    pub compression: String,
    /// IDs of the public keys it is encrypted to: the first eight bytes of their SHA-256, hex. Empty: not encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encryption_key_ids: Vec<String>,
    /// How many tables, documents, keys or files are in it.
    pub items: i64,
    /// How many rows, documents or keys each table, collection or keyspace holds; the first [`MAX_ITEM_COUNTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub item_counts: Vec<ItemCount>,
    /// Roles that own something in it or were granted something on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Extensions installed in the database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// What else a restore needs to know, by the engine's own names: encoding, locale, owner, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// One table, collection, keyspace or file, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemCount {
    /// Its name, as SQL writes it and quoted where it must be: `public.orders`, `"odd schema"."odd table"`.
    pub name: String,
    /// Rows, documents, keys or bytes.
    pub count: i64,
}

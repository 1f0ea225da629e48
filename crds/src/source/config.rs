//! ConfigMaps and Secrets as a source and as a target. Pure data.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::names::{object_name, object_names};

/// ConfigMaps and Secrets of the application. The kubelet mounts them; Holdfast itself never reads one.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.configMaps) && size(self.configMaps) > 0 || has(self.secrets) && size(self.secrets) > 0").message(
    "must name at least one object: configMaps: [shop-env] or secrets: [shop-env]"
))]
pub struct ConfigSource {
    /// Names of ConfigMaps, in this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = object_names())]
    pub config_maps: Vec<String>,
    /// Names of Secrets, in this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = object_names())]
    pub secrets: Vec<String>,
    /// Store Secrets although the store does not encrypt: whoever can read the bucket can read them.
    #[serde(default)]
    pub allow_unencrypted: bool,
}

/// Where configuration is restored to: as files, a folder an object and a file a key.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigInto {
    /// Name of the PersistentVolumeClaim, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub claim_name: String,
    /// The user and group to write as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<super::RunAs>,
}

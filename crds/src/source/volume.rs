//! A claim as a source and as a target. Pure data.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{closed_globs, globs_inside, object_name};

/// A PersistentVolumeClaim whose files are saved.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSource {
    /// Name of the PersistentVolumeClaim, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub claim_name: String,
    /// Globs of what to save, relative to the volume's root, such as `photos` or `**/*.jpg`. What matches takes along all that is below it.
    /// Empty: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = closed_globs())]
    #[x_kube(validation = globs_inside())]
    pub include: Vec<String>,
    /// Globs of what to leave out, such as `cache/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = closed_globs())]
    #[x_kube(validation = globs_inside())]
    pub exclude: Vec<String>,
    /// What to do about files that cannot be read.
    #[serde(default)]
    pub on_unreadable: OnUnreadable,
    /// Save a volume without a single file too, instead of failing.
    #[serde(default)]
    pub allow_empty: bool,
    /// The user and group to read as, such as the owner of the files. Absent: root where the namespace's Pod Security label allows it, else
    /// a user that owns nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<RunAs>,
}

/// Where a volume is restored to: every field that is set overrides the source's own.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeInto {
    /// Name of the PersistentVolumeClaim, in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub claim_name: Option<String>,
    /// Create the claim if it is missing. It belongs to nobody and stays when the request goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<ClaimTemplate>,
    /// Only these paths: globs or names, relative to the volume's root. With `onExisting: Replace` they are replaced and all else in the
    /// volume stays. Empty: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = closed_globs())]
    #[x_kube(validation = globs_inside())]
    pub paths: Vec<String>,
    /// Bring back setuid, setgid and file capabilities too, which give rights to whoever runs a file. They are left out otherwise.
    #[serde(default)]
    pub keep_privileges: bool,
    /// The user and group to write as. Absent: the source's, or root where the namespace's Pod Security label allows it: only root can give
    /// files back to their owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<RunAs>,
}

/// A claim to create.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimTemplate {
    /// Size to ask for, such as `10Gi`.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("must be a quantity, such as 10Gi"))]
    pub size: String,
    /// Name of the StorageClass. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub storage_class_name: Option<String>,
    /// Access modes. Empty: ReadWriteOnce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub access_modes: Vec<AccessMode>,
}

/// Who can have a claim at a time, in Kubernetes' terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// The Pods of one node.
    ReadWriteOnce,
    /// Pods of many nodes, each for reading only.
    ReadOnlyMany,
    /// Pods of many nodes.
    ReadWriteMany,
    /// One Pod.
    ReadWriteOncePod,
}

impl AccessMode {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadOnlyMany => "ReadOnlyMany",
            Self::ReadWriteMany => "ReadWriteMany",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }
}

/// A user and a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunAs {
    /// Numeric id of the user.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub user: i64,
    /// Numeric id of the group.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub group: i64,
}

/// What to do about files that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnUnreadable {
    /// The run fails and names them. The default.
    #[default]
    Fail,
    /// They are left out, listed and counted.
    Skip,
}

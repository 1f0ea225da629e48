//! `JobTemplate`: how the Jobs of a store, a policy or a request look, for a cluster that has rules of its own. Pure data.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, PodDNSConfig, ResourceRequirements, SELinuxOptions, Toleration};
use kube::KubeSchema;
use kube::core::Rule;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::LocalRef;
use crate::names::object_name;

/// Where and how Jobs run. There are four levels, each over the one before it: the chart's `workers.jobTemplate`, the BackupStore's, the
/// BackupPolicy's and the RestoreRequest's. `nodeSelector`, `labels`, `annotations` and `env` are merged by key, `resources` by quantity and
/// `securityContext` by field; `tolerations` and `imagePullSecrets` of all levels count; of everything else the last level that says it wins.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplate {
    /// Resources of the worker's container. Default, where no level sets any: requests of 100m CPU and 128Mi, a limit of 512Mi memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = bound_resources)]
    #[x_kube(validation = Rule::new("!has(self.limits) || self.limits.all(k, isQuantity(self.limits[k]))").message(
        "every limit must be a quantity, such as 500m, 2 or 512Mi"
    ))]
    #[x_kube(validation = Rule::new("!has(self.requests) || self.requests.all(k, isQuantity(self.requests[k]))").message(
        "every request must be a quantity, such as 500m, 2 or 512Mi"
    ))]
    #[x_kube(validation = Rule::new("!has(self.limits) || !has(self.requests) || ['cpu', 'memory', 'ephemeral-storage'].all(k, !(k in self.requests) || !(k in self.limits) || !isQuantity(self.requests[k]) || !isQuantity(self.limits[k]) || quantity(self.requests[k]).compareTo(quantity(self.limits[k])) <= 0)").message(
        "a request is above its limit: lower the request or raise the limit"
    ))]
    pub resources: Option<ResourceRequirements>,
    /// Labels of the nodes that Jobs may run on, beside `kubernetes.io/os: linux`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bound_labels)]
    #[x_kube(validation = label_values())]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that Jobs tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(t, !has(t.operator) || t.operator in ['', 'Exists', 'Equal', 'Gt', 'Lt'])").message(
        "operator of a toleration must be Exists or Equal"
    ))]
    #[x_kube(validation = Rule::new("self.all(t, !has(t.effect) || t.effect in ['', 'NoSchedule', 'PreferNoSchedule', 'NoExecute'])").message(
        "effect of a toleration must be NoSchedule, PreferNoSchedule or NoExecute; left out it is all of them"
    ))]
    #[x_kube(validation = Rule::new("self.all(t, !has(t.operator) || t.operator != 'Exists' || !has(t.value) || t.value == '')").message(
        "a toleration with operator Exists takes any value: leave value out"
    ))]
    #[x_kube(validation = Rule::new("self.all(t, (has(t.key) && t.key != '') || (has(t.operator) && t.operator == 'Exists'))").message(
        "a toleration without a key must have operator Exists: it tolerates every taint"
    ))]
    #[x_kube(validation = Rule::new("self.all(t, !has(t.tolerationSeconds) || (has(t.effect) && t.effect == 'NoExecute'))").message(
        "tolerationSeconds of a toleration goes with effect NoExecute alone"
    ))]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the Pods. What it asks of nodes holds beside `kubernetes.io/os: linux` and the architectures of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// PriorityClass of the Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = object_name())]
    pub priority_class_name: Option<String>,
    /// Secrets in this namespace to pull the image with, beside those of the chart's `image.pullSecrets`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalRef>,
    /// Environment variables of the worker's container, such as `HTTPS_PROXY` and `NO_PROXY`. Plain values: what is secret belongs into a
    /// Secret, and has no place here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvironmentVariable>,
    /// As whom the Pods run, where that is not user and group 65532. A source's or a target's own `runAs` comes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<JobSecurityContext>,
    /// Name servers, search domains and resolver options of the Pods, beside those of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = bound_dns)]
    #[x_kube(validation = Rule::new("!has(self.nameservers) || self.nameservers.all(n, n.matches('^([0-9]{1,3}([.][0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$'))").message(
        "each entry of nameservers must be an address, such as 10.96.0.10 or fd00::a"
    ))]
    pub dns_config: Option<PodDNSConfig>,
    /// Labels added to the Jobs and their Pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bound_labels)]
    #[x_kube(validation = label_values())]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to the Pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// How many seconds a Pod may take to start. Default: 600. While a node is being scaled up, a volume made or attached, or the image
    /// pulled, it is waited for; a Pod that has not started by then ends the run. `timeoutSeconds` does not count this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub start_deadline_seconds: Option<i64>,
}

impl JobTemplate {
    /// How many seconds a Pod may take to start where no template says so.
    pub const START_DEADLINE_SECONDS: i64 = 600;

    /// How many seconds a Pod may take to start.
    pub fn start_deadline_seconds(&self) -> i64 {
        self.start_deadline_seconds.unwrap_or(Self::START_DEADLINE_SECONDS)
    }
}

/// One environment variable with a plain value.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(self.value.matches('^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@') || (self.name.matches('(?i)_PROXY$') && self.value.contains('@')))").message(SECRET_VALUE))]
pub struct EnvironmentVariable {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_]*$')").message(NOT_A_NAME))]
    #[x_kube(validation = Rule::new("!self.matches('(?i)(SECRET|PASSWORD|PASSWD|TOKEN|KEY|CREDENTIAL)')").message(SECRET_NAME))]
    #[x_kube(validation = Rule::new("!self.matches('^(HOLDFAST_|PG|LD_|PATH$|HOME$|TMPDIR$)')").message(RESERVED_NAME))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    pub value: String,
}

const NOT_A_NAME: &str =
    "must be the name of an environment variable: letters, digits and underscores, such as HTTPS_PROXY";
const SECRET_NAME: &str = "this sounds like a secret, and everybody who can read this object can read values of env: put it into a Secret that credentialsSecret or serviceAccountName refers to";
const RESERVED_NAME: &str = "the worker and its tools use this variable themselves: names that begin with HOLDFAST_, PG or LD_, and PATH, HOME and TMPDIR, cannot be set";
const SECRET_VALUE: &str = "a URL with a user's name or password in it is a secret: use a proxy that knows its clients by their network, or one beside the workers that adds the password";

/// What admission says of such a variable, for one that comes another way.
pub fn problem_of_variable(name: &str, value: &str) -> Option<&'static str> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let upper = name.to_ascii_uppercase();
    let is_proxy = upper.ends_with("_PROXY") && value.contains('@');
    let has_user = is_proxy
        || value.split_once("://").is_some_and(|(scheme, rest)| {
            let is_scheme = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'));
            is_scheme && rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
        });
    if !is_name {
        Some(NOT_A_NAME)
    } else if ["SECRET", "PASSWORD", "PASSWD", "TOKEN", "KEY", "CREDENTIAL"].iter().any(|word| upper.contains(word)) {
        Some(SECRET_NAME)
    } else if ["HOLDFAST_", "PG", "LD_"].iter().any(|start| name.starts_with(start))
        || matches!(name, "PATH" | "HOME" | "TMPDIR")
    {
        Some(RESERVED_NAME)
    } else {
        has_user.then_some(SECRET_VALUE)
    }
}

/// As whom Pods run. Every field that is left out is Holdfast's own choice: 65532, or nothing with the chart's `workers.openshift`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobSecurityContext {
    /// Numeric id of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,
    /// Numeric id of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,
    /// Numeric id of the group that mounted Secrets belong to. On a Pod that mounts a claim the kubelet also gives the claim's files to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub fs_group: Option<i64>,
    /// SELinux labels of the Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SELinuxOptions>,
}

fn label_values() -> Rule {
    Rule::new("self.all(k, self[k].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))").message(
        "every value must be one that a label can have: at most 63 letters, digits, hyphens, underscores and dots, with a letter or digit at both ends",
    )
}

/// Bounds that the rules of labels need: the API server weighs a rule by the largest value that it may see.
fn bound_labels(schema: &mut Schema) {
    schema.insert("maxProperties".to_owned(), json!(64));
    bound(schema.get_mut("additionalProperties"), "maxLength", 63);
}

fn bound_resources(schema: &mut Schema) {
    for which in ["limits", "requests"] {
        let map = schema.get_mut("properties").and_then(|p| p.get_mut(which));
        let Some(map) = map.and_then(Value::as_object_mut) else { continue };
        // API servers up to 1.33 take a value that is a number or a text to be as long as a request may be, whatever `maxLength` says, and
        // refuse a definition whose rules may become too dear: more entries are too many for them.
        map.insert("maxProperties".to_owned(), json!(16));
        bound(map.get_mut("additionalProperties"), "maxLength", 64);
    }
}

fn bound_dns(schema: &mut Schema) {
    for (which, most) in [("nameservers", 3), ("searches", 32), ("options", 32)] {
        let list = schema.get_mut("properties").and_then(|p| p.get_mut(which));
        let Some(list) = list.and_then(Value::as_object_mut) else { continue };
        list.insert("maxItems".to_owned(), json!(most));
        if which != "options" {
            bound(list.get_mut("items"), "maxLength", 253);
        }
    }
}

fn bound(schema: Option<&mut Value>, what: &str, most: i64) {
    if let Some(schema) = schema.and_then(Value::as_object_mut) {
        schema.insert(what.to_owned(), json!(most));
    }
}

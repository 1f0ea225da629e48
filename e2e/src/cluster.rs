//! The cluster under test: one client for all tests of a binary. Talks to the API server.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::runtime::Runtime;

/// The cluster that KUBECONFIG names, or else the one that `make cluster` brought up.
pub struct Cluster {
    client: kube::Client,
    runtime: Runtime,
    kubeconfig: PathBuf,
}

/// The kinds the tests speak of: kind, path of the group and version, plural, whether it lives in a namespace.
const KINDS: [(&str, &str, &str, bool); 24] = [
    ("BackupStore", "apis/holdfast.dev/v1alpha1", "backupstores", true),
    ("BackupPolicy", "apis/holdfast.dev/v1alpha1", "backuppolicies", true),
    ("Backup", "apis/holdfast.dev/v1alpha1", "backups", true),
    ("RestoreRequest", "apis/holdfast.dev/v1alpha1", "restorerequests", true),
    ("Job", "apis/batch/v1", "jobs", true),
    ("Pod", "api/v1", "pods", true),
    ("Secret", "api/v1", "secrets", true),
    ("ConfigMap", "api/v1", "configmaps", true),
    ("Service", "api/v1", "services", true),
    ("ServiceAccount", "api/v1", "serviceaccounts", true),
    ("PersistentVolumeClaim", "api/v1", "persistentvolumeclaims", true),
    ("ResourceQuota", "api/v1", "resourcequotas", true),
    ("CoreEvent", "api/v1", "events", true),
    ("Event", "apis/events.k8s.io/v1", "events", true),
    ("Deployment", "apis/apps/v1", "deployments", true),
    ("Lease", "apis/coordination.k8s.io/v1", "leases", true),
    ("NetworkPolicy", "apis/networking.k8s.io/v1", "networkpolicies", true),
    ("Namespace", "api/v1", "namespaces", false),
    ("Node", "api/v1", "nodes", false),
    ("ValidatingAdmissionPolicy", "apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies", false),
    (
        "ValidatingAdmissionPolicyBinding",
        "apis/admissionregistration.k8s.io/v1",
        "validatingadmissionpolicybindings",
        false,
    ),
    ("MutatingAdmissionPolicy", "apis/admissionregistration.k8s.io/v1", "mutatingadmissionpolicies", false),
    (
        "MutatingAdmissionPolicyBinding",
        "apis/admissionregistration.k8s.io/v1",
        "mutatingadmissionpolicybindings",
        false,
    ),
    ("CustomResourceDefinition", "apis/apiextensions.k8s.io/v1", "customresourcedefinitions", false),
];

/// What the API server said instead of doing it.
#[derive(Debug)]
pub struct Refused {
    /// HTTP status.
    pub code: u16,
    /// The server's sentence.
    pub message: String,
}

/// The cluster, connected to at the first call.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::connect)
}

impl Cluster {
    fn connect() -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let kubeconfig = kubeconfig_path();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let client = runtime.block_on(client(&kubeconfig));
        Self { client, runtime, kubeconfig }
    }

    /// File that says how to reach the cluster.
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// The client, for what the methods here do not do.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Waits for a future on the tests' own runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The runtime, for tasks that run beside a test.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// One request to the API server. `path` starts after the first slash.
    ///
    /// # Errors
    /// What the server said, where it is not 2xx.
    pub fn request(
        &self,
        method: &Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        let bytes = body.map(|b| serde_json::to_vec(b).unwrap()).unwrap_or_default();
        let request = || {
            Request::builder()
                .method(method)
                .uri(format!("/{path}"))
                .header(http::header::CONTENT_TYPE, content_type)
                .header(http::header::ACCEPT, "application/json")
                .body(bytes.clone())
                .unwrap()
        };
        // A server closes a connection at any time; what does the same twice is sent again.
        let mut tries = if [Method::GET, Method::PATCH].contains(method) { 3 } else { 1 };
        loop {
            tries -= 1;
            match self.block_on(self.client.request::<Value>(request())) {
                Ok(value) => return Ok(value),
                Err(kube::Error::Api(status)) => return Err(Refused { code: status.code, message: status.message }),
                Err(kube::Error::Service(_) | kube::Error::HyperError(_)) if tries > 0 => {}
                Err(other) => panic!("{method} /{path}: {other}"),
            }
        }
    }

    /// The object, if there is one.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        match self.request(&Method::GET, &path(kind, namespace, name), JSON, None) {
            Ok(object) => Some(object),
            Err(refused) if refused.code == 404 => None,
            Err(refused) => panic!("get {kind} {namespace}/{name}: {}", refused.message),
        }
    }

    /// All objects of a kind in a namespace.
    pub fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        self.list_with(kind, namespace, "")
    }

    /// The objects of a kind in a namespace, by a query such as `labelSelector=a%3Db`.
    pub fn list_with(&self, kind: &str, namespace: &str, query: &str) -> Vec<Value> {
        let path = format!("{}?{query}", path(kind, namespace, ""));
        match self.request(&Method::GET, &path, JSON, None) {
            Ok(mut list) => list["items"].as_array_mut().map(std::mem::take).unwrap_or_default(),
            Err(refused) => panic!("list {kind} in {namespace}: {}", refused.message),
        }
    }

    /// Applies an object on the server's side, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// What admission said.
    pub fn apply(&self, object: &Value, dry_run: bool) -> Result<Value, Refused> {
        let (kind, namespace, name) = identity(object);
        let dry_run = if dry_run { "&dryRun=All" } else { "" };
        let path =
            format!("{}?fieldManager=a-user&force=true&fieldValidation=Strict{dry_run}", path(kind, namespace, name));
        self.request(&Method::PATCH, &path, "application/apply-patch+yaml", Some(object))
    }

    /// Changes the fields that `patch` holds.
    ///
    /// # Errors
    /// What admission said.
    pub fn merge(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Value, Refused> {
        self.request(&Method::PATCH, &path(kind, namespace, name), "application/merge-patch+json", Some(patch))
    }

    /// Changes the fields of a status that `patch` holds.
    ///
    /// # Errors
    /// What admission said.
    pub fn merge_status(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Value, Refused> {
        let status = format!("{}/status", path(kind, namespace, name));
        self.request(&Method::PATCH, &status, "application/merge-patch+json", Some(patch))
    }

    /// Deletes an object; one that is gone is no error.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str, query: &str) {
        let path = format!("{}?propagationPolicy=Background&{query}", path(kind, namespace, name));
        match self.request(&Method::DELETE, &path, JSON, None) {
            Ok(_) => {}
            Err(refused) if refused.code == 404 => {}
            Err(refused) => panic!("delete {kind} {namespace}/{name}: {}", refused.message),
        }
    }
}

const JSON: &str = "application/json";

/// A client of its own, which hands every answer on as it came: a test of admission wants no second try.
pub async fn client(kubeconfig: &std::path::Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

/// Kind, namespace and name of an object.
pub fn identity(object: &Value) -> (&str, &str, &str) {
    let metadata = &object["metadata"];
    (
        object["kind"].as_str().unwrap_or_default(),
        metadata["namespace"].as_str().unwrap_or_default(),
        metadata["name"].as_str().unwrap_or_default(),
    )
}

pub(crate) fn path(kind: &str, namespace: &str, name: &str) -> String {
    let (_, group, plural, namespaced) =
        KINDS.iter().find(|k| k.0 == kind).unwrap_or_else(|| panic!("no such kind in the harness: {kind}"));
    let namespace =
        if *namespaced && !namespace.is_empty() { format!("/namespaces/{namespace}") } else { String::new() };
    let name = if name.is_empty() { String::new() } else { format!("/{name}") };
    format!("{group}{namespace}/{plural}{name}")
}

fn kubeconfig_path() -> PathBuf {
    if let Some(path) = std::env::var_os("KUBECONFIG").filter(|p| !p.is_empty()) {
        return path.into();
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = Command::new("make").args(["-s", "-C", root, "kubeconfig"]).output().expect("make");
    assert!(output.status.success(), "there is no cluster: run `make cluster` first, or set KUBECONFIG");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

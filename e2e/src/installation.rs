//! The operator as `make install` put it into the cluster: there for most tests, kept out where a test has controllers of its own.

use std::fs::File;
use std::process::ChildStdin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::command::{helm, try_kubectl};
use crate::objects::backup;
use crate::reaper::kubectl_at_exit;
use crate::space::{OWN_CONTROLLER, Space};
use crate::wait::{seconds, wait_for};

/// The namespace of the installed operator.
pub const NAMESPACE: &str = "holdfast-system";

/// Name of the admission policy of [`keep_out`].
const KEPT_OUT: &str = "holdfast-e2e-own-controllers";

/// The Deployments of the installed operator.
pub fn deployments() -> Vec<Value> {
    cluster().list_with("Deployment", NAMESPACE, "labelSelector=app.kubernetes.io%2Fname%3Dholdfast")
}

/// The Deployment of the installed operator.
pub fn deployment() -> Value {
    let mut all = deployments();
    assert_eq!(all.len(), 1, "the operator is not installed in {NAMESPACE}: run `make install` first");
    all.remove(0)
}

/// The installed operator for one test alone, which may take it away: dropped, it is there again.
pub struct Installed {
    /// Name of the release.
    pub release: String,
    values: Value,
    _lock: File,
}

/// Waits until nobody else needs the installed operator.
pub fn alone() -> Installed {
    let lock = lock_file();
    lock.lock().expect("a lock on the installed operator");
    ALONE.store(true, Ordering::SeqCst);
    wait_available();
    let release = deployment()["metadata"]["annotations"]["meta.helm.sh/release-name"].as_str().unwrap().to_owned();
    let values = helm(&["get", "values", &release, "-n", NAMESPACE, "-o", "json"]);
    Installed { release, values: serde_json::from_str(&values).unwrap(), _lock: lock }
}

impl Installed {
    /// Installs or upgrades it as it was installed before.
    pub fn install(&self) {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/holdfast");
        let values = std::env::temp_dir().join(format!("holdfast-e2e-values-{}.json", std::process::id()));
        std::fs::write(&values, self.values.to_string()).unwrap();
        let file = values.display().to_string();
        helm(&[
            "upgrade",
            "--install",
            &self.release,
            chart,
            "-n",
            NAMESPACE,
            "-f",
            &file,
            "--wait",
            "--timeout",
            "2m",
        ]);
        std::fs::remove_file(&values).unwrap();
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if deployments().is_empty() {
            self.install();
        }
    }
}

/// Whether this process has the installed controller to itself.
static ALONE: AtomicBool = AtomicBool::new(false);

/// Makes sure that the installed controller works, unless this process has it to itself. Tests that take it away wait until this process
/// has ended.
pub fn require() {
    static LOCK: OnceLock<File> = OnceLock::new();
    if ALONE.load(Ordering::SeqCst) {
        return;
    }
    LOCK.get_or_init(|| {
        let file = lock_file();
        file.lock_shared().expect("a lock on the installed operator");
        wait_available();
        file
    });
}

/// Sees to it that the installed controller may change nothing in namespaces with the label [`OWN_CONTROLLER`], where tests have
/// controllers of their own, until this process has ended.
pub(crate) fn keep_out() {
    static UNTIL: OnceLock<ChildStdin> = OnceLock::new();
    UNTIL.get_or_init(|| {
        require();
        let account = format!("system:serviceaccount:{NAMESPACE}:");
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": KEPT_OUT},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"], "resources": ["*/*"],
                }]},
                "matchConditions": [{"name": "installed", "expression": format!("request.userInfo.username.startsWith('{account}')")}],
                "validations": [{"expression": "false", "message": "this namespace has a controller of its own"}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": KEPT_OUT},
            "spec": {
                "policyName": KEPT_OUT,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {OWN_CONTROLLER: "true"}}},
            },
        });
        let undone = kubectl_at_exit(&["delete", "--ignore-not-found"], &format!("apiVersion: v1\nkind: List\nitems:\n- {policy}\n- {binding}\n"));
        for object in [policy, binding] {
            cluster().apply(&object, false).unwrap_or_else(|refused| panic!("{}", refused.message));
        }
        undone
    });
}

/// Waits until the API server has heard of [`keep_out`] and of the namespace: asks, as the installed controller, for a Backup.
pub(crate) fn wait_until_kept_out_of(space: &Space) {
    let pod = &deployment()["spec"]["template"]["spec"]["serviceAccountName"];
    let account = format!("system:serviceaccount:{NAMESPACE}:{}", pod.as_str().unwrap());
    let asked = backup("kept-out", "nobody").to_string();
    let arguments = ["-n", space.name(), "--as", &account, "create", "--dry-run=server", "-f", "-"];
    wait_for("the installed controller is kept out", seconds(30), || {
        let ended = try_kubectl(&arguments, asked.as_bytes());
        if ended.stderr.contains(KEPT_OUT) { Ok(()) } else { Err(format!("{ended:?}")) }
    });
}

/// The image that the installed controller runs and gives to its workers.
pub fn image() -> String {
    deployment()["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
}

fn wait_available() {
    wait_for("the installed controller is available", seconds(90), || {
        let deployment = deployment();
        let available = deployment["status"]["availableReplicas"].as_i64().unwrap_or(0);
        if available > 0 { Ok(()) } else { Err(format!("{:#}", deployment["status"])) }
    });
}

fn lock_file() -> File {
    let path = std::env::temp_dir().join("holdfast-e2e.lock");
    File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

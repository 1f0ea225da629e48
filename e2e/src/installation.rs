//! The operator as `make install` put it into the cluster: there for most tests, out of the way for those with controllers of their own.

use std::fs::File;
use std::process::ChildStdin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::command::{helm, kubectl};
use crate::reaper::kubectl_at_exit;
use crate::wait::{seconds, wait_for};

/// The namespace of the installed operator.
pub const NAMESPACE: &str = "holdfast-system";

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

/// Whether this process does without the installed controller, or has it to itself.
static ALONE: AtomicBool = AtomicBool::new(false);

/// Makes sure that the installed controller works, unless this process does without. Tests that need it out of the way wait until
/// this process has ended.
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

/// Scales the installed controller down until this process has ended, by whatever means.
pub fn stand_aside() {
    static LOCK: OnceLock<(File, ChildStdin)> = OnceLock::new();
    LOCK.get_or_init(|| {
        let file = lock_file();
        file.lock().expect("a lock on the installed operator");
        ALONE.store(true, Ordering::SeqCst);
        let deployment = deployment();
        let name = deployment["metadata"]["name"].as_str().unwrap().to_owned();
        let up_again = scale_up_at_exit(&name);
        kubectl(&["-n", NAMESPACE, "scale", "--replicas=0", "deployment", &name]);
        wait_for("the installed controller has gone", seconds(60), || {
            let pods = cluster().list_with("Pod", NAMESPACE, "labelSelector=app.kubernetes.io%2Fname%3Dholdfast");
            if pods.is_empty() { Ok(()) } else { Err(format!("{} Pods are left", pods.len())) }
        });
        (file, up_again)
    });
}

/// The image that the installed controller runs and gives to its workers.
pub fn image() -> String {
    deployment()["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
}

fn scale_up_at_exit(name: &str) -> ChildStdin {
    let document = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {"selector": {}, "template": {}},
    });
    kubectl_at_exit(&["scale", "--replicas=1"], &document.to_string())
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

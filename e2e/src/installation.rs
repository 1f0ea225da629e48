//! The operator as `make install` put it into the cluster: there for most tests, out of the way for those with controllers of their own.

use std::fs::File;
use std::process::ChildStdin;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::command::kubectl;
use crate::reaper::kubectl_at_exit;
use crate::wait::{seconds, wait_for};

/// The namespace of the installed operator.
pub const NAMESPACE: &str = "holdfast-system";

/// The Deployment of the installed operator.
pub fn deployment() -> Value {
    let mut all = cluster().list_with("Deployment", NAMESPACE, "labelSelector=app.kubernetes.io%2Fname%3Dholdfast");
    assert_eq!(all.len(), 1, "the operator is not installed in {NAMESPACE}: run `make install` first");
    all.remove(0)
}

/// Makes sure that the installed controller works. Tests that need it out of the way wait until this process has ended.
pub fn require() {
    static LOCK: OnceLock<File> = OnceLock::new();
    LOCK.get_or_init(|| {
        let file = lock_file();
        file.lock_shared().expect("a lock on the installed operator");
        wait_for("the installed controller is available", seconds(90), || {
            let deployment = deployment();
            let available = deployment["status"]["availableReplicas"].as_i64().unwrap_or(0);
            if available > 0 { Ok(()) } else { Err(format!("{:#}", deployment["status"])) }
        });
        file
    });
}

/// Scales the installed controller down until this process has ended, by whatever means.
pub fn stand_aside() {
    static LOCK: OnceLock<(File, ChildStdin)> = OnceLock::new();
    LOCK.get_or_init(|| {
        let file = lock_file();
        file.lock().expect("a lock on the installed operator");
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

fn lock_file() -> File {
    let path = std::env::temp_dir().join("holdfast-e2e.lock");
    File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

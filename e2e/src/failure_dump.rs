//! What is left to look at after a test has failed: everything in its namespace, in a file, and the gist of it on standard error.

use std::fmt::Write;
use std::path::PathBuf;

use crate::command::try_kubectl;

const KINDS: &str = "backupstores,backuppolicies,backups,restorerequests,jobs,pods,configmaps,leases";

/// Writes all objects, events and logs of a namespace into `target/e2e-failures/<namespace>.txt` and prints the short of it.
pub fn dump(namespace: &str) {
    let gist = [
        get(&["-n", namespace, "get", "backupstores,backuppolicies,backups,restorerequests,jobs,pods", "-o", "wide"]),
        get(&["-n", namespace, "get", "events.v1.events.k8s.io", "--sort-by", ".metadata.creationTimestamp"]),
    ]
    .join("\n");
    let mut all = gist.clone();
    all += &get(&["-n", namespace, "get", KINDS, "-o", "yaml"]);
    for pod in get(&["-n", namespace, "get", "pods", "-o", "name"]).lines() {
        let _ = write!(
            all,
            "\n--- logs of {pod}\n{}",
            get(&["-n", namespace, "logs", pod, "--all-containers", "--tail=300"])
        );
    }
    all += "\n--- logs of the installed controller\n";
    all += &get(&["-n", "holdfast-system", "logs", "-l", "app.kubernetes.io/name=holdfast", "--tail=400"]);
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/e2e-failures"));
    let file = folder.join(format!("{namespace}.txt"));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, all));
    eprintln!("--- what was in {namespace} ({kept:?}: {}):\n{gist}", file.display());
}

fn get(arguments: &[&str]) -> String {
    let ended = try_kubectl(arguments, b"");
    ended.text() + &ended.stderr
}

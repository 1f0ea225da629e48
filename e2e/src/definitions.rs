//! Definitions of other projects' kinds, in the cluster for as long as a test needs them. Talks to the API server.

use std::path::PathBuf;
use std::process::ChildStdin;

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::objects::condition;
use crate::reaper::kubectl_at_exit;
use crate::wait::{seconds, wait_for};

/// Definitions that a test has brought. Dropped, they are gone again, as they are when the test's process is killed; one that was in the
/// cluster before is somebody else's, and stays as it is.
pub struct Definitions {
    brought: Vec<String>,
    _at_exit: ChildStdin,
}

impl Definitions {
    /// Those of prometheus-operator that the chart knows, as that project publishes them.
    #[track_caller]
    pub fn of_prometheus_operator() -> Self {
        let folder = cache().join("monitoring/current");
        let read = |kind: &str| -> Value {
            let file = folder.join(format!("monitoring.coreos.com_{kind}.yaml"));
            let text = std::fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("{}: {error}: `make test-e2e` brings it along", file.display()));
            serde_saphyr::from_str(&text).unwrap()
        };
        Self::bring(&[read("prometheusrules"), read("servicemonitors")])
    }

    #[track_caller]
    fn bring(definitions: &[Value]) -> Self {
        let name = |definition: &Value| definition["metadata"]["name"].as_str().unwrap().to_owned();
        let missing: Vec<&Value> = definitions.iter().filter(|d| cluster().get(KIND, "", &name(d)).is_none()).collect();
        let items: Vec<Value> = missing
            .iter()
            .map(|d| json!({"apiVersion": d["apiVersion"], "kind": KIND, "metadata": {"name": name(d)}}))
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        let at_exit = kubectl_at_exit(&["delete", "--ignore-not-found", "--wait=false"], &list);
        let brought = Self { brought: missing.iter().map(|d| name(d)).collect(), _at_exit: at_exit };
        for definition in missing {
            cluster().apply(definition, false).unwrap_or_else(|refused| panic!("{}", refused.message));
        }
        for definition in definitions {
            let name = name(definition);
            wait_for(&format!("{name} is served"), seconds(60), || {
                let there = cluster().get(KIND, "", &name).unwrap_or_default();
                let served = condition(&there, "Established")["status"] == "True";
                if served { Ok(()) } else { Err(format!("{:#}", there["status"])) }
            });
        }
        brought
    }
}

impl Drop for Definitions {
    fn drop(&mut self) {
        for name in &self.brought {
            cluster().delete(KIND, "", name, "");
        }
    }
}

const KIND: &str = "CustomResourceDefinition";

/// Where the programs and files that tests need are built and fetched to.
fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/holdfast");
    std::env::var_os("HOLDFAST_CACHE").map_or_else(home, PathBuf::from)
}

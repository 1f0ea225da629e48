//! A node with no machine behind it, to lose with the Pods that are on it. Talks to the API server.
//!
//! The scheduler takes it for a node: the conditions that a kubelet renews are renewed here. Nothing ever starts on it, and nobody but the Pods
//! of its own scene gets there.

use std::time::Duration;

use http::Method;
use k8s_openapi::api::core::v1::Node as Object;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::cluster;
use crate::objects::name;
use crate::postgres::random_name;
use crate::reaper;
use crate::space::Space;
use crate::wait::{seconds, wait_for};

/// Label of the node and key of its taint; the value is its name.
const KEY: &str = "holdfast-e2e-node";
/// The control plane gives up a node that is silent for 50 s.
const RENEWED_EVERY: Duration = Duration::from_secs(8);

/// A node. Dropped, also by a panic, it is deleted with all Pods on it. It has to outlive the scene that uses it, whose Pods are shown when that
/// fails.
pub struct Node {
    name: String,
    kubelet: JoinHandle<()>,
}

impl Node {
    /// Makes a node and waits until Pods can be scheduled on it.
    pub fn start() -> Self {
        let name = random_name(KEY).replace('_', "-");
        reaper::delete_at_exit("Node", &name);
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            // It does not count when the control plane asks itself how much of the cluster is lost.
            "metadata": {"name": name, "labels": {
                KEY: name, "node.kubernetes.io/exclude-disruption": "true",
                "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture(),
            }},
            "spec": {"taints": [{"key": KEY, "value": name, "effect": "NoSchedule"}]},
        });
        cluster().apply(&object, false).unwrap_or_else(|refused| panic!("{}", refused.message));
        let kubelet = cluster().runtime().spawn(renew(name.clone()));
        let node = Self { name, kubelet };
        wait_for(&format!("node {} takes Pods", node.name), seconds(60), || {
            let object = cluster().get("Node", "", &node.name).unwrap_or_default();
            let taints = object["spec"]["taints"].as_array().map_or(0, Vec::len);
            if taints == 1 && object["status"]["allocatable"]["pods"].is_string() {
                Ok(())
            } else {
                Err(format!("{:#} {:#}", object["spec"], object["status"]))
            }
        });
        node
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `jobTemplate` of a policy whose Jobs run here and nowhere else.
    pub fn alone(&self) -> Value {
        json!({"nodeSelector": {KEY: self.name}, "tolerations": self.tolerations()})
    }

    /// The `jobTemplate` of a policy whose Jobs run here as long as it is there, and else wherever they may.
    pub fn at_first(&self) -> Value {
        let here = json!({"matchExpressions": [{"key": KEY, "operator": "In", "values": [self.name]}]});
        json!({
            "affinity": {"nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": here}],
            }},
            "tolerations": self.tolerations(),
        })
    }

    fn tolerations(&self) -> Value {
        json!([
            {"key": KEY, "operator": "Equal", "value": self.name, "effect": "NoSchedule"},
            // Pods of a node that is not heard of any more are given up after five minutes, unless they say otherwise.
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
        ])
    }

    /// Waits until a Pod is bound to it, and gives that.
    #[track_caller]
    pub fn wait_for_a_pod(&self, space: &Space) -> Value {
        wait_for(&format!("a Pod is bound to node {}", self.name), seconds(60), || {
            let pods = space.list("Pod");
            let seen: Vec<String> =
                pods.iter().map(|pod| format!("{} {}", name(pod), pod["spec"]["nodeName"])).collect();
            pods.into_iter().find(|pod| pod["spec"]["nodeName"] == self.name.as_str()).ok_or(format!("{seen:?}"))
        })
    }

    /// Says of a Pod that its container runs, as the kubelet would have.
    #[track_caller]
    pub fn tell_that_it_runs(&self, space: &Space, pod: &Value) {
        let (now, container) = (jiff::Timestamp::now().to_string(), &pod["spec"]["containers"][0]);
        let state = json!({
            "name": container["name"], "image": container["image"], "imageID": "", "ready": true, "started": true,
            "restartCount": 0, "state": {"running": {"startedAt": now}},
        });
        let status = json!({"status": {"phase": "Running", "startTime": now, "containerStatuses": [state]}});
        cluster().merge_status("Pod", space.name(), name(pod), &status).unwrap_or_else(|r| panic!("{}", r.message));
    }

    /// From now on nobody renews its conditions: its machine does not answer any more, and nobody has removed it.
    pub fn fall_silent(&self) {
        self.kubelet.abort();
    }

    /// Removes it, as the cloud does when its machine is gone.
    pub fn vanish(&self) {
        self.fall_silent();
        cluster().delete("Node", "", &self.name, "");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.fall_silent();
        let request = |method: &Method, path: &str| cluster().request(method, path, "application/json", None);
        request(&Method::DELETE, &format!("api/v1/nodes/{}", self.name)).ok();
        // The control plane does the rest as well, in its time.
        let pods = request(&Method::GET, &format!("api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.name));
        for pod in pods.iter().flat_map(|list| list["items"].as_array().into_iter().flatten()) {
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            let path = format!("api/v1/namespaces/{namespace}/pods/{}?gracePeriodSeconds=0", name(pod));
            request(&Method::DELETE, &path).ok();
        }
    }
}

async fn renew(name: String) {
    let nodes: Api<Object> = Api::all(cluster().client());
    let since = jiff::Timestamp::now().to_string();
    let mut due = tokio::time::interval(RENEWED_EVERY);
    loop {
        due.tick().await;
        let room = json!({"cpu": "8", "memory": "16Gi", "pods": "50"});
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "a test says so",
            "lastHeartbeatTime": jiff::Timestamp::now().to_string(), "lastTransitionTime": since,
        });
        let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
        // One that is lost is made up for by the next.
        nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.ok();
    }
}

/// This machine's architecture as nodes say theirs.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

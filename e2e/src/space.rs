//! A namespace of a test's own: made at its start, gone at its end, shown when it fails.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Refused, cluster};
use crate::wait::wait_for;
use crate::{failure_dump, installation, reaper};

/// Label of namespaces that the installed controller is kept out of.
pub(crate) const OWN_CONTROLLER: &str = "holdfast-e2e-own-controller";
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// A fresh namespace. Dropped, also by a panic, it is deleted; a panic shows first what was in it.
pub struct Space {
    name: String,
}

impl Space {
    /// Makes a namespace that bears `purpose` and a random ending in its name.
    pub fn new(purpose: &str) -> Self {
        // What a careful platform enforces: every Pod that Holdfast makes has to pass.
        Self::enforcing(purpose, "restricted")
    }

    /// A namespace for controllers of the test's own: the installed one may change nothing in it.
    pub fn without_the_installed(purpose: &str) -> Self {
        installation::keep_out();
        let space = Self::labelled(purpose, &json!({OWN_CONTROLLER: "true", ENFORCE: "restricted"}));
        installation::wait_until_kept_out_of(&space);
        space
    }

    /// The same, which enforces another level of Pod Security: `privileged` lets Pods run as root.
    pub fn enforcing(purpose: &str, level: &str) -> Self {
        Self::labelled(purpose, &json!({ENFORCE: level}))
    }

    fn labelled(purpose: &str, labels: &Value) -> Self {
        let ending: String = std::iter::repeat_with(fastrand::lowercase).take(6).collect();
        let name = format!("e2e-{purpose}-{ending}");
        reaper::delete_at_exit("Namespace", &name);
        let mut labels = labels.clone();
        labels["holdfast-e2e"] = json!("true");
        apply_cluster_wide(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
        );
        Self { name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Applies an object here.
    #[track_caller]
    pub fn apply(&self, object: &Value) -> Value {
        self.try_apply(object).unwrap_or_else(|refused| panic!("refused: {}\n{object:#}", refused.message))
    }

    /// Applies an object here.
    ///
    /// # Errors
    /// What admission said.
    pub fn try_apply(&self, object: &Value) -> Result<Value, Refused> {
        cluster().apply(&self.adopt(object), false)
    }

    /// Sends an object to admission only.
    ///
    /// # Errors
    /// What admission said.
    pub fn dry_run(&self, object: &Value) -> Result<Value, Refused> {
        cluster().apply(&self.adopt(object), true)
    }

    /// Changes the fields of an object that `patch` holds.
    #[track_caller]
    pub fn merge(&self, kind: &str, name: &str, patch: &Value) -> Value {
        self.try_merge(kind, name, patch).unwrap_or_else(|refused| panic!("refused: {}", refused.message))
    }

    /// Changes the fields of an object that `patch` holds.
    ///
    /// # Errors
    /// What admission said.
    pub fn try_merge(&self, kind: &str, name: &str, patch: &Value) -> Result<Value, Refused> {
        cluster().merge(kind, &self.name, name, patch)
    }

    /// The object, if there is one.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        cluster().get(kind, &self.name, name)
    }

    /// All objects of a kind.
    pub fn list(&self, kind: &str) -> Vec<Value> {
        cluster().list(kind, &self.name)
    }

    /// Deletes an object; one that is gone is no error.
    pub fn delete(&self, kind: &str, name: &str) {
        cluster().delete(kind, &self.name, name, "");
    }

    /// Deletes a Pod at once, as one whose node is lost.
    pub fn force_delete_pod(&self, name: &str) {
        cluster().delete("Pod", &self.name, name, "gracePeriodSeconds=0");
    }

    /// Evicts a Pod, as a drain of its node does.
    #[track_caller]
    pub fn evict(&self, pod: &str) {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.name},
        });
        let path = format!("api/v1/namespaces/{}/pods/{pod}/eviction", self.name);
        let answer = cluster().request(&Method::POST, &path, "application/json", Some(&eviction));
        answer.unwrap_or_else(|refused| panic!("refused: {}", refused.message));
    }

    /// Waits until the object is there and `right`, and gives it.
    #[track_caller]
    pub fn wait(&self, kind: &str, name: &str, what: &str, timeout: Duration, right: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("{kind} {}/{name} {what}", self.name), timeout, || match self.get(kind, name) {
            Some(object) if right(&object) => Ok(object),
            Some(object) => Err(format!("{:#}", object["status"])),
            None => Err("there is no such object".to_owned()),
        })
    }

    /// Waits until a Pod of this task is said to run, and gives it. What runs in it may be seen elsewhere before the kubelet says so.
    #[track_caller]
    pub fn wait_for_running_pod(&self, task: &str, timeout: Duration) -> Value {
        wait_for(&format!("a Pod of a {task} runs in {}", self.name), timeout, || {
            let mut pods = self.list("Pod");
            pods.retain(|pod| pod["metadata"]["labels"]["holdfast.dev/task"] == task);
            let seen: Vec<String> = pods.iter().map(|pod| pod["status"]["phase"].to_string()).collect();
            pods.into_iter().find(|pod| pod["status"]["phase"] == "Running").ok_or(format!("phases {seen:?}"))
        })
    }

    /// Waits until the object is gone.
    #[track_caller]
    pub fn wait_gone(&self, kind: &str, name: &str, timeout: Duration) {
        wait_for(&format!("{kind} {}/{name} is gone", self.name), timeout, || {
            self.get(kind, name).map_or(Ok(()), |object| Err(format!("{:#}", object["metadata"])))
        });
    }

    /// Deletes the namespace with all that is in it.
    pub fn delete_now(&self) {
        let path = format!("api/v1/namespaces/{}", self.name);
        cluster().request(&Method::DELETE, &path, "application/json", None).ok();
    }

    fn adopt(&self, object: &Value) -> Value {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(self.name);
        object
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() {
            failure_dump::dump(&self.name);
        }
        self.delete_now();
        // The cluster begins to empty it after five seconds, and goes through every kind of object again for as long as one is left: Pods
        // that end in their own time would have it do so three times for each test.
        let pods = format!("api/v1/namespaces/{}/pods?gracePeriodSeconds=0", self.name);
        cluster().request(&Method::DELETE, &pods, "application/json", None).ok();
    }
}

fn apply_cluster_wide(object: &Value) {
    cluster().apply(object, false).unwrap_or_else(|refused| panic!("{}", refused.message));
}

//! A rule of the platform's own: an admission policy for one namespace.

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::reaper;
use crate::space::Space;
use crate::wait::{seconds, wait_for};

/// Refuses objects of a namespace by an expression. Dropped, also by a panic, it is deleted.
pub struct Rule {
    name: String,
}

impl Rule {
    /// A rule on what is created of these resources: the expression must hold, or the message is said.
    pub fn new(space: &Space, groups: &[&str], resources: &[&str], expression: &str, message: &str) -> Self {
        let name = format!("{}-{}", space.name(), resources.join("-"));
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": groups, "apiVersions": ["*"], "operations": ["CREATE"], "resources": resources,
                }]},
                "validations": [{"expression": expression, "message": message}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name()}}},
            },
        });
        for object in [policy, binding] {
            reaper::delete_at_exit(object["kind"].as_str().unwrap(), &name);
            cluster().apply(&object, false).unwrap_or_else(|refused| panic!("{}", refused.message));
        }
        Self { name }
    }

    /// Waits until the API server refuses this object with the words.
    pub fn wait_until_it_refuses(&self, space: &Space, object: &Value, words: &str) {
        wait_for(&format!("{} is heard of", self.name), seconds(60), || match space.dry_run(object) {
            Err(refused) if refused.message.contains(words) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        for kind in ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"] {
            cluster().delete(kind, "", &self.name, "");
        }
    }
}

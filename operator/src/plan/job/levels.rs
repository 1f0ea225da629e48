//! The levels of `jobTemplate`, as one template: the chart's, the store's, the policy's and the request's. Pure.

use std::collections::BTreeMap;

use holdfast_crds::{JobSecurityContext, JobTemplate};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// One template of several, each over the one before it: maps are merged by key, resources by quantity, the security context by field;
/// tolerations and pull secrets of all levels count; of everything else the last level that says it wins.
pub fn merged<'a>(levels: impl IntoIterator<Item = Option<&'a JobTemplate>>) -> JobTemplate {
    levels.into_iter().flatten().fold(JobTemplate::default(), over)
}

fn over(below: JobTemplate, above: &JobTemplate) -> JobTemplate {
    // Named one by one, so that no field of a later version is forgotten.
    let JobTemplate {
        resources,
        node_selector,
        tolerations,
        affinity,
        priority_class_name,
        image_pull_secrets,
        env,
        security_context,
        dns_config,
        labels,
        annotations,
        start_deadline_seconds,
    } = above.clone();
    let mut variables = below.env;
    variables.retain(|variable| env.iter().all(|other| other.name != variable.name));
    JobTemplate {
        resources: both(below.resources, resources, resources_over),
        node_selector: keys_over(below.node_selector, node_selector),
        tolerations: united(below.tolerations, tolerations),
        affinity: affinity.or(below.affinity),
        priority_class_name: priority_class_name.or(below.priority_class_name),
        image_pull_secrets: united(below.image_pull_secrets, image_pull_secrets),
        env: variables.into_iter().chain(env).collect(),
        security_context: both(below.security_context, security_context, |below, above| JobSecurityContext {
            run_as_user: above.run_as_user.or(below.run_as_user),
            run_as_group: above.run_as_group.or(below.run_as_group),
            fs_group: above.fs_group.or(below.fs_group),
            se_linux_options: above.se_linux_options.or(below.se_linux_options),
        }),
        dns_config: dns_config.or(below.dns_config),
        labels: keys_over(below.labels, labels),
        annotations: keys_over(below.annotations, annotations),
        start_deadline_seconds: start_deadline_seconds.or(below.start_deadline_seconds),
    }
}

fn both<T>(below: Option<T>, above: Option<T>, merge: impl Fn(T, T) -> T) -> Option<T> {
    match (below, above) {
        (Some(below), Some(above)) => Some(merge(below, above)),
        (below, above) => above.or(below),
    }
}

fn resources_over(below: ResourceRequirements, above: ResourceRequirements) -> ResourceRequirements {
    let quantities = |below: Option<BTreeMap<String, Quantity>>, above| both(below, above, keys_over);
    ResourceRequirements {
        requests: quantities(below.requests, above.requests),
        limits: quantities(below.limits, above.limits),
        claims: above.claims.or(below.claims),
    }
}

fn keys_over<V>(mut below: BTreeMap<String, V>, above: BTreeMap<String, V>) -> BTreeMap<String, V> {
    below.extend(above);
    below
}

/// All entries of both, each once.
pub(super) fn united<T: PartialEq>(mut below: Vec<T>, above: Vec<T>) -> Vec<T> {
    for entry in above {
        if !below.contains(&entry) {
            below.push(entry);
        }
    }
    below
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(value: serde_json::Value) -> JobTemplate {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_level_is_over_the_one_before_it() {
        let chart = template(json!({
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "nodeSelector": {"pool": "backup", "zone": "a"},
            "tolerations": [{"key": "backup", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "priorityClassName": "low",
            "imagePullSecrets": [{"name": "registry"}],
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "NO_PROXY", "value": ".svc"}],
            "securityContext": {"runAsUser": 1000, "fsGroup": 1000},
            "dnsConfig": {"nameservers": ["10.0.0.1"]},
            "labels": {"team": "platform"},
            "annotations": {"a": "1"},
        }));
        let store = template(json!({
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}},
            "nodeSelector": {"zone": "b"},
            "tolerations": [{"key": "backup", "operator": "Exists"}, {"key": "spot", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "other"}, {"name": "registry"}],
            "env": [{"name": "NO_PROXY", "value": ".svc,.local"}],
            "securityContext": {"runAsUser": 2000, "seLinuxOptions": {"level": "s0:c1,c2"}},
            "dnsConfig": {"nameservers": ["10.0.0.2"]},
            "labels": {"team": "shop", "cost": "7"},
            "annotations": {"b": "2"},
        }));
        let policy = template(json!({"nodeSelector": {"zone": "c"}}));
        let both = template(json!({
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
            "nodeSelector": {"pool": "backup", "zone": "c"},
            "tolerations": [{"key": "backup", "operator": "Exists"}, {"key": "spot", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "registry"}, {"name": "other"}],
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "NO_PROXY", "value": ".svc,.local"}],
            "securityContext": {"runAsUser": 2000, "fsGroup": 1000, "seLinuxOptions": {"level": "s0:c1,c2"}},
            "dnsConfig": {"nameservers": ["10.0.0.2"]},
            "labels": {"team": "shop", "cost": "7"},
            "annotations": {"a": "1", "b": "2"},
        }));
        assert_eq!(merged([Some(&chart), Some(&store), None, Some(&policy)]), both);
        assert_eq!(merged([None, Some(&chart), None, None]), chart, "a level alone is itself");
        assert_eq!(merged([None, None]), JobTemplate::default());
    }
}

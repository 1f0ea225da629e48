//! The chart as `helm template` renders it: the rights it asks for, how its Pods are confined, and which values it refuses.

// clippy.toml allows these in test functions; what test functions call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

#[test]
fn lint_finds_nothing() {
    let output = helm(&["lint", "--strict", &chart()]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_rights_are_those_that_the_security_page_prints() {
    let page = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let printed = page.split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of YAML");
    let printed: Value = serde_saphyr::from_str(printed).unwrap();

    let everywhere = template(&[]);
    let cluster_role = bound(&everywhere, "ClusterRole");
    let leader_role = bound(&everywhere, "Role");
    let mut cluster_wide = rules(&printed["inEachNamespace"]);
    cluster_wide.extend(rules(&printed["inTheCluster"]));
    assert_eq!(granted(&cluster_role), cluster_wide, "docs/security.md does not print the rules of the ClusterRole");
    assert_eq!(granted(&leader_role), rules(&printed["inItsOwnNamespace"]));
    assert_eq!(namespaces(&leader_role), ["holdfast-system"]);
}

#[test]
fn with_a_list_of_namespaces_the_rights_end_at_them() {
    let page = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let printed = page.split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let printed: Value = serde_saphyr::from_str(printed).unwrap();

    let objects = template(&["--set", "watchNamespaces={shop,billing}"]);
    assert_eq!(granted(&bound(&objects, "ClusterRole")), rules(&printed["inTheCluster"]));
    for namespace in ["shop", "billing"] {
        let here: Vec<Value> =
            bound(&objects, "Role").into_iter().filter(|r| r["metadata"]["namespace"] == namespace).collect();
        assert_eq!(granted(&here), rules(&printed["inEachNamespace"]), "in {namespace}");
    }
    assert_eq!(namespaces(&bound(&objects, "Role")), ["billing", "holdfast-system", "shop"]);
    assert!(controller_arguments(&objects).contains(&"--namespaces=shop,billing".to_owned()));
}

#[test]
fn no_right_reaches_secrets_or_into_pods_or_beyond_a_list() {
    for values in [&[][..], &["--set", "watchNamespaces={shop}"]] {
        let objects = template(values);
        for role in bound(&objects, "ClusterRole").into_iter().chain(bound(&objects, "Role")) {
            for (group, resource, verb, _) in granted(&[role]) {
                for word in [&group, &resource, &verb] {
                    assert!(!word.contains('*'), "a wildcard: {group}/{resource} {verb}");
                }
                assert!(!matches!(resource.as_str(), "secrets" | "configmaps"), "{resource}");
                // A claim is looked at and made for a restore; none is changed, listed or deleted.
                assert!(resource != "persistentvolumeclaims" || ["get", "create"].contains(&verb.as_str()), "{verb}");
                assert!(!resource.starts_with("pods/"), "{resource}");
                assert!(!matches!(verb.as_str(), "escalate" | "bind" | "impersonate" | "deletecollection"), "{verb}");
                assert_ne!(group, "rbac.authorization.k8s.io");
                assert!(resource != "pods" || ["get", "list", "watch"].contains(&verb.as_str()), "pods: {verb}");
            }
        }
    }
}

#[test]
fn the_controller_is_confined_as_pod_security_restricted_wants() {
    let objects = template(&[]);
    let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null() && pod["volumes"].is_null());
    let containers = pod["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(
        containers[0]["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
    assert_eq!(containers[0]["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(containers[0]["livenessProbe"]["httpGet"]["path"], "/healthz");
    // What the workers run is what the controller runs.
    let image = &containers[0]["image"];
    let given = containers[0]["env"].as_array().unwrap().iter().find(|e| e["name"] == "HOLDFAST_IMAGE").unwrap();
    assert_eq!(&given["value"], image);
}

#[test]
fn the_definitions_are_those_of_this_commit_and_survive_an_uninstall() {
    let objects = template(&[]);
    let rendered = of_kind(&objects, "CustomResourceDefinition");
    let folder = root().join("crds/yaml");
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(rendered.len(), files.len());
    for file in files {
        let mut wanted: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        wanted["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
        assert!(rendered.contains(&wanted), "{} is not what the chart installs", file.display());
    }
    let unkept = template(&["--set", "crds.keep=false"]);
    assert!(of_kind(&unkept, "CustomResourceDefinition").iter().all(|c| c["metadata"]["annotations"].is_null()));
    assert!(of_kind(&template(&["--set", "crds.install=false"]), "CustomResourceDefinition").is_empty());
}

#[test]
fn each_value_changes_what_is_installed() {
    let plain = template(&[]);
    for value in [
        "image.repository=registry.example.com/holdfast",
        "image.tag=1.2.3",
        "image.digest=sha256:0123456789012345678901234567890123456789012345678901234567890123",
        "image.pullPolicy=Always",
        "image.pullSecrets={registry}",
        "replicas=2",
        "watchNamespaces={shop}",
        "crds.install=false",
        "crds.keep=false",
        "serviceAccount.name=backup",
        "serviceAccount.annotations.a=b",
        "userRoles.create=false",
        "logLevel=debug",
        "logFormat=text",
        "metrics.port=9000",
        "metrics.service.create=false",
        "metrics.service.annotations.a=b",
        "metrics.serviceMonitor.create=true",
        "resources.limits.memory=1Gi",
        "nodeSelector.a=b",
        "tolerations[0].key=a",
        "affinity.nodeAffinity.a=b",
        "topologySpreadConstraints[0].topologyKey=zone",
        "priorityClassName=low",
        "podLabels.a=b",
        "podAnnotations.a=b",
    ] {
        assert_ne!(template(&["--set", value]), plain, "{value} changes nothing");
    }
    let monitored = ["--set", "metrics.serviceMonitor.create=true"];
    for more in ["metrics.serviceMonitor.interval=1m", "metrics.serviceMonitor.labels.a=b"] {
        assert_ne!(
            template(&[&monitored[..], &["--set", more]].concat()),
            template(&monitored),
            "{more} changes nothing"
        );
    }
    let digest = "sha256:0123456789012345678901234567890123456789012345678901234567890123";
    let pinned = template(&["--set", &format!("image.digest={digest}")]);
    let image = &of_kind(&pinned, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &json!(format!("localhost/holdfast@{digest}")));
}

#[test]
fn a_second_replica_brings_a_disruption_budget() {
    assert!(of_kind(&template(&[]), "PodDisruptionBudget").is_empty());
    let objects = template(&["--set", "replicas=2"]);
    let budget = &of_kind(&objects, "PodDisruptionBudget")[0];
    let labels = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["metadata"]["labels"];
    for (label, value) in budget["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&labels[label], value);
    }
}

#[test]
fn a_value_that_is_not_known_is_refused_with_its_name() {
    for (value, word) in [
        ("replica=2", "replica"),
        ("image.repo=x", "repo"),
        ("logLevel=loud", "logLevel"),
        ("replicas=two", "replicas"),
        ("image.digest=latest", "digest"),
        ("watchNamespaces={Shop}", "watchNamespaces"),
        ("metrics.port=80", "port"),
    ] {
        let output = render(&["--set", value]);
        assert!(!output.status.success(), "{value} is accepted");
        assert!(text(&output).contains(word), "{value}: {}", text(&output));
    }
}

#[test]
fn whoever_may_view_or_edit_or_administer_a_namespace_may_do_so_with_its_backups() {
    let objects = template(&[]);
    let role_of = |aggregate: &str| -> Vec<Value> {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{aggregate}");
        of_kind(&objects, "ClusterRole").into_iter().filter(|r| r["metadata"]["labels"][&label] == "true").collect()
    };
    let may = |role: &str, resource: &str, verb: &str| {
        granted(&role_of(role)).iter().any(|(_, r, v, _)| r == resource && v == verb)
    };
    for role in ["view", "edit", "admin"] {
        for resource in ["backupstores", "backuppolicies", "backups", "restorerequests"] {
            assert!(may(role, resource, "list"), "{role} {resource}");
        }
    }
    assert!(may("edit", "restorerequests", "create") && may("edit", "backups", "create"));
    assert!(!may("edit", "backuppolicies", "create") && !may("edit", "backupstores", "create"));
    assert!(may("admin", "backuppolicies", "create") && may("admin", "backupstores", "create"));
    for resource in ["backupstores", "backuppolicies", "backups", "restorerequests"] {
        assert!(!may("view", resource, "create"), "{resource}");
        assert!(!may("admin", &format!("{resource}/status"), "update"), "{resource}");
    }
}

/// The ClusterRoles or Roles that the controller's ServiceAccount is bound to.
fn bound(objects: &[Value], kind: &str) -> Vec<Value> {
    let account = of_kind(objects, "ServiceAccount")[0]["metadata"]["name"].clone();
    let bindings: Vec<Value> = of_kind(objects, &format!("{kind}Binding"));
    assert!(
        bindings.iter().all(|b| b["subjects"][0]["name"] == account && b["subjects"].as_array().unwrap().len() == 1)
    );
    let names: Vec<(&Value, &Value)> =
        bindings.iter().map(|b| (&b["metadata"]["namespace"], &b["roleRef"]["name"])).collect();
    let roles = of_kind(objects, kind)
        .into_iter()
        .filter(|role| names.contains(&(&role["metadata"]["namespace"], &role["metadata"]["name"])))
        .collect::<Vec<Value>>();
    assert_eq!(roles.len(), bindings.len(), "a binding without its {kind}");
    roles
}

type Right = (String, String, String, Option<String>);

/// What the roles allow, one entry a group, resource, verb and name.
fn granted(roles: &[Value]) -> BTreeSet<Right> {
    roles.iter().flat_map(|role| rules(&role["rules"])).collect()
}

fn rules(rules: &Value) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().expect("a list of rules") {
        let names: Vec<Option<String>> = match rule.get("resourceNames") {
            Some(names) => strings(names).into_iter().map(Some).collect(),
            None => vec![None],
        };
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    let right = |name: &Option<String>| (group.clone(), resource.clone(), verb.clone(), name.clone());
                    rights.extend(names.iter().map(right));
                }
            }
        }
    }
    rights
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn namespaces(objects: &[Value]) -> Vec<String> {
    let all: BTreeSet<String> =
        objects.iter().map(|o| o["metadata"]["namespace"].as_str().unwrap_or_default().to_owned()).collect();
    all.into_iter().collect()
}

fn controller_arguments(objects: &[Value]) -> Vec<String> {
    strings(&of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"])
}

fn of_kind(objects: &[Value], kind: &str) -> Vec<Value> {
    objects.iter().filter(|object| object["kind"] == kind).cloned().collect()
}

/// All objects of the chart with these arguments.
fn template(arguments: &[&str]) -> Vec<Value> {
    let output = render(arguments);
    assert!(output.status.success(), "helm template {arguments:?}: {}", text(&output));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

fn render(arguments: &[&str]) -> Output {
    let chart = chart();
    // A helm that was built from source takes the cluster for a very old one when it renders without a cluster.
    let fixed = ["template", "holdfast", &chart, "--namespace", "holdfast-system", "--kube-version", "1.34.0"];
    helm(&[&fixed[..], arguments].concat())
}

fn helm(arguments: &[&str]) -> Output {
    let cache = std::env::var_os("HOLDFAST_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/holdfast"),
        PathBuf::from,
    );
    let built = cache.join("bin/helm");
    let program = if built.exists() { built } else { PathBuf::from("helm") };
    Command::new(&program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{} cannot be run ({error}): `make test-e2e` brings it along", program.display())
    })
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn chart() -> String {
    root().join("charts/holdfast").to_str().unwrap().to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

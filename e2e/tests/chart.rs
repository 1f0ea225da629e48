//! The chart as `helm template` renders it: the rights it asks for, how its Pods are confined, and which values it refuses.

// clippy.toml allows these in test functions; what test functions call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
        "image.architectures={arm64}",
        "workers.openshift=true",
        "workers.jobTemplate.labels.a=b",
        "metrics.address=10.0.0.1",
        "replicas=2",
        "maxConcurrentRuns=3",
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
        "metrics.serviceMonitor.enabled=true",
        "metrics.prometheusRule.enabled=true",
        "metrics.dashboard.enabled=true",
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
    let monitored = template(&MONITORED);
    for more in [
        "metrics.serviceMonitor.interval=1m",
        "metrics.serviceMonitor.labels.a=b",
        "metrics.prometheusRule.labels.a=b",
        "metrics.prometheusRule.runbookBase=https://example.com/runbooks",
        "metrics.dashboard.labels.a=b",
        "metrics.dashboard.annotations.a=b",
    ] {
        assert_ne!(template(&[&MONITORED[..], &["--set", more]].concat()), monitored, "{more} changes nothing");
    }
    let digest = "sha256:0123456789012345678901234567890123456789012345678901234567890123";
    let pinned = template(&["--set", &format!("image.digest={digest}")]);
    let image = &of_kind(&pinned, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &json!(format!("localhost/holdfast@{digest}")));
}

#[test]
fn on_openshift_no_pod_names_a_user_or_a_group_and_the_workers_are_told_so() {
    let pod = |values: &[&str]| of_kind(&template(values), "Deployment")[0]["spec"]["template"]["spec"].clone();
    let ids = ["runAsUser", "runAsGroup", "fsGroup"];
    let usual = pod(&[]);
    assert!(ids.iter().all(|id| usual["securityContext"][id] == 65532), "{usual:#}");
    let openshift = pod(&["--set", "workers.openshift=true"]);
    assert!(ids.iter().all(|id| openshift["securityContext"][id].is_null()), "{openshift:#}");
    assert_eq!(openshift["securityContext"]["runAsNonRoot"], true);
    let told = |values: &[&str]| controller_arguments(&template(values)).contains(&"--openshift".to_owned());
    assert!(told(&["--set", "workers.openshift=true"]) && !told(&[]));
}

#[test]
fn what_the_chart_says_of_jobs_reaches_the_controller_as_it_was_written() {
    let template_of = |values: &[&str]| {
        let objects = template(values);
        let container = of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0].clone();
        let variable = container["env"].as_array().unwrap().iter().find(|e| e["name"] == "HOLDFAST_JOB_TEMPLATE");
        variable.map(|variable| variable["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(template_of(&[]), None);
    let said = template_of(&[
        "--set-json",
        r#"workers.jobTemplate={"resources": {"limits": {"cpu": "1"}}, "annotations": {"a": "$(HOME) \"b\""}}"#,
    ]);
    let said = said.unwrap();
    assert!(!said.contains('$'), "the kubelet would take it for a variable: {said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    let written = json!({"resources": {"limits": {"cpu": "1"}}, "annotations": {"a": "$(HOME) \"b\""}});
    assert_eq!(said, written);
}

#[test]
fn the_controller_runs_on_nodes_that_can_run_its_image_whatever_else_is_asked_of_them() {
    let pod = |values: &[&str]| of_kind(&template(values), "Deployment")[0]["spec"]["template"]["spec"].clone();
    let terms = |pod: &Value| {
        pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].clone()
    };
    let amd64 = json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]});
    let plain = pod(&[]);
    assert_eq!(plain["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    assert_eq!(terms(&plain), json!([{"matchExpressions": [amd64]}]));
    let a = json!({"key": "a", "operator": "Exists"});
    let said = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [a]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
    ]}}});
    let both = terms(&pod(&["--set-json", &format!("affinity={said}"), "--set", "nodeSelector.pool=backup"]));
    assert_eq!(both[0]["matchExpressions"], json!([a, amd64]));
    assert_eq!(both[1]["matchExpressions"], json!([amd64]));
    assert_eq!(both[1]["matchFields"][0]["values"], json!(["n1"]));
    let any = pod(&["--set-json", "image.architectures=[]"]);
    assert!(any["affinity"].is_null(), "{any:#}");
    let told = controller_arguments(&template(&["--set", "image.architectures={amd64,arm64}"]));
    assert!(told.contains(&"--image-architectures=amd64,arm64".to_owned()), "{told:?}");
}

#[test]
fn the_controller_listens_on_both_families_and_its_service_has_both_where_the_cluster_has() {
    let address = |values: &[&str]| {
        let found = controller_arguments(&template(values)).into_iter().find(|a| a.starts_with("--metrics-addr="));
        found.unwrap()
    };
    assert_eq!(address(&[]), "--metrics-addr=[::]:8080");
    assert_eq!(address(&["--set", "metrics.address=[fd00::1]"]), "--metrics-addr=[fd00::1]:8080");
    assert_eq!(address(&["--set", "metrics.address=0.0.0.0"]), "--metrics-addr=0.0.0.0:8080");
    let service = &of_kind(&template(&[]), "Service")[0];
    assert_eq!(service["spec"]["ipFamilyPolicy"], "PreferDualStack");
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
        ("metrics.address=localhost", "address"),
        ("image.architectures={AMD 64}", "architectures"),
        ("workers.openshfit=true", "openshfit"),
        ("workers.jobTemplate.nodeSelctor.a=b", "nodeSelctor"),
        ("metrics.prometheusRule.create=true", "create"),
        ("metrics.prometheusRule.runbookBase=a#b", "runbookBase"),
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

#[test]
fn nothing_asks_for_definitions_that_may_be_missing_unless_told_to() {
    let plain = template(&[]);
    for object in &plain {
        let version = object["apiVersion"].as_str().unwrap();
        assert!(!version.starts_with("monitoring.coreos.com"), "{object:#}");
    }
    assert!(of_kind(&plain, "ConfigMap").is_empty());
}

#[test]
fn the_namespace_in_a_metric_stays_that_of_the_policy() {
    let monitor = of_kind(&template(&MONITORED), "ServiceMonitor").remove(0);
    // Without it Prometheus puts the controller's own namespace there, and every alert names the wrong one.
    assert_eq!(monitor["spec"]["endpoints"][0]["honorLabels"], true);
}

#[test]
fn the_alerts_are_installed_as_they_are_tested_and_lead_to_the_runbooks() {
    let written: Value = serde_saphyr::from_str(&read("charts/holdfast/monitoring/rules.yaml")).unwrap();
    let installed = of_kind(&template(&MONITORED), "PrometheusRule").remove(0);
    assert_eq!(installed["spec"], written, "what Helm installs is what promtool tests");
    let elsewhere = "metrics.prometheusRule.runbookBase=https://example.com/runbooks";
    let led = of_kind(&template(&[&MONITORED[..], &["--set", elsewhere]].concat()), "PrometheusRule").remove(0);

    let page = read("docs/runbooks.md");
    let sections: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let operations = read("docs/operations.md");
    let mut names = BTreeSet::new();
    for (alert, led) in alerts(&written).zip(alerts(&led["spec"])) {
        let name = alert["alert"].as_str().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        let section = page.split(&format!("## {name}\n")).nth(1).and_then(|rest| rest.split("\n## ").next());
        for part in ["**Means.**", "**Look.**", "**Do.**"] {
            assert!(section.unwrap_or_default().contains(part), "docs/runbooks.md: {name} without {part}");
        }
        let anchor = format!("#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], format!("docs/runbooks.md{anchor}"));
        assert_eq!(led["annotations"]["runbook_url"], format!("https://example.com/runbooks{anchor}"));
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let row = format!("| [`{name}`](runbooks.md{anchor}) | {severity} |");
        assert!(operations.contains(&row), "docs/operations.md has no row {row}");
        assert!(!alert["annotations"]["summary"].as_str().unwrap().is_empty());
        let description = alert["annotations"]["description"].as_str().unwrap();
        let expr = alert["expr"].as_str().unwrap();
        for label in ["namespace", "policy", "store", "restore"] {
            let kept = expr
                .split("by (")
                .skip(1)
                .filter_map(|by| by.split(')').next())
                .any(|by| by.split(", ").any(|l| l == label));
            assert!(!kept || description.contains(&format!("$labels.{label} ")), "{name} does not name its {label}");
        }
    }
    assert_eq!(sections, names, "docs/runbooks.md has a section for each alert and for nothing else");
}

#[test]
fn the_alerts_fire_when_they_should_and_at_no_other_time() {
    let rules = root().join("charts/holdfast/monitoring/rules.yaml");
    let checked = promtool(&["check", "rules", "--lint=all", "--lint-fatal", rules.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", text(&checked));
    let cases = root().join("e2e/tests/alerts.yaml");
    let tested = promtool(&["test", "rules", cases.to_str().unwrap()]);
    assert!(tested.status.success(), "{}", text(&tested));
    // A test that never waits for an alert says nothing about it.
    let written: Value = serde_saphyr::from_str(&read("charts/holdfast/monitoring/rules.yaml")).unwrap();
    let cases = read("e2e/tests/alerts.yaml");
    for alert in alerts(&written) {
        let name = alert["alert"].as_str().unwrap();
        let fires = cases.contains(&format!("alertname=\"{name}\"")) || cases.contains(&format!("alertname: {name}\n"));
        assert!(fires, "{name} fires in no test");
    }
}

#[test]
fn the_dashboard_is_one_and_its_queries_can_be_read() {
    let objects = template(&MONITORED);
    let map = &of_kind(&objects, "ConfigMap")[0];
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard: Value = serde_json::from_str(map["data"]["holdfast.json"].as_str().unwrap()).unwrap();
    let mut ids = BTreeSet::new();
    let mut rules = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "two panels with the id {}", panel["id"]);
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{}: what does it mean?", panel["title"]);
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{} asks for nothing", panel["title"]);
        for target in targets {
            // What Grafana puts in before it asks.
            let expr = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            rules.push(json!({"record": format!("panel:query:{}", rules.len()), "expr": expr}));
        }
    }
    // JSON is YAML too, and promtool takes rules by its standard input.
    let count = rules.len();
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
    let mut child =
        command("promtool").args(["check", "rules"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    let checked = child.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked));
    assert!(text(&checked).contains(&format!("{count} rules found")), "{}", text(&checked));
}

/// Everything about monitoring that the chart can install.
const MONITORED: [&str; 2] =
    ["--set", "metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true"];

/// The alerts of a file of rules.
fn alerts(rules: &Value) -> impl Iterator<Item = &Value> {
    rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap())
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
    let fixed = ["template", "holdfast", &chart, "--namespace", "holdfast-system", "--kube-version", "1.37.0"];
    helm(&[&fixed[..], arguments].concat())
}

fn helm(arguments: &[&str]) -> Output {
    run("helm", arguments)
}

fn promtool(arguments: &[&str]) -> Output {
    run("promtool", arguments)
}

fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = command(name);
    command.args(arguments).output().unwrap_or_else(|error| {
        panic!("{} cannot be run ({error}): `make test-e2e` brings it along", command.get_program().display())
    })
}

/// A program that was built into the cache, or else one of the PATH.
fn command(name: &str) -> Command {
    let cache = std::env::var_os("HOLDFAST_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/holdfast"),
        PathBuf::from,
    );
    let built = cache.join("bin").join(name);
    Command::new(if built.exists() { built } else { PathBuf::from(name) })
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn chart() -> String {
    root().join("charts/holdfast").to_str().unwrap().to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

//! Pods that somebody injects a container into: one whose name sorts before the worker's and that never ends. All work is done and told as
//! without it, and no Pod is left behind.

use holdfast_e2e::cluster::cluster;
use holdfast_e2e::objects::{condition, has_condition, name};
use holdfast_e2e::postgres::random_name;
use holdfast_e2e::scene::Scene;
use holdfast_e2e::wait::{seconds, wait_for};
use http::Method;
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select i from generate_series(1, 100) i";
const INJECTOR: &str = "MutatingAdmissionPolicy";
/// A container that is told to end has half a minute; what is left then was kept by the other container.
const GONE: u64 = 125;

#[test]
fn a_container_that_is_injected_and_never_ends_changes_nothing_of_what_is_done_and_told() {
    if !can_inject() {
        return;
    }
    let scene = Scene::new("injected");
    let injector = Injector::before_the_worker(scene.space.name());
    // The store that the scene has made may have been proved before the injector was there: this one is not.
    injector.wait_until_it_injects(&scene);
    scene.space.apply(&scene.bucket.store("second", "second"));
    let ready = |s: &Value| has_condition(s, "Ready", "True", "Probed");
    scene.space.wait("BackupStore", "second", "is proved beside the proxy", seconds(125), ready);

    let database = scene.postgres.seed(LITTLE);
    let more = json!({"storeRef": {"name": "second"}, "retention": {"keepLast": 1}});
    scene.policy("shop", &database, &more);
    scene.backup("first", "shop");
    let second = scene.backup("second", "shop");
    assert_eq!(second["status"]["artifacts"][0]["items"], 1, "the worker's report was read: {:#}", second["status"]);
    scene.space.wait("BackupPolicy", "shop", "had its retention applied", seconds(125), |p| {
        has_condition(p, "RetentionApplied", "True", "Completed")
    });
    scene.space.wait_gone("Backup", "first", seconds(60));

    let copy = random_name("copy");
    scene.restore(&json!({"backup": "second"}), &json!({"database": copy}));
    assert_eq!(scene.postgres.contents(&copy), scene.postgres.contents(&database));
    scene.postgres.drop_database(&copy);

    // What fails is told in the worker's words, too, and at once.
    scene.policy("shop", "nowhere", &more);
    let bad = scene.try_backup("bad", "shop");
    assert_eq!(condition(&bad, "Complete")["reason"], "SourceRefused", "{:#}", bad["status"]);

    wait_for("no Pod is kept by its proxy", seconds(GONE), || {
        let pods = scene.space.list("Pod");
        let left: Vec<_> =
            pods.iter().filter(|p| p["status"]["phase"] == "Running").map(|p| name(p).to_owned()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_native_sidecar_that_is_injected_changes_nothing_and_its_jobs_end_by_themselves() {
    if !can_inject() {
        return;
    }
    let scene = Scene::new("native-sidecar");
    let injector = Injector::native(scene.space.name());
    injector.wait_until_it_injects(&scene);
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("one", "shop");
    wait_for("the Job has completed and is kept for its log", seconds(90), || {
        let jobs = scene.space.list("Job");
        let of_backup = jobs.iter().find(|job| job["metadata"]["labels"]["holdfast.dev/backup"] == "one");
        match of_backup {
            Some(job) if condition(job, "Complete")["status"] == "True" => Ok(()),
            other => Err(format!("{other:#?}")),
        }
    });
}

/// Since Kubernetes 1.36: before it no cluster of these tests has what injects.
#[allow(clippy::print_stdout, reason = "who reads the log sees what was not tried")]
fn can_inject() -> bool {
    let path = "apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
    let served = cluster().request(&Method::GET, path, "application/json", None).is_ok();
    if !served {
        println!("skipped: this cluster has no {INJECTOR} in v1");
    }
    served
}

/// An admission policy that adds a container to each worker's Pod of a namespace, gone when dropped.
struct Injector {
    name: String,
}

impl Injector {
    /// A container that never ends, before the worker's.
    fn before_the_worker(namespace: &str) -> Self {
        Self::adding(namespace, "/spec/containers/0", "")
    }

    /// A native sidecar, which the kubelet ends.
    fn native(namespace: &str) -> Self {
        Self::adding(namespace, "/spec/initContainers", "restartPolicy: \"Always\",")
    }

    fn adding(namespace: &str, path: &str, more: &str) -> Self {
        let name = format!("inject-{namespace}");
        let container = format!(
            "Object.spec.{kind}{{name: \"a-proxy\", image: object.spec.containers[0].image, command: [\"sleep\", \"infinity\"], {more}
               securityContext: Object.spec.{kind}.securityContext{{allowPrivilegeEscalation: false,
                 capabilities: Object.spec.{kind}.securityContext.capabilities{{drop: [\"ALL\"]}}}}}}",
            kind = if more.is_empty() { "containers" } else { "initContainers" },
        );
        let value = if more.is_empty() { container } else { format!("[{container}]") };
        let expression = format!("[JSONPatch{{op: \"add\", path: \"{path}\", value: {value}}}]");
        let group = "admissionregistration.k8s.io/v1";
        let policy = json!({
            "apiVersion": group, "kind": INJECTOR, "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                ]},
                "matchConditions": [{
                    "name": "workers",
                    "expression": "'app.kubernetes.io/name' in object.metadata.?labels.orValue({}) && object.metadata.labels['app.kubernetes.io/name'] == 'holdfast-worker'",
                }],
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
            },
        });
        let binding = json!({
            "apiVersion": group, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
            },
        });
        for object in [&policy, &binding] {
            cluster().apply(object, false).unwrap_or_else(|refused| panic!("{}", refused.message));
        }
        Self { name }
    }

    /// Policies come into force some time after they are made.
    fn wait_until_it_injects(&self, scene: &Scene<'_>) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "trial", "labels": {"app.kubernetes.io/name": "holdfast-worker"}},
            "spec": {
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "worker", "image": "none",
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        wait_for(&format!("{} injects", self.name), seconds(60), || {
            let seen = scene.space.dry_run(&pod).map_err(|refused| refused.message)?;
            if seen.to_string().contains("a-proxy") { Ok(()) } else { Err(format!("{:#}", seen["spec"])) }
        });
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        for kind in ["MutatingAdmissionPolicyBinding", INJECTOR] {
            cluster().delete(kind, "", &self.name, "");
        }
    }
}

//! Jobs on a cluster that has rules of its own: quotas, required labels, users by namespace. All of them keep to a template, the probe's too.

use holdfast_e2e::objects::{backup, condition, has_condition, has_ended, phase, restore};
use holdfast_e2e::postgres::random_name;
use holdfast_e2e::rule::Rule;
use holdfast_e2e::scene::{PREFIX, PROMISE, Scene};
use holdfast_e2e::space::Space;
use holdfast_e2e::wait::seconds;
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select generate_series(1, 10) as n";

fn a_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "any", "image": "none",
                "resources": {"limits": {"cpu": "10m"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

#[test]
fn a_quota_on_limits_and_required_labels_are_kept_by_every_job_once_the_store_says_how() {
    let space = Space::new("shaped");
    space.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "limits"},
        "spec": {"hard": {"limits.cpu": "4", "requests.cpu": "4"}},
    }));
    let label = "has(object.metadata.labels) && 'example.com/cost-center' in object.metadata.labels";
    let rule = Rule::new(&space, &["batch", ""], &["jobs", "pods"], label, "every workload names its cost center");
    rule.wait_until_it_refuses(&space, &a_pod(), "names its cost center");

    let scene = Scene::inside(space);
    let mut store = scene.bucket.store("main", PREFIX);
    store["spec"]["jobTemplate"] = json!({
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "labels": {"example.com/cost-center": "4711"},
        "tolerations": [{"key": "example.com/backups", "operator": "Exists"}],
    });
    scene.space.apply(&store);
    let ready = |s: &Value| has_condition(s, "Ready", "True", "Probed");
    scene.space.wait("BackupStore", "main", "is proved", seconds(150), ready);

    let database = scene.postgres.seed(LITTLE);
    // The policy's own template, which says of resources less than the quota asks for, is over that of the store.
    scene.policy("shop", &database, &Value::Null);
    let made = scene.backup("monday", "shop");
    let run = made["status"]["runId"].as_str().unwrap().to_owned();

    // Neither has a policy by then: deletion, and a restore from the store.
    let copy = random_name("copy");
    let mut doomed = backup("tuesday", "shop");
    doomed["spec"]["deletionPolicy"] = json!("Delete");
    scene.space.apply(&doomed);
    scene.space.wait("Backup", "tuesday", "has ended", PROMISE, has_ended);
    scene.space.delete("BackupPolicy", "shop");
    scene.space.wait_gone("BackupPolicy", "shop", seconds(30));
    scene.space.delete("Backup", "tuesday");
    scene.space.wait_gone("Backup", "tuesday", PROMISE);
    let target = scene.postgres.source("db", &copy)["postgres"].clone();
    let from = json!({"store": {"name": "main", "policy": "shop", "runId": run}});
    let restored = scene.try_restore(&restore(
        "undo",
        &from,
        &json!([{"source": "db", "postgres": {
            "host": target["host"], "database": copy, "credentialsSecret": target["credentialsSecret"],
        }}]),
    ));
    assert_eq!(phase(&restored), "Completed", "{:#}", restored["status"]);
    scene.postgres.drop_database(&copy);

    for pod in scene.space.list("Pod") {
        assert_eq!(pod["metadata"]["labels"]["example.com/cost-center"], "4711", "{:#}", pod["metadata"]);
        let tolerations = pod["spec"]["tolerations"].as_array().unwrap();
        assert!(tolerations.iter().any(|t| t["key"] == "example.com/backups"), "{tolerations:?}");
        assert_eq!(pod["spec"]["nodeSelector"]["kubernetes.io/os"], "linux");
    }
    drop(rule);
}

#[test]
fn users_and_groups_that_a_platform_gives_by_namespace_are_kept_where_the_template_says_them() {
    // As OpenShift's SCC restricted-v2 does: ids outside of the namespace's range are refused.
    let space = Space::new("ranges");
    let in_range = |path: &str| format!("(!has({path}) || ({path} >= 1000700000 && {path} < 1000710000))");
    let of_pod = "object.spec.securityContext";
    let expression = format!(
        "!has({of_pod}) || ({} && {} && {})",
        in_range(&format!("{of_pod}.runAsUser")),
        in_range(&format!("{of_pod}.runAsGroup")),
        in_range(&format!("{of_pod}.fsGroup")),
    );
    let words = "must be in the range of the namespace";
    let rule = Rule::new(&space, &[""], &["pods"], &expression, words);
    rule.wait_until_it_refuses(&space, &a_pod(), words);

    let scene = Scene::inside(space);
    let refused = |s: &Value| {
        let ready = condition(s, "Ready");
        ready["status"] != "True" && ready["message"].as_str().is_some_and(|message| message.contains(words))
    };
    scene.space.wait("BackupStore", "main", "tells who refused its Pod", seconds(150), refused);

    let mut store = scene.bucket.store("main", PREFIX);
    store["spec"]["jobTemplate"] =
        json!({"securityContext": {"runAsUser": 1_000_700_000, "runAsGroup": 1_000_700_000, "fsGroup": 1_000_700_000}});
    scene.space.apply(&store);
    let ready = |s: &Value| has_condition(s, "Ready", "True", "Probed");
    scene.space.wait("BackupStore", "main", "is proved", seconds(150), ready);
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("monday", "shop");
    drop(rule);
}

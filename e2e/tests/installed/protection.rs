//! A policy says by itself when what can be restored has become too old, and the metrics say the same.

use holdfast_e2e::cluster::cluster;
use holdfast_e2e::command::kubectl;
use holdfast_e2e::installation::NAMESPACE;
use holdfast_e2e::objects::{condition, has_condition};
use holdfast_e2e::scene::Scene;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select i from generate_series(1, 10) i";

#[test]
fn a_policy_is_protected_for_as_long_as_its_max_age_and_then_says_why_it_is_not() {
    let scene = Scene::new("max-age");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &json!({"maxAge": "1m"}));
    let none_yet = |p: &Value| has_condition(p, "Protected", "False", "NoBackupYet");
    scene.space.wait("BackupPolicy", "shop", "has no backup yet", seconds(30), none_yet);

    let good = scene.backup("good", "shop");
    let protected = |p: &Value| has_condition(p, "Protected", "True", "Protected");
    let policy = scene.space.wait("BackupPolicy", "shop", "is protected", seconds(30), protected);
    let slot = good["metadata"]["creationTimestamp"].as_str().unwrap();
    assert_eq!(policy["status"]["recoveryWindow"], json!({"from": slot, "to": slot}), "{policy:#}");
    assert_eq!(policy["status"]["recoveryPoint"], slot);
    metric("holdfast_policy_protected", scene.space.name(), "1.0");
    metric("holdfast_policy_max_age_seconds", scene.space.name(), "60.0");

    // Nothing happens to it, and it turns by itself.
    let too_old = |p: &Value| has_condition(p, "Protected", "False", "BackupTooOld");
    let policy = scene.space.wait("BackupPolicy", "shop", "is no longer protected", seconds(90), too_old);
    let message = condition(&policy, "Protected")["message"].as_str().unwrap();
    assert!(message.contains("source db is good") && message.contains("no schedule"), "{message}");
    metric("holdfast_policy_protected", scene.space.name(), "0.0");

    // A failed run does not help, and is the cause from now on.
    scene.policy("shop", "nowhere", &json!({"maxAge": "1m"}));
    scene.try_backup("bad", "shop");
    scene.space.wait("BackupPolicy", "shop", "names the failed run", seconds(30), |p| {
        too_old(p) && condition(p, "Protected")["message"].as_str().is_some_and(|m| m.contains("bad failed:"))
    });
    scene.space.merge("BackupPolicy", "shop", &json!({"spec": {"maxAge": null}}));
    scene.space.wait("BackupPolicy", "shop", "promises nothing", seconds(30), |p| condition(p, "Protected").is_null());
}

/// Waits until the installed controller exposes a figure of the policy `shop` in a namespace.
#[track_caller]
fn metric(name: &str, namespace: &str, value: &str) {
    let selector = "labelSelector=app.kubernetes.io%2Fname%3Dholdfast";
    let service = cluster().list_with("Service", NAMESPACE, selector).remove(0)["metadata"]["name"].clone();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/services/{}:metrics/proxy/metrics", service.as_str().unwrap());
    let line = format!(r#"{name}{{namespace="{namespace}",policy="shop"}} {value}"#);
    wait_for(&line, seconds(30), || {
        let text = kubectl(&["get", "--raw", &path]);
        if text.lines().any(|l| l == line) {
            return Ok(());
        }
        let near: Vec<&str> = text.lines().filter(|l| l.starts_with(name) && l.contains(namespace)).collect();
        Err(format!("{near:?}"))
    });
}

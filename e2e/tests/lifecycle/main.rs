//! The operator itself comes and goes, and what it looks after stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use holdfast_e2e::cluster::cluster;
use holdfast_e2e::command::{helm, kubectl};
use holdfast_e2e::installation::{self, NAMESPACE};
use holdfast_e2e::objects::{backup, has_ended, phase};
use holdfast_e2e::postgres::random_name;
use holdfast_e2e::scene::{PROMISE, Scene};
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const CRD: &str = "backuppolicies.holdfast.dev";

#[test]
fn uninstalling_keeps_definitions_objects_and_backups_and_a_new_installation_goes_on_with_them() {
    let installed = installation::alone();
    let scene = Scene::new("reinstall");
    let database = scene.postgres.seed("create table t as select i from generate_series(1, 10) i");
    let before = scene.postgres.contents(&database);
    scene.policy("shop", &database, &json!({"schedule": "@yearly"}));
    scene.backup("before", "shop");
    let keys = scene.bucket.listing();
    let policy = scene.wait_policy_ready("shop");

    helm(&["uninstall", &installed.release, "-n", NAMESPACE, "--wait"]);
    assert!(installation::deployments().is_empty());
    assert!(cluster().get("CustomResourceDefinition", "", CRD).is_some());
    assert_eq!(scene.space.get("BackupPolicy", "shop").unwrap()["metadata"]["uid"], policy["metadata"]["uid"]);
    assert_eq!(phase(&scene.space.get("Backup", "before").unwrap()), "Completed");
    assert_eq!(scene.bucket.listing(), keys);
    // Asked for while nobody is there to do it.
    scene.space.apply(&backup("meanwhile", "shop"));
    scene.postgres.drop_database(&database);
    scene.postgres.sql("postgres", &format!("create database {database}"));

    installed.install();

    let meanwhile = scene.space.wait("Backup", "meanwhile", "has ended", PROMISE, has_ended);
    assert_eq!(phase(&meanwhile), "Completed", "{meanwhile:#}");
    let copy = random_name("copy");
    scene.restore(&json!({"backup": "before"}), &json!({"database": copy}));
    assert_eq!(scene.postgres.contents(&copy), before);
    scene.postgres.drop_database(&copy);

    // An upgrade brings the definitions up to date.
    let old = json!([{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns"}]);
    kubectl(&["patch", "crd", CRD, "--type=json", "-p", &old.to_string()]);
    installed.install();
    wait_for("the definition is the chart's again", seconds(30), || {
        let crd = cluster().get("CustomResourceDefinition", "", CRD).unwrap();
        let columns: &Value = &crd["spec"]["versions"][0]["additionalPrinterColumns"];
        if columns.is_array() { Ok(()) } else { Err(columns.to_string()) }
    });
    assert_eq!(phase(&scene.space.get("Backup", "before").unwrap()), "Completed");
}

//! Which backups stay: in the bucket and as objects, together; and nothing else of the bucket is ever touched.

use std::collections::BTreeSet;

use holdfast_e2e::objects::{name, phase};
use holdfast_e2e::scene::{PREFIX, Scene};
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select i from generate_series(1, 10) i";

#[test]
fn of_several_backups_the_newest_two_stay_and_what_lies_around_them_is_not_touched() {
    let scene = Scene::new("keep-two");
    let database = scene.postgres.seed(LITTLE);
    let sources = json!([scene.postgres.source("db", &database), scene.postgres.source("db-2", &database)]);
    scene.policy_of("shop", &sources, &json!({"retention": {"keepLast": 2}}));
    scene.policy("shop-2", &database, &Value::Null);
    let namespace = scene.space.name();
    let first = scene.backup("first", "shop");
    let other = scene.backup("of-another-policy", "shop-2");
    let run = first["status"]["runId"].as_str().unwrap();
    let manifest = scene.bucket.read(&format!("{PREFIX}/{namespace}/shop/{run}/db/manifest.json"));
    let decoys = [
        format!("{PREFIX}/{namespace}/shop"),
        format!("{PREFIX}/{namespace}/shop/notes.txt"),
        format!("{PREFIX}/{namespace}/shop/{run}/by-hand.txt"),
        format!("{PREFIX}/{namespace}/shop/{run}/db/by-hand.txt"),
        format!("{PREFIX}/{namespace}/shop/{run}-copy/db/manifest.json"),
        format!("{PREFIX}/{namespace}/shopping/{run}/db/manifest.json"),
        format!("{PREFIX}/{namespace}-2/shop/{run}/db/manifest.json"),
        format!("{PREFIX}ture/{namespace}/shop/{run}/db/manifest.json"),
        format!("{namespace}/shop/{run}/db/manifest.json"),
    ];
    // An object whose key is a folder of others is more than some servers take.
    for decoy in &decoys[1..] {
        scene.bucket.write(decoy, &manifest);
    }

    let kept: Vec<Value> =
        ["second", "third", "fourth"].map(|name| scene.backup(name, "shop")).into_iter().skip(1).collect();

    let mut expected: BTreeSet<String> = decoys[1..].iter().cloned().collect();
    let keys = scene.bucket.keys();
    let of_run = |backup: &Value| {
        let folder = format!("/{}/", backup["status"]["runId"].as_str().unwrap());
        keys.iter().filter(move |key| key.contains(&folder)).cloned().collect::<Vec<_>>()
    };
    for backup in kept.iter().chain([&other]) {
        assert_eq!(of_run(backup).len(), backup["status"]["artifacts"].as_array().unwrap().len() * 2);
        expected.extend(of_run(backup));
    }
    wait_for("the bucket holds two runs of the policy", seconds(60), || {
        let keys: BTreeSet<String> = scene.bucket.keys().into_iter().collect();
        if keys == expected { Ok(()) } else { Err(format!("{:#?}", keys.symmetric_difference(&expected))) }
    });
    wait_for("so does the namespace", seconds(60), || {
        let names: BTreeSet<String> = scene.space.list("Backup").iter().map(|b| name(b).to_owned()).collect();
        let right = BTreeSet::from(["third", "fourth", "of-another-policy"].map(str::to_owned));
        if names == right { Ok(()) } else { Err(format!("{names:?}")) }
    });
    scene.space.wait("BackupPolicy", "shop", "counts them", seconds(30), |p| p["status"]["backups"]["complete"] == 2);
}

#[test]
fn failed_backups_push_no_good_one_out() {
    let scene = Scene::new("failed-count-not");
    let database = scene.postgres.seed(LITTLE);
    let rules = json!({"retention": {"keepLast": 1}});
    scene.policy("shop", &database, &rules);
    let good = scene.backup("good", "shop");
    let keys = scene.keys_of(&good);
    scene.policy("shop", "nowhere", &rules);
    for name in ["bad-1", "bad-2"] {
        assert_eq!(phase(&scene.try_backup(name, "shop")), "Failed");
    }
    let policy = scene
        .space
        .wait("BackupPolicy", "shop", "counts the failures", seconds(30), |p| p["status"]["consecutiveFailures"] == 2);
    assert_eq!(policy["status"]["backups"]["complete"], 1, "{policy:#}");
    assert_eq!(scene.keys_of(&good), keys);
    assert!(scene.space.get("Backup", "good").is_some());

    scene.policy("shop", &database, &rules);
    let better = scene.backup("better", "shop");
    scene.space.wait_gone("Backup", "good", seconds(60));
    wait_for("the older one is gone from the bucket", seconds(30), || {
        let left = scene.keys_of(&good);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!(scene.keys_of(&better).len(), 2);
}

#[test]
fn a_schedule_keeps_running_within_its_retention_stops_when_suspended_and_goes_on_after() {
    let scene = Scene::new("suspend");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &json!({"schedule": "@every 10s", "retention": {"keepLast": 2}}));
    let scheduled = || {
        let mut names: Vec<String> = scene.space.list("Backup").iter().map(|b| name(b).to_owned()).collect();
        names.retain(|name| name.starts_with("shop-20"));
        names.sort();
        names
    };
    let first =
        wait_for("a first scheduled backup", seconds(60), || scheduled().first().cloned().ok_or_else(String::new));
    scene.space.wait_gone("Backup", &first, seconds(90));
    scene.space.merge("BackupPolicy", "shop", &json!({"spec": {"suspend": true}}));
    let suspended = |p: &Value| p["status"]["observedGeneration"] == p["metadata"]["generation"];
    scene.space.wait("BackupPolicy", "shop", "has seen the change", seconds(30), suspended);

    // Each of these takes as long as a slot, and they show that backups by hand go on.
    let newest = scheduled().pop();
    for name in ["by-hand-1", "by-hand-2", "by-hand-3"] {
        scene.backup(name, "shop");
    }
    assert!(scheduled().pop() <= newest, "nothing was scheduled while suspended");
    wait_for("two backups stay", seconds(60), || {
        let count = scene.space.list("Backup").iter().filter(|b| phase(b) == "Completed").count();
        if count == 2 { Ok(()) } else { Err(count.to_string()) }
    });

    scene.space.merge("BackupPolicy", "shop", &json!({"spec": {"suspend": false}}));
    wait_for(
        "the schedule goes on",
        seconds(60),
        || if scheduled().pop() > newest { Ok(()) } else { Err(String::new()) },
    );
}

#[test]
fn a_policy_that_runs_on_create_runs_once_beside_its_schedule() {
    let scene = Scene::new("on-create");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &json!({"schedule": "@yearly", "runOnCreate": true}));
    let policy = scene.space.wait("BackupPolicy", "shop", "has a complete backup", seconds(90), |p| {
        p["status"]["backups"]["complete"] == 1
    });
    assert!(policy["status"]["nextScheduledTime"].as_str().unwrap().contains("-01-01T00:00:00"), "{policy:#}");
    scene.space.merge("BackupPolicy", "shop", &json!({"spec": {"schedule": "@monthly"}}));
    let seen = |p: &Value| p["status"]["observedGeneration"] == p["metadata"]["generation"];
    scene.space.wait("BackupPolicy", "shop", "has seen the change", seconds(30), seen);
    assert_eq!(scene.space.list("Backup").len(), 1);
}

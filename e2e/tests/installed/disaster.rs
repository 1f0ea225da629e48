//! The cluster is gone and the bucket is left: with a store, a few Secrets and a request; or with a policy that comes to a full bucket.

use std::collections::BTreeSet;

use holdfast_e2e::objects::{has_ended, name, phase, restore};
use holdfast_e2e::redis::Redis;
use holdfast_e2e::scene::{PREFIX, Scene};
use holdfast_e2e::tools;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const EVERYTHING: &str = include_str!("seeds/everything.sql");
const FOUND: &str = "holdfast.dev/found";
const CLUSTER: &str = "holdfast.dev/cluster";
/// The UID of a cluster that never was.
const OTHER: &str = "7f1f1a0c-5f0b-4d3e-9a51-0c2f9d7e1b6a";

fn remove(scene: &Scene<'_>, kind: &str, name: &str) {
    scene.space.delete(kind, name);
    scene.space.wait_gone(kind, name, seconds(30));
}

#[test]
fn with_nothing_but_an_encrypted_bucket_and_its_key_everything_comes_back() {
    let scene = Scene::new("disaster");
    let key = tools::run(&["age-keygen"], b"").text();
    let identity = key.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap();
    let recipient = key.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    let mut store = scene.bucket.store("main", PREFIX)["spec"].clone();
    store["encryption"] = json!({"recipients": [recipient]});
    scene.store("main", &store);
    let redis = Redis::start(&scene.space, "cache", "redis:7");
    scene.space.apply(&redis.credentials("redis"));
    let database = scene.postgres.seed(EVERYTHING);
    redis.commands(include_str!("seeds/everything.redis"));
    let before = (scene.postgres.contents(&database), redis.contents());
    scene.policy_of("shop", &json!([scene.postgres.source("db", &database), redis.source("cache")]), &Value::Null);
    let backup = scene.backup("monday", "shop");
    assert!(backup["status"]["artifacts"].as_array().unwrap().iter().all(|a| a["encrypted"] == true), "{backup:#}");

    // All that was in the cluster is gone, and so is the data.
    remove(&scene, "BackupPolicy", "shop");
    remove(&scene, "Backup", "monday");
    remove(&scene, "BackupStore", "main");
    for secret in ["s3-credentials", "postgres", "redis"] {
        remove(&scene, "Secret", secret);
    }
    scene.postgres.drop_database(&database);
    redis.command(&["flushall"]);
    redis.command(&["function", "flush"]);
    let keys = scene.bucket.keys();

    // What docs/disaster-recovery.md asks for, applied at once and in this order.
    store["readOnly"] = json!(true);
    store["encryption"]["identitySecret"] = json!({"name": "age-key", "key": "identity"});
    let into = json!([
        {"source": "db", "postgres": {
            "host": scene.postgres.host(), "database": database, "credentialsSecret": {"name": "postgres"}}},
        {"source": "cache", "redis": {"host": redis.host(), "credentialsSecret": {"name": "redis"}}},
    ]);
    let mut request = restore("disaster", &json!({"store": {"name": "old-cluster", "policy": "shop"}}), &into);
    request["spec"]["onExisting"] = json!("Replace");
    request["spec"]["safetyBackup"] = json!(false);
    scene.space.apply(&request);
    scene.store("old-cluster", &store);
    scene.space.apply(&holdfast_e2e::objects::secret("age-key", &json!({"identity": identity})));
    scene.space.apply(&scene.bucket.server().credentials("s3-credentials"));
    scene.space.apply(&scene.postgres.credentials("postgres"));
    scene.space.apply(&redis.credentials("redis"));
    let restored = scene.space.wait("RestoreRequest", "disaster", "has ended", seconds(125), has_ended);

    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    assert_eq!(restored["status"]["runId"], backup["status"]["runId"]);
    assert_eq!(scene.postgres.contents(&database), before.0);
    assert_eq!(redis.contents(), before.1);
    assert_eq!((scene.space.list("BackupPolicy").len(), scene.space.list("Backup").len()), (0, 0));
    assert_eq!(scene.bucket.keys(), keys, "a read-only store is only read");
    scene.postgres.drop_database(&database);
}

/// Waits until these runs, and no others, have Backups that were found in the bucket.
fn wait_found(scene: &Scene<'_>, runs: &BTreeSet<String>) -> Vec<Value> {
    wait_for("what is in the bucket has Backups", seconds(90), || {
        let all = scene.space.list("Backup");
        let found: Vec<Value> = all.into_iter().filter(|b| b["metadata"]["labels"][FOUND] == "true").collect();
        let complete: BTreeSet<String> = found
            .iter()
            .filter(|b| phase(b) == "Completed")
            .filter_map(|b| b["status"]["runId"].as_str().map(str::to_owned))
            .collect();
        if complete == *runs && found.len() == runs.len() { Ok(found) } else { Err(format!("{found:#?}")) }
    })
}

#[test]
fn a_policy_made_anew_finds_its_backups_restores_from_them_and_retains_its_own_alone() {
    let scene = Scene::new("found");
    let database = scene.postgres.seed(EVERYTHING);
    let before = scene.postgres.contents(&database);
    let policy = || scene.policy("shop", &database, &json!({"retention": {"keepLast": 1, "keepWithin": "1h"}}));
    policy();
    let runs: Vec<String> = ["monday", "tuesday", "wednesday"]
        .map(|name| scene.backup(name, "shop")["status"]["runId"].as_str().unwrap().to_owned())
        .into();
    remove(&scene, "BackupPolicy", "shop");
    for name in ["monday", "tuesday", "wednesday"] {
        remove(&scene, "Backup", name);
    }
    // As if another cluster had made the first of them.
    for (key, mut manifest) in scene.bucket.manifests().into_iter().filter(|(key, _)| key.contains(&runs[0])) {
        manifest["clusterUid"] = json!(OTHER);
        scene.bucket.write(&key, manifest.to_string().as_bytes());
    }

    policy();
    let found = wait_found(&scene, &runs.iter().cloned().collect());
    assert!(
        found.iter().all(|b| b["spec"]["deletionPolicy"] == "Retain" && b["status"]["store"] == "main"),
        "{found:#?}"
    );
    for backup in &found {
        let theirs = backup["status"]["runId"] == runs[0].as_str();
        assert_eq!(backup["metadata"]["labels"][CLUSTER] == OTHER, theirs, "{backup:#}");
    }
    let status = scene.wait_policy_ready("shop")["status"].clone();
    assert_eq!(status["catalogue"]["found"], 3, "{status:#}");
    scene.postgres.drop_database(&database);
    let restored = scene.restore(&json!({"policy": {"name": "shop"}}), &Value::Null);
    assert_eq!(restored["status"]["runId"], runs[2], "the newest of this cluster");
    assert_eq!(scene.postgres.contents(&database), before);

    // Its predecessor's go as its own would; another cluster's stay, with their object.
    scene.space.merge("BackupPolicy", "shop", &json!({"spec": {"retention": {"keepLast": 1, "keepWithin": null}}}));
    scene.backup("thursday", "shop");
    wait_for("what is due is gone and nothing else", seconds(90), || {
        let names: BTreeSet<String> = scene.space.list("Backup").iter().map(|b| name(b).to_owned()).collect();
        let in_bucket = |run: &String| scene.bucket.keys().iter().any(|key| key.contains(run.as_str()));
        let there: Vec<bool> = runs.iter().map(in_bucket).collect();
        if names.len() == 2 && there == [true, false, false] { Ok(()) } else { Err(format!("{names:?} {there:?}")) }
    });
    let left = found.iter().find(|b| b["status"]["runId"] == runs[0].as_str()).unwrap();
    let restored = scene.restore(&json!({"backup": name(left)}), &json!({"database": format!("{database}_back")}));
    assert_eq!(restored["status"]["runId"], runs[0]);
    scene.postgres.drop_database(&database);
    scene.postgres.drop_database(&format!("{database}_back"));
}

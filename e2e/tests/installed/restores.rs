//! Restores that cannot hurt: looked at first, undone afterwards, once, with the applications stopped meanwhile.

use holdfast_e2e::gate::Gate;
use holdfast_e2e::images::deployment;
use holdfast_e2e::objects::{condition, phase, restore, secret};
use holdfast_e2e::scene::{PREFIX, Scene};
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t (id int primary key, what text); insert into t select i, md5(i::text) from generate_series(1, 100) i";

/// A request that replaces the database of the policy `shop`.
fn replace(name: &str, backup: &str) -> Value {
    let mut request = restore(name, &json!({"backup": backup}), &Value::Null);
    request["spec"]["onExisting"] = json!("Replace");
    request
}

fn stopping(mut request: Value) -> Value {
    request["spec"]["scaleDown"] = json!([{"kind": "Deployment", "name": "api"}]);
    request
}

/// A scene with a complete backup `monday`, and a Deployment `api` with two Pods that run.
fn scene(purpose: &str) -> (Scene<'static>, String) {
    let scene = Scene::new(purpose);
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("monday", "shop");
    scene.space.apply(&deployment("api", 2));
    scene.space.wait("Deployment", "api", "runs", seconds(90), |d| d["status"]["readyReplicas"] == 2);
    (scene, database)
}

fn replicas(scene: &Scene<'_>) -> Value {
    scene.space.get("Deployment", "api").unwrap()["spec"]["replicas"].clone()
}

/// Waits until the request has let its workloads go.
fn brought_back(scene: &Scene<'_>, name: &str) -> Value {
    scene.space.wait("RestoreRequest", name, "has brought it back", seconds(125), |r| {
        r["metadata"]["finalizers"].is_null() && !r["status"]["scaledDown"][0]["outcome"].is_null()
    })
}

#[test]
fn a_dry_run_on_the_cluster_tells_and_changes_nothing() {
    let (scene, database) = scene("dry-run");
    let before = (scene.postgres.contents(&database), scene.bucket.listing());
    let mut look = stopping(replace("look", "monday"));
    look["spec"]["dryRun"] = json!(true);
    let looked = scene.try_restore(&look);
    assert_eq!(phase(&looked), "Completed", "{looked:#}");
    assert!(looked["status"]["from"].as_str().unwrap().ends_with("(dry run)"), "{looked:#}");
    assert!(looked["status"]["items"].is_null() && looked["status"]["safetyBackup"].is_null(), "{looked:#}");
    assert!(condition(&looked, "Complete")["message"].as_str().unwrap().starts_with("dry run: nothing was changed"));
    let told = looked["status"]["sources"][0]["message"].as_str().unwrap();
    assert!(told.contains(&database) && told.contains("would replace"), "{told}");

    let mut refused = restore("refused", &json!({"backup": "monday"}), &Value::Null);
    refused["spec"]["dryRun"] = json!(true);
    let refused = scene.try_restore(&refused);
    assert_eq!(condition(&refused, "Complete")["reason"], "TargetNotEmpty", "{refused:#}");
    assert_eq!((scene.postgres.contents(&database), scene.bucket.listing()), before);
    assert_eq!(replicas(&scene), 2);
    assert_eq!(scene.space.list("Backup").len(), 1);
}

#[test]
fn what_a_restore_replaced_comes_back_from_its_safety_backup() {
    let (scene, database) = scene("safety");
    let saved = scene.postgres.contents(&database);
    scene.postgres.sql(&database, "create table newer (id int); delete from t where id > 50");
    let changed = scene.postgres.contents(&database);

    let restored = scene.try_restore(&replace("undo", "monday"));
    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    assert_eq!(scene.postgres.contents(&database), saved);
    let safety = restored["status"]["safetyBackup"].as_str().unwrap().to_owned();
    assert!(condition(&restored, "Complete")["message"].as_str().unwrap().contains(&safety), "{restored:#}");
    let uid = restored["metadata"]["uid"].as_str().unwrap();
    let marker = format!("{PREFIX}/{}/.restores/{uid}.", scene.space.name());
    assert!(scene.bucket.keys().iter().any(|key| key.starts_with(&marker)), "{:?}", scene.bucket.keys());

    // It is not the newest restore point, and the policy does not count it.
    let newest = restore("newest", &json!({"policy": {"name": "shop"}}), &Value::Null);
    let newest = scene.try_restore(&newest);
    assert_eq!(condition(&newest, "Complete")["reason"], "TargetNotEmpty", "{newest:#}");
    assert_eq!(newest["status"]["backup"], "monday");
    let policy = scene.space.get("BackupPolicy", "shop").unwrap();
    assert_eq!(policy["status"]["backups"]["complete"], 1, "{policy:#}");

    let undone = scene.try_restore(&replace("undo-the-undo", &safety));
    assert_eq!(phase(&undone), "Completed", "{undone:#}");
    assert_eq!(scene.postgres.contents(&database), changed);

    // Its data goes with it.
    let run = scene.space.get("Backup", &safety).unwrap()["status"]["runId"].as_str().unwrap().to_owned();
    scene.space.delete("Backup", &safety);
    scene.space.wait_gone("Backup", &safety, seconds(90));
    assert!(!scene.bucket.keys().iter().any(|key| key.contains(&run)), "{:?}", scene.bucket.keys());
}

#[test]
fn a_restore_whose_safety_backup_fails_touches_nothing() {
    let (scene, database) = scene("unsaved");
    scene.postgres.sql(&database, "delete from t where id > 50");
    let before = scene.postgres.contents(&database);
    // The database lets nobody in with this password.
    scene.space.apply(&secret("wrong", &json!({"username": "postgres", "password": "wrong"})));
    let mut source = scene.postgres.source("db", &database);
    source["postgres"]["credentialsSecret"]["name"] = json!("wrong");
    scene.policy_of("shop", &json!([source]), &Value::Null);
    let failed = scene.try_restore(&stopping(replace("undo", "monday")));
    assert_eq!(condition(&failed, "Complete")["reason"], "SourceRefused", "{failed:#}");
    let message = condition(&failed, "Complete")["message"].as_str().unwrap();
    assert!(message.contains("the safety backup") && message.contains("nothing was touched"), "{message}");
    brought_back(&scene, "undo");
    assert_eq!((scene.postgres.contents(&database), replicas(&scene)), (before, json!(2)));
}

#[test]
fn a_workload_is_stopped_while_its_database_is_restored_and_brought_back() {
    let (scene, database) = scene("scale-down");
    let saved = scene.postgres.contents(&database);
    scene.postgres.sql(&database, "delete from t where id > 50");
    // Held up while what is there is saved.
    let gate = Gate::before_the_data(scene.postgres, &database);
    scene.space.apply(&stopping(replace("undo", "monday")));
    gate.wait_for_a_dump();
    assert_eq!(replicas(&scene), 0);
    let pods = scene.space.list("Pod");
    assert!(!pods.iter().any(|pod| pod["metadata"]["labels"]["application"] == "api"), "every Pod of it has gone");
    let request = scene.space.get("RestoreRequest", "undo").unwrap();
    assert_eq!(request["status"]["scaledDown"][0]["replicas"], 2, "{request:#}");
    gate.open();

    let restored = brought_back(&scene, "undo");
    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    assert_eq!(scene.postgres.contents(&database), saved);
    assert_eq!(restored["status"]["scaledDown"][0]["outcome"], "it has 2 replicas again");
    scene.space.wait("Deployment", "api", "runs again", seconds(90), |d| d["status"]["readyReplicas"] == 2);
}

#[test]
fn a_workload_is_brought_back_when_the_restore_fails() {
    let (scene, database) = scene("scale-failed");
    let key = scene.bucket.keys().into_iter().find(|key| !key.ends_with("/manifest.json")).unwrap();
    let bytes = scene.bucket.read(&key);
    scene.bucket.write(&key, &bytes[..bytes.len() / 2]);
    let before = scene.postgres.contents(&database);
    let failed = scene.try_restore(&stopping(replace("undo", "monday")));
    assert_eq!(condition(&failed, "Complete")["reason"], "ChecksumMismatch", "{failed:#}");
    brought_back(&scene, "undo");
    assert_eq!((scene.postgres.contents(&database), replicas(&scene)), (before, json!(2)));
}

#[test]
fn a_restore_that_is_given_up_brings_its_workload_back_before_it_goes() {
    let (scene, database) = scene("given-up");
    let gate = Gate::before_the_data(scene.postgres, &database);
    scene.space.apply(&stopping(replace("undo", "monday")));
    gate.wait_for_a_dump();
    assert_eq!(replicas(&scene), 0);
    scene.space.delete("RestoreRequest", "undo");
    scene.space.wait_gone("RestoreRequest", "undo", seconds(60));
    assert_eq!(replicas(&scene), 2);
    gate.open();
    let ended = "the safety backup has ended";
    wait_for(ended, seconds(90), || {
        match scene.space.list("Backup").iter().find(|b| b["metadata"]["name"] != "monday") {
            Some(safety) if ["Completed", "Failed"].contains(&phase(safety)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

//! The bucket is not what the cluster believes: emptied, or with more in it than the cluster knows.

use holdfast_e2e::objects::{condition, has_condition, name};
use holdfast_e2e::scene::{PREFIX, Scene};
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select i from generate_series(1, 10) i";

#[test]
fn a_bucket_made_anew_is_noticed_by_the_next_probe() {
    let scene = Scene::new("bucket-made-anew");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &json!({"maxAge": "1d"}));
    let backup = scene.backup("first", "shop");
    scene.backup("second", "shop");
    scene
        .space
        .wait("BackupPolicy", "shop", "is protected", seconds(60), |p| condition(p, "Protected")["status"] == "True");
    let copies: Vec<(String, Vec<u8>)> =
        scene.bucket.keys().into_iter().map(|key| (key.clone(), scene.bucket.read(&key))).collect();
    for (key, _) in &copies {
        scene.bucket.delete(key);
    }
    // Any edit of a store has it probed anew; else the next hourly probe does it.
    let probe = |runs: u64| scene.space.merge("BackupStore", "main", &json!({"spec": {"maxConcurrentRuns": runs}}));
    probe(7);

    for name in ["first", "second"] {
        let gone = |b: &Value| has_condition(b, "Complete", "False", "DataMissing");
        let told = scene.space.wait("Backup", name, "says that its data is gone", seconds(120), gone);
        assert_eq!(told["status"]["phase"], "Completed", "a phase never changes");
        assert!(condition(&told, "Complete")["message"].as_str().unwrap().contains(PREFIX), "{told:#}");
    }
    let policy = scene.space.wait("BackupPolicy", "shop", "is not protected", seconds(60), |p| {
        condition(p, "Protected")["status"] == "False" && p["status"]["backups"]["complete"] == 0
    });
    assert_eq!(policy["status"]["backups"]["missing"], 2, "{:#}", policy["status"]);
    let run = backup["status"]["runId"].as_str().unwrap();
    let restore = holdfast_e2e::objects::restore("undo", &json!({"backup": "first"}), &Value::Null);
    let failed = scene.try_restore(&restore);
    assert!(has_condition(&failed, "Complete", "False", "DataMissing"), "{failed:#}");
    assert!(condition(&failed, "Complete")["message"].as_str().unwrap().contains(run), "{failed:#}");

    // Somebody had a copy. A restore that names it has the bucket read again.
    for (key, bytes) in &copies {
        scene.bucket.write(key, bytes);
    }
    let back = scene.restore(&json!({"backup": "first"}), &json!({"database": format!("{database}_back")}));
    assert_eq!(back["status"]["runId"], run);
    scene.space.wait("BackupPolicy", "shop", "is protected again", seconds(60), |p| {
        condition(p, "Protected")["status"] == "True" && p["status"]["backups"]["complete"] == 2
    });
    scene.postgres.drop_database(&database);
    scene.postgres.drop_database(&format!("{database}_back"));
}

#[test]
fn a_restore_from_a_policy_finds_the_newest_backup_whose_object_was_deleted() {
    let scene = Scene::new("forgotten");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("older", "shop");
    let newest = scene.backup("newest", "shop");
    scene.space.delete("Backup", "newest");
    scene.space.wait_gone("Backup", "newest", seconds(30));
    let into = json!({"database": format!("{database}_back")});
    let restored = scene.restore(&json!({"policy": {"name": "shop"}}), &into);
    assert_eq!(restored["status"]["runId"], newest["status"]["runId"], "not the one before it");
    scene.postgres.drop_database(&format!("{database}_back"));

    // None is left as an object.
    for backup in scene.space.list("Backup") {
        scene.space.delete("Backup", name(&backup));
        scene.space.wait_gone("Backup", name(&backup), seconds(30));
    }
    let restored = scene.restore(&json!({"policy": {"name": "shop"}}), &into);
    assert_eq!(restored["status"]["runId"], newest["status"]["runId"]);
    wait_for("both have Backups again", seconds(30), || {
        let count = scene.space.list("Backup").len();
        if count == 2 { Ok(()) } else { Err(format!("{count}")) }
    });
    scene.postgres.drop_database(&database);
    scene.postgres.drop_database(&format!("{database}_back"));
}

/// A Backup as a tool brings it back that keeps objects and not their status.
fn put_back(name: &str, slot: &str) -> Value {
    let mut backup = holdfast_e2e::objects::backup(name, "shop");
    backup["metadata"]["annotations"] = json!({"holdfast.dev/slot": slot});
    backup["metadata"]["labels"] = json!({"holdfast.dev/scheduled": "true"});
    backup
}

#[test]
fn backups_that_come_back_without_their_status_are_found_in_the_bucket_and_never_run_again() {
    let scene = Scene::new("put-back");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &json!({"schedule": "* * * * *"}));
    let scheduled = wait_for("a slot has run", seconds(150), || {
        let all = scene.space.list("Backup");
        all.into_iter().find(|b| b["status"]["phase"] == "Completed").ok_or_else(|| "none".to_owned())
    });
    scene.space.merge("BackupPolicy", "shop", &json!({"spec": {"suspend": true}}));
    let run = scheduled["status"]["runId"].as_str().unwrap().to_owned();
    let slot = scheduled["metadata"]["annotations"]["holdfast.dev/slot"].as_str().unwrap();

    // While its slot may still be late its workers find out that it has been through.
    scene.space.delete("Backup", name(&scheduled));
    scene.space.wait_gone("Backup", name(&scheduled), seconds(30));
    let keys = scene.bucket.keys();
    scene.space.apply(&put_back(name(&scheduled), slot));
    let back =
        scene.space.wait("Backup", name(&scheduled), "has ended", seconds(120), holdfast_e2e::objects::has_ended);
    assert_eq!((back["status"]["phase"].as_str(), back["status"]["runId"].as_str()), (Some("Completed"), Some(&*run)));
    assert_eq!(scene.bucket.keys(), keys, "nothing was stored for the slot again");

    // A month later: what the bucket holds of its slot is its own.
    let old = "20260801T020000Z-abcdef";
    for key in keys.iter().filter(|key| key.contains(&run)) {
        let bytes = scene.bucket.read(key);
        let bytes = if key.ends_with("manifest.json") {
            let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
            manifest["slot"] = json!("2026-08-01T02:00:00Z");
            manifest.to_string().replace(&run, old).into_bytes()
        } else {
            bytes
        };
        scene.bucket.write(&key.replace(&run, old), &bytes);
    }
    scene.space.apply(&put_back("shop-20260801-020000", "2026-08-01T02:00:00Z"));
    scene.space.apply(&put_back("shop-20260802-020000", "2026-08-02T02:00:00Z"));
    let back =
        scene.space.wait("Backup", "shop-20260801-020000", "has ended", seconds(120), holdfast_e2e::objects::has_ended);
    assert_eq!((back["status"]["phase"].as_str(), back["status"]["runId"].as_str()), (Some("Completed"), Some(old)));
    // And what it does not hold is saved as no backup of that day.
    let lost =
        scene.space.wait("Backup", "shop-20260802-020000", "has ended", seconds(120), holdfast_e2e::objects::has_ended);
    assert!(has_condition(&lost, "Complete", "False", "SlotPassed"), "{lost:#}");
    let at = json!({"policy": {"name": "shop", "at": "2026-08-02T12:00:00Z"}});
    let restored = scene.restore(&at, &json!({"database": format!("{database}_back")}));
    assert_eq!(restored["status"]["runId"], old);
    scene.postgres.drop_database(&database);
    scene.postgres.drop_database(&format!("{database}_back"));
}

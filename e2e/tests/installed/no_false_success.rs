//! What goes wrong is said, with its reason and within two minutes; it leaves no backup behind, harms none that is there, and a target
//! that cannot be restored whole is not touched.

use holdfast_e2e::bucket::S3;
use holdfast_e2e::cluster::cluster;
use holdfast_e2e::gate::Gate;
use holdfast_e2e::objects::{backup, condition, has_condition, has_ended, name, phase, restore, secret};
use holdfast_e2e::postgres::{Postgres, random_name};
use holdfast_e2e::scene::{PREFIX, PROMISE, Scene};
use holdfast_e2e::space::Space;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t (id int primary key, what text); insert into t select i, md5(i::text) from generate_series(1, 100) i";
/// Some ten parts of an upload: the texts are of no more than four bits a character, and no two are alike.
pub(super) const BIG: &str = "create table big as select i, (select string_agg(md5(i || '/' || n), '') from generate_series(1, 500) n) as long \
                   from generate_series(1, 4000) i";

/// A scene in which one backup is complete.
pub(super) fn scene_with_a_backup(purpose: &str) -> (Scene<'static>, String) {
    let scene = Scene::new(purpose);
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("good", "shop");
    (scene, database)
}

/// Does `mischief` after a Backup was made; it has to fail with one of these reasons and leave the bucket as it was.
#[track_caller]
pub(super) fn fails(scene: &Scene<'_>, reasons: &[&str], mischief: impl FnOnce()) -> Value {
    let before = scene.bucket.listing();
    scene.space.apply(&backup("bad", "shop"));
    mischief();
    let bad = scene.space.wait("Backup", "bad", "has ended", PROMISE, has_ended);
    is_failure(&bad, reasons);
    // What a killed worker could not take back lies about without a manifest: no backup, but no reason to fail here either.
    let after = scene.bucket.listing();
    assert!(before.iter().all(|object| after.contains(object)), "{before:?}\n{after:?}");
    let new: Vec<_> = after.iter().filter(|object| !before.contains(object)).collect();
    assert!(!new.iter().any(|(key, _)| key.ends_with("manifest.json")), "{new:?}");
    bad
}

#[track_caller]
fn is_failure(object: &Value, reasons: &[&str]) {
    let complete = condition(object, "Complete");
    assert_eq!(phase(object), "Failed", "{:#}", object["status"]);
    assert_eq!(complete["status"], "False", "{complete:#}");
    assert!(reasons.iter().any(|reason| complete["reason"] == *reason), "expected {reasons:?}: {complete:#}");
    assert!(complete["message"].as_str().unwrap().len() > 10, "a line a person can act on: {complete:#}");
}

/// The same for a restore into a database that must not be there afterwards, or be as before.
#[track_caller]
fn restore_fails(scene: &Scene<'_>, from: &Value, into: &Value, reasons: &[&str]) -> Value {
    let ended = scene.try_restore(&restore("bad", from, &json!([{"source": "db", "postgres": into}])));
    is_failure(&ended, reasons);
    ended
}

#[test]
fn a_dump_whose_session_is_ended_each_time_fails_with_dump_failed() {
    let (scene, database) = scene_with_a_backup("terminated");
    let gate = Gate::after_the_tables(scene.postgres, &database);
    fails(&scene, &["DumpFailed"], || {
        wait_for("the backup has failed", PROMISE, || {
            let end = "select pg_terminate_backend(pid) from pg_stat_activity \
                       where datname = current_database() and wait_event_type = 'Lock'";
            scene.postgres.sql(&database, end);
            let bad = scene.space.get("Backup", "bad").unwrap();
            if has_ended(&bad) { Ok(()) } else { Err(bad["status"].to_string()) }
        });
    });
    drop(gate);
}

#[test]
fn a_dump_whose_session_is_ended_once_is_made_again_and_whole() {
    let (scene, database) = scene_with_a_backup("terminated-once");
    let gate = Gate::after_the_tables(scene.postgres, &database);
    scene.space.apply(&backup("again", "shop"));
    let pid = gate.wait_for_a_dump();
    scene.postgres.sql(&database, &format!("select pg_terminate_backend({pid})"));
    gate.open();
    let again = scene.space.wait("Backup", "again", "has ended", PROMISE, has_ended);
    assert_eq!(phase(&again), "Completed", "{:#}", again["status"]);
    let before = scene.postgres.contents(&database);
    scene.postgres.drop_database(&database);
    scene.restore(&json!({"backup": "again"}), &Value::Null);
    assert_eq!(scene.postgres.contents(&database), before);
}

#[test]
fn a_wrong_password_fails_with_source_refused_and_is_not_tried_again() {
    let (scene, _) = scene_with_a_backup("wrong-password");
    scene.space.apply(&secret("postgres", &json!({"password": "not-this-one"})));
    let bad = fails(&scene, &["SourceRefused"], || {});
    let message = condition(&bad, "Complete")["message"].as_str().unwrap();
    assert!(message.contains(&scene.postgres.host()) && !message.contains("not-this-one"), "{message}");
}

#[test]
fn a_database_that_is_not_there_fails_with_source_refused() {
    let (scene, _) = scene_with_a_backup("no-database");
    scene.policy("shop", "nowhere", &Value::Null);
    let bad = fails(&scene, &["SourceRefused"], || {});
    assert!(condition(&bad, "Complete")["message"].as_str().unwrap().contains("nowhere"), "{bad:#}");
}

#[test]
fn a_server_that_is_not_there_fails_with_source_unreachable() {
    let (scene, database) = scene_with_a_backup("no-server");
    let mut source = scene.postgres.source("db", &database);
    source["postgres"]["host"] = json!("nobody.nowhere.svc");
    scene.policy_of("shop", &json!([source]), &Value::Null);
    fails(&scene, &["SourceUnreachable"], || {});
}

#[test]
fn a_secret_that_is_not_there_fails_with_secret_not_found() {
    let (scene, _) = scene_with_a_backup("no-secret");
    scene.space.delete("Secret", "postgres");
    let bad = fails(&scene, &["SecretNotFound"], || {});
    assert!(condition(&bad, "Complete")["message"].as_str().unwrap().contains("postgres"), "{bad:#}");
    let seen = |p: &Value| condition(p, "Ready")["reason"] == "SecretNotFound";
    scene.space.wait("BackupPolicy", "shop", "says what is missing", seconds(30), seen);
    // Put right, it is picked up by itself.
    scene.space.apply(&scene.postgres.credentials("postgres"));
    scene.backup("better", "shop");
    scene.wait_policy_ready("shop");
}

#[test]
fn a_key_that_is_not_in_the_secret_fails_with_secret_not_found() {
    let (scene, database) = scene_with_a_backup("no-key");
    let mut source = scene.postgres.source("db", &database);
    source["postgres"]["credentialsSecret"]["passwordKey"] = json!("passphrase");
    scene.policy_of("shop", &json!([source]), &Value::Null);
    let bad = fails(&scene, &["SecretNotFound"], || {});
    assert!(condition(&bad, "Complete")["message"].as_str().unwrap().contains("passphrase"), "{bad:#}");
}

#[test]
fn a_bucket_that_is_not_there_is_said_by_the_store_and_fails_the_backup_with_store_refused() {
    let (scene, _) = scene_with_a_backup("no-bucket");
    let mut store = scene.bucket.store("main", PREFIX);
    store["spec"]["s3"]["bucket"] = json!("no-such-bucket");
    scene.space.apply(&store);
    scene
        .space
        .wait("BackupStore", "main", "says so", seconds(60), |s| condition(s, "Ready")["reason"] == "BucketNotFound");
    let bad = fails(&scene, &["StoreRefused"], || {});
    assert!(condition(&bad, "Complete")["message"].as_str().unwrap().contains("no-such-bucket"), "{bad:#}");
}

#[test]
fn wrong_keys_of_the_store_are_said_by_it_and_fail_the_backup_with_store_refused() {
    let (scene, _) = scene_with_a_backup("wrong-keys");
    scene.space.apply(&secret("wrong", &json!({"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "else"})));
    let mut store = scene.bucket.store("main", PREFIX);
    store["spec"]["s3"]["credentialsSecret"] = json!("wrong");
    scene.space.apply(&store);
    let seen = |s: &Value| condition(s, "Ready")["reason"] == "CredentialsRejected";
    scene.space.wait("BackupStore", "main", "says so", seconds(60), seen);
    fails(&scene, &["StoreRefused"], || {});
}

#[test]
fn a_store_that_is_gone_during_the_upload_fails_with_store_unreachable_and_the_backup_before_it_still_restores() {
    let space = Space::new("store-gone");
    let s3 = S3::start(&space, "s3");
    let postgres = Postgres::shared(18);
    let scene = Scene::within(space, &s3, postgres);
    let database = postgres.seed(&format!("{LITTLE}; {BIG}"));
    let before = postgres.contents(&database);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("good", "shop");
    let good = scene.bucket.listing();

    let gate = Gate::after_the_tables(postgres, &database);
    scene.space.apply(&backup("bad", "shop"));
    gate.wait_for_a_dump();
    s3.stop();
    gate.open();
    // Three Pods one after the other, the first of which waits for the store.
    let bad = scene.space.wait("Backup", "bad", "has ended", seconds(240), has_ended);
    is_failure(&bad, &["StoreUnreachable"]);
    s3.come_back();

    let after = scene.bucket.listing();
    assert!(good.iter().all(|object| after.contains(object)), "{good:?}\n{after:?}");
    assert_eq!(after.iter().filter(|(key, _)| key.ends_with("manifest.json")).count(), 1, "{after:?}");
    let copy = random_name("copy");
    scene.restore(&json!({"backup": "good"}), &json!({"database": copy}));
    assert_eq!(postgres.contents(&copy), before);
    postgres.drop_database(&copy);
}

#[test]
fn a_store_that_restarts_during_the_upload_costs_the_backup_nothing_but_time() {
    let space = Space::new("store-restarts");
    let s3 = S3::start(&space, "s3");
    let postgres = Postgres::shared(18);
    let scene = Scene::within(space, &s3, postgres);
    let database = postgres.seed(&format!("{LITTLE}; {BIG}"));
    scene.policy("shop", &database, &Value::Null);

    let gate = Gate::after_the_tables(postgres, &database);
    scene.space.apply(&backup("patient", "shop"));
    gate.wait_for_a_dump();
    s3.stop();
    gate.open();
    s3.come_back();
    let patient = scene.space.wait("Backup", "patient", "has ended", PROMISE, has_ended);
    assert_eq!(phase(&patient), "Completed", "{:#}", patient["status"]);
    let owned = |job: &Value| job["metadata"]["ownerReferences"][0]["name"] == "patient";
    let jobs: Vec<Value> = scene.space.list("Job").into_iter().filter(owned).collect();
    assert!(jobs.iter().all(|job| job["status"]["failed"].as_u64().unwrap_or(0) == 0), "another attempt: {jobs:#?}");
    // With what kept the dump waiting.
    let saved = postgres.contents(&database);
    let copy = random_name("copy");
    scene.restore(&json!({"backup": "patient"}), &json!({"database": copy}));
    assert_eq!(postgres.contents(&copy), saved);
    postgres.drop_database(&copy);
}

#[test]
fn a_job_that_is_deleted_during_the_run_fails_with_job_vanished() {
    let (scene, database) = scene_with_a_backup("job-deleted");
    let gate = Gate::before_the_data(scene.postgres, &database);
    fails(&scene, &["JobVanished"], || {
        gate.wait_for_a_dump();
        let job = jobs_of(&scene, "bad").remove(0);
        scene.space.delete("Job", name(&job));
    });
    assert!(jobs_of(&scene, "bad").is_empty(), "a Job that was deleted is not made again");
    gate.open();
}

#[test]
fn a_pod_that_is_lost_during_the_run_is_replaced_and_the_backup_is_whole() {
    let (scene, database) = scene_with_a_backup("pod-lost");
    let gate = Gate::before_the_data(scene.postgres, &database);
    scene.space.apply(&backup("again", "shop"));
    gate.wait_for_a_dump();
    let running = scene.space.wait_for_running_pod("backup", PROMISE);
    scene.space.force_delete_pod(name(&running));
    gate.open();
    let again = scene.space.wait("Backup", "again", "has ended", PROMISE, has_ended);
    if phase(&again) == "Failed" {
        is_failure(&again, &["PodLost"]);
        return;
    }
    let before = scene.postgres.contents(&database);
    scene.postgres.drop_database(&database);
    scene.restore(&json!({"backup": "again"}), &Value::Null);
    assert_eq!(scene.postgres.contents(&database), before);
}

#[test]
fn a_pod_that_finds_no_node_fails_with_pod_unschedulable() {
    let (scene, database) = scene_with_a_backup("no-node");
    scene.policy(
        "shop",
        &database,
        &json!({"jobTemplate": {"nodeSelector": {"no-such": "node"}, "startDeadlineSeconds": 30}}),
    );
    fails(&scene, &["PodUnschedulable"], || {
        let told = |b: &Value| has_condition(b, "Complete", "Unknown", "PodUnschedulable");
        scene.space.wait("Backup", "bad", "says at once what it waits for", seconds(29), told);
    });
}

#[test]
fn a_pod_whose_node_comes_up_after_minutes_is_waited_for_and_the_backup_is_complete() {
    let (scene, database) = scene_with_a_backup("late-node");
    let label = format!("late-{}", scene.space.name());
    let node = cluster().list("Node", "").into_iter().find(|n| n["spec"]["unschedulable"] != true).expect("a node");
    scene.policy("shop", &database, &json!({"jobTemplate": {"nodeSelector": {&label: "yes"}}}));
    scene.space.apply(&backup("late", "shop"));
    let made = std::time::Instant::now();
    // Longer than anything is waited for that is not on its way.
    wait_for("two minutes have passed, and it waits", seconds(150), || {
        let late = scene.space.get("Backup", "late").expect("it is there");
        assert_ne!(phase(&late), "Failed", "{:#}", late["status"]);
        let waited = made.elapsed().as_secs();
        if waited >= 120 { Ok(()) } else { Err(format!("{waited} s")) }
    });
    let put = |value: Value| {
        let patch = json!({"metadata": {"labels": {&label: value}}});
        cluster().merge("Node", "", node["metadata"]["name"].as_str().unwrap(), &patch).unwrap();
    };
    put(json!("yes"));
    let late = scene.space.wait("Backup", "late", "has ended", PROMISE, has_ended);
    put(Value::Null);
    assert_eq!(phase(&late), "Completed", "{:#}", late["status"]);
}

#[test]
fn a_dump_that_moves_no_byte_fails_with_stalled() {
    let (scene, database) = scene_with_a_backup("stalled");
    scene.policy("shop", &database, &json!({"idleTimeoutSeconds": 5}));
    let gate = Gate::before_the_data(scene.postgres, &database);
    fails(&scene, &["Stalled"], || {});
    gate.open();
}

#[test]
fn a_run_that_takes_too_long_fails_with_deadline_exceeded() {
    let (scene, database) = scene_with_a_backup("deadline");
    scene.policy("shop", &database, &json!({"timeoutSeconds": 10}));
    let gate = Gate::before_the_data(scene.postgres, &database);
    fails(&scene, &["DeadlineExceeded"], || {});
    gate.open();
}

#[test]
fn one_source_that_fails_fails_the_backup_and_the_bucket_does_not_take_the_rest_for_a_whole_one() {
    let (scene, database) = scene_with_a_backup("one-of-two");
    let sources = json!([scene.postgres.source("db", &database), scene.postgres.source("gone", "nowhere")]);
    scene.policy_of("shop", &sources, &Value::Null);
    let bad = scene.try_backup("bad", "shop");
    is_failure(&bad, &["SourceRefused"]);
    assert_ne!(scene.keys_of(&bad).len(), 0, "the other source is there");
    let run = bad["status"]["runId"].as_str().unwrap();

    let copy = random_name("copy");
    let restored = scene.restore(&json!({"store": {"name": "main", "policy": "shop"}}), &json!({"database": copy}));
    assert_ne!(restored["status"]["runId"], run);
    scene.postgres.drop_database(&copy);
}

#[test]
fn a_backup_of_a_policy_that_is_not_there_fails_with_policy_not_found() {
    let space = Space::new("no-policy");
    space.apply(&backup("bad", "nobody"));
    is_failure(&space.wait("Backup", "bad", "has ended", PROMISE, has_ended), &["PolicyNotFound"]);
    assert!(space.list("Job").is_empty());
}

#[test]
fn a_target_that_holds_data_fails_with_target_not_empty_and_is_not_touched() {
    let (scene, database) = scene_with_a_backup("not-empty");
    scene.postgres.sql(&database, "insert into t values (1000, 'newer')");
    let before = scene.postgres.contents(&database);
    let ended = restore_fails(&scene, &json!({"backup": "good"}), &json!({"database": database}), &["TargetNotEmpty"]);
    assert!(condition(&ended, "Complete")["message"].as_str().unwrap().contains(&database), "{ended:#}");
    assert_eq!(scene.postgres.contents(&database), before);
}

#[test]
fn a_restore_point_that_is_not_there_fails_with_no_matching_backup() {
    let (scene, _) = scene_with_a_backup("no-match");
    let server = json!({"host": scene.postgres.host(), "database": "never", "credentialsSecret": {"name": "postgres"}});
    let into = json!([{"source": "db", "postgres": server}]);
    let long_ago = json!("2020-01-01T00:00:00Z");
    let requests = [
        ("policy-at", json!({"policy": {"name": "shop", "at": long_ago}})),
        ("store-at", json!({"store": {"name": "main", "policy": "shop", "at": long_ago}})),
        ("store-run", json!({"store": {"name": "main", "policy": "shop", "runId": "20200101T000000Z-abcdef"}})),
        ("store-policy", json!({"store": {"name": "main", "policy": "nobody"}})),
    ];
    for (name, from) in &requests {
        scene.space.apply(&restore(name, from, &into));
    }
    for (name, _) in &requests {
        let ended = scene.space.wait("RestoreRequest", name, "has ended", PROMISE, has_ended);
        is_failure(&ended, &["NoMatchingBackup"]);
    }
    assert!(!scene.postgres.has_database("never"));
}

#[test]
fn a_restore_of_a_backup_object_that_is_not_there_fails_with_backup_not_found() {
    let (scene, _) = scene_with_a_backup("no-backup");
    restore_fails(&scene, &json!({"backup": "nobody"}), &json!({"database": "never"}), &["BackupNotFound"]);
    assert!(!scene.postgres.has_database("never"));
}

#[test]
fn a_failed_backup_cannot_be_restored() {
    let (scene, _) = scene_with_a_backup("from-failed");
    scene.policy("shop", "nowhere", &Value::Null);
    scene.try_backup("failed", "shop");
    restore_fails(
        &scene,
        &json!({"backup": "failed"}),
        &json!({"database": "never"}),
        &["NoMatchingBackup", "BackupNotFound"],
    );
    assert!(!scene.postgres.has_database("never"));
}

#[test]
fn an_artifact_that_was_changed_fails_with_checksum_mismatch_and_the_target_stays_as_it_was() {
    let (scene, database) = scene_with_a_backup("changed");
    let key = artifact_key(&scene);
    let mut bytes = scene.bucket.read(&key);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    scene.bucket.write(&key, &bytes);
    let before = scene.postgres.contents(&database);
    let mut request = restore("bad", &json!({"backup": "good"}), &Value::Null);
    request["spec"]["onExisting"] = json!("Replace");
    is_failure(&scene.try_restore(&request), &["ChecksumMismatch", "SourceIncomplete"]);
    assert_eq!(scene.postgres.contents(&database), before);
}

#[test]
fn an_artifact_that_was_cut_fails_and_leaves_no_half_restored_database() {
    let (scene, database) = scene_with_a_backup("cut");
    let key = artifact_key(&scene);
    let bytes = scene.bucket.read(&key);
    scene.bucket.write(&key, &bytes[..bytes.len() - 10]);
    scene.postgres.drop_database(&database);
    restore_fails(
        &scene,
        &json!({"backup": "good"}),
        &json!({"database": database}),
        &["ChecksumMismatch", "SourceIncomplete"],
    );
    let tables = |database: &str| scene.postgres.sql(database, "select count(*) from pg_class where relname = 't'");
    assert!(!scene.postgres.has_database(&database) || tables(&database) == "0");
}

#[test]
fn an_artifact_that_is_gone_fails_before_the_target_is_touched() {
    let (scene, database) = scene_with_a_backup("artifact-gone");
    scene.bucket.delete(&artifact_key(&scene));
    scene.postgres.drop_database(&database);
    let reasons = ["NoMatchingBackup", "ChecksumMismatch", "SourceIncomplete"];
    restore_fails(&scene, &json!({"backup": "good"}), &json!({"database": database}), &reasons);
    assert!(!scene.postgres.has_database(&database));
}

#[test]
fn a_restore_whose_job_is_deleted_fails_and_never_runs_again() {
    let scene = Scene::new("restore-job");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("good", "shop");
    let copy = random_name("copy");
    let into = json!([{"source": "db", "postgres": {"database": copy}}]);
    scene.space.apply(&restore("bad", &json!({"backup": "good"}), &into));
    let running = scene.space.wait("RestoreRequest", "bad", "runs", seconds(60), |r| r["status"]["jobUid"].is_string());
    scene.space.delete("Job", running["status"]["job"].as_str().unwrap());
    let ended = scene.space.wait("RestoreRequest", "bad", "has ended", PROMISE, has_ended);
    is_failure(&ended, &["JobVanished", "PodLost"]);
    assert!(jobs_of(&scene, "bad").is_empty(), "a restore runs once");
    scene.postgres.try_sql("postgres", &format!("drop database if exists {copy} with (force)"));
}

fn artifact_key(scene: &Scene<'_>) -> String {
    scene.bucket.keys().into_iter().find(|key| !key.ends_with("/manifest.json")).unwrap()
}

/// The Jobs that a Backup or RestoreRequest owns.
pub(super) fn jobs_of(scene: &Scene<'_>, owner: &str) -> Vec<Value> {
    let mut jobs = scene.space.list("Job");
    jobs.retain(|job| job["metadata"]["ownerReferences"][0]["name"] == owner);
    jobs
}

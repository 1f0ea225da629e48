//! Stored backups that are read through: by the schedule and by hand, whole, damaged, and not to be opened.

use holdfast_e2e::objects::{condition, has_condition, phase, restore, secret};
use holdfast_e2e::scene::{PROMISE, Scene};
use holdfast_e2e::tools;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t (id int primary key, what text); insert into t select i, md5(i::text) from generate_series(1, 100) i";

/// Has a Backup verified by hand, and waits until it says what was found.
#[track_caller]
fn verified(scene: &Scene<'_>, backup: &str, request: &str) -> Value {
    scene.space.merge("Backup", backup, &json!({"metadata": {"annotations": {"holdfast.dev/verify": request}}}));
    let done = |b: &Value| b["status"]["verification"]["request"] == request;
    scene.space.wait("Backup", backup, "was verified", PROMISE, done)
}

#[test]
fn a_stored_backup_is_read_through_and_damage_is_found_told_and_passed_over() {
    let scene = Scene::new("verify");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("monday", "shop");
    scene.postgres.sql(&database, "insert into t values (101, 'tuesday')");
    let tuesday = scene.backup("tuesday", "shop");
    assert!(condition(&tuesday, "Verified").is_null(), "nothing is verified that nobody asks for: {tuesday:#}");

    // By the schedule, the newest and the other one.
    let before = scene.bucket.listing();
    scene.space.merge(
        "BackupPolicy",
        "shop",
        &json!({"spec": {"verify": {"schedule": "@every 10s", "maxBackups": 2}}}),
    );
    for name in ["tuesday", "monday"] {
        let whole = |b: &Value| has_condition(b, "Verified", "True", "Verified");
        let backup = scene.space.wait("Backup", name, "is found whole", PROMISE, whole);
        assert!(backup["status"]["verification"]["lastVerifiedTime"].is_string(), "{backup:#}");
    }
    let all = |p: &Value| has_condition(p, "Verified", "True", "Verified") && p["status"]["verification"]["whole"] == 2;
    let policy = scene.space.wait("BackupPolicy", "shop", "says so too", seconds(30), all);
    assert!(policy["status"]["lastVerificationTime"].is_string(), "{policy:#}");
    assert_eq!(scene.bucket.listing(), before, "nothing was written");

    // Then only by hand. A bit of the newest changes.
    scene.space.merge("BackupPolicy", "shop", &json!({"spec": {"verify": null}}));
    let seen = |p: &Value| p["status"]["observedGeneration"] == p["metadata"]["generation"];
    scene.space.wait("BackupPolicy", "shop", "has seen the change", seconds(30), seen);
    let key = tuesday["status"]["artifacts"][0]["key"].as_str().unwrap();
    let whole = scene.bucket.read(key);
    let mut harmed = whole.clone();
    let middle = harmed.len() / 2;
    harmed[middle] ^= 1;
    scene.bucket.write(key, &harmed);
    let damaged = verified(&scene, "tuesday", "one");
    assert!(has_condition(&damaged, "Verified", "False", "ChecksumMismatch"), "{damaged:#}");
    assert!(condition(&damaged, "Verified")["message"].as_str().unwrap().contains(key), "{damaged:#}");
    wait_for("an event tells it", seconds(30), || {
        let events = scene.space.list("Event");
        let told = events.iter().any(|e| e["reason"] == "ChecksumMismatch" && e["type"] == "Warning");
        if told { Ok(()) } else { Err(format!("{events:#?}")) }
    });
    let said = |p: &Value| has_condition(p, "Verified", "False", "ChecksumMismatch");
    let policy = scene.space.wait("BackupPolicy", "shop", "says so too", seconds(30), said);
    assert_eq!(policy["status"]["verification"]["damaged"], 1, "{policy:#}");
    assert!(condition(&policy, "Verified")["message"].as_str().unwrap().contains("tuesday"), "{policy:#}");

    // The newest backup of the policy is the one that is whole.
    scene.postgres.drop_database(&database);
    let restored = scene.try_restore(&restore("newest", &json!({"policy": {"name": "shop"}}), &Value::Null));
    let took = (phase(&restored), restored["status"]["backup"].as_str());
    assert_eq!(took, ("Completed", Some("monday")), "{restored:#}");
    assert_eq!(scene.postgres.sql(&database, "select count(*) from t").trim(), "100");

    // What was put right is whole again.
    scene.bucket.write(key, &whole);
    let healed = verified(&scene, "tuesday", "two");
    assert!(has_condition(&healed, "Verified", "True", "Verified"), "{healed:#}");
    let healthy = |p: &Value| has_condition(p, "Verified", "True", "Verified");
    scene.space.wait("BackupPolicy", "shop", "has none that is damaged", seconds(30), healthy);
}

#[test]
fn a_verification_that_cannot_begin_says_what_it_waits_for_and_begins_when_it_can() {
    let scene = Scene::new("verify-waits");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("monday", "shop");
    // The store has to be proved anew, and cannot be.
    scene.space.merge("BackupStore", "main", &json!({"spec": {"s3": {"credentialsSecret": "later"}}}));
    let seen = |p: &Value| condition(p, "Ready")["status"] == "False";
    scene.space.wait("BackupPolicy", "shop", "has heard of that", seconds(30), seen);
    scene.space.merge("Backup", "monday", &json!({"metadata": {"annotations": {"holdfast.dev/verify": "now"}}}));
    let told = |p: &Value| p["status"]["verification"]["waiting"]["backup"] == "monday";
    let policy = scene.space.wait("BackupPolicy", "shop", "says what waits", seconds(60), told);
    let waiting = &policy["status"]["verification"]["waiting"];
    assert!(["StoreNotReady", "SecretNotFound"].contains(&waiting["reason"].as_str().unwrap()), "{waiting:#}");
    assert!(waiting["message"].as_str().unwrap().contains("BackupStore main"), "{waiting:#}");
    assert!(scene.space.list("Job").iter().all(|j| j["metadata"]["labels"]["holdfast.dev/task"] != "verify"));

    scene.space.apply(&scene.bucket.server().credentials("later"));
    let done =
        |b: &Value| b["status"]["verification"]["request"] == "now" && has_condition(b, "Verified", "True", "Verified");
    scene.space.wait("Backup", "monday", "is found whole", seconds(250), done);
    let nothing = |p: &Value| p["status"]["verification"]["waiting"].is_null();
    scene.space.wait("BackupPolicy", "shop", "waits for nothing", seconds(30), nothing);
}

#[test]
fn without_a_key_it_is_said_what_could_not_be_looked_at_and_with_it_everything_is() {
    let scene = Scene::new("verify-locked");
    let database = scene.postgres.seed(LITTLE);
    let identity = tools::run(&["age-keygen"], b"").text();
    let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
    let ready = |generation: Value| {
        let proved = move |s: &Value| {
            condition(s, "Ready")["status"] == "True" && condition(s, "Ready")["observedGeneration"] == generation
        };
        scene.space.wait("BackupStore", "main", "is proved as edited", seconds(60), proved);
    };
    let encrypting = json!({"spec": {"encryption": {"recipients": [recipient]}}});
    ready(scene.space.merge("BackupStore", "main", &encrypting)["metadata"]["generation"].clone());
    scene.policy("shop", &database, &Value::Null);
    let backup = scene.backup("monday", "shop");
    assert_eq!(backup["status"]["artifacts"][0]["encrypted"], true, "{backup:#}");

    let locked = verified(&scene, "monday", "without");
    assert!(has_condition(&locked, "Verified", "Unknown", "KeyMissing"), "{locked:#}");
    let message = condition(&locked, "Verified")["message"].as_str().unwrap();
    assert!(message.contains("the stored bytes are those that were written"), "{message}");
    assert!(locked["status"]["verification"]["lastVerifiedTime"].is_null(), "{locked:#}");

    scene.space.apply(&secret("age-key", &json!({"identity": identity})));
    let with_key = json!({"spec": {"encryption": {"identitySecret": {"name": "age-key", "key": "identity"}}}});
    ready(scene.space.merge("BackupStore", "main", &with_key)["metadata"]["generation"].clone());
    let opened = verified(&scene, "monday", "with");
    assert!(has_condition(&opened, "Verified", "True", "Verified"), "{opened:#}");
}

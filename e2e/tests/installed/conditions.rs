//! What admission cannot see is said in a condition, stops nothing else, and is picked up by itself once it is put right.

use holdfast_e2e::command::kubectl;
use holdfast_e2e::objects::{condition, has_condition};
use holdfast_e2e::scene::Scene;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select i from generate_series(1, 10) i";

#[test]
fn a_policy_that_cannot_run_says_why_and_runs_once_it_is_put_right() {
    let scene = Scene::new("bad-policies");
    let database = scene.postgres.seed(LITTLE);
    let cases = [
        ("never", json!({"schedule": "0 0 30 2 *"}), "NeverFires", json!({"schedule": "@yearly"})),
        ("no-cron", json!({"schedule": "every morning"}), "InvalidSchedule", json!({"schedule": "@yearly"})),
        (
            "nowhere",
            json!({"schedule": "@yearly", "timeZone": "Mars/Olympus"}),
            "UnknownTimeZone",
            json!({"timeZone": "Asia/Jakarta"}),
        ),
        ("no-store", json!({"storeRef": {"name": "nobody"}}), "StoreNotFound", json!({"storeRef": {"name": "main"}})),
    ];
    for (name, spec, _, _) in &cases {
        scene.policy(name, &database, spec);
    }
    for (name, _, reason, _) in &cases {
        let bad = scene
            .space
            .wait("BackupPolicy", name, "says why", seconds(30), |p| has_condition(p, "Ready", "False", reason));
        assert!(condition(&bad, "Ready")["message"].as_str().unwrap().len() > 10, "{bad:#}");
    }
    wait_for("an event says so too", seconds(30), || {
        let events = scene.space.list("Event");
        let said = |reason: &str| events.iter().any(|e| e["reason"] == reason && e["type"] == "Warning");
        if cases.iter().all(|case| said(case.2)) { Ok(()) } else { Err(format!("{events:#?}")) }
    });
    let probes_only =
        scene.space.list("Job").iter().all(|job| job["metadata"]["ownerReferences"][0]["kind"] == "BackupStore");
    assert!(probes_only, "a policy that cannot run has no Job");
    for (name, _, _, right) in &cases {
        scene.space.merge("BackupPolicy", name, &json!({"spec": right}));
    }
    for (name, _, _, _) in &cases {
        scene.wait_policy_ready(name);
    }
    // One policy put right by another object.
    scene.policy("late-store", &database, &json!({"storeRef": {"name": "late"}}));
    let missing = |p: &Value| has_condition(p, "Ready", "False", "StoreNotFound");
    scene.space.wait("BackupPolicy", "late-store", "misses its store", seconds(30), missing);
    scene.space.apply(&scene.bucket.store("late", "late"));
    scene.wait_policy_ready("late-store");
}

#[test]
fn a_store_without_its_secret_says_so_and_is_proved_once_the_secret_is_there() {
    let scene = Scene::new("store-secret");
    let mut store = scene.bucket.store("second", "second");
    store["spec"]["s3"]["credentialsSecret"] = json!("later");
    scene.space.apply(&store);
    let missing = |s: &Value| has_condition(s, "Ready", "False", "SecretNotFound");
    let seen = scene.space.wait("BackupStore", "second", "misses its Secret", seconds(125), missing);
    assert!(condition(&seen, "Ready")["message"].as_str().unwrap().contains("later"), "{seen:#}");
    scene.space.apply(&scene.bucket.server().credentials("later"));
    let ready = |s: &Value| has_condition(s, "Ready", "True", "Probed");
    scene.space.wait("BackupStore", "second", "is proved", seconds(125), ready);
}

#[test]
fn a_store_that_is_proved_leaves_nothing_in_the_bucket_and_says_that_nothing_is_encrypted() {
    let scene = Scene::new("store-ready");
    let ready = |s: &Value| has_condition(s, "Ready", "True", "Probed");
    let store = scene.space.wait("BackupStore", "main", "is proved", seconds(60), ready);
    assert_eq!(condition(&store, "Encrypted")["status"], "False", "{store:#}");
    assert!(store["status"]["lastProbeTime"].is_string(), "{store:#}");
    assert_eq!(scene.bucket.keys(), Vec::<String>::new());
}

#[test]
fn kubectl_shows_what_matters_in_columns() {
    let scene = Scene::new("columns");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &json!({"schedule": "H 2 * * *"}));
    scene.backup("monday", "shop");
    let copy = holdfast_e2e::postgres::random_name("copy");
    let request = holdfast_e2e::objects::restore(
        "undo",
        &json!({"backup": "monday"}),
        &json!([{"source": "db", "postgres": {"database": copy}}]),
    );
    scene.try_restore(&request);
    scene
        .space
        .wait("BackupPolicy", "shop", "has seen the backup", seconds(30), |p| p["status"]["backups"]["complete"] == 1);
    scene.postgres.drop_database(&copy);

    let table = |kind: &str| kubectl(&["-n", scene.space.name(), "get", kind]);
    let tables = [
        (
            "bpol",
            ["READY", "PROTECTED", "REASON", "FAILURES", "LAST SUCCESS", "BACKUPS", "SIZE", "SCHEDULE"].as_slice(),
            ["H 2 * * *", "True"],
        ),
        ("bk", ["POLICY", "PHASE", "REASON", "SIZE", "ITEMS", "DURATION", "AGE"].as_slice(), ["Completed", "shop"]),
        ("rr", ["FROM", "PHASE", "REASON", "ITEMS", "DURATION", "AGE"].as_slice(), ["Completed", "monday"]),
        ("bstore", ["READY", "REASON", "BUCKET"].as_slice(), [scene.bucket.name(), "True"]),
    ];
    for (kind, columns, values) in tables {
        let text = table(kind);
        for word in columns.iter().chain(&values) {
            assert!(text.contains(word), "{word} in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 120), "wider than a terminal:\n{text}");
        assert!(!text.contains("<none>") && !text.contains("<unknown>") && !text.contains("<invalid>"), "{text}");
    }
    assert_eq!(kubectl(&["-n", scene.space.name(), "get", "holdfast", "-o", "name"]).lines().count(), 4);
}

#[test]
fn a_wait_for_what_is_finished_ends_though_it_has_failed() {
    let scene = Scene::new("finished");
    let request = holdfast_e2e::objects::restore("nothing", &json!({"backup": "of-nobody"}), &json!([]));
    scene.space.apply(&request);
    let ended =
        ["-n", scene.space.name(), "wait", "restorerequest/nothing", "--for=condition=Finished", "--timeout=90s"];
    assert!(kubectl(&ended).contains("condition met"));
    let request = scene.space.get("RestoreRequest", "nothing").unwrap();
    assert_eq!(condition(&request, "Finished")["reason"], "Failed", "{request:#}");
    assert_eq!(request["status"]["reason"], "BackupNotFound", "{request:#}");
}

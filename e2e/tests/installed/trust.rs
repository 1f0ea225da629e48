//! Runs that wait for their turn, and backups that are too small to be believed.

use holdfast_e2e::objects::{backup, condition, has_condition, has_ended, phase, restore};
use holdfast_e2e::scene::Scene;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select i from generate_series(1, 10) i";

#[test]
fn runs_to_a_store_that_takes_one_at_a_time_follow_each_other() {
    let scene = Scene::new("one-at-a-time");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.wait_policy_ready("shop");
    scene.space.merge("BackupStore", "main", &json!({"spec": {"maxConcurrentRuns": 1}}));
    let proved = |s: &Value| {
        has_condition(s, "Ready", "True", "Probed")
            && condition(s, "Ready")["observedGeneration"] == s["metadata"]["generation"]
    };
    scene.space.wait("BackupStore", "main", "is proved as edited", seconds(60), proved);

    let names = ["one", "two", "three"];
    for name in names {
        scene.space.apply(&backup(name, "shop"));
    }
    wait_for("one that waits says where it stands", seconds(20), || {
        let backups = scene.space.list("Backup");
        let waits = |b: &&Value| condition(b, "Complete")["reason"] == "Queued";
        let waiting: Vec<&Value> = backups.iter().filter(waits).collect();
        let told = |b: &&Value| b["status"]["queuePosition"].as_i64().is_some_and(|p| (1..=2).contains(&p));
        if !waiting.is_empty() && waiting.iter().all(told) { Ok(()) } else { Err(format!("{backups:#?}")) }
    });
    let ended = names.map(|name| scene.space.wait("Backup", name, "has ended", seconds(120), has_ended));
    let mut spans: Vec<(String, String)> = ended
        .iter()
        .map(|b| {
            assert_eq!(phase(b), "Completed", "{b:#}");
            assert!(b["status"]["queuePosition"].is_null(), "{b:#}");
            let time = |field: &str| b["status"][field].as_str().unwrap().to_owned();
            (time("startTime"), time("completionTime"))
        })
        .collect();
    spans.sort();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{spans:?}");
}

#[test]
fn a_backup_of_an_emptied_database_is_suspicious_and_passed_over_until_it_is_accepted() {
    let scene = Scene::new("suspicious");
    let database = scene.postgres.seed("create table t as select i, md5(i::text) from generate_series(1, 20000) i");
    scene.policy("shop", &database, &Value::Null);
    let first = scene.backup("monday", "shop");
    assert_eq!(condition(&first, "Plausible")["status"], "True", "{first:#}");

    scene.postgres.sql(&database, "delete from t");
    let small = scene.backup("tuesday", "shop");
    assert_eq!(condition(&small, "Plausible")["reason"], "Suspicious", "{small:#}");
    let said = |p: &Value| has_condition(p, "Plausible", "False", "Suspicious");
    scene.space.wait("BackupPolicy", "shop", "says so too", seconds(30), said);
    wait_for("an event tells it", seconds(30), || {
        let events = scene.space.list("Event");
        let told = events.iter().any(|e| e["reason"] == "Suspicious" && e["type"] == "Warning");
        if told { Ok(()) } else { Err(format!("{events:#?}")) }
    });

    scene.postgres.drop_database(&database);
    let restored = scene.try_restore(&restore("newest", &json!({"policy": {"name": "shop"}}), &Value::Null));
    assert_eq!(
        (phase(&restored), restored["status"]["backup"].as_str()),
        ("Completed", Some("monday")),
        "{restored:#}"
    );
    assert_eq!(scene.postgres.sql(&database, "select count(*) from t").trim(), "20000");

    scene.space.merge("Backup", "tuesday", &json!({"metadata": {"annotations": {"holdfast.dev/accepted": "true"}}}));
    let accepted = |b: &Value| has_condition(b, "Plausible", "True", "Accepted");
    scene.space.wait("Backup", "tuesday", "is accepted", seconds(30), accepted);
    scene.postgres.sql(&database, "delete from t");
    let next = scene.backup("wednesday", "shop");
    assert_eq!(condition(&next, "Plausible")["status"], "True", "it is compared with the accepted one: {next:#}");
}

//! Two controllers share one Lease: only one acts, and one that was frozen past its lease does nothing when it wakes up.

use std::collections::BTreeMap;

use holdfast_e2e::bucket::S3;
use holdfast_e2e::controller::{Controller, Settings};
use holdfast_e2e::history::History;
use holdfast_e2e::objects::{backup, has_ended, name, phase, restore};
use holdfast_e2e::postgres::Postgres;
use holdfast_e2e::scene::Scene;
use holdfast_e2e::space::Space;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select i from generate_series(1, 10) i";

#[test]
fn a_leader_that_was_frozen_past_its_lease_is_replaced_and_does_nothing_twice_when_it_wakes_up() {
    let space = Space::without_the_installed("leader");
    let jobs = History::of("Job", &space);
    let pods = History::of("Pod", &space);
    let settings = |identity: &str| Settings { identity: identity.to_owned(), ..Settings::for_namespace(space.name()) };
    let mut first = Controller::start(&settings("first"));
    wait_for_holder(&space, "first");
    let second = Controller::start(&settings("second"));
    let scene = Scene::within(space, S3::shared(), Postgres::shared(18));
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("before", "shop");
    scene.policy("often", &database, &json!({"schedule": "@every 10s"}));
    wait_for("a scheduled backup has begun", seconds(60), || {
        scheduled(&scene).first().map(|_| ()).ok_or_else(String::new)
    });

    // In the middle of everything.
    let copy = format!("{database}_copy");
    scene.space.apply(&backup("during", "shop"));
    let request =
        restore("undo", &json!({"backup": "before"}), &json!([{"source": "db", "postgres": {"database": copy}}]));
    scene.space.apply(&request);
    first.freeze();
    wait_for_holder(&scene.space, "second");
    let count = scheduled(&scene).len();
    wait_for("the second one goes on", seconds(60), || {
        let now = scheduled(&scene).len();
        if now > count { Ok(()) } else { Err(now.to_string()) }
    });
    first.thaw();
    let ended = first.wait_ended(seconds(30));

    assert!(!ended.success(), "who lost its lease ends, so that it is started anew: {ended}");
    for (kind, name) in [("Backup", "during"), ("RestoreRequest", "undo")] {
        let object = scene.space.wait(kind, name, "has ended", seconds(120), has_ended);
        assert_eq!(phase(&object), "Completed", "{object:#}");
    }
    scene.space.merge("BackupPolicy", "often", &json!({"spec": {"suspend": true}}));
    wait_for("all backups have ended", seconds(120), || {
        let all = scene.space.list("Backup");
        if all.iter().all(has_ended) { Ok(()) } else { Err(format!("{all:#?}")) }
    });
    assert_eq!(holder(&scene.space), "second");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for job in jobs.objects() {
        let owner = &job["metadata"]["ownerReferences"][0];
        let labels = &job["metadata"]["labels"];
        if owner["kind"] != "BackupStore" {
            let purpose = format!("{} {} {}", owner["uid"], labels["holdfast.dev/task"], labels["holdfast.dev/source"]);
            *counts.entry(purpose).or_default() += 1;
        }
    }
    assert!(counts.len() > 4 && counts.values().all(|count| *count == 1), "{counts:#?}");
    let restores =
        pods.objects().iter().filter(|pod| pod["metadata"]["labels"]["holdfast.dev/task"] == "restore").count();
    assert_eq!(restores, 1);
    let mut runs: Vec<Value> = scene.space.list("Backup").iter().map(|b| b["status"]["runId"].clone()).collect();
    runs.sort_by_key(ToString::to_string);
    let all = runs.len();
    runs.dedup();
    assert_eq!(runs.len(), all, "{runs:?}");
    drop(second);
    scene.postgres.drop_database(&copy);
    scene.postgres.drop_database(&database);
}

fn holder(space: &Space) -> String {
    let leases = space.list("Lease");
    leases.first().and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default().to_owned()
}

fn wait_for_holder(space: &Space, identity: &str) {
    wait_for(&format!("{identity} leads"), seconds(60), || {
        let holder = holder(space);
        if holder == identity { Ok(()) } else { Err(holder) }
    });
}

fn scheduled(scene: &Scene<'_>) -> Vec<String> {
    let all = scene.space.list("Backup");
    all.iter().map(name).filter(|name| name.starts_with("often-")).map(str::to_owned).collect()
}

//! What the API server refuses is said on every object that it is about, in its own words; slots go on, and what waits starts once it is put right.

use holdfast_e2e::controller::{Controller, Settings};
use holdfast_e2e::images::deployment;
use holdfast_e2e::objects::{backup, condition, has_ended, phase, restore};
use holdfast_e2e::proxy::Proxy;
use holdfast_e2e::rule::Rule;
use holdfast_e2e::scene::{PROMISE, Scene};
use holdfast_e2e::space::Space;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select i from generate_series(1, 10) i";

/// Whether a condition is not True, with a reason and words of the API server's.
fn says(object: &Value, type_: &str, reason: &str, words: &str) -> bool {
    let said = condition(object, type_);
    said["status"] != "True" && said["reason"] == reason && said["message"].as_str().unwrap_or_default().contains(words)
}

fn no_jobs(scene: &Scene<'_>) {
    scene.space.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-jobs"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }));
    let counts = |quota: &Value| quota["status"]["hard"]["count/jobs.batch"] == "0";
    scene.space.wait("ResourceQuota", "no-jobs", "is in force", seconds(60), counts);
}

const NOT_WANTED: &str = "jobs of this kind are not wanted here";

/// Jobs of this kind are denied in one namespace.
fn deny(space: &Space, task: &str) -> Rule {
    let expression = format!(
        "!('holdfast.dev/task' in object.metadata.labels) || object.metadata.labels['holdfast.dev/task'] != '{task}'"
    );
    let rule = Rule::new(space, &["batch"], &["jobs"], &expression, NOT_WANTED);
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "tried", "labels": {"holdfast.dev/task": task}},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}}},
    });
    rule.wait_until_it_refuses(space, &job, NOT_WANTED);
    rule
}

#[test]
fn a_job_that_the_api_server_refuses_is_said_everywhere_and_runs_once_it_is_put_right() {
    let scene = Scene::new("refused-label");
    let database = scene.postgres.seed(LITTLE);
    let ready = |s: &Value| condition(s, "Ready")["status"] == "True";
    scene.space.wait("BackupStore", "main", "is proved", PROMISE, ready);
    let denial = deny(&scene.space, "backup");
    scene.policy("shop", &database, &json!({"schedule": "@every 20s"}));
    let words = NOT_WANTED;
    let refused = |p: &Value| {
        let ready = condition(p, "Ready");
        ready["status"] == "False" && ready["message"].as_str().unwrap_or_default().contains(words)
    };
    scene.space.wait("BackupPolicy", "shop", "says why", seconds(90), refused);
    // Each slot says what became of it, and none is passed over for one that never started.
    wait_for("two slots have failed, and one waits", seconds(120), || {
        let all = scene.space.list("Backup");
        let failed = all.iter().filter(|b| phase(b) == "Failed" && says(b, "Complete", "JobRefused", words)).count();
        let waits = all.iter().any(|b| !has_ended(b) && says(b, "Complete", "JobRefused", words));
        if failed >= 2 && waits { Ok(()) } else { Err(format!("{all:#?}")) }
    });
    let events = scene.space.list("Event");
    let skipped = events.iter().any(|e| e["reason"] == "PreviousRunning");
    assert!(!skipped, "{events:#?}");
    let of_one = events.iter().filter(|e| e["reason"] == "JobRefused" && e["regarding"]["kind"] == "Backup");
    let mut names: Vec<&str> = of_one.filter_map(|e| e["regarding"]["name"].as_str()).collect();
    let told = names.len();
    names.dedup();
    assert!(told <= 2 * names.len(), "an event a change, not one an attempt: {events:#?}");

    drop(denial);
    wait_for("the next one runs", seconds(150), || {
        let all = scene.space.list("Backup");
        if all.iter().any(|b| phase(b) == "Completed") { Ok(()) } else { Err(format!("{all:#?}")) }
    });
    scene.space.merge("BackupPolicy", "shop", &json!({"spec": {"suspend": true}}));
    scene.wait_policy_ready("shop");
}

#[test]
fn a_quota_that_is_lifted_starts_what_waits() {
    let scene = Scene::new("refused-quota");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("before", "shop");
    no_jobs(&scene);
    let words = "exceeded quota: no-jobs";
    for number in 0..20 {
        scene.space.apply(&backup(&format!("waits-{number}"), "shop"));
    }
    let mut request = restore("undo", &json!({"backup": "before"}), &Value::Null);
    request["spec"]["into"] = json!([{"source": "db", "postgres": {"database": format!("{database}_copy")}}]);
    scene.space.apply(&request);
    scene.space.apply(&scene.bucket.store("second", "second"));
    let refused = |o: &Value| says(o, "Complete", "QuotaExceeded", words);
    scene.space.wait("Backup", "waits-0", "says why", seconds(60), refused);
    scene.space.wait("Backup", "waits-19", "says why", seconds(60), refused);
    scene.space.wait("RestoreRequest", "undo", "says why", seconds(60), refused);
    let refused = |o: &Value| says(o, "Ready", "QuotaExceeded", words);
    scene.space.wait("BackupStore", "second", "says why", seconds(60), refused);
    scene.space.wait("BackupPolicy", "shop", "says why", seconds(60), refused);

    // They hold up nobody else.
    let other = Scene::new("refused-other");
    let elsewhere = other.postgres.seed(LITTLE);
    other.policy("wiki", &elsewhere, &Value::Null);
    other.backup("meanwhile", "wiki");

    scene.space.delete("ResourceQuota", "no-jobs");
    for (kind, name) in [("Backup", "waits-0"), ("Backup", "waits-19"), ("RestoreRequest", "undo")] {
        let ended = scene.space.wait(kind, name, "has ended", seconds(300), has_ended);
        assert_eq!(phase(&ended), "Completed", "{ended:#}");
    }
    let ready = |s: &Value| condition(s, "Ready")["status"] == "True";
    scene.space.wait("BackupStore", "second", "is proved", PROMISE, ready);
    scene.wait_policy_ready("shop");
}

#[test]
fn nothing_is_stopped_for_a_restore_that_is_refused_and_what_was_stopped_comes_back() {
    let scene = Scene::new("refused-restore");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("monday", "shop");
    scene.space.apply(&deployment("api", 2));
    scene.space.wait("Deployment", "api", "runs", seconds(90), |d| d["status"]["readyReplicas"] == 2);
    let replicas = || scene.space.get("Deployment", "api").unwrap()["spec"]["replicas"].clone();
    let request = |name: &str| {
        let mut request = restore(name, &json!({"backup": "monday"}), &Value::Null);
        request["spec"]["onExisting"] = json!("Replace");
        request["spec"]["timeoutSeconds"] = json!(90);
        request["spec"]["scaleDown"] = json!([{"kind": "Deployment", "name": "api"}]);
        request
    };
    let words = NOT_WANTED;
    let ends = |name: &str| {
        let ended = scene.space.wait("RestoreRequest", name, "has ended", seconds(240), has_ended);
        assert_eq!(phase(&ended), "Failed", "{ended:#}");
        assert!(says(&ended, "Complete", "JobRefused", words), "{ended:#}");
    };
    let denial = deny(&scene.space, "restore");
    scene.space.apply(&request("refused"));
    let refused = |r: &Value| says(r, "Complete", "JobRefused", words);
    scene.space.wait("RestoreRequest", "refused", "says why", seconds(60), refused);
    assert_eq!(replicas(), 2, "nothing was stopped");
    ends("refused");
    drop(denial);

    // Here the Job would be taken, and it is the safety backup that never begins.
    let _denial = deny(&scene.space, "backup");
    scene.space.apply(&request("unsaved"));
    scene.space.wait("Deployment", "api", "is stopped", seconds(60), |d| d["spec"]["replicas"] == 0);
    ends("unsaved");
    scene.space.wait("Deployment", "api", "comes back", seconds(60), |d| d["spec"]["replicas"] == 2);
    wait_for("the safety backup that never began is gone", seconds(60), || {
        let all = scene.space.list("Backup");
        if all.len() == 1 { Ok(()) } else { Err(format!("{all:#?}")) }
    });
}

#[test]
fn a_watched_namespace_that_is_gone_holds_up_no_other() {
    let space = Space::without_the_installed("lost-here");
    let far = Space::without_the_installed("lost-far");
    let proxy = Proxy::start(vec![]);
    proxy.forbid(far.name(), true);
    let controller = Controller::start(&Settings {
        beside: vec![far.name().to_owned()],
        server: Some(proxy.url()),
        ..Settings::for_namespace(space.name())
    });
    let here = Scene::inside(space);
    let there = Scene::inside(far);
    let database = here.postgres.seed(LITTLE);
    here.policy("shop", &database, &Value::Null);
    here.backup("here", "shop");
    there.policy("shop", &database, &Value::Null);
    there.space.apply(&backup("there", "shop"));
    let log = controller.log();
    assert!(log.contains("a watch was interrupted") && log.contains("the rights in this namespace are gone"), "{log}");
    assert!(there.space.get("Backup", "there").unwrap()["status"].is_null());

    proxy.forbid(there.space.name(), false);
    let ended = there.space.wait("Backup", "there", "has ended", seconds(240), has_ended);
    assert_eq!(phase(&ended), "Completed", "{ended:#}");
}

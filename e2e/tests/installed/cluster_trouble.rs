//! Workers that are killed, evicted, or lost with their node: the run ends with its reason in the platform's words, or is made again and is
//! whole; and the next one runs.

use holdfast_e2e::gate::Gate;
use holdfast_e2e::history::History;
use holdfast_e2e::node::Node;
use holdfast_e2e::objects::{backup, condition, has_ended, name, phase};
use holdfast_e2e::postgres::random_name;
use holdfast_e2e::scene::{PROMISE, Scene};
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

use super::no_false_success::{BIG, fails, jobs_of, scene_with_a_backup};

/// A row of more bytes than the workers here may take.
const FAT: &str = "create table fat as select repeat('x', 150000000) as long";

#[test]
fn a_worker_that_is_killed_for_its_memory_fails_with_oom_killed_at_the_first_try() {
    let (scene, database) = scene_with_a_backup("oom");
    scene.postgres.sql(&database, BIG);
    dies_of_its_limit(&scene, &database, "32Mi", "drop table big");
}

#[test]
fn a_dump_tool_that_is_killed_for_its_memory_fails_with_oom_killed_at_the_first_try() {
    let (scene, database) = scene_with_a_backup("oom-tool");
    scene.postgres.sql(&database, FAT);
    dies_of_its_limit(&scene, &database, "96Mi", "drop table fat");
}

#[test]
fn a_limit_that_does_not_let_the_worker_start_fails_with_oom_killed_at_the_first_try() {
    let (scene, database) = scene_with_a_backup("oom-start");
    dies_of_its_limit(&scene, &database, "1Mi", "select");
}

/// A backup with this limit of memory fails after one try, which harms nothing; with more memory, or less to save, the next one is complete.
fn dies_of_its_limit(scene: &Scene<'_>, database: &str, limit: &str, relieve: &str) {
    let pods = History::of("Pod", &scene.space);
    let resources = json!({"requests": {"cpu": "10m", "memory": limit}, "limits": {"memory": limit}});
    scene.policy("shop", database, &json!({"jobTemplate": {"resources": resources}}));
    let bad = fails(scene, &["OOMKilled"], || {});
    let message = message(&bad);
    assert!(message.contains(&format!("limit {limit}")) && message.contains("resources.limits.memory"), "{message}");

    scene.postgres.sql(database, relieve);
    scene.policy("shop", database, &Value::Null);
    scene.backup("better", "shop");
    restores_equal(scene, "better", database);
    let tried = pods.objects().iter().filter(|pod| pod["metadata"]["labels"]["holdfast.dev/backup"] == "bad").count();
    assert_eq!(tried, 1, "what died of its limit dies of it again");
}

#[test]
fn an_evicted_worker_is_replaced_which_counts_as_no_attempt_and_the_backup_is_whole() {
    let (scene, database) = scene_with_a_backup("evicted");
    let pods = History::of("Pod", &scene.space);
    let gate = Gate::before_the_data(scene.postgres, &database);
    scene.space.apply(&backup("again", "shop"));
    gate.wait_for_a_dump();
    let evicted = scene.space.wait_for_running_pod("backup", PROMISE);
    scene.space.evict(name(&evicted));
    let replacement = wait_for_another_pod(&scene, &evicted);
    gate.open();

    is_made_again(&scene, &database);
    let pods = pods.objects();
    let evicted = pods.iter().find(|pod| name(pod) == name(&evicted)).unwrap();
    assert_eq!(condition(evicted, "DisruptionTarget")["reason"], "EvictionByEvictionAPI", "{:#}", evicted["status"]);
    let ended = &evicted["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 143, "it ends by itself, in time: {ended:#}");
    assert!(ended["message"].as_str().unwrap_or_default().contains("PodLost"), "{ended:#}");
    let replacement = pods.iter().find(|pod| name(pod) == name(&replacement)).unwrap();
    assert_eq!(replacement["status"]["phase"], "Succeeded", "{:#}", replacement["status"]);
}

#[test]
fn a_run_whose_node_is_gone_is_made_again_on_another_and_is_whole() {
    let node = Node::start();
    let (scene, database) = scene_with_a_backup("node-gone");
    scene.policy("shop", &database, &on(&node.at_first()));
    scene.space.apply(&backup("again", "shop"));
    let lost = node.wait_for_a_pod(&scene.space);
    node.tell_that_it_runs(&scene.space, &lost);
    node.vanish();
    wait_for_another_pod(&scene, &lost);
    is_made_again(&scene, &database);
}

#[test]
fn a_run_whose_only_node_is_gone_fails_with_the_schedulers_words_and_the_next_one_runs() {
    let node = Node::start();
    let (scene, database) = scene_with_a_backup("only-node-gone");
    let pods = History::of("Pod", &scene.space);
    scene.policy("shop", &database, &on(&node.alone()));
    let mut lost = Value::Null;
    let bad = fails(&scene, &["PodUnschedulable"], || {
        lost = node.wait_for_a_pod(&scene.space);
        node.tell_that_it_runs(&scene.space, &lost);
        node.vanish();
        wait_for_another_pod(&scene, &lost);
    });
    assert!(message(&bad).contains("nodes are available"), "{}", message(&bad));
    let seen = pods.objects();
    let lost = seen.iter().find(|pod| name(pod) == name(&lost)).unwrap();
    assert_eq!(condition(lost, "DisruptionTarget")["reason"], "DeletionByPodGC", "{:#}", lost["status"]);
    the_next_one_runs(&scene, &database);
}

#[test]
fn a_run_whose_node_falls_silent_fails_with_pod_lost_in_time_and_the_next_one_runs() {
    let node = Node::start();
    let (scene, database) = scene_with_a_backup("node-silent");
    scene.policy("shop", &database, &on(&node.alone()));
    let bad = fails(&scene, &["PodLost"], || {
        let lost = node.wait_for_a_pod(&scene.space);
        node.tell_that_it_runs(&scene.space, &lost);
        node.fall_silent();
        // Then the platform knows, and with it everybody else.
        let given_up = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
        scene.space.wait("Pod", name(&lost), "is given up by the platform", seconds(150), given_up);
    });
    let told = ["DeletionByTaintManager", node.name(), "may still be at work"];
    assert!(told.iter().all(|words| message(&bad).contains(words)), "{}", message(&bad));
    the_next_one_runs(&scene, &database);
}

#[test]
fn a_run_whose_node_never_starts_it_fails_with_pod_not_started_and_the_next_one_runs() {
    let node = Node::start();
    let (scene, database) = scene_with_a_backup("node-dead");
    scene.policy("shop", &database, &on(&node.alone()));
    let bad = fails(&scene, &["PodNotStarted"], || {
        node.wait_for_a_pod(&scene.space);
    });
    assert!(message(&bad).contains(node.name()), "{}", message(&bad));
    the_next_one_runs(&scene, &database);
}

/// Fields of a policy whose Jobs outlast what the platform takes its time for.
fn on(template: &Value) -> Value {
    let mut template = template.clone();
    template["startDeadlineSeconds"] = json!(90);
    json!({"jobTemplate": template, "timeoutSeconds": 300})
}

fn message(object: &Value) -> &str {
    condition(object, "Complete")["message"].as_str().unwrap_or_default()
}

/// Waits until the Job of a Pod has another one.
#[track_caller]
fn wait_for_another_pod(scene: &Scene<'_>, than: &Value) -> Value {
    let job = &than["metadata"]["labels"]["batch.kubernetes.io/job-name"];
    wait_for(&format!("Pod {} is replaced", name(than)), seconds(125), || {
        let mut pods = scene.space.list("Pod");
        pods.retain(|pod| pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == *job);
        let seen: Vec<String> = pods.iter().map(|pod| format!("{} {}", name(pod), pod["status"]["phase"])).collect();
        pods.into_iter().find(|pod| name(pod) != name(than)).ok_or(format!("{seen:?}"))
    })
}

/// The Backup `again` is complete although a Pod of it was lost, which was no attempt, and restores equal.
#[track_caller]
fn is_made_again(scene: &Scene<'_>, database: &str) {
    let again = scene.space.wait("Backup", "again", "has ended", PROMISE, has_ended);
    assert_eq!(phase(&again), "Completed", "{:#}", again["status"]);
    let jobs = jobs_of(scene, "again");
    assert!(!jobs.is_empty() && jobs.iter().all(|job| job["status"]["failed"].as_u64().unwrap_or(0) == 0), "{jobs:#?}");
    restores_equal(scene, "again", database);
}

/// Wherever there is a node that is well.
#[track_caller]
fn the_next_one_runs(scene: &Scene<'_>, database: &str) {
    scene.policy("shop", database, &Value::Null);
    scene.backup("better", "shop");
    restores_equal(scene, "better", database);
}

#[track_caller]
fn restores_equal(scene: &Scene<'_>, backup: &str, database: &str) {
    let copy = random_name("copy");
    scene.restore(&json!({"backup": backup}), &json!({"database": copy}));
    assert_eq!(scene.postgres.contents(&copy), scene.postgres.contents(database));
    scene.postgres.drop_database(&copy);
}

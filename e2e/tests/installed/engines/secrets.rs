//! Secret values of the engines' sources are in Secrets and nowhere else.

use holdfast_e2e::bucket::S3;
use holdfast_e2e::command::try_kubectl;
use holdfast_e2e::mongodb::Mongodb;
use holdfast_e2e::objects::{backup, has_ended, name, phase, restore, secret};
use holdfast_e2e::postgres::Postgres;
use holdfast_e2e::redis::Redis;
use holdfast_e2e::scene::{PROMISE, Scene};
use holdfast_e2e::space::Space;
use holdfast_e2e::volume::claim;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

use crate::secrets::assert_nowhere;

const MONGODB: &str = "canary-mongo:@/%$x";
const REDIS: &str = "canary-redis \"'\\x";
const TOKEN: &str = "canary-token-of-the-shop";
const WRONG: &str = "canary-wrong-password";
/// A part of each that no escaping changes, neither that of a connection string.
const CANARIES: [&str; 4] = ["canary-redis", TOKEN, WRONG, "canary-mongo"];
const ENCODED: &str = "canary%2Dmongo";

#[test]
fn no_secret_value_of_an_engine_is_anywhere_but_in_its_secret() {
    let servers = Space::new("canary-engines-servers");
    let mongodb = Mongodb::start_with(&servers, "mongodb", MONGODB);
    let redis = Redis::start_with(&servers, "redis", "redis:7", REDIS);
    let scene = Scene::within(Space::new("canary-engines"), S3::shared(), Postgres::shared(18));
    let database = mongodb.seed("db.orders.insert_many([{'_id': i} for i in range(1000)])");
    redis.commands("EVAL \"for i = 1, 3000 do redis.call('set', i, i) end\" 0");
    scene.space.apply(&mongodb.credentials("mongodb"));
    scene.space.apply(&redis.credentials("redis"));
    scene.space.apply(&secret("shop-key", &json!({"token": TOKEN})));
    scene.space.apply(&claim("settings"));
    let sources = json!([
        mongodb.source("chat", &database),
        redis.source("cache"),
        {"name": "keys", "config": {"secrets": ["shop-key"], "allowUnencrypted": true}},
    ]);
    scene.policy_of("shop", &sources, &Value::Null);

    // A backup held up half-way, to look into its workers.
    mongodb.hold_up(&database, "orders");
    redis.command(&["config", "set", "rdb-key-save-delay", "5000"]);
    scene.space.apply(&backup("held", "shop"));
    mongodb.wait_for_a_reader();
    let mut seen = Vec::new();
    wait_for("both workers have been looked into", seconds(60), || {
        let running = scene.space.list("Pod").into_iter().filter(|pod| pod["status"]["phase"] == "Running");
        for pod in running {
            let processes = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline";
            let arguments = ["-n", scene.space.name(), "exec", name(&pod), "--", "bash", "-c", processes];
            let text = try_kubectl(&arguments, b"").text();
            if text.contains("HOLDFAST_TASK") {
                seen.push((format!("processes of {}", name(&pod)), text));
            }
        }
        let of = |what: &str| seen.iter().any(|(_, text)| text.contains(what));
        if of("\"mongodb\"") && of("\"redis\"") { Ok(()) } else { Err(format!("{} Pods", seen.len())) }
    });
    redis.command(&["config", "set", "rdb-key-save-delay", "0"]);
    mongodb.let_pass(&database);
    let held = scene.space.wait("Backup", "held", "has ended", PROMISE, has_ended);
    assert_eq!(phase(&held), "Completed", "{held:#}");

    // Restores that fail and that do not, and what servers say to wrong passwords.
    let into = json!([
        {"source": "chat", "mongodb": {"database": "copy"}},
        {"source": "keys", "config": {"claimName": "settings"}},
    ]);
    scene.try_restore(&restore("not-empty", &json!({"backup": "held"}), &into));
    redis.command(&["flushall"]);
    let restored = scene.try_restore(&restore("restored", &json!({"backup": "held"}), &into));
    assert!(has_ended(&restored));
    let uri = format!("mongodb://root:{WRONG}@{}/", mongodb.host());
    scene.space.apply(&secret("mongodb", &json!({"uri": uri})));
    scene.space.apply(&secret("redis", &json!({"password": WRONG})));
    assert_eq!(phase(&scene.try_backup("refused", "shop")), "Failed");

    let canaries: Vec<&str> = CANARIES.into_iter().chain([ENCODED]).collect();
    assert_nowhere(&scene, &seen, &canaries, &[TOKEN]);
}

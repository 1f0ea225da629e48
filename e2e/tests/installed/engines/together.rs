//! One policy with a source of each engine: one run saves them all, one request brings them all back.

use holdfast_e2e::mongodb::Mongodb;
use holdfast_e2e::objects::{phase, restore};
use holdfast_e2e::redis::Redis;
use holdfast_e2e::scene::Scene;
use holdfast_e2e::volume::{Volume, claim};
use serde_json::{Value, json};

#[test]
fn a_source_of_each_engine_comes_back_by_one_request() {
    let scene = Scene::new("together");
    let (postgres, mongodb) = (scene.postgres, Mongodb::shared());
    let redis = Redis::start(&scene.space, "cache", "redis:7");
    scene.space.apply(&mongodb.credentials("mongodb"));
    scene.space.apply(&redis.credentials("redis"));
    let uploads = Volume::start(&scene.space, "uploads", 65532);
    scene.space.apply(&claim("settings"));
    let tables = postgres.seed(include_str!("../seeds/everything.sql"));
    let collections = mongodb.seed(include_str!("../seeds/everything.py"));
    redis.commands(include_str!("../seeds/everything.redis"));
    uploads.sh(include_str!("../seeds/everything.sh"));
    scene.space.apply(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop-env"}, "data": {"LEVEL": "debug"}}),
    );
    let before = (postgres.contents(&tables), mongodb.contents(&collections), redis.contents(), uploads.contents());

    let sources = json!([
        postgres.source("db", &tables),
        mongodb.source("chat", &collections),
        redis.source("cache"),
        {"name": "uploads", "volume": {"claimName": "uploads", "runAs": {"user": 65532, "group": 65532}}},
        {"name": "config", "config": {"configMaps": ["shop-env"]}},
    ]);
    scene.policy_of("shop", &sources, &Value::Null);
    let backup = scene.backup("monday", "shop");
    assert_eq!(backup["status"]["artifacts"].as_array().unwrap().len(), 5, "{backup:#}");

    postgres.drop_database(&tables);
    mongodb.drop_database(&collections);
    redis.command(&["flushall"]);
    redis.command(&["function", "flush"]);
    uploads.empty();
    let into = json!([{"source": "config", "config": {"claimName": "settings"}}]);
    let restored = scene.try_restore(&restore("all", &json!({"backup": "monday"}), &into));

    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    assert_eq!(restored["status"]["sources"].as_array().unwrap().len(), 5, "{restored:#}");
    assert_eq!(postgres.contents(&tables), before.0);
    assert_eq!(mongodb.contents(&collections), before.1);
    assert_eq!(redis.contents(), before.2);
    assert_eq!(uploads.contents(), before.3);
    let settings = Volume::open(&scene.space, "settings", 65532);
    assert_eq!(settings.sh("cat $(find . -name LEVEL)"), "debug");
    mongodb.drop_database(&collections);
}

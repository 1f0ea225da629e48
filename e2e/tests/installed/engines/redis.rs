//! Redis: what is backed up comes back with every type, group and moment of going; the target's own settings are as before.

use holdfast_e2e::bucket::S3;
use holdfast_e2e::objects::{backup, condition, has_ended, phase, restore, secret};
use holdfast_e2e::postgres::Postgres;
use holdfast_e2e::redis::Redis;
use holdfast_e2e::scene::{PREFIX, PROMISE, Scene};
use holdfast_e2e::space::Space;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const EVERYTHING: &str = include_str!("../seeds/everything.redis");

fn scene(purpose: &str, image: &str) -> (Scene<'static>, Redis) {
    let scene = Scene::within(Space::new(purpose), S3::shared(), Postgres::shared(18));
    let server = Redis::start(&scene.space, "cache", image);
    scene.space.apply(&server.credentials("redis"));
    (scene, server)
}

#[test]
fn a_server_restores_in_place_after_it_was_flushed_and_keeps_it_over_a_restart() {
    let (scene, server) = scene("redis", "redis:7");
    server.commands(EVERYTHING);
    let before = server.contents();
    let settings = server.settings();
    scene.policy_of("cache", &json!([server.source("db")]), &Value::Null);
    let backup = scene.backup("monday", "cache");
    let artifact = &backup["status"]["artifacts"][0];
    let key = artifact["key"].as_str().unwrap();
    assert!(key.starts_with(&format!("{PREFIX}/{}/cache/", scene.space.name())) && key.ends_with(".rdb.zst"), "{key}");
    assert_eq!(artifact["items"], 20_022, "{artifact:#}");
    assert_eq!(server.contents(), before, "a backup changes nothing");

    server.command(&["flushall"]);
    server.command(&["function", "flush"]);
    scene.restore(&json!({"backup": "monday"}), &Value::Null);

    assert_eq!(server.contents(), before);
    assert_eq!(server.settings(), settings);
    server.restart();
    assert_eq!(server.contents(), before, "the append-only file has it too");

    // A target that holds keys is left as it is, unless it is to be replaced.
    server.commands("SELECT 7\nSET newer 1\nDEL plain");
    let changed = server.contents();
    let refused = scene.try_restore(&restore("refused", &json!({"backup": "monday"}), &Value::Null));
    assert_eq!(condition(&refused, "Complete")["reason"], "TargetNotEmpty", "{refused:#}");
    assert_eq!((server.contents(), server.settings()), (changed, settings.clone()));
    let mut replace = restore("replace", &json!({"backup": "monday"}), &Value::Null);
    replace["spec"]["onExisting"] = json!("Replace");
    let replaced = scene.try_restore(&replace);
    assert_eq!(phase(&replaced), "Completed", "{replaced:#}");
    assert_eq!((server.contents(), server.settings()), (before, settings));
}

#[test]
fn a_backup_of_redis_7_restores_onto_redis_8_and_onto_valkey() {
    let (scene, server) = scene("redis-upgrade", "redis:7");
    let others = [("newer", "redis:8"), ("other", "valkey:9")].map(|(name, image)| {
        let other = Redis::start(&scene.space, name, image);
        scene.space.apply(&other.credentials(name));
        (name, other)
    });
    server.commands(EVERYTHING);
    let before = server.contents();
    scene.policy_of("cache", &json!([server.source("db")]), &Value::Null);
    scene.backup("monday", "cache");

    for (name, other) in &others {
        let settings = other.settings();
        let into = json!([{"source": "db", "redis": {"host": other.host(), "credentialsSecret": {"name": name}}}]);
        let restored = scene.try_restore(&restore(name, &json!({"backup": "monday"}), &into));
        assert_eq!(phase(&restored), "Completed", "{name}: {restored:#}");
        // Servers of two kinds tell groups and functions with more or fewer words.
        assert_eq!(keys_of(&other.contents()), keys_of(&before), "{name}");
        assert!(other.contents().contains("redis.register_function('double'"), "{name}");
        assert_eq!(other.settings(), settings, "{name}");
    }
    assert_eq!(server.contents(), before);
}

#[test]
fn one_database_restores_into_another_beside_what_is_there() {
    let (scene, server) = scene("redis-database", "redis:8");
    server.commands("SET plain 1\nHSET session user 1\nPEXPIREAT session 4102444800123\nXADD events 1-1 a b\nXGROUP CREATE events workers 0");
    scene.policy_of("cache", &json!([server.source("db")]), &Value::Null);
    scene.backup("monday", "cache");
    server.commands("SELECT 1\nSET other yes");

    let into = json!([{"source": "db", "redis": {"database": 5}}]);
    let restored = scene.try_restore(&restore("beside", &json!({"backup": "monday"}), &into));

    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    let contents = server.contents();
    let of = |database: &str| {
        let rest = contents.split_once(&format!("database {database}\n")).unwrap().1;
        rest.split("\ndatabase ").next().unwrap().to_owned()
    };
    assert_eq!(of("5"), of("0"));
    assert!(of("5").contains("hash 4102444800123 session"), "{contents}");
    assert_eq!(server.command(&["-n", "1", "get", "other"]), "yes");
}

#[test]
fn a_wrong_password_a_server_that_is_not_there_and_a_secret_without_the_key_are_told_apart() {
    let (scene, server) = scene("redis-refused", "redis:7");
    scene.space.apply(&secret("wrong", &json!({"password": "not-this-one"})));
    let host = server.host();
    let cases = [
        (host.as_str(), "wrong", "password", "SourceRefused"),
        ("nobody.nowhere.svc", "redis", "password", "SourceUnreachable"),
        (host.as_str(), "redis", "passphrase", "SecretNotFound"),
    ];
    for (number, (host, secret, key, _)) in cases.iter().enumerate() {
        let source =
            json!({"name": "db", "redis": {"host": host, "credentialsSecret": {"name": secret, "passwordKey": key}}});
        scene.policy_of(&format!("p{number}"), &json!([source]), &Value::Null);
        scene.space.apply(&backup(&format!("b{number}"), &format!("p{number}")));
    }
    for (number, (.., reason)) in cases.iter().enumerate() {
        let ended = scene.space.wait("Backup", &format!("b{number}"), "has ended", PROMISE, has_ended);
        let complete = condition(&ended, "Complete");
        assert_eq!((phase(&ended), complete["reason"].as_str().unwrap()), ("Failed", *reason), "{ended:#}");
        assert!(!complete["message"].as_str().unwrap().contains("not-this-one"), "{complete:#}");
    }
    assert_eq!(scene.bucket.keys(), Vec::<String>::new());
}

#[test]
fn a_server_that_is_lost_during_the_transfer_leaves_no_backup() {
    let (scene, server) = scene("redis-lost", "redis:7");
    server.commands(EVERYTHING);
    scene.policy_of("cache", &json!([server.source("db")]), &Value::Null);
    // A millisecond for each key: the dump takes twenty seconds.
    server.command(&["config", "set", "rdb-key-save-delay", "1000"]);
    scene.space.apply(&backup("bad", "cache"));
    wait_for("the server is about to dump", seconds(60), || {
        let info = server.command(&["info", "persistence"]);
        if info.contains("rdb_bgsave_in_progress:1") { Ok(()) } else { Err(info) }
    });
    scene.space.force_delete_pod("cache");

    let bad = scene.space.wait("Backup", "bad", "has ended", PROMISE, has_ended);

    let complete = condition(&bad, "Complete");
    assert_eq!(phase(&bad), "Failed", "{bad:#}");
    let reasons = ["DumpFailed", "SourceUnreachable", "SourceIncomplete"];
    assert!(reasons.iter().any(|reason| complete["reason"] == *reason), "{complete:#}");
    assert!(!scene.bucket.keys().iter().any(|key| key.ends_with("manifest.json")), "{:?}", scene.bucket.keys());
}

/// The digest of all values, and the keys with their types and moments.
fn keys_of(contents: &str) -> Vec<String> {
    let digest = contents.lines().next().unwrap().to_owned();
    let keys = contents.lines().filter(|line| line.split(' ').nth(1).is_some_and(|at| at.parse::<i64>().is_ok()));
    let short = |line: &str| line.split_once(" [[").map_or(line, |(start, _)| start).to_owned();
    std::iter::once(digest).chain(keys.map(short)).collect()
}

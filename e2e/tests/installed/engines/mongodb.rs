//! MongoDB: what is backed up comes back, in place and elsewhere, by its bytes; what fails says so and harms nothing.

use holdfast_e2e::bucket::S3;
use holdfast_e2e::mongodb::Mongodb;
use holdfast_e2e::objects::{backup, condition, has_ended, phase, restore, secret};
use holdfast_e2e::postgres::{Postgres, random_name};
use holdfast_e2e::scene::{PREFIX, PROMISE, Scene};
use holdfast_e2e::space::Space;
use serde_json::{Value, json};

const EVERYTHING: &str = include_str!("../seeds/everything.py");

fn scene(purpose: &str) -> (Scene<'static>, &'static Mongodb) {
    let scene = Scene::new(purpose);
    let mongodb = Mongodb::shared();
    scene.space.apply(&mongodb.credentials("mongodb"));
    (scene, mongodb)
}

#[test]
fn a_database_restores_in_place_after_it_was_dropped_and_into_another() {
    let (scene, mongodb) = scene("mongodb");
    let database = mongodb.seed(EVERYTHING);
    let before = mongodb.contents(&database);
    assert_eq!(before.lines().count(), 8, "{before}");
    scene.policy_of("chat", &json!([mongodb.source("db", &database)]), &Value::Null);
    let backup = scene.backup("monday", "chat");
    let artifact = &backup["status"]["artifacts"][0];
    assert_eq!(artifact["items"], 20_519, "documents: {artifact:#}");
    let key = artifact["key"].as_str().unwrap();
    assert!(
        key.starts_with(&format!("{PREFIX}/{}/chat/", scene.space.name())) && key.ends_with(".archive.zst"),
        "{key}"
    );

    mongodb.drop_database(&database);
    scene.restore(&json!({"backup": "monday"}), &Value::Null);
    assert_eq!(mongodb.contents(&database), before);

    let copy = random_name("copy");
    let into = json!([{"source": "db", "mongodb": {"database": copy}}]);
    let restored = scene.try_restore(&restore("copy", &json!({"backup": "monday"}), &into));
    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    assert_eq!(mongodb.contents(&copy), before);
    assert_eq!(mongodb.contents(&database), before);

    // A target that holds data is left as it is, unless it is to be replaced.
    mongodb.python(&copy, "db.orders.insert_one({'_id': 'newer'}); db.newer.insert_one({})");
    let changed = mongodb.contents(&copy);
    let refused = scene.try_restore(&restore("refused", &json!({"backup": "monday"}), &into));
    assert_eq!(condition(&refused, "Complete")["reason"], "TargetNotEmpty", "{refused:#}");
    assert_eq!(mongodb.contents(&copy), changed);
    let mut replace = restore("replace", &json!({"backup": "monday"}), &into);
    replace["spec"]["onExisting"] = json!("Replace");
    replace["spec"]["safetyBackup"] = json!(false);
    let replaced = scene.try_restore(&replace);
    assert_eq!(phase(&replaced), "Completed", "{replaced:#}");
    let lines =
        |text: &str| text.lines().filter(|line| !line.starts_with("[\"newer\"")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&mongodb.contents(&copy)), lines(&before));
    mongodb.drop_database(&copy);
    mongodb.drop_database(&database);
}

#[test]
fn json_lines_restore_onto_another_server_that_is_reached_by_host_and_password() {
    let (scene, mongodb) = scene("mongodb-json");
    let other = Mongodb::start(&scene.space, "other");
    scene.space.apply(&other.credentials("other"));
    let database = mongodb.seed(EVERYTHING);
    let before = mongodb.contents(&database);
    let mut source = mongodb.source("db", &database);
    source["mongodb"]["format"] = json!("Json");
    source["mongodb"]["excludeCollections"] = json!(["doc*"]);
    scene.policy_of("chat", &json!([source]), &Value::Null);
    scene.backup("monday", "chat");

    let into = json!([{"source": "db", "mongodb": {"host": other.host(), "credentialsSecret": {"name": "other"}}}]);
    let restored = scene.try_restore(&restore("elsewhere", &json!({"backup": "monday"}), &into));

    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    let kept: Vec<&str> = before.lines().filter(|line| !line.starts_with("[\"documents\"")).collect();
    assert_eq!(other.contents(&database).lines().collect::<Vec<_>>(), kept);
    mongodb.drop_database(&database);
}

#[test]
fn all_databases_of_a_server_come_back_on_another() {
    let scene = Scene::new("mongodb-all");
    let first = Mongodb::start(&scene.space, "first");
    let second = Mongodb::start(&scene.space, "second");
    scene.space.apply(&first.credentials("first"));
    scene.space.apply(&second.credentials("second"));
    let databases =
        [first.seed(EVERYTHING), first.seed("db.one.insert_one({'_id': 1}); db['two.three'].insert_one({'_id': 2})")];
    let before = databases.each_ref().map(|database| first.contents(database));
    let source = json!({"name": "db", "mongodb": {"uriSecret": {"name": "first", "key": "uri"}}});
    scene.policy_of("all", &json!([source]), &Value::Null);
    scene.backup("monday", "all");

    let into = json!([{"source": "db", "mongodb": {"uriSecret": {"name": "second", "key": "uri"}}}]);
    let restored = scene.try_restore(&restore("elsewhere", &json!({"backup": "monday"}), &into));

    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    assert_eq!(databases.each_ref().map(|database| second.contents(database)), before);
}

#[test]
fn a_wrong_password_a_server_that_is_not_there_and_a_secret_without_the_key_are_told_apart() {
    let (scene, mongodb) = scene("mongodb-refused");
    let database = mongodb.seed("db.one.insert_one({'_id': 1})");
    let uri = |user: &str| format!("mongodb://{user}@{}:27017/", mongodb.host());
    scene.space.apply(&secret("wrong", &json!({"uri": uri("root:not-this-one")})));
    scene.space.apply(&secret("gone", &json!({"uri": "mongodb://root:pw@nobody.nowhere.svc/"})));
    let cases = [
        ("wrong", "uri", "SourceRefused"),
        ("gone", "uri", "SourceUnreachable"),
        ("mongodb", "link", "SecretNotFound"),
    ];
    for (number, (secret, key, _)) in cases.iter().enumerate() {
        let source =
            json!({"name": "db", "mongodb": {"uriSecret": {"name": secret, "key": key}, "database": database}});
        scene.policy_of(&format!("p{number}"), &json!([source]), &Value::Null);
        scene.space.apply(&backup(&format!("b{number}"), &format!("p{number}")));
    }
    for (number, (_, _, reason)) in cases.iter().enumerate() {
        let ended = scene.space.wait("Backup", &format!("b{number}"), "has ended", PROMISE, has_ended);
        let complete = condition(&ended, "Complete");
        assert_eq!((phase(&ended), complete["reason"].as_str().unwrap()), ("Failed", *reason), "{ended:#}");
        assert!(!complete["message"].as_str().unwrap().contains("not-this-one"), "{complete:#}");
    }
    assert_eq!(scene.bucket.keys(), Vec::<String>::new());
    mongodb.drop_database(&database);
}

#[test]
fn a_server_that_is_lost_during_the_dump_leaves_no_backup() {
    let scene = Scene::within(Space::new("mongodb-lost"), S3::shared(), Postgres::shared(18));
    let server = Mongodb::start(&scene.space, "doomed");
    scene.space.apply(&server.credentials("mongodb"));
    let database = server.seed(EVERYTHING);
    scene.policy_of("chat", &json!([server.source("db", &database)]), &Value::Null);
    server.hold_up(&database, "orders");
    scene.space.apply(&backup("bad", "chat"));
    server.wait_for_a_reader();
    scene.space.force_delete_pod("doomed");

    let bad = scene.space.wait("Backup", "bad", "has ended", PROMISE, has_ended);

    let complete = condition(&bad, "Complete");
    assert_eq!(phase(&bad), "Failed", "{bad:#}");
    let reasons = ["DumpFailed", "SourceUnreachable", "SourceIncomplete"];
    assert!(reasons.iter().any(|reason| complete["reason"] == *reason), "{complete:#}");
    assert!(!scene.bucket.keys().iter().any(|key| key.ends_with("manifest.json")), "{:?}", scene.bucket.keys());
}

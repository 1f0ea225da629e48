//! What only mongod can do: capped, clustered and time-series collections, collations, snapshots, users. The tests need one, named by
//! `HOLDFAST_TEST_MONGODB_URI` (a replica set for snapshots), and say so where there is none. They use databases `holdfast_test_*`.

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/forum.rs"]
mod forum;
#[path = "support/memory.rs"]
mod memory;

use std::io::Write;

use bson::{DateTime, Document, doc};
use forum::{Secret, assert_same, client, contents, fill, nowhere};
use holdfast::engine::{Dumped, check_target, dump, restore};
use holdfast::store::manifest::Manifest;
use holdfast::task::{MongodbTarget, RestoreTarget, Target};
use holdfast_crds::{MongodbFormat, MongodbSource, OnExisting, Reason, Source};
use memory::{MemorySink, MemorySource};
use mongodb::options::{ClientOptions, Credential};

/// The server's connection string; none: the test is skipped, and says so.
fn mongod(test: &str) -> Option<String> {
    let uri = std::env::var("HOLDFAST_TEST_MONGODB_URI").ok();
    if uri.is_none() {
        skipped(&format!("{test}: it needs mongod, and HOLDFAST_TEST_MONGODB_URI names none"));
    }
    uri
}

/// Past what the test runner keeps to itself of tests that pass.
#[allow(clippy::explicit_write)]
fn skipped(what: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {what}").unwrap();
}

async fn save(uri: &str, database: &str, format: MongodbFormat) -> (Dumped, Manifest, MemorySource) {
    let source = MongodbSource { database: Some(database.into()), format, ..MongodbSource::default() };
    let source = Source { name: "chat".into(), mongodb: Some(source), ..Source::default() };
    let mut sink = MemorySink::default();
    let dumped = dump(&source, &Secret::of(uri).mounts, &nowhere(), &mut sink).await.unwrap();
    let manifest = sink.manifest(&dumped.tool_version, &dumped.server_version);
    (dumped, manifest, sink.into_source())
}

async fn bring_back(uri: &str, manifest: &Manifest, source: &mut MemorySource, on_existing: OnExisting) {
    let secret = Secret::of(uri);
    let target = RestoreTarget {
        source: "chat".into(),
        mounts: secret.mounts.clone(),
        server: Target::Mongodb(MongodbTarget::default()),
    };
    check_target(&target, manifest, on_existing, &nowhere()).await.unwrap();
    restore(&target, manifest, on_existing, &nowhere(), source).await.unwrap();
}

#[tokio::test]
async fn collections_of_every_kind_come_back() {
    let Some(uri) = mongod("collections of every kind") else { return };
    let client = client(&uri).await;
    for format in [MongodbFormat::Archive, MongodbFormat::Json] {
        let database = format!("holdfast_test_kinds_{format:?}").to_lowercase();
        let db = client.database(&database);
        db.drop().await.unwrap();
        fill(&client, &database).await;
        let run = async |command: Document| db.run_command(command).await.unwrap();
        run(doc! {"create": "capped", "capped": true, "size": 1 << 20, "max": 500}).await;
        run(doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true, "name": "c"}}).await;
        run(doc! {"create": "collated", "collation": {"locale": "de", "strength": 2}}).await;
        run(
            doc! {"create": "weather", "timeseries": {"timeField": "at", "metaField": "place", "granularity": "hours"}},
        )
        .await;
        run(doc! {"createIndexes": "collated", "indexes": [
            {"key": {"a": 1}, "name": "german"},
            {"key": {"b": 1}, "name": "simple", "collation": {"locale": "simple"}},
            {"key": {"c": 1}, "name": "unseen", "hidden": true},
        ]})
        .await;
        for name in ["capped", "clustered", "collated"] {
            let documents: Vec<Document> = (0..800).map(|n| doc! {"_id": n, "a": "ä"}).collect();
            db.collection::<Document>(name).insert_many(documents).await.unwrap();
        }
        let measured: Vec<Document> =
            (0..2000).map(|n| doc! {"at": DateTime::from_millis(n * 60_000), "place": n % 3, "value": n}).collect();
        db.collection::<Document>("weather").insert_many(measured).await.unwrap();
        let before = contents(&client, &database).await;
        let (_, manifest, mut source) = save(&uri, &database, format).await;
        db.drop().await.unwrap();
        bring_back(&uri, &manifest, &mut source, OnExisting::Fail).await;
        assert_same(&contents(&client, &database).await, &before);
        bring_back(&uri, &manifest, &mut source, OnExisting::Replace).await;
        assert_same(&contents(&client, &database).await, &before);
        db.drop().await.unwrap();
    }
}

#[tokio::test]
async fn a_replica_set_is_saved_at_one_instant() {
    let Some(uri) = mongod("snapshots") else { return };
    let client = client(&uri).await;
    let hello = client.database("admin").run_command(doc! {"hello": 1}).await.unwrap();
    if !hello.contains_key("setName") {
        skipped("snapshots: the server of HOLDFAST_TEST_MONGODB_URI is no replica set");
        return;
    }
    let database = "holdfast_test_snapshot";
    let db = client.database(database);
    db.drop().await.unwrap();
    for name in ["a", "b"] {
        let documents: Vec<Document> = (0..50_000).map(|n| doc! {"_id": n, "n": 0}).collect();
        db.collection::<Document>(name).insert_many(documents).await.unwrap();
    }
    // Somebody moves on in both collections while they are read.
    let writing = tokio::spawn({
        let db = db.clone();
        async move {
            for n in 0.. {
                for name in ["a", "b"] {
                    let only = doc! {"_id": n % 50_000};
                    db.collection::<Document>(name).update_one(only, doc! {"$inc": {"n": 1}}).await.unwrap();
                }
            }
        }
    });
    let (dumped, manifest, mut source) = save(&uri, database, MongodbFormat::Archive).await;
    writing.abort();
    assert_eq!(dumped.consistency, "snapshot");
    bring_back(&uri, &manifest, &mut source, OnExisting::Replace).await;
    let sum = async |name: &str| {
        let all = contents(&client, database).await[name].documents.clone();
        let number = |bytes: &Vec<u8>| bson::RawDocument::from_bytes(bytes).unwrap().get_i32("n").unwrap();
        all.iter().map(number).sum::<i32>()
    };
    let (a, b) = (sum("a").await, sum("b").await);
    assert!(a == b || a == b + 1, "{a} and {b} changes: not of one instant");
    db.drop().await.unwrap();
}

#[tokio::test]
async fn users_and_roles_come_back_and_log_in_as_before() {
    let Some(uri) = mongod("users and roles") else { return };
    let client = client(&uri).await;
    let (database, copy) = ("holdfast_test_users", "holdfast_test_users_copy");
    let db = client.database(database);
    let drop_all = async || {
        for name in [database, copy] {
            client.database(name).run_command(doc! {"dropAllUsersFromDatabase": 1}).await.unwrap();
            client.database(name).run_command(doc! {"dropAllRolesFromDatabase": 1}).await.unwrap();
            client.database(name).drop().await.unwrap();
        }
    };
    drop_all().await;
    db.collection::<Document>("orders").insert_one(doc! {"_id": 1}).await.unwrap();
    let privilege = doc! {"resource": {"db": database, "collection": "orders"}, "actions": ["find"]};
    db.run_command(doc! {"createRole": "clerk", "privileges": [privilege], "roles": []}).await.unwrap();
    db.run_command(doc! {"createUser": "app", "pwd": "pässword", "roles": ["clerk"], "customData": {"team": "a"}})
        .await
        .unwrap();
    // Whether somebody of a database may log in there and see the orders.
    let sees = async |database: &str, password: &str| {
        let mut options = ClientOptions::parse(&uri).await.unwrap();
        options.credential = Some(
            Credential::builder()
                .username("app".to_owned())
                .password(password.to_owned())
                .source(database.to_owned())
                .build(),
        );
        let client = mongodb::Client::with_options(options).unwrap();
        client
            .database(database)
            .collection::<Document>("orders")
            .find_one(doc! {})
            .await
            .is_ok_and(|one| one.is_some())
    };
    assert!(sees(database, "pässword").await);

    let source =
        MongodbSource { database: Some(database.into()), include_users_and_roles: true, ..MongodbSource::default() };
    let source = Source { name: "chat".into(), mongodb: Some(source), ..Source::default() };
    let mut sink = MemorySink::default();
    let dumped = dump(&source, &Secret::of(&uri).mounts, &nowhere(), &mut sink).await.unwrap();
    let manifest = sink.manifest(&dumped.tool_version, &dumped.server_version);
    let mut saved = sink.into_source();
    let secret = Secret::of(&uri);
    let mut restore_to = async |into: Option<&str>, on_existing| {
        let server = MongodbTarget {
            database: into.map(str::to_owned),
            include_users_and_roles: true,
            ..MongodbTarget::default()
        };
        let server = Target::Mongodb(server);
        let target = RestoreTarget { source: "chat".into(), mounts: secret.mounts.clone(), server };
        check_target(&target, &manifest, on_existing, &nowhere()).await?;
        restore(&target, &manifest, on_existing, &nowhere(), &mut saved).await
    };

    // All is lost and comes back; elsewhere it is another user, with the same password.
    drop_all().await;
    restore_to(None, OnExisting::Fail).await.unwrap();
    assert!(sees(database, "pässword").await);
    restore_to(Some(copy), OnExisting::Fail).await.unwrap();
    assert!(sees(copy, "pässword").await);

    // A password that changed since: refused, or as it was. Who was made since stays.
    db.drop().await.unwrap();
    db.run_command(doc! {"updateUser": "app", "pwd": "changed"}).await.unwrap();
    db.run_command(doc! {"createUser": "later", "pwd": "later", "roles": ["clerk"]}).await.unwrap();
    let failure = restore_to(None, OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TargetNotEmpty, "{failure}");
    restore_to(None, OnExisting::Replace).await.unwrap();
    assert!(sees(database, "pässword").await && !sees(database, "changed").await);
    let users = db.run_command(doc! {"usersInfo": "later"}).await.unwrap();
    assert_eq!(users.get_array("users").unwrap().len(), 1);
    let left = client.database("admin").list_collection_names().await.unwrap();
    assert!(!left.iter().any(|name| name.starts_with("temp")), "{left:?}");
    drop_all().await;
}

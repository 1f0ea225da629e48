//! Restores into a real server: what comes back is what was saved, and a target is never left worse than it was.

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/cut.rs"]
mod cut;
#[path = "support/forum.rs"]
mod forum;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/mongod.rs"]
mod mongod;
#[path = "support/mongodb.rs"]
mod server;

use std::sync::Arc;

use bson::{Document, doc};
use cut::Way;
use forum::{Secret, assert_same, client, contents, fill, nowhere};
use holdfast::engine::{ArtifactMetadata, ArtifactSink, Restored, check_target, dump, restore};
use holdfast::store::manifest::Manifest;
use holdfast::task::{Failure, MongodbTarget, RestoreTarget, Target};
use holdfast_crds::{MongodbFormat, MongodbSource, OnExisting, Reason, Source};
use memory::{MemorySink, MemorySource, Spoil};
use mongod::{Kept, Mongod, Timestamps};
use mongodb::Client;
use server::Server;

const BOTH: [MongodbFormat; 2] = [MongodbFormat::Archive, MongodbFormat::Json];

/// A backup in memory.
struct Saved {
    manifest: Manifest,
    source: MemorySource,
}

async fn save(server: &Server, database: Option<&str>, format: MongodbFormat) -> Saved {
    let source = MongodbSource { database: database.map(str::to_owned), format, ..MongodbSource::default() };
    let source = Source { name: "chat".into(), mongodb: Some(source), ..Source::default() };
    let mut sink = MemorySink::default();
    let dumped = dump(&source, &Secret::of(&server.uri()).mounts, &nowhere(), &mut sink).await.unwrap();
    Saved { manifest: sink.manifest(&dumped.tool_version, &dumped.server_version), source: sink.into_source() }
}

fn into(database: Option<&str>) -> MongodbTarget {
    MongodbTarget { database: database.map(str::to_owned), ..MongodbTarget::default() }
}

impl Saved {
    /// What the worker does: check, then restore.
    async fn restore_to(
        &mut self,
        uri: &str,
        target: MongodbTarget,
        on_existing: OnExisting,
    ) -> Result<Restored, Failure> {
        let secret = Secret::of(uri);
        let target =
            RestoreTarget { source: "chat".into(), mounts: secret.mounts.clone(), server: Target::Mongodb(target) };
        check_target(&target, &self.manifest, on_existing, &nowhere()).await?;
        restore(&target, &self.manifest, on_existing, &nowhere(), &mut self.source).await
    }

    async fn restore(
        &mut self,
        server: &Server,
        target: MongodbTarget,
        on_existing: OnExisting,
    ) -> Result<Restored, Failure> {
        self.restore_to(&server.uri(), target, on_existing).await
    }
}

/// Collections that restores make for themselves.
async fn leftovers(client: &Client, database: &str) -> Vec<String> {
    let mut names = client.database(database).list_collection_names().await.unwrap();
    names.retain(|name| name.starts_with("holdfast_"));
    names
}

async fn insert(client: &Client, database: &str, collection: &str, documents: &[Document]) {
    client.database(database).collection::<Document>(collection).insert_many(documents).await.unwrap();
}

#[tokio::test]
async fn a_lost_database_comes_back_and_goes_elsewhere() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    for format in BOTH {
        let database = format!("lost{format:?}");
        fill(&client, &database).await;
        let before = contents(&client, &database).await;
        let mut saved = save(&server, Some(&database), format).await;
        client.database(&database).drop().await.unwrap();
        let restored = saved.restore(&server, into(None), OnExisting::Fail).await.unwrap();
        assert_same(&contents(&client, &database).await, &before);
        assert_eq!(restored.items, 6703);
        assert_eq!(
            restored.message,
            format!("7 collections, 1 view, 6703 documents restored into {database} on 127.0.0.1:{}", server.port)
        );
        let plain: u64 = saved.manifest.artifacts.iter().map(|artifact| artifact.source_bytes).sum();
        assert_eq!(restored.bytes, plain);

        let elsewhere = format!("elsewhere{format:?}");
        saved.restore(&server, into(Some(&elsewhere)), OnExisting::Fail).await.unwrap();
        assert_same(&contents(&client, &elsewhere).await, &before);
        assert_eq!(leftovers(&client, &database).await, Vec::<String>::new());
        assert_eq!(leftovers(&client, &elsewhere).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_target_that_holds_data_is_left_alone() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    insert(&client, "full", "orders", &[doc! {"_id": 1}]).await;
    insert(&client, "full", "users", &[doc! {"_id": 1}]).await;
    for format in BOTH {
        let mut saved = save(&server, Some("full"), format).await;
        let before = contents(&client, "full").await;
        let failure = saved.restore(&server, into(None), OnExisting::Fail).await.unwrap_err();
        assert_eq!(failure.reason, Reason::TargetNotEmpty, "{failure}");
        assert!(failure.message.contains("collection orders is there already"), "{failure}");
        assert!(failure.message.contains("use onExisting: Replace"), "{failure}");
        assert_same(&contents(&client, "full").await, &before);
        assert_eq!(saved.source.fetched, 0);

        // Other collections are in nobody's way, nor are empty ones.
        let other = format!("fullbeside{format:?}");
        insert(&client, &other, "invoices", &[doc! {"_id": 7}]).await;
        client.database(&other).create_collection("orders").await.unwrap();
        saved.restore(&server, into(Some(&other)), OnExisting::Fail).await.unwrap();
        let found = contents(&client, &other).await;
        assert_eq!(found.keys().collect::<Vec<_>>(), ["invoices", "orders", "users"]);
        assert_eq!(found["orders"], before["orders"]);
    }
}

#[tokio::test]
async fn replace_brings_back_what_was_saved_and_nothing_else() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    for format in BOTH {
        let database = format!("replaced{format:?}");
        fill(&client, &database).await;
        let before = contents(&client, &database).await;
        let mut saved = save(&server, Some(&database), format).await;
        let db = client.database(&database);
        db.collection::<Document>("posts").delete_many(doc! {"room": {"$gt": 2}}).await.unwrap();
        // The server answers this in a way that the driver does not know, and does it.
        let _ = db.collection::<Document>("users").drop_index("name_1").await;
        assert_ne!(contents(&client, &database).await["users"].indexes, before["users"].indexes);
        db.collection::<Document>("types").drop().await.unwrap();
        // A view where a collection was, and a collection where a view was.
        db.run_command(doc! {"create": "types", "viewOn": "users", "pipeline": []}).await.unwrap();
        db.collection::<Document>("recent").drop().await.unwrap();
        insert(&client, &database, "recent", &[doc! {"_id": 5}]).await;
        insert(&client, &database, "new", &[doc! {"_id": 1}]).await;
        saved.restore(&server, into(None), OnExisting::Replace).await.unwrap();
        let mut found = contents(&client, &database).await;
        assert_eq!(found.remove("new").unwrap().documents.len(), 1);
        assert_same(&found, &before);
        assert_eq!(leftovers(&client, &database).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn only_what_is_chosen_comes_back() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    fill(&client, "chosen").await;
    let before = contents(&client, "chosen").await;
    for format in BOTH {
        let mut saved = save(&server, Some("chosen"), format).await;
        let database = format!("chosen{format:?}");
        let target = MongodbTarget {
            include_collections: vec!["users".into(), "p*".into()],
            exclude_collections: vec!["pos?".into()],
            ..into(Some(&database))
        };
        saved.restore(&server, target, OnExisting::Fail).await.unwrap();
        let found = contents(&client, &database).await;
        assert_eq!(found.keys().collect::<Vec<_>>(), ["posts", "users"]);
        assert_eq!(found["users"], before["users"]);
        let target = MongodbTarget { include_collections: vec!["nothing".into()], ..into(Some("nowhere")) };
        let failure = saved.restore(&server, target, OnExisting::Fail).await.unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure}");
        assert!(!client.list_database_names().await.unwrap().contains(&"nowhere".to_owned()));
    }
}

#[tokio::test]
async fn several_databases_go_where_they_came_from_and_into_no_single_one() {
    let server = Server::start();
    let client = client(&server.uri()).await;
    insert(&client, "shop", "orders", &[doc! {"_id": 1}]).await;
    insert(&client, "forum", "orders", &[doc! {"_id": 2}]).await;
    for format in BOTH {
        let mut saved = save(&server, None, format).await;
        let failure = saved.restore(&server, into(Some("one")), OnExisting::Fail).await.unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfiguration);
        assert!(failure.message.contains("the backup holds 2 databases"), "{failure}");
        let before = (contents(&client, "shop").await, contents(&client, "forum").await);
        client.database("shop").drop().await.unwrap();
        client.database("forum").drop().await.unwrap();
        saved.restore(&server, into(None), OnExisting::Fail).await.unwrap();
        assert_eq!((contents(&client, "shop").await, contents(&client, "forum").await), before);
    }
}

#[tokio::test]
async fn the_old_data_stays_where_the_backup_is_not_whole() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    fill(&client, "kept").await;
    for format in BOTH {
        let mut saved = save(&server, Some("kept"), format).await;
        insert(&client, "kept", &format!("precious{format:?}"), &[doc! {"_id": 42}]).await;
        client.database("kept").collection::<Document>("posts").delete_one(doc! {}).await.unwrap();
        let before = contents(&client, "kept").await;
        for (spoil, reason) in [
            (Spoil::Checksum, Reason::ChecksumMismatch),
            (Spoil::CutAt(1), Reason::StoreUnreachable),
            (Spoil::CutAt(300), Reason::StoreUnreachable),
        ] {
            saved.source.spoil = Some(spoil);
            let failure = saved.restore(&server, into(None), OnExisting::Replace).await.unwrap_err();
            assert_eq!(failure.reason, reason, "{spoil:?} {failure}");
            assert_same(&contents(&client, "kept").await, &before);
            assert_eq!(leftovers(&client, "kept").await, Vec::<String>::new());
        }
        // A stream that is damaged and that no checksum catches.
        saved.source.spoil = None;
        let largest = saved.source.stored.iter_mut().max_by_key(|stored| stored.bytes.len()).unwrap();
        let middle = largest.bytes.len() / 2;
        largest.bytes[middle] ^= 1;
        if format == MongodbFormat::Archive {
            let failure = saved.restore(&server, into(None), OnExisting::Replace).await.unwrap_err();
            assert_eq!(failure.reason, Reason::SourceIncomplete, "{failure}");
            assert_same(&contents(&client, "kept").await, &before);
            assert_eq!(leftovers(&client, "kept").await, Vec::<String>::new());
        }
    }
}

/// An archive with these collections, their metadata as JSON, as a backup.
async fn archive(database: &str, collections: &[(&str, String, Vec<Document>)]) -> Saved {
    use holdfast::archive::mongodump::{ArchiveInspector, ArchiveWriter, Header, Namespace};
    let namespaces: Vec<Namespace> = collections
        .iter()
        .map(|(name, metadata, _)| Namespace {
            database: database.into(),
            collection: (*name).into(),
            metadata: metadata.clone(),
            kind: if metadata.contains("viewOn") { "view" } else { "collection" }.into(),
        })
        .collect();
    let mut bytes = Vec::new();
    let header = Header { server_version: "7.0.0".into(), tool_version: "test".into(), ..Header::default() };
    let mut writer = ArchiveWriter::begin(&header, &namespaces, &mut bytes);
    for (place, (_, _, documents)) in collections.iter().enumerate() {
        for document in documents {
            writer.documents(place, [document.to_vec().unwrap().as_slice()], &mut bytes);
        }
        writer.end(place, &mut bytes);
    }
    of_archive(database, bytes, Box::new(ArchiveInspector::new("test"))).await
}

async fn of_archive(database: &str, bytes: Vec<u8>, inspect: Box<dyn holdfast::engine::Inspect>) -> Saved {
    let mut sink = MemorySink::default();
    let metadata = ArtifactMetadata {
        format: "mongodump-archive".into(),
        database: Some(database.into()),
        ..ArtifactMetadata::default()
    };
    sink.store("stock.archive", Box::new(std::io::Cursor::new(bytes)), inspect, metadata).await.unwrap();
    Saved { manifest: sink.manifest("mongodump", "7.0.77"), source: sink.into_source() }
}

#[tokio::test]
async fn an_archive_of_the_stock_tool_is_restored() {
    use holdfast::archive::mongodump::ArchiveInspector;
    let server = Server::shared();
    let client = client(&server.uri()).await;
    let bytes = include_bytes!("fixtures/mongodump/forum.archive").to_vec();
    let mut saved = of_archive("forum", bytes, Box::new(ArchiveInspector::new("test"))).await;
    let restored = saved.restore(&server, into(Some("stock")), OnExisting::Fail).await.unwrap();
    assert!(restored.message.starts_with("4 collections, 4201 documents restored into stock"), "{}", restored.message);
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("fixtures/mongodump/forum.expected.json")).unwrap();
    let found = contents(&client, "stock").await;
    // Saved again it is the same, document by document: the hashes of these are checked where archives are read.
    let again = save(&server, Some("stock"), MongodbFormat::Archive).await;
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(found[name].documents.len() as u64, expected["documents"].as_u64().unwrap());
        assert_eq!(found[name].indexes.len(), expected["indexes"].as_array().unwrap().len());
        let count = again.manifest.artifacts[0].item_counts.iter().find(|item| item.name == format!("stock.{name}"));
        assert_eq!(count.unwrap().count, expected["documents"].as_i64().unwrap());
    }
    let mut original = archive_documents(include_bytes!("fixtures/mongodump/forum.archive"));
    let mut stored = archive_documents(&again.source.stored[0].bytes);
    original.sort();
    stored.sort();
    assert!(original == stored);
}

/// All documents of an archive, with their collections' names.
fn archive_documents(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    use holdfast::archive::mongodump::{ArchiveReader, Contents, Header, Namespace};
    #[derive(Default)]
    struct All(Vec<Namespace>, Vec<(String, Vec<u8>)>);
    impl Contents for All {
        fn prelude(&mut self, _: &Header, namespaces: &[Namespace]) -> Result<(), Failure> {
            self.0 = namespaces.to_vec();
            Ok(())
        }
        fn documents(&mut self, namespace: usize, mut documents: &[u8], _: u64) -> Result<(), Failure> {
            while let Some(length) = documents.first_chunk() {
                let (document, rest) = documents.split_at(u32::from_le_bytes(*length) as usize);
                self.1.push((self.0[namespace].collection.clone(), document.to_vec()));
                documents = rest;
            }
            Ok(())
        }
        fn end(&mut self, _: usize) -> Result<(), Failure> {
            Ok(())
        }
    }
    let mut all = All::default();
    ArchiveReader::new("test").feed(bytes, &mut all).unwrap();
    all.1
}

#[tokio::test]
async fn documents_that_the_server_refuses_are_counted_and_fail_the_restore() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    let index =
        r#"{"indexes":[{"v":{"$numberInt":"2"},"key":{"mail":{"$numberInt":"1"}},"name":"mail_1","unique":true}]}"#;
    let twice: Vec<Document> = (0..10).map(|n| doc! {"_id": n, "mail": format!("secret{}", n / 3)}).collect();
    let mut saved = archive("refused", &[("users", index.to_owned(), twice)]).await;
    let failure = saved.restore(&server, into(None), OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
    assert!(
        failure.message.contains("a unique index of users cannot be made: 9 documents share 3 keys of mail_1"),
        "{failure}"
    );
    assert!(!failure.message.contains("secret"), "{failure}");

    let same: Vec<Document> = (0..10).map(|n| doc! {"_id": n % 8}).collect();
    let mut saved = archive("refused", &[("same", String::new(), same)]).await;
    let failure = saved.restore(&server, into(None), OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
    assert!(
        failure.message.contains("of refused.same 2 documents were refused: 2 with a key that is there already"),
        "{failure}"
    );

    let validator = r#"{"options":{"validator":{"a":{"$exists":true}}},"indexes":[]}"#;
    let odd = [doc! {"_id": 1, "a": 1}, doc! {"_id": 2}, doc! {"_id": 3}];
    let mut saved = archive("refused", &[("checked", validator.to_owned(), odd.to_vec())]).await;
    let failure = saved.restore(&server, into(None), OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
    assert!(
        failure
            .message
            .contains("of refused.checked 2 documents were refused: 2 that fail the collection's validation"),
        "{failure}"
    );
    assert!(contents(&client, "refused").await.is_empty());

    let bypassing = MongodbTarget { bypass_validation: true, ..into(None) };
    saved.restore(&server, bypassing, OnExisting::Fail).await.unwrap();
    let found = contents(&client, "refused").await;
    assert_eq!(found["checked"].documents.len(), 3);
    assert!(found["checked"].options.contains_key("validator"));
}

#[tokio::test]
async fn a_connection_that_is_cut_leaves_the_target_as_it_was() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    let many: Vec<Document> = (0..20_000).map(|n| doc! {"n": n, "text": "x".repeat(500)}).collect();
    for some in many.chunks(5000) {
        insert(&client, "cutoff", "many", some).await;
    }
    for format in BOTH {
        let mut saved = save(&server, Some("cutoff"), format).await;
        let before = contents(&client, "cutoff").await;
        let way = Arc::new(Way::to(server.port));
        let uri = server.uri().replace(&server.port.to_string(), &way.port.to_string());
        way.cut_after(4_000_000);
        let uri = format!("{uri}?directConnection=true&serverSelectionTimeoutMS=1000");
        let failure = saved.restore_to(&uri, into(None), OnExisting::Replace).await.unwrap_err();
        assert!(way.is_cut());
        assert_eq!(failure.reason, Reason::SourceUnreachable, "{failure}");
        assert!(failure.message.contains("could not be dropped"), "{failure}");
        let mut found = contents(&client, "cutoff").await;
        found.retain(|name, _| !name.starts_with("holdfast_"));
        assert_same(&found, &before);
        // What could not be cleared away then is cleared away by the next.
        assert_eq!(leftovers(&client, "cutoff").await.len(), 1);
        saved.restore(&server, into(None), OnExisting::Replace).await.unwrap();
        assert_same(&contents(&client, "cutoff").await, &before);
    }
}

#[tokio::test]
async fn a_server_that_dies_fails_the_restore_and_holds_the_old_data_when_it_is_back() {
    let server = Arc::new(Server::start());
    let uri = format!("{}?serverSelectionTimeoutMS=1000", server.uri());
    let client = client(&uri).await;
    let many: Vec<Document> = (0..20_000).map(|n| doc! {"n": n, "text": "x".repeat(500)}).collect();
    for some in many.chunks(5000) {
        insert(&client, "dying", "many", some).await;
    }
    let before = contents(&client, "dying").await;
    let mut saved = save(&server, Some("dying"), MongodbFormat::Archive).await;
    let dying = server.clone();
    saved.source.spoil = Some(Spoil::CutAt(1_000_000));
    saved.source.before_end = Some(Arc::new(move || dying.kill()));
    let failure = saved.restore_to(&uri, into(None), OnExisting::Replace).await.unwrap_err();
    assert!(
        matches!(failure.reason, Reason::SourceUnreachable | Reason::StoreUnreachable | Reason::RestoreFailed),
        "{failure}"
    );
    server.start_again();
    let client = forum::client(&uri).await;
    let mut found = contents(&client, "dying").await;
    found.retain(|name, _| !name.starts_with("holdfast_"));
    assert_same(&found, &before);
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_right_touch_nothing() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    insert(&client, "guarded", "orders", &[doc! {"_id": 1}]).await;
    let mut saved = save(&server, Some("guarded"), MongodbFormat::Archive).await;
    let before = contents(&client, "guarded").await;
    let uri = server.uri_of(server::USER, "s3cret");
    let failure = saved.restore_to(&uri, into(None), OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
    assert!(!failure.message.contains("s3cret"), "{failure}");
    assert_same(&contents(&client, "guarded").await, &before);
}

#[tokio::test]
async fn empty_timestamps_stay_empty_or_are_found_out() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    let empty = bson::Timestamp { time: 0, increment: 0 };
    let document = doc! {"_id": 1, "at": empty, "in": {"at": empty}, "list": [empty], "dotted.at": 1};
    let mut saved = archive("empty", &[("events", String::new(), vec![document.clone(), doc! {"_id": 2}])]).await;
    let mut plain = archive("empty", &[("plain", String::new(), vec![doc! {"_id": 2, "list": [empty]}])]).await;
    for timestamps in [Timestamps::Passed, Timestamps::Replaced, Timestamps::AlwaysReplaced] {
        let way = Mongod::before(server.port, Kept { timestamps, ..Kept::default() });
        let uri = server.uri().replace(&server.port.to_string(), &way.port.to_string());
        let uri = format!("{uri}?directConnection=true");
        let database = format!("empty{timestamps:?}");
        insert(&client, &database, "events", &[doc! {"_id": 7}]).await;
        let before = contents(&client, &database).await;
        let restored = saved.restore_to(&uri, into(Some(&database)), OnExisting::Replace).await;
        if timestamps == Timestamps::AlwaysReplaced {
            let failure = restored.unwrap_err();
            assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
            let words = "of empty.events the server replaced Timestamp(0, 0) in field at of 1 document by the time";
            assert!(failure.message.contains(words), "{failure}");
            assert_same(&contents(&client, &database).await, &before);
        } else {
            restored.unwrap();
            let found = client.database(&database).collection::<Document>("events").find_one(doc! {"_id": 1}).await;
            assert_eq!(found.unwrap().unwrap(), document, "{timestamps:?}");
        }
        // The server of these tests takes it too.
        assert_eq!(way.kept().asked, timestamps != Timestamps::AlwaysReplaced, "{timestamps:?}");
        // Others are in nobody's way.
        plain.restore_to(&uri, into(Some(&database)), OnExisting::Replace).await.unwrap();
    }
}

#[tokio::test]
async fn a_view_that_the_target_refuses_is_found_before_anything_is_replaced() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    let view = r#"{"options":{"viewOn":"orders","pipeline":[{"$noSuchStage":{}}]},"indexes":[],"type":"view"}"#;
    let orders = vec![doc! {"_id": 1, "new": true}];
    let mut saved =
        archive("viewed", &[("orders", String::new(), orders.clone()), ("recent", view.to_owned(), vec![])]).await;
    insert(&client, "viewed", "orders", &[doc! {"_id": 7}]).await;
    let before = contents(&client, "viewed").await;
    let failure = saved.restore(&server, into(None), OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
    assert!(failure.message.contains("recent could not be made"), "{failure}");
    assert_same(&contents(&client, "viewed").await, &before);
    assert_eq!(leftovers(&client, "viewed").await, Vec::<String>::new());
    // It can be left out.
    let without = MongodbTarget { exclude_collections: vec!["recent".into()], ..into(None) };
    saved.restore(&server, without, OnExisting::Replace).await.unwrap();
    assert_eq!(contents(&client, "viewed").await["orders"].documents.len(), 1);
}

#[tokio::test]
async fn indexes_of_old_servers_come_back_as_new_ones_take_them() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    let indexes = r#"{"indexes":[{"v":{"$numberInt":"1"},"key":{"_id":{"$numberInt":"1"}},"name":"_id_"},
        {"v":{"$numberInt":"0"},"key":{"a":true,"b":{"$numberInt":"-1"}},"name":"a_b","unique":true,"safe":null,"dropDups":true},
        {"v":{"$numberInt":"1"},"key":{"c":{"$numberInt":"1"}},"name":"c_1"}]}"#;
    let documents = vec![doc! {"_id": 1, "a": 1, "b": 2, "c": 3}];
    let mut saved = archive("legacy", &[("orders", indexes.to_owned(), documents)]).await;
    let restored = saved.restore(&server, into(None), OnExisting::Fail).await.unwrap();
    let words = "index a_b of orders without dropDups, safe and v: 0, and with 1 for true as direction of a";
    assert!(restored.message.contains(words), "{}", restored.message);
    let listed = client.database("legacy").run_command(doc! {"listIndexes": "orders"}).await.unwrap();
    let listed = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
    let made = listed
        .iter()
        .filter_map(bson::Bson::as_document)
        .find(|index| index.get_str("name").is_ok_and(|name| name == "a_b"))
        .unwrap();
    assert_eq!(made.get_document("key").unwrap(), &doc! {"a": 1, "b": -1});
    assert!(made.get_bool("unique").unwrap() && !made.contains_key("safe") && !made.contains_key("dropDups"));
    let found = contents(&client, "legacy").await;
    assert_eq!(found["orders"].indexes.len(), 3);

    // One that the target does not make can be left out.
    let strange = indexes.replace(r#""c":{"$numberInt":"1"}"#, r#""c":"strange""#);
    let mut saved = archive("legacy", &[("orders", strange, vec![doc! {"_id": 1}])]).await;
    let failure = saved.restore(&server, into(None), OnExisting::Replace).await.unwrap_err();
    assert!(failure.message.contains("excludeIndexes"), "{failure}");
    assert_same(&contents(&client, "legacy").await, &found);
    let without = MongodbTarget { exclude_indexes: vec!["orders.c_*".into()], ..into(None) };
    let restored = saved.restore(&server, without, OnExisting::Replace).await.unwrap();
    assert!(restored.message.contains("index c_1 of orders was left out"), "{}", restored.message);
    assert_eq!(contents(&client, "legacy").await["orders"].indexes.len(), 2);
}

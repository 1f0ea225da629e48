//! Dumps of a real server: what is in them, and what is no dump.

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/cut.rs"]
mod cut;
#[path = "support/forum.rs"]
mod forum;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/relay.rs"]
mod relay;
#[path = "support/mongodb.rs"]
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{Document, doc};
use cut::Way;
use forum::{Secret, client, contents, every_type, fill, nowhere};
use holdfast::archive::extjson::read_document;
use holdfast::archive::mongodump::{ArchiveReader, Contents, Header, Namespace};
use holdfast::engine::{Dumped, dump};
use holdfast::task::{Failure, Mounts};
use holdfast_crds::{MongodbFormat, MongodbSource, Reason, Source};
use memory::MemorySink;
use server::Server;

async fn save(source: MongodbSource, mounts: &Mounts, sink: &mut MemorySink) -> Result<Dumped, Failure> {
    let source = Source { name: "chat".into(), mongodb: Some(source), ..Source::default() };
    dump(&source, mounts, &nowhere(), sink).await
}

fn of_database(database: &str) -> MongodbSource {
    MongodbSource { database: Some(database.into()), ..MongodbSource::default() }
}

/// What an archive holds.
#[derive(Default)]
struct Held {
    header: Header,
    namespaces: Vec<Namespace>,
    documents: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Contents for Held {
    fn prelude(&mut self, header: &Header, namespaces: &[Namespace]) -> Result<(), Failure> {
        self.header = header.clone();
        self.namespaces = namespaces.to_vec();
        Ok(())
    }

    fn documents(&mut self, namespace: usize, mut documents: &[u8], _: u64) -> Result<(), Failure> {
        let kept = self.documents.entry(self.namespaces[namespace].collection.clone()).or_default();
        while let Some(length) = documents.first_chunk() {
            let (document, rest) = documents.split_at(u32::from_le_bytes(*length) as usize);
            kept.push(document.to_vec());
            documents = rest;
        }
        Ok(())
    }

    fn end(&mut self, _: usize) -> Result<(), Failure> {
        Ok(())
    }
}

fn read(archive: &[u8]) -> Held {
    let mut reader = ArchiveReader::new("test");
    let mut held = Held::default();
    reader.feed(archive, &mut held).unwrap();
    reader.finish().unwrap();
    held
}

#[tokio::test]
async fn an_archive_holds_every_document_to_the_byte_and_every_index() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    fill(&client, "rich").await;
    let expected = contents(&client, "rich").await;
    let mut sink = MemorySink::default();
    let dumped = save(of_database("rich"), &Secret::of(&server.uri()).mounts, &mut sink).await.unwrap();
    assert_eq!(dumped.consistency, "fuzzy");
    assert!(dumped.server_version.starts_with("7.0"), "{}", dumped.server_version);
    let artifact = sink.artifact("rich.archive");
    assert_eq!(artifact.entry.format, "mongodump-archive");
    assert_eq!(artifact.entry.database.as_deref(), Some("rich"));
    let counts = sink.counts("rich.archive");
    assert_eq!(counts["rich.posts"], 3000);
    assert_eq!(counts["rich.empty"], 0);
    assert_eq!(counts["rich.recent"], 0);
    assert_eq!(counts.len(), expected.len());

    let held = read(&artifact.bytes);
    assert_eq!(held.header.server_version, dumped.server_version);
    assert_eq!(held.namespaces.len(), expected.len());
    for namespace in &held.namespaces {
        let expected = &expected[&namespace.collection];
        assert_eq!(namespace.kind, expected.kind);
        let metadata = read_document(&namespace.metadata).unwrap();
        let metadata = Document::try_from(bson::RawDocument::from_bytes(&metadata).unwrap()).unwrap();
        let told = metadata.get_array("indexes").unwrap().iter().map(|index| {
            let mut index = index.as_document().unwrap().clone();
            index.remove("storageEngine");
            index.to_string()
        });
        let mut indexes: Vec<String> = told.collect();
        indexes.sort();
        assert_eq!(indexes, expected.indexes);
        assert_eq!(metadata.get_document("options").cloned().unwrap_or_default(), expected.options);
        if namespace.kind != "view" {
            let mut documents = held.documents.get(&namespace.collection).cloned().unwrap_or_default();
            documents.sort();
            assert!(documents == expected.documents, "{}", namespace.collection);
        }
    }
    assert_eq!(held.documents["types"], [every_type().to_vec().unwrap()]);
}

#[tokio::test]
async fn a_server_is_reached_by_its_address_of_ipv6_with_and_without_brackets() {
    let server = Server::shared();
    fill(&client(&server.uri()).await, "by_ipv6").await;
    let Some(port) = relay::by_ipv6(server.port) else { return eprintln!("this machine has no IPv6") };
    let secret = Secret::of_user(server::USER, server::PASSWORD);
    for host in ["::1", "[::1]"] {
        let place = MongodbSource { host: Some(host.into()), port: Some(port.into()), ..of_database("by_ipv6") };
        let saved = save(place, &secret.mounts, &mut MemorySink::default()).await;
        assert!(saved.is_ok(), "{host}: {:?}", saved.err());
    }
    let nobody = MongodbSource { host: Some("::1".into()), port: Some(1), ..of_database("by_ipv6") };
    let refused = save(nobody, &secret.mounts, &mut MemorySink::default()).await.err().unwrap();
    assert!(refused.message.contains("[::1]:1"), "{}", refused.message);
}

#[tokio::test]
async fn all_databases_and_chosen_collections() {
    let server = Server::start();
    let client = client(&server.uri()).await;
    for (database, collection) in
        [("shop", "orders"), ("shop", "orders_tmp"), ("shop", "users"), ("forum", "users"), ("forum", "posts")]
    {
        client.database(database).collection::<Document>(collection).insert_one(doc! {"n": 1}).await.unwrap();
    }
    let secret = Secret::of_user(server::USER, server::PASSWORD);
    let place = MongodbSource {
        host: Some("127.0.0.1".into()),
        port: Some(i32::from(server.port)),
        ..MongodbSource::default()
    };
    let saved = async |source: MongodbSource| {
        let mut sink = MemorySink::default();
        save(source, &secret.mounts, &mut sink).await.unwrap();
        let counts = sink.counts("databases.archive");
        counts.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(
        saved(place.clone()).await,
        ["forum.posts", "forum.users", "shop.orders", "shop.orders_tmp", "shop.users"]
    );
    let source = MongodbSource {
        include_collections: vec!["orders*".into(), "forum.*".into()],
        exclude_collections: vec!["*_tmp".into(), "posts".into()],
        ..place.clone()
    };
    assert_eq!(saved(source).await, ["forum.users", "shop.orders"]);
    let source = MongodbSource { include_collections: vec!["nothing*".into()], ..place };
    let failure = save(source, &secret.mounts, &mut MemorySink::default()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused);
    assert!(failure.message.contains("leave nothing to save"), "{failure}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_no_backup() {
    let server = Server::shared();
    for format in [MongodbFormat::Archive, MongodbFormat::Json] {
        let mut sink = MemorySink::default();
        let source = MongodbSource { format, ..of_database("nosuch") };
        let failure = save(source, &Secret::of(&server.uri()).mounts, &mut sink).await.unwrap_err();
        assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
        assert!(failure.message.contains("database nosuch on 127.0.0.1:"), "{failure}");
        assert!(sink.stored.is_empty());
    }
}

#[tokio::test]
async fn a_wrong_password_and_a_server_that_is_not_there_are_told_apart() {
    let server = Server::shared();
    let wrong = Secret::of(&server.uri_of(server::USER, "s3cret?"));
    let failure = save(of_database("rich"), &wrong.mounts, &mut MemorySink::default()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
    assert!(failure.message.contains("check user name, password"), "{failure}");
    assert!(!failure.message.contains("s3cret"), "{failure}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let secret = Secret::of(&format!("mongodb://app:s3cret@{closed}/?serverSelectionTimeoutMS=1000"));
    let failure = save(of_database("rich"), &secret.mounts, &mut MemorySink::default()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceUnreachable, "{failure}");
    assert!(failure.message.contains(&closed.to_string()) && failure.message.contains("refused"), "{failure}");
    assert!(!failure.message.contains("s3cret"), "{failure}");
}

#[tokio::test]
async fn a_connection_that_is_cut_is_no_backup() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    let many: Vec<Document> = (0..20_000).map(|n| doc! {"n": n, "text": "x".repeat(500)}).collect();
    for some in many.chunks(5000) {
        client.database("cut").collection::<Document>("many").insert_many(some).await.unwrap();
    }
    let way = Arc::new(Way::to(server.port));
    let uri = format!("{}?directConnection=true&serverSelectionTimeoutMS=2000", server.uri())
        .replace(&server.port.to_string(), &way.port.to_string());
    let secret = Secret::of(&uri);
    let cutting = way.clone();
    let mut sink = MemorySink {
        hook: Some(Box::new(move |read| {
            if read > 2_000_000 {
                cutting.cut();
            }
        })),
        ..MemorySink::default()
    };
    let failure = save(of_database("cut"), &secret.mounts, &mut sink).await.unwrap_err();
    assert!(way.is_cut());
    assert_eq!(failure.reason, Reason::SourceUnreachable, "{failure}");
    assert!(failure.message.contains("collection many"), "{failure}");
    assert!(sink.stored.is_empty());
}

#[tokio::test]
async fn json_is_one_file_a_collection_and_a_summary() {
    let server = Server::shared();
    let client = client(&server.uri()).await;
    fill(&client, "told").await;
    let expected = contents(&client, "told").await;
    let mut sink = MemorySink::default();
    let source = MongodbSource { format: MongodbFormat::Json, ..of_database("told") };
    save(source, &Secret::of(&server.uri()).mounts, &mut sink).await.unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&sink.artifact("summary.json").bytes).unwrap();
    assert_eq!(summary["collections"].as_array().unwrap().len(), expected.len());
    let mut documents = 0;
    for entry in summary["collections"].as_array().unwrap() {
        let expected = &expected[entry["collection"].as_str().unwrap()];
        if entry["type"] == "view" {
            assert_eq!(entry.get("file"), None);
            continue;
        }
        let artifact = sink.artifact(entry["file"].as_str().unwrap());
        let text = std::str::from_utf8(&artifact.bytes).unwrap();
        let mut found: Vec<Vec<u8>> = text.lines().map(|line| read_document(line).unwrap()).collect();
        found.sort();
        assert!(found == expected.documents, "{entry}");
        assert_eq!(entry["documents"], expected.documents.len());
        assert_eq!(entry["bytes"], text.len());
        documents += expected.documents.len();
    }
    assert_eq!(summary["documents"], documents);
    let entry =
        |name: &str| summary["collections"].as_array().unwrap().iter().find(|e| e["collection"] == name).unwrap();
    assert_eq!(entry("users")["types"], serde_json::json!({"long": 1200, "string": 2400, "date": 1200}));
    assert_eq!(entry("types")["types"]["decimal"], 1);
}

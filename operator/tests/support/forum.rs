//! Databases with what dumps find hard, and what is in them.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "it is part of tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp, cstr, doc,
};
use futures::TryStreamExt;
use holdfast::task::Mounts;
use mongodb::Client;

/// A Secret with a connection string, as the kubelet mounts it.
pub struct Secret {
    _folder: tempfile::TempDir,
    pub mounts: Mounts,
}

impl Secret {
    /// People make Secrets from files that end with a newline.
    pub fn of(uri: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uri");
        std::fs::write(&path, format!("{uri}\n")).unwrap();
        Self { _folder: folder, mounts: Mounts { uri: Some(path), ..Mounts::default() } }
    }

    /// User and password, for a host and port.
    pub fn of_user(user: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("username"), user).unwrap();
        std::fs::write(folder.path().join("password"), password).unwrap();
        let credentials = Some(folder.path().to_owned());
        Self { _folder: folder, mounts: Mounts { credentials, ..Mounts::default() } }
    }
}

pub fn nowhere() -> PathBuf {
    PathBuf::from("/nonexistent")
}

pub async fn client(uri: &str) -> Client {
    Client::with_uri_str(uri).await.unwrap()
}

/// A document with every type.
pub fn every_type() -> Document {
    doc! {
        "_id": "every type",
        "double": 1.5, "infinity": f64::NEG_INFINITY, "nan": f64::NAN, "zero": -0.0,
        "string": "härte \"quoted\"\n\u{1}", "empty": "",
        "document": {"z": 1, "a": {"m": {}}, "$ref": "posts", "$id": 5},
        "array": [1, [2_i64, []], {"x": true}, Bson::Null],
        "binary": Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 255, 7] },
        "uuid": Binary { subtype: BinarySubtype::Uuid, bytes: vec![9; 16] },
        "user": Binary { subtype: BinarySubtype::UserDefined(0x90), bytes: vec![] },
        "id": ObjectId::from_bytes([0xab; 12]),
        "true": true, "false": false, "null": Bson::Null,
        "date": DateTime::from_millis(-62_135_596_800_000),
        "regex": Regex { pattern: cstr!("^a\"b").into(), options: cstr!("im").into() },
        "code": Bson::JavaScriptCode("f()".into()),
        "scoped": JavaScriptCodeWithScope { code: "g()".into(), scope: doc! {"n": 1} },
        "int": i32::MIN, "timestamp": Timestamp { time: 4_000_000_000, increment: 7 }, "long": i64::MAX,
        "decimal": "-1.50E+10".parse::<Decimal128>().unwrap(),
        "max": Bson::MaxKey, "min": Bson::MinKey,
        "dotted.key": 1,
    }
}

/// Fills a database: every type, many documents, each kind of index, a view, a validator, an empty collection, odd names.
pub async fn fill(client: &Client, database: &str) {
    let db = client.database(database);
    let insert = async |name: &str, documents: Vec<Document>| {
        for some in documents.chunks(1000) {
            db.collection::<Document>(name).insert_many(some).await.unwrap();
        }
    };
    insert("types", vec![every_type()]).await;
    insert("users", (0..1200).map(|n| doc! {"_id": n, "name": format!("user{n}"), "mail": format!("{n}@example.org"), "joined": DateTime::from_millis(n * 86_400_000)}).collect()).await;
    insert(
        "posts",
        (0..3000).map(|n| doc! {"room": n % 7, "user": n % 1200, "text": format!("lorem {n} ").repeat(5)}).collect(),
    )
    .await;
    insert("odd name é", vec![doc! {"_id": {"b": 1, "a": 2}}]).await;
    insert("fs.files", (0..2500).map(|n| doc! {"_id": n, "length": n * 3}).collect()).await;
    db.create_collection("empty").await.unwrap();
    let run = async |command: Document| db.run_command(command).await.unwrap();
    run(doc! {"create": "checked", "validator": {"$jsonSchema": {"bsonType": "object", "required": ["z", "a"]}}}).await;
    insert("checked", vec![doc! {"z": 1, "a": 2}]).await;
    run(doc! {"create": "recent", "viewOn": "posts", "pipeline": [{"$match": {"room": {"$gt": 3}}}, {"$project": {"text": 1}}]}).await;
    run(doc! {"createIndexes": "users", "indexes": [
        {"key": {"name": 1}, "name": "name_1", "unique": true},
        {"key": {"joined": -1}, "name": "joined_-1", "expireAfterSeconds": 2_000_000_000},
        {"key": {"mail": 1}, "name": "mail", "unique": true, "partialFilterExpression": {"mail": {"$exists": true}}},
    ]})
    .await;
    run(doc! {"createIndexes": "posts", "indexes": [
        {"key": {"room": 1, "user": -1}, "name": "room_1_user_-1"},
        {"key": {"user": 1}, "name": "by user", "sparse": true},
        {"key": {"text": "text"}, "name": "words"},
        {"key": {"_id": "hashed"}, "name": "hashed"},
    ]})
    .await;
    run(doc! {"createIndexes": "fs.files", "indexes": [{"key": {"length": 1}, "name": "length", "unique": true}]})
        .await;
}

/// What a database holds, so that two can be compared: of each collection its kind, options, indexes and documents to the byte.
pub async fn contents(client: &Client, database: &str) -> BTreeMap<String, Contents> {
    let db = client.database(database);
    let mut all = BTreeMap::new();
    let listed = db.run_command(doc! {"listCollections": 1, "cursor": {"batchSize": 1000}}).await.unwrap();
    for found in listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap() {
        let found = found.as_document().unwrap();
        let name = found.get_str("name").unwrap().to_owned();
        if name.starts_with("system.") {
            continue;
        }
        let kind = found.get_str("type").unwrap().to_owned();
        let mut contents =
            Contents { options: found.get_document("options").unwrap().clone(), kind, ..Contents::default() };
        if contents.kind != "view" {
            let indexes = db.run_command(doc! {"listIndexes": &name}).await.unwrap();
            let indexes = indexes.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
            // DocumentDB says of some indexes how it made them, and that depends on how it was asked.
            let told = indexes.iter().map(|index| {
                let mut index = index.as_document().unwrap().clone();
                index.remove("storageEngine");
                index.to_string()
            });
            let mut indexes: Vec<String> = told.collect();
            indexes.sort();
            contents.indexes = indexes;
        }
        let documents = db.collection::<RawDocumentBuf>(&name).find(doc! {}).await.unwrap();
        let documents: Vec<RawDocumentBuf> = documents.try_collect().await.unwrap();
        let mut documents: Vec<Vec<u8>> = documents.into_iter().map(RawDocumentBuf::into_bytes).collect();
        documents.sort();
        contents.documents = documents;
        all.insert(name, contents);
    }
    all
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub kind: String,
    pub options: Document,
    pub indexes: Vec<String>,
    pub documents: Vec<Vec<u8>>,
}

/// That two databases hold the same, without all of it in the message.
pub fn assert_same(found: &BTreeMap<String, Contents>, expected: &BTreeMap<String, Contents>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in expected {
        let found = &found[name];
        assert_eq!((&found.kind, &found.options), (&expected.kind, &expected.options), "{name}");
        assert_eq!(found.indexes, expected.indexes, "{name}");
        assert_eq!(found.documents.len(), expected.documents.len(), "{name}");
        assert!(found.documents == expected.documents, "documents of {name}");
    }
}

//! Users and roles: saved where mongodump puts them, brought back to those who asked for it, and never to the harm of others.
//!
//! The tests' server keeps none as mongod does: it is refused, and what mongod does about users stands before it (`support/mongod.rs`).

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/forum.rs"]
mod forum;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/mongod.rs"]
mod mongod;
#[path = "support/mongodb.rs"]
mod server;

use std::collections::BTreeSet;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use forum::{Secret, assert_same, client, contents, nowhere};
use holdfast::archive::mongodump::{ArchiveInspector, ArchiveReader, ArchiveWriter, Contents, Header, Namespace};
use holdfast::engine::{ArtifactMetadata, ArtifactSink, Restored, check_target, dump, restore};
use holdfast::store::manifest::Manifest;
use holdfast::task::{Failure, MongodbTarget, RestoreTarget, Target};
use holdfast_crds::{MongodbFormat, MongodbSource, OnExisting, Reason, Source};
use memory::{MemorySink, MemorySource};
use mongod::{Kept, Mongod};
use mongodb::Client;
use server::Server;

fn user(database: &str, name: &str, key: &str) -> Document {
    let identity = Binary { subtype: BinarySubtype::Uuid, bytes: vec![u8::try_from(name.len()).unwrap(); 16] };
    doc! {
        "_id": format!("{database}.{name}"), "userId": Bson::Binary(identity), "user": name, "db": database,
        "credentials": {"SCRAM-SHA-256": {"iterationCount": 15_000, "salt": "c2FsdA==", "storedKey": key, "serverKey": "c2VydmVy"}},
        "roles": [{"role": "readWrite", "db": database}],
    }
}

fn role(database: &str, name: &str) -> Document {
    let privilege = doc! {"resource": {"db": database, "collection": "orders"}, "actions": ["find"]};
    doc! {"_id": format!("{database}.{name}"), "role": name, "db": database, "privileges": [privilege], "roles": []}
}

/// Who there is at first.
fn people() -> Kept {
    Kept {
        users: vec![user("admin", "root", "r"), user("shop", "app", "old key"), user("forum", "app", "f")],
        roles: vec![role("shop", "clerk"), role("forum", "moderator")],
        ..Kept::default()
    }
}

/// A server, what mongod does about users before it, and a database with something in it.
struct Scene {
    server: Server,
    mongod: Mongod,
    client: Client,
}

impl Scene {
    async fn new() -> Self {
        let server = Server::start();
        let mongod = Mongod::before(server.port, people());
        let client = client(&server.uri()).await;
        let scene = Self { server, mongod, client };
        for database in ["shop", "forum"] {
            let orders: Vec<Document> = (0..50).map(|n| doc! {"_id": n, "of": database}).collect();
            scene.client.database(database).collection::<Document>("orders").insert_many(orders).await.unwrap();
        }
        scene
    }

    fn uri(&self) -> String {
        self.server.uri().replace(&self.server.port.to_string(), &self.mongod.port.to_string())
    }

    async fn save(&self, database: Option<&str>) -> Saved {
        save(&self.uri(), database).await.unwrap()
    }

    async fn restore(
        &self,
        saved: &mut Saved,
        into: MongodbTarget,
        on_existing: OnExisting,
    ) -> Result<Restored, Failure> {
        saved.restore(&self.uri(), into, on_existing).await
    }

    /// Whether everything that passes by is gone: also the collections that users went through.
    async fn is_clean(&self) -> bool {
        let mut names = self.client.database("admin").list_collection_names().await.unwrap();
        for database in ["shop", "forum", "copy"] {
            names.append(&mut self.client.database(database).list_collection_names().await.unwrap());
        }
        !names.iter().any(|name| name.starts_with("temp") || name.starts_with("holdfast_"))
    }
}

struct Saved {
    manifest: Manifest,
    source: MemorySource,
}

async fn save(uri: &str, database: Option<&str>) -> Result<Saved, Failure> {
    let source = MongodbSource {
        database: database.map(str::to_owned),
        include_users_and_roles: true,
        ..MongodbSource::default()
    };
    let source = Source { name: "chat".into(), mongodb: Some(source), ..Source::default() };
    let mut sink = MemorySink::default();
    let dumped = dump(&source, &Secret::of(uri).mounts, &nowhere(), &mut sink).await;
    assert!(dumped.is_ok() || sink.stored.is_empty());
    let dumped = dumped?;
    Ok(Saved { manifest: sink.manifest(&dumped.tool_version, &dumped.server_version), source: sink.into_source() })
}

impl Saved {
    async fn restore(&mut self, uri: &str, into: MongodbTarget, on_existing: OnExisting) -> Result<Restored, Failure> {
        let secret = Secret::of(uri);
        let target =
            RestoreTarget { source: "chat".into(), mounts: secret.mounts.clone(), server: Target::Mongodb(into) };
        check_target(&target, &self.manifest, on_existing, &nowhere()).await?;
        restore(&target, &self.manifest, on_existing, &nowhere(), &mut self.source).await
    }
}

fn with_users() -> MongodbTarget {
    MongodbTarget { include_users_and_roles: true, ..MongodbTarget::default() }
}

fn ids(documents: &[Document]) -> BTreeSet<String> {
    documents.iter().map(|document| document.get_str("_id").unwrap().to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The order in which an archive's documents come.
#[derive(Default)]
struct Order {
    namespaces: Vec<Namespace>,
    came: Vec<String>,
    documents: Vec<(String, Document)>,
}

impl Contents for Order {
    fn prelude(&mut self, _: &Header, namespaces: &[Namespace]) -> Result<(), Failure> {
        self.namespaces = namespaces.to_vec();
        Ok(())
    }

    fn documents(&mut self, namespace: usize, mut documents: &[u8], _: u64) -> Result<(), Failure> {
        while !documents.is_empty() {
            let name = self.namespaces[namespace].full_name();
            self.documents.push((name, Document::from_reader(&mut documents).unwrap()));
        }
        Ok(())
    }

    fn end(&mut self, namespace: usize) -> Result<(), Failure> {
        self.came.push(self.namespaces[namespace].full_name());
        Ok(())
    }
}

fn read(saved: &Saved) -> Order {
    let mut order = Order::default();
    let mut reader = ArchiveReader::new("test");
    reader.feed(&saved.source.stored[0].bytes, &mut order).unwrap();
    reader.finish().unwrap();
    order
}

#[tokio::test]
async fn users_and_roles_of_a_database_are_saved_first_and_come_back_with_it() {
    let scene = Scene::new().await;
    let mut saved = scene.save(Some("shop")).await;
    let order = read(&saved);
    let lists = ["shop.$admin.system.users", "shop.$admin.system.roles", "shop.$admin.system.version"];
    assert_eq!(order.came, [&lists[..], &["shop.orders"]].concat());
    let of = |name: &str| order.documents.iter().filter(|(n, _)| n == name).map(|(_, d)| d.clone()).collect::<Vec<_>>();
    assert_eq!(of(lists[0]), [user("shop", "app", "old key")]);
    assert_eq!(of(lists[1]), [role("shop", "clerk")]);
    assert_eq!(of(lists[2]).len(), 2);
    assert_eq!(saved.manifest.artifacts[0].properties["usersAndRoles"], "true");

    // All of it is lost, and the users of others are not.
    let before = contents(&scene.client, "shop").await;
    scene.client.database("shop").drop().await.unwrap();
    scene.mongod.change(|kept| {
        kept.users.retain(|user| user.get_str("db").ok() != Some("shop"));
        kept.roles.retain(|role| role.get_str("db").ok() != Some("shop"));
    });
    let restored = scene.restore(&mut saved, with_users(), OnExisting::Fail).await.unwrap();
    assert!(restored.message.ends_with("; 1 user and 1 role restored"), "{}", restored.message);
    assert_eq!(restored.items, 50);
    assert_same(&contents(&scene.client, "shop").await, &before);
    let (kept, expected) = (scene.mongod.kept(), people());
    assert_eq!(ids(&kept.users), ids(&expected.users));
    assert!(expected.users.iter().all(|user| kept.users.contains(user)), "{kept:?}");
    assert!(expected.roles.iter().all(|role| kept.roles.contains(role)), "{kept:?}");
    assert!(scene.is_clean().await);

    // Again, over what is there: nothing is to be done about users.
    let restored = scene.restore(&mut saved, with_users(), OnExisting::Replace).await.unwrap();
    assert!(
        restored.message.ends_with("; 0 users and 0 roles restored, 2 were there as in the backup"),
        "{}",
        restored.message
    );
    assert_eq!(scene.mongod.kept().users, kept.users);
}

#[tokio::test]
async fn a_user_who_changed_stops_the_restore_or_is_replaced_and_the_others_stay() {
    let scene = Scene::new().await;
    let mut saved = scene.save(Some("shop")).await;
    scene.client.database("shop").drop().await.unwrap();
    let later = [user("shop", "app", "new key"), user("shop", "made later", "m")];
    scene.mongod.change(|kept| {
        kept.users.retain(|user| user.get_str("db").ok() != Some("shop"));
        kept.users.extend(later.clone());
    });
    let before = scene.mongod.kept();
    let failure = scene.restore(&mut saved, with_users(), OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TargetNotEmpty, "{failure}");
    assert!(failure.message.contains("user app of shop is there already"), "{failure}");
    assert!(!failure.message.contains("key"), "{failure}");
    assert_eq!(scene.mongod.kept().users, before.users);
    assert!(contents(&scene.client, "shop").await.is_empty());

    let restored = scene.restore(&mut saved, with_users(), OnExisting::Replace).await.unwrap();
    assert!(
        restored.message.contains("1 user and 0 roles restored, 1 was there as in the backup"),
        "{}",
        restored.message
    );
    let kept = scene.mongod.kept();
    assert_eq!(ids(&kept.users), set(&["admin.root", "forum.app", "shop.app", "shop.made later"]));
    assert!(kept.users.contains(&user("shop", "app", "old key")) && kept.users.contains(&later[1]));
    assert_eq!(ids(&kept.roles), ids(&before.roles));
    assert!(scene.is_clean().await);
}

#[tokio::test]
async fn in_another_database_they_are_others_and_unasked_nobody_comes_back() {
    let scene = Scene::new().await;
    let mut saved = scene.save(Some("shop")).await;
    let copy = MongodbTarget { database: Some("copy".into()), ..MongodbTarget::default() };
    let restored = scene.restore(&mut saved, copy.clone(), OnExisting::Fail).await.unwrap();
    assert!(restored.message.contains("users and roles were left out"), "{}", restored.message);
    assert_eq!(scene.mongod.kept().users, people().users);

    let copy = MongodbTarget { include_users_and_roles: true, ..copy };
    scene.restore(&mut saved, copy, OnExisting::Replace).await.unwrap();
    let kept = scene.mongod.kept();
    assert_eq!(kept.users[..3], people().users[..]);
    let mut made = kept.users[3].clone();
    assert_ne!(made.get("userId"), user("copy", "app", "").get("userId"));
    made.insert("userId", user("copy", "app", "").get("userId").unwrap().clone());
    assert_eq!(made, user("copy", "app", "old key"));
    assert_eq!(kept.roles[2..], [role("copy", "clerk")]);
}

#[tokio::test]
async fn of_a_whole_deployment_all_come_back_but_for_the_one_who_restores() {
    let scene = Scene::new().await;
    let mut saved = scene.save(None).await;
    let lists = ["admin.system.users", "admin.system.roles", "admin.system.version"];
    assert_eq!(read(&saved).came[..3], lists);
    for database in ["shop", "forum"] {
        scene.client.database(database).drop().await.unwrap();
    }
    scene.mongod.change(|kept| {
        kept.users = vec![user("admin", "root", "changed since")];
        kept.roles.clear();
    });
    let restored = scene.restore(&mut saved, with_users(), OnExisting::Fail).await.unwrap();
    assert!(
        restored.message.ends_with("2 users and 2 roles restored, user root of admin restores and was left as it is"),
        "{}",
        restored.message
    );
    let kept = scene.mongod.kept();
    assert_eq!((ids(&kept.users), ids(&kept.roles)), (ids(&people().users), ids(&people().roles)));
    assert_eq!(kept.users[0], user("admin", "root", "changed since"));

    // Of one of its databases come that one's.
    scene.mongod.change(|kept| kept.users.truncate(1));
    let only = MongodbTarget { include_collections: vec!["forum.*".into()], ..with_users() };
    scene.restore(&mut saved, only, OnExisting::Replace).await.unwrap();
    assert_eq!(ids(&scene.mongod.kept().users), set(&["admin.root", "forum.app"]));
}

#[tokio::test]
async fn what_the_server_refuses_or_does_not_do_fails_the_restore_and_touches_no_data() {
    let scene = Scene::new().await;
    let mut saved = scene.save(Some("shop")).await;
    let orders = scene.client.database("shop").collection::<Document>("orders");
    orders.insert_one(doc! {"_id": "precious"}).await.unwrap();
    let before = contents(&scene.client, "shop").await;
    let empty = |kept: &mut Kept| kept.users.retain(|user| user.get_str("db").ok() != Some("shop"));
    scene.mongod.change(|kept| {
        empty(kept);
        kept.forbids = true;
    });
    let failure = scene.restore(&mut saved, with_users(), OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
    assert!(failure.message.contains("includeUsersAndRoles needs the role backup of admin"), "{failure}");
    assert_same(&contents(&scene.client, "shop").await, &before);
    assert!(scene.is_clean().await);

    scene.mongod.change(|kept| {
        kept.forbids = false;
        kept.loses = Some("app".into());
    });
    let failure = scene.restore(&mut saved, with_users(), OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
    assert!(failure.message.contains("user app of shop is not there"), "{failure}");
    assert_same(&contents(&scene.client, "shop").await, &before);
    assert!(scene.is_clean().await);
}

#[tokio::test]
async fn a_server_that_keeps_its_users_elsewhere_is_refused_and_none_is_left_out_in_silence() {
    let scene = Scene::new().await;
    for database in [Some("shop"), None] {
        let Err(failure) = save(&scene.server.uri(), database).await else { panic!("{database:?} was saved") };
        assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure}");
        assert!(failure.message.contains("user root of admin is not in admin.system.users"), "{failure}");
        assert!(failure.message.contains("leave out includeUsersAndRoles"), "{failure}");
    }
    let mut saved = scene.save(Some("shop")).await;
    scene.client.database("shop").drop().await.unwrap();
    let failure = saved.restore(&scene.server.uri(), with_users(), OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure}");
    assert!(contents(&scene.client, "shop").await.is_empty());
    // Without them all of the data comes back.
    let restored = saved.restore(&scene.server.uri(), MongodbTarget::default(), OnExisting::Fail).await.unwrap();
    assert!(restored.message.contains("users and roles were left out"), "{}", restored.message);

    // As JSON there are none.
    let source = MongodbSource {
        database: Some("shop".into()),
        include_users_and_roles: true,
        format: MongodbFormat::Json,
        ..MongodbSource::default()
    };
    let source = Source { name: "chat".into(), mongodb: Some(source), ..Source::default() };
    let dumped = dump(&source, &Secret::of(&scene.uri()).mounts, &nowhere(), &mut MemorySink::default()).await;
    assert_eq!(dumped.unwrap_err().reason, Reason::InvalidConfiguration);
}

/// An archive of these namespaces, as a backup.
async fn archive(namespaces: &[(&str, &str, Vec<Document>)]) -> Saved {
    let named = |(database, collection, _): &(&str, &str, Vec<Document>)| Namespace {
        database: (*database).to_owned(),
        collection: (*collection).to_owned(),
        ..Namespace::default()
    };
    let header = Header { server_version: "7.0.0".into(), tool_version: "test".into(), ..Header::default() };
    let mut bytes = Vec::new();
    let mut writer = ArchiveWriter::begin(&header, &namespaces.iter().map(named).collect::<Vec<_>>(), &mut bytes);
    for (place, (_, _, documents)) in namespaces.iter().enumerate() {
        for document in documents {
            writer.documents(place, [document.to_vec().unwrap().as_slice()], &mut bytes);
        }
        writer.end(place, &mut bytes);
    }
    let mut sink = MemorySink::default();
    let metadata = ArtifactMetadata {
        format: "mongodump-archive".into(),
        database: Some("shop".into()),
        ..ArtifactMetadata::default()
    };
    let inspect = Box::new(ArchiveInspector::new("test"));
    sink.store("stock.archive", Box::new(std::io::Cursor::new(bytes)), inspect, metadata).await.unwrap();
    Saved { manifest: sink.manifest("mongodump", "7.0.77"), source: sink.into_source() }
}

#[tokio::test]
async fn an_archive_of_the_stock_tool_brings_its_users_and_one_that_lies_brings_nobody_elses() {
    let scene = Scene::new().await;
    scene.mongod.change(|kept| *kept = Kept { users: vec![user("admin", "root", "r")], ..Kept::default() });
    let orders = || ("shop", "orders", vec![doc! {"_id": 1}]);
    let mut saved = archive(&[
        orders(),
        ("shop", "$admin.system.users", vec![user("shop", "app", "k"), user("admin", "intruder", "i")]),
        ("shop", "$admin.system.roles", vec![role("forum", "intruder")]),
        ("shop", "$admin.system.version", vec![doc! {"_id": "authSchema", "currentVersion": 5}]),
    ])
    .await;
    scene.restore(&mut saved, with_users(), OnExisting::Replace).await.unwrap();
    let kept = scene.mongod.kept();
    assert_eq!((ids(&kept.users), ids(&kept.roles)), (set(&["admin.root", "shop.app"]), set(&[])));

    let old = vec![doc! {"_id": "authSchema", "currentVersion": 3}];
    let mut saved = archive(&[orders(), ("shop", "$admin.system.version", old)]).await;
    let failure = scene.restore(&mut saved, with_users(), OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure}");
    assert!(failure.message.contains("the form 3"), "{failure}");

    let mut saved = archive(&[orders()]).await;
    let failure = scene.restore(&mut saved, with_users(), OnExisting::Replace).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure}");
    assert!(failure.message.contains("the backup holds no users and roles"), "{failure}");
    assert!(scene.is_clean().await);
}

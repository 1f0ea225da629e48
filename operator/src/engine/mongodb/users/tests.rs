//! What becomes of users and roles, as tables of values.

use bson::{doc, rawdoc};

use super::*;

fn user(database: &str, name: &str, password: &str) -> Document {
    doc! {
        "_id": format!("{database}.{name}"), "userId": identity(1), "user": name, "db": database,
        "credentials": {"SCRAM-SHA-256": {"iterationCount": 15_000, "salt": "c2FsdA==", "storedKey": password, "serverKey": "c2VydmVy"}},
        "customData": {"team": "a"},
        "roles": [{"role": "readWrite", "db": database}, {"role": "read", "db": "audit"}],
    }
}

fn role(database: &str, name: &str) -> Document {
    doc! {
        "_id": format!("{database}.{name}"), "role": name, "db": database,
        "privileges": [
            {"resource": {"db": database, "collection": "orders"}, "actions": ["find", "insert"]},
            {"resource": {"cluster": true}, "actions": ["serverStatus"]},
            {"resource": {"db": "audit", "collection": ""}, "actions": ["find"]},
        ],
        "roles": [{"role": "read", "db": database}],
    }
}

fn identity(byte: u8) -> Bson {
    Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![byte; 16] })
}

fn held(database: &str, documents: &[(List, Document)]) -> Held {
    let mut held = Held::default();
    held.begin(&Namespace { database: database.into(), ..Namespace::default() });
    for (list, document) in documents {
        held.take(*list, &RawDocumentBuf::try_from(document).unwrap()).unwrap();
    }
    held
}

fn wanted(held: &Held, databases: &[(&str, &str)], all: bool) -> Vec<Principal> {
    let databases = databases.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    held.wanted(&databases, all, || identity(7)).unwrap()
}

fn names(principals: &[Principal]) -> Vec<String> {
    principals.iter().map(|principal| name(&principal.key)).collect()
}

fn present(documents: &[(List, Document)]) -> BTreeMap<Key, Document> {
    let of =
        |(list, document): &(List, Document)| by_key(*list, vec![RawDocumentBuf::try_from(document).unwrap()]).unwrap();
    documents.iter().flat_map(of).collect()
}

fn own() -> BTreeSet<Key> {
    [(List::Users, "admin".to_owned(), "holdfast".to_owned())].into()
}

#[test]
fn an_archive_of_one_database_brings_its_own_users_and_nobody_elses() {
    let list = [
        (List::Users, user("shop", "app", "k")),
        (List::Users, user("admin", "root", "evil")),
        (List::Roles, role("shop", "clerk")),
        (List::Roles, role("forum", "clerk")),
        (List::Version, doc! {"_id": "featureCompatibilityVersion", "version": "7.0"}),
        (List::Version, doc! {"_id": "authSchema", "currentVersion": 5}),
    ];
    let held = held("shop", &list);
    for all in [false, true] {
        assert_eq!(names(&wanted(&held, &[("shop", "shop")], all)), ["user app of shop", "role clerk of shop"]);
    }
    assert_eq!(wanted(&held, &[("shop", "shop")], true)[0].document, user("shop", "app", "k"));
    assert!(wanted(&held, &[("forum2", "forum2")], true).is_empty());
}

#[test]
fn of_a_whole_deployment_come_all_or_those_of_the_databases_that_are_restored() {
    let list = [
        (List::Users, user("shop", "app", "k")),
        (List::Users, user("admin", "root", "r")),
        (List::Users, user("$external", "CN=x", "")),
        (List::Roles, role("forum", "clerk")),
    ];
    let held = held("admin", &list);
    assert_eq!(
        names(&wanted(&held, &[("shop", "shop")], true)),
        ["user CN=x of $external", "user root of admin", "user app of shop", "role clerk of forum"]
    );
    assert_eq!(names(&wanted(&held, &[("shop", "shop")], false)), ["user app of shop"]);
    assert_eq!(names(&wanted(&held, &[("shop", "copy")], false)), ["user app of copy"]);
}

#[test]
fn in_another_database_they_have_the_same_rights_there_and_an_identity_of_their_own() {
    let list = [(List::Users, user("shop", "app", "k")), (List::Roles, role("shop", "clerk"))];
    let found = wanted(&held("shop", &list), &[("shop", "copy")], false);
    let mut expected = user("copy", "app", "k");
    expected.insert("userId", identity(7));
    assert_eq!(found[0].document, expected);
    assert_eq!(found[1].document, role("copy", "clerk"));
    // Of others' databases nothing is renamed.
    assert!(found[1].document.to_string().contains("audit"));
}

#[test]
fn a_form_that_is_not_known_or_that_cannot_be_read_is_no_user() {
    let failure = |documents: &[(List, Document)]| {
        let databases = [("shop".to_owned(), "shop".to_owned())].into();
        held("shop", documents).wanted(&databases, false, || identity(7)).unwrap_err()
    };
    let old = failure(&[(List::Version, doc! {"_id": "authSchema", "currentVersion": 3})]);
    assert_eq!(old.reason, Reason::InvalidConfiguration);
    assert!(old.message.contains("the form 3") && old.message.contains("includeUsersAndRoles"), "{old}");
    for document in [doc! {"user": "app"}, doc! {"db": "shop"}, doc! {"db": 1, "user": "app"}] {
        assert_eq!(failure(&[(List::Users, document)]).reason, Reason::SourceIncomplete);
    }
    assert_eq!(failure(&[(List::Version, doc! {"_id": "authSchema"})]).reason, Reason::SourceIncomplete);
}

#[test]
fn more_than_fits_into_memory_is_refused() {
    let mut held = Held::default();
    let large = rawdoc! {"db": "shop", "user": "a", "customData": {"x": "x".repeat(5 << 20)}};
    for _ in 0..3 {
        held.take(List::Users, &large).unwrap();
    }
    let failure = held.take(List::Users, &large).unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration);
    assert!(failure.message.contains("16 MiB"), "{failure}");
}

#[test]
fn who_is_there_as_in_the_backup_is_left_alone_whatever_order_the_server_tells() {
    let mut there = user("shop", "app", "k");
    there.insert("userId", identity(3));
    there.insert("authenticationRestrictions", Bson::Array(vec![]));
    there.get_array_mut("roles").unwrap().reverse();
    let mut clerk = role("shop", "clerk");
    clerk.get_array_mut("privileges").unwrap().reverse();
    let first = clerk.get_array_mut("privileges").unwrap()[2].as_document_mut().unwrap();
    first.get_array_mut("actions").unwrap().reverse();
    let list = [(List::Users, user("shop", "app", "k")), (List::Roles, role("shop", "clerk"))];
    let found = wanted(&held("shop", &list), &[("shop", "shop")], false);
    let present = present(&[(List::Users, there), (List::Roles, clerk)]);
    for on_existing in [OnExisting::Fail, OnExisting::Replace] {
        let merge = Merge::plan(found.clone(), &present, &own(), on_existing, "here").unwrap();
        assert_eq!(merge, Merge { same: 2, ..Merge::default() });
        assert!(merge.is_empty() && merge.documents(&present).is_empty());
        assert_eq!(merge.in_words(), "0 users and 0 roles restored, 2 were there as in the backup");
    }
}

#[test]
fn who_is_there_and_is_another_stops_the_restore_or_is_replaced_and_nobody_else_is() {
    let list = [
        (List::Users, user("shop", "app", "old")),
        (List::Users, user("shop", "new", "n")),
        (List::Users, user("forum", "app", "f")),
        (List::Roles, role("shop", "clerk")),
    ];
    let databases = [("shop", "shop"), ("forum", "forum")];
    let found = wanted(&held("admin", &list), &databases, false);
    let present = present(&[
        (List::Users, user("shop", "app", "changed")),
        (List::Users, user("shop", "made later", "m")),
        (List::Users, user("forum", "made later", "m")),
        (List::Users, user("admin", "root", "r")),
        (List::Roles, role("shop", "made later")),
    ]);
    let failure = Merge::plan(found.clone(), &present, &own(), OnExisting::Fail, "mongodb at h:1").unwrap_err();
    assert_eq!(failure.reason, Reason::TargetNotEmpty);
    assert!(failure.message.starts_with("mongodb at h:1: user app of shop is there already"), "{failure}");
    assert!(failure.message.contains("onExisting: Replace"), "{failure}");
    assert!(!failure.message.contains("changed") && !failure.message.contains("old"), "{failure}");

    let merge = Merge::plan(found, &present, &own(), OnExisting::Replace, "mongodb at h:1").unwrap();
    assert_eq!(names(&merge.replace), ["user app of shop"]);
    assert_eq!(names(&merge.create), ["user app of forum", "user new of shop", "role clerk of shop"]);
    assert_eq!(merge.in_words(), "3 users and 1 role restored");
    assert_eq!(merge.databases(), [("forum", false), ("shop", true)].into());
    // Where something is replaced the others of that database go along; where nothing is they need not.
    let documents = merge.documents(&present);
    let told = |list| documents[&list].iter().map(|d| d.get_str("_id").unwrap()).collect::<BTreeSet<_>>();
    assert_eq!(told(List::Users), ["shop.app", "shop.new", "shop.made later", "forum.app"].into());
    assert_eq!(told(List::Roles), ["shop.clerk", "shop.made later"].into());
}

#[test]
fn the_user_who_restores_stays() {
    let list = [(List::Users, user("admin", "holdfast", "old")), (List::Users, user("admin", "root", "old"))];
    let found = wanted(&held("admin", &list), &[], true);
    let present = present(&[(List::Users, user("admin", "holdfast", "new"))]);
    for on_existing in [OnExisting::Fail, OnExisting::Replace] {
        let merge = Merge::plan(found.clone(), &present, &own(), on_existing, "here").unwrap();
        assert_eq!((names(&merge.create), merge.replace.len()), (vec!["user root of admin".to_owned()], 0));
        assert_eq!(
            merge.in_words(),
            "1 user and 0 roles restored, user holdfast of admin restores and was left as it is"
        );
    }
}

#[test]
fn what_the_server_did_not_do_or_did_to_others_is_found() {
    let list = [(List::Users, user("shop", "app", "k"))];
    let found = wanted(&held("shop", &list), &[("shop", "shop")], false);
    let before = present(&[(List::Users, user("shop", "other", "o"))]);
    let merge = Merge::plan(found, &before, &own(), OnExisting::Fail, "here").unwrap();
    let after = |users: &[Document]| present(&users.iter().map(|u| (List::Users, u.clone())).collect::<Vec<_>>());
    let (app, other) = (user("shop", "app", "k"), user("shop", "other", "o"));
    assert_eq!(merge.missed(&before, &after(&[app.clone(), other.clone()])), None);
    assert_eq!(merge.missed(&before, &after(std::slice::from_ref(&other))).unwrap(), "user app of shop is not there");
    let odd = user("shop", "app", "another");
    assert_eq!(merge.missed(&before, &after(&[odd, other])).unwrap(), "user app of shop is not as in the backup");
    assert_eq!(
        merge.missed(&before, &after(&[app])).unwrap(),
        "user other of shop was there before and is not any more"
    );
}

//! Users and roles of a deployment: which lists of them are saved, and how they are put into place. Talks to the server.
//!
//! Saved is what mongodump saves: the documents of `admin.system.users`, `admin.system.roles` and `admin.system.version`. Nobody may write there:
//! as mongorestore does it, they go into `admin.tempusers` and `admin.temproles`, and `_mergeAuthzCollections` takes them over. That command goes
//! on past whatever it cannot do, and with `drop` it removes who is not among what it is given: so what came of it is looked at afterwards.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use holdfast_crds::{OnExisting, Reason};
use mongodb::options::{CollectionOptions, ReadPreference, SelectionCriteria};

use super::catalogue::{Collection, Source};
use super::connection::Deployment;
use super::trouble;
use super::users::{self, Key, Merge, Principal};
use crate::archive::mongodump::{AUTH_DATABASE, AUTH_VERSION, List, Namespace, ROLES, USERS};
use crate::task::Failure;

/// Where a deployment keeps the lists, and what they are called in an archive of one database.
const LISTS: [(List, &str, &str); 3] = [
    (List::Users, "system.users", USERS),
    (List::Roles, "system.roles", ROLES),
    (List::Version, "system.version", AUTH_VERSION),
];
/// Where the server takes them from. The role `restore` has the right to these names.
const TEMPORARY: [(List, &str, &str); 2] =
    [(List::Users, "tempusers", "tempUsersCollection"), (List::Roles, "temproles", "tempRolesCollection")];
/// Users that are inserted at a time.
const AT_ONCE: usize = 1000;
/// The database of users whom another service knows.
const EXTERNAL: &str = "$external";

/// The lists of a source, to be saved before its collections: that is where mongorestore looks for them.
pub(super) async fn lists(deployment: &Deployment, database: Option<&str>) -> Result<Vec<Collection>, Failure> {
    kept(deployment).await?;
    let list = |(list, stored, dumped): (List, &str, &str)| {
        let filter = match (database, list) {
            (Some(database), List::Users | List::Roles) => doc! {"db": database},
            _ => doc! {},
        };
        let (of, name) = match database {
            // Those of `admin` are those of all: a source of `admin` itself is kept as mongodump keeps it.
            Some(database) if database != AUTH_DATABASE => (database, dumped),
            _ => (AUTH_DATABASE, stored),
        };
        Collection {
            namespace: Namespace { database: of.to_owned(), collection: name.to_owned(), ..Namespace::default() },
            bytes: 0,
            mean_bytes: None,
            capped: false,
            from: Some(Source { database: AUTH_DATABASE, collection: stored.to_owned(), filter }),
        }
    };
    Ok(LISTS.into_iter().map(list).collect())
}

/// Whether the server keeps users and roles where MongoDB does. Others that speak its protocol have them elsewhere, and nothing to read there.
pub(super) async fn kept(deployment: &Deployment) -> Result<(), Failure> {
    let found = present(deployment, List::Users, doc! {}, CollectionOptions::default()).await?;
    let own = own(deployment).await?;
    let mut told: BTreeSet<Key> = own.into_iter().filter(|(_, database, _)| database != EXTERNAL).collect();
    // Whoever may not ask is told nothing; then it is the own user that must be there.
    if let Ok(answer) =
        deployment.ask(AUTH_DATABASE, doc! {"usersInfo": {"forAllDBs": true}}, Reason::SourceRefused).await
    {
        let users = answer.get_array("users").map(Vec::as_slice).unwrap_or_default();
        told.extend(users.iter().filter_map(Bson::as_document).filter_map(key));
    }
    match told.iter().find(|key| !found.contains_key(*key)) {
        None => Ok(()),
        Some(missing) => Err(Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "{}: it is no mongod and does not keep its users where MongoDB does ({} is not in admin.system.users): neither they nor their passwords \
                 can be saved or restored: leave out includeUsersAndRoles, and make them by hand",
                deployment.place(""),
                users::name(missing)
            ),
        )),
    }
}

/// The users as whom the deployment is spoken to: as it says itself, and as the credentials say.
async fn own(deployment: &Deployment) -> Result<BTreeSet<Key>, Failure> {
    let status = deployment.ask(AUTH_DATABASE, doc! {"connectionStatus": 1}, Reason::SourceRefused).await?;
    let info = status.get_document("authInfo").ok();
    let users = info.and_then(|info| info.get_array("authenticatedUsers").ok()).map(Vec::as_slice).unwrap_or_default();
    let mut own: BTreeSet<Key> = users.iter().filter_map(Bson::as_document).filter_map(key).collect();
    own.extend(deployment.user.clone().map(|(database, name)| (List::Users, database, name)));
    Ok(own)
}

fn key(user: &Document) -> Option<Key> {
    Some((List::Users, user.get_str("db").ok()?.to_owned(), user.get_str("user").ok()?.to_owned()))
}

/// The users or roles that are there.
async fn present(
    deployment: &Deployment,
    list: List,
    filter: Document,
    options: CollectionOptions,
) -> Result<BTreeMap<Key, Document>, Failure> {
    let stored = LISTS.iter().find(|(of, _, _)| *of == list).map_or("", |(_, stored, _)| *stored);
    let collection =
        deployment.client.database(AUTH_DATABASE).collection_with_options::<RawDocumentBuf>(stored, options);
    let found: mongodb::error::Result<Vec<RawDocumentBuf>> =
        async { collection.find(filter).await?.try_collect().await }.await;
    users::by_key(list, found.map_err(|error| failure(deployment, "they cannot be read", &error))?)
}

/// All that are there of these databases.
async fn all(deployment: &Deployment, databases: &BTreeSet<&str>) -> Result<BTreeMap<Key, Document>, Failure> {
    let databases: Vec<&str> = databases.iter().copied().collect();
    let filter = doc! {"db": {"$in": databases}};
    // A secondary may not know yet what was just done.
    let primary = CollectionOptions::builder()
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .build();
    let mut all = present(deployment, List::Users, filter.clone(), primary.clone()).await?;
    all.append(&mut present(deployment, List::Roles, filter, primary).await?);
    Ok(all)
}

/// What is to be done to bring users and roles back. Touches nothing.
pub(super) async fn plan(
    deployment: &Deployment,
    wanted: Vec<Principal>,
    on_existing: OnExisting,
) -> Result<Merge, Failure> {
    let databases = wanted.iter().map(|principal| principal.key.1.as_str()).collect();
    let present = all(deployment, &databases).await?;
    Merge::plan(wanted, &present, &own(deployment).await?, on_existing, &deployment.place(""))
}

/// Does it, and looks whether it was done.
pub(super) async fn carry_out(deployment: &Deployment, merge: &Merge) -> Result<(), Failure> {
    if merge.is_empty() {
        return Ok(());
    }
    let databases = merge.databases();
    let names: BTreeSet<&str> = databases.keys().copied().collect();
    let before = all(deployment, &names).await?;
    let documents = merge.documents(&before);
    let merged = async {
        clear(deployment).await?;
        hand_over(deployment, &documents).await?;
        for (database, replace) in &databases {
            take_over(deployment, &documents, database, *replace).await?;
        }
        Ok(())
    };
    let merged: Result<(), Failure> = merged.await;
    // Passwords' hashes do not stay where others may read them, whatever happened.
    let cleared = clear(deployment).await.map_err(|mut failure| {
        failure.message.push_str("; drop admin.tempusers and admin.temproles by hand: they hold hashes of passwords");
        failure
    });
    merged.and(cleared)?;
    match merge.missed(&before, &all(deployment, &names).await?) {
        None => Ok(()),
        Some(missed) => Err(Failure::new(
            Reason::RestoreFailed,
            format!("{}: the server did not take over all users and roles: {missed}", deployment.place("")),
        )),
    }
}

/// Puts users and roles where the server takes them from.
async fn hand_over(deployment: &Deployment, documents: &BTreeMap<List, Vec<Document>>) -> Result<(), Failure> {
    for (list, name, _) in TEMPORARY {
        let collection = deployment.client.database(AUTH_DATABASE).collection::<Document>(name);
        for some in documents.get(&list).map(Vec::as_slice).unwrap_or_default().chunks(AT_ONCE) {
            let inserted = collection.insert_many(some).await;
            inserted.map_err(|error| failure(deployment, &format!("they cannot be put into admin.{name}"), &error))?;
        }
    }
    Ok(())
}

/// Lets the server take over those of one database.
async fn take_over(
    deployment: &Deployment,
    documents: &BTreeMap<List, Vec<Document>>,
    database: &str,
    replace: bool,
) -> Result<(), Failure> {
    let mut command = doc! {"_mergeAuthzCollections": 1};
    for (list, name, parameter) in TEMPORARY {
        if documents.contains_key(&list) {
            command.insert(parameter, format!("{AUTH_DATABASE}.{name}"));
        }
    }
    command.extend(doc! {"drop": replace, "db": database, "writeConcern": {"w": "majority"}});
    let merged = deployment.client.database(AUTH_DATABASE).run_command(command).await;
    merged.map(drop).map_err(|error| failure(deployment, &format!("those of {database} cannot be merged"), &error))
}

async fn clear(deployment: &Deployment) -> Result<(), Failure> {
    for (_, name, _) in TEMPORARY {
        let collection = deployment.client.database(AUTH_DATABASE).collection::<Document>(name);
        let dropped = collection.drop().await;
        dropped.map_err(|error| failure(deployment, &format!("admin.{name} cannot be dropped"), &error))?;
    }
    Ok(())
}

fn failure(deployment: &Deployment, what: &str, error: &mongodb::error::Error) -> Failure {
    let place = format!("users and roles of {}: {what}", deployment.place(""));
    let mut failure = trouble::failure(&place, Reason::RestoreFailed, error);
    if failure.reason == Reason::SourceRefused {
        failure
            .message
            .push_str("; includeUsersAndRoles needs the role backup of admin, to restore the role restore of admin");
    }
    failure
}

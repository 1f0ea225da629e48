//! What a deployment holds: databases, collections, their options and indexes. Talks to the server.

use std::collections::BTreeMap;

use bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr, doc};
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_crds::Reason;
use mongodb::raw_batch_cursor::RawBatchCursor;

use super::connection::Deployment;
use super::pattern::Choice;
use crate::archive::extjson::write_document;
use crate::archive::mongodump::{Namespace, TIME_SERIES, VIEW};
use crate::task::Failure;

/// Databases of the server's own.
pub(super) const OWN_DATABASES: [&str; 3] = ["admin", "config", "local"];
/// What collections are called that a restore has not finished.
pub(super) const STAGING: &str = "holdfast_restore_";
/// How many collections are asked about at once.
const AT_ONCE: usize = 8;

/// A collection or view, and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Collection {
    /// What the archive says of it.
    pub namespace: Namespace,
    /// Bytes of its documents, where the server tells.
    pub bytes: u64,
    /// Mean size of its documents, where the server tells.
    pub mean_bytes: Option<u64>,
    /// Whether the server overwrites its oldest documents.
    pub capped: bool,
    /// Where its documents are, if that is not what it is called.
    pub from: Option<Source>,
}

/// Where documents are that are saved under another name.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Database.
    pub database: &'static str,
    /// Collection.
    pub collection: String,
    /// Which of its documents.
    pub filter: bson::Document,
}

impl Collection {
    /// Whether it has documents of its own.
    pub fn has_data(&self) -> bool {
        self.namespace.kind != VIEW
    }
}

/// Names of the databases to save.
pub(super) async fn databases(deployment: &Deployment, one: Option<&str>) -> Result<Vec<String>, Failure> {
    if let Some(one) = one {
        return Ok(vec![one.to_owned()]);
    }
    let mut names = deployment
        .client
        .list_database_names()
        .await
        .map_err(|error| deployment.failure("", Reason::SourceRefused, &error))?;
    names.retain(|name| !OWN_DATABASES.contains(&name.as_str()));
    names.sort_unstable();
    Ok(names)
}

/// What `listCollections` says of a collection.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// Its name.
    pub name: String,
    /// `collection`, `view` or `timeseries`.
    pub kind: String,
    /// Its options.
    pub options: RawDocumentBuf,
    /// Its UUID as hex, where it has one.
    pub uuid: Option<String>,
}

/// The collections of a database that belong to its users.
pub(super) async fn listed(deployment: &Deployment, database: &str, otherwise: Reason) -> Result<Vec<Listed>, Failure> {
    let failed = |error: &mongodb::error::Error| deployment.failure(database, otherwise, error);
    let handle = deployment.client.database(database);
    let cursor = handle.list_collections().batch().await.map_err(|error| failed(&error))?;
    let mut listed = Vec::new();
    for document in documents(cursor).await.map_err(|error| failed(&error))? {
        let Some(found) = read_listed(&document) else { continue };
        // Of the server's own collections only functions are a user's.
        let own = found.name.starts_with("system.") && found.name != "system.js";
        if !own && !found.name.starts_with(STAGING) {
            listed.push(found);
        }
    }
    listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

fn read_listed(document: &RawDocument) -> Option<Listed> {
    let name = document.get_str("name").ok()?.to_owned();
    let kind = document.get_str("type").unwrap_or("collection").to_owned();
    let options = document.get_document("options").map(RawDocument::to_owned).unwrap_or_default();
    let uuid = document.get_document("info").ok().and_then(|info| info.get_binary("uuid").ok());
    let uuid = uuid.map(|uuid| uuid.bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat());
    Some(Listed { name, kind, options, uuid })
}

/// Everything that is meant, the largest first, so that what takes longest does not begin last.
pub(super) async fn collections(
    deployment: &Deployment,
    databases: &[String],
    choice: &Choice<'_>,
) -> Result<Vec<Collection>, Failure> {
    let mut wanted = Vec::new();
    for database in databases {
        for found in listed(deployment, database, Reason::SourceRefused).await? {
            if choice.takes(database, &found.name) {
                wanted.push((database.clone(), found));
            }
        }
    }
    let mut collections: Vec<Collection> = stream::iter(wanted)
        .map(|(database, found)| async move { collection(deployment, &database, &found).await })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    collections.sort_by(|a, b| {
        (b.bytes, &a.namespace.database, &a.namespace.collection).cmp(&(
            a.bytes,
            &b.namespace.database,
            &b.namespace.collection,
        ))
    });
    Ok(collections)
}

async fn collection(deployment: &Deployment, database: &str, found: &Listed) -> Result<Collection, Failure> {
    let indexes = if found.kind == VIEW { Vec::new() } else { indexes(deployment, database, &found.name).await? };
    let metadata = metadata(found, &indexes).map_err(|why| {
        Failure::new(
            Reason::DumpFailed,
            format!("{}: options or indexes of {} cannot be saved: {why}", deployment.place(database), found.name),
        )
    })?;
    let mut collection = Collection {
        namespace: Namespace {
            database: database.to_owned(),
            collection: found.name.clone(),
            metadata,
            kind: found.kind.clone(),
        },
        bytes: 0,
        mean_bytes: None,
        capped: found.options.get_bool("capped").unwrap_or(false),
        from: None,
    };
    if collection.has_data() {
        // Sizes only help to do things in a good order and in good pieces: without the right to ask it goes as well.
        let command = doc! {"collStats": collection.namespace.data_collection()};
        if let Ok(stats) = deployment.client.database(database).run_command(command).await {
            collection.bytes = number(stats.get("size"));
            let count = number(stats.get("count"));
            collection.mean_bytes = collection.bytes.checked_div(count).filter(|&mean| mean > 0);
        }
    }
    Ok(collection)
}

fn number(value: Option<&bson::Bson>) -> u64 {
    match value {
        Some(bson::Bson::Int32(number)) => u64::try_from(*number).unwrap_or_default(),
        Some(bson::Bson::Int64(number)) => u64::try_from(*number).unwrap_or_default(),
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate, and the cast saturates"
        )]
        Some(bson::Bson::Double(number)) => *number as u64,
        _ => 0,
    }
}

/// The indexes of a collection as `listIndexes` gives them; none where it has gone meanwhile.
pub(super) async fn indexes(
    deployment: &Deployment,
    database: &str,
    collection: &str,
) -> Result<Vec<RawDocumentBuf>, Failure> {
    const NO_SUCH_COLLECTION: i32 = 26;
    let handle = deployment.client.database(database).collection::<RawDocumentBuf>(collection);
    let result = match handle.list_indexes().batch().await {
        Ok(cursor) => documents(cursor).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(documents) => Ok(documents),
        Err(error) => match error.kind.as_ref() {
            mongodb::error::ErrorKind::Command(command) if command.code == NO_SUCH_COLLECTION => Ok(Vec::new()),
            _ => Err(deployment.failure(database, Reason::DumpFailed, &error)),
        },
    }
}

/// All documents of a cursor over few.
async fn documents(mut cursor: RawBatchCursor) -> mongodb::error::Result<Vec<RawDocumentBuf>> {
    let mut all = Vec::new();
    while let Some(batch) = cursor.next().await {
        let batch = batch?;
        for value in batch.doc_slices()? {
            if let RawBsonRef::Document(document) = value? {
                all.push(document.to_owned());
            }
        }
    }
    Ok(all)
}

/// Options and indexes in the form in which mongodump keeps them.
fn metadata(found: &Listed, indexes: &[RawDocumentBuf]) -> Result<String, crate::archive::extjson::Unreadable> {
    let mut document = RawDocumentBuf::new();
    if !found.options.is_empty() {
        document.append(cstr!("options"), found.options.clone());
    }
    let list: RawArrayBuf = indexes.iter().map(AsRef::<RawDocument>::as_ref).collect();
    document.append(cstr!("indexes"), list);
    if let Some(uuid) = &found.uuid {
        document.append(cstr!("uuid"), uuid.as_str());
    }
    document.append(cstr!("collectionName"), found.name.as_str());
    document.append(cstr!("type"), found.kind.as_str());
    let mut text = String::new();
    write_document(document.as_bytes(), &mut text)?;
    Ok(text)
}

/// How many of each kind there are, in words: `3 collections, 1 view`.
pub(super) fn in_words<'a>(kinds: impl IntoIterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in kinds {
        let word = match kind {
            VIEW => "view",
            TIME_SERIES => "time-series collection",
            _ => "collection",
        };
        *counts.entry(word).or_default() += 1;
    }
    let words = counts.iter().map(|(word, count)| format!("{count} {word}{}", if *count == 1 { "" } else { "s" }));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_what_mongodump_writes() {
        let index = |document: bson::Document| RawDocumentBuf::try_from(&document).unwrap();
        let found = Listed {
            name: "posts".into(),
            kind: "collection".into(),
            options: RawDocumentBuf::new(),
            uuid: Some("7e376d9e81d849fbb59c9024652fbaf8".into()),
        };
        let indexes = [
            index(doc! {"v": 2, "key": {"_id": 1}, "name": "_id_"}),
            index(
                doc! {"v": 2, "key": {"room": 1, "user": -1}, "name": "room_1_user_-1", "storageEngine": {"enableOrderedIndex": true}},
            ),
            index(
                doc! {"v": 2, "key": {"user": 1}, "name": "by user", "sparse": true, "storageEngine": {"enableOrderedIndex": true}},
            ),
        ];
        let archive = include_bytes!("../../../tests/fixtures/mongodump/forum.archive");
        let text = metadata(&found, &indexes).unwrap();
        assert!(memchr::memmem::find(archive, text.as_bytes()).is_some(), "{text}");
        let view =
            Listed { kind: VIEW.into(), options: index(doc! {"viewOn": "a", "pipeline": []}), uuid: None, ..found };
        assert_eq!(
            metadata(&view, &[]).unwrap(),
            r#"{"options":{"viewOn":"a","pipeline":[]},"indexes":[],"collectionName":"posts","type":"view"}"#
        );
    }

    #[test]
    fn kinds_are_counted_in_words() {
        assert_eq!(
            in_words(["collection", "", "view", TIME_SERIES]),
            "2 collections, 1 time-series collection, 1 view"
        );
    }
}

//! Collections beside their places: made, given their indexes, and put into place under their names. Talks to the server.

use std::fmt::Write;

use bson::{Bson, Document, RawBsonRef, RawDocument, Timestamp, doc};
use futures::TryStreamExt;
use holdfast_crds::Reason;
use mongodb::error::ErrorKind;

use super::batch::Destination;
use super::catalogue::STAGING;
use super::connection::Deployment;
use super::insert;
use super::metadata::Metadata;
use crate::task::Failure;

/// An index that must be unique over documents that are not.
const DUPLICATE_KEY: i32 = 11000;

/// What servers say that do not rename, or not into such a name: IllegalOperation, CommandNotFound, InvalidNamespace, CommandNotSupported,
/// NotImplemented.
const CANNOT_RENAME: [i32; 5] = [20, 59, 73, 115, 238];

/// What can be done about an index.
const WAY_OUT: &str = "; excludeIndexes in into restores without it";

/// The name of a collection beside its place.
pub(super) fn beside(run: &str, place: usize) -> String {
    format!("{STAGING}{run}_{place}")
}

/// Removes what restores before this one have left behind in a database.
pub(super) async fn drop_leftovers(deployment: &Deployment, database: &str) -> Result<(), Failure> {
    let names = deployment
        .client
        .database(database)
        .list_collection_names()
        .await
        .map_err(|error| deployment.failure(database, Reason::SourceRefused, &error))?;
    for name in names.iter().filter(|name| name.starts_with(STAGING)) {
        drop_collection(deployment, database, name).await?;
    }
    Ok(())
}

/// Removes a collection or view; one that is not there is no failure.
pub(super) async fn drop_collection(deployment: &Deployment, database: &str, name: &str) -> Result<(), Failure> {
    let handle = deployment.client.database(database).collection::<Document>(name);
    handle.drop().await.map_err(|error| deployment.failure(database, Reason::RestoreFailed, &error))
}

/// Makes a collection or view.
pub(super) async fn create(
    deployment: &Deployment,
    database: &str,
    collection: &str,
    name: &str,
    metadata: &Metadata,
) -> Result<(), Failure> {
    let made = deployment.client.database(database).run_raw_command(metadata.create(name)).await;
    made.map(drop).map_err(|error| {
        let place = format!("{}: {collection} could not be made", deployment.place(database));
        super::trouble::failure(&place, Reason::RestoreFailed, &error)
    })
}

/// Makes the indexes of a collection that has its documents.
pub(super) async fn index(
    deployment: &Deployment,
    database: &str,
    collection: &str,
    name: &str,
    metadata: &Metadata,
) -> Result<(), Failure> {
    let Some(command) = metadata.create_indexes(name) else { return Ok(()) };
    let Err(error) = deployment.client.database(database).run_raw_command(command).await else { return Ok(()) };
    // Not every server that speaks the protocol says of a key that is there twice that it is one: so they are counted.
    let counts = count_duplicates(deployment, database, name, metadata).await;
    let words = match error.kind.as_ref() {
        ErrorKind::Command(command) if command.code == DUPLICATE_KEY && counts.is_empty() => {
            vec!["documents share a key".to_owned()]
        }
        _ => counts,
    };
    if words.is_empty() {
        let place = format!("{}: the indexes of {collection} could not be made", deployment.place(database));
        let mut failure = super::trouble::failure(&place, Reason::RestoreFailed, &error);
        failure.message.push_str(WAY_OUT);
        return Err(failure);
    }
    Err(Failure::new(
        Reason::RestoreFailed,
        format!(
            "{}: a unique index of {collection} cannot be made: {}{WAY_OUT}",
            deployment.place(database),
            words.join("; ")
        ),
    ))
}

/// For each unique index how many documents share a key with another. What cannot be counted is left out.
async fn count_duplicates(deployment: &Deployment, database: &str, name: &str, metadata: &Metadata) -> Vec<String> {
    let collection = deployment.client.database(database).collection::<Document>(name);
    let mut told = Vec::new();
    for index in metadata.unique_indexes() {
        let Some(pipeline) = duplicates(index) else { continue };
        let Ok(cursor) = collection.aggregate(pipeline).await else { continue };
        let Ok(found) = cursor.try_collect::<Vec<Document>>().await else { continue };
        let Some(found) = found.first() else { continue };
        let number = |field: &str| match found.get(field) {
            Some(Bson::Int32(number)) => i64::from(*number),
            Some(Bson::Int64(number)) => *number,
            _ => 0,
        };
        if number("keys") > 0 {
            told.push(format!(
                "{} documents share {} keys of {}",
                number("documents"),
                number("keys"),
                index.get_str("name").unwrap_or("it")
            ));
        }
    }
    told
}

/// Counts the keys of an index that several documents have.
fn duplicates(index: &RawDocument) -> Option<Vec<Document>> {
    let mut pipeline = Vec::new();
    if let Ok(filter) = index.get_document("partialFilterExpression") {
        pipeline.push(doc! {"$match": Document::try_from(filter).ok()?});
    }
    let mut key = Document::new();
    for (position, field) in index.get_document("key").ok()?.iter().enumerate() {
        let (name, direction) = field.ok()?;
        if matches!(direction, RawBsonRef::String(_)) {
            return None;
        }
        if index.get_bool("sparse").unwrap_or(false) {
            pipeline.push(doc! {"$match": {name.as_str(): {"$exists": true}}});
        }
        key.insert(format!("k{position}"), format!("${}", name.as_str()));
    }
    pipeline.push(doc! {"$group": {"_id": key, "n": {"$sum": 1}}});
    pipeline.push(doc! {"$match": {"n": {"$gt": 1}}});
    pipeline.push(doc! {"$group": {"_id": Bson::Null, "keys": {"$sum": 1}, "documents": {"$sum": "$n"}}});
    Some(pipeline)
}

/// Whether the server takes a view, which is found out by making it beside its place, and taking it away again.
pub(super) async fn try_view(
    deployment: &Deployment,
    database: &str,
    collection: &str,
    name: &str,
    metadata: &Metadata,
) -> Result<(), Failure> {
    create(deployment, database, collection, name, metadata).await?;
    drop_collection(deployment, database, name).await
}

/// How many documents have an empty timestamp in a field; none where the server cannot be asked about a field of this name.
pub(super) async fn count_empty(
    deployment: &Deployment,
    database: &str,
    name: &str,
    field: &str,
) -> Result<Option<u64>, Failure> {
    if field.is_empty() || field.starts_with('$') || field.contains('.') {
        return Ok(None);
    }
    let empty = Timestamp { time: 0, increment: 0 };
    let filter = doc! {field: {"$eq": empty, "$not": {"$type": "array"}}};
    let counted = deployment.client.database(database).collection::<Document>(name).count_documents(filter).await;
    counted.map(Some).map_err(|error| deployment.failure(database, Reason::RestoreFailed, &error))
}

/// How many documents a collection has.
pub(super) async fn count(deployment: &Deployment, database: &str, name: &str) -> Result<u64, Failure> {
    let handle = deployment.client.database(database).collection::<Document>(name);
    handle.count_documents(doc! {}).await.map_err(|error| deployment.failure(database, Reason::RestoreFailed, &error))
}

/// Puts a collection into its place. What stood there goes in the same step, where `replaces` says that it may. Whether the server does
/// such a thing: not every one that speaks the protocol renames into every name.
pub(super) async fn into_place(
    deployment: &Deployment,
    database: &str,
    name: &str,
    collection: &str,
    replaces: bool,
) -> Result<bool, Failure> {
    let command = doc! {
        "renameCollection": format!("{database}.{name}"),
        "to": format!("{database}.{collection}"),
        "dropTarget": replaces,
    };
    match deployment.client.database("admin").run_command(command).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind.as_ref() {
            ErrorKind::Command(command) if CANNOT_RENAME.contains(&command.code) => Ok(false),
            _ => {
                let place = format!("{}: {collection} could not be put into its place", deployment.place(database));
                Err(super::trouble::failure(&place, Reason::RestoreFailed, &error))
            }
        },
    }
}

/// Copies a collection that is whole into its place, where the server cannot rename it. What stood there goes first.
pub(super) async fn copy_into_place(
    deployment: &Deployment,
    database: &str,
    name: &str,
    collection: &str,
    metadata: &Metadata,
    keeps_timestamps: bool,
) -> Result<(), Failure> {
    let copied = async {
        drop_collection(deployment, database, collection).await?;
        create(deployment, database, collection, collection, metadata).await?;
        let to = Destination {
            collection: collection.to_owned(),
            ordered: metadata.capped(),
            bypass_validation: true,
            keeps_timestamps,
        };
        let copied = insert::copy(deployment, database, name, to).await?;
        index(deployment, database, collection, collection, metadata).await?;
        let (there, here) = (count(deployment, database, name).await?, count(deployment, database, collection).await?);
        if (there, here) == (copied, copied) {
            return Ok(());
        }
        let message =
            format!("{}: {copied} of {there} documents were copied, {here} are there", deployment.place(database));
        Err(Failure::new(Reason::RestoreFailed, message))
    };
    let result: Result<(), Failure> = copied.await;
    result.map_err(|mut failure| {
        let _ = write!(failure.message, "; all of {collection} is in the collection {name} of the same database");
        failure
    })?;
    drop_collection(deployment, database, name).await
}

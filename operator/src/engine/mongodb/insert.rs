//! Inserts batches over several connections and keeps account of what the server refuses. Talks to the server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::StreamExt;
use holdfast_crds::Reason;
use mongodb::error::ErrorKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::batch::{Batch, Destination, Open};
use super::connection::Deployment;
use super::read::Documents;
use super::trouble;
use crate::task::Failure;

/// Connections that insert.
const AT_ONCE: usize = 4;
/// Documents that have a key which must be there once.
const DUPLICATE_KEY: i32 = 11000;
/// Documents that the collection's validator refuses: mongod's code, and that of DocumentDB.
const FAILED_VALIDATION: [i32; 2] = [121, 11_500_121];

/// What the server refused of one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    duplicates: u64,
    invalid: u64,
    other: u64,
    first: String,
}

impl Refused {
    fn add(&mut self, error: &Document) {
        let code = error.get_i32("code").unwrap_or_default();
        let words = error.get_str("errmsg").unwrap_or("without a word");
        let counter = if code == DUPLICATE_KEY {
            &mut self.duplicates
        } else if FAILED_VALIDATION.contains(&code) || words.contains("failed validation") {
            &mut self.invalid
        } else {
            &mut self.other
        };
        *counter += 1;
        if self.first.is_empty() {
            self.first = without_values(words);
        }
    }

    /// How many, and why: `3 documents were refused: 2 with a key that is there already, 1 that fails validation (…)`.
    pub fn in_words(&self) -> String {
        let total = self.duplicates + self.invalid + self.other;
        let kinds = [
            (self.duplicates, "with a key that is there already"),
            (self.invalid, "that fail the collection's validation"),
            (self.other, "for another reason"),
        ];
        let kinds: Vec<String> =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, words)| format!("{count} {words}")).collect();
        let documents = if total == 1 { "document was" } else { "documents were" };
        format!("{total} {documents} refused: {} ({})", kinds.join(", "), self.first)
    }
}

/// A server's words without the values of documents that it repeats.
pub(super) fn without_values(words: &str) -> String {
    let end = words.find(" dup key").unwrap_or(words.len());
    words[..end].chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What has been inserted so far. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Account {
    inserted: Arc<Vec<AtomicU64>>,
    refused: Arc<Mutex<BTreeMap<usize, Refused>>>,
    broken: Arc<AtomicBool>,
}

impl Account {
    /// For this many namespaces.
    pub fn new(namespaces: usize) -> Self {
        Self {
            inserted: Arc::new((0..namespaces).map(|_| AtomicU64::new(0)).collect()),
            refused: Arc::default(),
            broken: Arc::default(),
        }
    }

    /// How many documents of a namespace the server has taken.
    pub fn inserted(&self, place: usize) -> u64 {
        self.inserted.get(place).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// What was refused, by place.
    pub fn refused(&self) -> BTreeMap<usize, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Those who insert.
pub(super) struct Inserters {
    deployment: Deployment,
    databases: Arc<Vec<String>>,
    account: Account,
    queue: mpsc::Sender<Batch>,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Inserters {
    /// `databases` says the database of each namespace.
    pub fn start(deployment: &Deployment, databases: Vec<String>, account: &Account) -> Self {
        let (queue, batches) = mpsc::channel(1);
        let batches = Arc::new(tokio::sync::Mutex::new(batches));
        let databases = Arc::new(databases);
        let mut tasks = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (deployment, databases, account) = (deployment.clone(), databases.clone(), account.clone());
            let batches = batches.clone();
            tasks.spawn(async move {
                loop {
                    let Some(batch) = batches.lock().await.recv().await else { return Ok(()) };
                    if let Err(failure) = insert(&deployment, &databases, &account, batch).await {
                        account.broken.store(true, Ordering::Release);
                        return Err(failure);
                    }
                }
            });
        }
        Self { deployment: deployment.clone(), databases, account: account.clone(), queue, tasks }
    }

    /// Takes a batch; whether it makes sense to go on.
    pub async fn take(&mut self, batch: Batch, ordered: bool) -> Result<bool, Failure> {
        if ordered {
            insert(&self.deployment, &self.databases, &self.account, batch).await?;
            return Ok(true);
        }
        Ok(!self.account.broken.load(Ordering::Acquire) && self.queue.send(batch).await.is_ok())
    }

    /// Waits until everything has been inserted.
    pub async fn finish(self) -> Result<(), Failure> {
        let Self { queue, mut tasks, .. } = self;
        drop(queue);
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            result = result.and(ended.map_err(|e| Failure::new(Reason::RestoreFailed, e.to_string())).flatten());
        }
        result
    }
}

async fn insert(deployment: &Deployment, databases: &[String], account: &Account, batch: Batch) -> Result<(), Failure> {
    let Batch { place, command, count, .. } = batch;
    let database = databases.get(place).map(String::as_str).unwrap_or_default();
    let taken = run(deployment, database, command, count).await?;
    if let Some(inserted) = account.inserted.get(place) {
        inserted.fetch_add(taken.count, Ordering::AcqRel);
    }
    if !taken.errors.is_empty() {
        let mut refused = account.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = refused.entry(place).or_default();
        for error in &taken.errors {
            refused.add(error);
        }
    }
    Ok(())
}

/// Whether a server can be asked to leave empty timestamps as they are: it is asked to insert nothing so.
pub(super) async fn keeps_timestamps(
    deployment: &Deployment,
    database: &str,
    collection: &str,
) -> Result<bool, Failure> {
    // It has understood the command, and wants documents.
    const INVALID_LENGTH: i32 = 16;
    let command = doc! {"insert": collection, "documents": [], "bypassEmptyTsReplacement": true};
    match deployment.client.database(database).run_command(command).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind.as_ref() {
            ErrorKind::Command(command) => Ok(command.code == INVALID_LENGTH),
            _ => Err(deployment.failure(database, Reason::RestoreFailed, &error)),
        },
    }
}

/// What a server says of an insert.
struct Taken {
    count: u64,
    errors: Vec<Document>,
}

async fn run(deployment: &Deployment, database: &str, command: RawDocumentBuf, count: u64) -> Result<Taken, Failure> {
    let reply = deployment
        .client
        .database(database)
        .run_raw_command(command)
        .await
        .map_err(|error| deployment.failure(database, Reason::RestoreFailed, &error))?;
    let failed = |words: &str| {
        Failure::new(
            Reason::RestoreFailed,
            format!("{}: documents were not stored: {words}", deployment.place(database)),
        )
    };
    if let Ok(concern) = reply.get_document("writeConcernError") {
        return Err(failed(&without_values(concern.get_str("errmsg").unwrap_or("write concern"))));
    }
    let taken = match reply.get("n") {
        Some(Bson::Int32(taken)) => u64::try_from(*taken).unwrap_or_default(),
        Some(Bson::Int64(taken)) => u64::try_from(*taken).unwrap_or_default(),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of documents")]
        Some(Bson::Double(taken)) => *taken as u64,
        _ => return Err(failed("the server did not say how many it took")),
    };
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let errors: Vec<Document> = errors.iter().filter_map(Bson::as_document).cloned().collect();
    // That is no document's fault, and the next ones fare no better.
    let words = |error: &Document| error.get_str("errmsg").unwrap_or_default().to_owned();
    let is_full = |error: &&Document| trouble::is_no_space(error.get_i32("code").unwrap_or_default(), &words(error));
    if let Some(error) = errors.iter().find(is_full) {
        return Err(trouble::no_space(&deployment.place(database), &without_values(&words(error))));
    }
    if errors.is_empty() && taken != count {
        return Err(failed(&format!("the server took {taken} of {count} and did not say why")));
    }
    Ok(Taken { count: taken, errors })
}

/// Copies all documents of a collection into another one of its database, in their order; how many there were.
pub(super) async fn copy(deployment: &Deployment, database: &str, from: &str, to: Destination) -> Result<u64, Failure> {
    let failed = |error: &mongodb::error::Error| deployment.failure(database, Reason::RestoreFailed, error);
    let broken = |why: String| Failure::new(Reason::RestoreFailed, format!("{}: {why}", deployment.place(database)));
    let source = deployment.client.database(database).collection::<RawDocumentBuf>(from);
    let mut cursor = source.find(doc! {}).batch().await.map_err(|error| failed(&error))?;
    let mut copied = 0;
    let mut send = async |open: Open| -> Result<(), Failure> {
        let count = open.count();
        let taken = run(deployment, database, open.end()?, count).await?;
        copied += taken.count;
        match taken.errors.first() {
            Some(first) => Err(broken(without_values(first.get_str("errmsg").unwrap_or("a document was refused")))),
            None => Ok(()),
        }
    };
    while let Some(batch) = cursor.next().await {
        let batch = batch.map_err(|error| failed(&error))?;
        let mut at = 0;
        let mut documents = Documents::of(&batch, &mut at).map_err(broken)?;
        let mut open = Open::begin(&to);
        while let Some(document) = documents.next().map_err(broken)? {
            if !open.has_room(document.len()) {
                send(std::mem::replace(&mut open, Open::begin(&to))).await?;
            }
            open.add(document);
        }
        if open.count() > 0 {
            send(open).await?;
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_counted_by_its_kind_and_told_without_values() {
        let mut refused = Refused::default();
        refused.add(&doc! {"code": 11000, "errmsg": "E11000 duplicate key error collection: d.c index: _id_ dup key: { _id: \"x\" }"});
        refused.add(&doc! {"code": 121, "errmsg": "Document failed validation"});
        refused.add(&doc! {"code": 2, "errmsg": "odd"});
        assert_eq!(
            refused.in_words(),
            "3 documents were refused: 1 with a key that is there already, 1 that fail the collection's validation, 1 for another reason \
             (E11000 duplicate key error collection: d.c index: _id_)"
        );
    }
}

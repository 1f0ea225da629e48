//! Reads collections, several at once, in batches that pass as the server sent them. Talks to the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bson::{RawDocumentBuf, Timestamp, doc};
use futures::StreamExt;
use holdfast_crds::Reason;
use mongodb::options::SessionOptions;
use mongodb::raw_batch_cursor::RawBatch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::catalogue::Collection;
use super::connection::Deployment;
use super::trouble;
use crate::task::Failure;

/// Collections that are read at once.
pub(super) const AT_ONCE: usize = 4;
/// About how many bytes of documents are asked for at a time.
const BATCH_BYTES: u64 = 256 << 10;
/// How many documents are asked for where their size is not known.
const BATCH_DOCUMENTS: u64 = 1000;
/// Most documents that are asked for.
const MAX_BATCH_DOCUMENTS: u64 = 50_000;
/// What the batches that are under way or wait to be stored may take, in KiB. A server's answer has at most 16 MiB.
const BUDGET: u32 = 40 << 10;
/// What a batch is expected to take at most where documents are of much the same size.
const EXPECTED: u32 = 4 << 10;
/// What a server's answer can take.
const LARGEST: u32 = 16 << 10;

/// How collections are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As they were at this instant.
    Snapshot(Timestamp),
    /// As they are while they are read.
    Live,
}

/// What comes out of collections.
pub(super) enum Piece {
    /// Documents of a collection.
    Documents {
        /// Its place in the list.
        place: usize,
        /// The server's answer.
        batch: RawBatch,
        /// Its share of the memory.
        share: OwnedSemaphorePermit,
    },
    /// The end of a collection.
    End(usize),
    /// The end of all of them.
    Whole,
}

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    /// For this.
    Failed(Failure),
    /// The server has the snapshot no longer: it holds them for minutes.
    SnapshotLost(Failure),
}

/// A snapshot of the deployment, where it can be had.
pub(super) async fn snapshot(deployment: &Deployment, collections: &[Collection]) -> Option<Timestamp> {
    // Other servers that speak the protocol accept the wish and do nothing about it.
    let first =
        collections.iter().find(|c| c.has_data() && !c.capped && c.from.is_none()).filter(|_| deployment.replicated)?;
    let options = SessionOptions::builder().snapshot(true).build();
    let mut session = deployment.client.start_session().with_options(options).await.ok()?;
    let handle = deployment.client.database(&first.namespace.database);
    let collection = handle.collection::<RawDocumentBuf>(&first.namespace.data_collection());
    collection.find_one(doc! {}).session(&mut session).await.ok()?;
    session.snapshot_time()
}

/// Reads all collections that have data into `pieces`, and says there when it is done.
pub(super) async fn read(
    deployment: &Deployment,
    collections: &Arc<[Collection]>,
    reading: Reading,
    raw: bool,
    pieces: mpsc::Sender<Piece>,
) -> Result<(), Stopped> {
    let budget = Arc::new(Semaphore::new(BUDGET as usize));
    let reader =
        || Reader { deployment: deployment.clone(), reading, raw, budget: budget.clone(), pieces: pieces.clone() };
    // The lists of users and roles come whole and before all others: mongorestore reads no archive where they do not.
    let lists = collections.iter().take_while(|collection| collection.from.is_some()).count();
    for (place, list) in collections.iter().take(lists).enumerate() {
        Box::pin(reader().collection(place, list)).await?;
    }
    let next = Arc::new(AtomicUsize::new(lists));
    let mut readers = JoinSet::new();
    for _ in 0..AT_ONCE.min(collections.len() - lists) {
        let reader = reader();
        let (collections, next) = (collections.clone(), next.clone());
        readers.spawn(async move {
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(collection) = collections.get(place) else { return Ok(()) };
                reader.collection(place, collection).await?;
            }
        });
    }
    while let Some(ended) = readers.join_next().await {
        ended.map_err(|e| Stopped::Failed(Failure::new(Reason::DumpFailed, e.to_string())))??;
    }
    // Where nobody listens any more, the listener knows why.
    let _ = pieces.send(Piece::Whole).await;
    Ok(())
}

struct Reader {
    deployment: Deployment,
    reading: Reading,
    /// Time-series collections as the server stores them.
    raw: bool,
    budget: Arc<Semaphore>,
    pieces: mpsc::Sender<Piece>,
}

impl Reader {
    async fn collection(&self, place: usize, collection: &Collection) -> Result<(), Stopped> {
        if collection.has_data() {
            let result = match self.reading {
                // Neither capped collections nor the server's own lists have a history.
                Reading::Snapshot(time) if !collection.capped && collection.from.is_none() => {
                    self.at(time, place, collection).await
                }
                _ => self.live(place, collection).await,
            };
            result.map_err(|error| self.stopped(collection, &error))?;
        }
        let _ = self.pieces.send(Piece::End(place)).await;
        Ok(())
    }

    async fn live(&self, place: usize, collection: &Collection) -> mongodb::error::Result<()> {
        let handle = self.handle(collection);
        let mut share = self.expect(collection).await;
        let filter = collection.from.as_ref().map(|from| from.filter.clone()).unwrap_or_default();
        let mut cursor = handle.find(filter).batch_size(batch_size(collection)).batch().await?;
        while let Some(batch) = cursor.next().await {
            if !self.pass(place, batch?, share).await {
                return Ok(());
            }
            share = self.expect(collection).await;
        }
        Ok(())
    }

    async fn at(&self, time: Timestamp, place: usize, collection: &Collection) -> mongodb::error::Result<()> {
        let handle = self.handle(collection);
        let options = SessionOptions::builder().snapshot(true).snapshot_time(time).build();
        let mut session = self.deployment.client.start_session().with_options(options).await?;
        let mut share = self.expect(collection).await;
        let find = handle.find(doc! {}).batch_size(batch_size(collection)).session(&mut session);
        let mut cursor = find.batch().await?;
        let mut batches = cursor.stream(&mut session);
        while let Some(batch) = batches.next().await {
            if !self.pass(place, batch?, share).await {
                return Ok(());
            }
            share = self.expect(collection).await;
        }
        Ok(())
    }

    fn handle(&self, collection: &Collection) -> mongodb::Collection<RawDocumentBuf> {
        if let Some(from) = &collection.from {
            return self.deployment.client.database(from.database).collection(&from.collection);
        }
        let namespace = &collection.namespace;
        let name = if self.raw { namespace.data_collection() } else { namespace.collection.clone() };
        self.deployment.client.database(&namespace.database).collection(&name)
    }

    /// Waits for room for the next answer.
    async fn expect(&self, collection: &Collection) -> Option<OwnedSemaphorePermit> {
        let expected = if collection.mean_bytes.is_some() { EXPECTED } else { LARGEST };
        self.budget.clone().acquire_many_owned(expected).await.ok()
    }

    /// Hands a batch on, with the share of the memory that it really takes; whether anybody wants it.
    async fn pass(&self, place: usize, batch: RawBatch, share: Option<OwnedSemaphorePermit>) -> bool {
        let Some(mut share) = share else { return false };
        let kib = batch.as_raw_document().as_bytes().len().div_ceil(1024);
        let held = share.num_permits();
        if kib < held {
            drop(share.split(held - kib));
        } else if let Ok(more) = u32::try_from((kib - held).min((LARGEST - EXPECTED) as usize))
            && let Ok(more) = self.budget.clone().acquire_many_owned(more).await
        {
            share.merge(more);
        }
        self.pieces.send(Piece::Documents { place, batch, share }).await.is_ok()
    }

    fn stopped(&self, collection: &Collection, error: &mongodb::error::Error) -> Stopped {
        let place = format!(
            "collection {} of {}",
            collection.namespace.collection,
            self.deployment.place(&collection.namespace.database)
        );
        let failure = trouble::failure(&place, Reason::DumpFailed, error);
        if matches!(self.reading, Reading::Snapshot(_)) && trouble::is_about_snapshot(error) {
            Stopped::SnapshotLost(failure)
        } else {
            Stopped::Failed(failure)
        }
    }
}

fn batch_size(collection: &Collection) -> u32 {
    let documents = collection.mean_bytes.map_or(BATCH_DOCUMENTS, |mean| BATCH_BYTES / mean.max(1));
    u32::try_from(documents.clamp(1, MAX_BATCH_DOCUMENTS)).unwrap_or(1)
}

/// The documents of a batch, one after the other, from a place on that is moved along.
pub(super) struct Documents<'a> {
    array: &'a [u8],
    at: &'a mut usize,
}

impl<'a> Documents<'a> {
    /// From `at` on, which is 0 at first.
    pub fn of(batch: &'a RawBatch, at: &'a mut usize) -> Result<Self, String> {
        let array = batch.doc_slices().map_err(|error| error.to_string())?.as_bytes();
        if *at == 0 {
            *at = 4;
        }
        Ok(Self { array, at })
    }

    /// The next one; none at the end.
    ///
    /// # Errors
    /// Where the server's answer is no list of documents.
    pub fn next(&mut self) -> Result<Option<&'a [u8]>, String> {
        const DOCUMENT: u8 = 0x03;
        let rest = self.array.get(*self.at..).unwrap_or_default();
        match rest.split_first() {
            Some((0, [])) => Ok(None),
            Some((&DOCUMENT, named)) => {
                let start = memchr::memchr(0, named).map(|end| end + 1);
                let value = start.and_then(|start| named.get(start..));
                let length = value.and_then(|value| Some(u32::from_le_bytes(*value.first_chunk()?) as usize));
                let document = value.zip(length).and_then(|(value, length)| value.get(..length));
                let (Some(document), Some(start)) = (document, start) else {
                    return Err("the server's answer is damaged".to_owned());
                };
                *self.at += 1 + start + document.len();
                Ok(Some(document))
            }
            _ => Err("the server's answer is no list of documents".to_owned()),
        }
    }
}

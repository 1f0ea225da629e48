//! What an attempt has put into the bucket so far, so that it can be taken out again. Talks to the bucket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_crds::Reason;
use tracing::warn;

use crate::store::client::Bucket;
use crate::task::Failure;

/// A list of open uploads and of objects that no manifest names yet. Clones share it, so that it outlives a future that is cut short.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: Arc<Mutex<Vec<Entry>>>,
}

/// One thing to undo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A multipart upload that is open.
    Upload { key: String, id: String },
    /// An object that is there, or may be.
    Object { key: String },
}

impl Ledger {
    pub(super) fn add(&self, entry: Entry) {
        self.lock().push(entry);
    }

    /// The upload is closed: what is left of it is its object.
    pub(super) fn closed(&self, key: &str) {
        self.lock().retain(|entry| !matches!(entry, Entry::Upload { key: of, .. } if of == key));
    }

    /// Aborts the uploads of a key that an earlier try of this attempt left open, and forgets what it had put there: it is written anew.
    pub(super) async fn begin_again(&self, bucket: &Bucket, key: &str) -> Result<(), Failure> {
        let before: Vec<Entry> = {
            let mut entries = self.lock();
            let (of_key, others) = std::mem::take(&mut *entries).into_iter().partition(|entry| match entry {
                Entry::Upload { key: of, .. } | Entry::Object { key: of } => of == key,
            });
            *entries = others;
            of_key
        };
        for entry in before {
            if let Entry::Upload { id, .. } = entry {
                bucket.abort_upload(key, &id).await?;
            }
        }
        Ok(())
    }

    /// Whether there is nothing to undo.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Takes all entries: they are no longer to be undone.
    pub(in crate::worker) fn take(&self) -> Taken {
        Taken(std::mem::take(&mut *self.lock()))
    }

    /// Puts back what was taken: it is to be undone after all.
    pub(in crate::worker) fn put_back(&self, taken: Taken) {
        self.lock().extend(taken.0);
    }

    /// Aborts the uploads that are open and deletes the objects, by exact key; in a store that is append-only those stay. Goes on after a failure and tells the first, unless it is that
    /// the store does not answer.
    ///
    /// # Errors
    /// The first failure of the store; the entries are gone from the ledger all the same.
    pub async fn undo(&self, bucket: &Bucket) -> Result<(), Failure> {
        let mut result = Ok(());
        for entry in self.take().0 {
            let undone = match &entry {
                Entry::Upload { key, id } => bucket.abort_upload(key, id).await,
                // An upload may have begun whose ID never came back.
                Entry::Object { key } if bucket.is_append_only() => {
                    warn!("{key} stays if it is there, for the store is append-only: no manifest names it");
                    bucket.abort_uploads(key).await
                }
                Entry::Object { key } => bucket.abort_uploads(key).await.and(bucket.delete(key).await),
            };
            let gone = undone.as_ref().is_err_and(|failure| failure.reason == Reason::StoreUnreachable);
            result = result.and(undone);
            if gone {
                break;
            }
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        // A list stays whole whatever panicked beside it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries taken from a [`Ledger`].
#[derive(Debug)]
pub(in crate::worker) struct Taken(Vec<Entry>);

//! An extraction as a whole: what its threads share, and whether it came out right. Talks to nothing.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use holdfast_crds::Reason;
use rustix::io::Errno;

use super::beneath::Beneath;
use super::expect::Expected;
use super::place::{Placer, failed};
use crate::archive::file_index::Line;
use crate::archive::tar::{Entry, printable};
use crate::task::Failure;

/// An extraction, as those see it who wait for its end.
#[derive(Debug)]
pub(super) struct Extraction {
    /// The folder that becomes the volume's content.
    pub(super) target: Beneath,
    pub(super) expected: Expected,
    pub(super) placer: Placer,
    failure: Mutex<Option<Failure>>,
    cancelled: AtomicBool,
    finished: AtomicBool,
    under_way: Mutex<usize>,
    idle: Condvar,
    /// Entries that were taken from the archive.
    entries: AtomicU64,
    /// Files, links and pipes that were made.
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// The root's own member, for when its content is in place.
    root: Mutex<Option<Entry>>,
}

impl Extraction {
    pub(super) fn new(target: OwnedFd, expected: Expected, placer: Placer) -> Self {
        Self {
            target: Beneath::new(target),
            expected,
            placer,
            failure: Mutex::new(None),
            cancelled: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            under_way: Mutex::new(0),
            idle: Condvar::new(),
            entries: AtomicU64::new(0),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            root: Mutex::new(None),
        }
    }

    /// Why it failed, if it did on this side.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing more is to be written.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether nothing more is to be written.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Counts a member as it comes; gives its number, from 0.
    pub(super) fn next_entry(&self) -> u64 {
        self.entries.fetch_add(1, Ordering::Relaxed)
    }

    /// The archive came to its end, and everything in it has been written.
    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    /// Everything came, and it is what the list says.
    ///
    /// # Errors
    /// Where something is missing or differs.
    pub(super) fn confirm(&self) -> Result<(), Failure> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let wrong = |why: String| Failure::new(Reason::ChecksumMismatch, format!("{why}; take another backup"));
        if !self.finished.load(Ordering::Relaxed) {
            return Err(wrong("the archive broke off".to_owned()));
        }
        self.expected.confirm(self.entries.load(Ordering::Relaxed)).map_err(wrong)
    }

    /// The root's own member, if it was in the archive.
    pub(super) fn root(&self) -> Option<Entry> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the root's own member.
    pub(super) fn keep_root(&self, entry: Entry) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
    }

    /// Keeps why it fails; the first one counts.
    pub(super) fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// What an error of the file system means for this extraction.
    pub(super) fn trouble(&self, path: &[u8], error: Errno) -> Failure {
        failed(path, error, self.expected.bytes, self.target.root())
    }

    /// Compares a member that is done with the list.
    pub(super) fn tick(&self, number: u64, entry: &Entry, hash: Option<[u8; 32]>) -> Result<(), Failure> {
        if self.expected.tick(number, &Line::of(entry, hash).to_bytes()) {
            return Ok(());
        }
        Err(Failure::new(
            Reason::ChecksumMismatch,
            format!("{} is not as the list of entries has it; take another backup", printable(&entry.path)),
        ))
    }

    /// A file is handed to a writer.
    pub(super) fn begin(&self) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// A writer is done with a file.
    pub(super) fn done(&self) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.idle.notify_all();
    }

    /// Waits until no file is being written.
    pub(super) fn settle(&self) -> Result<(), Failure> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        while *under_way > 0 {
            under_way = self.idle.wait(under_way).unwrap_or_else(PoisonError::into_inner);
        }
        self.failure().map_or(Ok(()), Err)
    }
}

//! Threads that write files, side by side. Talks to the file system.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use holdfast_crds::Reason;

use super::extraction::Extraction;
use super::place::Content;
use crate::archive::tar::Entry;
use crate::task::Failure;

/// Threads that write files.
const WRITERS: usize = 4;
/// Files that wait for a writer.
const FILES_AHEAD: usize = 32;

/// A file for a writer.
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) entry: Box<Entry>,
    pub(super) folder: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    pub(super) content: Content,
}

/// The threads. They end with their value.
pub(super) struct Writers {
    shared: Arc<Extraction>,
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts them.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(super) fn start(shared: Arc<Extraction>) -> Result<Self, Failure> {
        let (jobs, receiver) = sync_channel::<Job>(FILES_AHEAD);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut writers = Self { shared, jobs: Some(jobs), threads: Vec::new() };
        for _ in 0..WRITERS {
            let (receiver, shared) = (receiver.clone(), writers.shared.clone());
            let thread = thread::Builder::new().name("volume-write".to_owned()).stack_size(512 * 1024);
            let started = thread.spawn(move || write_files(&receiver, &shared));
            writers.threads.push(
                started.map_err(|e| Failure::new(Reason::RestoreFailed, format!("no thread can be started: {e}")))?,
            );
        }
        Ok(writers)
    }

    /// Hands a file to one of them. Waits while there are many before it.
    ///
    /// # Errors
    /// Why the extraction failed, where they have ended.
    pub(super) fn dispatch(&self, job: Job) -> Result<(), Failure> {
        let gone = || Failure::new(Reason::RestoreFailed, "the writers ended before their time");
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        self.shared.begin();
        jobs.send(job).map_err(|_| {
            self.shared.done();
            self.shared.failure().unwrap_or_else(gone)
        })
    }

    /// Lets them go and waits until they have.
    pub(super) fn stop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.fail(Failure::new(Reason::RestoreFailed, "a writer ended before its time"));
            }
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn write_files(jobs: &Mutex<Receiver<Job>>, shared: &Extraction) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { number, entry, folder, name, content }) = next else { return };
        let _done = Done(shared);
        // After a failure what is queued is let go.
        if shared.failure().is_none() && !shared.is_cancelled() {
            let written = shared.placer.file(&*folder, &name, &entry, content);
            let checked = match written {
                Ok(Some(hash)) => shared.tick(number, &entry, Some(hash)),
                // The archive broke off, and those who fetch it know why.
                Ok(None) => Ok(()),
                Err(error) => Err(shared.trouble(&entry.path, error)),
            };
            if let Err(failure) = checked {
                shared.fail(failure);
            }
        }
    }
}

/// Says that a file is done, whatever became of it.
struct Done<'a>(&'a Extraction);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done();
    }
}

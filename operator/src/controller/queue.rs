//! What is to be looked at, and when: each object at most once at a time, and soon again after a failure. Acts on nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::cache::Key;

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_mins(1);

/// The kinds that are reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A Backup. First: its Jobs are what is waited for.
    Backup,
    /// A RestoreRequest.
    Restore,
    /// A BackupPolicy.
    Policy,
    /// A BackupStore.
    Store,
}

impl Subject {
    /// The kind's name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "Backup",
            Self::Restore => "RestoreRequest",
            Self::Policy => "BackupPolicy",
            Self::Store => "BackupStore",
        }
    }
}

/// One object to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// Its kind.
    pub subject: Subject,
    /// Its name.
    pub key: Key,
}

/// What is to be looked at, and when.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    due: BTreeSet<(Instant, Request)>,
    at: HashMap<Request, Instant>,
    running: HashSet<Request>,
    failures: HashMap<Request, u32>,
    closed: bool,
}

impl Queue {
    /// Looks at it now.
    pub fn now(&self, request: Request) {
        self.at(request, Instant::now());
    }

    /// Looks at it at this time, or before if that is already due.
    pub fn at(&self, request: Request, at: Instant) {
        self.state().schedule(request, at);
        self.changed.notify_one();
    }

    /// The next object that is due and that nobody else is looking at; none once the queue is closed.
    pub async fn next(&self) -> Option<Request> {
        loop {
            let changed = self.changed.notified();
            let wake = {
                let mut state = self.state();
                if state.closed {
                    // The next one waits for the same.
                    self.changed.notify_one();
                    return None;
                }
                let now = Instant::now();
                let ready = state.due.iter().take_while(|(at, _)| *at <= now);
                if let Some(found) = ready.map(|(_, r)| r).find(|r| !state.running.contains(*r)).cloned() {
                    state.take(&found);
                    // There may be more for others.
                    self.changed.notify_one();
                    return Some(found);
                }
                state.due.iter().find(|(at, _)| *at > now).map(|(at, _)| *at)
            };
            match wake {
                Some(at) => tokio::select! { () = changed => {}, () = sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// It was looked at; `again` says when to do so even if nothing happens.
    pub fn done(&self, request: Request, again: Option<Instant>) {
        let mut state = self.state();
        state.running.remove(&request);
        state.failures.remove(&request);
        if let Some(at) = again {
            state.schedule(request, at);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Looking at it failed: it is tried again, ever more seldom. Returns after how long.
    pub fn failed(&self, request: Request) -> Duration {
        let mut state = self.state();
        state.running.remove(&request);
        let failures = state.failures.entry(request.clone()).or_default();
        let delay = FIRST_RETRY.saturating_mul(1 << (*failures).min(16)).min(LAST_RETRY);
        *failures += 1;
        state.schedule(request, Instant::now() + delay);
        drop(state);
        self.changed.notify_one();
        delay
    }

    /// Hands out nothing more.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn schedule(&mut self, request: Request, at: Instant) {
        if let Some(before) = self.at.get(&request).copied() {
            if before <= at {
                return;
            }
            self.due.remove(&(before, request.clone()));
        }
        self.at.insert(request.clone(), at);
        self.due.insert((at, request));
    }

    fn take(&mut self, request: &Request) {
        if let Some(at) = self.at.remove(request) {
            self.due.remove(&(at, request.clone()));
        }
        self.running.insert(request.clone());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn request(name: &str) -> Request {
        Request { subject: Subject::Backup, key: Key::new("shop", name) }
    }

    async fn nothing(queue: &Queue, within: Duration) -> bool {
        timeout(within, queue.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_handed_out_when_it_is_due_and_once() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.at(request("a"), start + Duration::from_secs(10));
        queue.at(request("a"), start + Duration::from_secs(5));
        queue.at(request("a"), start + Duration::from_secs(7));
        assert_eq!(queue.next().await, Some(request("a")));
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.done(request("a"), None);
        assert!(nothing(&queue, Duration::from_mins(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn two_never_look_at_the_same_and_nothing_is_forgotten() {
        let queue = Queue::default();
        queue.now(request("a"));
        assert_eq!(queue.next().await, Some(request("a")));
        queue.now(request("a"));
        assert!(nothing(&queue, Duration::from_secs(1)).await);
        queue.now(request("b"));
        assert_eq!(queue.next().await, Some(request("b")));
        queue.done(request("a"), Some(Instant::now() + Duration::from_secs(100)));
        assert_eq!(timeout(Duration::from_secs(1), queue.next()).await, Ok(Some(request("a"))));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_ever_more_seldom() {
        let queue = Queue::default();
        queue.now(request("a"));
        let mut delays = vec![];
        for _ in 0..12 {
            queue.next().await;
            delays.push(queue.failed(request("a")).as_millis());
        }
        assert_eq!(&delays[..4], &[200, 400, 800, 1600]);
        assert_eq!(delays.last(), Some(&60_000));
        queue.next().await;
        queue.done(request("a"), Some(Instant::now()));
        queue.next().await;
        assert_eq!(queue.failed(request("a")).as_millis(), 200, "a success starts over");
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_learn_that_it_is_closed() {
        let queue = std::sync::Arc::new(Queue::default());
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn({
                    let queue = queue.clone();
                    async move { queue.next().await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        for task in waiting {
            assert_eq!(timeout(Duration::from_secs(1), task).await.unwrap().unwrap(), None);
        }
    }
}

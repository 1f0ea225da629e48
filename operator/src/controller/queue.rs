//! What is to be looked at, and when: each object at most once at a time, and soon again after a failure. Acts on nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::cache::Key;

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_mins(1);

/// What could not be done for an object.
#[derive(Clone, Copy, Debug)]
struct Failing {
    times: u32,
    since: Instant,
}

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
    failures: HashMap<Request, Failing>,
    /// What is to be looked at in namespaces that are not known yet.
    held: HashMap<String, HashSet<Request>>,
    /// The namespaces that are known, where those are told one by one.
    known: Option<HashSet<String>>,
    closed: bool,
}

impl Queue {
    /// A queue that hands out what is in namespaces that are known, and nothing else. See [`Queue::open`].
    pub fn closed() -> Self {
        let queue = Self::default();
        queue.state().known = Some(HashSet::new());
        queue
    }

    /// Everything in this namespace (none: in all) is known now: what has gathered is looked at.
    pub fn open(&self, namespace: Option<&str>) {
        let mut state = self.state();
        let gathered: Vec<Request> = if let Some(namespace) = namespace {
            if let Some(known) = &mut state.known {
                known.insert(namespace.to_owned());
            }
            state.held.remove(namespace).into_iter().flatten().collect()
        } else {
            state.known = None;
            std::mem::take(&mut state.held).into_values().flatten().collect()
        };
        let now = Instant::now();
        for request in gathered {
            state.schedule(request, now);
        }
        drop(state);
        self.changed.notify_one();
    }

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

    /// Looking at it failed: it is tried again, ever more seldom, and not together with all others that failed at the same time. Returns
    /// after how long. What happens to the object meanwhile makes it be looked at sooner.
    pub fn failed(&self, request: Request) -> Duration {
        let mut state = self.state();
        state.running.remove(&request);
        let now = Instant::now();
        let failing = state.failures.entry(request.clone()).or_insert(Failing { times: 0, since: now });
        let longest = FIRST_RETRY.saturating_mul(1 << failing.times.min(16)).min(LAST_RETRY);
        failing.times = failing.times.saturating_add(1);
        let delay = longest.mul_f64(0.75 + 0.25 * fastrand::f64());
        state.schedule(request, now + delay);
        drop(state);
        self.changed.notify_one();
        delay
    }

    /// For how long it has been failing.
    pub fn failing_for(&self, request: &Request) -> Duration {
        self.state().failures.get(request).map_or(Duration::ZERO, |failing| failing.since.elapsed())
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
        if self.known.as_ref().is_some_and(|known| !known.contains(&request.key.namespace)) {
            self.held.entry(request.key.namespace.clone()).or_default().insert(request);
            return;
        }
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
        let within = |delay: u128, longest: u128| (longest * 3 / 4..=longest).contains(&delay);
        for (delay, longest) in delays.iter().zip([200, 400, 800, 1600, 3200]) {
            assert!(within(*delay, longest), "{delays:?}");
        }
        assert!(within(*delays.last().unwrap(), 60_000), "{delays:?}");
        assert!(queue.failing_for(&request("a")) > Duration::from_mins(2));
        queue.next().await;
        queue.done(request("a"), Some(Instant::now()));
        assert_eq!(queue.failing_for(&request("a")), Duration::ZERO);
        queue.next().await;
        assert!(within(queue.failed(request("a")).as_millis(), 200), "a success starts over");
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_fail_together_are_not_tried_again_together() {
        let queue = Queue::default();
        let delays: HashSet<Duration> = (0..20)
            .map(|n| {
                let request = request(&format!("b{n}"));
                for _ in 0..12 {
                    queue.failed(request.clone());
                }
                queue.failed(request)
            })
            .collect();
        assert!(delays.len() > 10, "{delays:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_a_namespace_that_is_not_known_yet_holds_up_nobody_and_is_looked_at_once_it_is() {
        let queue = Queue::closed();
        let far = Request { subject: Subject::Backup, key: Key::new("far", "a") };
        queue.now(far.clone());
        queue.now(request("a"));
        assert!(nothing(&queue, Duration::from_secs(1)).await);
        queue.open(Some("shop"));
        assert_eq!(queue.next().await, Some(request("a")));
        assert!(nothing(&queue, Duration::from_mins(1)).await);
        queue.open(Some("far"));
        assert_eq!(queue.next().await, Some(far));
        let all = Queue::closed();
        all.now(request("b"));
        all.open(None);
        assert_eq!(all.next().await, Some(request("b")));
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

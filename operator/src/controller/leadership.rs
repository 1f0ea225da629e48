//! One controller acts at a time: a Lease says which. Talks to the Kubernetes API.
//!
//! The rules are those of client-go: whether another one's lease has run out is judged by when *we* last saw it change, never by the
//! other one's clock; each write carries the version that was read, so that of two only one succeeds; who cannot renew in time stops
//! before another one may start. Clocks are those that go on while the machine sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use nix::time::{ClockId, clock_gettime};

/// A lease that did not change for this long may be taken over.
pub const LEASE: Duration = Duration::from_secs(15);
/// Who could not renew for this long has lost it. A write that was begun before is over before the lease runs out.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

const RENEW: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(4);

/// Whether this process may write.
#[derive(Clone, Default)]
pub struct Leadership {
    /// Nanoseconds of boot time until which it may; 0: it may not.
    until: Arc<AtomicU64>,
}

impl Leadership {
    /// Whether it may write at this moment. A process that was frozen finds out here, before it writes.
    pub fn is_held(&self) -> bool {
        boot_time() < Duration::from_nanos(self.until.load(Ordering::SeqCst))
    }

    fn hold(&self, from: Duration) {
        let until = from.saturating_add(RENEW_DEADLINE).as_nanos();
        self.until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn drop_it(&self) {
        self.until.store(0, Ordering::SeqCst);
    }
}

/// A candidate for a Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    seen: Option<Seen>,
    leadership: Leadership,
}

/// What came of an attempt to take the lease.
enum Outcome {
    Mine,
    Anothers,
    /// Somebody else wrote at the same time.
    Again,
}

/// A Lease and when we saw it change.
struct Seen {
    lease: Lease,
    at: Duration,
}

impl Candidate {
    /// A candidate that goes by `identity`, which no other process has.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
            leadership: Leadership::default(),
        }
    }

    /// Whether it leads.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Returns once it leads.
    pub async fn acquire(&mut self) {
        loop {
            if self.attempt().await {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews for as long as it can; returns once it leads no more.
    pub async fn keep(&mut self) {
        loop {
            tokio::time::sleep(RENEW).await;
            while !self.attempt().await {
                if !self.leadership.is_held() {
                    self.leadership.drop_it();
                    return;
                }
                tokio::time::sleep(RETRY.min(Duration::from_secs(1))).await;
            }
        }
    }

    /// Gives it up, so that another one need not wait.
    pub async fn release(&mut self) {
        self.leadership.drop_it();
        let Some(seen) = &self.seen else { return };
        let mut lease = seen.lease.clone();
        if holder(&lease) != Some(&self.identity) {
            return;
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        match tokio::time::timeout(REQUEST, self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "released the lease"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "cannot release the lease"),
            Err(_) => tracing::warn!(lease = self.name, "cannot release the lease in time"),
        }
    }

    /// Takes or renews the lease once. Whether it leads.
    async fn attempt(&mut self) -> bool {
        let begun = boot_time();
        match tokio::time::timeout(REQUEST, self.take()).await {
            Ok(Ok(Outcome::Mine)) => {
                // It counts from before the request was sent: others count from when they see it.
                self.leadership.hold(begun);
                true
            }
            Ok(Ok(Outcome::Anothers)) => {
                self.leadership.drop_it();
                false
            }
            Ok(Ok(Outcome::Again)) => false,
            Ok(Err(error)) => {
                tracing::warn!(lease = self.name, %error, "cannot take or renew the lease");
                false
            }
            Err(_) => {
                tracing::warn!(lease = self.name, "cannot take or renew the lease in time");
                false
            }
        }
    }

    async fn take(&mut self) -> Result<Outcome, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.next(None)),
            };
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(lease) => Ok(self.see(lease)),
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Outcome::Again),
                Err(error) => Err(error),
            };
        };
        let before = lease.clone();
        self.notice(lease);
        if !self.is_free(&before) {
            return Ok(Outcome::Anothers);
        }
        let mut mine = before.clone();
        mine.spec = Some(self.next(before.spec.as_ref()));
        match self.api.replace(&self.name, &PostParams::default(), &mine).await {
            Ok(lease) => Ok(self.see(lease)),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(Outcome::Again),
            Err(error) => Err(error),
        }
    }

    /// Whether the lease is ours already, given up, or has run out by our own clock.
    fn is_free(&self, lease: &Lease) -> bool {
        let Some(holder) = holder(lease) else { return true };
        if *holder == self.identity {
            return true;
        }
        let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds).unwrap_or(0);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(Duration::from_secs(1));
        self.seen.as_ref().is_some_and(|seen| boot_time() >= seen.at.saturating_add(duration))
    }

    fn next(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.and_then(|b| b.holder_identity.as_ref()) == Some(&self.identity);
        let transitions = before.and_then(|b| b.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: before.and_then(|b| b.acquire_time.clone()).filter(|_| mine).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if mine || before.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    /// Remembers when the lease changed.
    fn notice(&mut self, lease: Lease) {
        if self.seen.as_ref().is_none_or(|seen| seen.lease.metadata.resource_version != lease.metadata.resource_version)
        {
            self.seen = Some(Seen { lease, at: boot_time() });
        }
    }

    fn see(&mut self, lease: Lease) -> Outcome {
        self.notice(lease);
        Outcome::Mine
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref().and_then(|s| s.holder_identity.as_ref()).filter(|h| !h.is_empty())
}

fn boot_time() -> Duration {
    // The clock is there on every Linux; were it not, nothing would be held.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

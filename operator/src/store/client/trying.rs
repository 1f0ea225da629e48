//! Sends a request again while what stops it may pass, for as long as the task's patience says. Talks to S3.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use jiff::Timestamp;
use tracing::warn;

use super::Bucket;
use super::body::Clock;
use super::patience::{self, Waiting};
use super::trouble::{Kind, Trouble};

/// What a store last said of being full, until it took something again: of the parts in flight one is told, and others stand still. Clones
/// share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Full(Arc<Mutex<Option<String>>>);

impl Full {
    fn note<T>(&self, result: &Result<T, Trouble>) {
        match result {
            Ok(_) => *self.lock() = None,
            Err(trouble) if trouble.kind == Kind::Full => *self.lock() = Some(trouble.why.clone()),
            Err(_) => {}
        }
    }

    /// The trouble, with its cause where the store has told that elsewhere.
    fn explain(&self, trouble: Trouble) -> Trouble {
        match &*self.lock() {
            Some(full) if trouble.kind == Kind::Passing => {
                Trouble { kind: Kind::Full, why: format!("{full}; and then {}", trouble.why), ..trouble }
            }
            _ => trouble,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        // A text stays whole whatever panicked beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    /// As [`retrying`](Self::retrying), of a request that stores something.
    pub(super) async fn storing<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let noted = || async {
            let result = attempt().await;
            self.full.note(&result);
            result
        };
        self.retrying(what, noted).await.map_err(|trouble| self.full.explain(trouble))
    }

    /// Does `attempt` until it succeeds, fails for good, or patience is over.
    pub(super) async fn retrying<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let mut waiting = Waiting::new();
        loop {
            // On the heap: the SDK's futures are large, and callers hold many of them.
            let trouble = match Box::pin(attempt()).await {
                Ok(value) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(trouble) => trouble,
            };
            if trouble.kind.is_answer() {
                self.answered.store(true, Ordering::Relaxed);
            }
            let Some(limit) = patience::limit(&self.patience, &trouble, self.has_answered()) else {
                return Err(trouble);
            };
            let Some(pause) = waiting.next(&trouble, limit, Instant::now(), fastrand::f64()) else {
                // It was waited for: whatever is asked of it next does not wait as long again.
                self.answered.store(false, Ordering::Relaxed);
                return Err(trouble);
            };
            warn!("cannot {what}: {}; trying again", trouble.why);
            tokio::time::sleep(pause).await;
        }
    }

    fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// How long a request or an answer may stand still.
    pub(super) fn still(&self) -> Duration {
        let still = patience::seconds(self.patience.still_seconds);
        if self.has_answered() { still } else { still / 2 }
    }

    /// A request without a body.
    pub(super) fn within<T, E>(
        &self,
        request: impl Future<Output = Sent<T, E>>,
    ) -> impl Future<Output = Result<T, Trouble>>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        within(self.still(), Box::pin(request))
    }

    /// A request with a body: it may take as long as it moves.
    pub(super) async fn moving<T, E>(
        &self,
        clock: &Clock,
        request: impl Future<Output = Sent<T, E>>,
    ) -> Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let still = self.still();
        tokio::select! {
            sent = request => sent.map_err(|e| Trouble::from_sdk(&e, Timestamp::now())),
            () = clock.stalled(still) => Err(Trouble::standstill("the request stood still for", still)),
        }
    }
}

type Sent<T, E> = Result<T, SdkError<E>>;

/// A request that must be answered in this time.
pub(super) async fn within<T, E>(limit: Duration, request: impl Future<Output = Sent<T, E>>) -> Result<T, Trouble>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match tokio::time::timeout(limit, request).await {
        Ok(sent) => sent.map_err(|e| Trouble::from_sdk(&e, Timestamp::now())),
        Err(_) => Err(Trouble::standstill("no answer within", limit)),
    }
}

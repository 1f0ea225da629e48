//! A request's body that tells when it last moved, so that a slow store is told from one that is gone. Pure but for the clock.
//!
//! The body is not in memory as far as the SDK knows, so its hash is not part of the signature (`UNSIGNED-PAYLOAD`): each part carries a
//! CRC32C and each object has its SHA-256 in the manifest, and a third hash would cost as much again.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Bytes handed to the connection at once.
const SLICE: usize = 256 << 10;

/// When a body last moved.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    start: Instant,
    /// Milliseconds after `start`.
    moved: Arc<AtomicU64>,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), moved: Arc::default() }
    }

    /// The content as a body that this clock watches.
    pub(super) fn watch(&self, content: Bytes) -> SdkBody {
        SdkBody::from_body_1_x(Watched { left: content, clock: self.clone() })
    }

    /// Returns once nothing has moved for `limit`.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let due = self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }

    fn tick(&self) {
        self.moved.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

struct Watched {
    left: Bytes,
    clock: Clock,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.clock.tick();
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.left.len().min(SLICE);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_moves_does_not_stall_and_one_that_does_not_does() {
        let clock = Clock::start();
        let mut body = Watched { left: Bytes::from(vec![0; 3 * SLICE]), clock: clock.clone() };
        let begun = Instant::now();
        let moves = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(15)).await;
                let mut context = Context::from_waker(std::task::Waker::noop());
                assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
            }
        };
        tokio::join!(moves, clock.stalled(Duration::from_secs(20)));
        assert_eq!(begun.elapsed().as_secs(), 3 * 15 + 20);
    }
}

//! How many bytes have moved, shared between those who move them and those who watch that they move. Pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A counter of moved bytes and of streams that are under way. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicU64,
    moving: AtomicUsize,
}

impl Progress {
    /// This many bytes have moved.
    pub fn add(&self, bytes: usize) {
        self.shared.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes moved so far. Only a change of it means something: a byte may count at several stations of its way.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// A stream is under way for as long as the returned value lives.
    pub fn moving(&self) -> Moving {
        self.shared.moving.fetch_add(1, Ordering::Relaxed);
        Moving { progress: self.clone() }
    }

    /// Whether any stream is under way.
    pub fn is_moving(&self) -> bool {
        self.shared.moving.load(Ordering::Relaxed) > 0
    }
}

/// A stream is under way while this lives.
#[derive(Debug)]
pub struct Moving {
    progress: Progress,
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.progress.shared.moving.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_count_and_streams_end_with_their_value() {
        let progress = Progress::default();
        let other = progress.clone();
        other.add(7);
        assert_eq!(progress.bytes(), 7);
        let (first, second) = (other.moving(), other.moving());
        drop(first);
        assert!(progress.is_moving());
        drop(second);
        assert!(!progress.is_moving());
    }
}

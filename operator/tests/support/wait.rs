//! Waiting for a condition, never for a time.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::panic, reason = "it is part of tests")]

use std::time::{Duration, Instant};

/// How long one waits between two questions. Who asks without a pause takes the processor from what it waits for.
pub const PAUSE: Duration = Duration::from_millis(10);

/// Waits for a condition, for a minute at most.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_mins(1), "{what} did not happen");
        std::thread::sleep(PAUSE);
    }
}

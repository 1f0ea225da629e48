//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Waits until `check` gives a value. It is asked again as long as it gives `Err` with what it saw; once `timeout` has passed, that is
/// what the test fails with.
#[track_caller]
pub fn wait_for<T>(what: &str, timeout: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    // Dozens wait at a time, mostly for long: who has waited a while asks more seldom.
    let mut pause = Duration::from_millis(100);
    loop {
        match check() {
            Ok(value) => return value,
            Err(seen) => {
                let waited = timeout.as_secs();
                assert!(start.elapsed() < timeout, "after {waited} s still not: {what}; last seen: {seen}");
            }
        }
        std::thread::sleep(pause);
        pause = Duration::from_millis(500).min(pause * 5 / 4);
    }
}

/// `seconds` as a duration, scaled for slow machines by HOLDFAST_E2E_PATIENCE (a factor, default 1).
pub fn seconds(seconds: u64) -> Duration {
    static PATIENCE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let factor =
        *PATIENCE.get_or_init(|| std::env::var("HOLDFAST_E2E_PATIENCE").ok().and_then(|v| v.parse().ok()).unwrap_or(1));
    Duration::from_secs(seconds * factor)
}

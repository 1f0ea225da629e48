//! How long a worker waits for its store: part of its task, because it depends on how often the Job is tried. Pure.

use serde::{Deserialize, Serialize};

/// How long a request that fails is tried again, counted from where it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorePatience {
    /// Seconds, where the store has answered this worker before, or says itself when to come again.
    pub answered_seconds: u32,
    /// Seconds, where it has not: a Job that is tried again waits between its attempts.
    pub unanswered_seconds: u32,
    /// Seconds that a request or an answer may stand still; half of it where the store has not answered yet.
    pub still_seconds: u32,
}

impl Default for StorePatience {
    fn default() -> Self {
        Self { answered_seconds: 62, unanswered_seconds: 3, still_seconds: 20 }
    }
}

impl StorePatience {
    /// Of a probe, which is tried once, and again later.
    pub fn of_probe() -> Self {
        Self { unanswered_seconds: 15, ..Self::default() }
    }

    /// Of a restore, which is tried once.
    pub fn of_restore() -> Self {
        let patience = Self::default();
        Self { unanswered_seconds: patience.answered_seconds, ..patience }
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

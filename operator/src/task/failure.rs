//! A worker's failure as data: a reason and one line a person can act on. Pure.

use holdfast_crds::Reason;

/// Why a worker could not do its task. The message names host, database or key, and what to check; it never holds a secret's value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failure {
    /// Why, in one word; it is also the exit code.
    pub reason: Reason,
    /// Why, in one line.
    pub message: String,
}

impl Failure {
    /// A failure with its line.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// The same, whose line begins with what it is about: a source, a key.
    #[must_use]
    pub fn about(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

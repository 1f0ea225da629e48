//! What a worker answers with: a small JSON document in the Pod's termination message. Pure.

mod found;

use holdfast_crds::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Failure, Writer};
pub use found::{CatalogueReport, FoundRun, Span};

/// The kubelet cuts termination messages at this many bytes.
pub const TERMINATION_MESSAGE_LIMIT: usize = 4096;

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Why it ended.
    pub reason: Reason,
    /// One line a person can act on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// What a worker did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It proved a store.
    Probe(ProbeReport),
    /// It stored a source.
    Backup(BackupReport),
    /// It restored, or tried to.
    Restore(RestoreReport),
    /// It applied retention, or deleted a run.
    Retain(RetainReport),
    /// It read what the bucket holds of a policy.
    Catalogue(CatalogueReport),
    /// It read a run to its end.
    Verify(VerifyReport),
}

/// What else was seen in a store that was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// When a listing showed that nothing of the store's namespace is in the bucket; none where something is, or where it was not to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_at: Option<Timestamp>,
    /// Of the runs that were asked for those that the store says it does not have: `<policy>/<runId>`, the first thirty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// What was read of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// Objects that were found as they were stored.
    pub objects: usize,
    /// Bytes of them in the bucket.
    pub stored_bytes: u64,
}

/// What was stored of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// The run that it was stored in before, where that is another one: the Backup has been through already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The object; of several artifacts, their manifest.
    pub key: String,
    /// Bytes in the bucket.
    pub stored_bytes: i64,
    /// Bytes before compression.
    pub source_bytes: i64,
    /// SHA-256 of the object that `key` names, hex.
    pub sha256: String,
    /// Tables, documents, keys or files.
    pub items: i64,
    /// Version of the server.
    #[serde(default)]
    pub server_version: String,
    /// Tool with its version.
    #[serde(default)]
    pub tool_version: String,
    /// Whether it is encrypted.
    #[serde(default)]
    pub encrypted: bool,
    /// `snapshot` or `fuzzy`.
    #[serde(default)]
    pub consistency: String,
}

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// The run that was found.
    #[serde(default)]
    pub run_id: String,
    /// One entry a source.
    pub sources: Vec<RestoredSource>,
}

/// What was restored of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoredSource {
    /// Name of the source.
    pub source: String,
    /// `Completed`, or why not.
    pub reason: Reason,
    /// Tables, documents, keys or files restored.
    #[serde(default)]
    pub items: i64,
    /// Bytes restored, before compression.
    #[serde(default)]
    pub restored_bytes: i64,
    /// What was restored, and what could not be kept (owners and grants of missing roles), in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetainReport {
    /// Runs whose data is gone.
    pub deleted: Vec<String>,
    /// How many complete runs stay.
    pub kept: usize,
    /// Whether more runs are due than were deleted this time.
    #[serde(default)]
    pub more: bool,
    /// How many objects went that no manifest named.
    #[serde(default)]
    pub debris: usize,
    /// How many runs that were known to be complete, and that no rule lets go, are not in the bucket.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing: usize,
    /// Controllers of another cluster with the same identity, each with when it began a run: nothing was deleted. At most eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_writers: Vec<Writer>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Report {
    /// A success.
    pub fn completed(message: impl Into<String>, outcome: Option<Outcome>) -> Self {
        Self { reason: Reason::Completed, message: message.into(), outcome }
    }

    /// The report as JSON that fits into a termination message: long texts are cut, then of the runs that were found the oldest are left
    /// out, then the list of what was deleted is.
    pub fn to_termination_message(&self) -> String {
        let mut report = self.clone();
        for limit in [1024, 512, 256, 96, 0] {
            report.cut_texts(limit);
            let json = serde_json::to_string(&report).unwrap_or_default();
            if json.len() <= TERMINATION_MESSAGE_LIMIT {
                return json;
            }
        }
        while let Some(Outcome::Catalogue(catalogue)) = &mut report.outcome
            && catalogue.leave_out_oldest()
        {
            let json = serde_json::to_string(&report).unwrap_or_default();
            if json.len() <= TERMINATION_MESSAGE_LIMIT {
                return json;
            }
        }
        report.outcome = None;
        serde_json::to_string(&report).unwrap_or_default()
    }

    /// The report in a termination message, if there is one.
    pub fn from_termination_message(text: &str) -> Option<Self> {
        serde_json::from_str(text.trim()).ok()
    }

    fn cut_texts(&mut self, limit: usize) {
        cut(&mut self.message, limit.max(256));
        if let Some(Outcome::Restore(restore)) = &mut self.outcome {
            restore.sources.iter_mut().for_each(|s| cut(&mut s.message, limit));
        }
    }
}

impl From<Failure> for Report {
    fn from(failure: Failure) -> Self {
        Self { reason: failure.reason, message: failure.message, outcome: None }
    }
}

fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit.saturating_sub(3)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_always_fits_and_reads_back() {
        let sources = (0..32)
            .map(|i| RestoredSource {
                source: format!("source-{i:02}-{}", "x".repeat(30)),
                reason: Reason::Completed,
                items: i64::MAX,
                restored_bytes: i64::MAX,
                message: "ü\"\\".repeat(500),
            })
            .collect();
        let report = Report {
            reason: Reason::RestoreFailed,
            message: "\"".repeat(5000),
            outcome: Some(Outcome::Restore(RestoreReport { run_id: "20261121T020000Z-3f9a1c".into(), sources })),
        };
        let text = report.to_termination_message();
        assert!(text.len() <= TERMINATION_MESSAGE_LIMIT, "{}", text.len());
        assert_eq!(Report::from_termination_message(&text).unwrap().reason, Reason::RestoreFailed);
    }
}

//! Reasons: why a worker ended, why an object is in its state; with the exit codes and what is tried again. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why something ended as it did. A worker's exit code and its reason stand for each other ([`Reason::exit_code`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// It did all of what it was for.
    Completed,
    /// It is over and did not do all of what it was for: the condition `Complete` says why.
    Failed,
    /// The spec asks for something that cannot be.
    InvalidConfiguration,
    /// The source or the target does not answer (network).
    SourceUnreachable,
    /// The source or the target refuses (authentication, permission, no such database).
    SourceRefused,
    /// The tool or the server ended the dump.
    DumpFailed,
    /// The tool or the server ended the restore.
    RestoreFailed,
    /// The dump is not whole (truncated, unreadable files, trailer or checksum missing).
    SourceIncomplete,
    /// The store does not answer, or not well (network, 5xx).
    StoreUnreachable,
    /// The store refuses (403, no bucket).
    StoreRefused,
    /// What is stored is not what was written.
    ChecksumMismatch,
    /// The store's clock and that of the node are too far apart.
    ClockSkew,
    /// A disk is full.
    NoSpace,
    /// The backup cannot be decrypted with the keys at hand.
    KeyMissing,
    /// The target holds data and the request says to leave it alone.
    TargetNotEmpty,
    /// No complete backup fits the request; the candidates are listed.
    NoMatchingBackup,
    /// The RestoreRequest was carried out before, as the bucket says: it never runs twice.
    AlreadyRun,
    /// No byte moved for `idleTimeoutSeconds`.
    Stalled,
    /// It took longer than `timeoutSeconds`.
    DeadlineExceeded,
    /// The run's Job is gone and left no result.
    JobVanished,
    /// The Pod found no node.
    PodUnschedulable,
    /// The Pod's image cannot be pulled.
    ImagePullFailed,
    /// A Secret or one of its keys is not there.
    SecretNotFound,
    /// A ConfigMap or one of its keys is not there.
    ConfigMapNotFound,
    /// A PersistentVolumeClaim is not there.
    ClaimNotFound,
    /// The Pod could not start, for another reason.
    PodNotStarted,
    /// The worker was killed for its memory.
    OOMKilled,
    /// The Pod was evicted, deleted, or lost with its node.
    PodLost,
    /// The policy is not there.
    PolicyNotFound,
    /// The store is not there.
    StoreNotFound,
    /// The store is not ready.
    StoreNotReady,
    /// The store is read-only.
    StoreReadOnly,
    /// The store is append-only: nothing in it is deleted.
    StoreAppendOnly,
    /// The Backup is not there.
    BackupNotFound,
    /// The schedule cannot be read.
    InvalidSchedule,
    /// The schedule is one that never comes due.
    NeverFires,
    /// There is no such time zone.
    UnknownTimeZone,
    /// The run before is not over yet.
    PreviousRunning,
    /// It is under way.
    InProgress,
    /// The store has been proved by a canary object.
    Probed,
    /// The store is being proved.
    Probing,
    /// The store refuses the credentials.
    CredentialsRejected,
    /// The bucket is not there.
    BucketNotFound,
    /// The store does not answer.
    Unreachable,
    /// It can run.
    Ready,
    /// It can run, and `suspend` keeps its schedule from starting anything.
    Suspended,
    /// It has been set.
    Configured,
    /// Nothing has been set that would do it.
    NotConfigured,
    /// Nothing has run yet, or nothing that is complete.
    NoBackupYet,
    /// Each source is in a complete backup that is young enough.
    Protected,
    /// What can be restored is older than `maxAge`.
    BackupTooOld,
    /// All of it is of one instant.
    Snapshot,
    /// It was read while it may have changed.
    Fuzzy,
    /// It is as large as the backups before it let expect.
    Plausible,
    /// It is empty, or far smaller than the backups before it.
    Suspicious,
    /// Somebody has said that it is right, however small.
    Accepted,
    /// It was read to its end and is as it was stored.
    Verified,
    /// Nothing was read through yet.
    NotVerifiedYet,
    /// As many runs as may be are under way: it waits for its turn.
    Queued,
    /// A listing of the bucket contradicts what is known: nothing was deleted.
    ListIncomplete,
    /// The data of a backup that was complete is not in the bucket any more.
    DataMissing,
    /// The data of a backup is in another place than its store says now.
    DataElsewhere,
    /// The slot of a Backup has passed: it came back without its status, and the bucket has no run of it.
    SlotPassed,
    /// Another cluster of the same identity writes to the same place: nothing was deleted.
    AnotherWriter,
    /// The API server refuses a Job.
    JobRefused,
    /// The API server refuses an object, as a quota of the namespace is used up.
    QuotaExceeded,
    /// The API server refuses something else that is needed.
    RequestRefused,
    /// The API server has not done what is needed for a minute or longer.
    RequestFailed,
}

/// Whether a failed attempt is worth another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same would happen again.
    Never,
    /// It may pass by itself.
    Again,
}

impl Reason {
    /// All reasons that a worker can end with.
    pub const OF_WORKERS: [Self; 27] = [
        Self::Completed,
        Self::InvalidConfiguration,
        Self::SourceUnreachable,
        Self::SourceRefused,
        Self::DumpFailed,
        Self::RestoreFailed,
        Self::SourceIncomplete,
        Self::StoreUnreachable,
        Self::StoreRefused,
        Self::ChecksumMismatch,
        Self::ClockSkew,
        Self::NoSpace,
        Self::KeyMissing,
        Self::TargetNotEmpty,
        Self::NoMatchingBackup,
        Self::AlreadyRun,
        Self::Stalled,
        Self::DeadlineExceeded,
        Self::ListIncomplete,
        Self::CredentialsRejected,
        Self::BucketNotFound,
        Self::Unreachable,
        Self::StoreReadOnly,
        Self::StoreAppendOnly,
        Self::PodLost,
        Self::SlotPassed,
        Self::AnotherWriter,
    ];

    /// The exit code of a worker that ends with this reason; none for reasons seen from outside only. Reasons of one kind share one: the
    /// report tells them apart, and all that share one are final or none is.
    pub fn exit_code(self) -> Option<u8> {
        Some(match self {
            Self::Completed => 0,
            Self::InvalidConfiguration => 10,
            Self::SourceUnreachable => 11,
            Self::SourceRefused => 12,
            Self::DumpFailed | Self::RestoreFailed => 13,
            Self::SourceIncomplete => 14,
            Self::StoreUnreachable | Self::Unreachable => 15,
            Self::StoreRefused
            | Self::CredentialsRejected
            | Self::BucketNotFound
            | Self::StoreReadOnly
            | Self::StoreAppendOnly
            | Self::ClockSkew => 16,
            Self::ChecksumMismatch => 17,
            Self::NoSpace => 18,
            Self::KeyMissing => 19,
            Self::TargetNotEmpty => 20,
            Self::NoMatchingBackup => 21,
            Self::Stalled => 22,
            Self::AlreadyRun => 23,
            Self::DeadlineExceeded => 24,
            Self::SlotPassed => 25,
            Self::AnotherWriter => 26,
            Self::ListIncomplete => 27,
            // What a shell says of a process that SIGTERM ended: the Pod was told to go.
            Self::PodLost => 143,
            _ => return None,
        })
    }

    /// The exit codes that end a Job at once, because the same would happen again, or there is no time left for it.
    pub const FINAL_EXIT_CODES: [i32; 12] = [10, 12, 16, 18, 19, 20, 21, 23, 24, 25, 26, 27];

    /// Whether what is stored is damaged, where a verification ended with this reason; else it could not be found out.
    pub fn is_damage(self) -> bool {
        matches!(self, Self::ChecksumMismatch | Self::SourceIncomplete)
    }

    /// Whether it says that a Pod never started: nothing was read, and nothing touched.
    pub fn is_never_started(self) -> bool {
        matches!(
            self,
            Self::SecretNotFound
                | Self::ConfigMapNotFound
                | Self::ClaimNotFound
                | Self::ImagePullFailed
                | Self::PodUnschedulable
                | Self::PodNotStarted
        )
    }

    /// Whether the API server did not do what is needed: nothing has started, and it is asked again.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::JobRefused | Self::QuotaExceeded | Self::RequestRefused | Self::RequestFailed)
    }

    /// Whether a worker that ended with this reason is tried again.
    pub fn retry(self) -> Retry {
        match self {
            Self::SourceUnreachable
            | Self::DumpFailed
            | Self::RestoreFailed
            | Self::SourceIncomplete
            | Self::StoreUnreachable
            | Self::Unreachable
            | Self::PodLost
            | Self::ChecksumMismatch
            | Self::Stalled => Retry::Again,
            // By the controller, until the deadline of the object.
            reason if reason.is_refusal() => Retry::Again,
            _ => Retry::Never,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_exit_codes_are_those_of_the_reasons_that_are_never_tried_again() {
        for reason in Reason::OF_WORKERS.into_iter().filter(|reason| *reason != Reason::Completed) {
            let code = i32::from(reason.exit_code().unwrap());
            assert_eq!(Reason::FINAL_EXIT_CODES.contains(&code), reason.retry() == Retry::Never, "{reason}");
        }
        let codes = Reason::FINAL_EXIT_CODES;
        assert!(codes.is_sorted_by(|a, b| a < b), "the API server wants them in order, each once: {codes:?}");
    }

    #[test]
    fn reasons_that_share_an_exit_code_are_of_one_kind() {
        let shared = |code| -> Vec<Reason> {
            Reason::OF_WORKERS.into_iter().filter(|reason| reason.exit_code() == Some(code)).collect()
        };
        for code in Reason::OF_WORKERS.into_iter().filter_map(Reason::exit_code) {
            let expected: &[Reason] = match code {
                13 => &[Reason::DumpFailed, Reason::RestoreFailed],
                15 => &[Reason::StoreUnreachable, Reason::Unreachable],
                16 => &[
                    Reason::StoreRefused,
                    Reason::ClockSkew,
                    Reason::CredentialsRejected,
                    Reason::BucketNotFound,
                    Reason::StoreReadOnly,
                    Reason::StoreAppendOnly,
                ],
                _ => &shared(code)[..1],
            };
            assert_eq!(shared(code), expected, "exit code {code}");
        }
        assert_eq!(Reason::DeadlineExceeded.retry(), Retry::Never, "a second dump would only be cut off by its Job");
    }
}

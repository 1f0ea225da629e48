//! Whether the bucket is to be read before a restore point is chosen: the cluster may have forgotten newer ones. Pure.
//!
//! Backups that somebody deleted, or that an etcd which was set back does not know, are still in the bucket. What is the newest is said by the
//! bucket alone, so a request that chooses waits until that was read after the request was made.

use holdfast_crds::{Backup, BackupPhase, Reason, RestoreRequest};
use jiff::Timestamp;

use super::ObservedRestore;
use crate::plan::found::is_fresh;
use crate::plan::location::is_there;
use crate::plan::observed::created;
use crate::plan::status::after;
use crate::task::Failure;

/// Whether a Backup that a request names is looked for in the bucket once more: its data was not where it should be.
pub fn wants_a_look(backup: &Backup) -> bool {
    backup.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Completed && !is_there(s))
}

/// Why no restore point is chosen yet, if none is.
pub(super) fn awaited(request: &RestoreRequest, observed: &ObservedRestore, now: Timestamp) -> Option<Failure> {
    let from = &request.spec.from;
    let policy = observed.policy.as_deref()?;
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let is_of_store =
        |b: &Backup| b.status.as_ref().and_then(|s| s.store.as_ref()) == Some(&policy.spec.store_ref.name);
    let named = observed.backups.iter().any(|b| wants_a_look(b) && is_of_store(b));
    if !(from.policy.is_some() || (from.backup.is_some() && named)) {
        return None;
    }
    let since = created(&request.metadata);
    if is_fresh(policy, observed.policy_store.as_deref(), &observed.backups, since, now)? {
        return None;
    }
    let until = after(since, request.spec.timeout_seconds);
    if now < until {
        let message =
            format!("the bucket is read first, for backups of BackupPolicy {name} that the cluster does not know");
        return Some(Failure::new(Reason::InProgress, message));
    }
    let message = format!(
        "the bucket was not read for backups of BackupPolicy {name} within timeoutSeconds ({until}), so which one is the newest is not known: look at \
         the events of the policy, or restore a certain one with from.backup or from.store"
    );
    Some(Failure::new(Reason::StoreNotReady, message))
}

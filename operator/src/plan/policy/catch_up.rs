//! A run in place of one that failed before it could do anything: once, while its slot may still be late. Pure.

use holdfast_crds::{Backup, BackupPhase, BackupPolicy, BackupPolicyStatus, BackupStore, Reason};
use jiff::Timestamp;

use super::{Backups, Entry, scheduled};
use crate::plan::action::{Action, Plan};
use crate::plan::backup::is_scheduled;
use crate::plan::names::{CATCH_UP_ANNOTATION, scheduled_backup_name};
use crate::plan::status::after;

/// A run whose Pods never started is made up for after this many seconds: what was missing may be there by then.
pub const AGAIN_SECONDS: i64 = 300;

/// Makes up for the last run, if that failed because its store was down and the store is back, or because none of its Pods started. What makes
/// up for another run is not made up for.
pub(super) fn plan(
    plan: &mut Plan<BackupPolicyStatus>,
    policy: &BackupPolicy,
    store: &BackupStore,
    backups: &Backups<'_>,
    now: Timestamp,
) {
    let Some((last, ended)) = to_make_up_for(backups) else { return };
    let is_late = |at: Timestamp| at >= after(last.slot, policy.spec.starting_deadline_seconds);
    if is_late(now) || backups.not_over().is_some() {
        return;
    }
    if last.failure().reason == Reason::StoreUnreachable {
        let probed = store.status.as_ref().and_then(|s| s.last_probe_time.as_ref()).map(|t| t.0);
        if probed.is_none_or(|probed| probed <= ended) {
            return;
        }
    } else if now < after(ended, AGAIN_SECONDS) {
        if !is_late(after(ended, AGAIN_SECONDS)) {
            plan.check_at(after(ended, AGAIN_SECONDS));
        }
        return;
    }
    plan.actions.push(Action::CreateBackup(Box::new(instead_of(last, policy, ended))));
}

/// The last run of the schedule and when it ended, if it is one to make up for.
fn to_make_up_for<'a>(backups: &'a Backups<'a>) -> Option<(&'a Entry<'a>, Timestamp)> {
    let last = backups.all.first().filter(|b| b.phase == BackupPhase::Failed)?;
    let makes_up = last.backup.metadata.annotations.as_ref()?.contains_key(CATCH_UP_ANNOTATION);
    let is_wanted = last.failure().reason == Reason::StoreUnreachable || never_started(last);
    let ended = last.status.completion_time.as_ref()?.0;
    (is_scheduled(last.backup) && !makes_up && is_wanted).then_some((last, ended))
}

/// Whether of every source that failed no Pod has started.
fn never_started(run: &Entry<'_>) -> bool {
    let mut failed = run.status.artifacts.iter().filter(|a| a.phase == BackupPhase::Failed).peekable();
    failed.peek().is_some() && failed.all(|a| a.reason.is_some_and(Reason::is_never_started))
}

/// Named by what is written down already, so that it is the same one however often this is decided.
fn instead_of(last: &Entry<'_>, policy: &BackupPolicy, ended: Timestamp) -> Backup {
    let name = scheduled_backup_name(policy.metadata.name.as_deref().unwrap_or_default(), ended);
    let mut backup = scheduled(policy, name, ended);
    backup.metadata.annotations.get_or_insert_default().insert(CATCH_UP_ANNOTATION.to_owned(), last.name.to_owned());
    backup
}

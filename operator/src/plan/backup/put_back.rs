//! A Backup of the schedule that came back without its status, long after its slot: it never runs. Pure.
//!
//! What it stands for is in the bucket, or is nowhere: what is saved today is no backup of that day. Its policy's folder is read for it, and a
//! run of its slot becomes its own (`plan/found/adopted.rs`). One that comes back while its slot may still be late runs, and its workers look in the
//! bucket before they store anything.

use holdfast_crds::{Backup, BackupPhase, BackupPolicy, BackupStatus, ConditionType, Reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{ObservedBackup, TURN_SECONDS, complete_is, end, no_policy, not_there, reachable, slot_of};
use crate::plan::action::Plan;
use crate::plan::found::{is_found, is_read_since};
use crate::plan::names::SLOT_ANNOTATION;
use crate::plan::observed::created;
use crate::plan::status::{after, find};
use crate::task::Failure;

/// Slots are of the controller's clock, and objects have the API server's time.
const MARGIN_SECONDS: i64 = 300;
/// Its policy and its store may come back this many seconds after it.
const GRACE_SECONDS: i64 = 3600;
/// How late a slot may be where the policy is not there to say it.
const DEADLINE_SECONDS: i64 = 3600;

/// Whether a Backup stands for a slot that had passed when it was made, and is still to be found.
pub fn is_put_back(backup: &Backup, policy: Option<&BackupPolicy>) -> bool {
    let status = backup.status.as_ref();
    let has_slot = backup.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(SLOT_ANNOTATION));
    if !has_slot || is_found(backup) || status.is_some_and(|s| s.phase != BackupPhase::Pending) {
        return false;
    }
    // What is looked at as one stays one: a policy's deadline may be edited while a run waits.
    if let Some(told) = status.and_then(|s| find(&s.conditions, ConditionType::Complete)) {
        return told.reason == Reason::SlotPassed.to_string();
    }
    let deadline = policy.map_or(DEADLINE_SECONDS, |p| p.spec.starting_deadline_seconds);
    created(&backup.metadata) > after(slot_of(backup), deadline.saturating_add(MARGIN_SECONDS))
}

/// Waits until the bucket was read for it. What is found there is written on it by then; else there is nothing.
pub(super) fn look(plan: &mut Plan<BackupStatus>, backup: &Backup, observed: &ObservedBackup, now: Timestamp) {
    let (slot, made) = (slot_of(backup), created(&backup.metadata));
    let name = &backup.spec.policy_ref.name;
    let read = match observed.policy.as_deref() {
        None => Err(no_policy(name)),
        Some(policy) => {
            let store_name = &policy.spec.store_ref.name;
            let store = observed.store.as_deref().ok_or_else(|| not_there(store_name));
            let store = store.and_then(|store| reachable(store_name, store));
            store.map(|store| is_read_since(policy, Some(store), made) == Some(true))
        }
    };
    let passed = format!("its slot, {slot}, had passed long before it was made: it came back without its status");
    match read {
        Ok(true) => {
            let message = format!(
                "{passed}, and the bucket holds no complete run of that slot. It is not run now, for what is there today is no backup of that day: delete \
                 it; to save what is there now create a Backup without the annotation {SLOT_ANNOTATION}"
            );
            plan.status.start_time = Some(Time(now));
            end(plan, backup, observed, Err(Failure::new(Reason::SlotPassed, message)), now, now);
        }
        Ok(false) => {
            plan.check_at(after(now, TURN_SECONDS));
            let message = format!("{passed}; the bucket is read for its run");
            complete_is(plan, backup, None, Reason::SlotPassed, &message, now);
        }
        Err(failure) if now < after(made, GRACE_SECONDS) => {
            plan.check_at(after(now, TURN_SECONDS));
            let message = format!("{passed}; the bucket cannot be read for its run yet: {}", failure.message);
            complete_is(plan, backup, None, Reason::SlotPassed, &message, now);
        }
        Err(failure) => {
            plan.status.start_time = Some(Time(now));
            let message = format!("{passed}, and the bucket could not be read for its run: {}", failure.message);
            end(plan, backup, observed, Err(Failure::new(failure.reason, message)), now, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use holdfast_crds::{BackupPolicyStatus, CatalogueStatus};

    use super::*;
    use crate::plan::backup::plan_backup;
    use crate::plan::fixture::{at, backup, install, policy, ready_store};

    /// A Backup of the slot at 1000, made so many seconds later.
    fn late(seconds: i64) -> Backup {
        let mut backup = backup("b", 1000 + seconds);
        backup.metadata.annotations = Some(BTreeMap::from([(SLOT_ANNOTATION.to_owned(), at(1000).to_string())]));
        backup
    }

    fn observed(read: Option<(i64, i32, i32)>) -> ObservedBackup {
        let catalogue = read.map(|(time, found, more)| CatalogueStatus {
            place: ready_store().spec.s3.place(),
            time: Some(Time(at(time))),
            own_time: Some(Time(at(time))),
            found,
            more,
            ..CatalogueStatus::default()
        });
        let status = BackupPolicyStatus { catalogue, ..BackupPolicyStatus::default() };
        ObservedBackup {
            policy: Some(Arc::new(BackupPolicy { status: Some(status), ..policy() })),
            store: Some(Arc::new(ready_store())),
            ..ObservedBackup::default()
        }
    }

    #[test]
    fn a_backup_whose_slot_is_long_over_never_runs() {
        let policy = policy();
        for (seconds, expected) in [(0, false), (3600, false), (3900, false), (3901, true), (86_400 * 30, true)] {
            assert_eq!(is_put_back(&late(seconds), Some(&policy)), expected, "{seconds}");
        }
        assert!(!is_put_back(&backup("by-hand", 86_400), Some(&policy)), "it runs, as of now");

        let old = late(86_400);
        let made = 1000 + 86_400;
        let look = |backup: &Backup, read, now| plan_backup(&install(), backup, &observed(read), at(now));
        for read in [None, Some((made, 0, 0)), Some((made + 5, 50, 3))] {
            let plan = look(&old, read, made + 9);
            assert_eq!((plan.status.phase, plan.actions.len()), (BackupPhase::Pending, 0), "{read:?}");
            // It stays one, whatever becomes of the policy's deadline.
            let again = Backup { status: Some(plan.status), ..old.clone() };
            assert!(is_put_back(&again, None) && plan.next_check.is_some());
        }
        for read in [(made + 5, 0, 0), (made + 5, 3, 0), (made + 5, 0, 3)] {
            let plan = look(&old, Some(read), made + 9);
            assert_eq!((plan.status.phase, plan.actions.len()), (BackupPhase::Failed, 0));
            let told = find(&plan.status.conditions, ConditionType::Complete).unwrap();
            assert_eq!(told.reason, "SlotPassed");
            assert!(
                told.message.contains("1970-01-01T00:16:40Z") && told.message.contains(SLOT_ANNOTATION),
                "{}",
                told.message
            );
        }
        // Its policy and its store may come later than it.
        let alone = |now| plan_backup(&install(), &old, &ObservedBackup::default(), at(now)).status.phase;
        assert_eq!(alone(made + GRACE_SECONDS - 1), BackupPhase::Pending);
        assert_eq!(alone(made + GRACE_SECONDS), BackupPhase::Failed);
    }
}

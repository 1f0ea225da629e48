//! Which stored backup is to be read through now, and from which store. Pure.

use std::collections::BTreeSet;

use holdfast_crds::{Backup, BackupPolicy, BackupStore, PolicyVerification};

use super::{asked_by_hand, is_complete, is_recorded, last_attempt, request, run_of};
use crate::plan::backup::{reachable, slot_of};
use crate::plan::job;
use crate::plan::observed::ObservedJob;
use crate::plan::policy::ObservedPolicy;
use crate::task::{Outcome, Report};

/// A verification that is due, and that nothing is in the way of but the lack of room.
pub(super) struct Due<'a> {
    pub backup: &'a Backup,
    /// Where it reads from.
    pub store: &'a BackupStore,
    /// What asks for it.
    pub asked: String,
}

/// The verification to start next. `at`: what the schedule has decided.
pub(super) fn next<'a>(
    at: Option<&PolicyVerification>,
    policy: &BackupPolicy,
    observed: &'a ObservedPolicy,
) -> Option<Due<'a>> {
    // One after the other; and what retention deletes meanwhile would look damaged.
    if !observed.verifications.iter().all(|job| is_over(job, observed))
        || observed.retains.iter().any(|a| a.job.end.is_none())
    {
        return None;
    }
    let due = choose(at, policy, observed)?;
    let name = job::verify_name(due.backup, &due.asked);
    // One of this name was carried out before, and goes in time.
    (!observed.verifications.iter().any(|job| job.name == name)).then_some(due)
}

fn is_over(job: &ObservedJob, observed: &ObservedPolicy) -> bool {
    let uid = job.owner.as_ref().map(|o| o.uid.as_str());
    let owner = observed.backups.iter().find(|b| b.metadata.uid.as_deref() == uid);
    is_recorded(job, owner.and_then(|b| b.status.as_ref())) || (job.deleting && job.end.is_none())
}

fn choose<'a>(
    at: Option<&PolicyVerification>,
    policy: &BackupPolicy,
    observed: &'a ObservedPolicy,
) -> Option<Due<'a>> {
    let gone = deleted(observed);
    let all = observed.backups.iter().map(std::convert::AsRef::as_ref);
    let candidates: Vec<&Backup> =
        all.filter(|b| is_complete(b) && run_of(b).is_some_and(|run| !gone.contains(run))).collect();
    let due = |backup: &'a Backup, asked: String| {
        let name = backup.status.as_ref()?.store.as_ref()?;
        Some(Due { backup, store: reachable(name, observed.stores.get(name)?).ok()?, asked })
    };
    let is_done = |b: &Backup, text: &str| {
        let name = job::verify_name(b, &asked_by_hand(text));
        observed.verifications.iter().any(|job| job.name == name)
    };
    let wanted = |b: &'a Backup| due(b, asked_by_hand(&request(b).filter(|text| !is_done(b, text))?));
    let by_hand = candidates.iter().filter_map(|b| wanted(b));
    if let Some(newest) = by_hand.max_by_key(|d| (slot_of(d.backup), d.backup.metadata.name.clone())) {
        return Some(newest);
    }
    let at = at.filter(|_| policy.spec.verify.is_some() && !policy.spec.suspend)?;
    let slot = at.last_scheduled_time.as_ref()?.0;
    let candidate = |name: &String| candidates.iter().copied().find(|b| b.metadata.name.as_ref() == Some(name));
    let mut scheduled = at.backups.iter().filter_map(candidate).filter(|b| last_attempt(b) < Some(slot));
    scheduled.find_map(|backup| due(backup, slot.to_string()))
}

/// Runs whose data is gone, though their Backups may still be there.
fn deleted(observed: &ObservedPolicy) -> BTreeSet<String> {
    let ends = observed.retains.iter().flat_map(|a| &a.pods).filter_map(|pod| pod.ended.as_ref());
    let reports = ends.filter_map(|end| Report::from_termination_message(&end.message));
    reports
        .flat_map(|report| match report.outcome {
            Some(Outcome::Retain(retained)) => retained.deleted,
            _ => Vec::new(),
        })
        .collect()
}

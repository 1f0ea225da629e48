//! Which stored backup is to be read through now, from which store, and what is in the way of that. Pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use holdfast_crds::{Backup, BackupPolicy, BackupStore, PolicyVerification, Reason, VerificationWait};

use super::{asked_by_hand, is_complete, is_recorded, last_attempt, request, run_of};
use crate::plan::backup::{not_there, reachable, slot_of};
use crate::plan::job;
use crate::plan::observed::{ObservedJob, ObservedPod};
use crate::plan::policy::ObservedPolicy;
use crate::task::Failure;

/// A verification that is due.
pub(super) struct Due<'a> {
    pub backup: &'a Backup,
    /// What asks for it.
    pub asked: String,
    /// Where it reads from, or what it waits for.
    pub store: Result<&'a BackupStore, Failure>,
}

impl Due<'_> {
    /// It waits for its turn, and this is why. What it waits for already stays.
    pub fn queue(&mut self, why: &str) {
        if self.store.is_ok() {
            self.store = Err(Failure::new(Reason::Queued, format!("it waits for its turn: {why}")));
        }
    }

    /// What the status of the policy says of it, if it waits.
    pub fn waiting(&self) -> Option<VerificationWait> {
        let failure = self.store.as_ref().err()?;
        let backup = self.backup.metadata.name.clone().unwrap_or_default();
        Some(VerificationWait { backup, reason: failure.reason, message: failure.message.clone() })
    }
}

/// The verification to start next. `at`: what the schedule has decided.
pub(super) fn next<'a>(
    at: Option<&PolicyVerification>,
    policy: &BackupPolicy,
    observed: &'a ObservedPolicy,
) -> Option<Due<'a>> {
    let open: Vec<&ObservedJob> = observed.verifications.iter().filter(|job| !is_over(job, observed)).collect();
    let mut due = choose(at, policy, observed, &open)?;
    let name = job::verify_name(due.backup, &due.asked);
    if observed.verifications.iter().any(|job| job.name == name) {
        // It was carried out before, and goes in time.
        return None;
    }
    // One after the other; and what retention deletes meanwhile would look damaged.
    if let Some(job) = open.first() {
        let backup = job.owner.as_ref().map(|o| o.name.as_str()).unwrap_or_default();
        due.queue(&format!("Backup {backup} of the same policy is being verified"));
    }
    if observed.retains.iter().any(|a| a.ended_at().is_none()) {
        due.queue("the retention of the same policy is being applied");
    }
    Some(due)
}

/// Whether nothing more comes of a Job. Where its Backup is gone or going there is nobody left to say what it found.
fn is_over(job: &ObservedJob, observed: &ObservedPolicy) -> bool {
    let uid = job.owner.as_ref().map(|o| o.uid.as_str());
    let is_owner =
        |b: &&std::sync::Arc<Backup>| b.metadata.uid.as_deref() == uid && b.metadata.deletion_timestamp.is_none();
    let owner = observed.backups.iter().find(is_owner);
    let recorded = match owner {
        Some(backup) => is_recorded(job, backup.status.as_ref()),
        None => job.end.is_some(),
    };
    recorded || (job.deleting && job.end.is_none())
}

/// What was asked for by hand, the newest backup first, and then what is due by the schedule: the first of them that can be read, or
/// else the first of them.
fn choose<'a>(
    at: Option<&PolicyVerification>,
    policy: &BackupPolicy,
    observed: &'a ObservedPolicy,
    open: &[&ObservedJob],
) -> Option<Due<'a>> {
    let gone = deleted(observed);
    let is_open = |b: &Backup| open.iter().any(|job| job.owner.as_ref().map(|o| &o.uid) == b.metadata.uid.as_ref());
    let all = observed.backups.iter().map(std::convert::AsRef::as_ref);
    let candidates: Vec<&Backup> =
        all.filter(|b| is_complete(b) && !is_open(b) && run_of(b).is_some_and(|run| !gone.contains(run))).collect();
    let due = |backup: &'a Backup, asked: String| {
        let name = backup.status.as_ref()?.store.as_ref()?;
        let store = observed.stores.get(name).ok_or_else(|| not_there(name)).and_then(|store| reachable(name, store));
        Some(Due { backup, asked, store })
    };
    let is_done = |b: &Backup, text: &str| {
        let name = job::verify_name(b, &asked_by_hand(text));
        observed.verifications.iter().any(|job| job.name == name)
    };
    let wanted = |b: &'a Backup| due(b, asked_by_hand(&request(b).filter(|text| !is_done(b, text))?));
    let mut all: Vec<Due<'a>> = candidates.iter().copied().filter_map(wanted).collect();
    all.sort_by_key(|d| Reverse((slot_of(d.backup), d.backup.metadata.name.clone())));

    let at = at.filter(|_| policy.spec.verify.is_some() && !policy.spec.suspend);
    if let Some((at, slot)) = at.and_then(|at| Some((at, at.last_scheduled_time.as_ref()?.0))) {
        let candidate = |name: &String| candidates.iter().copied().find(|b| b.metadata.name.as_ref() == Some(name));
        let scheduled = at.backups.iter().filter_map(candidate).filter(|b| last_attempt(b) < Some(slot));
        all.extend(scheduled.filter_map(|backup| due(backup, slot.to_string())));
    }
    let first = all.iter().position(|d| d.store.is_ok()).unwrap_or(0);
    (!all.is_empty()).then(|| all.swap_remove(first))
}

/// Runs whose data is gone, though their Backups may still be there.
fn deleted(observed: &ObservedPolicy) -> BTreeSet<String> {
    let retained = observed.retains.iter().flat_map(|a| &a.pods).filter_map(ObservedPod::retained);
    retained.flat_map(|retained| retained.deleted).collect()
}

//! Why a bucket that was read once is to be read again. Pure.
//!
//! Each reason has an instant, and is done with by a reading that began later. So nothing need be remembered, and nothing is asked twice.

use holdfast_crds::{Backup, BackupPolicy, BackupPolicyStatus, BackupStatus, BackupStore, CatalogueStatus, Reason};
use jiff::Timestamp;

use super::goes_on;
use crate::plan::backup::is_put_back;
use crate::plan::location::{is_at, is_there};
use crate::plan::observed::created;
use crate::plan::policy::ObservedPolicy;
use crate::plan::status::after;
use crate::plan::store::READY_SECONDS;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// A reading that began after this instant will do; none where nothing asks.
    pub since: Option<Timestamp>,
    /// The same, of a reading that tells the policy's own runs, too.
    pub own_since: Option<Timestamp>,
    /// Whether a restore waits for it.
    pub urgent: bool,
    /// When something will ask if nothing changes.
    pub next: Option<Timestamp>,
}

impl Asked {
    /// Whether the last reading of the place will do.
    pub fn is_done(&self, read: &CatalogueStatus) -> bool {
        let began = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            time.as_ref().map_or(Timestamp::MIN, |time| time.0)
        };
        self.since.is_none_or(|since| began(&read.time) > since)
            && self.own_since.is_none_or(|since| began(&read.own_time) > since)
    }

    /// When the newest thing was asked.
    pub fn at(&self) -> Option<Timestamp> {
        self.since.max(self.own_since)
    }
}

/// What asks for a reading of this place.
pub(super) fn asked(
    policy: &BackupPolicy,
    status: &BackupPolicyStatus,
    observed: &ObservedPolicy,
    store: &BackupStore,
    now: Timestamp,
) -> Asked {
    let place = store.spec.s3.place();
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let of_store = || {
        let statuses = observed.backups.iter().filter_map(|b| b.status.as_ref());
        statuses.filter(|s| s.store == store.metadata.name)
    };
    let here = || of_store().filter(|s| is_there(s) && is_at(s, &place));
    let is_missed = |run: &str| here().any(|s| s.run_id.as_ref().is_some_and(|id| run == format!("{name}/{id}")));
    let of_store_status = store.status.as_ref();

    let missing = of_store_status.and_then(|s| s.missing.as_ref()).filter(|m| m.place == place);
    let missing = missing.filter(|m| m.runs.iter().any(|run| is_missed(run))).map(|m| m.time.0);
    let empty = of_store_status.and_then(|s| s.empty.as_ref()).filter(|e| e.place == place && here().next().is_some());
    let empty = empty.map(|e| e.time.0);
    let unfound = here().filter_map(unfound).max();
    let lacking = observed.retains.iter().filter_map(crate::plan::found::judged::misses).max();

    // What is gone or elsewhere may come back, and may have been copied.
    let mut next = None;
    let lost = of_store().any(|s| s.phase == holdfast_crds::BackupPhase::Completed && !is_there(s));
    let read_before = status.catalogue.as_ref().filter(|c| c.place == place).and_then(|c| c.time.as_ref()).map(|t| t.0);
    let hourly = read_before.filter(|_| lost).and_then(|last| {
        let due = after(last, READY_SECONDS);
        next = Some(due);
        (due <= now).then_some(last)
    });
    let put_back = observed.backups.iter().filter(|b| is_put_back(b, Some(policy)));
    let put_back = put_back.map(|b| created(&b.metadata)).max();
    // Fifty runs are told at a time.
    let read = status.catalogue.as_ref().filter(|c| c.place == place && put_back.is_some() && goes_on(c));
    let goes_on = read.and_then(|c| c.own_time.as_ref()).map(|t| t.0);
    Asked {
        urgent: !observed.asking.is_empty(),
        since: [missing, empty, unfound, lacking, hourly].into_iter().flatten().max(),
        own_since: observed.asking.iter().copied().chain(put_back).chain(goes_on).max(),
        next,
    }
}

/// When a verification found nothing of a backup.
fn unfound(status: &BackupStatus) -> Option<Timestamp> {
    let verification = status.verification.as_ref().filter(|v| v.reason == Some(Reason::NoMatchingBackup))?;
    verification.last_attempt_time.as_ref().map(|t| t.0)
}

/// Whether a Backup is one that a reading of its store can say something about, and since when.
pub(super) fn is_known(backup: &Backup, store: &BackupStore) -> bool {
    backup.metadata.deletion_timestamp.is_none()
        && backup.status.as_ref().is_some_and(|s| {
            s.phase == holdfast_crds::BackupPhase::Completed && s.store == store.metadata.name && s.run_id.is_some()
        })
}

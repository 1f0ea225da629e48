//! What a reading of the bucket says of the Backups that are known: their data is there, or it is gone. Pure.

use std::sync::Arc;

use holdfast_crds::{Backup, BackupPolicyStatus, BackupStore, Reason};
use jiff::Timestamp;

use super::asked::is_known;
use crate::plan::action::{Action, Event, Plan};
use crate::plan::location::{gone, seen};
use crate::plan::observed::{Attempt, ObservedPod, created};
use crate::plan::policy::ObservedPolicy;
use crate::plan::status::after;
use crate::task::{CatalogueReport, Span};

/// The clocks of the controller and of the API server may be so many seconds apart: a Backup that ended so shortly before the reading began
/// may have ended after it.
const MARGIN_SECONDS: i64 = 10;
/// At most this many Backups are named in an event.
const NAMED: usize = 5;

/// The runs that should be there, each with one of its sources.
pub(super) fn expected(observed: &ObservedPolicy, store: &BackupStore) -> Vec<String> {
    let of = |backup: &Arc<Backup>| {
        let status = backup.status.as_ref().filter(|_| is_known(backup, store))?;
        Some(format!("{}/{}", status.run_id.as_ref()?, status.artifacts.first()?.source))
    };
    observed.backups.iter().filter_map(of).collect()
}

/// Writes on each Backup what was found of it by a reading that began at `began`.
pub(super) fn judge(
    plan: &mut Plan<BackupPolicyStatus>,
    observed: &ObservedPolicy,
    store: &BackupStore,
    report: &CatalogueReport,
    (began, now): (Timestamp, Timestamp),
) {
    let place = store.spec.s3.place();
    let mut missing = Vec::new();
    for backup in observed.backups.iter().filter(|b| is_known(b, store) && is_older(b, began)) {
        let Some(run_id) = backup.status.as_ref().and_then(|s| s.run_id.as_ref()) else { continue };
        let is_in = |spans: &[Span]| spans.iter().any(|span| span.has(run_id));
        let status = if is_in(&report.there) {
            seen(backup, &place, now)
        } else if is_in(&report.gone) {
            let why = format!("a listing of {began} lacks it, and the store says that there is no such object");
            let status = gone(backup, &place, &why, now);
            missing.extend(status.as_ref().and(backup.metadata.name.clone()));
            status
        } else {
            None
        };
        if let Some(status) = status {
            let backup = Backup { status: Some(status), ..(**backup).clone() };
            plan.actions.push(Action::ReportBackup(Box::new(backup)));
        }
    }
    if missing.is_empty() {
        return;
    }
    let more = missing.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let note = format!("the data of {} Backups is not in {place} any more: {named}{more}", missing.len());
    plan.events.push(Event::warning(Reason::DataMissing, "Catalogue", note));
}

fn is_older(backup: &Backup, began: Timestamp) -> bool {
    began.duration_since(ended(backup)).as_secs() > MARGIN_SECONDS
}

fn ended(backup: &Backup) -> Timestamp {
    let ended = backup.status.as_ref().and_then(|s| s.completion_time.as_ref()).map(|t| t.0);
    ended.unwrap_or_default().max(created(&backup.metadata))
}

/// From when on a reading can judge every Backup that had ended by `since`, when their data was doubted.
pub(super) fn judges_from(observed: &ObservedPolicy, store: &BackupStore, since: Timestamp) -> Option<Timestamp> {
    let of_store = observed.backups.iter().filter(|b| is_known(b, store));
    let newest = of_store.map(|b| ended(b)).filter(|ended| *ended <= since).max();
    newest.map(|ended| after(ended, MARGIN_SECONDS + 1))
}

/// When a retain Job ended that found runs missing which the cluster knows.
pub(super) fn misses(retain: &Attempt) -> Option<Timestamp> {
    let misses = retain.pods.iter().filter_map(ObservedPod::retained).any(|retained| retained.missing > 0);
    retain.ended_at().filter(|_| misses)
}

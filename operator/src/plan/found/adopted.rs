//! Backups that came back without their status: a run of their slot that was found in the bucket becomes their own. Pure.

use std::collections::BTreeSet;

use holdfast_crds::{Backup, BackupPolicy, BackupPolicyStatus, BackupStatus, ConditionType, Reason};

use super::{fill, found_in};
use crate::plan::action::{Action, Plan};
use crate::plan::backup::{is_put_back, slot_of};
use crate::plan::job::Install;
use crate::plan::policy::ObservedPolicy;
use crate::plan::status::with_condition;
use crate::store::keys::slot_of_run;
use crate::task::FoundRun;

/// Gives each of them the run of its slot. Of several the one that this cluster made is taken, and then the one that began first: a later one
/// holds what was there later. Returns the runs that were given.
pub(super) fn adopt(
    plan: &mut Plan<BackupPolicyStatus>,
    install: &Install,
    policy: &BackupPolicy,
    observed: &ObservedPolicy,
    unknown: &[&FoundRun],
    place: &str,
) -> BTreeSet<String> {
    let mut given = BTreeSet::new();
    for backup in
        observed.backups.iter().filter(|b| is_put_back(b, Some(policy)) && b.metadata.deletion_timestamp.is_none())
    {
        let slot = slot_of(backup);
        let of_slot =
            unknown.iter().filter(|run| slot_of_run(&run.run_id) == Some(slot) && !given.contains(&run.run_id));
        let Some(run) = of_slot.min_by_key(|run| (run.cluster != install.cluster_uid, run.start, run.run_id.clone()))
        else {
            continue;
        };
        given.insert(run.run_id.clone());
        let mut status = BackupStatus::default();
        fill(&mut status, found_in(policy, run, place));
        status.cluster = (run.cluster != install.cluster_uid).then(|| run.cluster.clone());
        status.observed_generation = backup.metadata.generation;
        let message = format!(
            "it came back without its status; its run was found in the bucket: {} items, {} bytes stored",
            run.items, run.stored_bytes
        );
        let before = backup.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        status.conditions = with_condition(
            &before,
            ConditionType::Complete,
            Some(true),
            Reason::Completed,
            message,
            backup.metadata.generation,
            run.end.max(crate::plan::observed::created(&backup.metadata)),
        );
        plan.actions.push(Action::ReportBackup(Box::new(Backup { status: Some(status), ..(**backup).clone() })));
    }
    given
}

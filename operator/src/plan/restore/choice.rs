//! Which restore point a request means. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use holdfast_crds::{Backup, BackupPhase, ConditionType, Reason, RestoreFrom, RestoreRequest};
use jiff::Timestamp;

use super::is_safety;
use crate::plan::backup::slot_of;
use crate::plan::found::is_foreign;
use crate::plan::location;
use crate::plan::plausibility;
use crate::plan::status::find;
use crate::plan::verify::is_damaged;
use crate::task::{Failure, Select};

/// At most this many candidates are listed where none fits.
const LISTED: usize = 10;

/// A restore point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Name of its policy: its folder in the bucket.
    pub policy: String,
    /// Name of its Backup, where there is one.
    pub backup: Option<String>,
    /// Its run.
    pub select: Select,
    /// UID of the cluster that made it, where the request says so.
    pub cluster: Option<String>,
    /// Name of its store.
    pub store: String,
    /// The place that its data is in, where that is known.
    pub location: Option<String>,
    /// Names of its sources, where they are known.
    pub sources: Option<Vec<String>>,
}

/// Chooses the restore point among these Backups. What was chosen once stays chosen.
///
/// # Errors
/// Why there is none; the candidates are listed.
pub fn choose(request: &RestoreRequest, backups: &[Arc<Backup>]) -> Result<Choice, Failure> {
    let from = &request.spec.from;
    let chosen = request.status.as_ref().and_then(|s| s.backup.as_ref()).or(from.backup.as_ref());
    if let Some(name) = chosen {
        let backup = backups.iter().find(|b| b.metadata.name.as_ref() == Some(name));
        let Some(backup) = backup.filter(|b| b.metadata.deletion_timestamp.is_none()) else {
            let message = format!(
                "Backup {name} is not there in this namespace: kubectl get backups lists those that are, and from.store restores without one"
            );
            return Err(Failure::new(Reason::BackupNotFound, message));
        };
        return of_backup(backup, name);
    }
    if let Some(policy) = &from.policy {
        let at = policy.at.as_ref().map(|t| t.0);
        return newest(&policy.name, at, backups);
    }
    if let Some(store) = &from.store {
        let at = store.at.as_ref().map(|t| t.0);
        return Ok(Choice {
            policy: store.policy.clone(),
            backup: None,
            select: store.run_id.clone().map_or(Select::At(at), Select::RunId),
            cluster: store.cluster.clone(),
            store: store.name.clone(),
            location: None,
            sources: None,
        });
    }
    Err(Failure::new(Reason::InvalidConfiguration, "from names nothing: set one of backup, policy and store"))
}

/// The restore point a request means, in one line.
pub(super) fn in_one_line(from: &RestoreFrom) -> String {
    let at = |at: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        at.as_ref().map(|t| format!("@{}", t.0)).unwrap_or_default()
    };
    match (&from.backup, &from.policy, &from.store) {
        (Some(name), _, _) => format!("backup/{name}"),
        (_, Some(policy), _) => format!("policy/{}{}", policy.name, at(&policy.at)),
        (_, _, Some(store)) => {
            let run = store.run_id.as_ref().map(|id| format!("/{id}")).unwrap_or_default();
            format!("store/{}/{}{run}{}", store.name, store.policy, at(&store.at))
        }
        _ => String::new(),
    }
}

fn of_backup(backup: &Backup, name: &str) -> Result<Choice, Failure> {
    let status = backup.status.clone().unwrap_or_default();
    if location::is_missing(&status) {
        let why = find(&status.conditions, ConditionType::Complete).map(|c| c.message.clone()).unwrap_or_default();
        return Err(Failure::new(Reason::DataMissing, format!("Backup {name} cannot be restored: {why}")));
    }
    match (status.phase, status.run_id, status.store) {
        (BackupPhase::Completed, Some(run_id), Some(store)) => Ok(Choice {
            policy: backup.spec.policy_ref.name.clone(),
            backup: Some(name.to_owned()),
            select: Select::RunId(run_id),
            cluster: None,
            store,
            location: status.location,
            sources: Some(status.artifacts.into_iter().map(|a| a.source).collect()),
        }),
        (BackupPhase::Pending | BackupPhase::Running, _, _) => {
            Err(Failure::new(Reason::InProgress, format!("Backup {name} is not over yet")))
        }
        _ => {
            let why = find(&status.conditions, ConditionType::Complete).map(|c| c.message.clone()).unwrap_or_default();
            Err(Failure::new(Reason::NoMatchingBackup, format!("Backup {name} failed and cannot be restored: {why}")))
        }
    }
}

fn newest(policy: &str, at: Option<Timestamp>, backups: &[Arc<Backup>]) -> Result<Choice, Failure> {
    let mut complete: Vec<&Arc<Backup>> = backups
        .iter()
        .filter(|b| b.spec.policy_ref.name == policy && b.metadata.deletion_timestamp.is_none())
        .filter(|b| !is_safety(b))
        .filter(|b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Completed))
        .collect();
    complete.sort_by_key(|b| Reverse((slot_of(b), b.metadata.name.clone())));
    // A backup that is too small to be believed is mostly one of what was lost, and one that was found damaged cannot be brought back as a
    // whole: whoever wants it names it.
    let fits = |b: &&Arc<Backup>| {
        let is_doubtful = b
            .status
            .as_ref()
            .is_some_and(|s| plausibility::is_suspicious(s) || is_damaged(s) || location::is_missing(s));
        at.is_none_or(|at| slot_of(b) <= at) && !is_doubtful
    };
    let fitting = || complete.iter().copied().filter(fits);
    // Two clusters that write to one folder must not restore each other's data by accident: what was found of another one is for
    // who has none of his own.
    if let Some(backup) = fitting().find(|b| !is_foreign(b)).or_else(|| fitting().next()) {
        return of_backup(backup, backup.metadata.name.as_deref().unwrap_or_default());
    }
    let wanted = at.map(|at| format!(" at or before {at}")).unwrap_or_default();
    let mut message = format!("BackupPolicy {policy} has no complete backup{wanted}");
    if !complete.is_empty() {
        let listed = complete.iter().take(LISTED);
        let doubt = |b: &Backup| match b.status.as_ref() {
            Some(status) if location::is_missing(status) => ", its data is gone",
            Some(status) if is_damaged(status) => ", damaged",
            Some(status) if plausibility::is_suspicious(status) => ", suspicious",
            _ => "",
        };
        let listed: Vec<String> = listed
            .map(|b| format!("{} ({}{})", b.metadata.name.as_deref().unwrap_or_default(), slot_of(b), doubt(b)))
            .collect();
        let more = complete.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} older ones") } else { String::new() };
        message = format!("{message}; there are {}{more}", listed.join(", "));
    } else if backups.is_empty() {
        message =
            format!("{message}: kubectl get backuppolicies lists the policies, and from.store restores without one");
    }
    Err(Failure::new(Reason::NoMatchingBackup, message))
}

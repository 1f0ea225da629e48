//! Whether a backup is as large as those before it let expect. Pure.
//!
//! A dump can be whole and still be the wrong one: of an emptied database, of another server behind the same name, of a volume that was
//! not mounted. So each source is compared with what its last plausible backups held. Suspicious ones are left out of the comparison:
//! otherwise a few of them in a row would be what is expected. One that somebody accepted is where the comparison begins anew.

use std::cmp::Reverse;
use std::sync::Arc;

use holdfast_crds::{ArtifactStatus, Backup, BackupPhase, BackupStatus, ConditionType, PlausibilitySpec, Reason};

use super::backup::slot_of;
use super::names::ACCEPTED_ANNOTATION;
use super::status::find;

/// A source is compared with this many backups of it.
pub const COMPARED: usize = 5;

/// What is wrong with the sizes of a run's sources, in one line; none if nothing is, or if the rule is turned off.
pub fn suspicion(rule: &PlausibilitySpec, artifacts: &[ArtifactStatus], history: &[&BackupStatus]) -> Option<String> {
    if rule.minimum_percent <= 0 {
        return None;
    }
    let found: Vec<String> = artifacts.iter().filter_map(|artifact| of_source(rule, artifact, history)).collect();
    (!found.is_empty()).then(|| found.join("; "))
}

/// What a backup is compared with: the complete ones of its policy before it that are not suspicious, the newest first, as far back as to
/// the newest one that was accepted.
pub fn history<'a>(backup: &Backup, siblings: &'a [Arc<Backup>]) -> Vec<&'a BackupStatus> {
    let place = |b: &Backup| (slot_of(b), b.metadata.name.clone());
    let mut before: Vec<(&Backup, &BackupStatus)> = siblings
        .iter()
        .filter(|s| s.metadata.uid != backup.metadata.uid && place(s) < place(backup))
        .filter_map(|s| Some((s.as_ref(), s.status.as_ref()?)))
        .filter(|(_, status)| status.phase == BackupPhase::Completed && !is_suspicious(status))
        .collect();
    before.sort_by_key(|(b, _)| Reverse(place(b)));
    let accepted = before.iter().position(|(_, status)| was_accepted(status)).map_or(before.len(), |i| i + 1);
    before.into_iter().take(accepted).map(|(_, status)| status).collect()
}

/// Whether a backup was found to be too small, and nobody has accepted it.
pub fn is_suspicious(status: &BackupStatus) -> bool {
    find(&status.conditions, ConditionType::Plausible).is_some_and(|c| c.status == "False")
}

/// Whether somebody has annotated a Backup to accept it.
pub fn is_accepted(backup: &Backup) -> bool {
    backup.metadata.annotations.as_ref().is_some_and(|a| a.get(ACCEPTED_ANNOTATION).is_some_and(|v| v == "true"))
}

fn was_accepted(status: &BackupStatus) -> bool {
    find(&status.conditions, ConditionType::Plausible).is_some_and(|c| c.reason == Reason::Accepted.to_string())
}

fn of_source(rule: &PlausibilitySpec, artifact: &ArtifactStatus, history: &[&BackupStatus]) -> Option<String> {
    let source = &artifact.source;
    let before = || history.iter().flat_map(|status| &status.artifacts).filter(|a| a.source == *source);
    if artifact.items == Some(0) {
        // Where the one before was right although it was empty, so is this one.
        let as_before = before().next().is_some_and(|a| a.items == Some(0));
        return (!as_before).then(|| format!("source {source} is empty"));
    }
    let size = artifact.source_bytes?;
    let mut sizes: Vec<i64> = before().filter_map(|a| a.source_bytes).take(COMPARED).collect();
    let median = median(&mut sizes)?;
    let too_small = i128::from(size) * 100 < i128::from(median) * i128::from(rule.minimum_percent);
    too_small.then(|| {
        format!(
            "source {source} has {size} bytes before compression, less than {} % of {median}, the median of {}",
            rule.minimum_percent,
            if sizes.len() == 1 {
                "the backup before".to_owned()
            } else {
                format!("the {} backups before", sizes.len())
            }
        )
    })
}

/// The middle one; of an even number the lower of the two in the middle.
fn median(sizes: &mut [i64]) -> Option<i64> {
    sizes.sort_unstable();
    sizes.get(sizes.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests;

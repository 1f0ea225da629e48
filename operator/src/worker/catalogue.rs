//! Tells which complete runs of a policy are in the bucket. Talks to the bucket, and writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_crds::Reason;
use tracing::warn;

use super::integrity::unlisted;
use crate::store::catalogue::{self, Catalogue, CatalogueRun};
use crate::store::client::Bucket;
use crate::store::keys::PolicyFolder;
use crate::store::manifest::Manifest;
use crate::task::{CatalogueReport, CatalogueTask, Failure, FoundRun, Outcome, Report, Span};

pub(super) async fn run(task: &CatalogueTask) -> Result<Report, Failure> {
    let bucket = Bucket::open(&task.store).await?;
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    let catalogue = catalogue::read(&bucket, &folder).await?;
    let (mut report, mut message) = tell(task, &catalogue);
    let judged = judge(task, &bucket, &folder, &catalogue).await?;
    (report.there, report.gone) = spans(&judged, &catalogue);
    let gone: Vec<&str> = judged.iter().filter(|(_, is_there)| *is_there == Some(false)).map(|(id, _)| *id).collect();
    if let Some(first) = gone.first() {
        message = format!(
            "{} runs that have a Backup are not there any more, the newest of them {first}; {message}",
            gone.len()
        );
    }
    if let Some(first) = catalogue.in_doubt.first() {
        let more = catalogue.in_doubt.len() - 1;
        message = format!("{message}; in doubt: {first}, and {more} more like it");
    }
    Ok(Report { reason: Reason::Completed, message, outcome: Some(Outcome::Catalogue(report)) })
}

/// The stretches of what is there and of what is gone. A run that is in the listing and was not expected has ended since: it is in no
/// stretch of what is gone.
fn spans(judged: &[(&str, Option<bool>)], catalogue: &Catalogue) -> (Vec<Span>, Vec<Span>) {
    let mut runs: BTreeMap<&str, Option<bool>> = judged.iter().copied().collect();
    let of = |runs: &BTreeMap<&str, Option<bool>>, wanted| {
        Span::of(runs.iter().rev().map(|(run_id, is_there)| (*run_id, *is_there == Some(wanted))))
    };
    let there = of(&runs, true);
    for run in &catalogue.runs {
        runs.entry(&run.run_id).or_default();
    }
    (there, of(&runs, false))
}

/// Of each run that is expected whether it is there; none where that cannot be told. What is not in the listing is looked for by its key: one
/// that is there all the same proves that the listing is not whole.
async fn judge<'a>(
    task: &'a CatalogueTask,
    bucket: &Bucket,
    folder: &PolicyFolder,
    catalogue: &Catalogue,
) -> Result<Vec<(&'a str, Option<bool>)>, Failure> {
    let mut judged = Vec::new();
    for text in &task.expected {
        let Some((run_id, source)) = text.split_once('/') else { continue };
        let prefix = folder.run(run_id);
        let run = catalogue.runs.iter().find(|run| run.run_id == run_id);
        let is_there = match run {
            _ if catalogue.doubt_of(&prefix).is_some() => None,
            Some(run) if run.is_complete() && is_whole(run, catalogue) => Some(true),
            Some(run) => lacks(bucket, folder, run, catalogue).await?.then_some(false),
            None => absent(bucket, &prefix.source(source).manifest()).await?.then_some(false),
        };
        judged.push((run_id, is_there));
    }
    Ok(judged)
}

/// Whether a manifest or an object of a run is gone. One of another size is damage, for a verification to find.
async fn lacks(
    bucket: &Bucket,
    folder: &PolicyFolder,
    run: &CatalogueRun,
    catalogue: &Catalogue,
) -> Result<bool, Failure> {
    let manifests = run.run_sources.iter().filter(|source| !run.manifests.contains_key(*source));
    let mut unlisted: Vec<String> = manifests.map(|s| folder.run(&run.run_id).source(s).manifest()).collect();
    let artifacts = run.manifests.values().flat_map(|m| &m.artifacts);
    unlisted.extend(artifacts.map(|a| &a.key).filter(|key| !catalogue.objects.contains_key(*key)).cloned());
    match unlisted.first() {
        Some(key) => absent(bucket, key).await,
        None => Ok(false),
    }
}

/// Whether what the listing lacks is gone; false where that cannot be found out.
async fn absent(bucket: &Bucket, key: &str) -> Result<bool, Failure> {
    match bucket.head(key).await {
        Ok(None) => Ok(true),
        Ok(Some(_)) => {
            let unlisted = unlisted(bucket, key).await;
            Err(Failure::new(unlisted.reason, format!("{}; nothing is taken for gone", unlisted.message)))
        }
        Err(failure) => {
            warn!("it is not known whether {key} is there: {failure}");
            Ok(false)
        }
    }
}

/// The runs that are complete, whole and not known, with a line about them. Pure.
fn tell(task: &CatalogueTask, catalogue: &Catalogue) -> (CatalogueReport, String) {
    // What this very policy made has its Backup, or had one that somebody deleted.
    let is_its_own =
        |run: &CatalogueRun| !task.own && run.manifests.values().any(|m| m.policy_uid == task.scope.policy_uid);
    let is_unknown = |run: &CatalogueRun| !task.known.contains(&run.run_id) && !is_its_own(run);
    let mut unknown: Vec<&CatalogueRun> =
        catalogue.runs.iter().filter(|run| run.is_complete() && !run.is_safety() && is_unknown(run)).collect();
    unknown.sort_by(|a, b| (b.slot, &b.run_id).cmp(&(a.slot, &a.run_id)));
    let (whole, damaged): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|run| is_whole(run, catalogue));
    let clusters: BTreeSet<&str> = whole.iter().map(|r| r.cluster()).filter(|c| *c != task.scope.cluster_uid).collect();
    let mut message = format!("{} complete runs in the bucket have no Backup", whole.len());
    if !clusters.is_empty() {
        let listed: Vec<&str> = clusters.iter().take(4).copied().collect();
        message = format!("{message}; other clusters made some: {}", listed.join(", "));
    }
    if let Some(first) = damaged.first() {
        message = format!("{message}; {} lack data and are left out, such as {}", damaged.len(), first.run_id);
    }
    let runs: Vec<FoundRun> = whole.iter().take(task.limit).map(|run| found(run)).collect();
    let more = whole.len() - runs.len();
    (CatalogueReport { runs, more, ..CatalogueReport::default() }, message)
}

/// Whether every object that its manifests name is in the listing, in its full size.
fn is_whole(run: &CatalogueRun, catalogue: &Catalogue) -> bool {
    let mut artifacts = run.manifests.values().flat_map(|m| &m.artifacts);
    artifacts.all(|a| catalogue.objects.get(&a.key).is_some_and(|o| o.size == a.stored_bytes))
}

fn found(run: &CatalogueRun) -> FoundRun {
    let sum = |of: fn(&Manifest) -> u64| run.manifests.values().map(of).fold(0, u64::saturating_add);
    let bytes = |of: fn(&crate::store::manifest::ArtifactEntry) -> u64| {
        let artifacts = run.manifests.values().flat_map(|m| &m.artifacts);
        artifacts.map(of).fold(0, u64::saturating_add)
    };
    let manifests = || run.manifests.values();
    FoundRun {
        run_id: run.run_id.clone(),
        cluster: run.cluster().to_owned(),
        sources: run.run_sources.iter().cloned().collect(),
        start: manifests().map(|m| m.start_time).min().unwrap_or(run.slot),
        end: manifests().map(|m| m.end_time).max().unwrap_or(run.slot),
        stored_bytes: bytes(|a| a.stored_bytes),
        source_bytes: bytes(|a| a.source_bytes),
        items: sum(|m| u64::try_from(m.items).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_not_expected_is_not_said_to_be_gone_with_its_neighbours() {
        let run = |run_id: &str| CatalogueRun {
            run_id: run_id.to_owned(),
            slot: jiff::Timestamp::UNIX_EPOCH,
            run_sources: BTreeSet::new(),
            manifests: BTreeMap::new(),
            stored: None,
        };
        let catalogue = Catalogue { runs: vec![run("r2"), run("r5")], ..Catalogue::default() };
        let judged = [("r1", Some(false)), ("r3", Some(false)), ("r4", Some(true)), ("r6", Some(true)), ("r7", None)];
        let (there, gone) = spans(&judged, &catalogue);
        let is_in = |spans: &[Span], run: &str| spans.iter().any(|span| span.has(run));
        for (run_id, expected) in judged {
            assert_eq!(is_in(&there, run_id), expected == Some(true), "{run_id}");
            assert_eq!(is_in(&gone, run_id), expected == Some(false), "{run_id}");
        }
        assert!(!is_in(&gone, "r2"), "{gone:?}");
    }
}

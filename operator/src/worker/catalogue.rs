//! Tells which complete runs of a policy are in the bucket. Talks to the bucket, and writes nothing.

use std::collections::BTreeSet;

use holdfast_crds::Reason;

use crate::store::catalogue::{self, Catalogue, CatalogueRun};
use crate::store::client::Bucket;
use crate::store::keys::PolicyFolder;
use crate::store::manifest::Manifest;
use crate::task::{CatalogueReport, CatalogueTask, Failure, FoundRun, Outcome, Report};

pub(super) async fn run(task: &CatalogueTask) -> Result<Report, Failure> {
    let bucket = Bucket::open(&task.store).await?;
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    let catalogue = catalogue::read(&bucket, &folder).await?;
    let (report, mut message) = tell(task, &catalogue);
    if let Some(first) = catalogue.in_doubt.first() {
        let more = catalogue.in_doubt.len() - 1;
        message = format!("{message}; in doubt: {first}, and {more} more like it");
    }
    Ok(Report { reason: Reason::Completed, message, outcome: Some(Outcome::Catalogue(report)) })
}

/// The runs that are complete, whole and not known, with a line about them. Pure.
fn tell(task: &CatalogueTask, catalogue: &Catalogue) -> (CatalogueReport, String) {
    // What this very policy made has its Backup, or had one that somebody deleted.
    let is_its_own = |run: &CatalogueRun| run.manifests.values().any(|m| m.policy_uid == task.scope.policy_uid);
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
    (CatalogueReport { runs, more }, message)
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

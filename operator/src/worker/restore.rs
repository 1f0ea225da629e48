//! Brings one restore point back: everything is found and checked before anything is touched. Talks to the bucket and, through engines,
//! to the targets.

mod dry_run;
mod elsewhere;
mod once;

use std::collections::BTreeSet;

use holdfast_crds::Reason;
use tracing::info;

use super::pipeline::Downloads;
use super::{Attempt, integrity};
use crate::engine;
use crate::store::catalogue::{self, Catalogue, CatalogueRun};
use crate::store::client::Bucket;
use crate::store::encryption::Identities;
use crate::store::keys::{PolicyFolder, slot_of_run};
use crate::store::manifest::Manifest;
use crate::task::{
    Failure, Outcome, Report, RestoreReport, RestoreTarget, RestoreTask, RestoredSource, Select, StoreTask,
};

/// At most this many restore points are named to someone whose request fits none.
const CANDIDATES: usize = 10;
/// Of each of at most so many clusters, at most so many, to someone whose request fits several.
const CANDIDATES_OF_CLUSTERS: (usize, usize) = (4, 3);

pub(super) async fn run(task: &RestoreTask, attempt: &Attempt) -> Result<Report, Failure> {
    let bucket = Bucket::open(&task.store).await?;
    if !task.dry_run {
        once::confirm_first(&bucket, task).await?;
    }
    let catalogue = catalogue::read(&bucket, &PolicyFolder::new(&task.store.s3, &task.scope)).await?;
    let run = match select(task, &catalogue) {
        Ok(run) => run,
        Err(failure) => return Err(elsewhere::told(&bucket, task, &catalogue, failure).await),
    };
    let passed_over = passed_over(task, &catalogue, run);
    if task.dry_run {
        let report = dry_run::run(task, &bucket, run, attempt).await;
        return Ok(Report { message: format!("{}{passed_over}", report.message), ..report });
    }
    let chosen = names(task, run).map(|name| pair(task, run, name)).collect::<Result<Vec<_>, _>>()?;
    let identities = match &task.store.identity {
        Some(file) => Some(integrity::identities(file, &task.store).await?),
        None => None,
    };
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    for (_, manifest) in &chosen {
        let key = folder.run(&run.run_id).source(&manifest.source).manifest();
        confirm(&bucket, &key, manifest, identities.as_ref(), &task.store).await?;
    }
    let downloads = || Downloads::new(bucket.clone(), identities.clone().unwrap_or_default(), attempt.progress.clone());
    for (at, one) in chosen.iter().enumerate() {
        engine::confirm_apart(*one, &chosen[at + 1..], &task.scope.namespace, &mut downloads()).await?;
    }
    for (target, manifest) in &chosen {
        engine::check_target(target, manifest, task.on_existing, &attempt.scratch)
            .await
            .map_err(|failure| failure.about(&target.source))?;
    }
    for (target, manifest) in &chosen {
        engine::check_contents(target, manifest, task.on_existing, &attempt.scratch, &mut downloads())
            .await
            .map_err(|failure| failure.about(&target.source))?;
    }
    once::take_down(&bucket, task, &run.run_id, attempt).await?;

    let mut report = RestoreReport { run_id: run.run_id.clone(), sources: Vec::new() };
    for (target, manifest) in &chosen {
        info!(source = target.source, run = run.run_id, "restoring");
        let restored =
            engine::restore_beside(&chosen, target, manifest, task.on_existing, &attempt.scratch, &mut downloads())
                .await;
        match restored {
            Ok(restored) => report.sources.push(RestoredSource {
                source: target.source.clone(),
                reason: Reason::Completed,
                items: restored.items,
                restored_bytes: i64::try_from(restored.bytes).unwrap_or(i64::MAX),
                message: restored.message,
            }),
            Err(failure) => {
                let failure = failure.about(&target.source);
                report.sources.push(RestoredSource {
                    source: target.source.clone(),
                    reason: failure.reason,
                    items: 0,
                    restored_bytes: 0,
                    message: failure.message.clone(),
                });
                let outcome = Some(Outcome::Restore(report));
                return Ok(Report { reason: failure.reason, message: failure.message, outcome });
            }
        }
    }
    let message = report.sources.iter().map(|s| format!("{}: {}", s.source, s.message)).collect::<Vec<_>>().join("; ");
    Ok(Report::completed(format!("{message}{passed_over}"), Some(Outcome::Restore(report))))
}

/// What was newer, or may have been, and could not be chosen because it cannot be read, in words: who asks for the newest is to know.
fn passed_over(task: &RestoreTask, catalogue: &Catalogue, run: &CatalogueRun) -> String {
    let Select::At(at) = &task.select else { return String::new() };
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    let would_fit = |line: &&String| {
        let key = line.split_once(": ").map_or(line.as_str(), |(key, _)| key);
        let run_id = key.strip_prefix(folder.prefix()).and_then(|rest| rest.split('/').next());
        let slot = run_id.and_then(slot_of_run);
        slot.is_none_or(|slot| slot >= run.slot && at.is_none_or(|at| slot <= at))
    };
    let all: Vec<&String> = catalogue.in_doubt.iter().filter(would_fit).collect();
    match all.as_slice() {
        [] => String::new(),
        [one] => format!("; passed over: {one}"),
        [.., last] => format!("; passed over: {last}, and {} more like it", all.len() - 1),
    }
}

/// The run that the request means.
fn select<'a>(task: &RestoreTask, catalogue: &'a Catalogue) -> Result<&'a CatalogueRun, Failure> {
    let fits = |r: &&CatalogueRun| holds(r, task) && task.cluster.as_ref().is_none_or(|c| r.cluster() == c);
    let found = match &task.select {
        Select::RunId(run_id) => catalogue.runs.iter().filter(fits).find(|r| r.run_id == *run_id),
        Select::At(at) => {
            let mut complete: Vec<&CatalogueRun> =
                catalogue.runs.iter().filter(|r| r.is_complete() && !r.is_safety()).filter(fits).collect();
            complete.sort_by(|a, b| (b.slot, &b.run_id).cmp(&(a.slot, &a.run_id)));
            of_one_cluster(task, &complete)?;
            complete.into_iter().find(|r| at.is_none_or(|at| r.slot <= at))
        }
    };
    found.ok_or_else(|| {
        let wanted = match &task.select {
            Select::RunId(run_id) => format!("run {run_id}"),
            Select::At(Some(at)) => format!("complete backup at or before {at}"),
            Select::At(None) => "complete backup".to_owned(),
        };
        let mut complete: Vec<&CatalogueRun> =
            catalogue.runs.iter().filter(|r| r.is_complete() && !r.is_safety()).collect();
        complete.sort_by(|a, b| (b.slot, &b.run_id).cmp(&(a.slot, &a.run_id)));
        let names: Vec<&str> = complete.iter().take(CANDIDATES).map(|r| r.run_id.as_str()).collect();
        let of = task.cluster.as_ref().map(|c| format!(" of cluster {c}")).unwrap_or_default();
        let folder = PolicyFolder::new(&task.store.s3, &task.scope);
        let of_it = match &task.select {
            Select::RunId(run_id) => catalogue.doubt_of(&folder.run(run_id)),
            Select::At(_) => None,
        };
        let unread = match of_it.or(catalogue.in_doubt.first().map(String::as_str)) {
            Some(one) if catalogue.in_doubt.len() == 1 => format!("; in doubt there: {one}"),
            Some(one) => format!("; in doubt there: {one}, and {} more like it", catalogue.in_doubt.len() - 1),
            None => String::new(),
        };
        Failure::new(
            Reason::NoMatchingBackup,
            format!(
                "store {} holds no {} of policy {}/{}{of}{}; there are {} complete ones{}{}{unread}",
                task.store.name,
                wanted,
                task.scope.namespace,
                task.scope.policy,
                missing(task, &complete),
                complete.len(),
                if names.is_empty() { "" } else { ", newest first: " },
                names.join(", "),
            ),
        )
    })
}

/// Which of the sources that are asked for no complete run has, in words, and which there are: the name is written in another way, or was
/// another one when the runs were made.
fn missing(task: &RestoreTask, complete: &[&CatalogueRun]) -> String {
    let held: BTreeSet<&str> = complete.iter().flat_map(|run| run.manifests.keys()).map(String::as_str).collect();
    let asked = task.sources.iter().flatten().map(String::as_str);
    let missing: Vec<&str> = asked.filter(|source| !held.contains(source)).collect();
    if task.sources.is_none() || held.is_empty() {
        return String::new();
    }
    if missing.is_empty() {
        return " with all of spec.sources".to_owned();
    }
    let held: Vec<&str> = held.into_iter().collect();
    format!(" with source {}: they hold {}, correct spec.sources", missing.join(", "), held.join(", "))
}

/// "The newest" means nothing where several clusters have written to one folder: the newest may be of the wrong one, or of the new cluster's
/// empty database. So nothing is chosen for whoever did not choose.
fn of_one_cluster(task: &RestoreTask, newest_first: &[&CatalogueRun]) -> Result<(), Failure> {
    let mut clusters: Vec<&str> = Vec::new();
    for run in newest_first {
        if !clusters.contains(&run.cluster()) {
            clusters.push(run.cluster());
        }
    }
    if clusters.len() < 2 {
        return Ok(());
    }
    let (most, each) = CANDIDATES_OF_CLUSTERS;
    let told = |cluster: &&str| {
        let own = if *cluster == task.scope.cluster_uid { " (this one)" } else { "" };
        let runs = newest_first.iter().filter(|r| r.cluster() == *cluster);
        let names: Vec<&str> = runs.clone().take(each).map(|r| r.run_id.as_str()).collect();
        format!("{cluster}{own} has {}, newest first {}", runs.count(), names.join(" "))
    };
    let more = if clusters.len() > most { format!("; and {} more", clusters.len() - most) } else { String::new() };
    Err(Failure::new(
        Reason::NoMatchingBackup,
        format!(
            "store {} holds complete backups of policy {}/{} of {} clusters, and the newest may be the wrong one's: name the cluster in from.store.cluster, or the run in from.store.runId; nothing was touched. Cluster {}{more}",
            task.store.name,
            task.scope.namespace,
            task.scope.policy,
            clusters.len(),
            clusters.iter().take(most).map(told).collect::<Vec<_>>().join("; cluster "),
        ),
    ))
}

/// Whether the run has a manifest for each source that is asked for.
fn holds(run: &CatalogueRun, task: &RestoreTask) -> bool {
    match &task.sources {
        Some(sources) => sources.iter().all(|s| run.manifests.contains_key(s)),
        None => run.is_complete(),
    }
}

/// The sources that are restored.
fn names<'a>(task: &'a RestoreTask, run: &'a CatalogueRun) -> impl Iterator<Item = &'a String> {
    let of_run = task.sources.is_none().then_some(&run.run_sources);
    task.sources.iter().flatten().chain(of_run.into_iter().flatten())
}

/// A source that is restored: where it goes, and what it is.
fn pair<'a>(
    task: &'a RestoreTask,
    run: &'a CatalogueRun,
    name: &str,
) -> Result<(&'a RestoreTarget, &'a Manifest), Failure> {
    let target = task.targets.iter().find(|t| t.source == name).ok_or_else(|| {
        Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "source {name} of run {} has no target: add it to spec.into with its server, or name the sources you want in spec.sources",
                run.run_id
            ),
        )
    })?;
    let manifest = run.manifests.get(name).ok_or_else(|| {
        Failure::new(
            Reason::NoMatchingBackup,
            format!(
                "run {} has no source {name}; it has {}",
                run.run_id,
                run.run_sources.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            ),
        )
    })?;
    if manifest.artifacts.is_empty() {
        let message = format!(
            "source {name}: there was nothing when run {} was made, so nothing can be brought back: name the other sources in spec.sources, and drop by hand what has come since",
            run.run_id
        );
        return Err(Failure::new(Reason::InvalidConfiguration, message));
    }
    Ok((target, manifest))
}

/// A backup is all there and is what was stored, as far as that can be told without reading it.
async fn confirm(
    bucket: &Bucket,
    key: &str,
    manifest: &Manifest,
    identities: Option<&Identities>,
    store: &StoreTask,
) -> Result<(), Failure> {
    let confirmed = async {
        integrity::confirm_artifacts(bucket, manifest).await?;
        integrity::confirm_seal(bucket, key, manifest, identities, store).await
    };
    confirmed
        .await
        .map_err(|failure: Failure| Failure::new(failure.reason, format!("{}; nothing was touched", failure.message)))
}

//! Carries out a policy's retention in the bucket: nothing at all where the listing is in doubt. Talks to the bucket.

use std::collections::BTreeSet;

use holdfast_crds::Reason;
use jiff::{SignedDuration, Timestamp};
use tracing::info;

use super::deletable;
use super::delete::{delete_run, is_foreign};
use super::integrity::unlisted;
use crate::plan::debris::{self, Stray};
use crate::plan::names::ACCEPT_WRITERS_ANNOTATION;
use crate::plan::retention::{self, Run};
use crate::plan::schedule;
use crate::store::catalogue::{self, Catalogue, CatalogueRun};
use crate::store::client::{Bucket, ObjectInfo};
use crate::store::keys::{self, PolicyFolder};
use crate::task::{Failure, Outcome, Report, RetainReport, RetainTask, Writer};

/// Clocks that are further apart than this leave it open how old anything is.
const MAX_APART: SignedDuration = SignedDuration::from_mins(5);
/// At most this many other writers are told.
const OTHERS_LIMIT: usize = 8;
/// At most this many objects that no manifest names go at a time; the rest goes the next time.
const DEBRIS_LIMIT: usize = 1000;

pub(super) async fn run(task: &RetainTask) -> Result<Report, Failure> {
    deletable(&task.store)?;
    let time_zone =
        schedule::time_zone(&task.time_zone).map_err(|error| Failure::new(error.reason(), error.to_string()))?;
    let bucket = Bucket::open(&task.store).await?;
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    let mut catalogue = catalogue::read(&bucket, &folder).await?;
    confirm_clocks(&bucket)?;
    if let Some(unread) = catalogue.in_doubt.first() {
        return Err(doubt(&format!("{unread}; and {} more like it", catalogue.in_doubt.len() - 1)));
    }
    if let Some(report) = another_writer(task, &catalogue) {
        return Ok(report);
    }
    let gone = known_and_gone(task, &bucket, &folder, &catalogue).await?;

    let all: Vec<Run> = catalogue.runs.iter().map(|run| as_run(run, task)).collect();
    // What was saved before a restore takes no other run's place, and goes with its Backup only. Its objects are no debris.
    catalogue.runs.retain(|run| !run.is_safety());
    let grace = SignedDuration::from_secs(task.grace_seconds);
    let decide = |runs: &[Run]| retention::decide(runs, &task.retention, &time_zone, grace);
    let runs: Vec<Run> = catalogue.runs.iter().map(|run| as_run(run, task)).collect();
    let verdicts = decide(&runs);
    let kept: BTreeSet<&str> = verdicts.iter().filter(|v| v.keep).map(|v| v.run_id.as_str()).collect();
    // Judged apart: what is gone must never push out what is there.
    let with_gone = decide(&[runs.clone(), gone.clone()].concat());
    let was_due = |id: &str| with_gone.iter().any(|v| v.run_id == id && !v.keep);
    let ours: Vec<&CatalogueRun> = catalogue.runs.iter().filter(|r| !is_foreign(r, &task.scope)).collect();

    let mut going: Vec<&CatalogueRun> = ours.iter().copied().filter(|r| !kept.contains(r.run_id.as_str())).collect();
    going.sort_by(|a, b| a.run_id.cmp(&b.run_id));
    let mut report = RetainReport {
        // What an attempt before this one deleted without being able to say so.
        deleted: gone.iter().map(|r| r.run_id.clone()).filter(|id| was_due(id)).collect(),
        kept: ours.iter().filter(|r| r.is_complete() && kept.contains(r.run_id.as_str())).count(),
        more: going.len() > task.limit,
        debris: 0,
        other_writers: Vec::new(),
        missing: gone.iter().filter(|r| !was_due(&r.run_id)).count(),
    };
    going.truncate(task.limit);
    let debris = confirmed_debris(&bucket, &folder, task, &catalogue, &all).await?;
    if !going.is_empty() || !debris.is_empty() {
        confirm_newest(task, &bucket, &ours, &kept).await?;
    }
    for run in going {
        confirm_partial(&bucket, &folder, run).await?;
        if let Err(failure) = delete_run(&bucket, &folder, run).await {
            let outcome = Some(Outcome::Retain(report));
            return Ok(Report { reason: failure.reason, message: failure.message, outcome });
        }
        let why = verdicts.iter().find(|v| v.run_id == run.run_id).map(|v| v.reasons.iter().map(ToString::to_string));
        info!(run = run.run_id, why = why.into_iter().flatten().collect::<Vec<_>>().join("; "), "deleted");
        report.deleted.push(run.run_id.clone());
    }
    for key in debris {
        if let Err(failure) = bucket.delete(&key).await {
            let outcome = Some(Outcome::Retain(report));
            return Ok(Report { reason: failure.reason, message: failure.message, outcome });
        }
        info!(key, "deleted: no manifest names it");
        report.debris += 1;
    }
    let place = task.store.s3.place();
    let mut message = format!("{} runs deleted, {} complete ones stay in {place}", report.deleted.len(), report.kept);
    if report.missing > 0 {
        message = format!("{message}; {} that have a Backup are not there any more", report.missing);
    }
    if report.debris > 0 {
        message = format!("{message}; {} objects that no manifest names deleted", report.debris);
    }
    Ok(Report::completed(message, Some(Outcome::Retain(report))))
}

/// The report where somebody else begins runs under this cluster's identity: each would delete what the other one needs.
fn another_writer(task: &RetainTask, catalogue: &Catalogue) -> Option<Report> {
    let writers = task.writers.as_ref()?;
    // What a Backup of this cluster was made for was begun here, whoever led then.
    let is_known = |run: &CatalogueRun| {
        task.protected.contains(&run.run_id) || task.known.iter().any(|k| k.run_id == run.run_id && !k.imported)
    };
    let own = catalogue.runs.iter().filter(|run| run.is_complete() && !is_foreign(run, &task.scope) && !is_known(run));
    let own = own.flat_map(|run| run.manifests.values().map(move |m| (run, m)));
    let own = own.filter(|(_, m)| m.policy_uid == task.scope.policy_uid);
    let others: Vec<(&CatalogueRun, &Writer)> =
        own.filter_map(|(run, m)| Some((run, m.writer.as_ref().filter(|w| writers.is_another(w))?))).collect();
    let (run, newest) = others.iter().max_by_key(|(_, writer)| writer.since)?;
    let mut other_writers: Vec<Writer> = Vec::new();
    for (_, writer) in &others {
        if !other_writers.iter().any(|known| known.id == writer.id) && other_writers.len() < OTHERS_LIMIT {
            other_writers.push((*writer).clone());
        }
    }
    let ids = other_writers.iter().map(|w| w.id.as_str()).collect::<Vec<_>>().join(",");
    let message = format!(
        "nothing was deleted: another controller ({}) began run {} at {} under the identity of this cluster, so a second cluster made from the same \
         etcd writes here too. Give one of the two another prefix. If the other one is gone for good, and its runs are this policy's: kubectl -n {} \
         annotate bpol {} {ACCEPT_WRITERS_ANNOTATION}={ids}",
        newest.id, run.run_id, newest.since, task.scope.namespace, task.scope.policy
    );
    let outcome = Some(Outcome::Retain(RetainReport { other_writers, ..RetainReport::default() }));
    Some(Report { reason: Reason::AnotherWriter, message, outcome })
}

/// Slots are of the cluster's clock, and what is in the bucket has the store's time.
fn confirm_clocks(bucket: &Bucket) -> Result<(), Failure> {
    match bucket.clocks().filter(|clocks| clocks.apart() > MAX_APART) {
        Some(clocks) => Err(Failure::new(
            Reason::ClockSkew,
            format!(
                "nothing was deleted, for there is no telling what is old: {}; set the one that is wrong, and retention goes on by itself",
                clocks.words()
            ),
        )),
        None => Ok(()),
    }
}

/// Objects that no manifest names and none ever will, once the bucket says of each of their sources that it has no manifest.
async fn confirmed_debris(
    bucket: &Bucket,
    folder: &PolicyFolder,
    task: &RetainTask,
    catalogue: &Catalogue,
    runs: &[Run],
) -> Result<Vec<String>, Failure> {
    let stray = |object: &ObjectInfo| {
        let (run_id, _) = folder.artifact_of(&object.key)?;
        let slot = keys::slot_of_run(run_id)?;
        Some(Stray { key: object.key.clone(), run_id: run_id.to_owned(), slot, modified: object.modified })
    };
    let strays: Vec<Stray> = catalogue.objects.values().filter_map(stray).collect();
    let known = task.known.iter().map(|known| known.run_id.as_str());
    let spared: BTreeSet<&str> = task.protected.iter().map(String::as_str).chain(known).collect();
    let mut debris = debris::debris(&strays, runs, &spared, SignedDuration::from_secs(task.grace_seconds));
    debris.truncate(DEBRIS_LIMIT);
    let sources: BTreeSet<(&str, &str)> = debris.iter().filter_map(|key| folder.artifact_of(key)).collect();
    for (run_id, source) in sources {
        let key = folder.run(run_id).source(source).manifest();
        if bucket.head(&key).await?.is_some() {
            return Err(doubt(&unlisted(bucket, &key).await.message));
        }
    }
    Ok(debris)
}

fn as_run(run: &CatalogueRun, task: &RetainTask) -> Run {
    Run {
        slot: run.slot,
        run_id: run.run_id.clone(),
        run_sources: run.run_sources.clone(),
        sources: run.manifests.keys().cloned().collect(),
        protected: task.protected.contains(&run.run_id),
        stored: run.stored,
        foreign: is_foreign(run, &task.scope),
        suspicious: is_suspicious(task, &run.run_id),
        damaged: is_damaged(task, &run.run_id),
    }
}

/// Whether a verification found a run damaged.
fn is_damaged(task: &RetainTask, run_id: &str) -> bool {
    task.known.iter().any(|known| known.damaged && known.run_id == run_id)
}

/// Whether the cluster knows a run to be too small to be believed.
fn is_suspicious(task: &RetainTask, run_id: &str) -> bool {
    task.known.iter().any(|known| known.suspicious && known.run_id == run_id)
}

/// Complete backups that the cluster knows and the listing lacks. One whose manifest is there all the same proves that the listing is
/// not whole; the others are gone, by an attempt before this one or by other hands.
async fn known_and_gone(
    task: &RetainTask,
    bucket: &Bucket,
    folder: &PolicyFolder,
    catalogue: &Catalogue,
) -> Result<Vec<Run>, Failure> {
    let mut gone = Vec::new();
    for known in &task.known {
        let listed = catalogue.runs.iter().find(|r| r.run_id == known.run_id);
        let lacking = known.sources.iter().filter(|s| !listed.is_some_and(|r| r.manifests.contains_key(*s)));
        for source in lacking.clone() {
            let key = folder.run(&known.run_id).source(source).manifest();
            if bucket.head(&key).await?.is_some() {
                return Err(doubt(&unlisted(bucket, &key).await.message));
            }
        }
        match (listed, keys::slot_of_run(&known.run_id)) {
            (None, Some(slot)) => gone.push(Run {
                slot,
                run_id: known.run_id.clone(),
                run_sources: known.sources.iter().cloned().collect(),
                sources: known.sources.iter().cloned().collect(),
                protected: false,
                stored: None::<Timestamp>,
                foreign: false,
                suspicious: known.suspicious,
                damaged: known.damaged,
            }),
            (Some(_), _) if lacking.count() > 0 => {
                return Err(doubt(&format!(
                    "run {} was complete and lacks a manifest now: delete the Backup that names it, if that was meant",
                    known.run_id
                )));
            }
            _ => {}
        }
    }
    Ok(gone)
}

/// Before anything goes, what stays must be there: of each source the newest complete backup, and the newest one that is not suspicious,
/// every object of it in its full size. Of one that is known to be damaged nothing else is expected.
async fn confirm_newest(
    task: &RetainTask,
    bucket: &Bucket,
    ours: &[&CatalogueRun],
    kept: &BTreeSet<&str>,
) -> Result<(), Failure> {
    let mut newest_first: Vec<&&CatalogueRun> = ours
        .iter()
        .filter(|r| r.is_complete() && kept.contains(r.run_id.as_str()) && !is_damaged(task, &r.run_id))
        .collect();
    if newest_first.is_empty() && ours.iter().any(|r| is_damaged(task, &r.run_id)) {
        return Err(doubt("every complete backup that stays is damaged"));
    }
    newest_first.sort_by(|a, b| (b.slot, &b.run_id).cmp(&(a.slot, &a.run_id)));
    let mut seen = BTreeSet::new();
    for run in newest_first {
        for (source, manifest) in &run.manifests {
            if !seen.insert((source, is_suspicious(task, &run.run_id))) {
                continue;
            }
            for artifact in &manifest.artifacts {
                let size = bucket.head(&artifact.key).await?;
                if size != Some(artifact.stored_bytes) {
                    return Err(doubt(&format!(
                        "{} of the newest complete backup should have {} bytes and {}",
                        artifact.key,
                        artifact.stored_bytes,
                        size.map_or_else(|| "is not there".to_owned(), |size| format!("has {size}"))
                    )));
                }
            }
        }
    }
    Ok(())
}

/// A run that goes because it is partial must be so: not one whose other manifests the listing left out.
async fn confirm_partial(bucket: &Bucket, folder: &PolicyFolder, run: &CatalogueRun) -> Result<(), Failure> {
    for source in run.run_sources.iter().filter(|s| !run.manifests.contains_key(*s)) {
        let key = folder.run(&run.run_id).source(source).manifest();
        if bucket.head(&key).await?.is_some() {
            return Err(doubt(&unlisted(bucket, &key).await.message));
        }
    }
    Ok(())
}

fn doubt(what: &str) -> Failure {
    Failure::new(Reason::ListIncomplete, format!("nothing was deleted, the bucket is in doubt: {what}"))
}

//! Looks at everything a restore would look at before it touches anything, at every source, and tells. Talks to the bucket and, through
//! engines, to the targets; writes to neither.

use holdfast_crds::{OnExisting, Reason};

use super::super::pipeline::Downloads;
use super::super::{Attempt, integrity};
use super::{confirm, names, pair};
use crate::engine;
use crate::store::catalogue::CatalogueRun;
use crate::store::client::Bucket;
use crate::store::encryption::Identities;
use crate::store::keys::PolicyFolder;
use crate::store::manifest::Manifest;
use crate::task::{Failure, Outcome, Report, RestoreReport, RestoreTarget, RestoreTask, RestoredSource, Target};

/// At most this many databases are named one by one.
const NAMED: usize = 5;

/// What the request would do with this run, or what stands in its way: each source has its say, also after one that cannot be restored.
pub(super) async fn run(task: &RestoreTask, bucket: &Bucket, run: &CatalogueRun, attempt: &Attempt) -> Report {
    let identities = match &task.store.identity {
        Some(file) => integrity::identities(file, &task.store).await.map(Some),
        None => Ok(None),
    };
    let mut report = RestoreReport { run_id: run.run_id.clone(), sources: Vec::new() };
    for name in names(task, run) {
        let (reason, message) = match look(task, bucket, run, name, &identities, attempt).await {
            Ok(message) => (Reason::Completed, message),
            Err(failure) => (failure.reason, failure.message),
        };
        report.sources.push(RestoredSource { source: name.clone(), reason, items: 0, restored_bytes: 0, message });
    }
    let all = report.sources.len();
    let obstacles: Vec<&RestoredSource> = report.sources.iter().filter(|s| s.reason != Reason::Completed).collect();
    let told = |sources: &[&RestoredSource]| {
        sources.iter().map(|s| format!("{}: {}", s.source, s.message)).collect::<Vec<_>>().join("; ")
    };
    let (reason, message) = match obstacles.first() {
        None => {
            let each: Vec<&RestoredSource> = report.sources.iter().collect();
            (Reason::Completed, format!("dry run: nothing was changed and nothing stands in the way; {}", told(&each)))
        }
        Some(first) => {
            let count = obstacles.len();
            let of = format!("dry run: nothing was changed; {count} of {all} sources cannot be restored");
            (first.reason, format!("{of}; {}", told(&obstacles)))
        }
    };
    Report { reason, message, outcome: Some(Outcome::Restore(report)) }
}

/// What would be restored into what. All that stands in the way of one source is told at once: what is wrong with the backup, and with the
/// target.
async fn look(
    task: &RestoreTask,
    bucket: &Bucket,
    run: &CatalogueRun,
    name: &str,
    identities: &Result<Option<Identities>, Failure>,
    attempt: &Attempt,
) -> Result<String, Failure> {
    let (target, manifest) = pair(task, run, name)?;
    let backup = backup(task, bucket, run, manifest, identities).await;
    let place = match apart(task, bucket, run, (target, manifest), identities, attempt).await {
        Ok(()) => place(task, target, manifest, attempt).await,
        Err(failure) => Err(failure),
    };
    let place = match (&backup, place, identities) {
        (Ok(()), Ok(place), Ok(identities)) => {
            let identities = identities.clone().unwrap_or_default();
            let mut downloads = Downloads::new(bucket.clone(), identities, attempt.progress.clone());
            engine::check_contents(target, manifest, task.on_existing, &attempt.scratch, &mut downloads)
                .await
                .map(|notes| std::iter::once(place).chain(notes).collect::<Vec<_>>().join("; "))
        }
        (_, place, _) => place,
    };
    match (backup, place) {
        (Ok(()), Ok(place)) => {
            let bytes: u64 = manifest.artifacts.iter().map(|a| a.source_bytes).sum();
            Ok(format!("would restore {} items, {bytes} bytes, of run {} into {place}", manifest.items, run.run_id))
        }
        (Err(backup), Err(place)) => {
            Err(Failure::new(backup.reason, format!("{}; and {}: {}", backup.message, place.reason, place.message)))
        }
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

async fn backup(
    task: &RestoreTask,
    bucket: &Bucket,
    run: &CatalogueRun,
    manifest: &Manifest,
    identities: &Result<Option<Identities>, Failure>,
) -> Result<(), Failure> {
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    let key = folder.run(&run.run_id).source(&manifest.source).manifest();
    let identities = identities.as_ref().map_err(Clone::clone)?;
    confirm(bucket, &key, manifest, identities.as_ref(), &task.store).await
}

/// No other source of the request goes where this one goes.
async fn apart(
    task: &RestoreTask,
    bucket: &Bucket,
    run: &CatalogueRun,
    one: engine::Chosen<'_>,
    identities: &Result<Option<Identities>, Failure>,
    attempt: &Attempt,
) -> Result<(), Failure> {
    // What is wrong with another one is told of that one.
    let others = names(task, run).filter(|name| **name != one.0.source);
    let others: Vec<engine::Chosen<'_>> = others.filter_map(|name| pair(task, run, name).ok()).collect();
    let identities = identities.clone()?.unwrap_or_default();
    let mut downloads = Downloads::new(bucket.clone(), identities, attempt.progress.clone());
    engine::confirm_apart(one, &others, &task.scope.namespace, &mut downloads).await
}

/// The target in words, and what it holds.
async fn place(
    task: &RestoreTask,
    target: &RestoreTarget,
    manifest: &Manifest,
    attempt: &Attempt,
) -> Result<String, Failure> {
    let words = words(target, manifest);
    let claim = match &target.server {
        Target::Volume(volume) => Some(&volume.claim_name),
        Target::Config(config) => Some(&config.claim_name),
        _ => None,
    };
    if claim.is_some_and(|name| task.claims_to_make.contains(name)) {
        return Ok(format!("{words}, which is not there and would be made"));
    }
    engine::check_target(target, manifest, task.on_existing, &attempt.scratch).await?;
    if task.on_existing == OnExisting::Fail {
        return Ok(format!("{words}, which holds no data"));
    }
    match engine::check_target(target, manifest, OnExisting::Fail, &attempt.scratch).await {
        Ok(()) => Ok(format!("{words}, which holds no data")),
        Err(failure) if failure.reason == Reason::TargetNotEmpty => {
            Ok(format!("{words}, and would replace what is there ({})", engine::what_it_holds(&failure)))
        }
        Err(failure) => Err(failure),
    }
}

fn words(target: &RestoreTarget, manifest: &Manifest) -> String {
    let databases = |into: Option<&str>| -> String {
        let all: Vec<&str> = match into {
            Some(name) => vec![name],
            None => manifest.artifacts.iter().filter_map(|a| a.database.as_deref()).collect(),
        };
        match all.as_slice() {
            [] => String::new(),
            [one] => format!(", database {one}"),
            several => {
                let named = several.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
                let more = several.len().saturating_sub(NAMED);
                format!(", databases {named}{}", if more > 0 { format!(" and {more} more") } else { String::new() })
            }
        }
    };
    match &target.server {
        Target::Postgres(server) => {
            format!("{}:{}{}", server.host, server.port, databases(server.database.as_deref()))
        }
        Target::Mongodb(server) => {
            let host = match (&server.host, server.port) {
                (Some(host), Some(port)) => format!("{host}:{port}"),
                (Some(host), None) => host.clone(),
                (None, _) => "the deployment of the connection string".to_owned(),
            };
            format!("{host}{}", databases(server.database.as_deref()))
        }
        Target::Redis(server) => {
            let database = server.database.map(|number| format!(", database {number}")).unwrap_or_default();
            format!("{}:{}{database}", server.host, server.port)
        }
        Target::Volume(volume) if volume.paths.is_empty() => format!("claim {}", volume.claim_name),
        Target::Volume(volume) => format!("claim {}, only {}", volume.claim_name, volume.paths.join(", ")),
        Target::Config(config) => format!("claim {}, as files", config.claim_name),
    }
}

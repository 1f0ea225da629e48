//! Reads one run to its end and proves that it can be restored, as far as that can be proved without a target. Talks to the bucket, and
//! writes nothing.
//!
//! What a restore would refuse before it touches anything is refused here in the same words, by the same code; then every object is
//! downloaded and taken apart by the engine that would restore it. Damage is told apart from what could not be found out: whoever lacks the
//! key learns that the stored bytes are those that were written, and that this is all that could be seen.

use std::collections::BTreeSet;

use holdfast_crds::Reason;
use tracing::{error, info};

use super::pipeline::Downloads;
use super::{Attempt, integrity};
use crate::engine;
use crate::store::catalogue::trusted;
use crate::store::client::Bucket;
use crate::store::encryption::Identities;
use crate::store::keys::{PolicyFolder, slot_of_run};
use crate::store::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::task::{Failure, Outcome, Report, VerifyReport, VerifyTask};

pub(super) async fn run(task: &VerifyTask, attempt: &Attempt) -> Result<Report, Failure> {
    let bucket = Bucket::open(&task.store).await?;
    let identities = match &task.store.identity {
        Some(file) => integrity::identities(file, &task.store).await.map(Some),
        None => Ok(None),
    };
    let listed = listed(&bucket, task).await?;
    let mut look = Look { task, attempt, bucket, identities, read: VerifyReport::default(), gone: 0, listed };
    let mut found: Vec<Failure> = Vec::new();
    for source in &task.sources {
        match look.source(source).await {
            Ok(()) => info!(source, run = task.run_id, "it is as it was stored"),
            Err(failure) => {
                let failure = failure.about(source);
                error!(run = task.run_id, reason = %failure.reason, "{}", failure.message);
                let ends_all =
                    matches!(failure.reason, Reason::StoreUnreachable | Reason::StoreRefused | Reason::ClockSkew);
                found.push(failure);
                if ends_all {
                    break;
                }
            }
        }
    }
    if look.gone == task.sources.len() {
        let message = format!(
            "BackupStore {} holds nothing of run {}: was it deleted, or is the store's bucket or prefix another one now?",
            task.store.name, task.run_id
        );
        return Err(Failure::new(Reason::NoMatchingBackup, message));
    }
    Ok(told(task, found, look.read))
}

/// The keys that a restore's listing shows around this run.
async fn listed(bucket: &Bucket, task: &VerifyTask) -> Result<BTreeSet<String>, Failure> {
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    // As a restore lists: what hides a run from the policy's folder need not hide it from a listing of its own.
    let prefix = match slot_of_run(&task.run_id) {
        Some(slot) => folder.slot_prefix(slot),
        None => folder.run(&task.run_id).prefix().to_owned(),
    };
    Ok(bucket.list(&prefix).await?.into_iter().map(|object| object.key).collect())
}

/// Damage comes first: what could not be found out may come to light another time.
fn told(task: &VerifyTask, mut found: Vec<Failure>, read: VerifyReport) -> Report {
    let run = &task.run_id;
    let sum = format!("{} objects, {} bytes stored", read.objects, read.stored_bytes);
    found.sort_by_key(|failure| !failure.reason.is_damage());
    let Some(first) = found.first() else {
        let message = format!("run {run} was read to its end and is as it was stored: {sum}");
        return Report::completed(message, Some(Outcome::Verify(read)));
    };
    let (reason, all) = (first.reason, task.sources.len());
    let words = found.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>().join("; ");
    let damaged = found.iter().filter(|failure| failure.reason.is_damage()).count();
    let message = if damaged > 0 {
        format!("run {run} is damaged, {damaged} of {all} sources: {words}")
    } else {
        format!("run {run} could not be verified, {} of {all} sources: {words}; whole so far: {sum}", found.len())
    };
    Report { reason, message, outcome: Some(Outcome::Verify(read)) }
}

struct Look<'a> {
    task: &'a VerifyTask,
    attempt: &'a Attempt,
    bucket: Bucket,
    identities: Result<Option<Identities>, Failure>,
    read: VerifyReport,
    /// How many sources have no manifest any more.
    gone: usize,
    /// The keys that a listing shows.
    listed: BTreeSet<String>,
}

impl Look<'_> {
    async fn source(&mut self, source: &str) -> Result<(), Failure> {
        let folder = PolicyFolder::new(&self.task.store.s3, &self.task.scope);
        let key = folder.run(&self.task.run_id).source(source).manifest();
        let manifest = self.manifest(&folder, &key).await?;
        integrity::confirm_artifacts(&self.bucket, &manifest).await?;
        let sealed = match &self.identities {
            Ok(keys) => integrity::confirm_seal(&self.bucket, &key, &manifest, keys.as_ref(), &self.task.store).await,
            Err(unreadable) => {
                // Whether it is needed: a backup that is not encrypted needs no key.
                let known = integrity::confirm_seal(&self.bucket, &key, &manifest, None, &self.task.store).await;
                known.map_err(|failure| if failure.reason == Reason::KeyMissing { unreadable.clone() } else { failure })
            }
        };
        let keys = self.identities.as_ref().ok().cloned().flatten().unwrap_or_default();
        let mut downloads = Downloads::new(self.bucket.clone(), keys, self.attempt.progress.clone());
        match sealed {
            Ok(()) => engine::prove(&manifest, &mut downloads).await?,
            Err(failure) if matches!(failure.reason, Reason::KeyMissing | Reason::InvalidConfiguration) => {
                for artifact in &manifest.artifacts {
                    downloads.confirm_stored(artifact).await?;
                }
                let message = format!(
                    "{}; the stored bytes are those that were written, what is in them was not looked at",
                    failure.message
                );
                return Err(Failure::new(failure.reason, message));
            }
            Err(failure) => return Err(failure),
        }
        self.read.objects += manifest.artifacts.len();
        self.read.stored_bytes += manifest.artifacts.iter().map(|a| a.stored_bytes).sum::<u64>();
        Ok(())
    }

    /// The manifest, which must be there: the cluster knows that the run was complete.
    async fn manifest(&mut self, folder: &PolicyFolder, key: &str) -> Result<Manifest, Failure> {
        let damaged = |how: &str| {
            let message = format!("{key} {how}: this backup is damaged, take another one");
            Failure::new(Reason::ChecksumMismatch, message)
        };
        let Some(bytes) = self.bucket.get(key, MAX_MANIFEST_BYTES).await? else {
            self.gone += 1;
            return Err(damaged("is not there"));
        };
        if !self.listed.contains(key) {
            let unlisted = integrity::unlisted(&self.bucket, key).await;
            let message = format!("{}: restores go by such listings and would not find this backup", unlisted.message);
            return Err(Failure::new(unlisted.reason, message));
        }
        let manifest = Manifest::parse(&bytes).map_err(|failure| {
            if Manifest::is_of_later_format(&bytes) { failure } else { damaged(&format!("is {}", failure.message)) }
        })?;
        trusted(folder, key, manifest).map_err(|how| damaged(&how))
    }
}

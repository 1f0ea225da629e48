//! Saves one source of a run: everything it dumps, and then the manifest. Talks to the bucket and, through its engine, to the source.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_crds::Reason;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::pipeline::Uploads;
use super::{Attempt, writable};
use crate::engine;
use crate::hex::hex;
use crate::store::catalogue::{self, CatalogueRun};
use crate::store::client::Bucket;
use crate::store::encryption::Recipients;
use crate::store::keys::{PolicyFolder, SourceFolder};
use crate::store::manifest::{FORMAT_VERSION, MAX_MANIFEST_BYTES, Manifest};
use crate::task::{BackupReport, BackupTask, Failure, Outcome, Report};

/// How often a manifest is written that reads back as something else.
const MANIFEST_TRIES: u32 = 3;

pub(super) async fn run(task: &BackupTask, attempt: &Attempt) -> Result<Report, Failure> {
    writable(&task.store)?;
    let engine = task.source.engine().map(|e| e.kind()).unwrap_or_default();
    let bucket = Bucket::open(&task.store).await?;
    let folder = PolicyFolder::new(&task.store.s3, &task.scope).run(&task.run_id).source(&task.source.name);
    // An attempt before this one may have committed and died before it could say so.
    if let Some(bytes) = bucket.get(&folder.manifest(), MAX_MANIFEST_BYTES).await? {
        let manifest = Manifest::parse(&bytes).map_err(|failure| failure.about(&folder.manifest()))?;
        info!("an attempt before this one stored the source: {}", folder.manifest());
        return Ok(report(&folder, &manifest, &bytes));
    }
    if task.once
        && let Some(report) = made_before(&bucket, task).await?
    {
        return Ok(report);
    }
    let recipients = Recipients::parse(&task.store.recipients)?;
    let start_time = Timestamp::now();
    let mut uploads = Uploads::new(
        bucket.clone(),
        folder.clone(),
        &attempt.name,
        task.level,
        recipients.clone(),
        attempt.progress.clone(),
        attempt.ledger.clone(),
    );
    let dumped = match &task.safety_for {
        None => engine::dump(&task.source, &task.mounts, &attempt.scratch, &mut uploads).await?,
        Some(_) => match engine::existing(&task.source, &task.mounts, &attempt.scratch).await? {
            Some(source) => engine::dump(&source, &task.mounts, &attempt.scratch, &mut uploads).await?,
            // A manifest without artifacts: it is known that there was nothing.
            None => engine::Dumped { consistency: "snapshot".to_owned(), ..engine::Dumped::default() },
        },
    };
    let artifacts = uploads.into_entries();
    let mut manifest = Manifest {
        format_version: FORMAT_VERSION,
        run_id: task.run_id.clone(),
        cluster_uid: task.scope.cluster_uid.clone(),
        namespace: task.scope.namespace.clone(),
        policy: task.scope.policy.clone(),
        policy_uid: task.scope.policy_uid.clone(),
        source: task.source.name.clone(),
        engine: engine.to_owned(),
        run_sources: task.run_sources.clone(),
        slot: task.slot,
        start_time,
        end_time: Timestamp::now(),
        items: artifacts.iter().map(|a| a.items).sum(),
        artifacts,
        consistency: dumped.consistency,
        server_version: dumped.server_version,
        tool_version: dumped.tool_version,
        holdfast_version: env!("CARGO_PKG_VERSION").to_owned(),
        writer: task.writer.clone(),
        backup: Some(task.backup.clone()),
        safety_for: task.safety_for.clone(),
        seal: None,
        unknown: BTreeMap::new(),
    };
    manifest.seal = recipients.seal(&manifest.to_bytes()?)?;
    let bytes = manifest.to_bytes()?;
    commit(&bucket, &folder, &bytes, attempt).await?;
    Ok(report(&folder, &manifest, &bytes))
}

/// What was stored of the source by another run for the same slot of the same Backup: an object that came back without its status has another
/// UID, and so another folder. Nothing is stored for a slot twice.
///
/// # Errors
/// [`Reason::SlotPassed`] where there is such a run and it is not whole.
async fn made_before(bucket: &Bucket, task: &BackupTask) -> Result<Option<Report>, Failure> {
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    let catalogue = catalogue::read_slot(bucket, &folder, task.slot).await?;
    let is_it = |run: &&CatalogueRun| {
        run.run_id != task.run_id
            && run.cluster() == task.scope.cluster_uid
            && !run.is_safety()
            && run.manifests.values().all(|m| m.backup.as_ref().is_none_or(|name| *name == task.backup))
    };
    let Some(run) = catalogue.runs.iter().find(is_it) else { return Ok(None) };
    let source = folder.run(&run.run_id).source(&task.source.name);
    if let Some(manifest) = run.manifests.get(&task.source.name).filter(|_| run.is_complete())
        && let Some(bytes) = bucket.get(&source.manifest(), MAX_MANIFEST_BYTES).await?
    {
        info!("this slot was saved before: {}", source.manifest());
        let mut report = report(&source, manifest, &bytes);
        if let Some(Outcome::Backup(stored)) = &mut report.outcome {
            stored.run_id = Some(run.run_id.clone());
        }
        return Ok(Some(report));
    }
    let message = format!(
        "the bucket holds a part of this slot already, as run {}, and nothing is stored for a slot twice: to save what is there now create a \
         Backup without the annotation holdfast.dev/slot",
        run.run_id
    );
    Err(Failure::new(Reason::SlotPassed, message))
}

/// Writes the manifest and reads it back. From the moment it may be there, the artifacts it names are no longer this attempt's to undo.
async fn commit(bucket: &Bucket, folder: &SourceFolder, bytes: &Bytes, attempt: &Attempt) -> Result<(), Failure> {
    let key = folder.manifest();
    let written = attempt.ledger.take();
    // What came to harm on its way, there or back, is right the next time; a wrong one must not stay for the next attempt to find.
    for _ in 0..MANIFEST_TRIES {
        let put = bucket.put(&key, bytes.clone()).await;
        match bucket.get(&key, MAX_MANIFEST_BYTES).await {
            Ok(Some(stored)) if stored == *bytes => {
                if let Err(failure) = put {
                    warn!("the manifest is stored, though the store said otherwise: {failure}");
                }
                return Ok(());
            }
            Ok(Some(_)) => warn!("{key} reads back as something else than was written"),
            Ok(None) => {
                attempt.ledger.put_back(written);
                return Err(put.err().unwrap_or_else(|| {
                    Failure::new(Reason::StoreUnreachable, format!("{key} was accepted by the store and is not there: does something delete in the bucket, or does the endpoint lead to several servers?"))
                }));
            }
            Err(unread) => return Err(put.err().unwrap_or(unread)),
        }
    }
    Err(Failure::new(
        Reason::ChecksumMismatch,
        format!(
            "{key} reads back as something else than was written: another run writes to the same place, or the store is damaged"
        ),
    ))
}

fn report(folder: &SourceFolder, manifest: &Manifest, bytes: &[u8]) -> Report {
    let (key, sha256) = match manifest.artifacts.as_slice() {
        [one] => (one.key.clone(), one.stored_sha256.clone()),
        _ => (folder.manifest(), hex(&Sha256::digest(bytes))),
    };
    let sum = |of: fn(&crate::store::manifest::ArtifactEntry) -> u64| {
        i64::try_from(manifest.artifacts.iter().map(of).sum::<u64>()).unwrap_or(i64::MAX)
    };
    let backup = BackupReport {
        run_id: None,
        key,
        stored_bytes: sum(|a| a.stored_bytes),
        source_bytes: sum(|a| a.source_bytes),
        sha256,
        items: manifest.items,
        server_version: manifest.server_version.clone(),
        tool_version: manifest.tool_version.clone(),
        consistency: manifest.consistency.clone(),
        encrypted: manifest.artifacts.iter().all(|a| !a.encryption_key_ids.is_empty()),
    };
    Report::completed(
        format!("{}: {} items in {} bytes stored", manifest.source, backup.items, backup.stored_bytes),
        Some(Outcome::Backup(backup)),
    )
}

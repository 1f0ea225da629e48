//! Deletes runs: manifests first, then the objects they name, by exact key. Talks to the bucket.

use holdfast_crds::Reason;

use crate::store::catalogue::{self, CatalogueRun};
use crate::store::client::Bucket;
use crate::store::keys::PolicyFolder;
use crate::task::{DeleteTask, Failure, Outcome, Report, RetainReport, Scope};

use super::deletable;

pub(super) async fn run(task: &DeleteTask) -> Result<Report, Failure> {
    deletable(&task.store)?;
    let bucket = Bucket::open(&task.store).await?;
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    let catalogue = catalogue::read(&bucket, &folder).await?;
    // Of what cannot be read it is not known what belongs to it, nor whose it is.
    if let Some(why) = catalogue.doubt_of(&folder.run(&task.run_id)) {
        let message = format!("run {}: nothing of it was deleted, for the bucket is in doubt: {why}", task.run_id);
        return Err(Failure::new(Reason::ListIncomplete, message));
    }
    let Some(run) = catalogue.runs.iter().find(|r| r.run_id == task.run_id) else {
        return Ok(report(task, "nothing of it is in the bucket"));
    };
    // The policy may be gone by now, or be another of the same name: the run's own ID, which stems from the UID of its Backup, says
    // that it is ours, if only it is of this cluster.
    if is_foreign(run, &task.scope) {
        return Ok(report(task, &format!("left alone: it belongs to cluster {}", run.cluster())));
    }
    delete_run(&bucket, &folder, run).await?;
    Ok(report(task, "its data is deleted"))
}

fn report(task: &DeleteTask, what: &str) -> Report {
    let outcome = Outcome::Retain(RetainReport { deleted: vec![task.run_id.clone()], ..RetainReport::default() });
    Report::completed(format!("run {}: {what}", task.run_id), Some(outcome))
}

/// Whether another cluster made the run. A policy that was deleted and made anew under its name, in the same cluster, is no stranger:
/// no two policies of a cluster share a folder, so what is in it was this policy's, or will never be anybody's again.
pub(super) fn is_foreign(run: &CatalogueRun, scope: &Scope) -> bool {
    run.cluster() != scope.cluster_uid
}

/// Deletes one run. Once its first manifest is gone it is no complete backup any more, so no half of it can be mistaken for one.
pub(super) async fn delete_run(bucket: &Bucket, folder: &PolicyFolder, run: &CatalogueRun) -> Result<(), Failure> {
    let folder = folder.run(&run.run_id);
    for source in run.manifests.keys() {
        bucket.delete(&folder.source(source).manifest()).await?;
    }
    for artifact in run.manifests.values().flat_map(|m| &m.artifacts) {
        bucket.delete(&artifact.key).await?;
    }
    Ok(())
}

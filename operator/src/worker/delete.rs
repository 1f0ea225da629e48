//! Deletes runs: manifests first, then the objects they name, by exact key. Talks to the bucket.

use crate::store::catalogue::{self, CatalogueRun};
use crate::store::client::Bucket;
use crate::store::keys::PolicyFolder;
use crate::task::{DeleteTask, Failure, Outcome, Report, RetainReport, Scope};

use super::writable;

pub(super) async fn run(task: &DeleteTask) -> Result<Report, Failure> {
    writable(&task.store)?;
    let bucket = Bucket::open(&task.store).await?;
    let folder = PolicyFolder::new(&task.store.s3, &task.scope);
    let catalogue = catalogue::read(&bucket, &folder).await?;
    let Some(run) = catalogue.runs.iter().find(|r| r.run_id == task.run_id) else {
        return Ok(report(task, "nothing of it is in the bucket"));
    };
    // The policy may be gone by now, or be another of the same name: the run's own ID, which stems from the UID of its Backup, says
    // that it is ours, if only it is of this cluster.
    if let Some(stranger) = run.manifests.values().find(|manifest| manifest.cluster_uid != task.scope.cluster_uid) {
        return Ok(report(task, &format!("left alone: it belongs to cluster {}", stranger.cluster_uid)));
    }
    delete_run(&bucket, &folder, run).await?;
    Ok(report(task, "its data is deleted"))
}

fn report(task: &DeleteTask, what: &str) -> Report {
    let outcome = Outcome::Retain(RetainReport { deleted: vec![task.run_id.clone()], ..RetainReport::default() });
    Report::completed(format!("run {}: {what}", task.run_id), Some(outcome))
}

/// Whose run it is, where it is not ours: another cluster's or another policy's of the same name.
pub(super) fn foreign(run: &CatalogueRun, scope: &Scope) -> Option<String> {
    run.manifests.values().find_map(|manifest| {
        if manifest.cluster_uid != scope.cluster_uid {
            Some(format!("cluster {}", manifest.cluster_uid))
        } else if manifest.policy_uid != scope.policy_uid {
            Some(format!("a policy of the same name with UID {}", manifest.policy_uid))
        } else {
            None
        }
    })
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

//! Takes down in the bucket that a RestoreRequest is carried out, before a target is touched: a request that the cluster has forgotten
//! (its etcd was set back) does not run again. Talks to the bucket.

use bytes::Bytes;
use holdfast_crds::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::super::Attempt;
use crate::store::client::Bucket;
use crate::store::keys;
use crate::task::{Failure, POD_NAME_ENV, RestoreTask};

const FORMAT_VERSION: u32 = 1;
const MAX_BYTES: u64 = 64 * 1024;

/// What the object says, for people and for the next worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    format_version: u32,
    cluster_uid: String,
    namespace: String,
    request: String,
    request_uid: String,
    policy: String,
    run_id: String,
    /// The Pod, which is named after its Job, and the attempt's own six digits.
    pod: String,
    attempt: String,
    /// When, to the nanosecond: no other attempt writes the same bytes.
    time: Timestamp,
}

/// Whether the request was never carried out, as far as the bucket tells. A read-only store is asked too: it may once have been writable.
///
/// # Errors
/// [`Reason::AlreadyRun`] where it was.
pub(super) async fn confirm_first(bucket: &Bucket, task: &RestoreTask) -> Result<(), Failure> {
    match bucket.get(&key(task), MAX_BYTES).await? {
        Some(found) => Err(already_run(task, &found)),
        None => Ok(()),
    }
}

/// Takes down that the request is carried out now, by this attempt and no other. Into a read-only store nothing is written.
///
/// What is read back decides, not what the store answers: a write whose answer was lost is ours all the same, and a store that does not
/// know conditional writes may have let another one in.
///
/// # Errors
/// [`Reason::AlreadyRun`] where another attempt was first; else why it cannot be written.
pub(super) async fn take_down(
    bucket: &Bucket,
    task: &RestoreTask,
    run_id: &str,
    attempt: &Attempt,
) -> Result<(), Failure> {
    if task.store.read_only {
        return Ok(());
    }
    let key = key(task);
    let marker = Marker {
        format_version: FORMAT_VERSION,
        cluster_uid: task.scope.cluster_uid.clone(),
        namespace: task.scope.namespace.clone(),
        request: task.request.clone(),
        request_uid: task.request_uid.clone(),
        policy: task.scope.policy.clone(),
        run_id: run_id.to_owned(),
        pod: std::env::var(POD_NAME_ENV).unwrap_or_default(),
        attempt: attempt.name.clone(),
        time: Timestamp::now(),
    };
    let bytes = serde_json::to_vec_pretty(&marker).map_err(|e| {
        Failure::new(Reason::InvalidConfiguration, format!("{key} cannot be made: {e}; nothing was touched"))
    })?;
    let bytes = Bytes::from(bytes);
    confirm_first(bucket, task).await?;
    let put = bucket.put_if_absent(&key, bytes.clone()).await;
    match bucket.get(&key, MAX_BYTES).await {
        Ok(Some(found)) if found == bytes => {
            info!("{key} says that this request is carried out");
            Ok(())
        }
        Ok(Some(found)) => Err(already_run(task, &found)),
        Ok(None) => Err(untouched(&put.err().unwrap_or_else(|| {
            let message = format!("{key} was accepted by the store and is not there");
            Failure::new(Reason::StoreUnreachable, message)
        }))),
        Err(unread) => Err(untouched(&put.err().unwrap_or(unread))),
    }
}

fn key(task: &RestoreTask) -> String {
    keys::restore_marker(&task.store.s3, &task.scope.namespace, &task.request_uid)
}

fn already_run(task: &RestoreTask, found: &[u8]) -> Failure {
    let told = match serde_json::from_slice::<Marker>(found) {
        Ok(marker) => format!("Pod {} began it at {}, from run {}", marker.pod, marker.time, marker.run_id),
        Err(_) => "when and from which run it does not tell".to_owned(),
    };
    let message = format!(
        "RestoreRequest {}/{} was carried out before, as {} says: {told}. It never runs twice, also where the cluster has forgotten the first time; nothing was touched. To restore again create another RestoreRequest",
        task.scope.namespace,
        task.request,
        key(task)
    );
    Failure::new(Reason::AlreadyRun, message)
}

fn untouched(failure: &Failure) -> Failure {
    Failure::new(failure.reason, format!("{}; nothing was touched", failure.message))
}

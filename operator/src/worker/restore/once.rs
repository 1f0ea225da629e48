//! Takes down in the bucket that a RestoreRequest is carried out, before a target is touched: a request that the cluster has forgotten
//! (its etcd was set back) does not run again. Talks to the bucket.

use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_crds::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::super::Attempt;
use crate::store::client::Bucket;
use crate::store::keys;
use crate::task::{Failure, POD_NAME_ENV, RestoreTask};

const FORMAT_VERSION: u32 = 1;
const MAX_BYTES: u64 = 64 * 1024;
/// How long another attempt that came at the same time may take to withdraw.
const WITHDRAWAL_LIMIT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
    /// When.
    time: Timestamp,
}

/// Whether the request was never carried out, as far as the bucket tells. A read-only store is asked too: it may once have been writable.
///
/// # Errors
/// [`Reason::AlreadyRun`] where it was.
pub(super) async fn confirm_first(bucket: &Bucket, task: &RestoreTask) -> Result<(), Failure> {
    match markers(bucket, task).await?.first() {
        Some(first) => Err(already_run(bucket, task, first).await),
        None => Ok(()),
    }
}

/// Takes down that the request is carried out now, by this attempt and no other. Into a read-only store nothing is written.
///
/// Each attempt writes an object of its own and then lists: who is alone goes on. Of two that see each other none is alone, so the one with
/// the greater name takes its own away again and ends, and the other one waits for that. Whatever the order, two are never both alone: the
/// second to write lists after both were written. That asks nothing of a store but listings that show what was written, which each probe
/// proves; conditional writes are not needed, and some services take them and ignore the condition.
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
    let name = format!("{}-{:016x}", attempt.name, fastrand::u64(..));
    let own = keys::restore_marker(&task.store.s3, &task.scope.namespace, &task.request_uid, &name);
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
        Failure::new(Reason::InvalidConfiguration, format!("{own} cannot be made: {e}; nothing was touched"))
    })?;
    confirm_first(bucket, task).await?;
    // A write whose answer was lost is one all the same: what is listed decides.
    let mut put = bucket.put(&own, Bytes::from(bytes)).await.err();
    let until = Instant::now() + WITHDRAWAL_LIMIT;
    loop {
        let listed = match markers(bucket, task).await {
            Ok(listed) => listed,
            Err(unread) => return Err(untouched(&put.take().unwrap_or(unread))),
        };
        if !listed.contains(&own) {
            return Err(untouched(&put.take().unwrap_or_else(|| {
                let message = format!("{own} was accepted by the store and is not listed there");
                Failure::new(Reason::StoreUnreachable, message)
            })));
        }
        let Some(other) = listed.iter().find(|key| **key != own) else {
            info!("{own} says that this request is carried out");
            return Ok(());
        };
        if *other < own || Instant::now() >= until {
            let failure = already_run(bucket, task, other).await;
            if let Err(stays) = bucket.delete(&own).await {
                warn!("{own} stays, though nothing was carried out: {stays}");
            }
            return Err(failure);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Keys of all that say that the request is carried out, in their order.
async fn markers(bucket: &Bucket, task: &RestoreTask) -> Result<Vec<String>, Failure> {
    let prefix = keys::restore_markers(&task.store.s3, &task.scope.namespace, &task.request_uid);
    let mut keys: Vec<String> = bucket.list(&prefix).await?.into_iter().map(|object| object.key).collect();
    keys.sort();
    Ok(keys)
}

async fn already_run(bucket: &Bucket, task: &RestoreTask, key: &str) -> Failure {
    // Only for the message: that it is there was told by a listing.
    let found = bucket.get(key, MAX_BYTES).await.ok().flatten();
    let told = match found.and_then(|found| serde_json::from_slice::<Marker>(&found).ok()) {
        Some(marker) => format!("Pod {} began it at {}, from run {}", marker.pod, marker.time, marker.run_id),
        None => "when and from which run cannot be read there".to_owned(),
    };
    let message = format!(
        "RestoreRequest {}/{} was carried out before, as {key} says: {told}. It never runs twice, also where the cluster has forgotten the first time; nothing was touched. To restore again create another RestoreRequest",
        task.scope.namespace, task.request,
    );
    Failure::new(Reason::AlreadyRun, message)
}

fn untouched(failure: &Failure) -> Failure {
    Failure::new(failure.reason, format!("{}; nothing was touched", failure.message))
}

//! Proves a store: writes, reads, lists and deletes a canary object, which stays in an append-only store; of a read-only store it lists. Says whether anything of the namespace is
//! there, and whether the newest run of each policy still is. Talks to the bucket.

use bytes::Bytes;
use futures::StreamExt;
use holdfast_crds::Reason;
use jiff::Timestamp;
use tracing::warn;

use super::Attempt;
use crate::store::client::Bucket;
use crate::store::encryption::Recipients;
use crate::store::keys::{self, PolicyFolder};
use crate::task::{Failure, Outcome, ProbeReport, ProbeTask, Report, Scope};

/// Runs that are looked for side by side.
const LOOKERS: usize = 16;
/// At most this many runs are told to be missing: they fit into a termination message.
const MISSING_LIMIT: usize = 30;

pub(super) async fn run(task: &ProbeTask, attempt: &Attempt) -> Result<Report, Failure> {
    Recipients::parse(&task.store.recipients)?;
    let bucket = Bucket::open(&task.store).await?;
    let s3 = &task.store.s3;
    // First of all, because some services make a missing bucket for the first object that is written to it.
    bucket.list(&keys::canary_folder(s3)).await.map_err(|f| as_probe(&f, "list"))?;
    if task.store.read_only {
        let message = format!("bucket {} answers (read-only: nothing was written)", s3.bucket);
        return Ok(Report::completed(message, Some(look_around(&bucket, task).await)));
    }
    let key = if bucket.is_append_only() { keys::lasting_canary(s3) } else { keys::canary(s3, &attempt.name) };
    let content = Bytes::from(format!("holdfast canary {}\n", attempt.name));
    bucket.put(&key, content.clone()).await.map_err(|f| as_probe(&f, "write to"))?;
    let result = read_and_list(&bucket, task, &key, &content).await;
    if bucket.is_append_only() {
        result?;
        let message =
            format!("canary object {key} was written, read and listed in bucket {} (append-only: it stays)", s3.bucket);
        return Ok(Report::completed(message, Some(look_around(&bucket, task).await)));
    }
    // The canary goes whatever became of it; what went wrong first is what is told.
    let deleted = bucket.delete(&key).await.map_err(|f| as_probe(&f, "delete from"));
    result.and(deleted)?;
    let message = format!("a canary object was written, read, listed and deleted in bucket {}", s3.bucket);
    Ok(Report::completed(message, Some(look_around(&bucket, task).await)))
}

/// Whether anything of the namespace is there. It is no part of the proof: credentials may be allowed to list the policies' folders and no
/// other, and then it is not known.
async fn look_around(bucket: &Bucket, task: &ProbeTask) -> Outcome {
    let begun = Timestamp::now();
    let empty = bucket.is_empty(&keys::namespace_folder(&task.store.s3, &task.namespace)).await;
    Outcome::Probe(ProbeReport {
        empty_at: matches!(empty, Ok(true)).then_some(begun),
        missing: missing(bucket, task).await,
    })
}

/// Of the runs that should be there those that the store says it does not have. One that cannot be looked at is not missed.
async fn missing(bucket: &Bucket, task: &ProbeTask) -> Vec<String> {
    let look = |text: &'_ String| {
        let text = text.clone();
        async move {
            let (policy, run_id, source) = {
                let mut parts = text.splitn(3, '/');
                (parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?.to_owned())
            };
            let scope = Scope {
                cluster_uid: String::new(),
                namespace: task.namespace.clone(),
                policy: policy.clone(),
                policy_uid: String::new(),
            };
            let key = PolicyFolder::new(&task.store.s3, &scope).run(&run_id).source(&source).manifest();
            match bucket.is_gone(&key).await {
                Ok(gone) => gone.then(|| format!("{policy}/{run_id}")),
                Err(failure) => {
                    warn!("it is not known whether {key} is there: {failure}");
                    None
                }
            }
        }
    };
    let mut missing: Vec<String> = futures::stream::iter(&task.newest)
        .map(look)
        .buffer_unordered(LOOKERS)
        .filter_map(std::future::ready)
        .collect()
        .await;
    missing.sort();
    missing.truncate(MISSING_LIMIT);
    missing
}

async fn read_and_list(bucket: &Bucket, task: &ProbeTask, key: &str, content: &Bytes) -> Result<(), Failure> {
    let read = bucket.get(key, 4096).await.map_err(|f| as_probe(&f, "read from"))?;
    if read.as_ref() != Some(content) {
        return Err(Failure::new(
            Reason::ChecksumMismatch,
            format!(
                "bucket {} gives back something else than was written to {key}: is there a cache in front of it, or does somebody else write there?",
                task.store.s3.bucket
            ),
        ));
    }
    let listed = bucket.list(&keys::canary_folder(&task.store.s3)).await.map_err(|f| as_probe(&f, "list"))?;
    if listed.iter().any(|object| object.key == key) {
        return Ok(());
    }
    Err(Failure::new(
        Reason::ListIncomplete,
        format!(
            "bucket {} does not list {key}, which was just written to it: restores and retention go by such lists, so another S3 service is needed",
            task.store.s3.bucket
        ),
    ))
}

/// In the words of a store's condition.
fn as_probe(failure: &Failure, doing: &str) -> Failure {
    let reason = match failure.reason {
        Reason::StoreUnreachable => Reason::Unreachable,
        other => other,
    };
    Failure::new(reason, format!("cannot {doing} the bucket: {}", failure.message))
}

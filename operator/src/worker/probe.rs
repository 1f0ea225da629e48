//! Proves a store: writes, reads, lists and deletes a canary object, which stays in an append-only store; of a read-only store it lists. Says
//! whether anything of the namespace is there, and whether the newest run of each policy still is. Talks to the bucket.

use bytes::Bytes;
use futures::StreamExt;
use holdfast_crds::Reason;
use jiff::Timestamp;
use tracing::warn;

use super::{Attempt, integrity};
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
        return Ok(look_around(&bucket, task, message).await);
    }
    let key = if bucket.is_append_only() {
        keys::lasting_canary(s3, &task.namespace, &task.store.name)
    } else {
        keys::canary(s3, &attempt.name)
    };
    let content = Bytes::from(format!("holdfast canary {}\n", attempt.name));
    bucket.put(&key, content.clone()).await.map_err(|f| as_probe(&f, "write to"))?;
    let result = read_and_list(&bucket, task, &key, &content).await;
    let heeds = match &result {
        Ok(()) => bucket.heeds_conditions(&key, content).await,
        Err(_) => None,
    };
    let mut message = if bucket.is_append_only() {
        result?;
        format!("canary object {key} was written, read and listed in bucket {} (append-only: it stays)", s3.bucket)
    } else {
        // The canary goes whatever became of it; what went wrong first is what is told.
        let deleted = bucket.delete(&key).await.map_err(|f| as_probe(&f, "delete from"));
        result.and(deleted)?;
        format!("a canary object was written, read, listed and deleted in bucket {}", s3.bucket)
    };
    if heeds == Some(false) {
        message.push_str("; the store writes over objects against the condition of the request (If-None-Match): nothing of Holdfast's rests on that, what else writes there may");
    }
    Ok(look_around(&bucket, task, message).await)
}

/// Whether anything of the namespace is there. It is no part of the proof: credentials may be allowed to list the policies' folders and no
/// other, and then it is not known. Nor is what hides runs from listings: backups must go on, and it is for people to move it away.
async fn look_around(bucket: &Bucket, task: &ProbeTask, mut message: String) -> Report {
    let begun = Timestamp::now();
    let empty = bucket.is_empty(&keys::namespace_folder(&task.store.s3, &task.namespace)).await;
    let looked: Vec<(String, Look)> = futures::stream::iter(&task.newest)
        .map(|text| look(bucket, task, text.clone()))
        .buffer_unordered(LOOKERS)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let (mut missing, mut hidden) = (Vec::new(), Vec::new());
    for (run, look) in looked {
        match look {
            Look::There => {}
            Look::Gone => missing.push(run),
            Look::Hidden(why) => hidden.push(why),
        }
    }
    missing.sort();
    missing.truncate(MISSING_LIMIT);
    hidden.sort();
    if let Some(first) = hidden.first() {
        message =
            format!("{message}; restores and retention go by listings, and {} runs are in none: {first}", hidden.len());
    }
    let report = ProbeReport { empty_at: matches!(empty, Ok(true)).then_some(begun), missing };
    Report::completed(message, Some(Outcome::Probe(report)))
}

/// What becomes of looking for a run that should be there.
enum Look {
    There,
    Gone,
    /// It is there, and no listing shows it, for this reason: nothing could be restored.
    Hidden(String),
}

/// Looks for a run, `<policy>/<runId>/<source>`, by its manifest. One that cannot be looked at is not missed.
async fn look(bucket: &Bucket, task: &ProbeTask, text: String) -> Option<(String, Look)> {
    let mut parts = text.splitn(3, '/');
    let (policy, run_id, source) = (parts.next()?, parts.next()?, parts.next()?);
    let scope = Scope {
        cluster_uid: String::new(),
        namespace: task.namespace.clone(),
        policy: policy.to_owned(),
        policy_uid: String::new(),
    };
    let folder = PolicyFolder::new(&task.store.s3, &scope);
    let key = folder.run(run_id).source(source).manifest();
    let look = match bucket.head(&key).await {
        Ok(None) => Look::Gone,
        Ok(Some(_)) if matches!(bucket.is_empty(folder.prefix()).await, Ok(true)) => {
            Look::Hidden(integrity::unlisted(bucket, &key).await.message)
        }
        Ok(Some(_)) => Look::There,
        Err(failure) => {
            warn!("it is not known whether {key} is there: {failure}");
            return None;
        }
    };
    Some((format!("{policy}/{run_id}"), look))
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

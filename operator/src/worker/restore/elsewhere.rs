//! What is in the bucket where nothing of the policy is: the names next to the one that was asked for. Talks to the bucket.

use holdfast_crds::S3Spec;

use crate::store::catalogue::Catalogue;
use crate::store::client::Bucket;
use crate::store::keys;
use crate::task::{Failure, RestoreTask};

/// At most this many names are told.
const NAMES: usize = 10;

/// The failure with what is there instead, where the policy's folder holds nothing at all: its name, the namespace's or the prefix may be
/// written in another way. Only for the message: a bucket that does not answer now changes nothing.
pub(super) async fn told(bucket: &Bucket, task: &RestoreTask, catalogue: &Catalogue, mut failure: Failure) -> Failure {
    if !catalogue.runs.is_empty() || !catalogue.in_doubt.is_empty() {
        return failure;
    }
    let (s3, namespace) = (&task.store.s3, &task.scope.namespace);
    let policies = names(bucket, &keys::namespace_folder(s3, namespace)).await;
    let namespaces = if policies.is_empty() { names(bucket, &keys::root_folder(s3)).await } else { Vec::new() };
    let below = if s3.prefix().is_empty() { "in the bucket" } else { "below this prefix" };
    let there = match (policies.is_empty(), namespaces.is_empty()) {
        (false, _) => format!("this namespace has the policies {}", listed(&policies)),
        (true, false) => {
            format!("nothing is there of this namespace; {below} are the namespaces {}", listed(&namespaces))
        }
        (true, true) => {
            let prefixes = if s3.prefix().is_empty() { Vec::new() } else { names(bucket, "").await };
            let has = if prefixes.is_empty() { String::new() } else { format!("it has {}; ", listed(&prefixes)) };
            format!(
                "{below} is nothing at all ({}): {has}correct spec.s3.bucket or spec.s3.prefix of BackupStore {}",
                place(s3),
                task.store.name
            )
        }
    };
    failure.message = format!("{}; {there}", failure.message);
    failure
}

fn place(s3: &S3Spec) -> String {
    match s3.prefix() {
        "" => format!("bucket {}", s3.bucket),
        prefix => format!("prefix {prefix} of bucket {}", s3.bucket),
    }
}

async fn names(bucket: &Bucket, folder: &str) -> Vec<String> {
    let mut names = bucket.folders(folder).await.unwrap_or_default();
    // Folders of Holdfast's own begin with a dot, and no name of Kubernetes does.
    names.retain(|name| !name.starts_with('.'));
    names
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.iter().take(NAMES).map(String::as_str).collect::<Vec<_>>().join(", "))
}

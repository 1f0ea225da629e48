//! What an S3 service's errors mean. Pure.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use holdfast_crds::Reason;

use crate::task::Failure;

/// An error of the service as a failure that names the bucket, the key and what to check.
pub(super) fn failure<E>(bucket: &str, key: &str, error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|r| r.status().as_u16());
    let code = error.code().unwrap_or_default();
    let place = if key.is_empty() { format!("bucket {bucket}") } else { format!("{key} in bucket {bucket}") };
    let said = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => status.map_or_else(|| short(error), |status| format!("status {status}")),
    };
    let (reason, advice) = match (status, code) {
        (_, "NoSuchBucket") => (Reason::BucketNotFound, "create the bucket, or correct spec.s3.bucket"),
        (_, "RequestTimeTooSkewed") => (Reason::StoreUnreachable, "the clock of this node or of the store is wrong"),
        (_, "ExpiredToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") => {
            (Reason::StoreRefused, "check the keys in the store's credentialsSecret")
        }
        (Some(507), _) | (_, "XMinioStorageFull" | "StorageFull" | "QuotaExceeded") => {
            (Reason::NoSpace, "the store is full")
        }
        (Some(401 | 403), _) => (
            Reason::StoreRefused,
            "check the keys in the store's credentialsSecret and what they may do with the bucket",
        ),
        (Some(301 | 307), _) => (Reason::StoreRefused, "the bucket is in another region: correct spec.s3.region"),
        (Some(status), _) if (400..500).contains(&status) && status != 408 && status != 429 => {
            (Reason::StoreRefused, "the store does not accept the request")
        }
        (Some(_), _) => (Reason::StoreUnreachable, "the store is in trouble"),
        (None, _) if is_about_credentials(error) => (Reason::StoreRefused, "no credentials can be had for the store"),
        (None, _) => (Reason::StoreUnreachable, "check spec.s3.endpoint and whether the store is up"),
    };
    Failure::new(reason, format!("{place}: {said} ({advice})"))
}

/// Whether it says that there is no such object.
pub(super) fn is_not_found<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|r| r.status().as_u16() == 404) && error.code() != Some("NoSuchBucket")
}

fn is_about_credentials<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::DispatchFailure(dispatch) => dispatch.is_user() || dispatch.is_other(),
        _ => false,
    }
}

/// The innermost cause is what tells a person something: "connection refused", not "dispatch failure".
fn short<E: std::error::Error + Send + Sync + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    if text.is_empty() { DisplayErrorContext(error).to_string() } else { text }
}

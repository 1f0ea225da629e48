//! Whether a backup is all there and is what was stored, found out without reading it through. Talks to the bucket.

use std::collections::BTreeSet;
use std::path::Path;

use holdfast_crds::Reason;
use tracing::warn;

use crate::store::catalogue;
use crate::store::client::Bucket;
use crate::store::encryption::Identities;
use crate::store::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::task::{Failure, StoreTask, THE_SECRET};

/// That the listing lacks what is there, and which object hides it, if one does.
pub(super) async fn unlisted(bucket: &Bucket, key: &str) -> Failure {
    let hidden = catalogue::hidden_by(bucket, key).await.map(|words| format!(": {words}"));
    let message = format!("{key} is in the bucket and not in its listing{}", hidden.unwrap_or_default());
    Failure::new(Reason::ListIncomplete, message)
}

/// Every object of a backup must be there in its full size, and be such that it can be read.
pub(super) async fn confirm_artifacts(bucket: &Bucket, manifest: &Manifest) -> Result<(), Failure> {
    for artifact in &manifest.artifacts {
        let head = bucket.look(&artifact.key).await?;
        if let Some(why) = head.as_ref().and_then(|head| head.archived.as_ref()) {
            return Err(Failure::new(Reason::InvalidConfiguration, format!("{} {why}", artifact.key)));
        }
        let found = head.map(|head| head.size);
        if found != Some(artifact.stored_bytes) {
            let found = found.map_or_else(|| "is not there".to_owned(), |size| format!("has {size} bytes"));
            return Err(Failure::new(
                Reason::ChecksumMismatch,
                format!(
                    "{} {found}, and its manifest says {} bytes: this backup is damaged, take another one",
                    artifact.key, artifact.stored_bytes
                ),
            ));
        }
    }
    Ok(())
}

/// The private keys of a store.
pub(super) async fn identities(file: &Path, store: &StoreTask) -> Result<Identities, Failure> {
    let content = tokio::fs::read(file).await.map_err(|e| {
        Failure::new(Reason::KeyMissing, format!("{THE_SECRET} in spec.encryption.identitySecret cannot be read: {e}"))
    });
    let identities =
        content.and_then(|content| Identities::parse(&content)).map_err(|failure| named(failure, store))?;
    let passed_over = identities.passed_over();
    if !passed_over.is_empty() {
        warn!("{}: {passed_over}", store.identity_secret.as_deref().unwrap_or(THE_SECRET));
    }
    Ok(identities)
}

/// With the name of the Secret that the private keys come from.
fn named(failure: Failure, store: &StoreTask) -> Failure {
    match &store.identity_secret {
        Some(secret) => Failure::new(failure.reason, failure.message.replacen(THE_SECRET, secret, 1)),
        None => failure,
    }
}

/// An encrypted backup must be one that can be decrypted, and its manifest be as it was sealed.
pub(super) async fn confirm_seal(
    bucket: &Bucket,
    key: &str,
    manifest: &Manifest,
    identities: Option<&Identities>,
    store: &StoreTask,
) -> Result<(), Failure> {
    let encrypted = manifest.artifacts.iter().any(|a| !a.encryption_key_ids.is_empty());
    if !encrypted && manifest.seal.is_none() && store.recipients.is_empty() {
        return Ok(());
    }
    if !encrypted && manifest.seal.is_none() {
        let message = format!(
            "{key}: BackupStore {} encrypts and this backup is not encrypted: it is from before that was turned on, or somebody has put it there. If you know it, restore it from a BackupStore of the same bucket without spec.encryption (with readOnly: true)",
            store.name
        );
        return Err(Failure::new(Reason::InvalidConfiguration, message));
    }
    let ids: BTreeSet<&str> =
        manifest.artifacts.iter().flat_map(|a| &a.encryption_key_ids).map(String::as_str).collect();
    let ids = ids.into_iter().collect::<Vec<_>>().join(", ");
    let Some(identities) = identities else {
        let message = format!(
            "this backup is encrypted to the keys {ids}: name a Secret with one of their private keys in spec.encryption.identitySecret of the BackupStore"
        );
        return Err(Failure::new(Reason::KeyMissing, message).about(key));
    };
    let Some(seal) = &manifest.seal else {
        let message = "the backup is encrypted and its manifest has lost its seal; take another backup";
        return Err(Failure::new(Reason::ChecksumMismatch, message).about(key));
    };
    let stored = bucket
        .get(key, MAX_MANIFEST_BYTES)
        .await?
        .ok_or_else(|| Failure::new(Reason::ChecksumMismatch, format!("{key} was there a moment ago and is gone")))?;
    if Manifest::parse(&stored)? != *manifest {
        let message = "the manifest was changed a moment ago".to_owned();
        return Err(Failure::new(Reason::ChecksumMismatch, message).about(key));
    }
    identities.confirm(&stored, seal).map_err(|failure| match failure.reason {
        Reason::KeyMissing => {
            let message = format!(
                "{}: it is encrypted to the keys {ids}, and the private key of one of them belongs there",
                failure.message
            );
            named(Failure::new(failure.reason, message), store).about(key)
        }
        _ => failure.about(key),
    })
}

//! The bucket. Talks to S3.
//!
//! Every request is tried again while what stops it may pass (network, 5xx, 429), for as long as the task's
//! [`StorePatience`](crate::task::StorePatience) says and no longer, so that a run whose store is gone ends with its reason within two minutes.
//! A request that does not move counts as stopped.

mod advice;
mod body;
mod clocks;
mod connect;
mod credentials;
mod headers;
mod listing;
mod patience;
mod trouble;
mod trying;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use holdfast_crds::Reason;
use jiff::Timestamp;
use tracing::warn;

use crate::task::{Failure, StorePatience, StoreTask};
use advice::Objects;
use body::Clock;
use clocks::Watch;
use headers::Headers;
use trouble::{Kind, Trouble};
use trying::within;

pub use clocks::Clocks;

/// How long a store may take to put the parts of a large object together.
const COMPLETE_LIMIT: Duration = Duration::from_secs(90);

/// A bucket. Clones share connections and credentials.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: Arc<str>,
    /// The store in words: its name, the bucket and where it is.
    words: Arc<str>,
    objects: Arc<Objects>,
    headers: Arc<Headers>,
    append_only: bool,
    patience: StorePatience,
    /// Whether the store has answered before, and taken the credentials: then it may be back soon, and a refusal may be a rotation that is
    /// under way. False again once patience with it was over.
    answered: Arc<AtomicBool>,
    clocks: Watch,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: Option<Timestamp>,
}

/// A part that the store has, as the completion of its upload must name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadedPart {
    number: i32,
    etag: String,
    crc32c: String,
}

impl Bucket {
    /// Prepares a bucket for use; sends nothing yet.
    ///
    /// # Errors
    /// [`Reason::InvalidConfiguration`] where certificates cannot be read.
    pub async fn open(store: &StoreTask) -> Result<Self, Failure> {
        let clocks = Watch::default();
        let client = connect::client(store, clocks.clone()).await?;
        let place = store.s3.endpoint.clone().unwrap_or_else(|| format!("AWS {}", store.s3.region));
        let words = format!("store {}, bucket {} at {place}", store.name, store.s3.bucket);
        Ok(Self {
            client,
            name: store.s3.bucket.as_str().into(),
            words: words.into(),
            objects: Arc::new(Objects::of(store)),
            headers: Arc::new(Headers::of(&store.s3)),
            append_only: store.append_only,
            patience: store.patience,
            answered: Arc::new(AtomicBool::new(false)),
            clocks,
        })
    }

    /// What the store's clock and this node's said when it answered last; none where it does not tell the time.
    pub fn clocks(&self) -> Option<Clocks> {
        self.clocks.last()
    }

    /// All objects whose key begins with `prefix`, to the last page.
    ///
    /// # Errors
    /// [`Reason::ListIncomplete`] for a listing that contradicts itself; else why the store fails.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, Failure> {
        listing::all(self, prefix).await
    }

    /// Whether a listing shows no object whose key begins with `prefix`.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn is_empty(&self, prefix: &str) -> Result<bool, Failure> {
        listing::is_empty(self, prefix).await
    }

    /// Names of the folders directly below a prefix, which is empty or ends with a slash: the first thousand. For messages: they prove
    /// nothing.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        listing::folders(self, prefix).await
    }

    /// The content of an object, all of it in memory; none where there is no such object.
    ///
    /// # Errors
    /// [`Reason::ChecksumMismatch`] for one larger than `max_bytes`; else why the store fails.
    pub async fn get(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, Failure> {
        let what = format!("read {key}");
        let result = self.retrying(&what, || async {
            let reply = self.within(self.client.get_object().bucket(&*self.name).key(key).send()).await?;
            let mut body = self.body(reply.body);
            let mut content = BytesMut::new();
            while let Some(piece) = body.next().await.map_err(|f| Trouble::passing(f.message))? {
                if content.len() as u64 + piece.len() as u64 > max_bytes {
                    return Err(Trouble::of(Kind::Damaged, format!("{key} is larger than {max_bytes} bytes")));
                }
                content.extend_from_slice(&piece);
            }
            match reply.content_length {
                Some(length) if u64::try_from(length).ok() != Some(content.len() as u64) => {
                    Err(Trouble::passing(format!("the answer ended after {} of {length} bytes", content.len())))
                }
                _ => Ok(content.freeze()),
            }
        });
        optional(result.await).map_err(|t| self.failure(&what, &t))
    }

    /// The body of an object from byte `offset` on.
    ///
    /// # Errors
    /// [`Reason::ChecksumMismatch`] where the object is not there or ends before `offset`; else why the store fails.
    pub async fn open_read(&self, key: &str, offset: u64) -> Result<ObjectBody, Failure> {
        let what = format!("read {key}");
        let result = self.retrying(&what, || async {
            let range = (offset > 0).then(|| format!("bytes={offset}-"));
            let request = self.client.get_object().bucket(&*self.name).key(key).set_range(range);
            let reply = self.within(request.send()).await?;
            if starts_at(&reply, offset) {
                Ok(self.body(reply.body))
            } else {
                Err(Trouble::passing(format!("the store does not continue at byte {offset}")))
            }
        });
        result.await.map_err(|t| match t.kind {
            Kind::NotFound => self.failure(&what, &Trouble::of(Kind::Damaged, "there is no such object".to_owned())),
            _ => self.failure(&what, &t),
        })
    }

    /// The size of an object; none where there is no such object.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn head(&self, key: &str) -> Result<Option<u64>, Failure> {
        let what = format!("look at {key}");
        let result = self.retrying(&what, || async {
            let reply = self.within(self.client.head_object().bucket(&*self.name).key(key).send()).await?;
            reply
                .content_length
                .and_then(|length| u64::try_from(length).ok())
                .ok_or_else(|| Trouble::passing("the answer has no size".to_owned()))
        });
        optional(result.await).map_err(|t| self.failure(&what, &t))
    }

    /// Whether the store says in so many words that there is no such object. An answer to a HEAD has no body, and a 404 may come from
    /// whatever stands before a store: only S3's own word for it counts.
    ///
    /// # Errors
    /// Why the store fails, or what it says instead.
    pub async fn is_gone(&self, key: &str) -> Result<bool, Failure> {
        if self.head(key).await?.is_some() {
            return Ok(false);
        }
        let what = format!("look whether {key} is gone");
        let result = self.retrying(&what, || async {
            let request = self.client.get_object().bucket(&*self.name).key(key);
            match tokio::time::timeout(self.still(), request.send()).await {
                Ok(Ok(_)) => Ok(false),
                Ok(Err(error)) if error.code() == Some("NoSuchKey") => Ok(true),
                Ok(Err(error)) => Err(match Trouble::from_sdk(&error, Timestamp::now()) {
                    trouble if trouble.kind == Kind::NotFound => Trouble { kind: Kind::Refused, ..trouble },
                    trouble => trouble,
                }),
                Err(_) => Err(Trouble::standstill("no answer for", self.still())),
            }
        });
        result.await.map_err(|t| self.failure(&what, &t))
    }

    /// Writes an object in one request.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn put(&self, key: &str, content: Bytes) -> Result<(), Failure> {
        self.send(key, &content, None).await.map_err(|t| self.refused(&format!("write {key}"), &t))
    }

    /// Writes an object unless there is one. It tells nothing of who wrote what is there afterwards: a try whose answer was lost finds
    /// its own object, and a store that knows no conditions (`If-None-Match`) writes in any case. What is read back decides.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn put_if_absent(&self, key: &str, content: Bytes) -> Result<(), Failure> {
        match self.send(key, &content, Some("*")).await {
            Ok(()) => Ok(()),
            Err(trouble) if trouble.kind == Kind::Exists => Ok(()),
            Err(trouble) if trouble.kind == Kind::Refused => {
                warn!("{key} cannot be written on a condition: {}; writing it without", trouble.why);
                self.put(key, content).await
            }
            Err(trouble) => Err(self.refused(&format!("write {key}"), &trouble)),
        }
    }

    async fn send(&self, key: &str, content: &Bytes, unless: Option<&str>) -> Result<(), Trouble> {
        let crc32c = crc32c(content);
        let attempt = || async {
            let clock = Clock::start();
            let request = self
                .client
                .put_object()
                .bucket(&*self.name)
                .key(key)
                .checksum_crc32_c(&crc32c)
                .content_length(i64::try_from(content.len()).unwrap_or(i64::MAX))
                .set_if_none_match(unless.map(str::to_owned))
                .set_server_side_encryption(self.headers.encryption.clone())
                .set_ssekms_key_id(self.headers.kms_key.clone())
                .set_storage_class(self.headers.storage_class.clone())
                .set_tagging(self.headers.tagging.clone())
                .body(ByteStream::new(clock.watch(content.clone())));
            self.moving(&clock, Box::pin(request.send())).await.map(drop)
        };
        self.retrying(&format!("write {key}"), attempt).await
    }

    /// Whether nothing in it may be deleted.
    pub fn is_append_only(&self) -> bool {
        self.append_only
    }

    /// Deletes an object; it is a success if there is none.
    ///
    /// # Errors
    /// Why the store fails; [`Reason::StoreAppendOnly`] where nothing may be deleted, and then nothing is sent.
    pub async fn delete(&self, key: &str) -> Result<(), Failure> {
        if self.append_only {
            let message = format!("{}: {key} stays: the store is append-only (spec.appendOnly)", self.words);
            return Err(Failure::new(Reason::StoreAppendOnly, message));
        }
        let what = format!("delete {key}");
        let result = self.retrying(&what, || async {
            self.within(self.client.delete_object().bucket(&*self.name).key(key).send()).await.map(drop)
        });
        optional(result.await).map(drop).map_err(|trouble| match trouble.kind {
            Kind::Forbidden => {
                let why = format!(
                    "{}; either the key may not delete (if it is not meant to, set spec.appendOnly: true), or the object is locked, and goes once its lock has ended",
                    trouble.why
                );
                self.failure(&what, &Trouble { why, ..trouble })
            }
            _ => self.failure(&what, &trouble),
        })
    }

    /// Begins an upload in parts.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn create_upload(&self, key: &str) -> Result<String, Failure> {
        let what = format!("begin the upload of {key}");
        let result = self.retrying(&what, || async {
            let request = self
                .client
                .create_multipart_upload()
                .bucket(&*self.name)
                .key(key)
                .checksum_algorithm(ChecksumAlgorithm::Crc32C)
                .set_server_side_encryption(self.headers.encryption.clone())
                .set_ssekms_key_id(self.headers.kms_key.clone())
                .set_storage_class(self.headers.storage_class.clone())
                .set_tagging(self.headers.tagging.clone());
            let reply = self.within(request.send()).await?;
            reply
                .upload_id
                .filter(|id| !id.is_empty())
                .ok_or_else(|| Trouble::passing("the answer has no upload ID".to_owned()))
        });
        result.await.map_err(|t| self.refused(&what, &t))
    }

    /// Uploads one part (`number` from 1).
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn upload_part(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        content: Bytes,
    ) -> Result<UploadedPart, Failure> {
        let what = format!("upload part {number} of {key}");
        let crc32c = crc32c(&content);
        let result = self.retrying(&what, || async {
            let clock = Clock::start();
            let request = self
                .client
                .upload_part()
                .bucket(&*self.name)
                .key(key)
                .upload_id(upload)
                .part_number(number)
                .checksum_crc32_c(&crc32c)
                .content_length(i64::try_from(content.len()).unwrap_or(i64::MAX))
                .body(ByteStream::new(clock.watch(content.clone())));
            let reply = self.moving(&clock, Box::pin(request.send())).await?;
            match reply.e_tag {
                Some(etag) => Ok(UploadedPart { number, etag, crc32c: crc32c.clone() }),
                None => Err(Trouble::passing("the answer has no ETag".to_owned())),
            }
        });
        result.await.map_err(|t| self.failure(&what, &t))
    }

    /// Makes the object of its parts. Parts may come in any order.
    ///
    /// # Errors
    /// Why the store fails, also where it says so in an answer that begins as a success.
    pub async fn complete_upload(&self, key: &str, upload: &str, mut parts: Vec<UploadedPart>) -> Result<(), Failure> {
        let what = format!("complete the upload of {key}");
        parts.sort_by_key(|part| part.number);
        let named = parts
            .into_iter()
            .map(|p| CompletedPart::builder().part_number(p.number).e_tag(p.etag).checksum_crc32_c(p.crc32c).build())
            .collect();
        let named = CompletedMultipartUpload::builder().set_parts(Some(named)).build();
        let result = self.retrying(&what, || async {
            let request = self
                .client
                .complete_multipart_upload()
                .bucket(&*self.name)
                .key(key)
                .upload_id(upload)
                .multipart_upload(named.clone());
            // What it has not answered by then it may have done: it is asked once more.
            let reply =
                within(COMPLETE_LIMIT, request.send()).await.map_err(|t| Trouble { still: Duration::ZERO, ..t })?;
            // An answer of 200 may still hold an error, or nothing at all.
            if reply.e_tag.is_some() { Ok(()) } else { Err(Trouble::passing("the answer names no object".to_owned())) }
        });
        match result.await {
            // Completed by a try before this one whose answer was lost. Whether it is the object is for the caller's size check to say.
            Err(trouble) if trouble.kind == Kind::NotFound && self.head(key).await?.is_some() => Ok(()),
            result => result.map_err(|t| self.failure(&what, &t)),
        }
    }

    /// Gives an upload up: the store drops its parts. It is a success if there is no such upload.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), Failure> {
        let what = format!("abort the upload of {key}");
        let result = self.retrying(&what, || async {
            let request = self.client.abort_multipart_upload().bucket(&*self.name).key(key).upload_id(upload);
            self.within(request.send()).await.map(drop)
        });
        optional(result.await).map(drop).map_err(|t| self.failure(&what, &t))
    }

    /// Gives up every upload of this key: also one whose beginning was never answered. A store that cannot list uploads has its
    /// own rule for what is left of them.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn abort_uploads(&self, key: &str) -> Result<(), Failure> {
        let what = format!("list the uploads of {key}");
        let result = self.retrying(&what, || async {
            self.within(self.client.list_multipart_uploads().bucket(&*self.name).prefix(key).send()).await
        });
        let listed = optional(result.await).map_err(|t| self.failure(&what, &t))?;
        for upload in listed.iter().flat_map(ListMultipartUploadsOutput::uploads).filter(|u| u.key() == Some(key)) {
            self.abort_upload(key, upload.upload_id().unwrap_or_default()).await?;
        }
        Ok(())
    }

    fn body(&self, stream: ByteStream) -> ObjectBody {
        ObjectBody { stream, words: self.words.clone(), still: self.still() }
    }

    /// Why an object could not be begun: also for the headers that it is to have.
    fn refused(&self, what: &str, trouble: &Trouble) -> Failure {
        let failure = self.failure(what, trouble);
        match self.headers.advice(trouble.kind, &trouble.why) {
            advice if advice.is_empty() => failure,
            advice => Failure::new(failure.reason, format!("{}; {advice}", failure.message)),
        }
    }

    fn failure(&self, what: &str, trouble: &Trouble) -> Failure {
        let advice = self.objects.advice(trouble.kind, &trouble.why);
        Failure::new(trouble.kind.reason(), format!("{}: cannot {what}: {} ({advice})", self.words, trouble.why))
    }
}

/// The body of an object as it comes.
#[derive(Debug)]
pub struct ObjectBody {
    stream: ByteStream,
    words: Arc<str>,
    still: Duration,
}

impl ObjectBody {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// [`Reason::StoreUnreachable`] where the answer breaks off or stands still.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let broken = |why: String| Failure::new(Reason::StoreUnreachable, format!("{}: {why}", self.words));
        match tokio::time::timeout(self.still, self.stream.try_next()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(broken(format!("the answer broke off: {}", trouble::chain(&error)))),
            Err(_) => Err(broken(format!("the answer stood still for {} s", self.still.as_secs()))),
        }
    }
}

/// The store may ignore a range and begin at the beginning.
fn starts_at(reply: &GetObjectOutput, offset: u64) -> bool {
    offset == 0 || reply.content_range.as_deref().is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

fn crc32c(content: &[u8]) -> String {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, content);
    let crc = u32::try_from(crc).unwrap_or_default();
    aws_smithy_types::base64::encode(crc.to_be_bytes())
}

fn optional<T>(result: Result<T, Trouble>) -> Result<Option<T>, Trouble> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(trouble) if trouble.kind == Kind::NotFound => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_that_of_the_standard() {
        // RFC 3720, appendix B.4: 32 bytes of zero.
        assert_eq!(crc32c(&[0; 32]), aws_smithy_types::base64::encode([0x8a, 0x91, 0x36, 0xaa]));
    }
}

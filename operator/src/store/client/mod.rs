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
mod genuine;
mod headers;
mod listing;
mod patience;
mod trouble;
mod trying;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ArchiveStatus, ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, StorageClass};
use bytes::{Bytes, BytesMut};
use holdfast_crds::Reason;
use jiff::Timestamp;

use crate::task::{Failure, StorePatience, StoreTask};
use advice::Objects;
use body::Clock;
use clocks::Watch;
use headers::Headers;
use trouble::{Kind, Trouble};
use trying::{Full, within};

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
    /// What the store last said of being full.
    full: Full,
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
    /// Its storage class, where the listing tells it.
    pub storage_class: Option<String>,
}

/// What a store says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Its size in bytes.
    pub size: u64,
    /// Why it cannot be read now, where it is in an archive of the service.
    pub archived: Option<String>,
}

/// What came of reading an object, where that says something about the object and not about the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// Its content.
    Content(Bytes),
    /// There is no such object.
    Absent,
    /// It is there and cannot be read: it is archived, or larger than it may be.
    Unreadable(Failure),
    /// This object may not be read. Where others may that is about it, and else about the credentials.
    Forbidden(Failure),
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
            full: Full::default(),
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
        match self.try_get(key, max_bytes).await? {
            Got::Content(content) => Ok(Some(content)),
            Got::Absent => Ok(None),
            Got::Unreadable(failure) | Got::Forbidden(failure) => Err(failure),
        }
    }

    /// The content of an object as [`get`](Self::get) gives it, where one that cannot be read must not stand for the others.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn try_get(&self, key: &str, max_bytes: u64) -> Result<Got, Failure> {
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
        match result.await {
            Ok(content) => Ok(Got::Content(content)),
            Err(trouble) => {
                let failure = self.failure(&what, &trouble);
                match trouble.kind {
                    Kind::NotFound => Ok(Got::Absent),
                    Kind::Archived | Kind::Damaged => Ok(Got::Unreadable(failure)),
                    Kind::Forbidden => Ok(Got::Forbidden(failure)),
                    _ => Err(failure),
                }
            }
        }
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
    /// Why the store fails, also where it says that something is not there and not that it is the object.
    pub async fn head(&self, key: &str) -> Result<Option<u64>, Failure> {
        Ok(self.look(key).await?.map(|head| head.size))
    }

    /// Whether the store gives the first byte of an object that it calls archived.
    async fn is_readable(&self, key: &str) -> Result<bool, Trouble> {
        let asked = self.client.get_object().bucket(&*self.name).key(key).range("bytes=0-0");
        match self.within(asked.send()).await {
            Ok(_) => Ok(true),
            Err(trouble) if trouble.kind == Kind::Archived => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    /// What the store says of an object without giving it; none where there is no such object.
    ///
    /// An answer to HEAD has no body, so its 404 may be about anything and come from whatever stands before a store. It is asked again by a
    /// GET, and only S3's own word for it counts.
    ///
    /// # Errors
    /// As [`head`](Self::head).
    pub async fn look(&self, key: &str) -> Result<Option<ObjectHead>, Failure> {
        let what = format!("look at {key}");
        let result = self.retrying(&what, || async {
            let asked = self.within(self.client.head_object().bucket(&*self.name).key(key).send()).await;
            let (length, archived) = match asked {
                Ok(reply) => {
                    let archived = match archive(&reply) {
                        // Elsewhere than at Amazon the class may be the name of any pool: whether it can be read is found out by reading.
                        Some(words) if self.is_readable(key).await? => {
                            tracing::debug!("{key} {words}, says the store, and gives it");
                            None
                        }
                        archived => archived,
                    };
                    (reply.content_length, archived)
                }
                Err(trouble) if trouble.status == Some(404) => {
                    let reply = self.within(self.client.get_object().bucket(&*self.name).key(key).send()).await?;
                    (reply.content_length, None)
                }
                Err(trouble) => return Err(trouble),
            };
            let size = length.and_then(|length| u64::try_from(length).ok());
            let size = size.ok_or_else(|| Trouble::passing("the answer has no size".to_owned()))?;
            Ok(ObjectHead { size, archived })
        });
        optional(result.await).map_err(|t| self.failure(&what, &t))
    }

    /// Writes an object in one request.
    ///
    /// # Errors
    /// Why the store fails.
    pub async fn put(&self, key: &str, content: Bytes) -> Result<(), Failure> {
        self.send(key, &content, None).await.map_err(|t| self.refused(&format!("write {key}"), &t))
    }

    /// Whether the store heeds the condition of a write: told to write over this object only if there is none, it does not. None where that
    /// cannot be told.
    pub async fn heeds_conditions(&self, key: &str, content: Bytes) -> Option<bool> {
        match self.send(key, &content, Some("*")).await {
            Ok(()) => Some(false),
            Err(trouble) => (trouble.kind == Kind::Exists).then_some(true),
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
        self.storing(&format!("write {key}"), attempt).await
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
        let result = self.storing(&what, || async {
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
        let result = self.storing(&what, || async {
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
        let tries = AtomicUsize::new(0);
        let result = self.storing(&what, || async {
            tries.fetch_add(1, Ordering::Relaxed);
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
            Err(trouble)
                if trouble.kind == Kind::NoUpload
                    && tries.load(Ordering::Relaxed) > 1
                    && self.head(key).await?.is_some() =>
            {
                Ok(())
            }
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
        optional(result.await.or_else(no_upload)).map(drop).map_err(|t| self.failure(&what, &t))
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
        let listed = optional(result.await.or_else(no_upload)).map_err(|t| self.failure(&what, &t))?;
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

/// That an upload is not there is as good as that an object is not, to whoever wants it to be gone.
fn no_upload<T>(trouble: Trouble) -> Result<T, Trouble> {
    Err(if trouble.kind == Kind::NoUpload { Trouble { kind: Kind::NotFound, ..trouble } } else { trouble })
}

/// Why an object cannot be read before somebody brings it back; none where it can
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html>).
fn archive(reply: &HeadObjectOutput) -> Option<String> {
    let class = reply.storage_class.as_ref().map(StorageClass::as_str);
    let tier = reply.archive_status.as_ref().map(ArchiveStatus::as_str);
    let place = tier.or(class.filter(|class| ["GLACIER", "DEEP_ARCHIVE"].contains(class)))?;
    match reply.restore.as_deref() {
        Some(back) if back.contains("ongoing-request=\"false\"") => None,
        Some(_) => Some(format!("is archived (storage class {place}) and is being brought back: wait for it")),
        None => Some(format!(
            "is archived (storage class {place}): have the service bring it back, as with aws s3api restore-object"
        )),
    }
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

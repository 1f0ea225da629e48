//! A bucket of an S3-compatible service. Talks to it.
//!
//! Each call is tried several times with growing, jittered pauses, so that a store that is gone is told within half a minute.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use bytes::Bytes;
use holdfast_crds::Reason;
use jiff::Timestamp;

use super::credentials::MountedCredentials;
use super::failure::{failure, is_not_found};
use crate::task::{Failure, StoreTask};

/// No byte of an answer for this long: the store has stalled.
const BODY_STALL: Duration = Duration::from_secs(60);

/// A bucket. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: String,
}

/// An object as a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub modified: Option<Timestamp>,
}

impl Bucket {
    /// Makes a client. Nothing is sent yet.
    ///
    /// # Errors
    /// Where certificates or credentials cannot be read.
    pub async fn open(store: &StoreTask) -> Result<Self, Failure> {
        let invalid = |why: String| Failure::new(Reason::InvalidConfiguration, format!("store {}: {why}", store.name));
        let mut trust = TrustStore::default();
        if let Some(path) = &store.ca {
            let pem = std::fs::read(path)
                .map_err(|e| invalid(format!("the certificates of caBundle cannot be read: {e}")))?;
            trust = TrustStore::empty().with_pem_certificate(pem);
        }
        let tls = TlsContext::builder().with_trust_store(trust).build().map_err(|e| invalid(e.to_string()))?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls)
            .build_https();
        let mut shared = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(store.s3.region.clone()))
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(6)
                    .with_initial_backoff(Duration::from_millis(500))
                    .with_max_backoff(Duration::from_secs(8)),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .read_timeout(Duration::from_secs(60))
                    .operation_attempt_timeout(Duration::from_secs(300))
                    .build(),
            )
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(folder) = &store.credentials {
            let credentials = MountedCredentials::new(folder);
            if let Some(problem) = credentials.problem() {
                return Err(invalid(problem));
            }
            shared = shared.credentials_provider(credentials);
        }
        let shared = shared.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(store.s3.uses_path_style());
        if let Some(endpoint) = &store.s3.endpoint {
            // Many services that speak S3 refuse, or store as content, the checksums that Amazon's takes by default.
            config = config
                .endpoint_url(endpoint)
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        Ok(Self { client: Client::from_conf(config.build()), name: store.s3.bucket.clone() })
    }

    /// All objects whose keys begin with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// Where the store fails, and where its pages contradict each other: [`Reason::ListIncomplete`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, Failure> {
        let doubt = |why: &str| {
            Failure::new(Reason::ListIncomplete, format!("the listing of {prefix} in bucket {} {why}", self.name))
        };
        let mut objects: Vec<ObjectInfo> = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let request =
                self.client.list_objects_v2().bucket(&self.name).prefix(prefix).set_continuation_token(token.clone());
            let page = request.send().await.map_err(|e| failure(&self.name, prefix, &e))?;
            for object in page.contents() {
                let key = object.key().ok_or_else(|| doubt("names an object without a key"))?;
                if !key.starts_with(prefix) {
                    return Err(doubt(&format!("names {key}")));
                }
                if objects.last().is_some_and(|before| before.key.as_str() >= key) {
                    return Err(doubt(&format!("is not in order, or repeats itself, at {key}")));
                }
                objects.push(ObjectInfo {
                    key: key.to_owned(),
                    size: object.size().and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
                    modified: object.last_modified().and_then(|m| Timestamp::from_second(m.secs()).ok()),
                });
            }
            if !page.is_truncated().unwrap_or(false) {
                return Ok(objects);
            }
            match page.next_continuation_token() {
                Some(next) if Some(next) != token.as_deref() => token = Some(next.to_owned()),
                _ => return Err(doubt("says that it goes on and not where")),
            }
        }
    }

    /// An object's content, none where there is no such object.
    ///
    /// # Errors
    /// Where the store fails, and where the object has more than `max_bytes`.
    pub async fn get(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, Failure> {
        let answer = match self.client.get_object().bucket(&self.name).key(key).send().await {
            Ok(answer) => answer,
            Err(e) if is_not_found(&e) => return Ok(None),
            Err(e) => return Err(failure(&self.name, key, &e)),
        };
        let size = answer.content_length().and_then(|s| u64::try_from(s).ok());
        if size.is_some_and(|size| size > max_bytes) {
            return Err(Failure::new(
                Reason::ChecksumMismatch,
                format!("{key} in bucket {} has more than {max_bytes} bytes", self.name),
            ));
        }
        let mut body = ObjectBody { stream: answer.body, place: format!("{key} in bucket {}", self.name) };
        let mut content = Vec::new();
        while let Some(piece) = body.next().await? {
            content.extend_from_slice(&piece);
        }
        if size.is_some_and(|size| size != content.len() as u64) {
            return Err(Failure::new(Reason::StoreUnreachable, format!("{}: the answer ended early", body.place)));
        }
        Ok(Some(content.into()))
    }

    /// An object's content from the byte `offset` on.
    ///
    /// # Errors
    /// Where the store fails. An object that is not there is [`Reason::ChecksumMismatch`]: a manifest names it.
    pub async fn open_read(&self, key: &str, offset: u64) -> Result<ObjectBody, Failure> {
        let mut request = self.client.get_object().bucket(&self.name).key(key);
        if offset > 0 {
            request = request.range(format!("bytes={offset}-"));
        }
        match request.send().await {
            Ok(answer) => Ok(ObjectBody { stream: answer.body, place: format!("{key} in bucket {}", self.name) }),
            Err(e) if is_not_found(&e) => {
                Err(Failure::new(Reason::ChecksumMismatch, format!("{key} is not in bucket {}", self.name)))
            }
            Err(e) => Err(failure(&self.name, key, &e)),
        }
    }

    /// Stores a small object.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn put(&self, key: &str, content: Bytes) -> Result<(), Failure> {
        let request = self.client.put_object().bucket(&self.name).key(key).body(ByteStream::from(content));
        request.send().await.map(drop).map_err(|e| failure(&self.name, key, &e))
    }

    /// An object's size, none where there is no such object.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn head(&self, key: &str) -> Result<Option<u64>, Failure> {
        match self.client.head_object().bucket(&self.name).key(key).send().await {
            Ok(answer) => Ok(Some(answer.content_length().and_then(|s| u64::try_from(s).ok()).unwrap_or(0))),
            Err(e) if is_not_found(&e) => Ok(None),
            Err(e) => Err(failure(&self.name, key, &e)),
        }
    }

    /// Deletes one object, by its exact key. One that is not there is deleted already.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete(&self, key: &str) -> Result<(), Failure> {
        match self.client.delete_object().bucket(&self.name).key(key).send().await {
            Ok(_) => Ok(()),
            Err(e) if is_not_found(&e) => Ok(()),
            Err(e) => Err(failure(&self.name, key, &e)),
        }
    }

    /// Opens a multipart upload and gives its ID.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn create_upload(&self, key: &str) -> Result<String, Failure> {
        let request = self.client.create_multipart_upload().bucket(&self.name).key(key);
        let answer = request.send().await.map_err(|e| failure(&self.name, key, &e))?;
        answer.upload_id().map(ToOwned::to_owned).ok_or_else(|| {
            Failure::new(
                Reason::StoreUnreachable,
                format!("{key} in bucket {}: the store gave no upload ID", self.name),
            )
        })
    }

    /// Uploads one part and gives its entity tag, which means nothing but that.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn upload_part(&self, key: &str, id: &str, number: i32, content: Bytes) -> Result<String, Failure> {
        let request = self.client.upload_part().bucket(&self.name).key(key).upload_id(id).part_number(number);
        let answer = request.body(ByteStream::from(content)).send().await.map_err(|e| failure(&self.name, key, &e))?;
        Ok(answer.e_tag().unwrap_or_default().to_owned())
    }

    /// Makes an object of the parts. A success status with an error in its body is an error.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn complete_upload(&self, key: &str, id: &str, parts: Vec<(i32, String)>) -> Result<(), Failure> {
        let parts = parts
            .into_iter()
            .map(|(number, tag)| CompletedPart::builder().part_number(number).e_tag(tag).build())
            .collect();
        let upload = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request =
            self.client.complete_multipart_upload().bucket(&self.name).key(key).upload_id(id).multipart_upload(upload);
        request.send().await.map(drop).map_err(|e| failure(&self.name, key, &e))
    }

    /// Gives up a multipart upload. One that is not there is given up already.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn abort_upload(&self, key: &str, id: &str) -> Result<(), Failure> {
        match self.client.abort_multipart_upload().bucket(&self.name).key(key).upload_id(id).send().await {
            Ok(_) => Ok(()),
            Err(e) if is_not_found(&e) => Ok(()),
            Err(e) => Err(failure(&self.name, key, &e)),
        }
    }
}

/// An object's content on its way.
#[derive(Debug)]
pub struct ObjectBody {
    stream: ByteStream,
    place: String,
}

impl ObjectBody {
    /// The next piece, none at the end of the answer.
    ///
    /// # Errors
    /// Where the connection breaks, or no byte comes for a minute: [`Reason::StoreUnreachable`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let broken = |why: String| Failure::new(Reason::StoreUnreachable, format!("{}: {why}", self.place));
        match tokio::time::timeout(BODY_STALL, self.stream.next()).await {
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(e))) => Err(broken(e.to_string())),
            Ok(None) => Ok(None),
            Err(_) => Err(broken(format!("no byte came for {} s", BODY_STALL.as_secs()))),
        }
    }
}

//! The headers that each object is stored with because its bucket asks for them, and what a refusal says of them. Pure.

use std::fmt::Write as _;

use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use holdfast_crds::S3Spec;

use super::trouble::Kind;
use crate::store::keys::encode;

/// What a request that begins an object says beside its key.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers {
    pub(super) encryption: Option<ServerSideEncryption>,
    pub(super) kms_key: Option<String>,
    pub(super) storage_class: Option<StorageClass>,
    /// Tags as a query: `team=shop&cost-center=4711`.
    pub(super) tagging: Option<String>,
}

/// A header with the field that sets it, and words of refusals that are about it.
struct Known {
    name: &'static str,
    field: &'static str,
    words: &'static [&'static str],
}

const ENCRYPTION: Known = Known {
    name: "x-amz-server-side-encryption",
    field: "spec.s3.serverSideEncryption",
    words: &["serversideencryption", "server side encryption", "server-side encryption", "sse-kms", "sse-s3", "kms"],
};
const KMS_KEY: Known = Known {
    name: "x-amz-server-side-encryption-aws-kms-key-id",
    field: "spec.s3.serverSideEncryption.kms.keyId",
    words: &["kms.notfound", "kms.disabled", "kms.invalid", "key id", "keyid", "key-id", "arn:aws:kms"],
};
const STORAGE_CLASS: Known = Known {
    name: "x-amz-storage-class",
    field: "spec.s3.storageClass",
    words: &["storageclass", "storage class", "storage-class"],
};
const TAGGING: Known =
    Known { name: "x-amz-tagging", field: "spec.s3.tags", words: &["invalidtag", "tagging", "requestobjecttag"] };

impl Headers {
    pub(super) fn of(s3: &S3Spec) -> Self {
        let encryption = s3.server_side_encryption.as_ref();
        let kms = encryption.and_then(|encryption| encryption.kms.as_ref());
        let tags: Vec<String> =
            s3.tags.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        Self {
            encryption: encryption
                .map(|_| if kms.is_some() { ServerSideEncryption::AwsKms } else { ServerSideEncryption::Aes256 }),
            kms_key: kms.and_then(|kms| kms.key_id.clone()),
            storage_class: s3.storage_class.as_deref().map(StorageClass::from),
            tagging: (!tags.is_empty()).then(|| tags.join("&")),
        }
    }

    /// What to do where the store refuses to begin an object; empty where that cannot be for its headers.
    pub(super) fn advice(&self, kind: Kind, why: &str) -> String {
        let all = [
            (&KMS_KEY, self.kms_key.is_some()),
            (&ENCRYPTION, self.encryption.is_some()),
            (&STORAGE_CLASS, self.storage_class.is_some()),
            (&TAGGING, self.tagging.is_some()),
        ];
        // Some services fail over what they do not know, or have no key for.
        let is_broken_by_one = why.starts_with("the store answers 500") && all.iter().any(|(_, sent)| *sent);
        if !matches!(kind, Kind::Forbidden | Kind::Refused) && !is_broken_by_one {
            return String::new();
        }
        let lower = why.to_lowercase();
        let is_meant =
            |known: &Known| lower.contains(known.name) || known.words.iter().any(|words| lower.contains(words));
        if let Some((known, sent)) = all.iter().find(|(known, _)| is_meant(known)) {
            return if *sent {
                format!(
                    "it is about the header {}, which {} sets: correct it, or let the identity do that",
                    known.name, known.field
                )
            } else {
                format!("it is about the header {}, which is not sent: set {}", known.name, known.field)
            };
        }
        let (sent, unsent): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, sent)| *sent);
        let listed = |headers: &[(&Known, bool)]| {
            headers.iter().fold(String::new(), |mut text, (known, _)| {
                let comma = if text.is_empty() { "" } else { ", " };
                // Writing to a String cannot fail.
                let _ = write!(text, "{comma}{} ({})", known.name, known.field);
                text
            })
        };
        let mut parts = Vec::new();
        if !sent.is_empty() {
            parts
                .push(format!("sent were {}: the service may not take them, or not from this identity", listed(&sent)));
        }
        if kind == Kind::Forbidden && !unsent.is_empty() {
            parts.push(format!("a policy of the bucket may demand what was not sent: {}", listed(&unsent)));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spec: serde_json::Value) -> Headers {
        Headers::of(&serde_json::from_value(spec).unwrap())
    }

    fn demanding() -> Headers {
        of(serde_json::json!({
            "bucket": "b",
            "serverSideEncryption": {"kms": {"keyId": "arn:aws:kms:eu-central-1:111122223333:key/1"}},
            "storageClass": "STANDARD_IA",
            "tags": {"team": "shop & co", "cost-center": "4711"},
        }))
    }

    #[test]
    fn headers_are_those_of_the_spec() {
        let headers = demanding();
        assert_eq!(headers.encryption, Some(ServerSideEncryption::AwsKms));
        assert_eq!(headers.kms_key.as_deref(), Some("arn:aws:kms:eu-central-1:111122223333:key/1"));
        assert_eq!(headers.storage_class, Some(StorageClass::StandardIa));
        assert_eq!(headers.tagging.as_deref(), Some("cost-center=4711&team=shop%20%26%20co"));
        let aes = of(serde_json::json!({"bucket": "b", "serverSideEncryption": {"aes256": {}}}));
        assert_eq!((aes.encryption, aes.kms_key), (Some(ServerSideEncryption::Aes256), None));
        let none = of(serde_json::json!({"bucket": "b"}));
        assert!(none.encryption.is_none() && none.storage_class.is_none() && none.tagging.is_none());
    }

    #[test]
    fn a_refusal_names_the_header_that_it_is_about_or_those_that_it_may_be_about() {
        let (none, all) = (of(serde_json::json!({"bucket": "b"})), demanding());
        for (headers, kind, why, told) in [
            (
                &all,
                Kind::Refused,
                "400 InvalidStorageClass The storage class is not valid",
                "x-amz-storage-class, which spec.s3.storageClass sets",
            ),
            (&all, Kind::Refused, "400 InvalidTag", "x-amz-tagging, which spec.s3.tags sets"),
            (
                &all,
                Kind::Refused,
                "400 KMS.NotFoundException Invalid keyId",
                "-aws-kms-key-id, which spec.s3.serverSideEncryption.kms.keyId sets",
            ),
            (
                &all,
                Kind::Refused,
                "501 NotImplemented Header 'x-amz-tagging' with value 'a' not implemented",
                "x-amz-tagging, which",
            ),
            (
                &all,
                Kind::Forbidden,
                "403 AccessDenied not authorized to perform: s3:PutObjectTagging",
                "x-amz-tagging, which spec.s3.tags sets",
            ),
            (
                &none,
                Kind::Refused,
                "400 InvalidRequest Server Side Encryption with KMS is demanded",
                "x-amz-server-side-encryption, which is not sent: set spec.s3.serverSideEncryption",
            ),
            (
                &none,
                Kind::Forbidden,
                "403 AccessDenied",
                "x-amz-server-side-encryption (spec.s3.serverSideEncryption), x-amz-storage-class (spec.s3.storageClass), x-amz-tagging (spec.s3.tags)",
            ),
            (&all, Kind::Forbidden, "403 AccessDenied", "sent were x-amz-server-side-encryption-aws-kms-key-id"),
        ] {
            let advice = headers.advice(kind, why);
            assert!(advice.contains(told), "{why}: {advice}");
        }
        let internal = "the store answers 500 InternalError We encountered an internal error";
        assert!(all.advice(Kind::Passing, internal).starts_with("sent were x-amz-"));
        assert_eq!(none.advice(Kind::Passing, internal), "");
        assert_eq!(none.advice(Kind::Refused, "400 InvalidArgument"), "");
        assert_eq!(all.advice(Kind::Passing, "503 SlowDown"), "");
    }
}

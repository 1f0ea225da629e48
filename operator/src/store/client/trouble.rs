//! What a store's error means: whether it may pass, and its reason. Pure.

use std::error::Error;
use std::time::Duration;

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use holdfast_crds::Reason;
use jiff::Timestamp;

use super::clocks;
use super::genuine::{self, Foreign};
use crate::process::escape;

/// Characters of a store's own words that are told.
const MAX_WORDS: usize = 300;

/// Why one request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    pub(super) why: String,
    /// The status of the answer, where there was one.
    pub(super) status: Option<u16>,
    /// How long it stood still before it was given up.
    pub(super) still: Duration,
    /// When the store asks to be asked again.
    pub(super) asked: Option<Duration>,
}

/// What is to be made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The network, the server, or too many requests: it may pass.
    Passing,
    /// There is no such object.
    NotFound,
    /// There is no such upload: the store has forgotten or ended it.
    NoUpload,
    /// There is no such bucket.
    NoBucket,
    /// The credentials themselves are refused: unknown, expired, wrong.
    BadCredentials,
    /// What hands out the ambient identity does not answer, or not well: it may pass. The store has not been asked.
    NoIdentity,
    /// They are known and may not do this.
    Forbidden,
    /// The bucket is in another region.
    WrongRegion,
    /// The store's clock and ours are too far apart for it to take a request.
    Skewed,
    /// The store is full. It may pass.
    Full,
    /// The object is not what it should be.
    Damaged,
    /// The object is in an archive of the service, and cannot be read there.
    Archived,
    /// Whatever answered is no store: a proxy, a login page, another service.
    Foreign,
    /// There is such an object, and the request asks for none.
    Exists,
    /// Anything else that the same request would meet again.
    Refused,
}

impl Kind {
    pub(super) fn may_pass(self) -> bool {
        matches!(self, Self::Passing | Self::Full | Self::NoIdentity)
    }

    /// Whether only a store that is there, and takes the credentials, can say so.
    pub(super) fn is_answer(self) -> bool {
        matches!(self, Self::NotFound | Self::NoUpload | Self::Exists | Self::Archived)
    }

    pub(super) fn reason(self) -> Reason {
        match self {
            // What is uploaded anew gets another upload.
            Self::Passing | Self::NoIdentity | Self::NoUpload => Reason::StoreUnreachable,
            Self::NoBucket => Reason::BucketNotFound,
            Self::BadCredentials | Self::Forbidden => Reason::CredentialsRejected,
            Self::Skewed => Reason::ClockSkew,
            Self::Full => Reason::NoSpace,
            Self::Damaged => Reason::ChecksumMismatch,
            // The store is well, and so is the object: somebody has to bring it back.
            Self::Archived => Reason::InvalidConfiguration,
            Self::WrongRegion | Self::NotFound | Self::Exists | Self::Foreign | Self::Refused => Reason::StoreRefused,
        }
    }
}

impl Trouble {
    pub(super) fn of(kind: Kind, why: String) -> Self {
        Self { kind, why, status: None, still: Duration::ZERO, asked: None }
    }

    /// Something that may pass.
    pub(super) fn passing(why: String) -> Self {
        Self::of(Kind::Passing, why)
    }

    /// What did not move for so long that it was given up.
    pub(super) fn standstill(what: &str, still: Duration) -> Self {
        Self { still, ..Self::passing(format!("{what} {} s", still.as_secs())) }
    }

    /// From what the SDK says; `now` is this node's time.
    pub(super) fn from_sdk<E>(error: &SdkError<E>, now: Timestamp) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let response = error.raw_response();
        let mut trouble = Self { status: response.map(|r| r.status().as_u16()), ..Self::from_error(error) };
        let body = response.and_then(|r| r.body().bytes()).unwrap_or_default();
        let header = |name: &str| response.and_then(|r| r.headers().get(name));
        let clocks = header("date").and_then(|date| clocks::clocks(date, now));
        if let (Kind::Skewed, Some(clocks)) = (trouble.kind, clocks) {
            trouble.why = format!("{}; {}", trouble.why, clocks.words());
        }
        // Whoever writes a time means it by his own clock.
        let there = clocks.map_or(now, |clocks| clocks.store);
        match (trouble.kind, header("x-amz-bucket-region"), header("location")) {
            // An answer to HEAD has no words.
            (Kind::WrongRegion | Kind::Refused | Kind::Foreign, Some(region), _)
                if trouble.kind == Kind::WrongRegion
                    || body.is_empty() && matches!(trouble.status, Some(301 | 307 | 400)) =>
            {
                trouble.kind = Kind::WrongRegion;
                trouble.why = format!("{}; the bucket is in {}", trouble.why, tidy(region));
            }
            (Kind::Foreign, None, Some(place)) => trouble.why = format!("{} and leads to {}", trouble.why, tidy(place)),
            (Kind::Archived, ..) => {
                if let Some(class) =
                    genuine::between(&String::from_utf8_lossy(body), "<StorageClass>", "</StorageClass>")
                {
                    trouble.why = format!("{}; its storage class is {}", trouble.why, tidy(class));
                }
            }
            _ => {}
        }
        if let Some(words) = wants_tls(body) {
            trouble.why = format!("{}: {words}", trouble.why);
        }
        trouble.asked = header("retry-after").and_then(|value| clocks::retry_after(value, there));
        if let Some(asked) = trouble.asked {
            trouble.why = format!("{}, and asks to be asked again after {} s", trouble.why, asked.as_secs());
        }
        trouble
    }

    fn from_error<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error.raw_response().map(|r| r.status().as_u16());
        let body = error.raw_response().and_then(|r| r.body().bytes()).unwrap_or_default();
        match error {
            SdkError::ServiceError(service) => {
                let (code, message) = (service.err().code().unwrap_or(""), service.err().message().unwrap_or(""));
                let trouble = Self::from_answer(status.unwrap_or(0), code, message);
                match trouble.kind {
                    // The reader of an answer of 200 knows best what is wrong with it.
                    Kind::Foreign if matches!(status, Some(200..=299)) => {
                        let why = format!("{}: {}{}", trouble.why, chain(service.err()), tidy(&genuine::begins(body)));
                        Self { why, ..trouble }
                    }
                    Kind::Foreign if code.is_empty() => {
                        Self { why: format!("{}{}", trouble.why, tidy(&genuine::begins(body))), ..trouble }
                    }
                    // S3 says who may not do what in XML; a page that says 403 is somebody else's.
                    Kind::Forbidden if genuine::is_html(body) => {
                        Self::of(Kind::Foreign, format!("{}{}", trouble.why, tidy(&genuine::begins(body))))
                    }
                    _ => trouble,
                }
            }
            SdkError::ResponseError(_) if causes(error).any(<dyn Error>::is::<Foreign>) => {
                Self::of(Kind::Foreign, chain(error))
            }
            SdkError::ResponseError(_) => match status {
                // An answer that is no S3: a page of a proxy, a login form.
                Some(status @ 400..500) => Self::from_answer(status, "", &chain(error)),
                _ => Self::passing(chain(error)),
            },
            SdkError::ConstructionFailure(_) => Self::of(Kind::Refused, chain(error)),
            _ => {
                // What provides credentials fails before anything is sent, and the SDK calls that a failed dispatch.
                Self::of(of_identity(error).unwrap_or(Kind::Passing), chain(error))
            }
        }
    }

    /// From a status, the code of S3's error document, and its words. The codes are those of
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html> and of other services' that are known to differ.
    fn from_answer(status: u16, code: &str, message: &str) -> Self {
        let lower = message.to_lowercase();
        let full = ["no space", "no free volume", "no writable volume", "disk full", "storage full", "quota exceeded"];
        let kind = match (status, code) {
            // Signed for a region: the signature is as wrong as the region is.
            (_, "PermanentRedirect" | "TemporaryRedirect" | "IllegalLocationConstraintException") => Kind::WrongRegion,
            // What is signed for is its date, region and service: some name the region alone, others all of it, which they call the scope.
            (_, "AuthorizationHeaderMalformed") if lower.contains("region") || lower.contains("scope") => {
                Kind::WrongRegion
            }
            (_, "NoSuchBucket") => Kind::NoBucket,
            // Only these say that something is not there. Any other 404 is about something else: a route, a key, another service.
            (_, "NoSuchKey") => Kind::NotFound,
            (_, "NoSuchUpload") => Kind::NoUpload,
            (_, "InvalidObjectState") => Kind::Archived,
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "TokenRefreshRequired"
                | "AuthorizationHeaderMalformed"
                | "InvalidClientTokenId",
            ) => Kind::BadCredentials,
            (_, "RequestTimeTooSkewed") => Kind::Skewed,
            (412, _) | (_, "PreconditionFailed") => Kind::Exists,
            // No waiting makes a store do what it cannot.
            (501, _) | (_, "NotImplemented") => Kind::Refused,
            (507, _)
            | (_, "XMinioStorageFull" | "InsufficientStorage" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded") => {
                Kind::Full
            }
            (500.., _) if full.iter().any(|words| lower.contains(words)) => Kind::Full,
            (408 | 425 | 429 | 500.., _)
            | (
                _,
                "RequestTimeout"
                | "SlowDown"
                | "Throttling"
                | "ThrottlingException"
                | "TooManyRequests"
                | "InternalError"
                | "ServiceUnavailable"
                | "OperationAborted"
                | "ConditionalRequestConflict"
                // By its checksum the request's body was damaged on its way.
                | "BadDigest"
                | "InvalidDigest"
                | "XAmzContentChecksumMismatch"
                | "IncompleteBody",
            ) => Kind::Passing,
            (401, _) => Kind::BadCredentials,
            (403, _) => Kind::Forbidden,
            (404, _) | (200..=399, "") => Kind::Foreign,
            (416, _) => Kind::Damaged,
            _ => Kind::Refused,
        };
        let mut why = format!("the store answers {status}");
        // The SDK's own word for an answer without any.
        let code = if code == "NotFound" { "" } else { code };
        for words in [code, message] {
            if !words.is_empty() {
                why.push(' ');
                why.push_str(words);
            }
        }
        Self::of(kind, tidy(&why))
    }
}

/// What a server that wants TLS says to whoever does not speak it.
fn wants_tls(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body.get(..4096).unwrap_or(body));
    let line = text.lines().find(|line| line.contains("HTTPS") && line.contains("HTTP request"))?;
    Some(tidy(line.trim()))
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let says_nothing =
            ["dispatch failure", "io error", "other", "service error", "an error occurred", "streaming error"];
        if !text.is_empty() && !says_nothing.contains(&text.as_str()) && !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    tidy(&parts.join(": "))
}

/// What an error of whatever provides credentials means; none where it is another's.
fn of_identity(error: &(dyn Error + 'static)) -> Option<Kind> {
    let said = causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>());
    let passes = match said {
        // The SDK's own limit for all of it, which has no type of its own.
        None if causes(error).any(|cause| cause.to_string().starts_with("identity resolver timed out")) => true,
        None => return None,
        Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::Unhandled(_)) => true,
        // Nobody provides any. The node's metadata service is asked last: it may be one of those that come up with their node.
        Some(error @ CredentialsError::CredentialsNotLoaded(_)) => {
            format!("{error:?}").contains("ImdsCommunicationError")
        }
        Some(error @ CredentialsError::ProviderError(_)) => causes(error).any(provider_may_come),
        Some(_) => false,
    };
    Some(if passes { Kind::NoIdentity } else { Kind::BadCredentials })
}

/// Whether what a provider says of its service may pass.
fn provider_may_come(cause: &(dyn Error + 'static)) -> bool {
    if let Some(sts) = cause.downcast_ref::<SdkError<AssumeRoleWithWebIdentityError>>() {
        // Of STS itself: it is there, and cannot reach whoever signed the token.
        let is_relayed = sts.code() == Some("IDPCommunicationError");
        return is_relayed || Trouble::from_error(sts).kind.may_pass();
    }
    match cause.downcast_ref::<ImdsError>() {
        Some(ImdsError::ErrorResponse(said)) => said.response().status().as_u16() >= 500,
        Some(_) => true,
        // The endpoint of a container's credentials is told in words alone.
        None => ["StatusCode(5", "StatusCode(429"].iter().any(|status| cause.to_string().contains(status)),
    }
}

/// An error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn tidy(text: &str) -> String {
    let mut cut: String = text.chars().take(MAX_WORDS).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    escape(&cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_reason_and_only_what_may_pass_is_tried_again() {
        for (status, code, message, reason, again) in [
            (403, "InvalidAccessKeyId", "", Reason::CredentialsRejected, false),
            (403, "SignatureDoesNotMatch", "", Reason::CredentialsRejected, false),
            (403, "AccessDenied", "", Reason::CredentialsRejected, false),
            (403, "", "", Reason::CredentialsRejected, false),
            (400, "ExpiredToken", "", Reason::CredentialsRejected, false),
            (403, "RequestTimeTooSkewed", "", Reason::ClockSkew, false),
            (404, "NoSuchBucket", "", Reason::BucketNotFound, false),
            (404, "NoSuchUpload", "", Reason::StoreUnreachable, false),
            (403, "InvalidObjectState", "", Reason::InvalidConfiguration, false),
            (301, "PermanentRedirect", "", Reason::StoreRefused, false),
            (400, "AuthorizationHeaderMalformed", "the region is wrong; expecting 'eu-1'", Reason::StoreRefused, false),
            (
                400,
                "AuthorizationHeaderMalformed",
                "unexpected scope: '20261130/us-east-1/s3/aws4_request'",
                Reason::StoreRefused,
                false,
            ),
            (400, "AuthorizationHeaderMalformed", "no credential", Reason::CredentialsRejected, false),
            (400, "InvalidArgument", "", Reason::StoreRefused, false),
            (400, "BadDigest", "", Reason::StoreUnreachable, true),
            (500, "InternalError", "", Reason::StoreUnreachable, true),
            (503, "SlowDown", "", Reason::StoreUnreachable, true),
            (429, "", "", Reason::StoreUnreachable, true),
            (507, "", "", Reason::NoSpace, true),
            (500, "InternalError", "No writable volumes", Reason::NoSpace, true),
            (416, "InvalidRange", "", Reason::ChecksumMismatch, false),
            (501, "NotImplemented", "", Reason::StoreRefused, false),
            (412, "PreconditionFailed", "", Reason::StoreRefused, false),
            (409, "ConditionalRequestConflict", "", Reason::StoreUnreachable, true),
        ] {
            let trouble = Trouble::from_answer(status, code, message);
            assert_eq!((trouble.kind.reason(), trouble.kind.may_pass()), (reason, again), "{status} {code} {message}");
        }
    }

    #[test]
    fn only_the_word_of_s3_says_that_an_object_is_not_there() {
        let kind = |status, code| Trouble::from_answer(status, code, "").kind;
        assert_eq!(kind(404, "NoSuchKey"), Kind::NotFound);
        // Of whoever has no such route, no such user, or nothing to say.
        for code in ["", "NotFound", "XAdminUserNotFound", "NoSuchVersion"] {
            assert_eq!(kind(404, code), Kind::Foreign, "{code}");
        }
        // A page, and a redirect to one.
        for status in [200, 301, 302, 307] {
            assert_eq!(kind(status, ""), Kind::Foreign, "{status}");
        }
    }

    #[test]
    fn what_hands_out_an_identity_is_waited_for_where_it_may_come_and_nowhere_else() {
        use aws_sdk_s3::config::http::HttpResponse;
        use aws_sdk_s3::error::{ConnectorError, ErrorMetadata};
        use aws_sdk_s3::operation::get_object::GetObjectError;

        let kind = |error: CredentialsError| {
            let dispatch = SdkError::<GetObjectError>::dispatch_failure(ConnectorError::other(Box::new(error), None));
            Trouble::from_sdk(&dispatch, Timestamp::UNIX_EPOCH).kind
        };
        let sts = |status: u16, code: &str| {
            let said = AssumeRoleWithWebIdentityError::generic(ErrorMetadata::builder().code(code).build());
            let answer = HttpResponse::new(status.try_into().unwrap(), "".into());
            CredentialsError::provider_error(SdkError::service_error(said, answer))
        };
        let away = SdkError::<AssumeRoleWithWebIdentityError>::dispatch_failure(ConnectorError::io("refused".into()));
        for (error, expected) in [
            (sts(503, "ServiceUnavailable"), Kind::NoIdentity),
            (sts(500, "InternalFailure"), Kind::NoIdentity),
            (sts(400, "Throttling"), Kind::NoIdentity),
            (sts(400, "IDPCommunicationError"), Kind::NoIdentity),
            (sts(403, "AccessDenied"), Kind::BadCredentials),
            (sts(400, "InvalidIdentityToken"), Kind::BadCredentials),
            (CredentialsError::provider_error(away), Kind::NoIdentity),
            (CredentialsError::provider_timed_out(Duration::from_secs(5)), Kind::NoIdentity),
            (CredentialsError::unhandled("not JSON"), Kind::NoIdentity),
            (CredentialsError::not_loaded("nobody has any"), Kind::BadCredentials),
            (CredentialsError::invalid_configuration("no such role"), Kind::BadCredentials),
            (CredentialsError::provider_error("key AWS_ACCESS_KEY_ID cannot be read"), Kind::BadCredentials),
        ] {
            let words = format!("{error:?}");
            assert_eq!(kind(error), expected, "{words}");
        }
        assert!(Kind::NoIdentity.may_pass() && Kind::NoIdentity.reason() == Reason::StoreUnreachable);
    }

    #[test]
    fn a_stores_words_are_cut_and_escaped() {
        let trouble = Trouble::from_answer(400, "X", &"\x1b[2J".repeat(1000));
        assert!(!trouble.why.contains('\x1b') && trouble.why.len() < 3000);
    }
}

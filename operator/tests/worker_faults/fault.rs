//! The ways in which a store fails. Pure: what becomes of a request is a function of the request, its number and a seed.

use holdfast::task::StorePatience;

use crate::proxy::Fate;

/// How the store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 500 now and then.
    Error500,
    /// 503 with the code `SlowDown` now and then.
    SlowDown,
    /// 429 now and then, with a time to wait.
    TooMany,
    /// All of it at a crawl.
    Slow,
    /// A request is taken and never answered, now and then.
    Hang,
    /// Of an answer only the beginning comes, and then nothing, now and then.
    HangInAnswer,
    /// The connection is closed before the request arrives, now and then.
    Closed,
    /// It is reset in the middle of what is written, now and then.
    ResetInWrite,
    /// It is reset in the middle of what is read, now and then.
    ResetInRead,
    /// Of an answer only the beginning comes, now and then.
    Truncated,
    /// The same of an object, and the answer says that it is all of it, now and then.
    TruncatedInWords,
    /// Bytes are changed on their way into the store, now and then.
    FlippedOnTheWay,
    /// The bytes of an object come with one of them changed, always.
    FlippedBits,
    /// What was asked for is done and the answer is lost, now and then.
    LostAnswer,
    /// Every other deletion is done and its answer lost.
    LostDeletion,
    /// The first completion of an upload is done and its answer lost.
    LostCompletion,
    /// Uploads are completed with a 200 that holds an error, always.
    CompletionInWords,
    /// From somewhere in the middle on the token has expired.
    Expired,
    /// From somewhere in the middle on the key may do nothing.
    Refused,
    /// Nothing may be deleted: objects are locked.
    Locked,
    /// From somewhere in the middle on the clocks are too far apart.
    Skewed,
    /// Listings lack their last key, and say that they are whole.
    ShortListings,
    /// Listings are empty, always.
    EmptyListings,
    /// The first page of a listing comes again and again.
    RepeatedListings,
    /// From somewhere in the middle on the bucket is not there.
    NoBucket,
    /// From somewhere in the middle on the store is full.
    Full,
    /// From somewhere in the middle on nothing answers but 500.
    Down,
    /// Uploads are not known any more when they are to be completed, always.
    Forgotten,
    /// A page comes in the place of an answer, as a success or as a 404, now and then, once the store has answered.
    Page,
    /// From somewhere in the middle on a login page answers.
    Login,
}

impl Fault {
    pub const ALL: [Self; 30] = [
        Self::Error500,
        Self::SlowDown,
        Self::TooMany,
        Self::Slow,
        Self::Hang,
        Self::HangInAnswer,
        Self::Closed,
        Self::ResetInWrite,
        Self::ResetInRead,
        Self::Truncated,
        Self::TruncatedInWords,
        Self::FlippedOnTheWay,
        Self::FlippedBits,
        Self::LostAnswer,
        Self::LostDeletion,
        Self::LostCompletion,
        Self::CompletionInWords,
        Self::Expired,
        Self::Refused,
        Self::Locked,
        Self::Skewed,
        Self::ShortListings,
        Self::EmptyListings,
        Self::RepeatedListings,
        Self::NoBucket,
        Self::Full,
        Self::Down,
        Self::Forgotten,
        Self::Page,
        Self::Login,
    ];

    /// Whether it passes, so that tries that follow each other come through.
    pub fn passes(self) -> bool {
        match self {
            Self::Error500
            | Self::SlowDown
            | Self::TooMany
            | Self::Slow
            | Self::Hang
            | Self::HangInAnswer
            | Self::Closed
            | Self::ResetInWrite
            | Self::ResetInRead
            | Self::Truncated
            | Self::LostAnswer
            | Self::Page
            | Self::LostDeletion
            | Self::LostCompletion => true,
            // What comes short or changed, and says that it is right, must be found out: whether by a try again or by a failure.
            Self::TruncatedInWords
            | Self::FlippedOnTheWay
            | Self::FlippedBits
            | Self::CompletionInWords
            | Self::Forgotten
            | Self::Locked
            | Self::ShortListings
            | Self::EmptyListings
            | Self::RepeatedListings => false,
            _ => !self.is_for_good(),
        }
    }

    /// Whether the store is gone for good from some moment on, so that nothing more can be said or taken out.
    pub fn is_for_good(self) -> bool {
        matches!(
            self,
            Self::Login | Self::Expired | Self::Refused | Self::Skewed | Self::NoBucket | Self::Full | Self::Down
        )
    }

    /// Whether what is read may not be what is there.
    pub fn lies_to_readers(self) -> bool {
        matches!(self, Self::FlippedBits | Self::TruncatedInWords)
    }

    /// That of a Job with one attempt where the fault passes; where it does not, waiting for it shows nothing.
    pub fn patience(self) -> StorePatience {
        let patience = StorePatience::of_restore();
        match self {
            Self::Hang | Self::HangInAnswer => StorePatience { still_seconds: 2, ..patience },
            fault if fault.passes() => patience,
            _ => StorePatience { answered_seconds: 2, unanswered_seconds: 1, still_seconds: 2 },
        }
    }

    /// What becomes of a request, after so many others.
    pub fn fate(self, line: &str, before: usize, seed: u64) -> Fate {
        let chance = fastrand::Rng::with_seed(seed ^ (before as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).u8(..40);
        // One of the first, and then by chance.
        let first = before == usize::try_from(seed % 4).unwrap();
        let (often, seldom) = (first || chance < 8, first || chance < 4);
        let middle = usize::try_from(seed % 12).unwrap();
        let listing = line.starts_with("GET") && line.contains("list-type=2");
        let object = line.starts_with("GET") && (line.contains("x-id=GetObject") || !line.contains('?'));
        let completion = line.starts_with("POST") && line.contains("uploadId=");
        let somewhere = usize::try_from(seed % 4000).unwrap();
        match self {
            Self::Error500 if often => Fate::Answer("500 Internal Server Error", String::new()),
            Self::SlowDown if often => Fate::Answer("503 Slow Down", error("SlowDown")),
            Self::TooMany if seldom => {
                Fate::Answer("429 Too Many Requests\r\nRetry-After: 1", error("TooManyRequests"))
            }
            Self::Slow => Fate::Slow(4 << 20),
            Self::Hang if seldom => Fate::Hang,
            Self::HangInAnswer if seldom => Fate::HangAfter(somewhere),
            Self::Closed if often => Fate::Answer("", String::new()),
            Self::ResetInWrite if often => Fate::Break(somewhere),
            Self::ResetInRead if object && often => Fate::ResetAfter(somewhere),
            Self::Truncated if often => Fate::CutAfter(somewhere),
            Self::TruncatedInWords if object && often => Fate::Alter(Box::new(|answer| halved(&answer))),
            Self::FlippedOnTheWay if line.starts_with("PUT") && often => {
                Fate::Forge(Box::new(move |(head, body)| (head, flipped(body, 0, seed))))
            }
            Self::FlippedBits if object => Fate::Alter(Box::new(move |answer| {
                let body = body_of(&answer);
                flipped(answer, body, seed)
            })),
            Self::LostAnswer if often => Fate::CutAfter(0),
            Self::LostDeletion if line.starts_with("DELETE") && chance < 20 => Fate::CutAfter(0),
            // The tries after it find no upload any more.
            Self::LostCompletion if completion && chance < 20 => Fate::CutAfter(0),
            Self::CompletionInWords if completion => Fate::Answer("200 OK", error("InternalError")),
            Self::Forgotten if completion => Fate::Answer("404 Not Found", error("NoSuchUpload")),
            Self::Page if before > 0 && often && chance.is_multiple_of(2) => {
                Fate::Answer("404 Not Found", "<html>no such route</html>".into())
            }
            Self::Page if before > 0 && often => Fate::Answer("200 OK\r\nContent-Type: text/html", LOGIN.into()),
            Self::Login if before >= middle => Fate::Answer("200 OK\r\nContent-Type: text/html", LOGIN.into()),
            Self::Expired if before >= middle => Fate::Answer("400 Bad Request", error("ExpiredToken")),
            Self::Refused if before >= middle => Fate::Answer("403 Forbidden", error("AccessDenied")),
            Self::Locked if line.starts_with("DELETE") => Fate::Answer("403 Forbidden", error("AccessDenied")),
            Self::Skewed if before >= middle => {
                Fate::Answer("403 Forbidden\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT", error("RequestTimeTooSkewed"))
            }
            Self::ShortListings if listing => Fate::Alter(Box::new(|answer| without_the_last(&answer))),
            Self::EmptyListings if listing => Fate::Answer("200 OK", EMPTY.into()),
            Self::RepeatedListings if listing => Fate::Alter(Box::new(|answer| repeated(&answer))),
            Self::NoBucket if before >= middle => Fate::Answer("404 Not Found", error("NoSuchBucket")),
            Self::Full if before >= middle => Fate::Answer("507 Insufficient Storage", error("InsufficientStorage")),
            Self::Down if before >= middle => Fate::Answer("500 Internal Server Error", String::new()),
            _ => Fate::Pass,
        }
    }
}

const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><IsTruncated>false</IsTruncated>\
                     <KeyCount>0</KeyCount></ListBucketResult>";

const LOGIN: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>";

fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>no</Message></Error>")
}

fn body_of(answer: &[u8]) -> usize {
    answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4
}

/// One bit of what begins at `from`.
fn flipped(mut bytes: Vec<u8>, from: usize, seed: u64) -> Vec<u8> {
    if bytes.len() > from {
        let at = from + usize::try_from(seed).unwrap_or(0) % (bytes.len() - from);
        bytes[at] ^= 1;
    }
    bytes
}

/// The first half of an object, as all of it.
fn halved(answer: &[u8]) -> Vec<u8> {
    let body = body_of(answer);
    let head = String::from_utf8_lossy(&answer[..body]).into_owned();
    let half = (answer.len() - body) / 2;
    let kept: Vec<&str> = head.lines().filter(|l| !l.to_ascii_lowercase().starts_with("content-length:")).collect();
    let head = format!("{}\r\nContent-Length: {half}\r\n\r\n", kept.join("\r\n").trim_end());
    [head.as_bytes(), &answer[body..body + half]].concat()
}

fn without_the_last(answer: &[u8]) -> Vec<u8> {
    listed(answer, |xml| {
        let (Some(from), Some(to)) = (xml.rfind("<Contents>"), xml.rfind("</Contents>")) else { return xml };
        let count = xml.matches("<Contents>").count();
        let xml = format!("{}{}", &xml[..from], &xml[to + "</Contents>".len()..]);
        xml.replace(&format!("<KeyCount>{count}</KeyCount>"), &format!("<KeyCount>{}</KeyCount>", count - 1))
    })
}

fn repeated(answer: &[u8]) -> Vec<u8> {
    listed(answer, |xml| {
        xml.replace("<IsTruncated>false", "<IsTruncated>true")
            .replace("</ListBucketResult>", "<NextContinuationToken>again</NextContinuationToken></ListBucketResult>")
    })
}

fn listed(answer: &[u8], change: impl FnOnce(String) -> String) -> Vec<u8> {
    crate::proxy::with_body(answer, change)
}

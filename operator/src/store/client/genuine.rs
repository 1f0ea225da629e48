//! Whether an answer is a store's at all: a login page, or a proxy's own words, is none. Pure, but for reading what passes.
//!
//! S3 names each object that it gives or takes by an ETag, and services mark their answers by headers of their own (`x-amz-…`):
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTCommonResponseHeaders.html>. An answer of 200 with neither would be believed: its body
//! would be an object's content, or nobody would look at it.

use aws_sdk_s3::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_types::config_bag::{Storable, StoreReplace};

/// Bytes of a page that are looked at, and characters of it that are told.
const LOOKED_AT: usize = 4096;
const TOLD: usize = 80;
/// What the headers begin with that services of the kind have: S3 and its like, Google's, Alibaba's.
const MARKS: [&str; 3] = ["x-amz-", "x-goog-", "x-oss-"];

/// The same of Amazon's services that stand before anything, and pass on what that says.
const PASSED_ON: [&str; 2] = ["x-amz-cf-", "x-amz-apigw-"];

fn is_mark(header: &str) -> bool {
    MARKS.iter().any(|mark| header.starts_with(mark)) && !PASSED_ON.iter().any(|mark| header.starts_with(mark))
}

/// What came instead of a store's answer, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Foreign(String);

/// Refuses answers that no S3 service gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Genuine;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// To give an object, or to tell of one: the answer names it, and its content type is the object's.
    Given,
    /// To take an object or a part: the answer names it, and has nothing in it.
    Taken,
    /// Anything else: the answer has nothing in it, or XML.
    Other,
}

impl Storable for Asked {
    type Storer = StoreReplace<Self>;
}

impl Asked {
    fn of(method: &str, uri: &str) -> Self {
        let query = uri.split_once('?').map_or("", |(_, query)| query);
        let lists = query.split('&').any(|word| word.starts_with("list-type=") || word.starts_with("uploads"));
        match method {
            "PUT" => Self::Taken,
            "HEAD" => Self::Given,
            "GET" if !lists => Self::Given,
            _ => Self::Other,
        }
    }
}

/// What of an answer shows whose it is.
struct Answer<'a> {
    asked: Asked,
    status: u16,
    content_type: &'a str,
    etag: bool,
    /// Whether it has a header that only such services have.
    marked: bool,
    /// Of an answer that is in memory.
    body: &'a [u8],
}

impl Intercept for Genuine {
    fn name(&self) -> &'static str {
        "genuine"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        config.interceptor_state().store_put(Asked::of(request.method(), request.uri()));
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let headers = response.headers();
        let answer = Answer {
            asked: config.load::<Asked>().copied().unwrap_or(Asked::Other),
            status: response.status().as_u16(),
            content_type: headers.get("content-type").unwrap_or_default(),
            etag: headers.contains_key("etag"),
            marked: headers.iter().any(|(name, _)| is_mark(name)),
            body: response.body().bytes().unwrap_or_default(),
        };
        match answer.foreign() {
            Some(words) => Err(Foreign(words).into()),
            None => Ok(()),
        }
    }
}

impl Answer<'_> {
    /// What is wrong with it, if it is no store's. Of answers that tell an error, and of those that are XML, the reader finds it out.
    fn foreign(&self) -> Option<String> {
        if !(200..300).contains(&self.status) || self.marked {
            return None;
        }
        let lacks = match (self.asked, self.etag) {
            (Asked::Given | Asked::Taken, false) => " and no ETag",
            (Asked::Given, true) if self.content_type.to_ascii_lowercase().starts_with("text/html") => "",
            (Asked::Taken | Asked::Other, _) if is_html(self.body) || !may_be_xml(self.body) => "",
            _ => return None,
        };
        let kind = if self.content_type.is_empty() { "no content type" } else { self.content_type };
        Some(format!(
            "the answer is {} with {kind}{lacks}{}, as no S3 service gives it",
            self.status,
            begins(self.body)
        ))
    }
}

/// What a body is, in the words of its title or the first of its own; nothing where it is empty, or an error in the words of S3.
pub(super) fn begins(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..LOOKED_AT).unwrap_or(body));
    let title = between(&text, "<title>", "</title>").unwrap_or(&text);
    let words: Vec<&str> = title.split_whitespace().collect();
    if words.is_empty() {
        return String::new();
    }
    format!(" (\u{201c}{}\u{201d})", words.join(" ").chars().take(TOLD).collect::<String>())
}

/// The text between two tags, whatever their case.
pub(super) fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let lower = text.to_ascii_lowercase();
    let start = lower.find(&from.to_ascii_lowercase())? + from.len();
    let length = lower.get(start..)?.find(&to.to_ascii_lowercase())?;
    text.get(start..start + length)
}

/// Whether a body is a page for people.
pub(super) fn is_html(body: &[u8]) -> bool {
    let head = String::from_utf8_lossy(body.get(..LOOKED_AT).unwrap_or(body)).trim_start().to_ascii_lowercase();
    head.starts_with("<!doctype html") || head.starts_with("<html")
}

fn may_be_xml(body: &[u8]) -> bool {
    body.trim_ascii_start().first().is_none_or(|first| *first == b'<')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &[u8] = b"<!DOCTYPE html>\n<html><head><Title>\n Sign in \n</Title></head></html>";

    fn answer(asked: Asked, content_type: &str, etag: bool) -> Answer<'_> {
        Answer { asked, status: 200, content_type, etag, marked: false, body: b"" }
    }

    #[test]
    fn objects_are_told_from_listings_and_uploads() {
        for (method, uri, asked) in [
            ("GET", "/b/k?x-id=GetObject", Asked::Given),
            ("GET", "/b/uploads", Asked::Given),
            ("HEAD", "/b/k", Asked::Given),
            ("PUT", "/b/k?partNumber=1&uploadId=u", Asked::Taken),
            ("GET", "/b/?list-type=2&prefix=p", Asked::Other),
            ("GET", "/b/?uploads=&prefix=p", Asked::Other),
            ("POST", "/b/k?uploads", Asked::Other),
            ("DELETE", "/b/k", Asked::Other),
        ] {
            assert_eq!(Asked::of(method, uri), asked, "{method} {uri}");
        }
    }

    #[test]
    fn what_a_store_answers_is_taken_whichever_it_is() {
        for (what, genuine) in [
            ("an object", answer(Asked::Given, "application/octet-stream", true)),
            ("a page that somebody stored", Answer { marked: true, ..answer(Asked::Given, "text/html", true) }),
            ("its ETag was dropped on the way", Answer { marked: true, ..answer(Asked::Given, "", false) }),
            ("a part", answer(Asked::Taken, "", true)),
            ("a part whose answer is of a type, and empty", answer(Asked::Taken, "text/html", true)),
            ("a listing", answer(Asked::Other, "application/xml", false)),
            (
                "a listing's words",
                Answer { body: b" <?xml version=\"1.0\"?><ListBucketResult/>", ..answer(Asked::Other, "", false) },
            ),
            ("a deletion", Answer { status: 204, ..answer(Asked::Other, "", false) }),
            ("an error", Answer { status: 404, ..answer(Asked::Given, "text/html", false) }),
        ] {
            assert_eq!(genuine.foreign(), None, "{what}");
        }
    }

    #[test]
    fn what_no_store_answers_is_told() {
        let told = answer(Asked::Given, "text/html; charset=utf-8", false).foreign().unwrap();
        assert!(told.contains("200 with text/html; charset=utf-8 and no ETag"), "{told}");
        assert!(answer(Asked::Given, "application/json", false).foreign().is_some());
        assert!(answer(Asked::Given, "text/html", true).foreign().is_some(), "a page from a disk");
        // Nothing is stored, deleted, listed or begun by a page.
        assert!(answer(Asked::Taken, "", false).foreign().is_some());
        for (asked, body) in [(Asked::Taken, PAGE), (Asked::Other, PAGE), (Asked::Other, b"{\"error\": \"sign in\"}")] {
            assert!(Answer { body, ..answer(asked, "", true) }.foreign().is_some());
        }
        let told = Answer { body: PAGE, ..answer(Asked::Other, "", false) }.foreign().unwrap();
        assert!(told.contains("no content type (\u{201c}Sign in\u{201d})"), "{told}");
    }

    #[test]
    fn a_page_is_named_by_its_title_or_its_first_words() {
        assert_eq!(begins(b" \n"), "");
        assert_eq!(begins(b"default backend\n- 404"), " (\u{201c}default backend - 404\u{201d})");
        assert!(begins(&[0xc3; 9000]).chars().count() < 100);
    }
}

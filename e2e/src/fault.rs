//! What can go wrong between a controller and the API server, and when. Pure.

use http::{Response, StatusCode, header};
use kube::client::Body;
use serde_json::json;

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// When.
    pub at: At,
}

/// When it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Never.
    Never,
    /// At one write.
    Write {
        /// Its number, from 1 on.
        number: usize,
        /// Words of the write that counting begins with.
        from: &'static str,
    },
    /// At the first, the third, … try of each write.
    EveryFirstTry,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The controller is killed before the API server hears of the write.
    KilledBefore,
    /// The controller is killed after the API server has done it and before it knows.
    KilledAfter,
    /// The connection breaks before the API server hears of the write.
    Lost,
    /// The write is done, and the connection breaks before the reply.
    Unanswered,
    /// The write is done, and no reply ever comes.
    Silent,
    /// 409: the object has been modified.
    Conflict,
    /// 429, with `Retry-After`.
    TooMany,
    /// 403, as by a quota or a webhook.
    Forbidden,
    /// 500.
    Internal,
    /// 503, from something in front of the API server.
    Unavailable,
    /// The write is done, and something in front of the API server says 504.
    TimedOut,
    /// All watches end with the event 410: their version is too old.
    Expired,
    /// All watches end, and none begins again where it was: 410, until everything has been listed anew.
    Gone,
    /// No watch brings anything for a while.
    Frozen,
    /// All watches end with 410, and for a while lists are as they were three writes ago. Watches go on from there.
    Stale,
    /// For longer than a lease lasts nothing is answered at all.
    Outage,
}

impl Kind {
    /// What is done to a write, one at a time or all of them.
    pub const OF_WRITES: [Self; 9] = [
        Self::Lost,
        Self::Unanswered,
        Self::Silent,
        Self::Conflict,
        Self::TooMany,
        Self::Forbidden,
        Self::Internal,
        Self::Unavailable,
        Self::TimedOut,
    ];
    /// What is done to what the controller sees, beginning at a write.
    pub const OF_READS: [Self; 5] = [Self::Expired, Self::Gone, Self::Frozen, Self::Stale, Self::Outage];

    /// Whether the API server carries out a write that this is done to.
    pub fn is_done(self) -> bool {
        !matches!(
            self,
            Self::KilledBefore
                | Self::Lost
                | Self::Conflict
                | Self::TooMany
                | Self::Forbidden
                | Self::Internal
                | Self::Unavailable
                | Self::Outage
        )
    }

    /// What the controller hears in place of the answer to a write, where it hears something.
    pub fn answer(self) -> Option<Response<Body>> {
        let (code, reason, message) = match self {
            Self::Conflict => (StatusCode::CONFLICT, "Conflict", "the object has been modified"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "too many requests, try again later"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "Forbidden", "exceeded quota"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "etcdserver: leader changed"),
            // Who answers in the API server's place does not speak its language.
            Self::Unavailable => return Some(plain(StatusCode::SERVICE_UNAVAILABLE)),
            Self::TimedOut => return Some(plain(StatusCode::GATEWAY_TIMEOUT)),
            _ => return None,
        };
        let mut response = status(code, reason, message);
        if self == Self::TooMany {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        Some(response)
    }
}

/// 410 in place of a watch.
pub fn gone() -> Response<Body> {
    status(StatusCode::GONE, "Expired", TOO_OLD)
}

/// 410 as the last event of a watch.
pub fn expired_event() -> Vec<u8> {
    let mut line = json!({"type": "ERROR", "object": status_object(410, "Expired", TOO_OLD)}).to_string();
    line.push('\n');
    line.into_bytes()
}

const TOO_OLD: &str = "too old resource version";

fn status_object(code: u16, reason: &str, message: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let body = status_object(code.as_u16(), reason, message).to_string();
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    response.body(Body::from(body.into_bytes())).unwrap()
}

fn plain(code: StatusCode) -> Response<Body> {
    let body = format!("{code}\n");
    Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "text/plain")
        .body(Body::from(body.into_bytes()))
        .unwrap()
}

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

/// Writes between two faults of one run: those of a run or a restore that a fault may have misled are over by then.
const APART: usize = 5;

impl Fault {
    /// Each of these kinds at each of so many writes, counted from the first whose words hold `from`: several in a run, five writes
    /// apart and of different kinds. A run tells of each of them, as faults strike at writes alone: a controller that one fault leaves
    /// waiting for ever gets to none of the next ones, and what was done twice stays so.
    pub fn spread(kinds: &[Kind], from: &'static str, writes: usize) -> Vec<Vec<Self>> {
        let run = |first: usize, turn: usize| {
            let numbers = (first..=writes).step_by(APART).enumerate();
            // Neighbours of another kind in each run, and seldom of the same two kinds.
            let kind = |n: usize| kinds[(turn + n * 5) % kinds.len()];
            numbers.map(|(n, number)| Self { kind: kind(n), at: At::Write { number, from } }).collect()
        };
        (1..=APART.min(writes)).flat_map(|first| (0..kinds.len()).map(move |turn| run(first, turn))).collect()
    }
}

/// When it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At the first try of one write.
    Write {
        /// Its number, from 1 on. What is tried again because a fault kept it from being done has the number it had.
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

/// 403 in place of a list or a watch.
pub fn forbidden() -> Response<Body> {
    status(StatusCode::FORBIDDEN, "Forbidden", "the rights in this namespace are gone")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_strikes_once_at_each_write_and_no_two_near_each_other() {
        let kinds: Vec<Kind> = Kind::OF_WRITES.into_iter().chain(Kind::OF_READS).collect();
        for writes in [1, 4, 31] {
            let runs = Fault::spread(&kinds, "", writes);
            let numbers = |run: &[Fault]| -> Vec<usize> {
                run.iter()
                    .filter_map(|fault| match fault.at {
                        At::Write { number, .. } => Some(number),
                        At::EveryFirstTry => None,
                    })
                    .collect()
            };
            let mut struck: Vec<(usize, Kind)> =
                runs.iter().flat_map(|run| numbers(run).into_iter().zip(run.iter().map(|fault| fault.kind))).collect();
            struck.sort_unstable();
            let each: Vec<(usize, Kind)> =
                (1..=writes).flat_map(|n| kinds.iter().map(move |kind| (n, *kind))).collect();
            assert_eq!(struck.len(), each.len());
            assert!(each.iter().all(|one| struck.binary_search(one).is_ok()));
            assert!(runs.iter().all(|run| numbers(run).windows(2).all(|two| two[1] - two[0] == APART)));
        }
    }
}

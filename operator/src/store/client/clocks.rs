//! The store's clock, by the `Date` of its answers, beside this node's. Talks to no one: it reads what passes.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_types::date_time::{DateTime, Format};
use jiff::{SignedDuration, Timestamp};

/// What two clocks said at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The store's.
    pub store: Timestamp,
    /// This node's.
    pub here: Timestamp,
}

impl Clocks {
    /// How far they are apart, whichever is ahead.
    pub fn apart(self) -> SignedDuration {
        self.store.duration_since(self.here).abs()
    }

    /// Both in words.
    pub fn words(self) -> String {
        let (behind, ahead) =
            if self.store > self.here { ("this node's", "the store's") } else { ("the store's", "this node's") };
        format!(
            "the store's clock says {:.0} and this node's {:.0}: {ahead} is {:#} ahead of {behind}",
            self.store,
            self.here,
            SignedDuration::from_secs(self.apart().as_secs())
        )
    }
}

/// Of an answer's header `Date`.
pub(super) fn clocks(date: &str, here: Timestamp) -> Option<Clocks> {
    Some(Clocks { store: of_header(date)?, here })
}

/// The pause that a header `Retry-After` asks for: seconds, or a time by the clock of whoever wrote it
/// (<https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>).
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<std::time::Duration> {
    if let Ok(seconds) = value.trim().parse::<u32>() {
        return Some(std::time::Duration::from_secs(u64::from(seconds)));
    }
    let asked = of_header(value)?.duration_since(now);
    Some(std::time::Duration::try_from(asked).unwrap_or_default())
}

fn of_header(date: &str) -> Option<Timestamp> {
    let date = DateTime::from_str(date.trim(), Format::HttpDate).ok()?;
    Timestamp::from_second(date.secs()).ok()
}

/// Keeps what the newest answer said. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Mutex<Option<Clocks>>>);

impl Watch {
    pub(super) fn last(&self) -> Option<Clocks> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "clocks"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        // With an `Age` it comes from a cache, and its date is that of another time.
        let date = headers.get("date").filter(|_| headers.get("age").is_none());
        if let Some(clocks) = date.and_then(|date| clocks(date, Timestamp::now())) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(clocks);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_clocks_are_told_and_which_of_them_is_ahead() {
        let here: Timestamp = "2026-11-21T12:00:00.7Z".parse().unwrap();
        let ahead = clocks("Sat, 21 Nov 2026 13:00:30 GMT", here).unwrap();
        assert_eq!(ahead.apart().as_secs(), 3629);
        assert_eq!(
            ahead.words(),
            "the store's clock says 2026-11-21T13:00:30Z and this node's 2026-11-21T12:00:00Z: the store's is 1h 29s ahead of this node's"
        );
        let behind = clocks("Sat, 21 Nov 2026 11:50:00 GMT", here).unwrap();
        assert!(behind.words().ends_with("this node's is 10m ahead of the store's"), "{}", behind.words());
        assert_eq!(clocks("yesterday", here), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_time_and_else_nothing() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 12:00:40 GMT", now), Some(Duration::from_secs(40)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        for nonsense in ["", "soon", "-1", "99999999999999999999"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }
}

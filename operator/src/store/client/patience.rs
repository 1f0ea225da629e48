//! How long a store that fails is waited for, and when it is asked again. Pure.
//!
//! A store that is gone is to be told within two minutes, and one that restarts in the middle of an upload is to be outlasted. Both hold
//! because only whoever has heard from the store waits long for it: the second and third attempt of a Job whose store is gone never have.

use std::time::{Duration, Instant};

use super::trouble::{Kind, Trouble};
use crate::task::StorePatience;

/// The pause after the first failure; each one after it is twice as long …
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// … and none longer than this, so that a store is found soon after its return.
const MAX_PAUSE: Duration = Duration::from_secs(4);
/// A request that was refused for its time is signed by the store's clock when it is sent again. Where that does not help nothing will.
const SKEWED: Duration = Duration::from_secs(1);

/// The limit for what has just failed; none where the same would happen again. `answered`: the store has answered before.
pub(super) fn limit(patience: &StorePatience, trouble: &Trouble, answered: bool) -> Option<Duration> {
    match trouble.kind {
        Kind::Skewed => Some(SKEWED),
        // It took them a moment ago: they may be changing right now. So may what stands before the store.
        Kind::BadCredentials | Kind::Foreign if answered => Some(seconds(patience.answered_seconds)),
        // Who says when to come again is there.
        kind if kind.may_pass() && (answered || trouble.asked.is_some()) => Some(seconds(patience.answered_seconds)),
        kind if kind.may_pass() => Some(seconds(patience.unanswered_seconds)),
        _ => None,
    }
}

/// One request that fails again and again.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Option<Instant>,
    pause: Duration,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { since: None, pause: FIRST_PAUSE }
    }

    /// The pause before the next try; none where patience is over: a try that takes as long as the last one must fit into it as well. The
    /// last try comes at its very end. `chance`, from 0 to 1, spreads many workers, so that they do not come back at the same instant.
    pub(super) fn next(&mut self, trouble: &Trouble, limit: Duration, now: Instant, chance: f64) -> Option<Duration> {
        let since = *self.since.get_or_insert(now.checked_sub(trouble.still).unwrap_or(now));
        let own = self.pause.mul_f64(0.5 + chance / 2.0);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        let left = limit.checked_sub(now.duration_since(since) + trouble.still).filter(|left| !left.is_zero())?;
        let asked = trouble.asked.unwrap_or_default();
        (asked <= left).then(|| (asked + own).min(left))
    }
}

pub(super) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pauses of the Job controller before the second and the third attempt.
    const JOB_PAUSES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(20)];

    fn refused() -> Trouble {
        Trouble::passing("connection refused".to_owned())
    }

    fn hanging(still: Duration) -> Trouble {
        Trouble { still, ..refused() }
    }

    /// When a request to a store that fails with `trouble` each time, after `trouble.still`, is sent: seconds after the store went.
    fn tries(trouble: &Trouble, answered: bool, mut chance: impl FnMut() -> f64) -> (Vec<Duration>, Duration) {
        let limit = limit(&StorePatience::default(), trouble, answered).unwrap();
        let (begun, mut now, mut waiting) = (Instant::now(), Instant::now(), Waiting::new());
        let mut sent = vec![Duration::ZERO];
        loop {
            now += trouble.still;
            match waiting.next(trouble, limit, now, chance()) {
                Some(pause) => now += pause,
                None => return (sent, now - begun),
            }
            sent.push(now - begun);
        }
    }

    proptest! {
        #[test]
        fn a_store_that_restarts_for_a_minute_is_outlasted_by_whoever_it_has_answered(seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (sent, _) = tries(&refused(), true, || random.f64());
            prop_assert!(sent.iter().any(|at| *at >= Duration::from_mins(1)), "{sent:?}");
            prop_assert!(sent.windows(2).all(|pair| pair[1] <= pair[0] + MAX_PAUSE), "{sent:?}");
        }

        #[test]
        fn a_store_that_is_gone_ends_all_attempts_of_a_job_within_two_minutes(seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let patience = StorePatience::default();
            let still = seconds(patience.still_seconds);
            for (trouble, later) in [(refused(), refused()), (hanging(still), hanging(still / 2))] {
                let (_, first) = tries(&trouble, true, || random.f64());
                let (_, again) = tries(&later, false, || random.f64());
                let all = first + again * 2 + JOB_PAUSES.iter().sum::<Duration>();
                // What is left is for Pods to start, and for an attempt to see that it can undo nothing.
                prop_assert!(all < Duration::from_secs(112), "{all:?}");
            }
        }

        #[test]
        fn what_a_store_asks_for_is_waited_out_and_not_much_more(seed: u64, asked in 0_u64..60) {
            let mut random = fastrand::Rng::with_seed(seed);
            let asked = Duration::from_secs(asked);
            let trouble = Trouble { asked: Some(asked), ..refused() };
            // Also by whoever hears from it for the first time.
            let (sent, _) = tries(&trouble, false, || random.f64());
            prop_assert!(sent.len() > 1);
            for pair in sent.windows(2) {
                prop_assert!((pair[0] + asked..=pair[0] + asked + MAX_PAUSE).contains(&pair[1]), "{sent:?}");
            }
        }
    }

    #[test]
    fn more_than_patience_allows_is_not_waited_for_and_what_does_not_pass_not_at_all() {
        let patience = StorePatience::default();
        let asked = Trouble { asked: Some(Duration::from_mins(2)), ..refused() };
        let all = limit(&patience, &asked, true).unwrap();
        assert_eq!(Waiting::new().next(&asked, all, Instant::now(), 1.0), None);
        let refused = |kind| Trouble::of(kind, String::new());
        for kind in [
            Kind::NotFound,
            Kind::NoUpload,
            Kind::NoBucket,
            Kind::Forbidden,
            Kind::Damaged,
            Kind::Archived,
            Kind::Exists,
            Kind::Refused,
        ] {
            assert_eq!(limit(&patience, &refused(kind), true), None, "{kind:?}");
        }
        for kind in [Kind::BadCredentials, Kind::Foreign] {
            assert_eq!(limit(&patience, &refused(kind), false), None, "{kind:?}");
        }
        assert!(limit(&patience, &refused(Kind::Foreign), true).is_some(), "what stands before it may be restarting");
        assert!(limit(&patience, &refused(Kind::BadCredentials), true).is_some(), "a rotation may be under way");
    }
}

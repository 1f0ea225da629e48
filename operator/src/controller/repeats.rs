//! What is said over and over is logged once, and then counted. Acts on nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The same words about the same thing are logged this often at most.
const PAUSE: Duration = Duration::from_mins(1);
/// So many different words about one thing are told apart.
const TEXTS: usize = 8;

/// What was said of which thing, and how often.
pub struct Repeats<K> {
    said: Mutex<HashMap<K, HashMap<String, Said>>>,
}

struct Said {
    logged: Instant,
    since: u64,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self { said: Mutex::new(HashMap::new()) }
    }
}

impl<K: Hash + Eq> Repeats<K> {
    /// How many times these words have been said of this since they were logged last, this time among them; none where it is not time to
    /// log them again.
    pub fn times(&self, about: K, words: String) -> Option<u64> {
        let now = Instant::now();
        let mut said = self.said();
        let of_this = said.entry(about).or_default();
        if of_this.len() >= TEXTS && !of_this.contains_key(&words) {
            of_this.clear();
        }
        let Some(before) = of_this.get_mut(&words) else {
            of_this.insert(words, Said { logged: now, since: 0 });
            return Some(1);
        };
        before.since += 1;
        if now.duration_since(before.logged) < PAUSE {
            return None;
        }
        before.logged = now;
        Some(std::mem::take(&mut before.since))
    }

    /// It is over. Returns how many times something was said of it and not logged.
    pub fn over(&self, about: &K) -> u64 {
        self.said().remove(about).map_or(0, |texts| texts.values().map(|said| said.since).sum())
    }

    // A panic while the lock is held cannot leave it half written: no caller's code runs under it.
    fn said(&self) -> MutexGuard<'_, HashMap<K, HashMap<String, Said>>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_line_and_then_a_count() {
        let repeats = Repeats::default();
        let say = |words: &str| repeats.times("shop/b", words.to_owned());
        let lines = (0..209).filter_map(|_| say("refused")).collect::<Vec<_>>();
        assert_eq!(lines, [1]);
        assert_eq!(say("something else"), Some(1));
        assert_eq!(repeats.times("shop/c", "refused".to_owned()), Some(1), "of another object");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(say("refused"), Some(209));
        assert_eq!(say("refused"), None);
        assert_eq!(repeats.over(&"shop/b"), 1);
        assert_eq!(say("refused"), Some(1), "it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn words_that_are_never_the_same_twice_are_not_kept_for_ever() {
        let repeats = Repeats::default();
        for n in 0..1000 {
            repeats.times("shop/b", format!("request {n} was refused"));
        }
        assert!(repeats.said()["shop/b"].len() <= TEXTS);
    }
}

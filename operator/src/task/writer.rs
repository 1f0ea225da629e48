//! Who begins runs under a cluster's identity, and whether somebody else does. Pure.
//!
//! A cluster that is made from an etcd snapshot beside the living one has the same objects, with the same UIDs: nothing that is kept in etcd tells
//! them apart. So each controller takes a random ID when it begins to lead, and writes it, with the time, into the manifest of each run that it
//! begins. Two rules find the other one:
//!
//! 1. Since I lead nobody else begins runs here. A run that another one has begun since is another living writer's.
//! 2. A policy knows the IDs that led before. A run that was begun since the first of them, by one that is none of them, is another writer's.
//!
//! The first finds, on the side that was made anew, the original that goes on under an ID which both remember; the second finds the new one on the
//! original's side at any time. What was found stays found: the policy writes it down.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Clocks may be apart by so much.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// A controller that leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Writer {
    /// Its ID, which no other one has.
    pub id: String,
    /// When it began to lead; in a manifest when it began the run.
    pub since: Timestamp,
}

/// What a retention knows of writers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Writers {
    /// The controller that leads.
    pub leader: Writer,
    /// Those that led before it, as far as the policy remembers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Writer>,
    /// Those that were found to be another's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// Those that somebody said are no other's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
}

impl Writers {
    /// Whether a run was begun by somebody else who lives, or lived, under this identity.
    pub fn is_another(&self, run: &Writer) -> bool {
        if run.id == self.leader.id || self.accepted.contains(&run.id) {
            return false;
        }
        if self.others.contains(&run.id) || is_later(run.since, self.leader.since) {
            return true;
        }
        let is_known = self.before.iter().any(|w| w.id == run.id);
        let first = self.before.iter().map(|w| w.since).min();
        !is_known && first.is_some_and(|first| is_later(run.since, first))
    }
}

fn is_later(at: Timestamp, than: Timestamp) -> bool {
    at.duration_since(than) > MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn writer(id: &str, since: i64) -> Writer {
        Writer { id: id.into(), since: at(since) }
    }

    fn seen_by(leader: Writer, before: &[Writer]) -> Writers {
        Writers { leader, before: before.to_vec(), others: vec![], accepted: vec![] }
    }

    /// When a run was begun, long after whatever is older.
    const LATER: i64 = 1_000_000;

    #[test]
    fn controllers_that_lead_one_after_the_other_are_one_writer() {
        let before = [writer("a1", 100), writer("a2", 5000)];
        let now = seen_by(writer("a3", 9000), &before);
        for run in [writer("a1", 200), writer("a2", 8999), writer("a3", LATER), writer("a2", 9000 + MARGIN.as_secs())] {
            assert!(!now.is_another(&run), "{run:?}");
        }
        // What was begun before anybody wrote it down is nobody's.
        assert!(!now.is_another(&writer("forgotten", 50)));
        assert!(!seen_by(writer("a1", 9000), &[]).is_another(&writer("x", 8000)), "the policy is new here");
    }

    #[test]
    fn a_cluster_made_from_a_snapshot_beside_the_living_one_is_found_on_both_sides() {
        // Both remember a1, which goes on on one side; b1 begins to lead on the other.
        let shared = [writer("a1", 100)];
        let original = seen_by(writer("a1", 100), &shared);
        let copy = seen_by(writer("b1", 50_000), &shared);
        assert!(original.is_another(&writer("b1", 60_000)) && copy.is_another(&writer("a1", 60_000)));
        assert!(!original.is_another(&writer("a1", 60_000)) && !copy.is_another(&writer("b1", 60_000)));
        // Their common past is nobody's crime.
        assert!(!copy.is_another(&writer("a1", 49_000)));
        // After a restart of the original, b1 is still none of its own.
        let restarted = seen_by(writer("a2", 70_000), &[writer("a1", 100), writer("a2", 70_000)]);
        assert!(restarted.is_another(&writer("b1", 60_000)));
        // After one of the copy what it found once is written down.
        let mut restarted = seen_by(writer("b2", 70_000), &[writer("a1", 100), writer("b1", 50_000)]);
        assert!(!restarted.is_another(&writer("a1", 60_000)));
        restarted.others = vec!["a1".into()];
        assert!(restarted.is_another(&writer("a1", 60_000)));
        restarted.accepted = vec!["a1".into()];
        assert!(!restarted.is_another(&writer("a1", 60_000)), "somebody said that it is dead");
    }
}

//! Which objects of a policy's folder are debris: no manifest names them, and none ever will. Pure.
//!
//! Left behind by deletions that broke off after the manifest, and by attempts of runs that were deleted since. Without a manifest nobody
//! can tell whose an object is, so the rules are strict: in doubt it stays, and only costs.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::retention::Run;

/// An object that no manifest names, in a run's folder, with a name as workers give them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its key.
    pub key: String,
    /// Its run's folder.
    pub run_id: String,
    /// The instant that this run stands for.
    pub slot: Timestamp,
    /// When it was written, by the store's clock.
    pub modified: Option<Timestamp>,
}

/// The keys of those that are debris, run by run. `runs` are all that have a manifest in the listing, `spared` those that Backups of the
/// cluster stand for, whatever became of them.
///
/// - Nothing is debris where another cluster has written to the folder: it may be writing.
/// - Nothing is debris without a complete run of ours that the store dates.
/// - A run that has any manifest, or is spared, has no debris.
/// - Of the others all objects must be older than the newest complete run by more than `grace`, by the store's clock and by slot: the
///   longest time for which a run may still be writing, generously.
pub fn debris(strays: &[Stray], runs: &[Run], spared: &BTreeSet<&str>, grace: SignedDuration) -> Vec<String> {
    if runs.iter().any(|run| run.foreign) {
        return Vec::new();
    }
    let dated = |run: &Run| run.stored.filter(|_| run.is_complete()).map(|stored| (run.slot, stored));
    let Some((slot, stored)) = runs.iter().filter_map(dated).max() else { return Vec::new() };
    let is_old = |stray: &Stray| {
        let by_clock = stray.modified.is_some_and(|modified| stored.duration_since(modified) > grace);
        by_clock && slot.duration_since(stray.slot) > grace
    };
    let with_manifest: BTreeSet<&str> = runs.iter().map(|run| run.run_id.as_str()).collect();
    let mut by_run: BTreeMap<&str, Vec<&Stray>> = BTreeMap::new();
    for stray in strays {
        by_run.entry(&stray.run_id).or_default().push(stray);
    }
    by_run
        .into_iter()
        .filter(|(run_id, _)| !with_manifest.contains(run_id) && !spared.contains(run_id))
        .filter(|(_, strays)| strays.iter().all(|stray| is_old(stray)))
        .flat_map(|(_, strays)| strays.into_iter().map(|stray| stray.key.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: SignedDuration = SignedDuration::from_hours(28);

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + hour * 3600).unwrap()
    }

    fn run(hour: i64, complete: bool, foreign: bool, dated: bool) -> Run {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Run {
            slot: at(hour),
            run_id: format!("r{hour:03}"),
            run_sources: names(&["db", "files"]),
            sources: if complete { names(&["db", "files"]) } else { names(&["db"]) },
            protected: false,
            stored: dated.then(|| at(hour) + SignedDuration::from_mins(5)),
            foreign,
            suspicious: false,
            damaged: false,
        }
    }

    fn stray(hour: i64, late: Option<i64>, n: usize) -> Stray {
        let run_id = format!("r{hour:03}");
        Stray { key: format!("{run_id}/{n}"), run_id, slot: at(hour), modified: late.map(|late| at(hour + late)) }
    }

    fn history() -> impl Strategy<Value = (Vec<Run>, Vec<Stray>, BTreeSet<String>)> {
        let a_run = (prop::bool::weighted(0.7), prop::bool::weighted(0.03), prop::bool::weighted(0.9));
        let a_stray = (0..200_i64, prop::option::weighted(0.9, -5..60_i64));
        let runs = prop::collection::btree_map(0..200_i64, a_run, 0..8);
        (runs, prop::collection::vec(a_stray, 0..20), prop::collection::btree_set(0..200_i64, 0..6)).prop_map(
            |(runs, strays, spared)| {
                let runs = runs.into_iter().map(|(hour, (c, f, d))| run(hour, c, f, d)).collect();
                let strays = strays.into_iter().enumerate().map(|(n, (hour, late))| stray(hour, late, n)).collect();
                (runs, strays, spared.into_iter().map(|hour| format!("r{hour:03}")).collect())
            },
        )
    }

    proptest! {
        #[test]
        fn debris_is_old_on_every_clock_and_nobodys((runs, strays, spared) in history()) {
            let spared: BTreeSet<&str> = spared.iter().map(String::as_str).collect();
            let gone = debris(&strays, &runs, &spared, GRACE);
            for key in &gone {
                let one = strays.iter().find(|s| s.key == *key).unwrap();
                prop_assert!(!spared.contains(one.run_id.as_str()));
                prop_assert!(runs.iter().all(|r| !r.foreign && r.run_id != one.run_id));
                for beside in strays.iter().filter(|s| s.run_id == one.run_id) {
                    let newer = runs.iter().any(|r| {
                        r.is_complete()
                            && r.slot > beside.slot + GRACE
                            && r.stored.is_some_and(|stored| beside.modified.is_some_and(|m| stored > m + GRACE))
                    });
                    prop_assert!(newer, "{:?}", beside);
                    prop_assert!(gone.contains(&beside.key), "a run's debris goes together");
                }
            }
        }

        #[test]
        fn more_that_is_spared_never_deletes_more((runs, strays, spared) in history()) {
            let spared: BTreeSet<&str> = spared.iter().map(String::as_str).collect();
            let (with, without) =
                (debris(&strays, &runs, &spared, GRACE), debris(&strays, &runs, &BTreeSet::new(), GRACE));
            prop_assert!(with.iter().all(|key| without.contains(key)));
        }
    }

    #[test]
    fn what_a_deletion_left_goes_once_it_is_old_and_not_before() {
        let runs = [run(100, true, false, true)];
        let left = |hour, late| debris(&[stray(hour, late, 0)], &runs, &BTreeSet::new(), GRACE).len();
        assert_eq!(left(50, Some(1)), 1);
        assert_eq!(left(80, Some(1)), 0, "too young");
        assert_eq!(left(50, Some(40)), 0, "written a while ago only");
        assert_eq!(left(50, None), 0, "the store does not say when");
        let neighbour = [run(100, true, false, true), run(10, true, true, true)];
        assert_eq!(debris(&[stray(50, Some(1), 0)], &neighbour, &BTreeSet::new(), GRACE), Vec::<String>::new());
        let partial = [run(100, false, false, true)];
        assert_eq!(debris(&[stray(50, Some(1), 0)], &partial, &BTreeSet::new(), GRACE), Vec::<String>::new());
    }
}

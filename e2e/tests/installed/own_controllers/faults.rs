//! The API server fails the controller in each way at each write, and what the controller sees of it stands still, ends, or is old: it
//! ends up where it would have without, stays there, and nothing was done twice.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use holdfast_e2e::fault::{At, Fault, Kind};

use super::story::{self, Ran, Story, run};

/// Runs at the same time. They mostly wait for Pods.
const AT_ONCE: usize = 4;

#[test]
fn whatever_the_api_server_answers_to_writes_of_backups_with_retention_they_end_the_same() {
    under_faults(
        story::backups_with_retention,
        &[Kind::Lost, Kind::Conflict, Kind::Internal],
        &[Kind::Expired, Kind::Outage],
    );
}

#[test]
fn whatever_the_api_server_answers_to_writes_of_a_restore_it_restores_once() {
    under_faults(story::a_restore, &[Kind::TooMany, Kind::Forbidden, Kind::Unavailable], &[Kind::Gone, Kind::Frozen]);
}

#[test]
fn whatever_the_api_server_answers_to_writes_of_a_restore_that_replaces_it_is_done_once() {
    under_faults(story::a_restore_that_replaces, &[Kind::Unanswered, Kind::TimedOut], &[Kind::Silent, Kind::Stale]);
}

/// Some faults; with HOLDFAST_API_FAULTS=all each kind at each write.
fn under_faults(story: Story, at_each: &[Kind], once: &[Kind]) {
    let all = std::env::var("HOLDFAST_API_FAULTS").is_ok_and(|v| v == "all");
    let side_by_side =
        std::env::var("HOLDFAST_API_FAULTS_AT_ONCE").ok().and_then(|v| v.parse().ok()).unwrap_or(AT_ONCE);
    let Figures { runs, struck, .. } = under(story, side_by_side, |writes| {
        let each_first_try = |kind: &Kind| Fault { kind: *kind, at: At::EveryFirstTry };
        if all {
            let kinds = || Kind::OF_WRITES.iter().chain(&Kind::OF_READS);
            let matrix = (1..=writes).flat_map(|n| kinds().map(move |kind| Fault { kind: *kind, at: At::Write(n) }));
            // Five seconds for each write, and nothing would end in time.
            let bearable = Kind::OF_WRITES.iter().filter(|kind| **kind != Kind::Silent);
            return bearable.map(each_first_try).chain(matrix).collect();
        }
        // In the middle there is most to be missed.
        let once = once.iter().map(|kind| Fault { kind: *kind, at: At::Write(writes / 2) });
        at_each.iter().map(each_first_try).chain(once).collect()
    });
    assert!(struck * 4 > runs * 3, "only {struck} of {runs} faults happened");
}

/// What came of many runs.
pub struct Figures {
    /// How many there were.
    pub runs: usize,
    /// How many had something go wrong.
    pub struck: usize,
    faults: usize,
    converged: usize,
    doubled: usize,
    restored_again: usize,
    seconds: u64,
    writes: usize,
    kinds: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, struck, faults, converged, doubled, restored_again, seconds, writes, kinds } = self;
        write!(
            f,
            "{kinds} kinds of fault, {writes} writes: {runs} runs, {struck} of them with {faults} faults, {converged} ended as without; runs with a Job made \
             twice: {doubled}; with a restore executed twice: {restored_again}; {seconds} s"
        )
    }
}

/// Plays a story once without a fault and then under each of those that `faults` gives for its number of writes.
pub fn under(story: Story, at_once: usize, faults: impl FnOnce(usize) -> Vec<Fault>) -> Figures {
    let begun = Instant::now();
    let Ran { end: expected, writes, .. } = run(story, Fault { kind: Kind::Lost, at: At::Never });
    let expected_once = expected.jobs.values().all(|count| *count == 1) && expected.pods_of_restores <= 1;
    assert!(expected_once, "{expected:#?}");
    let faults = faults(writes.len());
    let next = AtomicUsize::new(0);
    let ran = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let one = catch_unwind(AssertUnwindSafe(|| run(story, *fault)));
                    ran.lock().unwrap().push((*fault, one.ok()));
                }
            });
        }
    });
    let ran = ran.into_inner().unwrap();
    let count = |is: &dyn Fn(&Ran) -> bool| ran.iter().filter(|(_, ran)| ran.as_ref().is_some_and(is)).count();
    let kinds: BTreeSet<Kind> = faults.iter().map(|f| f.kind).collect();
    let figures = Figures {
        runs: ran.len(),
        struck: count(&|ran| !ran.struck.is_empty()),
        faults: ran.iter().filter_map(|(_, ran)| Some(ran.as_ref()?.struck.len())).sum(),
        converged: count(&|ran| ran.end == expected),
        doubled: count(&|ran| ran.end.jobs.values().any(|count| *count > 1)),
        restored_again: count(&|ran| ran.end.pods_of_restores > expected.pods_of_restores),
        seconds: begun.elapsed().as_secs(),
        writes: writes.len(),
        kinds: kinds.len(),
    };
    println!("{figures}");
    let wrong: Vec<String> = ran
        .iter()
        .filter(|(_, ran)| ran.as_ref().is_none_or(|ran| ran.end != expected))
        .map(|(fault, ran)| match ran {
            Some(ran) => format!("{fault:?} at {:?}: {:#?}", ran.struck, ran.end),
            None => format!("{fault:?}: did not get to its end, see above"),
        })
        .collect();
    let numbered: Vec<String> = writes.iter().enumerate().map(|(n, write)| format!("{}: {write}", n + 1)).collect();
    assert!(wrong.is_empty(), "expected {expected:#?}\n{}\nwrites:\n{}", wrong.join("\n"), numbered.join("\n"));
    figures
}

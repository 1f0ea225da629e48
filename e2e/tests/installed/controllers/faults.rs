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
    let some = [(Kind::Outage, 12), (Kind::Expired, 18)];
    under_faults(&story::BACKUPS_WITH_RETENTION, &[Kind::Lost, Kind::Conflict], &some);
}

#[test]
fn whatever_the_api_server_answers_to_writes_of_a_restore_it_restores_once() {
    let some = [(Kind::Gone, 9), (Kind::Frozen, 14)];
    under_faults(&story::A_RESTORE, &[Kind::TooMany, Kind::Unavailable], &some);
}

#[test]
fn whatever_the_api_server_answers_to_writes_of_a_restore_that_replaces_it_is_done_once() {
    let some = [(Kind::Silent, 16), (Kind::Stale, 22)];
    under_faults(&story::A_RESTORE_THAT_REPLACES, &[Kind::Unanswered, Kind::TimedOut], &some);
}

/// Faults at the first try of each write, and some once, at writes in the middle. With `HOLDFAST_API_FAULTS` each kind at each write,
/// several in a run; and one alone in a run, each so manieth of these, from that of `HOLDFAST_API_FAULTS_FIRST` on.
fn under_faults(story: &Story, at_each: &[Kind], some: &[(Kind, usize)]) {
    let each_first_try = |kind: &Kind| vec![Fault { kind: *kind, at: At::EveryFirstTry }];
    let once = |(kind, number): &(Kind, usize)| Fault { kind: *kind, at: At::Write { number: *number, from: "" } };
    let Some(each) = number("HOLDFAST_API_FAULTS") else {
        under(story, &at_each.iter().map(each_first_try).chain([some.iter().map(once).collect()]).collect::<Vec<_>>());
        return;
    };
    let writes = story.undisturbed().writes.len();
    let kinds: Vec<Kind> = Kind::OF_WRITES.into_iter().chain(Kind::OF_READS).collect();
    // Five seconds for each write, and nothing would end in time.
    let bearable = Kind::OF_WRITES.iter().filter(|kind| **kind != Kind::Silent);
    under(story, &bearable.map(each_first_try).chain(Fault::spread(&kinds, "", writes)).collect::<Vec<_>>());
    let first = number("HOLDFAST_API_FAULTS_FIRST").unwrap_or_default() % each.min(writes * kinds.len());
    let alone = (1..=writes).flat_map(|n| kinds.iter().map(move |kind| vec![once(&(*kind, n))]));
    under(story, &alone.skip(first).step_by(each).collect::<Vec<_>>());
}

/// A number that the environment may give.
pub fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// What came of many runs.
struct Figures {
    /// How many there were.
    runs: usize,
    faults: usize,
    /// How many were asked for: one at each first try counts once.
    planned: usize,
    /// How many of these struck at all.
    struck: usize,
    converged: usize,
    doubled: usize,
    restored_again: usize,
    seconds: u64,
    writes: usize,
    kinds: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, faults, planned, struck, converged, doubled, restored_again, seconds, writes, kinds } = self;
        write!(
            f,
            "{kinds} kinds of fault, {writes} writes: {runs} runs with {faults} faults ({struck} of {planned} planned ones), {converged} \
             ended as without; runs with a Job made twice: {doubled}; with a restore executed twice: {restored_again}; {seconds} s"
        )
    }
}

/// Plays a story again under these faults, those of a run together: each time it ends as it does without.
pub fn under(story: &Story, runs: &[Vec<Fault>]) {
    let begun = Instant::now();
    let at_once = number("HOLDFAST_API_FAULTS_AT_ONCE").unwrap_or(AT_ONCE);
    let next = AtomicUsize::new(0);
    let ran = Mutex::new(Vec::new());
    let Ran { end: expected, writes, .. } = std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(faults) = runs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let one = catch_unwind(AssertUnwindSafe(|| run(story, faults.clone())));
                    ran.lock().unwrap().push((faults, one.ok()));
                }
            });
        }
        story.undisturbed()
    });
    let ran = ran.into_inner().unwrap();
    let once = expected.jobs.values().all(|count| *count == 1) && expected.pods_of_restores <= 1;
    assert!(once && writes.len() > 5, "{expected:#?}");
    let count = |is: &dyn Fn(&Ran) -> bool| ran.iter().filter(|(_, ran)| ran.as_ref().is_some_and(is)).count();
    let kinds: BTreeSet<Kind> = runs.iter().flatten().map(|fault| fault.kind).collect();
    let figures = Figures {
        runs: runs.len(),
        faults: ran.iter().filter_map(|(_, ran)| Some(ran.as_ref()?.struck.len())).sum(),
        planned: runs.iter().map(Vec::len).sum(),
        struck: ran.iter().filter_map(|(faults, ran)| Some(ran.as_ref()?.struck.len().min(faults.len()))).sum(),
        converged: count(&|ran| ran.end == *expected),
        doubled: count(&|ran| ran.end.jobs.values().any(|count| *count > 1)),
        restored_again: count(&|ran| ran.end.pods_of_restores > expected.pods_of_restores),
        seconds: begun.elapsed().as_secs(),
        writes: writes.len(),
        kinds: kinds.len(),
    };
    println!("figure: {figures}");
    let wrong: Vec<String> = ran
        .iter()
        .filter(|(_, ran)| ran.as_ref().is_none_or(|ran| ran.end != *expected))
        .map(|(faults, ran)| match ran {
            Some(ran) => format!("{faults:?} at {:?}: {:#?}", ran.struck, ran.end),
            None => format!("{faults:?}: did not get to its end, see above"),
        })
        .collect();
    let numbered: Vec<String> = writes.iter().enumerate().map(|(n, write)| format!("{}: {write}", n + 1)).collect();
    assert!(wrong.is_empty(), "expected {expected:#?}\n{}\nwrites:\n{}", wrong.join("\n"), numbered.join("\n"));
    // A run makes a few writes more or less than another, by how what it watches arrives.
    assert!(figures.struck * 4 > figures.planned * 3, "too few faults happened: {figures}");
}

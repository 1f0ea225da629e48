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
    let once = [(Kind::Expired, 16), (Kind::Outage, 12)];
    under_faults(story::backups_with_retention, &[Kind::Lost, Kind::Conflict], &once);
}

#[test]
fn whatever_the_api_server_answers_to_writes_of_a_restore_it_restores_once() {
    let once = [(Kind::Gone, 10), (Kind::Frozen, 14)];
    under_faults(story::a_restore, &[Kind::TooMany, Kind::Unavailable], &once);
}

#[test]
fn whatever_the_api_server_answers_to_writes_of_a_restore_that_replaces_it_is_done_once() {
    let once = [(Kind::Silent, 18), (Kind::Stale, 22)];
    under_faults(story::a_restore_that_replaces, &[Kind::Unanswered, Kind::TimedOut], &once);
}

/// Faults at the first try of each write, and some once, at a write in the middle. With `HOLDFAST_API_FAULTS=1` each kind at each write,
/// with another number each so manieth of these.
fn under_faults(story: Story, at_each: &[Kind], once: &[(Kind, usize)]) {
    let each_first_try = |kind: &Kind| Fault { kind: *kind, at: At::EveryFirstTry };
    let Some(each) = number("HOLDFAST_API_FAULTS") else {
        let once = once.iter().map(|(kind, write)| Fault { kind: *kind, at: nth(*write) });
        under(story, None, at_each.iter().map(each_first_try).chain(once).collect());
        return;
    };
    let reference = run(story, NEVER);
    let kinds = || Kind::OF_WRITES.iter().chain(&Kind::OF_READS);
    let matrix = (1..=reference.writes.len()).flat_map(|n| kinds().map(move |kind| Fault { kind: *kind, at: nth(n) }));
    // Five seconds for each write, and nothing would end in time.
    let bearable = Kind::OF_WRITES.iter().filter(|kind| **kind != Kind::Silent);
    let faults = bearable.map(each_first_try).chain(matrix).step_by(each).collect();
    under(story, Some(reference), faults);
}

/// At the nth of all writes.
fn nth(number: usize) -> At {
    At::Write { number, from: "" }
}

/// A number that the environment may give.
pub fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// No fault at all.
pub const NEVER: Fault = Fault { kind: Kind::Lost, at: At::Never };

/// What came of many runs.
struct Figures {
    /// How many there were.
    runs: usize,
    /// How many had something go wrong.
    struck: usize,
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

/// Plays a story under each fault, and without one where that was not done before: each time it ends the same.
pub fn under(story: Story, reference: Option<Ran>, mut faults: Vec<Fault>) {
    let begun = Instant::now();
    let at_once = number("HOLDFAST_API_FAULTS_AT_ONCE").unwrap_or(AT_ONCE);
    if reference.is_none() {
        faults.insert(0, NEVER);
    }
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
    let mut ran = ran.into_inner().unwrap();
    let reference = reference.or_else(|| ran.extract_if(.., |(fault, _)| *fault == NEVER).next()?.1);
    let Ran { end: expected, writes, .. } = reference.expect("it gets to its end where nothing goes wrong");
    let once = expected.jobs.values().all(|count| *count == 1) && expected.pods_of_restores <= 1;
    assert!(once && writes.len() > 5, "{expected:#?}");
    let count = |is: &dyn Fn(&Ran) -> bool| ran.iter().filter(|(_, ran)| ran.as_ref().is_some_and(is)).count();
    let kinds: BTreeSet<Kind> = ran.iter().map(|(fault, _)| fault.kind).collect();
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
    println!("figure: {figures}");
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
    // A run makes a few writes more or less than another, by how what it watches arrives.
    assert!(figures.struck * 4 > figures.runs * 3, "too few faults happened: {figures}");
}

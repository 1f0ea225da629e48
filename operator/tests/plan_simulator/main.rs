//! Random lives of an installation: an API server, watches that lag, a bucket, Jobs and a clock in memory; the real decisions. Pure.
//!
//! Each seed is one life: people make, edit and delete objects, workers finish, fail or vanish, the store goes away, the controller is cut off
//! before or after any of its writes and sees the cluster late. What must hold at every step is checked at every step (`oracle.rs`); then
//! the faults end, and all must come to rest in a state that is right. A failure prints its seed; `HOLDFAST_SIMULATOR_SEED=<seed>` runs
//! that life alone, `HOLDFAST_SIMULATOR_STEPS` says how many steps to take in all, `HOLDFAST_SIMULATOR_FIRST` with which seed to begin (1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "it is all tests")]

mod cluster;
mod controller;
mod oracle;
mod people;
mod worker;

use cluster::Cluster;

/// Steps of one life while things go wrong.
const STEPS_OF_A_LIFE: u64 = 2_000;
/// Rounds of a quarter of a minute until the store has been proved again at the latest.
const ROUNDS_TO_RECOVER: u32 = 40;
/// Steps of all lives together where nothing else is said: some seconds.
const STEPS: u64 = 60_000;

#[test]
fn whatever_goes_wrong_nothing_is_lost_or_done_twice_and_all_comes_to_rest() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let steps = number("HOLDFAST_SIMULATOR_STEPS").unwrap_or(STEPS);
    let only = number("HOLDFAST_SIMULATOR_SEED");
    let first = only.or_else(|| number("HOLDFAST_SIMULATOR_FIRST")).unwrap_or(1);
    let lives = if only.is_some() { 1 } else { steps.div_ceil(STEPS_OF_A_LIFE) };
    let (mut taken, mut told) = (0, oracle::Tally::default());
    for seed in first..first + lives {
        let outcome = std::panic::catch_unwind(|| live(seed));
        let Ok((steps, tally)) = outcome else {
            panic!("the life above failed: run it again with HOLDFAST_SIMULATOR_SEED={seed}");
        };
        taken += steps;
        told.add(&tally);
    }
    println!("figure: seeds {first} to {}: {taken} steps, {told}", first + lives - 1);
    assert!(only.is_some() || told.saw_enough(), "too little happened for this to mean anything: {told}");
}

/// One life. Returns how many steps it took and what happened in it.
fn live(seed: u64) -> (u64, oracle::Tally) {
    let mut cluster = Cluster::new(seed);
    people::settle_in(&mut cluster);
    let mut steps = 0;
    while steps < STEPS_OF_A_LIFE {
        steps += 1;
        match cluster.rng.u8(..100) {
            0..=44 => controller::look_at_something(&mut cluster),
            45..=64 => cluster.hear(),
            65..=84 => worker::step(&mut cluster),
            85..=92 => people::act(&mut cluster),
            _ => cluster.pass_time(),
        }
        oracle::check(&cluster);
    }
    steps += come_to_rest(&mut cluster);
    (steps, cluster.tally)
}

/// The faults end; everything gets its turn until nothing is left to do.
fn come_to_rest(cluster: &mut Cluster) -> u64 {
    people::make_peace(cluster);
    let mut steps = 0;
    let mut quiet_rounds = 0;
    for round in 0..4_000 {
        if round == ROUNDS_TO_RECOVER {
            people::ask_once_more(cluster);
        }
        cluster.hear_all();
        let writes = cluster.writes;
        controller::look_at_all(cluster);
        worker::finish_all(cluster);
        cluster.collect_orphans();
        oracle::check(cluster);
        steps += 1;
        cluster.now += jiff::SignedDuration::from_secs(15);
        quiet_rounds = if cluster.writes == writes { quiet_rounds + 1 } else { 0 };
        // Longer than any patience of a plan.
        if quiet_rounds > 60 && round > ROUNDS_TO_RECOVER {
            oracle::check_rest(cluster);
            return steps;
        }
    }
    panic!("it does not come to rest: {:#?}", cluster.summary());
}

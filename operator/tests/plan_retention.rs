//! Retention over random histories: what must hold whatever the rules and the runs are, and an oracle that is too simple to be wrong. Pure.
#![allow(clippy::unwrap_used, reason = "a test's own helpers")]

use std::collections::{BTreeMap, BTreeSet};

use holdfast::plan::retention::{Run, Verdict, decide};
use holdfast_crds::{KeepWithin, RetentionSpec};
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const SOURCES: [&str; 3] = ["config", "db", "uploads"];
const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "Asia/Jakarta", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"];

fn names() -> impl Strategy<Value = BTreeSet<String>> {
    subsequence(SOURCES.to_vec(), 1..=3).prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

/// Runs a few minutes, hours, days or months apart, with equal slots and jumps of the clock by decades, some of them failed.
fn history() -> impl Strategy<Value = Vec<Run>> {
    let step = prop_oneof![
        2 => Just(0_i64),
        8 => 60..7200_i64,
        20 => 3600..200_000_i64,
        6 => 86_400..20_000_000_i64,
        1 => -400_000_000..400_000_000_i64,
    ];
    let missing = prop_oneof![3 => Just(Vec::new()), 1 => subsequence(vec![0, 1, 2], 1..=3)];
    let run = (step, prop_oneof![3 => Just(0), 1 => Just(1)], names(), missing, prop::bool::weighted(0.05));
    let run = (
        run,
        prop::bool::weighted(0.03),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::bool::weighted(0.2)),
    );
    (0..3_i64, prop::collection::vec(run, 0..40), names()).prop_map(|(start, steps, usual)| {
        // Around the changes of the clocks of 2010, and over the day that Samoa left out in 2011.
        let mut at = [1_289_000_000, 1_301_000_000, 1_325_000_000][usize::try_from(start).unwrap()];
        let mut runs = Vec::new();
        for (i, ((step, other, sources, missing, protected), future, (foreign, suspicious, damaged))) in
            steps.into_iter().enumerate()
        {
            at = (at + step).clamp(0, 4_000_000_000);
            let run_sources = if other == 1 { sources } else { usual.clone() };
            let missing: BTreeSet<&str> = missing.into_iter().map(|i: usize| SOURCES[i]).collect();
            let slot = Timestamp::from_second(at).unwrap();
            let stored = slot + SignedDuration::from_secs(if future { -90_000 } else { 600 });
            runs.push(Run {
                slot,
                run_id: format!("{}-{:02}", slot.strftime("%Y%m%dT%H%M%SZ"), (i * 7) % 40),
                sources: run_sources.iter().filter(|name| !missing.contains(name.as_str())).cloned().collect(),
                run_sources,
                protected,
                stored: Some(stored),
                foreign,
                suspicious,
                damaged,
            });
        }
        runs
    })
}

fn number() -> impl Strategy<Value = Option<i32>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(0)), 6 => (1..6).prop_map(Some), 1 => Just(Some(10_000))]
}

fn any_rules() -> impl Strategy<Value = RetentionSpec> {
    let within = prop_oneof![
        3 => Just(None),
        2 => (1..40, select(vec!["h", "d", "w", "y"])).prop_map(|(n, unit)| Some(format!("{n}{unit}"))),
    ];
    (number(), within, number(), number(), number(), number(), number()).prop_map(
        |(keep_last, keep_within, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly)| RetentionSpec {
            keep_last,
            keep_within,
            keep_hourly,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_yearly,
        },
    )
}

fn has_a_rule(rules: &RetentionSpec) -> bool {
    rules.keep_within.is_some() || numbers(rules).iter().any(|n| n.is_some_and(|n| n > 0))
}

fn numbers(rules: &RetentionSpec) -> [Option<i32>; 6] {
    [rules.keep_last, rules.keep_hourly, rules.keep_daily, rules.keep_weekly, rules.keep_monthly, rules.keep_yearly]
}

/// What the API server lets through: at least one rule in force.
fn rules() -> impl Strategy<Value = RetentionSpec> {
    any_rules().prop_filter("a rule", has_a_rule)
}

fn zone() -> impl Strategy<Value = TimeZone> {
    select(ZONES.to_vec()).prop_map(|name| TimeZone::get(name).unwrap())
}

fn grace() -> impl Strategy<Value = SignedDuration> {
    (0..100_i64).prop_map(SignedDuration::from_hours)
}

fn kept(verdicts: &[Verdict]) -> BTreeSet<String> {
    verdicts.iter().filter(|v| v.keep).map(|v| v.run_id.clone()).collect()
}

fn is_sound(run: &Run) -> bool {
    run.is_complete() && !run.foreign && run.stored.unwrap() > run.slot
}

/// The rules again, naively: for each run, count the runs or buckets that are newer than it.
fn oracle(runs: &[Run], rules: &RetentionSpec, zone: &TimeZone) -> BTreeSet<String> {
    let newer = |a: &Run, b: &Run| (a.slot, &a.run_id) > (b.slot, &b.run_id);
    let sound: Vec<&Run> = runs.iter().filter(|r| is_sound(r)).collect();
    let mut stay = BTreeSet::new();
    for run in &sound {
        let group: Vec<&Run> = sound.iter().copied().filter(|r| r.run_sources == run.run_sources).collect();
        let newest = group.iter().map(|r| r.slot).max().unwrap();
        let rank = group.iter().filter(|r| newer(r, run)).count();
        let in_last = rank < usize::try_from(rules.keep_last.unwrap_or(0)).unwrap();
        let in_within = rules.keep_within.as_ref().is_some_and(|text| {
            let hours = text.parse::<KeepWithin>().unwrap().hours;
            newest.as_second() - run.slot.as_second() <= hours * 3600
        });
        let only_newest = run.run_sources.iter().any(|name| {
            let with: Vec<&&Run> = sound.iter().filter(|r| r.run_sources.contains(name)).collect();
            !with.iter().any(|r| newer(r, run))
                || (!run.suspicious && !with.iter().any(|r| !r.suspicious && newer(r, run)))
        });
        if in_last || in_within || only_newest || in_bucket(run, &group, rules, zone, &newer) {
            stay.insert(run.run_id.clone());
        }
    }
    stay
}

/// The names of buckets, by arithmetic on dates alone.
fn bucket(which: usize, at: &Zoned) -> (i64, i64, i64) {
    let date = at.date();
    match which {
        0 => (0, at.timestamp().as_second().div_euclid(60) - i64::from(at.minute()), 0),
        1 => (date.year().into(), date.month().into(), date.day().into()),
        2 => {
            let mut monday = date;
            while monday.weekday() != Weekday::Monday {
                monday = monday.yesterday().unwrap();
            }
            (monday.year().into(), monday.month().into(), monday.day().into())
        }
        3 => (date.year().into(), date.month().into(), 0),
        _ => (date.year().into(), 0, 0),
    }
}

fn in_bucket(
    run: &Run,
    group: &[&Run],
    rules: &RetentionSpec,
    zone: &TimeZone,
    newer: &impl Fn(&Run, &Run) -> bool,
) -> bool {
    (0..5).any(|which| {
        let wanted = usize::try_from(numbers(rules)[which + 1].unwrap_or(0)).unwrap();
        let name = |r: &Run| bucket(which, &r.slot.to_zoned(zone.clone()));
        let mine = name(run);
        let mut newest: BTreeMap<_, &Run> = BTreeMap::new();
        for other in group.iter().copied() {
            let entry = newest.entry(name(other)).or_insert(other);
            if newer(other, entry) {
                *entry = other;
            }
        }
        let is_the_newest = newest[&mine].run_id == run.run_id;
        let newer_buckets = newest.values().filter(|r| newer(r, run)).count();
        is_the_newest && newer_buckets < wanted
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn complete_runs_stay_exactly_as_the_oracle_says(
        runs in history(), rules in rules(), zone in zone(), grace in grace(),
    ) {
        let kept = kept(&decide(&runs, &rules, &zone, grace));
        // And once more as if there were no damaged ones.
        let whole: Vec<Run> = runs.iter().filter(|r| !r.damaged).cloned().collect();
        let mut expected = oracle(&runs, &rules, &zone);
        expected.extend(oracle(&whole, &rules, &zone));
        for run in runs.iter().filter(|r| is_sound(r)) {
            prop_assert_eq!(kept.contains(&run.run_id), run.protected || expected.contains(&run.run_id), "{:?}", run);
        }
    }

    #[test]
    fn what_must_stay_stays(runs in history(), rules in any_rules(), zone in zone(), grace in grace()) {
        let verdicts = decide(&runs, &rules, &zone, grace);
        let kept = kept(&verdicts);
        prop_assert_eq!(verdicts.len(), runs.len());
        prop_assert!(verdicts.iter().all(|v| !v.reasons.is_empty()));
        for name in SOURCES {
            let newest = runs
                .iter()
                .filter(|r| is_sound(r) && r.run_sources.contains(name))
                .max_by_key(|r| (r.slot, &r.run_id));
            prop_assert!(newest.is_none_or(|r| kept.contains(&r.run_id)), "newest with {}", name);
            let newest_plausible = runs
                .iter()
                .filter(|r| is_sound(r) && !r.suspicious && r.run_sources.contains(name))
                .max_by_key(|r| (r.slot, &r.run_id));
            prop_assert!(newest_plausible.is_none_or(|r| kept.contains(&r.run_id)), "newest plausible with {}", name);
            let newest_whole = runs
                .iter()
                .filter(|r| is_sound(r) && !r.damaged && r.run_sources.contains(name))
                .max_by_key(|r| (r.slot, &r.run_id));
            prop_assert!(newest_whole.is_none_or(|r| kept.contains(&r.run_id)), "newest whole with {}", name);
        }
        for run in &runs {
            let from_the_future = run.stored.unwrap() < run.slot;
            prop_assert!(kept.contains(&run.run_id) || !(run.protected || from_the_future || run.foreign));
            if !run.is_complete() && !kept.contains(&run.run_id) {
                let covered = runs.iter().any(|r| is_sound(r) && !r.damaged && r.slot > run.slot && run.sources.is_subset(&r.run_sources));
                let old = runs.iter().any(|r| is_sound(r) && r.slot.duration_since(run.slot) > grace);
                prop_assert!(covered && old, "{:?}", run);
            }
        }
        prop_assert!(has_a_rule(&rules) || kept.len() == runs.len());
    }

    #[test]
    fn one_more_rule_or_a_greater_number_never_deletes_more(
        runs in history(), rules in rules(), more in any_rules(), zone in zone(), grace in grace(),
    ) {
        let before = kept(&decide(&runs, &rules, &zone, grace));
        let greater = |a: Option<i32>, b: Option<i32>| a.max(b);
        let longer = |a: Option<String>, b: Option<String>| {
            let hours = |text: &Option<String>| text.as_ref().map(|t| t.parse::<KeepWithin>().unwrap().hours);
            if hours(&a) > hours(&b) { a } else { b }
        };
        let with_more = RetentionSpec {
            keep_last: greater(rules.keep_last, more.keep_last),
            keep_within: longer(rules.keep_within, more.keep_within),
            keep_hourly: greater(rules.keep_hourly, more.keep_hourly),
            keep_daily: greater(rules.keep_daily, more.keep_daily),
            keep_weekly: greater(rules.keep_weekly, more.keep_weekly),
            keep_monthly: greater(rules.keep_monthly, more.keep_monthly),
            keep_yearly: greater(rules.keep_yearly, more.keep_yearly),
        };
        let after = kept(&decide(&runs, &with_more, &zone, grace));
        prop_assert!(before.is_subset(&after), "{:?}", before.difference(&after));
    }

    #[test]
    fn a_damaged_run_takes_no_whole_ones_place(runs in history(), rules in any_rules(), zone in zone(), grace in grace()) {
        let all = kept(&decide(&runs, &rules, &zone, grace));
        let whole: Vec<Run> = runs.into_iter().filter(|r| !r.damaged).collect();
        let without = kept(&decide(&whole, &rules, &zone, grace));
        prop_assert!(without.is_subset(&all), "{:?}", without.difference(&all));
    }

    #[test]
    fn what_other_clusters_stored_changes_nothing_and_stays(
        runs in history(), rules in any_rules(), zone in zone(), grace in grace(),
    ) {
        let all = kept(&decide(&runs, &rules, &zone, grace));
        let (theirs, ours): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(|r| r.foreign);
        let alone = kept(&decide(&ours, &rules, &zone, grace));
        prop_assert!(theirs.iter().all(|r| all.contains(&r.run_id)));
        prop_assert!(ours.iter().all(|r| all.contains(&r.run_id) == alone.contains(&r.run_id)));
    }

    #[test]
    fn a_second_pass_deletes_nothing(runs in history(), rules in rules(), zone in zone(), grace in grace()) {
        let first = kept(&decide(&runs, &rules, &zone, grace));
        let left: Vec<Run> = runs.into_iter().filter(|r| first.contains(&r.run_id)).collect();
        prop_assert_eq!(kept(&decide(&left, &rules, &zone, grace)), first);
    }

    #[test]
    fn a_pass_that_was_cut_short_ends_the_same(
        runs in history(), rules in rules(), zone in zone(), grace in grace(), limit in 0..5_usize,
    ) {
        let first = kept(&decide(&runs, &rules, &zone, grace));
        let doomed: Vec<&Run> = runs.iter().filter(|r| !first.contains(&r.run_id)).collect();
        let gone: BTreeSet<&str> = doomed.iter().take(limit).map(|r| r.run_id.as_str()).collect();
        let left: Vec<Run> = runs.iter().filter(|r| !gone.contains(r.run_id.as_str())).cloned().collect();
        prop_assert!(first.is_subset(&kept(&decide(&left, &rules, &zone, grace))));
    }

    #[test]
    fn the_order_of_the_listing_does_not_matter(
        (runs, shuffled) in history().prop_flat_map(|runs| (Just(runs.clone()), Just(runs).prop_shuffle())),
        rules in any_rules(), zone in zone(), grace in grace(),
    ) {
        prop_assert_eq!(decide(&runs, &rules, &zone, grace), decide(&shuffled, &rules, &zone, grace));
    }

    #[test]
    fn failed_runs_change_nothing_for_complete_ones(
        runs in history(), rules in any_rules(), zone in zone(), grace in grace(),
    ) {
        let complete: Vec<Run> = runs.iter().filter(|r| r.is_complete()).cloned().collect();
        let alone = decide(&complete, &rules, &zone, grace);
        let ids: BTreeSet<&str> = complete.iter().map(|r| r.run_id.as_str()).collect();
        let mut among = decide(&runs, &rules, &zone, grace);
        among.retain(|v| ids.contains(v.run_id.as_str()));
        prop_assert_eq!(alone, among);
    }

    #[test]
    fn after_each_run_is_the_same_as_once_at_the_end(
        mut runs in history(), rules in rules(), zone in zone(), grace in grace(),
    ) {
        runs.sort();
        let mut bucket: Vec<Run> = Vec::new();
        for run in &mut runs {
            run.protected = false;
            bucket.push(run.clone());
            let stay = kept(&decide(&bucket, &rules, &zone, grace));
            bucket.retain(|r| stay.contains(&r.run_id));
        }
        let left: BTreeSet<String> = bucket.iter().map(|r| r.run_id.clone()).collect();
        prop_assert_eq!(left, kept(&decide(&runs, &rules, &zone, grace)));
    }
}

//! Tables of what stays, by run, with the reasons as users read them. Pure.

use super::*;

const GRACE: SignedDuration = SignedDuration::from_hours(28);

fn names(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// A complete run of source `db`, named by its slot.
fn run(slot: &str) -> Run {
    Run {
        slot: slot.parse().unwrap(),
        run_id: slot.to_owned(),
        run_sources: names("db"),
        sources: names("db"),
        protected: false,
        stored: None,
        foreign: false,
        suspicious: false,
        damaged: false,
    }
}

fn partial(slot: &str, run_sources: &str, sources: &str) -> Run {
    Run { run_id: format!("partial {slot}"), run_sources: names(run_sources), sources: names(sources), ..run(slot) }
}

fn daily(days: impl IntoIterator<Item = i8>) -> Vec<Run> {
    days.into_iter().map(|day| run(&format!("2026-11-{day:02}T02:00:00Z"))).collect()
}

fn kept(runs: &[Run], rules: &RetentionSpec, time_zone: &str) -> Vec<String> {
    decide(runs, rules, &zone(time_zone), GRACE).into_iter().filter(|v| v.keep).map(|v| v.run_id).collect()
}

fn table(runs: &[Run], rules: &RetentionSpec) -> String {
    let line = |verdict: &Verdict| {
        let reasons: Vec<String> = verdict.reasons.iter().map(Why::to_string).collect();
        format!("{} {}: {}\n", if verdict.keep { "keep" } else { "drop" }, verdict.run_id, reasons.join("; "))
    };
    decide(runs, rules, &TimeZone::UTC, GRACE).iter().map(line).collect::<Vec<_>>().concat()
}

#[test]
fn the_rules_add_up_and_say_why() {
    let rules = RetentionSpec { keep_last: Some(2), keep_daily: Some(3), keep_weekly: Some(2), ..Default::default() };
    let mut runs = daily(14..=20);
    runs.push(run("2026-11-20T14:00:00Z"));
    assert_eq!(
        table(&runs, &rules),
        "keep 2026-11-20T14:00:00Z: newest complete backup with db; last 1 of 2; daily 2026-11-20; weekly 2026-W47\n\
         keep 2026-11-20T02:00:00Z: last 2 of 2\n\
         keep 2026-11-19T02:00:00Z: daily 2026-11-19\n\
         keep 2026-11-18T02:00:00Z: daily 2026-11-18\n\
         drop 2026-11-17T02:00:00Z: no rule keeps it\n\
         drop 2026-11-16T02:00:00Z: no rule keeps it\n\
         keep 2026-11-15T02:00:00Z: weekly 2026-W46\n\
         drop 2026-11-14T02:00:00Z: no rule keeps it\n"
    );
}

#[test]
fn a_bucket_without_a_run_uses_up_nothing() {
    let rules = RetentionSpec { keep_daily: Some(3), ..Default::default() };
    assert_eq!(
        kept(&daily([1, 2, 9, 20]), &rules, "UTC"),
        ["2026-11-20T02:00:00Z", "2026-11-09T02:00:00Z", "2026-11-02T02:00:00Z"]
    );
}

#[test]
fn keep_within_counts_from_the_newest_and_includes_its_end() {
    let rules = RetentionSpec { keep_within: Some("3d".into()), ..Default::default() };
    assert_eq!(
        kept(&daily([5, 6, 16, 17, 20]), &rules, "UTC"),
        ["2026-11-20T02:00:00Z", "2026-11-17T02:00:00Z"],
        "a policy that has not run since November keeps them for ever"
    );
}

#[test]
fn months_and_years_and_iso_weeks_over_new_year() {
    let slots = ["2025-12-28T02:00:00Z", "2025-12-29T02:00:00Z", "2025-12-31T02:00:00Z", "2026-01-04T02:00:00Z"];
    let runs: Vec<Run> = slots.iter().map(|s| run(s)).collect();
    let week = RetentionSpec { keep_weekly: Some(9), ..Default::default() };
    assert_eq!(kept(&runs, &week, "UTC"), ["2026-01-04T02:00:00Z", "2025-12-28T02:00:00Z"]);
    let month = RetentionSpec { keep_monthly: Some(9), ..Default::default() };
    assert_eq!(kept(&runs, &month, "UTC"), ["2026-01-04T02:00:00Z", "2025-12-31T02:00:00Z"]);
    let year = RetentionSpec { keep_yearly: Some(1), ..Default::default() };
    assert_eq!(kept(&runs, &year, "UTC"), ["2026-01-04T02:00:00Z"]);
}

#[test]
fn days_are_those_of_the_time_zone() {
    let runs: Vec<Run> = ["2026-11-20T16:00:00Z", "2026-11-20T18:00:00Z"].iter().map(|s| run(s)).collect();
    let rules = RetentionSpec { keep_daily: Some(9), ..Default::default() };
    assert_eq!(kept(&runs, &rules, "UTC").len(), 1);
    assert_eq!(kept(&runs, &rules, "Asia/Jakarta").len(), 2, "17:00 UTC is midnight there");
}

#[test]
fn a_repeated_local_hour_is_two_hours() {
    // Clocks in Berlin go back at 01:00 UTC: all three have a local time of 02:xx.
    let runs: Vec<Run> =
        ["2026-10-25T00:10:00Z", "2026-10-25T00:40:00Z", "2026-10-25T01:10:00Z"].iter().map(|s| run(s)).collect();
    let rules = RetentionSpec { keep_hourly: Some(9), ..Default::default() };
    assert_eq!(kept(&runs, &rules, "Europe/Berlin"), ["2026-10-25T01:10:00Z", "2026-10-25T00:40:00Z"]);
}

#[test]
fn a_day_that_comes_back_is_one_day() {
    // In St. John's clocks went back at 00:01 to 23:01 of the day before: the 7th, the 6th again, the 7th again.
    let runs: Vec<Run> =
        ["2010-11-07T02:30:30Z", "2010-11-07T03:00:00Z", "2010-11-07T05:00:00Z"].iter().map(|s| run(s)).collect();
    let rules = RetentionSpec { keep_daily: Some(9), ..Default::default() };
    assert_eq!(kept(&runs, &rules, "America/St_Johns"), ["2010-11-07T05:00:00Z", "2010-11-07T03:00:00Z"]);
}

#[test]
fn runs_of_one_source_never_push_out_full_ones() {
    let rules = RetentionSpec { keep_last: Some(1), ..Default::default() };
    let both = Run { run_sources: names("db uploads"), sources: names("db uploads"), ..run("2026-11-18T02:00:00Z") };
    let runs = [both, run("2026-11-19T02:00:00Z"), run("2026-11-20T02:00:00Z")];
    assert_eq!(
        table(&runs, &rules),
        "keep 2026-11-20T02:00:00Z: newest complete backup with db; last 1 of 1\n\
         drop 2026-11-19T02:00:00Z: no rule keeps it\n\
         keep 2026-11-18T02:00:00Z: newest complete backup with uploads; last 1 of 1\n"
    );
}

#[test]
fn a_hundred_failures_push_out_nothing() {
    let rules = RetentionSpec { keep_last: Some(3), ..Default::default() };
    let mut runs = daily([1, 2, 3]);
    let good = kept(&runs, &rules, "UTC");
    for i in 0..100 {
        runs.push(partial(&format!("2026-11-{:02}T{:02}:00:00Z", 4 + i / 20, i % 20), "db", ""));
    }
    assert_eq!(good.len(), 3);
    assert!(good.iter().all(|id| kept(&runs, &rules, "UTC").contains(id)));
}

#[test]
fn a_partial_run_goes_only_when_replaced_and_old() {
    let rules = RetentionSpec { keep_last: Some(7), ..Default::default() };
    let old = "2026-11-18T22:00:00Z";
    let young = "2026-11-18T22:00:01Z";
    let newest = Run { run_sources: names("db uploads"), sources: names("db uploads"), ..run("2026-11-20T02:00:00Z") };
    let verdict = |partial: Run| {
        let run_id = partial.run_id.clone();
        let verdicts = decide(&[newest.clone(), partial], &rules, &TimeZone::UTC, GRACE - SignedDuration::from_secs(1));
        let verdict = verdicts.into_iter().find(|v| v.run_id == run_id).unwrap();
        (verdict.keep, verdict.reasons.iter().map(Why::to_string).collect::<Vec<_>>().join("; "))
    };
    let replaced = (false, "partial: superseded by 2026-11-20T02:00:00Z".to_owned());
    assert_eq!(verdict(partial(old, "db uploads", "db")), replaced);
    assert_eq!(verdict(partial(old, "", "")), replaced, "no manifest at all");
    assert_eq!(verdict(partial(old, "db more", "db")), replaced, "what it holds counts");
    assert_eq!(verdict(partial(young, "db uploads", "db")), (true, "partial: too young to be given up".to_owned()));
    let not_replaced = (true, "partial: no newer complete backup has all that is in it".to_owned());
    assert_eq!(verdict(partial(old, "db more", "more")), not_replaced);
    assert_eq!(verdict(partial("2026-11-20T02:00:00Z", "db more", "db")), not_replaced, "not newer");
    assert_eq!(
        verdict(Run { protected: true, ..partial(old, "db uploads", "db") }),
        (true, "protected: under way, or a restore reads from it".to_owned())
    );
}

#[test]
fn without_a_complete_run_nothing_goes() {
    let rules = RetentionSpec { keep_last: Some(1), ..Default::default() };
    let runs = [partial("2020-01-01T00:00:00Z", "db", ""), partial("2026-01-01T00:00:00Z", "db uploads", "db")];
    assert_eq!(kept(&runs, &rules, "UTC").len(), 2);
}

#[test]
fn without_a_readable_rule_nothing_goes() {
    let runs = daily(1..=9);
    for rules in [
        RetentionSpec::default(),
        RetentionSpec { keep_last: Some(0), keep_daily: Some(-3), ..Default::default() },
        RetentionSpec { keep_last: Some(1), keep_within: Some("soon".into()), ..Default::default() },
    ] {
        assert_eq!(kept(&runs, &rules, "UTC").len(), 9, "{rules:?}");
    }
}

#[test]
fn a_run_made_under_a_clock_ten_years_ahead_pushes_out_nothing() {
    let rules = RetentionSpec { keep_last: Some(1), keep_within: Some("3d".into()), ..Default::default() };
    let mut runs = daily([18, 19, 20]);
    let without = kept(&runs, &rules, "UTC");
    runs.push(Run { stored: Some("2026-11-20T09:00:00Z".parse().unwrap()), ..run("2036-11-20T09:00:00Z") });
    runs.push(partial("2026-11-19T09:00:00Z", "db other", "db"));
    let with = kept(&runs, &rules, "UTC");
    assert_eq!(with.len(), without.len() + 2, "it stays, and so does the young partial one");
    assert!(without.iter().all(|id| with.contains(id)));
}

#[test]
fn equal_slots_are_ordered_by_run_id() {
    let rules = RetentionSpec { keep_last: Some(1), ..Default::default() };
    let named = |id: &str| Run { run_id: id.to_owned(), ..run("2026-11-20T02:00:00Z") };
    assert_eq!(kept(&[named("a"), named("c"), named("b")], &rules, "UTC"), ["c"]);
}

#[test]
fn the_newest_that_is_not_suspicious_stays_beside_small_ones_however_many_they_are() {
    let mut runs = daily(1..=9);
    for run in runs.iter_mut().skip(2) {
        run.suspicious = true;
    }
    let rules = RetentionSpec { keep_last: Some(2), ..RetentionSpec::default() };
    assert_eq!(kept(&runs, &rules, "UTC"), ["2026-11-09T02:00:00Z", "2026-11-08T02:00:00Z", "2026-11-02T02:00:00Z"]);
    let verdicts = decide(&runs, &rules, &zone("UTC"), GRACE);
    let why = &verdicts.iter().find(|v| v.run_id == "2026-11-02T02:00:00Z").unwrap().reasons;
    assert_eq!(*why, [Why::NewestPlausibleWith(vec!["db".into()])]);
}

#[test]
fn damaged_runs_take_no_whole_ones_place_and_go_in_their_time() {
    let rules = RetentionSpec { keep_last: Some(2), ..Default::default() };
    let mut runs = daily(14..=20);
    for run in &mut runs {
        run.damaged = ["18", "20"].iter().any(|day| run.run_id.contains(&format!("-{day}T")));
    }
    assert_eq!(
        table(&runs, &rules).lines().filter(|line| line.starts_with("keep")).collect::<Vec<_>>(),
        [
            "keep 2026-11-20T02:00:00Z: newest complete backup with db; last 1 of 2",
            "keep 2026-11-19T02:00:00Z: last 2 of 2; newest complete backup with db; last 1 of 2",
            "keep 2026-11-17T02:00:00Z: last 2 of 2",
        ],
        "two that are whole, and of the damaged ones what the rules keep"
    );
    // Nothing of a partial run is replaced by a damaged one.
    let partial = partial("2026-10-01T02:00:00Z", "db uploads", "db");
    let mut newer = run("2026-11-20T02:00:00Z");
    let left = |newer: &Run| kept(&[partial.clone(), newer.clone()], &rules, "UTC").len();
    assert_eq!(left(&newer), 1);
    newer.damaged = true;
    assert_eq!(left(&newer), 2);
}

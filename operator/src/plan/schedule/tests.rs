//! Tables of slots, of refused schedules with what users read, and of decisions. Pure.

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, zone, "shop/shop/uid").unwrap()
}

/// Slots after an instant, as UTC without seconds.
fn slots(text: &str, zone: &str, after: &str, number: usize) -> String {
    let schedule = schedule(text, zone);
    let slots = std::iter::successors(schedule.next_after(at(after)), |slot| schedule.next_after(*slot));
    slots.take(number).map(|slot| slot.strftime("%m-%dT%H:%M").to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn fields_macros_and_intervals() {
    for (text, expected) in [
        ("0 2 * * *", "11-21T02:00 11-22T02:00 11-23T02:00"),
        ("  */20   2,14 * *\t* ", "11-21T02:00 11-21T02:20 11-21T02:40"),
        ("30 1-9/4 * * *", "11-21T01:30 11-21T05:30 11-21T09:30"),
        ("5/25 0 * * *", "11-21T00:05 11-21T00:30 11-21T00:55"),
        ("0 0 1 JAN,jul *", "01-01T00:00 07-01T00:00 01-01T00:00"),
        ("0 0 ? * Mon-Wed", "11-23T00:00 11-24T00:00 11-25T00:00"),
        ("0 0 * * 7", "11-22T00:00 11-29T00:00 12-06T00:00"),
        ("0 0 * * fri-sun", "11-21T00:00 11-22T00:00 11-27T00:00"),
        ("0 0 * * 7-1", "11-22T00:00 11-23T00:00 11-29T00:00"),
        ("0 0 13 * FRI", "11-27T00:00 12-04T00:00 12-11T00:00"),
        ("0 0 1-7 * */7", "12-06T00:00 01-03T00:00 02-07T00:00"),
        ("0 0 */10 * MON", "12-21T00:00 01-11T00:00 02-01T00:00"),
        ("0 0 29 2 *", "02-29T00:00 02-29T00:00 02-29T00:00"),
        ("0 0 31 * *", "12-31T00:00 01-31T00:00 03-31T00:00"),
        ("@hourly", "11-20T19:00 11-20T20:00 11-20T21:00"),
        ("@daily", "11-21T00:00 11-22T00:00 11-23T00:00"),
        ("@Midnight", "11-21T00:00 11-22T00:00 11-23T00:00"),
        ("@weekly", "11-22T00:00 11-29T00:00 12-06T00:00"),
        ("@monthly", "12-01T00:00 01-01T00:00 02-01T00:00"),
        ("@yearly", "01-01T00:00 01-01T00:00 01-01T00:00"),
        ("@annually", "01-01T00:00 01-01T00:00 01-01T00:00"),
        ("@every 5m", "11-20T18:05 11-20T18:10 11-20T18:15"),
        ("@every 1h30m", "11-20T19:30 11-20T21:00 11-20T22:30"),
        ("@every  7d", "11-26T00:00 12-03T00:00 12-10T00:00"),
    ] {
        assert_eq!(slots(text, "UTC", "2026-11-20T18:00:00Z", 3), expected, "{text}");
    }
}

#[test]
fn an_interval_before_1970_and_between_seconds() {
    let five = schedule("@every 10s", "UTC");
    assert_eq!(five.next_after(at("1969-12-31T23:59:49.5Z")), Some(at("1969-12-31T23:59:50Z")));
    assert_eq!(
        five.latest_at_or_before(at("1969-12-31T23:59:49.5Z"), at("1969-01-01T00:00:00Z")),
        Some(at("1969-12-31T23:59:40Z"))
    );
    assert_eq!(five.next_after(at("2026-11-20T02:00:00.000000001Z")), Some(at("2026-11-20T02:00:10Z")));
    assert_eq!(five.next_after(at("2026-11-20T01:59:59.999999999Z")), Some(at("2026-11-20T02:00:00Z")));
}

#[test]
fn what_cannot_be_read_is_refused_with_what_to_write() {
    for (text, expected) in [
        ("0 25 * * *", "hour \"25\": write 0 to 23, such as 2, */6 or H(0-5)"),
        ("x 2 * * *", "minute \"x\": write 0 to 59, such as 30, */15 or H"),
        ("0 2 0 * *", "day of month \"0\": write 1 to 31, such as 1, 1,15 or *"),
        ("0 2 * 13 *", "month \"13\": write 1 to 12, such as 1, JAN or *"),
        ("0 2 * * 8", "day of week \"8\": write 0 to 7, such as 1-5, SUN or *"),
        ("0 2 * MON *", "month \"mon\": write 1 to 12, such as 1, JAN or *"),
        ("0 2,, * * *", "hour \"\": write 0 to 23, such as 2, */6 or H(0-5)"),
        ("0 22-2 * * *", "hour \"22-2\": a range goes upwards; over the end write 22-23,0-2"),
        ("0 2 * * fri-mon", "day of week \"fri-mon\": a range goes upwards; over the end write 5-6,0-1"),
        (
            "*/90 * * * *",
            "minute \"*/90\": the step after / must be 1 to 60; for longer intervals write @every, such as @every 90m",
        ),
        (
            "*/0 * * * *",
            "minute \"*/0\": the step after / must be 1 to 60; for longer intervals write @every, such as @every 90m",
        ),
        ("0 0 1 */13 *", "month \"*/13\": the step after / must be 1 to 12"),
        ("0 H(0-7 * * *", "hour \"h(0-7\": H is written H, H/15 or H(0-7)"),
        ("0 Hx * * *", "hour \"hx\": H is written H, H/15 or H(0-7)"),
        ("0 0 L * *", "day of month \"l\": write 1 to 31, such as 1, 1,15 or *"),
        ("0 0 2 * * *", "has 6 fields; write five: minute, hour, day of month, month, day of week, such as 0 2 * * *"),
        ("", "has 0 fields; write five: minute, hour, day of month, month, day of week, such as 0 2 * * *"),
        ("TZ=UTC 0 2 * * *", "write the time zone into spec.timeZone, and take TZ=UTC away"),
        ("@reboot", NO_SUCH_MACRO),
        ("@every", NO_SUCH_MACRO),
        ("@every5m", NO_SUCH_MACRO),
        (
            "@every soon",
            "@every needs a length such as 5m, 1h30m, 24h or 7d, with whole numbers and the units s, m, h and d; \"soon\" is none",
        ),
        (
            "@every 1.5h",
            "@every needs a length such as 5m, 1h30m, 24h or 7d, with whole numbers and the units s, m, h and d; \"1.5h\" is none",
        ),
        ("@every 9s", "@every 9s: the length must be 10s to 366d"),
        ("@every 367d", "@every 367d: the length must be 10s to 366d"),
    ] {
        let error = Schedule::parse(text, "UTC", "").unwrap_err();
        assert_eq!(error.to_string(), format!("spec.schedule {text:?}: {expected}"));
        assert_eq!(error.reason(), Reason::InvalidSchedule);
    }
    assert_eq!(Schedule::parse(&"0 2 * * *,".repeat(90), "UTC", "").unwrap_err().reason(), Reason::InvalidSchedule);
}

#[test]
fn what_never_comes_due_is_refused() {
    for text in ["0 0 30 2 *", "0 0 31 4 *", "0 0 31 2,4,6,9,11 *", "0 0 31 6 */2", "H H 30,31 FEB ?"] {
        assert_eq!(Schedule::parse(text, "UTC", "").unwrap_err().reason(), Reason::NeverFires, "{text}");
    }
    assert_eq!(
        Schedule::parse("0 0 30 2 *", "UTC", "").unwrap_err().to_string(),
        "spec.schedule \"0 0 30 2 *\" never comes due: none of its months has a day 30; for the end of a month write a day up to 28, or 1 \
         for the start of the next one"
    );
    assert!(Schedule::parse("0 0 30 2 MON", "UTC", "").is_ok(), "each Monday of February");
}

#[test]
fn rare_slots_are_found() {
    for (text, after, expected) in [
        ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
        ("0 0 29 2 */6", "2076-03-01T00:00:00Z", "2088-02-29T00:00:00Z"),
        ("30 * 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:30:00Z"),
    ] {
        for zone in ["UTC", "Etc/UTC"] {
            let schedule = schedule(text, zone);
            assert_eq!(schedule.next_after(at(after)), Some(at(expected)), "{text}");
            assert_eq!(schedule.latest_at_or_before(at(expected), at(after)), Some(at(expected)), "{text}");
            assert_eq!(schedule.latest_at_or_before(just_before(at(expected)), at(after)), None, "{text}");
        }
    }
}

fn just_before(instant: Timestamp) -> Timestamp {
    instant - SignedDuration::from_nanos(1)
}

#[test]
fn the_end_of_time_is_no_panic() {
    for text in ["* * * * *", "0 2 * * *", "@every 366d", "0 0 29 2 *"] {
        for zone in ["UTC", "Europe/Berlin", "Pacific/Apia"] {
            let schedule = schedule(text, zone);
            assert_eq!(schedule.next_after(Timestamp::MAX), None);
            let _ = schedule.next_after(Timestamp::MIN);
            let _ = schedule.latest_at_or_before(Timestamp::MIN, Timestamp::MIN);
            let _ = schedule.latest_at_or_before(Timestamp::MAX, Timestamp::MIN);
            assert!(schedule.latest_at_or_before(at("9000-01-01T00:00:00Z"), Timestamp::MIN).is_some());
        }
    }
}

#[test]
fn a_time_zone_is_one_of_the_compiled_in_database() {
    for name in ["UTC", "Europe/Berlin", "asia/jakarta", "Etc/GMT+5"] {
        assert!(time_zone(name).is_ok(), "{name}");
    }
    for name in ["Europe/Berln", "", "CEST", "+02:00", "Etc/Unknown", "../../etc/passwd", "EST5EDT4,M3.2.0,M11.1.0"] {
        let error = Schedule::parse("0 2 * * *", name, "").unwrap_err();
        assert_eq!(error.reason(), Reason::UnknownTimeZone);
        assert!(error.to_string().starts_with(&format!("spec.timeZone {name:?} is not a time zone: write the name")));
    }
}

#[test]
fn named_hours_over_changes_of_the_clocks() {
    // Berlin: 2026-03-29 02:00 → 03:00 at 01:00 UTC; 2026-10-25 03:00 → 02:00 at 01:00 UTC.
    assert_eq!(slots("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3), "03-28T01:30 03-29T01:00 03-30T00:30");
    assert_eq!(slots("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", 3), "10-24T00:30 10-25T00:30 10-26T01:30");
    assert_eq!(
        slots("*/20 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 4),
        "03-29T01:00 03-29T01:20 03-29T01:40 03-30T00:00"
    );
    assert_eq!(
        slots("0 */2 * * *", "Europe/Berlin", "2026-10-24T21:00:00Z", 4),
        "10-24T22:00 10-25T00:00 10-25T03:00 10-25T05:00"
    );
    // Lord Howe Island changes by half an hour.
    assert_eq!(slots("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2), "10-03T15:30 10-04T15:15");
    // Samoa left out 2011-12-30.
    assert_eq!(slots("0 9 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3), "12-29T19:00 12-30T10:00 12-30T19:00");
}

#[test]
fn every_hour_over_changes_of_the_clocks() {
    assert_eq!(slots("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3), "03-29T00:30 03-29T01:30 03-29T02:30");
    assert_eq!(slots("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3), "10-25T00:30 10-25T01:30 10-25T02:30");
    assert_eq!(slots("@hourly", "Pacific/Apia", "2011-12-30T08:00:00Z", 3), "12-30T09:00 12-30T10:00 12-30T11:00");
}

#[test]
fn h_is_stable_spread_and_in_range() {
    let same = |text: &str, seed: &str| {
        Schedule::parse(text, "UTC", seed).unwrap() == Schedule::parse(text, "UTC", seed).unwrap()
    };
    assert!(same("H H * * *", "shop/shop/1"));
    // These values must never change: they are the times at which people's backups run.
    assert_eq!(slots("H H * * *", "UTC", "2026-11-20T00:00:00Z", 1), "11-20T23:16");
    assert_eq!(slots("H H(0-7) H H H", "UTC", "2026-11-20T00:00:00Z", 2), "08-07T07:16 08-14T07:16");

    let mut starts = std::collections::BTreeSet::new();
    for i in 0..400 {
        let seed = format!("shop/policy-{i}/uid");
        let next = |text: &str| {
            let schedule = Schedule::parse(text, "UTC", &seed).unwrap();
            schedule.next_after(at("2026-11-30T23:59:59Z")).unwrap().to_zoned(TimeZone::UTC).datetime()
        };
        assert!(next("0 H(2-4) * * *").hour() >= 2 && next("0 H(2-4) * * *").hour() <= 4);
        assert!(next("0 0 H * *").day() <= 28);
        assert_eq!(next("0 0 H * *").month(), 12, "{seed}");
        let schedule = Schedule::parse("H(0-29)/10,45 * * * *", "UTC", &seed).unwrap();
        assert_eq!(schedule.count(at("2026-11-30T23:59:59Z"), at("2026-12-01T00:59:59Z"), 9), 4, "{seed}");
        let schedule = Schedule::parse("H/15 * * * *", "UTC", &seed).unwrap();
        assert_eq!(schedule.count(at("2026-11-30T23:59:59Z"), at("2026-12-01T00:59:59Z"), 9), 4, "{seed}");
        starts.insert(next("H * * * *").minute());
    }
    assert_eq!(starts.len(), 60, "all minutes are in use");
}

mod decisions {
    use holdfast_crds::{CompressionSpec, LocalRef};

    use super::*;

    const CREATED: &str = "2026-11-01T10:00:00Z";

    fn spec(text: &str) -> BackupPolicySpec {
        BackupPolicySpec {
            store_ref: LocalRef { name: "s3".into() },
            schedule: (!text.is_empty()).then(|| text.to_owned()),
            time_zone: "UTC".into(),
            suspend: false,
            run_on_create: false,
            starting_deadline_seconds: 3600,
            timeout_seconds: 1,
            idle_timeout_seconds: 1,
            sources: Vec::new(),
            compression: CompressionSpec::default(),
            retention: None,
            job_template: None,
        }
    }

    fn so_far(spec: &BackupPolicySpec, cursor: &str) -> SoFar {
        let cursor = (!cursor.is_empty()).then(|| at(cursor));
        let in_force = cursor.map(|_| decide(spec, &SoFar { in_force: None, ..new() }, CREATED).in_force);
        SoFar { cursor, in_force, ..new() }
    }

    fn new() -> SoFar {
        SoFar { created: at(CREATED), cursor: None, in_force: None, edited: None }
    }

    fn decide(spec: &BackupPolicySpec, so_far: &SoFar, now: &str) -> Due {
        let schedule = Schedule::of(spec, "seed").unwrap();
        due(spec, schedule.as_ref(), so_far, at(now))
    }

    fn run(due: &Due) -> String {
        due.run.map_or("-".to_owned(), |slot| slot.to_string())
    }

    fn missed(due: &Due) -> String {
        due.missed.as_ref().map_or("-".to_owned(), Missed::to_string)
    }

    #[test]
    fn a_slot_runs_when_it_comes_and_once() {
        let spec = spec("0 2 * * *");
        let before = decide(&spec, &so_far(&spec, "2026-11-19T02:00:00Z"), "2026-11-20T01:59:59.999Z");
        assert_eq!((run(&before).as_str(), before.next), ("-", Some(at("2026-11-20T02:00:00Z"))));
        assert_eq!(before.cursor, at("2026-11-19T02:00:00Z"), "nothing to write");
        let due = decide(&spec, &so_far(&spec, "2026-11-19T02:00:00Z"), "2026-11-20T02:00:00Z");
        assert_eq!(run(&due), "2026-11-20T02:00:00Z");
        assert_eq!(missed(&due), "-");
        assert_eq!((due.cursor, due.next), (at("2026-11-20T02:00:00Z"), Some(at("2026-11-21T02:00:00Z"))));
        assert_eq!(due.cursor_without_run, at("2026-11-19T02:00:00Z"));
        let after = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2026-11-20T02:00:01Z");
        assert_eq!((run(&after).as_str(), missed(&after).as_str()), ("-", "-"));
    }

    #[test]
    fn of_missed_slots_the_newest_runs_within_the_deadline() {
        let spec = spec("*/10 * * * *");
        let due = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2026-11-20T02:35:00Z");
        assert_eq!(run(&due), "2026-11-20T02:30:00Z");
        assert_eq!(
            missed(&due),
            "skipped 2 slots, the newest of them 2026-11-20T02:20:00Z: the run of 2026-11-20T02:30:00Z makes up for all that were missed"
        );
    }

    #[test]
    fn the_deadline_is_to_the_second() {
        let spec = spec("0 2 * * *");
        let so_far = so_far(&spec, "2026-11-19T02:00:00Z");
        assert_eq!(run(&decide(&spec, &so_far, "2026-11-20T03:00:00Z")), "2026-11-20T02:00:00Z");
        let late = decide(&spec, &so_far, "2026-11-20T03:00:00.001Z");
        assert_eq!((run(&late).as_str(), late.cursor), ("-", at("2026-11-20T02:00:00Z")));
        assert_eq!(
            missed(&late),
            "skipped the slot of 2026-11-20T02:00:00Z: missed by more than 1h (spec.startingDeadlineSeconds)"
        );
    }

    #[test]
    fn ten_years_down_is_one_run_and_a_bounded_count() {
        let spec = BackupPolicySpec { starting_deadline_seconds: 60, ..spec("* * * * *") };
        let due = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2036-11-20T02:00:30Z");
        assert_eq!(run(&due), "2036-11-20T02:00:00Z");
        assert!(missed(&due).starts_with("skipped more than 100 slots, the newest of them 2036-11-20T01:59:00Z"));
        assert_eq!(due.cursor, at("2036-11-20T02:00:00Z"));
    }

    #[test]
    fn a_suspended_policy_lets_slots_pass_and_makes_up_for_none() {
        let active = spec("0 2 * * *");
        let suspended = BackupPolicySpec { suspend: true, ..active.clone() };
        let due = decide(&suspended, &so_far(&active, "2026-11-19T02:00:00Z"), "2026-11-20T02:00:05Z");
        assert_eq!((run(&due).as_str(), missed(&due).as_str(), due.next), ("-", "-", None));
        // The controller is down while the policy is resumed; the slot of the 21st passed before that.
        let then = SoFar { cursor: Some(due.cursor), in_force: Some(due.in_force), ..new() };
        let resumed = decide(&active, &then, "2026-11-21T02:30:00Z");
        assert_eq!((run(&resumed).as_str(), missed(&resumed).as_str()), ("-", "-"));
        assert_eq!(resumed.cursor, at("2026-11-21T02:30:00Z"));
        assert_eq!(resumed.next, Some(at("2026-11-22T02:00:00Z")));
    }

    #[test]
    fn a_suspended_policy_writes_a_status_once_a_slot_at_most() {
        let spec = BackupPolicySpec { suspend: true, ..spec("0 2 * * *") };
        let due = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2026-11-20T17:00:00Z");
        assert_eq!(due.cursor, at("2026-11-20T02:00:00Z"));
        let due = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2026-11-22T17:00:00Z");
        assert_eq!(due.cursor, at("2026-11-22T02:00:00Z"));
    }

    #[test]
    fn an_edited_schedule_has_no_slot_before_the_edit() {
        let (old, new_spec) = (spec("0 2 * * *"), spec("0 9 * * *"));
        let so_far = so_far(&old, "2026-11-20T02:00:00Z");
        let due = decide(&new_spec, &so_far, "2026-11-20T09:10:00Z");
        assert_eq!((run(&due).as_str(), missed(&due).as_str()), ("-", "-"));
        assert_eq!((due.cursor, due.next), (at("2026-11-20T09:10:00Z"), Some(at("2026-11-21T09:00:00Z"))));
        // Known to have been edited at 8:30, before the slot of 9:00 that the controller was down for.
        let so_far = SoFar { edited: Some(at("2026-11-20T08:30:00Z")), ..so_far };
        assert_eq!(run(&decide(&new_spec, &so_far, "2026-11-20T09:10:00Z")), "2026-11-20T09:00:00Z");
    }

    #[test]
    fn an_edit_of_something_else_loses_no_slot() {
        let old = spec("0 2 * * *");
        let new_spec = BackupPolicySpec { timeout_seconds: 7, ..old.clone() };
        let due = decide(&new_spec, &so_far(&old, "2026-11-19T02:00:00Z"), "2026-11-20T02:10:00Z");
        assert_eq!(run(&due), "2026-11-20T02:00:00Z");
    }

    #[test]
    fn a_clock_set_back_runs_nothing_twice() {
        let spec = spec("*/10 * * * *");
        let due = decide(&spec, &so_far(&spec, "2026-11-20T02:30:00Z"), "2026-11-20T01:35:00Z");
        assert_eq!((run(&due).as_str(), due.cursor), ("-", at("2026-11-20T02:30:00Z")));
        assert_eq!(due.next, Some(at("2026-11-20T02:40:00Z")));
    }

    #[test]
    fn a_cursor_of_a_wrong_clock_does_not_stop_backups_for_years() {
        let spec = spec("0 2 * * *");
        let due = decide(&spec, &so_far(&spec, "2036-11-20T02:00:00Z"), "2026-11-20T09:00:00Z");
        assert_eq!((run(&due).as_str(), due.cursor), ("-", at("2026-11-20T09:00:00Z")));
        assert_eq!(due.next, Some(at("2026-11-21T02:00:00Z")));
    }

    #[test]
    fn a_new_policy_starts_with_its_next_slot() {
        let spec = spec("0 2 * * *");
        let due = decide(&spec, &new(), "2026-11-01T10:00:03Z");
        assert_eq!((run(&due).as_str(), due.cursor), ("-", at(CREATED)));
        assert_eq!(run(&decide(&spec, &new(), "2026-11-02T02:00:03Z")), "2026-11-02T02:00:00Z", "seen late");
    }

    #[test]
    fn run_on_create_is_one_slot_more() {
        for text in ["", "0 2 * * *", "0 10 * * *"] {
            let spec = BackupPolicySpec { run_on_create: true, ..spec(text) };
            let due = decide(&spec, &new(), "2026-11-01T10:00:03Z");
            assert_eq!((run(&due).as_str(), missed(&due).as_str()), (CREATED, "-"));
            // The store is not ready: it stays due.
            let waiting = SoFar { cursor: Some(due.cursor_without_run), in_force: Some(due.in_force.clone()), ..new() };
            assert_eq!(run(&decide(&spec, &waiting, "2026-11-01T10:30:00Z")), CREATED);
            let done = SoFar { cursor: Some(due.cursor), in_force: Some(due.in_force), ..new() };
            let after = decide(&spec, &done, "2026-11-01T10:30:00Z");
            assert_eq!((run(&after).as_str(), missed(&after).as_str(), after.cursor), ("-", "-", at(CREATED)));
        }
        let spec = BackupPolicySpec { run_on_create: true, ..spec("*/10 * * * *") };
        let late = decide(&spec, &new(), "2026-11-01T10:21:00Z");
        assert_eq!(run(&late), "2026-11-01T10:20:00Z");
        assert!(
            missed(&late).starts_with("skipped 2 slots, the newest of them 2026-11-01T10:10:00Z"),
            "{}",
            missed(&late)
        );
    }

    #[test]
    fn run_on_create_switched_on_later_or_while_suspended_runs_nothing() {
        let spec = BackupPolicySpec { run_on_create: true, ..spec("0 2 * * *") };
        assert_eq!(run(&decide(&spec, &so_far(&spec, "2026-11-01T10:00:00Z"), "2026-11-01T10:05:00Z")), "-");
        let suspended = BackupPolicySpec { suspend: true, ..spec.clone() };
        let due = decide(&suspended, &new(), "2026-11-01T10:00:03Z");
        assert_eq!(run(&due), "-");
        let then = SoFar { cursor: Some(due.cursor), in_force: Some(due.in_force), ..new() };
        assert_eq!(run(&decide(&spec, &then, "2026-11-01T10:05:00Z")), "-");
    }

    #[test]
    fn the_api_servers_clock_may_be_ahead() {
        let spec = BackupPolicySpec { run_on_create: true, ..spec("") };
        let due = decide(&spec, &new(), "2026-11-01T09:59:58Z");
        assert_eq!((run(&due).as_str(), due.next), ("-", Some(at(CREATED))));
    }

    #[test]
    fn on_demand_only_has_no_slots() {
        let spec = spec("");
        let due = decide(&spec, &new(), "2027-11-01T09:59:58Z");
        assert_eq!((run(&due).as_str(), missed(&due).as_str(), due.next), ("-", "-", None));
        let scheduled = super::decisions::spec("0 2 * * *");
        let so_far = SoFar { cursor: Some(due.cursor), in_force: Some(due.in_force), ..new() };
        assert_eq!(run(&decide(&scheduled, &so_far, "2027-11-02T02:10:00Z")), "-", "the schedule came with the edit");
    }
}

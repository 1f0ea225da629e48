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
        ("0 0 * * 7/3", "11-21T00:00 11-22T00:00 11-25T00:00"),
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
    assert_eq!(five.count(at("2026-11-20T02:00:00Z"), at("2026-11-20T02:00:40Z"), 9), 4);
    assert_eq!(five.count(at("2026-11-20T02:00:00Z"), at("2036-11-20T02:00:40Z"), 3), 3);
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
        assert!((1..=3).contains(&next("0 H(1-3)/20 * * *").hour()));
        starts.insert(next("H * * * *").minute());
    }
    assert_eq!(starts.len(), 60, "all minutes are in use");
}

//! Schedules against oracles that share no code with them: local minutes counted one by one over every change of the clocks, another
//! cron library, and a simulated controller. Pure.
#![allow(clippy::unwrap_used, reason = "a test's own helpers")]

#[path = "plan_schedule/oracle.rs"]
mod oracle;
#[path = "plan_schedule/simulation.rs"]
mod simulation;

use std::time::{Duration, Instant};

use croner::parser::{CronParser, Seconds, Year};
use holdfast::plan::schedule::{Schedule, time_zone};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;

fn item(min: u8, max: u8) -> impl Strategy<Value = String> {
    let value = min..=max;
    prop_oneof![
        4 => value.clone().prop_map(|v| v.to_string()),
        2 => (value.clone(), value.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (value.clone(), value.clone(), 1..=max).prop_map(|(a, b, s)| format!("{}-{}/{s}", a.min(b), a.max(b))),
        1 => (value, 1..=max).prop_map(|(a, s)| format!("{a}/{s}")),
    ]
}

/// Without steps from a value on: in the other library they go on to 7 and so come round to Sunday.
fn weekday() -> impl Strategy<Value = String> {
    let items = prop_oneof![
        2 => (0..=7_u8).prop_map(|v| v.to_string()),
        1 => (0..=7_u8, 0..=7_u8).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
    ];
    prop::collection::vec(items, 1..4).prop_map(|items| items.join(","))
}

fn field(min: u8, max: u8) -> impl Strategy<Value = String> {
    let list = prop::collection::vec(item(min, max), 1..4).prop_map(|items| items.join(","));
    prop_oneof![1 => Just("*".to_owned()), 2 => list]
}

/// Without steps after `*`: in a day field of them the other library takes either day, where most crons take both.
fn fields() -> impl Strategy<Value = String> {
    let days = prop_oneof![2 => Just("*".to_owned()), 1 => field(1, 31)];
    let weekdays = prop_oneof![2 => Just("*".to_owned()), 1 => weekday()];
    (field(0, 59), field(0, 23), days, field(1, 12), weekdays)
        .prop_map(|(a, b, c, d, e)| format!("{a} {b} {c} {d} {e}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn another_library_finds_the_same_slots_in_utc(text in fields(), from in 1_400_000_000..2_200_000_000_i64) {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).sloppy_ranges(true).build();
        let other = parser.parse(&text).unwrap();
        let Ok(schedule) = Schedule::parse(&text, "UTC", "") else {
            // Never due, it says: then not within 12 years either.
            let (month, day) = (other.pattern.months.values(), other.pattern.days.values());
            prop_assert!(day.iter().all(|d| *d >= 30) && month.iter().all(|m| [2, 4, 6, 9, 11].contains(m)), "{}", text);
            return Ok(());
        };
        let mut slot = Timestamp::from_second(from).unwrap();
        for _ in 0..6 {
            let next = other.find_next_occurrence(&slot.to_zoned(TimeZone::UTC), false).unwrap().timestamp();
            prop_assert_eq!(schedule.next_after(slot), Some(next), "{} after {}", text, slot);
            prop_assert_eq!(schedule.latest_at_or_before(next, slot), Some(next));
            slot = next;
        }
    }

    #[test]
    fn backwards_is_forwards(
        text in fields(), zone in select(oracle::ZONES.to_vec()), from in 1_400_000_000..2_200_000_000_i64, ahead in 0..40_000_000_i64,
    ) {
        let Ok(schedule) = Schedule::parse(&text, zone, "") else { return Ok(()) };
        let cursor = Timestamp::from_second(from).unwrap();
        let now = Timestamp::from_second(from + ahead).unwrap();
        match schedule.latest_at_or_before(now, cursor) {
            None => prop_assert!(schedule.next_after(cursor).unwrap() > now),
            Some(slot) => {
                prop_assert!(slot > cursor && slot <= now);
                prop_assert!(schedule.next_after(slot).unwrap() > now);
                prop_assert_eq!(schedule.next_after(slot - SignedDuration::from_nanos(1)), Some(slot), "it is a slot");
            }
        }
    }
}

/// What people and fuzzers write: characters that mean something to a cron, in any order.
fn scribble() -> impl Strategy<Value = String> {
    let token = select(vec![
        "*",
        "?",
        "/",
        "-",
        ",",
        " ",
        "  ",
        "0",
        "1",
        "2",
        "7",
        "8",
        "30",
        "31",
        "59",
        "60",
        "99",
        "H",
        "H(",
        ")",
        "(0-7)",
        "JAN",
        "feb",
        "MON",
        "sun",
        "@",
        "@every ",
        "@daily",
        "5m",
        "1h",
        "99999999999d",
        "L",
        "W",
        "#",
        "+",
        "é",
        "\u{1F600}",
        "\0",
        "\t",
        "TZ=",
        "-1",
        "1e3",
    ]);
    prop::collection::vec(token, 0..14).prop_map(|tokens| tokens.concat())
}

fn nearly_cron() -> impl Strategy<Value = String> {
    let part = select(vec![
        "*", "*", "*/2", "0", "H", "H/15", "H(1-3)", "1-5", "29", "30", "31", "2", "feb", "sat", "1,2", "?", "*/60",
        "7",
    ]);
    prop_oneof![
        9 => prop::collection::vec(part.clone(), 5),
        1 => prop::collection::vec(part, 4..7),
    ]
    .prop_map(|parts| parts.join(" "))
}

#[test]
fn whatever_is_written_is_read_or_refused_at_once() {
    let cases = 6000;
    let began = Instant::now();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let from = Timestamp::from_second(1_800_000_000).unwrap();
    let text = prop_oneof![3 => scribble(), 3 => nearly_cron(), 1 => any::<String>()];
    let zone = select(vec!["UTC", "Europe/Berlin", "Pacific/Apia"]);
    let read = std::cell::Cell::new(0_u32);
    runner
        .run(&(text, zone), |(text, zone)| {
            match Schedule::parse(&text, zone, "seed") {
                Ok(schedule) => {
                    read.set(read.get() + 1);
                    let slot = schedule.next_after(from);
                    prop_assert!(slot.is_some(), "{text:?} was read and never comes due");
                    prop_assert_eq!(schedule.latest_at_or_before(slot.unwrap(), from), slot);
                }
                Err(error) => prop_assert!(error.to_string().len() < 600, "{}", error),
            }
            Ok(())
        })
        .unwrap();
    assert!(read.get() > cases / 20, "only {} of {cases} could be read: the fuzzer is too wild", read.get());
    assert!(began.elapsed() < Duration::from_millis(10) * cases, "more than 10 ms each: {:?}", began.elapsed());
}

#[test]
fn every_zone_of_the_database_is_usable() {
    let from = Timestamp::from_second(1_800_000_000).unwrap();
    let names: Vec<String> =
        jiff::tz::TimeZoneDatabase::bundled().available().map(|name| name.as_str().to_owned()).collect();
    assert!(names.len() > 300, "{}", names.len());
    for name in names {
        let schedule = Schedule::parse("30 2 * * *", &name, "").unwrap();
        let slot = schedule.next_after(from).unwrap();
        assert!(slot.duration_since(from) <= SignedDuration::from_hours(25), "{name}: {slot}");
        assert_eq!(schedule.latest_at_or_before(slot, from), Some(slot), "{name}");
        assert!(time_zone(&name.to_lowercase()).is_ok());
    }
}

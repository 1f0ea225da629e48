//! The definition of slots over changes of the clocks, taken literally: every minute of real time with its local time, one by one.

use std::collections::BTreeSet;

use holdfast::plan::schedule::Schedule;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, ToSpan};

pub const ZONES: [&str; 13] = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/New_York",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Jakarta",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",
];

const CRONS: [&str; 42] = [
    "* * * * *",
    "*/5 * * * *",
    "*/30 * * * *",
    "0 * * * *",
    "15 * * * *",
    "59 * * * *",
    "7,37 0-23 * * *",
    "*/20 */1 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "1 0 * * *",
    "0 1 * * *",
    "30 1 * * *",
    "45 1 * * *",
    "0 2 * * *",
    "15 2 * * *",
    "30 2 * * *",
    "59 2 * * *",
    "0 3 * * *",
    "30 3 * * *",
    "0 4 * * *",
    "30 23 * * *",
    "59 23 * * *",
    "0 12 * * *",
    "*/15 2 * * *",
    "*/10 1-3 * * *",
    "* 2 * * *",
    "* 0-2 * * *",
    "0 */2 * * *",
    "0 1-23/2 * * *",
    "*/30 */3 * * *",
    "0 */6 * * *",
    "30 2,14 * * *",
    "*/7 0,23 * * *",
    "0 2 * * 0",
    "30 1 * * SUN",
    "0 0 * * 1-5",
    "30 2 25-31 3,10 *",
    "0 0 1 * *",
    "*/30 * * * SAT,SUN",
    "0 * 29-31 12,3,10 *",
    "15,45 2 1-7 */2 */7",
];

#[test]
fn slots_are_those_of_the_definition_over_every_change_of_the_clocks_west() {
    check(&ZONES[..6]);
}

#[test]
fn slots_are_those_of_the_definition_over_every_change_of_the_clocks_east() {
    check(&ZONES[6..]);
}

fn check(zones: &[&str]) {
    let fields: Vec<Fields> = CRONS.iter().map(|text| Fields::of(text)).collect();
    let mut checked = 0;
    for name in zones {
        let zone = TimeZoneDatabase::bundled().get(name).unwrap();
        let schedules: Vec<Schedule> = CRONS.iter().map(|text| Schedule::parse(text, name, "").unwrap()).collect();
        for (i, middle) in middles(&zone).into_iter().enumerate() {
            let window = Window::around(middle, &zone);
            for ((text, fields), schedule) in CRONS.iter().zip(&fields).zip(&schedules) {
                // The densest few would take most of the time; an odd step, so that changes in both directions have their turn.
                let is_dense = text.starts_with('*') && fields.is_every_hour();
                if is_dense && i % 5 != 0 {
                    continue;
                }
                let expected = window.slots(fields);
                checked += expected.len();
                window.compare(schedule, &expected, &format!("{text:?} in {name} about {middle}"));
            }
        }
    }
    assert!(checked > 100_000, "only {checked} slots");
}

/// The changes of the clocks of 2015 to 2037 (Samoa's left-out day as well), or a few instants where there is none.
fn middles(zone: &TimeZone) -> Vec<Timestamp> {
    let from: Timestamp = "2011-12-01T00:00:00Z".parse().unwrap();
    let to: Timestamp = "2038-01-01T00:00:00Z".parse().unwrap();
    let mut changes: Vec<Timestamp> = Vec::new();
    let mut offset = zone.to_offset(from);
    for change in zone.following(from).take_while(|change| change.timestamp() < to) {
        let is_wanted =
            change.timestamp().as_second() > 1_420_000_000 || change.timestamp().as_second() < 1_325_400_000;
        if change.offset() != offset && is_wanted {
            changes.push(change.timestamp());
        }
        offset = change.offset();
    }
    if changes.is_empty() {
        changes.extend((0..12).map(|i| from + SignedDuration::from_hours(i * 17_321)));
    }
    changes
}

/// Real minutes of a day and a half with their local times, and the local minutes that were left out.
struct Window {
    minutes: Vec<Minute>,
    start: Timestamp,
    end: Timestamp,
}

struct Minute {
    at: Timestamp,
    local: Local,
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    /// A real minute whose local time has not been before.
    First,
    /// A real minute whose local time has been before.
    Again,
    /// A local minute that was left out; `at` is the first instant after the gap.
    LeftOut,
}

/// Minute, hour, day, month and weekday.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Local([usize; 5]);

impl Local {
    fn of(local: DateTime) -> Self {
        assert_eq!(local.second(), 0, "offsets are whole minutes in these years");
        let weekday = local.weekday().to_sunday_zero_offset();
        Self([local.minute(), local.hour(), local.day(), local.month(), weekday].map(|n| usize::try_from(n).unwrap()))
    }
}

impl Window {
    fn around(middle: Timestamp, zone: &TimeZone) -> Self {
        let whole = middle.as_second().div_euclid(60) * 60;
        let minute = |i: i64| Timestamp::from_second(whole + i * 60).unwrap();
        let mut minutes = Vec::new();
        let mut seen = BTreeSet::new();
        let mut expected = zone.to_datetime(minute(-1000));
        for i in -1000..=1000 {
            let (at, local) = (minute(i), zone.to_datetime(minute(i)));
            while expected < local {
                if !seen.contains(&expected) {
                    minutes.push(Minute { at, local: Local::of(expected), kind: Kind::LeftOut });
                }
                expected = expected.checked_add(1.minute()).unwrap();
            }
            let kind = if seen.insert(local) { Kind::First } else { Kind::Again };
            minutes.push(Minute { at, local: Local::of(local), kind });
            expected = local.checked_add(1.minute()).unwrap();
        }
        // The first and the last hours only tell what lies between.
        Self { minutes, start: minute(-820), end: minute(820) }
    }

    /// What the definition says, literally.
    fn slots(&self, fields: &Fields) -> Vec<Timestamp> {
        let every_hour = fields.is_every_hour();
        let counts = |kind: &Kind| match kind {
            Kind::First => true,
            Kind::Again => every_hour,
            Kind::LeftOut => !every_hour,
        };
        let slots: BTreeSet<Timestamp> = self
            .minutes
            .iter()
            .filter(|minute| fields.has(minute.local) && counts(&minute.kind))
            .map(|minute| minute.at)
            .collect();
        slots.into_iter().filter(|slot| *slot > self.start && *slot <= self.end).collect()
    }

    fn compare(&self, schedule: &Schedule, expected: &[Timestamp], what: &str) {
        let slots = std::iter::successors(schedule.next_after(self.start), |slot| {
            let next = schedule.next_after(*slot);
            assert!(next > Some(*slot), "{what}: {next:?} after {slot}");
            next
        });
        let found: Vec<Timestamp> = slots.take_while(|slot| *slot <= self.end).collect();
        assert_eq!(found, expected, "{what}");
        assert_eq!(schedule.count(self.start, self.end, usize::MAX), expected.len(), "{what}");

        // Backwards: at instants spread over the window, and at, right before and right after slots.
        let tick = SignedDuration::from_nanos(1);
        let spread = self.minutes.iter().step_by(97).map(|minute| minute.at + SignedDuration::from_secs(11));
        let about =
            expected.iter().step_by(1 + expected.len() / 20).flat_map(|slot| [*slot - tick, *slot, *slot + tick]);
        for now in spread.chain(about).filter(|now| *now > self.start && *now <= self.end) {
            let newest = expected[..expected.partition_point(|slot| *slot <= now)].last().copied();
            assert_eq!(schedule.latest_at_or_before(now, self.start), newest, "{what}: the newest at {now}");
            let following = expected.get(expected.partition_point(|slot| *slot <= now)).copied();
            if following.is_some() {
                assert_eq!(schedule.next_after(now), following, "{what}: after {now}");
            }
        }
    }
}

/// Cron fields as tables, read value by value.
struct Fields {
    minute: Vec<bool>,
    hour: Vec<bool>,
    day: Vec<bool>,
    month: Vec<bool>,
    weekday: Vec<bool>,
    both: bool,
    every_hour: bool,
}

impl Fields {
    fn of(text: &str) -> Self {
        let names = [("SUN", "0"), ("SAT", "6")];
        let text = names.iter().fold(text.to_owned(), |text, (name, number)| text.replace(name, number));
        let parts: Vec<&str> = text.split(' ').collect();
        let table = |part: &str, min: i8, max: i8| (0..=max).map(|value| has(part, value, min, max)).collect();
        let mut weekday: Vec<bool> = table(parts[4], 0, 7);
        weekday[0] |= weekday[7];
        let hour: Vec<bool> = table(parts[1], 0, 23);
        Self {
            every_hour: hour.iter().all(|hour| *hour),
            minute: table(parts[0], 0, 59),
            hour,
            day: table(parts[2], 1, 31),
            month: table(parts[3], 1, 12),
            weekday,
            both: parts[2].starts_with('*') || parts[4].starts_with('*'),
        }
    }

    fn is_every_hour(&self) -> bool {
        self.every_hour
    }

    fn has(&self, Local([minute, hour, day, month, weekday]): Local) -> bool {
        if !self.minute[minute] || !self.hour[hour] || !self.month[month] {
            return false;
        }
        let (day, weekday) = (self.day[day], self.weekday[weekday]);
        if self.both { day && weekday } else { day || weekday }
    }
}

fn has(part: &str, value: i8, min: i8, max: i8) -> bool {
    value >= min
        && part.split(',').any(|item| {
            let (range, step) = item.split_once('/').map_or((item, 1), |(range, step)| (range, step.parse().unwrap()));
            let (low, high): (i8, i8) = match range.split_once('-') {
                _ if range == "*" => (min, max),
                Some((low, high)) => (low.parse().unwrap(), high.parse().unwrap()),
                None => (range.parse().unwrap(), range.parse().unwrap()),
            };
            (low..=high).contains(&value) && (value - low) % step == 0
        })
}

//! When a policy's slots are: cron fields, macros and intervals, in a time zone. Pure.
//!
//! A slot is an instant; each schedule has a strictly increasing sequence of them that depends on nothing but its text, its time zone
//! and the seed of its `H` fields. How local times become instants when clocks change:
//!
//! | schedule | local times left out | local times that come twice |
//! |---|---|---|
//! | hours named (`30 2 * * *`, `0 */6 * * *`, `@daily`) | one slot at the first instant after the gap | the first pass only |
//! | every hour (`0 * * * *`, `*/30 * * * *`, `@hourly`) | no slot: the hour does not exist | a slot in each pass: each is a real hour |
//! | `@every` | does not look at local time | does not look at local time |
//!
//! "Every hour" means that the hour field lets all 24 through. `docs/schedules.md` tells it to users.

mod cron;
mod due;
mod local;

use holdfast_crds::{BackupPolicySpec, Reason};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use cron::Cron;
pub use due::{Due, Missed, SoFar, WhyMissed, due};

/// The shortest interval of `@every`, in seconds.
const SHORTEST_INTERVAL: i64 = 10;
/// The longest interval of `@every`, in seconds: a leap year.
const LONGEST_INTERVAL: i64 = 366 * 86_400;
/// Schedules longer than this many bytes are refused, as the API server does.
const LONGEST_SCHEDULE: usize = 128;

/// A schedule that has been read and is known to come due.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    kind: Kind,
    time_zone: TimeZone,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Cron fields.
    Cron(Cron),
    /// Multiples of this many seconds since 1970-01-01 00:00 UTC.
    Every(i64),
}

/// Why a schedule is of no use. The text names the field and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It cannot be read.
    #[error("spec.schedule {schedule:?}: {problem}")]
    Invalid {
        /// The schedule.
        schedule: String,
        /// What is wrong with it, and what to write.
        problem: String,
    },
    /// It never comes due.
    #[error("spec.schedule {schedule:?} never comes due: {problem}")]
    NeverFires {
        /// The schedule.
        schedule: String,
        /// Why, and what to write.
        problem: String,
    },
    /// There is no such time zone.
    #[error(
        "spec.timeZone {name:?} is not a time zone: write the name of one in the IANA database, such as Europe/Berlin, Asia/Jakarta or UTC"
    )]
    UnknownTimeZone {
        /// The name.
        name: String,
    },
}

impl ScheduleError {
    /// The reason for a condition.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Invalid { .. } => Reason::InvalidSchedule,
            Self::NeverFires { .. } => Reason::NeverFires,
            Self::UnknownTimeZone { .. } => Reason::UnknownTimeZone,
        }
    }
}

/// The time zone with this IANA name, from the database that is compiled in.
///
/// # Errors
/// [`ScheduleError::UnknownTimeZone`].
pub fn time_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    // The database keeps what it has read. It never looks at the machine's own, which may be another one, or none.
    static DATABASE: std::sync::LazyLock<TimeZoneDatabase> = std::sync::LazyLock::new(TimeZoneDatabase::bundled);
    DATABASE
        .get(name)
        .ok()
        .filter(|zone| !zone.is_unknown())
        .ok_or_else(|| ScheduleError::UnknownTimeZone { name: name.to_owned() })
}

impl Schedule {
    /// Reads a schedule. `seed` decides the values of `H`: the same seed gives the same values for ever.
    ///
    /// # Errors
    /// Where it cannot be read, never comes due, or the time zone is unknown.
    pub fn parse(schedule: &str, zone: &str, seed: &str) -> Result<Self, ScheduleError> {
        let time_zone = time_zone(zone)?;
        let invalid = |problem| ScheduleError::Invalid { schedule: cut(schedule), problem };
        if schedule.len() > LONGEST_SCHEDULE {
            return Err(invalid(format!("longer than {LONGEST_SCHEDULE} characters")));
        }
        let text = schedule.trim();
        let fields = match text.strip_prefix('@') {
            None => text,
            Some(name) => match name.to_ascii_lowercase().as_str() {
                "hourly" => "0 * * * *",
                "daily" | "midnight" => "0 0 * * *",
                "weekly" => "0 0 * * 0",
                "monthly" => "0 0 1 * *",
                "yearly" | "annually" => "0 0 1 1 *",
                other => {
                    let length = other.strip_prefix("every").filter(|rest| rest.starts_with(char::is_whitespace));
                    let seconds = length
                        .ok_or_else(|| invalid(NO_SUCH_MACRO.to_owned()))
                        .and_then(|length| interval(length.trim()).map_err(invalid))?;
                    return Ok(Self { kind: Kind::Every(seconds), time_zone });
                }
            },
        };
        let cron = Cron::parse(fields, seed).map_err(invalid)?;
        if let Some(problem) = cron.why_never() {
            return Err(ScheduleError::NeverFires { schedule: schedule.to_owned(), problem });
        }
        Ok(Self { kind: Kind::Cron(cron), time_zone })
    }

    /// The schedule of a policy; none where it runs on demand only. `seed` is `<namespace>/<name>/<UID>` of the policy.
    ///
    /// # Errors
    /// As [`Schedule::parse`]. The time zone is checked in any case: retention counts days by it.
    pub fn of(spec: &BackupPolicySpec, seed: &str) -> Result<Option<Self>, ScheduleError> {
        match &spec.schedule {
            Some(schedule) => Self::parse(schedule, &spec.time_zone, seed).map(Some),
            None => time_zone(&spec.time_zone).map(|_| None),
        }
    }

    /// The first slot after an instant; none only at the end of time.
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        match &self.kind {
            Kind::Cron(cron) => local::next_after(cron, &self.time_zone, instant),
            Kind::Every(seconds) => {
                let past = instant.as_second() - i64::from(instant.subsec_nanosecond() < 0);
                Timestamp::from_second((past.div_euclid(*seconds) + 1) * seconds).ok()
            }
        }
    }

    /// The newest slot at or before `now` and after `cursor`. Takes no longer for ten years than for an hour.
    pub fn latest_at_or_before(&self, now: Timestamp, cursor: Timestamp) -> Option<Timestamp> {
        let latest = match &self.kind {
            Kind::Cron(cron) => local::latest(cron, &self.time_zone, now, cursor),
            Kind::Every(seconds) => {
                let past = now.as_second() - i64::from(now.subsec_nanosecond() < 0);
                Timestamp::from_second(past.div_euclid(*seconds) * seconds).ok()
            }
        };
        latest.filter(|slot| *slot > cursor)
    }

    /// How many slots there are after `cursor` and at or before `now`, counted up to `limit`.
    pub fn count(&self, cursor: Timestamp, now: Timestamp, limit: usize) -> usize {
        let slots = std::iter::successors(self.next_after(cursor), |slot| self.next_after(*slot));
        slots.take_while(|slot| *slot <= now).take(limit).count()
    }
}

const NO_SUCH_MACRO: &str = "write @hourly, @daily, @weekly, @monthly, @yearly, @every with a length such as @every 5m, or five fields \
                             such as 0 2 * * *";

/// The seconds of `5m`, `1h30m`, `24h` or `7d`.
fn interval(length: &str) -> Result<i64, String> {
    let unreadable = || {
        format!(
            "@every needs a length such as 5m, 1h30m, 24h or 7d, with whole numbers and the units s, m, h and d; {length:?} is none"
        )
    };
    let mut rest = length;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let mut after = after.chars();
        let unit = match after.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(unreadable()),
        };
        let seconds = number.parse::<i64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(unreadable)?;
        total = total.checked_add(seconds).ok_or_else(unreadable)?;
        rest = after.as_str();
    }
    if length.is_empty() {
        return Err(unreadable());
    }
    if !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&total) {
        return Err(format!("@every {length}: the length must be {SHORTEST_INTERVAL}s to 366d"));
    }
    Ok(total)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SCHEDULE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// How long a duration is, for people: `2d`, `3h`, `90m`, `45s`.
fn in_words(length: SignedDuration) -> String {
    let seconds = length.as_secs();
    for (unit, name) in [(86_400, "d"), (3600, "h"), (60, "m")] {
        if seconds % unit == 0 && seconds >= unit {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests;

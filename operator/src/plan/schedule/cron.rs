//! Five cron fields, and the local times they let through. Pure. Knows no time zone.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, time};
use sha2::{Digest, Sha256};

/// The Gregorian calendar repeats after this many years, weekdays included: what has not come by then never comes.
const CYCLE_YEARS: i16 = 400;

/// Cron fields as sets: bit n stands for value n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// 0 is Sunday.
    weekdays: u64,
    /// Both day fields must let a day through, not either: one of them starts with `*`.
    both_days: bool,
}

struct Field {
    name: &'static str,
    min: u8,
    max: u8,
    /// The greatest value that a bare `H` takes: the 29th to 31st are not in every month, and 7 is Sunday again.
    hash_max: u8,
    names: &'static [&'static str],
    example: &'static str,
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, hash_max: 59, names: &[], example: "30, */15 or H" },
    Field { name: "hour", min: 0, max: 23, hash_max: 23, names: &[], example: "2, */6 or H(0-5)" },
    Field { name: "day of month", min: 1, max: 31, hash_max: 28, names: &[], example: "1, 1,15 or *" },
    Field {
        name: "month",
        min: 1,
        max: 12,
        hash_max: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
        example: "1, JAN or *",
    },
    Field {
        name: "day of week",
        min: 0,
        max: 7,
        hash_max: 6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
        example: "1-5, SUN or *",
    },
];

impl Cron {
    /// Reads five fields; `seed` decides the values of `H`. The error says what is wrong and what to write.
    pub(super) fn parse(text: &str, seed: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        if let Some(first) = parts.first().filter(|p| p.to_ascii_uppercase().contains("TZ=")) {
            return Err(format!("write the time zone into spec.timeZone, and take {first} away"));
        }
        let [minute, hour, day, month, weekday] = parts[..] else {
            return Err(format!(
                "has {} fields; write five: minute, hour, day of month, month, day of week, such as 0 2 * * *",
                parts.len()
            ));
        };
        let set = |i: usize, text: &str| FIELDS[i].parse(text, seed);
        let weekdays = set(4, weekday)?;
        Ok(Self {
            minutes: set(0, minute)?,
            hours: set(1, hour)?,
            days: set(2, day)?,
            months: set(3, month)?,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            both_days: is_star(day) || is_star(weekday),
        })
    }

    /// Whether the hour field lets all hours through.
    pub(super) fn is_every_hour(&self) -> bool {
        self.hours == 0x00ff_ffff
    }

    /// Why no date ever matches, if none does.
    pub(super) fn why_never(&self) -> Option<String> {
        // By weekday alone a day comes each week; and in 400 years each day of the year falls on each day of the week.
        let by_weekday = !self.both_days;
        let longest = |month: u32| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let first_day = self.days.trailing_zeros();
        let by_day = (1..=12).any(|month| self.months & (1 << month) != 0 && first_day <= longest(month));
        (!by_weekday && !by_day).then(|| {
            format!(
                "none of its months has a day {first_day}; for the end of a month write a day up to 28, or 1 for the start of the next one"
            )
        })
    }

    /// The first local time after `after`.
    pub(super) fn next(&self, after: DateTime) -> Option<DateTime> {
        let mut date = after.date();
        let mut from = u32::from(after.hour().unsigned_abs()) * 60 + u32::from(after.minute().unsigned_abs()) + 1;
        let last_year = date.year().saturating_add(CYCLE_YEARS);
        while date.year() <= last_year {
            if !self.has_month(date) {
                date = date.last_of_month().tomorrow().ok()?;
            } else if let Some(found) = self.has_day(date).then(|| self.first_minute(from)).flatten() {
                return Some(at(date, found));
            } else {
                date = date.tomorrow().ok()?;
            }
            from = 0;
        }
        None
    }

    /// The last local time at or before `until`, on the day of `floor` or later.
    pub(super) fn previous(&self, until: DateTime, floor: Date) -> Option<DateTime> {
        let mut date = until.date();
        let mut until = u32::from(until.hour().unsigned_abs()) * 60 + u32::from(until.minute().unsigned_abs());
        while date >= floor {
            if !self.has_month(date) {
                date = date.first_of_month().yesterday().ok()?;
            } else if let Some(found) = self.has_day(date).then(|| self.last_minute(until)).flatten() {
                return Some(at(date, found));
            } else {
                date = date.yesterday().ok()?;
            }
            until = 24 * 60 - 1;
        }
        None
    }

    fn has_month(&self, date: Date) -> bool {
        self.months & (1 << date.month()) != 0
    }

    fn has_day(&self, date: Date) -> bool {
        let by_day = self.days & (1 << date.day()) != 0;
        let by_weekday = self.weekdays & (1 << date.weekday().to_sunday_zero_offset()) != 0;
        if self.both_days { by_day && by_weekday } else { by_day || by_weekday }
    }

    /// The first minute of the day that is let through, from this one on.
    fn first_minute(&self, from: u32) -> Option<u32> {
        let (hour, minute) = (from / 60, from % 60);
        if hour < 24 && self.hours & (1 << hour) != 0 && self.minutes >> minute != 0 {
            return Some(from + (self.minutes >> minute).trailing_zeros());
        }
        let later = self.hours.checked_shr(hour + 1).filter(|later| *later != 0)?;
        Some((hour + 1 + later.trailing_zeros()) * 60 + self.minutes.trailing_zeros())
    }

    /// The last minute of the day that is let through, up to this one.
    fn last_minute(&self, until: u32) -> Option<u32> {
        let (hour, minute) = (until / 60, until % 60);
        let minutes = self.minutes & up_to(minute);
        if self.hours & (1 << hour) != 0 && minutes != 0 {
            return Some(hour * 60 + minutes.ilog2());
        }
        let hours = self.hours & (up_to(hour) >> 1);
        Some(hours.checked_ilog2()? * 60 + self.minutes.checked_ilog2()?)
    }
}

/// The bits 0 to n.
fn up_to(n: u32) -> u64 {
    u64::MAX >> (63 - n)
}

fn at(date: Date, minute: u32) -> DateTime {
    // Less than a day, so that no date can overflow.
    date.to_datetime(time(0, 0, 0, 0)).saturating_add(i64::from(minute).minutes())
}

/// Whether a day field leaves the choice to the other one: it starts with `*` or `?`, steps and all, as in other crons.
fn is_star(field: &str) -> bool {
    field.split(',').any(|item| item.starts_with(['*', '?']))
}

impl Field {
    fn parse(&self, text: &str, seed: &str) -> Result<u64, String> {
        let text = text.to_ascii_lowercase();
        let mut set = 0;
        for item in text.split(',') {
            set |= self.item(item, seed)?;
        }
        Ok(set)
    }

    fn item(&self, item: &str, seed: &str) -> Result<u64, String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.step(item, step)?)),
            None => (item, None),
        };
        if let Some(inner) = range.strip_prefix('h') {
            return self.hashed(item, inner, step, seed);
        }
        let (low, high) = match range {
            "*" | "?" => (self.min, self.max),
            _ => match (range.split_once('-'), step) {
                (Some((low, high)), _) => self.range(item, low, high)?,
                (None, None) => (self.value(item, range)?, self.value(item, range)?),
                (None, Some(_)) => {
                    (self.value(item, range).map(|low| if low > self.last() { self.min } else { low })?, self.last())
                }
            },
        };
        Ok(every(low, high, step.unwrap_or(1)))
    }

    /// `H`, `H/15`, `H(0-7)`, `H(0-29)/10`.
    fn hashed(&self, item: &str, inner: &str, step: Option<u8>, seed: &str) -> Result<u64, String> {
        let (low, high) = if inner.is_empty() {
            (self.min, if step.is_some() { self.last() } else { self.hash_max })
        } else {
            let range = inner.strip_prefix('(').and_then(|r| r.strip_suffix(')')).and_then(|r| r.split_once('-'));
            let (low, high) = range.ok_or_else(|| self.refuse(item, "H is written H, H/15 or H(0-7)"))?;
            self.range(item, low, high)?
        };
        let choices = high - low + 1;
        let start = low + stable_choice(seed, self.name, step.map_or(choices, |s| s.min(choices)));
        Ok(every(start, if step.is_some() { high } else { start }, step.unwrap_or(1)))
    }

    fn range(&self, item: &str, low: &str, high: &str) -> Result<(u8, u8), String> {
        let (mut low, mut high) = (self.value(item, low)?, self.value(item, high)?);
        // Sunday begins a week as 0 and ends it as 7.
        if high == 0 && low > 0 && self.max == 7 {
            high = 7;
        } else if low == 7 && high < 7 {
            low = 0;
        }
        if low > high {
            let split = format!("{low}-{},{}-{high}", self.last(), self.min);
            return Err(self.refuse(item, &format!("a range goes upwards; over the end write {split}")));
        }
        Ok((low, high))
    }

    fn step(&self, item: &str, step: &str) -> Result<u8, String> {
        let most = self.last() - self.min + 1;
        number(step)
            .filter(|step| (1..=u32::from(most)).contains(step))
            .and_then(|step| u8::try_from(step).ok())
            .ok_or_else(|| {
                let hint = if self.max >= 23 && self.min == 0 {
                    "; for longer intervals write @every, such as @every 90m"
                } else {
                    ""
                };
                self.refuse(item, &format!("the step after / must be 1 to {most}{hint}"))
            })
    }

    fn value(&self, item: &str, text: &str) -> Result<u8, String> {
        if let Some(i) = self.names.iter().position(|name| *name == text) {
            return Ok(u8::try_from(i).unwrap_or(0) + u8::from(self.min == 1));
        }
        number(text)
            .filter(|n| (u32::from(self.min)..=u32::from(self.max)).contains(n))
            .and_then(|n| u8::try_from(n).ok())
            .ok_or_else(|| self.refuse(item, &format!("write {} to {}, such as {}", self.min, self.max, self.example)))
    }

    /// The greatest value that is one of its own: Sunday is 0 as well as 7.
    fn last(&self) -> u8 {
        self.max - u8::from(self.max == 7)
    }

    fn refuse(&self, item: &str, what: &str) -> String {
        format!("{} {item:?}: {what}", self.name)
    }
}

fn number(text: &str) -> Option<u32> {
    (text.len() <= 4 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn every(low: u8, high: u8, step: u8) -> u64 {
    (low..=high).step_by(step.into()).fold(0, |set, value| set | 1 << value)
}

/// A number below `choices`, the same for ever for a seed and field.
fn stable_choice(seed: &str, field: &str, choices: u8) -> u8 {
    let hash = Sha256::digest(format!("{seed}\0{field}"));
    let number = hash.iter().take(8).fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    u8::try_from(number % u64::from(choices.max(1))).unwrap_or(0)
}

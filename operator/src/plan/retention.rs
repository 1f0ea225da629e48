//! Which runs of a policy stay in the bucket, and why. Pure.
//!
//! A run stays if any rule keeps it; a rule never takes one away. So adding a rule or raising a number never deletes more, and a second
//! pass over what the first one left deletes nothing. `docs/retention.md` tells it to users.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use holdfast_crds::{KeepWithin, RetentionSpec};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// How much later than the store's own clock a slot may be before the run counts as made under a wrong clock.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// A run as the bucket shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub struct Run {
    /// The instant it stands for.
    pub slot: Timestamp,
    /// Its folder. Unique among the runs given.
    pub run_id: String,
    /// Names of all sources of the run, as its manifests say; empty where it has no manifest.
    pub run_sources: BTreeSet<String>,
    /// Names of the sources that have a manifest.
    pub sources: BTreeSet<String>,
    /// It is under way, or a restore reads from it.
    pub protected: bool,
    /// When its last manifest was written by the store's own clock, if the store says so. A slot more than [`CLOCK_TOLERANCE`] later
    /// was made under a wrong clock: such a run stays but counts for no rule, or it would push out every real one until that day.
    pub stored: Option<Timestamp>,
    /// Another cluster made it: it stays and counts for no rule, whatever the two clusters have in common.
    pub foreign: bool,
    /// It is too small to be believed, and nobody has accepted it: the newest one that is not stays beside it.
    pub suspicious: bool,
    /// A verification found it damaged: what stays without it stays beside it.
    pub damaged: bool,
}

impl Run {
    /// Whether every source of the run has its manifest.
    pub fn is_complete(&self) -> bool {
        !self.run_sources.is_empty() && self.run_sources.is_subset(&self.sources)
    }

    fn is_from_the_future(&self) -> bool {
        self.stored.is_some_and(|stored| self.slot.duration_since(stored) > CLOCK_TOLERANCE)
    }
}

/// What becomes of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which run.
    pub run_id: String,
    /// Whether it stays.
    pub keep: bool,
    /// Why; never empty.
    pub reasons: Vec<Why>,
}

/// Why a run stays or goes, in words by its `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Stays: it is under way, or a restore reads from it.
    Protected,
    /// Stays: no newer complete run has these sources.
    NewestWith(Vec<String>),
    /// Stays: no newer complete run that is not suspicious has these sources.
    NewestPlausibleWith(Vec<String>),
    /// Stays: `keepLast`.
    Last {
        /// 1 for the newest.
        nth: usize,
        /// The rule's number.
        of: usize,
    },
    /// Stays: `keepWithin`, the rule's text.
    Within(String),
    /// Stays: the newest one of an hour, day, week, month or year.
    Newest(Period, String),
    /// Stays: partial, and no newer complete run has all that it holds.
    PartialNotReplaced,
    /// Stays: partial, and so young that it may still be written to.
    PartialYoung,
    /// Stays: another cluster made it.
    Foreign,
    /// Stays: its slot is later than the store's clock said when it was written.
    WrongClock,
    /// Stays: there is no rule, and without one nothing goes.
    NoRule,
    /// Stays: a rule cannot be read, and in doubt nothing goes.
    UnreadableRule(String),
    /// Goes: partial, and this newer complete run has all that it holds.
    PartialReplacedBy(String),
    /// Goes: complete, and kept by no rule.
    KeptByNoRule,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protected => write!(f, "protected: under way, or a restore reads from it"),
            Self::NewestWith(sources) => write!(f, "newest complete backup with {}", sources.join(", ")),
            Self::NewestPlausibleWith(sources) => {
                write!(f, "newest complete backup with {} that is not suspicious", sources.join(", "))
            }
            Self::Last { nth, of } => write!(f, "last {nth} of {of}"),
            Self::Within(rule) => write!(f, "within {rule} of the newest"),
            Self::Newest(period, label) => write!(f, "{} {label}", period.adjective()),
            Self::PartialNotReplaced => write!(f, "partial: no newer complete backup has all that is in it"),
            Self::PartialYoung => write!(f, "partial: too young to be given up"),
            Self::Foreign => write!(f, "another cluster made it"),
            Self::WrongClock => write!(f, "its slot is later than the store's clock was when it was written"),
            Self::NoRule => write!(f, "no retention rule"),
            Self::UnreadableRule(error) => write!(f, "keepWithin cannot be read: {error}"),
            Self::PartialReplacedBy(run_id) => write!(f, "partial: superseded by {run_id}"),
            Self::KeptByNoRule => write!(f, "no rule keeps it"),
        }
    }
}

/// A stretch of local time of which the newest run is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// An hour of real time: of a repeated local hour each pass is one of its own.
    Hour,
    /// A calendar day.
    Day,
    /// An ISO week, Monday to Sunday.
    Week,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

impl Period {
    fn adjective(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// The name of the stretch that `at` lies in: equal for two instants exactly if they lie in the same one.
    fn label(self, at: &Zoned) -> String {
        match self {
            Self::Hour => at.strftime("%Y-%m-%d %H:00%:z").to_string(),
            Self::Day => at.strftime("%Y-%m-%d").to_string(),
            Self::Week => at.strftime("%G-W%V").to_string(),
            Self::Month => at.strftime("%Y-%m").to_string(),
            Self::Year => at.strftime("%Y").to_string(),
        }
    }
}

/// A verdict for each run, the newest first. The order of `runs` does not matter.
///
/// - Complete runs are judged among those of the same set of sources, so that runs of a part of them never push out full ones.
/// - Of each source the newest complete run stays, whatever the rules say; and where that one is suspicious, the newest one that is not.
/// - A damaged run takes no other's place: the rules are applied once more as if there were no damaged ones, and what they keep then stays
///   too. It goes itself when the rules, applied to all, no longer keep it.
/// - Partial runs count for nothing. One goes when a newer complete run that is not damaged has all that it holds and it is older than the
///   newest of those by more than `grace`: the longest time for which a run may still be writing, generously.
/// - Runs of other clusters stay and count for nothing: that one's rules are for them, not these.
/// - Protected runs stay. Without any rule, or with one that cannot be read, every run stays.
pub fn decide(runs: &[Run], rules: &RetentionSpec, time_zone: &TimeZone, grace: SignedDuration) -> Vec<Verdict> {
    let mut runs: Vec<&Run> = runs.iter().collect();
    runs.sort_unstable_by(|a, b| b.cmp(a));
    let complete: Vec<&Run> =
        runs.iter().copied().filter(|r| r.is_complete() && !r.foreign && !r.is_from_the_future()).collect();
    let whole: Vec<&Run> = complete.iter().copied().filter(|r| !r.damaged).collect();
    let kept = match Rules::read(rules) {
        Ok(rules) => {
            let mut kept = Kept::by(&rules, &complete, time_zone);
            if whole.len() < complete.len() {
                kept.add_all(Kept::by(&rules, &whole, time_zone));
            }
            kept
        }
        Err(why) => {
            return runs
                .iter()
                .map(|run| Verdict { run_id: run.run_id.clone(), keep: true, reasons: vec![why.clone()] })
                .collect();
        }
    };
    runs.iter().map(|run| judge(run, &kept, &whole, grace)).collect()
}

fn judge(run: &Run, kept: &Kept, whole: &[&Run], grace: SignedDuration) -> Verdict {
    if run.foreign {
        return Verdict { run_id: run.run_id.clone(), keep: true, reasons: vec![Why::Foreign] };
    }
    let mut reasons = Vec::new();
    if run.protected {
        reasons.push(Why::Protected);
    }
    if run.is_from_the_future() {
        reasons.push(Why::WrongClock);
    } else if run.is_complete() {
        reasons.extend(kept.reasons(run));
    } else {
        match replacement(run, whole, grace) {
            Ok(newer) if reasons.is_empty() => {
                let why = Why::PartialReplacedBy(newer.run_id.clone());
                return Verdict { run_id: run.run_id.clone(), keep: false, reasons: vec![why] };
            }
            Ok(_) => {}
            Err(why) => reasons.push(why),
        }
    }
    let keep = !reasons.is_empty();
    if !keep {
        reasons.push(Why::KeptByNoRule);
    }
    Verdict { run_id: run.run_id.clone(), keep, reasons }
}

/// The newest complete run that makes a partial one worthless, or why the partial one stays.
fn replacement<'a>(partial: &Run, whole: &[&'a Run], grace: SignedDuration) -> Result<&'a Run, Why> {
    let newer = whole
        .iter()
        .find(|c| c.slot > partial.slot && partial.sources.is_subset(&c.run_sources))
        .ok_or(Why::PartialNotReplaced)?;
    let is_old = whole.first().is_some_and(|newest| newest.slot.duration_since(partial.slot) > grace);
    if is_old { Ok(newer) } else { Err(Why::PartialYoung) }
}

/// The rules that are in force.
struct Rules {
    last: usize,
    within: Option<(String, SignedDuration)>,
    periods: Vec<(Period, usize)>,
}

impl Rules {
    fn read(spec: &RetentionSpec) -> Result<Self, Why> {
        let number = |n: Option<i32>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let within = match &spec.keep_within {
            Some(text) => {
                let within: KeepWithin = text.parse().map_err(Why::UnreadableRule)?;
                Some((text.clone(), SignedDuration::from_hours(within.hours)))
            }
            None => None,
        };
        let periods: Vec<_> = [
            (Period::Hour, number(spec.keep_hourly)),
            (Period::Day, number(spec.keep_daily)),
            (Period::Week, number(spec.keep_weekly)),
            (Period::Month, number(spec.keep_monthly)),
            (Period::Year, number(spec.keep_yearly)),
        ]
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .collect();
        let last = number(spec.keep_last);
        if last == 0 && within.is_none() && periods.is_empty() {
            return Err(Why::NoRule);
        }
        Ok(Self { last, within, periods })
    }
}

/// Why complete runs stay, by run.
#[derive(Default)]
struct Kept<'a>(BTreeMap<&'a str, Vec<Why>>);

impl<'a> Kept<'a> {
    /// `complete` with the newest first.
    fn by(rules: &Rules, complete: &[&'a Run], time_zone: &TimeZone) -> Self {
        let mut kept = Self::default();
        kept.newest_of_each_source(complete);
        let mut groups: BTreeMap<&BTreeSet<String>, Vec<&Run>> = BTreeMap::new();
        for run in complete {
            groups.entry(&run.run_sources).or_default().push(run);
        }
        for group in groups.values() {
            kept.last(rules.last, group);
            if let Some((text, length)) = &rules.within {
                kept.within(text, *length, group);
            }
            for (period, number) in &rules.periods {
                kept.periods(*period, *number, group, time_zone);
            }
        }
        kept
    }

    fn newest_of_each_source(&mut self, complete: &[&'a Run]) {
        let (mut seen, mut seen_plausible) = (BTreeSet::new(), BTreeSet::new());
        for run in complete {
            let new: Vec<String> = run.run_sources.iter().filter(|name| seen.insert(name.as_str())).cloned().collect();
            let names = run.run_sources.iter().filter(|_| !run.suspicious);
            let plausible: Vec<String> =
                names.filter(|name| seen_plausible.insert(name.as_str()) && !new.contains(name)).cloned().collect();
            if !new.is_empty() {
                self.add(run, Why::NewestWith(new));
            }
            if !plausible.is_empty() {
                self.add(run, Why::NewestPlausibleWith(plausible));
            }
        }
    }

    fn last(&mut self, number: usize, group: &[&'a Run]) {
        for (i, run) in group.iter().take(number).enumerate() {
            self.add(run, Why::Last { nth: i + 1, of: number });
        }
    }

    fn within(&mut self, text: &str, length: SignedDuration, group: &[&'a Run]) {
        let Some(newest) = group.first() else { return };
        for run in group.iter().take_while(|run| newest.slot.duration_since(run.slot) <= length) {
            self.add(run, Why::Within(text.to_owned()));
        }
    }

    fn periods(&mut self, period: Period, number: usize, group: &[&'a Run], time_zone: &TimeZone) {
        // A set, not "unlike the one before": where clocks go back over midnight, a day comes back after the next one has begun.
        let mut seen = BTreeSet::new();
        for run in group {
            if seen.len() == number {
                return;
            }
            let label = period.label(&run.slot.to_zoned(time_zone.clone()));
            if seen.insert(label.clone()) {
                self.add(run, Why::Newest(period, label));
            }
        }
    }

    /// What another decision keeps stays as well, for that one's reasons.
    fn add_all(&mut self, other: Self) {
        for (run_id, reasons) in other.0 {
            let known = self.0.entry(run_id).or_default();
            known.extend(reasons.into_iter().filter(|why| !known.contains(why)).collect::<Vec<_>>());
        }
    }

    fn add(&mut self, run: &'a Run, why: Why) {
        self.0.entry(&run.run_id).or_default().push(why);
    }

    fn reasons(&self, run: &Run) -> Vec<Why> {
        self.0.get(run.run_id.as_str()).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;

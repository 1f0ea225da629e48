//! Which slot of a policy is to run now, and which are skipped. Pure.
//!
//! All that has to be remembered is a cursor: everything up to it has been decided. It only moves forwards, so a clock that is set back
//! runs nothing twice, and a controller that was down finds what it missed.

use std::fmt;

use holdfast_crds::BackupPolicySpec;
use jiff::{SignedDuration, Timestamp};

use super::{Schedule, in_words};

/// Missed slots are counted up to this many.
const COUNTED: usize = 100;
/// A cursor further ahead of the clock than this was written under a wrong clock. Waiting for it could mean years without a backup.
const BELIEVABLE_LEAD: SignedDuration = SignedDuration::from_hours(24);

/// What is remembered of a policy's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoFar {
    /// When the policy was created.
    pub created: Timestamp,
    /// `status.lastScheduledTime`: every slot up to here has been decided. None where nothing has been remembered yet.
    pub cursor: Option<Timestamp>,
    /// `status.schedule`: the [`Due::in_force`] that was remembered together with the cursor.
    pub in_force: Option<String>,
    /// When the spec was changed last, where that is known. Slots of an edited schedule count from here, or else from now.
    pub edited: Option<Timestamp>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The slot to run, if one is due.
    pub run: Option<Timestamp>,
    /// The slots that are skipped.
    pub missed: Option<Missed>,
    /// The next slot, if there is one to come.
    pub next: Option<Timestamp>,
    /// The cursor to remember once `run` has been started, or where there is none to start. Remember it whenever it is another one, even
    /// an earlier one: that takes the place of a cursor that was written under a wrong clock.
    pub cursor: Timestamp,
    /// The cursor to remember where `run` cannot be started now: it will be due again, for as long as its deadline lasts.
    pub cursor_without_run: Timestamp,
    /// What the cursor was decided under, to be remembered together with it: a change of it is an edited schedule.
    pub in_force: String,
}

/// Slots that do not run. Its text tells people how many, which and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// How many, up to 100.
    pub count: usize,
    /// Whether there are more than were counted.
    pub more: bool,
    /// The newest of them.
    pub newest: Timestamp,
    /// Why.
    pub why: WhyMissed,
}

/// Why slots do not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyMissed {
    /// One run makes up for all of them: that of this slot.
    MadeUpBy(Timestamp),
    /// They are older than the starting deadline.
    TooLate(SignedDuration),
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.count, self.more) {
            (1, false) => write!(f, "skipped the slot of {}", self.newest)?,
            (count, more) => {
                let more = if more { "more than " } else { "" };
                write!(f, "skipped {more}{count} slots, the newest of them {}", self.newest)?;
            }
        }
        match self.why {
            WhyMissed::MadeUpBy(slot) => write!(f, ": the run of {slot} makes up for all that were missed"),
            WhyMissed::TooLate(deadline) => {
                write!(f, ": missed by more than {} (spec.startingDeadlineSeconds)", in_words(deadline))
            }
        }
    }
}

/// Decides on the slots between the cursor and now. `schedule` is that of `spec`, by [`Schedule::of`].
///
/// - Of several missed slots the newest runs, if it is not later than the starting deadline; the others are skipped, and said so.
/// - While the policy is suspended, and before an edit of `schedule`, `timeZone` or `suspend`, slots pass without a word.
/// - `runOnCreate` is one more slot: the instant of the policy's creation.
/// - Nothing at or before the cursor runs, unless the cursor is more than a day ahead of the clock: then slots count from now.
pub fn due(spec: &BackupPolicySpec, schedule: Option<&Schedule>, so_far: &SoFar, now: Timestamp) -> Due {
    let in_force = in_force(spec);
    let is_edited = so_far.in_force.as_ref().is_some_and(|before| *before != in_force);
    let created = (spec.run_on_create && !spec.suspend).then_some(so_far.created);
    let cursor = starting_point(so_far, created.is_some(), is_edited, now);

    let newest = |until: Timestamp| {
        let slot = schedule.and_then(|s| s.latest_at_or_before(until, cursor));
        slot.max(created.filter(|created| (cursor < *created) && (*created <= until)))
    };
    let passed = newest(now);
    let deadline = SignedDuration::from_secs(spec.starting_deadline_seconds.max(0));
    let run = passed.filter(|slot| !spec.suspend && now.duration_since(*slot) <= deadline);
    let last_missed = match run {
        Some(run) => run.checked_sub(SignedDuration::from_nanos(1)).ok().and_then(newest),
        None => passed.filter(|_| !spec.suspend),
    };
    let missed = last_missed.map(|newest| {
        let of_schedule = schedule.map_or(0, |s| s.count(cursor, newest, COUNTED + 1));
        let is_of_schedule = |slot: Timestamp| schedule.is_some_and(|s| s.count(just_before(slot), slot, 1) == 1);
        let extra = created.is_some_and(|c| cursor < c && c <= newest && !is_of_schedule(c));
        let count = of_schedule + usize::from(extra);
        let why = run.map_or(WhyMissed::TooLate(deadline), WhyMissed::MadeUpBy);
        Missed { count: count.min(COUNTED), more: count > COUNTED, newest, why }
    });

    let decided = passed.unwrap_or(cursor);
    let next = schedule.filter(|_| !spec.suspend).and_then(|s| s.next_after(decided));
    let next = next.into_iter().chain(created.filter(|created| *created > decided)).min();
    Due { run, missed, next, cursor: decided, cursor_without_run: cursor, in_force }
}

/// The instant up to which everything has been decided.
fn starting_point(so_far: &SoFar, runs_on_create: bool, is_edited: bool, now: Timestamp) -> Timestamp {
    let cursor = match so_far.cursor {
        Some(cursor) => cursor,
        None if runs_on_create => so_far.created.checked_sub(SignedDuration::from_secs(1)).unwrap_or(so_far.created),
        None => so_far.created,
    };
    if cursor.duration_since(now) > BELIEVABLE_LEAD {
        now
    } else if is_edited {
        cursor.max(so_far.edited.map_or(now, |edited| edited.min(now)))
    } else {
        cursor
    }
}

/// What decides on a policy's slots, as text.
fn in_force(spec: &BackupPolicySpec) -> String {
    match &spec.schedule {
        _ if spec.suspend => "suspended".to_owned(),
        None => "on demand".to_owned(),
        Some(schedule) => format!("{schedule} {}", spec.time_zone),
    }
}

fn just_before(instant: Timestamp) -> Timestamp {
    instant.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(instant)
}

#[cfg(test)]
mod tests;

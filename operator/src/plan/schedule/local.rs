//! Local times of a cron schedule as instants, over changes of the clocks. Pure. The rules are those of the module above.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::cron::Cron;

const TICK: SignedDuration = SignedDuration::from_nanos(1);
/// No change of clocks repeats more local time than this.
const LONGEST_REPEAT: SignedDuration = SignedDuration::from_hours(26);

/// The first slot after an instant.
pub(super) fn next_after(cron: &Cron, zone: &TimeZone, instant: Timestamp) -> Option<Timestamp> {
    if cron.is_every_hour() {
        return next_real(cron, zone, instant);
    }
    // No local time up to that of `instant` has its slot later, since slots follow in the order of their local times.
    let mut local = zone.to_datetime(instant);
    loop {
        local = cron.next(local)?;
        let slot = slot_of(local, zone)?;
        if slot > instant {
            return Some(slot);
        }
    }
}

/// The newest slot at or before `now`; one at or before `floor` may be missed.
pub(super) fn latest(cron: &Cron, zone: &TimeZone, now: Timestamp, floor: Timestamp) -> Option<Timestamp> {
    if floor >= now {
        return None;
    }
    // A day more, for the local times that a change of the clocks moved.
    let floor_date = zone.to_datetime(floor.checked_sub(LONGEST_REPEAT).unwrap_or(Timestamp::MIN)).date();
    if cron.is_every_hour() {
        return latest_real(cron, zone, now, floor);
    }
    // In the second pass of a repeated hour, local times ahead of the clock have had their slots in the first pass.
    let mut local = zone.to_datetime(now);
    let since = now.checked_sub(LONGEST_REPEAT).unwrap_or(Timestamp::MIN);
    for change in zone.preceding(now.checked_add(TICK).ok()?).take_while(|change| change.timestamp() > since) {
        let before = change.timestamp().checked_sub(TICK).ok()?;
        local = local.max(zone.to_datetime(before));
    }
    loop {
        local = cron.previous(local, floor_date)?;
        let slot = slot_of(local, zone)?;
        if slot <= now {
            return Some(slot);
        }
        local = local.checked_sub(TICK).ok()?;
    }
}

/// The slot of a local time: its first pass, or the first instant after the gap it lies in.
fn slot_of(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(local).ok()
        }
        AmbiguousOffset::Gap { before, after } => {
            let earlier = after.to_timestamp(local).ok()?;
            let later = before.to_timestamp(local).ok()?;
            let change = zone.following(earlier).find(|change| change.offset() == after)?.timestamp();
            Some(change.min(later))
        }
    }
}

/// The first instant after `instant` whose local time matches.
fn next_real(cron: &Cron, zone: &TimeZone, instant: Timestamp) -> Option<Timestamp> {
    let mut after = instant;
    // From one change of the clocks to the next, local time runs evenly.
    for change in zone.following(instant).map(|change| Some(change.timestamp())).chain(std::iter::once(None)) {
        let offset = zone.to_offset(after);
        let mut local = offset.to_datetime(after);
        if after > instant {
            // `after` is a change of the clocks: the instant itself counts.
            local = local.checked_sub(TICK).ok()?;
        }
        let slot = offset.to_timestamp(cron.next(local)?).ok()?;
        match change {
            Some(change) if slot >= change => after = change,
            _ => return Some(slot),
        }
    }
    None
}

/// The last instant at or before `now` whose local time matches; one at or before `floor` may be missed.
fn latest_real(cron: &Cron, zone: &TimeZone, now: Timestamp, floor: Timestamp) -> Option<Timestamp> {
    let mut until = now;
    loop {
        let offset = zone.to_offset(until);
        let began = zone.preceding(until.checked_add(TICK).ok()?).next().map_or(Timestamp::MIN, |c| c.timestamp());
        let local = cron.previous(offset.to_datetime(until), offset.to_datetime(floor.max(began)).date());
        let slot = local.and_then(|local| offset.to_timestamp(local).ok());
        if slot.is_some_and(|slot| slot >= began) {
            return slot;
        }
        if began <= floor {
            return None;
        }
        until = began.checked_sub(TICK).ok()?;
    }
}

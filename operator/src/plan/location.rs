//! Where the data of a completed backup is: where its store says, in another place, or nowhere any more. Pure.
//!
//! A run writes down the place that it is stored in. What a store says later may be another place: then nothing is said about the backup
//! that was found out there, and nothing is deleted there in its name. What a listing of the right place shows changes both ways: data that
//! is gone makes `Complete` False, data that is back makes it True again. The phase never changes.

use holdfast_crds::{Backup, BackupPhase, BackupStatus, BackupStore, ConditionType, Reason};
use jiff::Timestamp;

use super::action::{Event, Plan};
use super::status::{find, with_condition};
use crate::task::Failure;

/// Whether a completed backup can be relied on, as far as is known: its data is where its store says.
pub fn is_there(status: &BackupStatus) -> bool {
    status.phase == BackupPhase::Completed && lacking(status).is_none()
}

/// Whether the data of a completed backup is gone from the bucket.
pub fn is_missing(status: &BackupStatus) -> bool {
    lacking(status) == Some(Reason::DataMissing)
}

/// Whether the data of a completed backup is in another place than its store says.
pub fn is_elsewhere(status: &BackupStatus) -> bool {
    lacking(status) == Some(Reason::DataElsewhere)
}

fn lacking(status: &BackupStatus) -> Option<Reason> {
    let complete = find(&status.conditions, ConditionType::Complete).filter(|c| c.status == "False")?;
    let reasons = [Reason::DataMissing, Reason::DataElsewhere];
    reasons.into_iter().find(|reason| status.phase == BackupPhase::Completed && complete.reason == reason.to_string())
}

/// Whether a backup is in this place. One of an older version, which does not say, is.
pub fn is_at(status: &BackupStatus, place: &str) -> bool {
    status.location.as_deref().is_none_or(|location| location == place)
}

/// What is to be done in a store about data that is `location` is not done in another place.
///
/// # Errors
/// [`Reason::DataElsewhere`] with both places, where the store says another one.
pub fn confirm(what: &str, location: Option<&str>, store: &BackupStore) -> Result<(), Failure> {
    let place = store.spec.s3.place();
    let Some(location) = location.filter(|location| *location != place) else { return Ok(()) };
    let store = store.metadata.name.as_deref().unwrap_or_default();
    let message = format!("{what} is in {location}; BackupStore {store} now points to {place}");
    Err(Failure::new(Reason::DataElsewhere, message))
}

/// The failure with what to do about data that is in another place than its store says.
pub fn with_advice(failure: &Failure) -> Failure {
    let message = format!(
        "{}: copy the objects there, which is noticed within the hour, or create a BackupStore for the old place and restore with from.store",
        failure.message
    );
    Failure::new(failure.reason, message)
}

/// Says of a completed backup whether its store still points to the place that its data is in.
pub(super) fn follow(plan: &mut Plan<BackupStatus>, backup: &Backup, store: Option<&BackupStore>, now: Timestamp) {
    let Some(store) = store.filter(|_| plan.status.phase == BackupPhase::Completed) else { return };
    let run = format!("run {}", plan.status.run_id.as_deref().unwrap_or_default());
    match confirm(&run, plan.status.location.as_deref(), store).map_err(|failure| with_advice(&failure)) {
        Err(failure) => {
            if !is_elsewhere(&plan.status) {
                plan.events.push(Event::warning(failure.reason, "Backup", failure.message.clone()));
            }
            say(&mut plan.status, backup, false, failure.reason, &failure.message, now);
        }
        Ok(()) if is_elsewhere(&plan.status) => {
            let message = in_place(&plan.status, &store.spec.s3.place());
            say(&mut plan.status, backup, true, Reason::Completed, &message, now);
        }
        Ok(()) => {}
    }
}

/// Whether a store's place makes a difference to what a backup says of itself.
pub fn is_due(backup: &Backup, store: &BackupStore) -> bool {
    backup.status.as_ref().is_some_and(|status| {
        status.phase == BackupPhase::Completed
            && status.store == store.metadata.name
            && is_at(status, &store.spec.s3.place()) == is_elsewhere(status)
    })
}

/// The status of a backup whose data was looked for in a place and is not there; none where that changes nothing, or where it was never
/// there.
pub fn gone(backup: &Backup, place: &str, why: &str, now: Timestamp) -> Option<BackupStatus> {
    let before = backup.status.as_ref().filter(|status| is_there(status) && is_at(status, place))?;
    let run = before.run_id.as_deref().unwrap_or_default();
    let mut status = before.clone();
    status.location.get_or_insert_with(|| place.to_owned());
    let message = format!(
        "run {run} is not in {place} any more: {why}. It does not count as a backup; if it comes back that is noticed within the hour, if it is \
         gone for good delete this Backup"
    );
    say(&mut status, backup, false, Reason::DataMissing, &message, now);
    Some(status)
}

/// The status of a backup whose data was seen in a place; none where that changes nothing.
pub fn seen(backup: &Backup, place: &str, now: Timestamp) -> Option<BackupStatus> {
    let before = backup.status.as_ref().filter(|status| status.phase == BackupPhase::Completed)?;
    if is_there(before) && before.location.as_deref() == Some(place) {
        return None;
    }
    let mut status = before.clone();
    status.location = Some(place.to_owned());
    if !is_there(before) {
        let message = in_place(&status, place);
        say(&mut status, backup, true, Reason::Completed, &message, now);
    }
    Some(status)
}

fn in_place(status: &BackupStatus, place: &str) -> String {
    let (items, bytes) = (status.items.unwrap_or(0), status.stored_bytes.unwrap_or(0));
    format!("{items} items, {bytes} bytes stored; it is in {place}")
}

fn say(status: &mut BackupStatus, backup: &Backup, value: bool, reason: Reason, message: &str, now: Timestamp) {
    let generation = backup.metadata.generation;
    status.conditions =
        with_condition(&status.conditions, ConditionType::Complete, Some(value), reason, message, generation, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{at, backup_with, ready_store};

    fn done(location: Option<&str>) -> Backup {
        let status = BackupStatus {
            phase: BackupPhase::Completed,
            run_id: Some("20261121T020000Z-3f9a1c".into()),
            store: Some("main".into()),
            location: location.map(str::to_owned),
            ..BackupStatus::default()
        };
        backup_with("b", 1, status)
    }

    fn place() -> String {
        ready_store().spec.s3.place()
    }

    fn with(backup: &Backup, status: BackupStatus) -> Backup {
        Backup { status: Some(status), ..backup.clone() }
    }

    #[test]
    fn data_that_is_gone_makes_it_incomplete_until_it_is_seen_again() {
        for before in [done(Some(&place())), done(None)] {
            let lost = with(&before, gone(&before, &place(), "its manifest is not there", at(5)).unwrap());
            let status = lost.status.clone().unwrap();
            assert!(is_missing(&status) && !is_there(&status) && status.phase == BackupPhase::Completed);
            assert_eq!(gone(&lost, &place(), "again", at(6)), None, "it is said once");
            let back = with(&lost, seen(&lost, &place(), at(7)).unwrap());
            assert!(is_there(back.status.as_ref().unwrap()));
            assert_eq!(seen(&back, &place(), at(8)), None);
        }
    }

    #[test]
    fn what_another_place_lacks_says_nothing() {
        let before = done(Some("s3://old"));
        assert_eq!(gone(&before, &place(), "", at(5)), None);
        let moved = seen(&before, &place(), at(6)).unwrap();
        assert_eq!(moved.location, Some(place()));
    }

    #[test]
    fn a_store_that_points_elsewhere_is_told_once_and_taken_back() {
        let store = ready_store();
        let look = |backup: &Backup| {
            let mut plan = Plan::keep(backup.status.clone().unwrap());
            follow(&mut plan, backup, Some(&store), at(9));
            (plan.status, plan.events.len())
        };
        let before = done(Some("s3://old"));
        assert!(is_due(&before, &store));
        let (status, events) = look(&before);
        assert!(is_elsewhere(&status) && events == 1);
        let message = &find(&status.conditions, ConditionType::Complete).unwrap().message;
        for words in ["s3://old;", &place(), "BackupStore main"] {
            assert!(message.contains(words), "{words}: {message}");
        }
        let told = with(&before, status.clone());
        assert!(!is_due(&told, &store));
        assert_eq!(look(&told), (status.clone(), 0));
        // The store is edited back.
        let back = BackupStatus { location: Some(place()), ..status };
        let back = with(&before, back);
        assert!(is_due(&back, &store));
        assert!(is_there(&look(&back).0));
        for here in [done(Some(&place())), done(None)] {
            assert_eq!(look(&here), (here.status.clone().unwrap(), 0));
            assert!(!is_due(&here, &store));
        }
    }
}

//! What is under way or waits for its turn, as the cache has it. Reads only.

use std::sync::Arc;

use holdfast_crds::{Backup, BackupPhase, BackupPolicy, BackupStore};
use kube::ResourceExt;

use super::cache::{Cached, Key, NOT_OVER, READING, RESTORING, VERIFYING, World, of_owner, of_store, read_at};
use super::queue::{Request, Subject};
use crate::plan::backup::{is_put_back, slot_of, usable};
use crate::plan::found::{is_found, is_unread, place_of};
use crate::plan::observed::{ObservedJob, created};
use crate::plan::refused::refused;
use crate::plan::restore::is_safety;
use crate::plan::turn::{Place, Wait, Work, room_to_read, room_to_verify, turns};

/// Why it is not a Backup's turn yet, if it is not. `limit`: how many runs there may be at a time; none: any number.
///
/// A safety backup is part of a restore, which never waits: its workloads may be stopped already. It takes a place once it runs.
pub fn turn_of(world: &World, backup: &Backup, limit: Option<usize>) -> Option<Wait> {
    if is_safety(backup) {
        return None;
    }
    let mut line = runs(world);
    line.extend(readings(world));
    // The cache may not have seen it yet, or have its policy later than it.
    turn(line, place(world, backup), limit)
}

/// Whether it is not a policy's turn yet to have its bucket read. Asked by each of a thousand new policies: the other ones are looked at
/// only where there is room for one of them.
pub fn catalogue_waits(world: &World, policy: &BackupPolicy, limit: Option<usize>) -> bool {
    let Some(limit) = limit else { return false };
    let room = room_to_read(&busy(world), limit);
    let own = unread(policy);
    room == 0 || unread_policies(world).iter().filter(|p| unread(p) < own).take(room).count() == room
}

/// The Backups that may start now, and the policies whose bucket may be read now.
pub fn next(world: &World, limit: Option<usize>) -> Vec<Request> {
    let mut line = busy(world);
    line.extend(unread_policies(world).iter().map(|policy| unread(policy)));
    let free = turns(&line, limit).into_iter().filter(|(_, turn)| turn.is_ok());
    free.map(|(place, _)| {
        let subject = if place.work == Work::Catalogue { Subject::Policy } else { Subject::Backup };
        Request { subject, key: Key::new(&place.namespace, &place.name) }
    })
    .collect()
}

/// Why there is no room now for a verification that reads from this store, if there is none.
pub fn crowded(world: &World, store: &BackupStore, limit: Option<usize>) -> Option<String> {
    let store_limit = store.spec.max_concurrent_runs.and_then(|n| usize::try_from(n).ok());
    let key = store.key();
    // What waits to be read for a new policy comes after it.
    room_to_verify(&busy(world), &verifying(world), (&key.namespace, &key.name, store_limit), limit).err()
}

/// Namespace and store of each verification that is under way.
fn verifying(world: &World) -> Vec<(String, String)> {
    let open = world.jobs.of(VERIFYING);
    let of = |job: &ObservedJob| {
        let backup = world.backups.get(&job.namespace, &job.owner.as_ref()?.name)?;
        Some((job.namespace.clone(), backup.status.as_ref()?.store.clone()?))
    };
    open.iter().filter_map(|job| of(job)).collect()
}

fn turn(mut line: Vec<Place>, own: Option<Place>, limit: Option<usize>) -> Option<Wait> {
    let own = own?;
    let is_own = |p: &Place| (p.work, &p.namespace, &p.name) == (own.work, &own.namespace, &own.name);
    if !line.iter().any(is_own) {
        line.push(own.clone());
    }
    turns(&line, limit).into_iter().find(|(p, _)| is_own(p)).and_then(|(_, turn)| turn.err())
}

/// What is under way, and the runs that wait for their turn.
fn busy(world: &World) -> Vec<Place> {
    let mut line = runs(world);
    line.extend(world.restores.of(RESTORING).iter().map(|r| beside(Work::Restore, &r.key(), true)));
    line.extend(readings(world));
    line
}

/// The policies whose bucket is still to be read, and has not been asked for. A store whose policies have all been read is passed over
/// without a look at them.
fn unread_policies(world: &World) -> Vec<Arc<BackupPolicy>> {
    let mut waiting = Vec::new();
    for store in world.stores.all() {
        let Key { namespace, name } = store.key();
        let all = of_store(&namespace, &name);
        if world.policies.count(&all) == world.policies.count(&read_at(&namespace, &name, &place_of(&store))) {
            continue;
        }
        // One that could not be read waits for a time, not for its turn.
        let asked = |policy: &BackupPolicy| {
            world.jobs.of(&of_owner(&policy.uid().unwrap_or_default())).iter().any(|j| j.task == "catalogue")
        };
        let policies = world.policies.of(&all);
        waiting.extend(policies.into_iter().filter(|policy| is_unread(policy, Some(&store)) && !asked(policy)));
    }
    waiting
}

/// The runs that are under way or wait for their turn. One that the API server refuses is neither: it takes a place from nobody until it
/// has a Job, and is tried again in its own time, where there is room for it.
fn runs(world: &World) -> Vec<Place> {
    let open = world.backups.of(NOT_OVER);
    let waits = |backup: &Backup| {
        let refused = backup.status.as_ref().is_some_and(|s| refused(s).is_some());
        !refused && !is_safety(backup)
    };
    open.iter().filter_map(|backup| place(world, backup).filter(|place| place.running || waits(backup))).collect()
}

/// The buckets that are being read.
fn readings(world: &World) -> Vec<Place> {
    let jobs = world.jobs.of(READING);
    let owners = jobs.iter().filter_map(|job| Some(Key::new(&job.namespace, &job.owner.as_ref()?.name)));
    owners.map(|policy| beside(Work::Catalogue, &policy, true)).collect()
}

/// The place of a policy whose bucket is to be read. The oldest policy is the first.
fn unread(policy: &BackupPolicy) -> Place {
    Place { slot: created(&policy.metadata), ..beside(Work::Catalogue, &policy.key(), false) }
}

fn beside(work: Work, key: &Key, running: bool) -> Place {
    Place {
        work,
        slot: jiff::Timestamp::MIN,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        store: String::new(),
        store_limit: None,
        running,
    }
}

/// The place of a run that is under way, or that could be: one that waits for its policy or its store holds up nobody, and neither does
/// one that is being deleted. What has a Job is under way, whatever else of it could not be created.
fn place(world: &World, backup: &Backup) -> Option<Place> {
    let namespace = backup.namespace().unwrap_or_default();
    if backup.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = backup.status.clone().unwrap_or_default();
    let running = status.phase == BackupPhase::Running
        || (status.phase == BackupPhase::Pending
            && world.jobs.of(&of_owner(&backup.uid().unwrap_or_default())).iter().any(|job| job.task == "backup"));
    let store = match status.store.filter(|_| running) {
        Some(store) => store,
        None => world.policies.get(&namespace, &backup.spec.policy_ref.name)?.spec.store_ref.name.clone(),
    };
    let object = world.stores.get(&namespace, &store);
    let policy = world.policies.get(&namespace, &backup.spec.policy_ref.name);
    let never_runs = is_found(backup) || is_put_back(backup, policy.as_deref());
    if !running && (never_runs || usable(&store, object.as_deref()).is_err()) {
        return None;
    }
    let store_limit = object.and_then(|s| s.spec.max_concurrent_runs).and_then(|n| usize::try_from(n).ok());
    Some(Place {
        work: Work::Run,
        slot: slot_of(backup),
        namespace,
        name: backup.name_any(),
        store,
        store_limit,
        running,
    })
}

#[cfg(test)]
mod tests {
    use holdfast_crds::{
        BackupPolicyStatus, BackupStatus, CatalogueStatus, ConditionType, Reason, RestoreRequest, RestoreRequestStatus,
    };

    use super::*;
    use crate::plan::fixture::{at, backup, backup_with, completed, job, meta, policy, ready_store, unready_store};
    use crate::plan::names::SAFETY_LABEL;
    use crate::plan::observed::{ObservedJob, Owner};
    use crate::plan::refused::say;
    use crate::plan::verify::VERIFY;
    use crate::task::Failure;

    fn world(limit_of_store: Option<i32>) -> World {
        let world = World::default();
        let mut store = ready_store();
        store.spec.max_concurrent_runs = limit_of_store;
        world.stores.put(store);
        world.policies.put(policy());
        world
    }

    fn restore(phase: BackupPhase) -> RestoreRequest {
        let spec = serde_json::from_value(serde_json::json!({"from": {"backup": "one"}})).unwrap();
        let status = Some(RestoreRequestStatus { phase, ..RestoreRequestStatus::default() });
        RestoreRequest { metadata: meta("now", "uid-of-now", 1), spec, status }
    }

    #[test]
    fn a_run_waits_while_others_are_under_way_and_starts_when_one_is_over() {
        let world = world(Some(1));
        let status = |phase| BackupStatus { phase, store: Some("main".into()), ..BackupStatus::default() };
        world.backups.put(backup_with("one", 1, status(BackupPhase::Running)));
        world.backups.put(backup("two", 2));
        let third = backup("three", 3);
        assert_eq!(turn_of(&world, &backup("two", 2), None).unwrap().position, 1);
        assert_eq!(turn_of(&world, &third, None).unwrap().position, 2, "the cache has not seen it yet");
        assert!(next(&world, None).iter().all(|r| r.subject != Subject::Backup));

        world.backups.put(backup_with("one", 1, status(BackupPhase::Completed)));
        assert_eq!(turn_of(&world, &backup("two", 2), None), None);
        assert!(turn_of(&world, &third, None).is_some());
        let next = next(&world, None);
        assert!(next.contains(&Request { subject: Subject::Backup, key: Key::new("shop", "two") }), "{next:?}");
        assert!(!next.iter().any(|r| r.key.name == "three"), "{next:?}");
    }

    #[test]
    fn of_many_new_policies_as_many_have_their_bucket_read_as_there_is_room_for_and_then_the_next_ones() {
        let world = World::default();
        world.stores.put(ready_store());
        let new = |number: i64| {
            let mut policy = policy();
            policy.metadata = meta(&format!("p{number:03}"), &format!("uid-of-p{number:03}"), number);
            policy
        };
        for number in 0..200 {
            world.policies.put(new(number));
        }
        let free_from = |first: i64| -> Vec<String> {
            let all = (first..200).map(new).filter(|p| !catalogue_waits(&world, p, Some(3)));
            all.map(|p| p.name_any()).collect()
        };
        assert_eq!(free_from(0), ["p000", "p001", "p002"]);
        let reading = |number: i64, end| ObservedJob {
            task: "catalogue".into(),
            owner: Some(Owner {
                kind: "BackupPolicy".into(),
                name: format!("p{number:03}"),
                uid: format!("uid-of-p{number:03}"),
            }),
            end,
            ..job(&format!("j{number:03}"))
        };
        for number in 0..3 {
            world.jobs.put(reading(number, None));
        }
        assert_eq!(free_from(3), [""; 0], "they are being read");
        world.jobs.put(completed(reading(1, None)));
        assert_eq!(free_from(3), ["p003"], "a job that ended has no place, whether its result is written down or not");
        let woken = next(&world, Some(3));
        assert_eq!(woken, [Request { subject: Subject::Policy, key: Key::new("shop", "p003") }]);
        let mut late = backup("late", 900);
        late.spec.policy_ref.name = "p000".into();
        world.backups.put(late.clone());
        assert_eq!(free_from(3), [""; 0], "a run goes first");
        assert_eq!(turn_of(&world, &late, Some(3)), None);
        assert!(turn_of(&world, &late, Some(2)).is_some(), "what is being read has its place");
    }

    #[test]
    fn policies_whose_bucket_was_read_are_in_nobodys_way_until_their_store_is_another_place() {
        let world = World::default();
        world.stores.put(ready_store());
        let with = |name: &str, place: Option<String>| {
            let mut policy = policy();
            policy.metadata = meta(name, &format!("uid-of-{name}"), 1);
            let catalogue = place.map(|place| CatalogueStatus { place, ..CatalogueStatus::default() });
            policy.status = Some(BackupPolicyStatus { catalogue, ..BackupPolicyStatus::default() });
            policy
        };
        let read = Some(place_of(&ready_store()));
        for name in ["a", "b", "c"] {
            world.policies.put(with(name, read.clone()));
        }
        let waiting = || unread_policies(&world).iter().map(|p| p.name_any()).collect::<Vec<_>>();
        assert_eq!(waiting(), [""; 0]);
        world.policies.put(with("new", None));
        assert_eq!(waiting(), ["new"]);
        world.policies.put(with("new", read));
        assert_eq!(waiting(), [""; 0]);
        let mut moved = ready_store();
        moved.spec.s3.prefix = Some("other".into());
        world.stores.put(moved);
        assert_eq!(waiting(), ["a", "b", "c", "new"]);
    }

    #[test]
    fn room_for_a_verification_is_what_runs_restores_and_verifications_leave() {
        let world = world(Some(1));
        let store = world.stores.get("shop", "main").unwrap();
        let full = |limit| crowded(&world, &store, limit).is_some();
        assert!(!full(Some(1)));
        // A thousand policies whose bucket is still to be read are not in its way.
        for number in 0..1000 {
            let mut new = policy();
            new.metadata = meta(&format!("p{number:04}"), &format!("uid-of-p{number:04}"), number);
            world.policies.put(new);
        }
        assert!(!full(Some(1)));
        let status = |phase| BackupStatus { phase, store: Some("main".into()), ..BackupStatus::default() };
        world.backups.put(backup_with("one", 1, status(BackupPhase::Running)));
        assert!(full(None) && full(Some(9)), "the store's own limit");
        world.backups.put(backup_with("one", 1, status(BackupPhase::Completed)));
        assert!(!full(Some(1)));
        world.restores.put(restore(BackupPhase::Running));
        assert!(full(Some(1)) && !full(Some(2)), "a restore");
        world.restores.put(restore(BackupPhase::Completed));
        assert!(!full(Some(1)));
        let owner = Some(Owner { kind: "Backup".into(), name: "one".into(), uid: "uid-of-one".into() });
        world.jobs.put(ObservedJob { task: VERIFY.into(), owner, ..job("v") });
        assert!(full(None), "another verification of this store");
    }

    #[test]
    fn who_has_no_job_holds_no_place_and_who_has_one_does() {
        let world = world(None);
        let failure = Failure::new(Reason::QuotaExceeded, "exceeded quota: none");
        let mut conditions = Vec::new();
        say(&mut conditions, ConditionType::Complete, Some(false), &failure, Some(1), at(1));
        let status = BackupStatus { conditions, ..BackupStatus::default() };
        for number in 0..20 {
            world.backups.put(backup_with(&format!("refused-{number}"), number, status.clone()));
        }
        let mut mine = backup("mine", 900);
        mine.metadata.namespace = Some("other".into());
        let (mut policy, mut store) = (policy(), ready_store());
        policy.metadata.namespace = Some("other".into());
        store.metadata.namespace = Some("other".into());
        world.policies.put(policy);
        world.stores.put(store);
        world.backups.put(mine.clone());
        assert_eq!(turn_of(&world, &mine, Some(1)), None);
        let woken = next(&world, Some(20));
        assert!(woken.iter().any(|r| r.key.name == "mine"), "{woken:?}");
        assert!(!woken.iter().any(|r| r.key.name.starts_with("refused")), "they are tried again in their own time");
        let refused = backup_with("refused-7", 7, status);
        assert!(turn_of(&world, &refused, Some(1)).is_none(), "it is tried where there is room");

        // The first of its Jobs was created, the second refused.
        let owner = Some(Owner { kind: "Backup".into(), name: "refused-7".into(), uid: "uid-of-refused-7".into() });
        world.jobs.put(ObservedJob { owner, ..job("j") });
        assert!(turn_of(&world, &mine, Some(1)).is_some());
        assert_eq!(turn_of(&world, &refused, Some(1)), None, "it goes on");
        assert!(turn_of(&world, &backup_with("refused-8", 8, refused.status.clone().unwrap()), Some(1)).is_some());
    }

    #[test]
    fn a_run_that_is_being_deleted_holds_no_place_whatever_keeps_it() {
        let world = world(Some(1));
        let status =
            BackupStatus { phase: BackupPhase::Running, store: Some("main".into()), ..BackupStatus::default() };
        let mut going = backup_with("going", 1, status);
        world.backups.put(going.clone());
        assert!(turn_of(&world, &backup("mine", 3), None).is_some());
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        world.backups.put(going);
        assert_eq!(turn_of(&world, &backup("mine", 3), Some(1)), None);
        let mut leaving = restore(BackupPhase::Running);
        leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
        world.restores.put(leaving);
        assert!(crowded(&world, &ready_store(), Some(1)).is_none(), "nor does a restore");
    }

    #[test]
    fn what_a_restore_saves_first_never_waits_and_is_counted_once_it_runs() {
        let world = world(Some(1));
        let status = |phase| BackupStatus { phase, store: Some("main".into()), ..BackupStatus::default() };
        world.backups.put(backup_with("one", 1, status(BackupPhase::Running)));
        let mut safety = backup("undo-safety", 2);
        safety.metadata.labels = Some([(SAFETY_LABEL.to_owned(), "undo".to_owned())].into());
        world.backups.put(safety.clone());
        assert_eq!(turn_of(&world, &safety, Some(1)), None);
        world.backups.put(backup_with("one", 1, status(BackupPhase::Completed)));
        assert_eq!(turn_of(&world, &backup("two", 3), Some(1)), None, "it is ahead of nobody either");
        safety.status = Some(status(BackupPhase::Running));
        world.backups.put(safety);
        assert!(turn_of(&world, &backup("two", 3), Some(1)).is_some());
    }

    #[test]
    fn what_waits_for_its_store_or_is_being_deleted_holds_up_nobody() {
        let world = world(None);
        let mut down = unready_store(holdfast_crds::Reason::Unreachable, "no answer");
        down.metadata.name = Some("down".into());
        world.stores.put(down);
        let mut other = policy();
        other.metadata.name = Some("other".into());
        other.spec.store_ref.name = "down".into();
        world.policies.put(other);
        let mut parked = backup("parked", 1);
        parked.spec.policy_ref.name = "other".into();
        world.backups.put(parked);
        let mut deleted = backup("deleted", 2);
        deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
        world.backups.put(deleted);
        assert_eq!(turn_of(&world, &backup("mine", 3), Some(1)), None);
    }
}

//! The runs that are under way or wait for their turn, as the cache has them. Reads only.

use holdfast_crds::{Backup, BackupPhase};
use kube::ResourceExt;

use super::cache::{Key, NOT_OVER, World};
use crate::plan::backup::{slot_of, usable};
use crate::plan::found::is_found;
use crate::plan::turn::{Place, Wait, turns};

/// Why it is not a Backup's turn yet, if it is not. `limit`: how many runs there may be at a time; none: any number.
pub fn turn_of(world: &World, backup: &Backup, limit: Option<usize>) -> Option<Wait> {
    let mut line = line(world);
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    if !line.iter().any(|p| p.namespace == namespace && p.name == name) {
        // The cache has not seen it yet, or has its policy later than it.
        line.extend(place(world, backup));
    }
    let turn = turns(&line, limit).into_iter().find(|(p, _)| p.namespace == namespace && p.name == name);
    turn.and_then(|(_, turn)| turn.err())
}

/// The Backups that may start now.
pub fn next(world: &World, limit: Option<usize>) -> Vec<Key> {
    let line = line(world);
    let free = turns(&line, limit).into_iter().filter(|(_, turn)| turn.is_ok());
    free.map(|(place, _)| Key::new(&place.namespace, &place.name)).collect()
}

fn line(world: &World) -> Vec<Place> {
    world.backups.of(NOT_OVER).iter().filter_map(|backup| place(world, backup)).collect()
}

/// The place of a run that is under way, or that could be: one that waits for its policy or its store holds up nobody.
fn place(world: &World, backup: &Backup) -> Option<Place> {
    let namespace = backup.namespace().unwrap_or_default();
    let status = backup.status.clone().unwrap_or_default();
    let running = status.phase == BackupPhase::Running;
    let store = match status.store.filter(|_| running) {
        Some(store) => store,
        None => world.policies.get(&namespace, &backup.spec.policy_ref.name)?.spec.store_ref.name.clone(),
    };
    let object = world.stores.get(&namespace, &store);
    let never_runs = is_found(backup) || backup.metadata.deletion_timestamp.is_some();
    if !running && (never_runs || usable(&store, object.as_deref()).is_err()) {
        return None;
    }
    let store_limit = object.and_then(|s| s.spec.max_concurrent_runs).and_then(|n| usize::try_from(n).ok());
    Some(Place { slot: slot_of(backup), namespace, name: backup.name_any(), store, store_limit, running })
}

#[cfg(test)]
mod tests {
    use holdfast_crds::BackupStatus;

    use super::*;
    use crate::plan::fixture::{backup, backup_with, policy, ready_store, unready_store};

    fn world(limit_of_store: Option<i32>) -> World {
        let world = World::default();
        let mut store = ready_store();
        store.spec.max_concurrent_runs = limit_of_store;
        world.stores.put(store);
        world.policies.put(policy());
        world
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
        assert!(next(&world, None).is_empty());

        world.backups.put(backup_with("one", 1, status(BackupPhase::Completed)));
        assert_eq!(turn_of(&world, &backup("two", 2), None), None);
        assert!(turn_of(&world, &third, None).is_some());
        assert_eq!(next(&world, None), [Key::new("shop", "two")]);
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

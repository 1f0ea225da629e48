//! Whose turn it is: at most so many runs at a time, in the installation and in each store, the earliest slot first; reading of buckets
//! comes after all of them. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What takes a place, or waits for one. The first is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// The run of a Backup.
    Run,
    /// A restore. It never waits, and what waits for restores are catalogues alone.
    Restore,
    /// Reading what a bucket holds of a policy.
    Catalogue,
}

/// Work that is not over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What it is.
    pub work: Work,
    /// The instant it stands for. The earliest is the first in the queue.
    pub slot: Timestamp,
    /// Namespace of its Backup, RestoreRequest or policy.
    pub namespace: String,
    /// Name of its Backup, RestoreRequest or policy.
    pub name: String,
    /// Name of its store, in its namespace.
    pub store: String,
    /// How many runs may write to that store at a time; none: any number.
    pub store_limit: Option<usize>,
    /// Whether it has been started. One that has not is waiting for its turn and for nothing else.
    pub running: bool,
}

/// Why a run has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Its place among those that wait for the same, 1 for the next one; beyond 10 rounded up, so that it is not written anew each time
    /// a run ends.
    pub position: i32,
    /// For what, in one line.
    pub why: String,
}

/// Who waits for what, by where they stand in the queue.
///
/// Runs that are blocked by their store take no place away from others. `limit`: how many runs and catalogues there may be at a time in
/// all; none: any number.
pub fn turns(line: &[Place], limit: Option<usize>) -> Vec<(&Place, Result<(), Wait>)> {
    let mut in_all = 0;
    let mut restores = 0;
    let mut in_store: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for place in line.iter().filter(|p| p.running) {
        match place.work {
            Work::Run => *in_store.entry(store_of(place)).or_default() += 1,
            Work::Restore => restores += 1,
            Work::Catalogue => {}
        }
        in_all += usize::from(place.work != Work::Restore);
    }
    let mut waiting: Vec<&Place> = line.iter().filter(|p| !p.running).collect();
    waiting.sort_unstable();
    let mut ahead = 0;
    let mut ahead_in_store: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut turns = Vec::with_capacity(waiting.len());
    for place in waiting {
        if place.work == Work::Catalogue {
            // It is not urgent, and writes to no store: it takes what all others leave.
            if let Some(most) = limit.filter(|most| in_all + restores + ahead >= *most) {
                ahead += 1;
                let why = format!("{} of at most {most} runs are under way or wait for their turn", in_all + restores);
                turns.push((place, Err(Wait { position: coarse(ahead), why })));
            } else {
                in_all += 1;
                turns.push((place, Ok(())));
            }
            continue;
        }
        let of_store = in_store.entry(store_of(place)).or_default();
        if let Some(most) = place.store_limit.filter(|most| *of_store >= *most) {
            let ahead = ahead_in_store.entry(store_of(place)).or_default();
            *ahead += 1;
            let why = format!(
                "{} of at most {most} runs write to BackupStore {} (spec.maxConcurrentRuns)",
                of_store, place.store
            );
            turns.push((place, Err(Wait { position: coarse(*ahead), why })));
        } else if let Some(most) = limit.filter(|most| in_all >= *most) {
            ahead += 1;
            let why = format!("{in_all} of at most {most} runs are under way (the chart's maxConcurrentRuns)");
            turns.push((place, Err(Wait { position: coarse(ahead), why })));
        } else {
            in_all += 1;
            *of_store += 1;
            turns.push((place, Ok(())));
        }
    }
    turns
}

/// How many buckets may begin to be read for new policies, beside what is under way and all runs whose turn it is. `line` without those
/// that wait for it; `limit`: how many there may be at a time in all.
pub fn room_to_read(line: &[Place], limit: usize) -> usize {
    let running = line.iter().filter(|place| place.running).count();
    let starting = turns(line, Some(limit)).into_iter().filter(|(_, turn)| turn.is_ok()).count();
    limit.saturating_sub(running + starting)
}

/// Whether a verification may read from a store now: one at a time from each, only where neither limit is reached, and not while runs wait
/// for that store. It is counted when it starts, and a run never waits for it.
///
/// # Errors
/// What is in its way, in one line.
pub fn room_to_verify(
    line: &[Place],
    verifying: &[(String, String)],
    (namespace, store, store_limit): (&str, &str, Option<usize>),
    limit: Option<usize>,
) -> Result<(), String> {
    if verifying.iter().any(|(n, s)| (n.as_str(), s.as_str()) == (namespace, store)) {
        return Err(format!("another verification reads from BackupStore {store}"));
    }
    let turns = turns(line, limit);
    // A bucket that is about to be read for a new policy waits for no verification, and none for it.
    let starting =
        turns.iter().filter(|(place, turn)| turn.is_ok() && place.work == Work::Run).map(|(place, _)| *place);
    let running: Vec<&Place> = line.iter().filter(|p| p.running).chain(starting).collect();
    if let Some(most) = limit.filter(|most| running.len() + verifying.len() >= *most) {
        // Without their number: restores and catalogues may be more, and each change would be a write for everybody who waits.
        return Err(format!(
            "{most} runs, restores and verifications or more are under way (the chart's maxConcurrentRuns)"
        ));
    }
    let here = |place: &&&Place| place.work == Work::Run && store_of(place) == (namespace, store);
    let in_store = running.iter().filter(here).count();
    if let Some(most) = store_limit.filter(|most| in_store >= *most) {
        return Err(format!("{in_store} of at most {most} runs write to BackupStore {store} (spec.maxConcurrentRuns)"));
    }
    Ok(())
}

fn store_of(place: &Place) -> (&str, &str) {
    (&place.namespace, &place.store)
}

/// Exact up to 10, then rounded up to 20, 50, 100, 200, 500, …
fn coarse(position: usize) -> i32 {
    let position = i32::try_from(position).unwrap_or(i32::MAX);
    if position <= 10 {
        return position;
    }
    let steps = (1..8).flat_map(|power| [2, 5, 10].map(|digit| digit * 10_i32.pow(power)));
    steps.into_iter().find(|step| *step >= position).unwrap_or(position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::at;

    fn place(slot: i64, store: &str, store_limit: Option<usize>, running: bool) -> Place {
        Place {
            work: Work::Run,
            slot: at(slot),
            namespace: "shop".into(),
            name: format!("b{slot}"),
            store: store.into(),
            store_limit,
            running,
        }
    }

    fn told(line: &[Place], limit: Option<usize>) -> Vec<(String, Option<i32>)> {
        turns(line, limit).into_iter().map(|(p, turn)| (p.name.clone(), turn.err().map(|w| w.position))).collect()
    }

    #[test]
    fn the_earliest_slots_go_first_and_no_more_than_there_is_room_for() {
        let line = [
            place(4, "a", None, false),
            place(1, "a", None, true),
            place(3, "a", None, false),
            place(2, "a", None, false),
        ];
        let told = told(&line, Some(2));
        assert_eq!(told, [("b2".into(), None), ("b3".into(), Some(1)), ("b4".into(), Some(2))]);
        assert!(turns(&line, None).iter().all(|(_, turn)| turn.is_ok()));
    }

    #[test]
    fn a_store_that_is_busy_holds_up_its_own_runs_alone() {
        let line = [
            place(1, "busy", Some(1), true),
            place(2, "busy", Some(1), false),
            place(3, "other", None, false),
            place(4, "busy", Some(1), false),
        ];
        assert_eq!(told(&line, Some(2)), [("b2".into(), Some(1)), ("b3".into(), None), ("b4".into(), Some(2))]);
        let why = turns(&line, Some(2))[0].1.clone().unwrap_err().why;
        assert_eq!(why, "1 of at most 1 runs write to BackupStore busy (spec.maxConcurrentRuns)");
    }

    #[test]
    fn five_hundred_at_once_are_never_more_than_the_limit_and_all_get_their_turn() {
        let mut line: Vec<Place> =
            (0..500).map(|i| place(7, if i % 3 == 0 { "a" } else { "b" }, Some(4 + i % 3), false)).collect();
        for (i, place) in line.iter_mut().enumerate() {
            place.name = format!("b{i:03}");
            place.store_limit = Some(if place.store == "a" { 4 } else { 6 });
        }
        let mut rounds = 0;
        while !line.is_empty() {
            let go: Vec<String> =
                turns(&line, Some(8)).into_iter().filter(|(_, t)| t.is_ok()).map(|(p, _)| p.name.clone()).collect();
            for place in &mut line {
                place.running |= go.contains(&place.name);
            }
            let running = line.iter().filter(|p| p.running).count();
            let of_a = line.iter().filter(|p| p.running && p.store == "a").count();
            assert!(running <= 8 && of_a <= 4 && running - of_a <= 6, "{running} {of_a}");
            // One of those that run ends.
            let over = line.iter().position(|p| p.running).unwrap();
            line.remove(over);
            rounds += 1;
        }
        assert_eq!(rounds, 500);
    }

    #[test]
    fn a_thousand_catalogues_take_what_runs_and_restores_leave() {
        let of = |work, number: i64, running| Place {
            work,
            name: format!("{work:?}-{number:04}"),
            ..place(number, "a", Some(1), running)
        };
        let mut line: Vec<Place> = (0..1000).map(|n| of(Work::Catalogue, n, false)).collect();
        let room = |line: &[Place]| {
            let others: Vec<Place> = line.iter().filter(|p| p.running || p.work == Work::Run).cloned().collect();
            room_to_read(&others, 3)
        };
        let go = |line: &[Place], limit| {
            let free = turns(line, limit).into_iter().filter(|(_, turn)| turn.is_ok());
            free.map(|(place, _)| place.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(go(&line, None).len(), 1000);
        assert_eq!(go(&line, Some(3)), ["Catalogue-0000", "Catalogue-0001", "Catalogue-0002"]);
        assert_eq!(room(&line), 3);
        line.push(of(Work::Restore, 2000, true));
        line.push(of(Work::Run, 2001, true));
        assert_eq!((go(&line, Some(3)).as_slice(), room(&line)), (&["Catalogue-0000".to_owned()][..], 1));
        line.push(of(Work::Run, 2002, false));
        assert_eq!(go(&line, Some(3)), ["Catalogue-0000"], "a run that its store holds up leaves its place");
        assert_eq!(room(&line), 1);
        line.push(Place { store: "b".into(), ..of(Work::Run, 2003, false) });
        assert_eq!(
            go(&line, Some(3)),
            ["Run-2003"],
            "a run goes first, however late it came, and no restore holds it up"
        );
        assert_eq!(room(&line), 0);
        line.iter_mut().filter(|p| p.work == Work::Catalogue).take(2).for_each(|p| p.running = true);
        assert_eq!(go(&line, Some(3)), [""; 0], "those that are under way count");
    }

    #[test]
    fn a_verification_takes_only_what_room_the_runs_leave() {
        let busy = [place(1, "a", Some(2), true), place(2, "a", Some(2), false)];
        let free = |line: &[Place], verifying: &[&str], store: &str, of_store, limit| {
            let verifying: Vec<_> = verifying.iter().map(|s| ("shop".to_owned(), (*s).to_owned())).collect();
            room_to_verify(line, &verifying, ("shop", store, of_store), limit).is_ok()
        };
        assert!(free(&[], &[], "a", Some(1), Some(1)));
        assert!(!free(&[], &["a"], "a", None, None), "one at a time from a store");
        assert!(free(&[], &["a"], "b", None, None) && !free(&[], &["a"], "b", None, Some(1)));
        assert!(!free(&busy, &[], "a", Some(2), None), "the run whose turn it is goes first");
        assert!(free(&busy, &[], "b", None, Some(3)) && !free(&busy, &[], "b", None, Some(2)));
        assert!(free(&busy[..1], &[], "a", Some(2), Some(2)));
        let restore = [Place { work: Work::Restore, ..place(1, "a", None, true) }];
        assert!(free(&restore, &[], "a", Some(1), None) && !free(&restore, &[], "a", Some(1), Some(1)));
        // However many more there are, it is the same line.
        let why = |running| {
            let restores = vec![restore[0].clone(); running];
            room_to_verify(&restores, &[], ("shop", "a", None), Some(1)).unwrap_err()
        };
        assert_eq!(why(1), why(7));
    }

    #[test]
    fn positions_far_back_are_rounded_up() {
        let table =
            [(1, 1), (10, 10), (11, 20), (21, 50), (99, 100), (101, 200), (490, 500), (501, 1000), (1_001, 2000)];
        for (position, told) in table {
            assert_eq!(coarse(position), told, "{position}");
        }
    }
}

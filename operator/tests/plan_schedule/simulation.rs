//! A controller over weeks of simulated time: restarts, crashes between two writes, days of downtime, stores that are not ready, clocks
//! that jump, edits and suspensions. Each slot runs at most once, and none is lost without a word.

use std::collections::BTreeSet;

use holdfast::plan::schedule::{Due, Schedule, SoFar, WhyMissed, due};
use holdfast_crds::{BackupPolicySpec, CompressionSpec, LocalRef, PlausibilitySpec};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Clone, Debug)]
enum Step {
    /// Time passes, then the controller looks.
    Look { seconds: i64 },
    /// The store is not ready: what is due cannot be started.
    LookInVain { seconds: i64 },
    /// The controller starts what is due and dies before it writes the cursor.
    Crash { seconds: i64 },
    /// The clock is wrong by this much more or less.
    Jump { seconds: i64 },
    /// Somebody edits.
    Edit { schedule: &'static str },
    /// Somebody suspends or resumes.
    Suspend { on: bool },
}

const SCHEDULES: [&str; 6] =
    ["0 2 * * *", "*/30 * * * *", "30 */4 * * *", "15 2 * * 0,3", "@every 40m", "45 1 25-31 10 *"];

fn spec(schedule: &str, zone: &str, run_on_create: bool, deadline: i64) -> BackupPolicySpec {
    BackupPolicySpec {
        store_ref: LocalRef { name: "s3".into() },
        schedule: Some(schedule.to_owned()),
        time_zone: zone.to_owned(),
        suspend: false,
        run_on_create,
        starting_deadline_seconds: deadline,
        timeout_seconds: 1,
        idle_timeout_seconds: 1,
        sources: Vec::new(),
        compression: CompressionSpec::default(),
        max_age: None,
        plausibility: PlausibilitySpec::default(),
        retention: None,
        verify: None,
        job_template: None,
    }
}

fn policy() -> impl Strategy<Value = BackupPolicySpec> {
    let zone = select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo"]);
    (select(SCHEDULES.to_vec()), zone, any::<bool>(), select(vec![10_i64, 600, 3600, 100_000]))
        .prop_map(|(schedule, zone, run_on_create, deadline)| spec(schedule, zone, run_on_create, deadline))
}

/// Mostly seconds to minutes, now and then a day.
fn pause() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 1..3000_i64, 3 => 3000..20_000_i64, 1 => 20_000..170_000_i64]
}

fn calm_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => pause().prop_map(|seconds| Step::Look { seconds }),
        2 => pause().prop_map(|seconds| Step::LookInVain { seconds }),
        2 => pause().prop_map(|seconds| Step::Crash { seconds }),
    ]
}

fn wild_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => calm_step(),
        1 => (-50_000..50_000_i64).prop_map(|seconds| Step::Jump { seconds }),
        1 => select(SCHEDULES.to_vec()).prop_map(|schedule| Step::Edit { schedule }),
        1 => any::<bool>().prop_map(|on| Step::Suspend { on }),
    ]
}

/// What the API server and the world hold; the controller itself remembers nothing.
struct World {
    spec: BackupPolicySpec,
    created: Timestamp,
    /// Real time, in seconds.
    time: i64,
    /// How far the controller's clock is off.
    skew: i64,
    cursor: Option<Timestamp>,
    in_force: Option<String>,
    /// Slots of which a Backup was made: its name is that of the slot, so a second one is refused by the API server.
    backups: BTreeSet<Timestamp>,
    /// Slots of which the controller made a Backup right before it died.
    unwritten: BTreeSet<Timestamp>,
    /// Slots that people were told are skipped.
    skipped: BTreeSet<Timestamp>,
}

impl World {
    fn new(spec: BackupPolicySpec, start: i64) -> Self {
        Self {
            spec,
            created: Timestamp::from_second(start).unwrap(),
            time: start,
            skew: 0,
            cursor: None,
            in_force: None,
            backups: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            skipped: BTreeSet::new(),
        }
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_second(self.time + self.skew).unwrap()
    }

    /// The slots after `after` and at or before `until`, the one of the creation among them.
    fn slots(&self, after: Timestamp, until: Timestamp) -> BTreeSet<Timestamp> {
        let schedule = Schedule::of(&self.spec, "seed").unwrap().unwrap();
        let from = after.max(self.created);
        let slots = std::iter::successors(schedule.next_after(from), |slot| schedule.next_after(*slot));
        let created = (self.spec.run_on_create && after < self.created).then_some(self.created);
        slots.take_while(|slot| *slot <= until).chain(created).collect()
    }

    fn decide(&self) -> Due {
        let schedule = Schedule::of(&self.spec, "seed").unwrap();
        let so_far =
            SoFar { created: self.created, cursor: self.cursor, in_force: self.in_force.clone(), edited: None };
        due(&self.spec, schedule.as_ref(), &so_far, self.clock())
    }

    fn remember(&mut self, cursor: Timestamp, in_force: String) {
        self.cursor = Some(cursor);
        self.in_force = Some(in_force);
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Look { seconds } | Step::LookInVain { seconds } | Step::Crash { seconds } => self.time += seconds,
            Step::Jump { seconds } => {
                self.skew = (self.skew + seconds).clamp(-80_000, 80_000);
                return Ok(());
            }
            Step::Edit { schedule } => {
                self.spec.schedule = Some((*schedule).to_owned());
                return Ok(());
            }
            Step::Suspend { on } => {
                self.spec.suspend = *on;
                return Ok(());
            }
        }
        let before = self.cursor;
        let due = self.decide();
        self.check(before, &due)?;
        match step {
            Step::LookInVain { .. } if due.run.is_some() => self.remember(due.cursor_without_run, due.in_force),
            Step::Crash { .. } => {
                self.backups.extend(due.run);
                self.unwritten.extend(due.run);
            }
            _ => {
                self.backups.extend(due.run);
                if let Some(missed) = &due.missed {
                    let skipped = self.slots(due.cursor_without_run, missed.newest);
                    prop_assert_eq!((missed.count, missed.more), (skipped.len().min(100), skipped.len() > 100));
                    self.skipped.extend(skipped);
                }
                self.remember(due.cursor, due.in_force);
            }
        }
        Ok(())
    }

    /// What must hold of every decision.
    fn check(&self, before: Option<Timestamp>, due: &Due) -> Result<(), TestCaseError> {
        let now = self.clock();
        let schedule = Schedule::of(&self.spec, "seed").unwrap().unwrap();
        prop_assert!(due.cursor >= due.cursor_without_run);
        let is_believable = before.is_none_or(|cursor| cursor <= now + SignedDuration::from_hours(24));
        if is_believable {
            prop_assert!(before.is_none_or(|cursor| cursor <= due.cursor_without_run), "the cursor went back");
        }
        if let Some(run) = due.run {
            prop_assert!(!self.spec.suspend);
            prop_assert!(!self.backups.contains(&run) || self.unwritten.contains(&run), "{run} twice");
            prop_assert!(before.is_none_or(|cursor| run > cursor), "{run} again");
            prop_assert!(run <= now && now.duration_since(run).as_secs() <= self.spec.starting_deadline_seconds);
            let is_slot = schedule.next_after(run - SignedDuration::from_nanos(1)) == Some(run);
            prop_assert!(is_slot || (self.spec.run_on_create && run == self.created));
            prop_assert_eq!(due.cursor, run);
        }
        if let Some(missed) = &due.missed {
            match missed.why {
                WhyMissed::MadeUpBy(slot) => prop_assert_eq!(due.run, Some(slot)),
                WhyMissed::TooLate(_) => prop_assert!(due.run.is_none()),
            }
        }
        if let Some(next) = due.next {
            prop_assert!(next > now && next > due.cursor);
        }
        // Looking again at once, with all remembered, finds nothing to do and nothing to write.
        let so_far = SoFar {
            created: self.created,
            cursor: Some(due.cursor),
            in_force: Some(due.in_force.clone()),
            edited: None,
        };
        let again = holdfast::plan::schedule::due(&self.spec, Some(&schedule), &so_far, now);
        prop_assert!(again.run.is_none() && again.missed.is_none());
        prop_assert_eq!((again.cursor, again.next, &again.in_force), (due.cursor, due.next, &due.in_force));
        Ok(())
    }
}

/// Days before changes of the clocks in the zones of [`policy`].
fn start() -> impl Strategy<Value = i64> {
    let days = vec![
        "2018-02-10T20:11:07Z",
        "2018-11-01T03:03:03Z",
        "2026-03-25T12:00:00Z",
        "2026-10-20T23:59:59Z",
        "2027-04-01T00:00:00Z",
    ];
    select(days).prop_map(|day| day.parse::<Timestamp>().unwrap().as_second())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_slot_is_run_or_said_to_be_skipped(
        policy in policy(), start in start(), steps in prop::collection::vec(calm_step(), 1..60),
    ) {
        let mut world = World::new(policy, start);
        for step in &steps {
            world.take(step)?;
        }
        // The last word on all that is pending; then the books must balance.
        world.take(&Step::Look { seconds: 1 })?;
        let all = world.slots(world.created - SignedDuration::from_secs(1), world.clock());
        let told: BTreeSet<Timestamp> = world.backups.union(&world.skipped).copied().collect();
        prop_assert_eq!(told, all);
        // After a crash the slot may be too late when it comes up again, and be told to be skipped though its Backup is there.
        let both: BTreeSet<Timestamp> = world.backups.intersection(&world.skipped).copied().collect();
        prop_assert!(both.is_subset(&world.unwritten), "{:?}", both);
    }

    #[test]
    fn whatever_happens_no_slot_runs_twice_and_backups_go_on(
        policy in policy(), start in start(), steps in prop::collection::vec(wild_step(), 1..80),
    ) {
        let mut world = World::new(policy, start);
        for step in &steps {
            world.take(step)?;
        }
        // Calm again, the clock right: after the day that a cursor may be ahead, the next slot runs on time.
        world.skew = 0;
        world.spec.suspend = false;
        world.spec.schedule = Some("@every 40m".to_owned());
        world.take(&Step::Look { seconds: 100_000 })?;
        let before = world.backups.len();
        for _ in 0..60 {
            world.take(&Step::Look { seconds: 10 * 60 })?;
        }
        let deadline_is_ample = world.spec.starting_deadline_seconds >= 600;
        prop_assert!(!deadline_is_ample || world.backups.len() >= before + 14, "{} runs in 10 h", world.backups.len() - before);
    }
}

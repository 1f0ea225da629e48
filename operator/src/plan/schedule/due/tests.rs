//! Tables of decisions: what runs, what is skipped and what people read. Pure.

use holdfast_crds::{CompressionSpec, LocalRef, PlausibilitySpec};

use super::*;

const CREATED: &str = "2026-11-01T10:00:00Z";

fn spec(text: &str) -> BackupPolicySpec {
    BackupPolicySpec {
        store_ref: LocalRef { name: "s3".into() },
        schedule: (!text.is_empty()).then(|| text.to_owned()),
        time_zone: "UTC".into(),
        suspend: false,
        run_on_create: false,
        starting_deadline_seconds: 3600,
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

fn so_far(spec: &BackupPolicySpec, cursor: &str) -> SoFar {
    let cursor = (!cursor.is_empty()).then(|| at(cursor));
    let in_force = cursor.map(|_| decide(spec, &SoFar { in_force: None, ..new() }, CREATED).in_force);
    SoFar { cursor, in_force, ..new() }
}

fn new() -> SoFar {
    SoFar { created: at(CREATED), cursor: None, in_force: None, edited: None }
}

fn decide(spec: &BackupPolicySpec, so_far: &SoFar, now: &str) -> Due {
    let schedule = Schedule::of(spec, "seed").unwrap();
    due(spec, schedule.as_ref(), so_far, at(now))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn run(due: &Due) -> String {
    due.run.map_or("-".to_owned(), |slot| slot.to_string())
}

fn missed(due: &Due) -> String {
    due.missed.as_ref().map_or("-".to_owned(), Missed::to_string)
}

#[test]
fn a_slot_runs_when_it_comes_and_once() {
    let spec = spec("0 2 * * *");
    let before = decide(&spec, &so_far(&spec, "2026-11-19T02:00:00Z"), "2026-11-20T01:59:59.999Z");
    assert_eq!((run(&before).as_str(), before.next), ("-", Some(at("2026-11-20T02:00:00Z"))));
    assert_eq!(before.cursor, at("2026-11-19T02:00:00Z"), "nothing to write");
    let due = decide(&spec, &so_far(&spec, "2026-11-19T02:00:00Z"), "2026-11-20T02:00:00Z");
    assert_eq!(run(&due), "2026-11-20T02:00:00Z");
    assert_eq!(missed(&due), "-");
    assert_eq!((due.cursor, due.next), (at("2026-11-20T02:00:00Z"), Some(at("2026-11-21T02:00:00Z"))));
    assert_eq!(due.cursor_without_run, at("2026-11-19T02:00:00Z"));
    let after = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2026-11-20T02:00:01Z");
    assert_eq!((run(&after).as_str(), missed(&after).as_str()), ("-", "-"));
}

#[test]
fn of_missed_slots_the_newest_runs_within_the_deadline() {
    let spec = spec("*/10 * * * *");
    let due = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2026-11-20T02:35:00Z");
    assert_eq!(run(&due), "2026-11-20T02:30:00Z");
    assert_eq!(
        missed(&due),
        "skipped 2 slots, the newest of them 2026-11-20T02:20:00Z: the run of 2026-11-20T02:30:00Z makes up for all that were missed"
    );
}

#[test]
fn the_deadline_is_to_the_second() {
    let spec = spec("0 2 * * *");
    let so_far = so_far(&spec, "2026-11-19T02:00:00Z");
    assert_eq!(run(&decide(&spec, &so_far, "2026-11-20T03:00:00Z")), "2026-11-20T02:00:00Z");
    let late = decide(&spec, &so_far, "2026-11-20T03:00:00.001Z");
    assert_eq!((run(&late).as_str(), late.cursor), ("-", at("2026-11-20T02:00:00Z")));
    assert_eq!(
        missed(&late),
        "skipped the slot of 2026-11-20T02:00:00Z: missed by more than 1h (spec.startingDeadlineSeconds)"
    );
}

#[test]
fn ten_years_down_is_one_run_and_a_bounded_count() {
    let spec = BackupPolicySpec { starting_deadline_seconds: 60, ..spec("* * * * *") };
    let due = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2036-11-20T02:00:30Z");
    assert_eq!(run(&due), "2036-11-20T02:00:00Z");
    assert!(missed(&due).starts_with("skipped more than 100 slots, the newest of them 2036-11-20T01:59:00Z"));
    assert_eq!(due.cursor, at("2036-11-20T02:00:00Z"));
}

#[test]
fn a_suspended_policy_lets_slots_pass_and_makes_up_for_none() {
    let active = spec("0 2 * * *");
    let suspended = BackupPolicySpec { suspend: true, ..active.clone() };
    let due = decide(&suspended, &so_far(&active, "2026-11-19T02:00:00Z"), "2026-11-20T02:00:05Z");
    assert_eq!((run(&due).as_str(), missed(&due).as_str(), due.next), ("-", "-", None));
    // The controller is down while the policy is resumed; the slot of the 21st passed before that.
    let then = SoFar { cursor: Some(due.cursor), in_force: Some(due.in_force), ..new() };
    let resumed = decide(&active, &then, "2026-11-21T02:30:00Z");
    assert_eq!((run(&resumed).as_str(), missed(&resumed).as_str()), ("-", "-"));
    assert_eq!(resumed.cursor, at("2026-11-21T02:30:00Z"));
    assert_eq!(resumed.next, Some(at("2026-11-22T02:00:00Z")));
}

#[test]
fn a_suspended_policy_writes_a_status_once_a_slot_at_most() {
    let spec = BackupPolicySpec { suspend: true, ..spec("0 2 * * *") };
    let due = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2026-11-20T17:00:00Z");
    assert_eq!(due.cursor, at("2026-11-20T02:00:00Z"));
    let due = decide(&spec, &so_far(&spec, "2026-11-20T02:00:00Z"), "2026-11-22T17:00:00Z");
    assert_eq!((due.cursor, missed(&due).as_str()), (at("2026-11-22T02:00:00Z"), "-"));
}

#[test]
fn an_edited_schedule_has_no_slot_before_the_edit() {
    let (old, new_spec) = (spec("0 2 * * *"), spec("0 9 * * *"));
    let so_far = so_far(&old, "2026-11-20T02:00:00Z");
    let due = decide(&new_spec, &so_far, "2026-11-20T09:10:00Z");
    assert_eq!((run(&due).as_str(), missed(&due).as_str()), ("-", "-"));
    assert_eq!((due.cursor, due.next), (at("2026-11-20T09:10:00Z"), Some(at("2026-11-21T09:00:00Z"))));
    // Known to have been edited at 8:30, before the slot of 9:00 that the controller was down for.
    let so_far = SoFar { edited: Some(at("2026-11-20T08:30:00Z")), ..so_far };
    assert_eq!(run(&decide(&new_spec, &so_far, "2026-11-20T09:10:00Z")), "2026-11-20T09:00:00Z");
    // By a clock that is ahead.
    let so_far = SoFar { edited: Some(at("2026-11-20T09:10:30Z")), ..so_far };
    assert_eq!(decide(&new_spec, &so_far, "2026-11-20T09:10:00Z").cursor, at("2026-11-20T09:10:00Z"));
}

#[test]
fn an_edit_of_something_else_loses_no_slot() {
    let old = spec("0 2 * * *");
    let new_spec = BackupPolicySpec { timeout_seconds: 7, ..old.clone() };
    let due = decide(&new_spec, &so_far(&old, "2026-11-19T02:00:00Z"), "2026-11-20T02:10:00Z");
    assert_eq!(run(&due), "2026-11-20T02:00:00Z");
}

#[test]
fn a_clock_set_back_runs_nothing_twice() {
    let spec = spec("*/10 * * * *");
    let due = decide(&spec, &so_far(&spec, "2026-11-20T02:30:00Z"), "2026-11-20T01:35:00Z");
    assert_eq!((run(&due).as_str(), due.cursor), ("-", at("2026-11-20T02:30:00Z")));
    assert_eq!(due.next, Some(at("2026-11-20T02:40:00Z")));
}

#[test]
fn a_cursor_of_a_wrong_clock_does_not_stop_backups_for_years() {
    let spec = spec("0 2 * * *");
    let due = decide(&spec, &so_far(&spec, "2036-11-20T02:00:00Z"), "2026-11-20T09:00:00Z");
    assert_eq!((run(&due).as_str(), due.cursor), ("-", at("2026-11-20T09:00:00Z")));
    assert_eq!(due.next, Some(at("2026-11-21T02:00:00Z")));
    let wait = decide(&spec, &so_far(&spec, "2026-11-21T09:00:00Z"), "2026-11-20T09:00:00Z");
    assert_eq!(wait.cursor, at("2026-11-21T09:00:00Z"), "a day ahead is believed");
    let due = decide(&spec, &so_far(&spec, "2026-11-21T09:00:01Z"), "2026-11-20T09:00:00Z");
    assert_eq!(due.cursor, at("2026-11-20T09:00:00Z"), "more is not");
}

#[test]
fn a_new_policy_starts_with_its_next_slot() {
    let spec = spec("0 2 * * *");
    let due = decide(&spec, &new(), "2026-11-01T10:00:03Z");
    assert_eq!((run(&due).as_str(), due.cursor), ("-", at(CREATED)));
    assert_eq!(run(&decide(&spec, &new(), "2026-11-02T02:00:03Z")), "2026-11-02T02:00:00Z", "seen late");
}

#[test]
fn run_on_create_is_one_slot_more() {
    for text in ["", "0 2 * * *", "0 10 * * *"] {
        let spec = BackupPolicySpec { run_on_create: true, ..spec(text) };
        let due = decide(&spec, &new(), "2026-11-01T10:00:03Z");
        assert_eq!((run(&due).as_str(), missed(&due).as_str()), (CREATED, "-"));
        // The store is not ready: it stays due.
        let waiting = SoFar { cursor: Some(due.cursor_without_run), in_force: Some(due.in_force.clone()), ..new() };
        assert_eq!(run(&decide(&spec, &waiting, "2026-11-01T10:30:00Z")), CREATED);
        let done = SoFar { cursor: Some(due.cursor), in_force: Some(due.in_force), ..new() };
        let after = decide(&spec, &done, "2026-11-01T10:30:00Z");
        assert_eq!((run(&after).as_str(), missed(&after).as_str(), after.cursor), ("-", "-", at(CREATED)));
    }
    let spec = BackupPolicySpec { run_on_create: true, ..spec("*/10 * * * *") };
    let late = decide(&spec, &new(), "2026-11-01T10:21:00Z");
    assert_eq!(run(&late), "2026-11-01T10:20:00Z");
    assert!(missed(&late).starts_with("skipped 2 slots, the newest of them 2026-11-01T10:10:00Z"), "{}", missed(&late));
}

#[test]
fn run_on_create_switched_on_later_or_while_suspended_runs_nothing() {
    let spec = BackupPolicySpec { run_on_create: true, ..spec("0 2 * * *") };
    assert_eq!(run(&decide(&spec, &so_far(&spec, "2026-11-01T10:00:00Z"), "2026-11-01T10:05:00Z")), "-");
    let suspended = BackupPolicySpec { suspend: true, ..spec.clone() };
    let due = decide(&suspended, &new(), "2026-11-01T10:00:03Z");
    assert_eq!(run(&due), "-");
    let then = SoFar { cursor: Some(due.cursor), in_force: Some(due.in_force), ..new() };
    assert_eq!(run(&decide(&spec, &then, "2026-11-01T10:05:00Z")), "-");
}

#[test]
fn the_api_servers_clock_may_be_ahead() {
    let spec = BackupPolicySpec { run_on_create: true, ..spec("") };
    let due = decide(&spec, &new(), "2026-11-01T09:59:58Z");
    assert_eq!((run(&due).as_str(), due.next), ("-", Some(at(CREATED))));
}

#[test]
fn on_demand_only_has_no_slots() {
    let spec = spec("");
    let due = decide(&spec, &new(), "2027-11-01T09:59:58Z");
    assert_eq!((run(&due).as_str(), missed(&due).as_str(), due.next), ("-", "-", None));
    let scheduled = BackupPolicySpec { schedule: Some("0 2 * * *".into()), ..spec };
    let so_far = SoFar { cursor: Some(due.cursor), in_force: Some(due.in_force), ..new() };
    assert_eq!(run(&decide(&scheduled, &so_far, "2027-11-02T02:10:00Z")), "-", "the schedule came with the edit");
}

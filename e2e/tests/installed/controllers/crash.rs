//! The controller is killed at each of its writes in turn, before the API server hears of it and before the reply; started again, it
//! ends up where it would have without, and nothing was done twice.

use holdfast_e2e::bucket::S3;
use holdfast_e2e::controller::{Controller, Settings};
use holdfast_e2e::fault::{At, Fault, Kind};
use holdfast_e2e::objects::{backup, condition, has_ended};
use holdfast_e2e::postgres::Postgres;
use holdfast_e2e::scene::Scene;
use holdfast_e2e::space::Space;
use holdfast_e2e::wait::seconds;
use serde_json::Value;

use super::faults::{NEVER, under};
use super::story::{self, LITTLE, Story, run};

/// Runs at the same time. They mostly wait for Pods.
const AT_ONCE: usize = 6;

#[test]
fn killed_at_any_write_of_backups_with_retention_it_ends_up_where_it_would_have_without() {
    at_every_write(ANY, story::backups_with_retention);
}

#[test]
fn killed_at_any_write_of_a_restore_it_restores_once() {
    at_every_write(RESTORE, story::a_restore);
}

#[test]
fn killed_at_any_write_of_a_restore_that_replaces_the_workload_comes_back_and_what_was_there_is_saved() {
    at_every_write(RESTORE, story::a_restore_that_replaces);
}

/// Every write of a story.
const ANY: &str = "";
/// What a restore is written on first. The writes before it are those of the backup, which has a story of its own.
const RESTORE: &str = " restorerequests/";

/// Plays a story once for each of its writes, from the first one whose words hold `from` on.
fn at_every_write(from: &str, story: Story) {
    let reference = run(story, NEVER);
    let first = reference.writes.iter().position(|write| write.contains(from));
    let first = first.unwrap_or_else(|| panic!("no write on {from}: {:#?}", reference.writes)) + 1;
    // Who comes next finds the same after a kill before the reply to a write as after one before the next is sent: what the killed one
    // knew is gone either way. So these are all the states there are.
    let before = Fault { kind: Kind::KilledBefore, at: At::Write(first) };
    let after = (first..=reference.writes.len()).map(|n| Fault { kind: Kind::KilledAfter, at: At::Write(n) });
    under(story, AT_ONCE, Some(reference), std::iter::once(before).chain(after).collect());
}

#[test]
fn an_image_that_cannot_be_pulled_fails_with_image_pull_failed() {
    let space = Space::without_the_installed("no-image");
    let settings =
        Settings { image: Some("localhost/no-such-image:1".to_owned()), ..Settings::for_namespace(space.name()) };
    let working = Controller::start(&Settings::for_namespace(space.name()));
    let scene = Scene::within(space, S3::shared(), Postgres::shared(18));
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    let good = scene.backup("good", "shop");
    let before = scene.bucket.listing();
    drop(working);

    let _controller = Controller::start(&settings);
    scene.space.apply(&backup("bad", "shop"));
    let bad = scene.space.wait("Backup", "bad", "has ended", seconds(140), has_ended);

    assert_eq!(condition(&bad, "Complete")["reason"], "ImagePullFailed", "{bad:#}");
    assert!(condition(&bad, "Complete")["message"].as_str().unwrap().contains("no-such-image"), "{bad:#}");
    assert_eq!(scene.bucket.listing(), before);
    assert_eq!(scene.space.get("Backup", "good").unwrap()["status"], good["status"]);
}

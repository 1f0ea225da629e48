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

use super::faults::{number, under};
use super::story::{self, LITTLE, Story};

#[test]
fn killed_at_any_write_of_backups_with_retention_it_ends_up_where_it_would_have_without() {
    at_every_write(&story::BACKUPS_WITH_RETENTION, ANY, &[5, 11, 17, 23, 28]);
}

#[test]
fn killed_at_any_write_of_a_restore_it_restores_once() {
    at_every_write(&story::A_RESTORE, RESTORE, &[1, 4]);
}

#[test]
fn killed_at_any_write_of_a_restore_that_replaces_the_workload_comes_back_and_what_was_there_is_saved() {
    at_every_write(&story::A_RESTORE_THAT_REPLACES, RESTORE, &[2, 6, 11]);
}

/// Every write of a story.
const ANY: &str = "";
/// What a restore is written on first. The writes before it are those of the backup, which has a story of its own.
const RESTORE: &str = " restorerequests/";

/// Plays a story with a kill before the first try of each write, with one after it, and with kills after some that are far from each
/// other, counted from the first write whose words hold `from`. With `HOLDFAST_API_FAULTS` each of them is one of these.
fn at_every_write(story: &Story, from: &'static str, some: &[usize]) {
    const KILLS: [Kind; 2] = [Kind::KilledBefore, Kind::KilledAfter];
    let mut runs: Vec<Vec<Fault>> = KILLS.map(|kind| vec![Fault { kind, at: At::EveryFirstTry }]).into();
    if number("HOLDFAST_API_FAULTS").is_some() {
        let writes = story.undisturbed().writes.iter().skip_while(|write| !write.contains(from)).count();
        runs.extend(Fault::spread(&KILLS, from, writes));
    } else {
        let after = |number: &usize| Fault { kind: Kind::KilledAfter, at: At::Write { number: *number, from } };
        runs.push(some.iter().map(after).collect());
    }
    under(story, &runs);
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

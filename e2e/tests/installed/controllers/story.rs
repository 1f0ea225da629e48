//! What controllers of a test's own are led through, and what is left afterwards: the same, whatever goes wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_e2e::bucket::S3;
use holdfast_e2e::controller::{Controller, Settings};
use holdfast_e2e::fault::Fault;
use holdfast_e2e::history::History;
use holdfast_e2e::images::deployment;
use holdfast_e2e::objects::{condition, has_ended, name, phase, restore};
use holdfast_e2e::postgres::Postgres;
use holdfast_e2e::proxy::Proxy;
use holdfast_e2e::scene::Scene;
use holdfast_e2e::space::Space;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

pub const LITTLE: &str = "create table t as select i from generate_series(1, 10) i";
/// Nothing is written for this long once everything is over.
const QUIET: Duration = Duration::from_secs(2);

/// What controllers are led through.
pub struct Story {
    /// Does it, and gives what came of it that the objects do not tell.
    play: fn(&Scene<'_>) -> Value,
    undisturbed: OnceLock<Ran>,
}

/// Two backups, of which the first goes.
pub static BACKUPS_WITH_RETENTION: Story = Story::of(backups_with_retention);
/// A backup, and its restore into a database that is not there.
pub static A_RESTORE: Story = Story::of(a_restore);
/// A backup, and its restore over what is there: a workload is stopped, what is there is saved, the workload comes back.
pub static A_RESTORE_THAT_REPLACES: Story = Story::of(a_restore_that_replaces);

impl Story {
    const fn of(play: fn(&Scene<'_>) -> Value) -> Self {
        Self { play, undisturbed: OnceLock::new() }
    }

    /// How it goes where nothing goes wrong: played once for all tests.
    pub fn undisturbed(&self) -> &Ran {
        self.undisturbed.get_or_init(|| run(self, Vec::new()))
    }
}

fn backups_with_retention(scene: &Scene<'_>) -> Value {
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &json!({"retention": {"keepLast": 1}}));
    // Retention waits until the bucket was read for the policy, and is applied after the newest run alone: so that it is after each of them
    // in every run, each is waited for.
    let has_retained = |run: &str| {
        wait_for(&format!("the retention after {run} is carried out"), seconds(60), || {
            let jobs = scene.space.list("Job");
            let is_it =
                |job: &&Value| label(job, "task") == "retain" && job["metadata"]["ownerReferences"][0]["name"] == run;
            let names = || format!("{:?}", jobs.iter().map(name).collect::<Vec<_>>());
            jobs.iter().find(is_it).map(|_| ()).ok_or_else(names)
        });
    };
    scene.backup("first", "shop");
    has_retained("first");
    scene.backup("second", "shop");
    scene.space.wait_gone("Backup", "first", seconds(120));
    has_retained("second");
    scene.space.wait("BackupPolicy", "shop", "has counted", seconds(60), |p| {
        p["status"]["backups"]["complete"] == 1 && condition(p, "Ready")["status"] == "True"
    });
    scene.postgres.drop_database(&database);
    Value::Null
}

fn a_restore(scene: &Scene<'_>) -> Value {
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("only", "shop");
    let copy = format!("{database}_copy");
    let request =
        restore("undo", &json!({"backup": "only"}), &json!([{"source": "db", "postgres": {"database": copy}}]));
    scene.space.apply(&request);
    scene.space.wait("RestoreRequest", "undo", "has ended", seconds(120), has_ended);
    let rows = scene.postgres.contents(&copy).rows;
    scene.postgres.drop_database(&copy);
    scene.postgres.drop_database(&database);
    json!(rows)
}

fn a_restore_that_replaces(scene: &Scene<'_>) -> Value {
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("only", "shop");
    scene.postgres.sql(&database, "insert into t values (11)");
    scene.space.apply(&deployment("api", 2));
    scene.space.wait("Deployment", "api", "runs", seconds(60), |d| d["status"]["readyReplicas"] == 2);
    let mut request = restore("undo", &json!({"backup": "only"}), &Value::Null);
    request["spec"]["onExisting"] = json!("Replace");
    request["spec"]["scaleDown"] = json!([{"kind": "Deployment", "name": "api"}]);
    scene.space.apply(&request);
    scene.space.wait("RestoreRequest", "undo", "has ended", seconds(120), has_ended);
    let ended = scene
        .space
        .wait("RestoreRequest", "undo", "has brought it back", seconds(60), |r| r["metadata"]["finalizers"].is_null());
    let rows = scene.postgres.contents(&database).rows;
    let api = scene.space.get("Deployment", "api").unwrap();
    scene.postgres.drop_database(&database);
    json!([rows, api["spec"]["replicas"], ended["status"]["scaledDown"]])
}

/// What a run left, without what differs between any two.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    pub objects: BTreeMap<String, String>,
    /// How many Jobs there ever were, by what they were for.
    pub jobs: BTreeMap<String, usize>,
    /// How many Pods there ever were of restores.
    pub pods_of_restores: usize,
    pub keys: BTreeSet<String>,
    pub told: Value,
}

/// A story that was played.
pub struct Ran {
    pub end: End,
    /// The controller's writes.
    pub writes: Vec<String>,
    /// Those that something went wrong at.
    pub struck: Vec<String>,
}

/// Plays a story under a controller of its own, which is started again whenever it ends.
pub fn run(story: &Story, faults: Vec<Fault>) -> Ran {
    let space = Space::without_the_installed("crash");
    let jobs = History::of("Job", &space);
    let pods = History::of("Pod", &space);
    let proxy = Proxy::start(faults);
    let settings = Settings { server: Some(proxy.url()), ..Settings::for_namespace(space.name()) };
    let over = AtomicBool::new(false);
    let scene = Scene::within(space, S3::shared(), Postgres::shared(18));
    let told = std::thread::scope(|scope| {
        let guardian = scope.spawn(|| {
            let mut controller = Controller::start(&settings);
            proxy.aim(controller.pid());
            while !over.load(Ordering::SeqCst) {
                if controller.ended().is_some() {
                    controller = Controller::start(&settings);
                    proxy.aim(controller.pid());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let _end = Last(&over);
        // A policy that comes after its store was probed has the bucket read, and one that was there may not need it: here always the first.
        scene.space.wait("BackupStore", "main", "is Ready", seconds(150), |store| {
            condition(store, "Ready")["status"] == "True"
        });
        let told = (story.play)(&scene);
        wait_for("all Jobs have ended", seconds(60), || {
            let open = scene.space.list("Job").into_iter().filter(|job| job["status"]["completionTime"].is_null());
            let names: Vec<String> = open.map(|job| name(&job).to_owned()).collect();
            if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
        });
        wait_until_quiet(&proxy);
        over.store(true, Ordering::SeqCst);
        guardian.join().unwrap();
        told
    });
    let pods_of_restores = pods.objects().iter().filter(|pod| label(pod, "task") == "restore").count();
    let end =
        End { objects: objects(&scene), jobs: purposes(&jobs.objects()), pods_of_restores, keys: keys(&scene), told };
    scene.bucket.remove();
    Ran { end, writes: proxy.writes(), struck: proxy.struck() }
}

/// What has come to its end stays there.
fn wait_until_quiet(proxy: &Proxy) {
    let mut last = (proxy.writes().len(), Instant::now());
    wait_for("the controller writes nothing any more", seconds(60), || {
        let writes = proxy.writes();
        if writes.len() != last.0 {
            last = (writes.len(), Instant::now());
        }
        if last.1.elapsed() >= QUIET { Ok(()) } else { Err(format!("{:?}", writes.last())) }
    });
}

/// Ends the guardian also when the story fails.
struct Last<'a>(&'a AtomicBool);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn label<'a>(object: &'a Value, what: &str) -> &'a str {
    object["metadata"]["labels"][format!("holdfast.dev/{what}")].as_str().unwrap_or_default()
}

fn purposes(jobs: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for job in jobs {
        let owner = &job["metadata"]["ownerReferences"][0];
        // A store is proved anew whenever it is time to.
        if owner["kind"] != "BackupStore" {
            // What is saved before a restore is named after the request's UID.
            let owner_name = owner["name"].as_str().unwrap_or_default();
            let owner_name = owner_name.split_once("-safety-").map_or(owner_name, |(request, _)| request);
            let purpose = format!("{} {owner_name} {} {}", owner["kind"], label(job, "task"), label(job, "source"));
            *counts.entry(purpose).or_insert(0) += 1;
        }
    }
    counts
}

fn objects(scene: &Scene<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for kind in ["Backup", "RestoreRequest"] {
        for object in scene.space.list(kind) {
            let complete = condition(&object, "Complete");
            let items = &object["status"]["items"];
            let parts = [&object["status"]["artifacts"], &object["status"]["sources"]];
            let part = |part: &Value| format!("{} {} {}", part["source"], part["phase"], part["items"]);
            let parts: Vec<String> = parts.iter().filter_map(|p| p.as_array()).flatten().map(part).collect();
            let end = format!("{} {} {} {items} {parts:?}", phase(&object), complete["status"], complete["reason"]);
            let name = name(&object);
            let name = name.split_once("-safety-").map_or(name, |(request, _)| request);
            all.insert(format!("{kind} {name}"), end);
        }
    }
    for policy in scene.space.list("BackupPolicy") {
        let status = &policy["status"];
        let conditions = ["Ready", "LastBackupSucceeded"].map(|type_| condition(&policy, type_)["status"].to_string());
        all.insert(
            format!("BackupPolicy {}", name(&policy)),
            format!("{} {} {conditions:?}", status["backups"], status["lastBackup"]),
        );
    }
    all
}

/// The keys, with the run and the attempt taken out.
fn keys(scene: &Scene<'_>) -> BTreeSet<String> {
    let backups = scene.space.list("Backup");
    let known =
        |key: &str| backups.iter().find(|b| key.contains(b["status"]["runId"].as_str().unwrap_or("none"))).map(name);
    let known = |key: &str| known(key).map(|name| name.split_once("-safety-").map_or(name, |(request, _)| request));
    let normal = |key: String| {
        if key.contains("/.restores/") {
            return "a restore was carried out".to_owned();
        }
        let run = known(&key).map_or_else(|| format!("unknown run of {key}"), str::to_owned);
        let file = key.rsplit('/').next().unwrap();
        let kind = if file == "manifest.json" { file } else { file.split_once('.').map_or(file, |(_, ending)| ending) };
        format!("{run} {kind}")
    };
    scene.bucket.keys().into_iter().map(normal).collect()
}

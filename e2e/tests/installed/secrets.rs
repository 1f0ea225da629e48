//! Secret values are in Secrets and nowhere else: not in a Pod, an argument, an environment, a log, an event, a status or the bucket.

use holdfast_e2e::bucket::S3;
use holdfast_e2e::command::{kubectl, try_kubectl};
use holdfast_e2e::exec::exec;
use holdfast_e2e::gate::Gate;
use holdfast_e2e::objects::{backup, has_ended, name, phase, restore, secret};
use holdfast_e2e::postgres::Postgres;
use holdfast_e2e::scene::{PROMISE, Scene};
use holdfast_e2e::space::Space;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

/// Characters that a careless quoting would trip over and print.
const PASSWORD: &str = "canary-pässword ':\\\"$x";
const WRONG_PASSWORD: &str = "canary-wrong-password";
const SECRET_KEY: &str = "canarySecretKey/0+9";
/// A part of each that no escaping changes. No namespace may be named so that its random ending makes one of them.
const CANARIES: [&str; 3] = ["canary-p", WRONG_PASSWORD, "canarySecretKey"];

#[test]
fn no_secret_value_is_anywhere_but_in_its_secret() {
    let servers = Space::new("values-servers");
    let postgres = Postgres::launch(&servers, "postgres", 18, PASSWORD);
    let s3 = S3::start_with_secret(&servers, "s3", SECRET_KEY);
    postgres.wait_ready();
    let scene = Scene::within(Space::new("values"), &s3, &postgres);
    let database = postgres.seed("create table t as select 1 as one");

    // A backup held up half-way, to look into its worker.
    scene.policy("shop", &database, &json!({"retention": {"keepLast": 1}}));
    let gate = Gate::before_the_data(&postgres, &database);
    scene.space.apply(&backup("held", "shop"));
    gate.wait_for_a_dump();
    let worker = scene.space.wait_for_running_pod("backup", PROMISE);
    let processes = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline";
    let seen = exec(scene.space.name(), name(&worker), &["bash", "-c", processes], b"");
    assert!(
        seen.text().contains("HOLDFAST_TASK") && seen.text().contains("pg_dump"),
        "the worker was looked into: {seen:?}"
    );
    gate.open();
    let held = scene.space.wait("Backup", "held", "has ended", PROMISE, has_ended);
    assert_eq!(phase(&held), "Completed", "{held:#}");

    // A restore, failures of every kind that quotes what a server said, and a second backup, after which the first is deleted.
    let into = json!([{"source": "db", "postgres": {"database": "restored"}}]);
    scene.try_restore(&restore("restored", &json!({"backup": "held"}), &into));
    scene.try_restore(&restore("not-empty", &json!({"backup": "held"}), &Value::Null));
    scene.backup("second", "shop");
    scene.space.apply(&secret("postgres", &json!({"password": WRONG_PASSWORD})));
    assert_eq!(phase(&scene.try_backup("refused", "shop")), "Failed");
    scene.space.apply(&secret("s3-credentials", &json!({"AWS_ACCESS_KEY_ID": "nobody"})));
    scene.space.apply(&postgres.credentials("postgres"));
    assert_eq!(phase(&scene.try_backup("store-refused", "shop")), "Failed");

    let worker = [("processes of the worker".to_owned(), seen.text())];
    let places = assert_nowhere(&scene, &worker, &CANARIES, &[]);
    let events = places.iter().find(|(place, _)| place == "events.events.k8s.io").expect("events");
    assert!(events.1.contains("SourceRefused"), "{}", events.1);
    // Those of both restores, of the second backup, of the refused one, and the controller's.
    let logs: Vec<&String> =
        places.iter().map(|(place, _)| place).filter(|place| place.starts_with("log of")).collect();
    assert!(logs.len() > 4, "workers' logs were looked at: {logs:?}");
}

/// Looks for canaries, plain and as base64, in all objects but Secrets, in logs of workers and controller and in the bucket, where those
/// of `stored` may be. Gives the places.
pub fn assert_nowhere(
    scene: &Scene<'_>,
    more: &[(String, String)],
    canaries: &[&str],
    stored: &[&str],
) -> Vec<(String, String)> {
    let namespace = scene.space.name();
    let mut places = more.to_vec();
    for kind in kinds_served().into_iter().filter(|kind| kind != "secrets") {
        // Other scenes bring definitions of their own, and take all objects of theirs with them when they end.
        let text = wait_for(&format!("{kind} can be read, or is served no longer"), seconds(60), || {
            let ended = try_kubectl(&["-n", namespace, "get", &kind, "-o", "yaml", "--show-managed-fields"], b"");
            if ended.ok || !kinds_served().contains(&kind) { Ok(ended.text()) } else { Err(ended.stderr) }
        });
        places.push((kind, text));
    }
    // One that has not begun has said nothing yet; whoever asks is refused.
    for pod in scene.space.list("Pod").iter().filter(|pod| pod["status"]["phase"] != "Pending") {
        let ended = try_kubectl(&["-n", namespace, "logs", name(pod), "--all-containers"], b"");
        if ended.ok {
            places.push((format!("log of {}", name(pod)), ended.text()));
        } else {
            // Probes come and go.
            assert!(ended.stderr.contains("NotFound"), "log of {}: {}", name(pod), ended.stderr);
        }
    }
    let controller = ["-n", "holdfast-system", "logs", "-l", "app.kubernetes.io/name=holdfast", "--tail=-1"];
    places.push(("log of the controller".to_owned(), kubectl(&controller)));
    for key in scene.bucket.keys() {
        places.push((format!("s3: {key}"), String::from_utf8_lossy(&scene.bucket.read(&key)).into_owned()));
    }
    for (place, text) in &places {
        for canary in canaries.iter().filter(|canary| !(place.starts_with("s3: ") && stored.contains(canary))) {
            for form in [(*canary).to_owned(), base64(canary)] {
                let at =
                    text.find(&form).map(|at| text[at.saturating_sub(200)..].chars().take(400).collect::<String>());
                assert!(at.is_none(), "a secret value is in {place}: {at:?}");
            }
        }
    }
    places
}

fn kinds_served() -> Vec<String> {
    let kinds = kubectl(&["api-resources", "--namespaced", "--verbs=list", "-o", "name"]);
    kinds.lines().map(str::to_owned).collect()
}

/// As Secrets are written. Cut to whole groups of three bytes, so that it is found whatever follows.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let number = bytes.iter().fold(0_usize, |number, byte| (number << 8) | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(number >> shift) & 63]))
    };
    text.as_bytes().chunks_exact(3).flat_map(group).collect()
}

//! Volumes: files come back with all that belongs to them, also under Pod Security `restricted` and while a Pod uses the claim.

use holdfast_e2e::bucket::S3;
use holdfast_e2e::command::kubectl;
use holdfast_e2e::objects::{backup, condition, has_ended, phase, restore};
use holdfast_e2e::postgres::Postgres;
use holdfast_e2e::scene::{PREFIX, PROMISE, Scene};
use holdfast_e2e::space::Space;
use holdfast_e2e::tools;
use holdfast_e2e::volume::Volume;
use serde_json::{Value, json};

const EVERYTHING: &str = include_str!("../seeds/everything.sh");

fn source(more: &Value) -> Value {
    let mut source = json!({"name": "db", "volume": {"claimName": "uploads"}});
    for (field, value) in more.as_object().into_iter().flatten() {
        source["volume"][field] = value.clone();
    }
    json!([source])
}

fn scene(purpose: &str, level: &str) -> Scene<'static> {
    Scene::within(Space::enforcing(purpose, level), S3::shared(), Postgres::shared(18))
}

#[test]
fn a_claim_in_use_restores_in_place_and_into_one_that_is_made_for_it() {
    let scene = scene("volume", "restricted");
    let uploads = Volume::start(&scene.space, "uploads", 1000);
    uploads.sh(EVERYTHING);
    let before = uploads.contents();
    scene.policy_of("files", &source(&json!({"runAs": {"user": 1000, "group": 1000}})), &Value::Null);
    let backup = scene.backup("monday", "files");
    let artifact = &backup["status"]["artifacts"][0];
    let keys = scene.keys_of(&backup);
    let key = artifact["key"].as_str().unwrap();
    assert!(key.starts_with(&format!("{PREFIX}/{}/files/", scene.space.name())), "{key}");
    assert!(
        keys.iter().any(|key| key.ends_with(".tar.zst")) && keys.iter().any(|key| key.ends_with(".jsonl.zst")),
        "{keys:?}"
    );
    assert!(artifact["items"].as_i64().unwrap() > 2000, "{artifact:#}");
    assert_eq!(uploads.contents(), before, "a backup changes nothing");

    uploads.empty();
    scene.restore(&json!({"backup": "monday"}), &Value::Null);
    assert_eq!(uploads.contents(), before);

    let into = json!([{"source": "db", "volume": {"claimName": "copy", "create": {"size": "1Gi"}}}]);
    let restored = scene.try_restore(&restore("copy", &json!({"backup": "monday"}), &into));
    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    let copy = Volume::open(&scene.space, "copy", 1000);
    assert_eq!(copy.contents(), before);
    assert_eq!(uploads.contents(), before);

    // A target that holds files is left as it is, unless it is to be replaced.
    copy.sh("echo newer >newer; echo changed >private");
    let changed = copy.contents();
    let into = json!([{"source": "db", "volume": {"claimName": "copy"}}]);
    let refused = scene.try_restore(&restore("refused", &json!({"backup": "monday"}), &into));
    assert_eq!(condition(&refused, "Complete")["reason"], "TargetNotEmpty", "{refused:#}");
    assert_eq!(copy.contents(), changed);
    let mut replace = restore("replace", &json!({"backup": "monday"}), &into);
    replace["spec"]["onExisting"] = json!("Replace");
    replace["spec"]["safetyBackup"] = json!(false);
    let replaced = scene.try_restore(&replace);
    assert_eq!(phase(&replaced), "Completed", "{replaced:#}");
    assert_eq!(copy.contents(), before);
}

#[test]
fn files_of_several_owners_come_back_where_root_is_allowed() {
    let scene = scene("volume-root", "privileged");
    let uploads = Volume::start(&scene.space, "uploads", 0);
    uploads.sh(EVERYTHING);
    uploads.sh("chown 1001:2001 private 'hard 1'; chown -h 7:8 dangling; chmod 0 'a folder/small'; chown 1001 empty");
    let before = uploads.contents();
    scene.policy_of("files", &source(&Value::Null), &Value::Null);
    scene.backup("monday", "files");

    uploads.empty();
    scene.restore(&json!({"backup": "monday"}), &Value::Null);

    assert_eq!(uploads.contents(), before);
}

#[test]
fn only_what_is_asked_for_is_saved_and_restored_and_stock_tar_reads_the_rest() {
    let scene = scene("volume-some", "restricted");
    let uploads = Volume::start(&scene.space, "uploads", 65532);
    uploads.sh("mkdir -p photos/2026 cache/deep; echo one >photos/one; echo two >photos/2026/two; echo no >cache/deep/no; echo note >note");
    let globs = json!({"exclude": ["cache/**"], "runAs": {"user": 65532, "group": 65532}});
    scene.policy_of("files", &source(&globs), &Value::Null);
    let backup = scene.backup("monday", "files");

    let key = scene.keys_of(&backup).into_iter().find(|key| key.ends_with(".tar.zst")).unwrap();
    let listing = tools::run(&["tar", "--zstd", "-t"], &scene.bucket.read(&key)).text();
    assert!(listing.contains("photos/2026/two") && listing.contains("note") && !listing.contains("no\n"), "{listing}");

    uploads.empty();
    let into = json!([{"source": "db", "volume": {"paths": ["photos/2026"]}}]);
    let restored = scene.try_restore(&restore("some", &json!({"backup": "monday"}), &into));

    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    assert_eq!(uploads.sh("find . -type f -exec grep -H . {} +"), "./photos/2026/two:two\n");
}

#[test]
fn a_claim_that_is_not_there_fails_with_claim_not_found_and_one_without_a_file_says_so() {
    let scene = scene("volume-none", "restricted");
    scene.policy_of("missing", &source(&json!({"claimName": "nowhere"})), &Value::Null);
    let _empty = Volume::start(&scene.space, "uploads", 65532);
    scene.policy_of("empty", &source(&Value::Null), &Value::Null);
    scene.policy_of("may-be-empty", &source(&json!({"allowEmpty": true})), &Value::Null);
    for policy in ["missing", "empty", "may-be-empty"] {
        scene.space.apply(&backup(policy, policy));
    }
    let ended = |name: &str| scene.space.wait("Backup", name, "has ended", PROMISE, has_ended);
    let missing = ended("missing");
    assert_eq!(condition(&missing, "Complete")["reason"], "ClaimNotFound", "{missing:#}");
    assert!(condition(&missing, "Complete")["message"].as_str().unwrap().contains("nowhere"), "{missing:#}");
    assert_eq!(phase(&ended("empty")), "Failed");
    assert_eq!(phase(&ended("may-be-empty")), "Completed");
}

#[test]
fn what_cannot_be_read_fails_the_backup_or_is_skipped_as_asked() {
    let scene = scene("volume-unreadable", "restricted");
    let uploads = Volume::start(&scene.space, "uploads", 1000);
    uploads.sh("echo open >open; echo closed >closed; chmod 600 closed");
    scene.policy_of("fail", &source(&json!({"runAs": {"user": 2000, "group": 2000}})), &Value::Null);
    scene.policy_of(
        "skip",
        &source(&json!({"runAs": {"user": 2000, "group": 2000}, "onUnreadable": "Skip"})),
        &Value::Null,
    );
    let failed = scene.try_backup("fail", "fail");
    assert_eq!(condition(&failed, "Complete")["reason"], "SourceIncomplete", "{failed:#}");
    assert!(condition(&failed, "Complete")["message"].as_str().unwrap().contains("closed"), "{failed:#}");
    let skipped = scene.backup("skip", "skip");
    assert!(
        skipped["status"].to_string().contains("closed")
            || scene.bucket.manifests()[0].1.to_string().contains("closed")
    );
    let pods = kubectl(&["-n", scene.space.name(), "get", "pods", "-o", "yaml"]);
    assert!(pods.contains("runAsUser: 2000"), "{pods}");
}

//! What the API server takes and what it refuses: the samples in crds/samples, as a user would apply them.

use std::path::{Path, PathBuf};

use holdfast_e2e::command::try_kubectl;
use holdfast_e2e::objects::{backup, restore};
use holdfast_e2e::space::Space;
use serde_json::json;

#[test]
fn every_valid_sample_is_accepted() {
    let space = Space::new("valid");
    for (file, text) in samples("valid") {
        let object: serde_json::Value =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        space.dry_run(&object).unwrap_or_else(|refused| panic!("{}: {}", file.display(), refused.message));
    }
}

#[test]
fn every_invalid_sample_is_refused_with_the_words_it_names_even_where_kubectl_validates_nothing() {
    let space = Space::new("invalid");
    let mut wrong = Vec::new();
    for (file, text) in samples("invalid") {
        let expected = text.lines().find_map(|line| line.strip_prefix("# expect: ")).expect("a line `# expect: …`");
        // The samples name the namespace of the guides.
        let text = text.replace("namespace: shop", &format!("namespace: {}", space.name()));
        let ended = try_kubectl(&["create", "--dry-run=server", "--validate=ignore", "-f", "-"], text.as_bytes());
        if ended.ok || !ended.stderr.contains(expected) {
            wrong.push(format!("{}: expected {expected:?}, got {:?}{:?}", file.display(), ended.text(), ended.stderr));
        }
        if space.dry_run(&serde_saphyr::from_str(&text).unwrap()).is_ok() {
            wrong.push(format!("{}: accepted by a server-side apply", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn applying_the_same_twice_changes_nothing() {
    let space = Space::new("twice");
    for (file, text) in samples("valid") {
        // The samples name the namespace of the guides; some have the same name.
        let text = text.replace("namespace: shop", &format!("namespace: {}", space.name()));
        let apply = || try_kubectl(&["apply", "-f", "-"], text.as_bytes());
        let first = apply();
        // A RestoreRequest and a Backup never change, so another one of the same name is refused.
        if !first.ok {
            continue;
        }
        let second = apply();
        assert!(second.text().trim_end().ends_with(" unchanged"), "{}: {}", file.display(), second.text());
    }
}

#[test]
fn the_spec_of_a_backup_never_changes() {
    let space = Space::new("immutable-backup");
    space.apply(&backup("one", "shop"));
    let refused = space.try_merge("Backup", "one", &json!({"spec": {"policyRef": {"name": "other"}}})).unwrap_err();
    assert!(refused.message.contains("the spec of a Backup never changes"), "{}", refused.message);
    space.merge("Backup", "one", &json!({"metadata": {"labels": {"a": "label"}}}));
}

#[test]
fn the_spec_of_a_restore_request_never_changes() {
    let space = Space::new("immutable-restore");
    space.apply(&restore("one", &json!({"backup": "one"}), &json!(null)));
    let refused =
        space.try_merge("RestoreRequest", "one", &json!({"spec": {"from": {"backup": "other"}}})).unwrap_err();
    assert!(refused.message.contains("the spec of a RestoreRequest never changes"), "{}", refused.message);
}

fn samples(which: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/samples").join(which);
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let all: Vec<_> = files.map(|file| (file.clone(), std::fs::read_to_string(&file).unwrap())).collect();
    assert!(all.len() > 10, "too few samples in {}", folder.display());
    all
}

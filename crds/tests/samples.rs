//! What users copy parses without losing a field, and what must be refused says with which words.

// clippy.toml allows these in test functions; what test functions call is test code too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use holdfast_crds::{Backup, BackupPolicy, BackupStore, RestoreRequest};
use serde_json::Value;

#[test]
fn valid_samples_come_back_from_the_types_with_every_field() {
    let samples = samples("valid");
    for (file, text) in &samples {
        let written = yaml(file, text);
        let parsed = through_the_types(file, &written).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut lost = Vec::new();
        missing(&mut lost, "", &written, &parsed);
        assert!(lost.is_empty(), "{}: lost or changed: {lost:?}", file.display());
    }
    for kind in ["BackupStore", "BackupPolicy", "Backup", "RestoreRequest"] {
        assert!(samples.iter().any(|(file, text)| yaml(file, text)["kind"] == kind), "no sample of a {kind}");
    }
}

#[test]
fn every_engine_has_a_sample() {
    let sources: Vec<holdfast_crds::Source> = samples("valid")
        .iter()
        .map(|(file, text)| yaml(file, text))
        .filter(|sample| sample["kind"] == "BackupPolicy")
        .flat_map(|sample| serde_json::from_value::<BackupPolicy>(sample).unwrap().spec.sources)
        .collect();
    let saved = |engine: &str| sources.iter().filter_map(holdfast_crds::Source::engine).any(|e| e.kind() == engine);
    let crd = serde_json::to_value(holdfast_crds::all()).unwrap();
    let policy = crd.as_array().unwrap().iter().find(|c| c["spec"]["names"]["kind"] == "BackupPolicy").unwrap();
    let item =
        policy.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/sources/items").unwrap();
    // The schema names every engine beside the source's name; a rule refuses those of later versions.
    let rules = item["x-kubernetes-validations"].as_array().unwrap();
    let refused: String = rules
        .iter()
        .filter(|rule| rule["message"].as_str().unwrap().contains("does not know this engine"))
        .map(|rule| rule["rule"].as_str().unwrap())
        .collect();
    for name in item["properties"].as_object().unwrap().keys().filter(|name| *name != "name") {
        let later = refused.contains(&format!("has(self.{name})"));
        assert_eq!(saved(name), !later, "engine {name}: supported engines have a sample, and only they");
    }
}

#[test]
fn invalid_samples_say_with_which_words_they_are_refused() {
    for (file, text) in samples("invalid") {
        let expect = text.lines().next().and_then(|line| line.strip_prefix("# expect: ")).map(str::trim);
        assert!(expect.is_some_and(|e| e.len() > 10), "{}: must start with `# expect: <words>`", file.display());
        let sample = yaml(&file, &text);
        let prefix = match sample["kind"].as_str() {
            Some("BackupStore") => "store-",
            Some("BackupPolicy") => "policy-",
            Some("Backup") => "backup-",
            Some("RestoreRequest") => "restore-",
            other => panic!("{}: a sample of {other:?}", file.display()),
        };
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(prefix), "{name} is named after the rule it breaks, {prefix}…");
    }
}

#[test]
fn every_rule_on_a_spec_has_a_sample_that_breaks_it() {
    let expected: Vec<String> = samples("invalid")
        .into_iter()
        .filter_map(|(_, text)| text.lines().next()?.strip_prefix("# expect: ").map(str::to_owned))
        .collect();
    let mut messages = Vec::new();
    for crd in serde_json::to_value(holdfast_crds::all()).unwrap().as_array().unwrap() {
        collect_messages(&mut messages, &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]);
    }
    assert!(messages.len() > 10);
    for message in messages {
        // A rule about a change cannot be broken by one object alone; the API server reports two equal list entries before our rule.
        let untestable =
            message.contains("never changes") || message.starts_with("each source needs a name of its own");
        assert!(untestable || expected.iter().any(|e| message.contains(e.as_str())), "no sample breaks: {message}");
    }
}

fn collect_messages(messages: &mut Vec<String>, schema: &Value) {
    match schema {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "x-kubernetes-validations" {
                    let rules = field.as_array().unwrap();
                    messages.extend(rules.iter().map(|r| r["message"].as_str().unwrap().to_owned()));
                } else {
                    collect_messages(messages, field);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_messages(messages, item)),
        _ => {}
    }
}

fn through_the_types(file: &Path, written: &Value) -> Result<Value, serde_json::Error> {
    let written = written.clone();
    match written["kind"].as_str() {
        Some("BackupStore") => serde_json::to_value(serde_json::from_value::<BackupStore>(written)?),
        Some("BackupPolicy") => serde_json::to_value(serde_json::from_value::<BackupPolicy>(written)?),
        Some("Backup") => serde_json::to_value(serde_json::from_value::<Backup>(written)?),
        Some("RestoreRequest") => serde_json::to_value(serde_json::from_value::<RestoreRequest>(written)?),
        other => panic!("{}: a sample of {other:?}", file.display()),
    }
}

/// Paths of `wanted` that `found` does not have as they are. What `found` has beside them are defaults.
fn missing(lost: &mut Vec<String>, path: &str, wanted: &Value, found: &Value) {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            for (name, value) in wanted {
                missing(lost, &format!("{path}.{name}"), value, found.get(name).unwrap_or(&Value::Null));
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (i, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                missing(lost, &format!("{path}[{i}]"), wanted, found);
            }
        }
        _ if wanted == found => {}
        _ => lost.push(path.to_owned()),
    }
}

fn yaml(file: &Path, text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn samples(which: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(which);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.into_iter().map(|file| (file.clone(), std::fs::read_to_string(&file).unwrap())).collect()
}

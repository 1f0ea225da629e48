//! The documents keep up with the code: every reason says what to do about it.

// clippy.toml allows these in test functions; what test functions call is test code too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

#[test]
fn every_reason_says_what_to_do_about_it() {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .skip_while(|line| *line != "## Reasons")
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let documented: Vec<String> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let reasons = reasons();
    assert_eq!(documented.iter().collect::<BTreeSet<_>>(), reasons.iter().collect::<BTreeSet<_>>());
    assert_eq!(documented.len(), reasons.len(), "a reason has two rows");
    for (row, name) in rows.iter().zip(&documented) {
        let reason: holdfast_crds::Reason = serde_json::from_value(Value::String(name.clone())).unwrap();
        assert_eq!(row[1], reason.exit_code().map(|c| c.to_string()).unwrap_or_default(), "exit code of {name}");
        let again = reason.retry() == holdfast_crds::Retry::Again;
        // A restore is tried once, whatever its reason.
        assert!(again == (row[2] == "yes") || name == "RestoreFailed", "whether {name} is tried again");
        assert!(!row[3].is_empty(), "{name} has no meaning");
    }
}

/// All reasons, as the schema of a status lists them.
fn reasons() -> Vec<String> {
    let crds = serde_json::to_value(holdfast_crds::all()).unwrap();
    let backup = crds.as_array().unwrap().iter().find(|c| c["spec"]["names"]["kind"] == "Backup").unwrap();
    let path =
        "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/artifacts/items/properties/reason/enum";
    let values = backup.pointer(path).and_then(Value::as_array).unwrap();
    values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

//! `plan/` decides and does nothing else: its sources know no clock, no environment, no client, no chance. Reads source files.
#![allow(clippy::unwrap_used, reason = "it is all tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// What a decision must not know, and what it would bring in.
const FORBIDDEN: [(&str, &str); 18] = [
    ("async ", "waiting"),
    (".await", "waiting"),
    ("tokio::", "waiting"),
    ("::now()", "a clock"),
    ("SystemTime", "a clock"),
    ("Instant", "a clock"),
    ("std::env", "the environment"),
    ("std::fs", "files"),
    ("std::net", "the network"),
    ("std::process", "processes"),
    ("Client", "a client"),
    ("Api<", "a client"),
    ("aws_sdk", "a client"),
    ("fastrand", "chance"),
    ("RandomState", "chance"),
    ("crate::controller", "whoever carries decisions out"),
    ("crate::worker", "whoever carries decisions out"),
    ("crate::engine", "whoever carries decisions out"),
];

#[test]
fn decisions_are_pure() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan"));
    assert!(files.len() > 15, "the sources are elsewhere: {files:?}");
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (word, what) in FORBIDDEN {
                if code.contains(word) {
                    found.push(format!("{}:{}: {word} brings in {what}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_none_or(|n| n != "tests.rs") {
            files.push(path);
        }
    }
    files
}

//! Databases that are newer than this machine's Debian, where `e2e/images/databases.sh` puts them.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is part of tests")]

use std::path::PathBuf;

/// A file of theirs, such as `bin/redis-server`.
pub fn file(name: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/holdfast");
    let file = std::env::var_os("HOLDFAST_CACHE").map_or_else(home, PathBuf::from).join("databases").join(name);
    let Ok(file) = file.canonicalize() else {
        panic!(
            "this test needs a newer database than Debian's: run e2e/images/databases.sh ({} is not there)",
            file.display()
        )
    };
    file
}

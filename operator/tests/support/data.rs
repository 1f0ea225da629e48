//! Where the tests' own servers have their data.

#![allow(clippy::unwrap_used, reason = "it is part of tests")]

/// A new folder for one server: under `HOLDFAST_TEST_DATA` where that is set, so that who runs the tests may name a place in memory.
pub fn folder(server: &str) -> tempfile::TempDir {
    let mut new = tempfile::Builder::new();
    new.prefix(server);
    match std::env::var_os("HOLDFAST_TEST_DATA") {
        Some(place) => new.tempdir_in(place).unwrap(),
        None => new.tempdir().unwrap(),
    }
}

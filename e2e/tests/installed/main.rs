//! Scenarios with the operator as `make install` puts it into a cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod admission;
mod conditions;
mod controllers;
mod deletion;
mod disaster;
mod engines;
mod monitoring;
mod no_false_success;
mod nothing_stays_running;
mod protection;
mod restores;
mod retention;
mod roundtrip;
mod secrets;
mod trust;
mod verification;

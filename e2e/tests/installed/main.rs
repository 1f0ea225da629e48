//! Scenarios with the operator as `make install` puts it into a cluster. They begin in the order of their names: those that wait longest
//! for the cluster come early, so that none of them is alone at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod admission;
mod bucket_trouble;
mod cluster_trouble;
mod conditions;
mod controllers;
mod deletion;
mod disaster;
mod engines;
mod injected;
mod monitoring;
mod no_false_success;
mod protection;
mod refused;
mod restores;
mod retention;
mod roundtrip;
mod secrets;
mod shaped;
mod trust;
mod verification;

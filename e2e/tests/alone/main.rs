//! Scenarios with controllers of their own, while the installed one stands aside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod crash;
mod leader;

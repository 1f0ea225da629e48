//! Decisions: what should happen, as values, from what was observed and the time. Pure.

pub mod retention;
pub mod schedule;

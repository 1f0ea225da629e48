//! Decisions: what should happen, as values, from what was observed and the time. Pure.

pub mod action;
pub mod backup;
pub mod debris;
pub mod found;
pub mod job;
pub mod location;
pub mod lost;
pub mod names;
pub mod observed;
pub mod plausibility;
pub mod policy;
pub mod refused;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod start;
pub mod status;
pub mod store;
pub mod summary;
pub mod suspicion;
pub mod trial;
pub mod turn;
pub mod verdict;
pub mod verify;
pub mod writer;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod mistakes;

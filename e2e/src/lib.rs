//! The harness: drives Holdfast on a real cluster as its users do, with YAML, Helm and kubectl. Talks to the cluster alone.
//!
//! Nothing here knows the operator's types: objects are JSON values, as a user's are YAML. What goes wrong is a panic with a sentence,
//! because a panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::missing_panics_doc, reason = "a panic is how a test fails")]

pub mod bucket;
pub mod cluster;
pub mod command;
pub mod controller;
pub mod definitions;
pub mod exec;
pub mod failure_dump;
pub mod fault;
pub mod gate;
pub mod history;
pub mod images;
pub mod installation;
pub mod mongodb;
pub mod node;
pub mod objects;
pub mod postgres;
pub mod proxy;
mod reaper;
pub mod redis;
pub mod rule;
pub mod scene;
pub mod session;
pub mod space;
pub mod tools;
pub mod volume;
pub mod wait;

//! Holdfast: the controller decides, workers act. `main` picks one of them; ARCHITECTURE.md tells how they fit together.

pub mod archive;
pub mod controller;
pub mod engine;
mod hex;
pub mod plan;
pub mod process;
pub mod store;
pub mod task;
pub mod worker;

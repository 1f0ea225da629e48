//! Scenarios of the engines beside Postgres.

mod config;
mod mongodb;
mod redis;
mod secrets;
mod together;
mod volume;

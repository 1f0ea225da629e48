//! Scenarios with controllers of their own, in namespaces that the installed one is kept out of.

mod crash;
mod faults;
mod leader;
mod story;

//! Scenarios with controllers of their own, in namespaces that the installed one is kept out of.

mod crash;
mod leader;

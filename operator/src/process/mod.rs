//! Child processes, supervised: no shell, a group of their own, killed with their handle. Talks to the operating system.
//!
//! [`run_to_end`] is for a short call with all of its output in memory. [`Tool::spawn`] is for a stream: what [`Tool::take_stdout`] gives is
//! read on a blocking thread to its end, then [`Tool::wait`] says how the tool ended. Dropping the [`Tool`] ends its whole group.

mod pipe;
mod progress;
mod run;
mod tail;
mod tool;

pub use pipe::{PIPE_BYTES, ToolInput, ToolOutput};
pub use progress::{Moving, Progress};
pub use run::{Output, run_to_end};
pub use tail::escape;
pub use tool::{Command, Ended, ProcessError, Tool, settled};

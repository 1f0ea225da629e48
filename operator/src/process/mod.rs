//! Child processes, supervised: no shell, a group of their own, killed with their handle. Talks to the operating system.
//!
//! ```no_run
//! # async fn example() -> Result<(), holdfast::process::ProcessError> {
//! use holdfast::process::{Command, Tool, run_to_end};
//! use std::time::Duration;
//!
//! // A short call, all of its output in memory:
//! let version = run_to_end(&Command::new("pg_dump").arg("--version"), None, Duration::from_secs(10)).await?;
//! assert!(version.ended.success());
//!
//! // A stream: `stdout` is a blocking reader for a blocking thread.
//! let mut tool = Tool::spawn(&Command::new("pg_dump").args(["-Fc", "-Z0"]).env("PGPASSFILE", "/tmp/pgpass"))?;
//! let stdout = tool.take_stdout();
//! // … hand `stdout` on, read it to its end …
//! let ended = tool.wait().await; // at once where it has ended before; dropping `tool` ends the whole group
//! if !ended.success() { eprintln!("pg_dump {}: {}", ended.how(), ended.stderr_tail); }
//! # Ok(()) }
//! ```

mod pipe;
mod progress;
mod run;
mod tail;
mod tool;

pub use pipe::{ToolInput, ToolOutput};
pub use progress::{Moving, Progress};
pub use run::{Output, run_to_end};
pub use tail::escape;
pub use tool::{Command, Ended, ProcessError, Tool, settled};

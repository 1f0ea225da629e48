//! Short calls of a tool with all of their output in memory. Talks to the operating system.

use std::io::{Read, Write};
use std::time::Duration;

use super::tool::{Command, Ended, ProcessError, Tool};

/// Bytes of standard output that a short call may write.
const STDOUT_LIMIT: usize = 32 << 20;

/// What a short call wrote and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// How it ended, with the last lines of its standard error.
    pub ended: Ended,
}

impl Output {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a tool to its end, gives it `stdin` and keeps what it writes (at most 32 MiB).
///
/// # Errors
/// Where it cannot be started, takes longer than `limit`, or writes too much. An exit code other than 0 is no error: see
/// [`Output::ended`].
pub async fn run_to_end(command: &Command, stdin: Option<Vec<u8>>, limit: Duration) -> Result<Output, ProcessError> {
    let program = command.name();
    let command = if stdin.is_some() { command.clone().with_stdin() } else { command.clone() };
    let mut tool = Tool::spawn(&command)?;
    let input = tool.take_stdin().zip(stdin);
    let output = tool.take_stdout();

    // A tool may end without having read its input: that is for its exit code to judge.
    let write = tokio::task::spawn_blocking(move || input.map(|(mut pipe, bytes)| pipe.write_all(&bytes)));
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        output.map_or(Ok(0), |pipe| pipe.take(STDOUT_LIMIT as u64 + 1).read_to_end(&mut bytes)).map(|_| bytes)
    });
    let all = async {
        let read = read.await.map_err(std::io::Error::other).and_then(|read| read);
        let stdout = read.map_err(|error| ProcessError::Read { program: program.clone(), error })?;
        if stdout.len() > STDOUT_LIMIT {
            return Err(ProcessError::TooMuchOutput { program: program.clone(), limit: STDOUT_LIMIT });
        }
        let ended = tool.wait().await;
        Ok(Output { stdout, ended })
    };
    let result = tokio::time::timeout(limit, all)
        .await
        .unwrap_or_else(|_| Err(ProcessError::Timeout { program: program.clone(), limit }));
    drop(tool);
    let _ = write.await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn input_goes_in_and_output_comes_out() {
        let output =
            run_to_end(&Command::new("cat"), Some(vec![b'x'; 2 << 20]), Duration::from_secs(20)).await.unwrap();
        assert!(output.ended.success());
        assert_eq!(output.stdout.len(), 2 << 20);
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_killed() {
        let start = std::time::Instant::now();
        let error = run_to_end(&Command::new("sleep").arg("600"), None, Duration::from_millis(200)).await.unwrap_err();
        assert!(matches!(error, ProcessError::Timeout { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn output_without_end_is_refused() {
        let error = run_to_end(&Command::new("cat").arg("/dev/zero"), None, Duration::from_mins(1)).await.unwrap_err();
        assert!(matches!(error, ProcessError::TooMuchOutput { .. }), "{error}");
    }
}

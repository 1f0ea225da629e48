//! Programs a user would run: kubectl, helm. Talks to the cluster through them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::cluster::cluster;

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Whether it ended with 0.
    pub ok: bool,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// The standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs kubectl to its end, with `input` on its standard input.
pub fn try_kubectl(arguments: &[&str], input: &[u8]) -> Ended {
    run(command("kubectl").args(arguments), input)
}

/// Runs kubectl and gives its standard output.
#[track_caller]
pub fn kubectl(arguments: &[&str]) -> String {
    succeed("kubectl", arguments, &try_kubectl(arguments, b""))
}

/// Runs helm and gives its standard output.
#[track_caller]
pub fn helm(arguments: &[&str]) -> String {
    succeed("helm", arguments, &run(command("helm").args(arguments), b""))
}

/// A program that knows the cluster by KUBECONFIG.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("KUBECONFIG", cluster().kubeconfig());
    command
}

#[track_caller]
fn succeed(program: &str, arguments: &[&str], ended: &Ended) -> String {
    assert!(ended.ok, "{program} {}: {}", arguments.join(" "), ended.stderr);
    ended.text()
}

fn run(command: &mut Command, input: &[u8]) -> Ended {
    let mut child = command
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // Written beside the reading: a program that answers before it has read everything would block both.
    let output = std::thread::scope(|scope| -> Output {
        if let Some(mut stdin) = child.stdin.take() {
            scope.spawn(move || stdin.write_all(input));
        }
        child.wait_with_output().unwrap()
    });
    Ended {
        ok: output.status.success(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

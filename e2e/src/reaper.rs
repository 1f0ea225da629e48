//! What is put right after a test process, however it ends.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Stdio};
use std::sync::{Mutex, OnceLock};

use crate::command::command;

/// Starts `kubectl … -f -` in a process group of its own. It reads one document, which ends when this process does, by whatever means,
/// and only then does it have something to act on. What is returned takes the document and must be kept.
#[allow(clippy::zombie_processes, reason = "it outlives this process")]
pub(crate) fn kubectl_at_exit(arguments: &[&str], document: &str) -> ChildStdin {
    let mut child = command("kubectl")
        .args(arguments)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("kubectl");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(document.as_bytes()).unwrap();
    stdin
}

/// Deletes this object, which is in no namespace, once the process has ended, if it is still there.
pub(crate) fn delete_at_exit(kind: &str, name: &str) {
    static LIST: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let list = LIST.get_or_init(|| {
        let arguments = ["delete", "--ignore-not-found", "--wait=false"];
        Mutex::new(kubectl_at_exit(&arguments, "apiVersion: v1\nkind: List\nitems:\n"))
    });
    let line = format!("- {{apiVersion: v1, kind: {kind}, metadata: {{name: {name}}}}}\n");
    list.lock().unwrap().write_all(line.as_bytes()).unwrap();
}

//! One child process and its handle. Talks to the operating system.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::pipe::{EndedAt, ToolInput, ToolOutput};
use super::tail::Tail;

/// How long a dropped tool may take to end by itself: pg_dump and pg_restore cancel what they have under way at the server, which would
/// go on there (and hold its locks) if they were just killed.
const END_GRACE: Duration = Duration::from_secs(2);
/// How long the end of standard error is waited for after the tool has ended (a grandchild may hold it open).
const STDERR_GRACE: Duration = Duration::from_secs(2);

/// What to run. The environment is empty but for `PATH` (ours), `LC_ALL=C`, `HOME=/nonexistent` and what [`Command::env`] adds; secrets
/// belong into files, never into arguments or environment.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: bool,
}

impl Command {
    /// A program, looked up in `PATH` unless it has a slash.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { program: program.as_ref().to_owned(), args: Vec::new(), env: Vec::new(), stdin: false }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// One more variable; the last one of a name counts.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// More variables.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        self.env.extend(variables.into_iter().map(|(n, v)| (n.as_ref().to_owned(), v.as_ref().to_owned())));
        self
    }

    /// Its standard input is a pipe ([`Tool::take_stdin`]); else it is empty.
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// The program's name without its folder, for messages.
    pub fn name(&self) -> String {
        std::path::Path::new(&self.program)
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    fn to_std(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .envs(self.env.iter().map(|(n, v)| (n, v)))
            .stdin(if self.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }
}

/// Why a tool could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program cannot be started.
    #[error("cannot start {program}: {error}")]
    Spawn {
        /// Its name.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// It took too long and was killed.
    #[error("{program} did not end within {} s and was killed", limit.as_secs())]
    Timeout {
        /// Its name.
        program: String,
        /// The limit.
        limit: Duration,
    },
    /// It wrote more than is kept in memory.
    #[error("{program} wrote more than {limit} bytes")]
    TooMuchOutput {
        /// Its name.
        program: String,
        /// The limit.
        limit: usize,
    },
    /// Its output cannot be read.
    #[error("cannot read what {program} writes: {error}")]
    Read {
        /// Its name.
        program: String,
        /// Why.
        error: io::Error,
    },
}

/// How a tool ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The last lines of its standard error: at most 4 KiB, control characters escaped.
    pub stderr_tail: String,
}

impl Ended {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// How it ended, in words: `exited with 1`, `was killed by SIGKILL`.
    pub fn how(&self) -> String {
        match (self.code, self.signal.map(|s| (s, Signal::try_from(s)))) {
            (_, Some((_, Ok(signal)))) => format!("was killed by {signal}"),
            (_, Some((number, Err(_)))) => format!("was killed by signal {number}"),
            (Some(code), None) => format!("exited with {code}"),
            (None, None) => "ended in an unknown way".to_owned(),
        }
    }
}

/// Children that have not been reaped yet.
static LIVING: AtomicUsize = AtomicUsize::new(0);

/// Waits until every dropped tool has ended, or for `limit`. A process that exits before takes its tools with it at once.
pub async fn settled(limit: Duration) {
    let start = Instant::now();
    while LIVING.load(Ordering::Relaxed) > 0 && start.elapsed() < limit {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A running child process. Dropping it ends its whole process group: SIGTERM, and SIGKILL two seconds later. The operating system kills
/// it where we die ourselves.
#[derive(Debug)]
pub struct Tool {
    name: String,
    group: Pid,
    stdin: Option<ToolInput>,
    stdout: Option<ToolOutput>,
    exited: watch::Receiver<Option<Exit>>,
    stderr: Arc<Mutex<Tail>>,
    stderr_open: watch::Receiver<bool>,
    ended: EndedAt,
    // Its drop lets the waiting thread reap the child: until then the group's number stays ours and can be killed safely.
    unreaped: Option<Sender<()>>,
}

#[derive(Clone, Copy, Debug)]
struct Exit {
    code: Option<i32>,
    signal: Option<i32>,
}

impl Tool {
    /// Starts a program.
    ///
    /// # Errors
    /// [`ProcessError::Spawn`] where there is no such program or the system has no room for it.
    pub fn spawn(command: &Command) -> Result<Self, ProcessError> {
        let name = command.name();
        let refuse = |error| ProcessError::Spawn { program: command.name(), error };
        let mut child = spawn_on_lasting_thread(command.to_std()).map_err(refuse)?;
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
        let ended = EndedAt::default();
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take();

        // From here on the child is reaped, whatever happens.
        let (unreaped, release) = channel();
        let (tell_exit, exited) = watch::channel(None);
        let (tail, stderr_open) = drain(stderr).map_err(refuse)?;
        watch_over(child, group, tell_exit, ended.clone(), release).map_err(refuse)?;

        let mut tool = Self {
            name,
            group,
            stdin: None,
            stdout: None,
            exited,
            stderr: tail,
            stderr_open,
            ended: ended.clone(),
            unreaped: Some(unreaped),
        };
        tool.stdin = stdin.map(|fd| ToolInput::new(fd, ended.clone())).transpose().map_err(refuse)?;
        tool.stdout = stdout.map(|fd| ToolOutput::new(fd, ended)).transpose().map_err(refuse)?;
        Ok(tool)
    }

    /// The program's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its standard output, once.
    pub fn take_stdout(&mut self) -> Option<ToolOutput> {
        self.stdout.take()
    }

    /// Its standard input, once, if the command asked for it.
    pub fn take_stdin(&mut self) -> Option<ToolInput> {
        self.stdin.take()
    }

    /// Waits for its end. Read its output to the end first (or drop it): a tool with a full pipe never ends. May be called again.
    pub async fn wait(&mut self) -> Ended {
        let exit = self.exited.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        let _ = tokio::time::timeout(STDERR_GRACE, self.stderr_open.wait_for(|open| !open)).await;
        let stderr_tail = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text();
        Ended { code: exit.and_then(|e| e.code), signal: exit.and_then(|e| e.signal), stderr_tail }
    }

    /// Asks its whole group to end (SIGTERM), which lets a tool cancel what it has under way at a server. Dropping it kills.
    pub fn terminate(&self) {
        let _ = killpg(self.group, Signal::SIGTERM);
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // The child is not reaped before `unreaped` is dropped, so the number cannot belong to anyone else by now.
        let (group, ended, unreaped) = (self.group, self.ended.clone(), self.unreaped.take());
        if ended.get().is_none() && killpg(group, Signal::SIGTERM).is_ok() {
            let kill = move || {
                let told = Instant::now();
                while ended.get().is_none() && told.elapsed() < END_GRACE {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let _ = killpg(group, Signal::SIGKILL);
                drop(unreaped);
            };
            if std::thread::Builder::new().name("process-end".into()).spawn(kill).is_ok() {
                return;
            }
        }
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// PR_SET_PDEATHSIG speaks of the parent's *thread*: children are started by a thread that lives as long as we do, not by one of a
/// pool that may end early and would take them with it.
fn spawn_on_lasting_thread(command: std::process::Command) -> io::Result<Child> {
    type Job = (std::process::Command, Sender<io::Result<Child>>);
    static STARTER: OnceLock<Option<Mutex<Sender<Job>>>> = OnceLock::new();

    let gone = || io::Error::other("the thread that starts processes is gone");
    let starter = STARTER.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        let start = move || {
            for (mut command, answer) in queue {
                let _ = answer.send(spawn_bound_to_us(&mut command));
            }
        };
        std::thread::Builder::new().name("process-starter".into()).spawn(start).ok().map(|_| Mutex::new(jobs))
    });
    let (answer, result) = channel();
    let jobs = starter.as_ref().ok_or_else(gone)?;
    jobs.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

#[allow(unsafe_code, reason = "the only way to have the kernel end a child with its parent")]
fn spawn_bound_to_us(command: &mut std::process::Command) -> io::Result<Child> {
    let us = nix::unistd::getpid();
    let bind = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // We may have died between fork and prctl.
        if nix::unistd::getppid() == us { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe things may happen: `bind` makes two system calls and allocates nothing.
    unsafe { command.pre_exec(bind) };
    command.spawn()
}

fn watch_over(
    mut child: Child,
    pid: Pid,
    tell_exit: watch::Sender<Option<Exit>>,
    ended: EndedAt,
    release: Receiver<()>,
) -> io::Result<()> {
    let watch = move || {
        let exit = loop {
            // Does not reap: the group's number must stay taken for as long as somebody may kill it.
            match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(WaitStatus::Exited(_, code)) => break Exit { code: Some(code), signal: None },
                Ok(WaitStatus::Signaled(_, signal, _)) => break Exit { code: None, signal: Some(signal as i32) },
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => break Exit { code: None, signal: None },
            }
        };
        let _ = ended.set(Instant::now());
        tell_exit.send_replace(Some(exit));
        let _ = release.recv();
        let _ = child.wait();
        LIVING.fetch_sub(1, Ordering::Relaxed);
    };
    LIVING.fetch_add(1, Ordering::Relaxed);
    let watching = std::thread::Builder::new().name("process-watch".into()).spawn(watch).map(|_| ());
    if watching.is_err() {
        LIVING.fetch_sub(1, Ordering::Relaxed);
    }
    watching
}

type Drained = (Arc<Mutex<Tail>>, watch::Receiver<bool>);

fn drain(stderr: Option<ChildStderr>) -> io::Result<Drained> {
    let tail = Arc::new(Mutex::new(Tail::default()));
    let (tell_open, open) = watch::channel(stderr.is_some());
    if let Some(mut stderr) = stderr {
        let tail = tail.clone();
        let read = move || {
            let mut buffer = vec![0; 8192];
            loop {
                match stderr.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => tail.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..n]),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            tell_open.send_replace(false);
        };
        std::thread::Builder::new().name("process-stderr".into()).spawn(read)?;
    }
    Ok((tail, open))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn shell(script: &str) -> Command {
        // A shell as the tool under test: the product starts none.
        Command::new("/bin/sh").args(["-c", script])
    }

    fn is_gone(pid: i32) -> bool {
        // A zombie counts as gone: it runs nothing any more.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[tokio::test]
    async fn bytes_pass_unchanged_and_the_exit_code_is_told() {
        let mut tool = Tool::spawn(&shell("cat; echo bye >&2; exit 3").with_stdin()).unwrap();
        let (mut stdin, mut stdout) = (tool.take_stdin().unwrap(), tool.take_stdout().unwrap());
        let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            stdout.read_to_end(&mut read).unwrap();
            read
        });
        writer.join().unwrap();
        assert!(reader.join().unwrap() == expected);
        let ended = tool.wait().await;
        assert_eq!((ended.code, ended.stderr_tail.as_str()), (Some(3), "bye"));
        assert_eq!(ended.how(), "exited with 3");
        assert_eq!(tool.wait().await, ended);
    }

    #[tokio::test]
    async fn the_environment_is_ours_alone() {
        let mut tool = Tool::spawn(&Command::new("env").env("PGHOST", "db").env("HOME", "/tmp/x")).unwrap();
        let mut text = String::new();
        tool.take_stdout().unwrap().read_to_string(&mut text).unwrap();
        let mut names: Vec<_> = text.lines().filter_map(|l| l.split_once('=')).map(|(n, _)| n).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LC_ALL", "PATH", "PGHOST"]);
        assert!(text.contains("HOME=/tmp/x\n"));
        assert!(tool.wait().await.success());
    }

    #[tokio::test]
    async fn dropping_it_kills_grandchildren_too() {
        let mut tool = Tool::spawn(&shell("sleep 600 & echo $!; sleep 600")).unwrap();
        let mut stdout = tool.take_stdout().unwrap();
        let mut text = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            text.push(byte[0]);
        }
        let grandchild: i32 = String::from_utf8(text).unwrap().parse().unwrap();
        let child = tool.group.as_raw();
        assert!(!is_gone(grandchild));
        drop(tool);
        until("the grandchild's end", || is_gone(grandchild));
        until("the child's end", || is_gone(child));
        assert_eq!(stdout.read(&mut byte).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_grandchild_left_behind_is_killed_after_its_parent_has_ended() {
        let mut tool = Tool::spawn(&shell("sleep 600 >/dev/null 2>&1 & echo $!")).unwrap();
        let mut text = String::new();
        tool.take_stdout().unwrap().read_to_string(&mut text).unwrap();
        let grandchild: i32 = text.trim().parse().unwrap();
        assert!(tool.wait().await.success());
        assert!(!is_gone(grandchild));
        drop(tool);
        until("the grandchild's end", || is_gone(grandchild));
    }

    #[tokio::test]
    async fn a_dropped_tool_may_end_by_itself_and_is_killed_if_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("cancelled");
        let polite =
            format!("trap 'echo x > {}; exit 0' TERM; echo; while :; do sleep 600 & wait $!; done", mark.display());
        for (script, ends_itself) in [(polite.as_str(), true), ("trap '' TERM; echo; while :; do sleep 1; done", false)]
        {
            let mut tool = Tool::spawn(&shell(script)).unwrap();
            tool.take_stdout().unwrap().read_exact(&mut [0]).unwrap();
            let child = tool.group.as_raw();
            drop(tool);
            until("the child's end", || is_gone(child));
            assert_eq!(std::fs::remove_file(&mark).is_ok(), ends_itself);
        }
    }

    #[tokio::test]
    async fn a_signal_is_told_by_name() {
        let mut tool = Tool::spawn(&shell("kill -9 $$")).unwrap();
        let ended = tool.wait().await;
        assert_eq!((ended.code, ended.signal), (None, Some(9)));
        assert_eq!(ended.how(), "was killed by SIGKILL");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Tool::spawn(&Command::new("/no/such/pg_dump")).unwrap_err();
        assert_eq!(error.to_string(), "cannot start pg_dump: No such file or directory (os error 2)");
    }

    #[tokio::test]
    async fn a_tool_that_ends_without_reading_breaks_the_pipe() {
        let mut tool = Tool::spawn(&shell("exit 0").with_stdin()).unwrap();
        let mut stdin = tool.take_stdin().unwrap();
        tool.wait().await;
        let error = stdin.write_all(&vec![0; 4 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn standard_error_without_end_blocks_nothing() {
        let mut tool = Tool::spawn(&shell("head -c 3000000 /dev/zero | tr '\\0' e >&2; echo; exit 1")).unwrap();
        let ended = tool.wait().await;
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr_tail.starts_with("eeee") && ended.stderr_tail.len() < 600);
    }
}

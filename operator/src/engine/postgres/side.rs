//! A second session that copies rows of large tables beside pg_restore's. Talks to the server through psql.

use std::io::{self, BufRead, BufReader, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;
use tracing::warn;

use super::pour::{OPTIONS, Pour, farewell, start};
use crate::archive::pgdump::lanes::{FIRST, Lanes, Table};
use crate::process::{Command, Ended, PIPE_BYTES, Tool, ToolInput, ToolOutput};

/// Pieces of rows that wait for the second session: what it does not keep up with stays with the first.
const WAITING: usize = 4;
/// What psql answers with.
const ANSWER: &str = "done";
/// As pg_restore sets its own session.
const BEGINNING: &str =
    "SET standard_conforming_strings = on;\nSET search_path = '';\nSET row_security = off;\nSET xmloption = content;\n";

// pg_restore makes all tables before it reads rows, and reads a table's once more of them are written than its pipe and its buffer hold:
// the second session finds the table.
const _: () = assert!(FIRST as u64 >= 2 * PIPE_BYTES as u64, "a table may be missing when its rows come");

/// The second session, which begins when there are rows for it. Dropping it ends it.
pub(super) struct Side {
    shared: Arc<Shared>,
}

struct Shared {
    command: Command,
    /// psql, once it has begun.
    tool: Mutex<Option<Tool>>,
    broke: AtomicBool,
}

enum Job {
    Copy(Table),
    Rows(Vec<u8>),
    Settle(Sender<()>),
}

impl Side {
    /// A session that has not begun.
    pub fn new(pour: &Pour<'_>) -> Self {
        let command = pour.server.psql(pour.database, OPTIONS).with_stdin();
        Self { shared: Arc::new(Shared { command, tool: Mutex::default(), broke: AtomicBool::new(false) }) }
    }

    /// Where an archive goes: into pg_restore's input and into this session's.
    pub fn beside(&self, archive: ToolInput) -> impl Lanes + Send + use<> {
        BothLanes { archive, shared: self.shared.clone(), session: Session::NotYet }
    }

    /// Whether it was this session that stopped taking rows.
    pub fn broke(&self) -> bool {
        self.shared.broke.load(Ordering::Acquire)
    }

    /// How it ended, once it has carried out everything; none where it never began, or where it is not to go on.
    pub async fn end(self, go_on: bool) -> Option<(Tool, Ended)> {
        let mut tool = self.shared.take_tool()?;
        if !go_on {
            farewell(&mut tool).await;
            return None;
        }
        let ended = tool.wait().await;
        Some((tool, ended))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.shared.take_tool());
    }
}

impl Shared {
    fn take_tool(&self) -> Option<Tool> {
        self.tool.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Logs in. None where that fails, as at a limit of connections: one session restores as much, and takes longer.
    fn begin(self: &Arc<Self>) -> Option<SyncSender<Job>> {
        let (mut tool, input) = match start(&self.command) {
            Ok(started) => started,
            Err(failure) => {
                warn!("one session restores alone: {failure}");
                return None;
            }
        };
        let mut psql = Psql { input, output: BufReader::new(tool.take_stdout()?) };
        let greeted = psql.input.write_all(BEGINNING.as_bytes()).and_then(|()| psql.answer());
        if greeted.is_err() {
            tokio::spawn(async move { warn!("one session restores alone: {}", tool.wait().await.stderr_tail) });
            return None;
        }
        *self.tool.lock().unwrap_or_else(PoisonError::into_inner) = Some(tool);
        let (jobs, queue) = sync_channel(WAITING);
        let shared = self.clone();
        spawn_blocking(move || psql.work(&queue, &shared.broke));
        Some(jobs)
    }
}

struct Psql {
    input: ToolInput,
    output: BufReader<ToolOutput>,
}

impl Psql {
    /// Carries out what is in the queue until nobody can add to it, or until psql is gone.
    fn work(mut self, queue: &Receiver<Job>, broke: &AtomicBool) {
        for job in queue {
            if self.carry_out(&job).is_err() {
                // Told before the job goes, for whose end somebody may wait.
                broke.store(true, Ordering::Release);
                return;
            }
        }
    }

    fn carry_out(&mut self, job: &Job) -> io::Result<()> {
        match job {
            Job::Copy(Table { copy, encoding }) => {
                self.input.write_all(format!("SET client_encoding = '{encoding}';\n{copy}").as_bytes())
            }
            Job::Rows(rows) => self.input.write_all(rows),
            Job::Settle(settled) => {
                self.input.write_all(b"\\.\n")?;
                self.answer()?;
                // Whoever has waited for it may be gone.
                let _ = settled.send(());
                Ok(())
            }
        }
    }

    /// Returns once everything before this has been carried out.
    fn answer(&mut self) -> io::Result<()> {
        self.input.write_all(format!("SELECT '{ANSWER}';\n").as_bytes())?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.trim_end() == ANSWER { Ok(()) } else { Err(gone()) }
    }
}

/// The inputs of both sessions.
struct BothLanes {
    archive: ToolInput,
    shared: Arc<Shared>,
    session: Session,
}

enum Session {
    NotYet,
    Begun { jobs: SyncSender<Job>, copying: bool },
    Refused,
}

impl Lanes for BothLanes {
    fn archive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.archive.write_all(bytes)
    }

    fn aside(&mut self, table: &Table, rows: &mut Vec<u8>) -> io::Result<()> {
        if matches!(self.session, Session::NotYet) {
            self.session = self.shared.begin().map_or(Session::Refused, |jobs| Session::Begun { jobs, copying: false });
        }
        let Session::Begun { jobs, copying } = &mut self.session else { return Ok(()) };
        if !*copying {
            jobs.send(Job::Copy(table.clone())).map_err(|_| gone())?;
            *copying = true;
        }
        match jobs.try_send(Job::Rows(std::mem::take(rows))) {
            Err(TrySendError::Full(Job::Rows(back))) => *rows = back,
            Err(_) => return Err(gone()),
            Ok(()) => {}
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        let Session::Begun { jobs, copying } = &mut self.session else { return Ok(()) };
        if !std::mem::take(copying) {
            return Ok(());
        }
        let (settled, wait) = channel();
        jobs.send(Job::Settle(settled)).map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

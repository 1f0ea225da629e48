//! Pours an artifact into a database: bytes from the source through pg_restore or psql. Talks to the server through its tools.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_crds::Reason;

use super::clients::Client;
use super::connection::connection_string;
use super::dump::SQL;
use super::prove::inspector;
use super::server::Server;
use super::side::Side;
use super::trouble::{self, Trouble};
use crate::archive::pgdump::lanes::Splitter;
use crate::archive::pgdump::rewrite::{Change, Rewriter};
use crate::engine::{ArtifactSource, Inspect, Inspection};
use crate::process::{Command, Ended, Tool, ToolInput, ToolOutput};
use crate::store::manifest::ArtifactEntry;
use crate::task::Failure;

/// A restore need not wait for the disk after each statement: nothing counts before the last one, which does wait.
pub(super) const OPTIONS: &str = " -c synchronous_commit=off -c maintenance_work_mem=128MB";
/// How long a tool may take to cancel what it has under way at the server before it is killed.
const FAREWELL: Duration = Duration::from_secs(10);
/// A setting that tools since version 17 write near the beginning, and that older servers do not know.
const UNKNOWN_SETTING: &[u8] = b"\nSET transaction_timeout = 0;\n";
/// How far from the beginning it may be.
const BEGINNING: usize = 4096;

/// How to pour.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent choices, not a state")]
pub(super) struct Pour<'a> {
    /// The server.
    pub server: &'a Server,
    /// Its tools.
    pub client: &'a Client,
    /// The database to fill.
    pub database: &'a str,
    /// All or nothing. Else each statement is committed by itself, and a second session may copy rows beside the first.
    pub one_transaction: bool,
    /// Keep owners and grants.
    pub keep_owners: bool,
    /// Keep tablespaces.
    pub keep_tablespaces: bool,
    /// The text was written by a tool that sets what this server does not know.
    pub drop_unknown_setting: bool,
    /// What to change in an archive's table of contents.
    pub changes: &'a BTreeMap<i64, Change>,
}

impl Pour<'_> {
    /// Fills the database; what passed is looked at on its way.
    pub async fn pour(
        &self,
        entry: &ArtifactEntry,
        source: &mut impl ArtifactSource,
    ) -> Result<(u64, Inspection), Failure> {
        let inspect = inspector(entry)?;
        if entry.format == SQL {
            return self.sql(entry, inspect, source).await;
        }
        if self.client.sets_unknown_timeout(self.server.facts.major()) {
            self.archive_as_sql(entry, inspect, source).await
        } else {
            self.archive(entry, inspect, source).await
        }
    }

    fn pg_restore(&self) -> Command {
        let mut command = self.server.tool(&self.client.tool("pg_restore"), self.database, OPTIONS).with_stdin();
        command = command.args(["--exit-on-error", "--no-password"]);
        if !self.keep_owners {
            command = command.args(["--no-owner", "--no-privileges"]);
        }
        if !self.keep_tablespaces {
            command = command.arg("--no-tablespaces");
        }
        command
    }

    async fn archive(
        &self,
        entry: &ArtifactEntry,
        inspect: Box<dyn Inspect>,
        source: &mut impl ArtifactSource,
    ) -> Result<(u64, Inspection), Failure> {
        let mut command = self.pg_restore().arg(format!("--dbname={}", connection_string(self.database)));
        if self.one_transaction {
            command = command.arg("--single-transaction");
        }
        let (mut tool, input) = start(&command)?;
        let broke = Arc::new(AtomicBool::new(false));
        let side = (!self.one_transaction).then(|| Side::new(self));
        let sink: Box<dyn Write + Send> = match &side {
            None => Box::new(Watched { inner: input, broke: broke.clone() }),
            Some(side) => Box::new(Watched { inner: Splitter::new(side.beside(input)), broke: broke.clone() }),
        };
        let sink = self.changed(sink);
        let fetched = source.fetch(entry, sink, inspect).await;
        if let Some(side) = side {
            let side_broke = side.broke();
            let ended = side.end(fetched.is_ok() || side_broke).await;
            if let Some((psql, ended)) = ended.filter(|(_, ended)| side_broke || !ended.success()) {
                farewell(&mut tool).await;
                return Err(self.failed(&psql, &ended, &trouble::of_psql(&ended.stderr_tail)));
            }
        }
        match fetched {
            Err(failure) if !broke.load(Ordering::Acquire) => {
                farewell(&mut tool).await;
                Err(failure)
            }
            fetched => {
                let ended = tool.wait().await;
                if !ended.success() {
                    return Err(self.failed(&tool, &ended, &trouble::of_tool(&ended.stderr_tail)));
                }
                fetched
            }
        }
    }

    /// The archive turned into SQL, without what the server does not know, for psql.
    async fn archive_as_sql(
        &self,
        entry: &ArtifactEntry,
        inspect: Box<dyn Inspect>,
        source: &mut impl ArtifactSource,
    ) -> Result<(u64, Inspection), Failure> {
        // pg_restore writes BEGIN and COMMIT itself, the latter once it has read everything: around large objects it would else end a
        // transaction of ours.
        let mut command = self.pg_restore().arg("--file=-");
        if self.one_transaction {
            command = command.arg("--single-transaction");
        }
        let (mut writer, input) = start(&command)?;
        let output = writer.take_stdout();
        let mut psql = Psql::start(self, true, false)?;
        let text = psql.text();
        let copied = tokio::task::spawn_blocking(move || copy(output, text));
        let broke = Arc::new(AtomicBool::new(false));
        let sink = self.changed(Box::new(Watched { inner: input, broke: broke.clone() }));
        let fetched = source.fetch(entry, sink, inspect).await;
        if fetched.is_err() && !broke.load(Ordering::Acquire) {
            farewell(&mut writer).await;
            psql.abandon().await;
            return fetched;
        }
        let copied = copied.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if copied.is_err() {
            return Err(psql.failure(self).await);
        }
        let ended = writer.wait().await;
        if !ended.success() {
            psql.abandon().await;
            return Err(self.failed(&writer, &ended, &trouble::of_tool(&ended.stderr_tail)));
        }
        psql.commit(self).await?;
        fetched
    }

    async fn sql(
        &self,
        entry: &ArtifactEntry,
        inspect: Box<dyn Inspect>,
        source: &mut impl ArtifactSource,
    ) -> Result<(u64, Inspection), Failure> {
        let mut psql = Psql::start(self, self.drop_unknown_setting, self.one_transaction)?;
        let broke = Arc::new(AtomicBool::new(false));
        let input = Watched { inner: psql.text(), broke: broke.clone() };
        match source.fetch(entry, Box::new(input), inspect).await {
            Err(_) if broke.load(Ordering::Acquire) => Err(psql.failure(self).await),
            Err(failure) => {
                psql.abandon().await;
                Err(failure)
            }
            Ok(fetched) => {
                psql.commit(self).await?;
                Ok(fetched)
            }
        }
    }

    /// An archive's way to pg_restore, with what is to change.
    fn changed(&self, sink: Box<dyn Write + Send>) -> Box<dyn Write + Send> {
        if self.changes.is_empty() { sink } else { Box::new(Rewriter::new(sink, self.changes.clone())) }
    }

    fn failed(&self, tool: &Tool, ended: &Ended, trouble: &Trouble) -> Failure {
        Failure::new(
            trouble.reason.unwrap_or(Reason::RestoreFailed),
            format!("{}: {} {}: {trouble}", self.server.place(Some(self.database)), tool.name(), ended.how()),
        )
    }
}

pub(super) fn start(command: &Command) -> Result<(Tool, ToolInput), Failure> {
    let broken = |words: String| Failure::new(Reason::RestoreFailed, words);
    let mut tool = Tool::spawn(command).map_err(|error| broken(error.to_string()))?;
    let input = tool.take_stdin().ok_or_else(|| broken(format!("{} has no input", command.name())))?;
    Ok((tool, input))
}

/// Lets a tool cancel what it has under way, so that the server does not go on with it.
pub(super) async fn farewell(tool: &mut Tool) {
    tool.terminate();
    let _ = tokio::time::timeout(FAREWELL, tool.wait()).await;
}

fn copy(output: Option<ToolOutput>, mut text: SqlText) -> io::Result<()> {
    let Some(mut output) = output else { return Ok(()) };
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = output.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        text.write_all(&buffer[..n])?;
    }
}

/// psql, where asked for inside a transaction that is committed only at our word: the end of its input alone commits nothing.
struct Psql {
    tool: Tool,
    input: Arc<Mutex<SqlInput>>,
    one_transaction: bool,
}

impl Psql {
    fn start(pour: &Pour<'_>, drop_unknown_setting: bool, one_transaction: bool) -> Result<Self, Failure> {
        let command = pour.server.psql(pour.database, OPTIONS).arg("--output=/dev/null").with_stdin();
        let (tool, pipe) = start(&command)?;
        let mut input = SqlInput { pipe: Some(pipe), beginning: drop_unknown_setting.then(Vec::new) };
        if one_transaction {
            // The pipe is empty: this cannot block. Where it fails psql is gone and the next write says so.
            let _ = input.pass(b"BEGIN;\n");
        }
        Ok(Self { tool, input: Arc::new(Mutex::new(input)), one_transaction })
    }

    fn text(&mut self) -> SqlText {
        SqlText { input: self.input.clone() }
    }

    async fn commit(mut self, pour: &Pour<'_>) -> Result<(), Failure> {
        let (input, one_transaction) = (self.input.clone(), self.one_transaction);
        let end = move || input.lock().unwrap_or_else(PoisonError::into_inner).end(one_transaction);
        let ended = tokio::task::spawn_blocking(end).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let status = self.tool.wait().await;
        if status.success() && ended.is_ok() {
            return Ok(());
        }
        Err(pour.failed(&self.tool, &status, &trouble::of_psql(&status.stderr_tail)))
    }

    async fn failure(mut self, pour: &Pour<'_>) -> Failure {
        self.input.lock().unwrap_or_else(PoisonError::into_inner).pipe = None;
        let status = self.tool.wait().await;
        pour.failed(&self.tool, &status, &trouble::of_psql(&status.stderr_tail))
    }

    async fn abandon(mut self) {
        farewell(&mut self.tool).await;
    }
}

/// SQL text on its way into psql.
struct SqlInput {
    pipe: Option<ToolInput>,
    /// The first bytes, held back until the setting that the server does not know has been looked for.
    beginning: Option<Vec<u8>>,
}

impl SqlInput {
    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pipe.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?.write_all(bytes)
    }

    fn text(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(beginning) = &mut self.beginning else { return self.pass(bytes) };
        beginning.extend_from_slice(bytes);
        if beginning.len() < BEGINNING {
            return Ok(());
        }
        self.release()
    }

    fn release(&mut self) -> io::Result<()> {
        let Some(beginning) = self.beginning.take() else { return Ok(()) };
        let within = &beginning[..beginning.len().min(BEGINNING)];
        match memchr::memmem::find(within, UNKNOWN_SETTING) {
            Some(at) => {
                self.pass(&beginning[..=at])?;
                self.pass(&beginning[at + UNKNOWN_SETTING.len()..])
            }
            None => self.pass(&beginning),
        }
    }

    fn end(&mut self, commit: bool) -> io::Result<()> {
        self.release()?;
        if commit {
            self.pass(b"\nCOMMIT;\n")?;
        }
        self.pipe = None;
        Ok(())
    }
}

/// The end of [`SqlInput`] that can be handed away. Dropping it ends nothing.
struct SqlText {
    input: Arc<Mutex<SqlInput>>,
}

impl Write for SqlText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner).text(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tool's input that remembers whether the tool stopped reading: its own words then say more than ours.
struct Watched<W> {
    inner: W,
    broke: Arc<AtomicBool>,
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes).inspect_err(|_| self.broke.store(true, Ordering::Release))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

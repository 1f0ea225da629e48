//! Dumps: pg_dump's and pg_dumpall's streams on their way into the sink. Talks to the server through its tools.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_crds::{PostgresDatabases, PostgresFormat, PostgresSource, Reason};
use serde::Deserialize;

use super::clients::Client;
use super::connection::{LOCK_TIMEOUT, connection_string};
use super::database::DatabaseFacts;
use super::server::Server;
use super::trouble;
use crate::archive::pgdump::PgDumpReader;
use crate::archive::sqldump::{SqlDump, SqlDumpReader};
use crate::engine::{ArtifactMetadata, ArtifactSink, Dumped, Inspect, Inspection};
use crate::process::{Command, ProcessError, Tool, ToolOutput, run_to_end};
use crate::task::Failure;

/// Format of a database dumped by pg_dump's custom format.
pub(super) const CUSTOM: &str = "pgdump-custom";
/// Format of a database dumped as SQL.
pub(super) const SQL: &str = "sql";
/// Format of roles and tablespaces dumped as SQL.
pub(super) const GLOBALS: &str = "sql-globals";

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Dumps what a source names.
pub(super) async fn dump(
    source: &PostgresSource,
    server: &Server,
    sink: &mut impl ArtifactSink,
) -> Result<Dumped, Failure> {
    let client = server.clients.to_dump(server.facts.major(), &server.facts.version)?;
    let tool_version = version(&client).await?;
    let databases = databases(source, server).await?;
    // Everything is asked for before anything is dumped: what cannot be reached is found at once.
    let mut all_facts = Vec::with_capacity(databases.len());
    for database in &databases {
        all_facts.push(DatabaseFacts::of(server, database, Reason::DumpFailed).await?);
    }
    let mut names = BTreeSet::new();
    for (database, facts) in databases.iter().zip(&all_facts) {
        let dump = Dump { source, server, client: &client };
        dump.database(database, facts, artifact_name(database, source.format, &mut names), sink).await?;
    }
    if source.include_globals {
        let dump = Dump { source, server, client: &client };
        dump.globals(databases.first().unwrap_or(&server.maintenance), globals_name(&names), sink).await?;
    }
    let one_instant = databases.len() == 1 && !source.include_globals;
    Ok(Dumped {
        server_version: server.facts.version.clone(),
        tool_version,
        consistency: if one_instant { "snapshot" } else { "fuzzy" }.to_owned(),
    })
}

async fn databases(source: &PostgresSource, server: &Server) -> Result<Vec<String>, Failure> {
    match source.selection() {
        PostgresDatabases::Named(names) => Ok(names.to_vec()),
        PostgresDatabases::All => {
            let query =
                "SELECT datname AS name FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname";
            let rows: Vec<Named> = server.ask(&server.maintenance, query, Reason::DumpFailed).await?;
            Ok(rows.into_iter().map(|row| row.name).collect())
        }
    }
}

fn artifact_name(database: &str, format: PostgresFormat, names: &mut BTreeSet<String>) -> String {
    let name = match format {
        PostgresFormat::Custom => format!("{database}.pgdump"),
        PostgresFormat::Plain => format!("{database}.sql"),
    };
    names.insert(name.clone());
    name
}

/// `globals.sql`, unless a database is called so.
fn globals_name(names: &BTreeSet<String>) -> String {
    let mut name = "globals.sql".to_owned();
    while names.contains(&name) {
        name.insert_str(0, "cluster-");
    }
    name
}

async fn version(client: &Client) -> Result<String, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(
            Reason::InvalidConfiguration,
            format!("the worker's own pg_dump {} does not run: {error}", client.major),
        )
    };
    let output = run_to_end(&Command::new(client.tool("pg_dump")).arg("--version"), None, Duration::from_mins(1))
        .await
        .map_err(|error| broken(&error))?;
    if !output.ended.success() {
        return Err(broken(&output.ended.how()));
    }
    // `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
    let text = output.text();
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(format!("pg_dump {}", number.unwrap_or("of an unknown version")))
}

struct Dump<'a> {
    source: &'a PostgresSource,
    server: &'a Server,
    client: &'a Client,
}

impl Dump<'_> {
    async fn database(
        &self,
        database: &str,
        facts: &DatabaseFacts,
        name: String,
        sink: &mut impl ArtifactSink,
    ) -> Result<Inspection, Failure> {
        let what = format!("dump of database {database} of {}", self.server.login.address());
        let mut command = self
            .server
            .tool(&self.client.tool("pg_dump"), database, "")
            .args(["--no-password", &format!("--lock-wait-timeout={LOCK_TIMEOUT}")])
            .args(self.source.exclude_tables.iter().map(|pattern| format!("--exclude-table={pattern}")));
        let inspect: Box<dyn Inspect>;
        let format;
        match self.source.format {
            PostgresFormat::Custom => {
                command = command.args(["--format=custom", "--compress=0"]);
                inspect = Box::new(PgDumpReader::new(what));
                format = CUSTOM;
            }
            PostgresFormat::Plain => {
                command = command.arg("--format=plain");
                inspect = Box::new(SqlDumpReader::new(what, SqlDump::Database));
                format = SQL;
            }
        }
        let metadata = ArtifactMetadata {
            database: Some(database.to_owned()),
            format: format.to_owned(),
            roles: facts.roles.clone(),
            extensions: facts.extensions.clone(),
            properties: facts.to_properties(),
        };
        self.stream(&command, Some(database), &name, inspect, metadata, sink).await
    }

    async fn globals(&self, through: &str, name: String, sink: &mut impl ArtifactSink) -> Result<Inspection, Failure> {
        let what = format!("dump of the roles and tablespaces of {}", self.server.login.address());
        let command = self
            .server
            .tool(&self.client.tool("pg_dumpall"), through, "")
            .args(["--no-password", "--globals-only", "--no-role-passwords"])
            .arg(format!("--dbname={}", connection_string(through)));
        let inspect = Box::new(SqlDumpReader::new(what, SqlDump::Cluster));
        let metadata =
            ArtifactMetadata { format: GLOBALS.to_owned(), properties: BTreeMap::new(), ..ArtifactMetadata::default() };
        self.stream(&command, None, &name, inspect, metadata, sink).await
    }

    /// Runs a tool and stores what it writes. It is a dump only if the tool ended with 0 *and* the stream was found whole.
    async fn stream(
        &self,
        command: &Command,
        database: Option<&str>,
        name: &str,
        inspect: Box<dyn Inspect>,
        metadata: ArtifactMetadata,
        sink: &mut impl ArtifactSink,
    ) -> Result<Inspection, Failure> {
        let broken = |error: &ProcessError| Failure::new(Reason::DumpFailed, error.to_string());
        let mut tool = Tool::spawn(command).map_err(|error| broken(&error))?;
        let Some(stdout) = tool.take_stdout() else {
            return Err(Failure::new(Reason::DumpFailed, format!("{} has no output", tool.name())));
        };
        let drained = Arc::new(AtomicBool::new(false));
        let stream = Drained { stdout, drained: drained.clone() };
        let stored = sink.store(name, Box::new(stream), inspect, metadata).await;
        if !drained.load(Ordering::Acquire) {
            // The sink gave up before the tool did: its word counts. The tool goes with its handle.
            return stored.and_then(|_| {
                Err(Failure::new(Reason::DumpFailed, format!("what {} wrote was not read to its end", tool.name())))
            });
        }
        let ended = tool.wait().await;
        if ended.success() {
            return stored;
        }
        let trouble = trouble::of_tool(&ended.stderr_tail);
        let place = self.server.place(database);
        Err(Failure::new(
            trouble.reason.unwrap_or(Reason::DumpFailed),
            format!("{place}: {} {}: {trouble}", tool.name(), ended.how()),
        ))
    }
}

/// A tool's output that tells whether it was read to its end.
struct Drained {
    stdout: ToolOutput,
    drained: Arc<AtomicBool>,
}

impl Read for Drained {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stdout.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            self.drained.store(true, Ordering::Release);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_called_globals_keeps_its_name() {
        let mut names = BTreeSet::new();
        assert_eq!(artifact_name("globals", PostgresFormat::Custom, &mut names), "globals.pgdump");
        assert_eq!(globals_name(&names), "globals.sql");
        assert_eq!(artifact_name("globals", PostgresFormat::Plain, &mut names), "globals.sql");
        assert_eq!(globals_name(&names), "cluster-globals.sql");
    }
}

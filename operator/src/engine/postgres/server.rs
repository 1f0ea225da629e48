//! A server that has answered: its version, the role's rights, and questions to it in SQL. Talks to it through psql.

use std::time::Duration;

use holdfast_crds::Reason;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::clients::{Client, Clients};
use super::connection::Login;
use super::trouble::{self, Trouble};
use crate::process::{Command, run_to_end};
use crate::task::Failure;

/// How long a question about catalogues may take: longer than a lock is waited for.
const QUESTION: Duration = Duration::from_mins(10);
/// How long the longest statement may take, such as the count of a large table: the run's own deadline is shorter.
pub(super) const LONG: Duration = Duration::from_hours(30 * 24);
/// No function of a user's stands in for one of the system's, and notices do not fill the messages.
const SAFE: &str = " -c search_path=pg_catalog -c client_min_messages=warning";
/// Databases that every server has, unless somebody dropped them.
pub(super) const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// A server that has answered.
#[derive(Debug)]
pub(super) struct Server {
    /// How to log in.
    pub login: Login,
    /// The tools at hand.
    pub clients: Clients,
    /// What it said of itself.
    pub facts: ServerFacts,
    /// The database that the first questions went to.
    pub maintenance: String,
    psql: Client,
}

/// What a server says of itself and of the role.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub(super) struct ServerFacts {
    /// Version in words: `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// Version as a number: 150018.
    pub number: u32,
    /// Whether it is a standby.
    pub standby: bool,
    /// The role is a superuser.
    pub superuser: bool,
    /// The role may create databases.
    pub create_database: bool,
    /// The role may create roles.
    pub create_role: bool,
    /// The role may make subscriptions.
    pub subscribes: bool,
    /// `minimal`: rows of a table that was made in the same transaction are not written to the log.
    pub wal_level: String,
}

impl ServerFacts {
    /// Major version.
    pub fn major(&self) -> u32 {
        self.number / 10_000
    }
}

const FACTS: &str = "SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number, \
     pg_is_in_recovery() AS standby, r.rolsuper AS superuser, r.rolsuper OR r.rolcreatedb AS create_database, \
     r.rolsuper OR r.rolcreaterole AS create_role, \
     r.rolsuper OR EXISTS (SELECT FROM pg_roles s WHERE s.rolname = 'pg_create_subscription' AND pg_has_role(s.oid, 'USAGE')) AS subscribes, \
     current_setting('wal_level') AS wal_level FROM pg_roles r WHERE r.rolname = current_user";

/// A question without an answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The server or psql said so.
    Trouble(Trouble),
    /// psql could not be run, or its answer not be read.
    Psql(String),
}

impl Server {
    /// Asks a server for its version, through the first of the databases that lets the role in.
    pub async fn connect(login: Login, databases: &[&str]) -> Result<Self, Failure> {
        let clients = Clients::installed()?;
        let psql = clients.newest()?;
        let mut refusal = None;
        for database in databases {
            let question = Question { login: &login, psql: &psql, major: None };
            match question.rows::<ServerFacts>(database, FACTS).await {
                Ok(mut facts) => {
                    let facts = facts.pop().ok_or_else(|| {
                        Failure::new(Reason::SourceRefused, format!("{}: the role is gone", place(&login, None)))
                    })?;
                    return Ok(Self { facts, maintenance: (*database).to_owned(), psql, clients, login });
                }
                Err(unanswered) => {
                    let another =
                        matches!(&unanswered, Unanswered::Trouble(trouble) if trouble.is_about_the_database());
                    let failure = failure(&login, Some(database), Reason::SourceUnreachable, unanswered);
                    if !another {
                        return Err(failure);
                    }
                    refusal = refusal.or(Some(failure));
                }
            }
        }
        Err(refusal.unwrap_or_else(|| Failure::new(Reason::SourceRefused, place(&login, None))))
    }

    /// A database to stand in while this one is renamed or dropped.
    pub fn beside(&self, database: &str) -> &str {
        if self.maintenance != database {
            return &self.maintenance;
        }
        MAINTENANCE.into_iter().find(|other| *other != database).unwrap_or("template1")
    }

    fn question(&self) -> Question<'_> {
        Question { login: &self.login, psql: &self.psql, major: Some(self.facts.major()) }
    }

    /// Rows of a query in a database.
    pub async fn rows<T: DeserializeOwned>(&self, database: &str, query: &str) -> Result<Vec<T>, Unanswered> {
        self.question().rows(database, query).await
    }

    /// Rows of a query in a database, or the failure of the one who needs them.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        database: &str,
        query: &str,
        reason: Reason,
    ) -> Result<Vec<T>, Failure> {
        self.rows(database, query).await.map_err(|unanswered| self.failure(Some(database), reason, unanswered))
    }

    /// The only row of a query.
    pub async fn ask_one<T: DeserializeOwned>(
        &self,
        database: &str,
        query: &str,
        reason: Reason,
    ) -> Result<T, Failure> {
        let row = self.ask(database, query, reason).await?.pop();
        row.ok_or_else(|| {
            Failure::new(reason, format!("{}: no answer to a question about it", self.place(Some(database))))
        })
    }

    /// Runs statements one by one, in one session, up to the first that fails.
    pub async fn run(&self, database: &str, script: &str) -> Result<Vec<u8>, Unanswered> {
        self.question().run(database, script, LONG).await
    }

    /// Where something happened, for messages: `postgres at db:5432, database shop, user app`.
    pub fn place(&self, database: Option<&str>) -> String {
        place(&self.login, database)
    }

    /// A failure of this server in its own words.
    pub fn failure(&self, database: Option<&str>, reason: Reason, unanswered: Unanswered) -> Failure {
        failure(&self.login, database, reason, unanswered)
    }

    /// The environment of a tool for a database.
    pub fn tool(&self, program: &std::path::Path, database: &str, options: &str) -> Command {
        Command::new(program).envs(self.login.environment(database, Some(self.facts.major()), options))
    }

    /// psql, to run a script from its standard input in a database.
    pub fn psql(&self, database: &str, options: &str) -> Command {
        psql_command(self.tool(&self.psql.tool("psql"), database, options))
    }
}

struct Question<'a> {
    login: &'a Login,
    psql: &'a Client,
    major: Option<u32>,
}

impl Question<'_> {
    async fn rows<T: DeserializeOwned>(&self, database: &str, query: &str) -> Result<Vec<T>, Unanswered> {
        let script = format!("SELECT coalesce(json_agg(t), '[]') FROM ({query}) t;\n");
        let answer = self.run(database, &script, QUESTION).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| Unanswered::Psql(format!("its answer is not understood: {error}")))
    }

    async fn run(&self, database: &str, script: &str, limit: Duration) -> Result<Vec<u8>, Unanswered> {
        let command = Command::new(self.psql.tool("psql")).envs(self.login.environment(database, self.major, SAFE));
        let command = psql_command(command).env("PGCLIENTENCODING", "UTF8");
        let output = run_to_end(&command, Some(script.as_bytes().to_vec()), limit)
            .await
            .map_err(|error| Unanswered::Psql(error.to_string()))?;
        if output.ended.success() {
            Ok(output.stdout)
        } else if output.ended.stderr_tail.is_empty() {
            Err(Unanswered::Psql(format!("psql {}", output.ended.how())))
        } else {
            Err(Unanswered::Trouble(trouble::of_psql(&output.ended.stderr_tail)))
        }
    }
}

fn psql_command(command: Command) -> Command {
    command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password"]).args([
        "--set=ON_ERROR_STOP=1",
        "--set=VERBOSITY=verbose",
        "--file=-",
    ])
}

fn place(login: &Login, database: Option<&str>) -> String {
    match database {
        Some(database) => format!("postgres at {}, database {database}, user {}", login.address(), login.user),
        None => format!("postgres at {}, user {}", login.address(), login.user),
    }
}

fn failure(login: &Login, database: Option<&str>, reason: Reason, unanswered: Unanswered) -> Failure {
    let place = place(login, database);
    match unanswered {
        Unanswered::Trouble(trouble) => Failure::new(trouble.reason.unwrap_or(reason), format!("{place}: {trouble}")),
        Unanswered::Psql(words) => Failure::new(reason, format!("{place}: {words}")),
    }
}

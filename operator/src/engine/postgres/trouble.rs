//! What servers and tools say when something goes wrong, as a reason and a line a person can act on. Pure.

use holdfast_crds::Reason;

/// Something a server or a tool said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Why, where its words tell; none: for the one who asked to say.
    pub reason: Option<Reason>,
    /// The server's five-character code, where one came with it.
    pub sqlstate: Option<String>,
    /// Its own words, in one line.
    pub words: String,
    /// What to check, or nothing.
    pub advice: &'static str,
}

impl Trouble {
    /// Whether another database of the server may let the role in where this one did not.
    pub fn is_about_the_database(&self) -> bool {
        (self.words.contains("database \"") && self.words.ends_with("does not exist"))
            || self.words.contains("permission denied for database")
            || self.words.contains("no pg_hba.conf entry")
            || self.words.contains("is not currently accepting connections")
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, ": {}", self.advice) }
    }
}

/// Words of a failed connection, with what they mean. The first that fits counts; libpq's own words are English (`LC_ALL=C`).
const CONNECTION: &[(&str, Reason, &str)] = &[
    ("the database system is starting up", Reason::SourceUnreachable, "wait until the server has started"),
    ("the database system is shutting down", Reason::SourceUnreachable, "wait until the server is back"),
    ("the database system is not yet accepting", Reason::SourceUnreachable, "wait until the server has recovered"),
    ("the database system is in recovery mode", Reason::SourceUnreachable, "wait until the server has recovered"),
    ("too many clients already", Reason::SourceUnreachable, "raise max_connections or free connections"),
    ("remaining connection slots are reserved", Reason::SourceUnreachable, "raise max_connections or free connections"),
    ("too many connections for", Reason::SourceUnreachable, "raise the connection limit of the role or database"),
    ("password authentication failed", Reason::SourceRefused, "check user name and password in the Secret"),
    ("no password supplied", Reason::SourceRefused, "the server wants a password and the Secret has an empty one"),
    (
        "no pg_hba.conf entry",
        Reason::SourceRefused,
        "allow this user, database and address in the server's pg_hba.conf, and check tls.mode",
    ),
    (
        "pg_hba.conf rejects connection",
        Reason::SourceRefused,
        "allow this user, database and address in the server's pg_hba.conf, and check tls.mode",
    ),
    (
        "authentication failed",
        Reason::SourceRefused,
        "check user name and password in the Secret, and the server's pg_hba.conf",
    ),
    ("is not permitted to log in", Reason::SourceRefused, "the role needs LOGIN"),
    ("permission denied for database", Reason::SourceRefused, "grant the role CONNECT on the database"),
    ("is not currently accepting connections", Reason::SourceRefused, "the database has ALLOW_CONNECTIONS false"),
    (
        "unsupported startup parameter",
        Reason::SourceRefused,
        "this is a connection pooler: name the server itself as host",
    ),
    (
        "certificate verify failed",
        Reason::SourceRefused,
        "the server's certificate is not from an authority in tls.caBundle, or has expired: put the authority's there, or renew the server's",
    ),
    (
        "does not match host name",
        Reason::SourceRefused,
        "the server's certificate is for another host name: check host, or set tls.mode to VerifyCa",
    ),
    (
        "could not read root certificate file",
        Reason::InvalidConfiguration,
        "there is no certificate (PEM) in tls.caBundle: put that of the server's authority there",
    ),
    (
        "server does not support SSL",
        Reason::SourceRefused,
        "turn TLS on at the server, or set tls.mode to Prefer or Disable",
    ),
    ("Connection refused", Reason::SourceUnreachable, "check host and port and that the server runs"),
    ("could not translate host name", Reason::SourceUnreachable, "check host: the name does not resolve"),
    (
        "timeout expired",
        Reason::SourceUnreachable,
        "check host and port, that the server speaks PostgreSQL on this port, and that no NetworkPolicy or firewall is in the way",
    ),
    (
        "Connection timed out",
        Reason::SourceUnreachable,
        "check host and port, that the server speaks PostgreSQL on this port, and that no NetworkPolicy or firewall is in the way",
    ),
    ("No route to host", Reason::SourceUnreachable, "check host and the network"),
    ("Network is unreachable", Reason::SourceUnreachable, "check host and the network"),
    (
        "Connection reset by peer",
        Reason::SourceUnreachable,
        "check that the server runs and speaks PostgreSQL on this port",
    ),
    ("No such file or directory", Reason::SourceUnreachable, "check host and that the server runs"),
    (
        "server closed the connection unexpectedly",
        Reason::SourceUnreachable,
        "check that the server runs and speaks PostgreSQL on this port",
    ),
    (
        "expected authentication request from server",
        Reason::SourceUnreachable,
        "check that the server speaks PostgreSQL on this port",
    ),
    (
        "received invalid response to SSL",
        Reason::SourceUnreachable,
        "check that the server speaks PostgreSQL on this port",
    ),
    (
        "does not exist",
        Reason::SourceRefused,
        "check the database of the source or of into, and the user's name in the Secret",
    ),
];

/// Words of a failed command, with what they mean.
const COMMAND: &[(&str, Option<Reason>, &str)] = &[
    (
        "permission denied",
        Some(Reason::SourceRefused),
        "grant it to the role; docs/postgres.md tells which rights are needed",
    ),
    (
        "row-level security",
        Some(Reason::SourceRefused),
        "the role needs BYPASSRLS to see all rows; docs/postgres.md tells which rights are needed",
    ),
    ("due to lock timeout", None, "another session holds a lock on it: run the backup when no migration runs"),
    ("could not obtain lock", None, "another session holds a lock on it: run the backup when no migration runs"),
    ("No space left on device", Some(Reason::NoSpace), "make room on the server's disk"),
    ("could not extend file", Some(Reason::NoSpace), "make room on the server's disk"),
    ("conflict with recovery", None, "the standby cancelled it: set hot_standby_feedback or back up the primary"),
];

/// What psql wrote to its standard error.
pub(super) fn of_psql(stderr: &str) -> Trouble {
    if let Some(trouble) = connection(stderr) {
        return trouble;
    }
    let coded = stderr.lines().find_map(coded_line);
    if let Some((sqlstate, words)) = coded {
        let mut trouble = command(words);
        trouble.reason = match sqlstate {
            "42501" => Some(Reason::SourceRefused),
            "53100" => Some(Reason::NoSpace),
            _ => trouble.reason,
        };
        trouble.sqlstate = Some(sqlstate.to_owned());
        return trouble;
    }
    command(stderr.lines().next_back().unwrap_or("it gave no reason"))
}

/// What pg_dump, pg_dumpall or pg_restore wrote to its standard error.
pub(super) fn of_tool(stderr: &str) -> Trouble {
    if let Some(trouble) = connection(stderr) {
        return trouble;
    }
    // `pg_dump: error: Dumping … failed`, then `pg_dump: detail: Error message from server: …`: the detail says why.
    let errors: Vec<&str> = stderr
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(": ")?;
            let what =
                rest.strip_prefix("error: ").or_else(|| rest.strip_prefix("detail: Error message from server: "));
            what.or_else(|| rest.strip_prefix("fatal: "))
                .map(|words| words.trim_start_matches("could not execute query: "))
        })
        .collect();
    if errors.is_empty() {
        return command(stderr.lines().next_back().unwrap_or("it gave no reason"));
    }
    let sentences: Vec<&str> = errors.iter().map(|words| words.trim_end_matches('.')).collect();
    command(&sentences.join(": "))
}

/// A line of `VERBOSITY verbose`: `psql:<stdin>:1: ERROR:  42501: permission denied`. The word before the code may be translated.
fn coded_line(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(":  ")?;
    let (code, words) = rest.split_once(": ")?;
    let is_code = code.len() == 5 && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    (is_code && !matches!(&code[..2], "00" | "01" | "02")).then_some((code, words))
}

fn connection(stderr: &str) -> Option<Trouble> {
    let failed: Vec<&str> = stderr.lines().filter(|line| is_connection_failure(line)).collect();
    if failed.is_empty() {
        return None;
    }
    // Behind it, indented, come questions and advice of libpq's own: ours are shorter. Of several tries the last one speaks.
    let (_, reason, advice) = CONNECTION
        .iter()
        .find(|(words, ..)| stderr.contains(words))
        // The server's words in another language: it answered, and it said no.
        .unwrap_or(&("", Reason::SourceRefused, "check user, database and password, and the server's log"));
    let words = failed
        .iter()
        .find(|line| CONNECTION.iter().any(|(words, ..)| line.contains(words)))
        .or(failed.last())
        .map_or("", |line| words_of_connection(line));
    Some(Trouble { reason: Some(*reason), sqlstate: None, words: words.to_owned(), advice })
}

fn is_connection_failure(line: &str) -> bool {
    let starts = ["psql: error: ", "psql: ", "pg_dump: error: ", "pg_dumpall: error: ", "pg_restore: error: "];
    let words = starts.iter().find_map(|start| line.strip_prefix(start)).unwrap_or(line);
    words.starts_with("connection to server ")
        || words.starts_with("could not translate host name")
        || words.starts_with("could not connect to")
        || words.starts_with("could not parse")
        || words.starts_with("root certificate file")
        || words.starts_with("fe_sendauth")
}

fn words_of_connection(line: &str) -> &str {
    let words = line.split_once(" failed: ").map_or(line, |(_, words)| words);
    let words = words.split_once("error: ").map_or(words, |(_, words)| words);
    words.strip_prefix("FATAL:").map_or(words, str::trim_start)
}

fn command(words: &str) -> Trouble {
    let words = words.trim();
    let known = COMMAND.iter().find(|(known, ..)| words.contains(known));
    let (reason, advice) = known.map_or((None, ""), |(_, reason, advice)| (*reason, *advice));
    Trouble { reason, sqlstate: None, words: words.to_owned(), advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_connection_tells_who_is_to_act() {
        let table = [
            (
                "psql: error: connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n\
                 \tIs the server running on that host and accepting TCP/IP connections?",
                Reason::SourceUnreachable,
                "Connection refused",
            ),
            (
                "psql: error: could not translate host name \"db\" to address: Name or service not known",
                Reason::SourceUnreachable,
                "could not translate host name \"db\" to address: Name or service not known",
            ),
            (
                "psql: error: connection to server at \"h\" (10.0.0.1), port 5432 failed: FATAL:  password authentication failed for user \"a\"\n\
                 connection to server at \"h\" (10.0.0.1), port 5432 failed: FATAL:  password authentication failed for user \"a\"",
                Reason::SourceRefused,
                "password authentication failed for user \"a\"",
            ),
            (
                "psql: error: connection to server at \"h\", port 5432 failed: FATAL:  the database system is starting up",
                Reason::SourceUnreachable,
                "the database system is starting up",
            ),
            (
                "pg_dump: error: connection to server at \"h\", port 5432 failed: FATAL:  database \"x\" does not exist",
                Reason::SourceRefused,
                "database \"x\" does not exist",
            ),
            (
                "psql: error: connection to server at \"h\", port 5432 failed: FATAL:  Passwort-Authentifizierung fehlgeschlagen",
                Reason::SourceRefused,
                "Passwort-Authentifizierung fehlgeschlagen",
            ),
            (
                "psql: error: connection to server at \"h\", port 5432 failed: timeout expired",
                Reason::SourceUnreachable,
                "timeout expired",
            ),
        ];
        for (stderr, reason, words) in table {
            let found = of_psql(stderr);
            assert_eq!((found.reason, found.words.as_str()), (Some(reason), words), "{stderr}");
        }
        assert!(of_psql(table[4].0).is_about_the_database());
    }

    #[test]
    fn a_failed_statement_is_told_by_its_code_in_any_language() {
        let found = of_psql(
            "psql:<stdin>:1: HINWEIS:  00000: nichts\nLOCATION:  x\npsql:<stdin>:2: FEHLER:  42501: keine Berechtigung für Tabelle t\nORT:  aclchk.c:1",
        );
        assert_eq!(found.reason, Some(Reason::SourceRefused));
        assert_eq!(found.sqlstate.as_deref(), Some("42501"));
        assert_eq!(found.words, "keine Berechtigung für Tabelle t");
    }

    #[test]
    fn a_tools_last_error_is_found_among_its_details() {
        let found = of_tool(
            "pg_dump: error: Dumping the contents of table \"big\" failed: PQgetResult() failed.\n\
             pg_dump: detail: Error message from server: FATAL:  terminating connection due to administrator command\n\
             server closed the connection unexpectedly\n\
             \tThis probably means the server terminated abnormally\n\
             pg_dump: detail: Command was: COPY public.big (a) TO stdout;",
        );
        assert_eq!(found.reason, None);
        assert_eq!(
            found.words,
            "Dumping the contents of table \"big\" failed: PQgetResult() failed: FATAL:  terminating connection due to administrator command"
        );
        let refused = of_tool(
            "pg_dump: error: query failed: ERROR:  permission denied for table secret\npg_dump: detail: Query was: LOCK TABLE",
        );
        assert_eq!(refused.reason, Some(Reason::SourceRefused));
        let silent = of_tool("");
        assert_eq!(silent.words, "it gave no reason");
    }
}

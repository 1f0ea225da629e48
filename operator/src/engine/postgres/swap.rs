//! Databases made beside the one they are for, and put into its place in one transaction. Talks to the server.

use std::fmt::Write;
use std::time::Duration;

use holdfast_crds::Reason;
use serde::Deserialize;

use super::database::DatabaseFacts;
use super::server::{Server, Unanswered};
use super::target::OURS;
use crate::archive::table_name::{quote_identifier, quote_literal};
use crate::task::Failure;

/// The server's limit of a name, in bytes.
const NAME_LIMIT: usize = 63;
/// How often sessions of the replaced database are ended until the rename has gone through; the server waits five seconds for them.
const BETWEEN: Duration = Duration::from_millis(200);
/// How often a rename is tried: a transaction of somebody's may hold the database's lock.
const TRIES: usize = 3;

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// A new name beside a database: `shop_holdfast_1a2b3c4d`.
pub(super) fn name_beside(database: &str, what: &str) -> String {
    format!("{}{what}{:08x}", shortened(database, what.len() + 8), fastrand::u32(..))
}

/// As much of a name as leaves room for an ending.
fn shortened(database: &str, ending: usize) -> &str {
    let limit = NAME_LIMIT.saturating_sub(ending).min(database.len());
    let end = (0..=limit).rev().find(|at| database.is_char_boundary(*at)).unwrap_or(0);
    &database[..end]
}

/// What the names of fresh databases have after the database's own.
pub(super) const FRESH: &str = "_holdfast_";
/// What the names of replaced databases have after the database's own.
const OLD: &str = "_holdfast_old_";

/// Makes an empty database like the saved one. Where the server lacks its locale it gets the server's own; the note says so.
pub(super) async fn make(
    server: &Server,
    database: &str,
    facts: &DatabaseFacts,
) -> Result<(String, Option<String>), Failure> {
    let fresh = name_beside(database, FRESH);
    let comment = format!(
        "COMMENT ON DATABASE {} IS {};\n",
        quote_identifier(&fresh),
        quote_literal(&format!("{OURS}being restored, to become {database}"))
    );
    let create =
        |facts: &DatabaseFacts| format!("{};\n{comment}", facts.create_statement(&fresh, server.facts.major()));
    let beside = server.beside(database);
    let failed = |unanswered| server.failure(Some(&fresh), Reason::RestoreFailed, unanswered);
    match server.run(beside, &create(facts)).await {
        Ok(_) => Ok((fresh.clone(), None)),
        Err(Unanswered::Trouble(trouble)) if is_about_locale(trouble.sqlstate.as_deref(), &trouble.words) => {
            let plain = DatabaseFacts { encoding: facts.encoding.clone(), ..DatabaseFacts::default() };
            server.run(beside, &create(&plain)).await.map_err(failed)?;
            let locale = facts.locale.as_deref().unwrap_or(&facts.collate);
            let note = format!("the server lacks the locale {locale}: {database} has the server's own");
            Ok((fresh.clone(), Some(note)))
        }
        Err(unanswered) => Err(failed(unanswered)),
    }
}

fn is_about_locale(sqlstate: Option<&str>, words: &str) -> bool {
    matches!(sqlstate, Some("42809" | "22023" | "0A000")) && (words.contains("locale") || words.contains("LC_"))
}

/// Drops a database that a restore made, with whatever is connected to it.
pub(super) async fn drop_database(server: &Server, beside: &str, name: &str) -> Result<(), Unanswered> {
    let force = if server.facts.major() >= 13 { " WITH (FORCE)" } else { "" };
    server.run(beside, &format!("DROP DATABASE IF EXISTS {}{force};\n", quote_identifier(name))).await.map(|_| ())
}

/// Drops what earlier restores of this database were ended over: by name and comment ours, and nobody is connected.
pub(super) async fn drop_leftovers(server: &Server, database: &str) -> Result<(), Failure> {
    let beside = server.beside(database);
    let pattern = |ending: &str| {
        let start = quote_literal(&format!("{}{ending}", shortened(database, ending.len() + 8)));
        format!("left(datname, -8) = {start}")
    };
    let query = format!(
        "SELECT datname AS name FROM pg_database d WHERE ({} OR {}) AND right(datname, 8) ~ '^[0-9a-f]{{8}}$'
           AND starts_with(shobj_description(oid, 'pg_database'), {})
           AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid AND coalesce(a.backend_type, 'client backend') = 'client backend')",
        pattern(FRESH),
        pattern(OLD),
        quote_literal(OURS)
    );
    let leftovers: Vec<Named> = server.ask(beside, &query, Reason::RestoreFailed).await?;
    for leftover in leftovers {
        // Somebody else's, or in use after all: it does no harm.
        let _ = drop_database(server, beside, &leftover.name).await;
    }
    Ok(())
}

/// Puts a fresh database into the place of another, or into a free place, in one transaction: there is never a moment without the one or
/// the other. Returns what could not be tidied up.
pub(super) async fn into_place(
    server: &Server,
    fresh: &str,
    database: &str,
    replace: bool,
    comment: &str,
) -> Result<Option<String>, Failure> {
    let beside = server.beside(database);
    let (fresh_name, name) = (quote_identifier(fresh), quote_identifier(database));
    let old = name_beside(database, OLD);
    let mut script = "BEGIN;\n".to_owned();
    if replace {
        let old_name = quote_identifier(&old);
        let replaced = quote_literal(&format!("{OURS}replaced by a restore of {database}, to be dropped"));
        // The rename shuts new sessions out by its lock and waits for the old ones to end.
        let _ = write!(
            script,
            "ALTER DATABASE {name} RENAME TO {old_name};\nCOMMENT ON DATABASE {old_name} IS {replaced};\n"
        );
    }
    let _ = write!(script, "ALTER DATABASE {fresh_name} RENAME TO {name};\n{comment};\nCOMMIT;\n");

    let mut outcome = Ok(());
    for _ in 0..TRIES {
        outcome = with_sessions_ended(server, beside, &[database, fresh], &script).await;
        match &outcome {
            Err(Unanswered::Trouble(trouble)) if trouble.sqlstate.as_deref() == Some("55006") => {}
            _ => break,
        }
    }
    outcome.map_err(|unanswered| {
        let mut failure = server.failure(Some(database), Reason::RestoreFailed, unanswered);
        failure.message.push_str("; the database is as it was before");
        failure
    })?;
    if !replace {
        return Ok(None);
    }
    match drop_database(server, beside, &old).await {
        Ok(()) => Ok(None),
        Err(unanswered) => {
            let failure = server.failure(Some(&old), Reason::RestoreFailed, unanswered);
            Ok(Some(format!("the replaced database could not be dropped and is kept as {old}: {}", failure.message)))
        }
    }
}

/// Runs a rename and ends the sessions of its databases until it has gone through.
async fn with_sessions_ended(
    server: &Server,
    beside: &str,
    databases: &[&str],
    script: &str,
) -> Result<(), Unanswered> {
    let names: Vec<String> = databases.iter().map(|name| quote_literal(name)).collect();
    // By number, since names change under way. A role that may not end a session would fail the whole query.
    let ids = format!("SELECT oid FROM pg_database WHERE datname IN ({})", names.join(", "));
    let numbers: Vec<Numbered> = server.rows(beside, &format!("SELECT oid::bigint AS id FROM ({ids}) d")).await?;
    let numbers: Vec<String> = numbers.into_iter().map(|number| number.id.to_string()).collect();
    let end = format!(
        "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
          WHERE a.datid IN ({}) AND a.pid <> pg_backend_pid() AND coalesce(a.backend_type, 'client backend') = 'client backend'
            AND ((SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
                 OR NOT r.rolsuper AND (pg_has_role(a.usesysid, 'MEMBER') OR pg_has_role('pg_signal_backend', 'MEMBER')));\n",
        numbers.join(", ")
    );
    let rename = server.run(beside, script);
    tokio::pin!(rename);
    loop {
        tokio::select! {
            renamed = &mut rename => return renamed.map(|_| ()),
            () = async {
                tokio::time::sleep(BETWEEN).await;
                // Its own failure shows in the rename's.
                let _ = server.run(beside, &end).await;
            } => {}
        }
    }
}

#[derive(Deserialize)]
struct Numbered {
    id: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_fit_the_servers_limit() {
        for database in ["shop", &"x".repeat(63), &"ü".repeat(31)] {
            for what in [FRESH, OLD] {
                let name = name_beside(database, what);
                assert!(name.len() <= NAME_LIMIT, "{name}");
                assert_ne!(name, name_beside(database, what));
            }
        }
        assert!(name_beside("shop", FRESH).starts_with("shop_holdfast_"));
    }
}

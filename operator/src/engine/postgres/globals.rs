//! Roles and memberships of a backup, for the roles that a target lacks. Talks to the server.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_crds::Reason;

use super::prove::inspector;
use super::roles::list;
use super::server::Server;
use crate::engine::ArtifactSource;
use crate::store::manifest::ArtifactEntry;
use crate::task::Failure;

/// Most bytes of globals that are read: they are kept in memory.
const LIMIT: usize = 64 << 20;

/// One statement of pg_dumpall's that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Statement {
    /// Makes a role.
    Create { role: String },
    /// Gives a role its attributes, settings or comment.
    About { role: String, sql: String },
    /// Makes a role a member of another.
    Member { role: String, member: String, sql: String },
    /// Something that is only told.
    Skipped { what: &'static str, name: String },
}

/// Makes the roles that the target lacks, with their attributes and memberships. Roles that are there are left as they are. Returns what
/// was done, in words, and the number of bytes read.
pub(super) async fn restore(
    server: &Server,
    entry: &ArtifactEntry,
    present: &BTreeSet<String>,
    source: &mut impl ArtifactSource,
) -> Result<(u64, Vec<String>), Failure> {
    let text = Arc::new(Mutex::new(Vec::new()));
    let (bytes, _) = source.fetch(entry, Box::new(Kept { text: text.clone() }), inspector(entry)?).await?;
    let text = std::mem::take(&mut *text.lock().unwrap_or_else(PoisonError::into_inner));
    let statements = statements(&String::from_utf8_lossy(&text));

    let wanted: Vec<String> = statements
        .iter()
        .filter_map(|statement| match statement {
            Statement::Create { role } if !present.contains(role) => Some(role.clone()),
            _ => None,
        })
        .collect();
    let mut notes = skipped(&statements);
    if !wanted.is_empty() && !server.facts.create_role {
        notes.push(format!("{} may not create roles, so that {} were not made", server.login.user, list(&wanted)));
        return Ok((bytes, notes));
    }
    let mut made = BTreeSet::new();
    let mut refused = Vec::new();
    for statement in &statements {
        let sql = match statement {
            Statement::Create { role } if !present.contains(role) => create(role, server.facts.superuser),
            Statement::About { role, sql } if made.contains(role) => {
                match attributes(role, sql).filter(|_| !server.facts.superuser) {
                    Some(attributes) => {
                        // One that only a superuser may give must not take the others with it.
                        for sql in attributes {
                            if let Err(unanswered) = server.run(&server.maintenance, &sql).await {
                                let failure = server.failure(None, Reason::RestoreFailed, unanswered);
                                refused.push(format!("{}: {}", sql.trim_end(), failure.message));
                            }
                        }
                        continue;
                    }
                    None => sql.clone(),
                }
            }
            Statement::Member { role, member, sql } if made.contains(role) || made.contains(member) => sql.clone(),
            _ => continue,
        };
        match (server.run(&server.maintenance, &sql).await, statement) {
            (Ok(_), Statement::Create { role }) => {
                made.insert(role.clone());
            }
            (Ok(_), _) => {}
            (Err(unanswered), _) => refused.push(server.failure(None, Reason::RestoreFailed, unanswered).message),
        }
    }
    if !made.is_empty() {
        let names: Vec<String> = made.into_iter().collect();
        notes.push(format!("made {} (without passwords)", list(&names)));
    }
    if let Some(first) = refused.first() {
        notes.push(format!("{} statements about roles were refused, the first: {first}", refused.len()));
    }
    Ok((bytes, notes))
}

/// The attributes of `ALTER ROLE … WITH …`, each as a statement of its own, without those that every role has that is made. None: it is
/// another statement.
fn attributes(role: &str, sql: &str) -> Option<Vec<String>> {
    const USUAL: [&str; 7] =
        ["NOSUPERUSER", "INHERIT", "NOCREATEROLE", "NOCREATEDB", "NOLOGIN", "NOREPLICATION", "NOBYPASSRLS"];
    let (_, rest) = identifier(sql.strip_prefix("ALTER ROLE ")?)?;
    let words = rest.strip_prefix(" WITH ")?.trim_end().trim_end_matches(';');
    let name = crate::archive::table_name::quote_identifier(role);
    let mut attributes = Vec::new();
    let mut rest = words.trim();
    while !rest.is_empty() {
        let (word, more) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut value = word.to_owned();
        rest = more.trim_start();
        if word == "CONNECTION" {
            let number = rest.strip_prefix("LIMIT ")?;
            let (number, more) = number.split_once(' ').unwrap_or((number, ""));
            (value, rest) = (format!("CONNECTION LIMIT {number}"), more.trim_start());
        } else if word == "VALID" {
            // The last one: a time in quotes.
            (value, rest) = (format!("VALID {rest}"), "");
        } else if !word.bytes().all(|b| b.is_ascii_uppercase()) {
            return None;
        }
        if !USUAL.contains(&value.as_str()) {
            attributes.push(format!("ALTER ROLE {name} {value};\n"));
        }
    }
    Some(attributes)
}

fn create(role: &str, superuser: bool) -> String {
    let name = crate::archive::table_name::quote_identifier(role);
    // Who is no superuser may give objects to a role only as its member.
    let member = if superuser { String::new() } else { format!("GRANT {name} TO CURRENT_USER;\n") };
    format!("CREATE ROLE {name};\n{member}")
}

fn skipped(statements: &[Statement]) -> Vec<String> {
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    for statement in statements {
        if let Statement::Skipped { what, name } = statement {
            match all.iter_mut().find(|(kind, _)| kind == what) {
                Some((_, names)) => names.push(name),
                None => all.push((what, vec![name])),
            }
        }
    }
    all.into_iter().map(|(what, names)| format!("not made: {what} {}", names.join(", "))).collect()
}

/// Reads pg_dumpall's text.
fn statements(text: &str) -> Vec<Statement> {
    split(text).iter().filter_map(|statement| read(statement)).collect()
}

fn read(statement: &str) -> Option<Statement> {
    let sql = format!("{statement};\n");
    if let Some(rest) = statement.strip_prefix("CREATE ROLE ") {
        return Some(Statement::Create { role: identifier(rest)?.0 });
    }
    for start in ["ALTER ROLE ", "COMMENT ON ROLE "] {
        if let Some(rest) = statement.strip_prefix(start) {
            return Some(Statement::About { role: identifier(rest)?.0, sql });
        }
    }
    if let Some(rest) = statement.strip_prefix("CREATE TABLESPACE ") {
        return Some(Statement::Skipped { what: "tablespaces", name: identifier(rest)?.0 });
    }
    let rest = statement.strip_prefix("GRANT ")?;
    let (role, rest) = identifier(rest)?;
    // Anything else is a grant on something, such as a parameter: `GRANT SET ON PARAMETER …`.
    let Some(rest) = rest.strip_prefix(" TO ") else {
        return Some(Statement::Skipped { what: "grants", name: format!("\"{}\"", statement.trim()) });
    };
    let (member, options) = identifier(rest)?;
    // The one who granted it need not be there, or may not grant it here.
    let options = options.split(" GRANTED BY ").next().unwrap_or_default();
    let quote = crate::archive::table_name::quote_identifier;
    let sql = format!("GRANT {} TO {}{options};\n", quote(&role), quote(&member));
    Some(Statement::Member { role, member, sql })
}

/// An identifier at the start of a text, and the rest.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    crate::archive::table_name::quoted_rest(quoted)
}

/// Splits text at the semicolons outside of strings, names and comments; `\` commands and comments fall away.
fn split(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    let mut chars = text.chars().peekable();
    let mut before = '\n';
    while let Some(c) = chars.next() {
        match c {
            '-' if chars.peek() == Some(&'-') => while chars.next_if(|c| *c != '\n').is_some() {},
            '\\' if current.trim().is_empty() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\'' | '"' => {
                let escapes = c == '\'' && matches!(before, 'E' | 'e');
                current.push(c);
                while let Some(inner) = chars.next() {
                    current.push(inner);
                    if escapes && inner == '\\' {
                        current.extend(chars.next());
                    } else if inner == c {
                        break;
                    }
                }
            }
            ';' => statements.push(std::mem::take(&mut current).trim().to_owned()),
            c => current.push(c),
        }
        before = c;
    }
    statements
}

struct Kept {
    text: Arc<Mutex<Vec<u8>>>,
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if text.len() + bytes.len() > LIMIT {
            return Err(io::Error::other(format!("roles and tablespaces take more than {LIMIT} bytes")));
        }
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"--
-- Roles; CREATE ROLE in_a_comment;
--

\restrict abc

SET client_encoding = 'UTF8';
CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER INHERIT LOGIN;
CREATE ROLE "odd "" role; x";
COMMENT ON ROLE "odd "" role; x" IS E'it\'s; \\ here';
ALTER ROLE app SET search_path TO 'a', '$user';
GRANT app TO "odd "" role; x" WITH ADMIN OPTION GRANTED BY postgres;
CREATE TABLESPACE fast OWNER postgres LOCATION '/x;y';
GRANT SET ON PARAMETER work_mem TO app;

\unrestrict abc

--
-- PostgreSQL database cluster dump complete
--

"#;

    #[test]
    fn statements_are_found_among_strings_names_and_comments() {
        let odd = "odd \" role; x".to_owned();
        let about = |role: &str, sql: &str| Statement::About { role: role.to_owned(), sql: sql.to_owned() };
        assert_eq!(
            statements(TEXT),
            [
                Statement::Create { role: "app".into() },
                about("app", "ALTER ROLE app WITH NOSUPERUSER INHERIT LOGIN;\n"),
                Statement::Create { role: odd.clone() },
                about(&odd, "COMMENT ON ROLE \"odd \"\" role; x\" IS E'it\\'s; \\\\ here';\n"),
                about("app", "ALTER ROLE app SET search_path TO 'a', '$user';\n"),
                Statement::Member {
                    role: "app".into(),
                    member: odd,
                    sql: "GRANT app TO \"odd \"\" role; x\" WITH ADMIN OPTION;\n".into()
                },
                Statement::Skipped { what: "tablespaces", name: "fast".into() },
                Statement::Skipped { what: "grants", name: "\"GRANT SET ON PARAMETER work_mem TO app\"".into() },
            ]
        );
        assert_eq!(
            skipped(&statements(TEXT)),
            ["not made: tablespaces fast", "not made: grants \"GRANT SET ON PARAMETER work_mem TO app\""]
        );
    }

    #[test]
    fn each_attribute_is_given_by_itself() {
        let all = "ALTER ROLE \"a b\" WITH NOSUPERUSER NOINHERIT CREATEROLE NOCREATEDB LOGIN REPLICATION NOBYPASSRLS CONNECTION LIMIT 5 VALID UNTIL '2030-01-01 00:00:00+00';\n";
        assert_eq!(
            attributes("a b", all).unwrap(),
            [
                "ALTER ROLE \"a b\" NOINHERIT;\n",
                "ALTER ROLE \"a b\" CREATEROLE;\n",
                "ALTER ROLE \"a b\" LOGIN;\n",
                "ALTER ROLE \"a b\" REPLICATION;\n",
                "ALTER ROLE \"a b\" CONNECTION LIMIT 5;\n",
                "ALTER ROLE \"a b\" VALID UNTIL '2030-01-01 00:00:00+00';\n",
            ]
        );
        assert_eq!(attributes("a", "ALTER ROLE a SET search_path TO 'b';\n"), None);
    }

    #[test]
    fn text_that_is_cut_or_odd_is_read_without_panic() {
        for end in 0..TEXT.len() {
            statements(&TEXT[..end]);
        }
    }
}

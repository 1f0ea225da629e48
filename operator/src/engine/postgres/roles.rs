//! Roles that own something in a backup or were granted something: which stay, which get a stand-in for the time of the restore.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Deserialize;

use super::dump::SQL;
use super::foresee::Foreseen;
use super::server::Server;
use super::target::{Backup, Fit, OURS, RoleFacts};
use crate::archive::table_name::{quote_identifier, quote_literal};

/// What happens to owners and grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RolePlan {
    /// Owners and grants are restored.
    pub keep_owners: bool,
    /// Roles that are not there and are made for the time of the restore.
    pub stand_ins: Vec<String>,
    /// Roles that the restoring role administers, and makes itself a member of for the time of the restore.
    pub borrowed: Vec<String>,
    /// What to tell.
    pub note: Option<String>,
}

impl RolePlan {
    /// Decides. Pure.
    pub fn of(server: &Server, backup: &Backup<'_>, fit: &Fit, foreseen: &[Foreseen]) -> Self {
        // Of archives each entry is decided on, so that no role need be there for one.
        let texts = backup.databases.iter().filter(|wanted| wanted.entry.format == SQL);
        let wanted: BTreeSet<&str> = texts.flat_map(|wanted| wanted.entry.roles.iter().map(String::as_str)).collect();
        let missing = |role: &str| fit.roles.get(role).is_none_or(RoleFacts::is_leftover);
        let stranger = |role: &str| {
            fit.roles.get(role).is_some_and(|facts| !facts.acts && !facts.takeable && !facts.is_leftover())
        };
        let plan = decide(&wanted, missing, stranger, server.facts.create_role, &server.login.user);
        let owners = foreseen.iter().flat_map(|foreseen| foreseen.entries.iter().map(|entry| entry.owner.as_str()));
        let of_databases = backup.databases.iter().map(|wanted| wanted.facts.owner.as_str());
        let there = fit.owners.iter().flatten().map(String::as_str);
        let named: BTreeSet<&str> = owners.chain(of_databases).chain(there).chain(wanted).collect();
        let borrowed = named.into_iter().filter(|role| {
            fit.roles.get(*role).is_some_and(|facts| !facts.acts && facts.takeable && !facts.is_leftover())
        });
        Self { borrowed: borrowed.map(ToOwned::to_owned).collect(), ..plan }
    }

    /// Makes the stand-ins.
    pub async fn set_up(&self, server: &Server) -> Result<(), super::server::Unanswered> {
        let mut script = String::new();
        for role in &self.borrowed {
            let _ = writeln!(script, "GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;", quote_identifier(role));
        }
        for role in &self.stand_ins {
            let name = quote_identifier(role);
            let comment = quote_literal(&format!("{OURS}stands in for the time of a restore"));
            let literal = quote_literal(role);
            // One of an earlier restore that could not remove it serves again.
            let _ = write!(
                script,
                "SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) AS missing \\gset\n\\if :missing\nCREATE ROLE {name} \
                 NOLOGIN;\nCOMMENT ON ROLE {name} IS {comment};\n\\endif\n"
            );
            if !server.facts.superuser {
                let _ = writeln!(script, "GRANT {name} TO CURRENT_USER;");
            }
        }
        if script.is_empty() {
            return Ok(());
        }
        server.run(&server.maintenance, &script).await.map(|_| ())
    }

    /// Policies and user mappings that are for the stand-ins: giving them away leaves none of them, in words.
    pub async fn lost_with(&self, server: &Server, database: &str) -> Result<Vec<String>, super::server::Unanswered> {
        if self.stand_ins.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = self.stand_ins.iter().map(|role| quote_literal(role)).collect();
        let query = format!(
            "SELECT format('policy %I on %s', p.polname, p.polrelid::regclass) AS name FROM pg_policy p
               WHERE EXISTS (SELECT FROM pg_roles r WHERE r.rolname IN ({0}) AND r.oid = ANY (p.polroles))
             UNION ALL SELECT format('user mapping for %I of server %I', usename, srvname) FROM pg_user_mappings WHERE usename IN ({0})",
            names.join(", ")
        );
        let lost: Vec<Lost> = server.rows(database, &query).await?;
        Ok(lost.into_iter().map(|lost| lost.name).collect())
    }

    /// Gives what belongs to the stand-ins in a database to the restoring role, and takes back what was granted to them.
    pub async fn hand_over(&self, server: &Server, database: &str) -> Result<(), super::server::Unanswered> {
        if self.stand_ins.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = self.stand_ins.iter().map(|role| quote_identifier(role)).collect();
        let names = names.join(", ");
        let script = format!("BEGIN;\nREASSIGN OWNED BY {names} TO CURRENT_USER;\nDROP OWNED BY {names};\nCOMMIT;\n");
        server.run(database, &script).await.map(|_| ())
    }

    /// Takes back what was lent and removes the stand-ins; what would not go, in words, with what to do.
    pub async fn tear_down(&self, server: &Server) -> Vec<String> {
        let mut left = Vec::new();
        for role in &self.borrowed {
            let role = quote_identifier(role);
            let script = format!("REVOKE {role} FROM CURRENT_USER GRANTED BY CURRENT_USER;\n");
            if server.run(&server.maintenance, &script).await.is_err() {
                let user = quote_identifier(&server.login.user);
                left.push(format!(
                    "the membership in role {role} for the time of the restore could not be taken back: REVOKE {role} FROM {user} GRANTED BY {user}"
                ));
            }
        }
        for role in &self.stand_ins {
            let role = quote_identifier(role);
            if server.run(&server.maintenance, &format!("DROP ROLE IF EXISTS {role};\n")).await.is_err() {
                left.push(format!(
                    "role {role}, made for the time of the restore, could not be removed again: drop it by hand"
                ));
            }
        }
        left
    }
}

#[derive(Deserialize)]
struct Lost {
    name: String,
}

fn decide(
    wanted: &BTreeSet<&str>,
    missing: impl Fn(&str) -> bool,
    stranger: impl Fn(&str) -> bool,
    may_create: bool,
    user: &str,
) -> RolePlan {
    let select = |test: &dyn Fn(&str) -> bool| -> Vec<String> {
        wanted.iter().filter(|role| test(role)).map(|role| (*role).to_owned()).collect()
    };
    let (missing, strangers) = (select(&missing), select(&stranger));
    if !strangers.is_empty() {
        let note = format!(
            "{user} may not act for {}: everything belongs to {user}, and nothing is granted to others",
            list(&strangers)
        );
        return RolePlan { note: Some(note), ..RolePlan::default() };
    }
    if missing.is_empty() {
        return RolePlan { keep_owners: true, ..RolePlan::default() };
    }
    if may_create {
        let note = format!(
            "not on this server: {}: what was theirs belongs to {user}, what was granted to them is not granted",
            list(&missing)
        );
        return RolePlan { keep_owners: true, stand_ins: missing, note: Some(note), ..RolePlan::default() };
    }
    let note = format!(
        "not on this server: {}, and {user} may not create roles: everything belongs to {user}, and nothing is granted to others",
        list(&missing)
    );
    RolePlan { note: Some(note), ..RolePlan::default() }
}

/// `role a`, `roles a, b`, the first few of many.
pub(super) fn list(roles: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = roles.iter().take(SHOWN).map(String::as_str).collect();
    let more = roles.len().saturating_sub(SHOWN);
    let what = if roles.len() == 1 { "role" } else { "roles" };
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{what} {}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(wanted: &[&str], there: &[&str], strangers: &[&str], may_create: bool) -> RolePlan {
        let wanted = wanted.iter().copied().collect();
        decide(&wanted, |role| !there.contains(&role), |role| strangers.contains(&role), may_create, "me")
    }

    #[test]
    fn owners_are_kept_where_all_roles_are_there() {
        assert_eq!(plan(&["a", "b"], &["a", "b"], &[], false), RolePlan { keep_owners: true, ..RolePlan::default() });
        assert_eq!(plan(&[], &[], &[], false), RolePlan { keep_owners: true, ..RolePlan::default() });
    }

    #[test]
    fn missing_roles_get_stand_ins_from_who_may_make_them() {
        let found = plan(&["a", "b", "c"], &["b"], &[], true);
        assert_eq!((found.keep_owners, found.stand_ins), (true, vec!["a".to_owned(), "c".to_owned()]));
        assert!(found.note.unwrap().starts_with("not on this server: roles a, c:"));
        let found = plan(&["a", "b"], &["b"], &[], false);
        assert_eq!((found.keep_owners, found.stand_ins), (false, vec![]));
        assert!(found.note.unwrap().contains("role a, and me may not create roles"));
    }

    #[test]
    fn who_may_not_act_for_a_role_keeps_no_owners() {
        let found = plan(&["a", "b"], &["a"], &["a"], true);
        assert_eq!((found.keep_owners, found.stand_ins), (false, vec![]));
        assert!(found.note.unwrap().contains("may not act for role a"));
    }

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<String> = (0..25).map(|i| format!("r{i}")).collect();
        assert!(list(&many).ends_with("r9 and 15 more"));
    }
}

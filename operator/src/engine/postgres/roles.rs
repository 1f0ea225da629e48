//! Roles that own something in a backup or were granted something: which stay, which get a stand-in for the time of the restore.

use std::collections::BTreeSet;
use std::fmt::Write;

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
    /// What to tell.
    pub note: Option<String>,
}

impl RolePlan {
    /// Decides. Pure.
    pub fn of(server: &Server, backup: &Backup<'_>, fit: &Fit) -> Self {
        let wanted = backup.databases.iter().flat_map(|wanted| wanted.entry.roles.iter().map(String::as_str)).collect();
        let missing = |role: &str| fit.roles.get(role).is_none_or(RoleFacts::is_leftover);
        let stranger = |role: &str| fit.roles.get(role).is_some_and(|facts| !facts.member && !facts.is_leftover());
        decide(&wanted, missing, stranger, server.facts.create_role, &server.login.user)
    }

    /// Makes the stand-ins.
    pub async fn set_up(&self, server: &Server) -> Result<(), super::server::Unanswered> {
        if self.stand_ins.is_empty() {
            return Ok(());
        }
        let mut script = String::new();
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
        server.run(&server.maintenance, &script).await.map(|_| ())
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

    /// Removes the stand-ins; the names of those that would not go.
    pub async fn tear_down(&self, server: &Server) -> Vec<String> {
        let mut left = Vec::new();
        for role in &self.stand_ins {
            let script = format!("DROP ROLE IF EXISTS {};\n", quote_identifier(role));
            if server.run(&server.maintenance, &script).await.is_err() {
                left.push(role.clone());
            }
        }
        left
    }
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
        return RolePlan { keep_owners: false, stand_ins: Vec::new(), note: Some(note) };
    }
    if missing.is_empty() {
        return RolePlan { keep_owners: true, ..RolePlan::default() };
    }
    if may_create {
        let note = format!(
            "not on this server: {}: what was theirs belongs to {user}, what was granted to them is not granted",
            list(&missing)
        );
        return RolePlan { keep_owners: true, stand_ins: missing, note: Some(note) };
    }
    let note = format!(
        "not on this server: {}, and {user} may not create roles: everything belongs to {user}, and nothing is granted to others",
        list(&missing)
    );
    RolePlan { keep_owners: false, stand_ins: Vec::new(), note: Some(note) }
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

//! What of an archive a role may restore into a target, entry by entry, before anything is touched. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::grants::{self, Named};
use super::roles;
use crate::archive::pgdump::contents::ContentsEntry;
use crate::archive::pgdump::rewrite::Change;
use crate::archive::table_name::{parse_identifier, quote_identifier, quote_literal};

/// Most of what is left out is named one by one up to this many.
const NAMED: usize = 5;
/// Most characters of a statement that are told.
const STATEMENT: usize = 300;
/// The schema that every database begins with.
const PUBLIC: &str = "public";

/// What is known of the restoring role and of the database that it restores into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// The restoring role.
    pub user: String,
    /// It is a superuser.
    pub superuser: bool,
    /// Major version of the server.
    pub major: u32,
    /// Roles on the target; true: the restoring role may give it objects and go on working with them.
    pub roles: BTreeMap<String, bool>,
    /// Extensions that are there already, and those that the server makes for somebody else.
    pub extensions: BTreeMap<String, Extension>,
    /// It may do with the schema `public` what its owner may.
    pub owns_public: bool,
    /// Roles that may create in the schema `public`.
    pub create_in_public: BTreeSet<String>,
    /// Roles that may create in the database.
    pub create_in_database: BTreeSet<String>,
    /// Languages that only a superuser may write functions in.
    pub untrusted_languages: BTreeSet<String>,
    /// It may make subscriptions.
    pub may_subscribe: bool,
}

/// An extension of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extension {
    /// The restoring role may do with it what its owner may.
    pub mine: bool,
    /// Its comment.
    pub comment: Option<String>,
}

/// What becomes of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// What to change in it.
    pub changes: BTreeMap<i64, Change>,
    /// What is not restored.
    pub left_out: Vec<LeftOut>,
    /// Roles that are not there, and own something or were granted something.
    pub missing: BTreeSet<String>,
    /// Owners that the restoring role may not act for.
    pub strangers: BTreeSet<String>,
    /// Owners that may not create where their things are.
    pub homeless: BTreeSet<String>,
}

/// An entry that is not restored, or not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// What it is, in words.
    pub what: String,
    /// Why.
    pub why: String,
    /// What would have to be run by somebody who may; empty: nothing would help.
    pub statement: String,
    /// Without it the database is another one: it is no mere description.
    pub carries_meaning: bool,
    /// Rows would be lost with it.
    pub with_data: bool,
}

/// Decides on each entry of a table of contents.
pub(super) fn decide(entries: &[ContentsEntry], rights: &Rights) -> Decision {
    let mut decider = Decider {
        rights,
        known: entries.iter().map(|entry| entry.id).collect(),
        schemas: BTreeMap::new(),
        gone: BTreeMap::new(),
        decision: Decision::default(),
    };
    for entry in entries {
        decider.entry(entry);
    }
    decider.dependents(entries);
    decider.decision
}

struct Decider<'a> {
    rights: &'a Rights,
    known: BTreeSet<i64>,
    /// Schemas of the archive, with the owners they get.
    schemas: BTreeMap<String, String>,
    /// Objects that are left out, with the reason: what needs them goes with them.
    gone: BTreeMap<i64, String>,
    decision: Decision,
}

impl Decider<'_> {
    fn entry(&mut self, entry: &ContentsEntry) {
        // These are restored with a whole server only, and pg_restore passes over them.
        if matches!(entry.kind.as_str(), "DATABASE" | "DATABASE PROPERTIES")
            || (is_about(entry) && entry.tag.starts_with("DATABASE "))
        {
            return;
        }
        match entry.kind.as_str() {
            "ACL" => self.acl(entry),
            "DEFAULT ACL" => self.default_acl(entry),
            "POLICY" => self.policy(entry),
            "USER MAPPING" => self.user_mapping(entry),
            "COMMENT" => self.comment(entry),
            _ => match self.superusers_only(entry) {
                Some(why) => self.leave_object(entry, &why),
                None => self.owner(entry),
            },
        }
    }

    /// Who gets an object. Whoever restores it has it at first.
    fn owner(&mut self, entry: &ContentsEntry) {
        if entry.owner.is_empty() || !has_owner(&entry.kind) {
            return;
        }
        let keeps = match self.rights.roles.get(&entry.owner) {
            None => {
                self.decision.missing.insert(entry.owner.clone());
                false
            }
            Some(_) if self.rights.superuser || entry.owner == self.rights.user => self.keeps_public(entry),
            Some(false) => {
                self.decision.strangers.insert(entry.owner.clone());
                false
            }
            Some(true) if !self.has_home(entry) => {
                self.decision.homeless.insert(entry.owner.clone());
                false
            }
            Some(true) => self.keeps_public(entry),
        };
        if entry.kind == "SCHEMA" {
            let owner = if keeps { &entry.owner } else { &self.rights.user };
            self.schemas.insert(entry.tag.clone(), owner.clone());
        }
        if !keeps {
            self.decision.changes.insert(entry.id, Change::Rewrite { drop_owner: true, definition: None });
        }
    }

    /// The schema `public` is there already: only who owns it may give it away.
    fn keeps_public(&mut self, entry: &ContentsEntry) -> bool {
        let may = entry.kind != "SCHEMA" || entry.tag != PUBLIC || self.rights.superuser || self.rights.owns_public;
        if !may {
            self.decision.strangers.insert(entry.owner.clone());
        }
        may
    }

    /// Whether the server lets this role own something where it is: a new owner needs the right to create there.
    fn has_home(&self, entry: &ContentsEntry) -> bool {
        let owner = &entry.owner;
        if !entry.schema.is_empty() && entry.schema != PUBLIC {
            return self.schemas.get(&entry.schema).is_some_and(|of_schema| of_schema == owner);
        }
        if self.schemas.get(PUBLIC).is_some_and(|of_public| of_public == owner) && entry.schema == PUBLIC {
            return true;
        }
        match (entry.schema.as_str(), entry.kind.as_str()) {
            (PUBLIC, _) => self.rights.create_in_public.contains(owner),
            (_, "SCHEMA" | "BLOB" | "BLOB METADATA") => true,
            _ => self.rights.create_in_database.contains(owner),
        }
    }

    /// Why only a superuser may restore it.
    fn superusers_only(&self, entry: &ContentsEntry) -> Option<String> {
        if self.rights.superuser {
            return None;
        }
        let text = entry.definition.as_str();
        let only = match entry.kind.as_str() {
            "EVENT TRIGGER"
            | "ACCESS METHOD"
            | "OPERATOR CLASS"
            | "OPERATOR FAMILY"
            | "TEXT SEARCH PARSER"
            | "TEXT SEARCH TEMPLATE"
            | "FOREIGN DATA WRAPPER"
            | "SECURITY LABEL"
            | "SHELL TYPE"
            | "PUBLICATION TABLES IN SCHEMA" => true,
            "PUBLICATION" => grants::outside_quotes(text, " FOR ALL ").is_some(),
            "SUBSCRIPTION" => {
                !self.rights.may_subscribe || !text.contains("password=") || text.contains("password_required = false")
            }
            "TYPE" => text.contains("\n    INPUT = "),
            "CAST" => text.ends_with(") WITHOUT FUNCTION;\n") || text.contains(") WITHOUT FUNCTION AS "),
            // Without a handler it is the extension of that name.
            "PROCEDURAL LANGUAGE" => !text.starts_with("CREATE OR REPLACE "),
            "FUNCTION" | "PROCEDURE" => {
                let language = text.split_once("\n    LANGUAGE ").and_then(|(_, rest)| parse_identifier(rest));
                return language
                    .filter(|(name, _)| self.rights.untrusted_languages.contains(name))
                    .map(|(name, _)| format!("only a superuser may make functions in language {name}"));
            }
            _ => false,
        };
        only.then(|| "only a superuser may make it".to_owned())
    }

    fn acl(&mut self, entry: &ContentsEntry) {
        let own = entry.dependencies.iter().any(|id| self.known.contains(id)) || entry.tag.starts_with("LARGE OBJECT");
        // What is granted on something that the archive does not make is granted by its owner: of an extension's objects a superuser.
        let may = self.rights.superuser
            || match (own, entry.tag.as_str()) {
                (_, "SCHEMA public") => self.rights.owns_public,
                (own, _) => own,
            };
        if !may {
            self.leave(entry, "they are on something that another role owns", statement(entry), false);
            return;
        }
        let rewritten = self.grants(entry, true);
        self.rewrite(entry, rewritten);
    }

    fn default_acl(&mut self, entry: &ContentsEntry) {
        let may = match self.rights.roles.get(&entry.owner) {
            None => {
                self.decision.missing.insert(entry.owner.clone());
                false
            }
            Some(acts) => self.rights.superuser || *acts || entry.owner == self.rights.user,
        };
        if !may {
            let why = if self.rights.roles.contains_key(&entry.owner) {
                format!("{} may not act for role {}", self.rights.user, entry.owner)
            } else {
                format!("role {} is not there", entry.owner)
            };
            self.leave(entry, &why, statement(entry), false);
            return;
        }
        let rewritten = self.grants(entry, false);
        self.rewrite(entry, rewritten);
    }

    /// The grants that can be made; none: all of them.
    fn grants(&mut self, entry: &ContentsEntry, told: bool) -> Option<String> {
        let mut dropped = Vec::new();
        let mut passed_on = Vec::new();
        let kept = grants::filter(&entry.definition, |statement| {
            if let Some(grantor) = &statement.grantor {
                let there = self.is_there(grantor);
                if !(self.rights.superuser && there) {
                    passed_on.push(statement.text.to_owned());
                    return false;
                }
            }
            match &statement.role {
                Named::Role(role) if !self.is_there(role) => {
                    dropped.push(role.clone());
                    false
                }
                Named::Everybody | Named::Role(_) | Named::Unclear => true,
            }
        });
        self.decision.missing.extend(dropped);
        if told && !passed_on.is_empty() {
            let left = LeftOut {
                what: format!("what was granted by others than the owner of {}", entry.tag.to_lowercase()),
                why: "only a superuser may grant in another's name".to_owned(),
                statement: passed_on.iter().map(|text| format!("{text};")).collect::<Vec<_>>().join(" "),
                carries_meaning: false,
                with_data: false,
            };
            self.decision.left_out.push(left);
        }
        kept
    }

    /// A name in another encoding than ours cannot be looked up: such a role counts as there, and the server says whether it is.
    fn is_there(&self, role: &str) -> bool {
        role.contains(char::REPLACEMENT_CHARACTER) || self.rights.roles.contains_key(role)
    }

    fn rewrite(&mut self, entry: &ContentsEntry, rewritten: Option<String>) {
        let change = match rewritten {
            None => return,
            // Written anew it would be another one.
            Some(text) if !text.is_empty() && !is_whole(entry) => {
                let why = "some of it cannot be restored, and it is too long, or in another encoding than UTF-8, to be taken apart";
                return self.leave(entry, why, String::new(), true);
            }
            Some(text) if text.is_empty() => Change::LeaveOut,
            Some(text) => Change::Rewrite { drop_owner: false, definition: Some(text) },
        };
        self.decision.changes.insert(entry.id, change);
    }

    /// A policy that names roles which are not there means something else without them.
    fn policy(&mut self, entry: &ContentsEntry) {
        let Some((list, named)) = grants::roles_of_policy(&entry.definition) else { return };
        let (there, gone): (Vec<&String>, Vec<&String>) =
            named.iter().partition(|role| *role == PUBLIC || self.is_there(role));
        if gone.is_empty() {
            return;
        }
        let change = if there.is_empty() || !is_whole(entry) {
            self.gone.insert(entry.id, "its policy is left out".to_owned());
            Change::LeaveOut
        } else {
            let kept: Vec<String> = there.iter().map(|role| quote_identifier(role)).collect();
            let mut text = entry.definition.clone();
            text.replace_range(list, &kept.join(", "));
            Change::Rewrite { drop_owner: false, definition: Some(text) }
        };
        self.decision.changes.insert(entry.id, change);
        self.without_roles(entry, &gone);
    }

    fn user_mapping(&mut self, entry: &ContentsEntry) {
        let Some(role) = entry.definition.strip_prefix("CREATE USER MAPPING FOR ").and_then(parse_identifier) else {
            return;
        };
        let role = role.0;
        if role.eq_ignore_ascii_case(PUBLIC) || self.is_there(&role) {
            return;
        }
        self.decision.changes.insert(entry.id, Change::LeaveOut);
        self.without_roles(entry, &[&role]);
    }

    fn without_roles(&mut self, entry: &ContentsEntry, gone: &[&String]) {
        let names: Vec<String> = gone.iter().map(|role| (*role).clone()).collect();
        let makes: Vec<String> =
            names.iter().map(|role| format!("CREATE ROLE {} NOLOGIN;", quote_identifier(role))).collect();
        let what = if gone.len() == 1 { "it is for" } else { "it is also for" };
        self.decision.left_out.push(LeftOut {
            what: describe(entry),
            why: format!("{what} {}, not on this server", roles::list(&names)),
            statement: makes.join(" "),
            carries_meaning: true,
            with_data: false,
        });
    }

    fn comment(&mut self, entry: &ContentsEntry) {
        if self.rights.superuser {
            return;
        }
        if entry.tag == "SCHEMA public" && !self.rights.owns_public {
            self.leave(entry, "another role owns it", String::new(), false);
            return;
        }
        let Some(name) = entry.tag.strip_prefix("EXTENSION ").and_then(parse_identifier) else { return };
        let Some(extension) = self.rights.extensions.get(&name.0).filter(|extension| !extension.mine) else { return };
        let same = extension.comment.as_deref().map(|comment| format!(" IS {};", quote_literal(comment).trim_start()));
        if same.is_some_and(|same| entry.definition.trim_end().ends_with(&same)) {
            // It says so already.
            self.decision.changes.insert(entry.id, Change::LeaveOut);
        } else {
            self.leave(entry, "another role owns it", statement(entry), false);
        }
    }

    fn leave(&mut self, entry: &ContentsEntry, why: &str, statement: String, carries_meaning: bool) {
        self.decision.changes.insert(entry.id, Change::LeaveOut);
        let with_data = entry.has_data;
        let left = LeftOut { what: describe(entry), why: why.to_owned(), statement, carries_meaning, with_data };
        self.decision.left_out.push(left);
    }

    fn leave_object(&mut self, entry: &ContentsEntry, why: &str) {
        self.gone.insert(entry.id, describe(entry));
        self.leave(entry, why, statement(entry), true);
    }

    /// What needs something that is left out cannot be there without it.
    fn dependents(&mut self, entries: &[ContentsEntry]) {
        loop {
            let mut more = false;
            for entry in entries {
                if self.gone.contains_key(&entry.id) {
                    continue;
                }
                let Some(gone) = entry.dependencies.iter().find_map(|id| self.gone.get(id)).cloned() else { continue };
                more = true;
                self.gone.insert(entry.id, gone.clone());
                if is_about(entry) {
                    self.decision.changes.insert(entry.id, Change::LeaveOut);
                } else {
                    self.leave(entry, &format!("it needs {gone}"), statement(entry), true);
                }
            }
            if !more {
                return;
            }
        }
    }
}

/// How much a restore may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tolerance {
    /// Nothing.
    Nothing,
    /// What only describes.
    Descriptions,
    /// Anything but rows.
    AllButRows,
}

impl Decision {
    /// What stands in the way of the restore, in words.
    pub fn refusal(&self, user: &str, tolerance: Tolerance) -> Option<String> {
        let stands = |left: &&LeftOut| {
            left.with_data
                || match tolerance {
                    Tolerance::Nothing => true,
                    Tolerance::Descriptions => left.carries_meaning,
                    Tolerance::AllButRows => false,
                }
        };
        let obstacles: Vec<&LeftOut> = self.left_out.iter().filter(stands).collect();
        let mut parts = Vec::new();
        if !obstacles.is_empty() {
            parts.push(told(&obstacles));
        }
        if tolerance == Tolerance::Nothing {
            parts.extend(self.notes_of_roles(user));
        }
        if parts.is_empty() {
            return None;
        }
        let roles_only = obstacles.iter().all(|left| left.statement.starts_with("CREATE ROLE "));
        let way_out = if obstacles.iter().any(|left| left.with_data) {
            "restore with a superuser: rows would be lost without it"
        } else if !obstacles.is_empty() && roles_only {
            "make the roles before, or leave it out with onUnrestorable: Report"
        } else {
            "restore with a superuser, or leave it out with onUnrestorable: Report and have a superuser run it afterwards"
        };
        Some(format!("{way_out}: {}", parts.join("; ")))
    }

    /// What is restored otherwise than it was, or not at all.
    pub fn notes(&self, user: &str) -> Vec<String> {
        let mut notes = self.notes_of_roles(user);
        let (meaning, describing): (Vec<&LeftOut>, Vec<&LeftOut>) =
            self.left_out.iter().partition(|left| left.carries_meaning);
        for left in [meaning, describing] {
            if !left.is_empty() {
                notes.push(format!("left out: {}", told(&left)));
            }
        }
        notes
    }

    fn notes_of_roles(&self, user: &str) -> Vec<String> {
        let names = |roles: &BTreeSet<String>| roles::list(&roles.iter().cloned().collect::<Vec<_>>());
        let mut notes = Vec::new();
        if !self.missing.is_empty() {
            notes.push(format!(
                "not on this server: {}: what was theirs belongs to {user}, what was granted to them is not granted",
                names(&self.missing)
            ));
        }
        if !self.strangers.is_empty() {
            notes.push(format!("{user} may not act for {}: what was theirs belongs to {user}", names(&self.strangers)));
        }
        if !self.homeless.is_empty() {
            notes.push(format!(
                "{} may not create where their things are: these belong to {user}",
                names(&self.homeless)
            ));
        }
        notes
    }
}

/// `event trigger x (only a superuser may make it): CREATE EVENT TRIGGER …`, the first few of many.
fn told(left: &[&LeftOut]) -> String {
    let mut told: Vec<String> = left
        .iter()
        .take(NAMED)
        .map(|left| {
            let statement = if left.statement.is_empty() { String::new() } else { format!(": {}", left.statement) };
            format!("{} ({}){statement}", left.what, left.why)
        })
        .collect();
    let more = left.len().saturating_sub(NAMED);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told.join(", ")
}

/// `policy public.t p`, `comment on extension x`, `grants on table t`.
fn describe(entry: &ContentsEntry) -> String {
    let name = || {
        let (first, rest) = entry.tag.split_once(' ').unwrap_or((&entry.tag, ""));
        let in_words = if rest.is_empty() { first.to_owned() } else { format!("{} {rest}", first.to_lowercase()) };
        in_words.replace('\n', " ")
    };
    match entry.kind.as_str() {
        "COMMENT" => format!("comment on {}", name()),
        "ACL" => format!("grants on {}", name()),
        "SECURITY LABEL" => format!("security label on {}", name()),
        "DEFAULT ACL" => entry.tag.to_lowercase(),
        "USER MAPPING" => entry.tag.replacen("USER MAPPING", "user mapping", 1),
        kind => {
            let schema = if entry.schema.is_empty() { String::new() } else { format!("{}.", entry.schema) };
            format!("{} {schema}{}", kind.to_lowercase(), entry.tag).replace('\n', " ")
        }
    }
}

/// Whether an entry is about another one, and nothing of its own.
fn is_about(entry: &ContentsEntry) -> bool {
    matches!(entry.kind.as_str(), "COMMENT" | "ACL" | "SECURITY LABEL")
}

/// Whether all of an entry's definition is known, byte for byte.
fn is_whole(entry: &ContentsEntry) -> bool {
    !entry.cut && !entry.definition.contains(char::REPLACEMENT_CHARACTER)
}

/// An entry's statement in one line, cut where it is long. Connections and options may hold passwords, and are left out.
fn statement(entry: &ContentsEntry) -> String {
    let shown = match entry.kind.as_str() {
        "SUBSCRIPTION" | "SERVER" | "FOREIGN DATA WRAPPER" | "USER MAPPING" => without_literals(&entry.definition),
        "FUNCTION" | "PROCEDURE" => entry.definition.split("\n    AS ").next().unwrap_or_default().to_owned(),
        _ => entry.definition.clone(),
    };
    let line = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(STATEMENT) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Statements with `'…'` for each string in them, to the end for one that is cut. Strings are as pg_dump writes them: a quote is doubled, and in
/// those that begin with an E a backslash takes the next character along.
fn without_literals(statements: &str) -> String {
    let mut shown = String::new();
    let mut characters = statements.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                shown.push(character);
                for inner in characters.by_ref() {
                    shown.push(inner);
                    if inner == '"' {
                        break;
                    }
                }
            }
            '\'' => {
                let escapes = shown.ends_with('E');
                shown.push_str("'…'");
                while let Some(inner) = characters.next() {
                    if inner == '\\' && escapes {
                        characters.next();
                    } else if inner == '\'' && characters.next_if_eq(&'\'').is_none() {
                        break;
                    }
                }
            }
            _ => shown.push(character),
        }
    }
    shown
}

/// Kinds of which pg_restore says the owner.
fn has_owner(kind: &str) -> bool {
    matches!(
        kind,
        "AGGREGATE"
            | "BLOB"
            | "BLOB METADATA"
            | "COLLATION"
            | "CONVERSION"
            | "DOMAIN"
            | "EVENT TRIGGER"
            | "FOREIGN DATA WRAPPER"
            | "FOREIGN TABLE"
            | "FUNCTION"
            | "MATERIALIZED VIEW"
            | "OPERATOR"
            | "OPERATOR CLASS"
            | "OPERATOR FAMILY"
            | "PROCEDURAL LANGUAGE"
            | "PROCEDURE"
            | "PUBLICATION"
            | "SCHEMA"
            | "SEQUENCE"
            | "SERVER"
            | "STATISTICS"
            | "SUBSCRIPTION"
            | "TABLE"
            | "TEXT SEARCH CONFIGURATION"
            | "TEXT SEARCH DICTIONARY"
            | "TYPE"
            | "VIEW"
    )
}

#[cfg(test)]
mod tests;

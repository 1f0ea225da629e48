//! Users and roles: what a backup holds of them, under the names that they get, held against what a server has. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use holdfast_crds::{OnExisting, Reason};

use crate::archive::mongodump::{AUTH_DATABASE, List, Namespace};
use crate::engine;
use crate::task::Failure;

/// Most bytes of users and roles that are read from a backup: they are kept in memory. A user has about one KiB.
const MAX_BYTES: usize = 16 << 20;
/// The form of users and roles since MongoDB 3.0, and the only one that is restored.
const SCHEMA_VERSION: i64 = 5;
/// The document that says which form they have; servers since 8.1 have none.
const SCHEMA: &str = "authSchema";

/// List, database and name: what tells one user or role from another.
pub(super) type Key = (List, String, String);

/// What a backup's stream held of users and roles.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    documents: Vec<(List, Document)>,
    bytes: usize,
    /// Whether they are those of a whole deployment.
    whole: bool,
}

impl Held {
    /// There is such a list in the backup.
    pub fn begin(&mut self, namespace: &Namespace) {
        self.whole |= namespace.database == AUTH_DATABASE;
    }

    /// Takes a document of a list.
    pub fn take(&mut self, list: List, document: &RawDocument) -> Result<(), Failure> {
        self.bytes += document.as_bytes().len();
        if self.bytes > MAX_BYTES {
            return Err(Failure::new(
                Reason::InvalidConfiguration,
                format!(
                    "users and roles of the backup take more than {} MiB: leave includeUsersAndRoles out of into, and restore them with mongorestore",
                    MAX_BYTES >> 20
                ),
            ));
        }
        let document = Document::try_from(document).map_err(|error| broken(&error.to_string()))?;
        self.documents.push((list, document));
        Ok(())
    }

    /// The users and roles that are wanted. `databases` says for each database that is restored what it is called there; all of a whole
    /// deployment's are wanted where there is `all`. Who gets another name gets an identity of their own as well, by `identity`.
    pub fn wanted(
        &self,
        databases: &BTreeMap<String, String>,
        all: bool,
        mut identity: impl FnMut() -> Bson,
    ) -> Result<Vec<Principal>, Failure> {
        let mut wanted = BTreeMap::new();
        for (list, document) in &self.documents {
            let name = match list {
                List::Users => "user",
                List::Roles => "role",
                List::Version => {
                    known(document)?;
                    continue;
                }
            };
            let text = |field: &str| document.get_str(field).map_err(|_| broken(&format!("one without {field}")));
            let (from, name) = (text("db")?, text(name)?);
            let to = match databases.get(from) {
                Some(to) => to.as_str(),
                None if all && self.whole => from,
                // An archive of one database has no say over the users of another.
                None => continue,
            };
            let mut document = document.clone();
            if to != from {
                rename(&mut document, from, to, name);
                if document.contains_key("userId") {
                    document.insert("userId", identity());
                }
            }
            wanted.insert((*list, to.to_owned(), name.to_owned()), document);
        }
        Ok(wanted.into_iter().map(|(key, document)| Principal { key, document }).collect())
    }
}

/// A user or role.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Principal {
    /// Who.
    pub key: Key,
    /// As the server keeps it.
    pub document: Document,
}

/// What a restore does to a server's users and roles.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Merge {
    /// Those that are not there.
    pub create: Vec<Principal>,
    /// Those that are there and are others.
    pub replace: Vec<Principal>,
    /// How many are there as they were.
    pub same: usize,
    /// The user who restores, who is another in the backup, and stays.
    pub spared: Option<String>,
}

impl Merge {
    /// Holds what is wanted against what is there. `own` are the users who restore.
    ///
    /// # Errors
    /// Where something would be replaced and may not: [`Reason::TargetNotEmpty`], with `place` in front.
    pub fn plan(
        wanted: Vec<Principal>,
        present: &BTreeMap<Key, Document>,
        own: &BTreeSet<Key>,
        on_existing: OnExisting,
        place: &str,
    ) -> Result<Self, Failure> {
        let mut merge = Self::default();
        for principal in wanted {
            match present.get(&principal.key) {
                None => merge.create.push(principal),
                Some(document) if is_same(document, &principal.document) => merge.same += 1,
                Some(_) if own.contains(&principal.key) => merge.spared = Some(name(&principal.key)),
                Some(_) => merge.replace.push(principal),
            }
        }
        match (on_existing, merge.replace.first()) {
            (OnExisting::Fail, Some(first)) => {
                let more = match merge.replace.len() {
                    1 => "it".to_owned(),
                    several => format!("{several} users and roles"),
                };
                Err(engine::not_empty(
                    &format!(
                        "{place}: {} is there already and not as in the backup ({more} would be replaced)",
                        name(&first.key)
                    ),
                    "use onExisting: Replace, or leave includeUsersAndRoles out of into",
                ))
            }
            _ => Ok(merge),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.replace.is_empty()
    }

    /// The databases of which something changes, and whether something is replaced there.
    pub fn databases(&self) -> BTreeMap<&str, bool> {
        let mut databases = BTreeMap::new();
        for principal in &self.create {
            databases.entry(principal.key.1.as_str()).or_insert(false);
        }
        for principal in &self.replace {
            databases.insert(principal.key.1.as_str(), true);
        }
        databases
    }

    /// What the server is to take over. To replace, it takes the whole list of a database and drops whoever is not on it: so those that are
    /// there and stay go along as they are.
    pub fn documents(&self, present: &BTreeMap<Key, Document>) -> BTreeMap<List, Vec<Document>> {
        let mut documents: BTreeMap<List, Vec<Document>> = BTreeMap::new();
        let changed: BTreeSet<&Key> = self.create.iter().chain(&self.replace).map(|principal| &principal.key).collect();
        for principal in self.create.iter().chain(&self.replace) {
            documents.entry(principal.key.0).or_default().push(principal.document.clone());
        }
        let databases = self.databases();
        for (key, document) in present {
            if databases.get(key.1.as_str()) == Some(&true) && !changed.contains(key) {
                documents.entry(key.0).or_default().push(document.clone());
            }
        }
        documents
    }

    /// Whether it was done and nobody else was touched; otherwise what is not as it should be.
    pub fn missed(&self, before: &BTreeMap<Key, Document>, after: &BTreeMap<Key, Document>) -> Option<String> {
        for principal in self.create.iter().chain(&self.replace) {
            match after.get(&principal.key) {
                None => return Some(format!("{} is not there", name(&principal.key))),
                Some(document) if !is_same(document, &principal.document) => {
                    return Some(format!("{} is not as in the backup", name(&principal.key)));
                }
                Some(_) => {}
            }
        }
        let gone = before.keys().find(|key| !after.contains_key(*key));
        gone.map(|key| format!("{} was there before and is not any more", name(key)))
    }

    /// `2 users and 1 role restored, 1 was there as it was`.
    pub fn in_words(&self) -> String {
        let of = |list| self.create.iter().chain(&self.replace).filter(|principal| principal.key.0 == list).count();
        let several = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let mut words =
            format!("{} and {} restored", several(of(List::Users), "user"), several(of(List::Roles), "role"));
        match self.same {
            0 => {}
            1 => words.push_str(", 1 was there as in the backup"),
            more => {
                let _ = write!(words, ", {more} were there as in the backup");
            }
        }
        if let Some(spared) = &self.spared {
            let _ = write!(words, ", {spared} restores and was left as it is");
        }
        words
    }
}

/// `user app of shop`.
pub(super) fn name((list, database, name): &Key) -> String {
    let kind = if *list == List::Roles { "role" } else { "user" };
    format!("{kind} {name} of {database}")
}

/// A form of users that cannot be restored is told, and not tried.
fn known(version: &Document) -> Result<(), Failure> {
    if !version.get_str("_id").is_ok_and(|id| id == SCHEMA) {
        return Ok(());
    }
    let found = match version.get("currentVersion") {
        Some(Bson::Int32(version)) => i64::from(*version),
        Some(Bson::Int64(version)) => *version,
        #[allow(clippy::cast_possible_truncation, reason = "a small number, and the cast saturates")]
        Some(Bson::Double(version)) => *version as i64,
        _ => return Err(broken("the version of their form")),
    };
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    Err(Failure::new(
        Reason::InvalidConfiguration,
        format!(
            "users and roles of the backup have the form {found} of an old server, and only {SCHEMA_VERSION} is restored: leave \
             includeUsersAndRoles out of into, and make them by hand"
        ),
    ))
}

/// A user or role of a database as one of another database, with the same rights there.
fn rename(document: &mut Document, from: &str, to: &str, name: &str) {
    document.insert("_id", format!("{to}.{name}"));
    document.insert("db", to);
    let moved = |document: &mut Document| {
        if document.get_str("db").is_ok_and(|db| db == from) {
            document.insert("db", to);
        }
    };
    if let Ok(roles) = document.get_array_mut("roles") {
        roles.iter_mut().filter_map(Bson::as_document_mut).for_each(moved);
    }
    if let Ok(privileges) = document.get_array_mut("privileges") {
        for privilege in privileges.iter_mut().filter_map(Bson::as_document_mut) {
            if let Ok(resource) = privilege.get_document_mut("resource") {
                moved(resource);
            }
        }
    }
}

/// Whether two are the same, whatever identity the server gave them and in whatever order it tells their rights.
fn is_same(one: &Document, other: &Document) -> bool {
    fn essence(document: &Document) -> BTreeMap<&str, String> {
        let mut fields = BTreeMap::new();
        for (field, value) in document {
            match value {
                _ if matches!(field.as_str(), "_id" | "userId") => {}
                Bson::Array(list) if list.is_empty() => {}
                Bson::Array(list) => {
                    let mut entries: Vec<String> = list.iter().map(ordered).collect();
                    entries.sort_unstable();
                    fields.insert(field.as_str(), entries.join(" "));
                }
                value => {
                    fields.insert(field.as_str(), ordered(value));
                }
            }
        }
        fields
    }
    essence(one) == essence(other)
}

/// A value as text, with the lists in it sorted.
fn ordered(value: &Bson) -> String {
    match value {
        Bson::Array(list) => {
            let mut entries: Vec<String> = list.iter().map(ordered).collect();
            entries.sort_unstable();
            format!("[{}]", entries.join(","))
        }
        Bson::Document(document) => {
            let fields: Vec<String> =
                document.iter().map(|(field, value)| format!("{field:?}:{}", ordered(value))).collect();
            format!("{{{}}}", fields.join(","))
        }
        value => format!("{value:?}"),
    }
}

fn broken(why: &str) -> Failure {
    Failure::new(Reason::SourceIncomplete, format!("users and roles of the backup cannot be read: {why}"))
}

/// What a server has, by who it is.
pub(super) fn by_key(list: List, documents: Vec<RawDocumentBuf>) -> Result<BTreeMap<Key, Document>, Failure> {
    let field = if list == List::Roles { "role" } else { "user" };
    let mut by_key = BTreeMap::new();
    for document in documents {
        let document = Document::try_from(document).map_err(|error| broken(&error.to_string()))?;
        let text = |field: &str| {
            document.get_str(field).map(str::to_owned).map_err(|_| broken(&format!("one without {field}")))
        };
        by_key.insert((list, text("db")?, text(field)?), document.clone());
    }
    Ok(by_key)
}

#[cfg(test)]
#[path = "users/tests.rs"]
mod tests;

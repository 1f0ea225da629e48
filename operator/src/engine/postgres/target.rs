//! What a restore would meet: which databases it is for, and what is in their places. Asks the server, touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_crds::{OnExisting, Reason};
use serde::Deserialize;

use super::clients::Client;
use super::database::DatabaseFacts;
use super::dump::{CUSTOM, GLOBALS, SQL};
use super::rights;
use super::server::Server;
use crate::archive::table_name::{TableName, quote_identifier};
use crate::engine;
use crate::store::manifest::{ArtifactEntry, Manifest};
use crate::task::{Failure, PostgresTarget};

/// Most entries of an archive's table of contents that are restored in one transaction: each may take locks until its end.
const ENTRIES_IN_ONE_TRANSACTION: u64 = 3000;
/// Comments of what a restore makes for its own time begin with this.
pub(super) const OURS: &str = "holdfast: ";

/// One database of a backup and its place on the target.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Its artifact.
    pub entry: &'a ArtifactEntry,
    /// Name of the database on the target.
    pub database: String,
    /// What it was besides its contents.
    pub facts: DatabaseFacts,
}

/// What a backup holds for this target.
#[derive(Debug)]
pub(super) struct Backup<'a> {
    /// Databases, at least one.
    pub databases: Vec<Wanted<'a>>,
    /// Roles and tablespaces.
    pub globals: Option<&'a ArtifactEntry>,
}

impl<'a> Backup<'a> {
    /// Reads the manifest.
    pub fn of(manifest: &'a Manifest, target: &PostgresTarget) -> Result<Self, Failure> {
        let invalid = |message: String| Failure::new(Reason::InvalidConfiguration, message);
        let mut backup = Self { databases: Vec::new(), globals: None };
        for entry in &manifest.artifacts {
            match (entry.format.as_str(), &entry.database) {
                (GLOBALS, _) => backup.globals = Some(entry),
                (CUSTOM | SQL, Some(database)) => {
                    let facts = DatabaseFacts::from_properties(&entry.properties);
                    backup.databases.push(Wanted { entry, database: database.clone(), facts });
                }
                (format, _) => {
                    return Err(invalid(format!(
                        "the backup's artifact {} has the format {format}, which this version of Holdfast does not restore",
                        entry.name
                    )));
                }
            }
        }
        match (&target.database, backup.databases.as_mut_slice()) {
            (_, []) => return Err(invalid("the backup holds no database".to_owned())),
            (None, _) => {}
            (Some(name), [one]) => one.database.clone_from(name),
            (Some(name), several) => {
                let names: Vec<&str> = several.iter().map(|wanted| wanted.database.as_str()).collect();
                return Err(invalid(format!(
                    "into names the one database {name}, and the backup holds {}: leave database out, and each goes where it came from",
                    names.join(", ")
                )));
            }
        }
        Ok(backup)
    }
}

/// What stands in a wanted database's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing: it will be made.
    Free,
    /// An empty database: it will be filled.
    Empty,
    /// A database with data: it will be replaced.
    Taken,
}

/// A target found fit.
#[derive(Debug)]
pub(super) struct Fit {
    /// What stands in the place of each wanted database.
    pub places: Vec<Place>,
    /// Who owns what stands there.
    pub owners: Vec<Option<String>>,
    /// The tools to restore with.
    pub client: Client,
    /// Roles on the target, and whether the restoring role may act for them.
    pub roles: BTreeMap<String, RoleFacts>,
    /// Tablespaces on the target.
    pub tablespaces: BTreeSet<String>,
}

/// A role on the target.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RoleFacts {
    name: String,
    /// Whether the restoring role may give it objects and go on working with them.
    pub acts: bool,
    /// Whether it may make itself one who may.
    pub takeable: bool,
    /// Comment on it.
    pub comment: Option<String>,
}

impl RoleFacts {
    /// Whether an earlier restore made it for its own time and could not remove it.
    pub fn is_leftover(&self) -> bool {
        self.comment.as_deref().is_some_and(|comment| comment.starts_with(OURS))
    }
}

#[derive(Deserialize)]
struct Existing {
    name: String,
    connectable: bool,
    mine: bool,
    owner: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Available {
    name: String,
    allowed: bool,
}

#[derive(Deserialize)]
struct Contents {
    kind: String,
    count: i64,
    example: Option<String>,
}

#[derive(Deserialize)]
struct Rights {
    create: bool,
    create_in_public: bool,
}

const EXISTING: &str = "SELECT datname AS name, datallowconn AS connectable, pg_has_role(datdba, 'USAGE') AS mine,
  pg_get_userbyid(datdba) AS owner FROM pg_database";

/// Before version 16 a member may act for a role, and its privileges count at once unless it has NOINHERIT.
const ROLES: &str =
    "SELECT rolname AS name, pg_has_role(oid, 'MEMBER') AND pg_has_role(oid, 'USAGE') AS acts, false AS takeable,
  shobj_description(oid, 'pg_authid') AS comment FROM pg_roles";

/// From version 16 on a member may have neither the privileges of a role nor the right to act for it, as one who has only made the role.
/// Who administers it may give himself both, and take them back if that is the only grant of his own.
const ROLES_16: &str = "SELECT r.rolname AS name, pg_has_role(r.oid, 'SET') AND pg_has_role(r.oid, 'USAGE') AS acts,
  NOT r.rolsuper AND EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid AND m.member = me.oid AND m.admin_option)
    AND NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid AND m.member = me.oid AND m.grantor = me.oid) AS takeable,
  shobj_description(r.oid, 'pg_authid') AS comment FROM pg_roles r, (SELECT oid FROM pg_roles WHERE rolname = current_user) me";

const TABLESPACES: &str = "SELECT spcname AS name FROM pg_tablespace";

const RIGHTS: &str = "SELECT has_database_privilege(current_database(), 'CREATE') AS create,
  coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'public'), true) AS create_in_public";

/// Extensions that can be had; allowed: without being a superuser.
const EXTENSIONS: &str =
    "SELECT name, bool_or(coalesce((to_jsonb(v) ->> 'trusted')::boolean, false) OR NOT superuser) AS allowed
  FROM pg_available_extension_versions v GROUP BY name";

/// Everything that a user made and that is no part of an extension.
const CONTENTS: &str = "
SELECT o.kind, count(*) AS count, min(o.name) AS example FROM (
  SELECT CASE c.relkind WHEN 'v' THEN 'views' WHEN 'm' THEN 'materialized views' WHEN 'S' THEN 'sequences'
                        WHEN 'f' THEN 'foreign tables' WHEN 'c' THEN 'types' ELSE 'tables' END AS kind,
         format('%I.%I', n.nspname, c.relname) AS name, 'pg_class'::regclass AS classid, c.oid, c.relnamespace AS schema
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
  UNION ALL SELECT 'functions', format('%I.%I', n.nspname, p.proname), 'pg_proc'::regclass, p.oid, p.pronamespace
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  UNION ALL SELECT 'types', format('%I.%I', n.nspname, t.typname), 'pg_type'::regclass, t.oid, t.typnamespace
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r')
  UNION ALL SELECT 'schemas', quote_ident(nspname), 'pg_namespace'::regclass, oid, oid FROM pg_namespace
  UNION ALL SELECT 'large objects', oid::text, 'pg_largeobject'::regclass, oid, 0 FROM pg_largeobject_metadata
) o LEFT JOIN pg_namespace n ON n.oid = o.schema
WHERE (o.oid >= 16384 OR o.kind = 'large objects') AND (n.nspname IS NULL OR n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
  AND NOT (o.kind = 'schemas' AND n.nspname = 'public')
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.classid AND e.objid = o.oid AND e.deptype = 'e')
GROUP BY o.kind ORDER BY array_position(ARRAY['tables', 'materialized views', 'foreign tables', 'views', 'sequences'], o.kind), o.kind";

/// Looks at a target and decides whether the restore may begin.
pub(super) async fn assess(
    server: &Server,
    backup: &Backup<'_>,
    manifest: &Manifest,
    on_existing: OnExisting,
) -> Result<Fit, Failure> {
    let client = versions(server, backup, manifest)?;
    if server.facts.standby {
        return Err(refused(format!("{}: it is a standby: restore into the primary", server.place(None))));
    }
    let maintenance = server.maintenance.as_str();
    // Each question is a session of its own: side by side they take the time of one.
    let (existing, roles, tablespaces, available) = tokio::try_join!(
        server.ask::<Existing>(maintenance, EXISTING, Reason::SourceRefused),
        server.ask::<RoleFacts>(
            maintenance,
            if server.facts.major() < 16 { ROLES } else { ROLES_16 },
            Reason::SourceRefused
        ),
        server.ask::<Named>(maintenance, TABLESPACES, Reason::SourceRefused),
        server.ask::<Available>(maintenance, EXTENSIONS, Reason::SourceRefused),
    )?;
    let mut places = Vec::with_capacity(backup.databases.len());
    let mut owners = Vec::with_capacity(backup.databases.len());
    for wanted in &backup.databases {
        let found = existing.iter().find(|existing| existing.name == wanted.database);
        // The database of a role that the restoring one administers is as good as its own.
        let mine = found.is_some_and(|found| {
            found.mine || roles.iter().any(|role| role.name == found.owner && role.takeable && !role.is_leftover())
        });
        places.push(place(server, wanted, found, mine, on_existing).await?);
        owners.push(found.map(|found| found.owner.clone()));
    }
    extensions(server, backup, &places, &available).await?;
    Ok(Fit {
        places,
        owners,
        client,
        roles: roles.into_iter().map(|role| (role.name.clone(), role)).collect(),
        tablespaces: tablespaces.into_iter().map(|tablespace| tablespace.name).collect(),
    })
}

/// The names of all databases of a server.
pub(super) async fn databases(server: &Server) -> Result<BTreeSet<String>, Failure> {
    let existing = server.ask::<Existing>(&server.maintenance, EXISTING, Reason::SourceRefused).await?;
    Ok(existing.into_iter().map(|existing| existing.name).collect())
}

/// Whether a database is restored in one transaction.
pub(super) fn in_one_transaction(entry: &ArtifactEntry) -> bool {
    let entries = entry.properties.get("tocEntries").and_then(|count| count.parse::<u64>().ok());
    entries.is_none_or(|count| count <= ENTRIES_IN_ONE_TRANSACTION) && !entry.properties.contains_key("ownTransactions")
}

/// What a database holds, in words; none: nothing.
pub(super) async fn contents(server: &Server, database: &str) -> Result<Option<String>, Failure> {
    let found: Vec<Contents> = server.ask(database, CONTENTS, Reason::SourceRefused).await?;
    let Some(first) = found.first() else { return Ok(None) };
    let counts: Vec<String> = found
        .iter()
        .map(|contents| match contents.count {
            1 => format!("1 {}", contents.kind.trim_end_matches('s')),
            count => format!("{count} {}", contents.kind),
        })
        .collect();
    let example =
        first.example.as_deref().map(|name| format!(", e.g. {}", name.replace('\n', " "))).unwrap_or_default();
    Ok(Some(format!("{}{example}", counts.join(", "))))
}

fn refused(message: String) -> Failure {
    Failure::new(Reason::SourceRefused, message)
}

/// The major version of the tool that wrote an artifact.
pub(super) fn archive_major(entry: &ArtifactEntry, manifest: &Manifest) -> Option<u32> {
    let version = entry.properties.get("archiveDumpVersion").or(Some(&manifest.tool_version))?;
    major(version)
}

/// The first whole number of a version in words: 15 of `pg_dump 15.18 (Debian …)`.
fn major(version: &str) -> Option<u32> {
    let word = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    word[..end].parse().ok()
}

fn versions(server: &Server, backup: &Backup<'_>, manifest: &Manifest) -> Result<Client, Failure> {
    if let Some(saved) = major(&manifest.server_version)
        && saved > server.facts.major()
    {
        return Err(Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "{}: the backup is of PostgreSQL {} and this server is {}: PostgreSQL restores into the same or a newer major version only",
                server.place(None),
                manifest.server_version,
                server.facts.version
            ),
        ));
    }
    // SQL is for psql, of which the newest is taken anyhow.
    let archives = backup.databases.iter().filter(|wanted| wanted.entry.format == CUSTOM);
    let archive = archives.filter_map(|wanted| archive_major(wanted.entry, manifest)).max();
    server.clients.to_restore(server.facts.major(), archive.unwrap_or_default())
}

async fn place(
    server: &Server,
    wanted: &Wanted<'_>,
    existing: Option<&Existing>,
    mine: bool,
    on_existing: OnExisting,
) -> Result<Place, Failure> {
    let database = &wanted.database;
    let here = server.place(None);
    let Some(existing) = existing else {
        return if server.facts.create_database {
            Ok(Place::Free)
        } else {
            Err(refused(format!(
                "{here}: there is no database {database} and the role may not make one: grant it CREATEDB, or make the database, empty and \
                 owned by the role"
            )))
        };
    };
    if !existing.connectable {
        return Err(refused(format!(
            "{here}: database {database} accepts no connections (ALLOW_CONNECTIONS is false)"
        )));
    }
    let Some(found) = contents(server, database).await? else {
        return empty(server, wanted).await;
    };
    match on_existing {
        OnExisting::Fail => Err(engine::not_empty(
            &format!("database {database} on {} holds {found}", server.login.address()),
            "use onExisting: Replace, or name another database in into",
        )),
        OnExisting::Replace if !(server.facts.create_database && mine) => Err(refused(format!(
            "{here}: to replace database {database} the role must be its owner (or a member of it) and have CREATEDB"
        ))),
        OnExisting::Replace => Ok(Place::Taken),
    }
}

async fn empty(server: &Server, wanted: &Wanted<'_>) -> Result<Place, Failure> {
    let database = &wanted.database;
    let rights: Rights = server.ask_one(database, RIGHTS, Reason::SourceRefused).await?;
    let in_public = wanted
        .entry
        .item_counts
        .iter()
        .any(|item| TableName::parse(&item.name).is_some_and(|name| name.schema == "public"));
    if !rights.create || (in_public && !rights.create_in_public) {
        return Err(refused(format!(
            "{}: the role may not create in it: make the role the owner of the database",
            server.place(Some(database))
        )));
    }
    Ok(Place::Empty)
}

async fn extensions(
    server: &Server,
    backup: &Backup<'_>,
    places: &[Place],
    available: &[Available],
) -> Result<(), Failure> {
    let wanted: BTreeSet<&str> =
        backup.databases.iter().flat_map(|wanted| &wanted.entry.extensions).map(String::as_str).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let missing: Vec<&str> =
        wanted.iter().copied().filter(|name| !available.iter().any(|extension| extension.name == **name)).collect();
    if !missing.is_empty() {
        return Err(Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "{}: the backup needs extensions that are not installed on this server: {}; install their packages there",
                server.place(None),
                missing.join(", ")
            ),
        ));
    }
    if server.facts.superuser {
        return Ok(());
    }
    // An extension that is there already needs no right to be made.
    let mut refused_ones = BTreeSet::new();
    for (wanted, place) in backup.databases.iter().zip(places) {
        // A database that is not there yet is made before it can be asked.
        if *place != Place::Empty {
            continue;
        }
        let needing: Vec<&String> = wanted
            .entry
            .extensions
            .iter()
            .filter(|name| available.iter().any(|extension| extension.name == **name && !extension.allowed))
            .collect();
        if needing.is_empty() {
            continue;
        }
        // What its control file says is not all: a managed server may let this role make it.
        refused_ones.extend(rights::try_extensions(server, &wanted.database, &needing).await?.refused);
    }
    if refused_ones.is_empty() {
        return Ok(());
    }
    Err(extensions_refused(&server.place(None), &refused_ones))
}

/// The failure of extensions that the server does not let the role make.
pub(super) fn extensions_refused(place: &str, names: &BTreeSet<String>) -> Failure {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let statements: Vec<String> =
        names.iter().map(|name| format!("CREATE EXTENSION {} CASCADE;", quote_identifier(name))).collect();
    refused(format!(
        "{place}: only a superuser may create the extensions {}: restore with a superuser, or have one run in the empty database before: {}",
        names.join(", "),
        statements.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_out_of_words() {
        assert_eq!(major("pg_dump 15.18"), Some(15));
        assert_eq!(major("18beta1 (Debian)"), Some(18));
        assert_eq!(major("15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("unknown"), None);
    }

    #[test]
    fn large_archives_are_not_restored_in_one_transaction() {
        let entry = |entries: Option<&str>| ArtifactEntry {
            properties: entries.map(|count| ("tocEntries".to_owned(), count.to_owned())).into_iter().collect(),
            ..ArtifactEntry::default()
        };
        assert!(in_one_transaction(&entry(None)));
        assert!(in_one_transaction(&entry(Some("3000"))));
        assert!(!in_one_transaction(&entry(Some("3001"))));
        let mut text = entry(None);
        text.properties.insert("ownTransactions".into(), "true".into());
        assert!(!in_one_transaction(&text));
    }
}

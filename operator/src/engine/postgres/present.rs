//! Compares what an archive's table of contents names with what is in the catalogues after the restore, kind by kind. Asks the server.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_crds::Reason;

use super::foresee::Foreseen;
use super::server::{Server, Unanswered};
use crate::archive::pgdump::contents::ContentsEntry;
use crate::archive::pgdump::rewrite::Change;
use crate::task::Failure;

/// Most of what is missing is named up to this many.
const NAMED: usize = 5;

/// Kinds of entries and the query that gives, of what is there, the names that a table of contents has for them, each behind its schema.
/// Of functions and their like only the number in each schema is compared: their names there have arguments in pg_dump's own words.
const KINDS: &[(&[&str], &str)] = &[
    (
        &["TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "FOREIGN TABLE", "INDEX"],
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace",
    ),
    (
        &["TYPE", "DOMAIN", "SHELL TYPE"],
        "SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace",
    ),
    (
        &["CONSTRAINT", "FK CONSTRAINT", "CHECK CONSTRAINT"],
        "SELECT n.nspname, coalesce(c.relname, t.typname) || ' ' || o.conname FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace
           LEFT JOIN pg_class c ON c.oid = o.conrelid LEFT JOIN pg_type t ON t.oid = o.contypid",
    ),
    (
        &["DEFAULT"],
        "SELECT n.nspname, c.relname || ' ' || a.attname FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid
           JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.adnum",
    ),
    (
        &["TRIGGER"],
        "SELECT n.nspname, c.relname || ' ' || t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace",
    ),
    (
        &["RULE"],
        "SELECT n.nspname, c.relname || ' ' || r.rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace",
    ),
    (
        &["POLICY"],
        "SELECT n.nspname, c.relname || ' ' || p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace",
    ),
    (
        &["ROW SECURITY"],
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relrowsecurity",
    ),
    (
        &["COLLATION"],
        "SELECT n.nspname, o.collname FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace",
    ),
    (
        &["CONVERSION"],
        "SELECT n.nspname, o.conname FROM pg_conversion o JOIN pg_namespace n ON n.oid = o.connamespace",
    ),
    (
        &["STATISTICS"],
        "SELECT n.nspname, o.stxname FROM pg_statistic_ext o JOIN pg_namespace n ON n.oid = o.stxnamespace",
    ),
    (
        &["TEXT SEARCH CONFIGURATION"],
        "SELECT n.nspname, o.cfgname FROM pg_ts_config o JOIN pg_namespace n ON n.oid = o.cfgnamespace",
    ),
    (
        &["TEXT SEARCH DICTIONARY"],
        "SELECT n.nspname, o.dictname FROM pg_ts_dict o JOIN pg_namespace n ON n.oid = o.dictnamespace",
    ),
    (&["SCHEMA"], "SELECT '', nspname FROM pg_namespace"),
    (&["EXTENSION"], "SELECT '', extname FROM pg_extension"),
    (&["EVENT TRIGGER"], "SELECT '', evtname FROM pg_event_trigger"),
    (&["PUBLICATION"], "SELECT '', pubname FROM pg_publication"),
    (
        &["PUBLICATION TABLE"],
        "SELECT n.nspname, p.pubname || ' ' || c.relname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
           JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace",
    ),
    (
        &["SUBSCRIPTION"],
        "SELECT '', subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    ),
    (&["SERVER"], "SELECT '', srvname FROM pg_foreign_server"),
    (&["FOREIGN DATA WRAPPER"], "SELECT '', fdwname FROM pg_foreign_data_wrapper"),
    (&["PROCEDURAL LANGUAGE"], "SELECT '', lanname FROM pg_language"),
    (&["ACCESS METHOD"], "SELECT '', amname FROM pg_am"),
    (
        &["USER MAPPING"],
        "SELECT '', 'USER MAPPING ' || usename || ' SERVER ' || srvname FROM pg_user_mappings",
    ),
];

/// Kinds of which only the number in each schema is compared.
const COUNTED: &[(&[&str], &str)] = &[
    (
        &["FUNCTION", "PROCEDURE", "AGGREGATE"],
        "SELECT n.nspname, count(*) FROM pg_proc o JOIN pg_namespace n ON n.oid = o.pronamespace GROUP BY 1",
    ),
    (
        &["OPERATOR"],
        "SELECT n.nspname, count(*) FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace GROUP BY 1",
    ),
    (
        &["OPERATOR CLASS"],
        "SELECT n.nspname, count(*) FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace GROUP BY 1",
    ),
    (
        &["OPERATOR FAMILY"],
        "SELECT n.nspname, count(*) FROM pg_opfamily o JOIN pg_namespace n ON n.oid = o.opfnamespace GROUP BY 1",
    ),
    (&["CAST"], "SELECT '', count(*) FROM pg_cast WHERE oid >= 16384"),
    (&["TRANSFORM"], "SELECT '', count(*) FROM pg_transform WHERE oid >= 16384"),
];

/// Fails where something that was to be restored is not there.
pub(super) async fn confirm(server: &Server, database: &str, foreseen: &Foreseen) -> Result<(), Failure> {
    let restored: Vec<&ContentsEntry> = foreseen
        .entries
        .iter()
        .filter(|entry| foreseen.decision.changes.get(&entry.id) != Some(&Change::LeaveOut))
        // A name in another encoding than ours cannot be compared.
        .filter(|entry| {
            !entry.tag.contains(char::REPLACEMENT_CHARACTER) && !entry.schema.contains(char::REPLACEMENT_CHARACTER)
        })
        .collect();
    let mut missing = Vec::new();
    for (kinds, query) in KINDS {
        let named: Vec<&&ContentsEntry> =
            restored.iter().filter(|entry| kinds.contains(&entry.kind.as_str())).collect();
        if named.is_empty() {
            continue;
        }
        let there: BTreeSet<(String, String)> = pairs(server, database, query).await?.into_iter().collect();
        missing.extend(
            named
                .into_iter()
                .filter(|entry| !there.contains(&(in_schema(entry), entry.tag.clone())))
                .map(|entry| format!("{} {}", entry.kind.to_lowercase(), name(entry))),
        );
    }
    for (kinds, query) in COUNTED {
        let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
        for entry in restored.iter().filter(|entry| kinds.contains(&entry.kind.as_str())) {
            *wanted.entry(entry.schema.clone()).or_default() += 1;
        }
        if wanted.is_empty() {
            continue;
        }
        let by_schema = kinds.first() != Some(&"CAST") && kinds.first() != Some(&"TRANSFORM");
        if !by_schema {
            wanted = BTreeMap::from([(String::new(), wanted.values().sum())]);
        }
        let there: BTreeMap<String, u64> = pairs(server, database, query)
            .await?
            .into_iter()
            .filter_map(|(schema, count)| Some((schema, count.parse().ok()?)))
            .collect();
        for (schema, count) in wanted {
            let found = there.get(&schema).copied().unwrap_or_default();
            if found < count {
                let kind = kinds.join(", ").to_lowercase();
                missing.push(format!("{} of {count} in schema {schema} ({kind})", count - found));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let shown = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = missing.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Failure::new(
        Reason::RestoreFailed,
        format!(
            "{}: what the backup holds is not there after the restore: {shown}{more}: does something drop it, such as an event trigger?",
            server.place(Some(database))
        ),
    ))
}

/// The catalogues know the schema of some things that are in none to pg_dump.
fn in_schema(entry: &ContentsEntry) -> String {
    match entry.kind.as_str() {
        "SCHEMA"
        | "EXTENSION"
        | "EVENT TRIGGER"
        | "PUBLICATION"
        | "SUBSCRIPTION"
        | "SERVER"
        | "FOREIGN DATA WRAPPER"
        | "PROCEDURAL LANGUAGE"
        | "ACCESS METHOD"
        | "USER MAPPING" => String::new(),
        _ => entry.schema.clone(),
    }
}

fn name(entry: &ContentsEntry) -> String {
    let schema = in_schema(entry);
    let name = if schema.is_empty() { entry.tag.clone() } else { format!("{schema}.{}", entry.tag) };
    name.replace('\n', " ")
}

/// Two columns of a query, in a form that any name survives.
async fn pairs(server: &Server, database: &str, query: &str) -> Result<Vec<(String, String)>, Failure> {
    let script = format!("SELECT json_build_array(a::text, b::text) FROM ({query}) t(a, b);\n");
    let failed = |unanswered| server.failure(Some(database), Reason::RestoreFailed, unanswered);
    let answer = server.run(database, &script).await.map_err(failed)?;
    let rows = serde_json::Deserializer::from_slice(&answer).into_iter().collect::<Result<Vec<_>, _>>();
    rows.map_err(|error| failed(Unanswered::Psql(format!("its answer is not understood: {error}"))))
}

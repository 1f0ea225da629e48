//! Compares what an archive's table of contents names with what is in the catalogues after the restore, kind by kind. Asks the server.

use std::collections::BTreeMap;

use holdfast_crds::Reason;

use super::foresee::Foreseen;
use super::server::{Server, Unanswered};
use crate::archive::pgdump::contents::ContentsEntry;
use crate::archive::pgdump::rewrite::Change;
use crate::task::Failure;

/// Most of what is missing is named up to this many.
const NAMED: usize = 5;
/// So many names are asked for at a time, more or less: an answer is read as a whole.
const PAGE: usize = 50_000;

/// Kinds of entries and the query that gives, of what is there, the names that a table of contents has for them, each behind its schema.
/// Of functions and their like only the number in each schema is compared: their names there have arguments in pg_dump's own words. Defaults are
/// not compared: pg_dump names one for an inherited column that has none of its own, and the server keeps nothing of that.
const KINDS: &[(&[&str], &str)] = &[
    (
        &["TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "FOREIGN TABLE", "INDEX"],
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_'",
    ),
    (
        &["TYPE", "DOMAIN", "SHELL TYPE"],
        "SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
           WHERE n.nspname !~ '^pg_' AND (t.typrelid = 0 OR c.relkind = 'c') AND (t.typtype <> 'b' OR t.typcategory <> 'A')",
    ),
    (
        &["CONSTRAINT", "FK CONSTRAINT", "CHECK CONSTRAINT"],
        "SELECT n.nspname, coalesce(c.relname, t.typname) || ' ' || o.conname FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace
           LEFT JOIN pg_class c ON c.oid = o.conrelid LEFT JOIN pg_type t ON t.oid = o.contypid
           WHERE n.nspname !~ '^pg_' AND (o.contype <> 'n' OR NOT o.convalidated)",
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

/// Kinds of which only the number is compared, the catalogue that has them, and its column for the schema; none: all are counted together.
const COUNTED: &[(&[&str], &str, Option<&str>)] = &[
    (&["FUNCTION", "PROCEDURE", "AGGREGATE"], "pg_proc", Some("pronamespace")),
    (&["OPERATOR"], "pg_operator", Some("oprnamespace")),
    (&["OPERATOR CLASS"], "pg_opclass", Some("opcnamespace")),
    (&["OPERATOR FAMILY"], "pg_opfamily", Some("opfnamespace")),
    (&["CAST"], "pg_cast", None),
    (&["TRANSFORM"], "pg_transform", None),
];

/// The query that counts them. What belongs to an extension comes with that, and a table of contents does not name it.
fn count(catalogue: &str, schema: Option<&str>) -> String {
    let own = format!(
        "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalogue}'::regclass AND d.objid = o.oid AND d.deptype = 'e')"
    );
    match schema {
        Some(column) => format!(
            "SELECT n.nspname, count(*) FROM {catalogue} o JOIN pg_namespace n ON n.oid = o.{column} WHERE {own} GROUP BY 1"
        ),
        // From this number on they are not the server's own.
        None => format!("SELECT '', count(*) FROM {catalogue} o WHERE o.oid >= 16384 AND {own}"),
    }
}

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
    if restored.is_empty() || has_no_encoding(server, database).await? {
        return Ok(());
    }
    let mut missing = Vec::new();
    for (kinds, query) in KINDS {
        let named = restored.iter().filter(|entry| kinds.contains(&entry.kind.as_str()));
        let mut left: BTreeMap<(String, String), &str> =
            named.map(|entry| ((in_schema(entry), entry.tag.clone()), entry.kind.as_str())).collect();
        let pages = left.len().div_ceil(PAGE);
        for page in 0..pages {
            for there in pairs(server, database, &paged(query, page, pages)).await? {
                left.remove(&there);
            }
        }
        missing.extend(left.into_iter().map(|((schema, tag), kind)| {
            let name = if schema.is_empty() { tag } else { format!("{schema}.{tag}") };
            format!("{} {}", kind.to_lowercase(), name.replace('\n', " "))
        }));
    }
    for (kinds, catalogue, schema) in COUNTED {
        let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
        for entry in restored.iter().filter(|entry| kinds.contains(&entry.kind.as_str())) {
            let of = if schema.is_some() { entry.schema.clone() } else { String::new() };
            *wanted.entry(of).or_default() += 1;
        }
        if wanted.is_empty() {
            continue;
        }
        let there: BTreeMap<String, u64> = pairs(server, database, &count(catalogue, *schema))
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

/// A part of what a query gives, where that is much.
fn paged(query: &str, page: usize, pages: usize) -> String {
    if pages == 1 {
        return query.to_owned();
    }
    format!("SELECT * FROM ({query}) q(a, b) WHERE mod(abs(hashtext(b::text)::bigint), {pages}) = {page}")
}

/// Whether names of the database may be bytes of any kind, which the server gives to nobody who asks for text.
async fn has_no_encoding(server: &Server, database: &str) -> Result<bool, Failure> {
    let answer = pairs(server, database, "SELECT getdatabaseencoding(), ''").await?;
    Ok(answer.iter().any(|(encoding, _)| encoding == "SQL_ASCII"))
}

/// Two columns of a query, in a form that any name survives.
async fn pairs(server: &Server, database: &str, query: &str) -> Result<Vec<(String, String)>, Failure> {
    let script = format!("SELECT json_build_array(a::text, b::text) FROM ({query}) t(a, b);\n");
    let failed = |unanswered| server.failure(Some(database), Reason::RestoreFailed, unanswered);
    let answer = server.run(database, &script).await.map_err(failed)?;
    let rows = serde_json::Deserializer::from_slice(&answer).into_iter().collect::<Result<Vec<_>, _>>();
    rows.map_err(|error| failed(Unanswered::Psql(format!("its answer is not understood: {error}"))))
}

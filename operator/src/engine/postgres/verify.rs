//! Counts the rows of what was restored and compares them with what passed. Asks the server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use holdfast_crds::Reason;
use serde::Deserialize;

use super::server::Server;
use crate::archive::table_name::TableName;
use crate::engine::Inspection;
use crate::task::Failure;

#[derive(Deserialize)]
struct Extended {
    schema: String,
    name: String,
}

/// Tables of extensions: the extension fills them as well, so that they may hold more than the backup.
const OF_EXTENSIONS: &str = "SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' WHERE c.relkind IN ('r', 'p')";

/// Tables of whose rows even their owner would see a part only.
const FORCED: &str =
    "SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relrowsecurity AND c.relforcerowsecurity
    AND NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)";

/// What the counts are compared with.
struct Expected {
    name: TableName,
    rows: i64,
}

/// Compares every table, and the number of large objects, with what was in the stream. Whatever was restored before is on the disk then.
pub(super) async fn verify(server: &Server, database: &str, inspection: &Inspection) -> Result<i64, Failure> {
    let expected: Vec<Expected> = inspection
        .items
        .iter()
        .filter_map(|item| Some(Expected { name: TableName::parse(&item.name)?, rows: item.count }))
        // A name in another encoding than ours cannot be asked for.
        .filter(|table| !table.name.to_string().contains('\u{fffd}'))
        .collect();
    let forced = server.ask::<Extended>(database, FORCED, Reason::RestoreFailed).await?;
    let forced: BTreeSet<TableName> =
        forced.into_iter().map(|table| TableName::new(table.schema, table.name)).collect();
    let counting = async {
        let answer = server.run(database, &script(&expected, &forced)).await;
        answer.map_err(|unanswered| server.failure(Some(database), Reason::RestoreFailed, unanswered))
    };
    let asking = server.ask::<Extended>(database, OF_EXTENSIONS, Reason::RestoreFailed);
    let (extended, answer) = tokio::try_join!(asking, counting)?;
    let extended: BTreeSet<TableName> =
        extended.into_iter().map(|table| TableName::new(table.schema, table.name)).collect();
    let counted = read(&String::from_utf8_lossy(&answer));
    let wrong = |what: &dyn std::fmt::Display, expected: i64, found: i64| {
        Failure::new(
            Reason::RestoreFailed,
            format!(
                "{}: {what} holds {found} rows after the restore and the backup has {expected}: does something write into it?",
                server.place(Some(database))
            ),
        )
    };
    for (index, table) in expected.iter().enumerate() {
        let found = counted.get(&index.to_string()).copied().unwrap_or(-1);
        let enough = if extended.contains(&table.name) { found >= table.rows } else { found == table.rows };
        if !enough {
            return Err(wrong(&table.name, table.rows, found));
        }
    }
    let objects = inspection.properties.get("largeObjects").and_then(|count| count.parse().ok());
    let found = counted.get("large objects").copied().unwrap_or(-1);
    if let Some(objects) = objects
        && objects != found
    {
        return Err(wrong(&"pg_largeobject", objects, found));
    }
    Ok(expected.iter().map(|table| table.rows).sum())
}

fn script(expected: &[Expected], forced: &BTreeSet<TableName>) -> String {
    // Row-level security must not hide rows from the count: it fails instead.
    let mut script = "SET row_security = off;\nBEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n".to_owned();
    let (hidden, open): (Vec<_>, Vec<_>) =
        expected.iter().enumerate().partition(|(_, table)| forced.contains(&table.name));
    for (index, table) in open {
        let _ = writeln!(script, "SELECT {index}, count(*) FROM ONLY {};", table.name);
    }
    script.push_str("SELECT 'large objects', count(*) FROM pg_largeobject_metadata;\nCOMMIT;\n");
    for (index, table) in hidden {
        // Its owner sees all of it for as long as this transaction lasts, which is taken back.
        let _ = writeln!(
            script,
            "BEGIN;\nALTER TABLE ONLY {0} NO FORCE ROW LEVEL SECURITY;\nSELECT {index}, count(*) FROM ONLY {0};\nROLLBACK;",
            table.name
        );
    }
    // A transaction that waits for the disk, and with it all those before it that did not.
    script.push_str("SELECT txid_current();\n");
    script
}

fn read(answer: &str) -> BTreeMap<String, i64> {
    answer
        .lines()
        .filter_map(|line| line.split_once('|'))
        .filter_map(|(key, n)| Some((key.to_owned(), n.parse().ok()?)))
        .collect()
}

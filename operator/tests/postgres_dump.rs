//! Dumps of a real server: what is counted, what is refused, and that a dump which is not whole is never called one.

#[path = "support/postgres.rs"]
mod postgres;

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast::archive::pgdump::PgDumpReader;
use holdfast::archive::sqldump::{SqlDump, SqlDumpReader};
use holdfast::engine::postgres::dump;
use holdfast::engine::{Dumped, Inspect, Inspection};
use holdfast::task::Failure;
use holdfast_crds::{PostgresFormat, PostgresSource, Reason};
use postgres::{Cluster, MemorySink, RICH, Secret};

fn of_database(cluster: &Cluster, database: &str, format: PostgresFormat) -> PostgresSource {
    PostgresSource { database: Some(database.to_owned()), format, ..cluster.source() }
}

async fn run(source: &PostgresSource, secret: &Secret) -> (Result<Dumped, Failure>, MemorySink) {
    let mut sink = MemorySink::default();
    let result = dump(source, &secret.mounts, &secret.scratch(), &mut sink).await;
    assert_eq!(secret.leftovers(), Vec::<String>::new(), "a password file was left behind");
    (result, sink)
}

fn reader(format: PostgresFormat) -> Box<dyn Inspect> {
    match format {
        PostgresFormat::Custom => Box::new(PgDumpReader::new("dump")),
        PostgresFormat::Plain => Box::new(SqlDumpReader::new("dump", SqlDump::Database)),
    }
}

fn read(format: PostgresFormat, pieces: &[&[u8]]) -> Result<Inspection, Failure> {
    let mut reader = reader(format);
    for piece in pieces {
        reader.feed(piece)?;
    }
    reader.finish()
}

fn rich_counts() -> BTreeMap<String, i64> {
    [
        ("public.customers", 504),
        ("public.orders_2025", 213),
        ("public.orders_2026_one", 0),
        ("public.orders_2026_rest", 365),
        ("public.orders_default", 422),
        ("public.defaulted", 0),
        ("public.empty", 0),
        ("public.no_columns", 2),
        ("public.parent", 1),
        ("public.child", 2),
        ("public.undefaulted", 1),
        ("public.unlogged", 1),
        ("\"odd schema\".\"Odd \"\"table\"\"\nwith newline -- and dashes\"", 2),
        ("\"odd schema\".\"--help\"", 1),
        ("audit.\"order\"", 3),
        ("audit.log", 20),
    ]
    .into_iter()
    .map(|(name, count)| (name.to_owned(), count))
    .collect()
}

#[tokio::test]
async fn every_table_is_counted_in_both_formats() {
    let cluster = Cluster::shared();
    cluster.create_database("rich dump");
    cluster.sql("rich dump", RICH);
    for (format, name) in [(PostgresFormat::Custom, "rich dump.pgdump"), (PostgresFormat::Plain, "rich dump.sql")] {
        let (result, sink) = run(&of_database(&cluster, "rich dump", format), &Secret::superuser()).await;
        let dumped = result.unwrap();
        let major = postgres::major();
        assert!(dumped.server_version.starts_with(&major.to_string()), "{dumped:?}");
        assert!(dumped.tool_version.starts_with(&format!("pg_dump {major}")), "{dumped:?}");
        assert_eq!(dumped.consistency, "snapshot");
        assert_eq!(sink.counts(name), rich_counts());
        let entry = &sink.artifact(name).entry;
        assert_eq!(entry.database.as_deref(), Some("rich dump"));
        assert_eq!(entry.roles, ["postgres"]);
        assert_eq!(entry.properties["encoding"], "UTF8");
        assert_eq!(entry.properties["collate"], "C.UTF-8");
        assert_eq!(entry.properties["owner"], "postgres");
        if format == PostgresFormat::Custom {
            assert_eq!(entry.properties["largeObjects"], "3");
            assert_eq!(entry.properties["archiveDatabase"], "rich dump");
        }
    }
}

#[tokio::test]
async fn a_real_dump_cut_at_any_byte_is_found_and_pieces_change_nothing() {
    let cluster = Cluster::shared();
    cluster.create_database("cut");
    cluster.sql(
        "cut",
        "CREATE TABLE a (i int, t text); INSERT INTO a SELECT g, E'x\\n\\\\.' FROM generate_series(1, 30) g; CREATE TABLE b ();
         CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT 'COPY a FROM stdin;' $$; SELECT lo_from_bytea(0, 'abc');
         CREATE TABLE \"c\n d\" (i int); INSERT INTO \"c\n d\" VALUES (1);",
    );
    for (format, name) in [(PostgresFormat::Custom, "cut.pgdump"), (PostgresFormat::Plain, "cut.sql")] {
        let (result, sink) = run(&of_database(&cluster, "cut", format), &Secret::superuser()).await;
        result.unwrap();
        let bytes = &sink.artifact(name).bytes;
        let whole = read(format, &[bytes]).unwrap();
        assert_eq!(whole.items.len(), 3);
        for end in 0..bytes.len() {
            assert_eq!(read(format, &[&bytes[..end]]).unwrap_err().reason, Reason::SourceIncomplete, "{end}");
        }
        for size in [1, 2, 3, 7, 64, 1000] {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(read(format, &pieces).unwrap(), whole, "{size}");
        }
    }
}

#[tokio::test]
async fn excluded_tables_are_left_out_even_with_odd_patterns() {
    let cluster = Cluster::shared();
    cluster.create_database("excluded");
    cluster.sql("excluded", RICH);
    let source = PostgresSource {
        exclude_tables: vec!["audit.*".into(), "\"odd schema\".\"--help\"".into(), "public.orders_2*".into()],
        ..of_database(&cluster, "excluded", PostgresFormat::Custom)
    };
    let (result, sink) = run(&source, &Secret::superuser()).await;
    result.unwrap();
    let counts = sink.counts("excluded.pgdump");
    assert!(counts.contains_key("public.customers"));
    assert!(
        counts.keys().all(|name| !name.starts_with("audit.") && !name.contains("help") && !name.contains("orders_2"))
    );
}

#[tokio::test]
async fn databases_of_any_name_are_dumped() {
    let cluster = Cluster::shared();
    let names = ["a=b", "--help", "with space", "it's \"quoted\"", "postgresql://x", "dbname=x", "back\\slash", "ü/ñ"];
    for name in names {
        cluster.create_database(name);
        cluster.sql(name, "CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2)");
    }
    let source = PostgresSource {
        databases: Some(names.iter().map(ToString::to_string).collect()),
        include_globals: true,
        ..cluster.source()
    };
    let (result, sink) = run(&source, &Secret::superuser()).await;
    assert_eq!(result.unwrap().consistency, "fuzzy");
    for name in names {
        assert_eq!(sink.counts(&format!("{name}.pgdump")), BTreeMap::from([("public.t".to_owned(), 2)]), "{name}");
        assert_eq!(sink.artifact(&format!("{name}.pgdump")).entry.properties["archiveDatabase"], name);
    }
    let globals = sink.artifact("globals.sql");
    assert_eq!((globals.entry.format.as_str(), globals.entry.database.as_deref()), ("sql-globals", None));
}

#[tokio::test]
async fn all_databases_are_those_that_accept_connections_and_are_no_templates() {
    let cluster = Cluster::start();
    for name in ["one", "two", "closed", "template"] {
        cluster.create_database(name);
    }
    cluster.sql("postgres", "ALTER DATABASE closed ALLOW_CONNECTIONS false; ALTER DATABASE template IS_TEMPLATE true");
    let source = PostgresSource { all_databases: true, ..cluster.source() };
    let (result, sink) = run(&source, &Secret::superuser()).await;
    result.unwrap();
    let names: Vec<_> = sink.stored.iter().map(|stored| stored.entry.name.as_str()).collect();
    assert_eq!(names, ["one.pgdump", "postgres.pgdump", "two.pgdump"]);
}

#[tokio::test]
async fn globals_hold_roles_without_their_passwords() {
    let cluster = Cluster::shared();
    cluster.create_database("globals");
    cluster.sql("postgres", "CREATE ROLE \"odd'global\" LOGIN PASSWORD 'very-secret'");
    let source = PostgresSource { include_globals: true, ..of_database(&cluster, "globals", PostgresFormat::Plain) };
    let (result, sink) = run(&source, &Secret::superuser()).await;
    result.unwrap();
    let text = String::from_utf8(sink.artifact("cluster-globals.sql").bytes.clone()).unwrap();
    assert!(text.contains("CREATE ROLE \"odd'global\""), "{text}");
    assert!(!text.contains("SCRAM") && !text.contains("secret"));
}

#[tokio::test]
async fn a_role_whose_statements_time_out_is_dumped_all_the_same() {
    let cluster = Cluster::shared();
    cluster.create_database("slow");
    cluster.sql(
        "slow",
        "CREATE ROLE hasty LOGIN PASSWORD 'x' SUPERUSER; ALTER ROLE hasty SET statement_timeout = '1s';
         ALTER ROLE hasty SET idle_in_transaction_session_timeout = '1s'; ALTER ROLE hasty SET lock_timeout = '1s';
         ALTER ROLE hasty SET default_transaction_read_only = on; ALTER ROLE hasty SET search_path = 'nowhere';
         CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 400000);",
    );
    let mut sink = MemorySink::default();
    let start = std::time::Instant::now();
    // The sink is held up until the timeout would have struck.
    sink.hook = Some(Box::new(move |bytes| {
        while bytes > 1_000_000 && start.elapsed().as_millis() < 2_500 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }));
    let secret = Secret::of("hasty", "x");
    let source = of_database(&cluster, "slow", PostgresFormat::Custom);
    dump(&source, &secret.mounts, &secret.scratch(), &mut sink).await.unwrap();
    assert_eq!(sink.counts("slow.pgdump")["public.t"], 400_000);
}

#[tokio::test]
async fn a_session_that_is_ended_in_the_middle_is_no_dump() {
    let cluster = Cluster::shared();
    for format in [PostgresFormat::Custom, PostgresFormat::Plain] {
        let name = format!("ended {format:?}");
        cluster.create_database(&name);
        cluster.sql(
            &name,
            "CREATE TABLE big (t text); INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 30000)",
        );
        let mut sink = MemorySink::default();
        let (killer, database) = (Arc::clone(&cluster), name.clone());
        let mut ended = false;
        sink.hook = Some(Box::new(move |bytes| {
            if bytes > 1_000_000 && !std::mem::replace(&mut ended, true) {
                let query = format!(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}'"
                );
                assert_ne!(killer.sql("postgres", &query), "0");
            }
        }));
        let secret = Secret::superuser();
        let failure = dump(&of_database(&cluster, &name, format), &secret.mounts, &secret.scratch(), &mut sink)
            .await
            .unwrap_err();
        assert_eq!(failure.reason, Reason::DumpFailed, "{failure}");
        let lost = ["terminating connection due to administrator command", "server closed the connection unexpectedly"];
        assert!(lost.iter().any(|words| failure.message.contains(words)), "{failure}");
        assert!(
            failure.message.contains(&format!("127.0.0.1:{}, database {name}, user postgres", cluster.port)),
            "{failure}"
        );
        assert!(sink.stored.is_empty());
        assert!(secret.leftovers().is_empty());
    }
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let cluster = Cluster::shared();
    cluster.create_database("refused");
    cluster.sql(
        "refused",
        "CREATE TABLE t (i int); CREATE ROLE weak LOGIN PASSWORD 'x'; CREATE ROLE asleep NOLOGIN PASSWORD 'x';
         CREATE ROLE outside LOGIN PASSWORD 'x'; REVOKE CONNECT ON DATABASE refused FROM PUBLIC; GRANT CONNECT ON DATABASE refused TO weak;",
    );
    let table = [
        (
            Secret::of("postgres", "wrong"),
            "refused",
            "password authentication failed for user \"postgres\": check user name and password",
        ),
        (Secret::of("nobody here", "x"), "refused", "password authentication failed"),
        (Secret::of("asleep", "x"), "refused", "is not permitted to log in"),
        (Secret::of("outside", "x"), "refused", "permission denied for database \"refused\""),
        (Secret::of("weak", "x"), "refused", "permission denied for table t"),
        (Secret::superuser(), "no such database", "database \"no such database\" does not exist"),
        (Secret::of("postgres", ""), "refused", "no password supplied"),
    ];
    for (secret, database, words) in table {
        let (result, sink) = run(&of_database(&cluster, database, PostgresFormat::Custom), &secret).await;
        let failure = result.unwrap_err();
        assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
        assert!(failure.message.contains(&format!("127.0.0.1:{}", cluster.port)), "{failure}");
        assert!(!failure.message.contains('\n') && sink.stored.is_empty(), "{failure}");
    }
}

#[tokio::test]
async fn rows_hidden_by_row_level_security_are_no_dump() {
    let cluster = Cluster::shared();
    cluster.create_database("hidden");
    cluster.sql(
        "hidden",
        "CREATE ROLE half_blind LOGIN PASSWORD 'x'; CREATE TABLE t (i int); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON t USING (i > 1); GRANT SELECT ON t TO half_blind; INSERT INTO t VALUES (1), (2)",
    );
    let (result, _) =
        run(&of_database(&cluster, "hidden", PostgresFormat::Custom), &Secret::of("half_blind", "x")).await;
    let failure = result.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
    assert!(failure.message.contains("BYPASSRLS"), "{failure}");
}

#[tokio::test]
async fn who_does_not_answer_is_unreachable() {
    let cluster = Cluster::shared();
    // A port that was free a moment ago, and a name that never resolves (RFC 6761).
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let silent = PostgresSource { port: i32::from(port), ..of_database(&cluster, "d", PostgresFormat::Custom) };
    let nowhere = PostgresSource { host: "db.invalid".into(), ..of_database(&cluster, "d", PostgresFormat::Custom) };
    for (source, words) in [(silent, "Connection refused: check host and port"), (nowhere, "the name does not resolve")]
    {
        let (result, _) = run(&source, &Secret::superuser()).await;
        let failure = result.unwrap_err();
        assert_eq!(failure.reason, Reason::SourceUnreachable, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[tokio::test]
async fn a_server_without_encryption_is_told_from_one_that_refuses() {
    let cluster = Cluster::shared();
    let tls = holdfast_crds::TlsSpec { mode: holdfast_crds::TlsMode::Require, ca_bundle: None };
    let source = PostgresSource { tls, ..of_database(&cluster, "postgres", PostgresFormat::Custom) };
    let (result, _) = run(&source, &Secret::superuser()).await;
    let failure = result.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused);
    assert!(failure.message.contains("turn TLS on at the server, or set tls.mode"), "{failure}");
}

#[tokio::test]
async fn settings_rights_roles_and_extensions_are_kept_for_a_restore() {
    let cluster = Cluster::shared();
    cluster.create_database("kept");
    cluster.sql(
        "kept",
        "CREATE ROLE kept_owner; CREATE ROLE kept_reader; CREATE ROLE kept_stranger; CREATE EXTENSION pg_trgm;
         CREATE TABLE t (i int); GRANT SELECT ON t TO kept_reader; ALTER DATABASE kept OWNER TO kept_owner;
         ALTER DATABASE kept SET work_mem = '8MB'; ALTER ROLE kept_reader IN DATABASE kept SET search_path = audit, \"odd, one\";
         GRANT CREATE ON DATABASE kept TO kept_reader WITH GRANT OPTION; COMMENT ON DATABASE kept IS 'ours'",
    );
    let (result, sink) = run(&of_database(&cluster, "kept", PostgresFormat::Custom), &Secret::superuser()).await;
    result.unwrap();
    let entry = &sink.artifact("kept.pgdump").entry;
    assert_eq!(entry.roles, ["kept_reader", "postgres"]);
    assert_eq!(entry.extensions, ["pg_trgm"]);
    assert_eq!(entry.properties["owner"], "kept_owner");
    assert_eq!(entry.properties["comment"], "ours");
    assert_eq!(
        entry.properties["settings"],
        r#"[{"role":null,"values":["work_mem=8MB"]},{"role":"kept_reader","values":["search_path=audit, \"odd, one\""]}]"#
    );
    assert!(entry.properties["rights"].contains(r#"{"role":"kept_reader","privilege":"CREATE","grantable":true}"#));
}

#[tokio::test]
async fn a_server_newer_than_every_client_is_refused_before_anything_is_dumped() {
    let cluster = Cluster::newest();
    cluster.create_database("tomorrow");
    for source in [
        of_database(&cluster, "tomorrow", PostgresFormat::Custom),
        of_database(&cluster, "tomorrow", PostgresFormat::Plain),
        PostgresSource { all_databases: true, include_globals: true, ..cluster.source() },
    ] {
        let (result, sink) = run(&source, &Secret::superuser()).await;
        let failure = result.unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure:?}");
        let server = cluster.sql("postgres", "SHOW server_version");
        let what = format!("the server is PostgreSQL {server} and the newest client here is ");
        assert!(failure.message.contains(&what), "{failure}");
        assert!(failure.message.contains("whose image has client 19 or newer"), "{failure}");
        assert!(sink.stored.is_empty());
    }
}

#[test]
fn dumps_are_whole_and_counted_again_with_the_newest() {
    postgres::again_with_the_newest(&[], &["newer_than_every_client"]);
}

//! Restores into a real server: what comes back is what was saved, and a target is never left worse than it was.

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/postgres.rs"]
mod postgres;

use std::sync::Arc;

use holdfast::engine::{Restored, check_target, restore};
use holdfast::task::{Failure, RestoreTarget};
use holdfast_crds::{OnExisting, PostgresFormat, PostgresSource, Reason};
use postgres::{Cluster, RICH, Saved, Secret, Spoil, save, until};

const BOTH: [PostgresFormat; 2] = [PostgresFormat::Custom, PostgresFormat::Plain];

async fn save_database(cluster: &Cluster, database: &str, format: PostgresFormat) -> Saved {
    save(PostgresSource { database: Some(database.into()), format, ..cluster.source() }).await
}

impl Saved {
    /// What the worker does: check, then restore.
    async fn restore(
        &mut self,
        target: &RestoreTarget,
        on_existing: OnExisting,
        secret: &Secret,
    ) -> Result<Restored, Failure> {
        check_target(target, &self.manifest, on_existing, &secret.scratch()).await?;
        let result = restore(target, &self.manifest, on_existing, &secret.scratch(), &mut self.source).await;
        assert_eq!(secret.leftovers(), Vec::<String>::new(), "a password file was left behind");
        result
    }

    async fn check(&self, target: &RestoreTarget, on_existing: OnExisting, secret: &Secret) -> Result<(), Failure> {
        check_target(target, &self.manifest, on_existing, &secret.scratch()).await
    }

    async fn restore_as_superuser(
        &mut self,
        cluster: &Cluster,
        database: &str,
        on_existing: OnExisting,
    ) -> Result<Restored, Failure> {
        let secret = Secret::superuser();
        self.restore(&cluster.target(&secret.mounts, Some(database)), on_existing, &secret).await
    }
}

/// Names of databases that restores make for themselves.
fn leftovers(cluster: &Cluster, database: &str) -> Vec<String> {
    let start = format!("{database}_holdfast_");
    cluster.databases().into_iter().filter(|name| name.starts_with(&start)).collect()
}

#[tokio::test]
async fn everything_comes_back_into_a_new_and_into_an_empty_database() {
    let cluster = Cluster::shared();
    cluster.create_database("rich");
    cluster.sql("rich", RICH);
    let before = cluster.fingerprint("rich");
    for format in BOTH {
        let mut saved = save_database(&cluster, "rich", format).await;
        let new = format!("rich new {format:?}");
        let restored = saved.restore_as_superuser(&cluster, &new, OnExisting::Fail).await.unwrap();
        assert_eq!(
            restored.message,
            format!("16 tables, 1,537 rows restored into {new} on 127.0.0.1:{}", cluster.port)
        );
        assert_eq!(restored.items, 16);
        assert_eq!(restored.bytes, saved.manifest.artifacts[0].source_bytes);
        assert_eq!(cluster.fingerprint(&new), before);

        let empty = format!("rich empty {format:?}");
        cluster.create_database(&empty);
        saved.restore_as_superuser(&cluster, &empty, OnExisting::Fail).await.unwrap();
        assert_eq!(cluster.fingerprint(&empty), before);
        assert_eq!(leftovers(&cluster, &new), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_lost_database_comes_back_with_its_owner_settings_and_rights() {
    let cluster = Cluster::shared();
    cluster.create_database("lost");
    cluster.sql(
        "lost",
        "CREATE ROLE lost_owner; CREATE ROLE lost_reader; ALTER DATABASE lost OWNER TO lost_owner; CREATE TABLE t (i int);
         ALTER TABLE t OWNER TO lost_owner; GRANT SELECT ON t TO lost_reader; INSERT INTO t VALUES (1);
         ALTER DATABASE lost SET work_mem = '8MB'; ALTER DATABASE lost SET search_path = \"$user\", 'odd, one', public;
         ALTER ROLE lost_reader IN DATABASE lost SET statement_timeout = '5s'; COMMENT ON DATABASE lost IS 'it''s ours';
         GRANT CREATE ON DATABASE lost TO lost_reader WITH GRANT OPTION; REVOKE CONNECT ON DATABASE lost FROM PUBLIC;
         ALTER DATABASE lost CONNECTION LIMIT 17;",
    );
    let about = "SELECT pg_get_userbyid(datdba), datconnlimit, encoding, datcollate, datctype, shobj_description(oid, 'pg_database'),
                   (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(datacl) a),
                   (SELECT string_agg(setrole::regrole || ' ' || setconfig::text, ' ' ORDER BY setrole) FROM pg_db_role_setting s WHERE s.setdatabase = d.oid)
                 FROM pg_database d WHERE datname = 'lost'";
    let before = (cluster.sql("postgres", about), cluster.fingerprint("lost"));
    let mut saved = save_database(&cluster, "lost", PostgresFormat::Custom).await;
    cluster.sql("postgres", "DROP DATABASE lost");
    let secret = Secret::superuser();
    saved.restore(&cluster.target(&secret.mounts, None), OnExisting::Fail, &secret).await.unwrap();
    assert_eq!((cluster.sql("postgres", about), cluster.fingerprint("lost")), before);
}

#[tokio::test]
async fn a_target_that_holds_anything_is_left_alone() {
    let cluster = Cluster::shared();
    cluster.create_database("full source");
    cluster.sql("full source", "CREATE TABLE t (i int)");
    let mut saved = save_database(&cluster, "full source", PostgresFormat::Custom).await;
    let holdings = [
        ("CREATE TABLE public.orders (i int); CREATE TABLE public.z (i int)", "2 tables, e.g. public.orders"),
        ("CREATE SCHEMA s; CREATE VIEW s.\"V\" AS SELECT 1 AS a", "1 view, 1 schema, e.g. s.\"V\""),
        ("CREATE SEQUENCE q", "1 sequence, e.g. public.q"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "1 function, e.g. public.f"),
        ("CREATE TYPE mood AS ENUM ('a')", "1 type, e.g. public.mood"),
        ("SELECT lo_create(4711)", "1 large object, e.g. 4711"),
        ("CREATE SCHEMA only_a_schema", "1 schema, e.g. only_a_schema"),
    ];
    for (index, (script, words)) in holdings.iter().enumerate() {
        let database = format!("full {index}");
        cluster.create_database(&database);
        cluster.sql(&database, script);
        let before = cluster.fingerprint(&database);
        let failure = saved.restore_as_superuser(&cluster, &database, OnExisting::Fail).await.unwrap_err();
        assert_eq!(failure.reason, Reason::TargetNotEmpty, "{failure}");
        assert!(
            failure.message.contains(&format!("database {database} on 127.0.0.1:{} holds {words}", cluster.port)),
            "{failure}"
        );
        assert!(failure.message.contains("use onExisting: Replace"), "{failure}");
        assert_eq!(cluster.fingerprint(&database), before);
    }
    assert_eq!(saved.source.fetched, 0);
    // What an extension brings is nobody's data.
    cluster.create_database("only an extension");
    cluster.sql("only an extension", "CREATE EXTENSION pg_trgm");
    saved.restore_as_superuser(&cluster, "only an extension", OnExisting::Fail).await.unwrap();
}

#[tokio::test]
async fn replace_puts_the_backup_into_place_under_open_sessions() {
    let cluster = Cluster::shared();
    cluster.create_database("replaced");
    cluster.sql("replaced", RICH);
    let before = cluster.fingerprint("replaced");
    for format in BOTH {
        let mut saved = save_database(&cluster, "replaced", format).await;
        cluster.sql(
            "replaced",
            "DROP TABLE public.orders CASCADE; UPDATE public.parent SET a = 99; CREATE TABLE public.new (i int)",
        );
        assert_ne!(cluster.fingerprint("replaced"), before);
        // A session that is in the way until it is ended, as an application's pool would be.
        let sleeper = std::thread::spawn({
            let cluster = Arc::clone(&cluster);
            move || cluster.try_sql("replaced", "SELECT pg_sleep(600)")
        });
        until("the session", || {
            cluster.sql(
                "postgres",
                "SELECT count(*) FROM pg_stat_activity WHERE datname = 'replaced' AND query LIKE '%pg_sleep%'",
            ) == "1"
        });
        let restored = saved.restore_as_superuser(&cluster, "replaced", OnExisting::Replace).await.unwrap();
        assert_eq!(restored.items, 16);
        assert_eq!(cluster.fingerprint("replaced"), before);
        assert_eq!(leftovers(&cluster, "replaced"), Vec::<String>::new());
        assert!(sleeper.join().unwrap().is_err());
    }
}

#[tokio::test]
async fn replace_keeps_the_old_data_when_the_new_is_not_whole() {
    let cluster = Cluster::shared();
    cluster.create_database("kept old");
    cluster.sql("kept old", RICH);
    for format in BOTH {
        let mut saved = save_database(&cluster, "kept old", format).await;
        let size = saved.source.stored[0].bytes.len();
        cluster.sql(
            "kept old",
            "CREATE TABLE IF NOT EXISTS public.precious (i int); INSERT INTO public.precious VALUES (42)",
        );
        let before = cluster.fingerprint("kept old");
        for (spoil, reason) in [
            (Spoil::Checksum, Reason::ChecksumMismatch),
            (Spoil::CutAt(size / 2), Reason::StoreUnreachable),
            (Spoil::CutAt(10), Reason::StoreUnreachable),
        ] {
            saved.source.spoil = Some(spoil);
            let failure = saved.restore_as_superuser(&cluster, "kept old", OnExisting::Replace).await.unwrap_err();
            assert_eq!(failure.reason, reason, "{failure}");
            assert!(failure.message.ends_with("; the database is as it was before"), "{failure}");
            assert_eq!(cluster.fingerprint("kept old"), before);
            assert_eq!(leftovers(&cluster, "kept old"), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn a_restore_that_fails_in_the_middle_leaves_an_empty_database_empty_and_makes_none() {
    let cluster = Arc::new(Cluster::start());
    for (name, script) in
        [("middle", RICH), ("middle plain", "CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 9999)")]
    {
        cluster.create_database(name);
        cluster.sql(name, script);
        for format in BOTH {
            let empty = format!("{name} empty {format:?}");
            cluster.create_database(&empty);
            let before = cluster.fingerprint(&empty);
            let mut saved = save_database(&cluster, name, format).await;
            let waiting = Arc::clone(&cluster);
            saved.source.before_end = Some(Arc::new(move || waiting.until_restores_wait()));
            let size = saved.source.stored[0].bytes.len();
            // The end of its input must not make a tool commit what it has: also not when everything but the last bytes is there.
            for spoil in [Spoil::CutAt(size / 3), Spoil::CutAt(size * 2 / 3), Spoil::CutAt(size - 20), Spoil::Checksum]
            {
                saved.source.spoil = Some(spoil);
                let failure = saved.restore_as_superuser(&cluster, &empty, OnExisting::Fail).await.unwrap_err();
                // SQL with large objects has transactions of its own: it is not filled in place.
                let beside = format == PostgresFormat::Plain && name == "middle";
                let words =
                    if beside { "; the database is as it was before" } else { "; the database is as empty as before" };
                assert!(failure.message.ends_with(words), "{spoil:?} {failure}");
                assert_eq!(cluster.fingerprint(&empty), before);
                let failure =
                    saved.restore_as_superuser(&cluster, &format!("{name} new"), OnExisting::Fail).await.unwrap_err();
                assert!(failure.message.ends_with("; no database was made"), "{failure}");
                assert!(!cluster.has_database(&format!("{name} new")));
                assert_eq!(leftovers(&cluster, name), Vec::<String>::new());
            }
        }
    }
}

#[tokio::test]
async fn an_error_of_the_server_in_the_middle_is_told_in_its_words() {
    let cluster = Cluster::shared();
    cluster.create_database("words");
    cluster.sql(
        "words",
        "CREATE TABLE first (i int PRIMARY KEY); INSERT INTO first VALUES (1), (2); CREATE TABLE second (i int)",
    );
    for format in BOTH {
        let mut saved = save_database(&cluster, "words", format).await;
        // The second row becomes a copy of the first, so that the primary key fails after the rows are in.
        let bytes = &mut saved.source.stored[0].bytes;
        let at = bytes.windows(2).rposition(|two| two == b"2\n").unwrap();
        bytes[at] = b'1';
        cluster.create_database(&format!("words {format:?}"));
        let failure =
            saved.restore_as_superuser(&cluster, &format!("words {format:?}"), OnExisting::Fail).await.unwrap_err();
        assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
        assert!(failure.message.contains("could not create unique index \"first_pkey\""), "{failure}");
        assert!(failure.message.ends_with("; the database is as empty as before"), "{failure}");
        assert!(!failure.message.contains('\n'), "{failure}");
    }
}

#[tokio::test]
async fn rows_that_do_not_add_up_are_a_failure() {
    let cluster = Cluster::shared();
    cluster.create_database("sums");
    cluster.sql("sums", "CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2)");
    let mut saved = save_database(&cluster, "sums", PostgresFormat::Plain).await;
    let text = String::from_utf8(saved.source.stored[0].bytes.clone()).unwrap();
    saved.source.stored[0].bytes = text.replace("2\n\\.\n", "2\n\\.\nINSERT INTO public.t VALUES (3);\n").into_bytes();
    let failure = saved.restore_as_superuser(&cluster, "sums new", OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
    assert!(failure.message.contains("public.t holds 3 rows after the restore and the backup has 2"), "{failure}");
    assert!(!cluster.has_database("sums new") && leftovers(&cluster, "sums new").is_empty());
}

#[tokio::test]
async fn roles_that_are_not_there_get_stand_ins_that_go_again() {
    let cluster = Cluster::shared();
    cluster.create_database("orphaned");
    cluster.sql(
        "orphaned",
        "CREATE ROLE \"gone owner\"; CREATE ROLE gone_reader; CREATE ROLE staying; CREATE TABLE t (i int); INSERT INTO t VALUES (1);
         ALTER TABLE t OWNER TO \"gone owner\"; GRANT SELECT ON t TO gone_reader, staying; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO gone_reader;
         ALTER DATABASE orphaned OWNER TO \"gone owner\"",
    );
    for format in BOTH {
        cluster.try_sql("orphaned", "CREATE ROLE \"gone owner\"; CREATE ROLE gone_reader").ok();
        cluster.sql("orphaned", "ALTER TABLE t OWNER TO \"gone owner\"; GRANT SELECT ON t TO gone_reader; ALTER DATABASE orphaned OWNER TO \"gone owner\"");
        let mut saved = save_database(&cluster, "orphaned", format).await;
        cluster.sql(
            "orphaned",
            "REASSIGN OWNED BY \"gone owner\", gone_reader TO postgres; DROP OWNED BY \"gone owner\", gone_reader; DROP ROLE \"gone owner\", gone_reader",
        );
        let new = format!("orphaned {format:?}");
        let restored = saved.restore_as_superuser(&cluster, &new, OnExisting::Fail).await.unwrap();
        assert!(
            restored.message.contains(
                "not on this server: roles gone owner, gone_reader: what was theirs belongs to postgres, what was granted to them is not granted"
            ),
            "{}",
            restored.message
        );
        assert_eq!(cluster.sql(&new, "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "postgres");
        assert_eq!(cluster.sql(&new, "SELECT has_table_privilege('staying', 't', 'SELECT')"), "t");
        assert_eq!(cluster.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'gone%'"), "0");

        saved.source.spoil = Some(Spoil::CutAt(100));
        saved.restore_as_superuser(&cluster, &format!("{new} again"), OnExisting::Fail).await.unwrap_err();
        assert_eq!(cluster.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'gone%'"), "0");
    }
}

#[tokio::test]
async fn who_is_no_superuser_restores_what_is_allowed_and_is_told_the_rest() {
    let cluster = Cluster::shared();
    cluster.create_database("modest");
    cluster.sql(
        "modest",
        "CREATE ROLE modest_app LOGIN PASSWORD 'x'; CREATE ROLE modest_other;
         CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2); ALTER TABLE t OWNER TO modest_other;",
    );
    let app = Secret::of("modest_app", "x");
    let mut saved = save_database(&cluster, "modest", PostgresFormat::Custom).await;

    let nowhere = cluster.target(&app.mounts, Some("modest nowhere"));
    let failure = saved.check(&nowhere, OnExisting::Fail, &app).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
    assert!(failure.message.contains("grant it CREATEDB"), "{failure}");

    cluster.create_database("modest foreign");
    let foreign = cluster.target(&app.mounts, Some("modest foreign"));
    let failure = saved.check(&foreign, OnExisting::Fail, &app).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
    assert!(failure.message.contains("make the role the owner"), "{failure}");

    cluster.sql("postgres", "CREATE DATABASE modest_own OWNER modest_app");
    let own = cluster.target(&app.mounts, Some("modest_own"));
    let restored = saved.restore(&own, OnExisting::Fail, &app).await.unwrap();
    assert!(restored.message.contains("modest_app may not act for role modest_other"), "{}", restored.message);
    assert_eq!(cluster.sql("modest_own", "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "modest_app");
    assert_eq!(cluster.sql("modest_own", "SELECT count(*) FROM t"), "2");
}

#[tokio::test]
async fn who_may_make_databases_replaces_its_own() {
    let cluster = Cluster::shared();
    cluster.sql("postgres", "CREATE ROLE builder LOGIN CREATEDB PASSWORD 'x'; CREATE DATABASE built OWNER builder");
    cluster.sql("built", "SET ROLE builder; CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2)");
    let before = cluster.fingerprint("built");
    let builder = Secret::of("builder", "x");
    let mut saved = save_database(&cluster, "built", PostgresFormat::Custom).await;
    cluster.sql("built", "DELETE FROM t");
    let restored = saved.restore(&cluster.target(&builder.mounts, None), OnExisting::Replace, &builder).await.unwrap();
    assert_eq!(restored.message, format!("1 table, 2 rows restored into built on 127.0.0.1:{}", cluster.port));
    assert_eq!(cluster.fingerprint("built"), before);
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'built'";
    assert_eq!(cluster.sql("postgres", owner), "builder");
    // A database of somebody else's is not his to replace.
    cluster.create_database("not built");
    cluster.sql("not built", "CREATE TABLE t (i int); GRANT ALL ON DATABASE \"not built\" TO builder");
    let foreign = cluster.target(&builder.mounts, Some("not built"));
    let failure = saved.check(&foreign, OnExisting::Replace, &builder).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
}

#[tokio::test]
async fn several_databases_and_the_roles_come_back_on_another_server() {
    let (old, new) = (Cluster::shared(), Cluster::start());
    let names = ["multi a", "multi=b", "--multi", "multi'\"c\\"];
    old.sql("postgres", "CREATE ROLE \"multi role\" LOGIN PASSWORD 'x'; CREATE ROLE multi_group; GRANT multi_group TO \"multi role\" WITH ADMIN OPTION");
    old.sql(
        "postgres",
        "ALTER ROLE \"multi role\" SET search_path = 'a', 'b c'; COMMENT ON ROLE multi_group IS 'x; y'",
    );
    for name in names {
        old.create_database(name);
        old.sql(name, "CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2); ALTER TABLE t OWNER TO \"multi role\"; CREATE VIEW v AS SELECT * FROM t");
    }
    let mut saved = save(PostgresSource {
        databases: Some(names.iter().map(ToString::to_string).collect()),
        include_globals: true,
        ..old.source()
    })
    .await;
    let secret = Secret::superuser();
    let failure = saved.check(&new.target(&secret.mounts, Some("one")), OnExisting::Fail, &secret).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration, "{failure}");

    let restored = saved.restore(&new.target(&secret.mounts, None), OnExisting::Fail, &secret).await.unwrap();
    assert_eq!(restored.items, 4);
    assert!(
        restored.message.starts_with("4 tables, 8 rows restored into multi a, multi=b, --multi, multi'\"c\\ on"),
        "{}",
        restored.message
    );
    assert!(restored.message.contains("made role"), "{}", restored.message);
    for name in names {
        assert_eq!(new.fingerprint(name), old.fingerprint(name));
    }
    let roles = "SELECT a.rolname, a.rolcanlogin, a.rolpassword IS NULL, r.rolconfig, shobj_description(a.oid, 'pg_authid') FROM pg_authid a JOIN pg_roles r ON r.oid = a.oid WHERE a.rolname LIKE 'multi%' ORDER BY 1";
    assert_eq!(new.sql("postgres", roles), "multi role|t|t|{\"search_path=a, \\\"b c\\\"\"}|\nmulti_group|f|t||x; y");
    assert_eq!(new.sql("postgres", "SELECT admin_option FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE rolname = 'multi_group'"), "t");

    // A second time nothing is made, and what is there is left alone.
    let failure = saved.restore(&new.target(&secret.mounts, None), OnExisting::Fail, &secret).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TargetNotEmpty);
}

#[tokio::test]
async fn of_several_databases_none_is_replaced_when_one_fails() {
    let cluster = Cluster::shared();
    for name in ["group one", "group two"] {
        cluster.create_database(name);
        cluster.sql(name, "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    }
    let databases = Some(vec!["group one".to_owned(), "group two".to_owned()]);
    let mut saved = save(PostgresSource { databases, ..cluster.source() }).await;
    for name in ["group one", "group two"] {
        cluster.sql(name, "INSERT INTO t VALUES (2)");
    }
    let last = saved.source.stored[1].bytes.len() - 1;
    saved.source.stored[1].bytes.truncate(last);
    let secret = Secret::superuser();
    saved.restore(&cluster.target(&secret.mounts, None), OnExisting::Replace, &secret).await.unwrap_err();
    for name in ["group one", "group two"] {
        assert_eq!(cluster.sql(name, "SELECT count(*) FROM t"), "2");
        assert_eq!(leftovers(&cluster, name), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_the_target_cannot_take_is_found_before_it_is_touched() {
    let cluster = Cluster::shared();
    cluster.create_database("unfit");
    cluster.sql("unfit", "CREATE EXTENSION pg_trgm; CREATE TABLE t (i int)");
    let mut saved = save_database(&cluster, "unfit", PostgresFormat::Custom).await;
    let secret = Secret::superuser();
    let target = cluster.target(&secret.mounts, Some("unfit new"));
    saved.check(&target, OnExisting::Fail, &secret).await.unwrap();

    saved.manifest.artifacts[0].extensions.push("no_such_extension".into());
    let failure = saved.check(&target, OnExisting::Fail, &secret).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration);
    assert!(failure.message.contains("not installed on this server: no_such_extension;"), "{failure}");
    saved.manifest.artifacts[0].extensions.pop();

    saved.manifest.server_version = "99.1".into();
    let failure = saved.check(&target, OnExisting::Fail, &secret).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration);
    let versions = format!("the backup is of PostgreSQL 99.1 and this server is {}", postgres::major());
    assert!(failure.message.contains(&versions), "{failure}");
    saved.manifest.server_version = "15.1".into();

    saved.manifest.artifacts[0].properties.insert("archiveDumpVersion".into(), "99.1".into());
    let failure = saved.check(&target, OnExisting::Fail, &secret).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration);
    assert!(failure.message.contains("written by pg_dump 99"), "{failure}");

    saved.manifest.artifacts[0].format = "tar".into();
    let failure = saved.check(&target, OnExisting::Fail, &secret).await.unwrap_err();
    assert!(failure.message.contains("has the format tar"), "{failure}");
    assert!(!cluster.has_database("unfit new"));
}

#[tokio::test]
async fn what_earlier_restores_left_behind_goes_and_what_looks_like_it_stays() {
    let cluster = Cluster::shared();
    cluster.create_database("tidy");
    cluster.sql("tidy", "CREATE TABLE t (i int)");
    for name in [
        "tidy_holdfast_0badcafe",
        "tidy_holdfast_old_0badcafe",
        "tidy_holdfast_deadbeef",
        "tidy_holdfast_old_more",
        "tidy2_holdfast_0badcafe",
    ] {
        cluster.create_database(name);
    }
    cluster.sql(
        "postgres",
        "COMMENT ON DATABASE tidy_holdfast_0badcafe IS 'holdfast: being restored'; COMMENT ON DATABASE tidy_holdfast_old_0badcafe IS 'holdfast: replaced';
         COMMENT ON DATABASE tidy_holdfast_deadbeef IS 'mine'; COMMENT ON DATABASE tidy2_holdfast_0badcafe IS 'holdfast: x';
         COMMENT ON DATABASE tidy_holdfast_old_more IS 'holdfast: x'",
    );
    let mut saved = save_database(&cluster, "tidy", PostgresFormat::Custom).await;
    saved.restore_as_superuser(&cluster, "tidy", OnExisting::Replace).await.unwrap();
    assert_eq!(leftovers(&cluster, "tidy"), ["tidy_holdfast_deadbeef", "tidy_holdfast_old_more"]);
    assert!(cluster.has_database("tidy2_holdfast_0badcafe"));
}

#[tokio::test]
async fn a_locale_that_the_server_lacks_is_told() {
    let cluster = Cluster::shared();
    cluster.create_database("locale");
    cluster.sql("locale", "CREATE TABLE t (i int)");
    let mut saved = save_database(&cluster, "locale", PostgresFormat::Custom).await;
    saved.manifest.artifacts[0].properties.insert("collate".into(), "xx_XX.UTF-8".into());
    let restored = saved.restore_as_superuser(&cluster, "locale new", OnExisting::Fail).await.unwrap();
    assert!(
        restored.message.contains("the server lacks the locale xx_XX.UTF-8: locale new has the server's own"),
        "{}",
        restored.message
    );
    assert!(cluster.has_database("locale new"));
}

#[tokio::test]
async fn the_database_of_the_first_questions_can_be_replaced_too() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (7)");
    let mut saved = save_database(&cluster, "postgres", PostgresFormat::Custom).await;
    cluster.sql("postgres", "DELETE FROM t");
    saved.restore_as_superuser(&cluster, "postgres", OnExisting::Replace).await.unwrap();
    assert_eq!(cluster.sql("postgres", "SELECT i FROM t"), "7");
}

#[tokio::test]
async fn a_client_that_is_newer_than_the_server_restores_without_what_the_server_does_not_know() {
    let cluster = Arc::new(Cluster::start());
    cluster.create_database("newer");
    cluster.sql("newer", RICH);
    let before = cluster.fingerprint("newer");
    for format in BOTH {
        let mut saved = save_database(&cluster, "newer", format).await;
        if format == PostgresFormat::Plain {
            // What tools since version 17 write.
            let text = String::from_utf8(saved.source.stored[0].bytes.clone()).unwrap();
            let text =
                text.replacen("SET lock_timeout = 0;\n", "SET lock_timeout = 0;\nSET transaction_timeout = 0;\n", 1);
            assert!(text.contains("transaction_timeout"));
            saved.source.stored[0].bytes = text.into_bytes();
            saved.manifest.tool_version = "pg_dump 18.1".into();
        }
        // With the tools of version 15 at hand this is the usual way; under the name of a newer version, the way through psql.
        let new = format!("newer {format:?}");
        saved.restore_as_superuser(&cluster, &new, OnExisting::Fail).await.unwrap();
        assert_eq!(cluster.fingerprint(&new), before);
        saved.restore_as_superuser(&cluster, &new, OnExisting::Replace).await.unwrap();
        let size = saved.source.stored[0].bytes.len();
        cluster.create_database(&format!("{new} empty"));
        let waiting = Arc::clone(&cluster);
        saved.source.before_end = Some(Arc::new(move || waiting.until_restores_wait()));
        for spoil in [Spoil::CutAt(size / 2), Spoil::Checksum] {
            saved.source.spoil = Some(spoil);
            let empty = format!("{new} empty");
            let failure = saved.restore_as_superuser(&cluster, &empty, OnExisting::Fail).await.unwrap_err();
            assert!(failure.message.contains("; the database is as "), "{failure}");
            assert_eq!(cluster.sql(&empty, "SELECT count(*) FROM pg_class WHERE oid >= 16384"), "0");
        }
    }
}

#[test]
fn the_same_under_the_name_of_version_18() {
    // The tools of version 15 in a folder that says 18: what is chosen by version is chosen by the folder's name.
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("18")).unwrap();
    std::os::unix::fs::symlink(postgres::bin(), base.path().join("18/bin")).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_client_that_is_newer_than_the_server_restores_without_what_the_server_does_not_know"])
        .env(holdfast::engine::postgres::BASE_ENV, base.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// Rows of the large tables, and how many sessions' COPY wrote them.
const LARGE: &str = r#"
CREATE SCHEMA "we""ird";
CREATE TABLE "we""ird"."a\b:c" (id int PRIMARY KEY, "x, y) FROM stdin;" text, nothing text, raw bytea);
INSERT INTO "we""ird"."a\b:c"
  SELECT i, E'\\.\n\\\t\r' || repeat('ä' || i, 20 + i % 100), CASE WHEN i % 3 = 0 THEN 'there' END, sha256(i::text::bytea)
    FROM generate_series(1, 30000) i;
CREATE TABLE wide (id int, value text);
INSERT INTO wide SELECT i, repeat(md5(i::text), 20000) FROM generate_series(1, 12) i;
CREATE TABLE small (id int REFERENCES "we""ird"."a\b:c");
INSERT INTO small SELECT generate_series(1, 1000);
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM "we""ird"."a\b:c";
"#;

const SESSIONS: &str = r#"SELECT count(DISTINCT xmin::text) FROM "we""ird"."a\b:c""#;

#[tokio::test]
async fn two_sessions_bring_back_the_rows_of_a_large_table() {
    let cluster = Cluster::shared();
    for encoding in ["UTF8", "LATIN1"] {
        let name = format!("large {encoding}");
        cluster.sql(
            "postgres",
            &format!("CREATE DATABASE \"{name}\" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"),
        );
        cluster.sql(&name, &format!("SET client_encoding = 'UTF8';{LARGE}"));
        let before = cluster.fingerprint(&name);
        let mut saved = save_database(&cluster, &name, PostgresFormat::Custom).await;
        let new = format!("{name} new");
        let restored = saved.restore_as_superuser(&cluster, &new, OnExisting::Fail).await.unwrap();
        assert!(restored.message.contains("3 tables, 31,012 rows"), "{}", restored.message);
        assert_eq!(cluster.fingerprint(&new), before);
        assert_eq!(cluster.sql(&new, SESSIONS), "2");
        saved.restore_as_superuser(&cluster, &new, OnExisting::Replace).await.unwrap();
        assert_eq!(cluster.fingerprint(&new), before);
    }
}

#[tokio::test]
async fn a_server_with_the_least_log_gets_everything_in_one_transaction_and_writes_no_rows_to_it() {
    let source = Cluster::shared();
    source.create_database("unlogged");
    source.sql("unlogged", LARGE);
    let mut saved = save_database(&source, "unlogged", PostgresFormat::Custom).await;
    let target = Cluster::start_with(&["wal_level=minimal", "max_wal_senders=0"], None);
    let written = || target.sql("postgres", "SELECT pg_current_wal_lsn() - '0/0'").parse::<f64>().unwrap();
    let before = written();
    saved.restore_as_superuser(&target, "unlogged", OnExisting::Fail).await.unwrap();
    assert!(written() - before < 16e6, "{} bytes of log for 24 MB of rows", written() - before);
    assert_eq!(target.sql("unlogged", SESSIONS), "1");
    assert_eq!(target.row_hashes("unlogged"), source.row_hashes("unlogged"));
}

#[tokio::test]
async fn where_a_second_session_is_refused_the_first_restores_alone() {
    let cluster = Arc::new(Cluster::start());
    cluster.sql("postgres", "CREATE ROLE single LOGIN CREATEDB PASSWORD 'x'");
    cluster.create_database("alone");
    cluster.sql("alone", LARGE);
    let before = cluster.row_hashes("alone");
    let mut saved = save_database(&cluster, "alone", PostgresFormat::Custom).await;
    saved.source.spoil = Some(Spoil::PauseAt(500_000));
    let there = Arc::clone(&cluster);
    saved.source.before_end = Some(Arc::new(move || {
        // The first session is there. The limit goes before any other is asked for.
        there.until_restores_wait();
        there.sql("postgres", "ALTER ROLE single CONNECTION LIMIT 1");
        let there = Arc::clone(&there);
        std::thread::spawn(move || {
            until("the second session's refusal", || there.log().contains("too many connections for role"));
            there.sql("postgres", "ALTER ROLE single CONNECTION LIMIT -1");
        });
    }));
    let secret = Secret::of("single", "x");
    let target = cluster.target(&secret.mounts, Some("alone new"));
    saved.restore(&target, OnExisting::Fail, &secret).await.unwrap();
    assert_eq!(cluster.row_hashes("alone new"), before);
    assert_eq!(cluster.sql("alone new", SESSIONS), "1");
}

#[tokio::test]
async fn a_session_that_is_ended_in_the_middle_of_a_large_table_leaves_nothing() {
    let cluster = Arc::new(Cluster::start());
    cluster.create_database("ended");
    cluster.sql("ended", &format!("{LARGE}DROP TABLE small CASCADE; DROP TABLE wide;"));
    let mut saved = save_database(&cluster, "ended", PostgresFormat::Custom).await;
    let near_the_end = saved.source.stored[0].bytes.len() - 100_000;
    saved.source.spoil = Some(Spoil::PauseAt(near_the_end));
    // The first session has made the table, the second begins with its rows.
    for which in ["ORDER BY backend_start LIMIT 1", "ORDER BY backend_start DESC LIMIT 1"] {
        let there = Arc::clone(&cluster);
        saved.source.before_end = Some(Arc::new(move || {
            there.until_restores_wait();
            let copying = "FROM pg_stat_activity WHERE application_name = 'holdfast' AND query LIKE 'COPY %'";
            assert_eq!(there.sql("postgres", &format!("SELECT count(*) {copying}")), "2");
            there.sql("postgres", &format!("SELECT pg_terminate_backend(pid) {copying} {which}"));
        }));
        let failure = saved.restore_as_superuser(&cluster, "ended new", OnExisting::Fail).await.unwrap_err();
        assert!(failure.message.contains("terminating connection due to administrator command"), "{failure}");
        assert!(failure.message.ends_with("; no database was made"), "{failure}");
        assert!(!cluster.has_database("ended new"));
        assert_eq!(leftovers(&cluster, "ended new"), Vec::<String>::new());
    }
    // What was cut off ends both.
    saved.source.spoil = Some(Spoil::CutAt(near_the_end));
    let there = Arc::clone(&cluster);
    saved.source.before_end = Some(Arc::new(move || there.until_restores_wait()));
    let failure = saved.restore_as_superuser(&cluster, "ended new", OnExisting::Fail).await.unwrap_err();
    assert_eq!(failure.reason, Reason::StoreUnreachable, "{failure}");
    until("the end of both sessions", || {
        cluster.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast'") == "0"
    });
}

#[test]
fn restores_bring_everything_back_again_with_the_newest() {
    let only =
        ["lost_database", "everything_comes_back", "replace_puts", "several_databases", "two_sessions", "no_superuser"];
    postgres::again_with_the_newest(&only, &[]);
}

//! Restores by roles that are no superusers, and by superusers of servers that lack the backup's roles: what can come back does, what cannot is
//! told, and nothing disappears unsaid.

#![allow(clippy::unwrap_used, reason = "it is all tests")]

#[path = "support/postgres.rs"]
mod postgres;

use holdfast::engine::{Restored, check_contents, check_target, restore};
use holdfast::task::{Failure, RestoreTarget, Target};
use holdfast_crds::{OnExisting, OnUnrestorable, PostgresFormat, PostgresSource, Reason};
use postgres::{Cluster, Saved, Secret, save};

async fn save_database(cluster: &Cluster, database: &str) -> Saved {
    save(PostgresSource { database: Some(database.into()), ..cluster.source() }).await
}

fn asked(mut target: RestoreTarget, choice: Option<OnUnrestorable>) -> RestoreTarget {
    if let Target::Postgres(server) = &mut target.server {
        server.on_unrestorable = choice;
    }
    target
}

impl Saved {
    /// What the worker does: check, look into the artifacts, then restore.
    async fn restore(
        &mut self,
        target: &RestoreTarget,
        on_existing: OnExisting,
        secret: &Secret,
    ) -> Result<Restored, Failure> {
        check_target(target, &self.manifest, on_existing, &secret.scratch()).await?;
        check_contents(target, &self.manifest, on_existing, &secret.scratch(), &mut self.source).await?;
        assert_eq!(self.source.fetched, 0, "it was touched before it was decided");
        let result = restore(target, &self.manifest, on_existing, &secret.scratch(), &mut self.source).await;
        self.source.fetched = 0;
        result
    }
}

/// A database of this name and a role that owns it and nothing else.
fn owned(cluster: &Cluster, name: &str) -> Secret {
    let role = format!("{name}_owner");
    cluster
        .sql("postgres", &format!("CREATE ROLE {role} LOGIN PASSWORD 'x'; CREATE DATABASE {name}_target OWNER {role}"));
    Secret::of(&role, "x")
}

/// A superuser brings everything back as it was.
async fn as_it_was_for_a_superuser(saved: &mut Saved, cluster: &Cluster, name: &str, before: &str) {
    let root = Secret::superuser();
    let new = format!("{name} new");
    let target = asked(cluster.target(&root.mounts, Some(&new)), Some(OnUnrestorable::Fail));
    saved.restore(&target, OnExisting::Fail, &root).await.unwrap();
    assert_eq!(cluster.fingerprint(&new), before);
}

async fn into_owned(
    saved: &mut Saved,
    cluster: &Cluster,
    name: &str,
    secret: &Secret,
    choice: Option<OnUnrestorable>,
) -> Result<Restored, Failure> {
    let target = asked(cluster.target(&secret.mounts, Some(&format!("{name}_target"))), choice);
    saved.restore(&target, OnExisting::Fail, secret).await
}

#[tokio::test]
async fn an_extension_that_a_superuser_made_beforehand_keeps_its_comment_and_the_rest_comes_back() {
    let cluster = Cluster::shared();
    cluster.create_database("ext");
    cluster.sql("ext", "CREATE EXTENSION pg_buffercache; COMMENT ON EXTENSION pg_buffercache IS 'ours'; CREATE TABLE t (i int); INSERT INTO t VALUES (1);
        GRANT SELECT ON pg_buffercache TO PUBLIC; CREATE EXTENSION pg_trgm; COMMENT ON EXTENSION pg_trgm IS 'also ours'");
    let before = cluster.fingerprint("ext");
    let mut saved = save_database(&cluster, "ext").await;
    as_it_was_for_a_superuser(&mut saved, &cluster, "ext", &before).await;
    let owner = owned(&cluster, "ext");
    let failure = into_owned(&mut saved, &cluster, "ext", &owner, None).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
    assert!(failure.message.contains("CREATE EXTENSION pg_buffercache CASCADE;"), "{failure}");

    cluster.sql("ext_target", "CREATE EXTENSION pg_buffercache");
    let restored = into_owned(&mut saved, &cluster, "ext", &owner, None).await.unwrap();
    assert!(
        restored.message.contains(
            "comment on extension pg_buffercache (another role owns it): COMMENT ON EXTENSION pg_buffercache IS 'ours';"
        ),
        "{}",
        restored.message
    );
    assert!(restored.message.contains("grants on table pg_buffercache"), "{}", restored.message);
    let comments = "SELECT string_agg(obj_description(oid, 'pg_extension'), '|' ORDER BY extname) FROM pg_extension WHERE extname ~ 'pg_'";
    assert_eq!(cluster.sql("ext_target", "SELECT count(*) FROM t"), "1");
    // What the role makes itself is its own.
    assert!(cluster.sql("ext_target", comments).ends_with("|also ours"));
}

#[tokio::test]
async fn what_belongs_to_a_superuser_comes_back_as_the_restoring_roles() {
    let cluster = Cluster::shared();
    cluster.create_database("first");
    cluster.sql(
        "first",
        "CREATE ROLE first_app; ALTER SCHEMA public OWNER TO postgres; GRANT CREATE ON SCHEMA public TO first_app; COMMENT ON SCHEMA public IS 'odd';
         CREATE TABLE t (i int, s text COLLATE \"C\"); INSERT INTO t VALUES (1); ALTER TABLE t OWNER TO first_app;
         ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT SELECT ON TABLES TO first_app;
         ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT EXECUTE ON FUNCTIONS TO first_app;
         CREATE SCHEMA s; CREATE TABLE s.u (i int); CREATE PUBLICATION p FOR TABLE t; CREATE STATISTICS st ON i, s FROM t;
         CREATE COLLATION c FROM \"C\"; CREATE TEXT SEARCH CONFIGURATION tsc (COPY = simple); CREATE TEXT SEARCH DICTIONARY tsd (TEMPLATE = simple);
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_logdir() TO first_app; SELECT lo_create(4712);",
    );
    let before = cluster.fingerprint("first");
    let mut saved = save_database(&cluster, "first").await;
    as_it_was_for_a_superuser(&mut saved, &cluster, "first", &before).await;
    let owner = owned(&cluster, "first");
    let restored = into_owned(&mut saved, &cluster, "first", &owner, None).await.unwrap();
    let message = &restored.message;
    assert!(message.contains("first_owner may not act for roles first_app, postgres"), "{message}");
    assert!(message.contains("default privileges for tables (first_owner may not act for role postgres)"), "{message}");
    assert!(message.contains("grants on function pg_ls_logdir("), "{message}");
    let owners = "SELECT string_agg(DISTINCT pg_get_userbyid(o), ',') FROM (SELECT relowner o FROM pg_class WHERE relname IN ('t', 'u')
         UNION SELECT nspowner FROM pg_namespace WHERE nspname = 's' UNION SELECT pubowner FROM pg_publication UNION SELECT stxowner FROM pg_statistic_ext
         UNION SELECT collowner FROM pg_collation WHERE collname = 'c' UNION SELECT lomowner FROM pg_largeobject_metadata) o";
    assert_eq!(cluster.sql("first_target", owners), "first_owner");
    assert_eq!(cluster.sql("first_target", "SELECT has_schema_privilege('first_app', 'public', 'CREATE')"), "t");
    assert_eq!(cluster.sql("first_target", "SELECT obj_description('public'::regnamespace, 'pg_namespace')"), "odd");
    // Where all has to be as it was, nothing is touched.
    cluster.sql("postgres", "CREATE DATABASE first_strict_target OWNER first_owner");
    let failure =
        into_owned(&mut saved, &cluster, "first_strict", &owner, Some(OnUnrestorable::Fail)).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused);
    assert!(failure.message.contains("nothing was touched"), "{failure}");
    assert_eq!(cluster.sql("first_strict_target", "SELECT count(*) FROM pg_class WHERE relname = 't'"), "0");
}

#[tokio::test]
async fn a_schema_public_that_a_superuser_owns_on_the_target_is_left_as_it_is() {
    let cluster = Cluster::shared();
    cluster.create_database("theirs");
    cluster.sql("theirs", "COMMENT ON SCHEMA public IS 'odd'; GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let mut saved = save_database(&cluster, "theirs").await;
    let owner = owned(&cluster, "theirs");
    cluster.sql("theirs_target", "ALTER SCHEMA public OWNER TO postgres; GRANT CREATE ON SCHEMA public TO PUBLIC");
    let restored = into_owned(&mut saved, &cluster, "theirs", &owner, None).await.unwrap();
    assert!(restored.message.contains("comment on schema public (another role owns it)"), "{}", restored.message);
    assert!(restored.message.contains("grants on schema public"), "{}", restored.message);
    assert_eq!(cluster.sql("theirs_target", "SELECT count(*) FROM t"), "1");
}

#[tokio::test]
async fn a_server_whose_first_superuser_has_another_name_takes_what_was_the_first_superusers() {
    let (old, new) = (Cluster::start(), Cluster::shared());
    old.sql("postgres", "CREATE ROLE boss SUPERUSER");
    old.sql("postgres", "SET SESSION AUTHORIZATION boss; ALTER ROLE postgres RENAME TO chief; CREATE ROLE postgres SUPERUSER LOGIN PASSWORD 'p:a\\ss ''w\"ord'");
    old.create_database("chiefs");
    old.sql(
        "chiefs",
        "SET SESSION AUTHORIZATION chief; ALTER SCHEMA public OWNER TO chief; CREATE SCHEMA s; CREATE TABLE s.t (i int); INSERT INTO s.t VALUES (1);
         CREATE PUBLICATION p FOR TABLE s.t; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; GRANT SELECT ON s.t TO boss;
         CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f();",
    );
    let mut saved = save_database(&old, "chiefs").await;
    let root = Secret::superuser();
    let restored = saved.restore(&new.target(&root.mounts, None), OnExisting::Fail, &root).await.unwrap();
    assert!(
        restored.message.contains("not on this server: roles boss, chief: what was theirs belongs to postgres"),
        "{}",
        restored.message
    );
    assert_eq!(new.sql("chiefs", "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "postgres");
    assert_eq!(new.sql("chiefs", "SELECT count(*) FROM pg_event_trigger"), "1");
    // And by an owner.
    let mut without = save_without_event_trigger(&old).await;
    let owner = owned(&new, "chiefs");
    let restored = into_owned(&mut without, &new, "chiefs", &owner, None).await.unwrap();
    assert!(restored.message.contains("what was theirs belongs to chiefs_owner"), "{}", restored.message);
    assert_eq!(new.sql("chiefs_target", "SELECT count(*) FROM s.t"), "1");
    // And as text, for which the first superuser has to be known beforehand.
    old.sql("chiefs", "SET SESSION AUTHORIZATION chief; DROP PUBLICATION p; DROP TABLE s.t; DROP FUNCTION f(); DROP SCHEMA s; ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM PUBLIC");
    for (index, made) in
        ["", "CREATE COLLATION c FROM \"C\"", "ALTER SCHEMA public OWNER TO pg_database_owner"].iter().enumerate()
    {
        old.sql("chiefs", &format!("SET SESSION AUTHORIZATION chief; {made}"));
        let source = PostgresSource { database: Some("chiefs".into()), format: PostgresFormat::Plain, ..old.source() };
        let mut plain = save(source).await;
        let target = new.target(&root.mounts, Some(&format!("chiefs plain {index}")));
        let restored = plain.restore(&target, OnExisting::Fail, &root).await.unwrap();
        assert!(restored.message.contains("chief: what was theirs belongs to postgres"), "{}", restored.message);
    }
}

async fn save_without_event_trigger(cluster: &Cluster) -> Saved {
    cluster.sql("chiefs", "DROP EVENT TRIGGER e");
    save_database(cluster, "chiefs").await
}

#[tokio::test]
async fn a_policy_for_a_role_that_is_not_there_is_refused_or_told_and_never_lost_unsaid() {
    let cluster = Cluster::shared();
    for format in [PostgresFormat::Custom, PostgresFormat::Plain] {
        let name = format!("rls {format:?}");
        cluster.create_database(&name);
        cluster.sql(
            &name,
            "CREATE ROLE rls_gone; CREATE ROLE rls_stays; CREATE TABLE t (i int); INSERT INTO t VALUES (1); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
             CREATE POLICY only_gone ON t TO rls_gone USING (i = 1); CREATE POLICY shared ON t FOR SELECT TO rls_gone, rls_stays USING (true);
             CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR rls_gone SERVER far;
             GRANT SELECT ON t TO rls_gone",
        );
        let mut saved = save(PostgresSource { database: Some(name.clone()), format, ..cluster.source() }).await;
        cluster.sql(&name, "DROP USER MAPPING FOR rls_gone SERVER far; DROP OWNED BY rls_gone; DROP ROLE rls_gone");
        let root = Secret::superuser();
        let new = format!("{name} new");
        let target = cluster.target(&root.mounts, Some(&new));
        for choice in [None, Some(OnUnrestorable::Fail)] {
            let failure = saved.restore(&asked(target.clone(), choice), OnExisting::Fail, &root).await.unwrap_err();
            assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
            assert!(failure.message.contains("only_gone") && failure.message.contains("shared"), "{failure}");
            assert!(failure.message.contains("user mapping"), "{failure}");
            assert!(!cluster.has_database(&new));
        }
        let report = asked(target.clone(), Some(OnUnrestorable::Report));
        let restored = saved.restore(&report, OnExisting::Fail, &root).await.unwrap();
        assert!(restored.message.contains("only_gone") && restored.message.contains("shared"), "{}", restored.message);
        let policies = "SELECT string_agg(polname || ' ' || polroles::regrole[]::text, ' ') FROM pg_policy";
        assert_eq!(cluster.sql(&new, policies), "shared {rls_stays}");
        assert_eq!(cluster.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'rls_gone'"), "0");
        // With the role there all of it is as it was.
        cluster.sql("postgres", "CREATE ROLE rls_gone");
        let again = cluster.target(&root.mounts, Some(&format!("{name} again")));
        saved.restore(&again, OnExisting::Fail, &root).await.unwrap();
        assert_eq!(cluster.sql(&format!("{name} again"), "SELECT count(*) FROM pg_policy"), "2");
        cluster.sql(&format!("{name} again"), "DROP USER MAPPING FOR rls_gone SERVER far; DROP OWNED BY rls_gone");
        cluster.sql("postgres", "DROP ROLE rls_gone; DROP OWNED BY rls_stays");
        cluster.sql(&name, "DROP OWNED BY rls_stays");
        cluster.sql(&new, "DROP OWNED BY rls_stays");
        cluster.sql(&format!("{name} again"), "DROP OWNED BY rls_stays");
        cluster.sql("postgres", "DROP ROLE rls_stays");
    }
}

#[tokio::test]
async fn what_disappears_during_a_restore_fails_it() {
    let cluster = Cluster::shared();
    cluster.create_database("vanish");
    cluster.sql(
        "vanish",
        "CREATE TABLE t (i int PRIMARY KEY); CREATE VIEW v AS SELECT 1 AS a; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE PUBLICATION p FOR TABLE t; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY q ON t USING (true); CREATE INDEX x ON t (i); GRANT SELECT ON t TO PUBLIC",
    );
    let mut saved = save_database(&cluster, "vanish").await;
    let root = Secret::superuser();
    let drops = [
        ("view public.v", "DROP VIEW public.v"),
        ("1 of 2 in schema public", "DROP FUNCTION public.f(int)"),
        ("publication p", "DROP PUBLICATION p"),
        ("policy public.t q", "DROP POLICY q ON public.t"),
        ("index public.x", "DROP INDEX public.x"),
        ("constraint public.t t_pkey", "ALTER TABLE public.t DROP CONSTRAINT t_pkey"),
        ("row security public.t", "ALTER TABLE public.t DISABLE ROW LEVEL SECURITY"),
    ];
    for (index, (what, drop)) in drops.into_iter().enumerate() {
        let new = format!("vanish {index}");
        cluster.create_database(&new);
        // Somebody's event trigger in the empty database, which takes away what has been made, near the end.
        cluster.sql(
            &new,
            &format!(
                "CREATE FUNCTION pg_catalog.trap() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {drop}; END $$;
                 CREATE EVENT TRIGGER trap ON ddl_command_end WHEN TAG IN ('GRANT') EXECUTE FUNCTION pg_catalog.trap()"
            ),
        );
        let target = cluster.target(&root.mounts, Some(&new));
        let failure = saved.restore(&target, OnExisting::Fail, &root).await.unwrap_err();
        assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
        assert!(failure.message.contains(&format!("is not there after the restore: {what}")), "{failure}");
    }
}

#[tokio::test]
async fn what_only_a_superuser_restores_is_refused_with_its_statement_or_left_out_and_told() {
    let cluster = Cluster::shared();
    cluster.create_database("supers");
    cluster.sql(
        "supers",
        "CREATE ROLE supers_giver; CREATE ROLE supers_reader; CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2);
         GRANT SELECT ON t TO supers_giver WITH GRANT OPTION; SET ROLE supers_giver; GRANT SELECT ON t TO supers_reader; RESET ROLE;
         CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f();
         COMMENT ON EVENT TRIGGER e IS 'x'; CREATE PUBLICATION everything FOR ALL TABLES; CREATE PUBLICATION one FOR TABLE t;
         CREATE PUBLICATION whole FOR TABLES IN SCHEMA public;
         CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere password=0pen-s3same' PUBLICATION p WITH (connect = false);
         CREATE FUNCTION c_one() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
    );
    let before = cluster.fingerprint("supers");
    let mut saved = save_database(&cluster, "supers").await;
    as_it_was_for_a_superuser(&mut saved, &cluster, "supers", &before).await;
    cluster.sql("supers", "ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub");
    let owner = owned(&cluster, "supers");
    let failure = into_owned(&mut saved, &cluster, "supers", &owner, None).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceRefused, "{failure}");
    assert!(!failure.message.contains("s3same"), "{failure}");
    for words in [
        "CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION public.f();",
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "subscription sub",
        "nothing was touched",
    ] {
        assert!(failure.message.contains(words), "{words}: {failure}");
    }
    assert_eq!(cluster.sql("supers_target", "SELECT count(*) FROM pg_class WHERE relname = 't'"), "0");
    let restored = into_owned(&mut saved, &cluster, "supers", &owner, Some(OnUnrestorable::Report)).await.unwrap();
    assert!(restored.message.contains("left out: "), "{}", restored.message);
    assert!(restored.message.contains("what was granted by others than the owner of table t"), "{}", restored.message);
    assert_eq!(
        cluster.sql("supers_target", "SELECT string_agg(pubname, ' ' ORDER BY pubname) FROM pg_publication"),
        "one whole"
    );
    assert_eq!(cluster.sql("supers_target", "SELECT count(*) FROM t"), "2");
    assert_eq!(
        cluster.sql("supers_target", "SELECT has_table_privilege('supers_giver', 't', 'SELECT WITH GRANT OPTION')"),
        "t"
    );
}

#[tokio::test]
async fn a_table_whose_owner_sees_a_part_of_it_is_counted_whole() {
    let cluster = Cluster::shared();
    let owner = owned(&cluster, "forced");
    cluster.sql("postgres", "CREATE DATABASE forced OWNER forced_owner");
    cluster.sql(
        "forced",
        "SET ROLE forced_owner; CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2); ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
         CREATE POLICY p ON t USING (i = 1)",
    );
    let before = cluster.fingerprint("forced");
    let mut saved = save_database(&cluster, "forced").await;
    as_it_was_for_a_superuser(&mut saved, &cluster, "forced", &before).await;
    let restored = into_owned(&mut saved, &cluster, "forced", &owner, None).await.unwrap();
    assert!(restored.message.starts_with("1 table, 2 rows restored"), "{}", restored.message);
    assert_eq!(cluster.fingerprint("forced_target"), before);
}

#[tokio::test]
async fn an_extension_that_the_server_makes_for_the_role_is_not_refused_for_its_control_file() {
    let cluster = Cluster::shared();
    cluster.create_database("managed");
    cluster.sql(
        "managed",
        "CREATE EXTENSION pg_buffercache; COMMENT ON EXTENSION pg_buffercache IS 'ours'; CREATE TABLE t (i int)",
    );
    let mut saved = save_database(&cluster, "managed").await;
    let owner = owned(&cluster, "managed");
    // As a managed server does: what its operator allows is made in a superuser's name.
    cluster.sql(
        "managed_target",
        "CREATE FUNCTION pg_catalog.make_it() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
           IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_buffercache') AND current_setting('made.it', true) IS DISTINCT FROM 'under way' THEN
             PERFORM set_config('made.it', 'under way', true); CREATE EXTENSION pg_buffercache SCHEMA public; PERFORM set_config('made.it', '', true);
           END IF;
         END $$;
         CREATE EVENT TRIGGER make_it ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION') EXECUTE FUNCTION pg_catalog.make_it()",
    );
    let restored = into_owned(&mut saved, &cluster, "managed", &owner, None).await.unwrap();
    assert!(
        restored.message.contains("comment on extension pg_buffercache (another role owns it)"),
        "{}",
        restored.message
    );
    assert_eq!(
        cluster.sql("managed_target", "SELECT count(*) FROM pg_extension WHERE extname = 'pg_buffercache'"),
        "1"
    );
}

#[tokio::test]
async fn who_has_made_a_role_gives_it_what_was_its_own() {
    let cluster = Cluster::shared();
    cluster.sql("postgres", "CREATE ROLE maker LOGIN CREATEROLE CREATEDB PASSWORD 'x'");
    cluster.sql("postgres", "SET SESSION AUTHORIZATION maker; CREATE ROLE made; CREATE ROLE made_reader");
    cluster.sql("postgres", "CREATE DATABASE makers OWNER made");
    cluster.sql("makers", "SET ROLE made; CREATE TABLE t (i int); INSERT INTO t VALUES (1); CREATE SCHEMA s; CREATE TABLE s.t (i int); GRANT SELECT ON t TO made_reader");
    let before = cluster.fingerprint("makers");
    let memberships = "SELECT count(*) FROM pg_auth_members m WHERE m.member = 'maker'::regrole";
    let members = cluster.sql("postgres", memberships);
    let mut saved = save_database(&cluster, "makers").await;
    let maker = Secret::of("maker", "x");
    cluster.sql("postgres", "DROP DATABASE makers");
    let restored = saved.restore(&cluster.target(&maker.mounts, None), OnExisting::Fail, &maker).await.unwrap();
    if postgres::major() >= 16 {
        assert_eq!(cluster.fingerprint("makers"), before, "{}", restored.message);
        let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'makers'";
        assert_eq!(cluster.sql("postgres", owner), "made");
    } else {
        assert!(restored.message.contains("maker may not act for role made"), "{}", restored.message);
        assert_eq!(cluster.sql("makers", "SELECT tableowner FROM pg_tables WHERE schemaname = 's'"), "maker");
    }
    assert_eq!(cluster.sql("makers", "SELECT count(*) FROM t"), "1");
    if postgres::major() >= 16 {
        cluster.sql("makers", "DELETE FROM t");
        saved.restore(&cluster.target(&maker.mounts, None), OnExisting::Replace, &maker).await.unwrap();
        assert_eq!(cluster.fingerprint("makers"), before);
    }
    assert_eq!(cluster.sql("postgres", memberships), members, "a membership was left behind");
}

#[tokio::test]
async fn a_member_of_the_owner_makes_a_lost_database_again_with_its_owners() {
    let cluster = Cluster::shared();
    cluster.sql("postgres", "CREATE ROLE shop_app; CREATE ROLE shop_restorer LOGIN CREATEDB PASSWORD 'x' IN ROLE shop_app; CREATE DATABASE shop_db OWNER shop_app");
    cluster.sql("shop_db", "SET ROLE shop_app; CREATE TABLE t (i int); INSERT INTO t VALUES (1); CREATE SCHEMA s; CREATE VIEW s.v AS SELECT 1 AS a");
    let before = cluster.fingerprint("shop_db");
    let mut saved = save_database(&cluster, "shop_db").await;
    let restorer = Secret::of("shop_restorer", "x");
    let target = cluster.target(&restorer.mounts, None);
    cluster.sql("shop_db", "INSERT INTO t VALUES (2)");
    saved.restore(&target, OnExisting::Replace, &restorer).await.unwrap();
    assert_eq!(cluster.fingerprint("shop_db"), before);
    cluster.sql("postgres", "DROP DATABASE shop_db");
    saved.restore(&target, OnExisting::Fail, &restorer).await.unwrap();
    assert_eq!(cluster.fingerprint("shop_db"), before);
}

#[tokio::test]
async fn a_role_logs_in_again_though_another_of_its_attributes_is_a_superusers() {
    let (old, new) = (Cluster::shared(), Cluster::start());
    old.sql("postgres", "CREATE ROLE attr_app LOGIN REPLICATION CONNECTION LIMIT 7; CREATE ROLE attr_plain LOGIN");
    old.create_database("attr");
    old.sql(
        "attr",
        "CREATE TABLE t (i int); ALTER TABLE t OWNER TO attr_plain; ALTER DATABASE attr OWNER TO attr_plain",
    );
    let source = PostgresSource { database: Some("attr".into()), include_globals: true, ..old.source() };
    let mut saved = save(source).await;
    new.sql("postgres", "CREATE ROLE attr_restorer LOGIN CREATEROLE CREATEDB PASSWORD 'x'");
    let restorer = Secret::of("attr_restorer", "x");
    let outcome = saved.restore(&new.target(&restorer.mounts, None), OnExisting::Fail, &restorer).await.unwrap();
    let roles = "SELECT string_agg(rolname || ' ' || rolcanlogin || ' ' || rolconnlimit, ', ' ORDER BY rolname) FROM pg_roles WHERE rolname IN ('attr_app', 'attr_plain')";
    assert_eq!(new.sql("postgres", roles), "attr_app true 7, attr_plain true -1");
    assert!(outcome.message.contains("ALTER ROLE attr_app REPLICATION;"), "{}", outcome.message);
    assert_eq!(new.sql("attr", "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "attr_plain");
}

#[test]
fn roles_come_back_again_with_the_newest() {
    postgres::again_with_the_newest(&[], &[]);
}

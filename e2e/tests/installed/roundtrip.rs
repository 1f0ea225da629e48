//! What is backed up comes back: seeded, saved, destroyed, restored, compared.

use holdfast_e2e::bucket::{Bucket, S3};
use holdfast_e2e::objects::{condition, has_ended, name, phase, restore};
use holdfast_e2e::postgres::{Postgres, random_name};
use holdfast_e2e::scene::{PREFIX, Scene};
use holdfast_e2e::tools;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const EVERYTHING: &str = include_str!("seeds/everything.sql");
const LITTLE: &str = "create table t (id int primary key, what text); insert into t select i, md5(i::text) from generate_series(1, 100) i";

#[test]
fn a_backup_on_demand_restores_in_place_after_the_database_was_dropped() {
    let scene = Scene::new("in-place");
    let database = scene.postgres.seed(EVERYTHING);
    let before = scene.postgres.contents(&database);
    scene.policy("shop", &database, &Value::Null);
    let backup = scene.backup("monday", "shop");

    scene.postgres.drop_database(&database);
    let restored = scene.restore(&json!({"backup": "monday"}), &Value::Null);

    assert_eq!(scene.postgres.contents(&database), before);
    assert_eq!(restored["status"]["runId"], backup["status"]["runId"]);
    assert_eq!(restored["status"]["backup"], "monday");
    assert_eq!(restored["status"]["items"], backup["status"]["items"]);
    assert_eq!(condition(&restored, "Complete")["status"], "True");
}

#[test]
fn what_a_backup_says_of_itself_is_what_the_bucket_holds() {
    let scene = Scene::new("says");
    let database = scene.postgres.seed(EVERYTHING);
    scene.policy("shop", &database, &Value::Null);
    let backup = scene.backup("monday", "shop");
    let status = &backup["status"];

    let run = status["runId"].as_str().unwrap();
    let folder = format!("{PREFIX}/{}/shop/{run}/db", scene.space.name());
    let listing = scene.bucket.listing();
    let keys: Vec<&str> = listing.iter().map(|(key, _)| key.as_str()).collect();
    let artifact = &status["artifacts"][0];
    let key = artifact["key"].as_str().unwrap();
    assert_eq!(keys.len(), 2, "nothing but the artifact and its manifest: {keys:?}");
    assert!(keys.contains(&key) && keys.contains(&format!("{folder}/manifest.json").as_str()), "{keys:?}");
    assert!(key.starts_with(&format!("{folder}/{database}-")) && key.ends_with(".pgdump.zst"), "{key}");

    let (_, manifest) = scene.bucket.manifests().remove(0);
    let stored = listing.iter().find(|(k, _)| k == key).unwrap().1;
    assert_eq!(artifact["storedBytes"], stored);
    assert_eq!(status["storedBytes"], stored);
    assert_eq!(manifest["artifacts"][0]["storedBytes"], stored);
    assert_eq!(manifest["artifacts"][0]["storedSha256"], artifact["sha256"]);
    assert_eq!(manifest["runId"], run);
    assert_eq!(manifest["namespace"], scene.space.name());
    assert_eq!(manifest["runSources"], json!(["db"]));
    assert_eq!(manifest["items"], artifact["items"]);
    let counted = |table: &str| {
        let counts = manifest["artifacts"][0]["itemCounts"].as_array().unwrap();
        counts.iter().find(|c| c["name"] == table).unwrap_or_else(|| panic!("{table} in {counts:?}"))["count"].clone()
    };
    assert_eq!(counted("sales.customers"), 3001);
    assert_eq!(counted("\"Odd Schema; drop\".\"Table \"\"quoted\"\" – ü\""), 50);
    assert!(artifact["serverVersion"].as_str().unwrap().starts_with("18"), "{artifact}");
    assert!(artifact["toolVersion"].as_str().unwrap().starts_with("pg_dump"), "{artifact}");
    assert_eq!(artifact["encrypted"], false);
}

#[test]
fn a_backup_restores_into_another_database_and_leaves_the_first_alone() {
    let scene = Scene::new("copy");
    let database = scene.postgres.seed(EVERYTHING);
    let before = scene.postgres.contents(&database);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("monday", "shop");

    let copy = random_name("copy");
    scene.restore(&json!({"backup": "monday"}), &json!({"database": copy}));

    assert_eq!(scene.postgres.contents(&copy), before);
    assert_eq!(scene.postgres.contents(&database), before);
    scene.postgres.drop_database(&copy);
}

#[test]
fn a_backup_of_postgres_15_restores_onto_postgres_18() {
    let old = Postgres::shared(15);
    let new = Postgres::shared(18);
    let scene = Scene::on("upgrade", S3::shared(), old);
    let database = old.seed(EVERYTHING);
    let before = old.contents_seen_by(new, &database);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("monday", "shop");

    scene.space.apply(&new.credentials("postgres-new"));
    let into = json!({"host": new.host(), "credentialsSecret": {"name": "postgres-new"}});
    scene.restore(&json!({"backup": "monday"}), &into);

    // The two versions word views differently, so the definitions are compared with those of the same seed in the new version.
    let restored = new.contents(&database);
    let twin = new.seed(EVERYTHING);
    assert_eq!(restored.rows, before.rows);
    assert_eq!(without_names_of_not_null(&restored.schema), without_names_of_not_null(&new.contents(&twin).schema));
    assert_eq!(old.contents_seen_by(new, &database), before);
    new.drop_database(&database);
}

#[test]
fn a_backup_in_plain_format_without_compression_restores() {
    let scene = Scene::new("plain");
    let database = scene.postgres.seed(EVERYTHING);
    let before = scene.postgres.contents(&database);
    let mut source = scene.postgres.source("db", &database);
    source["postgres"]["format"] = json!("Plain");
    scene.policy_of("shop", &json!([source]), &json!({"compression": {"level": 0}}));
    let backup = scene.backup("monday", "shop");
    let key = backup["status"]["artifacts"][0]["key"].as_str().unwrap();
    assert!(key.contains(&format!("/{database}-")) && key.strip_suffix(".sql").is_some(), "{key}");
    assert!(String::from_utf8_lossy(&scene.bucket.read(key)).contains("CREATE TABLE sales.customers"));

    scene.postgres.drop_database(&database);
    scene.restore(&json!({"backup": "monday"}), &Value::Null);

    assert_eq!(scene.postgres.contents(&database), before);
}

#[test]
fn a_whole_server_with_its_roles_restores_onto_another() {
    let scene = Scene::new("server");
    let source = Postgres::start(&scene.space, "first", 18);
    let target = Postgres::start(&scene.space, "second", 18);
    scene.space.apply(&source.credentials("first"));
    scene.space.apply(&target.credentials("second"));
    let roles = "create role reporting nologin; create role \"Odd Owner\" login; grant reporting to \"Odd Owner\"";
    source.sql("postgres", roles);
    source.sql("postgres", "create database shop; create database \"Odd, Name/..\" owner \"Odd Owner\"");
    source.sql("shop", EVERYTHING);
    source.sql(
        "shop",
        "grant select on all tables in schema sales to reporting; alter table public.wide owner to \"Odd Owner\"",
    );
    source.sql("Odd, Name/..", LITTLE);
    let databases = ["shop", "Odd, Name/.."];
    let before = databases.map(|database| source.contents(database));

    let all = json!({"host": source.host(), "credentialsSecret": {"name": "first"}, "allDatabases": true, "includeGlobals": true});
    scene.policy_of("server", &json!([{"name": "db", "postgres": all}]), &Value::Null);
    let backup = scene.backup("monday", "server");
    let manifest = scene.bucket.manifests().remove(0).1;
    let mut saved: Vec<_> = manifest["artifacts"].as_array().unwrap().iter().map(|a| a["database"].clone()).collect();
    saved.sort_by_key(ToString::to_string);
    for database in ["shop", "Odd, Name/..", "postgres"] {
        assert!(saved.contains(&json!(database)), "{saved:?}");
    }
    assert!(manifest["artifacts"].as_array().unwrap().iter().any(|a| a["format"] == "sql-globals"), "{manifest:#}");
    assert_eq!(backup["status"]["artifacts"][0]["key"], scene.bucket.manifests()[0].0);
    let globals = manifest["artifacts"].as_array().unwrap().iter().find(|a| a["format"] == "sql-globals").unwrap();
    let text = String::from_utf8(decompressed(&scene.bucket, globals["key"].as_str().unwrap())).unwrap();
    assert!(text.contains("Odd Owner") && !text.contains("SCRAM-SHA-256"), "roles, and no password: {text}");

    scene.restore(
        &json!({"backup": "monday"}),
        &json!({"host": target.host(), "credentialsSecret": {"name": "second"}}),
    );

    assert_eq!(databases.map(|database| target.contents(database)), before);
    let memberships = "select r.rolname, m.rolname, r.rolcanlogin from pg_auth_members am join pg_roles r on r.oid = am.roleid \
                       join pg_roles m on m.oid = am.member where r.rolname !~ '^pg_'";
    assert_eq!(target.sql("postgres", memberships), source.sql("postgres", memberships));
    assert_eq!(
        target.sql("postgres", "select datdba::regrole from pg_database where datname = 'Odd, Name/..'"),
        "\"Odd Owner\""
    );
}

#[test]
fn named_databases_come_back_and_no_other() {
    let scene = Scene::new("named");
    let databases = [scene.postgres.seed(LITTLE), scene.postgres.seed(LITTLE)];
    let other = scene.postgres.seed(LITTLE);
    let before = databases.each_ref().map(|database| scene.postgres.contents(database));
    let mut source = scene.postgres.source("db", "unused");
    source["postgres"].as_object_mut().unwrap().remove("database");
    source["postgres"]["databases"] = json!(databases);
    scene.policy_of("shop", &json!([source]), &Value::Null);
    let backup = scene.backup("monday", "shop");
    assert!(!scene.bucket.keys().iter().any(|key| key.contains(&other)));
    assert_eq!(backup["status"]["items"], 2);

    for database in &databases {
        scene.postgres.drop_database(database);
    }
    scene.restore(&json!({"backup": "monday"}), &Value::Null);

    assert_eq!(databases.each_ref().map(|database| scene.postgres.contents(database)), before);
}

#[test]
fn excluded_tables_are_left_out_and_the_rest_comes_back() {
    let scene = Scene::new("exclude");
    let database =
        scene.postgres.seed(&format!("{LITTLE}; create schema audit; create table audit.log as select 1 as one"));
    let mut source = scene.postgres.source("db", &database);
    source["postgres"]["excludeTables"] = json!(["audit.*"]);
    scene.policy_of("shop", &json!([source]), &Value::Null);
    scene.backup("monday", "shop");

    let copy = random_name("copy");
    scene.restore(&json!({"backup": "monday"}), &json!({"database": copy}));

    assert_eq!(scene.postgres.sql(&copy, "select count(*) from t"), "100");
    assert_eq!(scene.postgres.sql(&copy, "select to_regclass('audit.log') is null"), "t");
    scene.postgres.drop_database(&copy);
}

#[test]
fn a_replaced_target_holds_the_backup_and_nothing_else() {
    let scene = Scene::new("replace");
    let database = scene.postgres.seed(EVERYTHING);
    let before = scene.postgres.contents(&database);
    scene.policy("shop", &database, &Value::Null);
    scene.backup("monday", "shop");
    scene
        .postgres
        .sql(&database, "create table newer (id int); drop table public.wide; update public.animals set legs = 3");

    let mut request = restore("undo", &json!({"backup": "monday"}), &Value::Null);
    request["spec"]["onExisting"] = json!("Replace");
    let restored = scene.try_restore(&request);

    assert_eq!(phase(&restored), "Completed", "{:#}", restored["status"]);
    assert_eq!(scene.postgres.contents(&database), before);
    let leftovers =
        format!("select datname from pg_database where datname like '%{database}%' and datname <> '{database}'");
    assert_eq!(scene.postgres.sql("postgres", &leftovers), "");
}

#[test]
fn a_schedule_makes_backups_and_each_instant_between_them_can_be_restored() {
    let scene = Scene::new("schedule");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &json!({"schedule": "@every 10s"}));
    let completed = |least: usize| {
        wait_for(&format!("{least} scheduled backups are complete"), seconds(90), || {
            let mut all = scene.space.list("Backup");
            all.retain(|backup| phase(backup) == "Completed");
            all.sort_by_key(|backup| name(backup).to_owned());
            if all.len() >= least { Ok(all) } else { Err(format!("{}", all.len())) }
        })
    };
    let first = completed(1).remove(0);
    let before = scene.postgres.contents(&database);
    scene.postgres.sql(&database, "insert into t select i, 'later' from generate_series(1000, 1100) i");
    // The run under way may have begun before the insert; the one after it has not.
    let count = completed(1).len();
    let last = completed(count + 2).pop().unwrap();
    scene.space.merge("BackupPolicy", "shop", &json!({"spec": {"suspend": true}}));
    let after = scene.postgres.contents(&database);
    assert_ne!(before, after);

    let stamp = |backup: &Value| backup["status"]["runId"].as_str().unwrap().split('-').next().unwrap().to_owned();
    assert!(name(&first).starts_with("shop-20"), "{}", name(&first));
    // A run may have begun right before the schedule was suspended.
    scene.space.wait("BackupPolicy", "shop", "shows its last backup", seconds(60), |p| {
        let status = &p["status"];
        status["lastSuccessfulTime"].is_string()
            && status["lastBackup"]["phase"] == "Completed"
            && condition(p, "LastBackupSucceeded")["status"] == "True"
    });

    let at: jiff::Timestamp =
        jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp(&first)).unwrap().in_tz("UTC").unwrap().into();
    let moment = (at + jiff::Span::new().seconds(1)).to_string();
    let copies = [random_name("copy"), random_name("copy"), random_name("copy")];
    scene.restore(&json!({"policy": {"name": "shop", "at": moment}}), &json!({"database": copies[0]}));
    scene.restore(&json!({"policy": {"name": "shop"}}), &json!({"database": copies[1]}));
    scene.restore(&json!({"backup": name(&last)}), &json!({"database": copies[2]}));

    assert_eq!(scene.postgres.contents(&copies[0]), before);
    assert_eq!(scene.postgres.contents(&copies[1]), after);
    assert_eq!(scene.postgres.contents(&copies[2]), after);
    for copy in &copies {
        scene.postgres.drop_database(copy);
    }
}

#[test]
fn the_bucket_alone_is_enough_to_restore_from_without_policy_and_backup_objects() {
    let scene = Scene::new("first-life");
    let database = scene.postgres.seed(LITTLE);
    let before = scene.postgres.contents(&database);
    scene.policy("shop", &database, &Value::Null);
    let first = scene.backup("monday", "shop");
    scene.postgres.sql(&database, "delete from t where id > 50");
    scene.backup("tuesday", "shop");

    // With the policy object: the request needs to say nothing of the server.
    let copy = random_name("copy");
    scene.restore(&json!({"store": {"name": "main", "policy": "shop"}}), &json!({"database": copy}));
    assert_eq!(scene.postgres.sql(&copy, "select count(*) from t"), "50");

    // Without it, and through a store that may not write: the run is named, and the server too.
    for backup in ["monday", "tuesday"] {
        scene.space.delete("Backup", backup);
        scene.space.wait_gone("Backup", backup, seconds(30));
    }
    scene.space.delete("BackupPolicy", "shop");
    scene.space.wait_gone("BackupPolicy", "shop", seconds(30));
    let mut store = scene.bucket.store("main", PREFIX)["spec"].clone();
    store["readOnly"] = json!(true);
    scene.store("read-only", &store);
    scene.postgres.drop_database(&database);
    let run = first["status"]["runId"].as_str().unwrap();
    let into = json!({"host": scene.postgres.host(), "database": database, "credentialsSecret": {"name": "postgres"}});
    scene.restore(&json!({"store": {"name": "read-only", "policy": "shop", "runId": run}}), &into);

    assert_eq!(scene.postgres.contents(&database), before);
    scene.postgres.drop_database(&copy);
}

#[test]
fn only_the_sources_asked_for_are_saved_and_restored() {
    let scene = Scene::new("subset");
    let databases = [scene.postgres.seed(LITTLE), scene.postgres.seed(LITTLE)];
    // Servers differ in whether `db-2/` is listed before or after `db/`.
    let sources = json!([scene.postgres.source("db", &databases[0]), scene.postgres.source("db-2", &databases[1])]);
    scene.policy_of("shop", &sources, &Value::Null);
    let both = scene.backup("both", "shop");
    assert_eq!(both["status"]["artifacts"].as_array().unwrap().len(), 2);
    scene.space.apply(&json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "Backup", "metadata": {"name": "one"},
        "spec": {"policyRef": {"name": "shop"}, "sources": ["db"]},
    }));
    let one = scene.space.wait("Backup", "one", "has ended", seconds(120), has_ended);
    assert_eq!(phase(&one), "Completed", "{one:#}");
    assert_eq!(scene.keys_of(&one).len(), 2, "{:?}", scene.keys_of(&one));

    for database in &databases {
        scene.postgres.drop_database(database);
    }
    let mut request = restore("two", &json!({"backup": "both"}), &Value::Null);
    request["spec"]["sources"] = json!(["db-2"]);
    let restored = scene.try_restore(&request);

    assert_eq!(phase(&restored), "Completed", "{restored:#}");
    assert!(!scene.postgres.has_database(&databases[0]));
    assert_eq!(scene.postgres.sql(&databases[1], "select count(*) from t"), "100");
}

#[test]
fn an_artifact_restores_with_stock_tools_alone() {
    let scene = Scene::new("stock-tools");
    let database = scene.postgres.seed(EVERYTHING);
    let before = scene.postgres.contents(&database);
    scene.policy("shop", &database, &Value::Null);
    let backup = scene.backup("monday", "shop");
    let key = backup["status"]["artifacts"][0]["key"].as_str().unwrap();

    // docs/without-holdfast.md: fetch | zstd -d | pg_restore -d …
    let copy = scene.postgres.create_database();
    let plain = decompressed(&scene.bucket, key);
    let ended =
        scene.postgres.exec(&["pg_restore", "--exit-on-error", "-h", "/tmp", "-U", "postgres", "-d", &copy], &plain);

    assert!(ended.ok, "{}", ended.stderr);
    assert_eq!(scene.postgres.contents(&copy), before);
    scene.postgres.drop_database(&copy);
}

fn decompressed(bucket: &Bucket<'_>, key: &str) -> Vec<u8> {
    let ended = tools::run(&["zstd", "-dc"], &bucket.read(key));
    assert!(ended.ok, "{}", ended.stderr);
    ended.stdout
}

/// Postgres 18 names these constraints; a dump of an older server has no names to give.
fn without_names_of_not_null(schema: &str) -> String {
    let line = |line: &str| match (line.find(" CONSTRAINT "), line.find("_not_null NOT NULL")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &line[..from], &line[to + "_not_null".len()..]),
        _ => line.to_owned(),
    };
    schema.lines().map(line).collect::<Vec<_>>().join("\n")
}

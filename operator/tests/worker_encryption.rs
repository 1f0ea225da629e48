//! Encrypted backups, by the program as a Job runs it, against a real S3 server and a real PostgreSQL, with the stock `age` beside it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/s3.rs"]
mod s3;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast::store::encryption::key_id;
use holdfast::store::manifest::Manifest;
use holdfast::task::{BackupTask, Outcome, Select, StoreTask, Task};
use holdfast_crds::{OnExisting, Reason};
use job::{backup, folder, probe, run};
use postgres::{Cluster, Secret};
use s3::{Server, TestBucket};

/// A key pair made by the stock tool.
struct Key {
    public: String,
    identity: String,
}

impl Key {
    fn new() -> Self {
        let made = Command::new("age-keygen").output().unwrap();
        let identity = String::from_utf8(made.stdout).unwrap();
        let public = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
        Self { public, identity }
    }
}

/// The Secret's file with these identities.
fn identities(keys: &[&Key]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("identity");
    std::fs::write(&file, keys.iter().map(|key| key.identity.as_str()).collect::<String>()).unwrap();
    (folder, file)
}

fn restore(store: StoreTask, cluster: &Cluster, secret: &Secret, run_id: &str, database: &str) -> Task {
    Task::Restore(Box::new(job::restore(
        store,
        Select::RunId(run_id.into()),
        cluster.target(&secret.mounts, Some(database)),
        OnExisting::Fail,
    )))
}

/// Saves a database, encrypted; gives the task and the key of its artifact.
async fn saved(
    test: &TestBucket,
    cluster: &Cluster,
    secret: &Secret,
    database: &str,
    to: &[&Key],
) -> (BackupTask, String) {
    cluster.create_database(database);
    cluster.sql(database, "create table t (id int primary key, v text); insert into t select i, md5(i::text) from generate_series(1, 20000) i");
    let recipients = to.iter().map(|key| key.public.clone()).collect();
    let task = backup(StoreTask { recipients, ..test.store() }, cluster, secret, database);
    let report = run(&Task::Backup(Box::new(task.clone()))).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    let Some(Outcome::Backup(saved)) = report.outcome else { panic!("{}", report.message) };
    assert!(saved.encrypted);
    (task, saved.key)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_one_of_the_keys_restores_and_so_do_stock_tools() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    let (one, two, later) = (Key::new(), Key::new(), Key::new());
    let (task, key) = saved(&test, &cluster, &secret, "sealed", &[&one, &two]).await;
    let name = Path::new(&key).file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with(".pgdump.zst.age"), "{key}");
    let manifest =
        Manifest::parse(&test.get(&folder(&task.store).run(&task.run_id).source("db").manifest()).await).unwrap();
    assert_eq!(manifest.artifacts[0].encryption_key_ids, [key_id(&one.public), key_id(&two.public)]);

    // age, zstd and pg_restore, as docs/without-holdfast.md has it.
    let (place, file) = identities(&[&two]);
    let object = place.path().join(name);
    std::fs::write(&object, test.get(&key).await).unwrap();
    let mut age =
        Command::new("age").args(["-d", "-i"]).arg(&file).arg(&object).stdout(Stdio::piped()).spawn().unwrap();
    let mut zstd = Command::new("zstd")
        .args(["-q", "-d"])
        .stdin(age.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let restored = Command::new(format!("{}/pg_restore", postgres::bin()))
        .arg("--file=-")
        .stdin(zstd.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(age.wait().unwrap().success() && zstd.wait().unwrap().success() && restored.status.success());
    assert!(String::from_utf8_lossy(&restored.stdout).contains("COPY public.t (id, v)"));

    // A key that came later stands first in the Secret; the old one is kept beside it.
    let (_place, file) = identities(&[&later, &one]);
    let store = StoreTask { identity: Some(file), ..test.store() };
    let report = run(&restore(store, &cluster, &secret, &task.run_id, "opened")).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert_eq!(cluster.fingerprint("opened"), cluster.fingerprint("sealed"));
    for database in ["sealed", "opened"] {
        cluster.sql("postgres", &format!("drop database {database} with (force)"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_that_fits_nothing_is_touched_and_the_keys_are_named() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    let (key, stranger) = (Key::new(), Key::new());
    let (task, _) = saved(&test, &cluster, &secret, "locked_up", &[&key]).await;
    let (_place, wrong) = identities(&[&stranger]);
    let no_key = tempfile::NamedTempFile::new().unwrap();
    for identity in [None, Some(wrong), Some(no_key.path().to_owned())] {
        let told_which = identity.as_deref() != Some(no_key.path());
        let store = StoreTask { identity, ..test.store() };
        let report = run(&restore(store, &cluster, &secret, &task.run_id, "never_opened")).await;
        assert_eq!(report.reason, Reason::KeyMissing, "{}", report.message);
        assert!(!told_which || report.message.contains(&key_id(&key.public)), "{}", report.message);
        assert!(!cluster.has_database("never_opened"));
    }
    cluster.sql("postgres", "drop database locked_up with (force)");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_manifest_and_a_swapped_artifact_are_found_before_anything_is_touched() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    let key = Key::new();
    let (task, artifact) = saved(&test, &cluster, &secret, "swapped", &[&key]).await;
    let (_place, file) = identities(&[&key]);
    let store = StoreTask { identity: Some(file), ..test.store() };
    let manifest_key = folder(&task.store).run(&task.run_id).source("db").manifest();
    let stored = test.get(&manifest_key).await;
    let honest = Manifest::parse(&stored).unwrap();

    // Another artifact of the same key owner in its place, with a manifest that speaks of it; an older seal; no seal at all.
    let mut swapped = honest.clone();
    swapped.artifacts[0].stored_sha256 = "0".repeat(64);
    let mut renamed = honest.clone();
    renamed.artifacts[0].database = Some("another".into());
    let mut unsealed = honest.clone();
    unsealed.seal = None;
    for edited in [swapped, renamed, unsealed] {
        test.put(&manifest_key, edited.to_bytes().unwrap()).await;
        let report = run(&restore(store.clone(), &cluster, &secret, &task.run_id, "never_swapped")).await;
        assert_eq!(report.reason, Reason::ChecksumMismatch, "{}", report.message);
        assert!(!cluster.has_database("never_swapped"), "{}", report.message);
    }
    // An unencrypted backup in the place of the encrypted one: whoever can write to the bucket can make that.
    let mut forged = honest.clone();
    forged.seal = None;
    forged.artifacts[0].encryption_key_ids.clear();
    test.put(&manifest_key, forged.to_bytes().unwrap()).await;
    let encrypting = StoreTask { recipients: vec![key.public.clone()], ..store.clone() };
    let report = run(&restore(encrypting, &cluster, &secret, &task.run_id, "never_swapped")).await;
    assert_eq!(report.reason, Reason::InvalidConfiguration, "{}", report.message);
    assert!(
        report.message.contains("is not encrypted") && !cluster.has_database("never_swapped"),
        "{}",
        report.message
    );

    test.put(&manifest_key, stored).await;
    let mut flipped = test.get(&artifact).await.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    test.put(&artifact, flipped).await;
    let report = run(&restore(store, &cluster, &secret, &task.run_id, "never_swapped")).await;
    assert_eq!(report.reason, Reason::ChecksumMismatch, "{}", report.message);
    assert!(!cluster.has_database("never_swapped"));
    cluster.sql("postgres", "drop database swapped with (force)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_is_none_is_told_by_the_probe() {
    let test = Server::shared().await.bucket().await;
    let typing_error = Key::new().public.replace("age1", "age1q");
    let store = StoreTask { recipients: vec![typing_error], ..test.store() };
    let report = run(&probe(store)).await;
    assert_eq!(report.reason, Reason::InvalidConfiguration);
    assert!(report.message.contains("recipients[0]"), "{}", report.message);
}

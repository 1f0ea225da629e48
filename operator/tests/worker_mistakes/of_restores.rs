//! Of a RestoreRequest: what it names, where it goes, and the key that it needs.

use std::process::Command;

use holdfast::task::{Mounts, RestoreTarget, Select, StoreTask, Target, Task, VolumeTarget};
use holdfast_crds::{OnExisting, Reason};

use crate::job::{self, WRONG, backup, run};
use crate::postgres::{Cluster, Secret};
use crate::s3::Server;
use crate::{make, mistake, patient};

/// How the Secrets are told.
const SECRET: &str = "Secret pg-shop (keys username and password)";
const IDENTITY: &str = "Secret age (key identity)";

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_restore_is_told_with_its_field() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    cluster.create_database("before");
    cluster.sql("before", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9); CREATE ROLE meek LOGIN PASSWORD 'p'");
    cluster.create_database("taken");
    cluster.sql("taken", "CREATE TABLE mine (id int)");
    let stored = run(&Task::Backup(Box::new(backup(patient(test.store()), &cluster, &secret, "before")))).await;
    assert_eq!(stored.reason, Reason::Completed, "{}", stored.message);
    let mut meek = Secret::of("meek", "p");
    meek.mounts.secret = Some("Secret meek (keys username and password)".into());
    let into = |select, secret: &Secret, database: &str, on_existing| {
        job::restore(patient(test.store()), select, cluster.target(&secret.mounts, Some(database)), on_existing)
    };
    let task = |task| Task::Restore(Box::new(task));
    let newest = || Select::At(None);
    let mut elsewhere = into(newest(), &secret, "new", OnExisting::Fail);
    elsewhere.scope.policy = "nigthly".into();
    let mut prefix = into(newest(), &secret, "new", OnExisting::Fail);
    prefix.store.s3.prefix = Some("prdo".into());
    let mut unknown = into(newest(), &secret, "new", OnExisting::Fail);
    unknown.sources = Some(vec!["dbb".into()]);
    unknown.targets[0].source = "dbb".into();
    let mut targetless = into(newest(), &secret, "new", OnExisting::Fail);
    targetless.targets.clear();
    let mut wrong = Secret::of("postgres", WRONG);
    wrong.mounts.secret = Some(SECRET.into());
    let files = tempfile::tempdir().unwrap();
    let mut other = into(newest(), &secret, "new", OnExisting::Fail);
    other.targets = vec![RestoreTarget {
        source: "db".into(),
        mounts: Mounts { data: Some(files.path().to_owned()), ..Mounts::default() },
        server: Target::Volume(VolumeTarget { claim_name: "uploads".into(), ..VolumeTarget::default() }),
    }];

    // An encrypted one, and keys that do not open it.
    let sealed = Server::shared().await.bucket().await;
    let keys = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let file = keys.path().join(name);
        assert!(Command::new("age-keygen").arg("-o").arg(&file).output().unwrap().status.success());
        let pair = std::fs::read_to_string(file).unwrap();
        pair.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned()
    };
    let (public, _) = (key("own"), key("other"));
    std::fs::write(keys.path().join("public"), format!("{public}\n")).unwrap();
    std::fs::write(keys.path().join("empty"), "").unwrap();
    std::fs::write(keys.path().join("cut"), format!("AGE-SECRET-KEY-1{WRONG}\n")).unwrap();
    let store = StoreTask { recipients: vec![public.clone()], ..patient(sealed.store()) };
    let stored = run(&Task::Backup(Box::new(backup(store, &cluster, &secret, "before")))).await;
    assert_eq!(stored.reason, Reason::Completed, "{}", stored.message);
    let opened = |identity: Option<&str>| {
        let identity = identity.map(|name| keys.path().join(name));
        let identity_secret = identity.as_ref().map(|_| IDENTITY.to_owned());
        let store =
            StoreTask { recipients: vec![public.clone()], identity, identity_secret, ..patient(sealed.store()) };
        let target = cluster.target(&secret.mounts, Some("new"));
        task(job::restore(store, Select::At(None), target, OnExisting::Fail))
    };
    let mut stands = into(newest(), &secret, "taken", OnExisting::Fail);
    stands.dry_run = true;
    let mut look = into(newest(), &secret, "taken", OnExisting::Replace);
    look.dry_run = true;
    let look = run(&task(look)).await;
    println!("a dry run with Replace\n    {}: {}", look.reason, look.message);
    assert_eq!(look.reason, Reason::Completed);
    assert!(look.message.contains("would replace what is there (database taken"), "{}", look.message);
    assert!(!look.message.contains("onExisting"), "it is set: {}", look.message);
    let before = Select::At(Some("2020-01-01T00:00:00Z".parse().unwrap()));
    let run_id = Select::RunId("20200101T000000Z-000000".into());
    make(vec![
        mistake(
            "a target that holds data",
            task(into(newest(), &secret, "taken", OnExisting::Fail)),
            Reason::TargetNotEmpty,
            &["database taken", "nothing was touched", "onExisting: Replace"],
        ),
        mistake(
            "a database that is not there and may not be made",
            task(into(newest(), &meek, "new", OnExisting::Fail)),
            Reason::SourceRefused,
            &["there is no database new", "user meek", "CREATEDB"],
        ),
        mistake(
            "an instant before the first backup",
            task(into(before, &secret, "new", OnExisting::Fail)),
            Reason::NoMatchingBackup,
            &["at or before 2020-01-01T00:00:00Z", "there are 1 complete ones", "20261121T020000Z"],
        ),
        mistake(
            "a run that is not there",
            task(into(run_id, &secret, "new", OnExisting::Fail)),
            Reason::NoMatchingBackup,
            &["run 20200101T000000Z-000000", "20261121T020000Z"],
        ),
        mistake("a policy with a typo", task(elsewhere), Reason::NoMatchingBackup, &["nigthly", "nightly"]),
        mistake(
            "a prefix with a typo",
            task(prefix),
            Reason::NoMatchingBackup,
            &["prefix prdo", "it has prod", "spec.s3.prefix of BackupStore main"],
        ),
        mistake(
            "a source with a typo",
            task(unknown),
            Reason::NoMatchingBackup,
            &["source dbb", "they hold db", "spec.sources"],
        ),
        mistake(
            "a target that holds data, in a dry run",
            task(stands),
            Reason::TargetNotEmpty,
            &["dry run: nothing was changed", "database taken", "onExisting: Replace"],
        ),
        mistake(
            "a database of somebody else is to be replaced",
            task(into(newest(), &meek, "taken", OnExisting::Replace)),
            Reason::SourceRefused,
            &["user meek", "database taken", "must be its owner", "CREATEDB"],
        ),
        mistake(
            "a wrong password of the target",
            task(into(newest(), &wrong, "new", OnExisting::Fail)),
            Reason::SourceRefused,
            &["127.0.0.1", "password authentication failed", SECRET],
        ),
        mistake(
            "a source without a target",
            task(targetless),
            Reason::InvalidConfiguration,
            &["source db", "has no target", "spec.into", "spec.sources"],
        ),
        mistake(
            "a claim for the backup of a database",
            task(other),
            Reason::InvalidConfiguration,
            &["source db is of postgres", "spec.into names a claim", "write postgres:"],
        ),
        mistake(
            "no key for an encrypted backup",
            opened(None),
            Reason::KeyMissing,
            &["is encrypted to the keys", "spec.encryption.identitySecret"],
        ),
        mistake(
            "another key than the backup was encrypted to",
            opened(Some("other")),
            Reason::KeyMissing,
            &[IDENTITY, "spec.encryption.identitySecret", "it is encrypted to the keys"],
        ),
        mistake(
            "a public key in the identity's Secret",
            opened(Some("public")),
            Reason::KeyMissing,
            &[IDENTITY, "spec.encryption.identitySecret", "public keys, which belong into spec.encryption.recipients"],
        ),
        mistake(
            "half a key in the identity's Secret",
            opened(Some("cut")),
            Reason::KeyMissing,
            &[IDENTITY, "line 1", "identities that were cut or mistyped"],
        ),
        mistake(
            "an empty key in the identity's Secret",
            opened(Some("empty")),
            Reason::KeyMissing,
            &[IDENTITY, "spec.encryption.identitySecret", "holds no identity"],
        ),
    ])
    .await;
}

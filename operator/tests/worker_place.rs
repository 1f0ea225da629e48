//! Sources of one request that go into one place: each comes back beside the other, or nothing is touched. Against a real S3 server and a real
//! PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/volume.rs"]
mod volume;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use holdfast::task::{
    BackupTask, Outcome, PathFilter, Report, RestoreTarget, RestoreTask, Select, SettleTask, StoreTask, Target, Task,
    VolumeTarget,
};
use holdfast_crds::{OnExisting, Reason, Source, VolumeSource};
use job::{run, run_id};
use postgres::{Cluster, Secret};
use s3::Server;
use volume::{look, mounts, write};

/// A source of the claim `data`, by its name and its globs.
type Part<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

fn list(globs: &[&str]) -> Vec<String> {
    globs.iter().map(|g| (*g).to_owned()).collect()
}

/// Saves each part of a folder as a source of its own.
async fn save(store: StoreTask, folder: &Path, parts: &[Part<'_>]) {
    for (name, include, exclude) in parts {
        let volume = VolumeSource {
            claim_name: "data".into(),
            include: list(include),
            exclude: list(exclude),
            ..VolumeSource::default()
        };
        let source = Source { name: (*name).into(), volume: Some(volume), ..Source::default() };
        let names = parts.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let task = BackupTask { run_sources: names, ..job::backup_on(21, store.clone(), source, mounts(folder)) };
        let report = run(&Task::Backup(Box::new(task))).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    }
}

fn into(source: &str, folder: &Path) -> RestoreTarget {
    let claim = VolumeTarget { claim_name: "data".into(), ..VolumeTarget::default() };
    RestoreTarget { source: source.into(), mounts: mounts(folder), server: Target::Volume(claim) }
}

fn restore(store: StoreTask, targets: Vec<RestoreTarget>, on_existing: OnExisting) -> RestoreTask {
    let sources = Some(targets.iter().map(|target| target.source.clone()).collect());
    let first = targets[0].clone();
    RestoreTask { sources, targets, ..job::restore(store, Select::RunId(run_id(21)), first, on_existing) }
}

async fn restored(store: StoreTask, targets: Vec<RestoreTarget>, on_existing: OnExisting) -> Report {
    run(&Task::Restore(Box::new(restore(store, targets, on_existing)))).await
}

/// Each file with its content.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let is_hidden = |path: &Path| path.to_string_lossy().starts_with(".holdfast-restore-");
    let files = look(folder).into_iter().filter(|(path, seen)| seen.kind != "folder" && !is_hidden(path));
    files.map(|(path, seen)| (path.display().to_string(), String::from_utf8(seen.content).unwrap())).collect()
}

fn of(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

const SAVED: [(&str, &[u8]); 5] = [
    ("photos/a.jpg", b"a"),
    ("photos/2026/b.jpg", b"b"),
    ("docs/c.txt", b"c"),
    ("data/docs/d.txt", b"d"),
    ("data/e", b"e"),
];

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_of_one_claim_come_back_side_by_side_and_leave_the_rest() {
    let ways: [&[Part<'_>]; 3] = [
        &[("photos", &["photos/**"], &[]), ("docs", &["docs/**", "data"], &[])],
        &[("photos", &["**/*.jpg"], &[]), ("docs", &["**/*.txt", "data/e"], &[])],
        // One takes what the other leaves out, also within a folder that the one replaces as a whole.
        &[("rest", &[], &["cache/**", "data/docs/**"]), ("docs", &["data/docs"], &[])],
    ];
    for parts in ways {
        let test = Server::shared().await.bucket().await;
        let from = tempfile::tempdir().unwrap();
        write(from.path(), &SAVED);
        let before = files(from.path());
        save(test.store(), from.path(), parts).await;

        for on_existing in [OnExisting::Fail, OnExisting::Replace] {
            let to = tempfile::tempdir().unwrap();
            let mut expected = before.clone();
            if on_existing == OnExisting::Replace {
                write(to.path(), &SAVED.map(|(name, _)| (name, b"old".as_slice())));
                write(to.path(), &[("photos/new.jpg", b"new"), ("data/docs/new.txt", b"new"), ("cache/x", b"kept")]);
                expected.insert("cache/x".into(), "kept".into());
            }
            let targets: Vec<_> = parts.iter().map(|(name, ..)| into(name, to.path())).collect();
            let report = restored(test.store(), targets, on_existing).await;
            assert_eq!(report.reason, Reason::Completed, "{}", report.message);
            assert_eq!(files(to.path()), expected, "{parts:?} {on_existing:?}");
            assert_eq!(volume::leftovers(to.path()), Vec::<String>::new());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_of_a_claim_replaces_what_it_saves_and_nothing_beside_it() {
    let test = Server::shared().await.bucket().await;
    let from = tempfile::tempdir().unwrap();
    write(from.path(), &SAVED);
    save(test.store(), from.path(), &[("photos", &["photos/2026"], &["**/thumbs"])]).await;
    let to = tempfile::tempdir().unwrap();
    write(
        to.path(),
        &[
            ("photos/a.jpg", b"other"),
            ("photos/2026/gone.jpg", b"old"),
            ("photos/2026/thumbs/x", b"other"),
            ("db/file", b"other"),
        ],
    );
    let expected = of(&[
        ("photos/a.jpg", "other"),
        ("photos/2026/b.jpg", "b"),
        ("photos/2026/thumbs/x", "other"),
        ("db/file", "other"),
    ]);
    let report = restored(test.store(), vec![into("photos", to.path())], OnExisting::Replace).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert_eq!(files(to.path()), expected);

    // A folder that is named is replaced as far as the source saves it.
    let mut some = into("photos", to.path());
    let Target::Volume(claim) = &mut some.server else { panic!() };
    claim.paths = vec!["photos".into()];
    write(to.path(), &[("photos/2026/gone.jpg", b"old")]);
    let report = restored(test.store(), vec![some], OnExisting::Replace).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert_eq!(files(to.path()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_would_remove_what_the_other_brings_are_refused_with_their_names() {
    let test = Server::shared().await.bucket().await;
    let from = tempfile::tempdir().unwrap();
    write(from.path(), &SAVED);
    save(test.store(), from.path(), &[("all", &[], &[]), ("docs", &["docs/**"], &[])]).await;
    let to = tempfile::tempdir().unwrap();
    write(to.path(), &[("here", b"before")]);
    let both = vec![into("docs", to.path()), into("all", to.path())];
    let before = test.keys().await;
    for on_existing in [OnExisting::Fail, OnExisting::Replace] {
        let report = restored(test.store(), both.clone(), on_existing).await;
        assert_eq!(report.reason, Reason::InvalidConfiguration, "{}", report.message);
        for word in ["docs", "all", "claim data", "docs/c.txt", "nothing was touched"] {
            assert!(report.message.contains(word), "{word}: {}", report.message);
        }
    }
    let look = RestoreTask { dry_run: true, ..restore(test.store(), both, OnExisting::Replace) };
    let report = run(&Task::Restore(Box::new(look))).await;
    let Some(Outcome::Restore(told)) = &report.outcome else { panic!("{report:?}") };
    assert!(told.sources.iter().all(|source| source.reason == Reason::InvalidConfiguration), "{report:?}");
    assert_eq!((files(to.path()), test.keys().await), (of(&[("here", "before")]), before));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_and_is_not_in_the_safety_backup_is_not_touched() {
    let test = Server::shared().await.bucket().await;
    let from = tempfile::tempdir().unwrap();
    write(from.path(), &SAVED);
    save(test.store(), from.path(), &[("photos", &["photos/**", "docs/**"], &[])]).await;
    let to = tempfile::tempdir().unwrap();
    write(to.path(), &[("docs/mine", b"unsaved"), ("photos/x", b"old")]);
    // The policy's source was narrowed since.
    let mut target = into("photos", to.path());
    let Target::Volume(claim) = &mut target.server else { panic!() };
    claim.safety = Some(PathFilter { include: list(&["photos/**"]), exclude: vec![] });
    let report = restored(test.store(), vec![target.clone()], OnExisting::Replace).await;
    assert_eq!(report.reason, Reason::InvalidConfiguration, "{}", report.message);
    assert!(report.message.contains("docs/mine"), "{}", report.message);
    assert_eq!(files(to.path()), of(&[("docs/mine", "unsaved"), ("photos/x", "old")]));
    // Where nothing is lost, nothing stands in the way.
    fs::remove_file(to.path().join("docs/mine")).unwrap();
    let report = restored(test.store(), vec![target], OnExisting::Replace).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    let expected = of(&[("photos/a.jpg", "a"), ("photos/2026/b.jpg", "b"), ("docs/c.txt", "c")]);
    assert_eq!(files(to.path()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_into_one_database_are_refused_with_their_names() {
    let (cluster, secret) = (Cluster::shared(), Secret::superuser());
    let test = Server::shared().await.bucket().await;
    for database in ["one_place", "other_place"] {
        cluster.create_database(database);
        cluster.sql(database, "create table t (id int); insert into t values (1)");
    }
    for (source, database) in [("first", "one_place"), ("second", "other_place")] {
        let task = job::backup(test.store(), &cluster, &secret, database);
        let from = Source { name: source.into(), ..task.source.clone() };
        let task = BackupTask { source: from, run_sources: vec!["first".into(), "second".into()], ..task };
        let report = run(&Task::Backup(Box::new(task))).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    }
    let target = |source: &str, database: Option<&str>| RestoreTarget {
        source: source.into(),
        ..cluster.target(&secret.mounts, database)
    };
    let before = cluster.fingerprint("one_place");
    // The one goes where it came from, and the other is sent there.
    let targets = vec![target("first", None), target("second", Some("one_place"))];
    let report = restored(test.store(), targets, OnExisting::Replace).await;
    assert_eq!(report.reason, Reason::InvalidConfiguration, "{}", report.message);
    for word in ["first", "second", "database one_place", "nothing was touched"] {
        assert!(report.message.contains(word), "{word}: {}", report.message);
    }
    assert_eq!(cluster.fingerprint("one_place"), before);
    let apart = vec![target("first", None), target("second", None)];
    let report = restored(test.store(), apart, OnExisting::Replace).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    for database in ["one_place", "other_place"] {
        cluster.sql("postgres", &format!("drop database {database} with (force)"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_was_cut_off_is_undone_in_every_claim_of_the_restore() {
    let test = Server::shared().await.bucket().await;
    let (half, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The first of two steps was taken.
    write(
        half.path(),
        &[
            ("a", b"new"),
            ("b", b"old"),
            (".holdfast-restore-0000000a/old/0", b"old"),
            (".holdfast-restore-0000000a/new/b", b"new"),
            (".holdfast-restore-0000000a/swap", b"P a\nP b\n"),
        ],
    );
    write(whole.path(), &[("c", b"old")]);
    let targets = vec![into("photos", half.path()), into("docs", whole.path())];
    let settle = || Task::Settle(SettleTask { store: test.store(), targets: targets.clone() });
    for told in ["a swap that was cut off is undone", "no swap was cut off"] {
        let report = run(&settle()).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
        assert!(report.message.contains(told), "{}", report.message);
        assert_eq!(files(half.path()), of(&[("a", "old"), ("b", "old")]));
        assert_eq!(files(whole.path()), of(&[("c", "old")]));
        assert!(!half.path().join(".holdfast-restore-0000000a/swap").exists(), "what is left is no half swap");
    }
    // One that cannot be undone is a failure: its steps are no steps.
    write(half.path(), &[(".holdfast-restore-0000000a/swap", b"nonsense\n")]);
    let report = run(&settle()).await;
    assert_ne!(report.reason, Reason::Completed, "{}", report.message);
    assert!(report.message.contains("claim data"), "{}", report.message);
}

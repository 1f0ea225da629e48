//! Verifications of real backups in a real S3 server, by the program as a Job runs it: every engine's is found whole, and whatever is
//! changed behind the product's back is found; what cannot be found out is told apart from damage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/forum.rs"]
mod forum;
#[path = "support/job.rs"]
mod job;
#[path = "support/mongodb.rs"]
mod mongodb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/volume.rs"]
mod volume;

use std::path::PathBuf;
use std::process::Command;

use holdfast::store::encryption::key_id;
use holdfast::store::manifest::{ArtifactEntry, Manifest};
use holdfast::task::{BackupTask, Mounts, Outcome, Report, StoreTask, Task, VerifyReport, VerifyTask};
use holdfast_crds::{
    ConfigSource, MongodbFormat, MongodbSource, PostgresFormat, PostgresSource, Reason, Source, VolumeSource,
};
use job::{folder, run, run_id, scope};
use postgres::{Cluster, Secret};
use s3::{Server, TestBucket};

/// What to save, of each engine and format, with what it takes to reach it.
struct Sources {
    all: Vec<(Source, Mounts)>,
    cluster: std::sync::Arc<Cluster>,
    database: String,
    kept: Vec<Box<dyn std::any::Any>>,
}

impl Sources {
    async fn new(database: &str) -> Self {
        let mut sources = Self::postgres(database);
        let plain = PostgresSource { format: PostgresFormat::Plain, ..sources.all[0].0.postgres.clone().unwrap() };
        let mounts = sources.all[0].1.clone();
        sources.add("plain", Source { postgres: Some(plain), ..Source::default() }, mounts);

        let files = tempfile::tempdir().unwrap();
        let large = vec![b'x'; 300_000];
        volume::write(files.path(), &[("a/one", b"1"), ("a/b/two", &large), ("three", b"")]);
        std::os::unix::fs::symlink("a/one", files.path().join("link")).unwrap();
        std::fs::hard_link(files.path().join("three"), files.path().join("same")).unwrap();
        let claim = VolumeSource { claim_name: "uploads".into(), ..volume::source() };
        let mounts = volume::mounts(files.path());
        sources.add("uploads", Source { volume: Some(claim), ..Source::default() }, mounts);

        let objects = tempfile::tempdir().unwrap();
        volume::write(objects.path(), &[("configmaps/shop-env/COLOUR", b"blue"), ("configmaps/shop-env/EMPTY", b"")]);
        let config = ConfigSource { config_maps: vec!["shop-env".into()], ..ConfigSource::default() };
        let mounts = volume::mounts(objects.path());
        sources.add("config", Source { config: Some(config), ..Source::default() }, mounts);

        let redis = redis::Redis::start(&[]);
        redis::fill(&redis);
        sources.add("cache", Source { redis: Some(redis.source()), ..Source::default() }, Mounts::default());

        let mongodb = mongodb::Server::shared();
        let forum = format!("{database}_{}", std::process::id());
        forum::fill(&forum::client(&mongodb.uri()).await, &forum).await;
        let secret = forum::Secret::of(&mongodb.uri());
        for (name, format) in [("chat", MongodbFormat::Archive), ("lines", MongodbFormat::Json)] {
            let from = MongodbSource { database: Some(forum.clone()), format, ..MongodbSource::default() };
            sources.add(name, Source { mongodb: Some(from), ..Source::default() }, secret.mounts.clone());
        }
        sources.kept.extend([
            Box::new(files) as Box<dyn std::any::Any>,
            Box::new(objects),
            Box::new(redis),
            Box::new(mongodb),
            Box::new(secret),
        ]);
        sources
    }

    /// One of Postgres alone, with its roles.
    fn postgres(database: &str) -> Self {
        let (cluster, secret) = (Cluster::shared(), Secret::superuser());
        cluster.create_database(database);
        cluster.sql(
            database,
            "create table t (id int primary key, v text); insert into t select i, md5(i::text) from generate_series(1, 20000) i",
        );
        let from = PostgresSource { database: Some(database.into()), include_globals: true, ..cluster.source() };
        let db = Source { name: "db".into(), postgres: Some(from), ..Source::default() };
        let all = vec![(db, secret.mounts.clone())];
        Self { all, cluster, database: database.into(), kept: vec![Box::new(secret)] }
    }

    fn add(&mut self, name: &str, source: Source, mounts: Mounts) {
        self.all.push((Source { name: name.into(), ..source }, mounts));
    }

    fn names(&self) -> Vec<String> {
        self.all.iter().map(|(source, _)| source.name.clone()).collect()
    }

    /// Saves all of them as one run.
    async fn save(&self, store: &StoreTask, day: u32) {
        for (source, mounts) in &self.all {
            let run_id = run_id(day);
            let task = BackupTask {
                store: store.clone(),
                scope: scope(),
                backup: format!("nightly-{day}"),
                slot: holdfast::store::keys::slot_of_run(&run_id).unwrap(),
                run_id,
                run_sources: self.names(),
                source: source.clone(),
                once: false,
                writer: None,
                safety_for: None,
                mounts: mounts.clone(),
                level: 3,
                timeout_seconds: 120,
                idle_timeout_seconds: 60,
            };
            let report = run(&Task::Backup(Box::new(task))).await;
            assert_eq!(report.reason, Reason::Completed, "{}: {}", source.name, report.message);
        }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.cluster.sql("postgres", &format!("drop database {} with (force)", self.database));
    }
}

async fn verify(store: StoreTask, sources: &[String], day: u32) -> Report {
    let task = VerifyTask {
        store,
        scope: scope(),
        run_id: run_id(day),
        sources: sources.to_vec(),
        timeout_seconds: 120,
        idle_timeout_seconds: 60,
    };
    run(&Task::Verify(task)).await
}

fn read(report: &Report) -> VerifyReport {
    match &report.outcome {
        Some(Outcome::Verify(read)) => read.clone(),
        other => panic!("{other:?}: {}", report.message),
    }
}

fn manifest_key(test: &TestBucket, day: u32, source: &str) -> String {
    folder(&test.store()).run(&run_id(day)).source(source).manifest()
}

async fn artifacts(test: &TestBucket, day: u32, source: &str) -> Vec<ArtifactEntry> {
    Manifest::parse(&test.get(&manifest_key(test, day, source)).await).unwrap().artifacts
}

async fn delete(test: &TestBucket, key: &str) {
    test.server.client().delete_object().bucket(&test.name).key(key).send().await.unwrap();
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

/// A key pair made by the stock tool, and the Secret's file.
struct Key {
    public: String,
    file: PathBuf,
    /// It goes with the key.
    #[allow(dead_code, reason = "held, never read")]
    folder: tempfile::TempDir,
}

impl Key {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("identity");
        let made = Command::new("age-keygen").output().unwrap();
        let identity = String::from_utf8(made.stdout).unwrap();
        std::fs::write(&file, &identity).unwrap();
        let public = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
        Self { public, file, folder }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_engines_backup_is_found_whole_and_every_changed_object_is_found() {
    let sources = Sources::new("verified").await;
    let test = Server::shared().await.bucket().await;
    let names = sources.names();
    sources.save(&test.store(), 21).await;
    let before = test.keys().await;

    let report = verify(test.store(), &names, 21).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    let mut of_all = Vec::new();
    for source in &names {
        for artifact in artifacts(&test, 21, source).await {
            of_all.push((source.clone(), artifact));
        }
    }
    let told = read(&report);
    assert_eq!(told.objects, of_all.len(), "{}", report.message);
    assert_eq!(told.stored_bytes, of_all.iter().map(|(_, a)| a.stored_bytes).sum::<u64>());
    assert!(of_all.len() > names.len() + 3, "several sources have several objects: {of_all:?}");
    assert_eq!(test.keys().await, before, "nothing is written");

    for (source, artifact) in &of_all {
        let whole = test.get(&artifact.key).await;
        // A bit in the middle, the last byte gone, and all of it gone.
        for harm in [Some(flipped(&whole, whole.len() / 2)), Some(whole[..whole.len() - 1].to_vec()), None] {
            match &harm {
                Some(bytes) => test.put(&artifact.key, bytes.clone()).await,
                None => delete(&test, &artifact.key).await,
            }
            let report = verify(test.store(), &names, 21).await;
            assert_eq!(report.reason, Reason::ChecksumMismatch, "{source} {}: {}", artifact.key, report.message);
            let counted = report.message.contains(&format!("1 of {} sources", names.len()));
            assert!(counted && report.message.contains(&artifact.key), "{}", report.message);
        }
        test.put(&artifact.key, whole).await;
    }
    let healed = verify(test.store(), &names, 21).await;
    assert_eq!(healed.reason, Reason::Completed, "{}", healed.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_fit_their_manifest_and_are_no_dump_are_found_by_their_engine() {
    let sources = Sources::new("forged").await;
    let test = Server::shared().await.bucket().await;
    sources.save(&test.store(), 21).await;
    for source in sources.names() {
        let key = manifest_key(&test, 21, &source);
        let stored = test.get(&key).await;
        let honest = Manifest::parse(&stored).unwrap();
        for index in 0..honest.artifacts.len() {
            // Whoever wrote these bytes wrote the manifest, too: sizes and hashes fit.
            let mut forged = honest.clone();
            let artifact = &mut forged.artifacts[index];
            let bytes = test.get(&artifact.key).await;
            let plain = zstd::decode_all(&bytes[..]).unwrap();
            if plain.is_empty() {
                // A collection without a document: nothing can be cut off it.
                continue;
            }
            let cut = &plain[..plain.len() - plain.len().min(700)];
            let again = zstd::encode_all(cut, 3).unwrap();
            artifact.stored_bytes = again.len() as u64;
            artifact.source_bytes = cut.len() as u64;
            artifact.stored_sha256 = sha256(&again);
            let (at, name) = (artifact.key.clone(), artifact.name.clone());
            test.put(&at, again).await;
            test.put(&key, forged.to_bytes().unwrap()).await;
            let report = verify(test.store(), &sources.names(), 21).await;
            assert!(report.reason.is_damage(), "{source} {name}: {:?} {}", report.reason, report.message);
            test.put(&at, bytes).await;
        }
        test.put(&key, stored).await;
    }
    assert_eq!(verify(test.store(), &sources.names(), 21).await.reason, Reason::Completed);
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_are_gone_or_changed_are_damage_and_those_of_later_versions_are_not() {
    let sources = Sources::postgres("unmanifest");
    let test = Server::shared().await.bucket().await;
    let both = ["db".to_owned(), "other".to_owned()];
    sources.save(&test.store(), 21).await;
    let key = manifest_key(&test, 21, "db");
    let stored = test.get(&key).await;

    // Of two sources one is gone; then all are.
    let report = verify(test.store(), &both, 21).await;
    assert_eq!(report.reason, Reason::ChecksumMismatch, "{}", report.message);
    assert!(report.message.contains("other: ") && report.message.contains("is not there"), "{}", report.message);
    let report = verify(test.store(), &["db".to_owned()], 20).await;
    assert_eq!(report.reason, Reason::NoMatchingBackup, "{}", report.message);
    assert!(report.message.contains("holds nothing of run"), "{}", report.message);

    let honest = Manifest::parse(&stored).unwrap();
    let mut elsewhere = honest.clone();
    elsewhere.artifacts[0].key = "prod/shop/another/object".into();
    let mut of_another = honest.clone();
    of_another.source = "other".into();
    let mut later = honest.clone();
    later.format_version += 1;
    let mut later_engine = honest.clone();
    later_engine.engine = "mysql".into();
    let written = |manifest: &Manifest| manifest.to_bytes().unwrap().to_vec();
    for (manifest, reason) in [
        (b"{".to_vec(), Reason::ChecksumMismatch),
        (stored[..stored.len() / 2].to_vec(), Reason::ChecksumMismatch),
        (written(&elsewhere), Reason::ChecksumMismatch),
        (written(&of_another), Reason::ChecksumMismatch),
        (written(&later), Reason::InvalidConfiguration),
        (written(&later_engine), Reason::InvalidConfiguration),
    ] {
        test.put(&key, manifest).await;
        let report = verify(test.store(), &["db".to_owned()], 21).await;
        assert_eq!(report.reason, reason, "{}", report.message);
        assert_eq!(report.message.contains("is damaged"), reason == Reason::ChecksumMismatch, "{}", report.message);
    }
    test.put(&key, stored).await;
    assert_eq!(verify(test.store(), &["db".to_owned()], 21).await.reason, Reason::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_encrypted_only_the_key_shows_everything_and_without_it_the_stored_bytes_are_looked_at() {
    let sources = Sources::postgres("locked_away");
    let test = Server::shared().await.bucket().await;
    let (key, stranger) = (Key::new(), Key::new());
    let names = sources.names();
    let store = StoreTask { recipients: vec![key.public.clone()], ..test.store() };
    sources.save(&store, 21).await;
    let with = |file: Option<&PathBuf>| StoreTask { identity: file.cloned(), ..store.clone() };

    let report = verify(with(Some(&key.file)), &names, 21).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert_eq!(read(&report).objects, 2);

    // No key, one that does not fit, and a Secret without any: it could not be verified, and what could be seen is said.
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = empty.path().to_owned();
    let artifact = artifacts(&test, 21, "db").await.remove(0);
    let (whole, manifest) = (test.get(&artifact.key).await, test.get(&manifest_key(&test, 21, "db")).await);
    for identity in [None, Some(&stranger.file), Some(&empty)] {
        let report = verify(with(identity), &names, 21).await;
        assert_eq!(report.reason, Reason::KeyMissing, "{}", report.message);
        for words in ["could not be verified", "the stored bytes are those that were written"] {
            assert!(report.message.contains(words), "{}", report.message);
        }
        assert!(identity == Some(&empty) || report.message.contains(&key_id(&key.public)), "{}", report.message);
        assert_eq!(read(&report).objects, 0, "nothing was seen to be whole");
        // Damage shows without a key as well.
        test.put(&artifact.key, flipped(&whole, whole.len() / 2)).await;
        let report = verify(with(identity), &names, 21).await;
        assert_eq!(report.reason, Reason::ChecksumMismatch, "{}", report.message);
        test.put(&artifact.key, whole.clone()).await;
    }

    // With the key a manifest that somebody edited to fit the damage is found by its seal.
    let mut edited = Manifest::parse(&manifest).unwrap();
    let harmed = flipped(&whole, whole.len() / 2);
    edited.artifacts[0].stored_sha256 = sha256(&harmed);
    test.put(&artifact.key, harmed).await;
    test.put(&manifest_key(&test, 21, "db"), edited.to_bytes().unwrap()).await;
    let report = verify(with(Some(&key.file)), &names, 21).await;
    assert_eq!(report.reason, Reason::ChecksumMismatch, "{}", report.message);
    assert!(report.message.contains("seal"), "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_before_encryption_is_read_and_not_vouched_for() {
    let sources = Sources::postgres("before_keys");
    let test = Server::shared().await.bucket().await;
    let key = Key::new();
    sources.save(&test.store(), 21).await;
    let store = StoreTask { recipients: vec![key.public.clone()], identity: Some(key.file.clone()), ..test.store() };
    let report = verify(store, &sources.names(), 21).await;
    assert_eq!(report.reason, Reason::InvalidConfiguration, "{}", report.message);
    assert!(report.message.contains("is not encrypted") && report.message.contains("could not be verified"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_or_refuses_is_no_damage() {
    let sources = Sources::postgres("far_away");
    let test = std::sync::Arc::new(Server::start().await).bucket().await;
    let names = sources.names();
    sources.save(&test.store(), 21).await;
    test.write_credentials(s3::KEY_ID, "of-nobody");
    let report = verify(test.store(), &names, 21).await;
    assert_eq!(report.reason, Reason::StoreRefused, "{}", report.message);
    test.write_credentials(s3::KEY_ID, s3::SECRET);
    assert_eq!(verify(test.store(), &names, 21).await.reason, Reason::Completed);

    test.server.kill();
    let report = verify(test.store(), &names, 21).await;
    assert_eq!(report.reason, Reason::StoreUnreachable, "{}", report.message);
    assert!(!report.message.contains("damaged"), "{}", report.message);
}

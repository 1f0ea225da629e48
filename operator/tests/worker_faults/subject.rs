//! What is backed up and restored while the store fails: one of each engine, with a source of its own and a place to restore it to.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast::task::{ConfigTarget, Mounts, RestoreTarget, Target, VolumeTarget};
use holdfast_crds::{ConfigSource, MongodbSource, RedisSource, Source, VolumeSource};

use crate::{forum, mongodb, postgres, redis, volume};

/// A source with content, a place to restore it to, and a way to compare them.
pub trait Subject {
    fn source(&self) -> Source;
    fn mounts(&self) -> Mounts;
    fn target(&self) -> RestoreTarget;
    /// What is to be seen in the source.
    async fn before(&self) -> String;
    /// What is to be seen in the target.
    async fn after(&self) -> String;
    /// Makes the target empty.
    async fn clear(&self);
    /// What an empty target looks like.
    async fn nothing(&self) -> String;
    /// Leaves nothing behind.
    async fn close(self);
}

pub struct Postgres {
    cluster: Arc<postgres::Cluster>,
    secret: postgres::Secret,
    database: String,
}

impl Postgres {
    pub fn new(lane: usize) -> Self {
        let (cluster, database) = (postgres::Cluster::shared(), format!("faults_{lane}"));
        cluster.create_database(&database);
        cluster.sql(&database, "create table t (id int primary key, v text); insert into t select i, md5(i::text) from generate_series(1, 2000) i");
        Self { cluster, secret: postgres::Secret::superuser(), database }
    }

    fn copy(&self) -> String {
        format!("{}_copy", self.database)
    }
}

impl Subject for Postgres {
    fn source(&self) -> Source {
        let postgres = holdfast_crds::PostgresSource { database: Some(self.database.clone()), ..self.cluster.source() };
        Source { name: "db".into(), postgres: Some(postgres), ..Source::default() }
    }
    fn mounts(&self) -> Mounts {
        self.secret.mounts.clone()
    }
    fn target(&self) -> RestoreTarget {
        self.cluster.target(&self.secret.mounts, Some(&self.copy()))
    }
    async fn before(&self) -> String {
        self.cluster.fingerprint(&self.database)
    }
    async fn after(&self) -> String {
        let there = self.cluster.has_database(&self.copy());
        if there { self.cluster.fingerprint(&self.copy()) } else { String::new() }
    }
    async fn clear(&self) {
        self.cluster.sql("postgres", &format!("drop database if exists {} with (force)", self.copy()));
    }
    async fn nothing(&self) -> String {
        String::new()
    }
    async fn close(self) {
        self.clear().await;
        self.cluster.sql("postgres", &format!("drop database {} with (force)", self.database));
    }
}

pub struct Redis {
    from: redis::Redis,
    to: redis::Redis,
    secret: redis::RedisSecretFiles,
}

impl Redis {
    pub fn new() -> Self {
        let (from, to) = (redis::Redis::start(&[]), redis::Redis::start(&[]));
        for command in [
            "SET plain value",
            "SET expires x PXAT 4102444800123",
            "RPUSH list a b c 1 2 3",
            "SADD set a b c",
            "ZADD zset 1 a 2.5 b",
            "HSET hash f v g 12",
            "XADD stream 1-1 temperature 20",
        ] {
            from.run(&command.split(' ').collect::<Vec<_>>());
        }
        let mut client = from.client();
        let many = |at: usize| vec!["SET".to_owned(), format!("many:{at}"), format!("value-{at}")];
        client.run_all(&(0..1000).map(many).collect::<Vec<_>>());
        Self { from, to, secret: redis::RedisSecretFiles::none() }
    }
}

impl Subject for Redis {
    fn source(&self) -> Source {
        let redis = RedisSource { ..self.from.source() };
        Source { name: "db".into(), redis: Some(redis), ..Source::default() }
    }
    fn mounts(&self) -> Mounts {
        Mounts::default()
    }
    fn target(&self) -> RestoreTarget {
        RestoreTarget { source: "db".into(), ..self.to.target(&self.secret) }
    }
    async fn before(&self) -> String {
        format!("{:?}", self.from.content())
    }
    async fn after(&self) -> String {
        format!("{:?}", self.to.content())
    }
    async fn clear(&self) {
        self.to.run(&["FLUSHALL"]);
        self.to.run(&["FUNCTION", "FLUSH"]);
    }
    async fn nothing(&self) -> String {
        self.clear().await;
        self.after().await
    }
    async fn close(self) {}
}

pub struct Mongodb {
    server: Arc<mongodb::Server>,
    secret: forum::Secret,
    database: String,
}

impl Mongodb {
    pub async fn new(lane: usize) -> Self {
        let server = mongodb::Server::shared();
        let database = format!("faults_{}_{lane}", std::process::id());
        forum::fill(&forum::client(&server.uri()).await, &database).await;
        Self { secret: forum::Secret::of(&server.uri()), server, database }
    }

    fn copy(&self) -> String {
        format!("{}_copy", self.database)
    }

    async fn contents(&self, database: &str) -> String {
        format!("{:?}", forum::contents(&forum::client(&self.server.uri()).await, database).await)
    }
}

impl Subject for Mongodb {
    fn source(&self) -> Source {
        let mongodb = MongodbSource { database: Some(self.database.clone()), ..MongodbSource::default() };
        Source { name: "db".into(), mongodb: Some(mongodb), ..Source::default() }
    }
    fn mounts(&self) -> Mounts {
        self.secret.mounts.clone()
    }
    fn target(&self) -> RestoreTarget {
        let target = holdfast::task::MongodbTarget { database: Some(self.copy()), ..Default::default() };
        RestoreTarget { source: "db".into(), mounts: self.mounts(), server: Target::Mongodb(target) }
    }
    async fn before(&self) -> String {
        self.contents(&self.database).await
    }
    async fn after(&self) -> String {
        self.contents(&self.copy()).await
    }
    async fn clear(&self) {
        forum::client(&self.server.uri()).await.database(&self.copy()).drop().await.unwrap();
    }
    async fn nothing(&self) -> String {
        self.contents("faults_of_nobody").await
    }
    async fn close(self) {
        self.clear().await;
        forum::client(&self.server.uri()).await.database(&self.database).drop().await.unwrap();
    }
}

pub struct Volume {
    from: tempfile::TempDir,
    to: tempfile::TempDir,
}

impl Volume {
    pub fn new() -> Self {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // More than one part of an upload.
        let mut noise = vec![0; 9 << 20];
        fastrand::Rng::with_seed(7).fill(&mut noise);
        volume::write(from.path(), &[("a/one", b"1"), ("a/b/two", &noise), ("three", b"")]);
        Self { from, to }
    }
}

impl Subject for Volume {
    fn source(&self) -> Source {
        let volume = VolumeSource { claim_name: "uploads".into(), ..volume::source() };
        Source { name: "db".into(), volume: Some(volume), ..Source::default() }
    }
    fn mounts(&self) -> Mounts {
        volume::mounts(self.from.path())
    }
    fn target(&self) -> RestoreTarget {
        let target = VolumeTarget { ..volume::target() };
        RestoreTarget { source: "db".into(), mounts: volume::mounts(self.to.path()), server: Target::Volume(target) }
    }
    async fn before(&self) -> String {
        summary(&self.from)
    }
    async fn after(&self) -> String {
        summary(&self.to)
    }
    async fn clear(&self) {
        empty(&self.to);
    }
    async fn nothing(&self) -> String {
        "{}".to_owned()
    }
    async fn close(self) {}
}

/// All that is in a folder, with the content of files as their hash.
fn summary(folder: &tempfile::TempDir) -> String {
    use sha2::Digest;
    let seen = volume::inside(folder.path()).into_iter().map(|(path, mut seen)| {
        seen.content = sha2::Sha256::digest(&seen.content).to_vec();
        (path, seen)
    });
    format!("{:?}", seen.collect::<BTreeMap<_, _>>())
}

fn empty(folder: &tempfile::TempDir) {
    for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
}

pub struct Config {
    from: tempfile::TempDir,
    to: tempfile::TempDir,
}

const KEYS: [(&str, &str, &[u8]); 3] = [
    ("configmaps/shop-env", "LOG_LEVEL", b"debug"),
    ("configmaps/shop-env", "app.properties", b"a=b\n"),
    ("secrets/shop-key", "key", &[0, 255, 10]),
];

impl Config {
    /// As the kubelet mounts them: the keys are symlinks through `..data` into a folder of its own.
    pub fn new() -> Self {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (object, key, value) in KEYS {
            let folder = from.path().join(object);
            let held = folder.join("..2026_11_21");
            if !held.exists() {
                std::fs::create_dir_all(&held).unwrap();
                symlink("..2026_11_21", folder.join("..data")).unwrap();
            }
            std::fs::write(held.join(key), value).unwrap();
            symlink(format!("..data/{key}"), folder.join(key)).unwrap();
        }
        Self { from, to }
    }
}

impl Subject for Config {
    fn source(&self) -> Source {
        let config = ConfigSource {
            config_maps: vec!["shop-env".into()],
            secrets: vec!["shop-key".into()],
            allow_unencrypted: true,
        };
        Source { name: "db".into(), config: Some(config), ..Source::default() }
    }
    fn mounts(&self) -> Mounts {
        volume::mounts(self.from.path())
    }
    fn target(&self) -> RestoreTarget {
        let target = Target::Config(ConfigTarget { claim_name: "config".into() });
        RestoreTarget { source: "db".into(), mounts: volume::mounts(self.to.path()), server: target }
    }
    async fn before(&self) -> String {
        let keys = KEYS.map(|(object, key, value)| (PathBuf::from(object).join(key), value.to_vec()));
        format!("{:?}", BTreeMap::from(keys))
    }
    async fn after(&self) -> String {
        let seen = volume::inside(self.to.path()).into_iter().filter(|(_, seen)| seen.kind == "file");
        format!("{:?}", seen.map(|(path, seen)| (path, seen.content)).collect::<BTreeMap<_, _>>())
    }
    async fn clear(&self) {
        empty(&self.to);
    }
    async fn nothing(&self) -> String {
        "{}".to_owned()
    }
    async fn close(self) {}
}

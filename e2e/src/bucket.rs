//! Buckets on an S3 server in a Pod, looked at by rclone in another, which knows nothing of Holdfast. Talks to the cluster.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::command::Ended;
use crate::exec::exec;
use crate::images;
use crate::objects::{object, secret};
use crate::postgres::{random_name, shared_space};
use crate::space::Space;
use crate::tools;
use crate::wait::{seconds, wait_for};

/// An S3 server.
pub struct S3 {
    namespace: String,
    name: String,
    access_key: String,
    secret_key: String,
}

/// A bucket of a server.
pub struct Bucket<'a> {
    server: &'a S3,
    name: String,
}

impl S3 {
    /// Starts a server in a namespace and waits until it serves.
    pub fn start(space: &Space, name: &str) -> Self {
        Self::start_with_secret(space, name, &random_name("secret"))
    }

    /// The server that all tests of the process share, each with a bucket of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<S3> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(shared_space(), "s3"))
    }

    /// Starts a server with this secret key.
    pub fn start_with_secret(space: &Space, name: &str, secret_key: &str) -> Self {
        let server = Self {
            namespace: space.name().to_owned(),
            name: name.to_owned(),
            access_key: random_name("access"),
            secret_key: secret_key.to_owned(),
        };
        space.apply(&secret(&format!("{name}-server"), &images::s3_identities(&server.access_key, secret_key)));
        space.apply(&images::s3_pod(name));
        space.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"server": name}, "ports": [{"port": 8333}]},
        }));
        server.wait_serving();
        server
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}.{}.svc:8333", self.name, self.namespace)
    }

    /// The secret key.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// Ends all connections to it and refuses new ones. What it holds stays.
    pub fn stop(&self) {
        self.select("nobody");
        // The Pod's first process starts the server anew, but nobody is led to it any more.
        exec(&self.namespace, &self.name, &["bash", "-c", "kill -KILL -1"], b"");
    }

    /// Waits until it serves again.
    pub fn come_back(&self) {
        self.select(&self.name);
        self.wait_serving();
    }

    fn select(&self, pod: &str) {
        let patch = json!({"spec": {"selector": {"server": pod}}});
        cluster().merge("Service", &self.namespace, &self.name, &patch).unwrap_or_else(|r| panic!("{}", r.message));
    }

    fn wait_serving(&self) {
        wait_for(&format!("S3 server {} serves", self.endpoint()), seconds(90), || {
            let ended = self.rclone(&["lsd", "s3:"], b"");
            if ended.ok { Ok(()) } else { Err(ended.stderr) }
        });
    }

    /// Makes a bucket with a name of its own.
    pub fn create_bucket(&self) -> Bucket<'_> {
        let name = random_name("b").replace('_', "-");
        // The first bucket makes a fresh server grow volumes, for which it may ask to be patient.
        wait_for(&format!("bucket {name} is made"), seconds(60), || {
            let ended = self.rclone(&["mkdir", &format!("s3:{name}")], b"");
            if ended.ok { Ok(()) } else { Err(ended.stderr) }
        });
        Bucket { server: self, name }
    }

    /// A Secret with the credentials of this server.
    pub fn credentials(&self, name: &str) -> Value {
        secret(name, &json!({"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}))
    }

    /// rclone's remote `s3:` is this server.
    fn rclone(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let remote = [
            "RCLONE_CONFIG_S3_TYPE=s3".to_owned(),
            "RCLONE_CONFIG_S3_PROVIDER=Other".to_owned(),
            format!("RCLONE_CONFIG_S3_ENDPOINT={}", self.endpoint()),
            format!("RCLONE_CONFIG_S3_ACCESS_KEY_ID={}", self.access_key),
            format!("RCLONE_CONFIG_S3_SECRET_ACCESS_KEY={}", self.secret_key),
        ];
        let mut all = vec!["env"];
        all.extend(remote.iter().map(String::as_str));
        all.extend(["rclone", "--retries=1", "--low-level-retries=1"]);
        all.extend_from_slice(arguments);
        tools::run(&all, input)
    }
}

impl Bucket<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server it is on.
    pub fn server(&self) -> &S3 {
        self.server
    }

    /// A BackupStore on this bucket, with credentials in the Secret `s3-credentials` and everything below `prefix`.
    pub fn store(&self, name: &str, prefix: &str) -> Value {
        let s3 = json!({
            "bucket": self.name, "prefix": prefix, "endpoint": self.server.endpoint(), "credentialsSecret": "s3-credentials",
        });
        object("BackupStore", name, &json!({"s3": s3}))
    }

    /// All keys, in order.
    #[track_caller]
    pub fn keys(&self) -> Vec<String> {
        self.listing().into_iter().map(|(key, _)| key).collect()
    }

    /// All keys with the size of what is behind them, in order of the keys.
    #[track_caller]
    pub fn listing(&self) -> Vec<(String, u64)> {
        let ended = self.server.rclone(&["lsf", "-R", "--files-only", "--format", "sp", &self.at("")], b"");
        assert!(ended.ok, "listing bucket {}: {}", self.name, ended.stderr);
        let entry = |line: &str| line.split_once(';').map(|(size, key)| (key.to_owned(), size.parse().unwrap()));
        let mut all: Vec<_> = ended.text().lines().filter_map(entry).collect();
        all.sort();
        all
    }

    /// What is behind a key.
    #[track_caller]
    pub fn read(&self, key: &str) -> Vec<u8> {
        let ended = self.server.rclone(&["cat", &self.at(key)], b"");
        assert!(ended.ok, "reading {key}: {}", ended.stderr);
        ended.stdout
    }

    /// Puts bytes behind a key.
    #[track_caller]
    pub fn write(&self, key: &str, bytes: &[u8]) {
        let ended = self.server.rclone(&["rcat", &self.at(key)], bytes);
        assert!(ended.ok, "writing {key}: {}", ended.stderr);
    }

    /// Deletes what is behind a key.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        let ended = self.server.rclone(&["deletefile", &self.at(key)], b"");
        assert!(ended.ok, "deleting {key}: {}", ended.stderr);
    }

    /// The manifests in it: key and document.
    #[track_caller]
    pub fn manifests(&self) -> Vec<(String, Value)> {
        let keys = self.keys().into_iter().filter(|key| key.ends_with("/manifest.json"));
        keys.map(|key| (key.clone(), serde_json::from_slice(&self.read(&key)).unwrap())).collect()
    }

    /// Removes it with all that is in it. A server has room for some two hundred buckets: whoever makes many removes them again.
    #[track_caller]
    pub fn remove(self) {
        let ended = self.server.rclone(&["purge", &self.at("")], b"");
        assert!(ended.ok, "removing bucket {}: {}", self.name, ended.stderr);
    }

    fn at(&self, key: &str) -> String {
        format!("s3:{}/{key}", self.name)
    }
}

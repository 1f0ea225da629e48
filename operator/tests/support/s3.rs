//! An S3 server of the tests' own (SeaweedFS, as a local process), and what tests do with it behind the product's back.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is part of tests")]

#[path = "data.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod data;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use holdfast::store::client::Bucket;
use holdfast::task::{StorePatience, StoreTask};
use holdfast_crds::S3Spec;

/// The key ID that may do everything.
pub const KEY_ID: &str = "tests";
/// Its secret.
pub const SECRET: &str = "of-the-tests-alone";

/// A running server. The last test that holds it ends it.
pub struct Server {
    child: Mutex<Child>,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    /// The server that the tests of this binary share.
    pub async fn shared() -> Arc<Self> {
        static CURRENT: tokio::sync::Mutex<Weak<Server>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut current = CURRENT.lock().await;
        if let Some(server) = current.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start().await);
        *current = Arc::downgrade(&server);
        server
    }

    /// A server of one test's own.
    pub async fn start() -> Self {
        for _ in 0..5 {
            let server = Self::spawn();
            if server.until_ready().await {
                return server;
            }
        }
        panic!("SeaweedFS does not start; try it by hand: {} server -s3", program().display());
    }

    fn spawn() -> Self {
        let folder = data::folder("holdfast-s3");
        let identities = folder.path().join("identities.json");
        let everything = serde_json::json!({"identities": [{
            "name": "tests",
            "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        fs::write(&identities, everything.to_string()).unwrap();
        let ports = free_ports(8);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(program());
        command.args([
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            "-s3.autoCreateBucket=false",
            // Their ports are the same for every server of a machine.
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.max=2000",
            // On a disk that is nearly full it would else take writes and never answer them.
            "-volume.minFreeSpace=200MiB",
        ]);
        command.args(["-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false"]);
        command.arg(format!("-dir={}", folder.path().display()));
        command.arg(format!("-s3.config={}", identities.display()));
        let names = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
        ];
        command.args(names.iter().zip(&ports).map(|(name, port)| format!("-{name}={port}")));
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // With it the server encrypts what asks for that (SSE-S3).
        command.env("WEED_S3_SSE_KEY", "a-key-of-the-tests");
        command.env("HOME", folder.path()).process_group(0);
        let child = Mutex::new(command.spawn().unwrap());
        Self { child, folder, port: ports[6] }
    }

    async fn until_ready(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_mins(1) {
            if self.child.lock().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            let probe = self.client().create_bucket().bucket("ready").send();
            if tokio::time::timeout(Duration::from_secs(5), probe).await.is_ok_and(|sent| sent.is_ok()) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A plain client, which knows nothing of the product.
    pub fn client(&self) -> Client {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(KEY_ID, SECRET, None, None, "tests"))
            .endpoint_url(self.endpoint())
            .force_path_style(true)
            .build();
        Client::from_conf(config)
    }

    /// Ends the server at once, as a lost node would.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// A bucket of one test's own.
    pub async fn bucket(self: &Arc<Self>) -> TestBucket {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("bucket-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.client().create_bucket().bucket(&name).send().await.unwrap();
        let credentials = tempfile::tempdir().unwrap();
        let bucket = TestBucket { server: self.clone(), name, credentials };
        bucket.write_credentials(KEY_ID, SECRET);
        bucket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A bucket, and the credentials for it as the kubelet mounts them.
pub struct TestBucket {
    pub server: Arc<Server>,
    pub name: String,
    credentials: tempfile::TempDir,
}

impl TestBucket {
    pub fn write_credentials(&self, id: &str, secret: &str) {
        fs::write(self.credentials.path().join("AWS_ACCESS_KEY_ID"), id).unwrap();
        fs::write(self.credentials.path().join("AWS_SECRET_ACCESS_KEY"), secret).unwrap();
    }

    pub fn store(&self) -> StoreTask {
        self.store_at(self.server.endpoint())
    }

    /// The same bucket at another endpoint: that of a proxy.
    pub fn store_at(&self, endpoint: String) -> StoreTask {
        StoreTask {
            name: "main".into(),
            s3: S3Spec {
                bucket: self.name.clone(),
                prefix: Some("prod".into()),
                endpoint: Some(endpoint),
                region: "us-east-1".into(),
                ..S3Spec::default()
            },
            read_only: false,
            append_only: false,
            credentials: Some(self.credentials.path().to_owned()),
            ca: None,
            recipients: vec![],
            identity: None,
            identity_secret: None,
            patience: StorePatience::default(),
        }
    }

    pub async fn open(&self) -> Bucket {
        Bucket::open(&self.store()).await.unwrap()
    }

    pub async fn put(&self, key: &str, content: impl Into<Bytes>) {
        let body = ByteStream::from(content.into());
        self.server.client().put_object().bucket(&self.name).key(key).body(body).send().await.unwrap();
    }

    pub async fn get(&self, key: &str) -> Bytes {
        let reply = self.server.client().get_object().bucket(&self.name).key(key).send().await.unwrap();
        reply.body.collect().await.unwrap().into_bytes()
    }

    /// All keys, sorted.
    pub async fn keys(&self) -> Vec<String> {
        let client = self.server.client();
        let mut pages = client.list_objects_v2().bucket(&self.name).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(page.unwrap().contents().iter().filter_map(|o| o.key().map(str::to_owned)));
        }
        keys.sort();
        keys
    }

    /// Keys of uploads that are neither completed nor aborted.
    pub async fn open_uploads(&self) -> Vec<String> {
        let listed = self.server.client().list_multipart_uploads().bucket(&self.name).send().await.unwrap();
        listed.uploads().iter().filter_map(|u| u.key().map(str::to_owned)).collect()
    }
}

fn program() -> PathBuf {
    let cache = || {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/holdfast");
        std::env::var_os("HOLDFAST_CACHE").map_or_else(home, PathBuf::from)
    };
    let program = std::env::var_os("HOLDFAST_WEED").map_or_else(|| cache().join("bin/weed"), PathBuf::from);
    assert!(
        program.exists(),
        "these tests need SeaweedFS: run e2e/images/seaweedfs.sh, or name its program `weed` in HOLDFAST_WEED ({} is not there)",
        program.display()
    );
    program
}

/// Ports that were free a moment ago, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    listeners.iter().map(|l| l.local_addr().unwrap().port()).collect()
}

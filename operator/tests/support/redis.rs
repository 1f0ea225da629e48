//! Redis servers of the tests' own.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is part of tests")]

#[path = "redis/client.rs"]
mod client;
#[path = "data.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod data;
#[path = "databases.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod databases;
#[path = "disk.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod disk;
#[path = "port.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod port;
#[path = "redis/rich.rs"]
mod rich;
#[path = "wait.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod wait;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "some tests name what a server answers")]
pub use client::Answer;
use client::Client;
use holdfast::task::{Mounts, RedisTarget, RestoreTarget, Target};
use holdfast_crds::{RedisSource, TlsMode, TlsSpec};
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use rich::fill;
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use wait::until;

/// The program. Other versions, and Valkey, by the environment.
fn program() -> PathBuf {
    std::env::var_os("HOLDFAST_TEST_REDIS_SERVER").map_or_else(|| "redis-server".into(), PathBuf::from)
}

/// Redis and Valkey as they are newest.
pub const NEWEST: [&str; 2] = ["redis-server", "valkey-server"];

/// A running server. It ends with its value.
pub struct Redis {
    program: PathBuf,
    folder: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
    settings: Vec<String>,
    password: Option<String>,
    /// Certificates: the port is an encrypted one.
    pub tls: bool,
    /// Size of a disk of its own, in MiB.
    disk: Option<u32>,
}

impl Redis {
    /// With settings such as `["appendonly yes"]` besides those that a test needs.
    pub fn start(settings: &[&str]) -> Self {
        Self::launch(program(), settings, None, false, None)
    }

    /// One of [`NEWEST`].
    pub fn newest(program: &str, settings: &[&str]) -> Self {
        Self::launch(databases::file(&format!("bin/{program}")), settings, None, false, None)
    }

    /// The setting that loads a module which keeps metadata beside keys (`keymeta.c`), built in this folder. Redis from 8.6 on takes it.
    pub fn metadata_module(folder: &Path) -> String {
        let (source, module) =
            (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/redis/keymeta.c"), folder.join("keymeta.so"));
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).args([&module, &source]);
        let built = compiler.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        format!("loadmodule {}", module.display())
    }

    /// With its data on a disk of its own of this size.
    pub fn on_disk(settings: &[&str], mebibytes: u32) -> Self {
        Self::launch(program(), settings, None, false, Some(mebibytes))
    }

    /// That disk.
    pub fn disk(&self) -> disk::Disk {
        disk::Disk::of(self.child.as_ref().unwrap().id(), &self.data())
    }

    /// With a password for `default`.
    pub fn with_password(settings: &[&str], password: &str) -> Self {
        Self::launch(program(), settings, Some(password), false, None)
    }

    /// With TLS on its port; [`Redis::authority`] signed its certificate, for `localhost` only.
    pub fn encrypted(settings: &[&str]) -> Self {
        Self::launch(program(), settings, None, true, None)
    }

    fn launch(program: PathBuf, settings: &[&str], password: Option<&str>, tls: bool, disk: Option<u32>) -> Self {
        let folder = data::folder("holdfast-redis");
        let mut redis = Self {
            program,
            folder,
            port: 0,
            child: None,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            password: password.map(str::to_owned),
            tls,
            disk,
        };
        fs::create_dir(redis.data()).unwrap();
        if redis.has_certificates() {
            certificates(redis.folder.path());
        }
        for _ in 0..5 {
            redis.port = port::lasting();
            if redis.run_server() {
                return redis;
            }
        }
        panic!("the server does not start: {}", redis.log());
    }

    fn has_certificates(&self) -> bool {
        self.tls || self.settings.iter().any(|setting| setting.starts_with("tls-"))
    }

    fn run_server(&mut self) -> bool {
        let folder = self.folder.path();
        let mut settings = vec![
            "bind 127.0.0.1".to_owned(),
            "save 3600 1".to_owned(),
            "repl-diskless-sync-delay 0".to_owned(),
            format!("dir {}", self.data().display()),
            format!("logfile {}/log", folder.display()),
            "enable-debug-command yes".to_owned(),
        ];
        if self.tls {
            settings.extend(["port 0".to_owned(), format!("tls-port {}", self.port)]);
        } else {
            settings.push(format!("port {}", self.port));
        }
        if self.has_certificates() {
            settings.extend([
                format!("tls-cert-file {}/server.pem", folder.display()),
                format!("tls-key-file {}/server.key", folder.display()),
                format!("tls-ca-cert-file {}/ca.pem", folder.display()),
                "tls-auth-clients no".to_owned(),
            ]);
        }
        if let Some(password) = &self.password {
            settings.push(format!("requirepass {password}"));
        }
        // What comes later counts.
        settings.extend(self.settings.clone());
        fs::write(folder.join("redis.conf"), settings.join("\n")).unwrap();
        let mut command = match self.disk {
            None => Command::new(&self.program),
            Some(mebibytes) => {
                let mut command = disk::with_disk(&self.data(), mebibytes, (0, 0), None);
                command.arg(&self.program);
                command
            }
        };
        let child = command
            .arg(folder.join("redis.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let start = Instant::now();
        while start.elapsed() < Duration::from_mins(1) {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            if self.answers() {
                return true;
            }
            std::thread::sleep(wait::PAUSE);
        }
        false
    }

    fn answers(&self) -> bool {
        if self.tls {
            return TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && self.log().contains("eady to accept connections");
        }
        let Ok(mut client) = Client::try_connect(self.port) else { return false };
        if let Some(password) = &self.password {
            client.try_call(&["AUTH", password]);
        }
        matches!(client.try_call(&["PING"]), Some(Answer::Text(text)) if text == b"PONG")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where it writes its dumps.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A client that is logged in.
    pub fn client(&self) -> Client {
        let mut client = Client::try_connect(self.port).unwrap();
        if let Some(password) = &self.password {
            client.run(&["AUTH", password]);
        }
        client
    }

    /// Runs one command in database 0.
    pub fn run(&self, arguments: &[&str]) -> Answer {
        self.client().run(arguments)
    }

    /// A field of `INFO`.
    pub fn info(&self, field: &str) -> String {
        let info = self.run(&["INFO"]).text();
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// All settings, but for what changes by itself.
    pub fn all_settings(&self) -> BTreeMap<String, String> {
        let answer = self.run(&["CONFIG", "GET", "*"]);
        let texts: Vec<String> = answer.elements().iter().map(Answer::text).collect();
        texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    /// Kills it, and starts it again with the same files.
    pub fn crash_and_restart(&mut self) {
        self.kill();
        assert!(self.run_server(), "the server does not start again: {}", self.log());
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// A source on this server.
    pub fn source(&self) -> RedisSource {
        RedisSource {
            host: "127.0.0.1".into(),
            port: self.port.into(),
            tls: TlsSpec { mode: TlsMode::Disable, ca_bundle: None },
            ..RedisSource::default()
        }
    }

    /// A target on this server.
    pub fn target(&self, secret: &RedisSecretFiles) -> RestoreTarget {
        self.target_database(secret, None)
    }

    /// A target in a database of this server.
    pub fn target_database(&self, secret: &RedisSecretFiles, database: Option<i32>) -> RestoreTarget {
        RestoreTarget {
            source: "cache".into(),
            mounts: secret.mounts.clone(),
            server: Target::Redis(RedisTarget {
                host: "127.0.0.1".into(),
                port: self.port.into(),
                database,
                tls: TlsSpec { mode: TlsMode::Disable, ca_bundle: None },
            }),
        }
    }

    /// The certificate that signed the server's.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// All keys of all databases: `database/key` with type, value and absolute expiry; values as the server itself sums them up.
    pub fn content(&self) -> BTreeMap<String, String> {
        let mut client = self.client();
        let keyspace = client.run(&["INFO", "keyspace"]).text();
        let mut content = BTreeMap::new();
        for database in keyspace.lines().filter_map(|line| line.strip_prefix("db")?.split_once(':')) {
            client.run(&["SELECT", database.0]);
            let keys: Vec<Vec<u8>> = client.run(&["KEYS", "*"]).elements().iter().map(Answer::bytes).collect();
            // Sums up the value, not its encoding.
            let digests = client.run_each(keys.iter().map(|key| vec![b"DEBUG", &b"DIGEST-VALUE"[..], key]));
            let expiries = client.run_each(keys.iter().map(|key| vec![&b"PEXPIRETIME"[..], key]));
            let kinds = client.run_each(keys.iter().map(|key| vec![&b"TYPE"[..], key]));
            for (((key, digest), expiry), kind) in keys.iter().zip(digests).zip(expiries).zip(kinds) {
                let kind = kind.text();
                let mut value = format!("{kind} {} {}", digest.elements()[0].text(), expiry.text());
                if kind == "stream" {
                    // The sum leaves out groups and consumers.
                    let info = client.run_bytes(&[b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"]);
                    write!(value, " {}", info.shown_without_clocks()).unwrap();
                }
                content.insert(format!("{}/{}", database.0, String::from_utf8_lossy(key)), value);
            }
        }
        content
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An authority of its own and a certificate for `localhost`.
fn certificates(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let made = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let ca = ["req", "-x509", "-subj", "/CN=Holdfast tests", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&ca[..], &key[..]].concat());
    let request = ["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
    openssl(&[&request[..], &key[..5]].concat());
    fs::write(folder.join("names"), "subjectAltName=DNS:localhost").unwrap();
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(&[&sign[..], &["-extfile", "names", "-days", "2", "-out", "server.pem"]].concat());
}

/// A Secret as the kubelet mounts it.
pub struct RedisSecretFiles {
    _folder: tempfile::TempDir,
    pub mounts: Mounts,
}

impl RedisSecretFiles {
    /// There is none.
    pub fn none() -> Self {
        Self { _folder: tempfile::tempdir().unwrap(), mounts: Mounts::default() }
    }

    /// A password, and maybe a user's name. The files end with a newline, as those do that people make by hand.
    pub fn of(user: Option<&str>, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("password"), format!("{password}\n")).unwrap();
        if let Some(user) = user {
            fs::write(folder.path().join("username"), format!("{user}\n")).unwrap();
        }
        let mounts = Mounts { credentials: Some(folder.path().to_owned()), ..Mounts::default() };
        Self { _folder: folder, mounts }
    }
}

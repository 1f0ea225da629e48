//! Redis servers of the tests' own, and a client that speaks to them.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is part of tests")]

#[path = "data.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod data;
#[path = "disk.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod disk;
#[path = "port.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod port;
#[path = "wait.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod wait;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use holdfast::task::{Mounts, RedisTarget, RestoreTarget, Target};
use holdfast_crds::{RedisSource, TlsMode, TlsSpec};
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use wait::until;

/// The program. Other versions, and Valkey, by the environment.
fn program() -> String {
    std::env::var("HOLDFAST_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// A running server. It ends with its value.
pub struct Redis {
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
        Self::launch(settings, None, false, None)
    }

    /// With its data on a disk of its own of this size.
    pub fn on_disk(settings: &[&str], mebibytes: u32) -> Self {
        Self::launch(settings, None, false, Some(mebibytes))
    }

    /// That disk.
    pub fn disk(&self) -> disk::Disk {
        disk::Disk::of(self.child.as_ref().unwrap().id(), &self.data())
    }

    /// With a password for `default`.
    pub fn with_password(settings: &[&str], password: &str) -> Self {
        Self::launch(settings, Some(password), false, None)
    }

    /// With TLS on its port; [`Redis::authority`] signed its certificate, for `localhost` only.
    pub fn encrypted(settings: &[&str]) -> Self {
        Self::launch(settings, None, true, None)
    }

    fn launch(settings: &[&str], password: Option<&str>, tls: bool, disk: Option<u32>) -> Self {
        let folder = data::folder("holdfast-redis");
        let mut redis = Self {
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
            None => Command::new(program()),
            Some(mebibytes) => {
                let mut command = disk::with_disk(&self.data(), mebibytes, (0, 0), None);
                command.arg(program());
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

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Text(Vec<u8>),
    Error(String),
    Number(i64),
    Nothing,
    Elements(Vec<Answer>),
}

impl Answer {
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
            Self::Nothing => String::new(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(bytes) => bytes.clone(),
            other => panic!("no bytes: {other:?}"),
        }
    }

    pub fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            other => panic!("no number: {other:?}"),
        }
    }

    pub fn elements(&self) -> &[Self] {
        match self {
            Self::Elements(elements) => elements,
            other => panic!("no elements: {other:?}"),
        }
    }

    /// All of it as text, but for the fields that tell how long ago something was.
    fn shown_without_clocks(&self) -> String {
        match self {
            Self::Elements(elements) => {
                let mut shown = String::from("[");
                let mut skip = false;
                for element in elements {
                    if std::mem::take(&mut skip) {
                        continue;
                    }
                    let text = if let Self::Text(bytes) = element { String::from_utf8_lossy(bytes) } else { "".into() };
                    skip = matches!(&*text, "radix-tree-keys" | "radix-tree-nodes" | "idle" | "inactive");
                    shown.push_str(&element.shown_without_clocks());
                    shown.push(' ');
                }
                shown + "]"
            }
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        }
    }
}

/// A connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// A command as it travels.
fn encoded(command: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

impl Client {
    pub fn try_connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// A command that must not fail.
    pub fn run(&mut self, arguments: &[&str]) -> Answer {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.run_bytes(&arguments)
    }

    pub fn run_bytes(&mut self, arguments: &[&[u8]]) -> Answer {
        self.write(arguments).unwrap();
        self.answer_to(arguments)
    }

    /// The answer to a command that must not fail.
    fn answer_to(&mut self, command: &[&[u8]]) -> Answer {
        match self.answer().unwrap() {
            Answer::Error(words) => {
                let command = String::from_utf8_lossy(&command.join(&b' ')).chars().take(200).collect::<String>();
                panic!("{command}: {words}")
            }
            answer => answer,
        }
    }

    /// A command that may fail; none where the connection does.
    pub fn try_call(&mut self, arguments: &[&str]) -> Option<Answer> {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.write(&arguments).ok()?;
        self.answer().ok()
    }

    /// Many commands at once, whose answers do not matter unless they are errors.
    pub fn run_all(&mut self, commands: &[Vec<String>]) {
        self.run_each(commands.iter().map(|command| command.iter().map(String::as_bytes).collect()));
    }

    /// The answers to many commands, which go out hundreds at a time. None must fail.
    fn run_each<'a>(&mut self, commands: impl Iterator<Item = Vec<&'a [u8]>>) -> Vec<Answer> {
        let (commands, mut answers) = (commands.collect::<Vec<_>>(), Vec::new());
        for batch in commands.chunks(500) {
            let bytes = batch.iter().map(|command| encoded(command)).collect::<Vec<_>>().concat();
            self.stream.get_mut().write_all(&bytes).unwrap();
            answers.extend(batch.iter().map(|command| self.answer_to(command)));
        }
        answers
    }

    fn write(&mut self, arguments: &[&[u8]]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(&encoded(arguments))
    }

    fn answer(&mut self) -> std::io::Result<Answer> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let Some((&kind, rest)) = line.split_first() else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
        let text = String::from_utf8_lossy(rest).trim_end().to_owned();
        Ok(match kind {
            b'+' => Answer::Text(text.into_bytes()),
            b'-' => Answer::Error(text),
            b':' => Answer::Number(text.parse().unwrap()),
            b'$' => match text.parse::<i64>().unwrap() {
                -1 => Answer::Nothing,
                length => {
                    let mut bytes = vec![0; usize::try_from(length).unwrap() + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(bytes.len() - 2);
                    Answer::Text(bytes)
                }
            },
            b'*' => match text.parse::<i64>().unwrap() {
                -1 => Answer::Nothing,
                count => Answer::Elements((0..count).map(|_| self.answer()).collect::<Result<_, _>>()?),
            },
            _ => panic!("no answer: {line:?}"),
        })
    }
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

/// In front of a server: passes bytes on, up to so many from the server's side in all connections together, and then cuts them all.
pub struct Wire {
    pub port: u16,
    stop: Arc<AtomicBool>,
    pub passed: Arc<AtomicU64>,
}

impl Wire {
    /// `down`: how many bytes of the server's pass; `up`: how many go to it.
    pub fn cut_after(server: u16, down: u64, up: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted, sent) = (stop.clone(), passed.clone(), Arc::new(AtomicU64::new(0)));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let pairs = [
                    (client.try_clone().unwrap(), upstream.try_clone().unwrap(), sent.clone(), up),
                    (upstream, client, counted.clone(), down),
                ];
                for (from, to, count, limit) in pairs {
                    std::thread::spawn(move || pass(from, to, &count, limit));
                }
            }
        });
        Self { port, stop, passed }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64, limit: u64) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if count.fetch_add(read as u64, Ordering::Relaxed) + read as u64 > limit
            || to.write_all(&buffer[..read]).is_err()
        {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Rich data in databases 0 and 5: every type in its small and its large encoding, expiries, groups, functions.
pub fn fill(redis: &Redis) {
    let mut client = redis.client();
    for database in ["0", "5"] {
        client.run(&["SELECT", database]);
        client.run_all(&rich(database));
        client.run_bytes(&[b"SET", b"binary \xff\x00\r\n key", b"\x00\x01\xfe\r\nvalue"]);
        client.run(&["XREADGROUP", "GROUP", "readers", "alice", "COUNT", "2", "STREAMS", "stream", ">"]);
        client.run(&["XREADGROUP", "GROUP", "readers", "bob", "COUNT", "3", "STREAMS", "stream", ">"]);
        client.run(&["XACK", "stream", "readers", "1-1"]);
    }
    let library = "#!lua name=tests\nredis.register_function('echo', function(keys, args) return args[1] end)";
    client.run(&["FUNCTION", "LOAD", library]);
}

/// More than is held in memory on its way.
static NOISE: LazyLock<String> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(7);
    (0..5 << 20).map(|_| random.alphanumeric()).collect()
});

fn rich(database: &str) -> Vec<Vec<String>> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let many = |start: &str, each: &dyn Fn(usize) -> String, count: usize| {
        let mut command = words(start);
        (0..count).for_each(|at| command.extend(words(&each(at))));
        command
    };
    let mut commands: Vec<Vec<String>> = [
        "SET plain value",
        "SET int8 -7",
        "SET int16 3000",
        "SET int32 -100000",
        "SET int64 123456789012",
        "SET 42 number-as-key",
        "SET {tag}one 1",
        "SET {tag}two 2",
        "SET expires:late x PXAT 4102444800123",
        "SET expires:later y EXAT 4102444900",
        "RPUSH list:small a b c 1 2 3",
        "SADD set:int 1 2 3 70000",
        "SADD set:str a b c",
        "ZADD zset:small 1 a 2.5 b -inf c +inf d",
        "HSET hash:small f v g 12",
        "XADD stream 1-1 temperature 20",
        "XADD stream 1-2 temperature 21",
        "XADD stream 5-0 other fields here now",
        "XADD stream 6-0 a b",
        "XADD stream 7-0 a b",
        "XADD stream 8-0 a b",
        "XDEL stream 1-2",
        "XGROUP CREATE stream readers 0",
        "XGROUP CREATE stream idle $",
        "XADD stream:empty 1-1 a b",
        "XDEL stream:empty 1-1",
        "PFADD hll a b c",
        "GEOADD geo 13.361389 38.115556 Palermo",
        "SETBIT bits 1000 1",
    ]
    .iter()
    .map(|line| words(line))
    .collect();
    commands.push(vec!["SET".into(), "empty".into(), String::new()]);
    commands.push(vec!["SET".into(), "compressible".into(), "ab".repeat(3000)]);
    commands.push(vec!["SET".into(), "longkey".repeat(60), "x".into()]);
    commands.push(vec!["SET".into(), "huge".into(), NOISE.clone()]);
    commands.push(many("RPUSH list:big", &|at| format!("element-{database}-{at}"), 3000));
    commands.push(many("SADD set:big", &|at| format!("member-{at}"), 2000));
    commands.push(many("ZADD zset:big", &|at| format!("{at}.25 member-{at}"), 2000));
    commands.push(many("HSET hash:big", &|at| format!("field-{at} value-{at}"), 2000));
    for at in 0..3000 {
        commands.push(words(&format!("SET many:{at} value-{database}-{at}")));
    }
    commands.push(words("PEXPIREAT hash:big 4102444800000"));
    commands.push(words("PEXPIREAT stream 4102444800000"));
    commands
}

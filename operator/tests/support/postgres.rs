//! A PostgreSQL server of the tests' own.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is part of tests")]

#[path = "data.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod data;
#[path = "databases.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod databases;
#[path = "disk.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod disk;
#[path = "memory.rs"]
mod memory;
#[path = "port.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod port;
#[path = "wait.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may have servers of several kinds")]
mod wait;

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast::engine::dump;
use holdfast::store::manifest::Manifest;
use holdfast::task::{Mounts, PostgresTarget, RestoreTarget, Target};
use holdfast_crds::{PasswordSecret, PostgresSource, Source};

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use memory::{MemorySink, MemorySource, Spoil, Stored};
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use wait::until;

/// The major version of the tests' own servers and tools: Debian's, or another one by the environment.
pub fn major() -> u32 {
    std::env::var(MAJOR_ENV).map_or(15, |major| major.parse().unwrap())
}

/// The environment variable of the major version.
pub const MAJOR_ENV: &str = "HOLDFAST_TEST_POSTGRES";
/// The newest there is.
pub const NEWEST: u32 = 19;

/// Where the tests' own tools are.
pub fn bin() -> String {
    bin_of(major())
}

fn bin_of(major: u32) -> String {
    match major {
        15 => "/usr/lib/postgresql/15/bin".to_owned(),
        newer => format!("{}/{newer}/bin", newer_clients().display()),
    }
}

/// The folder of the clients that are newer than Debian's, as `HOLDFAST_POSTGRES_BIN` names it.
pub fn newer_clients() -> PathBuf {
    databases::file("usr/lib/postgresql")
}

/// Runs tests of this binary again with the newest server and its tools: those whose names contain one of the words `only` (without any: all),
/// but for those whose names contain one of `but`.
pub fn again_with_the_newest(only: &[&str], but: &[&str]) {
    let skipped = ["again_with_the_newest"].iter().chain(but).flat_map(|word| ["--skip", word]);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(only)
        .args(skipped)
        .env(MAJOR_ENV, NEWEST.to_string())
        .env(holdfast::engine::postgres::BASE_ENV, newer_clients())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let some = !text.contains(" 0 passed");
    assert!(output.status.success() && some, "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// Password of the superuser: full of what password files treat in a special way.
pub const PASSWORD: &str = "p:a\\ss 'w\"ord";

/// A running server. The last test that holds it ends it.
pub struct Cluster {
    // Ends before its folder goes.
    running: Mutex<Option<Running>>,
    /// Where its programs are.
    bin: String,
    folder: tempfile::TempDir,
    pub port: u16,
    settings: Vec<String>,
    /// Size of a disk of its own, in MiB.
    disk: Option<u32>,
}

/// Ends the server when it is dropped.
struct Running {
    stop: Option<(Sender<()>, JoinHandle<()>)>,
    process: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Cluster {
    /// The server that the tests of this binary share.
    pub fn shared() -> Arc<Self> {
        static CURRENT: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(cluster) = current.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::start());
        *current = Arc::downgrade(&cluster);
        cluster
    }

    /// A server of one test's own.
    pub fn start() -> Self {
        Self::start_with(&[], None)
    }

    /// With settings, and with its data on a disk of its own of this size.
    pub fn start_with(settings: &[&str], disk: Option<u32>) -> Self {
        Self::launch(bin(), settings, disk)
    }

    /// The newest server that there is, beside tools that may be older.
    pub fn newest() -> Self {
        Self::launch(bin_of(NEWEST), &[], None)
    }

    fn launch(bin: String, settings: &[&str], disk: Option<u32>) -> Self {
        let folder = data::folder("holdfast-pg");
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        give_to_server_user(folder.path());
        give_to_server_user(&password);
        let data = folder.path().join("data");
        let made = as_server_user(&format!("{bin}/initdb"))
            .args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"])
            .arg(format!("--pwfile={}", password.display()))
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut cluster = Self { running: Mutex::new(None), bin, folder, port: 0, settings, disk };
        for _ in 0..5 {
            cluster.port = port::lasting();
            if cluster.serve() {
                return cluster;
            }
        }
        panic!("the server does not start: {}", cluster.log());
    }

    /// Starts the server on a thread that lives as long as the server: the kernel ends the server with that thread, whatever happens.
    fn serve(&self) -> bool {
        let mut command = self.postgres();
        let (bin, folder, port) = (self.bin.clone(), self.folder.path().to_owned(), self.port);
        let (stop, stopped): (Sender<()>, Receiver<()>) = channel();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let mut child = command.spawn().unwrap();
            let ready = until_ready(&mut child, &bin, &folder, port);
            tell.send(ready.then(|| child.id())).unwrap();
            if ready {
                let _ = stopped.recv();
            }
            // An immediate shutdown: nobody needs what is in there.
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
            let _ = child.wait();
        });
        let told = told.recv().unwrap();
        let running = Running { stop: Some((stop, thread)), process: told.unwrap_or_default() };
        if told.is_some() {
            *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        }
        told.is_some()
    }

    /// Ends the server at once, without saving what it has in memory, and starts it again with the data it had and on the same port.
    pub fn restart(&self) {
        assert!(self.disk.is_none(), "its disk would be gone");
        drop(self.running.lock().unwrap_or_else(PoisonError::into_inner).take());
        assert!(self.serve(), "the server does not start again: {}", self.log());
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The disk of its own.
    pub fn disk(&self) -> disk::Disk {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        disk::Disk::of(running.as_ref().unwrap().process, &self.folder.path().join("data"))
    }

    fn postgres(&self) -> Command {
        let (folder, data) = (self.folder.path(), self.folder.path().join("data"));
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let program = format!("{}/postgres", self.bin);
        let mut command = match self.disk {
            None => as_server_user(&program),
            Some(mebibytes) => {
                // What was made there is under the disk when that is there.
                let made = folder.join("made");
                if !made.exists() {
                    fs::rename(&data, &made).unwrap();
                    fs::create_dir(&data).unwrap();
                }
                let mut command = disk::with_disk(&data, mebibytes, server_user(), Some(&made));
                let inner = as_server_user(&program);
                command.arg(inner.get_program()).args(inner.get_args());
                command.env("LC_ALL", "C").current_dir("/").process_group(0);
                command
            }
        };
        command.arg("-D").arg(data).arg("-k").arg(folder).args(["-p", &self.port.to_string()]);
        let settings = [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=32MB",
            "max_connections=60",
            "timezone=UTC",
            "max_prepared_transactions=4",
        ];
        for setting in settings.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(format!("{}/psql", self.bin));
        command
            .env_clear()
            .env("PGHOST", self.folder.path())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database)
            .env("LC_ALL", "C")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        command
    }

    /// Runs SQL as the superuser; what it writes.
    pub fn sql(&self, database: &str, script: &str) -> String {
        match self.try_sql(database, script) {
            Ok(output) => output,
            Err(error) => panic!("{error}\n{}", script.chars().take(300).collect::<String>()),
        }
    }

    /// Runs SQL as the superuser; what it writes, or its error.
    pub fn try_sql(&self, database: &str, script: &str) -> Result<String, String> {
        let mut child =
            self.psql(database).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let script = script.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Makes an empty database, of whatever name.
    pub fn create_database(&self, name: &str) {
        self.sql("postgres", &format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\"")));
    }

    /// Whether there is such a database.
    pub fn has_database(&self, name: &str) -> bool {
        self.databases().iter().any(|database| database == name)
    }

    /// Names of all databases.
    pub fn databases(&self) -> Vec<String> {
        let text = self.sql("postgres", "SELECT json_agg(datname ORDER BY datname) FROM pg_database");
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the sessions of restores have taken everything that was sent and ask for more.
    pub fn until_restores_wait(&self) {
        let query = "SELECT count(*) > 0 AND bool_and(wait_event = 'ClientRead') FROM pg_stat_activity
                      WHERE application_name = 'holdfast' AND query !~ 'pg_stat_activity'";
        let mut quiet = 0;
        until("the restore's taking of its input", || {
            quiet = if self.sql("postgres", query) == "t" { quiet + 1 } else { 0 };
            quiet > 5
        });
    }

    /// A source on this server.
    pub fn source(&self) -> PostgresSource {
        PostgresSource {
            host: "127.0.0.1".into(),
            port: i32::from(self.port),
            credentials_secret: PasswordSecret { name: "postgres".into(), ..PasswordSecret::default() },
            ..PostgresSource::default()
        }
    }

    /// A target on this server.
    pub fn target(&self, mounts: &Mounts, database: Option<&str>) -> RestoreTarget {
        RestoreTarget {
            source: "db".into(),
            mounts: mounts.clone(),
            server: Target::Postgres(PostgresTarget {
                host: "127.0.0.1".into(),
                port: i32::from(self.port),
                database: database.map(ToOwned::to_owned),
                ..PostgresTarget::default()
            }),
        }
    }

    /// Everything a catalogue says of a database's objects, and a hash of all rows of each table.
    pub fn fingerprint(&self, database: &str) -> String {
        let schema = Command::new(format!("{}/pg_dump", self.bin))
            .env_clear()
            .env("PGHOST", self.folder.path())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database)
            .args(["--schema-only", "--no-password"])
            .output()
            .unwrap();
        assert!(schema.status.success(), "{}", String::from_utf8_lossy(&schema.stderr));
        let schema: String = String::from_utf8(schema.stdout)
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "))
            .fold(String::new(), |all, line| all + line + "\n");
        schema + &self.row_hashes(database)
    }

    /// A hash of all rows of each table and sequence and of all large objects.
    pub fn row_hashes(&self, database: &str) -> String {
        let script = r"
SELECT format('SELECT %1$L, count(*), md5(coalesce(string_agg(%2$s, E''\n'' ORDER BY %2$s), '''')) FROM ONLY %3$s t;',
              c.oid::regclass::text, CASE c.relkind WHEN 'S' THEN '(last_value, is_called)::text' ELSE 't::text' END, c.oid::regclass)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'S') AND n.nspname !~ '^pg_|^information_schema$' ORDER BY c.oid::regclass::text \gexec
SELECT 'large objects', count(*), md5(coalesce(string_agg(m.oid || ':' || md5(lo_get(m.oid)), E'\n' ORDER BY m.oid), ''))
  FROM pg_largeobject_metadata m;";
        self.sql(database, script)
    }
}

fn until_ready(child: &mut Child, bin: &str, folder: &Path, port: u16) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_mins(1) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let asked = Command::new(format!("{bin}/pg_isready"))
            .args(["-q", "-t", "5", "-h", &folder.display().to_string(), "-p", &port.to_string()])
            .status()
            .unwrap();
        if asked.success() {
            return true;
        }
        std::thread::sleep(wait::PAUSE);
    }
    false
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

/// The server refuses to run as root.
fn as_server_user(program: &str) -> Command {
    let mut command;
    if is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL", program]);
    } else {
        command = Command::new(program);
    }
    command.env("LC_ALL", "C").current_dir("/").process_group(0);
    command
}

pub fn give_to_server_user(path: &Path) {
    if is_root() {
        let (user, group) = server_user();
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}

/// Numbers of the user and group that the server runs as.
fn server_user() -> (u32, u32) {
    let id = |flag: &str| -> u32 {
        let output = Command::new("id").args([flag, "postgres"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id("-u"), id("-g"))
}

/// A Secret as the kubelet mounts it, and a folder for the engine.
pub struct Secret {
    folder: tempfile::TempDir,
    pub mounts: Mounts,
}

impl Secret {
    /// The superuser's.
    pub fn superuser() -> Self {
        Self::of("postgres", PASSWORD)
    }

    /// Somebody's. The files end with a newline, as those do that people make by hand.
    pub fn of(user: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let credentials = folder.path().join("credentials");
        fs::create_dir(&credentials).unwrap();
        fs::write(credentials.join("username"), format!("{user}\n")).unwrap();
        fs::write(credentials.join("password"), format!("{password}\n")).unwrap();
        Self { folder, mounts: Mounts { credentials: Some(credentials), ..Mounts::default() } }
    }

    /// Where the engine may write password files.
    pub fn scratch(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What the engine has left behind there.
    pub fn leftovers(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name != "credentials").collect()
    }
}

/// A schema with what dumps find hard.
pub const RICH: &str = include_str!("rich.sql");

/// A backup in memory.
pub struct Saved {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its artifacts.
    pub source: MemorySource,
}

/// Dumps as a superuser.
pub async fn save(source: PostgresSource) -> Saved {
    let secret = Secret::superuser();
    let source = Source { name: "db".into(), postgres: Some(source), ..Source::default() };
    let mut sink = MemorySink::default();
    let dumped = dump(&source, &secret.mounts, &secret.scratch(), &mut sink).await.unwrap();
    Saved { manifest: sink.manifest(&dumped.tool_version, &dumped.server_version), source: sink.into_source() }
}

//! A MongoDB server of the tests' own: `FerretDB` 2 on `PostgreSQL` 18 with `DocumentDB`, made ready by `e2e/images/mongodb.sh`.
//!
//! It speaks MongoDB's protocol and says it is 7.0, but it is not mongod:
//! - It is one server: no replica set, no oplog, no sharding. Sessions are accepted; `readConcern: snapshot` is accepted and means nothing.
//! - Views and validators are kept, listed and hold. `create` refuses `capped`, `timeseries`, `collation` and `clusteredIndex`, each with words
//!   of its own (the released `FerretDB` makes a plain collection and ignores every option: ours has a patch, e2e/cluster/tools/ferretdb).
//! - Indexes: unique, partial, sparse, TTL, text, 2dsphere, hashed, wildcard, with a collation (not both unique and collated) are kept;
//!   hidden ones are refused. `listIndexes` adds `storageEngine: {enableOrderedIndex: true}` to most of them.
//! - `renameCollection` works within a database only; `dropTarget` works.
//! - Users are those of the whole server, always told as of `admin`; there are neither roles of one's own nor `rolesInfo`, `admin.system.users`
//!   is empty, and hashes of passwords are not told.
//! - Only SCRAM-SHA-256, no compression, no `dbHash`; a document that fails validation has a code of its own, not 121.
//! - `$natural` and a sort by `_id` are there; a collection's `uuid` is told.

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

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Who may do everything.
pub const USER: &str = "root";
/// Their password: full of what connection strings treat in a special way.
pub const PASSWORD: &str = "p:a@s%s/ 'w\"ö?rd";

/// A running server. The last test that holds it ends it.
pub struct Server {
    // Ends before its folder goes.
    running: Mutex<Option<Running>>,
    folder: tempfile::TempDir,
    pub port: u16,
    postgres: u16,
    /// Size of a disk of its own, in MiB.
    disk: Option<u32>,
}

/// Ends the server when it is dropped: then none of its processes is left.
struct Running {
    stop: Option<(Sender<()>, JoinHandle<()>)>,
    /// The first process of its namespace.
    first: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Server {
    /// The server that the tests of this binary share.
    pub fn shared() -> Arc<Self> {
        static CURRENT: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = current.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *current = Arc::downgrade(&server);
        server
    }

    /// A server of one test's own. It takes about a second.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// With its data on a disk of its own of this size.
    pub fn on_disk(mebibytes: u32) -> Self {
        Self::start_with(Some(mebibytes))
    }

    /// That disk.
    pub fn disk(&self) -> disk::Disk {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        disk::Disk::of(running.as_ref().unwrap().first, Path::new("/srv"))
    }

    fn start_with(disk: Option<u32>) -> Self {
        let mut told = String::new();
        for _ in 0..5 {
            let folder = data::folder("holdfast-mongodb");
            fs::write(folder.path().join("password"), PASSWORD).unwrap();
            give_to_server_user(folder.path());
            let server =
                Self { folder, port: port::lasting(), postgres: port::lasting(), disk, running: Mutex::new(None) };
            match server.launch() {
                Ok(()) => return server,
                Err(why) => told = why,
            }
        }
        panic!("FerretDB does not start; try it by hand: e2e/images/mongodb/start-mongodb: {told}");
    }

    /// Starts what [`Server::kill`] ended, with the data it had and on the same port.
    pub fn start_again(&self) {
        if let Err(told) = self.launch() {
            panic!("FerretDB does not start again: {told}");
        }
    }

    /// Starts the server; otherwise why it did not come up, with what it wrote.
    fn launch(&self) -> Result<(), String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // PostgreSQL does not start where the process named here is there, and numbers of processes begin anew with each start: it could be
        // any other of this server's own.
        let _ = fs::remove_file(self.folder.path().join(format!("data/.s.PGSQL.{}.lock", self.postgres)));
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let written = log.metadata().unwrap().len();
        let mut command = in_root(self.folder.path(), "start-mongodb", self.disk);
        command
            .env("MONGODB_USER", USER)
            .env("MONGODB_PASSWORD_FILE", "/srv/password")
            .env("MONGODB_DATA", "/srv/data")
            .env("MONGODB_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("PGPORT", self.postgres.to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let (stop, stopped) = channel();
        let (tell, told) = channel();
        let port = self.port;
        // A thread that lives as long as the server: the kernel ends the server with that thread, whatever happens.
        let thread = std::thread::spawn(move || {
            let mut child = command.spawn().unwrap();
            let ready = until_ready(&mut child, port);
            let is_ready = ready.is_ok();
            tell.send(ready.map(|()| first_process(&child).unwrap_or_default())).unwrap();
            if is_ready {
                let _ = stopped.recv();
            }
            end(&mut child);
        });
        let mut started = Running { stop: Some((stop, thread)), first: 0 };
        started.first = told.recv().unwrap().map_err(|why| {
            let log = fs::read(self.folder.path().join("log")).unwrap();
            let log = log.get(usize::try_from(written).unwrap()..).unwrap_or_default();
            format!("{why}; it wrote:\n{}", String::from_utf8_lossy(log))
        })?;
        *running = Some(started);
        Ok(())
    }

    /// Its address with the credentials of [`USER`], as of a `uriSecret`.
    pub fn uri(&self) -> String {
        self.uri_of(USER, PASSWORD)
    }

    /// Its address with somebody's credentials.
    pub fn uri_of(&self, user: &str, password: &str) -> String {
        format!("mongodb://{}:{}@127.0.0.1:{}/", percent_encoded(user), percent_encoded(password), self.port)
    }

    /// Ends the server at once, as a lost node would.
    pub fn kill(&self) {
        drop(self.running.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Runs SQL in the database below; what it writes.
    pub fn sql(&self, script: &str) -> String {
        let mut psql = Command::new("chroot");
        psql.arg(root()).args([
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            &self.postgres.to_string(),
            "-U",
            "postgres",
            "-d",
            "postgres",
        ]);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", script]).env_clear().env("PATH", PATH);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

const PATH: &str = "/usr/local/postgresql:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The user `mongodb` of the file system that the server runs in.
const SERVER_USER: u32 = 999;

/// The file system that the server runs in.
fn root() -> PathBuf {
    let cache = || {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/holdfast");
        std::env::var_os("HOLDFAST_CACHE").map_or_else(home, PathBuf::from)
    };
    let root = cache().join("mongodb");
    let Ok(root) = root.canonicalize() else {
        panic!("these tests need a MongoDB server: run e2e/images/mongodb.sh ({} is not there)", root.display())
    };
    root
}

/// A program of the server's file system, with a folder of the machine as its /srv. Its processes end with it, and it with this thread.
/// With `disk` that is a new disk of so many MiB, with the folder's password on it.
fn in_root(folder: &Path, program: &str, disk: Option<u32>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig=KILL", "unshare"]);
    let become_user = if is_root() {
        format!("setpriv --reuid={SERVER_USER} --regid={SERVER_USER} --clear-groups --pdeathsig=KILL")
    } else {
        // The server refuses to run as root, also as one of a user namespace.
        command.args(["--user", "--map-root-user"]);
        format!("unshare --user --map-user={SERVER_USER} --map-group={SERVER_USER} setpriv --pdeathsig=KILL")
    };
    command.args(["--mount", "--propagation=private", "--pid", "--ipc", "--fork", "--kill-child", "--", "sh", "-c"]);
    let srv = match disk {
        None => "mount --bind \"$1\" \"$0/srv\"".to_owned(),
        // What the server writes ahead is elsewhere: where it cannot write that it does not fail, it ends.
        Some(mebibytes) => format!(
            "mount -t tmpfs -o size={mebibytes}m,mode=0755,uid={SERVER_USER},gid={SERVER_USER} tmpfs \"$0/srv\" && \
             mount -t tmpfs -o mode=0755 tmpfs \"$0/mnt\" && cp \"$1/password\" \"$0/srv/\" && \
             cp -a \"$0/usr/local/share/mongodb/template\" \"$0/srv/data\" && chmod 700 \"$0/srv/data\" && \
             mv \"$0/srv/data/pg_wal\" \"$0/mnt/\" && ln -s /mnt/pg_wal \"$0/srv/data/pg_wal\""
        ),
    };
    command.arg(format!(
        "mount --rbind /dev \"$0/dev\" && {srv} && mount -t proc proc \"$0/proc\" && exec chroot \"$0\" {become_user} \"$2\""
    ));
    command.arg(root()).arg(folder).arg(program).env_clear().env("PATH", PATH).current_dir("/").process_group(0);
    command
}

/// Waits for the server's first answer; otherwise why there is none.
fn until_ready(child: &mut Child, port: u16) -> Result<(), String> {
    let start = Instant::now();
    let mut last = String::new();
    while start.elapsed() < Duration::from_mins(2) {
        if let Some(status) = child.try_wait().unwrap() {
            return Err(format!("it ended by itself ({status})"));
        }
        match answers(port) {
            Ok(()) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("it does not answer on port {port} ({last})"))
}

/// Kills all of the server's processes and waits for their end. They have a namespace of their own, whose first process takes all the others
/// with it and ends after them; `unshare` ends with that one.
fn end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        match first_process(child).and_then(|first| i32::try_from(first).ok()) {
            Some(first) => {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL);
            }
            None => {
                let _ = child.kill();
            }
        }
    }
    let _ = child.wait();
}

/// The first process of the namespace that `unshare` made.
fn first_process(unshare: &Child) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", unshare.id())).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Asks the server whether it is there, which needs no password.
fn answers(port: u16) -> std::io::Result<()> {
    // OP_MSG with the document {ping: 1, $db: "admin"}.
    let document = b"\x1e\0\0\0\x10ping\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";
    let length = i32::try_from(16 + 4 + 1 + document.len()).unwrap();
    let mut message = Vec::new();
    for number in [length, 1, 0, 2013, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(document);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&message)?;
    stream.read_exact(&mut [0; 21])
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

fn give_to_server_user(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(SERVER_USER), Some(SERVER_USER)).unwrap();
    }
}

fn percent_encoded(text: &str) -> String {
    let encoded =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encoded).collect()
}

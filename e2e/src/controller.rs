//! A controller as a process of the test's own, which can be killed and frozen.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::cluster::cluster;
use crate::installation;
use crate::wait::wait_for;

/// A running controller. Dropped, it is killed.
pub struct Controller {
    child: Child,
    log: PathBuf,
    _folder: TempDir,
}

/// What a controller is started with.
pub struct Settings {
    /// The namespace it watches, and where its Lease is.
    pub namespace: String,
    /// Other namespaces that it watches.
    pub beside: Vec<String>,
    /// URL of the API server; none: as the kubeconfig says.
    pub server: Option<String>,
    /// Image of its workers; none: that of the installed controller.
    pub image: Option<String>,
    /// Its name in the Lease.
    pub identity: String,
}

impl Settings {
    /// A controller for this namespace alone.
    pub fn for_namespace(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            beside: Vec::new(),
            server: None,
            image: None,
            identity: "one".to_owned(),
        }
    }
}

impl Controller {
    /// Starts a controller.
    pub fn start(settings: &Settings) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("holdfast-{}-", settings.namespace)).tempdir().unwrap();
        let log = folder.path().join(format!("{}.log", settings.identity));
        let kubeconfig = match &settings.server {
            None => cluster().kubeconfig().to_owned(),
            Some(server) => {
                let path = folder.path().join("kubeconfig");
                std::fs::write(&path, kubeconfig_of(server)).unwrap();
                path
            }
        };
        let image = settings.image.clone().unwrap_or_else(installation::image);
        let output = File::create(&log).unwrap();
        let namespaces =
            [&settings.namespace].into_iter().chain(&settings.beside).cloned().collect::<Vec<_>>().join(",");
        let child = Command::new(binary())
            .arg("controller")
            .args(["--namespaces", &namespaces, "--metrics-addr", "127.0.0.1:0", "--log-format", "text"])
            .env("KUBECONFIG", kubeconfig)
            .env("HOLDFAST_IMAGE", image)
            .env("HOLDFAST_IDENTITY", &settings.identity)
            .env("HOLDFAST_LEASE_NAMESPACE", &settings.namespace)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
        Self { child, log, _folder: folder }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Stops it where it is.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait_ended(&mut self, timeout: Duration) -> ExitStatus {
        let log = self.log();
        wait_for("the controller has ended", timeout, || self.ended().ok_or_else(|| log.clone()))
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the controller in {} said:\n{}", self.log.display(), self.log());
        }
        self.kill();
    }
}

/// The binary: HOLDFAST_BIN, or what `cargo build` left beside this test's.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HOLDFAST_BIN") {
        return path.into();
    }
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/debug/holdfast"))
}

fn kubeconfig_of(server: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n\
         clusters: [{{name: it, cluster: {{server: \"{server}\"}}}}]\nusers: [{{name: it, user: {{}}}}]\n"
    )
}

//! Certificates of the tests' own: an authority, one that nobody trusts, and what the first has signed.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "it is part of tests")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

const SIGNS: &str = "[ca]
default_ca = own
[own]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
unique_subject = no
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = DNS:localhost
";

/// A folder with `ca.pem`, `other.pem`, and `valid` and `expired` as `.pem` and `.key`, both for `localhost`.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    pub fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        for name in ["ca", "other"] {
            let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
            let subject = format!("/CN=Holdfast tests {name}");
            let ca = ["req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &certificate];
            made.openssl(&[&ca[..], &KEY[..]].concat());
        }
        fs::write(made.file("index"), "").unwrap();
        fs::write(made.file("serial"), "01\n").unwrap();
        fs::write(made.file("signs"), SIGNS).unwrap();
        let now = jiff::Timestamp::now();
        let day = |days: i64| {
            let at = now.checked_add(jiff::SignedDuration::from_hours(24 * days)).unwrap();
            at.strftime("%Y%m%d%H%M%SZ").to_string()
        };
        for (name, from, until) in [("valid", -1, 2), ("expired", -9, -2)] {
            let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
            let asks = ["req", "-subj", "/CN=localhost", "-keyout", &key, "-out", &request];
            made.openssl(&[&asks[..], &KEY[..]].concat());
            let (from, until) = (day(from), day(until));
            made.openssl(&[
                "ca",
                "-batch",
                "-notext",
                "-config",
                "signs",
                "-cert",
                "ca.pem",
                "-keyfile",
                "ca.key",
                "-startdate",
                &from,
                "-enddate",
                &until,
                "-in",
                &request,
                "-out",
                &certificate,
            ]);
        }
        made
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    fn openssl(&self, arguments: &[&str]) {
        let made = Command::new("openssl").args(arguments).current_dir(self.0.path()).output().unwrap();
        assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// A server that speaks TLS with this certificate, and answers whatever it is asked with a page that is nobody's.
    pub fn serve(&self, name: &str, port: u16) -> TlsServer {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-www", "-accept", &port.to_string()]);
        command.args(["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")]);
        let child = command.current_dir(self.0.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = TlsServer { child: child.spawn().unwrap() };
        let (start, address) = (Instant::now(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < Duration::from_mins(1), "openssl s_server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

/// It ends with its value.
pub struct TlsServer {
    child: Child,
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

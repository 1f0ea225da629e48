//! How tools reach a server: by files and environment variables, never with a secret in either. Reads mounted Secrets.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_crds::{Reason, TlsMode, TlsSpec};

use crate::task::{Failure, Mounts, bare_host, host_before_port};

/// Seconds after which a server that does not answer counts as unreachable.
const CONNECT_TIMEOUT: &str = "15";
/// How long a lock is waited for; less than the idle limit of a run, so that the message is about the lock.
pub(super) const LOCK_TIMEOUT: &str = "240s";
/// The certificates of public authorities, as Debian installs them.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The first major version with `idle_session_timeout`.
const IDLE_SESSION_TIMEOUT_SINCE: u32 = 14;

/// A server and how to log in, ready for tools to use. Its password file goes with it.
#[derive(Debug)]
pub(super) struct Login {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: i32,
    /// Role.
    pub user: String,
    environment: Vec<(OsString, OsString)>,
    password_file: PathBuf,
}

impl Drop for Login {
    fn drop(&mut self) {
        // It is in a folder of the Pod's memory that goes with the Pod; nothing more can be done.
        let _ = fs::remove_file(&self.password_file);
    }
}

impl Login {
    /// Reads the mounted Secret and writes the password file into `scratch`.
    pub fn prepare(host: &str, port: i32, tls: &TlsSpec, mounts: &Mounts, scratch: &Path) -> Result<Self, Failure> {
        let place = format!("{}:{port}", host_before_port(host));
        let folder = mounts.credentials.as_deref().ok_or_else(|| {
            Failure::new(Reason::InvalidConfiguration, format!("no credentials are mounted for postgres at {place}"))
        })?;
        let user = secret(folder, "username")?;
        if user.is_empty() {
            return Err(Failure::new(
                Reason::InvalidConfiguration,
                format!("the user's name in the Secret for postgres at {place} is empty"),
            ));
        }
        let password = secret(folder, "password")?;
        let password_file = write_password_file(scratch, &password)?;
        let host = bare_host(host).to_owned();
        let mut login = Self { host, port, user, environment: Vec::new(), password_file: password_file.clone() };
        login.environment = login.base_environment(tls, mounts.ca.as_deref(), scratch)?;
        Ok(login)
    }

    fn base_environment(
        &self,
        tls: &TlsSpec,
        ca: Option<&Path>,
        scratch: &Path,
    ) -> Result<Vec<(OsString, OsString)>, Failure> {
        let mut variables: Vec<(OsString, OsString)> = vec![
            ("PGHOST".into(), self.host.clone().into()),
            ("PGPORT".into(), self.port.to_string().into()),
            ("PGUSER".into(), self.user.clone().into()),
            ("PGPASSFILE".into(), self.password_file.clone().into()),
            ("PGCONNECT_TIMEOUT".into(), CONNECT_TIMEOUT.into()),
            ("PGAPPNAME".into(), "holdfast".into()),
            ("PGSSLMODE".into(), ssl_mode(tls.mode).into()),
            ("PGGSSENCMODE".into(), "disable".into()),
            // Messages are read by the worker; what else libpq finds in a home folder is none of ours.
            ("LC_ALL".into(), "C".into()),
            ("HOME".into(), scratch.into()),
        ];
        if matches!(tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
            let certificates = ca.unwrap_or_else(|| Path::new(SYSTEM_CERTIFICATES));
            if !certificates.is_file() {
                return Err(Failure::new(
                    Reason::InvalidConfiguration,
                    format!(
                        "postgres at {}: no certificates to trust at {}: set tls.caBundle",
                        self.address(),
                        certificates.display()
                    ),
                ));
            }
            variables.push(("PGSSLROOTCERT".into(), certificates.into()));
        }
        Ok(variables)
    }

    /// What a tool needs in its environment to reach a database. `server_major` is not known before the first connection.
    pub fn environment(&self, database: &str, server_major: Option<u32>, extra: &str) -> Vec<(OsString, OsString)> {
        let mut options = format!(
            "-c statement_timeout=0 -c lock_timeout={LOCK_TIMEOUT} -c idle_in_transaction_session_timeout=0 \
             -c default_transaction_read_only=off"
        );
        if server_major.is_some_and(|major| major >= IDLE_SESSION_TIMEOUT_SINCE) {
            // Compiling a query that runs once costs more than it saves.
            options.push_str(" -c idle_session_timeout=0 -c jit=off");
        }
        options.push_str(extra);
        let mut variables = self.environment.clone();
        variables.push(("PGDATABASE".into(), database.into()));
        variables.push(("PGOPTIONS".into(), options.into()));
        variables
    }

    /// Server and role for messages: `postgres.shop.svc:5432 as user app`.
    pub fn address(&self) -> String {
        format!("{}:{}", host_before_port(&self.host), self.port)
    }
}

/// A database's name as a connection string, for the tools that take it only so. It may be anything: `--help`, `a=b`, `it's`.
pub(super) fn connection_string(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn ssl_mode(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disable => "disable",
        TlsMode::Prefer => "prefer",
        TlsMode::Require => "require",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    }
}

/// One value of a mounted Secret. People make Secrets from files that end with a newline: that one is not part of the value.
fn secret(folder: &Path, key: &str) -> Result<String, Failure> {
    let path = folder.join(key);
    let bytes = fs::read(&path).map_err(|error| {
        Failure::new(
            Reason::InvalidConfiguration,
            format!("the mounted Secret's file {} cannot be read: {error}", path.display()),
        )
    })?;
    let unusable = |what: &str| {
        Failure::new(
            Reason::InvalidConfiguration,
            format!("the {key} in the Secret {what}: write it as one line of UTF-8"),
        )
    };
    let mut text = String::from_utf8(bytes).map_err(|_| unusable("is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.contains(['\n', '\r', '\0']) {
        return Err(unusable("has more than one line or a zero byte"));
    }
    Ok(text)
}

fn write_password_file(scratch: &Path, password: &str) -> Result<PathBuf, Failure> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path = scratch.join(format!("pgpass-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let failed = |error: std::io::Error| {
        Failure::new(
            Reason::InvalidConfiguration,
            format!("the password file {} cannot be written: {error}", path.display()),
        )
    };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    if !password.is_empty() {
        file.write_all(password_line(password).as_bytes()).map_err(failed)?;
    }
    Ok(path)
}

fn password_line(password: &str) -> String {
    format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mounts(folder: &Path, username: &str, password: &str) -> Mounts {
        fs::write(folder.join("username"), username).unwrap();
        fs::write(folder.join("password"), password).unwrap();
        Mounts { credentials: Some(folder.to_owned()), ..Mounts::default() }
    }

    fn prepare(username: &str, password: &str) -> Result<(Login, tempfile::TempDir), Failure> {
        let folder = tempfile::tempdir().unwrap();
        let login = Login::prepare(
            "db.svc",
            5432,
            &TlsSpec::default(),
            &mounts(folder.path(), username, password),
            folder.path(),
        )?;
        Ok((login, folder))
    }

    #[test]
    fn the_password_is_in_a_file_that_only_the_worker_reads_and_that_goes_with_it() {
        let (login, _folder) = prepare("app\n", "a:b\\c'd \n").unwrap();
        let file = login.password_file.clone();
        assert_eq!(fs::read_to_string(&file).unwrap(), "*:*:*:*:a\\:b\\\\c'd \n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let environment = login.environment("shop", Some(15), "");
        assert!(environment.iter().all(|(_, value)| !value.to_string_lossy().contains("a:b")));
        assert_eq!(login.user, "app");
        drop(login);
        assert!(!file.exists());
    }

    #[test]
    fn a_secret_of_several_lines_is_no_password() {
        for (username, password) in [("app", "a\nb"), ("a\nb", "p"), ("app", "a\0b"), ("", "p"), ("app", "a\n\n")] {
            let failure = prepare(username, password).unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidConfiguration);
            assert!(!failure.message.contains("a\nb"), "{failure}");
        }
        assert!(prepare("app", "secret\r\n").is_ok());
        assert!(prepare("app", "").is_ok());
    }

    #[test]
    fn a_missing_key_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("username"), "app").unwrap();
        let mounts = Mounts { credentials: Some(folder.path().to_owned()), ..Mounts::default() };
        let failure = Login::prepare("db", 5432, &TlsSpec::default(), &mounts, folder.path()).unwrap_err();
        assert!(failure.message.contains("password"), "{failure}");
    }

    #[test]
    fn certificates_are_given_only_where_they_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let mut mounts = mounts(folder.path(), "app", "p");
        let ca = folder.path().join("ca.crt");
        let value = |login: &Login, name: &str| {
            login.environment("d", None, "").into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
        };
        let tls = |mode| TlsSpec { mode, ca_bundle: None };
        mounts.ca = Some(ca.clone());
        let failure = Login::prepare("db", 1, &tls(TlsMode::VerifyFull), &mounts, folder.path()).unwrap_err();
        assert!(failure.message.contains("ca.crt"), "{failure}");
        fs::write(&ca, "").unwrap();
        let full = Login::prepare("db", 1, &tls(TlsMode::VerifyFull), &mounts, folder.path()).unwrap();
        assert_eq!(value(&full, "PGSSLROOTCERT"), Some(ca.into()));
        assert_eq!(value(&full, "PGSSLMODE"), Some("verify-full".into()));
        let prefer = Login::prepare("db", 1, &tls(TlsMode::Prefer), &mounts, folder.path()).unwrap();
        assert_eq!(value(&prefer, "PGSSLROOTCERT"), None);
    }

    #[test]
    fn options_that_a_server_does_not_know_are_not_sent() {
        let (login, _folder) = prepare("app", "p").unwrap();
        let options = |major| {
            let all = login.environment("d", major, "");
            all.into_iter().find(|(key, _)| key == "PGOPTIONS").unwrap().1.into_string().unwrap()
        };
        assert!(options(Some(14)).contains("idle_session_timeout=0"));
        assert!(!options(Some(13)).contains("idle_session_timeout=0"));
        assert!(!options(None).contains("idle_session_timeout=0"));
        assert!(options(None).contains("-c statement_timeout=0"));
    }

    #[test]
    fn odd_names_of_databases_stay_names() {
        assert_eq!(connection_string("it's a\\b=c"), "dbname='it\\'s a\\\\b=c'");
    }
}

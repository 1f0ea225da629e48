//! How a deployment is reached: a connection string or host and port, with the secrets of mounted files. Talks to the server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use holdfast_crds::{Reason, TlsMode, TlsSpec};
use mongodb::Client;
use mongodb::options::{ClientOptions, Credential, ServerAddress, Tls, TlsOptions};

use super::trouble;
use crate::task::{Failure, Mounts, host_before_port};

/// How long a server may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server to talk to is looked for.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// The port of servers that do not say another.
const DEFAULT_PORT: u16 = 27017;
/// At most this many hosts of a deployment are named in messages.
const HOSTS_NAMED: usize = 3;

/// Where a deployment is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Host, where no connection string says it.
    pub host: Option<&'a str>,
    /// Port.
    pub port: Option<i32>,
    /// Encryption; absent: as the connection string says, and none without one.
    pub tls: Option<&'a TlsSpec>,
}

/// A deployment that has answered.
#[derive(Clone, Debug)]
pub(super) struct Deployment {
    /// Connections to it.
    pub client: Client,
    /// Its hosts, for messages.
    pub address: String,
    /// Version of the server.
    pub version: String,
    /// Whether it is a replica set or a sharded cluster, which can read from a snapshot.
    pub replicated: bool,
    /// Whether it is a sharded cluster.
    pub sharded: bool,
    /// As whom it is spoken to: database and name.
    pub user: Option<(String, String)>,
    /// Whether no credentials are given at all.
    anonymous: bool,
}

impl Deployment {
    /// Connects and asks who is there. Reads mounted Secrets.
    pub async fn reach(place: &Place<'_>, mounts: &Mounts) -> Result<Self, Failure> {
        let mut options = options(place, mounts).await?;
        options.app_name = Some("holdfast".to_owned());
        options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
        options.server_selection_timeout.get_or_insert(SELECTION_TIMEOUT);
        let address = address(&options.hosts);
        let (user, anonymous) = (options.credential.as_ref().and_then(user), options.credential.is_none());
        // What the driver says of its own options may hold parts of the connection string.
        let client = Client::with_options(options).map_err(|error| trouble::of_options(&address, &error))?;
        let mut deployment =
            Self { client, address, version: String::new(), replicated: false, sharded: false, user, anonymous };
        let hello = deployment.ask("admin", doc! {"hello": 1}, Reason::SourceUnreachable).await?;
        deployment.sharded = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        deployment.replicated = deployment.sharded || hello.contains_key("setName");
        let build = deployment.ask("admin", doc! {"buildInfo": 1}, Reason::SourceRefused).await?;
        deployment.version = build.get_str("version").unwrap_or("unknown").to_owned();
        // Both of these are answered to anybody: whether the credentials are right is seen only now.
        deployment.ask("admin", doc! {"connectionStatus": 1}, Reason::SourceRefused).await?;
        Ok(deployment)
    }

    /// Runs a command.
    pub async fn ask(&self, database: &str, command: Document, otherwise: Reason) -> Result<Document, Failure> {
        self.client
            .database(database)
            .run_command(command)
            .await
            .map_err(|error| self.failure(database, otherwise, &error))
    }

    /// What the driver said, with the place in front. `otherwise` is the reason where its words tell none.
    pub fn failure(&self, database: &str, otherwise: Reason, error: &mongodb::error::Error) -> Failure {
        let place = self.place(database);
        let nobody = self.anonymous.then(|| trouble::of_nobody(&place, error)).flatten();
        nobody.unwrap_or_else(|| trouble::failure(&place, otherwise, error))
    }

    /// A database, for messages.
    pub fn place(&self, database: &str) -> String {
        match database {
            "" | "admin" => format!("mongodb at {}", self.address),
            database => format!("database {database} on {}", self.address),
        }
    }
}

/// The hosts that a connection string or the fields name.
///
/// # Errors
/// Where the connection string cannot be read.
pub(super) async fn hosts(place: &Place<'_>, mounts: &Mounts) -> Result<Vec<(String, i32)>, Failure> {
    let hosts = options(place, mounts).await?.hosts;
    let named = hosts.into_iter().map(|address| match address {
        ServerAddress::Tcp { host, port } => (host, i32::from(port.unwrap_or(DEFAULT_PORT))),
        other => (other.to_string(), 0),
    });
    Ok(named.collect())
}

async fn options(place: &Place<'_>, mounts: &Mounts) -> Result<ClientOptions, Failure> {
    let mut options = if let Some(uri) = &mounts.uri {
        let uri = one_line(uri, "connection string")?;
        ClientOptions::parse(uri.as_str()).await.map_err(|error| trouble::of_uri(&error))?
    } else {
        let Some(host) = place.host else {
            return Err(invalid("neither a connection string nor a host is given: set uriSecret or host".to_owned()));
        };
        let port = place.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(DEFAULT_PORT);
        let mut options = ClientOptions::builder()
            // The driver puts the port behind it as it is.
            .hosts(vec![ServerAddress::Tcp { host: host_before_port(host), port: Some(port) }])
            .build();
        options.credential = match &mounts.credentials {
            Some(folder) => Some(credential(folder)?),
            None => None,
        };
        // A host means that very server: members of a replica set, which it would name, need not be reachable by these names from here.
        options.direct_connection = Some(true);
        options
    };
    if let Some(tls) = place.tls {
        options.tls = Some(encryption(tls, mounts, &address(&options.hosts))?);
    } else if let (Some(ca), Some(Tls::Enabled(tls))) = (&mounts.ca, &mut options.tls) {
        tls.ca_file_path = Some(ca.clone());
    }
    Ok(options)
}

fn credential(folder: &Path) -> Result<Credential, Failure> {
    let username = one_line(&folder.join("username"), "username")?;
    let password = one_line(&folder.join("password"), "password")?;
    if username.is_empty() {
        return Err(invalid("the user's name in the Secret for mongodb is empty".to_owned()));
    }
    Ok(Credential::builder().username(username).password(password).build())
}

fn encryption(tls: &TlsSpec, mounts: &Mounts, address: &str) -> Result<Tls, Failure> {
    let mut options = TlsOptions::default();
    match tls.mode {
        TlsMode::Disable => return Ok(Tls::Disabled),
        TlsMode::Require => options.allow_invalid_certificates = Some(true),
        TlsMode::VerifyFull => options.ca_file_path.clone_from(&mounts.ca),
        TlsMode::Prefer | TlsMode::VerifyCa => {
            return Err(invalid(format!(
                "mongodb at {address}: tls.mode {:?} is not to be had with MongoDB: write Disable, Require or VerifyFull",
                tls.mode
            )));
        }
    }
    Ok(Tls::Enabled(options))
}

/// The user that credentials are of: database and name.
fn user(credential: &Credential) -> Option<(String, String)> {
    let name = credential.username.clone()?;
    Some((credential.source.clone().unwrap_or_else(|| "admin".to_owned()), name))
}

/// Hosts, for messages: `a:27017, b:27017 and 3 more`.
fn address(hosts: &[ServerAddress]) -> String {
    let mut names: Vec<String> = hosts.iter().take(HOSTS_NAMED).map(ToString::to_string).collect();
    if hosts.len() > HOSTS_NAMED {
        names.push(format!("{} more", hosts.len() - HOSTS_NAMED));
    }
    names.join(", ")
}

/// One value of a mounted Secret. People make Secrets from files that end with a newline: that one is not part of the value.
fn one_line(path: &Path, what: &str) -> Result<String, Failure> {
    let bytes = fs::read(path)
        .map_err(|error| invalid(format!("the mounted Secret's file {} cannot be read: {error}", path.display())))?;
    let mut text = String::from_utf8(bytes)
        .map_err(|_| invalid(format!("the {what} in the Secret is not UTF-8: write it as one line of UTF-8")))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.contains(['\n', '\r', '\0']) {
        return Err(invalid(format!(
            "the {what} in the Secret has more than one line or a zero byte: write it as one line of UTF-8"
        )));
    }
    Ok(text)
}

fn invalid(message: String) -> Failure {
    Failure::new(Reason::InvalidConfiguration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(uri: &str) -> (Mounts, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uri");
        fs::write(&path, uri).unwrap();
        (Mounts { uri: Some(path), ..Mounts::default() }, folder)
    }

    const NOWHERE: Place<'static> = Place { host: None, port: None, tls: None };

    #[tokio::test]
    async fn a_connection_string_that_cannot_be_read_is_never_told() {
        for uri in [
            "mongodb://app:s3cret/x@host/db",
            "postgres://app:s3cret@host",
            "mongodb://app:s3cret@host/?tls=s3cret",
            "mongodb://app:s3cret@host/?authMechanism=s3cret",
            "mongodb://app:s3cret@host:s3cret/",
            "s3cret",
            "s3cret\ns3cret",
            "",
        ] {
            let (mounts, _folder) = mounts(uri);
            let failure = Deployment::reach(&NOWHERE, &mounts).await.unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidConfiguration, "{uri}: {failure}");
            assert!(!failure.message.contains("s3cret"), "{failure}");
        }
    }

    #[tokio::test]
    async fn encryption_is_as_the_source_says_and_else_as_the_connection_string_says() {
        let (mut mounts, _folder) = mounts("mongodb://a,b:1/?replicaSet=rs&tls=true\n");
        mounts.ca = Some("/ca.crt".into());
        let tls = |mode| TlsSpec { mode, ca_bundle: None };
        let of = async |tls: Option<&TlsSpec>| options(&Place { tls, ..NOWHERE }, &mounts).await;
        let plain = of(None).await.unwrap();
        assert_eq!(plain.repl_set_name.as_deref(), Some("rs"));
        assert!(matches!(plain.tls, Some(Tls::Enabled(o)) if o.ca_file_path == mounts.ca));
        assert!(matches!(of(Some(&tls(TlsMode::Disable))).await.unwrap().tls, Some(Tls::Disabled)));
        let require = of(Some(&tls(TlsMode::Require))).await.unwrap().tls;
        assert!(matches!(require, Some(Tls::Enabled(o)) if o.allow_invalid_certificates == Some(true)));
        let full = of(Some(&tls(TlsMode::VerifyFull))).await.unwrap().tls;
        assert!(
            matches!(full, Some(Tls::Enabled(o)) if o.allow_invalid_certificates.is_none() && o.ca_file_path == mounts.ca)
        );
        assert!(
            of(Some(&tls(TlsMode::Prefer))).await.unwrap_err().message.contains("write Disable, Require or VerifyFull")
        );
    }

    #[tokio::test]
    async fn the_user_is_the_one_of_the_credentials() {
        for (uri, expected) in [
            ("mongodb://h/", None),
            ("mongodb://app:x@h/", Some(("admin", "app"))),
            ("mongodb://app:x@h/shop", Some(("shop", "app"))),
            ("mongodb://app:x@h/shop?authSource=admin", Some(("admin", "app"))),
        ] {
            let (mounts, _folder) = mounts(uri);
            let options = options(&NOWHERE, &mounts).await.unwrap();
            let found = options.credential.as_ref().and_then(user);
            assert_eq!(found, expected.map(|(database, name)| (database.to_owned(), name.to_owned())), "{uri}");
        }
    }

    #[test]
    fn many_hosts_are_counted() {
        let hosts: Vec<ServerAddress> =
            (0..5).map(|n| ServerAddress::Tcp { host: format!("h{n}"), port: None }).collect();
        assert_eq!(address(&hosts[..2]), "h0:27017, h1:27017");
        assert_eq!(address(&hosts), "h0:27017, h1:27017, h2:27017, 2 more");
    }
}

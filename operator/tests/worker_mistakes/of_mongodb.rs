//! Of a MongoDB: connection string, host, port, encryption, user and password, database.

use holdfast::task::{Mounts, Task};
use holdfast_crds::{MongodbSource, Reason, Source, TlsMode, TlsSpec};

use crate::certificates::Certificates;
use crate::job::{WRONG, backup_on};
use crate::mongodb;
use crate::redis::Redis;
use crate::s3;
use crate::{AUTHORITIES, NOWHERE, make, mistake, patient, port};

/// How the Secrets are told.
const URI: &str = "Secret chat (key uri)";
const LOGIN: &str = "Secret chat (keys username and password)";

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_at_mongodb_is_told_with_secret_and_field() {
    let test = s3::Server::shared().await.bucket().await;
    let (server, redis, certificates) = (mongodb::Server::shared(), Redis::start(&[]), Certificates::new());
    let tls_port = port::lasting();
    let _tls = certificates.serve("valid", tls_port);
    let files = tempfile::tempdir().unwrap();
    let uri = |name: &str, text: &str| {
        let file = files.path().join(name);
        std::fs::write(&file, text).unwrap();
        Mounts { uri: Some(file), secret: Some(URI.into()), ..Mounts::default() }
    };
    let login = |name: &str, user: &str, password: &str| {
        let folder = files.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("username"), user).unwrap();
        std::fs::write(folder.join("password"), password).unwrap();
        Mounts { credentials: Some(folder), secret: Some(LOGIN.into()), ..Mounts::default() }
    };
    let with_ca = |ca: &str| Mounts {
        ca: Some(certificates.file(ca)),
        authorities: Some(AUTHORITIES.into()),
        ..Mounts::default()
    };
    let no_ca = certificates.file("no-ca.pem");
    std::fs::write(&no_ca, "nonsense").unwrap();
    let saved = |source: MongodbSource, mounts: Mounts| {
        let source = Source { name: "chat".into(), mongodb: Some(source), ..Source::default() };
        let mut task = backup_on(21, patient(test.store()), source, mounts);
        task.run_sources = vec!["chat".into()];
        Task::Backup(Box::new(task))
    };
    let host = |host: &str, port: u16, tls: Option<TlsMode>| MongodbSource {
        host: Some(host.into()),
        port: Some(port.into()),
        database: Some("chat".into()),
        tls: tls.map(|mode| TlsSpec { mode, ca_bundle: None }),
        ..MongodbSource::default()
    };
    let here = |tls| host("127.0.0.1", server.port, tls);
    let of = |database: &str| MongodbSource { database: Some(database.into()), ..MongodbSource::default() };
    let no_pattern = || MongodbSource { include_collections: vec!["ordres_*".into()], ..MongodbSource::default() };
    make(vec![
        mistake(
            "a connection string that is none",
            saved(of("chat"), uri("none", &format!("postgres://app:{WRONG}@h"))),
            Reason::InvalidConfiguration,
            &[URI, "mongodb://"],
        ),
        mistake(
            "a password that is not percent-encoded",
            saved(of("chat"), uri("encoded", &format!("mongodb://app:{WRONG}/x@h/"))),
            Reason::InvalidConfiguration,
            &[URI, "percent-encoded"],
        ),
        mistake(
            "a connection string of two lines",
            saved(of("chat"), uri("lines", &format!("mongodb://app:{WRONG}@h\nmongodb://g"))),
            Reason::InvalidConfiguration,
            &[URI, "one line"],
        ),
        mistake(
            "a wrong password in a connection string",
            saved(of("chat"), uri("wrong", &server.uri_of(mongodb::USER, WRONG))),
            Reason::SourceRefused,
            &["127.0.0.1", URI, "check user name, password and authSource"],
        ),
        mistake(
            "a wrong password",
            saved(here(None), login("wrong-login", mongodb::USER, WRONG)),
            Reason::SourceRefused,
            &["127.0.0.1", LOGIN, "check user name, password"],
        ),
        mistake(
            "a user that is not there",
            saved(here(None), login("nobody", "nobody", WRONG)),
            Reason::SourceRefused,
            &["127.0.0.1", LOGIN, "check user name, password"],
        ),
        mistake(
            "an empty user",
            saved(here(None), login("empty", "", WRONG)),
            Reason::InvalidConfiguration,
            &["the user's name", LOGIN, "is empty"],
        ),
        mistake(
            "no password where one is wanted",
            saved(here(None), Mounts::default()),
            Reason::SourceRefused,
            &["127.0.0.1", "credentialsSecret"],
        ),
        mistake(
            "a database with a typo",
            saved(of("caht"), uri("right", &server.uri())),
            Reason::SourceRefused,
            &["database caht", "check the name of the database"],
        ),
        mistake(
            "a pattern that no collection fits",
            saved(no_pattern(), uri("right-too", &server.uri())),
            Reason::SourceRefused,
            &["includeCollections", "leave nothing to save", "correct their patterns"],
        ),
        mistake(
            "a wrong port",
            saved(host("127.0.0.1", port::lasting(), None), Mounts::default()),
            Reason::SourceUnreachable,
            &["refused", "check host and port"],
        ),
        mistake(
            "a host with a typo",
            saved(host(NOWHERE, 27017, None), Mounts::default()),
            Reason::SourceUnreachable,
            &[NOWHERE, "does not resolve"],
        ),
        mistake(
            "TLS is not offered",
            saved(here(Some(TlsMode::Require)), Mounts::default()),
            Reason::SourceUnreachable,
            &["127.0.0.1", "tls.mode"],
        ),
        mistake(
            "the port of a Redis",
            saved(host("127.0.0.1", redis.port, None), Mounts::default()),
            Reason::SourceUnreachable,
            &["check", "tls.mode"],
        ),
        mistake(
            "TLS to the port of a Redis",
            saved(host("127.0.0.1", redis.port, Some(TlsMode::Require)), Mounts::default()),
            Reason::SourceUnreachable,
            &["127.0.0.1", "tls.mode"],
        ),
        mistake(
            "the server wants TLS",
            saved(host("localhost", tls_port, None), Mounts::default()),
            Reason::SourceUnreachable,
            &["localhost", "tls.mode"],
        ),
        mistake(
            "a certificate of another authority",
            saved(host("localhost", tls_port, Some(TlsMode::VerifyFull)), with_ca("other.pem")),
            Reason::SourceUnreachable,
            &["tls.caBundle, ConfigMap authorities (key ca.crt)"],
        ),
        mistake(
            "a certificate for another host",
            saved(host("127.0.0.1", tls_port, Some(TlsMode::VerifyFull)), with_ca("ca.pem")),
            Reason::SourceUnreachable,
            &["for another host name", "check host"],
        ),
        mistake(
            "a CA bundle that is none",
            saved(host("localhost", tls_port, Some(TlsMode::VerifyFull)), with_ca("no-ca.pem")),
            Reason::SourceUnreachable,
            &["tls.caBundle, ConfigMap authorities (key ca.crt)"],
        ),
    ])
    .await;
}

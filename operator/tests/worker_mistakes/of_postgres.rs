//! Of a PostgreSQL: host, port, encryption, user and password, database, rights; and of the store that its backup goes to.

use std::path::PathBuf;

use holdfast::task::{StoreTask, Task};
use holdfast_crds::{PostgresSource, Reason, TlsMode, TlsSpec};

use crate::certificates::Certificates;
use crate::job::{WRONG, backup};
use crate::postgres::{self, Cluster, Secret};
use crate::redis::Redis;
use crate::s3::Server;
use crate::{AUTHORITIES, NOWHERE, make, mistake, patient, port};

/// How the Secret is told.
const SECRET: &str = "Secret pg-shop (keys user and pass)";

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_at_postgresql_is_told_with_secret_and_field() {
    let test = Server::shared().await.bucket().await;
    let (certificates, redis) = (Certificates::new(), Redis::start(&[]));
    let rules = tempfile::tempdir().unwrap();
    let hba = rules.path().join("pg_hba.conf");
    let lines = [
        "local all all trust",
        "host all banned all reject",
        "hostssl all careful all scram-sha-256",
        "hostnossl all careful all reject",
        "host shop all all scram-sha-256",
        "host postgres postgres all scram-sha-256",
    ];
    std::fs::write(&hba, lines.join("\n")).unwrap();
    std::fs::write(certificates.file("no-ca.pem"), "nonsense").unwrap();
    for file in [rules.path(), hba.as_path(), certificates.folder()] {
        postgres::give_to_server_user(file);
    }
    for name in ["valid.pem", "valid.key", "expired.pem", "expired.key"] {
        postgres::give_to_server_user(&certificates.file(name));
    }
    let setting = |name: &str, file: PathBuf| format!("{name}={}", file.display());
    let serving = |name: &str, more: &[&str]| {
        let certificate = setting("ssl_cert_file", certificates.file(&format!("{name}.pem")));
        let key = setting("ssl_key_file", certificates.file(&format!("{name}.key")));
        Cluster::start_with(&[&["ssl=on", certificate.as_str(), key.as_str()][..], more].concat(), None)
    };
    let (plain, strict) = (Cluster::shared(), serving("valid", &[&setting("hba_file", hba.clone())]));
    let expired = serving("expired", &[]);
    for cluster in [&*plain, &strict] {
        cluster.create_database("shop");
        cluster.sql(
            "shop",
            "CREATE TABLE IF NOT EXISTS secret_table (a int); CREATE ROLE poor LOGIN PASSWORD 'p'; CREATE ROLE nologin PASSWORD 'p'; \
             CREATE ROLE banned LOGIN PASSWORD 'p'; CREATE ROLE careful LOGIN PASSWORD 'p'; REVOKE CONNECT ON DATABASE shop FROM PUBLIC; \
             CREATE ROLE outside LOGIN PASSWORD 'p'; GRANT CONNECT ON DATABASE shop TO poor, nologin, banned, careful",
        );
    }
    let secret = |user: &str, password: &str| {
        let mut secret = Secret::of(user, password);
        secret.mounts.secret = Some(SECRET.into());
        secret
    };
    let (right, wrong, nobody) =
        (secret("postgres", postgres::PASSWORD), secret("postgres", WRONG), secret("nobody", WRONG));
    let (poor, nologin, banned) = (secret("poor", "p"), secret("nologin", "p"), secret("banned", "p"));
    let (careful, outside) = (secret("careful", "p"), secret("outside", "p"));
    let two_lines = secret("postgres", &format!("{WRONG}\nagain"));
    let (no_password, no_user) = (secret("postgres", ""), secret("", WRONG));
    let saved = |cluster: &Cluster, secret: &Secret, change: &dyn Fn(&mut PostgresSource)| {
        let mut task = backup(patient(test.store()), cluster, secret, "shop");
        change(task.source.postgres.as_mut().unwrap());
        Task::Backup(Box::new(task))
    };
    let as_it_is = |_: &mut PostgresSource| {};
    let tls = |mode: TlsMode| move |source: &mut PostgresSource| source.tls = TlsSpec { mode, ca_bundle: None };
    let trusting = |cluster: &Cluster, host: &'static str, mode: TlsMode, ca: &str| {
        let mut task = backup(patient(test.store()), cluster, &right, "shop");
        let source = task.source.postgres.as_mut().unwrap();
        source.host = host.into();
        source.tls = TlsSpec { mode, ca_bundle: None };
        task.mounts.ca = Some(certificates.file(ca));
        task.mounts.authorities = Some(AUTHORITIES.into());
        Task::Backup(Box::new(task))
    };
    let port_of = |port: u16| move |source: &mut PostgresSource| source.port = i32::from(port);
    let (redis_port, web_port, free_port) = (redis.port, test.server.port(), port::lasting());
    let read_only = {
        let mut task = backup(StoreTask { read_only: true, ..patient(test.store()) }, &plain, &right, "shop");
        task.backup = "read-only".into();
        Task::Backup(Box::new(task))
    };
    make(vec![
        mistake(
            "a wrong password",
            saved(&plain, &wrong, &as_it_is),
            Reason::SourceRefused,
            &["127.0.0.1", "shop", "user postgres", "password authentication failed", SECRET],
        ),
        mistake(
            "a user that is not there",
            saved(&plain, &nobody, &as_it_is),
            Reason::SourceRefused,
            &["user nobody", SECRET],
        ),
        mistake(
            "an empty password",
            saved(&plain, &no_password, &as_it_is),
            Reason::SourceRefused,
            &["password", SECRET],
        ),
        mistake(
            "an empty user",
            saved(&plain, &no_user, &as_it_is),
            Reason::InvalidConfiguration,
            &["the user's name", SECRET, "is empty"],
        ),
        mistake(
            "a password of two lines",
            saved(&plain, &two_lines, &as_it_is),
            Reason::InvalidConfiguration,
            &[SECRET, "one line"],
        ),
        mistake(
            "a database with a typo",
            saved(&plain, &right, &|s| s.database = Some("shpo".into())),
            Reason::SourceRefused,
            &["database \"shpo\" does not exist", "check the database of the source"],
        ),
        mistake(
            "a role that may not log in",
            saved(&plain, &nologin, &as_it_is),
            Reason::SourceRefused,
            &["nologin", "the role needs LOGIN"],
        ),
        mistake(
            "a role that may not connect",
            saved(&plain, &outside, &as_it_is),
            Reason::SourceRefused,
            &["permission denied for database", "grant the role CONNECT"],
        ),
        mistake(
            "a role that may not read",
            saved(&plain, &poor, &as_it_is),
            Reason::SourceRefused,
            &["secret_table", "grant it to the role", "docs/postgres.md"],
        ),
        mistake(
            "pg_hba.conf refuses",
            saved(&strict, &banned, &as_it_is),
            Reason::SourceRefused,
            &["banned", "pg_hba.conf", "allow this user"],
        ),
        mistake(
            "pg_hba.conf has no line",
            saved(&strict, &right, &|s| s.database = Some("template1".into())),
            Reason::SourceRefused,
            &["no pg_hba.conf entry", "allow this user, database and address"],
        ),
        mistake(
            "the server wants TLS",
            saved(&strict, &careful, &tls(TlsMode::Disable)),
            Reason::SourceRefused,
            &["pg_hba.conf", "tls.mode"],
        ),
        mistake(
            "TLS is not offered",
            saved(&plain, &right, &tls(TlsMode::Require)),
            Reason::SourceRefused,
            &["does not support SSL", "tls.mode"],
        ),
        mistake(
            "a certificate of another authority",
            trusting(&strict, "localhost", TlsMode::VerifyFull, "other.pem"),
            Reason::SourceRefused,
            &["not from an authority in tls.caBundle, ConfigMap authorities (key ca.crt)"],
        ),
        mistake(
            "a certificate that has expired",
            trusting(&expired, "localhost", TlsMode::VerifyFull, "ca.pem"),
            Reason::SourceRefused,
            &["has expired", "renew the server's"],
        ),
        mistake(
            "a certificate for another host",
            trusting(&strict, "127.0.0.1", TlsMode::VerifyFull, "ca.pem"),
            Reason::SourceRefused,
            &["for another host name", "tls.mode to VerifyCa"],
        ),
        mistake(
            "a CA bundle that is none",
            trusting(&strict, "localhost", TlsMode::VerifyFull, "no-ca.pem"),
            Reason::InvalidConfiguration,
            &["tls.caBundle, ConfigMap authorities (key ca.crt)", "no certificate"],
        ),
        mistake(
            "a CA bundle that is not there",
            trusting(&strict, "localhost", TlsMode::VerifyCa, "none.pem"),
            Reason::InvalidConfiguration,
            &["tls.caBundle, ConfigMap authorities (key ca.crt)"],
        ),
        mistake(
            "a wrong port",
            saved(&plain, &right, &port_of(free_port)),
            Reason::SourceUnreachable,
            &["Connection refused", "check host and port"],
        ),
        mistake(
            "a host with a typo",
            saved(&plain, &right, &|s| s.host = NOWHERE.into()),
            Reason::SourceUnreachable,
            &[NOWHERE, "does not resolve"],
        ),
        mistake(
            "the port of a Redis",
            saved(&plain, &right, &port_of(redis_port)),
            Reason::SourceUnreachable,
            &["speaks PostgreSQL on this port"],
        ),
        mistake(
            "the port of a web server",
            saved(&plain, &right, &port_of(web_port)),
            Reason::SourceUnreachable,
            &["speaks PostgreSQL on this port"],
        ),
        mistake(
            "the port of a web server, without TLS",
            saved(&plain, &right, &|s| {
                s.port = i32::from(web_port);
                s.tls = TlsSpec { mode: TlsMode::Disable, ca_bundle: None };
            }),
            Reason::SourceUnreachable,
            &["speaks PostgreSQL on this port"],
        ),
        mistake("a store that is read-only", read_only, Reason::StoreReadOnly, &["store main is read-only"]),
    ])
    .await;
}

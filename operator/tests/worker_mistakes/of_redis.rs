//! Of a Redis: host, port, encryption, user and password.

use holdfast::task::{Mounts, Task};
use holdfast_crds::{Reason, RedisSource, Source, TlsMode, TlsSpec};

use crate::certificates::Certificates;
use crate::job::{WRONG, backup_on};
use crate::postgres::Cluster;
use crate::redis::{Redis, RedisSecretFiles};
use crate::s3::Server;
use crate::{AUTHORITIES, NOWHERE, make, mistake, patient, port};

/// How the Secret is told.
const SECRET: &str = "Secret cache (key password)";

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_at_redis_is_told_with_secret_and_field() {
    let test = Server::shared().await.bucket().await;
    let (plain, encrypted, cluster) = (Redis::start(&[]), Redis::encrypted(&[]), Cluster::shared());
    let guarded = Redis::with_password(&[], "0pen-s3same");
    guarded.run(&["ACL", "SETUSER", "poor", "on", ">p", "+ping", "~*"]);
    let certificates = Certificates::new();
    let file = |setting: &str, name: &str| format!("{setting} {}", certificates.file(name).display());
    let serving = |name: &str| {
        let (certificate, key) =
            (file("tls-cert-file", &format!("{name}.pem")), file("tls-key-file", &format!("{name}.key")));
        Redis::encrypted(&[&certificate, &key, &file("tls-ca-cert-file", "ca.pem")])
    };
    let (valid, expired) = (serving("valid"), serving("expired"));
    std::fs::write(certificates.file("no-ca.pem"), "nonsense").unwrap();
    let secret = |user: Option<&str>, password: &str| {
        let mut secret = RedisSecretFiles::of(user, password);
        secret.mounts.secret = Some(SECRET.into());
        secret
    };
    let (none, wrong, poor) = (RedisSecretFiles::none(), secret(None, WRONG), secret(Some("poor"), "p"));
    let nobody = secret(Some("nobody"), WRONG);
    let (database_port, web_port) = (cluster.port, test.server.port());
    let saved = |source: RedisSource, secret: &RedisSecretFiles, ca: Option<&str>| {
        let mut mounts: Mounts = secret.mounts.clone();
        mounts.ca = ca.map(|ca| certificates.file(ca));
        mounts.authorities = ca.map(|_| AUTHORITIES.to_owned());
        let source = Source { name: "cache".into(), redis: Some(source), ..Source::default() };
        let mut task = backup_on(21, patient(test.store()), source, mounts);
        task.run_sources = vec!["cache".into()];
        Task::Backup(Box::new(task))
    };
    let port_of = |port: u16| RedisSource { port: i32::from(port), ..plain.source() };
    let tls = |server: &Redis, host: &str, mode| RedisSource {
        host: host.into(),
        tls: TlsSpec { mode, ca_bundle: None },
        ..server.source()
    };
    make(vec![
        mistake(
            "no password where one is wanted",
            saved(guarded.source(), &none, None),
            Reason::SourceRefused,
            &["NOAUTH", "name its Secret in credentialsSecret"],
        ),
        mistake(
            "a wrong password",
            saved(guarded.source(), &wrong, None),
            Reason::SourceRefused,
            &["WRONGPASS", SECRET],
        ),
        mistake("a user that is not there", saved(guarded.source(), &nobody, None), Reason::SourceRefused, &[SECRET]),
        mistake(
            "a user without rights",
            saved(guarded.source(), &poor, None),
            Reason::SourceRefused,
            &["NOPERM", "docs/redis.md"],
        ),
        mistake(
            "TLS is not offered",
            saved(tls(&plain, "127.0.0.1", TlsMode::Require), &none, None),
            Reason::SourceUnreachable,
            &["does not speak TLS on this port", "tls.mode"],
        ),
        mistake(
            "the server wants TLS",
            saved(encrypted.source(), &none, None),
            Reason::SourceUnreachable,
            &["tls.mode"],
        ),
        mistake(
            "a certificate of another authority",
            saved(tls(&encrypted, "localhost", TlsMode::VerifyFull), &none, Some("other.pem")),
            Reason::SourceRefused,
            &["tls.caBundle, ConfigMap authorities (key ca.crt)"],
        ),
        mistake(
            "a certificate for another host",
            saved(tls(&valid, "127.0.0.1", TlsMode::VerifyFull), &none, Some("ca.pem")),
            Reason::SourceRefused,
            &["for another host name", "tls.mode to VerifyCa"],
        ),
        mistake(
            "a certificate that has expired",
            saved(tls(&expired, "localhost", TlsMode::VerifyFull), &none, Some("ca.pem")),
            Reason::SourceRefused,
            &["certificate has expired", "renew it"],
        ),
        mistake(
            "a CA bundle that is none",
            saved(tls(&encrypted, "localhost", TlsMode::VerifyFull), &none, Some("no-ca.pem")),
            Reason::InvalidConfiguration,
            &["tls.caBundle, ConfigMap authorities (key ca.crt)", "no certificate"],
        ),
        mistake(
            "a wrong port",
            saved(port_of(port::lasting()), &none, None),
            Reason::SourceUnreachable,
            &["refused", "check host and port"],
        ),
        mistake(
            "a host with a typo",
            saved(RedisSource { host: NOWHERE.into(), ..plain.source() }, &none, None),
            Reason::SourceUnreachable,
            &[NOWHERE, "does not resolve"],
        ),
        mistake(
            "the port of a PostgreSQL",
            saved(port_of(database_port), &none, None),
            Reason::SourceUnreachable,
            &["speaks Redis on this port"],
        ),
        mistake(
            "the port of a web server",
            saved(port_of(web_port), &none, None),
            Reason::SourceUnreachable,
            &["speaks Redis on this port"],
        ),
    ])
    .await;
}

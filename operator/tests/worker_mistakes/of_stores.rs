//! Of a BackupStore: endpoint, region, bucket, keys, certificates.

use holdfast::task::StoreTask;
use holdfast_crds::{ConfigMapKey, Reason};

use crate::certificates::Certificates;
use crate::job::{WRONG, probe};
use crate::postgres::Cluster;
use crate::proxy::{Fate, Proxy};
use crate::redis::Redis;
use crate::s3::{self, Server};
use crate::{NOWHERE, make, mistake, port};

/// How the keys are told.
const KEYS: &str = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of Secret s3-keys (spec.s3.credentialsSecret)";
/// How the certificates to trust are told.
const TRUSTED: &str = "ConfigMap authorities, key ca.crt (spec.s3.caBundle)";

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_store_is_told_with_its_field() {
    let test = Server::shared().await.bucket().await;
    let (certificates, redis, cluster) = (Certificates::new(), Redis::start(&[]), Cluster::shared());
    let (valid, expired) = (port::lasting(), port::lasting());
    let _valid = certificates.serve("valid", valid);
    let _expired = certificates.serve("expired", expired);
    let named = |mut store: StoreTask| {
        store.s3.credentials_secret = Some("s3-keys".into());
        store
    };
    let at = |endpoint: String| named(test.store_at(endpoint));
    let with_ca = |mut store: StoreTask, ca: &str| {
        store.ca = Some(certificates.file(ca));
        store.s3.ca_bundle = Some(ConfigMapKey { config_map: "authorities".into(), key: "ca.crt".into() });
        store
    };
    let folder = |id: &str, secret: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("AWS_ACCESS_KEY_ID"), id).unwrap();
        std::fs::write(folder.path().join("AWS_SECRET_ACCESS_KEY"), secret).unwrap();
        folder
    };
    let (wrong_secret, unknown_key, empty, two_lines) = (
        folder(s3::KEY_ID, WRONG),
        folder("nobody", WRONG),
        folder("", WRONG),
        folder(s3::KEY_ID, "wr0ngs3cret\nagain"),
    );
    let with_keys =
        |keys: &tempfile::TempDir| StoreTask { credentials: Some(keys.path().to_owned()), ..named(test.store()) };
    let bucket = |name: &str| {
        let mut store = named(test.store());
        store.s3.bucket = name.into();
        store
    };
    let answering = |status: &'static str, body: &'static str| {
        Proxy::start(test.server.port(), move |_, _| Fate::Answer(status, body.into()))
    };
    let region = answering(
        "400 Bad Request",
        "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region \
         'us-east-1' is wrong; expecting 'eu-central-1'</Message></Error>",
    );
    let moved = answering(
        "301 Moved Permanently\r\nx-amz-bucket-region: eu-central-1",
        "<Error><Code>PermanentRedirect</Code><Message>must be addressed using the specified endpoint</Message></Error>",
    );
    let go = answering("400 Bad Request", "Client sent an HTTP request to an HTTPS server.\n");
    let nginx = answering(
        "400 Bad Request",
        "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>",
    );
    let page = answering("404 Not Found", "<html>no such page</html>");
    let in_host = |endpoint: String| {
        let mut store = at(endpoint);
        store.s3.path_style = Some(false);
        store
    };
    let no_ca = certificates.file("no-ca.pem");
    std::fs::write(&no_ca, "nonsense").unwrap();
    let typo = |recipient: &str| StoreTask { recipients: vec![recipient.into()], ..named(test.store()) };
    let https = test.server.endpoint().replacen("http://", "https://", 1);
    make(vec![
        mistake(
            "a secret key with a typo",
            probe(with_keys(&wrong_secret)),
            Reason::CredentialsRejected,
            &["store main", KEYS],
        ),
        mistake(
            "a key that the service does not know",
            probe(with_keys(&unknown_key)),
            Reason::CredentialsRejected,
            &["store main", KEYS],
        ),
        mistake(
            "an empty key in the Secret",
            probe(with_keys(&empty)),
            Reason::InvalidConfiguration,
            &["Secret s3-keys (spec.s3.credentialsSecret): key AWS_ACCESS_KEY_ID is empty"],
        ),
        mistake(
            "a key of two lines",
            probe(with_keys(&two_lines)),
            Reason::InvalidConfiguration,
            &["Secret s3-keys", "AWS_SECRET_ACCESS_KEY holds a control character", "one line"],
        ),
        mistake(
            "a bucket that is not there",
            probe(bucket("bakcups")),
            Reason::BucketNotFound,
            &["bucket bakcups", "create the bucket, or correct spec.s3.bucket"],
        ),
        mistake(
            "https where http is spoken",
            probe(at(https)),
            Reason::Unreachable,
            &["does not speak TLS", "write http:// in spec.s3.endpoint"],
        ),
        mistake(
            "http where TLS is spoken",
            probe(at(format!("http://localhost:{valid}"))),
            Reason::Unreachable,
            &["https:// in spec.s3.endpoint"],
        ),
        mistake(
            "http where a program in Go speaks TLS",
            probe(at(go.endpoint())),
            Reason::StoreRefused,
            &["HTTPS server", "write https:// in spec.s3.endpoint"],
        ),
        mistake(
            "http where nginx speaks TLS",
            probe(at(nginx.endpoint())),
            Reason::StoreRefused,
            &["HTTPS port", "write https:// in spec.s3.endpoint"],
        ),
        mistake(
            "no CA bundle",
            probe(at(format!("https://localhost:{valid}"))),
            Reason::Unreachable,
            &["public authority", "ConfigMap", "spec.s3.caBundle"],
        ),
        mistake(
            "the wrong CA bundle",
            probe(with_ca(at(format!("https://localhost:{valid}")), "other.pem")),
            Reason::Unreachable,
            &[TRUSTED],
        ),
        mistake(
            "a CA bundle that is none",
            probe(with_ca(at(format!("https://localhost:{valid}")), "no-ca.pem")),
            Reason::InvalidConfiguration,
            &[TRUSTED, "no certificate"],
        ),
        mistake(
            "a certificate that has expired",
            probe(with_ca(at(format!("https://localhost:{expired}")), "ca.pem")),
            Reason::Unreachable,
            &["certificate has expired", "renew it"],
        ),
        mistake(
            "a certificate for another host",
            probe(with_ca(at(format!("https://127.0.0.1:{valid}")), "ca.pem")),
            Reason::Unreachable,
            &["for another host", "spec.s3.endpoint"],
        ),
        mistake(
            "a wrong region, refused",
            probe(at(region.endpoint())),
            Reason::StoreRefused,
            &["expecting 'eu-central-1'", "spec.s3.region (us-east-1)"],
        ),
        mistake(
            "a wrong region, sent elsewhere",
            probe(at(moved.endpoint())),
            Reason::StoreRefused,
            &["the bucket is in eu-central-1", "spec.s3.region (us-east-1)"],
        ),
        mistake(
            "a bucket in the host's name where the service has none",
            probe(in_host(format!("http://{NOWHERE}:9000"))),
            Reason::Unreachable,
            &["does not resolve", "spec.s3.pathStyle: true"],
        ),
        mistake(
            "a host with a typo",
            probe(at(format!("http://{NOWHERE}:9000"))),
            Reason::Unreachable,
            &["the host of spec.s3.endpoint does not resolve"],
        ),
        mistake(
            "a wrong port",
            probe(at(format!("http://127.0.0.1:{}", port::lasting()))),
            Reason::Unreachable,
            &["nothing listens there", "spec.s3.endpoint"],
        ),
        mistake(
            "the port of a Redis",
            probe(at(format!("http://127.0.0.1:{}", redis.port))),
            Reason::Unreachable,
            &["the port of another service"],
        ),
        mistake(
            "the port of a PostgreSQL",
            probe(at(format!("http://127.0.0.1:{}", cluster.port))),
            Reason::Unreachable,
            &["the port of another service"],
        ),
        mistake("a web server that is no S3", probe(at(page.endpoint())), Reason::StoreRefused, &["404", "S3 service"]),
        mistake(
            "a recipient that is none",
            probe(typo("age1nonsense")),
            Reason::InvalidConfiguration,
            &["spec.encryption.recipients[0]", "age-keygen -y"],
        ),
        mistake(
            "a private key among the recipients",
            probe(typo(&format!("AGE-SECRET-KEY-1{WRONG}"))),
            Reason::InvalidConfiguration,
            &["spec.encryption.recipients[0]", "age-keygen -y"],
        ),
    ])
    .await;
}

//! Networks as others have them: IPv6 alone, and a proxy before the world; and a task as large as admission takes, past the kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/relay.rs"]
mod relay;
#[path = "support/s3.rs"]
mod s3;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use holdfast::task::{Mounts, Report, StoreTask, Task};
use holdfast_crds::{PostgresSource, Reason, Source, VolumeSource};
use job::{Job, backup, backup_on, probe, run, run_id};
use postgres::{Cluster, Secret};
use relay::{HttpProxy, by_ipv6};
use s3::Server;

/// A host that nobody but a proxy knows.
const ELSEWHERE: &str = "s3.elsewhere.invalid";

async fn run_with(task: &Task, variables: &[(&str, &str)]) -> Report {
    Job::start_with(task, variables).report().await
}

#[tokio::test(flavor = "multi_thread")]
async fn store_and_database_are_reached_by_addresses_of_ipv6() {
    let test = Server::shared().await.bucket().await;
    let cluster = Cluster::shared();
    let secret = Secret::superuser();
    let (Some(s3), Some(postgres)) = (by_ipv6(test.server.port()), by_ipv6(cluster.port)) else {
        return eprintln!("this machine has no IPv6");
    };
    let store = test.store_at(format!("http://[::1]:{s3}"));
    let report = run(&probe(store.clone())).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    cluster.create_database("by_ipv6");
    for (day, host) in [(1, "::1"), (2, "[::1]")] {
        let mut task = backup(store.clone(), &cluster, &secret, "by_ipv6");
        // What a run has stored once is not stored again.
        task.run_id = run_id(day);
        let source = task.source.postgres.take().unwrap();
        task.source.postgres = Some(PostgresSource { host: host.into(), port: postgres.into(), ..source });
        let report = run(&Task::Backup(Box::new(task))).await;
        assert_eq!(report.reason, Reason::Completed, "{host}: {}", report.message);
    }
    // Where nobody listens the message has the address as it would stand in a URL.
    let mut task = backup(store, &cluster, &secret, "by_ipv6");
    task.run_id = run_id(3);
    let source = task.source.postgres.take().unwrap();
    task.source.postgres = Some(PostgresSource { host: "::1".into(), port: 1, ..source });
    let report = run(&Task::Backup(Box::new(task))).await;
    assert_eq!(report.reason, Reason::SourceUnreachable);
    assert!(report.message.contains("[::1]:1"), "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_a_proxy_is_reached_through_it_and_no_proxy_goes_past_it() {
    let test = Server::shared().await.bucket().await;
    let proxy = HttpProxy::to(test.server.port());
    let store = test.store_at(format!("http://{ELSEWHERE}:8333"));
    let through = run_with(&probe(store.clone()), &[("HTTP_PROXY", &proxy.url())]).await;
    assert_eq!(through.reason, Reason::Completed, "{}", through.message);
    let asked = proxy.asked();
    assert!(asked.iter().any(|line| line.starts_with(&format!("PUT http://{ELSEWHERE}:8333/"))), "{asked:?}");

    let before = proxy.asked().len();
    let past = run_with(&probe(store), &[("HTTP_PROXY", &proxy.url()), ("NO_PROXY", ".elsewhere.invalid")]).await;
    assert_eq!(past.reason, Reason::Unreachable, "{}", past.message);
    let own = test.store();
    let past = run_with(&probe(own), &[("HTTP_PROXY", &proxy.url()), ("NO_PROXY", "127.0.0.0/8")]).await;
    assert_eq!(past.reason, Reason::Completed, "{}", past.message);
    assert_eq!(proxy.asked().len(), before, "nothing went through it");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_through_a_proxys_tunnel_to_the_stores_own_certificate() {
    let test = Server::shared().await.bucket().await;
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path());
    let secure = tls_before(test.server.port(), folder.path());
    let proxy = HttpProxy::to(secure);
    let store =
        StoreTask { ca: Some(folder.path().join("server.pem")), ..test.store_at(format!("https://{ELSEWHERE}")) };
    let report = run_with(&probe(store.clone()), &[("HTTPS_PROXY", &proxy.url())]).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    let asked = proxy.asked();
    assert!(
        !asked.is_empty() && asked.iter().all(|l| l.starts_with(&format!("CONNECT {ELSEWHERE}:443 "))),
        "{asked:?}"
    );
    // The small letters are as good, and what is for plain HTTP is not for TLS.
    let report = run_with(&probe(store.clone()), &[("https_proxy", &proxy.url())]).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    let report = run_with(&probe(store), &[("HTTP_PROXY", &proxy.url())]).await;
    assert_eq!(report.reason, Reason::Unreachable, "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_as_large_as_admission_takes_starts_and_is_understood() {
    let test = Server::shared().await.bucket().await;
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("kept"), "kept").unwrap();
    std::fs::write(data.path().join("$$left(out)"), "out").unwrap();
    // 100 globs of 1024 characters each, in `include` and in `exclude`; some of each mean the files above.
    let mut include = vec!["🗄".repeat(1024); 99];
    let mut exclude = include.clone();
    include.push("**".into());
    exclude.push("$$left(out)".into());
    let volume = VolumeSource { claim_name: "uploads".into(), include, exclude, ..VolumeSource::default() };
    let source = Source { name: "db".into(), volume: Some(volume), ..Source::default() };
    let mounts = Mounts { data: Some(data.path().to_owned()), ..Mounts::default() };
    let task = Task::Backup(Box::new(backup_on(21, test.store(), source, mounts)));
    let bytes: usize = task.to_environment().iter().map(|(_, value)| value.len()).sum();
    assert!(bytes > 700_000, "{bytes}");
    let report = run(&task).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
}

fn make_certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"])
        .arg(format!("/CN={ELSEWHERE}"))
        .args(["-addext", &format!("subjectAltName=DNS:{ELSEWHERE}"), "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "server.key", "-out", "server.pem"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
}

/// A port with TLS that leads to a server without, one request a connection.
fn tls_before(server: u16, folder: &Path) -> u16 {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || {
                let connection = rustls::ServerConnection::new(config).unwrap();
                let mut client = rustls::StreamOwned::new(connection, client);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if client.read_exact(&mut byte).is_err() {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let length = head
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .map_or(0, |(_, value)| value.trim().parse().unwrap());
                let mut body = vec![0; length];
                client.read_exact(&mut body).unwrap();
                let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).unwrap();
                let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                upstream.write_all(head.as_bytes()).unwrap();
                upstream.write_all(&body).unwrap();
                let mut answer = Vec::new();
                upstream.read_to_end(&mut answer).unwrap();
                let _ = client.write_all(&answer);
                client.conn.send_close_notify();
                let _ = client.flush();
            });
        }
    });
    port
}

//! What a store asks of whoever writes to it: headers that its policy demands, an identity that is handed out late, a key that may not
//! delete. With the program as a Job runs it, and a proxy in front of a real S3 server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/port.rs"]
mod port;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/volume.rs"]
mod volume;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_s3::types::StorageClass;
use holdfast::task::{
    BackupTask, DeleteTask, RestoreTarget, RetainTask, Select, StorePatience, StoreTask, Target, Task,
};
use holdfast_crds::{Aes256Encryption, KmsEncryption, OnExisting, Reason, RetentionSpec, ServerSideEncryption, Source};
use job::{Job, probe, run, run_id, scope};
use proxy::{Fate, Proxy};
use s3::{KEY_ID, SECRET, Server};

/// How services refuse what a policy does not allow.
fn denied() -> String {
    "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>".to_owned()
}

fn backup(store: StoreTask, from: &Path, day: u32) -> Task {
    let source = Source { name: "db".into(), volume: Some(volume::source()), ..Source::default() };
    let task = job::backup_on(day, store, source, volume::mounts(from));
    Task::Backup(Box::new(BackupTask { level: 0, ..task }))
}

fn restore(store: StoreTask, to: &Path, day: u32) -> Task {
    let server = Target::Volume(volume::target());
    let target = RestoreTarget { source: "db".into(), mounts: volume::mounts(to), server };
    Task::Restore(Box::new(job::restore(store, Select::RunId(run_id(day)), target, OnExisting::Fail)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_demands_headers_gets_them_with_each_object_and_a_refusal_names_them() {
    let from = volume::large();
    let test = Server::shared().await.bucket().await;
    let begins_an_object =
        |line: &str| (line.starts_with("PUT") || line.starts_with("POST")) && !line.contains("uploadId=");
    for (header, field) in [
        ("x-amz-server-side-encryption", "spec.s3.serverSideEncryption"),
        ("x-amz-storage-class", "spec.s3.storageClass"),
        ("x-amz-tagging", "spec.s3.tags"),
    ] {
        let strict = Proxy::start(test.server.port(), move |line, _| {
            if begins_an_object(line) { Fate::Demand(header, "403 Forbidden", denied()) } else { Fate::Pass }
        });
        let report = run(&probe(test.store_at(strict.endpoint()))).await;
        assert_eq!(report.reason, Reason::CredentialsRejected, "{}", report.message);
        assert!(report.message.contains(&format!("{header} ({field})")), "{}", report.message);

        let mut store = test.store_at(strict.endpoint());
        match header {
            "x-amz-server-side-encryption" => {
                let aes256 = Some(Aes256Encryption {});
                store.s3.server_side_encryption = Some(ServerSideEncryption { aes256, kms: None });
            }
            "x-amz-storage-class" => store.s3.storage_class = Some("STANDARD_IA".into()),
            _ => store.s3.tags = BTreeMap::from([("team".into(), "shop & co".into())]),
        }
        let report = run(&probe(store.clone())).await;
        assert_eq!(report.reason, Reason::Completed, "{header}: {}", report.message);
        let day = 1 + u32::try_from(header.len()).unwrap() % 20;
        let report = run(&backup(store.clone(), from.path(), day)).await;
        assert_eq!(report.reason, Reason::Completed, "{header}: {}", report.message);
        let to = tempfile::tempdir().unwrap();
        let report = run(&restore(store, to.path(), day)).await;
        assert_eq!(report.reason, Reason::Completed, "{header}: {}", report.message);
        assert!(volume::inside(to.path()) == volume::inside(from.path()));

        // What the service says of the objects that are there now.
        let client = test.server.client();
        let keys: Vec<String> = test.keys().await.into_iter().filter(|key| key.contains(&run_id(day))).collect();
        assert!(keys.len() >= 3, "{keys:?}");
        for key in keys {
            let head = client.head_object().bucket(&test.name).key(&key).send().await.unwrap();
            match header {
                "x-amz-server-side-encryption" => assert!(head.server_side_encryption().is_some(), "{key}"),
                "x-amz-storage-class" => {
                    assert_eq!(head.storage_class(), Some(&StorageClass::StandardIa), "{key}");
                }
                _ => {
                    let tags = client.get_object_tagging().bucket(&test.name).key(&key).send().await.unwrap();
                    let tags: Vec<_> = tags.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
                    assert_eq!(tags, [("team", "shop & co")], "{key}");
                }
            }
        }
    }

    let of_key = "<Error><Code>KMS.NotFoundException</Code><Message>Invalid keyId</Message></Error>";
    let no_key = Proxy::start(test.server.port(), move |line, _| {
        if line.starts_with("PUT") { Fate::Answer("400 Bad Request", of_key.to_owned()) } else { Fate::Pass }
    });
    let mut store = test.store_at(no_key.endpoint());
    let kms = Some(KmsEncryption { key_id: Some("alias/bakcups".into()) });
    store.s3.server_side_encryption = Some(ServerSideEncryption { kms, aes256: None });
    let report = run(&probe(store)).await;
    assert_eq!(report.reason, Reason::StoreRefused, "{}", report.message);
    assert!(report.message.contains("spec.s3.serverSideEncryption.kms.keyId sets"), "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_not_delete_makes_an_append_only_store() {
    let from = volume::large();
    let test = Server::shared().await.bucket().await;
    let (deletes, no_manifests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, refuse) = (deletes.clone(), no_manifests.clone());
    let strict = Proxy::start(test.server.port(), move |line, _| {
        if line.starts_with("DELETE") && !line.contains("uploadId=") {
            count.fetch_add(1, Ordering::Relaxed);
            return Fate::Answer("403 Forbidden", denied());
        }
        if refuse.load(Ordering::Relaxed) && line.starts_with("PUT") && line.contains("manifest.json") {
            return Fate::Answer("403 Forbidden", denied());
        }
        Fate::Pass
    });
    let report = run(&probe(test.store_at(strict.endpoint()))).await;
    assert_eq!(report.reason, Reason::CredentialsRejected, "{}", report.message);
    assert!(report.message.contains("set spec.appendOnly: true"), "{}", report.message);
    assert_eq!(deletes.swap(0, Ordering::Relaxed), 1);

    let before = test.keys().await;
    let store = StoreTask { append_only: true, ..test.store_at(strict.endpoint()) };
    for _ in 0..2 {
        let report = run(&probe(store.clone())).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
        assert!(report.message.contains("append-only: it stays"), "{}", report.message);
    }
    let after: Vec<String> = test.keys().await.into_iter().filter(|key| !before.contains(key)).collect();
    assert_eq!(after, ["prod/.holdfast/canary-shop-main"], "one, however often it is probed");
    let report = run(&backup(store.clone(), from.path(), 1)).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);

    // What a failed run has written stays, and is named by no manifest.
    no_manifests.store(true, Ordering::Relaxed);
    let report = run(&backup(store.clone(), from.path(), 2)).await;
    assert_eq!(report.reason, Reason::StoreRefused, "{}", report.message);
    no_manifests.store(false, Ordering::Relaxed);
    let left: Vec<String> = test.keys().await.into_iter().filter(|key| key.contains(&run_id(2))).collect();
    assert!(!left.is_empty() && !left.iter().any(|key| key.contains("manifest")), "{left:?}");
    assert!(test.open_uploads().await.is_empty());

    let all = test.keys().await;
    let retain = RetainTask {
        store: store.clone(),
        scope: scope(),
        retention: RetentionSpec { keep_last: Some(1), ..RetentionSpec::default() },
        time_zone: "UTC".into(),
        known: Vec::new(),
        protected: Vec::new(),
        writers: None,
        limit: 100,
        grace_seconds: 0,
    };
    let delete = DeleteTask { store, scope: scope(), run_id: run_id(1) };
    for task in [Task::Retain(retain), Task::Delete(delete)] {
        let report = run(&task).await;
        assert_eq!(report.reason, Reason::StoreAppendOnly, "{}", report.message);
    }
    assert_eq!((test.keys().await, deletes.load(Ordering::Relaxed)), (all, 0));
}

/// What a node's agent is like before it is up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    /// Nobody listens.
    Away,
    /// It answers 503.
    Busy,
}

/// Hands out the store's keys as the agent of a container's credentials and the node's metadata service do, once it has been up for so long.
fn agent(up: Duration, before: Before) -> u16 {
    let port = port::lasting();
    let listen = move || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let since = Instant::now();
    let early = (before == Before::Busy).then(listen);
    std::thread::spawn(move || {
        let listener = early.unwrap_or_else(|| {
            std::thread::sleep(up);
            listen()
        });
        for client in listener.incoming().flatten() {
            let _ = hand_out(client, since.elapsed() >= up);
        }
    });
    port
}

fn hand_out(mut client: TcpStream, is_up: bool) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let keys = serde_json::json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": "2026-11-21T00:00:00Z",
        "AccessKeyId": KEY_ID,
        "SecretAccessKey": SECRET,
        "Token": "",
        "Expiration": "2099-01-01T00:00:00Z",
    });
    let (status, body) = match head.split_whitespace().nth(1).unwrap_or_default() {
        _ if !is_up => ("503 Service Unavailable", String::new()),
        "/latest/api/token" => ("200 OK\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600", "token".to_owned()),
        path if path.contains("security-credentials-extended") => ("404 Not Found", String::new()),
        path if path.ends_with('/') => ("200 OK", "role".to_owned()),
        _ => ("200 OK", keys.to_string()),
    };
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_handed_out_late_is_waited_for_as_the_store_is() {
    let test = Server::shared().await.bucket().await;
    let patience = StorePatience::of_probe();
    let ambient = StoreTask { credentials: None, patience, ..test.store() };
    let container = |port: u16| vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://127.0.0.1:{port}/keys"))];
    let node = |port: u16| {
        vec![
            ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ]
    };
    let run_with = async |store: &StoreTask, variables: Vec<(&'static str, String)>| {
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let begun = Instant::now();
        (Job::start_with(&probe(store.clone()), &variables).report().await, begun.elapsed())
    };
    // Longer than the SDK tries by itself.
    let up = Duration::from_secs(6);
    for before in [Before::Away, Before::Busy] {
        let (container, node) =
            tokio::join!(run_with(&ambient, container(agent(up, before))), run_with(&ambient, node(agent(up, before))));
        for ((report, took), which) in [(container, "container"), (node, "node")] {
            assert_eq!(report.reason, Reason::Completed, "{which}, {before:?}: {}", report.message);
            assert!(took > up / 2, "{which}, {before:?}: it did not have to wait");
        }
    }

    // One that never comes is told as what it is, in time, and may be tried again.
    let short = StoreTask { patience: StorePatience { unanswered_seconds: 3, ..patience }, ..ambient };
    let never = Duration::from_hours(1);
    let (report, took) = run_with(&short, container(agent(never, Before::Busy))).await;
    assert_eq!(report.reason, Reason::Unreachable, "{}", report.message);
    assert!(report.message.contains("what hands out the identity of the Job's service account"), "{}", report.message);
    assert!(took < Duration::from_secs(30), "{took:?}");
    // Where nobody is asked at all there is nothing to wait for.
    let (report, _) = run_with(&short, Vec::new()).await;
    assert_eq!(report.reason, Reason::CredentialsRejected, "{}", report.message);
}

//! The way into the bucket and back, against a real S3 server, also one that lies, stalls, loses answers or dies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]
#![allow(clippy::items_after_statements, reason = "a stream that only one test needs stands in that test")]
#![allow(clippy::match_bool, clippy::similar_names, reason = "what a proxy does with a request reads best as a table")]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/s3.rs"]
mod s3;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast::engine::{ArtifactMetadata, ArtifactSink, ArtifactSource, Inspect, Inspection};
use holdfast::process::Progress;
use holdfast::store::client::Bucket;
use holdfast::store::encryption::{Identities, Recipients};
use holdfast::store::keys::PolicyFolder;
use holdfast::store::manifest::ArtifactEntry;
use holdfast::task::{Failure, Scope, StorePatience, StoreTask};
use holdfast::worker::pipeline::{Downloads, Ledger, Uploads};
use holdfast_crds::{Reason, S3Spec};
use proxy::{Fate, Proxy, with_body};
use s3::{Server, TestBucket};
use sha2::{Digest, Sha256};

const RUN: &str = "20261121T020000Z-3f9a1c";

fn folder(s3: &S3Spec) -> PolicyFolder {
    let scope =
        Scope { cluster_uid: "c".into(), namespace: "shop".into(), policy: "nightly".into(), policy_uid: "p".into() };
    PolicyFolder::new(s3, &scope)
}

/// Counts and hashes what it is fed.
#[derive(Default)]
struct Watch {
    bytes: usize,
    sha256: Sha256,
    result: Arc<Mutex<Option<(usize, String)>>>,
}

impl Inspect for Watch {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes += bytes.len();
        self.sha256.update(bytes);
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        *self.result.lock().unwrap() = Some((self.bytes, hex(&self.sha256.clone().finalize())));
        Ok(Inspection::default())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        text
    })
}

/// `size` bytes that compress to about half, the same ones each time.
fn content(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut bytes = vec![0; size];
    for piece in bytes.chunks_mut(64) {
        let half = piece.len() / 2;
        random.fill(&mut piece[..half]);
    }
    bytes
}

fn uploads(bucket: &Bucket, store: &S3Spec, level: i32, ledger: &Ledger) -> Uploads {
    let folder = folder(store).run(RUN).source("db");
    Uploads::new(bucket.clone(), folder, "abc123", level, Recipients::default(), Progress::default(), ledger.clone())
}

async fn store(
    bucket: &Bucket,
    s3: &S3Spec,
    level: i32,
    ledger: &Ledger,
    stream: Box<dyn Read + Send>,
) -> Result<ArtifactEntry, Failure> {
    let mut uploads = uploads(bucket, s3, level, ledger);
    uploads.store("shop.pgdump", stream, Box::new(Watch::default()), ArtifactMetadata::default()).await?;
    Ok(uploads.into_entries().remove(0))
}

async fn stored(bucket: &TestBucket, level: i32, bytes: Vec<u8>) -> ArtifactEntry {
    let ledger = Ledger::default();
    store(&bucket.open().await, &bucket.store().s3, level, &ledger, Box::new(io::Cursor::new(bytes))).await.unwrap()
}

/// A target that keeps what it is given and tells whether it was closed.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn fetch(bucket: &Bucket, artifact: &ArtifactEntry) -> (Result<u64, Failure>, Sink) {
    let sink = Sink::default();
    let mut downloads = Downloads::new(bucket.clone(), Identities::default(), Progress::default());
    let result = downloads.fetch(artifact, Box::new(sink.clone()), Box::new(Watch::default())).await;
    (result.map(|(bytes, _)| bytes), sink)
}

/// A stream that gives so many bytes and then breaks off.
struct BreaksOff(usize);

impl Read for BreaksOff {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("broke off"));
        }
        let size = buffer.len().min(self.0);
        fastrand::fill(&mut buffer[..size]);
        self.0 -= size;
        Ok(size)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_begins_again_leaves_one_artifact_and_no_open_upload() {
    let test = Server::shared().await.bucket().await;
    let (bucket, ledger) = (test.open().await, Ledger::default());
    let mut uploads = uploads(&bucket, &test.store().s3, 0, &ledger);
    let mut store = async |name: &str, stream: Box<dyn Read + Send>| {
        uploads.store(name, stream, Box::new(Watch::default()), ArtifactMetadata::default()).await
    };
    store("a.json", Box::new(io::Cursor::new(content(1000)))).await.unwrap();
    // Large enough for several parts, so that an upload is open when it ends.
    store("b.json", Box::new(BreaksOff(40 << 20))).await.unwrap_err();
    for name in ["a.json", "b.json"] {
        store(name, Box::new(io::Cursor::new(content(2000)))).await.unwrap();
    }
    let entries = uploads.into_entries();
    let sizes: Vec<(&str, u64)> = entries.iter().map(|entry| (entry.name.as_str(), entry.stored_bytes)).collect();
    assert_eq!(sizes, [("a.json", 2000), ("b.json", 2000)]);
    assert_eq!((test.open_uploads().await, test.keys().await.len()), (vec![], 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_comes_out_and_stock_tools_can_read_it() {
    let server = Server::shared().await;
    for (size, level) in
        [(0, 3), (1, 3), (100_000, 0), (8 << 20, 0), ((8 << 20) + 1, 0), (30_000_000, 0), (50_000_000, 3)]
    {
        let bucket = server.bucket().await;
        let bytes = content(size);
        let entry = stored(&bucket, level, bytes.clone()).await;
        let ending = if level == 0 { "" } else { ".zst" };
        assert_eq!(entry.key, format!("prod/shop/nightly/{RUN}/db/shop-abc123.pgdump{ending}"));
        assert_eq!(entry.source_bytes, size as u64);

        let object = bucket.get(&entry.key).await;
        assert_eq!((entry.stored_bytes, &entry.stored_sha256), (object.len() as u64, &hex(&Sha256::digest(&object))));
        let plain = if level == 0 { object.to_vec() } else { zstd::decode_all(&object[..]).unwrap() };
        assert!(plain == bytes, "{size} bytes at level {level}");
        assert_eq!(bucket.open_uploads().await, Vec::<String>::new());

        let (fetched, sink) = fetch(&bucket.open().await, &entry).await;
        assert_eq!(fetched, Ok(size as u64));
        assert!(sink.bytes() == bytes, "{size} bytes at level {level}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_looked_at_written_read_and_deleted() {
    let test = Server::shared().await.bucket().await;
    let bucket = test.open().await;
    assert_eq!(bucket.head("prod/a").await, Ok(None));
    assert_eq!(bucket.get("prod/a", 10).await, Ok(None));
    assert_eq!(bucket.delete("prod/a").await, Ok(()));
    assert_eq!(bucket.put("prod/a", Bytes::from_static(b"0123456789")).await, Ok(()));
    assert_eq!(bucket.head("prod/a").await, Ok(Some(10)));
    assert_eq!(bucket.get("prod/a", 10).await, Ok(Some(Bytes::from_static(b"0123456789"))));
    assert_eq!(bucket.get("prod/a", 9).await.unwrap_err().reason, Reason::ChecksumMismatch);
    let mut body = bucket.open_read("prod/a", 7).await.unwrap();
    assert_eq!(body.next().await, Ok(Some(Bytes::from_static(b"789"))));
    assert_eq!(body.next().await, Ok(None));
    assert_eq!(bucket.open_read("prod/b", 0).await.unwrap_err().reason, Reason::ChecksumMismatch);
    assert_eq!(bucket.open_read("prod/a", 11).await.unwrap_err().reason, Reason::ChecksumMismatch);
    assert_eq!(bucket.delete("prod/a").await, Ok(()));
    assert_eq!(bucket.head("prod/a").await, Ok(None));
    assert_eq!(bucket.abort_upload("prod/a", "0123456789abcdef0123456789abcdef").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_followed_to_the_last_page() {
    let test = Server::shared().await.bucket().await;
    // More than one page of 1000, and names that folders and bytes order differently.
    let keys: Vec<String> =
        (0..1010).map(|i| format!("p/db/{i:04}")).chain(["p/db-2/a".into(), "p/db.a/b".into()]).collect();
    for chunk in keys.chunks(50) {
        futures::future::join_all(chunk.iter().map(|key| test.put(key, "x"))).await;
    }
    test.put("p2/db/x", "x").await;
    let mut listed: Vec<String> = test.open().await.list("p/").await.unwrap().into_iter().map(|o| o.key).collect();
    listed.sort();
    let mut wanted = keys;
    wanted.sort();
    assert_eq!(listed, wanted);
    assert_eq!(test.open().await.list("nothing/").await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_missing_buckets_are_told_apart_and_not_tried_again() {
    let test = Server::shared().await.bucket().await;
    let start = Instant::now();
    for (id, secret) in [(s3::KEY_ID, "wrong"), ("wrong", s3::SECRET)] {
        test.write_credentials(id, secret);
        let bucket = test.open().await;
        for failure in [
            bucket.put("prod/a", Bytes::new()).await.unwrap_err(),
            bucket.list("prod/").await.unwrap_err(),
            bucket.get("prod/a", 10).await.unwrap_err(),
            bucket.head("prod/a").await.unwrap_err(),
            bucket.create_upload("prod/a").await.unwrap_err(),
        ] {
            assert_eq!(failure.reason, Reason::CredentialsRejected, "{failure}");
            assert!(failure.message.contains(&test.name) && !failure.message.contains(s3::SECRET), "{failure}");
        }
    }
    test.write_credentials(s3::KEY_ID, s3::SECRET);
    let mut missing = test.store();
    missing.s3.bucket = "there-is-none".into();
    let bucket = Bucket::open(&missing).await.unwrap();
    for failure in [bucket.put("prod/a", Bytes::new()).await.unwrap_err(), bucket.list("prod/").await.unwrap_err()] {
        assert_eq!(failure.reason, Reason::BucketNotFound, "{failure}");
    }
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_may_not_be_deleted_is_told_as_that() {
    let test = Server::shared().await.bucket().await;
    let locked = Proxy::start(test.server.port(), |line, _| match line.starts_with("DELETE") {
        true => Fate::Answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>".into()),
        false => Fate::Pass,
    });
    let bucket = Bucket::open(&test.store_at(locked.endpoint())).await.unwrap();
    bucket.put("prod/a", Bytes::from_static(b"x")).await.unwrap();
    let failure = bucket.delete("prod/a").await.unwrap_err();
    assert_eq!(failure.reason, Reason::CredentialsRejected, "{failure}");
    assert!(failure.message.contains("prod/a") && failure.message.contains("the object is locked"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_credentials_are_picked_up() {
    let test = Server::shared().await.bucket().await;
    test.write_credentials(s3::KEY_ID, "of yesterday");
    let bucket = test.open().await;
    assert_eq!(bucket.put("prod/a", Bytes::new()).await.unwrap_err().reason, Reason::CredentialsRejected);
    test.write_credentials(s3::KEY_ID, &format!("{}\n", s3::SECRET));
    assert_eq!(bucket.put("prod/a", Bytes::new()).await, Ok(()));
    // A rotation that is under way: the store has the new key before the files have.
    test.write_credentials(s3::KEY_ID, "of yesterday");
    let (put, ()) = tokio::join!(bucket.put("prod/b", Bytes::new()), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        test.write_credentials(s3::KEY_ID, s3::SECRET);
    });
    assert_eq!(put, Ok(()));
}

/// A stream that does something after some bytes, and then goes on for ever.
struct Endless<F: FnMut() + Send> {
    left: usize,
    then: Option<F>,
}

impl<F: FnMut() + Send> Read for Endless<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.left.checked_sub(buffer.len()) {
            Some(left) => self.left = left,
            None => {
                if let Some(mut then) = self.then.take() {
                    then();
                }
            }
        }
        fastrand::fill(buffer);
        Ok(buffer.len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_the_middle_ends_the_upload_with_its_reason_in_time() {
    let server = Arc::new(Server::start().await);
    let test = server.bucket().await;
    let start = Instant::now();
    let killer = server.clone();
    let stream = Endless { left: 20 << 20, then: Some(move || killer.kill()) };
    let ledger = Ledger::default();
    let patience = StorePatience { answered_seconds: 10, ..StorePatience::default() };
    let bucket = Bucket::open(&StoreTask { patience, ..test.store() }).await.unwrap();
    let failure = store(&bucket, &test.store().s3, 0, &ledger, Box::new(stream)).await.unwrap_err();
    assert_eq!(failure.reason, Reason::StoreUnreachable, "{failure}");
    assert!(failure.message.contains("main") && failure.message.contains(&test.name), "{failure}");
    assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
    assert!(!ledger.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_counts_as_gone() {
    let test = Server::shared().await.bucket().await;
    let proxy = Proxy::start(test.server.port(), |_, _| Fate::Hang);
    let bucket = Bucket::open(&test.store_at(proxy.endpoint())).await.unwrap();
    let start = Instant::now();
    let (put, list) = tokio::join!(bucket.put("prod/a", content(3 << 20).into()), bucket.list("prod/"));
    assert_eq!(put.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(list.unwrap_err().reason, Reason::StoreUnreachable);
    assert!(start.elapsed() < Duration::from_secs(110), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_fails_or_is_cut_short_leaves_nothing_in_the_bucket() {
    let test = Server::shared().await.bucket().await;
    let bucket = test.open().await;
    let ledger = Ledger::default();

    // One artifact that is complete, and then one whose stream breaks off.
    store(&bucket, &test.store().s3, 3, &ledger, Box::new(io::Cursor::new(content(1000)))).await.unwrap();
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(buffer.len()).ok_or_else(|| io::Error::other("the dump is gone"))?;
            fastrand::fill(buffer);
            Ok(buffer.len())
        }
    }
    let failure = store(&bucket, &test.store().s3, 0, &ledger, Box::new(Broken(20 << 20))).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceIncomplete, "{failure}");
    assert_eq!(test.open_uploads().await.len(), 1, "it is the ledger that closes it");
    ledger.undo(&bucket).await.unwrap();
    assert_eq!((test.keys().await, test.open_uploads().await), (vec![], vec![]));

    // One whose future is dropped at some point of its way.
    for bytes in [0, 1 << 20, 20 << 20] {
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut tell = Some(tell);
        let stream = Endless {
            left: bytes,
            then: Some(move || {
                let _ = tell.take().map(|t| t.send(()));
            }),
        };
        let s3 = test.store().s3;
        tokio::select! {
            result = store(&bucket, &s3, 0, &ledger, Box::new(stream)) => panic!("{result:?}"),
            told = told => told.unwrap(),
        }
        ledger.undo(&bucket).await.unwrap();
        assert_eq!((test.keys().await, test.open_uploads().await), (vec![], vec![]), "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_in_the_bucket_is_found_before_the_target_has_its_last_bytes() {
    let test = Server::shared().await.bucket().await;
    let bytes = content(3_000_000);
    for level in [0, 3] {
        let entry = stored(&test, level, bytes.clone()).await;
        let object = test.get(&entry.key).await.to_vec();
        let flipped = |at: usize| {
            let mut changed = object.clone();
            changed[at] ^= 1;
            changed
        };
        for (what, changed) in [
            ("a bit of the first byte", flipped(0)),
            ("a bit in the middle", flipped(object.len() / 2)),
            ("a bit of the last byte", flipped(object.len() - 1)),
            ("the end is missing", object[..object.len() - 1].to_vec()),
            ("half is missing", object[..object.len() / 2].to_vec()),
            ("all is missing", Vec::new()),
            ("more at the end", [object.as_slice(), b"x"].concat()),
            ("twice", [object.as_slice(), object.as_slice()].concat()),
        ] {
            test.put(&entry.key, changed).await;
            let (result, sink) = fetch(&test.open().await, &entry).await;
            let failure = result.unwrap_err();
            assert_eq!(failure.reason, Reason::ChecksumMismatch, "{what} at level {level}: {failure}");
            assert!(failure.message.contains(&entry.key), "{failure}");
            assert!(sink.bytes().len() < bytes.len(), "{what} at level {level}: the target has everything");
        }
        test.put(&entry.key, object).await;
        assert_eq!(fetch(&test.open().await, &entry).await.0, Ok(bytes.len() as u64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_break_off_are_taken_up_again_where_they_did() {
    let test = Server::shared().await.bucket().await;
    let bytes = content(9_000_000);
    let entry = stored(&test, 0, bytes.clone()).await;
    let reads = Arc::new(AtomicUsize::new(0));
    let seen = reads.clone();
    let proxy = Proxy::start(test.server.port(), move |line, _| match line.starts_with("GET") {
        true if seen.fetch_add(1, Ordering::Relaxed) < 4 => Fate::CutAfter(2_000_000),
        _ => Fate::Pass,
    });
    let bucket = Bucket::open(&test.store_at(proxy.endpoint())).await.unwrap();
    let (result, sink) = fetch(&bucket, &entry).await;
    assert_eq!(result, Ok(bytes.len() as u64));
    assert!(sink.bytes() == bytes);
    assert_eq!(reads.load(Ordering::Relaxed), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_unpacks_to_more_than_the_manifest_says_is_stopped_there() {
    let test = Server::shared().await.bucket().await;
    let bytes = content(3_000_000);
    // 256 MiB of nothing after it, in some ten KiB; the manifest knows of what is stored and not of what is in it.
    let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    bomb.write_all(&bytes).unwrap();
    io::copy(&mut io::repeat(0).take(256 << 20), &mut bomb).unwrap();
    let bomb = bomb.finish().unwrap();
    let mut entry = stored(&test, 3, bytes.clone()).await;
    (entry.stored_bytes, entry.stored_sha256) = (bomb.len() as u64, hex(&Sha256::digest(&bomb)));
    test.put(&entry.key, bomb).await;
    let fed = Watch::default();
    let (sink, seen) = (Sink::default(), fed.result.clone());
    let mut downloads = Downloads::new(test.open().await, Identities::default(), Progress::default());
    let failure = downloads.fetch(&entry, Box::new(sink.clone()), Box::new(fed)).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ChecksumMismatch, "{failure}");
    assert!(failure.message.contains(&entry.key) && failure.message.contains("3000000 bytes"), "{failure}");
    assert!(sink.bytes().len() < bytes.len() && seen.lock().unwrap().is_none(), "the target has everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_goes_away_is_not_the_stores_failure() {
    let test = Server::shared().await.bucket().await;
    let entry = stored(&test, 3, content(3_000_000)).await;
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut downloads = Downloads::new(test.open().await, Identities::default(), Progress::default());
    let failure = downloads.fetch(&entry, Box::new(Gone), Box::new(Watch::default())).await.unwrap_err();
    assert_eq!(failure.reason, Reason::RestoreFailed, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_do_no_harm() {
    let test = Server::shared().await.bucket().await;
    let proxy = Proxy::start(test.server.port(), |_, before| match before % 5 {
        0 => Fate::Answer("503 Slow Down", "<Error><Code>SlowDown</Code></Error>".into()),
        // The server has done it and its answer is lost.
        1 => Fate::CutAfter(0),
        2 => Fate::Answer("500 Internal Server Error", String::new()),
        _ => Fate::Pass,
    });
    let bucket = Bucket::open(&test.store_at(proxy.endpoint())).await.unwrap();
    let bytes = content(30_000_000);
    let ledger = Ledger::default();
    let stream = Box::new(io::Cursor::new(bytes.clone()));
    let entry = store(&bucket, &test.store().s3, 0, &ledger, stream).await.unwrap();
    assert!(test.get(&entry.key).await == bytes);
    assert_eq!(fetch(&bucket, &entry).await.0, Ok(bytes.len() as u64));
    ledger.undo(&bucket).await.unwrap();
    assert_eq!((test.keys().await, test.open_uploads().await), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_completed_in_words_alone_is_none() {
    let test = Server::shared().await.bucket().await;
    let error =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidPart</Code><Message>no</Message></Error>";
    for body in [error, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code></Error>"] {
        let proxy = Proxy::start(test.server.port(), move |line, _| {
            if line.starts_with("POST") && line.contains("uploadId=") {
                Fate::Answer("200 OK", body.into())
            } else {
                Fate::Pass
            }
        });
        let patience = StorePatience { answered_seconds: 3, ..StorePatience::default() };
        let store_task = StoreTask { patience, ..test.store_at(proxy.endpoint()) };
        let bucket = Bucket::open(&store_task).await.unwrap();
        let ledger = Ledger::default();
        let stream = Box::new(io::Cursor::new(content(9 << 20)));
        let failure = store(&bucket, &test.store().s3, 0, &ledger, stream).await.unwrap_err();
        assert!([Reason::StoreRefused, Reason::StoreUnreachable].contains(&failure.reason), "{failure}");
        ledger.undo(&test.open().await).await.unwrap();
        assert_eq!((test.keys().await, test.open_uploads().await), (vec![], vec![]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_stored_short_is_found_before_the_manifest_is_written() {
    let test = Server::shared().await.bucket().await;
    let proxy = Proxy::start(test.server.port(), |line, _| match line.starts_with("HEAD") {
        true => Fate::Alter(Box::new(|answer| {
            String::from_utf8(answer).unwrap().replace("Content-Length: 1000", "Content-Length: 999").into_bytes()
        })),
        false => Fate::Pass,
    });
    let bucket = Bucket::open(&test.store_at(proxy.endpoint())).await.unwrap();
    let stream = Box::new(io::Cursor::new(content(1000)));
    let failure = store(&bucket, &test.store().s3, 0, &Ledger::default(), stream).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ChecksumMismatch, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_that_lie_are_found_out() {
    type Lie = fn(String) -> String;
    let lies: [(&str, Lie); 5] = [
        ("more, but not where", |xml| xml.replace("<IsTruncated>false", "<IsTruncated>true")),
        ("the same page again and again", |xml| {
            xml.replace("<IsTruncated>false", "<IsTruncated>true").replace(
                "</ListBucketResult>",
                "<NextContinuationToken>again</NextContinuationToken></ListBucketResult>",
            )
        }),
        ("another prefix", |xml| xml.replace("<Key>prod/b", "<Key>test/b")),
        ("no order", |xml| xml.replace("<Key>prod/a", "<Key>prod/z")),
        ("fewer than counted", |xml| xml.replacen("<KeyCount>3", "<KeyCount>4", 1)),
    ];
    let test = Server::shared().await.bucket().await;
    for key in ["prod/a", "prod/b", "prod/c"] {
        test.put(key, "x").await;
    }
    for (what, lie) in lies {
        let proxy = Proxy::start(test.server.port(), move |_, _| {
            Fate::Alter(Box::new(move |answer| {
                with_body(&answer, |xml| {
                    let changed = lie(xml.clone());
                    assert_ne!(changed, xml, "the server's answer is not as the test has it: {xml}");
                    changed
                })
            }))
        });
        let bucket = Bucket::open(&test.store_at(proxy.endpoint())).await.unwrap();
        let failure = bucket.list("prod/").await.expect_err(what);
        assert_eq!(failure.reason, Reason::ListIncomplete, "{what}: {failure}");
    }
    assert_eq!(test.open().await.list("prod/").await.unwrap().len(), 3);
}

//! Answers that are none of a store's, or say less than they seem to, by the program as a Job runs it. Against a real S3 server behind a proxy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/job.rs"]
mod job;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/runs.rs"]
mod runs;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/volume.rs"]
mod volume;

use bytes::Bytes;
use holdfast::store::client::Bucket;
use holdfast::task::{
    CatalogueTask, DeleteTask, KnownRun, Outcome, ProbeTask, Report, RestoreTarget, RetainTask, Select, StorePatience,
    StoreTask, Target, Task, VerifyTask,
};
use holdfast_crds::{OnExisting, Reason, RetentionSpec, Retry, Source};
use job::{backup_on, folder, probe, run, run_id, scope};
use proxy::{Fate, Proxy, with_body};
use runs::put_run;
use s3::{Server, TestBucket};

const LOGIN: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form></form></body></html>";
const PAGE: &str = "200 OK\r\nContent-Type: text/html";
/// A page that a web server has on its disk.
const PAGE_WITH_ETAG: &str = "200 OK\r\nContent-Type: text/html\r\nETag: \"5f-264\"";
const EMPTY: &str = "<?xml version=\"1.0\"?><ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>";

/// Which requests are answered by a page.
type Which = fn(&str) -> bool;

fn error(code: &str, message: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>")
}

fn is_list(line: &str) -> bool {
    line.contains("list-type=2")
}

/// The object that a request is about, without the bucket.
fn object_of(line: &str) -> &str {
    let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key)
}

/// A proxy that answers by itself what it is told to.
fn answering(
    test: &TestBucket,
    status: &'static str,
    body: &str,
    which: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Proxy {
    let body = body.to_owned();
    Proxy::start(
        test.server.port(),
        move |line, _| {
            if which(line) { Fate::Answer(status, body.clone()) } else { Fate::Pass }
        },
    )
}

/// A folder that is saved, and an empty one.
struct Scene {
    test: TestBucket,
    from: tempfile::TempDir,
    to: tempfile::TempDir,
}

impl Scene {
    /// With files of so many random bytes in all.
    async fn new(bytes: usize) -> Self {
        let test = Server::shared().await.bucket().await;
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut content = vec![0; bytes];
        fastrand::fill(&mut content);
        volume::write(from.path(), &[("a/one", b"1"), ("two", &content)]);
        Self { test, from, to }
    }

    /// The bucket at another endpoint, for a worker that does not wait long.
    fn at(&self, endpoint: String) -> StoreTask {
        let patience = StorePatience { answered_seconds: 2, unanswered_seconds: 1, ..StorePatience::default() };
        StoreTask { patience, ..self.test.store_at(endpoint) }
    }

    fn behind(&self, proxy: &Proxy) -> StoreTask {
        self.at(proxy.endpoint())
    }

    fn backup(&self, store: StoreTask, day: u32) -> Task {
        let source = Source { name: "db".into(), volume: Some(volume::source()), ..Source::default() };
        Task::Backup(Box::new(backup_on(day, store, source, volume::mounts(self.from.path()))))
    }

    async fn save(&self, day: u32) {
        let report = run(&self.backup(self.test.store(), day)).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    }

    fn restore(&self, store: StoreTask, select: Select) -> Task {
        let server = Target::Volume(volume::target());
        let target = RestoreTarget { source: "db".into(), mounts: volume::mounts(self.to.path()), server };
        Task::Restore(Box::new(job::restore(store, select, target, OnExisting::Fail)))
    }

    fn is_untouched(&self) -> bool {
        std::fs::read_dir(self.to.path()).unwrap().next().is_none()
    }

    fn is_restored(&self) -> bool {
        std::fs::read(self.to.path().join("a/one")).is_ok_and(|one| one == b"1")
    }
}

fn verify(store: StoreTask, day: u32, sources: &[&str]) -> Task {
    Task::Verify(VerifyTask {
        store,
        scope: scope(),
        run_id: run_id(day),
        sources: sources.iter().map(ToString::to_string).collect(),
        timeout_seconds: 120,
        idle_timeout_seconds: 60,
    })
}

fn retain(store: StoreTask, known: Vec<KnownRun>) -> Task {
    Task::Retain(RetainTask {
        store,
        scope: scope(),
        retention: RetentionSpec { keep_last: Some(1), ..RetentionSpec::default() },
        time_zone: "UTC".into(),
        known,
        protected: vec![],
        writers: None,
        limit: 100,
        grace_seconds: 0,
    })
}

fn delete(store: StoreTask, day: u32) -> Task {
    Task::Delete(DeleteTask { store, scope: scope(), run_id: run_id(day) })
}

fn catalogue(store: StoreTask, expected: &[u32]) -> Task {
    let expected = expected.iter().map(|day| format!("{}/db", run_id(*day))).collect();
    Task::Catalogue(CatalogueTask { store, scope: scope(), known: vec![], expected, own: true, limit: 50 })
}

fn newest(store: StoreTask, day: u32) -> Task {
    Task::Probe(ProbeTask { store, namespace: "shop".into(), newest: vec![format!("nightly/{}/db", run_id(day))] })
}

/// That no store has answered, and nothing else.
fn is_of_no_store(what: &str, report: &Report) {
    assert_eq!(report.reason, Reason::StoreRefused, "{what}: {}", report.message);
    assert!(report.message.contains("does not answer as an S3 service"), "{what}: {}", report.message);
    for wrong in ["damaged", "not a manifest", "carried out before", "holds nothing", "take another"] {
        assert!(!report.message.contains(wrong), "{what}: {}", report.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_that_names_no_object_is_no_absence() {
    let scene = Scene::new(1000).await;
    scene.save(21).await;
    let keys = scene.test.keys().await;
    let manifest = keys.iter().find(|key| key.ends_with("manifest.json")).unwrap().as_str();
    for (status, body) in [
        ("404 Not Found", error("XAdminUserNotFound", "no such user")),
        ("404 Not Found\r\nContent-Type: text/html", "<html>no such route</html>".into()),
        ("404 Not Found", String::new()),
    ] {
        let objects = answering(&scene.test, status, &body, |line| !is_list(line));
        is_of_no_store("verify", &run(&verify(scene.behind(&objects), 21, &["db"])).await);
        let bucket = Bucket::open(&scene.behind(&objects)).await.unwrap();
        for failure in [
            bucket.head(manifest).await.unwrap_err(),
            bucket.get(manifest, 1 << 20).await.unwrap_err(),
            bucket.open_read(manifest, 0).await.map(drop).unwrap_err(),
            bucket.delete(manifest).await.unwrap_err(),
            bucket.abort_upload(manifest, "0123456789abcdef0123456789abcdef").await.unwrap_err(),
        ] {
            assert_eq!(failure.reason, Reason::StoreRefused, "{body}: {failure}");
        }
        let all = answering(&scene.test, status, &body, |_| true);
        is_of_no_store("restore", &run(&scene.restore(scene.behind(&all), Select::At(None))).await);
        is_of_no_store("retention", &run(&retain(scene.behind(&all), vec![])).await);
    }
    // HEAD alone is answered so: it has no body, and so cannot say of what.
    let heads = answering(&scene.test, "404 Not Found", "", |line| line.starts_with("HEAD"));
    let bucket = Bucket::open(&scene.behind(&heads)).await.unwrap();
    let size = u64::try_from(scene.test.get(manifest).await.len()).unwrap();
    assert_eq!(bucket.head(manifest).await, Ok(Some(size)));
    assert_eq!(bucket.head("prod/none").await, Ok(None));
    assert!(scene.is_untouched() && scene.test.keys().await == keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_stores_place_is_told_as_that_whatever_was_asked() {
    let scene = Scene::new(20 << 20).await;
    scene.save(21).await;
    put_run(&scene.test, &scope(), &run_id(1), "db", &["db"]).await;
    let keys = scene.test.keys().await;
    let objects: Which = |line| line.starts_with("GET") && !is_list(line);
    let all: Which = |_| true;
    for page in [PAGE, PAGE_WITH_ETAG] {
        for (what, which) in [("objects", objects), ("everything", all)] {
            let proxy = answering(&scene.test, page, LOGIN, which);
            is_of_no_store(what, &run(&verify(scene.behind(&proxy), 21, &["db"])).await);
            is_of_no_store(what, &run(&scene.restore(scene.behind(&proxy), Select::At(None))).await);
            is_of_no_store(what, &run(&scene.backup(scene.behind(&proxy), 22)).await);
        }
    }
    let cases: [(&str, Which); 6] = [
        ("heads", |line| line.starts_with("HEAD")),
        ("listings", is_list),
        ("single writes", |line| line.starts_with("PUT") && !line.contains("partNumber")),
        ("parts", |line| line.starts_with("PUT") && line.contains("partNumber")),
        ("begun uploads", |line| line.starts_with("POST") && line.contains("?uploads")),
        ("completed uploads", |line| line.starts_with("POST") && line.contains("uploadId=")),
    ];
    for (n, (what, which)) in cases.into_iter().enumerate() {
        let proxy = answering(&scene.test, PAGE, LOGIN, which);
        let task = match what {
            // A backup lists nothing.
            "listings" => scene.restore(scene.behind(&proxy), Select::At(None)),
            _ => scene.backup(scene.behind(&proxy), 10 + u32::try_from(n).unwrap()),
        };
        let report = run(&task).await;
        is_of_no_store(what, &report);
        if which("PUT /b/k?partNumber=1&uploadId=1 HTTP/1.1") || is_list(what) {
            assert!(report.message.contains("Sign in"), "{what}: {}", report.message);
        }
    }
    // What was not deleted is not told as that.
    let deletions = answering(&scene.test, PAGE, LOGIN, |line| line.starts_with("DELETE"));
    is_of_no_store("retention", &run(&retain(scene.behind(&deletions), vec![])).await);
    is_of_no_store("deletion", &run(&delete(scene.behind(&deletions), 1)).await);
    let report = run(&probe(scene.behind(&answering(&scene.test, PAGE, LOGIN, all)))).await;
    is_of_no_store("probe", &report);
    let manifests = |keys: &[String]| keys.iter().filter(|key| key.ends_with("manifest.json")).count();
    assert_eq!(manifests(&scene.test.keys().await), manifests(&keys), "nothing was committed, and nothing deleted");
    assert!(scene.is_untouched());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_passes_costs_neither_a_backup_nor_a_restore() {
    let scene = Scene::new(20 << 20).await;
    // An ingress that reads its configuration anew, before a store that has answered.
    let restarting = || {
        Proxy::start(scene.test.server.port(), |_, before| match before % 4 {
            1 => Fate::Answer("404 Not Found\r\nContent-Type: text/html", "<html>default backend</html>".into()),
            2 => Fate::Answer(PAGE, LOGIN.into()),
            _ => Fate::Pass,
        })
    };
    let (one, other) = (restarting(), restarting());
    for task in [
        scene.backup(scene.test.store_at(one.endpoint()), 21),
        scene.restore(scene.test.store_at(other.endpoint()), Select::At(None)),
    ] {
        let report = run(&task).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    }
    assert!(scene.is_restored());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_manifest_that_cannot_be_read_is_named_and_the_others_work() {
    let scene = Scene::new(1000).await;
    scene.save(1).await;
    let of = |day| folder(&scene.test.store()).run(&run_id(day)).source("db");
    for day in [2, 3, 4, 5] {
        put_run(&scene.test, &scope(), &run_id(day), "db", &["db"]).await;
    }
    scene.test.put(&of(3).manifest(), "{\"formatVersion\": 9}").await;
    scene.test.put(&of(4).manifest(), "junk").await;
    scene.test.put(&of(5).manifest(), vec![b' '; (16 << 20) + 1]).await;
    let keys = scene.test.keys().await;
    let archived = of(2).manifest();
    let is_archived = move |line: &str| line.starts_with("GET") && object_of(line) == archived;
    let body = "<?xml version=\"1.0\"?><Error><Code>InvalidObjectState</Code><Message>The operation is not valid for the \
                object's storage class</Message><StorageClass>DEEP_ARCHIVE</StorageClass></Error>";
    let proxy = answering(&scene.test, "403 Forbidden", body, is_archived);

    let report = run(&catalogue(scene.behind(&proxy), &[1, 2])).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    for words in [&of(2).manifest(), "storage class is DEEP_ARCHIVE", "restore-object", "3 more like it"] {
        assert!(report.message.contains(words), "{words}: {}", report.message);
    }
    let Some(Outcome::Catalogue(told)) = &report.outcome else { panic!("{report:?}") };
    assert_eq!(told.runs.iter().map(|found| found.run_id.clone()).collect::<Vec<_>>(), [run_id(1)]);
    assert!(told.gone.is_empty() && told.there.iter().any(|span| span.has(&run_id(1))), "{told:?}");

    // It may be asked for by its name, be read with others, and be deleted.
    let report = run(&scene.restore(scene.behind(&proxy), Select::RunId(run_id(2)))).await;
    assert_eq!(report.reason, Reason::NoMatchingBackup, "{}", report.message);
    assert!(report.message.contains("storage class is DEEP_ARCHIVE"), "{}", report.message);
    for day in [2, 4] {
        let report = run(&delete(scene.behind(&proxy), day)).await;
        assert_eq!(report.reason, Reason::ListIncomplete, "{}", report.message);
        assert!(report.message.contains(&of(day).manifest()), "{}", report.message);
    }
    let report = run(&retain(scene.behind(&proxy), vec![])).await;
    assert_eq!(report.reason, Reason::ListIncomplete, "{}", report.message);
    assert!(report.message.contains("storage class is DEEP_ARCHIVE"), "{}", report.message);
    let report = run(&verify(scene.behind(&proxy), 2, &["db"])).await;
    assert_eq!(report.reason, Reason::InvalidConfiguration, "{}", report.message);
    assert!(report.message.contains("could not be verified") && report.message.contains("DEEP_ARCHIVE"));
    assert_eq!(scene.test.keys().await, keys);

    // Who asks for the newest gets the newest that can be read, and is told what was passed over.
    let report = run(&scene.restore(scene.behind(&proxy), Select::At(None))).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert!(report.message.contains("passed over: ") && report.message.contains("3 more"), "{}", report.message);
    assert!(scene.is_restored());
    let one_day = Select::At(Some("2026-11-01T12:00:00Z".parse().unwrap()));
    let scene = Scene { to: tempfile::tempdir().unwrap(), ..scene };
    let report = run(&scene.restore(scene.behind(&proxy), one_day)).await;
    assert!(report.reason == Reason::Completed && !report.message.contains("passed over"), "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_in_an_archive_is_found_before_anything_is_touched() {
    let scene = Scene::new(1000).await;
    scene.save(21).await;
    let with = |headers: &'static str| {
        Proxy::start(scene.test.server.port(), move |line, _| {
            if !line.contains(".tar") {
                return Fate::Pass;
            }
            if !line.starts_with("HEAD") {
                let is_back = headers.contains("false") || headers.contains("pool");
                let kept = error("InvalidObjectState", "The operation is not valid for the object's storage class");
                return if is_back { Fate::Pass } else { Fate::Answer("403 Forbidden", kept) };
            }
            Fate::Alter(Box::new(move |answer| {
                String::from_utf8(answer).unwrap().replacen("\r\n", &format!("\r\n{headers}\r\n"), 1).into_bytes()
            }))
        })
    };
    let glacier = with("x-amz-storage-class: GLACIER");
    let coming = with("x-amz-storage-class: GLACIER\r\nx-amz-restore: ongoing-request=\"true\"");
    let tiering = with("x-amz-storage-class: INTELLIGENT_TIERING\r\nx-amz-archive-status: ARCHIVE_ACCESS");
    for (proxy, words) in [(&glacier, "GLACIER"), (&coming, "is being brought back"), (&tiering, "ARCHIVE_ACCESS")] {
        let report = run(&scene.restore(scene.behind(proxy), Select::At(None))).await;
        assert_eq!(report.reason, Reason::InvalidConfiguration, "{}", report.message);
        assert!(report.message.contains(words) && report.message.contains("nothing was touched"), "{}", report.message);
        let report = run(&verify(scene.behind(proxy), 21, &["db"])).await;
        assert!(report.message.contains(words) && !report.message.contains("damaged"), "{}", report.message);
    }
    assert!(scene.is_untouched());
    let back = with("x-amz-storage-class: GLACIER\r\nx-amz-restore: ongoing-request=\"false\", expiry-date=\"Fri\"");
    let report = run(&scene.restore(scene.behind(&back), Select::At(None))).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert!(scene.is_restored());
    // Of a service whose classes are pools with names of their own.
    let pool = with("x-amz-storage-class: GLACIER\r\nx-of: pool");
    let report = run(&verify(scene.behind(&pool), 21, &["db"])).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_store_has_forgotten_is_made_again() {
    let scene = Scene::new(20 << 20).await;
    let forgotten = error("NoSuchUpload", "The specified upload does not exist");
    let part = |line: &str| line.contains("partNumber=2&");
    let completion = |line: &str| line.starts_with("POST") && line.contains("uploadId=");
    for proxy in [
        answering(&scene.test, "404 Not Found", &forgotten, part),
        answering(&scene.test, "404 Not Found", &forgotten, completion),
    ] {
        let report = run(&scene.backup(scene.behind(&proxy), 21)).await;
        assert_eq!((report.reason, report.reason.retry()), (Reason::StoreUnreachable, Retry::Again), "{report:?}");
        assert!(report.message.contains("NoSuchUpload") && report.message.contains("24 h"), "{}", report.message);
        assert!(!scene.test.keys().await.iter().any(|key| key.ends_with("manifest.json") || key.contains(".tar")));
        assert_eq!(scene.test.open_uploads().await, [""; 0]);
    }
    // The next attempt stores it.
    scene.save(21).await;

    // An object that was there before is not what a forgotten upload has become.
    let proxy = answering(&scene.test, "404 Not Found", &forgotten, completion);
    let bucket = Bucket::open(&scene.behind(&proxy)).await.unwrap();
    bucket.put("prod/a", Bytes::from_static(b"of an earlier try")).await.unwrap();
    let upload = bucket.create_upload("prod/a").await.unwrap();
    let part = bucket.upload_part("prod/a", &upload, 1, Bytes::from_static(b"of this one")).await.unwrap();
    let failure = bucket.complete_upload("prod/a", &upload, vec![part]).await.unwrap_err();
    assert_eq!(failure.reason, Reason::StoreUnreachable, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_is_told_so_though_other_parts_stand_still() {
    let scene = Scene::new(30 << 20).await;
    // As Garage does: of the parts in flight one is told.
    let full = Proxy::start(scene.test.server.port(), |line, _| {
        if line.contains("partNumber=1&") {
            let words = error("ServiceUnavailable", "Internal error: IO error: No space left on device (os error 28)");
            return Fate::Answer("503 Service Unavailable", words);
        }
        if line.contains("partNumber=") { Fate::Hang } else { Fate::Pass }
    });
    let patience = StorePatience { answered_seconds: 3, unanswered_seconds: 3, still_seconds: 2 };
    let store = StoreTask { patience, ..scene.behind(&full) };
    let report = run(&scene.backup(store, 21)).await;
    assert_eq!(report.reason, Reason::NoSpace, "{}", report.message);
    for words in ["No space left on device", "the store is full"] {
        assert!(report.message.contains(words), "{words}: {}", report.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_region_is_told_with_the_right_one() {
    let scene = Scene::new(10).await;
    for (words, region) in [
        (
            "Authorization header malformed, unexpected scope: `20261130/us-east-1/s3/aws4_request`, expected: `20261130/garage/s3/aws4_request`",
            "garage",
        ),
        (
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'",
            "eu-central-1",
        ),
    ] {
        let body = error("AuthorizationHeaderMalformed", words);
        let proxy = answering(&scene.test, "400 Bad Request", &body, |_| true);
        let report = run(&probe(scene.behind(&proxy))).await;
        assert_eq!(report.reason, Reason::StoreRefused, "{}", report.message);
        let advice = format!("spec.s3.region (us-east-1): write {region} there");
        assert!(report.message.contains(&advice), "{}", report.message);
        assert!(!report.message.contains("AWS_ACCESS_KEY_ID"), "{}", report.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_the_condition_of_a_write_is_told_by_its_probe() {
    let scene = Scene::new(10).await;
    let told = async |store: StoreTask| {
        let report = run(&probe(store)).await;
        assert_eq!(report.reason, Reason::Completed, "{}", report.message);
        report.message.contains("If-None-Match")
    };
    assert!(!told(scene.test.store()).await);
    let ignoring = Proxy::start(scene.test.server.port(), |line, _| {
        if !line.starts_with("PUT") {
            return Fate::Pass;
        }
        // As Garage takes it: as if it did not stand there. The signature is over it, so only the answer can be another one.
        Fate::Alter(Box::new(|answer| {
            let text = String::from_utf8(answer).unwrap();
            if !text.starts_with("HTTP/1.1 412") {
                return text.into_bytes();
            }
            b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
        }))
    });
    assert!(told(scene.behind(&ignoring)).await);
    assert_eq!(scene.test.keys().await, [""; 0], "the canary is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_with_the_name_of_a_folder_of_ours_is_found_and_named() {
    let scene = Scene::new(1000).await;
    scene.save(1).await;
    scene.save(2).await;
    let keys = scene.test.keys().await;
    // As MinIO does it: what is below can be read and written, and is in no listing.
    let hiding = Proxy::start(scene.test.server.port(), |line, _| {
        if is_list(line) && line.contains("nightly") {
            return Fate::Answer("200 OK", EMPTY.into());
        }
        if object_of(line) == "prod/shop/nightly" {
            return Fate::Answer("200 OK\r\nETag: \"x\"", "x".into());
        }
        Fate::Pass
    });
    let known =
        KnownRun { run_id: run_id(2), sources: vec!["db".into()], suspicious: false, imported: false, damaged: false };
    let store = || scene.behind(&hiding);
    for (what, task, reason) in [
        ("verify", verify(store(), 2, &["db"]), Reason::ListIncomplete),
        ("restore", scene.restore(store(), Select::At(None)), Reason::NoMatchingBackup),
        ("restore by name", scene.restore(store(), Select::RunId(run_id(2))), Reason::NoMatchingBackup),
        ("retention", retain(store(), vec![known]), Reason::ListIncomplete),
        ("deletion", delete(store(), 2), Reason::ListIncomplete),
        ("catalogue", catalogue(store(), &[1, 2]), Reason::Completed),
        // Backups go on.
        ("probe", newest(store(), 2), Reason::Completed),
    ] {
        let report = run(&task).await;
        assert_eq!(report.reason, reason, "{what}: {}", report.message);
        let words = "prod/shop/nightly: an object has the name of this folder";
        assert!(report.message.contains(words), "{what}: {}", report.message);
        if let Some(Outcome::Catalogue(told)) = report.outcome {
            assert!(told.gone.is_empty(), "{told:?}");
        }
    }
    assert!(scene.is_untouched() && scene.test.keys().await == keys);

    // One below the policy's folder hides a run, and is seen in the listing.
    let run_two = run_id(2);
    let hidden = format!("<Contents><Key>prod/shop/nightly/{run_two}</Key><Size>1</Size></Contents>");
    let hiding = Proxy::start(scene.test.server.port(), move |line, _| {
        let (run, object) = (run_two.clone(), hidden.clone());
        if object_of(line) == format!("prod/shop/nightly/{run}") {
            return Fate::Answer("200 OK\r\nETag: \"x\"", "x".into());
        }
        if !is_list(line) || !line.contains("nightly") {
            return Fate::Pass;
        }
        Fate::Alter(Box::new(move |answer| {
            with_body(&answer, |xml| {
                let end = xml.find("</ListBucketResult>").unwrap();
                let all = xml[xml.find("<Contents>").unwrap_or(end)..end].split_inclusive("</Contents>");
                let kept: String = all.filter(|e| e.starts_with("<Contents>") && !e.contains(&run)).collect();
                let counted = kept.matches("<Contents>").count() + 1;
                format!(
                    "<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>{counted}</KeyCount>{kept}{object}</ListBucketResult>"
                )
            })
        }))
    });
    let store = || scene.behind(&hiding);
    let words = format!("prod/shop/nightly/{}: an object has the name of this folder", run_id(2));
    let report = run(&verify(store(), 2, &["db"])).await;
    assert_eq!(report.reason, Reason::ListIncomplete, "{}", report.message);
    assert!(report.message.contains(&words), "{}", report.message);
    let report = run(&scene.restore(store(), Select::At(None))).await;
    assert_eq!(report.reason, Reason::Completed, "{}", report.message);
    assert!(report.message.contains("passed over: ") && report.message.contains(&words), "{}", report.message);
}

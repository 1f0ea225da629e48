//! ConfigMaps and Secrets, mounted as the kubelet does it, saved and written into a volume.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/volume.rs"]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use holdfast::engine::config;
use holdfast::task::ConfigTarget;
use holdfast_crds::{ConfigSource, OnExisting, Reason};
use support::{Memory, inside, mounts, write};

/// Mounts an object: the keys are symlinks through `..data` into a folder of the kubelet's own.
fn mount(root: &Path, object: &str, keys: &[(&str, &[u8])]) {
    let folder = root.join(object);
    let held = folder.join("..2026_11_21_02_00_00.123");
    fs::create_dir_all(&held).unwrap();
    symlink("..2026_11_21_02_00_00.123", folder.join("..data")).unwrap();
    for (key, value) in keys {
        fs::write(held.join(key), value).unwrap();
        symlink(format!("..data/{key}"), folder.join(key)).unwrap();
    }
}

fn source() -> ConfigSource {
    ConfigSource {
        config_maps: vec!["shop-env".into(), "empty".into()],
        secrets: vec!["shop-key".into()],
        allow_unencrypted: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_back_as_a_folder_each_and_a_file_a_key() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    mount(from.path(), "configmaps/shop-env", &[("LOG_LEVEL", b"debug"), ("app.properties", b"a=b\n")]);
    mount(from.path(), "configmaps/empty", &[]);
    mount(from.path(), "secrets/shop-key", &[("key", &[0, 255, 10])]);
    let mut memory = Memory::default();
    config::dump(&source(), &mounts(from.path()), &mut memory).await.unwrap();
    let manifest = memory.manifest();
    assert_eq!(manifest.items, 3);

    let target = ConfigTarget { claim_name: "config".into() };
    config::check_target(&target, &mounts(to.path()), &manifest, OnExisting::Fail).await.unwrap();
    let mounts = mounts(to.path());
    let restored = config::restore(&target, &mounts, &manifest, OnExisting::Fail, &mut memory).await.unwrap();
    assert_eq!(restored.items, 3);
    let seen = inside(to.path());
    let files: Vec<_> = seen.iter().filter(|(_, s)| s.kind == "file").collect();
    let found: Vec<_> = files.iter().map(|(p, s)| (p.to_str().unwrap(), &s.content[..], s.mode)).collect();
    assert_eq!(
        found,
        [
            ("configmaps/shop-env/LOG_LEVEL", b"debug".as_slice(), 0o600),
            ("configmaps/shop-env/app.properties", b"a=b\n", 0o600),
            ("secrets/shop-key/key", &[0, 255, 10], 0o600),
        ]
    );
    assert!(seen.contains_key(Path::new("configmaps/empty")));
    assert!(seen.keys().all(|p| !p.to_str().unwrap().contains("..")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_objects_make_the_same_archive() {
    let mut archives = Vec::new();
    for _ in 0..2 {
        let from = tempfile::tempdir().unwrap();
        mount(from.path(), "configmaps/shop-env", &[("a", b"1"), ("b", b"2")]);
        let source = ConfigSource { config_maps: vec!["shop-env".into()], ..ConfigSource::default() };
        let mut memory = Memory::default();
        config::dump(&source, &mounts(from.path()), &mut memory).await.unwrap();
        archives.push(memory.bytes("config.tar").clone());
    }
    assert_eq!(archives[0], archives[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_not_mounted_fails_the_run() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), &[("configmaps/other/a", b"1")]);
    let mut memory = Memory::default();
    let failure = config::dump(&source(), &mounts(from.path()), &mut memory).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceIncomplete);
    assert!(failure.message.contains("configmaps/empty"), "{failure}");
}

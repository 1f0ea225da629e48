//! Volumes saved and restored, on this machine's file system.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/volume.rs"]
mod support;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use holdfast::task::VolumeTarget;
use holdfast_crds::{OnExisting, OnUnreadable, Reason, VolumeSource};
use rustix::fs::{Mode, XattrFlags};
use support::{
    Memory, as_user, inside, is_root, leftovers, look, odd, restore, restore_to, save, save_as, source, target, write,
};

fn times(path: &Path, seconds: u64, nanos: u32) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    fs::File::open(path).unwrap().set_times(fs::FileTimes::new().set_modified(time)).unwrap();
}

/// A folder with everything that is hard to keep.
fn rich(root: &Path) {
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    write(
        root,
        &[
            ("plain.txt", b"hello"),
            ("empty", b""),
            ("photos/2026/a.jpg", &vec![1; 100_000]),
            ("photos/2026/b.jpg", &vec![2; 262_144]),
            ("photos/2025/c.jpg", &vec![3; 262_145]),
            ("big", &big),
            ("with\nnewline", b"1"),
            ("ümlaut/ñ", b"2"),
            ("dir with space/.hidden", b"3"),
        ],
    );
    fs::write(root.join(odd(b"\xff\xfe")), "odd").unwrap();
    fs::write(root.join(odd(&[b"\xff".repeat(120), b"long".to_vec()].concat())), "odd and long").unwrap();
    let mut deep = rustix::fs::open(root, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..15 {
        let name = "d".repeat(200);
        rustix::fs::mkdirat(&deep, &*name, Mode::RWXU).unwrap();
        deep = rustix::fs::openat(&deep, &*name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    for folder in ["empty-folder", "readonly/inner"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    write(root, &[("readonly/inner/file", b"x")]);
    symlink("plain.txt", root.join("link")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink("../../nowhere", root.join("photos/dangling")).unwrap();
    symlink("photos", root.join("link-to-folder")).unwrap();
    fs::hard_link(root.join("photos/2026/a.jpg"), root.join("again.jpg")).unwrap();
    fs::hard_link(root.join("photos/2026/a.jpg"), root.join("photos/2025/again.jpg")).unwrap();
    let sparse = fs::File::create(root.join("disk.img")).unwrap();
    sparse.write_all_at(&[9; 5000], 1 << 20).unwrap();
    sparse.write_all_at(&[8; 100], 9 << 20).unwrap();
    sparse.set_len(32 << 20).unwrap();
    let hollow = fs::File::create(root.join("hollow")).unwrap();
    hollow.set_len(5 << 20).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
    for (name, attribute, value) in [("plain.txt", "user.note", b"a=b\n\0".as_slice()), ("photos", "user.folder", b"1")]
    {
        if let Err(error) = rustix::fs::setxattr(root.join(name), attribute, value, XattrFlags::empty()) {
            eprintln!("SKIPPED in part: this file system keeps no attributes: {error}");
        }
    }
    if is_root() {
        chown(root.join("photos/2025/c.jpg"), Some(1234), Some(4_000_000_000)).unwrap();
        chown(root.join("photos"), Some(1000), Some(1001)).unwrap();
        std::os::unix::fs::lchown(root.join("link"), Some(7), Some(8)).unwrap();
    }
    for (name, mode) in
        [("plain.txt", 0o604), ("empty", 0o400), ("readonly/inner", 0o555), ("readonly", 0o500), ("ümlaut", 0o1777)]
    {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    times(&root.join("plain.txt"), 1, 1);
    times(&root.join("big"), 4_000_000_000, 999_999_999);
    times(&root.join("photos/2026"), 1_000_000_000, 5);
    times(&root.join("readonly"), 1_000_000_000, 6);
    times(root, 1_234_567_890, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_as_it_was_in_an_empty_volume_and_in_place_of_another_content() {
    let from = tempfile::tempdir().unwrap();
    rich(from.path());
    let before = look(from.path());
    assert!(before[Path::new("disk.img")].sparse, "this file system keeps no holes: the test would show nothing");
    let mut memory = save(from.path()).await;
    assert_eq!(look(from.path()), before, "saving changed what was saved");
    assert_eq!(memory.property("changed"), Some("0"));
    let files = before.values().filter(|s| s.kind != "folder").count();
    assert_eq!(memory.manifest().items, i64::try_from(files).unwrap());

    let empty = tempfile::tempdir().unwrap();
    fs::create_dir(empty.path().join("lost+found")).unwrap();
    let restored = restore(empty.path(), OnExisting::Fail, &mut memory).await.unwrap();
    fs::remove_dir(empty.path().join("lost+found")).unwrap();
    assert_eq!(restored.items, i64::try_from(files).unwrap());
    times(empty.path(), 1_234_567_890, 7);
    assert_same(&look(empty.path()), &before);

    let full = tempfile::tempdir().unwrap();
    write(
        full.path(),
        &[("plain.txt", b"another"), ("photos", b"a file here"), ("other/deep/er", b"x"), ("big/now/a/folder", b"")],
    );
    fs::create_dir(full.path().join("locked")).unwrap();
    fs::set_permissions(full.path().join("locked"), fs::Permissions::from_mode(0o500)).unwrap();
    restore(full.path(), OnExisting::Replace, &mut memory).await.unwrap();
    assert_same(&look(full.path()), &before);
}

fn assert_same(
    after: &std::collections::BTreeMap<std::path::PathBuf, support::Seen>,
    before: &std::collections::BTreeMap<std::path::PathBuf, support::Seen>,
) {
    for (path, seen) in before {
        let got = after.get(path).unwrap_or_else(|| panic!("{} is missing", path.display()));
        assert!(got == seen, "{}: {:?} became {:?}", path.display(), brief(seen), brief(got));
    }
    for path in after.keys() {
        assert!(before.contains_key(path), "{} is too much", path.display());
    }
}

fn brief(seen: &support::Seen) -> support::Seen {
    support::Seen { content: seen.content.iter().take(40).copied().collect(), ..seen.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn gnu_tar_unpacks_what_was_saved_to_the_same_files() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    rich(from.path());
    // Paths nearly as long as the kernel takes at once are more than a scratch folder leaves room for.
    fs::remove_dir_all(from.path().join("d".repeat(200))).unwrap();
    times(from.path(), 1_234_567_890, 7);
    let mut memory = save(from.path()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), memory.bytes("volume.tar")).unwrap();
    let status = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
        .arg(file.path())
        .current_dir(to.path())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    // A stock tar writes the zeros of small holes.
    let but_for_holes = |folder: &Path| {
        let mut all = look(folder);
        for seen in all.values_mut() {
            seen.sparse = false;
        }
        all
    };
    assert_same(&but_for_holes(to.path()), &but_for_holes(from.path()));
}

/// Names and contents of the files of an archive, by a reader that passes over pax records, as busybox' does.
fn read_plainly(mut tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    while let Some((header, rest)) = tar.split_at_checked(512).filter(|(header, _)| header[0] != 0) {
        let text = |field: &[u8]| String::from_utf8(field.split(|b| *b == 0).next().unwrap().to_vec()).unwrap();
        let size = usize::from_str_radix(&text(&header[124..136]), 8).unwrap();
        if header[156] == b'0' {
            files.push((text(&header[..100]), rest[..size].to_vec()));
        }
        tar = &rest[size.next_multiple_of(512)..];
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn small_holes_are_zeros_for_every_tar_and_large_ones_are_kept_as_a_map_and_both_come_back_as_holes() {
    let from = tempfile::tempdir().unwrap();
    let (small, large, hollow) =
        (from.path().join("small.img"), from.path().join("large.img"), from.path().join("hollow"));
    let file = fs::File::create(&small).unwrap();
    file.write_all_at(&[9; 5000], 1 << 20).unwrap();
    file.set_len(63 << 20).unwrap();
    let file = fs::File::create(&large).unwrap();
    file.write_all_at(&[8; 5000], 70 << 20).unwrap();
    file.set_len(80 << 20).unwrap();
    fs::File::create(&hollow).unwrap().set_len(5 << 20).unwrap();
    // Its zeros are no holes, and stay none.
    fs::write(from.path().join("zeros"), vec![0; 1 << 20]).unwrap();
    let before = look(from.path());
    assert!(before[Path::new("small.img")].sparse && before[Path::new("large.img")].sparse);
    assert!(!before[Path::new("zeros")].sparse);

    let mut memory = save(from.path()).await;
    let plain = read_plainly(memory.bytes("volume.tar"));
    let content = |name: &str| plain.iter().find(|(known, _)| known == name).map(|(_, content)| content.as_slice());
    assert!(content("small.img") == Some(fs::read(&small).unwrap().as_slice()), "small.img is not read by every tar");
    assert!(content("hollow").is_some_and(|zeros| zeros.len() == 5 << 20 && zeros.iter().all(|byte| *byte == 0)));
    assert!(content("GNUSparseFile.0/large.img").is_some_and(|stored| stored.len() < 1 << 20), "holes by the gigabyte");
    // What a restore takes is what is data, so that a volume that held it holds it again.
    let data: u64 = memory.property("dataBytes").unwrap().parse().unwrap();
    assert!(((1 << 20) + 10_000..(1 << 20) + 100_000).contains(&data), "{data}");

    let to = tempfile::tempdir().unwrap();
    restore(to.path(), OnExisting::Fail, &mut memory).await.unwrap();
    assert_same(&look(to.path()), &before);
    let to = tempfile::tempdir().unwrap();
    let target = VolumeTarget { paths: vec!["*.img".into()], ..target() };
    restore_to(&target, to.path(), OnExisting::Fail, &mut memory).await.unwrap();
    assert!(look(to.path())[Path::new("small.img")] == before[Path::new("small.img")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_beside_the_archive_names_each_entry_with_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("a/b.txt", b"hello"), ("c", b"")]);
    let mut memory = save(folder.path()).await;
    let text = String::from_utf8(memory.bytes("index.jsonl").clone()).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let names: Vec<_> = lines.iter().map(|l| l["path"].as_str().unwrap()).collect();
    assert_eq!(names, [".", "c", "a", "a/b.txt"]);
    assert_eq!(lines[3]["sha256"], "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!((&lines[3]["type"], &lines[3]["size"]), (&"file".into(), &5.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn globs_choose_what_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[
            ("cache/a", b"1"),
            ("cache/deep/b", b"1"),
            ("photos/a.jpg", b"1"),
            ("photos/a.tmp", b"1"),
            ("photos/x/y/z.jpg", b"1"),
            ("notes.txt", b"1"),
        ],
    );
    let names = async |include: &[&str], exclude: &[&str]| {
        let list = |globs: &[&str]| globs.iter().map(|g| (*g).to_owned()).collect();
        let source = VolumeSource { include: list(include), exclude: list(exclude), ..source() };
        let mut memory = Memory::default();
        save_as(&source, folder.path(), &mut memory).await.unwrap();
        let to = tempfile::tempdir().unwrap();
        restore(to.path(), OnExisting::Fail, &mut memory).await.unwrap();
        inside(to.path()).keys().map(|p| p.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&[], &["cache/**", "**/*.tmp"]).await,
        ["cache", "notes.txt", "photos", "photos/a.jpg", "photos/x", "photos/x/y", "photos/x/y/z.jpg"]
    );
    assert_eq!(names(&[], &["cache", "photos"]).await, ["notes.txt"]);
    assert_eq!(names(&["photos/x"], &[]).await, ["photos", "photos/x", "photos/x/y", "photos/x/y/z.jpg"]);
    assert_eq!(names(&["**/*.jpg"], &["photos/x/**"]).await, ["photos", "photos/a.jpg"]);
    let source = VolumeSource { include: vec!["../up".into()], ..source() };
    let failure = save_as(&source, folder.path(), &mut Memory::default()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_volume_is_a_backup_only_where_that_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("only/folders")).unwrap();
    let failure = save_as(&source(), folder.path(), &mut Memory::default()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceIncomplete);
    assert!(failure.message.contains("allowEmpty"), "{failure}");

    let mut memory = Memory::default();
    save_as(&VolumeSource { allow_empty: true, ..source() }, folder.path(), &mut memory).await.unwrap();
    let to = tempfile::tempdir().unwrap();
    restore(to.path(), OnExisting::Fail, &mut memory).await.unwrap();
    assert_same(&look(to.path()), &look(folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("file", b"1")]);
    let _listener = UnixListener::bind(folder.path().join("app.sock")).unwrap();
    let mut memory = save(folder.path()).await;
    assert_eq!((memory.property("sockets"), memory.property("socketsNames")), (Some("1"), Some("app.sock")));
    let to = tempfile::tempdir().unwrap();
    restore(to.path(), OnExisting::Fail, &mut memory).await.unwrap();
    assert_eq!(inside(to.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_shrinks_grows_or_changes_while_it_is_read_keeps_its_announced_size_and_is_counted() {
    for what in ["shrinks", "grows", "changes", "stays"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, vec![b'x'; 30 << 20]).unwrap();
        let mut acted = false;
        let at = path.clone();
        let mut memory = Memory {
            // Readers are at most a few MiB ahead, so that the file's header has passed and its end has not been read.
            hook: Some(Box::new(move |bytes| {
                if bytes >= 1 << 20 && !acted {
                    acted = true;
                    let file = fs::File::options().write(true).open(&at).unwrap();
                    match what {
                        "shrinks" => file.set_len(1 << 20).unwrap(),
                        "grows" => file.set_len(31 << 20).unwrap(),
                        "changes" => {
                            file.write_all_at(b"y", 0).unwrap();
                            file.set_times(fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
                        }
                        _ => {}
                    }
                }
            })),
            ..Memory::default()
        };
        save_as(&source(), folder.path(), &mut memory).await.unwrap();
        let expected = if what == "stays" { "0" } else { "1" };
        assert_eq!(memory.property("changed"), Some(expected), "{what}");
        assert_eq!(memory.property("changedNames"), (what != "stays").then_some("log"));
        let to = tempfile::tempdir().unwrap();
        restore(to.path(), OnExisting::Fail, &mut memory).await.unwrap();
        let content = fs::read(to.path().join("log")).unwrap();
        assert_eq!(content.len(), 30 << 20);
        assert!(content[..1 << 20].iter().all(|b| *b == b'x'));
        let last = *content.last().unwrap();
        assert_eq!(last, if what == "shrinks" { 0 } else { b'x' }, "{what}");
    }
}

#[test]
fn files_that_cannot_be_read_fail_the_run_or_are_listed() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    write(folder.path(), &[("open", b"1"), ("secret", b"2"), ("closed/inside", b"3"), ("zz", b"4")]);
    for (name, mode) in [("secret", 0o600), ("closed", 0o700)] {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = folder.path().to_owned();
    let failure = as_user(65_534, async move { save_as(&source(), &path, &mut Memory::default()).await.unwrap_err() });
    assert_eq!(failure.reason, Reason::SourceIncomplete);
    for word in ["closed", "secret", "2:", "runAs", "onUnreadable"] {
        assert!(failure.message.contains(word), "{word}: {failure}");
    }

    let path = folder.path().to_owned();
    let memory = as_user(65_534, async move {
        let mut memory = Memory::default();
        let source = VolumeSource { on_unreadable: OnUnreadable::Skip, ..source() };
        save_as(&source, &path, &mut memory).await.unwrap();
        memory
    });
    assert_eq!(memory.property("unreadable"), Some("2"));
    assert_eq!(memory.property("unreadableNames"), Some("closed: Permission denied\nsecret: Permission denied"));
    assert_eq!(memory.manifest().items, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_holds_something_is_left_alone() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), &[("a", b"new")]);
    let mut memory = save(from.path()).await;
    let to = tempfile::tempdir().unwrap();
    write(to.path(), &[("a", b"old"), (".hidden", b"old")]);
    let before = look(to.path());
    let failure = restore(to.path(), OnExisting::Fail, &mut memory).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TargetNotEmpty);
    assert!(failure.message.contains(".hidden, a"), "{failure}");
    assert_same(&look(to.path()), &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_or_turns_out_damaged_leaves_the_target_as_it_was() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), &[("a", &vec![1; 700_000]), ("b/c", &vec![2; 300_000]), ("d", b"x")]);
    let mut memory = save(from.path()).await;
    let tar = memory.bytes("volume.tar").clone();
    let index = memory.bytes("index.jsonl").clone();
    let mut to = tempfile::tempdir().unwrap();
    write(to.path(), &[("a", b"old"), ("old/deep", b"old")]);
    let mut before = inside(to.path());

    memory.withhold = true;
    let failure = restore(to.path(), OnExisting::Replace, &mut memory).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ChecksumMismatch);
    assert_same(&inside(to.path()), &before);
    memory.withhold = false;

    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..15 {
        memory.cut_tar_at = Some(random.usize(..tar.len()));
        let failure = restore(to.path(), OnExisting::Replace, &mut memory).await.unwrap_err();
        assert_eq!(failure.reason, Reason::StoreUnreachable, "{failure}");
        assert_same(&inside(to.path()), &before);
    }
    memory.cut_tar_at = None;

    for number in 0..60 {
        let in_tar = number % 3 != 0;
        let at = random.usize(..if in_tar { tar.len() } else { index.len() });
        (*memory.bytes("volume.tar"), *memory.bytes("index.jsonl")) = (tar.clone(), index.clone());
        memory.bytes(if in_tar { "volume.tar" } else { "index.jsonl" })[at] ^= 1 << random.u32(..8);
        if let Err(failure) = restore(to.path(), OnExisting::Replace, &mut memory).await {
            assert!(matches!(failure.reason, Reason::ChecksumMismatch | Reason::RestoreFailed), "{failure}");
            assert_same(&inside(to.path()), &before);
        } else {
            // A bit that means nothing, such as a zero that became a space: then nothing may be lost by it.
            assert_same(&inside(to.path()), &inside(from.path()));
            to = tempfile::tempdir().unwrap();
            write(to.path(), &[("a", b"old"), ("old/deep", b"old")]);
            before = inside(to.path());
        }
        assert_eq!(leftovers(to.path()), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_paths_come_back_into_a_volume_that_is_in_use_and_nothing_else_changes() {
    let from = tempfile::tempdir().unwrap();
    write(
        from.path(),
        &[
            ("photos/a.jpg", b"A"),
            ("photos/b.jpg", b"B"),
            ("photos/c.txt", b"C"),
            ("docs/x/y", b"Y"),
            ("zlast", b"Z"),
            ("top", b"T"),
        ],
    );
    fs::create_dir(from.path().join("zdir")).unwrap();
    fs::hard_link(from.path().join("docs/x/y"), from.path().join("zdir/one")).unwrap();
    fs::hard_link(from.path().join("docs/x/y"), from.path().join("zdir/two")).unwrap();
    times(&from.path().join("photos"), 1000, 1);
    let mut memory = save(from.path()).await;
    let chosen = |paths: &[&str]| VolumeTarget { paths: paths.iter().map(|p| (*p).to_owned()).collect(), ..target() };

    let to = tempfile::tempdir().unwrap();
    write(to.path(), &[("photos/a.jpg", b"changed"), ("photos/new.jpg", b"new"), ("top", b"changed")]);
    let restored =
        restore_to(&chosen(&["photos/*.jpg", "zdir"]), to.path(), OnExisting::Replace, &mut memory).await.unwrap();
    assert_eq!(restored.items, 4);
    let now = inside(to.path());
    let content = |path: &str| String::from_utf8(now[Path::new(path)].content.clone()).unwrap();
    let names: Vec<_> = now.keys().map(|p| p.to_str().unwrap()).collect();
    assert_eq!(
        names,
        ["photos", "photos/a.jpg", "photos/b.jpg", "photos/new.jpg", "top", "zdir", "zdir/one", "zdir/two"]
    );
    assert_eq!(
        [content("photos/a.jpg"), content("photos/b.jpg"), content("photos/new.jpg"), content("top")],
        ["A", "B", "new", "changed"]
    );
    // The name that has the content in the archive was not chosen.
    assert_eq!([content("zdir/one"), content("zdir/two")], ["Y", "Y"]);
    assert_eq!(now[Path::new("zdir/one")].same_as, now[Path::new("zdir/two")].same_as);
    assert!(now[Path::new("zdir/one")].same_as.is_some());

    // A folder that is chosen by its own name is replaced as a whole; one that is missing comes with its attributes.
    restore_to(&chosen(&["photos"]), to.path(), OnExisting::Replace, &mut memory).await.unwrap();
    assert!(!to.path().join("photos/new.jpg").exists());
    assert_eq!(inside(to.path())[Path::new("photos")].mtime, (1000, 1));
    let empty = tempfile::tempdir().unwrap();
    restore_to(&chosen(&["photos/c.txt"]), empty.path(), OnExisting::Fail, &mut memory).await.unwrap();
    let now = inside(empty.path());
    assert_eq!(now.len(), 2);
    assert_eq!(now[Path::new("photos")].mtime, (1000, 1));

    let failure =
        restore_to(&chosen(&["nothing/here"]), to.path(), OnExisting::Replace, &mut memory).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfiguration);
    let failure = restore_to(&chosen(&["photos"]), to.path(), OnExisting::Fail, &mut memory).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TargetNotEmpty);
    assert_eq!(leftovers(to.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_programs_come_back_only_when_asked_for() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), &[("su", b"x"), ("sg", b"x")]);
    fs::create_dir(from.path().join("shared")).unwrap();
    for (name, mode) in [("su", 0o4755), ("sg", 0o2755), ("shared", 0o2775)] {
        fs::set_permissions(from.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut memory = save(from.path()).await;
    let modes = async |target: &VolumeTarget, memory: &mut Memory| {
        let to = tempfile::tempdir().unwrap();
        let message = restore_to(target, to.path(), OnExisting::Fail, memory).await.unwrap().message;
        let now = inside(to.path());
        (["sg", "shared", "su"].map(|n| now[Path::new(n)].mode), message)
    };
    let (dropped, message) = modes(&target(), &mut memory).await;
    assert_eq!(dropped, [0o755, 0o2775, 0o755]);
    assert!(message.contains("setuid, setgid or capabilities were left out of 2: sg, su"), "{message}");
    let (kept, message) = modes(&VolumeTarget { keep_privileges: true, ..target() }, &mut memory).await;
    assert_eq!(kept, [0o2755, 0o2775, 0o4755]);
    assert!(!message.contains("left out"), "{message}");
}

#[test]
fn ownership_that_cannot_be_given_is_told() {
    if !is_root() {
        return;
    }
    let from = tempfile::tempdir().unwrap();
    write(from.path(), &[("mine", b"1"), ("others", b"2"), ("folder/inside", b"3")]);
    for name in ["", "mine", "folder"] {
        chown(from.path().join(name), Some(65_534), Some(65_534)).unwrap();
    }
    symlink("mine", from.path().join("link")).unwrap();
    let to = tempfile::tempdir().unwrap();
    chown(to.path(), Some(65_534), Some(65_534)).unwrap();
    let (from_path, to_path) = (from.path().to_owned(), to.path().to_owned());
    let restored = as_user(65_534, async move {
        let mut memory = save(&from_path).await;
        restore(&to_path, OnExisting::Fail, &mut memory).await.unwrap()
    });
    assert!(
        restored.message.contains("owner or group could not be set on 3: folder/inside, link, others"),
        "{}",
        restored.message
    );
    assert_eq!(inside(to.path())[Path::new("others")].content, b"2");
}

#[test]
fn attributes_of_files_that_may_not_be_written_come_back_to_their_owner() {
    if !is_root() {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), &[("plain", b"1"), ("folder/inner", b"2")]);
    for (name, mode) in [("plain", 0o444), ("folder/inner", 0o400), ("folder", 0o555), ("", 0o555)] {
        let at = from.path().join(name);
        rustix::fs::setxattr(&at, "user.note", name.as_bytes(), XattrFlags::empty()).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        chown(&at, Some(1234), Some(1234)).unwrap();
    }
    // Its owner may not write the target's root, either.
    chown(to.path(), Some(1234), Some(1234)).unwrap();
    let before = look(from.path());
    let (from, target_folder) = (from.path().to_owned(), to.path().to_owned());
    let message = as_user(1234, async move {
        let mut memory = save(&from).await;
        restore(&target_folder, OnExisting::Replace, &mut memory).await.unwrap().message
    });
    assert_same(&look(to.path()), &before);
    assert!(!message.contains("extended attributes could not be set"), "{message}");
}

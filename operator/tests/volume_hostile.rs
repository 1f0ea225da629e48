//! Archives that want out, disks that fill up, and archives without end: nothing outside of the volume, and a clear word.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

#[path = "support/volume.rs"]
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast::archive::file_index::{ContentHash, Line};
use holdfast::archive::tar::{self, BLOCK, END, Entry, Kind};
use holdfast::task::{Failure, VolumeTarget};
use holdfast_crds::{OnExisting, Reason};
use support::{Memory, inside, is_root, leftovers, look, restore, restore_to, save, target, write};

fn entry(path: &[u8], kind: Kind) -> Entry {
    Entry { path: path.to_vec(), kind, mode: 0o755, uid: 0, gid: 0, ..Entry::default() }
}

fn file(path: &[u8], content: &[u8]) -> (Entry, Vec<u8>) {
    (entry(path, Kind::File { size: content.len() as u64, data: None }), content.to_vec())
}

fn bare(path: &[u8], kind: Kind) -> (Entry, Vec<u8>) {
    (entry(path, kind), Vec::new())
}

type Members = Vec<(Entry, Vec<u8>)>;

/// A backup of these members whose list fits them: whatever is refused, is refused for what it is.
async fn backup(members: &[(Entry, Vec<u8>)]) -> Memory {
    let seed = tempfile::tempdir().unwrap();
    write(seed.path(), &[("seed", b"")]);
    let mut memory = save(seed.path()).await;
    let (mut bytes, mut index) = (Vec::new(), Vec::new());
    for (entry, content) in members {
        tar::header(entry, &mut bytes).unwrap();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let is_file = matches!(entry.kind, Kind::File { .. });
        let hash = is_file.then(|| {
            let mut hash = ContentHash::new(&entry.kind);
            hash.update(0, content);
            hash.finish()
        });
        index.extend_from_slice(&Line::of(entry, hash).to_bytes());
    }
    bytes.extend_from_slice(&END);
    *memory.bytes("volume.tar") = bytes;
    *memory.bytes("index.jsonl") = index;
    memory
}

/// Restores into a volume beside which there is something to lose; gives the failure and what the volume holds.
async fn attempt(memory: &mut Memory) -> (Option<Failure>, Vec<String>) {
    let outer = tempfile::tempdir().unwrap();
    write(outer.path(), &[("secret", b"untouched"), ("folder/secret", b"untouched")]);
    let volume = outer.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let result = restore(&volume, OnExisting::Fail, memory).await;
    let names = inside(&volume).into_keys().map(|p| p.display().to_string()).collect();
    assert_eq!(leftovers(&volume), [""; 0]);
    fs::remove_dir_all(&volume).unwrap();
    let rest: Vec<_> = inside(outer.path()).into_iter().map(|(p, s)| (p.display().to_string(), s.content)).collect();
    let untouched = b"untouched".to_vec();
    assert_eq!(
        rest,
        [("folder".into(), vec![]), ("folder/secret".into(), untouched.clone()), ("secret".into(), untouched)]
    );
    (result.err(), names)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_the_volume() {
    let symlink = |path: &[u8], to: &[u8]| bare(path, Kind::Symlink(to.to_vec()));
    let link = |path: &[u8], to: &[u8]| bare(path, Kind::HardLink(to.to_vec()));
    let corpus: Vec<(&str, Members, &str)> = vec![
        ("a name that climbs", vec![file(b"../secret", b"x")], "climbs out"),
        ("a name that climbs later", vec![bare(b"a", Kind::Folder), file(b"a/../../secret", b"x")], "climbs out"),
        ("a folder that climbs", vec![bare(b"..", Kind::Folder)], "climbs out"),
        ("an absolute name", vec![file(b"/tmp/holdfast-hostile", b"x")], "absolute"),
        ("a file through a symlink", vec![symlink(b"out", b".."), file(b"out/secret", b"x")], "out/secret"),
        ("a file through an absolute symlink", vec![symlink(b"out", b"/tmp"), file(b"out/x", b"x")], "out/x"),
        (
            "a file through a chain of symlinks",
            vec![symlink(b"a", b"b"), symlink(b"b", b".."), file(b"a/secret", b"x")],
            "a/secret",
        ),
        ("a file over a symlink", vec![symlink(b"s", b"../secret"), file(b"s", b"x")], "twice"),
        (
            "a folder over a symlink",
            vec![symlink(b"s", b"../folder"), bare(b"s", Kind::Folder), file(b"s/secret", b"x")],
            "s",
        ),
        ("a link out", vec![link(b"l", b"../secret")], "climbs out"),
        ("an absolute link", vec![link(b"l", b"/etc/passwd")], "absolute"),
        ("a link through a symlink", vec![symlink(b"out", b".."), link(b"l", b"out/secret")], "out/secret"),
        ("a link to nothing", vec![link(b"l", b"nothing")], "l"),
        ("the same name twice", vec![file(b"a", b"1"), file(b"a", b"2")], "twice"),
        ("a file in a file", vec![file(b"a", b"1"), file(b"a/b", b"2")], "a"),
        ("our own names", vec![bare(b".holdfast-restore-00000000", Kind::Folder)], "keep names"),
        ("a file as the root", vec![file(b".", b"1")], "root"),
    ];
    for (what, members, words) in corpus {
        let mut memory = backup(&members).await;
        let (failure, names) = attempt(&mut memory).await;
        let failure = failure.unwrap_or_else(|| panic!("{what} was restored as {names:?}"));
        assert_eq!(failure.reason, Reason::RestoreFailed, "{what}: {failure}");
        assert!(failure.message.contains(words), "{what}: {failure}");
        assert_eq!(names, [""; 0], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_left_out_and_told() {
    let device = Kind::Device { block: true, major: 8, minor: 0 };
    let mut memory = backup(&[bare(b"sda", device), file(b"a", b"1")]).await;
    let to = tempfile::tempdir().unwrap();
    let restored = restore(to.path(), OnExisting::Fail, &mut memory).await.unwrap();
    assert!(restored.message.contains("devices were left out 1: sda"), "{}", restored.message);
    assert_eq!(inside(to.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_merely_odd_come_back() {
    let odd: [&[u8]; 5] = [b"a\nb", b"-rf", b"\x1b[2J", b"...", b" "];
    let mut memory = backup(&odd.map(|name| file(name, b"1"))).await;
    let (failure, names) = attempt(&mut memory).await;
    assert_eq!(failure, None);
    assert_eq!(names.len(), odd.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_not_the_one_listed_is_refused() {
    let listed = [file(b"a", b"1"), file(b"b", b"2")];
    for (what, members) in [
        ("another content", vec![file(b"a", b"1"), file(b"b", b"3")]),
        ("another name", vec![file(b"a", b"1"), file(b"c", b"2")]),
        ("one too few", vec![file(b"a", b"1")]),
        ("one too many", vec![file(b"a", b"1"), file(b"b", b"2"), file(b"c", b"3")]),
        ("another order", vec![file(b"b", b"2"), file(b"a", b"1")]),
    ] {
        let mut memory = backup(&listed).await;
        *memory.bytes("volume.tar") = backup(&members).await.bytes("volume.tar").clone();
        let (failure, names) = attempt(&mut memory).await;
        assert_eq!(failure.expect(what).reason, Reason::ChecksumMismatch, "{what}");
        assert_eq!(names, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_a_line_without_end_or_that_is_no_list_is_refused() {
    for index in [vec![b'x'; 3 << 20], b"{}\n".to_vec(), b"\xff\xff\n".to_vec(), b"{\"path\":".to_vec()] {
        let mut memory = backup(&[file(b"a", b"1")]).await;
        *memory.bytes("index.jsonl") = index;
        let (failure, names) = attempt(&mut memory).await;
        assert!(failure.is_some());
        assert_eq!(names, [""; 0]);
    }
}

/// A small file system in memory, unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", folder.path(), "tmpfs", flags, Some(data.as_c_str())).unwrap();
        Self(folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_with_figures_and_what_was_there_stays() {
    if !is_root() {
        return;
    }
    // Too large from the start; too large only once each file takes a block; too many files.
    let many: Vec<(Entry, Vec<u8>)> = (0..900).map(|n| file(format!("f{n}").as_bytes(), b"x")).collect();
    let cases = [
        ("size=2m", vec![file(b"large", &vec![1; 3 << 20])], "takes 3145728 bytes"),
        ("size=2m", many.clone(), "takes 900 bytes"),
        ("size=20m,nr_inodes=300", many, "of 300 inodes"),
        (
            "size=2m",
            [vec![file(b"a", &vec![1; 1_500_000])], (0..400).map(|n| file(format!("f{n}").as_bytes(), b"x")).collect()]
                .concat(),
            "bytes",
        ),
    ];
    for (options, members, words) in cases {
        let disk = Disk::new(options);
        let volume = disk.0.path();
        write(volume, &[("old/a", &vec![7; 100_000]), ("old/b", b"b")]);
        let before = look(volume);
        let mut memory = backup(&members).await;
        let failure = restore(volume, OnExisting::Replace, &mut memory).await.unwrap_err();
        assert_eq!(failure.reason, Reason::NoSpace, "{failure}");
        assert!(failure.message.contains(words), "{words}: {failure}");
        let after = look(volume);
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert_eq!(inside(&volume.join("old")), {
            let old = Path::new("old");
            before
                .iter()
                .filter_map(|(p, s)| Some((p.strip_prefix(old).ok()?.to_owned(), s.clone())))
                .filter(|(p, _)| p != Path::new(""))
                .collect()
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_files_that_fit_only_with_their_holes_come_back_into_as_small_a_volume() {
    if !is_root() {
        return;
    }
    let from = tempfile::tempdir().unwrap();
    for name in ["one.img", "two.img", "three.img"] {
        let file = fs::File::create(from.path().join(name)).unwrap();
        file.write_all_at(&[7; 5000], 4 << 20).unwrap();
        file.set_len(8 << 20).unwrap();
    }
    let mut memory = save(from.path()).await;
    for paths in [vec![], vec!["*.img".to_owned()]] {
        let disk = Disk::new("size=2m");
        let target = VolumeTarget { paths, ..target() };
        restore_to(&target, disk.0.path(), OnExisting::Fail, &mut memory).await.unwrap();
        assert!(inside(disk.0.path()) == inside(from.path()));
    }
}

#[test]
fn a_million_entries_are_read_with_bounded_memory() {
    let mut reader = tar::Reader::new();
    let (mut seen, mut header) = (0_u64, Vec::new());
    for number in 0..1_000_000_u32 {
        header.clear();
        let mut entry = entry(b"n", Kind::Folder);
        entry.path = format!("{:03}/{number}", number % 1000).into_bytes();
        tar::header(&entry, &mut header).unwrap();
        let mut input = header.as_slice();
        while let Some(event) = reader.next(&mut input).unwrap() {
            assert!(matches!(event, tar::Event::Entry(_)));
            seen += 1;
        }
    }
    let mut end = END.as_slice();
    assert!(reader.next(&mut end).unwrap().is_none());
    reader.finish().unwrap();
    assert_eq!(seen, 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_a_nul_and_giant_headers_are_refused() {
    let mut memory = backup(&[file(&b"n".repeat(200), b"1")]).await;
    // The long name stands in a pax record: a NUL in it is no damage that a checksum would show.
    let tar = memory.bytes("volume.tar");
    let at = tar.windows(5).position(|w| w == b"nnnnn").unwrap();
    let record = tar[at + 512..].windows(5).position(|w| w == b"nnnnn").unwrap() + at + 512;
    tar[record + 3] = 0;
    let (failure, _) = attempt(&mut memory).await;
    assert!(failure.unwrap().message.contains("NUL"));

    let mut memory = backup(&[file(&b"n".repeat(200), b"1")]).await;
    let tar = memory.bytes("volume.tar");
    tar[124..136].copy_from_slice(b"77777777777\0");
    tar[148..156].fill(b' ');
    let sum: u32 = tar[..BLOCK].iter().map(|b| u32::from(*b)).sum();
    write!(&mut tar[148..156], "{sum:06o}\0 ").unwrap();
    let (failure, _) = attempt(&mut memory).await;
    assert!(failure.unwrap().message.contains("8589934591 bytes"));
}

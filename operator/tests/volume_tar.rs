//! What is written is read by GNU tar, and what GNU tar writes is read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all tests")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast::archive::tar::{self, BLOCK, END, Entry, Event, Extent, Kind, Mtime, Reader};

type Members = Vec<(Entry, Vec<u8>)>;

fn archive(members: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (entry, content) in members {
        tar::header(entry, &mut bytes).unwrap();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.extend_from_slice(&END);
    bytes
}

fn read(bytes: &[u8]) -> Members {
    let mut reader = Reader::new();
    let mut members: Members = Vec::new();
    for mut input in bytes.chunks(1000) {
        while let Some(event) = reader.next(&mut input).unwrap() {
            match event {
                Event::Entry(entry) => members.push((*entry, Vec::new())),
                Event::Data { bytes, .. } => members.last_mut().unwrap().1.extend_from_slice(bytes),
                Event::FileEnd => {}
            }
        }
    }
    reader.finish().unwrap();
    members
}

fn gnu_tar(arguments: &[&OsStr], folder: &Path) -> Vec<u8> {
    let output = Command::new("tar")
        .args(arguments)
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn unpack(bytes: &[u8], folder: &Path) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    gnu_tar(&["--xattrs".as_ref(), "--xattrs-include=*".as_ref(), "-xpf".as_ref(), file.path().as_os_str()], folder);
}

fn pack(folder: &Path, more: &[&str]) -> Vec<u8> {
    let mut arguments: Vec<&OsStr> = vec!["-c".as_ref(), "-f".as_ref(), "-".as_ref()];
    arguments.extend(more.iter().map(|a| -> &OsStr { a.as_ref() }));
    arguments.push(".".as_ref());
    gnu_tar(&arguments, folder)
}

fn path(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}

fn entry(name: &[u8], kind: Kind) -> Entry {
    let stat = fs::metadata("/proc/self").unwrap();
    Entry {
        path: name.to_vec(),
        kind,
        mode: 0o644,
        uid: stat.uid().into(),
        gid: stat.gid().into(),
        mtime: Mtime { seconds: 1_700_000_000, nanos: 123_456_789 },
        ..Entry::default()
    }
}

fn file(name: &[u8], content: &[u8]) -> (Entry, Vec<u8>) {
    (entry(name, Kind::File { size: content.len() as u64, data: None }), content.to_vec())
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1000];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn gnu_tar_unpacks_every_kind_of_member_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let long = [b"deep/".repeat(40), b"n".repeat(120)].concat();
    let long_odd = [b"odd/".as_slice(), b"\xff\xfe".repeat(90).as_slice()].concat();
    let mut with_xattr = file(b"noted", b"x");
    with_xattr.0.xattrs = vec![(b"user.sum".to_vec(), b"a=b\n\0c".to_vec())];
    let mut old = file(b"old", b"");
    old.0.mtime = Mtime { seconds: -2, nanos: 250_000_000 };
    let mut executable = file(b"run.sh", b"#!/bin/sh\n");
    executable.0.mode = 0o4751;
    let holes = vec![Extent { offset: 1 << 20, length: 5120 }, Extent { offset: 3 << 20, length: 512 }];
    let sparse = (entry(b"disk\xc3\xa9.img", Kind::File { size: 64 << 20, data: Some(holes) }), vec![7; 5632]);
    let mut empty = entry(b"empty", Kind::Folder);
    empty.mode = 0o1750;
    let members = vec![
        (Entry { mode: 0o755, ..entry(b".", Kind::Folder) }, vec![]),
        file(b"plain", &[5; 1234]),
        file(&long, b"long"),
        file(&long_odd, b"long and odd"),
        file(b"\xff short", b"odd"),
        file("ümlaut\nline".as_bytes(), b"utf-8"),
        with_xattr,
        old,
        executable,
        sparse,
        (empty, vec![]),
        (entry(b"link", Kind::Symlink(b"../nowhere/\xff".repeat(20))), vec![]),
        (entry(b"again", Kind::HardLink(b"plain".to_vec())), vec![]),
        (entry(b"again-long", Kind::HardLink(long.clone())), vec![]),
        (entry(b"pipe", Kind::Fifo), vec![]),
    ];
    unpack(&archive(&members), folder.path());

    for (entry, content) in &members {
        let at = path(folder.path(), &entry.path);
        let stat = fs::symlink_metadata(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display()));
        if !matches!(entry.kind, Kind::HardLink(_)) {
            assert_eq!((stat.mtime(), stat.mtime_nsec()), (entry.mtime.seconds, entry.mtime.nanos.into()), "{at:?}");
        }
        match &entry.kind {
            Kind::File { size, data: None } => {
                assert_eq!(stat.len(), *size);
                assert_eq!(fs::read(&at).unwrap(), *content, "{at:?}");
                assert_eq!(stat.mode() & 0o7777, entry.mode, "{at:?}");
            }
            Kind::File { size, data: Some(_) } => {
                assert_eq!(stat.len(), *size);
                assert!(stat.blocks() * 512 < 1 << 20, "{at:?} has no holes");
                let opened = fs::File::open(&at).unwrap();
                let mut bytes = [1; 5122];
                opened.read_exact_at(&mut bytes, (1 << 20) - 1).unwrap();
                assert!(bytes[0] == 0 && bytes[1..5121].iter().all(|b| *b == 7) && bytes[5121] == 0);
                opened.read_exact_at(&mut bytes[..2], (3 << 20) + 511).unwrap();
                assert_eq!(bytes[..2], [7, 0]);
            }
            Kind::Folder => assert_eq!((stat.is_dir(), stat.mode() & 0o7777), (true, entry.mode)),
            Kind::Symlink(target) => assert_eq!(fs::read_link(&at).unwrap().into_os_string().into_vec(), *target),
            Kind::HardLink(target) => {
                let target = fs::metadata(path(folder.path(), target)).unwrap();
                assert_eq!((stat.ino(), stat.dev()), (target.ino(), target.dev()));
            }
            Kind::Fifo => assert_eq!(stat.mode() & 0o17_0000, 0o1_0000),
            Kind::Device { .. } => unreachable!(),
        }
    }
    let noted = path(folder.path(), b"noted");
    if let Some(value) = xattr(&noted, "user.sum") {
        assert_eq!(value, b"a=b\n\0c");
    } else {
        let refused = rustix::fs::setxattr(&noted, "user.probe", b"1", rustix::fs::XattrFlags::empty());
        assert!(refused.is_err(), "the file system keeps attributes, but this one is lost");
    }
}

#[test]
fn what_gnu_tar_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let long = [b"deep/".repeat(40), b"n".repeat(120)].concat();
    let odd = [b"odd/".as_slice(), b"\xff\xfe".repeat(90).as_slice()].concat();
    for (name, content) in [(b"plain".to_vec(), vec![5_u8; 70_000]), (long.clone(), vec![1]), (odd.clone(), vec![])] {
        let at = path(root, &name);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, content).unwrap();
    }
    symlink("x".repeat(300), root.join("link")).unwrap();
    fs::hard_link(root.join("plain"), root.join("zagain")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::set_permissions(root.join("plain"), fs::Permissions::from_mode(0o640)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&[9; 4096], 1 << 20).unwrap();
    sparse.write_all_at(&[8; 4096], 5 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    let keeps_attributes =
        rustix::fs::setxattr(root.join("plain"), "user.sum", b"a=b\n\0c", rustix::fs::XattrFlags::empty()).is_ok();

    for format in ["--format=pax", "--format=gnu"] {
        let sparse = format == "--format=pax";
        let members =
            read(&pack(root, if sparse { &["--format=pax", "--sparse", "--xattrs"] } else { &["--format=gnu"] }));
        let find = |name: &[u8]| {
            let name = [b"./".as_slice(), name].concat();
            members
                .iter()
                .find(|(e, _)| e.path == name)
                .unwrap_or_else(|| panic!("{} is missing", tar::printable(&name)))
        };
        let plain = fs::metadata(root.join("plain")).unwrap();
        let (first, second) = (find(b"plain"), find(b"zagain"));
        let (with_content, link) = if first.1.is_empty() { (second, first) } else { (first, second) };
        assert_eq!(with_content.1, vec![5; 70_000]);
        assert!(matches!(&link.0.kind, Kind::HardLink(target) if *target == with_content.0.path));
        assert_eq!(with_content.0.mode, 0o640);
        assert_eq!((with_content.0.uid, with_content.0.gid), (plain.uid().into(), plain.gid().into()));
        assert_eq!(with_content.0.mtime.seconds, plain.mtime());
        assert_eq!(find(&long).1, vec![1]);
        assert!(find(&odd).1.is_empty());
        assert_eq!(find(b"link").0.kind, Kind::Symlink(b"x".repeat(300)));
        assert_eq!(find(b"empty").0.kind, Kind::Folder);
        if sparse {
            assert_eq!(i64::from(with_content.0.mtime.nanos), plain.mtime_nsec());
            let (entry, data) = find(b"sparse");
            let Kind::File { size, data: Some(extents) } = &entry.kind else { panic!("{entry:?}") };
            assert_eq!(*size, 9 << 20);
            assert_eq!(extents.iter().map(|e| e.offset).collect::<Vec<_>>(), [1 << 20, 5 << 20]);
            assert_eq!(*data, [vec![9; 4096], vec![8; 4096]].concat());
            if keeps_attributes {
                assert_eq!(with_content.0.xattrs, [(b"user.sum".to_vec(), b"a=b\n\0c".to_vec())]);
            }
        }
    }
}

#[test]
fn gnu_tar_lists_an_archive_of_a_hundred_thousand_members_and_so_does_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("many.tar");
    let mut bytes = Vec::new();
    for number in 0..100_000 {
        let (entry, _) = self::file(format!("folder-{}/file-{number}", number / 1000).as_bytes(), b"");
        tar::header(&entry, &mut bytes).unwrap();
    }
    bytes.extend_from_slice(&END);
    fs::write(&file, &bytes).unwrap();
    let listed = gnu_tar(&["-tf".as_ref(), file.as_os_str()], folder.path());
    assert_eq!(listed.split(|b| *b == b'\n').count(), 100_001);
    assert_eq!(read(&bytes).len(), 100_000);
}

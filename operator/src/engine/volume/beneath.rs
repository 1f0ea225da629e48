//! Folders below a root that nothing can lead out of: no `..`, no symlink, no other mount of a name. Talks to the file system.
//!
//! The kernel holds this by `openat2` (Linux 5.6 and newer, where the container's seccomp profile lets it through). Elsewhere the path is
//! walked folder by folder, each opened without following a symlink, which comes to the same.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Paths are opened in pieces of at most this many bytes: the kernel takes 4096, and archives hold longer ones.
const MAX_PIECE: usize = 4000;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A root.
#[derive(Debug)]
pub(super) struct Beneath {
    root: OwnedFd,
    /// Whether the kernel resolves for us.
    by_kernel: AtomicBool,
}

impl Beneath {
    /// Below this folder.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, by_kernel: AtomicBool::new(true) }
    }

    #[cfg(test)]
    fn by_hand(root: OwnedFd) -> Self {
        Self { root, by_kernel: AtomicBool::new(false) }
    }

    /// The root itself.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Opens the folder at a path that [`relative`] gave; an empty one is the root.
    ///
    /// # Errors
    /// [`Errno::LOOP`], [`Errno::XDEV`] or [`Errno::NOTDIR`] where the path would lead out, or over something that is no folder.
    pub(super) fn folder(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        if path.split(|b| *b == b'/').any(|part| part == b"..") || path.first() == Some(&b'/') {
            return Err(Errno::XDEV);
        }
        if path.is_empty() {
            return self.root.try_clone().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::MFILE));
        }
        if self.by_kernel.load(Ordering::Relaxed) {
            match self.by_openat2(path) {
                // ENOSYS: an older kernel. EPERM: an older seccomp profile that does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => self.by_kernel.store(false, Ordering::Relaxed),
                other => return other,
            }
        }
        self.by_steps(path)
    }

    fn by_openat2(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut rest = path;
        let mut reached: Option<OwnedFd> = None;
        while !rest.is_empty() {
            let piece = if rest.len() <= MAX_PIECE {
                rest
            } else {
                let at = rest[..MAX_PIECE].iter().rposition(|b| *b == b'/').ok_or(Errno::NAMETOOLONG)?;
                &rest[..at]
            };
            let from = reached.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let opened = loop {
                match rustix::fs::openat2(from, piece, FOLDER, Mode::empty(), resolve) {
                    // A rename somewhere on the system came in between.
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    other => break other?,
                }
            };
            reached = Some(opened);
            rest = rest[piece.len()..].strip_prefix(b"/").unwrap_or(&rest[piece.len()..]);
        }
        reached.ok_or(Errno::NOENT)
    }

    fn by_steps(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut reached: Option<OwnedFd> = None;
        for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let from = reached.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            reached = Some(rustix::fs::openat(from, part, FOLDER, Mode::empty())?);
        }
        reached.ok_or(Errno::NOENT)
    }
}

/// The path of a member, relative to the root and without `.` and doubled slashes; empty for the root itself.
///
/// # Errors
/// Why a member with this name is not restored.
pub(super) fn relative(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.first() == Some(&b'/') {
        return Err("its name is absolute");
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its name climbs out of the volume"),
            part if part.contains(&0) => return Err("its name holds a NUL"),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// The folder that a path lies in, and its own name there. None for the root.
pub(super) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, FOLDER, Mode::empty()).unwrap()
    }

    #[test]
    fn neither_the_kernel_nor_we_leave_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        symlink("../outside", root.join("out")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        symlink("a", root.join("inner")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        for beneath in [Beneath::new(open(&root)), Beneath::by_hand(open(&root))] {
            assert!(beneath.folder(b"").is_ok());
            assert!(beneath.folder(b"a/b").is_ok());
            for (path, error) in [
                (b"out".as_slice(), &[Errno::LOOP, Errno::NOTDIR]),
                (b"slash", &[Errno::LOOP, Errno::NOTDIR]),
                (b"inner/b", &[Errno::LOOP, Errno::NOTDIR]),
                (b"..", &[Errno::XDEV, Errno::XDEV]),
                (b"a/../../outside", &[Errno::XDEV, Errno::XDEV]),
                (b"/etc", &[Errno::XDEV, Errno::XDEV]),
                (b"file", &[Errno::NOTDIR, Errno::NOTDIR]),
                (b"missing", &[Errno::NOENT, Errno::NOENT]),
            ] {
                let got = beneath.folder(path).unwrap_err();
                assert!(error.contains(&got), "{}: {got}", path.escape_ascii());
            }
        }
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_is_opened_piece_by_piece() {
        let folder = tempfile::tempdir().unwrap();
        let beneath = Beneath::new(open(folder.path()));
        let name = "n".repeat(200);
        let mut path = Vec::new();
        for _ in 0..30 {
            let parent = beneath.folder(&path).unwrap();
            rustix::fs::mkdirat(&parent, &*name, Mode::RWXU).unwrap();
            path =
                if path.is_empty() { name.clone().into_bytes() } else { [&path[..], b"/", name.as_bytes()].concat() };
        }
        assert!(path.len() > 4096);
        assert!(beneath.folder(&path).is_ok());
    }

    #[test]
    fn names_are_made_relative_or_refused() {
        assert_eq!(relative(b"./a//b/./c/").unwrap(), b"a/b/c");
        assert_eq!(relative(b".").unwrap(), b"");
        assert_eq!(relative(b"a/..b/...").unwrap(), b"a/..b/...");
        for bad in [b"/etc/passwd".as_slice(), b"../x", b"a/../../x", b"a/..", b"a\0b"] {
            assert!(relative(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert_eq!(split(b"a/b/c"), Some((b"a/b".as_slice(), b"c".as_slice())));
        assert_eq!(split(b"c"), Some((b"".as_slice(), b"c".as_slice())));
        assert_eq!(split(b""), None);
    }
}

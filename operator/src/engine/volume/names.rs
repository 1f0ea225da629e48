//! Names in the folders of a volume: listed, looked up, moved and removed, without following a symlink. Talks to the file system.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::beneath::{Beneath, split};
use super::facts::Facts;

/// How the names of our own folders in a volume's root begin.
pub(super) const PREFIX: &str = ".holdfast-restore-";
pub(super) const LOST_FOUND: &[u8] = b"lost+found";
/// How a folder is opened.
pub(super) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whether a name in a volume's root is one of ours.
pub(super) fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(PREFIX.as_bytes())
}

/// What there is in a volume's root, our own and the file system's folders aside.
///
/// # Errors
/// Where it cannot be listed.
pub(super) fn content(root: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = names(root)?;
    names.retain(|name| !is_hidden(name) && name != LOST_FOUND);
    Ok(names)
}

/// The names in a folder.
pub(super) fn names(folder: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

pub(super) fn exists(folder: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is something at a path, all folders above it being folders.
pub(super) fn there(root: &Beneath, path: &[u8]) -> Result<bool, Errno> {
    let Some((parent, name)) = split(path) else { return Ok(true) };
    match root.folder(parent) {
        Ok(folder) => exists(&folder, name),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves a name; never over another one. Folders that their owner may not write are made writable for the time of it.
pub(super) fn rename(from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8]) -> Result<(), Errno> {
    #[cfg(test)]
    renames::allow()?;
    let go = || match rustix::fs::renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        // A file system that knows no flags.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            if exists(to, new_name)? {
                return Err(Errno::EXIST);
            }
            rustix::fs::renameat(from, name, to, new_name)
        }
        other => other,
    };
    match go() {
        Err(Errno::ACCESS) => {
            let moved = rustix::fs::openat(from, name, FOLDER, Mode::empty()).ok();
            let mut locked = Vec::new();
            for folder in [Some(from), Some(to), moved.as_ref()].into_iter().flatten() {
                let mode = Facts::of(&rustix::fs::fstat(folder)?).mode;
                if mode & 0o300 != 0o300 && rustix::fs::fchmod(folder, Mode::from_raw_mode(mode | 0o700)).is_ok() {
                    locked.push((folder, mode));
                }
            }
            let gone = if locked.is_empty() { Err(Errno::ACCESS) } else { go() };
            for (folder, mode) in locked.into_iter().rev() {
                let _ = rustix::fs::fchmod(folder, Mode::from_raw_mode(mode));
            }
            gone
        }
        other => other,
    }
}

/// Removes a name and all that is below it, without following a symlink.
pub(super) fn remove_tree(folder: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    struct Level {
        fd: OwnedFd,
        name: Vec<u8>,
        left: Vec<Vec<u8>>,
    }
    let open = |parent: &OwnedFd, name: Vec<u8>| -> Result<Level, Errno> {
        let fd = match rustix::fs::openat(parent, &*name, FOLDER, Mode::empty()) {
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(parent, &*name, Mode::RWXU, AtFlags::empty())?;
                rustix::fs::openat(parent, &*name, FOLDER, Mode::empty())?
            }
            other => other?,
        };
        let left = names(&fd)?;
        Ok(Level { fd, name, left })
    };
    let mut levels = vec![open(folder, name.to_vec())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            match rustix::fs::unlinkat(&level.fd, &*name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let next = open(&level.fd, name)?;
                    levels.push(next);
                }
                Err(Errno::ACCESS) => {
                    // A folder that even its owner may not write; or one that is not ours, which fails again.
                    let is_folder = rustix::fs::statat(&level.fd, &*name, AtFlags::SYMLINK_NOFOLLOW)
                        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
                    rustix::fs::fchmod(&level.fd, Mode::RWXU).map_err(|_| Errno::ACCESS)?;
                    if is_folder {
                        let next = open(&level.fd, name)?;
                        levels.push(next);
                    } else {
                        rustix::fs::unlinkat(&level.fd, &*name, AtFlags::empty())?;
                    }
                }
                Err(error) => return Err(error),
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let parent = levels.last().map_or(folder, |level| &level.fd);
        match rustix::fs::unlinkat(parent, &*done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ACCESS) => {
                rustix::fs::fchmod(parent, Mode::RWXU).map_err(|_| Errno::ACCESS)?;
                rustix::fs::unlinkat(parent, &*done.name, AtFlags::REMOVEDIR)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lets tests end a swap at any of its renames.
#[cfg(test)]
pub(super) mod renames {
    use std::cell::Cell;

    use rustix::io::Errno;

    thread_local! {
        /// Renames that go well before one fails, and whether all after it fail too.
        static LEFT: Cell<Option<(usize, bool)>> = const { Cell::new(None) };
    }

    pub(in crate::engine::volume) fn allow() -> Result<(), Errno> {
        match LEFT.get() {
            None => Ok(()),
            Some((0, for_good)) => {
                if !for_good {
                    LEFT.set(None);
                }
                Err(Errno::IO)
            }
            Some((left, for_good)) => {
                LEFT.set(Some((left - 1, for_good)));
                Ok(())
            }
        }
    }

    /// As many renames go well, and no more.
    pub(in crate::engine::volume) fn limited<T>(renames: usize, work: impl FnOnce() -> T) -> T {
        with(Some((renames, true)), work)
    }

    /// One rename fails after as many that go well.
    pub(in crate::engine::volume) fn failing_once<T>(renames: usize, work: impl FnOnce() -> T) -> T {
        with(Some((renames, false)), work)
    }

    fn with<T>(left: Option<(usize, bool)>, work: impl FnOnce() -> T) -> T {
        LEFT.set(left);
        let result = work();
        LEFT.set(None);
        result
    }
}

//! The hidden folder in a volume where a restore builds the new content, and the swap that puts it into place. Talks to the file system.
//!
//! ```text
//! <volume>/.holdfast-restore-<8 hex>/new/    the new content
//!                                   /old/    what it replaces, by number of the step
//!                                   /units   paths that are swapped in, where only some are
//!                                   /swap    the steps of the swap: while it is there, the swap is not over
//! ```
//! Everything new is on the disk before `swap` is written, and `swap` before the first rename. A swap that breaks off is undone from it, by the
//! same attempt or by the next one. Once it is removed the new content stands, and the folder with the old one is rubbish.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};

use holdfast_crds::Reason;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tracing::warn;

use super::ahead::words;
use super::beneath::{Beneath, split};
use super::facts::Facts;
use super::place::failed;
use crate::archive::file_index::unescape;
use crate::archive::tar::printable;
use crate::task::Failure;

const PREFIX: &str = ".holdfast-restore-";
const NEW: &str = "new";
const OLD: &str = "old";
const UNITS: &str = "units";
const SWAP: &str = "swap";
const LOST_FOUND: &[u8] = b"lost+found";
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

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

/// The first interrupted swap that there is in a volume.
///
/// # Errors
/// Where the root cannot be listed.
pub(super) fn interrupted(root: &OwnedFd) -> Result<Option<String>, Errno> {
    for name in names(root)?.into_iter().filter(|name| is_hidden(name)) {
        let folder = match rustix::fs::openat(root, &*name, FOLDER, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(error),
        };
        if exists(&folder, SWAP.as_bytes())? {
            return Ok(Some(printable(&name)));
        }
    }
    Ok(None)
}

/// What of a volume is replaced.
pub(super) enum Swap {
    /// All there is.
    Everything,
    /// Nothing: there must be nothing.
    IntoEmpty,
    /// The paths in the file of units.
    Units,
}

/// A restore's hidden folder. Dropped before its swap, it goes with all that is in it.
pub(super) struct Stage {
    volume: Beneath,
    name: Vec<u8>,
    hidden: OwnedFd,
    /// Whether there is nothing left to clean up.
    done: bool,
}

impl Stage {
    /// Makes one, after clearing away what earlier attempts left: interrupted swaps are undone first.
    ///
    /// # Errors
    /// Where the volume cannot be written, or another restore is at work in it.
    pub(super) fn create(root: OwnedFd) -> Result<Self, Failure> {
        let volume = Beneath::new(root);
        clear(&volume)?;
        let name = format!("{PREFIX}{:08x}", fastrand::u32(..)).into_bytes();
        let trouble = |error| failed(&name, error, 0, volume.root());
        rustix::fs::mkdirat(volume.root(), &*name, Mode::RWXU).map_err(trouble)?;
        let hidden = rustix::fs::openat(volume.root(), &*name, FOLDER, Mode::empty()).map_err(trouble)?;
        // Where the file system has no locks, nobody is told apart, and nothing else is lost.
        let _ = rustix::fs::flock(&hidden, FlockOperation::NonBlockingLockExclusive);
        let stage = Self { volume, name: name.clone(), hidden, done: false };
        for folder in [NEW, OLD] {
            rustix::fs::mkdirat(&stage.hidden, folder, Mode::RWXU)
                .map_err(|error| failed(&name, error, 0, stage.volume.root()))?;
        }
        Ok(stage)
    }

    /// The folder for the new content.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(super) fn new_content(&self) -> Result<OwnedFd, Failure> {
        rustix::fs::openat(&self.hidden, NEW, FOLDER, Mode::empty()).map_err(|e| self.trouble(NEW.as_bytes(), e))
    }

    /// The file that takes the paths to be swapped in: [`write_unit`] writes one.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn units(&self) -> Result<BufWriter<File>, Failure> {
        create(&self.hidden, UNITS).map(BufWriter::new).map_err(|e| self.trouble(UNITS.as_bytes(), e))
    }

    /// The volume's root.
    pub(super) fn root(&self) -> &OwnedFd {
        self.volume.root()
    }

    /// Puts the new content into place. After an error everything is as it was.
    ///
    /// # Errors
    /// Where a step fails.
    pub(super) fn swap(&mut self, what: &Swap) -> Result<(), Failure> {
        let trouble = |error: Errno| failed(b"the swap", error, 0, self.volume.root());
        if matches!(what, Swap::IntoEmpty) {
            let there = content(self.volume.root()).map_err(trouble)?;
            if !there.is_empty() {
                return Err(not_empty(&there));
            }
        }
        // The content first: a swap that is on the disk must not point to files that are not.
        rustix::fs::syncfs(&self.hidden).map_err(trouble)?;
        self.write_steps(what)?;
        rustix::fs::fsync(&self.hidden).map_err(trouble)?;
        let steps = Steps { volume: &self.volume, hidden: &self.hidden };
        if let Err((path, error)) = steps.run() {
            let failure = failed(&path, error, 0, self.volume.root());
            steps.undo().map_err(|undo| {
                // The steps stay on the disk for the next attempt.
                Failure::new(
                    failure.reason,
                    format!("{}; and what was swapped could not be put back: {}", failure.message, undo.message),
                )
            })?;
            remove_file(&self.hidden, SWAP);
            return Err(failure);
        }
        rustix::fs::syncfs(&self.hidden).map_err(trouble)?;
        // From here on the new content stands.
        rustix::fs::unlinkat(&self.hidden, SWAP, AtFlags::empty()).map_err(trouble)?;
        let _ = rustix::fs::fsync(&self.hidden);
        Ok(())
    }

    /// Removes the folder with what was replaced. What is left is said.
    pub(super) fn finish(&mut self) -> Option<String> {
        self.done = true;
        let removed = remove_tree(self.volume.root(), &self.name);
        removed.err().map(|error| {
            format!("what was replaced could not be removed from {}: {}", printable(&self.name), words(error))
        })
    }

    fn trouble(&self, path: &[u8], error: Errno) -> Failure {
        failed(path, error, 0, self.volume.root())
    }

    fn write_steps(&self, what: &Swap) -> Result<(), Failure> {
        let trouble =
            |error: io::Error| self.trouble(SWAP.as_bytes(), Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let new = self.new_content()?;
        let file = create(&self.hidden, SWAP).map_err(|e| self.trouble(SWAP.as_bytes(), e))?;
        let mut steps = BufWriter::new(file);
        match what {
            Swap::Everything | Swap::IntoEmpty => {
                let there = content(self.volume.root()).map_err(|e| trouble(e.into()))?;
                for name in there {
                    writeln!(steps, "A {}", printable(&name)).map_err(trouble)?;
                }
                for name in names(&new).map_err(|e| trouble(e.into()))? {
                    writeln!(steps, "P {}", printable(&name)).map_err(trouble)?;
                }
            }
            Swap::Units => {
                let units = open_file(&self.hidden, UNITS).map_err(|e| trouble(e.into()))?;
                let new = Beneath::new(new);
                for line in BufReader::new(units).lines() {
                    let line = line.map_err(trouble)?;
                    let path = unescape(&line).map_err(|e| trouble(io::Error::other(e)))?;
                    // A path that came to nothing, such as a device, must leave what is there alone.
                    if there(&new, &path).map_err(|e| trouble(e.into()))? {
                        writeln!(steps, "P {line}").map_err(trouble)?;
                    }
                }
            }
        }
        let file = steps.into_inner().map_err(|e| trouble(e.into_error()))?;
        file.sync_all().map_err(trouble)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.done || exists(&self.hidden, SWAP.as_bytes()).unwrap_or(true) {
            return;
        }
        if let Err(error) = remove_tree(self.volume.root(), &self.name) {
            warn!("{} stays in the volume until the next restore: {}", printable(&self.name), words(error));
        }
    }
}

/// Writes one path into the file of units.
///
/// # Errors
/// Where the disk does not take it.
pub(super) fn write_unit(units: &mut impl Write, path: &[u8]) -> io::Result<()> {
    writeln!(units, "{}", printable(path))
}

/// A target that must be empty and is not.
pub(super) fn not_empty(names: &[Vec<u8>]) -> Failure {
    let mut shown: Vec<String> = names.iter().map(|n| printable(n)).collect();
    shown.sort_unstable();
    let more = if shown.len() > 5 { ", …" } else { "" };
    shown.truncate(5);
    Failure::new(
        Reason::TargetNotEmpty,
        format!(
            "the volume holds {} names in its root ({}{more}): set onExisting: Replace, or restore into another claim",
            names.len(),
            shown.join(", ")
        ),
    )
}

/// Undoes interrupted swaps, and removes what earlier attempts left.
fn clear(volume: &Beneath) -> Result<(), Failure> {
    let root = volume.root();
    let list = names(root).map_err(|e| failed(b"the volume's root", e, 0, root))?;
    for name in list.into_iter().filter(|name| is_hidden(name)) {
        let trouble = |error| failed(&name, error, 0, root);
        let hidden = match rustix::fs::openat(root, &*name, FOLDER, Mode::empty()) {
            Ok(hidden) => hidden,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(trouble(error)),
        };
        if rustix::fs::flock(&hidden, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(Failure::new(
                Reason::RestoreFailed,
                format!("another restore is at work in this volume ({}): wait until it is over", printable(&name)),
            ));
        }
        if exists(&hidden, SWAP.as_bytes()).map_err(trouble)? {
            warn!("an earlier restore broke off in its swap: it is undone");
            Steps { volume, hidden: &hidden }.undo()?;
            rustix::fs::syncfs(&hidden).map_err(trouble)?;
            rustix::fs::unlinkat(&hidden, SWAP, AtFlags::empty()).map_err(trouble)?;
        }
        remove_tree(root, &name).map_err(trouble)?;
    }
    Ok(())
}

/// The steps of a swap, as its file has them.
struct Steps<'a> {
    volume: &'a Beneath,
    hidden: &'a OwnedFd,
}

impl Steps<'_> {
    /// Takes each step.
    fn run(&self) -> Result<(), (Vec<u8>, Errno)> {
        let (new, old) = self.sides().map_err(|e| (Vec::new(), e))?;
        for (number, (place, path)) in self.read().map_err(|e| (Vec::new(), e))?.into_iter().enumerate() {
            self.step(&new, &old, number, place, &path).map_err(|error| (path, error))?;
        }
        Ok(())
    }

    fn step(&self, new: &Beneath, old: &OwnedFd, number: usize, place: bool, path: &[u8]) -> Result<(), Errno> {
        if place && !there(new, path)? {
            // It came along with a folder above it.
            return Ok(());
        }
        let mut path = path;
        // Where the volume lacks a folder above it, that folder comes, with all in it.
        for at in path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at) {
            if !there(self.volume, &path[..at])? {
                path = &path[..at];
                break;
            }
        }
        let (parent, name) = split(path).ok_or(Errno::INVAL)?;
        let parent_there = self.volume.folder(parent)?;
        if exists(&parent_there, name)? {
            rename(&parent_there, name, old, number.to_string().as_bytes())?;
        }
        if place {
            rename(&new.folder(parent)?, name, &parent_there, name)?;
        }
        Ok(())
    }

    /// Takes back the steps that were taken, the last one first.
    fn undo(&self) -> Result<(), Failure> {
        let result = (|| -> Result<(), (Vec<u8>, Errno)> {
            let (new, old) = self.sides().map_err(|e| (Vec::new(), e))?;
            let steps = self.read().map_err(|e| (Vec::new(), e))?;
            for (number, (place, path)) in steps.iter().enumerate().rev() {
                self.step_back(&new, &old, number, *place, path).map_err(|error| (path.clone(), error))?;
            }
            Ok(())
        })();
        result.map_err(|(path, error)| failed(&path, error, 0, self.volume.root()))
    }

    fn step_back(&self, new: &Beneath, old: &OwnedFd, number: usize, place: bool, path: &[u8]) -> Result<(), Errno> {
        if place {
            // The outermost folder that is no longer among the new ones is what was moved.
            let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]);
            for at in ends {
                let part = &path[..at];
                if there(new, part)? {
                    continue;
                }
                let (parent, name) = split(part).ok_or(Errno::INVAL)?;
                if there(self.volume, part)? {
                    rename(&self.volume.folder(parent)?, name, &new.folder(parent)?, name)?;
                }
                break;
            }
        }
        let number = number.to_string();
        if exists(old, number.as_bytes())? {
            let (parent, name) = split(path).ok_or(Errno::INVAL)?;
            rename(old, number.as_bytes(), &self.volume.folder(parent)?, name)?;
        }
        Ok(())
    }

    fn sides(&self) -> Result<(Beneath, OwnedFd), Errno> {
        let open = |name: &str| rustix::fs::openat(self.hidden, name, FOLDER, Mode::empty());
        Ok((Beneath::new(open(NEW)?), open(OLD)?))
    }

    /// Whether each step puts something new into place, and the path.
    fn read(&self) -> Result<Vec<(bool, Vec<u8>)>, Errno> {
        let file = open_file(self.hidden, SWAP)?;
        let mut steps = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            let (kind, path) = line.split_once(' ').ok_or(Errno::INVAL)?;
            steps.push((kind == "P", unescape(path).map_err(|_| Errno::INVAL)?));
        }
        Ok(steps)
    }
}

fn create(folder: &OwnedFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn open_file(folder: &OwnedFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty()).map(File::from)
}

fn remove_file(folder: &OwnedFd, name: &str) {
    if let Err(error) = rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        warn!("{name} of an undone swap stays: {}", words(error));
    }
}

/// The names in a folder.
fn names(folder: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn exists(folder: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is something at a path, all folders above it being folders.
fn there(root: &Beneath, path: &[u8]) -> Result<bool, Errno> {
    let Some((parent, name)) = split(path) else { return Ok(true) };
    match root.folder(parent) {
        Ok(folder) => exists(&folder, name),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets tests end a swap at any of its renames.
#[cfg(test)]
mod renames {
    use std::cell::Cell;

    use rustix::io::Errno;

    thread_local! {
        /// Renames that go well before one fails, and whether all after it fail too.
        static LEFT: Cell<Option<(usize, bool)>> = const { Cell::new(None) };
    }

    pub(super) fn allow() -> Result<(), Errno> {
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
    pub(super) fn limited<T>(renames: usize, work: impl FnOnce() -> T) -> T {
        with(Some((renames, true)), work)
    }

    /// One rename fails after as many that go well.
    pub(super) fn failing_once<T>(renames: usize, work: impl FnOnce() -> T) -> T {
        with(Some((renames, false)), work)
    }

    fn with<T>(left: Option<(usize, bool)>, work: impl FnOnce() -> T) -> T {
        LEFT.set(left);
        let result = work();
        LEFT.set(None);
        result
    }
}

/// Moves a name; never over another one. A folder that its owner may not write is made writable for the time of it.
fn rename(from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8]) -> Result<(), Errno> {
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
            let folder = rustix::fs::openat(from, name, FOLDER, Mode::empty()).map_err(|_| Errno::ACCESS)?;
            let mode = Facts::of(&rustix::fs::fstat(&folder)?).mode;
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode | 0o700)).map_err(|_| Errno::ACCESS)?;
            let gone = go();
            let _ = rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode));
            gone
        }
        other => other,
    }
}

/// Removes a name and all that is below it, without following a symlink.
fn remove_tree(folder: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    struct Level {
        fd: OwnedFd,
        name: CString,
        left: Vec<CString>,
    }
    let open = |parent: &OwnedFd, name: CString| -> Result<Level, Errno> {
        let fd = match rustix::fs::openat(parent, &name, FOLDER, Mode::empty()) {
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(parent, &name, Mode::RWXU, AtFlags::empty())?;
                rustix::fs::openat(parent, &name, FOLDER, Mode::empty())?
            }
            other => other?,
        };
        let mut left = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                left.push(entry.file_name().to_owned());
            }
        }
        Ok(Level { fd, name, left })
    };
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let mut levels = vec![open(folder, name)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            match rustix::fs::unlinkat(&level.fd, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let next = open(&level.fd, name)?;
                    levels.push(next);
                }
                Err(Errno::ACCESS) => {
                    // A folder that even its owner may not write; or one that is not ours, which fails again.
                    let is_folder = rustix::fs::statat(&level.fd, &name, AtFlags::SYMLINK_NOFOLLOW)
                        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
                    rustix::fs::fchmod(&level.fd, Mode::RWXU).map_err(|_| Errno::ACCESS)?;
                    if is_folder {
                        let next = open(&level.fd, name)?;
                        levels.push(next);
                    } else {
                        rustix::fs::unlinkat(&level.fd, &name, AtFlags::empty())?;
                    }
                }
                Err(error) => return Err(error),
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let parent = levels.last().map_or(folder, |level| &level.fd);
        match rustix::fs::unlinkat(parent, &done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ACCESS) => {
                rustix::fs::fchmod(parent, Mode::RWXU).map_err(|_| Errno::ACCESS)?;
                rustix::fs::unlinkat(parent, &done.name, AtFlags::REMOVEDIR)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, FOLDER, Mode::empty()).unwrap()
    }

    fn write(root: &Path, files: &[&str], content: &str) {
        for file in files {
            let at = root.join(file);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, content).unwrap();
        }
    }

    /// Files of a volume with their content.
    fn files(root: &Path) -> BTreeMap<String, String> {
        fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, found);
                } else {
                    found.insert(
                        path.strip_prefix(root).unwrap().display().to_string(),
                        fs::read_to_string(&path).unwrap(),
                    );
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(root, root, &mut found);
        found
    }

    fn stage(root: &Path, what: &Swap) -> Stage {
        let stage = Stage::create(open(root)).unwrap();
        let new = root.join(std::str::from_utf8(&stage.name).unwrap()).join(NEW);
        write(&new, &["both", "photos/b", "photos/deep/c", "fresh/x/y", "fresh/z"], "new");
        if matches!(what, Swap::Units) {
            let mut units = stage.units().unwrap();
            for unit in ["both", "photos/b", "photos/deep", "fresh/x/y", "fresh/z", "never/came"] {
                write_unit(&mut units, unit.as_bytes()).unwrap();
            }
            units.flush().unwrap();
        }
        stage
    }

    fn volume() -> (tempfile::TempDir, BTreeMap<String, String>) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &["both", "gone/a", "photos/a", "photos/b", "photos/deep/old", "never/came"], "old");
        let before = files(folder.path());
        (folder, before)
    }

    fn swapped(what: &Swap) -> BTreeMap<String, String> {
        let new =
            ["both", "photos/b", "photos/deep/c", "fresh/x/y", "fresh/z"].map(|f| (f.to_owned(), "new".to_owned()));
        let kept = ["gone/a", "photos/a", "never/came"].map(|f| (f.to_owned(), "old".to_owned()));
        new.into_iter().chain(kept.into_iter().filter(|_| matches!(what, Swap::Units))).collect()
    }

    #[test]
    fn a_swap_puts_the_new_content_into_place_and_leaves_nothing_else() {
        for what in [Swap::Everything, Swap::Units] {
            let (folder, _) = volume();
            let mut stage = stage(folder.path(), &what);
            stage.swap(&what).unwrap();
            assert_eq!(stage.finish(), None);
            assert_eq!(files(folder.path()), swapped(&what));
        }
    }

    #[test]
    fn a_swap_that_is_cut_off_after_any_rename_is_undone_by_the_next_attempt() {
        for what in [Swap::Everything, Swap::Units] {
            for cut in 0..30 {
                let (folder, before) = volume();
                let stage = stage(folder.path(), &what);
                stage.write_steps(&what).unwrap();
                let done = renames::limited(cut, || Steps { volume: &stage.volume, hidden: &stage.hidden }.run());
                let over = done.is_ok();
                // The Pod is gone: nobody cleans up, and the lock goes with it.
                let Stage { volume, hidden, .. } = &stage;
                let _ = (volume, rustix::fs::flock(hidden, FlockOperation::Unlock));
                std::mem::forget(stage);

                assert!(interrupted(&open(folder.path())).unwrap().is_some());
                let next = Stage::create(open(folder.path())).unwrap();
                drop(next);
                assert_eq!(files(folder.path()), before, "after {cut} renames");
                if over {
                    assert!(cut > 5, "the swap took {cut} renames only");
                    break;
                }
            }
        }
    }

    #[test]
    fn an_undo_that_is_cut_off_is_taken_up_again() {
        for what in [Swap::Everything, Swap::Units] {
            for cut in 0..30 {
                let (folder, before) = volume();
                let stage = stage(folder.path(), &what);
                stage.write_steps(&what).unwrap();
                let steps = Steps { volume: &stage.volume, hidden: &stage.hidden };
                steps.run().unwrap();
                let over = renames::limited(cut, || steps.undo()).is_ok();
                steps.undo().unwrap();
                remove_file(&stage.hidden, SWAP);
                drop(stage);
                assert_eq!(files(folder.path()), before, "after {cut} renames");
                if over {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_swap_whose_step_fails_puts_everything_back() {
        for what in [Swap::Everything, Swap::Units] {
            for cut in 0..5 {
                let (folder, before) = volume();
                let mut stage = stage(folder.path(), &what);
                renames::failing_once(cut, || stage.swap(&what)).unwrap_err();
                drop(stage);
                assert_eq!(files(folder.path()), before, "failing at rename {cut}");
            }
        }
    }

    #[test]
    fn a_volume_that_came_to_hold_something_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut stage = stage(folder.path(), &Swap::IntoEmpty);
        write(folder.path(), &["made/meanwhile"], "app");
        assert_eq!(stage.swap(&Swap::IntoEmpty).unwrap_err().reason, Reason::TargetNotEmpty);
        drop(stage);
        assert_eq!(files(folder.path()).into_keys().collect::<Vec<_>>(), ["made/meanwhile"]);
    }

    #[test]
    fn what_an_attempt_left_is_cleared_away_but_not_a_restore_that_is_at_work() {
        let (folder, before) = volume();
        let left = folder.path().join(".holdfast-restore-00000001");
        write(&left, &["new/a/b"], "left");
        fs::set_permissions(left.join("new/a"), std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
        let first = Stage::create(open(folder.path())).unwrap();
        assert!(!left.exists());
        let failure = Stage::create(open(folder.path())).err().unwrap();
        assert!(failure.message.contains("another restore"), "{failure}");
        drop(first);
        drop(Stage::create(open(folder.path())).unwrap());
        assert_eq!(files(folder.path()), before);
    }
}

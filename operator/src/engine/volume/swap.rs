//! The swap that puts what a restore has built into its place: its steps, put down before the first is taken, so that they can be taken back.
//! Talks to the file system.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Mode, OFlags, Timestamps};
use rustix::io::Errno;
use tracing::warn;

use super::ahead::words;
use super::beneath::{Beneath, split};
use super::facts::Facts;
use super::merge::Merge;
use super::names::{FOLDER, exists, rename, there};
use super::place::{failed, times};
use super::scope::Scope;
use crate::archive::file_index::unescape;
use crate::archive::tar::printable;
use crate::task::Failure;

/// The new content.
pub(super) const NEW: &str = "new";
/// What it replaces, by number of the step.
pub(super) const OLD: &str = "old";
/// Paths that are swapped in, where only some are.
pub(super) const UNITS: &str = "units";
/// The steps: while the file is there, the swap is not over.
pub(super) const SWAP: &str = "swap";
/// The steps while they are put down.
const UNFINISHED: &str = "steps";

/// What of a volume is replaced.
pub(super) struct Swap {
    /// What the restore replaces.
    pub(super) scope: Scope,
    /// Which of what is there may go for it.
    pub(super) old: Old,
    /// Whether only the paths in the file of units are swapped in.
    pub(super) units: bool,
}

/// What may be in a volume that a restore goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Old {
    /// Anything: what the restore replaces goes.
    Goes,
    /// Nothing.
    None,
    /// Nothing but what other sources of the same request have brought.
    OfOthers,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What is there goes away.
    Away,
    /// What is new comes, and what is there goes away for it.
    Place,
    /// What is there moves over to the new folder that takes the place of the one above it.
    Keep,
}

impl Step {
    const ALL: [(Self, &str); 3] = [(Self::Away, "A"), (Self::Place, "P"), (Self::Keep, "K")];

    fn letter(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("", |(_, letter)| letter)
    }

    fn read(line: &[u8]) -> Option<(Self, Vec<u8>)> {
        let (letter, path) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let (step, _) = Self::ALL.iter().find(|(_, known)| *known == letter)?;
        Some((*step, unescape(path).ok()?))
    }
}

/// The steps of a swap, as its file has them.
pub(super) struct Steps<'a> {
    /// The volume.
    pub(super) volume: &'a Beneath,
    /// The restore's hidden folder.
    pub(super) hidden: &'a OwnedFd,
}

impl Steps<'_> {
    /// Puts them down, on the disk.
    ///
    /// # Errors
    /// Where the disk does not take them, or something that stays is in the way.
    pub(super) fn write(&self, what: &Swap) -> Result<(), Failure> {
        let trouble = |error: io::Error| self.trouble(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let new = self.sides().map_err(|e| self.trouble(e))?.0;
        let merge = Merge { volume: self.volume, new: &new, scope: &what.scope };
        let file = create(self.hidden, UNFINISHED).map_err(|e| self.trouble(e))?;
        let mut steps = BufWriter::new(file);
        let mut take =
            |step: Step, path: &[u8]| writeln!(steps, "{} {}", step.letter(), printable(path)).map_err(trouble);
        if what.units {
            let units = open_file(self.hidden, UNITS).map_err(|e| trouble(e.into()))?;
            for line in BufReader::new(units).lines() {
                let path = line.and_then(|line| unescape(&line).map_err(io::Error::other)).map_err(trouble)?;
                merge.unit(&path, &mut take)?;
            }
        } else {
            merge.all(&mut take)?;
        }
        let file = steps.into_inner().map_err(|e| trouble(e.into_error()))?;
        file.sync_all().map_err(trouble)?;
        // From here on it may have been begun.
        rustix::fs::renameat(self.hidden, UNFINISHED, self.hidden, SWAP).map_err(|e| self.trouble(e))
    }

    /// Takes each step.
    pub(super) fn run(&self) -> Result<(), (Vec<u8>, Errno)> {
        let at_all = |e| (Vec::new(), e);
        let (new, old) = self.sides().map_err(at_all)?;
        let file = open_file(self.hidden, SWAP).map_err(at_all)?;
        let unread = |e: io::Error| at_all(Errno::from_io_error(&e).unwrap_or(Errno::IO));
        for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
            let (step, path) = Step::read(&line.map_err(unread)?).ok_or_else(|| at_all(Errno::INVAL))?;
            self.step(&new, &old, number, step, &path).map_err(|error| (path, error))?;
        }
        Ok(())
    }

    fn step(&self, new: &Beneath, old: &OwnedFd, number: usize, step: Step, path: &[u8]) -> Result<(), Errno> {
        let number = number.to_string();
        if step == Step::Place && !there(new, path)? {
            // It came along with a folder above it.
            return Ok(());
        }
        if step == Step::Keep {
            let (parent, name) = split(path).ok_or(Errno::INVAL)?;
            let (from, to) = (self.volume.folder(parent)?, new.folder(parent)?);
            if !exists(&from, name)? {
                return Ok(());
            }
            let times = mtime(&to)?;
            if exists(&to, name)? {
                rename(&to, name, old, number.as_bytes())?;
            }
            rename(&from, name, &to, name)?;
            // The folder is as it was saved, its time, too, as far as it may be set.
            let _ = rustix::fs::futimens(&to, &times);
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
            rename(&parent_there, name, old, number.as_bytes())?;
        }
        if step == Step::Place {
            rename(&new.folder(parent)?, name, &parent_there, name)?;
        }
        Ok(())
    }

    /// Takes back the steps that were taken, the last one first.
    pub(super) fn undo(&self) -> Result<(), Failure> {
        let result = (|| -> Result<(), (Vec<u8>, Errno)> {
            let at_all = |e| (Vec::new(), e);
            let unread = |e: io::Error| at_all(Errno::from_io_error(&e).unwrap_or(Errno::IO));
            let (new, old) = self.sides().map_err(at_all)?;
            let file = open_file(self.hidden, SWAP).map_err(at_all)?;
            let mut number = BufReader::new(&file).split(b'\n').count();
            let mut lines = Backwards::of(file).map_err(unread)?;
            while let Some(line) = lines.next().map_err(unread)? {
                number = number.saturating_sub(1);
                let (step, path) = Step::read(&line).ok_or_else(|| at_all(Errno::INVAL))?;
                self.step_back(&new, &old, number, step, &path).map_err(|error| (path, error))?;
            }
            Ok(())
        })();
        result.map_err(|(path, error)| failed(&path, error, 0, self.volume.root()))
    }

    fn step_back(&self, new: &Beneath, old: &OwnedFd, number: usize, step: Step, path: &[u8]) -> Result<(), Errno> {
        let number = number.to_string();
        let (parent, name) = split(path).ok_or(Errno::INVAL)?;
        if step == Step::Keep {
            if there(new, path)? && !there(self.volume, path)? {
                rename(&new.folder(parent)?, name, &self.volume.folder(parent)?, name)?;
            }
            if exists(old, number.as_bytes())? {
                rename(old, number.as_bytes(), &new.folder(parent)?, name)?;
            }
            return Ok(());
        }
        if step == Step::Place {
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
        if exists(old, number.as_bytes())? {
            rename(old, number.as_bytes(), &self.volume.folder(parent)?, name)?;
        }
        Ok(())
    }

    fn trouble(&self, error: Errno) -> Failure {
        failed(SWAP.as_bytes(), error, 0, self.volume.root())
    }

    fn sides(&self) -> Result<(Beneath, OwnedFd), Errno> {
        let open = |name: &str| rustix::fs::openat(self.hidden, name, FOLDER, Mode::empty());
        Ok((Beneath::new(open(NEW)?), open(OLD)?))
    }
}

/// The lines of a file, the last one first: there may be more of them than memory has room for.
struct Backwards {
    file: File,
    /// Bytes before those at hand.
    before: u64,
    /// Bytes of lines that have not been given, without the end of the last one.
    bytes: Vec<u8>,
}

impl Backwards {
    const PIECE: u64 = 64 * 1024;

    fn of(file: File) -> io::Result<Self> {
        let before = file.metadata()?.len();
        let mut lines = Self { file, before, bytes: Vec::new() };
        lines.more()?;
        lines.bytes.pop_if(|last| *last == b'\n');
        Ok(lines)
    }

    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = memchr::memrchr(b'\n', &self.bytes) {
                let line = self.bytes.split_off(at + 1);
                self.bytes.pop();
                return Ok(Some(line));
            }
            if self.before == 0 {
                // No line is empty.
                return Ok(Some(std::mem::take(&mut self.bytes)).filter(|line| !line.is_empty()));
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let length = self.before.min(Self::PIECE);
        self.before -= length;
        let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut piece, self.before)?;
        piece.append(&mut self.bytes);
        self.bytes = piece;
        Ok(())
    }
}

fn mtime(folder: &OwnedFd) -> Result<Timestamps, Errno> {
    Ok(times(Facts::of(&rustix::fs::fstat(folder)?).mtime))
}

pub(super) fn create(folder: &OwnedFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

pub(super) fn open_file(folder: &OwnedFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty()).map(File::from)
}

pub(super) fn remove_file(folder: &OwnedFd, name: &str) {
    if let Err(error) = rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        warn!("{name} of an undone swap stays: {}", words(error));
    }
}

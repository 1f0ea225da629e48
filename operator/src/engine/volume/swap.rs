//! The swap that puts what a restore has built into its place: its steps, put down before the first is taken, so that they can be taken back.
//! Talks to the file system.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tracing::warn;

use super::ahead::words;
use super::beneath::{Beneath, split};
use super::names::{FOLDER, content, exists, names, rename, there};
use super::place::failed;
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

/// What of a volume is replaced.
pub(super) enum Swap {
    /// All there is.
    Everything,
    /// Nothing: there must be nothing.
    IntoEmpty,
    /// The paths in the file of units.
    Units,
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
    /// Where the disk does not take them.
    pub(super) fn write(&self, what: &Swap) -> Result<(), Failure> {
        let trouble = |error: io::Error| self.trouble(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let new = self.sides().map_err(|e| self.trouble(e))?.0;
        let file = create(self.hidden, SWAP).map_err(|e| self.trouble(e))?;
        let mut steps = BufWriter::new(file);
        match what {
            Swap::Everything | Swap::IntoEmpty => {
                let there = content(self.volume.root()).map_err(|e| trouble(e.into()))?;
                for name in there {
                    writeln!(steps, "A {}", printable(&name)).map_err(trouble)?;
                }
                for name in names(new.root()).map_err(|e| trouble(e.into()))? {
                    writeln!(steps, "P {}", printable(&name)).map_err(trouble)?;
                }
            }
            Swap::Units => {
                let units = open_file(self.hidden, UNITS).map_err(|e| trouble(e.into()))?;
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

    /// Takes each step.
    pub(super) fn run(&self) -> Result<(), (Vec<u8>, Errno)> {
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
    pub(super) fn undo(&self) -> Result<(), Failure> {
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

    fn trouble(&self, error: Errno) -> Failure {
        failed(SWAP.as_bytes(), error, 0, self.volume.root())
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

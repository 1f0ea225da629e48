//! Files, folders and links made from members of an archive, with their attributes. Talks to the file system.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::Receiver;

use holdfast_crds::Reason;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::ahead::words;
use super::census::Tally;
use super::facts::Facts;
use crate::archive::file_index::ContentHash;
use crate::archive::tar::{Entry, Kind, Mtime, printable};
use crate::task::Failure;

/// `UTIME_OMIT` of `utimensat(2)`: leave this time alone.
const OMIT: i64 = (1 << 30) - 2;
/// File systems leave out whole pages.
const HOLE_BYTES: usize = 4096;
/// Attributes that give rights to whoever runs a file.
const CAPABILITY: &[u8] = b"security.capability";

/// What could not be brought back as it was: counted and named, never passed over in silence.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Owner or group could not be set.
    pub(super) ownership: Tally,
    /// An extended attribute could not be set.
    pub(super) attributes: Tally,
    /// Permissions or times could not be set.
    pub(super) modes: Tally,
    /// setuid, setgid or capabilities were left out.
    pub(super) privileges: Tally,
    /// Devices were left out.
    pub(super) devices: Tally,
}

impl Losses {
    /// In words, for the message of the restore; empty where nothing was lost.
    pub(super) fn in_words(&self) -> Vec<String> {
        [
            (
                "owner or group could not be set on",
                &self.ownership,
                " (only root may give files away; runAs says who writes)",
            ),
            ("extended attributes could not be set on", &self.attributes, ""),
            ("permissions or times could not be set on", &self.modes, ""),
            ("setuid, setgid or capabilities were left out of", &self.privileges, " (keepPrivileges: true keeps them)"),
            ("devices were left out", &self.devices, ""),
        ]
        .into_iter()
        .filter(|(_, tally, _)| tally.count() > 0)
        .map(|(what, tally, advice)| format!("{what} {}{advice}", tally.in_words()))
        .collect()
    }
}

/// Whether files get the owners that the archive names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// They do.
    Kept,
    /// They belong to whoever writes them.
    Dropped,
}

/// How members become files.
#[derive(Debug)]
pub(super) struct Placer {
    /// Whether setuid, setgid and capabilities are kept.
    pub(super) keep_privileges: bool,
    owners: Owners,
    /// Whether this process is root: it may give files away.
    is_root: bool,
    pub(super) losses: Losses,
}

/// The content of a file as it comes.
pub(super) enum Content {
    /// All of it.
    Whole(Vec<(u64, Vec<u8>)>),
    /// Piece by piece; the end is an empty piece, and without one it broke off.
    Pieces(Receiver<(u64, Vec<u8>)>),
}

impl Placer {
    pub(super) fn new(keep_privileges: bool, owners: Owners) -> Self {
        Self { keep_privileges, owners, is_root: rustix::process::geteuid().is_root(), losses: Losses::default() }
    }

    /// Makes a file and gives the hash of its content. None: it broke off, and why is known elsewhere.
    pub(super) fn file(
        &self,
        folder: impl AsFd,
        name: &[u8],
        entry: &Entry,
        content: Content,
    ) -> Result<Option<[u8; 32]>, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut hash = ContentHash::new(&entry.kind);
        let mut put = |offset: u64, bytes: &[u8]| -> Result<(), Errno> {
            if entry.holes_as_zeros {
                write_around_zeros(&file, bytes, offset)?;
            } else {
                write_at(&file, bytes, offset)?;
            }
            hash.update(offset, bytes);
            Ok(())
        };
        match content {
            Content::Whole(pieces) => pieces.iter().try_for_each(|(offset, bytes)| put(*offset, bytes))?,
            Content::Pieces(pieces) => loop {
                match pieces.recv() {
                    Ok((_, bytes)) if bytes.is_empty() => break,
                    Ok((offset, bytes)) => put(offset, &bytes)?,
                    Err(_) => return Ok(None),
                }
            },
        }
        if let Kind::File { size, data } = &entry.kind
            && (data.is_some() || entry.holes_as_zeros)
        {
            rustix::fs::ftruncate(&file, *size)?;
        }
        self.attributes(&file, entry)?;
        Ok(Some(hash.finish()))
    }

    /// Makes a symbolic link.
    pub(super) fn symlink(&self, folder: impl AsFd, name: &[u8], target: &[u8], entry: &Entry) -> Result<(), Errno> {
        rustix::fs::symlinkat(target, &folder, name)?;
        if self.owners == Owners::Dropped {
            // They are the writer's.
        } else if let Some((uid, gid)) = owner(entry) {
            let nofollow = AtFlags::SYMLINK_NOFOLLOW;
            let given = rustix::fs::chownat(&folder, name, Some(uid), Some(gid), nofollow);
            if given.is_err() {
                let _ = rustix::fs::chownat(&folder, name, None, Some(gid), nofollow);
                let now = Facts::of(&rustix::fs::statat(&folder, name, nofollow)?);
                if (now.uid, now.gid) != (entry.uid, entry.gid) {
                    self.losses.ownership.add(&entry.path);
                }
            }
        } else {
            self.losses.ownership.add(&entry.path);
        }
        if rustix::fs::utimensat(&folder, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).is_err() {
            self.losses.modes.add(&entry.path);
        }
        Ok(())
    }

    /// Makes a named pipe.
    pub(super) fn fifo(&self, folder: impl AsFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        rustix::fs::mkfifoat(&folder, name, Mode::RUSR | Mode::WUSR)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pipe = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
        self.attributes(&pipe, entry)
    }

    /// Gives an open file or folder its owner, attributes, permissions and time: in this order, because a change of owner drops setuid and
    /// capabilities, a file that its owner may not write takes no `user.*` from it, and every change of the content sets the time.
    pub(super) fn attributes(&self, file: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
        self.own(file, entry)?;
        let (mode, dropped) = self.mode(entry);
        let mut lost_attribute = false;
        let mut lost_privilege = dropped;
        for (name, value) in &entry.xattrs {
            if name == CAPABILITY && !self.keep_privileges {
                lost_privilege = true;
            } else if let Err(error) = set_attribute(file, mode, name, value) {
                if matches!(error, Errno::NOSPC | Errno::DQUOT) {
                    return Err(error);
                }
                lost_attribute = true;
            }
        }
        if rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).is_err() {
            self.losses.modes.add(&entry.path);
        }
        if lost_privilege {
            self.losses.privileges.add(&entry.path);
        }
        if lost_attribute {
            self.losses.attributes.add(&entry.path);
        }
        if rustix::fs::futimens(file, &times(entry.mtime)).is_err() {
            self.losses.modes.add(&entry.path);
        }
        Ok(())
    }

    fn own(&self, file: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
        if self.owners == Owners::Dropped {
            return Ok(());
        }
        let Some((uid, gid)) = owner(entry) else {
            self.losses.ownership.add(&entry.path);
            return Ok(());
        };
        if !self.is_root {
            // Often it is ours already, and there is nothing to ask.
            let now = Facts::of(&rustix::fs::fstat(file)?);
            if (now.uid, now.gid) == (entry.uid, entry.gid) {
                return Ok(());
            }
        }
        if rustix::fs::fchown(file, Some(uid), Some(gid)).is_err() {
            // A group that we are a member of we may give, if not the owner.
            let _ = rustix::fs::fchown(file, None, Some(gid));
            let now = Facts::of(&rustix::fs::fstat(file)?);
            if (now.uid, now.gid) != (entry.uid, entry.gid) {
                self.losses.ownership.add(&entry.path);
            }
        }
        Ok(())
    }

    /// The permissions to set, and whether some of them were left out. setgid on a folder only hands its group on, so it stays.
    fn mode(&self, entry: &Entry) -> (u32, bool) {
        let mode = entry.mode & 0o7777;
        let kept = match entry.kind {
            _ if self.keep_privileges => mode,
            Kind::Folder => mode & !0o4000,
            _ => mode & !0o6000,
        };
        (kept, kept != mode)
    }
}

/// Sets an attribute, also on a folder that was there before and that its owner may not write until then.
fn set_attribute(file: &OwnedFd, mode: u32, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let set = || rustix::fs::fsetxattr(file, name, value, XattrFlags::empty());
    match set() {
        Err(Errno::ACCESS) if rustix::fs::fchmod(file, Mode::from_raw_mode(mode | 0o600)).is_ok() => set(),
        other => other,
    }
}

fn owner(entry: &Entry) -> Option<(Uid, Gid)> {
    // The largest number means "leave it".
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    Some((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

pub(super) fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) },
    }
}

/// Writes what is no zeros; the rest of the file is a hole.
fn write_around_zeros(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let (mut at, mut begin) = (0, 0);
    for block in bytes.chunks(HOLE_BYTES) {
        let end = at + block.len();
        if block.iter().all(|byte| *byte == 0) {
            write_at(file, &bytes[begin..at], offset + begin as u64)?;
            begin = end;
        }
        at = end;
    }
    write_at(file, &bytes[begin..], offset + begin as u64)
}

fn write_at(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a failed step of a restore means. `volume` is asked for its figures where it is full.
pub(super) fn failed(path: &[u8], error: Errno, needed: u64, volume: &OwnedFd) -> Failure {
    let name = printable(&path[..path.len().min(300)]);
    match error {
        Errno::NOSPC | Errno::DQUOT => no_space(&format!("it was full at {name}"), needed, volume),
        Errno::ROFS => Failure::new(Reason::SourceRefused, format!("{name}: the volume can only be read")),
        Errno::ACCESS | Errno::PERM => Failure::new(
            Reason::SourceRefused,
            format!("{name} cannot be written: {}; set runAs to the volume's owner", words(error)),
        ),
        Errno::EXIST => Failure::new(
            Reason::RestoreFailed,
            format!("{name} is there already: twice in the archive, or made meanwhile"),
        ),
        error => Failure::new(Reason::RestoreFailed, format!("{name}: {}", words(error))),
    }
}

/// A volume that is too small, with figures.
pub(super) fn no_space(what: &str, needed: u64, volume: &OwnedFd) -> Failure {
    let figures = match rustix::fs::fstatvfs(volume) {
        Ok(disk) => format!(
            "{} of {} bytes and {} of {} inodes are free",
            disk.f_bavail * disk.f_frsize,
            disk.f_blocks * disk.f_frsize,
            disk.f_favail,
            disk.f_files
        ),
        Err(_) => "how much is free cannot be told".to_owned(),
    };
    Failure::new(
        Reason::NoSpace,
        format!(
            "the volume is too small: {what}; the restore takes {needed} bytes beside what is there, {figures} now; what was there is as before"
        ),
    )
}

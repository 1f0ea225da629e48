//! The walk over a volume: names what there is, folder by folder, without following a single symlink. Talks to the file system.
//!
//! Order: a folder, its files by name, then its folders by name, each with all that is in it. A restore relies on folders coming before what is
//! in them; nothing relies on more.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};

use holdfast_crds::Reason;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::ahead::{Message, Shared};
use super::facts::{Facts, xattrs};
use super::links::Role;
use super::names::is_hidden;
use crate::archive::tar::{Entry, Kind};
use crate::task::{Failure, Globs};

/// Names of a folder that are read and sorted at once.
const NAMES: usize = 1 << 16;
/// Items that a reader takes on at once, and the bytes in their files above which it gets no more.
const BATCH_ITEMS: usize = 32;
const BATCH_BYTES: u64 = 256 * 1024;

/// Something to put into the archive.
pub(super) struct Item {
    pub(super) folder: Arc<OwnedFd>,
    pub(super) name: CString,
    pub(super) path: Vec<u8>,
    pub(super) facts: Facts,
    pub(super) what: What,
}

/// What is done with it.
pub(super) enum What {
    /// A folder, read by the walk itself.
    Folder(Box<Entry>),
    /// A file, with its part among the names of one file.
    File(Role),
    /// Anything else.
    Other,
}

/// Items for one reader, and where it puts what comes of them.
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) out: Sender<Message>,
}

/// What the stream gets, in the archive's order.
pub(super) enum Slot {
    /// What comes of a batch.
    Batch(Receiver<Message>),
    /// The walk is over.
    Done,
    /// The walk cannot go on.
    Failed(Failure),
}

/// What is walked.
pub(super) struct Scope {
    pub(super) root: Arc<OwnedFd>,
    pub(super) include: Globs,
    pub(super) exclude: Globs,
}

/// A folder whose content is being walked.
struct Level {
    fd: Arc<OwnedFd>,
    path: Vec<u8>,
    /// Whether everything in it is meant.
    included: bool,
    /// Its own member, while nothing in it has been found to be meant.
    entry: Option<(Facts, Box<Entry>)>,
    /// Folders in it that are still to be walked, the next one last.
    folders: Vec<CString>,
}

/// Walks in this thread, and hands on what it finds.
pub(super) struct Walk {
    pub(super) scope: Scope,
    pub(super) shared: Arc<Shared>,
    pub(super) slots: SyncSender<Slot>,
    pub(super) batches: SyncSender<Batch>,
    items: Vec<Item>,
    bytes: u64,
}

/// Why a walk ends early.
enum Stop {
    /// Nobody takes what it finds any more.
    Unwanted,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Walk {
    pub(super) fn new(scope: Scope, shared: Arc<Shared>, slots: SyncSender<Slot>, batches: SyncSender<Batch>) -> Self {
        Self { scope, shared, slots, batches, items: Vec::new(), bytes: 0 }
    }

    /// To the end, or until nobody listens.
    pub(super) fn run(mut self) {
        let end = match self.walk() {
            Ok(()) => Slot::Done,
            Err(Stop::Failed(failure)) => Slot::Failed(failure),
            Err(Stop::Unwanted) => return,
        };
        // Whoever is gone does not want to know.
        let _ = self.slots.send(end);
    }

    fn walk(&mut self) -> Result<(), Stop> {
        let root = self.scope.root.clone();
        let entry = Self::folder_entry(&root, Vec::new()).map_err(|e| {
            Failure::new(
                Reason::SourceRefused,
                format!("the volume's root cannot be read: {e}; set runAs to its owner"),
            )
        })?;
        let mut levels = vec![Level {
            fd: root,
            path: Vec::new(),
            included: self.scope.include.is_empty(),
            entry: Some(entry),
            folders: Vec::new(),
        }];
        self.announce(&mut levels)?;
        self.files(&mut levels)?;
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.folders.pop() else {
                levels.pop();
                continue;
            };
            if self.enter(&mut levels, &name)? {
                self.files(&mut levels)?;
            }
        }
        self.hand_on()
    }

    /// Opens a folder of the last level. False: there is nothing to be had of it.
    fn enter(&mut self, levels: &mut Vec<Level>, name: &CString) -> Result<bool, Stop> {
        let Some(parent) = levels.last() else { return Ok(false) };
        let path = join(&parent.path, name);
        let included = parent.included || self.scope.include.matches(&path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&*parent.fd, name, flags, Mode::empty())
            .and_then(|fd| Self::folder_entry(&fd, path.clone()).map(|entry| (fd, entry)));
        let (fd, entry) = match opened {
            Ok(opened) => opened,
            Err(Errno::MFILE | Errno::NFILE) => {
                let why = format!("folders are nested deeper than files can be open: {} levels", levels.len());
                return Err(Failure::new(Reason::SourceIncomplete, why).into());
            }
            Err(error) => {
                self.shared.unread(&path, error);
                return Ok(false);
            }
        };
        levels.push(Level { fd: Arc::new(fd), path, included, entry: Some(entry), folders: Vec::new() });
        if included {
            self.announce(levels)?;
        }
        Ok(true)
    }

    /// The files of the last level; its folders are kept for later.
    fn files(&mut self, levels: &mut [Level]) -> Result<(), Stop> {
        let Some(level) = levels.last() else { return Ok(()) };
        let (fd, path) = (level.fd.clone(), level.path.clone());
        let mut listing = match Dir::read_from(&*fd) {
            Ok(listing) => listing,
            Err(error) if path.is_empty() => {
                let why = format!("the volume's root cannot be listed: {error}; set runAs to its owner");
                return Err(Failure::new(Reason::SourceRefused, why).into());
            }
            Err(error) => {
                self.shared.unread(&path, error);
                return Ok(());
            }
        };
        let mut folders = Vec::new();
        loop {
            let mut names: Vec<CString> = Vec::new();
            for listed in listing.by_ref().take(NAMES) {
                match listed {
                    Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                    Ok(entry) => names.push(entry.file_name().to_owned()),
                    Err(error) => {
                        self.shared.unread(&path, error);
                        break;
                    }
                }
            }
            if names.is_empty() {
                break;
            }
            names.sort_unstable();
            for name in names {
                if let Some(folder) = self.meet(levels, &fd, &path, name)? {
                    folders.push(folder);
                }
            }
        }
        folders.sort_unstable();
        folders.reverse();
        if let Some(level) = levels.last_mut() {
            level.folders = folders;
        }
        Ok(())
    }

    /// Looks at one name. A folder that is to be walked is given back.
    fn meet(
        &mut self,
        levels: &mut [Level],
        fd: &Arc<OwnedFd>,
        folder: &[u8],
        name: CString,
    ) -> Result<Option<CString>, Stop> {
        let path = join(folder, &name);
        if self.scope.exclude.matches(&path) || (folder.is_empty() && is_hidden(name.to_bytes())) {
            return Ok(None);
        }
        let included = levels.last().is_some_and(|l| l.included) || self.scope.include.matches(&path);
        let facts = match rustix::fs::statat(&**fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Facts::of(&stat),
            Err(error) => {
                if included {
                    self.shared.unread(&path, error);
                }
                return Ok(None);
            }
        };
        if facts.kind == FileType::Directory {
            if folder.is_empty() && name.to_bytes() == b"lost+found" {
                return Ok(None);
            }
            return Ok((included || self.scope.include.may_match_below(&path)).then_some(name));
        }
        if !included {
            return Ok(None);
        }
        let what = match facts.kind {
            FileType::RegularFile => What::File(self.shared.links.meet(&facts, &path, &self.shared.census)),
            FileType::Socket => {
                self.shared.census.sockets.add(&path);
                return Ok(None);
            }
            _ => What::Other,
        };
        self.announce(levels)?;
        self.push(Item { folder: fd.clone(), name, path, facts, what })?;
        Ok(None)
    }

    /// Hands on the folders that lead here, where that has not been done.
    fn announce(&mut self, levels: &mut [Level]) -> Result<(), Stop> {
        // From the innermost outwards until one that was announced: above it all were.
        let from = levels.iter().rposition(|l| l.entry.is_none()).map_or(0, |at| at + 1);
        for level in &mut levels[from..] {
            if let Some((facts, entry)) = level.entry.take() {
                let (folder, path) = (level.fd.clone(), level.path.clone());
                self.push(Item { folder, name: CString::default(), path, facts, what: What::Folder(entry) })?;
            }
        }
        Ok(())
    }

    fn folder_entry(fd: &OwnedFd, path: Vec<u8>) -> Result<(Facts, Box<Entry>), Errno> {
        let facts = Facts::of(&rustix::fs::fstat(fd)?);
        let entry = Entry {
            path: if path.is_empty() { b".".to_vec() } else { path },
            kind: Kind::Folder,
            mode: facts.mode,
            uid: facts.uid,
            gid: facts.gid,
            mtime: facts.mtime,
            xattrs: xattrs(fd)?,
            ..Entry::default()
        };
        Ok((facts, Box::new(entry)))
    }

    fn push(&mut self, item: Item) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(item.facts.size);
        self.items.push(item);
        if self.items.len() >= BATCH_ITEMS || self.bytes >= BATCH_BYTES {
            self.hand_on()?;
        }
        Ok(())
    }

    fn hand_on(&mut self) -> Result<(), Stop> {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        if items.is_empty() {
            return Ok(());
        }
        let (out, slot) = channel();
        self.slots.send(Slot::Batch(slot)).map_err(|_| Stop::Unwanted)?;
        self.batches.send(Batch { items, out }).map_err(|_| Stop::Unwanted)
    }
}

fn join(folder: &[u8], name: &CString) -> Vec<u8> {
    if folder.is_empty() { name.to_bytes().to_vec() } else { [folder, b"/", name.to_bytes()].concat() }
}

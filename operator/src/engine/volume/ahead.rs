//! Readers: several threads read files ahead of the stream, each into buffers of its own. Talks to the file system.
//!
//! Batches are taken in the archive's order, and a reader has one at a time: so the oldest batch that is not done always has a reader, whose
//! buffers come back as the stream takes them. No reader can wait for another one for ever.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use holdfast_crds::{OnUnreadable, Reason};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::census::Census;
use super::facts::{Facts, LEAST_HOLES, extents, xattrs};
use super::links::{Further, Links, Role};
use super::walk::{Batch, Item, What};
use crate::archive::file_index::{ContentHash, Line};
use crate::archive::tar::{self, Entry, Extent, Kind};
use crate::task::Failure;

/// Threads that read. Storage answers several questions at once; the work between them is small.
pub(super) const READERS: usize = 4;
/// Buffers of a reader, and bytes of each: 4 MiB in all.
const BUFFERS: usize = 4;
const BUFFER_BYTES: usize = 256 * 1024;

/// What all threads of a dump share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) census: Census,
    pub(super) links: Links,
    on_unreadable: OnUnreadable,
    /// Something cannot be read and the run will fail: what is left is only tried, to name it.
    failing: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Shared {
    pub(super) fn new(on_unreadable: OnUnreadable) -> Self {
        Self {
            census: Census::default(),
            links: Links::default(),
            on_unreadable,
            failing: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Something could not be read.
    pub(super) fn unread(&self, path: &[u8], error: Errno) {
        if matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) {
            // It is gone, or something else has its name.
            self.census.vanished.add(path);
            return;
        }
        self.census.unreadable.add_with(path, &words(error));
        if self.on_unreadable == OnUnreadable::Fail {
            self.failing.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the run will fail for what could not be read.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Keeps why the run fails; the first one counts.
    pub(super) fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// Why the run failed, if it did on this side.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a reader hands to the stream.
pub(super) enum Message {
    /// Bytes of the archive, and the lines of the members that end in them.
    Bytes { bytes: Lent, lines: Vec<u8> },
    /// The batch is over.
    End,
}

/// A buffer that goes back to its reader when the stream is done with it.
pub(super) struct Lent {
    buffer: Vec<u8>,
    filled: usize,
    home: Sender<Vec<u8>>,
}

impl Lent {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A reader that has ended needs it no more.
        let _ = self.home.send(std::mem::take(&mut self.buffer));
    }
}

/// Reads batches until there are none left, or nobody wants them.
pub(super) fn read_batches(batches: &Mutex<Receiver<Batch>>, shared: &Shared) {
    let (home, buffers) = channel();
    for _ in 0..BUFFERS {
        let _ = home.send(vec![0; BUFFER_BYTES]);
    }
    loop {
        let next = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Batch { items, out }) = next else { return };
        let mut output =
            Output { out, home: home.clone(), buffers: &buffers, buffer: None, filled: 0, lines: Vec::new(), sent: 0 };
        for item in items {
            match store(&item, shared, &mut output) {
                Ok(()) => {}
                Err(Stop::Unwanted) => return shared.links.give_up(),
                Err(Stop::Failed(failure)) => {
                    shared.fail(failure);
                    return shared.links.give_up();
                }
            }
        }
        if output.flush().is_err() || output.out.send(Message::End).is_err() {
            return shared.links.give_up();
        }
    }
}

enum Stop {
    /// The stream has been dropped.
    Unwanted,
    Failed(Failure),
}

/// The part of the archive that a batch makes.
struct Output<'a> {
    out: Sender<Message>,
    home: Sender<Vec<u8>>,
    buffers: &'a Receiver<Vec<u8>>,
    buffer: Option<Vec<u8>>,
    filled: usize,
    lines: Vec<u8>,
    /// How many buffers have been handed on.
    sent: usize,
}

impl Output<'_> {
    /// Free bytes, at least one. The first of them are taken by [`Output::advance`].
    fn room(&mut self) -> Result<&mut [u8], Stop> {
        if self.filled == BUFFER_BYTES {
            self.flush()?;
        }
        if self.buffer.is_none() {
            self.buffer = Some(self.buffers.recv().map_err(|_| Stop::Unwanted)?);
        }
        let filled = self.filled;
        self.buffer.as_mut().map(|b| &mut b[filled..]).ok_or(Stop::Unwanted)
    }

    fn advance(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let length = room.len().min(bytes.len());
            room[..length].copy_from_slice(&bytes[..length]);
            self.advance(length);
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// Where the output is, to come back to.
    fn mark(&self) -> (usize, usize) {
        (self.sent, self.filled)
    }

    /// Takes back what was put since the mark. False: some of it has been handed on.
    fn rewind(&mut self, mark: (usize, usize)) -> bool {
        if self.sent == mark.0 {
            self.filled = mark.1;
        }
        self.sent == mark.0
    }

    fn flush(&mut self) -> Result<(), Stop> {
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        let bytes = Lent { buffer, filled: std::mem::take(&mut self.filled), home: self.home.clone() };
        self.sent += 1;
        self.out.send(Message::Bytes { bytes, lines: std::mem::take(&mut self.lines) }).map_err(|_| Stop::Unwanted)
    }
}

/// Puts an item into the archive.
fn store(item: &Item, shared: &Shared, output: &mut Output<'_>) -> Result<(), Stop> {
    match &item.what {
        What::Folder(entry) => member(entry, None, shared, output).map(drop),
        What::Other => other(item, shared, output),
        What::File(Role::Only) => file(item, shared, output).map(drop),
        What::File(Role::First(key)) => first(item, *key, shared, output),
        What::File(Role::Further(key)) => match shared.links.resolve(*key, &item.path) {
            None => Err(Stop::Unwanted),
            Some(Further::LinkTo(target)) => {
                member(&entry(item, Kind::HardLink(target), Vec::new()), None, shared, output).map(drop)
            }
            Some(Further::First) => first(item, *key, shared, output),
        },
    }
}

/// A file whose other names wait for this one.
fn first(item: &Item, key: (u64, u64), shared: &Shared, output: &mut Output<'_>) -> Result<(), Stop> {
    let stored = file(item, shared, output);
    shared.links.settle(key, matches!(stored, Ok(true)));
    stored.map(drop)
}

fn entry(item: &Item, kind: Kind, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Entry {
    let Facts { mode, uid, gid, mtime, .. } = item.facts;
    Entry { path: item.path.clone(), kind, mode, uid, gid, mtime, xattrs, ..Entry::default() }
}

/// Puts a member with no content, or with the hash of one that has been put. False: tar has no place for it.
fn member(entry: &Entry, hash: Option<[u8; 32]>, shared: &Shared, output: &mut Output<'_>) -> Result<bool, Stop> {
    if shared.is_failing() {
        return Ok(false);
    }
    if hash.is_none() && !header(entry, shared, output)? {
        return Ok(false);
    }
    output.lines.extend_from_slice(&Line::of(entry, hash).to_bytes());
    shared.census.entries.fetch_add(1, Ordering::Relaxed);
    if entry.kind != Kind::Folder {
        shared.census.files.fetch_add(1, Ordering::Relaxed);
    }
    if let Kind::File { size, data } = &entry.kind {
        let stored = data.as_ref().map_or(*size, |data| data.iter().map(|e| e.length).sum());
        shared.census.bytes.fetch_add(*size, Ordering::Relaxed);
        shared.census.data.fetch_add(stored, Ordering::Relaxed);
    }
    Ok(true)
}

fn header(entry: &Entry, shared: &Shared, output: &mut Output<'_>) -> Result<bool, Stop> {
    let mut bytes = Vec::with_capacity(3 * tar::BLOCK);
    match tar::header(entry, &mut bytes) {
        Ok(()) => output.put(&bytes).map(|()| true),
        Err(error) => {
            let why = error.to_string();
            shared.census.unwritable.add_with(&entry.path, why.rsplit(": ").next().unwrap_or(&why));
            if shared.on_unreadable == OnUnreadable::Fail {
                shared.failing.store(true, Ordering::Relaxed);
            }
            Ok(false)
        }
    }
}

fn other(item: &Item, shared: &Shared, output: &mut Output<'_>) -> Result<(), Stop> {
    let kind = match item.facts.kind {
        FileType::Symlink => match rustix::fs::readlinkat(&*item.folder, &item.name, Vec::new()) {
            Ok(target) => Kind::Symlink(target.into_bytes()),
            Err(error) => {
                shared.unread(&item.path, error);
                return Ok(());
            }
        },
        FileType::Fifo => Kind::Fifo,
        kind @ (FileType::BlockDevice | FileType::CharacterDevice) => Kind::Device {
            block: kind == FileType::BlockDevice,
            major: rustix::fs::major(item.facts.special),
            minor: rustix::fs::minor(item.facts.special),
        },
        _ => {
            shared.unread(&item.path, Errno::OPNOTSUPP);
            return Ok(());
        }
    };
    member(&entry(item, kind, Vec::new()), None, shared, output).map(drop)
}

/// Puts a file. False: it is not in the archive, and that has been noted.
fn file(item: &Item, shared: &Shared, output: &mut Output<'_>) -> Result<bool, Stop> {
    // A pipe that takes the name of a file must not keep us waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let look = || -> Result<(OwnedFd, Facts, Entry, u64), Errno> {
        let fd = rustix::fs::openat(&*item.folder, &item.name, flags, Mode::empty())?;
        let facts = Facts::of(&rustix::fs::fstat(&fd)?);
        if facts.kind != FileType::RegularFile {
            return Err(Errno::NOENT);
        }
        let Facts { mode, uid, gid, mtime, size, .. } = facts;
        let data = extents(&fd, &facts)?;
        let holes = data.as_ref().map_or(0, |data| size.saturating_sub(data.iter().map(|e| e.length).sum()));
        let holes_as_zeros = (1..LEAST_HOLES).contains(&holes);
        let kind = Kind::File { size, data: data.filter(|_| !holes_as_zeros) };
        let (path, xattrs) = (item.path.clone(), xattrs(&fd)?);
        let entry = Entry { path, kind, mode, uid, gid, mtime, xattrs, holes_as_zeros, ..Entry::default() };
        Ok((fd, facts, entry, if holes_as_zeros { holes } else { 0 }))
    };
    let (fd, facts, entry, zeros) = match look() {
        Ok(found) => found,
        Err(error) => {
            shared.unread(&item.path, error);
            return Ok(false);
        }
    };
    if shared.is_failing() {
        return Ok(false);
    }
    let mark = output.mark();
    if !header(&entry, shared, output)? {
        return Ok(false);
    }
    let (hash, cut) = match content(&fd, &entry, output) {
        Ok(read) => read,
        Err(Broken::Stopped(stop)) => return Err(stop),
        Err(Broken::Unreadable(error)) if output.rewind(mark) => {
            shared.unread(&item.path, error);
            return Ok(false);
        }
        Err(Broken::Unreadable(error)) => {
            let name = tar::printable(&item.path);
            let why = format!("{name} cannot be read to its end: {}; look at the volume's disk", words(error));
            return Err(Stop::Failed(Failure::new(Reason::SourceIncomplete, why)));
        }
    };
    let later = rustix::fs::fstat(&fd).map(|stat| Facts::of(&stat));
    if cut || later.is_ok_and(|later| facts.differs(&later)) {
        shared.census.changed.add(&item.path);
    }
    shared.census.zeros.fetch_add(zeros, Ordering::Relaxed);
    member(&entry, Some(hash), shared, output)
}

enum Broken {
    Unreadable(Errno),
    Stopped(Stop),
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

/// Puts exactly the bytes that the header announced, zeros for those that are no longer there, and what pads them.
fn content(fd: &OwnedFd, entry: &Entry, output: &mut Output<'_>) -> Result<([u8; 32], bool), Broken> {
    let whole;
    let extents: &[Extent] = match &entry.kind {
        Kind::File { data: Some(extents), .. } => extents,
        Kind::File { size, .. } => {
            whole = [Extent { offset: 0, length: *size }];
            &whole
        }
        _ => &[],
    };
    let mut hash = ContentHash::new(&entry.kind);
    let (mut cut, mut put) = (false, 0);
    for extent in extents {
        let (mut at, end) = (extent.offset, extent.offset + extent.length);
        while at < end {
            let room = output.room()?;
            let length = room.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let piece = &mut room[..length];
            let read = if cut { 0 } else { read_at(fd, piece, at).map_err(Broken::Unreadable)? };
            let taken = if read == 0 {
                cut = true;
                piece.fill(0);
                length
            } else {
                read
            };
            hash.update(at, &piece[..taken]);
            output.advance(taken);
            at += taken as u64;
        }
        put += extent.length;
    }
    output.put(&[0; tar::BLOCK][..tar::padding(put)])?;
    Ok((hash.finish(), cut))
}

fn read_at(fd: &OwnedFd, piece: &mut [u8], offset: u64) -> Result<usize, Errno> {
    loop {
        match rustix::io::pread(fd, &mut *piece, offset) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// What the system says of an error, without its number.
pub(super) fn words(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

//! The archive into a folder, member by member: folders and links here, files by the writers. Talks to the file system.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};

use holdfast_crds::Reason;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::beneath::{relative, split};
use super::extraction::Extraction;
use super::names::is_hidden;
use super::place::Content;
use super::writers::{Job, Writers};
use crate::archive::file_index::ContentHash;
use crate::archive::tar::{Entry, Event, Kind, Reader, printable};
use crate::task::{Failure, Globs};

/// Files up to this size are handed over whole, larger ones piece by piece.
const WHOLE_BYTES: u64 = 256 * 1024;
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces of a large file that wait for its writer.
const PIECES_AHEAD: usize = 8;
/// At most this many folders wait for their attributes, which they get when nothing is written into them any more.
const MAX_FOLDERS: usize = 20_000;

/// What the archive is written to.
pub(super) struct ExtractSink {
    shared: Arc<Extraction>,
    reader: Reader,
    chosen: Option<Globs>,
    writers: Writers,
    /// The file whose content comes.
    open: Option<Open>,
    /// Folders that were opened last, by path: members of one folder follow each other.
    cache: VecDeque<(Vec<u8>, Arc<OwnedFd>)>,
    /// Folders that wait for their attributes, outermost first.
    folders: Vec<Entry>,
    /// Folders above the current member that are not chosen themselves.
    above: Vec<Entry>,
    /// Called with each path that is chosen and not below another one: what is swapped in.
    on_unit: OnUnit,
    last_unit: Vec<u8>,
}

/// Keeps a path that is to be swapped in.
pub(super) type OnUnit = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

/// A file whose content comes.
enum Open {
    /// Only hashed: it is not chosen.
    Hashed { number: u64, entry: Box<Entry>, hash: ContentHash },
    /// Gathered until it is whole.
    Gathered { number: u64, entry: Box<Entry>, place: Place, pieces: Vec<(u64, Vec<u8>)> },
    /// Handed on piece by piece.
    Streamed { pieces: SyncSender<(u64, Vec<u8>)>, at: u64, piece: Vec<u8> },
}

/// Where a member goes.
struct Place {
    folder: Arc<OwnedFd>,
    name: Vec<u8>,
}

impl ExtractSink {
    /// Takes the archive apart into the extraction's target.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(super) fn new(shared: Arc<Extraction>, chosen: Option<Globs>, on_unit: OnUnit) -> Result<Self, Failure> {
        let writers = Writers::start(shared.clone())?;
        Ok(Self {
            shared,
            reader: Reader::new(),
            chosen,
            writers,
            open: None,
            cache: VecDeque::new(),
            folders: Vec::new(),
            above: Vec::new(),
            on_unit,
            last_unit: Vec::new(),
        })
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        if self.shared.is_cancelled() {
            return Err(Failure::new(Reason::RestoreFailed, "the restore was given up"));
        }
        if let Some(failure) = self.shared.failure() {
            return Err(failure);
        }
        loop {
            let event = self.reader.next(&mut bytes);
            match event.map_err(|e| Failure::new(Reason::ChecksumMismatch, format!("the archive is damaged: {e}")))? {
                None => return Ok(()),
                Some(Event::Entry(entry)) => {
                    let number = self.shared.next_entry();
                    self.member(number, entry)?;
                }
                Some(Event::Data { offset, bytes }) => self.data(offset, bytes)?,
                Some(Event::FileEnd) => self.file_end()?,
            }
        }
    }

    fn member(&mut self, number: u64, entry: Box<Entry>) -> Result<(), Failure> {
        let hostile = |why: &str| {
            let name = printable(&entry.path[..entry.path.len().min(300)]);
            Failure::new(Reason::RestoreFailed, format!("the archive holds {name}, which is not restored: {why}"))
        };
        let path = relative(&entry.path).map_err(hostile)?;
        if path.split(|b| *b == b'/').next().is_some_and(is_hidden) {
            return Err(hostile("restores keep names like this for themselves"));
        }
        if path.is_empty() {
            if entry.kind != Kind::Folder {
                return Err(hostile("only a folder can be the root"));
            }
            self.shared.tick(number, &entry, None)?;
            self.shared.keep_root(*entry);
            return Ok(());
        }
        let unit = match &self.chosen {
            None => None,
            Some(globs) => match globs.matching_part(&path) {
                Some(unit) => Some(unit.to_vec()),
                None => return self.unchosen(number, entry, path),
            },
        };
        self.parents(&path)?;
        if let Some(unit) = unit.filter(|unit| *unit != self.last_unit) {
            (self.on_unit)(&unit).map_err(|e| self.shared.trouble(&unit, errno(&e)))?;
            self.last_unit = unit;
        }
        self.make(number, entry, path)
    }

    /// A member that is not meant: it is checked all the same, and may lend its content to one that is.
    fn unchosen(&mut self, number: u64, entry: Box<Entry>, path: Vec<u8>) -> Result<(), Failure> {
        match entry.kind {
            Kind::Folder => {
                self.shared.tick(number, &entry, None)?;
                self.above.retain(|above| is_below(&path, &above.path));
                self.above.push(Entry { path, ..*entry });
                Ok(())
            }
            Kind::File { .. } => match self.shared.expected.lent.get(&path).cloned() {
                None => {
                    let hash = ContentHash::new(&entry.kind);
                    self.open = Some(Open::Hashed { number, entry, hash });
                    Ok(())
                }
                Some(borrower) => {
                    let place = self.place(&borrower)?;
                    self.file(number, entry, place)
                }
            },
            _ => self.shared.tick(number, &entry, None),
        }
    }

    /// Makes the folders above a chosen member that are not chosen themselves, with their own attributes.
    fn parents(&mut self, path: &[u8]) -> Result<(), Failure> {
        for entry in std::mem::take(&mut self.above) {
            if is_below(path, &entry.path) {
                self.folder(entry)?;
            }
        }
        Ok(())
    }

    fn make(&mut self, number: u64, entry: Box<Entry>, path: Vec<u8>) -> Result<(), Failure> {
        let shared = self.shared.clone();
        let trouble = |error: Errno| shared.trouble(&path, error);
        match &entry.kind {
            Kind::Folder => {
                shared.tick(number, &entry, None)?;
                return self.folder(Entry { path, ..*entry });
            }
            Kind::File { .. } => {
                let place = self.place(&path)?;
                return self.file(number, entry, place);
            }
            Kind::Device { .. } => {
                shared.placer.losses.devices.add(&path);
                return shared.tick(number, &entry, None);
            }
            Kind::HardLink(target) => {
                let target = relative(target).map_err(|why| {
                    let text =
                        format!("the archive holds a link to {}, which is not restored: {why}", printable(target));
                    Failure::new(Reason::RestoreFailed, text)
                })?;
                let lender = shared.expected.lent.get(&target).cloned();
                if lender.as_ref() == Some(&path) {
                    // It has been made and counted with the content that it borrowed.
                    return shared.tick(number, &entry, None);
                }
                // What it points to may still be under way.
                shared.settle()?;
                let (from, to) = (self.place(&lender.unwrap_or(target))?, self.place(&path)?);
                rustix::fs::linkat(&*from.folder, &from.name, &*to.folder, &to.name, AtFlags::empty())
                    .map_err(trouble)?;
            }
            Kind::Symlink(target) => {
                let place = self.place(&path)?;
                shared.placer.symlink(&*place.folder, &place.name, target, &entry).map_err(trouble)?;
            }
            Kind::Fifo => {
                let place = self.place(&path)?;
                shared.placer.fifo(&*place.folder, &place.name, &entry).map_err(trouble)?;
            }
        }
        shared.files.fetch_add(1, Ordering::Relaxed);
        shared.tick(number, &entry, None)
    }

    /// Makes a folder, or takes the one that is there; its attributes wait.
    fn folder(&mut self, entry: Entry) -> Result<(), Failure> {
        let place = self.place(&entry.path)?;
        match rustix::fs::mkdirat(&*place.folder, &place.name, Mode::RWXU) {
            Ok(()) => {}
            // Made for something in it that came before; that it is a folder is seen when it is opened.
            Err(Errno::EXIST) => {
                self.shared.target.folder(&entry.path).map_err(|e| self.shared.trouble(&entry.path, e))?;
            }
            Err(error) => return Err(self.shared.trouble(&entry.path, error)),
        }
        if self.folders.len() >= MAX_FOLDERS {
            self.finish_folders(Some(&entry.path.clone()))?;
        }
        self.folders.push(entry);
        Ok(())
    }

    /// Gives folders their attributes, innermost first; not those above `current`, which is still being filled.
    fn finish_folders(&mut self, current: Option<&[u8]>) -> Result<(), Failure> {
        self.shared.settle()?;
        let mut kept = Vec::new();
        for entry in std::mem::take(&mut self.folders).into_iter().rev() {
            if current.is_some_and(|path| is_below(path, &entry.path)) {
                kept.push(entry);
                continue;
            }
            let trouble = |error: Errno| self.shared.trouble(&entry.path, error);
            let folder = self.shared.target.folder(&entry.path).map_err(trouble)?;
            self.shared.placer.attributes(&folder, &entry).map_err(trouble)?;
        }
        kept.reverse();
        self.folders = kept;
        Ok(())
    }

    /// The folder that a path goes into. Where the archive did not name it before, it is made.
    fn place(&mut self, path: &[u8]) -> Result<Place, Failure> {
        let (parent, name) = split(path).ok_or_else(|| self.shared.trouble(path, Errno::ISDIR))?;
        let name = name.to_vec();
        if let Some((_, folder)) = self.cache.iter().find(|(known, _)| known == parent) {
            return Ok(Place { folder: folder.clone(), name });
        }
        let target = &self.shared.target;
        let folder = match target.folder(parent) {
            Err(Errno::NOENT) => {
                for at in (0..=parent.len()).filter(|at| *at == parent.len() || parent[*at] == b'/') {
                    let (above, own) = split(&parent[..at]).ok_or_else(|| self.shared.trouble(path, Errno::NOENT))?;
                    let made = target.folder(above).and_then(|above| rustix::fs::mkdirat(above, own, Mode::RWXU));
                    if let Err(error) = made.or_else(|e| if e == Errno::EXIST { Ok(()) } else { Err(e) }) {
                        return Err(self.shared.trouble(path, error));
                    }
                }
                target.folder(parent)
            }
            other => other,
        };
        let folder = Arc::new(folder.map_err(|e| self.shared.trouble(path, e))?);
        if self.cache.len() >= 8 {
            self.cache.pop_front();
        }
        self.cache.push_back((parent.to_vec(), folder.clone()));
        Ok(Place { folder, name })
    }

    fn file(&mut self, number: u64, entry: Box<Entry>, place: Place) -> Result<(), Failure> {
        let bytes = match &entry.kind {
            Kind::File { data: Some(extents), .. } => extents.iter().map(|e| e.length).sum(),
            Kind::File { size, .. } => *size,
            _ => 0,
        };
        self.shared.files.fetch_add(1, Ordering::Relaxed);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes <= WHOLE_BYTES {
            self.open = Some(Open::Gathered { number, entry, place, pieces: Vec::new() });
            return Ok(());
        }
        let (pieces, receiver) = sync_channel(PIECES_AHEAD);
        let Place { folder, name } = place;
        self.writers.dispatch(Job { number, entry, folder, name, content: Content::Pieces(receiver) })?;
        self.open = Some(Open::Streamed { pieces, at: 0, piece: Vec::new() });
        Ok(())
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.open {
            Some(Open::Hashed { hash, .. }) => hash.update(offset, bytes),
            Some(Open::Gathered { pieces, .. }) => match pieces.last_mut() {
                Some((at, piece)) if *at + piece.len() as u64 == offset => piece.extend_from_slice(bytes),
                _ => pieces.push((offset, bytes.to_vec())),
            },
            Some(Open::Streamed { pieces, at, piece }) => {
                if *at + piece.len() as u64 != offset {
                    send(pieces, at, piece, &self.shared)?;
                    *at = offset;
                }
                let mut rest = bytes;
                while !rest.is_empty() {
                    if piece.capacity() == 0 {
                        piece.reserve_exact(PIECE_BYTES);
                    }
                    let taken = rest.len().min(PIECE_BYTES - piece.len());
                    piece.extend_from_slice(&rest[..taken]);
                    rest = &rest[taken..];
                    if piece.len() == PIECE_BYTES {
                        send(pieces, at, piece, &self.shared)?;
                    }
                }
            }
            None => {}
        }
        Ok(())
    }

    fn file_end(&mut self) -> Result<(), Failure> {
        match self.open.take() {
            Some(Open::Hashed { number, entry, hash }) => self.shared.tick(number, &entry, Some(hash.finish())),
            Some(Open::Gathered { number, entry, place, pieces }) => {
                let Place { folder, name } = place;
                self.writers.dispatch(Job { number, entry, folder, name, content: Content::Whole(pieces) })
            }
            Some(Open::Streamed { pieces, mut at, mut piece }) => {
                send(&pieces, &mut at, &mut piece, &self.shared)?;
                // An empty piece says that this was all.
                let gone = |_| Failure::new(Reason::RestoreFailed, "a writer ended before its time");
                pieces.send((at, Vec::new())).map_err(|e| self.shared.failure().unwrap_or_else(|| gone(e)))
            }
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.reader
            .finish()
            .map_err(|e| Failure::new(Reason::ChecksumMismatch, format!("the archive is damaged: {e}")))?;
        self.finish_folders(None)?;
        self.stop();
        self.shared.failure().map_or(Ok(()), Err)?;
        self.shared.finish();
        Ok(())
    }

    /// Lets the writers go and waits until they have.
    fn stop(&mut self) {
        // One of them may wait for the rest of this file.
        self.open = None;
        self.writers.stop();
    }

    fn keep<T>(&self, result: Result<T, Failure>) -> io::Result<T> {
        result.map_err(|failure| {
            let text = failure.message.clone();
            self.shared.fail(failure);
            io::Error::other(text)
        })
    }
}

impl Write for ExtractSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fed = self.feed(bytes);
        self.keep(fed)?;
        Ok(bytes.len())
    }

    /// The end of the archive.
    fn flush(&mut self) -> io::Result<()> {
        let ended = self.end();
        self.keep(ended)
    }
}

impl Drop for ExtractSink {
    fn drop(&mut self) {
        self.stop();
    }
}

fn send(
    pieces: &SyncSender<(u64, Vec<u8>)>,
    at: &mut u64,
    piece: &mut Vec<u8>,
    shared: &Extraction,
) -> Result<(), Failure> {
    if piece.is_empty() {
        return Ok(());
    }
    let full = std::mem::take(piece);
    let next = *at + full.len() as u64;
    pieces.send((*at, full)).map_err(|_| {
        shared.failure().unwrap_or_else(|| Failure::new(Reason::RestoreFailed, "a writer ended before its time"))
    })?;
    *at = next;
    Ok(())
}

/// Whether a path lies below a folder.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

//! The archive and the list of its entries as two streams that grow together. Pure but for the threads behind them.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use holdfast_crds::Reason;

use super::ahead::{Lent, Message, Shared};
use super::walk::Slot;
use crate::archive::tar::{END, Event, Reader};
use crate::engine::{Inspect, Inspection};
use crate::task::Failure;

/// Lines are handed on when they fill this many bytes; as many such pieces may wait.
const LINES_BYTES: usize = 64 * 1024;
const LINES_AHEAD: usize = 4;

/// The two streams of a volume.
pub(super) fn streams(slots: Receiver<Slot>, shared: Arc<Shared>, allow_empty: bool) -> (TarStream, IndexStream) {
    let (sender, receiver) = sync_channel(LINES_AHEAD);
    let tar = TarStream {
        slots,
        shared,
        allow_empty,
        batch: None,
        lent: None,
        at: 0,
        end: None,
        lines: Vec::new(),
        index: sender,
    };
    (tar, IndexStream { lines: receiver, piece: Vec::new(), at: 0, over: false })
}

/// The archive.
pub(super) struct TarStream {
    slots: Receiver<Slot>,
    shared: Arc<Shared>,
    allow_empty: bool,
    batch: Option<Receiver<Message>>,
    lent: Option<Lent>,
    at: usize,
    /// Bytes of the end that have been given, once all members have.
    end: Option<usize>,
    lines: Vec<u8>,
    index: SyncSender<Lines>,
}

enum Lines {
    Piece(Vec<u8>),
    Over,
}

impl TarStream {
    /// Gets the next buffer. False: the archive is at its end.
    fn advance(&mut self) -> Result<bool, Failure> {
        let broken = || {
            let other = || Failure::new(Reason::DumpFailed, "a thread that reads the volume ended before its time");
            self.shared.failure().unwrap_or_else(other)
        };
        loop {
            if let Some(batch) = &self.batch {
                match batch.recv() {
                    Ok(Message::Bytes { bytes, lines }) => {
                        self.lines.extend_from_slice(&lines);
                        self.lent = Some(bytes);
                        self.at = 0;
                        if self.lines.len() >= LINES_BYTES {
                            self.hand_on_lines()?;
                        }
                        return Ok(true);
                    }
                    Ok(Message::End) => self.batch = None,
                    Err(_) => return Err(broken()),
                }
            }
            match self.slots.recv() {
                Ok(Slot::Batch(batch)) => self.batch = Some(batch),
                Ok(Slot::Done) => return self.confirm().map(|()| false),
                Ok(Slot::Failed(failure)) => return Err(failure),
                Err(_) => return Err(broken()),
            }
        }
    }

    fn hand_on_lines(&mut self) -> Result<(), Failure> {
        let lines = std::mem::replace(&mut self.lines, Vec::with_capacity(LINES_BYTES * 2));
        let gone = |_| Failure::new(Reason::StoreUnreachable, "the upload of the list of entries has ended");
        self.index.send(Lines::Piece(lines)).map_err(gone)
    }

    /// Everything has been read: may it stand as a backup?
    fn confirm(&mut self) -> Result<(), Failure> {
        let census = &self.shared.census;
        if self.shared.is_failing() {
            let mut what = Vec::new();
            if census.unreadable.count() > 0 {
                what.push(format!("cannot be read ({})", census.unreadable.in_words()));
            }
            if census.unwritable.count() > 0 {
                what.push(format!("have no place in a tar ({})", census.unwritable.in_words()));
            }
            return Err(Failure::new(
                Reason::SourceIncomplete,
                format!(
                    "files {}: set runAs to their owner, exclude them, or leave them out with onUnreadable: Skip",
                    what.join(" and ")
                ),
            ));
        }
        if census.files.load(Ordering::Relaxed) == 0 && !self.allow_empty {
            return Err(Failure::new(
                Reason::SourceIncomplete,
                "the volume has not a single file to save: is it the right claim, and do include and exclude leave anything? \
                 Set allowEmpty: true if that is how it should be",
            ));
        }
        self.hand_on_lines()?;
        let gone = |_| Failure::new(Reason::StoreUnreachable, "the upload of the list of entries has ended");
        self.index.send(Lines::Over).map_err(gone)
    }
}

impl BufRead for TarStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.end.is_none() && self.lent.as_ref().is_none_or(|lent| self.at == lent.bytes().len()) {
            // It goes back to its reader.
            self.lent = None;
            match self.advance() {
                Ok(true) => {}
                Ok(false) => self.end = Some(0),
                Err(failure) => {
                    let text = failure.message.clone();
                    self.shared.fail(failure);
                    return Err(io::Error::other(text));
                }
            }
        }
        Ok(match (self.end, &self.lent) {
            (Some(given), _) => &END[given..],
            (None, lent) => lent.as_ref().map_or(&[], |lent| &lent.bytes()[self.at..]),
        })
    }

    fn consume(&mut self, bytes: usize) {
        *self.end.as_mut().unwrap_or(&mut self.at) += bytes;
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_through(self, buffer)
    }
}

/// The list of entries, as the archive's members end.
pub(super) struct IndexStream {
    lines: Receiver<Lines>,
    piece: Vec<u8>,
    at: usize,
    over: bool,
}

impl BufRead for IndexStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.piece.len() && !self.over {
            match self.lines.recv() {
                Ok(Lines::Piece(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Lines::Over) => self.over = true,
                Err(_) => return Err(io::Error::other("the archive that this list belongs to broke off")),
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Read for IndexStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_through(self, buffer)
    }
}

fn read_through(stream: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let there = stream.fill_buf()?;
    let taken = there.len().min(buffer.len());
    buffer[..taken].copy_from_slice(&there[..taken]);
    stream.consume(taken);
    Ok(taken)
}

/// Proves that what passes is a whole archive of as many members as were read.
pub(super) struct TarProof {
    reader: Reader,
    entries: u64,
    shared: Arc<Shared>,
}

impl TarProof {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { reader: Reader::new(), entries: 0, shared }
    }
}

impl Inspect for TarProof {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while let Some(event) = self.reader.next(&mut bytes).map_err(|e| incomplete(&e.to_string()))? {
            self.entries += u64::from(matches!(event, Event::Entry(_)));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        self.reader.finish().map_err(|e| incomplete(&e.to_string()))?;
        let census = &self.shared.census;
        let (read, passed) = (census.entries.load(Ordering::Relaxed), self.entries);
        if read != passed {
            return Err(incomplete(&format!("{read} members were read and {passed} are in the archive")));
        }
        let files = i64::try_from(census.files.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        Ok(Inspection { items: Vec::new(), total: Some(files), properties: census.properties() })
    }
}

/// Proves that the list has a line for each member.
pub(super) struct IndexProof {
    lines: u64,
    shared: Arc<Shared>,
}

impl IndexProof {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { lines: 0, shared }
    }
}

impl Inspect for IndexProof {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        let entries = self.shared.census.entries.load(Ordering::Relaxed);
        if self.lines != entries {
            return Err(incomplete(&format!("{entries} members were read and {} are listed", self.lines)));
        }
        // The members are counted where they are stored.
        Ok(Inspection { total: Some(0), ..Inspection::default() })
    }
}

fn incomplete(why: &str) -> Failure {
    Failure::new(Reason::SourceIncomplete, format!("the archive is not whole: {why}"))
}

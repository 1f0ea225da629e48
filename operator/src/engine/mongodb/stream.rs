//! What collections hold, as the stream of an archive. Pure but for the channel it reads from.

use std::io::{self, Read};

use mongodb::raw_batch_cursor::RawBatch;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::read::{Documents, Piece};
use crate::archive::mongodump::{ArchiveWriter, Header, Namespace};

/// About how many bytes are made ready at a time.
const AHEAD: usize = 256 << 10;

/// Turns the documents that come in by a channel into something to read. To be read on a blocking thread.
pub(super) struct PieceStream<F> {
    pieces: mpsc::Receiver<Piece>,
    form: F,
    ready: Vec<u8>,
    taken: usize,
    current: Option<Current>,
    whole: bool,
}

struct Current {
    place: usize,
    batch: RawBatch,
    at: usize,
    _share: OwnedSemaphorePermit,
}

/// How documents are written down.
pub(super) trait Form: Send {
    /// Writes documents onto the end of `out`, until there are no more or it is long enough; whether there are more.
    fn documents(&mut self, place: usize, documents: &mut Documents<'_>, out: &mut Vec<u8>) -> Result<bool, String>;

    /// A collection has ended.
    fn end(&mut self, place: usize, out: &mut Vec<u8>);
}

impl<F: Form> PieceStream<F> {
    /// A stream that begins with `ready`.
    pub fn new(pieces: mpsc::Receiver<Piece>, form: F, ready: Vec<u8>) -> Self {
        Self { pieces, form, ready, taken: 0, current: None, whole: false }
    }

    fn advance(&mut self) -> io::Result<()> {
        let broken = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        if let Some(current) = &mut self.current {
            let mut documents = Documents::of(&current.batch, &mut current.at).map_err(broken)?;
            if !self.form.documents(current.place, &mut documents, &mut self.ready).map_err(broken)? {
                self.current = None;
            }
            return Ok(());
        }
        match self.pieces.blocking_recv() {
            Some(Piece::Documents { place, batch, share }) => {
                self.current = Some(Current { place, batch, at: 0, _share: share });
            }
            Some(Piece::End(place)) => self.form.end(place, &mut self.ready),
            Some(Piece::Whole) => self.whole = true,
            // The reader knows why, and its word counts.
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "reading from the server stopped")),
        }
        Ok(())
    }
}

impl<F: Form> Read for PieceStream<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() && !self.whole {
            self.ready.clear();
            self.taken = 0;
            self.advance()?;
        }
        let ready = &self.ready[self.taken..];
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.taken += count;
        Ok(count)
    }
}

/// Documents as an archive.
pub(super) struct Archived {
    writer: ArchiveWriter,
}

impl Archived {
    /// An archive of these namespaces, and its beginning.
    pub fn begin(header: &Header, namespaces: &[Namespace]) -> (Self, Vec<u8>) {
        let mut out = Vec::new();
        let writer = ArchiveWriter::begin(header, namespaces, &mut out);
        (Self { writer }, out)
    }
}

impl Form for Archived {
    fn documents(&mut self, place: usize, documents: &mut Documents<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
        let (mut bytes, mut more, mut failed) = (0, true, None);
        let some = std::iter::from_fn(|| {
            if bytes >= AHEAD {
                return None;
            }
            match documents.next() {
                Ok(Some(document)) => {
                    bytes += document.len();
                    return Some(document);
                }
                Ok(None) => more = false,
                Err(why) => failed = Some(why),
            }
            None
        });
        self.writer.documents(place, some, out);
        failed.map_or(Ok(more), Err)
    }

    fn end(&mut self, place: usize, out: &mut Vec<u8>) {
        self.writer.end(place, out);
    }
}

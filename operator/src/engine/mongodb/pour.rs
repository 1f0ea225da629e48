//! A backup's stream taken apart into documents. Pure but for the channel they go into.

use std::io::{self, Write};

use holdfast_crds::Reason;

use super::batch::Batcher;
use crate::archive::extjson::read_document;
use crate::archive::mongodump::{ArchiveReader, Contents, Header, Namespace};
use crate::task::Failure;

/// A line longer than this is none: the largest document has fewer bytes, even in JSON.
const MAX_LINE_BYTES: usize = 64 << 20;

/// Takes an archive. Flushed only when it is whole.
pub(super) struct ArchivePour {
    reader: ArchiveReader,
    batches: Batches,
}

struct Batches(Batcher);

impl ArchivePour {
    /// `what` begins its messages.
    pub fn new(what: String, batcher: Batcher) -> Self {
        Self { reader: ArchiveReader::new(what), batches: Batches(batcher) }
    }
}

impl Contents for Batches {
    fn prelude(&mut self, _: &Header, namespaces: &[Namespace]) -> Result<(), Failure> {
        self.0.namespaces(namespaces.to_vec())
    }

    fn documents(&mut self, namespace: usize, mut documents: &[u8], _: u64) -> Result<(), Failure> {
        while let Some(length) = documents.first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((document, rest)) = documents.split_at_checked(length) else { break };
            self.0.document(namespace, document)?;
            documents = rest;
        }
        Ok(())
    }

    fn end(&mut self, namespace: usize) -> Result<(), Failure> {
        self.0.end(namespace)
    }
}

impl Write for ArchivePour {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reader.feed(bytes, &mut self.batches).map_err(broken)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.reader.finish().and_then(|()| self.batches.0.whole()).map_err(broken)
    }
}

/// Takes the lines of one collection. Flushed only when they are whole.
pub(super) struct LinesPour {
    place: usize,
    line: Vec<u8>,
    lines: u64,
    batcher: Batcher,
}

impl LinesPour {
    /// Of the collection at this place of the list.
    pub fn new(place: usize, batcher: Batcher) -> Self {
        Self { place, line: Vec::new(), lines: 0, batcher }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.lines += 1;
        let failed =
            |why: String| Failure::new(Reason::RestoreFailed, format!("line {} is no document: {why}", self.lines));
        let text = std::str::from_utf8(line).map_err(|e| failed(e.to_string()))?;
        let document = read_document(text).map_err(|why| failed(why.to_string()))?;
        self.batcher.document(self.place, &document)
    }
}

impl Write for LinesPour {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (head, tail) = rest.split_at(end);
            if self.line.is_empty() {
                self.take(head).map_err(broken)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(head);
                self.take(&line).map_err(broken)?;
                line.clear();
                self.line = line;
            }
            rest = &tail[1..];
        }
        if self.line.len() + rest.len() > MAX_LINE_BYTES {
            return Err(io::Error::other("a line of the backup is too long for a document"));
        }
        self.line.extend_from_slice(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the last line of the backup is cut off"));
        }
        self.batcher.whole().map_err(broken)
    }
}

fn broken(failure: Failure) -> io::Error {
    io::Error::other(failure.message)
}

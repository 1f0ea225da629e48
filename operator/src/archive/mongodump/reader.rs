//! Reads archives as they come, in pieces of any size. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crc_fast::{CrcAlgorithm, Digest};
use holdfast_crds::Reason;

use super::header::SegmentHeader;
use super::{BUCKETS, Header, MAGIC, MAX_DOCUMENT_BYTES, Namespace, TERMINATOR, TIME_SERIES};
use crate::task::Failure;

/// The shortest document: a length and a zero.
const MIN_DOCUMENT_BYTES: usize = 5;
/// What all metadata of an archive may take, since it is kept until the end.
const MAX_PRELUDE_BYTES: usize = 24 << 20;
/// Most namespaces of an archive: it bounds the memory.
const MAX_NAMESPACES: usize = 100_000;
/// How much room a document is given before its bytes come.
const FIRST_ROOM: usize = 64 << 10;

/// What an archive's reader hands on.
pub trait Contents {
    /// The prelude has been read: once, before everything else.
    ///
    /// # Errors
    /// Ends the reading.
    fn prelude(&mut self, header: &Header, namespaces: &[Namespace]) -> Result<(), Failure>;

    /// The next documents of a namespace, which is known by its place in the prelude: `count` whole ones, one after the other.
    ///
    /// # Errors
    /// Ends the reading.
    fn documents(&mut self, namespace: usize, documents: &[u8], count: u64) -> Result<(), Failure>;

    /// A namespace is whole: all its documents have been handed on, and their CRC was right.
    ///
    /// # Errors
    /// Ends the reading.
    fn end(&mut self, namespace: usize) -> Result<(), Failure>;
}

/// Takes no notice.
pub struct Ignored;

impl Contents for Ignored {
    fn prelude(&mut self, _: &Header, _: &[Namespace]) -> Result<(), Failure> {
        Ok(())
    }

    fn documents(&mut self, _: usize, _: &[u8], _: u64) -> Result<(), Failure> {
        Ok(())
    }

    fn end(&mut self, _: usize) -> Result<(), Failure> {
        Ok(())
    }
}

/// Reads an archive and proves that it is whole.
pub struct ArchiveReader {
    what: String,
    state: State,
    /// The bytes of what has begun and is not whole yet.
    partial: Vec<u8>,
    offset: u64,
    header: Option<Header>,
    namespaces: Vec<Namespace>,
    prelude_bytes: usize,
    by_name: HashMap<(String, String), usize>,
    streams: Vec<Stream>,
    open: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Magic,
    Header,
    /// A namespace's metadata, or the end of the prelude.
    Metadata,
    /// A segment's header, or the end of the archive.
    Between,
    /// A document of this namespace, or the segment's end.
    Documents(usize),
    /// Nothing but the end of a segment that ends a namespace.
    Ended,
}

struct Stream {
    crc: Digest,
    count: u64,
    ended: bool,
}

impl ArchiveReader {
    /// A reader for the start of a stream; `what` begins its messages, such as `dump of cluster mongo.shop.svc:27017`.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state: State::Magic,
            partial: Vec::new(),
            offset: 0,
            header: None,
            namespaces: Vec::new(),
            prelude_bytes: 0,
            by_name: HashMap::new(),
            streams: Vec::new(),
            open: 0,
        }
    }

    /// What the prelude says; nothing before it has been read.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The namespaces of the prelude, each with the number of its documents so far.
    pub fn counts(&self) -> impl Iterator<Item = (&Namespace, u64)> {
        self.namespaces.iter().zip(self.streams.iter().map(|stream| stream.count))
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Where they cannot belong to an archive ([`Reason::SourceIncomplete`]), and what `contents` says.
    pub fn feed(&mut self, mut bytes: &[u8], contents: &mut impl Contents) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if self.partial.is_empty()
                && let State::Documents(namespace) = self.state
            {
                let (run, count) = self.run(bytes)?;
                if count > 0 {
                    let (documents, rest) = bytes.split_at(run);
                    self.documents(namespace, documents, count, contents)?;
                    bytes = rest;
                    continue;
                }
            }
            bytes = self.gather(bytes, contents)?;
        }
        Ok(())
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// Where it has not ended where an archive ends ([`Reason::SourceIncomplete`]).
    pub fn finish(&self) -> Result<(), Failure> {
        if self.state != State::Between || !self.partial.is_empty() {
            return Err(self.broken("it is cut off"));
        }
        let missing = self.namespaces.iter().zip(&self.streams).find(|(_, stream)| !stream.ended);
        match missing {
            Some((namespace, _)) => Err(self.broken(format_args!(
                "it is cut off: {} of {} collections have not ended, such as {}",
                self.open,
                self.streams.len(),
                namespace.full_name()
            ))),
            None => Ok(()),
        }
    }

    /// How many bytes it keeps room for, of what is not whole yet.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.partial.capacity()
    }

    fn broken(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(Reason::SourceIncomplete, format!("{}: {why} (at byte {})", self.what, self.offset))
    }

    /// How many bytes at the start of `bytes` are whole documents, and how many documents that is.
    fn run(&self, bytes: &[u8]) -> Result<(usize, u64), Failure> {
        let (mut at, mut count) = (0, 0);
        while let Some(head) = bytes[at..].first_chunk::<4>() {
            if *head == TERMINATOR {
                break;
            }
            let length = self.document_length(*head)?;
            let Some(document) = bytes.get(at..at + length) else { break };
            self.check_end(document)?;
            at += length;
            count += 1;
        }
        Ok((at, count))
    }

    /// Takes bytes up to the end of what has begun.
    fn gather<'a>(&mut self, bytes: &'a [u8], contents: &mut impl Contents) -> Result<&'a [u8], Failure> {
        if self.partial.len() < 4 {
            let (head, rest) = bytes.split_at(bytes.len().min(4 - self.partial.len()));
            self.partial.extend_from_slice(head);
            self.offset += head.len() as u64;
            if let Some(head) = self.partial.first_chunk::<4>().copied()
                && (self.state == State::Magic || head == TERMINATOR)
            {
                self.partial.clear();
                self.mark(head, contents)?;
            }
            return Ok(rest);
        }
        let Some(head) = self.partial.first_chunk::<4>() else { return Ok(bytes) };
        let length = self.document_length(*head)?;
        let (more, rest) = bytes.split_at(bytes.len().min(length - self.partial.len()));
        // A length is only a claim: room is made as the bytes come.
        let room = length.min(FIRST_ROOM.max(2 * (self.partial.len() + more.len())));
        self.partial.reserve_exact(room - self.partial.len());
        self.partial.extend_from_slice(more);
        if self.partial.len() < length {
            self.offset += more.len() as u64;
            return Ok(rest);
        }
        let mut document = std::mem::take(&mut self.partial);
        self.check_end(&document)?;
        self.offset += more.len() as u64;
        self.document(&document, contents)?;
        document.clear();
        document.shrink_to(FIRST_ROOM);
        self.partial = document;
        Ok(rest)
    }

    fn document_length(&self, head: [u8; 4]) -> Result<usize, Failure> {
        let length = u32::from_le_bytes(head) as usize;
        if (MIN_DOCUMENT_BYTES..=MAX_DOCUMENT_BYTES).contains(&length) {
            return Ok(length);
        }
        Err(self.broken(format_args!("it is damaged: a document of {length} bytes")))
    }

    fn check_end(&self, document: &[u8]) -> Result<(), Failure> {
        if document.last() == Some(&0) {
            return Ok(());
        }
        Err(self.broken("it is damaged: a document does not end where it should"))
    }

    /// Takes four bytes that are no length.
    fn mark(&mut self, mark: [u8; 4], contents: &mut impl Contents) -> Result<(), Failure> {
        self.state = match self.state {
            State::Magic if mark == MAGIC => State::Header,
            State::Magic => return Err(self.broken("it is no archive of mongodump")),
            State::Metadata => {
                self.end_of_prelude()?;
                let header = self.header.as_ref().ok_or_else(|| self.broken("it has no header"))?;
                contents.prelude(header, &self.namespaces)?;
                State::Between
            }
            State::Documents(_) | State::Ended => State::Between,
            State::Header | State::Between => {
                return Err(self.broken("it is damaged: an end where something should begin"));
            }
        };
        Ok(())
    }

    fn end_of_prelude(&mut self) -> Result<(), Failure> {
        for (place, namespace) in self.namespaces.iter().enumerate() {
            let mut names = vec![namespace.collection.clone()];
            if namespace.kind == TIME_SERIES {
                // Servers since 8.3 have no collection of buckets any more.
                names.push(format!("{BUCKETS}{}", namespace.collection));
            }
            for name in names {
                match self.by_name.entry((namespace.database.clone(), name)) {
                    Entry::Vacant(vacant) => vacant.insert(place),
                    Entry::Occupied(_) => {
                        return Err(
                            self.broken(format_args!("it is damaged: {} is in it twice", namespace.full_name()))
                        );
                    }
                };
            }
            self.streams.push(Stream { crc: Digest::new(CrcAlgorithm::Crc64Xz), count: 0, ended: false });
        }
        self.open = self.streams.len();
        Ok(())
    }

    /// Takes one whole document that came in pieces, or that is the archive's own.
    fn document(&mut self, document: &[u8], contents: &mut impl Contents) -> Result<(), Failure> {
        match self.state {
            State::Header => {
                self.header = Some(Header::decode(document).map_err(|why| self.broken(why))?);
                self.state = State::Metadata;
            }
            State::Metadata => {
                self.prelude_bytes += document.len();
                if self.prelude_bytes > MAX_PRELUDE_BYTES {
                    return Err(self.broken(format_args!(
                        "the options and indexes of its collections take more than {} MiB",
                        MAX_PRELUDE_BYTES >> 20
                    )));
                }
                if self.namespaces.len() >= MAX_NAMESPACES {
                    return Err(self.broken(format_args!("more than {MAX_NAMESPACES} collections")));
                }
                let namespace = Namespace::decode(document)
                    .ok_or_else(|| self.broken("it is damaged: what it says of a collection cannot be read"))?;
                self.namespaces.push(namespace);
            }
            State::Between => self.segment(document, contents)?,
            State::Documents(namespace) => {
                // `documents` counts the bytes.
                self.offset -= document.len() as u64;
                self.documents(namespace, document, 1, contents)?;
            }
            State::Magic | State::Ended => {
                return Err(self.broken("it is damaged: something follows the end of a collection"));
            }
        }
        Ok(())
    }

    fn segment(&mut self, document: &[u8], contents: &mut impl Contents) -> Result<(), Failure> {
        let header = SegmentHeader::decode(document)
            .ok_or_else(|| self.broken("it is damaged: the head of a segment cannot be read"))?;
        let place = self.by_name.get(&(header.database, header.collection)).copied();
        let Some((place, stream)) = place.and_then(|place| Some((place, self.streams.get_mut(place)?))) else {
            return Err(self.broken("it is damaged: a segment of a collection that it does not name"));
        };
        if stream.ended {
            let name = self.namespaces[place].full_name();
            return Err(self.broken(format_args!("it is damaged: {name} goes on after its end")));
        }
        let Some(crc) = header.end else {
            self.state = State::Documents(place);
            return Ok(());
        };
        stream.ended = true;
        let whole = stream.crc.finalize() == crc;
        self.open -= 1;
        if !whole {
            let name = self.namespaces[place].full_name();
            return Err(self.broken(format_args!("it is damaged: the checksum of {name} is wrong")));
        }
        self.state = State::Ended;
        contents.end(place)
    }

    fn documents(
        &mut self,
        namespace: usize,
        documents: &[u8],
        count: u64,
        contents: &mut impl Contents,
    ) -> Result<(), Failure> {
        if let Some(stream) = self.streams.get_mut(namespace) {
            stream.crc.update(documents);
            stream.count += count;
        }
        self.offset += documents.len() as u64;
        contents.documents(namespace, documents, count)
    }
}

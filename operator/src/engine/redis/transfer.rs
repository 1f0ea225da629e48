//! The transfer of an RDB to a replica: of a length told before it, or up to a mark. Reads what the server sends.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Length of the mark.
const MARK_BYTES: usize = 40;
/// How much is read at once where the mark is looked for.
const PIECE_BYTES: usize = 256 << 10;

/// How the end of a transfer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After so many bytes: the server saved to its disk first.
    Length(u64),
    /// At this mark, which is no part of it: the server sends while it saves.
    Mark([u8; MARK_BYTES]),
}

impl End {
    /// Reads the line before the transfer; none where it is a keepalive.
    ///
    /// # Errors
    /// Where it is neither: the server's words.
    pub fn parse(line: &[u8]) -> Result<Option<Self>, String> {
        if line.is_empty() {
            return Ok(None);
        }
        let words = || String::from_utf8_lossy(line).into_owned();
        let Some(announced) = line.strip_prefix(b"$") else { return Err(words()) };
        if let Some(mark) = announced.strip_prefix(b"EOF:") {
            return mark.try_into().map(|mark| Some(Self::Mark(mark))).map_err(|_| words());
        }
        let length = std::str::from_utf8(announced).ok().and_then(|digits| digits.parse().ok());
        length.map(|length| Some(Self::Length(length))).ok_or_else(words)
    }
}

/// The RDB as a stream with an end, and whether that end was reached.
pub(super) struct Transfer<R> {
    inner: R,
    end: End,
    /// With a mark: what has been read and not been given away; its last bytes may be the beginning of the mark.
    held: Vec<u8>,
    given: usize,
    whole: Arc<AtomicBool>,
    over: bool,
}

impl<R: Read> Transfer<R> {
    /// From behind the line that announced it. `whole` is set once its end was seen.
    pub fn new(inner: R, end: End, whole: Arc<AtomicBool>) -> Self {
        Self { inner, end, held: Vec::new(), given: 0, whole, over: false }
    }

    fn finish(&mut self) {
        self.over = true;
        self.whole.store(true, Ordering::Release);
    }

    /// How many of the held bytes may be given away.
    fn free(&self) -> usize {
        let kept = if self.over { 0 } else { MARK_BYTES - 1 };
        (self.held.len() - self.given).saturating_sub(kept)
    }

    fn until_mark(&mut self, mark: [u8; MARK_BYTES], buffer: &mut [u8]) -> io::Result<usize> {
        while self.free() == 0 && !self.over {
            self.held.drain(..self.given);
            self.given = 0;
            let old = self.held.len();
            self.held.resize(old + PIECE_BYTES, 0);
            let read = self.inner.read(&mut self.held[old..]);
            self.held.truncate(old + read.as_ref().map_or(0, |read| *read));
            if read? == 0 {
                return Err(cut());
            }
            // What was held back before has no whole mark in it.
            if let Some(at) = memchr::memmem::find(&self.held, &mark) {
                self.held.truncate(at);
                self.finish();
            }
        }
        let taken = self.free().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.held[self.given..self.given + taken]);
        self.given += taken;
        Ok(taken)
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended the connection in the middle of the RDB")
}

impl<R: Read> Read for Transfer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.end {
            End::Mark(mark) => self.until_mark(mark, buffer),
            End::Length(0) => {
                self.finish();
                Ok(0)
            }
            End::Length(left) => {
                let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let read = self.inner.read(&mut buffer[..room])?;
                if read == 0 && room > 0 {
                    return Err(cut());
                }
                self.end = End::Length(left - read as u64);
                Ok(read)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives as much at once as it is told to.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let taken = self.0.len().min(self.1).min(buffer.len());
            buffer[..taken].copy_from_slice(&self.0[..taken]);
            self.0 = &self.0[taken..];
            Ok(taken)
        }
    }

    const MARK: [u8; 40] = *b"0123456789abcdef0123456789abcdef01234567";

    fn receive(sent: &[u8], piece: usize, end: End) -> (io::Result<Vec<u8>>, bool) {
        let whole = Arc::new(AtomicBool::new(false));
        let mut received = Vec::new();
        let read = Transfer::new(Pieces(sent, piece), end, whole.clone()).read_to_end(&mut received);
        (read.map(|_| received), whole.load(Ordering::Acquire))
    }

    #[test]
    fn the_line_before_tells_the_end() {
        assert_eq!(End::parse(b"").unwrap(), None);
        assert_eq!(End::parse(b"$176").unwrap(), Some(End::Length(176)));
        assert_eq!(End::parse(&[b"$EOF:", &MARK[..]].concat()).unwrap(), Some(End::Mark(MARK)));
        assert!(End::parse(b"$EOF:short").is_err());
        assert_eq!(End::parse(b"-ERR no").unwrap_err(), "-ERR no");
    }

    #[test]
    fn a_transfer_cut_anywhere_is_not_whole() {
        let rdb = [b"REDIS0010 and so on", &MARK[..39], b"!"].concat();
        let marked = [&rdb[..], &MARK[..]].concat();
        for cut in 0..marked.len() {
            let (received, whole) = receive(&marked[..cut], 7, End::Mark(MARK));
            assert!(received.is_err() && !whole, "cut at {cut}");
        }
        for cut in 0..rdb.len() {
            let (received, whole) = receive(&rdb[..cut], 7, End::Length(rdb.len() as u64));
            assert!(received.is_err() && !whole, "cut at {cut}");
        }
        let (received, whole) = receive(&marked, 7, End::Mark(MARK));
        assert!(whole);
        assert_eq!(received.unwrap(), rdb);
    }

    proptest! {
        #[test]
        fn what_comes_before_the_mark_is_what_was_sent(
            rdb in prop::collection::vec(prop::sample::select(MARK.to_vec()), 0..700),
            piece in 1_usize..200,
        ) {
            let marked = [&rdb[..], &MARK[..], b"and what does not belong to it"].concat();
            prop_assume!(memchr::memmem::find(&marked, &MARK) == Some(rdb.len()));
            prop_assert_eq!(receive(&marked, piece, End::Mark(MARK)).0.unwrap(), rdb.clone());
            prop_assert_eq!(receive(&marked, piece, End::Length(rdb.len() as u64)).0.unwrap(), rdb);
        }
    }
}

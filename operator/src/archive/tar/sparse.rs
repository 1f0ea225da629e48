//! The map of a sparse file in GNU's format 1.0: decimal numbers, each on a line, at the head of the member's content. Pure.

use super::{BLOCK, MAX_EXTENTS};

/// A run of data in a file with holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// Bytes of data, holes left out.
pub(super) fn data_bytes(extents: &[Extent]) -> u64 {
    extents.iter().map(|e| e.length).sum()
}

/// The map of a file, padded to whole blocks. A file that ends with a hole has an empty extent at its end, as GNU tar writes it.
pub(super) fn map(size: u64, extents: &[Extent]) -> Vec<u8> {
    use std::fmt::Write as _;
    let ends = extents.last().map_or(0, |e| e.offset + e.length);
    let tail = (ends < size).then_some(Extent { offset: size, length: 0 });
    let mut text = format!("{}\n", extents.len() + usize::from(tail.is_some()));
    for extent in extents.iter().chain(&tail) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\n{}", extent.offset, extent.length);
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Reads a map as it comes, byte by byte.
#[derive(Debug)]
pub(super) struct MapReader {
    size: u64,
    number: Option<u64>,
    count: Option<u64>,
    offset: Option<u64>,
    extents: Vec<Extent>,
    seen: u64,
    /// Bytes of the map so far.
    bytes: u64,
}

impl MapReader {
    /// For a file of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        Self { size, number: None, count: None, offset: None, extents: Vec::new(), seen: 0, bytes: 0 }
    }

    /// Takes the map's next byte; true once the map is over, its padding included.
    pub(super) fn feed(&mut self, byte: u8) -> Result<bool, &'static str> {
        self.bytes += 1;
        if self.is_listed() {
            if byte != 0 {
                return Err("the map of a sparse file has something behind its end");
            }
        } else {
            match byte {
                b'0'..=b'9' => {
                    let number = self.number.unwrap_or(0);
                    let next = number.checked_mul(10).and_then(|n| n.checked_add(u64::from(byte - b'0')));
                    self.number = Some(next.ok_or("a number in the map of a sparse file is too large")?);
                }
                b'\n' => {
                    let number = self.number.take().ok_or("a number is missing in the map of a sparse file")?;
                    self.take(number)?;
                }
                _ => return Err("the map of a sparse file holds something that is no number"),
            }
        }
        Ok(self.is_listed() && self.bytes.is_multiple_of(BLOCK as u64))
    }

    fn is_listed(&self) -> bool {
        self.count.is_some_and(|count| count == self.seen)
    }

    fn take(&mut self, number: u64) -> Result<(), &'static str> {
        if self.count.is_none() {
            if number > MAX_EXTENTS as u64 {
                return Err("a sparse file has more than a million extents");
            }
            self.count = Some(number);
            return Ok(());
        }
        let Some(offset) = self.offset.take() else {
            self.offset = Some(number);
            return Ok(());
        };
        let end = offset.checked_add(number).ok_or("an extent of a sparse file is too large")?;
        let before = self.extents.last().map_or(0, |e| e.offset + e.length);
        if offset < before || end > self.size {
            return Err("an extent of a sparse file lies outside of it, or on another one");
        }
        self.seen += 1;
        if number == 0 {
            return Ok(());
        }
        match self.extents.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += number,
            _ => self.extents.push(Extent { offset, length: number }),
        }
        Ok(())
    }

    /// Bytes the map took, and the extents.
    pub(super) fn finish(self) -> (u64, Vec<Extent>) {
        (self.bytes, self.extents)
    }
}

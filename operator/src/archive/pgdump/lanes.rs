//! Takes rows of large tables out of an archive as it passes, at the ends of rows, so that two sessions of a server copy them side by
//! side. What is left is an archive of the rest. Pure.

use std::io::{self, Write};

use super::{COPY_END, INT, Part, PgDumpReader};
use crate::archive::table_name::{TableName, parse_identifier, quote_identifier};

/// The first bytes of each table stay in the archive: most tables end before a second session would have begun, and whoever reads the
/// archive through a shorter pipe has made the table once these are written.
pub const FIRST: usize = 2 << 20;
/// Rows go aside in pieces of about so many bytes.
const PIECE: usize = 256 << 10;

/// Where an archive and the rows out of it go.
pub trait Lanes {
    /// Takes the next bytes of the archive.
    ///
    /// # Errors
    /// Whoever reads it is gone.
    fn archive(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Offers whole rows of a table, as COPY text, after at least [`FIRST`] bytes of its rows in the archive. Takes them, which empties
    /// `rows`, or leaves them as they are.
    ///
    /// # Errors
    /// Whoever stores them is gone.
    fn aside(&mut self, table: &Table, rows: &mut Vec<u8>) -> io::Result<()>;

    /// Returns once all rows of the table that went aside are stored.
    ///
    /// # Errors
    /// They are not.
    fn settle(&mut self) -> io::Result<()>;
}

/// A table whose rows may go aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The statement that reads its rows from the client, one line where no name has more: our own words around the names that were in
    /// the archive's.
    pub copy: String,
    /// The server's name of its rows' encoding.
    pub encoding: String,
}

impl Table {
    /// None where the archive's statement is not what pg_dump writes.
    fn new(copy: &str, encoding: &str) -> Option<Self> {
        let copy = copy_statement(copy)?;
        encoding
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_')
            .then(|| Self { copy, encoding: encoding.to_owned() })
    }
}

/// An archive on its way into two lanes.
pub struct Splitter<L> {
    reader: PgDumpReader,
    split: Split<L>,
}

struct Split<L> {
    lanes: L,
    /// [`FIRST`] and [`PIECE`].
    sizes: (usize, usize),
    /// Bytes of the archive that have not been passed on.
    archive: Vec<u8>,
    table: Option<Table>,
    /// Bytes of its rows that had to stay in the archive.
    first: usize,
    /// Rows of the table that have gone nowhere yet: less than a piece and a chunk, but for a longer row.
    rows: Vec<u8>,
    /// The archive got the beginning of a row, and gets the rest.
    within_row: bool,
}

impl<L: Lanes> Splitter<L> {
    /// For the start of an archive.
    pub fn new(lanes: L) -> Self {
        Self::with_sizes(lanes, (FIRST, PIECE))
    }

    fn with_sizes(lanes: L, sizes: (usize, usize)) -> Self {
        let split =
            Split { lanes, sizes, archive: Vec::new(), table: None, first: 0, rows: Vec::new(), within_row: false };
        Self { reader: PgDumpReader::with_statements("archive"), split }
    }
}

impl<L: Lanes> Write for Splitter<L> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { reader, split } = self;
        let mut result = Ok(());
        let walked = reader.walk(bytes, &mut |part| {
            if result.is_ok() {
                result = split.take(part);
            }
        });
        result?;
        walked.map_err(|failure| io::Error::other(failure.message))?;
        split.pass_on()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<L: Lanes> Split<L> {
    fn take(&mut self, part: Part<'_>) -> io::Result<()> {
        match part {
            Part::Frame(bytes)
            | Part::EntryCount(bytes)
            | Part::EntryId(bytes)
            | Part::Length(_, bytes)
            | Part::Text(bytes) => self.archive.extend_from_slice(bytes),
            Part::EndOfEntry => {}
            Part::Table { copy, encoding } => {
                self.table = copy.zip(encoding).and_then(|(copy, encoding)| Table::new(copy, encoding));
                (self.first, self.within_row) = (0, true);
            }
            Part::Rows(bytes) if self.table.is_none() || self.first < self.sizes.0 => {
                self.first += bytes.len();
                chunk(&mut self.archive, bytes);
            }
            Part::Rows(bytes) => {
                self.rows.extend_from_slice(bytes);
                if self.rows.len() >= self.sizes.1 {
                    self.piece()?;
                }
            }
            Part::EndOfRows => {
                chunk(&mut self.archive, &self.rows);
                self.rows.clear();
                if self.table.take().is_some() && self.first >= self.sizes.0 {
                    self.pass_on()?;
                    // What follows may be built on all rows of the table.
                    self.lanes.settle()?;
                }
                self.archive.extend_from_slice(&[0; INT]);
            }
        }
        Ok(())
    }

    /// Lets go of all rows but the last one that is not whole yet. The end marker, five bytes, is never among them.
    fn piece(&mut self) -> io::Result<()> {
        let sure = self.rows.len().saturating_sub(COPY_END.len());
        if self.within_row {
            let end = memchr::memchr(b'\n', &self.rows[..sure]);
            let rest_of_row = end.map_or(sure, |at| at + 1);
            chunk(&mut self.archive, &self.rows[..rest_of_row]);
            self.rows.drain(..rest_of_row);
            self.within_row = end.is_none();
            return Ok(());
        }
        let Some(end) = memchr::memrchr(b'\n', &self.rows[..sure]) else {
            self.within_row = true;
            return Ok(());
        };
        let rest = self.rows.split_off(end + 1);
        let mut whole = std::mem::replace(&mut self.rows, rest);
        if !ends_within(&whole) {
            // What is before it in the archive goes before it.
            self.pass_on()?;
            if let Some(table) = &self.table {
                self.lanes.aside(table, &mut whole)?;
            }
        }
        chunk(&mut self.archive, &whole);
        Ok(())
    }

    fn pass_on(&mut self) -> io::Result<()> {
        self.lanes.archive(&self.archive)?;
        self.archive.clear();
        Ok(())
    }
}

/// Adds data to an archive: chunks of a positive length and their bytes.
fn chunk(archive: &mut Vec<u8>, bytes: &[u8]) {
    for bytes in bytes.chunks(PIECE) {
        archive.push(0);
        archive.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes());
        archive.extend_from_slice(bytes);
    }
}

/// Whether one of these rows says that it is the end of the rows, after which psql would read commands. pg_dump writes no such row: it
/// doubles each backslash of a value.
fn ends_within(rows: &[u8]) -> bool {
    rows.starts_with(b"\\.") || memchr::memmem::find(rows, b"\n\\.").is_some()
}

/// The statement that pg_dump wrote, in our own words: an archive that somebody else wrote is no way to make psql run another.
fn copy_statement(text: &str) -> Option<String> {
    let (table, rest) = TableName::parse_prefix(text.strip_prefix("COPY ")?)?;
    let mut columns = Vec::new();
    let mut rest = rest.strip_prefix(" (")?;
    loop {
        let (column, more) = parse_identifier(rest)?;
        columns.push(quote_identifier(&column));
        let Some(another) = more.strip_prefix(", ") else {
            rest = more;
            break;
        };
        rest = another;
    }
    // Of a text in another encoding than UTF-8 not all names are known.
    (rest == ") FROM stdin;\n" && !text.contains(['\0', char::REPLACEMENT_CHARACTER]))
        .then(|| format!("COPY {table} ({}) FROM stdin;\n", columns.join(", ")))
}

#[cfg(test)]
mod tests;

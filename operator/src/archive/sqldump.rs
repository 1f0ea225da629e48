//! Reader of pg_dump's and pg_dumpall's SQL output, as a stream: finds the end marker and counts rows. Pure.
//!
//! The text is read as psql reads it (strings, quoted names, dollar quotes, comments, `\` commands), so that neither a function's body nor a
//! comment can pass for a COPY statement or for the end marker. Rows of COPY are only searched for their end and counted.

use std::collections::BTreeMap;

use holdfast_crds::Reason;

use super::table_name::TableName;
use crate::engine::{Inspect, Inspection};
use crate::store::manifest::ItemCount;
use crate::task::Failure;

/// How much of a statement's beginning is kept: enough for `COPY` and the longest name.
const HEAD_LIMIT: usize = 1024;
/// How much of a comment or a `\` command is kept.
const LINE_LIMIT: usize = 256;
/// Longest dollar-quote tag.
const TAG_LIMIT: usize = 128;
/// How much may follow the end marker.
const TRAILER_LIMIT: usize = 1024;
/// What ends a COPY statement, and as a number: eleven bytes, the newest in the lowest place.
const FROM_STDIN: &[u8; 11] = b" FROM stdin";

/// Which tool wrote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlDump {
    /// pg_dump: one database.
    Database,
    /// pg_dumpall: roles and tablespaces.
    Cluster,
}

impl SqlDump {
    /// The comment that the tool ends with.
    fn end_marker(self) -> &'static str {
        match self {
            Self::Database => "PostgreSQL database dump complete",
            Self::Cluster => "PostgreSQL database cluster dump complete",
        }
    }
}

/// Looks at SQL text as it passes: counts the rows of each table and proves that the text is whole.
pub struct SqlDumpReader {
    what: String,
    kind: SqlDump,
    state: State,
    prev: u8,
    /// The kind of string that the byte before ended: a quote at once after it goes on with the string.
    just_closed: Option<State>,
    head: Vec<u8>,
    recent: u128,
    line: Vec<u8>,
    tag: Vec<u8>,
    escapes: bool,
    restriction: Restriction,
    complete: bool,
    own_transactions: bool,
    trailer: Vec<u8>,
    offset: u64,
    rows: u64,
    items: Vec<ItemCount>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sql,
    /// Inside '…'; whether a backslash escapes, and whether the byte before was one that does.
    Text {
        escapes: bool,
        escaped: bool,
    },
    /// Inside "…".
    Name,
    /// Inside `$tag`.
    DollarTag,
    /// Inside `$tag$…$tag$`; how much of the closing tag has been seen.
    Dollar(usize),
    /// After `--`.
    Comment,
    /// Inside `/*…*/`, this deep.
    Block(u32),
    /// After a `\` outside of everything.
    Command,
    /// Behind the `;` of a COPY statement.
    CopyLine,
    /// Inside rows.
    Copy(CopyPlace),
}

/// psql's restricted mode, which newer tools put their text into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restriction {
    None,
    Begun,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyPlace {
    Inside,
    LineStart,
    Backslash,
    Dot,
}

impl SqlDumpReader {
    /// A reader for the start of a stream; `what` begins its messages, such as `dump of database shop`.
    pub fn new(what: impl Into<String>, kind: SqlDump) -> Self {
        Self {
            what: what.into(),
            kind,
            state: State::Sql,
            prev: b'\n',
            just_closed: None,
            head: Vec::new(),
            recent: 0,
            line: Vec::new(),
            tag: Vec::new(),
            escapes: false,
            restriction: Restriction::None,
            complete: false,
            own_transactions: false,
            trailer: Vec::new(),
            offset: 0,
            rows: 0,
            items: Vec::new(),
        }
    }

    fn broken(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(Reason::SourceIncomplete, format!("{}: {why} (at byte {})", self.what, self.offset))
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = HEAD_LIMIT.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    /// Takes one byte of SQL outside of strings, names and comments.
    fn sql(&mut self, byte: u8) -> Result<(), Failure> {
        let before = std::mem::replace(&mut self.prev, byte);
        let closed = self.just_closed.take();
        let in_word = before.is_ascii_alphanumeric() || matches!(before, b'_' | b'$' | 0x80..);
        match byte {
            b'\'' => {
                let escapes = self.escapes
                    || (matches!(before, b'e' | b'E') && {
                        let word = self.recent >> 8 & 0xff;
                        !(u8::try_from(word).is_ok_and(|b| b.is_ascii_alphanumeric() || b == b'_'))
                    });
                self.state = match closed {
                    Some(State::Text { escapes, .. }) => State::Text { escapes, escaped: false },
                    _ => State::Text { escapes, escaped: false },
                };
            }
            b'"' => self.state = State::Name,
            b'$' if !in_word => {
                self.tag.clear();
                self.state = State::DollarTag;
            }
            b'-' if before == b'-' => {
                self.head.pop();
                self.line.clear();
                self.state = State::Comment;
                return Ok(());
            }
            b'*' if before == b'/' => {
                self.head.pop();
                self.prev = 0;
                self.state = State::Block(1);
                return Ok(());
            }
            b'\\' => {
                self.line.clear();
                self.state = State::Command;
                return Ok(());
            }
            b';' => return self.end_statement(),
            _ => {}
        }
        if !self.head.is_empty() || !byte.is_ascii_whitespace() {
            self.keep(&[byte]);
        }
        self.recent = self.recent << 8 | u128::from(byte);
        Ok(())
    }

    fn end_statement(&mut self) -> Result<(), Failure> {
        let head = std::mem::take(&mut self.head);
        let text = String::from_utf8_lossy(&head);
        let ends_in_rows = FROM_STDIN.iter().fold(0u128, |all, byte| all << 8 | u128::from(*byte));
        if self.recent & ((1 << 88) - 1) == ends_in_rows
            && let Some(rest) = text.strip_prefix("COPY ")
        {
            let (name, _) = TableName::parse_prefix(rest)
                .ok_or_else(|| self.broken("a COPY statement does not name its table as pg_dump writes it"))?;
            self.items.push(ItemCount { name: name.to_string(), count: 0 });
            self.state = State::CopyLine;
        } else if text.starts_with("SET standard_conforming_strings = ") {
            self.escapes = text.ends_with("off");
        } else if text == "COMMIT" {
            self.own_transactions = true;
        }
        self.recent = 0;
        Ok(())
    }

    fn end_comment(&mut self) -> Result<(), Failure> {
        let line = std::mem::take(&mut self.line);
        if line.strip_prefix(b" ") == Some(self.kind.end_marker().as_bytes()) {
            if !self.head.is_empty() {
                return Err(self.broken("its end marker is inside a statement"));
            }
            self.complete = true;
        }
        Ok(())
    }

    /// The tools write no other commands of psql's than these, which may run programs: any other is nobody's dump.
    fn end_command(&mut self) -> Result<(), Failure> {
        let line = std::mem::take(&mut self.line);
        let expected = match self.restriction {
            Restriction::None if line.starts_with(b"restrict ") => Restriction::Begun,
            // pg_dump ends it behind its end marker, pg_dumpall before.
            Restriction::Begun if line.starts_with(b"unrestrict ") && self.kind == SqlDump::Cluster => {
                Restriction::Ended
            }
            _ => return Err(self.broken("it holds a command for psql that the tools do not write")),
        };
        self.restriction = expected;
        Ok(())
    }

    fn keep_line(&mut self, bytes: &[u8]) {
        let room = LINE_LIMIT.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    /// Takes bytes of rows; returns what is behind them.
    fn copy<'a>(&mut self, place: CopyPlace, bytes: &'a [u8]) -> &'a [u8] {
        let (first, rest) = (bytes[0], &bytes[1..]);
        let next = match (place, first) {
            (CopyPlace::LineStart, b'\\') => CopyPlace::Backslash,
            (CopyPlace::Backslash, b'.') => CopyPlace::Dot,
            (CopyPlace::Dot, b'\n') => {
                if let Some(item) = self.items.last_mut() {
                    item.count = i64::try_from(self.rows).unwrap_or(i64::MAX);
                }
                self.rows = 0;
                self.prev = b'\n';
                self.state = State::Sql;
                return rest;
            }
            (CopyPlace::Inside, _) => return self.rows(bytes),
            // A row that only begins like an end.
            (_, b'\n') => {
                self.rows += 1;
                CopyPlace::LineStart
            }
            _ => CopyPlace::Inside,
        };
        self.state = State::Copy(next);
        rest
    }

    /// Takes rows from inside a line up to their end or to the end of the bytes at hand: the hot loop.
    fn rows<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (rows, rest) = match memchr::memmem::find(bytes, b"\n\\.\n") {
            // The end itself is taken byte by byte.
            Some(end) => bytes.split_at(end + 1),
            None => bytes.split_at(bytes.len()),
        };
        self.rows += memchr::memchr_iter(b'\n', rows).count() as u64;
        self.state = State::Copy(match rows {
            [.., b'\n', b'\\', b'.'] => CopyPlace::Dot,
            [.., b'\n', b'\\'] => CopyPlace::Backslash,
            [.., b'\n'] => CopyPlace::LineStart,
            _ => CopyPlace::Inside,
        });
        rest
    }

    fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Failure> {
        let (first, rest) = (bytes[0], &bytes[1..]);
        match self.state {
            State::Sql => self.sql(first)?,
            State::Text { escapes: false, .. } => {
                let Some((inside, rest)) = until(bytes, b'\'') else {
                    self.keep(bytes);
                    return Ok(&[]);
                };
                self.keep(inside);
                self.close(b'\'');
                return Ok(rest);
            }
            State::Text { escaped: true, .. } => self.state = State::Text { escapes: true, escaped: false },
            State::Text { .. } => match memchr::memchr2(b'\'', b'\\', bytes) {
                Some(at) if bytes[at] == b'\\' => {
                    self.state = State::Text { escapes: true, escaped: true };
                    return Ok(&bytes[at + 1..]);
                }
                Some(at) => {
                    self.close(b'\'');
                    return Ok(&bytes[at + 1..]);
                }
                None => return Ok(&[]),
            },
            State::Name => {
                let Some((inside, rest)) = until(bytes, b'"') else {
                    self.keep(bytes);
                    return Ok(&[]);
                };
                self.keep(inside);
                self.close(b'"');
                return Ok(rest);
            }
            State::DollarTag => {
                let in_tag = first.is_ascii_alphabetic()
                    || matches!(first, b'_' | 0x80..)
                    || (first.is_ascii_digit() && !self.tag.is_empty());
                if first == b'$' {
                    self.state = State::Dollar(0);
                } else if in_tag && self.tag.len() < TAG_LIMIT {
                    self.tag.push(first);
                } else {
                    // No dollar quote after all, such as a parameter's `$1`.
                    self.prev = b'$';
                    self.state = State::Sql;
                    return Ok(bytes);
                }
            }
            State::Dollar(seen) => return Ok(self.dollar(seen, bytes)),
            State::Comment | State::Command => {
                let Some((inside, rest)) = until(bytes, b'\n') else {
                    self.keep_line(bytes);
                    return Ok(&[]);
                };
                self.keep_line(inside);
                if self.state == State::Comment {
                    self.end_comment()?;
                } else {
                    self.end_command()?;
                }
                self.prev = b'\n';
                self.state = State::Sql;
                return Ok(rest);
            }
            State::Block(depth) => {
                let before = std::mem::replace(&mut self.prev, first);
                match (before, first) {
                    (b'*', b'/') if depth == 1 => self.state = State::Sql,
                    (b'*', b'/') => self.state = State::Block(depth - 1),
                    (b'/', b'*') => self.state = State::Block(depth.saturating_add(1)),
                    _ => return Ok(rest),
                }
                self.prev = 0;
            }
            State::CopyLine if first == b'\n' => self.state = State::Copy(CopyPlace::LineStart),
            State::CopyLine => return Err(self.broken("something follows a COPY statement on its line")),
            State::Copy(place) => return Ok(self.copy(place, bytes)),
        }
        Ok(rest)
    }

    fn close(&mut self, quote: u8) {
        self.just_closed = Some(self.state);
        self.keep(&[quote]);
        self.recent = self.recent << 8 | u128::from(quote);
        self.prev = quote;
        self.state = State::Sql;
    }

    fn dollar<'a>(&mut self, seen: usize, bytes: &'a [u8]) -> &'a [u8] {
        let (first, rest) = (bytes[0], &bytes[1..]);
        // `seen` counts the bytes of `$tag$` that have matched.
        let matches = match seen {
            0 => {
                let Some(at) = memchr::memchr(b'$', bytes) else { return &[] };
                self.state = State::Dollar(1);
                return &bytes[at + 1..];
            }
            n if n <= self.tag.len() => self.tag[n - 1] == first,
            _ => first == b'$',
        };
        if matches && seen == self.tag.len() + 1 {
            self.prev = b'$';
            self.keep(b"$");
            self.state = State::Sql;
        } else if matches {
            self.state = State::Dollar(seen + 1);
        } else {
            self.state = State::Dollar(usize::from(first == b'$'));
        }
        rest
    }
}

/// What is before the first `end`, and what is behind it.
fn until(bytes: &[u8], end: u8) -> Option<(&[u8], &[u8])> {
    memchr::memchr(end, bytes).map(|at| (&bytes[..at], &bytes[at + 1..]))
}

impl Inspect for SqlDumpReader {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() && !self.complete {
            let rest = self.take(bytes)?;
            self.offset += (bytes.len() - rest.len()) as u64;
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.offset += bytes.len() as u64;
            self.trailer.extend_from_slice(&bytes[..bytes.len().min(TRAILER_LIMIT + 1)]);
            if self.trailer.len() > TRAILER_LIMIT {
                return Err(self.broken("there is something after its end marker"));
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        if !self.complete {
            let place = match (self.state, self.items.last()) {
                (State::Copy(_) | State::CopyLine, Some(item)) => format!("inside the rows of {}", item.name),
                _ => format!("before its end marker \"-- {}\"", self.kind.end_marker()),
            };
            return Err(self.broken(format_args!("it is cut off: it ends {place}")));
        }
        // Behind the marker: the rest of its comment, and from pg_dump the end of the restricted mode it began with.
        let trailer = std::mem::take(&mut self.trailer);
        if !trailer.ends_with(b"\n\n") {
            return Err(self.broken("it is cut off: it ends inside its end marker"));
        }
        for line in trailer.split(|byte| *byte == b'\n') {
            match line {
                b"" | b"--" => {}
                line if line.starts_with(b"\\unrestrict ") => self.restriction = Restriction::Ended,
                _ => return Err(self.broken("there is something after its end marker")),
            }
        }
        if self.restriction == Restriction::Begun {
            return Err(self.broken("it is cut off: the restricted mode it began with has no end"));
        }
        // pg_dump does so for large objects: such a text cannot be put into one transaction from outside.
        let properties = self.own_transactions.then(|| ("ownTransactions".to_owned(), "true".to_owned()));
        let items = std::mem::take(&mut self.items);
        Ok(Inspection { items, properties: BTreeMap::from_iter(properties), ..Inspection::default() })
    }
}

#[cfg(test)]
mod tests;

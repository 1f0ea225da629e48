//! POSIX pax archives, as GNU tar reads and writes them: a writer of headers and a strict reader of streams. Pure.
//!
//! Format: POSIX.1-2017, *pax*, "pax Interchange Format" and "ustar Interchange Format"
//! (<https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html>). Extended attributes as `SCHILY.xattr.*`
//! (star, GNU tar `--xattrs`), sparse files as GNU's format 1.0 in pax
//! (<https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html>).

mod pax;
mod read;
mod sparse;
mod write;

pub use read::{Event, Reader};
pub use sparse::Extent;
pub use write::{END, header, padding};

/// Headers, maps and contents each fill blocks of this many bytes.
pub const BLOCK: usize = 512;

/// At most this many bytes of pax records stand before an entry; GNU tar writes as many as the attributes take, Linux allows 64 KiB an
/// attribute and 64 KiB of names.
pub const MAX_PAX_BYTES: u64 = 1 << 20;

/// At most this many extents describe a sparse file: 16 MiB of memory.
pub const MAX_EXTENTS: usize = 1 << 20;

/// The comment on a file that is stored with zeros in place of its holes.
const HOLES_AS_ZEROS: &[u8] = b"holdfast: holes stored as zeros";

/// A name longer than this is none; Linux opens at most 4096 bytes at once, and a deep folder may have more.
pub const MAX_NAME_BYTES: usize = 64 * 1024;

/// One member of an archive, without its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name: any bytes but NUL, relative to the archive's root, without a slash at the end. What a foreign archive says is not
    /// made safe here: it may be absolute or climb with `..`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky: the lower 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Name of the owner; empty: none is kept.
    pub user: Vec<u8>,
    /// Name of the group; empty: none is kept.
    pub group: Vec<u8>,
    /// When its content last changed.
    pub mtime: Mtime,
    /// Extended attributes by full name (`user.checksum`), in the order of the archive.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a file stored with zeros in place of its holes: that it had some. Kept as a comment, which other readers pass over.
    pub holes_as_zeros: bool,
}

/// What a member is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A file with this many bytes.
    File {
        /// Bytes, holes included.
        size: u64,
        /// Where its data is, where it has holes; each byte outside is zero. Ascending, not touching, within `size`,
        /// in whole blocks of [`BLOCK`] bytes but for what ends the file.
        data: Option<Vec<Extent>>,
    },
    /// A folder.
    #[default]
    Folder,
    /// A symbolic link to this target, whatever it says.
    Symlink(Vec<u8>),
    /// Another name of a member that came before.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A device.
    Device {
        /// A block device, else a character device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Kind {
    /// Its word in messages and in the list of entries.
    pub fn word(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Folder => "folder",
            Self::Symlink(_) => "symlink",
            Self::HardLink(_) => "hardlink",
            Self::Fifo => "fifo",
            Self::Device { .. } => "device",
        }
    }
}

/// An instant, as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime {
    /// Seconds since 1970, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that: below 1,000,000,000.
    pub nanos: u32,
}

impl std::fmt::Display for Mtime {
    /// As pax writes it: `1700000000.25`, `-0.5`; whole seconds without a fraction.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nanos == 0 {
            return write!(f, "{}", self.seconds);
        }
        // -0.5 is half a second after -1.
        let (sign, whole, nanos) = if self.seconds < 0 {
            ("-", (self.seconds + 1).unsigned_abs(), 1_000_000_000 - self.nanos)
        } else {
            ("", self.seconds.unsigned_abs(), self.nanos)
        };
        let fraction = format!("{nanos:09}");
        write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// Why a stream is no archive that can be trusted, or an entry none that can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes at this place of the stream are not what stands there.
    #[error("byte {offset}: {why}")]
    Damaged {
        /// Where, in bytes from the stream's beginning.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// The stream ended before the archive did.
    #[error("the archive is cut off after {offset} bytes")]
    Cut {
        /// Bytes that came.
        offset: u64,
    },
    /// An entry that the format has no place for.
    #[error("{name}: {why}")]
    Unwritable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A name for people: what is not UTF-8, and what would break a line, as `\xNN`; a backslash doubled. No two names look the same.
pub fn printable(name: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                // All control characters are below U+00A0; the second byte of a two-byte one need not be told apart.
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    for byte in c.encode_utf8(&mut bytes).bytes() {
                        let _ = write!(text, "\\x{byte:02x}");
                    }
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests;

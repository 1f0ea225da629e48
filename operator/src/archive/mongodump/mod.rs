//! mongodump's archive format (version 0.1), written and read as a stream. Pure.
//!
//! The format is that of `mongodump --archive`, as mongo-tools' `common/archive` defines it. All integers are little-endian.
//! - Magic `6d e2 99 81`, a header document, one metadata document a namespace, a terminator `ff ff ff ff`: the prelude.
//! - Then segments, which may interleave namespaces: a header document `{db, collection, EOF: false, CRC: 0}`, documents, a terminator.
//!   A namespace ends with `{db, collection, EOF: true, CRC}` and a terminator; the CRC is CRC-64/XZ over the bytes of its documents.
//! - Nothing marks the end of the stream: it is whole when every namespace of the prelude has had its end, views too.
//!
//! What is found: any change of a document (by CRC), of a segment's header or of the structure. What the format cannot tell: another
//! text in the prelude (versions, metadata), which has no checksum of its own; that is for the SHA-256 of the whole artifact.

mod header;
mod inspect;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use header::{Header, List, Namespace};
pub use inspect::ArchiveInspector;
pub use reader::{ArchiveReader, Contents, Ignored};
pub use writer::ArchiveWriter;

/// The first bytes of an archive.
const MAGIC: [u8; 4] = [0x6d, 0xe2, 0x99, 0x81];
/// What ends the prelude and each segment, where a document's length would be.
const TERMINATOR: [u8; 4] = [0xff; 4];
/// The format's version that is read and written.
const FORMAT_VERSION: &str = "0.1";
/// The longest document: the server's own limit for what users store, and what it adds itself.
pub const MAX_DOCUMENT_BYTES: usize = (16 << 20) + (16 << 10);
/// `type` of a view.
pub const VIEW: &str = "view";
/// `type` of a time-series collection.
pub const TIME_SERIES: &str = "timeseries";
/// What a time-series collection's data is called: this and its name.
pub const BUCKETS: &str = "system.buckets.";
/// The database in which a deployment keeps the users and roles of all databases: `system.users`, `system.roles`, `system.version`.
pub const AUTH_DATABASE: &str = "admin";
/// Users of one database, beside its collections.
pub const USERS: &str = "$admin.system.users";
/// Roles of one database, beside its collections.
pub const ROLES: &str = "$admin.system.roles";
/// Version of the form that users and roles have.
pub const AUTH_VERSION: &str = "$admin.system.version";

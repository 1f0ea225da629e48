//! The way of the bytes: from a source through compression and hashes into the bucket, and back. Talks to the bucket.
//!
//! One blocking thread reads, inspects, hashes and compresses (zstd's own threads help); the parts it fills are uploaded side by side.
//! A fixed number of part buffers is what memory is spent on, whatever the size of the stream.

mod download;
mod ledger;
mod parts;
mod upload;

pub use download::Downloads;
pub use ledger::Ledger;
pub use upload::Uploads;

/// Bytes that are read, inspected and handed on at once.
const CHUNK_BYTES: usize = 256 * 1024;

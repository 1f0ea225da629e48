//! The reader of mongodump's archives: any bytes, cut anywhere, end with a failure or as an archive, and never with a panic.

#![no_main]

use holdfast::archive::mongodump::{ArchiveReader, Ignored};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (piece, bytes) = input;
    let mut reader = ArchiveReader::new("fuzz");
    for piece in bytes.chunks(usize::from(piece).max(1)) {
        if reader.feed(piece, &mut Ignored).is_err() {
            return;
        }
    }
    let _ = reader.finish();
});

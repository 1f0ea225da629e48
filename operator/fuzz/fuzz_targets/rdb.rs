//! Any bytes, in pieces of a size that they choose themselves, read as RDB: no panic, no memory beyond what is kept.
#![no_main]

use holdfast::archive::rdb::{Entry, RdbReader, Visit};
use holdfast::engine::Inspect;
use holdfast::task::Failure;
use libfuzzer_sys::fuzz_target;

struct Everything(usize);

impl Visit for Everything {
    const KEEPS: bool = true;

    fn begin(&mut self, _: &Entry, key: &[u8]) -> Result<(), Failure> {
        self.0 += key.len();
        Ok(())
    }

    fn value(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0 += bytes.len();
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let mut reader = RdbReader::visited("dump", Everything(0));
    for piece in bytes.chunks(usize::from(*piece) + 1) {
        if reader.feed(piece).is_err() {
            return;
        }
    }
    let _ = reader.finish();
});

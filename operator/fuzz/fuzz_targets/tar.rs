//! Any bytes, in pieces of a size that they choose themselves, read as tar: no panic, and every member can be written again.
#![no_main]

use holdfast::archive::tar::{Event, Reader, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let mut reader = Reader::new();
    for mut piece in bytes.chunks(usize::from(*piece) + 1) {
        while let Ok(Some(event)) = reader.next(&mut piece) {
            if let Event::Entry(entry) = event {
                let _ = header(&entry, &mut Vec::new());
            }
        }
        if !piece.is_empty() {
            return;
        }
    }
    let _ = reader.finish();
});

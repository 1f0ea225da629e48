//! Looks through a backup before a key of the target is touched: is it whole, and which values are too long to be held in memory. Pure.

use std::sync::{Arc, Mutex, PoisonError};

use crate::archive::rdb::{Entry, FOOTER_BYTES, Visit};
use crate::engine::{Inspect, Inspection};
use crate::task::Failure;

/// Values up to this length are held in memory on their way, for `RESTORE` wants to know the length first.
pub(super) const HELD_BYTES: u64 = 4 << 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Values longer than [`HELD_BYTES`]: which key of the stream, and the length of its payload.
    pub long: Vec<(u64, u64)>,
    /// Length of the longest payload.
    pub longest: u64,
    /// The key it belongs to, for messages.
    pub longest_key: String,
}

/// Surveys a stream.
pub(super) struct Surveyor {
    found: Arc<Mutex<Survey>>,
    ordinal: u64,
    length: u64,
    key: Vec<u8>,
}

impl Surveyor {
    /// What is found goes into `found`.
    pub fn new(found: Arc<Mutex<Survey>>) -> Self {
        Self { found, ordinal: 0, length: 0, key: Vec::new() }
    }
}

impl Visit for Surveyor {
    const KEEPS: bool = true;

    fn begin(&mut self, _: &Entry, key: &[u8]) -> Result<(), Failure> {
        self.length = 1 + FOOTER_BYTES;
        self.key.clear();
        self.key.extend_from_slice(&key[..key.len().min(64)]);
        Ok(())
    }

    fn value(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        if self.length > HELD_BYTES {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.long.push((self.ordinal, self.length));
            if self.length > found.longest {
                found.longest = self.length;
                found.longest_key = String::from_utf8_lossy(&self.key).into_owned();
            }
        }
        self.ordinal += 1;
        Ok(())
    }
}

/// For a stream that was looked through before.
pub(super) struct Seen;

impl Inspect for Seen {
    fn feed(&mut self, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        Ok(Inspection::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::archive::rdb::RdbReader;

    use super::*;

    #[test]
    fn long_values_are_known_by_their_place_and_length() {
        let found = Arc::new(Mutex::new(Survey::default()));
        let mut reader = RdbReader::visited("backup", Surveyor::new(found.clone()));
        let length = 5_u32 << 20;
        let mut rdb = b"REDIS0010\xfe\x00\x00\x01a\x01x\x00\x03big\x80".to_vec();
        rdb.extend_from_slice(&length.to_be_bytes());
        reader.feed(&rdb).unwrap();
        reader.feed(&vec![7; 5 << 20]).unwrap();
        reader.feed(b"\x00\x01b\x01x").unwrap();
        let survey = found.lock().unwrap().clone();
        // Type, length, value, footer.
        let payload = 1 + 5 + u64::from(length) + 10;
        assert_eq!(survey, Survey { long: vec![(1, payload)], longest: payload, longest_key: "big".into() });
    }
}

//! Looks through a backup before a key of the target is touched: is it whole, and which values are too long to be held in memory. Pure.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_crds::Reason;

use crate::archive::rdb::{Entry, FOOTER_BYTES, KEEP_LIMIT, Visit};
use crate::engine::{Inspect, Inspection};
use crate::task::Failure;

/// Values up to this length are held in memory on their way, for `RESTORE` wants to know the length first.
pub(super) const HELD_BYTES: u64 = 4 << 20;

/// So many things that are left out are told.
const MOST_LEFT_OUT: usize = 16;

/// A value that is sent as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Long {
    /// Which key of the stream.
    pub ordinal: u64,
    /// Length of its payload.
    pub length: u64,
    /// When the last of its fields expires, where it is a hash all of whose fields do.
    pub lapses: Option<i64>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Values longer than [`HELD_BYTES`].
    pub long: Vec<Long>,
    /// Length of the longest payload.
    pub longest: u64,
    /// The key it belongs to, for messages.
    pub longest_key: String,
    /// What belongs to no key, and so does not come along.
    pub left_out: BTreeSet<String>,
}

/// Surveys a stream.
pub(super) struct Surveyor {
    found: Arc<Mutex<Survey>>,
    ordinal: u64,
    metadata: u64,
    length: u64,
    key: Vec<u8>,
}

impl Surveyor {
    /// What is found goes into `found`.
    pub fn new(found: Arc<Mutex<Survey>>) -> Self {
        Self { found, ordinal: 0, metadata: 0, length: 0, key: Vec::new() }
    }
}

impl Visit for Surveyor {
    const KEEPS: bool = true;

    fn metadata(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.metadata += bytes.len() as u64;
        if self.metadata > KEEP_LIMIT as u64 {
            return Err(Failure::new(
                Reason::InvalidConfiguration,
                format!(
                    "what modules keep beside a key has more than {KEEP_LIMIT} bytes, which is the most that is restored key by key"
                ),
            ));
        }
        Ok(())
    }

    fn besides(&mut self, what: String) -> Result<(), Failure> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.left_out.len() < MOST_LEFT_OUT {
            found.left_out.insert(what);
        }
        Ok(())
    }

    fn begin(&mut self, _: &Entry, key: &[u8]) -> Result<(), Failure> {
        self.length = std::mem::take(&mut self.metadata) + 1 + FOOTER_BYTES;
        self.key.clear();
        self.key.extend_from_slice(&key[..key.len().min(64)]);
        Ok(())
    }

    fn value(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self, lapses: Option<i64>) -> Result<(), Failure> {
        if self.length > HELD_BYTES {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.long.push(Long { ordinal: self.ordinal, length: self.length, lapses });
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
        assert_eq!(
            survey,
            Survey {
                long: vec![Long { ordinal: 1, length: payload, lapses: None }],
                longest: payload,
                longest_key: "big".into(),
                left_out: BTreeSet::new()
            }
        );
    }

    #[test]
    fn metadata_counts_to_the_payload_and_what_belongs_to_no_key_is_named() {
        let found = Arc::new(Mutex::new(Survey::default()));
        let mut reader = RdbReader::visited("backup", Surveyor::new(found.clone()));
        let length = 5_u32 << 20;
        // A field of another program's; data of a module; metadata of 11 bytes with its opcode.
        let mut rdb = b"REDIS0013\xfa\x05other\x01x\xf7\x81".to_vec();
        rdb.extend_from_slice(&[0; 8]);
        rdb.extend_from_slice(b"\x02\x01\x00\xfe\x00\xf3\x01\x18\x5d\x89\x86\x02\x07\x05\x00\x00\x00\x03big\x80");
        rdb.extend_from_slice(&length.to_be_bytes());
        reader.feed(&rdb).unwrap();
        reader.feed(&vec![7; 5 << 20]).unwrap();
        reader.feed(b"\x00\x01b\x01x").unwrap();
        let survey = found.lock().unwrap().clone();
        let payload = 11 + 1 + 5 + u64::from(length) + 10;
        assert_eq!(survey.long, [Long { ordinal: 0, length: payload, lapses: None }]);
        let left_out: Vec<&str> = survey.left_out.iter().map(String::as_str).collect();
        assert_eq!(left_out, ["data of the module type AAAAAAAAA", "the field \"other\""]);
    }
}

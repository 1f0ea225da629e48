//! `DUMP` payloads, which `RESTORE` takes: a type byte, a value as RDB has it, the version and a checksum. Pure.

use crc_fast::{CrcAlgorithm, Digest};

/// Version and checksum behind a value.
pub const FOOTER_BYTES: u64 = 10;

/// A payload under way: what was fed, summed up.
pub struct Payload {
    crc: Digest,
}

impl Payload {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { crc: Digest::new(CrcAlgorithm::Crc64Redis) }
    }

    /// The next bytes, of which the type byte is the first.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
    }

    /// What comes behind them.
    pub fn footer(mut self, version: u32) -> [u8; 10] {
        let version = u16::try_from(version).unwrap_or(u16::MAX).to_le_bytes();
        self.crc.update(&version);
        let mut footer = [0; 10];
        footer[..2].copy_from_slice(&version);
        footer[2..].copy_from_slice(&self.crc.finalize().to_le_bytes());
        footer
    }

    /// The payload that `FUNCTION RESTORE` takes.
    pub fn of_functions<'a>(libraries: impl IntoIterator<Item = &'a [u8]>, version: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for library in libraries {
            bytes.push(super::grammar::FUNCTION);
            bytes.push(0x81);
            bytes.extend_from_slice(&(library.len() as u64).to_be_bytes());
            bytes.extend_from_slice(library);
        }
        let mut payload = Self::new();
        payload.feed(&bytes);
        bytes.extend_from_slice(&payload.footer(version));
        bytes
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::new()
    }
}

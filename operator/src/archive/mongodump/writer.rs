//! Writes archives. Pure.

use crc_fast::{CrcAlgorithm, Digest};

use super::header::SegmentHeader;
use super::{Header, MAGIC, Namespace, TERMINATOR};

/// Writes an archive piece by piece onto the end of buffers that the caller passes on.
pub struct ArchiveWriter {
    namespaces: Vec<Open>,
    /// The namespace whose segment is open.
    current: Option<usize>,
}

struct Open {
    database: String,
    collection: String,
    crc: Digest,
    begun: bool,
}

impl ArchiveWriter {
    /// Begins an archive: its prelude is written to `out`. Namespaces are then known by their places in `namespaces`.
    pub fn begin(header: &Header, namespaces: &[Namespace], out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&header.encode());
        for namespace in namespaces {
            out.extend_from_slice(&namespace.encode());
        }
        out.extend_from_slice(&TERMINATOR);
        let namespaces = namespaces
            .iter()
            .map(|namespace| Open {
                database: namespace.database.clone(),
                collection: namespace.data_collection(),
                crc: Digest::new(CrcAlgorithm::Crc64Xz),
                begun: false,
            })
            .collect();
        Self { namespaces, current: None }
    }

    /// Adds whole documents to a namespace.
    pub fn documents<'a>(
        &mut self,
        namespace: usize,
        documents: impl IntoIterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) {
        self.open(namespace, out);
        let start = out.len();
        for document in documents {
            out.extend_from_slice(document);
        }
        if let Some(open) = self.namespaces.get_mut(namespace) {
            open.crc.update(&out[start..]);
        }
    }

    /// Ends a namespace. One without documents gets an empty segment first, as mongodump writes it.
    pub fn end(&mut self, namespace: usize, out: &mut Vec<u8>) {
        if self.namespaces.get(namespace).is_some_and(|open| !open.begun) {
            self.open(namespace, out);
        }
        if self.current.take().is_some() {
            out.extend_from_slice(&TERMINATOR);
        }
        if let Some(open) = self.namespaces.get(namespace) {
            let crc = open.crc.finalize();
            out.extend_from_slice(&SegmentHeader::encode(&open.database, &open.collection, Some(crc)));
            out.extend_from_slice(&TERMINATOR);
        }
    }

    fn open(&mut self, namespace: usize, out: &mut Vec<u8>) {
        if self.current == Some(namespace) {
            return;
        }
        if self.current.replace(namespace).is_some() {
            out.extend_from_slice(&TERMINATOR);
        }
        if let Some(open) = self.namespaces.get_mut(namespace) {
            open.begun = true;
            out.extend_from_slice(&SegmentHeader::encode(&open.database, &open.collection, None));
        }
    }
}

//! Looks at an archive as it passes: counts the documents of each collection and proves that it is whole. Pure.

use std::collections::BTreeMap;

use super::reader::{ArchiveReader, Ignored};
use crate::engine::{Inspect, Inspection};
use crate::store::manifest::ItemCount;
use crate::task::Failure;

/// An [`Inspect`] for archives.
pub struct ArchiveInspector {
    reader: ArchiveReader,
}

impl ArchiveInspector {
    /// For the start of a stream; `what` begins its messages.
    pub fn new(what: impl Into<String>) -> Self {
        Self { reader: ArchiveReader::new(what) }
    }
}

impl Inspect for ArchiveInspector {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.reader.feed(bytes, &mut Ignored)
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        self.reader.finish()?;
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let counts = || self.reader.counts();
        let items =
            counts().map(|(of, documents)| ItemCount { name: of.full_name(), count: count(documents) }).collect();
        // Users are no documents: with them an empty database would not look empty.
        let total = Some(counts().filter(|(of, _)| of.list().is_none()).map(|(_, documents)| count(documents)).sum());
        let mut properties = BTreeMap::new();
        if let Some(header) = self.reader.header() {
            properties.insert("archiveServerVersion".to_owned(), header.server_version.clone());
            properties.insert("archiveToolVersion".to_owned(), header.tool_version.clone());
        }
        Ok(Inspection { items, total, properties })
    }
}

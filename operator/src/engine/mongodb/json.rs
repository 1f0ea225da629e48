//! Dumps as Extended JSON: a file a collection, one document a line, and a summary. Talks to the server through its readers.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_crds::Reason;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::catalogue::Collection;
use super::dump::{Subject, both};
use super::read::{self, Documents, Reading, Stopped};
use super::stream::{Form, PieceStream};
use crate::archive::extjson::{TypeCounts, write_counted};
use crate::engine::{ArtifactMetadata, ArtifactSink, Inspect, Inspection};
use crate::store::manifest::ItemCount;
use crate::task::Failure;

/// Format of a collection's artifact.
pub(super) const LINES: &str = "mongodb-json-lines";
/// Format of the summary's artifact.
pub(super) const SUMMARY: &str = "mongodb-json-summary";
/// Name of the summary's artifact.
const SUMMARY_NAME: &str = "summary.json";
/// Property of a collection's artifact: its name, without the database's.
pub(super) const COLLECTION: &str = "collection";
/// About how many bytes are made ready at a time.
const AHEAD: usize = 256 << 10;
/// Batches that wait to be stored.
const WAITING: usize = 4;
/// A summary larger than this is none.
pub(super) const MAX_SUMMARY_BYTES: usize = 64 << 20;

/// What a dump holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    /// Version of the server.
    pub server_version: String,
    /// The tool that wrote it.
    pub tool_version: String,
    /// `snapshot` or `fuzzy`.
    pub consistency: String,
    /// Documents of all collections.
    pub documents: u64,
    /// Bytes of all files of collections, before compression.
    pub bytes: u64,
    /// Each collection and view.
    pub collections: Vec<SummaryEntry>,
}

/// A collection or view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SummaryEntry {
    /// Database.
    pub database: String,
    /// Name.
    pub collection: String,
    /// `collection`, `view` or `timeseries`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the artifact with its documents; none: a view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Documents.
    pub documents: u64,
    /// Bytes of the file, before compression.
    pub bytes: u64,
    /// How many values of each type are in it, nested ones too.
    pub types: BTreeMap<String, u64>,
    /// Options and indexes, as canonical Extended JSON in a text: the order of its fields matters.
    pub metadata: String,
}

/// Stores all collections, one after the other, and then the summary.
pub(super) async fn store(
    subject: &Subject<'_>,
    reading: Reading,
    sink: &mut impl ArtifactSink,
) -> Result<(), Stopped> {
    let mut summary = Summary {
        server_version: subject.deployment.version.clone(),
        tool_version: super::dump::TOOL.to_owned(),
        consistency: super::dump::consistency(reading, &subject.collections).to_owned(),
        ..Summary::default()
    };
    for collection in subject.collections.iter() {
        let entry = lines(subject, collection, reading, sink).await?;
        summary.documents += entry.documents;
        summary.bytes += entry.bytes;
        summary.collections.push(entry);
    }
    let text = serde_json::to_vec_pretty(&summary).map_err(|e| {
        Stopped::Failed(Failure::new(Reason::DumpFailed, format!("the summary cannot be written: {e}")))
    })?;
    if text.len() > MAX_SUMMARY_BYTES {
        let message = format!("the summary would have {} bytes: split the source", text.len());
        return Err(Stopped::Failed(Failure::new(Reason::InvalidConfiguration, message)));
    }
    let metadata = ArtifactMetadata {
        database: subject.database.map(str::to_owned),
        format: SUMMARY.to_owned(),
        ..ArtifactMetadata::default()
    };
    let inspect = Box::new(SummaryInspector::default());
    sink.store(SUMMARY_NAME, Box::new(Cursor::new(text)), inspect, metadata).await.map_err(Stopped::Failed)?;
    Ok(())
}

async fn lines(
    subject: &Subject<'_>,
    collection: &Collection,
    reading: Reading,
    sink: &mut impl ArtifactSink,
) -> Result<SummaryEntry, Stopped> {
    let namespace = &collection.namespace;
    let mut entry = SummaryEntry {
        database: namespace.database.clone(),
        collection: namespace.collection.clone(),
        kind: namespace.kind.clone(),
        metadata: namespace.metadata.clone(),
        ..SummaryEntry::default()
    };
    if !collection.has_data() {
        return Ok(entry);
    }
    let (sender, receiver) = mpsc::channel(WAITING);
    let totals = Arc::new(Mutex::new(Totals::default()));
    let form = Lines { text: String::new(), totals: totals.clone() };
    let stream = PieceStream::new(receiver, form, Vec::new());
    let what = format!("dump of {} of {}", namespace.collection, subject.deployment.place(&namespace.database));
    let name = format!("{}.jsonl", namespace.full_name());
    let metadata = ArtifactMetadata {
        database: Some(namespace.database.clone()),
        format: LINES.to_owned(),
        properties: BTreeMap::from([(COLLECTION.to_owned(), namespace.collection.clone())]),
        ..ArtifactMetadata::default()
    };
    let inspect = Box::new(LinesInspector::new(what.clone(), namespace.full_name()));
    let storing = sink.store(&name, Box::new(stream), inspect, metadata);
    let one: Arc<[Collection]> = Arc::from([collection.clone()]);
    let inspection = both(storing, read::read(subject.deployment, &one, reading, false, sender)).await?;
    let totals = totals.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let counted = inspection.items.first().map(|item| item.count);
    if counted != i64::try_from(totals.documents).ok() {
        let message =
            format!("{what}: {} documents were read and {} lines stored", totals.documents, counted.unwrap_or(0));
        return Err(Stopped::Failed(Failure::new(Reason::SourceIncomplete, message)));
    }
    entry.file = Some(name);
    entry.documents = totals.documents;
    entry.bytes = totals.bytes;
    entry.types = totals.types.named().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    Ok(entry)
}

#[derive(Clone, Default)]
struct Totals {
    documents: u64,
    bytes: u64,
    types: TypeCounts,
}

/// Documents as lines.
struct Lines {
    text: String,
    totals: Arc<Mutex<Totals>>,
}

impl Form for Lines {
    fn documents(&mut self, _place: usize, documents: &mut Documents<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        while out.len() < AHEAD {
            let Some(document) = documents.next()? else { return Ok(false) };
            self.text.clear();
            write_counted(document, &mut self.text, &mut totals.types)
                .map_err(|why| format!("document {} cannot be written as JSON: {why}", totals.documents + 1))?;
            self.text.push('\n');
            out.extend_from_slice(self.text.as_bytes());
            totals.documents += 1;
            totals.bytes += self.text.len() as u64;
        }
        Ok(true)
    }

    fn end(&mut self, _place: usize, _out: &mut Vec<u8>) {}
}

/// Counts lines and proves that the last one is whole.
pub(super) struct LinesInspector {
    what: String,
    name: String,
    lines: i64,
    last: u8,
}

impl LinesInspector {
    /// For the collection `name`; `what` begins its messages.
    pub fn new(what: String, name: String) -> Self {
        Self { what, name, lines: 0, last: b'\n' }
    }
}

impl Inspect for LinesInspector {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.lines += i64::try_from(memchr::memchr_iter(b'\n', bytes).count()).unwrap_or(i64::MAX);
        self.last = bytes.last().copied().unwrap_or(self.last);
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        if self.last != b'\n' {
            return Err(Failure::new(Reason::SourceIncomplete, format!("{}: its last line is cut off", self.what)));
        }
        let items = vec![ItemCount { name: self.name.clone(), count: self.lines }];
        Ok(Inspection { items, total: Some(self.lines), ..Inspection::default() })
    }
}

/// Proves that a summary is one.
#[derive(Default)]
pub(super) struct SummaryInspector {
    text: Vec<u8>,
}

impl Inspect for SummaryInspector {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.text.len() + bytes.len() > MAX_SUMMARY_BYTES {
            return Err(Failure::new(Reason::SourceIncomplete, "the summary is too large for one"));
        }
        self.text.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        read_summary(&self.text).map(|_| Inspection::default())
    }
}

/// Reads a summary.
pub(super) fn read_summary(text: &[u8]) -> Result<Summary, Failure> {
    serde_json::from_slice(text)
        .map_err(|e| Failure::new(Reason::SourceIncomplete, format!("the summary of the backup cannot be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_a_cut_one_is_found() {
        let count = |text: &str| {
            let mut inspector = LinesInspector::new("test".into(), "d.c".into());
            for piece in text.as_bytes().chunks(3) {
                inspector.feed(piece).unwrap();
            }
            inspector.finish().map(|inspection| inspection.items[0].count)
        };
        assert_eq!(count("").unwrap(), 0);
        assert_eq!(count("{}\n{\"a\":1}\n").unwrap(), 2);
        assert!(count("{}\n{\"a\":1}").unwrap_err().message.contains("its last line is cut off"));
    }
}

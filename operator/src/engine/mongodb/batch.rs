//! Documents gathered into the commands that insert them. Pure but for the channel they go into.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use holdfast_crds::Reason;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::archive::mongodump::Namespace;
use crate::task::Failure;

/// About how many bytes are inserted at a time.
const BATCH_BYTES: usize = 512 << 10;
/// Most documents that are inserted at a time.
const BATCH_DOCUMENTS: u64 = 5000;
/// No command may be larger; one with the largest document still fits.
const COMMAND_BYTES: usize = 16 << 20;
/// What batches may take that have begun, of all collections together.
const OPEN_BYTES: usize = 12 << 20;
/// What the batches that wait or are being sent may take, in KiB.
pub(super) const BUDGET: u32 = 20 << 10;

/// What comes out of a backup, in its order.
pub(super) enum Event {
    /// What is in it. The answer says where each namespace's documents go; no answer: the restore has ended.
    Namespaces(Vec<Namespace>, oneshot::Sender<Vec<Option<Destination>>>),
    /// Documents to insert.
    Batch(Batch),
    /// The backup was whole. What the server may have replaced in it.
    Whole(Emptied),
}

/// How many documents have an empty timestamp in a field of their first level, by place and field: where a server is not asked to leave
/// them, it may put the time there.
pub(super) type Emptied = BTreeMap<(usize, String), u64>;

/// So many fields are counted; what is in others counts as one of this name, which nobody has.
const MOST_FIELDS: usize = 1000;
/// The name of all others.
pub(super) const OTHER_FIELDS: &str = "";

/// Where documents go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// Collection.
    pub collection: String,
    /// Whether their order matters.
    pub ordered: bool,
    /// Whether the collection's validation is passed by.
    pub bypass_validation: bool,
    /// Whether the server is asked to leave empty timestamps as they are, which it takes.
    pub keeps_timestamps: bool,
}

/// Documents to insert.
pub(super) struct Batch {
    /// Place of their namespace in the backup.
    pub place: usize,
    /// The command.
    pub command: RawDocumentBuf,
    /// How many they are.
    pub count: u64,
    /// Their share of the memory.
    pub _share: OwnedSemaphorePermit,
}

/// Gathers documents. To be used on a blocking thread.
pub(super) struct Batcher {
    events: mpsc::Sender<Event>,
    budget: Arc<Semaphore>,
    handle: Handle,
    destinations: Vec<Option<Destination>>,
    open: Vec<Option<Open>>,
    open_bytes: usize,
    emptied: Emptied,
}

/// A command that has begun.
pub(super) struct Open {
    bytes: Vec<u8>,
    /// Where its list of documents begins.
    list: usize,
    count: u64,
}

impl Open {
    /// An insert without documents yet.
    pub fn begin(destination: &Destination) -> Self {
        let mut command = rawdoc! {"insert": destination.collection.as_str(), "ordered": destination.ordered};
        if destination.bypass_validation {
            command.append(bson::cstr!("bypassDocumentValidation"), true);
        }
        if destination.keeps_timestamps {
            command.append(bson::cstr!("bypassEmptyTsReplacement"), true);
        }
        let mut bytes = command.into_bytes();
        bytes.pop();
        bytes.extend_from_slice(b"\x04documents\0");
        let list = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        Self { bytes, list, count: 0 }
    }

    /// Adds a document.
    pub fn add(&mut self, document: &[u8]) {
        self.bytes.push(0x03);
        self.bytes.extend_from_slice(self.count.to_string().as_bytes());
        self.bytes.push(0);
        self.bytes.extend_from_slice(document);
        self.count += 1;
    }

    /// How many documents are in it.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether there is room for one more document of this length.
    pub fn has_room(&self, document: usize) -> bool {
        self.count == 0 || (self.bytes.len() + document + 64 <= COMMAND_BYTES && self.bytes.len() < BATCH_BYTES)
    }

    /// The command.
    pub fn end(mut self) -> Result<RawDocumentBuf, Failure> {
        let failed = |why: String| Failure::new(Reason::RestoreFailed, format!("documents cannot be sent: {why}"));
        let length = |bytes: usize| u32::try_from(bytes).map(u32::to_le_bytes).map_err(|e| failed(e.to_string()));
        self.bytes.push(0);
        let list = length(self.bytes.len() - self.list)?;
        self.bytes[self.list..self.list + 4].copy_from_slice(&list);
        self.bytes.push(0);
        let whole = length(self.bytes.len())?;
        self.bytes[..4].copy_from_slice(&whole);
        RawDocumentBuf::from_bytes(self.bytes).map_err(|e| failed(e.to_string()))
    }
}

impl Batcher {
    /// Sends to `events`; to be made where the runtime is.
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            budget: Arc::new(Semaphore::new(BUDGET as usize)),
            handle: Handle::current(),
            destinations: Vec::new(),
            open: Vec::new(),
            open_bytes: 0,
            emptied: Emptied::new(),
        }
    }

    /// Tells what is in the backup and waits for the word where it goes.
    pub fn namespaces(&mut self, namespaces: Vec<Namespace>) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        self.send(Event::Namespaces(namespaces, answer))?;
        let destinations = answered.blocking_recv().map_err(|_| stopped())?;
        self.begin(destinations);
        Ok(())
    }

    /// Where documents go.
    pub fn begin(&mut self, destinations: Vec<Option<Destination>>) {
        self.open = destinations.iter().map(|_| None).collect();
        self.destinations = destinations;
    }

    /// Takes a document.
    pub fn document(&mut self, place: usize, document: &[u8]) -> Result<(), Failure> {
        if !matches!(self.destinations.get(place), Some(Some(_))) {
            return Ok(());
        }
        if self.open[place].as_ref().is_some_and(|open| open.bytes.len() + document.len() + 64 > COMMAND_BYTES) {
            self.end(place)?;
        }
        let Some(Some(destination)) = self.destinations.get(place) else { return Ok(()) };
        if !destination.keeps_timestamps {
            count_empty(place, document, &mut self.emptied);
        }
        let open = self.open[place].get_or_insert_with(|| Open::begin(destination));
        let before = open.bytes.len();
        open.add(document);
        self.open_bytes += open.bytes.len() - before;
        if open.bytes.len() >= BATCH_BYTES || open.count >= BATCH_DOCUMENTS || self.open_bytes >= OPEN_BYTES {
            self.end(place)?;
        }
        Ok(())
    }

    /// Sends what has been gathered for a namespace.
    pub fn end(&mut self, place: usize) -> Result<(), Failure> {
        let Some(open) = self.open.get_mut(place).and_then(Option::take) else { return Ok(()) };
        self.open_bytes = self.open_bytes.saturating_sub(open.bytes.len() - open.list);
        let count = open.count;
        let command = open.end()?;
        let kib = u32::try_from(command.as_bytes().len().div_ceil(1024)).unwrap_or(BUDGET).min(BUDGET);
        let share = self.handle.block_on(self.budget.clone().acquire_many_owned(kib)).map_err(|_| stopped())?;
        self.send(Event::Batch(Batch { place, command, count, _share: share }))
    }

    /// The backup was whole.
    pub fn whole(&mut self) -> Result<(), Failure> {
        for place in 0..self.open.len() {
            self.end(place)?;
        }
        let emptied = std::mem::take(&mut self.emptied);
        self.send(Event::Whole(emptied))
    }

    fn send(&self, event: Event) -> Result<(), Failure> {
        self.events.blocking_send(event).map_err(|_| stopped())
    }
}

/// Counts what a server might replace in a document. That of `_id` no server does.
fn count_empty(place: usize, document: &[u8], emptied: &mut Emptied) {
    const EMPTY: Timestamp = Timestamp { time: 0, increment: 0 };
    let Ok(document) = RawDocument::from_bytes(document) else { return };
    for (name, value) in document.iter().flatten() {
        if value == RawBsonRef::Timestamp(EMPTY) && name.as_str() != "_id" {
            let known = emptied.len() < MOST_FIELDS || emptied.contains_key(&(place, name.as_str().to_owned()));
            let name = if known { name.as_str() } else { OTHER_FIELDS };
            *emptied.entry((place, name.to_owned())).or_default() += 1;
        }
    }
}

/// The one who inserts has ended, and its word counts.
fn stopped() -> Failure {
    Failure::new(Reason::RestoreFailed, "nobody takes the documents any more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_an_insert_command() {
        let destination =
            Destination { collection: "c".into(), ordered: false, bypass_validation: true, keeps_timestamps: true };
        let mut open = Open::begin(&destination);
        for n in 0..12 {
            open.add(rawdoc! {"_id": n}.as_bytes());
        }
        let documents: bson::RawArrayBuf = (0..12).map(|n| rawdoc! {"_id": n}).collect();
        let expected = rawdoc! {"insert": "c", "ordered": false, "bypassDocumentValidation": true, "bypassEmptyTsReplacement": true, "documents": documents};
        assert_eq!(open.end().unwrap(), expected);
    }

    #[test]
    fn only_what_a_server_would_replace_is_counted() {
        let empty = Timestamp { time: 0, increment: 0 };
        let mut emptied = Emptied::new();
        let document = rawdoc! {"_id": empty, "a": empty, "b": {"c": empty}, "d": [empty], "e": Timestamp { time: 0, increment: 1 }};
        count_empty(3, document.as_bytes(), &mut emptied);
        count_empty(3, document.as_bytes(), &mut emptied);
        assert_eq!(emptied, BTreeMap::from([((3, "a".to_owned()), 2)]));
        for n in 0..2 * MOST_FIELDS {
            let mut one = RawDocumentBuf::new();
            one.append(bson::raw::CString::try_from(format!("f{n}")).unwrap(), empty);
            count_empty(4, one.as_bytes(), &mut emptied);
        }
        assert_eq!(emptied.len(), MOST_FIELDS + 1);
        assert_eq!(emptied[&(4, OTHER_FIELDS.to_owned())], MOST_FIELDS as u64 + 1);
    }
}

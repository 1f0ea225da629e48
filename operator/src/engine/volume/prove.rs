//! A volume's archive against the list of its entries, member by member, as a restore compares them, with nothing written. Pure.

use std::sync::Arc;

use holdfast_crds::Reason;

use super::expect::Expected;
use super::restore::{Backup, expected};
use crate::archive::file_index::{ContentHash, Line};
use crate::archive::tar::{Entry, Event, Kind, Reader, printable};
use crate::engine::{ArtifactSource, Inspect, Inspection};
use crate::store::manifest::Manifest;
use crate::task::Failure;

/// Reads both artifacts to their ends.
pub(super) async fn prove(manifest: &Manifest, source: &mut impl ArtifactSource) -> Result<(), Failure> {
    let backup = Backup::of(manifest)?;
    // A list that cannot be read as one stops whoever writes it down, and here that is what it lacks.
    let incomplete = |failure: Failure| match failure.reason {
        Reason::RestoreFailed => Failure::new(Reason::SourceIncomplete, failure.message),
        _ => failure,
    };
    let expected = Arc::new(expected(None, &backup, source).await.map_err(incomplete)?);
    let compared = Compared { reader: Reader::new(), expected, entries: 0, open: None };
    source.fetch(backup.tar, Box::new(std::io::sink()), Box::new(compared)).await.map(drop)
}

/// Makes the list anew from the archive that passes.
struct Compared {
    reader: Reader,
    expected: Arc<Expected>,
    entries: u64,
    /// The file whose content comes: its number, and what it hashes to so far.
    open: Option<(u64, Box<Entry>, ContentHash)>,
}

impl Compared {
    fn tick(&self, number: u64, entry: &Entry, hash: Option<[u8; 32]>) -> Result<(), Failure> {
        if self.expected.tick(number, &Line::of(entry, hash).to_bytes()) {
            return Ok(());
        }
        Err(damaged(&format!("{} is not as the list of entries has it", printable(&entry.path))))
    }
}

impl Inspect for Compared {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while let Some(event) = self.reader.next(&mut bytes).map_err(|e| damaged(&e.to_string()))? {
            match event {
                Event::Entry(entry) => {
                    let number = self.entries;
                    self.entries += 1;
                    if matches!(entry.kind, Kind::File { .. }) {
                        let hash = ContentHash::new(&entry.kind);
                        self.open = Some((number, entry, hash));
                    } else {
                        self.tick(number, &entry, None)?;
                    }
                }
                Event::Data { offset, bytes } => {
                    if let Some((_, _, hash)) = &mut self.open {
                        hash.update(offset, bytes);
                    }
                }
                Event::FileEnd => {
                    if let Some((number, entry, hash)) = self.open.take() {
                        self.tick(number, &entry, Some(hash.finish()))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        self.reader.finish().map_err(|e| damaged(&e.to_string()))?;
        self.expected.confirm(self.entries).map_err(|why| damaged(&why))?;
        Ok(Inspection::default())
    }
}

fn damaged(why: &str) -> Failure {
    Failure::new(Reason::ChecksumMismatch, format!("the archive is damaged: {why}; take another backup"))
}

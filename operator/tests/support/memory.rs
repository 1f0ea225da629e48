//! A sink and a source that keep artifacts in memory.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is part of tests")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use holdfast::engine::{ArtifactMetadata, ArtifactSink, ArtifactSource, Inspect, Inspection, NewArtifact, PairSink};
use holdfast::store::manifest::{ArtifactEntry, FORMAT_VERSION, Manifest};
use holdfast::task::Failure;
use holdfast_crds::Reason;

/// An artifact in memory.
pub struct Stored {
    pub entry: ArtifactEntry,
    pub bytes: Vec<u8>,
}

/// What a sink does before it has read this many bytes' worth of a stream: a test's chance to act in the middle.
type Hook = Box<dyn FnMut(usize) + Send>;

/// Keeps artifacts in memory.
#[derive(Default)]
pub struct MemorySink {
    pub stored: Vec<Stored>,
    /// Called with the number of bytes read so far, before each read.
    pub hook: Option<Hook>,
}

impl ArtifactSink for MemorySink {
    async fn store(
        &mut self,
        name: &str,
        mut stream: Box<dyn Read + Send>,
        mut inspect: Box<dyn Inspect>,
        metadata: ArtifactMetadata,
    ) -> Result<Inspection, Failure> {
        let mut hook = self.hook.take();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            let mut buffer = vec![0; 65_536];
            loop {
                if let Some(hook) = &mut hook {
                    hook(bytes.len());
                }
                let n = stream
                    .read(&mut buffer)
                    .map_err(|error| Failure::new(Reason::SourceIncomplete, error.to_string()))?;
                if n == 0 {
                    return Ok((inspect.finish()?, bytes));
                }
                inspect.feed(&buffer[..n])?;
                bytes.extend_from_slice(&buffer[..n]);
            }
        });
        let (inspection, bytes) = read.await.unwrap()?;
        let mut properties = metadata.properties;
        properties.extend(inspection.properties.clone());
        self.stored.push(Stored {
            entry: ArtifactEntry {
                key: format!("ns/policy/run/db/{name}"),
                name: name.to_owned(),
                format: metadata.format,
                database: metadata.database,
                stored_bytes: bytes.len() as u64,
                source_bytes: bytes.len() as u64,
                compression: "none".to_owned(),
                items: i64::try_from(inspection.items.len()).unwrap(),
                item_counts: inspection.items.clone(),
                roles: metadata.roles,
                extensions: metadata.extensions,
                properties,
                ..ArtifactEntry::default()
            },
            bytes,
        });
        Ok(inspection)
    }
}

impl PairSink for MemorySink {
    async fn store_pair(
        &mut self,
        first: NewArtifact,
        second: NewArtifact,
    ) -> Result<(Inspection, Inspection), Failure> {
        // No engine that is tested with this stores two streams at once, so that one after the other will do.
        let one = self.store(&first.name, first.stream, first.inspect, first.metadata).await?;
        Ok((one, self.store(&second.name, second.stream, second.inspect, second.metadata).await?))
    }
}

impl MemorySink {
    /// The artifact of a name.
    pub fn artifact(&self, name: &str) -> &Stored {
        self.stored.iter().find(|stored| stored.entry.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Counts of rows by table.
    pub fn counts(&self, name: &str) -> BTreeMap<String, i64> {
        self.artifact(name).entry.item_counts.iter().map(|item| (item.name.clone(), item.count)).collect()
    }

    /// The manifest that the worker would write.
    pub fn manifest(&self, tool_version: &str, server_version: &str) -> Manifest {
        let now = "2026-11-21T02:00:00Z".parse().unwrap();
        Manifest {
            format_version: FORMAT_VERSION,
            run_id: "20261121T020000Z-3f9a1c".into(),
            cluster_uid: "cluster".into(),
            namespace: "ns".into(),
            policy: "policy".into(),
            policy_uid: "uid".into(),
            source: "db".into(),
            engine: "postgres".into(),
            run_sources: vec!["db".into()],
            slot: now,
            start_time: now,
            end_time: now,
            artifacts: self.stored.iter().map(|stored| stored.entry.clone()).collect(),
            items: self.stored.iter().map(|stored| stored.entry.items).sum(),
            consistency: "snapshot".into(),
            server_version: server_version.into(),
            tool_version: tool_version.into(),
            holdfast_version: "test".into(),
            writer: None,
            backup: None,
            safety_for: None,
            seal: None,
            unknown: BTreeMap::new(),
        }
    }

    /// A source of what was stored.
    pub fn into_source(self) -> MemorySource {
        MemorySource { stored: self.stored, spoil: None, fetched: 0, before_end: None }
    }
}

/// How a source spoils an artifact.
#[derive(Clone, Copy, Debug)]
pub enum Spoil {
    /// The last bytes never come, since the stored bytes turn out to be others than those written.
    Checksum,
    /// The stream stops after this many bytes, with a network's failure.
    CutAt(usize),
    /// Nothing is spoiled: it pauses after this many bytes.
    PauseAt(usize),
}

/// Gives artifacts out of memory.
pub struct MemorySource {
    pub stored: Vec<Stored>,
    pub spoil: Option<Spoil>,
    /// How many artifacts have been asked for.
    pub fetched: usize,
    /// Called before a spoiled stream ends: a test's chance to wait until all of it has been taken.
    pub before_end: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl ArtifactSource for MemorySource {
    async fn fetch(
        &mut self,
        artifact: &ArtifactEntry,
        mut sink: Box<dyn Write + Send>,
        mut inspect: Box<dyn Inspect>,
    ) -> Result<(u64, Inspection), Failure> {
        self.fetched += 1;
        let stored =
            self.stored.iter().find(|stored| stored.entry.key == artifact.key).expect("the artifact is stored");
        let bytes = stored.bytes.clone();
        let (spoil, before_end) = (self.spoil, self.before_end.clone());
        let write = tokio::task::spawn_blocking(move || {
            let held = match spoil {
                Some(Spoil::CutAt(at) | Spoil::PauseAt(at)) => bytes.len().saturating_sub(at),
                _ => 1024.min(bytes.len()),
            };
            let (first, last) = bytes.split_at(bytes.len() - held);
            let failed =
                |error: std::io::Error| Failure::new(Reason::RestoreFailed, format!("the tool's input: {error}"));
            for chunk in first.chunks(65_536) {
                inspect.feed(chunk)?;
                sink.write_all(chunk).map_err(failed)?;
            }
            if let (Some(_), Some(before_end)) = (spoil, before_end) {
                before_end();
            }
            match spoil {
                Some(Spoil::Checksum) => {
                    return Err(Failure::new(Reason::ChecksumMismatch, "it is not what was stored"));
                }
                Some(Spoil::CutAt(_)) => return Err(Failure::new(Reason::StoreUnreachable, "the store went away")),
                Some(Spoil::PauseAt(_)) | None => {}
            }
            inspect.feed(last)?;
            sink.write_all(last).map_err(failed)?;
            sink.flush().map_err(failed)?;
            drop(sink);
            Ok((bytes.len() as u64, inspect.finish()?))
        });
        write.await.unwrap()
    }

    async fn read_beginning(
        &mut self,
        artifact: &ArtifactEntry,
        mut sink: Box<dyn Write + Send>,
    ) -> Result<(), Failure> {
        let stored =
            self.stored.iter().find(|stored| stored.entry.key == artifact.key).expect("the artifact is stored");
        // Nothing of it is spoiled: that is for the whole.
        let _ = sink.write_all(&stored.bytes);
        Ok(())
    }
}

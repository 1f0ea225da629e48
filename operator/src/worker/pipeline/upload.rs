//! From a source into the bucket: read, inspect, compress, encrypt, hash, upload. Talks to the bucket.
//!
//! What is hashed is what is stored. What is in it has the checksum of its zstd frame, and a hash of it would let a reader of the manifest
//! try out what he guesses to be inside.

use std::io::{self, BufRead, BufReader, Read, Write};

use holdfast_crds::Reason;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use zstd::zstd_safe::CParameter;

use super::CHUNK_BYTES;
use super::ledger::{Entry, Ledger};
use super::parts::{BUFFER_BYTES, Part, PartWriter, Written};
use crate::engine::{ArtifactMetadata, ArtifactSink, Inspect, Inspection, NewArtifact, PairSink};
use crate::hex::hex;
use crate::process::Progress;
use crate::store::client::{Bucket, UploadedPart};
use crate::store::encryption::Recipients;
use crate::store::keys::SourceFolder;
use crate::store::manifest::{ArtifactEntry, MAX_ITEM_COUNTS};
use crate::task::Failure;

/// What storing one stream may take.
#[derive(Clone, Copy)]
struct Means {
    /// Threads that compress.
    threads: usize,
    /// How they share the work; none: as zstd thinks fit.
    jobs: Option<Jobs>,
    /// Memory for parts.
    buffer_bytes: usize,
}

/// What one thread compresses at a time. The names are zstd's (`ZSTD_c_jobSize`, `ZSTD_c_overlapLog`, `ZSTD_c_maxBlockSize`).
#[derive(Clone, Copy)]
struct Jobs {
    /// Several such jobs are held in memory at once.
    bytes: u32,
    /// How far a job looks back into the one before it, at a quick level: 9 is the whole window, each less is half of that.
    overlap_log: u32,
    /// The largest block of a frame, at a quick level.
    block_bytes: u32,
}

/// Up to this level zstd looks for matches quickly (its strategies `fast` and `dfast`). Who asks for more wants the smallest there is.
const LAST_QUICK_LEVEL: i32 = 4;

/// Two threads keep up with pg_dump.
const ALONE: Means = Means { threads: 2, jobs: None, buffer_bytes: BUFFER_BYTES };
/// Files. Jobs of half the size that zstd takes at level 3 spare the 30 MiB that the other stream takes; to look back twice as far as it does by
/// itself (512 KiB) makes up for their number. zstd searches blocks of 128 KiB, its largest, for better borders, and where files that are
/// compressed already stand beside others that takes a third of its time; blocks of half that size are taken as they come, and hold as much.
const WITH_ANOTHER: Means = Means {
    threads: 2,
    jobs: Some(Jobs { bytes: 4 << 20, overlap_log: 7, block_bytes: 64 << 10 }),
    buffer_bytes: BUFFER_BYTES,
};
/// It trickles beside the other one: a thread and the least of memory are enough.
const BESIDE: Means = Means { threads: 1, jobs: None, buffer_bytes: 16 << 20 };

/// Stores the artifacts of one source of a run.
pub struct Uploads {
    bucket: Bucket,
    folder: SourceFolder,
    attempt: String,
    level: i32,
    recipients: Recipients,
    progress: Progress,
    ledger: Ledger,
    entries: Vec<ArtifactEntry>,
}

impl Uploads {
    /// Into `folder`, under names that hold `attempt`, compressed at `level` (0: not at all), encrypted to `recipients` (none: not).
    pub fn new(
        bucket: Bucket,
        folder: SourceFolder,
        attempt: &str,
        level: i32,
        recipients: Recipients,
        progress: Progress,
        ledger: Ledger,
    ) -> Self {
        Self { bucket, folder, attempt: attempt.to_owned(), level, recipients, progress, ledger, entries: Vec::new() }
    }

    /// What has been stored, for the manifest.
    pub fn into_entries(self) -> Vec<ArtifactEntry> {
        self.entries
    }
}

impl ArtifactSink for Uploads {
    async fn store(
        &mut self,
        name: &str,
        stream: Box<dyn Read + Send>,
        inspect: Box<dyn Inspect>,
        metadata: ArtifactMetadata,
    ) -> Result<Inspection, Failure> {
        let stream = Box::new(BufReader::with_capacity(CHUNK_BYTES, stream));
        let new = NewArtifact { name: name.to_owned(), stream, inspect, metadata };
        let (entry, inspection) = self.upload(new, ALONE).await?;
        // An engine that begins again stores the same names anew.
        self.entries.retain(|before| before.key != entry.key);
        self.entries.push(entry);
        Ok(inspection)
    }

    fn alive(&mut self) {
        self.progress.add(1);
    }
}

impl PairSink for Uploads {
    async fn store_pair(
        &mut self,
        first: NewArtifact,
        second: NewArtifact,
    ) -> Result<(Inspection, Inspection), Failure> {
        let stored = tokio::try_join!(self.upload(first, WITH_ANOTHER), self.upload(second, BESIDE),)?;
        let ((first, of_first), (second, of_second)) = stored;
        self.entries.extend([first, second]);
        Ok((of_first, of_second))
    }
}

impl Uploads {
    /// Stores one stream.
    async fn upload(&self, new: NewArtifact, means: Means) -> Result<(ArtifactEntry, Inspection), Failure> {
        let NewArtifact { name, stream, inspect, metadata } = new;
        let key = self.folder.artifact(&name, &self.attempt, self.level, !self.recipients.is_empty());
        self.ledger.begin_again(&self.bucket, &key).await?;
        let (sender, receiver) = mpsc::channel(1);
        let writer = PartWriter::new(sender, Handle::current(), means.buffer_bytes);
        let (level, recipients, progress) = (self.level, self.recipients.clone(), self.progress.clone());
        let _moving = self.progress.moving();
        let pump = spawn_blocking(move || pump(stream, inspect, (level, means), &recipients, &progress, writer));
        let uploaded = upload(&self.bucket, &key, receiver, &self.ledger, &self.progress).await;
        // A failed upload is told at once: the pump may still wait for the source, and ends when the engine lets go of its tool.
        if let Err(Ended::Failed(failure)) = uploaded {
            return Err(failure);
        }
        // Where the upload ended without its last part, the pump knows why there was none.
        let pumped = pump.await.map_err(|e| failed(&name, &e.to_string()))??;
        if uploaded.is_err() {
            return Err(failed(&name, "its last part is missing"));
        }
        self.confirm(&key, pumped.stored.bytes).await?;

        let inspection = pumped.inspection;
        let mut properties = metadata.properties;
        properties.extend(inspection.properties.clone());
        let entry = ArtifactEntry {
            key,
            name,
            format: metadata.format,
            database: metadata.database,
            stored_bytes: pumped.stored.bytes,
            source_bytes: pumped.source_bytes,
            stored_sha256: hex(&pumped.stored.sha256),
            compression: if self.level == 0 { "none" } else { "zstd" }.to_owned(),
            encryption_key_ids: self.recipients.ids().to_vec(),
            items: inspection.total.unwrap_or_else(|| i64::try_from(inspection.items.len()).unwrap_or(i64::MAX)),
            item_counts: inspection.items.iter().take(MAX_ITEM_COUNTS).cloned().collect(),
            roles: metadata.roles,
            extensions: metadata.extensions,
            properties,
            unknown: std::collections::BTreeMap::new(),
        };
        Ok((entry, inspection))
    }

    /// What the store says it has must be what was sent: an acknowledged upload is not yet a stored one.
    async fn confirm(&self, key: &str, sent: u64) -> Result<(), Failure> {
        match self.bucket.head(key).await? {
            Some(size) if size == sent => Ok(()),
            Some(size) => Err(Failure::new(
                Reason::ChecksumMismatch,
                format!(
                    "{key}: {sent} bytes were sent and the store says it has {size}: it cuts or changes what it is given, look at its log"
                ),
            )),
            None => Err(Failure::new(
                Reason::StoreUnreachable,
                format!(
                    "{key} was accepted by the store and is not there: does something delete in the bucket, or does the endpoint lead to several servers?"
                ),
            )),
        }
    }
}

/// Why an upload ended.
enum Ended {
    Failed(Failure),
    WithoutLastPart,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Uploads the parts as they come, side by side: one that is the last at once is a plain PUT.
async fn upload(
    bucket: &Bucket,
    key: &str,
    mut parts: mpsc::Receiver<Part>,
    ledger: &Ledger,
    progress: &Progress,
) -> Result<(), Ended> {
    let first = parts.recv().await.ok_or(Ended::WithoutLastPart)?;
    ledger.add(Entry::Object { key: key.to_owned() });
    if first.last {
        let size = first.bytes.len();
        bucket.put(key, first.bytes.clone()).await?;
        progress.add(size);
        return Ok(());
    }
    let id = bucket.create_upload(key).await?;
    ledger.add(Entry::Upload { key: key.to_owned(), id: id.clone() });
    let mut in_flight = JoinSet::new();
    let mut done = Vec::new();
    let mut next = Some(first);
    let mut last_seen = false;
    loop {
        if let Some(part) = next.take() {
            last_seen = part.last;
            // A stream that ends with a full part leaves an empty last one, which S3 need not have.
            if !(part.last && part.bytes.is_empty()) {
                in_flight.spawn(send(bucket.clone(), key.to_owned(), id.clone(), part, progress.clone()));
            }
        }
        if last_seen && in_flight.is_empty() {
            break;
        }
        tokio::select! {
            part = parts.recv(), if !last_seen => match part {
                Some(part) => next = Some(part),
                None => return Err(Ended::WithoutLastPart),
            },
            Some(sent) = in_flight.join_next() => {
                done.push(sent.map_err(|e| failed(key, &e.to_string()))??);
            }
        }
    }
    bucket.complete_upload(key, &id, done).await?;
    ledger.closed(key);
    Ok(())
}

async fn send(
    bucket: Bucket,
    key: String,
    id: String,
    part: Part,
    progress: Progress,
) -> Result<UploadedPart, Failure> {
    let uploaded = bucket.upload_part(&key, &id, part.number, part.bytes.clone()).await?;
    progress.add(part.bytes.len());
    Ok(uploaded)
}

/// What went through the pump.
struct Pumped {
    stored: Written,
    source_bytes: u64,
    inspection: Inspection,
}

/// Reads the stream to its end on this thread, which it blocks.
fn pump(
    mut stream: Box<dyn BufRead + Send>,
    mut inspect: Box<dyn Inspect>,
    (level, means): (i32, Means),
    recipients: &Recipients,
    progress: &Progress,
    parts: PartWriter,
) -> Result<Pumped, Failure> {
    let parts = Cipher::new(parts, recipients).map_err(|e| failed("encryption", &e.to_string()))?;
    let mut encoder = Encoder::new(parts, level, means).map_err(|e| failed("compression", &e.to_string()))?;
    let mut source_bytes = 0_u64;
    loop {
        let bytes = match stream.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                return Err(Failure::new(
                    Reason::SourceIncomplete,
                    format!(
                        "the dump's stream broke off: {e}: look for a server that was restarted or a connection that was cut"
                    ),
                ));
            }
        };
        let read = bytes.len();
        progress.add(read);
        source_bytes += read as u64;
        inspect.feed(bytes)?;
        encoder.write_all(bytes).map_err(|e| failed("upload", &e.to_string()))?;
        stream.consume(read);
    }
    let inspection = inspect.finish()?;
    let stored = encoder
        .finish()
        .and_then(Cipher::finish)
        .and_then(PartWriter::finish)
        .map_err(|e| failed("upload", &e.to_string()))?;
    Ok(Pumped { stored, source_bytes, inspection })
}

/// Compresses what is written to it, or passes it on.
enum Encoder {
    Plain(Cipher),
    Zstd(zstd::stream::write::Encoder<'static, Cipher>),
}

impl Encoder {
    fn new(parts: Cipher, level: i32, means: Means) -> io::Result<Self> {
        if level == 0 {
            return Ok(Self::Plain(parts));
        }
        let mut encoder = zstd::stream::write::Encoder::new(parts, level)?;
        encoder.include_checksum(true)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if means.threads > 1 {
            encoder.multithread(u32::try_from(cores.min(means.threads)).unwrap_or(1))?;
            if let Some(Jobs { bytes, overlap_log, block_bytes }) = means.jobs {
                encoder.set_parameter(CParameter::JobSize(bytes))?;
                if level <= LAST_QUICK_LEVEL {
                    encoder.set_parameter(CParameter::OverlapSizeLog(overlap_log))?;
                    encoder.set_parameter(CParameter::MaxBlockSize(block_bytes))?;
                }
            }
        }
        Ok(Self::Zstd(encoder))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(parts) => parts.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Cipher> {
        match self {
            Self::Plain(parts) => Ok(parts),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// Encrypts what is written to it, or passes it on.
enum Cipher {
    Plain(PartWriter),
    Age(Box<age::stream::StreamWriter<PartWriter>>),
}

impl Cipher {
    fn new(parts: PartWriter, recipients: &Recipients) -> io::Result<Self> {
        if recipients.is_empty() {
            return Ok(Self::Plain(parts));
        }
        Ok(Self::Age(Box::new(recipients.encrypt(parts)?)))
    }

    fn finish(self) -> io::Result<PartWriter> {
        match self {
            Self::Plain(parts) => Ok(parts),
            Self::Age(writer) => writer.finish(),
        }
    }
}

impl Write for Cipher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(parts) => parts.write(bytes),
            Self::Age(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(parts) => parts.flush(),
            Self::Age(writer) => writer.flush(),
        }
    }
}

fn failed(what: &str, why: &str) -> Failure {
    Failure::new(Reason::StoreUnreachable, format!("{what}: {why}"))
}

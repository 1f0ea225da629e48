//! From the bucket to a target, or to none: download, check, decrypt, decompress, inspect, write. Talks to the bucket.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::{Buf, Bytes};
use holdfast_crds::Reason;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::CHUNK_BYTES;
use crate::engine::{ArtifactSource, Inspect, Inspection};
use crate::hex::hex;
use crate::process::Progress;
use crate::store::client::Bucket;
use crate::store::encryption::Identities;
use crate::store::manifest::ArtifactEntry;
use crate::task::Failure;

/// Pieces that are read ahead of the target.
const READ_AHEAD: usize = 64;
/// How often in a row a download that broke off is taken up again at the byte where it did …
const MAX_RESUMES: u32 = 8;
/// … with fewer bytes than this in between: one that gets on is not given up, however often it breaks off.
const RESUME_BYTES: u64 = 1 << 20;
/// zstd's own limit for `--long` is 2^27: nothing larger is written by us, and nothing larger is given memory.
const WINDOW_LOG_MAX: u32 = 27;

/// Fetches the artifacts of a backup.
pub struct Downloads {
    bucket: Bucket,
    identities: Identities,
    progress: Progress,
}

impl Downloads {
    /// From `bucket`; what is encrypted is decrypted with `identities`.
    pub fn new(bucket: Bucket, identities: Identities, progress: Progress) -> Self {
        Self { bucket, identities, progress }
    }

    /// Reads an object to its end and compares its size and SHA-256 with what was stored. What is in it stays closed.
    ///
    /// # Errors
    /// [`Reason::ChecksumMismatch`] where it is another one; else why it cannot be had.
    pub async fn confirm_stored(&mut self, artifact: &ArtifactEntry) -> Result<(), Failure> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let expected = artifact.clone();
        let moving = self.progress.moving();
        let progress = self.progress.clone();
        let pump = spawn_blocking(move || {
            let mut stored = Watched { stored: Stored::new(receiver), progress };
            io::copy(&mut stored, &mut io::sink()).map_err(|e| damaged(&expected, &e.to_string()))?;
            drop(moving);
            stored.stored.confirm(&expected)
        });
        download(&self.bucket, artifact, sender).await?;
        pump.await.map_err(|e| Failure::new(Reason::StoreUnreachable, e.to_string()))?
    }
}

/// Tells the idle watch of what comes.
struct Watched {
    stored: Stored,
    progress: Progress,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stored.read(buffer)?;
        self.progress.add(read);
        Ok(read)
    }
}

impl ArtifactSource for Downloads {
    async fn fetch(
        &mut self,
        artifact: &ArtifactEntry,
        sink: Box<dyn Write + Send>,
        inspect: Box<dyn Inspect>,
    ) -> Result<(u64, Inspection), Failure> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let expected = artifact.clone();
        let moving = self.progress.moving();
        let (identities, progress) = (self.identities.clone(), self.progress.clone());
        let pump = spawn_blocking(move || {
            let result = pump(&expected, Stored::new(receiver), &identities, sink, inspect, &progress);
            // What the target does with the last bytes is no longer a stream that moves.
            drop(moving);
            result
        });
        // A failed download is told at once: the pump may still wait for the target, and ends when the engine lets go of its tool.
        download(&self.bucket, artifact, sender).await?;
        pump.await.map_err(|e| Failure::new(Reason::RestoreFailed, e.to_string()))?
    }
}

/// Sends the object's bytes from first to last, taking up the download again where it breaks off.
async fn download(bucket: &Bucket, artifact: &ArtifactEntry, pieces: mpsc::Sender<Bytes>) -> Result<(), Failure> {
    let (mut offset, mut resumes) = (0, 0);
    loop {
        let begun = offset;
        let of_artifact = |failure: Failure| failure.about(&artifact.key);
        // It has been tried again as often as patience allows.
        let mut body = bucket.open_read(&artifact.key, offset).await.map_err(of_artifact)?;
        let broken = loop {
            match body.next().await {
                Ok(Some(piece)) => {
                    offset += piece.len() as u64;
                    if offset > artifact.stored_bytes {
                        // The pump finds the size wrong and says so.
                        return Ok(());
                    }
                    if pieces.send(piece).await.is_err() {
                        // The pump has ended; its own result tells why.
                        return Ok(());
                    }
                }
                Ok(None) if offset >= artifact.stored_bytes => return Ok(()),
                Ok(None) => match bucket.head(&artifact.key).await? {
                    Some(size) if size == artifact.stored_bytes => {
                        break Failure::new(Reason::StoreUnreachable, "the answer ended early");
                    }
                    Some(size) => {
                        let how = format!("it has {size} bytes and the manifest says {}", artifact.stored_bytes);
                        return Err(damaged(artifact, &how));
                    }
                    None => return Err(damaged(artifact, "it is gone")),
                },
                Err(failure) => break failure,
            }
        };
        resumes = if offset - begun < RESUME_BYTES { resumes + 1 } else { 1 };
        if resumes > MAX_RESUMES {
            return Err(Failure::new(
                broken.reason,
                format!(
                    "{}: broke off at byte {offset} for the last time: {}: look at the store and the network to it, then try again",
                    artifact.key, broken.message
                ),
            ));
        }
        warn!("{}: broke off at byte {offset}, taken up again: {}", artifact.key, broken.message);
        tokio::time::sleep(Duration::from_millis(200 << resumes.min(5))).await;
    }
}

/// The stored bytes as a blocking reader that counts and hashes them.
struct Stored {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
    bytes: u64,
    sha256: Sha256,
}

impl Stored {
    fn new(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { pieces, piece: Bytes::new(), bytes: 0, sha256: Sha256::new() }
    }

    /// Reads what the decompressor left over, so that size and hash are those of the whole object.
    fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }

    fn confirm(&self, expected: &ArtifactEntry) -> Result<(), Failure> {
        if self.bytes != expected.stored_bytes {
            return Err(damaged(
                expected,
                &format!("{} bytes came and the manifest says {}", self.bytes, expected.stored_bytes),
            ));
        }
        let sha256 = hex(&self.sha256.clone().finalize());
        if sha256 == expected.stored_sha256 {
            return Ok(());
        }
        Err(damaged(expected, &format!("its SHA-256 is {sha256} and the manifest says {}", expected.stored_sha256)))
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => {
                    self.bytes += piece.len() as u64;
                    self.sha256.update(&piece);
                    self.piece = piece;
                }
                None => return Ok(0),
            }
        }
        let taken = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..taken]);
        Ok(taken)
    }
}

/// Moves the stream on this thread, which it blocks. `sink` never gets the last bytes of an artifact that is not what was stored.
fn pump(
    expected: &ArtifactEntry,
    mut stored: Stored,
    identities: &Identities,
    mut sink: Box<dyn Write + Send>,
    mut inspect: Box<dyn Inspect>,
    progress: &Progress,
) -> Result<(u64, Inspection), Failure> {
    let (mut held, mut next) = (Vec::with_capacity(CHUNK_BYTES), vec![0; CHUNK_BYTES]);
    let mut bytes = 0_u64;
    let whole = match decoder(&mut stored, expected, identities) {
        Err(failure) => Err(failure),
        Ok(mut decoder) => loop {
            match fill(&mut decoder, &mut next) {
                Ok(0) => break Ok(()),
                Ok(read) => {
                    progress.add(read);
                    bytes += read as u64;
                    if bytes > expected.source_bytes {
                        // It may go on for terabytes: nothing more of it is read, not even what is left of the object.
                        let most = expected.source_bytes;
                        return Err(damaged(
                            expected,
                            &format!("more is in it than the {most} bytes that the manifest says"),
                        ));
                    }
                    if let Err(failure) = inspect.feed(&next[..read]) {
                        break Err(failure);
                    }
                    write(&mut sink, &held)?;
                    held.clear();
                    held.extend_from_slice(&next[..read]);
                }
                Err(e) => break Err(damaged(expected, &format!("it cannot be decompressed: {e}"))),
            }
        },
    };
    stored.drain().map_err(|e| damaged(expected, &e.to_string()))?;
    // A stream that cannot be read and a hash that is wrong have one cause, and the hash names it better.
    stored.confirm(expected)?;
    whole?;
    if bytes != expected.source_bytes {
        return Err(damaged(
            expected,
            &format!("{bytes} bytes are in it and the manifest says {}", expected.source_bytes),
        ));
    }
    let inspection = inspect.finish()?;
    write(&mut sink, &held)?;
    sink.flush().map_err(|e| stopped(&e))?;
    Ok((bytes, inspection))
}

/// Reads until the buffer is full or the stream is over, so that what is held back at the end is never next to nothing.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn write(sink: &mut Box<dyn Write + Send>, bytes: &[u8]) -> Result<(), Failure> {
    sink.write_all(bytes).map_err(|e| stopped(&e))
}

/// The target's tool went away. Its own last words tell why; the engine has them.
fn stopped(error: &io::Error) -> Failure {
    Failure::new(Reason::RestoreFailed, format!("the target stopped reading: {error}"))
}

fn damaged(artifact: &ArtifactEntry, how: &str) -> Failure {
    Failure::new(
        Reason::ChecksumMismatch,
        format!("{} is not what was stored: {how}; take another backup", artifact.key),
    )
}

/// What was dumped, from what is stored: decrypted and decompressed, as the manifest says it must be.
fn decoder<'a>(
    stored: &'a mut Stored,
    expected: &ArtifactEntry,
    identities: &Identities,
) -> Result<Box<dyn Read + 'a>, Failure> {
    let unusable = |why: String| Failure::new(Reason::InvalidConfiguration, why);
    let decrypted: Box<dyn Read + 'a> = if expected.encryption_key_ids.is_empty() {
        Box::new(stored)
    } else {
        let reader = identities.decrypt(stored).map_err(|failure| failure.about(&expected.key))?;
        Box::new(reader)
    };
    match expected.compression.as_str() {
        "none" => Ok(decrypted),
        "zstd" => {
            let reader = io::BufReader::with_capacity(CHUNK_BYTES, decrypted);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader).map_err(|e| unusable(e.to_string()))?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(|e| unusable(e.to_string()))?;
            Ok(Box::new(decoder))
        }
        other => Err(unusable(format!("compression {other} is one of a later version of Holdfast: use that version"))),
    }
}

//! Cuts a stream of stored bytes into the parts of an upload. Hands them to a channel; knows nothing of the bucket.
//!
//! S3 takes at most 10,000 parts of 5 MiB to 5 GiB, and objects of at most 5 TiB
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Size of the first thousand parts. Each further thousand doubles it, so that 10,000 parts hold more than 5 TiB, and the first 56 GB
/// of an object need no more memory than [`BUFFER_BYTES`].
const FIRST_PART_BYTES: usize = 8 << 20;
/// Memory for part buffers: those in flight and the one that is being filled.
pub(super) const BUFFER_BYTES: usize = 32 << 20;
const PARTS_OF_A_SIZE: i32 = 1000;
const MAX_PARTS: i32 = 10_000;

/// A part of an upload. Its memory counts against the fixed budget until it is dropped.
pub(super) struct Part {
    /// 1 for the first.
    pub(super) number: i32,
    pub(super) bytes: Bytes,
    /// Whether the stream ended, well, with this part.
    pub(super) last: bool,
    _memory: OwnedSemaphorePermit,
}

/// What went through a [`PartWriter`].
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) sha256: [u8; 32],
}

/// Collects what is written to it into parts. Blocks while the budget of buffers is used up.
pub(super) struct PartWriter {
    parts: mpsc::Sender<Part>,
    budget: Arc<Semaphore>,
    buffer_bytes: usize,
    runtime: Handle,
    buffer: Vec<u8>,
    memory: Option<OwnedSemaphorePermit>,
    number: i32,
    bytes: u64,
    sha256: Sha256,
}

/// Size of the part with this number.
fn part_bytes(number: i32) -> usize {
    FIRST_PART_BYTES << ((number - 1) / PARTS_OF_A_SIZE)
}

impl PartWriter {
    /// With this much memory for part buffers: at least two of the first size.
    pub(super) fn new(parts: mpsc::Sender<Part>, runtime: Handle, buffer_bytes: usize) -> Self {
        Self {
            parts,
            budget: Arc::new(Semaphore::new(buffer_bytes)),
            buffer_bytes,
            runtime,
            buffer: Vec::new(),
            memory: None,
            number: 1,
            bytes: 0,
            sha256: Sha256::new(),
        }
    }

    /// Sends what is left as the last part. Without this the upload is never completed.
    pub(super) fn finish(mut self) -> io::Result<Written> {
        if self.memory.is_none() {
            self.begin_part()?;
        }
        self.send(true)?;
        Ok(Written { bytes: self.bytes, sha256: self.sha256.finalize().into() })
    }

    /// Waits for memory of the next part's size. A part larger than half of the budget takes half of it: one is filled while one is sent.
    fn begin_part(&mut self) -> io::Result<()> {
        if self.number > MAX_PARTS {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than the 5 TiB that an S3 object can hold"));
        }
        let size = part_bytes(self.number);
        let share = u32::try_from(size.min(self.buffer_bytes / 2)).unwrap_or(u32::MAX);
        let permit = self.runtime.block_on(self.budget.clone().acquire_many_owned(share)).map_err(io::Error::other)?;
        self.memory = Some(permit);
        self.buffer.reserve_exact(size);
        Ok(())
    }

    fn send(&mut self, last: bool) -> io::Result<()> {
        let Some(memory) = self.memory.take() else { return Ok(()) };
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let part = Part { number: self.number, bytes, last, _memory: memory };
        self.number += 1;
        // The receiver is gone when the upload has failed: the upload's own failure tells why.
        self.parts.blocking_send(part).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended"))
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.memory.is_none() {
            self.begin_part()?;
        }
        let size = part_bytes(self.number);
        let taken = bytes.len().min(size - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.sha256.update(&bytes[..taken]);
        self.bytes += taken as u64;
        if self.buffer.len() == size {
            self.send(false)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_five_tebibytes_and_each_is_one_that_s3_takes() {
        let total: u64 = (1..=MAX_PARTS).map(|n| part_bytes(n) as u64).sum();
        assert!(total > 5 << 40);
        for number in 1..=MAX_PARTS {
            assert!((5 << 20..=5 << 30).contains(&part_bytes(number)), "part {number}");
        }
    }

    #[test]
    fn fifty_gigabytes_need_no_more_than_the_budget() {
        let mut total = 0_u64;
        for number in 1.. {
            if total > 50_000_000_000 {
                break;
            }
            assert!(part_bytes(number) * 2 <= BUFFER_BYTES * 2, "part {number}");
            total += part_bytes(number) as u64;
        }
    }

    #[tokio::test]
    async fn parts_are_the_stream_in_order_and_the_budget_holds_back_the_writer() {
        let (sender, mut receiver) = mpsc::channel(1);
        let runtime = Handle::current();
        let size = 5 * FIRST_PART_BYTES + 17;
        let writer = tokio::task::spawn_blocking(move || {
            let mut writer = PartWriter::new(sender, runtime, BUFFER_BYTES);
            let budget = writer.budget.clone();
            let mut left = size;
            while left > 0 {
                let step = left.min(1_000_003);
                writer.write_all(&vec![7; step]).unwrap();
                assert!(budget.available_permits() <= BUFFER_BYTES);
                left -= step;
            }
            writer.finish().unwrap()
        });
        let (mut bytes, mut numbers, mut last) = (0, Vec::new(), Vec::new());
        while let Some(part) = receiver.recv().await {
            bytes += part.bytes.len();
            numbers.push(part.number);
            last.push(part.last);
        }
        assert_eq!(writer.await.unwrap().bytes, size as u64);
        assert_eq!((bytes, numbers), (size, vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(last, [false, false, false, false, false, true]);
    }

    #[tokio::test]
    async fn a_writer_whose_upload_has_ended_fails() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let runtime = Handle::current();
        let result = tokio::task::spawn_blocking(move || {
            PartWriter::new(sender, runtime, BUFFER_BYTES).write_all(&vec![0; 2 * FIRST_PART_BYTES])
        });
        assert_eq!(result.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

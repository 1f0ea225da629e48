//! Measures the worker's way into the bucket: uploads a stream and tells time, CPU and the greatest memory. Talks to S3.
//!
//! `upload_stream <endpoint> <bucket> <folder with credentials> <file, or bytes to make up> [level]`. The object is deleted at the end.

use std::io::Read;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use holdfast::engine::{ArtifactMetadata, ArtifactSink, Inspect, Inspection};
use holdfast::process::Progress;
use holdfast::store::client::Bucket;
use holdfast::store::encryption::Recipients;
use holdfast::store::keys::PolicyFolder;
use holdfast::task::{Failure, Scope, StoreTask};
use holdfast::worker::pipeline::{Ledger, Uploads};
use holdfast_crds::S3Spec;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &str| args.next().with_context(|| format!("missing: {what}"));
    let store = StoreTask {
        name: "bench".into(),
        s3: S3Spec {
            endpoint: Some(next("endpoint")?),
            bucket: next("bucket")?,
            region: "us-east-1".into(),
            ..S3Spec::default()
        },
        read_only: false,
        append_only: false,
        credentials: Some(next("folder with credentials")?.into()),
        ca: None,
        recipients: vec![],
        identity: None,
        identity_secret: None,
        patience: holdfast::task::StorePatience::default(),
    };
    let what = next("file or bytes")?;
    let level = next("level").unwrap_or_else(|_| "3".into()).parse()?;
    let stream: Box<dyn Read + Send> = match what.parse::<u64>() {
        Ok(bytes) => Box::new(made_up().take(bytes)),
        Err(_) => Box::new(std::fs::File::open(&what).with_context(|| what.clone())?),
    };
    let scope =
        Scope { cluster_uid: "b".into(), namespace: "bench".into(), policy: "bench".into(), policy_uid: "b".into() };
    let folder = PolicyFolder::new(&store.s3, &scope).run("20261121T020000Z-000000").source("db");
    let bucket = Bucket::open(&store).await?;
    let ledger = Ledger::default();
    let mut uploads = Uploads::new(
        bucket.clone(),
        folder,
        "000000",
        level,
        Recipients::default(),
        Progress::default(),
        ledger.clone(),
    );
    let start = Instant::now();
    let stored = uploads.store("stream.bin", stream, Box::new(Nothing), ArtifactMetadata::default()).await;
    let wall = start.elapsed();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let memory = status.lines().find(|l| l.starts_with("VmHWM")).ok_or_else(|| anyhow!("no VmHWM"))?.to_owned();
    let cpu = cpu_seconds()?;
    ledger.undo(&bucket).await?;
    stored?;
    let entries = uploads.into_entries();
    let entry = entries.first().context("nothing was stored")?;
    println!(
        "{} bytes in, {} stored, {:.2} s, {cpu:.2} s CPU, {}",
        entry.source_bytes,
        entry.stored_bytes,
        wall.as_secs_f64(),
        memory.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

/// User and system time of this process: fields 14 and 15 of proc(5)'s stat, in hundredths of a second.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u32 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<u32>().ok()).sum();
    Ok(f64::from(ticks) / 100.0)
}

/// A stream without end that looks like rows of a table: 8 MiB, over and over, which is more than zstd looks back at the usual levels (2 MiB at 3).
fn made_up() -> impl Read + Send {
    let mut random = fastrand::Rng::with_seed(7);
    let mut rows = Vec::with_capacity(8 << 20);
    while rows.len() < 8 << 20 {
        let id = rows.len();
        let (amount, name) = (random.u32(..), random.u64(..));
        rows.extend_from_slice(
            format!("{id}\t2026-11-21 02:00:00+00\tcustomer {amount} of the shop\t{name:016x}\t{{\"paid\": true}}\n")
                .as_bytes(),
        );
    }
    Cycle { rows, at: 0 }
}

struct Cycle {
    rows: Vec<u8>,
    at: usize,
}

impl Read for Cycle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = buffer.len().min(self.rows.len() - self.at);
        buffer[..size].copy_from_slice(&self.rows[self.at..self.at + size]);
        self.at = (self.at + size) % self.rows.len();
        Ok(size)
    }
}

struct Nothing;

impl Inspect for Nothing {
    fn feed(&mut self, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        Ok(Inspection::default())
    }
}

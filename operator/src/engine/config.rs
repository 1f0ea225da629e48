//! ConfigMaps and Secrets as the kubelet mounts them: one tar with a folder an object and a file a key. Talks to the file system;
//! docs/config.md tells users what that means.
//!
//! The kubelet mounts an object as a folder of symlinks into a hidden folder that it exchanges as a whole
//! (<https://kubernetes.io/docs/concepts/storage/volumes/#configmap>): a key is read through its symlink, nothing else is.

use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use holdfast_crds::{ConfigSource, OnExisting, Reason};
use sha2::{Digest, Sha256};

use super::volume::{self, INDEX_FORMAT, INDEX_NAME, TAR_FORMAT};
use super::{ArtifactMetadata, ArtifactSource, Dumped, Inspect, Inspection, NewArtifact, PairSink, Restored};
use crate::archive::file_index::Line;
use crate::archive::tar::{BLOCK, END, Entry, Event, Kind, Mtime, Reader, header};
use crate::store::manifest::{ItemCount, Manifest};
use crate::task::{ConfigTarget, Failure, Mounts, VolumeTarget};

const TAR_NAME: &str = "config.tar";
/// Kubernetes lets an object hold 1 MiB; a key larger than this is none of it.
const MAX_KEY_BYTES: u64 = 4 << 20;
/// All objects of a source, in memory: 128 of them at the most, of 1 MiB each in theory and a few KiB in life.
const MAX_BYTES: usize = 48 << 20;
/// Files are the owner's alone: Secrets may be among them.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Dumps the objects of a source.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn dump(source: &ConfigSource, mounts: &Mounts, sink: &mut impl PairSink) -> Result<Dumped, Failure> {
    let data = data(mounts)?.to_owned();
    let source = source.clone();
    let archive = tokio::task::spawn_blocking(move || gather(&source, &data)).await;
    let archive = archive.map_err(|e| Failure::new(Reason::DumpFailed, e.to_string()))??;
    let Archive { tar, index, items } = archive;
    let items = Arc::new(items);
    let new = |name: &str, format: &str, bytes: Vec<u8>, inspect: Box<dyn Inspect>| NewArtifact {
        name: name.to_owned(),
        stream: Box::new(Cursor::new(bytes)),
        inspect,
        metadata: ArtifactMetadata { format: format.to_owned(), ..ArtifactMetadata::default() },
    };
    let entries = memchr::memchr_iter(b'\n', &index).count() as u64;
    let whole = Whole { reader: Reader::new(), entries: 0, expected: entries, items };
    sink.store_pair(
        new(TAR_NAME, TAR_FORMAT, tar, Box::new(whole)),
        new(INDEX_NAME, INDEX_FORMAT, index, Box::new(Uncounted)),
    )
    .await?;
    Ok(Dumped {
        server_version: String::new(),
        tool_version: format!("holdfast {}", env!("CARGO_PKG_VERSION")),
        // The kubelet brings each object up to date by itself, at its own time.
        consistency: "fuzzy".to_owned(),
    })
}

/// Checks a target without touching it.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn check_target(
    target: &ConfigTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
) -> Result<(), Failure> {
    volume::check_target(&files(target), mounts, manifest, on_existing).await
}

/// Writes the objects into a volume, as files.
///
/// # Errors
/// The reason, with one line a person can act on.
pub async fn restore(
    target: &ConfigTarget,
    mounts: &Mounts,
    manifest: &Manifest,
    on_existing: OnExisting,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    volume::restore_files(&files(target), mounts, manifest, on_existing, source).await
}

/// The claim as a volume's target.
pub(super) fn files(target: &ConfigTarget) -> VolumeTarget {
    VolumeTarget { claim_name: target.claim_name.clone(), ..VolumeTarget::default() }
}

fn data(mounts: &Mounts) -> Result<&Path, Failure> {
    let missing = || Failure::new(Reason::InvalidConfiguration, "the task does not say where the objects are mounted");
    mounts.data.as_deref().ok_or_else(missing)
}

/// The two artifacts, and what is in them.
#[derive(Default)]
struct Archive {
    tar: Vec<u8>,
    index: Vec<u8>,
    /// Each object with the number of its keys.
    items: Vec<ItemCount>,
}

fn gather(source: &ConfigSource, data: &Path) -> Result<Archive, Failure> {
    let mut archive = Archive::default();
    archive.folder("")?;
    for (kind, names) in [("configmaps", &source.config_maps), ("secrets", &source.secrets)] {
        let mut names = names.clone();
        names.sort_unstable();
        if !names.is_empty() {
            archive.folder(kind)?;
        }
        for name in names {
            archive.object(kind, &name, &data.join(kind).join(&name))?;
        }
    }
    archive.tar.extend_from_slice(&END);
    Ok(archive)
}

impl Archive {
    fn object(&mut self, kind: &str, name: &str, folder: &Path) -> Result<(), Failure> {
        let unread = |e: std::io::Error| {
            let why = format!("{kind}/{name} is not mounted as it should be: {e}");
            Failure::new(Reason::SourceIncomplete, why)
        };
        let mut keys = Vec::new();
        for entry in fs::read_dir(folder).map_err(unread)? {
            let key = entry.map_err(unread)?.file_name();
            // Keys cannot begin like this; the kubelet's own folders do.
            if !key.as_bytes().starts_with(b"..") {
                keys.push(key);
            }
        }
        keys.sort_unstable();
        self.folder(&format!("{kind}/{name}"))?;
        for key in &keys {
            let path = folder.join(key);
            let size = fs::metadata(&path).map_err(unread)?.len();
            if size > MAX_KEY_BYTES {
                return Err(unread(std::io::Error::other(format!("{} has {size} bytes", key.display()))));
            }
            let content = fs::read(&path).map_err(unread)?;
            let path = [kind.as_bytes(), b"/", name.as_bytes(), b"/", key.as_bytes()].concat();
            let entry = Entry {
                path,
                kind: Kind::File { size: content.len() as u64, data: None },
                mode: FILE_MODE,
                ..Entry::default()
            };
            self.put(&entry, &content)?;
        }
        self.items
            .push(ItemCount { name: format!("{kind}/{name}"), count: i64::try_from(keys.len()).unwrap_or(i64::MAX) });
        Ok(())
    }

    fn folder(&mut self, path: &str) -> Result<(), Failure> {
        let path = if path.is_empty() { b".".to_vec() } else { path.as_bytes().to_vec() };
        self.put(&Entry { path, kind: Kind::Folder, mode: FOLDER_MODE, ..Entry::default() }, b"")
    }

    fn put(&mut self, entry: &Entry, content: &[u8]) -> Result<(), Failure> {
        // The same objects make the same archive, whoever reads them and when: no owner, no time.
        let entry = Entry { mtime: Mtime::default(), uid: 0, gid: 0, ..entry.clone() };
        header(&entry, &mut self.tar).map_err(|e| Failure::new(Reason::SourceIncomplete, e.to_string()))?;
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(BLOCK), 0);
        if self.tar.len() > MAX_BYTES {
            let why = format!("the objects have more than {} MiB: split them among several sources", MAX_BYTES >> 20);
            return Err(Failure::new(Reason::InvalidConfiguration, why));
        }
        let is_file = matches!(entry.kind, Kind::File { .. });
        let hash = is_file.then(|| Sha256::digest(content).into());
        self.index.extend_from_slice(&Line::of(&entry, hash).to_bytes());
        Ok(())
    }
}

/// Proves that the whole archive passed.
struct Whole {
    reader: Reader,
    entries: u64,
    expected: u64,
    items: Arc<Vec<ItemCount>>,
}

impl Inspect for Whole {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let damaged = |e: crate::archive::tar::Error| Failure::new(Reason::SourceIncomplete, e.to_string());
        while let Some(event) = self.reader.next(&mut bytes).map_err(damaged)? {
            self.entries += u64::from(matches!(event, Event::Entry(_)));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        let whole = self.reader.finish().is_ok() && self.entries == self.expected;
        if !whole {
            return Err(Failure::new(Reason::SourceIncomplete, "the archive is not whole"));
        }
        let properties = [("entries".to_owned(), self.entries.to_string())];
        Ok(Inspection { items: self.items.to_vec(), properties: properties.into(), ..Inspection::default() })
    }
}

/// The list is counted with the archive.
struct Uncounted;

impl Inspect for Uncounted {
    fn feed(&mut self, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        Ok(Inspection { total: Some(0), ..Inspection::default() })
    }
}

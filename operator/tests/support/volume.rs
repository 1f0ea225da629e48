//! Folders to save and compare, and a sink and a source that keep the two artifacts of a volume in memory.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is part of tests")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use holdfast::engine::{
    ArtifactMetadata, ArtifactSink, ArtifactSource, Dumped, Inspect, Inspection, NewArtifact, PairSink, Restored,
    volume,
};
use holdfast::store::manifest::{ArtifactEntry, FORMAT_VERSION, Manifest};
use holdfast::task::{Failure, Mounts, VolumeTarget};
use holdfast_crds::{OnExisting, Reason, VolumeSource};

/// Called with the bytes of the archive read so far, before each read: a test's chance to act in the middle.
pub type Hook = Box<dyn FnMut(usize) + Send>;

/// Keeps artifacts in memory.
#[derive(Default)]
pub struct Memory {
    pub stored: Vec<(ArtifactEntry, Vec<u8>)>,
    pub hook: Option<Hook>,
    /// The archive stops after this many bytes, with the store's failure.
    pub cut_tar_at: Option<usize>,
    /// Called before the last bytes of an artifact are written, or withheld where `withhold` says so.
    pub before_end: Option<Box<dyn Fn() + Send + Sync>>,
    /// The last bytes of the archive never come: what is stored is not what was written.
    pub withhold: bool,
}

type Read1 = Result<(Inspection, Vec<u8>), Failure>;

fn read_all(mut stream: Box<dyn Read + Send>, inspect: &mut dyn Inspect, mut hook: Option<Hook>) -> Read1 {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 65_536]);
    loop {
        if let Some(hook) = &mut hook {
            hook(bytes.len());
        }
        let n = stream.read(&mut buffer).map_err(|e| Failure::new(Reason::SourceIncomplete, e.to_string()))?;
        if n == 0 {
            return Ok((inspect.finish()?, bytes));
        }
        inspect.feed(&buffer[..n])?;
        bytes.extend_from_slice(&buffer[..n]);
    }
}

impl ArtifactSink for Memory {
    async fn store(
        &mut self,
        name: &str,
        stream: Box<dyn Read + Send>,
        mut inspect: Box<dyn Inspect>,
        metadata: ArtifactMetadata,
    ) -> Result<Inspection, Failure> {
        let read = tokio::task::spawn_blocking(move || read_all(stream, &mut *inspect, None));
        let (inspection, bytes) = read.await.unwrap()?;
        self.keep(name, metadata, &inspection, bytes);
        Ok(inspection)
    }
}

impl PairSink for Memory {
    async fn store_pair(
        &mut self,
        first: NewArtifact,
        second: NewArtifact,
    ) -> Result<(Inspection, Inspection), Failure> {
        let hook = self.hook.take();
        let (mut look_first, mut look_second) = (first.inspect, second.inspect);
        let one = tokio::task::spawn_blocking(move || read_all(first.stream, &mut *look_first, hook));
        let two = tokio::task::spawn_blocking(move || read_all(second.stream, &mut *look_second, None));
        let ((of_one, one), (of_two, two)) = (one.await.unwrap()?, two.await.unwrap()?);
        self.keep(&first.name, first.metadata, &of_one, one);
        self.keep(&second.name, second.metadata, &of_two, two);
        Ok((of_one, of_two))
    }
}

impl Memory {
    fn keep(&mut self, name: &str, metadata: ArtifactMetadata, inspection: &Inspection, bytes: Vec<u8>) {
        let mut properties = metadata.properties;
        properties.extend(inspection.properties.clone());
        let entry = ArtifactEntry {
            key: format!("ns/policy/run/files/{name}"),
            name: name.to_owned(),
            format: metadata.format,
            source_bytes: bytes.len() as u64,
            stored_bytes: bytes.len() as u64,
            compression: "none".into(),
            items: inspection.total.unwrap_or(i64::try_from(inspection.items.len()).unwrap()),
            properties,
            ..ArtifactEntry::default()
        };
        self.stored.push((entry, bytes));
    }

    /// The bytes of an artifact.
    pub fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.stored.iter_mut().find(|(entry, _)| entry.name == name).unwrap().1
    }

    pub fn property(&self, name: &str) -> Option<&str> {
        self.stored[0].0.properties.get(name).map(String::as_str)
    }

    /// The manifest that the worker would write.
    pub fn manifest(&self) -> Manifest {
        let now = "2026-11-21T02:00:00Z".parse().unwrap();
        Manifest {
            format_version: FORMAT_VERSION,
            run_id: "20261121T020000Z-3f9a1c".into(),
            cluster_uid: "cluster".into(),
            namespace: "ns".into(),
            policy: "policy".into(),
            policy_uid: "uid".into(),
            source: "files".into(),
            engine: "volume".into(),
            run_sources: vec!["files".into()],
            slot: now,
            start_time: now,
            end_time: now,
            artifacts: self.stored.iter().map(|(entry, _)| entry.clone()).collect(),
            items: self.stored.iter().map(|(entry, _)| entry.items).sum(),
            consistency: "fuzzy".into(),
            server_version: String::new(),
            tool_version: "holdfast test".into(),
            holdfast_version: "test".into(),
            writer: None,
            backup: None,
            safety_for: None,
            seal: None,
            unknown: BTreeMap::new(),
        }
    }
}

impl ArtifactSource for Memory {
    async fn fetch(
        &mut self,
        artifact: &ArtifactEntry,
        mut sink: Box<dyn Write + Send>,
        mut inspect: Box<dyn Inspect>,
    ) -> Result<(u64, Inspection), Failure> {
        let (entry, bytes) = self.stored.iter().find(|(entry, _)| entry.key == artifact.key).unwrap();
        let bytes = bytes.clone();
        let is_tar = entry.format == "tar";
        let cut = self.cut_tar_at.filter(|_| is_tar);
        let withhold = self.withhold && is_tar;
        let before_end = self.before_end.take_if(|_| is_tar);
        let write = tokio::task::spawn_blocking(move || {
            let failed = |e: std::io::Error| Failure::new(Reason::RestoreFailed, format!("the target stopped: {e}"));
            let end = cut.unwrap_or_else(|| bytes.len().saturating_sub(1));
            for chunk in bytes[..end].chunks(65_536) {
                inspect.feed(chunk)?;
                sink.write_all(chunk).map_err(failed)?;
            }
            if let Some(before_end) = before_end {
                before_end();
            }
            if cut.is_some() {
                return Err(Failure::new(Reason::StoreUnreachable, "the store went away"));
            }
            if withhold {
                return Err(Failure::new(Reason::ChecksumMismatch, "it is not what was stored"));
            }
            inspect.feed(&bytes[end..])?;
            sink.write_all(&bytes[end..]).map_err(failed)?;
            sink.flush().map_err(failed)?;
            Ok((bytes.len() as u64, inspect.finish()?))
        });
        write.await.unwrap()
    }
}

pub fn mounts(folder: &Path) -> Mounts {
    Mounts { data: Some(folder.to_owned()), ..Mounts::default() }
}

pub fn source() -> VolumeSource {
    VolumeSource { claim_name: "uploads".into(), ..VolumeSource::default() }
}

pub fn target() -> VolumeTarget {
    VolumeTarget { claim_name: "uploads".into(), ..VolumeTarget::default() }
}

pub async fn save_as(source: &VolumeSource, folder: &Path, memory: &mut Memory) -> Result<Dumped, Failure> {
    volume::dump(source, &mounts(folder), memory).await
}

/// Saves a folder as it is.
pub async fn save(folder: &Path) -> Memory {
    let mut memory = Memory::default();
    save_as(&source(), folder, &mut memory).await.unwrap();
    memory
}

/// Checks and restores, as the worker does.
pub async fn restore_to(
    target: &VolumeTarget,
    folder: &Path,
    on_existing: OnExisting,
    memory: &mut Memory,
) -> Result<Restored, Failure> {
    let (manifest, mounts) = (memory.manifest(), mounts(folder));
    volume::check_target(target, &mounts, &manifest, on_existing).await?;
    volume::restore(target, &mounts, &manifest, on_existing, &[], memory).await
}

pub async fn restore(folder: &Path, on_existing: OnExisting, memory: &mut Memory) -> Result<Restored, Failure> {
    restore_to(&target(), folder, on_existing, memory).await
}

/// Everything that is to be the same of one name: what it is, its attributes, its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: String,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub content: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first name of the same file.
    pub same_as: Option<PathBuf>,
    /// Whether it takes far less room than it has bytes.
    pub sparse: bool,
}

/// All that is in a folder, the folder itself as the empty path.
pub fn look(folder: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    look_into(folder, Path::new(""), &mut seen, &mut inodes);
    seen
}

/// As [`look`], without the folder itself: a mount's own permissions are not always ours.
pub fn inside(folder: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = look(folder);
    seen.remove(Path::new(""));
    seen
}

fn look_into(root: &Path, path: &Path, seen: &mut BTreeMap<PathBuf, Seen>, inodes: &mut BTreeMap<u64, PathBuf>) {
    let at = root.join(path);
    let stat = fs::symlink_metadata(&at).unwrap();
    let kind = stat.file_type();
    let content = if kind.is_symlink() {
        fs::read_link(&at).unwrap().into_os_string().into_vec()
    } else if kind.is_file() {
        fs::read(&at).unwrap()
    } else {
        Vec::new()
    };
    let same_as = if kind.is_file() && stat.nlink() > 1 {
        Some(inodes.entry(stat.ino()).or_insert_with(|| path.to_owned()).clone())
    } else {
        None
    };
    seen.insert(
        path.to_owned(),
        Seen {
            kind: if kind.is_dir() {
                "folder"
            } else if kind.is_symlink() {
                "symlink"
            } else if kind.is_fifo() {
                "fifo"
            } else {
                "file"
            }
            .into(),
            mode: stat.permissions().mode() & 0o7777,
            owner: (stat.uid(), stat.gid()),
            mtime: (stat.mtime(), stat.mtime_nsec()),
            content,
            xattrs: if kind.is_file() || kind.is_dir() { xattrs(&at) } else { Vec::new() },
            same_as,
            sparse: kind.is_file() && stat.blocks() * 512 + 65_536 < stat.len(),
        },
    );
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            look_into(root, &path.join(name), seen, inodes);
        }
    }
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0_u8; 65_536];
    let Ok(length) = rustix::fs::llistxattr(path, &mut list[..]) else { return Vec::new() };
    let names = list[..length].split(|b| *b == 0).filter(|n| !n.is_empty() && *n != b"security.selinux");
    let mut xattrs: Vec<_> = names
        .map(|name| {
            let mut value = vec![0_u8; 65_536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect();
    xattrs.sort();
    xattrs
}

/// Writes files, with the folders above them.
pub fn write(folder: &Path, files: &[(&str, &[u8])]) {
    for (name, content) in files {
        let at = folder.join(name);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, content).unwrap();
    }
}

pub fn odd(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Names in a folder that a restore left behind.
pub fn leftovers(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|n| n.starts_with(".holdfast")).collect()
}

/// Runs a test's work in a thread of another user: all threads that it starts are that user's too.
pub fn as_user<T: Send + 'static>(id: u32, work: impl Future<Output = T> + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    });
    thread.join().unwrap()
}

/// Whether these tests may give files away and mount: they say plainly what they leave out elsewhere.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED in part: this needs root");
    }
    root
}

/// A folder whose backup is more than one part of an upload.
pub fn large() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut noise = vec![0; 20 << 20];
    fastrand::Rng::with_seed(7).fill(&mut noise);
    write(folder.path(), &[("a/one", b"1"), ("a/two", &noise)]);
    folder
}

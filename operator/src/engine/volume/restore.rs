//! From the two artifacts back into a volume: all of it is built and compared beside its place, and then swapped in. Talks to the file system.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_crds::{OnExisting, Reason};
use rustix::fs::Access;
use rustix::io::Errno;
use tracing::info;

use super::ahead::words;
use super::beneath::Beneath;
use super::dump::open_root;
use super::expect::{Boiled, Expected, Listed};
use super::extract::{ExtractSink, OnUnit};
use super::extraction::Extraction;
use super::merge::find;
use super::names::content;
use super::place::{Owners, Placer, failed, no_space};
use super::scope::{Scope, saved};
use super::stage::{Leftovers, Stage, clear, interrupted, not_empty, write_unit};
use super::swap::{Old, Swap};
use super::{Going, INDEX_FORMAT, TAR_FORMAT};
use crate::archive::tar::printable;
use crate::engine::{ArtifactSource, Inspect, Inspection, Restored};
use crate::store::manifest::{ArtifactEntry, Manifest};
use crate::task::{Failure, Globs, VolumeTarget};

/// The artifacts of a volume.
pub(super) struct Backup<'a> {
    pub tar: &'a ArtifactEntry,
    pub index: &'a ArtifactEntry,
}

impl<'a> Backup<'a> {
    pub fn of(manifest: &'a Manifest) -> Result<Self, Failure> {
        let find = |format: &str| {
            manifest.artifacts.iter().find(|a| a.format == format).ok_or_else(|| {
                let Manifest { source, engine, .. } = manifest;
                let why = match engine.as_str() {
                    "volume" | "config" => format!("the backup of source {source} has no artifact of format {format}"),
                    _ => format!(
                        "the backup of source {source} is of {engine}, and spec.into names a claim for it: write {engine}: there"
                    ),
                };
                Failure::new(Reason::InvalidConfiguration, why)
            })
        };
        Ok(Self { tar: find(TAR_FORMAT)?, index: find(INDEX_FORMAT)? })
    }

    fn property(&self, name: &str) -> u64 {
        self.tar.properties.get(name).and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}

pub(super) fn globs(target: &VolumeTarget) -> Result<Option<Globs>, Failure> {
    if target.paths.is_empty() { Ok(None) } else { Globs::new("paths", &target.paths).map(Some) }
}

/// Finds a target fit without touching it.
pub(super) async fn check_target(
    target: &VolumeTarget,
    root: &Path,
    manifest: &Manifest,
    on_existing: OnExisting,
) -> Result<(), Failure> {
    let needed = Backup::of(manifest)?.property("dataBytes");
    let needed = if globs(target)?.is_none() { needed } else { 0 };
    let (claim, root) = (target.claim_name.clone(), root.to_owned());
    let unsaved = match (on_existing, &target.safety) {
        (OnExisting::Replace, Some(safety)) if !safety.takes_all() && *safety != saved(target, manifest)? => {
            Some((Scope::of(target, manifest, &[])?, Scope::saved_by(safety)?))
        }
        _ => None,
    };
    blocking(move || {
        look_at(&claim, &root, needed, on_existing)?;
        unsaved.map_or(Ok(()), |(replaced, safe)| confirm_saved(&root, &replaced, &safe))
    })
    .await
}

/// What is replaced is in the safety backup, though the policy's filter has changed since the backup.
fn confirm_saved(root: &Path, replaced: &Scope, safe: &Scope) -> Result<(), Failure> {
    let root = open_root(root)?;
    let is_lost = |path: &[u8], is_folder: bool| !is_folder && replaced.holds(path) && !safe.holds(path);
    let again = root.try_clone().map_err(|e| Failure::new(Reason::RestoreFailed, e.to_string()))?;
    let lost = find(again, b"", is_lost, |folder| replaced.may_hold_below(folder));
    match lost.map_err(|(path, error)| failed(&path, error, 0, &root))? {
        None => Ok(()),
        Some(path) => Err(Failure::new(
            Reason::InvalidConfiguration,
            format!(
                "{} would be replaced and is not in the safety backup: include or exclude of the policy's source are others than when the backup was made; nothing was touched: write them as they were, or set safetyBackup: false if what is replaced may be lost",
                printable(&path)
            ),
        )),
    }
}

fn look_at(claim: &str, root: &Path, needed: u64, on_existing: OnExisting) -> Result<(), Failure> {
    let root = open_root(root)?;
    let refused = |error: Errno| {
        let why = format!("the root of claim {} cannot be written: {}; set runAs to its owner", claim, words(error));
        Failure::new(Reason::SourceRefused, why)
    };
    rustix::fs::accessat(
        &root,
        ".",
        Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        rustix::fs::AtFlags::EACCESS,
    )
    .map_err(refused)?;
    if on_existing == OnExisting::Fail {
        if let Some(name) = interrupted(&root).map_err(refused)? {
            return Err(Failure::new(
                Reason::TargetNotEmpty,
                format!(
                    "a restore with onExisting: Replace broke off in claim {claim} while it swapped ({name} holds what was there): a restore with Replace puts it back first"
                ),
            ));
        }
        let there = content(&root).map_err(refused)?;
        if !there.is_empty() {
            let failure = not_empty(&there);
            return Err(Failure::new(failure.reason, format!("claim {}: {}", claim, failure.message)));
        }
    }
    confirm_space(&root, needed)
}

fn confirm_space(root: &std::os::fd::OwnedFd, needed: u64) -> Result<(), Failure> {
    // A file system that does not tell, or has no limit, says 0.
    match rustix::fs::fstatvfs(root) {
        Ok(disk) if disk.f_blocks > 0 && disk.f_bavail.saturating_mul(disk.f_frsize) < needed => {
            Err(no_space("nothing was written", needed, root))
        }
        _ => Ok(()),
    }
}

/// Lets every stream pass: what comes is checked where it is written.
pub(super) struct Unlooked;

impl Inspect for Unlooked {
    fn feed(&mut self, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        Ok(Inspection::default())
    }
}

pub(super) async fn restore(
    target: &VolumeTarget,
    root: &Path,
    manifest: &Manifest,
    on_existing: OnExisting,
    owners: Owners,
    beside: &[Going<'_>],
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    let backup = Backup::of(manifest)?;
    let mut expected = expected(globs(target)?, &backup, source).await?;
    // The list does not say which files have their holes back afterwards: of those that are meant it may be all.
    let needed = expected.bytes.saturating_sub(backup.property("holesAsZeros"));
    if target.paths.is_empty() {
        expected.bytes = needed;
    }
    let chosen_entries = expected.chosen;
    if chosen_entries == 0 && !target.paths.is_empty() {
        return Err(Failure::new(
            Reason::InvalidConfiguration,
            format!("paths: nothing in the backup matches {}; nothing was touched", target.paths.join(", ")),
        ));
    }
    let root = root.to_owned();
    let stage = blocking(move || {
        let root = open_root(&root)?;
        let stage = Stage::create(root)?;
        confirm_space(stage.root(), needed)?;
        Ok(stage)
    })
    .await?;
    let extraction =
        Arc::new(Extraction::new(stage.new_content()?, expected, Placer::new(target.keep_privileges, owners)));
    let cancel = CancelOnDrop(extraction.clone());
    let chosen = globs(target)?;
    let what = Swap {
        scope: Scope::of(target, manifest, beside)?,
        old: match on_existing {
            OnExisting::Replace => Old::Goes,
            OnExisting::Fail if beside.is_empty() => Old::None,
            OnExisting::Fail => Old::OfOthers,
        },
        units: chosen.is_some() && on_existing == OnExisting::Replace,
    };
    let units = Arc::new(Mutex::new(if what.units { Some(stage.units()?) } else { None }));
    let on_unit: OnUnit = {
        let units = units.clone();
        Box::new(move |path| match &mut *units.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(units) => write_unit(units, path),
            None => Ok(()),
        })
    };
    let sink = ExtractSink::new(extraction.clone(), chosen, on_unit)?;
    let fetched = source.fetch(backup.tar, Box::new(sink), Box::new(Unlooked)).await;
    if let Err(failure) = fetched {
        // What the writers met is the cause; that the stream found no reader is its effect.
        let cause = extraction.failure().filter(|_| failure.reason == Reason::RestoreFailed);
        return Err(cause.unwrap_or(failure));
    }
    extraction.confirm()?;
    info!("everything is there as the list of entries has it: it is put into place");
    let shared = extraction.clone();
    let left = blocking(move || {
        let mut stage = stage;
        if let Some(units) = &mut *units.lock().unwrap_or_else(PoisonError::into_inner) {
            units
                .flush()
                .map_err(|e: io::Error| Failure::new(Reason::RestoreFailed, format!("the list of paths: {e}")))?;
        }
        stage.swap(&what)?;
        let left = stage.finish();
        if let (Some(entry), true) = (shared.root(), what.scope.holds_root()) {
            let given = shared.placer.attributes(stage.root(), &entry);
            if let Err(error) = given {
                shared.placer.losses.modes.add_with(b"", &words(error));
            }
        }
        Ok(left)
    })
    .await?;
    drop(cancel);
    let files = extraction.files.load(Ordering::Relaxed);
    let bytes = extraction.bytes.load(Ordering::Relaxed);
    let mut message = vec![format!("{files} files with {bytes} bytes in claim {}", target.claim_name)];
    message.extend(extraction.placer.losses.in_words());
    message.extend(left);
    Ok(Restored { items: i64::try_from(files).unwrap_or(i64::MAX), bytes, message: message.join("; ") })
}

/// Undoes what an attempt that is no more has left half done.
pub(super) async fn settle(root: &Path) -> Result<bool, Failure> {
    let root = root.to_owned();
    blocking(move || clear(&Beneath::new(open_root(&root)?), Leftovers::Stay)).await
}

/// Fetches the list of entries, to its end, before anything is written. `chosen`: what is meant; none: everything.
pub(super) async fn expected(
    chosen: Option<Globs>,
    backup: &Backup<'_>,
    source: &mut impl ArtifactSource,
) -> Result<Expected, Failure> {
    let result = Arc::new(Mutex::new(None));
    let sink = Listed::new(Boiled::new(backup.property("entries"), chosen, result.clone()));
    source.fetch(backup.index, Box::new(sink), Box::new(Unlooked)).await?;
    let expected = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    expected.ok_or_else(|| {
        Failure::new(Reason::ChecksumMismatch, format!("{} broke off; take another backup", backup.index.key))
    })
}

/// Tells the writers when the restore is given up.
struct CancelOnDrop(Arc<Extraction>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Failure::new(Reason::RestoreFailed, e.to_string()))?
}

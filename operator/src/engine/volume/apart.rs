//! Whether a restore into a claim would replace what another source of the same request brings into it: the list of entries of the one held
//! against what the other saves.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_crds::Reason;

use super::expect::{Listed, Take};
use super::restore::{Backup, Unlooked, globs};
use super::scope::Scope;
use crate::archive::file_index::Line;
use crate::archive::tar::printable;
use crate::engine::ArtifactSource;
use crate::store::manifest::Manifest;
use crate::task::{Failure, Globs, VolumeTarget};

/// A source with the claim it goes into.
pub type Going<'a> = (&'a VolumeTarget, &'a Manifest);

/// Confirms that nothing of what the one brings is replaced by the other.
///
/// # Errors
/// [`Reason::InvalidConfiguration`] where something is; else why the list cannot be read.
pub async fn confirm_apart(one: Going<'_>, other: Going<'_>, source: &mut impl ArtifactSource) -> Result<(), Failure> {
    let (target, manifest) = one;
    let backup = Backup::of(manifest)?;
    let clash = Arc::new(Mutex::new(None));
    let held = Held { chosen: globs(target)?, rival: Scope::of(other.0, other.1, &[])?, clash: clash.clone() };
    source.fetch(backup.index, Box::new(Listed::new(held)), Box::new(Unlooked)).await?;
    let Some(Clash { first, more }) = clash.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return Ok(());
    };
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let (name, other, claim) = (&manifest.source, &other.1.source, &target.claim_name);
    Err(Failure::new(
        Reason::InvalidConfiguration,
        format!(
            "sources {name} and {other} both go into claim {claim}, and what {other} replaces there is also in the backup of {name} ({first}{more}), so one would remove what the other has brought; nothing was touched: name one of them in spec.sources, or another claim for one in spec.into"
        ),
    ))
}

/// What of a list the other would replace.
struct Held {
    chosen: Option<Globs>,
    rival: Scope,
    clash: Arc<Mutex<Option<Clash>>>,
}

/// Entries that it would.
struct Clash {
    first: String,
    more: u64,
}

impl Take for Held {
    fn line(&mut self, with_end: &[u8]) -> Result<(), String> {
        let line = Line::parse(with_end.strip_suffix(b"\n").unwrap_or(with_end))?;
        let path = line.path_bytes()?;
        // Folders hold what others bring, too.
        let is_meant = self.chosen.as_ref().is_none_or(|globs| globs.matching_part(&path).is_some());
        if line.kind != FOLDER && is_meant && self.rival.holds(&path) {
            let mut clash = self.clash.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *clash {
                Some(clash) => clash.more += 1,
                None => *clash = Some(Clash { first: printable(&path), more: 0 }),
            }
        }
        Ok(())
    }

    fn end(&mut self) {}
}

/// As the list calls a folder.
const FOLDER: &str = "folder";

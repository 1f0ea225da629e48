//! What of a volume a source saves, and so what a restore of it replaces: nothing beside it. Pure.

use holdfast_crds::Reason;

use super::{EXCLUDE, Going, INCLUDE, TAR_FORMAT};
use crate::store::manifest::Manifest;
use crate::task::{Failure, Globs, PathFilter, VolumeTarget};

/// The paths that a restore replaces.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    own: Own,
    /// What other sources of the same request bring into the same volume.
    others: Vec<Own>,
}

/// The paths of one source.
#[derive(Clone, Debug)]
struct Own {
    include: Globs,
    exclude: Globs,
    /// Those that are wanted; none: all of them.
    paths: Option<Globs>,
}

impl Scope {
    /// What this restore replaces beside restores of other sources into the same volume.
    ///
    /// # Errors
    /// Where a glob cannot be read.
    pub(super) fn of(target: &VolumeTarget, manifest: &Manifest, others: &[Going<'_>]) -> Result<Self, Failure> {
        let others = others.iter().map(|(target, manifest)| Own::of(target, manifest)).collect::<Result<_, _>>()?;
        Ok(Self { own: Own::of(target, manifest)?, others })
    }

    /// What a source saves with this filter.
    ///
    /// # Errors
    /// Where a glob cannot be read.
    pub(super) fn saved_by(filter: &PathFilter) -> Result<Self, Failure> {
        Ok(Self { own: Own::new(filter, None)?, others: Vec::new() })
    }

    /// Whether what is at a path is replaced.
    pub(super) fn holds(&self, path: &[u8]) -> bool {
        self.own.holds(path) && !self.others.iter().any(|other| other.holds(path))
    }

    /// Whether something below a folder may be replaced.
    pub(super) fn may_hold_below(&self, folder: &[u8]) -> bool {
        self.own.may_hold_below(folder)
    }

    /// Whether something below a folder that is replaced may have to stay.
    pub(super) fn may_leave_below(&self, folder: &[u8]) -> bool {
        self.own.exclude.may_match_below(folder) || self.others.iter().any(|other| other.may_hold_below(folder))
    }

    /// Whether the volume's root is replaced, too.
    pub(super) fn holds_root(&self) -> bool {
        self.own.include.is_empty() && self.own.paths.is_none()
    }
}

impl Own {
    fn of(target: &VolumeTarget, manifest: &Manifest) -> Result<Self, Failure> {
        let paths = if target.paths.is_empty() { None } else { Some(Globs::new("paths", &target.paths)?) };
        Self::new(&saved(target, manifest)?, paths)
    }

    fn new(filter: &PathFilter, paths: Option<Globs>) -> Result<Self, Failure> {
        let (include, exclude) = (Globs::new(INCLUDE, &filter.include)?, Globs::new(EXCLUDE, &filter.exclude)?);
        Ok(Self { include, exclude, paths })
    }

    fn holds(&self, path: &[u8]) -> bool {
        (self.include.is_empty() || self.include.matching_part(path).is_some())
            && self.paths.as_ref().is_none_or(|paths| paths.matching_part(path).is_some())
            && self.exclude.matching_part(path).is_none()
    }

    fn may_hold_below(&self, folder: &[u8]) -> bool {
        let may = |globs: &Globs| globs.matching_part(folder).is_some() || globs.may_match_below(folder);
        (self.include.is_empty() || may(&self.include))
            && self.paths.as_ref().is_none_or(may)
            && self.exclude.matching_part(folder).is_none()
    }
}

/// What the backup was made of. A manifest that does not tell is of a version that saved all of a volume before a restore, and else went by
/// the policy.
pub(super) fn saved(target: &VolumeTarget, manifest: &Manifest) -> Result<PathFilter, Failure> {
    let tar = manifest.artifacts.iter().find(|a| a.format == TAR_FORMAT);
    let list = |name: &str| -> Result<Option<Vec<String>>, Failure> {
        let text = tar.and_then(|tar| tar.properties.get(name));
        text.map(|text| serde_json::from_str(text)).transpose().map_err(|e| {
            let source = &manifest.source;
            let why = format!("the manifest of source {source} does not tell what was saved: {name} is {e}");
            Failure::new(Reason::InvalidConfiguration, why)
        })
    };
    match (list(INCLUDE)?, list(EXCLUDE)?) {
        (None, None) if manifest.safety_for.is_some() => Ok(PathFilter::default()),
        (None, None) => Ok(target.saves.clone().unwrap_or_default()),
        (include, exclude) => {
            Ok(PathFilter { include: include.unwrap_or_default(), exclude: exclude.unwrap_or_default() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(include: &[&str], exclude: &[&str]) -> Own {
        let list = |globs: &[&str]| globs.iter().map(|g| (*g).to_owned()).collect();
        Own::new(&PathFilter { include: list(include), exclude: list(exclude) }, None).unwrap()
    }

    #[test]
    fn a_restore_replaces_what_its_source_saves_and_no_other_does() {
        let scope = Scope { own: own(&[], &["cache/**"]), others: vec![own(&["docs"], &["docs/drafts"])] };
        for (path, held) in [
            ("a", true),
            ("cache", true),
            ("cache/x", false),
            ("docs", false),
            ("docs/a", false),
            ("docs/drafts", true),
            ("docs/drafts/a", true),
        ] {
            assert_eq!(scope.holds(path.as_bytes()), held, "{path}");
        }
        assert!(scope.holds_root() && scope.may_leave_below(b"cache") && scope.may_leave_below(b""));
        assert!(
            !scope.may_leave_below(b"photos") && scope.may_hold_below(b"docs") && !scope.may_hold_below(b"cache/x")
        );
        let scope = Scope { own: own(&["photos/2026/**"], &[]), others: vec![] };
        assert!(!scope.holds(b"photos/2026") && scope.holds(b"photos/2026/a") && !scope.holds_root());
        assert!(scope.may_hold_below(b"photos") && !scope.may_hold_below(b"docs"));
    }
}

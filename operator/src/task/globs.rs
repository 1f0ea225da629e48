//! Which paths of a volume are meant: globs relative to its root, as policies and requests write them. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use holdfast_crds::Reason;

use super::Failure;

/// Globs of one field. `*` and `?` stop at slashes, `**` does not. What matches takes along everything below it.
#[derive(Clone, Debug)]
pub struct Globs {
    set: GlobSet,
    /// The folders that each glob names outright, before its first wildcard.
    roots: Vec<Vec<Vec<u8>>>,
}

impl Globs {
    /// Reads the globs of a field.
    ///
    /// # Errors
    /// [`Reason::InvalidConfiguration`], naming field and glob.
    pub fn new(field: &str, globs: &[String]) -> Result<Self, Failure> {
        let mut set = GlobSetBuilder::new();
        let mut roots = Vec::new();
        for glob in globs {
            let text = relative(glob);
            set.add(read(field, glob)?);
            let plain = text.split('/').take_while(|part| !part.contains(['*', '?', '[', '{', '\\']));
            roots.push(plain.map(|part| part.as_bytes().to_vec()).collect());
        }
        let set = set.build().map_err(|e| {
            Failure::new(Reason::InvalidConfiguration, format!("{field}: too much for one set of globs: {e}"))
        })?;
        Ok(Self { set, roots })
    }

    /// Whether the globs of a field can be read.
    ///
    /// # Errors
    /// As [`Globs::new`].
    pub fn check(field: &str, globs: &[String]) -> Result<(), Failure> {
        globs.iter().try_for_each(|glob| read(field, glob).map(|_| ()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether a glob matches this very path.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.set.is_match(Path::new(OsStr::from_bytes(path)))
    }

    /// The shortest leading part of the path that matches: the path itself or a folder above it.
    pub fn matching_part<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        if self.set.is_empty() {
            return None;
        }
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        slashes.chain([path.len()]).map(|at| &path[..at]).find(|part| self.matches(part))
    }

    /// Whether something below this folder may match.
    pub fn may_match_below(&self, folder: &[u8]) -> bool {
        let parts: Vec<&[u8]> = folder.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
        self.roots.iter().any(|root| root.iter().zip(&parts).all(|(a, b)| a == b))
    }
}

/// A glob without what stands for the volume's root before it, and without the slash of a folder behind it.
fn relative(glob: &str) -> &str {
    let mut text = glob;
    while let Some(rest) = text.strip_prefix("./").or_else(|| text.strip_prefix('/')) {
        text = rest;
    }
    text.trim_end_matches('/')
}

fn read(field: &str, glob: &str) -> Result<Glob, Failure> {
    let invalid = |why: &str| {
        Failure::new(Reason::InvalidConfiguration, format!("{field}: {glob:?} is no glob that can be used: {why}"))
    };
    let text = relative(glob);
    if text.is_empty() || text == "." {
        return Err(invalid("it means the whole volume; leave the field out for that"));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(invalid("it leaves the volume"));
    }
    let parsed = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
    parsed.map_err(|e| invalid(&e.kind().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(globs: &[&str]) -> Globs {
        Globs::new("include", &globs.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_glob_takes_along_what_is_below() {
        let set = globs(&["photos", "/docs/*.txt", "**/tmp/", "a/**"]);
        let part = |path: &str| set.matching_part(path.as_bytes()).map(|p| String::from_utf8(p.to_vec()).unwrap());
        assert_eq!(part("photos").as_deref(), Some("photos"));
        assert_eq!(part("photos/2026/a.jpg").as_deref(), Some("photos"));
        assert_eq!(part("photos2"), None);
        assert_eq!(part("docs/a.txt").as_deref(), Some("docs/a.txt"));
        assert_eq!(part("docs/x/a.txt"), None);
        assert_eq!(part("tmp/x").as_deref(), Some("tmp"));
        assert_eq!(part("x/y/tmp/z/w").as_deref(), Some("x/y/tmp"));
        assert_eq!(part("a"), None);
        assert_eq!(part("a/b/c").as_deref(), Some("a/b"));
        assert!(globs(&["**"]).matches(b"\xff/x"));
    }

    #[test]
    fn folders_that_no_glob_can_be_below_are_known() {
        let set = globs(&["photos/2026/*.jpg", "docs"]);
        for (folder, may) in [
            ("", true),
            ("photos", true),
            ("photos/2026", true),
            ("photos/2025", false),
            ("docs", true),
            ("docs/x", true),
            ("music", false),
        ] {
            assert_eq!(set.may_match_below(folder.as_bytes()), may, "{folder}");
        }
        assert!(globs(&["**/a"]).may_match_below(b"anything/at/all"));
    }

    #[test]
    fn what_is_no_glob_is_refused_with_its_field() {
        for bad in ["", "/", "./", "../x", "a/../b", "a[", "{a", "[z-a]", "a\\"] {
            let failure = Globs::new("exclude", &[bad.to_owned()]).unwrap_err();
            assert_eq!(Globs::check("exclude", &[bad.to_owned()]).unwrap_err(), failure);
            assert_eq!(failure.reason, Reason::InvalidConfiguration);
            assert!(failure.message.contains("exclude"), "{failure}");
        }
    }
}

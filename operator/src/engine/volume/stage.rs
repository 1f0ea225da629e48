//! The hidden folder in a volume where a restore builds the new content, and the swap that puts it into place. Talks to the file system.
//!
//! ```text
//! <volume>/.holdfast-restore-<8 hex>/new/    the new content
//!                                   /old/    what it replaces, by number of the step
//!                                   /units   paths that are swapped in, where only some are
//!                                   /swap    the steps of the swap: while it is there, the swap is not over
//! ```
//! Everything new is on the disk before `swap` is written, and `swap` before the first rename. A swap that breaks off is undone from it, by the
//! same attempt or by the next one. Once it is removed the new content stands, and the folder with the old one is rubbish.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;

use holdfast_crds::Reason;
use rustix::fs::{AtFlags, FlockOperation, Mode};
use rustix::io::Errno;
use tracing::warn;

use super::ahead::words;
use super::beneath::Beneath;
use super::merge::find;
use super::names::{FOLDER, PREFIX, content, exists, is_hidden, names, remove_tree};
use super::place::failed;
use super::swap::{NEW, OLD, Old, SWAP, Steps, Swap, UNITS, create, remove_file};
use crate::archive::tar::printable;
use crate::engine;
use crate::task::Failure;

/// The first interrupted swap that there is in a volume.
///
/// # Errors
/// Where the root cannot be listed.
pub(super) fn interrupted(root: &OwnedFd) -> Result<Option<String>, Errno> {
    for name in names(root)?.into_iter().filter(|name| is_hidden(name)) {
        let folder = match rustix::fs::openat(root, &*name, FOLDER, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(error),
        };
        if exists(&folder, SWAP.as_bytes())? {
            return Ok(Some(printable(&name)));
        }
    }
    Ok(None)
}

/// A restore's hidden folder. Dropped before its swap, it goes with all that is in it.
pub(super) struct Stage {
    volume: Beneath,
    name: Vec<u8>,
    hidden: OwnedFd,
    /// Whether there is nothing left to clean up.
    done: bool,
}

impl Stage {
    /// Makes one, after clearing away what earlier attempts left: interrupted swaps are undone first.
    ///
    /// # Errors
    /// Where the volume cannot be written, or another restore is at work in it.
    pub(super) fn create(root: OwnedFd) -> Result<Self, Failure> {
        let volume = Beneath::new(root);
        clear(&volume, Leftovers::Go)?;
        let name = format!("{PREFIX}{:08x}", fastrand::u32(..)).into_bytes();
        let trouble = |error| failed(&name, error, 0, volume.root());
        rustix::fs::mkdirat(volume.root(), &*name, Mode::RWXU).map_err(trouble)?;
        let hidden = rustix::fs::openat(volume.root(), &*name, FOLDER, Mode::empty()).map_err(trouble)?;
        // Where the file system has no locks, nobody is told apart, and nothing else is lost.
        let _ = rustix::fs::flock(&hidden, FlockOperation::NonBlockingLockExclusive);
        let stage = Self { volume, name: name.clone(), hidden, done: false };
        for folder in [NEW, OLD] {
            rustix::fs::mkdirat(&stage.hidden, folder, Mode::RWXU)
                .map_err(|error| failed(&name, error, 0, stage.volume.root()))?;
        }
        Ok(stage)
    }

    /// The folder for the new content.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(super) fn new_content(&self) -> Result<OwnedFd, Failure> {
        rustix::fs::openat(&self.hidden, NEW, FOLDER, Mode::empty()).map_err(|e| self.trouble(NEW.as_bytes(), e))
    }

    /// The file that takes the paths to be swapped in: [`write_unit`] writes one.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn units(&self) -> Result<BufWriter<File>, Failure> {
        create(&self.hidden, UNITS).map(BufWriter::new).map_err(|e| self.trouble(UNITS.as_bytes(), e))
    }

    /// The volume's root.
    pub(super) fn root(&self) -> &OwnedFd {
        self.volume.root()
    }

    /// Puts the new content into place. After an error everything is as it was.
    ///
    /// # Errors
    /// Where a step fails.
    pub(super) fn swap(&mut self, what: &Swap) -> Result<(), Failure> {
        let trouble = |error: Errno| failed(b"the swap", error, 0, self.volume.root());
        match what.old {
            Old::Goes => {}
            Old::None => {
                let there = content(self.volume.root()).map_err(trouble)?;
                if !there.is_empty() {
                    return Err(not_empty(&there));
                }
            }
            // Only other sources of this request have put something there since the volume was found empty.
            Old::OfOthers => {
                let root = self.volume.folder(b"").map_err(trouble)?;
                let is_of_it = |path: &[u8], is_folder: bool| !is_folder && what.scope.holds(path);
                let there = find(root, b"", is_of_it, |folder| what.scope.may_hold_below(folder));
                if let Some(path) = there.map_err(|(path, error)| self.trouble(&path, error))? {
                    return Err(not_empty(&[path]));
                }
            }
        }
        // The content first: a swap that is on the disk must not point to files that are not.
        rustix::fs::syncfs(&self.hidden).map_err(trouble)?;
        let steps = Steps { volume: &self.volume, hidden: &self.hidden };
        steps.write(what)?;
        rustix::fs::fsync(&self.hidden).map_err(trouble)?;
        if let Err((path, error)) = steps.run() {
            let failure = failed(&path, error, 0, self.volume.root());
            steps.undo().map_err(|undo| {
                // The steps stay on the disk for the next attempt.
                Failure::new(
                    failure.reason,
                    format!("{}; and what was swapped could not be put back: {}", failure.message, undo.message),
                )
            })?;
            remove_file(&self.hidden, SWAP);
            return Err(failure);
        }
        rustix::fs::syncfs(&self.hidden).map_err(trouble)?;
        // From here on the new content stands.
        rustix::fs::unlinkat(&self.hidden, SWAP, AtFlags::empty()).map_err(trouble)?;
        let _ = rustix::fs::fsync(&self.hidden);
        Ok(())
    }

    /// Removes the folder with what was replaced. What is left is said.
    pub(super) fn finish(&mut self) -> Option<String> {
        self.done = true;
        let removed = remove_tree(self.volume.root(), &self.name);
        removed.err().map(|error| {
            format!("what was replaced could not be removed from {}: {}", printable(&self.name), words(error))
        })
    }

    fn trouble(&self, path: &[u8], error: Errno) -> Failure {
        failed(path, error, 0, self.volume.root())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.done || exists(&self.hidden, SWAP.as_bytes()).unwrap_or(true) {
            return;
        }
        if let Err(error) = remove_tree(self.volume.root(), &self.name) {
            warn!("{} stays in the volume until the next restore: {}", printable(&self.name), words(error));
        }
    }
}

/// Writes one path into the file of units.
///
/// # Errors
/// Where the disk does not take it.
pub(super) fn write_unit(units: &mut impl Write, path: &[u8]) -> io::Result<()> {
    writeln!(units, "{}", printable(path))
}

/// A target that must be empty and is not.
pub(super) fn not_empty(names: &[Vec<u8>]) -> Failure {
    let mut shown: Vec<String> = names.iter().map(|n| printable(n)).collect();
    shown.sort_unstable();
    let more = if shown.len() > 5 { ", …" } else { "" };
    shown.truncate(5);
    engine::not_empty(
        &format!("the volume holds {} names in its root ({}{more})", names.len(), shown.join(", ")),
        "set onExisting: Replace, or restore into another claim",
    )
}

/// What becomes of what earlier attempts have left, once no swap of theirs is half done any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// It is removed, however long that takes.
    Go,
    /// The next restore removes it: whoever waits for the volume need not wait for that.
    Stay,
}

/// Undoes interrupted swaps. Whether one was undone.
///
/// # Errors
/// Where that cannot be done, or another restore is at work.
pub(super) fn clear(volume: &Beneath, leftovers: Leftovers) -> Result<bool, Failure> {
    let root = volume.root();
    let mut undone = false;
    let list = names(root).map_err(|e| failed(b"the volume's root", e, 0, root))?;
    for name in list.into_iter().filter(|name| is_hidden(name)) {
        let trouble = |error| failed(&name, error, 0, root);
        let hidden = match rustix::fs::openat(root, &*name, FOLDER, Mode::empty()) {
            Ok(hidden) => hidden,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(trouble(error)),
        };
        if rustix::fs::flock(&hidden, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(Failure::new(
                Reason::RestoreFailed,
                format!("another restore is at work in this volume ({}): wait until it is over", printable(&name)),
            ));
        }
        if exists(&hidden, SWAP.as_bytes()).map_err(trouble)? {
            warn!("an earlier restore broke off in its swap: it is undone");
            Steps { volume, hidden: &hidden }.undo()?;
            rustix::fs::syncfs(&hidden).map_err(trouble)?;
            rustix::fs::unlinkat(&hidden, SWAP, AtFlags::empty()).map_err(trouble)?;
            undone = true;
        }
        if leftovers == Leftovers::Go {
            remove_tree(root, &name).map_err(trouble)?;
        }
    }
    Ok(undone)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::super::names::renames;
    use super::super::scope::Scope;
    use super::*;
    use crate::task::PathFilter;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, FOLDER, Mode::empty()).unwrap()
    }

    fn write(root: &Path, files: &[&str], content: &str) {
        for file in files {
            let at = root.join(file);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, content).unwrap();
        }
    }

    /// Files of a volume with their content.
    fn files(root: &Path) -> BTreeMap<String, String> {
        fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, found);
                } else {
                    found.insert(
                        path.strip_prefix(root).unwrap().display().to_string(),
                        fs::read_to_string(&path).unwrap(),
                    );
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(root, root, &mut found);
        found
    }

    /// All of a volume.
    fn everything() -> Swap {
        part(&[], &[])
    }

    /// What of a volume a source with these globs saves.
    fn part(include: &[&str], exclude: &[&str]) -> Swap {
        let list = |globs: &[&str]| globs.iter().map(|g| (*g).to_owned()).collect();
        let filter = PathFilter { include: list(include), exclude: list(exclude) };
        Swap { scope: Scope::saved_by(&filter).unwrap(), old: Old::Goes, units: false }
    }

    /// Each way to swap, with what is in the volume afterwards, beside what is new.
    fn ways() -> [(Swap, &'static [&'static str]); 4] {
        [
            (everything(), &[]),
            (Swap { units: true, ..everything() }, &["gone/a", "photos/a", "never/came", "keep/a", "photos/keep/a"]),
            (part(&[], &["**/keep", "never"]), &["never/came", "keep/a", "photos/keep/a", "gone/keep/b"]),
            (
                part(&["photos/**", "fresh", "both"], &["photos/keep"]),
                &["gone/a", "gone/keep/b", "never/came", "keep/a", "photos/keep/a"],
            ),
        ]
    }

    fn stage(root: &Path, what: &Swap) -> Stage {
        let stage = Stage::create(open(root)).unwrap();
        let new = root.join(std::str::from_utf8(&stage.name).unwrap()).join(NEW);
        write(&new, &["both", "photos/b", "photos/deep/c", "fresh/x/y", "fresh/z"], "new");
        if what.units {
            let mut units = stage.units().unwrap();
            for unit in ["both", "photos/b", "photos/deep", "fresh/x/y", "fresh/z", "never/came", "gone/keep"] {
                write_unit(&mut units, unit.as_bytes()).unwrap();
            }
            units.flush().unwrap();
        }
        stage
    }

    fn volume() -> (tempfile::TempDir, BTreeMap<String, String>) {
        let folder = tempfile::tempdir().unwrap();
        let old = ["both", "gone/a", "gone/keep/b", "photos/a", "photos/b", "photos/deep/old", "never/came", "keep/a"];
        write(folder.path(), &old, "old");
        write(folder.path(), &["photos/keep/a"], "old");
        let before = files(folder.path());
        (folder, before)
    }

    fn swapped(stay: &[&str]) -> BTreeMap<String, String> {
        let new =
            ["both", "photos/b", "photos/deep/c", "fresh/x/y", "fresh/z"].map(|f| (f.to_owned(), "new".to_owned()));
        let kept = stay.iter().map(|f| ((*f).to_owned(), "old".to_owned()));
        new.into_iter().chain(kept).collect()
    }

    #[test]
    fn a_swap_puts_the_new_content_into_place_and_leaves_only_what_is_not_meant() {
        for (what, stay) in ways() {
            let (folder, _) = volume();
            let mut stage = stage(folder.path(), &what);
            stage.swap(&what).unwrap();
            assert_eq!(stage.finish(), None);
            let stay = if what.units { [stay, &["gone/keep/b"]].concat() } else { stay.to_vec() };
            assert_eq!(files(folder.path()), swapped(&stay));
        }
    }

    #[test]
    fn what_stays_and_is_in_the_way_stops_a_swap_before_it_begins() {
        let in_the_way: [(&[&str], &[&str], &[&str]); 3] = [
            // A folder with something that stays, where a file is to come; a file that stays, where a folder is to come.
            (&["both/keep/a"], &[], &["both/keep"]),
            (&["photos"], &["photos/**", "fresh"], &[]),
            (&["photos/deep/c/keep/a"], &[], &["photos/deep/c/keep"]),
        ];
        for (old, include, exclude) in in_the_way {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), old, "old");
            let before = files(folder.path());
            let what = part(include, exclude);
            let mut stage = stage(folder.path(), &what);
            let failure = stage.swap(&what).unwrap_err();
            assert_eq!(failure.reason, Reason::TargetNotEmpty, "{failure}");
            drop(stage);
            assert_eq!(files(folder.path()), before);
        }
    }

    #[test]
    fn a_swap_that_is_cut_off_after_any_rename_is_undone_by_the_next_attempt() {
        for (what, _) in ways() {
            for cut in 0..30 {
                let (folder, before) = volume();
                let stage = stage(folder.path(), &what);
                let steps = Steps { volume: &stage.volume, hidden: &stage.hidden };
                steps.write(&what).unwrap();
                let done = renames::limited(cut, || steps.run());
                let over = done.is_ok();
                // The Pod is gone: nobody cleans up, and the lock goes with it.
                let Stage { volume, hidden, .. } = &stage;
                let _ = (volume, rustix::fs::flock(hidden, FlockOperation::Unlock));
                std::mem::forget(stage);

                assert!(interrupted(&open(folder.path())).unwrap().is_some());
                let next = Stage::create(open(folder.path())).unwrap();
                drop(next);
                assert_eq!(files(folder.path()), before, "after {cut} renames");
                if over {
                    assert!(cut > 4, "the swap took {cut} renames only");
                    break;
                }
            }
        }
    }

    #[test]
    fn an_undo_that_is_cut_off_is_taken_up_again() {
        for (what, _) in ways() {
            for cut in 0..30 {
                let (folder, before) = volume();
                let stage = stage(folder.path(), &what);
                let steps = Steps { volume: &stage.volume, hidden: &stage.hidden };
                steps.write(&what).unwrap();
                steps.run().unwrap();
                let over = renames::limited(cut, || steps.undo()).is_ok();
                steps.undo().unwrap();
                remove_file(&stage.hidden, SWAP);
                drop(stage);
                assert_eq!(files(folder.path()), before, "after {cut} renames");
                if over {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_swap_whose_step_fails_puts_everything_back() {
        for (what, _) in ways() {
            for cut in 0..5 {
                let (folder, before) = volume();
                let mut stage = stage(folder.path(), &what);
                renames::failing_once(cut, || stage.swap(&what)).unwrap_err();
                drop(stage);
                assert_eq!(files(folder.path()), before, "failing at rename {cut}");
            }
        }
    }

    #[test]
    fn a_swap_of_more_steps_than_are_read_at_once_is_undone() {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage::create(open(folder.path())).unwrap();
        let new = folder.path().join(std::str::from_utf8(&stage.name).unwrap()).join(NEW);
        let names: Vec<String> = (0..3000).map(|n| format!("{n:0>100}")).collect();
        for (root, content) in [(folder.path(), "old"), (new.as_path(), "new")] {
            write(root, &names.iter().map(String::as_str).collect::<Vec<_>>(), content);
        }
        let before = files(&new);
        let steps = Steps { volume: &stage.volume, hidden: &stage.hidden };
        steps.write(&everything()).unwrap();
        steps.run().unwrap();
        steps.undo().unwrap();
        assert_eq!(files(&new), before);
    }

    #[test]
    fn a_volume_that_came_to_hold_something_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for old in [Old::None, Old::OfOthers] {
            let what = Swap { old, ..everything() };
            let mut stage = stage(folder.path(), &what);
            write(folder.path(), &["made/meanwhile"], "app");
            assert_eq!(stage.swap(&what).unwrap_err().reason, Reason::TargetNotEmpty);
            drop(stage);
            assert_eq!(files(folder.path()).into_keys().collect::<Vec<_>>(), ["made/meanwhile"]);
        }
    }

    #[test]
    fn what_an_attempt_left_is_cleared_away_but_not_a_restore_that_is_at_work() {
        let (folder, before) = volume();
        let left = folder.path().join(".holdfast-restore-00000001");
        write(&left, &["new/a/b"], "left");
        fs::set_permissions(left.join("new/a"), std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
        let first = Stage::create(open(folder.path())).unwrap();
        assert!(!left.exists());
        let failure = Stage::create(open(folder.path())).err().unwrap();
        assert!(failure.message.contains("another restore"), "{failure}");
        drop(first);
        drop(Stage::create(open(folder.path())).unwrap());
        assert_eq!(files(folder.path()), before);
    }
}

//! The steps of a swap: what is in a volume compared with what a restore has built, name by name where only a part is replaced. Talks to the
//! file system; touches nothing.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use holdfast_crds::Reason;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::beneath::{Beneath, split};
use super::names::{FOLDER, LOST_FOUND, is_hidden, names, there};
use super::place::failed;
use super::scope::Scope;
use super::swap::Step;
use crate::archive::tar::printable;
use crate::task::Failure;

/// Both sides of a swap.
pub(super) struct Merge<'a> {
    /// The volume.
    pub(super) volume: &'a Beneath,
    /// What is to be in it.
    pub(super) new: &'a Beneath,
    /// What of it is replaced.
    pub(super) scope: &'a Scope,
}

/// A folder of the volume whose names are gone through.
struct Level {
    path: Vec<u8>,
    old: OwnedFd,
    new: Option<OwnedFd>,
    way: Way,
    left: Vec<Vec<u8>>,
    /// What becomes of the folder itself, once its names are done.
    end: Option<Step>,
}

/// How a folder is gone through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It stays: what is in it and replaced goes, and what is new comes.
    Stays,
    /// The new one takes its place: what is in it and stays moves over to that one.
    Goes,
}

impl Merge<'_> {
    /// Hands on the steps that replace all that is meant.
    ///
    /// # Errors
    /// Where something that stays is in the way, or a folder cannot be read.
    pub(super) fn all(&self, take: &mut impl FnMut(Step, &[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let root = |side: &Beneath| side.folder(b"").map_err(|e| self.trouble(b"the volume's root", e));
        let level = self.level(Vec::new(), root(self.volume)?, Some(root(self.new)?), Way::Stays, None)?;
        self.run(level, take)
    }

    /// Hands on the steps that replace one path. One that came to nothing, such as a device, leaves what is there alone.
    ///
    /// # Errors
    /// As [`Merge::all`].
    pub(super) fn unit(
        &self,
        path: &[u8],
        take: &mut impl FnMut(Step, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let trouble = |e| self.trouble(path, e);
        let Some((parent, name)) = split(path) else { return Ok(()) };
        if !there(self.new, path).map_err(trouble)? {
            return Ok(());
        }
        let old = match self.volume.folder(parent) {
            Ok(old) => old,
            Err(Errno::NOENT) => return take(Step::Place, path),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(in_the_way(parent, true)),
            Err(error) => return Err(trouble(error)),
        };
        let new = self.new.folder(parent).map_err(trouble)?;
        let left = vec![name.to_vec()];
        let level = Level { path: parent.to_vec(), old, new: Some(new), way: Way::Stays, left, end: None };
        self.run(level, take)
    }

    fn run(&self, first: Level, take: &mut impl FnMut(Step, &[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.left.pop() {
                let path = join(&level.path, &name);
                let next = match level.way {
                    Way::Stays => self.in_one_that_stays(level, path, &name, take)?,
                    Way::Goes => self.in_one_that_goes(level, path, &name, take)?,
                };
                levels.extend(next);
            } else if let Some(level) = levels.pop()
                && let Some(step) = level.end
            {
                take(step, &level.path)?;
            }
        }
        Ok(())
    }

    fn in_one_that_stays(
        &self,
        level: &Level,
        path: Vec<u8>,
        name: &[u8],
        take: &mut impl FnMut(Step, &[u8]) -> Result<(), Failure>,
    ) -> Result<Option<Level>, Failure> {
        let (old, new) = self.kinds(level, &path, name)?;
        let held = self.scope.holds(&path);
        match (old, new) {
            (Some(Kind::Other), Some(Kind::Folder)) if !held => Err(in_the_way(&path, true)),
            (Some(Kind::Other), Some(Kind::Other)) if !held => Err(not_saved(&path)),
            (None | Some(Kind::Other), Some(_)) => take(Step::Place, &path).map(|()| None),
            (Some(Kind::Other), None) if held => take(Step::Away, &path).map(|()| None),
            (Some(Kind::Folder), new) if held => match (self.keeps_something(level, &path, name)?, new) {
                (false, Some(_)) => take(Step::Place, &path).map(|()| None),
                (false, None) => take(Step::Away, &path).map(|()| None),
                (true, Some(Kind::Folder)) => {
                    self.enter(level, path, name, true, Way::Goes, Some(Step::Place)).map(Some)
                }
                (true, Some(Kind::Other)) => Err(in_the_way(&path, false)),
                (true, None) => self.enter(level, path, name, false, Way::Stays, None).map(Some),
            },
            (Some(Kind::Folder), Some(Kind::Other)) => Err(in_the_way(&path, false)),
            (Some(Kind::Folder), Some(Kind::Folder)) => self.enter(level, path, name, true, Way::Stays, None).map(Some),
            (Some(Kind::Folder), None) if self.scope.may_hold_below(&path) => {
                self.enter(level, path, name, false, Way::Stays, None).map(Some)
            }
            (_, None) => Ok(None),
        }
    }

    fn in_one_that_goes(
        &self,
        level: &Level,
        path: Vec<u8>,
        name: &[u8],
        take: &mut impl FnMut(Step, &[u8]) -> Result<(), Failure>,
    ) -> Result<Option<Level>, Failure> {
        let (old, new) = self.kinds(level, &path, name)?;
        let held = self.scope.holds(&path);
        match (old, new) {
            (None, _) => Ok(None),
            (Some(Kind::Other), _) if held => Ok(None),
            (Some(Kind::Folder), new) if held => match (self.keeps_something(level, &path, name)?, new) {
                (false, _) => Ok(None),
                (true, Some(Kind::Folder)) => self.enter(level, path, name, true, Way::Goes, None).map(Some),
                (true, Some(Kind::Other)) => Err(in_the_way(&path, false)),
                (true, None) => self.enter(level, path, name, false, Way::Stays, Some(Step::Keep)).map(Some),
            },
            (Some(Kind::Other), Some(Kind::Other)) => Err(not_saved(&path)),
            (Some(Kind::Other), Some(Kind::Folder)) => Err(in_the_way(&path, true)),
            (Some(Kind::Folder), Some(Kind::Other)) => Err(in_the_way(&path, false)),
            (Some(Kind::Folder), Some(Kind::Folder)) => {
                self.enter(level, path, name, true, Way::Stays, Some(Step::Keep)).map(Some)
            }
            (Some(Kind::Folder), None) if self.scope.may_hold_below(&path) => {
                self.enter(level, path, name, false, Way::Stays, Some(Step::Keep)).map(Some)
            }
            (Some(_), None) => take(Step::Keep, &path).map(|()| None),
        }
    }

    fn kinds(&self, level: &Level, path: &[u8], name: &[u8]) -> Result<(Option<Kind>, Option<Kind>), Failure> {
        let old = kind(&level.old, name).map_err(|e| self.trouble(path, e))?;
        let new = level.new.as_ref().map(|new| kind(new, name)).transpose().map_err(|e| self.trouble(path, e))?;
        Ok((old, new.flatten()))
    }

    /// Whether there is something in a folder that is replaced which is not.
    fn keeps_something(&self, level: &Level, path: &[u8], name: &[u8]) -> Result<bool, Failure> {
        if !self.scope.may_leave_below(path) {
            return Ok(false);
        }
        let folder = open(&level.old, name).map_err(|e| self.trouble(path, e))?;
        let kept = find(folder, path, |path, _| !self.scope.holds(path), |path| self.scope.may_leave_below(path));
        kept.map(|kept| kept.is_some()).map_err(|(path, error)| self.trouble(&path, error))
    }

    fn enter(
        &self,
        above: &Level,
        path: Vec<u8>,
        name: &[u8],
        both: bool,
        way: Way,
        end: Option<Step>,
    ) -> Result<Level, Failure> {
        let trouble = |e| self.trouble(&path, e);
        let old = open(&above.old, name).map_err(trouble)?;
        let new = above.new.as_ref().filter(|_| both).map(|new| open(new, name)).transpose().map_err(trouble)?;
        self.level(path, old, new, way, end)
    }

    fn level(
        &self,
        path: Vec<u8>,
        old: OwnedFd,
        new: Option<OwnedFd>,
        way: Way,
        end: Option<Step>,
    ) -> Result<Level, Failure> {
        let listed = |folder: &OwnedFd| names(folder).map_err(|e| self.trouble(&path, e));
        let mut left: BTreeSet<Vec<u8>> = listed(&old)?.into_iter().collect();
        if path.is_empty() {
            left.retain(|name| !is_the_systems(name));
        }
        if let Some(new) = &new {
            left.extend(listed(new)?);
        }
        Ok(Level { left: left.into_iter().rev().collect(), path, old, new, way, end })
    }

    fn trouble(&self, path: &[u8], error: Errno) -> Failure {
        failed(path, error, 0, self.volume.root())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    Other,
}

fn kind(folder: &OwnedFd, name: &[u8]) -> Result<Option<Kind>, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(Some(Kind::Folder)),
        Ok(_) => Ok(Some(Kind::Other)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(folder, name, FOLDER, Mode::empty())
}

/// Names in a volume's root that are no content of it.
fn is_the_systems(name: &[u8]) -> bool {
    is_hidden(name) || name == LOST_FOUND
}

/// The first path below a folder of a volume that is wanted, whether it is a folder or not; only folders that may hold one are entered.
///
/// # Errors
/// The path that could not be looked at.
pub(super) fn find(
    folder: OwnedFd,
    path: &[u8],
    wanted: impl Fn(&[u8], bool) -> bool,
    enter: impl Fn(&[u8]) -> bool,
) -> Result<Option<Vec<u8>>, (Vec<u8>, Errno)> {
    let listed = |folder: &OwnedFd, path: &[u8]| -> Result<Vec<Vec<u8>>, (Vec<u8>, Errno)> {
        let mut names = names(folder).map_err(|e| (path.to_vec(), e))?;
        names.retain(|name| !path.is_empty() || !is_the_systems(name));
        Ok(names)
    };
    let mut levels = vec![(path.to_vec(), listed(&folder, path)?, folder)];
    while let Some((above, left, folder)) = levels.last_mut() {
        let Some(name) = left.pop() else {
            levels.pop();
            continue;
        };
        let path = join(above, &name);
        let Some(kind) = kind(folder, &name).map_err(|e| (path.clone(), e))? else { continue };
        if wanted(&path, kind == Kind::Folder) {
            return Ok(Some(path));
        }
        if kind == Kind::Folder && enter(&path) {
            let next = open(folder, &name).map_err(|e| (path.clone(), e))?;
            levels.push((path.clone(), listed(&next, &path)?, next));
        }
    }
    Ok(None)
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// Something that stays is where something of another kind is to come.
/// A backup that was made before manifests told what a source saves may hold more than the source saves by now.
fn not_saved(path: &[u8]) -> Failure {
    let path = printable(&path[..path.len().min(300)]);
    Failure::new(
        Reason::TargetNotEmpty,
        format!(
            "{path} is in the backup and in the volume, and the policy's source leaves it out by now, so no safety backup holds it: write include and exclude as they were when the backup was made, or move it away; what was there is as before"
        ),
    )
}

fn in_the_way(path: &[u8], by_a_folder: bool) -> Failure {
    let (comes, stays) = if by_a_folder {
        ("a folder", "something else that the source does not save")
    } else {
        ("no folder", "a folder with something in it that the source does not save")
    };
    let path = printable(&path[..path.len().min(300)]);
    Failure::new(
        Reason::TargetNotEmpty,
        format!(
            "{path} is {comes} in the backup, and in the volume {stays}, which stays: move it away, or restore into another claim; what was there is as before"
        ),
    )
}

//! Names of one and the same file: the first in the archive has the content, the others point to it. Pure.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::census::Census;
use super::facts::Facts;

/// At most this many files with further names to come are remembered. Beyond that each name is stored as a file of its own.
const MAX_OPEN: usize = 100_000;

/// What a name is among the names of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The only one, as far as the archive is concerned.
    Only,
    /// The first: it has the content.
    First(Key),
    /// A further one.
    Further(Key),
}

/// Device and inode.
pub(super) type Key = (u64, u64);

/// What is known of the first name of a file.
#[derive(Debug)]
struct Known {
    path: Vec<u8>,
    state: State,
    /// Names that are still to come.
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    UnderWay,
    Stored,
    Missing,
}

/// Files with several names.
#[derive(Debug, Default)]
pub(super) struct Links {
    known: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    files: HashMap<Key, Known>,
    given_up: bool,
}

/// How a further name is stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Further {
    /// As a link to this one.
    LinkTo(Vec<u8>),
    /// With the content: the first one could not be stored, and this one takes its place.
    First,
}

impl Links {
    /// A name of a file, in the archive's order.
    pub(super) fn meet(&self, facts: &Facts, path: &[u8], census: &Census) -> Role {
        if facts.links < 2 {
            return Role::Only;
        }
        let key = (facts.device, facts.inode);
        let mut table = self.table();
        if table.files.contains_key(&key) {
            return Role::Further(key);
        }
        if table.files.len() >= MAX_OPEN {
            census.split_links.fetch_add(1, Ordering::Relaxed);
            return Role::Only;
        }
        let known = Known { path: path.to_vec(), state: State::UnderWay, left: facts.links - 1 };
        table.files.insert(key, known);
        Role::First(key)
    }

    /// Whether the first name's content is in the archive.
    pub(super) fn settle(&self, key: Key, stored: bool) {
        if let Some(known) = self.table().files.get_mut(&key) {
            known.state = if stored { State::Stored } else { State::Missing };
        }
        self.changed.notify_all();
    }

    /// How a further name is stored: waits until its first one is. None: all has been given up.
    pub(super) fn resolve(&self, key: Key, path: &[u8]) -> Option<Further> {
        let mut table = self.table();
        loop {
            if table.given_up {
                return None;
            }
            let Some(known) = table.files.get_mut(&key) else { return Some(Further::First) };
            match known.state {
                State::UnderWay => {
                    table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                }
                State::Missing => {
                    known.path = path.to_vec();
                    known.state = State::UnderWay;
                    known.left = known.left.saturating_sub(1);
                    return Some(Further::First);
                }
                State::Stored => {
                    let target = known.path.clone();
                    known.left = known.left.saturating_sub(1);
                    // The walk is ahead: it may have told apart by this entry names that are still to come. Those are counted in `left`.
                    if known.left == 0 {
                        table.files.remove(&key);
                    }
                    return Some(Further::LinkTo(target));
                }
            }
        }
    }

    /// Nobody will settle anything any more.
    pub(super) fn give_up(&self) {
        self.table().given_up = true;
        self.changed.notify_all();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What was met while a volume was read or written: counts that are exact, and names up to a bound. Pure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::archive::tar::printable;

/// At most this many names are kept of each kind.
const MAX_NAMES: usize = 100;
/// A name longer than this is cut: a list of them goes into the manifest.
const MAX_NAME: usize = 1000;

/// A count, and the first of the names counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    count: AtomicU64,
    names: Mutex<Vec<String>>,
}

impl Tally {
    /// One more.
    pub(super) fn add(&self, name: &[u8]) {
        self.add_with(name, "");
    }

    /// One more, with what is to be said of it.
    pub(super) fn add_with(&self, name: &[u8], why: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MAX_NAMES {
            let mut text = printable(&name[..name.len().min(MAX_NAME)]);
            if text.is_empty() {
                text.push('.');
            }
            if !why.is_empty() {
                text.push_str(": ");
                text.push_str(why);
            }
            names.push(text);
        }
    }

    /// How many.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first of them, sorted, so that threads do not decide about the order.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        names.sort_unstable();
        names
    }

    /// `3: a, b, c`; of many the first few.
    pub(super) fn in_words(&self) -> String {
        const SHOWN: usize = 5;
        let names = self.names();
        let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if self.count() > SHOWN as u64 { ", …" } else { "" };
        format!("{}: {shown}{more}", self.count())
    }
}

/// What was met while a volume was read.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Members of the archive.
    pub(super) entries: AtomicU64,
    /// Files, symlinks, further names of files and pipes: everything but folders.
    pub(super) files: AtomicU64,
    /// Bytes of files, holes included.
    pub(super) bytes: AtomicU64,
    /// Bytes of files, holes left out but for those that are stored as zeros.
    pub(super) data: AtomicU64,
    /// Bytes of holes that are stored as zeros.
    pub(super) zeros: AtomicU64,
    /// Files that changed while they were read.
    pub(super) changed: Tally,
    /// What was listed and then was gone.
    pub(super) vanished: Tally,
    /// What could not be read.
    pub(super) unreadable: Tally,
    /// Sockets, which nothing can be read from.
    pub(super) sockets: Tally,
    /// What tar has no place for.
    pub(super) unwritable: Tally,
    /// Names of one file that were stored as files of their own, because too many were open.
    pub(super) split_links: AtomicU64,
}

impl Census {
    /// For the manifest.
    pub(super) fn properties(&self) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        let mut put = |name: &str, value: u64| properties.insert(name.to_owned(), value.to_string());
        put("entries", self.entries.load(Ordering::Relaxed));
        put("files", self.files.load(Ordering::Relaxed));
        put("fileBytes", self.bytes.load(Ordering::Relaxed));
        let zeros = self.zeros.load(Ordering::Relaxed);
        put("dataBytes", self.data.load(Ordering::Relaxed).saturating_sub(zeros));
        put("changed", self.changed.count());
        let lists = [
            ("changed", &self.changed),
            ("vanished", &self.vanished),
            ("unreadable", &self.unreadable),
            ("sockets", &self.sockets),
            ("unwritable", &self.unwritable),
        ];
        if zeros > 0 {
            put("holesAsZeros", zeros);
        }
        if self.split_links.load(Ordering::Relaxed) > 0 {
            put("splitHardLinks", self.split_links.load(Ordering::Relaxed));
        }
        for (name, tally) in lists.iter().filter(|(_, tally)| tally.count() > 0) {
            properties.insert((*name).to_owned(), tally.count().to_string());
            properties.insert(format!("{name}Names"), tally.names().join("\n"));
        }
        properties
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_and_names_bounded() {
        let census = Census::default();
        for number in 0..1000 {
            census.changed.add(format!("log/{number:04}").as_bytes());
        }
        census.sockets.add(b"run/\xff.sock");
        let properties = census.properties();
        assert_eq!(properties["changed"], "1000");
        assert_eq!(properties["changedNames"].lines().count(), MAX_NAMES);
        assert_eq!(properties["socketsNames"], "run/\\xff.sock");
        assert!(!properties.contains_key("vanished"));
        assert_eq!(census.changed.in_words(), "1000: log/0000, log/0001, log/0002, log/0003, log/0004, …");
    }
}

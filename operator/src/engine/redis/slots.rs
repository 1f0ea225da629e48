//! Slots of a cluster: which primary serves them, and which are open, so that keys move out of one primary into another. Pure.

use super::facts::{self, SLOTS, Shard};
use crate::archive::rdb::{Entry, RdbReader, Visit};
use crate::engine::{Inspect, Inspection};
use crate::task::Failure;

/// So many open slots are named.
const MOST_NAMED: usize = 8;

/// What a primary says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Counts up when slots come to it: one that went and came back is seen by it.
    pub epoch: u64,
    /// Slots whose keys move, with how.
    pub open: Vec<(u16, &'static str)>,
}

/// Reads the reply to `CLUSTER NODES`: the line of the one who answers, which alone tells of open slots.
pub(super) fn node(text: &str) -> Option<Node> {
    let line = text.lines().find(|line| line.split(' ').nth(2).is_some_and(|f| f.split(',').any(|f| f == "myself")))?;
    let mut words = line.split(' ');
    let epoch = words.nth(6)?.parse().ok()?;
    // Behind the state of the link: ranges, and open slots as `[93->-id]` and `[77-<-id]`.
    let open = words.skip(1).filter_map(|word| {
        let (slot, way) = word.strip_prefix('[')?.split_once('-')?;
        Some((slot.parse().ok()?, if way.starts_with('>') { "migrating" } else { "importing" }))
    });
    Some(Node { epoch, open: open.collect() })
}

/// The open slots of a cluster, in words; none where there is none.
pub(super) fn open(shards: &[Shard], nodes: &[Node]) -> Option<String> {
    let all = shards
        .iter()
        .zip(nodes)
        .flat_map(|(shard, node)| node.open.iter().map(|(slot, how)| format!("{slot} ({how}, at {})", shard.address)));
    let all: Vec<String> = all.collect();
    if all.is_empty() {
        return None;
    }
    let more = all.len().saturating_sub(MOST_NAMED);
    let named = all[..all.len() - more].join(", ");
    Some(if more == 0 { named } else { format!("{named} and {more} more") })
}

/// Slots as text: `0-5460,7000-7000`.
pub(super) fn write(ranges: &[(u16, u16)]) -> String {
    ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(",")
}

/// Slots that a primary served.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Served(Vec<bool>);

impl Served {
    /// Of ranges.
    pub fn of(ranges: &[(u16, u16)]) -> Self {
        let mut served = vec![false; usize::from(SLOTS)];
        for (first, last) in ranges {
            if let Some(range) = served.get_mut(usize::from(*first)..=usize::from(*last)) {
                range.fill(true);
            }
        }
        Self(served)
    }

    /// Of what [`write`] wrote; none where it is something else.
    pub fn read(text: &str) -> Option<Self> {
        let range = |text: &str| {
            let (first, last) = text.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        text.split(',').map(range).collect::<Option<Vec<(u16, u16)>>>().map(|ranges| Self::of(&ranges))
    }

    /// Whether a key belongs here.
    pub fn holds(&self, key: &[u8]) -> bool {
        self.0.get(usize::from(facts::slot(key))).copied().unwrap_or(false)
    }
}

/// Reads the dump of a primary of a cluster, and counts its keys of slots that it does not serve.
pub(super) struct PrimaryReader {
    reader: RdbReader<Strays>,
}

struct Strays {
    served: Served,
    found: u64,
}

impl PrimaryReader {
    /// Of a primary that serves these slots.
    pub fn new(what: String, ranges: &[(u16, u16)]) -> Self {
        let strays = Strays { served: Served::of(ranges), found: 0 };
        Self { reader: RdbReader::visited(what, strays) }
    }
}

impl Visit for Strays {
    const KEEPS: bool = true;
    const PASSES_LONG: bool = true;

    fn begin(&mut self, _: &Entry, key: &[u8]) -> Result<(), Failure> {
        // A key that is too long to be kept is told as an empty one, and not known to be astray.
        self.found += u64::from(!key.is_empty() && !self.served.holds(key));
        Ok(())
    }
}

impl Inspect for PrimaryReader {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.reader.feed(bytes)
    }

    fn finish(&mut self) -> Result<Inspection, Failure> {
        let mut inspection = self.reader.finish()?;
        let strays = self.reader.visitor().found;
        if strays > 0 {
            inspection.properties.insert(STRAYS.to_owned(), strays.to_string());
        }
        Ok(inspection)
    }
}

/// Property: the slots that the primary served.
pub(super) const SERVED: &str = "slots";
/// Property: how many keys of the artifact are of other slots.
pub(super) const STRAYS: &str = "strays";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::redis::link::Address;

    #[test]
    fn open_slots_are_read_from_the_nodes_own_line() {
        let text = "07c3 127.0.0.1:30004@31004,host slave e7d1 0 1426238317239 4 connected\n\
                    67ed 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922 [9-<-e7d1]\n\
                    e7d1 127.0.0.1:30001@31001 myself,master - 0 0 17 connected 0-5460 7000 [93-<-67ed] [77->-67ed]\n";
        let node = node(text).unwrap();
        assert_eq!(node, Node { epoch: 17, open: vec![(93, "importing"), (77, "migrating")] });
        assert_eq!(super::node("67ed 127.0.0.1:30002@31002 master - 0 1 2 connected 0-5460"), None);
        assert_eq!(super::node(""), None);
        let shard = Shard { address: Address { host: "a".into(), port: 1 }, ranges: vec![(0, 9)] };
        let shards = [shard.clone(), shard];
        assert_eq!(open(&shards, &[Node::default(), Node::default()]), None);
        let words = open(&shards, &[Node::default(), node]).unwrap();
        assert_eq!(words, "93 (importing, at a:1), 77 (migrating, at a:1)");
        let many = Node { epoch: 1, open: (0..20).map(|slot| (slot, "migrating")).collect() };
        assert!(open(&shards, &[many]).unwrap().ends_with("and 12 more"));
    }

    #[test]
    fn slots_are_read_as_they_are_written() {
        let ranges = [(0, 5460), (7000, 7000)];
        let text = write(&ranges);
        assert_eq!(text, "0-5460,7000-7000");
        let served = Served::read(&text).unwrap();
        assert!(served == Served::of(&ranges));
        assert_eq!(facts::slot(b"foo"), 12182);
        assert!(!served.holds(b"foo") && Served::read("12182-12182").unwrap().holds(b"foo"));
        for other in ["", "5", "a-b", "0-5460,", "0-99999"] {
            assert!(Served::read(other).is_none(), "{other}");
        }
    }
}

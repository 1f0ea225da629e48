//! What a server says of itself: `INFO` and `CLUSTER SLOTS`, read. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::link::Address;
use super::resp::Reply;
use crate::archive::rdb::{NEWEST_VALKEY, VALKEY};

/// Slots of a cluster.
pub(super) const SLOTS: u16 = 16384;

/// What `INFO` says.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    fields: BTreeMap<String, String>,
}

impl Facts {
    /// Reads it.
    pub fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self { fields: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// A field; empty where it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// A field as a number; 0 where it is not one.
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// Whether a field is `1`.
    pub fn is(&self, name: &str) -> bool {
        self.text(name) == "1"
    }

    /// Whether it is a Valkey.
    pub fn is_valkey(&self) -> bool {
        self.text("server_name") == "valkey" || !self.text("valkey_version").is_empty()
    }

    /// Name and version.
    pub fn server(&self) -> String {
        if self.is_valkey() {
            format!("Valkey {}", self.text("valkey_version"))
        } else {
            format!("Redis {}", self.text("redis_version"))
        }
    }

    /// Memory that its keys take, with what it keeps for each; none where it does not tell.
    pub fn held(&self) -> Option<u64> {
        const BESIDES: [&str; 6] = [
            "used_memory_startup",
            "mem_clients_normal",
            "mem_clients_slaves",
            "mem_replication_backlog",
            "mem_aof_buffer",
            "mem_cluster_links",
        ];
        let used = self.number("used_memory");
        let besides: u64 = BESIDES.iter().map(|name| self.number(name)).sum();
        (used > 0 && self.number("used_memory_startup") > 0).then(|| used.saturating_sub(besides))
    }

    /// Memory that it takes while it holds no key.
    pub fn idle_memory(&self) -> u64 {
        self.number("used_memory_startup") + self.number("mem_clients_normal")
    }

    /// Whether it lets go of keys for want of memory just now.
    pub fn is_evicting(&self) -> bool {
        let counted = self.number("used_memory").saturating_sub(self.number("mem_not_counted_for_evict"));
        let limit = self.number("maxmemory");
        limit > 0 && counted > limit && !matches!(self.text("maxmemory_policy"), "" | "noeviction")
    }

    /// Keys that it has let go of for want of memory.
    pub fn evicted(&self) -> u64 {
        self.number("evicted_keys")
    }

    /// Major and minor number of the version of Redis that it is or says it is like.
    pub fn version(&self) -> (u32, u32) {
        numbers(self.text("redis_version"))
    }

    /// Whether it is a Valkey whose own RDB is newer than what is read here.
    pub fn is_newer_valkey(&self) -> bool {
        self.is_valkey() && numbers(self.text("valkey_version")) > numbers(NEWEST_VALKEY)
    }

    /// The newest version of RDB that it reads, as far as its own version tells: one that cannot be asked.
    pub fn rdb_version(&self) -> u32 {
        if self.is_valkey() {
            return if numbers(self.text("valkey_version")).0 >= 9 { VALKEY } else { 11 };
        }
        match self.version() {
            (0..=3, _) => 6,
            (4, _) => 8,
            (5 | 6, _) => 9,
            (7, 0 | 1) => 10,
            (7, 2 | 3) => 11,
            (7, _) | (8, 0..=5) => 12,
            _ => 13,
        }
    }

    /// Whether it is a node of a cluster.
    pub fn is_cluster(&self) -> bool {
        self.is("cluster_enabled") || self.text("redis_mode") == "cluster" || self.text("server_mode") == "cluster"
    }

    /// Whether it watches servers and is none.
    pub fn is_sentinel(&self) -> bool {
        self.text("redis_mode") == "sentinel" || self.text("server_mode") == "sentinel"
    }

    /// Whether it is a replica.
    pub fn is_replica(&self) -> bool {
        self.text("role") == "slave"
    }

    /// Keys of each database that has any.
    pub fn keyspace(&self) -> BTreeMap<u64, u64> {
        self.fields
            .iter()
            .filter_map(|(name, value)| {
                let number = name.strip_prefix("db")?.parse().ok()?;
                let keys = value.split(',').find_map(|part| part.strip_prefix("keys="))?.parse().ok()?;
                Some((number, keys))
            })
            .filter(|(_, keys)| *keys > 0)
            .collect()
    }
}

/// A primary of a cluster and the slots it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// Where it is.
    pub address: Address,
    /// First and last slot of each range, ascending.
    pub ranges: Vec<(u16, u16)>,
}

/// Reads the reply to `CLUSTER SLOTS`, which `asked` gave: the primaries in the order of their first slots.
///
/// # Errors
/// Where it is none: what is wrong.
pub(super) fn shards(reply: &Reply, asked: &Address) -> Result<Vec<Shard>, String> {
    let mut shards: BTreeMap<Address, BTreeSet<(u16, u16)>> = BTreeMap::new();
    for range in reply.elements() {
        let strange = || format!("CLUSTER SLOTS gave an answer that is not understood: {range:?}");
        let [Reply::Integer(first), Reply::Integer(last), primary, ..] = range.elements() else {
            return Err(strange());
        };
        let [host, Reply::Integer(port), ..] = primary.elements() else { return Err(strange()) };
        let host = match host.text() {
            // It does not know its own name, or means the one it was reached by.
            None => asked.host.clone(),
            Some(host) if host.is_empty() => asked.host.clone(),
            Some(host) if host == "?" => {
                return Err("a primary of the cluster has no host name: set cluster-announce-hostname".to_owned());
            }
            Some(host) => host,
        };
        let number = |number: &i64| u16::try_from(*number).map_err(|_| strange());
        let address = Address { host, port: number(port)? };
        shards.entry(address).or_default().insert((number(first)?, number(last)?));
    }
    let mut shards: Vec<Shard> =
        shards.into_iter().map(|(address, ranges)| Shard { address, ranges: ranges.into_iter().collect() }).collect();
    shards.sort_by_key(|shard| shard.ranges.first().copied());
    if shards.is_empty() {
        return Err("no slot of the cluster is served".to_owned());
    }
    Ok(shards)
}

/// The slot of a key: CRC16 (XMODEM) of what is between its first `{` and the next `}`, or of all of it.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = memchr::memchr(b'{', key).and_then(|open| {
        let behind = &key[open + 1..];
        memchr::memchr(b'}', behind).filter(|length| *length > 0).map(|length| &behind[..length])
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    });
    crc % SLOTS
}

/// Whether a server whose own version of RDB is `own` reads `found`.
pub(super) fn reads(own: u32, found: u32) -> bool {
    // From 12 on Redis and Valkey went different ways: Valkey's own versions begin at 80, and it keeps off 12 to 79.
    if own >= 80 { found <= 11 || (80..=own).contains(&found) } else { found <= own }
}

/// Major and minor number of a version.
fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_tells_versions_roles_and_keys() {
        let facts = Facts::parse(
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nredis_mode:standalone\r\n\
             role:slave\r\nmaxmemory:1000\r\n# Keyspace\r\ndb0:keys=5,expires=1,avg_ttl=0\r\ndb12:keys=7,expires=0,avg_ttl=0\r\n\
             db3:keys=0,expires=0,avg_ttl=0\r\n",
        );
        assert_eq!(facts.server(), "Valkey 8.1.1");
        assert_eq!(facts.version(), (7, 2));
        assert!(facts.is_replica() && !facts.is_cluster() && !facts.is_sentinel());
        assert_eq!(facts.number("maxmemory"), 1000);
        assert_eq!(facts.keyspace(), BTreeMap::from([(0, 5), (12, 7)]));
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{}{bar}"), slot(b"foo{}{bar}"));
        assert_ne!(slot(b"foo{}{bar}"), slot(b"bar"));
    }

    #[test]
    fn primaries_come_in_the_order_of_their_slots() {
        let node = |host: &str, port| {
            Reply::Array(Some(vec![Reply::Bulk(Some(host.as_bytes().to_vec())), Reply::Integer(port)]))
        };
        let range =
            |first, last, primary| Reply::Array(Some(vec![Reply::Integer(first), Reply::Integer(last), primary]));
        let reply = Reply::Array(Some(vec![
            range(8000, 16383, node("10.0.0.2", 6379)),
            range(0, 10, node("", 7000)),
            range(11, 7999, node("10.0.0.2", 6379)),
        ]));
        let asked = Address { host: "redis".into(), port: 6379 };
        let shards = shards(&reply, &asked).unwrap();
        assert_eq!(shards[0], Shard { address: Address { host: "redis".into(), port: 7000 }, ranges: vec![(0, 10)] });
        assert_eq!(shards[1].ranges, [(11, 7999), (8000, 16383)]);
        assert!(super::shards(&Reply::Array(Some(vec![])), &asked).is_err());
        assert!(super::shards(&Reply::Array(Some(vec![range(0, 1, Reply::Integer(1))])), &asked).is_err());
    }

    #[test]
    fn versions_of_rdb_are_read_upwards_and_not_across() {
        assert!(reads(10, 9) && reads(10, 10) && !reads(10, 11));
        assert!(reads(80, 11) && reads(80, 80) && !reads(80, 12) && !reads(12, 80));
        let of = |info: &str| Facts::parse(info).rdb_version();
        assert_eq!(of("redis_version:6.2.1"), 9);
        assert_eq!(of("redis_version:7.0.15"), 10);
        assert_eq!(of("redis_version:7.4.0"), 12);
        assert_eq!(of("redis_version:8.4.1"), 12);
        assert_eq!(of("redis_version:8.6.3"), 13);
        // Valkey says which Redis it is like, which tells nothing of its own format.
        assert_eq!(of("redis_version:7.2.4\nserver_name:valkey\nvalkey_version:8.1.1"), 11);
        assert_eq!(of("redis_version:7.2.4\nserver_name:valkey\nvalkey_version:9.1.2"), 80);
        let newer =
            |version: &str| Facts::parse(&format!("server_name:valkey\nvalkey_version:{version}")).is_newer_valkey();
        assert!(newer("9.2.0") && newer("10.0.1") && !newer("9.1.2") && !newer("8.1.1"));
        assert!(!Facts::parse("redis_version:10.0.0").is_newer_valkey());
    }
}

//! The grammar of RDB: what follows each type byte and opcode, as tables. Pure. Source of the format: `rdb.h`, `rdb.c` and `keymeta.c` of
//! Redis 8.6 (version 13), and `rdb.h` and `rdb.c` of Valkey 9.1 (version 80).

/// One element of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A length, or another number written as one.
    Length,
    /// A length whose value is kept.
    Number,
    /// A string, in any encoding.
    Text,
    /// A string that is kept, up to a limit; longer is an error.
    Keep,
    /// A string of which only the beginning matters.
    KeepSome,
    /// This many bytes.
    Raw(u8),
    /// This many bytes, least significant first, whose value is kept.
    Little(u8),
    /// When the first field of a hash expires: eight bytes, in milliseconds since 1970. The others are counted from there.
    FieldBase,
    /// When a field of a hash expires, as a number: 0 for never.
    FieldTtl,
    /// When a field of a hash expires: eight bytes, in milliseconds since 1970, or -1 for never.
    FieldExpiry,
    /// A listpack of fields, values and expiries, those that expire last at its end.
    FieldList,
    /// A floating-point number as text, with one byte of length before it.
    TextualDouble,
    /// A length, and then so many times what is named here.
    Many(&'static [Op]),
    /// The name of a module's type, packed into a number.
    ModuleType,
    /// The name of a kind of metadata that a module keeps beside keys, its version and its flags, in four bytes.
    MetadataClass,
    /// What a module wrote, up to its own end marker.
    ModuleData,
}

use Op::{
    FieldBase, FieldExpiry, FieldList, FieldTtl, Keep, KeepSome, Length, Little, Many, MetadataClass, ModuleData,
    ModuleType, Number, Raw, Text, TextualDouble,
};

/// What modules keep beside the next key (Redis from 8.6 on). Its type comes right behind.
pub(super) const METADATA: u8 = 243;
/// Functions.
pub(super) const FUNCTION: u8 = 245;
/// A module's own data that belongs to no key.
pub(super) const MODULE_AUX: u8 = 247;
/// How long a key has not been used, in seconds.
pub(super) const IDLE: u8 = 248;
/// How often a key has been used, as a logarithm.
pub(super) const FREQUENCY: u8 = 249;
/// A named fact on the server.
pub(super) const AUX: u8 = 250;
/// Expiry of the next key in milliseconds.
pub(super) const EXPIRY_MILLIS: u8 = 252;
/// Expiry of the next key in seconds.
pub(super) const EXPIRY_SECONDS: u8 = 253;
/// The database of the keys that follow.
pub(super) const SELECT: u8 = 254;
/// The end.
pub(super) const EOF: u8 = 255;

/// Whose versions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Redis, and Valkey before 9.
    Redis,
    /// Valkey from 9 on.
    Valkey,
}

impl Flavour {
    /// Its name, for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
        }
    }
}

/// The version of Redis' own since which there is metadata of keys, and streams know their producers.
const REDIS_8_6: u32 = 13;

/// What follows an opcode; none where it is not one of this version.
pub(super) fn of_opcode(opcode: u8, flavour: Flavour, version: u32) -> Option<&'static [Op]> {
    Some(match opcode {
        METADATA if flavour == Flavour::Redis && version >= REDIS_8_6 => &[Many(&[MetadataClass, ModuleData])],
        // State of a slot that is being imported: name of the job, ranges of slots.
        243 if flavour == Flavour::Valkey => &[Text, Many(&[Length, Length])],
        // A slot with its keys and its keys that expire: hints.
        244 => &[Length, Length, Length],
        FUNCTION => &[Keep],
        // Type, `when` as a marked number, data.
        MODULE_AUX => &[ModuleType, Length, Length, ModuleData],
        IDLE | SELECT => &[Number],
        FREQUENCY => &[Little(1)],
        AUX => &[KeepSome, KeepSome],
        // Keys and keys that expire of a database: hints.
        251 => &[Length, Length],
        EXPIRY_MILLIS => &[Little(8)],
        EXPIRY_SECONDS => &[Little(4)],
        EOF => &[],
        _ => return None,
    })
}

/// What a value of this type consists of; none where it is no type of this version.
pub(super) fn of_type(kind: u8, flavour: Flavour, version: u32) -> Option<&'static [Op]> {
    Some(match kind {
        // A string; and what is one string: zipmap, ziplist, intset, listpack.
        0 | 9..=13 | 16 | 17 | 20 => &[Text],
        // List, set; quicklist of ziplists.
        1 | 2 | 14 => &[Many(&[Text])],
        // Sorted set, scores as text.
        3 => &[Many(&[Text, TextualDouble])],
        // Hash.
        4 => &[Many(&[Text, Text])],
        // Sorted set, scores as bytes.
        5 => &[Many(&[Text, Raw(8)])],
        7 => &[ModuleType, ModuleData],
        // Quicklist of listpacks and plain strings.
        18 => &[Many(&[Length, Text])],
        15 => STREAM_1,
        19 => STREAM_2,
        21 => STREAM_3,
        // Hash with expiries, in milliseconds or none.
        22 if flavour == Flavour::Valkey => &[Many(&[Text, Text, FieldExpiry])],
        22 => &[Many(&[FieldTtl, Text, Text])],
        23 if flavour == Flavour::Redis => &[FieldList],
        // The next expiry first; then expiries relative to it.
        24 if flavour == Flavour::Redis => &[FieldBase, Many(&[FieldTtl, Text, Text])],
        25 if flavour == Flavour::Redis => &[FieldBase, FieldList],
        26 if flavour == Flavour::Redis && version >= REDIS_8_6 => STREAM_4,
        _ => return None,
    })
}

/// What a module writes, by its mark; none for the end.
pub(super) fn of_module(mark: u64) -> Option<&'static [Op]> {
    Some(match mark {
        1 | 2 => &[Length],
        3 => &[Raw(4)],
        4 => &[Raw(8)],
        5 => &[Text],
        _ => return None,
    })
}

/// Nodes by their first entry; count of entries; last entry.
const STREAM_1: &[Op] = &[Many(&[Text, Text]), Length, Length, Length, Many(GROUP_1)];
/// Besides: first entry, largest deleted entry, count of entries ever added.
const STREAM_2: &[Op] =
    &[Many(&[Text, Text]), Length, Length, Length, Length, Length, Length, Length, Length, Many(GROUP_2)];
const STREAM_3: &[Op] =
    &[Many(&[Text, Text]), Length, Length, Length, Length, Length, Length, Length, Length, Many(GROUP_3)];
/// Besides: for how long and how many of a producer's identities are remembered; the producers; how many entries came with an identity,
/// and how many of them twice.
const STREAM_4: &[Op] = &[
    Many(&[Text, Text]),
    Length,
    Length,
    Length,
    Length,
    Length,
    Length,
    Length,
    Length,
    Many(GROUP_3),
    Length,
    Length,
    Many(PRODUCER),
    Length,
    Length,
];

/// A producer: name, and each identity it gave with the entry it gave it to.
const PRODUCER: &[Op] = &[Text, Many(&[Text, Length, Length])];
/// A consumer group: name, last entry delivered, pending entries, consumers.
const GROUP_1: &[Op] = &[Text, Length, Length, Many(PENDING), Many(CONSUMER)];
/// Besides: count of entries read.
const GROUP_2: &[Op] = &[Text, Length, Length, Length, Many(PENDING), Many(CONSUMER)];
const GROUP_3: &[Op] = &[Text, Length, Length, Length, Many(PENDING), Many(CONSUMER_3)];
/// A pending entry: its identity, when it was delivered, how often.
const PENDING: &[Op] = &[Raw(16), Raw(8), Length];
/// A consumer: name, when seen, its pending entries.
const CONSUMER: &[Op] = &[Text, Raw(8), Many(&[Raw(16)])];
/// Besides: when active.
const CONSUMER_3: &[Op] = &[Text, Raw(8), Raw(8), Many(&[Raw(16)])];

//! MongoDB's canonical Extended JSON (v2), from BSON and back, with the order of fields kept. Pure.
//!
//! The form is that of the specification "Extended JSON, version 2": each type has a form of its own (`{"$numberInt": "1"}`), so that
//! nothing is lost. A document of a user that has one of these forms itself cannot be told from the type: it is refused when written.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::read_document;
pub use write::{TypeCounts, write_counted, write_document};

/// Why a document cannot be written as JSON, or JSON not be read as a document: a sentence for a person, without values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Unreadable {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Deeper than this no document is; the server's own limit is 200.
const MAX_DEPTH: usize = 200;

/// First keys of the forms that stand for types.
const FORMS: [&str; 15] = [
    "$oid",
    "$symbol",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$code",
    "$timestamp",
    "$regularExpression",
    "$dbPointer",
    "$date",
    "$minKey",
    "$maxKey",
    "$undefined",
];

/// Type bytes of BSON elements.
mod kind {
    pub const DOUBLE: u8 = 0x01;
    pub const STRING: u8 = 0x02;
    pub const DOCUMENT: u8 = 0x03;
    pub const ARRAY: u8 = 0x04;
    pub const BINARY: u8 = 0x05;
    pub const UNDEFINED: u8 = 0x06;
    pub const OBJECT_ID: u8 = 0x07;
    pub const BOOLEAN: u8 = 0x08;
    pub const DATE: u8 = 0x09;
    pub const NULL: u8 = 0x0a;
    pub const REGEX: u8 = 0x0b;
    pub const DB_POINTER: u8 = 0x0c;
    pub const CODE: u8 = 0x0d;
    pub const SYMBOL: u8 = 0x0e;
    pub const CODE_WITH_SCOPE: u8 = 0x0f;
    pub const INT32: u8 = 0x10;
    pub const TIMESTAMP: u8 = 0x11;
    pub const INT64: u8 = 0x12;
    pub const DECIMAL: u8 = 0x13;
    pub const MAX_KEY: u8 = 0x7f;
    pub const MIN_KEY: u8 = 0xff;

    /// What `$type` calls them.
    pub const NAMES: [(u8, &str); 21] = [
        (DOUBLE, "double"),
        (STRING, "string"),
        (DOCUMENT, "object"),
        (ARRAY, "array"),
        (BINARY, "binData"),
        (UNDEFINED, "undefined"),
        (OBJECT_ID, "objectId"),
        (BOOLEAN, "bool"),
        (DATE, "date"),
        (NULL, "null"),
        (REGEX, "regex"),
        (DB_POINTER, "dbPointer"),
        (CODE, "javascript"),
        (SYMBOL, "symbol"),
        (CODE_WITH_SCOPE, "javascriptWithScope"),
        (INT32, "int"),
        (TIMESTAMP, "timestamp"),
        (INT64, "long"),
        (DECIMAL, "decimal"),
        (MAX_KEY, "maxKey"),
        (MIN_KEY, "minKey"),
    ];
}

/// Binary data of this subtype has its length a second time.
const OLD_BINARY: u8 = 0x02;

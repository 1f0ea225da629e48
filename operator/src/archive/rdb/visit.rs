//! What a reader of an RDB tells to who wants to know what is in it. Pure.

use crate::task::Failure;

/// Who wants to know what is in an RDB. Every method may end the reading.
pub trait Visit: Send {
    /// Whether keys and libraries of functions are wanted. Where not, they are not kept, and the visitor is told neither.
    const KEEPS: bool;

    /// Whether a key or library that is too long to be kept is told as an empty one; otherwise it ends the reading.
    const PASSES_LONG: bool = false;

    /// The version of the format, before anything else.
    fn version(&mut self, _version: u32) {}

    /// A library of functions: its source code.
    fn function(&mut self, _library: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    /// The next bytes of what modules keep beside the key that comes next. They are the beginning of its `DUMP` payload, before its type.
    fn metadata(&mut self, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    /// Something that belongs to no key and that only a server's own loader takes, such as `data of the module ReJSON-RL`.
    fn besides(&mut self, _what: String) -> Result<(), Failure> {
        Ok(())
    }

    /// A key begins.
    fn begin(&mut self, _entry: &Entry, _key: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    /// The next bytes of its value.
    fn value(&mut self, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    /// Its value has ended. Where it is a hash all of whose fields expire: when the last of them does, in milliseconds since 1970.
    fn end(&mut self, _lapses: Option<i64>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Nobody: the reader only proves and counts.
impl Visit for () {
    const KEEPS: bool = false;
}

/// What is said of a key before its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its database.
    pub database: u64,
    /// Type of its value, which is the first byte of its `DUMP` payload, unless there is metadata.
    pub kind: u8,
    /// When it expires, in milliseconds since 1970.
    pub expires: Option<i64>,
    /// For how many seconds it has not been used.
    pub idle: Option<u64>,
    /// How often it has been used, as a logarithm.
    pub frequency: Option<u8>,
}

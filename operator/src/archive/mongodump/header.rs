//! The documents that an archive has of its own: its header, a namespace's metadata, a segment's header. Pure.

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, cstr};

/// What an archive says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// How many collections may be interleaved.
    pub concurrent_collections: i32,
    /// Version of the server that was dumped.
    pub server_version: String,
    /// Version of the tool that dumped it.
    pub tool_version: String,
}

/// A collection, a view, or one of the lists that are kept like collections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Database; empty for what belongs to none.
    pub database: String,
    /// Collection.
    pub collection: String,
    /// Options and indexes as canonical extended JSON; empty where there is none.
    pub metadata: String,
    /// `collection`, `view`, `timeseries` or nothing.
    pub kind: String,
}

/// What an archive has of users and roles, kept like collections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// Users.
    Users,
    /// Roles that somebody made.
    Roles,
    /// The version of the form that they have.
    Version,
}

impl Namespace {
    /// What the data of the namespace is called in segments' headers.
    pub fn data_collection(&self) -> String {
        if self.kind == super::TIME_SERIES {
            format!("{}{}", super::BUCKETS, self.collection)
        } else {
            self.collection.clone()
        }
    }

    /// Which of the lists of users and roles it is; none: it is data.
    pub fn list(&self) -> Option<List> {
        let own = self.database == super::AUTH_DATABASE;
        match self.collection.as_str() {
            super::USERS => Some(List::Users),
            super::ROLES => Some(List::Roles),
            super::AUTH_VERSION => Some(List::Version),
            "system.users" if own => Some(List::Users),
            "system.roles" if own => Some(List::Roles),
            "system.version" if own => Some(List::Version),
            _ => None,
        }
    }

    /// Database and collection, as MongoDB writes them.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.database, self.collection)
    }
}

/// The beginning of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub database: String,
    pub collection: String,
    /// The end of the namespace, with the CRC of its documents.
    pub end: Option<u64>,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("concurrent_collections"), self.concurrent_collections);
        document.append(cstr!("version"), super::FORMAT_VERSION);
        document.append(cstr!("server_version"), self.server_version.as_str());
        document.append(cstr!("tool_version"), self.tool_version.as_str());
        document.into_bytes()
    }

    /// The reason is for a person.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut header = Self::default();
        let mut version = None;
        each(bytes, |key, value| {
            match (key, value) {
                ("concurrent_collections", RawBsonRef::Int32(count)) => header.concurrent_collections = count,
                ("version", RawBsonRef::String(text)) => version = Some(text.to_owned()),
                ("server_version", RawBsonRef::String(text)) => text.clone_into(&mut header.server_version),
                ("tool_version", RawBsonRef::String(text)) => text.clone_into(&mut header.tool_version),
                _ => return false,
            }
            true
        })
        .ok_or("its header is not one of an archive")?;
        match version.as_deref() {
            Some(super::FORMAT_VERSION) => Ok(header),
            Some(other) => Err(format!("archive version {} is not known to this version of Holdfast", short(other))),
            None => Err("its header has no version".to_owned()),
        }
    }
}

impl Namespace {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("db"), self.database.as_str());
        document.append(cstr!("collection"), self.collection.as_str());
        document.append(cstr!("metadata"), self.metadata.as_str());
        document.append(cstr!("size"), 0_i32);
        document.append(cstr!("type"), self.kind.as_str());
        document.into_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut namespace = Self::default();
        let mut named = false;
        each(bytes, |key, value| {
            match (key, value) {
                ("db", RawBsonRef::String(text)) => text.clone_into(&mut namespace.database),
                ("collection", RawBsonRef::String(text)) => {
                    named = !text.is_empty();
                    text.clone_into(&mut namespace.collection);
                }
                ("metadata", RawBsonRef::String(text)) => text.clone_into(&mut namespace.metadata),
                ("size", RawBsonRef::Int32(_)) => {}
                // Tools of before 2018 do not write it.
                ("type", RawBsonRef::String(text)) => text.clone_into(&mut namespace.kind),
                _ => return false,
            }
            true
        })?;
        let known = matches!(namespace.kind.as_str(), "" | "collection" | super::VIEW | super::TIME_SERIES);
        (named && known).then_some(namespace)
    }
}

impl SegmentHeader {
    pub fn encode(database: &str, collection: &str, end: Option<u64>) -> Vec<u8> {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("db"), database);
        document.append(cstr!("collection"), collection);
        document.append(cstr!("EOF"), end.is_some());
        document.append(cstr!("CRC"), end.unwrap_or_default().cast_signed());
        document.into_bytes()
    }

    /// Only the very form that is written is read, so that a changed byte is no other header.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let document = RawDocument::from_bytes(bytes).ok()?;
        let database = document.get_str("db").ok()?.to_owned();
        let collection = document.get_str("collection").ok()?.to_owned();
        let crc = document.get_i64("CRC").ok()?.cast_unsigned();
        let end = document.get_bool("EOF").ok()?.then_some(crc);
        let header = Self { database, collection, end };
        (Self::encode(&header.database, &header.collection, header.end) == bytes).then_some(header)
    }
}

/// Each field of a document; none where the document is damaged or `take` does not know the field.
fn each<'a>(bytes: &'a [u8], mut take: impl FnMut(&str, RawBsonRef<'a>) -> bool) -> Option<()> {
    let document = RawDocument::from_bytes(bytes).ok()?;
    for element in document {
        let (key, value) = element.ok()?;
        if !take(key.as_str(), value) {
            return None;
        }
    }
    Some(())
}

fn short(text: &str) -> String {
    text.chars().take(20).filter(|c| !c.is_control()).collect()
}

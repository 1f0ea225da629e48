//! What an archive says of a collection, as the commands that make it again. Pure.

use bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr, rawdoc};

use super::legacy;
use crate::archive::extjson::read_document;

/// Options and indexes of a collection.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    options: RawDocumentBuf,
    indexes: Vec<RawDocumentBuf>,
    /// Indexes that are made in another way than they were, by name: how.
    changed: Vec<(String, String)>,
    /// Names of indexes that are not made.
    left_out: Vec<String>,
}

impl Metadata {
    /// Reads what mongodump's metadata says; a collection without any has neither options nor indexes.
    ///
    /// # Errors
    /// In words, where it cannot be read.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bytes = read_document(text).map_err(|why| why.to_string())?;
        let document = RawDocumentBuf::from_bytes(bytes).map_err(|error| error.to_string())?;
        let options = match document.get("options").map_err(|error| error.to_string())? {
            Some(RawBsonRef::Document(options)) => options.to_owned(),
            _ => RawDocumentBuf::new(),
        };
        let (mut indexes, mut changed) = (Vec::new(), Vec::new());
        if let Ok(list) = document.get_array("indexes") {
            for index in list {
                match index.map_err(|error| error.to_string())? {
                    RawBsonRef::Document(index) => {
                        let (index, change) = legacy::modern(index);
                        if let (Some(change), false) = (change, is_own(&index)) {
                            changed.push((name_of(&index).to_owned(), change));
                        }
                        indexes.push(index);
                    }
                    _ => return Err("an index of it is no document".to_owned()),
                }
            }
        }
        Ok(Self { options, indexes, changed, left_out: Vec::new() })
    }

    /// Leaves out indexes that are not wanted.
    pub fn choose(&mut self, wanted: impl Fn(&str) -> bool) {
        let Self { indexes, changed, left_out, .. } = self;
        indexes.retain(|index| {
            let keep = is_own(index) || wanted(name_of(index));
            if !keep {
                left_out.push(name_of(index).to_owned());
            }
            keep
        });
        changed.retain(|(name, _)| !left_out.contains(name));
    }

    /// What is not as it was, in words.
    pub fn changes(&self, collection: &str) -> impl Iterator<Item = String> {
        let made = self.changed.iter().map(move |(name, how)| format!("index {name} of {collection} {how}"));
        made.chain(self.left_out.iter().map(move |name| format!("index {name} of {collection} was left out")))
    }

    /// Whether the server overwrites its oldest documents, so that their order matters.
    pub fn capped(&self) -> bool {
        self.options.get_bool("capped").unwrap_or(false)
    }

    /// The command that makes a collection or view of these options.
    pub fn create(&self, name: &str) -> RawDocumentBuf {
        let mut command = rawdoc! {"create": name};
        for (key, value) in self.options.iter().flatten() {
            // Servers since 4.0 know it no longer.
            if key.as_str() != "autoIndexId" {
                command.append(key, value);
            }
        }
        command
    }

    /// The command that makes all its indexes but that of `_id`, which a collection has anyhow; none where there is no other.
    pub fn create_indexes(&self, name: &str) -> Option<RawDocumentBuf> {
        let collated = matches!(self.options.get("collation"), Ok(Some(_)));
        let indexes: Vec<RawDocumentBuf> =
            self.indexes.iter().filter(|index| !is_own(index)).map(|index| index_spec(index, collated)).collect();
        if indexes.is_empty() {
            return None;
        }
        let list: RawArrayBuf = indexes.into_iter().collect();
        Some(rawdoc! {"createIndexes": name, "indexes": list})
    }

    /// Its unique indexes.
    pub fn unique_indexes(&self) -> impl Iterator<Item = &RawDocument> {
        self.indexes
            .iter()
            .filter(|index| !is_own(index) && index.get_bool("unique").unwrap_or(false))
            .map(AsRef::as_ref)
    }
}

/// The name of an index.
fn name_of(index: &RawDocument) -> &str {
    index.get_str("name").unwrap_or_default()
}

/// Whether the server makes the index by itself.
fn is_own(index: &RawDocument) -> bool {
    let Ok(key) = index.get_document("key") else { return false };
    let mut fields = key.iter();
    let is_one = |value| match value {
        RawBsonRef::Int32(number) => number == 1,
        RawBsonRef::Int64(number) => number == 1,
        RawBsonRef::Double(number) => (number - 1.0).abs() < f64::EPSILON,
        _ => false,
    };
    let only_id = matches!(fields.next(), Some(Ok((name, value))) if name.as_str() == "_id" && is_one(value))
        && fields.next().is_none();
    only_id || index.get_bool("clustered").unwrap_or(false)
}

/// An index as `listIndexes` gives it, as `createIndexes` takes it.
fn index_spec(index: &RawDocument, collated: bool) -> RawDocumentBuf {
    let mut spec = RawDocumentBuf::new();
    for (key, value) in index.iter().flatten() {
        let keep = match key.as_str() {
            // Of servers before 4.4, and of no use to later ones.
            "ns" | "background" => false,
            // Other servers' engines say here what mongod would refuse.
            "storageEngine" => value.as_document().is_some_and(|engine| engine.get_document("wiredTiger").is_ok()),
            _ => true,
        };
        if keep {
            spec.append(key, value);
        }
    }
    // In a collection with a collation an index without one has it too, unless it says otherwise.
    if collated && matches!(index.get("collation"), Ok(None)) {
        spec.append(cstr!("collation"), rawdoc! {"locale": "simple"});
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"options":{"capped":true,"size":{"$numberInt":"4096"},"autoIndexId":true,
        "collation":{"locale":"de"}},"indexes":[
        {"v":{"$numberInt":"2"},"key":{"_id":{"$numberInt":"1"}},"name":"_id_","ns":"d.c"},
        {"v":{"$numberInt":"2"},"key":{"z":{"$numberInt":"-1"},"a":{"$numberInt":"1"}},"name":"z_a","unique":true,
         "collation":{"locale":"fr"},"storageEngine":{"enableOrderedIndex":true}},
        {"v":{"$numberInt":"2"},"key":{"_id":"hashed"},"name":"_id_hashed","background":true},
        {"v":{"$numberInt":"2"},"key":{"_id":{"$numberInt":"1"}},"name":"c","unique":true,"clustered":true}]}"#;

    #[test]
    fn a_collection_is_made_as_it_was() {
        let metadata = Metadata::read(TEXT).unwrap();
        assert!(metadata.capped());
        let expected = rawdoc! {"create": "x", "capped": true, "size": 4096, "collation": {"locale": "de"}};
        assert_eq!(metadata.create("x"), expected);
        let expected = rawdoc! {"createIndexes": "x", "indexes": [
            {"v": 2, "key": {"z": -1, "a": 1}, "name": "z_a", "unique": true, "collation": {"locale": "fr"}},
            {"v": 2, "key": {"_id": "hashed"}, "name": "_id_hashed", "collation": {"locale": "simple"}},
        ]};
        assert_eq!(metadata.create_indexes("x"), Some(expected));
        assert_eq!(metadata.unique_indexes().count(), 1);
    }

    #[test]
    fn a_collection_without_metadata_is_a_plain_one() {
        let metadata = Metadata::read("").unwrap();
        assert_eq!(metadata.create("x"), rawdoc! {"create": "x"});
        assert_eq!(metadata.create_indexes("x"), None);
        assert!(Metadata::read("{").is_err());
        assert!(Metadata::read(r#"{"indexes":[1]}"#).is_err());
    }
}

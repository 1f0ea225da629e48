//! Indexes that servers before 3.4 took, as those of today take them. Pure.
//!
//! Those servers took any option, and any value as a direction, of which all but negative numbers and names of kinds meant 1.

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, cstr};

/// Options that servers of today know.
const KNOWN: [&str; 26] = [
    "2dsphereIndexVersion",
    "background",
    "bits",
    "bucketSize",
    "clustered",
    "coarsestIndexedLevel",
    "collation",
    "default_language",
    "expireAfterSeconds",
    "finestIndexedLevel",
    "hidden",
    "key",
    "language_override",
    "max",
    "min",
    "name",
    "ns",
    "partialFilterExpression",
    "prepareUnique",
    "sparse",
    "storageEngine",
    "textIndexVersion",
    "unique",
    "v",
    "weights",
    "wildcardProjection",
];
/// Options that nobody takes any more, whoever made the index.
const GONE: [&str; 3] = ["dropDups", "drop_dups", "safe"];

/// An index as it is made today, and what was changed: `without safe, and with 1 for true as direction of a`.
pub(super) fn modern(index: &RawDocument) -> (RawDocumentBuf, Option<String>) {
    let version = index.get("v").ok().flatten().and_then(number);
    // From version 2 on the server has looked at each of the options.
    let is_old = version.is_none_or(|version| version < 2.0);
    let (mut made, mut without, mut with) = (RawDocumentBuf::new(), Vec::new(), Vec::new());
    for (name, value) in index.iter().flatten() {
        match (name.as_str(), value) {
            ("key", RawBsonRef::Document(key)) => made.append(cstr!("key"), directions(key, &mut with)),
            ("v", _) if version.is_none_or(|version| version < 1.0) => without.push(format!("v: {}", shown(value))),
            (option, _) if GONE.contains(&option) || (is_old && !KNOWN.contains(&option)) => {
                without.push(option.to_owned());
            }
            _ => made.append(name, value),
        }
    }
    without.sort_unstable();
    let mut words = Vec::new();
    if let Some((last, others)) = without.split_last() {
        let others = others.join(", ");
        words.push(if others.is_empty() { format!("without {last}") } else { format!("without {others} and {last}") });
    }
    words.extend(with);
    let change = words.join(", and ");
    (made, (!change.is_empty()).then_some(change))
}

fn directions(key: &RawDocument, with: &mut Vec<String>) -> RawDocumentBuf {
    let mut made = RawDocumentBuf::new();
    for (field, value) in key.iter().flatten() {
        let taken = match value {
            RawBsonRef::String(kind) => !kind.is_empty(),
            value => number(value).is_some_and(|number| number != 0.0 && !number.is_nan()),
        };
        if taken {
            made.append(field, value);
        } else {
            with.push(format!("with 1 for {} as direction of {}", shown(value), field.as_str()));
            made.append(field, 1);
        }
    }
    made
}

#[allow(clippy::cast_precision_loss, reason = "only its sign and small values count")]
fn number(value: RawBsonRef<'_>) -> Option<f64> {
    match value {
        RawBsonRef::Int32(number) => Some(number.into()),
        RawBsonRef::Int64(number) => Some(number as f64),
        RawBsonRef::Double(number) => Some(number),
        RawBsonRef::Decimal128(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn shown(value: RawBsonRef<'_>) -> String {
    match value {
        RawBsonRef::Boolean(value) => value.to_string(),
        RawBsonRef::Null => "null".to_owned(),
        RawBsonRef::String(text) => format!("{text:?}"),
        value => number(value).map_or_else(|| "something that is no number".to_owned(), |number| number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn what_old_servers_took_becomes_what_servers_take_today() {
        let old = rawdoc! {"v": 0, "key": {"a": true, "b": -1, "c": "2d", "d": 0, "e": ""}, "name": "x", "unique": true,
        "safe": null, "dropDups": true, "backgroud": true, "bits": 26};
        let (made, change) = modern(&old);
        let expected =
            rawdoc! {"key": {"a": 1, "b": -1, "c": "2d", "d": 1, "e": 1}, "name": "x", "unique": true, "bits": 26};
        assert_eq!(made, expected);
        assert_eq!(
            change.unwrap(),
            "without backgroud, dropDups, safe and v: 0, and with 1 for true as direction of a, and with 1 for 0 as direction of d, and \
             with 1 for \"\" as direction of e"
        );
    }

    #[test]
    fn what_servers_take_today_stays() {
        // An option that is newer than this list, of a server that has looked at it.
        for index in [
            rawdoc! {"v": 2, "key": {"a": 1, "b": -1.5, "$**": 1, "t": "text"}, "name": "x", "newer": true},
            rawdoc! {"v": 1, "key": {"a": 2_i64}, "name": "x", "ns": "d.c", "background": true, "expireAfterSeconds": 5},
        ] {
            assert_eq!(modern(&index), (index, None));
        }
        let (made, change) = modern(&rawdoc! {"v": 2, "key": {"a": 1}, "safe": true});
        assert_eq!((made, change.as_deref()), (rawdoc! {"v": 2, "key": {"a": 1}}, Some("without safe")));
    }
}

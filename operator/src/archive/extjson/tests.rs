//! Each type there and back, and what cannot be written or read.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, JavaScriptCodeWithScope, Regex, Timestamp, cstr, doc};
use proptest::prelude::*;

use super::*;

fn json(document: &[u8]) -> Result<String, Unreadable> {
    let mut out = String::new();
    write_document(document, &mut out).map(|()| out)
}

fn bytes(document: &bson::Document) -> Vec<u8> {
    document.to_vec().unwrap()
}

#[test]
fn each_type_has_its_form_and_comes_back_to_the_byte() {
    let document = doc! {
        "double": 1.5, "whole": 3.0, "large": 1e22, "small": -2.5e-7, "nan": f64::NAN, "inf": f64::NEG_INFINITY,
        "string": "a \"quoted\" \\ line\n\u{1}härte",
        "document": {"z": 1, "a": {"": Bson::Null}},
        "array": [1, [2_i64], {"x": true}],
        "binary": Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 255, 7] },
        "old": Binary { subtype: BinarySubtype::BinaryOld, bytes: vec![1, 2] },
        "uuid": Binary { subtype: BinarySubtype::Uuid, bytes: vec![9; 16] },
        "undefined": Bson::Undefined,
        "id": ObjectId::from_bytes([0xab; 12]),
        "date": DateTime::from_millis(-5),
        "regex": Regex { pattern: cstr!("^a\"b").into(), options: cstr!("im").into() },
        "code": Bson::JavaScriptCode("f()".into()),
        "scoped": JavaScriptCodeWithScope { code: "g()".into(), scope: doc! {"n": 1} },
        "symbol": Bson::Symbol("s".into()),
        "int": i32::MIN, "timestamp": Timestamp { time: 4_000_000_000, increment: 7 }, "long": i64::MAX,
        "decimal": "-1.50E+10".parse::<Decimal128>().unwrap(),
        "max": Bson::MaxKey, "min": Bson::MinKey,
        "dotted.key": 1, "$inner": {"$set": 1, "$regex": "^x"},
    };
    let document = bytes(&document);
    let text = json(&document).unwrap();
    for form in [
        r#""double":{"$numberDouble":"1.5"},"whole":{"$numberDouble":"3.0"},"large":{"$numberDouble":"1.0E+22"}"#,
        r#""small":{"$numberDouble":"-2.5E-7"}"#,
        r#""nan":{"$numberDouble":"NaN"},"inf":{"$numberDouble":"-Infinity"}"#,
        r#""string":"a \"quoted\" \\ line\n\u0001härte""#,
        r#""old":{"$binary":{"base64":"AQI=","subType":"02"}}"#,
        r#""date":{"$date":{"$numberLong":"-5"}}"#,
        r#""regex":{"$regularExpression":{"pattern":"^a\"b","options":"im"}}"#,
        r#""scoped":{"$code":"g()","$scope":{"n":{"$numberInt":"1"}}}"#,
        r#""timestamp":{"$timestamp":{"t":4000000000,"i":7}}"#,
        r#""decimal":{"$numberDecimal":"-1.50E+10"}"#,
        r#""max":{"$maxKey":1},"min":{"$minKey":1}"#,
    ] {
        assert!(text.contains(form), "{form} in {text}");
    }
    assert_eq!(read_document(&text).unwrap(), document);
}

#[test]
fn a_pointer_comes_back_to_the_byte() {
    let mut document = b"\0\0\0\0\x0cp\0\x04\0\0\0d.c\0".to_vec();
    document.extend_from_slice(&[0x5a; 12]);
    document.push(0);
    document[0] = u8::try_from(document.len()).unwrap();
    let text = json(&document).unwrap();
    assert_eq!(text, r#"{"p":{"$dbPointer":{"$ref":"d.c","$id":{"$oid":"5a5a5a5a5a5a5a5a5a5a5a5a"}}}}"#);
    assert_eq!(read_document(&text).unwrap(), document);
}

#[test]
fn plain_numbers_and_dates_of_other_writers_are_read() {
    let read = read_document(r#"{"a": 1, "b": 3000000000, "c": 0.5, "d": {"$date": "1970-01-01T00:00:01Z"}}"#).unwrap();
    let expected = doc! {"a": 1, "b": 3_000_000_000_i64, "c": 0.5, "d": DateTime::from_millis(1000)};
    assert_eq!(read, bytes(&expected));
}

#[test]
fn what_would_come_back_as_something_else_is_not_written() {
    let failure = json(&bytes(&doc! {"a": {"$oid": "no id"}})).unwrap_err();
    assert!(failure.to_string().contains("a field $oid that stands for a type"), "{failure}");
    let mut not_utf8 = bytes(&doc! {"a": "x"});
    let place = not_utf8.len() - 3;
    not_utf8[place] = 0xff;
    assert!(json(&not_utf8).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn forms_that_are_not_as_they_should_be_are_refused() {
    for wrong in [
        r#"{"$numberInt": 1}"#,
        r#"{"$numberInt": "x"}"#,
        r#"{"$oid": "12"}"#,
        r#"{"$oid": "zzzzzzzzzzzzzzzzzzzzzzzz"}"#,
        r#"{"$oid": "000000000000000000000000", "b": 1}"#,
        r#"{"$binary": {"base64": "?", "subType": "00"}}"#,
        r#"{"$binary": {"base64": "", "subType": "+1"}}"#,
        r#"{"$timestamp": {"i": 1, "t": 1}}"#,
        r#"{"$timestamp": {"t": -1, "i": 1}}"#,
        r#"{"$date": "yesterday"}"#,
        r#"{"$minKey": 2}"#,
        r#"{"$code": "a", "$scope": 1}"#,
    ] {
        let text = format!(r#"{{"a": {wrong}}}"#);
        assert!(read_document(&text).is_err(), "{text}");
    }
    for text in ["", "1", "[]", "{", r#"{"a\u0000": 1}"#, r#"{"a": 1} {}"#] {
        assert!(read_document(text).is_err(), "{text}");
    }
}

fn values() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        any::<f64>().prop_filter("a NaN has many forms", |f| !f.is_nan()).prop_map(Bson::Double),
        ".*".prop_map(Bson::String),
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<bool>().prop_map(Bson::Boolean),
        Just(Bson::Null),
        any::<i64>().prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(ObjectId::from_bytes(id))),
        (any::<Vec<u8>>(), any::<u8>())
            .prop_map(|(bytes, subtype)| { Bson::Binary(Binary { subtype: BinarySubtype::from(subtype), bytes }) }),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Bson::Array),
            proptest::collection::vec(("[^\\x00$]*", inner), 0..6)
                .prop_map(|members| Bson::Document(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_document_comes_back_to_the_byte(value in values()) {
        let document = bytes(&doc! {"v": value});
        let text = json(&document).unwrap();
        prop_assert!(!text.contains('\n'));
        prop_assert_eq!(read_document(&text).unwrap(), document);
    }

    #[test]
    fn damaged_documents_never_panic(
        value in values(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut document = bytes(&doc! {"v": value});
        for (at, byte) in &changes {
            let at = at.index(document.len());
            document[at] = *byte;
        }
        let _ = json(&document);
    }

    #[test]
    fn text_of_any_kind_never_panics(text in "[{}\\[\\]\":,$a-zA-Z0-9 ]{0,80}") {
        let _ = read_document(&text);
    }
}

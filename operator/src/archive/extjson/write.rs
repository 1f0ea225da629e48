//! BSON to canonical Extended JSON. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{FORMS, MAX_DEPTH, OLD_BINARY, Unreadable, kind};

/// Writes a document onto the end of `out`, in one line, without a line's end.
///
/// # Errors
/// Where the bytes are no BSON document, hold text that is not UTF-8, or a document that has the form of a type (`{"$oid": …}`).
pub fn write_document(document: &[u8], out: &mut String) -> Result<(), Unreadable> {
    write_counted(document, out, &mut TypeCounts::default())
}

/// Writes a document as [`write_document`] does, and counts the values of each type.
///
/// # Errors
/// As [`write_document`].
pub fn write_counted(document: &[u8], out: &mut String, counts: &mut TypeCounts) -> Result<(), Unreadable> {
    let length = Bytes(document).int32()?;
    if usize::try_from(length) != Ok(document.len()) {
        return Err(damaged());
    }
    Writer { out, counts }.members(&mut Bytes(document), false, 0)
}

/// How many values of each type there were.
#[derive(Clone, Debug)]
pub struct TypeCounts([u64; 256]);

impl Default for TypeCounts {
    fn default() -> Self {
        Self([0; 256])
    }
}

impl TypeCounts {
    /// The types that there were, by the names that MongoDB's `$type` has for them.
    pub fn named(&self) -> BTreeMap<&'static str, u64> {
        kind::NAMES
            .iter()
            .map(|(kind, name)| (*name, self.0[usize::from(*kind)]))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

fn damaged() -> Unreadable {
    Unreadable::new("it is damaged: no BSON document")
}

/// Bytes that are taken from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn int32(&mut self) -> Result<i32, Unreadable> {
        self.array().map(i32::from_le_bytes)
    }

    fn uint32(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_le_bytes)
    }

    fn int64(&mut self) -> Result<i64, Unreadable> {
        self.array().map(i64::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize, Unreadable> {
        usize::try_from(self.int32()?).map_err(|_| damaged())
    }

    /// Text that ends with a zero.
    fn name(&mut self) -> Result<&'a str, Unreadable> {
        let end = memchr::memchr(0, self.0).ok_or_else(damaged)?;
        let text = text(self.take(end)?)?;
        self.take(1)?;
        Ok(text)
    }

    /// Text with its length, and a zero after it.
    fn string(&mut self) -> Result<&'a str, Unreadable> {
        let length = self.length()?;
        let (text_bytes, zero) = self.take(length)?.split_at_checked(length.wrapping_sub(1)).ok_or_else(damaged)?;
        if zero == [0] { text(text_bytes) } else { Err(damaged()) }
    }

    /// A document with its length in front, which is not taken off it.
    fn document(&mut self) -> Result<Bytes<'a>, Unreadable> {
        let length = Bytes(self.0).length()?;
        self.take(length).map(Bytes)
    }
}

fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(bytes)
        .map_err(|_| Unreadable::new("it holds text that is not UTF-8, which JSON cannot have: use format: Archive"))
}

struct Writer<'a> {
    out: &'a mut String,
    counts: &'a mut TypeCounts,
}

impl Writer<'_> {
    /// The elements of a document or array, which `document` is to the byte.
    fn members(&mut self, document: &mut Bytes<'_>, array: bool, depth: usize) -> Result<(), Unreadable> {
        if depth > MAX_DEPTH {
            return Err(Unreadable::new(format!("it is deeper than {MAX_DEPTH} levels")));
        }
        document.length()?;
        self.out.push(if array { '[' } else { '{' });
        let mut first = true;
        loop {
            let element = document.byte()?;
            if element == 0 {
                break;
            }
            let name = document.name()?;
            if !std::mem::take(&mut first) {
                self.out.push(',');
            } else if !array && FORMS.contains(&name) {
                return Err(Unreadable::new(format!(
                    "it has a field {name} that stands for a type in JSON: use format: Archive"
                )));
            }
            if !array {
                self.quoted(name);
                self.out.push(':');
            }
            self.value(element, document, depth)?;
        }
        self.out.push(if array { ']' } else { '}' });
        if document.0.is_empty() { Ok(()) } else { Err(damaged()) }
    }

    fn value(&mut self, element: u8, bytes: &mut Bytes<'_>, depth: usize) -> Result<(), Unreadable> {
        self.counts.0[usize::from(element)] += 1;
        match element {
            kind::DOUBLE => {
                let value = f64::from_bits(bytes.int64()?.cast_unsigned());
                self.form("$numberDouble", &double(value));
            }
            kind::STRING => {
                let value = bytes.string()?;
                self.quoted(value);
            }
            kind::DOCUMENT => self.members(&mut bytes.document()?, false, depth + 1)?,
            kind::ARRAY => self.members(&mut bytes.document()?, true, depth + 1)?,
            kind::BINARY => self.binary(bytes)?,
            kind::UNDEFINED => self.out.push_str(r#"{"$undefined":true}"#),
            kind::OBJECT_ID => {
                let id = bytes.array()?;
                self.object_id(id);
            }
            kind::BOOLEAN => self.out.push_str(match bytes.byte()? {
                0 => "false",
                1 => "true",
                _ => return Err(damaged()),
            }),
            kind::DATE => {
                let value = bytes.int64()?;
                self.write(format_args!(r#"{{"$date":{{"$numberLong":"{value}"}}}}"#));
            }
            kind::NULL => self.out.push_str("null"),
            kind::REGEX => {
                let (pattern, options) = (bytes.name()?, bytes.name()?);
                self.out.push_str(r#"{"$regularExpression":{"pattern":"#);
                self.quoted(pattern);
                self.out.push_str(r#","options":"#);
                self.quoted(options);
                self.out.push_str("}}");
            }
            kind::DB_POINTER => {
                let (namespace, id) = (bytes.string()?, bytes.array()?);
                self.out.push_str(r#"{"$dbPointer":{"$ref":"#);
                self.quoted(namespace);
                self.out.push_str(r#","$id":"#);
                self.object_id(id);
                self.out.push_str("}}");
            }
            kind::CODE => self.form("$code", bytes.string()?),
            kind::SYMBOL => self.form("$symbol", bytes.string()?),
            kind::CODE_WITH_SCOPE => {
                let mut whole = bytes.document()?;
                whole.length()?;
                let code = whole.string()?;
                self.out.push_str(r#"{"$code":"#);
                self.quoted(code);
                self.out.push_str(r#","$scope":"#);
                self.members(&mut whole, false, depth + 1)?;
                self.out.push('}');
            }
            kind::INT32 => {
                let value = bytes.int32()?;
                self.write(format_args!(r#"{{"$numberInt":"{value}"}}"#));
            }
            kind::TIMESTAMP => {
                let (increment, time) = (bytes.uint32()?, bytes.uint32()?);
                self.write(format_args!(r#"{{"$timestamp":{{"t":{time},"i":{increment}}}}}"#));
            }
            kind::INT64 => {
                let value = bytes.int64()?;
                self.write(format_args!(r#"{{"$numberLong":"{value}"}}"#));
            }
            kind::DECIMAL => {
                let value = bson::Decimal128::from_bytes(bytes.array()?);
                self.form("$numberDecimal", &value.to_string());
            }
            kind::MAX_KEY => self.out.push_str(r#"{"$maxKey":1}"#),
            kind::MIN_KEY => self.out.push_str(r#"{"$minKey":1}"#),
            _ => return Err(Unreadable::new(format!("it has a value of the unknown type {element:#04x}"))),
        }
        Ok(())
    }

    fn binary(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Unreadable> {
        let length = bytes.length()?;
        let subtype = bytes.byte()?;
        let mut data = Bytes(bytes.take(length)?);
        if subtype == OLD_BINARY && data.length()? != data.0.len() {
            return Err(damaged());
        }
        self.out.push_str(r#"{"$binary":{"base64":""#);
        STANDARD.encode_string(data.0, self.out);
        self.write(format_args!(r#"","subType":"{subtype:02x}"}}}}"#));
        Ok(())
    }

    fn object_id(&mut self, id: [u8; 12]) {
        self.out.push_str(r#"{"$oid":""#);
        for byte in id {
            self.write(format_args!("{byte:02x}"));
        }
        self.out.push_str("\"}");
    }

    /// A form with one text.
    fn form(&mut self, name: &str, value: &str) {
        self.write(format_args!("{{\"{name}\":"));
        self.quoted(value);
        self.out.push('}');
    }

    fn quoted(&mut self, text: &str) {
        self.out.push('"');
        let mut written = 0;
        for (at, byte) in text.bytes().enumerate() {
            let escaped = match byte {
                b'"' => "\\\"",
                b'\\' => "\\\\",
                b'\n' => "\\n",
                b'\r' => "\\r",
                b'\t' => "\\t",
                0..0x20 => "",
                _ => continue,
            };
            self.out.push_str(&text[written..at]);
            if escaped.is_empty() {
                self.write(format_args!("\\u{byte:04x}"));
            } else {
                self.out.push_str(escaped);
            }
            written = at + 1;
        }
        self.out.push_str(&text[written..]);
        self.out.push('"');
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.out.write_fmt(text);
    }
}

/// The shortest text that reads back as the same number.
fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let plain = format!("{value:?}");
    match plain.split_once('e') {
        None => plain,
        Some((digits, exponent)) => {
            let digits = if digits.contains('.') { digits.to_owned() } else { format!("{digits}.0") };
            let sign = if exponent.starts_with('-') { "" } else { "+" };
            format!("{digits}E{sign}{exponent}")
        }
    }
}

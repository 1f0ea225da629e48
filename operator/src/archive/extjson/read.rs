//! Extended JSON to BSON. Pure.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{FORMS, OLD_BINARY, Unreadable, kind};

/// Reads one document. Plain numbers are taken too: whole ones as the smallest integer that holds them, others as doubles.
///
/// # Errors
/// Where the text is no JSON object, or has a form of Extended JSON that is not as it should be.
pub fn read_document(text: &str) -> Result<Vec<u8>, Unreadable> {
    let json: Json = serde_json::from_str(text).map_err(|e| Unreadable::new(format!("it is no JSON: {e}")))?;
    let Json::Object(members) = json else { return Err(Unreadable::new("it is no JSON object")) };
    let mut out = Vec::with_capacity(text.len());
    document(&members, &mut out)?;
    Ok(out)
}

/// JSON with the order of its members kept.
enum Json {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Json, E> {
        i64::try_from(value).map(Json::Integer).map_err(|_| E::custom("a whole number beyond 64 bits"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

fn document(members: &[(String, Json)], out: &mut Vec<u8>) -> Result<(), Unreadable> {
    framed(out, |out| members.iter().try_for_each(|(name, json)| element(name, json, out)))
}

/// What `fill` writes, as a document with its length and its end.
fn framed(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), Unreadable>) -> Result<(), Unreadable> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out)?;
    out.push(0);
    let length = length(out.len() - start)?;
    out[start..start + 4].copy_from_slice(&length);
    Ok(())
}

fn length(length: usize) -> Result<[u8; 4], Unreadable> {
    i32::try_from(length).map(i32::to_le_bytes).map_err(|_| Unreadable::new("it is too long for a document"))
}

fn element(name: &str, json: &Json, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let place = out.len();
    out.push(0);
    cstring(name, out)?;
    out[place] = value(json, out)?;
    Ok(())
}

fn cstring(text: &str, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    if text.contains('\0') {
        return Err(Unreadable::new("a field's name or a pattern has a zero in it"));
    }
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    Ok(())
}

fn string(text: &str, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    out.extend_from_slice(&length(text.len() + 1)?);
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    Ok(())
}

/// Writes a value and returns its type.
fn value(json: &Json, out: &mut Vec<u8>) -> Result<u8, Unreadable> {
    Ok(match json {
        Json::Null => kind::NULL,
        Json::Boolean(value) => {
            out.push(u8::from(*value));
            kind::BOOLEAN
        }
        Json::Integer(value) => {
            if let Ok(small) = i32::try_from(*value) {
                out.extend_from_slice(&small.to_le_bytes());
                kind::INT32
            } else {
                out.extend_from_slice(&value.to_le_bytes());
                kind::INT64
            }
        }
        Json::Number(value) => {
            out.extend_from_slice(&value.to_le_bytes());
            kind::DOUBLE
        }
        Json::Text(text) => {
            string(text, out)?;
            kind::STRING
        }
        Json::Array(values) => {
            framed(out, |out| {
                values.iter().enumerate().try_for_each(|(index, json)| element(&index.to_string(), json, out))
            })?;
            kind::ARRAY
        }
        Json::Object(members) => match members.first() {
            Some((name, _)) if FORMS.contains(&name.as_str()) => {
                form(members, out).ok_or_else(|| Unreadable::new(format!("its {name} is not as it should be")))??
            }
            _ => {
                document(members, out)?;
                kind::DOCUMENT
            }
        },
    })
}

/// Writes what a form stands for; none where it is not as it should be.
fn form(members: &[(String, Json)], out: &mut Vec<u8>) -> Option<Result<u8, Unreadable>> {
    let [(name, first), rest @ ..] = members else { return None };
    let scope = match rest {
        [] => None,
        [(scope, Json::Object(scope_members))] if name == "$code" && scope == "$scope" => Some(scope_members),
        _ => return None,
    };
    let kind = match (name.as_str(), first) {
        ("$oid", Json::Text(hex)) => {
            out.extend_from_slice(&object_id(hex)?);
            kind::OBJECT_ID
        }
        ("$symbol", Json::Text(text)) => return Some(string(text, out).map(|()| kind::SYMBOL)),
        ("$numberInt", Json::Text(text)) => {
            out.extend_from_slice(&i32::from_str(text).ok()?.to_le_bytes());
            kind::INT32
        }
        ("$numberLong", Json::Text(text)) => {
            out.extend_from_slice(&i64::from_str(text).ok()?.to_le_bytes());
            kind::INT64
        }
        ("$numberDouble", Json::Text(text)) => {
            out.extend_from_slice(&f64::from_str(text).ok()?.to_le_bytes());
            kind::DOUBLE
        }
        ("$numberDecimal", Json::Text(text)) => {
            out.extend_from_slice(&bson::Decimal128::from_str(text).ok()?.bytes());
            kind::DECIMAL
        }
        ("$binary", Json::Object(parts)) => return binary(parts, out),
        ("$code", Json::Text(code)) => {
            return Some(match scope {
                None => string(code, out).map(|()| kind::CODE),
                Some(scope) => code_with_scope(code, scope, out),
            });
        }
        ("$timestamp", Json::Object(parts)) => {
            let [(t, Json::Integer(time)), (i, Json::Integer(increment))] = parts.as_slice() else { return None };
            if t != "t" || i != "i" {
                return None;
            }
            out.extend_from_slice(&u32::try_from(*increment).ok()?.to_le_bytes());
            out.extend_from_slice(&u32::try_from(*time).ok()?.to_le_bytes());
            kind::TIMESTAMP
        }
        ("$regularExpression", Json::Object(parts)) => {
            let pattern = text_of(parts, "pattern")?;
            let options = text_of(parts, "options")?;
            let written = cstring(pattern, out).and_then(|()| cstring(options, out));
            return (parts.len() == 2).then_some(written.map(|()| kind::REGEX));
        }
        ("$dbPointer", Json::Object(parts)) => {
            let [(reference, Json::Text(namespace)), (key, Json::Object(id))] = parts.as_slice() else { return None };
            let [(oid, Json::Text(hex))] = id.as_slice() else { return None };
            if reference != "$ref" || key != "$id" || oid != "$oid" {
                return None;
            }
            let id = object_id(hex)?;
            if let Err(e) = string(namespace, out) {
                return Some(Err(e));
            }
            out.extend_from_slice(&id);
            kind::DB_POINTER
        }
        ("$date", when) => {
            let millis = match when {
                Json::Object(parts) => match parts.as_slice() {
                    [(long, Json::Text(text))] if long == "$numberLong" => i64::from_str(text).ok()?,
                    _ => return None,
                },
                Json::Text(text) => jiff::Timestamp::from_str(text).ok()?.as_millisecond(),
                _ => return None,
            };
            out.extend_from_slice(&millis.to_le_bytes());
            kind::DATE
        }
        ("$minKey", Json::Integer(1)) => kind::MIN_KEY,
        ("$maxKey", Json::Integer(1)) => kind::MAX_KEY,
        ("$undefined", Json::Boolean(true)) => kind::UNDEFINED,
        _ => return None,
    };
    Some(Ok(kind))
}

fn text_of<'a>(members: &'a [(String, Json)], name: &str) -> Option<&'a str> {
    members.iter().find_map(|(key, json)| match json {
        Json::Text(text) if key == name => Some(text.as_str()),
        _ => None,
    })
}

fn object_id(hex: &str) -> Option<[u8; 12]> {
    if hex.len() != 24 || !hex.is_ascii() {
        return None;
    }
    let mut id = [0; 12];
    for (index, byte) in id.iter_mut().enumerate() {
        *byte = hex_byte(hex.get(2 * index..2 * index + 2)?)?;
    }
    Some(id)
}

fn hex_byte(hex: &str) -> Option<u8> {
    hex.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u8::from_str_radix(hex, 16).ok())?
}

fn binary(parts: &[(String, Json)], out: &mut Vec<u8>) -> Option<Result<u8, Unreadable>> {
    let data = STANDARD.decode(text_of(parts, "base64")?).ok()?;
    let subtype = text_of(parts, "subType")?;
    if parts.len() != 2 || !(1..=2).contains(&subtype.len()) {
        return None;
    }
    let subtype = hex_byte(subtype)?;
    let inner = if subtype == OLD_BINARY { 4 } else { 0 };
    let lengths = length(data.len() + inner).and_then(|outer| Ok((outer, length(data.len())?)));
    let (outer, again) = match lengths {
        Ok(lengths) => lengths,
        Err(e) => return Some(Err(e)),
    };
    out.extend_from_slice(&outer);
    out.push(subtype);
    out.extend_from_slice(&again[..inner]);
    out.extend_from_slice(&data);
    Some(Ok(kind::BINARY))
}

fn code_with_scope(code: &str, scope: &[(String, Json)], out: &mut Vec<u8>) -> Result<u8, Unreadable> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    string(code, out)?;
    document(scope, out)?;
    let whole = length(out.len() - start)?;
    out[start..start + 4].copy_from_slice(&whole);
    Ok(kind::CODE_WITH_SCOPE)
}

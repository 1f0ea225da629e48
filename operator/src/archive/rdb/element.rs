//! The beginnings of what an RDB consists of: lengths and strings. Pure. Each is none where it is not all there yet.

/// The beginning of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// So many bytes of it follow.
    Plain(u64),
    /// It is a number.
    Integer(i32),
    /// So many compressed bytes of it follow, which were so many.
    Lzf(u64, u64),
}

/// A length, or the special encoding of a string.
enum Length {
    Of(u64),
    Encoding(u8),
}

/// The beginning of a string, and its bytes.
///
/// # Errors
/// Where it is none: why.
pub(super) fn head(bytes: &[u8]) -> Result<Option<(usize, Head)>, String> {
    let Some((taken, length)) = length_or_encoding(bytes)? else { return Ok(None) };
    let rest = &bytes[taken..];
    let encoding = match length {
        Length::Of(length) => return Ok(Some((taken, Head::Plain(length)))),
        Length::Encoding(encoding) => encoding,
    };
    match encoding {
        0 => Ok(rest.first().map(|byte| (taken + 1, Head::Integer(i32::from(byte.cast_signed()))))),
        1 => Ok(rest.first_chunk().map(|bytes| (taken + 2, Head::Integer(i32::from(i16::from_le_bytes(*bytes)))))),
        2 => Ok(rest.first_chunk().map(|bytes| (taken + 4, Head::Integer(i32::from_le_bytes(*bytes))))),
        3 => {
            let Some((first, compressed)) = self::length(rest)? else { return Ok(None) };
            let Some((second, plain)) = self::length(&rest[first..])? else { return Ok(None) };
            Ok(Some((taken + first + second, Head::Lzf(compressed, plain))))
        }
        _ => Err(format!("a string has the encoding {encoding}, which is not known")),
    }
}

/// A length, or another number written as one, and its bytes.
///
/// # Errors
/// Where it is none: why.
pub(super) fn length(bytes: &[u8]) -> Result<Option<(usize, u64)>, String> {
    match length_or_encoding(bytes)? {
        Some((taken, Length::Of(length))) => Ok(Some((taken, length))),
        Some((_, Length::Encoding(_))) => Err("a string stands where only a number can be".to_owned()),
        None => Ok(None),
    }
}

fn length_or_encoding(bytes: &[u8]) -> Result<Option<(usize, Length)>, String> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let big_endian = |length: usize| {
        let big = rest.get(..length)?;
        Some((1 + length, Length::Of(big.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))))
    };
    match first >> 6 {
        0 => Ok(Some((1, Length::Of(u64::from(first))))),
        1 => Ok(rest.first().map(|low| (2, Length::Of(u64::from(first & 0x3f) << 8 | u64::from(*low))))),
        2 if first == 0x80 => Ok(big_endian(4)),
        2 if first == 0x81 => Ok(big_endian(8)),
        2 => Err(format!("a byte {first} begins no length")),
        _ => Ok(Some((1, Length::Encoding(first & 0x3f)))),
    }
}

/// Name of a module's type: nine characters of 6 bits, behind which a version has 10.
pub(super) fn module_type(id: u64) -> String {
    (0..9).map(|at| character(id >> (58 - 6 * at))).collect()
}

/// A kind of metadata that a module keeps beside keys, as it is packed: the name that servers give it, four characters of 6 bits behind
/// `META-`, and whether a server that does not know it may leave it out. Between the two a version has 5 bits.
pub(super) fn metadata_class(packed: u32) -> (String, bool) {
    let name: String = (0..4).map(|at| character(u64::from(packed) >> (26 - 6 * at))).collect();
    (format!("META-{name}"), packed & 1 == 1)
}

/// One of the characters that names in RDB consist of: the last 6 bits.
fn character(bits: u64) -> char {
    const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char::from(CHARACTERS[usize::try_from(bits & 63).unwrap_or(0)])
}

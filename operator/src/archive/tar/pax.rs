//! The records of an extended header: `<length> <keyword>=<value>\n`. Pure.

/// Keyword and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Appends a record. The length counts the whole record, itself included.
pub(super) fn push(records: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + decimal_digits(length) {
        length = rest + decimal_digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(keyword);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The records of a header, in their order.
///
/// # Errors
/// Where the bytes are no such records.
pub(super) fn parse(mut records: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
    let mut parsed = Vec::new();
    while !records.is_empty() {
        let space = records.iter().take(20).position(|b| *b == b' ').ok_or("a pax record has no length")?;
        let length = std::str::from_utf8(&records[..space])
            .ok()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse::<usize>().ok())
            .ok_or("the length of a pax record is no number")?;
        if length > records.len() || length < space + 3 || records[length - 1] != b'\n' {
            return Err("a pax record is longer or shorter than it says");
        }
        let record = &records[space + 1..length - 1];
        let equals =
            record.iter().position(|b| *b == b'=').filter(|at| *at > 0).ok_or("a pax record has no keyword")?;
        parsed.push((&record[..equals], &record[equals + 1..]));
        records = &records[length..];
    }
    Ok(parsed)
}

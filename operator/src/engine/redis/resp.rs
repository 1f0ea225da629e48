//! RESP, in which Redis is spoken to: commands out, replies in. Pure. Source: "Redis serialization protocol specification", version 2.

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+OK`.
    Simple(String),
    /// `-ERR …`, without the `-`.
    Error(String),
    /// `:1`.
    Integer(i64),
    /// A string, or nothing.
    Bulk(Option<Vec<u8>>),
    /// Several, or nothing.
    Array(Option<Vec<Reply>>),
}

/// Longer than any answer to what is asked here.
const LONGEST: usize = 64 << 20;
/// Deeper than any answer to what is asked here.
const DEEPEST: usize = 8;

impl Reply {
    /// Its text, where it is one.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Simple(text) => Some(text.clone()),
            Self::Bulk(Some(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Its elements, where it has any.
    pub fn elements(&self) -> &[Self] {
        match self {
            Self::Array(Some(elements)) => elements,
            _ => &[],
        }
    }

    /// The first reply in `bytes` and how many of them it takes; none where it is not all there.
    ///
    /// # Errors
    /// Where this is not RESP: what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        parse(bytes, 0)
    }
}

fn parse(bytes: &[u8], depth: usize) -> Result<Option<(Reply, usize)>, String> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        if bytes.len() > LONGEST || bytes.first().is_some_and(|first| !b"+-:$*".contains(first)) {
            return Err(strange(bytes));
        }
        return Ok(None);
    };
    let (line, mut taken) = (&bytes[..end], end + 1);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some((&kind, rest)) = line.split_first() else { return Err(strange(bytes)) };
    let text = || String::from_utf8_lossy(rest).into_owned();
    let number = || std::str::from_utf8(rest).ok().and_then(|digits| digits.parse::<i64>().ok());
    let reply = match kind {
        b'+' => Reply::Simple(text()),
        b'-' => Reply::Error(text()),
        b':' => Reply::Integer(number().ok_or_else(|| strange(bytes))?),
        b'$' => match usize::try_from(number().ok_or_else(|| strange(bytes))?) {
            Err(_) => Reply::Bulk(None),
            Ok(length) if length > LONGEST => return Err(strange(bytes)),
            Ok(length) => {
                let Some(body) = bytes.get(taken..taken + length + 2) else { return Ok(None) };
                taken += body.len();
                Reply::Bulk(Some(body[..length].to_vec()))
            }
        },
        b'*' => match usize::try_from(number().ok_or_else(|| strange(bytes))?) {
            Err(_) => Reply::Array(None),
            Ok(_) if depth == DEEPEST => return Err(strange(bytes)),
            Ok(count) => {
                let mut elements = Vec::new();
                for _ in 0..count {
                    let Some((element, length)) = parse(&bytes[taken..], depth + 1)? else { return Ok(None) };
                    taken += length;
                    elements.push(element);
                }
                Reply::Array(Some(elements))
            }
        },
        _ => return Err(strange(bytes)),
    };
    Ok(Some((reply, taken)))
}

fn strange(bytes: &[u8]) -> String {
    let beginning = &bytes[..bytes.len().min(40)];
    format!("it does not speak Redis' protocol: it sent {:?}", String::from_utf8_lossy(beginning))
}

/// Appends a command.
pub(super) fn command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    header(out, b'*', arguments.len());
    for argument in arguments {
        bulk(out, argument);
    }
}

/// Appends an argument.
pub(super) fn bulk(out: &mut Vec<u8>, argument: &[u8]) {
    header(out, b'$', argument.len());
    out.extend_from_slice(argument);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line before elements or bytes.
pub(super) fn header(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    out.extend_from_slice(count.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replies_are_read_only_once_they_are_whole() {
        let bytes = b"*3\r\n:7\r\n$2\r\nab\r\n*2\r\n$-1\r\n+OK\r\nrest";
        let whole = bytes.len() - 4;
        for cut in 0..whole {
            assert_eq!(Reply::parse(&bytes[..cut]).unwrap(), None, "cut at {cut}");
        }
        let (reply, taken) = Reply::parse(bytes).unwrap().unwrap();
        assert_eq!(taken, whole);
        let inner = Reply::Array(Some(vec![Reply::Bulk(None), Reply::Simple("OK".into())]));
        assert_eq!(reply, Reply::Array(Some(vec![Reply::Integer(7), Reply::Bulk(Some(b"ab".to_vec())), inner])));
        assert_eq!(Reply::parse(b"-ERR no\r\n").unwrap().unwrap().0, Reply::Error("ERR no".into()));
    }

    #[test]
    fn what_is_no_resp_is_said_so() {
        for bytes in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"\x15\x03\x01", b"$x\r\n", b":\r\n", b"$99999999999\r\n"] {
            assert!(Reply::parse(bytes).unwrap_err().contains("does not speak"), "{bytes:?}");
        }
        assert!(Reply::parse(&b"*1\r\n".repeat(20)).is_err(), "endless nesting");
    }

    #[test]
    fn commands_are_written_with_their_lengths() {
        let mut out = Vec::new();
        command(&mut out, &[b"SET", b"k\r\n", b""]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$0\r\n\r\n");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(prop::sample::select(b"*$:+-0123\r\nab".to_vec()), 0..60)) {
            let _ = Reply::parse(&bytes);
        }
    }
}

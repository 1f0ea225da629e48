//! LZF, with which Redis compresses strings. Pure. Source of the format: liblzf's `lzf_d.c`.

/// The `length` bytes that were compressed; none where `compressed` does not hold just these.
pub(super) fn decompress(compressed: &[u8], length: usize) -> Option<Vec<u8>> {
    // Three bytes hold at most 264: what claims more is a lie and is given no memory.
    if length > compressed.len().saturating_mul(264) {
        return None;
    }
    let mut plain = Vec::with_capacity(length);
    let mut rest = compressed;
    while let Some((&control, behind)) = rest.split_first() {
        let control = usize::from(control);
        if control < 32 {
            let literal = behind.get(..=control)?;
            plain.extend_from_slice(literal);
            rest = &behind[literal.len()..];
            continue;
        }
        let (run, behind) = match control >> 5 {
            7 => (7 + usize::from(*behind.first()?), &behind[1..]),
            short => (short, behind),
        };
        let (&low, behind) = behind.split_first()?;
        let distance = ((control & 0x1f) << 8 | usize::from(low)) + 1;
        let start = plain.len().checked_sub(distance)?;
        if plain.len() + run + 2 > length {
            return None;
        }
        // The run may reach into itself.
        for at in start..start + run + 2 {
            plain.push(plain[at]);
        }
        rest = behind;
    }
    (plain.len() == length).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_runs_are_put_together() {
        assert_eq!(decompress(&[2, b'a', b'b', b'c'], 3).unwrap(), b"abc");
        // `ab`, then 2 + 7 bytes from two back.
        assert_eq!(decompress(&[1, b'a', b'b', 0xe0, 0, 1], 11).unwrap(), b"abababababa");
        // The same shorter.
        assert_eq!(decompress(&[0, b'a', 0x20, 0], 4).unwrap(), b"aaaa");
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(decompress(&[2, b'a'], 3), None, "a literal that is cut off");
        assert_eq!(decompress(&[0, b'a', 0x20, 9], 4), None, "a run from before the beginning");
        assert_eq!(decompress(&[0, b'a'], 2), None, "too short");
        assert_eq!(decompress(&[0, b'a', 0xe0], 2), None, "a run that is cut off");
        assert_eq!(decompress(&[0], usize::MAX), None, "a length that cannot be");
    }
}

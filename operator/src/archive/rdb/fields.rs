//! Expiries of the fields of a hash: when the last one goes, and the key with it. Pure.

/// What has been seen of the hash that is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// What relative expiries are counted from.
    base: i64,
    /// The latest so far; none where there is no field yet.
    latest: Option<i64>,
    /// A field stays.
    stays: bool,
}

impl Fields {
    /// Relative expiries follow: 1 is `base`.
    pub(super) fn begin(&mut self, base: i64) {
        self.base = base.saturating_sub(1);
    }

    /// A field's expiry as a number from there on.
    pub(super) fn relative(&mut self, ttl: u64) {
        match ttl {
            0 => self.stays = true,
            _ => self.absolute(self.base.saturating_add(i64::try_from(ttl).unwrap_or(i64::MAX)).max(0)),
        }
    }

    /// A field's expiry; negative: it stays.
    pub(super) fn absolute(&mut self, at: i64) {
        self.stays |= at < 0;
        self.latest = self.latest.max(Some(at));
    }

    /// All fields, in a listpack that has the latest expiry at its end, behind which only those stand that stay (0). One that is not
    /// understood may go at any time, and is not known to be gone at any.
    pub(super) fn list(&mut self, listpack: &[u8]) {
        match last_number(listpack) {
            Some(0) => self.stays = true,
            Some(at) if at > 0 => self.absolute(at),
            _ => self.absolute(i64::MAX),
        }
    }

    /// When the last of them goes; none where one stays, or none is known of.
    pub(super) fn lapse(self) -> Option<i64> {
        self.latest.filter(|_| !self.stays)
    }
}

/// The last element of a listpack, where it is a number. Source of the format: Redis' `listpack.c`.
fn last_number(listpack: &[u8]) -> Option<i64> {
    let (&0xff, entries) = listpack.split_last()? else { return None };
    // Its length stands behind it; numbers are short.
    let (&length, entries) = entries.split_last()?;
    let entry = &entries[entries.len().checked_sub(usize::from(length))?..];
    let (&first, rest) = entry.split_first()?;
    let little = |bytes: &[u8]| {
        let sign = bytes.last().map_or(0, |last| if last & 0x80 == 0 { 0 } else { 0xff });
        let mut wide = [sign; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        i64::from_le_bytes(wide)
    };
    match (first, rest.len()) {
        (0..=0x7f, 0) => Some(i64::from(first)),
        (0xc0..=0xdf, 1) => {
            let bits = i64::from(first & 0x1f) << 8 | i64::from(rest[0]);
            Some(if bits < 1 << 12 { bits } else { bits - (1 << 13) })
        }
        (0xf1, 2) | (0xf2, 3) | (0xf3, 4) | (0xf4, 8) => Some(little(rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_goes_with_the_last_of_its_fields() {
        let mut relative = Fields::default();
        relative.begin(1000);
        relative.relative(1);
        relative.relative(501);
        assert_eq!(relative.lapse(), Some(1500));
        relative.relative(0);
        assert_eq!(relative.lapse(), None);
        let mut absolute = Fields::default();
        assert_eq!(absolute.lapse(), None, "it has no field");
        absolute.absolute(7);
        absolute.absolute(5);
        assert_eq!(absolute.lapse(), Some(7));
        absolute.absolute(-1);
        assert_eq!(absolute.lapse(), None);
    }

    #[test]
    fn the_last_expiry_of_a_listpack_is_read() {
        // Of Redis 8.6: fields a and b, which both expire; and one of which one stays.
        let expires = b"\xf4\xf6\x21\xac\x2e\xa2\x01\x00\x00\x09\xff";
        let at = i64::from_le_bytes([0xf6, 0x21, 0xac, 0x2e, 0xa2, 1, 0, 0]);
        let lapse = |listpack: &[u8]| {
            let mut fields = Fields::default();
            fields.list(listpack);
            fields.lapse()
        };
        assert_eq!(lapse(expires), Some(at));
        assert_eq!(lapse(b"\x81b\x02\x02\x01\x00\x01\xff"), None);
        for unreadable in [&b""[..], b"\xff", b"\x09\xff", b"\x81b\x02\xff", b"\xf4\x01\x02\xff", b"\x00\x01\xfe"] {
            assert_eq!(lapse(unreadable), Some(i64::MAX), "{unreadable:?}");
        }
        assert_eq!(last_number(b"\xdf\xff\x02\xff"), Some(-1));
        assert_eq!(last_number(b"\xf1\x00\x80\x03\xff"), Some(-32768));
    }
}

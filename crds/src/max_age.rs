//! `spec.maxAge` as it is written. Pure.

/// A parsed `maxAge`, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaxAge {
    /// Length in seconds.
    pub seconds: i64,
}

impl std::str::FromStr for MaxAge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || format!("{text:?} is not a number and a unit of m (minutes), h, d or w, such as 26h");
        let unit = text.chars().last().ok_or_else(refuse)?;
        let seconds = match unit {
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(refuse()),
        };
        let number = text.strip_suffix(unit).filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
        let number: i64 =
            number.and_then(|n| n.parse().ok()).filter(|n| (1..=99_999).contains(n)).ok_or_else(refuse)?;
        Ok(Self { seconds: number * seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_is_a_length() {
        for (text, seconds) in [("1m", 60), ("90m", 5400), ("26h", 93_600), ("8d", 691_200), ("2w", 1_209_600)] {
            assert_eq!(text.parse(), Ok(MaxAge { seconds }), "{text}");
        }
        for text in ["", "h", "0h", "-1h", "+1h", "26", "26 h", "1y", "1.5d", "100000h", "1h30m", "ä"] {
            let refused: Result<MaxAge, String> = text.parse();
            assert!(refused.is_err(), "{text:?} is taken");
        }
    }
}

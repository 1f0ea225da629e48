//! Patterns of collections: `orders_*`, `audit.log`, `shop.orders_?`. Pure.

/// Which collections are meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    /// Patterns of those that are; empty: all.
    pub include: &'a [String],
    /// Patterns of those that are not.
    pub exclude: &'a [String],
}

impl Choice<'_> {
    /// Whether a collection is meant. A pattern is held against its name, and against its name with the database's in front.
    pub fn takes(&self, database: &str, collection: &str) -> bool {
        let full = format!("{database}.{collection}");
        let any =
            |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, collection) || fits(pattern, &full));
        (self.include.is_empty() || any(self.include)) && !any(self.exclude)
    }

    /// Whether all collections are meant.
    pub fn takes_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// `*` stands for any characters and `?` for one.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and up to where it has taken the name.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_characters() {
        for (pattern, name) in [
            ("orders", "orders"),
            ("*", ""),
            ("*", "a.b"),
            ("o*s", "orders"),
            ("o*r*s", "orders"),
            ("*.log", "audit.log"),
            ("h?rte", "härte"),
            ("a**b", "ab"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("orders", "order"), ("?", ""), ("a*b", "abc"), ("", "a"), ("o*z*s", "orders"), ("a.c", "abc")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_left_out_wins() {
        let list = |patterns: &[&str]| patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
        let (include, exclude) = (list(&["shop.*", "users"]), list(&["*_tmp"]));
        let choice = Choice { include: &include, exclude: &exclude };
        assert!(choice.takes("shop", "orders"));
        assert!(choice.takes("forum", "users"));
        assert!(!choice.takes("forum", "posts"));
        assert!(!choice.takes("shop", "orders_tmp"));
    }
}

//! Which namespaces are known: everything in them has been listed. Each begins by itself; one that cannot be listed holds up no other. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// What one watch tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its namespace; none: all.
    pub scope: Option<String>,
    /// Its kind.
    pub kind: String,
    /// Whether it has listed everything; else it is refused, or has had no answer for long.
    pub listed: bool,
}

/// What follows from that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Everything in the namespace is known from now on.
    pub opened: bool,
    /// Nothing of what is known now is about to change for the reason that it is still being listed: told once.
    pub settled: bool,
}

/// How far the watches are.
pub struct Scopes {
    /// The kinds of each namespace that were not listed yet.
    unlisted: BTreeMap<Option<String>, BTreeSet<String>>,
    /// The watches that have told nothing yet.
    silent: BTreeSet<(Option<String>, String)>,
    is_settled: bool,
    is_any_open: bool,
}

impl Scopes {
    /// Nothing is known yet of these kinds in these namespaces.
    pub fn new(scopes: &[Option<String>], kinds: &[&str]) -> Self {
        let kinds: BTreeSet<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let watches = scopes.iter().flat_map(|scope| kinds.iter().map(move |kind| (scope.clone(), kind.clone())));
        Self {
            silent: watches.collect(),
            unlisted: scopes.iter().map(|scope| (scope.clone(), kinds.clone())).collect(),
            is_settled: false,
            is_any_open: false,
        }
    }

    /// Takes in what a watch tells.
    pub fn hear(&mut self, heard: &Heard) -> News {
        self.silent.remove(&(heard.scope.clone(), heard.kind.clone()));
        let mut news = News::default();
        if heard.listed
            && let Some(kinds) = self.unlisted.get_mut(&heard.scope)
        {
            kinds.remove(&heard.kind);
            if kinds.is_empty() {
                self.unlisted.remove(&heard.scope);
                self.is_any_open = true;
                news.opened = true;
            }
        }
        news.settled = !self.is_settled && self.is_any_open && self.silent.is_empty();
        self.is_settled |= news.settled;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(scope: &str, kind: &str, listed: bool) -> Heard {
        Heard { scope: Some(scope.to_owned()), kind: kind.to_owned(), listed }
    }

    #[test]
    fn each_namespace_begins_by_itself_and_a_lost_one_holds_up_no_other() {
        let both = [Some("a".to_owned()), Some("b".to_owned())];
        let mut scopes = Scopes::new(&both, &["Backup", "Job"]);
        let none = News::default();
        assert_eq!(scopes.hear(&heard("a", "Backup", true)), none);
        assert_eq!(scopes.hear(&heard("a", "Backup", true)), none, "it listed twice");
        assert_eq!(scopes.hear(&heard("b", "Backup", false)), none);
        assert_eq!(scopes.hear(&heard("a", "Job", true)), News { opened: true, settled: false });
        assert_eq!(scopes.hear(&heard("b", "Job", false)), News { opened: false, settled: true }, "all have spoken");
        assert_eq!(scopes.hear(&heard("b", "Job", true)), none);
        assert_eq!(scopes.hear(&heard("b", "Backup", true)), News { opened: true, settled: false }, "it is back");
        assert_eq!(scopes.hear(&heard("b", "Backup", true)), none);
    }

    #[test]
    fn who_may_list_nothing_at_all_knows_nothing() {
        let mut scopes = Scopes::new(&[None], &["Backup"]);
        let mut tell = |listed| scopes.hear(&Heard { scope: None, kind: "Backup".to_owned(), listed });
        assert_eq!(tell(false), News::default());
        assert_eq!(tell(true), News { opened: true, settled: true });
    }
}

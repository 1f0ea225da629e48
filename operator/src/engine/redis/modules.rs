//! Which modules bring what a backup holds. Pure.

use std::collections::BTreeSet;

/// Types of values and of data, with the names of the modules that bring them: any of these will do.
const KNOWN: [(&str, &[&str]); 14] = [
    ("ReJSON-RL", &["ReJSON", "json"]),
    ("MBbloom--", &["bf"]),
    ("MBbloomCF", &["bf"]),
    ("CMSk-TYPE", &["bf"]),
    ("TopK-TYPE", &["bf"]),
    ("TDIS-TYPE", &["bf"]),
    ("bloomfltr", &["bf"]),
    ("TSDB-TYPE", &["timeseries"]),
    ("vectorset", &["vectorset"]),
    ("ft_index0", &["search", "ft", "searchlight"]),
    ("ft_invidx", &["search", "ft", "searchlight"]),
    ("scdtype00", &["search", "ft", "searchlight"]),
    ("Vk-Search", &["search"]),
    ("graphdata", &["graph"]),
];

/// What must still be loaded so that the server takes values or data of these types: `search for ft_index0`. `source` are the modules of
/// the server that was saved.
pub(super) fn missing(types: &BTreeSet<String>, source: &BTreeSet<String>, loaded: &BTreeSet<String>) -> Vec<String> {
    let bringers = |name: &str| KNOWN.iter().find(|(known, _)| *known == name).map(|(_, modules)| *modules);
    let mut missing = BTreeSet::new();
    for name in types {
        if let Some(modules) = bringers(name) {
            if !modules.iter().any(|module| loaded.contains(*module)) {
                missing.insert(format!("{} for {name}", modules.join(" or ")));
            }
            continue;
        }
        // Nobody tells who brings it: one of those of which it is not known what they bring.
        let is_known = |module: &str| KNOWN.iter().any(|(_, modules)| modules.contains(&module));
        let mut wanted: Vec<&String> = source.iter().filter(|module| !is_known(module)).collect();
        if wanted.is_empty() {
            wanted = source.iter().collect();
        }
        if wanted.is_empty() && loaded.is_empty() {
            missing.insert(format!("any module, and so not the one for {name}"));
        }
        missing.extend(wanted.into_iter().filter(|module| !loaded.contains(*module)).cloned());
    }
    missing.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn only_what_is_needed_is_asked_for() {
        let source = names(&["ReJSON", "bf", "search", "timeseries", "vectorset", "own"]);
        let table: [(&[&str], &[&str], &[&str]); 7] = [
            (&[], &[], &[]),
            (&["ReJSON-RL"], &["ReJSON"], &[]),
            // Valkey's own.
            (&["ReJSON-RL"], &["json"], &[]),
            (&["ReJSON-RL", "TSDB-TYPE"], &["json"], &["timeseries for TSDB-TYPE"]),
            (&["ft_index0"], &["bf"], &["search or ft or searchlight for ft_index0"]),
            (&["META-hold"], &["own"], &[]),
            (&["META-hold"], &["bf"], &["own"]),
        ];
        for (types, loaded, expected) in table {
            assert_eq!(missing(&names(types), &source, &names(loaded)), expected, "{types:?}");
        }
        // The source did not say what it had loaded.
        assert_eq!(missing(&names(&["META-hold"]), &names(&[]), &names(&["own"])), [""; 0]);
        assert_eq!(missing(&names(&["META-hold"]), &names(&[]), &names(&[])).len(), 1);
    }
}

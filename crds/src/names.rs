//! Rules for names and patterns that stand in a spec: what the API server would refuse later, the kubelet would look for in vain, or a
//! worker would find out at night. Pure.

use kube::core::Rule;

/// A name that an object of Kubernetes can have.
pub(crate) fn object_name() -> Rule {
    Rule::new(format!("self.matches('{OBJECT}')")).message(OBJECT_MESSAGE)
}

/// As [`object_name`], for each entry of a list.
pub(crate) fn object_names() -> Rule {
    Rule::new(format!("self.all(n, n.matches('{OBJECT}'))")).message(OBJECT_MESSAGE)
}

/// A key that a Secret or a ConfigMap can have.
pub(crate) fn data_key() -> Rule {
    Rule::new("self.matches('^[-._A-Za-z0-9]+$') && self != '.' && self != '..'").message(
        "must be a key that a Secret or a ConfigMap can have: letters, digits, hyphens, underscores and dots, such as password",
    )
}

/// Globs whose brackets are closed. What this cannot see, braces and a range such as `z-a`, the controller tells: the API server weighs a
/// rule by its length and by that of all globs.
pub(crate) fn closed_globs() -> Rule {
    Rule::new(r"self.all(g, g.matches(r'^([^\[\\]|\\.|\[.[^\]]*\])*$'))").message(
        "a glob has a bracket that is not closed, or a backslash at its end: write a backslash before a character that is meant as it is",
    )
}

/// Globs of something in a volume.
pub(crate) fn globs_inside() -> Rule {
    Rule::new(r"self.all(g, !g.matches(r'^(\.?/)*\.?$|(^|/)\.\.(/|$)'))").message(
        "a glob must name something in the volume, such as photos or **/*.jpg: left out it is everything, and .. leads out of it",
    )
}

/// Patterns as `pg_dump --exclude-table` takes them: a regular expression with dots between names, and quotes.
pub(crate) fn table_patterns() -> Rule {
    let item = r#""[^"]*"|[^"\[\]()]|\[\^?\]?[^\]]*\]"#;
    Rule::new(format!(r"self.all(p, p.matches(r'^(?s:{item}|\(({item})*\))*$'))")).message(
        "a pattern of tables has a bracket, a parenthesis or a quote that is not closed: put a name with such characters in double quotes",
    )
}

/// Where a server is.
pub(crate) fn host() -> Rule {
    Rule::new(
        "self.matches('^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$') || self.matches('^([[][0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*[]]|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$')",
    )
    .message(
        "must be a host name or an address alone, without scheme, port and path, such as db.shop.svc, 10.0.0.7 or fd00::7",
    )
}

const OBJECT: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const OBJECT_MESSAGE: &str =
    "must be a name that an object can have: lower-case letters, digits, hyphens and dots, such as shop-db";

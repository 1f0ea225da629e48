//! Reads the grants, policies and names that pg_dump writes into a table of contents. Pure.

use std::ops::Range;

use crate::archive::table_name::{TableName, parse_identifier};

/// Whom a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// `PUBLIC`.
    Everybody,
    /// A role.
    Role(String),
    /// It is none of the statements that are known here.
    Unclear,
}

/// One `GRANT`, `REVOKE` or `ALTER DEFAULT PRIVILEGES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant<'a> {
    /// The statement, without its semicolon.
    pub text: &'a str,
    /// To or from whom.
    pub role: Named,
    /// In whose name, where that is not the owner's.
    pub grantor: Option<String>,
}

/// The statements that `keep` keeps; none: it keeps all of them.
pub(super) fn filter(definition: &str, mut keep: impl FnMut(&Grant<'_>) -> bool) -> Option<String> {
    let mut grantor: Option<String> = None;
    let mut kept = String::new();
    let mut all = true;
    for text in statements(definition) {
        if let Some(role) = text.strip_prefix("SET SESSION AUTHORIZATION ") {
            grantor = parse_identifier(role).map(|(name, _)| name);
        } else if text == "RESET SESSION AUTHORIZATION" {
            grantor = None;
        } else if keep(&Grant { text, role: grantee(text), grantor: grantor.clone() }) {
            match &grantor {
                Some(role) => {
                    let role = crate::archive::table_name::quote_identifier(role);
                    kept.extend([
                        "SET SESSION AUTHORIZATION ",
                        &role,
                        ";\n",
                        text,
                        ";\nRESET SESSION AUTHORIZATION;\n",
                    ]);
                }
                None => kept.extend([text, ";\n"]),
            }
        } else {
            all = false;
        }
    }
    (!all).then_some(kept)
}

/// Where `words` stand outside of quoted names and strings, the last time.
pub(super) fn outside_quotes(text: &str, words: &str) -> Option<usize> {
    let mut within: Option<u8> = None;
    let mut found = None;
    for (at, byte) in text.bytes().enumerate() {
        match (within, byte) {
            (Some(quote), byte) if quote == byte => within = None,
            (None, b'"' | b'\'') => within = Some(byte),
            (None, _) if text.as_bytes()[at..].starts_with(words.as_bytes()) => found = Some(at),
            _ => {}
        }
    }
    found
}

/// The list of roles in a policy's statement, and the roles. None: it is for everybody, or no policy.
pub(super) fn roles_of_policy(definition: &str) -> Option<(Range<usize>, Vec<String>)> {
    let (_, rest) = parse_identifier(definition.strip_prefix("CREATE POLICY ")?)?;
    let (_, rest) = TableName::parse_prefix(rest.strip_prefix(" ON ")?)?;
    let mut rest = rest.strip_prefix(" AS RESTRICTIVE").unwrap_or(rest);
    for command in [" FOR SELECT", " FOR INSERT", " FOR UPDATE", " FOR DELETE"] {
        rest = rest.strip_prefix(command).unwrap_or(rest);
    }
    rest = rest.strip_prefix(" TO ")?;
    let start = definition.len() - rest.len();
    let mut roles = Vec::new();
    loop {
        let (role, more) = parse_identifier(rest)?;
        roles.push(role);
        rest = more;
        match rest.strip_prefix(", ") {
            Some(another) => rest = another,
            None => return Some((start..definition.len() - rest.len(), roles)),
        }
    }
}

fn grantee(text: &str) -> Named {
    let word =
        if text.starts_with("REVOKE ") || outside_quotes(text, " REVOKE ").is_some() { " FROM " } else { " TO " };
    let Some(at) = outside_quotes(text, word) else { return Named::Unclear };
    let rest = &text[at + word.len()..];
    let rest = rest.strip_prefix("GROUP ").unwrap_or(rest);
    match parse_identifier(rest) {
        Some((name, _)) if name == "PUBLIC" && !rest.starts_with('"') => Named::Everybody,
        Some((name, _)) => Named::Role(name),
        None => Named::Unclear,
    }
}

/// Splits at the semicolons outside of quoted names and strings.
fn statements(text: &str) -> Vec<&str> {
    let (mut statements, mut start, mut within) = (Vec::new(), 0, None);
    for (at, byte) in text.bytes().enumerate() {
        match (within, byte) {
            (Some(quote), byte) if quote == byte => within = None,
            (None, b'"' | b'\'') => within = Some(byte),
            (None, b';') => {
                statements.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    statements.retain(|statement| !statement.is_empty());
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "REVOKE ALL ON TABLE public.\"t TO x;\" FROM app;\nGRANT SELECT ON TABLE public.\"t TO x;\" TO \"odd \"\" TO role\" WITH GRANT OPTION;\n\
        SET SESSION AUTHORIZATION giver;\nGRANT SELECT ON TABLE public.t TO reader;\nRESET SESSION AUTHORIZATION;\nGRANT ALL ON TABLE t TO PUBLIC;\n";

    #[test]
    fn grants_are_read_with_odd_names_and_with_those_who_gave_them() {
        let mut seen = Vec::new();
        assert_eq!(
            filter(TEXT, |grant| {
                seen.push((grant.role.clone(), grant.grantor.clone()));
                true
            }),
            None
        );
        let role = |name: &str| Named::Role(name.to_owned());
        assert_eq!(
            seen,
            [
                (role("app"), None),
                (role("odd \" TO role"), None),
                (role("reader"), Some("giver".to_owned())),
                (Named::Everybody, None)
            ]
        );
        let kept = filter(TEXT, |grant| grant.role == Named::Everybody || grant.grantor.is_some()).unwrap();
        assert_eq!(
            kept,
            "SET SESSION AUTHORIZATION giver;\nGRANT SELECT ON TABLE public.t TO reader;\nRESET SESSION AUTHORIZATION;\nGRANT ALL ON TABLE t TO PUBLIC;\n"
        );
        let defaults = "ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s REVOKE ALL ON FUNCTIONS FROM PUBLIC;\nALTER DEFAULT PRIVILEGES FOR ROLE a GRANT SELECT ON TABLES TO b;\n";
        let kept = filter(defaults, |grant| grant.role != role("b")).unwrap();
        assert!(kept.ends_with("FROM PUBLIC;\n"), "{kept}");
        assert_eq!(filter(defaults, |_| false).unwrap(), "");
    }

    #[test]
    fn the_roles_of_a_policy_are_found() {
        let policy = "CREATE POLICY \"p TO q\" ON public.\"odd; table\" AS RESTRICTIVE FOR SELECT TO a, \"B c\" USING ((x = ' TO d'::text));\n";
        let (list, roles) = roles_of_policy(policy).unwrap();
        assert_eq!((&policy[list], roles), ("a, \"B c\"", vec!["a".to_owned(), "B c".to_owned()]));
        assert_eq!(roles_of_policy("CREATE POLICY p ON public.t USING (true);\n"), None);
    }
}

//! Names of tables as SQL writes them: quoted where they must be. Pure.

use std::fmt;

/// A table with its schema, unquoted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Schema.
    pub schema: String,
    /// Table.
    pub table: String,
}

impl TableName {
    /// A name from its parts.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { schema: schema.into(), table: table.into() }
    }

    /// Reads `schema.table` at the start of `text`, each part quoted or not: the name, and what follows it. None where that is not what is
    /// there.
    pub fn parse_prefix(text: &str) -> Option<(Self, &str)> {
        let (schema, rest) = parse_identifier(text)?;
        let (table, rest) = parse_identifier(rest.strip_prefix('.')?)?;
        Some((Self { schema, table }, rest))
    }

    /// Reads a whole `schema.table`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_prefix(text).filter(|(_, rest)| rest.is_empty()).map(|(name, _)| name)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote_identifier(&self.schema), quote_identifier(&self.table))
    }
}

/// An identifier as SQL needs it: bare where that is safe, else in double quotes. The rule is that of the server's `quote_ident`.
pub fn quote_identifier(name: &str) -> String {
    let bare = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && KEYWORDS.binary_search(&name).is_err();
    if bare { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A string constant as SQL needs it, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// The rest of a quoted identifier, from behind its first quote: its name, and what follows its last quote. A doubled quote is one.
pub fn quoted_rest(text: &str) -> Option<(String, &str)> {
    let (mut name, mut rest) = (String::new(), text);
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

/// Reads an identifier at the start of `text`, quoted or not: its name, and what follows it.
pub fn parse_identifier(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix('"') {
        return quoted_rest(rest);
    }
    let end =
        text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii())).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

/// All key words but the unreserved ones, of all versions up to 18 (`pg_get_keywords()`), sorted.
const KEYWORDS: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "merge_action",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_key_words_are_sorted_so_that_the_search_finds_them() {
        assert!(KEYWORDS.is_sorted());
        assert_eq!(quote_identifier("order"), "\"order\"");
        assert_eq!(quote_identifier("orders"), "orders");
        assert_eq!(quote_identifier("Orders"), "\"Orders\"");
        assert_eq!(quote_identifier("1st"), "\"1st\"");
        assert_eq!(quote_identifier(""), "\"\"");
        assert_eq!(TableName::new("we\"ird", "a\nb-c").to_string(), "\"we\"\"ird\".\"a\nb-c\"");
    }

    #[test]
    fn literals_are_safe_with_quotes_and_backslashes() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), " E'a\\\\''b'");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "a", "a.", ".b", "\"a", "\"a\".\"b", "a b.c"] {
            assert_eq!(TableName::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn names_read_back(schema in "\\PC{1,20}", table in "[a-z\"\\n. -]{1,20}") {
            let name = TableName::new(schema, table);
            prop_assert_eq!(TableName::parse(&name.to_string()), Some(name.clone()));
            let statement = format!("{name} (a, b) FROM stdin");
            prop_assert_eq!(TableName::parse_prefix(&statement), Some((name, " (a, b) FROM stdin")));
        }
    }
}

//! What a database is besides its contents: encoding, locale, owner, settings, rights, roles. Asks the server; says it again in SQL.

use std::collections::BTreeMap;

use holdfast_crds::Reason;
use serde::{Deserialize, Serialize};

use super::server::Server;
use crate::archive::table_name::{quote_identifier, quote_literal};
use crate::task::Failure;

/// What a database is besides its contents. In a manifest it is the entry's `properties`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DatabaseFacts {
    /// Encoding of its text.
    pub encoding: String,
    /// Order of text (`lc_collate`).
    pub collate: String,
    /// Kinds of characters (`lc_ctype`).
    pub ctype: String,
    /// `c` (libc), `i` (ICU) or `b` (the server's own); null before version 15.
    pub locale_provider: Option<String>,
    /// Locale of that provider.
    pub locale: Option<String>,
    /// Its owner.
    pub owner: String,
    /// Most connections; -1: no limit.
    pub connection_limit: i64,
    /// Comment on it.
    pub comment: Option<String>,
    /// Settings of it, for all roles or for one.
    pub settings: Vec<Setting>,
    /// Rights on it; null: the usual ones.
    pub rights: Option<Vec<Right>>,
    /// Tablespaces that something in it lies in.
    pub tablespaces: Vec<String>,
    /// Roles that own something in it or were granted something in it.
    pub roles: Vec<String>,
    /// Its extensions.
    pub extensions: Vec<String>,
}

/// `ALTER DATABASE … SET …`, maybe for one role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    /// For this role only.
    pub role: Option<String>,
    /// `name=value`, each.
    pub values: Vec<String>,
}

/// One right on a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Right {
    /// Role; null: everybody.
    pub role: Option<String>,
    /// `CONNECT`, `CREATE` or `TEMPORARY`.
    pub privilege: String,
    /// With the right to pass it on.
    pub grantable: bool,
}

/// Roles are found by what the server records of their dependencies. Objects of extensions do not count: a dump leaves them out. The
/// first superuser is in no such record, so that its objects are looked for.
const FACTS: &str = "
SELECT pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate, d.datctype AS ctype,
  to_jsonb(d) ->> 'datlocprovider' AS locale_provider,
  coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale,
  pg_get_userbyid(d.datdba) AS owner, d.datconnlimit AS connection_limit, shobj_description(d.oid, 'pg_database') AS comment,
  (SELECT coalesce(json_agg(json_build_object('role', r.rolname, 'values', s.setconfig) ORDER BY r.rolname NULLS FIRST), '[]')
     FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
    WHERE s.setdatabase = d.oid AND (s.setrole = 0 OR r.oid IS NOT NULL)) AS settings,
  (SELECT json_agg(json_build_object('role', r.rolname, 'privilege', a.privilege_type, 'grantable', a.is_grantable)
                   ORDER BY r.rolname NULLS FIRST, a.privilege_type)
     FROM aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE a.grantee = 0 OR r.oid IS NOT NULL) AS rights,
  (SELECT coalesce(json_agg(DISTINCT r.rolname ORDER BY r.rolname), '[]') FROM pg_roles r WHERE r.oid IN (
     SELECT s.refobjid FROM pg_shdepend s
      WHERE s.refclassid = 'pg_authid'::regclass AND s.dbid = d.oid
        AND s.classid <> 'pg_extension'::regclass
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = s.classid AND e.objid = s.objid AND e.deptype = 'e'))
   OR r.oid = 10 AND EXISTS (
     SELECT FROM (SELECT 'pg_class'::regclass AS classid, oid, relowner AS owner FROM pg_class
            UNION ALL SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc
            UNION ALL SELECT 'pg_type'::regclass, oid, typowner FROM pg_type
            UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner FROM pg_largeobject_metadata
            UNION ALL SELECT 'pg_publication'::regclass, oid, pubowner FROM pg_publication
            UNION ALL SELECT 'pg_event_trigger'::regclass, oid, evtowner FROM pg_event_trigger
            UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxowner FROM pg_statistic_ext
            UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner FROM pg_foreign_data_wrapper
            UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner FROM pg_foreign_server
            UNION ALL SELECT 'pg_collation'::regclass, oid, collowner FROM pg_collation
            UNION ALL SELECT 'pg_conversion'::regclass, oid, conowner FROM pg_conversion
            UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgowner FROM pg_ts_config
            UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictowner FROM pg_ts_dict
            UNION ALL SELECT 'pg_operator'::regclass, oid, oprowner FROM pg_operator
            UNION ALL SELECT 'pg_opclass'::regclass, oid, opcowner FROM pg_opclass
            UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfowner FROM pg_opfamily
            UNION ALL SELECT 'pg_language'::regclass, oid, lanowner FROM pg_language
            UNION ALL SELECT 'pg_default_acl'::regclass, oid, defaclrole FROM pg_default_acl
            UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner FROM pg_namespace) o
      WHERE (o.oid >= 16384 OR o.classid = 'pg_largeobject'::regclass) AND o.owner = 10
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.classid AND e.objid = o.oid AND e.deptype = 'e'))
   OR r.oid = 10 AND EXISTS (
     SELECT FROM pg_namespace WHERE nspname = 'public' AND nspowner = 10 AND current_setting('server_version_num')::int >= 150000)) AS roles,
  (SELECT coalesce(json_agg(spcname ORDER BY spcname), '[]') FROM pg_tablespace
    WHERE oid IN (SELECT reltablespace FROM pg_class WHERE oid >= 16384)) AS tablespaces,
  (SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension WHERE extname <> 'plpgsql') AS extensions
FROM pg_database d WHERE d.datname = current_database()";

impl DatabaseFacts {
    /// Asks a database.
    pub async fn of(server: &Server, database: &str, reason: Reason) -> Result<Self, Failure> {
        server.ask_one(database, FACTS, reason).await
    }

    /// For a manifest. Roles and extensions have their own places there.
    pub fn to_properties(&self) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                properties.insert(name.to_owned(), value);
            }
        };
        put("encoding", Some(self.encoding.clone()));
        put("collate", Some(self.collate.clone()));
        put("ctype", Some(self.ctype.clone()));
        put("localeProvider", self.locale_provider.clone());
        put("locale", self.locale.clone());
        put("owner", Some(self.owner.clone()));
        put("connectionLimit", Some(self.connection_limit.to_string()));
        put("comment", self.comment.clone());
        put("tablespaces", serde_json::to_string(&self.tablespaces).ok());
        put("settings", serde_json::to_string(&self.settings).ok());
        put("rights", self.rights.as_ref().and_then(|rights| serde_json::to_string(rights).ok()));
        properties
    }

    /// From a manifest; what is not there is left at its default.
    pub fn from_properties(properties: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| properties.get(name).cloned();
        let json = |name: &str| properties.get(name).map_or("null", String::as_str);
        Self {
            encoding: get("encoding").unwrap_or_default(),
            collate: get("collate").unwrap_or_default(),
            ctype: get("ctype").unwrap_or_default(),
            locale_provider: get("localeProvider"),
            locale: get("locale"),
            owner: get("owner").unwrap_or_default(),
            connection_limit: get("connectionLimit").and_then(|limit| limit.parse().ok()).unwrap_or(-1),
            comment: get("comment"),
            settings: serde_json::from_str(json("settings")).unwrap_or_default(),
            rights: serde_json::from_str(json("rights")).unwrap_or_default(),
            tablespaces: serde_json::from_str(json("tablespaces")).unwrap_or_default(),
            roles: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// The statement that creates a database of this encoding and locale, empty.
    pub fn create_statement(&self, name: &str, server_major: u32) -> String {
        let mut statement = format!("CREATE DATABASE {} TEMPLATE template0", quote_identifier(name));
        let mut option = |what: &str, value: &str| {
            if !value.is_empty() {
                statement.extend([" ", what, " ", &quote_literal(value)]);
            }
        };
        option("ENCODING", &self.encoding);
        option("LC_COLLATE", &self.collate);
        option("LC_CTYPE", &self.ctype);
        if server_major >= 15 {
            match (self.locale_provider.as_deref(), self.locale.as_deref()) {
                (Some("i"), Some(locale)) => {
                    option("ICU_LOCALE", locale);
                    statement.push_str(" LOCALE_PROVIDER icu");
                }
                (Some("b"), Some(locale)) if server_major >= 17 => {
                    option("BUILTIN_LOCALE", locale);
                    statement.push_str(" LOCALE_PROVIDER builtin");
                }
                (Some("c"), _) => statement.push_str(" LOCALE_PROVIDER libc"),
                _ => {}
            }
        }
        statement
    }

    /// The roles that own the database itself or have settings or rights there, sorted.
    pub fn named_roles(&self) -> Vec<String> {
        let settings = self.settings.iter().filter_map(|setting| setting.role.clone());
        let rights = self.rights.iter().flatten().filter_map(|right| right.role.clone());
        let owner = Some(self.owner.clone()).filter(|owner| !owner.is_empty());
        let mut roles: Vec<String> = settings.chain(rights).chain(owner).collect();
        roles.sort();
        roles.dedup();
        roles
    }

    /// The statement that gives a database its comment, or takes another one away.
    pub fn comment_statement(&self, name: &str) -> String {
        let comment = self.comment.as_deref().map_or_else(|| "NULL".to_owned(), quote_literal);
        format!("COMMENT ON DATABASE {} IS {comment}", quote_identifier(name))
    }

    /// The statements that give a database its settings, limit and rights, as far as `has_role` knows the roles.
    pub fn property_statements(&self, name: &str, has_role: impl Fn(&str) -> bool) -> Vec<String> {
        let database = quote_identifier(name);
        let mut statements = Vec::new();
        if self.connection_limit >= 0 {
            statements.push(format!("ALTER DATABASE {database} CONNECTION LIMIT {}", self.connection_limit));
        }
        for setting in &self.settings {
            let target = match &setting.role {
                None => format!("ALTER DATABASE {database}"),
                Some(role) if has_role(role) => format!("ALTER ROLE {} IN DATABASE {database}", quote_identifier(role)),
                Some(_) => continue,
            };
            for value in &setting.values {
                if let Some((parameter, value)) = value.split_once('=') {
                    statements.push(format!(
                        "{target} SET {} TO {}",
                        parameter_name(parameter),
                        setting_value(parameter, value)
                    ));
                }
            }
        }
        if let Some(rights) = &self.rights {
            statements.push(format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"));
            for right in rights {
                let role = match &right.role {
                    None => "PUBLIC".to_owned(),
                    Some(role) if has_role(role) => quote_identifier(role),
                    Some(_) => continue,
                };
                if !right.privilege.bytes().all(|b| b.is_ascii_uppercase()) {
                    continue;
                }
                let option = if right.grantable && right.role.is_some() { " WITH GRANT OPTION" } else { "" };
                statements.push(format!("GRANT {} ON DATABASE {database} TO {role}{option}", right.privilege));
            }
        }
        statements
    }
}

/// A parameter's name: `work_mem`, `app.tenant`.
fn parameter_name(name: &str) -> String {
    name.split('.').map(quote_identifier).collect::<Vec<_>>().join(".")
}

/// Settings that are lists of names are stored as `a, "b c"`, and each of the names is to be quoted on its own.
fn setting_value(parameter: &str, value: &str) -> String {
    const LISTS: [&str; 7] = [
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
        "createrole_self_grant",
    ];
    if LISTS.contains(&parameter)
        && let Some(names) = list_of_names(value)
    {
        return if names.is_empty() {
            "''".to_owned()
        } else {
            names.iter().map(|name| quote_literal(name)).collect::<Vec<_>>().join(", ")
        };
    }
    quote_literal(value)
}

fn list_of_names(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let name;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut inner = String::new();
            let mut at = quoted;
            loop {
                let end = at.find('"')?;
                inner.push_str(&at[..end]);
                at = &at[end + 1..];
                let Some(more) = at.strip_prefix('"') else { break };
                inner.push('"');
                at = more;
            }
            (name, rest) = (inner, at);
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (name, rest) = (rest[..end].trim().to_owned(), &rest[end..]);
        }
        names.push(name);
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => {}
            None => return None,
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> DatabaseFacts {
        DatabaseFacts {
            encoding: "UTF8".into(),
            collate: "C.UTF-8".into(),
            ctype: "C.UTF-8".into(),
            locale_provider: Some("c".into()),
            owner: "app".into(),
            connection_limit: 20,
            comment: Some("it's ours".into()),
            settings: vec![
                Setting {
                    role: None,
                    values: vec!["search_path=\"$user\", \"odd, one\", public".into(), "work_mem=8MB".into()],
                },
                Setting { role: Some("gone".into()), values: vec!["work_mem=1MB".into()] },
            ],
            rights: Some(vec![
                Right { role: Some("app".into()), privilege: "CONNECT".into(), grantable: true },
                Right { role: Some("gone".into()), privilege: "CREATE".into(), grantable: false },
                Right { role: None, privilege: "TEMPORARY".into(), grantable: false },
            ]),
            ..DatabaseFacts::default()
        }
    }

    #[test]
    fn what_a_manifest_keeps_reads_back() {
        assert_eq!(DatabaseFacts::from_properties(&facts().to_properties()), facts());
        assert_eq!(DatabaseFacts::from_properties(&BTreeMap::new()).connection_limit, -1);
    }

    #[test]
    fn a_database_is_made_with_its_encoding_and_locale() {
        assert_eq!(
            facts().create_statement("odd name", 15),
            "CREATE DATABASE \"odd name\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8' LOCALE_PROVIDER libc"
        );
        let icu = DatabaseFacts { locale_provider: Some("i".into()), locale: Some("de-DE".into()), ..facts() };
        assert!(icu.create_statement("a", 15).ends_with("ICU_LOCALE 'de-DE' LOCALE_PROVIDER icu"));
        assert!(icu.create_statement("a", 14).ends_with("LC_CTYPE 'C.UTF-8'"));
        assert_eq!(facts().named_roles(), ["app", "gone"]);
        assert_eq!(DatabaseFacts::default().create_statement("a", 16), "CREATE DATABASE a TEMPLATE template0");
    }

    #[test]
    fn a_comment_comes_back_or_goes() {
        assert_eq!(facts().comment_statement("shop"), "COMMENT ON DATABASE shop IS 'it''s ours'");
        assert_eq!(DatabaseFacts::default().comment_statement("shop"), "COMMENT ON DATABASE shop IS NULL");
    }

    #[test]
    fn properties_come_back_for_the_roles_that_are_there() {
        assert_eq!(
            facts().property_statements("shop", |role| role == "app"),
            [
                "ALTER DATABASE shop CONNECTION LIMIT 20",
                "ALTER DATABASE shop SET search_path TO '$user', 'odd, one', 'public'",
                "ALTER DATABASE shop SET work_mem TO '8MB'",
                "REVOKE ALL ON DATABASE shop FROM PUBLIC",
                "GRANT CONNECT ON DATABASE shop TO app WITH GRANT OPTION",
                "GRANT TEMPORARY ON DATABASE shop TO PUBLIC",
            ]
        );
    }
}

//! What the restoring role may do in a database. Asks the server, touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_crds::Reason;
use serde::Deserialize;

use super::decide::{Extension, Rights};
use super::server::{Server, Unanswered};
use super::target::{Fit, Place, RoleFacts, Wanted};
use crate::archive::table_name::{quote_identifier, quote_literal};
use crate::task::Failure;

/// The first version whose schema `public` belongs to the owner of the database, and in which not everybody may create.
const PUBLIC_IS_THE_OWNERS_SINCE: u32 = 15;

/// What a database says of the role.
#[derive(Deserialize)]
struct Here {
    owns_public: bool,
    create_in_public: BTreeSet<String>,
    create_in_database: BTreeSet<String>,
    untrusted_languages: BTreeSet<String>,
    extensions: Vec<Made>,
}

#[derive(Deserialize)]
struct Made {
    name: String,
    mine: bool,
    comment: Option<String>,
}

const HERE: &str = "
SELECT coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'public'), true) AS owns_public,
  (SELECT coalesce(json_agg(r.rolname), '[]') FROM pg_roles r, pg_namespace n
    WHERE n.nspname = 'public' AND has_schema_privilege(r.oid, n.oid, 'CREATE')) AS create_in_public,
  (SELECT coalesce(json_agg(r.rolname), '[]') FROM pg_roles r
    WHERE has_database_privilege(r.oid, current_database(), 'CREATE')) AS create_in_database,
  (SELECT coalesce(json_agg(lanname), '[]') FROM pg_language WHERE NOT lanpltrusted) AS untrusted_languages,
  (SELECT coalesce(json_agg(json_build_object('name', extname, 'mine', pg_has_role(extowner, 'USAGE'),
     'comment', obj_description(oid, 'pg_extension'))), '[]') FROM pg_extension) AS extensions";

/// What the role may do in a wanted database: in the one that is there and will be filled, or else in the one that will be made.
pub(super) async fn of(
    server: &Server,
    fit: &Fit,
    wanted: &Wanted<'_>,
    place: &Place,
    owner: Option<&str>,
) -> Result<Rights, Failure> {
    let database = if *place == Place::Empty { wanted.database.as_str() } else { server.maintenance.as_str() };
    let here: Here = server.ask_one(database, HERE, Reason::SourceRefused).await?;
    let mut rights = Rights {
        user: server.login.user.clone(),
        superuser: server.facts.superuser,
        major: server.facts.major(),
        roles: fit
            .roles
            .iter()
            .filter(|(_, facts)| !facts.is_leftover())
            .map(|(name, facts)| (name.clone(), facts.acts || facts.takeable))
            .collect(),
        extensions: BTreeMap::new(),
        owns_public: here.owns_public,
        create_in_public: here.create_in_public,
        create_in_database: here.create_in_database,
        untrusted_languages: here.untrusted_languages,
        may_subscribe: server.facts.superuser || server.facts.subscribes,
    };
    if *place == Place::Empty {
        let made = here.extensions.into_iter();
        rights.extensions =
            made.map(|made| (made.name, Extension { mine: made.mine, comment: made.comment })).collect();
        if !server.facts.superuser {
            let absent: Vec<&String> =
                wanted.entry.extensions.iter().filter(|name| !rights.extensions.contains_key(*name)).collect();
            let tried = try_extensions(server, &wanted.database, &absent).await?;
            rights.extensions.extend(tried.made);
        }
        return Ok(rights);
    }
    let owner = owner.map_or_else(|| new_owner(fit, &wanted.facts.owner, &rights.user), ToOwned::to_owned);
    if server.facts.major() >= PUBLIC_IS_THE_OWNERS_SINCE {
        rights.owns_public = true;
        rights.create_in_public = std::iter::once(owner.clone()).collect();
    } else {
        rights.owns_public = server.facts.superuser;
        rights.create_in_public = rights.roles.keys().cloned().collect();
    }
    rights.create_in_database = std::iter::once(owner).collect();
    Ok(rights)
}

/// Who gets a database that is made: its owner in the backup, where he is there and the role may act for him.
pub(super) fn new_owner(fit: &Fit, owner: &str, user: &str) -> String {
    let may = |facts: &RoleFacts| (facts.acts || facts.takeable) && !facts.is_leftover();
    if fit.roles.get(owner).is_some_and(may) { owner.to_owned() } else { user.to_owned() }
}

/// What became of extensions that were tried.
#[derive(Default)]
pub(super) struct Tried {
    /// Those that the role may not make.
    pub refused: BTreeSet<String>,
    /// Those that it may make, and whose they are then.
    pub made: BTreeMap<String, Extension>,
}

/// Makes each of the extensions that are not there in a transaction that is taken back. Only the server knows whether it lets the role: its
/// operator may have more to say than the extension's control file.
pub(super) async fn try_extensions(server: &Server, database: &str, names: &[&String]) -> Result<Tried, Failure> {
    let mut tried = Tried::default();
    for name in names {
        let literal = quote_literal(name);
        let script = format!(
            "BEGIN;\nSET LOCAL search_path = public;\nCREATE EXTENSION IF NOT EXISTS {} CASCADE;\n\
             SELECT pg_catalog.json_build_object('name', e.extname, 'mine', pg_catalog.pg_has_role(e.extowner, 'USAGE'), \
             'comment', pg_catalog.obj_description(e.oid, 'pg_extension')) FROM pg_catalog.pg_extension e WHERE e.extname = {literal};\nROLLBACK;\n",
            quote_identifier(name)
        );
        match server.run(database, &script).await {
            Ok(answer) => {
                if let Ok(made) = serde_json::from_slice::<Made>(&answer) {
                    tried.made.insert(made.name, Extension { mine: made.mine, comment: made.comment });
                }
            }
            Err(Unanswered::Trouble(trouble)) if trouble.sqlstate.as_deref() == Some("42501") => {
                tried.refused.insert((*name).clone());
            }
            // It wants another schema than this one, or something else that the backup brings: the restore itself will tell.
            Err(Unanswered::Trouble(trouble)) if trouble.sqlstate.is_some() => {}
            Err(unanswered) => return Err(server.failure(Some(database), Reason::SourceRefused, unanswered)),
        }
    }
    Ok(tried)
}

//! Restores: each database is filled and counted, then put into its place. Talks to the server through its tools.

use std::collections::BTreeSet;

use holdfast_crds::{OnExisting, Reason};

use super::clients::Client;
use super::database::DatabaseFacts;
use super::decide::Tolerance;
use super::dump::SQL;
use super::foresee::{self, Foreseen};
use super::globals;
use super::pour::Pour;
use super::present;
use super::rights;
use super::roles::{self, RolePlan};
use super::server::Server;
use super::swap;
use super::target::{self, Backup, Fit, Place, Wanted};
use super::verify::verify;
use crate::archive::table_name::quote_identifier;
use crate::engine::{ArtifactSource, Restored};
use crate::store::manifest::Manifest;
use crate::task::Failure;

/// The first major version whose tools set what older servers do not know.
const UNKNOWN_SETTING_SINCE: u32 = 17;

/// A database that has been filled and counted.
struct Filled {
    /// Name of the database that was filled, where that is not its place yet.
    fresh: Option<Fresh>,
    tables: usize,
    rows: i64,
}

/// A database beside its place.
struct Fresh {
    name: String,
    facts: DatabaseFacts,
}

/// What to restore, and how.
pub(super) struct Order<'a> {
    /// What the backup holds.
    pub backup: &'a Backup<'a>,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// What happens to what is there.
    pub on_existing: OnExisting,
    /// How much may be left out.
    pub tolerance: Tolerance,
}

/// Restores all of a backup.
pub(super) async fn restore(
    server: &Server,
    order: &Order<'_>,
    source: &mut impl ArtifactSource,
) -> Result<Restored, Failure> {
    let Order { backup, manifest, on_existing, tolerance } = *order;
    let mut fit = target::assess(server, backup, manifest, on_existing).await?;
    let mut restored = Restored::default();
    let mut notes = Vec::new();
    if let Some(entry) = backup.globals {
        let present: BTreeSet<String> =
            fit.roles.iter().filter(|(_, facts)| !facts.is_leftover()).map(|(name, _)| name.clone()).collect();
        let (bytes, told) = globals::restore(server, entry, &present, source).await?;
        restored.bytes += bytes;
        notes.extend(told);
        // Roles are others now.
        fit = target::assess(server, backup, manifest, on_existing).await?;
    }
    let foreseen = foresee::foresee(server, backup, &fit, tolerance, false, source).await?;
    let plan = RolePlan::of(server, backup, &fit, &foreseen);
    notes.extend(plan.note.clone());
    notes.extend(foreseen.iter().flat_map(|foreseen| foreseen.decision.notes(&server.login.user)));
    let run = Run { server, manifest, fit: &fit, plan: &plan, tolerance };
    let result = match plan.set_up(server).await {
        Ok(()) => run.databases(backup, &foreseen, source, &mut restored, &mut notes).await,
        Err(unanswered) => Err(server.failure(None, Reason::RestoreFailed, unanswered)),
    };
    // Whatever happened, nothing of the restore's own stays.
    let left = plan.tear_down(server).await;
    notes.extend(left.iter().cloned());
    match result {
        Ok(summary) => {
            notes.insert(0, summary);
            restored.message = notes.join("; ");
            Ok(restored)
        }
        Err(mut failure) => {
            if !left.is_empty() {
                add(&mut failure, &left.join("; "));
            }
            Err(failure)
        }
    }
}

struct Run<'a> {
    server: &'a Server,
    manifest: &'a Manifest,
    fit: &'a Fit,
    plan: &'a RolePlan,
    tolerance: Tolerance,
}

impl Run<'_> {
    /// Fills all databases, then puts them all into their places.
    async fn databases(
        &self,
        backup: &Backup<'_>,
        foreseen: &[Foreseen],
        source: &mut impl ArtifactSource,
        restored: &mut Restored,
        notes: &mut Vec<String>,
    ) -> Result<String, Failure> {
        let mut filled = Vec::with_capacity(backup.databases.len());
        let mut outcome = Ok(());
        for ((wanted, place), foreseen) in backup.databases.iter().zip(&self.fit.places).zip(foreseen) {
            let wanted = &Known { wanted, foreseen };
            match self.fill(wanted, place, source, restored, notes).await {
                Ok(database) => filled.push(database),
                Err(failure) => {
                    outcome = Err(failure);
                    break;
                }
            }
        }
        let mut placed = Vec::new();
        for ((wanted, place), database) in backup.databases.iter().zip(&self.fit.places).zip(&mut filled) {
            if outcome.is_err() {
                break;
            }
            let Some(fresh) = &database.fresh else {
                placed.push(wanted.database.clone());
                continue;
            };
            let comment = fresh.facts.comment_statement(&wanted.database);
            match swap::into_place(self.server, &fresh.name, &wanted.database, *place != Place::Free, &comment).await {
                Ok(note) => {
                    notes.extend(note);
                    database.fresh = None;
                    placed.push(wanted.database.clone());
                }
                Err(failure) => outcome = Err(failure),
            }
        }
        if let Err(mut failure) = outcome {
            for (wanted, database) in backup.databases.iter().zip(&filled) {
                if let Some(fresh) = &database.fresh {
                    self.discard(&wanted.database, &fresh.name, &mut failure).await;
                }
            }
            if !placed.is_empty() {
                add(&mut failure, &format!("restored before that: {}", placed.join(", ")));
            }
            return Err(failure);
        }
        let tables: usize = filled.iter().map(|database| database.tables).sum();
        let rows: i64 = filled.iter().map(|database| database.rows).sum();
        restored.items = i64::try_from(tables).unwrap_or(i64::MAX);
        let names: Vec<&str> = backup.databases.iter().map(|wanted| wanted.database.as_str()).collect();
        let (tables_word, rows_word) = (plural(tables == 1, "table"), plural(rows == 1, "row"));
        Ok(format!(
            "{} {tables_word}, {} {rows_word} restored into {} on {}",
            grouped(i64::try_from(tables).unwrap_or(i64::MAX)),
            grouped(rows),
            names.join(", "),
            self.server.login.address()
        ))
    }

    async fn discard(&self, database: &str, fresh: &str, failure: &mut Failure) {
        if swap::drop_database(self.server, self.server.beside(database), fresh).await.is_err() {
            add(failure, &format!("the unfinished database {fresh} could not be dropped"));
        }
    }

    async fn fill(
        &self,
        known: &Known<'_>,
        place: &Place,
        source: &mut impl ArtifactSource,
        restored: &mut Restored,
        notes: &mut Vec<String>,
    ) -> Result<Filled, Failure> {
        let wanted = known.wanted;
        let one_transaction = target::in_one_transaction(wanted.entry);
        // A database that cannot be filled in one transaction is filled beside its place, where that may be.
        let in_place = *place == Place::Empty && (one_transaction || !self.server.facts.create_database);
        if in_place {
            return self.fill_in_place(known, one_transaction, source, restored, notes).await;
        }
        swap::drop_leftovers(self.server, &wanted.database).await?;
        // The place has an owner, rights and settings of its own, and they stay; a new place has those of the backup.
        let facts = if *place == Place::Free {
            wanted.facts.clone()
        } else {
            let here = DatabaseFacts::of(self.server, &wanted.database, Reason::RestoreFailed).await?;
            DatabaseFacts {
                encoding: wanted.facts.encoding.clone(),
                collate: wanted.facts.collate.clone(),
                ctype: wanted.facts.ctype.clone(),
                locale_provider: wanted.facts.locale_provider.clone(),
                locale: wanted.facts.locale.clone(),
                ..here
            }
        };
        let (fresh, note) = swap::make(self.server, &wanted.database, &facts).await?;
        notes.extend(note);
        // It is nobody's before it is whole: nothing in it need be committed together, unless that spares the server its log.
        let together = one_transaction && self.server.facts.wal_level == "minimal";
        let filled = match self.begin(wanted, &fresh, &facts).await {
            Ok(()) => self.pour_and_count(known, &fresh, together, source, restored, notes).await,
            Err(failure) => Err(failure),
        };
        let finished = match filled {
            Ok(counts) => self.finish(&fresh, &facts, notes).await.map(|()| counts),
            Err(failure) => Err(failure),
        };
        match finished {
            Ok((tables, rows)) => Ok(Filled { fresh: Some(Fresh { name: fresh, facts }), tables, rows }),
            Err(mut failure) => {
                self.discard(&wanted.database, &fresh, &mut failure).await;
                failure.message.push_str(match place {
                    Place::Free => "; no database was made",
                    Place::Empty | Place::Taken => "; the database is as it was before",
                });
                Err(failure)
            }
        }
    }

    /// Gives a fresh database to its owner, so that in it may be whose it is, and finds out whether its extensions can be made.
    async fn begin(&self, wanted: &Wanted<'_>, fresh: &str, facts: &DatabaseFacts) -> Result<(), Failure> {
        let owner = rights::new_owner(self.fit, &facts.owner, &self.server.login.user);
        if owner != self.server.login.user {
            // What it may not be is told when it is finished.
            let _ = self.server.run(self.server.beside(fresh), &owner_statement(fresh, &owner)).await;
        }
        if self.server.facts.superuser || wanted.entry.format == SQL {
            return Ok(());
        }
        let names: Vec<&String> = wanted.entry.extensions.iter().collect();
        let refused = rights::try_extensions(self.server, fresh, &names).await?.refused;
        if refused.is_empty() {
            return Ok(());
        }
        Err(target::extensions_refused(&self.server.place(Some(&wanted.database)), &refused))
    }

    async fn fill_in_place(
        &self,
        known: &Known<'_>,
        one_transaction: bool,
        source: &mut impl ArtifactSource,
        restored: &mut Restored,
        notes: &mut Vec<String>,
    ) -> Result<Filled, Failure> {
        let wanted = known.wanted;
        match self.pour_and_count(known, &wanted.database, one_transaction, source, restored, notes).await {
            Ok((tables, rows)) => Ok(Filled { fresh: None, tables, rows }),
            Err(mut failure) => {
                // What is left of it must not belong to stand-ins, which go.
                let _ = self.plan.hand_over(self.server, &wanted.database).await;
                let holds = match target::contents(self.server, &wanted.database).await {
                    Ok(None) => "the database is as empty as before".to_owned(),
                    Ok(Some(found)) => format!("the database holds {found} now"),
                    Err(_) => "what the database holds now could not be found out".to_owned(),
                };
                add(&mut failure, &holds);
                Err(failure)
            }
        }
    }

    async fn pour_and_count(
        &self,
        known: &Known<'_>,
        database: &str,
        one_transaction: bool,
        source: &mut impl ArtifactSource,
        restored: &mut Restored,
        notes: &mut Vec<String>,
    ) -> Result<(usize, i64), Failure> {
        let wanted = known.wanted;
        let lacking: Vec<&str> = wanted
            .facts
            .tablespaces
            .iter()
            .filter(|name| !self.fit.tablespaces.contains(*name))
            .map(String::as_str)
            .collect();
        if !lacking.is_empty() {
            notes.push(format!(
                "not on this server: tablespaces {}: everything is in the usual one",
                lacking.join(", ")
            ));
        }
        let client: &Client = &self.fit.client;
        let pour = Pour {
            server: self.server,
            client,
            database,
            one_transaction,
            keep_owners: wanted.entry.format != SQL || self.plan.keep_owners,
            keep_tablespaces: lacking.is_empty(),
            drop_unknown_setting: self.server.facts.major() < UNKNOWN_SETTING_SINCE
                && target::archive_major(wanted.entry, self.manifest)
                    .is_none_or(|major| major >= UNKNOWN_SETTING_SINCE),
            changes: &known.foreseen.decision.changes,
        };
        if wanted.entry.format == SQL && !self.plan.keep_owners {
            return Err(Failure::new(
                Reason::SourceRefused,
                format!(
                    "{}: a backup in the format Plain names its owners, and {}: restore with a superuser",
                    self.server.place(Some(database)),
                    self.plan.note.clone().unwrap_or_default()
                ),
            ));
        }
        let (bytes, inspection) = pour.pour(wanted.entry, source).await?;
        restored.bytes += bytes;
        let rows = verify(self.server, database, &inspection).await?;
        let failed = |unanswered| self.server.failure(Some(database), Reason::RestoreFailed, unanswered);
        let lost = self.plan.lost_with(self.server, database).await.map_err(failed)?;
        if !lost.is_empty() {
            let lost = lost.join(", ");
            if self.tolerance != Tolerance::AllButRows {
                return Err(Failure::new(
                    Reason::SourceRefused,
                    format!(
                        "{}: {lost}: for roles that are not on this server: make them before, or leave it out with onUnrestorable: Report",
                        self.server.place(Some(database))
                    ),
                ));
            }
            notes.push(format!("left out, or no longer for roles that are not on this server: {lost}"));
        }
        self.plan.hand_over(self.server, database).await.map_err(failed)?;
        present::confirm(self.server, database, known.foreseen).await?;
        Ok((inspection.items.len(), rows))
    }

    /// Gives a fresh database its settings, rights and owner. What the role may not set is told.
    async fn finish(&self, fresh: &str, facts: &DatabaseFacts, notes: &mut Vec<String>) -> Result<(), Failure> {
        let beside = self.server.beside(fresh);
        let has_role = |role: &str| self.fit.roles.get(role).is_some_and(|facts| !facts.is_leftover());
        let mut statements = facts.property_statements(fresh, has_role);
        if has_role(&facts.owner) && facts.owner != self.server.login.user {
            statements.push(owner_statement(fresh, &facts.owner));
        }
        let absent: Vec<String> = facts.named_roles().into_iter().filter(|role| !has_role(role)).collect();
        if !absent.is_empty() {
            notes.push(format!(
                "not on this server: {}, named as owner of the database or in its settings and rights",
                roles::list(&absent)
            ));
        }
        let mut refused = Vec::new();
        for statement in statements {
            if let Err(unanswered) = self.server.run(beside, &format!("{statement};\n")).await {
                refused.push(self.server.failure(Some(fresh), Reason::RestoreFailed, unanswered).message);
            }
        }
        if let Some(first) = refused.first() {
            notes.push(format!(
                "{} settings of the database could not be brought back, the first: {first}",
                refused.len()
            ));
        }
        Ok(())
    }
}

/// A wanted database, and what is known of its archive.
struct Known<'a> {
    wanted: &'a Wanted<'a>,
    foreseen: &'a Foreseen,
}

fn owner_statement(database: &str, owner: &str) -> String {
    format!("ALTER DATABASE {} OWNER TO {};\n", quote_identifier(database), quote_identifier(owner))
}

/// Goes on with a failure's line.
fn add(failure: &mut Failure, more: &str) {
    failure.message.push_str("; ");
    failure.message.push_str(more);
}

fn plural(one: bool, word: &str) -> String {
    if one { word.to_owned() } else { format!("{word}s") }
}

/// A number with its thousands apart: `1,234,567`.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let texts: Vec<String> = [0, 999, 1000, 34_567, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "999", "1,000", "34,567", "1,234,567"]);
    }
}

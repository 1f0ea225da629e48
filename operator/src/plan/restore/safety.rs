//! The Backup of what a restore is about to replace: of which sources, and what becomes of the restore meanwhile. Pure.
//!
//! It is an ordinary Backup of the policy, so it is made, told and deleted like any other. Two things are its own: it is no restore point
//! for who asks for the newest one, and no rule of retention sees it. It may hold the very damage that the restore is to undo.

use std::collections::BTreeMap;

use holdfast_crds::{
    Backup, BackupPhase, BackupPolicy, BackupSpec, ConditionType, DeletionPolicy, LocalRef, OnExisting, Reason,
    RestoreInto, RestoreRequest, Source,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::plan::job::Ground;
use crate::plan::names::{MANAGED_BY, MANAGED_BY_LABEL, POLICY_LABEL, SAFETY_LABEL, job_name, label_value};
use crate::plan::refused::refused;
use crate::plan::status::{find, reason_of};
use crate::task::{CollectionFilter, Failure, PathFilter, RestoreTarget, Target, server_key};

/// What to write where no safety backup can be made.
const WITHOUT: &str = "set safetyBackup: false if what is replaced may be lost";

/// Whether a Backup was made of what a restore was about to replace.
pub fn is_safety(backup: &Backup) -> bool {
    backup.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(SAFETY_LABEL))
}

/// The policy as a safety backup saves it: all that is replaced of each source, so of a server also what the policy leaves out; an empty volume is
/// no failure; and nothing is deleted afterwards. A source that shares its place with another is saved as far as it goes: its restore replaces no
/// more, nor does the undoing of it.
pub fn as_saved(policy: &BackupPolicy) -> BackupPolicy {
    let shared: Vec<bool> = policy.spec.sources.iter().map(|source| shares_a_deployment(policy, source)).collect();
    let mut policy = policy.clone();
    policy.spec.retention = None;
    // What is to be replaced may well be too small to be believed.
    policy.spec.plausibility.minimum_percent = 0;
    for (source, shared) in policy.spec.sources.iter_mut().zip(shared) {
        if let Some(postgres) = &mut source.postgres {
            postgres.exclude_tables.clear();
        }
        if let Some(mongodb) = source.mongodb.as_mut().filter(|_| !shared) {
            mongodb.include_collections.clear();
            mongodb.exclude_collections.clear();
        }
        if let Some(volume) = &mut source.volume {
            volume.allow_empty = true;
        }
    }
    policy
}

/// Whether another source of the policy may save collections of the same database.
fn shares_a_deployment(policy: &BackupPolicy, source: &Source) -> bool {
    let Some(own) = &source.mongodb else { return false };
    policy.spec.sources.iter().filter(|other| other.name != source.name).filter_map(|other| other.mongodb.as_ref()).any(
        |other| {
            // A connection string may lead anywhere.
            let same_server = match (&own.host, &other.host) {
                (Some(host), Some(other_host)) => {
                    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
                    let key = |host: &str, port: Option<i32>| server_key(host, port.unwrap_or(27017), namespace);
                    key(host, own.port) == key(other_host, other.port)
                }
                _ => true,
            };
            same_server && (own.database.is_none() || other.database.is_none() || own.database == other.database)
        },
    )
}

/// Tells the worker what the safety backup holds: it replaces nothing that is not in there.
pub(super) fn tell(policy: &BackupPolicy, saved: &[String], targets: &mut [RestoreTarget]) {
    let policy = as_saved(policy);
    for target in targets.iter_mut().filter(|target| saved.contains(&target.source)) {
        let Some(source) = policy.spec.sources.iter().find(|source| source.name == target.source) else { continue };
        match (&mut target.server, &source.volume, &source.mongodb) {
            (Target::Volume(target), Some(volume), _) => {
                target.safety = Some(PathFilter { include: volume.include.clone(), exclude: volume.exclude.clone() });
            }
            (Target::Mongodb(target), _, Some(mongodb)) => {
                let (include, exclude) = (mongodb.include_collections.clone(), mongodb.exclude_collections.clone());
                let all = include.is_empty() && exclude.is_empty();
                target.safety = (!all).then_some(CollectionFilter { include, exclude });
            }
            _ => {}
        }
    }
}

pub(super) fn is_wanted(request: &RestoreRequest) -> bool {
    let spec = &request.spec;
    spec.on_existing == OnExisting::Replace && !spec.dry_run && spec.safety_backup != Some(false)
}

/// The name of the safety backup: the only one that the request ever has.
pub(super) fn name(request: &RestoreRequest) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    job_name(&text(&request.metadata.name), &text(&request.metadata.uid), "safety")
}

/// The sources to save: those that are restored, but for claims that are not there.
///
/// # Errors
/// [`Reason::InvalidConfiguration`] where one is restored into a place that is not the policy's.
pub(super) fn sources(
    request: &RestoreRequest,
    policy: Option<&BackupPolicy>,
    targets: &[RestoreTarget],
    ground: &Ground,
) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for target in targets {
        let moved = request.spec.into.iter().any(|into| into.source == target.source && is_moved(into));
        let source = policy.into_iter().flat_map(|p| &p.spec.sources).find(|s| s.name == target.source);
        let Some(source) = source.filter(|_| !moved) else {
            let message = format!(
                "source {} is restored into a place that the policy does not name, of which no safety backup can be made: {WITHOUT}",
                target.source
            );
            return Err(Failure::new(Reason::InvalidConfiguration, message));
        };
        let with_users = request.spec.into.iter().any(|into| {
            into.source == target.source && into.mongodb.as_ref().is_some_and(|m| m.include_users_and_roles)
        });
        if with_users && !source.mongodb.as_ref().is_some_and(|m| m.include_users_and_roles) {
            let message = format!(
                "source {}: users and roles that are replaced would not be in the safety backup: set includeUsersAndRoles in the policy's source \
                 too, or {WITHOUT}",
                target.source
            );
            return Err(Failure::new(Reason::InvalidConfiguration, message));
        }
        let absent = source.volume.as_ref().is_some_and(|volume| !ground.claims.contains_key(&volume.claim_name));
        if !absent {
            names.push(source.name.clone());
        }
    }
    Ok(names)
}

fn is_moved(into: &RestoreInto) -> bool {
    let postgres = into.postgres.as_ref().is_some_and(|p| p.host.is_some() || p.port.is_some() || p.database.is_some());
    let mongodb = into
        .mongodb
        .as_ref()
        .is_some_and(|m| m.uri_secret.is_some() || m.host.is_some() || m.port.is_some() || m.database.is_some());
    let redis = into.redis.as_ref().is_some_and(|r| r.host.is_some() || r.port.is_some() || r.database.is_some());
    let volume = into.volume.as_ref().is_some_and(|v| v.claim_name.is_some());
    postgres || mongodb || redis || volume || into.config.is_some()
}

/// The Backup. Like every restore point it belongs to nobody; its data goes when it is deleted, for no retention ever takes it.
pub(super) fn backup(request: &RestoreRequest, policy: &str, sources: Vec<String>) -> Backup {
    let request_name = request.metadata.name.as_deref().unwrap_or_default();
    Backup {
        metadata: ObjectMeta {
            name: Some(name(request)),
            namespace: request.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([
                (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
                (POLICY_LABEL.to_owned(), label_value(policy)),
                (SAFETY_LABEL.to_owned(), label_value(request_name)),
            ])),
            ..ObjectMeta::default()
        },
        spec: BackupSpec {
            policy_ref: LocalRef { name: policy.to_owned() },
            sources: Some(sources),
            deletion_policy: DeletionPolicy::Delete,
        },
        status: None,
    }
}

/// How far a safety backup is.
pub(super) enum Progress {
    /// Not over; in its own words, and why it waits.
    Waits(Reason, String),
    /// It is complete.
    Done,
}

/// Whether a safety backup waits to start, for whatever reason.
pub(super) fn has_not_started(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    backup.metadata.deletion_timestamp.is_none()
        && status.is_none_or(|s| s.phase == BackupPhase::Pending && s.run_id.is_none())
}

/// How far it is.
///
/// # Errors
/// Why there will be none, with its own reason.
pub(super) fn progress(backup: &Backup) -> Result<Progress, Failure> {
    let name = backup.metadata.name.as_deref().unwrap_or_default();
    let status = backup.status.clone().unwrap_or_default();
    let complete = find(&status.conditions, ConditionType::Complete);
    let words = complete.map(|c| c.message.clone()).unwrap_or_default();
    if backup.metadata.deletion_timestamp.is_some() {
        let message = format!("the safety backup {name} was deleted; nothing was touched");
        return Err(Failure::new(Reason::BackupNotFound, message));
    }
    match status.phase {
        BackupPhase::Pending | BackupPhase::Running => {
            let refused = refused(&status).map_or(Reason::InProgress, |failure| failure.reason);
            let colon = if words.is_empty() { "" } else { ": " };
            let words = format!("what is there is saved first, as Backup {name}{colon}{words}");
            Ok(Progress::Waits(refused, words))
        }
        BackupPhase::Completed => Ok(Progress::Done),
        BackupPhase::Failed => {
            let reason = complete.and_then(reason_of);
            let message = format!(
                "the safety backup {name} failed, so nothing was touched: {words}. Put that right and create another request, or {WITHOUT}"
            );
            Err(Failure::new(reason.unwrap_or(Reason::DumpFailed), message))
        }
    }
}

//! Mistakes that people make in objects, and what they are told: the object, the field, the likely cause and the next step. Pure.

#![allow(clippy::too_many_lines, clippy::type_complexity, reason = "it is one table")]

use std::sync::Arc;

use holdfast_crds::{
    ArtifactStatus, Backup, BackupPhase, BackupPolicy, BackupStatus, BackupStore, ConditionType, Reason,
    RestoreRequest, condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::backup::{ObservedBackup, plan_backup};
use super::fixture::{at, backup, backup_with, install, policy, ready_store, source, store, unready_store};
use super::policy::{ObservedPolicy, plan_policy};
use super::restore::{ObservedRestore, plan_restore};
use super::summary::Summarize;

/// By then nothing is waited for any more.
const LATE: i64 = 100_000;

/// What somebody got wrong, and what `kubectl get` tells: reason and message.
struct Mistake {
    what: &'static str,
    told: (String, String),
    reason: Reason,
    says: &'static [&'static str],
}

fn of_policy(
    change: impl FnOnce(&mut BackupPolicy),
    store: Option<BackupStore>,
    backups: Vec<Backup>,
) -> (String, String) {
    let mut policy = policy();
    change(&mut policy);
    let backups = backups.into_iter().map(Arc::new).collect();
    let observed = ObservedPolicy { store: store.map(Arc::new), backups, ..ObservedPolicy::default() };
    summed_up(plan_policy(&policy, &observed, at(LATE)).status)
}

fn of_backup(
    change: impl FnOnce(&mut Backup),
    policy: Option<BackupPolicy>,
    store: Option<BackupStore>,
) -> (String, String) {
    let mut backup = backup("b", 1000);
    change(&mut backup);
    let observed =
        ObservedBackup { policy: policy.map(Arc::new), store: store.map(Arc::new), ..ObservedBackup::default() };
    summed_up(plan_backup(&install(), &backup, &observed, at(LATE)).status)
}

fn of_restore(spec: &Value, change: impl FnOnce(&mut ObservedRestore)) -> (String, String) {
    let request: RestoreRequest = serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "RestoreRequest",
        "metadata": {"name": "undo", "namespace": "shop", "uid": "rr-uid", "creationTimestamp": at(5000)}, "spec": spec,
    }))
    .unwrap();
    let mut observed = ObservedRestore {
        backups: vec![Arc::new(stored("one", &["db"])), Arc::new(failed("broken"))],
        policy: Some(Arc::new(read(policy()))),
        store: Some(Arc::new(ready_store())),
        ..ObservedRestore::default()
    };
    change(&mut observed);
    summed_up(plan_restore(&install(), &request, &observed, at(LATE)).status)
}

/// A policy whose bucket was read.
fn read(policy: BackupPolicy) -> BackupPolicy {
    let status = serde_json::from_value(json!({"catalogue": {"place": "p", "found": 0, "more": 0}})).unwrap();
    BackupPolicy { status: Some(status), ..policy }
}

fn summed_up<S: Summarize + serde::Serialize>(mut status: S) -> (String, String) {
    status.summarize(at(LATE));
    let status = serde_json::to_value(&status).unwrap();
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

fn complete_is(value: bool, reason: Reason, message: &str) -> Vec<Condition> {
    vec![condition(ConditionType::Complete, Some(value), reason, message, None, at(1060))]
}

fn stored(name: &str, sources: &[&str]) -> Backup {
    let artifact = |source: &&str| ArtifactStatus { source: (*source).to_owned(), ..ArtifactStatus::default() };
    let status = BackupStatus {
        phase: BackupPhase::Completed,
        run_id: Some(format!("run-of-{name}")),
        store: Some("main".into()),
        completion_time: Some(Time(at(1060))),
        artifacts: sources.iter().map(artifact).collect(),
        conditions: complete_is(true, Reason::Completed, "it is complete"),
        ..BackupStatus::default()
    };
    backup_with(name, 1000, status)
}

fn failed(name: &str) -> Backup {
    let status = BackupStatus {
        phase: BackupPhase::Failed,
        completion_time: Some(Time(at(1060))),
        conditions: complete_is(false, Reason::SourceRefused, "source db: wrong password in Secret pg"),
        ..BackupStatus::default()
    };
    backup_with(name, 1000, status)
}

fn read_only() -> BackupStore {
    let mut store = ready_store();
    store.spec.read_only = true;
    store
}

#[test]
fn each_is_told_with_the_object_the_field_and_the_next_step() {
    let ready = || Some(ready_store());
    let with_schedule = |text: &'static str| move |p: &mut BackupPolicy| p.spec.schedule = Some(text.into());
    let promising = |p: &mut BackupPolicy| p.spec.max_age = Some("26h".into());
    let renamed = |p: &mut BackupPolicy| {
        p.spec.max_age = Some("26h".into());
        p.spec.sources = vec![source("database")];
    };
    let keeping_secrets = |p: &mut BackupPolicy| {
        p.spec.sources = vec![serde_json::from_value(json!({"name": "env", "config": {"secrets": ["key"]}})).unwrap()];
    };
    let verifying = |p: &mut BackupPolicy| {
        p.spec.verify = Some(serde_json::from_value(json!({"schedule": "every day"})).unwrap());
    };
    let only = |sources: &'static [&'static str]| {
        move |b: &mut Backup| b.spec.sources = Some(sources.iter().map(|&s| s.to_owned()).collect())
    };
    let as_it_is = |_: &mut ObservedRestore| {};
    let without_policy = |o: &mut ObservedRestore| o.policy = None;
    let of_nobody = |o: &mut ObservedRestore| (o.policy, o.backups) = (None, vec![]);
    let with_sources = |names: &'static [&'static str]| {
        move |o: &mut ObservedRestore| {
            let mut policy = read(policy());
            policy.spec.sources = names.iter().map(|name| source(name)).collect();
            o.policy = Some(Arc::new(policy));
        }
    };
    let one = || json!({"from": {"backup": "one"}});
    let rows: Vec<(&str, (String, String), Reason, &[&str])> = vec![
        (
            "no store of that name",
            of_policy(|_| (), None, vec![]),
            Reason::StoreNotFound,
            &["BackupStore main is not there", "create it in this namespace"],
        ),
        (
            "a store to restore from",
            of_policy(|_| (), Some(read_only()), vec![]),
            Reason::StoreReadOnly,
            &["BackupStore main is read-only", "spec.storeRef", "readOnly: false"],
        ),
        (
            "a store whose key is refused",
            of_policy(|_| (), Some(unready_store(Reason::CredentialsRejected, "check Secret s3")), vec![]),
            Reason::StoreRefused,
            &["BackupStore main is not ready (CredentialsRejected): check Secret s3"],
        ),
        (
            "an hour that there is none of",
            of_policy(with_schedule("0 25 * * *"), ready(), vec![]),
            Reason::InvalidSchedule,
            &["spec.schedule \"0 25 * * *\"", "25"],
        ),
        (
            "four fields",
            of_policy(with_schedule("0 2 * *"), ready(), vec![]),
            Reason::InvalidSchedule,
            &["spec.schedule \"0 2 * *\"", "five"],
        ),
        (
            "30 February",
            of_policy(with_schedule("0 0 30 2 *"), ready(), vec![]),
            Reason::NeverFires,
            &["spec.schedule", "never comes due"],
        ),
        (
            "a city with a typo",
            of_policy(|p| p.spec.time_zone = "Europe/Berln".into(), ready(), vec![]),
            Reason::UnknownTimeZone,
            &["spec.timeZone \"Europe/Berln\""],
        ),
        (
            "a schedule of verifications in words",
            of_policy(verifying, ready(), vec![]),
            Reason::InvalidSchedule,
            &["spec.verify.schedule \"every day\""],
        ),
        (
            "Secrets in the clear",
            of_policy(keeping_secrets, ready(), vec![]),
            Reason::InvalidConfiguration,
            &["source env", "BackupStore main does not encrypt", "config.allowUnencrypted: true"],
        ),
        (
            "the only run failed on its password",
            of_policy(promising, ready(), vec![failed("broken")]),
            Reason::SourceRefused,
            &["broken failed", "wrong password in Secret pg"],
        ),
        (
            "a source was renamed",
            of_policy(renamed, ready(), vec![stored("one", &["db"])]),
            Reason::NoBackupYet,
            &["source database is in no backup yet", "Backup one holds db", "another name counts as a new one"],
        ),
        (
            "a Backup of no policy",
            of_backup(|_| (), None, ready()),
            Reason::PolicyNotFound,
            &["BackupPolicy shop is not there", "create it in this namespace"],
        ),
        (
            "a Backup of a policy without its store",
            of_backup(|_| (), Some(policy()), None),
            Reason::StoreNotFound,
            &["BackupStore main is not there", "create it in this namespace"],
        ),
        (
            "a Backup into a store to restore from",
            of_backup(|_| (), Some(policy()), Some(read_only())),
            Reason::StoreReadOnly,
            &["BackupStore main is read-only", "spec.storeRef"],
        ),
        (
            "a Backup whose store never answered",
            of_backup(|_| (), Some(policy()), Some(store())),
            Reason::StoreNotReady,
            &["BackupStore main is being proved"],
        ),
        (
            "a Backup of a source with a typo",
            of_backup(only(&["dbb"]), Some(policy()), ready()),
            Reason::InvalidConfiguration,
            &["BackupPolicy shop has no source dbb", "it has db"],
        ),
        (
            "a restore of a Backup of another namespace",
            of_restore(&json!({"from": {"backup": "of-others"}}), as_it_is),
            Reason::BackupNotFound,
            &["Backup of-others is not there in this namespace", "kubectl get backups", "from.store"],
        ),
        (
            "a restore of a Backup that failed",
            of_restore(&json!({"from": {"backup": "broken"}}), as_it_is),
            Reason::NoMatchingBackup,
            &["Backup broken failed and cannot be restored", "wrong password"],
        ),
        (
            "a restore of an instant before the first backup",
            of_restore(&json!({"from": {"policy": {"name": "shop", "at": at(500)}}}), as_it_is),
            Reason::NoMatchingBackup,
            &[
                "BackupPolicy shop has no complete backup at or before 1970-01-01T00:08:20Z",
                "there are one (1970-01-01T00:16:40Z)",
            ],
        ),
        (
            "a restore of a policy with a typo",
            of_restore(&json!({"from": {"policy": {"name": "shpo"}}}), of_nobody),
            Reason::NoMatchingBackup,
            &["BackupPolicy shpo has no complete backup", "kubectl get backuppolicies", "from.store"],
        ),
        (
            "a restore of a source with a typo",
            of_restore(&json!({"from": {"backup": "one"}, "sources": ["dbb"]}), as_it_is),
            Reason::InvalidConfiguration,
            &["the backup holds no source dbb", "it holds db"],
        ),
        (
            "a restore of a source that was renamed",
            of_restore(&one(), with_sources(&["database"])),
            Reason::InvalidConfiguration,
            &["BackupPolicy shop has no source db any more (it has database)", "into: [{source: db, postgres:"],
        ),
        (
            "a restore without a policy and without a target",
            of_restore(&one(), without_policy),
            Reason::InvalidConfiguration,
            &["BackupPolicy shop is not there", "into: [{source: db, postgres:"],
        ),
        (
            "a restore into another engine",
            of_restore(
                &json!({"from": {"backup": "one"}, "into": [{"source": "db", "redis": {"host": "cache"}}]}),
                as_it_is,
            ),
            Reason::InvalidConfiguration,
            &["source db is postgres, and into names redis", "write postgres: {…}"],
        ),
        (
            "a restore into a source that is not restored",
            of_restore(
                &json!({"from": {"backup": "one"}, "into": [{"source": "dbb", "postgres": {"database": "x"}}]}),
                as_it_is,
            ),
            Reason::InvalidConfiguration,
            &["into names source dbb, which is not restored: db"],
        ),
        (
            "a restore that stops a workload with a typo",
            of_restore(
                &json!({"from": {"backup": "one"}, "scaleDown": [{"kind": "Deployment", "name": "wbe"}]}),
                as_it_is,
            ),
            Reason::InvalidConfiguration,
            &["scaleDown names Deployment wbe", "not there in this namespace"],
        ),
        (
            "a restore from a store that is gone",
            of_restore(&one(), |o| o.store = None),
            Reason::StoreNotFound,
            &["BackupStore main is not there", "create it in this namespace"],
        ),
        (
            "a restore that saves into a store to restore from",
            of_restore(&json!({"from": {"backup": "one"}, "onExisting": "Replace"}), |o| {
                o.store = Some(Arc::new(read_only()));
            }),
            Reason::StoreReadOnly,
            &["BackupStore main is read-only", "safetyBackup: false"],
        ),
    ];
    let mistakes = rows.into_iter().map(|(what, told, reason, says)| Mistake { what, told, reason, says });
    let wrong: Vec<String> = mistakes
        .filter_map(|Mistake { what, told: (reason, message), reason: wanted, says }| {
            let missing: Vec<_> = says.iter().filter(|words| !message.contains(*words)).collect();
            let right = reason == wanted.to_string() && missing.is_empty();
            (!right).then(|| format!("{what}: {wanted} {missing:?} of {reason}: {message}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

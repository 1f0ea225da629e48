//! What people do: they make, edit and delete objects, and pull the plug of the store. Pure.

use holdfast_crds::{Backup, BackupPhase, BackupPolicy, BackupStore, RestoreRequest};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE};

const POLICIES: [&str; 2] = ["shop", "wiki"];

pub fn settle_in(cluster: &mut Cluster) {
    let store = json!({
        "metadata": {"name": "main"},
        "spec": {"s3": {"bucket": "backups", "region": "us-east-1"}, "maxConcurrentRuns": 1},
    });
    let mut store: BackupStore = of("BackupStore", store);
    store.metadata = cluster.created(store.metadata);
    cluster.stores.put("main", store);
    for (policy, sources) in POLICIES.into_iter().zip([vec!["db", "files"], vec!["db"]]) {
        let source = |name: &&str| json!({"name": name, "postgres": {"host": "db.shop.svc", "database": "shop", "credentialsSecret": {"name": "postgres"}}});
        let spec = json!({
            "metadata": {"name": policy},
            "spec": {
                "storeRef": {"name": "main"}, "schedule": "*/10 * * * *", "startingDeadlineSeconds": 3000,
                "sources": sources.iter().map(source).collect::<Vec<_>>(), "retention": {"keepLast": 2, "keepHourly": 2},
                "verify": {"schedule": "*/30 * * * *", "maxBackups": 2},
            },
        });
        let mut policy_object: BackupPolicy = of("BackupPolicy", spec);
        policy_object.metadata = cluster.created(policy_object.metadata);
        cluster.policies.put(policy, policy_object);
    }
}

/// An object as the API server reads it.
fn of<K: serde::de::DeserializeOwned>(kind: &str, mut object: serde_json::Value) -> K {
    object["apiVersion"] = json!("holdfast.dev/v1alpha1");
    object["kind"] = json!(kind);
    serde_json::from_value(object).unwrap()
}

pub fn act(cluster: &mut Cluster) {
    let policy = POLICIES[cluster.rng.usize(..POLICIES.len())];
    match cluster.rng.u8(..27) {
        0..=3 => ask_for_a_backup(cluster, policy),
        4..=7 => ask_for_a_restore(cluster, policy),
        8 => delete_a_backup(cluster),
        9 => delete_a_job(cluster),
        10..=11 => cluster.store_is_up = !cluster.store_is_up,
        12..=14 => cluster.store_is_up = true,
        15 => delete_a_restore(cluster),
        16 => accept(cluster),
        20 => damage(cluster),
        21 => ask_for_a_verification(cluster),
        22 => cluster.refuses_jobs_after = Some(cluster.rng.usize(..2)),
        23 => cluster.refuses_backups = true,
        24..=26 => (cluster.refuses_jobs_after, cluster.refuses_backups) = (None, false),
        _ => edit_a_policy(cluster, policy),
    }
}

/// From here on nothing goes wrong, and nothing more is asked for.
pub fn make_peace(cluster: &mut Cluster) {
    cluster.faulty = false;
    cluster.left_running = 2;
    cluster.store_is_up = true;
    (cluster.refuses_jobs_after, cluster.refuses_backups) = (None, false);
    for policy in POLICIES {
        edit(cluster, policy, |p| p.spec.suspend = true);
    }
}

/// One more run of each policy, for what retention has left to do; and everything there is to be verified.
pub fn ask_once_more(cluster: &mut Cluster) {
    for policy in POLICIES {
        ask_for_a_backup(cluster, policy);
    }
    for name in cluster.backups.live.keys().cloned().collect::<Vec<_>>() {
        verify(cluster, &name);
    }
}

fn ask_for_a_backup(cluster: &mut Cluster, policy: &str) {
    let name = format!("by-hand-{}", cluster.next_version());
    let sources = (policy == "shop" && cluster.faulty && cluster.chance(20)).then(|| vec!["db"]);
    let deletion = if cluster.faulty && cluster.chance(20) { "Delete" } else { "Retain" };
    let mut spec = json!({"policyRef": {"name": policy}, "deletionPolicy": deletion});
    if let Some(sources) = sources {
        spec["sources"] = json!(sources);
    }
    let mut backup: Backup = of("Backup", json!({"metadata": {"name": name}, "spec": spec}));
    backup.metadata = cluster.created(backup.metadata);
    cluster.backups.put(&name, backup);
}

fn ask_for_a_restore(cluster: &mut Cluster, policy: &str) {
    let name = format!("undo-{}", cluster.next_version());
    let complete: Vec<String> = cluster
        .backups
        .live
        .iter()
        .filter(|(_, b)| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Completed))
        .map(|(name, _)| name.clone())
        .collect();
    let from = match cluster.rng.usize(..=complete.len()) {
        0 => json!({"policy": {"name": policy}}),
        n => json!({"backup": complete[n - 1]}),
    };
    let mut request: RestoreRequest = of("RestoreRequest", json!({"metadata": {"name": name}, "spec": {"from": from}}));
    request.metadata = cluster.created(request.metadata);
    cluster.restores.put(&name, request);
}

fn one_of<K>(cluster: &mut Cluster, names: impl Fn(&Cluster) -> Vec<K>) -> Option<K> {
    let mut names = names(cluster);
    (!names.is_empty()).then(|| names.swap_remove(cluster.rng.usize(..names.len())))
}

fn delete_a_backup(cluster: &mut Cluster) {
    if let Some(name) = one_of(cluster, |c| c.backups.live.keys().cloned().collect()) {
        delete_backup(cluster, &name);
    }
}

/// As the API server deletes it: what has finalizers is marked first.
pub fn delete_backup(cluster: &mut Cluster, name: &str) {
    let Some(mut backup) = cluster.backups.live.get(name).cloned() else { return };
    cluster.tally.backup_deleted(&backup);
    if backup.metadata.finalizers.iter().flatten().next().is_none() {
        cluster.backups.remove(name);
        return cluster.collect_garbage(backup.metadata.uid.as_deref().unwrap());
    }
    if backup.metadata.deletion_timestamp.is_none() {
        backup.metadata.deletion_timestamp = Some(Time(cluster.now));
        backup.metadata.resource_version = Some(cluster.next_version());
        cluster.backups.put(name, backup);
    }
}

fn delete_a_job(cluster: &mut Cluster) {
    if let Some(name) = one_of(cluster, |c| c.work.keys().cloned().collect()) {
        cluster.tally.forgive(&cluster.work[&name]);
        cluster.remove_job(&name);
    }
}

fn delete_a_restore(cluster: &mut Cluster) {
    if let Some(name) = one_of(cluster, |c| c.restores.live.keys().cloned().collect()) {
        let uid = cluster.restores.live[&name].metadata.uid.clone().unwrap();
        cluster.restores.remove(&name);
        cluster.collect_garbage(&uid);
    }
}

fn accept(cluster: &mut Cluster) {
    let Some(name) = one_of(cluster, |c| c.backups.live.keys().cloned().collect()) else { return };
    let mut backup = cluster.backups.live[&name].clone();
    let annotations = backup.metadata.annotations.get_or_insert_default();
    annotations.insert(holdfast::plan::names::ACCEPTED_ANNOTATION.to_owned(), "true".to_owned());
    backup.metadata.resource_version = Some(cluster.next_version());
    cluster.backups.put(&name, backup);
}

/// Something changes what is stored of a run.
fn damage(cluster: &mut Cluster) {
    let run = one_of(cluster, |c| c.bucket.runs.keys().map(|(_, run_id)| run_id.clone()).collect());
    cluster.bucket.damaged.extend(run);
}

fn ask_for_a_verification(cluster: &mut Cluster) {
    if let Some(name) = one_of(cluster, |c| c.backups.live.keys().cloned().collect()) {
        verify(cluster, &name);
    }
}

fn verify(cluster: &mut Cluster, name: &str) {
    let mut backup = cluster.backups.live[name].clone();
    let version = cluster.next_version();
    let annotations = backup.metadata.annotations.get_or_insert_default();
    annotations.insert(holdfast::plan::names::VERIFY_ANNOTATION.to_owned(), version.clone());
    backup.metadata.resource_version = Some(version);
    cluster.backups.put(name, backup);
}

fn edit_a_policy(cluster: &mut Cluster, policy: &str) {
    let what = cluster.rng.u8(..4);
    edit(cluster, policy, |p| match what {
        0 => p.spec.suspend = !p.spec.suspend,
        1 => p.spec.retention.as_mut().unwrap().keep_last = Some(1),
        2 => p.spec.retention.as_mut().unwrap().keep_last = Some(4),
        _ => p.spec.schedule = Some("*/5 * * * *".into()),
    });
}

fn edit(cluster: &mut Cluster, policy: &str, change: impl FnOnce(&mut BackupPolicy)) {
    let mut object = cluster.policies.live[policy].clone();
    change(&mut object);
    object.metadata.generation = object.metadata.generation.map(|g| g + 1);
    object.metadata.resource_version = Some(cluster.next_version());
    assert_eq!(object.metadata.namespace.as_deref(), Some(NAMESPACE));
    cluster.policies.put(policy, object);
}

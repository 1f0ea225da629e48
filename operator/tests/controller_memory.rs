//! A thousand policies with ten thousand backups fit into a small Pod. Reads this process's own memory.

use holdfast::controller::cache::World;
use holdfast::controller::metrics::{Counters, render};
use holdfast::controller::watch::slim;
use holdfast_crds::{Backup, BackupPolicy};
use kube::core::{DeserializeGuard, ObjectList};
use serde_json::{Value, json};

const POLICIES: usize = 1000;
const BACKUPS_EACH: usize = 10;
const PAGE: usize = 200;
/// What the whole controller may need, in MiB.
const LIMIT: u64 = 80;

#[test]
fn a_thousand_policies_and_ten_thousand_backups_stay_small() {
    let before = resident();
    let world = World::default();
    for page in (0..POLICIES).collect::<Vec<_>>().chunks(PAGE) {
        let items = page.iter().map(|i| policy(*i)).collect();
        for object in read::<BackupPolicy>(items) {
            world.policies.put(slim(object));
        }
    }
    let backups: Vec<(usize, usize)> = (0..POLICIES).flat_map(|p| (0..BACKUPS_EACH).map(move |b| (p, b))).collect();
    for page in backups.chunks(PAGE) {
        let items = page.iter().map(|(p, b)| backup(*p, *b)).collect();
        for object in read::<Backup>(items) {
            world.backups.put(slim(object));
        }
    }
    assert_eq!(world.backups.all().len(), POLICIES * BACKUPS_EACH);
    let text = render(Some(&world), &Counters::default()).unwrap();
    assert!(text.contains("policy=\"shop-0999\""));
    let after = resident();
    println!("{} MiB before, {} MiB after", before >> 20, after >> 20);
    // A controller without anything to look after needs about 16 MiB.
    assert!((after - before) >> 20 <= LIMIT - 16, "{} MiB more than before", (after - before) >> 20);
}

/// A page of a listing, as the API server sends it and the watch reads it.
fn read<K>(items: Vec<Value>) -> Vec<K>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + Clone,
{
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
    let text = serde_json::to_string(&list).unwrap();
    drop(list);
    let page: ObjectList<DeserializeGuard<K>> = serde_json::from_str(&text).unwrap();
    page.items.into_iter().map(|object| object.0.unwrap()).collect()
}

fn metadata(name: &str, uid: &str) -> Value {
    let fields: Value = (0..30).map(|i| (format!("f:field-{i}"), json!({}))).collect::<serde_json::Map<_, _>>().into();
    json!({
        "name": name, "namespace": "shop", "uid": uid, "generation": 1, "resourceVersion": "123456",
        "creationTimestamp": "2026-11-21T02:00:00Z",
        "labels": {"app.kubernetes.io/managed-by": "holdfast", "holdfast.dev/policy": "shop", "holdfast.dev/scheduled": "true"},
        "annotations": {"holdfast.dev/slot": "2026-11-21T02:00:00Z"},
        "managedFields": [{"manager": "holdfast", "operation": "Apply", "apiVersion": "holdfast.dev/v1alpha1",
            "time": "2026-11-21T02:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": fields}}],
    })
}

fn condition(type_: &str) -> Value {
    json!({"type": type_, "status": "True", "reason": "Completed", "observedGeneration": 1,
        "message": "42 items, 123456 bytes stored in 1m12s", "lastTransitionTime": "2026-11-21T02:01:12Z"})
}

fn policy(number: usize) -> Value {
    let name = format!("shop-{number:04}");
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "BackupPolicy",
        "metadata": metadata(&name, &format!("7f1f1a0c-0000-4000-8000-{number:012}")),
        "spec": {
            "storeRef": {"name": "main"}, "schedule": "0 2 * * *",
            "sources": [{"name": "db", "postgres": {"host": "postgres.shop.svc", "database": "shop", "credentialsSecret": {"name": "postgres"}}}],
            "retention": {"keepLast": 7},
        },
        "status": {"conditions": [condition("Ready"), condition("LastBackupSucceeded")], "storedBytes": 123_456,
            "lastSuccessfulTime": "2026-11-21T02:01:12Z", "backups": {"complete": 10, "failed": 0}},
    })
}

fn backup(policy: usize, number: usize) -> Value {
    let policy_name = format!("shop-{policy:04}");
    let name = format!("{policy_name}-202611{:02}-020000", number + 1);
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "Backup",
        "metadata": metadata(&name, &format!("7f1f1a0c-0000-4000-{number:04}-{policy:012}")),
        "spec": {"policyRef": {"name": policy_name}},
        "status": {
            "phase": "Completed", "runId": "20261121T020000Z-3f9a1c", "store": "main", "duration": "1m12s",
            "startTime": "2026-11-21T02:00:00Z", "completionTime": "2026-11-21T02:01:12Z",
            "storedBytes": 123_456, "sourceBytes": 1_234_567, "items": 42,
            "artifacts": [{"source": "db", "phase": "Completed", "storedBytes": 123_456, "sourceBytes": 1_234_567, "items": 42,
                "key": "prod/shop/shop-0001/20261121T020000Z-3f9a1c/db/shop-a1b2c3.pgdump.zst",
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "serverVersion": "16.4", "toolVersion": "pg_dump 18.1", "encrypted": false}],
            "conditions": [condition("Complete")],
        },
    })
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

//! Runs as a worker would have left them in the bucket.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use holdfast::store::keys::PolicyFolder;
use holdfast::store::manifest::{ArtifactEntry, FORMAT_VERSION, Manifest};
use holdfast::task::Scope;

use crate::s3::TestBucket;

/// Puts a source of a run into the bucket, as a worker would have.
pub async fn put_run(test: &TestBucket, scope: &Scope, run_id: &str, source: &str, run_sources: &[&str]) {
    let folder = PolicyFolder::new(&test.store().s3, scope).run(run_id).source(source);
    let key = folder.artifact("shop.pgdump", "abc123", 3, false);
    test.put(&key, "content").await;
    let slot = holdfast::store::keys::slot_of_run(run_id).unwrap();
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        run_id: run_id.into(),
        cluster_uid: scope.cluster_uid.clone(),
        namespace: scope.namespace.clone(),
        policy: scope.policy.clone(),
        policy_uid: scope.policy_uid.clone(),
        source: source.into(),
        engine: "postgres".into(),
        run_sources: run_sources.iter().map(ToString::to_string).collect(),
        slot,
        start_time: slot,
        end_time: slot,
        artifacts: vec![ArtifactEntry {
            key,
            name: "shop.pgdump".into(),
            format: "pgdump-custom".into(),
            stored_bytes: 7,
            compression: "zstd".into(),
            ..ArtifactEntry::default()
        }],
        items: 1,
        consistency: "snapshot".into(),
        server_version: "15".into(),
        tool_version: "pg_dump 15".into(),
        holdfast_version: "0".into(),
        writer: None,
        backup: None,
        safety_for: None,
        seal: None,
        unknown: std::collections::BTreeMap::new(),
    };
    test.put(&folder.manifest(), manifest.to_bytes().unwrap()).await;
}

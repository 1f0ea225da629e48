//! What is exposed is what the objects say, and what rules, dashboard and documents speak of is exposed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use holdfast_crds::{
    ArtifactStatus, BackupCounts, BackupPhase, BackupPolicyStatus, BackupStatus, ConditionType, PolicyVerification,
    Reason, RecoveryWindow, RestoreRequest, RestoreRequestStatus, VerificationStatus, VerifySpec, condition,
};

use super::*;
use crate::plan::fixture::{at, backup_with, policy, ready_store};

/// A world in which there is something to say for every figure.
fn full() -> World {
    let world = World::default();
    let mut shop = policy();
    shop.metadata.creation_timestamp = Some(Time(at(7)));
    shop.spec.max_age = Some("26h".into());
    shop.status = Some(BackupPolicyStatus {
        conditions: vec![
            condition(ConditionType::Ready, Some(true), Reason::Ready, "", None, at(1)),
            condition(ConditionType::Protected, Some(false), Reason::BackupTooOld, "", None, at(1)),
            condition(ConditionType::Plausible, Some(false), Reason::Suspicious, "", None, at(1)),
            condition(ConditionType::RetentionApplied, Some(false), Reason::StoreRefused, "", None, at(1)),
        ],
        last_successful_time: Some(Time(at(5000))),
        next_scheduled_time: Some(Time(at(9000))),
        recovery_window: Some(RecoveryWindow { from: Time(at(100)), to: Time(at(4000)) }),
        recovery_point: Some(Time(at(4000))),
        stored_bytes: Some(77),
        growth_bytes_per_day: Some(172_800),
        backups: Some(BackupCounts { complete: 4, failed: 1, ..BackupCounts::default() }),
        consecutive_failures: Some(2),
        last_verification_time: Some(Time(at(4500))),
        verification: Some(PolicyVerification { whole: 3, damaged: 1, ..PolicyVerification::default() }),
        ..BackupPolicyStatus::default()
    });
    world.policies.put(shop);
    world.stores.put(ready_store());
    let failed = BackupStatus {
        phase: BackupPhase::Failed,
        conditions: vec![condition(ConditionType::Complete, Some(false), Reason::SourceRefused, "", None, at(1))],
        ..BackupStatus::default()
    };
    world.backups.put(backup_with("a", 1, failed));
    let complete = |sources: &[&str], end: i64, items: i64| BackupStatus {
        phase: BackupPhase::Completed,
        start_time: Some(Time(at(10))),
        completion_time: Some(Time(at(end))),
        items: Some(items),
        stored_bytes: Some(7),
        source_bytes: Some(70),
        artifacts: sources
            .iter()
            .map(|s| ArtifactStatus { source: (*s).into(), ..ArtifactStatus::default() })
            .collect(),
        ..BackupStatus::default()
    };
    let tried = |at_second, reason| VerificationStatus {
        last_attempt_time: Some(Time(at(at_second))),
        reason,
        ..VerificationStatus::default()
    };
    let locked = Some(tried(4600, Some(Reason::KeyMissing)));
    world.backups.put(backup_with("b", 2, BackupStatus { verification: locked, ..complete(&["db"], 40, 3) }));
    let whole = Some(tried(4500, None));
    world.backups.put(backup_with("older", 2, BackupStatus { verification: whole, ..complete(&["db"], 30, 5) }));
    world.backups.put(backup_with("of-other-sources", 2, complete(&["gone"], 50, 9)));
    let undo = serde_json::json!({
        "apiVersion": "holdfast.dev/v1alpha1",
        "kind": "RestoreRequest",
        "metadata": {"name": "undo", "namespace": "shop"},
        "spec": {"from": {"backup": "b"}},
    });
    let mut undo: RestoreRequest = serde_json::from_value(undo).unwrap();
    undo.status = Some(RestoreRequestStatus {
        phase: BackupPhase::Failed,
        completion_time: Some(Time(at(6000))),
        conditions: vec![condition(ConditionType::Complete, Some(false), Reason::TargetNotEmpty, "", None, at(1))],
        ..RestoreRequestStatus::default()
    });
    world.restores.put(undo);
    world
}

fn exposed() -> String {
    let counters = Counters::default();
    counters.watching("Backup", Some("shop"), true);
    counters.reconciled(Subject::Backup, Duration::from_millis(3), true);
    counters.started(0.2);
    render(Some(&full()), &counters).unwrap()
}

#[test]
fn the_figures_are_those_of_the_resources() {
    let text = exposed();
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        r#"holdfast_backup_last_success_timestamp_seconds{namespace="shop",policy="shop"} 5000.0"#,
        r#"holdfast_backup_next_run_timestamp_seconds{namespace="shop",policy="shop"} 9000.0"#,
        r#"holdfast_backup_stored_bytes{namespace="shop",policy="shop"} 77.0"#,
        r#"holdfast_backup_growth_bytes_per_second{namespace="shop",policy="shop"} 2.0"#,
        r#"holdfast_backup_complete{namespace="shop",policy="shop"} 4.0"#,
        r#"holdfast_backup_data_missing{namespace="shop",policy="shop"} 0.0"#,
        r#"holdfast_backup_data_elsewhere{namespace="shop",policy="shop"} 0.0"#,
        r#"holdfast_backup_failed{namespace="shop",policy="shop",reason="SourceRefused"} 1.0"#,
        r#"holdfast_backup_consecutive_failures{namespace="shop",policy="shop"} 2.0"#,
        r#"holdfast_backup_last_duration_seconds{namespace="shop",policy="shop"} 30.0"#,
        r#"holdfast_backup_last_items{namespace="shop",policy="shop"} 3.0"#,
        r#"holdfast_backup_last_stored_bytes{namespace="shop",policy="shop"} 7.0"#,
        r#"holdfast_backup_last_source_bytes{namespace="shop",policy="shop"} 70.0"#,
        r#"holdfast_policy_creation_timestamp_seconds{namespace="shop",policy="shop"} 7.0"#,
        r#"holdfast_policy_max_age_seconds{namespace="shop",policy="shop"} 93600.0"#,
        r#"holdfast_policy_protected{namespace="shop",policy="shop"} 0.0"#,
        r#"holdfast_policy_plausible{namespace="shop",policy="shop"} 0.0"#,
        r#"holdfast_policy_ready{namespace="shop",policy="shop"} 1.0"#,
        r#"holdfast_policy_recovery_point_timestamp_seconds{namespace="shop",policy="shop"} 4000.0"#,
        r#"holdfast_policy_recovery_window_start_timestamp_seconds{namespace="shop",policy="shop"} 100.0"#,
        r#"holdfast_policy_retention_applied{namespace="shop",policy="shop"} 0.0"#,
        r#"holdfast_policy_last_verification_timestamp_seconds{namespace="shop",policy="shop"} 4500.0"#,
        r#"holdfast_policy_backups_verified{namespace="shop",policy="shop"} 3.0"#,
        r#"holdfast_policy_backups_damaged{namespace="shop",policy="shop"} 1.0"#,
        r#"holdfast_policy_verification_failed{namespace="shop",policy="shop"} 1.0"#,
        r#"holdfast_policy_suspended{namespace="shop",policy="shop"} 0.0"#,
        r#"holdfast_store_ready{namespace="shop",store="main"} 1.0"#,
        r#"holdfast_store_last_probe_timestamp_seconds{namespace="shop",store="main"} 0.0"#,
        r#"holdfast_restores{namespace="shop",dry_run="false",phase="Failed",reason="TargetNotEmpty"} 1.0"#,
        r#"holdfast_restore_end_timestamp_seconds{namespace="shop",restore="undo",dry_run="false",phase="Failed",reason="TargetNotEmpty"} 6000.0"#,
        r#"holdfast_objects{kind="Backup",phase="Failed"} 1.0"#,
        &format!(r#"holdfast_build_info{{version="{version}"}} 1"#),
        "holdfast_leader 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_policy_that_never_had_a_backup_has_none_since_1970_and_promises_nothing() {
    let world = World::default();
    world.policies.put(policy());
    let text = render(Some(&world), &Counters::default()).unwrap();
    for name in ["holdfast_backup_last_success_timestamp_seconds", "holdfast_policy_recovery_point_timestamp_seconds"] {
        let line = format!(r#"{name}{{namespace="shop",policy="shop"}} 0.0"#);
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("holdfast_policy_protected") && !text.contains("holdfast_policy_max_age"), "{text}");
    assert!(!text.contains("verification") && !text.contains("damaged"), "{text}");

    let mut verifying = policy();
    verifying.spec.verify = Some(VerifySpec { schedule: "@weekly".into(), max_backups: 3 });
    world.policies.put(verifying);
    let text = render(Some(&world), &Counters::default()).unwrap();
    let line = r#"holdfast_policy_last_verification_timestamp_seconds{namespace="shop",policy="shop"} 0.0"#;
    assert!(text.lines().any(|l| l == line) && !text.contains("verification_failed"), "{text}");
}

#[test]
fn a_controller_that_does_not_lead_says_nothing_of_the_objects() {
    let text = render(None, &Counters::default()).unwrap();
    assert!(text.lines().any(|l| l == "holdfast_leader 0"), "{text}");
    assert!(!text.contains("holdfast_policy") && !text.contains("holdfast_objects"), "{text}");
}

#[test]
fn rules_and_dashboard_and_their_tests_speak_of_what_is_exposed() {
    let series = series();
    for file in
        ["charts/holdfast/monitoring/rules.yaml", "charts/holdfast/monitoring/dashboard.json", "e2e/tests/alerts.yaml"]
    {
        let text = read(file);
        let names: Vec<&str> = names(&text).collect();
        assert!(names.len() > 5, "{file} speaks of {names:?} alone");
        for name in names {
            assert!(series.contains_key(name), "{file} speaks of {name}, which the controller does not expose");
        }
    }
    // Series that a test of the alerts makes up have the labels that the real ones have; `pod` is that of whoever scrapes.
    for line in read("e2e/tests/alerts.yaml").lines() {
        let Some(made_up) = line.trim().strip_prefix("- series: ") else { continue };
        let (name, labels) = made_up.split_once('{').unwrap_or((made_up, "}"));
        let keys: BTreeSet<&str> = labels
            .split(',')
            .filter_map(|l| l.trim().split_once('='))
            .map(|(k, _)| k)
            .filter(|k| *k != "pod")
            .collect();
        let real = &series[name];
        assert_eq!(keys, real.iter().map(String::as_str).collect(), "{made_up}");
    }
}

#[test]
fn the_documents_list_each_metric() {
    let page = read("docs/operations.md");
    let table = page.split("## Metrics").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let listed: BTreeSet<&str> = names(table).collect();
    let histogram = |name: &&str| ["_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end));
    let series = series();
    let mut wanted: BTreeSet<&str> = series.keys().map(String::as_str).filter(|n| !histogram(n)).collect();
    wanted.extend(["holdfast_backup_start_latency_seconds", "holdfast_reconcile_duration_seconds"]);
    assert_eq!(listed, wanted, "docs/operations.md, Metrics");
}

/// The names of all series, and their labels.
fn series() -> BTreeMap<String, BTreeSet<String>> {
    let text = exposed();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let labels = line.strip_prefix(&name).and_then(|l| l.strip_prefix('{')).and_then(|l| l.split('}').next());
            let keys =
                labels.unwrap_or_default().split(',').filter_map(|l| l.split_once('=')).map(|(k, _)| k.to_owned());
            (name, keys.filter(|k| k != "le").collect())
        })
        .collect()
}

/// Everything in a text that looks like the name of one of our metrics.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("holdfast_"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

//! Metrics: what the resources say, computed when asked for, and counts of the controller's own work. Acts on nothing.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use holdfast_crds::{BackupPhase, ConditionType, is_true};
use kube::ResourceExt;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::cache::World;
use super::queue::Subject;

/// Counts of the controller's own work.
pub struct Counters {
    reconciles: Family<KindLabel, Counter>,
    errors: Family<KindLabel, Counter>,
    durations: Family<KindLabel, Histogram, fn() -> Histogram>,
    start_latency: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    namespace: String,
    policy: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    namespace: String,
    policy: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    namespace: String,
    store: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    kind: &'static str,
    phase: String,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            reconciles: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(|| {
                Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
            }),
            start_latency: Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0]),
        }
    }
}

impl Counters {
    /// One attempt at an object is over.
    pub fn reconciled(&self, subject: Subject, took: Duration, failed: bool) {
        let label = KindLabel { kind: subject.as_str() };
        self.reconciles.get_or_create(&label).inc();
        self.durations.get_or_create(&label).observe(took.as_secs_f64());
        if failed {
            self.errors.get_or_create(&label).inc();
        }
    }

    /// The Jobs of a run were created this many seconds after its slot.
    pub fn started(&self, seconds: f64) {
        self.start_latency.observe(seconds.max(0.0));
    }
}

/// Everything in the OpenMetrics text format. `world` is there while this controller leads.
///
/// # Errors
/// Only where the text cannot be written.
pub fn render(world: Option<&World>, counters: &Counters) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("holdfast");
    let leads: Gauge = Gauge::default();
    leads.set(i64::from(world.is_some()));
    registry.register("leader", "1 while this controller leads", leads);
    registry.register("reconciles", "Attempts at bringing an object where it should be", counters.reconciles.clone());
    registry.register("reconcile_errors", "Attempts that failed and are made again", counters.errors.clone());
    registry.register_with_unit(
        "reconcile_duration",
        "How long an attempt took",
        Unit::Seconds,
        counters.durations.clone(),
    );
    registry.register_with_unit(
        "backup_start_latency",
        "From a slot to its Jobs",
        Unit::Seconds,
        counters.start_latency.clone(),
    );
    if let Some(world) = world {
        of_policies(world, &mut registry);
        of_stores(world, &mut registry);
        of_phases(world, &mut registry);
    }
    let mut body = String::new();
    text::encode(&mut body, &registry)?;
    Ok(body)
}

type Figures<L> = Family<L, Gauge<f64, AtomicU64>>;

fn of_policies(world: &World, registry: &mut Registry) {
    let figures = || Figures::<PolicyLabels>::default();
    let (last_success, next_run, stored, items, duration) = (figures(), figures(), figures(), figures(), figures());
    let (ready, failing, complete) = (figures(), figures(), figures());
    let failures = Figures::<FailureLabels>::default();
    for policy in world.policies.all() {
        let labels = PolicyLabels { namespace: policy.namespace().unwrap_or_default(), policy: policy.name_any() };
        let status = policy.status.clone().unwrap_or_default();
        let set = |family: &Figures<PolicyLabels>, value: Option<f64>| {
            if let Some(value) = value {
                family.get_or_create(&labels).set(value);
            }
        };
        // A policy that never succeeded has succeeded at time 0: an alert on age needs no special case.
        set(&last_success, Some(status.last_successful_time.as_ref().map_or(0.0, |t| t.0.as_second() as f64)));
        set(&next_run, status.next_scheduled_time.as_ref().map(|t| t.0.as_second() as f64));
        set(&stored, status.stored_bytes.map(|bytes| bytes as f64));
        set(&failing, status.consecutive_failures.map(f64::from));
        set(&complete, status.backups.map(|b| f64::from(b.complete)));
        set(&ready, Some(f64::from(u8::from(is_true(&status.conditions, ConditionType::Ready)))));
        let backups = world.backups.of(&super::cache::of_policy(&labels.namespace, &labels.policy));
        let mut last: Option<(i64, f64, Option<i64>)> = None;
        let mut by_reason: BTreeMap<String, f64> = BTreeMap::new();
        for backup in &backups {
            let Some(status) = &backup.status else { continue };
            match status.phase {
                BackupPhase::Completed => {
                    let (Some(start), Some(end)) = (&status.start_time, &status.completion_time) else { continue };
                    let took = end.0.duration_since(start.0).as_secs_f64();
                    if last.is_none_or(|(at, ..)| at <= end.0.as_second()) {
                        last = Some((end.0.as_second(), took, status.items));
                    }
                }
                BackupPhase::Failed => {
                    let complete = status.conditions.iter().find(|c| c.type_ == ConditionType::Complete.as_str());
                    *by_reason.entry(complete.map(|c| c.reason.clone()).unwrap_or_default()).or_default() += 1.0;
                }
                _ => {}
            }
        }
        if let Some((_, took, count)) = last {
            set(&duration, Some(took));
            set(&items, count.map(|n| n as f64));
        }
        for (reason, count) in by_reason {
            let labels = FailureLabels { namespace: labels.namespace.clone(), policy: labels.policy.clone(), reason };
            failures.get_or_create(&labels).set(count);
        }
    }
    registry.register_with_unit(
        "backup_last_success_timestamp",
        "When the newest complete backup of a policy ended; 0 where there never was one",
        Unit::Seconds,
        last_success,
    );
    registry.register_with_unit("backup_next_run_timestamp", "The next slot of a policy", Unit::Seconds, next_run);
    registry.register_with_unit(
        "backup_stored",
        "What the complete backups of a policy hold in the bucket",
        Unit::Bytes,
        stored,
    );
    registry.register("backup_last_items", "Items in the newest complete backup of a policy", items);
    registry.register_with_unit(
        "backup_last_duration",
        "How long the newest complete backup took",
        Unit::Seconds,
        duration,
    );
    registry.register("backup_complete", "Complete backups of a policy", complete);
    registry.register("backup_failed", "Failed backups of a policy that are still kept, by reason", failures);
    registry.register("backup_consecutive_failures", "Backups that failed since the last complete one", failing);
    registry.register("policy_ready", "1 while a policy can run", ready);
}

fn of_stores(world: &World, registry: &mut Registry) {
    let ready = Figures::<StoreLabels>::default();
    for store in world.stores.all() {
        let labels = StoreLabels { namespace: store.namespace().unwrap_or_default(), store: store.name_any() };
        let conditions = store.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        ready.get_or_create(&labels).set(f64::from(u8::from(is_true(conditions, ConditionType::Ready))));
    }
    registry.register("store_ready", "1 while a store has been proved", ready);
}

fn of_phases(world: &World, registry: &mut Registry) {
    let phases = Figures::<PhaseLabels>::default();
    let count = |kind: &'static str, phase: BackupPhase| {
        phases.get_or_create(&PhaseLabels { kind, phase: format!("{phase:?}") }).inc();
    };
    for backup in world.backups.all() {
        count("Backup", backup.status.as_ref().map(|s| s.phase).unwrap_or_default());
    }
    for restore in world.restores.all() {
        count("RestoreRequest", restore.status.as_ref().map(|s| s.phase).unwrap_or_default());
    }
    registry.register("objects", "Backups and restores, by phase", phases);
}

#[cfg(test)]
mod tests {
    use holdfast_crds::{BackupPolicyStatus, BackupStatus, Reason, condition};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::plan::fixture::{at, backup_with, policy, ready_store};

    #[test]
    fn the_figures_are_those_of_the_resources() {
        let world = World::default();
        let mut shop = policy();
        shop.status = Some(BackupPolicyStatus {
            conditions: vec![condition(ConditionType::Ready, Some(true), Reason::Ready, "", None, at(1))],
            last_successful_time: Some(Time(at(5000))),
            stored_bytes: Some(77),
            consecutive_failures: Some(2),
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
        let complete = BackupStatus {
            phase: BackupPhase::Completed,
            start_time: Some(Time(at(10))),
            completion_time: Some(Time(at(40))),
            items: Some(3),
            ..BackupStatus::default()
        };
        world.backups.put(backup_with("b", 2, complete));
        let text = render(Some(&world), &Counters::default()).unwrap();
        for line in [
            r#"holdfast_backup_last_success_timestamp_seconds{namespace="shop",policy="shop"} 5000.0"#,
            r#"holdfast_backup_stored_bytes{namespace="shop",policy="shop"} 77.0"#,
            r#"holdfast_backup_failed{namespace="shop",policy="shop",reason="SourceRefused"} 1.0"#,
            r#"holdfast_backup_consecutive_failures{namespace="shop",policy="shop"} 2.0"#,
            r#"holdfast_backup_last_duration_seconds{namespace="shop",policy="shop"} 30.0"#,
            r#"holdfast_policy_ready{namespace="shop",policy="shop"} 1.0"#,
            r#"holdfast_store_ready{namespace="shop",store="main"} 1.0"#,
            r#"holdfast_objects{kind="Backup",phase="Failed"} 1.0"#,
            "holdfast_leader 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(render(None, &Counters::default()).unwrap().contains("holdfast_leader 0"));
    }
}

//! Figures of each policy, from its status and its Backups. Acts on nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_crds::{
    Backup, BackupPhase, BackupPolicy, BackupPolicyStatus, BackupStatus, ConditionType, MaxAge, is_true,
};
use kube::ResourceExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::{Registry, Unit};

use super::{Figures, flag, seconds};
use crate::controller::cache::{World, of_policy};
use crate::plan::found::is_foreign;
use crate::plan::policy::is_of_all_sources;
use crate::plan::restore::is_safety;
use crate::plan::status::find;

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

/// What is known of one policy.
struct Facts {
    policy: Arc<BackupPolicy>,
    status: BackupPolicyStatus,
    backups: Vec<Arc<Backup>>,
    /// Its newest complete backup of all its sources.
    last: Option<BackupStatus>,
}

/// One figure a policy: its name without prefix and unit, what it means, and where it comes from; none where there is nothing to say.
struct Figure {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: Value,
}

type Value = fn(&Facts) -> Option<f64>;

/// Registers the figures of all policies.
pub(super) fn register(world: &World, registry: &mut Registry) {
    let policies: Vec<(PolicyLabels, Facts)> = world.policies.all().into_iter().map(|p| facts(world, p)).collect();
    for Figure { name, help, unit, value } in figures() {
        let family = Figures::<PolicyLabels>::default();
        for (labels, facts) in &policies {
            if let Some(value) = value(facts) {
                family.get_or_create(labels).set(value);
            }
        }
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family),
            None => registry.register(name, help, family),
        }
    }
    failures(&policies, registry);
}

fn facts(world: &World, policy: Arc<BackupPolicy>) -> (PolicyLabels, Facts) {
    let labels = PolicyLabels { namespace: policy.namespace().unwrap_or_default(), policy: policy.name_any() };
    let mut backups = world.backups.of(&of_policy(&labels.namespace, &labels.policy));
    backups.retain(|backup| !is_foreign(backup) && !is_safety(backup));
    let full = backups.iter().filter(|b| is_of_all_sources(b, &policy)).filter_map(|b| b.status.clone());
    let last = full.max_by_key(|s| s.completion_time.as_ref().map(|t| t.0));
    let status = policy.status.clone().unwrap_or_default();
    (labels, Facts { policy, status, backups, last })
}

/// The whole list; docs/operations.md says what each is good for.
#[allow(clippy::too_many_lines, reason = "it is one list")]
fn figures() -> Vec<Figure> {
    vec![
        // A policy that never succeeded has succeeded at time 0: an alert on age needs no special case.
        time(
            "backup_last_success_timestamp",
            "When the newest complete backup of a policy ended; 0 where there never was one",
            |f| Some(f.status.last_successful_time.as_ref().map_or(0.0, seconds)),
        ),
        time("backup_next_run_timestamp", "The next slot of a policy", |f| {
            f.status.next_scheduled_time.as_ref().map(seconds)
        }),
        time("backup_last_duration", "How long the newest complete backup of all sources of a policy took", |f| {
            let last = f.last.as_ref()?;
            Some(last.completion_time.as_ref()?.0.duration_since(last.start_time.as_ref()?.0).as_secs_f64())
        }),
        plain("backup_last_items", "Items in the newest complete backup of all sources of a policy", |f| {
            Some(f.last.as_ref()?.items? as f64)
        }),
        bytes("backup_last_stored", "Size of the newest complete backup of all sources in the bucket", |f| {
            Some(f.last.as_ref()?.stored_bytes? as f64)
        }),
        bytes("backup_last_source", "Size of the newest complete backup of all sources before compression", |f| {
            Some(f.last.as_ref()?.source_bytes? as f64)
        }),
        bytes("backup_stored", "What the complete backups of a policy hold in the bucket", |f| {
            Some(f.status.stored_bytes? as f64)
        }),
        Figure {
            name: "backup_growth",
            help: "How fast a backup of all sources of a policy grows in the bucket; negative where it shrinks",
            unit: Some(Unit::Other("bytes_per_second".to_owned())),
            value: |f| Some(f.status.growth_bytes_per_day? as f64 / 86_400.0),
        },
        plain("backup_complete", "Complete backups of a policy", |f| Some(f64::from(f.status.backups?.complete))),
        plain("backup_data_missing", "Backups of a policy whose data is gone from the bucket", |f| {
            Some(f64::from(f.status.backups?.missing))
        }),
        plain(
            "backup_data_elsewhere",
            "Backups of a policy whose data is in another place than their store says",
            |f| Some(f64::from(f.status.backups?.elsewhere)),
        ),
        plain("backup_consecutive_failures", "Backups that failed since the last complete one", |f| {
            f.status.consecutive_failures.map(f64::from)
        }),
        time(
            "policy_recovery_point_timestamp",
            "The instant that each source of a policy can be brought back to; 0 while one is in no complete backup",
            |f| Some(f.status.recovery_point.as_ref().map_or(0.0, seconds)),
        ),
        time("policy_recovery_window_start_timestamp", "The oldest instant of a policy that can be restored", |f| {
            f.status.recovery_window.as_ref().map(|w| seconds(&w.from))
        }),
        time("policy_max_age", "spec.maxAge of a policy, where it is set", |f| {
            f.policy.spec.max_age.as_ref()?.parse().ok().map(|age: MaxAge| age.seconds as f64)
        }),
        plain(
            "policy_protected",
            "1 while each source of a policy is in a complete backup younger than maxAge; absent without maxAge",
            |f| Some(flag(find(&f.status.conditions, ConditionType::Protected)?.status == "True")),
        ),
        time("policy_creation_timestamp", "When a policy was created", |f| {
            f.policy.metadata.creation_timestamp.as_ref().map(seconds)
        }),
        plain("policy_ready", "1 while a policy can run", |f| {
            Some(flag(is_true(&f.status.conditions, ConditionType::Ready)))
        }),
        plain(
            "policy_plausible",
            "1 where the newest complete backup of a policy is as large as those before it let expect; absent before there is one",
            |f| Some(flag(find(&f.status.conditions, ConditionType::Plausible)?.status == "True")),
        ),
        plain("policy_suspended", "1 while the schedule of a policy is suspended", |f| {
            Some(flag(f.policy.spec.suspend))
        }),
        plain(
            "policy_retention_applied",
            "1 where retention was applied after the newest complete backup of a policy; absent before the first time",
            |f| Some(flag(find(&f.status.conditions, ConditionType::RetentionApplied)?.status == "True")),
        ),
        // A policy that verifies and never did has done so at time 0, as with the backups themselves.
        time(
            "policy_last_verification_timestamp",
            "When a backup of a policy was last read to its end; 0 where it verifies and never did; absent where it does not",
            |f| {
                let last = f.status.last_verification_time.as_ref().map(seconds);
                last.or_else(|| f.policy.spec.verify.as_ref().map(|_| 0.0))
            },
        ),
        plain(
            "policy_backups_verified",
            "Complete backups of a policy that were read to their ends and are whole",
            |f| Some(f64::from(f.status.verification.as_ref()?.whole)),
        ),
        plain("policy_backups_damaged", "Complete backups of a policy that a verification found damaged", |f| {
            Some(f64::from(f.status.verification.as_ref()?.damaged))
        }),
        plain(
            "policy_verification_failed",
            "1 where the last verification of a backup of a policy could not be done; absent before the first",
            |f| {
                let latest = f.backups.iter().filter_map(|b| b.status.as_ref()?.verification.as_ref());
                let latest = latest.max_by_key(|v| v.last_attempt_time.as_ref().map(|t| t.0))?;
                Some(flag(latest.reason.is_some()))
            },
        ),
    ]
}

fn plain(name: &'static str, help: &'static str, value: Value) -> Figure {
    Figure { name, help, unit: None, value }
}

fn time(name: &'static str, help: &'static str, value: Value) -> Figure {
    Figure { name, help, unit: Some(Unit::Seconds), value }
}

fn bytes(name: &'static str, help: &'static str, value: Value) -> Figure {
    Figure { name, help, unit: Some(Unit::Bytes), value }
}

fn failures(policies: &[(PolicyLabels, Facts)], registry: &mut Registry) {
    let failures = Figures::<FailureLabels>::default();
    for (labels, facts) in policies {
        let mut by_reason: BTreeMap<String, f64> = BTreeMap::new();
        let failed = facts.backups.iter().filter_map(|b| b.status.as_ref()).filter(|s| s.phase == BackupPhase::Failed);
        for status in failed {
            let complete = find(&status.conditions, ConditionType::Complete);
            *by_reason.entry(complete.map(|c| c.reason.clone()).unwrap_or_default()).or_default() += 1.0;
        }
        for (reason, count) in by_reason {
            let labels = FailureLabels { namespace: labels.namespace.clone(), policy: labels.policy.clone(), reason };
            failures.get_or_create(&labels).set(count);
        }
    }
    registry.register("backup_failed", "Failed backups of a policy that are still kept, by reason", failures);
}

//! Figures of stores and restores, and how many objects are in which phase. Acts on nothing.

use holdfast_crds::{BackupPhase, ConditionType, is_true};
use kube::ResourceExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::{Registry, Unit};

use super::{Figures, flag, seconds};
use crate::controller::cache::World;
use crate::plan::status::find;

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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RestoreLabels {
    namespace: String,
    dry_run: &'static str,
    phase: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndedRestoreLabels {
    namespace: String,
    restore: String,
    dry_run: &'static str,
    phase: String,
    reason: String,
}

/// Registers the figures of everything but policies.
pub(super) fn register(world: &World, registry: &mut Registry) {
    stores(world, registry);
    restores(world, registry);
    phases(world, registry);
}

fn stores(world: &World, registry: &mut Registry) {
    let (ready, probed) = (Figures::<StoreLabels>::default(), Figures::<StoreLabels>::default());
    for store in world.stores.all() {
        let labels = StoreLabels { namespace: store.namespace().unwrap_or_default(), store: store.name_any() };
        let status = store.status.clone().unwrap_or_default();
        ready.get_or_create(&labels).set(flag(is_true(&status.conditions, ConditionType::Ready)));
        if let Some(at) = &status.last_probe_time {
            probed.get_or_create(&labels).set(seconds(at));
        }
    }
    registry.register("store_ready", "1 while a store has been proved", ready);
    registry.register_with_unit(
        "store_last_probe_timestamp",
        "When the last probe of a store ended",
        Unit::Seconds,
        probed,
    );
}

fn restores(world: &World, registry: &mut Registry) {
    let (count, ends) = (Figures::<RestoreLabels>::default(), Figures::<EndedRestoreLabels>::default());
    for request in world.restores.all() {
        let status = request.status.clone().unwrap_or_default();
        let reason = find(&status.conditions, ConditionType::Complete).map(|c| c.reason.clone()).unwrap_or_default();
        let (namespace, phase) = (request.namespace().unwrap_or_default(), format!("{:?}", status.phase));
        let dry_run = if request.spec.dry_run { "true" } else { "false" };
        if let Some(at) = &status.completion_time {
            let labels = EndedRestoreLabels {
                namespace: namespace.clone(),
                restore: request.name_any(),
                dry_run,
                phase: phase.clone(),
                reason: reason.clone(),
            };
            ends.get_or_create(&labels).set(seconds(at));
        }
        count.get_or_create(&RestoreLabels { namespace, dry_run, phase, reason }).inc();
    }
    registry.register("restores", "RestoreRequests, by phase and reason", count);
    registry.register_with_unit("restore_end_timestamp", "When a restore ended", Unit::Seconds, ends);
}

fn phases(world: &World, registry: &mut Registry) {
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

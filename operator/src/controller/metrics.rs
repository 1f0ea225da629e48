//! Metrics: what the resources say, computed when asked for, and counts of the controller's own work. Acts on nothing.

mod objects;
mod policies;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::cache::World;
use super::queue::Subject;

/// Counts of the controller's own work.
pub struct Counters {
    reconciles: Family<KindLabel, Counter>,
    errors: Family<KindLabel, Counter>,
    durations: Family<KindLabel, Histogram, fn() -> Histogram>,
    start_latency: Histogram,
    watches: Family<WatchLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    /// Empty: all of them.
    namespace: String,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
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
            watches: Family::default(),
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

    /// A kind in a namespace (none: all) is listed and watched, or cannot be.
    pub fn watching(&self, kind: &str, namespace: Option<&str>, works: bool) {
        let labels = WatchLabels { namespace: namespace.unwrap_or_default().to_owned(), kind: kind.to_owned() };
        self.watches.get_or_create(&labels).set(i64::from(works));
    }

    /// The Jobs of a run were created this many seconds after its slot.
    pub fn started(&self, seconds: f64) {
        self.start_latency.observe(seconds.max(0.0));
    }
}

/// Everything in the OpenMetrics text format. `world` is there while this controller leads and has listed everything.
///
/// # Errors
/// Only where the text cannot be written.
pub fn render(world: Option<&World>, counters: &Counters) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("holdfast");
    let leads: Gauge = Gauge::default();
    leads.set(i64::from(world.is_some()));
    registry.register("leader", "1 while this controller leads and knows all objects", leads);
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
    registry.register(
        "watch_up",
        "1 while a kind in a namespace (empty: all) is listed and watched; 0 while that is refused or not answered",
        counters.watches.clone(),
    );
    registry.register("build", "The version of this controller", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    if let Some(world) = world {
        policies::register(world, &mut registry);
        objects::register(world, &mut registry);
    }
    let mut body = String::new();
    text::encode(&mut body, &registry)?;
    Ok(body)
}

type Figures<L> = Family<L, Gauge<f64, AtomicU64>>;

fn seconds(time: &Time) -> f64 {
    time.0.as_second() as f64
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[cfg(test)]
mod tests;

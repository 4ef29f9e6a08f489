//! Figures of the operator.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    verb: &'static str,
    kind: &'static str,
}

/// All figures.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Outcome, Counter>,
    duration: Histogram,
    writes: Family<Write, Counter>,
    leading: Gauge,
    sets: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pgconvoy_operator");
        let reconciles = Family::default();
        let duration = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let writes = Family::default();
        let (leading, sets) = (Gauge::default(), Gauge::default());
        registry.register(
            "reconciles",
            "Reconciles, by how they ended: ok or the name of the error",
            reconciles.clone(),
        );
        registry.register_with_unit("reconcile_duration", "How long a reconcile took", Unit::Seconds, duration.clone());
        registry.register("writes", "Requests to the API server that write, by verb and kind", writes.clone());
        registry.register("leading", "1 if this process is the one that acts", leading.clone());
        registry.register("replica_sets", "Replica sets seen", sets.clone());
        Self { registry, reconciles, duration, writes, leading, sets }
    }
}

impl Metrics {
    /// A reconcile ended; `result` is `ok` or the name of the error.
    pub fn reconciled(&self, took: Duration, result: &'static str) {
        self.reconciles.get_or_create(&Outcome { result }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A request that writes was sent.
    pub fn write(&self, verb: &'static str, kind: &'static str) {
        self.writes.get_or_create(&Write { verb, kind }).inc();
    }

    /// Whether this process acts.
    pub fn leading(&self, leads: bool) {
        self.leading.set(leads.into());
    }

    /// How many sets there are.
    pub fn sets(&self, number: usize) {
        self.sets.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// All figures as text, as Prometheus reads them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail; were it to, half a page is better than none.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_names() {
        let m = Metrics::default();
        m.reconciled(Duration::from_millis(3), "ok");
        m.write("apply", "Service");
        m.leading(true);
        let text = m.text();
        for line in [
            r#"pgconvoy_operator_reconciles_total{result="ok"} 1"#,
            r#"pgconvoy_operator_writes_total{verb="apply",kind="Service"} 1"#,
            "pgconvoy_operator_leading 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

//! What the conversation between agents counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Why something failed; the label of the counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reason {
    /// One word.
    pub(super) reason: &'static str,
}

/// Counters of the conversation between agents; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Questions asked.
    pub(super) asked: Counter,
    /// Questions that got no usable answer, by reason.
    pub(super) ask_errors: Family<Reason, Counter>,
    /// Questions answered.
    pub(super) answered: Counter,
    /// Connections and questions turned away, by reason.
    pub(super) turned_away: Family<Reason, Counter>,
}

impl Metrics {
    /// New counters, shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("peer_asks", "Questions asked to other agents", m.asked.clone());
        registry.register("peer_ask_errors", "Questions without a usable answer, by reason", m.ask_errors.clone());
        registry.register("peer_answers", "Questions of other agents that were answered", m.answered.clone());
        registry.register(
            "peer_turned_away",
            "Connections and questions of other agents turned away, by reason",
            m.turned_away.clone(),
        );
        m
    }

    pub(super) fn ask_error(&self, reason: &'static str) {
        self.ask_errors.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn turn_away(&self, reason: &'static str) {
        self.turned_away.get_or_create(&Reason { reason }).inc();
    }
}

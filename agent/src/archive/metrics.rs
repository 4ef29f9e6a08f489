//! What archiving shows in `/metrics`.

use pgconvoy_archive::ship::Progress;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// Figures of the archive; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    shipping: Gauge,
    archived: Gauge<u64, AtomicU64>,
    backlog: Gauge<u64, AtomicU64>,
    left: Gauge<u64, AtomicU64>,
    given_up: Counter,
    lag: Gauge<f64, AtomicU64>,
    last_write: Gauge<f64, AtomicU64>,
    troubled: Gauge,
    pieces: Counter,
    segments: Counter,
}

impl Metrics {
    /// New figures, shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("archive_shipping", "1 while this member archives WAL", m.shipping.clone());
        registry.register(
            "archive_archived_lsn_bytes",
            "Up to where WAL is in the archive, as a number of bytes; 0 on a member that archives none",
            m.archived.clone(),
        );
        registry.register("archive_backlog_bytes", "WAL of the leader that is not archived", m.backlog.clone());
        registry.register(
            "archive_backlog_left_bytes",
            "WAL that may come before what this member keeps for the archive is given up; 0 if it keeps none",
            m.left.clone(),
        );
        registry.register(
            "archive_given_up",
            "How often WAL was given up that waited for the archive",
            m.given_up.clone(),
        );
        registry.register(
            "archive_lag_seconds",
            "For how long the oldest WAL that matters and is not archived has been waiting",
            m.lag.clone(),
        );
        registry.register(
            "archive_last_write_seconds",
            "How long the last write to the store took",
            m.last_write.clone(),
        );
        registry.register("archive_troubled", "1 while something keeps WAL from the archive", m.troubled.clone());
        registry.register("archive_pieces", "Pieces of segments that were archived", m.pieces.clone());
        registry.register("archive_segments", "Whole segments that were archived", m.segments.clone());
        m
    }

    /// Shows how much room is left for what waits.
    pub(super) fn show_left(&self, bytes: u64) {
        self.left.set(bytes);
    }

    /// Counts that what waited was given up.
    pub(super) fn gave_up(&self) {
        self.given_up.inc();
    }

    /// Shows what is. `before`: what was shown last of the same shipping.
    pub(super) fn show(&self, now: Instant, progress: Option<&Progress>, before: Option<&Progress>) {
        let Some(p) = progress else {
            self.shipping.set(0);
            self.archived.set(0);
            self.backlog.set(0);
            self.lag.set(0.0);
            self.troubled.set(0);
            return;
        };
        self.shipping.set(1);
        self.archived.set(p.archived.0);
        self.backlog.set(p.backlog());
        self.lag.set(p.oldest.map_or(0.0, |t| now.saturating_duration_since(t).as_secs_f64()));
        self.last_write.set(p.last_write.map_or(0.0, |t| t.as_secs_f64()));
        self.troubled.set(i64::from(p.trouble.is_some()));
        let (pieces, segments) = before.map_or((0, 0), |b| (b.pieces, b.segments));
        self.pieces.inc_by(p.pieces.saturating_sub(pieces));
        self.segments.inc_by(p.segments.saturating_sub(segments));
    }
}

//! When a piece is cut and when a segment is whole. Pure: no clock, no I/O.

use pgconvoy_terms::Lsn;
use std::time::Duration;

/// By what the cutter decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// PostgreSQL's `wal_segment_size`, in bytes.
    pub segment_size: u64,
    /// How long a byte that matters may wait. Too short: more requests, which cost money. Too long: more is lost with
    /// the cluster.
    pub max_delay: Duration,
    /// So many waiting bytes are sent before their time.
    pub piece_size: u64,
    /// How long records that only an idle PostgreSQL writes may wait. Too short: an idle set costs requests. Too long:
    /// the archive of an idle set looks old.
    pub idle_delay: Duration,
    /// Segments are written whole once they are complete. If not, pieces are all there is.
    pub whole_segments: bool,
    /// How large a piece may become when there is more WAL than one by one can be sent, in bytes.
    pub large_piece: u64,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// WAL up to here may be sent. Never behind the end of the segment under way.
    Wal {
        /// Behind its last byte.
        to: Lsn,
        /// It holds more than what an idle PostgreSQL writes by itself.
        matters: bool,
        /// How far the server has WAL.
        server: Lsn,
    },
    /// A piece is stored.
    Stored,
    /// Time has passed.
    Tick,
    /// There will be no more WAL: what waits goes now.
    End,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Send this WAL as a piece.
    Piece {
        /// Its first byte.
        from: Lsn,
        /// Behind its last byte.
        to: Lsn,
    },
    /// Send the segment that begins here, whole.
    Segment(Lsn),
}

/// Decides what is sent when. Times are counted from any fixed instant.
#[derive(Debug, Clone)]
pub struct Cutter {
    policy: Policy,
    /// The segment under way, and when its first byte came.
    segment: Lsn,
    began: Duration,
    /// Up to where there is WAL to send.
    received: Lsn,
    /// Up to where it was sent in pieces.
    cut: Lsn,
    /// Since when a byte that matters waits, and any byte.
    waiting: Option<Duration>,
    idle: Option<Duration>,
    /// Pieces that are being sent.
    sending: u32,
    /// The last segment was full before a piece of it would have been due.
    fast: bool,
    /// The server has the whole rest of this segment.
    behind: bool,
}

impl Cutter {
    /// A cutter that begins with the segment at `segment`; up to `cut` its pieces are stored already.
    pub fn new(policy: Policy, segment: Lsn, cut: Lsn, now: Duration) -> Self {
        Self {
            policy,
            segment,
            began: now,
            received: segment,
            cut: cut.max(segment),
            waiting: None,
            idle: None,
            sending: 0,
            fast: false,
            behind: false,
        }
    }

    /// Behind the last byte of the segment under way.
    pub fn segment_end(&self) -> Lsn {
        Lsn(self.segment.0 + self.policy.segment_size)
    }

    /// Up to where pieces were cut.
    pub fn cut(&self) -> Lsn {
        self.cut
    }

    /// When to come with [`Event::Tick`], if nothing else happens.
    pub fn wake(&self) -> Option<Duration> {
        if self.sending > 0 || self.behind {
            return None;
        }
        let waiting = self.waiting.map(|t| t + self.policy.max_delay);
        let idle = self.idle.map(|t| t + self.policy.idle_delay);
        waiting.into_iter().chain(idle).min()
    }

    /// One step.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        match event {
            Event::Wal { to, matters, server } => {
                self.received = self.received.max(to);
                self.behind = server >= self.segment_end();
                if self.received > self.cut {
                    self.idle.get_or_insert(now);
                    if matters {
                        self.waiting.get_or_insert(now);
                    }
                }
                if self.received >= self.segment_end() {
                    return self.complete(now);
                }
            }
            Event::Stored => self.sending = self.sending.saturating_sub(1),
            Event::Tick => {}
            Event::End => return if self.received > self.cut { vec![self.piece()] } else { Vec::new() },
        }
        if self.due(now) { vec![self.piece()] } else { Vec::new() }
    }

    fn due(&self, now: Duration) -> bool {
        let bytes = self.received.bytes_since(self.cut);
        let since = |start: Option<Duration>, delay| start.is_some_and(|t| now.saturating_sub(t) >= delay);
        if bytes == 0 {
            return false;
        }
        if !self.policy.whole_segments && bytes >= self.policy.large_piece {
            return true;
        }
        // The whole segment comes in a moment: a piece of it would be sent twice.
        if self.behind || self.sending > 0 {
            return false;
        }
        since(self.waiting, self.policy.max_delay)
            || since(self.idle, self.policy.idle_delay)
            || (self.waiting.is_some() && bytes >= self.policy.piece_size && !self.fast)
    }

    fn piece(&mut self) -> Effect {
        let from = std::mem::replace(&mut self.cut, self.received);
        (self.waiting, self.idle) = (None, None);
        self.sending += 1;
        Effect::Piece { from, to: self.received }
    }

    fn complete(&mut self, now: Duration) -> Vec<Effect> {
        let effect = if self.policy.whole_segments {
            Some(Effect::Segment(self.segment))
        } else {
            (self.received > self.cut).then(|| self.piece())
        };
        self.fast = now.saturating_sub(self.began) < self.policy.max_delay;
        (self.segment, self.began) = (self.segment_end(), now);
        self.cut = self.segment;
        (self.waiting, self.idle, self.behind) = (None, None, false);
        effect.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const SEGMENT: u64 = 1 << 20;
    const START: u64 = 3 * SEGMENT;

    fn policy() -> Policy {
        Policy {
            segment_size: SEGMENT,
            max_delay: s(1000),
            piece_size: 100 * KIB,
            idle_delay: s(300_000),
            whole_segments: true,
            large_piece: 500 * KIB,
        }
    }

    /// Milliseconds.
    fn s(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn new() -> Cutter {
        Cutter::new(policy(), Lsn(START), Lsn(START), s(0))
    }

    fn wal(to: u64) -> Event {
        Event::Wal { to: Lsn(START + to), matters: true, server: Lsn(START + to) }
    }

    fn piece(from: u64, to: u64) -> Vec<Effect> {
        vec![Effect::Piece { from: Lsn(START + from), to: Lsn(START + to) }]
    }

    #[test]
    fn what_matters_waits_for_max_delay_and_no_longer() {
        let mut c = new();
        assert_eq!(c.wake(), None);
        assert_eq!(c.step(s(5), wal(10)), []);
        assert_eq!(c.step(s(900), wal(20)), []);
        assert_eq!(c.wake(), Some(s(1005)));
        assert_eq!(c.step(s(1004), Event::Tick), []);
        assert_eq!(c.step(s(1005), Event::Tick), piece(0, 20));
        assert_eq!(c.wake(), None, "until it is stored");
    }

    #[test]
    fn one_piece_at_a_time_and_the_next_takes_all_that_came_meanwhile() {
        let mut c = new();
        assert_eq!(c.step(s(0), wal(100 * KIB)), piece(0, 100 * KIB), "enough bytes go at once");
        assert_eq!(c.step(s(1), wal(250 * KIB)), []);
        assert_eq!(c.step(s(5000), wal(400 * KIB)), [], "also when it takes long");
        assert_eq!(c.step(s(5001), Event::Stored), piece(100 * KIB, 400 * KIB));
        assert_eq!(c.step(s(5002), Event::Stored), []);
        assert_eq!(c.step(s(9000), Event::Tick), [], "nothing waits");
    }

    #[test]
    fn an_idle_servers_own_records_wait_for_minutes() {
        let mut c = new();
        let idle = |to| Event::Wal { to: Lsn(START + to), matters: false, server: Lsn(START + to) };
        assert_eq!(c.step(s(0), idle(50)), []);
        assert_eq!(c.step(s(100_000), idle(100)), []);
        assert_eq!(c.wake(), Some(s(300_000)));
        assert_eq!(c.step(s(299_999), Event::Tick), []);
        assert_eq!(c.step(s(300_000), Event::Tick), piece(0, 100));
        let _ = c.step(s(300_001), Event::Stored);
        // They go along with what matters.
        assert_eq!(c.step(s(300_002), idle(150)), []);
        assert_eq!(c.step(s(310_000), wal(160)), []);
        assert_eq!(c.step(s(311_000), Event::Tick), piece(100, 160));
    }

    #[test]
    fn a_full_segment_is_sent_whole() {
        let mut c = new();
        let _ = c.step(s(0), wal(10));
        assert_eq!(c.step(s(1000), Event::Tick), piece(0, 10));
        assert_eq!(c.step(s(1500), wal(SEGMENT)), [Effect::Segment(Lsn(START))]);
        assert_eq!((c.segment_end(), c.cut()), (Lsn(START + 2 * SEGMENT), Lsn(START + SEGMENT)));
        assert_eq!(c.wake(), None, "nothing of the next one is there");
    }

    #[test]
    fn a_server_that_is_ahead_by_a_segment_gets_no_pieces() {
        let mut c = new();
        let far = |to| Event::Wal { to: Lsn(START + to), matters: true, server: Lsn(START + 5 * SEGMENT) };
        assert_eq!(c.step(s(0), far(900 * KIB)), []);
        assert_eq!(c.step(s(9000), Event::Tick), []);
        assert_eq!(c.step(s(9001), far(SEGMENT)), [Effect::Segment(Lsn(START))]);
    }

    #[test]
    fn fast_segments_get_no_pieces_by_size() {
        let mut c = new();
        assert_eq!(c.step(s(0), wal(99 * KIB)), []);
        assert_eq!(c.step(s(300), wal(SEGMENT)), [Effect::Segment(Lsn(START))]);
        assert_eq!(c.step(s(301), wal(SEGMENT + 500 * KIB)), [], "the whole segment is there within max_delay");
        assert_eq!(c.step(s(1301), Event::Tick), piece(SEGMENT, SEGMENT + 500 * KIB), "unless it is not");
        assert_eq!(c.step(s(1302), wal(2 * SEGMENT)), [Effect::Segment(Lsn(START + SEGMENT))]);
        let _ = c.step(s(1303), Event::Stored);
        assert_eq!(c.step(s(1304), wal(2 * SEGMENT + 100 * KIB)).len(), 1, "and that one was slow");
    }

    #[test]
    fn what_is_stored_already_is_not_sent_again() {
        let mut c = Cutter::new(policy(), Lsn(START), Lsn(START + 300 * KIB), s(0));
        assert_eq!(c.step(s(0), wal(200 * KIB)), []);
        assert_eq!((c.wake(), c.step(s(5000), Event::Tick)), (None, vec![]));
        assert_eq!(c.step(s(5000), wal(300 * KIB + 5)), []);
        assert_eq!(c.step(s(6000), Event::Tick), piece(300 * KIB, 300 * KIB + 5));
    }

    #[test]
    fn where_pieces_are_all_there_is_they_cover_the_segment() {
        let mut c = Cutter::new(Policy { whole_segments: false, ..policy() }, Lsn(START), Lsn(START), s(0));
        let far = |to| Event::Wal { to: Lsn(START + to), matters: true, server: Lsn(START + 5 * SEGMENT) };
        assert_eq!(c.step(s(0), far(400 * KIB)), []);
        assert_eq!(c.step(s(1), far(600 * KIB)), piece(0, 600 * KIB));
        assert_eq!(c.step(s(2), far(SEGMENT)), piece(600 * KIB, SEGMENT), "several at once");
    }

    #[test]
    fn at_the_end_everything_goes() {
        let mut c = new();
        let _ = c.step(s(0), Event::Wal { to: Lsn(START + 7), matters: false, server: Lsn(START + 7) });
        assert_eq!(c.step(s(1), Event::End), piece(0, 7));
        assert_eq!(c.step(s(1), Event::End), []);
    }
}

//! The state machine.

use crate::{Event, Instant, Output, Record, Timing};
use pgconvoy_terms::MemberName;

/// One member's part in the protocol.
#[derive(Debug)]
pub struct Core {
    me: MemberName,
    timing: Timing,
    record: Record,
}

impl Core {
    /// A member that has just started, with what its volume holds. `seed` must be random.
    pub fn new(me: MemberName, record: Record, timing: Timing, seed: u128, now: Instant) -> Self {
        let _ = (seed, now);
        Self { me, timing, record }
    }

    /// Takes in one event and says what follows from it.
    pub fn step(&mut self, now: Instant, event: Event) -> Output {
        let _ = (now, event, &self.me, &self.timing, &self.record);
        unreachable!()
    }
}

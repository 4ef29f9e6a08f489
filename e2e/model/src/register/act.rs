//! What can happen.

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Act {
    Open,
    Pledge(u8, u8),
    Elect(u8),
    Promote(u8, u8),
    Attach(u8, u8),
    Stream(u8),
    Write(u8),
    Activate(u8),
    See(u8),
    Propose(u8, u8, u8),
    Store(u8, u8),
    Apply(u8, u8),
    Finish(u8),
    Restore(u8, bool),
    Delete,
    Hear(u8),
    Repair,
}

impl Act {
    pub(crate) fn rare(&self) -> bool {
        matches!(self, Act::Open | Act::Restore(..) | Act::Delete | Act::Hear(_) | Act::Repair | Act::Propose(..))
    }
}

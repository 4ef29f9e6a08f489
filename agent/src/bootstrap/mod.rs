//! How this member gets its data: made new by the founder of a set, taken from the archive, or copied from another member.
//!
//! Which of the latter two [`ways::choose`] says, which is pure; [`catch_up`] goes that way.
//!
//! While data is being made, a file on the volume says so; whatever lies there then is worthless, and is thrown away by
//! the next try.

mod catch_up;
mod copy;
mod found;
mod progress;
mod refill;
mod renew;
mod restore;
mod rewind;
mod seen;
mod target;
mod task;
mod tries;
mod wal;
mod ways;

pub(crate) use catch_up::catch_up;
pub(crate) use found::found;
pub(crate) use rewind::rewind;
pub(crate) use tries::Tries;

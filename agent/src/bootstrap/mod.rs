//! How this member gets its data: made new by the founder of a set, or copied from another member.
//!
//! While data is being made, a file on the volume says so; whatever lies there then is worthless, and is thrown away by
//! the next try.

mod copy;
mod found;
mod renew;
mod restore;
mod rewind;
mod target;
mod wal;

pub(crate) use copy::clone;
pub(crate) use found::found;
pub(crate) use rewind::rewind;

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

use crate::postgres::{Error, Postgres};
use std::time::Duration;
use tokio::time::timeout;

pub(crate) use catch_up::catch_up;
pub(crate) use found::found;
pub(crate) use rewind::{never_rewinds, rewind};
pub(crate) use tries::Tries;

/// How long a thread may still unpack for a restore that was dropped: it ends with the file that it writes.
const UNPACKING: Duration = Duration::from_secs(60);

/// Waits until no thread writes into the data directory any more for a restore that was dropped.
async fn nothing_unpacks(postgres: &Postgres) -> Result<(), Error> {
    let unpacking = postgres.kept().unpacking.clone();
    let alone = timeout(UNPACKING, unpacking.write()).await.map(drop);
    alone.map_err(|_| Error::Timeout { doing: "unpacking for a restore that was given up", after: UNPACKING })
}

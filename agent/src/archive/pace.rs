//! A snapshot gives way: while this member is behind with what PostgreSQL has to do, it reads slowly.

use crate::postgres::{Archivist, DriverHandle};
use pgconvoy_archive::snapshot::Pace;
use std::{convert::Infallible, time::Duration};
use tokio::time::sleep;

/// So many bytes of WAL a server may be behind before a snapshot is held back, and so few it must be until it goes on. Less: it is held
/// back by every burst of writes. More: commits wait for longer, and a follower that takes over has more to replay.
const PRESSED: u64 = 32 << 20;
const RELIEVED: u64 = 8 << 20;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a snapshot is held back. Pure.
fn pressed(before: bool, behind: u64) -> bool {
    behind >= if before { RELIEVED } else { PRESSED }
}

/// Takes a snapshot at its pace, which gives way.
pub(super) async fn giving_way<T>(driver: &DriverHandle, pace: &Pace, taking: impl Future<Output = T>) -> T {
    tokio::select! {
        taken = taking => taken,
        never = watch(driver.archivist(), pace) => match never {},
    }
}

async fn watch(mut archivist: Archivist, pace: &Pace) -> Infallible {
    let mut held_back = false;
    loop {
        match archivist.behind().await {
            Ok(behind) if pressed(held_back, behind) != held_back => {
                held_back = !held_back;
                pace.press(held_back);
                let mib = behind >> 20;
                if held_back {
                    tracing::info!("{mib} MiB of WAL wait for this server or its followers; the snapshot is held back");
                } else {
                    tracing::info!("{mib} MiB of WAL wait for this server or its followers; the snapshot goes on");
                }
            }
            Ok(_) => {}
            Err(e) => tracing::debug!(error = %e, "whether the snapshot is in the way is not known"),
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_goes_on_when_the_backlog_is_small_again() {
        assert!(!pressed(false, PRESSED - 1) && pressed(false, PRESSED));
        assert!(pressed(true, RELIEVED) && !pressed(true, RELIEVED - 1));
    }
}

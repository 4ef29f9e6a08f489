//! What keeps this member from going on until a person has seen to it: told by a word of its own in the status.

use super::{
    Error,
    driver::Reached,
    server::{FILES, Postgres},
};
use crate::settings::Obstacle;
use nix::sys::statvfs::statvfs;
use pgconvoy_crds::conditions::reasons;

/// With less than so much room on its volume PostgreSQL cannot begin another segment of its log, and neither can the
/// agent rely on its own files: two segments, in bytes.
const ROOM: u64 = 32 << 20;

impl Postgres {
    /// Finds out whether what came of a step has such a cause, and reports it. A full volume stays the cause until there
    /// is room again: PostgreSQL tries again and again, and may seem well for a moment each time.
    pub(crate) async fn look_for_obstacle(&self, outcome: &Result<Reached, Error>) {
        let before = self.report.borrow().obstacle.clone();
        let well = matches!(outcome, Ok(Reached { remark: None, .. }));
        let obstacle = match outcome {
            Err(Error::Image(why)) => Some(Obstacle { reason: reasons::IMAGE_UNUSABLE, sentence: why.clone() }),
            _ if well && before.is_none() => None,
            _ => self.full().await,
        };
        if obstacle != before {
            match &obstacle {
                Some(Obstacle { reason, sentence }) => tracing::warn!(reason, "{sentence}"),
                None => tracing::info!("what stood in the way is gone"),
            }
            self.report.send_modify(|r| r.obstacle = obstacle);
        }
    }

    /// That the volume is full, if it is.
    async fn full(&self) -> Option<Obstacle> {
        let volume = self.paths().volume.clone();
        let look = {
            let volume = volume.clone();
            move || statvfs(&volume).map_err(|e| Error::disk("ask for the room on", &volume)(e.into()))
        };
        // Without an answer nothing is said.
        let seen = self.disk.run("asking for the room on the volume", FILES, look).await.ok()?;
        let what = if seen.blocks_available() * seen.fragment_size() < ROOM {
            format!("less than {} MiB of {} MiB are free", ROOM >> 20, (seen.blocks() * seen.fragment_size()) >> 20)
        } else if seen.files() > 0 && seen.files_available() == 0 {
            "no file can be made on it any more, it has no inode left".to_owned()
        } else {
            return None;
        };
        let member = &self.config.identity.member;
        Some(Obstacle {
            reason: reasons::VOLUME_FULL,
            sentence: format!(
                "the volume of {member} is full ({what} in {}), so PostgreSQL cannot write there; raise \
                 spec.storage.size if the storage class can grow volumes, or remove what does not belong on it; then it \
                 goes on by itself",
                volume.display()
            ),
        })
    }
}

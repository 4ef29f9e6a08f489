//! Pieces that nobody needs any more, because their segment is there whole.

use crate::{
    layout::{EpochDir, Piece},
    store::Store,
};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// So many are removed with one request.
const BATCH: usize = 100;
/// S3 takes no more.
const MOST: usize = 1000;

#[derive(Debug)]
pub(super) struct Superseded {
    pieces: Vec<Piece>,
    removing: Option<JoinHandle<()>>,
}

impl Superseded {
    pub(super) fn new(pieces: Vec<Piece>) -> Self {
        Self { pieces, removing: None }
    }

    pub(super) fn add(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        self.pieces.extend(pieces);
    }

    /// Has them removed, in batches and beside everything else; at the end all of them, and waits for it. The piece with
    /// the `newest` number stays: the next number follows from it.
    pub(super) async fn remove(&mut self, store: &Arc<dyn Store>, dir: &EpochDir, newest: u32, last: bool) {
        if let Some(removing) = self.removing.take_if(|r| last || r.is_finished()) {
            let _ = removing.await;
        }
        let removable = self.pieces.iter().filter(|p| p.number != newest).count();
        if removable == 0 || self.removing.is_some() || !(last || removable >= BATCH) {
            return;
        }
        let now = self.pieces.extract_if(.., |p| p.number != newest);
        let keys: Vec<String> = now.map(|piece| dir.piece(piece)).collect();
        let store = store.clone();
        let removing = tokio::spawn(async move {
            for batch in keys.chunks(MOST) {
                // They are in nobody's way; the next start tries again.
                if let Err(e) = store.delete(batch).await {
                    tracing::info!("superseded pieces stay in the archive: {e}");
                    return;
                }
            }
        });
        if last {
            let _ = removing.await;
        } else {
            self.removing = Some(removing);
        }
    }
}

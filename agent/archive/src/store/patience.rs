//! Waiting for a store beyond what a call's own attempts sit out.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Calls again while it fails with something that is waited for: `patience` says how long, since the first call; nothing at all
/// for what does not go away by itself.
///
/// # Errors
/// The last call's.
pub(crate) async fn patiently<T, E: Display, F: Future<Output = Result<T, E>>>(
    patience: impl Fn(&E) -> Duration,
    mut call: impl FnMut() -> F,
) -> Result<T, E> {
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match call().await {
            Err(e) if began.elapsed() + pause < patience(&e) => {
                tracing::warn!("trying again: {e}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            done => return done,
        }
    }
}

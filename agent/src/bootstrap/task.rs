//! Work that borrows nothing and ends with whoever waits for it.

use crate::postgres::Error;

/// A task that ends when nobody waits for it any more.
pub(super) struct Task<T>(tokio::task::JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    pub(super) fn begin(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl<T> Task<T> {
    pub(super) async fn ended(mut self) -> Result<T, Error> {
        (&mut self.0).await.map_err(|e| Error::NotYet(format!("restoring was interrupted: {e}")))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

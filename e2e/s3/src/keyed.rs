//! One lock for each key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OwnedMutexGuard;

/// Locks by name. A lock that nobody holds or waits for is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Keyed(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Keyed {
    pub(crate) async fn lock(&self, bucket: &str, key: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, lock| Arc::strong_count(lock) > 1);
            all.entry(format!("{bucket}/{key}")).or_default().clone()
        };
        lock.lock_owned().await
    }
}

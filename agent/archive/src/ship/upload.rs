//! One object on its way into the store.

use super::progress::Troubles;
use crate::{
    layout::{Error, decompress},
    store::{Created, Store, create},
};
use bytes::Bytes;
use pgconvoy_terms::Epoch;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// It is there.
    Done,
    /// An agent before this one stored the same WAL, cut in another place: look again where the archive stands.
    CutElsewhere,
}

/// Stores an object of WAL, however long the store is away.
///
/// # Errors
/// [`Error::Fenced`] when the key holds other WAL; [`Error::Damaged`] when it holds something that is none.
pub(super) async fn upload(
    store: &dyn Store,
    epoch: &Epoch,
    key: &str,
    object: Bytes,
    troubles: &Troubles,
) -> Result<Stored, Error> {
    let mut pause = FIRST_PAUSE;
    loop {
        match create(store, key, object.clone()).await {
            Ok(Created::New | Created::Same) => return Ok(Stored::Done),
            Ok(Created::Differs(there)) => return compare(epoch, key, &object, &there),
            Err(e) => {
                troubles.set(e.reason().name(), e.to_string());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

fn compare(epoch: &Epoch, key: &str, ours: &[u8], there: &[u8]) -> Result<Stored, Error> {
    let ((our_header, our_wal), (header, wal)) = (decompress(key, ours)?, decompress(key, there)?);
    let common = our_wal.len().min(wal.len());
    if header.start == our_header.start && wal[..common] == our_wal[..common] {
        return Ok(if header.end == our_header.end { Stored::Done } else { Stored::CutElsewhere });
    }
    let why = format!("{key} is there with other WAL");
    Err(Error::Fenced { epoch: epoch.clone(), why })
}

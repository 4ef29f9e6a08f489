//! Does the store honour conditions?

use super::{
    error::{Call, Error, Reason},
    port::{Put, Store, read},
};
use bytes::Bytes;

/// What a store makes of `If-None-Match: *`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// It refuses the second write, as it should.
    Honoured,
    /// It overwrites. Two leaders at once could overwrite each other's objects; a look before each write makes that
    /// rare, not impossible.
    Overlooked,
}

/// Finds out by two writes to one key, which is removed afterwards. `random` keeps probes apart.
///
/// It proves at the same time that the bucket can be written and read.
///
/// # Errors
/// As the store's calls. That the probe's object cannot be removed is no error: it is one small object.
pub async fn probe(store: &dyn Store, random: u128) -> Result<Conditional, Error> {
    let key = format!("probe-{random:032x}");
    let (first, second) = (Bytes::from_static(b"first\n"), Bytes::from_static(b"second\n"));
    // Exists: the answer to this very write was lost.
    let (Put::Stored | Put::Exists) = store.put_new(&key, first.clone()).await?;
    let answer = store.put_new(&key, second).await?;
    let found = read(store, &key).await?;
    if let Err(e) = store.delete(std::slice::from_ref(&key)).await {
        tracing::warn!("the probe's object stays: {e}");
    }
    match (answer, found) {
        (Put::Exists, Some(found)) if found == first => Ok(Conditional::Honoured),
        (Put::Stored, Some(_)) => Ok(Conditional::Overlooked),
        (_, found) => {
            let what = match found {
                None => "it does not show what was just written",
                Some(_) => "it refused a second write and did it nevertheless",
            };
            Err(Error::new(store.describe(), Call::Get, &key, Reason::Inconsistent, what))
        }
    }
}

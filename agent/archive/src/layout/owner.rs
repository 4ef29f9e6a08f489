//! Whose archive it is: `owner-<n>.json`, the highest counts.

use super::error::Error;
use crate::store::{Created, Store, create, read, walk};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The format that this version writes, and the highest that it reads.
pub const FORMAT: u32 = 1;

/// A replica set, as the archive knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The format of what lies here.
    pub format: u32,
    /// Namespace of the set.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid. Names come back when a set is made anew; uids do not.
    pub uid: String,
    /// When this was written, in RFC 3339, for people.
    pub time: String,
}

fn key(number: u32) -> String {
    format!("owner-{number:08}.json")
}

fn number(key: &str) -> Option<u32> {
    key.strip_prefix("owner-")?.strip_suffix(".json")?.parse().ok()
}

/// The highest owner object, if there is any.
async fn newest(store: &dyn Store) -> Result<Option<(u32, Owner)>, Error> {
    let mut highest = None;
    walk(store, "owner-", None, false, |page| {
        highest = highest.max(page.objects.iter().filter_map(|o| number(&o.key)).max());
        true
    })
    .await?;
    let Some(number) = highest else { return Ok(None) };
    let key = key(number);
    let bytes = read(store, &key).await?.ok_or_else(|| Error::damaged(&key, "it is listed and cannot be read"))?;
    Ok(Some((number, parse(&key, &bytes)?)))
}

/// Reads a JSON object, whose format must be one that we know.
pub(super) fn parse<T: for<'a> Deserialize<'a>>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |e: serde_json::Error| Error::damaged(key, e.to_string());
    let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format > FORMAT {
        return Err(Error::Newer { key: key.to_owned(), found: format });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// The JSON that is written: for people, too.
pub(super) fn json(value: &impl Serialize) -> Bytes {
    // Text and numbers only: there is nothing in it that could fail.
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// Makes sure that the archive is this set's. An empty one becomes its own. To be called before anything is written.
///
/// # Errors
/// [`Error::AnotherOwner`]; [`Error::Newer`]; as the store's calls.
pub async fn open_archive(store: &dyn Store, owner: &Owner) -> Result<(), Error> {
    let (number, found) = match newest(store).await? {
        Some(found) => found,
        None => match create(store, &key(0), json(owner)).await? {
            Created::New | Created::Same => (0, owner.clone()),
            // Somebody else was quicker.
            Created::Differs(bytes) => (0, parse(&key(0), &bytes)?),
        },
    };
    if found.uid == owner.uid {
        return Ok(());
    }
    Err(Error::AnotherOwner {
        key: key(number),
        store: store.describe(),
        owner: format!("{}/{}", found.namespace, found.name),
        uid: found.uid,
    })
}

/// Takes over an archive whose owner is gone for ever; that is recorded beside it.
///
/// # Errors
/// [`Error::AnotherOwner`] when somebody else did so at the same time; as the store's calls.
pub async fn adopt(store: &dyn Store, owner: &Owner) -> Result<(), Error> {
    if let Some((number, found)) = newest(store).await?
        && found.uid != owner.uid
    {
        let (Created::New | Created::Same | Created::Differs(_)) =
            create(store, &key(number.saturating_add(1)), json(owner)).await?;
    }
    open_archive(store, owner).await
}

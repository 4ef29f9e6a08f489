//! What the archive needs of a store.

use super::error::{Call, Error, Reason};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use std::fmt::Debug;

/// What became of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// It is stored.
    Stored,
    /// There is an object of that name already; nothing was changed.
    Exists,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, by the store's clock, in seconds since 1970; none: the store does not say.
    pub modified: Option<i64>,
}

/// A part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects, sorted by key.
    pub objects: Vec<Listed>,
    /// With `folders`: what ends in a slash, sorted.
    pub folders: Vec<String>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// An object on its way. Its checksum, where the store keeps one, is compared when the last chunk has come.
pub trait Download: Send {
    /// The object's size in bytes, as the store announced it.
    fn size(&self) -> u64;

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The body was cut, came too slowly, or is not what was stored.
    fn chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Error>>;
}

/// An object store. Keys are relative to the archive's prefix.
///
/// Calls are retried inside, within a budget; an error is the last word. All but `delete` may be dropped half-way: a
/// write then happened or did not.
pub trait Store: Send + Sync + Debug {
    /// Writes an object if there is none of that name. The bytes travel with their CRC32C.
    ///
    /// [`Put::Exists`] is also the answer when this very call had stored it and the first answer was lost.
    fn put_new<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Put, Error>>;

    /// Begins to read an object; `None`: there is none.
    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Download>>, Error>>;

    /// One page of the objects whose keys begin with `prefix`, in the order of their keys, strictly after `after`. With
    /// `folders`, everything behind the next slash is shown as one folder.
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, folders: bool)
    -> BoxFuture<'a, Result<Page, Error>>;

    /// Removes objects, up to 1000. One that is not there is no error.
    fn delete<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<(), Error>>;

    /// Begins an object that is written in parts; the answer names the upload.
    fn begin_upload<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<String, Error>>;

    /// Writes a part: numbers from 1 to 10000; at least 5 MiB, but for the last. The answer goes into
    /// [`Store::finish_upload`].
    fn upload_part<'a>(
        &'a self,
        key: &'a str,
        upload: &'a str,
        number: u32,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Part, Error>>;

    /// Makes the parts one object, if there is none of that name.
    fn finish_upload<'a>(
        &'a self,
        key: &'a str,
        upload: &'a str,
        parts: Vec<Part>,
    ) -> BoxFuture<'a, Result<Put, Error>>;

    /// Throws an upload away. One that is not there is no error.
    fn abort_upload<'a>(&'a self, key: &'a str, upload: &'a str) -> BoxFuture<'a, Result<(), Error>>;

    /// What errors are about: bucket, endpoint and prefix, for people.
    fn describe(&self) -> String;
}

/// A part that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// The store's name for its content.
    pub etag: String,
    /// The CRC32C of its bytes.
    pub crc32c: u32,
}

/// What became of an object that was to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// It was created.
    New,
    /// It was there already, with the same bytes: an answer had been lost, or it was done before.
    Same,
    /// Something else is there. Nothing was changed.
    Differs(Bytes),
}

/// The largest object that is held in memory whole.
const WHOLE_LIMIT: u64 = 64 << 20;

/// Creates an object; where there is one already, reads and compares it.
///
/// # Errors
/// As the store's calls.
pub async fn create(store: &dyn Store, key: &str, bytes: Bytes) -> Result<Created, Error> {
    // An object may go between the two calls; then it may be created after all.
    for _ in 0..3 {
        match store.put_new(key, bytes.clone()).await? {
            Put::Stored => return Ok(Created::New),
            Put::Exists => match read(store, key).await? {
                Some(there) if there == bytes => return Ok(Created::Same),
                Some(there) => return Ok(Created::Differs(there)),
                None => {}
            },
        }
    }
    Err(Error::new(
        store.describe(),
        Call::Put,
        key,
        Reason::Inconsistent,
        "it says that the object exists, and that it does not",
    ))
}

/// Reads a whole object of up to 64 MiB; `None`: there is none.
///
/// # Errors
/// As the store's calls; a body that was torn or damaged on the way is asked for three times.
pub async fn read(store: &dyn Store, key: &str) -> Result<Option<Bytes>, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let Some(mut download) = store.open(key).await? else { return Ok(None) };
        if download.size() > WHOLE_LIMIT {
            let what = format!("it is {} bytes; none of that kind is that large", download.size());
            return Err(Error::new(store.describe(), Call::Get, key, Reason::Damaged, what));
        }
        match collect(download.as_mut()).await {
            Err(e) if tries < 3 => tracing::debug!("reading again: {e}"),
            done => return done.map(Some),
        }
    }
}

async fn collect(download: &mut dyn Download) -> Result<Bytes, Error> {
    let Some(first) = download.chunk().await? else { return Ok(Bytes::new()) };
    if first.len() as u64 == download.size() {
        // The end is asked for as well: there the checksum is compared.
        while download.chunk().await?.is_some() {}
        return Ok(first);
    }
    let mut bytes = BytesMut::with_capacity(usize::try_from(download.size()).unwrap_or(0));
    bytes.extend_from_slice(&first);
    while let Some(chunk) = download.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// All pages of a listing, one after the other, each given to `each` until that says `false`.
///
/// # Errors
/// As [`Store::list`].
pub async fn walk(
    store: &dyn Store,
    prefix: &str,
    after: Option<&str>,
    folders: bool,
    mut each: impl FnMut(Page) -> bool,
) -> Result<(), Error> {
    let mut after = after.map(str::to_owned);
    loop {
        let page = store.list(prefix, after.as_deref(), folders).await?;
        let next = page.next.clone();
        if !each(page) {
            return Ok(());
        }
        match next {
            Some(next) if Some(&next) > after.as_ref() => after = Some(next),
            Some(_) => {
                let what = "its listing does not come to an end";
                return Err(Error::new(store.describe(), Call::List, prefix, Reason::Inconsistent, what));
            }
            None => return Ok(()),
        }
    }
}

//! An object's body on its way.

use super::{
    error::{Call, Error, Reason},
    port::Download,
    sdk_error,
};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::time::Duration;

pub(super) struct Body {
    pub(super) store: String,
    pub(super) key: String,
    /// How long the next bytes may take.
    pub(super) patience: Duration,
    pub(super) size: u64,
    pub(super) received: u64,
    pub(super) body: ByteStream,
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let error = |reason, what: String| Error::new(self.store.clone(), Call::Get, &self.key, reason, what);
        match tokio::time::timeout(self.patience, self.body.try_next()).await {
            Err(_) => Err(error(Reason::Timeout, format!("no byte for {:?}", self.patience))),
            // The SDK compares the checksum here, at the end of the body.
            Ok(Err(e)) => Err(error(Reason::Damaged, sdk_error::chain(&e))),
            Ok(Ok(Some(bytes))) => {
                self.received += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Ok(Ok(None)) if self.received != self.size => {
                Err(error(Reason::Damaged, format!("{} bytes of {} arrived", self.received, self.size)))
            }
            Ok(Ok(None)) => Ok(None),
        }
    }
}

impl Download for Body {
    fn size(&self) -> u64 {
        self.size
    }

    fn chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        Box::pin(self.next())
    }
}

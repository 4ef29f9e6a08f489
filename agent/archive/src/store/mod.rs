//! The store: what the archive needs of an object store, and S3 behind it.
//!
//! Objects are written once and never changed. Every write is conditional (`If-None-Match: *`); a store that answers
//! *exists* is asked what it holds, and [`create`] says whether that is ours.

mod advice;
mod body;
mod client;
mod config;
mod credentials;
mod error;
mod lent;
mod patience;
mod port;
mod probe;
mod s3;
mod sdk_error;

pub use config::{Config, Encryption, Limits};
pub use credentials::{Credentials, Keys, Lender, WebIdentity};
pub use error::{Call, Error, Reason};
pub(crate) use patience::patiently;
pub use port::{Created, Download, Listed, Page, Part, Put, Store, create, read, walk};
pub use probe::{Conditional, probe};
pub use s3::S3;

//! From where on an epoch's WAL is there, once retention has removed what lay before: `begin-<LSN>.json`, the highest counts.

use super::{error::Error, keys::EpochDir};
use crate::store::{Listed, Store, walk};
use pgconvoy_terms::Lsn;

const NAME: &str = "begin-";

/// The object that says so. Its name is all there is to it.
pub(crate) fn begin_key(dir: &EpochDir, begin: Lsn) -> String {
    format!("{dir}{NAME}{:016X}.json", begin.0)
}

/// All of an epoch.
///
/// # Errors
/// As the store's calls.
pub(crate) async fn begins(store: &dyn Store, dir: &EpochDir) -> Result<Vec<(Lsn, Listed)>, Error> {
    let prefix = format!("{dir}{NAME}");
    let mut found = Vec::new();
    walk(store, &prefix, None, false, |page| {
        found.extend(page.objects.into_iter().filter_map(|object| {
            let lsn = object.key.strip_prefix(&prefix)?.strip_suffix(".json")?;
            Some((Lsn(u64::from_str_radix(lsn, 16).ok()?), object))
        }));
        true
    })
    .await?;
    Ok(found)
}

//! WAL that the archive lacks for good, because it was given up or lost before it was archived:
//! `gaps/<timeline>-<epoch id>-<from>-<to>.json` beside the epochs.

use super::{
    error::Error,
    keys::EpochDir,
    owner::{FORMAT, json},
};
use crate::store::{Put, Store, walk};
use pgconvoy_terms::{Lsn, SystemId};
use serde::Serialize;

/// What is missing of an epoch's WAL, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Of which epoch.
    pub dir: EpochDir,
    /// Its first byte.
    pub from: Lsn,
    /// The first byte behind it.
    pub to: Lsn,
}

/// For people; all that counts is in the name.
#[derive(Serialize)]
struct Stored<'a> {
    format: u32,
    epoch: String,
    from: String,
    to: String,
    why: &'a str,
    time: &'a str,
}

fn folder(system: SystemId) -> String {
    format!("{system}/gaps/")
}

impl Gap {
    /// Its key.
    pub fn key(&self) -> String {
        let Self { dir: EpochDir { system, epoch }, from, to } = self;
        format!("{}{:08X}-{}-{:016X}-{:016X}.json", folder(*system), epoch.number, epoch.id, from.0, to.0)
    }

    /// Reads a key; `None`: it is something else.
    pub fn parse(key: &str) -> Option<Self> {
        let (system, name) = key.split_once("/gaps/")?;
        let (rest, to) = name.strip_suffix(".json")?.rsplit_once('-')?;
        let (epoch, from) = rest.rsplit_once('-')?;
        let lsn = |text: &str| Some(Lsn(u64::from_str_radix(text, 16).ok()?));
        let gap = Self { dir: EpochDir::parse(&format!("{system}/{epoch}/"))?, from: lsn(from)?, to: lsn(to)? };
        (gap.key() == key).then_some(gap)
    }

    /// Notes it in the archive. `why` and `time` are for people. Noted once, it stays as it is.
    ///
    /// # Errors
    /// As the store's calls.
    pub async fn note(&self, store: &dyn Store, why: &str, time: &str) -> Result<(), Error> {
        let stored = Stored {
            format: FORMAT,
            epoch: self.dir.epoch.to_string(),
            from: self.from.to_string(),
            to: self.to.to_string(),
            why,
            time,
        };
        let (Put::Stored | Put::Exists) = store.put_new(&self.key(), json(&stored)).await?;
        Ok(())
    }
}

/// The gaps of a system, in the order of epochs and positions.
///
/// # Errors
/// As the store's calls.
pub async fn gaps(store: &dyn Store, system: SystemId) -> Result<Vec<Gap>, Error> {
    let mut found = Vec::new();
    walk(store, &folder(system), None, false, |page| {
        found.extend(page.objects.iter().filter_map(|o| Gap::parse(&o.key)));
        true
    })
    .await?;
    found.sort_by_key(|g: &Gap| (g.dir.epoch.number, g.to));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::Epoch;

    #[test]
    fn its_name_says_all_of_it() {
        let epoch = Epoch { number: 26, id: "abcdefghijkl2".parse().unwrap() };
        let gap = Gap { dir: EpochDir { system: SystemId(7), epoch }, from: Lsn(0x300_0148), to: Lsn(0x1_0500_0000) };
        assert_eq!(gap.key(), "7/gaps/0000001A-abcdefghijkl2-0000000003000148-0000000105000000.json");
        assert_eq!(Gap::parse(&gap.key()), Some(gap));
        for key in ["7/gaps/x.json", "7/gaps/0000001A-abcdefghijkl2-3-4.json", "7/snapshots/a/manifest.json"] {
            assert_eq!(Gap::parse(key), None, "{key}");
        }
    }
}

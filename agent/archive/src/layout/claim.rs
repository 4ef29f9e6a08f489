//! Who writes an epoch's WAL: `claim.json`, before the first byte.

use super::{
    error::Error,
    keys::EpochDir,
    owner::{FORMAT, json, parse},
};
use crate::store::{Created, Store, create, read};
use pgconvoy_terms::{Epoch, Lsn, MemberId};
use serde::{Deserialize, Serialize};

/// An epoch's leader, and where its WAL begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who leads.
    pub member: MemberId,
    /// The epoch from whose WAL this one's goes on, and where: behind that point, WAL of the parent belongs to nobody.
    /// `None`: it is the first.
    pub parent: Option<(Epoch, Lsn)>,
    /// The first byte that is archived: where the segment begins that holds the fork.
    pub start: Lsn,
    /// PostgreSQL's `wal_segment_size`, in bytes.
    pub segment_size: u64,
    /// When, in RFC 3339, for people.
    pub time: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    format: u32,
    epoch: String,
    member: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fork: Option<String>,
    start: String,
    segment_size: u64,
    time: String,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Claimed {
    /// The epoch is ours, from now on.
    Now,
    /// It has been ours already: this agent or one before it claimed it. The claim that counts.
    Before(Claim),
}

fn encode(dir: &EpochDir, claim: &Claim) -> bytes::Bytes {
    json(&Stored {
        format: FORMAT,
        epoch: dir.epoch.to_string(),
        member: claim.member.to_string(),
        parent: claim.parent.as_ref().map(|(epoch, _)| epoch.to_string()),
        fork: claim.parent.as_ref().map(|(_, fork)| fork.to_string()),
        start: claim.start.to_string(),
        segment_size: claim.segment_size,
        time: claim.time.clone(),
    })
}

fn decode(dir: &EpochDir, bytes: &[u8]) -> Result<Claim, Error> {
    let key = dir.claim();
    let stored: Stored = parse(&key, bytes)?;
    let bad = |e: &dyn std::fmt::Display| Error::damaged(&key, e.to_string());
    if stored.epoch != dir.epoch.to_string() {
        return Err(bad(&format!("it is about epoch {}", stored.epoch)));
    }
    if !stored.segment_size.is_power_of_two() || !(1 << 20..=1 << 30).contains(&stored.segment_size) {
        return Err(bad(&format!("{} is no size of a segment", stored.segment_size)));
    }
    let parent = match (stored.parent, stored.fork) {
        (Some(epoch), Some(fork)) => Some((epoch.parse().map_err(|e| bad(&e))?, fork.parse().map_err(|e| bad(&e))?)),
        (None, None) => None,
        _ => return Err(bad(&"parent and fork belong together")),
    };
    Ok(Claim {
        member: stored.member.parse().map_err(|e| bad(&e))?,
        parent,
        start: stored.start.parse().map_err(|e| bad(&e))?,
        segment_size: stored.segment_size,
        time: stored.time,
    })
}

/// Claims an epoch. Times may differ between two claims of one member; nothing else may.
///
/// # Errors
/// [`Error::Fenced`] when another member, or this member with other data, has claimed it; as the store's calls.
pub async fn claim(store: &dyn Store, dir: &EpochDir, claim: &Claim) -> Result<Claimed, Error> {
    let there = match create(store, &dir.claim(), encode(dir, claim)).await? {
        Created::New => return Ok(Claimed::Now),
        Created::Same => return Ok(Claimed::Before(claim.clone())),
        Created::Differs(bytes) => decode(dir, &bytes)?,
    };
    if there.member == claim.member && there.segment_size == claim.segment_size && there.parent == claim.parent {
        return Ok(Claimed::Before(there));
    }
    let why = if there.member == claim.member {
        format!("{} claimed it with another origin or segment size", there.member)
    } else {
        format!("{} claimed it at {}, this is {}", there.member, there.time, claim.member)
    };
    Err(Error::Fenced { epoch: dir.epoch.clone(), why })
}

/// Reads an epoch's claim; `None`: there is none.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Newer`]; as the store's calls.
pub async fn read_claim(store: &dyn Store, dir: &EpochDir) -> Result<Option<Claim>, Error> {
    match read(store, &dir.claim()).await? {
        Some(bytes) => decode(dir, &bytes).map(Some),
        None => Ok(None),
    }
}

//! The way to an epoch: which WAL belongs to it, of its own timeline and of its ancestors'.

use super::error::Error;
use crate::{
    layout::{self, Claim, EpochDir, epochs, read_claim},
    store::Store,
};
use pgconvoy_terms::{Epoch, Lsn, SystemId, TimelineId};

/// One epoch on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it lies.
    pub dir: EpochDir,
    /// Who wrote it, and from where on.
    pub claim: Claim,
    /// Up to where its WAL belongs to the way; `None`: to its end.
    pub until: Option<Lsn>,
}

/// An epoch and its ancestors, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    links: Vec<Link>,
}

impl Chain {
    /// The way to `target`.
    ///
    /// # Errors
    /// [`Error::Unknown`]; as the store's calls. An ancestor that is not in the archive ends the way: a snapshot of a
    /// later epoch may do without it.
    pub async fn to(store: &dyn Store, system: SystemId, target: &Epoch) -> Result<Self, Error> {
        let mut links: Vec<Link> = Vec::new();
        let mut next = Some((target.clone(), None));
        while let Some((epoch, until)) = next {
            let dir = EpochDir { system, epoch };
            let Some(claim) = read_claim(store, &dir).await? else { break };
            // Numbers fall along the way, so it ends.
            if let Some(child) = links.last()
                && child.dir.epoch.number <= dir.epoch.number
            {
                return Err(layout::Error::damaged(&child.dir.claim(), "it goes on from a later epoch").into());
            }
            next = claim.parent.clone().map(|(epoch, fork)| (epoch, Some(fork)));
            links.push(Link { dir, claim, until });
        }
        if links.is_empty() {
            return Err(Error::Unknown { what: format!("epoch {target} of system {system}"), store: store.describe() });
        }
        Ok(Self { links })
    }

    /// The way to the only epoch with this timeline.
    ///
    /// # Errors
    /// [`Error::Ambiguous`], [`Error::Unknown`]; as [`Chain::to`].
    pub async fn to_timeline(store: &dyn Store, system: SystemId, timeline: TimelineId) -> Result<Self, Error> {
        let mut found = epochs(store, system).await?.into_iter().filter(|d| d.timeline() == timeline);
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => Err(Error::Ambiguous {
                timeline: timeline.0,
                first: first.epoch.to_string(),
                second: second.epoch.to_string(),
            }),
            (Some(dir), None) => Self::to(store, system, &dir.epoch).await,
            (None, _) => {
                let what = format!("timeline {timeline} of system {system}");
                Err(Error::Unknown { what, store: store.describe() })
            }
        }
    }

    /// The epochs, the newest first.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The epoch that is meant.
    pub fn target(&self) -> Option<&Link> {
        self.links.first()
    }

    /// The part of the way, the newest first, that a log needs which ends, or a copy which begins, at `start` in `epoch`: a
    /// follower's copy may begin before its epoch does. None: the way does not lead over that epoch, or left it before.
    pub fn beginning(&self, epoch: &Epoch, start: Lsn) -> Option<&[Link]> {
        let at = self.links.iter().position(|l| l.dir.epoch == *epoch)?;
        if self.links.get(at)?.until.is_some_and(|until| start > until) {
            return None;
        }
        let earlier = self.links.get(at..)?;
        let more = earlier.iter().position(|l| l.claim.parent.as_ref().is_none_or(|(_, fork)| start >= *fork));
        self.links.get(..=at + more.unwrap_or(0))
    }

    pub(super) fn of(&self, timeline: TimelineId) -> Option<&Link> {
        self.links.iter().find(|l| l.dir.timeline() == timeline)
    }
}

//! The term: the one record on which the members of a set agree (the PgTerm object, without Kubernetes).

use crate::{ChangeId, Epoch, Lsn, MemberId, Rule, TimelineId};

/// How far an epoch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Opened: pledges are being collected; nobody may be promoted.
    Recruiting,
    /// A leader is chosen; it may promote itself once Confirm is done.
    Elected,
    /// The barrier is acknowledged; clients are served.
    Active,
}

/// Where an epoch's timeline left the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The epoch.
    pub epoch: Epoch,
    /// The timeline it branched from; `None` for the first.
    pub parent: Option<TimelineId>,
    /// Where it branched: WAL of `parent` behind this point belongs to nobody. `None` for the first.
    pub at: Option<Lsn>,
    /// Who led.
    pub leader: MemberId,
    /// Whether acknowledged commits may have been lost at this fork.
    pub lossy: bool,
}

/// How many ids of the chain are kept.
pub const CHAIN_LIMIT: usize = 1024;
/// How many entries of the history are kept.
pub const HISTORY_LIMIT: usize = 64;

/// The whole record. A member obeys it only if it *descends* from what the member acted on last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The epoch in force.
    pub epoch: Epoch,
    /// How far it is.
    pub phase: Phase,
    /// The elected leader; `None` while recruiting.
    pub leader: Option<MemberId>,
    /// Every rule under which an acknowledged commit may exist that no later active epoch covers yet, oldest first.
    pub rules: Vec<Rule>,
    /// Whether a rule was given up since the last epoch that became active, so that commits acknowledged under it may be
    /// missing: the next entry of the history will say so.
    pub lossy: bool,
    /// Earlier epochs, oldest first.
    pub history: Vec<Fork>,
    /// Ids of every change that can matter to a quorum, oldest first; the last is this term's own.
    pub chain: Vec<ChangeId>,
}

impl Term {
    /// The id of the newest change, which names this version of the term.
    pub fn head(&self) -> Option<&ChangeId> {
        self.chain.last()
    }

    /// The descent rule: whether this term is, or follows from, the one whose newest change is `head`.
    /// A member that has acted on nothing yet (`None`) may obey any.
    pub fn descends_from(&self, head: Option<&ChangeId>) -> bool {
        head.is_none_or(|h| self.chain.contains(h))
    }

    /// The rules that were in force before the newest epoch chose its own.
    pub fn rules_before(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|r| r.epoch != self.epoch)
    }

    /// The last epoch before this one that became active.
    pub fn epoch_before(&self) -> Option<&Fork> {
        self.history.iter().rev().find(|f| f.epoch != self.epoch)
    }

    /// Whether no epoch after number `epoch` became active: what stood then still stands, whatever was opened since.
    pub fn none_active_since(&self, epoch: u32) -> bool {
        epoch <= self.epoch.number && self.history.last().is_none_or(|f| f.epoch.number <= epoch)
    }

    /// Whether the change from `[old]` to `[new]` of this epoch is still pending.
    pub fn reconfiguring(&self) -> bool {
        self.phase == Phase::Active && self.rules.len() > 1
    }

    /// Adds the id of a new change to the chain, forgetting the oldest behind [`CHAIN_LIMIT`].
    pub fn push_change(&mut self, id: ChangeId) {
        self.chain.push(id);
        let excess = self.chain.len().saturating_sub(CHAIN_LIMIT);
        self.chain.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> ChangeId {
        ChangeId::from_random(n)
    }

    #[test]
    fn descent_is_by_id_and_never_by_number() {
        let t = Term {
            epoch: Epoch { number: 9, id: id(2) },
            phase: Phase::Recruiting,
            leader: None,
            rules: vec![],
            lossy: false,
            history: vec![],
            chain: vec![id(1), id(2)],
        };
        assert!(t.descends_from(None) && t.descends_from(Some(&id(1))) && t.descends_from(Some(&id(2))));
        assert!(!t.descends_from(Some(&id(3))), "a restored register may carry greater numbers");
    }

    #[test]
    fn the_chain_is_bounded() {
        let mut t = Term {
            epoch: Epoch { number: 1, id: id(0) },
            phase: Phase::Active,
            leader: None,
            rules: vec![],
            lossy: false,
            history: vec![],
            chain: vec![],
        };
        (0..2000).for_each(|n| t.push_change(id(n)));
        assert_eq!(t.chain.len(), CHAIN_LIMIT);
        assert_eq!(t.head(), Some(&id(1999)));
    }
}

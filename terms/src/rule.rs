//! The rule by which a leader acknowledges, and the arithmetic of when it no longer can.

use crate::{Epoch, MemberId};
use std::collections::BTreeSet;

/// One rule under which an acknowledged commit may exist: in `epoch`, `leader` acknowledges a commit once
/// `acknowledgements` (W) of `followers` have flushed it. W = 0: at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// Who acknowledges.
    pub leader: MemberId,
    /// Whose flushes count.
    pub followers: BTreeSet<MemberId>,
    /// W: how many of them must have flushed.
    pub acknowledgements: u32,
}

impl Rule {
    /// Leader and followers.
    pub fn members(&self) -> impl Iterator<Item = &MemberId> {
        std::iter::once(&self.leader).chain(&self.followers)
    }

    /// Whether `member`, with this very data, takes part in the rule.
    pub fn contains(&self, member: &MemberId) -> bool {
        self.leader == *member || self.followers.contains(member)
    }

    /// Whether the rule can acknowledge nothing more once these have promised a later epoch: its leader is among them,
    /// or so many followers that fewer than W are left.
    pub fn sealed_by(&self, pledged: &BTreeSet<MemberId>) -> bool {
        self.sealed_with(pledged, &BTreeSet::new())
    }

    /// As [`Rule::sealed_by`], where `unattached` are known never to have followed anybody in the rule's epoch, and never to
    /// do so: the rule is what it would be without them. Whoever is left of those that pledged shares a member with every W
    /// followers that could have acknowledged.
    pub fn sealed_with(&self, pledged: &BTreeSet<MemberId>, unattached: &BTreeSet<MemberId>) -> bool {
        if pledged.contains(&self.leader) {
            return true;
        }
        let w = self.acknowledgements as usize;
        let followers = self.followers.iter().filter(|f| pledged.contains(*f) || unattached.contains(*f)).count();
        // W = 0: only the leader itself seals it, whoever else has pledged.
        w > 0 && followers + w > self.followers.len()
    }

    /// Whether these, having stored a term, both seal the rule and are at least W + 1 of its members. Two such sets
    /// share a member, so a register that goes back can never get a second leader promoted (Confirm).
    pub fn confirmed_by(&self, stored: &BTreeSet<MemberId>) -> bool {
        let members = self.members().filter(|m| stored.contains(*m)).count();
        self.sealed_by(stored) && members > self.acknowledgements as usize
    }

    /// Whether a question answered by these followers proves that no later epoch was elected: W of them, and at least
    /// one. With W = 0 every other member must have answered.
    pub fn vouched_by(&self, answered: &BTreeSet<MemberId>) -> bool {
        let followers = self.followers.iter().filter(|f| answered.contains(*f)).count();
        match self.acknowledgements as usize {
            0 => followers == self.followers.len(),
            w => followers >= w,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChangeId, Incarnation, MemberName};

    fn m(n: u32) -> MemberId {
        MemberId { name: MemberName::new("s", n), incarnation: Incarnation::from_random(n.into()) }
    }

    fn rule(followers: u32, w: u32) -> Rule {
        Rule {
            epoch: Epoch { number: 1, id: ChangeId::from_random(0) },
            leader: m(1),
            followers: (2..2 + followers).map(m).collect(),
            acknowledgements: w,
        }
    }

    fn subsets(members: &[MemberId]) -> impl Iterator<Item = BTreeSet<MemberId>> + '_ {
        (0..1u32 << members.len()).map(|bits| {
            members.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, m)| m.clone()).collect()
        })
    }

    /// What "sealed" means, by its definition: no set of unpledged followers is left that the leader could hear W from.
    #[test]
    fn sealed_means_that_no_quorum_is_left() {
        for n in 0..=4 {
            for w in 0..=n {
                let r = rule(n, w);
                let all: Vec<_> = r.members().cloned().collect();
                for pledged in subsets(&all) {
                    let left = r.followers.iter().filter(|f| !pledged.contains(*f)).count();
                    let can_acknowledge = !pledged.contains(&r.leader) && left >= w as usize;
                    assert_eq!(r.sealed_by(&pledged), !can_acknowledge, "n={n} w={w} {pledged:?}");
                }
            }
        }
    }

    /// By its definition again: every W followers that may have attached have one among those that pledged and may have.
    #[test]
    fn who_never_attached_counts_as_if_not_there() {
        for n in 1..=4 {
            for w in 1..=n {
                let r = rule(n, w);
                let followers: Vec<_> = r.followers.iter().cloned().collect();
                for unattached in subsets(&followers) {
                    for pledged in subsets(&followers) {
                        let may_have: Vec<_> = followers.iter().filter(|f| !unattached.contains(*f)).cloned().collect();
                        let quorums = subsets(&may_have).filter(|q| q.len() == w as usize);
                        let met = quorums.into_iter().all(|q| q.intersection(&pledged).next().is_some());
                        assert_eq!(r.sealed_with(&pledged, &unattached), met, "n={n} w={w} {pledged:?} {unattached:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_unattached_leader_seals_nothing() {
        let r = rule(2, 1);
        assert!(
            !r.sealed_with(&BTreeSet::from([m(2)]), &BTreeSet::from([m(1)])),
            "a leader need not attach to acknowledge"
        );
        assert!(r.sealed_with(&BTreeSet::from([m(2)]), &BTreeSet::from([m(3)])));
        let alone = rule(2, 0);
        assert!(!alone.sealed_with(&BTreeSet::from([m(2)]), &BTreeSet::from([m(3)])), "with W = 0 nobody need attach");
    }

    #[test]
    fn two_confirming_sets_share_a_member() {
        for n in 1..=4 {
            for w in 1..=n {
                let r = rule(n, w);
                let all: Vec<_> = r.members().cloned().collect();
                let sets: Vec<_> = subsets(&all).filter(|s| r.confirmed_by(s)).collect();
                assert!(!sets.is_empty());
                for a in &sets {
                    for b in &sets {
                        assert!(a.intersection(b).next().is_some(), "n={n} w={w} {a:?} {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn whoever_vouches_could_have_stopped_a_later_epoch() {
        // A set that vouches and a set that seals without the leader share a follower, W >= 1.
        for n in 1..=4 {
            for w in 1..=n {
                let r = rule(n, w);
                let followers: Vec<_> = r.followers.iter().cloned().collect();
                for v in subsets(&followers).filter(|s| r.vouched_by(s)) {
                    for s in subsets(&followers).filter(|s| r.sealed_by(s)) {
                        assert!(v.intersection(&s).next().is_some(), "n={n} w={w}");
                    }
                }
            }
        }
    }

    #[test]
    fn another_incarnation_is_another_member() {
        let r = rule(2, 1);
        let mut wiped = m(2);
        wiped.incarnation = Incarnation::from_random(99);
        assert!(!r.contains(&wiped));
        assert!(!r.sealed_by(&BTreeSet::from([wiped, m(3)])));
    }
}

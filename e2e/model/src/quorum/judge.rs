//! What the members conclude from what they know, and what the checker looks at.

use super::*;

impl Opts {
    pub(crate) fn all(&self) -> u8 {
        (1u8 << self.n) - 1
    }
    pub(crate) fn incs(&self, s: &State) -> u8 {
        (0..self.n).fold(0, |a, i| a | s.nodes[i].inc << i)
    }

    /// Would every acknowledgement quorum of `c` meet the pledged set?
    pub(crate) fn sealed(&self, s: &State, c: &Cfg, subset: u8) -> bool {
        let ok = |i: usize| {
            bit(subset, i)
                && s.reports[i].0 > 0
                && (s.reports[i].0 != UNKNOWN || self.mutant == Mutant::UnknownSeals)
                && (self.mutant == Mutant::ReuseIdentity || s.reports[i].2 == c.incs >> i & 1)
        };
        if ok(c.leader as usize) {
            return true;
        }
        let k = (0..self.n).filter(|&i| bit(c.mask, i) && ok(i)).count() as u8;
        match self.mutant {
            Mutant::AsyncForced => k >= 1,
            Mutant::QuorumTooSmall => k + c.w >= bits(c.mask) && k > 0,
            _ => k + c.w > bits(c.mask),
        }
    }
    pub(crate) fn ack_clients(&self, s: &mut State, l: usize) {
        let Role::Leader { epoch } = s.nodes[l].role else { return };
        let nd = s.nodes[l];
        for p in 0..nd.len {
            let e = nd.log[p as usize];
            let v = e & 15;
            if e >> 4 != epoch || v == 0 || bit(s.acked, v as usize) {
                continue;
            }
            let q = |mask: u8, w: u8| (0..self.n).filter(|&i| bit(mask, i) && nd.acked[i] > p).count() as u8 >= w;
            if q(nd.mask, nd.w) || (nd.omask != 0 && q(nd.omask, nd.ow)) {
                s.acked |= 1 << v;
                if s.hi[v as usize - 1] > epoch {
                    s.dual = true
                }
            }
        }
    }
    pub(crate) fn lost(&self, s: &State) -> bool {
        if s.term.phase == Phase::Recruit {
            return false;
        }
        let n = &s.nodes[s.term.leader as usize];
        n.inc == s.term.linc && (1..V as u8 + 1).any(|v| bit(s.acked, v as usize) && !n.has(v))
    }
    pub(crate) fn two_leaders(&self, s: &State) -> bool {
        (0..self.n).any(|i| {
            (0..i).any(|j| {
                matches!((s.nodes[i].role, s.nodes[j].role),
            (Role::Leader { epoch: a }, Role::Leader { epoch: b }) if a == b)
            })
        })
    }
    pub(crate) fn masks(&self, leader: usize) -> Vec<u8> {
        let others = self.all() & !(1 << leader);
        if !self.any_mask {
            return vec![others];
        }
        (1..=self.all()).filter(|m| m & !others == 0 && bits(*m) >= self.w.max(1)).collect()
    }
}

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
        let k =
            (0..self.n).filter(|&i| bit(c.mask, i) && (ok(i) || bit(subset, i) && self.unattached(s, c, i))).count();
        let k = k as u8;
        match self.mutant {
            Mutant::AsyncForced => k >= 1,
            Mutant::NobodySeals => c.mask == 0 || k + c.w > bits(c.mask),
            Mutant::QuorumTooSmall => k + c.w >= bits(c.mask) && k > 0,
            _ => k + c.w > bits(c.mask),
        }
    }
    /// Has `i` promised, and does its record say that the data which `c` counts on followed nobody in its epoch?
    pub(crate) fn unattached(&self, s: &State, c: &Cfg, i: usize) -> bool {
        let n = &s.nodes[i];
        if self.breaks == 0 || s.reports[i].0 == 0 || bit(c.incs, i) || (n.inc == 1 && n.torn == 0) {
            return false; // the record speaks for the first data, if it was not lost with it
        }
        match self.mutant {
            Mutant::NotesUnused => false,
            Mutant::TornSeals => n.torn > 0,
            Mutant::OtherEpochSeals => {
                let newest = s.term.cfgs[..s.term.n as usize].iter().map(|c| c.epoch).max().unwrap_or_default();
                !bit(n.seen, newest.max(1) as usize - 1)
            }
            _ => !bit(n.seen, c.epoch as usize - 1),
        }
    }

    /// Is enough left, were everybody to promise, that this state may still come to something?
    pub(crate) fn hopeful(&self, s: &State) -> bool {
        let mut all = *s;
        for i in 0..self.n {
            let n = &s.nodes[i];
            all.reports[i] = if n.torn == 1 { (UNKNOWN, 0, n.inc) } else { (n.last_epoch() + 1, n.len, n.inc) };
        }
        let notes = Opts { mutant: Mutant::None, ..*self };
        let data = (0..self.n).any(|i| s.nodes[i].torn != 1 && s.nodes[i].len > 0);
        data && s.term.cfgs[..s.term.n as usize].iter().all(|c| notes.sealed(&all, c, self.all()))
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

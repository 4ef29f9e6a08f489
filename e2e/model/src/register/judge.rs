//! What the members conclude from what they know, and what the checker looks at.

use super::*;

impl Opts {
    pub(crate) fn pending(&self, s: &State, r: u8, active: bool) -> u16 {
        if active { 1 << r } else { s.revs[r as usize].cfgs }
    }

    /// May a member whose last act was on revision `seen` act on `r`? (Otherwise: alarm, obey nothing.)
    pub(crate) fn obeys(&self, s: &State, n: &Node, r: u8) -> bool {
        let (a, b) = (&s.revs[n.seen as usize], &s.revs[r as usize]);
        match self.mutant {
            Mutant::IdsIgnored => a.num < b.num || (a.num == b.num && (a.kind == Kind::Open || b.kind != Kind::Open)),
            Mutant::NumberAndId => {
                a.num < b.num || (a.open == b.open && (a.kind == Kind::Open || b.kind != Kind::Open))
            }
            Mutant::RepairByNumber
                if s.repaired != 0 && within(b.chain, s.repaired - 1) && !within(a.chain, s.repaired - 1) =>
            {
                a.num < b.num
            }
            _ => within(b.chain, n.seen),
        }
    }
    pub(crate) fn sealed(&self, s: &State, r: u8, c: u8) -> bool {
        let c = &s.revs[c as usize];
        let ok = |i: usize| s.nodes[i].seen == r;
        ok(c.leader as usize)
            || (0..self.n).filter(|&i| bit(c.mask, i) && ok(i)).count() as u8 + c.w > c.mask.count_ones() as u8
    }
    /// The winner may promote when those who have stored its election (itself included) seal every older pending
    /// configuration *and* are W + 1 of its members: two such sets always meet, so no restored register elects beside it.
    pub(crate) fn confirmed(&self, s: &State, k: u8) -> bool {
        let rv = &s.revs[k as usize];
        let count =
            |m: u8| (0..self.n).filter(|&i| bit(m, i) && (i as u8 == rv.leader || s.nodes[i].seen == k)).count() as u8;
        self.mutant == Mutant::PromoteAtOnce
            || (0..k).filter(|&c| within(rv.cfgs, c)).all(|c| {
                let c = &s.revs[c as usize];
                let leader = count(1 << c.leader);
                let seals = leader == 1 || count(c.mask) + c.w > c.mask.count_ones() as u8;
                seals && (leader + count(c.mask) > c.w || self.mutant == Mutant::PromoteAlone)
            })
    }
    pub(crate) fn newest(&self, cfgs: u16) -> u8 {
        15 - cfgs.leading_zeros() as u8
    }
    pub(crate) fn tip(&self, s: &State) -> u8 {
        (0..s.nrev).rev().find(|&k| s.revs[k as usize].led).unwrap_or_default()
    }

    pub(crate) fn ack_clients(&self, s: &mut State, l: usize) {
        let Role::Leader { elect } = s.nodes[l].role else { return };
        let nd = s.nodes[l];
        let c = s.revs[nd.rule as usize];
        for p in 0..nd.len {
            let v = nd.log[p as usize] & 15;
            if nd.log[p as usize] >> 4 != elect || v == 0 || bit(s.acked, v as usize) {
                continue;
            }
            if (0..self.n).filter(|&i| bit(c.mask, i) && nd.acked[i] > p).count() as u8 >= c.w {
                s.acked |= 1 << v;
                if s.hi[v as usize - 1] > elect {
                    s.dual = true
                }
            }
        }
    }
    /// An acknowledged write is missing in the WAL of a leader that was elected after the one that wrote it (and promoted).
    pub(crate) fn lost(&self, s: &State) -> bool {
        (0..s.nrev).any(|k| {
            let r = &s.revs[k as usize];
            r.led
                && (1..s.next)
                    .any(|v| bit(s.acked, v as usize) && s.under[v as usize - 1] < k && !bit(r.has, v as usize))
        })
    }
    pub(crate) fn two_leaders(&self, s: &State) -> bool {
        let of = |i: usize| {
            if let Role::Leader { elect } = s.nodes[i].role { Some(s.revs[elect as usize].open) } else { None }
        };
        (0..self.n).any(|i| (0..i).any(|j| of(i).is_some() && of(i) == of(j)))
    }
    /// What repair makes of the records it read, at whatever times, of whichever members: (chain, pending
    /// configurations, greatest number). It need not hear enough: who is not in the chain does not obey.
    pub(crate) fn repair(&self, s: &State) -> Option<(u16, u16, u8)> {
        let heard: Vec<(u8, bool)> = (0..self.n)
            .filter(|&i| s.heard[i] != 0)
            .map(|i| ((s.heard[i] - 1) / 2, (s.heard[i] - 1) % 2 == 1))
            .collect();
        if heard.is_empty() {
            return None;
        }
        let (mut chain, mut cfgs, mut num) = (0, 0, 0);
        for &(r, act) in &heard {
            chain |= s.revs[r as usize].chain;
            num = num.max(s.revs[r as usize].num);
            // a record is superseded by one that descends from it, or is the same revision seen Active
            let superseded =
                heard.iter().any(|&(q, a)| (q != r && within(s.revs[q as usize].chain, r)) || (q == r && a && !act));
            if self.mutant == Mutant::RepairNewest
                && heard.iter().any(|&(q, _)| s.revs[q as usize].num > s.revs[r as usize].num)
            {
                continue;
            }
            if !superseded {
                cfgs |= self.pending(s, r, act)
            }
        }
        Some((chain, cfgs, num))
    }
}

impl State {
    pub(crate) fn set(&mut self, k: u8, active: bool) {
        self.nrev = self.nrev.max(k + 1);
        self.reg = k + 1;
        self.active = active;
        self.had |= 1 << (2 * k + active as u8)
    }
}
impl Opts {
    /// The register is Active and its leader has a quorum.
    pub(crate) fn serves(&self, s: &State) -> bool {
        if s.reg == 0 || !s.active {
            return false;
        }
        let r = s.reg - 1;
        let l = s.revs[r as usize].leader;
        let n = &s.nodes[l as usize];
        let Role::Leader { elect } = n.role else { return false };
        let c = &s.revs[r as usize];
        n.rule == r
            && (0..self.n).filter(|&i| bit(c.mask, i) && s.nodes[i].role == Role::Follower { of: l, elect }).count()
                as u8
                >= c.w
    }
    /// Nothing is left to try: no repair (once the register has failed), no epoch, no room.
    pub(crate) fn spent(&self, s: &State) -> bool {
        s.repairs == 0 || s.opens == 0 || s.nrev as usize + 4 > R || s.nodes.iter().any(|n| n.len as usize == L)
    }
    /// The follower's position reaches the leader (at once here; delays are in model 1).
    pub(crate) fn confirm(&self, s: &mut State, f: u8, l: u8) {
        let len = s.nodes[f as usize].len;
        let x = &mut s.nodes[l as usize].acked[f as usize];
        *x = (*x).max(len);
        self.ack_clients(s, l as usize);
    }
}

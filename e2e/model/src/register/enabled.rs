//! Which acts are possible in a state.

use super::*;

impl Opts {
    pub(crate) fn enabled(&self, s: &State, a: &mut Vec<Act>) {
        if s.dual || self.lost(s) || self.two_leaders(s) {
            return;
        }
        let room = (s.nrev as usize) < R;
        // --- the register fails, a person repairs it
        for r in 0..s.nrev {
            for act in [false, true] {
                if s.restores > 0 && s.had >> (2 * r + act as u8) & 1 == 1 && (r + 1, act) != (s.reg, s.active) {
                    a.push(Act::Restore(r, act))
                }
            }
        }
        if s.deletes > 0 && s.reg != 0 {
            a.push(Act::Delete)
        }
        // with no fault configured: repair of a healthy register, at any time
        let broken = s.restores < self.restores || s.deletes < self.deletes || self.restores + self.deletes == 0;
        if broken && s.repairs > 0 && room {
            for i in 0..self.n {
                if s.heard[i] != s.nodes[i].record() {
                    a.push(Act::Hear(i as u8))
                }
            }
            if self.repair(s).is_some() {
                a.push(Act::Repair)
            }
        }
        // --- epochs; an agent that does not obey the register does not change it either
        if s.reg != 0 && room {
            let r = s.reg - 1;
            let rv = &s.revs[r as usize];
            if s.opens > 0 && (0..self.n).any(|i| self.obeys(s, &s.nodes[i], r) || s.nodes[i].seen == r) {
                a.push(Act::Open)
            }
            if rv.kind == Kind::Open && (0..s.nrev).filter(|&c| within(rv.cfgs, c)).all(|c| self.sealed(s, r, c)) {
                let key = |n: &Node| {
                    if n.len == 0 { (0, 0) } else { (s.revs[(n.log[n.len as usize - 1] >> 4) as usize].num, n.len) }
                };
                let best =
                    (0..self.n).filter(|&i| s.nodes[i].seen == r).map(|i| key(&s.nodes[i])).max().unwrap_or((0, 0));
                for i in 0..self.n {
                    let n = &s.nodes[i];
                    if n.seen == r && key(n) == best {
                        a.push(Act::Elect(i as u8))
                    }
                }
            }
        }
        for i in 0..self.n {
            let n = &s.nodes[i];
            let me = i as u8;
            for r in 0..s.nrev {
                let rv = &s.revs[r as usize];
                if n.seen == r || !self.obeys(s, n, r) {
                    continue;
                }
                if rv.kind == Kind::Open {
                    a.push(Act::Pledge(me, r))
                }
                if rv.kind == Kind::Elect
                    && rv.leader == me
                    && n.led < r + 1
                    && (n.len as usize) < L
                    && self.confirmed(s, r)
                {
                    a.push(Act::Promote(me, r))
                }
                // any other member that obeys, pledged in this epoch or not, stores the outcome of the election
                if rv.kind == Kind::Elect && rv.leader != me {
                    a.push(Act::Store(me, r))
                }
            }
            match n.role {
                Role::Leader { elect } => {
                    let room_wal = (n.len as usize) < L;
                    if s.next <= self.writes && room_wal {
                        a.push(Act::Write(me))
                    }
                    if s.reg == elect + 1 && !s.active {
                        let b = n.log[..n.len as usize].iter().position(|x| *x == elect << 4).unwrap_or(0) as u8;
                        let c = &s.revs[n.rule as usize];
                        if (0..self.n).filter(|&j| bit(c.mask, j) && n.acked[j] > b).count() as u8 >= c.w {
                            a.push(Act::Activate(me))
                        }
                    }
                    if s.reg == n.rule + 1 && s.active && s.reconfs > 0 && room {
                        for m in 1..1u8 << self.n {
                            if !bit(m, i) {
                                for w in 1..=m.count_ones() as u8 {
                                    let c = &s.revs[n.rule as usize];
                                    if (m, w) != (c.mask, c.w) {
                                        a.push(Act::Propose(me, m, w))
                                    }
                                }
                            }
                        }
                    }
                    for p in 0..s.nrev {
                        let rv = &s.revs[p as usize];
                        if rv.kind != Kind::Reconf || rv.leader != me || !within(rv.cfgs, n.rule) || p <= n.rule {
                            continue;
                        }
                        if rv.open != s.revs[elect as usize].open {
                            continue;
                        }
                        let c = &s.revs[n.rule as usize];
                        let stored = (0..self.n).filter(|&j| bit(c.mask, j) && s.nodes[j].seen == p).count() as u8;
                        if n.seen == p && (stored >= c.w || self.mutant == Mutant::ApplyUnseen) {
                            a.push(Act::Apply(me, p))
                        }
                    }
                    if s.reg == n.rule + 1 && !s.active && s.revs[n.rule as usize].kind == Kind::Reconf {
                        let c = &s.revs[n.rule as usize];
                        if (0..self.n).filter(|&j| bit(c.mask, j) && n.acked[j] >= n.mark).count() as u8 >= c.w {
                            a.push(Act::Finish(me))
                        }
                    }
                }
                Role::Follower { of, elect } => {
                    let l = &s.nodes[of as usize];
                    if l.role == (Role::Leader { elect }) && n.len < l.len && n.prefix_of(l) {
                        a.push(Act::Stream(me))
                    }
                }
                Role::Idle => {}
            }
            for l in 0..self.n {
                let Role::Leader { elect } = s.nodes[l].role else { continue };
                if l == i || n.role == (Role::Follower { of: l as u8, elect }) {
                    continue;
                }
                if n.role != Role::Idle && n.seen == elect {
                    continue;
                }
                // same revision again (after a pledge that came to nothing it may not go back: `seen` has moved on)
                if n.seen == elect || self.obeys(s, n, elect) {
                    a.push(Act::Attach(me, l as u8))
                }
            }
            // a follower of the leader stores a recorded change of rule
            for p in 0..s.nrev {
                let rv = &s.revs[p as usize];
                let mine = match n.role {
                    Role::Follower { of, .. } => of == rv.leader,
                    Role::Leader { .. } => rv.leader == me,
                    _ => false,
                };
                if rv.kind == Kind::Reconf && mine && n.seen != p && self.obeys(s, n, p) {
                    a.push(Act::Store(me, p))
                }
            }
            if s.active && s.reg == n.seen + 1 && !n.seen_active {
                a.push(Act::See(me))
            }
        }
    }
}

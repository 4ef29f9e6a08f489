//! Which acts are possible in a state.

use super::*;

impl Opts {
    pub(crate) fn enabled(&self, s: &State, a: &mut Vec<Act>) {
        let t = &s.term;
        if s.dual || s.blind || self.lost(s) {
            return;
        } // stop exploring below a violation
        if t.epoch < self.epochs {
            a.push(Act::NewEpoch)
        }
        for i in 0..self.n {
            let n = &s.nodes[i];
            let me = i as u8;
            // --- pledges and election
            let fresh = s.reports[i].0 == 0 && t.phase == Phase::Recruit;
            match self.mutant {
                Mutant::NoPledge => {
                    if fresh && n.promised <= t.epoch {
                        a.push(Act::Pledge(me))
                    }
                }
                Mutant::ReportBeforeStop => {
                    if fresh && n.promised < t.epoch {
                        a.push(Act::Pledge(me))
                    }
                    if s.reports[i].0 > 0 && n.promised < t.epoch {
                        a.push(Act::LateStop(me))
                    }
                }
                _ => {
                    if fresh && n.promised < t.epoch {
                        a.push(Act::Pledge(me))
                    }
                }
            }
            if s.elected[n.promised.max(1) as usize - 1] >> i & 1 == 1
                && n.led < n.promised
                && n.promised >= 1
                && (n.len as usize) < L
            {
                a.push(Act::Promote(me))
            }
            if let Role::Leader { epoch } = n.role {
                if self.mutant == Mutant::PromoteUnsynced && n.mask == 0 {
                    a.push(Act::SetSync(me))
                }
                if t.epoch == epoch && t.phase == Phase::Elected && t.leader == me {
                    // first record of the epoch is on an acknowledgement quorum of the new configuration
                    let b = n.log[..n.len as usize].iter().position(|e| *e == epoch << 4).unwrap_or(0) as u8;
                    let k = (0..self.n).filter(|&j| bit(n.mask, j) && n.acked[j] > b).count() as u8;
                    if k >= n.w {
                        a.push(Act::Activate(me))
                    }
                }
                if s.next <= self.writes && (n.len as usize) < L {
                    a.push(Act::Write(me))
                }
                // --- membership / quorum change by the leader
                if t.epoch == epoch && t.phase == Phase::Active && t.leader == me {
                    if t.n == 1 && s.reconfs > 0 && n.omask == 0 {
                        for m in u8::from(!self.degrade)..=self.all() {
                            if bit(m, i) {
                                continue;
                            }
                            for w in bits(m).min(1)..=bits(m) {
                                if (m, w) == (n.mask, n.w) {
                                    continue;
                                }
                                if self.mutant == Mutant::ApplyBeforeRecord {
                                    a.push(Act::ApplyFirst(me, m, w))
                                } else {
                                    a.push(Act::Propose(me, m, w))
                                }
                            }
                        }
                    }
                    if t.n == 1
                        && self.mutant == Mutant::ApplyBeforeRecord
                        && (t.cfgs[0].mask, t.cfgs[0].w) != (n.mask, n.w)
                    {
                        a.push(Act::Record(me))
                    }
                    if t.n == 2 && (t.cfgs[1].mask, t.cfgs[1].w) == (n.mask, n.w) {
                        let k = (0..self.n).filter(|&j| bit(n.mask, j) && n.acked[j] >= n.mark).count() as u8;
                        let settled = n.omask == 0 || self.mutant == Mutant::FinishUnsettled;
                        let covered = k >= n.w || self.mutant == Mutant::FinishUncovered;
                        if settled && covered {
                            a.push(Act::Finish(me))
                        }
                    }
                }
                if n.omask != 0 {
                    a.push(Act::Settle(me))
                }
                // the leader may apply a recorded change even if it has been deposed meanwhile
                if n.omask == 0
                    && self.mutant != Mutant::ApplyBeforeRecord
                    && t.n >= 2
                    && t.cfgs[1].leader == me
                    && t.cfgs[1].epoch == epoch
                    && t.cfgs[0].epoch == epoch
                    && (t.cfgs[0].mask, t.cfgs[0].w) == (n.mask, n.w)
                {
                    a.push(Act::Apply(me))
                }
            }
            // --- replication
            for e in 1..=self.epochs {
                for l in 0..self.n {
                    if l == i || s.elected[e as usize - 1] >> l & 1 == 0 {
                        continue;
                    }
                    if s.nodes[l].role != (Role::Leader { epoch: e }) {
                        continue;
                    }
                    if n.promised > e {
                        continue;
                    }
                    if n.role == (Role::Follower { of: l as u8, tag: e }) && n.prefix_of(&s.nodes[l]) {
                        continue;
                    }
                    if let Role::Leader { epoch } = n.role
                        && epoch >= e
                    {
                        continue;
                    }
                    if !self.steps {
                        if n.known {
                            a.push(Act::Attach(me, l as u8, e))
                        } else if n.torn == 1 {
                            a.push(Act::Renew(me, l as u8))
                        }
                        continue;
                    }
                    let (prefix, slot) = (n.prefix_of(&s.nodes[l]), bit(s.nodes[l].slots, i));
                    let compared = n.promised == e && n.known && prefix;
                    if n.promised < e || n.role != Role::Idle {
                        a.push(Act::Promise(me, l as u8, e));
                    } else if slot && (self.locks & 1 == 0 || compared) {
                        a.push(Act::Connect(me, l as u8))
                    }
                    if n.promised == e && n.role == Role::Idle && n.known && !prefix {
                        a.push(Act::Rewind(me, l as u8))
                    }
                    if !slot && (self.locks & 2 == 0 || compared || self.mutant == Mutant::SlotEarly && prefix) {
                        a.push(Act::Slot(l as u8, me))
                    }
                }
            }
            if let Role::Follower { of, tag } = n.role {
                let l = &s.nodes[of as usize];
                if let Role::Leader { epoch } = l.role {
                    let allowed = epoch == tag || self.misroute || self.mutant == Mutant::UntaggedAcks;
                    if allowed && n.len < l.len && n.prefix_of(l) {
                        a.push(Act::Stream(me))
                    }
                }
                if self.misroute || self.mutant == Mutant::UntaggedAcks {
                    for j in 0..self.n {
                        if j == i || j == of as usize {
                            continue;
                        }
                        if let Role::Leader { epoch } = s.nodes[j].role {
                            // PostgreSQL refuses a server whose timeline is behind the standby's
                            if epoch < tag && n.last_epoch() <= epoch && n.prefix_of(&s.nodes[j]) {
                                a.push(Act::Misroute(me, j as u8))
                            }
                        }
                    }
                }
            }
            for j in 0..self.n {
                if s.wire[i][j].0 != 0 && matches!(s.nodes[j].role, Role::Leader { .. }) {
                    a.push(Act::Ack(me, j as u8))
                }
            }
            // --- faults
            if s.bounces > 0 && n.role != Role::Idle {
                a.push(Act::Bounce(me))
            }
            if n.role == Role::Idle && n.led > 0 && n.led == n.promised && n.known {
                a.push(Act::Resume(me))
            }
            if !n.known && n.torn != 1 {
                a.push(Act::Replayed(me))
            }
            // data is made anew only to follow whoever is elected in the epoch that was promised
            let led = s.elected[n.promised.max(1) as usize - 1];
            let follows = led != 0 && !bit(led, i) && !matches!(n.role, Role::Leader { .. });
            if s.breaks > 0 && n.inc == 0 && n.torn == 0 && follows {
                a.push(Act::Break(me))
            }
            if self.mutant == Mutant::NotedLate
                && let Role::Follower { tag, .. } = n.role
                && n.inc == 0
                && !bit(n.seen, tag as usize - 1)
            {
                a.push(Act::Note(me))
            }
            // --- "is e still your promise?" (heartbeat; also what a restarted agent asks before it adopts)
            if let Role::Leader { epoch } = n.role {
                if s.asks > 0 {
                    a.push(Act::Ask(me))
                }
                let (e, _, got) = s.ask[i];
                if e == epoch {
                    for j in 0..self.n {
                        let same = self.mutant == Mutant::AnswerAnyDisk || n.incs >> j & 1 == s.nodes[j].inc;
                        if j != i && !bit(got, j) && s.nodes[j].promised == e && same {
                            a.push(Act::Answer(me, j as u8))
                        }
                    }
                    let q = |mask: u8, w: u8| bits(got & mask) >= w;
                    if self.mutant == Mutant::AdoptBlind || q(n.mask, n.w) && (n.omask == 0 || q(n.omask, n.ow)) {
                        a.push(Act::Prove(me))
                    }
                }
            }
            if s.losses > 0 && n.inc == 0 {
                a.push(Act::LoseDisk(me))
            }
        }
        // --- election
        let again = self.mutant == Mutant::NoCas && t.phase == Phase::Elected;
        if t.phase == Phase::Recruit || again {
            let rep = (0..self.n).fold(0u8, |m, i| m | ((s.reports[i].0 > 0) as u8) << i);
            for sub in 1..=self.all() {
                if sub & !rep != 0 || (self.mutant != Mutant::NoCas && sub != rep) {
                    continue;
                }
                if !(0..t.n as usize)
                    .filter(|&k| !again || t.cfgs[k].epoch < t.epoch)
                    .all(|k| self.sealed(s, &t.cfgs[k], sub))
                {
                    continue;
                }
                let key = |i: usize| {
                    if self.mutant == Mutant::BestByLsnOnly {
                        (0, s.reports[i].1)
                    } else {
                        (s.reports[i].0, s.reports[i].1)
                    }
                };
                let can = |i: &usize| bit(sub, *i) && s.reports[*i].0 != UNKNOWN;
                let Some(best) = (0..self.n).filter(can).map(key).max() else { continue };
                for i in (0..self.n).filter(can).filter(|&i| key(i) == best) {
                    if again && i as u8 == t.leader {
                        continue;
                    }
                    for m in self.masks(i) {
                        a.push(Act::Elect(i as u8, m, sub))
                    }
                }
            }
        }
    }
}

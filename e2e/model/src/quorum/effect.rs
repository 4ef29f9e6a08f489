//! What an act makes of a state.

use super::*;

impl Opts {
    /// On disk before the first data follows in this epoch.
    fn note(&self, n: &mut Node, epoch: u8) {
        if self.breaks > 0 && n.inc == 0 && self.mutant != Mutant::NotedLate {
            n.seen |= 1 << (epoch - 1)
        }
    }

    pub(crate) fn effect(&self, s0: &State, act: Act) -> Option<State> {
        let mut s = *s0;
        match act {
            Act::NewEpoch => {
                s.term.epoch += 1;
                s.term.phase = Phase::Recruit;
                s.term.leader = 15;
                s.reports = [(0, 0, 0); N];
            }
            Act::Pledge(i) => {
                let i = i as usize;
                let n = &mut s.nodes[i];
                s.reports[i] = match (n.known, self.mutant) {
                    (true, _) => (n.last_epoch() + 1, n.len, n.inc),
                    (_, Mutant::ReportReplayOnly) => {
                        let mut m = *n;
                        m.truncate(n.len.saturating_sub(1));
                        (m.last_epoch() + 1, m.len, m.inc)
                    }
                    _ => (UNKNOWN, 0, n.inc),
                };
                if self.mutant != Mutant::ReportBeforeStop {
                    if self.mutant != Mutant::NoPledge {
                        n.promised = s.term.epoch
                    }
                    n.role = Role::Idle;
                    n.unlead();
                    for j in 0..N {
                        s.wire[j][i] = (0, 0, 0)
                    }
                }
            }
            Act::LateStop(i) => {
                let n = &mut s.nodes[i as usize];
                n.promised = s.term.epoch;
                n.role = Role::Idle;
                n.unlead();
                for j in 0..N {
                    s.wire[j][i as usize] = (0, 0, 0)
                }
            }
            Act::Elect(i, mask, _) => {
                let e = s.term.epoch;
                let w = if self.mutant == Mutant::AsyncForced { 0 } else { self.w };
                let c = Cfg { epoch: e, leader: i, mask, w, incs: self.incs(&s) & (mask | 1 << i) };
                s.term.phase = Phase::Elected;
                s.term.leader = i;
                s.term.linc = s.reports[i as usize].2;
                s.ecfg[e as usize - 1] = c;
                s.elected[e as usize - 1] |= 1 << i;
                if self.mutant == Mutant::DropConfigsEarly {
                    s.term.cfgs = [Cfg::default(); C];
                    s.term.n = 0
                }
                if s.term.n as usize >= C {
                    return None;
                }
                s.term.cfgs[s.term.n as usize] = c;
                s.term.n += 1;
            }
            Act::Promote(i) => {
                let e = s.nodes[i as usize].promised;
                let mut c = s.ecfg[e as usize - 1];
                if c.leader != i {
                    c.mask = self.all() & !(1 << i)
                }
                let n = &mut s.nodes[i as usize];
                n.unlead();
                n.led = e;
                n.role = Role::Leader { epoch: e };
                n.omask = 0;
                n.ow = 0;
                if self.mutant != Mutant::PromoteUnsynced {
                    n.mask = c.mask;
                    n.w = c.w;
                    n.incs = c.incs
                } else {
                    n.mask = 0;
                    n.w = 0
                }
                n.push(e << 4);
                for j in 0..N {
                    s.wire[j][i as usize] = (0, 0, 0)
                }
            }
            Act::SetSync(i) => {
                let c = s.ecfg[s.nodes[i as usize].led as usize - 1];
                let n = &mut s.nodes[i as usize];
                n.mask = c.mask;
                n.w = c.w;
                n.incs = c.incs;
            }
            Act::Activate(_) => {
                let c = s.term.cfgs[s.term.n as usize - 1];
                s.term.cfgs = [Cfg::default(); C];
                s.term.cfgs[0] = c;
                s.term.n = 1;
                s.term.phase = Phase::Active;
            }
            Act::Write(i) => {
                let v = s.next;
                let Role::Leader { epoch } = s.nodes[i as usize].role else { return None };
                s.nodes[i as usize].push(epoch << 4 | v);
                s.hi[v as usize - 1] =
                    (1..=E as u8).filter(|e| s.elected[*e as usize - 1] != 0).max().unwrap_or_default();
                s.next += 1;
                self.ack_clients(&mut s, i as usize); // only matters when w = 0
            }
            Act::Attach(f, l, e) => {
                let ln = s.nodes[l as usize];
                let n = &mut s.nodes[f as usize];
                if self.mutant != Mutant::NoPledge {
                    n.promised = n.promised.max(e)
                }
                n.unlead();
                let mut k = 0;
                while k < n.len.min(ln.len) && n.log[k as usize] == ln.log[k as usize] {
                    k += 1
                }
                n.truncate(k); // pg_rewind
                self.note(n, e);
                n.role = Role::Follower { of: l, tag: e };
                s.wire[f as usize][l as usize] = (e, n.len, n.inc);
                for j in 0..N {
                    s.wire[j][f as usize] = (0, 0, 0)
                }
            }
            Act::Misroute(f, l) => {
                let n = &mut s.nodes[f as usize];
                let Role::Follower { tag, .. } = n.role else { return None };
                n.role = Role::Follower { of: l, tag };
                s.wire[f as usize][l as usize] = (tag, n.len, n.inc);
            }
            Act::Stream(f) => {
                let Role::Follower { of, tag } = s.nodes[f as usize].role else { return None };
                let ln = s.nodes[of as usize];
                let n = &mut s.nodes[f as usize];
                n.push(ln.log[n.len as usize]);
                s.wire[f as usize][of as usize] = (tag, n.len, n.inc);
                if let Role::Leader { epoch } = ln.role
                    && epoch < n.promised
                {
                    s.stale = true
                }
            }
            Act::Ack(f, l) => {
                let (tag, len, inc) = s.wire[f as usize][l as usize];
                s.wire[f as usize][l as usize] = (0, 0, 0);
                let Role::Leader { epoch } = s.nodes[l as usize].role else { return None };
                let named = tag == epoch || self.mutant == Mutant::UntaggedAcks;
                let same = self.mutant == Mutant::ReuseIdentity || s.nodes[l as usize].incs >> f & 1 == inc;
                if named && same {
                    let a = &mut s.nodes[l as usize].acked[f as usize];
                    *a = (*a).max(len);
                }
                self.ack_clients(&mut s, l as usize);
            }
            Act::Propose(i, m, w) => {
                s.term.cfgs[1] = Cfg { epoch: s.term.epoch, leader: i, mask: m, w, incs: self.incs(&s) & (m | 1 << i) };
                s.term.n = 2;
                s.reconfs -= 1;
            }
            Act::Apply(i) => {
                let c = s.term.cfgs[1];
                let n = &mut s.nodes[i as usize];
                if self.mutant != Mutant::AckWithoutIncarnation {
                    // the tag names the incarnation: what the previous disk flushed does not count for the new one
                    for j in 0..self.n {
                        if bit(n.incs ^ c.incs, j) {
                            n.acked[j] = 0
                        }
                    }
                }
                n.omask = n.mask;
                n.ow = n.w;
                n.mask = c.mask;
                n.w = c.w;
                n.incs = c.incs;
                n.mark = n.len;
                self.ack_clients(&mut s, i as usize);
            }
            Act::Settle(i) => {
                let n = &mut s.nodes[i as usize];
                n.omask = 0;
                n.ow = 0;
                n.mark = n.len;
            }
            Act::Finish(_) => {
                s.term.cfgs[0] = s.term.cfgs[1];
                s.term.cfgs[1] = Cfg::default();
                s.term.n = 1
            }
            Act::ApplyFirst(i, m, w) => {
                s.reconfs -= 1;
                let n = &mut s.nodes[i as usize];
                n.mask = m;
                n.w = w;
                self.ack_clients(&mut s, i as usize);
            }
            Act::Record(i) => {
                s.term.cfgs[0].mask = s.nodes[i as usize].mask;
                s.term.cfgs[0].w = s.nodes[i as usize].w
            }
            Act::Bounce(i) => {
                s.bounces -= 1;
                let n = &mut s.nodes[i as usize];
                n.role = Role::Idle;
                n.acked = [0; N];
                n.known = !self.replay || n.len == 0;
                s.ask[i as usize] = (0, false, 0);
                if self.mutant == Mutant::VolatilePledge {
                    n.promised = n.last_epoch().max(1)
                }
                for j in 0..N {
                    s.wire[j][i as usize] = (0, 0, 0)
                }
            }
            Act::Resume(i) => {
                let n = &mut s.nodes[i as usize];
                n.role = Role::Leader { epoch: n.led }
            }
            Act::Replayed(i) => {
                let n = &mut s.nodes[i as usize];
                n.known = true;
                if s.reports[i as usize].0 == UNKNOWN {
                    s.reports[i as usize] = (n.last_epoch() + 1, n.len, n.inc)
                }
            }
            Act::Promise(f, _, e) => {
                let n = &mut s.nodes[f as usize];
                n.promised = n.promised.max(e);
                n.role = Role::Idle;
                n.unlead();
                for j in 0..N {
                    s.wire[j][f as usize] = (0, 0, 0)
                }
            }
            Act::Slot(l, f) => s.nodes[l as usize].slots |= 1 << f,
            Act::Rewind(f, l) => {
                let ln = s.nodes[l as usize];
                let n = &mut s.nodes[f as usize];
                let k = (0..n.len.min(ln.len))
                    .find(|&k| n.log[k as usize] != ln.log[k as usize])
                    .unwrap_or_else(|| n.len.min(ln.len));
                n.truncate(k);
            }
            Act::Connect(f, l) => {
                let n = &mut s.nodes[f as usize];
                self.note(n, n.promised);
                n.role = Role::Follower { of: l, tag: n.promised };
                s.wire[f as usize][l as usize] = (n.promised, n.len, n.inc); // also if it diverges: PostgreSQL does not look
            }
            Act::Ask(l) => {
                let Role::Leader { epoch } = s.nodes[l as usize].role else { return None };
                let later = s.elected[epoch as usize..].iter().any(|x| *x != 0);
                let got = if self.mutant == Mutant::AnswerStale && s.ask[l as usize].0 == epoch {
                    s.ask[l as usize].2
                } else {
                    0
                };
                s.ask[l as usize] = (epoch, later, got);
                s.asks -= 1;
            }
            Act::Answer(l, f) => s.ask[l as usize].2 |= 1 << f,
            Act::Prove(l) => {
                s.blind |= s.ask[l as usize].1;
                s.ask[l as usize] = (0, false, 0)
            }
            Act::Break(i) => {
                s.breaks -= 1;
                let n = &mut s.nodes[i as usize];
                n.truncate(0);
                n.unlead();
                n.role = Role::Idle;
                n.known = false;
                n.torn = 1;
                if s.reports[i as usize].0 > 0 {
                    s.reports[i as usize] = (UNKNOWN, 0, n.inc)
                }
                for j in 0..N {
                    s.wire[j][i as usize] = (0, 0, 0)
                }
            }
            Act::Renew(f, l) => {
                let ln = s.nodes[l as usize];
                let n = &mut s.nodes[f as usize];
                n.log = ln.log;
                n.len = ln.len;
                n.known = true;
                n.torn = 2;
                n.inc = 1;
            }
            Act::Note(i) => {
                let n = &mut s.nodes[i as usize];
                let Role::Follower { tag, .. } = n.role else { return None };
                n.seen |= 1 << (tag - 1)
            }
            Act::LoseDisk(i) => {
                s.losses -= 1;
                let n = &mut s.nodes[i as usize];
                n.truncate(0);
                n.unlead();
                n.promised = 0;
                n.led = 0;
                n.inc = 1;
                n.role = Role::Idle;
                n.known = true;
                n.torn = 0;
                n.seen = 0;
                n.mask = 0;
                n.w = 0;
                n.incs = 0;
                n.omask = 0;
                n.ow = 0;
                for j in 0..N {
                    s.wire[j][i as usize] = (0, 0, 0)
                }
            }
        }
        Some(s)
    }
}

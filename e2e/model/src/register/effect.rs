//! What an act makes of a state.

use super::*;

impl Opts {
    pub(crate) fn effect(&self, s0: &State, act: Act) -> Option<State> {
        let mut s = *s0;
        match act {
            Act::Open => {
                let r = s.reg - 1;
                let k = s.nrev;
                let p = s.revs[r as usize];
                s.revs[k as usize] = Rev {
                    num: p.num + 1,
                    open: k,
                    chain: p.chain | 1 << k,
                    kind: Kind::Open,
                    cfgs: self.pending(&s, r, s.active),
                    ..Rev::default()
                };
                s.opens -= 1;
                s.set(k, false);
            }
            Act::Pledge(i, r) => {
                let n = &mut s.nodes[i as usize];
                n.seen = r;
                n.seen_active = false;
                n.stop()
            }
            Act::Elect(i) => {
                let r = s.reg - 1;
                let k = s.nrev;
                let p = s.revs[r as usize];
                let c = s.revs[self.newest(p.cfgs) as usize];
                s.revs[k as usize] = Rev {
                    num: p.num,
                    open: r,
                    chain: p.chain | 1 << k,
                    kind: Kind::Elect,
                    leader: i,
                    mask: (c.mask | 1 << c.leader) & !(1 << i),
                    w: c.w,
                    cfgs: p.cfgs | 1 << k,
                    has: s.nodes[i as usize].values() | 1,
                    led: false,
                };
                s.set(k, false);
            }
            Act::Promote(i, k) => {
                let n = &mut s.nodes[i as usize];
                n.stop();
                n.seen = k;
                n.seen_active = false;
                n.led = k + 1;
                n.role = Role::Leader { elect: k };
                n.rule = k;
                n.push(k << 4);
                s.revs[k as usize].led = true;
            }
            Act::Attach(f, l) => {
                let ln = s.nodes[l as usize];
                let Role::Leader { elect } = ln.role else { return None };
                let n = &mut s.nodes[f as usize];
                n.stop();
                if n.seen != elect {
                    n.seen = elect;
                    n.seen_active = false
                }

                let mut k = 0;
                while k < n.len.min(ln.len) && n.log[k as usize] == ln.log[k as usize] {
                    k += 1
                }
                for x in k..n.len {
                    n.log[x as usize] = 0
                }
                n.len = k;
                n.role = Role::Follower { of: l, elect };
                self.confirm(&mut s, f, l);
            }
            Act::Stream(f) => {
                let Role::Follower { of, .. } = s.nodes[f as usize].role else { return None };
                let e = s.nodes[of as usize].log[s.nodes[f as usize].len as usize];
                s.nodes[f as usize].push(e);
                self.confirm(&mut s, f, of);
            }
            Act::Write(i) => {
                let Role::Leader { elect } = s.nodes[i as usize].role else { return None };
                let v = s.next;
                s.nodes[i as usize].push(elect << 4 | v);
                s.under[v as usize - 1] = elect;
                s.hi[v as usize - 1] = self.tip(&s);
                s.next += 1;
            }
            Act::Activate(_) | Act::Finish(_) => {
                let r = s.reg - 1;
                s.set(r, true)
            }
            Act::See(i) => s.nodes[i as usize].seen_active = true,
            Act::Propose(i, mask, w) => {
                let r = s.reg - 1;
                let k = s.nrev;
                let p = s.revs[r as usize];
                s.revs[k as usize] = Rev {
                    num: p.num,
                    open: p.open,
                    chain: p.chain | 1 << k,
                    kind: Kind::Reconf,
                    leader: i,
                    mask,
                    w,
                    cfgs: 1 << r | 1 << k,
                    ..Rev::default()
                };
                s.reconfs -= 1;
                s.set(k, false);
            }
            Act::Store(i, p) => {
                let elect = s.revs[p as usize].kind == Kind::Elect;
                let n = &mut s.nodes[i as usize];
                if elect {
                    n.stop()
                } // it is a pledge too
                n.seen = p;
                n.seen_active = false;
            }
            Act::Apply(i, p) => {
                let n = &mut s.nodes[i as usize];
                n.rule = p;
                n.mark = n.len;
                self.ack_clients(&mut s, i as usize);
            }
            Act::Restore(r, act) => {
                s.restores -= 1;
                s.reg = r + 1;
                s.active = act
            }
            Act::Delete => {
                s.deletes -= 1;
                s.reg = 0;
                s.active = false
            }
            Act::Hear(i) => s.heard[i as usize] = s.nodes[i as usize].record(),
            Act::Repair => {
                let (chain, cfgs, num) = self.repair(&s)?;
                let k = s.nrev;
                s.revs[k as usize] =
                    Rev { num: num + 1, open: k, chain: chain | 1 << k, kind: Kind::Open, cfgs, ..Rev::default() };
                s.repairs -= 1;
                s.repaired = k + 1;
                s.heard = [0; N];
                s.set(k, false);
            }
        }
        Some(s)
    }
}

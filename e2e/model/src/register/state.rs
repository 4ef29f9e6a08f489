//! What the model's world consists of.

use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum Kind {
    #[default]
    Open,
    Elect,
    Reconf,
}

/// One revision. A configuration is named by the revision (Elect or Reconf) that made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Rev {
    pub(crate) num: u8,
    pub(crate) open: u8,
    pub(crate) chain: u16,
    pub(crate) kind: Kind,
    pub(crate) leader: u8,
    pub(crate) mask: u8,
    pub(crate) w: u8,     // the configuration it adds
    pub(crate) cfgs: u16, // configurations pending
    pub(crate) has: u8,
    pub(crate) led: bool, // Elect: values in the winner's WAL; was it promoted
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    Idle,
    Follower { of: u8, elect: u8 },
    Leader { elect: u8 },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Node {
    pub(crate) seen: u8,
    pub(crate) seen_active: bool, // durable: last revision acted on
    pub(crate) led: u8,           // durable: last Elect promoted for, + 1
    pub(crate) len: u8,
    pub(crate) log: [u8; L], // elect << 4 | value, value 0 = barrier
    pub(crate) role: Role,
    pub(crate) rule: u8,
    pub(crate) mark: u8, // leader: configuration in force, position when it was applied
    pub(crate) acked: [u8; N],
}
impl Node {
    pub(crate) fn prefix_of(&self, o: &Node) -> bool {
        self.len <= o.len && self.log[..self.len as usize] == o.log[..self.len as usize]
    }
    pub(crate) fn values(&self) -> u8 {
        self.log[..self.len as usize].iter().fold(0, |m, e| m | 1 << (e & 15))
    }
    pub(crate) fn push(&mut self, e: u8) {
        self.log[self.len as usize] = e;
        self.len += 1
    }
    pub(crate) fn record(&self) -> u8 {
        2 * self.seen + self.seen_active as u8 + 1
    }
    pub(crate) fn stop(&mut self) {
        self.role = Role::Idle;
        self.acked = [0; N];
        self.mark = 0;
        self.rule = 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) revs: [Rev; R],
    pub(crate) nrev: u8,
    pub(crate) reg: u8,
    pub(crate) active: bool, // current revision + 1 (0: the object is gone), and whether it is Active
    pub(crate) had: u32,     // register states that existed: bit 2 * revision + active
    pub(crate) nodes: [Node; N],
    pub(crate) heard: [u8; N], // by the repair under way: 2 * seen + active + 1
    pub(crate) repaired: u8,   // last repair revision + 1
    pub(crate) acked: u8,
    pub(crate) next: u8,
    pub(crate) under: [u8; V],
    pub(crate) hi: [u8; V], // written under Elect; newest promoted Elect then
    pub(crate) opens: u8,
    pub(crate) restores: u8,
    pub(crate) deletes: u8,
    pub(crate) repairs: u8,
    pub(crate) reconfs: u8,
    pub(crate) dual: bool,
}

pub(crate) fn bit(m: u8, i: usize) -> bool {
    m >> i & 1 == 1
}
pub(crate) fn within(m: u16, i: u8) -> bool {
    m >> i & 1 == 1
}

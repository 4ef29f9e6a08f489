//! What the model's world consists of.

use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Cfg {
    pub(crate) epoch: u8,
    pub(crate) leader: u8,
    pub(crate) mask: u8,
    pub(crate) w: u8,
    pub(crate) incs: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Phase {
    Recruit,
    Elected,
    Active,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Term {
    pub(crate) epoch: u8,
    pub(crate) phase: Phase,
    pub(crate) leader: u8,
    pub(crate) linc: u8,
    pub(crate) n: u8,
    pub(crate) cfgs: [Cfg; C],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    Idle,
    Follower { of: u8, tag: u8 },
    Leader { epoch: u8 },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Node {
    pub(crate) promised: u8, // durable
    pub(crate) led: u8,      // durable: last epoch this node was promoted in
    pub(crate) inc: u8,      // disk incarnation
    pub(crate) len: u8,
    pub(crate) log: [u8; L], // epoch << 4 | value, value 0 = first record of the epoch
    pub(crate) role: Role,
    // leader only: synchronous_standby_names in force (mask/w), and the one some walsender may still use
    pub(crate) mask: u8,
    pub(crate) w: u8,
    pub(crate) incs: u8,
    pub(crate) omask: u8,
    pub(crate) ow: u8,
    pub(crate) mark: u8,
    pub(crate) acked: [u8; N],
    pub(crate) known: bool, // position known (replay has ended)
    pub(crate) slots: u8,   // leader: followers that have a slot of this epoch
    pub(crate) torn: u8,    // 1: a rewind or copy broke off, the data is worthless; 2: copied anew since, record kept
    pub(crate) seen: u8,    // durable, with `breaks` only: epochs in which the first data followed (bit epoch - 1)
}
impl Node {
    pub(crate) fn last_epoch(&self) -> u8 {
        if self.len == 0 { 0 } else { self.log[self.len as usize - 1] >> 4 }
    }
    pub(crate) fn has(&self, v: u8) -> bool {
        self.log[..self.len as usize].iter().any(|e| e & 15 == v)
    }
    pub(crate) fn prefix_of(&self, o: &Node) -> bool {
        self.len <= o.len && self.log[..self.len as usize] == o.log[..self.len as usize]
    }
    pub(crate) fn push(&mut self, e: u8) {
        self.log[self.len as usize] = e;
        self.len += 1;
    }
    pub(crate) fn truncate(&mut self, n: u8) {
        for i in n as usize..self.len as usize {
            self.log[i] = 0
        }
        self.len = n;
    }
    /// Demotion: synchronous_standby_names stays in the configuration file, the live counters go.
    pub(crate) fn unlead(&mut self) {
        self.mark = 0;
        self.acked = [0; N];
        self.slots = 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) term: Term,
    pub(crate) nodes: [Node; N],
    pub(crate) wire: [[(u8, u8, u8); N]; N], // delayed acks from -> to : (tag, len, inc), tag 0 = none
    pub(crate) reports: [(u8, u8, u8); N],   // (last epoch + 1, len, inc), 0 = none, UNKNOWN; for term.epoch
    pub(crate) ecfg: [Cfg; E],               // configuration each epoch was elected with
    pub(crate) elected: [u8; E],             // nodes elected per epoch (more than one only for NoCas)
    pub(crate) hi: [u8; V],                  // highest elected epoch when the value was written
    pub(crate) acked: u8,                    // bit v: value v acknowledged to the client
    pub(crate) next: u8,
    pub(crate) bounces: u8,
    pub(crate) losses: u8,
    pub(crate) reconfs: u8,
    pub(crate) breaks: u8,
    pub(crate) dual: bool, // acknowledged a write that was begun after a later epoch had been elected
    pub(crate) stale: bool, // a node applied WAL from a leader older than its pledge
    pub(crate) asks: u8,
    pub(crate) ask: [(u8, bool, u8); N], // leader's open question: epoch (0 none), was a later one elected when it was sent, answers
    pub(crate) blind: bool, // a leader took itself for undeposed although a later epoch had been elected before it asked
}
pub(crate) const UNKNOWN: u8 = 200;

pub(crate) fn bits(m: u8) -> u8 {
    m.count_ones() as u8
}
pub(crate) fn bit(m: u8, i: usize) -> bool {
    m >> i & 1 == 1
}

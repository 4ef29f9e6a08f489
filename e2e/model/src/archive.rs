//! Model 5: what lies in the archive is a part of the log of whoever leads later, and nothing in it is overwritten.
//!
//! Each process leads one epoch and ships its own WAL, position by position; a deposed one goes on for as long as it likes. Faults: a
//! machine that runs twice (a copy of the leader under its own name), a member that takes itself for the leader of an epoch that
//! is another's, and another set under the same prefix and system identifier (a copy of its volumes).
mod cases;

pub(crate) use cases::{cases, mutants};

use stateright::{Model, Property};

/// Positions of the log, epochs and processes.
const LENGTH: usize = 3;
const EPOCHS: usize = 3;
const PROCESSES: usize = 4;

/// A safeguard that is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutant {
    None,
    /// Whoever finds another's claim goes on all the same.
    ClaimIgnored,
    /// An object that is there already counts as one's own without a look.
    NotCompared,
    /// Objects are written without a condition.
    Unconditional,
    /// Whose archive it is is not asked.
    OwnerUnchecked,
    /// A reader goes on with a timeline behind the place where the next epoch left it.
    ForkIgnored,
    /// WAL is shipped before a quorum has flushed it.
    Unflushed,
    /// A new leader ships nothing of what the one before had not.
    NoCatchUp,
    /// And does not look who wrote what is there of it.
    AncestorsUnchecked,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Opts {
    /// WAL is shipped once a quorum has it, and who leads next has all that; otherwise at once, and may lack any of it.
    pub(crate) quorum: bool,
    /// Whether leadership moves.
    pub(crate) moves: bool,
    /// Positions that are written at most.
    pub(crate) length: u8,
    /// Which faults may happen, once each.
    pub(crate) copy: bool,
    pub(crate) misled: bool,
    pub(crate) foreign: bool,
    pub(crate) mutant: Mutant,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It has asked for nothing yet.
    New,
    /// The archive is its set's.
    Opened,
    /// What its ancestors lacked is there.
    CaughtUp,
    /// It has claimed its epoch, and ships.
    Claimed,
    /// It found somebody else's, and ships no more.
    Fenced,
}

/// A process that is writable, or was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Process {
    set: u8,
    /// The member that it takes itself for.
    member: u8,
    epoch: u8,
    log: [u8; LENGTH],
    length: u8,
    /// What a quorum has flushed.
    flushed: u8,
    shipped: u8,
    phase: Phase,
}

/// Who writes an epoch, and where it went on from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Claim {
    set: u8,
    member: u8,
    parent: Option<(u8, u8)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    processes: [Option<Process>; PROCESSES],
    /// Of each epoch: who leads it, and from where it went on. The PgTerm's history.
    history: [Option<Claim>; EPOCHS],
    /// The process that was elected last.
    leader: u8,
    copied: bool,
    misled: bool,
    owner: Option<u8>,
    claims: [Option<Claim>; EPOCHS],
    /// Of each epoch and position what is stored; 0: nothing.
    objects: [[u8; LENGTH]; EPOCHS],
    overwritten: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Write(u8),
    Flush(u8),
    /// Another member leads, with so much of the log.
    TakeOver(u8),
    /// The leader's machine runs twice.
    Copy,
    /// A member with so much of the log takes itself for the leader of its epoch.
    Mislead(u8),
    /// Another set begins with so much of the log.
    Foreign(u8),
    Open(u8),
    CatchUp(u8),
    Claim(u8),
    Put(u8),
}

/// What came of putting an object.
enum Stored {
    Mine,
    Other,
}

impl Opts {
    fn put(&self, s: &mut State, epoch: usize, at: usize, value: u8) -> Stored {
        let there = s.objects[epoch][at];
        if there != 0 && there != value && self.mutant == Mutant::Unconditional {
            s.overwritten = true;
        } else if there != 0 {
            let mine = there == value || self.mutant == Mutant::NotCompared;
            return if mine { Stored::Mine } else { Stored::Other };
        }
        s.objects[epoch][at] = value;
        Stored::Mine
    }

    fn safe(&self, p: &Process) -> u8 {
        if self.quorum && self.mutant != Mutant::Unflushed { p.flushed } else { p.length }
    }

    fn claimed(&self, there: &Claim, p: &Process) -> bool {
        (there.set == p.set && there.member == p.member) || self.mutant == Mutant::ClaimIgnored
    }

    /// Ships one thing that an ancestor lacks, the oldest first; `None`: nothing is lacking.
    fn catch_up(&self, s: &mut State, p: &Process) -> Option<Stored> {
        let ancestors = ancestry(&s.history, p.epoch);
        // Whoever claims an epoch has done the same before. Without a claim the archive begins with this epoch.
        let last = ancestors.iter().position(|(e, _)| s.claims[*e as usize].is_some())?;
        for (epoch, until) in ancestors[..=last].iter().rev() {
            let epoch = *epoch as usize;
            match s.claims[epoch] {
                None => {
                    s.claims[epoch] = s.history[epoch];
                    return Some(Stored::Mine);
                }
                Some(_) if s.claims[epoch] != s.history[epoch] && self.mutant != Mutant::AncestorsUnchecked => {
                    return Some(Stored::Other);
                }
                Some(_) => {}
            }
            let from = s.history[epoch].and_then(|c| c.parent).map_or(0, |(_, at)| at);
            if let Some(at) = (from..*until).find(|at| s.objects[epoch][*at as usize] == 0) {
                return Some(self.put(s, epoch, at as usize, p.log[at as usize]));
            }
        }
        None
    }

    /// What a restore of the newest epoch gives.
    fn read(&self, s: &State) -> Option<Read> {
        let newest = s.claims.iter().rposition(Option::is_some)?;
        let claim = s.claims[newest]?;
        let mut way = vec![(newest, LENGTH)];
        let (mut begin, mut next) = (0, claim.parent);
        while let Some((parent, fork)) = next {
            let Some(earlier) = s.claims[parent as usize] else {
                // The archive begins with an epoch in between.
                begin = fork as usize;
                break;
            };
            way.push((parent as usize, fork as usize));
            next = earlier.parent;
        }
        let mut end = begin;
        let mut bytes = vec![];
        for (epoch, until) in way.iter().rev() {
            let until = if self.mutant == Mutant::ForkIgnored { LENGTH } else { *until };
            while end < until && s.objects[*epoch][end] != 0 {
                bytes.push(s.objects[*epoch][end]);
                end += 1;
            }
        }
        Some(Read { claim, epoch: newest as u8, begin, bytes })
    }
}

/// What a reader gets.
struct Read {
    /// Of the newest epoch.
    claim: Claim,
    epoch: u8,
    begin: usize,
    bytes: Vec<u8>,
}

impl Read {
    fn writers<'s>(&self, s: &'s State) -> impl Iterator<Item = &'s Process> {
        let (claim, epoch) = (self.claim, self.epoch);
        s.processes.iter().flatten().filter(move |p| p.epoch == epoch && p.member == claim.member && p.set == claim.set)
    }
    fn is_of(&self, p: &Process) -> bool {
        p.log[..p.length as usize].get(self.begin..).is_some_and(|log| log.starts_with(&self.bytes))
    }
}

/// The epochs from which one went on, the newest first, each with where it was left.
fn ancestry(history: &[Option<Claim>; EPOCHS], epoch: u8) -> Vec<(u8, u8)> {
    let mut found = vec![];
    let mut next = history[epoch as usize].and_then(|c| c.parent);
    while let Some((parent, at)) = next {
        found.push((parent, at));
        next = history[parent as usize].and_then(|c| c.parent);
    }
    found
}

impl State {
    fn free(&self) -> Option<usize> {
        self.processes.iter().position(Option::is_none)
    }
    fn epoch(&self) -> Option<usize> {
        self.history.iter().position(Option::is_none)
    }
    fn leader(&self) -> Option<Process> {
        self.processes[self.leader as usize]
    }
    fn fork(&self, epoch: u8) -> u8 {
        self.history[epoch as usize].and_then(|c| c.parent).map_or(0, |(_, at)| at)
    }
    /// A process with the first `keep` of another's log, in an epoch of its own that went on from there.
    fn branch(&mut self, of: Process, keep: u8, set: u8) -> Option<usize> {
        let (slot, epoch) = (self.free()?, self.epoch()?);
        let mut log = of.log;
        log[keep as usize..].fill(0);
        let member = slot as u8;
        let process = Process {
            set,
            member,
            epoch: epoch as u8,
            log,
            length: keep,
            flushed: keep,
            shipped: keep,
            phase: Phase::New,
        };
        self.processes[slot] = Some(process);
        self.history[epoch] = Some(Claim { set, member, parent: Some((of.epoch, keep)) });
        Some(slot)
    }
}

impl Model for Opts {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        let first = Process {
            set: 0,
            member: 0,
            epoch: 0,
            log: [0; LENGTH],
            length: 0,
            flushed: 0,
            shipped: 0,
            phase: Phase::Claimed,
        };
        let mut processes = [None; PROCESSES];
        processes[0] = Some(first);
        let mut history = [None; EPOCHS];
        history[0] = Some(Claim { set: 0, member: 0, parent: None });
        vec![State {
            processes,
            history,
            leader: 0,
            copied: false,
            misled: false,
            owner: Some(0),
            claims: history,
            objects: [[0; LENGTH]; EPOCHS],
            overwritten: false,
        }]
    }

    fn actions(&self, s: &State, acts: &mut Vec<Act>) {
        let Some(leader) = s.leader() else { return };
        for (n, process) in s.processes.iter().enumerate() {
            let Some(p) = process else { continue };
            let n = n as u8;
            if p.length < self.length {
                acts.push(Act::Write(n));
            }
            // Followers of an epoch that was left have promised another one.
            if p.flushed < p.length && (n == s.leader || p.set == 1) && self.quorum {
                acts.push(Act::Flush(n));
            }
            match p.phase {
                Phase::New => acts.push(Act::Open(n)),
                Phase::Opened => acts.push(Act::CatchUp(n)),
                Phase::CaughtUp => acts.push(Act::Claim(n)),
                Phase::Claimed if p.shipped < self.safe(p) => acts.push(Act::Put(n)),
                Phase::Claimed | Phase::Fenced => {}
            }
        }
        if s.free().is_none() {
            return;
        }
        let from = s.fork(leader.epoch).max(if self.quorum { leader.flushed } else { 0 });
        for keep in from..=leader.length {
            if s.epoch().is_some() && self.moves {
                acts.push(Act::TakeOver(keep));
                if self.foreign && s.history.iter().flatten().all(|c| c.set == 0) {
                    acts.push(Act::Foreign(keep));
                }
            }
            if self.misled && !s.misled {
                acts.push(Act::Mislead(keep));
            }
        }
        if self.copy && !s.copied {
            acts.push(Act::Copy);
        }
    }

    fn next_state(&self, s: &State, act: Act) -> Option<State> {
        let mut s = s.clone();
        let leader = s.leader()?;
        match act {
            Act::Write(n) => {
                let p = s.processes[n as usize].as_mut()?;
                p.log[p.length as usize] = n + 1;
                p.length += 1;
            }
            Act::Flush(n) => s.processes[n as usize].as_mut()?.flushed += 1,
            Act::TakeOver(keep) => s.leader = s.branch(leader, keep, 0)? as u8,
            Act::Foreign(keep) => drop(s.branch(leader, keep, 1)?),
            Act::Copy => {
                let slot = s.free()?;
                s.processes[slot] = Some(leader);
                s.copied = true;
            }
            Act::Mislead(keep) => {
                let slot = s.free()?;
                let mut log = leader.log;
                log[keep as usize..].fill(0);
                let member = slot as u8;
                let shipped = s.fork(leader.epoch);
                s.processes[slot] =
                    Some(Process { member, log, length: keep, flushed: keep, shipped, phase: Phase::New, ..leader });
                s.misled = true;
            }
            Act::Open(n) => {
                let p = s.processes[n as usize].as_mut()?;
                let mine = s.owner.is_none_or(|o| o == p.set) || self.mutant == Mutant::OwnerUnchecked;
                p.phase = if mine { Phase::Opened } else { Phase::Fenced };
                if s.owner.is_none() {
                    s.owner = Some(p.set);
                }
            }
            Act::CatchUp(n) => {
                let p = s.processes[n as usize]?;
                let done = if self.mutant == Mutant::NoCatchUp { None } else { self.catch_up(&mut s, &p) };
                s.processes[n as usize].as_mut()?.phase = match done {
                    None => Phase::CaughtUp,
                    Some(Stored::Mine) => Phase::Opened,
                    Some(Stored::Other) => Phase::Fenced,
                };
            }
            Act::Claim(n) => {
                let p = s.processes[n as usize]?;
                let there = s.claims[p.epoch as usize];
                let good = there.is_none_or(|c| self.claimed(&c, &p));
                if there.is_none() {
                    let parent = s.history[p.epoch as usize]?.parent;
                    s.claims[p.epoch as usize] = Some(Claim { set: p.set, member: p.member, parent });
                }
                s.processes[n as usize].as_mut()?.phase = if good { Phase::Claimed } else { Phase::Fenced };
            }
            Act::Put(n) => {
                let p = s.processes[n as usize]?;
                let stored = self.put(&mut s, p.epoch as usize, p.shipped as usize, p.log[p.shipped as usize]);
                let p = s.processes[n as usize].as_mut()?;
                match stored {
                    Stored::Mine => p.shipped += 1,
                    Stored::Other => p.phase = Phase::Fenced,
                }
            }
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_LOG, |o: &Opts, s: &State| {
                o.read(s).is_none_or(|read| read.writers(s).any(|p| read.is_of(p)))
            }),
            Property::always(LATER, |o: &Opts, s: &State| {
                // Without a quorum a failover may take back what was archived; then only the fork says where.
                let (Some(read), Some(leader)) = (o.read(s), s.leader()) else { return true };
                !o.quorum || s.owner != Some(0) || read.is_of(&leader)
            }),
            Property::always(GAPS, |o: &Opts, s: &State| {
                let Some(read) = o.read(s) else { return true };
                let end = read.begin + read.bytes.len();
                read.writers(s).all(|p| p.phase != Phase::Claimed || end >= p.shipped as usize)
            }),
            Property::always(KEPT, |_: &Opts, s: &State| !s.overwritten),
            Property::sometimes(GOAL, |o: &Opts, s: &State| {
                let over_three = |r: &Read| r.epoch == 2 && r.claim.parent.is_some_and(|(e, _)| e == 1);
                o.read(s).is_some_and(|r| over_three(&r) && r.begin == 0 && r.bytes.len() == usize::from(o.length))
            }),
        ]
    }
}

pub(crate) const ONE_LOG: &str = "what is read is the beginning of the log of the newest epoch's writer";
pub(crate) const LATER: &str = "nothing is archived that a later leader lacks";
pub(crate) const GAPS: &str = "what was shipped can be read";
pub(crate) const KEPT: &str = "no object is overwritten";
/// Against vacuity.
pub(crate) const GOAL: &str = "goal: a log over three epochs is read whole";

//! One real core, an executor that does at once what it is told, and peers that answer what they are told to.

use crate::words;
use pgconvoy_ha::{
    Answer, Ask, AskId, Core, Data, Effect, Event, Instant, Local, Output, Record, Register, RuleInForce, Server, Spec,
    Stream, SwapOutcome, Timing, Unreachable, WantKind,
};
use pgconvoy_terms::{
    ChangeId, Epoch, Fork, Incarnation, Lsn, MemberId, MemberName, Phase, Position, Rule, SystemId, Term,
};
use std::collections::{BTreeSet, VecDeque};

/// The epoch in which everything begins.
pub(crate) const EPOCH: u32 = 7;

pub(crate) fn name(n: u32) -> MemberName {
    MemberName::new("s", n)
}

pub(crate) fn member(n: u32) -> MemberId {
    MemberId { name: name(n), incarnation: Incarnation::from_random(u128::from(n) << 64) }
}

fn id(n: u32) -> ChangeId {
    ChangeId::from_random(u128::from(n) << 64)
}

pub(crate) fn epoch(number: u32) -> Epoch {
    Epoch { number, id: id(number) }
}

/// Member 1 leads, one of two followers must have a commit.
pub(crate) fn rule(number: u32, leader: u32) -> Rule {
    let followers = [1, 2, 3].into_iter().filter(|n| *n != leader).map(member).collect();
    Rule { epoch: epoch(number), leader: member(leader), followers, acknowledgements: 1 }
}

/// Epoch 7, active under member 1.
pub(crate) fn active() -> Term {
    let fork = Fork {
        epoch: epoch(EPOCH),
        parent: Some(epoch(EPOCH - 1).timeline()),
        at: Some(Lsn(0x100)),
        leader: member(1),
        lossy: false,
    };
    Term {
        epoch: epoch(EPOCH),
        phase: Phase::Active,
        leader: Some(member(1)),
        rules: vec![rule(EPOCH, 1)],
        lossy: false,
        history: vec![fork],
        chain: vec![id(EPOCH)],
    }
}

/// The next epoch, just opened by somebody.
pub(crate) fn opened(from: &Term) -> Term {
    let number = from.epoch.number + 1;
    let mut term = Term { epoch: epoch(number), phase: Phase::Recruiting, leader: None, ..from.clone() };
    term.push_change(id(number));
    term
}

/// This epoch, or the next if it has a leader already, with that one elected.
pub(crate) fn elected(from: &Term, leader: u32) -> Term {
    let mut term = if from.phase == Phase::Recruiting { from.clone() } else { opened(from) };
    term.phase = Phase::Elected;
    term.leader = Some(member(leader));
    let mut rule = rule(term.epoch.number, leader);
    rule.epoch = term.epoch.clone();
    term.rules.push(rule);
    term.push_change(id(100 + term.epoch.number));
    term
}

pub(crate) struct Bench {
    pub(crate) me: u32,
    core: Core,
    now: u64,
    last: Output,
    record: Record,
    local: Local,
    /// Whether the executor does anything.
    idle: bool,
    register: Register,
    asks: Vec<(AskId, MemberName, Ask, u64)>,
    swap: Option<Term>,
    inbox: u64,
    noted: Vec<String>,
    kinds: BTreeSet<String>,
}

impl Bench {
    /// A member that starts with this on its volume, and with PostgreSQL like this.
    pub(crate) fn start(me: u32, term: Option<Term>, data: Data, server: Server) -> Self {
        let known = term.is_some();
        let record = Record {
            incarnation: known.then(|| member(me).incarnation),
            promised: term.as_ref().map(|t| t.epoch.clone()),
            head: term.clone(),
            ..Record::default()
        };
        let start = Instant(100_000);
        let mut core = Core::new(name(me), record.clone(), Timing::default(), 7, start);
        let last = core.step(start, Event::Tick);
        let local = Local {
            applied: last.want.revision,
            data,
            server,
            problem: None,
            in_vain: None,
            answered: start,
            stalled: false,
            shutdown: None,
        };
        let register = Register { version: "1".to_owned(), term, remade: false };
        let (asks, noted) = (vec![], vec![]);
        let mut bench = Self {
            me,
            core,
            now: start.0,
            last,
            record,
            local,
            idle: false,
            register,
            asks,
            swap: None,
            inbox: 0,
            noted,
            kinds: BTreeSet::new(),
        };
        let local = bench.local.clone();
        bench.step(Event::Local(local));
        bench
    }

    /// What the spec says: three members, one acknowledgement.
    pub(crate) fn spec(acknowledgements: u32, members: u32) -> Spec {
        let roster = (1..=members).map(name).collect();
        Spec { roster, acknowledgements, manual: false, degrade: false }
    }

    /// It has read the spec and the register, its peers answer its questions, until nothing new comes of it.
    pub(crate) fn settle(mut self) -> Self {
        self.step(Event::Spec(Self::spec(1, 3)));
        let register = self.register.clone();
        let proof = Some(Instant(self.now));
        self.step(Event::Term { register, proof });
        self.friendly(4_000, false);
        self
    }

    /// From here on is noted what is done.
    pub(crate) fn begin(&mut self) {
        self.noted.clear();
        self.kinds.clear();
    }

    /// What was done since, each once.
    pub(crate) fn deeds(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.noted.iter().filter(|d| seen.insert((*d).clone())).cloned().collect()
    }

    pub(crate) fn kinds(&self) -> &BTreeSet<String> {
        &self.kinds
    }

    pub(crate) fn term(&self) -> Option<Term> {
        self.core.record().head.clone()
    }

    pub(crate) fn state(&self) -> String {
        self.term().map_or_else(String::new, |t| format!("Phase::{:?}", t.phase))
    }

    /// This happens: the case is about it.
    pub(crate) fn happens(&mut self, event: Event) {
        self.kinds.extend(words::kinds(&event));
        self.step(event);
    }

    /// One step, and what the executor makes of it.
    pub(crate) fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        for _ in 0..20 {
            let Some(event) = events.pop_front() else { return };
            let output = self.core.step(Instant(self.now), event);
            self.noted.extend(words::deeds(&self.record, &self.last, &output));
            for effect in &output.effects {
                match effect.clone() {
                    Effect::Persist(record) => self.record = record,
                    Effect::Ask { id, to, ask, within } => self.asks.push((id, to, ask, self.now + within)),
                    Effect::Swap { term, .. } => self.swap = Some(term),
                    _ => {}
                }
            }
            self.last = output;
            if !self.idle && self.local.applied != self.last.want.revision {
                self.obey();
                self.now += 10;
                events.push_back(Event::Local(self.local.clone()));
            }
        }
        panic!("it does not come to rest: {:?}", self.noted);
    }

    /// The executor does what is wanted.
    fn obey(&mut self) {
        let (me, position) = (member(self.me), Position { timeline: epoch(EPOCH).timeline(), end: Lsn(0x500) });
        let standby = |following: Option<Epoch>| {
            let there = following.is_some();
            let position = (!there).then_some(position);
            Server::Standby { following, receiving: there, live: there, position }
        };
        let good = |incarnation| Data::Good { incarnation, system: SystemId(1) };
        let was_writable = matches!(self.local.server, Server::Primary { .. });
        match self.last.want.kind.clone() {
            WantKind::Keep => {}
            // Nobody waits for a disk under a PostgreSQL that is gone.
            WantKind::Fenced | WantKind::Rewind { .. } => {
                (self.local.server, self.local.stalled) = (Server::Down, false);
            }
            WantKind::Stopped => {
                self.local.server = Server::Down;
                self.local.shutdown = was_writable.then_some(Position { end: Lsn(0x4ff), ..position });
            }
            WantKind::Found { incarnation } | WantKind::Clone { incarnation, .. } => {
                (self.local.data, self.local.server) = (good(incarnation), Server::Down);
            }
            WantKind::Detached => self.local.server = standby(None),
            WantKind::Follow { epoch, .. } => self.local.server = standby(Some(epoch)),
            WantKind::Lead { epoch, rule, gate } => self.local.server = writable(&me, epoch, &rule, gate),
        }
        self.local.applied = self.last.want.revision;
    }

    /// Time passes: PostgreSQL answers, unless `mute`; whoever was asked does not.
    pub(crate) fn silence(&mut self, milliseconds: u64, mute: bool) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now += 250;
            if !mute {
                self.report(|l, now| l.answered = now);
            }
            let late = |a: &(AskId, MemberName, Ask, u64)| a.3 <= self.now;
            let (gone, left): (Vec<_>, _) = std::mem::take(&mut self.asks).into_iter().partition(late);
            self.asks = left;
            for (id, from, ..) in gone {
                self.happens(Event::Answered { id, from, answer: Err(Unreachable::Silent) });
            }
            self.happens(Event::Tick);
        }
    }

    /// Time passes, and peers answer all that they are asked. `mute`: PostgreSQL does not, and they only vouch.
    pub(crate) fn friendly(&mut self, milliseconds: u64, mute: bool) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now += 250;
            if !mute {
                self.report(|l, now| l.answered = now);
            }
            self.step(Event::Tick);
            self.answer(&|ask| !mute || matches!(ask, Ask::Vouch { .. }));
            if let Some(head) = self.term()
                && head.leader.as_ref().is_some_and(|l| l.name == name(1))
                && self.me != 1
            {
                let ask = Ask::Vouch { epoch: head.epoch, nonce: 1, quorate: true };
                self.ask_quietly(1, ask);
            }
        }
    }

    /// What is here changed.
    pub(crate) fn report(&mut self, change: impl FnOnce(&mut Local, Instant)) {
        change(&mut self.local, Instant(self.now));
        let local = self.local.clone();
        self.step(Event::Local(local));
    }

    /// The same, as what the case is about; the executor changes nothing of it.
    pub(crate) fn becomes(&mut self, change: impl FnOnce(&mut Local)) {
        change(&mut self.local);
        let local = self.local.clone();
        self.happens(Event::Local(local));
    }

    /// A peer asks.
    pub(crate) fn asked(&mut self, from: u32, ask: Ask) {
        self.inbox += 1;
        self.happens(Event::Asked { from: name(from), id: AskId(self.inbox), ask });
    }

    fn ask_quietly(&mut self, from: u32, ask: Ask) {
        self.inbox += 1;
        self.step(Event::Asked { from: name(from), id: AskId(self.inbox), ask });
    }

    /// Peers answer as friends would, those questions that are meant.
    pub(crate) fn answer(&mut self, which: &dyn Fn(&Ask) -> bool) {
        self.answer_with(which, &|from, ask| Ok(words::friend(from, ask)));
    }

    /// Peers answer the open questions that are meant; who was not asked, and answers all the same, is not heard.
    pub(crate) fn answer_with(
        &mut self,
        which: &dyn Fn(&Ask) -> bool,
        how: &dyn Fn(u32, &Ask) -> Result<Answer, Unreachable>,
    ) {
        let all = std::mem::take(&mut self.asks);
        let (meant, left): (Vec<_>, _) = all.into_iter().partition(|(_, _, ask, _)| which(ask));
        self.asks = left;
        for (id, from, ask, _) in meant {
            let answer = how(from.ordinal(), &ask);
            self.happens(Event::Answered { id, from, answer });
        }
    }

    /// The register is read, and holds this.
    pub(crate) fn reads(&mut self, term: Option<Term>, proven: bool) {
        self.now += 10;
        let version = format!("{}", self.now);
        self.register = Register { version, remade: term.is_none() && self.record.head.is_some(), term };
        let register = self.register.clone();
        self.happens(Event::Term { register, proof: proven.then_some(Instant(self.now)) });
    }

    /// How its change of the register ended.
    pub(crate) fn swapped(&mut self, outcome: SwapOutcome) {
        self.swap = None;
        self.happens(Event::Swapped(outcome));
    }

    /// The change of the register that it tries, as it would be then.
    pub(crate) fn its_change(&self) -> Option<Register> {
        let version = format!("{}", self.now);
        self.swap.clone().map(|t| Register { version, term: Some(t), remade: false })
    }

    /// Its PostgreSQL does not hear the leader's any more.
    pub(crate) fn bereft(&mut self) {
        self.becomes(|l| {
            if let Server::Standby { following: Some(_), live, receiving, .. } = &mut l.server {
                (*live, *receiving) = (false, false);
            }
        });
    }

    /// From now on nothing is done that it wants.
    pub(crate) fn idle(&mut self, idle: bool) {
        self.idle = idle;
    }
}

pub(crate) fn writable(me: &MemberId, epoch: Epoch, rule: &Rule, gate: bool) -> Server {
    let streams = rule.followers.iter().filter(|m| *m != me);
    Server::Primary {
        timeline: epoch.timeline(),
        epoch,
        fork: Some((Epoch { number: EPOCH - 1, id: id(0) }.timeline(), Lsn(0x100))),
        in_force: Some(RuleInForce { followers: rule.followers.clone(), acknowledgements: rule.acknowledgements }),
        barrier: true,
        gate,
        streams: streams.map(|m| Stream { member: m.clone(), caught_up: true }).collect(),
    }
}

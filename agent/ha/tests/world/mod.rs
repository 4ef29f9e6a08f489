//! A world of members, seeded: the same seed gives the same run.

mod person;
mod postgres;
mod promises;
mod rng;

use pgconvoy_ha::{
    Answer, Ask, AskId, Core, Effect, Event, Instant, Local, Output, Record, Register, Spec, SwapOutcome, Timing,
    Unattached, Unreachable,
};
use pgconvoy_terms::{Epoch, MemberId, MemberName, Phase, Term};
use postgres::Postgres;
use rng::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// Which faults are drawn, in events per member and simulated minute.
#[derive(Clone)]
pub(crate) struct Faults {
    kill_postgres: f64,
    hang_postgres: f64,
    restart_agent: f64,
    restart_pod: f64,
    stop_pod: f64,
    switch: f64,
    cut_peer: f64,
    cut_api: f64,
    wipe: f64,
    lose_message: f64,
    unknown_swap: f64,
    /// In events per simulated minute.
    lose_register: f64,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self {
            kill_postgres: 0.0,
            hang_postgres: 0.0,
            restart_agent: 0.0,
            restart_pod: 0.0,
            stop_pod: 0.0,
            switch: 0.0,
            cut_peer: 0.0,
            cut_api: 0.0,
            wipe: 0.0,
            lose_message: 0.0,
            unknown_swap: 0.0,
            lose_register: 0.0,
        }
    }

    /// Everything that happens by itself: no orders to stop or to hand over, and no disks that are lost.
    pub(crate) fn unplanned() -> Self {
        Self { stop_pod: 0.0, switch: 0.0, wipe: 0.0, ..Self::all() }
    }

    /// Everything, and a register that is deleted or set back now and then, but no disks that are lost: those who kept theirs may
    /// then be too few for a repair.
    pub(crate) fn of_the_register() -> Self {
        Self { wipe: 0.0, lose_register: 1.0, ..Self::all() }
    }

    /// Members are away so often that too few are left, but no disks are lost.
    pub(crate) fn frequent() -> Self {
        Self { wipe: 0.0, restart_pod: 2.0, cut_peer: 2.0, ..Self::all() }
    }

    pub(crate) fn all() -> Self {
        Self {
            kill_postgres: 1.0,
            hang_postgres: 0.5,
            restart_agent: 1.0,
            restart_pod: 0.7,
            stop_pod: 0.5,
            switch: 0.5,
            cut_peer: 1.0,
            cut_api: 0.7,
            wipe: 0.2,
            lose_message: 0.03,
            unknown_swap: 0.1,
            lose_register: 0.0,
        }
    }
}

enum Mail {
    Event(Event),
    /// A question travelling to its member: who asked, its id there.
    Question {
        from: MemberName,
        id: AskId,
        ask: Ask,
        deadline: u64,
    },
    /// An answer on its way back; lost if too late.
    Answer {
        to_id: AskId,
        from: MemberName,
        answer: Answer,
    },
    /// The address of this member says that nobody listens.
    Nobody {
        to_id: AskId,
        from: MemberName,
    },
    Register(bool),
    Swap(String, Term),
}

struct Member {
    core: Option<Core>,
    record: Record,
    postgres: Postgres,
    reported: Option<Local>,
    output: Option<Output>,
    /// Questions that this agent was asked: its id here -> who, the asker's id.
    inbox: BTreeMap<AskId, (MemberName, AskId)>,
    /// Questions open from here -> deadline.
    open: BTreeMap<AskId, (MemberName, u64)>,
    next_in: u64,
    generation: u64,
    /// When its agent began.
    agent_since: u64,
    cut_until: u64,
    no_api_until: u64,
    down_until: u64,
    /// Without its agent until then; PostgreSQL goes on.
    alone_until: u64,
}

/// Everything there is.
pub(crate) struct World {
    now: u64,
    rng: Rng,
    faults: Faults,
    members: BTreeMap<MemberName, Box<Member>>,
    /// Of all members.
    names: Rc<[MemberName]>,
    register: (u64, Option<Term>),
    /// Whether it was made again at number 0.
    remade: bool,
    /// What it held before, since somebody led.
    earlier: Vec<Term>,
    person: person::Person,
    lease: Option<(MemberName, u64)>,
    spec: Spec,
    /// (due, tie-breaker) -> receiver, its generation, what.
    mail: BTreeMap<(u64, u64), (MemberName, u64, Mail)>,
    next_mail: u64,
    entries: u64,
    acknowledged: BTreeMap<u64, u32>,
    last_acknowledged: u64,
    gap: u64,
    promoted: BTreeMap<u32, MemberId>,
    promises: promises::Promises,
    /// Whose PostgreSQL no other member reaches, while agents talk.
    ports_blocked: BTreeSet<MemberName>,
    /// Until then no agent hears another, while PostgreSQL streams.
    agents_apart_until: u64,
    starts: u64,
    /// Whether a person asked for another leader.
    planned: bool,
    trace: VecDeque<String>,
    seed: u64,
}

fn name(ordinal: u32) -> MemberName {
    MemberName::new("s", ordinal)
}

impl World {
    pub(crate) fn new(seed: u64, members: u32, acknowledgements: u32, faults: Faults) -> Self {
        let mut world = Self {
            now: 1_000,
            rng: Rng(seed.wrapping_mul(0x9E37_79B9).wrapping_add(12345)),
            faults,
            members: BTreeMap::new(),
            names: Rc::new([]),
            register: (1, None),
            remade: false,
            earlier: vec![],
            person: person::Person::default(),
            lease: None,
            spec: Spec { roster: (1..=members).map(name).collect(), acknowledgements, manual: false, degrade: false },
            mail: BTreeMap::new(),
            next_mail: 0,
            entries: 0,
            acknowledged: BTreeMap::new(),
            last_acknowledged: 0,
            gap: 0,
            promoted: BTreeMap::new(),
            promises: promises::Promises::default(),
            ports_blocked: BTreeSet::new(),
            agents_apart_until: 0,
            starts: 0,
            planned: false,
            trace: VecDeque::new(),
            seed,
        };
        for n in 1..=members {
            world.add(name(n));
        }
        world
    }

    fn add(&mut self, member: MemberName) {
        let empty = Box::new(Member {
            core: None,
            record: Record::default(),
            postgres: Postgres::new(),
            reported: None,
            output: None,
            inbox: BTreeMap::new(),
            open: BTreeMap::new(),
            next_in: 1,
            generation: 0,
            agent_since: 0,
            cut_until: 0,
            no_api_until: 0,
            down_until: 0,
            alone_until: 0,
        });
        self.members.insert(member.clone(), empty);
        self.names = self.members.keys().cloned().collect();
        self.boot(&member);
    }

    /// Starts the member's agent, with what its volume holds.
    fn boot(&mut self, member: &MemberName) {
        let seed = u128::from(self.rng.next()) << 64 | u128::from(self.rng.next());
        let now = Instant(self.now);
        let m = self.members.get_mut(member).unwrap();
        m.generation += 1;
        m.agent_since = self.now;
        m.inbox.clear();
        m.open.clear();
        m.output = None;
        m.reported = None;
        m.postgres.agent_restarted();
        m.core = Some(Core::new(member.clone(), m.record.clone(), Timing::default(), seed, now));
        let spec = self.spec.clone();
        self.send(member, 10, Mail::Event(Event::Spec(spec)));
        self.send(member, 50, Mail::Register(false));
        if let Some(wish) = self.wish() {
            self.send(member, 60, Mail::Event(Event::Repair(Some(wish))));
        }
        self.send(member, 1, Mail::Event(Event::Tick));
        let local = self.members[member].postgres.local();
        self.send(member, 20, Mail::Event(Event::Local(local)));
        if self.lease.as_ref().is_some_and(|(holder, _)| holder == member) {
            self.send(member, 30, Mail::Event(Event::Lease(true)));
        }
    }

    fn send(&mut self, to: &MemberName, delay: u64, mail: Mail) {
        let jitter = self.rng.below(delay.max(1));
        self.next_mail += 1;
        let generation = self.members[to].generation;
        self.mail.insert((self.now + delay + jitter, self.next_mail), (to.clone(), generation, mail));
    }

    fn note(&mut self, text: String) {
        self.trace.push_back(format!("{:>7} {text}", self.now));
        if self.trace.len() > 400 {
            self.trace.pop_front();
        }
    }

    fn fail(&self, why: &str) -> ! {
        for line in &self.trace {
            eprintln!("{line}");
        }
        for (n, m) in &self.members {
            eprintln!(
                "{n}: {:?}\n   want {:?}\n   local {:?}\n   led {:?} promised {:?}",
                m.output.as_ref().map(|o| &o.activity),
                m.output.as_ref().map(|o| &o.want),
                m.postgres.local(),
                m.record.led,
                m.record.promised
            );
        }
        eprintln!("register {:?}", self.register.1.as_ref().map(|t| (&t.epoch, t.phase, &t.leader, &t.rules)));
        panic!("seed {}: at {} ms: {why}", self.seed, self.now);
    }

    /// Fails, with what happened before, unless it holds.
    pub(crate) fn expect(&self, holds: bool, why: &str) {
        if !holds {
            self.fail(why);
        }
    }

    /// Lets so many milliseconds pass.
    pub(crate) fn run(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now += 10;
            while let Some(entry) = self.mail.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (to, generation, mail) = entry.remove();
                if self.members.get(&to).is_some_and(|m| m.generation == generation) {
                    self.deliver(&to, mail);
                }
            }
            self.expire_questions();
            self.draw_faults();
            self.look_after_register();
            self.work();
            self.lease();
        }
    }

    fn step(&mut self, member: &MemberName, event: Event) {
        let now = Instant(self.now);
        let m = self.members.get_mut(member).unwrap();
        let Some(core) = m.core.as_mut() else { return };
        let output = core.step(now, event);
        let false_alarm = core.trouble().cloned().filter(|_| !self.person.was_needed());
        m.postgres.want(&output.want, output.permission, self.now);
        let (effects, done) = (output.effects.clone(), output.done);
        m.output = Some(output);
        for effect in effects {
            self.carry_out(member, effect);
        }
        if let Some(trouble) = false_alarm {
            self.fail(&format!("{member} says of a register that nobody touched: {}", trouble.message));
        }
        if done {
            self.ended(member);
        }
    }

    /// An agent whose pod is stopped, and that has nothing left to do, ends; another pod comes.
    fn ended(&mut self, who: &MemberName) {
        if !matches!(self.members[who].postgres.local().server, pgconvoy_ha::Server::Down) {
            self.fail(&format!("{who} ends while its PostgreSQL runs"));
        }
        // It has time to give that up.
        if self.lease.as_ref().is_some_and(|(holder, _)| holder == who) {
            self.lease = None;
        }
        self.crash(who, true);
    }

    fn carry_out(&mut self, member: &MemberName, effect: Effect) {
        match effect {
            Effect::Persist(record) => self.members.get_mut(member).unwrap().record = record,
            Effect::Swap { version, term } => self.send(member, 20, Mail::Swap(version, term)),
            Effect::Read => self.send(member, 20, Mail::Register(true)),
            Effect::Ask { id, to, ask, within } => {
                let deadline = self.now + within;
                self.members.get_mut(member).unwrap().open.insert(id, (to.clone(), deadline));
                let apart = self.agents_apart_until > self.now;
                let lost = apart || self.cut(member) || self.cut(&to) || self.rng.chance(self.faults.lose_message);
                if lost {
                    return;
                }
                match self.members.get(&to) {
                    Some(there) if there.core.is_some() => {
                        self.send(&to, 5, Mail::Question { from: member.clone(), id, ask, deadline });
                    }
                    Some(_) => self.send(member, 5, Mail::Nobody { to_id: id, from: to }),
                    None => {}
                }
            }
            Effect::Checkpoint => self.send(member, 50, Mail::Event(Event::Checkpointed)),
            Effect::Reply { id, answer } => self.reply(member, id, answer),
            Effect::Admit { id, epoch, member: who, position, from } => {
                let m = self.members.get_mut(member).unwrap();
                let answer = m.postgres.admit(&epoch, &who, position, from);
                self.reply(member, id, answer);
            }
            Effect::RefuseRequest { why } => {
                self.note(format!("{member} refuses: {why}"));
                self.person.hear_refusal();
            }
            Effect::Tell { reason, message } => self.note(format!("{member} tells {reason}: {message}")),
            Effect::Alarm { reason, message } => self.note(format!("{member} ALARM {reason}: {message}")),
        }
    }

    fn reply(&mut self, from: &MemberName, id: AskId, answer: Answer) {
        let Some((asker, to_id)) = self.members.get_mut(from).unwrap().inbox.remove(&id) else { return };
        if self.cut(from) || self.cut(&asker) || self.rng.chance(self.faults.lose_message) {
            return;
        }
        self.send(&asker, 5, Mail::Answer { to_id, from: from.clone(), answer });
    }

    fn deliver(&mut self, to: &MemberName, mail: Mail) {
        match mail {
            Mail::Event(Event::Tick) => {
                self.step(to, Event::Tick);
                self.send(to, 200, Mail::Event(Event::Tick));
            }
            Mail::Event(event) => self.step(to, event),
            Mail::Question { from, id, ask, deadline } => {
                let m = self.members.get_mut(to).unwrap();
                if m.core.is_none() || self.now > deadline {
                    return;
                }
                let here = AskId(m.next_in);
                m.next_in += 1;
                m.inbox.insert(here, (from.clone(), id));
                self.step(to, Event::Asked { from, id: here, ask });
            }
            Mail::Answer { to_id, from, answer } => {
                if self.members.get_mut(to).unwrap().open.remove(&to_id).is_some() {
                    self.step(to, Event::Answered { id: to_id, from, answer: Ok(answer) });
                }
            }
            Mail::Nobody { to_id, from } => {
                if self.members.get_mut(to).unwrap().open.remove(&to_id).is_some() {
                    self.step(to, Event::Answered { id: to_id, from, answer: Err(Unreachable::Nobody) });
                }
            }
            Mail::Register(proof) => {
                if self.no_api(to) {
                    self.send(to, 1_000, Mail::Register(proof));
                    return;
                }
                let register = self.read();
                let sent = proof.then_some(Instant(self.now));
                self.step(to, Event::Term { register, proof: sent });
            }
            Mail::Swap(version, term) => {
                let unknown = self.rng.chance(self.faults.unknown_swap);
                let outcome = if self.no_api(to) {
                    SwapOutcome::Unknown
                } else if version != self.register.0.to_string() {
                    SwapOutcome::Lost
                } else if unknown && self.rng.chance(0.5) {
                    SwapOutcome::Unknown
                } else {
                    self.note(format!("{to} swaps {} {:?} rules {}", term.epoch.number, term.phase, term.rules.len()));
                    self.check_swap(&term);
                    self.promises.changed(&term, self.now);
                    self.put(Some(term));
                    if unknown { SwapOutcome::Unknown } else { SwapOutcome::Won(self.read()) }
                };
                self.step(to, Event::Swapped(outcome));
            }
        }
    }

    fn read(&self) -> Register {
        Register { version: self.register.0.to_string(), term: self.register.1.clone(), remade: self.remade }
    }

    fn check_swap(&self, new: &Term) {
        let last = new.history.last().map(|f| &f.leader.name);
        let another = new.phase == Phase::Elected && last.is_some() && new.leader.as_ref().map(|l| &l.name) != last;
        if self.spec.manual && another && !self.planned {
            self.fail("another leads although no person has said so");
        }
        if let Some(old) = &self.register.1 {
            assert!(new.epoch.number >= old.epoch.number, "the API server refuses that");
            assert!(new.phase == Phase::Recruiting || new.epoch == old.epoch);
            let repair = self.person.was_needed() && new.phase == Phase::Recruiting;
            assert!(repair || new.epoch.number <= old.epoch.number + 1);
            assert!(repair || new.descends_from(old.head()), "a change that does not descend");
        }
    }

    fn expire_questions(&mut self) {
        for to in self.names.clone().iter() {
            let late = |(_, deadline): &(MemberName, u64)| *deadline < self.now;
            if !self.members[to].open.values().any(late) {
                continue;
            }
            let open = std::mem::take(&mut self.members.get_mut(to).unwrap().open);
            let (gone, left): (BTreeMap<_, _>, _) = open.into_iter().partition(|(_, question)| late(question));
            self.members.get_mut(to).unwrap().open = left;
            for (id, (from, _)) in gone {
                self.step(to, Event::Answered { id, from, answer: Err(Unreachable::Silent) });
            }
        }
    }

    fn cut(&self, member: &MemberName) -> bool {
        self.members.get(member).is_none_or(|m| m.cut_until > self.now)
    }

    fn no_api(&self, member: &MemberName) -> bool {
        self.members.get(member).is_none_or(|m| m.no_api_until > self.now)
    }

    fn lease(&mut self) {
        for who in self.names.clone().iter() {
            let wants = self.members[who].output.as_ref().is_some_and(|o| o.lease);
            let holds = self.lease.as_ref().is_some_and(|(h, _)| h == who);
            let orders = self.members[who].output.as_ref().is_some_and(|o| o.lease_orders);
            // Whoever is down may have had its pod deleted.
            let free = self.lease.as_ref().is_none_or(|(holder, until)| {
                *until < self.now || orders && self.members.get(holder).is_none_or(|m| m.core.is_none())
            });
            if !self.no_api(who) && wants && (holds || free) {
                let renewed = self.now + 15_000;
                if !holds {
                    self.lease = Some((who.clone(), renewed));
                    self.send(who, 10, Mail::Event(Event::Lease(true)));
                }
                if let Some(lease) = self.lease.as_mut() {
                    lease.1 = renewed;
                }
            } else if holds && !wants && self.members[who].output.is_some() {
                self.lease = None;
                self.send(who, 10, Mail::Event(Event::Lease(false)));
            }
        }
    }

    /// PostgreSQL works: it converges, streams, takes writes.
    fn work(&mut self) {
        for who in self.names.clone().iter() {
            if self.members[who].down_until > self.now {
                continue;
            }
            if self.members[who].core.is_none() && self.members[who].alone_until <= self.now {
                self.boot(who);
                self.note(format!("{who} boots"));
            }
            let mut m = self.members.remove(who).unwrap();
            let cut = m.cut_until > self.now;
            let had_data = m.postgres.has_data();
            {
                let source = |n: &MemberName| {
                    let reached = !cut && !self.ports_blocked.contains(n);
                    self.members.get(n).filter(|s| reached && s.cut_until <= self.now).map(|s| &s.postgres)
                };
                let agent = m.core.is_some();
                self.starts += m.postgres.converge(who, self.now, agent, &mut self.rng, &source);
            }
            if let Some((epoch, id)) = m.postgres.just_promoted() {
                self.promoted(&epoch, id, &m.postgres);
            }
            let acks = m.postgres.take_writes(&mut self.entries, &mut self.rng);
            if !acks.is_empty() {
                self.gap = self.gap.max(self.now - self.last_acknowledged);
                self.last_acknowledged = self.now;
            }
            self.check_alone(&acks);
            self.check_begun(&acks);
            self.acknowledged.extend(acks.iter().map(|a| (a.id, a.epoch)));
            if had_data && !m.postgres.has_data() {
                self.check_copies(who);
            }
            self.check_reads(who, &m);
            self.check_rule(who, &m.postgres);
            // An agent does not look all the time.
            let seen = (m.core.is_some() && self.now.is_multiple_of(20)).then(|| m.postgres.local());
            let news = seen.filter(|seen| m.reported.as_ref() != Some(seen));
            if news.is_some() {
                m.reported.clone_from(&news);
            }
            self.members.insert(who.clone(), m);
            self.report_flushes(who);
            if let Some(news) = news {
                self.send(who, 10, Mail::Event(Event::Local(news)));
            }
        }
    }

    /// Without a quorum only the clock keeps two leaders from acknowledging at once.
    fn check_alone(&self, acks: &[postgres::Acknowledged]) {
        let newest = self.promoted.keys().max().copied().unwrap_or_default();
        if self.spec.acknowledgements == 0
            && let Some(ack) = acks.iter().find(|a| a.epoch < newest)
        {
            self.fail(&format!("a leader of epoch {} acknowledges although epoch {newest} has one", ack.epoch));
        }
    }

    fn promoted(&mut self, epoch: &Epoch, id: MemberId, postgres: &Postgres) {
        self.note(format!("{id} is promoted in {}", epoch.number));
        if let Some(other) = self.promoted.insert(epoch.number, id.clone()) {
            self.fail(&format!("S1: {other} and {id} were both promoted in epoch {}", epoch.number));
        }
        let quorum = self.spec.acknowledgements > 0;
        for (entry, of) in self.acknowledged.iter().filter(|_| quorum) {
            if *of < epoch.number && !postgres.holds(*entry) {
                self.fail(&format!("S2: entry {entry}, acknowledged in epoch {of}, is not in the log of {id}"));
            }
        }
        self.check_loss(epoch, &id, postgres);
        self.promises.promoted(epoch.number, self.now);
    }

    fn report_flushes(&mut self, follower: &MemberName) {
        let Some((leader, member, epoch, flushed)) = self.members[follower].postgres.reports() else { return };
        if self.cut(follower) || self.cut(&leader) {
            return;
        }
        if let Some(l) = self.members.get_mut(&leader) {
            l.postgres.hear_flush(&epoch, member, flushed, self.now);
        }
    }

    fn draw_faults(&mut self) {
        let per_tick = |rate: f64| rate * 10.0 / 60_000.0;
        let f = self.faults.clone();
        for who in self.names.clone().iter() {
            if self.rng.chance(per_tick(f.kill_postgres)) {
                self.note(format!("{who} postgres killed"));
                self.members.get_mut(who).unwrap().postgres.kill();
            }
            if self.rng.chance(per_tick(f.hang_postgres)) {
                let until = self.now + 500 + self.rng.below(20_000);
                self.note(format!("{who} postgres hangs until {until}"));
                self.members.get_mut(who).unwrap().postgres.hang(until);
            }
            if self.rng.chance(per_tick(f.restart_agent)) {
                self.crash(who, false);
            }
            if self.rng.chance(per_tick(f.restart_pod)) {
                self.crash(who, true);
            }
            if self.rng.chance(per_tick(f.stop_pod)) {
                self.stop_pod(who);
            }
            if self.rng.chance(per_tick(f.switch)) {
                let to = self.rng.chance(0.5).then(|| name(1 + self.rng.below(self.members.len() as u64) as u32));
                self.note(format!("{who} is asked to hand over to {to:?}"));
                self.send(who, 10, Mail::Event(Event::HandOver { to }));
            }
            if self.rng.chance(per_tick(f.cut_peer)) {
                let until = self.now + 1_000 + self.rng.below(20_000);
                self.note(format!("{who} cut off until {until}"));
                self.members.get_mut(who).unwrap().cut_until = until;
            }
            if self.rng.chance(per_tick(f.cut_api)) {
                let until = self.now + 1_000 + self.rng.below(20_000);
                self.note(format!("{who} without API until {until}"));
                self.members.get_mut(who).unwrap().no_api_until = until;
            }
            if self.rng.chance(per_tick(f.wipe)) {
                self.wipe(who);
            }
        }
    }

    /// Wipes a member whose loss every rule survives by itself: the rest seals it and is W + 1 of its members.
    /// (Beyond that the set needs a person's `--accept-loss`, which is not a fault to survive.)
    fn wipe(&mut self, who: &MemberName) {
        let rules: Vec<_> = self.register.1.iter().flat_map(|t| t.rules.clone()).collect();
        let left = |m: &MemberId| self.members.get(&m.name).filter(|_| m.name != *who);
        let intact = |m: &&MemberId| left(m).is_some_and(|x| x.postgres.has(&m.incarnation));
        let survives = rules.iter().all(|r| {
            let never = |m: &&MemberId| {
                let note = |u: &Unattached| u.incarnation == m.incarnation && u.epoch == r.epoch;
                left(m).is_some_and(|x| x.record.unattached.iter().any(note))
            };
            let speaks = |m: &&MemberId| {
                left(m)
                    .is_some_and(|x| x.record.former.iter().chain(&x.record.incarnation).any(|i| *i == m.incarnation))
            };
            let of =
                |which: &dyn Fn(&&MemberId) -> bool| -> BTreeSet<_> { r.members().filter(which).cloned().collect() };
            let rest = of(&intact);
            r.acknowledgements > 0
                && !rest.is_empty()
                && r.sealed_with(&rest, &of(&never))
                && r.confirmed_by(&of(&speaks))
        });
        // What a swap under way might add is not known yet: only calm registers lose a disk.
        let calm = rules.len() == 1 && self.register.1.as_ref().is_some_and(|t| t.phase == Phase::Active);
        if !survives || !calm {
            return;
        }
        self.note(format!("{who} wiped"));
        let until = self.now + 500;
        let m = self.members.get_mut(who).unwrap();
        m.record = Record::default();
        m.postgres = Postgres::new();
        m.core = None;
        m.generation += 1;
        m.down_until = until;
    }

    fn crash(&mut self, who: &MemberName, pod: bool) {
        self.note(format!("{who} {} restarted", if pod { "pod" } else { "agent" }));
        let longest = if pod { 40_000 } else { 4_000 };
        let delay = 300 + self.rng.below(longest);
        let m = self.members.get_mut(who).unwrap();
        m.core = None;
        m.generation += 1;
        m.output = None;
        if pod {
            m.down_until = self.now + delay;
            m.postgres.kill();
        } else {
            m.alone_until = self.now + delay;
        }
    }

    fn stop_pod(&mut self, who: &MemberName) {
        self.note(format!("{who} pod is to stop"));
        self.send(who, 10, Mail::Event(Event::Stop));
    }

    /// The leader's pod is deleted in an orderly way.
    pub(crate) fn stop_leaders_pod(&mut self) -> MemberName {
        let Some(leader) = self.register.1.as_ref().and_then(|t| t.leader.clone()) else { self.fail("no leader") };
        self.stop_pod(&leader.name);
        leader.name
    }

    /// Which process of this member's agent it is.
    pub(crate) fn generation(&self, who: &MemberName) -> u64 {
        self.members[who].generation
    }

    /// Asks the leader to hand over, and says who leads.
    pub(crate) fn switch(&mut self, to: Option<u32>) {
        let Some(leader) = self.register.1.as_ref().and_then(|t| t.leader.clone()) else { self.fail("no leader") };
        self.send(&leader.name, 10, Mail::Event(Event::HandOver { to: to.map(name) }));
    }

    /// Followers lose their disks for good: what was acknowledged is on the leader's alone, which stays away.
    pub(crate) fn lose_everything_but(&mut self, survivor: u32) {
        for who in self.names.clone().iter() {
            if *who != name(survivor) {
                self.note(format!("{who} loses its disk"));
                let m = self.members.get_mut(who).unwrap();
                (m.record, m.postgres, m.core) = (Record::default(), Postgres::new(), None);
                m.generation += 1;
                m.down_until = self.now + 500;
            }
        }
    }

    /// A person gives up the rules of this epoch; every agent hears of it. What was acknowledged until now may be lost.
    pub(crate) fn take_over(&mut self, epoch: u32) {
        self.acknowledged.clear();
        self.planned = true;
        self.decide_takeover(Some(epoch), true);
    }

    /// The request has ended.
    pub(crate) fn take_over_no_more(&mut self) {
        self.decide_takeover(None, false);
    }

    /// A person has another lead, by the rules.
    pub(crate) fn replace_leader(&mut self, epoch: u32) {
        self.planned = true;
        self.decide_takeover(Some(epoch), false);
    }

    fn decide_takeover(&mut self, epoch: Option<u32>, accept_loss: bool) {
        for who in self.names.clone().iter() {
            self.send(who, 10, Mail::Event(Event::TakeOver { epoch, accept_loss }));
        }
    }

    /// From now on another leads only when a person says so.
    pub(crate) fn fail_over_by_hand(&mut self) {
        self.spec.manual = true;
        self.tell_spec();
    }

    /// From now on commits do not wait when too few followers keep up.
    pub(crate) fn degrade_when_short(&mut self) {
        self.spec.degrade = true;
        self.tell_spec();
    }

    fn tell_spec(&mut self) {
        let spec = self.spec.clone();
        for who in self.names.clone().iter() {
            self.send(who, 10, Mail::Event(Event::Spec(spec.clone())));
        }
    }

    /// Another leader is to be expected from now on.
    pub(crate) fn plan_a_change(&mut self) {
        self.planned = true;
    }

    /// What members say that a person must decide.
    pub(crate) fn left_to_person(&self) -> Vec<String> {
        let said = self.members.values().filter_map(|m| m.core.as_ref()?.left_to_person());
        said.map(|t| t.message.clone()).collect()
    }

    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Whether the newest epoch that became active gave up rules.
    pub(crate) fn lossy(&self) -> bool {
        self.register.1.as_ref().and_then(|t| t.history.last()).is_some_and(|f| f.lossy)
    }

    /// The newest epoch that became active.
    pub(crate) fn last_active(&self) -> u32 {
        self.register.1.as_ref().and_then(|t| t.history.last()).map_or(0, |f| f.epoch.number)
    }

    pub(crate) fn leader(&self) -> Option<u32> {
        self.register.1.as_ref().and_then(|t| t.leader.as_ref()).map(|l| l.name.ordinal())
    }

    /// The longest time so far without an acknowledgement, since the last call.
    pub(crate) fn longest_gap(&mut self) -> u64 {
        self.last_acknowledged = self.now;
        std::mem::take(&mut self.gap)
    }

    /// Rewinds take so long from now on.
    pub(crate) fn slow_down_rewinds(&mut self, at_least: u64) {
        self.members.values_mut().for_each(|m| m.postgres.slow_down_rewinds(at_least));
    }

    /// Nobody can rewind from now on.
    pub(crate) fn foil_rewinds(&mut self) {
        self.members.values_mut().for_each(|m| m.postgres.foil_rewinds());
    }

    /// The leader has thrown away the log that a follower which attaches again needs (or has it again).
    pub(crate) fn forget_leaders_log(&mut self, forgotten: bool) {
        let Some(leader) = self.register.1.as_ref().and_then(|t| t.leader.clone()) else { self.fail("no leader") };
        self.members.get_mut(&leader.name).unwrap().postgres.forget_its_log(forgotten);
    }

    /// Lets time pass until the data of somebody is half made (at most so many milliseconds): of whom.
    pub(crate) fn run_until_half_made(&mut self, at_most: u64) -> MemberName {
        let end = self.now + at_most;
        loop {
            if let Some((who, _)) = self.members.iter().find(|(_, m)| m.postgres.is_half_made()) {
                return who.clone();
            }
            if self.now >= end {
                self.fail("nobody's data is made anew");
            }
            self.run(10);
        }
    }

    /// The leader's disk is lost for good; its member comes back after so long, without anything.
    pub(crate) fn lose_leaders_disk_for(&mut self, milliseconds: u64) -> MemberName {
        let Some(leader) = self.register.1.as_ref().and_then(|t| t.leader.clone()) else { self.fail("no leader") };
        self.note(format!("{} loses its disk", leader.name));
        let until = self.now + milliseconds;
        let m = self.members.get_mut(&leader.name).unwrap();
        (m.record, m.postgres, m.core, m.output) = (Record::default(), Postgres::new(), None, None);
        m.generation += 1;
        m.down_until = until;
        leader.name
    }

    /// A follower's machine stops; its volume is there when it comes back, after so long.
    pub(crate) fn restart_pod(&mut self, who: &MemberName, milliseconds: u64) {
        self.crash(who, true);
        self.members.get_mut(who).unwrap().down_until = self.now + milliseconds;
    }

    /// The followers, in order.
    pub(crate) fn followers(&self) -> Vec<MemberName> {
        let leader = self.leader();
        self.names.iter().filter(|n| Some(n.ordinal()) != leader).cloned().collect()
    }

    /// The newest rule: how many acknowledgements, of how many followers.
    pub(crate) fn rule(&self) -> (u32, usize) {
        let rule = self.register.1.as_ref().and_then(|t| t.rules.last());
        rule.map_or((0, 0), |r| (r.acknowledgements, r.followers.len()))
    }

    pub(crate) fn phase(&self) -> Option<Phase> {
        self.register.1.as_ref().map(|t| t.phase)
    }

    pub(crate) fn restart_agent(&mut self, ordinal: u32) {
        self.crash(&name(ordinal), false);
    }

    /// A machine dies: nothing of the leader is left but its volume, for so long.
    pub(crate) fn stop_leader_for(&mut self, milliseconds: u64) -> MemberName {
        let Some(leader) = self.register.1.as_ref().and_then(|t| t.leader.clone()) else { self.fail("no leader") };
        self.crash(&leader.name, true);
        self.members.get_mut(&leader.name).unwrap().down_until = self.now + milliseconds;
        leader.name
    }

    /// Lets time pass until an epoch of this number is elected (at most so many milliseconds); whether it came to that.
    pub(crate) fn run_until_elected(&mut self, number: u32, at_most: u64) -> bool {
        let end = self.now + at_most;
        let elected =
            |w: &Self| w.register.1.as_ref().is_some_and(|t| t.epoch.number == number && t.phase == Phase::Elected);
        while !elected(self) && self.now < end {
            self.run(10);
        }
        elected(self)
    }

    /// Cuts off, from peers only, whoever led the last epoch that was active.
    pub(crate) fn cut_leader_of_old(&mut self, milliseconds: u64) {
        let Some(rule) = self.register.1.as_ref().and_then(|t| t.rules.first()) else { self.fail("no rule") };
        let name = rule.leader.name.clone();
        self.members.get_mut(&name).unwrap().cut_until = self.now + milliseconds;
    }

    /// Only its PostgreSQL dies.
    pub(crate) fn kill_leaders_postgres(&mut self) -> MemberName {
        let Some(leader) = self.register.1.as_ref().and_then(|t| t.leader.clone()) else { self.fail("no leader") };
        self.members.get_mut(&leader.name).unwrap().postgres.kill();
        leader.name
    }

    /// Nothing of its PostgreSQL moves for so long, nor can it be killed.
    pub(crate) fn freeze_leaders_postgres(&mut self, milliseconds: u64) -> MemberName {
        let Some(leader) = self.register.1.as_ref().and_then(|t| t.leader.clone()) else { self.fail("no leader") };
        self.members.get_mut(&leader.name).unwrap().postgres.hang(self.now + milliseconds);
        leader.name
    }

    /// The leader's agent dies and stays dead for so long; its PostgreSQL goes on.
    pub(crate) fn stop_leaders_agent_for(&mut self, milliseconds: u64) {
        let Some(leader) = self.register.1.as_ref().and_then(|t| t.leader.clone()) else { self.fail("no leader") };
        self.crash(&leader.name, false);
        self.members.get_mut(&leader.name).unwrap().alone_until = self.now + milliseconds;
    }

    /// Cuts the leader off from its peers, from the API server, or both.
    pub(crate) fn cut_leader_for(&mut self, milliseconds: u64, peers: bool, api: bool) {
        let Some(leader) = self.register.1.as_ref().and_then(|t| t.leader.clone()) else { self.fail("no leader") };
        let until = self.now + milliseconds;
        let m = self.members.get_mut(&leader.name).unwrap();
        m.cut_until = if peers { until } else { 0 };
        m.no_api_until = if api { until } else { 0 };
    }

    /// Cuts the first or the second follower off.
    pub(crate) fn cut_follower(&mut self, which: usize, milliseconds: u64) {
        let leader = self.register.1.as_ref().and_then(|t| t.leader.clone());
        let until = self.now + milliseconds;
        let mut others = self.members.iter_mut().filter(|(n, _)| leader.as_ref().is_none_or(|l| l.name != **n));
        others.nth(which).unwrap().1.cut_until = until;
    }

    pub(crate) fn cut_follower_for(&mut self, milliseconds: u64) {
        let leader = self.register.1.as_ref().and_then(|t| t.leader.clone());
        let until = self.now + milliseconds;
        let other = self.members.iter_mut().find(|(n, _)| leader.as_ref().is_none_or(|l| l.name != **n));
        other.unwrap().1.cut_until = until;
    }

    pub(crate) fn cut_api_for(&mut self, milliseconds: u64) {
        for m in self.members.values_mut() {
            m.no_api_until = self.now + milliseconds;
        }
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) {
        self.faults = Faults::none();
        self.ports_blocked.clear();
        for m in self.members.values_mut() {
            m.cut_until = 0;
            m.no_api_until = 0;
        }
    }

    /// No agent trusts another for so long: their certificates expired.
    pub(crate) fn set_agents_apart_for(&mut self, milliseconds: u64) {
        self.agents_apart_until = self.now + milliseconds;
    }

    /// What the operator does: roster first, then (once nobody counts on them) the pods.
    pub(crate) fn scale(&mut self, members: u32) {
        self.spec.roster = (1..=members).map(name).collect();
        let spec = self.spec.clone();
        for n in 1..=members {
            if !self.members.contains_key(&name(n)) {
                self.add(name(n));
            }
        }
        for who in self.names.clone().iter() {
            self.send(who, 20, Mail::Event(Event::Spec(spec.clone())));
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.register.1.as_ref().map_or(0, |t| t.epoch.number)
    }

    pub(crate) fn server_starts(&self) -> u64 {
        self.starts
    }

    /// One leader, everybody in the roster attached, the rule as asked for, clients served.
    pub(crate) fn check_recovered(&self) {
        let Some(term) = &self.register.1 else { self.fail("no term") };
        let ready: BTreeSet<_> =
            self.members.iter().filter(|(_, m)| m.output.as_ref().is_some_and(|o| o.ready)).map(|(n, _)| n).collect();
        let roster: BTreeSet<_> = self.spec.roster.iter().collect();
        if term.phase != Phase::Active || !ready.is_superset(&roster) {
            self.fail("the set did not come back");
        }
        let [rule] = &term.rules[..] else { self.fail("a change of the rule is pending") };
        let names: BTreeSet<_> = rule.members().map(|m| &m.name).collect();
        if names != roster || rule.acknowledgements != self.spec.acknowledgements {
            self.fail("the rule is not what was asked for");
        }
    }
}

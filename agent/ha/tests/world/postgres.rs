//! PostgreSQL and its executor, simulated: a log of entries, each written in an epoch.

use super::rng::Rng;
use pgconvoy_ha::{Answer, Data, Instant, Local, Permission, RuleInForce, Server, Stream, Want, WantKind};
use pgconvoy_terms::{Epoch, Incarnation, Lsn, MemberId, MemberName, Position, Rule, SystemId, Tag, TimelineId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    epoch: u32,
    id: u64,
}

enum Running {
    Down,
    Standby { following: Option<(MemberName, Epoch)>, receiving: bool },
    Primary(Box<Reign>),
}

struct Reign {
    epoch: Epoch,
    fork: Option<(TimelineId, Lsn)>,
    rule: Rule,
    /// Log end when the rule was put into force; W followers must have flushed as much.
    since: usize,
    barrier: Option<usize>,
    gate: bool,
    /// Flushed so far, by member, as streamed under a tag of this epoch; and when it was heard last.
    flushed: BTreeMap<MemberId, (usize, u64)>,
    slots: BTreeMap<String, ()>,
    /// Where in the log, which, and since when.
    waiting: Vec<(usize, u64, u64)>,
    /// When a client wrote last.
    wrote: u64,
}

/// A write that a client was told is done.
#[derive(Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) id: u64,
    /// By the leader of which epoch.
    pub(crate) epoch: u32,
    pub(crate) begun: u64,
}

/// The longest pause of the clients while they are let in, in milliseconds.
const LONGEST_PAUSE: u64 = 200;

pub(crate) struct Postgres {
    log: Vec<Entry>,
    data: Option<Incarnation>,
    half_made: bool,
    running: Running,
    want: Option<Want>,
    applied: u64,
    busy_until: u64,
    promoted: Option<(Epoch, MemberId)>,
    clone: Option<(Vec<Entry>, usize)>,
    /// A rewind that has changed the data: of which data, and until when it takes.
    rewind: Option<(Incarnation, u64)>,
    /// How long rewinds take at least.
    slow_rewinds: u64,
    /// Whether the log that followers need next is gone here, so that only a copy helps them.
    short_log: bool,
    problem: Option<String>,
    /// Whether no rewind succeeds here, and which want that has foiled.
    no_rewinds: bool,
    in_vain: Option<u64>,
    /// How long the log was at an orderly stop of a writable server that nothing has run after.
    shutdown: Option<usize>,
    name: Option<MemberName>,
    now: u64,
    /// Nothing of it moves until then.
    hung_until: u64,
    answered: u64,
    /// What the supervisor was told last of how long a writable server may run.
    permission: Permission,
}

impl Postgres {
    pub(crate) fn new() -> Self {
        Self {
            log: vec![],
            data: None,
            half_made: false,
            running: Running::Down,
            want: None,
            applied: 0,
            busy_until: 0,
            promoted: None,
            clone: None,
            rewind: None,
            slow_rewinds: 0,
            short_log: false,
            problem: None,
            no_rewinds: false,
            in_vain: None,
            shutdown: None,
            name: None,
            now: 0,
            hung_until: 0,
            answered: 0,
            permission: Permission::Forever,
        }
    }

    /// Every process of it stands still until then; whoever asks gets no answer.
    pub(crate) fn hang(&mut self, until: u64) {
        self.hung_until = until;
    }

    fn hangs(&self) -> bool {
        self.hung_until > self.now
    }

    pub(crate) fn want(&mut self, want: &Want, permission: Permission, now: u64) {
        match &want.kind {
            WantKind::Lead { .. } => self.permission = permission,
            WantKind::Detached | WantKind::Follow { .. } if !matches!(self.running, Running::Primary(_)) => {
                self.permission = Permission::Forever;
            }
            _ => {}
        }
        if self.want.as_ref() != Some(want) {
            self.break_off();
            self.want = Some(want.clone());
            self.busy_until = self.busy_until.max(now + 20);
        }
    }

    /// A rewind that is broken off half-way leaves nothing of use.
    fn break_off(&mut self) {
        if self.rewind.take().is_some() {
            self.log.clear();
        }
    }

    pub(crate) fn slow_down_rewinds(&mut self, at_least: u64) {
        self.slow_rewinds = at_least;
    }

    pub(crate) fn foil_rewinds(&mut self) {
        self.no_rewinds = true;
    }

    pub(crate) fn forget_its_log(&mut self, forgotten: bool) {
        self.short_log = forgotten;
    }

    /// Whether its data is neither what it was nor what it is to be.
    pub(crate) fn is_half_made(&self) -> bool {
        self.half_made && self.data.is_none()
    }

    /// Whether this very data is there, whole.
    pub(crate) fn has(&self, incarnation: &Incarnation) -> bool {
        self.data.as_ref() == Some(incarnation)
    }

    pub(crate) fn agent_restarted(&mut self) {
        self.break_off();
        self.want = None;
        self.applied = 0;
        self.clone = None;
        self.half_made = self.half_made && self.data.is_none();
        if let Running::Primary(reign) = &mut self.running {
            // What is in force is not known to the new agent until the barrier was done again.
            reign.since = usize::MAX;
        }
    }

    pub(crate) fn kill(&mut self) {
        self.hung_until = 0;
        self.running = Running::Down;
        self.clone = None;
        self.break_off();
    }

    pub(crate) fn holds(&self, id: u64) -> bool {
        self.log.iter().any(|e| e.id == id)
    }

    pub(crate) fn has_data(&self) -> bool {
        self.data.is_some()
    }

    /// All that its log holds.
    pub(crate) fn entries(&self) -> BTreeSet<u64> {
        self.log.iter().map(|e| e.id).collect()
    }

    /// The epoch as whose leader it lets clients in, if it does and anything of it moves.
    pub(crate) fn lets_clients_in(&self) -> Option<u32> {
        match &self.running {
            Running::Primary(r) if r.gate && !self.hangs() => Some(r.epoch.number),
            _ => None,
        }
    }

    /// The rule by which it acknowledges, if it is writable.
    pub(crate) fn acknowledges_by(&self) -> Option<&Rule> {
        match &self.running {
            Running::Primary(r) => Some(&r.rule),
            _ => None,
        }
    }

    /// Whether what a client may see here was flushed by as many followers as the rule asks for, up to the epoch's own row.
    pub(crate) fn is_settled(&self) -> bool {
        match &self.running {
            Running::Primary(r) => r.barrier.is_some_and(|b| r.enough(b)),
            _ => true,
        }
    }

    pub(crate) fn just_promoted(&mut self) -> Option<(Epoch, MemberId)> {
        self.promoted.take()
    }

    fn position(&self) -> Option<Position> {
        let timeline = TimelineId(self.log.last()?.epoch);
        Some(Position { timeline, end: Lsn(self.log.len() as u64) })
    }

    pub(crate) fn local(&self) -> Local {
        let server = match &self.running {
            Running::Down => Server::Down,
            Running::Standby { following, receiving } => Server::Standby {
                following: following.as_ref().map(|(_, e)| e.clone()),
                receiving: *receiving,
                live: *receiving && following.is_some(),
                position: if following.is_none() && !receiving { self.position() } else { None },
            },
            Running::Primary(r) => Server::Primary {
                epoch: r.epoch.clone(),
                timeline: r.epoch.timeline(),
                fork: r.fork,
                in_force: (r.since != usize::MAX && r.enough(r.since)).then(|| RuleInForce {
                    followers: r.rule.followers.clone(),
                    acknowledgements: r.rule.acknowledgements,
                }),
                barrier: r.barrier.is_some_and(|b| r.enough(b)),
                gate: r.gate,
                streams: r
                    .flushed
                    .iter()
                    .filter(|(_, (_, heard))| heard + 1_000 > self.now)
                    .map(|(m, (at, _))| Stream { member: m.clone(), caught_up: at + 5 > self.log.len() })
                    .collect(),
            },
        };
        let data = match &self.data {
            Some(i) => Data::Good { incarnation: i.clone(), system: SystemId(1) },
            None if self.half_made => Data::HalfMade,
            None => Data::Empty,
        };
        let shutdown = self.shutdown.map(|length| Position {
            timeline: TimelineId(self.log.last().map_or(0, |e| e.epoch)),
            end: Lsn(length as u64 - 1),
        });
        let answered = Instant(self.answered);
        Local {
            applied: self.applied,
            data,
            server,
            problem: self.problem.clone(),
            in_vain: self.in_vain,
            shutdown,
            answered,
            stalled: false,
        }
    }

    /// One tick of PostgreSQL and, where there is an agent, of its executor; returns how many servers that started.
    pub(crate) fn converge<'a>(
        &mut self,
        me: &MemberName,
        now: u64,
        agent: bool,
        rng: &mut Rng,
        source: &dyn Fn(&MemberName) -> Option<&'a Postgres>,
    ) -> u64 {
        self.now = now;
        self.name = Some(me.clone());
        if self.hangs() {
            return 0;
        }
        if let (Running::Primary(_), Permission::Until(end)) = (&self.running, self.permission)
            && now > end.0
        {
            self.kill();
        }
        if now >= self.answered + 500 {
            self.answered = now;
        }
        self.stream(me, source);
        let Some(want) = self.want.as_ref().filter(|_| agent) else { return 0 };
        if now < self.busy_until || self.applied == want.revision && self.steady(&want.kind) {
            return 0;
        }
        let want = want.clone();
        self.busy_until = now + 20 + rng.below(200);
        if want.kind != WantKind::Stopped {
            self.shutdown = None;
        }
        let mut starts = 0;
        self.problem = None;
        let done = match want.kind {
            WantKind::Keep => true,
            WantKind::Fenced => {
                self.running = Running::Down;
                true
            }
            WantKind::Stopped => self.stop(rng),
            WantKind::Found { incarnation } => {
                assert!(self.data.is_none(), "initdb over data");
                self.log = vec![Entry { epoch: 1, id: 0 }];
                self.data = Some(incarnation);
                true
            }
            WantKind::Clone { incarnation, from, slot: _, replace } => {
                self.clone_step(incarnation, &from, replace, source)
            }
            WantKind::Rewind { .. } if self.no_rewinds => {
                self.running = Running::Down;
                self.problem = Some("the log that a rewind needs is not here".into());
                self.in_vain = Some(want.revision);
                false
            }
            WantKind::Rewind { leader } => {
                let length = self.slow_rewinds + rng.below(1_000);
                self.rewind_step(&leader, length, source)
            }
            WantKind::Detached => match &mut self.running {
                Running::Down => {
                    self.running = Running::Standby { following: None, receiving: false };
                    starts = 1;
                    true
                }
                Running::Standby { following, receiving } => {
                    *following = None;
                    *receiving = false;
                    true
                }
                Running::Primary(_) => {
                    self.running = Running::Down;
                    false
                }
            },
            WantKind::Follow { leader, epoch, .. } => match &mut self.running {
                Running::Down => {
                    self.running = Running::Standby { following: Some((leader, epoch)), receiving: false };
                    starts = 1;
                    true
                }
                Running::Standby { following, .. } => {
                    *following = Some((leader, epoch));
                    true
                }
                Running::Primary(_) => panic!("told to follow while writable"),
            },
            WantKind::Lead { epoch, rule, gate } => self.lead(me, &epoch, rule, gate, &mut starts),
        };
        if done {
            self.applied = want.revision;
        }
        starts
    }

    fn steady(&self, kind: &WantKind) -> bool {
        match kind {
            // A server that died is started again.
            WantKind::Detached | WantKind::Follow { .. } => !matches!(self.running, Running::Down),
            _ => true,
        }
    }

    /// An orderly stop: clients are sent away, who streams gets all there is (or is cut off, sometimes).
    fn stop(&mut self, rng: &mut Rng) -> bool {
        let Running::Primary(r) = &mut self.running else {
            self.running = Running::Down;
            return true;
        };
        r.gate = false;
        let behind = r.flushed.values().any(|(at, heard)| heard + 200 > self.now && *at < self.log.len());
        if behind && !rng.chance(0.2) {
            return false;
        }
        self.shutdown = Some(self.log.len());
        self.running = Running::Down;
        true
    }

    /// Never done in a moment; from the first on the data is worthless until the last.
    fn rewind_step<'a>(
        &mut self,
        leader: &MemberName,
        length: u64,
        source: &dyn Fn(&MemberName) -> Option<&'a Postgres>,
    ) -> bool {
        self.running = Running::Down;
        let Some(Postgres { running: Running::Primary(_), log, .. }) = source(leader) else {
            if self.rewind.is_some() {
                self.problem = Some("the source of the rewind is gone".into());
            }
            return false;
        };
        if let Some(incarnation) = self.data.take() {
            self.half_made = true;
            self.rewind = Some((incarnation, self.now + length));
        }
        let Some((incarnation, until)) = &self.rewind else {
            self.problem = Some("a rewind needs whole data".into());
            return false;
        };
        if self.now < *until {
            return false;
        }
        let same = self.log.iter().zip(log).take_while(|(a, b)| a == b).count();
        self.log.truncate(same);
        self.data = Some(incarnation.clone());
        (self.rewind, self.half_made) = (None, false);
        true
    }

    fn clone_step<'a>(
        &mut self,
        incarnation: Incarnation,
        from: &MemberName,
        replace: bool,
        source: &dyn Fn(&MemberName) -> Option<&'a Postgres>,
    ) -> bool {
        if self.data.is_some() && self.data.as_ref() != Some(&incarnation) {
            assert!(replace, "a copy over good data that nobody gave up");
            self.data = None;
            self.running = Running::Down;
        }
        if self.data.is_some() {
            return true;
        }
        let Some(other) = source(from).filter(|s| !matches!(s.running, Running::Down)) else { return false };
        self.half_made = true;
        let (copy, ticks) = self.clone.get_or_insert_with(|| (other.log.clone(), 0));
        *ticks += 1;
        if *ticks < 10 {
            return false;
        }
        self.log = std::mem::take(copy);
        self.clone = None;
        self.half_made = false;
        self.data = Some(incarnation);
        true
    }

    fn lead(&mut self, me: &MemberName, epoch: &Epoch, rule: Rule, gate: bool, starts: &mut u64) -> bool {
        let end = self.log.len();
        match &mut self.running {
            Running::Primary(r) => {
                assert_eq!(r.epoch, *epoch, "led on in another epoch");
                if r.rule != rule || r.since == usize::MAX {
                    r.rule = rule;
                    r.since = end;
                }
                r.gate = gate;
                return true;
            }
            Running::Standby { following: None, receiving: false } => {}
            Running::Standby { .. } => panic!("promoted while receiving"),
            Running::Down if epoch.number == 1 && self.log.len() == 1 => *starts = 1,
            Running::Down => {
                self.running = Running::Standby { following: None, receiving: false };
                *starts = 1;
                return false;
            }
        }
        if self.log.iter().any(|e| e.epoch > epoch.number || (e.epoch == epoch.number && e.id != 0)) {
            self.problem = Some("the timeline exists already".into());
            return false;
        }
        let fork = (epoch.number > 1).then(|| (TimelineId(self.log[end - 1].epoch), Lsn(end as u64)));
        self.log.push(Entry { epoch: epoch.number, id: u64::MAX - u64::from(epoch.number) });
        let id = MemberId { name: me.clone(), incarnation: self.data.clone().unwrap() };
        self.promoted = Some((epoch.clone(), id));
        self.running = Running::Primary(Box::new(Reign {
            epoch: epoch.clone(),
            fork,
            rule,
            since: end,
            barrier: Some(end + 1),
            gate,
            flushed: BTreeMap::new(),
            slots: BTreeMap::new(),
            waiting: vec![],
            wrote: 0,
        }));
        true
    }

    fn stream<'a>(&mut self, me: &MemberName, source: &dyn Fn(&MemberName) -> Option<&'a Postgres>) {
        let Running::Standby { following: Some((leader, epoch)), receiving } = &mut self.running else { return };
        *receiving = false;
        let Some(incarnation) = &self.data else { return };
        let Some(Postgres { running: Running::Primary(r), log, .. }) = source(leader).filter(|s| !s.hangs()) else {
            return;
        };
        let member = MemberId { name: me.clone(), incarnation: incarnation.clone() };
        let slot = Tag::new(&member, epoch).slot();
        if r.epoch != *epoch || !r.slots.contains_key(&slot) {
            return;
        }
        *receiving = true;
        // As the real one: it appends what comes behind its own end and never looks at what lies before.
        let have = self.log.len();
        self.log.extend(log.iter().skip(have).take(3));
    }

    /// What this follower reports: to whom, as whom, in which epoch, and how much it has flushed.
    pub(crate) fn reports(&self) -> Option<(MemberName, MemberId, Epoch, usize)> {
        let Running::Standby { following: Some((leader, epoch)), receiving: true } = &self.running else { return None };
        let incarnation = self.data.clone()?;
        let me = self.name.clone()?;
        Some((leader.clone(), MemberId { name: me, incarnation }, epoch.clone(), self.log.len()))
    }

    pub(crate) fn hear_flush(&mut self, epoch: &Epoch, member: MemberId, flushed: usize, now: u64) {
        if let Running::Primary(r) = &mut self.running
            && r.epoch == *epoch
            && r.slots.contains_key(&Tag::new(&member, epoch).slot())
        {
            r.flushed.insert(member, (flushed, now));
        }
    }

    pub(crate) fn admit(
        &mut self,
        epoch: &Epoch,
        who: &MemberId,
        position: Option<Position>,
        from: MemberName,
    ) -> Answer {
        if self.hangs() {
            return Answer::NotYet;
        }
        let log = &self.log;
        let Running::Primary(r) = &mut self.running else { return Answer::NotYet };
        if r.epoch != *epoch {
            return Answer::NotYet;
        }
        if let Some(p) = position {
            if self.short_log {
                return Answer::Diverged { timeline: p.timeline, fork: Lsn(0) };
            }
            let end = p.end.0 as usize;
            let ours = end.checked_sub(1).and_then(|i| log.get(i)).map(|e| TimelineId(e.epoch));
            if ours != Some(p.timeline) {
                // Where the log here left that timeline.
                let fork = log.iter().take_while(|e| e.epoch <= p.timeline.0).count().max(1);
                return Answer::Diverged { timeline: p.timeline, fork: Lsn(fork as u64) };
            }
        }
        let slot = Tag::new(who, epoch).slot();
        r.slots.insert(slot.clone(), ());
        Answer::Admitted { slot, from }
    }

    /// Clients write while they are let in; returns what is acknowledged now.
    pub(crate) fn take_writes(&mut self, next: &mut u64, rng: &mut Rng) -> Vec<Acknowledged> {
        if self.hangs() {
            return vec![];
        }
        let Running::Primary(r) = &mut self.running else { return vec![] };
        if r.gate && (rng.chance(0.05) || self.now >= r.wrote + LONGEST_PAUSE) {
            r.wrote = self.now;
            *next += 1;
            self.log.push(Entry { epoch: r.epoch.number, id: *next });
            r.waiting.push((self.log.len(), *next, self.now));
        }
        let epoch = r.epoch.number;
        let (done, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut r.waiting).into_iter().partition(|(at, ..)| r.enough(*at));
        r.waiting = still;
        done.into_iter().map(|(_, id, begun)| Acknowledged { id, epoch, begun }).collect()
    }
}

impl Reign {
    fn enough(&self, end: usize) -> bool {
        let have = self.rule.followers.iter().filter(|f| self.flushed.get(*f).is_some_and(|(at, _)| *at >= end));
        have.count() >= self.rule.acknowledgements as usize
    }
}

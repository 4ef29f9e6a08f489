//! The state machine: what a member knows, and the order in which one step goes.
//!
//! A step takes in its event, then decides afresh from everything known ([`Core::decide`]), then answers peers. So no
//! decision depends on which event happened to come last.

mod answer;
mod canvass;
mod degrade;
mod follow;
mod forsake;
mod hand_over;
mod lead;
mod manual;
mod open;
mod random;
mod records;
mod repair;
mod term;
mod unattached;

use crate::{
    Activity, Answer, Ask, AskId, Data, Effect, Event, Instant, Local, Output, Permission, Publication, Record,
    Register, Server, Spec, SwapOutcome, TermTrouble, Timing, Unreachable, Want, WantKind,
};
use pgconvoy_terms::{ChangeId, Epoch, MemberId, MemberName, Position, Term};
use random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// How long an unanswered read blocks the next one, in milliseconds.
const READ_LIMIT: u64 = 2_500;
/// How long an unanswered swap blocks the next one, in milliseconds.
const CALL_LIMIT: u64 = 6_000;
/// How long after an epoch became active clients may still be led to the last leader, in milliseconds: the new leader
/// writes where the Services lead, and every node takes that up, some only once a second.
const SETTLING: u64 = 3_000;

/// As how much time a step counts at most in which the agent waited for an answer, in milliseconds: steps come every 300 ms
/// unless the agent, or the whole machine, stands still.
const LONGEST_STEP: u64 = 500;

/// One member's part in the protocol.
#[derive(Debug)]
pub struct Core {
    me: MemberName,
    timing: Timing,
    random: Random,
    record: Record,
    started: Instant,
    now: Instant,

    spec: Spec,
    local: Option<Local>,
    lease_held: bool,
    /// The register as it was read last; what a swap is based on.
    register: Option<Register>,
    /// When the newest reading of it that a quorum confirmed was asked for.
    register_at: Option<Instant>,
    /// When the record last took in a term.
    record_at: Instant,
    /// What is wrong with it.
    trouble: Option<TermTrouble>,
    /// When something moved last: the register changed, or what runs did. What does not move is stalled.
    moved: Instant,
    swapping: Option<Instant>,
    reading: Option<Instant>,

    asked: BTreeMap<AskId, Question>,
    next_ask: u64,
    /// When each member was last asked what, and whether that question is still open.
    last_asked: BTreeMap<(MemberName, Kind), (Instant, bool)>,
    /// Questions of peers whose answer waits for the decision of this step, or for what that decision brings about.
    to_answer: Vec<answer::Open>,

    /// The id of the Open that this member made or tried last.
    my_open: Option<ChangeId>,
    /// When it was seen to be done.
    opened: Instant,
    /// Why that was.
    opening: String,
    /// Epochs this member opened in a row that did not become active.
    fruitless: u32,
    /// Whether the volume took the record since the Lease was last not wanted.
    disk_tried: bool,
    last_open: Option<Instant>,
    pledges: BTreeMap<MemberId, Option<Position>>,
    dataless: BTreeSet<MemberName>,
    sealed_since: Option<Instant>,
    /// What those who pledged said of data that never attached.
    unattached: unattached::Said,
    stored: Stored,

    /// When a leader with a quorum was heard last, or a new one became active; since when this member listens.
    heard: Instant,
    /// Whose agent is not there, and when it was asked.
    nobody: Option<(MemberName, Instant)>,
    canvass: canvass::Canvass,

    /// For how much of this agent's own time PostgreSQL has not answered, in milliseconds.
    mute: u64,

    /// The epoch that was seen to become active last, and when.
    activated: Option<(Epoch, Instant)>,

    admission: Option<follow::Admission>,
    rewinds: follow::Rewinds,
    /// The copy that this process is making: in which epoch, and whether it replaces good data.
    copying: Option<(Epoch, bool)>,

    /// The time of the last question whose answers proved that this member still leads.
    proof: Instant,
    /// Whether there was one since this agent started; before, `proof` is only when that was.
    proven: bool,
    vouch: lead::Vouch,
    /// The epoch in which clients were let in.
    gate: Option<Epoch>,
    short: degrade::Short,

    want: Want,
    hand_over: hand_over::HandOver,
    /// The epoch that a person ends, and whether its rules are given up.
    taking_over: Option<(u32, bool)>,
    left_to_person: Option<TermTrouble>,
    repairing: Option<repair::Repairing>,
    /// Whether another member holds data of this set that this one knows nothing of.
    elsewhere: bool,
    effects: Vec<Effect>,
    alarms: BTreeMap<&'static str, String>,
    level: Level,
}

/// What a decision sets besides the want.
#[derive(Debug, Clone)]
struct Level {
    lease: bool,
    permission: Permission,
    publish: Option<Publication>,
    ready: bool,
    done: bool,
    activity: Activity,
}

impl Level {
    fn idle(why: &str) -> Self {
        Self {
            lease: false,
            permission: Permission::Forever,
            publish: None,
            ready: false,
            done: false,
            activity: Activity::Waiting(why.to_owned()),
        }
    }
}

/// Who is known to have stored a term.
#[derive(Debug, Default)]
struct Stored {
    /// The newest change of that term.
    about: Option<ChangeId>,
    /// Who, and in whose name: a record speaks also for data that was on its volume before.
    members: BTreeSet<MemberId>,
}

/// What a question was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Pledge,
    Store,
    Vouch,
    Canvass,
    Attach,
    Recall,
}

#[derive(Debug)]
struct Question {
    kind: Kind,
    /// The newest change of the term that the question was about.
    about: Option<ChangeId>,
    epoch: Option<Epoch>,
    sent: Instant,
    nonce: u64,
    /// Attach: whether the asker said how much of the log it holds.
    positioned: bool,
}

impl Core {
    /// A member that has just started, with what its volume holds. `seed` must be random.
    pub fn new(me: MemberName, record: Record, timing: Timing, seed: u128, now: Instant) -> Self {
        Self {
            me,
            timing,
            random: Random::new(seed),
            record,
            started: now,
            now,
            spec: Spec::default(),
            local: None,
            lease_held: false,
            register: None,
            register_at: None,
            record_at: now,
            trouble: None,
            moved: now,
            swapping: None,
            reading: None,
            asked: BTreeMap::new(),
            next_ask: 1,
            last_asked: BTreeMap::new(),
            to_answer: vec![],
            my_open: None,
            opened: now,
            opening: String::new(),
            fruitless: 0,
            disk_tried: false,
            last_open: None,
            pledges: BTreeMap::new(),
            dataless: BTreeSet::new(),
            sealed_since: None,
            unattached: unattached::Said::default(),
            stored: Stored::default(),
            heard: now,
            nobody: None,
            canvass: canvass::Canvass::default(),
            mute: 0,
            activated: None,
            admission: None,
            rewinds: follow::Rewinds::default(),
            copying: None,
            proof: now,
            proven: false,
            vouch: lead::Vouch::default(),
            gate: None,
            short: degrade::Short::default(),
            want: Want { revision: 0, kind: WantKind::Keep },
            hand_over: hand_over::HandOver::default(),
            taking_over: None,
            left_to_person: None,
            repairing: None,
            elsewhere: false,
            effects: vec![],
            alarms: BTreeMap::new(),
            level: Level::idle("starting"),
        }
    }

    /// What this member keeps on its volume now.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What is wrong with the register, for as long as it is.
    pub fn trouble(&self) -> Option<&TermTrouble> {
        self.trouble.as_ref()
    }

    /// Takes in one event and says what follows from it. `now` never goes back.
    pub fn step(&mut self, now: Instant, event: Event) -> Output {
        // While the agent itself stood still, nobody could have heard an answer.
        self.mute += now.since(self.now).min(LONGEST_STEP);
        self.now = now.max(self.now);
        self.take_in(event);
        self.look_at_register();
        self.decide();
        self.repair();
        self.answer_peers();
        self.disk_tried &= self.level.lease;
        Output {
            effects: std::mem::take(&mut self.effects),
            want: self.want.clone(),
            permission: self.level.permission,
            lease: self.level.lease,
            lease_orders: self.record.head.as_ref().is_some_and(|t| !Self::clock_bound(t)),
            publish: self.level.publish.clone(),
            ready: self.level.ready,
            activity: self.level.activity.clone(),
            done: self.level.done,
            wake: Instant(self.now.0 + self.timing.ask_again.min(500)),
        }
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Term { register, proof } => {
                if proof.is_some() {
                    self.reading = None;
                }
                self.see_register(register, proof);
            }
            Event::Swapped(outcome) => {
                self.swapping = None;
                match outcome {
                    SwapOutcome::Won(register) => self.see_register(register, None),
                    SwapOutcome::Lost | SwapOutcome::Unknown => self.read(),
                    SwapOutcome::Refused(why) => {
                        self.alarm("TermRefused", format!("the API server refuses a change of the PgTerm: {why}"));
                        self.read();
                    }
                }
            }
            Event::Lease(held) => self.lease_held = held,
            Event::Spec(spec) => self.spec = spec,
            Event::Local(local) => {
                let kind = |l: &Local| (std::mem::discriminant(&l.data), std::mem::discriminant(&l.server));
                if self.local.as_ref().map(kind) != Some(kind(&local)) {
                    self.moved = self.now;
                }
                if self.local.as_ref().is_none_or(|l| l.answered < local.answered) {
                    self.mute = 0;
                }
                self.local = Some(local);
            }
            Event::Asked { from, id, ask } => {
                self.listen(&from, &ask);
                if let Ask::Pledge { term } | Ask::Store { term } = &ask {
                    self.consider(term.clone());
                }
                self.take_question(id, from, ask);
            }
            Event::Answered { id, from, answer } => self.hear(id, &from, answer),
            Event::Checkpointed => self.hand_over.checkpointed(),
            Event::HandOver { to } => self.ask_to_hand_over(to),
            Event::TakeOver { epoch, accept_loss } => self.ask_to_take_over(epoch.map(|e| (e, accept_loss))),
            Event::Repair(wish) => self.ask_to_repair(wish),
            Event::Stop => self.hand_over.stop(),
        }
    }

    fn hear(&mut self, id: AskId, from: &MemberName, answer: Result<Answer, Unreachable>) {
        let Some(question) = self.asked.remove(&id) else { return };
        if let Some(last) = self.last_asked.get_mut(&(from.clone(), question.kind)) {
            last.1 = false;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(Unreachable::Nobody) => return self.hear_nobody(from, question.sent),
            Err(Unreachable::Silent) => return,
        };
        // An answer about an earlier change says nothing about this one.
        let current = question.about.as_ref() == self.record.head_id();
        let same_epoch = question.epoch.as_ref() == self.record.head.as_ref().map(|t| &t.epoch);
        let named = |member: &Option<MemberId>| member.as_ref().is_none_or(|m| m.name == *from);
        match answer {
            Answer::Pledged { member, position, unattached } if current && named(&member) => {
                self.unattached.hear(from, &unattached);
                if let Some(member) = member {
                    self.pledges.insert(member, position);
                } else {
                    self.dataless.insert(from.clone());
                }
            }
            Answer::Stored { member, former } if current && named(&member) => {
                self.note_stored(from, member, &former);
            }
            Answer::Vouched { member, nonce } if same_epoch && nonce == question.nonce && member.name == *from => {
                self.vouch.hear(member, question.sent);
            }
            Answer::Canvassed { member, heard, able, live, unattached } if current && named(&member) => {
                let mut notes = unattached::Said::default();
                notes.hear(from, &unattached);
                let said = canvass::Said { member, heard, able, live, unattached: notes, sent: question.sent };
                self.canvass.hear(from.clone(), said);
            }
            Answer::Admitted { .. } | Answer::Diverged { .. } if current => {
                self.hear_admission(&answer, question.positioned);
            }
            Answer::Recalled { member, term } => self.hear_recalled(from, member, term),
            Answer::Refused { why, head, promised } => self.hear_refusal(from, &why, head.as_ref(), promised.as_ref()),
            _ => {}
        }
    }

    /// Everything from here on follows from what is known, whatever came last.
    fn decide(&mut self) {
        self.level = Level::idle("looking at the volume");
        self.left_to_person = None;
        if self.leaving() && !self.preparing_to_leave() {
            self.leave();
            return;
        }
        let Some(data) = self.local.as_ref().map(|l| l.data.clone()) else { return };
        self.adopt_made(&data);
        match &data {
            Data::Unknown => return,
            Data::Foreign(why) => {
                self.level.activity = Activity::Failed(why.clone());
                return;
            }
            Data::Good { incarnation, .. } if self.record.incarnation.as_ref() != Some(incarnation) => {
                self.level.activity = Activity::Failed(format!(
                    "the volume holds data ({incarnation}) without the member's own record of it: what this member \
                     promised is not known, so the data is neither used nor touched; delete the volume claim to have \
                     it cloned anew"
                ));
                return;
            }
            _ => {}
        }
        let Some(register) = &self.register else {
            self.wait_for_term("the PgTerm has not been read yet");
            return;
        };
        match (&self.record.head, &register.term) {
            (None, None) if matches!(data, Data::Good { .. }) => {
                self.level.activity = Activity::Failed(
                    "there is data on the volume but the PgTerm is at number 0: it was deleted or belongs to another \
                     set; nothing is started before a person has looked"
                        .to_owned(),
                );
            }
            (None, None) if register.remade => self.wait_for_repair(),
            (None, None) => self.found(),
            (None, Some(_)) => self.wait_for_term("the PgTerm is not one that this member may obey"),
            (Some(_), _) => self.obey(),
        }
    }

    /// Data that was being made is complete: its name is this member's from now on.
    fn adopt_made(&mut self, data: &Data) {
        let Data::Good { incarnation, .. } = data else { return };
        if self.record.making.as_ref() == Some(incarnation) {
            let made = self.record.making.take();
            let before = std::mem::replace(&mut self.record.incarnation, made);
            self.note_new_data(incarnation, before);
            self.copying = None;
            self.persist();
        }
    }

    /// Nothing may be decided yet. What runs goes on; data on the volume is brought to where its position is known.
    fn wait_for_term(&mut self, why: &str) {
        self.level.activity = Activity::Waiting(why.to_owned());
        match self.local.as_ref().map(|l| (&l.data, &l.server)) {
            Some((_, Server::Primary { epoch, .. })) => {
                let epoch = epoch.clone();
                self.level.permission = Permission::Until(Instant(self.proof.0 + self.timing.permission));
                if self.now.since(self.proof) > self.timing.proof {
                    self.fence(&format!("no proof since it started that epoch {} still stands", epoch.number));
                }
            }
            Some((Data::Good { .. }, Server::Down)) => self.want(WantKind::Detached),
            _ => {}
        }
    }

    /// Acts on the term that this member obeys.
    fn obey(&mut self) {
        let Some(term) = self.record.head.clone() else { return };
        // Until a member is known to have been asked about this change, nothing is known about it.
        if self.stored.about.as_ref() != term.head() {
            self.stored = Stored { about: term.head().cloned(), ..Stored::default() };
        }
        match (&term.leader, term.phase) {
            (Some(leader), _) if self.is_me(leader) => self.lead(&term),
            (Some(leader), _) => self.follow(&term, &leader.name.clone()),
            (None, _) => self.recruit(&term),
        }
        self.take_over(&term);
        if term.phase == pgconvoy_terms::Phase::Active {
            self.fruitless = 0;
        }
    }

    /// Who led before this epoch, while clients may still be led there.
    fn last_leader<'t>(&self, term: &'t Term) -> Option<&'t MemberName> {
        let settled = match &self.activated {
            Some((epoch, at)) if *epoch == term.epoch => self.now.since(*at) >= SETTLING,
            // It was active when this agent started.
            _ => term.phase == pgconvoy_terms::Phase::Active,
        };
        if settled {
            return None;
        }
        term.epoch_before().map(|f| &f.leader.name)
    }

    /// This member with the data that it has.
    fn my_id(&self) -> Option<MemberId> {
        match self.local.as_ref().map(|l| &l.data) {
            Some(Data::Good { incarnation, .. }) if self.record.incarnation.as_ref() == Some(incarnation) => {
                Some(MemberId { name: self.me.clone(), incarnation: incarnation.clone() })
            }
            _ => None,
        }
    }

    /// This member with the data that it is making.
    fn future_id(&self) -> Option<MemberId> {
        self.record.making.clone().map(|incarnation| MemberId { name: self.me.clone(), incarnation })
    }

    /// Whether this is this member, with the data that it has or is making.
    fn is_me(&self, member: &MemberId) -> bool {
        let named = |i: &Option<_>| i.as_ref() == Some(&member.incarnation);
        member.name == self.me && (named(&self.record.incarnation) || named(&self.record.making))
    }

    fn server(&self) -> &Server {
        self.local.as_ref().map_or(&Server::Down, |l| &l.server)
    }

    /// Whether what is reported is what the newest want led to.
    fn settled(&self) -> bool {
        self.local.as_ref().is_some_and(|l| l.applied == self.want.revision)
    }

    fn problem(&self) -> Option<String> {
        self.local.as_ref().and_then(|l| l.problem.clone())
    }

    /// How much of the log this member holds, when it receives nothing and that is known for sure.
    fn my_position(&self) -> Option<Position> {
        match self.server() {
            Server::Standby { following: None, receiving: false, position, .. } if self.settled() => {
                (self.want.kind == WantKind::Detached).then_some(*position).flatten()
            }
            _ => None,
        }
    }

    fn want(&mut self, kind: WantKind) {
        if self.want.kind != kind {
            self.want = Want { revision: self.want.revision + 1, kind };
        }
    }

    fn fence(&mut self, why: &str) {
        self.want(WantKind::Fenced);
        self.level.activity = Activity::Fenced(why.to_owned());
        self.level.ready = false;
        self.level.publish = None;
    }

    /// Brings PostgreSQL to where it receives nothing and its position is known; kills it first when it is writable.
    fn detach(&mut self) {
        match self.server() {
            Server::Primary { .. } => self.want(WantKind::Fenced),
            // A leader's that cannot be asked may still be writable; a fence stays until it is seen to be down.
            Server::Busy if matches!(self.want.kind, WantKind::Fenced | WantKind::Lead { .. }) => {
                self.want(WantKind::Fenced);
            }
            _ if self.my_id().is_some() => self.want(WantKind::Detached),
            _ => self.want(WantKind::Keep),
        }
    }

    fn persist(&mut self) {
        self.effects.push(Effect::Persist(self.record.clone()));
    }

    fn tell(&mut self, reason: &'static str, message: String) {
        self.effects.push(Effect::Tell { reason, message });
    }

    fn alarm(&mut self, reason: &'static str, message: String) {
        if self.alarms.get(reason) != Some(&message) {
            self.alarms.insert(reason, message.clone());
            self.effects.push(Effect::Alarm { reason, message });
        }
    }

    fn read(&mut self) {
        if self.reading.is_none_or(|since| self.now.since(since) > READ_LIMIT) {
            self.reading = Some(self.now);
            self.effects.push(Effect::Read);
        }
    }

    /// Asks a peer, unless the same question is open or was asked a moment ago.
    fn ask(&mut self, to: &MemberName, kind: Kind, pause: u64, ask: Ask) {
        let last = self.last_asked.get(&(to.clone(), kind));
        let wait = |&(at, open): &(Instant, bool)| {
            let passed = self.now.since(at);
            passed < pause || (open && passed < 2 * self.timing.ask)
        };
        if *to == self.me || last.is_some_and(wait) {
            return;
        }
        let id = AskId(self.next_ask);
        self.next_ask += 1;
        let nonce = if let Ask::Vouch { nonce, .. } = &ask { *nonce } else { 0 };
        let positioned = matches!(&ask, Ask::Attach { position: Some(_), .. });
        let about = self.record.head_id().cloned();
        let epoch = self.record.head.as_ref().map(|t| t.epoch.clone());
        self.asked.insert(id, Question { kind, about, epoch, sent: self.now, nonce, positioned });
        self.last_asked.insert((to.clone(), kind), (self.now, true));
        // Whatever never came back is forgotten, so that the table is bounded.
        let limit = 10 * self.timing.ask;
        let now = self.now;
        self.asked.retain(|_, q| now.since(q.sent) < limit);
        self.effects.push(Effect::Ask { id, to: to.clone(), ask, within: self.timing.ask });
    }

    /// Everyone who takes part in the term or should: asked when a new epoch is made.
    fn everyone(&self, term: &Term) -> BTreeSet<MemberName> {
        let mut names: BTreeSet<_> = term.rules.iter().flat_map(|r| r.members()).map(|m| m.name.clone()).collect();
        names.extend(self.spec.roster.iter().cloned());
        names.remove(&self.me);
        names
    }
}

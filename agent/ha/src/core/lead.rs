//! Leading: Confirm, Promote, Activate, Heartbeat, Resume, Reconfigure.

use super::{Core, Kind, degrade::there};
use crate::{Activity, Ask, Instant, Permission, Publication, RuleInForce, Server, Stream, WantKind};
use pgconvoy_terms::{Fork, HISTORY_LIMIT, MemberId, Phase, Rule, Term, TimelineId};
use std::collections::{BTreeMap, BTreeSet};

/// The heartbeat question: is this epoch still your promise?
#[derive(Debug, Default)]
pub(super) struct Vouch {
    nonce: u64,
    asked: Instant,
    /// When the newest question was *sent* that each has answered. An answer proves nothing about any later time.
    answered: BTreeMap<MemberId, Instant>,
}

impl Vouch {
    pub(super) fn hear(&mut self, member: MemberId, sent: Instant) {
        let newest = self.answered.entry(member).or_default();
        *newest = sent.max(*newest);
    }

    /// The latest time at which all these rules' followers vouched.
    fn proven(&self, rules: &[Rule]) -> Option<Instant> {
        self.answered
            .values()
            .copied()
            .filter(|time| {
                let since: BTreeSet<_> =
                    self.answered.iter().filter(|(_, at)| *at >= time).map(|(m, _)| m.clone()).collect();
                rules.iter().all(|r| r.vouched_by(&since))
            })
            .max()
    }
}

/// A leader's PostgreSQL, as far as it matters here.
struct Reign {
    fork: Option<(TimelineId, pgconvoy_terms::Lsn)>,
    in_force: Option<RuleInForce>,
    barrier: bool,
    gate: bool,
    streams: Vec<Stream>,
}

impl Core {
    /// This member is the elected leader.
    pub(super) fn lead(&mut self, term: &Term) {
        // The Lease only orders those who try: a serving leader leaves it to whoever must replace it. But a single follower without
        // a quorum has no one else to ask whether this leader lives.
        let lonely = term.rules.iter().any(|r| r.acknowledgements == 0 && r.followers.len() == 1);
        self.level.lease = term.phase != Phase::Active || (lonely && self.answers());
        self.level.activity = Activity::Electing(term.epoch.clone());
        if self.founding(term) {
            return;
        }
        let Some(me) = self.my_id() else {
            self.level.activity = Activity::Failed(
                "this member is the leader of record but its data is gone; another member has to take over".to_owned(),
            );
            return;
        };
        if term.phase == Phase::Active && self.hangs(term) && !self.by_hand(term) {
            self.give_way(term);
            return;
        }
        if term.phase == Phase::Active && Self::clock_bound(term) && !self.proven && *self.server() != Server::Down {
            // A new agent: what the one before proved is not known, so nothing is permitted anew before a proof.
            self.heartbeat(term);
            self.read();
            self.overdue(term);
            return;
        }
        match self.reign(term) {
            Some(reign) if term.phase == Phase::Active => self.serve(term, &me, &reign),
            Some(reign) => self.activate(term, &me, &reign),
            None if term.phase == Phase::Active => self.begin_again(term),
            None => self.promote(term, &me),
        }
    }

    /// What runs, if it is writable for this epoch.
    fn reign(&self, term: &Term) -> Option<Reign> {
        match self.server() {
            Server::Primary { epoch, timeline, fork, in_force, barrier, gate, streams }
                if *epoch == term.epoch && *timeline == term.epoch.timeline() =>
            {
                Some(Reign {
                    fork: *fork,
                    in_force: in_force.clone(),
                    barrier: *barrier,
                    gate: *gate,
                    streams: streams.clone(),
                })
            }
            _ => None,
        }
    }

    /// PostgreSQL is gone, or is not what this epoch made: the only way back to a writable one is a new epoch.
    fn begin_again(&mut self, term: &Term) {
        let ours = matches!(&self.want.kind, WantKind::Lead { epoch, .. } if *epoch == term.epoch);
        if matches!(self.server(), Server::Busy) && (ours || self.want.kind == WantKind::Fenced) {
            // It cannot be asked just now, or is being killed: not known to be gone yet.
            self.heartbeat(term);
            self.permit(term);
            self.overdue(term);
            return;
        }
        self.detach();
        self.open(Some(term), format!("PostgreSQL of {}, which led epoch {}, is gone", self.me, term.epoch.number));
    }

    /// Whether PostgreSQL has answered within D of this agent's own time.
    fn answers(&self) -> bool {
        self.mute <= self.timing.suspect
    }

    /// A question sent at that time has proved that this member still leads.
    pub(super) fn prove(&mut self, sent: Instant) {
        self.proof = self.proof.max(sent);
        self.proven = true;
    }

    /// Whether PostgreSQL runs and answers nothing any more, for D, or its disk hangs.
    fn hangs(&self, term: &Term) -> bool {
        let replaceable = term.rules.iter().all(|r| r.acknowledgements > 0);
        replaceable && !(self.answers() && self.disk_goes_on()) && *self.server() != Server::Down
    }

    fn disk_goes_on(&self) -> bool {
        self.local.as_ref().is_none_or(|l| !l.stalled)
    }

    /// Another is to lead. What hangs is killed only when the epoch is open: until then nobody else would serve either, and it
    /// may come back.
    fn give_way(&mut self, term: &Term) {
        if !self.disk_goes_on() {
            // Nothing can be written down here, so this member opens nothing before its disk goes on. The others take it for one that
            // lives for as long as PostgreSQL sends them anything.
            self.fence("its disk takes no log any more");
            self.open(Some(term), format!("the disk of {}, which leads epoch {}, hung", self.me, term.epoch.number));
            return;
        }
        self.heartbeat(term);
        self.permit(term);
        if self.overdue(term) {
            return;
        }
        let (me, number, limit) = (&self.me, term.epoch.number, self.timing.suspect / 1000);
        let why = format!("PostgreSQL of {me}, which leads epoch {number}, answers nothing for {limit} s");
        self.level.activity =
            Activity::Leading(term.epoch.clone(), Some(format!("PostgreSQL answers nothing for {limit} s")));
        self.open(Some(term), why);
    }

    /// Confirm, then become writable.
    fn promote(&mut self, term: &Term, me: &MemberId) {
        if self.stalled() {
            self.detach();
            let (me, number, limit) = (&self.me, term.epoch.number, self.timing.stalled / 1000);
            self.open(Some(term), format!("{me} was elected in epoch {number} and could not lead for {limit} s"));
            return;
        }
        let Some(rule) = term.rules.last().cloned() else { return };
        self.note_stored_here(me);
        let before: Vec<Rule> = term.rules_before().cloned().collect();
        if !before.iter().all(|r| r.confirmed_by(&self.stored.members)) {
            self.detach();
            self.ask_to_store(term);
            return;
        }
        if self.record.led.as_ref() != Some(&term.epoch) {
            self.record.led = Some(term.epoch.clone());
            self.note_attached(&term.epoch);
            self.persist();
        }
        if !Self::clock_bound(term) {
            self.proof = self.now;
        } else if !self.proven || self.now.since(self.proof) > 3 * self.timing.heartbeat {
            // Without a quorum the clock is all there is: it runs from a proof, not from the wish to lead.
            self.read();
            return;
        }
        self.want(WantKind::Lead { epoch: term.epoch.clone(), rule, gate: false });
        self.permit(term);
    }

    fn ask_to_store(&mut self, term: &Term) {
        let pause = self.timing.ask_again;
        for name in self.everyone(term) {
            if !self.stored.members.iter().any(|m| m.name == name) {
                self.ask(&name, Kind::Store, pause, Ask::Store { term: term.clone() });
            }
        }
    }

    /// Writable, not yet serving: once the rule is in force and the epoch's row committed under it, say so.
    fn activate(&mut self, term: &Term, me: &MemberId, reign: &Reign) {
        self.permit(term);
        self.heartbeat(term);
        let Some(rule) = term.rules.last().cloned() else { return };
        self.want(WantKind::Lead { epoch: term.epoch.clone(), rule: rule.clone(), gate: false });
        // Those who stream now may have other data than those who count (a disk was lost meanwhile): then only another
        // epoch, whose rule names them, can become active.
        let strangers = reign.streams.iter().any(|s| s.caught_up && !rule.contains(&s.member));
        if strangers && !reign.barrier && self.stalled() {
            let why = format!("followers that epoch {} counts on have other data by now", term.epoch.number);
            self.open(Some(term), why);
            return;
        }
        if self.overdue(term) || !(reign.barrier && in_force(reign, &rule)) {
            return;
        }
        let mut next = term.clone();
        next.phase = Phase::Active;
        next.rules = vec![rule];
        next.history.push(Fork {
            epoch: term.epoch.clone(),
            parent: reign.fork.map(|f| f.0),
            at: reign.fork.map(|f| f.1),
            leader: me.clone(),
            lossy: term.lossy,
        });
        next.lossy = false;
        let excess = next.history.len().saturating_sub(HISTORY_LIMIT);
        next.history.drain(..excess);
        self.swap(next);
    }

    /// Active and writable: prove it, let clients in, keep the rule as the spec wants it.
    fn serve(&mut self, term: &Term, me: &MemberId, reign: &Reign) {
        self.heartbeat(term);
        self.permit(term);
        if self.overdue(term) {
            return;
        }
        self.repeat_if_behind(term);
        let Some(rule) = self.reconfigure(term, me, reign) else { return };
        let enough = rule.acknowledgements >= 1 || self.spec.acknowledgements == 0 || self.short.for_long(self.now);
        let served = reign.gate || self.gate.as_ref() == Some(&term.epoch);
        let gate = served || (enough && !self.spec.roster.is_empty() && in_force(reign, &rule));
        if gate {
            self.gate = Some(term.epoch.clone());
        }
        self.want(WantKind::Lead { epoch: term.epoch.clone(), rule: rule.clone(), gate });
        self.publish(term, reign, gate);
        self.level.ready = reign.gate;
        let short = rule.acknowledgements < self.spec.acknowledgements;
        let note = short.then(|| {
            format!(
                "{} of {} acknowledgements asked for: waiting for followers to catch up",
                rule.acknowledgements, self.spec.acknowledgements
            )
        });
        self.level.activity = Activity::Leading(term.epoch.clone(), self.problem().or(note));
    }

    /// Where the Services lead. `open`: clients are let in, or will be in a moment: that takes less time than to lead them
    /// here. Until then nothing is said of a new epoch: proxies gather what changes within a second, so that a word too
    /// many costs clients that second.
    fn publish(&mut self, term: &Term, reign: &Reign, open: bool) {
        let last = self.last_leader(term);
        if !open && last.is_some() {
            return;
        }
        let streaming = reign.streams.iter().map(|s| &s.member.name).filter(|name| Some(*name) != last);
        self.level.publish = Some(Publication {
            epoch: term.epoch.clone(),
            leader: open.then(|| self.me.clone()),
            followers: streaming.cloned().collect(),
        });
    }

    /// The register may hold the same change from before it was completed (a restored API server): complete it again.
    fn repeat_if_behind(&mut self, term: &Term) {
        let seen = self.register.as_ref().and_then(|r| r.term.as_ref());
        if seen.is_some_and(|s| s.head() == term.head() && s != term) && !term.reconfiguring() {
            self.swap(term.clone());
        }
    }

    /// Brings the rule to what roster and spec ask for. Returns the rule that commits must wait for now.
    fn reconfigure(&mut self, term: &Term, me: &MemberId, reign: &Reign) -> Option<Rule> {
        self.look_who_keeps_up(term.rules.first()?, &reign.streams);
        if let [old, new] = &term.rules[..] {
            // Begun: stored by a quorum of the old rule, then in force, then final.
            self.note_stored_here(me);
            let stored = old.followers.iter().filter(|f| self.stored.members.contains(*f)).count();
            // They are not there to store it when that is what the change is about. The register alone tells of it then.
            if stored < old.acknowledgements as usize && !self.degrades(old, new) {
                self.ask_to_store(term);
                return Some(old.clone());
            }
            if in_force(reign, new) {
                let mut next = term.clone();
                next.rules = vec![new.clone()];
                self.swap(next);
            }
            return Some(new.clone());
        }
        let current = term.rules.last()?.clone();
        let degraded = self.degraded(&current, &reign.streams);
        let target = degraded.clone().unwrap_or_else(|| self.target(&current, me, reign));
        // A rule of which too few keep up cannot be waited for to be in force.
        let at_rest = degraded.is_some() || in_force(reign, &current);
        if target != current && at_rest && !self.spec.roster.is_empty() {
            self.tell_degraded(&current, &target);
            let mut next = term.clone();
            next.rules.push(target);
            let id = self.new_id();
            next.push_change(id);
            self.swap(next);
        }
        Some(current)
    }

    /// The rule as it should be: roster members that are in it already or have caught up, by the data they stream with.
    fn target(&self, current: &Rule, me: &MemberId, reign: &Reign) -> Rule {
        let mut by_name: BTreeMap<_, _> = current.followers.iter().map(|f| (f.name.clone(), f.clone())).collect();
        for stream in reign.streams.iter().filter(|s| s.caught_up && self.short.may_count(&s.member, self.now)) {
            by_name.insert(stream.member.name.clone(), stream.member.clone());
        }
        by_name.retain(|name, _| self.spec.roster.contains(name) && *name != me.name);
        let followers: BTreeSet<_> = by_name.into_values().collect();
        let acknowledgements = self.spec.acknowledgements.min(followers.len() as u32);
        Rule { epoch: current.epoch.clone(), leader: me.clone(), followers, acknowledgements }
    }

    /// Asks the followers whether this epoch is still their promise; without their answers, asks the register.
    fn heartbeat(&mut self, term: &Term) {
        if let Some(proven) = self.vouch.proven(&term.rules) {
            self.prove(proven);
        }
        if term.rules.iter().all(|r| r.followers.is_empty()) {
            self.prove(self.now);
            return;
        }
        if self.now.since(self.vouch.asked) >= self.timing.heartbeat {
            let quorate = self.quorate(term);
            self.vouch.nonce += 1;
            self.vouch.asked = self.now;
            let in_rules = |m: &MemberId| term.rules.iter().any(|r| r.followers.contains(m));
            self.vouch.answered.retain(|m, _| in_rules(m));
            let names: BTreeSet<_> =
                term.rules.iter().flat_map(|r| r.followers.iter().map(|f| f.name.clone())).collect();
            for name in names {
                let ask = Ask::Vouch { epoch: term.epoch.clone(), nonce: self.vouch.nonce, quorate };
                self.ask(&name, Kind::Vouch, 0, ask);
            }
        }
        if self.now.since(self.proof) > 3 * self.timing.heartbeat {
            self.read();
        }
    }

    /// Whether commits can be acknowledged: W followers of every rule stream, and have vouched within D. Without a quorum a
    /// leader that serves by right acknowledges.
    pub(super) fn quorate(&self, term: &Term) -> bool {
        let Server::Primary { epoch, streams, .. } = self.server() else { return false };
        let answers = *epoch == term.epoch && self.answers();
        if Self::clock_bound(term) {
            return answers && self.proven && self.now.since(self.proof) <= self.timing.proof;
        }
        if term.rules.iter().all(|r| r.followers.is_empty()) {
            return answers;
        }
        let streaming = |r: &Rule| there(r, streams).len() >= r.acknowledgements as usize;
        let vouched = self.vouch.proven(&term.rules).is_some_and(|at| self.now.since(at) <= self.timing.suspect);
        answers && term.rules.iter().all(streaming) && vouched
    }

    /// Fences when there has been no proof of leading for too long.
    fn overdue(&mut self, term: &Term) -> bool {
        if self.now.since(self.proof) <= self.timing.proof {
            return false;
        }
        self.fence(&format!(
            "no proof for {} s that epoch {} still stands: neither enough followers nor the API server answer",
            self.timing.proof / 1000,
            term.epoch.number
        ));
        true
    }

    /// How long PostgreSQL may go on should this agent fall silent.
    fn permit(&mut self, term: &Term) {
        let alone = term.rules.iter().all(|r| r.followers.is_empty());
        let quorum = term.rules.iter().all(|r| r.acknowledgements > 0);
        self.level.permission = if alone {
            Permission::Forever
        } else if quorum {
            // From the proof on: an agent that dies without one for long leaves that much less.
            Permission::Until(Instant(self.proof.0 + self.timing.permission))
        } else {
            // Without a quorum the clock is all there is.
            Permission::Until(Instant(self.proof.0 + self.timing.proof + self.timing.ask))
        };
    }
}

/// Whether PostgreSQL obeys `rule` to the letter.
fn in_force(reign: &Reign, rule: &Rule) -> bool {
    reign
        .in_force
        .as_ref()
        .is_some_and(|f| f.acknowledgements == rule.acknowledgements && f.followers == rule.followers)
}

//! The register was lost, or went back to an older state: telling it, and putting it right when a person asks for that.

use super::{Core, Kind, records};
use crate::{Activity, Answer, Ask, Data, Effect, Instant, Repair, TermTrouble};
use pgconvoy_terms::{MemberId, MemberName, Rule, Term};
use records::Useless;
use std::collections::{BTreeMap, BTreeSet};

/// For how long records are collected when not everybody has answered, in milliseconds. Short: who comes late is left out, and
/// does not obey what is made of the others' records before another repair. Long: the repair takes as long.
const GATHERING: u64 = 3_000;
/// How long each later ordinal waits, in milliseconds.
const STAGGER: u64 = 500;
/// How long to wait for more when those heard are too few to go on, in milliseconds.
const PATIENCE: u64 = 10_000;

/// A repair under way.
#[derive(Debug)]
pub(super) struct Repairing {
    wish: Repair,
    since: Instant,
    /// What each other member goes by, and with which data.
    heard: BTreeMap<MemberName, (Option<MemberId>, Option<Term>)>,
    /// Why nothing came of it, told once.
    refused: bool,
}

impl Core {
    /// A person's wish that the register be repaired, or its end.
    pub(super) fn ask_to_repair(&mut self, wish: Option<Repair>) {
        let same = |r: &Repairing| Some(&r.wish) == wish.as_ref();
        if !self.repairing.as_ref().is_some_and(same) {
            self.repairing =
                wish.map(|wish| Repairing { wish, since: self.now, heard: BTreeMap::new(), refused: false });
        }
    }

    /// Whether the records are those of kept volumes.
    fn adopting(&self) -> bool {
        self.repairing.as_ref().is_some_and(|r| r.wish.adopt)
    }

    /// Whether the register is known to hold something else than what this member goes by and may go by.
    pub(super) fn look_at_register(&mut self) {
        self.trouble = self.trouble_of_register();
        if let Some(trouble) = self.trouble.clone().filter(|_| !self.adopting()) {
            self.alarm(trouble.reason, trouble.message);
        }
    }

    fn trouble_of_register(&self) -> Option<TermTrouble> {
        let (mine, register) = (self.record.head.as_ref()?, self.register.as_ref()?);
        // What a watch brings may be late; what was asked for since is not.
        let certain = self.register_at.is_some_and(|at| at > self.record_at);
        let what_to_do = format!(
            "what runs goes on, and no other leader can be elected before a person has typed: kubectl pgconvoy term repair {}",
            self.me.set()
        );
        let number = mine.epoch.number;
        let trouble = |reason, what: String| Some(TermTrouble { reason, message: format!("{what}; {what_to_do}") });
        let Some(term) = &register.term else {
            let what = format!("the PgTerm is at number 0 although {} is in epoch {number}: it was deleted", self.me);
            return if certain { trouble("TermLost", what) } else { None };
        };
        if term.head() == mine.head() || term.descends_from(mine.head()) {
            return None;
        }
        let theirs = term.epoch.number;
        if !term.head().is_some_and(|h| mine.chain.contains(h)) {
            let what = format!(
                "the PgTerm (epoch {theirs}) does not descend from what {} goes by (epoch {number}): it was put back to an \
                 older state, or edited",
                self.me
            );
            return trouble("TermForeign", what);
        }
        let what = format!(
            "the PgTerm (epoch {theirs}) is older than what {} goes by (epoch {number}): it was put back to an older state",
            self.me
        );
        if certain { trouble("TermRolledBack", what) } else { None }
    }

    /// What this member goes by.
    pub(super) fn answer_recall(&self) -> Answer {
        match self.local.as_ref().map(|l| &l.data) {
            None | Some(Data::Unknown) => Answer::NotYet,
            _ => Answer::Recalled { member: self.my_id(), term: self.record.head.clone() },
        }
    }

    pub(super) fn hear_recalled(&mut self, from: &MemberName, member: Option<MemberId>, term: Option<Term>) {
        let member = member.filter(|m| m.name == *from);
        if let Some(repairing) = &mut self.repairing {
            repairing.heard.insert(from.clone(), (member, term));
        }
    }

    /// Collects the records of all members, and puts what follows from them into the register.
    ///
    /// Without the Lease: whoever goes by the register that is in the way may hold that for as long as nobody follows it, and the
    /// swap lets only one of several win. Its place in the roster says who tries first.
    pub(super) fn repair(&mut self) {
        let (Some(mine), Some(me), Some(repairing)) = (self.record.head.clone(), self.my_id(), &self.repairing) else {
            return;
        };
        if self.trouble.is_none() || repairing.refused || self.leaving() {
            return;
        }
        let Some(register) = self.register.clone() else { return };
        if repairing.wish.adopt && register.term.is_some() {
            return;
        }
        let others = self.everyone(&mine);
        for name in &others {
            self.ask(name, Kind::Recall, self.timing.ask_again, Ask::Recall {});
        }
        let Some(repairing) = &self.repairing else { return };
        let rank = self.spec.roster.iter().position(|m| *m == self.me).unwrap_or(self.spec.roster.len());
        let waited = self.now.since(repairing.since).saturating_sub(rank as u64 * STAGGER);
        if waited == 0 {
            return;
        }
        let all = others.iter().all(|n| repairing.heard.contains_key(n));
        if !all && waited < GATHERING {
            return;
        }
        let said = repairing.heard.values();
        let heard: BTreeSet<MemberId> = said.clone().filter_map(|(m, _)| m.clone()).chain([me]).collect();
        let found: Vec<Term> = said.filter_map(|(_, t)| t.clone()).chain([mine]).collect();
        let floor = register.term.as_ref().map_or(0, |t| t.epoch.number);
        let wish = repairing.wish.clone();
        let id = self.new_id();
        match records::repaired(&found, &heard, floor, id.clone(), &wish) {
            Ok(term) => self.put_right(register.version, term, &heard),
            Err(_) if !all && waited < PATIENCE => {}
            Err(useless) => self.refuse_to_repair(&useless, &heard),
        }
    }

    fn put_right(&mut self, version: String, term: Term, heard: &BTreeSet<MemberId>) {
        if self.swapping.is_some_and(|since| self.now.since(since) < super::CALL_LIMIT) {
            return;
        }
        self.swapping = Some(self.now);
        self.my_open = Some(term.epoch.id.clone());
        self.last_open = Some(self.now);
        let what = if self.adopting() { "kept volumes are adopted" } else { "the PgTerm was lost or rolled back" };
        self.opening = format!("{what}, and it is made again from the records of {}", names(heard));
        self.effects.push(Effect::Swap { version, term });
    }

    fn refuse_to_repair(&mut self, useless: &Useless, heard: &BTreeSet<MemberId>) {
        let adopting = self.adopting();
        let missing = |rule: &Rule| names(&rule.members().filter(|m| !heard.contains(*m)).cloned().collect());
        let why = match useless {
            Useless::Nothing => "no member has a record of what it went by".to_owned(),
            Useless::Unsealed(rule) if adopting => format!(
                "for the kept volumes of {}: by the rule of epoch {} those of {} are too few",
                missing(rule),
                rule.epoch.number,
                names(heard),
            ),
            Useless::Unsealed(rule) => format!(
                "only {} could be asked, and by the rule of epoch {} that is too few of its members to go on ({} of its followers \
                 must hold a commit): start {}, or bring back their volumes, and ask again; what only they have is given up \
                 with kubectl pgconvoy term repair {} --accept-loss",
                names(heard),
                rule.epoch.number,
                rule.acknowledgements,
                missing(rule),
                self.me.set(),
            ),
        };
        if adopting {
            self.level.activity = Activity::Waiting(why);
            return;
        }
        if let Some(repairing) = &mut self.repairing {
            repairing.refused = true;
        }
        self.effects.push(Effect::RefuseRequest { why });
    }

    /// Nobody founds a database where there was one.
    pub(super) fn wait_for_repair(&mut self) {
        self.level.activity = Activity::Waiting(format!(
            "for the PgTerm, which was lost and made again: kubectl pgconvoy term repair {}",
            self.me.set()
        ));
    }
}

fn names(members: &BTreeSet<MemberId>) -> String {
    members.iter().map(|m| m.name.to_string()).collect::<Vec<_>>().join(", ")
}

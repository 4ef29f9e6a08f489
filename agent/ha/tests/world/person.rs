//! A register that is lost or set back, and the person who has it repaired.

use super::{Mail, World};
use pgconvoy_ha::{Event, Repair};
use pgconvoy_terms::Term;

/// How often the person looks at the set, in milliseconds.
const LOOK: u64 = 2_000;

/// Somebody who does what the alarms say.
#[derive(Default)]
pub(super) struct Person {
    looks: u64,
    asked: bool,
    /// Does nothing until it is told to.
    away: bool,
    accepts_loss: bool,
    /// It is in the spec that kept data is gone on with.
    adopts: bool,
    /// Whether the register was ever lost or set back.
    needed: bool,
}

impl Person {
    /// A request that was refused has ended; there may be another.
    pub(super) fn hear_refusal(&mut self) {
        self.asked = false;
    }

    pub(super) fn was_needed(&self) -> bool {
        self.needed
    }
}

impl World {
    /// Puts this into the register, for all to see.
    pub(super) fn put(&mut self, term: Option<Term>) {
        self.remade = term.is_none();
        self.earlier.extend(term.iter().filter(|t| !t.history.is_empty()).cloned());
        self.register = (self.register.0 + 1, term);
        for other in self.names.clone().iter() {
            // A watch may be late; it is never in another order.
            self.send(other, 30, Mail::Register(false));
        }
    }

    /// The PgTerm is deleted, and the operator makes another at number 0.
    pub(crate) fn delete_register(&mut self) {
        self.note("the register is deleted".to_owned());
        self.person.needed = true;
        self.put(None);
    }

    /// The API server is restored from a backup, which is `back` changes of the register old.
    pub(crate) fn set_register_back(&mut self, back: usize) {
        let Some(place) = self.earlier.len().checked_sub(1 + back) else { return };
        let term = self.earlier[place].clone();
        self.note(format!("the register is set back to epoch {} {:?}", term.epoch.number, term.phase));
        self.person.needed = true;
        self.put(Some(term));
    }

    /// Nobody looks after the register until [`World::have_it_repaired`].
    pub(crate) fn leave_register_to_itself(&mut self) {
        self.person.away = true;
    }

    /// A person sees what is the matter; `accept_loss`: and gives up what cannot be asked for. Then acknowledged commits may be
    /// missing, and none of them is looked for.
    pub(crate) fn have_it_repaired(&mut self, accept_loss: bool) {
        self.person = Person { accepts_loss: accept_loss, needed: true, ..Person::default() };
        if accept_loss {
            self.acknowledged.clear();
        }
    }

    /// The set is deleted and made again over its volumes, which it is to go on with; members begin one after the other.
    pub(crate) fn make_again_over_kept_volumes(&mut self) {
        self.delete_register();
        self.person = Person { adopts: true, asked: true, needed: true, away: true, ..Person::default() };
        self.lease = None;
        for (n, who) in self.names.clone().iter().enumerate() {
            self.crash(who, true);
            self.members.get_mut(who).unwrap().down_until = self.now + 20_000 * (n as u64 + 1);
        }
    }

    /// Whether any member says that the register is not what it goes by.
    pub(crate) fn troubled(&self) -> bool {
        self.members.values().any(|m| m.core.as_ref().is_some_and(|c| c.trouble().is_some()))
    }

    /// What is asked for now, which agents that start hear of, too.
    pub(super) fn wish(&self) -> Option<Repair> {
        let Person { accepts_loss: accept_loss, adopts: adopt, .. } = self.person;
        self.person.asked.then_some(Repair { accept_loss, adopt })
    }

    pub(super) fn draw_register_fault(&mut self) {
        let rate = self.faults.lose_register * 10.0 / 60_000.0;
        if rate == 0.0 || !self.rng.chance(rate) || self.earlier.is_empty() {
            return;
        }
        if self.rng.chance(0.3) {
            self.delete_register();
        } else {
            let back = self.rng.below(self.earlier.len().min(12) as u64) as usize;
            self.set_register_back(back);
        }
    }

    /// A person asks for a repair while there is something to repair.
    pub(super) fn look_after_register(&mut self) {
        self.draw_register_fault();
        if !self.person.needed || self.person.away || self.now < self.person.looks {
            return;
        }
        self.person.looks = self.now + LOOK + self.rng.below(LOOK);
        let anew = self.troubled() && !self.person.asked;
        if anew || (self.person.asked && !self.troubled()) {
            self.person.asked = anew;
            let wish = self.wish();
            for who in self.names.clone().iter() {
                self.send(who, 10, Mail::Event(Event::Repair(None)));
                self.send(who, 200, Mail::Event(Event::Repair(wish.clone())));
            }
        }
    }
}

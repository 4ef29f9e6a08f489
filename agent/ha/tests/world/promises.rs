//! What is promised (docs/failover.md), looked at in every moment: S3, S4, S8, S9 and S10. S1 and S2 are at the promotion.

use super::postgres::{Acknowledged, Postgres};
use super::{Member, World};
use pgconvoy_ha::Timing;
use pgconvoy_terms::{Epoch, MemberId, MemberName, Phase, Rule, Term};
use std::collections::{BTreeMap, BTreeSet};

/// How long it takes until a PostgreSQL is killed once its agent wants that, or its supervisor knows, in milliseconds.
const KILLING: u64 = 1_000;

/// When which epoch came to what.
#[derive(Default)]
pub(super) struct Promises {
    elected: BTreeMap<u32, u64>,
    promoted: BTreeMap<u32, u64>,
    /// Every rule that was ever written down.
    rules: Vec<Rule>,
    /// How many acknowledged entries later leaders lacked.
    lost: u64,
    /// For how long a leader that had been replaced let clients in, at most.
    longest_stale: u64,
}

impl Promises {
    pub(super) fn changed(&mut self, term: &Term, now: u64) {
        if term.phase == Phase::Elected {
            self.elected.entry(term.epoch.number).or_insert(now);
        }
        for rule in &term.rules {
            if !self.rules.contains(rule) {
                self.rules.push(rule.clone());
            }
        }
    }

    pub(super) fn promoted(&mut self, epoch: u32, now: u64) {
        self.promoted.insert(epoch, now);
    }

    /// When the first epoch after this one had a leader.
    fn deposed(&self, epoch: u32) -> Option<u64> {
        self.promoted.range(epoch + 1..).map(|(_, at)| *at).min()
    }
}

impl World {
    /// S3: what a client begins once a later epoch is elected, an earlier leader does not acknowledge. (Where the register goes
    /// back, an election may be undone: there it counts once its leader is promoted.)
    pub(super) fn check_begun(&self, acks: &[Acknowledged]) {
        if self.spec.acknowledgements == 0 || self.planned {
            return;
        }
        let later = if self.person.was_needed() { &self.promises.promoted } else { &self.promises.elected };
        for ack in acks {
            if let Some((epoch, _)) = later.range(ack.epoch + 1..).find(|(_, at)| **at < ack.begun) {
                self.fail(&format!(
                    "S3: entry {}, begun at {}, is acknowledged in epoch {} although {epoch} was elected before",
                    ack.id, ack.begun, ack.epoch
                ));
            }
        }
    }

    /// S4: without a quorum, what a new leader lacks is the end of what its predecessors acknowledged, and the term says that
    /// something may be missing.
    pub(super) fn check_loss(&mut self, epoch: &Epoch, id: &MemberId, postgres: &Postgres) {
        if self.spec.acknowledgements > 0 {
            return;
        }
        let entries = postgres.entries();
        let (mut lost, mut missing) = (0, BTreeSet::new());
        for (entry, of) in self.acknowledged.iter().filter(|(_, of)| **of < epoch.number) {
            match entries.contains(entry) {
                false => {
                    missing.insert(*of);
                    lost += 1;
                }
                true if missing.contains(of) => self.fail(&format!(
                    "S4: {id} has entry {entry} of epoch {of} and lacks one that was acknowledged before it: what is lost is no end"
                )),
                true => {}
            }
        }
        let said = self.register.1.as_ref().is_some_and(|t| t.lossy);
        if lost > 0 && !said {
            self.fail(&format!(
                "S4: {id} lacks {lost} acknowledged entries in epoch {}, and nothing says so",
                epoch.number
            ));
        }
        // Told once: what was lost is not looked for again.
        self.acknowledged.retain(|entry, _| entries.contains(entry));
        self.promises.lost += lost;
    }

    /// S8: a member gives its data up only while another has everything that was acknowledged.
    pub(super) fn check_copies(&self, who: &MemberName) {
        let acknowledged: BTreeSet<u64> = self.acknowledged.keys().copied().collect();
        let has_all = |m: &Member| m.postgres.has_data() && m.postgres.entries().is_superset(&acknowledged);
        if !self.members.iter().any(|(n, m)| n != who && has_all(m)) {
            self.fail(&format!("S8: {who} gives up its data, and nobody else has everything that was acknowledged"));
        }
    }

    /// S9: clients see nothing that may be taken back, and a leader that was replaced does not serve them for long.
    pub(super) fn check_reads(&mut self, who: &MemberName, m: &Member) {
        let Some(epoch) = m.postgres.lets_clients_in() else { return };
        if self.spec.acknowledgements > 0 && !m.postgres.is_settled() {
            self.fail(&format!("S9: {who} lets clients in before enough followers have what they see"));
        }
        let Some(since) = self.promises.deposed(epoch) else { return };
        let (timing, stale) = (Timing::default(), self.now - since);
        self.promises.longest_stale = self.promises.longest_stale.max(stale);
        // An agent that is there the whole time sees to it itself; without one, the supervisor does.
        let limit = if m.agent_since <= since && m.core.is_some() { timing.proof } else { timing.permission };
        if stale > limit + KILLING {
            self.fail(&format!("S9: {who}, leader of epoch {epoch}, serves {stale} ms after another was promoted"));
        }
    }

    /// S10: what clients are told is done by a rule that is written down.
    pub(super) fn check_rule(&self, who: &MemberName, postgres: &Postgres) {
        if let Some(rule) = postgres.acknowledges_by()
            && self.promises.rules.last() != Some(rule)
            && !self.promises.rules.contains(rule)
        {
            self.fail(&format!("S10: {who} acknowledges by a rule that nobody has written down: {rule:?}"));
        }
    }

    /// How many acknowledged entries later leaders lacked.
    pub(crate) fn lost(&self) -> u64 {
        self.promises.lost
    }

    /// For how long a leader that had been replaced served clients, at most.
    pub(crate) fn longest_stale(&self) -> u64 {
        self.promises.longest_stale
    }

    /// Whether anybody has said this lately.
    pub(crate) fn was_told(&self, words: &str) -> bool {
        self.trace.iter().any(|line| line.contains(words))
    }

    /// From now on nobody reaches the PostgreSQL of these members; agents talk as before.
    pub(crate) fn block_ports(&mut self, of: &[u32]) {
        self.ports_blocked = of.iter().map(|n| super::name(*n)).collect();
    }
}

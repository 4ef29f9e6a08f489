//! What clients were told, and whether it can be true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a client knows of one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Ok {
        /// In which epoch: the timeline of the server that did it.
        epoch: u32,
        /// Who did it: address and port, as the server itself says.
        by: String,
    },
    /// It cannot have happened: it was never sent, or refused.
    Fail,
    /// Nobody knows: the connection broke, no answer came in time, or PostgreSQL itself said that it did not wait.
    Unknown,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// No two writes have the same.
    pub id: u64,
    /// When it was begun, since the run began.
    pub begun: Duration,
    /// When the outcome was known.
    pub ended: Duration,
    /// The outcome.
    pub outcome: Outcome,
}

/// Somebody saw, at this time, that this epoch had been elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elected {
    /// Since the run began.
    pub seen: Duration,
    /// Its number.
    pub epoch: u32,
}

/// What was found. Of each kind of fault at most [`Verdict::SHOWN`] are kept, all are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes that cannot have happened.
    pub failed: usize,
    /// Writes of which nobody knows.
    pub unknown: usize,
    /// Acknowledged, and not there.
    pub lost: usize,
    /// There more than once.
    pub doubled: usize,
    /// There although they cannot have happened.
    pub risen: usize,
    /// Acknowledged by the leader of an earlier epoch though begun after a later one had been seen.
    pub late: usize,
    /// Epochs in which more than one server acknowledged.
    pub torn: usize,
    /// Sentences about them.
    pub faults: Vec<String>,
}

impl Verdict {
    /// So many sentences are enough.
    pub const SHOWN: usize = 20;

    /// Whether nothing was found.
    pub fn clean(&self) -> bool {
        self.lost + self.doubled + self.risen + self.late + self.torn == 0
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < Self::SHOWN {
            self.faults.push(text);
        }
    }

    /// Judges. `there`: the ids in the table, as often as they are there, none of a write that is missing in `writes` because
    /// it was not over yet.
    pub fn of(writes: &[Write], there: &[u64], elected: &[Elected]) -> Self {
        let mut verdict = Self::default();
        let mut count: BTreeMap<u64, usize> = BTreeMap::new();
        there.iter().for_each(|id| *count.entry(*id).or_default() += 1);
        for write in writes {
            let found = count.get(&write.id).copied().unwrap_or_default();
            match &write.outcome {
                Outcome::Ok { epoch, by } => {
                    verdict.acknowledged += 1;
                    if found == 0 {
                        verdict.lost += 1;
                        verdict.fault(format!(
                            "write {} was acknowledged in epoch {epoch} by {by} at {:.3?}, and is lost",
                            write.id, write.ended
                        ));
                    }
                }
                Outcome::Fail => {
                    verdict.failed += 1;
                    if found > 0 {
                        verdict.risen += 1;
                        verdict.fault(format!("write {} failed at {:.3?}, and is there", write.id, write.ended));
                    }
                }
                Outcome::Unknown => verdict.unknown += 1,
            }
            if found > 1 {
                verdict.doubled += 1;
                verdict.fault(format!("write {} is there {found} times", write.id));
            }
        }
        verdict.time(writes, elected);
        verdict.servers(writes);
        verdict
    }

    /// Real time: once somebody knew of an epoch, no write that is begun later is acknowledged in an earlier one. A client that
    /// got an answer in it knew of it, too.
    fn time(&mut self, writes: &[Write], elected: &[Elected]) {
        let mut known: Vec<(Duration, u32)> = elected.iter().map(|e| (e.seen, e.epoch)).collect();
        let mut acknowledged: Vec<(&Write, u32)> = vec![];
        for write in writes {
            if let Outcome::Ok { epoch, .. } = write.outcome {
                known.push((write.ended, epoch));
                acknowledged.push((write, epoch));
            }
        }
        known.sort_unstable();
        acknowledged.sort_by_key(|(w, _)| w.begun);
        let (mut next, mut latest, mut since) = (0, 0, Duration::ZERO);
        for (write, epoch) in acknowledged {
            while let Some((at, e)) = known.get(next).filter(|(at, _)| *at < write.begun) {
                if *e > latest {
                    (latest, since) = (*e, *at);
                }
                next += 1;
            }
            if epoch < latest {
                self.late += 1;
                let Write { id, begun, ended, .. } = write;
                self.fault(format!(
                    "write {id}, begun at {begun:.3?}, was acknowledged in epoch {epoch} at {ended:.3?}, but epoch {latest} \
                     was known since {since:.3?}"
                ));
            }
        }
    }

    /// At most one server acknowledges in an epoch.
    fn servers(&mut self, writes: &[Write]) {
        let mut servers: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
        for write in writes {
            if let Outcome::Ok { epoch, by } = &write.outcome {
                servers.entry(*epoch).or_default().insert(by);
            }
        }
        for (epoch, by) in servers.into_iter().filter(|(_, by)| by.len() > 1) {
            self.torn += 1;
            self.fault(format!("in epoch {epoch} all of these acknowledged: {by:?}"));
        }
    }
}

/// The longest time in which none of these writes was acknowledged, between two that were.
pub fn longest_gap<'a>(writes: impl Iterator<Item = &'a Write>) -> Option<Duration> {
    let mut times: Vec<Duration> =
        writes.filter(|w| matches!(w.outcome, Outcome::Ok { .. })).map(|w| w.ended).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(id: u64, begun: u64, ended: u64, outcome: Outcome) -> Write {
        Write { id, begun: Duration::from_millis(begun), ended: Duration::from_millis(ended), outcome }
    }

    fn ok(epoch: u32, by: &str) -> Outcome {
        Outcome::Ok { epoch, by: by.to_owned() }
    }

    #[test]
    fn nothing_is_found_where_nothing_is_wrong() {
        let writes = [
            write(1, 0, 10, ok(1, "a")),
            // Begun before the next epoch was known, answered after: that is no fault.
            write(2, 20, 90, ok(1, "a")),
            write(3, 30, 80, ok(2, "b")),
            write(4, 30, 85, Outcome::Unknown),
            write(5, 30, 86, Outcome::Unknown),
            write(6, 31, 40, Outcome::Fail),
        ];
        let elected = [Elected { seen: Duration::from_millis(25), epoch: 2 }];
        let verdict = Verdict::of(&writes, &[3, 1, 2, 5], &elected);
        assert!(verdict.clean(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.failed, verdict.unknown), (3, 1, 2));
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let one = [write(1, 0, 10, ok(1, "a"))];
        assert_eq!(Verdict::of(&one, &[], &[]).lost, 1);
        assert_eq!(Verdict::of(&one, &[1, 1], &[]).doubled, 1);
        assert_eq!(Verdict::of(&[write(1, 0, 10, Outcome::Unknown)], &[1, 1], &[]).doubled, 1);
        assert_eq!(Verdict::of(&[write(1, 0, 10, Outcome::Fail)], &[1], &[]).risen, 1);
        let elected = [Elected { seen: Duration::from_millis(20), epoch: 2 }];
        assert_eq!(Verdict::of(&[write(1, 21, 30, ok(1, "a"))], &[1], &elected).late, 1);
        // No record was read: an answer in the later epoch is enough to know of it.
        let two = [write(1, 0, 20, ok(2, "b")), write(2, 21, 30, ok(1, "a"))];
        let verdict = Verdict::of(&two, &[1, 2], &[]);
        assert_eq!((verdict.late, verdict.torn, verdict.faults.len()), (1, 0, 1), "{verdict:?}");
        let two = [write(1, 0, 20, ok(2, "b")), write(2, 0, 20, ok(2, "c"))];
        assert_eq!(Verdict::of(&two, &[1, 2], &[]).torn, 1);
    }

    #[test]
    fn a_gap_is_between_two_acknowledgements() {
        let writes = [
            write(1, 0, 10, ok(1, "a")),
            write(3, 100, 700, ok(2, "b")),
            write(2, 20, 90, Outcome::Unknown),
            write(4, 30, 800, ok(2, "b")),
        ];
        assert_eq!(longest_gap(writes.iter()), Some(Duration::from_millis(690)));
        assert_eq!(longest_gap(writes[..1].iter()), None);
    }
}

//! What goes wrong in a run, and all that could.

use std::fmt;
use std::str::FromStr;

/// What goes wrong. Writes and events are counted from 1, over the whole scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disturbance {
    /// Nothing.
    None,
    /// The operator dies before a write.
    CrashBefore(u32),
    /// It dies after a write, without having heard of it.
    CrashAfter(u32),
    /// The same, and the next one begins with what was there some writes earlier.
    Stale {
        /// The write.
        write: u32,
        /// How many writes earlier.
        behind: u32,
    },
    /// It dies after a write, and the next one, too, after so many more.
    CrashTwice {
        /// The write.
        write: u32,
        /// How many more.
        then: u32,
    },
    /// An event is lost, and the watch lists anew soon afterwards.
    Lost(u32),
    /// An event is lost, and the watch lists anew only when nothing happens any more.
    LostLong(u32),
    /// A write is refused once, with this code.
    Refused {
        /// The write.
        write: u32,
        /// The code.
        code: u16,
    },
    /// A write is done, and the operator is told that it was too late.
    TooLate(u32),
    /// The user goes on with the next step after a write, whatever has become of this one.
    Hurry(u32),
    /// The operator dies after a write, the user goes on with the next step, and the next operator begins with what was there
    /// before that.
    HurryStale(u32),
    /// Two operators, whose calls, events and the agents' deeds come in any order.
    Two(u64),
    /// One operator, and any order.
    Shuffled(u64),
}

impl Disturbance {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Disturbance::None => "undisturbed",
            Disturbance::CrashBefore(_) => "crash-before",
            Disturbance::CrashAfter(_) => "crash-after",
            Disturbance::Stale { .. } => "stale",
            Disturbance::CrashTwice { .. } => "crash-twice",
            Disturbance::Lost(_) => "lost",
            Disturbance::LostLong(_) => "lost-long",
            Disturbance::Refused { .. } => "refused",
            Disturbance::TooLate(_) => "too-late",
            Disturbance::Hurry(_) => "hurry",
            Disturbance::HurryStale(_) => "hurry-stale",
            Disturbance::Two(_) => "two",
            Disturbance::Shuffled(_) => "shuffled",
        }
    }

    /// Whether the user does not wait until a step has come to rest.
    pub(super) fn hurries(self) -> bool {
        matches!(self, Disturbance::Hurry(_) | Disturbance::HurryStale(_))
    }

    /// Whether the order of things is drawn from a seed.
    pub(super) fn seed(self) -> Option<u64> {
        match self {
            Disturbance::Two(seed) | Disturbance::Shuffled(seed) => Some(seed),
            _ => None,
        }
    }
}

/// A scenario and what goes wrong in it. Its text runs it again: `scale-up/stale:12:5`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: String,
    /// What goes wrong.
    pub disturbance: Disturbance,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scenario, self.disturbance.word())?;
        match self.disturbance {
            Disturbance::None => Ok(()),
            Disturbance::CrashBefore(n)
            | Disturbance::CrashAfter(n)
            | Disturbance::Lost(n)
            | Disturbance::LostLong(n)
            | Disturbance::TooLate(n)
            | Disturbance::Hurry(n)
            | Disturbance::HurryStale(n) => write!(f, ":{n}"),
            Disturbance::Stale { write: n, behind } => write!(f, ":{n}:{behind}"),
            Disturbance::CrashTwice { write: n, then } => write!(f, ":{n}:{then}"),
            Disturbance::Refused { write: n, code } => write!(f, ":{n}:{code}"),
            Disturbance::Two(seed) | Disturbance::Shuffled(seed) => write!(f, ":{seed}"),
        }
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no plan, like scale-up/crash-after:12");
        let (scenario, what) = text.split_once('/').ok_or_else(wrong)?;
        let mut parts = what.split(':');
        let word = parts.next().unwrap_or_default();
        let numbers: Vec<u32> = parts.map(|p| p.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
        let code = |n: u32| u16::try_from(n).map_err(|_| wrong());
        let disturbance = match (word, &numbers[..]) {
            ("undisturbed", []) => Disturbance::None,
            ("crash-before", [n]) => Disturbance::CrashBefore(*n),
            ("crash-after", [n]) => Disturbance::CrashAfter(*n),
            ("stale", [n, behind]) => Disturbance::Stale { write: *n, behind: *behind },
            ("crash-twice", [n, then]) => Disturbance::CrashTwice { write: *n, then: *then },
            ("lost", [n]) => Disturbance::Lost(*n),
            ("lost-long", [n]) => Disturbance::LostLong(*n),
            ("refused", [n, c]) => Disturbance::Refused { write: *n, code: code(*c)? },
            ("too-late", [n]) => Disturbance::TooLate(*n),
            ("hurry", [n]) => Disturbance::Hurry(*n),
            ("hurry-stale", [n]) => Disturbance::HurryStale(*n),
            ("two", [seed]) => Disturbance::Two((*seed).into()),
            ("shuffled", [seed]) => Disturbance::Shuffled((*seed).into()),
            _ => return Err(wrong()),
        };
        Ok(Plan { scenario: scenario.to_owned(), disturbance })
    }
}

/// How many orders are drawn for each scenario.
const SEEDS: u64 = 24;

/// Everything that can go wrong in a scenario of so many writes, told events and steps.
pub fn enumerate(scenario: &str, writes: u32, events: u32, steps: usize) -> Vec<Plan> {
    let mut all = vec![];
    for n in 1..=writes {
        all.push(Disturbance::CrashBefore(n));
        all.push(Disturbance::CrashAfter(n));
        all.extend([2, 8, 30].map(|behind| Disturbance::Stale { write: n, behind }));
        all.extend([3, 11].map(|then| Disturbance::CrashTwice { write: n, then }));
        all.extend([409, 500].map(|code| Disturbance::Refused { write: n, code }));
        all.push(Disturbance::TooLate(n));
        if steps > 1 {
            all.push(Disturbance::Hurry(n));
            all.push(Disturbance::HurryStale(n));
        }
    }
    for n in 1..=events {
        all.push(Disturbance::Lost(n));
        all.push(Disturbance::LostLong(n));
    }
    for seed in 0..SEEDS {
        all.push(Disturbance::Two(seed));
        all.push(Disturbance::Shuffled(seed));
    }
    all.into_iter().map(|disturbance| Plan { scenario: scenario.to_owned(), disturbance }).collect()
}

/// So many of these, or all: of each scenario and kind of disturbance by turns, always the same ones.
pub fn sample(all: &[Plan], wanted: usize) -> Vec<Plan> {
    let mut groups: Vec<(String, Vec<Plan>)> = vec![];
    for plan in all {
        let key = format!("{}/{}", plan.scenario, plan.disturbance.word());
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, group)) => group.push(plan.clone()),
            None => groups.push((key, vec![plan.clone()])),
        }
    }
    // Spread over the groups, and over each of them.
    let mut picked = vec![];
    for round in 0.. {
        let before = picked.len();
        for at in 0..groups.len() {
            let (_, group) = &groups[spread(at, groups.len())];
            if round >= group.len() || picked.len() >= wanted {
                continue;
            }
            picked.push(group[spread(round + 1, group.len())].clone());
        }
        if picked.len() == before {
            return picked;
        }
    }
    picked
}

/// The place of the `nth` of so many: a step that has no divisor in common with their number visits all of them, and one near
/// the golden section of it leaves no wide gaps meanwhile.
fn spread(nth: usize, of: usize) -> usize {
    let step = (of * 610 / 987).max(1);
    let step = (step..).find(|s| gcd(*s, of) == 1).unwrap_or(1);
    nth * step % of
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_its_text_and_a_sample_has_some_of_everything() {
        let all: Vec<Plan> = ["a", "b"].iter().flat_map(|s| enumerate(s, 10, 7, 2)).collect();
        for plan in &all {
            assert_eq!(plan.to_string().parse().as_ref(), Ok(plan));
        }
        assert!("a/b:1".parse::<Plan>().is_err());
        let some = sample(&all, 40);
        assert_eq!(some.len(), 40);
        let different: std::collections::HashSet<&Plan> = some.iter().collect();
        assert_eq!(different.len(), 40);
        let words: std::collections::HashSet<&str> = some.iter().map(|p| p.disturbance.word()).collect();
        assert_eq!(words.len(), 12);
        assert_eq!(sample(&all, usize::MAX).len(), all.len());
        let many: Vec<Plan> = (0..60).flat_map(|s| enumerate(&s.to_string(), 10, 7, 2)).collect();
        let scenarios: std::collections::HashSet<String> = sample(&many, 200).into_iter().map(|p| p.scenario).collect();
        assert_eq!(
            scenarios.len(),
            60,
            "fewer plans than scenarios and disturbances: some of every scenario all the same"
        );
    }
}

//! What is done to a set, drawn from a seed: the same seed gives the same plan.

use super::processes::Part;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

/// Who it is done to. Which member that is turns out when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The leader.
    Leader,
    /// The first of the followers, by name.
    First,
    /// The other one.
    Second,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// `kill -9`.
    Kill(Part),
    /// SIGSTOP, and SIGCONT in the end.
    Stop(Part),
    /// Cut off from the API server.
    CutApi,
    /// Cut off from the other members.
    CutMembers,
    /// Cut off from everything.
    CutAll,
    /// All of the pod is killed and comes back with an empty volume.
    Wipe,
    /// `kubectl delete pod`.
    Delete,
    /// `kubectl delete pod --force --grace-period=0`.
    ForceDelete,
    /// A switchover is asked for.
    Switchover,
}

/// How the API server is meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Api {
    /// It answers.
    Up,
    /// It answers nobody but the test.
    Down,
}

/// One step: everything in it happens at once, stays for a while, and is undone as far as it can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done to whom; one or two.
    pub blows: Vec<(Target, Blow)>,
    /// How the API server is.
    pub api: Api,
    /// For how long, in milliseconds, at least.
    pub hold: u64,
}

/// What a step must do to the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    /// A later one becomes active, before anything is undone.
    Moves,
    /// It stays.
    Stays,
    /// Either is right.
    Either,
}

impl Step {
    /// What it must do to the epoch.
    pub fn epoch(&self) -> Epoch {
        match (&self.blows[..], self.api) {
            ([], _) => Epoch::Stays,
            ([(target, blow)], Api::Up) => blow.epoch(*target),
            // Without the API server nobody can open one, and who lost the least may have come back first.
            ([(target, blow)], Api::Down) if blow.epoch(*target) == Epoch::Stays => Epoch::Stays,
            _ => Epoch::Either,
        }
    }
}

impl Blow {
    fn epoch(self, target: Target) -> Epoch {
        match (target, self) {
            (Target::First | Target::Second, Blow::Switchover) => Epoch::Moves,
            (Target::First | Target::Second, _) => Epoch::Stays,
            // PostgreSQL goes on under its permission, the followers vouch for it.
            (Target::Leader, Blow::Kill(Part::Agent) | Blow::Stop(Part::Agent) | Blow::CutApi) => Epoch::Stays,
            (Target::Leader, _) => Epoch::Moves,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let blows: Vec<String> = self.blows.iter().map(|(target, blow)| format!("{blow:?} of {target:?}")).collect();
        let api = if self.api == Api::Down { vec!["API down".to_owned()] } else { vec![] };
        write!(f, "{} ({} ms)", [blows, api].concat().join(" + "), self.hold)
    }
}

/// Faults of a leader that cost an epoch, the quick ones more than once: they are most of a plan.
const LEADER: [Blow; 14] = [
    Blow::Kill(Part::Postmaster),
    Blow::Kill(Part::Postmaster),
    Blow::Kill(Part::Postmaster),
    Blow::Kill(Part::Supervisor),
    Blow::Kill(Part::Supervisor),
    Blow::Kill(Part::Pod),
    Blow::Stop(Part::Server),
    Blow::Stop(Part::Database),
    Blow::Stop(Part::Pod),
    Blow::CutMembers,
    Blow::CutAll,
    Blow::ForceDelete,
    Blow::Delete,
    Blow::Wipe,
];
/// Faults that cost none.
const HARMLESS: [(Target, Blow); 6] = [
    (Target::Leader, Blow::Kill(Part::Agent)),
    (Target::Leader, Blow::Stop(Part::Agent)),
    (Target::Leader, Blow::CutApi),
    (Target::First, Blow::CutAll),
    (Target::First, Blow::Kill(Part::Pod)),
    (Target::Second, Blow::Wipe),
];

/// Draws a plan in which so many steps cost an epoch, at least if those do of which nobody knows. Most do.
pub fn draw(seed: u64, failovers: usize) -> Vec<Step> {
    let rng = &mut StdRng::seed_from_u64(seed);
    // Everything once, then whatever comes.
    let mut steps: Vec<Step> = vec![];
    let mut must: Vec<Step> = LEADER.iter().map(|b| step(rng, vec![(Target::Leader, *b)], Api::Up)).collect();
    must.extend(HARMLESS.iter().map(|b| step(rng, vec![*b], Api::Up)));
    must.push(step(rng, vec![(Target::First, Blow::Switchover)], Api::Up));
    must.push(step(rng, vec![], Api::Down));
    must.shuffle(rng);
    let moves = |steps: &[Step]| steps.iter().filter(|s| s.epoch() != Epoch::Stays).count();
    while moves(&steps) < failovers {
        match must.pop() {
            Some(one) => steps.push(one),
            None => steps.push(any(rng)),
        }
    }
    steps
}

fn step(rng: &mut StdRng, blows: Vec<(Target, Blow)>, api: Api) -> Step {
    Step { blows, api, hold: rng.random_range(200..4_000) }
}

fn any(rng: &mut StdRng) -> Step {
    let leader = (Target::Leader, *LEADER.choose(rng).unwrap_or(&Blow::CutAll));
    let harmless = *HARMLESS.choose(rng).unwrap_or(&(Target::First, Blow::CutAll));
    let target = *[Target::First, Target::Second].choose(rng).unwrap_or(&Target::First);
    let follower = (target, *LEADER.choose(rng).unwrap_or(&Blow::CutAll));
    match rng.random_range(0..20) {
        0..=10 => step(rng, vec![leader], Api::Up),
        11 => step(rng, vec![(Target::First, Blow::Switchover)], Api::Up),
        12 => step(rng, vec![harmless], Api::Up),
        13 => step(rng, vec![harmless], Api::Down),
        14 => step(rng, vec![leader], Api::Down),
        // Two disks at once may be more than the rule bears: that is a person's case.
        15..=17 if (leader.1, follower.1) != (Blow::Wipe, Blow::Wipe) => step(rng, vec![leader, follower], Api::Up),
        18 if (leader.1, harmless.1) != (Blow::Wipe, Blow::Wipe) => step(rng, vec![leader, harmless], Api::Up),
        _ => step(rng, vec![follower], Api::Up),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        assert_eq!(draw(7, 60), draw(7, 60));
        assert_ne!(draw(7, 60), draw(8, 60));
    }

    #[test]
    fn a_plan_has_everything_and_enough_failovers() {
        let plan = draw(1, 60);
        assert!(plan.iter().filter(|s| s.epoch() != Epoch::Stays).count() >= 60);
        for blow in LEADER {
            assert!(plan.iter().any(|s| s.blows == [(Target::Leader, blow)]), "{blow:?}");
        }
        assert!(plan.iter().any(|s| s.blows.len() == 2) && plan.iter().any(|s| s.api == Api::Down));
        // No two volumes at once.
        let wipes = |s: &Step| s.blows.iter().filter(|(_, b)| *b == Blow::Wipe).count();
        assert!(plan.iter().all(|s| wipes(s) < 2));
    }

    #[test]
    fn what_a_step_does_to_the_epoch() {
        let step = |blows: &[(Target, Blow)], api| Step { blows: blows.to_vec(), api, hold: 0 };
        let (kill, cut) = ((Target::Leader, Blow::Kill(Part::Postmaster)), (Target::Leader, Blow::CutApi));
        assert_eq!(step(&[kill], Api::Up).epoch(), Epoch::Moves);
        assert_eq!(step(&[kill], Api::Down).epoch(), Epoch::Either);
        assert_eq!(step(&[cut], Api::Up).epoch(), Epoch::Stays);
        assert_eq!(step(&[cut, kill], Api::Up).epoch(), Epoch::Either);
        assert_eq!(step(&[], Api::Down).epoch(), Epoch::Stays);
    }
}

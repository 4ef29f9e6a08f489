use super::*;
use std::collections::VecDeque;

/// An API server with one Lease, and candidates that act on it in virtual time.
struct World {
    now: Instant,
    lease: Option<Seen>,
    version: u64,
    writes: Vec<u64>,
    candidates: Vec<Candidate>,
}

struct Candidate {
    election: Election,
    based_on: u64,
    wanted: bool,
    /// What happens to its next calls; empty = they work.
    faults: VecDeque<Fault>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// The call never arrives.
    Lost,
    /// It is done, but the answer never arrives.
    AnswerLost,
}

impl World {
    fn new(names: &[&str]) -> Self {
        let now = Instant(1_000_000);
        let candidate = |n: &&str| Candidate {
            election: Election::new((*n).to_owned(), now),
            based_on: 0,
            wanted: false,
            faults: VecDeque::new(),
        };
        let empty = Seen { holder: None, marks: (None, None, None), seconds: None };
        Self { now, lease: Some(empty), version: 1, writes: vec![], candidates: names.iter().map(candidate).collect() }
    }

    fn holders(&self) -> Vec<usize> {
        (0..self.candidates.len()).filter(|i| self.candidates[*i].election.held_until(self.now).is_some()).collect()
    }

    /// Lets time pass in steps of 100 ms; `check` runs after each.
    fn run(&mut self, millis: u64, mut check: impl FnMut(&World)) {
        let end = self.now.0 + millis;
        while self.now.0 < end {
            self.now.0 += 100;
            for i in 0..self.candidates.len() {
                self.act(i);
            }
            assert!(self.holders().len() <= 1, "two hold it at {:?}: {:?}", self.now, self.holders());
            check(self);
        }
    }

    fn act(&mut self, i: usize) {
        let now = self.now;
        let c = &mut self.candidates[i];
        let deed = c.election.next(now, c.wanted);
        let fault = if matches!(deed, Deed::Wait(_)) { None } else { c.faults.pop_front() };
        match deed {
            Deed::Wait(then) => assert!(then > now, "waiting for the past is a busy loop"),
            Deed::Read if fault.is_some() => c.election.failed(now),
            Deed::Read => match &self.lease {
                Some(seen) => {
                    c.based_on = self.version;
                    c.election.saw(now, seen.clone());
                }
                None => c.election.missing(now),
            },
            Deed::Write(write) => {
                let conflict = c.based_on != self.version || self.lease.is_none();
                if conflict || fault == Some(Fault::Lost) {
                    c.election.failed(now);
                    return;
                }
                let old = self.lease.clone().unwrap();
                let transitions = old.marks.2.unwrap_or(0);
                let micros = i64::try_from(now.0).unwrap() * 1000;
                let seen = match write {
                    Write::Renew => Seen { marks: (Some(micros), old.marks.1, old.marks.2), ..old },
                    Write::Take => Seen {
                        holder: Some(c.election.me().to_owned()),
                        marks: (Some(micros), Some(micros), Some(transitions + 1)),
                        seconds: Some(DURATION_SECONDS),
                    },
                    Write::Release => Seen { holder: None, ..old },
                };
                self.version += 1;
                self.lease = Some(seen.clone());
                self.writes.push(now.0);
                if fault == Some(Fault::AnswerLost) {
                    c.election.failed(now);
                } else {
                    c.based_on = self.version;
                    c.election.saw(now, seen);
                    c.election.wrote(now, write);
                }
            }
        }
    }

    /// Runs until `i` holds it, and says how long that took.
    fn until_held(&mut self, i: usize, limit: u64) -> u64 {
        let start = self.now;
        while !self.holders().contains(&i) {
            assert!(self.now.since(start) < limit, "candidate {i} does not hold it after {limit} ms");
            self.run(100, |_| {});
        }
        self.now.since(start)
    }
}

#[test]
fn a_free_lease_is_taken_at_once_and_kept() {
    let mut w = World::new(&["a", "b"]);
    w.run(1_000, |_| {});
    w.candidates[0].wanted = true;
    assert!(w.until_held(0, 1_000) <= 100);
    w.candidates[1].wanted = true;
    w.run(600_000, |w| assert_eq!(w.holders(), [0]));
    let rate = w.writes.len() as f64 / 600.0;
    assert!(rate < 0.3, "{rate} writes per second");
}

#[test]
fn nobody_writes_who_does_not_want_it() {
    let mut w = World::new(&["a", "b", "c"]);
    w.run(60_000, |w| assert!(w.holders().is_empty()));
    assert!(w.writes.is_empty());
}

#[test]
fn a_silent_holder_is_waited_for_by_ones_own_clock() {
    let mut w = World::new(&["a", "b"]);
    w.candidates[0].wanted = true;
    w.until_held(0, 1_000);
    w.run(30_000, |_| {});
    // The holder is cut off: nothing of it arrives from now on, but it still believes for a while.
    w.candidates[0].faults = std::iter::repeat_n(Fault::Lost, 100_000).collect();
    w.candidates[1].wanted = true;
    let took = w.until_held(1, 60_000);
    let (shortest, longest) = (10_000, 15_000 + 3_000 + 200);
    assert!((shortest..=longest).contains(&took), "{took} ms");
}

#[test]
fn a_holder_that_is_gone_for_good_is_not_waited_for() {
    let mut w = World::new(&["a", "b"]);
    w.candidates[0].wanted = true;
    w.until_held(0, 1_000);
    w.run(30_000, |_| {});
    w.candidates[0].wanted = false;
    w.candidates[0].faults = std::iter::repeat_n(Fault::Lost, 100_000).collect();
    w.candidates[1].wanted = true;
    w.run(2_000, |w| assert!(w.holders().is_empty()));
    w.candidates[1].election.gone("a");
    assert!(w.until_held(1, 60_000) <= 1_100);
    // It is that one who is gone, and nobody else.
    w.candidates[0].faults.clear();
    w.candidates[1].wanted = false;
    w.candidates[0].wanted = true;
    w.until_held(0, 5_000);
    w.candidates[1].election.gone("c");
    w.candidates[1].wanted = true;
    w.run(30_000, |w| assert_eq!(w.holders(), [0]));
}

#[test]
fn a_newcomer_waits_the_whole_duration_whatever_the_wall_clock_in_it_says() {
    let mut w = World::new(&["b"]);
    // A renewal of the year 1970, as a holder with a broken clock would write it.
    w.lease = Some(Seen { holder: Some("a".into()), marks: (Some(1), Some(1), Some(7)), seconds: Some(15) });
    w.candidates[0].wanted = true;
    let took = w.until_held(0, 60_000);
    assert!((15_000..16_500).contains(&took), "{took} ms");
}

#[test]
fn a_longer_duration_of_the_holder_is_honoured_within_bounds() {
    for (recorded, waited) in [(60, 60_000), (1_000_000, 300_000), (-5, 1_000), (0, 1_000)] {
        let mut w = World::new(&["b"]);
        w.lease = Some(Seen { holder: Some("a".into()), marks: (None, None, None), seconds: Some(recorded) });
        w.candidates[0].wanted = true;
        let took = w.until_held(0, 400_000);
        assert!((waited..waited + 1_500).contains(&took), "{recorded} s: {took} ms");
    }
}

#[test]
fn given_up_it_goes_to_the_next_who_wants_it() {
    let mut w = World::new(&["a", "b"]);
    w.candidates[0].wanted = true;
    w.until_held(0, 1_000);
    w.candidates[1].wanted = true;
    w.run(20_000, |_| {});
    w.candidates[0].wanted = false;
    assert!(w.until_held(1, 10_000) <= 1_200, "one look");
    assert_eq!(w.holders(), [1]);
}

#[test]
fn no_longer_wanted_is_no_longer_held_even_before_it_is_written() {
    let mut w = World::new(&["a"]);
    w.candidates[0].wanted = true;
    w.until_held(0, 1_000);
    let c = &mut w.candidates[0];
    let deed = c.election.next(w.now, false);
    assert_eq!(deed, Deed::Write(Write::Release));
    assert_eq!(c.election.held_until(w.now), None);
}

#[test]
fn ones_own_name_from_before_a_restart_counts_after_a_renewal() {
    let mut w = World::new(&["a", "b"]);
    w.candidates[0].wanted = true;
    w.until_held(0, 1_000);
    w.run(7_000, |_| {});
    w.candidates[0].election = Election::new("a".into(), w.now);
    assert!(w.holders().is_empty(), "a new process knows nothing");
    assert!(w.until_held(0, 1_000) <= 300);
    // Not wanted after the restart: it is given up.
    w.candidates[0].election = Election::new("a".into(), w.now);
    w.candidates[0].wanted = false;
    w.candidates[1].wanted = true;
    assert!(w.until_held(1, 10_000) <= 1_500);
}

#[test]
fn an_answer_that_got_lost_is_read_back() {
    let mut w = World::new(&["a"]);
    w.run(500, |_| {});
    w.candidates[0].wanted = true;
    w.candidates[0].faults = [Fault::AnswerLost].into();
    assert!(w.until_held(0, 2_000) <= 500);
    assert_eq!(w.lease.as_ref().unwrap().marks.2, Some(1), "taken once");
}

#[test]
fn a_cut_off_holder_stops_believing_before_the_others_may_take_it() {
    let mut w = World::new(&["a", "b"]);
    w.candidates[0].wanted = true;
    w.until_held(0, 1_000);
    w.candidates[1].wanted = true;
    w.candidates[0].faults =
        std::iter::repeat_n(Fault::AnswerLost, 1).chain(std::iter::repeat_n(Fault::Lost, 100_000)).collect();
    let mut believed = w.now;
    let mut taken = None;
    w.run(60_000, |w| match w.holders().as_slice() {
        [0] => believed = w.now,
        [1] => {
            taken.get_or_insert(w.now);
        }
        _ => {}
    });
    let gap = taken.unwrap().since(believed);
    assert!(gap >= 2_500, "only {gap} ms between them");
}

#[test]
fn a_deleted_lease_is_lost_and_taken_again_when_it_is_back() {
    let mut w = World::new(&["a", "b"]);
    w.candidates[0].wanted = true;
    w.until_held(0, 1_000);
    w.lease = None;
    w.run(20_000, |_| {});
    assert!(w.holders().is_empty());
    w.lease = Some(Seen { holder: None, marks: (None, None, None), seconds: None });
    w.version += 1;
    assert!(w.until_held(0, 5_000) <= 1_500);
}

#[test]
fn wanting_and_not_wanting_in_turn_does_not_flood_the_server() {
    let mut w = World::new(&["a"]);
    for i in 0..3_000 {
        w.candidates[0].wanted = i % 2 == 0;
        w.run(100, |_| {});
    }
    assert!(w.writes.len() < 100, "{} writes in 300 s", w.writes.len());
}

#[test]
fn whatever_gets_lost_at_most_one_holds_it() {
    // A linear congruential generator is random enough to mix faults and wishes; the seed is in the message.
    for seed in 0..200_u64 {
        let mut x = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut random = move |n: u64| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 33) % n
        };
        let mut w = World::new(&["a", "b", "c"]);
        for _ in 0..200 {
            for i in 0..3 {
                w.candidates[i].wanted = random(4) > 0;
                for _ in 0..random(8) {
                    let fault = if random(2) == 0 { Fault::Lost } else { Fault::AnswerLost };
                    w.candidates[i].faults.push_back(fault);
                }
            }
            w.run(500 + 100 * random(40), |_| {});
        }
        for c in &mut w.candidates {
            (c.wanted, c.faults) = (true, VecDeque::new());
        }
        w.run(40_000, |_| {});
        assert_eq!(w.holders().len(), 1, "seed {seed}");
    }
}

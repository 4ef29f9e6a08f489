//! Seeded random schedules on the same model, for bounds that cannot be enumerated.
use crate::quorum::{Act, Mutant, Opts};
use stateright::Model;
use std::time::{Duration, Instant};

fn next(r: &mut u64) -> u64 {
    *r ^= *r << 13;
    *r ^= *r >> 7;
    *r ^= *r << 17;
    *r
}

/// One schedule. Returns (steps, violated property).
fn schedule(o: &Opts, seed: u64, trace: Option<&mut Vec<Act>>) -> (u32, Option<&'static str>) {
    let mut r = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut s = o.init_states()[0];
    let mut acts = vec![];
    let mut log = trace;
    let props = o.properties();
    // swarm: a random subset of "slow" nodes and a random appetite for new epochs per schedule
    let weight_epoch = 1 + next(&mut r) % 40;
    let slow = next(&mut r) as u8 & next(&mut r) as u8;
    for step in 0..400 {
        acts.clear();
        o.actions(&s, &mut acts);
        acts.retain(|a| *a != Act::NewEpoch || next(&mut r).is_multiple_of(weight_epoch));
        if acts.is_empty() {
            return (step, None);
        }
        let mut a = acts[(next(&mut r) % acts.len() as u64) as usize];
        if let Act::Stream(i) | Act::Pledge(i) | Act::Promote(i) = a
            && slow >> i & 1 == 1
            && !next(&mut r).is_multiple_of(8)
        {
            a = acts[(next(&mut r) % acts.len() as u64) as usize];
        }
        let Some(n) = o.next_state(&s, a) else { continue };
        s = n;
        if let Some(l) = log.as_deref_mut() {
            l.push(a)
        }
        for p in &props {
            if p.name.starts_with("goal") {
                continue;
            }
            if !(p.condition)(o, &s) {
                return (step + 1, Some(p.name));
            }
        }
    }
    (400, None)
}

/// Replays one seed and prints its actions.
pub(crate) fn replay(o: Opts, seed: u64) {
    let mut t = vec![];
    let (n, v) = schedule(&o, seed, Some(&mut t));
    println!("seed {seed}: {n} steps, {v:?}");
    let mut s = o.init_states()[0];
    for (i, a) in t.iter().enumerate() {
        s = o.next_state(&s, *a).unwrap_or(s);
        let nodes: Vec<String> = (0..o.n)
            .map(|i| {
                let n = &s.nodes[i];
                format!(
                    "{i}:p{} led{} inc{} {:?} log{:x?} ssn={:b}/{} inc{:b}",
                    n.promised,
                    n.led,
                    n.inc,
                    n.role,
                    &n.log[..n.len as usize],
                    n.mask,
                    n.w,
                    n.incs
                )
            })
            .collect();
        println!("{:2}. {a:?}", i + 1);
        if i + 6 >= t.len() {
            println!(
                "     term e{} {:?} l{} cfgs {:?}\n     acked {:b} reports {:?}\n     {}",
                s.term.epoch,
                s.term.phase,
                s.term.leader,
                &s.term.cfgs[..s.term.n as usize],
                s.acked,
                &s.reports[..o.n],
                nodes.join("\n     ")
            )
        }
    }
}

pub(crate) fn run(o: Opts, seconds: u64) {
    let one = |o: Opts, label: String| {
        let t = Instant::now();
        let (mut seeds, mut steps) = (0u64, 0u64);
        loop {
            seeds += 1;
            let (n, v) = schedule(&o, seeds, None);
            steps += n as u64;
            if let Some(v) = v {
                println!("{label}: VIOLATED '{v}' at schedule {seeds} (step {n}), {:.2}s", t.elapsed().as_secs_f64());
                return;
            }
            if t.elapsed() > Duration::from_secs(seconds) {
                break;
            }
        }
        println!(
            "{label}: {seeds} schedules, {steps} steps, {:.0} steps/s on one thread, no violation",
            steps as f64 / t.elapsed().as_secs_f64()
        );
    };
    one(
        o,
        format!(
            "walk n={} w={} e={} v={} b={} d={} r={} misroute={}",
            o.n, o.w, o.epochs, o.writes, o.bounces, o.losses, o.reconfs, o.misroute
        ),
    );
    for m in Mutant::ALL {
        one(Opts { mutant: m, ..o }, format!("  mutant {m:?}"));
    }
}

/// Uniform random schedules of any model; `rare` actions are thinned out by a factor drawn per schedule.
pub(crate) fn any<M>(name: &str, m: M, rare: impl Fn(&M::Action) -> bool, seconds: u64)
where
    M: Model,
    M::State: Clone,
    M::Action: Copy + std::fmt::Debug,
{
    let t = Instant::now();
    let props = m.properties();
    let (mut seed, mut steps, mut goals) = (0u64, 0u64, 0u64);
    while t.elapsed() < Duration::from_secs(seconds) {
        seed += 1;
        let mut r = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let thin = 1 + next(&mut r) % 40;
        let mut s = m.init_states().remove(0);
        let (mut acts, mut trace, mut goal) = (vec![], vec![], false);
        for _ in 0..200 {
            acts.clear();
            m.actions(&s, &mut acts);
            acts.retain(|a| !rare(a) || next(&mut r).is_multiple_of(thin));
            if acts.is_empty() {
                break;
            }
            let a = acts[(next(&mut r) % acts.len() as u64) as usize];
            let Some(n) = m.next_state(&s, a) else { continue };
            s = n;
            steps += 1;
            trace.push(a);
            for p in &props {
                let holds = (p.condition)(&m, &s);
                if p.name.starts_with("goal") {
                    goal |= holds
                } else if !holds {
                    println!("{name}: VIOLATED '{}' at schedule {seed}: {trace:?}", p.name);
                    return;
                }
            }
        }
        goals += goal as u64;
    }
    println!("{name}: {seed} schedules ({goals} reach the goal), {steps} steps, no violation");
}

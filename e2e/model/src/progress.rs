//! AG EF check ("never stuck"): from every reachable state that is not exempt, some continuation reaches the goal.
//! Catches protocols that are safe because stuck. Exempt: states whose bounds leave no epoch (or repair) to try.
use stateright::Model;
use std::collections::HashMap;
use std::hash::Hash;

/// What a search for states from which the goal cannot be reached any more came to.
pub(crate) struct Progress {
    pub(crate) states: usize,
    /// One such state that is not exempt, and how many there are.
    pub(crate) stuck: Option<(String, usize)>,
    /// States that are stuck because the bounds are spent.
    pub(crate) spent: usize,
}

pub(crate) fn search<M>(o: M, goal: impl Fn(&M::State) -> bool, exempt: impl Fn(&M::State) -> bool) -> Progress
where
    M: Model,
    M::State: Copy + Eq + Hash + std::fmt::Debug,
    M::Action: Copy,
{
    let mut ids: HashMap<M::State, u32> = HashMap::new();
    let mut states: Vec<M::State> = o.init_states();
    let mut back: Vec<Vec<u32>> = vec![vec![]];
    ids.insert(states[0], 0);
    let mut at = 0;
    let mut acts = vec![];
    while at < states.len() {
        let s = states[at];
        acts.clear();
        o.actions(&s, &mut acts);
        for a in &acts {
            let Some(n) = o.next_state(&s, *a) else { continue };
            let id = *ids.entry(n).or_insert_with(|| {
                states.push(n);
                back.push(vec![]);
                states.len() as u32 - 1
            });
            back[id as usize].push(at as u32);
        }
        at += 1;
    }
    let mut good = vec![false; states.len()];
    let mut todo: Vec<u32> = (0..states.len() as u32).filter(|i| goal(&states[*i as usize])).collect();
    for i in &todo {
        good[*i as usize] = true
    }
    while let Some(i) = todo.pop() {
        for &b in &back[i as usize] {
            if !good[b as usize] {
                good[b as usize] = true;
                todo.push(b)
            }
        }
    }
    let stuck: Vec<_> = (0..states.len()).filter(|i| !good[*i] && !exempt(&states[*i])).collect();
    let spent = (0..states.len()).filter(|i| !good[*i] && exempt(&states[*i])).count();
    Progress { states: states.len(), stuck: stuck.first().map(|i| (format!("{:?}", states[*i]), stuck.len())), spent }
}

/// Searches, and prints what came of it.
pub(crate) fn print<M>(name: &str, o: M, goal: impl Fn(&M::State) -> bool, exempt: impl Fn(&M::State) -> bool)
where
    M: Model,
    M::State: Copy + Eq + Hash + std::fmt::Debug,
    M::Action: Copy,
{
    let started = std::time::Instant::now();
    let p = search(o, goal, exempt);
    println!(
        "progress {name}: {} states, {:.1}s; goal always reachable while the bounds leave something to try: {} ({} exceptions); stuck with bounds spent: {}",
        p.states,
        started.elapsed().as_secs_f64(),
        p.stuck.is_none(),
        p.stuck.as_ref().map_or(0, |s| s.1),
        p.spent
    );
    if let Some((example, _)) = p.stuck {
        println!("  example: {example}");
    }
}

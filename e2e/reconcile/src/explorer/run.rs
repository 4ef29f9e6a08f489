//! Runs one plan.

use super::cluster::{Counted, Ground};
use super::line::Fate;
use super::operator::Operator;
use super::plan::{Disturbance, Plan};
use super::scenarios::{Scenario, Step};
use super::world::{self, World};
use super::{cluster, guard};
use crate::faked::Faked;
use pgconvoy_e2e_store::Deed;
use pgconvoy_embedded::api::{Api, DeleteOptions, PatchKind, WriteOptions, text};
use pgconvoy_embedded::http::Server;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// After so many turns it is not coming to rest any more.
const TURNS: u32 = 4_000;
/// So many times whoever failed tries again, and time passes.
const PASSES: u32 = 40;
/// What was done last, for a report.
const REMEMBERED: usize = 25;
/// The set that scenarios are about.
const TARGET: (&str, &str) = ("default", "s");

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What there was when it rested, after each step.
    pub worlds: Vec<World>,
    /// How many writes the operators tried.
    pub writes: u32,
    /// How many events they were told.
    pub events: u32,
}

/// Where runs begin: copied for each.
pub struct Grounds {
    grounds: Mutex<BTreeMap<Ground, Api>>,
}

impl Grounds {
    /// Makes them, by running the operator.
    ///
    /// # Errors
    /// When it does not come to rest.
    pub async fn new(crds: &Path) -> Result<Self, String> {
        let server = cluster::empty(crds).map_err(|e| format!("{e:#}"))?;
        let made = |name: &str, members| {
            cluster::put(&server, "default", &cluster::set(name, members)).map_err(|e| e.to_string())
        };
        let mut grounds = BTreeMap::new();
        // Somebody else's set, with which nothing may happen.
        made("other", 1)?;
        settle_undisturbed(&server, "other").await?;
        grounds.insert(Ground::Empty, server.with(|a| a.copy(Box::new(Counted(1_000)))));
        made("s", 3)?;
        settle_undisturbed(&server, "s").await?;
        grounds.insert(Ground::Running, server.with(|a| a.copy(Box::new(Counted(2_000)))));
        Ok(Self { grounds: Mutex::new(grounds) })
    }

    fn server(&self, ground: Ground) -> Option<Server> {
        let grounds = self.grounds.lock().unwrap_or_else(PoisonError::into_inner);
        let api = grounds.get(&ground)?.copy(Box::new(Counted(10_000)));
        Some(Server::new(api, std::path::PathBuf::new()))
    }
}

async fn settle_undisturbed(server: &Server, set: &str) -> Result<(), String> {
    let target = ("default".to_owned(), set.to_owned());
    let mut run = Run::new(server.clone(), target, Disturbance::None, false)?;
    run.settle(false).await
}

/// Runs a plan. `undisturbed`: what it must come to, if that is known.
///
/// # Errors
/// What it did that it must not.
pub async fn run(
    grounds: &Grounds,
    scenario: &Scenario,
    plan: &Plan,
    undisturbed: Option<&Outcome>,
) -> Result<Outcome, String> {
    let server = grounds.server(scenario.ground).ok_or("no such ground")?;
    let target = (TARGET.0.to_owned(), TARGET.1.to_owned());
    let begun = server.with(|a| a.revision());
    let before = server.with(|a| world::of(a, &target));
    let mut run = Run::new(server.clone(), target.clone(), plan.disturbance, scenario.may_lose_volumes)?;
    if scenario.ground == Ground::Running {
        while run.turn().await.map_err(|e| format!("before anything happens: {e}"))? {}
        if server.with(|a| a.revision()) != begun {
            return Err(format!("a new operator changes what is as it should be: {}", run.last_deeds()));
        }
        (run.writes, run.events) = (0, 0);
    }
    run.counting = true;
    let mut outcome = Outcome::default();
    for (at, step) in scenario.steps.iter().enumerate() {
        run.step(step).await?;
        let hurries = at + 1 < scenario.steps.len() && plan.disturbance.hurries();
        run.settle(hurries).await.map_err(|e| format!("step {}: {e}", at + 1))?;
        let world = server.with(|a| world::of(a, &target));
        let wanted = undisturbed.and_then(|u| u.worlds.get(at));
        if let Some(wanted) = wanted.filter(|_| !hurries)
            && let Some(difference) = compare(plan.disturbance, wanted, &world)
        {
            return Err(format!("step {} comes to something else: {difference}; last: {}", at + 1, run.last_deeds()));
        }
        outcome.worlds.push(world);
    }
    (outcome.writes, outcome.events) = (run.writes, run.events);
    run.counting = false;
    if scenario.there_and_back && undisturbed.is_none() {
        came_back(scenario, &before, outcome.worlds.last())?;
    }
    untouched(&server, begun, scenario.may_lose_volumes)?;
    run.rests().await?;
    Ok(outcome)
}

/// Where what there is differs from what there should be.
fn compare(disturbance: Disturbance, wanted: &World, world: &World) -> Option<String> {
    if disturbance.hurries() {
        return world::difference(&world::without_history(wanted), &world::without_history(world));
    }
    world::difference(wanted, world)
}

/// Whether the way back led to where it began.
fn came_back(scenario: &Scenario, before: &World, after: Option<&World>) -> Result<(), String> {
    // A volume does not shrink, and its set says so. Volumes of members that left wait for them.
    let grown = scenario.name.ends_with("-size");
    let difference = after.and_then(|after| world::difference(before, after)).filter(|_| !grown);
    let stays = |d: &String| {
        d.split("; ").all(|d| d.starts_with("persistentvolumeclaims") && d.ends_with("should not be there"))
    };
    difference.filter(|d| !stays(d)).map_or(Ok(()), |d| Err(format!("there and back is not where it began: {d}")))
}

/// Nothing of anybody else was touched, and no volume is gone.
fn untouched(server: &Server, since: u64, may_lose_volumes: bool) -> Result<(), String> {
    server.with(|api| {
        let changes = api.changes(since).map_err(|r| r.message)?;
        for change in changes {
            let key = &change.key;
            let foreign = key.name.starts_with("s-x") || key.name == "other" || key.name.starts_with("other-");
            if foreign && key.resource != "events" {
                return Err(format!("{} {} was written, which belongs to somebody else", key.resource, key.name));
            }
            if key.resource == "persistentvolumeclaims" && change.deed == Deed::Deleted && !may_lose_volumes {
                return Err(format!("the volume {} is gone", key.name));
            }
        }
        Ok(())
    })
}

struct Run {
    server: Server,
    target: (String, String),
    faked: Faked,
    disturbance: Disturbance,
    may_lose_volumes: bool,
    agent_image: &'static str,
    operators: Vec<Operator>,
    random: Option<u64>,
    counting: bool,
    writes: u32,
    events: u32,
    /// Writes left until the second crash.
    second: Option<u32>,
    /// How things were some writes ago, if that is needed.
    earlier: VecDeque<Api>,
    /// Lists are asked for anew after so many more events.
    list_after: Option<u32>,
    hurried: bool,
    deeds: VecDeque<String>,
}

impl Run {
    fn new(
        server: Server,
        target: (String, String),
        disturbance: Disturbance,
        may_lose_volumes: bool,
    ) -> Result<Self, String> {
        let faked = server.with(|a| Faked::new(a)).ok_or("the custom resources are not served")?;
        let mut run = Self {
            server,
            target,
            faked,
            disturbance,
            may_lose_volumes,
            agent_image: "agent:1",
            operators: vec![],
            random: disturbance.seed(),
            counting: false,
            writes: 0,
            events: 0,
            second: None,
            earlier: VecDeque::new(),
            list_after: None,
            hurried: false,
            deeds: VecDeque::new(),
        };
        run.start();
        if matches!(disturbance, Disturbance::Two(_)) {
            run.start();
        }
        Ok(run)
    }

    fn start(&mut self) {
        let (target, image) = (&self.target, self.agent_image);
        let operator = self.server.with(|a| Operator::start(&self.server, a, target, image));
        self.operators.push(operator);
    }

    fn note(&mut self, deed: String) {
        if self.deeds.len() == REMEMBERED {
            self.deeds.pop_front();
        }
        self.deeds.push_back(deed);
    }

    fn last_deeds(&self) -> String {
        self.deeds.iter().cloned().collect::<Vec<_>>().join(", ")
    }

    /// A number below `n`: 0, where the order is fixed.
    fn draw(&mut self, n: usize) -> usize {
        let Some(state) = &mut self.random else { return 0 };
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % n.max(1) as u64).unwrap_or(0)
    }

    /// What the user does.
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        if let Step::Upgrade(image) = step {
            self.agent_image = image;
            for operator in std::mem::take(&mut self.operators) {
                operator.crash().await;
                self.start();
            }
            return Ok(());
        }
        let (namespace, set) = self.target.clone();
        let options = WriteOptions { manager: "user".to_owned(), force: true, ..WriteOptions::default() };
        let sets = "pgreplicasets.pgconvoy.dev";
        let (resource, name) = match step {
            Step::Take(resource, name) | Step::Spoil(resource, name, _) => (*resource, (*name).to_owned()),
            _ => (sets, set),
        };
        // Who does not wait may find that somebody else was faster.
        let may_be_gone = matches!(step, Step::Take(..)) && self.disturbance.hurries();
        let done = self.server.with(|api| {
            let kind = api.kind_stored(resource).ok_or_else(|| format!("{resource} is not served"))?;
            let result = match step {
                Step::Make(set) => api.create(&kind, &namespace, set.clone(), &options).map(|_| ()),
                Step::Change(patch) | Step::Spoil(_, _, patch) => {
                    api.patch(&kind, &namespace, &name, "", (PatchKind::Merge, patch), &options).map(|_| ())
                }
                Step::Delete | Step::Take(..) => {
                    let background = DeleteOptions { propagation: "Background".to_owned(), ..DeleteOptions::default() };
                    api.delete(&kind, &namespace, &name, &background).map(|_| ())
                }
                Step::Upgrade(_) => Ok(()),
            };
            match result {
                Err(refusal) if refusal.code == 404 && may_be_gone => Ok(()),
                other => other.map_err(|r| r.message),
            }
        });
        done.map_err(|e| format!("the user may not: {e}"))?;
        self.note(format!("the user: {}", name));
        Ok(())
    }

    /// Until nothing happens any more. `hurries`: or until the user goes on.
    async fn settle(&mut self, hurries: bool) -> Result<(), String> {
        let (mut turns, mut looked) = (0, false);
        for _ in 0..PASSES {
            let (begun, written) = (self.server.with(|a| a.revision()), self.written());
            loop {
                turns += 1;
                if turns > TURNS {
                    let recent = self.server.with(|a| {
                        let from = a.revision().saturating_sub(6);
                        let told =
                            a.changes(from).map(|c| c.map(|c| format!("{} {}", c.key.resource, c.key.name)).collect());
                        told.unwrap_or_else(|_| vec![])
                    });
                    return Err(format!(
                        "it does not come to rest; written last: {}; {}",
                        recent.join(", "),
                        self.last_deeds()
                    ));
                }
                if hurries && std::mem::take(&mut self.hurried) {
                    return Ok(());
                }
                if !self.turn().await? {
                    break;
                }
            }
            if self.list_after.take().is_some() {
                self.list_anew();
                continue;
            }
            if looked && self.server.with(|a| a.revision()) == begun && self.written() == written {
                return Ok(());
            }
            // Time passes: whoever failed tries again, and all look once more.
            self.operators.iter_mut().for_each(|o| o.dirty = true);
            looked = true;
        }
        Err(format!("it writes for ever; last: {}", self.last_deeds()))
    }

    fn written(&self) -> u32 {
        self.operators.iter().map(|o| o.line.written()).sum()
    }

    fn list_anew(&mut self) {
        for operator in &mut self.operators {
            self.server.with(|a| operator.list(a));
        }
    }

    /// One thing happens; whether there was one.
    async fn turn(&mut self) -> Result<bool, String> {
        for at in 0..self.operators.len() {
            if let Some(Err(error)) = self.operators[at].end() {
                if error.starts_with("it panicked") {
                    return Err(error);
                }
                self.note(format!("failed: {error}"));
            }
        }
        let mut can: Vec<(usize, Can)> = vec![];
        for (at, operator) in self.operators.iter_mut().enumerate() {
            if operator.line.waiting() > 0 {
                can.push((at, Can::Pass));
            }
            if self.server.with(|a| operator.untold(a)) > 0 {
                can.push((at, Can::Tell));
            }
            if operator.dirty && !operator.busy() {
                can.push((at, Can::Begin));
            }
        }
        let shuffled = self.random.is_some();
        if can.is_empty() || (shuffled && self.draw(can.len() + 1) == 0) {
            let (faked, target) = (&self.faked, &self.target);
            if self.server.with(|a| faked.step(a, &target.0, &target.1) || a.collect()) {
                return Ok(true);
            }
        }
        if can.is_empty() {
            return Ok(false);
        }
        let chosen = self.draw(can.len());
        let (at, what) = can[chosen];
        match what {
            Can::Pass => self.pass(at).await?,
            Can::Tell => self.tell(at),
            Can::Begin => {
                self.operators[at].begin();
                breathe().await;
            }
        }
        Ok(true)
    }

    fn tell(&mut self, at: usize) {
        self.events += 1;
        let lost = self.counting
            && matches!(self.disturbance, Disturbance::Lost(n) | Disturbance::LostLong(n) if n == self.events);
        let choose = if self.random.is_some() { self.draw(64) } else { 0 };
        let operator = &mut self.operators[at];
        let named = self.server.with(|a| operator.tell(a, choose, lost));
        if lost {
            self.list_after = Some(if matches!(self.disturbance, Disturbance::Lost(_)) { 3 } else { u32::MAX });
            self.note(format!("lost: {}", named.unwrap_or_default()));
        } else if let Some(left) = self.list_after {
            if left == 0 {
                self.list_after = None;
                self.list_anew();
            } else if left < u32::MAX {
                self.list_after = Some(left - 1);
            }
        }
    }

    /// A call of an operator goes through, or whatever becomes of it.
    async fn pass(&mut self, at: usize) -> Result<(), String> {
        let waiting = self.operators[at].line.waiting();
        let chosen = self.draw(waiting);
        let Some(call) = self.operators[at].line.take(chosen) else { return Ok(()) };
        if !call.writes() {
            call.pass(Fate::Done);
            breathe().await;
            return Ok(());
        }
        let (target, may) = (&self.target, self.may_lose_volumes);
        if let Some(why) = self.server.with(|a| guard::forbids(a, target, may, &call)) {
            return Err(format!("{} {}: {why}; last: {}", call.method, call.path, self.last_deeds()));
        }
        self.writes += 1;
        let short = call.path.rsplit("/namespaces/").next().unwrap_or_default().to_owned();
        self.note(format!("{} {} {short}", self.writes, call.method));
        let (fate, crash) = self.fate();
        if let Some(fate) = fate {
            call.pass(fate);
            breathe().await;
        }
        if crash {
            self.note("crash".to_owned());
            self.operators.remove(at).crash().await;
            self.restart();
        }
        Ok(())
    }

    /// What becomes of this write, and whether the operator dies of it.
    fn fate(&mut self) -> (Option<Fate>, bool) {
        let now = |n: u32| self.counting && n == self.writes;
        if let Some(left) = &mut self.second {
            *left -= 1;
            if *left == 0 {
                self.second = None;
                return (Some(Fate::DoneInSilence), true);
            }
        }
        match self.disturbance {
            Disturbance::CrashBefore(n) if now(n) => (None, true),
            Disturbance::CrashAfter(n) if now(n) => (Some(Fate::DoneInSilence), true),
            Disturbance::CrashTwice { write, then } if now(write) => {
                self.second = Some(then);
                (Some(Fate::DoneInSilence), true)
            }
            Disturbance::Stale { write, behind } => {
                if self.counting && self.writes <= write && self.writes + behind >= write {
                    let copy = self.server.with(|a| a.copy(Box::new(Counted(0))));
                    self.earlier.push_back(copy);
                }
                if now(write) { (Some(Fate::DoneInSilence), true) } else { (Some(Fate::Done), false) }
            }
            Disturbance::Refused { write, code } if now(write) => (Some(Fate::Refused(code)), false),
            Disturbance::TooLate(n) if now(n) => (Some(Fate::DoneButRefused(504)), false),
            Disturbance::Hurry(n) if now(n) => {
                self.hurried = true;
                (Some(Fate::Done), false)
            }
            Disturbance::HurryStale(n) if now(n) => {
                self.hurried = true;
                (Some(Fate::DoneInSilence), true)
            }
            _ => (Some(Fate::Done), false),
        }
    }

    fn restart(&mut self) {
        if self.hurried && matches!(self.disturbance, Disturbance::HurryStale(_)) {
            // Kubelets and agents go on without an operator; then the user does.
            let (faked, target) = (&self.faked, &self.target);
            while self.server.with(|a| faked.step(a, &target.0, &target.1) || a.collect()) {}
            self.start();
            self.operators.iter_mut().for_each(|o| o.behind = true);
            return;
        }
        match self.earlier.pop_front() {
            None => self.start(),
            Some(view) => {
                self.earlier.clear();
                let mut operator = Operator::start(&self.server, &view, &self.target, self.agent_image);
                operator.behind = true;
                self.operators.push(operator);
            }
        }
    }

    /// In the end a new operator finds nothing to do.
    async fn rests(mut self) -> Result<(), String> {
        let before = self.server.with(|a| a.revision());
        for operator in std::mem::take(&mut self.operators) {
            operator.crash().await;
        }
        self.start();
        self.settle(false).await?;
        if self.server.with(|a| a.revision()) == before {
            return Ok(());
        }
        let what = self.server.with(|a| {
            let changes = a.changes(before).map(|c| {
                c.map(|c| format!("{} {}", c.key.resource, text(&c.object, "/metadata/name"))).collect::<Vec<_>>()
            });
            changes.unwrap_or_default().join(", ")
        });
        Err(format!("at rest a new operator changes something: {what}"))
    }
}

#[derive(Debug, Clone, Copy)]
enum Can {
    Pass,
    Tell,
    Begin,
}

/// Lets everything that can go on go on: there is one thread, and whoever yields comes last.
async fn breathe() {
    for _ in 0..24 {
        tokio::task::yield_now().await;
    }
}

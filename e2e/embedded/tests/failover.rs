//! One set of three, real PostgreSQL, fault after fault: whatever is done to it, no acknowledged write is lost or there twice, no
//! earlier leader acknowledges once a later one is known, and the set becomes whole again.
//!
//! `PGCONVOY_SEED` draws the plan, `PGCONVOY_FAILOVERS` says how many failovers it has at least; `PGCONVOY_LONG=1`: 500, and
//! another seed each time.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, clippy::panic, reason = "to panic is how a test fails")]

#[allow(dead_code, reason = "shared with other tests")]
mod bed;

use anyhow::{Context as _, ensure};
use bed::Bed;
use pgconvoy_embedded::failover::history::{Elected, Verdict, Write, longest_gap};
use pgconvoy_embedded::failover::plan::{self, Api, Blow, Epoch, Step, Target};
use pgconvoy_embedded::failover::set::Set;
use pgconvoy_embedded::failover::strike::Undo;
use pgconvoy_embedded::failover::writer::{Kind, Ledger, Session, TABLE, Writer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::Config;

/// For the first set, and for a set that something was done to. Three members on a busy machine; a copy takes some seconds.
const WHOLE: Duration = Duration::from_secs(120);
/// For a later epoch, once its cause is there.
const MOVED: Duration = Duration::from_secs(60);
/// Faults that cost an epoch in one run, unless it is said otherwise.
const FAILOVERS: usize = 30;
const SEED: u64 = 11;
/// Among so many writes before a step is the last one that was acknowledged before it: there its outage begins.
const BEFORE: u64 = 200;
/// A machine that stands still for so long may take a leader for dead: an epoch that comes of it is nobody's fault. In milliseconds.
const STILL: u64 = 2_500;
/// One set at a time: each is to have the machine for itself.
static ALONE: Mutex<()> = Mutex::new(());
/// A write that took longer is told; and one that ended longer before a step has nothing to do with it.
const SLOW: Duration = Duration::from_secs(1);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{variable} is no number: {v}")))
}

#[test]
fn whatever_happens_acknowledged_writes_stay() {
    let long = std::env::var_os("PGCONVOY_LONG").is_some();
    let default = if long { rand::random() } else { SEED };
    let seed = number("PGCONVOY_SEED").unwrap_or(default);
    let failovers =
        number("PGCONVOY_FAILOVERS").map_or(if long { 500 } else { FAILOVERS }, |n| usize::try_from(n).unwrap());
    let plan = plan::draw(seed, failovers);
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(bed) = Bed::up(&["--impatient"]) else { return };
    println!("plan of seed {seed}: {} steps", plan.len());
    for (i, step) in plan.iter().enumerate() {
        println!("{:4} {step}", i + 1);
    }
    bed.apply("examples/quickstart.yaml");
    bed.wait_ready("quickstart", "3/3", WHOLE);
    let told = Told::default();
    let rw = bed.address("quickstart", "rw");
    let outcome = bed.run(run(&bed, rw, &plan, &told, ""));
    if let Err(error) = outcome {
        let kept = bed.keep(&format!("failover-{seed}"), &told.take());
        panic!(
            "{error:#}\nreplay: PGCONVOY_SEED={seed} PGCONVOY_FAILOVERS={failovers} cargo test -p pgconvoy-embedded --test \
             failover -- --nocapture\nlogs: {}",
            kept.display()
        );
    }
}

/// The same run must find what is wrong when something is: clients whose commits wait for no follower lose some.
#[test]
fn commits_that_wait_for_no_follower_are_found_lost() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(bed) = Bed::up(&["--impatient"]) else { return };
    bed.apply("examples/quickstart.yaml");
    bed.wait_ready("quickstart", "3/3", WHOLE);
    let rw = bed.address("quickstart", "rw");
    // Its clients still reach it, so it acknowledges what nobody else gets.
    let cut = Step { blows: vec![(Target::Leader, Blow::CutMembers)], api: Api::Up, hold: 0 };
    let outcome = bed.run(run(&bed, rw, &[cut], &Told::default(), "-c synchronous_commit=local"));
    let found = format!("{:#}", outcome.unwrap_err());
    assert!(found.contains("and is lost"), "{found}");
}

/// What is printed, and kept should the run fail.
#[derive(Default)]
struct Told(Mutex<String>);

impl Told {
    fn say(&self, line: &str) {
        println!("{line}");
        self.0.lock().unwrap().push_str(&format!("{line}\n"));
    }

    fn take(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

/// For how long the machine stood still, at most, in milliseconds: by how much a short sleep was too long.
#[derive(Clone, Default)]
struct Stillness(Arc<AtomicU64>);

impl Stillness {
    fn watch() -> Self {
        let (all, nap) = (Self::default(), Duration::from_millis(50));
        let seen = Arc::downgrade(&all.0);
        std::thread::spawn(move || {
            loop {
                let begun = Instant::now();
                std::thread::sleep(nap);
                let late = u64::try_from(begun.elapsed().saturating_sub(nap).as_millis()).unwrap_or(u64::MAX);
                match seen.upgrade() {
                    Some(worst) => worst.fetch_max(late, Ordering::Relaxed),
                    None => return,
                };
            }
        });
        all
    }

    /// Since this was asked last.
    fn worst(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

struct Run<'a> {
    still: Stillness,
    set: Set,
    way_in: Config,
    ledger: Ledger,
    elected: Arc<Mutex<Vec<Elected>>>,
    told: &'a Told,
    /// The longest outages, by kind of step.
    outages: BTreeMap<String, Vec<Duration>>,
    failovers: u32,
    unplanned: u32,
}

async fn run(bed: &Bed, rw: SocketAddr, plan: &[Step], told: &Told, options: &str) -> anyhow::Result<()> {
    let set = Set::new(bed.kubeconfig(), bed.root(), "quickstart").await?;
    let mut way_in = set.way_in(rw).await?;
    way_in.options(options);
    set.whole(&way_in, WHOLE).await?;
    Session::open_in_the_end(&way_in).await?.rows(TABLE).await?;
    let ledger = Ledger::default();
    let elected: Arc<Mutex<Vec<Elected>>> = Arc::default();
    let watcher = tokio::spawn(watch(
        Set::new(bed.kubeconfig(), bed.root(), "quickstart").await?,
        ledger.clone(),
        elected.clone(),
    ));
    let every = Duration::from_millis;
    let writers = [(Kind::Held, every(10)), (Kind::Held, every(20)), (Kind::Fresh, every(200))];
    let writers = writers.map(|(kind, every)| Writer::start(&ledger, kind, every, &way_in));
    let begun = Instant::now();
    let mut run = Run {
        still: Stillness::watch(),
        set,
        way_in,
        ledger,
        elected,
        told,
        outages: BTreeMap::new(),
        failovers: 0,
        unplanned: 0,
    };
    for (i, step) in plan.iter().enumerate() {
        run.step(i + 1, step).await.with_context(|| format!("step {}: {step}", i + 1))?;
    }
    for writer in writers {
        writer.stop().await;
    }
    watcher.abort();
    let all = run.check(0).await?;
    for (what, mut outages) in std::mem::take(&mut run.outages) {
        outages.sort_unstable();
        let (median, worst) = (outages[(outages.len() - 1) / 2], outages[outages.len() - 1]);
        told.say(&format!(
            "{what}: {}, longest time without an acknowledgement: median {median:.2?}, worst {worst:.2?}",
            outages.len()
        ));
    }
    told.say(&format!(
        "measured: {} failovers in {} steps and {:.0} s, {} unplanned; {} writes acknowledged, {} unknown, {} failed; lost, doubled, \
         risen, late, torn: 0",
        run.failovers,
        plan.len(),
        begun.elapsed().as_secs_f64(),
        run.unplanned,
        all.acknowledged,
        all.unknown,
        all.failed
    ));
    ensure!(run.unplanned == 0, "{} epochs that nothing called for", run.unplanned);
    Ok(())
}

/// Notes when which epoch was seen to be elected.
async fn watch(set: Set, ledger: Ledger, elected: Arc<Mutex<Vec<Elected>>>) {
    loop {
        if let Ok(term) = set.term().await
            && term.elected
        {
            let mut known = elected.lock().unwrap();
            if known.last().is_none_or(|e| e.epoch < term.epoch) {
                known.push(Elected { seen: ledger.now(), epoch: term.epoch });
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Run<'_> {
    async fn step(&mut self, number: usize, step: &Step) -> anyhow::Result<()> {
        let (first, before, begun) = (self.ledger.next_id(), self.set.term().await?, Instant::now());
        let at = self.ledger.now();
        self.still.worst();
        let mut undo = Undo::default();
        let struck = self.set.strike(step, &mut undo).await;
        let moved = match (&struck, step.epoch()) {
            (Ok(_), Epoch::Moves) => {
                self.set.until(MOVED, "a later epoch", |t| t.active && t.epoch > before.epoch).await.map(drop)
            }
            (Ok(_), _) => {
                tokio::time::sleep(Duration::from_millis(step.hold)).await;
                Ok(())
            }
            (Err(_), _) => Ok(()),
        };
        let moved_after = begun.elapsed();
        self.set.undo(undo).await?;
        let whom = struck?;
        moved?;
        self.set.whole(&self.way_in, WHOLE).await?;
        let after = self.set.term().await?;
        let verdict = self.check(first).await?;
        ensure!(verdict.acknowledged > 0, "nothing was acknowledged");
        // From the last acknowledgement before it.
        let mut writes = self.ledger.since(first.saturating_sub(BEFORE));
        writes.retain(|(_, w)| w.ended + SLOW > at);
        let gap =
            |kind: Kind| longest_gap(writes.iter().filter(|(k, _)| *k == kind).map(|(_, w)| w)).unwrap_or_default();
        for (kind, Write { id, begun, ended, outcome }) in writes.iter().filter(|(_, w)| w.ended - w.begun > SLOW) {
            let (since, took) = (begun.as_secs_f64() - at.as_secs_f64(), *ended - *begun);
            self.told.say(&format!("     slow: {kind:?} {id} begun {since:+.2} s, after {took:.2?}: {outcome:?}"));
        }
        let (held, fresh) = (gap(Kind::Held), gap(Kind::Fresh));
        self.outages.entry(kinds(step)).or_default().push(held.max(fresh));
        let epochs = after.epoch - before.epoch;
        if epochs > 0 {
            self.failovers += 1;
        }
        let extra = match step.epoch() {
            Epoch::Stays => epochs,
            _ => 0,
        };
        let still = self.still.worst();
        if still < STILL {
            self.unplanned += extra;
        }
        self.told.say(&format!(
            "{number:4} {step} ({whom}): epoch {} -> {}{}, moved or held {moved_after:.2?}, without an acknowledgement {held:.2?} \
             in sessions, {fresh:.2?} anew; whole after {:.1?}; {} acknowledged, {} unknown, {} failed",
            before.epoch,
            after.epoch,
            if extra > 0 { format!(" UNPLANNED (the machine stood still for {still} ms)") } else { String::new() },
            begun.elapsed(),
            verdict.acknowledged,
            verdict.unknown,
            verdict.failed
        ));
        Ok(())
    }

    /// Judges all writes from this one on.
    async fn check(&self, first: u64) -> anyhow::Result<Verdict> {
        // In this order: what is over now is there by then.
        let writes: Vec<Write> = self.ledger.since(first).into_iter().map(|(_, w)| w).collect();
        let session = Session::open_in_the_end(&self.way_in).await?;
        let rows = session.rows(&format!("select id from writes where id >= {first}")).await?;
        let there: Vec<u64> = rows.iter().map(|r| r[0].parse()).collect::<Result<_, _>>()?;
        let elected = self.elected.lock().unwrap().clone();
        let verdict = Verdict::of(&writes, &there, &elected);
        ensure!(verdict.clean(), "{verdict:#?}");
        Ok(verdict)
    }
}

/// What a step's outage is one of.
fn kinds(step: &Step) -> String {
    let text = step.to_string();
    text.rsplit_once(" (").map(|(kind, _)| kind.to_owned()).unwrap_or_default()
}

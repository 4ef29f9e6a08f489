//! How long clients wait when something happens to a leader: the same clients, the same events, whatever it is that leads.

use super::history::{Verdict, Write, longest_gap};
use super::writer::{Kind, Ledger, Session, TABLE, Writer};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_postgres::Config;

/// What happens. The names are those of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The server's first process is killed with -9.
    PostmasterKill,
    /// Everything is killed that a leader's container is made of, with -9.
    ContainerKill,
    /// The pod is deleted by force.
    PodForceDelete,
    /// The pod is deleted in order.
    PodDelete,
    /// The leader is cut off from everything.
    NodeCut,
    /// A switchover is asked for.
    Switchover,
    /// All of the leader's processes stop.
    Freeze,
    /// The leader is cut off from the other members.
    Partition,
    /// The leader is cut off from what they agree by.
    ApiCut,
    /// What they agree by is down.
    ApiDown,
    /// Another pod spec is rolled out to all members.
    Rollout,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::PostmasterKill,
        Self::ContainerKill,
        Self::PodForceDelete,
        Self::PodDelete,
        Self::NodeCut,
        Self::Switchover,
        Self::Freeze,
        Self::Partition,
        Self::ApiCut,
        Self::ApiDown,
        Self::Rollout,
    ];

    /// Its name in the figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::PostmasterKill => "postmaster_kill",
            Self::ContainerKill => "container_kill",
            Self::PodForceDelete => "pod_force_delete",
            Self::PodDelete => "pod_delete",
            Self::NodeCut => "node_cut",
            Self::Switchover => "switchover",
            Self::Freeze => "freeze",
            Self::Partition => "partition",
            Self::ApiCut => "api_cut",
            Self::ApiDown => "api_down",
            Self::Rollout => "rollout",
        }
    }

    /// Whether the same server should lead afterwards.
    pub fn keeps_the_leader(self) -> bool {
        matches!(self, Self::ApiCut | Self::ApiDown)
    }
}

/// Something that keeps a PostgreSQL with followers alive.
pub trait System {
    /// Whether it can be done to it.
    fn knows(&self, event: Event) -> bool;
    /// How clients reach the leader.
    fn way_in(&self) -> &Config;
    /// Waits until nothing is wrong with it.
    fn whole(&self) -> impl Future<Output = anyhow::Result<()>>;
    /// How often leadership has begun so far.
    fn epoch(&self) -> impl Future<Output = anyhow::Result<u32>>;
    /// Lets it happen; returns when it has, and for what comes back by itself when it has come back.
    fn strike(&mut self, event: Event) -> impl Future<Output = anyhow::Result<()>>;
    /// Undoes what does not come back by itself.
    fn undo(&mut self) -> impl Future<Output = anyhow::Result<()>>;
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outage {
    /// The longest time without an acknowledgement in a session that is held.
    pub held: Duration,
    /// The same with a new connection for each write.
    pub fresh: Duration,
    /// Acknowledged writes that are missing.
    pub lost: usize,
    /// Acknowledged by an earlier leader after a later one.
    pub dual: usize,
    /// Epochs that nothing called for.
    pub unplanned: u32,
}

/// Between two writes of a session that is held.
const EVERY: Duration = Duration::from_millis(10);
/// Writes go on as long before an event, and after everything is well again.
const CALM: Duration = Duration::from_secs(2);

/// Lets one event happen under writers. `hold`: for how long it lasts before it is undone, or longer if nobody leads by then.
/// `anew`: how often a write in a new connection is begun.
///
/// # Errors
/// When something of it cannot be done, or the system does not come back.
pub async fn measure<S: System>(
    system: &mut S,
    event: Event,
    hold: Duration,
    anew: Duration,
) -> anyhow::Result<Outage> {
    system.whole().await.context("before")?;
    Session::open_in_the_end(system.way_in()).await?.rows(&format!("{TABLE}; truncate writes")).await?;
    let before = system.epoch().await?;
    let ledger = Ledger::default();
    let writers = [(Kind::Held, EVERY), (Kind::Fresh, anew)];
    let writers = writers.map(|(kind, every)| Writer::start(&ledger, kind, every, system.way_in()));
    tokio::time::sleep(CALM).await;
    let struck = tokio::time::Instant::now();
    let done = system.strike(event).await;
    if done.is_ok() {
        // An outage ends with an acknowledgement of either client that was begun after it.
        let since = ledger.now();
        tokio::time::sleep_until(struck + hold).await;
        while !serves(&ledger, since) && struck.elapsed() < hold * 10 {
            tokio::time::sleep(EVERY * 10).await;
        }
    }
    system.undo().await?;
    done?;
    system.whole().await.context("afterwards")?;
    tokio::time::sleep(CALM).await;
    for writer in writers {
        writer.stop().await;
    }
    let all = ledger.since(0);
    let of = |kind: Kind| longest_gap(all.iter().filter(|(k, _)| *k == kind).map(|(_, w)| w));
    let (held, fresh) = (of(Kind::Held), of(Kind::Fresh));
    let writes: Vec<Write> = all.iter().map(|(_, w)| w.clone()).collect();
    let rows = Session::open_in_the_end(system.way_in()).await?.rows("select id from writes").await?;
    let there: Vec<u64> = rows.iter().filter_map(|r| r.first()?.parse().ok()).collect();
    let verdict = Verdict::of(&writes, &there, &[]);
    ensure!(verdict.acknowledged > 0, "nothing was acknowledged");
    verdict.faults.iter().for_each(|f| eprintln!("{}: {f}", event.name()));
    let epochs = system.epoch().await?.saturating_sub(before);
    let unplanned = if event.keeps_the_leader() { epochs } else { 0 };
    Ok(Outage {
        held: held.context("no session ever wrote twice")?,
        fresh: fresh.context("no two connections ever wrote")?,
        lost: verdict.lost,
        dual: verdict.late + verdict.torn,
        unplanned,
    })
}

/// Whether something begun since then was acknowledged within the last second.
fn serves(ledger: &Ledger, since: Duration) -> bool {
    let recent = ledger.now().saturating_sub(Duration::from_secs(1));
    let acknowledged = |w: &Write| matches!(w.outcome, super::history::Outcome::Ok { .. });
    ledger.since(0).iter().any(|(_, w)| acknowledged(w) && w.begun > since && w.ended > recent)
}

/// Median and worst of the greater of the two gaps, and the medians of each.
pub fn figures(outages: &[Outage]) -> Value {
    let seconds = |d: Duration| (d.as_secs_f64() * 100.0).round() / 100.0;
    let sorted = |of: &dyn Fn(&Outage) -> Duration| {
        let mut all: Vec<Duration> = outages.iter().map(of).collect();
        all.sort_unstable();
        all
    };
    let median = |all: &[Duration]| all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    let either = sorted(&|o| o.held.max(o.fresh));
    json!({
        "p50": seconds(median(&either)),
        "max": seconds(either.last().copied().unwrap_or_default()),
        "held_p50": seconds(median(&sorted(&|o| o.held))),
        "new_p50": seconds(median(&sorted(&|o| o.fresh))),
        "runs": outages.len(),
        "acknowledged_lost": outages.iter().map(|o| o.lost).sum::<usize>(),
        "dual_acknowledgements": outages.iter().map(|o| o.dual).sum::<usize>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_the_client_that_waited_longer() {
        let outage = |held, fresh, lost| Outage {
            held: Duration::from_millis(held),
            fresh: Duration::from_millis(fresh),
            lost,
            dual: 0,
            unplanned: 0,
        };
        let figures = figures(&[outage(900, 500, 0), outage(300, 400, 1), outage(100, 700, 0)]);
        assert_eq!((&figures["p50"], &figures["max"], &figures["runs"]), (&json!(0.7), &json!(0.9), &json!(3)));
        assert_eq!((&figures["held_p50"], &figures["acknowledged_lost"]), (&json!(0.3), &json!(1)));
    }
}

//! The leader's part: what its predecessors had not shipped, then its own epoch, for as long as it leads.

use super::{access::Access, anew::missing, report::Standing, role::Reign};
use crate::{
    clock,
    coordination::Events,
    postgres::{self, Archivist, DriverHandle},
    settings::Identity,
};
use pgconvoy_archive::{
    layout::{self, Claim, EpochDir, FORMAT, Gap, Owner, gaps, open_archive, read_claim},
    ship::{self, End, Options, Progress, begin, ship, survey},
    store::{self, Conditional, S3, Store, probe},
};
use pgconvoy_terms::{Lsn, MemberId, SystemId};
use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::sleep};

/// Between two attempts to begin.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How often it is asked how much WAL may be archived, while more has come than that.
const ASK: Duration = Duration::from_millis(100);
/// How often the slot is moved on. Long: WAL stays a little longer.
const KEEP: Duration = Duration::from_secs(5);
/// How often others hear of progress.
const TELL: Duration = Duration::from_millis(200);
/// Bytes of WAL in memory at most, and a segment beside it. Too few: a backlog goes slowly. Too many: the agent's memory.
const MEMORY: usize = 16 << 20;

/// Who ships what, and where.
pub(super) struct Shipping {
    pub(super) me: Identity,
    pub(super) driver: DriverHandle,
    pub(super) events: Events,
    pub(super) access: Access,
    pub(super) system: SystemId,
    /// The epoch and its ancestors, newest first.
    pub(super) reigns: Vec<Reign>,
    pub(super) standing: watch::Sender<Option<Standing>>,
}

/// Why it could not begin, or not go on.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Archive(#[from] layout::Error),
    #[error(transparent)]
    Ship(#[from] ship::Error),
    #[error("PostgreSQL cannot be asked what there is to archive: {0}")]
    Postgres(#[from] postgres::Error),
}

impl Failure {
    fn word(&self) -> &'static str {
        match self {
            Self::Store(e) => e.reason().name(),
            Self::Archive(e) => e.reason(),
            Self::Ship(e) => e.reason(),
            Self::Postgres(_) => "Postgres",
        }
    }
}

impl Shipping {
    /// Ships until the server stops. What fails is told and tried again; an epoch that somebody else writes is left alone.
    pub(super) async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            let Err(failure) = self.attempt().await else { return };
            tracing::warn!(reason = failure.word(), "archiving: {failure}");
            let told = (failure.word(), failure.to_string());
            self.tell(|s| {
                let since = s.obstacle.as_ref().map_or_else(Instant::now, |(_, _, since)| *since);
                s.obstacle = Some((told.0, told.1, since));
            });
            if matches!(failure.word(), "Fenced") {
                // Whoever leads now has another epoch; this one's WAL is none of ours any more.
                return std::future::pending().await;
            }
            if begun.elapsed() > MAX_PAUSE {
                pause = FIRST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    pub(super) fn tell(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(|s| change(s.get_or_insert_default()));
    }

    async fn attempt(&self) -> Result<(), Failure> {
        let Some((own, ancestors)) = self.reigns.split_first() else { return Ok(()) };
        let s3 = S3::new(self.access.config()).await?;
        open_archive(&s3, &self.owner()).await?;
        if probe(&s3, rand::random()).await? == Conditional::Overlooked {
            s3.look_before_writing();
            self.tell(|s| {
                s.note = Some(
                    "the store overlooks If-None-Match, so that two leaders at once could overwrite each other's WAL; a \
                     look before each write makes that rare, not impossible"
                        .to_owned(),
                );
            });
        }
        let store: Arc<dyn Store> = Arc::new(s3);
        let mut archivist = self.driver.archivist();
        // Before anything is looked at, so that it stays.
        archivist.keep(None).await?;
        let size = archivist.segment_size().await?;
        self.catch_up(&store, &mut archivist, ancestors, size).await?;
        self.ship_own(&store, &mut archivist, own, size).await
    }

    fn owner(&self) -> Owner {
        Owner {
            format: FORMAT,
            namespace: self.me.namespace.clone(),
            name: self.me.member.set().to_owned(),
            uid: self.me.set_uid.clone(),
            time: now(),
        }
    }

    fn dir(&self, reign: &Reign) -> EpochDir {
        EpochDir { system: self.system, epoch: reign.epoch.clone() }
    }

    /// Ships what earlier leaders had not. Whoever claims an epoch has done the same before, so the newest claim is the last
    /// that can be incomplete. Without any, the archive begins with this epoch.
    async fn catch_up(
        &self,
        store: &Arc<dyn Store>,
        archivist: &mut Archivist,
        ancestors: &[Reign],
        size: u64,
    ) -> Result<(), Failure> {
        let mut incomplete: Vec<(&Reign, Option<Claim>)> = Vec::new();
        let mut found = false;
        for reign in ancestors {
            let claim = read_claim(&**store, &self.dir(reign)).await?;
            if let Some(claim) = &claim {
                written_by_its_leader(reign, claim)?;
            }
            found = claim.is_some();
            incomplete.push((reign, claim));
            if found {
                break;
            }
        }
        if !found {
            return Ok(());
        }
        let known = gaps(&**store, self.system).await?;
        // From where each of them was gone on.
        let forks = self.reigns.iter().filter_map(|r| r.parent.as_ref());
        let until: Vec<Lsn> = forks.map(|(_, at)| *at).take(incomplete.len()).collect();
        for ((reign, claim), until) in incomplete.into_iter().zip(until).rev() {
            let timeline = reign.epoch.timeline();
            let claim = match claim {
                Some(claim) => claim,
                // It led for too short a time to claim it. Should it still live, it finds its own name here.
                None => {
                    let fork = reign.parent.as_ref().map(|(_, at)| *at);
                    let start = archivist.first_segment(timeline, fork, size).await?;
                    claim_of(&reign.leader, reign, start, size)
                }
            };
            let history = archivist.history(timeline).await?;
            let dir = self.dir(reign);
            let claim = begin(&**store, &dir, &claim, history.map(Into::into)).await?;
            let there = survey(&**store, &dir, &claim, Lsn(0)).await?;
            let given_up = known.iter().any(|g| g.dir == dir && g.to >= until);
            if there.archived >= until || given_up {
                continue;
            }
            tracing::info!(epoch = %reign.epoch, from = %there.archived, %until, "archiving what an earlier leader had not");
            // All of it is a part of this epoch's own log.
            let options = Options { memory: MEMORY, ..Options::new(dir.clone(), claim) };
            let (_, safe) = watch::channel(Lsn(u64::MAX));
            match self.ship(store, archivist, options, safe).await {
                Err(Failure::Ship(gone @ ship::Error::WalGone { archived, .. })) => {
                    self.gap(&**store, &Gap { dir, from: archived, to: until }, &gone).await?;
                }
                other => drop(other?),
            }
        }
        Ok(())
    }

    async fn ship_own(
        &self,
        store: &Arc<dyn Store>,
        archivist: &mut Archivist,
        own: &Reign,
        size: u64,
    ) -> Result<(), Failure> {
        let timeline = own.epoch.timeline();
        let fork = own.parent.as_ref().map(|(_, at)| *at);
        let start = archivist.first_segment(timeline, fork, size).await?;
        let history = archivist.history(timeline).await?;
        let dir = self.dir(own);
        let claim = begin(&**store, &dir, &claim_of(&own.leader, own, start, size), history.map(Into::into)).await?;
        tracing::info!(epoch = %own.epoch, start = %claim.start, "archiving");
        let max_delay = Duration::from_secs(self.access.place.max_delay_seconds.into());
        let mut options = Options { memory: MEMORY, max_delay, ..Options::new(dir.clone(), claim) };
        // The last one on the way here.
        let known = gaps(&**store, self.system).await?;
        let mut gap = known.into_iter().rfind(|g| self.reigns.iter().any(|r| r.epoch == g.dir.epoch));
        loop {
            let (safe_in, safe) = watch::channel(Lsn(0));
            let (progress_in, progress) = watch::channel(Progress::default());
            let asking = ask(self.driver.archivist(), progress.clone(), safe_in);
            let anew = Box::pin(self.begin_anew(store, &dir, gap.clone(), progress));
            let shipping = self.ship_telling(store, archivist, options.clone(), safe, &progress_in);
            let ended = tokio::select! {
                ended = shipping => ended,
                never = asking => match never {},
                never = anew => match never {},
            };
            match ended {
                Err(Failure::Ship(gone @ ship::Error::WalGone { archived, .. })) => {
                    let kept = archivist.keep(None).await?.from;
                    let next = Lsn(kept.0 - kept.0 % size);
                    options.from = if next > archived { next } else { Lsn(next.0 + size) };
                    let new = Gap { dir: dir.clone(), from: archived, to: options.from };
                    self.gap(&**store, &new, &gone).await?;
                    gap = Some(new);
                    sleep(KEEP).await;
                }
                other => return other.map(drop),
            }
        }
    }

    /// Tells that WAL is missing for good, and notes it in the archive.
    async fn gap(&self, store: &dyn Store, gap: &Gap, gone: &ship::Error) -> Result<(), Failure> {
        tracing::error!("{gone}");
        let said = format!("{}; a new snapshot is taken as soon as WAL is archived again", missing(gap));
        self.tell(|s| {
            s.gap = Some(said);
            // How the stream broke off is no trouble any more: it is why there is a gap.
            if let Some(progress) = &mut s.progress {
                progress.trouble = None;
            }
        });
        Ok(gap.note(store, &gone.to_string(), &now()).await?)
    }

    async fn ship(
        &self,
        store: &Arc<dyn Store>,
        archivist: &mut Archivist,
        options: Options,
        safe: watch::Receiver<Lsn>,
    ) -> Result<End, Failure> {
        let (progress_in, _progress) = watch::channel(Progress::default());
        self.ship_telling(store, archivist, options, safe, &progress_in).await
    }

    /// Ships one epoch, moves the slot on behind it, and tells how far it is.
    async fn ship_telling(
        &self,
        store: &Arc<dyn Store>,
        archivist: &mut Archivist,
        options: Options,
        safe: watch::Receiver<Lsn>,
        progress: &watch::Sender<Progress>,
    ) -> Result<End, Failure> {
        let mut source = ship::Postgres {
            config: archivist.streaming(),
            timeline: options.dir.timeline(),
            slot: None,
            idle_timeout: archivist.idle_timeout(),
        };
        let shipping = ship(&mut source, store.clone(), &options, safe, progress);
        let ended = tokio::select! {
            ended = shipping => ended,
            never = self.tell_progress(progress.subscribe()) => match never {},
            never = keep(archivist, progress.subscribe()) => match never {},
        };
        let last = progress.borrow().clone();
        if let Err(e) = archivist.keep(Some(last.archived)).await {
            tracing::debug!(error = %e, "the archive's slot was not moved on");
        }
        self.tell(|s| s.progress = Some(last));
        Ok(ended?)
    }

    async fn tell_progress(&self, mut progress: watch::Receiver<Progress>) -> Infallible {
        loop {
            let now = progress.borrow_and_update().clone();
            // Before the archive was looked at there is nothing to tell but trouble.
            if now.archived > Lsn(0) || now.trouble.is_some() {
                self.tell(|s| {
                    s.obstacle = None;
                    s.progress = Some(now);
                });
            }
            sleep(TELL).await;
            if progress.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Whatever another than the leader of an epoch archived in it is no part of anybody's log who leads later.
fn written_by_its_leader(reign: &Reign, claim: &Claim) -> Result<(), layout::Error> {
    if claim.member == reign.leader {
        return Ok(());
    }
    let why = format!(
        "it was led by {}, and {} archived in it; name another prefix in the PgArchive, and take a new snapshot",
        reign.leader, claim.member
    );
    Err(layout::Error::Fenced { epoch: reign.epoch.clone(), why })
}

fn claim_of(member: &MemberId, reign: &Reign, start: Lsn, segment_size: u64) -> Claim {
    Claim { member: member.clone(), parent: reign.parent.clone(), start, segment_size, time: now() }
}

fn now() -> String {
    clock::wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Moves the slot on as the archive grows.
async fn keep(archivist: &mut Archivist, mut progress: watch::Receiver<Progress>) -> Infallible {
    let mut last = Lsn(0);
    loop {
        let archived = progress.borrow_and_update().archived;
        if archived > last {
            match archivist.keep(Some(archived)).await {
                Ok(_) => last = archived,
                Err(e) => tracing::debug!(error = %e, "the archive's slot was not moved on"),
            }
        }
        sleep(KEEP).await;
        if archived == last && progress.wait_for(|p| p.archived > last).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Asks how much WAL may be archived, whenever more has come than that.
async fn ask(
    mut archivist: Archivist,
    mut progress: watch::Receiver<Progress>,
    safe: watch::Sender<Lsn>,
) -> Infallible {
    loop {
        let known = *safe.borrow();
        if progress.wait_for(|p| p.received > known).await.is_err() {
            return std::future::pending().await;
        }
        match archivist.safe().await {
            // A later answer of the same epoch cannot take back what an earlier one gave.
            Ok(now) => drop(safe.send_if_modified(|s| {
                now > *s && {
                    *s = now;
                    true
                }
            })),
            Err(e) => tracing::debug!(error = %e, "how much WAL may be archived is not known"),
        }
        sleep(ASK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::{ChangeId, Epoch, Incarnation, MemberName};

    #[test]
    fn an_epoch_that_another_member_wrote_is_not_gone_on_from() {
        let member =
            |n: u32| MemberId { name: MemberName::new("a", n), incarnation: Incarnation::from_random(n.into()) };
        let epoch = Epoch { number: 3, id: ChangeId::from_random(3) };
        let reign = Reign { epoch, leader: member(1), parent: None };
        let claim = claim_of(&member(1), &reign, Lsn(0), 16 << 20);
        assert!(written_by_its_leader(&reign, &claim).is_ok());
        let said = written_by_its_leader(&reign, &Claim { member: member(2), ..claim }).unwrap_err();
        assert_eq!(said.reason(), "Fenced");
        assert!(said.to_string().contains("was led by a-1/") && said.to_string().contains("a-2/"), "{said}");
    }
}

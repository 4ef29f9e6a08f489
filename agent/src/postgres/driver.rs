//! The converging loop: takes the newest want, compares it with what is, acts step by step, and drops everything it is
//! doing when a newer one comes.

use super::{
    Error,
    server::{FILES, Postgres, Running},
    supervisor, volume,
};
use crate::bootstrap;
use pgconvoy_ha::{Data, Permission, Want, WantKind};
use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{ErrorCode, Permit},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

/// How often a want that was reached is looked at again when nothing rings.
const RECHECK: Duration = Duration::from_secs(5);
/// After a failure: the first pause, and the longest.
const BACK_OFF: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// How soon to look again whether the container of PostgreSQL has come. It costs one look for a file.
const CONTAINER: Duration = Duration::from_millis(200);
/// How soon to look again at something that is under way.
const SOON: Duration = Duration::from_millis(30);

/// A want that was reached.
#[derive(Debug)]
pub(crate) struct Reached {
    /// What people should know all the same.
    pub(crate) remark: Option<String>,
    /// When to look again, if nothing rings before.
    pub(crate) again: Duration,
}

impl Default for Reached {
    fn default() -> Self {
        Self { remark: None, again: RECHECK }
    }
}

/// Runs until nobody wants anything any more.
pub(crate) async fn run(postgres: Arc<Postgres>, alarm: Arc<Notify>) {
    let mut want = postgres.want.clone();
    let mut settings = postgres.settings.clone();
    let mut addresses = postgres.addresses.clone();
    let lock = hold_volume(&postgres).await;
    let mut back_off = BACK_OFF;
    loop {
        let now = want.borrow_and_update().0.clone();
        settings.borrow_and_update();
        addresses.borrow_and_update();
        let outcome = tokio::select! {
            biased;
            () = overtaken(&mut want, now.revision) => {
                back_off = BACK_OFF;
                continue;
            }
            outcome = Box::pin(converge(&postgres, &now)) => outcome,
        };
        postgres.look_for_obstacle(&outcome).await;
        let pause = match outcome {
            Ok(Reached { remark, again }) => {
                back_off = BACK_OFF;
                reached(&postgres, &now, remark);
                again
            }
            Err(Error::NotYet(why)) => {
                missed(&postgres, why);
                SOON
            }
            Err(Error::Hba(why)) => match postgres.refuse_hba(why.clone()).await {
                Ok(()) => SOON,
                Err(e) => {
                    missed(&postgres, e.to_string());
                    BACK_OFF_MAX
                }
            },
            Err(e @ Error::Supervisor(supervisor::Error::Absent(_))) => {
                let why = e.to_string();
                if postgres.facts.known().problem.as_ref() != Some(&why) {
                    tracing::info!("waiting for the container of PostgreSQL: {why}");
                }
                missed(&postgres, why);
                CONTAINER
            }
            Err(e) => {
                tracing::warn!(reason = e.reason(), error = %e, want = ?now.kind, "a step failed");
                missed(&postgres, e.to_string());
                let pause = back_off;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                pause
            }
        };
        tokio::select! {
            biased;
            alive = newer(&mut want, now.revision) => if !alive { break },
            _ = alarm.notified() => {}
            _ = settings.changed() => {}
            _ = addresses.changed() => {}
            () = sleep(pause) => {}
        }
    }
    drop(lock);
}

/// Waits for a want of another revision; false when there will be none.
async fn newer(want: &mut watch::Receiver<(Want, Permission)>, revision: u64) -> bool {
    want.wait_for(|(w, _)| w.revision != revision).await.is_ok()
}

/// Ends when a want of another revision comes; when there will be none, never.
async fn overtaken(want: &mut watch::Receiver<(Want, Permission)>, revision: u64) {
    if !newer(want, revision).await {
        std::future::pending::<()>().await;
    }
}

fn reached(postgres: &Postgres, want: &Want, remark: Option<String>) {
    let known = postgres.facts.known();
    if known.applied != want.revision || known.problem != remark {
        tracing::info!(revision = want.revision, remark, "the want is reached");
        postgres.facts.set(|k| {
            k.applied = want.revision;
            k.problem = remark;
        });
    }
}

fn missed(postgres: &Postgres, why: String) {
    if postgres.facts.known().problem.as_ref() != Some(&why) {
        postgres.facts.set(|k| k.problem = Some(why));
    }
}

/// Waits until no other pod has the volume.
async fn hold_volume(postgres: &Postgres) -> volume::Lock {
    let mut said = false;
    loop {
        let paths = postgres.paths().clone();
        match postgres.disk.run("locking the volume", FILES, move || volume::Lock::take(&paths)).await {
            Ok(Some(lock)) => {
                postgres.facts.set(|k| k.problem = None);
                return lock;
            }
            Ok(None) if said => {}
            Ok(None) => {
                said = true;
                missed(
                    postgres,
                    "another pod of this member still has the volume; waiting until it is gone".to_owned(),
                );
            }
            Err(e) => missed(postgres, e.to_string()),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Brings everything in line with `want`, as far as it goes now.
async fn converge(postgres: &Arc<Postgres>, want: &Want) -> Result<Reached, Error> {
    match &want.kind {
        WantKind::Fenced => {
            postgres.fence().await?;
            // Not a reason to fail: it is down.
            drop(look_at_volume(postgres).await);
            return Ok(Reached::default());
        }
        WantKind::Stopped => {
            postgres.step_down().await?;
            if postgres.facts.known().applied != want.revision {
                let last = postgres.last_record().await;
                postgres.facts.set(|k| k.shutdown = last);
            }
            drop(look_at_volume(postgres).await);
            return Ok(Reached::default());
        }
        _ => {}
    }
    look_at_volume(postgres).await?;
    if postgres.rogue.swap(false, std::sync::atomic::Ordering::Relaxed) {
        kill_rogue(postgres).await?;
    }
    if want.kind == WantKind::Keep {
        return Ok(Reached::default());
    }
    postgres.settle_configuration().await?;
    match &want.kind {
        WantKind::Keep | WantKind::Fenced | WantKind::Stopped => Ok(Reached::default()),
        WantKind::Found { incarnation } => bootstrap::found(postgres, incarnation).await.map(|()| Reached::default()),
        WantKind::Clone { incarnation, from, slot, replace } => {
            bootstrap::catch_up(postgres, incarnation, from, slot, *replace).await.map(|()| Reached::default())
        }
        // Once is enough: it ends with nothing running, and is looked at again all the same.
        WantKind::Rewind { .. } if postgres.facts.known().applied == want.revision => Ok(Reached::default()),
        WantKind::Rewind { leader } => {
            let done = bootstrap::rewind(postgres, leader).await;
            if done.as_ref().is_err_and(bootstrap::never_rewinds) {
                postgres.facts.set(|k| k.in_vain = Some(want.revision));
            }
            done.map(|()| Reached::default())
        }
        kind => {
            match postgres.facts.known().data {
                Data::Good { .. } => {}
                Data::Foreign(what) => return Err(Error::Unfit(what)),
                _ => return Err(Error::Unfit("there is no data that PostgreSQL could run on".into())),
            }
            match kind {
                WantKind::Detached => postgres.detach().await.map(|_| Reached::default()),
                WantKind::Follow { leader, epoch, tag, slot, gate } => {
                    postgres.follow(leader, epoch, tag, slot, *gate).await
                }
                WantKind::Lead { epoch, rule, gate } => postgres.lead(epoch, rule, *gate).await,
                _ => Ok(Reached::default()),
            }
        }
    }
}

/// Kills a server that somebody else made writable.
async fn kill_rogue(postgres: &Postgres) -> Result<(), Error> {
    if let Running::Primary { epoch, .. } = postgres.look().await?
        && epoch.parse::<pgconvoy_terms::Epoch>().is_err()
    {
        tracing::error!("killing PostgreSQL: it was made writable outside of any epoch");
        postgres.fence().await?;
    }
    Ok(())
}

/// Finds out what is on the volume, once.
async fn look_at_volume(postgres: &Postgres) -> Result<(), Error> {
    if matches!(postgres.facts.known().data, Data::Unknown) {
        postgres.look_at_volume_again().await?;
    }
    Ok(())
}

impl Postgres {
    /// Finds out what is on the volume.
    pub(crate) async fn look_at_volume_again(&self) -> Result<(), Error> {
        let (major, _) = self.image().await?;
        let (paths, identity) = (self.paths().clone(), &self.config.identity);
        let (set_uid, adopt) = (identity.set_uid.clone(), identity.adopt);
        let inspect = move || volume::inspect(&paths, &set_uid, adopt, major);
        let data = self.disk.run("looking at the volume", FILES, inspect).await?;
        tracing::info!(?data, "looked at the volume");
        self.facts.set(|k| k.data = data);
        Ok(())
    }
}

/// Renews the permission, and fences at once when that is wanted: by a path of its own that no SQL, disk or step holds up.
pub(crate) async fn guard(postgres: Arc<Postgres>) {
    let mut want = postgres.want.clone();
    let mut told: Option<(String, Permission)> = None;
    loop {
        let (now, permission) = want.borrow_and_update().clone();
        if now.kind == WantKind::Fenced && postgres.facts.known().applied != now.revision {
            match postgres.supervisor.fence_now().await {
                Ok(()) | Err(supervisor::Error::Absent(_)) => postgres.facts.forget_server(),
                Err(e) => tracing::error!(error = %e, "fencing failed; the permission ends by itself"),
            }
            told = None;
        } else {
            told = renew(&postgres, &now.kind, permission, told).await;
        }
        tokio::select! {
            changed = want.changed() => if changed.is_err() { return },
            () = sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Tells the supervisor the permission when it matters. Never for a server whose epoch is not the wanted one: a deposed
/// leader does not get a follower's permission.
async fn renew(
    postgres: &Postgres,
    kind: &WantKind,
    permission: Permission,
    told: Option<(String, Permission)>,
) -> Option<(String, Permission)> {
    let epoch = match kind {
        WantKind::Lead { epoch, .. } => epoch.to_string(),
        WantKind::Detached | WantKind::Follow { .. } => super::server::STANDBY.to_owned(),
        _ => return told,
    };
    if let Some((of, last)) = &told
        && *of == epoch
        && !matters(*last, permission, Boottime::now())
    {
        return told;
    }
    match postgres.supervisor.permit(&epoch, supervisor::permit(permission)).await {
        Ok(()) => Some((epoch, permission)),
        Err(e) => {
            let expected = matches!(e.code(), Some(ErrorCode::Stopped | ErrorCode::Epoch))
                || matches!(e, supervisor::Error::Absent(_));
            if !expected {
                tracing::warn!(error = %e, "the permission could not be renewed");
            }
            None
        }
    }
}

/// Whether the supervisor must hear of this: it is shorter, of another kind, or a third of the time has gone.
fn matters(told: Permission, now: Permission, clock: Boottime) -> bool {
    match (supervisor::permit(told), supervisor::permit(now)) {
        (Permit::Forever, Permit::Forever) => false,
        (Permit::Until(told), Permit::Until(now)) => now < told || told.remaining(clock) * 3 < now.remaining(clock) * 2,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_ha::Instant as At;

    #[test]
    fn a_permission_is_renewed_when_a_third_of_it_is_gone() {
        let until = |t| Permission::Until(At(t));
        let clock = Boottime(100_000);
        assert!(!matters(until(128_000), until(130_000), clock));
        assert!(matters(until(119_000), until(130_000), clock));
        assert!(matters(until(129_000), until(128_000), clock), "shorter counts at once");
        assert!(matters(until(129_000), Permission::Forever, clock) && matters(Permission::Forever, until(1), clock));
        assert!(!matters(Permission::Forever, Permission::Forever, clock));
    }
}

//! Every member that keeps WAL for the archive looks after the room that it takes, whoever leads and whatever the store does.

use super::{
    backlog::{Backlog, Step},
    metrics::Metrics,
    role::Role,
};
use crate::{
    coordination::{About, Events},
    postgres::DriverHandle,
};
use std::{
    convert::Infallible,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::sleep};

/// Between two looks, and when it may be full soon. Long: what comes in between must find room in what is kept free.
const LOOK: Duration = Duration::from_secs(1);
const URGENT: Duration = Duration::from_millis(200);
/// While PostgreSQL cannot be asked.
const AGAIN: Duration = Duration::from_secs(5);

/// What there is to tell of WAL that waits for the archive, in sentences.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// It waits.
    pub(crate) waits: Option<String>,
    /// Some was given up, and nothing behind it is archived yet.
    pub(crate) given_up: Option<String>,
}

pub(super) struct Watcher {
    pub(super) driver: DriverHandle,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
    pub(super) roles: watch::Receiver<Role>,
    /// How it stands, for the status.
    pub(super) told: watch::Sender<Told>,
}

impl Watcher {
    pub(super) async fn run(self) -> Infallible {
        let mut archivist = self.driver.archivist();
        let mut backlog = Backlog::default();
        // Where the slot stood after something was given up.
        let mut given_up = None;
        loop {
            let room = match archivist.room().await {
                Ok(Some(room)) => room,
                // No slot, so nothing is kept.
                Ok(None) => {
                    backlog = Backlog::default();
                    self.metrics.show_left(0);
                    self.told.send_if_modified(|t| std::mem::take(t) != Told::default());
                    sleep(LOOK).await;
                    continue;
                }
                Err(e) => {
                    tracing::debug!(error = %e, "how much WAL waits for the archive is not known");
                    sleep(AGAIN).await;
                    continue;
                }
            };
            if given_up.is_some_and(|at| room.from > at) {
                // Something behind it is archived.
                given_up = None;
                self.told.send_modify(|t| t.given_up = None);
            }
            match backlog.look(Instant::now(), &room) {
                Step::Same => {}
                Step::Stands(Some(text)) => {
                    self.events.warn(self.about(), "ArchiveBacklog", &text);
                    self.told.send_modify(|t| t.waits = Some(text));
                }
                Step::Stands(None) => {
                    self.events.tell(self.about(), "ArchiveBacklog", "the WAL that waited for the archive is archived");
                    self.told.send_modify(|t| t.waits = None);
                }
                Step::GiveUp(why) => {
                    self.events.warn(self.about(), "ArchiveGivenUp", &why);
                    self.metrics.gave_up();
                    self.told.send_replace(Told { waits: None, given_up: Some(why) });
                    if let Err(e) = archivist.give_up().await {
                        tracing::error!("WAL that waits for the archive could not be given up: {e}");
                    }
                    given_up = archivist.room().await.ok().flatten().map(|r| r.from);
                }
            }
            self.metrics.show_left(backlog.left());
            sleep(if backlog.is_urgent() { URGENT } else { LOOK }).await;
        }
    }

    fn about(&self) -> About {
        // What a follower keeps is its own volume's matter.
        if matches!(*self.roles.borrow(), Role::Leads { .. }) { About::Set } else { About::Pod }
    }
}

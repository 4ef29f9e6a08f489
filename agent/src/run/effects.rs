//! Carrying out the core's effects.

use crate::coordination::{About, Events, TermClient};
use crate::peers::{Asked, Peers};
use crate::postgres::DriverHandle;
use crate::record;
use crate::requests::Requests;
use crate::settings::Identity;
use anyhow::Result;
use pgconvoy_ha::{Answer, AskId, Effect, Event};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Questions whose answer is still to come; the server lets no more in at once.
const OPEN_QUESTIONS: usize = 256;

/// Does what happens once.
pub(super) struct Hands {
    state: PathBuf,
    set_uid: String,
    register: TermClient,
    peers: Peers,
    driver: DriverHandle,
    events: Events,
    pub(super) requests: Requests,
    happened: mpsc::Sender<Event>,
    questions: BTreeMap<AskId, oneshot::Sender<Answer>>,
    next: u64,
}

impl Hands {
    pub(super) fn new(
        me: &Identity,
        register: TermClient,
        peers: Peers,
        driver: DriverHandle,
        events: Events,
        requests: Requests,
        happened: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            state: me.paths.state.clone(),
            set_uid: me.set_uid.clone(),
            register,
            peers,
            driver,
            events,
            requests,
            happened,
            questions: BTreeMap::new(),
            next: 1,
        }
    }

    /// A peer's question becomes an event; its answer is kept for.
    pub(super) fn take_question(&mut self, asked: Asked) -> Event {
        let id = AskId(self.next);
        self.next += 1;
        // Those that the asker no longer waits for go first; then the oldest.
        self.questions.retain(|_, answer| !answer.is_closed());
        while self.questions.len() >= OPEN_QUESTIONS {
            self.questions.pop_first();
        }
        self.questions.insert(id, asked.answer);
        Event::Asked { from: asked.from, id, ask: asked.ask }
    }

    pub(super) async fn carry_out(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::Persist(new) => {
                let (state, uid) = (self.state.clone(), self.set_uid.clone());
                tokio::task::spawn_blocking(move || record::write(&state, &uid, &new)).await??;
            }
            Effect::Swap { version, term } => {
                let register = self.register.clone();
                self.then(async move { Some(Event::Swapped(register.swap(&version, &term).await)) });
            }
            Effect::Read => {
                let register = self.register.clone();
                self.then(async move {
                    match register.read().await {
                        Ok((register, sent)) => Some(Event::Term { register, proof: Some(sent) }),
                        Err(why) => {
                            tracing::debug!("{why}");
                            None
                        }
                    }
                });
            }
            Effect::Ask { id, to, ask, within } => {
                let peers = self.peers.clone();
                self.then(async move {
                    let answer = peers.ask(&to, &ask, Duration::from_millis(within)).await;
                    Some(Event::Answered { id, from: to, answer })
                });
            }
            Effect::Reply { id, answer } => {
                if let Some(asker) = self.questions.remove(&id) {
                    // The asker may have given up: it will ask again.
                    let _ = asker.send(answer);
                }
            }
            Effect::Admit { id, epoch, member, position, from } => {
                if let Some(asker) = self.questions.remove(&id) {
                    let driver = self.driver.clone();
                    tokio::spawn(async move {
                        let _ = asker.send(driver.admit(epoch, member, position, from).await);
                    });
                }
            }
            Effect::Checkpoint => {
                let driver = self.driver.clone();
                self.then(async move {
                    driver.prepare_to_step_down().await;
                    Some(Event::Checkpointed)
                });
            }
            Effect::RefuseRequest { why } => self.requests.refused(why),
            Effect::Tell { reason, message } => self.events.tell(About::Set, reason, &message),
            Effect::Alarm { reason, message } => self.events.warn(About::Set, reason, &message),
        }
        Ok(())
    }

    /// Does something that takes time, beside the loop; what comes of it is an event.
    fn then(&self, deed: impl Future<Output = Option<Event>> + Send + 'static) {
        let happened = self.happened.clone();
        tokio::spawn(async move {
            if let Some(event) = deed.await {
                let _ = happened.send(event).await;
            }
        });
    }
}

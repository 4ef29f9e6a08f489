//! What people should know, as Kubernetes Events and in the log.

use super::error::call;
use super::{ApiError, Metrics};
use crate::settings::Identity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use pgconvoy_crds::names::MANAGER_AGENT_PREFIX;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Events that wait to be written; more are dropped and counted.
const QUEUE: usize = 64;
/// The same words about the same object are said once in so long.
const REPEAT: Duration = Duration::from_secs(600);
/// How many recent events are remembered for that.
const RECENT: usize = 64;
/// For so long an Event is tried to be written.
const PATIENCE: Duration = Duration::from_secs(300);
/// The API server's limit for the text of an event.
const NOTE_LIMIT: usize = 1024;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The replica set.
    Set,
    /// This pod.
    Pod,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    about: About,
    warning: bool,
    reason: String,
    message: String,
}

/// Where events are handed in. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<Note>,
    recent: Arc<Mutex<Recent>>,
    metrics: Metrics,
}

impl Events {
    /// A queue, and the task that writes what is in it. The task ends only when every clone of the queue is dropped.
    pub fn start(client: Client, me: &Identity, metrics: Metrics) -> (Self, JoinHandle<()>) {
        let (queue, notes) = mpsc::channel(QUEUE);
        let writer = Writer { api: Api::namespaced(client, &me.namespace), me: me.clone(), metrics: metrics.clone() };
        (Self { queue, recent: Arc::default(), metrics }, tokio::spawn(writer.run(notes)))
    }

    /// A person must look: logged as a warning, and an Event of type Warning. `reason`: one word in CamelCase.
    pub fn warn(&self, about: About, reason: &str, message: &str) {
        self.say(Note { about, warning: true, reason: reason.to_owned(), message: message.to_owned() });
    }

    /// Something happened that people may want to read: logged, and an Event of type Normal.
    pub fn tell(&self, about: About, reason: &str, message: &str) {
        self.say(Note { about, warning: false, reason: reason.to_owned(), message: message.to_owned() });
    }

    fn say(&self, note: Note) {
        let new = self.recent.lock().unwrap_or_else(PoisonError::into_inner).is_new(&note, Instant::now());
        if !new {
            return;
        }
        if note.warning {
            tracing::warn!(reason = note.reason, "{}", note.message);
        } else {
            tracing::info!(reason = note.reason, "{}", note.message);
        }
        if self.queue.try_send(note).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

/// What was said lately.
#[derive(Debug, Default)]
struct Recent(VecDeque<(Note, Instant)>);

impl Recent {
    fn is_new(&mut self, note: &Note, now: Instant) -> bool {
        self.0.retain(|(_, said)| now.duration_since(*said) < REPEAT);
        if self.0.iter().any(|(n, _)| n == note) {
            return false;
        }
        if self.0.len() == RECENT {
            self.0.pop_front();
        }
        self.0.push_back((note.clone(), now));
        true
    }
}

struct Writer {
    api: Api<Event>,
    me: Identity,
    metrics: Metrics,
}

impl Writer {
    async fn run(self, mut notes: mpsc::Receiver<Note>) {
        while let Some(note) = notes.recv().await {
            let written = self.write(&event(&self.me, &note, crate::clock::wall())).await;
            let counter = if written { &self.metrics.events_written } else { &self.metrics.events_dropped };
            counter.inc();
        }
    }

    /// What happened while the API was away is what people want to read afterwards: tried for some time. Meanwhile the
    /// queue fills, and then loses the newest.
    async fn write(&self, event: &Event) -> bool {
        let start = Instant::now();
        let mut pause = Duration::from_millis(500);
        loop {
            match call("writing an Event", self.api.create(&PostParams::default(), event)).await {
                // Its name is its own: somebody else with it is an earlier attempt that had arrived.
                Ok(_) | Err(ApiError::Conflict { .. }) => return true,
                Err(error @ (ApiError::NoAnswer { .. } | ApiError::Unavailable { .. }))
                    if start.elapsed() < PATIENCE =>
                {
                    tracing::debug!("{error}");
                }
                Err(error) => {
                    tracing::debug!("{error}; it is lost");
                    return false;
                }
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(Duration::from_secs(15));
        }
    }
}

fn event(me: &Identity, note: &Note, now: Timestamp) -> Event {
    let regarding = match note.about {
        About::Set => ObjectReference {
            api_version: Some(format!("{}/{}", pgconvoy_crds::GROUP, pgconvoy_crds::VERSION)),
            kind: Some("PgReplicaSet".to_owned()),
            name: Some(me.member.set().to_owned()),
            namespace: Some(me.namespace.clone()),
            uid: Some(me.set_uid.clone()),
            ..ObjectReference::default()
        },
        About::Pod => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(me.member.to_string()),
            namespace: Some(me.namespace.clone()),
            uid: Some(me.pod_uid.clone()),
            ..ObjectReference::default()
        },
    };
    let mut text = String::new();
    for c in note.message.chars() {
        if text.len() + c.len_utf8() > NOTE_LIMIT {
            break;
        }
        text.push(c);
    }
    Event {
        metadata: ObjectMeta {
            // Nanoseconds of the wall clock and the member's name: two events never share both.
            name: Some(format!("{}.{:x}", me.member, now.as_nanosecond())),
            namespace: Some(me.namespace.clone()),
            ..ObjectMeta::default()
        },
        action: Some(note.reason.clone()),
        event_time: Some(MicroTime(now)),
        note: Some(text),
        reason: Some(note.reason.clone()),
        regarding: Some(regarding),
        reporting_controller: Some("pgconvoy.dev/agent".to_owned()),
        reporting_instance: Some(format!("{MANAGER_AGENT_PREFIX}{}", me.member)),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        Note { about: About::Pod, warning: true, reason: "Reason".into(), message: message.into() }
    }

    #[test]
    fn the_same_words_are_said_once_in_ten_minutes() {
        let mut recent = Recent::default();
        let start = Instant::now();
        assert!(recent.is_new(&note("a"), start));
        assert!(!recent.is_new(&note("a"), start + Duration::from_secs(599)));
        assert!(recent.is_new(&note("b"), start));
        assert!(recent.is_new(&note("a"), start + Duration::from_secs(601)));
        for n in 0..1_000 {
            recent.is_new(&note(&n.to_string()), start);
        }
        assert_eq!(recent.0.len(), RECENT, "what is remembered is bounded");
    }
}

//! This member's own entry in the set's status: written when something happened, by server-side apply.

use super::error::call;
use super::watching::untyped;
use super::{About, ApiError, Events, Metrics};
use crate::settings::Identity;
use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use pgconvoy_crds::names::MANAGER_AGENT_PREFIX;
use pgconvoy_crds::{GROUP, MemberState, PgReplicaSet, VERSION};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// At most one write in so long; of several changes within it, the last is written.
const EVERY: Duration = Duration::from_secs(1);
/// What others wait for is written sooner after the last write.
const EVERY_NEWS: Duration = Duration::from_millis(100);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(30);

/// Writes `state` into `status.memberStates` whenever its content changed. `name`, `podUid`, `node` and `since` are
/// filled in here; an entry without a `state` is not written. The task ends only when the sender is dropped.
pub fn report(
    client: Client,
    me: &Identity,
    state: watch::Receiver<MemberState>,
    events: Events,
    metrics: Metrics,
) -> JoinHandle<()> {
    let reporter = Reporter {
        api: untyped::<PgReplicaSet>(client, &me.namespace),
        me: me.clone(),
        written: None,
        since: None,
        events,
        metrics,
    };
    tokio::spawn(reporter.run(state))
}

/// After a write of `written`: [`EVERY`], or until there is news that it does not tell. What came meanwhile counts as a
/// change.
async fn rest(written: Option<&MemberState>, states: &mut watch::Receiver<MemberState>) {
    let told = written.map(news);
    let newer = async {
        tokio::time::sleep(EVERY_NEWS).await;
        let new = |s: &MemberState| news(s) != News::default() && Some(news(s)) != told;
        if states.wait_for(new).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let _ = tokio::time::timeout(EVERY, newer).await;
    // Looking for news has seen other changes, too.
    states.mark_changed();
}

struct Reporter {
    /// Untyped: a word in another member's entry that this agent does not know must not hide its own.
    api: Api<DynamicObject>,
    me: Identity,
    /// What stands in the status, as far as known.
    written: Option<MemberState>,
    /// The state that was reported last and its time, also while it could not be written.
    since: Option<(Essence, String)>,
    events: Events,
    metrics: Metrics,
}

/// What makes a state another one; a changed message does not.
type Essence = (Option<pgconvoy_crds::MemberRole>, Option<pgconvoy_crds::MemberPhase>);

/// What others wait for.
#[derive(Debug, Default, PartialEq, Eq)]
struct News<'a> {
    /// What a person must see to.
    trouble: (Option<&'a str>, Option<&'a str>),
    /// What a member without it counts for: nothing. The leader may count on its new data in a moment, and whoever then still
    /// reads here that there is none would say that a copy is lost.
    incarnation: Option<&'a str>,
}

fn news(state: &MemberState) -> News<'_> {
    let trouble = (state.reason.as_deref(), state.configuration_error.as_deref());
    News { trouble, incarnation: state.incarnation.as_deref() }
}

fn essence(state: &MemberState) -> Essence {
    (state.role, state.state)
}

impl Reporter {
    async fn run(mut self, mut states: watch::Receiver<MemberState>) {
        self.remember().await;
        let mut failures = 0_u32;
        loop {
            let wanted = states.borrow_and_update().clone();
            let mut pause = None;
            if wanted.state.is_some() {
                let entry = self.entry(wanted, crate::clock::wall());
                if self.written.as_ref() != Some(&entry) {
                    if self.write(entry).await {
                        failures = 0;
                        rest(self.written.as_ref(), &mut states).await;
                        // It may have changed meanwhile; `borrow_and_update` above sees it.
                        if states.has_changed().unwrap_or(false) {
                            continue;
                        }
                    } else {
                        pause = Some(EVERY.saturating_mul(1 << failures.min(8)).min(LONGEST));
                        failures = failures.saturating_add(1);
                    }
                }
            }
            let again = async {
                match pause {
                    // The last state wins, but a change does not make a failing server be asked more often.
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            let changed = async {
                let changed = states.changed().await;
                if pause.is_some() && changed.is_ok() {
                    std::future::pending::<()>().await;
                }
                changed
            };
            tokio::select! {
                changed = changed => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// After a restart: what this member wrote before, so that nothing is written anew that did not change.
    async fn remember(&mut self) {
        let name = self.me.member.set();
        match call(&format!("reading PgReplicaSet {name}"), self.api.get(name)).await {
            Ok(set) => {
                let member = self.me.member.to_string();
                let entries = set.data.pointer("/status/memberStates").and_then(|e| e.as_array());
                let mine = entries.and_then(|e| e.iter().find(|s| s["name"] == member.as_str()));
                self.written = mine.and_then(|s| serde_json::from_value(s.clone()).ok());
                self.since = self.written.as_ref().and_then(|w| Some((essence(w), w.since.clone()?)));
            }
            Err(error) => tracing::debug!("{error}"),
        }
    }

    /// The whole entry.
    fn entry(&mut self, mut state: MemberState, now: Timestamp) -> MemberState {
        state.name = self.me.member.to_string();
        state.pod_uid = Some(self.me.pod_uid.clone());
        state.node = Some(self.me.node.clone()).filter(|n| !n.is_empty());
        let essence = essence(&state);
        let since = match &self.since {
            Some((old, since)) if *old == essence => since.clone(),
            _ => now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        };
        self.since = Some((essence, since.clone()));
        state.since = Some(since);
        state
    }

    async fn write(&mut self, entry: MemberState) -> bool {
        let name = self.me.member.set();
        let manager = format!("{MANAGER_AGENT_PREFIX}{}", self.me.member);
        let patch = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "PgReplicaSet",
            "metadata": { "name": name },
            "status": { "memberStates": [entry] },
        });
        let what = format!("writing the status of {} into PgReplicaSet {name}", self.me.member);
        let params = PatchParams::apply(&manager).force();
        match call(&what, self.api.patch_status(name, &params, &Patch::Apply(&patch))).await {
            Ok(_) => {
                self.metrics.status_writes.inc();
                self.written = Some(entry);
                true
            }
            Err(error) => {
                self.metrics.status_errors.inc();
                // It may have been done.
                self.written = None;
                tracing::debug!("{error}");
                if let ApiError::Refused { .. } = error {
                    self.events.warn(About::Pod, "StatusRefused", &error.to_string());
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn refused() -> MemberState {
        MemberState { configuration_error: Some("no".into()), ..MemberState::default() }
    }

    #[tokio::test]
    async fn trouble_and_new_data_are_told_soon_and_no_change_is_missed() {
        let begin = Instant::now();
        let (say, mut states) = watch::channel(MemberState::default());
        say.send(refused()).unwrap();
        rest(Some(&MemberState::default()), &mut states).await;
        assert!(begin.elapsed() < EVERY, "new trouble waits {:?}", begin.elapsed());
        assert!(states.has_changed().unwrap());
        let begin = Instant::now();
        states.borrow_and_update();
        say.send(MemberState { message: Some("another".into()), ..refused() }).unwrap();
        rest(Some(&refused()), &mut states).await;
        assert!(begin.elapsed() >= EVERY, "the same trouble waits {:?} only", begin.elapsed());
        assert!(states.has_changed().unwrap(), "the other message is never written");
    }
}

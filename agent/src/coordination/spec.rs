//! The PgReplicaSet: what the user asks for, as far as an agent acts on it.

use super::watching::{Watching, follow, untyped};
use super::{About, Events, Metrics, remembered};
use crate::settings::{Identity, PostgresSettings};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Client;
use kube::api::{DynamicObject, ObjectMeta};
use kube::runtime::watcher::{self, Event};
use pgconvoy_crds::{PgReplicaSet, PgReplicaSetSpec};
use pgconvoy_ha::Spec;
use pgconvoy_terms::MemberName;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the spec says, once it has been read; the last good one stays in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// For the failover protocol.
    pub spec: Spec,
    /// For PostgreSQL.
    pub settings: PostgresSettings,
}

/// File in the state directory with the last good object.
const FILE: &str = "spec.json";
/// So long after the start the one on the volume is taken if the API has not answered. Short: an old spec is acted on
/// although the new one is about to come. Long: a restart while the API is away takes as long.
const REMEMBER: Duration = Duration::from_secs(5);

/// Watches the PgReplicaSet. `None` until it has been read for the first time; when the API does not answer after a
/// restart, the last good one is taken from the volume. An object that does not parse, or that is another set of the
/// same name, is an alarm and changes nothing.
pub fn watch_spec(
    client: Client,
    me: &Identity,
    watched: watch::Sender<Option<Watched>>,
    events: Events,
    metrics: Metrics,
) -> JoinHandle<()> {
    let api = untyped::<PgReplicaSet>(client, &me.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", me.member.set()));
    let watching = Watch {
        set: me.member.set().to_owned(),
        set_uid: me.set_uid.clone(),
        file: me.paths.state.join(FILE),
        watched: watched.clone(),
        events,
    };
    let fallback = watching.fallback(watched);
    tokio::spawn(async move {
        let watch = follow(api, config, "the PgReplicaSet", metrics, watching);
        let remember = async {
            tokio::time::sleep(REMEMBER).await;
            fallback();
        };
        tokio::join!(watch, remember);
    })
}

struct Watch {
    set: String,
    set_uid: String,
    file: PathBuf,
    watched: watch::Sender<Option<Watched>>,
    events: Events,
}

impl Watch {
    /// Takes what the volume remembers, unless something newer has come.
    fn fallback(&self, watched: watch::Sender<Option<Watched>>) -> impl FnOnce() + Send + use<> {
        let (set, set_uid, file) = (self.set.clone(), self.set_uid.clone(), self.file.clone());
        move || {
            if watched.borrow().is_some() {
                return;
            }
            let Some(object) = remembered::read::<DynamicObject>(&file) else { return };
            match read(&set, &set_uid, &object) {
                Ok(known) => {
                    tracing::warn!(
                        "the API has not answered yet: generation {} of PgReplicaSet {set} is taken from the volume",
                        known.settings.generation
                    );
                    watched.send_if_modified(|w| w.is_none() && w.replace(known).is_none());
                }
                Err(why) => tracing::warn!("{} is not used: {why}", file.display()),
            }
        }
    }

    /// Keeps what matters of a good object.
    fn remember(&self, object: &DynamicObject) {
        let slim = DynamicObject {
            types: None,
            metadata: ObjectMeta {
                name: object.metadata.name.clone(),
                uid: object.metadata.uid.clone(),
                generation: object.metadata.generation,
                ..ObjectMeta::default()
            },
            data: json!({
                "spec": object.data.get("spec"),
                "status": { "roster": object.data.pointer("/status/roster").cloned().unwrap_or_else(|| json!([])) },
            }),
        };
        if let Err(why) = remembered::write(&self.file, &slim) {
            tracing::warn!(
                "the spec cannot be written to {}: {why}; a restart while the API is away would not know it",
                self.file.display()
            );
        }
    }
}

impl Watching<DynamicObject> for Watch {
    async fn take(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::InitApply(object) | Event::Apply(object) => match read(&self.set, &self.set_uid, &object) {
                Ok(new) => {
                    let changed = self.watched.send_if_modified(|old| {
                        let changed = old.as_ref() != Some(&new);
                        *old = Some(new);
                        changed
                    });
                    if changed {
                        self.remember(&object);
                    }
                }
                Err(why) => self.events.warn(About::Set, "SpecUnreadable", &why),
            },
            Event::Delete(_) => {
                tracing::info!("PgReplicaSet {} was deleted; this member goes on until its pod is", self.set)
            }
            Event::Init | Event::InitDone => {}
        }
    }
}

fn read(set: &str, set_uid: &str, object: &DynamicObject) -> Result<Watched, String> {
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    if uid != set_uid {
        return Err(format!(
            "PgReplicaSet {set} has UID {uid}, but this member's data is of the set with UID {set_uid}; its spec is not \
             followed"
        ));
    }
    let part = |name: &str| object.data.get(name).cloned().unwrap_or_default();
    let spec: PgReplicaSetSpec = serde_json::from_value(part("spec")).map_err(|e| {
        format!("the spec of PgReplicaSet {set} is not understood by this agent ({e}); the last one stays in force")
    })?;
    // Of the status only the roster matters, so only that must parse.
    let roster = part("status").get("roster").cloned().unwrap_or_else(|| json!([]));
    let roster: Vec<MemberName> = serde_json::from_value::<Vec<String>>(roster)
        .map_err(|e| e.to_string())
        .and_then(|names| names.iter().map(|n| n.parse::<MemberName>().map_err(|e| e.to_string())).collect())
        .map_err(|e| {
            format!("the roster of PgReplicaSet {set} is not understood ({e}); the last one stays in force")
        })?;
    if let Some(stranger) = roster.iter().find(|m| m.set() != set) {
        return Err(format!(
            "the roster of PgReplicaSet {set} names {stranger}, which is no member of it; it is not followed"
        ));
    }
    let postgresql = spec.postgresql.clone().unwrap_or_default();
    let memory = spec.resources.as_ref().and_then(|r| r.limits.as_ref()?.get("memory")).and_then(bytes);
    Ok(Watched {
        spec: Spec {
            roster: roster.iter().cloned().collect(),
            acknowledgements: spec.acknowledgements(),
            manual: spec.fails_over_by_hand(),
            degrade: spec.degrades(),
        },
        settings: PostgresSettings {
            parameters: postgresql
                .parameters
                .into_iter()
                .map(|(name, value)| {
                    let text = match value {
                        IntOrString::Int(i) => i.to_string(),
                        IntOrString::String(s) => s,
                    };
                    (name, text)
                })
                .collect(),
            hba: postgresql.hba,
            initdb: spec.initdb(),
            restore: spec.from_archive().cloned(),
            roster,
            archive: spec.archive.is_some(),
            generation: object.metadata.generation.unwrap_or(0),
            memory_limit: memory,
        },
    })
}

/// A Kubernetes quantity in whole bytes, rounded down; `None` when it is none, negative, or beyond all memory.
fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let number = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '+').len();
    let (number, suffix) = text.split_at(number);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_f64.powi(power)
        }
    };
    let bytes = (number * factor).floor();
    // 2^63: more than any machine has, and exactly representable.
    (0.0..9_223_372_036_854_775_808.0).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn object(spec: Value, status: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgReplicaSet",
            "metadata": { "name": "orders", "uid": "u1", "generation": 4 },
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn spec() -> Value {
        json!({
            "image": "postgres:17", "members": 3, "storage": { "size": "1Gi" },
            "postgresql": { "parameters": { "work_mem": "8MB", "max_connections": 200 }, "hba": ["hostssl all all all md5"] },
            "resources": { "limits": { "memory": "1536Mi" } },
            "fromALaterVersion": { "x": 1 },
        })
    }

    #[test]
    fn what_the_user_asks_for_is_read() {
        let w = read("orders", "u1", &object(spec(), json!({ "roster": ["orders-1", "orders-2"], "conditions": "?" })))
            .unwrap();
        assert_eq!(w.spec.roster, BTreeSet::from([MemberName::new("orders", 1), MemberName::new("orders", 2)]));
        assert_eq!(w.spec.acknowledgements, 1);
        assert_eq!(w.settings.parameters["max_connections"], "200");
        assert_eq!(w.settings.parameters["work_mem"], "8MB");
        assert_eq!(w.settings.hba, ["hostssl all all all md5"]);
        assert_eq!((w.settings.generation, w.settings.memory_limit), (4, Some(1536 << 20)));
        assert_eq!(w.settings.initdb.database.as_deref(), Some("app"));
        let young = read("orders", "u1", &object(spec(), Value::Null)).unwrap();
        assert!(young.spec.roster.is_empty(), "not known yet");
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_sentence() {
        let err = |o: &DynamicObject| read("orders", "u1", o).unwrap_err();
        let mut other = object(spec(), Value::Null);
        other.metadata.uid = Some("u2".into());
        assert!(err(&other).contains("u2"));
        let mut bad = spec();
        bad["members"] = json!("three");
        assert!(err(&object(bad, Value::Null)).contains("spec"));
        assert!(err(&object(spec(), json!({ "roster": ["orders-0"] }))).contains("roster"));
        assert!(err(&object(spec(), json!({ "roster": ["orders-1", "other-1"] }))).contains("other-1"));
    }

    #[test]
    fn quantities_are_kubernetes_own() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("1073741824", Some(1 << 30)),
            ("1Gi", Some(1 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("512Mi", Some(512 << 20)),
            ("64Ki", Some(64 << 10)),
            ("2G", Some(2_000_000_000)),
            ("1e9", Some(1_000_000_000)),
            ("5E3", Some(5_000)),
            ("128974848000m", Some(128_974_848)),
            ("-1", None),
            ("", None),
            ("Gi", None),
            ("1Q", None),
            ("1e400", None),
            ("9999Ei", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), wanted, "{text:?}");
        }
    }
}

//! Pods get a node, run, and end when they are told to.

use super::{At, MISSING, RESTART};
use pgconvoy_crds::{names, pod};
use pgconvoy_embedded::api::text;
use serde_json::{Value, json};
use std::sync::Arc;

/// Whether a pod is on its way out.
pub(super) fn going(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_some()
}

/// Whether its containers run, and go on.
pub(super) fn runs(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Running" && !going(pod)
}

/// What a parameter of the spec that takes effect at a start says.
pub(super) fn asked(set: &Value) -> String {
    set.pointer("/spec/postgresql/parameters").and_then(|p| p.get(RESTART)).map(Value::to_string).unwrap_or_default()
}

/// What it said when PostgreSQL was started in this pod.
pub(super) fn started_with(pod: &Value) -> String {
    let of = |c: &&Value| c["name"] == pod::CONTAINER_POSTGRES;
    let container = pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten().find(of);
    container
        .and_then(|c| c["containerID"].as_str()?.rsplit_once('|'))
        .map(|(_, with)| with.to_owned())
        .unwrap_or_default()
}

impl At<'_> {
    fn all_pods(&self) -> Vec<Arc<Value>> {
        let pods = self.of.pods.clone();
        let mut all = self.list(&pods, names::LABEL_SET);
        all.extend(self.list(&pods, names::LABEL_PULLS_FOR));
        all
    }

    /// A pod that was told to is gone.
    pub(super) fn end_pod(&mut self) -> bool {
        let pods = self.of.pods.clone();
        let Some(pod) = self.all_pods().into_iter().find(|p| going(p)) else { return false };
        self.api.end(&pods, self.namespace, text(&pod, "/metadata/name"))
    }

    /// A pod gets a node, or the status that it should have.
    pub(super) fn run_pod(&mut self) -> bool {
        let pods = self.of.pods.clone();
        let set = self.api.object(&self.of.sets, self.namespace, self.name).unwrap_or_default();
        for pod in self.all_pods() {
            let name = text(&pod, "/metadata/name").to_owned();
            if text(&pod, "/spec/nodeName").is_empty() {
                let node = name.rsplit('-').next().unwrap_or_default();
                if self.api.bind(&pods, self.namespace, &name, &format!("n{node}")) {
                    return true;
                }
                continue;
            }
            let wanted = status(&pod, &set);
            let as_it_is = |field: &str| holds(&pod["status"][field], &wanted[field]);
            if !["phase", "initContainerStatuses", "containerStatuses"].into_iter().all(as_it_is) {
                return self.say(&pods, &name, wanted);
            }
        }
        false
    }
}

/// Whether a value says all of what is wanted; an API server adds what it fills in itself.
fn holds(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (_, Value::Null) => true,
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(k, w)| there.get(k).is_some_and(|t| holds(t, w)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(t, w)| holds(t, w))
        }
        (there, wanted) => there == wanted,
    }
}

fn status(pod: &Value, set: &Value) -> Value {
    let containers = |of: &str| pod["spec"][of].as_array().cloned().unwrap_or_default();
    let puller = pod.pointer("/metadata/labels").and_then(|l| l.get(names::LABEL_PULLS_FOR)).is_some();
    let ran = pod.pointer("/status/containerStatuses").is_some() && text(pod, "/status/phase") == "Running";
    let with = if ran { started_with(pod) } else { asked(set) };
    let mut waits = false;
    let mut of = |container: &Value, over: bool| {
        let (name, image) = (text(container, "/name"), text(container, "/image"));
        let mut status = json!({
            "name": name, "image": image, "imageID": "", "restartCount": 0, "ready": true,
            "containerID": format!("faked://{}/{image}|{}", text(pod, "/metadata/uid"), if name == pod::CONTAINER_POSTGRES { with.as_str() } else { "" }),
        });
        if image.contains(MISSING) {
            waits = true;
            status["ready"] = json!(false);
            status["state"] = json!({ "waiting": { "reason": "ErrImagePull", "message": "not found" } });
        } else if over {
            status["state"] = json!({ "terminated": { "exitCode": 0, "reason": "Completed" } });
        }
        status
    };
    let init: Vec<Value> =
        containers("initContainers").iter().map(|c| of(c, c["name"] == pod::CONTAINER_PLACE)).collect();
    let main: Vec<Value> = containers("containers").iter().map(|c| of(c, puller)).collect();
    let phase = match (waits, puller) {
        (true, _) => "Pending",
        (false, true) => "Succeeded",
        (false, false) => "Running",
    };
    let mut status = json!({ "phase": phase, "containerStatuses": main });
    if !init.is_empty() {
        status["initContainerStatuses"] = json!(init);
    }
    status
}

//! Another version of pgconvoy itself: agents are replaced in place, and nobody who uses the database notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

use pgconvoy_e2e::{Client, Cluster, Namespace, OPERATOR_NAMESPACE, eventually, with_operator};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(180);

/// The operator's argument that names the agents' image, as long as this lives.
struct AgentImage<'a> {
    cluster: &'a Cluster,
    installed: String,
}

impl<'a> AgentImage<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let deployment = cluster.get(&["-n", OPERATOR_NAMESPACE, "deployment", "pgconvoy-operator"]).unwrap();
        let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap().clone();
        let image = arguments.iter().find_map(|a| a.as_str()?.strip_prefix("--agent-image=")).unwrap().to_owned();
        Self { cluster, installed: image }
    }

    /// Installs an operator that brings this image.
    fn set(&self, image: &str) -> anyhow::Result<()> {
        let system = ["-n", OPERATOR_NAMESPACE];
        let text = self
            .cluster
            .kubectl(&[&["get"], &system[..], &["deployment", "pgconvoy-operator", "-o", "yaml"]].concat(), "")?;
        let lines = text.lines().map(|line| match line.split_once("--agent-image=") {
            Some((head, _)) => format!("{head}--agent-image={image}"),
            None => line.to_owned(),
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        self.cluster.kubectl(&[&system[..], &["replace", "-f", "-"]].concat(), &text)?;
        let rollout = ["rollout", "status", "deployment/pgconvoy-operator", "--timeout=100s"];
        self.cluster.kubectl(&[&system[..], &rollout].concat(), "")?;
        Ok(())
    }
}

impl Drop for AgentImage<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.set(&self.installed) {
            eprintln!("the operator of the next test brings another agent: {error:#}");
        }
    }
}

/// Image, container and UID of each member: what its pod is now.
fn agents(namespace: &Namespace) -> Vec<(String, String, String)> {
    let pods = namespace.get(&["pods", "-l", "pgconvoy.dev/member"]).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let agent = |pod: &serde_json::Value| {
        let of =
            |list: &serde_json::Value| list.as_array().unwrap().iter().find(|c| c["name"] == "agent").unwrap().clone();
        let (asked, runs) = (of(&pod["spec"]["initContainers"]), of(&pod["status"]["initContainerStatuses"]));
        (text(&asked["image"]), text(&runs["containerID"]), text(&pod["metadata"]["uid"]))
    };
    pods["items"].as_array().unwrap().iter().map(agent).collect()
}

#[test]
#[ignore = "needs a cluster: ./test brings one up"]
fn agents_are_replaced_in_place_and_no_write_fails() {
    let namespace = with_operator("agents").unwrap();
    let image = AgentImage::of(namespace.cluster());
    let set = namespace.example("quickstart.yaml", "quickstart").unwrap();
    set.ready(3, LATER).unwrap();
    let client = Client::start(&set).unwrap();
    let (epoch, before) = (set.epoch().unwrap(), agents(&namespace));
    client.start_writing().unwrap();

    // An image that is not to be had: it is said where it is missing, and nobody is disturbed.
    image.set("localhost:1/pgconvoy/agent:no-such-version").unwrap();
    eventually("a word about the image", SOON, || {
        let (status, reason, message) = set.condition("Configured")?;
        let said = message.contains("has the image localhost:1/pgconvoy/agent:no-such-version (");
        Ok((status == "False" && reason == "RollingOut" && said).then(|| println!("said: {message}")))
    })
    .unwrap();
    assert_eq!(agents(&namespace), before);

    // The next version.
    let next = "docker.io/pgconvoy/agent:next";
    namespace.cluster().bed().tag(&image.installed, next).unwrap();
    let begin = Instant::now();
    image.set(next).unwrap();
    eventually("the next version everywhere", LATER, || {
        let replaced = agents(&namespace).iter().all(|(image, ..)| image == next);
        Ok((replaced && set.condition("Configured")?.0 == "True").then_some(()))
    })
    .unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    set.ready(3, SOON).unwrap();
    let after = agents(&namespace);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.2, new.2, "a pod was made anew");
        assert_ne!(old.1, new.1, "an agent was not replaced");
    }
    assert!(namespace.get(&["pods", "-l", "pgconvoy.dev/pulls-for"]).unwrap()["items"].as_array().unwrap().is_empty());
    let tally = client.stop_writing().unwrap();
    println!("measured: agents of three members replaced: after {seconds:.1} s; {tally:?}");
    assert_eq!((tally.failed, tally.lost, set.epoch().unwrap()), (0, 0, epoch), "{tally:?}");
}

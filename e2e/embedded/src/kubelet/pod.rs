//! One pod, from its first process to its last.

use super::container::{Container, Ended};
use super::probe::{self, Verdict};
use super::volumes::Volumes;
use super::{Shared, environment, images, status};
use crate::api::{DeleteOptions, PatchKind, WriteOptions, text};
use crate::clock;
use crate::machine::container::Spec;
use crate::machine::network;
use crate::machine::rootfs::{Mount, Root};
use crate::machine::sandbox::Sandbox;
use crate::postgres;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Between two looks at what may have changed without anybody telling: volumes that were missing, probes that are due.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks at Secrets and ConfigMaps. The real kubelet takes up to a minute.
const REFRESH: Duration = Duration::from_secs(2);

struct Pod {
    shared: Arc<Shared>,
    object: Value,
    uid: String,
    own: PathBuf,
    token: String,
    started: String,
    sandbox: Option<Sandbox>,
    volumes: BTreeMap<String, PathBuf>,
    init: Vec<Container>,
    main: Vec<Container>,
    ended: mpsc::UnboundedSender<Ended>,
    probed: mpsc::UnboundedSender<(String, u32, bool, bool)>,
    /// When it must be gone.
    deadline: Option<Instant>,
    sidecars_told: bool,
    complained: String,
}

/// Runs a pod until it is gone.
pub(super) async fn run(shared: Arc<Shared>, mut objects: watch::Receiver<Value>) {
    let object = objects.borrow_and_update().clone();
    let uid = text(&object, "/metadata/uid").to_owned();
    let own = shared.settings.directory.join("pods").join(&uid);
    let token = format!("pod-{}", crate::cluster::random_name());
    let user = format!(
        "system:serviceaccount:{}:{}",
        text(&object, "/metadata/namespace"),
        text(&object, "/spec/serviceAccountName")
    );
    shared.server.let_in(&token, &user);
    let list = |at: &str| object.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default();
    let sidecar = |c: &Value| c["restartPolicy"] == "Always";
    let impatient = shared.settings.impatient;
    let (ended_in, mut ended) = mpsc::unbounded_channel();
    let (probed_in, mut probed) = mpsc::unbounded_channel();
    let mut pod = Pod {
        uid,
        own,
        token,
        started: clock::text(0),
        sandbox: None,
        volumes: BTreeMap::new(),
        init: list("/spec/initContainers").iter().map(|c| Container::new(c, sidecar(c), impatient)).collect(),
        main: list("/spec/containers").iter().map(|c| Container::new(c, false, impatient)).collect(),
        ended: ended_in,
        probed: probed_in,
        deadline: None,
        sidecars_told: false,
        complained: String::new(),
        object,
        shared,
    };
    let mut refreshed = Instant::now();
    loop {
        pod.look();
        if pod.over() {
            break;
        }
        if refreshed.elapsed() > REFRESH && pod.sandbox.is_some() {
            refreshed = Instant::now();
            // What cannot be had now stays as it is.
            let _ = pod.volume_set().ready();
        }
        pod.tell();
        tokio::select! {
            changed = objects.changed() => {
                if changed.is_err() {
                    return;
                }
                pod.object = objects.borrow_and_update().clone();
                pod.take_images();
            }
            Some(end) = ended.recv() => pod.take_end(&end),
            Some((name, life, readiness, well)) = probed.recv() => pod.take_probe(&name, life, readiness, well),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    pod.gone();
}

impl Pod {
    fn going(&self) -> bool {
        self.deadline.is_some()
    }

    fn name(&self) -> (&str, &str) {
        (text(&self.object, "/metadata/namespace"), text(&self.object, "/metadata/name"))
    }

    fn volume_set(&self) -> Volumes<'_> {
        Volumes {
            server: &self.shared.server,
            pod: &self.object,
            own: self.own.clone(),
            cluster: self.shared.settings.directory.clone(),
            token: &self.token,
        }
    }

    /// Does the next thing.
    fn look(&mut self) {
        if self.object.pointer("/metadata/deletionTimestamp").is_some() {
            self.stop();
            return;
        }
        if self.sandbox.is_none() {
            self.prepare();
            if self.sandbox.is_none() {
                return;
            }
        }
        // Init containers one after the other; a sidecar's turn is over when it runs.
        let mut turn = true;
        for i in 0..self.init.len() {
            let done = if self.init[i].sidecar { self.init[i].runs() } else { self.init[i].succeeded() };
            // A sidecar that ended is started again, whatever runs after it.
            let due = turn || (self.init[i].sidecar && self.init[i].life() > 0);
            if !done && due && !self.init[i].runs() {
                self.start(true, i);
            }
            turn &= done;
        }
        if turn || self.main.iter().any(|c| c.life() > 0) {
            for i in 0..self.main.len() {
                let over = matches!(self.main[i].state, super::container::State::Terminated { .. });
                if !self.main[i].runs() && !over {
                    self.start(false, i);
                }
            }
        }
        self.probe();
    }

    /// Volumes and network.
    fn prepare(&mut self) {
        match self.volume_set().ready() {
            Ok(volumes) => self.volumes = volumes,
            Err(why) => return self.complain("FailedMount", why),
        }
        let host = text(&self.object, "/spec/hostname");
        let host = if host.is_empty() { self.name().1 } else { host }.to_owned();
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        match std::fs::create_dir_all(&self.own).map_err(Into::into).and_then(|()| Sandbox::start(&host, number)) {
            Ok(sandbox) => {
                // The containers' environment names the address.
                self.object["status"]["podIP"] = json!(sandbox.address().to_string());
                self.sandbox = Some(sandbox);
            }
            Err(why) => self.complain("FailedCreatePodSandBox", format!("{why:#}")),
        }
    }

    fn complain(&mut self, reason: &str, why: String) {
        if self.complained != why {
            self.event("Warning", reason, &why);
            self.complained = why;
        }
    }

    fn start(&mut self, init: bool, i: usize) {
        let list = if init { &self.init } else { &self.main };
        let container = &list[i];
        if container.not_before.is_some_and(|t| Instant::now() < t) {
            return;
        }
        let image = match images::find(container.image(), &self.shared.settings) {
            Ok(image) => image,
            Err(why) => {
                let list = if init { &mut self.init } else { &mut self.main };
                list[i].waits("ErrImagePull", why.clone());
                return self.complain("Failed", why);
            }
        };
        let Some(spec) = self.spec(&container.spec, &image) else { return };
        let what = format!("{} stands for the image {}", image.is, container.image());
        let first = container.life() == 0;
        let logs = self.shared.settings.directory.join("logs").join(&self.uid);
        let (own, ended) = (self.own.clone(), self.ended.clone());
        let list = if init { &mut self.init } else { &mut self.main };
        match list[i].start(spec, &own, &logs, ended) {
            Ok(()) => {
                if first {
                    self.event("Normal", "Started", &what);
                }
            }
            Err(why) => {
                list[i].waits("CreateContainerError", why.clone());
                self.complain("Failed", why);
            }
        }
    }

    /// The process of a container.
    fn spec(&self, container: &Value, image: &images::Image) -> Option<Spec> {
        let sandbox = self.sandbox.as_ref()?;
        let mut mounts = vec![];
        for m in container["volumeMounts"].as_array().into_iter().flatten() {
            let volume = self.volumes.get(text(m, "/name"))?;
            let from = match text(m, "/subPath") {
                "" => volume.clone(),
                // Not what the link leads to later on: that is how the real one does it, too.
                sub => volume.join(sub).canonicalize().ok()?,
            };
            mounts.push(Mount { from, to: text(m, "/mountPath").into(), read_only: m["readOnly"] == true });
        }
        let (_, name) = self.name();
        let hosts = format!("127.0.0.1\tlocalhost\n{}\t{name}\n", sandbox.address());
        let at = self.own.join("root");
        std::fs::create_dir_all(&at).ok()?;
        let own = |field: &str| container["securityContext"][field].as_u64();
        let of_pod = |field: &str| self.object["spec"]["securityContext"][field].as_u64();
        let uid = own("runAsUser").or_else(|| of_pod("runAsUser")).and_then(|u| u32::try_from(u).ok());
        let strings = |field: &str| -> Vec<String> {
            let list = container[field].as_array().into_iter().flatten();
            list.filter_map(|s| s.as_str().map(str::to_owned)).collect()
        };
        let mut command = strings("command");
        command.extend(strings("args"));
        let api = (network::API.to_string(), network::API_PORT);
        let mut env = environment::of(&self.object, container, &image.path, (&api.0, api.1));
        env.extend(image.libraries.iter().map(|l| (postgres::LIBRARY_PATH.to_owned(), l.clone())));
        Some(Spec {
            sandbox: sandbox.pid(),
            root: Root {
                at,
                files: image.files.clone(),
                directories: image.directories.clone(),
                texts: vec![("/etc/hosts".into(), hosts), ("/etc/group".into(), "root:x:0:\n".into())],
                mounts,
            },
            command,
            env,
            directory: "/".into(),
            uid: uid.filter(|u| *u != 0).unwrap_or(65_532),
            pid_file: PathBuf::new(),
        })
    }

    fn take_images(&mut self) {
        let list = |at: &str| self.object.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default();
        let (init, main) = (list("/spec/initContainers"), list("/spec/containers"));
        for (containers, specs) in [(&mut self.init, init), (&mut self.main, main)] {
            for (container, spec) in containers.iter_mut().zip(specs) {
                container.spec = spec;
                // The kubelet kills first and pulls second.
                if container.outdated() {
                    container.signal(Signal::SIGTERM);
                }
            }
        }
    }

    fn find(&mut self, name: &str, life: u32) -> Option<&mut Container> {
        self.init.iter_mut().chain(&mut self.main).find(|c| c.name == name && c.life() == life)
    }

    fn take_end(&mut self, end: &Ended) {
        let going = self.going();
        let policy = text(&self.object, "/spec/restartPolicy").to_owned();
        let init = self.init.iter().any(|c| c.name == end.container && !c.sidecar);
        let Some(container) = self.find(&end.container, end.life) else { return };
        let sidecar = container.sidecar;
        let again = match (init, sidecar) {
            (true, _) => end.code != 0 && policy != "Never",
            (_, true) => true,
            _ => policy == "Always" || (policy == "OnFailure" && end.code != 0),
        };
        let replaced = container.outdated();
        container.end(end.code, again && !going, replaced);
        let expected = going || (init && end.code == 0);
        if !expected {
            let (name, code) = (&end.container, end.code);
            let what = if replaced { "is replaced by another image" } else { "ended" };
            self.event("Normal", "Killing", &format!("container {name} {what} (exit code {code})"));
        }
    }

    /// Sends out the probes that are due.
    fn probe(&mut self) {
        let Some(address) = self.sandbox.as_ref().map(Sandbox::address) else { return };
        let now = Instant::now();
        let (initial, probed) = (self.init.iter_mut().chain(&mut self.main), self.probed.clone());
        for container in initial.filter(|c| c.runs()) {
            let (name, life) = (container.name.clone(), container.life());
            for (probe, readiness) in [(&mut container.readiness, true), (&mut container.liveness, false)] {
                let Some(probe) = probe.as_mut().filter(|p| p.due() <= now) else { continue };
                let (port, path, limit) = probe.begin(now);
                let (probed, name) = (probed.clone(), name.clone());
                tokio::spawn(async move {
                    let well = probe::ask(address, port, path, limit).await;
                    let _ = probed.send((name, life, readiness, well));
                });
            }
        }
    }

    fn take_probe(&mut self, name: &str, life: u32, readiness: bool, well: bool) {
        let Some(container) = self.find(name, life).filter(|c| c.runs()) else { return };
        let probe = if readiness { &mut container.readiness } else { &mut container.liveness };
        match (probe.as_mut().map(|p| p.count(well)), readiness) {
            (Some(Verdict::Well), true) => container.ready = true,
            (Some(Verdict::Ill), true) => container.ready = false,
            (Some(Verdict::Ill), false) => {
                container.liveness = None;
                container.signal(Signal::SIGKILL);
                self.event(
                    "Warning",
                    "Unhealthy",
                    &format!("container {name} failed its liveness probe and is killed"),
                );
            }
            _ => {}
        }
    }

    /// Stops it: PostgreSQL first, sidecars last, all within one grace period.
    fn stop(&mut self) {
        let grace = self.object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
        let now = Instant::now();
        // A later request may shorten the time.
        let by = now + Duration::from_secs(grace);
        let by = self.deadline.map_or(by, |d| d.min(by));
        if self.deadline.replace(by).is_none() {
            self.main.iter().chain(self.init.iter().filter(|c| !c.sidecar)).for_each(|c| c.signal(Signal::SIGTERM));
        }
        if !self.sidecars_told && !self.main.iter().any(Container::runs) {
            // The kubelet does it in reverse order, one after the other; there is one sidecar in our pods.
            self.init.iter().rev().filter(|c| c.sidecar).for_each(|c| c.signal(Signal::SIGTERM));
            self.sidecars_told = true;
        }
        if self.deadline.is_some_and(|d| d <= now) {
            self.init.iter().chain(&self.main).for_each(|c| c.signal(Signal::SIGKILL));
        }
    }

    /// Whether everything has ended that was to.
    fn over(&self) -> bool {
        self.going() && !self.init.iter().chain(&self.main).any(Container::runs)
    }

    /// Writes the status if there is news.
    fn tell(&mut self) {
        let before = self.object.get("status").cloned().unwrap_or_default();
        let terminated = |c: &Container| matches!(c.state, super::container::State::Terminated { .. });
        let over = !self.main.is_empty() && self.main.iter().all(terminated);
        let address = self.sandbox.as_ref().map(Sandbox::address);
        let mut status = status::of(&before, &self.uid, (address, &self.started), &self.init, &self.main, over);
        status["observedGeneration"] = self.object["metadata"]["generation"].clone();
        if before == status {
            return;
        }
        let (namespace, name) = (self.name().0.to_owned(), self.name().1.to_owned());
        let patch = json!({ "metadata": { "uid": self.uid }, "status": status });
        let options = WriteOptions { manager: "kubelet".to_owned(), ..WriteOptions::default() };
        let written = self.shared.server.with(|api| {
            let kind = api.kind("", "v1", "pods")?;
            Some(api.patch(&kind, &namespace, &name, "status", (PatchKind::Merge, &patch), &options))
        });
        match written {
            Some(Ok(done)) => self.object["status"] = done.object["status"].clone(),
            Some(Err(why)) if why.code == 404 => {
                // It was taken away by force.
                self.object["metadata"]["deletionTimestamp"] = json!(clock::text(0));
                self.object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            }
            Some(Err(why)) => tracing::warn!(name, "the pod's status cannot be written: {}", why.message),
            None => {}
        }
    }

    fn event(&self, kind: &str, reason: &str, message: &str) {
        let (namespace, name) = self.name();
        let now = clock::text(0);
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "generateName": format!("{name}.") },
            "involvedObject": { "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": self.uid },
            "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": { "component": "kubelet", "host": text(&self.object, "/spec/nodeName") },
        });
        let options = WriteOptions { manager: "kubelet".to_owned(), ..WriteOptions::default() };
        self.shared.server.with(|api| {
            if let Some(events) = api.kind("", "v1", "events") {
                let _ = api.create(&events, namespace, event, &options);
            }
        });
    }

    /// Takes away what is left of it.
    fn gone(mut self) {
        self.sandbox = None;
        let directory = &self.shared.settings.directory;
        for left in [self.own.clone(), directory.join("memory").join(&self.uid)] {
            if let Err(error) = std::fs::remove_dir_all(&left)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %left.display(), %error, "a pod's directory stays behind");
            }
        }
        let options = DeleteOptions { grace: Some(0), uid: Some(self.uid.clone()), ..DeleteOptions::default() };
        let (namespace, name) = self.name();
        self.shared.server.with(|api| {
            if let Some(kind) = api.kind("", "v1", "pods") {
                let _ = api.delete(&kind, namespace, name, &options);
            }
        });
    }
}

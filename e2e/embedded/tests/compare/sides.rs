//! The two API servers.

use super::Answer;
use super::requests::{Kind, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use pgconvoy_cluster::{Store, build};
use pgconvoy_embedded::api::Api;
use pgconvoy_embedded::cluster::Machine;
use pgconvoy_embedded::http::{Authority, Server};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TOKEN: &str = "a-token-of-the-test";

/// One of them, and what it has answered.
pub(crate) struct Side {
    runtime: tokio::runtime::Runtime,
    client: kube::Client,
    answers: BTreeMap<String, Value>,
    server: Option<Server>,
    etcd: Option<u16>,
    children: Vec<Child>,
    _directory: tempfile::TempDir,
}

impl Drop for Side {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn runtime() -> tokio::runtime::Runtime {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn client(runtime: &tokio::runtime::Runtime, port: u16) -> kube::Client {
    let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(TOKEN.into());
    config.default_retry = false;
    let _inside = runtime.enter();
    kube::Client::try_from(config).unwrap()
}

impl Side {
    /// Kubernetes' own.
    pub(crate) fn kubernetes() -> Self {
        let store = Store::of_environment().unwrap();
        let version = std::env::var("KCLUSTER_KUBERNETES").unwrap_or_else(|_| build::VERSIONS[0].to_owned());
        let bin = build::all(&store, &version).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let (etcd, peers, api) = (free_port(), free_port(), free_port());
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(at("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(at("sa.pub"), key.public_key_pem()).unwrap();
        std::fs::write(at("tokens"), format!("{TOKEN},test,test,\"system:masters\"\n")).unwrap();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut children = vec![start(
            &bin,
            directory.path(),
            "etcd",
            &[
                format!("--data-dir={}", at("etcd")),
                format!("--listen-client-urls={}", url(etcd)),
                format!("--advertise-client-urls={}", url(etcd)),
                format!("--listen-peer-urls={}", url(peers)),
                format!("--initial-advertise-peer-urls={}", url(peers)),
                format!("--initial-cluster=default={}", url(peers)),
                "--unsafe-no-fsync".to_owned(),
            ],
        )];
        children.push(start(
            &bin,
            directory.path(),
            "kube-apiserver",
            &[
                format!("--etcd-servers={}", url(etcd)),
                format!("--secure-port={api}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--cert-dir={}", at("certificates")),
                "--authorization-mode=AlwaysAllow".to_owned(),
                format!("--token-auth-file={}", at("tokens")),
                "--disable-admission-plugins=ServiceAccount,Priority,DefaultTolerationSeconds,TaintNodesByCondition"
                    .to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", at("sa.pub")),
                format!("--service-account-signing-key-file={}", at("sa.key")),
                // Every read is of the store, so that none is behind.
                "--watch-cache=true".to_owned(),
            ],
        ));
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{ "name": "x", "cluster": { "server": format!("https://127.0.0.1:{api}"), "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "x", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "x", "context": { "cluster": "x", "user": "x" } }],
        });
        std::fs::write(at("kubeconfig"), kubeconfig.to_string()).unwrap();
        let runtime = runtime();
        let client = client(&runtime, api);
        let mut side = Self {
            runtime,
            client,
            answers: BTreeMap::new(),
            server: None,
            etcd: Some(etcd),
            children,
            _directory: directory,
        };
        side.wait("/readyz");
        let directory = side._directory.path().to_owned();
        side.children.push(start(&bin, &directory, "kube-controller-manager", &[
            format!("--kubeconfig={}", directory.join("kubeconfig").display()),
            "--leader-elect=false".to_owned(),
            format!("--secure-port={}", free_port()),
            format!("--cert-dir={}", directory.join("manager").display()),
            "--controllers=garbage-collector-controller,namespace-controller,persistentvolumeclaim-protection-controller".to_owned(),
        ]));
        side.wait("/api/v1/namespaces/default");
        side
    }

    /// This one.
    pub(crate) fn embedded() -> Self {
        let runtime = runtime();
        let directory = tempfile::tempdir().unwrap();
        let server = Server::new(Api::new(Box::new(Machine), 1000), directory.path().to_owned());
        server.let_in(TOKEN, "test");
        let identity = Authority::new().unwrap().server(&["127.0.0.1".to_owned()]).unwrap();
        let port = runtime.block_on(crate::serving::serve(&server, identity));
        let client = client(&runtime, port);
        let answers = BTreeMap::new();
        let mut side = Self {
            runtime,
            client,
            answers,
            server: Some(server),
            etcd: None,
            children: vec![],
            _directory: directory,
        };
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "default" } });
        side.send("POST", "/api/v1/namespaces", "application/json", &namespace.to_string());
        side
    }

    fn wait(&mut self, path: &str) {
        let begun = Instant::now();
        while self.send("GET", path, "", "").code != 200 {
            assert!(begun.elapsed() < Duration::from_secs(90), "{path} is not there");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Asks; what earlier answers said may be part of a request: `$name/pointer`.
    pub(crate) fn ask(&mut self, request: &Request) -> Answer {
        let path = self.fill(&request.path);
        let body = request.body.as_ref().map(|b| self.fill(&b.to_string())).unwrap_or_default();
        let answer = match request.kind {
            Kind::Compact => self.compact(),
            Kind::Settle => {
                std::thread::sleep(Duration::from_secs(3));
                Answer { code: 200, body: Value::Null }
            }
            Kind::Gone => {
                let begun = Instant::now();
                loop {
                    let answer = self.send("GET", &path, "", "");
                    if answer.code == 404 || begun.elapsed() > Duration::from_secs(90) {
                        break answer;
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
            Kind::Watch(lines) => self.watch(&path, lines),
            Kind::Send(content) => self.send(request.method, &path, content, &body),
        };
        self.answers.insert(request.name.clone(), answer.body.clone());
        answer
    }

    fn fill(&self, text: &str) -> String {
        let mut out = text.to_owned();
        while let Some(at) = out.find("$(") {
            let end = at + out[at..].find(')').unwrap();
            let (name, pointer) = out[at + 2..end].split_once('/').unwrap();
            let value = self.answers[name].pointer(&format!("/{pointer}")).cloned().unwrap_or_default();
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out.replace_range(at..=end, &value);
        }
        out
    }

    fn send(&mut self, method: &str, path: &str, content: &str, body: &str) -> Answer {
        let accept =
            if path.ends_with("#table") { "application/json;as=Table;v=v1;g=meta.k8s.io" } else { "application/json" };
        let path = path.trim_end_matches("#table");
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("Accept", accept)
            .header("User-Agent", "tester/1")
            .header("Content-Type", content)
            .body(Body::from(body.as_bytes().to_vec()))
            .unwrap();
        self.runtime.block_on(async {
            let Ok(response) = self.client.send(request).await else { return Answer { code: 0, body: Value::Null } };
            let code = response.status().as_u16();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            Answer { code, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
        })
    }

    /// The first lines of a watch, or those that come within some time.
    fn watch(&mut self, path: &str, wanted: usize) -> Answer {
        let request = hyper::Request::builder().uri(path).body(Body::empty()).unwrap();
        self.runtime.block_on(async {
            let response = self.client.send(request).await.unwrap();
            let code = response.status().as_u16();
            let (mut body, mut bytes) = (response.into_body(), vec![]);
            let end = tokio::time::Instant::now() + Duration::from_secs(8);
            while bytes.iter().filter(|b| **b == b'\n').count() < wanted {
                match tokio::time::timeout_at(end, body.frame()).await {
                    Ok(Some(Ok(frame))) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                    _ => break,
                }
            }
            let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
            let lines: Vec<Value> = lines.map(|l| serde_json::from_slice(l).unwrap()).collect();
            let body = if code == 200 { Value::Array(lines) } else { lines.into_iter().next().unwrap_or_default() };
            Answer { code, body }
        })
    }

    /// Makes it forget what was.
    fn compact(&mut self) -> Answer {
        match (&self.server, self.etcd) {
            (Some(server), _) => server.with(Api::compact),
            (None, Some(etcd)) => {
                // Over etcd's own HTTP interface.
                let post = |path: &str, body: Value| -> Value {
                    let run = Command::new("curl")
                        .args(["-s", "-d", &body.to_string(), &format!("http://127.0.0.1:{etcd}{path}")])
                        .output()
                        .unwrap();
                    serde_json::from_slice(&run.stdout).unwrap()
                };
                let now = post("/v3/kv/range", json!({ "key": "YQ==" }))["header"]["revision"].clone();
                post("/v3/kv/compaction", json!({ "revision": now, "physical": true }));
            }
            (None, None) => {}
        }
        Answer { code: 200, body: Value::Null }
    }
}

fn start(bin: &Path, directory: &Path, name: &str, arguments: &[String]) -> Child {
    let log = std::fs::File::create(directory.join(format!("{name}.log"))).unwrap();
    Command::new(bin.join(name))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

//! versitygw: a second implementation of S3, and a real one.
//!
//! It is taken from `PGCONVOY_VERSITYGW`, or from the cache, where it is put (`go install`, some minutes of CPU) the
//! first time.

use crate::{contract, embedded::limits};
use pgconvoy_archive::store::{Config, Credentials, Keys, S3};
use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const VERSION: &str = "v1.8.0";

/// Writes past the test harness's capture, so that it is seen in a run that passes.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The program, or why there is none.
fn program() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("PGCONVOY_VERSITYGW") {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let dir = cache.join("pgconvoy/versitygw").join(VERSION);
    let program = dir.join("versitygw");
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    // One builds, others wait for it.
    let lock = fs::File::create(dir.join("lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    if !program.exists() {
        let module = format!("github.com/versity/versitygw/cmd/versitygw@{VERSION}");
        let built = Command::new("go").args(["install", &module]).env("GOBIN", &dir).env("CGO_ENABLED", "0").output();
        let built = built.map_err(|e| format!("go cannot be run: {e}"))?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr).lines().last().unwrap_or_default().to_owned();
            return Err(format!("go install {module} failed: {said}"));
        }
    }
    Ok(program)
}

struct Gateway {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Gateway {
    fn start(program: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["data/backups", "iam"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(["--access", "root", "--secret", "root-secret", "--port", &format!("127.0.0.1:{port}")])
            .args(["--keep-alive", "--quiet", "--iam-dir"])
            .arg(dir.path().join("iam"))
            .arg("posix")
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut gateway = Self { child, port, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = gateway.child.try_wait().unwrap();
            let log = || fs::read_to_string(gateway._dir.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "versitygw does not start: {ended:?} {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versitygw_keeps_the_contract() {
    let program = match program() {
        Ok(program) => program,
        Err(why) => return say(&format!("SKIPPED versitygw_keeps_the_contract: {why}")),
    };
    let gateway = Gateway::start(program);
    let config = Config {
        endpoint: Some(format!("http://127.0.0.1:{}", gateway.port)),
        path_style: true,
        prefix: "ns/orders".into(),
        limits: limits(),
        ..Config::new("backups", "us-east-1", Credentials::keys(Keys::new("root", "root-secret", None)))
    };
    contract::all(&S3::new(config).await.unwrap()).await;
}

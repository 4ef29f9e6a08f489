//! The S3 server that all contenders use: versitygw, with TLS, on this machine.

use anyhow::{Context, Result, bail};
use pgconvoy_archive::store::{Config, Credentials, Keys, S3};
use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) const BUCKET: &str = "backups";
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const KEY: &str = "bench";
/// Of a server that lives for minutes, on the loopback interface.
pub(crate) const SECRET: &str = "bench-secret";

/// A running server; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    pub(crate) port: u16,
    pub(crate) dir: PathBuf,
}

/// What a contender's process needs to reach it, by its environment.
const PORT: &str = "PGCONVOY_BENCH_PORT";
const CA: &str = "PGCONVOY_BENCH_CA";

impl Gateway {
    pub(crate) fn start(program: &Path, dir: PathBuf) -> Result<Self> {
        for sub in ["data", "data/backups", "iam"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let key = rcgen::KeyPair::generate()?;
        let mut ca = rcgen::CertificateParams::new(Vec::new())?;
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "bench");
        let issuer = rcgen::CertifiedIssuer::self_signed(ca, key)?;
        let key = rcgen::KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        fs::write(dir.join("ca.pem"), issuer.pem())?;
        fs::write(dir.join("cert.pem"), certificate.pem())?;
        fs::write(dir.join("key.pem"), key.serialize_pem())?;
        let port = free_port()?;
        let log = fs::File::create(dir.join("log"))?;
        let child = Command::new(program)
            .args(["--port", &format!("127.0.0.1:{port}"), "--keep-alive", "--quiet", "--region", REGION])
            .env("ROOT_ACCESS_KEY", KEY)
            .env("ROOT_SECRET_KEY", SECRET)
            .arg("--iam-dir")
            .arg(dir.join("iam"))
            .arg("--cert")
            .arg(dir.join("cert.pem"))
            .arg("--key")
            .arg(dir.join("key.pem"))
            .arg("posix")
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let mut gateway = Self { child, port, dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > deadline || gateway.child.try_wait()?.is_some() {
                bail!("versitygw did not start: {}", fs::read_to_string(gateway.dir.join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(gateway)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// For contenders of ours.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        vec![(PORT.into(), self.port.to_string()), (CA.into(), self.ca().display().to_string())]
    }

    /// Where the objects of a prefix lie.
    pub(crate) fn objects(&self, prefix: &str) -> PathBuf {
        self.dir.join("data").join(BUCKET).join(prefix)
    }

    /// Throws everything under a prefix away.
    pub(crate) fn remove(&self, prefix: &str) {
        let _ = fs::remove_dir_all(self.objects(prefix));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The archive's own client, for a prefix, from the environment.
pub(crate) async fn store(prefix: &str) -> Result<S3> {
    let port = std::env::var(PORT).with_context(|| format!("{PORT} is not set"))?;
    let ca = fs::read(std::env::var(CA).with_context(|| format!("{CA} is not set"))?)?;
    let credentials = Credentials::keys(Keys::new(KEY, SECRET, None));
    let config = Config {
        endpoint: Some(format!("https://127.0.0.1:{port}")),
        path_style: true,
        prefix: prefix.to_owned(),
        ca: Some(ca),
        ..Config::new(BUCKET, REGION, credentials)
    };
    Ok(S3::new(config).await?)
}

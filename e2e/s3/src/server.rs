//! The listening side.

use crate::{
    door::turned_away,
    faults::{CUT, Faults},
    keyed::Keyed,
    lender::{Auth, Ledger, Lender, Lending},
    objects::Objects,
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::{HttpError, service::S3ServiceBuilder};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// How to run a server.
#[derive(Clone)]
pub struct Options {
    /// Where the objects lie; `None`: in a directory that goes with the server.
    pub root: Option<PathBuf>,
    /// Where to listen.
    pub address: SocketAddr,
    /// The access key that is let in.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// The bucket that is there from the start.
    pub bucket: String,
    /// With TLS; `None`: in clear text.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for Options {
    /// In a directory of its own, on a free port of the loopback, without TLS, with the bucket `backups`.
    fn default() -> Self {
        Self {
            root: None,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            access_key: "AKEXAMPLE".to_owned(),
            secret_key: "secret-of-the-tests".to_owned(),
            bucket: "backups".to_owned(),
            tls: None,
        }
    }
}

/// A running server. Dropping it ends it.
pub struct Server {
    address: SocketAddr,
    options: Options,
    root: PathBuf,
    faults: Arc<Faults>,
    ledger: Arc<Ledger>,
    accepting: JoinHandle<()>,
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts a server.
    ///
    /// # Errors
    /// The address is taken, or the directory cannot be used.
    pub async fn start(options: Options) -> io::Result<Self> {
        let (root, dir) = match &options.root {
            Some(root) => (root.clone(), None),
            None => {
                let dir = tempfile::Builder::new().prefix("pgconvoy-s3-").tempdir()?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        std::fs::create_dir_all(root.join(&options.bucket))?;
        let files = s3s_fs::FileSystem::new(&root).map_err(|e| io::Error::other(format!("{e:?}")))?;
        let faults = Arc::new(Faults::default());
        let objects = Objects { files, root: root.clone(), faults: faults.clone(), keys: Keyed::default() };
        let mut service = S3ServiceBuilder::new(objects);
        let ledger = Arc::new(Ledger::fixed(&options.access_key, &options.secret_key));
        service.set_auth(Auth(ledger.clone()));
        let service = service.build();

        let listener = TcpListener::bind(options.address).await?;
        let address = listener.local_addr()?;
        let tls = options.tls.clone().map(TlsAcceptor::from);
        let at_the_door = (faults.clone(), ledger.clone());
        let accepting = tokio::spawn(async move {
            // Connections end with the server: the set is dropped with this task.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let _ = stream.set_nodelay(true);
                        let (service, tls, door) = (service.clone(), tls.clone(), at_the_door.clone());
                        connections.spawn(async move {
                            match tls {
                                None => serve(stream, service, door).await,
                                Some(tls) => {
                                    if let Ok(stream) = tls.accept(stream).await {
                                        serve(stream, service, door).await;
                                    }
                                }
                            }
                        });
                    }
                }
            }
        });
        Ok(Self { address, options, root, faults, ledger, accepting, _dir: dir })
    }

    /// Where it listens: `http://127.0.0.1:port`, `https://localhost:port` with TLS.
    pub fn endpoint(&self) -> String {
        match self.options.tls {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it was started.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Someone who lends keys for this server.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn lender(&self, lending: Lending) -> io::Result<Lender> {
        Lender::start(self.ledger.clone(), lending).await
    }

    /// The directory that holds the objects of the first bucket, as files named by their keys.
    pub fn bucket_dir(&self) -> PathBuf {
        self.root.join(&self.options.bucket)
    }

    /// The keys of the first bucket, sorted.
    pub fn keys(&self) -> Vec<String> {
        let bucket = self.bucket_dir();
        let mut keys = Vec::new();
        collect(&bucket, &bucket, &mut keys);
        keys.sort();
        keys
    }
}

fn collect(bucket: &Path, dir: &Path, keys: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(bucket, &path, keys);
        } else if let Ok(key) = path.strip_prefix(bucket) {
            keys.push(key.to_string_lossy().into_owned());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: s3s::service::S3Service,
    (faults, ledger): (Arc<Faults>, Arc<Ledger>),
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (service, faults, ledger) = (service.clone(), faults.clone(), ledger.clone());
        async move {
            if let Some(refused) = turned_away(&faults, &ledger, request.headers()) {
                return Ok(refused);
            }
            let response = hyper::service::Service::call(&service, request).await?;
            if response.headers().contains_key(CUT) {
                return Err(HttpError::new("cut to order".into()));
            }
            Ok(response)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

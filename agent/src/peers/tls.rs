//! Keys and certificates of the conversation between agents, read again when their files change.

use pgconvoy_crds::pod::tls;
use pgconvoy_terms::MemberName;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// The only application protocol.
const ALPN: &[u8] = b"http/1.1";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds nothing usable.
    #[error("{path} cannot be used: {why}; other agents cannot be talked to until it can")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The files do not belong together.
    #[error("the agent's certificate in {path} cannot be used: {why}; other agents cannot be talked to until it can")]
    Unusable {
        /// The directory.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// What one reading of the files gave.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    /// Goes up with each reading.
    pub(super) generation: u64,
    /// When the agent's own certificate expires, in seconds since 1970.
    not_after: Option<i64>,
}

impl Loaded {
    /// How long the agent's own certificate is good for, in seconds; negative: since when it no longer is. By the wall clock, as
    /// certificates are.
    pub(super) fn seconds_left(&self) -> Option<i64> {
        Some(self.not_after? - ASN1Time::now().timestamp())
    }
}

/// The agent's keys and certificates. Clones share them.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    state: Mutex<State>,
}

struct State {
    loaded: Loaded,
    stamp: Vec<Option<Stamp>>,
    looked: Instant,
    complained: bool,
}

/// Tells one version of a file from another: inode, modification time in seconds and nanoseconds, size.
type Stamp = (u64, i64, i64, u64);

impl Tls {
    /// Reads `ca.crt`, `agent.crt` and `agent.key` in `directory`.
    ///
    /// # Errors
    /// When one of them is missing or they do not belong together.
    pub fn load(directory: &Path) -> Result<Self, TlsError> {
        let stamp = stamps(directory);
        let loaded = load(directory, 0)?;
        let state = State { loaded, stamp, looked: Instant::now(), complained: false };
        Ok(Self(Arc::new(Inner { directory: directory.to_owned(), state: Mutex::new(state) })))
    }

    /// What the files held when they were last usable. A renewal that is half written, or wrong, changes nothing.
    pub(super) fn current(&self) -> Loaded {
        self.look(Instant::now())
    }

    fn look(&self, now: Instant) -> Loaded {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.looked) < LOOK {
            return state.loaded.clone();
        }
        state.looked = now;
        let stamp = stamps(&self.0.directory);
        if stamp == state.stamp {
            return state.loaded.clone();
        }
        match load(&self.0.directory, state.loaded.generation + 1) {
            Ok(loaded) => {
                tracing::info!("the agent's certificates were renewed");
                // The stamp from before the reading: a file that changed during it is read again.
                (state.loaded, state.stamp, state.complained) = (loaded, stamp, false);
            }
            Err(why) if !state.complained => {
                tracing::warn!("renewed certificates are not used: {why}");
                state.complained = true;
            }
            Err(_) => {}
        }
        state.loaded.clone()
    }
}

fn stamps(directory: &Path) -> Vec<Option<Stamp>> {
    let stamp = |name| {
        let m = fs::metadata(directory.join(name)).ok()?;
        Some((m.ino(), m.mtime(), m.mtime_nsec(), m.len()))
    };
    [tls::CA, tls::AGENT_CERT, tls::AGENT_KEY].into_iter().map(stamp).collect()
}

fn load(directory: &Path, generation: u64) -> Result<Loaded, TlsError> {
    let file = |name: &str, why: String| TlsError::File { path: directory.join(name).display().to_string(), why };
    let certificates = |name: &'static str| {
        let found: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(directory.join(name)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match found {
            Ok(found) if found.is_empty() => Err(file(name, "it holds no certificate".to_owned())),
            Ok(found) => Ok(found),
            Err(e) => Err(file(name, e.to_string())),
        }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(tls::CA)? {
        roots.add(authority).map_err(|e| file(tls::CA, e.to_string()))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(tls::AGENT_CERT)?;
    let key = PrivateKeyDer::from_pem_file(directory.join(tls::AGENT_KEY))
        .map_err(|e| file(tls::AGENT_KEY, e.to_string()))?;

    let own = chain.first().and_then(|c| X509Certificate::from_der(c).ok());
    let not_after = own.map(|(_, c)| c.validity().not_after.timestamp());

    // Named, not taken from the process: who links what else must not choose our cryptography.
    let provider: Arc<CryptoProvider> = rustls::crypto::aws_lc_rs::default_provider().into();
    let unusable =
        |e: &dyn std::fmt::Display| TlsError::Unusable { path: directory.display().to_string(), why: e.to_string() };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|e| unusable(&e))?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|e| unusable(&e))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would not show the certificate as it is today.
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| unusable(&e))?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Loaded { server: Arc::new(server), client: Arc::new(client), generation, not_after })
}

/// The member that a certificate names, if it is one of `set`.
///
/// # Errors
/// A sentence for the log.
pub(super) fn member_in(certificate: &CertificateDer<'_>, set: &str) -> Result<MemberName, String> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|e| format!("its certificate is unreadable: {e}"))?;
    let names: Vec<&str> = parsed.subject().iter_common_name().filter_map(|n| n.as_str().ok()).collect();
    let [name] = names.as_slice() else {
        return Err(format!("its certificate has {} common names, not one", names.len()));
    };
    let member: MemberName = name.parse().map_err(|e| format!("its certificate is no member's: {e}"))?;
    if member.set() != set {
        return Err(format!("its certificate is of {member}, which is no member of {set}"));
    }
    Ok(member)
}

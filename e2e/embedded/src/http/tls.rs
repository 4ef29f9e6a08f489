//! Keys and certificates, and the kubeconfig that leads to the server.

use anyhow::Context as _;
use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::sync::Arc;

/// Who signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server's certificate and key.
pub struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When the library cannot.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "pgconvoy-embedded");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("no authority can be made")?))
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server with these names and addresses.
    ///
    /// # Errors
    /// When one is no name.
    pub fn server(&self, names: &[String]) -> anyhow::Result<Identity> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0).context("no certificate can be made")?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// How `kubectl` gets to the server at this URL.
    pub fn kubeconfig(&self, url: &str, token: &str) -> String {
        let ca = base64::engine::general_purpose::STANDARD.encode(self.pem());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "embedded",
            "clusters": [{ "name": "embedded", "cluster": { "server": url, "certificate-authority-data": ca } }],
            "users": [{ "name": "admin", "user": { "token": token } }],
            "contexts": [{ "name": "embedded", "context": { "cluster": "embedded", "user": "admin" } }],
        });
        // JSON is YAML.
        format!("{config:#}\n")
    }
}

impl Identity {
    pub(super) fn server_config(&self) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }
}

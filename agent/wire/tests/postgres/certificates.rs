//! An authority, a server's certificate and clients' certificates.

use crate::server::NAME;
use pgconvoy_wire::tls_config;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

pub(crate) struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let mut params = named("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { authority: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn authority(&self) -> String {
        self.authority.pem()
    }

    /// A certificate of this authority, and its key.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (named(name).signed_by(&key, &self.authority).unwrap().pem(), key.serialize_pem())
    }

    /// What a client called `name` connects with.
    pub(crate) fn client(&self, name: &str) -> rustls::ClientConfig {
        let (certificate, key) = self.issue(name);
        tls_config(self.authority().as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    /// Writes a server's files, and says the settings for them.
    pub(crate) fn write_for_server(&self, dir: &Path) -> Vec<String> {
        let (certificate, key) = self.issue(NAME);
        let files = [("ca.crt", self.authority()), ("server.crt", certificate), ("server.key", key)];
        let paths = files.map(|(name, content)| {
            let path = dir.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        });
        let [ca, certificate, key] = paths;
        vec![
            "ssl=on".to_owned(),
            format!("ssl_ca_file={ca}"),
            format!("ssl_cert_file={certificate}"),
            format!("ssl_key_file={key}"),
        ]
    }
}

//! The authority of a set, and what lies in a member's TLS Secret.

use pgconvoy_crds::pod;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = named("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes the files of `member` into `dir`.
    pub(crate) fn write(&self, dir: &Path, member: &str) {
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            (named(name).signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
        };
        let (server, server_key) = issue(member);
        let (replication, replication_key) = issue(pod::REPLICATION_ROLE);
        for (name, content) in [
            (pod::tls::CA, self.0.pem()),
            (pod::tls::SERVER_CERT, server),
            (pod::tls::SERVER_KEY, server_key),
            (pod::tls::REPLICATION_CERT, replication),
            (pod::tls::REPLICATION_KEY, replication_key),
        ] {
            let path = dir.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

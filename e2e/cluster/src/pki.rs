//! Keys and certificates of a cluster, and a kubeconfig for everyone who talks to its API server.

use crate::net;
use anyhow::Context;
use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Who talks to the API server: file, organisation (Kubernetes takes it for the group), user.
const CLIENTS: [(&str, &str, &str); 7] = [
    ("admin", "system:masters", "kubernetes-admin"),
    ("kube-controller-manager", "", "system:kube-controller-manager"),
    ("kube-scheduler", "", "system:kube-scheduler"),
    ("kube-proxy", "", "system:kube-proxy"),
    ("coredns", "", "kcluster:coredns"),
    ("local-path-provisioner", "", "kcluster:local-path-provisioner"),
    ("csi", "", "kcluster:csi"),
];

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Makes what is missing.
pub(crate) fn make(folder: &Path, nodes: u8) -> anyhow::Result<()> {
    if folder.join("done").exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).context("cannot make the directory of keys")?;
    let (ca, front) = (authority("kcluster-ca")?, authority("front-proxy-ca")?);
    write(folder, "ca.crt", &ca.pem())?;
    write(folder, "ca.key", &ca.key().serialize_pem())?;
    write(folder, "front.crt", &front.pem())?;
    let tokens = KeyPair::generate()?;
    write(folder, "sa.key", &tokens.serialize_pem())?;
    write(folder, "sa.pub", &tokens.public_key_pem())?;

    let mut names = vec!["localhost".to_owned()];
    for depth in ["", ".default", ".default.svc", ".default.svc.cluster.local"] {
        names.push(format!("kubernetes{depth}"));
    }
    names.extend([net::API_SERVICE.to_owned(), net::API.to_owned(), "127.0.0.1".to_owned()]);
    certificate(folder, "api", &ca, ("", "kube-apiserver"), Some(&names))?;
    certificate(folder, "api-kubelet", &ca, ("system:masters", "kube-apiserver-kubelet-client"), None)?;
    certificate(folder, "front-client", &front, ("", "front-proxy-client"), None)?;
    for (file, group, user) in CLIENTS {
        client(folder, file, &ca, (group, user))?;
    }
    for node in 1..=nodes {
        let name = format!("n{node}");
        client(folder, &name, &ca, ("system:nodes", &format!("system:node:{name}")))?;
        let names = [name.clone(), net::node_address(node)];
        certificate(folder, &format!("{name}-server"), &ca, ("", &name), Some(&names))?;
    }
    write(folder, "done", "")
}

fn authority(name: &str) -> anyhow::Result<Authority> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A certificate and its key: for a server with these names and addresses, otherwise for a client. Gives both as PEM.
fn certificate(
    folder: &Path,
    file: &str,
    authority: &Authority,
    (group, user): (&str, &str),
    server: Option<&[String]>,
) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::new(server.unwrap_or_default().to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, user);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match server {
        Some(_) => ExtendedKeyUsagePurpose::ServerAuth,
        None => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?.pem();
    write(folder, &format!("{file}.crt"), &certificate)?;
    write(folder, &format!("{file}.key"), &key.serialize_pem())?;
    Ok((certificate, key.serialize_pem()))
}

/// A client's certificate, and its kubeconfig.
fn client(folder: &Path, file: &str, ca: &Authority, who: (&str, &str)) -> anyhow::Result<()> {
    let (certificate, key) = certificate(folder, file, ca, who, None)?;
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let server = format!("https://{}:6443", net::API);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": { "server": server, "certificate-authority-data": base64(&ca.pem()) } }],
        "users": [{ "name": "u", "user": {
            "client-certificate-data": base64(&certificate), "client-key-data": base64(&key) } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    // JSON is YAML.
    write(folder, &format!("{file}.kubeconfig"), &config.to_string())
}

/// For root's eyes only.
fn write(folder: &Path, file: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(file);
    let open = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&path);
    open.and_then(|mut f| f.write_all(text.as_bytes())).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn everyone_gets_a_kubeconfig_that_nobody_else_reads() {
        let folder = tempfile::tempdir().unwrap();
        let pki = folder.path().join("pki");
        make(&pki, 2).unwrap();
        for name in ["admin", "kube-scheduler", "n1", "n2"] {
            let path = pki.join(format!("{name}.kubeconfig"));
            let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(config["clusters"][0]["cluster"]["server"], "https://10.240.0.1:6443");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(!pki.join("n3.kubeconfig").exists());
        // Done once: a cluster that comes back keeps its keys.
        let before = fs::read(pki.join("ca.crt")).unwrap();
        make(&pki, 2).unwrap();
        assert_eq!(fs::read(pki.join("ca.crt")).unwrap(), before);
    }
}

//! The set's own authority, and the certificates of its members.
//!
//! [`needs`] says what is missing or due, without doing anything. [`issue`] makes it: the only place of the operator
//! that draws random numbers for keys and passwords.
//!
//! An authority is made once. When its Secret is deleted, a new one is made and every member gets new certificates; for
//! [`OVERLAP`] the members go on trusting the old authority too, because the kubelets bring the new files to the pods
//! one by one.

use super::observed::{Observed, SecretSeen};
use super::validate::Validated;
use jiff::{SignedDuration, Timestamp};
use pgconvoy_crds::names::{self, Service};
use pgconvoy_crds::pod;
use pgconvoy_terms::MemberName;
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use thiserror::Error;

/// Life of an authority: ten years.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// Life of a member's certificates: one year; they are made anew when two thirds of it are over.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Certificates begin this long before they are made, so that a node whose clock is behind takes them.
pub const BACKDATE: Duration = Duration::from_secs(3600);
/// How long members trust the authority before the present one. Too short: a pod whose files are not there yet is cut
/// off. Too long: a lost key stays of use.
pub const OVERLAP: SignedDuration = SignedDuration::from_hours(24);
/// Length of a generated password.
pub const PASSWORD_LENGTH: usize = 32;
/// Key of the authority's own key in its Secret.
pub const AUTHORITY_KEY: &str = "ca.key";

/// What must be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// The authority.
    pub authority: bool,
    /// Certificates of these members.
    pub members: Vec<MemberName>,
    /// The application's password.
    pub password: bool,
    /// When to look again.
    pub due: Option<Timestamp>,
}

/// What was made.
#[derive(Clone, Default)]
pub struct Material {
    /// The authority: certificate and key, PEM.
    pub authority: Option<(String, String)>,
    /// Per member: files of its Secret.
    pub members: BTreeMap<MemberName, BTreeMap<String, String>>,
    /// The application's password.
    pub password: Option<String>,
}

/// Why nothing could be made.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The Secret of the authority holds something else.
    #[error(
        "the Secret {0} does not hold a usable ca.crt and ca.key; delete it, and a new authority and new certificates are made"
    )]
    AuthorityUnusable(String),
    /// Making a certificate failed.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// What `member`'s certificates are made for; when this changes, they are made anew.
pub fn made_for(set: &Validated, member: &MemberName) -> String {
    server_names(set, member).join(",")
}

fn server_names(set: &Validated, member: &MemberName) -> Vec<String> {
    let mut dns = vec![member.to_string()];
    for service in Service::ALL {
        let name = service.name(&set.name);
        let namespace = &set.namespace;
        dns.extend([
            name.clone(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.cluster.local"),
        ]);
    }
    dns.push("localhost".to_owned());
    dns
}

/// The files that a member's Secret must have.
const MEMBER_FILES: [&str; 7] = [
    pod::tls::CA,
    pod::tls::SERVER_CERT,
    pod::tls::SERVER_KEY,
    pod::tls::REPLICATION_CERT,
    pod::tls::REPLICATION_KEY,
    pod::tls::AGENT_CERT,
    pod::tls::AGENT_KEY,
];

fn blocks(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    bundle.split_inclusive(END).filter(|b| b.contains(END)).map(|b| format!("{}\n", b.trim())).collect()
}

/// What is missing or due for `members`.
pub fn needs(set: &Validated, observed: &Observed, members: &BTreeSet<MemberName>, now: Timestamp) -> Needs {
    // A Secret that still belongs to an earlier set, or is on its way out, is waited for: see `Problem::InTheWay`.
    let busy = |s: &SecretSeen| s.meta.deleting || s.meta.belongs_to_another(&set.uid);
    let app = observed.secret(&names::app_secret(&set.name));
    let mut needs = Needs { password: app.is_none(), ..Needs::default() };
    let authority = observed.secret(&names::ca(&set.name));
    let overlap_ends = match authority {
        Some(a) if busy(a) => return needs,
        Some(a) => a.issued_at.and_then(|t| t.checked_add(OVERLAP).ok()),
        None => {
            needs.authority = true;
            None
        }
    };
    let current = authority.and_then(|a| a.authority.as_deref()).map(blocks).unwrap_or_default();
    for member in members {
        let Some(secret) = observed.secret(&names::member_tls(member)) else {
            needs.members.push(member.clone());
            continue;
        };
        if busy(secret) {
            continue;
        }
        let trusted = secret.authority.as_deref().map(blocks).unwrap_or_default();
        let overlap = trusted.len() > 1;
        let complete = MEMBER_FILES.iter().all(|f| secret.keys.contains(*f));
        let fresh = secret.renew_at.is_some_and(|t| now < t);
        let fits = secret.made_for.as_deref() == Some(made_for_hash(set, member).as_str());
        let trusts_current = !needs.authority && trusted.first().is_some_and(|t| current.first() == Some(t));
        let overlap_over = overlap && overlap_ends.is_some_and(|t| t <= now);
        if !(complete && fresh && fits && trusts_current) || overlap_over {
            needs.members.push(member.clone());
            continue;
        }
        let times = [secret.renew_at, overlap_ends.filter(|_| overlap)];
        needs.due = times.into_iter().flatten().chain(needs.due).min();
    }
    needs
}

/// What stands in the Secret's annotation for [`made_for`].
pub fn made_for_hash(set: &Validated, member: &MemberName) -> String {
    crate::hash::fingerprint(&made_for(set, member).into())
}

/// The authorities that members should trust besides the present one: all that they trust now, while it is young.
fn trusted_besides(set: &Validated, observed: &Observed, present: &str, now: Timestamp) -> Vec<String> {
    let begun = observed.secret(&names::ca(&set.name)).and_then(|s| s.issued_at);
    if begun.and_then(|t| t.checked_add(OVERLAP).ok()).is_some_and(|end| end <= now) {
        return vec![];
    }
    let present = blocks(present);
    let known: BTreeSet<String> = observed
        .members(&set.name)
        .iter()
        .filter_map(|m| observed.secret(&names::member_tls(m)))
        .filter_map(|s| s.authority.as_deref())
        .flat_map(blocks)
        .filter(|b| !present.contains(b))
        .collect();
    known.into_iter().collect()
}

/// Makes what is needed. `authority` is the present one (certificate, key), which may be absent only when a new one is
/// asked for.
///
/// # Errors
/// When the present authority is unusable.
pub fn issue(
    set: &Validated,
    observed: &Observed,
    needs: &Needs,
    authority: Option<(String, String)>,
    now: Timestamp,
) -> Result<Material, CertificateError> {
    let mut material = Material { password: needs.password.then(password), ..Material::default() };
    if needs.authority {
        material.authority = Some(make_authority(set, now)?);
    }
    if needs.members.is_empty() {
        return Ok(material);
    }
    let unusable = || CertificateError::AuthorityUnusable(names::ca(&set.name));
    let (certificate, key) = material.authority.clone().or(authority).ok_or_else(unusable)?;
    let key = KeyPair::from_pem(&key).map_err(|_| unusable())?;
    let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|_| unusable())?;
    let bundle: String =
        blocks(&certificate).into_iter().take(1).chain(trusted_besides(set, observed, &certificate, now)).collect();
    for member in &needs.members {
        let name = member.to_string();
        let server = make(&issuer, &name, server_names(set, member), &[ExtendedKeyUsagePurpose::ServerAuth], now)?;
        let replication = make(&issuer, pod::REPLICATION_ROLE, vec![], &[ExtendedKeyUsagePurpose::ClientAuth], now)?;
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let agent = make(&issuer, &name, vec![name.clone()], &both, now)?;
        let files = [
            (pod::tls::CA, bundle.clone()),
            (pod::tls::SERVER_CERT, server.0),
            (pod::tls::SERVER_KEY, server.1),
            (pod::tls::REPLICATION_CERT, replication.0),
            (pod::tls::REPLICATION_KEY, replication.1),
            (pod::tls::AGENT_CERT, agent.0),
            (pod::tls::AGENT_KEY, agent.1),
        ];
        material.members.insert(member.clone(), files.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
    }
    Ok(material)
}

/// A password that needs quoting nowhere.
fn password() -> String {
    let mut random = rand::rng();
    (0..PASSWORD_LENGTH).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect()
}

fn parameters(
    common_name: &str,
    dns: Vec<String>,
    now: Timestamp,
    life: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut p = CertificateParams::new(dns)?;
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let begins = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)).saturating_sub(BACKDATE);
    p.not_before = epoch + begins;
    p.not_after = epoch + begins + life;
    Ok(p)
}

fn make_authority(set: &Validated, now: Timestamp) -> Result<(String, String), rcgen::Error> {
    // The name tells one authority of the set from the next; nothing depends on it.
    let name = format!("{}.{} {}", set.name, set.namespace, now.as_second());
    let mut p = parameters(&name, vec![], now, AUTHORITY_LIFE)?;
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok((p.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn make(
    issuer: &Issuer<'_, KeyPair>,
    common_name: &str,
    dns: Vec<String>,
    usages: &[ExtendedKeyUsagePurpose],
    now: Timestamp,
) -> Result<(String, String), rcgen::Error> {
    let mut p = parameters(common_name, dns, now, CERTIFICATE_LIFE)?;
    p.use_authority_key_identifier_extension = true;
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    p.extended_key_usages = usages.to_vec();
    let key = KeyPair::generate()?;
    Ok((p.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

//! The configuration files, as a whole: what PostgreSQL should be set to, and the text that says so.
//!
//! `postgresql.conf` stays as initdb made it but for one line that includes `pgconvoy.conf`. That file holds our
//! defaults, then the user's parameters, then what is ours alone (a later line wins). Its last line,
//! `pgconvoy.configuration`, is a fingerprint of everything PostgreSQL reads at a reload, hba, ident and certificates
//! included: a *new* session that shows it proves that the postmaster has read these very files and has told every child.

use super::parameters::{quoted, sets_what_is_ours};
use crate::settings::{Identity, PostgresSettings};
use pgconvoy_crds::pod;
use pgconvoy_terms::{Epoch, MemberName, Rule, Tag};
use std::{collections::BTreeMap, fmt::Write, net::IpAddr, path::Path};

/// The list of a server that must not acknowledge anything should it ever become writable. Never empty: whether commits
/// wait at all is a flag that only the checkpointer sets, and it may be late.
pub(crate) const NOBODY: &str = "ANY 1 (\"nobody\")";

/// The user's part, once it has been found good.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Accepted {
    /// `spec.postgresql.parameters`.
    pub(crate) parameters: BTreeMap<String, String>,
    /// `spec.postgresql.hba`; empty: the default line.
    pub(crate) hba: Vec<String>,
    /// Memory of the container, in bytes.
    pub(crate) memory: Option<u64>,
}

impl Accepted {
    pub(crate) fn of(settings: &PostgresSettings) -> Self {
        Self { parameters: settings.parameters.clone(), hba: settings.hba.clone(), memory: settings.memory_limit }
    }
}

/// From whom to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) leader: MemberName,
    pub(crate) address: IpAddr,
    pub(crate) epoch: Epoch,
    pub(crate) tag: Tag,
    pub(crate) slot: String,
}

/// The part that changes with the role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Role {
    /// `synchronous_standby_names`.
    pub(crate) acknowledge: String,
    /// From whom to receive.
    pub(crate) source: Option<Source>,
    /// Whether clients are let in.
    pub(crate) gate: bool,
}

impl Role {
    /// A standby that receives from nobody and lets nobody in.
    pub(crate) fn detached() -> Self {
        Self { acknowledge: NOBODY.into(), source: None, gate: false }
    }

    /// A standby that streams; behind the gate clients may read.
    pub(crate) fn following(source: Source, gate: bool) -> Self {
        Self { acknowledge: NOBODY.into(), source: Some(source), gate }
    }

    /// A writable server.
    pub(crate) fn leading(rule: &Rule, gate: bool) -> Self {
        Self { acknowledge: names(rule), source: None, gate }
    }
}

/// `synchronous_standby_names` for a rule.
pub(crate) fn names(rule: &Rule) -> String {
    if rule.acknowledgements == 0 {
        return String::new();
    }
    let tags: Vec<_> = rule.followers.iter().map(|f| format!("\"{}\"", Tag::new(f, &rule.epoch))).collect();
    format!("ANY {} ({})", rule.acknowledgements, tags.join(", "))
}

/// What a configuration is made of besides role and user.
#[derive(Debug, Clone)]
pub(crate) struct Frame<'a> {
    pub(crate) identity: &'a Identity,
    /// `listen_addresses`.
    pub(crate) listen: &'a str,
    /// The name that the server's passwd has for its uid.
    pub(crate) system_user: &'a str,
    /// Lowest values that this data can be started with, from the control file.
    pub(crate) floors: &'a BTreeMap<String, u64>,
    /// Size of the volume in bytes.
    pub(crate) volume: u64,
    /// Major version.
    pub(crate) major: u32,
    /// Of the certificates and keys.
    pub(crate) certificates: u64,
}

/// The text of all files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) conf: String,
    pub(crate) hba: String,
    pub(crate) ident: String,
    /// What a new session shows once they are in force.
    pub(crate) fingerprint: String,
}

/// Writes a configuration.
pub(crate) fn files(frame: &Frame<'_>, user: &Accepted, role: &Role) -> Files {
    let mut conf = conf(frame, user, role);
    let hba = hba(user, role.gate);
    let ident = format!(
        "# Written by pgconvoy's agent; changes are overwritten.\npgconvoy \"{}\" {}\n",
        frame.system_user.replace('"', "\"\""),
        pod::SUPERUSER
    );
    let all = format!("{conf}\0{hba}\0{ident}\0{}", frame.certificates);
    let fingerprint = format!("{:016x}", checksum(all.as_bytes()));
    // Writing to a String cannot fail.
    let _ = writeln!(conf, "pgconvoy.configuration = '{fingerprint}'");
    Files { conf, hba, ident, fingerprint }
}

/// CRC-64 of `bytes`: tells versions of the same file apart, nothing more.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

/// Our defaults, which the user may change.
fn defaults(frame: &Frame<'_>, user: &Accepted) -> Vec<(&'static str, String)> {
    let mib = |bytes: u64| format!("{}MB", bytes >> 20);
    let mut list: Vec<(&'static str, String)> = vec![
        ("max_wal_senders", "20".into()),
        ("max_replication_slots", "20".into()),
        ("max_slot_wal_keep_size", mib((frame.volume / 5).max(512 << 20))),
        ("wal_keep_size", mib((frame.volume / 50).clamp(128 << 20, 2 << 30))),
        ("wal_receiver_timeout", "5s".into()),
        ("wal_sender_timeout", "5s".into()),
        ("wal_receiver_status_interval", "1s".into()),
        ("synchronous_commit", "on".into()),
        ("log_checkpoints", "on".into()),
        ("log_timezone", "UTC".into()),
        ("track_io_timing", "on".into()),
        ("tcp_keepalives_idle", "10".into()),
        ("tcp_keepalives_interval", "5".into()),
        ("tcp_keepalives_count", "3".into()),
    ];
    if let Some(memory) = user.memory {
        list.push(("shared_buffers", mib((memory / 4).max(16 << 20))));
        list.push(("effective_cache_size", mib((memory / 4 * 3).max(16 << 20))));
    }
    if frame.major >= 18 {
        list.push(("idle_replication_slot_timeout", "0".into()));
    }
    list
}

/// What is ours alone.
fn owned(frame: &Frame<'_>, role: &Role) -> Vec<(&'static str, String)> {
    let identity = frame.identity;
    let tls = |name: &str| identity.paths.tls.join(name).display().to_string();
    let mut list: Vec<(&'static str, String)> = vec![
        ("listen_addresses", frame.listen.to_owned()),
        ("port", identity.postgres_port.to_string()),
        ("unix_socket_directories", identity.paths.run.display().to_string()),
        ("unix_socket_permissions", "0700".into()),
        ("cluster_name", identity.member.to_string()),
        ("ssl", "on".into()),
        ("ssl_ca_file", tls(pod::tls::CA)),
        ("ssl_cert_file", tls(pod::tls::SERVER_CERT)),
        ("ssl_key_file", tls(pod::tls::SERVER_KEY)),
        ("password_encryption", "scram-sha-256".into()),
        ("wal_level", "logical".into()),
        ("wal_log_hints", "on".into()),
        ("fsync", "on".into()),
        ("full_page_writes", "on".into()),
        ("hot_standby", "on".into()),
        ("restart_after_crash", "off".into()),
        ("recovery_init_sync_method", "syncfs".into()),
        ("recovery_target_timeline", "latest".into()),
        ("restore_command", String::new()),
        ("recovery_end_command", String::new()),
        ("recovery_min_apply_delay", "0".into()),
        ("wal_retrieve_retry_interval", "100ms".into()),
        ("archive_mode", "off".into()),
        ("log_destination", "stderr".into()),
        ("logging_collector", "off".into()),
        // The supervisor reads it back.
        ("log_line_prefix", pgconvoy_supervisor::log_line::PREFIX.into()),
        ("synchronous_standby_names", role.acknowledge.clone()),
    ];
    if frame.major >= 17 {
        list.push(("allow_alter_system", "off".into()));
    }
    let (conninfo, slot, following) = match &role.source {
        Some(source) => (conninfo(identity, source), source.slot.clone(), source.epoch.to_string()),
        None => Default::default(),
    };
    list.push(("primary_conninfo", conninfo));
    list.push(("primary_slot_name", slot));
    list.push(("pgconvoy.following", following));
    list.push(("pgconvoy.gate", if role.gate { "open" } else { "closed" }.into()));
    list
}

fn conf(frame: &Frame<'_>, user: &Accepted, role: &Role) -> String {
    let mut text = String::from("# Written by pgconvoy's agent; changes are overwritten.\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name} = {}", quoted(value));
    };
    defaults(frame, user).iter().for_each(|(name, value)| line(name, value));
    user.parameters.iter().for_each(|(name, value)| line(name, value));
    for (name, least) in frame.floors {
        // A standby with less than its log was written with stops; the user's number holds when it is higher.
        let wanted = user.parameters.get(name).and_then(|v| v.trim().parse::<u64>().ok());
        if wanted.is_none_or(|w| w < *least) {
            line(name, &least.to_string());
        }
    }
    owned(frame, role).iter().for_each(|(name, value)| line(name, value));
    text
}

/// How a follower connects: by the leader's pod address, and only to the server whose certificate bears its name.
fn conninfo(identity: &Identity, source: &Source) -> String {
    let tls = |name: &str| identity.paths.tls.join(name).display().to_string();
    let words = [
        ("user", pod::REPLICATION_ROLE.to_owned()),
        ("host", source.leader.to_string()),
        ("hostaddr", source.address.to_string()),
        ("port", identity.postgres_port.to_string()),
        ("application_name", source.tag.to_string()),
        ("sslmode", "verify-full".into()),
        ("sslrootcert", tls(pod::tls::CA)),
        ("sslcert", tls(pod::tls::REPLICATION_CERT)),
        ("sslkey", tls(pod::tls::REPLICATION_KEY)),
        ("gssencmode", "disable".into()),
        ("connect_timeout", "2".into()),
        ("keepalives_idle", "2".into()),
        ("keepalives_interval", "1".into()),
        ("keepalives_count", "3".into()),
        ("tcp_user_timeout", "5000".into()),
    ];
    let escape = |v: &str| v.replace('\\', "\\\\").replace('\'', "\\'");
    words.iter().map(|(k, v)| format!("{k}='{}'", escape(v))).collect::<Vec<_>>().join(" ")
}

/// The line for clients when the user gives none.
const DEFAULT_HBA: &str = "hostssl all all all scram-sha-256";

fn hba(user: &Accepted, gate: bool) -> String {
    let (superuser, replication) = (pod::SUPERUSER, pod::REPLICATION_ROLE);
    let mut text = format!(
        "# Written by pgconvoy's agent; changes are overwritten.\n\
         local   all          {superuser}  peer map=pgconvoy\n\
         local   replication  {superuser}  peer map=pgconvoy\n\
         hostssl replication  {replication}  all  cert\n\
         hostssl postgres     {replication}  all  cert\n\
         host    all          {replication}  all  reject\n"
    );
    if !gate {
        text.push_str("# clients are not let in now\n");
    } else if user.hba.is_empty() {
        let _ = writeln!(text, "{DEFAULT_HBA}");
    } else {
        user.hba.iter().for_each(|l| {
            let _ = writeln!(text, "{l}");
        });
    }
    text
}

/// The line in `postgresql.conf` that leads to our file.
pub(crate) const INCLUDE: &str = "include 'pgconvoy.conf'";

/// `postgresql.conf` with our line as its last, or none when it is there.
pub(crate) fn with_include(conf: &str) -> Option<String> {
    if conf.lines().any(|l| l.trim() == INCLUDE) {
        return None;
    }
    let end = if conf.is_empty() || conf.ends_with('\n') { "" } else { "\n" };
    Some(format!("{conf}{end}{INCLUDE}\n"))
}

/// `postgresql.auto.conf` without what is ours (it is read last, so ALTER SYSTEM would win), or none when it is good.
pub(crate) fn without_owned(auto: &str) -> Option<String> {
    if !auto.lines().any(sets_what_is_ours) {
        return None;
    }
    Some(auto.lines().filter(|l| !sets_what_is_ours(l)).map(|l| format!("{l}\n")).collect())
}

/// A fingerprint of the certificates and keys that PostgreSQL reads at a reload.
pub(crate) fn certificates(tls: &Path) -> u64 {
    let names = [pod::tls::CA, pod::tls::SERVER_CERT, pod::tls::SERVER_KEY];
    let mut all = Vec::new();
    for name in names {
        all.extend(std::fs::read(tls.join(name)).unwrap_or_default());
        all.push(0);
    }
    checksum(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::{ChangeId, Incarnation, MemberId};

    fn identity() -> Identity {
        Identity {
            member: MemberName::new("a", 1),
            namespace: "n".into(),
            set_uid: "u".into(),
            adopt: None,
            pod_uid: "p".into(),
            pod_ip: IpAddr::from([127, 0, 0, 1]),
            node: "x".into(),
            paths: Default::default(),
            postgres_port: 5432,
            peers_port: 1,
            http_port: 2,
        }
    }

    fn value<'a>(conf: &'a str, name: &str) -> &'a str {
        let prefix = format!("{name} = ");
        conf.lines().rev().find_map(|l| l.strip_prefix(&prefix)).unwrap_or_default()
    }

    fn rule(w: u32) -> Rule {
        let m = |n| MemberId { name: MemberName::new("a", n), incarnation: Incarnation::from_random(n.into()) };
        Rule {
            epoch: Epoch { number: 3, id: ChangeId::from_random(0) },
            leader: m(1),
            followers: [m(2), m(3)].into(),
            acknowledgements: w,
        }
    }

    #[test]
    fn a_later_line_wins_so_ours_come_last() {
        let (identity, floors) = (identity(), BTreeMap::from([("max_connections".to_owned(), 200)]));
        let frame = Frame {
            identity: &identity,
            listen: "*",
            system_user: "postgres",
            floors: &floors,
            volume: 10 << 30,
            major: 17,
            certificates: 0,
        };
        let set = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let user = Accepted {
            parameters: [set("max_connections", "50"), set("wal_sender_timeout", "9s")].into(),
            hba: vec![],
            memory: Some(1 << 30),
        };
        let f = files(&frame, &user, &Role::detached());
        assert_eq!(value(&f.conf, "max_connections"), "'200'", "the log was written with 200");
        assert_eq!(value(&f.conf, "wal_sender_timeout"), "'9s'");
        assert_eq!(value(&f.conf, "shared_buffers"), "'256MB'");
        assert_eq!(value(&f.conf, "synchronous_standby_names"), "'ANY 1 (\"nobody\")'");
        assert_eq!(value(&f.conf, "primary_conninfo"), "''");
        assert!(!f.hba.contains("scram"), "the gate is closed");
        let open = files(&frame, &user, &Role::leading(&rule(0), true));
        assert!(open.hba.ends_with("hostssl all all all scram-sha-256\n"));
        assert_eq!(value(&open.conf, "synchronous_standby_names"), "''");
        assert_ne!(open.fingerprint, f.fingerprint);
        assert_eq!(f, files(&frame, &user, &Role::detached()));
        let renewed = Frame { certificates: 1, ..frame };
        assert_ne!(files(&renewed, &user, &Role::detached()).fingerprint, f.fingerprint);
    }

    #[test]
    fn the_list_names_tags() {
        assert_eq!(names(&rule(0)), "");
        assert_eq!(names(&rule(2)), "ANY 2 (\"m2.caaaaaaaaa.e3.aaaa\", \"m3.daaaaaaaaa.e3.aaaa\")");
    }

    #[test]
    fn the_include_is_added_once() {
        let once = with_include("port = 1").unwrap();
        assert_eq!(once, "port = 1\ninclude 'pgconvoy.conf'\n");
        assert_eq!(with_include(&once), None);
    }

    #[test]
    fn alter_system_cannot_touch_what_is_ours() {
        assert_eq!(without_owned("# c\nwork_mem = '1MB'\n"), None);
        let auto = "# c\nSynchronous_standby_names = ''\nwork_mem = '1MB'\n";
        assert_eq!(without_owned(auto).unwrap(), "# c\nwork_mem = '1MB'\n");
    }
}

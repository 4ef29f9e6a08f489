//! PostgreSQL parameters that are not the user's: one table, for the CRD's rules, the agent and the reference page.

/// A parameter that pgconvoy sets itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnedParameter {
    /// Its name, in lower case.
    pub name: &'static str,
    /// Why: the second half of the sentence `<name> is set by pgconvoy: <why>`.
    pub why: &'static str,
}

/// A parameter that a user may set within limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitedParameter {
    /// Its name, in lower case.
    pub name: &'static str,
    /// What it may be.
    pub allowed: Allowed,
    /// Why: the second half of the sentence `<name> may be …: <why>`.
    pub why: &'static str,
}

/// What a limited parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// One of these words, written exactly so.
    OneOf(&'static [&'static str]),
    /// A whole number, this or greater.
    AtLeast(u32),
}

impl Allowed {
    /// The limit in words, like `replica or logical`.
    pub fn words(self) -> String {
        match self {
            Allowed::OneOf(words) => words.join(" or "),
            Allowed::AtLeast(least) => format!("a whole number from {least} up"),
        }
    }

    /// Whether `value`, as it would stand in `postgresql.conf` without quotes, is within the limit.
    pub fn holds(self, value: &str) -> bool {
        match self {
            Allowed::OneOf(words) => words.contains(&value),
            Allowed::AtLeast(least) => {
                let digits = (1..=9).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
                digits && value.parse::<u32>().is_ok_and(|n| n >= least)
            }
        }
    }
}

const STREAM: &str = "it says whom a follower streams from, which changes with every epoch";
const ACKNOWLEDGE: &str = "it holds the members whose flush acknowledges a commit; say how many with spec.durability";
const ARCHIVE: &str = "shipping the log is pgconvoy's task";
const RECOVER: &str = "recovery is driven by the agent, which must know how far it went";
const TARGET: &str = "a member always recovers to the end of its leader's log";
const NETWORK: &str = "Services, probes and the other members rely on it";
const SOCKET: &str = "the agent reaches PostgreSQL through it";
const FILES: &str = "it names a place inside the pod, which pgconvoy lays out";
const DURABLE: &str = "without it an acknowledged commit may be lost or a data directory ruined by a crash";
const TLS: &str = "certificates are made and renewed by pgconvoy";
const TIMING: &str = "how fast a lost follower or leader is noticed depends on it";
const LOG: &str = "the log goes to the container's log, in one form for all members";
const FAILED_LEADER: &str = "a PostgreSQL that crashed comes back only through the election of an epoch";
const INCLUDE: &str = "settings come from spec.postgresql.parameters alone";
const LOGICAL: &str = "logical slots are not carried from leader to leader yet";

const fn owned(name: &'static str, why: &'static str) -> OwnedParameter {
    OwnedParameter { name, why }
}

/// Parameters that pgconvoy sets itself, in alphabetical order.
const OWNED: &[OwnedParameter] = &[
    owned("allow_alter_system", "ALTER SYSTEM would change one member alone; change the spec instead"),
    owned("archive_cleanup_command", ARCHIVE),
    owned("archive_command", ARCHIVE),
    owned("archive_library", ARCHIVE),
    owned("archive_mode", ARCHIVE),
    owned("archive_timeout", ARCHIVE),
    owned("cluster_name", "it tells the members apart in the log and in the process list"),
    owned("config_file", FILES),
    owned("data_directory", FILES),
    owned("data_sync_retry", DURABLE),
    owned("db_user_namespace", "it changes the names of the roles that pgconvoy itself uses"),
    owned("default_transaction_read_only", "whether a member takes writes follows from its role"),
    owned("event_source", LOG),
    owned("external_pid_file", FILES),
    owned("fsync", DURABLE),
    owned("full_page_writes", DURABLE),
    owned("hba_file", "use spec.postgresql.hba"),
    owned("hot_standby", "every follower serves reads"),
    owned("ident_file", FILES),
    owned("idle_replication_slot_timeout", "a follower that is away must find its place again"),
    owned("include", INCLUDE),
    owned("include_dir", INCLUDE),
    owned("include_if_exists", INCLUDE),
    owned("listen_addresses", NETWORK),
    owned("log_destination", LOG),
    owned("log_directory", LOG),
    owned("log_file_mode", LOG),
    owned("log_filename", LOG),
    owned("log_line_prefix", LOG),
    owned("log_rotation_age", LOG),
    owned("log_rotation_size", LOG),
    owned("log_truncate_on_rotation", LOG),
    owned("logging_collector", LOG),
    owned("password_encryption", "passwords are kept as scram-sha-256"),
    owned("port", NETWORK),
    owned("primary_conninfo", STREAM),
    owned("primary_slot_name", STREAM),
    owned("promote_trigger_file", "who leads is decided by the election of an epoch, not by a file"),
    owned("recovery_end_command", RECOVER),
    owned("recovery_init_sync_method", "it decides how long a start after a crash takes"),
    owned("recovery_min_apply_delay", "a follower that lags on purpose cannot take over"),
    owned("recovery_target", TARGET),
    owned("recovery_target_action", TARGET),
    owned("recovery_target_inclusive", TARGET),
    owned("recovery_target_lsn", TARGET),
    owned("recovery_target_name", TARGET),
    owned("recovery_target_time", TARGET),
    owned("recovery_target_timeline", TARGET),
    owned("recovery_target_xid", TARGET),
    owned("restart_after_crash", FAILED_LEADER),
    owned("restore_command", RECOVER),
    owned("ssl", TLS),
    owned("ssl_ca_file", TLS),
    owned("ssl_cert_file", TLS),
    owned("ssl_crl_dir", TLS),
    owned("ssl_crl_file", TLS),
    owned("ssl_key_file", TLS),
    owned("ssl_passphrase_command", TLS),
    owned("ssl_passphrase_command_supports_reload", TLS),
    owned("sync_replication_slots", LOGICAL),
    owned("synchronized_standby_slots", LOGICAL),
    owned("synchronous_standby_names", ACKNOWLEDGE),
    owned("syslog_facility", LOG),
    owned("syslog_ident", LOG),
    owned("syslog_sequence_numbers", LOG),
    owned("syslog_split_messages", LOG),
    owned("unix_socket_directories", SOCKET),
    owned("unix_socket_group", SOCKET),
    owned("unix_socket_permissions", SOCKET),
    owned("wal_level", "it is logical, which every use of the log can live with"),
    owned("wal_log_hints", "a former leader can be rewound only with it"),
    owned("wal_receiver_create_temp_slot", STREAM),
    owned("wal_receiver_status_interval", TIMING),
    owned("wal_receiver_timeout", TIMING),
    owned("wal_retrieve_retry_interval", TIMING),
    owned("wal_sender_timeout", TIMING),
];

/// Parameters that a user may set within limits, in alphabetical order.
const LIMITED: &[LimitedParameter] = &[
    LimitedParameter {
        name: "max_replication_slots",
        allowed: Allowed::AtLeast(20),
        why: "every member keeps a slot for each other one, and those of an earlier epoch stay for a while",
    },
    LimitedParameter {
        name: "max_wal_senders",
        allowed: Allowed::AtLeast(20),
        why: "members stream from and copy each other, and need room for it at any time",
    },
    LimitedParameter {
        name: "synchronous_commit",
        allowed: Allowed::OneOf(&["on", "remote_apply"]),
        why: "less would acknowledge commits that no follower has flushed; a transaction or a role may still choose less \
              for itself, and spec.durability.mode: async is for the whole set",
    },
];

/// Parameters that pgconvoy sets itself, in alphabetical order.
pub fn owned_parameters() -> &'static [OwnedParameter] {
    OWNED
}

/// Parameters that a user may set within limits, in alphabetical order.
pub fn limited_parameters() -> &'static [LimitedParameter] {
    LIMITED
}

/// Why a user may not set parameter `name` to `value` (without quotes), as a sentence; `None` if they may.
///
/// The same answers as the CRD's rules give, for what reaches a member by another way (an object made before a rule was
/// there). Names are compared without regard to case, as PostgreSQL does. It says nothing on whether PostgreSQL knows
/// the parameter or takes the value.
pub fn refusal(name: &str, value: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if !is_parameter_name(&lower) {
        return Some(SYNTAX.to_owned());
    }
    if lower.starts_with(OWN_PREFIX) {
        return Some(OWN_PREFIX_SENTENCE.to_owned());
    }
    if let Some(owned) = OWNED.iter().find(|o| o.name == lower) {
        return Some(owned.sentence());
    }
    let limited = LIMITED.iter().find(|l| l.name == lower)?;
    (!limited.allowed.holds(value)).then(|| limited.sentence())
}

impl OwnedParameter {
    /// The whole sentence.
    pub fn sentence(&self) -> String {
        format!("{} is set by pgconvoy: {}", self.name, self.why)
    }
}

impl LimitedParameter {
    /// The whole sentence.
    pub fn sentence(&self) -> String {
        format!("{} may be {}: {}", self.name, self.allowed.words(), self.why)
    }
}

/// The sentence for a name that is none; [`NAME_PATTERN`] in words.
pub(crate) const SYNTAX: &str = "a parameter's name is written in lower case: a letter or _, then letters, digits and _; \
                                 the parameters of an extension have a dot between, like auto_explain.log_analyze";

/// What a parameter's name looks like, as a regular expression; its length is [`NAME_LIMIT`] at most.
pub(crate) const NAME_PATTERN: &str = r"^[a-z_][a-z0-9_]*([.][a-z_][a-z0-9_]*)?$";

/// PostgreSQL's own limit of a name.
pub(crate) const NAME_LIMIT: usize = 63;

/// [`NAME_PATTERN`] in Rust.
fn is_parameter_name(name: &str) -> bool {
    let word = |w: &str| {
        w.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
            && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    name.len() <= NAME_LIMIT && name.split('.').count() <= 2 && name.split('.').all(word)
}

/// How the names begin under which the agent leaves itself notes in the configuration.
pub(crate) const OWN_PREFIX: &str = "pgconvoy.";
/// The sentence for such a name.
pub(crate) const OWN_PREFIX_SENTENCE: &str = "parameters that begin with pgconvoy. are pgconvoy's own";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_name_nothing_twice() {
        let owned: Vec<_> = OWNED.iter().map(|o| o.name).collect();
        let limited: Vec<_> = LIMITED.iter().map(|l| l.name).collect();
        assert!(owned.is_sorted_by(|a, b| a < b), "{owned:?}");
        assert!(limited.is_sorted_by(|a, b| a < b), "{limited:?}");
        assert!(limited.iter().all(|l| !owned.contains(l)));
        for name in owned.iter().chain(&limited) {
            assert!(is_parameter_name(name), "{name}");
        }
    }

    #[test]
    fn what_pgconvoy_owns_is_refused_in_any_case_and_with_any_value() {
        assert_eq!(refusal("PgConvoy.gate", "open").as_deref(), Some(OWN_PREFIX_SENTENCE));
        for name in ["fsync", "FSYNC", "Primary_ConnInfo", "recovery_target_time", "include_dir", "port"] {
            assert!(refusal(name, "on").unwrap().contains("is set by pgconvoy: "), "{name}");
        }
    }

    #[test]
    fn limits_hold() {
        for (name, value, allowed) in [
            ("synchronous_commit", "on", true),
            ("synchronous_commit", "remote_apply", true),
            ("synchronous_commit", "local", false),
            ("synchronous_commit", "off", false),
            ("synchronous_commit", "remote_write", false),
            ("wal_level", "logical", false),
            ("max_wal_senders", "20", true),
            ("max_wal_senders", "19", false),
            ("max_wal_senders", "-20", false),
            ("max_wal_senders", "99999999999", false),
            ("max_replication_slots", "0x20", false),
            ("shared_buffers", "1GB", true),
            ("max_slot_wal_keep_size", "10GB", true),
            ("hot_standby_feedback", "on", true),
            ("auto_explain.log_analyze", "on", true),
        ] {
            assert_eq!(refusal(name, value).is_none(), allowed, "{name} = {value}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["", ".", "a.", ".a", "a.b.c", "a b", "a=b", "a\nfsync", "1a", "a-b", "a'"] {
            assert_eq!(refusal(name, "1").as_deref(), Some(SYNTAX), "{name:?}");
        }
    }
}

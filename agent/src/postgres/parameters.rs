//! The user's parameters and hba lines: what may stand there, and how it is written.

use std::collections::BTreeMap;

/// Parameters that are pgconvoy's: replication, durability and where the server is found hang on them.
pub const OWNED: [&str; 37] = [
    "allow_alter_system",
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "log_destination",
    "logging_collector",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_init_sync_method",
    "recovery_min_apply_delay",
    "recovery_target_timeline",
    "restart_after_crash",
    "restore_command",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_key_file",
    "synchronous_standby_names",
    "unix_socket_directories",
    "unix_socket_permissions",
    "wal_level",
    "wal_log_hints",
    "wal_retrieve_retry_interval",
];

/// Values that would undo what pgconvoy promises, for parameters that may otherwise be set.
fn refused_value(name: &str, value: &str) -> Option<&'static str> {
    let value = value.trim().to_ascii_lowercase();
    let number = || value.parse::<i64>().ok();
    match name {
        "synchronous_commit" if matches!(value.as_str(), "off" | "local" | "false" | "no" | "0" | "remote_write") => {
            Some("commits would be acknowledged before enough followers have flushed them; use durability.mode: async")
        }
        "max_wal_senders" | "max_replication_slots" if number().is_some_and(|n| n < 20) => {
            Some("it must be at least 20, so that followers, clones and slots of earlier epochs always find room")
        }
        "wal_receiver_status_interval" if value == "0" || value.starts_with("0") && number() == Some(0) => {
            Some("with 0 a follower reports only what it has replayed, and commits wait for that")
        }
        _ => None,
    }
}

fn good_name(name: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty()
            && !w.starts_with(|c: char| c.is_ascii_digit())
            && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    name.len() <= 63 && name.split('.').count() <= 2 && name.split('.').all(word)
}

/// What can be said without asking PostgreSQL.
///
/// # Errors
/// A sentence that names the parameter.
pub(crate) fn check(parameters: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in parameters {
        let plain = name.to_ascii_lowercase();
        if !good_name(name) {
            return Err(format!("{name:?} cannot be the name of a PostgreSQL parameter"));
        }
        if OWNED.contains(&plain.as_str()) || plain.starts_with("pgconvoy.") {
            return Err(format!("the parameter {name} is pgconvoy's own; remove it from postgresql.parameters"));
        }
        if value.contains(['\0', '\n', '\r']) {
            return Err(format!("the value of {name} must be one line"));
        }
        if let Some(why) = refused_value(&plain, value) {
            return Err(format!("the parameter {name} = {value:?} is refused: {why}"));
        }
    }
    Ok(())
}

/// A value as it stands in a configuration file.
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Looks at an hba line as far as its form goes; PostgreSQL looks again before a line is put in force.
///
/// # Errors
/// A sentence that names the line.
pub(crate) fn check_hba(lines: &[String]) -> Result<(), String> {
    const KINDS: [&str; 6] = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
    const METHODS: [&str; 14] = [
        "trust",
        "reject",
        "scram-sha-256",
        "md5",
        "password",
        "gss",
        "sspi",
        "ident",
        "peer",
        "ldap",
        "radius",
        "cert",
        "pam",
        "bsd",
    ];
    for line in lines {
        let bad = |what: &str| Err(format!("the hba line {line:?} {what}"));
        if line.contains(['\0', '\n', '\r']) {
            return bad("must be one line");
        }
        let text = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some(kind) = words.first() else { continue };
        if !KINDS.contains(kind) {
            return bad("does not begin with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc");
        }
        let wanted = if *kind == "local" { 4 } else { 5 };
        if words.len() < wanted {
            return bad("has too few fields: type, database, user, address (but for local), method");
        }
        // An address may be followed by a mask.
        let known = |at: usize| words.get(at).is_some_and(|w| METHODS.contains(w));
        let masked = *kind != "local" && known(wanted);
        if !masked && !known(wanted - 1) {
            return bad("names no authentication method that PostgreSQL knows");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, value: &str) -> Option<String> {
        check(&BTreeMap::from([(name.to_owned(), value.to_owned())])).err()
    }

    #[test]
    fn ours_are_refused_and_others_are_not() {
        for (name, value, part) in [
            ("fsync", "off", "pgconvoy's own"),
            ("FSYNC", "off", "pgconvoy's own"),
            ("pgconvoy.rule", "x", "pgconvoy's own"),
            ("synchronous_commit", "off", "durability.mode"),
            ("max_wal_senders", "3", "at least 20"),
            ("wal_receiver_status_interval", "0", "replayed"),
            ("a b", "1", "cannot be the name"),
            ("include 'x'", "1", "cannot be the name"),
            ("", "1", "cannot be the name"),
            ("work_mem", "4MB\nfsync = off", "one line"),
        ] {
            assert!(said(name, value).is_some_and(|s| s.contains(part)), "{name}={value}: {:?}", said(name, value));
        }
        for (name, value) in [("work_mem", "4MB"), ("auto_explain.log_min_duration", "1s"), ("max_wal_senders", "30")] {
            assert_eq!(said(name, value), None);
        }
        assert!(OWNED.is_sorted());
    }

    #[test]
    fn values_cannot_leave_their_quotes() {
        assert_eq!(quoted(r"a'b\c"), r"'a''b\\c'");
    }

    #[test]
    fn hba_lines() {
        let ok = |l: &str| check_hba(&[l.to_owned()]);
        for line in [
            "hostssl all all 10.0.0.0/8 scram-sha-256",
            "host a b 10.0.0.0 255.0.0.0 md5",
            "",
            "# c",
            "local all all peer map=x",
        ] {
            assert_eq!(ok(line), Ok(()), "{line}");
        }
        for line in ["hostssl all all", "hosts all all all md5", "host all all all nonsense", "local all all\nhost x"] {
            assert!(ok(line).is_err(), "{line}");
        }
    }
}

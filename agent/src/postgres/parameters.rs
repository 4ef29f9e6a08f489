//! The user's parameters and hba lines: what may stand there, and how it is written.

use pgconvoy_crds::parameters::refusal;
use std::collections::BTreeMap;

/// What can be said without asking PostgreSQL: the CRD's own rules, for what was taken before a rule was there.
///
/// # Errors
/// A sentence that names the parameter.
pub(crate) fn check(parameters: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in parameters {
        if let Some(why) = refusal(name, value) {
            return Err(format!("postgresql.parameters: {name:?}: {why}"));
        }
        if value.contains(['\0', '\n', '\r']) {
            return Err(format!("postgresql.parameters: {name:?}: a parameter's value is one line"));
        }
    }
    Ok(())
}

/// Whether a line of `postgresql.auto.conf` sets what is pgconvoy's, or to what may not be: ALTER SYSTEM asks nobody.
pub(crate) fn sets_what_is_ours(line: &str) -> bool {
    let Some((name, value)) = line.split_once('=') else { return false };
    let value = value.trim();
    let value = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(value);
    !name.trim_start().starts_with('#') && refusal(name.trim(), value).is_some()
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
            ("fsync", "off", "\"fsync\": fsync is set by pgconvoy"),
            ("FSYNC", "off", "\"FSYNC\": fsync is set by pgconvoy"),
            ("pgconvoy.rule", "x", "pgconvoy's own"),
            ("synchronous_commit", "off", "durability.mode"),
            ("max_wal_senders", "3", "from 20 up"),
            ("wal_receiver_status_interval", "0", "set by pgconvoy"),
            ("a b", "1", "a parameter's name is"),
            ("include 'x'", "1", "a parameter's name is"),
            ("", "1", "a parameter's name is"),
            ("work_mem", "4MB\nfsync = off", "one line"),
        ] {
            assert!(said(name, value).is_some_and(|s| s.contains(part)), "{name}={value}: {:?}", said(name, value));
        }
        for (name, value) in [("work_mem", "4MB"), ("auto_explain.log_min_duration", "1s"), ("max_wal_senders", "30")] {
            assert_eq!(said(name, value), None);
        }
    }

    #[test]
    fn alter_system_is_looked_at_in_the_same_way() {
        for line in
            ["fsync = 'off'", " Primary_ConnInfo='host=x'", "synchronous_commit = 'local'", "pgconvoy.gate = 'open'"]
        {
            assert!(sets_what_is_ours(line), "{line}");
        }
        for line in
            ["work_mem = '4MB'", "# fsync = 'off'", "", "synchronous_commit = 'remote_apply'", "max_wal_senders = '20'"]
        {
            assert!(!sets_what_is_ours(line), "{line}");
        }
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

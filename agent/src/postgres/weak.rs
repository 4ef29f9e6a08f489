//! Commits that are promised less than the set promises: by roles and databases that choose so for themselves. It is theirs to choose;
//! whoever looks after the set should know.

use super::{Error, server::Postgres, sql::Session};
use pgconvoy_terms::Rule;

/// How many are named.
const NAMED: usize = 5;

impl Postgres {
    /// A sentence about the roles and databases whose commits do not wait for a follower to flush them, if there are any although the
    /// rule has commits wait.
    pub(crate) async fn weak_commits(&self, session: &Session, rule: &Rule) -> Option<String> {
        if rule.acknowledgements == 0 {
            return None;
        }
        match settings(session).await {
            Ok(whose) => sentence(&whose),
            Err(e) => {
                // It is looked again in some seconds; nothing rests on it.
                tracing::debug!(error = %e, "cannot look at the settings of roles and databases");
                None
            }
        }
    }
}

/// Whose `synchronous_commit` is less than `on`, and what it is.
async fn settings(session: &Session) -> Result<Vec<String>, Error> {
    let sql = "SELECT concat_ws(' in ', 'role ' || quote_ident(r.rolname), 'database ' || quote_ident(d.datname)), \
               split_part(c, '=', 2) \
               FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c \
               LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase \
               WHERE c ~* '^synchronous_commit=(off|false|no|0|local|remote_write)$' ORDER BY 1";
    let rows = session.rows("looking at the settings of roles and databases", sql).await?;
    let one = |whose: &str, value: &str| format!("{} ({value})", if whose.is_empty() { "all roles" } else { whose });
    Ok(rows.iter().map(|r| one(r.text(0).unwrap_or_default(), r.text(1).unwrap_or_default())).collect())
}

fn sentence(whose: &[String]) -> Option<String> {
    if whose.is_empty() {
        return None;
    }
    let mut names = whose.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = whose.len().checked_sub(NAMED).filter(|m| *m > 0) {
        names.push_str(&format!(" and {more} more"));
    }
    Some(format!(
        "synchronous_commit is less than on for {names}: what they commit is acknowledged before a follower has flushed it, and may be \
         lost with the leader"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_named_and_the_rest_is_counted() {
        assert_eq!(sentence(&[]), None);
        let of = |n: usize| sentence(&(0..n).map(|i| format!("role r{i} (off)")).collect::<Vec<_>>()).unwrap();
        assert!(of(1).starts_with("synchronous_commit is less than on for role r0 (off): what they commit"));
        assert!(of(5).contains("role r3 (off), role r4 (off):"), "{}", of(5));
        assert!(of(7).contains("role r4 (off) and 2 more:"), "{}", of(7));
    }
}

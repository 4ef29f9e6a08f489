//! The condition `Archiving`.

use super::conditions::Verdict;
use crate::replica_set::archive::ArchiveSeen;
use crate::replica_set::observed::{Observed, Rule};
use pgconvoy_crds::MemberArchive;
use pgconvoy_crds::conditions::{ARCHIVE_REASONS, ARCHIVING, reasons};
use pgconvoy_crds::pod::archive::ACCESS;

/// How archiving stands; nothing of a set without an archive.
pub(super) fn archiving(observed: &Observed, rule: &Rule) -> Option<Verdict> {
    let verdict = |holds, reason, message: String| Some(Verdict { type_: ARCHIVING, holds, reason, message });
    let said = leaders_word(observed, rule);
    let runs = said.filter(|s| works(&s.reason));
    match &observed.archive {
        ArchiveSeen::NotAsked => None,
        ArchiveSeen::Missing { reason, message } => {
            let goes_on = match runs {
                Some(_) => "; archiving goes on with what was known before",
                None => "",
            };
            verdict(false, reason, format!("{message}{goes_on}"))
        }
        // Only what a new set is made from.
        ArchiveSeen::There(files) if !files.files.contains_key(ACCESS) => None,
        ArchiveSeen::Unknown | ArchiveSeen::There(_) => match said {
            None => verdict(false, reasons::ARCHIVE_STARTING, "the leader has not begun to archive yet".to_owned()),
            Some(said) => {
                let known = ARCHIVE_REASONS.iter().find(|r| **r == said.reason);
                let message = said.message.clone().unwrap_or_else(|| "WAL is archived as it is written".to_owned());
                verdict(works(&said.reason), known.copied().unwrap_or(reasons::ARCHIVE_FAILING), message)
            }
        },
    }
}

fn works(reason: &str) -> bool {
    matches!(reason, reasons::ARCHIVE_CURRENT | reasons::ARCHIVE_BEHIND)
}

/// What the leader in force says of its archiving in its present pod.
fn leaders_word<'a>(observed: &'a Observed, rule: &Rule) -> Option<&'a MemberArchive> {
    let leader = rule.leader.as_ref().filter(|_| rule.active)?.to_string();
    observed.present_states().find(|s| s.name == leader)?.archive.as_ref()
}

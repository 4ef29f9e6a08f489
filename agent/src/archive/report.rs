//! How archiving stands, for the status: in words that change only when something happened. Pure but for the time that
//! people read.

use super::full::Told;
use pgconvoy_archive::ship::Progress;
use pgconvoy_crds::{MemberArchive, conditions::reasons};
use pgconvoy_terms::Lsn;
use std::time::{Duration, Instant};

/// So long trouble must last before it is told: what passes by itself in between is nobody's business.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the archived LSN is written anew while it moves.
const REFRESH: Duration = Duration::from_secs(60);
/// So many bytes of WAL make a backlog, and so few are none any more.
const BEHIND: u64 = 64 << 20;
const CAUGHT_UP: u64 = 16 << 20;

/// What is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Of the shipping that is under way, if any.
    pub(crate) progress: Option<Progress>,
    /// Something that keeps it from beginning: reason in one word, sentence, since when.
    pub(crate) obstacle: Option<(&'static str, String, Instant)>,
    /// What stays wrong although it goes on: WAL that is missing for ever.
    pub(crate) gap: Option<String>,
    /// What is weaker than it should be.
    pub(crate) note: Option<String>,
}

impl Standing {
    /// Whether what is under way gets through.
    pub(crate) fn flows(&self) -> bool {
        self.obstacle.is_none()
            && self.progress.as_ref().is_some_and(|p| p.trouble.is_none() && p.backlog() < CAUGHT_UP)
    }
}

/// Says what is to be written, and remembers what was.
#[derive(Debug, Default)]
pub(crate) struct Report {
    written: Option<MemberArchive>,
    refreshed: Option<Instant>,
    behind: bool,
}

impl Report {
    /// What the status should say; none: nothing of an archive.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        wall: &str,
        standing: Option<&Standing>,
        told: &Told,
    ) -> Option<MemberArchive> {
        let Some(standing) = standing else {
            *self = Self::default();
            return None;
        };
        // What has just begun says nothing yet.
        let Some((reason, message)) = self.judge(now, standing) else { return self.written.clone() };
        let (reason, message) = with_backlog(reason, message, told);
        let archived = standing.progress.as_ref().map(|p| p.archived).filter(|a| *a > Lsn(0)).map(|a| a.to_string());
        let before = self.written.as_ref();
        let same = before.is_some_and(|b| b.reason == reason && b.message == message);
        let fresh = self.refreshed.is_some_and(|at| now.duration_since(at) < REFRESH);
        if same && (fresh || before.is_some_and(|b| b.archived == archived)) {
            return self.written.clone();
        }
        let since = before.filter(|b| b.reason == reason).and_then(|b| b.since.clone());
        self.refreshed = Some(now);
        self.written = Some(MemberArchive {
            archived: archived.or_else(|| before.and_then(|b| b.archived.clone())),
            reason: reason.to_owned(),
            message,
            since: since.or_else(|| Some(wall.to_owned())),
        });
        self.written.clone()
    }

    fn judge(&mut self, now: Instant, standing: &Standing) -> Option<(&'static str, Option<String>)> {
        if let Some((word, message, since)) = &standing.obstacle
            && now.duration_since(*since) >= PATIENCE
        {
            return Some((reason(word), Some(message.clone())));
        }
        let progress = standing.progress.as_ref()?;
        if let Some(trouble) = &progress.trouble
            && now.duration_since(trouble.since) >= PATIENCE
        {
            return Some((reason(trouble.reason), Some(trouble.message.clone())));
        }
        if let Some(gap) = &standing.gap {
            return Some((reasons::ARCHIVE_GAP, Some(gap.clone())));
        }
        let backlog = progress.backlog();
        self.behind = if self.behind { backlog > CAUGHT_UP } else { backlog >= BEHIND };
        if self.behind {
            let message = format!("more than {} MiB of WAL wait to be archived", CAUGHT_UP >> 20);
            return Some((reasons::ARCHIVE_BEHIND, Some(message)));
        }
        Some((reasons::ARCHIVE_CURRENT, standing.note.clone()))
    }
}

/// What waits on the volume belongs to whatever keeps it from the archive; by itself it says that the archive is behind.
fn with_backlog(reason: &'static str, message: Option<String>, told: &Told) -> (&'static str, Option<String>) {
    match reason {
        // A gap says by itself what was given up.
        reasons::ARCHIVE_GAP => (reason, message),
        reasons::ARCHIVE_CURRENT | reasons::ARCHIVE_BEHIND => match &told.waits {
            Some(waits) => (reasons::ARCHIVE_BEHIND, Some(waits.clone())),
            None => (reason, message),
        },
        _ => {
            let all = [message.as_ref(), told.given_up.as_ref(), told.waits.as_ref()];
            let all: Vec<&str> = all.into_iter().flatten().map(String::as_str).collect();
            (reason, (!all.is_empty()).then(|| all.join("; ")))
        }
    }
}

/// The reason in the condition for a word of the library's.
pub(crate) fn reason(word: &str) -> &'static str {
    match word {
        "Unreachable" | "LenderAway" => reasons::STORE_UNREACHABLE,
        "Tls" => reasons::STORE_UNTRUSTED,
        "Timeout" | "Busy" => reasons::STORE_BUSY,
        "NoBucket" => reasons::NO_BUCKET,
        "Denied" | "Credentials" | "NotLent" => reasons::STORE_DENIES,
        "Region" | "Clock" | "Unsupported" | "Inconsistent" | "Refused" => reasons::STORE_REFUSES,
        "Configuration" => reasons::ARCHIVE_UNUSABLE,
        "AnotherOwner" => reasons::ARCHIVE_OF_ANOTHER_SET,
        "Fenced" => reasons::ARCHIVE_FENCED,
        "Damaged" | "Newer" => reasons::ARCHIVE_DAMAGED,
        "WalGone" => reasons::WAL_GONE,
        _ => reasons::ARCHIVE_FAILING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_archive::ship::Trouble;

    fn standing(archived: u64, server: u64) -> Standing {
        let progress = Progress { archived: Lsn(archived), server: Lsn(server), ..Progress::default() };
        Standing { progress: Some(progress), ..Standing::default() }
    }

    #[test]
    fn it_is_written_when_something_happened_and_once_a_minute_while_wal_flows() {
        let (mut report, start) = (Report::default(), Instant::now());
        let mut at = |seconds, wall: &str, s: &Standing| {
            report.step(start + Duration::from_secs(seconds), wall, Some(s), &Told::default()).unwrap()
        };
        let first = at(0, "zero", &standing(100, 100));
        assert_eq!((first.reason.as_str(), first.since.as_deref()), ("Archiving", Some("zero")));
        assert_eq!(first.archived.as_deref(), Some("0/64"));
        assert_eq!(at(30, "later", &standing(200, 200)), first, "not yet");
        let second = at(60, "later", &standing(200, 200));
        assert_eq!((second.archived.as_deref(), second.since.as_deref()), (Some("0/C8"), Some("zero")));
        assert_eq!(at(9999, "much later", &standing(200, 200)), second, "an idle set costs nothing");

        let mut broken = standing(200, 300);
        let since = start + Duration::from_secs(10_000);
        broken.progress.as_mut().unwrap().trouble =
            Some(Trouble { reason: "Unreachable", message: "no way".into(), since });
        assert_eq!(at(10_001, "then", &broken), second, "it may pass");
        let told = at(10_003, "then", &broken);
        assert_eq!((told.reason.as_str(), told.message.as_deref()), ("StoreUnreachable", Some("no way")));
        assert_eq!((told.since.as_deref(), told.archived.as_deref()), (Some("then"), Some("0/C8")));
        let over = at(10_004, "over", &standing(300, 300));
        assert_eq!((over.reason.as_str(), over.since.as_deref()), ("Archiving", Some("over")));
    }

    #[test]
    fn a_backlog_is_told_with_room_between_yes_and_no() {
        let (mut report, now) = (Report::default(), Instant::now());
        let mut reason =
            |mib: u64| report.step(now, "", Some(&standing(0, mib << 20)), &Told::default()).unwrap().reason;
        assert_eq!(
            [reason(63), reason(64), reason(17), reason(16), reason(63)],
            ["Archiving", "ArchiveBehind", "ArchiveBehind", "Archiving", "Archiving"]
        );
    }

    #[test]
    fn what_waits_on_the_volume_is_told_with_what_keeps_it_there() {
        let (mut report, now) = (Report::default(), Instant::now());
        let told = Told { waits: Some("much waits".into()), given_up: Some("some is gone".into()) };
        let mut say = |s: &Standing, told: &Told| {
            let said = report.step(now, "", Some(s), told).unwrap();
            format!("{} {}", said.reason, said.message.unwrap_or_default())
        };
        let mut away = standing(0, 0);
        away.obstacle = Some(("Unreachable", "no way".into(), now - PATIENCE));
        assert_eq!(say(&away, &told), "StoreUnreachable no way; some is gone; much waits");
        assert_eq!(say(&away, &Told::default()), "StoreUnreachable no way");
        assert_eq!(say(&standing(0, 0), &told), "ArchiveBehind much waits");
        assert_eq!(say(&standing(0, 0), &Told { waits: None, ..told.clone() }), "Archiving ");
        let gap = Standing { gap: Some("a gap".into()), ..standing(0, 0) };
        assert_eq!(say(&gap, &told), "ArchiveGap a gap");
    }

    /// Each word of the store's and of the library's has its reason in the condition, with what it means in the reference.
    #[test]
    fn every_fault_of_a_store_has_a_reason_of_its_kind() {
        use pgconvoy_archive::store::Reason;
        for (fault, wanted) in [
            (Reason::Unreachable, "StoreUnreachable"),
            (Reason::Tls, "StoreUntrusted"),
            (Reason::Timeout, "StoreBusy"),
            (Reason::Busy, "StoreBusy"),
            (Reason::NoBucket, "NoBucket"),
            (Reason::Denied, "StoreDenies"),
            (Reason::Credentials, "StoreDenies"),
            (Reason::NotLent, "StoreDenies"),
            (Reason::LenderAway, "StoreUnreachable"),
            (Reason::Region, "StoreRefuses"),
            (Reason::Clock, "StoreRefuses"),
            (Reason::Unsupported, "StoreRefuses"),
            (Reason::Inconsistent, "StoreRefuses"),
            (Reason::Refused, "StoreRefuses"),
            (Reason::Configuration, "ArchiveUnusable"),
            (Reason::Damaged, "ArchiveDamaged"),
        ] {
            assert_eq!(reason(fault.name()), wanted, "{fault:?}");
            assert!(pgconvoy_crds::conditions::ARCHIVE_REASONS.contains(&wanted), "{wanted}");
        }
        for (word, wanted) in
            [("AnotherOwner", "ArchiveOfAnotherSet"), ("Fenced", "ArchiveFenced"), ("WalGone", "WalGone")]
        {
            assert_eq!(reason(word), wanted);
        }
    }
}

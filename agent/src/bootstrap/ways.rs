//! By which way a member without data that it could stream with comes to the set's data. Pure.
//!
//! Streaming and rewinding are for data that is good: the failover core tries them first. Where neither helps it asks for a copy,
//! and there are three ways to one: what the data here lacks of the log, out of the archive; a snapshot and the log behind it, out of
//! the archive; a copy from another member. The first two cost the members nothing.

use super::tries::{Key, Tries};

/// So much log behind a snapshot is always replayed rather than copying from a member, in bytes.
const LITTLE: u64 = 1 << 30;
/// What must stay free on the volume, in bytes: a few segments for PostgreSQL to begin with.
const RESERVE: u64 = 256 << 20;

/// What is known.
#[derive(Debug)]
pub(super) struct Seen {
    /// What the archive has to offer.
    pub(super) archive: Archive,
    /// Bytes that are free on the volume.
    pub(super) free: u64,
    /// Bytes that the volume can hold; what lies there makes room for a new copy.
    pub(super) size: u64,
    /// From whom a copy would come.
    pub(super) from: String,
}

/// What the archive has to offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Archive {
    /// The set has none.
    None,
    /// It cannot be used; a sentence without its end.
    Unusable(String),
    /// It goes on to where the leader still has its log.
    There {
        /// Bytes of log that the data here lacks; none: no data that the log could be added to.
        lacks: Option<u64>,
        /// Snapshots that the leader's log goes on from, the newest first.
        snapshots: Vec<Offer>,
    },
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// Its name.
    pub(super) name: String,
    /// Bytes to fetch.
    pub(super) packed: u64,
    /// Bytes of its files.
    pub(super) unpacked: u64,
    /// Bytes of log behind its beginning.
    pub(super) log: u64,
    /// Why it cannot be used at all; a sentence without its end.
    pub(super) unfit: Option<String>,
}

/// A way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// The log that the data here lacks, out of the archive. The data stays.
    Log,
    /// This snapshot and the log behind it, out of the archive.
    Restore(String),
    /// A copy from a member.
    Clone,
}

/// A way, and why it and no better one, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) way: Way,
    pub(super) how: String,
}

impl Way {
    /// As tries are counted by.
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Log => Key::Log,
            Self::Restore(name) => Key::Restore(name.clone()),
            Self::Clone => Key::Clone,
        }
    }
}

/// The cheapest way that can be gone and has not failed too often.
pub(super) fn choose(seen: &Seen, tries: &Tries) -> Choice {
    let copying = format!("copying from {}", seen.from);
    let copy = |why: &str| Choice { way: Way::Clone, how: format!("{copying}, because {why}") };
    let (lacks, snapshots) = match &seen.archive {
        Archive::None => return Choice { way: Way::Clone, how: copying },
        Archive::Unusable(why) => return copy(why),
        Archive::There { lacks, snapshots } => (lacks, snapshots),
    };
    let mut against = Vec::new();
    if let Some(lacks) = *lacks {
        let most = snapshots.first().map_or(LITTLE, |s| s.unpacked.max(LITTLE));
        if let Some(why) = tries.given_up(&Key::Log) {
            against.push(format!("adding the log that is missing here {why}"));
        } else if lacks > most {
            against.push(format!(
                "the log that is missing here, {}, is more than a copy of the data would be",
                size(lacks)
            ));
        } else if lacks + RESERVE > seen.free {
            against.push(format!(
                "the log that is missing here, {}, finds no room on the volume ({} free)",
                size(lacks),
                size(seen.free)
            ));
        } else {
            return Choice {
                way: Way::Log,
                how: format!("adding the {} of log that are missing here, out of the archive", size(lacks)),
            };
        }
    }
    for offer in snapshots {
        let Offer { name, packed, unpacked, log, unfit } = offer;
        let named = format!("snapshot {name}");
        if let Some(why) = unfit {
            against.push(format!("{named} {why}"));
        } else if let Some(why) = tries.given_up(&Key::Restore(name.clone())) {
            against.push(format!("restoring {named} {why}"));
        } else if *log > LITTLE.max(*unpacked) {
            against.push(format!(
                "replaying the {} of log behind {named} ({} of data) takes longer than a copy",
                size(*log),
                size(*unpacked)
            ));
        } else if unpacked + log + RESERVE > seen.size {
            against.push(format!(
                "{named} and the log behind it, {}, find no room on the volume ({})",
                size(unpacked + log),
                size(seen.size)
            ));
        } else {
            let why = against.join("; ");
            let why = if why.is_empty() { why } else { format!(" ({why})") };
            return Choice {
                way: Way::Restore(name.clone()),
                how: format!(
                    "restoring {named}, {} to fetch, and {} of log behind it, out of the archive{why}",
                    size(*packed),
                    size(*log)
                ),
            };
        }
    }
    if snapshots.is_empty() {
        against.push("there is no snapshot in the archive that the leader's log goes on from".to_owned());
    }
    copy(&against.join("; "))
}

/// For people.
fn size(bytes: u64) -> String {
    if bytes < 10 << 20 {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn offer(name: &str, unpacked: u64, log: u64) -> Offer {
        Offer { name: name.into(), packed: unpacked / 3, unpacked, log, unfit: None }
    }

    fn seen(lacks: Option<u64>, snapshots: &[Offer]) -> Seen {
        let archive = Archive::There { lacks, snapshots: snapshots.to_vec() };
        Seen { archive, free: 50 * GIB, size: 100 * GIB, from: "a-1".into() }
    }

    fn chosen(seen: &Seen) -> (Way, String) {
        let Choice { way, how } = choose(seen, &Tries::default());
        (way, how)
    }

    fn restore(name: &str) -> Way {
        Way::Restore(name.into())
    }

    #[test]
    fn without_an_archive_it_copies_and_has_nothing_to_explain() {
        let none = Seen { archive: Archive::None, ..seen(None, &[]) };
        assert_eq!(chosen(&none), (Way::Clone, "copying from a-1".into()));
    }

    #[test]
    fn an_archive_that_cannot_be_used_is_told() {
        let away = Seen { archive: Archive::Unusable("the store is away".into()), ..seen(None, &[]) };
        assert_eq!(chosen(&away), (Way::Clone, "copying from a-1, because the store is away".into()));
        let (way, how) = chosen(&seen(None, &[]));
        assert!(way == Way::Clone && how.contains("no snapshot in the archive"), "{how}");
    }

    #[test]
    fn an_empty_volume_takes_the_newest_snapshot() {
        let (way, how) = chosen(&seen(None, &[offer("new", 3 * GIB, 40 * MIB), offer("old", 3 * GIB, 20 * MIB)]));
        assert_eq!(way, restore("new"));
        assert_eq!(how, "restoring snapshot new, 1024 MiB to fetch, and 40 MiB of log behind it, out of the archive");
    }

    #[test]
    fn data_that_only_lacks_log_gets_that_and_stays() {
        let (way, how) = chosen(&seen(Some(5 * MIB / 2), &[offer("new", 3 * GIB, MIB)]));
        assert_eq!(way, Way::Log);
        assert_eq!(how, "adding the 2.5 MiB of log that are missing here, out of the archive");
        assert_eq!(chosen(&seen(Some(GIB), &[])).0, Way::Log, "no snapshot is needed for it");
    }

    #[test]
    fn more_log_than_data_is_not_replayed() {
        // Little is little, whatever the data.
        assert_eq!(chosen(&seen(None, &[offer("s", MIB, GIB)])).0, restore("s"));
        assert_eq!(chosen(&seen(None, &[offer("s", 3 * GIB, 3 * GIB)])).0, restore("s"));
        let (way, how) = chosen(&seen(None, &[offer("s", 3 * GIB, 3 * GIB + 1)]));
        assert!(way == Way::Clone && how.contains("3072 MiB of log behind snapshot s"), "{how}");
        let (way, how) = chosen(&seen(Some(4 * GIB), &[offer("s", 3 * GIB, MIB)]));
        assert_eq!(way, restore("s"));
        assert!(
            how.ends_with("(the log that is missing here, 4096 MiB, is more than a copy of the data would be)"),
            "{how}"
        );
    }

    #[test]
    fn what_finds_no_room_is_not_begun() {
        let small = |free, size, lacks| Seen { free, size, ..seen(lacks, &[offer("s", 3 * GIB, MIB)]) };
        assert_eq!(chosen(&small(GIB, 3 * GIB, Some(MIB))).0, Way::Log);
        assert_eq!(chosen(&small(GIB, 4 * GIB, None)).0, restore("s"));
        assert_eq!(chosen(&small(200 * MIB, 4 * GIB, Some(MIB))).0, restore("s"), "what is there makes room");
        let (way, how) = chosen(&small(3 * GIB, 3 * GIB, None));
        assert!(way == Way::Clone && how.contains("no room on the volume (3072 MiB)"), "{how}");
    }

    #[test]
    fn a_snapshot_that_cannot_be_used_leaves_it_to_an_older_one() {
        let unfit = Offer { unfit: Some("is of PostgreSQL 16".into()), ..offer("new", GIB, MIB) };
        let (way, how) = chosen(&seen(None, &[unfit.clone(), offer("old", GIB, MIB)]));
        assert!(way == restore("old") && how.ends_with("(snapshot new is of PostgreSQL 16)"), "{how}");
        assert_eq!(chosen(&seen(None, &[unfit])).1, "copying from a-1, because snapshot new is of PostgreSQL 16");
    }

    #[test]
    fn what_has_failed_three_times_gives_way_to_the_next() {
        let now = Instant::now();
        let mut tries = Tries::default();
        let all = seen(Some(MIB), &[offer("new", GIB, MIB), offer("old", GIB, MIB)]);
        let mut order = Vec::new();
        for n in 0..12 {
            let way = choose(&all, &tries).way;
            order.push(way.clone());
            tries.failed(way.key(), format!("broken {n}"), false, now + Duration::from_secs(n));
        }
        let ways = [Way::Log, restore("new"), restore("old"), Way::Clone];
        let expected: Vec<Way> = ways.iter().flat_map(|w| std::iter::repeat_n(w.clone(), 3)).collect();
        assert_eq!(order, expected);
        // When all have failed it begins again.
        assert_eq!(choose(&all, &tries).way, Way::Log);
    }

    #[test]
    fn what_will_not_heal_is_tried_once_and_the_reason_is_told() {
        let mut tries = Tries::default();
        let all = seen(None, &[offer("new", GIB, MIB)]);
        tries.failed(restore("new").key(), "part/0 is damaged".into(), true, Instant::now());
        let choice = choose(&all, &tries);
        assert_eq!(choice.how, "copying from a-1, because restoring snapshot new failed (part/0 is damaged)");
    }
}

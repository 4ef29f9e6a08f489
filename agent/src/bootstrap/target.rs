//! From which snapshot a target is reached, and whether it is in what is archived. Pure.

use jiff::Timestamp;
use pgconvoy_archive::retain::{Good, Reach};
use pgconvoy_crds::RecoveryTarget;
use pgconvoy_terms::Lsn;

/// The snapshot to begin with: of those that the newest epoch went on from, the newest from which the target lies ahead. A target
/// out of range is a sentence with the range in it. `good`: the oldest first.
///
/// Which transactions and restore points lie behind a snapshot nobody knows before the WAL is read: for these it is the newest.
pub(super) fn choose<'a>(good: &'a [Good], reach: &Reach, target: Option<&RecoveryTarget>) -> Result<&'a Good, String> {
    let (Some(oldest), Some(newest)) = (good.first(), good.last()) else {
        return Err("there is no complete snapshot".to_owned());
    };
    let Some(target) = target else { return Ok(newest) };
    if let Some(text) = &target.lsn {
        let lsn: Lsn = text.parse().map_err(|_| format!("target.lsn {text:?} is no position like 0/3000148"))?;
        if lsn > reach.end {
            return Err(format!("target.lsn {text} lies behind the end of what is archived; {}", range(oldest, reach)));
        }
        return good.iter().rfind(|g| g.stop <= lsn).ok_or_else(|| {
            format!("target.lsn {text} lies before the oldest snapshot is consistent; {}", range(oldest, reach))
        });
    }
    if let Some(text) = &target.time {
        let time = moment(text).ok_or_else(|| {
            format!(
                "target.time {text:?} cannot be read; write it with its offset from UTC, like 2026-01-31 12:00:00+00"
            )
        })?;
        if reach.time.is_some_and(|end| time.as_second() > end) {
            return Err(format!(
                "target.time {text} is later than anything that is archived; leave the target out to restore all of it; {}",
                range(oldest, reach)
            ));
        }
        return good.iter().rfind(|g| g.time <= time.as_second()).ok_or_else(|| {
            format!("target.time {text} is earlier than the oldest snapshot; {}", range(oldest, reach))
        });
    }
    Ok(newest)
}

/// Why a snapshot that was taken by PostgreSQL `taken` is nothing for an image of major version `major`.
pub(super) fn of_another_major(snapshot: &Good, taken: &str, major: u32) -> Option<String> {
    (taken.split(['.', ' ']).next() != Some(major.to_string().as_str())).then(|| {
        format!(
            "snapshot {} was taken by PostgreSQL {taken}, and the pod's image has {major}: name an image of that version in \
             spec.image",
            snapshot.id
        )
    })
}

/// A time as PostgreSQL writes it, or as everybody else does.
fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    // PostgreSQL's `+00` behind the time, `UTC` and `Z` as well.
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |t| format!("{}Z", t.trim_end()));
    text.parse().ok()
}

/// What can be reached, for people.
pub(super) fn range(oldest: &Good, reach: &Reach) -> String {
    let time = |seconds: i64| Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |t| t.to_string());
    let end = reach.time.map_or_else(String::new, |t| format!(", {}", time(t)));
    format!(
        "what can be reached begins with snapshot {} ({}, {}) and ends at {}{end}",
        oldest.id,
        oldest.stop,
        time(oldest.time),
        reach.end
    )
}

/// What it means that PostgreSQL's log ended before its target; none: it said something else.
pub(super) fn not_reached(said: &str, from: &Good, reach: &Reach, target: Option<&RecoveryTarget>) -> Option<String> {
    let target = target?;
    let named = [("xid", &target.xid), ("name", &target.name), ("time", &target.time), ("lsn", &target.lsn)];
    let (what, value) = named.iter().find_map(|(what, value)| Some((what, value.as_ref()?)))?;
    if said.contains("recovery ended before configured recovery target was reached") {
        return Some(format!(
            "target.{what} {value} did not come in the WAL between snapshot {} and the end of what is archived: it is \
             earlier, or never was. Name an earlier snapshot in fromArchive.snapshot, or another target; {}",
            from.id,
            range(from, reach)
        ));
    }
    said.contains("requested recovery stop point is before consistent recovery point").then(|| {
        format!(
            "target.{what} {value} lies before snapshot {} is consistent. Name an earlier snapshot in \
             fromArchive.snapshot, or another target; {}",
            from.id,
            range(from, reach)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::{ChangeId, Epoch, TimelineId};

    const DAY: i64 = 86_400;
    const BEGIN: i64 = 1_767_225_600; // 2026-01-01

    fn good(name: &str, stop: u64, day: i64) -> Good {
        Good {
            id: name.parse().unwrap(),
            epoch: Epoch { number: 1, id: ChangeId::from_random(1) },
            start: Lsn(stop - 10),
            stop: Lsn(stop),
            time: BEGIN + day * DAY,
            bytes: 1,
        }
    }

    fn chosen(target: RecoveryTarget) -> Result<String, String> {
        let all = [good("a", 0x100, 0), good("b", 0x200, 1), good("c", 0x300, 2)];
        let reach = Reach { timeline: TimelineId(1), end: Lsn(0x400), time: Some(BEGIN + 3 * DAY), gap: false };
        choose(&all, &reach, Some(&target)).map(|g| g.id.to_string())
    }

    fn time(text: &str) -> Result<String, String> {
        chosen(RecoveryTarget { time: Some(text.into()), ..RecoveryTarget::default() })
    }

    fn lsn(text: &str) -> Result<String, String> {
        chosen(RecoveryTarget { lsn: Some(text.into()), ..RecoveryTarget::default() })
    }

    #[test]
    fn it_begins_with_the_newest_snapshot_before_the_target() {
        for (target, name) in [("0/100", "a"), ("0/1FF", "a"), ("0/2FF", "b"), ("0/300", "c"), ("0/400", "c")] {
            assert_eq!(lsn(target).as_deref(), Ok(name), "{target}");
        }
        for (target, name) in [
            ("2026-01-01 00:00:00+00", "a"),
            ("2026-01-02 00:59:59+01", "a"),
            ("2026-01-02 01:00:00+01", "b"),
            ("2026-01-02T12:00:00Z", "b"),
            ("2026-01-03 12:00:00 UTC", "c"),
            ("2026-01-03 12:00:00.5-05:30", "c"),
        ] {
            assert_eq!(time(target).as_deref(), Ok(name), "{target}");
        }
        let xid = RecoveryTarget { xid: Some("7".into()), ..RecoveryTarget::default() };
        assert_eq!(chosen(xid).as_deref(), Ok("c"));
    }

    #[test]
    fn a_target_out_of_range_is_told_with_the_range() {
        let range = "what can be reached begins with snapshot a (0/100, 2026-01-01T00:00:00Z) and ends at 0/400, \
                     2026-01-04T00:00:00Z";
        for (said, why) in [
            (lsn("0/FF"), "before the oldest snapshot is consistent"),
            (lsn("0/401"), "behind the end of what is archived"),
            (time("2025-12-31 23:59:59+00"), "earlier than the oldest snapshot"),
            (time("2026-01-04 00:00:01+00"), "later than anything that is archived"),
        ] {
            let said = said.unwrap_err();
            assert!(said.contains(why) && said.ends_with(range), "{said}");
        }
        assert!(time("yesterday").unwrap_err().contains("cannot be read; write it with its offset"));
        assert!(time("2026-01-02 12:00:00").unwrap_err().contains("offset from UTC"));
    }

    #[test]
    fn a_snapshot_of_another_major_version_names_both() {
        let from = good("c", 0x300, 2);
        assert_eq!(of_another_major(&from, "17.6 (Debian 17.6-1)", 17), None);
        assert_eq!(
            of_another_major(&from, "16.2", 17).unwrap(),
            "snapshot c was taken by PostgreSQL 16.2, and the pod's image has 17: name an image of that version in spec.image"
        );
        assert!(of_another_major(&from, "170.1", 17).is_some() && of_another_major(&from, "", 17).is_some());
    }

    #[test]
    fn what_postgresql_says_of_a_target_that_never_came_is_explained() {
        let from = good("c", 0x300, 2);
        let reach = Reach { timeline: TimelineId(1), end: Lsn(0x400), time: None, gap: false };
        let target = RecoveryTarget { name: Some("before-sale".into()), ..RecoveryTarget::default() };
        let said = "FATAL:  recovery ended before configured recovery target was reached";
        let told = not_reached(said, &from, &reach, Some(&target)).unwrap();
        assert!(told.starts_with("target.name before-sale did not come in the WAL between snapshot c and"), "{told}");
        assert_eq!(not_reached("FATAL: disk full", &from, &reach, Some(&target)), None);
    }
}

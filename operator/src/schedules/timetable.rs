//! A cron expression in a time zone.

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, errors::CronError};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Zone of schedules that name none.
pub(super) const UTC: &str = "Etc/UTC";
/// How many missed runs are counted; more are not told apart.
const COUNTED: usize = 1000;

/// When something is due.
#[derive(Debug, Clone)]
pub(super) struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

impl Timetable {
    /// Reads an expression and a zone's name. What cannot be understood is a sentence.
    pub(super) fn new(schedule: &str, zone: Option<&str>) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser
            .parse(schedule)
            .map_err(|e| format!("spec.schedule {schedule:?} is no cron expression: {}", said(&e)))?;
        let name = zone.unwrap_or(UTC);
        let zone = TimeZone::get(name).map_err(|_| {
            format!("spec.timeZone {name:?} is not in the IANA database; name one like Europe/Berlin or {UTC}")
        })?;
        Ok(Self { cron, zone })
    }

    /// The first time behind `after`; none: it names no day that ever comes, like February 30.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp())
    }

    /// The last time behind `after` and not behind `now`, and how many came before it; none: nothing was due.
    pub(super) fn due(&self, after: Timestamp, now: Timestamp) -> Option<(Timestamp, usize)> {
        let first = self.next(after).filter(|first| *first <= now)?;
        let (mut last, mut before) = (first, 0);
        while let Some(next) = self.next(last).filter(|next| *next <= now) {
            (last, before) = (next, before + 1);
            if before == COUNTED {
                // From the other end: nobody waits for half a million minutes to be counted.
                let now = now.to_zoned(self.zone.clone());
                let newest = self.cron.find_previous_occurrence(&now, true).ok().map(|last| last.timestamp());
                return Some((newest.map_or(last, |newest| newest.max(last)), before));
            }
        }
        Some((last, before))
    }
}

fn said(error: &CronError) -> String {
    match error {
        CronError::InvalidPattern(why) | CronError::IllegalCharacters(why) | CronError::ComponentError(why) => {
            why.trim_end_matches('.').to_owned()
        }
        other => other.to_string().trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// All times between two, in UTC.
    fn between(schedule: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
        let table = Timetable::new(schedule, Some(zone)).unwrap();
        let mut found = vec![];
        let mut now = at(from);
        while let Some(next) = table.next(now).filter(|n| *n <= at(to)) {
            found.push(next.to_string());
            now = next;
        }
        found
    }

    #[test]
    fn a_zone_moves_with_its_summer_time() {
        assert_eq!(
            between("0 6 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z"),
            ["2026-03-28T05:00:00Z", "2026-03-29T04:00:00Z"]
        );
        assert_eq!(between("0 6 * * *", "Etc/UTC", "2026-03-28T07:00:00Z", "2026-03-29T07:00:00Z").len(), 1);
    }

    #[test]
    fn what_the_clock_leaves_out_comes_right_behind_it_and_what_comes_twice_is_done_once() {
        // 2:00 to 3:00 is not there on 29 March in Berlin, and twice there on 25 October.
        assert_eq!(
            between("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z"),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            between("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // What is due every hour is due in each hour that passes.
        assert_eq!(between("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z").len(), 3);
    }

    #[test]
    fn the_last_that_was_due_and_how_many_came_before() {
        let table = Timetable::new("0 * * * *", None).unwrap();
        let due = |after, now| table.due(at(after), at(now)).map(|(t, n)| (t.to_string(), n));
        assert_eq!(due("2026-01-01T00:00:00Z", "2026-01-01T00:59:59Z"), None);
        let one = Some(("2026-01-01T01:00:00Z".to_owned(), 0));
        assert_eq!(due("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"), one);
        assert_eq!(due("2026-01-01T00:00:00Z", "2026-01-01T05:30:00Z"), Some(("2026-01-01T05:00:00Z".to_owned(), 4)));
        let long = due("2020-01-01T00:00:00Z", "2026-01-01T05:30:00Z");
        assert_eq!(long, Some(("2026-01-01T05:00:00Z".to_owned(), COUNTED)));
    }

    #[test]
    fn what_is_no_schedule_is_said() {
        for (schedule, zone, said) in [
            ("61 * * * *", None, "spec.schedule \"61 * * * *\" is no cron expression: "),
            ("0 0 2 * * *", None, "is no cron expression"),
            ("often", None, "is no cron expression"),
            ("0 2 * * *", Some("Mars/Olympus"), "spec.timeZone \"Mars/Olympus\" is not in the IANA database"),
        ] {
            let error = Timetable::new(schedule, zone).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(Timetable::new("0 0 30 2 *", None).unwrap().next(at("2026-01-01T00:00:00Z")), None);
        assert!(Timetable::new("@daily", Some("America/St_Johns")).is_ok());
    }
}

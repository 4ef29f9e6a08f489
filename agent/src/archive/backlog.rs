//! WAL that waits for the archive fills the volume while the store is away. How that is told, and when it is given up so that
//! writes go on. Pure.
//!
//! Two things bound it: `max_slot_wal_keep_size`, and the room on the volume. What is given up leaves a gap in the archive, which
//! only a new snapshot ends; a full volume would stop PostgreSQL.

use crate::postgres::Room;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Less than this is never told and never given up: it would gain nothing, whatever fills the volume.
const LEAST: u64 = 64 << 20;
/// What stays free, in bytes: a twentieth of the volume within these bounds. Too little: PostgreSQL fills it before it is looked
/// again, and stops. Too much: WAL is given up that there was room for.
const RESERVE: (u64, u64) = (64 << 20, 1 << 30);
/// It is told when so many percent of what may be kept are kept, and again at each next one.
const STEPS: [u64; 3] = [50, 75, 90];
/// It must fall by so many percent below a step to count as below it: a status does not go to and fro.
const BACK: u64 = 15;
/// Between two samples of the pace, and how many are kept: ten minutes.
const SAMPLE: Duration = Duration::from_secs(10);
const SAMPLES: usize = 60;

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing new.
    Same,
    /// So it stands now, for people; none: there is nothing to tell any more.
    Stands(Option<String>),
    /// All that is kept is given up; why, for people.
    GiveUp(String),
}

/// What was seen and told.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// How many of [`STEPS`] are reached.
    step: usize,
    left: u64,
    samples: VecDeque<(Instant, u64)>,
}

impl Backlog {
    /// Whether it may be full soon, so that one should look more often.
    pub(crate) fn is_urgent(&self) -> bool {
        self.step > 0
    }

    /// How many bytes may come before all of it is given up, as it was looked at last.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Looks.
    pub(crate) fn look(&mut self, now: Instant, room: &Room) -> Step {
        let kept = room.end.bytes_since(room.from);
        self.sample(now, kept);
        let reserve = (room.size / 20).clamp(RESERVE.0, RESERVE.1);
        // What comes takes room as well, so the two meet in the middle.
        let left = room.free.saturating_sub(reserve).max(room.free.saturating_sub(kept) / 2);
        let may = room.limit.unwrap_or(u64::MAX).min(kept + left);
        self.left = may.saturating_sub(kept);
        let bounded = room.limit.is_some_and(|limit| kept >= limit);
        // While more is free than would be won there is something else that fills the volume.
        let no_room = room.free <= reserve && kept >= room.free;
        if kept >= LEAST && (bounded || no_room) {
            (self.step, self.samples) = (0, VecDeque::new());
            let why = if no_room {
                format!("only {} of the volume's {} are free", size(room.free), size(room.size))
            } else {
                "max_slot_wal_keep_size allows no more".to_owned()
            };
            return Step::GiveUp(format!(
                "{} of WAL that is not archived, from {} to {}, was given up, because {why}: writes go on, and the archive \
                 has a gap there. A new snapshot is taken once the store is back; until then nothing later than {} can be \
                 restored",
                size(kept),
                room.from,
                room.end,
                room.from
            ));
        }
        let used = if kept < LEAST { 0 } else { percent(kept, may) };
        let above = STEPS.iter().filter(|s| used >= **s).count();
        let still = STEPS.iter().filter(|s| used + BACK >= **s).count();
        let step = if above > self.step { above } else { self.step.min(still) };
        // A step down is told when the lowest is left.
        let told = step > self.step || (step == 0 && self.step > 0);
        self.step = step;
        match (told, step) {
            (false, _) => Step::Same,
            (true, 0) => Step::Stands(None),
            _ => Step::Stands(Some(self.sentence(now, kept, room))),
        }
    }

    fn sentence(&self, now: Instant, kept: u64, room: &Room) -> String {
        let left = self.left;
        let when = self.pace(now, kept).map_or_else(String::new, |pace| {
            let seconds = left.checked_div(pace).unwrap_or(0);
            format!(", at the present pace in about {}", duration(seconds))
        });
        format!(
            "{} of WAL wait for the archive, and {} of the volume are free; when {} more have come{when}, they are given up \
             so that writes go on, and the archive has a gap: bring the store back, or enlarge the volume",
            size(kept),
            size(room.free),
            size(left)
        )
    }

    /// Bytes a second, over the samples; none: it does not grow, or that is not known yet.
    fn pace(&self, now: Instant, kept: u64) -> Option<u64> {
        let (since, before) = self.samples.front()?;
        let passed = now.duration_since(*since);
        let grown = kept.checked_sub(*before)?;
        let pace = grown as f64 / passed.as_secs_f64();
        (passed >= Duration::from_secs(1) && pace >= 1.0).then_some(pace as u64)
    }

    fn sample(&mut self, now: Instant, kept: u64) {
        // It was archived meanwhile: another backlog.
        if self.samples.back().is_some_and(|(_, before)| *before > kept) {
            self.samples.clear();
        }
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= SAMPLE) {
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back((now, kept));
        }
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    let percent = (u128::from(part) * 100).checked_div(u128::from(whole)).unwrap_or(100);
    u64::try_from(percent).unwrap_or(100).min(100)
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        mib if mib < 10 << 10 => format!("{mib} MiB"),
        mib => format!("{:.1} GiB", mib as f64 / 1024.0),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{} seconds", seconds.max(5)),
        120..7200 => format!("{} minutes", (seconds + 30) / 60),
        7200..172_800 => format!("{} hours", (seconds + 1800) / 3600),
        _ => format!("{} days", (seconds + 43_200) / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::Lsn;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// A volume of 20 GiB, of which a fifth may be kept for the archive, in MiB.
    fn room(kept: u64, free: u64) -> Room {
        Room { from: Lsn(GIB), end: Lsn(GIB + kept * MIB), limit: Some(4 * GIB), free: free * MIB, size: 20 * GIB }
    }

    fn told(step: Step) -> String {
        match step {
            Step::Stands(Some(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    /// An hour without a store: a gigabyte in ten minutes.
    #[test]
    fn an_hour_without_a_store_is_told_three_times_and_then_given_up_once() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..3600_u64 {
            let now = start + Duration::from_secs(second);
            match backlog.look(now, &room(second * 1024 / 600, 12 * 1024 - second * 1024 / 600)) {
                Step::Same => {}
                Step::Stands(Some(text)) => told.push((second, text)),
                Step::Stands(None) => panic!("it only grows"),
                Step::GiveUp(text) => {
                    told.push((second, text));
                    break;
                }
            }
        }
        let seconds: Vec<u64> = told.iter().map(|(s, _)| *s).collect();
        assert_eq!(seconds, [1200, 1800, 2161, 2400]);
        assert_eq!(
            told[0].1,
            "2048 MiB of WAL wait for the archive, and 10.0 GiB of the volume are free; when 2048 MiB more have come, at the \
             present pace in about 20 minutes, they are given up so that writes go on, and the archive has a gap: bring the \
             store back, or enlarge the volume"
        );
        assert!(
            told[3].1.contains("4096 MiB of WAL that is not archived, from 0/40000000 to 1/40000000, was given up")
        );
        assert!(told[3].1.contains("max_slot_wal_keep_size allows no more"), "{}", told[3].1);
    }

    #[test]
    fn a_volume_without_room_gives_up_earlier_than_the_limit() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        assert!(told(backlog.look(now, &room(1100, 1900))).contains("when 876 MiB more have come"));
        assert!(told(backlog.look(now, &room(1900, 1100))).contains("when 76 MiB more"));
        assert_eq!(backlog.left(), 76 * MIB);
        let Step::GiveUp(why) = backlog.look(now, &room(1980, 1020)) else { panic!("the volume fills") };
        assert!(why.contains("only 1020 MiB of the volume's 20.0 GiB are free"), "{why}");
        // What was given up has made room; then it begins again.
        assert_eq!(backlog.look(now, &room(10, 2990)), Step::Same);
        let unlimited = Room { limit: None, ..room(2000, 1000) };
        assert!(matches!(backlog.look(now, &unlimited), Step::GiveUp(_)));
        assert!(matches!(backlog.look(now, &Room { limit: None, ..room(90_000, 9000) }), Step::Stands(Some(_))));
    }

    #[test]
    fn a_volume_that_something_else_fills_costs_no_gap() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        // Little WAL: giving it up would gain nothing.
        assert_eq!(backlog.look(now, &room(63, 10)), Step::Same);
        assert!(told(backlog.look(now, &room(300, 900))).contains("300 MiB of WAL wait"));
        assert_eq!(backlog.look(now, &room(301, 899)), Step::Same);
        assert!(matches!(backlog.look(now, &room(500, 500)), Step::GiveUp(_)), "as much as there is left");
    }

    #[test]
    fn there_is_room_between_told_and_not_told() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let mut look = |kept| backlog.look(now, &room(kept, 12 * 1024 - kept));
        assert_eq!(look(2040), Step::Same);
        assert!(matches!(look(2048), Step::Stands(Some(_))));
        // Around the step, and between the first and the second.
        for kept in [2040, 2100, 1500, 3000, 2048] {
            assert_eq!(look(kept), Step::Same, "{kept}");
        }
        assert!(matches!(look(3072), Step::Stands(Some(_))));
        assert_eq!(look(2800), Step::Same);
        assert_eq!(look(1400), Step::Stands(None));
        assert_eq!(look(2000), Step::Same);
        assert!(matches!(look(4000), Step::Stands(Some(_))), "three steps at once are told once");
        assert!(matches!(look(4096), Step::GiveUp(_)));
    }
}

//! What is to be done about the archive. Pure.

use super::{
    access::Access,
    role::{Reign, Role},
};
use pgconvoy_terms::{MemberName, SystemId};

/// What is done.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Task {
    /// Nothing.
    #[default]
    Rest,
    /// Ship this epoch, and first what its ancestors lack.
    Ship {
        /// How the archive is reached.
        access: Access,
        /// Which `initdb`.
        system: SystemId,
        /// The epoch and its ancestors, newest first.
        reigns: Vec<Reign>,
    },
    /// Keep what this leader has not archived.
    Keep(MemberName),
    /// Keep nothing for an archive that is no more.
    LetGo,
}

impl Task {
    /// For the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Ship { .. } => "ship",
            Self::Keep(_) => "keep",
            Self::LetGo => "let go",
        }
    }
}

/// What is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Seen {
    /// What this member is.
    pub(crate) role: Role,
    /// Whether the spec asks for an archive; none: it has not been read.
    pub(crate) asked: Option<bool>,
    /// How it is reached.
    pub(crate) access: Option<Access>,
    /// Whether what is under way gets through: the store answers.
    pub(crate) flows: bool,
}

/// What is to be done instead of `now`; none: it goes on.
pub(crate) fn decide(now: &Task, seen: &Seen) -> Option<Task> {
    let wanted = match (&seen.role, seen.asked) {
        // What is under way ends by itself once the server has sent everything; a store that is away would hold up the stop.
        (Role::Stops, _) => match now {
            Task::Ship { .. } if seen.flows => return None,
            _ => Task::Rest,
        },
        // It was active in this epoch, and is not known to have been replaced.
        (Role::Unsure(epoch), _) => match now {
            Task::Ship { reigns, .. } if reigns.first().is_some_and(|r| r.epoch == *epoch) => return None,
            _ => Task::Rest,
        },
        (Role::Nothing, _) | (_, None) => Task::Rest,
        (_, Some(false)) => Task::LetGo,
        (Role::Follows { leader, .. }, Some(true)) => Task::Keep(leader.clone()),
        (Role::Leads { system, reigns }, Some(true)) => match (&seen.access, now) {
            (Some(access), _) => Task::Ship { access: access.clone(), system: *system, reigns: reigns.clone() },
            // The files come later than the spec, and may be gone for a moment.
            (None, Task::Ship { .. }) => return None,
            (None, _) => Task::Rest,
        },
    };
    // The same epoch with a shorter memory is the same work.
    let same = match (now, &wanted) {
        (Task::Ship { access, reigns, .. }, Task::Ship { access: other, reigns: others, .. }) => {
            access == other && reigns.first() == others.first()
        }
        _ => *now == wanted,
    };
    (!same).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_crds::pod::archive as files;
    use pgconvoy_terms::{ChangeId, Epoch, Incarnation, MemberId};

    fn access(bucket: &str) -> Access {
        let dir = tempfile::tempdir().unwrap();
        let place = format!(r#"{{"bucket":"{bucket}","prefix":"p","region":"r","maxDelaySeconds":1}}"#);
        for (name, text) in
            [(files::ACCESS, place.as_str()), (files::ACCESS_KEY_ID, "i"), (files::SECRET_ACCESS_KEY, "s")]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Access::read(dir.path(), "").unwrap().unwrap()
    }

    fn epoch(number: u32) -> Epoch {
        Epoch { number, id: ChangeId::from_random(number.into()) }
    }

    fn leads(number: u32) -> Role {
        let leader = MemberId { name: MemberName::new("a", 1), incarnation: Incarnation::from_random(1) };
        Role::Leads { system: SystemId(7), reigns: vec![Reign { epoch: epoch(number), leader, parent: None }] }
    }

    fn seen(role: Role) -> Seen {
        Seen { role, asked: Some(true), access: Some(access("b")), flows: true }
    }

    #[test]
    fn a_leader_ships_and_stops_when_it_is_none() {
        let ship = decide(&Task::Rest, &seen(leads(3))).unwrap();
        assert!(matches!(ship, Task::Ship { .. }));
        assert_eq!(decide(&ship, &seen(leads(3))), None, "it goes on");
        assert_eq!(decide(&ship, &seen(Role::Unsure(epoch(3)))), None);
        assert_eq!(decide(&ship, &seen(Role::Unsure(epoch(4)))), Some(Task::Rest), "a later epoch is being decided");
        assert_eq!(decide(&ship, &seen(Role::Nothing)), Some(Task::Rest), "fenced");
        assert!(matches!(decide(&ship, &seen(leads(4))), Some(Task::Ship { .. })), "another epoch");
        let follows = Role::Follows { leader: MemberName::new("a", 2), epoch: epoch(4), system: SystemId(7) };
        assert_eq!(decide(&ship, &seen(follows)), Some(Task::Keep(MemberName::new("a", 2))));
    }

    #[test]
    fn an_orderly_stop_lets_it_end_unless_the_store_is_away() {
        let ship = decide(&Task::Rest, &seen(leads(3))).unwrap();
        assert_eq!(decide(&ship, &seen(Role::Stops)), None);
        assert_eq!(decide(&ship, &Seen { flows: false, ..seen(Role::Stops) }), Some(Task::Rest));
    }

    #[test]
    fn the_spec_and_the_files_come_and_go() {
        let none = Seen { asked: None, ..seen(leads(3)) };
        assert_eq!(decide(&Task::Rest, &none), None, "the spec is not known yet");
        let ship = decide(&Task::Rest, &seen(leads(3))).unwrap();
        let off = Seen { asked: Some(false), access: None, ..seen(leads(3)) };
        assert_eq!(decide(&ship, &off), Some(Task::LetGo));
        let gone = Seen { access: None, ..seen(leads(3)) };
        assert_eq!((decide(&ship, &gone), decide(&Task::Rest, &gone)), (None, None));
        let other = Seen { access: Some(access("c")), ..seen(leads(3)) };
        assert!(matches!(decide(&ship, &other), Some(Task::Ship { .. })), "another bucket");
    }
}

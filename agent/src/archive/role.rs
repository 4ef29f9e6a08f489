//! What this member has to do with the archive. Pure.

use pgconvoy_ha::{Activity, Data, Local, Record, Server};
use pgconvoy_terms::{Epoch, Lsn, MemberId, MemberName, SystemId, Term};

/// An epoch whose WAL goes into the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    /// The epoch.
    pub epoch: Epoch,
    /// Who leads or led it.
    pub leader: MemberId,
    /// The epoch from whose WAL it went on, and where.
    pub parent: Option<(Epoch, Lsn)>,
}

/// What this member has to do with the archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Role {
    /// Nothing that it knows of.
    #[default]
    Nothing,
    /// It leads an epoch that is active: it ships.
    Leads {
        /// Which `initdb` the data descends from.
        system: SystemId,
        /// The epoch, and those whose WAL it went on from, newest first, as far as the term remembers.
        reigns: Vec<Reign>,
    },
    /// It streams: it keeps what is not archived.
    Follows {
        /// From whom.
        leader: MemberName,
        /// In which epoch.
        epoch: Epoch,
        /// Which `initdb` the data descends from.
        system: SystemId,
    },
    /// It leads this epoch, or will, and cannot be asked just now.
    Unsure(Epoch),
    /// It is being stopped in an orderly way: what was begun may end.
    Stops,
}

/// The role of `me`, as it stands.
pub(crate) fn role(me: &MemberName, activity: &Activity, local: Option<&Local>, record: &Record) -> Role {
    match activity {
        // Said only of an active epoch: nothing is archived that a later leader might lack.
        Activity::Leading(epoch, _) => leads(me, epoch, local, record).unwrap_or_default(),
        Activity::Following(leader, epoch) => match local.map(|l| &l.data) {
            Some(Data::Good { system, .. }) => {
                Role::Follows { leader: leader.clone(), epoch: epoch.clone(), system: *system }
            }
            _ => Role::Nothing,
        },
        Activity::Electing(epoch) => Role::Unsure(epoch.clone()),
        Activity::Stopping => Role::Stops,
        _ => Role::Nothing,
    }
}

fn leads(me: &MemberName, epoch: &Epoch, local: Option<&Local>, record: &Record) -> Option<Role> {
    let local = local?;
    let Data::Good { system, .. } = &local.data else { return None };
    let Server::Primary { epoch: runs, .. } = &local.server else { return None };
    let reigns = reigns(record.head.as_ref()?, epoch)?;
    (runs == epoch && reigns.first()?.leader.name == *me).then_some(Role::Leads { system: *system, reigns })
}

/// The epoch and its ancestors, newest first; ends where the term's history does. None: the epoch is not in it, or its own
/// parent is not.
fn reigns(term: &Term, epoch: &Epoch) -> Option<Vec<Reign>> {
    let mut found = Vec::new();
    let mut wanted = Some(epoch.clone());
    let mut history = term.history.iter().enumerate();
    while let Some(epoch) = wanted.take() {
        let Some((n, fork)) = history.rfind(|(_, f)| f.epoch == epoch) else { break };
        let parent = match (fork.parent, fork.at) {
            (Some(timeline), Some(at)) => {
                let earlier = term.history.get(..n).unwrap_or_default().iter();
                match earlier.rev().find(|f| f.epoch.timeline() == timeline) {
                    Some(parent) => Some((parent.epoch.clone(), at)),
                    // Forgotten. What it went on from must be right, or not be said at all.
                    None => break,
                }
            }
            _ => None,
        };
        wanted = parent.as_ref().map(|(epoch, _)| epoch.clone());
        found.push(Reign { epoch, leader: fork.leader.clone(), parent });
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_terms::{ChangeId, Fork, Incarnation, Phase, TimelineId};

    fn epoch(number: u32) -> Epoch {
        Epoch { number, id: ChangeId::from_random(number.into()) }
    }

    fn member(ordinal: u32) -> MemberId {
        MemberId { name: MemberName::new("a", ordinal), incarnation: Incarnation::from_random(ordinal.into()) }
    }

    fn fork(number: u32, leader: u32, parent: Option<(u32, u64)>) -> Fork {
        Fork {
            epoch: epoch(number),
            parent: parent.map(|(n, _)| TimelineId(n)),
            at: parent.map(|(_, at)| Lsn(at)),
            leader: member(leader),
            lossy: false,
        }
    }

    fn term(history: Vec<Fork>) -> Term {
        let last = history.last().unwrap();
        let (epoch, leader) = (last.epoch.clone(), Some(last.leader.clone()));
        Term { epoch, phase: Phase::Active, leader, rules: vec![], lossy: false, history, chain: vec![] }
    }

    #[test]
    fn the_way_back_follows_the_forks() {
        // Epoch 4 went on from 2: that of 3 was never seen by anybody who counts.
        let term = term(vec![
            fork(1, 1, None),
            fork(2, 2, Some((1, 100))),
            fork(3, 3, Some((2, 300))),
            fork(4, 1, Some((2, 200))),
        ]);
        let way = reigns(&term, &epoch(4)).unwrap();
        let numbers: Vec<_> = way.iter().map(|r| r.epoch.number).collect();
        assert_eq!(numbers, [4, 2, 1]);
        assert_eq!(way[0].parent, Some((epoch(2), Lsn(200))));
        assert_eq!((&way[1].leader, &way[2].parent), (&member(2), &None));
        assert_eq!(reigns(&term, &epoch(5)), None);
    }

    #[test]
    fn what_an_epoch_went_on_from_is_right_or_not_said() {
        let cut = term(vec![fork(8, 2, Some((7, 100))), fork(9, 1, Some((8, 200)))]);
        let way = reigns(&cut, &epoch(9)).unwrap();
        assert_eq!(way.len(), 1, "8 went on from something forgotten");
        assert_eq!(reigns(&term(vec![fork(9, 1, Some((8, 200)))]), &epoch(9)), None);
    }

    #[test]
    fn only_a_leader_of_an_active_epoch_ships() {
        let me = MemberName::new("a", 1);
        let record = Record { head: Some(term(vec![fork(1, 1, None)])), ..Record::default() };
        let server = Server::Primary {
            epoch: epoch(1),
            timeline: TimelineId(1),
            fork: None,
            in_force: None,
            barrier: true,
            gate: true,
            streams: vec![],
        };
        let incarnation = member(1).incarnation;
        let data = Data::Good { incarnation, system: SystemId(7) };
        let mut local = Local {
            applied: 1,
            data,
            server,
            problem: None,
            in_vain: None,
            shutdown: None,
            answered: pgconvoy_ha::Instant(0),
            stalled: false,
        };
        let leading = Activity::Leading(epoch(1), None);
        let is = |activity: &Activity, local: &Local| role(&me, activity, Some(local), &record);
        assert!(matches!(is(&leading, &local), Role::Leads { system: SystemId(7), .. }));
        assert_eq!(is(&Activity::Electing(epoch(1)), &local), Role::Unsure(epoch(1)), "promoted, not yet active");
        assert_eq!(is(&Activity::Fenced(String::new()), &local), Role::Nothing);
        assert_eq!(is(&Activity::Stopping, &local), Role::Stops);
        assert_eq!(role(&MemberName::new("a", 2), &leading, Some(&local), &record), Role::Nothing);
        local.server = Server::Busy;
        assert_eq!(is(&leading, &local), Role::Nothing);
    }
}

//! What this member says of itself, out of what it is doing.

use crate::settings::{CatchUp, PostgresReport};
use pgconvoy_crds::{MemberPhase, MemberRole, MemberState};
use pgconvoy_ha::{Activity, Local, Record, TermTrouble};

/// The member's entry in the set's status. Holds nothing that changes by itself.
pub(crate) fn member_state(
    activity: &Activity,
    local: Option<&Local>,
    record: &Record,
    report: &PostgresReport,
) -> MemberState {
    let (role, state, message, epoch) = match activity {
        Activity::Waiting(why) => (None, MemberPhase::Starting, Some(why.clone()), None),
        // A restore waits for what it needs, and says for what.
        Activity::Founding => (None, MemberPhase::Initializing, local.and_then(|l| l.problem.clone()), None),
        Activity::Cloning(from) => (None, MemberPhase::Cloning, Some(cloning(from, report)), None),
        Activity::Rewinding(leader) => {
            let what = format!("its log left that of {leader}: going back to where they part");
            (Some(MemberRole::Follower), MemberPhase::CatchingUp, Some(what), None)
        }
        Activity::Recovering => {
            (None, MemberPhase::Recovering, Some("PostgreSQL replays its own log".to_owned()), None)
        }
        Activity::Electing(epoch) => {
            (None, MemberPhase::CatchingUp, Some(format!("epoch {} is being decided", epoch.number)), None)
        }
        Activity::Attaching(leader) => {
            (Some(MemberRole::Follower), MemberPhase::CatchingUp, Some(format!("attaching to {leader}")), None)
        }
        Activity::Following(_, epoch) => (Some(MemberRole::Follower), MemberPhase::Attached, None, Some(epoch.number)),
        Activity::Leading(epoch, note) => {
            (Some(MemberRole::Leader), MemberPhase::Attached, note.clone(), Some(epoch.number))
        }
        Activity::Fenced(why) => (None, MemberPhase::Fenced, Some(why.clone()), None),
        Activity::Failed(why) => (None, MemberPhase::Failed, Some(why.clone()), None),
        Activity::Stopping => (None, MemberPhase::Stopping, None, None),
    };
    // A follower whose receiver begins anew again and again seems to follow, now and then.
    let obstacle = report.obstacle.as_ref();
    let (state, epoch) = match (state, obstacle) {
        (MemberPhase::Attached, Some(_)) if role == Some(MemberRole::Follower) => (MemberPhase::CatchingUp, None),
        other => (other.0, epoch),
    };
    let message = obstacle.map(|o| o.sentence.clone()).or(message);
    let system_id = local.and_then(|l| match &l.data {
        pgconvoy_ha::Data::Good { system, .. } => Some(system.to_string()),
        _ => None,
    });
    MemberState {
        role,
        state: Some(state),
        message,
        reason: obstacle.map(|o| o.reason.to_owned()),
        incarnation: record.incarnation.as_ref().map(ToString::to_string),
        epoch: epoch.map(i64::from),
        version: report.version.clone(),
        system_id,
        pending_restart: report.pending_restart.clone(),
        configuration_error: report.configuration_error.clone(),
        ..MemberState::default()
    }
}

/// Says what a person must put right or decide, if nothing else is wrong.
pub(crate) fn tell_trouble(state: &mut MemberState, trouble: Option<&TermTrouble>) {
    if let (Some(trouble), None) = (trouble, &state.reason) {
        state.reason = Some(trouble.reason.to_owned());
        state.message = Some(trouble.message.clone());
    }
}

/// The same before it is known what lies on the volume, which is before there is a record.
pub(crate) fn before_record(local: Option<&Local>, report: &PostgresReport) -> MemberState {
    let why = local.and_then(|l| l.problem.clone()).unwrap_or_else(|| "looking at the volume".to_owned());
    member_state(&Activity::Waiting(why), local, &Record::default(), report)
}

fn cloning(from: &pgconvoy_terms::MemberName, report: &PostgresReport) -> String {
    let Some(CatchUp { how, tenths, total, until }) = &report.catch_up else {
        return format!("making ready to copy from {from}");
    };
    let until = until.as_ref().map_or_else(String::new, |t| format!(", there by {t}"));
    match total {
        0 => how.clone(),
        total => format!("{how}: {} % of {} MiB{until}", tenths * 10, total >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Obstacle;
    use pgconvoy_terms::{ChangeId, Epoch, MemberName};

    #[test]
    fn a_copy_says_by_which_way_and_how_far_it_is() {
        let activity = Activity::Cloning(MemberName::new("a", 1));
        let said = |catch_up| {
            let report = PostgresReport { catch_up, ..PostgresReport::default() };
            member_state(&activity, None, &Record::default(), &report).message.unwrap()
        };
        assert_eq!(said(None), "making ready to copy from a-1");
        let mut now = CatchUp { how: "restoring snapshot s".into(), ..CatchUp::default() };
        assert_eq!(said(Some(now.clone())), "restoring snapshot s");
        (now.tenths, now.total, now.until) = (4, 300 << 20, Some("11:04:09Z".into()));
        assert_eq!(said(Some(now)), "restoring snapshot s: 40 % of 300 MiB, there by 11:04:09Z");
    }

    #[test]
    fn an_obstacle_takes_the_place_of_other_sentences_and_of_being_attached() {
        let epoch = Epoch { number: 3, id: ChangeId::from_random(1) };
        let follows = Activity::Following(MemberName::new("a", 1), epoch.clone());
        let mut report = PostgresReport::default();
        let said = |report: &PostgresReport, activity| member_state(activity, None, &Record::default(), report);
        let well = said(&report, &follows);
        assert_eq!((well.state, well.epoch, well.reason), (Some(MemberPhase::Attached), Some(3), None));
        report.obstacle = Some(Obstacle { reason: "VolumeFull", sentence: "it is full".into() });
        let full = said(&report, &follows);
        assert_eq!((full.state, full.epoch), (Some(MemberPhase::CatchingUp), None));
        assert_eq!((full.reason.as_deref(), full.message.as_deref()), (Some("VolumeFull"), Some("it is full")));
        // A leader leads all the same, and says so.
        let leads = said(&report, &Activity::Leading(epoch, Some("a note".into())));
        assert_eq!((leads.state, leads.epoch), (Some(MemberPhase::Attached), Some(3)));
        assert_eq!(leads.message.as_deref(), Some("it is full"));
    }
}

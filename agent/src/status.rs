//! What this member says of itself, out of what it is doing.

use crate::settings::PostgresReport;
use pgconvoy_crds::{MemberPhase, MemberRole, MemberState};
use pgconvoy_ha::{Activity, Local, Record};

/// The member's entry in the set's status. Holds nothing that changes by itself.
pub(crate) fn member_state(
    activity: &Activity,
    local: Option<&Local>,
    record: &Record,
    report: &PostgresReport,
) -> MemberState {
    let (role, state, message, epoch) = match activity {
        Activity::Waiting(why) => (None, MemberPhase::Starting, Some(why.clone()), None),
        Activity::Founding => (None, MemberPhase::Initializing, None, None),
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
    let system_id = local.and_then(|l| match &l.data {
        pgconvoy_ha::Data::Good { system, .. } => Some(system.to_string()),
        _ => None,
    });
    MemberState {
        role,
        state: Some(state),
        message,
        incarnation: record.incarnation.as_ref().map(ToString::to_string),
        epoch: epoch.map(i64::from),
        version: report.version.clone(),
        system_id,
        pending_restart: report.pending_restart.clone(),
        configuration_error: report.configuration_error.clone(),
        ..MemberState::default()
    }
}

/// In steps of a tenth, so that a clone costs ten status writes at most.
fn cloning(from: &pgconvoy_terms::MemberName, report: &PostgresReport) -> String {
    match report.clone_progress {
        Some((done, total)) if total > 0 => {
            format!("copying from {from}, {} % of {} MiB", (done * 10 / total).min(10) * 10, total >> 20)
        }
        _ => format!("copying from {from}"),
    }
}

//! `psql`: a session in a member's pod. A Service without selector cannot be port-forwarded to, and a password is not
//! needed where the operating system vouches for the user.

use crate::access::Access;
use crate::cli::PsqlArgs;
use crate::kubectl::{self, Terminal};
use crate::objects;
use crate::problem::Problem;
use crate::status::model::{Member, Report, report};
use pgconvoy_crds::{MemberPhase, MemberRole};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Becomes `kubectl exec … psql`.
pub(crate) async fn run(access: &Access, args: &PsqlArgs) -> Result<ExitCode, Problem> {
    let objects = objects::one(access, &args.set).await?;
    let report = report(&objects);
    let wish = match (&args.member, args.follower) {
        (Some(member), _) => Wish::Member(member),
        (None, true) => Wish::Follower,
        (None, false) => Wish::Leader,
    };
    let member = choose(&report, wish)?;
    let terminal = match std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        true => Terminal::Tty,
        false => Terminal::Stdin,
    };
    // The pod's home directory is read-only: without this psql would complain at every end of a session.
    let settings = [("PSQL_HISTORY", "/dev/null"), ("PGAPPNAME", "kubectl-pgconvoy")];
    kubectl::become_it(kubectl::psql(access, &member.name, terminal, &report.database, &settings, &args.args))
}

#[derive(Debug, Clone, Copy)]
enum Wish<'a> {
    Leader,
    Follower,
    Member(&'a str),
}

/// Whose pod it is.
fn choose<'a>(report: &'a Report, wish: Wish<'_>) -> Result<&'a Member, Problem> {
    let set = || report.set.clone();
    let member = match wish {
        Wish::Leader => report.active_leader().ok_or_else(|| Problem::NoLeader { set: set(), why: why(report) })?,
        Wish::Follower => {
            let mut attached = report.members.iter().filter(|m| {
                m.role == Some(MemberRole::Follower) && m.state == Some(MemberPhase::Attached) && m.reachable()
            });
            attached.next().ok_or_else(|| Problem::NoFollower { set: set() })?
        }
        Wish::Member(name) => report.member(name).ok_or_else(|| Problem::NoMember {
            set: set(),
            member: name.to_owned(),
            there: report.members.iter().map(|m| m.name.clone()).collect(),
        })?,
    };
    match &member.pod {
        None => Err(Problem::NoPod { set: set(), member: member.name.clone() }),
        Some(pod) if !pod.postgres_runs => {
            Err(Problem::NotRunning { member: member.name.clone(), why: pod.state.clone() })
        }
        Some(_) => Ok(member),
    }
}

fn why(report: &Report) -> String {
    match (&report.epoch, &report.phase) {
        (Some(epoch), Some(phase)) => format!("epoch {} is {phase}", epoch.number),
        _ => "it has no epoch yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests as states;

    fn chosen(report: &Report, wish: Wish<'_>) -> String {
        choose(report, wish).map_or_else(|problem| problem.to_string(), |member| member.name.clone())
    }

    #[test]
    fn the_leader_unless_told_otherwise() {
        let report = report(&states::running());
        assert_eq!(chosen(&report, Wish::Leader), "orders-1");
        assert_eq!(chosen(&report, Wish::Follower), "orders-2");
        assert_eq!(chosen(&report, Wish::Member("3")), "orders-3");
        assert_eq!(chosen(&report, Wish::Member("orders-3")), "orders-3");
        assert_eq!(report.database, "app");
    }

    #[test]
    fn nobody_there_is_a_sentence() {
        let electing = report(&states::no_leader());
        let fresh = report(&states::no_status());
        insta::assert_snapshot!(
            [
                chosen(&electing, Wish::Leader),
                chosen(&electing, Wish::Member("orders-1")),
                chosen(&electing, Wish::Member("9")),
                chosen(&fresh, Wish::Leader),
                chosen(&fresh, Wish::Follower),
                chosen(&fresh, Wish::Member("orders-1")),
                chosen(&report(&states::failed_member()), Wish::Member("3")),
            ]
            .join("\n")
        );
    }
}

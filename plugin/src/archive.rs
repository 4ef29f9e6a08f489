//! `archive`: what lies in a set's archive, asked of the agent beside a member, which knows the way there. No secret leaves the pod.

use crate::access::Access;
use crate::archive_args::{ArchiveArgs, ArchiveAsk};
use crate::kubectl;
use crate::objects;
use crate::problem::Problem;
use crate::status::model::report;
use pgconvoy_crds::pod::CONTAINER_AGENT;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// The agent's program in its image.
const PROGRAM: &str = "/usr/bin/pgconvoy-agent";

/// Becomes `kubectl exec … pgconvoy-agent archive …`.
pub(crate) async fn run(access: &Access, args: &ArchiveArgs) -> Result<ExitCode, Problem> {
    let set = args.ask.set();
    let objects = objects::one(access, set).await?;
    if objects.set.spec.archive.is_none() {
        return Err(Problem::NoArchive { set: set.to_owned() });
    }
    let report = report(&objects);
    // Any member will do; the leader's agent is the one that surely has data.
    let leader = report.active_leader().filter(|m| m.pod.is_some());
    let member = leader.or_else(|| report.members.iter().find(|m| m.pod.is_some()));
    let member = member.ok_or_else(|| Problem::NoPods { set: set.to_owned() })?;
    let mut command = Command::new("kubectl");
    command.args(access.kubectl_flags()).args(exec(&member.name, &args.ask));
    kubectl::become_it(command)
}

fn exec(pod: &str, ask: &ArchiveAsk) -> Vec<OsString> {
    let head = ["exec", pod, "--container", CONTAINER_AGENT, "--", PROGRAM, "archive"].map(OsString::from);
    head.into_iter().chain(ask.words().into_iter().map(OsString::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive_args::OutputArgs;
    use crate::cli::Output;

    #[test]
    fn the_agent_is_asked_in_its_own_container() {
        let ask = ArchiveAsk::Expire {
            set: "orders".into(),
            dry_run: true,
            days: Some(3),
            snapshots: None,
            output: OutputArgs { output: Some(Output::Json) },
        };
        let line: Vec<_> = exec("orders-1", &ask).into_iter().map(|a| a.into_string().unwrap()).collect();
        assert_eq!(
            line.join(" "),
            "exec orders-1 --container agent -- /usr/bin/pgconvoy-agent archive expire --dry-run --days 3 --json"
        );
    }
}

//! The command line.

use crate::archive_args::{ArchiveArgs, BackupArgs, RestoreArgs};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// PostgreSQL replica sets of pgconvoy, for people.
#[derive(Debug, Parser)]
#[command(name = "kubectl-pgconvoy", bin_name = "kubectl pgconvoy", version)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Which cluster, which namespace: as kubectl has them.
#[derive(Debug, Default, Args)]
pub(crate) struct Reach {
    /// Kubeconfig file, instead of KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace, instead of the context's
    #[arg(long, short, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How a replica set stands. Exit status: 0 Ready, 1 not Ready, 2 it cannot be told
    Status(StatusArgs),
    /// A psql session as superuser in a member's pod, the leader's by default
    Psql(PsqlArgs),
    /// What the members' agents and PostgreSQL say, merged by time
    Logs(LogsArgs),
    /// How it came to the present leader, and what would come of losing it
    Why(WhyArgs),
    /// Has another member lead; no acknowledged write is lost. Exit status: 0 done, 1 not done, 2 it cannot be told
    Switchover(SwitchoverArgs),
    /// Has whoever is left lead when the quorum is gone for good; what only the lost members had is lost
    Takeover(TakeoverArgs),
    /// Takes a snapshot into the archive. Exit status with --wait: 0 complete, 1 failed, 2 it cannot be told
    Backup(BackupArgs),
    /// Writes the YAML of a new replica set out of a set's archive to stdout; nothing is made
    Restore(RestoreArgs),
    /// What lies in a set's archive
    Archive(ArchiveArgs),
    /// What the set's members agreed on, and its repair when that is lost
    #[command(subcommand)]
    Term(TermCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TermCommand {
    /// What the PgTerm holds, and what the members go by. Exit status: 0 the same, 1 not the same, 2 it cannot be told
    Show(TermShowArgs),
    /// Makes a PgTerm that was lost or rolled back again, from what the members keep on their volumes; no acknowledged write is
    /// lost. Exit status: 0 done, 1 not done, 2 it cannot be told
    Repair(TermRepairArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TermShowArgs {
    /// The replica set
    pub(crate) set: String,
    /// For programs: the PgTerm's spec
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Args)]
pub(crate) struct TermRepairArgs {
    /// The replica set
    pub(crate) set: String,
    /// That acknowledged commits may be lost which only members have that cannot be asked
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// How many seconds to wait for the end
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub(crate) wait: u64,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The replica set; without it, a line for each
    pub(crate) set: Option<String>,
    /// Every namespace
    #[arg(long, short = 'A', conflicts_with_all = ["set", "namespace"])]
    pub(crate) all_namespaces: bool,
    /// For programs
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Everything that the text is made of
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct PsqlArgs {
    /// The replica set
    pub(crate) set: String,
    /// An attached follower instead of the leader
    #[arg(long, conflicts_with = "member")]
    pub(crate) follower: bool,
    /// This member, by name or number, whatever its role
    #[arg(long, value_name = "MEMBER")]
    pub(crate) member: Option<String>,
    /// Arguments for psql
    #[arg(last = true)]
    pub(crate) args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The replica set
    pub(crate) set: String,
    /// Go on as lines come, through restarts, also of members that come later
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this member, by name or number; may be given several times
    #[arg(long, value_name = "MEMBER")]
    pub(crate) member: Vec<String>,
    /// Only the agents
    #[arg(long)]
    pub(crate) agent: bool,
    /// Only the containers of PostgreSQL
    #[arg(long)]
    pub(crate) postgres: bool,
    /// Only the last lines of each container
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) tail: Option<i64>,
    /// Only lines younger than this, like 10m or 2h
    #[arg(long, value_name = "DURATION", value_parser = age)]
    pub(crate) since: Option<i64>,
    /// Lines as they were written, for programs: JSON, without the member's name in front
    #[arg(long)]
    pub(crate) raw: bool,
    /// What the containers said before their last restart
    #[arg(long, short, conflicts_with = "follow")]
    pub(crate) previous: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The replica set
    pub(crate) set: String,
}

#[derive(Debug, Args)]
pub(crate) struct SwitchoverArgs {
    /// The replica set
    pub(crate) set: String,
    /// Who is to lead, by name or number; without it, whichever follower is nearest
    #[arg(long, value_name = "MEMBER")]
    pub(crate) to: Option<String>,
    /// How many seconds to wait for the end
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) wait: u64,
}

#[derive(Debug, Args)]
pub(crate) struct TakeoverArgs {
    /// The replica set
    pub(crate) set: String,
    /// The epoch that is ended, as `status` shows it; nothing happens once a later one became active
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) epoch: u32,
    /// That acknowledged commits may be lost which no member that is left has; without it nobody leads who may lack any
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// How many seconds to wait for the end
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub(crate) wait: u64,
}

/// Seconds out of `10m`, `1h30m`, `45s`.
fn age(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a duration like 45s, 10m or 1h30m");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| bad())?;
    match duration.as_secs() {
        seconds if seconds > 0 => Ok(seconds),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_is_psql_s() {
        let cli = parse("kubectl-pgconvoy psql orders --follower -n shop -- -c select -n other").unwrap();
        assert_eq!(cli.reach.namespace.as_deref(), Some("shop"));
        let Command::Psql(args) = cli.command else { panic!("not psql") };
        assert!(args.follower);
        assert_eq!(args.args, ["-c", "select", "-n", "other"]);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "x status orders -A",
            "x status -A -n shop",
            "x psql orders --follower --member 2",
            "x logs orders -f -p",
            "x logs orders --since soon",
            "x logs orders --since 0s",
            "x logs orders --tail -1",
            "x takeover orders --accept-loss",
            "x restore orders",
            "x restore orders --to again --time now --lsn 0/1",
            "x archive expire orders --days 3",
            "x takeover orders --epoch 0 --accept-loss",
            "x psql",
        ] {
            assert_eq!(parse(line).map(drop).map_err(|e| e.exit_code()), Err(2), "{line}");
        }
    }

    #[test]
    fn durations_are_seconds() {
        assert_eq!(age("1h30m"), Ok(5400));
        assert_eq!(age("45s"), Ok(45));
    }
}

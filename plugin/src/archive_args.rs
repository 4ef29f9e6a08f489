//! The command line of `archive`, `backup` and `restore`.

use crate::cli::Output;
use clap::{ArgGroup, Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The replica set
    pub(crate) set: String,
    /// Wait for the end, for so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "3600", require_equals = true)]
    pub(crate) wait: Option<u64>,
    /// Name of the snapshot. Default: the set's name and some letters
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").args(["time", "lsn", "xid", "name", "immediate"]))]
pub(crate) struct RestoreArgs {
    /// The replica set whose archive it is
    pub(crate) set: String,
    /// Name of the new replica set
    #[arg(long, value_name = "NAME")]
    pub(crate) to: String,
    /// Begin with this snapshot. Default: the newest before the target
    #[arg(long, value_name = "NAME")]
    pub(crate) snapshot: Option<String>,
    /// Stop at this time, like '2026-01-31 12:00:00+00'
    #[arg(long)]
    pub(crate) time: Option<String>,
    /// Stop at this position, like 0/3000148
    #[arg(long)]
    pub(crate) lsn: Option<String>,
    /// Stop after this transaction
    #[arg(long)]
    pub(crate) xid: Option<String>,
    /// Stop at this restore point
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Stop as soon as the snapshot is consistent
    #[arg(long)]
    pub(crate) immediate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    #[command(subcommand)]
    pub(crate) ask: ArchiveAsk,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// For programs
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveAsk {
    /// The snapshots, and why each stays
    Ls {
        /// The replica set
        set: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Whether what lies there can be restored. Exit status: 0 yes, 1 no, 2 it cannot be told
    Verify {
        /// The replica set
        set: String,
        /// Read every part of every snapshot and compare its checksum, instead of looking whether it is there with its size
        #[arg(long)]
        deep: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// What retention would remove; the leader does that by itself
    Expire {
        /// The replica set
        set: String,
        /// Nothing is removed
        #[arg(long, required = true)]
        dry_run: bool,
        /// As if spec.retention.days of the PgArchive were this
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        days: Option<i32>,
        /// As if spec.retention.snapshots of the PgArchive were this
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        snapshots: Option<i32>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// From where to where the set can be restored
    ShowRange {
        /// The replica set
        set: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl ArchiveAsk {
    /// The replica set.
    pub(crate) fn set(&self) -> &str {
        match self {
            Self::Ls { set, .. }
            | Self::Verify { set, .. }
            | Self::Expire { set, .. }
            | Self::ShowRange { set, .. } => set,
        }
    }

    /// As the agent's command line has it.
    pub(crate) fn words(&self) -> Vec<String> {
        let flag = |given: bool, name: &str| given.then(|| name.to_owned());
        let valued = |value: &Option<i32>, name: &str| value.map(|v| [name.to_owned(), v.to_string()]);
        let (mut words, output) = match self {
            Self::Ls { output, .. } => (vec!["ls".to_owned()], output),
            Self::Verify { deep, output, .. } => {
                let mut words = vec!["verify".to_owned()];
                words.extend(flag(*deep, "--deep"));
                (words, output)
            }
            Self::Expire { dry_run, days, snapshots, output, .. } => {
                let mut words = vec!["expire".to_owned()];
                words.extend(flag(*dry_run, "--dry-run"));
                words.extend(valued(days, "--days").into_iter().flatten());
                words.extend(valued(snapshots, "--snapshots").into_iter().flatten());
                (words, output)
            }
            Self::ShowRange { output, .. } => (vec!["show-range".to_owned()], output),
        };
        words.extend(flag(output.output == Some(Output::Json), "--json"));
        words
    }
}

//! Programs of others.

use super::files;
use crate::{
    process::{Cost, measured_children, run},
    server::as_postgres,
};
use anyhow::{Context, Result};
use std::{fs, path::PathBuf, process::Command};

#[derive(clap::Args)]
pub(crate) struct Each {
    /// The files, one a line.
    #[arg(long)]
    list: PathBuf,
    /// As PostgreSQL's user.
    #[arg(long)]
    postgres: bool,
    /// The program; the file becomes its last argument.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<String>,
}

impl Each {
    pub(crate) fn run(self) -> Result<Cost> {
        let list = files(&self.list)?;
        measured_children(|| {
            let mut bytes = 0;
            for file in list {
                run(command(&self.program, self.postgres)?.arg(&file))?;
                bytes += fs::metadata(file)?.len();
            }
            Ok(bytes)
        })
    }
}

#[derive(clap::Args)]
pub(crate) struct Once {
    #[arg(long)]
    postgres: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<String>,
}

impl Once {
    pub(crate) fn run(self) -> Result<Cost> {
        measured_children(|| run(&mut command(&self.program, self.postgres)?).map(|_| 0))
    }
}

fn command(program: &[String], postgres: bool) -> Result<Command> {
    let (name, args) = program.split_first().context("no program")?;
    let mut command = Command::new(name);
    command.args(args).current_dir("/");
    if postgres { as_postgres(command) } else { Ok(command) }
}

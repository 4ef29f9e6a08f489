//! The failover protocol of docs/failover.md as explicit-state models: docs/model.md says what they leave out, and how to
//! run them.

mod archive;
mod canvass;
mod check;
mod lease;
mod progress;
mod quorum;
mod register;
#[cfg(test)]
mod tests;
mod walk;

use check::Bounds;
use std::process::ExitCode;

const USAGE: &str = "\
pgconvoy-model MODE [NAME=NUMBER…]
  base, mutants, progress, walk, replay    epoch, pledge and quorum: n w e(pochs) v (writes) b(ounces) d(isk losses)
                                           r(econfigurations) masks misroute replay steps locks asks breaks degrade unnoted; seed seconds
  register, register-mutants, register-progress, register-walk
                                           PgTerm lost, rolled back, repaired: n m(embers) w o(pens) v restores deletes
                                           repairs r; seconds
  canvass                                  who opens an epoch, in every network of 2 to 5 members
  lease                                    lease and self-fencing for W = 0
  archive, archive-mutants                 what lies in the archive
everywhere: limit=SECONDS max=STATES threads=N; `mutants NAME…` runs only those";

/// `name=number` among the arguments.
struct Arguments(Vec<String>);

impl Arguments {
    fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        let Some(text) = self.0.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('=')) else {
            return Ok(default);
        };
        text.parse().map_err(|_| format!("{name}={text}: not a number"))
    }
    fn small(&self, name: &str, default: u8) -> Result<u8, String> {
        u8::try_from(self.number(name, default.into())?).map_err(|_| format!("{name}: too large"))
    }
    fn flag(&self, name: &str) -> Result<bool, String> {
        Ok(self.number(name, 0)? == 1)
    }
    /// Words that are no settings: the mutants that are wanted, all of them if there are none.
    fn wants(&self, mutant: &str) -> bool {
        let mut names = self.0.iter().skip(1).filter(|a| !a.contains('=')).peekable();
        names.peek().is_none() || names.any(|n| n == mutant)
    }
}

fn main() -> ExitCode {
    match run(&Arguments(std::env::args().skip(1).collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Arguments) -> Result<(), String> {
    let base = quorum::Opts {
        n: usize::from(args.small("n", 3)?),
        w: args.small("w", 1)?,
        epochs: args.small("e", 3)?,
        writes: args.small("v", 2)?,
        bounces: args.small("b", 0)?,
        losses: args.small("d", 0)?,
        reconfs: args.small("r", 0)?,
        any_mask: args.flag("masks")?,
        misroute: args.flag("misroute")?,
        replay: args.flag("replay")?,
        steps: args.flag("steps")?,
        locks: args.small("locks", 3)?,
        asks: args.small("asks", 0)?,
        breaks: args.small("breaks", 0)?,
        degrade: args.flag("degrade")?,
        mutant: if args.flag("unnoted")? { quorum::Mutant::NotesUnused } else { quorum::Mutant::None },
    };
    let register = register::Opts {
        n: base.n,
        members: args.small("m", args.small("n", 3)?)?,
        w: base.w,
        opens: args.small("o", 2)?,
        writes: base.writes,
        restores: args.small("restores", 1)?,
        deletes: args.small("deletes", 0)?,
        repairs: args.small("repairs", 0)?,
        reconfs: base.reconfs,
        prefix: &[],
        mutant: register::Mutant::None,
    };
    let bounds = Bounds {
        limit: args.number("limit", 600)?,
        max: args.number("max", 60_000_000)?,
        threads: usize::from(args.small("threads", 2)?),
    };
    let seconds = args.number("seconds", 60)?;
    let title = args.0.join(" ");
    match args.0.first().map(String::as_str) {
        Some("base") => check::print(&title, base, bounds, true),
        Some("mutants") => {
            for o in quorum::mutants(base).into_iter().filter(|o| args.wants(&format!("{:?}", o.mutant))) {
                check::print(&format!("mutant {:?}", o.mutant), o, bounds, true);
                check::print("  same bounds, safeguard on", o.guarded(), bounds, false);
            }
        }
        Some("register") => check::print(&title, register, bounds, true),
        Some("register-walk") => {
            walk::any(&title, register, register::Act::rare, seconds);
            for o in register::mutants() {
                let o = register::Opts { mutant: o.mutant, ..register };
                walk::any(&format!("  mutant {:?}", o.mutant), o, register::Act::rare, seconds);
            }
        }
        Some("register-mutants") => {
            for o in register::mutants().into_iter().filter(|o| args.wants(&format!("{:?}", o.mutant))) {
                check::print(&format!("mutant {:?}", o.mutant), o, bounds, true);
                check::print(
                    "  same bounds, safeguard on",
                    register::Opts { mutant: register::Mutant::None, ..o },
                    bounds,
                    false,
                );
            }
        }
        Some("progress") => progress::print(
            &title,
            base,
            |s| s.term.phase == quorum::Phase::Active,
            |s| s.term.epoch == base.epochs || !base.hopeful(s),
        ),
        Some("register-progress") => {
            progress::print(&title, register, |s| register.serves(s), |s| register.spent(s));
        }
        Some("canvass") => canvass::run(),
        Some("lease") => lease::run_all(bounds),
        Some("archive") => {
            for (what, holds, o) in archive::cases() {
                let name = format!("archive {what} ({})", if holds.is_some() { "holds" } else { "does not hold" });
                check::print(&name, o, bounds, true);
            }
        }
        Some("archive-mutants") => {
            for o in archive::mutants().into_iter().filter(|o| args.wants(&format!("{:?}", o.mutant))) {
                check::print(&format!("mutant {:?}", o.mutant), o, bounds, true);
                let guarded = archive::Opts { mutant: archive::Mutant::None, ..o };
                check::print("  same bounds, safeguard on", guarded, bounds, false);
            }
        }
        Some("walk") => walk::run(base, seconds),
        Some("replay") => walk::replay(base, args.number("seed", 1)?),
        _ => return Err(USAGE.to_owned()),
    }
    Ok(())
}

//! PostgreSQL out of the distribution's packages, unpacked into a directory of one's own: nothing is installed, and nobody
//! has to be root. apt checks the packages against the keys of the distribution, as it does when it installs.

use crate::postgres::{Found, MAJORS};
use anyhow::{Context as _, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// For each of the programs that are run here. A slow line needs minutes for 20 MB; one that is dead must be noticed.
const LIMIT: Duration = Duration::from_secs(600);

/// What to do on a machine where this does not work.
const ADVICE: &str = "Install PostgreSQL 15 to 18 (Debian, Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server \
     postgresql-contrib; Arch: pacman -S postgresql; Alpine: apk add postgresql17), or name the directory of its programs: \
     ./quickstart --postgres DIRECTORY";

/// The directories of programs that were unpacked before.
pub(super) fn kept(cache: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(cache.join("postgresql")).into_iter().flatten().flatten().map(|e| e.path());
    list.flat_map(|root| MAJORS.map(move |m| root.join(format!("usr/lib/postgresql/{m}/bin"))))
        .filter(|b| b.is_dir())
        .collect()
}

/// Takes the newest that the distribution has.
///
/// # Errors
/// Why not, and what to do instead.
pub(super) async fn download(cache: &Path) -> anyhow::Result<Found> {
    if super::machine::which("apt-get").is_none() || super::machine::which("dpkg-deb").is_none() {
        bail!("and it can be downloaded by itself only where there is apt. {ADVICE}");
    }
    println!("Taking PostgreSQL from your distribution's packages into {} (nothing is installed).", cache.display());
    let found = fetch(cache).await;
    found.with_context(|| format!("PostgreSQL could not be downloaded. {ADVICE}"))
}

async fn fetch(cache: &Path) -> anyhow::Result<Found> {
    let apt = Apt { home: cache.join("apt") };
    for part in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(apt.home.join(part)).with_context(|| format!("cannot make {}", apt.home.display()))?;
    }
    apt.run(&["-q", "update"], true).await?;
    let mut wanted = None;
    for major in MAJORS.rev() {
        let package = format!("postgresql-{major}");
        // What an installation would bring: the machine has everything else already.
        if let Ok(plan) = apt.run(&["-s", "install", "--no-install-recommends", &package], false).await {
            wanted = Some((major, names(&plan, major)));
            break;
        }
    }
    let (major, names) = wanted.context("the distribution has no PostgreSQL 15 to 18")?;
    if names.is_empty() {
        bail!("apt says that PostgreSQL {major} is installed already; its programs are not where they should be");
    }
    let mut get = vec!["-q", "download"];
    get.extend(names.iter().map(String::as_str));
    apt.run(&get, true).await?;
    let archives = apt.home.join("archives");
    let new = cache.join("postgresql").join(format!("new-{}", std::process::id()));
    let unpacked = unpack(&archives, &new, major).await;
    let root = cache.join("postgresql").join(major.to_string());
    let done = unpacked.and_then(|()| {
        let _ = fs::remove_dir_all(&root);
        fs::rename(&new, &root).with_context(|| format!("cannot make {}", root.display()))
    });
    let _ = (fs::remove_dir_all(&new), fs::remove_dir_all(&apt.home));
    done?;
    Found::at(&root.join(format!("usr/lib/postgresql/{major}/bin"))).map_err(|why| anyhow::anyhow!(why))
}

async fn unpack(archives: &Path, to: &Path, major: u32) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for archive in fs::read_dir(archives).context("no packages")?.flatten().map(|e| e.path()) {
        if archive.extension().is_some_and(|e| e == "deb") {
            let mut command = Command::new("dpkg-deb");
            run(command.arg("-x").arg(&archive).arg(to), false).await?;
        }
    }
    // Its library is left out, for it is bigger than everything else together; without this file PostgreSQL does without.
    let _ = fs::remove_file(to.join(format!("usr/lib/postgresql/{major}/lib/llvmjit.so")));
    Ok(())
}

/// The packages of an apt simulation that programs need to run, as `apt-get download` takes them.
fn names(plan: &str, major: u32) -> Vec<String> {
    let own = [format!("postgresql-{major}"), format!("postgresql-client-{major}")];
    let without = ["libllvm", "libz3", "libperl", "libjson-perl", "libcommon-sense", "libtypes-serialiser"];
    let library = |name: &str| name.starts_with("lib") && !without.iter().any(|w| name.starts_with(w));
    let needed = |name: &str| own.iter().any(|o| o == name) || library(name);
    // Inst postgresql-17 (17.6-0+deb13u1 Debian:13.1/stable [amd64])
    let word = |line: &str| line.strip_prefix("Inst ")?.split_whitespace().next().map(str::to_owned);
    plan.lines().filter_map(word).filter(|n| needed(n)).collect()
}

/// apt with lists and archives of its own, so that it need not be root and leaves the machine's alone.
struct Apt {
    home: PathBuf,
}

impl Apt {
    async fn run(&self, arguments: &[&str], shown: bool) -> anyhow::Result<String> {
        let home = self.home.display();
        let mut command = Command::new("apt-get");
        for option in [
            format!("Dir::State::Lists={home}/lists"),
            format!("Dir::Cache={home}"),
            format!("Dir::Cache::Archives={home}/archives"),
            "Debug::NoLocking=1".to_owned(),
            // Whoever runs this reads and writes what is his own.
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.args(arguments).current_dir(self.home.join("archives")).env("LC_ALL", "C.UTF-8");
        run(&mut command, shown).await
    }
}

/// Runs a program to its end; what it wrote, when that is not shown.
async fn run(command: &mut Command, shown: bool) -> anyhow::Result<String> {
    let name = format!("{:?}", command.as_std().get_program());
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command.stdout(if shown { Stdio::inherit() } else { Stdio::piped() });
    let running = async {
        let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        child.wait_with_output().await.with_context(|| format!("cannot wait for {name}"))
    };
    let output =
        tokio::time::timeout(LIMIT, running).await.with_context(|| format!("{name} did not end in {LIMIT:?}"))??;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn of_what_apt_would_install_only_what_programs_need_is_taken() {
        let plan = "Reading package lists...\nInst libpq5 (17.6-0+deb13u1 Debian:13.1/stable [amd64])\n\
            Inst libllvm19 (1:19 Debian [amd64])\nInst libjson-perl (4 Debian [all])\nInst ssl-cert (1 Debian [all])\n\
            Inst postgresql-client-17 (17.6 Debian [amd64])\nInst postgresql-common (278 Debian [all])\n\
            Inst postgresql-17 [17.5] (17.6 Debian [amd64])\nConf libpq5 (17.6-0+deb13u1 Debian [amd64])\n";
        assert_eq!(names(plan, 17), ["libpq5", "postgresql-client-17", "postgresql-17"]);
    }

    #[test]
    fn what_was_unpacked_before_is_found_again() {
        let cache = tempfile::tempdir().unwrap();
        assert!(kept(cache.path()).is_empty());
        let bin = cache.path().join("postgresql/17/usr/lib/postgresql/17/bin");
        fs::create_dir_all(&bin).unwrap();
        assert_eq!(kept(cache.path()), [bin]);
    }
}

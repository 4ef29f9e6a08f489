//! What comes from Debian: packages that this machine needs, and root file systems of images.

use super::{say, tail};
use crate::{Store, run};
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a cluster and its build call.
pub(super) const NEEDED: [&str; 18] = [
    "ca-certificates",
    "conntrack",
    "e2fsprogs",
    "ethtool",
    "gcc",
    "ipset",
    "iproute2",
    "iptables",
    "libc6-dev",
    "libseccomp-dev",
    "mmdebstrap",
    "mount",
    "nftables",
    "pkg-config",
    "procps",
    "python3",
    "socat",
    "util-linux",
];

/// Which of these this machine lacks.
pub(super) fn missing_packages(wanted: &[&'static str]) -> Vec<&'static str> {
    let query = run::attempt(
        Command::new("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\\n"]).args(wanted),
        "",
    );
    let known = query.map(|q| q.stdout).unwrap_or_default();
    missing(wanted, &known)
}

/// Installs what is missing, or names it.
pub(super) fn packages(store: &Store, wanted: &[&'static str]) -> anyhow::Result<()> {
    let missing = missing_packages(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if run::attempt(Command::new("apt-get").arg("--version"), "").is_err() {
        bail!(
            "this machine is no Debian (no apt-get); install what these Debian packages hold, and their name is no matter: {list}"
        );
    }
    say(&format!("installing Debian packages: {list}"));
    let log = store.folder("log")?.join("apt.log");
    let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let script = "apt-get update -qq && exec apt-get install -y -qq --no-install-recommends \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.stdout(out.try_clone()?).stderr(out).status().context("cannot run sh")?;
    if !status.success() {
        bail!("cannot install {list}:\n{}\nInstall them yourself, or repair apt's list of mirrors.", tail(&log, 10));
    }
    Ok(())
}

/// Which packages a listing of dpkg-query lacks.
fn missing(wanted: &[&'static str], known: &str) -> Vec<&'static str> {
    let has = |name: &str| known.lines().any(|line| line == format!("{name} installed"));
    wanted.iter().copied().filter(|name| !has(name)).collect()
}

/// Writes the root file system of a Debian release with some packages into a tar archive, without documentation. `hooks` are
/// shell commands that run before packages are unpacked, with the root's path in `$1`. `scratch` must exist.
///
/// # Errors
/// When there is no mirror, or mmdebstrap fails.
pub fn root(suite: &str, packages: &[&str], hooks: &[&str], scratch: &Path, out: &Path) -> anyhow::Result<()> {
    let mirror = mirror().context(
        "no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d/debian.sources, and no other place is known \
         to take packages from",
    )?;
    // The package manager syncs after every file: in memory that is free. The mount is this process's own.
    let script = "mount -t tmpfs -o size=3g,mode=755 tmpfs \"$0\" && TMPDIR=$0 exec mmdebstrap \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(scratch);
    command.args(["--variant=essential", "--aptopt=APT::Install-Recommends \"false\"", "--dpkgopt=force-unsafe-io"]);
    for path in ["doc", "man", "locale"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    for hook in hooks {
        command.arg(format!("--essential-hook={hook}"));
    }
    command.arg(format!("--include={}", packages.join(","))).arg(suite).arg(out).arg(mirror);
    run::done(&mut command, "").map(drop)
}

/// The mirror that this machine installs from.
fn mirror() -> Option<String> {
    let read = |path: &str| fs::read_to_string(PathBuf::from(path)).unwrap_or_default();
    mirror_in(&read("/etc/apt/sources.list.d/debian.sources"), &read("/etc/apt/sources.list"))
}

fn mirror_in(sources: &str, list: &str) -> Option<String> {
    let new = sources.lines().find_map(|line| line.strip_prefix("URIs:")?.split_whitespace().next());
    let old = list.lines().filter_map(|line| line.strip_prefix("deb ")).find_map(|line| {
        // Options may stand in brackets before it.
        let line = line.trim_start();
        if line.starts_with('[') { line.split_once(']')?.1 } else { line }.split_whitespace().next()
    });
    new.or(old).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_packages_are_named() {
        let all: String = NEEDED.iter().map(|n| format!("{n} installed\n")).collect();
        assert!(missing(&NEEDED, &all).is_empty());
        assert_eq!(missing(&NEEDED, &all.replace("socat installed", "socat config-files")), ["socat"]);
        assert_eq!(missing(&NEEDED, &all.replace("gcc installed\n", "")), ["gcc"]);
    }

    #[test]
    fn the_machines_mirror_is_found() {
        assert_eq!(mirror_in("Types: deb\nURIs: http://a/debian\n", "").as_deref(), Some("http://a/debian"));
        assert_eq!(mirror_in("", "deb [signed-by=/x y=z] http://b stable main").as_deref(), Some("http://b"));
        assert_eq!(mirror_in("", "# deb http://c\ndeb http://b stable main").as_deref(), Some("http://b"));
        assert_eq!(mirror_in("", "deb-src http://c"), None);
    }
}

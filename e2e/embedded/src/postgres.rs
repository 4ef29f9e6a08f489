//! Which PostgreSQL of this machine stands for the image: the newest of 15 to 18 that has all programs, wherever
//! distributions put it.

use anyhow::bail;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The major versions that pgconvoy runs.
pub const MAJORS: std::ops::RangeInclusive<u32> = 15..=18;
/// What is needed of an installation. The last one is for the client.
const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_controldata", "pg_rewind", "psql"];

/// An installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The directory of its programs.
    pub bin: PathBuf,
    /// Like `17.6`.
    pub version: String,
}

impl Found {
    /// The major version.
    pub fn major(&self) -> u32 {
        major(&self.version)
    }

    /// Looks at one directory of programs.
    ///
    /// # Errors
    /// What is wrong with it, as half a sentence.
    pub fn at(bin: &Path) -> Result<Self, String> {
        if let Some(missing) = PROGRAMS.iter().find(|p| !bin.join(p).is_file()) {
            return Err(format!("{} has no program {missing}", bin.display()));
        }
        let mut command = Command::new(bin.join("postgres"));
        command.arg("--version").envs(libraries(bin).map(|l| (LIBRARY_PATH, l)));
        let output = command.output().map_err(|e| format!("{} cannot be run: {e}", bin.join("postgres").display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some(version) = version(&text) else {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!("{} cannot be run: {why}", bin.join("postgres").display()));
        };
        if !MAJORS.contains(&major(&version)) {
            return Err(format!("{} is PostgreSQL {version}", bin.display()));
        }
        Ok(Self { bin: bin.to_path_buf(), version })
    }

    /// Whether a user that is nobody can run it.
    ///
    /// # Errors
    /// The directory that only its owner may enter.
    pub fn for_everybody(&self) -> Result<(), PathBuf> {
        let closed = |d: &&Path| fs::metadata(d).is_ok_and(|m| m.permissions().mode() & 0o001 == 0);
        let bin = self.bin.canonicalize().unwrap_or_else(|_| self.bin.clone());
        bin.ancestors().find(closed).map_or(Ok(()), |d| Err(d.to_path_buf()))
    }
}

/// The variable that leads programs to their libraries.
pub const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// Where an installation lies that is not the machine's own: packages that were unpacked somewhere.
pub fn unpacked(bin: &Path) -> Option<PathBuf> {
    let root = bin.ancestors().find(|a| a.ends_with("usr"))?.parent()?;
    (root != Path::new("/")).then(|| root.to_path_buf())
}

/// Where the libraries of unpacked packages are.
pub fn libraries(bin: &Path) -> Option<String> {
    let root = unpacked(bin)?;
    let named = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().contains("-linux-gnu"));
    // Older packages have theirs where `/lib` is a link on the machine itself.
    let entries = ["usr/lib", "lib"].into_iter().filter_map(|l| fs::read_dir(root.join(l)).ok()).flatten().flatten();
    let list: Vec<String> = entries.map(|e| e.path()).filter(named).map(|p| p.display().to_string()).collect();
    (!list.is_empty()).then(|| list.join(":"))
}

/// The newest PostgreSQL of the machine; `besides`: more directories to look into.
///
/// # Errors
/// That there is none, what was found instead, and what to do.
pub fn find(besides: &[PathBuf]) -> anyhow::Result<Found> {
    let mut bins: Vec<PathBuf> = vec![];
    for major in MAJORS.rev() {
        bins.push(format!("/usr/lib/postgresql/{major}/bin").into());
        bins.push(format!("/usr/pgsql-{major}/bin").into());
    }
    if let Ok(told) = Command::new("pg_config").arg("--bindir").output() {
        bins.push(String::from_utf8_lossy(&told.stdout).trim().into());
    }
    bins.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    bins.extend(besides.iter().cloned());
    let mut unfit = vec![];
    let mut found: Vec<Found> = vec![];
    for bin in bins.iter().filter(|b| b.join("postgres").is_file()) {
        match Found::at(bin) {
            Ok(one) => found.push(one),
            Err(why) if !unfit.contains(&why) => unfit.push(why),
            Err(_) => {}
        }
    }
    // The first of the newest: the order above is the order of preference.
    found.reverse();
    if let Some(best) = found.into_iter().max_by_key(Found::major) {
        return Ok(best);
    }
    let instead = if unfit.is_empty() { String::new() } else { format!(" ({})", unfit.join("; ")) };
    bail!("there is no PostgreSQL 15 to 18 on this machine{instead}")
}

fn version(text: &str) -> Option<String> {
    let word = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| word.to_owned())
}

fn major(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    fn fake(dir: &Path, version: &str, without: &str) -> PathBuf {
        let bin = dir.join(format!("{version}-{without}"));
        fs::create_dir_all(&bin).unwrap();
        for name in PROGRAMS.iter().filter(|p| **p != without) {
            fs::write(bin.join(name), format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version} (Debian)'\n")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").unwrap(), "15.18");
        assert_eq!(major(&version("postgres (PostgreSQL) 18beta1\n").unwrap()), 18);
        assert_eq!(version("bash: no such thing"), None);
    }

    #[test]
    fn an_installation_that_is_too_old_or_lacks_a_program_is_said_to() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Found::at(&fake(dir.path(), "17.6", "")).unwrap().major(), 17);
        assert!(Found::at(&fake(dir.path(), "14.2", "")).unwrap_err().ends_with("is PostgreSQL 14.2"));
        assert!(Found::at(&fake(dir.path(), "16.1", "pg_rewind")).unwrap_err().ends_with("has no program pg_rewind"));
    }

    #[test]
    fn the_newest_is_taken_even_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let besides = [fake(dir.path(), "18.9", ""), fake(dir.path(), "14.2", "")];
        assert_eq!(
            find(&besides).unwrap().bin.canonicalize().unwrap().parent(),
            dir.path().canonicalize().ok().as_deref()
        );
    }

    #[test]
    fn unpacked_packages_bring_their_libraries() {
        assert_eq!(unpacked(Path::new("/usr/lib/postgresql/15/bin")), None);
        assert_eq!(unpacked(Path::new("/opt/pg/bin")), None);
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/lib/postgresql/17/bin");
        for lib in ["usr/lib/x86_64-linux-gnu", "usr/lib/postgresql", "lib/x86_64-linux-gnu"] {
            fs::create_dir_all(root.path().join(lib)).unwrap();
        }
        assert_eq!(unpacked(&bin).as_deref(), Some(root.path()));
        let at = root.path().display();
        assert_eq!(libraries(&bin).unwrap(), format!("{at}/usr/lib/x86_64-linux-gnu:{at}/lib/x86_64-linux-gnu"));
    }

    #[test]
    fn a_directory_that_is_its_owners_alone_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let bin = fake(dir.path(), "17.6", "");
        let found = Found::at(&bin).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(found.for_everybody().unwrap_err(), dir.path().canonicalize().unwrap());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(found.for_everybody(), Ok(()));
    }
}

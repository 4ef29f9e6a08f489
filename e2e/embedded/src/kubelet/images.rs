//! What stands in for images: programs of this machine.

use crate::machine::Settings;
use crate::postgres;
use std::path::{Path, PathBuf};

/// What a container of an image finds.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Image {
    /// Files beside the machine's own.
    pub(super) files: Vec<(PathBuf, PathBuf)>,
    /// Directories besides `/usr`.
    pub(super) directories: Vec<PathBuf>,
    /// `PATH`.
    pub(super) path: String,
    /// Where its libraries are, when they are not the machine's own.
    pub(super) libraries: Option<String>,
    /// What it is, for an event.
    pub(super) is: String,
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The stand-in for an image, by its name. A tag that begins with `nothing` is of an image that is not there.
///
/// # Errors
/// What the kubelet says of an image that it cannot pull.
pub(super) fn find(name: &str, settings: &Settings) -> Result<Image, String> {
    let without_tag = name.split('@').next().unwrap_or(name);
    let (repository, tag) = match without_tag.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (without_tag, "latest"),
    };
    let last = repository.rsplit('/').next().unwrap_or_default();
    if tag.starts_with("nothing") {
        return Err(format!("failed to pull image {name:?}: not found"));
    }
    match last {
        "agent" => Ok(Image {
            files: vec![
                ("/usr/bin/pgconvoy-agent".into(), settings.agent.clone()),
                ("/usr/lib/pgconvoy/supervisor".into(), settings.supervisor.clone()),
            ],
            path: PATH.to_owned(),
            is: format!("the programs {} and {}", settings.agent.display(), settings.supervisor.display()),
            directories: vec![],
            libraries: None,
        }),
        "postgres" | "postgresql" => {
            let bin = of_major(tag, &settings.postgres);
            let outside = match postgres::unpacked(&bin) {
                _ if bin.starts_with("/usr") => vec![],
                Some(root) => vec![root],
                None => vec![tree(&bin)],
            };
            Ok(Image {
                libraries: postgres::libraries(&bin),
                path: format!("{}:{PATH}", bin.display()),
                is: format!("PostgreSQL in {}", bin.display()),
                directories: outside,
                files: vec![],
            })
        }
        _ => Err(format!(
            "failed to pull image {name:?}: the embedded cluster has programs for images whose names end in /agent and \
             /postgres only"
        )),
    }
}

/// The machine's PostgreSQL of the tag's major version, if it has it beside the one that was chosen.
fn of_major(tag: &str, chosen: &Path) -> PathBuf {
    let major: String = tag.chars().take_while(char::is_ascii_digit).collect();
    let sibling = chosen.parent().and_then(Path::parent).map(|p| p.join(&major).join("bin"));
    sibling.filter(|s| !major.is_empty() && s.join("postgres").is_file()).unwrap_or_else(|| chosen.to_path_buf())
}

/// The installation that a directory of programs belongs to.
fn tree(bin: &Path) -> PathBuf {
    bin.parent().unwrap_or(bin).to_path_buf()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;

    #[test]
    fn images_are_told_apart_by_their_last_word() {
        let settings = Settings {
            directory: "/d".into(),
            api_port: 0,
            operator: None,
            agent: "/d/agent".into(),
            supervisor: "/d/supervisor".into(),
            postgres: "/opt/pg/bin".into(),
            apply: vec![],
            nodes: 1,
            store: None,
            lead_to_store: false,
            impatient: false,
        };
        let of = |name: &str| find(name, &settings);
        assert_eq!(of("docker.io/pgconvoy/agent:0.1.0").unwrap().files.len(), 2);
        let postgres = of("registry:5000/library/postgres:17").unwrap();
        assert_eq!((postgres.directories, postgres.files.len()), (vec!["/opt/pg".into()], 0));
        assert!(postgres.path.starts_with("/opt/pg/bin:"));
        for missing in ["docker.io/library/redis:7", "docker.io/library/postgres:nothing-1", "registry:5000/x"] {
            assert!(of(missing).unwrap_err().contains(missing), "{missing}");
        }
    }
}

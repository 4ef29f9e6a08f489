//! Programs that tests may want beside a cluster, by `go install` on demand.

use super::{programs, say, tail};
use crate::{Store, host};
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Instant;

/// Name, package, version, and CPU seconds of a build with nothing cached.
pub const TOOLS: [(&str, &str, &str, u32); 3] = [
    // An S3 server over a plain directory.
    ("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0", 165),
    ("helm", "helm.sh/helm/v3/cmd/helm", "v3.22.0", 270),
    // Checks manifests against schemas.
    ("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform", "v0.7.0", 20),
];

/// The program of this name, built if it is not there yet.
///
/// # Errors
/// When there is no such tool, no Go, or it does not build.
pub fn tool(store: &Store, name: &str) -> anyhow::Result<PathBuf> {
    let Some((_, package, version, cold)) = TOOLS.iter().find(|t| t.0 == name) else {
        let all: Vec<_> = TOOLS.iter().map(|t| t.0).collect();
        bail!("there is no tool {name}; there is {}, csi", all.join(", "));
    };
    let folder = store.path(&format!("tools/{name}-{version}"));
    let program = folder.join(name);
    if program.exists() {
        return Ok(program);
    }
    host::check(&host::Machine::look(store), host::For::Tool)?;
    let lock = store.lock(&format!("tool-{name}.lock"))?;
    lock.lock().context("cannot wait for another build")?;
    if program.exists() {
        return Ok(program);
    }
    say(&format!("{name} {version}: building (about {cold} CPU seconds when nothing is cached)"));
    let begin = Instant::now();
    let part = store.folder(&format!("tools/{name}-{version}.part"))?;
    let log = store.folder("log")?.join(format!("build-{name}.log"));
    let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = programs::go();
    command.args(["install", "-v", "-ldflags", "-s -w", &format!("{package}@{version}")]);
    // Outside of a module, so without -mod.
    command.env("GOFLAGS", "-buildvcs=false -trimpath").env("GOBIN", &part);
    let status = command.stdout(out.try_clone()?).stderr(out).status().context("cannot run go")?;
    if !status.success() {
        bail!("{name}: the build failed, all of its output is in {}:\n{}", log.display(), tail(&log, 20));
    }
    fs::rename(&part, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    say(&format!("{name} {version}: done in {} s", begin.elapsed().as_secs()));
    Ok(program)
}

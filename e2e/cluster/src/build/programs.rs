//! Kubernetes in one program, and what stands around it in another, out of two Go modules.

use super::{say, tail};
use crate::Store;
use crate::store::stamp;
use anyhow::{Context, bail, ensure};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A Go module that is carried in this program.
pub(super) struct Module {
    pub(super) name: &'static str,
    pub(super) files: &'static [(&'static str, &'static str)],
}

macro_rules! module {
    ($name:literal) => {
        module!($name, $name)
    };
    // Its main package is that of another module.
    ($name:literal, $main:literal) => {
        Module {
            name: $name,
            files: &[
                ("go.mod", include_str!(concat!("../../", $name, "/go.mod"))),
                ("go.sum", include_str!(concat!("../../", $name, "/go.sum"))),
                ("main.go", include_str!(concat!("../../", $main, "/main.go"))),
            ],
        }
    };
}

/// The versions of Kubernetes that can be built, the default first. Patch releases and everything else are pinned in the
/// modules' `go.mod`.
pub const VERSIONS: [&str; 2] = ["1.36", "1.34"];

const KUBERNETES: [Module; 2] = [module!("k8s"), module!("k8s-1.34", "k8s")];
const SIDE: Module = module!("side");
/// Programs without what debuggers want.
pub(super) const SMALL: &str = "-s -w";

fn kubernetes(version: &str) -> anyhow::Result<&'static Module> {
    let found = VERSIONS.iter().zip(&KUBERNETES).find(|(v, _)| **v == version);
    found.map(|(_, module)| module).with_context(|| format!("there is no Kubernetes {version} to build"))
}

/// Where the programs of this version are or will be: named by the content of both modules.
pub(crate) fn folder(store: &Store, version: &str) -> anyhow::Result<PathBuf> {
    let all = kubernetes(version)?.files.iter().chain(SIDE.files);
    Ok(store.path("bin").join(stamp(all.map(|(_, text)| *text))))
}

/// The version that a module requires of another, without its `v`.
fn required(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|w| *w == "require");
        (words.next() == Some(module)).then(|| words.next())?.map(|v| v.trim_start_matches('v').to_owned())
    })
}

/// The version of Go that is needed.
pub(crate) fn go_needed() -> String {
    let all = KUBERNETES.iter().chain([&SIDE]).flat_map(|m| m.files[0].1.lines());
    let versions = all.filter_map(|line| line.strip_prefix("go ")).map(str::trim);
    versions.max_by_key(|v| numbers(v)).unwrap_or_default().to_owned()
}

/// `1.26.8` as numbers that compare.
pub(crate) fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|n| n.parse().ok()).collect()
}

/// Builds what is missing into `bin`.
pub(super) fn make(store: &Store, version: &str, bin: &Path) -> anyhow::Result<()> {
    let kubernetes = kubernetes(version)?;
    fs::create_dir_all(bin.join("cni")).with_context(|| format!("cannot make {}", bin.display()))?;
    let x = "k8s.io/component-base/version";
    let exact = required(kubernetes.files[0].1, "k8s.io/kubernetes").context("go.mod requires no Kubernetes")?;
    let minor = exact.split('.').nth(1).unwrap_or_default();
    // A component without a version panics at start.
    let flags =
        format!("-s -w -X {x}.gitVersion=v{exact} -X {x}.gitMajor=1 -X {x}.gitMinor={minor} -X {x}.gitTreeState=clean");
    let kube = Step { store, bin, module: kubernetes, flags: &flags };
    let side = Step { store, bin, module: &SIDE, flags: SMALL };
    kube.once("kube", 400, &format!("Kubernetes {exact}"), |step| {
        step.go("kube", &["."], &[])?;
        let links = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"];
        step.link("kube", &links)
    })?;
    side.once("side", 120, "etcd, containerd, CoreDNS", |step| {
        step.go("side", &["."], &[])?;
        step.link("side", &["etcd", "containerd", "ctr", "coredns"])
    })?;
    side.once("tools", 40, "runc, CNI, volume provisioner", |step| {
        let plugins = ["ipam/host-local", "main/bridge", "main/loopback", "meta/portmap"];
        let plugins = plugins.map(|p| format!("github.com/containernetworking/plugins/plugins/{p}"));
        step.go("cni/", &plugins.each_ref().map(String::as_str), &[])?;
        // One build each: two of them spell the import of logrus differently, which Go calls a collision.
        step.go("", &["github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"], &[])?;
        step.go("", &["github.com/rancher/local-path-provisioner"], &[])?;
        step.go("", &["-tags", "seccomp", "github.com/opencontainers/runc"], &[("CGO_ENABLED", "1")])
    })
}

/// What the parts of a build share.
pub(super) struct Step<'a> {
    pub(super) store: &'a Store,
    pub(super) bin: &'a Path,
    pub(super) module: &'static Module,
    pub(super) flags: &'a str,
}

impl Step<'_> {
    /// Does it, if it was not done for this content. `cold` is about how many seconds it takes two idle cores when nothing is
    /// cached.
    pub(super) fn once(
        &self,
        name: &str,
        cold: u32,
        what: &str,
        work: impl FnOnce(&Running<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let done = self.bin.join(format!(".{name}"));
        if done.exists() {
            return Ok(());
        }
        say(&format!("{what}: building (about {cold} s of two idle cores when nothing is cached)"));
        let begin = Instant::now();
        let log = self.store.folder("log")?.join(format!("build-{name}.log"));
        File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let source = self.store.folder(&format!("src/{}", self.module.name))?;
        for (file, text) in self.module.files {
            fs::write(source.join(file), text).with_context(|| format!("cannot write {}", source.display()))?;
        }
        work(&Running { step: self, what, begin, log: &log, source: &source })
            .with_context(|| format!("{what}: the build failed, all of its output is in {}", log.display()))?;
        File::create(done)?;
        say(&format!("{what}: done in {} s", begin.elapsed().as_secs()));
        Ok(())
    }
}

pub(super) struct Running<'a> {
    step: &'a Step<'a>,
    what: &'a str,
    begin: Instant,
    log: &'a Path,
    pub(super) source: &'a Path,
}

impl Running<'_> {
    /// Compiles into `target` below the directory of programs, with a line every 30 s.
    pub(super) fn go(&self, target: &str, packages: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
        let log = File::options().append(true).open(self.log)?;
        let mut command = go();
        command.current_dir(self.source).args(["build", "-v", "-ldflags", self.step.flags]);
        // What debuggers want is not linked in; to make none of it saves a tenth of the compiler's time.
        command.args(["-gcflags=all=-dwarf=false", "-o"]);
        // A directory when it ends with a slash.
        command.arg(format!("{}/{target}", self.step.bin.display())).args(packages).envs(environment.iter().copied());
        let mut child =
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("cannot run go")?;
        let mut told = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(Duration::from_millis(200));
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                let (packages, seconds) = (compiled(self.log), self.begin.elapsed().as_secs());
                say(&format!("{}: {packages} packages compiled, {seconds} s", self.what));
            }
        };
        if !status.success() {
            bail!("{}", tail(self.log, 20));
        }
        Ok(())
    }

    fn link(&self, program: &str, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            let path = self.step.bin.join(name);
            drop(fs::remove_file(&path));
            symlink(program, &path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        ensure!(self.step.bin.join(program).exists(), "go build gave no {program}");
        Ok(())
    }
}

/// Go, the same whatever the user's settings are: what is built is named by its content.
pub(super) fn go() -> Command {
    let mut command = Command::new("go");
    command
        .env("GOFLAGS", "-buildvcs=false -mod=readonly -trimpath")
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local");
    command
}

/// How many packages a log of `go build -v` tells.
fn compiled(log: &Path) -> usize {
    let mut text = String::new();
    if let Ok(mut file) = File::open(log) {
        drop(file.read_to_string(&mut text));
    }
    text.lines().filter(|line| !line.starts_with("go: ") && !line.contains(' ')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_modules() {
        assert_eq!(
            required("require (\n\tk8s.io/kubernetes v1.36.3\n)", "k8s.io/kubernetes").as_deref(),
            Some("1.36.3")
        );
        assert_eq!(required("require k8s.io/kubernetes v1.36.3", "k8s.io/kubernetes").as_deref(), Some("1.36.3"));
        assert_eq!(required("k8s.io/kubernetes-x v1", "k8s.io/kubernetes"), None);
        for (version, module) in VERSIONS.iter().zip(&KUBERNETES) {
            let exact = required(module.files[0].1, "k8s.io/kubernetes").unwrap();
            assert!(exact.starts_with(&format!("{version}.")), "{version} is {exact}");
        }
        assert!(numbers(&go_needed()) >= vec![1, 26], "{}", go_needed());
        assert!(numbers("1.26.10") > numbers("1.26.8"));
    }

    #[test]
    fn each_version_has_a_directory_of_its_own() {
        let store = Store::at(Path::new("/p")).unwrap();
        let all: std::collections::BTreeSet<_> = VERSIONS.iter().map(|v| folder(&store, v).unwrap()).collect();
        assert_eq!(all.len(), VERSIONS.len());
        assert!(folder(&store, "1.2").is_err());
    }
}

//! The binary as it ships: static, so that it runs in any image.

use crate::container::{Container, figure, namespaces, program, skipped, wait_for};
use pgconvoy_supervisor::protocol::{Exit, Permit, Request, Response};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use tempfile::TempDir;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds it.
pub(crate) fn build() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
                skipped("the static binary", "this machine is not x86_64 with glibc");
                return None;
            }
            // The directory of this test's own build is <target>/debug/pgconvoy-supervisor. Not in <target>: whoever
            // builds there for an hour would be waited for.
            let directory = Path::new(crate::container::SUPERVISOR).ancestors().nth(2).unwrap().join("static");
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["build", "-p", "pgconvoy-supervisor", "--target", TARGET, "--profile", "release-lite"]);
            cargo.arg("--target-dir").arg(&directory).env("RUSTFLAGS", "-C target-feature=+crt-static");
            let output = cargo.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(directory.join(TARGET).join("release-lite/pgconvoy-supervisor"))
        })
        .clone()
}

/// A root directory that holds the supervisor and what `fill` puts there; `socket` lies in its top.
fn rooted(mount_proc: bool, fill: impl FnOnce(&Path)) -> Option<Container> {
    let (binary, options) = (build()?, namespaces()?);
    let dir = TempDir::new().unwrap();
    fs::copy(binary, dir.path().join("supervisor")).unwrap();
    fill(dir.path());
    let mut command = Command::new("unshare");
    command.args(options);
    if mount_proc {
        fs::create_dir(dir.path().join("proc")).unwrap();
        command.arg("--mount-proc");
    }
    command.arg("--root").arg(dir.path()).args(["/supervisor", "--socket", "/socket"]);
    Some(Container::launch(dir, command, false))
}

#[test]
fn it_is_static_small_and_stays_small() {
    let (Some(binary), Some(_)) = (build(), namespaces()) else { return };
    let elf = fs::read(&binary).unwrap();
    // A program header of type PT_INTERP (3) would name a dynamic loader.
    let word = |at: usize, n: usize| elf[at..at + n].iter().rev().fold(0usize, |sum, b| sum << 8 | usize::from(*b));
    let headers = (0..word(56, 2)).map(|i| word(word(32, 8) + i * word(54, 2), 4));
    assert!(headers.into_iter().all(|kind| kind != 3), "the binary is not static");
    assert!(elf.len() < 2_000_000, "{} bytes", elf.len());

    let Some(container) = Container::alone(&binary) else { return };
    let status = |name: &str| -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
        let line = text.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let idle = status("VmRSS:");
    let mut client = container.client();
    client.start("1.a", Permit::Forever, program(&["sleep", "1000"]));
    for _ in 0..10 {
        client.run(program(&["sh", "-c", "head -c 4000000 /dev/zero; head -c 4000000 /dev/zero >&2"]));
    }
    let after = status("VmRSS:");
    let switches = status("voluntary_ctxt_switches:");
    std::thread::sleep(std::time::Duration::from_secs(3));
    let idle_switches = status("voluntary_ctxt_switches:") - switches;
    figure(&format!(
        "static build: {} kB on disk; resident {idle} kB idle, {after} kB after ten tools with 8 MB of output each; \
         {idle_switches} wake-ups in 3 idle seconds",
        elf.len() / 1000
    ));
    assert!(idle <= 3 * 1024 && after <= 3 * 1024, "resident: {idle} kB idle, {after} kB after work");
    assert!(idle_switches <= 3, "it does not sleep: {idle_switches} wake-ups in 3 s");
}

/// Nothing but the binary: no loader, no shell, no /proc, no /dev/null.
#[test]
fn it_needs_nothing_but_itself() {
    let Some(container) = rooted(false, |_| ()) else { return };
    let mut client = container.client();
    let done = client.run(program(&["/supervisor", "--version"]));
    assert_eq!(done.exit, Exit::Code(0), "{}", done.err.text());
    assert!(done.out.text().starts_with("pgconvoy-supervisor "), "{}", done.out.text());
    let done = client.run(program(&["/supervisor", "--socket", "/other"]));
    assert_eq!(done.exit, Exit::Code(1));
    assert!(done.err.text().contains("PID 1"), "{}", done.err.text());

    // A second PostgreSQL's worth of processes, and their end without /proc to look at.
    client.watch();
    let answer = client.ask(&crate::container::start("1.a", Permit::Forever, program(&["/supervisor", "--help"])));
    assert!(matches!(answer, Response::Start { .. }), "{answer:?}");
    assert_eq!(client.event(), pgconvoy_supervisor::protocol::Event::Exit { exit: Exit::Code(0) });
    assert_eq!(client.ask(&Request::Fence), Response::Fence);
    wait_for("nothing left", || container.others().is_empty());
}

/// The root of another C library: a program linked with musl runs under it.
#[test]
fn it_runs_in_a_musl_root() {
    let source = "#include <stdio.h>\nint main(void){puts(\"hello from musl\");return 5;}\n";
    let work = TempDir::new().unwrap();
    fs::write(work.path().join("hello.c"), source).unwrap();
    let built = Command::new("musl-gcc").args(["-o", "hello", "hello.c"]).current_dir(work.path()).output();
    match built {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return skipped("a musl root", "needs musl-gcc (Debian: musl-tools)");
        }
        built => assert!(built.unwrap().status.success()),
    }
    let container = rooted(true, |root| {
        fs::create_dir(root.join("lib")).unwrap();
        fs::copy("/lib/ld-musl-x86_64.so.1", root.join("lib/ld-musl-x86_64.so.1")).unwrap();
        fs::copy(work.path().join("hello"), root.join("hello")).unwrap();
    });
    let Some(container) = container else { return };
    let done = container.client().run(program(&["/hello"]));
    assert_eq!((done.exit, done.out.text().as_str()), (Exit::Code(5), "hello from musl\n"), "{}", done.err.text());
}

//! Images of one's own, by hand: of a directory, and of Debian packages. They are on every node, and pods run from them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]

mod common;

use pgconvoy_cluster::{Cluster, Options};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const NODES: [&str; 2] = ["n1", "n2"];

/// `kcluster`, as somebody types it.
fn kcluster(cluster: &Cluster, words: &[&str]) -> (bool, String) {
    let program = env!("CARGO_BIN_EXE_kcluster");
    let output = Command::new(program).args(["--name", cluster.name()]).args(words).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn works(cluster: &Cluster, words: &[&str]) {
    let (ok, said) = kcluster(cluster, words);
    assert!(ok, "kcluster {}: {said}", words.join(" "));
}

/// What the image's own command prints on each node.
fn printed(cluster: &Cluster, name: &str, image: &str) -> Vec<String> {
    let pod = |node: &str| format!("{name}-{node}");
    for node in NODES {
        let container = json!({ "name": "c", "image": image, "imagePullPolicy": "Never" });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod(node) },
            "spec": { "restartPolicy": "Never", "nodeName": node, "containers": [container] } });
        cluster.kubectl(&["create", "-f", "-"], &pod.to_string()).unwrap();
    }
    let print = |node: &&str| {
        let done = "--for=jsonpath={.status.phase}=Succeeded";
        cluster.kubectl(&["wait", done, "--timeout=60s", "pod", &pod(node)], "").unwrap();
        cluster.kubectl(&["logs", &pod(node)], "").unwrap()
    };
    NODES.iter().map(print).collect()
}

#[test]
#[ignore = "brings up a cluster, as root: ./test runs it"]
fn images_are_made_and_loaded_by_hand() {
    let options = Options { nodes: 2, ..common::options() };
    let cluster = Cluster::up(&format!("images{}", std::process::id()), &options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    of_a_directory(&cluster, folder.path());
    of_debian_packages(&cluster, folder.path());
    what_is_wrong_is_said(&cluster, folder.path());
}

fn of_a_directory(cluster: &Cluster, folder: &Path) {
    let (source, root, archive) = (folder.join("own.c"), folder.join("root"), folder.join("own.oci.tar"));
    std::fs::create_dir(&root).unwrap();
    let text = "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
                int main(int n, char **words) {\n\
                printf(\"%d %s %s %s\\n\", getuid(), getenv(\"COLOR\"), words[1], getcwd(0, 0)); return 0; }\n";
    std::fs::write(&source, text).unwrap();
    let gcc = Command::new("gcc").arg("-static").arg("-o").arg(root.join("own")).arg(&source).status().unwrap();
    assert!(gcc.success());
    std::fs::create_dir(root.join("work")).unwrap();
    let (root, archive) = (root.to_str().unwrap(), archive.to_str().unwrap());
    let image = "docker.io/local/own:1";
    let pack = ["pack", image, root, archive, "--user", "1234", "--workdir", "/work", "--env", "COLOR=red"];
    works(cluster, &[&pack[..], &["--entrypoint", "/own", "--cmd", "word"]].concat());
    let begin = Instant::now();
    works(cluster, &["load", archive]);
    println!("measured: a small image on two nodes after {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(printed(cluster, "own", image), ["1234 red word /work\n"; 2]);

    // The same input gives the same bytes.
    let again = folder.join("again.oci.tar");
    let mut pack = pack;
    pack[3] = again.to_str().unwrap();
    works(cluster, &[&pack[..], &["--entrypoint", "/own", "--cmd", "word"]].concat());
    assert!(std::fs::read(archive).unwrap() == std::fs::read(&again).unwrap(), "the archives differ");
    assert!(!folder.join("again.oci.tar.part").exists());

    // One that comes again under its name is used by the next pods.
    pack[9] = "COLOR=blue";
    works(cluster, &[&pack[..], &["--entrypoint", "/own", "--cmd", "word"]].concat());
    works(cluster, &["load", again.to_str().unwrap()]);
    assert_eq!(printed(cluster, "blue", image), ["1234 blue word /work\n"; 2]);
}

fn of_debian_packages(cluster: &Cluster, folder: &Path) {
    let (root, archive) = (folder.join("debian.tar"), folder.join("debian.oci.tar"));
    let (root, archive) = (root.to_str().unwrap(), archive.to_str().unwrap());
    let begin = Instant::now();
    works(cluster, &["debian", "bookworm", root, "hello"]);
    println!("measured: a root of Debian packages after {:.1} s", begin.elapsed().as_secs_f64());
    let image = "docker.io/local/hello:1";
    works(cluster, &["pack", image, root, archive, "--entrypoint", "/usr/bin/hello", "--greeting=from Debian"]);
    works(cluster, &["load", archive]);
    assert_eq!(printed(cluster, "hello", image), ["from Debian\n"; 2]);
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
}

fn what_is_wrong_is_said(cluster: &Cluster, folder: &Path) {
    let out = folder.join("x.tar");
    let out = out.to_str().unwrap();
    for (words, said) in [
        (&["pack", "docker.io/local/x:1", "/no/such/directory", out][..], "/no/such/directory"),
        (&["debian", "bookworm", out, "no-such-package-here"], "no-such-package-here"),
        (&["load", "/no/such/archive"], "/no/such/archive"),
        (&["load", "/etc/passwd"], "/etc/passwd on n"),
    ] {
        let (ok, told) = kcluster(cluster, words);
        assert!(!ok && told.contains(said), "kcluster {}: {told}", words.join(" "));
    }
}

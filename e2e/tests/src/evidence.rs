//! What a failed test leaves behind for people.

use crate::{Cluster, OPERATOR_NAMESPACE};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// How many lines of each agent's log are printed.
const TOLD: usize = 12;

/// Writes objects, events and logs of `namespace`, and the operator's logs, into a directory of its own and says where.
/// What cannot be had is left out: this runs when something is wrong already.
pub(crate) fn keep(cluster: &Cluster, namespace: &str) {
    let folder = std::env::var_os("PGCONVOY_LOGS")
        .map_or_else(|| std::env::temp_dir().join("pgconvoy-e2e"), PathBuf::from)
        .join(namespace);
    if let Err(error) = std::fs::create_dir_all(&folder) {
        eprintln!("what {namespace} looked like is lost, {} cannot be made: {error}", folder.display());
        return;
    }
    let write = |file: &str, args: &[&str]| write(cluster, &folder, file, args);
    // No Secrets.
    let kinds = "pgreplicasets,pgterms,leases,endpointslices,pods,persistentvolumeclaims,services,configmaps";
    write("objects.yaml", &["-n", namespace, "get", kinds, "-o", "yaml"]);
    write("overview.txt", &["-n", namespace, "get", kinds, "-o", "wide"]);
    write("events.txt", &["-n", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp"]);
    write("describe.txt", &["-n", namespace, "describe", "pods"]);
    for place in [namespace, OPERATOR_NAMESPACE] {
        for (pod, container) in containers(cluster, place) {
            let logs = ["-n", place, "logs", "--tail=5000", "--timestamps", &pod, "-c", &container];
            write(&format!("{pod}.{container}.log"), &logs);
            if place == namespace && container == "agent" {
                tell(&folder.join(format!("{pod}.{container}.log")));
            }
            write(&format!("{pod}.{container}.previous.log"), &[&logs[..], &["--previous"]].concat());
        }
    }
    eprintln!("what {namespace} looked like: {}", folder.display());
}

/// The end of an agent's log, for where nothing but the tests' output is kept.
fn tell(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(TOLD)) {
        let (time, entry) = line.split_once(' ').unwrap_or(("", line));
        let entry: Value = serde_json::from_str(entry).unwrap_or_default();
        let word = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let said = format!("{} {}", word("message"), word("activity") + &word("want"));
        let member = log.file_stem().unwrap_or_default().to_string_lossy();
        eprintln!("{member} {time} {}", said.chars().take(240).collect::<String>());
    }
}

fn write(cluster: &Cluster, folder: &Path, file: &str, args: &[&str]) {
    if let Ok(output) = cluster.try_kubectl(args, "")
        && output.ok
        && let Err(error) = std::fs::write(folder.join(file), output.stdout)
    {
        eprintln!("cannot write {file}: {error}");
    }
}

/// Every container of every pod of `namespace`.
fn containers(cluster: &Cluster, namespace: &str) -> Vec<(String, String)> {
    let pods = cluster.get(&["-n", namespace, "pods"]).unwrap_or_default();
    let mut found = vec![];
    for pod in pods["items"].as_array().into_iter().flatten() {
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array().into_iter().flatten() {
                if let (Value::String(pod), Value::String(container)) = (&pod["metadata"]["name"], &container["name"]) {
                    found.push((pod.clone(), container.clone()));
                }
            }
        }
    }
    found
}

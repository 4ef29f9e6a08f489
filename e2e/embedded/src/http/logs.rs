//! `kubectl logs`. A line of a container's log begins with its time.

use super::Server;
use super::answer::Answer;
use super::path::Objects;
use crate::api::refusal::Refusal;
use crate::api::text;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn answer(server: &Server, at: &Objects, query: &HashMap<String, String>) -> Result<Answer, Refusal> {
    let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let pods = server.with(|a| a.kind("", "v1", "pods")).ok_or_else(Refusal::no_path)?;
    let (namespace, name) = (at.namespace.clone().unwrap_or_default(), at.name.clone().unwrap_or_default());
    let pod = server.with(|a| a.get(&pods, &namespace, &name))?;
    let names = |list: &str| -> Vec<String> {
        let list = pod.pointer(list).and_then(Value::as_array);
        list.into_iter().flatten().map(|c| text(c, "/name").to_owned()).collect()
    };
    let (mut all, first) = (names("/spec/initContainers"), names("/spec/containers"));
    all.extend(first.clone());
    let container = match of("container") {
        "" if first.len() == 1 => first[0].clone(),
        "" => {
            return Err(Refusal::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: {all:?}"
            )));
        }
        given if all.iter().any(|c| c == given) => given.to_owned(),
        given => return Err(Refusal::bad_request(format!("container {given} is not valid for pod {name}"))),
    };
    let folder = server.shared.logs.join(text(&pod, "/metadata/uid")).join(&container);
    let previous = matches!(of("previous"), "1" | "true");
    let file = newest(&folder, usize::from(previous)).ok_or_else(|| {
        let which = if previous { "previous terminated container" } else { "container" };
        Refusal::bad_request(format!("{which} {container:?} in pod {name:?} is waiting to start"))
    })?;
    let since = match (of("sinceTime"), of("sinceSeconds").parse::<i64>()) {
        ("", Ok(seconds)) => Some(crate::clock::now() - jiff::SignedDuration::from_secs(seconds)),
        ("", Err(_)) => None,
        (time, _) => Some(time.parse::<Timestamp>().map_err(|e| Refusal::bad_request(format!("sinceTime: {e}")))?),
    };
    let stamps = matches!(of("timestamps"), "1" | "true");
    let whole = fs::read_to_string(&file).unwrap_or_default();
    let end = whole.rfind('\n').map_or(0, |i| i + 1);
    let lines: Vec<&str> =
        whole[..end].lines().filter(|l| since.is_none_or(|s| time(l).is_none_or(|t| t >= s))).collect();
    let skip = of("tailLines").parse().map_or(0, |n: usize| lines.len().saturating_sub(n));
    let first: Bytes = lines[skip..].iter().map(|l| shown(l, stamps)).collect::<String>().into();
    if !matches!(of("follow"), "1" | "true") {
        return Ok(Answer::Text(first));
    }
    // Until the container's next life begins, or the pod is gone.
    let stream = futures::stream::unfold((Some(first), end), move |(first, from)| {
        let (file, folder) = (file.clone(), folder.clone());
        async move {
            if let Some(first) = first {
                return Some((first, (None, from)));
            }
            loop {
                tokio::time::sleep(LOOK).await;
                let whole = fs::read_to_string(&file).ok()?;
                let end = whole.rfind('\n').map_or(0, |i| i + 1);
                if end > from {
                    let new = whole[from..end].lines().map(|l| shown(l, stamps)).collect::<String>();
                    return Some((new.into(), (None, end)));
                }
                if newest(&folder, 0).as_ref() != Some(&file) {
                    return None;
                }
            }
        }
    });
    Ok(Answer::Stream(Box::pin(stream), "text/plain"))
}

/// The log of the container's last life, or of the one before.
fn newest(folder: &Path, back: usize) -> Option<PathBuf> {
    let mut files: Vec<(u32, PathBuf)> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|e| Some((e.path().file_stem()?.to_str()?.parse().ok()?, e.path())))
        .collect();
    files.sort();
    files.into_iter().rev().nth(back).map(|(_, path)| path)
}

fn time(line: &str) -> Option<Timestamp> {
    line.split_once(' ')?.0.parse().ok()
}

fn shown(line: &str, stamps: bool) -> String {
    let words = line.split_once(' ').map_or("", |(_, words)| words);
    if stamps { format!("{line}\n") } else { format!("{words}\n") }
}

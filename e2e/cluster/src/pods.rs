//! Containers of pods, from outside: their processes, and hanging them.

use crate::node::group;
use crate::{Cgroups, Cluster, host, mark};
use anyhow::Context;
use serde_json::Value;
use std::path::PathBuf;

/// The id of a container of a pod, the first one when none is named.
fn container_id<'a>(pod: &'a Value, container: Option<&str>) -> Option<&'a str> {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let all = lists.iter().filter_map(|list| pod["status"][*list].as_array()).flatten();
    let mut named = all.filter(|c| container.is_none_or(|name| c["name"] == name));
    named.next()?["containerID"].as_str()?.split_once("://").map(|(_, id)| id)
}

impl Cluster {
    /// The control group of a container.
    fn group_of(&self, namespace: &str, pod: &str, container: Option<&str>) -> anyhow::Result<PathBuf> {
        let what = || format!("container {} of pod {namespace}/{pod}", container.unwrap_or("(the first)"));
        let object = self.get(&["-n", namespace, "pod", pod])?;
        let node = object["spec"]["nodeName"].as_str().with_context(|| format!("{} has no node yet", what()))?;
        let id = container_id(&object, container).with_context(|| format!("there is no {}", what()))?;
        let cgroups = Cgroups::detect(host::CGROUPS.as_ref())?;
        let found = cgroups.container(&group(self.name()), node, id);
        found.with_context(|| format!("{} does not run on {node}", what()))
    }

    /// The id of the main process of a container, as seen from outside. The first container when none is named.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, namespace: &str, pod: &str, container: Option<&str>) -> anyhow::Result<u32> {
        let group = self.group_of(namespace, pod, container)?;
        let all = Cgroups::detect(host::CGROUPS.as_ref())?.processes(&group);
        // The one that is PID 1 in there; in a shared process namespace, the first.
        let main = all.iter().find(|pid| mark::ids(**pid).last() == Some(&1)).or_else(|| all.first());
        let main = main.with_context(|| format!("there is no process in {}", group.display()))?;
        Ok(u32::try_from(*main)?)
    }

    /// Hangs all processes of a container: it takes connections and answers nothing. The first container when none is named.
    ///
    /// # Errors
    /// When it does not run, or it does not happen within 5 s.
    pub fn freeze(&self, namespace: &str, pod: &str, container: Option<&str>) -> anyhow::Result<()> {
        Cgroups::detect(host::CGROUPS.as_ref())?.freeze(&self.group_of(namespace, pod, container)?, true)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// As [`Cluster::freeze`].
    pub fn thaw(&self, namespace: &str, pod: &str, container: Option<&str>) -> anyhow::Result<()> {
        Cgroups::detect(host::CGROUPS.as_ref())?.freeze(&self.group_of(namespace, pod, container)?, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_have_ids() {
        let pod = json!({ "status": {
            "containerStatuses": [{ "name": "a", "containerID": "containerd://1" }, { "name": "b" }],
            "initContainerStatuses": [{ "name": "agent", "containerID": "containerd://2" }],
        }});
        assert_eq!(container_id(&pod, None), Some("1"));
        assert_eq!(container_id(&pod, Some("agent")), Some("2"));
        assert_eq!(container_id(&pod, Some("b")), None);
        assert_eq!(container_id(&pod, Some("c")), None);
    }
}

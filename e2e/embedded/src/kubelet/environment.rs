//! A container's environment.

use crate::api::text;
use serde_json::Value;

/// What a field reference means.
pub(super) fn field(pod: &Value, path: &str) -> String {
    if let Some((list, key)) = path.split_once("['") {
        let key = key.trim_end_matches("']");
        return text(
            &pod[list.split('.').next().unwrap_or_default()][list.split('.').nth(1).unwrap_or_default()],
            &format!("/{}", key.replace('/', "~1")),
        )
        .to_owned();
    }
    text(pod, &format!("/{}", path.replace('.', "/"))).to_owned()
}

/// The environment of a container. `pod` has its addresses already.
pub(super) fn of(pod: &Value, container: &Value, path: &str, api: (&str, u16)) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = vec![
        ("PATH".into(), path.to_owned()),
        ("HOSTNAME".into(), text(pod, "/spec/hostname").to_owned()),
        ("HOME".into(), "/".into()),
        ("KUBERNETES_SERVICE_HOST".into(), api.0.to_owned()),
        ("KUBERNETES_SERVICE_PORT".into(), api.1.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS".into(), api.1.to_string()),
    ];
    for one in container["env"].as_array().into_iter().flatten() {
        let value = match one.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str) {
            Some(path) => field(pod, path),
            None => text(one, "/value").to_owned(),
        };
        env.push((text(one, "/name").to_owned(), value));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields() {
        let pod = json!({"metadata": {"name": "p", "labels": {"a/b": "c"}}, "status": {"podIP": "1.2.3.4"}});
        assert_eq!(field(&pod, "status.podIP"), "1.2.3.4");
        assert_eq!(field(&pod, "metadata.labels['a/b']"), "c");
        let container = json!({"env": [
            {"name": "A", "value": "x"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
        let env = of(&pod, &container, "/bin", ("h", 1));
        assert!(env.contains(&("A".into(), "x".into())) && env.contains(&("B".into(), "p".into())));
    }
}

//! What a path and its parameters mean.

use std::collections::HashMap;

/// A path that names objects.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Objects {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: String,
}

/// What a path means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Path {
    Objects(Objects),
    /// `/version`, `/api`, `/apis`, `/openapi/v3…`, with its steps.
    Other(Vec<String>),
}

/// Takes a path apart.
pub(super) fn parse(path: &str) -> Path {
    let steps: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(decode).collect();
    let (group, rest) = match steps.first().map(String::as_str) {
        Some("api") if steps.len() > 2 => (String::new(), &steps[1..]),
        Some("apis") if steps.len() > 3 => (steps[1].clone(), &steps[2..]),
        _ => return Path::Other(steps),
    };
    let version = rest[0].clone();
    let rest = &rest[1..];
    let mut objects = Objects { group, version, ..Objects::default() };
    // A namespace's own subresources are two words after it, as are the kinds in it: it has `status` and `finalize`.
    let inside = rest.len() > 2 && rest[0] == "namespaces" && !matches!(rest[2].as_str(), "status" | "finalize");
    let rest = if inside {
        objects.namespace = Some(rest[1].clone());
        &rest[2..]
    } else {
        rest
    };
    objects.plural = rest[0].clone();
    objects.name = rest.get(1).cloned();
    objects.subresource = rest.get(2).cloned().unwrap_or_default();
    if rest.len() > 3 { Path::Other(steps) } else { Path::Objects(objects) }
}

/// The parameters of a query.
pub(super) fn query(text: Option<&str>) -> HashMap<String, String> {
    let pairs = text.unwrap_or_default().split('&').filter(|p| !p.is_empty());
    pairs
        .map(|p| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            (decode(name), decode(&value.replace('+', " ")))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (vec![], 0);
    while i < bytes.len() {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[i], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(path: &str) -> (String, String, Option<String>, Option<String>, String) {
        match parse(path) {
            Path::Objects(o) => (o.group, o.plural, o.namespace, o.name, o.subresource),
            Path::Other(steps) => (String::new(), steps.join("|"), None, None, "other".into()),
        }
    }

    #[test]
    fn paths() {
        let some = |s: &str| Some(s.to_owned());
        let own = |a: &str, b: &str, c, d, e: &str| (a.to_owned(), b.to_owned(), c, d, e.to_owned());
        assert_eq!(objects("/api/v1/pods"), own("", "pods", None, None, ""));
        assert_eq!(objects("/api/v1/namespaces/a/pods/p/log"), own("", "pods", some("a"), some("p"), "log"));
        assert_eq!(objects("/api/v1/namespaces/a"), own("", "namespaces", None, some("a"), ""));
        assert_eq!(objects("/api/v1/namespaces/a/status"), own("", "namespaces", None, some("a"), "status"));
        assert_eq!(
            objects("/apis/pgconvoy.dev/v1alpha1/namespaces/a/pgreplicasets/s/scale"),
            own("pgconvoy.dev", "pgreplicasets", some("a"), some("s"), "scale")
        );
        for other in ["/api", "/api/v1", "/apis", "/apis/policy", "/apis/policy/v1", "/version", "/openapi/v3/api/v1"] {
            assert_eq!(objects(other).4, "other", "{other}");
        }
        let q = query(Some("labelSelector=a%3Db%2Cc&watch=1&x=a+b"));
        assert_eq!((q["labelSelector"].as_str(), q["watch"].as_str(), q["x"].as_str()), ("a=b,c", "1", "a b"));
    }
}

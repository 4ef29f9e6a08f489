//! How the parts of an object merge: which lists are taken whole, which have items that belong to different managers.

use super::schema::Schema;
use serde_json::Value;
use std::collections::BTreeMap;

/// How one part merges.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Shape {
    /// One value with one owner, however it looks inside.
    Atomic,
    /// Field by field; what is not named merges as `other` says. Lists in it that are not named are atomic.
    #[default]
    Plain,
    /// Field by field, with what is known of some.
    Fields(BTreeMap<String, Shape>, Option<Box<Shape>>),
    /// A list of items that are told apart by some of their fields, which have these defaults.
    ListMap(Vec<(String, Option<Value>)>, Box<Shape>),
    /// A list of values, each of which is there or not.
    Set,
}

impl Shape {
    /// The shape of a field.
    pub fn field(&self, name: &str) -> &Shape {
        match self {
            Shape::Fields(known, other) => known.get(name).or(other.as_deref()).unwrap_or(&Shape::Plain),
            _ => &Shape::Plain,
        }
    }

    /// Whether the field is one of a fixed number that the kind has, not an entry of a map.
    pub fn names(&self, name: &str) -> bool {
        matches!(self, Shape::Fields(known, _) if known.contains_key(name))
    }

    /// Adds what is known of a path: `spec.containers` or, through a list's items, `spec.containers.*.env`.
    fn insert(&mut self, path: &[&str], leaf: Shape) {
        let Some((first, rest)) = path.split_first() else {
            *self = match (std::mem::take(self), leaf) {
                // What is known of the items stays.
                (Shape::ListMap(_, item), Shape::ListMap(keys, _)) => Shape::ListMap(keys, item),
                (_, leaf) => leaf,
            };
            return;
        };
        if *first == "*" {
            if !matches!(self, Shape::ListMap(..)) {
                *self = Shape::ListMap(vec![], Box::default());
            }
            if let Shape::ListMap(_, item) = self {
                item.insert(rest, leaf);
            }
            return;
        }
        if !matches!(self, Shape::Fields(..)) {
            *self = Shape::Fields(BTreeMap::new(), None);
        }
        if let Shape::Fields(known, _) = self {
            known.entry((*first).to_owned()).or_default().insert(rest, leaf);
        }
    }
}

/// `path=keys` for a list by keys (`key:default`), `path=atomic`, `path=set`, `path` for a plain field.
fn parse(shape: &mut Shape, lines: &str) {
    for line in lines.split_whitespace() {
        let (path, what) = line.split_once('=').unwrap_or((line, ""));
        let path: Vec<&str> = path.split('.').collect();
        let leaf = match what {
            "" => Shape::Plain,
            "atomic" => Shape::Atomic,
            "set" => Shape::Set,
            keys => Shape::ListMap(keys.split(',').map(key).collect(), Box::default()),
        };
        shape.insert(&path, leaf);
    }
}

fn key(text: &str) -> (String, Option<Value>) {
    match text.split_once(':') {
        Some((name, default)) => (name.to_owned(), Some(Value::String(default.to_owned()))),
        None => (text.to_owned(), None),
    }
}

/// What every object has.
const METADATA: &str = "apiVersion kind metadata.labels metadata.annotations metadata.ownerReferences=uid metadata.ownerReferences.*=atomic \
    metadata.finalizers=set metadata.generateName";

/// The parts of a container.
fn container(at: &str) -> String {
    let parts = "env=name env.*.valueFrom.fieldRef=atomic env.*.valueFrom.secretKeyRef=atomic \
        env.*.valueFrom.configMapKeyRef=atomic env.*.valueFrom.resourceFieldRef=atomic \
        ports=containerPort,protocol:TCP volumeMounts=mountPath volumeDevices=devicePath";
    parts.split_whitespace().map(|p| format!("{at}.*.{p} ")).collect()
}

/// The shape of one of Kubernetes' own kinds. Lists that are not named are atomic, maps that are not named are plain.
pub fn of_built_in(kind: &str) -> Shape {
    let mut shape = Shape::default();
    parse(&mut shape, METADATA);
    let containers = container("spec.containers") + &container("spec.initContainers");
    let of_kind = match kind {
        "Pod" => {
            "spec.containers=name spec.initContainers=name spec.ephemeralContainers=name spec.volumes=name \
             spec.imagePullSecrets=name spec.hostAliases=ip spec.topologySpreadConstraints=topologyKey,whenUnsatisfiable \
             spec.topologySpreadConstraints.*.labelSelector=atomic spec.nodeSelector=atomic \
             status.conditions=type status.podIPs=ip status.hostIPs=atomic"
        }
        "Service" => "spec.ports=port,protocol:TCP spec.selector=atomic status.conditions=type status.loadBalancer",
        "PodDisruptionBudget" => "spec.selector=atomic status.conditions=type",
        "PersistentVolumeClaim" => "spec.selector=atomic spec.dataSource=atomic status.conditions=type",
        "RoleBinding" | "ClusterRoleBinding" => "roleRef=atomic",
        "ServiceAccount" => "secrets=name imagePullSecrets=atomic",
        "Event" => "involvedObject=atomic regarding=atomic related=atomic",
        "CustomResourceDefinition" => "status.conditions=type",
        _ => "spec",
    };
    parse(&mut shape, of_kind);
    if kind == "Pod" {
        parse(&mut shape, &containers);
    }
    shape
}

/// The shape of a custom kind.
pub fn of_schema(schema: &Schema) -> Shape {
    let mut shape = part(schema);
    parse(&mut shape, METADATA);
    shape
}

fn part(schema: &Schema) -> Shape {
    if schema.is_list() {
        return match schema.list_type() {
            "map" => {
                let item = schema.items();
                let default = |k: &str| item.as_ref().and_then(|i| i.property(k)?.default().cloned());
                let keys = schema.list_keys().into_iter().map(|k| (k.clone(), default(&k))).collect();
                Shape::ListMap(keys, Box::new(item.map_or(Shape::Plain, |i| part(&i))))
            }
            "set" => Shape::Set,
            _ => Shape::Atomic,
        };
    }
    if schema.atomic() {
        return Shape::Atomic;
    }
    let known: BTreeMap<String, Shape> = schema.properties().map(|(name, s)| (name.to_owned(), part(&s))).collect();
    let other = schema.additional().map(|s| Box::new(part(&s)));
    if known.is_empty() && other.is_none() { Shape::Plain } else { Shape::Fields(known, other) }
}

//! The kinds of objects that are served: those of Kubernetes that pgconvoy uses, and custom ones.

use super::schema::Schema;
use super::shape::{self, Shape};
use serde_json::Value;
use std::sync::Arc;

/// A column of what `kubectl get` prints.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its head.
    pub name: String,
    /// `string`, `integer` or `date`.
    pub kind: String,
    /// Where the cell is, as a JSONPath.
    pub path: String,
    /// Not 0: only with `-o wide`.
    pub priority: i64,
}

/// Where `kubectl scale` reads and writes.
#[derive(Debug, Clone)]
pub struct Scale {
    /// The number wanted, like `.spec.members`.
    pub spec: String,
    /// The number there.
    pub status: String,
    /// A label selector as text.
    pub selector: Option<String>,
}

/// One kind in one version.
#[derive(Debug, Clone)]
pub struct Kind {
    /// API group; empty for the core.
    pub group: String,
    /// Version in it.
    pub version: String,
    /// Like `Pod`.
    pub kind: String,
    /// Like `pods`.
    pub plural: String,
    /// Like `pod`.
    pub singular: String,
    /// Like `po`.
    pub short: Vec<String>,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// Whether `status` is written by itself.
    pub status: bool,
    /// Whether it can be scaled.
    pub scale: Option<Scale>,
    /// Whether `metadata.generation` counts changes of the specification.
    pub generation: bool,
    /// The schema of a custom kind.
    pub schema: Option<Arc<Schema>>,
    /// How its lists and maps merge.
    pub shape: Arc<Shape>,
    /// What `kubectl get` prints besides the name.
    pub columns: Vec<Column>,
    /// What it is stored as: two groups may serve the same objects.
    pub stored: String,
}

impl Kind {
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `pgterms.pgconvoy.dev`, as errors name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Pod` or `PgTerm.pgconvoy.dev`, as errors name it.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// Whether it was defined by a CustomResourceDefinition.
    pub fn custom(&self) -> bool {
        self.schema.is_some()
    }
}

/// group, version, kind, plural, short names, flags: n(amespaced), s(tatus), g(eneration)
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

const BUILT_IN: &[Row] = &[
    ("", "v1", "Namespace", "namespaces", "ns", "s"),
    ("", "v1", "Node", "nodes", "no", "s"),
    ("", "v1", "Pod", "pods", "po", "nsg"),
    ("", "v1", "Service", "services", "svc", "ns"),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", "n"),
    ("", "v1", "ConfigMap", "configmaps", "cm", "n"),
    ("", "v1", "Secret", "secrets", "", "n"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "ns"),
    ("", "v1", "PersistentVolume", "persistentvolumes", "pv", "s"),
    ("", "v1", "Event", "events", "ev", "n"),
    ("events.k8s.io", "v1", "Event", "events", "ev", "n"),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", "n"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "", "ng"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", "nsg"),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", "", "n"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "", "n"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "", ""),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "", ""),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", "sc", ""),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "crd,crds", "sg"),
];

/// What `kubectl get` prints of Kubernetes' own kinds.
fn columns(kind: &str) -> Vec<Column> {
    let list: &[(&str, &str, &str)] = match kind {
        // Cells that begin with `!` are computed, see `table`.
        "Pod" => {
            &[("Ready", "string", "!ready"), ("Status", "string", "!status"), ("Restarts", "integer", "!restarts")]
        }
        "Service" => &[("Type", "string", ".spec.type"), ("Cluster-IP", "string", ".spec.clusterIP")],
        "PersistentVolumeClaim" => &[
            ("Status", "string", ".status.phase"),
            ("Volume", "string", ".spec.volumeName"),
            ("Capacity", "string", ".status.capacity.storage"),
        ],
        "Lease" => &[("Holder", "string", ".spec.holderIdentity")],
        "Event" => &[
            ("Type", "string", ".type"),
            ("Reason", "string", ".reason"),
            ("Object", "string", ".involvedObject.name"),
            ("Message", "string", ".message"),
        ],
        "EndpointSlice" => &[("Endpoints", "string", "!endpoints")],
        "Node" => &[("Status", "string", "!node")],
        _ => &[],
    };
    let column = |(name, kind, path): &(&str, &str, &str)| Column {
        name: (*name).to_owned(),
        kind: (*kind).to_owned(),
        path: (*path).to_owned(),
        priority: 0,
    };
    let age =
        Column { name: "Age".into(), kind: "date".into(), path: ".metadata.creationTimestamp".into(), priority: 0 };
    list.iter().map(column).chain([age]).collect()
}

/// Kubernetes' own kinds.
pub fn built_in() -> Vec<Kind> {
    let one = |(group, version, kind, plural, short, flags): &Row| Kind {
        group: (*group).to_owned(),
        version: (*version).to_owned(),
        kind: (*kind).to_owned(),
        plural: (*plural).to_owned(),
        singular: kind.to_lowercase(),
        short: short.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        namespaced: flags.contains('n'),
        status: flags.contains('s'),
        generation: flags.contains('g'),
        scale: None,
        schema: None,
        shape: Arc::new(shape::of_built_in(kind)),
        columns: columns(kind),
        stored: match *kind {
            "Event" => "events".to_owned(),
            _ if group.is_empty() => (*plural).to_owned(),
            _ => format!("{plural}.{group}"),
        },
    };
    BUILT_IN.iter().map(one).collect()
}

/// The kinds that a CustomResourceDefinition defines: one for each version that is served.
///
/// # Errors
/// A sentence, when it is not one.
pub fn of_definition(definition: &Value) -> Result<Vec<Kind>, String> {
    let text = |at: &str| {
        let found = definition.pointer(at).and_then(Value::as_str);
        found.map(str::to_owned).ok_or_else(|| format!("{}: Required value", at[1..].replace('/', ".")))
    };
    let (group, kind, plural) = (text("/spec/group")?, text("/spec/names/kind")?, text("/spec/names/plural")?);
    let singular = text("/spec/names/singular").unwrap_or_else(|_| kind.to_lowercase());
    let strings =
        |v: &Value| v.as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect();
    let mut kinds = vec![];
    for version in definition.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten() {
        if version["served"] == false {
            continue;
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            return Err("spec.versions.schema.openAPIV3Schema: Required value: schemas are required".to_owned());
        }
        let schema = Schema::root(schema);
        let path = |p: &Value| p.as_str().unwrap_or_default().to_owned();
        let scale = version.pointer("/subresources/scale").filter(|s| s.is_object()).map(|s| Scale {
            spec: path(&s["specReplicasPath"]),
            status: path(&s["statusReplicasPath"]),
            selector: s["labelSelectorPath"].as_str().map(str::to_owned),
        });
        let column = |c: &Value| Column {
            name: path(&c["name"]),
            kind: path(&c["type"]),
            path: path(&c["jsonPath"]),
            priority: c["priority"].as_i64().unwrap_or_default(),
        };
        let mut columns: Vec<Column> =
            version["additionalPrinterColumns"].as_array().into_iter().flatten().map(column).collect();
        if columns.is_empty() {
            columns = self::columns("");
        }
        kinds.push(Kind {
            group: group.clone(),
            version: path(&version["name"]),
            kind: kind.clone(),
            plural: plural.clone(),
            singular: singular.clone(),
            short: strings(&definition["spec"]["names"]["shortNames"]),
            namespaced: definition["spec"]["scope"] == "Namespaced",
            status: version.pointer("/subresources/status").is_some_and(Value::is_object),
            scale,
            generation: true,
            shape: Arc::new(shape::of_schema(&schema)),
            schema: Some(Arc::new(schema)),
            columns,
            stored: format!("{plural}.{group}"),
        });
    }
    Ok(kinds)
}

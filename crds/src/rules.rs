//! What the API server checks: CEL rules, each with the sentence that its violator reads, and the bounds without which it
//! could not afford the rules.
//!
//! A path names a place in the schema: `spec.storage`, `spec.postgresql.hba[]` (each entry), `spec.services.rw.annotations{}`
//! (each value); the empty path is the whole object.

use crate::parameters::{
    Allowed, NAME_LIMIT, NAME_PATTERN, OWN_PREFIX, OWN_PREFIX_SENTENCE, SYNTAX, limited_parameters, owned_parameters,
};
use pgconvoy_terms::MemberName;
use serde_json::{Value, json};

/// A CEL rule at a place of the schema.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// The place whose value is `self`.
    pub(crate) path: &'static str,
    /// What must be true.
    pub(crate) expression: String,
    /// What is said when it is not.
    pub(crate) message: String,
}

fn rule(path: &'static str, expression: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule { path, expression: expression.into(), message: message.into() }
}

/// That an optional field stays as it is, absent or present. (`self.?field == oldSelf.?field` says the same, but the API
/// server reckons its cost without bounds.)
fn same(field: &str) -> String {
    format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})")
}

/// The greatest number of members.
pub(crate) const MEMBERS_LIMIT: usize = 64;

/// Maps of labels and annotations.
const LABELS: &str = "spec.podTemplate.labels";
const SERVICES: [&str; 3] =
    ["spec.services.rw.annotations", "spec.services.ro.annotations", "spec.services.r.annotations"];

/// The rules of a PgReplicaSet.
pub(crate) fn replica_set() -> Vec<Rule> {
    let mut rules = vec![
        rule(
            "",
            format!("self.metadata.name.size() <= {}", MemberName::SET_LIMIT),
            format!(
                "a replica set's name may have {} characters, so that the names of its members and what belongs to them fit",
                MemberName::SET_LIMIT
            ),
        ),
        rule(
            "",
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "a replica set's name is a letter, then letters, digits and dashes, all lower case, without dots: its Services \
             and pods are named after it",
        ),
    ];
    rules.extend(durability());
    rules.extend(image());
    rules.extend(storage());
    rules.extend(bootstrap());
    rules.extend(parameters());
    rules.extend(hba());
    rules.extend(pods());
    rules
}

fn durability() -> [Rule; 6] {
    [
        rule(
            "spec.members",
            format!("self >= 1 && self <= {MEMBERS_LIMIT}"),
            format!("members may be 1 to {MEMBERS_LIMIT}: a set has at least its leader"),
        ),
        rule("spec.durability.acknowledgements", "self >= 0", "acknowledgements cannot be less than 0"),
        rule(
            "spec",
            "self.?durability.?acknowledgements.orValue(0) < self.members || self.members < 1",
            "spec.durability.acknowledgements must be less than spec.members: a commit can wait for the followers only, \
             which are one less than the members (a single member: 0)",
        ),
        rule(
            "spec.durability",
            "self.?mode.orValue('quorum') != 'async' || self.?acknowledgements.orValue(0) <= 0",
            "with mode: async no commit waits for a follower; leave acknowledgements out, or choose mode: quorum",
        ),
        rule(
            "spec.durability",
            "self.?mode.orValue('quorum') != 'async' || !has(self.whenShort)",
            "with mode: async no commit waits for a follower, so none can be short of them; leave whenShort out",
        ),
        rule(
            "spec",
            "self.members <= 1 || self.?durability.?mode.orValue('quorum') != 'quorum' || \
             self.?durability.?acknowledgements.orValue(1) != 0",
            "mode: quorum with followers needs at least 1 acknowledgement; choose mode: async if commits shall not wait",
        ),
    ]
}

fn image() -> [Rule; 3] {
    // Only the official names tell: postgres:17.5-bookworm, registry/postgresql:17. Tags of other images may count anything.
    let tells = "^(.*/)?postgres(ql)?:[0-9]+([^0-9].*)?$";
    let served = "^(.*/)?postgres(ql)?:(15|16|17|18)([^0-9].*)?$";
    let major = |whose: &str| format!("{whose}.find('postgres(ql)?:[0-9]+').find(':[0-9]+$')");
    [
        rule(
            "spec.image",
            "self.matches('^[^ \\t\\r\\n]+$')",
            "an image is a reference like docker.io/library/postgres:17",
        ),
        rule(
            "spec.image",
            format!("!self.matches('{tells}') || self.matches('{served}')"),
            "pgconvoy runs PostgreSQL 15, 16, 17 and 18; the image's tag says another version",
        ),
        rule(
            "spec.image",
            format!("{old} == '' || {new} == '' || {old} == {new}", old = major("oldSelf"), new = major("self")),
            "another major version of PostgreSQL cannot read this set's data; make a new set and move the data with pg_dump \
             or logical replication",
        ),
    ]
}

fn storage() -> [Rule; 3] {
    [
        rule(
            "spec.storage.size",
            "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))",
            "storage.size is a quantity greater than 0, like 20Gi",
        ),
        rule(
            "spec.storage.size",
            "!isQuantity(string(self)) || !isQuantity(string(oldSelf)) || \
             quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
            "storage.size can grow, not shrink: no volume can be made smaller; make a new set with smaller volumes and move \
             the data",
        ),
        rule(
            "spec.storage",
            same("storageClassName"),
            "storage.storageClassName cannot be changed: volumes stay in the class they were made in",
        ),
    ]
}

fn bootstrap() -> Vec<Rule> {
    let reserved = "self.startsWith('pg_') || self.startsWith('pgconvoy')";
    let name = "self.matches('^[A-Za-z_][A-Za-z0-9_-]*$')";
    vec![
        rule(
            "spec",
            same("bootstrap"),
            "spec.bootstrap says how the first data came to be, so it cannot be added, changed or removed afterwards",
        ),
        rule(
            "spec.bootstrap",
            "[has(self.initdb), has(self.fromArchive), has(self.adopt)].filter(x, x).size() == 1",
            "bootstrap has one of initdb, fromArchive and adopt: the first data comes from one place",
        ),
        rule(
            "spec.bootstrap.adopt.systemId",
            "self.matches('^[0-9]{1,20}$')",
            "adopt.systemId is the number that the condition ForeignVolume shows",
        ),
        rule(
            "spec.bootstrap.fromArchive.snapshot",
            "self.matches('^[A-Za-z0-9-]+$')",
            "fromArchive.snapshot is the name of a snapshot: letters, digits and dashes",
        ),
        rule(
            "spec.bootstrap.fromArchive.prefix",
            "self.matches('^[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*$')",
            "fromArchive.prefix is what the keys begin with, like <namespace>/<replica set>, without a slash at its ends",
        ),
        rule(
            "spec.bootstrap.fromArchive.target",
            "[has(self.time), has(self.lsn), has(self.xid), has(self.name), has(self.immediate)].filter(x, x).size() == 1",
            "a target has one of time, lsn, xid, name and immediate; leave it out to restore all that is archived",
        ),
        rule(
            "spec.bootstrap.fromArchive.target.immediate",
            "self",
            "target.immediate is true or left out; leave the target out to restore all that is archived",
        ),
        rule(
            "spec.bootstrap.fromArchive.target.lsn",
            "self.matches('^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$')",
            "target.lsn is a position like 0/3000148",
        ),
        rule(
            "spec.bootstrap.fromArchive.target.xid",
            "self.matches('^[0-9]{1,10}$')",
            "target.xid is a transaction's number",
        ),
        rule(
            "spec.runAsUser",
            "self >= 1 && self <= 2147483647",
            "runAsUser is a user id from 1 up (999 in Debian images, 70 in Alpine ones): PostgreSQL refuses to run as root",
        ),
        rule(
            "spec",
            "self.?runAsUser.orValue(999) == oldSelf.?runAsUser.orValue(999)",
            "spec.runAsUser cannot be changed: the files on the volumes belong to that user",
        ),
        rule(
            "spec.bootstrap.initdb.database",
            format!("{name} && !({reserved}) && !(self in ['postgres', 'template0', 'template1'])"),
            "the application database's name is a letter or _, then letters, digits, _ and -; postgres, template0, template1 \
             and names that begin with pg_ or pgconvoy are taken",
        ),
        rule(
            "spec.bootstrap.initdb.owner",
            format!("{name} && !({reserved}) && self != 'postgres'"),
            "the owner's name is a letter or _, then letters, digits, _ and -; postgres and names that begin with pg_ or \
             pgconvoy are taken",
        ),
        rule(
            "spec.bootstrap.initdb.locale",
            "self.matches('^[A-Za-z0-9][A-Za-z0-9_.@-]*$')",
            "initdb.locale is a locale's name, like C.UTF-8 or de_DE.UTF-8",
        ),
        rule(
            "spec.bootstrap.initdb.encoding",
            "self.matches('^[A-Za-z][A-Za-z0-9_]*$')",
            "initdb.encoding is an encoding's name, like UTF8",
        ),
    ]
}

fn parameters() -> Vec<Rule> {
    const PARAMETERS: &str = "spec.postgresql.parameters";
    let mut rules = vec![
        rule(
            PARAMETERS,
            format!("self.all(name, name.size() <= {NAME_LIMIT} && name.matches('{NAME_PATTERN}'))"),
            SYNTAX,
        ),
        rule(PARAMETERS, format!("self.all(name, !name.startsWith('{OWN_PREFIX}'))"), OWN_PREFIX_SENTENCE),
        rule(PARAMETERS, "self.all(name, !string(self[name]).matches('[\\r\\n]'))", "a parameter's value is one line"),
    ];
    rules.extend(owned_parameters().iter().map(|o| rule(PARAMETERS, format!("!('{}' in self)", o.name), o.sentence())));
    rules.extend(limited_parameters().iter().map(|l| {
        let value = format!("string(self['{}'])", l.name);
        let holds = match l.allowed {
            Allowed::OneOf(words) => {
                let words: Vec<_> = words.iter().map(|w| format!("'{w}'")).collect();
                format!("{value} in [{}]", words.join(", "))
            }
            Allowed::AtLeast(least) => format!("({value}.matches('^[0-9]{{1,9}}$') && int({value}) >= {least})"),
        };
        rule(PARAMETERS, format!("!('{}' in self) || {holds}", l.name), l.sentence())
    }));
    rules
}

fn hba() -> [Rule; 3] {
    const LINE: &str = "spec.postgresql.hba[]";
    [
        rule(
            LINE,
            // One line: a line break would smuggle in a second one, a backslash at the end swallow the next.
            "self.matches('^(local|host|hostssl|hostnossl|hostgssenc|hostnogssenc)[ \\t]+[^\\r\\n]*[^\\r\\n\\\\\\\\]$')",
            "a line of hba begins with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc, and is one line",
        ),
        rule(
            LINE,
            "!self.matches('(^|[ \\t,\"])(replication|pgconvoy[A-Za-z0-9_]*)([ \\t,\"]|$)')",
            "a line of hba may not name the database replication nor pgconvoy's own roles: pgconvoy writes their lines itself",
        ),
        rule(
            LINE,
            "!self.matches('(^|[ \\t,])@')",
            "a line of hba may not take names from a file (@file): there is none in the pod",
        ),
    ]
}

fn pods() -> Vec<Rule> {
    let mut rules = vec![
        rule(
            "spec.stopTimeoutSeconds",
            "self >= 10 && self <= 3600",
            "stopTimeoutSeconds may be 10 to 3600: with less PostgreSQL is killed before it could hand over and stop",
        ),
        rule(
            "spec.resources",
            "!has(self.claims) || self.claims.size() == 0",
            "resources.claims are not supported: a database pod has no resource claims",
        ),
        rule(
            LABELS,
            "self.all(key, !format.qualifiedName().validate(key).hasValue() && \
             !format.labelValue().validate(self[key]).hasValue())",
            "podTemplate.labels has a key or a value that is no label",
        ),
        rule(
            "spec.podTemplate.annotations",
            "self.all(key, !format.qualifiedName().validate(key.lowerAscii()).hasValue())",
            "podTemplate.annotations has a key that is none",
        ),
    ];
    for path in [LABELS, "spec.podTemplate.annotations"].into_iter().chain(SERVICES) {
        rules.push(rule(
            path,
            "self.all(key, !key.startsWith('pgconvoy.dev/'))",
            "labels and annotations that begin with pgconvoy.dev/ are pgconvoy's own",
        ));
    }
    rules
}

/// The rules of a PgArchive.
pub(crate) fn archive() -> Vec<Rule> {
    vec![
        rule(
            "spec.bucket",
            "self.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')",
            "bucket is the name of a bucket, 3 to 63 lower-case letters, digits, dots and dashes, without s3:// and folders",
        ),
        rule(
            "spec.prefix",
            "self.matches('^[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*$')",
            "prefix is words of letters, digits and . _ = - with single slashes between them, none at its ends; leave it out \
             for <namespace>/<replica set>",
        ),
        rule(
            "spec.endpoint",
            "self.matches('^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$') || self.matches('^https?://\\\\[[0-9a-fA-F:]+\\\\](:[0-9]{1,5})?$')",
            "endpoint is http:// or https://, a host and if need be a port, like https://s3.example.com:9000; bucket and \
             prefix have fields of their own",
        ),
        rule("spec.region", "self.matches('^[a-z0-9-]+$')", "region is a name like eu-central-1"),
        rule(
            "spec",
            "!has(self.ca) || !has(self.endpoint) || self.endpoint.startsWith('https://')",
            "with an endpoint that begins with http:// there is no certificate to check; use https://, or leave ca out",
        ),
        rule(
            "spec.credentials",
            "[has(self.accessKeyId) || has(self.secretAccessKey) || has(self.sessionToken), has(self.webIdentity), \
             has(self.podIdentity), has(self.instanceRole)].filter(x, x).size() == 1",
            "credentials are one of: accessKeyId and secretAccessKey, webIdentity, podIdentity, instanceRole",
        ),
        rule(
            "spec.credentials",
            "has(self.accessKeyId) == has(self.secretAccessKey) && (!has(self.sessionToken) || has(self.accessKeyId))",
            "credentials.accessKeyId and credentials.secretAccessKey belong together, and sessionToken goes with them",
        ),
        rule(
            "spec.credentials.webIdentity.roleArn",
            "self.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$')",
            "credentials.webIdentity.roleArn is a role like arn:aws:iam::111122223333:role/backups",
        ),
        rule(
            "spec.maxDelaySeconds",
            "self >= 1 && self <= 300",
            "maxDelaySeconds may be 1 to 300: so much may be lost with the whole cluster",
        ),
        rule(
            "spec.serverSideEncryption",
            "self.type == 'SSE-KMS' || !has(self.kmsKeyId)",
            "serverSideEncryption.kmsKeyId goes with type SSE-KMS only: with SSE-S3 the store has keys of its own",
        ),
        rule(
            "spec.serverSideEncryption.kmsKeyId",
            "self.matches('^[A-Za-z0-9:/_-]+$')",
            "kmsKeyId is a key's ARN, its id, or alias/ and its name",
        ),
        rule(
            "spec.storageClass",
            "self.matches('^[A-Za-z0-9_-]+$')",
            "storageClass is one word of the store's, like STANDARD_IA",
        ),
        rule(
            "spec.storageClass",
            "!(self in ['GLACIER', 'DEEP_ARCHIVE'])",
            "objects of the classes GLACIER and DEEP_ARCHIVE are read hours after one has asked for them, so nothing could be \
             restored: choose one that is read at once, like STANDARD_IA or GLACIER_IR",
        ),
        rule(
            "spec.tags",
            "self.all(key, key.size() <= 128 && key.matches('^[\\\\p{L}\\\\p{N} _.:/=+@-]+$') && !key.startsWith('aws:') && \
             self[key].matches('^[\\\\p{L}\\\\p{N} _.:/=+@-]*$'))",
            "tags have keys of 1 to 128 and values of up to 256 letters, digits, spaces and _ . : / = + - @, and no key begins \
             with aws:",
        ),
        rule(
            "spec.snapshots.maxBytesPerSecond",
            "self >= 1048576",
            "snapshots.maxBytesPerSecond is 1048576 (1 MiB) at least: with less a snapshot hardly comes to its end; leave it out to \
             read as fast as it goes",
        ),
        rule(
            "spec.retention",
            "has(self.days) || has(self.snapshots)",
            "retention says days, snapshots or both; leave it out to keep everything",
        ),
        rule("spec.retention.days", "self >= 1 && self <= 36500", "retention.days may be 1 to 36500"),
        rule(
            "spec.retention.snapshots",
            "self >= 1 && self <= 10000",
            "retention.snapshots may be 1 to 10000: the newest complete snapshot is never removed",
        ),
    ]
}

/// The rules of a PgRequest.
pub(crate) fn request() -> Vec<Rule> {
    vec![
        rule(
            "spec",
            "[has(self.switchover), has(self.takeover), has(self.repair)].filter(x, x).size() == 1",
            "a request is one deed: switchover, takeover or repair",
        ),
        rule("spec", "self == oldSelf", "a request cannot be changed: make another"),
        rule(
            "spec",
            "!has(self.switchover) || !has(self.switchover.to) || self.switchover.to.matches('^' + self.set + '-[1-9][0-9]*$')",
            "switchover.to is a member of the set, like orders-2 of orders",
        ),
        rule("spec.takeover.epoch", "self >= 1", "epoch is the number that kubectl get pgrs shows, 1 or more"),
    ]
}

/// Bounds of a PgRequest.
pub(crate) fn request_bounds() -> Vec<(&'static str, Value)> {
    let text = |limit: usize| json!({ "minLength": 1, "maxLength": limit });
    vec![("spec.set", text(63)), ("spec.switchover.to", text(80))]
}

/// Bounds of a PgArchive.
pub(crate) fn archive_bounds() -> Vec<(&'static str, Value)> {
    let text = |limit: usize| json!({ "minLength": 1, "maxLength": limit });
    let mut bounds = vec![
        ("spec.bucket", text(63)),
        ("spec.prefix", text(512)),
        ("spec.endpoint", text(512)),
        ("spec.region", text(64)),
        ("spec.credentials.webIdentity.roleArn", text(2048)),
        ("spec.serverSideEncryption.kmsKeyId", text(2048)),
        ("spec.storageClass", text(64)),
        // As many as S3 has for an object.
        ("spec.tags", json!({ "maxProperties": 10 })),
        ("spec.tags{}", json!({ "maxLength": 256 })),
        ("status.sets", json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["set"] })),
    ];
    for path in [
        "spec.credentials.accessKeyId.name",
        "spec.credentials.accessKeyId.key",
        "spec.credentials.secretAccessKey.name",
        "spec.credentials.secretAccessKey.key",
        "spec.credentials.sessionToken.name",
        "spec.credentials.sessionToken.key",
        "spec.ca.name",
        "spec.ca.key",
    ] {
        bounds.push((path, text(253)));
    }
    bounds
}

/// The rules of a PgSnapshot.
pub(crate) fn snapshot() -> Vec<Rule> {
    vec![
        rule(
            "",
            "self.metadata.name.size() <= 60 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "a snapshot's name is at most 60 lower-case letters, digits and dashes: it is the name of its folder in the archive",
        ),
        rule("spec", "self == oldSelf", "a snapshot is taken once and cannot be changed; make another one"),
    ]
}

/// Bounds of a PgSnapshot.
pub(crate) fn snapshot_bounds() -> Vec<(&'static str, Value)> {
    vec![("spec.set", json!({ "minLength": 1, "maxLength": 253 }))]
}

/// The rules of a PgSnapshotSchedule. Whether the fields of an expression and the zone are any, the operator says.
pub(crate) fn snapshot_schedule() -> Vec<Rule> {
    vec![
        rule(
            "",
            "self.metadata.name.size() <= 46 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "a schedule's name is at most 46 lower-case letters, digits and dashes: its snapshots are named after it and the time",
        ),
        rule(
            "spec.schedule",
            "self.matches('^@(hourly|daily|midnight|weekly|monthly|yearly|annually)$') || self.matches('^[^ @]+( [^ ]+){4}$')",
            "schedule is five fields of cron with single spaces between them, like 30 2 * * * (every day at 2:30), or one of \
             @hourly, @daily, @weekly, @monthly, @yearly",
        ),
        rule(
            "spec.timeZone",
            "self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$') && self != 'Local'",
            "timeZone is a name of the IANA database, like Europe/Berlin or Etc/UTC",
        ),
        rule(
            "spec.history.completed",
            "self >= 1 && self <= 1000",
            "history.completed may be 1 to 1000: how many PgSnapshots of this schedule stay as objects",
        ),
        rule(
            "spec.history.failed",
            "self >= 0 && self <= 1000",
            "history.failed may be 0 to 1000: how many failed PgSnapshots of this schedule stay as objects",
        ),
    ]
}

/// Bounds of a PgSnapshotSchedule.
pub(crate) fn snapshot_schedule_bounds() -> Vec<(&'static str, Value)> {
    let text = |limit: usize| json!({ "minLength": 1, "maxLength": limit });
    vec![
        ("spec.set", text(63)),
        ("spec.schedule", text(128)),
        ("spec.timeZone", text(64)),
        ("status.lastScheduleTime", json!({ "format": "date-time" })),
        ("status.conditions", json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"] })),
    ]
}

/// The rules of a PgTerm: what an update may never do, whoever writes it.
pub(crate) fn term() -> Vec<Rule> {
    vec![
        rule(
            "spec",
            "self.setUid == oldSelf.setUid",
            "a PgTerm belongs to one PgReplicaSet for ever: setUid cannot be changed",
        ),
        rule(
            "spec.epoch",
            "self.number >= oldSelf.number",
            "epochs only grow: a smaller number would let two leaders write the same timeline",
        ),
        rule(
            "spec.epoch",
            format!("self.number != oldSelf.number || ({})", same("id")),
            "an epoch keeps the id it was opened with: another id needs a greater number",
        ),
        rule(
            "spec",
            "self.epoch.number == 0 || (has(self.chain) && self.chain.size() > 0)",
            "the chain cannot be empty once an epoch was opened: nobody could tell whether this term descends from the one \
             they obeyed",
        ),
        rule(
            "spec",
            "(self.epoch.number == 0) == !has(self.phase) && (self.epoch.number == 0) == !has(self.epoch.id)",
            "a term at number 0 has neither an epoch's id nor a phase, and a later one has both",
        ),
    ]
}

/// Bounds of what the rules read (the API server reckons their cost by them), and how lists merge.
pub(crate) fn replica_set_bounds() -> Vec<(&'static str, Value)> {
    let text = |limit: usize| json!({ "maxLength": limit });
    let map = |limit: usize| json!({ "maxProperties": limit });
    let list = |limit: usize| json!({ "maxItems": limit });
    let keyed = |key: &str| json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key] });
    let mut bounds = vec![
        ("spec.image", text(512)),
        ("spec.imagePullSecrets", list(16)),
        ("spec.storage.size", text(32)),
        ("spec.storage.storageClassName", text(253)),
        // PostgreSQL's own limit of a name.
        ("spec.bootstrap.initdb.database", text(63)),
        ("spec.bootstrap.initdb.owner", text(63)),
        ("spec.bootstrap.initdb.locale", text(64)),
        ("spec.bootstrap.initdb.encoding", text(32)),
        ("spec.postgresql.parameters", map(256)),
        // Whole numbers are read as 32-bit ones; PostgreSQL has no greater ones without a unit.
        ("spec.postgresql.parameters{}", json!({ "maxLength": 1024, "minimum": i32::MIN, "maximum": i32::MAX })),
        ("spec.postgresql.hba", list(128)),
        ("spec.postgresql.hba[]", text(1024)),
        ("spec.bootstrap.fromArchive.ref.name", json!({ "minLength": 1, "maxLength": 253 })),
        ("spec.bootstrap.adopt.systemId", text(20)),
        ("spec.bootstrap.fromArchive.prefix", text(512)),
        ("spec.bootstrap.fromArchive.snapshot", text(60)),
        ("spec.bootstrap.fromArchive.target.time", text(64)),
        ("spec.bootstrap.fromArchive.target.lsn", text(17)),
        ("spec.bootstrap.fromArchive.target.xid", text(10)),
        ("spec.bootstrap.fromArchive.target.name", text(63)),
        ("spec.archive.ref.name", json!({ "minLength": 1, "maxLength": 253 })),
        ("spec.resources.claims", list(16)),
        (LABELS, map(64)),
        ("spec.podTemplate.labels{}", text(63)),
        ("spec.podTemplate.annotations", map(64)),
        ("spec.podTemplate.nodeSelector", map(64)),
        ("spec.podTemplate.tolerations", list(64)),
        ("spec.podTemplate.topologySpreadConstraints", list(16)),
        ("spec.podTemplate.priorityClassName", text(253)),
        ("status.conditions", keyed("type")),
        ("status.memberStates", keyed("name")),
    ];
    bounds.extend(SERVICES.map(|path| (path, map(64))));
    bounds
}

/// The same for a PgTerm. Generous: a bound that stops an election would cost more than it saves.
pub(crate) fn term_bounds() -> Vec<(&'static str, Value)> {
    vec![
        ("spec.setUid", json!({ "minLength": 1, "maxLength": 64 })),
        ("spec.epoch.id", json!({ "maxLength": 64 })),
        ("spec.leader", json!({ "maxLength": 128 })),
        ("spec.configs[].followers", json!({ "maxItems": 4 * MEMBERS_LIMIT })),
        ("spec.chain[]", json!({ "maxLength": 64 })),
    ]
}

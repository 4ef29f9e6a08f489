//! The way to the object store in the cluster: a Secret with its keys, and a PgArchive.

use crate::machine::{BUCKET, Keys, STORE_PORT, network};
use serde_json::{Value, json};

/// What both are called, in the namespace `default`.
pub const ARCHIVE: &str = "store";

/// The Secret.
pub fn secret(keys: &Keys) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": ARCHIVE },
        "stringData": { "id": keys.id, "secret": keys.secret } })
}

/// The PgArchive.
pub fn archive() -> Value {
    let key = |key: &str| json!({ "name": ARCHIVE, "key": key });
    json!({
        "apiVersion": "pgconvoy.dev/v1alpha1", "kind": "PgArchive", "metadata": { "name": ARCHIVE },
        "spec": {
            "bucket": BUCKET, "endpoint": format!("http://{}:{STORE_PORT}", network::NODE), "region": "us-east-1",
            "pathStyle": true,
            "credentials": { "accessKeyId": key("id"), "secretAccessKey": key("secret") },
        },
    })
}

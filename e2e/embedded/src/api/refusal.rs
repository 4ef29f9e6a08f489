//! Refusals, in the words of the real API server.

use super::kinds::Kind;
use super::managers::Conflict;
use super::schema::Wrong;
use serde_json::{Value, json};

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// HTTP's number.
    pub code: u16,
    /// Kubernetes' word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// What it is about.
    pub details: Value,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, details: Value::Null }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        let mut details = json!({ "kind": kind.plural });
        if !name.is_empty() {
            details["name"] = json!(name);
        }
        if !kind.group.is_empty() {
            details["group"] = json!(kind.group);
        }
        self.details = details;
        self
    }

    /// There is no such object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", kind.qualified())).about(kind, name)
    }

    /// There is no such path.
    pub fn no_path() -> Self {
        let mut r = Self::new(404, "NotFound", "the server could not find the requested resource".to_owned());
        r.details = json!({});
        r
    }

    /// The name is taken.
    pub fn exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.qualified())).about(kind, name)
    }

    /// It was written meanwhile.
    pub fn stale(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// It is not as it was expected.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// The object cannot be like this.
    pub fn invalid(kind: &Kind, name: &str, wrong: &[Wrong]) -> Self {
        let sentences: Vec<String> = wrong.iter().map(|w| format!("{}: {}", w.field, w.message)).collect();
        let all = if sentences.len() == 1 { sentences.join("") } else { format!("[{}]", sentences.join(", ")) };
        let message = format!("{} {name:?} is invalid: {all}", kind.qualified_kind());
        let mut r = Self::new(422, "Invalid", message).about(kind, name);
        r.details["kind"] = json!(kind.kind);
        let cause = |w: &Wrong| json!({ "reason": w.reason, "message": w.message, "field": w.field });
        r.details["causes"] = wrong.iter().map(cause).collect();
        r
    }

    /// One field cannot be like this.
    pub fn invalid_field(kind: &Kind, name: &str, field: &str, message: &str) -> Self {
        let wrong = Wrong { field: field.to_owned(), reason: "FieldValueInvalid", message: message.to_owned() };
        Self::invalid(kind, name, &[wrong])
    }

    /// An update of a custom object says nothing of the form that it is based on.
    pub fn no_revision(kind: &Kind, name: &str) -> Self {
        let why = "Invalid value: 0: must be specified for an update";
        let mut r = Self::invalid_field(kind, name, "metadata.resourceVersion", why);
        r.message = r.message.replacen(&kind.qualified_kind(), &kind.qualified(), 1);
        r.details["kind"] = json!(kind.plural);
        r
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into())
    }

    /// The same, as the real server says it of some things by mistake; a client must take it as it is.
    pub fn internal(message: &str) -> Self {
        Self::new(500, "", message.to_owned())
    }

    /// The name in the body is another one than in the path.
    pub fn other_name(given: &str, name: &str) -> Self {
        Self::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({name})"))
    }

    /// A patch of an object cannot be done.
    pub fn patch_failed() -> Self {
        let message = "the server rejected our request due to an error in our request".to_owned();
        Self { details: json!({}), ..Self::new(422, "Invalid", message) }
    }

    /// An apply says nothing of who applies.
    pub fn no_manager() -> Self {
        let field = "fieldManager";
        let message = "Required value: is required for apply patch";
        let cause = json!({ "reason": "FieldValueRequired", "message": message, "field": field });
        let details = json!({ "group": "meta.k8s.io", "kind": "PatchOptions", "causes": [cause] });
        let message = format!("PatchOptions.meta.k8s.io \"\" is invalid: {field}: {message}");
        Self { details, ..Self::new(422, "Invalid", message) }
    }

    /// A deletion meant another object, or another form of it.
    pub fn precondition(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified_kind());
        let mut r = Self::new(409, "Conflict", message).about(kind, name);
        r.details["kind"] = json!(kind.kind);
        r
    }

    /// As a server answers that has troubles of its own.
    pub fn on_purpose(code: u16) -> Self {
        let reason = match code {
            409 => "Conflict",
            410 => "Expired",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Self::new(code, reason, "refused on purpose".to_owned())
    }

    /// Not in this way.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(405, "MethodNotAllowed", message)
    }

    /// Whoever asks cannot be known.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned())
    }

    /// Whoever asks may not.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", kind.qualified());
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    /// A body of a kind that is not taken.
    pub fn unsupported_media_type(given: &str) -> Self {
        tracing::debug!(given, "a body of a type that is not taken");
        let message = "415: Unsupported Media Type".to_owned();
        Self { details: json!({}), ..Self::new(415, "UnsupportedMediaType", message) }
    }

    /// The same of a patch of a custom kind.
    pub fn unsupported_patch() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        Self::new(415, "UnsupportedMediaType", message.to_owned())
    }

    /// What is asked for is forgotten: list anew.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// This API server cannot do that, though a real one could.
    pub fn not_implemented(what: &str) -> Self {
        let message = format!("the embedded API server does not do this: {what}");
        Self::new(501, "NotImplemented", message)
    }

    /// Others manage what would get another value.
    pub fn apply_conflict(conflicts: &[Conflict]) -> Self {
        let named = |c: &Conflict| {
            let w = &c.owner.writer;
            let mut text = format!("{:?}", w.name);
            if !w.subresource.is_empty() {
                text += &format!(" with subresource {:?}", w.subresource);
            }
            if !w.applies {
                text += &format!(" using {}", w.api_version);
            }
            text
        };
        let message = match conflicts {
            [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", named(one), one.field),
            _ => {
                let mut names: Vec<String> = conflicts.iter().map(named).collect();
                names.sort();
                names.dedup();
                let mut lines = vec![];
                for name in names {
                    lines.push(format!("conflicts with {name}:"));
                    lines.extend(conflicts.iter().filter(|c| named(c) == name).map(|c| format!("- {}", c.field)));
                }
                format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
            }
        };
        let mut r = Self::new(409, "Conflict", message);
        let cause = |c: &Conflict| json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {}", named(c)), "field": c.field });
        r.details = json!({ "causes": conflicts.iter().map(cause).collect::<Vec<_>>() });
        r
    }

    /// As a `Status`.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

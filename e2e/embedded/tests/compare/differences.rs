//! What may differ, and why.

use super::Difference;

/// Differences that may be.
#[derive(Debug)]
pub(crate) struct Allowed {
    /// The request's name, or what it begins with before a `*`.
    request: &'static str,
    /// Where in the answer, or what that begins with before a `*`.
    at: &'static str,
    /// Why it may.
    #[allow(dead_code, reason = "for people")]
    why: &'static str,
}

impl Allowed {
    /// Whether this is one of them.
    pub(crate) fn covers(&self, difference: &Difference) -> bool {
        like(self.request, &difference.request) && like(self.at, &difference.at)
    }
}

fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        Some((head, tail)) => text.starts_with(head) && text[head.len()..].ends_with(tail),
        None => pattern == text,
    }
}

/// All of them.
pub(crate) const LIST: &[Allowed] = &[
    may("define *", "/status/*", "kinds are served at once, and it says so; Kubernetes takes a moment"),
    may("create of another *", "/message", "the same refusal in other words"),
    may("create nonsense", "/message", "the same refusal in other words"),
    may("get of no group", "", "Kubernetes answers in plain text; clients look at the code"),
    may("list with a bad selector", "/message", "the same refusal in other words"),
    may("a page after nonsense", "/message", "the same refusal in other words"),
    may("a set of wrong types", "/details/causes*", "rules in CEL are not run"),
    may("a set of wrong types", "/message", "rules in CEL are not run"),
    may("an event", "/metadata/managedFields/*", "an Event has one form here, in which its managers are told"),
    may("the event as the core shows it", "/metadata/managedFields/*", "the same"),
    may("a binding to another role", "/details/causes/0/message", "the same refusal in other words"),
    may("a binding to another role", "/message", "the same refusal in other words"),
    may("another command", "/details/causes/0/message", "Kubernetes shows what differs in Go's own form"),
    may("another command", "/message", "Kubernetes shows what differs in Go's own form"),
    may("a pod", "/spec/*", "admission of accounts and priorities is off in Kubernetes' half of the test"),
    may("a pod", "/metadata/managedFields/*", "the same"),
    may("another image in place", "/spec/*", "the same"),
    may("another image in place", "/metadata/managedFields/*", "the same"),
    may("a pod's status", "/spec/*", "the same"),
    may("a pod's status", "/metadata/managedFields/*", "the same"),
    may("delete an unscheduled pod", "/spec/*", "the same"),
    may("delete an unscheduled pod", "/metadata/managedFields/*", "the same"),
    may("*", "/metadata/managedFields/0/time", "of whoever applies over a scale Kubernetes tells no time"),
    may("* another uid", "/details/causes", "Kubernetes says it twice"),
];

const fn may(request: &'static str, at: &'static str, why: &'static str) -> Allowed {
    Allowed { request, at, why }
}

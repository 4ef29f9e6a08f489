//! What goes wrong on purpose: requests that are slow, refused or lost, and watches that break off.

use super::Server;
use serde::{Deserialize, Serialize};
use std::sync::PoisonError;
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// It waits so many milliseconds, and is done.
    Delay(u64),
    /// It is answered with this code, and not done.
    Refuse(u16),
    /// It is not done, and the connection breaks.
    Lose,
    /// It is done, and the connection breaks before the answer.
    LoseAnswer,
}

/// Which requests it happens to. An empty text means any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// What the user's name begins with: a client is cut off by losing all its requests.
    #[serde(default)]
    pub user: String,
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE`, or `write` for all but the first.
    #[serde(default)]
    pub method: String,
    /// A part of the path, like `/leases/`.
    #[serde(default)]
    pub path: String,
    /// How many such requests go well first.
    #[serde(default)]
    pub skip: u32,
    /// How many it happens to; nothing: all of them.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens.
    pub fault: Fault,
}

impl Rule {
    fn meant(&self, user: &str, method: &str, path: &str) -> bool {
        let of_method = match self.method.as_str() {
            "" => true,
            "write" => method != "GET",
            other => other == method,
        };
        of_method && user.starts_with(&self.user) && path.contains(&self.path)
    }

    /// Counts a request; whether it is one of those it happens to.
    fn strikes(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.times {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl Server {
    /// Lets these things go wrong from now on, and no others.
    pub fn set_faults(&self, rules: Vec<Rule>) {
        *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// What is left of them.
    pub fn faults(&self) -> Vec<Rule> {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Breaks all watches off.
    pub fn cut_watches(&self) {
        self.shared.cut.send_modify(|n| *n += 1);
    }

    /// What happens to this request: the first rule that means it counts it.
    pub(super) fn strike(&self, user: &str, method: &str, path: &str) -> Option<Fault> {
        let mut rules = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = rules.iter_mut().find(|r| r.meant(user, method, path) && r.times != Some(0))?;
        rule.strikes().then_some(rule.fault)
    }
}

/// Waits as a fault says.
pub(super) async fn wait(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_counts() {
        let text = r#"{"user":"system:","method":"write","path":"/leases/","skip":1,"times":2,"fault":{"refuse":500}}"#;
        let mut rule: Rule = serde_json::from_str(text).unwrap_or_else(|e| unreachable!("{e}"));
        assert!(rule.meant("system:x", "PUT", "/apis/leases/l"));
        for (user, method, path) in
            [("admin", "PUT", "/leases/"), ("system:x", "GET", "/leases/"), ("system:x", "PUT", "/pods/")]
        {
            assert!(!rule.meant(user, method, path));
        }
        assert_eq!([0; 4].map(|_| rule.strikes()), [false, true, true, false]);
    }
}

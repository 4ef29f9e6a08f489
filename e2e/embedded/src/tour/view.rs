//! How a replica set is drawn: pure, from the object to lines. On a terminal a table is drawn over the one before;
//! elsewhere there is a line for each thing that changed.

use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

/// One member, as its own status entry says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) state: String,
    pub(super) node: String,
    pub(super) pod: String,
}

/// A replica set as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Look {
    pub(super) members: Vec<Member>,
    /// Like `3/3`.
    pub(super) ready: String,
    pub(super) leader: String,
    pub(super) epoch: i64,
    /// The sentence of the condition `Ready`.
    pub(super) message: String,
    /// Whether that condition is true, and of this spec.
    pub(super) settled: bool,
}

impl Look {
    /// Reads the object.
    pub(super) fn of(set: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = &set["status"];
        let mut members: Vec<Member> = status["memberStates"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|m| Member {
                name: text(&m["name"]),
                role: text(&m["role"]),
                state: text(&m["state"]),
                node: text(&m["node"]),
                pod: text(&m["podUid"]),
            })
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let conditions = status["conditions"].as_array();
        let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready").cloned().unwrap_or_default();
        Self {
            members,
            ready: text(&status["ready"]),
            leader: text(&status["leader"]),
            epoch: status["epoch"].as_i64().unwrap_or(0),
            message: text(&ready["message"]),
            settled: ready["status"] == "True" && ready["observedGeneration"] == set["metadata"]["generation"],
        }
    }

    /// Whether all `wanted` members are there, none of them in the pod with the UID `gone`.
    pub(super) fn whole(&self, wanted: usize, gone: &str) -> bool {
        let same = self.members.iter().any(|m| m.pod == gone);
        self.settled && self.ready == format!("{wanted}/{wanted}") && !same
    }

    /// The first follower by name.
    pub(super) fn follower(&self) -> Option<&Member> {
        self.members.iter().find(|m| m.role == "Follower")
    }

    /// The leader's entry.
    pub(super) fn leading(&self) -> Option<&Member> {
        self.members.iter().find(|m| m.name == self.leader)
    }

    /// The table.
    fn table(&self, elapsed: Duration) -> Vec<String> {
        let mut lines = vec![line(["MEMBER", "ROLE", "STATE", "NODE"])];
        for m in &self.members {
            let role = if m.role.is_empty() { "-" } else { &m.role };
            lines.push(line([&m.name, role, &m.state, &m.node]));
        }
        lines.push(format!("  {:>3} s  {}", elapsed.as_secs(), self.message));
        lines
    }

    /// What has changed since `before`, a line each.
    fn changes(&self, before: &Self, elapsed: Duration) -> Vec<String> {
        let at = format!("  {:5.1} s  ", elapsed.as_secs_f64());
        let mut lines = vec![];
        for m in &self.members {
            let old = before.members.iter().find(|o| o.name == m.name);
            if old.is_some_and(|o| (&o.role, &o.state, &o.pod) == (&m.role, &m.state, &m.pod)) {
                continue;
            }
            let mut text = format!("{at}{}", line([&m.name, &m.role, &m.state, &m.node]).trim());
            if old.is_some_and(|o| o.pod != m.pod) {
                text.push_str(" (another pod)");
            }
            lines.push(text);
        }
        if self.leader != before.leader && !self.leader.is_empty() {
            lines.push(format!("{at}{} leads epoch {}", self.leader, self.epoch));
        }
        if self.message != before.message && !self.message.is_empty() {
            lines.push(format!("{at}{}", self.message));
        }
        lines
    }
}

fn line(words: [&str; 4]) -> String {
    format!("  {:<14} {:<10} {:<13} {}", words[0], words[1], words[2], words[3]).trim_end().to_owned()
}

/// Where a set is drawn while one waits for it.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    before: Look,
    /// The lines on the terminal that are the set's.
    drawn: Vec<String>,
}

impl Screen {
    /// On a terminal, or not. `before`: what whoever looks on knows already.
    pub(super) fn new(terminal: bool, before: Look) -> Self {
        Self { terminal, before, drawn: vec![] }
    }

    /// What is written to show `look`: nothing if it is there already.
    pub(super) fn draw(&mut self, look: &Look, elapsed: Duration) -> String {
        let mut out = String::new();
        if self.terminal {
            let lines = look.table(elapsed);
            if self.drawn == lines {
                return out;
            }
            // Up to where the last one begins, and everything from there on away. Lines are cut off, not wrapped, at the
            // right, or there would be more of them than were counted.
            if !self.drawn.is_empty() {
                let _ = write!(out, "\x1b[{}A\x1b[J", self.drawn.len());
            }
            out.push_str("\x1b[?7l");
            lines.iter().for_each(|l| out.extend([l, "\n"]));
            out.push_str("\x1b[?7h");
            self.drawn = lines;
        } else {
            look.changes(&self.before, elapsed).iter().for_each(|l| out.extend([l, "\n"]));
            self.before.clone_from(look);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;
    use serde_json::json;

    fn set(pod: &str, state: &str) -> Value {
        json!({ "metadata": { "generation": 1 }, "status": {
            "ready": "3/3", "leader": "s-1", "epoch": 1,
            "conditions": [{ "type": "Ready", "status": "True", "observedGeneration": 1, "message": "all is well" }],
            "memberStates": [
                { "name": "s-2", "role": "Follower", "state": state, "node": "n2", "podUid": pod },
                { "name": "s-1", "role": "Leader", "state": "Attached", "node": "n1", "podUid": "a" },
                { "name": "s-3", "state": "Cloning", "node": "n3", "podUid": "c" },
            ],
        } })
    }

    #[test]
    fn a_table_has_a_line_for_each_member_by_name() {
        let lines = Look::of(&set("b", "Attached")).table(Duration::from_millis(7_300));
        assert_eq!(
            lines,
            [
                "  MEMBER         ROLE       STATE         NODE",
                "  s-1            Leader     Attached      n1",
                "  s-2            Follower   Attached      n2",
                "  s-3            -          Cloning       n3",
                "    7 s  all is well",
            ]
        );
    }

    #[test]
    fn a_terminal_is_drawn_over_and_only_when_something_is_new() {
        let mut screen = Screen::new(true, Look::default());
        let look = Look::of(&set("b", "CatchingUp"));
        let first = screen.draw(&look, Duration::from_secs(1));
        assert!(!first.contains("\x1b[J") && first.contains("CatchingUp"), "{first:?}");
        assert_eq!(screen.draw(&look, Duration::from_millis(1_400)), "");
        let second = screen.draw(&Look::of(&set("b", "Attached")), Duration::from_millis(1_500));
        assert!(second.starts_with("\x1b[5A\x1b[J"), "as many lines up as were drawn: {second:?}");
        assert_eq!(second.lines().count(), 6, "five, and the wrapping on again: {second:?}");
    }

    #[test]
    fn elsewhere_there_is_a_line_for_each_change() {
        let mut screen = Screen::new(false, Look::default());
        assert_eq!(screen.draw(&Look::of(&set("b", "Cloning")), Duration::ZERO).lines().count(), 5);
        assert_eq!(screen.draw(&Look::of(&set("b", "Cloning")), Duration::ZERO), "");
        let change = screen.draw(&Look::of(&set("b2", "Attached")), Duration::from_millis(2_340));
        assert_eq!(change, "    2.3 s  s-2            Follower   Attached      n2 (another pod)\n");
    }

    #[test]
    fn a_set_is_whole_when_it_is_ready_without_the_pod_that_was_lost() {
        let look = Look::of(&set("b", "Attached"));
        assert!(look.whole(3, ""));
        assert!(!look.whole(3, "b"), "that was before it was lost");
        assert!(!look.whole(5, ""));
        let mut other = set("b", "Attached");
        other["metadata"]["generation"] = json!(2);
        assert!(!Look::of(&other).whole(3, ""), "what is ready is not what was asked for");
        assert_eq!(look.follower().unwrap().name, "s-2");
        assert_eq!(look.leading().unwrap().name, "s-1");
    }
}

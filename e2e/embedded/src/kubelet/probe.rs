//! Probes over HTTP and TCP.

use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// A probe's counting.
#[derive(Debug)]
pub(super) struct Probe {
    /// The port, the path if it is HTTP.
    target: (u16, Option<String>),
    period: Duration,
    limit: Duration,
    failures: u64,
    successes: u64,
    next: Instant,
    in_a_row: (bool, u64),
}

/// What a probe came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not yet anything else than before.
    Same,
    /// Often enough well.
    Well,
    /// Often enough not.
    Ill,
}

impl Probe {
    /// The probe of a container, if it has it and it is of a kind that is done here.
    pub(super) fn of(container: &Value, name: &str, now: Instant) -> Option<Self> {
        let spec = container.get(name)?;
        let number = |field: &str, default: u64| spec[field].as_u64().unwrap_or(default);
        let port = |v: &Value| -> Option<u16> {
            let named = |n: &str| {
                let ports = container["ports"].as_array()?;
                ports.iter().find(|p| p["name"] == n)?["containerPort"].as_u64()
            };
            u16::try_from(v.as_u64().or_else(|| named(v.as_str()?))?).ok()
        };
        let target = match (spec.get("httpGet"), spec.get("tcpSocket")) {
            (Some(get), _) => (port(&get["port"])?, Some(get["path"].as_str().unwrap_or("/").to_owned())),
            (_, Some(tcp)) => (port(&tcp["port"])?, None),
            _ => return None,
        };
        Some(Self {
            target,
            period: Duration::from_secs(number("periodSeconds", 10)),
            limit: Duration::from_secs(number("timeoutSeconds", 1)),
            failures: number("failureThreshold", 3),
            successes: number("successThreshold", 1),
            next: now + Duration::from_secs(number("initialDelaySeconds", 0)),
            in_a_row: (true, 0),
        })
    }

    /// When it is due.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// What to ask, now; the next time is a period later.
    pub(super) fn begin(&mut self, now: Instant) -> (u16, Option<String>, Duration) {
        self.next = now + self.period;
        (self.target.0, self.target.1.clone(), self.limit)
    }

    /// Counts an answer.
    pub(super) fn count(&mut self, well: bool) -> Verdict {
        self.in_a_row = if self.in_a_row.0 == well { (well, self.in_a_row.1 + 1) } else { (well, 1) };
        match self.in_a_row {
            (true, n) if n >= self.successes => Verdict::Well,
            (false, n) if n >= self.failures => Verdict::Ill,
            _ => Verdict::Same,
        }
    }
}

/// Asks once.
pub(super) async fn ask(address: Ipv4Addr, port: u16, path: Option<String>, limit: Duration) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect((address, port)).await.ok()?;
        let Some(path) = path else { return Some(true) };
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        let code: u16 = std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()?;
        Some((200..400).contains(&code))
    };
    timeout(limit, asked).await.ok().flatten().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a test fails")]
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn thresholds_are_counted_in_a_row() {
        let container = json!({"ports": [{"name": "h", "containerPort": 8}],
            "p": {"httpGet": {"port": "h"}, "failureThreshold": 2, "successThreshold": 2}});
        let mut probe = Probe::of(&container, "p", Instant::now()).unwrap();
        assert_eq!(probe.begin(Instant::now()), (8, Some("/".into()), Duration::from_secs(1)));
        let verdicts = [true, false, true, true, false, false, false].map(|well| probe.count(well));
        use Verdict::{Ill, Same, Well};
        assert_eq!(verdicts, [Same, Same, Same, Well, Same, Ill, Ill]);
        assert!(Probe::of(&json!({"p": {"exec": {}}}), "p", Instant::now()).is_none());
    }
}

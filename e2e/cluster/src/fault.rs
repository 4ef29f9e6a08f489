//! Faults of the network: cuts and delays, between nodes, or between a node and the control plane.

use crate::{Cluster, control, files, mark, net, run};
use anyhow::{bail, ensure};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A node, from 1, with its pods.
    Node(u8),
    /// The control plane.
    Api,
}

impl FromStr for End {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match (text, text.strip_prefix('n').map(str::parse)) {
            ("api", _) => Ok(Self::Api),
            (_, Some(Ok(number))) => Ok(Self::Node(number)),
            _ => bail!("{text} is no end of a connection; these are n1, n2, … and api"),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(number) => write!(f, "n{number}"),
            Self::Api => f.write_str("api"),
        }
    }
}

/// The table of cuts on the switch, made where it is missing.
const TABLE: &str = "table bridge kcluster {
 chain forward { type filter hook forward priority 0; }
 chain input { type filter hook input priority 0; }
 chain output { type filter hook output priority 0; }
}
";

/// Whether somebody holds the packets of a queue of this thread's namespace.
fn bound(queue: &str) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").unwrap_or_default();
    table.lines().any(|line| line.split_whitespace().next() == Some(queue))
}

/// Drops what goes from one end to the other.
fn drop_rule(from: End, to: End) -> anyhow::Result<String> {
    Ok(match (from, to) {
        (End::Node(a), End::Node(b)) if a != b => {
            format!("add rule bridge kcluster forward iifname v{a} oifname v{b} drop\n")
        }
        (End::Node(a), End::Api) => format!("add rule bridge kcluster input iifname v{a} drop\n"),
        (End::Api, End::Node(b)) => format!("add rule bridge kcluster output oifname v{b} drop\n"),
        _ => bail!("{from} to {to}: that is no connection"),
    })
}

/// Which packets between two ends are held back, as arguments of iptables: both directions.
fn held(a: End, b: End) -> anyhow::Result<Vec<Vec<String>>> {
    let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let of = |node: u8| format!("{},{}", net::node_address(node), net::pods_of(node));
    Ok(match (a, b) {
        (End::Node(a), End::Node(b)) if a != b => [(a, b), (b, a)]
            .map(|(from, to)| words(format!("FORWARD -m physdev --physdev-in v{from} --physdev-out v{to}")))
            .to_vec(),
        (End::Node(node), End::Api) | (End::Api, End::Node(node)) => {
            vec![words(format!("INPUT -s {}", of(node))), words(format!("OUTPUT -d {}", of(node)))]
        }
        _ => bail!("{a} and {b}: that is no connection"),
    })
}

impl Cluster {
    fn check_ends(&self, ends: [End; 2]) -> anyhow::Result<()> {
        for end in ends {
            if let End::Node(number) = end {
                self.node(number)?;
            }
        }
        Ok(())
    }

    /// Lets no packet through between two ends, in either direction, until [`Cluster::heal`].
    ///
    /// # Errors
    /// When they are not two ends, or nft fails.
    pub fn cut(&self, a: End, b: End) -> anyhow::Result<()> {
        self.check_ends([a, b])?;
        self.nft(&[TABLE, &drop_rule(a, b)?, &drop_rule(b, a)?].concat())
    }

    /// Lets no packet through from one end to another; those of the other direction pass.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn cut_one_way(&self, from: End, to: End) -> anyhow::Result<()> {
        self.check_ends([from, to])?;
        self.nft(&[TABLE, &drop_rule(from, to)?].concat())
    }

    fn nft(&self, rules: &str) -> anyhow::Result<()> {
        self.inside(|| run::done(Command::new("nft").args(["-f", "-"]), rules).map(drop))
    }

    /// Holds every packet between two ends back for `delay`, more or less `jitter`, and drops `loss_percent` of them, until
    /// [`Cluster::heal`]. The round trip takes twice that.
    ///
    /// # Errors
    /// When they are not two ends, or iptables or python3 fail.
    pub fn delay(&self, a: End, b: End, delay: Duration, jitter: Duration, loss_percent: f64) -> anyhow::Result<()> {
        self.check_ends([a, b])?;
        ensure!((0.0..=100.0).contains(&loss_percent), "{loss_percent} % loss: 0 to 100 can be");
        let rules = held(a, b)?;
        // Several delays may be in force: each has a queue, numbered by the ends.
        let number = |end: End| if let End::Node(n) = end { u32::from(n) } else { 0 };
        let queue = number(a).min(number(b)) * 10 + number(a).max(number(b));
        let part = format!("delay-{queue}");
        ensure!(
            !mark::processes(self.folder()).iter().any(|p| p.part == part),
            "there is a delay between {a} and {b} already: kcluster heal takes it away"
        );
        let script = self.folder().join("nfq_delay.py");
        control::write(&script, files::DELAY)?;
        let (queue, millis) = (queue.to_string(), |d: Duration| (d.as_secs_f64() * 1000.0).to_string());
        let words = [
            "python3",
            &script.display().to_string(),
            &queue,
            &millis(delay),
            &millis(jitter),
            &loss_percent.to_string(),
        ]
        .map(str::to_owned);
        let bin = self.programs(&self.options()?)?;
        control::start(self.folder(), &part, &self.network(), &self.folder().join("log"), &bin, words)?;
        self.inside(|| {
            control::until("the holder of packets starts", Duration::from_secs(20), || Ok(bound(&queue)))?;
            for rule in &rules {
                // Should the holder end, packets pass.
                let target = ["-j", "NFQUEUE", "--queue-num", &queue, "--queue-bypass"];
                run::done(Command::new("iptables").args(["-w", "5", "-I"]).args(rule).args(target), "")?;
            }
            Ok(())
        })
    }

    /// Makes the network whole: no cut, no delay.
    ///
    /// # Errors
    /// When the rules cannot be removed.
    pub fn heal(&self) -> anyhow::Result<()> {
        self.inside(|| {
            // "destroy" would do it in one, in newer releases of nft.
            run::done(Command::new("nft").args(["-f", "-"]), &format!("{TABLE}delete table bridge kcluster\n"))?;
            for chain in ["FORWARD", "INPUT", "OUTPUT"] {
                run::done(Command::new("iptables").args(["-w", "5", "-F", chain]), "")?;
            }
            Ok(())
        })?;
        let holders: Vec<_> =
            mark::processes(self.folder()).into_iter().filter(|p| p.part.starts_with("delay-")).collect();
        for holder in &holders {
            mark::end(holder, self.folder())?;
        }
        mark::gone(&holders, self.folder(), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_names() {
        assert_eq!("n2".parse::<End>().unwrap(), End::Node(2));
        assert_eq!("api".parse::<End>().unwrap(), End::Api);
        for bad in ["", "n", "node1", "n-1", "API"] {
            assert!(bad.parse::<End>().is_err(), "{bad}");
        }
        assert_eq!(End::Node(2).to_string(), "n2");
    }

    #[test]
    fn a_rule_is_of_one_direction() {
        assert!(drop_rule(End::Node(1), End::Node(2)).unwrap().contains("iifname v1 oifname v2"));
        assert!(drop_rule(End::Node(1), End::Api).unwrap().contains("input iifname v1"));
        assert!(drop_rule(End::Api, End::Node(1)).unwrap().contains("output oifname v1"));
        assert!(drop_rule(End::Node(1), End::Node(1)).is_err());
        assert!(drop_rule(End::Api, End::Api).is_err());
        assert_eq!(held(End::Node(1), End::Node(3)).unwrap().len(), 2);
        assert_eq!(held(End::Api, End::Node(3)).unwrap()[0].join(" "), "INPUT -s 10.240.0.13,10.244.3.0/24");
    }
}

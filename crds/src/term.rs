//! PgTerm: the one record on which the members of a set agree.

use crate::{GROUP, VERSION};
use kube::CustomResource;
use pgconvoy_terms as terms;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const _: (&str, &str) = (GROUP, VERSION);

/// Who leads a replica set, since when and by which rule: the record on which its members agree by compare-and-swap.
///
/// Made by the operator at number 0, written by the agents, read by people. Never edit or delete it by hand.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pgconvoy.dev",
    version = "v1alpha1",
    kind = "PgTerm",
    plural = "pgterms",
    namespaced,
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.epoch.number"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".spec.phase"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".spec.leader"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PgTermSpec {
    /// UID of the PgReplicaSet it belongs to.
    pub set_uid: String,
    /// The epoch in force.
    pub epoch: EpochRecord,
    /// How far the epoch is; absent at number 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<TermPhase>,
    /// The elected leader, `<member>/<incarnation>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Every rule under which an acknowledged commit may exist that no later active epoch covers yet, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<RuleRecord>,
    /// Whether a rule was given up since the last epoch that became active, so that commits acknowledged under it may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lossy: bool,
    /// At number 0: whether the record was made again in place of one that was lost. Nobody founds a database then; see
    /// `kubectl pgconvoy term repair`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remade: bool,
    /// Earlier epochs, oldest first; the last 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<ForkRecord>,
    /// Ids of every change that can matter to a quorum, oldest first; the last 1024.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
}

/// An epoch: its number, which is also its timeline id, and the random id of the change that opened it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EpochRecord {
    /// Counts up by one; 0 = none yet.
    #[schemars(range(min = 0, max = 4294967295u64))]
    pub number: i64,
    /// Absent at number 0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
}

/// How far an epoch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TermPhase {
    /// Pledges are being collected.
    Recruiting,
    /// A leader is chosen.
    Elected,
    /// Clients are served.
    Active,
}

/// A rule: in this epoch, this leader acknowledges a commit once so many of these followers have flushed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleRecord {
    /// The epoch it belongs to.
    pub epoch: EpochRecord,
    /// Who acknowledges, `<member>/<incarnation>`.
    pub leader: String,
    /// Whose flushes count.
    #[serde(default)]
    pub followers: Vec<String>,
    /// How many of them must have flushed.
    #[schemars(range(min = 0, max = 64))]
    pub acknowledgements: i32,
}

/// Where an epoch's timeline left the one before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForkRecord {
    /// The epoch.
    pub epoch: EpochRecord,
    /// Timeline it branched from; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<i64>,
    /// Where it branched, an LSN; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Who led.
    pub leader: String,
    /// Whether acknowledged commits may have been lost at this fork.
    #[serde(default)]
    pub lossy: bool,
}

/// Why a PgTerm cannot be read: what in it is not what it should be. Nobody obeys such a term.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the PgTerm's {field} cannot be read: {why}")]
pub struct UnreadableTerm {
    field: &'static str,
    why: String,
}

fn bad(field: &'static str) -> impl Fn(terms::Malformed) -> UnreadableTerm {
    move |why| UnreadableTerm { field, why: why.to_string() }
}

impl EpochRecord {
    fn read(&self) -> Result<terms::Epoch, UnreadableTerm> {
        let number = u32::try_from(self.number)
            .map_err(|_| UnreadableTerm { field: "epoch", why: format!("{} is not an epoch's number", self.number) })?;
        Ok(terms::Epoch { number, id: self.id.parse().map_err(bad("epoch"))? })
    }
}

impl From<&terms::Epoch> for EpochRecord {
    fn from(e: &terms::Epoch) -> Self {
        Self { number: e.number.into(), id: e.id.to_string() }
    }
}

impl PgTermSpec {
    /// A fresh record at number 0, as the operator creates it.
    pub fn zero(set_uid: &str) -> Self {
        Self {
            set_uid: set_uid.to_owned(),
            epoch: EpochRecord { number: 0, id: String::new() },
            phase: None,
            leader: None,
            configs: vec![],
            lossy: false,
            remade: false,
            history: vec![],
            chain: vec![],
        }
    }

    /// A record at number 0 in place of one that was lost.
    pub fn made_again(set_uid: &str) -> Self {
        Self { remade: true, ..Self::zero(set_uid) }
    }

    /// The term in it; `None` at number 0.
    ///
    /// # Errors
    /// When anything in it does not parse, or when it is neither at number 0 nor a whole term: half a record read as
    /// "none yet" would bootstrap a second database beside the first.
    pub fn read(&self) -> Result<Option<terms::Term>, UnreadableTerm> {
        let nothing =
            self.leader.is_none() && self.configs.is_empty() && self.history.is_empty() && self.chain.is_empty();
        let phase = match (self.epoch.number, self.phase) {
            (0, None) if nothing => return Ok(None),
            (0, _) => {
                return Err(UnreadableTerm { field: "epoch", why: "its number is 0, yet there is more".to_owned() });
            }
            (_, None) => return Err(UnreadableTerm { field: "phase", why: "it is missing".to_owned() }),
            (_, Some(phase)) => phase,
        };
        let member = |s: &String| s.parse::<terms::MemberId>().map_err(bad("members"));
        let rules = self.configs.iter().map(|c| {
            Ok(terms::Rule {
                epoch: c.epoch.read()?,
                leader: member(&c.leader)?,
                followers: c.followers.iter().map(member).collect::<Result<_, _>>()?,
                acknowledgements: u32::try_from(c.acknowledgements).map_err(|_| UnreadableTerm {
                    field: "configs",
                    why: format!("{} acknowledgements", c.acknowledgements),
                })?,
            })
        });
        let history = self.history.iter().map(|h| {
            let parent = h.parent.map(|p| {
                u32::try_from(p)
                    .map(terms::TimelineId)
                    .map_err(|_| UnreadableTerm { field: "history", why: format!("{p} is not a timeline id") })
            });
            Ok(terms::Fork {
                epoch: h.epoch.read()?,
                parent: parent.transpose()?,
                at: h.at.as_ref().map(|l| l.parse().map_err(bad("history"))).transpose()?,
                leader: member(&h.leader)?,
                lossy: h.lossy,
            })
        });
        Ok(Some(terms::Term {
            epoch: self.epoch.read()?,
            phase: match phase {
                TermPhase::Recruiting => terms::Phase::Recruiting,
                TermPhase::Elected => terms::Phase::Elected,
                TermPhase::Active => terms::Phase::Active,
            },
            leader: self.leader.as_ref().map(member).transpose()?,
            rules: rules.collect::<Result<_, _>>()?,
            lossy: self.lossy,
            history: history.collect::<Result<_, _>>()?,
            chain: self.chain.iter().map(|c| c.parse().map_err(bad("chain"))).collect::<Result<_, _>>()?,
        }))
    }

    /// The record of `term`.
    pub fn write(set_uid: &str, term: &terms::Term) -> Self {
        Self {
            set_uid: set_uid.to_owned(),
            epoch: (&term.epoch).into(),
            phase: Some(match term.phase {
                terms::Phase::Recruiting => TermPhase::Recruiting,
                terms::Phase::Elected => TermPhase::Elected,
                terms::Phase::Active => TermPhase::Active,
            }),
            leader: term.leader.as_ref().map(ToString::to_string),
            configs: term
                .rules
                .iter()
                .map(|r| RuleRecord {
                    epoch: (&r.epoch).into(),
                    leader: r.leader.to_string(),
                    followers: r.followers.iter().map(ToString::to_string).collect(),
                    acknowledgements: i32::try_from(r.acknowledgements).unwrap_or(i32::MAX),
                })
                .collect(),
            lossy: term.lossy,
            remade: false,
            history: term
                .history
                .iter()
                .map(|f| ForkRecord {
                    epoch: (&f.epoch).into(),
                    parent: f.parent.map(|p| p.0.into()),
                    at: f.at.map(|l| l.to_string()),
                    leader: f.leader.to_string(),
                    lossy: f.lossy,
                })
                .collect(),
            chain: term.chain.iter().map(ToString::to_string).collect(),
        }
    }
}

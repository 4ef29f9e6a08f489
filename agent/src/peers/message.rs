//! Questions and answers as JSON. Terms travel as the PgTerm's own record.
//!
//! Version 1. A newer agent may send kinds that this one does not know: those are an error that names the kind, never
//! something to guess at. Fields that are not known are ignored.

use pgconvoy_crds::PgTermSpec;
use pgconvoy_ha::{Answer, Ask, Heard, Unattached};
use pgconvoy_terms::{ChangeId, Epoch, Malformed, MemberId, Position, Term, TimelineId};
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// Why a message cannot be used. The sentence goes back to who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    /// No JSON, another shape, or a kind that is not known.
    #[error("the message is not understood: {0}")]
    NotUnderstood(String),
    /// Of a version that is not known.
    #[error("the message has version {0}, this agent speaks version {VERSION}")]
    Version(u32),
    /// Of another set.
    #[error("the message is of the set with UID {theirs}, this member belongs to the set with UID {ours}")]
    OtherSet {
        /// In the message.
        theirs: String,
        /// Our own.
        ours: String,
    },
}

impl From<Malformed> for MessageError {
    fn from(e: Malformed) -> Self {
        Self::NotUnderstood(e.to_string())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<T> {
    version: u32,
    set_uid: String,
    #[serde(flatten)]
    content: T,
}

/// Only what says whether the rest may be looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    version: u32,
    set_uid: String,
}

#[derive(Serialize, Deserialize)]
struct Asking {
    ask: AskRecord,
}

#[derive(Serialize, Deserialize)]
struct Answering {
    answer: AnswerRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum AskRecord {
    Pledge { term: PgTermSpec },
    Store { term: PgTermSpec },
    Vouch { epoch: String, nonce: u64, quorate: bool },
    Canvass { epoch: String },
    Recall {},
    Attach { epoch: String, member: String, position: Option<PositionRecord> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum HeardRecord {
    Yes,
    No,
    Unknown,
}

impl From<Heard> for HeardRecord {
    fn from(h: Heard) -> Self {
        match h {
            Heard::Yes => Self::Yes,
            Heard::No => Self::No,
            Heard::Unknown => Self::Unknown,
        }
    }
}

impl From<HeardRecord> for Heard {
    fn from(h: HeardRecord) -> Self {
        match h {
            HeardRecord::Yes => Self::Yes,
            HeardRecord::No => Self::No,
            HeardRecord::Unknown => Self::Unknown,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum AnswerRecord {
    Pledged {
        member: Option<String>,
        position: Option<PositionRecord>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unattached: Vec<UnattachedRecord>,
    },
    Stored {
        member: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        former: Vec<String>,
    },
    Vouched {
        member: String,
        nonce: u64,
    },
    Canvassed {
        member: Option<String>,
        heard: HeardRecord,
        able: bool,
        live: bool,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unattached: Vec<UnattachedRecord>,
    },
    Recalled {
        member: Option<String>,
        term: Option<PgTermSpec>,
    },
    Admitted {
        slot: String,
        from: String,
    },
    Diverged {
        timeline: u32,
        fork: String,
    },
    NotYet {},
    Refused {
        why: String,
        head: Option<String>,
        promised: Option<String>,
    },
}

#[derive(Serialize, Deserialize)]
struct PositionRecord {
    timeline: u32,
    end: String,
}

#[derive(Serialize, Deserialize)]
struct UnattachedRecord {
    incarnation: String,
    epoch: String,
}

fn write_unattached(notes: &[Unattached]) -> Vec<UnattachedRecord> {
    let record =
        |u: &Unattached| UnattachedRecord { incarnation: u.incarnation.to_string(), epoch: u.epoch.to_string() };
    notes.iter().map(record).collect()
}

fn read_unattached(records: &[UnattachedRecord]) -> Result<Vec<Unattached>, Malformed> {
    let note = |r: &UnattachedRecord| Ok(Unattached { incarnation: r.incarnation.parse()?, epoch: r.epoch.parse()? });
    records.iter().map(note).collect()
}

/// A question as it is sent.
pub(super) fn write_ask(set_uid: &str, ask: &Ask) -> Vec<u8> {
    let ask = match ask {
        Ask::Pledge { term } => AskRecord::Pledge { term: PgTermSpec::write(set_uid, term) },
        Ask::Store { term } => AskRecord::Store { term: PgTermSpec::write(set_uid, term) },
        Ask::Vouch { epoch, nonce, quorate } => {
            AskRecord::Vouch { epoch: epoch.to_string(), nonce: *nonce, quorate: *quorate }
        }
        Ask::Canvass { epoch } => AskRecord::Canvass { epoch: epoch.to_string() },
        Ask::Recall {} => AskRecord::Recall {},
        Ask::Attach { epoch, member, position } => AskRecord::Attach {
            epoch: epoch.to_string(),
            member: member.to_string(),
            position: position.map(Into::into),
        },
    };
    write(set_uid, Asking { ask })
}

/// A question as it came.
pub(super) fn read_ask(set_uid: &str, bytes: &[u8]) -> Result<Ask, MessageError> {
    Ok(match read::<Asking>(set_uid, bytes)?.ask {
        AskRecord::Pledge { term } => Ask::Pledge { term: read_term(set_uid, &term)? },
        AskRecord::Store { term } => Ask::Store { term: read_term(set_uid, &term)? },
        AskRecord::Vouch { epoch, nonce, quorate } => Ask::Vouch { epoch: epoch.parse()?, nonce, quorate },
        AskRecord::Canvass { epoch } => Ask::Canvass { epoch: epoch.parse()? },
        AskRecord::Recall {} => Ask::Recall {},
        AskRecord::Attach { epoch, member, position } => Ask::Attach {
            epoch: epoch.parse()?,
            member: member.parse()?,
            position: position.map(TryInto::try_into).transpose()?,
        },
    })
}

/// An answer as it is sent.
pub(super) fn write_answer(set_uid: &str, answer: &Answer) -> Vec<u8> {
    let text = |m: &Option<MemberId>| m.as_ref().map(ToString::to_string);
    let answer = match answer {
        Answer::Pledged { member, position, unattached } => AnswerRecord::Pledged {
            member: text(member),
            position: position.map(Into::into),
            unattached: write_unattached(unattached),
        },
        Answer::Stored { member, former } => {
            AnswerRecord::Stored { member: text(member), former: former.iter().map(ToString::to_string).collect() }
        }
        Answer::Vouched { member, nonce } => AnswerRecord::Vouched { member: member.to_string(), nonce: *nonce },
        Answer::Canvassed { member, heard, able, live, unattached } => AnswerRecord::Canvassed {
            member: text(member),
            heard: (*heard).into(),
            able: *able,
            live: *live,
            unattached: write_unattached(unattached),
        },
        Answer::Recalled { member, term } => {
            AnswerRecord::Recalled { member: text(member), term: term.as_ref().map(|t| PgTermSpec::write(set_uid, t)) }
        }
        Answer::Admitted { slot, from } => AnswerRecord::Admitted { slot: slot.clone(), from: from.to_string() },
        Answer::Diverged { timeline, fork } => AnswerRecord::Diverged { timeline: timeline.0, fork: fork.to_string() },
        Answer::NotYet => AnswerRecord::NotYet {},
        Answer::Refused { why, head, promised } => AnswerRecord::Refused {
            why: why.clone(),
            head: head.as_ref().map(ToString::to_string),
            promised: promised.as_ref().map(ToString::to_string),
        },
    };
    write(set_uid, Answering { answer })
}

/// An answer as it came.
pub(super) fn read_answer(set_uid: &str, bytes: &[u8]) -> Result<Answer, MessageError> {
    fn parse<T: std::str::FromStr<Err = Malformed>>(text: Option<String>) -> Result<Option<T>, Malformed> {
        text.map(|t| t.parse()).transpose()
    }
    Ok(match read::<Answering>(set_uid, bytes)?.answer {
        AnswerRecord::Pledged { member, position, unattached } => Answer::Pledged {
            member: parse(member)?,
            position: position.map(TryInto::try_into).transpose()?,
            unattached: read_unattached(&unattached)?,
        },
        AnswerRecord::Stored { member, former } => Answer::Stored {
            member: parse(member)?,
            former: former.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
        },
        AnswerRecord::Vouched { member, nonce } => Answer::Vouched { member: member.parse()?, nonce },
        AnswerRecord::Canvassed { member, heard, able, live, unattached } => Answer::Canvassed {
            member: parse(member)?,
            heard: heard.into(),
            able,
            live,
            unattached: read_unattached(&unattached)?,
        },
        AnswerRecord::Recalled { member, term } => {
            Answer::Recalled { member: parse(member)?, term: term.map(|t| read_term(set_uid, &t)).transpose()? }
        }
        AnswerRecord::Admitted { slot, from } => Answer::Admitted { slot, from: from.parse()? },
        AnswerRecord::Diverged { timeline, fork } => {
            Answer::Diverged { timeline: TimelineId(timeline), fork: fork.parse()? }
        }
        AnswerRecord::NotYet {} => Answer::NotYet,
        AnswerRecord::Refused { why, head, promised } => {
            Answer::Refused { why, head: parse::<ChangeId>(head)?, promised: parse::<Epoch>(promised)? }
        }
    })
}

impl From<Position> for PositionRecord {
    fn from(p: Position) -> Self {
        Self { timeline: p.timeline.0, end: p.end.to_string() }
    }
}

impl TryFrom<PositionRecord> for Position {
    type Error = Malformed;

    fn try_from(p: PositionRecord) -> Result<Self, Malformed> {
        Ok(Self { timeline: TimelineId(p.timeline), end: p.end.parse()? })
    }
}

fn read_term(set_uid: &str, record: &PgTermSpec) -> Result<Term, MessageError> {
    same_set(set_uid, &record.set_uid)?;
    record
        .read()
        .map_err(|e| MessageError::NotUnderstood(e.to_string()))?
        .ok_or_else(|| MessageError::NotUnderstood("it holds a term of number 0".to_owned()))
}

fn same_set(ours: &str, theirs: &str) -> Result<(), MessageError> {
    if ours == theirs {
        return Ok(());
    }
    let theirs = theirs.chars().take(60).collect();
    Err(MessageError::OtherSet { theirs, ours: ours.to_owned() })
}

fn write<T: Serialize>(set_uid: &str, content: T) -> Vec<u8> {
    // Strings, numbers and lists only: this cannot fail, and an empty body would be refused by the other side.
    serde_json::to_vec(&Message { version: VERSION, set_uid: set_uid.to_owned(), content }).unwrap_or_default()
}

fn read<T: for<'a> Deserialize<'a>>(set_uid: &str, bytes: &[u8]) -> Result<T, MessageError> {
    let not_understood = |e: serde_json::Error| MessageError::NotUnderstood(e.to_string());
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(not_understood)?;
    if envelope.version != VERSION {
        return Err(MessageError::Version(envelope.version));
    }
    same_set(set_uid, &envelope.set_uid)?;
    serde_json::from_slice(bytes).map_err(not_understood)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;

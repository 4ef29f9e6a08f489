//! What a step does, in words.

use crate::bench::{epoch, member, name};
use pgconvoy_ha::{Answer, Ask, Effect, Event, Heard, Output, Record, SwapOutcome, WantKind};
use pgconvoy_terms::{Lsn, Phase, Position};

const WANTS: &str = "asks for the Lease";
/// Whoever wants the Lease does so first.
const TRIES: &str = "writes to its disk to see that it can";

/// Deeds as they are told.
pub(crate) fn sentence(deeds: &[String]) -> String {
    let wants = deeds.iter().any(|d| d == WANTS);
    let mut told: Vec<_> = deeds.iter().filter(|d| !(wants && *d == TRIES)).map(String::as_str).collect();
    for deed in &mut told {
        if *deed == WANTS {
            *deed = "writes to its disk, then asks for the Lease";
        }
    }
    told.join("; ")
}

/// What kind of thing an event is, and what it carries.
pub(crate) fn kinds(event: &Event) -> Vec<String> {
    let (kind, inner) = match event {
        Event::Tick => ("Tick", None),
        Event::Term { .. } => ("Term", None),
        Event::Swapped(outcome) => ("Swapped", Some(variant("SwapOutcome", outcome))),
        Event::Lease(_) => ("Lease", None),
        Event::Spec(_) => ("Spec", None),
        Event::Local(_) => ("Local", None),
        Event::Asked { ask, .. } => ("Asked", Some(variant("Ask", ask))),
        Event::Answered { answer: Ok(answer), .. } => ("Answered", Some(variant("Answer", answer))),
        Event::Answered { answer: Err(why), .. } => ("Answered", Some(variant("Unreachable", why))),
        Event::Checkpointed => ("Checkpointed", None),
        Event::HandOver { .. } => ("HandOver", None),
        Event::TakeOver { .. } => ("TakeOver", None),
        Event::Repair(_) => ("Repair", None),
        Event::Stop => ("Stop", None),
    };
    std::iter::once(format!("Event::{kind}")).chain(inner).collect()
}

fn variant(of: &str, value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    format!("{of}::{}", text.split([' ', '(', '{']).next().unwrap())
}

/// The deeds of one step, in their order: what is written down comes before PostgreSQL is told, and that before peers are.
pub(crate) fn deeds(record: &Record, before: &Output, now: &Output) -> Vec<String> {
    let mut deeds = vec![];
    let mut last = record;
    for effect in &now.effects {
        if let Effect::Persist(record) = effect {
            deeds.push(written(last, record).to_owned());
            last = record;
        }
    }
    if before.want != now.want {
        deeds.extend(wanted(&before.want.kind, &now.want.kind).map(str::to_owned));
    }
    deeds.extend(now.effects.iter().filter_map(effect));
    for (was, is, yes, no) in [
        (before.lease, now.lease, WANTS, "gives up the Lease"),
        (before.ready, now.ready, "Ready", "not Ready any more"),
        (before.done, now.done, "its agent ends", "goes on"),
    ] {
        if was != is {
            deeds.push((if is { yes } else { no }).to_owned());
        }
    }
    let leads = |o: &Output| o.publish.as_ref().is_some_and(|p| p.leader.is_some());
    if leads(now) && !leads(before) {
        deeds.push("the Services lead here".to_owned());
    }
    deeds
}

fn written(before: &Record, now: &Record) -> &'static str {
    if before.promised != now.promised {
        "writes its promise to disk"
    } else if before.head != now.head {
        "writes the term to disk"
    } else if before.led != now.led {
        "writes to disk that it leads"
    } else if before.making != now.making || before.incarnation != now.incarnation {
        "writes the name of its new data to disk"
    } else if before.unattached != now.unattached {
        "writes to disk that its data follows in this epoch"
    } else {
        TRIES
    }
}

fn wanted(before: &WantKind, now: &WantKind) -> Option<&'static str> {
    Some(match now {
        WantKind::Keep => return None,
        WantKind::Fenced => "kills PostgreSQL",
        WantKind::Stopped => "stops PostgreSQL in order",
        WantKind::Found { .. } => "makes the database",
        WantKind::Clone { .. } => "copies the data",
        WantKind::Rewind { .. } => "rewinds its data",
        WantKind::Detached => "PostgreSQL receives from nobody any more",
        WantKind::Follow { .. } => "PostgreSQL follows the leader",
        WantKind::Lead { gate: true, .. } => match before {
            WantKind::Lead { gate: true, .. } => "another rule is put in force",
            _ => "lets clients in",
        },
        WantKind::Lead { .. } => "promotes PostgreSQL, without clients",
    })
}

fn effect(effect: &Effect) -> Option<String> {
    let text = match effect {
        Effect::Persist(_) => return None,
        Effect::Swap { term, .. } => match (term.phase, term.rules.len()) {
            (Phase::Recruiting, 0) => "**opens the next epoch, without the rules that stood**",
            (Phase::Recruiting, _) => "**opens the next epoch**",
            (Phase::Elected, _) => "**elects**",
            (Phase::Active, 1) => "**makes the epoch active**",
            (Phase::Active, _) => "**records `[old, new]`**",
        },
        Effect::Read => "reads the PgTerm anew",
        Effect::Ask { ask, .. } => match ask {
            Ask::Pledge { .. } => "asks the others for their promise",
            Ask::Store { .. } => "has the others store the term",
            Ask::Vouch { .. } => "asks its followers whether they vouch for the epoch",
            Ask::Canvass { .. } => "asks the others whether they hear a leader",
            Ask::Recall {} => "asks the others for their records",
            Ask::Attach { .. } => "asks the leader to be let in",
        },
        Effect::Reply { answer, .. } => return Some(reply(answer)),
        Effect::Admit { .. } => "looks at the follower's log before it makes its slot",
        Effect::Checkpoint => "runs checkpoints while it serves",
        Effect::RefuseRequest { .. } => "refuses the request, and says why",
        Effect::Tell { reason, .. } => return Some(format!("Event `{reason}`")),
        Effect::Alarm { reason, .. } => return Some(format!("Event `{reason}`, as a warning")),
    };
    Some(text.to_owned())
}

fn reply(answer: &Answer) -> String {
    let text = match answer {
        Answer::Pledged { member: None, .. } => "promised, and that it has no data",
        Answer::Pledged { position: None, .. } => "promised, and that its position is not known",
        Answer::Pledged { .. } => "promised, and how much log it has",
        Answer::Stored { .. } => "stored",
        Answer::Vouched { .. } => "it is",
        Answer::Canvassed { heard: Heard::Yes, .. } => "yes, it hears one",
        Answer::Canvassed { heard: Heard::No, .. } => "no, it hears none",
        Answer::Canvassed { heard: Heard::Unknown, .. } => "not known yet",
        Answer::Recalled { .. } => "with its record",
        Answer::Admitted { .. } => "you may stream",
        Answer::Diverged { .. } => "your log left mine",
        Answer::NotYet => "not yet",
        Answer::Refused { .. } => "no, with what it goes by",
    };
    format!("answers: {text}")
}

/// What a member that goes along answers.
pub(crate) fn friend(from: u32, ask: &Ask) -> Answer {
    let position = Some(Position { timeline: epoch(crate::bench::EPOCH).timeline(), end: Lsn(0x500) });
    match ask {
        Ask::Pledge { .. } => Answer::Pledged { member: Some(member(from)), position, unattached: vec![] },
        Ask::Store { .. } => Answer::Stored { member: Some(member(from)), former: vec![] },
        Ask::Vouch { nonce, .. } => Answer::Vouched { member: member(from), nonce: *nonce },
        Ask::Canvass { .. } => Answer::Canvassed {
            member: Some(member(from)),
            heard: Heard::No,
            able: true,
            live: false,
            unattached: vec![],
        },
        Ask::Recall {} => Answer::Recalled { member: Some(member(from)), term: None },
        Ask::Attach { .. } => Answer::Admitted { slot: "slot".to_owned(), from: name(1) },
    }
}

/// Names an outcome of a change that was not tried.
pub(crate) fn lost() -> SwapOutcome {
    SwapOutcome::Lost
}

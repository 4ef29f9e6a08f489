use super::*;
use pgconvoy_terms::{Fork, Incarnation, Lsn, MemberName, Phase, Rule};
use std::collections::BTreeSet;

const UID: &str = "5f0c1a4e";

fn id(n: u128) -> ChangeId {
    ChangeId::from_random(n)
}

fn member(n: u32) -> MemberId {
    MemberId { name: MemberName::new("orders", n), incarnation: Incarnation::from_random(u128::from(n) << 7) }
}

fn epoch(number: u32) -> Epoch {
    Epoch { number, id: id(u128::from(number) << 20) }
}

fn term() -> Term {
    let rule = |n| Rule {
        epoch: epoch(n),
        leader: member(n),
        followers: BTreeSet::from([member(7), member(8)]),
        acknowledgements: 1,
    };
    Term {
        epoch: epoch(9),
        phase: Phase::Elected,
        leader: Some(member(1)),
        rules: vec![rule(8), rule(9)],
        lossy: false,
        history: vec![
            Fork { epoch: epoch(1), parent: None, at: None, leader: member(1), lossy: false },
            Fork {
                epoch: epoch(8),
                parent: Some(TimelineId(1)),
                at: Some(Lsn(0x16_B374_D848)),
                leader: member(2),
                lossy: true,
            },
        ],
        chain: vec![id(1), id(2), id(3)],
    }
}

fn note(n: u32) -> Unattached {
    Unattached { incarnation: member(n).incarnation, epoch: epoch(n) }
}

fn position() -> Position {
    Position { timeline: TimelineId(u32::MAX), end: Lsn(u64::MAX) }
}

#[test]
fn every_question_arrives_as_it_was_asked() {
    let recruiting = Term { phase: Phase::Recruiting, leader: None, rules: vec![], history: vec![], ..term() };
    for ask in [
        Ask::Pledge { term: term() },
        Ask::Pledge { term: recruiting },
        Ask::Store { term: Term { phase: Phase::Active, ..term() } },
        Ask::Vouch { epoch: epoch(3), nonce: u64::MAX, quorate: true },
        Ask::Canvass { epoch: epoch(3) },
        Ask::Recall {},
        Ask::Attach { epoch: epoch(u32::MAX), member: member(999), position: Some(position()) },
        Ask::Attach { epoch: epoch(1), member: member(2), position: None },
    ] {
        assert_eq!(read_ask(UID, &write_ask(UID, &ask)).unwrap(), ask);
    }
}

#[test]
fn every_answer_arrives_as_it_was_given() {
    for answer in [
        Answer::Pledged { member: Some(member(3)), position: Some(position()), unattached: vec![] },
        Answer::Pledged { member: Some(member(3)), position: None, unattached: vec![note(1), note(2)] },
        Answer::Pledged { member: None, position: None, unattached: vec![note(3)] },
        Answer::Stored { member: Some(member(1)), former: vec![] },
        Answer::Stored { member: None, former: vec![member(1).incarnation, member(2).incarnation] },
        Answer::Vouched { member: member(2), nonce: u64::MAX },
        Answer::Canvassed {
            member: Some(member(2)),
            heard: Heard::Unknown,
            able: true,
            live: false,
            unattached: vec![note(4)],
        },
        Answer::Canvassed { member: None, heard: Heard::No, able: false, live: false, unattached: vec![] },
        Answer::Recalled { member: Some(member(2)), term: Some(term()) },
        Answer::Recalled { member: None, term: None },
        Answer::Admitted { slot: "m1_aaaaaaaaaa_e1_aaaa".into(), from: MemberName::new("orders", 3) },
        Answer::Diverged { timeline: TimelineId(4), fork: Lsn(77) },
        Answer::NotYet,
        Answer::Refused { why: "\"no\"\n".into(), head: Some(id(4)), promised: Some(epoch(2)) },
        Answer::Refused { why: String::new(), head: None, promised: None },
    ] {
        assert_eq!(read_answer(UID, &write_answer(UID, &answer)).unwrap(), answer);
    }
}

/// Version 1 as it lies on the wire: agents of different versions meet during every upgrade, so this must never change.
#[test]
fn version_1_stays_as_it_is() {
    let vouch = Ask::Vouch { epoch: Epoch { number: 3, id: id(0) }, nonce: 5, quorate: false };
    let text =
        r#"{"version":1,"setUid":"5f0c1a4e","ask":{"vouch":{"epoch":"3.aaaaaaaaaaaaa","nonce":5,"quorate":false}}}"#;
    assert_eq!(String::from_utf8(write_ask(UID, &vouch)).unwrap(), text);
    let text = r#"{"version":1,"setUid":"5f0c1a4e","answer":{"diverged":{"timeline":4,"fork":"0/4D"}}}"#;
    let diverged = Answer::Diverged { timeline: TimelineId(4), fork: Lsn(77) };
    assert_eq!(String::from_utf8(write_answer(UID, &diverged)).unwrap(), text);
    // Fields of a later agent are ignored, absent ones are none.
    let later = r#"{"version":1,"setUid":"5f0c1a4e","hint":1,"answer":{"pledged":{"mood":"fine"}}}"#;
    let pledged = Answer::Pledged { member: None, position: None, unattached: vec![] };
    assert_eq!(read_answer(UID, later.as_bytes()).unwrap(), pledged);
    // What says nothing of where it did not follow is as it was before that could be said.
    let canvassed =
        Answer::Canvassed { member: Some(member(1)), heard: Heard::No, able: true, live: false, unattached: vec![] };
    let text = r#"{"version":1,"setUid":"5f0c1a4e","answer":{"canvassed":{"member":"orders-1/aeaaaaaaaa","heard":"no","able":true,"live":false}}}"#;
    assert_eq!(String::from_utf8(write_answer(UID, &canvassed)).unwrap(), text);
}

#[test]
fn what_is_not_understood_is_said() {
    let say = |text: &str| read_ask(UID, text.as_bytes()).unwrap_err().to_string();
    let unknown = say(r#"{"version":1,"setUid":"5f0c1a4e","ask":{"abdicate":{"epoch":"3.aaaaaaaaaaaaa"}}}"#);
    assert!(unknown.contains("abdicate"), "{unknown}");
    // A newer version may have any shape: it is refused for its version.
    assert_eq!(read_ask(UID, br#"{"version":2,"setUid":"5f0c1a4e","question":[]}"#), Err(MessageError::Version(2)));
    assert!(say("").contains("not understood"));
    assert!(say(r#"{"version":1,"setUid":"other","ask":{}}"#).contains("other"));
    let bad_epoch = say(r#"{"version":1,"setUid":"5f0c1a4e","ask":{"vouch":{"epoch":"3","nonce":5,"quorate":true}}}"#);
    assert!(bad_epoch.contains("epoch"), "{bad_epoch}");
    let negative = say(r#"{"version":1,"setUid":"5f0c1a4e","ask":{"vouch":{"epoch":"3.aaaaaaaaaaaaa","nonce":-1}}}"#);
    assert!(negative.contains("-1"), "{negative}");
}

#[test]
fn a_term_of_another_set_is_refused_wherever_its_name_stands() {
    let ask = Ask::Pledge { term: term() };
    assert!(matches!(read_ask("other", &write_ask(UID, &ask)), Err(MessageError::OtherSet { .. })));
    let inside =
        String::from_utf8(write_ask(UID, &ask)).unwrap().replacen(UID, "x", 2).replacen("\"x\"", "\"5f0c1a4e\"", 1);
    assert!(matches!(read_ask(UID, inside.as_bytes()), Err(MessageError::OtherSet { .. })), "{inside}");
    let zero = format!(
        r#"{{"version":1,"setUid":"{UID}","ask":{{"store":{{"term":{}}}}}}}"#,
        serde_json::to_string(&PgTermSpec::zero(UID)).unwrap()
    );
    assert!(read_ask(UID, zero.as_bytes()).unwrap_err().to_string().contains("number 0"));
}

#[test]
fn a_full_term_fits_a_message() {
    let mut full = term();
    (0..2_000).for_each(|n| full.push_change(id(n)));
    full.history = (0..64).map(|_| term().history[1].clone()).collect();
    full.rules = (0..20).map(|_| term().rules[0].clone()).collect();
    let size = write_ask(UID, &Ask::Pledge { term: full }).len();
    assert!(size < super::super::MESSAGE_LIMIT / 4, "{size} bytes");
}
